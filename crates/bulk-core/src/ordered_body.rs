use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use jiff::Timestamp;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::JoinHandle;

use crate::part::{PartFile, Version};
use crate::queue::{Phase, Queue};
use crate::run::Run;
use crate::{ETag, Error, StagedFile};

/// Bytes that an asynchronous read takes from the part at once.
const READ: usize = 256 * 1024;

/// The bytes of one object, in their order, while later ones still arrive.
///
/// It is an [`AsyncRead`]; [`into_blocking`](Self::into_blocking) makes an [`io::Read`] of it for a thread that decodes.
/// Bytes come out of the part file, which the page cache still has, as soon as all before them are there.
///
/// The end of the file is reported only when the object is whole and its digests are right. A read fails with an
/// [`io::Error`] whose inner error is the [`Error`] that ended the download of this object, or when the object was
/// replaced after some of its bytes had been read: two versions are never mixed. Kinds:
/// [`InvalidData`](io::ErrorKind::InvalidData) where the content is to blame, [`Other`](io::ErrorKind::Other) else.
///
/// Dropping it before its end gives up the object: connections that serve it end, and what is there of it stays for the
/// next run, unless consumed bytes are to be dropped. Dropping it after its end leaves the staged file to the caller.
pub struct OrderedBody {
    feed: Feed,
    /// A read under way for `poll_read`, and what the last one gave.
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
    ready: Vec<u8>,
    taken: usize,
}

/// The blocking face of an [`OrderedBody`], for threads.
pub struct BlockingBody {
    feed: Feed,
}

/// Where a reader stands.
struct Feed {
    run: Arc<Run>,
    place: u64,
    position: u64,
    is_at_end: bool,
}

/// What a reader finds.
enum State {
    Bytes { part: Arc<PartFile>, len: u64 },
    End,
    Wait,
}

impl OrderedBody {
    pub(crate) fn new(run: Arc<Run>, place: u64) -> Self {
        let feed = Feed { run, place, position: 0, is_at_end: false };
        Self { feed, reading: None, ready: Vec::new(), taken: 0 }
    }

    /// The size of the object in bytes, where the source tells it before the end.
    pub fn size(&self) -> Option<u64> {
        self.feed.version()?.size
    }

    /// The version of the object. Until the first byte is read it may yet change to a newer one.
    pub fn etag(&self) -> Option<ETag> {
        self.feed.version()?.etag
    }

    /// When the object last changed, by the server's clock. As [`etag`](Self::etag).
    pub fn last_modified(&self) -> Option<Timestamp> {
        self.feed.version()?.last_modified
    }

    /// Gives a reader that blocks its thread while it waits for bytes. What was read stays read.
    ///
    /// Not for use in async code, whose threads must not be blocked.
    pub fn into_blocking(self) -> BlockingBody {
        BlockingBody { feed: self.feed }
    }
}

impl BlockingBody {
    /// As [`OrderedBody::size`].
    pub fn size(&self) -> Option<u64> {
        self.feed.version()?.size
    }

    /// As [`OrderedBody::etag`].
    pub fn etag(&self) -> Option<ETag> {
        self.feed.version()?.etag
    }
}

impl io::Read for BlockingBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let run = self.feed.run.clone();
        let mut queue = run.queue();
        loop {
            match self.feed.state(&mut queue)? {
                State::Bytes { part, len } => {
                    drop(queue);
                    return self.feed.read(&part, len, buffer);
                }
                State::End => return Ok(0),
                State::Wait => queue = run.wait_for_bytes(queue),
            }
        }
    }
}

