//! The `bulk` program: arguments, wiring, reports and exit codes. Everything an embedder would want is in the libraries.

mod arguments;
mod blocking;
mod config;
mod counted;
mod crawl;
mod dataset;
mod demo;
mod diff;
mod doctor;
mod exit;
mod export;
mod fetch;
mod goal;
mod headway;
mod inferred;
mod inputs;
mod kept;
mod keys;
mod known;
mod list;
mod load;
mod malloc;
mod manual;
mod meters;
mod metrics;
mod mirror;
mod new_file;
mod order;
mod output;
mod plain;
mod progress;
mod record;
mod rejects;
mod report;
mod selection;
mod server_watch;
mod show_report;
mod source;
mod store;
mod sync;

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use crate::arguments::{Arguments, Command};
use crate::exit::{Exit, Failure};
use crate::goal::RunGoal;
use crate::metrics::MetricsServer;
use crate::record::Record;
use crate::report::Report;

fn main() -> ExitCode {
    malloc::limit_arenas();
    let arguments = match config::arguments() {
        Ok(arguments) => arguments,
        Err(failure) => {
            Report::new(false, false, false).failure(&failure);
            return failure.exit.into();
        }
    };
    let report = Report::new(arguments.common.json, arguments.common.quiet, arguments.common.verbose);
    let sampling = report.meters().start_sampling();
    let goal = RunGoal::new(&arguments.command);
    let result = execute(&arguments, goal.as_ref(), &report);
    drop(sampling);
    // What is said of the run and what is written are of the same time.
    let reading = report.meters().reading();
    let mut projection = None;
    let mut exit = match result {
        Ok(exit) => {
            if let Some(reading) = &reading {
                report.verdict(reading);
                // What was stopped has no end that could be compared with anything.
                projection = goal.filter(|_| exit != Exit::Interrupted).and_then(|goal| goal.end(reading, &report));
            }
            exit
        }
        Err(failure) => {
            report.failure(&failure);
            failure.exit
        }
    };
    if exit == Exit::Interrupted {
        report.note(format!("interrupted; {}", arguments.command.after_stop(report.totals().records())));
    }
    if let Err(failure) = report.write_record(exit, reading, projection) {
        report.failure(&failure);
        exit = exit.max(failure.exit);
    }
    exit.into()
}

fn execute(arguments: &Arguments, goal: Option<&RunGoal>, report: &Report) -> Result<Exit, Failure> {
    if let Some(path) = &arguments.common.report {
        if matches!(arguments.command, Command::Report(_)) {
            return Err(Failure::usage(
                "--report: `bulk report` shows what other commands have written, and writes none",
            ));
        }
        report.keep(Record::create(path, arguments.command.name())?);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, error))?;
    let result = runtime.block_on(async {
        let _metrics = serve_metrics(arguments, report)?;
        let _goal = goal.map(|goal| goal.watch(report));
        tokio::select! {
            result = run(arguments, report) => result,
            () = interrupted(arguments.command.when_stopped(), &arguments.common.stop, report) => Ok(Exit::Interrupted),
        }
    });
    // What still runs is rolled back or kept for the next run; nothing is waited for.
    runtime.shutdown_background();
    result
}

fn serve_metrics(arguments: &Arguments, report: &Report) -> Result<Option<MetricsServer>, Failure> {
    let (name, is_said) = (arguments.command.name(), arguments.common.is_metrics_said);
    let Some(address) = arguments.common.metrics else { return Ok(None) };
    if !arguments.command.is_metered() {
        return match is_said {
            true => Err(Failure::usage(format!("--metrics: `bulk {name}` does nothing that is metered"))),
            false => Ok(None),
        };
    }
    let (server, address) = match MetricsServer::start(address, name, report.meters()) {
        Ok(started) => started,
        Err(failure) if is_said => return Err(failure),
        // It is set for all runs, of which another one may be under way.
        Err(failure) => {
            report.warn(format!("{:#}; the run goes on without", failure.error));
            return Ok(None);
        }
    };
    let url = format!("http://{address}/metrics");
    report.event("metrics", &format!("metrics are at {url}"), serde_json::json!({"url": url}));
    Ok(Some(server))
}

async fn run(arguments: &Arguments, report: &Report) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::Mirror(mirror) => mirror::run(mirror, &arguments.common, report).await,
        Command::Fetch(fetch) => fetch::run(fetch, &arguments.common, report).await,
        Command::Load(load) => load::run(load, &arguments.common, report).await,
        Command::List(list) => list::run(list, &arguments.common, report).await,
        Command::Diff(diff) => diff::run(diff, &arguments.common, report).await,
        Command::Sync(sync) => sync::run(sync, &arguments.common, report).await,
        Command::Known(known) => known::run(known, &arguments.common, report).await,
        Command::Export(export) => export::run(export, &arguments.common, report).await,
        Command::Crawl(crawl) => crawl::run(crawl, &arguments.common, report).await,
        Command::Demo(demo) => demo::run(demo, &arguments.common, report).await,
        Command::Report(shown) => show_report::run(shown, &arguments.common, report),
        Command::Doctor(doctor) => doctor::run(doctor, report).await,
        Command::Completions(completions) => Ok(manual::completions(completions, report)),
        Command::Man(man) => manual::man(man, &arguments.common, report),
    }
}

/// Ends when the program has to. The first signal asks work that heeds it to come to an end, of which it says what comes;
/// the second does not wait for it.
async fn interrupted(when_stopped: Option<&str>, stop: &CancellationToken, report: &Report) {
    signalled().await;
    if let Some(what) = when_stopped {
        report.note(format!("stopping: {what}; once more to stop at once"));
        stop.cancel();
        signalled().await;
    }
}

/// Ctrl-C, or the signal by which service managers stop a program.
async fn signalled() {
    #[cfg(unix)]
    if let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        return;
    }
    // A program that cannot listen to signals is ended by them.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
