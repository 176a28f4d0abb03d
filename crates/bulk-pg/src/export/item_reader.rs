use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::pool::Pool;
use super::selection::Part;
use super::{ExportSnapshotOptions, Selection};
use crate::Error;
use crate::copy_reader::{CopiedRow, CopyReader};

/// Rows on their way here from several connections.
///
/// They read ahead until as many bytes wait as may. Dropping it closes the connections that are reading.
#[derive(Debug)]
pub struct ItemReader {
    batches: mpsc::Receiver<Result<Rows, Error>>,
    // Dropped, they are aborted.
    tasks: JoinSet<()>,
}

/// Rows of one [`Selection`].
#[derive(Debug)]
pub struct ItemBatch<'a> {
    rows: Rows,
    // While it is held, its bytes count as waiting; so nobody is to wait for more.
    _reader: PhantomData<&'a mut ItemReader>,
}

#[derive(Debug)]
struct Rows {
    selection: usize,
    name: Arc<str>,
    rows: Vec<Bytes>,
    /// What its bytes take of the memory.
    _permit: OwnedSemaphorePermit,
}

/// A row: as much of it as was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ItemRow<'a> {
    /// The id, if it is not NULL.
    pub id: Option<&'a str>,
    /// The group, if it is not NULL.
    pub group: Option<&'a str>,
    /// The time of the last change in seconds since 1970-01-01 UTC, rounded down. 0 where it is NULL, infinite, or not
    /// selected.
    pub mtime: i64,
    /// The JSON, if it is not NULL. Nobody has looked whether text is JSON.
    pub json: Option<&'a [u8]>,
}

/// Rows travel together until they have so many bytes, each with what it takes beside.
const BATCH: usize = 256 << 10;
const BESIDE: usize = 64;
/// The unit in which memory is counted.
const UNIT: usize = 1 << 10;

impl ItemReader {
    pub(super) fn start(pool: &Arc<Pool>, selections: Vec<Selection>, options: &ExportSnapshotOptions) -> Self {
        let mut parts = Vec::new();
        for (selection, Selection { name, parts: of_it }) in selections.into_iter().enumerate() {
            let name: Arc<str> = name.into();
            parts.extend(of_it.into_iter().map(|part| Work { selection, name: Arc::clone(&name), part }));
        }
        // What takes longest is begun first, so that no connection is left alone with it.
        parts.sort_by_key(|work| std::cmp::Reverse(work.part.bytes));
        let connections = options.connections.max(1).min(parts.len());
        let (sender, batches) = mpsc::channel(connections.max(1));
        let units = usize::try_from(options.memory).unwrap_or(usize::MAX) / UNIT;
        let shared = Arc::new(Shared {
            pool: Arc::clone(pool),
            parts,
            next: AtomicUsize::new(0),
            memory: Arc::new(Semaphore::new(units.clamp(BATCH / UNIT, MOST_UNITS as usize))),
            units: u32::try_from(units).unwrap_or(MOST_UNITS).clamp((BATCH / UNIT) as u32, MOST_UNITS),
        });
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let (shared, sender) = (Arc::clone(&shared), sender.clone());
            tasks.spawn(async move {
                if let Err(error) = shared.work(&sender).await {
                    // Nobody else need begin anything.
                    shared.next.store(shared.parts.len(), Ordering::Relaxed);
                    let _ = sender.send(Err(error)).await;
                }
            });
        }
        Self { batches, tasks }
    }

    /// The next rows; none behind the last ones. After an error, what follows is no longer whole.
    ///
    /// # Errors
    ///
    /// [`Error::Database`], [`Error::Connect`].
    pub async fn next_batch(&mut self) -> Result<Option<ItemBatch<'_>>, Error> {
        if let Some(batch) = self.batches.recv().await {
            return batch.map(|rows| Some(ItemBatch { rows, _reader: PhantomData }));
        }
        // All have let go of their ends: whether they came to theirs is to be seen.
        while let Some(ended) = self.tasks.join_next().await {
            if ended.is_err() {
                return Err(Error::Received { what: "nothing more: a task of ours was lost" });
            }
        }
        Ok(None)
    }
}

