use std::io;
use std::path::PathBuf;
use std::time::Duration;

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
    #[error("{location} ended after {received} of {expected} bytes")]
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
    /// All attempts failed. `source()` is the last failure.
    #[error("gave up after {attempts} attempts in {:.1} s", elapsed.as_secs_f64())]
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
    /// HTTP 408, 425, 429 and 5xx but 501 and 505. The one classifier of this workspace.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport { .. } | Self::Truncated { .. } | Self::Protocol { .. } => true,
            Self::Status { status, .. } => {
                matches!(status, 408 | 425 | 429) || (500..600).contains(status) && !matches!(status, 501 | 505)
            }
            _ => false,
        }
    }

    /// Whether the remote end is to blame and a later run may do better: a transient error, or what is left of one
    /// after all attempts.
    pub fn is_remote(&self) -> bool {
        match self {
            Self::Exhausted { source, .. } => source.is_remote(),
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
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    /// The wait that the server asked for, if it did.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
