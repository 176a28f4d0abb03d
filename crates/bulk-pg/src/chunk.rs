//! The transaction of one chunk: its rows, its rejects and its mark.

use std::pin::Pin;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::SinkExt;
use tokio::sync::mpsc;
use tokio_postgres::{CopyInSink, Transaction};

use crate::chunk_content::of_chunk;
use crate::content::Content;
use crate::copy_data;
use crate::copy_format::Encoding;
use crate::error::Cause;
use crate::feed::{Chunk, Piece, Rows};
use crate::ledger::Load;
use crate::lines::Lines;
use crate::place::Place;
use crate::reader::{Extent, Layout, Reader};
use crate::received::{Kept, Received};
use crate::rejects::{self, Reject};
use crate::repair::{Repaired, is_text};
use crate::rows::RowMaker;
use crate::salvage::{KEEP, UNDO, known, salvage};
use crate::span::in_span;
use crate::stage::{Watch, WorkerState};
use crate::turns::{Turn, Turns};
use crate::{Checkpoint, CopyBinary, Error, FileIdentity, Position, RecordError, RecordOptions, Session, TableName};

/// An expression for what a COPY into the table of the name `$1` depends on. The COPY's lock keeps it until the end of the
/// transaction.
pub(crate) const SHAPE: &str = "(
    SELECT pg_catalog.string_agg(concat_ws(' ', attrelid, attnum, attname, atttypid, atttypmod), ', ' ORDER BY attnum)
    FROM pg_catalog.pg_attribute
    WHERE attrelid = pg_catalog.to_regclass($1) AND attnum > 0 AND NOT attisdropped)";

/// Where a load's chunks go.
pub(crate) struct Destination<'a> {
    pub(crate) file: &'a FileIdentity,
    pub(crate) table: &'a TableName,
    pub(crate) load: &'a Load,
    /// The one that may commit.
    pub(crate) attempt: i64,
    /// The table's [`SHAPE`] when it was read what goes where.
    pub(crate) shape: Option<String>,
    /// `"a", "b"`.
    pub(crate) columns: &'a str,
    /// If records may be left out.
    pub(crate) tolerance: Option<Tolerance>,
    /// Whether the rows' content is noted with the mark.
    pub(crate) is_hashed: bool,
    /// Whether all chunks go in one transaction, which has emptied the table.
    pub(crate) is_frozen: bool,
}

/// What it takes to leave out records.
pub(crate) struct Tolerance {
    /// How many may be left out.
    pub(crate) limit: u64,
    /// How many are, of the chunks that are committed.
    pub(crate) rejected: AtomicU64,
    /// Whether several sessions send chunks.
    pub(crate) several: bool,
    pub(crate) turns: Turns,
    /// How to read the records, and to make rows of them.
    pub(crate) layout: Layout,
    pub(crate) max_record: usize,
    pub(crate) maker: RowMaker,
}

/// A chunk that is committed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    pub(crate) start: Position,
    /// Where it ends.
    pub(crate) end: Position,
    pub(crate) counts: Counts,
}

/// What is noted of a chunk.
pub(crate) struct Mark {
    pub(crate) start: Position,
    pub(crate) end: Position,
    pub(crate) guarded: bool,
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) counts: Counts,
    pub(crate) content: Option<Content>,
}

/// Records of which something is to be said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// They were left out.
    pub(crate) rejected: u64,
    /// They did not meet the conditions.
    pub(crate) filtered: u64,
    /// They are in the table, and their text was repaired.
    pub(crate) repaired: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, more: Self) {
        self.rejected += more.rejected;
        self.filtered += more.filtered;
        self.repaired += more.repaired;
    }
}

/// How long a chunk that is sent before its turn waits for a lock: the one that holds it may wait for that very turn.
const LOCK_WAIT: &str = "SET LOCAL lock_timeout = '1s'";