/// The most that one acquisition can ask for is a `u32`.
const MOST_UNITS: u32 = 1 << 28;

struct Work {
    selection: usize,
    name: Arc<str>,
    part: Part,
}

/// What the connections of a reader share.
struct Shared {
    pool: Arc<Pool>,
    parts: Vec<Work>,
    next: AtomicUsize,
    memory: Arc<Semaphore>,
    /// How much of it there is.
    units: u32,
}

impl Shared {
    async fn work(&self, sender: &mpsc::Sender<Result<Rows, Error>>) -> Result<(), Error> {
        let mut session = None;
        while let Some(work) = self.parts.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let client = match session.take() {
                Some(session) => session,
                None => self.pool.take().await?,
            };
            let of = |error| match error {
                Error::Database { source, .. } => {
                    Error::Database { action: format!("read the items of {}", work.name), source }
                }
                other => other,
            };
            let mut reader = CopyReader::begin(client.client(), &work.part.query).await.map_err(of)?;
            let (mut rows, mut bytes) = (Vec::new(), 0);
            while let Some(row) = reader.next_row_owned().await.map_err(of)? {
                bytes += row.len() + BESIDE;
                rows.push(row);
                if bytes >= BATCH {
                    if !self.send(work, std::mem::take(&mut rows), bytes, sender).await {
                        return Ok(());
                    }
                    bytes = 0;
                }
            }
            if !rows.is_empty() && !self.send(work, rows, bytes, sender).await {
                return Ok(());
            }
            session = Some(client);
        }
        if let Some(session) = session {
            self.pool.give_back(session);
        }
        Ok(())
    }

    /// Whether anybody wants more.
    async fn send(
        &self,
        work: &Work,
        rows: Vec<Bytes>,
        bytes: usize,
        sender: &mpsc::Sender<Result<Rows, Error>>,
    ) -> bool {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units);
        // It is never closed.
        let Ok(permit) = Arc::clone(&self.memory).acquire_many_owned(units).await else { return false };
        let batch = Rows { selection: work.selection, name: Arc::clone(&work.name), rows, _permit: permit };
        sender.send(Ok(batch)).await.is_ok()
    }
}

impl ItemBatch<'_> {
    /// The place of their selection among those that are read.
    pub fn selection(&self) -> usize {
        self.rows.selection
    }

    /// What the items are called.
    pub fn name(&self) -> &str {
        &self.rows.name
    }

    /// The rows. One that cannot be read is [`Error::Received`], such as an id that is not UTF-8, which only a database without
    /// an encoding (`SQL_ASCII`) has.
    pub fn rows(&self) -> impl Iterator<Item = Result<ItemRow<'_>, Error>> {
        self.rows.rows.iter().map(|row| ItemRow::read(row))
    }
}

impl<'a> ItemRow<'a> {
    fn read(row: &'a [u8]) -> Result<Self, Error> {
        /// From 1970 to 2000.
        const EPOCH: i64 = 946_684_800;
        let mut fields = CopiedRow::new(row);
        let mut next = || if fields.is_empty() { Ok(None) } else { fields.next_field() };
        let text = |field: Option<&'a [u8]>| match field.map(simdutf8::basic::from_utf8).transpose() {
            Ok(text) => Ok(text),
            Err(_) => Err(Error::Received { what: "an id or a group that is not UTF-8" }),
        };
        let (id, group) = (text(next()?)?, text(next()?)?);
        let mtime = match next()? {
            None => 0,
            Some(time) => {
                let time =
                    time.try_into().map_err(|_| Error::Received { what: "a time that is not of eight bytes" })?;
                match i64::from_be_bytes(time) {
                    // Of the beginning and the end of time.
                    i64::MIN | i64::MAX => 0,
                    time => time.div_euclid(1_000_000) + EPOCH,
                }
            }
        };
        Ok(Self { id, group, mtime, json: next()? })
    }
}
