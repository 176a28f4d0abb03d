use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// A segment under way.
pub(super) struct Flight {
    pub(super) id: u64,
    /// The first byte that is not safe in the part yet, and the first that is not claimed for a write.
    pub(super) position: u64,
    pub(super) claimed: u64,
    pub(super) end: Option<u64>,
    /// Up to here disk space is reserved.
    pub(super) reserved: u64,
    /// The answer is the whole object.
    pub(super) is_whole: bool,
    pub(super) cancel: CancellationToken,
    pub(super) begun: Instant,
    pub(super) begun_at: u64,
    pub(super) moved: Instant,
    /// A request is under way, and not a wait for the next.
    pub(super) is_asking: bool,
    /// Its writes wait for disk space.
    pub(super) is_short: bool,
    /// Its writes wait for the window.
    pub(super) is_ahead: bool,
    /// Its end was brought forward, so that its body goes on behind it.
    pub(super) is_cut: bool,
    /// It counts as stalled when not one byte came for so long.
    pub(super) patience: Duration,
}
