//! Peak memory of `bulk mirror` for one large table, and of `bulk load` for what comes over a pipe.
//!
//! ```text
//! cargo run --release -p bulk-benches --bin measure-memory -- [--scale 45] [--files DIR]
//! cargo run --release -p bulk-benches --bin measure-memory -- --load 2000
//! ```
//!
//! Scale 45 makes an opinions file of about 1 GB as bz2, 225 one of 5 GB, in minutes; `--files` takes a folder that has
//! `opinions-YYYY-MM-DD.csv.bz2` already. It is served from loopback and mirrored into a PostgreSQL of its own.
//!
//! `--load` makes so many megabytes of CSV while they are read, once for each of the ways in which a load keeps something
//! of a file in memory, over eight connections and over two. The table has no index.
//!
//! The figure is the greatest resident set of the process, as the kernel counts it (`VmHWM`).

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bulk_benches::{Failed, build_bulk, summary};
use bulk_testkit::postgres;
use bulk_testkit::s3::{self, EtagStyle, Store};
use bulk_testkit::snapshot::{self, SchemaFlavour, Spec};
use clap::Parser;

/// Runs `bulk mirror` on a table of a given size, or `bulk load` on a pipe, and prints the peak memory.
#[derive(Parser)]
struct Arguments {
    /// How much to invent: each unit is about 22 MB of bz2.
    #[arg(long, default_value_t = 45.0)]
    scale: f64,
    /// A folder that has the file already.
    #[arg(long)]
    files: Option<PathBuf>,
    /// Load so many megabytes of CSV from a pipe in place of the mirror.
    #[arg(long, value_name = "MEGABYTES", conflicts_with_all = ["scale", "files"])]
    load: Option<u64>,
}

fn main() -> Result<(), Failed> {
    let arguments = Arguments::parse();
    let bulk = build_bulk()?;
    match arguments.load {
        Some(megabytes) => load(&bulk, megabytes * 1_000_000),
        None => mirror(&bulk, &arguments),
    }
}

fn mirror(bulk: &Path, arguments: &Arguments) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let files = match &arguments.files {
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
    let (output, peak) = watched(child)?;
    let summary = summary(output)?;
    println!(
        "{} MB of bz2, {} MB of CSV, {} rows in {:.0} s: at most {} MB resident",
        summary["fetched"].as_u64().unwrap_or(0) / 1_000_000,
        summary["bytes"].as_u64().unwrap_or(0) / 1_000_000,
        summary["rows"],
        started.elapsed().as_secs_f64(),
        peak / 1_000_000
    );
    Ok(())
}

/// What the records are like.
#[derive(Clone, Copy)]
enum Shape {
    /// Numbers and a text of some hundred bytes.
    Usual,
    /// One digit each: as many records in a byte as there can be.
    Narrow,
}

impl Shape {
    /// One in a thousand has a number that is none, if some are to be bad.
    fn record(self, number: u64, is_bad: bool, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Usual => {
                let id = if is_bad && number % 1000 == 999 { "none" } else { "" };
                writeln!(out, "{id}{number},2026-06-{:02},{:0>300}", 1 + number % 28, number.wrapping_mul(0x9e37_79b9))
            }
            Self::Narrow => writeln!(out, "{}", number % 10),
        }
    }
}

/// A way to load, and what is asked for.
struct Way {
    name: &'static str,
    shape: Shape,
    /// The table's columns.
    columns: &'static str,
    with_bad: bool,
    arguments: &'static [&'static str],
}

const USUAL: &str = "id bigint, day date, note text";

