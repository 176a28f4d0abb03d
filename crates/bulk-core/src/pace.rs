use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::retry::retry_when;
use crate::{Error, RetryPolicy};

/// The ceiling is halved once in this time at most: the answers to requests that were sent together are one sign.
const HALVE_EVERY: Duration = Duration::from_secs(1);
/// Answers after which it is looked again how many requests are of use.
const ANSWERS: usize = 64;
/// Of so many times [`ANSWERS`] the quickest one counts.
const ROUNDS: usize = 16;
/// How many times the quickest answer the usual one may take before requests are taken to wait for each other.
const PATIENCE: f64 = 4.0;
/// Requests that are always of use.
const FEW: usize = 16;

/// How fast all workers of a run go when the server asks for less.
///
/// Two means. A shared instant before which nobody sends, for what the server says in `Retry-After`. And a ceiling on requests
/// under way that adapts as TCP's congestion window does: a throttle answer halves it, down to 1, and as many successes in a
/// row at the ceiling as the ceiling is high add one to it, up to the configured number.
///
/// A [`sparing`](Self::sparing) pace has no more requests under way than are of use, either.
///
/// [`retry`](Self::retry) makes a request at it. Cheap to clone; all clones are one pace.
// A download's worker takes its permit before it chooses what to fetch, so that whoever is let through serves the front of
// the order, and keeps it over all attempts of that, waits included: at a ceiling of 1, one worker's back-off slows all.
// Each attempt begins with `ready` and ends with `observe`.
#[derive(Clone)]
pub struct Pace {
    shared: Arc<Shared>,
}

struct Shared {
    configured: usize,
    /// The longest hold.
    longest: Duration,
    /// Has as many permits, taken or not, as `ceiling` and `excess` of the state together.
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    not_before: Option<Instant>,
    ceiling: usize,
    /// Permits above the ceiling that are still in use, and vanish when they are dropped.
    excess: usize,
    /// Successes at the ceiling since it last changed.
    successes: usize,
    halved: Option<Instant>,
    /// How high the ceiling may be.
    highest: usize,
    /// If that follows from how long answers take.
    times: Option<Times>,
}

/// How long answers took, in seconds.
#[derive(Default)]
struct Times {
    recent: Vec<f64>,
    /// The quickest one of this stretch, and of the one before.
    best: Option<f64>,
    best_before: Option<f64>,
    rounds: usize,
}

impl Times {
    /// How many requests are of use, as far as the last answers tell, which were to `ceiling` requests at a time: by Little's
    /// law as many as come to an end in the time that one takes by itself. None until there are enough.
    fn add(&mut self, seconds: f64, ceiling: usize) -> Option<usize> {
        let least = |one: Option<f64>, other: f64| Some(one.map_or(other, |one| one.min(other)));
        self.best = least(self.best, seconds);
        self.recent.push(seconds);
        if self.recent.len() < ANSWERS {
            return None;
        }
        let (_, usual, _) = self.recent.select_nth_unstable_by(ANSWERS / 2, f64::total_cmp);
        let best = self.best_before.map_or(self.best, |before| least(self.best, before)).unwrap_or_default();
        let useful = PATIENCE * ceiling as f64 * best / usual.max(f64::MIN_POSITIVE);
        self.recent.clear();
        self.rounds += 1;
        if self.rounds == ROUNDS {
            (self.rounds, self.best_before, self.best) = (0, self.best, None);
        }
        Some(FEW + useful as usize)
    }
}

impl Pace {
    /// At most `concurrency` requests at a time (0 counts as 1), all of them from the start. No hold lasts longer than
    /// `longest`: who is told to wait for more gives up, and others are to learn on their own whether that still holds.
    pub fn new(concurrency: usize, longest: Duration) -> Self {
        Self::with(concurrency, longest, None)
    }

    /// The same, with fewer requests at a time where more of them would only wait for each other, at a server or at a processor
    /// that has all to do: each of them takes memory. That is so if answers usually take several times as long as the
    /// quickest one did. Only requests of one kind can be compared so.
    pub fn sparing(concurrency: usize, longest: Duration) -> Self {
        Self::with(concurrency, longest, Some(Times::default()))
    }

