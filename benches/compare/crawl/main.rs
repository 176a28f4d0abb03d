//! `bulk crawl` against pyLoader's loop, in turn, in one run: its own job, as `examples/bungie_stats` has it.
//!
//! ```text
//! cargo run --release -p bulk-benches --bin compare-crawl -- [--requests 551] [--rows 672768] [--peers DIR] [--bulk FILE]
//!     [--least 200] [--most 1500] [--only NAME,…]
//! ```
//!
//! 551 requests at 25 a second over any ten seconds, whose answers have 672,768 rows. The API is served from memory by this
//! program, which refuses what exceeds the limit. Answers take as long as pyLoader's did, who reports 0.48 s for one, and
//! 1.5 s for a batch of 25: a heavy tail from 0.2 s to 1.5 s. What no program can fall below at a steady pace is 551 / 25 s.
//!
//! Two peers: the loop with futures, requests and psycopg2 as pyLoader has it, and with aiohttp and psycopg 3. Both
//! fetch all, in batches of 25 with a barrier, and then load. `bulk crawl` does both at once, once as the example has it, each
//! window's requests as soon as it has room (`spread = "at-once"`), and once at a steady pace, as it does unless told
//! otherwise. Each gets a fresh database, PostgreSQL has its durable settings, and the table in the end is the same, or it is
//! said what differs.
//!
//! The peers need `pip install --target DIR requests psycopg2-binary aiohttp 'psycopg[binary]'`; those that are not there are
//! named. A small run: `--requests 75 --rows 7500`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bulk_benches::{Cost, Failed, build_bulk, measured, run_if_asked};
use bulk_testkit::api::{Answer, Latency, Server, bungie, bungie_statistics};
use bulk_testkit::postgres;
use clap::Parser;
use serde_json::Value;

const SPEC: &str = include_str!("../../../examples/bungie_stats/crawl.toml");
const SCHEMA: &str = include_str!("../../../examples/bungie_stats/schema.sql");
const KEY: &str = "4711";
/// What the API allows: so many requests in that time, and therefore so many in a second.
const ALLOWED: usize = 250;
const WINDOW: Duration = Duration::from_secs(10);
const RATE: f64 = 25.0;
const FIRST_CHARACTER: u64 = 2_305_843_009_267_620_000;
/// No run takes as long, unless it hangs.
const LIMIT: Duration = Duration::from_secs(600);

/// Runs the job in each way that is there, and prints what it took.
#[derive(Parser)]
struct Arguments {
    /// Characters, each of which takes a request.
    #[arg(long, default_value_t = 551)]
    requests: u64,
    /// Statistics of all of them together.
    #[arg(long, default_value_t = 672_768)]
    rows: u64,
    /// Milliseconds that an answer takes at least.
    #[arg(long, default_value_t = 200)]
    least: u64,
    /// Milliseconds that it takes at most.
    #[arg(long, default_value_t = 1500)]
    most: u64,
    /// Only ways whose names contain one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The program `bulk`. Default: built from this checkout.
    #[arg(long, value_name = "FILE")]
    bulk: Option<PathBuf>,
    /// Where pip has installed the peers.
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
}

/// A way to do the job.
#[derive(Clone, Copy)]
enum Way {
    /// `bulk crawl` with that spread.
    Bulk(&'static str),
    /// A method of `pyloader.py`, and the modules that it needs.
    PyLoader(&'static str, &'static str),
}

impl Way {
    const ALL: [Self; 4] = [
        Self::PyLoader("threads", "requests, psycopg2"),
        Self::PyLoader("asyncio", "aiohttp, psycopg"),
        Self::Bulk("at-once"),
        Self::Bulk("even"),
    ];

