//! How many requests leave, over all workers: a promise, and not an average.

mod connections;
mod floor;
mod rate_limit;
mod saved;
mod window;

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use self::connections::{Connections, Opening};
use self::floor::Floor;
pub use self::rate_limit::{RateLimit, RateLimitError};
use self::saved::Store;
use self::window::{Room, Window};
use crate::retry::retry_held;
use crate::{Error, RetryPolicy};

/// Hosts that are remembered although nothing counts for them.
const HOSTS: usize = 1024;
/// Windows up to this length are paced evenly by default.
const EVEN_UP_TO: Duration = Duration::from_secs(60);
/// How long a throttle holds back all that names no wait, or one of no time, as of a date that is past.
const UNNAMED_HOLD: Duration = Duration::from_secs(1);
/// The rate that throttling may lower it to.
const LEAST_PART: f64 = 0.05;
/// What a throttle leaves of the rate, and what a time without one adds.
const LOWERED: f64 = 0.7;
const RAISED: f64 = 0.05;

/// How a [`Limiter`] keeps its limits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LimiterOptions {
    /// Limits of all requests together. Default none.
    pub limits: Vec<RateLimit>,
    /// Limits of the requests to each host, besides. Default none.
    pub per_host: Vec<RateLimit>,
    /// What is taken for a proof that a request has arrived. Default [`Margin::Relative`] of 0.01.
    pub margin: Margin,
    /// How requests are spread over a window. Default [`Spread::Auto`].
    pub spread: Spread,
    /// Whether throttle answers lower the rate, to no less than a twentieth, and their absence raises it again, up to the
    /// limits. In windows of up to a minute fewer requests are allowed; in longer ones as many, at a lower pace. For servers
    /// whose limits nobody knows: it needs one to begin with, and does nothing without. Default no: the limits are the
    /// server's.
    pub adaptive: bool,
    /// No hold lasts longer: who is told to wait for more gives up, and others are to learn on their own whether that
    /// still holds. Default one hour.
    pub longest_hold: Duration,
}

impl Default for LimiterOptions {
    fn default() -> Self {
        Self {
            limits: Vec::new(),
            per_host: Vec::new(),
            margin: Margin::default(),
            spread: Spread::default(),
            adaptive: false,
            longest_hold: Duration::from_secs(3600),
        }
    }
}

/// What counts is when the server sees a request, and that is some time between the moment in which it is sent and that in
/// which its answer arrives. A permit counts from its grant until a window after its request has *certainly* arrived; this
/// says what is certain.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Margin {
    /// The request's own answer, and nothing else. No network and no server, however slow and irregular, ever sees more
    /// requests in a window than are allowed. Costs the time that answers take: of the rate, the part *t* / (*t* + window),
    /// for answers that take *t* on the average.
    Exact,
    /// A request has arrived when this much time has passed after the arrival of one that was sent later, as its answer
    /// tells. And of the time that an answer takes, what the quickest answers of that host take is no time in which the
    /// request may still have been under way, but for this much.
    ///
    /// So it must be as long as one request may be overtaken by others on open connections. One for which a connection may
    /// have to be opened, since more requests are under way than were before, counts until its own answer comes, as under
    /// [`Exact`](Self::Exact); a connection that is opened in place of one that the server closed is not seen.
    /// A delay of all of them, by a network or a server that stands still, is seen, unless even the quickest answers take
    /// longer than the window: those cannot be waited for without slowing down. Costs of the rate about the part
    /// margin / (margin + window), less where answers come quickly, and a little more where requests are far apart.
    Within(Duration),
    /// [`Within`](Self::Within) this part of each window, and no more than 1 s.
    Relative(f64),
}

impl Default for Margin {
    fn default() -> Self {
        Self::Relative(0.01)
    }
}

impl Margin {
    fn of(self, limit: &RateLimit) -> Option<Duration> {
        match self {
            Self::Exact => None,
            Self::Within(margin) => Some(margin),
            Self::Relative(part) => {
                let part = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
                Some(limit.window().mul_f64(part).min(Duration::from_secs(1)))
            }
        }
    }
}

