use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::Shortage;

/// How often a waiting claim asks the file system whether others have freed space.
const POLL: Duration = Duration::from_millis(200);

/// How much disk a run may use: every byte is reserved here before it is written.
///
/// Two bounds hold at once. The [limit](Self::set_limit) is what all reservations together may hold. The
/// [reserve](Self::set_reserve) is what stays free on the file system of the folder, where other processes write, too:
/// its free space is asked for at each reservation, less what is reserved and not yet written. Where the system cannot
/// tell the free space (Windows), the limit alone counts.
///
/// A plain reservation ([`try_reserve`](Self::try_reserve), [`Reservation::grow`]) is granted or refused at once. A
/// claim ([`reserve`](Self::reserve), [`reserve_blocking`](Self::reserve_blocking)) has priority: it waits until it is
/// granted, in the order of asking, and meanwhile nobody else is granted what it needs. Claims are for the one at the
/// head of the order, which others wait for: a manager that lets it compete for space with those behind it can come to
/// stand still. A [`download`](crate::download()) under the budget makes room for them: it gives up what it has reserved
/// and not written, and then what it has fetched and nobody has taken, the last file of the order first, to be fetched
/// again later.
///
/// Cheap to clone; all clones are one budget. Two budgets over one file system do not know of each other's unwritten
/// bytes.
///
/// ```
/// use bulk_core::DiskBudget;
///
/// let budget = DiskBudget::new(std::env::temp_dir());
/// budget.set_limit(Some(1000));
/// let mut part = budget.try_reserve(800)?;
/// assert_eq!(budget.try_reserve(300).unwrap_err().available, 200);
/// part.wrote(100);
/// part.shrink_to_written();
/// assert_eq!(budget.held(), 100);
/// drop(part);
/// assert_eq!(budget.held(), 0);
/// # Ok::<(), bulk_core::Shortage>(())
/// ```
#[derive(Clone)]
pub struct DiskBudget {
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    state: Mutex<State>,
    /// Wakes futures and threads alike: see [`Shared::announce`].
    changed: Arc<Notify>,
    changed_for_threads: Condvar,
}

struct State {
    limit: Option<u64>,
    reserve: u64,
    held: u64,
    unwritten: u64,
    withheld: u64,
    claims: VecDeque<Claim>,
    next_claim: u64,
}

/// A claim that waits.
#[derive(Clone)]
struct Claim {
    id: u64,
    bytes: u64,
}

/// What the file system says, in bytes.
#[derive(Clone, Copy)]
struct Space {
    free: u64,
    total: u64,
}

