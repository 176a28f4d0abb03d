//! What the workers of a load say of themselves.

use std::io::{self, Read};
use std::sync::Arc;

use crate::{Checkpoint, Event, Input, Observer};

/// A stage of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LoadStage {
    /// The thread that reads a file, cuts it into records and encodes them.
    Encode,
    /// The sessions that send rows and commit them.
    Copy,
}

/// What a worker of a stage does from now on, until it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerState {
    /// It works.
    Works,
    /// It waits for the stage before it, or for the file's bytes.
    WaitsForInput,
    /// It waits for the stage behind it to take what is done.
    WaitsForOutput,
    /// It waits for the database.
    WaitsForServer,
    /// There is no such worker any more.
    Ends,
}

/// The one who tells the observer of a worker. It works when it is made, and ends when it is dropped.
pub(crate) struct Watch {
    observer: Arc<dyn Observer>,
    file: String,
    stage: LoadStage,
    worker: usize,
}

impl Watch {
    pub(crate) fn new(observer: &Arc<dyn Observer>, file: &str, stage: LoadStage, worker: usize) -> Self {
        let watch = Self { observer: observer.clone(), file: file.to_owned(), stage, worker };
        watch.says(WorkerState::Works);
        watch
    }

    /// It waits until what this gives is dropped.
    pub(crate) fn waits(&self, state: WorkerState) -> Waiting<'_> {
        self.says(state);
        Waiting(self)
    }

    /// It has handed on so many bytes.
    pub(crate) fn gives(&self, bytes: u64) {
        let Self { observer, file, stage, worker } = self;
        observer.event(&Event::Gave { file, stage: *stage, worker: *worker, bytes });
    }

    /// It does something else from now on.
    pub(crate) fn says(&self, state: WorkerState) {
        let Self { observer, file, stage, worker } = self;
        observer.event(&Event::Worker { file, stage: *stage, worker: *worker, state });
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.says(WorkerState::Ends);
    }
}

#[must_use]
pub(crate) struct Waiting<'a>(&'a Watch);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.says(WorkerState::Works);
    }
}

/// An input that a worker waits for.
pub(crate) struct Watched {
    pub(crate) input: Box<dyn Input>,
    pub(crate) watch: Arc<Watch>,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let _waiting = self.watch.waits(WorkerState::WaitsForInput);
        self.input.read(buffer)
    }
}

impl Input for Watched {
    fn checkpoint(&self) -> Option<Checkpoint> {
        self.input.checkpoint()
    }

    fn skip_to(&mut self, checkpoint: &Checkpoint) -> bool {
        self.input.skip_to(checkpoint)
    }
}