/// How requests are spread over a window. The limit is kept in any case, and all of it is used while there is work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Spread {
    /// Evenly over windows of up to a minute: these are meant as a pace. All at once in longer ones: these are a quota.
    #[default]
    Auto,
    /// At the pace of the limit, so that the server is loaded evenly and the fewest connections do; what fell behind is
    /// made up for, up to a twentieth of the window at once.
    Even,
    /// As soon as the window has room: in the beginning, a whole window's requests at once.
    AtOnce,
}

/// Lets no more requests go than all of its limits allow, to all who share it. Clones are one limiter.
///
/// [`retry`](Self::retry) makes a request under it, with all its attempts. [`acquire`](Self::acquire) gives one permit for
/// one request, in the order of asking; who waits for a host that has used up its own limit does not hold up the others.
///
/// # The promise
///
/// In no stretch of time as long as a limit's window does the server see more requests than the limit allows, wherever it
/// begins: not over the workers together, not after retries, and not over restarts if the limiter is
/// [kept in a file](Self::open). What is granted is remembered permit by permit, not as a rate: GCRA and token buckets
/// allow up to twice as much in the worst window. What the server sees is when requests *arrive*, which is not when they
/// are sent; see [`Margin`].
///
/// The promise rests on two things that nobody can prove from here. A request that failed without an answer
/// ([`Permit`] dropped) is taken to have arrived by then. And with a [`Margin`] other than [`Exact`](Margin::Exact), no
/// request is overtaken on its way by more than the margin.
///
/// ```
/// use bulk_core::{Limiter, LimiterOptions};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let mut options = LimiterOptions::default();
/// options.limits = vec!["25/s over 10s".parse()?, "5000/h".parse()?];
/// let limiter = Limiter::new(options);
///
/// let begun = tokio::time::Instant::now();
/// for _ in 0..500 {
///     let permit = limiter.acquire("api.example.org").await;
///     // Send the request here; as soon as the head of its answer is there:
///     permit.answered();
/// }
/// // At 25 a second, of which half a second's may go at once: a twentieth of the window.
/// assert_eq!(begun.elapsed().as_secs(), 19);
/// # Ok::<(), bulk_core::RateLimitError>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Limiter {
    shared: Arc<Shared>,
}

struct Shared {
    options: LimiterOptions,
    state: Mutex<State>,
    /// A hold has begun, or lasts longer.
    holds: Notify,
}

struct State {
    windows: Vec<Window>,
    hosts: HashMap<Arc<str>, Host>,
    /// In the order of asking.
    queue: VecDeque<Waiter>,
    /// Granted to waiters who have not seen it yet, with the permit's number, by theirs.
    granted: HashMap<u64, u64>,
    /// Of waiters and permits.
    next_number: u64,
    grants: u64,
    waited: Duration,
    not_before: Option<Instant>,
    /// The part of the limits that is used, lowered by throttle answers.
    part: f64,
    /// When it was last lowered.
    lowered: Option<Instant>,
    /// When it was last raised, or a throttle answer came, and whether an answer came since that was none.
    quiet_since: Option<Instant>,
    is_well: bool,
    store: Option<Store>,
}

struct Host {
    windows: Vec<Window>,
    not_before: Option<Instant>,
    floor: Floor,
    connections: Connections,
}

struct Waiter {
    number: u64,
    host: Arc<str>,
    since: Instant,
    news: Arc<Notify>,
}

/// What a limiter does at this moment.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct LimiterStatus {
    /// Permits that were granted and not given back [unused](Permit::unused).
    pub granted: u64,
    /// Those who wait for one.
    pub waiting: usize,
    /// How long those who have one waited for it, all together: the time that the limits cost.
    pub waited: Duration,
    /// How long all are [held](Limiter::hold) yet.
    pub held: Duration,
    /// The part of the limits that is used; below 1 where throttle answers have [lowered](LimiterOptions::adaptive) it.
    pub part: f64,
}

