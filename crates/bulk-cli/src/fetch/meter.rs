//! Disk space for what comes out of archives: reserved before each byte is written.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bulk_core::{DiskBudget, Reservation, Shortage};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::report::Report;

/// Disk space is asked for in steps of this size, if there is so much.
const STEP: u64 = 64 << 20;
/// How long a wait is none: what runs ahead gives up its space as soon as it is claimed. So long is waited in any case.
const MOMENT: Duration = Duration::from_millis(500);

/// What the extraction of all archives asks for disk space.
#[derive(Clone)]
pub(super) struct Disk {
    pub(super) budget: DiskBudget,
    pub(super) wait: Duration,
    pub(super) stop: CancellationToken,
    pub(super) runtime: Handle,
    pub(super) report: Report,
}

impl Disk {
    /// Waits before everybody else, so that downloads that run ahead do not take what the front needs.
    fn wait_for(&self, bytes: u64, shortage: Shortage) -> io::Result<Reservation> {
        let begun = Instant::now();
        let patience = self.stop.child_token();
        let is_said = Arc::new(AtomicBool::new(false));
        let timer = {
            let (report, patience, is_said, shortage) =
                (self.report.clone(), patience.clone(), is_said.clone(), shortage.clone());
            let wait = self.wait;
            self.runtime.spawn(async move {
                tokio::time::sleep(MOMENT).await;
                if wait > MOMENT {
                    is_said.store(true, Ordering::Relaxed);
                    report.paused(&shortage);
                    tokio::time::sleep(wait - MOMENT).await;
                }
                patience.cancel();
            })
        };
        let granted = self.budget.reserve_blocking(bytes, &patience);
        timer.abort();
        if is_said.load(Ordering::Relaxed) {
            match granted {
                Some(_) => self.report.resumed(begun.elapsed()),
                None => self.report.totals().set_paused(None),
            }
        }
        granted.ok_or_else(|| io::Error::new(io::ErrorKind::StorageFull, shortage))
    }
}

/// Has disk space reserved for each byte of one archive before it is written.
pub(super) struct Meter {
    disk: Disk,
    state: Mutex<State>,
}

struct State {
    /// Of what came out.
    space: Option<Reservation>,
    /// Bytes that were granted last, and all of them.
    granted: u64,
    all: u64,
    /// Others had to make way for it.
    has_claimed: bool,
}

impl Meter {
    /// Begins with the space that was reserved for it.
    pub(super) fn new(disk: Disk, space: Option<Reservation>) -> Self {
        Self { disk, state: Mutex::new(State { space, granted: 0, all: 0, has_claimed: false }) }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.disk.stop.is_cancelled()
    }

    pub(super) fn grant(&self, bytes: u64) -> io::Result<()> {
        if self.is_stopped() {
            return Err(io::Error::other("stopped"));
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { space, granted, all, has_claimed } = &mut *state;
        let left = space.as_mut().map_or(0, |space| {
            // They are written by now.
            space.wrote(std::mem::take(granted));
            space.bytes() - space.written()
        });
        if let Some(needed @ 1..) = bytes.checked_sub(left) {
            let budget = &self.disk.budget;
            let more = budget.try_reserve(needed.max(STEP)).or_else(|_| budget.try_reserve(needed));
            let mut more = match more {
                Ok(more) => more,
                Err(shortage) => {
                    *has_claimed = true;
                    self.disk.wait_for(needed, shortage)?
                }
            };
            // What others gave up for it they are not to take again, and give up again for the next step.
            if *has_claimed && let Some(rest @ 1..) = STEP.max(*all).checked_sub(more.bytes()) {
                let most = budget.shortage(rest).map_or(rest, |shortage| shortage.available.min(rest));
                let _ = budget.try_reserve(most).map(|rest| more.merge(rest));
            }
            match space {
                Some(space) => space.merge(more),
                None => *space = Some(more),
            }
        }
        *granted = bytes;
        *all += bytes;
        Ok(())
    }

    /// Bytes that are written.
    pub(super) fn written(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).all
    }

    /// The space of what is written. Where it is dropped, its files are to be gone.
    pub(super) fn end(&self) -> Option<Reservation> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { space, granted, .. } = &mut *state;
        if let Some(space) = space {
            space.wrote(std::mem::take(granted));
            space.shrink_to_written();
        }
        space.take()
    }
}
