//! From the thread that reads a file to the sessions that send it: chunks in the order of the file, each with pieces of
//! its own, so that several are on their way at once.

use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::content::Content;
use crate::copy_format::Encoding;
use crate::lines::Lines;
use crate::rejects::Reject;
use crate::stage::{Watch, WorkerState};
use crate::{Checkpoint, Position};

/// Encoded bytes in a piece.
pub(crate) const PIECE: usize = 256 << 10;
/// The unit in which room is counted.
const UNIT: usize = 1 << 10;

/// A chunk that is being read.
pub(crate) struct Chunk {
    pub(crate) start: Position,
    /// How many were given before it.
    pub(crate) place: u64,
    /// Ends without a [`Piece::End`] if the file cannot be read further.
    pub(crate) pieces: mpsc::UnboundedReceiver<Piece>,
}

pub(crate) enum Piece {
    Rows(Rows),
    /// All rows of the chunk have been given.
    End {
        end: Position,
        guarded: bool,
        /// The last place before that at which reading can begin anew.
        checkpoint: Option<Checkpoint>,
    },
}

/// Encoded rows.
pub(crate) struct Rows {
    pub(crate) encoding: Encoding,
    /// They may end within a row, or be none.
    pub(crate) bytes: Bytes,
    /// The records whose rows begin here.
    pub(crate) lines: Lines,
    pub(crate) stretch: Stretch,
    /// To be dropped when the bytes are sent.
    pub(crate) room: Arc<OwnedSemaphorePermit>,
}

/// Records of a chunk as they follow each other in the file, whether they became rows or not.
#[derive(Default)]
pub(crate) struct Stretch {
    /// How long they are in the file.
    pub(crate) lengths: Vec<u32>,
    /// They themselves, if some may be left out.
    pub(crate) raw: Vec<u8>,
    /// Those that are left out.
    pub(crate) rejects: Vec<Reject>,
    /// How many did not meet the conditions, and which, if some may be left out.
    pub(crate) filtered: u64,
    pub(crate) passed_over: Lines,
    /// How many were repaired.
    pub(crate) repaired: u64,
    /// The content of those of the rows in binary that could be hashed.
    pub(crate) content: Content,
    /// The others of them, as text.
    pub(crate) unhashed: Vec<u8>,
}

impl Stretch {
    /// Bytes of it that a session keeps until the chunk is committed, but for the lengths.
    pub(crate) fn kept(&self) -> usize {
        let rejects: usize = self.rejects.iter().map(Reject::room).sum();
        self.raw.len() + self.unhashed.len() + rejects
    }

    fn room(&self) -> usize {
        self.kept() + size_of_val(&*self.lengths)
    }
}

/// The sending end. Dropping it ends the chunk under way and the stream of chunks.
pub(crate) struct Feed {
    chunks: mpsc::Sender<Chunk>,
    pieces: Option<mpsc::UnboundedSender<Piece>>,
    given: u64,
    room: Arc<Semaphore>,
    units: u32,
    runtime: Handle,
    watch: Option<Arc<Watch>>,
}

/// Nobody takes chunks any more.
#[derive(Debug)]
pub(crate) struct Deserted;

impl Feed {
    /// A feed for `sessions` sessions. Bytes that are under way are bounded by `room`, but for one row that is longer than
    /// that.
    pub(crate) fn new(sessions: usize, room: usize) -> (Self, mpsc::Receiver<Chunk>) {
        let (sender, chunks) = mpsc::channel(sessions.max(1));
        let units = u32::try_from(room / UNIT).unwrap_or(u32::MAX >> 3).clamp(1, u32::MAX >> 3);
        let room = Arc::new(Semaphore::new(units as usize));
        (Self { chunks: sender, pieces: None, given: 0, room, units, runtime: Handle::current(), watch: None }, chunks)
    }

    /// Has the worker that gives rows told of.
    pub(crate) fn watch(&mut self, watch: Arc<Watch>) {
        self.watch = Some(watch);
    }

    /// Gives rows of the chunk that starts at `start`, the same one as before until it [ends](Self::end), and a stretch of
    /// its records, behind the last one. A record of a row is in this stretch or in one before. Waits for room, so it must
    /// not be called by a task.
    pub(crate) fn rows(
        &mut self,
        start: Position,
        encoding: Encoding,
        bytes: Vec<u8>,
        mut lines: Lines,
        mut stretch: Stretch,
    ) -> Result<(), Deserted> {
        let bytes_and_more = bytes.len() + stretch.room();
        let units = u32::try_from(bytes_and_more.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units);
        let waiting = self.watch.as_ref().map(|watch| watch.waits(WorkerState::WaitsForOutput));
        let room = self.runtime.block_on(self.room.clone().acquire_many_owned(units)).map_err(|_| Deserted)?;
        drop(waiting);
        if let Some(watch) = &self.watch {
            watch.gives(bytes.len() as u64);
        }
        let (room, mut bytes) = (Arc::new(room), Bytes::from(bytes));
        // The connection copies what it is given before it sends it: a long row goes in pieces, too.
        while bytes.len() > 2 * PIECE {
            let piece = bytes.split_to(PIECE);
            let (lines, stretch) = (std::mem::take(&mut lines), std::mem::take(&mut stretch));
            self.send(start, Piece::Rows(Rows { encoding, bytes: piece, lines, stretch, room: room.clone() }))?;
        }
        self.send(start, Piece::Rows(Rows { encoding, bytes, lines, stretch, room }))
    }

    /// Ends the chunk that starts at `start`.
    pub(crate) fn end(
        &mut self,
        start: Position,
        end: Position,
        guarded: bool,
        checkpoint: Option<Checkpoint>,
    ) -> Result<(), Deserted> {
        self.send(start, Piece::End { end, guarded, checkpoint })?;
        self.pieces = None;
        Ok(())
    }

    fn send(&mut self, start: Position, piece: Piece) -> Result<(), Deserted> {
        let sender = match &self.pieces {
            Some(sender) => sender,
            None => {
                let (sender, pieces) = mpsc::unbounded_channel();
                let _waiting = self.watch.as_ref().map(|watch| watch.waits(WorkerState::WaitsForOutput));
                self.chunks.blocking_send(Chunk { start, place: self.given, pieces }).map_err(|_| Deserted)?;
                self.given += 1;
                self.pieces.insert(sender)
            }
        };
        sender.send(piece).map_err(|_| Deserted)
    }
}