/// Leave to send one request, once.
///
/// Whoever holds it says what became of the request: [`answered`](Self::answered) as soon as the head of an answer is there,
/// whatever it says, or [`unused`](Self::unused). A drop says that it was sent, and that no answer will come.
#[must_use = "a permit that is dropped counts as a request"]
pub struct Permit {
    shared: Arc<Shared>,
    number: u64,
    host: Arc<str>,
    taken: Instant,
    opening: Option<Opening>,
    is_done: bool,
}

impl Limiter {
    /// A limiter of which nothing is known: it takes for granted that no request was sent before. It needs the clock of the
    /// tokio runtime in which it is used.
    pub fn new(options: LimiterOptions) -> Self {
        let windows = options.limits.iter().map(|limit| options.window(limit)).collect();
        let state = State {
            windows,
            hosts: HashMap::new(),
            queue: VecDeque::new(),
            granted: HashMap::new(),
            next_number: 0,
            grants: 0,
            waited: Duration::ZERO,
            not_before: None,
            part: 1.0,
            lowered: None,
            quiet_since: None,
            is_well: false,
            store: None,
        };
        Self { shared: Arc::new(Shared { options, state: Mutex::new(state), holds: Notify::new() }) }
    }

    /// A limiter that goes on where the last one stopped whose file this is, so that a rerun does not burst. Without the
    /// file it is a [new](Self::new) one.
    ///
    /// The file is replaced, whole, before the permits of about a second are granted: after a crash, those count as if they
    /// had all been used just before the file is read again. It holds times of the wall clock, and nothing else of what was
    /// requested, in at most some ten kilobytes for each limit and host. If the clock went backwards in between, no time
    /// is taken to have passed; one that was put forward cannot be told from time that passed. If the limits are others, what is known is counted under the new ones.
    /// A [hold](Self::hold) that is in force goes on, until its end by the wall clock and for no longer than
    /// [`LimiterOptions::longest_hold`], and so does a rate that throttle answers have [lowered](LimiterOptions::adaptive).
    ///
    /// It is written when the last clone is dropped, too. These writes block for less than a millisecond where the disk is
    /// an ordinary one; they are not synced, since what a power failure takes is less than what it lasts. One that fails
    /// is tried again with the next; [`save`](Self::save) tells.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read, is none of a limiter's, or cannot be written or locked: as another run that
    /// uses it has the lock.
    pub fn open(options: LimiterOptions, file: impl Into<PathBuf>) -> Result<Self, Error> {
        let limiter = Self::new(options);
        let (store, saved) = Store::open(file.into())?;
        // Only now: the time until the lock was there is none that has passed since the file was written.
        let now = Instant::now();
        {
            let mut state = limiter.shared.lock();
            state.store = Some(store);
            if let Some(saved) = saved {
                for window in &mut state.windows {
                    saved.restore(None, window, now);
                }
                let held = saved.held(None, limiter.shared.options.longest_hold);
                state.not_before = held.and_then(|held| now.checked_add(held));
                if limiter.is_adaptive() {
                    // It rises as it would have done.
                    state.part = saved.part().clamp(LEAST_PART, 1.0);
                    state.quiet_since = Some(now);
                }
                for host in saved.hosts() {
                    limiter.shared.host(&mut state, host, now, Some(&saved));
                }
                let not_before = state.not_before;
                let of_hosts: Vec<_> =
                    state.hosts.iter().filter_map(|(name, host)| Some((name.clone(), host.not_before?))).collect();
                if let Some(store) = &mut state.store {
                    let of_hosts = of_hosts.into_iter().map(|(name, until)| (Some(name), until));
                    let holds = not_before.map(|until| (None, until)).into_iter().chain(of_hosts);
                    holds.for_each(|(host, until)| store.has_found(host, until));
                    store.inherited = Some((saved, now));
                }
            }
        }
        limiter.save()?;
        Ok(limiter)
    }