impl Destination<'_> {
    /// Sends a chunk and commits it with its mark. `None` if it was cut short, or one before it was: whoever feeds or
    /// sends that knows why.
    ///
    /// Whatever ends it early, a drop included, rolls the chunk back.
    pub(crate) async fn copy(
        &self,
        session: &mut Session,
        chunk: Chunk,
        watch: &Watch,
    ) -> Result<Option<Committed>, Error> {
        let place = chunk.place;
        let copying = self.copy_in_turn(session, chunk, watch);
        let result = in_span!("chunk", { file = %self.file.key }, copying).await;
        if let Some(Tolerance { turns, .. }) = &self.tolerance {
            if matches!(result, Ok(Some(_))) { turns.done() } else { turns.break_off(place) }
        }
        result
    }

    async fn copy_in_turn(
        &self,
        session: &mut Session,
        mut chunk: Chunk,
        watch: &Watch,
    ) -> Result<Option<Committed>, Error> {
        // The transaction begins when there is something to send.
        let waiting = watch.waits(WorkerState::WaitsForInput);
        let Some(first) = chunk.pieces.recv().await else { return Ok(None) };
        drop(waiting);
        // What is done here besides takes less than the database's part in it.
        let _waiting = watch.waits(WorkerState::WaitsForServer);
        let action = Error::database(format!("load a chunk of {}", self.file.key));
        let transaction = session.client_mut().transaction().await.map_err(action)?;
        let Some((committed, received)) = self.fill(&transaction, chunk, first, watch).await? else { return Ok(None) };
        // Deferred constraints are checked here.
        transaction.commit().await.map_err(|error| self.refusal(slice::from_ref(&received), None, error))?;
        if let Some(tolerance) = &self.tolerance {
            tolerance.rejected.fetch_add(committed.counts.rejected, Ordering::Relaxed);
        }
        Ok(Some(committed))
    }

    /// Sends a chunk with its mark within a transaction that is to take others, too. `None` as of [`copy`](Self::copy).
    pub(crate) async fn copy_within(
        &self,
        transaction: &Transaction<'_>,
        mut chunk: Chunk,
        watch: &Watch,
    ) -> Result<Option<Committed>, Error> {
        let waiting = watch.waits(WorkerState::WaitsForInput);
        let Some(first) = chunk.pieces.recv().await else { return Ok(None) };
        drop(waiting);
        let _waiting = watch.waits(WorkerState::WaitsForServer);
        Ok(self.fill(transaction, chunk, first, watch).await?.map(|(committed, _)| committed))
    }

    /// Sends a chunk of which the first piece has come, and its mark, and commits neither.
    async fn fill(
        &self,
        transaction: &Transaction<'_>,
        chunk: Chunk,
        first: Piece,
        watch: &Watch,
    ) -> Result<Option<(Committed, Received)>, Error> {
        let Chunk { start, place, mut pieces } = chunk;
        let action = || format!("load a chunk of {}", self.file.key);
        if let Some(Tolerance { several, .. }) = &self.tolerance {
            let sql = if *several { format!("{LOCK_WAIT}; {KEEP}") } else { KEEP.to_owned() };
            transaction.batch_execute(&sql).await.map_err(Error::database(action()))?;
        }

        let mut received = Received::new(start);
        let mut copy = Copy::new(self, transaction);
        let sent = copy.send_chunk(Some(first), &mut pieces, slice::from_mut(&mut received), 0, watch).await?;
        let Some(Sent { end, guarded, checkpoint, mut refusal }) = sent else { return Ok(None) };
        if refusal.is_none() {
            refusal = self.tolerated(copy.finish(slice::from_ref(&received)).await)?;
        }
        // Of several sessions, what was refused may have missed what one before it had not committed yet.
        let is_alone = self.tolerance.as_ref().is_some_and(|tolerance| !tolerance.several);
        let known =
            refusal.as_ref().filter(|_| is_alone && copy.ended == 1).and_then(|error| known(self, &received, error));

        let hashed = std::mem::take(&mut received.hashed);
        let mut content = None;
        let mut counts = Counts { rejected: 0, filtered: received.filtered, repaired: received.repaired };
        if self.is_hashed && self.tolerance.is_none() {
            content = Some(of_chunk(self, transaction, &received, hashed, &[]).await?);
        } else if let Some(tolerance) = &self.tolerance {
            // What was deferred is checked while something can be done about it.
            if refusal.is_none() {
                let checked = transaction.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await;
                refusal =
                    self.tolerated(checked.map_err(|error| self.refusal(slice::from_ref(&received), None, error)))?;
            }
            let turn = if refusal.is_none() { tolerance.turns.wait(place).await } else { Turn::Yield };
            let kept = (turn == Turn::Yield || !received.rejects.is_empty()).then(|| received.kept());
            let mut left_out = Vec::new();
            match turn {
                Turn::Now => {}
                Turn::Never => return Ok(None),
                Turn::Yield => {
                    transaction.batch_execute(UNDO).await.map_err(Error::database(action()))?;
                    if tolerance.turns.wait_empty(place).await == Turn::Never {
                        return Ok(None);
                    }
                    if let Some(kept) = &kept {
                        left_out = salvage(self, tolerance, transaction, &received, kept, known).await?;
                    }
                }
            }
            if tolerance.several {
                // It is its turn, and nobody waits for it who holds what it needs.
                transaction.batch_execute("SET LOCAL lock_timeout = 0").await.map_err(Error::database(action()))?;
            }
            if self.is_hashed {
                content = Some(of_chunk(self, transaction, &received, hashed, &left_out).await?);
            }
            if let Some(kept) = &kept {
                if counts.repaired > 0 {
                    let repaired = left_out.iter().filter(|reject| !is_text(kept.record(reject.index)));
                    counts.repaired -= repaired.count() as u64;
                }
                counts.rejected = self.note(tolerance, transaction, &received.rejects, left_out, kept).await?;
            }
        }
        let mark = Mark { start, end, guarded, checkpoint, counts, content };
        self.mark(transaction, slice::from_ref(&mark)).await?;
        Ok(Some((Committed { start, end, counts }, received)))
    }

    /// Tells a failure that something can be done about from others.
    fn tolerated(&self, result: Result<(), Error>) -> Result<Option<Error>, Error> {
        match (result, &self.tolerance) {
            (Ok(()), _) => Ok(None),
            (Err(error @ Error::Copy { .. }), Some(Tolerance { several, .. }))
                if error.is_of_rows() || *several && error.is_of_locks() =>
            {
                Ok(Some(error))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Notes all rejects of a chunk, and tells how many they are.
    async fn note(
        &self,
        tolerance: &Tolerance,
        transaction: &Transaction<'_>,
        before: &[Reject],
        left_out: Vec<Reject>,
        kept: &Kept<'_>,
    ) -> Result<u64, Error> {
        let mut all = [before, &left_out].concat();
        all.sort_by_key(|reject| reject.index);
        if let Some(reject) = usize::try_from(tolerance.left()).ok().and_then(|left| all.get(left)) {
            return Err(reject.too_many(&self.file.key, tolerance.limit, kept));
        }
        rejects::insert(transaction, self.load, &tolerance.layout, kept, &all).await?;
        Ok(all.len() as u64)
    }

    /// Notes chunks in the transaction that has their rows.
    pub(crate) async fn mark(&self, transaction: &Transaction<'_>, marks: &[Mark]) -> Result<(), Error> {
        let action = || Error::database(format!("load a chunk of {}", self.file.key));
        let rejected: u64 = marks.iter().map(|mark| mark.counts.rejected).sum();
        if rejected > 0 {
            transaction
                .execute(
                    "UPDATE bulk.load SET rejected = rejected + $3 WHERE id = $1 AND attempt = $2",
                    &[&self.load.id, &self.attempt, &(rejected as i64)],
                )
                .await
                .map_err(action())?;
        }
        let sql = format!(
            "INSERT INTO bulk.chunk (load_id, chunk, first_record, records, first_byte, bytes, guarded, rejected,
                                     checkpoint_byte, checkpoint, filtered, repaired, content)
             SELECT id, $5::bigint, $6::bigint, $7::bigint, $8::bigint, $9::bigint, $10::boolean, $11::bigint,
                    $12::bigint, $13::text, $14::bigint, $15::bigint, $16::text::numeric
             FROM bulk.load WHERE id = $2 AND attempt = $3 AND {SHAPE} = $4 FOR SHARE"
        );
        let statement = transaction.prepare(&sql).await.map_err(action())?;
        for Mark { start, end, guarded, checkpoint, counts, content } in marks {
            let marked = transaction
                .execute(
                    &statement,
                    &[
                        &self.table.to_string(),
                        &self.load.id,
                        &self.attempt,
                        &self.shape,
                        &(start.chunk as i64),
                        &(start.record as i64),
                        &((end.record - start.record) as i64),
                        &(start.offset as i64),
                        &((end.offset - start.offset) as i64),
                        guarded,
                        &(counts.rejected as i64),
                        &checkpoint.as_ref().map(|checkpoint| checkpoint.offset as i64),
                        &checkpoint.as_ref().map(|checkpoint| checkpoint.text.as_str()),
                        &(counts.filtered as i64),
                        &(counts.repaired as i64),
                        &content.as_ref().map(|content| content.sum.to_string()),
                    ],
                )
                .await
                .map_err(action())?;
            if marked == 0 {
                let what =
                    format!("is loaded from {} by another session by now, or was emptied or altered", self.file.key);
                return Err(Error::Occupied { table: self.table.clone(), what });
            }
        }
        Ok(())
    }

    pub(crate) fn statement(&self, encoding: Encoding) -> String {
        let options = match (encoding, self.is_frozen) {
            (Encoding::Text, false) => "",
            (Encoding::Text, true) => " (FREEZE)",
            (Encoding::Binary, false) => " (FORMAT binary)",
            (Encoding::Binary, true) => " (FORMAT binary, FREEZE)",
        };
        format!("COPY {} ({}) FROM STDIN{options}", self.table, self.columns)
    }

    /// What the server says of rows of these chunks, in a COPY with these lines if it was one.
    pub(crate) fn refusal(&self, received: &[Received], lines: Option<&Lines>, error: tokio_postgres::Error) -> Error {
        let (file, table) = (self.file.key.clone(), Box::new(self.table.clone()));
        let Some(answer) = error.as_db_error() else {
            return Error::Database { action: format!("load {file} into {table:#}"), source: Cause(error) };
        };
        let place = answer.where_().and_then(|context| Place::find(context, table.name.as_str()));
        let index = place.as_ref().and_then(|place| lines?.record(place.line));
        let (first, last, offset, column) = match index.and_then(|index| Received::find(received, index)) {
            Some((chunk, index)) => {
                let record = chunk.start.record + index + 1;
                (record, record, chunk.offset(index), place.and_then(|place| place.column))
            }
            None => {
                let first = received.first().map_or(Position::default(), |chunk| chunk.start);
                let last = received.last().map_or(0, |chunk| chunk.start.record + chunk.records.max(1));
                (first.record + 1, last, Some(first.offset), None)
            }
        };
        Error::Copy { file, table, first, last, offset, column, source: Cause(error) }
    }

    /// The server took other rows than were sent.
    pub(crate) fn compare(&self, sent: u64, taken: u64) -> Result<(), Error> {
        if sent == taken {
            return Ok(());
        }
        Err(Error::RowCount { file: self.file.key.clone(), table: self.table.clone(), sent, taken })
    }
}

impl Tolerance {
    /// Reads records that are kept as they were read before.
    pub(crate) fn read<'r>(&self, start: Position, raw: &'r [u8]) -> Reader<&'r [u8]> {
        let mut options = RecordOptions::default();
        options.chunk_size = u64::MAX;
        options.max_record = self.max_record;
        options.buffer_size = options.buffer_size.min(raw.len());
        self.layout.resume(raw, Extent::ToBorder, start, options)
    }

    /// Appends a row of the next of records that are kept, repaired as it was before. False for one that
    /// is left out, `None` at their end.
    pub(crate) fn append_next(
        &self,
        records: &mut Reader<&[u8]>,
        is_left_out: bool,
        rows: &mut Vec<u8>,
    ) -> Result<Option<bool>, RecordError> {
        match records.next_record() {
            Ok(None) => return Ok(None),
            Ok(Some(_)) if is_left_out => {}
            Ok(Some(record)) => self.maker.append(&record, rows),
            Err(error) if is_left_out && error.is_reject() => {}
            Err(error) => {
                let bad = records.bad_text(&error);
                let repaired = bad.and_then(|bad| Some((bad, Repaired::new(&bad, self.max_record)?)));
                let Some((bad, repaired)) = repaired else { return Err(error) };
                self.maker.append(&repaired.in_place_of(&bad), rows);
            }
        }
        Ok(Some(!is_left_out))
    }

    /// How many more may be left out, of the chunk whose turn it is and those behind it.
    pub(crate) fn left(&self) -> u64 {
        self.limit.saturating_sub(self.rejected.load(Ordering::Relaxed))
    }
}