    fn name(self) -> String {
        match self {
            Self::Bulk("at-once") => "bulk crawl".to_owned(),
            Self::Bulk(spread) => format!("bulk crawl, {spread}"),
            Self::PyLoader("threads", _) => "pyLoader's loop".to_owned(),
            Self::PyLoader(method, _) => format!("pyLoader's loop, {method}"),
        }
    }
}

/// What came of a run.
struct Ran {
    name: String,
    cost: Cost,
    /// Seconds from the first request to the last.
    asking: f64,
    /// Most requests in a window, and those that were refused.
    worst: usize,
    refused: usize,
    /// What it says itself of its phases.
    said: Option<Value>,
}

fn main() -> Result<(), Failed> {
    if run_if_asked()? {
        return Ok(());
    }
    let arguments = Arguments::parse();
    let bulk = arguments.bulk.clone().map_or_else(build_bulk, Ok)?;
    let postgres = postgres::Server::start(&postgres::Options::default())?;
    println!("PostgreSQL {}, {} cores", postgres.version(), std::thread::available_parallelism()?);
    println!("{} requests, {} rows\n", arguments.requests, arguments.rows);
    let answers = answers(&arguments);
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("pyloader.py");
    std::fs::write(&script, include_str!("pyloader.py"))?;

    let mut all = Vec::new();
    let mut content = None;
    for way in Way::ALL {
        let name = way.name();
        if !arguments.only.is_empty() && !arguments.only.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        if let Way::PyLoader(_, modules) = way
            && !python(&arguments).args(["-c", &format!("import {modules}")]).output()?.status.success()
        {
            println!(
                "{name}: Python finds not all of {modules}; pip install --target DIR has them, then --peers DIR\n"
            );
            continue;
        }
        let latency =
            Latency::heavy_tail(Duration::from_millis(arguments.least), Duration::from_millis(arguments.most));
        let (prepared, other) = (answers.clone(), bungie(KEY, |_| 0));
        let api = Server::builder(move |asked| match prepared.get(&asked.path) {
            Some(answer) if asked.header("x-api-key") == Some(KEY) => answer.clone(),
            _ => other(asked),
        });
        let api = api.limit(ALLOWED, WINDOW).latency(latency).start()?;
        let database = postgres.create_database("crawl")?;
        postgres.psql(database.url(), SCHEMA)?;
        postgres.psql(database.url(), &members(&arguments))?;
        postgres.psql(database.url(), "CHECKPOINT")?;
        let command = match way {
            Way::Bulk(spread) => crawl(&bulk, spread, folder.path(), &api, &database)?,
            Way::PyLoader(method, _) => {
                let mut python = python(&arguments);
                python.arg(&script).args([method, &api.url(), KEY, database.url()]);
                python
            }
        };
        let log = folder.path().join("log");
        let cost = measured(&command, &log, LIMIT)?;
        let log = std::fs::read_to_string(&log)?;
        if cost.status != Some(0) {
            return Err(format!("{name}: status {:?}: {log}", cost.status).into());
        }
        let found = postgres.psql(
            database.url(),
            "SELECT count(*), sum(hashtextextended(t::text, 0)), (SELECT sum(statistics) FROM stats.mv_member)
             FROM stats.t_aggregate_activity_stats t",
        )?;
        if !found.starts_with(&format!("{}|", arguments.rows)) || *content.get_or_insert_with(|| found.clone()) != found
        {
            return Err(format!("{name}: the table is another one: {found}").into());
        }
        let arrivals: Vec<Instant> = api.arrivals().iter().map(|arrival| arrival.at).collect();
        let asking = arrivals.last().zip(arrivals.first()).map_or(0.0, |(last, first)| (*last - *first).as_secs_f64());
        eprintln!("{name}: {:.2} s, {:.2} CPU s, {} requests", cost.wall, cost.cpu, arrivals.len());
        let (worst, refused) = (api.worst(WINDOW), api.refused());
        all.push(Ran { name, cost, asking, worst, refused, said: serde_json::from_str(log.trim()).ok() });
    }
    print(&all, arguments.requests as f64 / RATE);
    Ok(())
}

fn print(all: &[Ran], least: f64) {
    println!("requests / 25 s is {least:.2} s\n");
    println!(
        "| | wall s | / {least:.2} s | requests within s | loaded behind them in s | most in 10 s | CPU s | peak MB |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    for Ran { name, cost, asking, worst, refused, said } in all {
        let load = said.as_ref().and_then(|said| said["load"].as_f64());
        let load = load.map_or_else(String::new, |load| format!("{load:.2}"));
        let worst = if *refused > 0 { format!("{worst}, {refused} refused") } else { worst.to_string() };
        println!(
            "| {name} | {:.2} | {:.3} | {asking:.2} | {load} | {worst} | {:.2} | {:.0} |",
            cost.wall,
            cost.wall / least,
            cost.cpu,
            cost.peak as f64 / 1e6
        );
    }
}

/// The numbers of the characters, and how many statistics each has.
fn characters(arguments: &Arguments) -> impl Iterator<Item = (u64, u64)> {
    let (each, more) = (arguments.rows / arguments.requests, arguments.rows % arguments.requests);
    (0..arguments.requests).map(move |number| (FIRST_CHARACTER + number, each + u64::from(number < more)))
}

/// What the API says, by path, made before anybody asks.
fn answers(arguments: &Arguments) -> HashMap<String, Answer> {
    let answer = |(number, (character, statistics)): (u64, (u64, u64))| {
        let path = format!(
            "/Platform/Destiny2/2/Account/{}/Character/{character}/Stats/AggregateActivityStats/",
            account(number / 3)
        );
        (path, bungie_statistics(character, statistics as usize))
    };
    (0..).zip(characters(arguments)).map(answer).collect()
}

fn account(member: u64) -> u64 {
    4_611_686_018_438_308_000 + member
}

/// The input: a member has up to three characters.
fn members(arguments: &Arguments) -> String {
    let last = arguments.requests - 1;
    format!(
        "INSERT INTO stats.t_member
         SELECT n, 1, 2373515, 'member ' || n, {} + n, 2 FROM generate_series(0, {last} / 3) n;
         INSERT INTO stats.t_character SELECT {FIRST_CHARACTER} + n, n / 3 FROM generate_series(0, {last}) n;
         ANALYZE",
        account(0)
    )
}

fn crawl(
    bulk: &Path,
    spread: &str,
    folder: &Path,
    api: &Server,
    database: &postgres::Database,
) -> Result<Command, Failed> {
    let spec = folder.join(format!("{spread}.toml"));
    let text = SPEC.replace("https://www.bungie.net", &api.url());
    std::fs::write(&spec, text.replace("spread = \"at-once\"", &format!("spread = \"{spread}\"")))?;
    let mut command = Command::new(bulk);
    command.arg("crawl").arg(spec).args(["--quiet", "--db", database.url()]).env("BUNGIE_API_KEY", KEY);
    Ok(command)
}

fn python(arguments: &Arguments) -> Command {
    let mut python = Command::new("python3");
    if let Some(peers) = &arguments.peers {
        python.env("PYTHONPATH", peers);
    }
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        python.env_remove(name);
    }
    python
}
