//! The memory that answers take: who may have some of it, and who waits.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::engine::Shared;
use super::meter::CallMeter;
use crate::meter::Wait;

/// The part of it that an answer is taken to need until the first has come.
const FIRST: u64 = 64;

/// So many bytes for the answers of a crawl: those that are expected, those that arrive, and those that wait for the reader or
/// are with it.
///
/// Who waits goes on in order: bodies that arrive before requests that are yet to be sent, as a server closes a connection that
/// nobody reads, and older calls before younger ones. What is given back is kept for the first of them, so that many small
/// answers do not keep a large one waiting.
///
/// Nobody waits for ever: where the reader has taken all there is and asks for more, the oldest call goes on, whatever there
/// is. So there is never more than the whole and what that call has, unless the reader asks before it drops what it has.
#[derive(Debug)]
pub(super) struct Room {
    most: u64,
    state: Mutex<State>,
    /// Somebody may go on.
    freed: Notify,
}

#[derive(Debug)]
struct State {
    taken: u64,
    /// How many bytes an answer had of late, once there was one.
    usual: Option<u64>,
    /// The oldest call under way.
    front: u64,
    /// Whether the reader waits for something.
    is_asked: bool,
    /// What is on its way to the reader.
    coming: usize,
    /// Who waits, in the order in which they go on.
    waiting: BTreeSet<Turn>,
}

/// Whose turn it is; less is earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    /// Whether its request is yet to be sent.
    is_new: bool,
    call: u64,
}

/// Somebody who waits, until it is dropped.
struct Waiting<'a> {
    room: &'a Room,
    turn: Turn,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let was_in_line = self.room.lock().waiting.remove(&self.turn);
        if was_in_line {
            self.room.freed.notify_waiters();
        }
    }
}

impl Room {
    pub(super) fn new(most: u64) -> Self {
        let state = State { taken: 0, usual: None, front: 0, is_asked: false, coming: 0, waiting: BTreeSet::new() };
        Self { most, state: Mutex::new(state), freed: Notify::new() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.lock().taken >= self.most
    }

    /// Whether the reader waits, and nothing is on its way to it.
    pub(super) fn is_waited_for(&self) -> bool {
        self.lock().is_waited_for()
    }

    /// How many bytes the next answer is expected to have.
    fn usual(&self) -> u64 {
        self.lock().usual.unwrap_or(self.most / FIRST)
    }

    /// An answer had so many.
    fn answered(&self, bytes: u64) {
        let mut state = self.lock();
        state.usual = Some(state.usual.map_or(bytes, |usual| (usual.saturating_mul(7).saturating_add(bytes)) / 8));
    }

    /// The reader waits.
    pub(super) fn asked(&self) {
        let mut state = self.lock();
        let is_new = !state.is_asked;
        state.is_asked = true;
        drop(state);
        if is_new {
            self.freed.notify_waiters();
        }
    }

    /// The reader has what it waited for.
    pub(super) fn read(&self) {
        let mut state = self.lock();
        state.is_asked = false;
        state.coming = state.coming.saturating_sub(1);
    }

    /// So much is on its way to the reader.
    pub(super) fn comes(&self, items: usize) {
        self.lock().coming += items;
    }

    /// This call is the oldest one from now on.
    pub(super) fn is_front(&self, call: u64) {
        let mut state = self.lock();
        let is_new = state.front != call;
        state.front = call;
        drop(state);
        if is_new {
            self.freed.notify_waiters();
        }
    }

    fn try_take(&self, turn: Turn, bytes: u64) -> bool {
        self.lock().try_take(self.most, turn, bytes)
    }

    /// Takes so much of it, once it may, for a call that has so much already. A dropped future has taken nothing.
    async fn take(&self, turn: Turn, has: u64, bytes: u64) {
        let waiting = Waiting { room: self, turn };
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // Before it is looked at, so that nothing is missed in between.
            freed.as_mut().enable();
            if self.lock().try_take_in_turn(self.most, turn, has, bytes) {
                break;
            }
            freed.await;
        }
        drop(waiting);
    }

    fn add(&self, bytes: u64) {
        let mut state = self.lock();
        state.taken = state.taken.saturating_add(bytes);
    }