    /// Writes the file of [`open`](Self::open) now. Does nothing for others.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn save(&self) -> Result<(), Error> {
        self.shared.lock().save(&self.shared.options, 1)
    }

    /// The file that it is kept in, if it is.
    pub fn file(&self) -> Option<PathBuf> {
        self.shared.lock().store.as_ref().map(|store| Path::to_owned(store.path()))
    }

    /// Waits for leave to send one request to `host`, which is any name that tells servers apart.
    ///
    /// Dropping the future is safe: its place in the order is given up, and what was granted to it already is given back. Who
    /// neither polls nor drops it holds up those behind.
    pub async fn acquire(&self, host: &str) -> Permit {
        let place = Place::take(&self.shared, host);
        loop {
            match place.turn() {
                Turn::Granted(permit) => return permit,
                Turn::Until(Some(instant)) => tokio::select! {
                    () = place.news.notified() => {}
                    () = tokio::time::sleep_until(instant) => {}
                },
                Turn::Until(None) => place.news.notified().await,
            }
        }
    }

    /// The same, and as long as it waits it tells whether all requests to that host are [held](Self::hold): as the wait begins,
    /// and whenever that may have changed.
    #[cfg(feature = "crawl")]
    pub(crate) async fn acquire_telling(&self, host: &str, is_held: impl Fn(bool)) -> Permit {
        let mut permit = std::pin::pin!(self.acquire(host));
        loop {
            // Before it is looked whether there is one, so that none is missed in between.
            let mut begins = std::pin::pin!(self.shared.holds.notified());
            begins.as_mut().enable();
            let ends = async {
                // Polled only where there is no permit yet.
                let until = self.shared.held_until(host);
                is_held(until.is_some());
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                permit = &mut permit => return permit,
                () = begins => {}
                () = ends => {}
            }
        }
    }

    /// Makes a request to `host` under `policy` as [`retry()`](crate::retry()) does, with a permit of its own for each
    /// attempt. Whatever the server says in it is heeded by all: a throttle ([`Error::is_throttle`]) holds back everyone for
    /// as long as it asks for, and where the limiter is [adaptive](LimiterOptions::adaptive) it lowers the rate. Waits for
    /// permits do not count against the policy's timeout, and neither do the waits that a server asks of all, up to
    /// [`LimiterOptions::longest_hold`]. Dropping the future stops everything.
    ///
    /// # Errors
    ///
    /// As [`retry()`](crate::retry()).
    pub async fn retry<T, F, Fut>(
        &self,
        host: &str,
        policy: &RetryPolicy,
        on_retry: impl FnMut(u32, Duration, &Error),
        mut attempt: F,
    ) -> Result<T, Error>
    where
        F: FnMut(Permit) -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        let attempt = |permit| {
            let answer = attempt(permit);
            async { (answer.await, false) }
        };
        self.retry_with(host, || self.acquire(host), policy, on_retry, attempt).await
    }

    /// The same, where `leave` [acquires](Self::acquire) the permits of `host`, and an attempt says whether it made progress.
    pub(crate) async fn retry_with<T, L, Leave, F, Fut>(
        &self,
        host: &str,
        leave: L,
        policy: &RetryPolicy,
        on_retry: impl FnMut(u32, Duration, &Error),
        mut attempt: F,
    ) -> Result<T, Error>
    where
        L: Fn() -> Leave,
        Leave: Future<Output = Permit>,
        F: FnMut(Permit) -> Fut,
        Fut: Future<Output = (Result<T, Error>, bool)>,
    {
        let at_hand = Mutex::new(None);
        let lock = || at_hand.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = || async {
            let permit = leave().await;
            *lock() = Some(permit);
        };
        let paced = || {
            let answer = lock().take().map(&mut attempt);
            async {
                let (answer, progressed) = match answer {
                    Some(answer) => answer.await,
                    // It was put there before.
                    None => (Err(Error::Interrupted { location: host.to_owned() }), false),
                };
                self.observe(&answer);
                (answer, progressed)
            }
        };
        retry_held(policy, self.shared.options.longest_hold, ready, on_retry, paced).await
    }

    /// Grants nothing to anybody for `delay` from now, at most [`LimiterOptions::longest_hold`]. A longer hold stays in force.
    pub fn hold(&self, delay: Duration) {
        // A delay beyond the end of time is none that a server means.
        let Some(until) = Instant::now().checked_add(delay.min(self.shared.options.longest_hold)) else { return };
        self.hold_until(until);
    }

    /// Grants nothing to anybody before `instant`. An earlier one changes nothing.
    pub fn hold_until(&self, instant: Instant) {
        let mut state = self.shared.lock();
        state.not_before = state.not_before.max(Some(instant));
        self.shared.tell_of_hold(state);
    }

    /// Grants nothing for requests to `host` for `delay` from now, as [`hold`](Self::hold) does for all.
    pub fn hold_host(&self, host: &str, delay: Duration) {
        let now = Instant::now();
        let Some(until) = now.checked_add(delay.min(self.shared.options.longest_hold)) else { return };
        let mut state = self.shared.lock();
        let host = self.shared.host(&mut state, host, now, None);
        if let Some(host) = state.hosts.get_mut(&host) {
            host.not_before = host.not_before.max(Some(until));
        }
        self.shared.tell_of_hold(state);
    }

    /// Learns from how a request ended: a throttle [holds](Self::hold) back all for as long as the server asks for, or for a
    /// second if it does not say, or says zero, and the limiter is not [adaptive](LimiterOptions::adaptive).
    /// [`retry`](Self::retry) does that for its requests.
    pub fn observe<T>(&self, result: &Result<T, Error>) {
        match result {
            Ok(_) => self.shared.lock().is_well = true,
            Err(error) if error.is_throttle() => {
                match error.retry_after().filter(|delay| !delay.is_zero()) {
                    Some(delay) => self.hold(delay),
                    None if self.is_adaptive() => {}
                    None => self.hold(UNNAMED_HOLD),
                }
                if self.is_adaptive() {
                    let mut state = self.shared.lock();
                    if state.lower(Instant::now()) {
                        // What fails is tried again with the next permit.
                        let _ = state.save(&self.shared.options, 1);
                    }
                }
            }
            Err(_) => {}
        }
    }

    /// Whether throttle answers lower the rate: as asked for, if there is one.
    fn is_adaptive(&self) -> bool {
        let options = &self.shared.options;
        options.adaptive && !(options.limits.is_empty() && options.per_host.is_empty())
    }

    /// Whether it is to be [adaptive](LimiterOptions::adaptive), and has no limit to begin with.
    #[cfg(feature = "crawl")]
    pub(crate) fn adapts_nothing(&self) -> bool {
        self.shared.options.adaptive && !self.is_adaptive()
    }

    /// The most requests a second that the limits of all allow in the long run; infinite where there is none.
    pub fn per_second(&self) -> f64 {
        self.shared.options.limits.iter().map(RateLimit::per_second).fold(f64::INFINITY, f64::min)
    }

    /// What it does at this moment.
    pub fn status(&self) -> LimiterStatus {
        let state = self.shared.lock();
        let now = Instant::now();
        LimiterStatus {
            granted: state.grants,
            waiting: state.queue.len(),
            waited: state.waited,
            held: state.not_before.map_or(Duration::ZERO, |until| until.saturating_duration_since(now)),
            part: state.part,
        }
    }
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").field("options", &self.shared.options).field("status", &self.status()).finish()
    }
}