impl DiskBudget {
    /// A budget for the file system that has `folder`, without a limit and with nothing in reserve. The folder need not
    /// exist: its nearest ancestor that does tells the file system.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        let state = State {
            limit: None,
            reserve: 0,
            held: 0,
            unwritten: 0,
            withheld: 0,
            claims: VecDeque::new(),
            next_claim: 0,
        };
        let shared = Shared {
            // A later change of the working folder must not move it.
            folder: std::path::absolute(&folder).unwrap_or(folder),
            state: Mutex::new(state),
            changed: Arc::default(),
            changed_for_threads: Condvar::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Sets how many bytes all reservations together may hold. Default `None`: as many as the disk has. Below what is
    /// held already it takes nothing back, and grants nothing until enough is released.
    pub fn set_limit(&self, limit: Option<u64>) {
        self.shared.lock().limit = limit;
        self.shared.announce();
    }

    /// The bytes that all reservations together may hold.
    pub fn limit(&self) -> Option<u64> {
        self.shared.lock().limit
    }

    /// Sets how many bytes of the file system stay free. Default 0.
    pub fn set_reserve(&self, bytes: u64) {
        self.shared.lock().reserve = bytes;
        self.shared.announce();
    }

    /// The bytes of the file system that stay free.
    pub fn reserved_free(&self) -> u64 {
        self.shared.lock().reserve
    }

    /// The bytes that all reservations together hold now.
    pub fn held(&self) -> u64 {
        self.shared.lock().held
    }

    /// The bytes of them that are not on disk yet.
    pub fn unwritten(&self) -> u64 {
        self.shared.lock().unwritten
    }

    /// Reserves `bytes` if there is room for them beside what is held and what claims wait for. 0 bytes are always
    /// granted.
    ///
    /// # Errors
    ///
    /// What is short.
    pub fn try_reserve(&self, bytes: u64) -> Result<Reservation, Shortage> {
        self.take(bytes)?;
        Ok(Reservation { budget: self.clone(), bytes, written: 0 })
    }

    /// Counts `bytes` that are on disk already, such as the part of an earlier run. They need no free space, so the limit
    /// alone can refuse them.
    ///
    /// # Errors
    ///
    /// What is short of the limit.
    pub fn adopt(&self, bytes: u64) -> Result<Reservation, Shortage> {
        let mut state = self.shared.lock();
        state.check(bytes, state.claimed(), None)?;
        state.held += bytes;
        drop(state);
        Ok(Reservation { budget: self.clone(), bytes, written: bytes })
    }

    /// As [`adopt`](Self::adopt), also beyond the limit: what is there is there. Nothing is granted then until enough is
    /// released.
    pub(crate) fn adopt_in_any_case(&self, bytes: u64) -> Reservation {
        self.shared.lock().held += bytes;
        Reservation { budget: self.clone(), bytes, written: bytes }
    }

    /// Keeps `bytes` of the free space from being granted, beside the reserve and beyond the limit: room for what a
    /// download writes besides the bytes of its objects.
    pub(crate) fn withhold(&self, bytes: u64) -> Withheld {
        self.shared.lock().withheld += bytes;
        Withheld { budget: self.clone(), bytes }
    }

    /// Reserves `bytes` with priority: waits until there is room. It waits for ever if there never is; see
    /// [`can_ever_fit`](Self::can_ever_fit), and put a timeout around it.
    ///
    /// The claim is made when the future is first polled, and is granted after those made before it. It is looked at
    /// again whenever space is given back here, and every 200 ms for what others free. Dropping the future withdraws the
    /// claim.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with time enabled.
    pub async fn reserve(&self, bytes: u64) -> Reservation {
        let waiting = Waiting::new(self, bytes);
        loop {
            // From here on no release is missed.
            let changed = self.changed();
            let granted = waiting.granted(&mut self.shared.lock());
            if let Some(reservation) = granted {
                return reservation;
            }
            // Late or not, it is time to look again.
            let _ = tokio::time::timeout(POLL, changed).await;
        }
    }

    /// As [`reserve`](Self::reserve), for a thread that may block. `None` when `stop` is cancelled first, which is
    /// noticed within 200 ms.
    pub fn reserve_blocking(&self, bytes: u64, stop: &CancellationToken) -> Option<Reservation> {
        let waiting = Waiting::new(self, bytes);
        // Unlocked before `waiting` is dropped, which locks.
        let mut state = self.shared.lock();
        while !stop.is_cancelled() {
            if let Some(reservation) = waiting.granted(&mut state) {
                return Some(reservation);
            }
            let waited = self.shared.changed_for_threads.wait_timeout(state, POLL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        None
    }

    /// The bytes that claims wait for, all together; `None` if no claim waits.
    pub fn is_claimed(&self) -> Option<u64> {
        let state = self.shared.lock();
        (!state.claims.is_empty()).then(|| state.claimed())
    }

    /// Whether `bytes` would be granted now.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let state = self.shared.lock();
        state.check(bytes, state.claimed(), self.shared.space()).is_ok()
    }

    /// Whether the claim that is first in line waits for room that is not there.
    pub(crate) fn is_claim_unmet(&self) -> bool {
        let state = self.shared.lock();
        state.claims.front().is_some_and(|claim| state.check(claim.bytes, 0, self.shared.space()).is_err())
    }

    /// What keeps `bytes` from being granted to the claim that is first in line, if anything does: why a run pauses.
    pub fn shortage(&self, bytes: u64) -> Option<Shortage> {
        let state = self.shared.lock();
        state.check(bytes, 0, self.shared.space()).err()
    }

    /// Completes when space is next given back here, a claim is made, granted or withdrawn, or a bound is set, counted from
    /// this call and not from the first poll: so call it, try to reserve, and then wait. What other processes free is not
    /// noticed; whoever waits for that puts a timeout around it.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        self.shared.changed.clone().notified_owned()
    }

    /// Whether `bytes` could be granted if nothing else was held and the file system was empty.
    ///
    /// # Errors
    ///
    /// They exceed the limit, or the size of the file system (without what the system keeps for the superuser) less the
    /// reserve. [`Shortage::is_lasting`] is set.
    pub fn can_ever_fit(&self, bytes: u64) -> Result<(), Shortage> {
        let space = self.shared.space();
        let state = self.shared.lock();
        let on_disk = space.map(|space| space.total.saturating_sub(state.reserve));
        let available = on_disk.unwrap_or(u64::MAX).min(state.limit.unwrap_or(u64::MAX));
        if bytes <= available {
            return Ok(());
        }
        Err(Shortage { is_lasting: true, ..state.describe(bytes, available, state.claimed(), space) })
    }

    /// Counts `bytes` as held and unwritten.
    fn take(&self, bytes: u64) -> Result<(), Shortage> {
        let mut state = self.shared.lock();
        // Under the lock: what is written between a look at the file system and one at `unwritten` would count as free.
        state.check(bytes, state.claimed(), self.shared.space())?;
        state.held += bytes;
        state.unwritten += bytes;
        Ok(())
    }
}

