//! The `bulk` program: arguments, wiring, reports and exit codes. Everything an embedder would want is in the libraries.

mod arguments;
mod dataset;
mod demo;
mod doctor;
mod exit;
mod fetch;
mod load;
mod mirror;
mod report;
mod source;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command};
use crate::exit::{Exit, Failure};
use crate::report::Report;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let report = Report::new(arguments.common.json, arguments.common.quiet, arguments.common.verbose);
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, error))
        .and_then(|runtime| {
            let result = runtime.block_on(async {
                tokio::select! {
                    result = run(&arguments, &report) => result,
                    _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
                }
            });
            // What still runs is rolled back or kept for the next run; nothing is waited for.
            runtime.shutdown_background();
            result
        });
    let exit = match result {
        Ok(exit) => exit,
        Err(failure) => {
            report.failure(&failure);
            failure.exit
        }
    };
    if exit == Exit::Interrupted {
        report.note("interrupted; run the same command again to go on");
    }
    exit.into()
}

async fn run(arguments: &Arguments, report: &Report) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::Mirror(mirror) => mirror::run(mirror, &arguments.common, report).await,
        Command::Fetch(fetch) => fetch::run(fetch, &arguments.common, report).await,
        Command::Load(load) => load::run(load, &arguments.common, report).await,
        Command::Demo(demo) => demo::run(demo, report).await,
        Command::Doctor(doctor) => doctor::run(doctor, report).await,
    }
}
