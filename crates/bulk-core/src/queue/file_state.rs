//! A file from its admission until it is delivered and consumed: what is known, there and under way of it.

use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use super::flight::Flight;
use super::schedule::{Discard, Prepare};
use crate::budget::{DiskBudget, Reservation, Withheld};
use crate::leftovers::Leftover;
use crate::part::{PartFile, Paths, Record, Turn, Version};
use crate::ranges::{Ranges, first_gap};
use crate::{Digest, Error, Request, StagedFile};

/// A file from its admission until it is delivered and consumed.
pub(crate) struct FileState {
    pub(crate) request: Arc<Request>,
    /// The source's name for the object; empty until it is prepared.
    pub(super) identity: String,
    pub(crate) paths: Option<Arc<Paths>>,
    pub(crate) phase: Phase,
    /// Counts how often it was begun anew. What belongs to an earlier beginning is void.
    pub(crate) generation: u32,
    pub(crate) version: Option<Version>,
    pub(crate) digests: Vec<Digest>,
    /// Whether the object may still be the one that was listed.
    pub(super) is_listed: bool,
    pub(crate) ranges: Ranges,
    pub(super) flights: Vec<Flight>,
    /// The source gives this object in one piece only.
    pub(super) is_single: bool,
    pub(crate) part: Option<Arc<PartFile>>,
    pub(crate) space: Option<Reservation>,
    /// What its reader needs besides.
    pub(super) extra: Option<Reservation>,
    /// Room for its record.
    pub(super) room: Option<Withheld>,
    /// An answer of this run told that the version is still the one.
    pub(super) is_confirmed: bool,
    /// It was there under its final name before this run.
    pub(crate) was_staged: bool,
    pub(super) turn: Turn,
    /// Its end waits for disk space.
    pub(super) is_unfinished: bool,
    /// It failed, and what is there of it is put away before that is said. Nothing more of it is asked for.
    pub(super) is_failing: bool,
    pub(super) restarts: u32,
    pub(crate) fetched: u64,
    pub(crate) started: Instant,
    pub(super) charged: u64,
    pub(super) owns_name: bool,
    pub(crate) save: Saved,
    /// Digests that somebody computes while the bytes arrive.
    pub(crate) followed: Option<Vec<Digest>>,
    pub(crate) is_followed: bool,
    pub(crate) followed_to: u64,
    pub(crate) reader: Reader,
}

impl FileState {
    pub(super) fn new(request: Request) -> Self {
        Self {
            request: Arc::new(request),
            identity: String::new(),
            paths: None,
            phase: Phase::New(None),
            generation: 0,
            version: None,
            digests: Vec::new(),
            is_listed: true,
            ranges: Ranges::default(),
            flights: Vec::new(),
            is_single: false,
            part: None,
            space: None,
            extra: None,
            room: None,
            is_confirmed: false,
            was_staged: false,
            turn: Turn::default(),
            is_unfinished: false,
            is_failing: false,
            restarts: 0,
            fetched: 0,
            started: Instant::now(),
            charged: 0,
            owns_name: true,
            save: Saved { is_running: false, bytes: 0, at: Instant::now() },
            followed: None,
            is_followed: false,
            followed_to: 0,
            reader: Reader::default(),
        }
    }

    pub(crate) fn size(&self) -> Option<u64> {
        match &self.version {
            Some(version) => version.size.or(self.request.size.filter(|_| self.is_listed)),
            None => self.request.size.filter(|_| self.is_listed),
        }
    }