impl fmt::Debug for DiskBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("DiskBudget")
            .field("folder", &self.shared.folder)
            .field("limit", &state.limit)
            .field("reserve", &state.reserve)
            .field("held", &state.held)
            .field("unwritten", &state.unwritten)
            .field("withheld", &state.withheld)
            .field("claimed", &state.claimed())
            .finish()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all who wait. To be called after the change, and not under the lock.
    fn announce(&self) {
        self.changed.notify_waiters();
        self.changed_for_threads.notify_all();
    }

    /// `None` where the system does not tell.
    #[cfg(unix)]
    fn space(&self) -> Option<Space> {
        for folder in self.folder.ancestors() {
            match rustix::io::retry_on_intr(|| rustix::fs::statvfs(folder)) {
                Ok(found) => {
                    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
                    // What the superuser alone may use is no part of the disk for us.
                    let kept = found.f_bfree.saturating_sub(found.f_bavail);
                    return Some(Space {
                        free: bytes(found.f_bavail),
                        total: bytes(found.f_blocks.saturating_sub(kept)),
                    });
                }
                Err(rustix::io::Errno::NOENT) => {}
                Err(_) => return None,
            }
        }
        None
    }

    #[cfg(not(unix))]
    fn space(&self) -> Option<Space> {
        None
    }
}

impl State {
    fn claimed(&self) -> u64 {
        self.claims.iter().fold(0, |sum, claim| sum.saturating_add(claim.bytes))
    }

    /// Whether there is room for `bytes` beside what is held and `claimed`.
    fn check(&self, bytes: u64, claimed: u64, space: Option<Space>) -> Result<(), Shortage> {
        // Without any bound the sum must still be a number.
        let within = self.limit.unwrap_or(u64::MAX).saturating_sub(self.held).saturating_sub(claimed);
        let on_disk = space.map_or(u64::MAX, |space| {
            let promised = self.unwritten.saturating_add(self.withheld).saturating_add(claimed);
            space.free.saturating_sub(self.reserve).saturating_sub(promised)
        });
        let available = within.min(on_disk);
        if bytes <= available { Ok(()) } else { Err(self.describe(bytes, available, claimed, space)) }
    }

    fn describe(&self, needed: u64, available: u64, claimed: u64, space: Option<Space>) -> Shortage {
        Shortage {
            needed,
            available,
            free: space.map(|space| space.free),
            total: space.map(|space| space.total),
            reserve: self.reserve,
            limit: self.limit,
            held: self.held,
            unwritten: self.unwritten.saturating_add(self.withheld),
            claimed,
            is_lasting: false,
        }
    }
}

/// Free space that is not granted as long as this lives.
pub(crate) struct Withheld {
    budget: DiskBudget,
    bytes: u64,
}

impl Drop for Withheld {
    fn drop(&mut self) {
        self.budget.shared.lock().withheld -= self.bytes;
        self.budget.shared.announce();
    }
}

/// A claim in the queue; dropped, it is out of it.
struct Waiting<'a> {
    budget: &'a DiskBudget,
    id: u64,
    bytes: u64,
}

impl<'a> Waiting<'a> {
    fn new(budget: &'a DiskBudget, bytes: u64) -> Self {
        let mut state = budget.shared.lock();
        let id = state.next_claim;
        state.next_claim += 1;
        state.claims.push_back(Claim { id, bytes });
        drop(state);
        // Who can make room for it is to know.
        budget.shared.announce();
        Self { budget, id, bytes }
    }

    /// The reservation, if the claim is first in line and there is room.
    fn granted(&self, state: &mut State) -> Option<Reservation> {
        if state.claims.front()?.id != self.id {
            return None;
        }
        state.check(self.bytes, 0, self.budget.shared.space()).ok()?;
        // The claim leaves the queue in the same step, so its bytes are never counted twice or not at all.
        state.claims.pop_front();
        state.held += self.bytes;
        state.unwritten += self.bytes;
        Some(Reservation { budget: self.budget.clone(), bytes: self.bytes, written: 0 })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // Granted or withdrawn, the next in line may go on.
        self.budget.shared.lock().claims.retain(|claim| claim.id != self.id);
        self.budget.shared.announce();
    }
}

