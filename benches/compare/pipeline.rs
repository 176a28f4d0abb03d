//! `bulk mirror` against its own stages, each of them alone: what running them as one pipeline costs.
//!
//! ```text
//! cargo run --release -p bulk-benches --bin compare-pipeline -- [--scale 4] [--rounds 3] [--profiles near,far]
//! ```
//!
//! Alone are the download (`bulk fetch` of the snapshot), the decoder (of each file in turn, on all cores, its output
//! thrown away) and the load (`bulk mirror` of the same files, decoded beforehand, from a folder; with the schema, indexes
//! and keys, as in the whole). A pipeline that costs nothing takes as long as the slowest of them, and it cannot take less
//! than the CPU time that it needs, its own and the server's, on all cores: on a machine with few cores that may be more
//! than any stage takes alone, so both are reported. CPU time is that of the whole machine (`/proc/stat`), so nothing else
//! should run on it.
//!
//! `near` is loopback as it is; `far` is 50 ms before each answer and 2.25 MB/s a connection. Every run has a fresh
//! database and folder, on a server with PostgreSQL's default, durable settings. Figures are medians.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bulk_archive::{DecodeOptions, Decoder};
use bulk_benches::{Failed, build_bulk, done, summary};
use bulk_testkit::postgres::{self, Database};
use bulk_testkit::s3::{self, EtagStyle, Fault, Rule, Store};
use bulk_testkit::snapshot::{self, SchemaFlavour, Snapshot, Spec};
use clap::{Parser, ValueEnum};

const BUCKET: &str = "com-courtlistener-storage";
const PREFIX: &str = "bulk-data";

/// Runs `bulk mirror` and each of its stages alone, and prints their times and the ratio.
#[derive(Parser)]
struct Arguments {
    /// How much to invent: 1 is about 190 MB of CSV.
    #[arg(long, default_value_t = 4.0)]
    scale: f64,
    /// Runs of each.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where the bucket is.
    #[arg(long, value_delimiter = ',', default_value = "near,far")]
    profiles: Vec<Profile>,
    /// Requests open at once.
    #[arg(long, default_value_t = 8)]
    jobs: usize,
    /// Database connections.
    #[arg(long, default_value_t = 2)]
    connections: usize,
    /// The program `bulk`. Default: built from this checkout.
    #[arg(long, value_name = "FILE")]
    bulk: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// Loopback as it is.
    Near,
    /// With latency, and a limit for each connection.
    Far,
}

/// Seconds.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    /// Of all processes of the machine.
    cpu: f64,
}