impl LimiterOptions {
    /// How many requests the [limits](Self::limits) of all let go within so much time, at most: what they let go at once,
    /// and what they do as that ceases to count. None where there is no such limit.
    pub fn most_in(&self, time: Duration) -> Option<u64> {
        self.limits.iter().map(|limit| self.window(limit).most_in(time)).min()
    }

    fn window(&self, limit: &RateLimit) -> Window {
        let is_even = match self.spread {
            Spread::Auto => limit.window() <= EVEN_UP_TO,
            Spread::Even => true,
            Spread::AtOnce => false,
        };
        Window::new(*limit, self.margin.of(limit), is_even)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when requests to a host are held, if they are.
    #[cfg(feature = "crawl")]
    fn held_until(&self, host: &str) -> Option<Instant> {
        let state = self.lock();
        let of_host = state.hosts.get(host).and_then(|host| host.not_before);
        state.not_before.max(of_host).filter(|until| *until > Instant::now())
    }

    /// A hold has changed.
    fn tell_of_hold(&self, mut state: MutexGuard<'_, State>) {
        state.save_holds(&self.options);
        state.wake_first();
        drop(state);
        self.holds.notify_waiters();
    }

    /// The host, which is made known if it is not.
    fn host(&self, state: &mut State, name: &str, now: Instant, saved: Option<&saved::Saved>) -> Arc<str> {
        if let Some((name, _)) = state.hosts.get_key_value(name) {
            return name.clone();
        }
        if state.hosts.len() >= HOSTS {
            // Who waits for it or has a permit has its name.
            state.hosts.retain(|name, host| {
                Arc::strong_count(name) > 1
                    || host.not_before.is_some_and(|until| until > now)
                    || !host.windows.iter_mut().all(|window| window.is_idle(now))
            });
        }
        let name: Arc<str> = name.into();
        let mut windows: Vec<_> = self.options.per_host.iter().map(|limit| self.options.window(limit)).collect();
        let inherited = state.store.as_ref().and_then(|store| store.inherited.as_ref());
        // Permits that were granted before a crash may have been this host's.
        let saved = saved.map(|saved| (saved, now)).or(inherited.map(|(saved, at)| (saved, *at)));
        let mut not_before = None;
        if let Some((saved, at)) = saved {
            windows.iter_mut().for_each(|window| saved.restore(Some(&*name), window, at));
            let held = saved.held(Some(&*name), self.options.longest_hold);
            not_before = held.and_then(|held| at.checked_add(held));
        }
        state.hosts.insert(
            name.clone(),
            Host { windows, not_before, floor: Floor::default(), connections: Connections::default() },
        );
        name
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let options = self.options.clone();
        // Nobody is left to be told, and the file still says that more may have been granted.
        let _ = self.state.get_mut().unwrap_or_else(PoisonError::into_inner).save(&options, 0);
    }
}

impl State {
    fn wake_first(&self) {
        if let Some(first) = self.queue.front() {
            first.news.notify_one();
        }
    }

