use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{EVEN_UP_TO, RateLimit};

/// What part of a window may be caught up on at once by one whose requests are evenly paced.
const CATCH_UP: u32 = 20;

/// The permits of one limit that count.
///
/// A permit counts from its grant until one window after its request has arrived at the server. If at most N count at any
/// moment, no window of the server has more than N arrivals: of N + 1 in one, all but the last to be granted would still
/// count when that one is, since they arrive less than a window before it does, and it arrives after its grant.
#[derive(Debug)]
pub(super) struct Window {
    limit: RateLimit,
    /// How much later than others a request may arrive; none if its own answer alone tells that it did.
    margin: Option<Duration>,
    is_even: bool,
    /// Those that may not have arrived, in the order of their grants.
    pending: VecDeque<Pending>,
    /// When each of the others ceases to count.
    counted: BinaryHeap<Reverse<Instant>>,
    /// When the next one would be granted if they were granted evenly.
    even: Option<Instant>,
}

#[derive(Debug)]
struct Pending {
    number: u64,
    host: Arc<str>,
    /// When its owner had it in hand, and not before.
    taken: Option<Instant>,
    /// Whether a connection may be opened for it: others overtake it by nobody knows how much.
    opens: bool,
    /// When it ceases to count even if nothing is heard, because answers usually take longer than that.
    lapses: Option<Instant>,
}

/// When a window has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Now,
    /// Not before this instant, and then it is to be asked again.
    At(Instant),
    /// As soon as something is heard of a request that is under way.
    AfterAnAnswer,
}

impl Window {
    pub(super) fn new(limit: RateLimit, margin: Option<Duration>, is_even: bool) -> Self {
        Self { limit, margin, is_even, pending: VecDeque::new(), counted: BinaryHeap::new(), even: None }
    }

    pub(super) fn limit(&self) -> RateLimit {
        self.limit
    }

    /// How many may be granted within so much time, if none counts as it begins.
    pub(super) fn most_in(&self, time: Duration) -> u64 {
        let window = self.limit.window().as_nanos();
        // Those of a window at once, and as many again when it is over.
        let at_once = (time.as_nanos() / window + 1) * u128::from(self.limit.permits());
        let paced = (time + self.catch_up()).as_nanos() / self.step(1.0).as_nanos().max(1) + 1;
        let most = if self.is_even { at_once.min(paced) } else { at_once };
        u64::try_from(most).unwrap_or(u64::MAX)
    }

    /// Whether nothing counts.
    pub(super) fn is_idle(&mut self, now: Instant) -> bool {
        self.expire(now);
        self.pending.is_empty() && self.counted.is_empty()
    }

    /// Whether one more may be granted, if the limit is that part of itself.
    pub(super) fn room(&mut self, now: Instant, part: f64) -> Room {
        self.expire(now);
        if let Some(even) = self.even.filter(|_| self.is_paced(part)) {
            let earliest = even.checked_sub(self.catch_up()).unwrap_or(now);
            if earliest > now {
                return Room::At(earliest);
            }
        }
        if self.pending.len() + self.counted.len() < self.capacity(part) {
            return Room::Now;
        }
        let lapses = self.pending.front().and_then(|first| first.lapses);
        let expires = self.counted.peek().map(|Reverse(expires)| *expires);
        lapses.into_iter().chain(expires).min().map_or(Room::AfterAnAnswer, Room::At)
    }

    /// Counts one more, which [`room`](Self::room) allowed.
    pub(super) fn grant(&mut self, now: Instant, part: f64, number: u64, host: &Arc<str>) {
        if self.is_paced(part) {
            let begin = now.checked_sub(self.catch_up()).unwrap_or(now);
            self.even = Some(self.even.map_or(now, |even| even.max(begin)) + self.step(part));
        }
        self.pending.push_back(Pending { number, host: host.clone(), taken: None, opens: false, lapses: None });
    }

