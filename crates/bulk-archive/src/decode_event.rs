use std::{
    io::{self, Read},
    sync::{Arc, OnceLock},
};

/// What a thread that decodes does from now on, until it says otherwise. The worker is its number, from 0; of bzip2 there are
/// several, of the other codecs one: the thread that reads from the decoder. Bytes that are not compressed have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeEvent {
    /// It decodes.
    Works {
        /// Which one.
        worker: usize,
    },
    /// It waits for compressed bytes.
    WaitsForInput {
        /// Which one.
        worker: usize,
    },
    /// It waits for somebody to take what is decoded.
    WaitsForOutput {
        /// Which one.
        worker: usize,
    },
    /// It has handed on decoded bytes. What it does goes on.
    Gave {
        /// Which one.
        worker: usize,
        /// How many.
        bytes: u64,
    },
    /// There is no such worker any more.
    Ends {
        /// Which one.
        worker: usize,
    },
}

/// Who is told of [`DecodeEvent`]s, in the threads that they are of.
pub(crate) type Observer = Arc<dyn Fn(&DecodeEvent) + Send + Sync>;

/// The one who tells of a worker, which ends when this is dropped.
pub(crate) struct Watch {
    observer: Observer,
    worker: usize,
}

impl Watch {
    pub(crate) fn new(observer: &Observer, worker: usize) -> Watch {
        Watch { observer: Arc::clone(observer), worker }
    }

    pub(crate) fn works(&self) {
        self.says(DecodeEvent::Works { worker: self.worker });
    }

    /// Waits for compressed bytes by `wait`, and works again.
    pub(crate) fn input<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.says(DecodeEvent::WaitsForInput { worker: self.worker });
        let result = wait();
        self.works();
        result
    }

    /// Hands on by `wait`, and works again.
    #[cfg(feature = "bzip2")]
    pub(crate) fn output<T>(&self, bytes: usize, wait: impl FnOnce() -> T) -> T {
        self.gives(bytes);
        let result = wait();
        self.works();
        result
    }

    /// Has handed on so many bytes, and waits for somebody to want more.
    pub(crate) fn gives(&self, bytes: usize) {
        if bytes > 0 {
            self.says(DecodeEvent::Gave { worker: self.worker, bytes: bytes as u64 });
        }
        self.says(DecodeEvent::WaitsForOutput { worker: self.worker });
    }

    fn says(&self, event: DecodeEvent) {
        (self.observer)(&event);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.says(DecodeEvent::Ends { worker: self.worker });
    }
}

/// An input whose reader is a worker, if it turns out to be one.
pub(crate) struct Watched<R> {
    pub(crate) input: R,
    pub(crate) watch: Arc<OnceLock<Watch>>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.watch.get() {
            Some(watch) => watch.input(|| self.input.read(into)),
            None => self.input.read(into),
        }
    }
}
