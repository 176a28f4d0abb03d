//! What can bind a run, and how far each of that is used in a stretch of it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{LEAST, TIE, rounded};
use crate::meter::{MeterReading, Resource, Sample, StageCounts, StageReading, StageSample, fraction, number};

/// A neighbour that is idle for less than this of its time says nothing of who keeps it waiting.
const IDLE: f64 = 0.05;

/// A limit is no cause of its own if it holds less than this part of those of a stage's workers that have something to do.
const HELD: f64 = 1.0 / 3.0;

/// If the processors are used that much by this process, whoever stands in line for one waits for itself.
const FULL: f64 = 0.9;

/// Something that can bind a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "limit", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Limit {
    /// The workers of a stage, which do no more than they do.
    Stage {
        /// Its name.
        stage: String,
    },
    /// The workers of several stages, which are the same ones.
    Workers {
        /// Their names.
        stages: Vec<String>,
    },
    /// All processors together.
    Cores,
    /// The limit of how often a stage may do what it does.
    RateLimit {
        /// The stage that waits for it.
        stage: String,
    },
    /// The limit of how much of what a stage makes may be there at once.
    Budget {
        /// The stage that waits for it.
        stage: String,
    },
    /// One that a later version of the program named in a report.
    #[serde(other)]
    Other,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stage { stage } => f.write_str(stage),
            Self::Workers { stages } => write!(f, "the workers of {}", stages.join(" and ")),
            Self::Cores => f.write_str("the processors"),
            Self::RateLimit { stage } => write!(f, "the rate limit of {stage}"),
            Self::Budget { stage } => write!(f, "the budget of {stage}"),
            Self::Other => f.write_str("another limit"),
        }
    }
}

/// How far a limit was used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LimitUse {
    /// Which.
    #[serde(flatten)]
    pub limit: Limit,
    /// What it is a limit of, by what its time was spent on most.
    pub resource: Resource,
    /// Part of the time that it was used, from 0 to 1.
    #[serde(deserialize_with = "number::float")]
    pub utilisation: f64,
    /// The same without the time that workers stood in line for a CPU. Of a limit that holds few of its stage's workers, their
    /// part.
    #[serde(deserialize_with = "number::float")]
    pub least: f64,
    /// Of one stage or several: the workers, without those for whom there was nothing to do where the others had all their
    /// time to work. Of the cores: how many there are. Else 1.
    #[serde(deserialize_with = "number::float")]
    pub workers: f64,
}

/// Whether neighbours bear a bottleneck out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Evidence {
    /// All do.
    Confirmed,
    /// At least one does not: it waits for something else, or the stage does something that is not metered.
    Contradicted,
    /// It has none. In a report, also what a later version of the program says.
    #[serde(other)]
    Alone,
}

/// A limit by its place in the reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Stage(usize),
    /// Of the stage whose workers others share.
    Workers(usize),
    Cores,
    RateLimit(usize),
    Budget(usize),
}

impl Key {
    pub(super) fn stage(self) -> Option<usize> {
        match self {
            Self::Stage(stage) | Self::RateLimit(stage) | Self::Budget(stage) => Some(stage),
            Self::Workers(_) | Self::Cores => None,
        }
    }
}

/// How far a limit is used in a stretch.
#[derive(Clone, Debug)]
pub(super) struct Use {
    pub(super) key: Key,
    pub(super) resource: Resource,
    /// With time on the run queue, or at which a limit held anybody up.
    pub(super) most: f64,
    /// Without, or by the part of the workers that it holds where they are few.
    pub(super) least: f64,
    workers: f64,
    /// Of a stage: the part of all processors that it takes.
    pub(super) cpu: f64,
    /// What limits are compared by.
    own: f64,
    /// Of workers that stages share: which stages, and how far each uses them, with time on the run queue and without.
    pub(super) members: Vec<(usize, f64, f64)>,
}

impl Use {
    pub(super) fn limit(&self, reading: &MeterReading) -> Limit {
        let name = |stage: usize| reading.stages[stage].name.clone();
        match self.key {
            Key::Stage(stage) => Limit::Stage { stage: name(stage) },
            Key::Workers(_) => Limit::Workers { stages: self.members.iter().map(|(stage, ..)| name(*stage)).collect() },
            Key::Cores => Limit::Cores,
            Key::RateLimit(stage) => Limit::RateLimit { stage: name(stage) },
            Key::Budget(stage) => Limit::Budget { stage: name(stage) },
        }
    }

