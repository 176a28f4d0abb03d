use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::counted::counted;
use crate::{Digest, Shortage};

/// What can go wrong between a source and the staging folder.
///
/// `Display` names the object and what happened to it; the cause, where there is one, is in `source()`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The object does not exist (HTTP 404 or 410, or no such file).
    #[error("{location} does not exist")]
    NotFound {
        /// The object.
        location: String,
    },
    /// The server refuses it to us (HTTP 401 or 403, or a file mode).
    #[error("access to {location} is denied{}", reason.as_deref().map(|r| format!(" ({r})")).unwrap_or_default())]
    Denied {
        /// The object.
        location: String,
        /// What the server says, shortened.
        reason: Option<String>,
    },
    /// The object is not the version that was asked for, or became another one on the way.
    #[error("{location} changed: {what}")]
    Changed {
        /// The object.
        location: String,
        /// What differs.
        what: String,
    },
    /// The server answered with a status that is none of the above.
    #[error("{location}: the server answered {status}{}", reason.as_deref().map(|r| format!(" ({r})")).unwrap_or_default())]
    Status {
        /// The object.
        location: String,
        /// The HTTP status.
        status: u16,
        /// The wait that the server asked for in `Retry-After`.
        retry_after: Option<Duration>,
        /// What the server says, shortened.
        reason: Option<String>,
    },
    /// No answer: the name did not resolve, the connection was refused, broke, or stood still too long.
    #[error("{location}: {what}")]
    Transport {
        /// The object.
        location: String,
        /// What was under way.
        what: &'static str,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The body ended before its announced length.
    #[error("{location} ended after {received} of {}", counted(*expected, "byte", "bytes"))]
    Truncated {
        /// The object.
        location: String,
        /// Bytes announced.
        expected: u64,
        /// Bytes received.
        received: u64,
    },
    /// The server broke the protocol, such as a `Content-Range` that is not the range asked for.
    #[error("{location}: {what}")]
    Protocol {
        /// The object.
        location: String,
        /// What it did.
        what: String,
    },
    /// What arrived is not what the source says that it sent.
    #[error("{location} is corrupt: {what}")]
    Corrupt {
        /// The object.
        location: String,
        /// What differs.
        what: String,
    },
    /// What arrived is what the source has, and not what was [expected](crate::Request::digests). It is thrown away.
    #[error("{name} differs: its content is expected to have {expected}, and has {found}")]
    Unexpected {
        /// The file.
        name: String,
        /// What the request says.
        expected: Digest,
        /// What arrived.
        found: Digest,
    },
    /// The object is larger than the memory that it may take.
    #[error("{location} is too large for memory: {} where {limit} are allowed", size.map_or("more bytes".to_owned(), |size| counted(size, "byte", "bytes")))]
    TooLarge {
        /// The object.
        location: String,
        /// Its bytes, if it is known how many.
        size: Option<u64>,
        /// Bytes that are allowed.
        limit: u64,
    },
    /// There is no room on the disk, or in the budget.
    #[error("no room for {name}: {shortage}")]
    Space {
        /// The file.
        name: String,
        /// What is short.
        shortage: Box<Shortage>,
    },
    /// Another download uses the staging folder.
    #[error("{} is in use by another download", folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
    },
    /// A local file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A request whose name would leave the staging folder, or that another running request has.
    #[error("{name:?} cannot be staged: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// A URL that cannot be used.
    #[error("{url:?} is not a usable URL: {reason}")]
    Url {
        /// The URL, without secrets.
        url: String,
        /// Why.
        reason: String,
    },
    /// The answer arrived, and what it says is that the request failed, or nothing that can be understood.
    #[error("{location}: {what}")]
    Answer {
        /// The object.
        location: String,
        /// What it says.
        what: String,
        /// The wait that it asks of everybody.
        throttle: Option<Duration>,
        /// Whether it would say so again.
        is_lasting: bool,
    },
    /// A request that may have been carried out, and must not be twice. `source()` says what became of it.
    #[error("{location}: it is not known whether the request was carried out, and it is not one to be repeated")]
    Unrepeatable {
        /// The object.
        location: String,
        /// Why nothing is known.
        source: Box<Error>,
    },
    /// A record of which no request can be made.
    #[error("no request can be made of the record: {what}")]
    Record {
        /// Why.
        what: String,
    },
    /// What should be a [run's report](crate::RunReport) is none that is known here.
    #[error("it is not a run's report: {what}")]
    Report {
        /// Why.
        what: String,
    },
    /// All attempts failed. `source()` is the last failure.
    #[error("gave up after {} in {:.1} s", counted(*attempts, "attempt", "attempts"), elapsed.as_secs_f64())]
    Exhausted {
        /// Attempts since the last one that made progress.
        attempts: u32,
        /// Time since the first attempt.
        elapsed: Duration,
        /// The last failure.
        source: Box<Error>,
    },
    /// The download was told to stop, or a task of ours ended early, by a panic or because its runtime stopped.
    #[error("the download of {location} was interrupted")]
    Interrupted {
        /// The object.
        location: String,
    },
}