    fn with(concurrency: usize, longest: Duration, times: Option<Times>) -> Self {
        let configured = concurrency.clamp(1, Semaphore::MAX_PERMITS);
        let (ceiling, highest) = (configured, configured);
        let state = State { not_before: None, ceiling, excess: 0, successes: 0, halved: None, highest, times };
        let permits = Arc::new(Semaphore::new(configured));
        let shared = Shared { configured, longest, permits, state: Mutex::new(state) };
        Self { shared: Arc::new(shared) }
    }

    /// Makes a request under `policy` as [`retry()`](crate::retry()) does, at this pace: it waits for its turn, and whatever
    /// the server says to it is heeded by all. Dropping the future stops everything.
    ///
    /// # Errors
    ///
    /// As [`retry()`](crate::retry()).
    pub async fn retry<T, F, Fut>(
        &self,
        policy: &RetryPolicy,
        on_retry: impl FnMut(u32, Duration, &Error),
        mut attempt: F,
    ) -> Result<T, Error>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = (Result<T, Error>, bool)>,
    {
        let _permit = self.permit().await;
        let paced = || {
            let attempt = attempt();
            async {
                let sent = Instant::now();
                let answer = attempt.await;
                if answer.0.is_ok() {
                    self.took(sent.elapsed());
                }
                self.observe(&answer.0);
                answer
            }
        };
        retry_when(policy, || self.ready(), tokio::time::sleep, on_retry, paced).await
    }

    /// Waits until no [`hold`](Self::hold) is in force. Dropping the future is safe.
    pub(crate) async fn ready(&self) {
        loop {
            let not_before = self.shared.lock().not_before;
            match not_before {
                // Somebody may hold for longer meanwhile.
                Some(not_before) if not_before > Instant::now() => tokio::time::sleep_until(not_before).await,
                _ => return,
            }
        }
    }

    /// Lets nobody be ready for `delay` from now. A longer hold stays in force.
    pub(crate) fn hold(&self, delay: Duration) {
        // A delay beyond the end of time is none that a server means.
        let Some(until) = Instant::now().checked_add(delay.min(self.shared.longest)) else { return };
        let mut state = self.shared.lock();
        state.not_before = state.not_before.max(Some(until));
    }

    /// Waits until fewer requests are under way than the ceiling allows, in the order of asking. Dropping the future gives
    /// up the place in that order.
    pub(crate) async fn permit(&self) -> Permit {
        // The semaphore is never closed; if it were, nothing would be counted.
        let permit = self.shared.permits.clone().acquire_owned().await.ok();
        Permit { shared: self.shared.clone(), permit }
    }

    /// How many requests may be under way now.
    #[cfg(test)]
    fn ceiling(&self) -> usize {
        self.shared.lock().ceiling
    }

    /// Learns from how an attempt ended, while its permit is still held: a success, a throttle with what the server asked
    /// for, or another failure, which says nothing about the pace.
    pub(crate) fn observe<T>(&self, result: &Result<T, Error>) {
        match result {
            Ok(_) => self.succeeded(),
            Err(error) if error.is_throttle() => {
                if let Some(delay) = error.retry_after() {
                    self.hold(delay);
                }
                self.throttled();
            }
            Err(_) => {}
        }
    }

    /// Halves the ceiling, unless that was done within the last second.
    fn throttled(&self) {
        let now = Instant::now();
        let mut state = self.shared.lock();
        state.successes = 0;
        if state.halved.is_some_and(|halved| now.duration_since(halved) < HALVE_EVERY) {
            return;
        }
        state.halved = Some(now);
        let ceiling = (state.ceiling / 2).max(1);
        self.shared.lower(&mut state, ceiling);
    }

    /// Learns how long an answer took.
    fn took(&self, time: Duration) {
        let mut state = self.shared.lock();
        let ceiling = state.ceiling;
        let Some(useful) = state.times.as_mut().and_then(|times| times.add(time.as_secs_f64(), ceiling)) else {
            return;
        };
        let highest = useful.clamp(1, self.shared.configured);
        let is_at_highest = state.ceiling == state.highest;
        state.highest = highest;
        if state.ceiling > highest {
            self.shared.lower(&mut state, highest);
        }
        // A ceiling that a throttle has lowered rises by successes alone.
        while is_at_highest && state.ceiling < highest {
            self.shared.raise(&mut state);
        }
    }