    /// Its owner has it in hand and may send from `now` on, maybe on a connection that it `opens`. Where the quickest answer
    /// takes `floor`, if that is known.
    pub(super) fn taken(&mut self, now: Instant, number: u64, opens: bool, floor: Option<Duration>) {
        let window = self.limit.window();
        let lapses = self.margin.filter(|_| floor.is_some_and(|floor| floor >= window));
        if let Some(pending) = self.find(number).and_then(|at| self.pending.get_mut(at)) {
            pending.taken = Some(now);
            pending.opens = opens;
            // What opens a connection waits for its own answer.
            pending.lapses = lapses.filter(|_| !opens).map(|margin| now + window + margin);
        }
    }

    /// An answer came at `now` to a request of which `taken` is known, from a server whose quickest answers take `floor`: none
    /// if that is not known, or says nothing about this one.
    pub(super) fn answered(&mut self, now: Instant, number: u64, taken: Instant, host: &Arc<str>, floor: Duration) {
        let Some(margin) = self.margin else {
            return self.arrived(number, now);
        };
        // What it took longer than the quickest may all have been on the way there.
        let arrived = now.checked_sub(floor).unwrap_or(now).max(taken);
        // The quickest so far may not have been quick, so that only the margin is left.
        self.arrived(number, now.min(arrived.max(taken + margin)));
        let window = self.limit.window();
        let counted = &mut self.counted;
        self.pending.retain(|other| match other.taken {
            // It was overtaken, and by no more than that.
            Some(at) if at <= taken && !other.opens && other.host == *host => {
                counted.push(Reverse(arrived + margin + window));
                false
            }
            _ => true,
        });
    }

    /// Nothing will be heard of it any more.
    pub(super) fn lost(&mut self, now: Instant, number: u64) {
        self.arrived(number, now + self.margin.unwrap_or_default());
    }

    /// It was not sent: gives it back, if it is still known which one it is.
    pub(super) fn unused(&mut self, number: u64) {
        if let Some(at) = self.find(number) {
            self.pending.remove(at);
        }
    }

    /// Counts requests of another run until `expires`.
    pub(super) fn add(&mut self, expires: Instant, count: usize) {
        // More than that make no difference.
        let count = count.min(self.limit.permits() as usize);
        self.counted.extend(std::iter::repeat_n(Reverse(expires), count));
    }

    /// Of those that have arrived, how long each of them counts yet, in that order. When they arrived may be before the
    /// beginning of this machine's time.
    pub(super) fn remaining(&mut self, now: Instant) -> Vec<Duration> {
        self.expire(now);
        let mut remaining: Vec<_> =
            self.counted.iter().map(|Reverse(expires)| expires.saturating_duration_since(now)).collect();
        remaining.sort_unstable();
        remaining
    }

    /// How many may not have arrived.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// A quota whose rate was lowered is used up at a pace.
    fn is_paced(&self, part: f64) -> bool {
        self.is_even || part < 1.0 && self.limit.window() > EVEN_UP_TO
    }

    /// How far apart they are at an even pace.
    fn step(&self, part: f64) -> Duration {
        let requests = (f64::from(self.limit.permits()) * part).max(1.0);
        Duration::from_secs_f64(self.limit.window().as_secs_f64() / requests)
    }

    fn catch_up(&self) -> Duration {
        let part = self.limit.window() / CATCH_UP;
        if self.is_even { part } else { part.min(Duration::from_secs(1)) }
    }

    /// Of a long window it stays what it is: most of it may be used up already, and then nothing would go for long.
    fn capacity(&self, part: f64) -> usize {
        let part = if self.limit.window() > EVEN_UP_TO { 1.0 } else { part };
        ((f64::from(self.limit.permits()) * part) as usize).max(1)
    }

    fn expire(&mut self, now: Instant) {
        while self.counted.peek().is_some_and(|Reverse(expires)| *expires <= now) {
            self.counted.pop();
        }
        while self.pending.front().and_then(|first| first.lapses).is_some_and(|lapses| lapses <= now) {
            self.pending.pop_front();
        }
    }

    fn find(&self, number: u64) -> Option<usize> {
        self.pending.binary_search_by_key(&number, |pending| pending.number).ok()
    }

    fn arrived(&mut self, number: u64, at: Instant) {
        if let Some(place) = self.find(number) {
            self.pending.remove(place);
            self.counted.push(Reverse(at + self.limit.window()));
        }
    }
}
