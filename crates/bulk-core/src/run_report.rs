//! The report of a run: what it did, what bound it, and what it left out.

mod comparison;
#[cfg(feature = "html")]
mod html;
mod text;

use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

pub use comparison::{RunComparison, StageComparison, StageCost};

use crate::Error;
use crate::meter::{MeterReading, Timeline, seconds};
use crate::verdict::{Projection, RunVerdict};

/// So many files are kept, the first ones; others are counted.
const MAX_FILES: usize = 10_000;

/// So many rejects are kept, the first ones; others are counted.
const MAX_REJECTS: usize = 1_000;

/// So many bytes of a reason are kept.
const MAX_REASON: usize = 1_000;

/// A run, as `run.json` has it.
///
/// It is one JSON object, with the names of these fields as keys; times are seconds, but for `started`, which is RFC 3339.
/// What is empty or not known may be missing, but for `events` and `events_left_out`, and a reader ignores keys that it does not know. [`schema`](Self::schema) is
/// 1: it grows when a key changes its meaning or goes, and not when one is added, nor a word that one may have: such a word is
/// read as one for what is not known, and a verdict or projection that makes no sense here as none. A file without it is of an earlier
/// version of the program, which wrote no meters: its other keys mean the same.
///
/// ```
/// use bulk_core::{Meters, RunReport};
///
/// let meters = Meters::new();
/// let report = RunReport::new("load", &meters.reading());
/// let json = serde_json::to_vec(&report)?;
/// assert_eq!(RunReport::parse(&json)?, report);
/// println!("{report}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunReport {
    /// The version of this format.
    #[serde(default)]
    pub schema: u32,
    /// The version of the program.
    #[serde(rename = "bulk")]
    pub version: String,
    /// The command, such as "mirror".
    pub command: String,
    /// When it began.
    pub started: Timestamp,
    /// How long it took. In JSON `seconds`.
    #[serde(rename = "seconds", with = "seconds")]
    pub elapsed: Duration,
    /// Its exit status.
    pub exit: u8,
    /// What bound it.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub verdict: Option<RunVerdict>,
    /// How it did compared with a goal, if it had one.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub projection: Option<Projection>,
    /// What its stages did, and when.
    #[serde(default = "nothing", skip_serializing_if = "is_nothing")]
    pub meters: MeterReading,
    /// The files, in the order in which they were done; of an API, its calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileReport>,
    /// How many more files there were.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub files_left_out: u64,
    /// Records that were left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejects: Vec<RejectReport>,
    /// How many more records were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rejects_left_out: u64,
    /// What was said while it ran, as the program's `--json` has it.
    #[serde(default)]
    pub events: Vec<Value>,
    /// How many earlier events are missing.
    #[serde(default)]
    pub events_left_out: u64,
}

/// What became of a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FileReport {
    /// Its name.
    pub name: String,
    /// Where its records went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Its bytes, as they were fetched or read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Its records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
    /// Records that were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rejected: u64,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A record that was left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RejectReport {
    /// Of which file, or call.
    pub file: String,
    /// Its number, from 1.
    pub record: u64,
    /// Where it begins in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub byte: Option<u64>,
    /// Its column that is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Why.
    pub reason: String,
}

impl RunReport {
    /// The version of the format that this library writes.
    pub const SCHEMA: u32 = 1;

    /// A run that began when its meters did and ends now, with the verdict on what they say.
    pub fn new(command: &str, reading: &MeterReading) -> Self {
        let (elapsed, mut report) = (reading.timeline.end(), Self::unmetered(command));
        // Only a run of tens of thousands of years does not fit.
        report.started = report.started.checked_sub(elapsed).unwrap_or(report.started);
        report.elapsed = elapsed;
        report.verdict = Some(RunVerdict::of(reading));
        report.meters = reading.clone();
        report
    }

    /// A run that begins now, and of which no meters tell.
    pub fn unmetered(command: &str) -> Self {
        Self {
            schema: Self::SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: command.to_owned(),
            started: Timestamp::now(),
            elapsed: Duration::ZERO,
            exit: 0,
            verdict: None,
            projection: None,
            meters: nothing(),
            files: Vec::new(),
            files_left_out: 0,
            rejects: Vec::new(),
            rejects_left_out: 0,
            events: Vec::new(),
            events_left_out: 0,
        }
    }

    /// Reads what was written as JSON.
    ///
    /// # Errors
    ///
    /// [`Error::Report`], if it is none, or one of a later schema.
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Version {
            #[serde(default)]
            schema: u32,
        }
        let bad = |error: serde_json::Error| Error::Report { what: error.to_string() };
        // First, since a later schema may have anything in its other keys.
        let Version { schema } = serde_json::from_slice(json).map_err(bad)?;
        if schema > Self::SCHEMA {
            let what = format!("its schema is {schema}, and {} is the latest that is known here", Self::SCHEMA);
            return Err(Error::Report { what });
        }
        serde_json::from_slice(json).map_err(bad)
    }

    /// Notes a file, or counts it where 10,000 are noted. Why it failed is cut behind 1,000 bytes.
    pub fn add_file(&mut self, file: FileReport) {
        if self.files.len() < MAX_FILES {
            let error = file.error.map(bounded);
            self.files.push(FileReport { error, ..file });
        } else {
            self.files_left_out = self.files_left_out.saturating_add(1);
        }
    }

    /// Notes a record that was left out, or counts it where 1,000 are noted. Why is cut behind 1,000 bytes.
    pub fn add_reject(&mut self, reject: RejectReport) {
        if self.rejects.len() < MAX_REJECTS {
            self.rejects.push(RejectReport { reason: bounded(reject.reason), ..reject });
        } else {
            self.rejects_left_out = self.rejects_left_out.saturating_add(1);
        }
    }

    /// What differs between this run and a later one.
    pub fn compare<'a>(&'a self, later: &'a Self) -> RunComparison {
        RunComparison::of(self, later)
    }

    /// One page of HTML that needs nothing else: no network, no script.
    #[cfg(feature = "html")]
    pub fn to_html(&self) -> String {
        html::page(self)
    }
}

/// A reason may quote a value of a record, whose length nobody knows.
fn bounded(mut reason: String) -> String {
    if reason.len() > MAX_REASON {
        let end = (0..=MAX_REASON).rev().find(|&end| reason.is_char_boundary(end)).unwrap_or_default();
        reason.truncate(end);
        reason.shrink_to_fit();
        reason.push('\u{2026}');
    }
    reason
}

/// `None` if it is nothing that this version knows.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

fn nothing() -> MeterReading {
    MeterReading::new(Vec::new(), Timeline::new(Timeline::SAMPLES))
}

fn is_nothing(reading: &MeterReading) -> bool {
    reading.stages.is_empty() && reading.timeline.samples().is_empty()
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
