//! What a free worker does next: the front of the order comes first, always.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::file_state::{FileState, Phase};
use super::flight::Flight;
use super::room::{RECORD, USELESS};
use super::{Mode, Plan, PlanIter, Queue};
use crate::budget::Reservation;
use crate::leftovers::Leftover;
use crate::meter::Wait;
use crate::part::{Turn, Version};
use crate::{Error, Request, Shortage};

/// Files that may be under way or wait for the one in front, whatever the window.
pub(super) const MAX_FILES: usize = 1024;
/// The bounds of a segment whose size follows the bandwidth, and its size before that is known.
pub(super) const SEGMENT: std::ops::RangeInclusive<u64> = 1 << 20..=64 << 20;
pub(super) const FIRST_SEGMENT: u64 = 8 << 20;
/// The size of a segment that a reader waits for, where several are fetched at once.
pub(super) const SOON: u64 = 512 << 10;
/// How long one request shall take, in seconds: long enough that its set-up costs nothing, short enough that the front of
/// the order is soon whole.
pub(super) const SEGMENT_SECONDS: f64 = 3.0;
/// How many times as long as its request takes to be answered the bytes of a segment shall take to come, at least.
const WORTH_ASKING: f64 = 20.0;
/// A stretch is halved for a connection that is free if it is to take this long yet, in seconds.
pub(super) const WORTH_SPLITTING: f64 = 1.0;
/// What is left of a segment is asked for again if not one byte came for so long while another connection is free.
pub(super) const STALLED: Duration = Duration::from_secs(3);
/// How long a worker that has nothing to do waits before it looks for segments that take long.
pub(super) const IDLE: Duration = Duration::from_secs(1);
/// The smallest part of a segment that another connection takes over.
pub(super) const MIN_SPLIT: u64 = 256 << 10;

/// What a worker is to do.
pub(crate) enum Next {
    Admit(PlanIter),
    Prepare(Prepare),
    /// Remove what there is of a file that nobody works on, and say why.
    Clear(Leftover, &'static str),
    Fail {
        place: u64,
        request: Arc<Request>,
        error: Error,
    },
    /// And how long everything had stood still before, if that was said.
    Fetch(Segment, Option<Duration>),
    /// Nothing, until something changes or this much time has passed.
    Wait(Duration),
    Paused(Shortage),
    End,
}

/// A file that is to be looked at.
pub(crate) struct Prepare {
    pub(crate) place: u64,
    pub(crate) generation: u32,
    pub(crate) request: Arc<Request>,
    pub(crate) turn: Turn,
    pub(crate) discard: Option<Discard>,
    /// There is nothing to be found of it: neither of an earlier run nor of a failure in this one. (What was delivered and
    /// stands in the plan once more is fetched once more.)
    pub(crate) is_new: bool,
}

/// What there is of a file is to be thrown away.
#[derive(Default)]
pub(crate) struct Discard {
    /// The bytes of it, if the reason is that the file in front needs their space.
    pub(crate) evicted: u64,
    /// Also from under its final name.
    pub(crate) is_staged: bool,
    /// Its disk space, which is free when it is gone.
    pub(crate) space: Option<Arc<Reservation>>,
}

/// A segment as its worker knows it.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) place: u64,
    pub(crate) generation: u32,
    pub(crate) flight: u64,
    pub(crate) request: Arc<Request>,
    pub(crate) cancel: CancellationToken,
}

