//! Disk space for the front of the order: who makes room for it, and how long it is waited for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::file_state::{FileState, Phase};
use super::schedule::{Discard, Next, Segment};
use super::{Mode, Queue};
use crate::leftovers::{self, Leftover};
use crate::{Error, Shortage};

/// How often a disk without room is looked at.
pub(crate) const DISK_POLL: Duration = Duration::from_millis(500);
/// Room for a record, and for the one that takes its place: a block of the file system each.
pub(crate) const RECORD: u64 = 8 << 10;
/// Why something was thrown away.
pub(crate) const EVICTED: &str = "the file in front needs its disk space";
pub(super) const USELESS: &str = "nothing says what it is a part of, or of which version";

impl Queue {
    /// What a worker does if somebody claims disk space that is not there: what runs ahead gives up its own, first what is
    /// not written yet, then files, from the last one on.
    pub(super) fn give_way(&mut self) -> Option<Next> {
        if !self.budget.is_claim_unmet() {
            return None;
        }
        for (_, file) in self.files.range_mut(self.front..) {
            file.give_extra();
        }
        if !self.budget.is_claim_unmet() {
            return None;
        }
        self.evict_from(self.front)
    }

    /// Throws away what is of no use, or else what there is of a file behind `head`, so that the head can go on: of the last
    /// one that this run has fetched, or else of one that was there before it.
    pub(super) fn evict(&mut self, head: u64) -> Option<Next> {
        self.evict_from(head + 1)
    }

    /// As [`evict`](Self::evict), of the files from `first` on.
    pub(super) fn evict_from(&mut self, first: u64) -> Option<Next> {
        // One after the other: what is being removed may be enough.
        if self.leftovers.is_clearing() || self.files.values().any(|file| matches!(file.phase, Phase::Preparing)) {
            return None;
        }
        if let Some(useless) = self.leftovers.useless() {
            return Some(Next::Clear(useless, USELESS));
        }
        let is_in_the_way = |file: &FileState| match &file.phase {
            Phase::Open => !file.reader.is_delivered && file.ranges.total() > 0,
            Phase::Done(Ok(staged)) => !file.reader.is_delivered && staged.size > 0,
            _ => false,
        };
        let mut places = self.files.range(first..).rev().filter(|(_, file)| is_in_the_way(file));
        let last = places.clone().find(|(_, file)| !file.was_staged);
        let last = last.or_else(|| places.next().filter(|_| self.limits.evicts_staged));
        let Some(place) = last.map(|(place, _)| *place) else {
            return self.leftovers.any().map(|part| Next::Clear(part, EVICTED));
        };
        let file = self.files.get_mut(&place)?;
        let is_staged = file.is_done();
        let evicted = file.begin_anew();
        let space = match std::mem::replace(&mut file.phase, Phase::Preparing) {
            Phase::New(Some(discard)) => discard.space,
            _ => None,
        };
        self.wanting.remove(&place);
        let next = Next::Prepare(file.prepare(place, Some(Discard { evicted, is_staged, space })));
        self.charge(place);
        Some(next)
    }

    /// As [`evict`](Self::evict), for a segment that waits for disk space.
    pub(crate) fn make_room(&mut self, segment: &Segment) -> Option<Next> {
        if let Some(next @ (Next::Prepare(_) | Next::Clear(..))) = self.give_way() {
            return Some(next);
        }
        let head = self.files.iter().find(|(_, file)| !file.is_done()).map(|(place, _)| *place);
        self.file(segment.place, segment.generation)?;
        if head == Some(segment.place) { self.evict(segment.place) } else { None }
    }

    /// For a worker that finds no disk space for the file at `place`.
    pub(super) fn wait(&mut self, place: u64, shortage: Shortage) -> Next {
        match (self.stand(), self.files.get(&place)) {
            ((None, _), Some(file)) => {
                let (name, request) = (file.request.name.clone(), file.request.clone());
                self.pause.give_up();
                self.wanting.remove(&place);
                Next::Fail { place, request, error: Error::Space { name, shortage: Box::new(shortage) } }
            }
            ((_, true), _) => Next::Paused(shortage),
            ((left, false), _) => Next::Wait(left.unwrap_or(DISK_POLL).min(DISK_POLL)),
        }
    }

    /// Takes in that somebody waits for disk space: how long that may last yet, and whether it is a pause that begins. As
    /// long as something else goes on, it may last.
    pub(crate) fn stand(&mut self) -> (Option<Duration>, bool) {
        let goes_on = |file: &FileState| match file.phase {
            Phase::Preparing => true,
            Phase::Finishing => !file.is_unfinished,
            _ => file.flights.iter().any(|flight| !flight.is_short && !flight.is_ahead),
        };
        match self.leftovers.is_clearing() || self.files.values().any(goes_on) {
            true => (Some(DISK_POLL), false),
            false => self.pause.stand(Instant::now(), self.is_consumer_busy()),
        }
    }

    /// Whether the consumer has something to do, by which it may free what it holds.
    pub(super) fn is_consumer_busy(&self) -> bool {
        let has_front = || !self.is_awaited || self.files.get(&self.front).is_some_and(FileState::is_done);
        let mut bodies = self.files.range(..self.front).map(|(_, file)| file).peekable();
        match self.mode {
            Mode::Bodies { .. } if bodies.peek().is_some() => {
                bodies.any(|file| file.is_done() || file.readable(file.reader.position) > 0)
            }
            _ => has_front(),
        }
    }

    /// Takes in that work goes on, or that a file `is_whole`. How long it stood still, if that is to be said.
    pub(crate) fn go_on(&mut self, is_whole: bool) -> Option<Duration> {
        self.pause.go_on(Instant::now(), is_whole)
    }

    /// Takes in whether the writes of a segment wait for disk space.
    pub(crate) fn set_short(&mut self, segment: &Segment, is_short: bool) {
        let file = self.file(segment.place, segment.generation);
        if let Some(flight) = file.and_then(|file| file.flight(segment.flight)) {
            (flight.is_short, flight.moved) = (is_short, Instant::now());
        }
    }

    /// Takes in that a file cannot be finished for want of disk space.
    pub(crate) fn set_unfinished(&mut self, place: u64, generation: u32) {
        if let Some(file) = self.file(place, generation) {
            file.is_unfinished = true;
            self.unfinished = Some(self.unfinished.map_or(place, |other| other.min(place)));
        }
    }

    /// Takes in what earlier runs left, and whether that is nothing at all.
    pub(crate) fn left_over(&mut self, (found, is_fresh): (Vec<leftovers::Found>, bool)) {
        self.is_fresh = is_fresh;
        let budget = &self.budget;
        self.leftovers.extend(found.into_iter().map(|found| Leftover {
            name: found.name,
            paths: Arc::new(found.paths),
            space: budget.adopt_in_any_case(found.bytes),
            is_resumable: found.is_resumable,
            is_old: true,
        }));
    }

    /// Takes in that a leftover is removed.
    pub(crate) fn cleared(&mut self, name: &str) {
        self.leftovers.cleared(name);
    }

    /// What earlier runs left and the plan, which has come to its end, did not ask for.
    pub(crate) fn not_asked_for(&self) -> Vec<(String, u64)> {
        if self.is_finished() && !self.is_closed { self.leftovers.old() } else { Vec::new() }
    }
}
