//! What bound a run: from its meters alone, by rules that stand at [`RunVerdict`].

mod goal;
mod limit;
mod phases;
mod text;
mod what_if;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use goal::{Goal, GoalProgress, Outlook, Projection, Remedy};
pub use limit::{Evidence, Limit, LimitUse};
use limit::{Key, Use, Window};
pub(crate) use text::{bytes, percent, span};
pub use what_if::WhatIf;

use crate::meter::{MeterReading, fraction, seconds};

/// Two utilisations that are closer than this are told apart by other evidence.
const TIE: f64 = 0.05;

/// What is used less than this binds nothing.
const LEAST: f64 = 0.5;

/// Work that spent more than this in line for a CPU was contended.
const CONTENDED: f64 = 0.05;

/// What bound a run, and what would if that were faster.
///
/// # Rules
///
/// 1. **Utilisation.** Each [`Limit`] of the run has one. A stage's is the time that its workers worked or waited for what
///    the stage itself depends on (network, disk, server), of the time that all of them could have: the stated number of
///    workers, else the most that there were at once, times the length of the stretch. Waiting for neighbours, for a rate
///    limit or a budget is no use of a stage. Workers for whom there is nothing to do do not count where a stage has none
///    before it, or where those wait to hand on what they have, but the use is then no more than that of the worker that was
///    busy for the longest: so a straggler, or an object that comes over one connection of many, is seen. A rate limit's or
///    budget's is the time at which it held anybody up, but where it held less than a third of the stage's workers that had
///    something to do, it is compared by that part; where the limiter's rate is stated, the part of it that was taken, if that
///    is more. Where stages share workers, these have the sum of the stages' uses. The cores' is the process's CPU time of all
///    that they have.
/// 2. **Bottleneck.** The limit of the highest utilisation. Time in line for a CPU is a stage's use, but not where this
///    process keeps the cores busy for 90% of the time: then it is theirs. Of the limits within five points of the highest
///    it is the first of: a rate limit that its neighbours do not speak against; the stage whose neighbours bear it out best, which means that those before it were
///    blocked and those behind it starved; shared workers and the cores; a budget, as a full one is what a slow stage behind
///    it looks like. Of shared workers it is the stage that takes most of them, and of the cores the stage that takes more
///    than half of them, if there is one. If nothing is used half of the time, nothing is named: time goes by between the
///    stages, or in what is not metered.
/// 3. **Evidence.** It is [confirmed](Evidence::Confirmed) if each neighbour is busy itself (idle for less than 5% of its
///    time) or leans the right way: before the bottleneck, blocked (or out of budget) for longer than starved, behind it the
///    other way round.
/// 4. **Resource.** What the stage's busy time was spent on most. Time on a CPU and in line for one is the CPU's, waiting that
///    it named is that resource's, and the rest is of the first resource that the stage states, the CPU aside. A server that
///    was seen more often than not to wait for the stage itself (PostgreSQL's `ClientRead`) leaves its time to the network.
/// 5. **Phases.** Where the bottleneck moves, the run is cut so that over all samples the sum of (highest utilisation less
///    that of the named limit) x time is least, where each cut costs 1% of the run. So a phase is named if it is clearer than
///    noise: a stretch of 4% of the run where another limit is used half as much again, or a longer one with a smaller
///    difference. The run's bottleneck is the one that bound for the longest time.
/// 6. **What if.** By X <= min(K<sub>i</sub> / D<sub>i</sub>): in each phase no limit can be used more than all of the time,
///    so if one becomes s times as fast, the phase takes at least the highest utilisation of all that remain, and, if it
///    overlaps no better than it did, that highest utilisation by the highest one before. This is the interval. Where workers
///    stood in line for a CPU, its lower end takes it that they would not. The phases' times add up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunVerdict {
    /// What bound the run for the longest time; `None` if nothing did.
    pub bottleneck: Option<Bottleneck>,
    /// The stretches of the run, each with what bound it. One, if the bottleneck stayed where it was; none of a run that has
    /// no samples.
    pub phases: Vec<RunPhase>,
    /// Whether workers stood in line for a CPU for more than 5% of their working time. Predictions are intervals then.
    pub contended: bool,
}

/// What bound a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Bottleneck {
    /// What, and how far it was used while it bound.
    #[serde(flatten)]
    pub used: LimitUse,
    /// Part of the run that it bound, from 0 to 1.
    pub share: f64,
    /// Whether its neighbours bear it out.
    pub evidence: Evidence,
    /// The other limits meanwhile, those that were used most first.
    pub others: Vec<LimitUse>,
    /// What the server was seen to do for the stage, and how often of all, the most frequent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_events: Vec<(String, f64)>,
    /// If it were twice as fast.
    pub twice: WhatIf,
    /// If it were so fast that another one binds; `None` if there is no other, or only a thousand times the speed would do.
    /// More is of no use, but where what binds then is what it shares with others.
    pub next: Option<WhatIf>,
}