/// Bytes of a [`DiskBudget`] that are this one's to write. Dropping it gives them back: drop it after the file is
/// removed, or when its bytes are no longer the run's.
#[must_use = "dropping a reservation gives its bytes back"]
pub struct Reservation {
    budget: DiskBudget,
    bytes: u64,
    written: u64,
}

impl Reservation {
    /// The bytes reserved, written or not.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bytes of them that are on disk.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Reserves `bytes` more, under the terms of [`DiskBudget::try_reserve`]. To grow with priority, claim another
    /// reservation and [merge](Self::merge) it.
    ///
    /// # Errors
    ///
    /// What is short; the reservation is as before.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Shortage> {
        self.budget.take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Tells that `bytes` more of it are on disk, or are allocated there for its file. Call it after the write: until
    /// then they count twice, which refuses too much for a moment and never grants too much. More than is reserved
    /// counts as all of it.
    pub fn wrote(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes - self.written);
        self.written += bytes;
        self.budget.shared.lock().unwritten -= bytes;
    }

    /// Gives back `bytes` that were written and are off the disk again: a hole punched into the file, or its end cut off.
    /// Call it after that. Beyond what was written it takes from the rest; more than is reserved counts as all of it.
    pub fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        let written = bytes.min(self.written);
        self.give_back(written, bytes - written);
    }

    /// Gives back all that is not written: the file turned out smaller than was thought.
    pub fn shrink_to_written(&mut self) {
        self.give_back(0, self.bytes - self.written);
    }

    /// Moves `bytes` into a reservation of their own, those first that are not written. More than is reserved counts as
    /// all of it.
    pub fn split(&mut self, bytes: u64) -> Reservation {
        let bytes = bytes.min(self.bytes);
        let written = bytes.saturating_sub(self.bytes - self.written);
        self.bytes -= bytes;
        self.written -= written;
        Reservation { budget: self.budget.clone(), bytes, written }
    }

    /// As [`split`](Self::split), of what is not written alone.
    pub(crate) fn split_unwritten(&mut self, bytes: u64) -> Reservation {
        self.split(bytes.min(self.bytes - self.written))
    }

    /// Takes over all of `other`.
    ///
    /// # Panics
    ///
    /// If `other` is of another budget.
    pub fn merge(&mut self, mut other: Reservation) {
        assert!(Arc::ptr_eq(&self.budget.shared, &other.budget.shared), "reservations of two budgets cannot be merged");
        self.bytes += std::mem::take(&mut other.bytes);
        self.written += std::mem::take(&mut other.written);
    }

    fn give_back(&mut self, written: u64, unwritten: u64) {
        if written + unwritten == 0 {
            return;
        }
        self.bytes -= written + unwritten;
        self.written -= written;
        let mut state = self.budget.shared.lock();
        state.held -= written + unwritten;
        state.unwritten -= unwritten;
        drop(state);
        self.budget.shared.announce();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back(self.written, self.bytes - self.written);
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("bytes", &self.bytes).field("written", &self.written).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_withheld_is_not_granted_and_takes_nothing_of_the_limit() {
        let (claims, space) = (VecDeque::new(), Some(Space { free: 100, total: 200 }));
        let state = State { limit: Some(90), reserve: 5, held: 20, unwritten: 10, withheld: 8, claims, next_claim: 0 };
        assert_eq!(state.check(70, 0, space), Ok(()));
        assert_eq!(state.check(71, 0, space).unwrap_err().available, 70);
        let state = State { withheld: 20, ..state };
        assert_eq!(state.check(65, 0, space), Ok(()));
        let shortage = state.check(66, 0, space).unwrap_err();
        assert_eq!((shortage.available, shortage.unwritten), (65, 30));
    }

    #[test]
    fn without_a_file_system_to_ask_the_limit_alone_counts() {
        let (claims, next_claim) = (VecDeque::new(), 0);
        let state = |limit, held| {
            let claims = claims.clone();
            State { limit, reserve: 5, held, unwritten: 9, withheld: 0, claims, next_claim }
        };
        assert_eq!(state(Some(20), 10).check(10, 0, None), Ok(()));
        assert_eq!(state(Some(20), 10).check(8, 3, None).unwrap_err().available, 7);
        assert_eq!(state(None, 10).check(u64::MAX - 10, 0, None), Ok(()));
        assert_eq!(state(None, 10).check(u64::MAX - 9, 0, None).unwrap_err().available, u64::MAX - 10);
    }
}