    /// Grants what can be granted now, in the order of asking. When the next may be granted, if that is known.
    fn dispatch(&mut self, options: &LimiterOptions, now: Instant) -> Option<Instant> {
        self.raise(options, now);
        let mut blocked: Vec<Arc<str>> = Vec::new();
        let mut next = None;
        let mut at = 0;
        while let Some(waiter) = self.queue.get(at) {
            let sooner = |instant: Instant, next: Option<Instant>| Some(next.map_or(instant, |next| next.min(instant)));
            if let Some(until) = self.not_before.filter(|until| *until > now) {
                return Some(until);
            }
            match room(&mut self.windows, now, self.part) {
                Room::Now => {}
                Room::At(instant) => return sooner(instant, next),
                Room::AfterAnAnswer => return next,
            }
            if blocked.contains(&waiter.host) {
                at += 1;
                continue;
            }
            let Some(host) = self.hosts.get_mut(&waiter.host) else {
                // It is known as long as somebody waits for it.
                at += 1;
                continue;
            };
            let of_host = match host.not_before.filter(|until| *until > now) {
                Some(until) => Room::At(until),
                None => room(&mut host.windows, now, self.part),
            };
            match of_host {
                Room::Now => {}
                waits => {
                    if let Room::At(instant) = waits {
                        next = sooner(instant, next);
                    }
                    blocked.push(waiter.host.clone());
                    at += 1;
                    continue;
                }
            }
            if self.store.as_mut().is_some_and(|store| !store.has_leave()) {
                // What fails is tried again with the next permit; the promise is that of this run then.
                let _ = self.save(options, 1);
            }
            let Some(waiter) = self.queue.remove(at) else { break };
            if let Some(store) = &mut self.store {
                store.take_leave();
            }
            let number = self.next_number;
            self.next_number += 1;
            self.grants += 1;
            self.waited += now.saturating_duration_since(waiter.since);
            let of_host = self.hosts.get_mut(&waiter.host).map(|host| host.windows.as_mut_slice());
            for window in self.windows.iter_mut().chain(of_host.unwrap_or_default()) {
                window.grant(now, self.part, number, &waiter.host);
            }
            self.granted.insert(waiter.number, number);
            waiter.news.notify_one();
        }
        next
    }