    fn give_back(&self, bytes: u64) {
        let mut state = self.lock();
        state.taken = state.taken.saturating_sub(bytes);
        drop(state);
        self.freed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn try_take(&mut self, most: u64, turn: Turn, bytes: u64) -> bool {
        let is_next = self.waiting.first().is_none_or(|first| turn <= *first);
        let fits = self.taken.saturating_add(bytes) <= most;
        let may = is_next && fits || self.front == turn.call && (self.taken == 0 || self.is_waited_for());
        if may {
            self.taken = self.taken.saturating_add(bytes);
        }
        may
    }

    /// The same, for one that waits where it may not.
    fn try_take_in_turn(&mut self, most: u64, turn: Turn, has: u64, bytes: u64) -> bool {
        let may = self.try_take(most, turn, bytes);
        // One that can go on only as the oldest keeps nobody waiting before it is.
        if !may && (self.front == turn.call || has.saturating_add(bytes) <= most) {
            self.waiting.insert(turn);
        }
        may
    }

    fn is_waited_for(&self) -> bool {
        self.is_asked && self.coming == 0
    }
}

/// What a call, or a part of one, has of the [`Room`], until it is dropped.
pub(super) struct Held {
    shared: Arc<Shared>,
    call: u64,
    bytes: AtomicU64,
}

impl Held {
    pub(super) fn new(shared: &Arc<Shared>, call: u64) -> Self {
        Self { shared: shared.clone(), call, bytes: AtomicU64::new(0) }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether it had to wait.
    async fn take(&self, is_new: bool, bytes: u64, meter: &CallMeter) -> bool {
        let (room, turn) = (&self.shared.room, Turn { is_new, call: self.call });
        let waits = !room.try_take(turn, bytes);
        if waits {
            meter.waiting(Wait::Budget, room.take(turn, self.bytes(), bytes)).await;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        waits
    }

    /// Takes what is there already.
    pub(super) fn add(&self, bytes: u64) {
        self.shared.room.add(bytes);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, bytes: u64) {
        if bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.room.give_back(bytes);
            self.shared.news.notify_one();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.room.give_back(*self.bytes.get_mut());
        self.shared.news.notify_one();
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Held").field(&self.bytes).finish()
    }
}

/// What the body of one answer has of what its call [holds](Held), until it is [kept](Self::keep) or given up.
pub(super) struct BodyRoom<'a> {
    held: &'a Held,
    meter: &'a CallMeter,
    bytes: AtomicU64,
    /// The most that an attempt has asked for so far.
    wanted: AtomicU64,
    /// Whether the body of this attempt had to wait.
    has_waited: AtomicBool,
}

impl<'a> BodyRoom<'a> {
    pub(super) fn new(held: &'a Held, meter: &'a CallMeter) -> Self {
        let (bytes, wanted, has_waited) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        Self { held, meter, bytes, wanted, has_waited }
    }

    /// Waits until there is room for an answer as large as others were, or as this one was found to be.
    pub(super) async fn expect(&self) {
        let expected = self.held.shared.room.usual().max(self.wanted.load(Ordering::Relaxed));
        self.take(true, expected).await;
        self.has_waited.store(false, Ordering::Relaxed);
    }