/// A stretch of a run in which one limit bound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunPhase {
    /// When it begins, from the begin of the run.
    #[serde(with = "seconds")]
    pub start: Duration,
    /// When it ends.
    #[serde(with = "seconds")]
    pub end: Duration,
    /// What bound; `None` if nothing did.
    pub used: Option<LimitUse>,
}

/// Figures of a verdict have six digits behind the point: more are noise, and these survive JSON.
fn rounded(figure: f64) -> f64 {
    (figure * 1e6).round() / 1e6
}

impl RunVerdict {
    /// Of what the meters say. It may be taken at any time of a run, of what there is up to then.
    pub fn of(reading: &MeterReading) -> Self {
        let phases = phases::find(reading);
        let windows: Vec<Window> = phases.iter().map(|range| Window::of(reading, range.clone())).collect();
        let bound: Vec<Option<Use>> = windows.iter().map(Window::bottleneck).collect();
        // Which of them bound for the longest time; the first of equals.
        let mut longest: Option<(Key, Duration)> = None;
        for key in bound.iter().flatten().map(|used| used.key) {
            let time = windows.iter().zip(&bound).filter(|(_, used)| used.as_ref().is_some_and(|used| used.key == key));
            let time = time.map(|(window, _)| window.duration()).sum();
            if longest.is_none_or(|(_, longest)| longest < time) {
                longest = Some((key, time));
            }
        }
        let all: Duration = windows.iter().map(Window::duration).sum();
        let bottleneck = longest.map(|(key, time)| {
            let ranges =
                phases.iter().zip(&bound).filter(|(_, used)| used.as_ref().is_some_and(|used| used.key == key));
            let window = Window::of(reading, ranges.flat_map(|(range, _)| range.clone()));
            Bottleneck::new(reading, &window, key, fraction(time, all), &windows)
        });
        let whole = Window::of(reading, 0..reading.timeline.samples().len());
        let samples = reading.timeline.samples();
        let phases = phases.iter().zip(&bound).map(|(range, used)| RunPhase {
            start: samples[range.start].start,
            end: samples[range.end - 1].end,
            used: used.as_ref().map(|used| used.describe(reading)),
        });
        Self { bottleneck, phases: phases.collect(), contended: whole.run_queue_share() > CONTENDED }
    }

    /// What part of its time the run would have taken if `limit` were `speed` times as fast. `None` if there is no such
    /// limit in the reading that the verdict is of, or `speed` is not above 0.
    pub fn what_if(&self, reading: &MeterReading, limit: &Limit, speed: f64) -> Option<WhatIf> {
        let windows: Vec<Window> =
            self.phases.iter().map(|phase| Window::between(reading, phase.start, phase.end)).collect();
        let key = windows.iter().flat_map(|window| &window.uses).find(|used| used.limit(reading) == *limit)?.key;
        (speed > 0.0 && speed.is_finite()).then(|| what_if::predict(reading, &windows, key, speed))
    }
}

impl Bottleneck {
    fn new(reading: &MeterReading, window: &Window<'_>, key: Key, share: f64, windows: &[Window<'_>]) -> Self {
        let is_it = |used: &&Use| used.key == key;
        let used = window.uses.iter().find(is_it).expect("the limit is one of those of its own phases");
        let mut others: Vec<&Use> = window.uses.iter().filter(|used| !is_it(used)).collect();
        others.sort_by(|a, b| b.most.total_cmp(&a.most));
        let events = key.stage().map(|stage| &reading.stages[stage].server_events);
        let sum: u64 =
            events.iter().flat_map(|events| events.values()).fold(0, |sum, times| sum.saturating_add(*times));
        let mut server_events: Vec<(String, f64)> = events
            .into_iter()
            .flatten()
            .map(|(event, times)| (event.clone(), rounded(*times as f64 / sum.max(1) as f64)))
            .collect();
        server_events.sort_by(|a, b| b.1.total_cmp(&a.1));
        Self {
            used: used.describe(reading),
            share: rounded(share),
            evidence: window.evidence(key).0,
            others: others.into_iter().map(|used| used.describe(reading)).collect(),
            server_events,
            twice: what_if::predict(reading, windows, key, 2.0),
            next: what_if::next(reading, windows, key),
        }
    }
}
