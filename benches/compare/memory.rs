//! Peak memory of `bulk mirror` for one large table.
//!
//! ```text
//! cargo run --release -p bulk-benches --bin measure-memory -- [--scale 45] [--files DIR]
//! ```
//!
//! Scale 45 makes an opinions file of about 1 GB as bz2, 225 one of 5 GB, in minutes; `--files` takes a folder that has
//! `opinions-YYYY-MM-DD.csv.bz2` already. It is served from loopback and mirrored into a PostgreSQL of its own. The
//! figure is the greatest resident set of the process, as the kernel counts it (`VmHWM`).

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bulk_benches::{Failed, build_bulk, summary};
use bulk_testkit::postgres;
use bulk_testkit::s3::{self, EtagStyle, Store};
use bulk_testkit::snapshot::{self, SchemaFlavour, Spec};
use clap::Parser;

/// Runs `bulk mirror` on a table of a given size and prints its peak memory.
#[derive(Parser)]
struct Arguments {
    /// How much to invent: each unit is about 22 MB of bz2.
    #[arg(long, default_value_t = 45.0)]
    scale: f64,
    /// A folder that has the file already.
    #[arg(long)]
    files: Option<PathBuf>,
}

fn main() -> Result<(), Failed> {
    let arguments = Arguments::parse();
    let bulk = build_bulk()?;
    let folder = tempfile::tempdir()?;
    let files = match arguments.files {
        Some(files) => files.canonicalize()?,
        None => {
            let files = folder.path().join("files");
            let tables = vec!["opinions".to_owned()];
            snapshot::generate(&Spec { scale: arguments.scale, tables, ..Spec::default() }, &files)?;
            files
        }
    };
    let schema = folder.path().join("schema.sql");
    std::fs::write(&schema, SchemaFlavour::Published.sql())?;
    let server = postgres::Server::start(&postgres::Options::default())?;
    let database = server.create_database("memory")?;
    let store = Store::folder(&files, EtagStyle::Multipart);
    let bucket = s3::Server::builder().bucket("data", store).start()?;

    let mut command = Command::new(bulk);
    command.args(["mirror", "courtlistener", "--tables", "opinions", "--from", "s3://data/"]);
    command.args(["--endpoint", &bucket.url(), "--json", "--schema"]).arg(&schema);
    command.arg("--dir").arg(folder.path().join("staged")).env("BULK_DB", database.url());
    let started = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let watch = std::thread::spawn(move || {
        let mut peak = 0;
        // The file is gone when the process is; the figure is a high-water mark.
        while let Some(kilobytes) = std::fs::read_to_string(&status).ok().and_then(|text| high_water_mark(&text)) {
            peak = kilobytes;
            std::thread::sleep(Duration::from_millis(10));
        }
        peak
    });
    let summary = summary(child.wait_with_output()?)?;
    let time = started.elapsed();
    let peak = watch.join().map_err(|_| "the watching thread panicked")?;
    println!(
        "{} MB of bz2, {} MB of CSV, {} rows in {:.0} s: at most {} MB resident",
        summary["fetched"].as_u64().unwrap_or(0) / 1_000_000,
        summary["bytes"].as_u64().unwrap_or(0) / 1_000_000,
        summary["rows"],
        time.as_secs_f64(),
        peak * 1024 / 1_000_000
    );
    Ok(())
}

/// The kilobytes of `VmHWM` in a process's status file; none once the process has given back its memory.
fn high_water_mark(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse().ok())
}
