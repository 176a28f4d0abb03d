//! `bulk crawl`: an API asked for each record of an input, and its answers as rows.

mod api;
mod dry_run;
mod input;
mod known;
mod run;
mod spec;
mod status;

use std::io::{self, Write};
use std::sync::Arc;

use bulk_core::crawl::Watermark;
use bulk_core::{Algorithm, Digest, RejectReport};
use bulk_pg::{CrawlJob, CrawlLoad, CrawlLoadOptions, write_call_rejects};
use jiff::Timestamp;
use serde_json::{Value, json};

use self::api::Api;
use self::input::Records;
use self::run::{End, Run};
use self::spec::Spec;
use crate::arguments::{Common, CrawlArguments};
use crate::exit::{Exit, Failure};
use crate::meters::ServerStage;
use crate::rejects::RejectFiles;
use crate::report::Report;
use crate::server_watch::ServerWatch;

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
            let records = Records::open(&spec.input, &api, &arguments.database, common, report).await?;
            records.check(&spec.input, &api).await?;
        }
        report.event("checked", "the spec fits the database", json!({"job": spec.name}));
        return Ok(Exit::Done);
    }
    let rejects =
        arguments.rejects.as_deref().map(|folder| RejectFiles::of_spec(folder, &arguments.spec)).transpose()?;
    let mut options = CrawlLoadOptions::default();
    options.max_rejects = arguments.max_rejects;
    options.max_quarantined = arguments.max_quarantined;
    options.allow_empty = arguments.allow_empty;
    options.restart = arguments.restart;
    options.batch_bytes = usize::try_from(spec.batch_bytes()).unwrap_or(usize::MAX);
    options.call_bytes = usize::try_from(spec.memory).unwrap_or(usize::MAX);
    options.stop = common.stop.clone();
    let observer = report.clone();
    options.observer = Arc::new(move |event: &bulk_pg::Event<'_>| observer.on_load(event));
    if let Some(since) = &spec.since {
        options.next_watermark = Watermark::begin(None, since.slack).end(true).map(|next| next.to_string());
    }
    let mut run = Run::new(&spec, arguments, report);
    let _watch = ServerWatch::start(&arguments.database, std::slice::from_ref(&session), report);
    let beginning = CrawlLoad::begin(session, &job, options);
    let mut load = report.meters().on_server(ServerStage::Prepare, beginning).await?;
    let since = since(&spec, load.watermark())?;
    if let Some(since) = &since {
        report.note(format!("what has changed since {since} is asked for"));
    }
    let ended = match load.is_published() {
        true => Ok(End::Whole),
        false => {
            let api = Api::open(arguments, &spec, since, common, report)?;
            run.crawl(arguments, &api, common, &mut load).await
        }
    };
    let ended = end(ended, load, &run, report).await;
    let written = match &rejects {
        Some(files) => write_rejects(arguments, &spec, files, report).await,
        None => Ok(()),
    };
    let noted = if report.is_kept() { note_rejects(arguments, &spec, report).await } else { Ok(()) };
    // The first failure is the one that counts.
    ended.and_then(|exit| written.and(noted).map(|()| exit))
}

/// Ends the round, or this run of it.
async fn end(ended: Result<End, Failure>, load: CrawlLoad, run: &Run<'_>, report: &Report) -> Result<Exit, Failure> {
    match ended {
        Ok(End::Whole) => {
            let outcome = report.meters().on_server(ServerStage::Publish, load.finish()).await?;
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

/// Writes the rows that were left out to the folder that was asked for.
async fn write_rejects(
    arguments: &CrawlArguments,
    spec: &Spec,
    files: &RejectFiles,
    report: &Report,
) -> Result<(), Failure> {
    let session = arguments.database.connect().await?;
    files.write_calls(&session, &spec.name, &arguments.spec, report).await
}

/// Notes the rows that were left out for `--report`.
async fn note_rejects(arguments: &CrawlArguments, spec: &Spec, report: &Report) -> Result<(), Failure> {
    let session = arguments.database.connect().await?;
    write_call_rejects(&session, &spec.name, &mut RejectNotes { report, line: Vec::new() }).await?;
    Ok(())
}

/// Takes lines of rejects.
struct RejectNotes<'a> {
    report: &'a Report,
    line: Vec<u8>,
}

impl RejectNotes<'_> {
    fn note(&mut self) {
        // They come from this program.
        let Ok(line) = serde_json::from_slice::<Value>(&self.line) else { return };
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let mut reject = RejectReport::default();
        reject.file = format!("{}, {}", text("table"), text("call"));
        reject.record = line["row"].as_u64().unwrap_or_default();
        reject.column = line["column"].as_str().map(ToOwned::to_owned);
        reject.reason = text("message");
        self.report.reject(reject);
        self.line.clear();
    }
}

impl Write for RejectNotes<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.note();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
