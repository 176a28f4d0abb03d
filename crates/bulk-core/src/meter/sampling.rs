use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::Meters;

/// A thread that takes samples; see [`Meters::sample_every`]. Dropping it takes a last one and ends the thread.
#[derive(Debug)]
pub struct Sampling {
    /// Dropped to end the thread.
    end: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sampling {
    pub(super) fn start(meters: Meters, interval: Duration) -> io::Result<Self> {
        let (end, ended) = mpsc::sync_channel::<()>(0);
        let thread = thread::Builder::new().name("bulk-meters".to_owned()).spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(interval) {
                meters.sample();
            }
            meters.sample();
        })?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Sampling {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It does not panic.
            let _ = thread.join();
        }
    }
}
