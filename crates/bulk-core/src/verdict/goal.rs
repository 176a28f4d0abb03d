//! Whether a run is good enough.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limit::{Key, Use, Window};
use super::{LimitUse, RunVerdict, rounded};
use crate::meter::{MeterReading, StageCounts, seconds};

/// Fewer samples than this say nothing of how fast a run is of late.
const FEW: usize = 3;

/// What is good enough.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Goal {
    /// So many bytes, or items, a second, as [`GoalProgress`] counts.
    Rate(f64),
    /// Done within that time from now on.
    Within(#[serde(with = "seconds")] Duration),
}

/// What counts towards a [`Goal`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GoalProgress {
    /// The stage whose work counts, such as the last one.
    pub stage: String,
    /// Whether its bytes count, or its items. Default bytes.
    pub is_bytes: bool,
    /// How much it will have done in this run, if that is known. Default unknown.
    pub total: Option<u64>,
}

/// Whether a run will make its goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outlook {
    /// At the slower of its rates, too.
    WillMakeIt,
    /// Not even at the faster one.
    WillMissIt,
    /// It is too close, or too early, to say, or it is not known how much there is to do. In a report, also what a later
    /// version of the program says.
    #[serde(other)]
    Open,
}

/// How a run does compared with its [`Goal`], and what would help.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Projection {
    /// The goal.
    pub goal: Goal,
    /// Whether rates are of bytes, or of items.
    pub is_bytes: bool,
    /// The rate a second in the present phase, and of late: the lower of the two.
    pub least_rate: f64,
    /// The higher of the two.
    pub most_rate: f64,
    /// The rate that the goal asks for from now on, if that is known.
    pub needed_rate: Option<f64>,
    /// How long the rest takes at the higher rate, and at the lower one, in seconds, if that is known.
    pub left: Option<(f64, f64)>,
    /// Whether it will make it.
    pub outlook: Outlook,
    /// What would have to be faster to make it, and how much, the most first. All of it would; empty if nothing has to be,
    /// or nobody knows what.
    pub help: Vec<Remedy>,
}

/// What would help.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Remedy {
    /// A limit, as it is used now.
    #[serde(flatten)]
    pub used: LimitUse,
    /// How many times as fast it would have to be.
    pub speed: f64,
}

impl GoalProgress {
    /// The bytes of a stage.
    pub fn bytes(stage: &str, total: Option<u64>) -> Self {
        Self { stage: stage.to_owned(), is_bytes: true, total }
    }

    /// The items of a stage.
    pub fn items(stage: &str, total: Option<u64>) -> Self {
        Self { stage: stage.to_owned(), is_bytes: false, total }
    }

    fn of(&self, counts: &StageCounts) -> u64 {
        if self.is_bytes { counts.bytes } else { counts.items }
    }
}

impl RunVerdict {
    /// Whether the run will make a goal at the rate of its present phase, which is what it makes of the reading that the
    /// verdict is of. `None` if the reading has no such stage.
    ///
    /// The rate is an interval: that of the whole phase, and that of its last quarter.
    pub fn project(&self, reading: &MeterReading, goal: Goal, progress: &GoalProgress) -> Option<Projection> {
        let stage = reading.stages.iter().position(|stage| stage.name == progress.stage)?;
        let samples = reading.timeline.samples();
        let begin = self.phases.last().map_or(Duration::ZERO, |phase| phase.start);
        let first = samples.iter().position(|sample| sample.start >= begin).unwrap_or(samples.len());
        let phase = Window::of(reading, first..samples.len());
        let late = Window::of(reading, samples.len() - (samples.len() - first).div_ceil(4)..samples.len());
        let rate = |window: &Window<'_>| match window.duration().as_secs_f64() {
            seconds if seconds > 0.0 => rounded(progress.of(&window.counts(stage)) as f64 / seconds),
            _ => 0.0,
        };
        let (least_rate, most_rate) = (rate(&phase).min(rate(&late)), rate(&phase).max(rate(&late)));
        let left = progress.total.map(|total| total.saturating_sub(progress.of(&reading.stages[stage].total)) as f64);
        let needed_rate = match goal {
            Goal::Rate(rate) => Some(rate),
            Goal::Within(_) if left == Some(0.0) => Some(0.0),
            Goal::Within(within) if within.is_zero() => None,
            Goal::Within(within) => left.map(|left| rounded(left / within.as_secs_f64())),
        };
        let outlook = match (goal, needed_rate) {
            (Goal::Within(within), None) if within.is_zero() && left.is_some() => Outlook::WillMissIt,
            (_, None) => Outlook::Open,
            (_, Some(0.0)) => Outlook::WillMakeIt,
            _ if samples.len() - first < FEW => Outlook::Open,
            (_, Some(needed)) if least_rate >= needed => Outlook::WillMakeIt,
            (_, Some(needed)) if most_rate < needed => Outlook::WillMissIt,
            _ => Outlook::Open,
        };
        let help = match needed_rate {
            Some(needed) if outlook != Outlook::WillMakeIt && most_rate > 0.0 => {
                help(reading, &phase, needed / ((least_rate + most_rate) / 2.0))
            }
            _ => Vec::new(),
        };
        let left = left.filter(|left| *left == 0.0 || least_rate > 0.0);
        let left = left
            .map(|left| if left == 0.0 { (0.0, 0.0) } else { (rounded(left / most_rate), rounded(left / least_rate)) });
        let is_bytes = progress.is_bytes;
        Some(Projection { goal, is_bytes, least_rate, most_rate, needed_rate, left, outlook, help })
    }
}

/// What would be used more than all of the time if the run were so many times as fast.
fn help(reading: &MeterReading, window: &Window<'_>, speed: f64) -> Vec<Remedy> {
    if speed <= 1.0 {
        return Vec::new();
    }
    // Where it is shared, all of it: more workers help all stages that have them.
    let bound = window.bound();
    // The bottleneck waits for others now and then, and would then, too.
    let part = |used: &Use| match bound {
        Some(bound) if bound.key == used.key => 1.0,
        Some(bound) => used.most / bound.most,
        None => used.most,
    };
    let is_cause =
        |used: &&Use| !matches!(used.key, Key::Budget(_)) || bound.is_some_and(|bound| bound.key == used.key);
    let uses = window.uses.iter().filter(is_cause).map(|used| (used, part(used) * speed));
    let mut help: Vec<Remedy> = uses
        .filter(|(_, speed)| *speed > 1.0)
        .map(|(used, speed)| Remedy { used: used.describe(reading), speed: rounded(speed) })
        .collect();
    help.sort_by(|a, b| b.speed.total_cmp(&a.speed));
    help
}