impl Error {
    /// Whether the same request may succeed if it is sent again: transport errors, truncated bodies, broken protocol,
    /// HTTP 408, 425, 429 and 5xx but 501 and 505, answers that are not lasting, and whatever else is a
    /// [throttle](Self::is_throttle). The one classifier of this workspace.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport { .. } | Self::Truncated { .. } | Self::Protocol { .. } => true,
            Self::Answer { is_lasting, .. } => !is_lasting,
            Self::Status { status, .. } => {
                matches!(status, 408 | 425 | 429)
                    || (500..600).contains(status) && !matches!(status, 501 | 505)
                    || self.is_throttle()
            }
            _ => false,
        }
    }

    /// Whether the server asks for fewer requests, so that all workers have to slow down and not the one that was told:
    /// HTTP 429 and 503, S3's code `SlowDown` under any other status, and an answer that asks for a wait.
    pub fn is_throttle(&self) -> bool {
        match self {
            Self::Status { status, reason, .. } => {
                // The text of S3's XML begins with its `Code`.
                let code = reason.as_deref().and_then(|reason| reason.split_whitespace().next());
                matches!(status, 429 | 503) || code == Some("SlowDown")
            }
            Self::Answer { throttle, .. } => throttle.is_some(),
            Self::Exhausted { source, .. } => source.is_throttle(),
            _ => false,
        }
    }

    /// Whether the remote end is to blame and a later run may do better: a transient error, or what is left of one
    /// after all attempts.
    pub fn is_remote(&self) -> bool {
        match self {
            Self::Exhausted { source, .. } | Self::Unrepeatable { source, .. } => source.is_remote(),
            other => other.is_transient(),
        }
    }

    /// Whether credentials or permissions are to blame.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Denied { .. } => true,
            Self::Exhausted { source, .. } => source.is_denied(),
            Self::Io { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }

    /// Whether the disk (or a quota) is full.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Space { .. } => true,
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }

    /// The object that it names where it is one of a source, or of an API: its message has it as it stands here.
    pub fn location(&self) -> Option<&str> {
        match self {
            Self::NotFound { location }
            | Self::Denied { location, .. }
            | Self::Changed { location, .. }
            | Self::Status { location, .. }
            | Self::Transport { location, .. }
            | Self::Truncated { location, .. }
            | Self::Protocol { location, .. }
            | Self::Corrupt { location, .. }
            | Self::TooLarge { location, .. }
            | Self::Answer { location, .. }
            | Self::Unrepeatable { location, .. }
            | Self::Interrupted { location } => Some(location),
            _ => None,
        }
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    /// The wait that the server asked for, if it did.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Answer { throttle, .. } => *throttle,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttle_is_told_by_status_or_code_and_always_tried_again() {
        let status = |status, reason: Option<&str>| Error::Status {
            location: "x".into(),
            status,
            retry_after: None,
            reason: reason.map(str::to_owned),
        };
        let slow_down = Some("SlowDown Please reduce your request rate.");
        for error in [status(429, None), status(503, None), status(503, slow_down), status(400, slow_down)] {
            assert!(error.is_throttle() && error.is_transient(), "{error}");
            let elapsed = Duration::ZERO;
            assert!(Error::Exhausted { attempts: 1, elapsed, source: Box::new(error) }.is_throttle());
        }
        for error in [status(500, None), status(400, Some("SlowDowns")), status(400, Some("no SlowDown"))] {
            assert!(!error.is_throttle(), "{error}");
        }
        assert!(!Error::NotFound { location: "x".into() }.is_throttle());
    }
}