    pub(super) fn describe(&self, reading: &MeterReading) -> LimitUse {
        LimitUse {
            limit: self.limit(reading),
            resource: self.resource,
            utilisation: rounded(self.most),
            least: rounded(self.least),
            workers: self.workers,
        }
    }

    /// Of what is shared, the stage that takes most of the workers, or more than half of the processors; else itself.
    pub(super) fn greedy(&self, uses: &[Use]) -> Key {
        let stage = match self.key {
            Key::Cores => uses.iter().find(|used| used.cpu > self.most / 2.0).map(|used| used.key),
            Key::Workers(_) => {
                let most = self.members.iter().max_by(|a, b| a.1.total_cmp(&b.1));
                most.map(|(stage, ..)| Key::Stage(*stage))
            }
            _ => None,
        };
        stage.unwrap_or(self.key)
    }

    /// What limits are compared by from sample to sample: what is the cause of another one's use goes before it.
    pub(super) fn score(&self) -> f64 {
        match self.key {
            Key::RateLimit(_) => self.own + TIE,
            Key::Stage(_) | Key::Workers(_) => self.own,
            Key::Cores | Key::Budget(_) => self.own - TIE,
        }
    }
}

/// Stretches of a run taken together.
#[derive(Debug)]
pub(super) struct Window<'a> {
    reading: &'a MeterReading,
    sum: Sample,
    pub(super) uses: Vec<Use>,
}

impl<'a> Window<'a> {
    /// Of the samples at these places.
    pub(super) fn of(reading: &'a MeterReading, places: impl IntoIterator<Item = usize>) -> Self {
        let mut sum = Sample::default();
        let mut time = Duration::ZERO;
        for place in places {
            let sample = &reading.timeline.samples()[place];
            time += sample.duration();
            sum.append(sample);
        }
        (sum.start, sum.end) = (Duration::ZERO, time);
        let uses = uses(reading, &sum);
        Self { reading, sum, uses }
    }

    /// Of the samples that lie between these times.
    pub(super) fn between(reading: &'a MeterReading, start: Duration, end: Duration) -> Self {
        let samples = reading.timeline.samples().iter().enumerate();
        let places = samples.filter(|(_, sample)| sample.start >= start && sample.end <= end).map(|(place, _)| place);
        Self::of(reading, places)
    }

    pub(super) fn duration(&self) -> Duration {
        self.sum.duration()
    }

    pub(super) fn counts(&self, stage: usize) -> StageCounts {
        self.sum.stage(stage).counts
    }

    /// How much of all working time workers stood in line for a CPU.
    pub(super) fn run_queue_share(&self) -> f64 {
        let sum = |of: fn(&StageCounts) -> Duration| self.sum.stages.iter().map(|stage| of(&stage.counts)).sum();
        fraction(sum(|counts| counts.run_queue), sum(StageCounts::working))
    }

    /// What binds in it, by the rules of [`RunVerdict`](super::RunVerdict).
    pub(super) fn bottleneck(&self) -> Option<Use> {
        let bound = self.bound()?;
        // Who takes most of what is shared is whom it helps to make faster.
        let key = bound.greedy(&self.uses);
        self.uses.iter().find(|used| used.key == key).cloned()
    }

    /// The same, where that is shared as it is.
    pub(super) fn bound(&self) -> Option<&Use> {
        let highest = self.uses.iter().map(|used| used.own).max_by(f64::total_cmp)?;
        if highest < LEAST {
            return None;
        }
        let tied = |used: &&Use| used.own >= highest - TIE;
        let rank = |used: &Use| match used.key {
            // One whose neighbours are slow is waited for by those who would wait for them.
            Key::RateLimit(_) if self.evidence(used.key).0 == Evidence::Contradicted => (0, 0.0),
            Key::RateLimit(_) => (3, 0.0),
            Key::Stage(_) => (2, self.evidence(used.key).1),
            Key::Workers(_) | Key::Cores => (1, 0.0),
            Key::Budget(_) => (0, 0.0),
        };
        let best = |a: &&Use, b: &&Use| {
            let ((a_rank, a_evidence), (b_rank, b_evidence)) = (rank(a), rank(b));
            a_rank.cmp(&b_rank).then(a_evidence.total_cmp(&b_evidence)).then(a.own.total_cmp(&b.own))
        };
        self.uses.iter().filter(tied).max_by(best)
    }

