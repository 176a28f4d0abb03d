use std::time::Duration;

use tokio::time::Instant;

use crate::Error;

/// How often and how long to try again.
///
/// The wait before attempt *n* + 1 is drawn evenly from 0 to `initial` x 2^(*n* - 1), at most `max` ("full jitter"); a
/// longer `Retry-After` of the server is obeyed instead.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Attempts without progress before giving up, the first one included. Default 8.
    pub attempts: u32,
    /// The ceiling of the first wait. Default 200 ms.
    pub initial: Duration,
    /// The ceiling of any drawn wait. Default 20 s.
    pub max: Duration,
    /// No further attempt starts when this much time has passed since the last progress. Default 5 min.
    pub timeout: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 8,
            initial: Duration::from_millis(200),
            max: Duration::from_secs(20),
            timeout: Duration::from_secs(300),
        }
    }
}

impl RetryPolicy {
    /// The wait after the failed attempt number `attempt` (from 1).
    fn delay(&self, attempt: u32, error: &Error, random: f64) -> Duration {
        let ceiling = self.initial.saturating_mul(1 << (attempt - 1).min(20)).min(self.max);
        ceiling.mul_f64(random).max(error.retry_after().unwrap_or_default())
    }
}

/// Runs `attempt` until it succeeds, fails for a reason that a retry does not mend, or `policy` is used up. The one
/// retry loop of this workspace: do not nest it.
///
/// An attempt answers with its result and whether it made progress; one that did starts the count anew. `on_retry` is
/// told of each failure that is followed by another attempt: attempt number, wait, error. Dropping the future stops
/// everything.
///
/// # Errors
///
/// The error of `attempt` as it is if it is not transient, else [`Error::Exhausted`] with the last one as its source.
pub async fn retry<T, F, Fut>(
    policy: &RetryPolicy,
    on_retry: impl FnMut(u32, Duration, &Error),
    attempt: F,
) -> Result<T, Error>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = (Result<T, Error>, bool)>,
{
    retry_when(policy, || std::future::ready(()), tokio::time::sleep, on_retry, attempt).await
}

/// As [`retry()`], and waits for `ready` before each attempt. That wait is for another's sake (the server asked all for
/// less), so it does not count against [`RetryPolicy::timeout`]. `pause` sleeps between two attempts, for the caller to say
/// what that is.
pub(crate) async fn retry_when<T, F, Fut, Ready, Pause>(
    policy: &RetryPolicy,
    ready: impl FnMut() -> Ready,
    pause: impl FnMut(Duration) -> Pause,
    on_retry: impl FnMut(u32, Duration, &Error),
    attempt: F,
) -> Result<T, Error>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = (Result<T, Error>, bool)>,
    Ready: Future<Output = ()>,
    Pause: Future<Output = ()>,
{
    retry_drawing(policy, None, fastrand::f64, ready, pause, on_retry, attempt).await
}

/// As [`retry_when`], where `ready` waits as long as a [throttle](Error::is_throttle) asks for, if that is no more than
/// `longest`: that wait is all's, and not the attempt's own. Where the drawn one is longer, it is waited for as well, while
/// that goes on.
pub(crate) async fn retry_held<T, F, Fut, Ready>(
    policy: &RetryPolicy,
    longest: Duration,
    ready: impl FnMut() -> Ready,
    on_retry: impl FnMut(u32, Duration, &Error),
    attempt: F,
) -> Result<T, Error>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = (Result<T, Error>, bool)>,
    Ready: Future<Output = ()>,
{
    retry_drawing(policy, Some(longest), fastrand::f64, ready, tokio::time::sleep, on_retry, attempt).await
}

