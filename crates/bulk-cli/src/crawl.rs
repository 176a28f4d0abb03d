//! `bulk crawl`: an API asked for each record of an input, and its answers as rows.

mod api;
mod dry_run;
mod input;
mod known;
mod run;
mod spec;

use std::path::Path;

use bulk_core::crawl::Watermark;
use bulk_core::{Algorithm, Digest};
use bulk_pg::{CrawlJob, CrawlLoad, CrawlLoadOptions, write_call_rejects};
use jiff::Timestamp;
use serde_json::json;

use self::api::Api;
use self::input::Records;
use self::run::{End, Run};
use self::spec::Spec;
use crate::arguments::{Common, CrawlArguments};
use crate::exit::{Exit, Failure};
use crate::rejects::Staged;
use crate::report::Report;

pub(crate) async fn run(arguments: &CrawlArguments, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let spec = Spec::read(&arguments.spec)?;
    let job = job(&spec);
    let session = arguments.database.connect().await?;
    if arguments.check || common.dry_run {
        job.check_tables(&session).await?;
        let watermark = if arguments.restart { None } else { job.watermark(&session).await? };
        let api = Api::open(arguments, &spec, since(&spec, watermark.as_deref())?, common, report)?;
        api.check()?;
        if common.dry_run {
            return dry_run::show(arguments, &spec, &api, common, report).await;
        }
        // What is piped in may come later.
        if !spec.input.is_stdin() {
            drop(Records::open(&spec.input, &api, &arguments.database, common, report).await?);
        }
        report.event("checked", "the spec fits the database", json!({"job": spec.name}));
        return Ok(Exit::Done);
    }
    let mut options = CrawlLoadOptions::default();
    options.max_rejects = arguments.max_rejects;
    options.max_quarantined = arguments.max_quarantined;
    options.allow_empty = arguments.allow_empty;
    options.restart = arguments.restart;
    options.stop = common.stop.clone();
    if let Some(since) = &spec.since {
        options.next_watermark = Watermark::begin(None, since.slack).end(true).map(|next| next.to_string());
    }
    let mut load = CrawlLoad::begin(session, &job, options).await?;
    let since = since(&spec, load.watermark())?;
    if let Some(since) = &since {
        report.note(format!("what has changed since {since} is asked for"));
    }
    let mut run = Run::new(&spec, arguments, report);
    let ended = match load.is_published() {
        true => Ok(End::Whole),
        false => {
            let api = Api::open(arguments, &spec, since, common, report)?;
            run.crawl(arguments, &api, common, &mut load).await
        }
    };
    let ended = end(ended, load, &run).await;
    let written = match &arguments.rejects {
        Some(file) => write_rejects(arguments, &spec, file, report).await,
        None => Ok(()),
    };
    // The first failure is the one that counts.
    ended.and_then(|exit| written.map(|()| exit))
}

/// Ends the round, or this run of it.
async fn end(ended: Result<End, Failure>, load: CrawlLoad, run: &Run<'_>) -> Result<Exit, Failure> {
    match ended {
        Ok(End::Whole) => {
            let outcome = load.finish().await?;
            Ok(run.say_end(&outcome))
        }
        Ok(end) => {
            let outcome = load.suspend().await?;
            let exit = run.say_end(&outcome);
            Ok(if matches!(end, End::Stopped) { Exit::Interrupted } else { exit })
        }
        Err(failure) => {
            // What has come is kept, if the database still takes it; the first failure is the one that counts.
            if let Ok(outcome) = load.suspend().await {
                run.say_end(&outcome);
            }
            Err(failure)
        }
    }
}

/// Writes the rows that were left out of the round, a line of JSON each. Without any, nothing stays of an earlier run.
async fn write_rejects(arguments: &CrawlArguments, spec: &Spec, path: &Path, report: &Report) -> Result<(), Failure> {
    let session = arguments.database.connect().await?;
    let mut file = Staged::create(path.to_owned())?;
    let count = write_call_rejects(&session, &spec.name, &mut file.writer).await?;
    if count == 0 {
        return file.discard();
    }
    file.keep()?;
    let path = path.display().to_string();
    report.event("rejects", &format!("{path}: {count} rows"), json!({"file": path, "rows": count}));
    Ok(())
}

/// What the loader is told of the spec.
fn job(spec: &Spec) -> CrawlJob {
    let deletes = spec.deletes.iter().map(|deletes| &deletes.rows);
    let tables = spec.rows.iter().chain(deletes).map(|rows| rows.table.clone());
    let mut job = CrawlJob::new(&spec.name, tables.collect());
    job.definition = Digest::of(Algorithm::Sha256, spec.definition.as_bytes()).to_string();
    job.after.clone_from(&spec.after);
    job
}

/// From when on changes are asked for, as the spec writes it, where the last whole round left this watermark.
fn since(spec: &Spec, watermark: Option<&str>) -> Result<Option<String>, Failure> {
    let Some(since) = &spec.since else { return Ok(None) };
    let watermark: Option<Timestamp> = match watermark.map(str::parse).transpose() {
        Ok(watermark) => watermark,
        Err(error) => {
            let what = format!("the watermark of {} in bulk.crawl is no time: {error}", spec.name);
            return Err(Failure::new(Exit::Failed, anyhow::anyhow!(what)));
        }
    };
    Ok(Some(since.text(watermark)))
}