    /// Whether the neighbours bear a limit out, and how much: the mean part of their time that they wait for it.
    pub(super) fn evidence(&self, key: Key) -> (Evidence, f64) {
        let Some(stage) = key.stage() else { return (Evidence::Alone, 0.0) };
        let (mut waits, mut neighbours, mut contradicted) = (0.0, 0, false);
        for (other, reading) in self.reading.stages.iter().enumerate() {
            let counts = self.counts(other);
            let time = counts.time();
            // A budget is full when those behind are slow.
            let (starved, blocked) = (counts.starved, counts.blocked + counts.budget);
            let (for_it, else_for) = if is_after(&self.reading.stages[stage], reading) {
                (blocked, starved)
            } else if is_after(reading, &self.reading.stages[stage]) {
                (starved, blocked)
            } else {
                continue;
            };
            if time.is_zero() {
                continue;
            }
            neighbours += 1;
            waits += fraction(for_it, time);
            contradicted |= else_for > for_it && fraction(starved + blocked, time) >= IDLE;
        }
        match neighbours {
            0 => (Evidence::Alone, 0.0),
            _ if contradicted => (Evidence::Contradicted, waits / f64::from(neighbours)),
            _ => (Evidence::Confirmed, waits / f64::from(neighbours)),
        }
    }
}

/// Whether a stage gets its input from another one.
fn is_after(stage: &StageReading, before: &StageReading) -> bool {
    stage.after.contains(&before.name)
}

fn uses(reading: &MeterReading, sum: &Sample) -> Vec<Use> {
    let time = sum.duration();
    if time.is_zero() {
        return Vec::new();
    }
    let cores = reading.cores.filter(|cores| *cores > 0.0);
    let mut uses = Vec::new();
    let mut on_cpu = Duration::ZERO;
    for (index, stage) in reading.stages.iter().enumerate() {
        let in_window = sum.stage(index);
        let counts = in_window.counts;
        on_cpu += counts.on_cpu;
        let simple = |key, resource, most: f64, least: f64| {
            let (most, least) = (most.min(1.0), least.min(1.0));
            Use { key, resource, most, least, workers: 1.0, cpu: 0.0, own: least, members: Vec::new() }
        };
        let busy = counts.busy();
        // Whoever waits for a limit shows that it is used up. But where most others work, it is not what they wait for, such
        // as the limit of one host of many, and without it the stage could do no more than that much more.
        let weighed = |held: Duration, waited: Duration| {
            let (most, part) = (fraction(held, time), fraction(waited, waited + busy));
            (most, if part >= HELD { most } else { most.min(part) })
        };
        let (mut most, mut least) = weighed(counts.rate_limit_held, counts.rate_limit);
        if let Some(capacity) = stage.capacity.filter(|capacity| *capacity > 0.0) {
            let taken = counts.items as f64 / (capacity * time.as_secs_f64());
            (most, least) = (most.max(taken), least.max(taken));
        }
        if most > 0.0 {
            uses.push(simple(Key::RateLimit(index), Resource::RateLimit, most, least));
        }
        if !counts.budget_held.is_zero() {
            let (most, least) = weighed(counts.budget_held, counts.budget);
            uses.push(simple(Key::Budget(index), Resource::Budget, most, least));
        }
        if busy.is_zero() || stage.capacity.is_some() {
            continue;
        }
        let (most, workers) = use_of(reading, sum, index);
        let least = most * fraction(busy.saturating_sub(counts.run_queue), busy);
        uses.push(Use {
            key: Key::Stage(index),
            resource: match counts.resource(&stage.resources) {
                Resource::Server if waits_for_us(stage) => Resource::Network,
                resource => resource,
            },
            most,
            least,
            workers,
            cpu: cores.map_or(0.0, |cores| fraction(counts.on_cpu, time) / cores),
            own: most,
            members: Vec::new(),
        });
    }
    uses.extend(shared(reading, &uses));
    if let Some(cores) = cores {
        // The stages' sum is an estimate, and without what is not metered.
        let used = if sum.process_cpu.is_zero() { on_cpu } else { sum.process_cpu };
        let most = (fraction(used, time) / cores).min(1.0);
        if most >= FULL {
            uses.iter_mut().for_each(|used| used.own = used.least);
        }
        let key = Key::Cores;
        let members = Vec::new();
        let resource = Resource::Cpu;
        uses.push(Use { key, resource, most, least: most, workers: cores, cpu: 0.0, own: most, members });
    }
    uses
}