/// [`retry_when`] with its dice: each wait takes one number of at least 0 and below 1 from `random`.
async fn retry_drawing<T, F, Fut, Ready, Pause>(
    policy: &RetryPolicy,
    held_up_to: Option<Duration>,
    mut random: impl FnMut() -> f64,
    mut ready: impl FnMut() -> Ready,
    mut pause: impl FnMut(Duration) -> Pause,
    mut on_retry: impl FnMut(u32, Duration, &Error),
    mut attempt: F,
) -> Result<T, Error>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = (Result<T, Error>, bool)>,
    Ready: Future<Output = ()>,
    Pause: Future<Output = ()>,
{
    let started = Instant::now();
    let mut last_progress = started;
    let mut failures = 0;
    loop {
        let held = Instant::now();
        ready().await;
        last_progress += held.elapsed();
        let (result, progressed) = attempt().await;
        let error = match result {
            Ok(value) => return Ok(value),
            Err(error) if !error.is_transient() => return Err(error),
            Err(error) => error,
        };
        if progressed {
            failures = 0;
            last_progress = Instant::now();
        }
        failures += 1;
        let delay = policy.delay(failures, &error, random());
        // All wait for that, and so does `ready`: a pause that is no longer is none of its own.
        let asked = error.retry_after().filter(|_| error.is_throttle());
        let is_held = asked.is_some_and(|asked| delay <= asked && held_up_to.is_some_and(|longest| asked <= longest));
        let own = if is_held { Duration::ZERO } else { delay };
        if failures >= policy.attempts || last_progress.elapsed() + own > policy.timeout {
            return Err(Error::Exhausted { attempts: failures, elapsed: started.elapsed(), source: Box::new(error) });
        }
        on_retry(failures, delay, &error);
        pause(own).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn unavailable(retry_after: Option<u64>) -> Error {
        let retry_after = retry_after.map(Duration::from_secs);
        Error::Status { location: "x".into(), status: 503, retry_after, reason: None }
    }

    fn instant() -> RetryPolicy {
        RetryPolicy { attempts: 3, initial: Duration::ZERO, ..RetryPolicy::default() }
    }

    #[test]
    fn delays_double_up_to_the_ceiling_and_obey_the_server() {
        let policy = RetryPolicy::default();
        let delays: Vec<_> = (1..=9).map(|n| policy.delay(n, &unavailable(None), 1.0).as_millis()).collect();
        assert_eq!(delays, [200, 400, 800, 1600, 3200, 6400, 12800, 20000, 20000]);
        assert_eq!(policy.delay(40, &unavailable(None), 0.5), Duration::from_secs(10));
        assert_eq!(policy.delay(1, &unavailable(Some(7)), 0.0), Duration::from_secs(7));
    }

    #[tokio::test]
    async fn gives_up_after_the_attempts_without_progress() {
        let calls = Cell::new(0);
        let error = retry(
            &instant(),
            |_, _, _| {},
            || {
                calls.set(calls.get() + 1);
                // The second of the attempts made progress, so three more follow it.
                let progressed = calls.get() == 2;
                async move { (Err::<(), _>(unavailable(None)), progressed) }
            },
        )
        .await
        .unwrap_err();
        assert_eq!(calls.get(), 4);
        assert!(matches!(error, Error::Exhausted { attempts: 3, .. }), "{error:?}");
        assert!(error.is_remote());
    }

    #[tokio::test(start_paused = true)]
    async fn waits_are_drawn_and_counted_against_the_timeout() {
        let started = Instant::now();
        let policy = RetryPolicy { timeout: Duration::from_secs(9), ..RetryPolicy::default() };
        let mut drawn = [0.5, 0.25, 0.0].into_iter();
        let (calls, waits) = (Cell::new(0), Cell::new(Vec::new()));
        let error = retry_drawing(
            &policy,
            None,
            || drawn.next().unwrap(),
            || std::future::ready(()),
            tokio::time::sleep,
            |attempt, wait, _| {
                let mut all = waits.take();
                all.push((attempt, wait.as_millis()));
                waits.set(all);
            },
            || {
                calls.set(calls.get() + 1);
                let retry_after = (calls.get() == 3).then_some(9);
                async move { (Err::<(), _>(unavailable(retry_after)), false) }
            },
        )
        .await
        .unwrap_err();
        assert_eq!(waits.into_inner(), [(1, 100), (2, 100)]);
        let Error::Exhausted { attempts, elapsed, .. } = error else { panic!("{error:?}") };
        assert_eq!((attempts, elapsed, started.elapsed()), (3, Duration::from_millis(200), elapsed));
    }

    #[tokio::test(start_paused = true)]
    async fn being_held_back_does_not_count_against_the_timeout() {
        let policy = RetryPolicy { timeout: Duration::from_secs(9), initial: Duration::ZERO, ..RetryPolicy::default() };
        let calls = Cell::new(0);
        let error = retry_when(
            &policy,
            || tokio::time::sleep(Duration::from_secs(100)),
            tokio::time::sleep,
            |_, _, _| {},
            || {
                calls.set(calls.get() + 1);
                async {
                    tokio::time::sleep(Duration::from_secs(4)).await;
                    (Err::<(), _>(unavailable(None)), false)
                }
            },
        )
        .await
        .unwrap_err();
        // The third attempt ends after 12 s that count.
        let Error::Exhausted { attempts, elapsed, .. } = error else { panic!("{error:?}") };
        assert_eq!((calls.get(), attempts, elapsed), (3, 3, Duration::from_secs(312)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_hold_does_not_cover_is_waited_for() {
        let (begun, sent) = (Instant::now(), Cell::new(Vec::new()));
        // A hold of nothing, one that is shorter than what was drawn, one that is longer, and one that nobody is held for.
        let mut asked = [0, 1, 5, 40].into_iter();
        let policy = RetryPolicy { initial: Duration::from_secs(2), ..RetryPolicy::default() };
        let held_until = Cell::new(begun);
        let done = retry_drawing(
            &policy,
            Some(Duration::from_secs(30)),
            || 0.5,
            || tokio::time::sleep_until(held_until.get()),
            tokio::time::sleep,
            |_, _, _| {},
            || {
                let mut all = sent.take();
                all.push(begun.elapsed().as_secs());
                sent.set(all);
                let error = asked.next().map(|asked| {
                    let asked_for = Duration::from_secs(asked);
                    if asked_for <= Duration::from_secs(30) {
                        held_until.set(Instant::now() + asked_for);
                    }
                    unavailable(Some(asked))
                });
                async move { (error.map_or(Ok(()), Err), false) }
            },
        );
        done.await.unwrap();
        // Drawn were 1, 2, 4 and 8 seconds.
        assert_eq!(sent.into_inner(), [0, 1, 3, 8, 48]);
    }

    #[tokio::test]
    async fn what_a_retry_cannot_mend_ends_at_once() {
        let calls = Cell::new(0);
        let error = retry(
            &instant(),
            |_, _, _| {},
            || {
                calls.set(calls.get() + 1);
                async { (Err::<(), _>(Error::NotFound { location: "x".into() }), true) }
            },
        )
        .await
        .unwrap_err();
        assert_eq!((calls.get(), error.to_string()), (1, "x does not exist".to_owned()));
    }
}