    /// All windows in which a request to `host` counts.
    fn windows_of<'a>(&'a mut self, host: &str) -> impl Iterator<Item = &'a mut Window> {
        let of_host = self.hosts.get_mut(host).map(|host| host.windows.as_mut_slice());
        self.windows.iter_mut().chain(of_host.unwrap_or_default())
    }

    /// Whether it is lower now.
    fn lower(&mut self, now: Instant) -> bool {
        let before = self.part;
        // The answers to requests that were sent together are one sign.
        if self.lowered.is_none_or(|at| now.duration_since(at) >= Duration::from_secs(1)) {
            self.part = (self.part * LOWERED).max(LEAST_PART);
            self.lowered = Some(now);
        }
        (self.quiet_since, self.is_well) = (Some(now), false);
        self.part < before
    }

    fn raise(&mut self, options: &LimiterOptions, now: Instant) {
        let Some(since) = self.quiet_since.filter(|_| self.part < 1.0 && self.is_well) else { return };
        let windows = options.limits.iter().chain(&options.per_host).map(RateLimit::window);
        let shortest = windows.min().unwrap_or_default();
        if now.duration_since(since) >= shortest.clamp(Duration::from_secs(1), Duration::from_secs(30)) {
            self.part = (self.part + RAISED).min(1.0);
            (self.quiet_since, self.is_well) = (Some(now), false);
        }
    }

    /// The holds that are in force, of all and of hosts.
    fn holds(&self) -> Vec<(Option<Arc<str>>, Instant)> {
        let of_hosts = self.hosts.iter().map(|(name, host)| (Some(name.clone()), host.not_before));
        let now = Instant::now();
        let all = std::iter::once((None, self.not_before)).chain(of_hosts);
        all.filter_map(|(host, until)| Some((host, until.filter(|until| *until > now)?))).collect()
    }

    /// Writes the file if a hold is in force that is not in it, so that a run that is killed meanwhile does not end it.
    fn save_holds(&mut self, options: &LimiterOptions) {
        let Some(store) = &self.store else { return };
        if self.holds().iter().any(|(host, until)| !store.has_hold(host.as_ref(), *until)) {
            // What fails is tried again with the next permit.
            let _ = self.save(options, 1);
        }
    }

    fn save(&mut self, options: &LimiterOptions, seconds: u32) -> Result<(), Error> {
        let holds = self.holds();
        let Some(store) = &mut self.store else { return Ok(()) };
        // A hundredth of a window at a time: what a crash may cost.
        let leave = |limit: &RateLimit| {
            let leave = (limit.per_second() * f64::from(seconds)).max(f64::from(limit.permits() / 100));
            (leave as usize).max(1)
        };
        let leave = match seconds {
            0 => 0,
            _ => options.limits.iter().chain(&options.per_host).map(leave).min().unwrap_or(usize::MAX),
        };
        let of_hosts = self.hosts.iter_mut().flat_map(|(name, host)| {
            let name: &str = name;
            host.windows.iter_mut().map(move |window| (Some(name), window))
        });
        store.save(self.windows.iter_mut().map(|window| (None, window)).chain(of_hosts), leave, holds, self.part)
    }
}

/// When all of them have room: the last one's word counts.
fn room(windows: &mut [Window], now: Instant, part: f64) -> Room {
    windows.iter_mut().fold(Room::Now, |found, window| match (found, window.room(now, part)) {
        (Room::AfterAnAnswer, _) | (_, Room::AfterAnAnswer) => Room::AfterAnAnswer,
        (Room::At(one), Room::At(other)) => Room::At(one.max(other)),
        (Room::At(instant), Room::Now) | (Room::Now, Room::At(instant)) => Room::At(instant),
        (Room::Now, Room::Now) => Room::Now,
    })
}