impl Queue {
    /// What a free worker does next. The front of the order comes first, always.
    pub(crate) fn next(&mut self, is_stopped: bool) -> Next {
        if is_stopped || self.is_closed {
            return Next::End;
        }
        if let Some(next) = self.give_way() {
            return next;
        }
        let head = self.files.iter().find(|(_, file)| !file.is_done()).map(|(place, _)| *place);
        if let Some(next) =
            self.unfinished.take().filter(|place| head == Some(*place)).and_then(|place| self.evict(place))
        {
            return next;
        }
        let mut from = 0;
        while let Some(place) = self.wanting.range(from..).next().copied() {
            from = place + 1;
            let Some(file) = self.files.get_mut(&place) else {
                self.wanting.remove(&place);
                continue;
            };
            if let Phase::New(discard) = &mut file.phase {
                let Ok(space) = self.leftovers.take_up(&file.request.name) else { return Next::Wait(IDLE) };
                let discard = discard.take();
                let is_new = self.is_fresh && discard.is_none() && space.is_none();
                file.phase = Phase::Preparing;
                file.space = space.or(file.space.take());
                self.wanting.remove(&place);
                return Next::Prepare(Prepare { is_new, ..file.prepare(place, discard) });
            }
            let gap = if matches!(file.phase, Phase::Open) { file.gap() } else { None };
            let Some(gap) = gap else {
                self.wanting.remove(&place);
                continue;
            };
            let is_short = |file: &FileState| file.flights.iter().any(|flight| flight.is_short);
            if self.files.range(..=place).any(|(_, file)| is_short(file)) {
                // What it would take is what that one waits for.
                return Next::Wait(IDLE);
            }
            // Nothing behind it may overtake it.
            return match self.segment(place, gap) {
                Ok(Some(segment)) => Next::Fetch(segment, self.go_on(false)),
                Ok(None) => self.help_out(),
                Err(shortage) => {
                    let evicted = if head == Some(place) { self.evict(place) } else { None };
                    evicted.unwrap_or_else(|| self.wait(place, shortage))
                }
            };
        }
        if self.files.len() < MAX_FILES
            && let Plan::There(_) = &self.plan
            && let Plan::There(plan) = std::mem::replace(&mut self.plan, Plan::Asked)
        {
            return Next::Admit(plan);
        }
        let is_looked_at = |file: &FileState| !matches!(file.phase, Phase::New(_) | Phase::Preparing);
        if matches!(self.plan, Plan::Ended)
            && self.files.values().all(is_looked_at)
            && let Some(useless) = self.leftovers.useless()
        {
            return Next::Clear(useless, USELESS);
        }
        // What nobody has taken may have to make way, and to be fetched again.
        if self.is_finished() && self.files.range(self.front..).next().is_none() {
            return Next::End;
        }
        self.help_out()
    }

    /// What a worker waits for that has nothing to do.
    pub(crate) fn idles_for(&self) -> Wait {
        let is_full = self.files.len() >= MAX_FILES && !matches!(self.plan, Plan::Ended);
        if self.pause.is_still() {
            Wait::Budget
        } else if is_full || !self.wanting.is_empty() {
            // The window is full, or what was delivered is not taken.
            Wait::Output
        } else {
            Wait::Input
        }
    }

    /// Begins a segment at the start of `gap`, if the window allows it and the disk has room.
    pub(super) fn segment(
        &mut self,
        place: u64,
        (start, end): (u64, Option<u64>),
    ) -> Result<Option<Segment>, Shortage> {
        let size = self.segment_size(end.map(|end| end - start), place);
        let Some(file) = self.files.get(&place) else { return Ok(None) };
        // An object in one piece comes in one piece.
        let end = if file.is_single { end } else { end.map(|end| end.min(start.saturating_add(size))) };
        let len = end.map_or(0, |end| end - start);
        if !self.is_within_window(place, start, len) {
            return Ok(None);
        }
        let Some(file) = self.files.get_mut(&place) else { return Ok(None) };
        file.room.get_or_insert_with(|| self.budget.withhold(RECORD));
        let extra = if file.extra.is_some() { 0 } else { file.request.extra_space };
        let mut space = match self.budget.try_reserve(len.saturating_add(extra)) {
            Err(_) if extra > 0 && place == self.front => self.budget.try_reserve(len)?,
            // It may not run ahead so far, and waits for nothing but its turn.
            Err(_) if extra > 0 && self.budget.has_room(len) => return Ok(None),
            space => space?,
        };
        let extra = space.split(space.bytes() - len);
        file.extra.get_or_insert(extra);
        match &mut file.space {
            Some(own) => own.merge(space),
            None => file.space = Some(space),
        }
        Ok(self.take_off(place, start, end, end.unwrap_or(start), STALLED))
    }

    /// Whether the window lets the file at `place` have `len` more bytes from `start` on. What comes next has no need of it.
    pub(super) fn is_within_window(&self, place: u64, start: u64, len: u64) -> bool {
        if self.ahead.saturating_add(len) <= self.limits.window {
            return true;
        }
        let Some(file) = self.files.get(&place) else { return true };
        // What nobody took yet of those before it counts against the window.
        let is_taken = |file: &FileState| file.charged == 0 || matches!(file.phase, Phase::Done(Err(_)));
        let is_head = self.files.range(..place).all(|(_, file)| file.is_done() && is_taken(file));
        match self.mode {
            Mode::Files => is_head,
            // Its reader waits for this very byte, or is to get it when its version is known.
            Mode::Bodies { .. } => {
                is_head && (start <= file.reader.position || (file.flights.is_empty() && !file.is_ready()))
            }
        }
    }