const WAYS: [Way; 5] = [
    Way { name: "clean", shape: Shape::Usual, columns: USUAL, with_bad: false, arguments: &[] },
    Way {
        name: "clean, one digit a record",
        shape: Shape::Narrow,
        columns: "id integer",
        with_bad: false,
        arguments: &[],
    },
    Way {
        name: "one in 1,000 rejected",
        shape: Shape::Usual,
        columns: USUAL,
        with_bad: true,
        arguments: &["--max-rejects", "1000000000"],
    },
    // As there is no binary form of its numbers here, all rows go as text, and are kept until the server has hashed them.
    Way {
        name: "--verify full of text",
        shape: Shape::Usual,
        columns: "id oid, day date, note text",
        with_bad: false,
        arguments: &["--verify", "full"],
    },
    Way {
        name: "--verify full of text, one in 1,000 rejected",
        shape: Shape::Usual,
        columns: "id oid, day date, note text",
        with_bad: true,
        arguments: &["--verify", "full", "--max-rejects", "1000000000"],
    },
];

fn load(bulk: &Path, bytes: u64) -> Result<(), Failed> {
    let server = postgres::Server::start(&postgres::Options::default())?;
    for Way { name, shape, columns, with_bad, arguments } in WAYS {
        for connections in ["2", "8"] {
            let database = server.create_database("memory")?;
            server.psql(database.url(), &format!("CREATE TABLE t ({columns})"))?;
            let mut command = Command::new(bulk);
            command.args(["load", "-", "--name", "made", "--table", "t", "--quiet", "--connections", connections]);
            command.args(arguments).env("BULK_DB", database.url());
            let started = Instant::now();
            let mut child = command.stdin(Stdio::piped()).spawn()?;
            let pipe = child.stdin.take().ok_or("it has no standard input")?;
            // It ends early where the program does, which says why.
            let made = thread::spawn(move || make(pipe, shape, with_bad, bytes));
            let (output, peak) = watched(child)?;
            let records = made.join().map_err(|_| "the making thread panicked")??;
            let time = started.elapsed().as_secs_f64();
            // 3 says that some records were left out.
            if !matches!(output.status.code(), Some(0 | 3)) {
                return Err(format!("bulk load: {}", output.status).into());
            }
            let left_out = server.psql(database.url(), "SELECT rejected FROM bulk.load")?;
            println!(
                "{name}, {connections} connections: {} MB, {records} records, {} left out, in {time:.0} s: at most {} MB resident",
                bytes / 1_000_000,
                left_out.trim(),
                peak / 1_000_000
            );
        }
    }
    Ok(())
}

/// Writes records until there are so many bytes, or nobody reads them; how many there are.
fn make(pipe: ChildStdin, shape: Shape, with_bad: bool, bytes: u64) -> io::Result<u64> {
    let mut out = BufWriter::with_capacity(1 << 20, pipe);
    let mut line = match shape {
        Shape::Usual => b"id,day,note\n".to_vec(),
        Shape::Narrow => b"id\n".to_vec(),
    };
    let (mut written, mut records) = (0, 0);
    loop {
        match out.write_all(&line) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(records),
            result => result?,
        }
        written += line.len() as u64;
        if written >= bytes {
            break;
        }
        line.clear();
        shape.record(records, with_bad, &mut line)?;
        records += 1;
    }
    match out.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(records),
    }
}

/// Waits for a program; what it printed, and the greatest resident set in bytes.
fn watched(child: Child) -> Result<(Output, u64), Failed> {
    let status = format!("/proc/{}/status", child.id());
    let watch = thread::spawn(move || {
        let mut peak = 0;
        // The file is gone when the process is; the figure is a high-water mark.
        while let Some(kilobytes) = std::fs::read_to_string(&status).ok().and_then(|text| high_water_mark(&text)) {
            peak = kilobytes;
            thread::sleep(Duration::from_millis(10));
        }
        peak
    });
    let output = child.wait_with_output()?;
    let peak = watch.join().map_err(|_| "the watching thread panicked")?;
    Ok((output, peak * 1024))
}

/// The kilobytes of `VmHWM` in a process's status file; none once the process has given back its memory.
fn high_water_mark(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse().ok())
}
