use std::time::Duration;

use crate::{Error, Shortage};

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
    /// Nothing can go on until the disk has room again. It does so by itself. Said once, when that has lasted for 0.4 s.
    Paused {
        /// What is short.
        shortage: &'a Shortage,
    },
    /// The disk has room again, and work goes on. Said once for each [`Paused`](Self::Paused), when it has gone on for a
    /// second or a file is whole.
    Resumed {
        /// How long it had too little.
        waited: Duration,
    },
    /// The plan has come to its end, and did not ask for a part that an earlier run left. It stays, since a run that asks
    /// for the file goes on with it, and it counts against the [`DiskBudget`](crate::DiskBudget).
    /// [`remove_staged`](crate::remove_staged()) is its end.
    Kept {
        /// The file.
        name: &'a str,
        /// Bytes of it on the disk.
        bytes: u64,
    },
    /// A part of a file that is not under way was removed.
    Removed {
        /// The file.
        name: &'a str,
        /// Why.
        reason: &'a str,
        /// Bytes of it that were on the disk.
        bytes: u64,
    },
    /// The source could not be asked for the digests that it states of a file, of which it had stated none yet: the file
    /// counts as one without.
    Unchecked {
        /// The file.
        name: &'a str,
        /// Why.
        error: &'a Error,
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