    /// Waits until there is room for so many bytes in all.
    pub(super) async fn grow(&self, bytes: u64) {
        self.wanted.fetch_max(bytes, Ordering::Relaxed);
        if self.take(false, bytes).await {
            self.has_waited.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the body of this attempt had to wait, which the server may not have borne. The next attempt
    /// [expects](Self::expect) as much, so it waits again only if its body is longer, and attempts have an end.
    pub(super) fn has_waited(&self) -> bool {
        self.has_waited.load(Ordering::Relaxed)
    }

    async fn take(&self, is_new: bool, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes.load(Ordering::Relaxed));
        if more == 0 {
            return false;
        }
        let has_waited = self.held.take(is_new, more, self.meter).await;
        self.bytes.fetch_add(more, Ordering::Relaxed);
        has_waited
    }

    /// The body is there, and had so many bytes.
    pub(super) fn answered(&self, bytes: u64) {
        self.held.shared.room.answered(bytes);
    }

    /// So many bytes stay; the call has them from now on.
    pub(super) fn keep(&self, bytes: u64) {
        let taken = self.bytes.swap(0, Ordering::Relaxed);
        self.held.give_back(taken.saturating_sub(bytes));
        self.held.add(bytes.saturating_sub(taken));
    }
}

impl Drop for BodyRoom<'_> {
    fn drop(&mut self) {
        self.keep(0);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;

    /// A body that arrives.
    fn body(call: u64) -> Turn {
        Turn { is_new: false, call }
    }

    /// A request that is yet to be sent.
    fn request(call: u64) -> Turn {
        Turn { is_new: true, call }
    }

    #[test]
    fn the_oldest_call_goes_on_only_where_the_reader_has_nothing() {
        let room = Room::new(100);
        assert!(room.try_take(body(0), 60) && !room.try_take(body(1), 60) && room.try_take(body(1), 40));
        assert!(room.is_full() && room.take(body(0), 60, 1).now_or_never().is_none());
        room.asked();
        assert!(!room.try_take(body(1), 1) && room.try_take(body(0), 500));
        // What it has is on its way, and then with the reader.
        room.comes(1);
        room.is_front(1);
        room.asked();
        assert!(!room.try_take(body(1), 1));
        room.read();
        assert!(!room.try_take(body(1), 1));
        room.asked();
        assert!(room.try_take(body(1), 1));
        room.give_back(601);
        // A single one has what it needs.
        room.read();
        assert!(!room.try_take(body(7), 1000));
        room.is_front(7);
        assert!(room.try_take(body(7), 1000) && !room.try_take(body(7), 1));
    }

    #[test]
    fn who_waits_is_told() {
        let room = Room::new(10);
        assert!(room.try_take(body(0), 10));
        let mut waiting = Box::pin(room.take(body(1), 0, 5));
        assert!(waiting.as_mut().now_or_never().is_none());
        room.give_back(5);
        assert!(waiting.as_mut().now_or_never().is_some());
        let mut waiting = Box::pin(room.take(body(3), 0, 5));
        assert!(waiting.as_mut().now_or_never().is_none());
        room.asked();
        assert!(waiting.as_mut().now_or_never().is_none());
        room.is_front(3);
        assert!(waiting.as_mut().now_or_never().is_some());
    }

    #[test]
    fn what_is_given_back_is_for_the_first_who_waits() {
        let room = Room::new(100);
        assert!(room.try_take(body(0), 50) && room.try_take(body(1), 50));
        let mut large = Box::pin(room.take(body(0), 50, 50));
        let mut body_of_two = Box::pin(room.take(body(2), 0, 10));
        let mut request_of_one = Box::pin(room.take(request(1), 0, 10));
        assert!(large.as_mut().now_or_never().is_none());
        assert!(request_of_one.as_mut().now_or_never().is_none() && body_of_two.as_mut().now_or_never().is_none());
        room.give_back(49);
        // They would fit.
        assert!(request_of_one.as_mut().now_or_never().is_none() && body_of_two.as_mut().now_or_never().is_none());
        assert!(!room.try_take(request(3), 1) && !room.try_take(body(1), 1));
        room.give_back(1);
        assert!(large.as_mut().now_or_never().is_some());
        room.give_back(10);
        assert!(request_of_one.as_mut().now_or_never().is_none());
        assert!(body_of_two.as_mut().now_or_never().is_some());
        // Who gives up is waited for no more.
        assert!(request_of_one.as_mut().now_or_never().is_none());
        room.give_back(5);
        assert!(!room.try_take(request(3), 5));
        drop(request_of_one);
        assert!(room.try_take(request(3), 5));
    }

    #[test]
    fn one_that_can_go_on_as_the_oldest_only_keeps_nobody_waiting_before() {
        let room = Room::new(100);
        assert!(room.try_take(body(0), 40) && room.try_take(body(1), 40));
        let mut large = Box::pin(room.take(body(1), 40, 61));
        assert!(large.as_mut().now_or_never().is_none());
        assert!(room.try_take(request(2), 10));
        room.is_front(1);
        assert!(large.as_mut().now_or_never().is_none());
        assert!(!room.try_take(request(2), 10));
        room.asked();
        assert!(large.as_mut().now_or_never().is_some());
    }

    proptest! {
        /// Calls that grow by any steps, in any order, with a reader that takes them when it is given one and has it for a while.
        #[test]
        fn it_never_holds_more_than_the_whole_and_one_call(
            most in 1u64..200,
            sizes in prop::collection::vec(1u64..300, 1..30),
            steps in prop::collection::vec((any::<prop::sample::Index>(), 1u64..60), 0..200),
            under_way in 1usize..8,
        ) {
            let room = Room::new(most);
            let largest = sizes.iter().copied().max().unwrap_or_default();
            // What each call under way has and what it waits for, which are whole, and what the reader has.
            let mut open: Vec<(u64, u64)> = Vec::new();
            let mut waiting = std::collections::HashMap::new();
            let (mut begun, mut whole, mut reading) = (0, Vec::new(), None);
            let mut steps = steps.into_iter();
            let (mut read, mut turns, mut idle) = (0, 0, 0);
            while read < sizes.len() {
                while begun < sizes.len() && open.len() < under_way {
                    open.push((begun as u64, 0));
                    begun += 1;
                }
                room.is_front(open.iter().map(|(call, _)| *call).min().unwrap_or(begun as u64));
                turns += 1;
                // Behind the steps that were drawn each in turn, so that it has an end.
                let (place, step) = steps.next().map_or((turns, 50), |(index, step)| (index.index(1 << 20), step));
                idle = if steps.len() > 0 { 0 } else { idle + 1 };
                if !open.is_empty() {
                    let place = place % open.len();
                    let (call, has) = open[place];
                    let turn = Turn { is_new: has == 0, call };
                    let step = *waiting.entry(call).or_insert(step.min(sizes[call as usize] - has));
                    if room.lock().try_take_in_turn(most, turn, has, step) {
                        room.lock().waiting.remove(&turn);
                        waiting.remove(&call);
                        (open[place].1, idle) = (has + step, 0);
                    }
                    if open[place].1 == sizes[call as usize] {
                        whole.push(open.remove(place).1);
                        room.comes(1);
                    }
                }
                let all = open.iter().map(|(_, has)| *has).chain(whole.iter().copied()).chain(reading);
                prop_assert!(all.sum::<u64>() <= most + largest);
                prop_assert!(idle <= 100, "nobody goes on");
                if turns % 3 == 0 {
                    // It drops what it has before it asks.
                    if let Some(had) = reading.take() {
                        room.give_back(had);
                        (read, idle) = (read + 1, 0);
                    }
                    match whole.is_empty() {
                        true => room.asked(),
                        false => {
                            reading = Some(whole.remove(0));
                            room.read();
                        }
                    }
                }
            }
            prop_assert_eq!(room.lock().taken, 0);
        }
    }
}
