//! What is to be fetched next: the files of the plan in their order, and how far each of them is.

mod completion;
mod delivery;
mod file_state;
mod flight;
mod room;
mod schedule;
mod transfer;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::completion::Finish;
pub(crate) use self::file_state::{FileState, Phase, Save};
pub(crate) use self::room::{DISK_POLL, EVICTED, RECORD};
pub(crate) use self::schedule::{Discard, Next, Prepare, Segment};
pub(crate) use self::transfer::{Accepted, Ask, Claimed, Ended};
use crate::budget::DiskBudget;
use crate::leftovers::Leftovers;
use crate::part::{Found, Paths};
use crate::pause::Pause;
use crate::{Error, Request, StagedFile};

pub(crate) type PlanIter = Box<dyn Iterator<Item = Request> + Send>;

/// What a consumer takes: whole files, or bytes as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Files,
    Bodies { drop_consumed: bool },
}

/// The settings that the order depends on.
pub(crate) struct Limits {
    pub(crate) concurrency: u64,
    pub(crate) window: u64,
    pub(crate) segment: Option<u64>,
    pub(crate) disk_patience: Duration,
    /// Whether files that earlier runs staged may be removed for the front.
    pub(crate) evicts_staged: bool,
}

pub(crate) struct Queue {
    pub(crate) mode: Mode,
    limits: Limits,
    budget: DiskBudget,
    files: BTreeMap<u64, FileState>,
    /// Those of which something is to be fetched or looked at, as far as is known.
    wanting: BTreeSet<u64>,
    names: HashSet<String>,
    plan: Plan,
    admitted: u64,
    /// The place that is delivered next.
    pub(crate) front: u64,
    /// The consumer has done what it had to do with the file before, and waits for it.
    pub(crate) is_awaited: bool,
    /// Bytes fetched or being fetched that nobody has consumed.
    ahead: u64,
    pause: Pause,
    /// The file that cannot be finished for want of disk space.
    unfinished: Option<u64>,
    /// Bytes a second of one connection, as a moving average; 0 while unknown.
    rate: f64,
    /// Seconds until a request is answered, as a moving average; 0 while unknown.
    set_up: f64,
    flights: u64,
    /// Earlier runs left nothing in the folder.
    is_fresh: bool,
    /// What is on the disk of files that are not under way.
    leftovers: Leftovers,
    /// Nobody fetches any more: what is missing stays so.
    pub(crate) is_deserted: bool,
    pub(crate) is_closed: bool,
    pub(crate) panic: Option<Box<dyn Any + Send>>,
}

enum Plan {
    There(PlanIter),
    Asked,
    Ended,
}

impl Queue {
    pub(crate) fn new(mode: Mode, limits: Limits, budget: DiskBudget, plan: PlanIter) -> Self {
        Self {
            mode,
            budget,
            files: BTreeMap::new(),
            wanting: BTreeSet::new(),
            names: HashSet::new(),
            plan: Plan::There(plan),
            admitted: 0,
            front: 0,
            is_awaited: false,
            ahead: 0,
            pause: Pause::new(limits.disk_patience),
            unfinished: None,
            rate: 0.0,
            set_up: 0.0,
            limits,
            flights: 0,
            is_fresh: false,
            leftovers: Leftovers::default(),
            is_deserted: false,
            is_closed: false,
            panic: None,
        }
    }

    /// Whether bytes leave the disk when they are read.
    pub(crate) fn drops(&self) -> bool {
        self.mode == Mode::Bodies { drop_consumed: true }
    }

    pub(crate) fn budget(&self) -> &DiskBudget {
        &self.budget
    }

    pub(crate) fn file(&mut self, place: u64, generation: u32) -> Option<&mut FileState> {
        self.files.get_mut(&place).filter(|file| file.generation == generation)
    }

    pub(crate) fn file_at(&mut self, place: u64) -> Option<&mut FileState> {
        self.files.get_mut(&place)
    }

