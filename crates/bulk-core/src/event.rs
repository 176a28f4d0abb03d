use std::time::Duration;

use crate::Error;

/// What happens during a download, as it happens. `name` is [`Request::name`](crate::Request::name).
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A file's first attempt begins.
    Started {
        /// The file.
        name: &'a str,
        /// Its size, if known.
        size: Option<u64>,
        /// Bytes that an earlier run left, and that are not fetched again.
        resumed: u64,
    },
    /// Bytes arrived since the last such event of this file.
    Progress {
        /// The file.
        name: &'a str,
        /// Bytes since the last event.
        bytes: u64,
    },
    /// An attempt failed and another one follows.
    Retry {
        /// The file, or what was requested.
        name: &'a str,
        /// The attempt that failed, from 1.
        attempt: u32,
        /// The wait before the next.
        delay: Duration,
        /// Why it failed.
        error: &'a Error,
    },
    /// What was there of a file could not be used, and it is fetched from its first byte.
    Restarted {
        /// The file.
        name: &'a str,
        /// Why.
        reason: &'a str,
        /// Bytes thrown away.
        discarded: u64,
    },
    /// A file is whole under its final name.
    Finished {
        /// The file.
        name: &'a str,
        /// Its size in bytes.
        size: u64,
        /// Bytes that came over the network in this run; 0 if the file was there already.
        fetched: u64,
        /// Time since it started.
        elapsed: Duration,
    },
    /// A file failed for good.
    Failed {
        /// The file.
        name: &'a str,
        /// Why.
        error: &'a Error,
    },
}

/// Takes [`Event`]s. It is called from the tasks that do the work, so it should return soon; it cannot steer.
pub trait Observer: Send + Sync + 'static {
    /// Called once for each event.
    fn event(&self, event: &Event<'_>);
}

/// Observes nothing.
impl Observer for () {
    fn event(&self, _: &Event<'_>) {}
}

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observer for F {
    fn event(&self, event: &Event<'_>) {
        self(event);
    }
}