fn main() -> Result<(), Failed> {
    let arguments = Arguments::parse();
    let bulk = match &arguments.bulk {
        Some(bulk) => bulk.canonicalize()?,
        None => build_bulk()?,
    };
    let folder = tempfile::tempdir()?;
    let files = folder.path().join("bucket").join(PREFIX);
    let made = snapshot::generate(
        &Spec { scale: arguments.scale, schema: SchemaFlavour::Published, ..Spec::default() },
        &files,
    )?;
    let plain = folder.path().join("plain");
    decode_to(&made, &plain)?;
    let store = Store::folder(folder.path().join("bucket"), EtagStyle::Multipart);
    let bucket = s3::Server::builder().bucket(BUCKET, store).start()?;
    let server = postgres::Server::start(&postgres::Options::default())?;
    let cores = std::thread::available_parallelism()?.get();
    println!(
        "{} rows, {} MB of CSV, {} MB of bz2; PostgreSQL {}; {cores} cores; --jobs {}, --connections {}\n",
        made.rows,
        made.csv_bytes / 1_000_000,
        made.bytes / 1_000_000,
        server.version(),
        arguments.jobs,
        arguments.connections
    );
    println!(
        "| | download | decode | load | `bulk mirror` | / slowest stage | its CPU time / cores | / the larger of both |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    let work = folder.path().join("work");
    let bench = Bench { server, bucket, made, plain, bulk, work, arguments };
    for &profile in &bench.arguments.profiles {
        bench.bucket.clear_faults();
        if profile == Profile::Far {
            bench.bucket.fault(Rule::new(Fault::Latency(Duration::from_millis(50))));
            bench.bucket.fault(Rule::new(Fault::Bandwidth(2_250_000)));
        }
        let name = profile.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        let mut costs: [Vec<Cost>; 4] = Default::default();
        for round in 1..=bench.arguments.rounds {
            let stages: [(&str, Stage<'_>); 4] = [
                ("download", &|_| bench.fetch()),
                ("decode", &|_| bench.decode()),
                ("load", &|database| bench.mirror(database, Some(&bench.plain))),
                ("mirror", &|database| bench.mirror(database, None)),
            ];
            for ((stage, run), costs) in stages.into_iter().zip(&mut costs) {
                let cost = bench.measured(run)?;
                eprintln!("{name}, round {round}: {stage:8} {:6.2} s, {:6.2} CPU s", cost.wall, cost.cpu);
                costs.push(cost);
            }
        }
        let [download, decode, load, mirror] = costs.map(median);
        let slowest = download.wall.max(decode.wall).max(load.wall);
        let floor = mirror.cpu / cores as f64;
        println!(
            "| {name} | {:.1} s | {:.1} s | {:.1} s | {:.1} s | **{:.2}** | {floor:.1} s | **{:.2}** |",
            download.wall,
            decode.wall,
            load.wall,
            mirror.wall,
            mirror.wall / slowest,
            mirror.wall / slowest.max(floor)
        );
    }
    Ok(())
}

type Stage<'a> = &'a dyn Fn(&Database) -> Result<(), Failed>;

struct Bench {
    server: postgres::Server,
    bucket: s3::Server,
    made: Snapshot,
    /// The same snapshot, its files decoded.
    plain: PathBuf,
    bulk: PathBuf,
    work: PathBuf,
    arguments: Arguments,
}

impl Bench {
    fn measured(&self, run: Stage<'_>) -> Result<Cost, Failed> {
        fs::create_dir_all(&self.work)?;
        let database = self.server.create_database("pipeline")?;
        self.server.psql(database.url(), "CHECKPOINT")?;
        done(&mut Command::new("sync"))?;
        let (started, busy) = (Instant::now(), busy_seconds()?);
        run(&database)?;
        let cost = Cost { wall: started.elapsed().as_secs_f64(), cpu: busy_seconds()? - busy };
        database.remove()?;
        fs::remove_dir_all(&self.work)?;
        Ok(cost)
    }

    fn fetch(&self) -> Result<(), Failed> {
        let mut command = Command::new(&self.bulk);
        command.args(["fetch", &format!("s3://{BUCKET}/{PREFIX}/"), "--anonymous", "--quiet"]);
        command.args(["--endpoint", &self.bucket.url(), "--jobs", &self.arguments.jobs.to_string(), "--out"]);
        done(command.arg(self.work.join("files")))
    }

    fn decode(&self) -> Result<(), Failed> {
        for file in &self.made.files {
            let mut decoder = Decoder::open(self.made.dir.join(&file.name), &DecodeOptions::default())?;
            io::copy(&mut decoder, &mut io::sink())?;
        }
        Ok(())
    }

    fn mirror(&self, database: &Database, plain: Option<&Path>) -> Result<(), Failed> {
        let mut command = Command::new(&self.bulk);
        command.args(["mirror", "courtlistener", "--json", "--jobs", &self.arguments.jobs.to_string()]);
        command.args(["--connections", &self.arguments.connections.to_string()]);
        match plain {
            Some(plain) => command.args(["--from", &format!("file://{}", plain.display())]),
            None => command.args(["--endpoint", &self.bucket.url()]),
        };
        command.arg("--dir").arg(self.work.join("files")).env("BULK_DB", database.url());
        let summary = summary(command.stdin(Stdio::null()).output()?)?;
        if summary["rows"].as_u64() != Some(self.made.rows) {
            return Err(format!("not all of {} rows are there: {summary}", self.made.rows).into());
        }
        Ok(())
    }
}

/// Writes the snapshot's files decoded.
fn decode_to(made: &Snapshot, plain: &Path) -> Result<(), Failed> {
    fs::create_dir_all(plain)?;
    for file in &made.files {
        let mut decoder = Decoder::open(made.dir.join(&file.name), &DecodeOptions::default())?;
        io::copy(&mut decoder, &mut File::create(plain.join(file.name.trim_end_matches(".bz2")))?)?;
    }
    fs::copy(made.dir.join(&made.schema), plain.join(&made.schema))?;
    Ok(())
}

/// What all cores have worked since the machine was started: `user`, `nice`, `system`, `irq` and `softirq` of proc(5), in
/// hundredths of a second.
fn busy_seconds() -> Result<f64, Failed> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().ok_or("/proc/stat is empty")?;
    let ticks: Vec<f64> = line.split_whitespace().skip(1).map_while(|tick| tick.parse().ok()).collect();
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|at| ticks.get(*at));
    Ok(busy.sum::<f64>() / 100.0)
}

fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_unstable_by(|a, b| a.wall.total_cmp(&b.wall));
    costs[costs.len() / 2]
}
