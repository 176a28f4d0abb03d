//! Benchmarks and comparisons with peers. Each is a program of its own, in the `compare` folder or beside this file; here
//! is what they share.

mod bucket;
mod first_byte;
mod lister;
mod measured;
mod peer;

use std::path::PathBuf;
use std::process::{Command, Stdio};

pub use bucket::{BUCKET, Bucket, Content, Distance, Made, PREFIX, Served, serve_if_asked, serve_keys};
pub use first_byte::{first_line, first_line_if_asked};
pub use lister::{Lister, Listers, list_if_asked};
pub use measured::{Cost, measured, median, run_if_asked};
pub use peer::{Job, Tool, Tools};

/// What ends such a program.
pub type Failed = Box<dyn std::error::Error>;

/// Builds `bulk` of this checkout, in release mode, and tells where it is.
///
/// # Errors
///
/// If cargo is not there or the build fails.
pub fn build_bulk() -> Result<PathBuf, Failed> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    done(Command::new(cargo).args(["build", "--release", "--package", "bulk-cli"]))?;
    let here = std::env::current_exe()?;
    Ok(here.parent().ok_or("the program has no folder")?.join("bulk"))
}

/// Checks that `program` can be run.
///
/// # Errors
///
/// If not; with the Debian package that has it.
pub fn need(program: &str, package: &str) -> Result<(), Failed> {
    match Command::new(program).arg("--help").stdin(Stdio::null()).output() {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{program}: {error}; install it, such as by apt-get install {package}").into()),
    }
}

/// Runs a command to its end.
///
/// # Errors
///
/// If it cannot be started or fails.
pub fn done(command: &mut Command) -> Result<(), Failed> {
    let status = command.stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{:?}: {status}", command.get_program()).into()) }
}

/// The summary of a `bulk mirror --json` that has ended.
///
/// # Errors
///
/// If it failed, or printed none. Status 3 tells of what the published schema holds and no database can get.
pub fn summary(output: std::process::Output) -> Result<serde_json::Value, Failed> {
    let text = String::from_utf8(output.stdout)?;
    if !matches!(output.status.code(), Some(0 | 3)) {
        let last: Vec<&str> = text.lines().rev().take(3).collect();
        return Err(format!("bulk mirror: {}\n{}", output.status, last.join("\n")).into());
    }
    let is_summary = |event: &serde_json::Value| event["event"] == "summary";
    let events = text.lines().rev().filter_map(|line| line.parse::<serde_json::Value>().ok());
    Ok(events.into_iter().find(is_summary).ok_or("bulk mirror printed no summary")?)
}
