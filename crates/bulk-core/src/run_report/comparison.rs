//! Two runs beside each other.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::RunReport;
use super::text::Table;
use crate::meter::{StageReading, fraction};
use crate::verdict::{LimitUse, percent, span};

/// What differs between two runs, the earlier one first.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RunComparison {
    /// Their commands.
    pub commands: (String, String),
    /// How long they took, in seconds.
    pub seconds: (f64, f64),
    /// What bound them.
    pub bottlenecks: (Option<LimitUse>, Option<LimitUse>),
    /// Their stages: those of the earlier run in its order, then those that only the later one has.
    pub stages: Vec<StageComparison>,
}

/// What a stage cost in two runs; `None` in the one that does not have it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StageComparison {
    /// Its name.
    pub name: String,
    /// In the earlier run.
    pub before: Option<StageCost>,
    /// In the later one.
    pub after: Option<StageCost>,
}

/// What a stage cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StageCost {
    /// The most workers that it had at once.
    pub workers: usize,
    /// Seconds that its workers were busy.
    pub busy: f64,
    /// The part of its workers' time that this is.
    pub share: f64,
    /// Seconds that they were on a CPU.
    pub on_cpu: f64,
    /// Items that it did.
    pub items: u64,
    /// Bytes of them.
    pub bytes: u64,
}

impl RunComparison {
    pub(super) fn of<'a>(before: &'a RunReport, after: &'a RunReport) -> Self {
        let bottleneck = |report: &RunReport| {
            report
                .verdict
                .as_ref()
                .and_then(|verdict| verdict.bottleneck.as_ref())
                .map(|bottleneck| bottleneck.used.clone())
        };
        let names = |report: &'a RunReport| report.meters.stages.iter().map(|stage| stage.name.as_str());
        let find = |report: &RunReport, name: &str| {
            report.meters.stages.iter().find(|stage| stage.name == name).map(StageCost::of)
        };
        let later_alone = names(after).filter(|name| !names(before).any(|other| other == *name));
        let stages = names(before).chain(later_alone).map(|name| StageComparison {
            name: name.to_owned(),
            before: find(before, name),
            after: find(after, name),
        });
        Self {
            commands: (before.command.clone(), after.command.clone()),
            seconds: (before.elapsed.as_secs_f64(), after.elapsed.as_secs_f64()),
            bottlenecks: (bottleneck(before), bottleneck(after)),
            stages: stages.collect(),
        }
    }
}

impl StageCost {
    fn of(stage: &StageReading) -> Self {
        let StageReading { total, workers, .. } = stage;
        Self {
            workers: workers.len(),
            busy: total.busy().as_secs_f64(),
            share: fraction(total.busy(), total.time()),
            on_cpu: total.on_cpu.as_secs_f64(),
            items: total.items,
            bytes: total.bytes,
        }
    }

    /// Busy time for the work that was done, in a unit that both runs have.
    fn per(&self, unit: Unit) -> Option<f64> {
        let done = match unit {
            Unit::Bytes => self.bytes,
            Unit::Items => self.items,
        };
        (done > 0).then(|| self.busy / done as f64)
    }
}

#[derive(Clone, Copy)]
enum Unit {
    Bytes,
    Items,
}

/// Lines of text, the last one without an end.
impl fmt::Display for RunComparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { commands, seconds: (before, after), bottlenecks, stages } = self;
        let time = |seconds: &f64| span(Duration::try_from_secs_f64(*seconds).unwrap_or_default());
        write!(f, "bulk {} took {}, and bulk {} took {}", commands.0, time(before), commands.1, time(after))?;
        if *before > 0.0 {
            write!(f, ": {:.2} of its time", after / before)?;
        }
        let bound = |used: &Option<LimitUse>| match used {
            Some(used) => format!("{} ({}, {})", used.limit, used.resource, percent(used.utilisation)),
            None => "nothing".to_owned(),
        };
        write!(f, ".\nThe first was bound by {}, the second by {}.", bound(&bottlenecks.0), bound(&bottlenecks.1))?;
        if stages.is_empty() {
            return Ok(());
        }
        let head = ["stage", "workers", "busy", "busy seconds", "on CPU seconds", "cost of the same work"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for StageComparison { name, before, after } in stages {
            let both = |of: &dyn Fn(&StageCost) -> String| {
                let side = |cost: &Option<StageCost>| cost.as_ref().map_or("none".to_owned(), of);
                format!("{} -> {}", side(before), side(after))
            };
            let cost = before.zip(after.as_ref().copied()).and_then(|(before, after)| {
                let ratio = |unit| Some((after.per(unit)?, before.per(unit)?)).filter(|(_, before)| *before > 0.0);
                ratio(Unit::Bytes).or_else(|| ratio(Unit::Items)).map(|(after, before)| after / before)
            });
            rows.push(vec![
                name.clone(),
                both(&|cost| cost.workers.to_string()),
                both(&|cost| percent(cost.share)),
                both(&|cost| format!("{:.1}", cost.busy)),
                both(&|cost| format!("{:.1}", cost.on_cpu)),
                cost.map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
            ]);
        }
        write!(f, "\n\n{}", Table(&rows))
    }
}