/// A place in the order of asking. A drop gives it up.
struct Place<'a> {
    shared: &'a Arc<Shared>,
    number: u64,
    host: Arc<str>,
    news: Arc<Notify>,
}

enum Turn {
    Granted(Permit),
    /// To be asked again at this instant, and when there is news.
    Until(Option<Instant>),
}

impl<'a> Place<'a> {
    fn take(shared: &'a Arc<Shared>, host: &str) -> Self {
        let mut state = shared.lock();
        let since = Instant::now();
        let host = shared.host(&mut state, host, since, None);
        let number = state.next_number;
        state.next_number += 1;
        let news = Arc::new(Notify::new());
        state.queue.push_back(Waiter { number, host: host.clone(), since, news: news.clone() });
        // Where others wait already, the first of them looks after all. But they may all wait for other hosts.
        if state.queue.len() > 1 {
            state.wake_first();
        }
        drop(state);
        Self { shared, number, host, news }
    }

    fn turn(&self) -> Turn {
        let mut state = self.shared.lock();
        let now = Instant::now();
        let is_first = |state: &State| state.queue.front().is_some_and(|first| first.number == self.number);
        let mut next = None;
        if is_first(&state) {
            next = state.dispatch(&self.shared.options, now);
            // Whoever is first now looks after the clock.
            if !is_first(&state) {
                state.wake_first();
            }
        }
        let Some(number) = state.granted.remove(&self.number) else { return Turn::Until(next) };
        let known = state.hosts.get_mut(&self.host).map(|host| (host.connections.sent(now), host.floor.get()));
        let (opening, floor) = known.unwrap_or_default();
        let opens = opening.is_some();
        state.windows_of(&self.host).for_each(|window| window.taken(now, number, opens, floor));
        let (shared, host) = (self.shared.clone(), self.host.clone());
        Turn::Granted(Permit { shared, number, host, taken: now, opening, is_done: false })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Some(number) = state.granted.remove(&self.number) {
            state.grants -= 1;
            state.windows_of(&self.host).for_each(|window| window.unused(number));
            state.wake_first();
        } else if let Some(at) = state.queue.iter().position(|waiter| waiter.number == self.number) {
            state.queue.remove(at);
            state.wake_first();
        }
    }
}

impl Permit {
    /// The head of the answer is there: the request has arrived.
    pub fn answered(mut self) {
        self.is_done = true;
        let now = Instant::now();
        let mut state = self.shared.lock();
        // Until the quickest answers are known, all of the time is taken to have gone by on the way. So it is for what may
        // have waited for a connection; how long that took says nothing about the others.
        let floor = state.hosts.get_mut(&self.host).and_then(|host| {
            host.connections.answered(self.opening);
            if self.opening.is_some() {
                return None;
            }
            host.floor.add(now, now.duration_since(self.taken));
            host.floor.get()
        });
        let floor = floor.unwrap_or_default();
        let (number, taken, host) = (self.number, self.taken, self.host.clone());
        state.windows_of(&host).for_each(|window| window.answered(now, number, taken, &host, floor));
        state.wake_first();
    }

    /// The request was not sent, and will not be: the permit is another's, unless it cannot be told apart any more from
    /// those whose requests have arrived.
    pub fn unused(mut self) {
        self.is_done = true;
        let mut state = self.shared.lock();
        state.grants -= 1;
        let number = self.number;
        if let Some(host) = state.hosts.get_mut(&self.host) {
            host.connections.unused();
        }
        state.windows_of(&self.host).for_each(|window| window.unused(number));
        state.wake_first();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.is_done {
            let now = Instant::now();
            let mut state = self.shared.lock();
            let number = self.number;
            if let Some(host) = state.hosts.get_mut(&self.host) {
                host.connections.lost();
            }
            state.windows_of(&self.host).for_each(|window| window.lost(now, number));
            state.wake_first();
        }
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permit").field("host", &self.host).finish_non_exhaustive()
    }
}