    pub(super) fn take_off(
        &mut self,
        place: u64,
        start: u64,
        end: Option<u64>,
        reserved: u64,
        patience: Duration,
    ) -> Option<Segment> {
        let file = self.files.get_mut(&place)?;
        let now = Instant::now();
        let cancel = CancellationToken::new();
        self.flights += 1;
        file.flights.push(Flight {
            id: self.flights,
            position: start,
            claimed: start,
            end,
            reserved,
            is_whole: false,
            cancel: cancel.clone(),
            begun: now,
            begun_at: start,
            moved: now,
            is_asking: false,
            is_short: false,
            is_ahead: false,
            is_cut: false,
            patience,
        });
        let (request, generation) = (file.request.clone(), file.generation);
        self.charge(place);
        Some(Segment { place, generation, flight: self.flights, request, cancel })
    }

    pub(super) fn segment_size(&self, gap: Option<u64>, place: u64) -> u64 {
        if let Some(size) = self.limits.segment {
            return size;
        }
        let by_rate = match self.rate {
            rate if rate > 0.0 => ((rate * SEGMENT_SECONDS) as u64).next_power_of_two(),
            _ => FIRST_SEGMENT,
        };
        // Several are to have room in the window.
        let share = (self.limits.window / self.limits.concurrency).max(*SEGMENT.start());
        let mut size = by_rate.clamp(*SEGMENT.start(), *SEGMENT.end()).min(share);
        if let Mode::Bodies { .. } = self.mode
            && self.limits.concurrency > 1
        {
            // What other connections bring is of use to the reader when this segment is whole. While there is little to
            // read, segments are small, and each is a share of all before it. But they are worth their requests: a reader
            // that is faster than the network has little to read for as long as it lasts.
            let worth = self.rate * self.set_up * WORTH_ASKING;
            size = size.min((self.ahead / 4).max(SOON).max(worth as u64));
        }
        // A file that is alone is to keep all connections busy.
        let is_last = matches!(self.plan, Plan::Ended) && self.files.keys().next_back() == Some(&place);
        match gap {
            Some(gap) if is_last => size.min((gap / self.limits.concurrency).max(*SEGMENT.start())),
            _ => size,
        }
    }

    /// For a worker that finds nothing to begin: a share of what is under way and takes long, or what stands still.
    pub(super) fn help_out(&mut self) -> Next {
        match self.take_over() {
            Some(segment) => Next::Fetch(segment, None),
            None => Next::Wait(IDLE),
        }
    }

    pub(super) fn take_over(&mut self) -> Option<Segment> {
        if self.pause.is_still() {
            return None;
        }
        let rate = self.rate.max(1.0);
        let mut found: Option<(f64, u64, u64, u64, u64)> = None;
        for (place, file) in &self.files {
            if file.is_single || !file.version.as_ref().is_some_and(Version::is_checkable) {
                continue;
            }
            for flight in &file.flights {
                let Some(end) = flight.end else { continue };
                let left = end.saturating_sub(flight.claimed);
                if flight.is_whole || left == 0 || !flight.is_asking || flight.is_short {
                    continue;
                }
                let own = (flight.position - flight.begun_at) as f64 / flight.begun.elapsed().as_secs_f64().max(1e-3);
                let seconds = left as f64 / own.max(1.0);
                // A write that is under way counts as its own.
                let is_stalled = flight.moved.elapsed() >= flight.patience
                    && flight.claimed == flight.position
                    && (self.rate == 0.0 || left as f64 / rate < seconds / 4.0);
                let from = match () {
                    // Nothing of it came: all of it is asked for again.
                    () if is_stalled => flight.claimed,
                    () if seconds > WORTH_SPLITTING && left >= 2 * MIN_SPLIT && flight.position > flight.begun_at => {
                        // In the proportion of their speeds, so that both end at once.
                        end - (left as f64 * (rate / (rate + own)).clamp(0.5, 0.9)) as u64
                    }
                    () => continue,
                };
                if found.is_none_or(|(longest, ..)| seconds > longest) {
                    found = Some((seconds, *place, flight.id, from, end));
                }
            }
        }
        let (_, place, id, from, end) = found?;
        let file = self.files.get_mut(&place)?;
        let flight = file.flight(id)?;
        (flight.end, flight.is_cut) = (Some(from), true);
        let reserved = flight.reserved.max(from);
        flight.reserved = flight.reserved.min(from);
        let mut patience = STALLED;
        if from == flight.position {
            // The server may be as slow to all: each time it is given longer.
            patience = flight.patience.saturating_mul(2);
            flight.cancel.cancel();
            file.flights.retain(|flight| flight.id != id);
        }
        self.take_off(place, from, Some(end), reserved, patience)
    }
}
