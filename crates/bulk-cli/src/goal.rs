//! Whether a run is fast enough: looked at while it goes on, and in the end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bulk_core::{Goal, GoalProgress, MeterReading, Outlook, Projection, Remedy, RunVerdict};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::arguments::{Command, GoalArguments};
use crate::report::{Report, size};

/// How often it is looked at. What two looks say is evidence.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Another answer than the last one that was said is not said for so long.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// What a run is to do in time, and how far it is.
#[derive(Clone)]
pub(crate) struct RunGoal {
    arguments: GoalArguments,
    counted: Counted,
    begun: Timestamp,
    /// The last one that there was.
    projection: Arc<Mutex<Option<Projection>>>,
}

/// What counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    /// The stage whose bytes do, and the one whose items do.
    bytes: &'static str,
    items: &'static str,
    left: Left,
}

/// What tells how much is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// The sizes of what is fetched.
    Fetch,
    /// The part of the files that is read.
    Read,
    /// The part of the records that is asked for.
    AskedFor,
    /// Nothing.
    Unknown,
}

impl RunGoal {
    /// That of a command, if it was given one.
    pub(crate) fn new(command: &Command) -> Option<Self> {
        let (arguments, bytes, items, left) = match command {
            Command::Mirror(mirror) => (&mirror.goal, "copy", "copy", Left::Read),
            Command::Load(load) => (&load.goal, "copy", "copy", Left::Read),
            Command::Fetch(fetch) => (&fetch.goal, "fetch", "finish", Left::Fetch),
            Command::Sync(sync) => (&sync.goal, "fetch", "store", Left::Unknown),
            // Bytes that were read are of the records that are known to be done.
            Command::Crawl(crawl) if crawl.goal.finish_by.is_some() => {
                (&crawl.goal, "explode", "explode", Left::AskedFor)
            }
            Command::Crawl(crawl) => (&crawl.goal, "fetch", "fetch", Left::Unknown),
            Command::Export(export) => (&export.goal, "compress", "stage", Left::Unknown),
            _ => return None,
        };
        let (counted, begun) = (Counted { bytes, items, left }, Timestamp::now());
        arguments.goal(begun)?;
        Some(Self { arguments: arguments.clone(), counted, begun, projection: Arc::default() })
    }