/// The rows of chunks on their way: one COPY after the other, as their format changes.
pub(crate) struct Copy<'a> {
    destination: &'a Destination<'a>,
    transaction: &'a Transaction<'a>,
    under_way: Option<UnderWay>,
    /// Those before it, or it, too, if it failed.
    ended: u32,
}

/// A chunk all of whose rows were sent.
pub(crate) struct Sent {
    pub(crate) end: Position,
    pub(crate) guarded: bool,
    pub(crate) checkpoint: Option<Checkpoint>,
    /// Why the server has not taken them, where something can be done about it.
    pub(crate) refusal: Option<Error>,
}

struct UnderWay {
    sink: Pin<Box<CopyInSink<Bytes>>>,
    encoding: Encoding,
    lines: Lines,
}

impl<'a> Copy<'a> {
    pub(crate) fn new(destination: &'a Destination<'a>, transaction: &'a Transaction<'a>) -> Self {
        Self { destination, transaction, under_way: None, ended: 0 }
    }

    /// Sends the rows of the last of these chunks, of which the `first` piece has come, behind `before` records of the others.
    /// `None` if it was cut short: whoever feeds it knows why.
    pub(crate) async fn send_chunk(
        &mut self,
        first: Option<Piece>,
        pieces: &mut mpsc::UnboundedReceiver<Piece>,
        received: &mut [Received],
        before: u64,
        watch: &Watch,
    ) -> Result<Option<Sent>, Error> {
        let destination = self.destination;
        let (mut next, mut refusal) = (first, None);
        loop {
            match next {
                Some(Piece::Rows(Rows { encoding, bytes, lines, stretch, room })) => {
                    if let Some(chunk) = received.last_mut() {
                        chunk.add(stretch);
                        if destination.is_hashed && encoding == Encoding::Text {
                            chunk.hashed.unhashed.push(bytes.clone());
                        }
                    }
                    if refusal.is_none() && !bytes.is_empty() {
                        watch.gives(bytes.len() as u64);
                        let sent = self.send(encoding, bytes, lines.behind(before), received).await;
                        refusal = destination.tolerated(sent)?;
                    }
                    // Before it waits for more, which may need it.
                    drop(room);
                }
                Some(Piece::End { end, guarded, checkpoint }) => {
                    return Ok(Some(Sent { end, guarded, checkpoint, refusal }));
                }
                None => return Ok(None),
            }
            watch.says(WorkerState::WaitsForInput);
            next = pieces.recv().await;
            watch.says(WorkerState::WaitsForServer);
        }
    }