    /// Counts a success towards a higher ceiling, if the ceiling is what kept the number of requests down.
    fn succeeded(&self) {
        let mut state = self.shared.lock();
        if state.ceiling >= state.highest || self.shared.permits.available_permits() > 0 {
            return;
        }
        state.successes += 1;
        if state.successes < state.ceiling {
            return;
        }
        state.successes = 0;
        self.shared.raise(&mut state);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lower(&self, state: &mut State, ceiling: usize) {
        let fewer = state.ceiling - ceiling;
        state.ceiling = ceiling;
        // Idle ones go at once, the others as they are dropped.
        state.excess += fewer - self.permits.forget_permits(fewer);
    }

    fn raise(&self, state: &mut State) {
        state.ceiling += 1;
        match state.excess {
            0 => self.permits.add_permits(1),
            _ => state.excess -= 1,
        }
    }
}

/// Leave for one request at a time. Dropping it lets the next one in line go.
#[must_use = "dropping a permit lets another request go"]
pub(crate) struct Permit {
    shared: Arc<Shared>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Some(permit) = self.permit.take()
            && state.excess > 0
        {
            state.excess -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const LONGEST: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn nobody_is_held_for_longer_than_he_would_try() {
        let (pace, started) = (Pace::new(4, Duration::from_secs(7)), Instant::now());
        pace.hold(Duration::from_secs(3600));
        pace.ready().await;
        assert_eq!(started.elapsed().as_secs(), 7);
    }
    use crate::{RetryPolicy, retry};

    fn throttle(retry_after: Option<u64>) -> Error {
        let retry_after = retry_after.map(Duration::from_secs);
        Error::Status { location: "x".into(), status: 503, retry_after, reason: None }
    }

    fn seconds(started: Instant) -> f64 {
        started.elapsed().as_secs_f64()
    }

    /// All permits that are to be had now.
    fn take_all(pace: &Pace) -> Vec<Permit> {
        std::iter::from_fn(|| pace.permit().now_or_never()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_hold_holds_all() {
        let (pace, started) = (Pace::new(4, LONGEST), Instant::now());
        pace.ready().await;
        assert_eq!(seconds(started), 0.0);
        pace.hold(Duration::from_secs(5));
        pace.hold(Duration::from_secs(3));
        let extends = async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            pace.hold(Duration::from_secs(6));
        };
        tokio::join!(pace.ready(), pace.ready(), extends);
        assert_eq!(seconds(started).round(), 10.0);
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_of_one_worker_holds_the_others() {
        let (pace, started) = (Pace::new(4, LONGEST), Instant::now());
        let policy = RetryPolicy { initial: Duration::ZERO, ..RetryPolicy::default() };
        let worker = async |errors: &[Option<u64>], begins: u64| {
            let _permit = pace.permit().await;
            tokio::time::sleep(Duration::from_secs(begins)).await;
            let sent = std::cell::RefCell::new(Vec::new());
            let mut answers = errors.iter();
            let result = retry(
                &policy,
                |_, _, _| {},
                || {
                    let answer = answers.next();
                    let (pace, sent) = (&pace, &sent);
                    async move {
                        pace.ready().await;
                        sent.borrow_mut().push(seconds(started).round());
                        let result = answer.map_or(Ok(()), |retry_after| Err(throttle(*retry_after)));
                        pace.observe(&result);
                        (result, false)
                    }
                },
            );
            result.await.unwrap();
            sent.into_inner()
        };
        let (told, other) = tokio::join!(worker(&[Some(7), None], 0), worker(&[], 1));
        assert_eq!((told, other), (vec![0.0, 7.0, 7.0], vec![7.0]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttle_halves_the_ceiling_once_a_second_and_successes_raise_it() {
        let pace = Pace::new(9, LONGEST);
        let mut held = take_all(&pace);
        assert_eq!(held.len(), 9);
        pace.observe(&Err::<(), _>(throttle(None)));
        pace.observe(&Err::<(), _>(throttle(None)));
        assert_eq!(pace.ceiling(), 4);
        // The five above the ceiling vanish as they end.
        held.truncate(4);
        assert!(pace.permit().now_or_never().is_none());
        held.truncate(3);
        held.extend(take_all(&pace));
        assert_eq!(held.len(), 4);

        for _ in 0..3 {
            pace.observe(&Ok(()));
        }
        pace.observe(&Err::<(), _>(Error::NotFound { location: "x".into() }));
        assert_eq!(pace.ceiling(), 4);
        pace.observe(&Ok(()));
        assert_eq!(pace.ceiling(), 5);
        // Below the ceiling a success tells nothing.
        for _ in 0..9 {
            pace.observe(&Ok(()));
        }
        assert_eq!(pace.ceiling(), 5);
        held.extend(take_all(&pace));
        assert_eq!(held.len(), 5);

        for expected in [2, 1, 1] {
            tokio::time::advance(HALVE_EVERY).await;
            pace.observe(&Err::<(), _>(throttle(None)));
            assert_eq!(pace.ceiling(), expected);
        }
        held.clear();
        held = take_all(&pace);
        assert_eq!(held.len(), 1);
        while pace.ceiling() < 9 {
            pace.observe(&Ok(()));
            held.extend(take_all(&pace));
            assert_eq!(held.len(), pace.ceiling());
        }
        pace.observe(&Ok(()));
        assert_eq!(pace.ceiling(), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_requests_are_under_way_than_are_of_use() {
        let pace = Pace::sparing(40, LONGEST);
        let policy = RetryPolicy::default();
        // A server that answers a request each 10 ms, and each of them in 5 ms or more.
        let turn = tokio::sync::Mutex::new(());
        let busy = async |times: usize| {
            let requests = (0..times).map(|_| {
                let attempt = || async {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    let _turn = turn.lock().await;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    (Ok(()), false)
                };
                pace.retry(&policy, |_, _, _| {}, attempt)
            });
            futures::future::try_join_all(requests).await.unwrap();
        };
        busy(64).await;
        // Usually 40 of them waited for each other; the quickest took 15 ms.
        assert!((FEW + 3..FEW + 9).contains(&pace.ceiling()), "{}", pace.ceiling());
        busy(10 * 64).await;
        assert!((FEW + 3..FEW + 9).contains(&pace.ceiling()), "{}", pace.ceiling());
        // One that is far away answers all of them at once.
        let far = async |times: usize| {
            let attempt = || async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                (Ok(()), false)
            };
            let requests = (0..times).map(|_| pace.retry(&policy, |_, _, _| {}, attempt));
            futures::future::try_join_all(requests).await.unwrap();
        };
        far(64 * 2 * ROUNDS).await;
        assert_eq!(pace.ceiling(), 40);
        // What a throttle has lowered rises step by step.
        pace.observe(&Err::<(), _>(throttle(None)));
        far(64).await;
        assert!((20..30).contains(&pace.ceiling()), "{}", pace.ceiling());
    }

    #[tokio::test]
    async fn permits_go_in_the_order_of_asking_past_those_who_gave_up() {
        let pace = Pace::new(1, LONGEST);
        let held = pace.permit().await;
        let (mut first, mut second, mut third) =
            (Box::pin(pace.permit()), Box::pin(pace.permit()), Box::pin(pace.permit()));
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(&mut second).is_pending());
        assert!(futures::poll!(&mut third).is_pending());
        drop(held);
        // It was granted and is given up before it was taken.
        drop(first);
        assert!(futures::poll!(&mut third).is_pending());
        let held = second.await;
        assert!(futures::poll!(&mut third).is_pending());
        drop(held);
        drop(third.await);
        assert_eq!(pace.shared.permits.available_permits(), 1);
    }

    #[test]
    fn there_is_always_leave_for_one() {
        assert_eq!(
            (Pace::new(0, LONGEST).ceiling(), Pace::new(usize::MAX, LONGEST).ceiling()),
            (1, Semaphore::MAX_PERMITS)
        );
    }
}
