use std::io::{self, Read};

use super::{Wait, WorkerMeter};

/// An [`io::Read`] whose reads a worker waits for: the border between a stage and the one that it reads from, on one thread.
///
/// With `Wait::Input` it stands before the reader's stage. The other side of a reader that works in its caller's thread,
/// such as a decoder, is [`MeteredRead::stage`].
#[derive(Debug)]
pub struct MeteredRead<R> {
    inner: R,
    worker: WorkerMeter,
    side: Side,
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Caller(Wait),
    Stage,
}

impl<R: Read> MeteredRead<R> {
    /// The worker waits while `inner` is read.
    pub fn new(inner: R, worker: WorkerMeter, wait: Wait) -> Self {
        Self { inner, worker, side: Side::Caller(wait) }
    }

    /// The worker works while `inner` is read, counts a chunk and its bytes with each read, and is
    /// [blocked](Wait::Output) from one read to the next, as from now on.
    pub fn stage(inner: R, worker: WorkerMeter) -> Self {
        worker.wait_begins(Wait::Output);
        Self { inner, worker, side: Side::Stage }
    }

    /// What is read.
    pub fn get_ref(&self) -> &R {
        &self.inner
    }

    /// What is read. Its reads are not metered.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// What is read, metered no more.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for MeteredRead<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { inner, worker, side } = self;
        match *side {
            Side::Caller(wait) => worker.wait(wait, || inner.read(buffer)),
            Side::Stage => {
                worker.wait_ends();
                let result = inner.read(buffer);
                if let Ok(read @ 1..) = result {
                    worker.add(1, read as u64);
                }
                worker.wait_begins(Wait::Output);
                result
            }
        }
    }
}