    /// Sends rows of the last of these chunks. `lines` count the records of all of them.
    async fn send(
        &mut self,
        encoding: Encoding,
        bytes: Bytes,
        lines: Lines,
        received: &[Received],
    ) -> Result<(), Error> {
        let destination = self.destination;
        let refusal = |error| destination.refusal(received, None, error);
        if self.under_way.as_ref().is_some_and(|under_way| under_way.encoding != encoding) {
            self.finish(received).await?;
        }
        let under_way = match &mut self.under_way {
            Some(under_way) => under_way,
            None => {
                let statement = destination.statement(encoding);
                let mut sink = Box::pin(self.transaction.copy_in(&statement).await.map_err(refusal)?);
                if encoding == Encoding::Binary {
                    sink.send(Bytes::from_static(&CopyBinary::HEADER)).await.map_err(refusal)?;
                }
                self.under_way.insert(UnderWay { sink, encoding, lines: Lines::default() })
            }
        };
        under_way.lines.append(lines);
        copy_data::send(under_way.sink.as_mut(), bytes).await.map_err(refusal)
    }

    /// Ends the COPY under way, and compares the rows that were sent with those that the server counts.
    pub(crate) async fn finish(&mut self, received: &[Received]) -> Result<(), Error> {
        let Some(UnderWay { mut sink, encoding, lines }) = self.under_way.take() else { return Ok(()) };
        self.ended += 1;
        let refusal = |error| self.destination.refusal(received, Some(&lines), error);
        if encoding == Encoding::Binary {
            sink.send(Bytes::from_static(&CopyBinary::TRAILER)).await.map_err(refusal)?;
        }
        let taken = sink.as_mut().finish().await.map_err(refusal)?;
        self.destination.compare(lines.count(), taken)
    }
}
