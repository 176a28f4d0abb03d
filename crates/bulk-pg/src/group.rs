//! Chunks that go in one COPY and are committed together.
//!
//! Each COPY takes buffers of its own from the server, 16 MiB of them that it then uses again and again
//! ("Buffer Access Strategies" in PostgreSQL's `src/backend/storage/buffer/README`), and each page of them that a backend has
//! not used before costs it a page fault. So a COPY of a single chunk costs the server several hundredths more CPU
//! time than one that goes on for a second.

use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::types::Oid;
use tokio_util::sync::CancellationToken;

use crate::chunk::{Committed, Copy, Counts, Destination, Mark, Sent};
use crate::feed::Chunk;
use crate::received::Received;
use crate::stage::{Watch, WorkerState};
use crate::{Error, Session};

/// Records after which a group ends however little time it took: where each of them is in its file is kept until then. The
/// server takes about a second for so many.
const MAX_RECORDS: u64 = 512 << 10;

/// Chunks as they are read, for whichever session takes the next one.
pub(crate) struct Chunks<'a> {
    read: Mutex<mpsc::Receiver<Chunk>>,
    /// When nobody is to take another one.
    halt: &'a CancellationToken,
}

impl<'a> Chunks<'a> {
    pub(crate) fn new(read: mpsc::Receiver<Chunk>, halt: &'a CancellationToken) -> Self {
        Self { read: Mutex::new(read), halt }
    }

    /// The next one. `None` when there are no more, or none is to be taken.
    pub(crate) async fn next(&self) -> Option<Chunk> {
        let next = async { self.read.lock().await.recv().await };
        self.halt.run_until_cancelled(next).await.flatten()
    }

    /// The same, if there is one by then.
    async fn next_before(&self, deadline: Instant) -> Option<Chunk> {
        // A timeout gives what is there already however late it is.
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::timeout_at(deadline, self.next()).await.ok().flatten()
    }
}

/// Whether rows of one session can make another one wait until they are committed: by a key, or by what a trigger does.
pub(crate) async fn may_wait_for_each_other(client: &Client, oid: Oid) -> Result<bool, Error> {
    let row = client
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_index
                            WHERE indrelid = $1 AND (indisunique OR indisexclusion))
                 OR EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal)
                 OR EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhparent = $1)",
            &[&oid],
        )
        .await
        .map_err(Error::database("read the table's indexes and triggers"))?;
    Ok(row.get(0))
}

impl Destination<'_> {
    /// Sends a chunk, and those that follow it until `time` is over, and commits them with their marks. None if one was cut
    /// short: whoever feeds it knows why.
    ///
    /// Whatever ends it early, a drop included, rolls all of them back.
    pub(crate) async fn copy_group(
        &self,
        session: &mut Session,
        first: Chunk,
        chunks: &Chunks<'_>,
        time: Duration,
        watch: &Watch,
    ) -> Result<Vec<Committed>, Error> {
        let Chunk { mut start, mut pieces, .. } = first;
        // The transaction begins when there is something to send.
        let waiting = watch.waits(WorkerState::WaitsForInput);
        let Some(piece) = pieces.recv().await else { return Ok(Vec::new()) };
        drop(waiting);
        // What is done here besides takes less than the database's part in it.
        let _waiting = watch.waits(WorkerState::WaitsForServer);
        let begun = Instant::now();
        // What is longer than can be said is longer than anything takes.
        let deadline = begun.checked_add(time).unwrap_or(begun + Duration::from_secs(1 << 30));
        let action = Error::database(format!("load a chunk of {}", self.file.key));
        let transaction = session.client_mut().transaction().await.map_err(action)?;
        let mut copy = Copy::new(self, &transaction);
        let (mut received, mut marks): (Vec<Received>, Vec<Mark>) = (Vec::new(), Vec::new());
        let (mut next, mut records) = (Some(piece), 0);
        loop {
            received.push(Received::new(start));
            let sent = copy.send_chunk(next, &mut pieces, &mut received, records, watch).await?;
            let Some(Sent { end, guarded, checkpoint, refusal }) = sent else { return Ok(Vec::new()) };
            // Nothing is tolerated here, so there is none.
            if let Some(error) = refusal {
                return Err(error);
            }
            let (filtered, repaired) = received.last().map_or((0, 0), |chunk| (chunk.filtered, chunk.repaired));
            let counts = Counts { rejected: 0, filtered, repaired };
            marks.push(Mark { start, end, guarded, checkpoint, counts, content: None });
            records += end.record - start.record;
            if records >= MAX_RECORDS {
                break;
            }
            watch.says(WorkerState::WaitsForInput);
            let Some(chunk) = chunks.next_before(deadline).await else { break };
            (start, pieces) = (chunk.start, chunk.pieces);
            next = pieces.recv().await;
            watch.says(WorkerState::WaitsForServer);
        }
        watch.says(WorkerState::WaitsForServer);
        copy.finish(&received).await?;
        drop(copy);
        self.mark(&transaction, &marks).await?;
        // Deferred constraints are checked here.
        transaction.commit().await.map_err(|error| self.refusal(&received, None, error))?;
        Ok(marks
            .iter()
            .map(|Mark { start, end, counts, .. }| Committed { start: *start, end: *end, counts: *counts })
            .collect())
    }
}