    /// The first stretch that is neither there nor under way. The end is `None` for that of an object of unknown size.
    pub(super) fn gap(&self) -> Option<(u64, Option<u64>)> {
        if self.is_failing {
            return None;
        }
        // Until it is known what the object is, one request finds out.
        let is_known = self.version.as_ref().is_some_and(Version::is_checkable)
            || (self.is_listed && self.request.etag.as_ref().is_some_and(|etag| !etag.is_weak()));
        let size = self.size();
        if !self.flights.is_empty() && (self.is_single || !is_known || size.is_none()) {
            return None;
        }
        let flights = self.flights.iter().map(|flight| (flight.position, flight.end.unwrap_or(u64::MAX)));
        let (start, end) = first_gap(0, self.ranges.iter().chain(flights));
        match size {
            // An object without bytes is asked for once, to see that it is there.
            Some(0) => (self.version.is_none() && self.flights.is_empty()).then_some((0, Some(0))),
            Some(size) => (start < size).then_some((start, Some(end.map_or(size, |end| end.min(size))))),
            None => Some((start, None)),
        }
    }

    pub(super) fn flight(&mut self, id: u64) -> Option<&mut Flight> {
        self.flights.iter_mut().find(|flight| flight.id == id)
    }

    pub(super) fn cancel_flights(&mut self, but: Option<u64>) {
        for flight in self.flights.iter().filter(|flight| Some(flight.id) != but) {
            flight.cancel.cancel();
        }
        self.flights.retain(|flight| Some(flight.id) == but);
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done(_))
    }

    /// Bytes from the source, or on their way, that nobody consumed.
    pub(super) fn ahead(&self) -> u64 {
        let under_way =
            self.flights.iter().map(|flight| flight.end.unwrap_or(flight.claimed).saturating_sub(flight.position));
        under_way.fold(self.ranges.total(), u64::saturating_add).saturating_sub(self.consumed())
    }

    /// Up to where nobody needs the bytes any more.
    pub(super) fn consumed(&self) -> u64 {
        if self.is_followed { self.reader.position.min(self.followed_to) } else { self.reader.position }
    }

    /// Whether a reader may have it: there is something to read, and it is of the version that the source has.
    pub(super) fn is_ready(&self) -> bool {
        match self.phase {
            Phase::Done(_) | Phase::Finishing => true,
            _ if self.version.is_none() || self.part.is_none() => false,
            _ if self.is_confirmed || (self.is_listed && self.request.etag.is_some()) => true,
            _ => self.size().is_some_and(|size| self.ranges.covers(size)),
        }
    }

    /// The file with the bytes that can be read, opened if need be.
    pub(crate) fn open(&mut self, drops: bool) -> Result<Option<Arc<PartFile>>, Error> {
        if let (None, Phase::Done(Ok(staged)), Some(paths)) = (&self.part, &self.phase, &self.paths) {
            let path = if drops && !self.was_staged { &paths.part } else { &staged.path };
            self.part = Some(Arc::new(PartFile::open_whole(path)?));
        }
        Ok(self.part.clone())
    }

    pub(super) fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.waker.take() {
            waker.wake();
        }
    }

    /// Voids what there is. How many bytes that were.
    pub(super) fn begin_anew(&mut self) -> u64 {
        let discarded = self.ranges.total();
        self.generation += 1;
        self.cancel_flights(None);
        self.ranges = Ranges::default();
        self.version = None;
        self.digests = Vec::new();
        self.is_single = false;
        self.part = None;
        self.is_confirmed = false;
        self.extra = None;
        let space = match &self.phase {
            Phase::Done(Ok(staged)) => staged._space.clone(),
            _ => self.space.take().map(Arc::new),
        };
        (self.followed, self.is_followed, self.followed_to) = (None, false, 0);
        self.save = Saved { is_running: false, bytes: 0, at: Instant::now() };
        self.phase = Phase::New(Some(Discard { space, ..Discard::default() }));
        discarded
    }

    /// Leaves all behind `offset` to the flight of that id.
    pub(super) fn forget_behind(&mut self, offset: u64, id: u64) {
        let before = self.ranges.total();
        self.ranges.forget_behind(offset);
        self.cancel_flights(Some(id));
        if let Some(space) = &mut self.space {
            // Also what was reserved for the others, and not written.
            space.shrink_to_written();
            space.shrink(before - self.ranges.total());
        }
        if let Some(flight) = self.flight(id) {
            flight.reserved = offset;
        }
    }

    /// The turn behind all others that have to do with its record.
    pub(crate) fn next_turn(&self) -> Turn {
        self.turn.next()
    }

    pub(super) fn prepare(&self, place: u64, discard: Option<Discard>) -> Prepare {
        let (request, turn) = (self.request.clone(), self.turn.next());
        Prepare { place, generation: self.generation, request, turn, discard, is_new: false }
    }

    pub(super) fn to_save(&self) -> Option<Save> {
        let (paths, part, record) = (self.paths.clone()?, self.part.clone()?, self.record()?);
        Some(Save { paths, part, record, turn: self.turn.next() })
    }

    /// What it leaves on the disk for the next run, if that is counted.
    pub(super) fn leave(&mut self) -> Option<Leftover> {
        (self.extra, self.room) = (None, None);
        let mut space = self.space.take()?;
        space.shrink_to_written();
        let (name, paths) = (self.request.name.clone(), self.paths.clone()?);
        (space.bytes() > 0).then_some(Leftover { name, paths, space, is_resumable: true, is_old: false })
    }

    /// The reason, if the disk could not hold it even if it was empty. What its reader needs besides is a guess.
    pub(super) fn can_never_fit(&self, budget: &DiskBudget) -> Option<Error> {
        let shortage = budget.can_ever_fit(self.size()?).err()?;
        Some(Error::Space { name: self.request.name.clone(), shortage: Box::new(shortage) })
    }

    /// Gives up what its reader may need besides. Whether that was something.
    pub(super) fn give_extra(&mut self) -> bool {
        let of_staged = match &mut self.phase {
            Phase::Done(Ok(staged)) => staged._space.as_mut().and_then(Arc::get_mut),
            _ => None,
        };
        if let Some(space) = of_staged {
            let before = space.bytes();
            space.shrink_to_written();
            return space.bytes() < before;
        }
        self.extra.take().is_some_and(|extra| extra.bytes() > 0)
    }

    /// What is known now, without the bytes that are dropped.
    pub(super) fn record(&self) -> Option<Record> {
        let mut ranges = self.ranges.clone();
        ranges.forget_before(self.reader.dropped);
        Some(Record {
            key: self.request.key.clone(),
            identity: self.identity.clone(),
            version: self.version.clone()?,
            ranges,
            stated: self.digests.clone(),
            digests: Vec::new(),
            fetched_at: None,
        })
    }

    /// The bytes that can be read from `position` on without a gap.
    pub(crate) fn readable(&self, position: u64) -> u64 {
        self.ranges.end_from(position) - position
    }
}

pub(crate) enum Phase {
    /// Nothing was looked at yet; or what there is must go.
    New(Option<Discard>),
    Preparing,
    Open,
    Finishing,
    Done(Result<StagedFile, Error>),
}

/// A record to be written, when the bytes that it speaks of are on the disk.
pub(crate) struct Save {
    pub(crate) paths: Arc<Paths>,
    pub(crate) part: Arc<PartFile>,
    pub(crate) record: Record,
    pub(crate) turn: Turn,
}

/// When the record was written last.
pub(crate) struct Saved {
    pub(crate) is_running: bool,
    pub(crate) bytes: u64,
    pub(crate) at: Instant,
}

/// How far a consumer of bytes is.
#[derive(Default)]
pub(crate) struct Reader {
    pub(crate) is_delivered: bool,
    pub(crate) position: u64,
    /// Bytes were handed out, so that those of another version cannot take their place.
    pub(crate) is_begun: bool,
    /// The record of what is there is written: no more is dropped.
    pub(crate) is_recorded: bool,
    /// Bytes whose disk space was given back.
    pub(crate) dropped: u64,
    pub(crate) waker: Option<Waker>,
}
