//! A segment on its way: what is asked for, what the answer means, and where its bytes go.

use std::sync::Arc;
use std::time::Instant;

use super::Queue;
use super::schedule::{SEGMENT, Segment};
use crate::counted::counted;
use crate::part::{PartFile, Version};
use crate::ranges::Range;
use crate::{Body, Error, Shortage};

/// How often an object may change under us before it counts as failed.
pub(super) const MAX_RESTARTS: u32 = 3;

/// What to ask a source for.
pub(crate) struct Ask {
    pub(crate) start: u64,
    pub(crate) end: Option<u64>,
    /// As far as it is known or listed.
    pub(crate) version: Version,
}

/// What an answer means for the one who asked.
pub(crate) enum Accepted {
    /// Take its bytes, without the first so many, which are there. What stands behind them in this part is void.
    Take { skip: u64, cut: Option<Arc<PartFile>> },
    /// Another one brings them.
    Gone,
    /// Ask again from the first byte.
    Again(String),
}

/// Where bytes may be written.
pub(crate) struct Claim {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) part: Option<Arc<PartFile>>,
}

/// The answer to one who has bytes to write.
pub(crate) enum Claimed {
    There(Claim),
    /// None are wanted any more.
    Over,
    /// They are ahead of the window, which moves on when something is consumed.
    Ahead,
    /// They are ahead of the window, and all connections wait as this one does while the front has need of one.
    Yield,
}

/// What became of a segment.
pub(crate) enum Ended {
    Gone,
    Anew { reason: String, discarded: u64 },
    Failed(Error),
}

impl Queue {
    /// What a segment is to ask for next; `None` if it is over.
    pub(crate) fn ask(&mut self, segment: &Segment) -> Option<Ask> {
        let file = self.file(segment.place, segment.generation)?;
        let listed = Version {
            etag: file.request.etag.clone().filter(|_| file.is_listed),
            size: file.request.size.filter(|_| file.is_listed),
            last_modified: None,
        };
        let mut version = file.version.clone().unwrap_or(listed);
        let size = file.size();
        // What the listing says holds also where the answer does not tell.
        version.size = size;
        let flight = file.flight(segment.flight)?;
        flight.claimed = flight.position;
        (flight.is_asking, flight.moved) = (true, Instant::now());
        if flight.end.is_some_and(|end| flight.position >= end) && size != Some(0) {
            return None;
        }
        // To the end of the object no end is asked for: what came behind it would show that it has changed.
        Some(Ask { start: flight.position, end: flight.end.filter(|end| Some(*end) != size), version })
    }

    /// Takes in that a request failed, and that the next one is waited for.
    pub(crate) fn failed(&mut self, segment: &Segment) {
        let file = self.file(segment.place, segment.generation);
        if let Some(flight) = file.and_then(|file| file.flight(segment.flight)) {
            flight.is_asking = false;
        }
    }