    /// Says whether the run will make it as soon as that can be told, and again where that changes, until it is dropped.
    pub(crate) fn watch(&self, report: &Report) -> GoalWatch {
        let (goal, report) = (self.clone(), report.clone());
        let task = tokio::spawn(async move {
            let (mut before, mut said) = (Outlook::Open, None);
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let Some(projection) = goal.look(&report) else { continue };
                let outlook = projection.outlook;
                let is_certain = outlook != Outlook::Open && outlook == before;
                before = outlook;
                let is_news =
                    said.is_none_or(|(last, at): (Outlook, Instant)| last != outlook && at.elapsed() >= SAY_EVERY);
                if is_certain && is_news {
                    said = Some((outlook, Instant::now()));
                    report.event("goal", &projection.to_string(), fields(&projection, false));
                }
            }
        });
        GoalWatch { _task: AbortOnDropHandle::new(task) }
    }

    /// How it does of late.
    fn look(&self, report: &Report) -> Option<Projection> {
        let reading = report.meters().recent()?;
        let stage = if self.arguments.is_of_bytes() { self.counted.bytes } else { self.counted.items };
        let done = reading.stages.iter().find(|found| found.name == stage)?.total;
        let done = if self.arguments.is_of_bytes() { done.bytes } else { done.items };
        if done == 0 {
            return None;
        }
        let left = match self.counted.left {
            Left::Fetch if self.arguments.is_of_bytes() => report.totals().left_to_fetch(),
            Left::Read => report.totals().read_part().map(|part| (done as f64 * (1.0 / part - 1.0)) as u64),
            Left::AskedFor => report.totals().records_left().map(|left| (done as f64 * left) as u64),
            Left::Fetch | Left::Unknown => None,
        };
        let total = left.map(|left| done.saturating_add(left));
        let progress = match self.arguments.is_of_bytes() {
            true => GoalProgress::bytes(stage, total),
            false => GoalProgress::items(stage, total),
        };
        let goal = self.arguments.goal(Timestamp::now())?;
        let projection = RunVerdict::of(&reading).project(&reading, goal, &progress)?;
        *self.projection.lock().unwrap_or_else(PoisonError::into_inner) = Some(projection.clone());
        Some(projection)
    }

    /// Says how a run came out that is over.
    pub(crate) fn end(&self, reading: &MeterReading, report: &Report) -> Option<Projection> {
        let now = Timestamp::now();
        let is_bytes = self.arguments.is_of_bytes();
        let stage = if is_bytes { self.counted.bytes } else { self.counted.items };
        let total =
            reading.stages.iter().find(|found| found.name == stage).map(|stage| stage.total).unwrap_or_default();
        let done = if is_bytes { total.bytes } else { total.items };
        if done == 0 {
            report.note("whether it was fast enough cannot be told: nothing was done that counts");
            return None;
        }
        let progress =
            if is_bytes { GoalProgress::bytes(stage, Some(done)) } else { GoalProgress::items(stage, Some(done)) };
        let goal = self.arguments.goal(self.begun)?;
        let took = reading.timeline.end();
        let mut projection = RunVerdict::of(reading).project(reading, goal, &progress)?;
        let rate = done as f64 / took.as_secs_f64().max(f64::MIN_POSITIVE);
        let (is_made, text) = match goal {
            Goal::Rate(needed) => {
                let said =
                    |rate: f64| if is_bytes { format!("{}/s", size(rate as u64)) } else { format!("{rate:.1}/s") };
                (
                    rate >= needed,
                    format!("{} over the whole run, of the {} that were asked for", said(rate), said(needed)),
                )
            }
            _ => {
                let at = self.arguments.finish_by?;
                let off = seconds(now.duration_since(at).abs().try_into().unwrap_or_default());
                match now <= at {
                    true => (true, format!("{off} before the time that was asked for")),
                    false => (false, format!("{off} behind the time that was asked for")),
                }
            }
        };
        (projection.least_rate, projection.most_rate) = (rate, rate);
        projection.outlook = if is_made { Outlook::WillMakeIt } else { Outlook::WillMissIt };
        // How many times as fast it would have to have been.
        let lacks = match goal {
            Goal::Rate(needed) => needed / rate,
            _ => {
                let allowed: Duration =
                    self.arguments.finish_by?.duration_since(self.begun).try_into().unwrap_or_default();
                took.as_secs_f64() / allowed.as_secs_f64().max(f64::MIN_POSITIVE)
            }
        };
        // What would have helped is what was seen while there was work.
        let last = self.projection.lock().unwrap_or_else(PoisonError::into_inner).take();
        projection.help = last.filter(|_| !is_made).map(|last| helps(last, lacks)).unwrap_or_default();
        let helped = projection.help.first().map(|help| {
            let (limit, speed) = (&help.used.limit, help.speed);
            format!(" It would have made it with {speed:.1} times the speed of {limit}.")
        });
        let verdict = if is_made { "Good enough" } else { "Too slow" };
        let text = format!("{verdict}: {text}.{}", helped.unwrap_or_default());
        report.event("goal", &text, fields(&projection, true));
        Some(projection)
    }
}

/// What would have helped a run that had to be so many times as fast: what was seen to help at one time, by how fast it was then.
fn helps(seen: Projection, lacks: f64) -> Vec<Remedy> {
    let lacked = seen.needed_rate.unwrap_or_default() / ((seen.least_rate + seen.most_rate) / 2.0);
    if !lacked.is_normal() {
        return Vec::new();
    }
    let mut help = seen.help;
    help.iter_mut().for_each(|remedy| remedy.speed = (remedy.speed / lacked * lacks * 1e6).round() / 1e6);
    help.retain(|remedy| remedy.speed > 1.0);
    help
}

/// A span, as people read it.
fn seconds(span: Duration) -> String {
    match span.as_secs() {
        0..120 => format!("{:.1} s", span.as_secs_f64()),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// It is plain data.
fn fields(projection: &Projection, is_over: bool) -> Value {
    let mut fields = serde_json::to_value(projection).unwrap_or_else(|_| json!({}));
    fields["over"] = is_over.into();
    fields
}

/// Looks until it is dropped.
pub(crate) struct GoalWatch {
    _task: AbortOnDropHandle<()>,
}
