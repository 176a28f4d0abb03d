use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bulk_core::{FileReport, MeterReading, Projection, RejectReport, RunReport, RunVerdict};
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::new_file::NewFile;

/// So many events are kept, the last ones; those before are counted.
const MAX_EVENTS: usize = 10_000;

/// The run, for the file of `--report`.
pub(crate) struct Record {
    path: PathBuf,
    begun: Instant,
    kept: Mutex<Kept>,
}

struct Kept {
    report: RunReport,
    events: VecDeque<Value>,
}

impl Record {
    pub(crate) fn create(path: &Path, command: &str) -> Result<Self, Failure> {
        // What is made is gone at once: it says whether there can be one.
        NewFile::create(path)
            .map_err(|error| Failure::usage(format!("cannot write the report {}: {error}", path.display())))?;
        let report = RunReport::unmetered(command);
        Ok(Self {
            path: path.to_owned(),
            begun: Instant::now(),
            kept: Mutex::new(Kept { report, events: VecDeque::new() }),
        })
    }

    pub(crate) fn add(&self, event: &Value) {
        let mut kept = self.kept();
        if kept.events.len() == MAX_EVENTS {
            kept.events.pop_front();
            kept.report.events_left_out += 1;
        }
        kept.events.push_back(event.clone());
    }

    pub(crate) fn add_file(&self, file: FileReport) {
        self.kept().report.add_file(file);
    }

    pub(crate) fn add_reject(&self, reject: RejectReport) {
        self.kept().report.add_reject(reject);
    }

    pub(crate) fn leave_out_rejects(&self, rejects: u64) {
        self.kept().report.rejects_left_out += rejects;
    }

    /// Writes the file. What had that name is replaced at once, never in part.
    pub(crate) fn write(
        &self,
        exit: Exit,
        reading: Option<MeterReading>,
        projection: Option<Projection>,
    ) -> Result<(), Failure> {
        let failed = |error: std::io::Error| {
            let path = self.path.display();
            Failure::new(Exit::Failed, anyhow::anyhow!("cannot write the report {path}: {error}"))
        };
        let kept = self.kept();
        let mut report = kept.report.clone();
        report.events.extend(kept.events.iter().cloned());
        report.exit = exit as u8;
        report.elapsed = self.begun.elapsed();
        report.projection = projection;
        if let Some(reading) = reading {
            report.verdict = Some(RunVerdict::of(&reading));
            report.meters = reading;
        }
        let mut text = serde_json::to_vec(&report).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        NewFile::write(&self.path, &text).map_err(failed)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
