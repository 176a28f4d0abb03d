use std::collections::VecDeque;
use std::io::{self, Cursor, Read};
use std::sync::{Arc, Mutex, PoisonError};

/// The decoded bytes of a file, as [`load`](crate::load()) reads them, in a thread of its own.
///
/// Any reader will do ([`Plain`]). One that can begin in the middle of the file says where: those places are kept with the
/// chunks, and a load that goes on behind them does not read what lies before.
pub trait Input: Read + Send {
    /// The last place at or before the bytes read so far at which reading can begin anew. Default: none.
    fn checkpoint(&self) -> Option<Checkpoint> {
        None
    }

    /// Leaves out the bytes before a place that another reader of the same file gave, so that the next read begins there;
    /// false if that cannot be done. It is asked for places behind all that was read alone. Default: it cannot.
    fn skip_to(&mut self, checkpoint: &Checkpoint) -> bool {
        let _ = checkpoint;
        false
    }
}

/// A place in a file at which reading can begin anew.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// Decoded bytes before it.
    pub offset: u64,
    /// What the reader needs to find it. It is kept in `bulk.chunk`.
    pub text: String,
}

impl Checkpoint {
    /// A place behind `offset` decoded bytes.
    pub fn new(offset: u64, text: impl Into<String>) -> Self {
        Self { offset, text: text.into() }
    }
}

/// A reader that begins at its beginning.
#[derive(Debug)]
pub struct Plain<R>(pub R);

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read + Send> Input for Plain<R> {}

/// An input whose first bytes have been read already, and which notes the places that it comes by.
pub(crate) struct Noted {
    first: Cursor<Vec<u8>>,
    input: Box<dyn Input>,
    passed: Passed,
}

/// The places that were come by, from the last one that was asked for on.
#[derive(Clone, Default)]
pub(crate) struct Passed(Arc<Mutex<VecDeque<Checkpoint>>>);

impl Noted {
    pub(crate) fn new(first: Vec<u8>, input: Box<dyn Input>) -> Self {
        Self { first: Cursor::new(first), input, passed: Passed::default() }
    }

    pub(crate) fn passed(&self) -> Passed {
        self.passed.clone()
    }

    /// As [`Input::skip_to`].
    pub(crate) fn skip_to(&mut self, checkpoint: &Checkpoint) -> bool {
        let is_behind = checkpoint.offset > self.first.get_ref().len() as u64;
        let skips = is_behind && self.input.skip_to(checkpoint);
        if skips {
            self.first.set_position(self.first.get_ref().len() as u64);
        }
        skips
    }
}

impl Read for Noted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.first.read(buffer)? {
            0 => {
                let read = self.input.read(buffer)?;
                if let Some(checkpoint) = self.input.checkpoint() {
                    self.passed.add(checkpoint);
                }
                Ok(read)
            }
            read => Ok(read),
        }
    }
}

impl Passed {
    fn add(&self, checkpoint: Checkpoint) {
        let mut passed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if passed.back() != Some(&checkpoint) {
            passed.push_back(checkpoint);
        }
    }

    /// The last place at or before this byte. Those before it are forgotten.
    pub(crate) fn last_before(&self, offset: u64) -> Option<Checkpoint> {
        let mut passed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while passed.get(1).is_some_and(|next| next.offset <= offset) {
            passed.pop_front();
        }
        passed.front().filter(|checkpoint| checkpoint.offset <= offset).cloned()
    }
}