impl AsyncRead for OrderedBody {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.taken < self.ready.len() {
                let len = buffer.remaining().min(self.ready.len() - self.taken);
                buffer.put_slice(&self.ready[self.taken..self.taken + len]);
                self.taken += len;
                let position = self.feed.position + len as u64;
                self.feed.advance(position);
                return Poll::Ready(Ok(()));
            }
            if let Some(reading) = &mut self.reading {
                let read = std::task::ready!(Pin::new(reading).poll(context));
                self.reading = None;
                self.ready = read.map_err(io::Error::other)??;
                self.taken = 0;
                continue;
            }
            let run = self.feed.run.clone();
            let mut queue = run.queue();
            match self.feed.state(&mut queue)? {
                State::Bytes { part, len } => {
                    let (position, len) = (self.feed.position, len.min(READ as u64) as usize);
                    let mut bytes = std::mem::take(&mut self.ready);
                    self.taken = 0;
                    self.reading = Some(tokio::task::spawn_blocking(move || {
                        bytes.resize(len, 0);
                        let read = part.read_at(&mut bytes, position)?;
                        bytes.truncate(read);
                        match read {
                            0 => Err(io::ErrorKind::UnexpectedEof.into()),
                            _ => Ok(bytes),
                        }
                    }));
                }
                State::End => return Poll::Ready(Ok(())),
                State::Wait => {
                    if let Some(file) = queue.file_at(self.feed.place) {
                        file.reader.waker = Some(context.waker().clone());
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

impl Feed {
    fn state(&mut self, queue: &mut Queue) -> io::Result<State> {
        if self.is_at_end {
            return Ok(State::End);
        }
        let interrupted = || Error::Interrupted { location: String::new() };
        let (is_closed, drops) = (queue.is_closed, queue.drops());
        let Some(file) = queue.file_at(self.place) else { return Err(io::Error::other(interrupted())) };
        let len = file.readable(self.position);
        if len > 0
            && let Some(part) = file.open(drops).map_err(into_io)?
        {
            file.reader.is_begun = true;
            return Ok(State::Bytes { part, len });
        }
        match &mut file.phase {
            Phase::Done(Ok(_)) => {
                self.is_at_end = true;
                Ok(State::End)
            }
            Phase::Done(Err(error)) => {
                let location = file.request.key.clone();
                Err(into_io(std::mem::replace(error, Error::Interrupted { location })))
            }
            _ if is_closed => Err(io::Error::other(interrupted())),
            _ => Ok(State::Wait),
        }
    }

    fn read(&mut self, part: &PartFile, len: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(usize::try_from(len).unwrap_or(usize::MAX));
        match part.read_at(&mut buffer[..len], self.position)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.advance(self.position + read as u64);
                Ok(read)
            }
        }
    }

    /// Takes note of what was read, and gives back what is not needed any more.
    fn advance(&mut self, position: u64) {
        self.position = position;
        let mut queue = self.run.queue();
        queue.consumed(self.place, position);
        drop(queue);
        self.run.drop_consumed(self.place);
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.run.close(self.place);
    }
}

fn into_io(error: Error) -> io::Error {
    let kind = match &error {
        Error::Changed { .. } | Error::Corrupt { .. } => io::ErrorKind::InvalidData,
        Error::Io { source, .. } => source.kind(),
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

impl OrderedBody {
    /// The file under its final name, once the end was read. `None` before, and if its bytes were dropped.
    pub fn staged(&self) -> Option<StagedFile> {
        self.feed.staged()
    }
}

impl BlockingBody {
    /// The file under its final name, once the end was read. `None` before, and if its bytes were dropped.
    pub fn staged(&self) -> Option<StagedFile> {
        self.feed.staged()
    }
}

impl Feed {
    fn version(&self) -> Option<Version> {
        self.run.queue().file_at(self.place)?.version.clone()
    }

    fn staged(&self) -> Option<StagedFile> {
        let mut queue = self.run.queue();
        let drops = queue.drops();
        let file = queue.file_at(self.place)?;
        let is_kept = !drops || file.was_staged;
        match &file.phase {
            Phase::Done(Ok(staged)) if self.is_at_end && is_kept => Some(staged.clone()),
            _ => None,
        }
    }
}