    /// Holds the answer against what is known of the object.
    pub(crate) fn accept(&mut self, segment: &Segment, body: &Body, location: &str) -> Result<Accepted, Error> {
        let changed = |what: String| Error::Changed { location: location.to_owned(), what };
        let asked = self.file(segment.place, segment.generation).and_then(|file| file.flight(segment.flight));
        if let Some(waited) = asked.map(|flight| flight.moved.elapsed().as_secs_f64()) {
            self.set_up = if self.set_up == 0.0 { waited } else { self.set_up * 0.7 + waited * 0.3 };
        }
        let concurrency = self.limits.concurrency;
        let rest = self.segment_size(None, segment.place);
        let budget = self.budget.clone();
        let drops = self.drops();
        let Some(file) = self.file(segment.place, segment.generation) else { return Ok(Accepted::Gone) };
        if let Some(reason) = file.version.as_ref().and_then(|version| version.mismatch(body)) {
            return Err(changed(reason));
        }
        if let (true, Some(listed), Some(found)) = (file.is_listed, file.request.size, body.size)
            && listed != found
        {
            return Err(changed(format!("it was listed with {} and has {found}", counted(listed, "byte", "bytes"))));
        }
        let version = file.version.get_or_insert_with(|| Version::of(body));
        version.size = version.size.or(body.size);
        let is_checkable = version.is_checkable();
        if !drops
            && !file.is_confirmed
            && let Some(error) = file.can_never_fit(&budget)
        {
            return Err(error);
        }
        file.is_confirmed = true;
        if file.digests.is_empty() {
            file.digests.clone_from(&body.digests);
        }
        let size = file.size();
        let Some(flight) = file.flight(segment.flight) else { return Ok(Accepted::Gone) };
        let position = flight.position;
        (flight.begun, flight.begun_at, flight.moved) = (Instant::now(), position, Instant::now());
        if body.start == position {
            let end = body.end.or(size);
            if flight.end.is_none() && end.is_some() && size.is_none() {
                // `bytes 5-9/*`: there may be more behind it, which only an answer without a range would tell.
                return Ok(Accepted::Again("the server does not say where it ends".to_owned()));
            }
            // Nothing would tell that the next segment is of the same version.
            let is_segment = flight.end.is_some() && flight.end != size && end != size;
            if !is_checkable && is_segment {
                return Ok(Accepted::Again("the server names no version".to_owned()));
            }
            match flight.end {
                // It gives all, although less was asked for: so it would to the others.
                Some(asked) if position == 0 && end != Some(asked) && !body.has_ranges => {
                    (flight.end, flight.is_whole, flight.is_cut) = (size, true, false);
                    let kept = flight.position;
                    file.is_single = true;
                    file.forget_behind(kept, segment.flight);
                }
                Some(_) => {}
                // Now its size is known, and others can help.
                None if size.is_some_and(|size| size.saturating_sub(position) > rest)
                    && is_checkable
                    && body.has_ranges =>
                {
                    (flight.end, flight.is_cut) = (Some(position + rest), true);
                }
                None => flight.end = size,
            }
            let is_open = file.gap().is_some();
            if is_open && concurrency > 1 {
                self.wanting.insert(segment.place);
            }
            self.charge(segment.place);
            return Ok(Accepted::Take { skip: 0, cut: None });
        }
        if body.start != 0 {
            let what = format!("asked for bytes from {position}, got them from {}", body.start);
            return Err(Error::Protocol { location: location.to_owned(), what });
        }
        if file.flights.iter().any(|flight| flight.is_whole && flight.id != segment.flight) {
            return Ok(Accepted::Gone);
        }
        if !is_checkable {
            return Ok(Accepted::Again("the server sends no ranges".to_owned()));
        }
        let skip = file.ranges.end_from(0);
        let cut = file.part.clone();
        file.is_single = true;
        let Some(flight) = file.flight(segment.flight) else { return Ok(Accepted::Gone) };
        (flight.position, flight.claimed, flight.end, flight.is_whole) = (skip, skip, size, true);
        (flight.begun_at, flight.is_cut) = (skip, false);
        file.forget_behind(skip, segment.flight);
        self.charge(segment.place);
        Ok(Accepted::Take { skip, cut })
    }

    /// Where the next `len` bytes of a segment go, and how many of them.
    pub(crate) fn claim(&mut self, segment: &Segment, len: u64) -> Result<Claimed, Shortage> {
        let budget = self.budget.clone();
        let Some(file) = self.file(segment.place, segment.generation) else { return Ok(Claimed::Over) };
        let Some(flight) = file.flight(segment.flight) else { return Ok(Claimed::Over) };
        let (offset, end) = (flight.claimed, flight.end.unwrap_or(u64::MAX));
        let len = len.min(end.saturating_sub(offset));
        if len == 0 {
            return Ok(Claimed::Over);
        }
        // Where the end is known, the window was asked before all of it.
        let is_ahead = flight.end.is_none() && !self.is_within_window(segment.place, offset, len);
        let is_front_served = !is_ahead || self.is_front_served(segment.place);
        let Some(file) = self.file(segment.place, segment.generation) else { return Ok(Claimed::Over) };
        let part = file.part.clone();
        let Some(flight) = file.flights.iter_mut().find(|flight| flight.id == segment.flight) else {
            return Ok(Claimed::Over);
        };
        flight.is_ahead = is_ahead;
        if is_ahead {
            return Ok(if is_front_served { Claimed::Ahead } else { Claimed::Yield });
        }
        let to_reserve = (offset + len).saturating_sub(flight.reserved.max(offset));
        if to_reserve > 0 {
            match &mut file.space {
                Some(space) => space.grow(to_reserve)?,
                None => file.space = Some(budget.try_reserve(to_reserve)?),
            }
            flight.reserved = offset + len;
        }
        flight.claimed += len;
        flight.is_short = false;
        self.charge(segment.place);
        Ok(Claimed::There(Claim { offset, len, part }))
    }