    /// Whether nothing will ever be delivered any more.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.plan, Plan::Ended) && self.files.range(self.front..).next().is_none()
    }

    fn is_finished(&self) -> bool {
        matches!(self.plan, Plan::Ended) && self.files.values().all(FileState::is_done)
    }

    /// Takes in what the plan gave, and the plan, unless it is at its end.
    pub(crate) fn admitted(&mut self, answer: Result<Option<(PlanIter, Request)>, Box<dyn Any + Send>>) {
        self.plan = Plan::Ended;
        match answer {
            Ok(Some((plan, request))) => {
                self.plan = Plan::There(plan);
                let place = self.admitted;
                self.admitted += 1;
                let mut file = FileState::new(request);
                if self.names.insert(file.request.name.clone()) {
                    self.wanting.insert(place);
                } else {
                    let name = file.request.name.clone();
                    file.phase =
                        Phase::Done(Err(Error::Name { name, reason: "another file of the plan has that name" }));
                    file.owns_name = false;
                }
                self.files.insert(place, file);
            }
            Ok(None) => {}
            Err(panic) => self.panic = Some(panic),
        }
    }

    /// Takes in what was found of a file. The error, if it cannot be fetched.
    pub(crate) fn prepared(
        &mut self,
        place: u64,
        generation: u32,
        identity: String,
        paths: Paths,
        found: Found,
    ) -> Option<Error> {
        let budget = self.budget.clone();
        let drops = self.drops();
        let file = self.file(place, generation)?;
        let staged = paths.target.clone();
        file.identity = identity;
        file.paths = Some(Arc::new(paths));
        // What was left of it is counted anew, as what it is.
        file.space = None;
        match found {
            Found::Whole(record) => {
                let size = record.ranges.total();
                file.was_staged = true;
                file.version = Some(record.version.clone());
                file.ranges = record.ranges;
                file.phase = Phase::Done(Ok(StagedFile {
                    path: staged,
                    size,
                    etag: record.version.etag,
                    last_modified: record.version.last_modified,
                    digests: record.digests,
                    fetched: 0,
                    _space: Some(Arc::new(budget.adopt_in_any_case(size))),
                }));
            }
            Found::Part(record, part) => {
                // What a reader has consumed it does not need to have again, but another run's reader may not have.
                file.space = Some(budget.adopt_in_any_case(record.ranges.total()));
                file.version = Some(record.version);
                file.digests = record.stated;
                file.ranges = record.ranges;
                file.part = Some(Arc::new(part));
                file.phase = Phase::Open;
                self.wanting.insert(place);
            }
            Found::Nothing => {
                file.phase = Phase::Open;
                self.wanting.insert(place);
            }
        }
        self.charge(place);
        let file = self.file(place, generation).filter(|file| file.is_open() && !drops)?;
        file.can_never_fit(&budget)
    }

    /// Ends a file with an error.
    pub(crate) fn fail(&mut self, place: u64, error: Error) {
        let Some(file) = self.files.get_mut(&place) else { return };
        file.cancel_flights(None);
        let is_void = matches!(error, Error::Changed { .. } | Error::Corrupt { .. } | Error::Unexpected { .. });
        file.phase = Phase::Done(Err(error));
        file.wake_reader();
        let kept = file.leave();
        self.leftovers.extend(kept.filter(|_| !is_void));
        self.wanting.remove(&place);
        self.charge(place);
    }

    /// Ends all that is not whole, because it shall end: what was begun is interrupted, the rest was never there.
    pub(crate) fn interrupt(&mut self, location: &dyn Fn(&str) -> String) {
        self.plan = Plan::Ended;
        for place in self.open_places().into_iter().rev() {
            let Some(file) = self.files.get(&place) else { continue };
            let is_last = self.files.keys().next_back() == Some(&place);
            if is_last && file.generation == 0 && file.version.is_none() && file.flights.is_empty() {
                self.remove(place);
            } else {
                let location = location(&file.request.key);
                self.fail(place, Error::Interrupted { location });
            }
        }
    }

    /// The places of files that are neither whole nor failed.
    pub(crate) fn open_places(&self) -> Vec<u64> {
        self.files.iter().filter(|(_, file)| !file.is_done()).map(|(place, _)| *place).collect()
    }

    /// Takes a file out, whatever its state.
    pub(crate) fn remove(&mut self, place: u64) -> Option<FileState> {
        let mut file = self.files.remove(&place)?;
        file.cancel_flights(None);
        self.ahead -= file.charged;
        self.wanting.remove(&place);
        if file.owns_name {
            self.names.remove(&file.request.name);
        }
        Some(file)
    }

    /// Counts what an abandoned file leaves on the disk until the run ends.
    pub(crate) fn keep(&mut self, file: &mut FileState) {
        self.leftovers.extend(file.leave());
    }

    /// Ends all work and reading.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        for file in self.files.values_mut() {
            file.cancel_flights(None);
            file.wake_reader();
        }
    }

    /// Counts what a file has ahead of its reader.
    fn charge(&mut self, place: u64) {
        if let Some(file) = self.files.get_mut(&place) {
            let now = file.ahead();
            self.ahead = self.ahead - file.charged + now;
            file.charged = now;
        }
    }
}
