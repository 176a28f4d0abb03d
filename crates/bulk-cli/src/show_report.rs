//! `bulk report`: what a run has written of itself, for people.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use bulk_core::RunReport;
use serde_json::json;

use crate::arguments::{Common, ReportArguments};
use crate::exit::{Exit, Failure};
use crate::new_file::NewFile;
use crate::report::Report;

/// No report is larger: its lists are bounded.
const MAX_SIZE: u64 = 256 << 20;

pub(crate) fn run(arguments: &ReportArguments, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let run = read(&arguments.run)?;
    if let Some(path) = &arguments.later {
        let later = read(path)?;
        let comparison = run.compare(&later);
        report.answer("comparison", &comparison.to_string(), json!({"comparison": comparison}));
        return Ok(Exit::Done);
    }
    let Some(path) = &arguments.html else {
        report.answer("report", &run.to_string(), json!({"report": run}));
        return Ok(Exit::Done);
    };
    let shown = path.display().to_string();
    if common.dry_run {
        report.planned(&format!("would write {shown}"), json!({"file": shown}));
        return Ok(Exit::Done);
    }
    let page = run.to_html();
    let written = NewFile::write(path, page.as_bytes());
    written.with_context(|| format!("cannot write {shown}")).map_err(|error| Failure::new(Exit::Failed, error))?;
    report.event("written", &format!("{shown} is written"), json!({"file": shown, "bytes": page.len()}));
    Ok(Exit::Done)
}

fn read(path: &Path) -> Result<RunReport, Failure> {
    let read = || {
        let mut json = Vec::new();
        File::open(path)?.take(MAX_SIZE + 1).read_to_end(&mut json).map(|_| json)
    };
    let json = read().with_context(|| format!("cannot read {}", path.display()));
    let json = json.map_err(|error| Failure::new(Exit::Failed, error))?;
    let run = if json.len() as u64 > MAX_SIZE {
        Err(anyhow::anyhow!("it is not a run's report: it is larger than any of them"))
    } else {
        RunReport::parse(&json).map_err(anyhow::Error::from)
    };
    run.with_context(|| path.display().to_string()).map_err(|error| Failure::new(Exit::Failed, error))
}