/// Whether the server, while a stage waits for it, mostly waits for more from there: then it is the way to it.
fn waits_for_us(stage: &StageReading) -> bool {
    let is_read = |event: &str| event == "ClientRead" || event.ends_with("/ClientRead");
    let (mut reads, mut others) = (0_u64, 0_u64);
    for (event, times) in &stage.server_events {
        let sum = if is_read(event) { &mut reads } else { &mut others };
        *sum = sum.saturating_add(*times);
    }
    reads > others
}

/// How far a stage's workers are used, and how many they are.
fn use_of(reading: &MeterReading, sum: &Sample, index: usize) -> (f64, f64) {
    let (stage, StageSample { workers, busiest, counts, .. }) = (&reading.stages[index], sum.stage(index));
    let (time, busy) = (sum.duration(), counts.busy());
    let workers = f64::from(stage.max_workers.unwrap_or(workers).max(1));
    let used = (fraction(busy, time) / workers).min(1.0);
    let is_shared = |other: &StageReading| other.workers_of.as_ref() == Some(&stage.name);
    if stage.workers_of.is_some() || reading.stages.iter().any(is_shared) {
        return (used, workers);
    }
    // There may be nothing that all of them could do at once, such as at the end of a plan, or where a large object comes over
    // one connection. Then those who have nothing to do are no room for more, though nobody before them is to blame: there is
    // nobody, or they wait to hand on what they have.
    let before = reading.stages.iter().enumerate().filter(|(_, other)| is_after(stage, other));
    let before: Vec<StageCounts> = before.map(|(other, _)| sum.stage(other).counts).collect();
    let blocked: Duration = before.iter().map(|counts| counts.blocked + counts.budget).sum();
    let idle = if stage.after.is_empty() { 1.0 } else { fraction(blocked, before.iter().map(StageCounts::time).sum()) };
    let could = workers - fraction(counts.starved, time) * idle;
    // One of them has to have all of the time to work, else it is what cannot be seen here that hands them too little.
    let alone = (fraction(busy, time) / could.max(f64::MIN_POSITIVE)).min(fraction(busiest, time)).min(1.0);
    if alone > used { (alone, fraction(busy, time) / alone) } else { (used, workers) }
}

/// The workers that several stages share: by the stages' uses of them.
fn shared(reading: &MeterReading, uses: &[Use]) -> Vec<Use> {
    let stage = |index: usize| uses.iter().find(|used| used.key == Key::Stage(index));
    let names = reading.stages.iter().enumerate();
    let owners = names.filter_map(|(index, owner)| Some((index, &owner.name, stage(index)?)));
    let shared = owners.filter_map(|(index, name, owner)| {
        let guests = reading.stages.iter().enumerate().filter(|(_, stage)| stage.workers_of.as_ref() == Some(name));
        let guests: Vec<(usize, &Use)> = guests.filter_map(|(guest, _)| Some((guest, stage(guest)?))).collect();
        let first = guests.first()?;
        // Parts of all the time of the owner's workers.
        let part = |(index, used): (usize, &Use)| {
            (index, used.most * used.workers / owner.workers, used.least * used.workers / owner.workers)
        };
        let members: Vec<_> = guests.iter().copied().chain([(index, owner)]).map(part).collect();
        let most = members.iter().map(|(_, most, _)| most).sum::<f64>().min(1.0);
        let least = members.iter().map(|(.., least)| least).sum::<f64>().min(1.0);
        let resource = if first.1.most > owner.most { first.1.resource } else { owner.resource };
        let (key, workers) = (Key::Workers(index), owner.workers);
        Some(Use { key, resource, most, least, workers, cpu: 0.0, own: most, members })
    });
    shared.collect()
}