    /// Whether somebody is at work on what the files before `place` have need of, or they have none.
    fn is_front_served(&self, place: u64) -> bool {
        self.wanting.range(..place).next().is_none()
            || self.files.values().any(|file| file.flights.iter().any(|flight| !flight.is_ahead))
    }

    /// The part that a first claim made, or the one that another had made meanwhile.
    pub(crate) fn opened(&mut self, segment: &Segment, part: Arc<PartFile>) -> Option<Arc<PartFile>> {
        let file = self.file(segment.place, segment.generation)?;
        Some(file.part.get_or_insert(part).clone())
    }

    /// Takes in that the bytes of a claim are in the part. Whether more of the segment is wanted.
    pub(crate) fn wrote(&mut self, segment: &Segment, range: Range) -> bool {
        let Some(file) = self.file(segment.place, segment.generation) else { return false };
        let Some(flight) = file.flight(segment.flight) else { return false };
        flight.position = range.end;
        flight.moved = Instant::now();
        let is_more_wanted = !flight.is_cut || flight.end.is_none_or(|end| range.end < end);
        file.ranges.insert(range);
        file.fetched += range.len();
        file.save.bytes += range.len();
        if let Some(space) = &mut file.space {
            space.wrote(range.len());
        }
        file.wake_reader();
        self.charge(segment.place);
        is_more_wanted
    }

    /// A segment is over, by itself or by an error. The error, if it is the end of the file.
    pub(crate) fn ended(&mut self, segment: &Segment, result: Result<(), Error>) -> Ended {
        let Some(file) = self.file(segment.place, segment.generation) else { return Ended::Gone };
        let at = file.flights.iter().position(|flight| flight.id == segment.flight);
        if let Some(at) = at {
            let flight = file.flights.swap_remove(at);
            if let Some(space) = &mut file.space {
                // Whoever takes what is left reserves it anew.
                drop(space.split_unwritten(flight.reserved.saturating_sub(flight.position)));
            }
            if let (None, Ok(())) = (flight.end, &result)
                && let Some(version) = &mut file.version
            {
                // A body without a length is whole when its connection ends cleanly; its size is known only now.
                version.size = Some(flight.position);
            }
            let seconds = flight.begun.elapsed().as_secs_f64();
            let bytes = flight.position.saturating_sub(flight.begun_at);
            // What is over in no time tells more of the set-up than of the bandwidth.
            if bytes >= *SEGMENT.start() / 2 && seconds > 0.0 {
                let rate = bytes as f64 / seconds;
                self.rate = if self.rate == 0.0 { rate } else { self.rate * 0.7 + rate * 0.3 };
            }
        }
        self.charge(segment.place);
        let Some(file) = self.file(segment.place, segment.generation) else { return Ended::Gone };
        match result {
            // Another one has taken it over, and how it ended means nothing.
            result if result.is_ok() || at.is_none() => {
                if file.gap().is_some() {
                    self.wanting.insert(segment.place);
                }
                Ended::Gone
            }
            Err(Error::Changed { what, .. }) if file.restarts < MAX_RESTARTS && !file.reader.is_begun => {
                file.restarts += 1;
                file.is_listed = false;
                let discarded = file.begin_anew();
                self.wanting.insert(segment.place);
                self.charge(segment.place);
                Ended::Anew { reason: what, discarded }
            }
            Err(error) => {
                // Once: how the others end means nothing.
                file.is_failing = true;
                file.cancel_flights(None);
                Ended::Failed(error)
            }
            Ok(()) => Ended::Gone,
        }
    }

    /// Begins a file anew for a reason that is no fault of the object.
    pub(crate) fn again(&mut self, segment: &Segment) -> Option<u64> {
        let file = self.file(segment.place, segment.generation)?;
        if file.reader.is_begun || file.restarts >= 2 * MAX_RESTARTS {
            return None;
        }
        file.restarts += 1;
        let discarded = file.begin_anew();
        file.is_single = true;
        self.wanting.insert(segment.place);
        self.charge(segment.place);
        Some(discarded)
    }
}
