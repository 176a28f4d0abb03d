use std::fmt;

use serde::{Deserialize, Serialize};

/// What a worker waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// The stage before it: there is nothing to do. The worker is starved.
    Input,
    /// The stage behind it: nobody takes what is done. The worker is blocked.
    Output,
    /// Bytes from or to another machine.
    Network,
    /// A file.
    Disk,
    /// What another program has to work out: a database that takes rows, an answer's first byte, a pause that a server
    /// asked for.
    Server,
    /// Leave of a rate limiter.
    RateLimit,
    /// Room in a budget, of the disk or of memory.
    Budget,
}

/// What work depends on, and can be bound by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Resource {
    /// This machine's processors.
    Cpu,
    /// The way to another machine.
    Network,
    /// This machine's disks.
    Disk,
    /// Another program: a database, an API.
    Server,
    /// A limit of how often something may be done.
    RateLimit,
    /// A limit of how much may be kept at once.
    Budget,
    /// It did not wait for anything that it named, nor was it on a CPU: locks, page faults, sleep. In a report, also what a
    /// later version of the program names.
    #[serde(other)]
    Unknown,
}

impl Resource {
    /// What a worker waits for that works with this, where it does not say.
    pub(super) fn wait(self) -> Wait {
        match self {
            Self::Cpu | Self::Unknown => Wait::Input,
            Self::Network => Wait::Network,
            Self::Disk => Wait::Disk,
            Self::Server => Wait::Server,
            Self::RateLimit => Wait::RateLimit,
            Self::Budget => Wait::Budget,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cpu => "CPU",
            Self::Network => "network",
            Self::Disk => "disk",
            Self::Server => "server",
            Self::RateLimit => "rate limit",
            Self::Budget => "budget",
            Self::Unknown => "unknown",
        })
    }
}
