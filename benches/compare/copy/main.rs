//! `bulk load` against the other ways to get a file into PostgreSQL, in turn, in one run.
//!
//! ```text
//! cargo run --release -p bulk-benches --bin compare-copy -- [--rows 1000000] [--scale 2] [--rounds 3]
//!     [--peers DIR] [--tables pyLoader,court] [--only NAME,…] [--json FILE]
//! ```
//!
//! Two logged tables without indexes: pyLoader's (integers, text, jsonb), and `CourtListener`'s opinions, wide text in the
//! published dialect. Each way gets a fresh database after a checkpoint, on one server with PostgreSQL's durable settings;
//! only autovacuum is off and checkpoints come between the runs, so that they burden none of them. What a way loads
//! is compared by the server with what it made of the CSV itself. The ways take turns; figures are medians.
//!
//! The CPU time of a client is that of its process and its children, their start included; that of the server is of all
//! its processes, the ended ones included, from proc(5), so this program runs on Linux alone. What the server needs for its
//! own binary format from a file of its own is the floor that others are measured by.
//!
//! Ways in Python read COPY text, row by row where they are given rows. A row-by-row INSERT loads `--first` rows, and its
//! figures are per row as all are. `bulk load` counts the table's rows in the end, and no other way does: two lines have that,
//! the others leave it out. A way that is not there is named with how to get it; one that fails, or loads
//! something else, with what it said.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

mod inputs;
mod server_cpu;
mod ways;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulk_benches::{Failed, build_bulk, measured, need, run_if_asked};
use bulk_testkit::postgres::{self, DatabaseUrl, Server};
use clap::Parser;
use serde_json::{Value, json};

use inputs::{Input, content};
use server_cpu::ServerCpu;
use ways::{Bulk, FLOOR, Programs, Way};

/// Loads two tables in every way that is there, and prints what each costs.
#[derive(Parser)]
struct Arguments {
    /// Rows of pyLoader's table.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// How much of the court's table: 1 is about 150 MB.
    #[arg(long, default_value_t = 2.0)]
    scale: f64,
    /// Rows for the way that is too slow for all of them.
    #[arg(long, default_value_t = 5000)]
    first: u64,
    /// Runs of each way.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Which tables.
    #[arg(long, value_delimiter = ',', default_value = "pyLoader,court")]
    tables: Vec<String>,
    /// Only ways whose names contain one of these; the floor is among them always.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where peers are: psycopg with its binary package, psycopg2-binary, asyncpg, adbc-driver-postgresql and pyarrow by pip
    /// install --target DIR, and pgloader's package by dpkg -x. PATH is searched, too.
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// The program `bulk`. Default: built from this checkout.
    #[arg(long, value_name = "FILE")]
    bulk: Option<PathBuf>,
    /// Seconds after which a way is ended.
    #[arg(long, default_value_t = 1800)]
    limit: u64,
    /// Writes the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What a row cost.
#[derive(Clone, Copy)]
struct Cost {
    /// Seconds for all rows.
    wall: f64,
    /// Microseconds on a core, of each row.
    client: f64,
    server: f64,
}

/// A way, and what came of it.
struct Tried {
    way: Way,
    name: String,
    rows: u64,
    costs: Vec<Cost>,
    problem: Option<String>,
}

impl Tried {
    /// The median of each figure by itself.
    fn cost(&self) -> Option<Cost> {
        let median = |figure: fn(&Cost) -> f64| {
            let mut figures: Vec<f64> = self.costs.iter().map(figure).collect();
            figures.sort_unstable_by(f64::total_cmp);
            figures.get(figures.len() / 2).copied()
        };
        Some(Cost {
            wall: median(|cost| cost.wall)?,
            client: median(|cost| cost.client)?,
            server: median(|cost| cost.server)?,
        })
    }

    /// Seconds for as many rows as others load.
    fn wall_of(&self, rows: u64) -> Option<f64> {
        Some(self.cost()?.wall * rows as f64 / self.rows as f64)
    }
}

fn main() -> Result<(), Failed> {
    if run_if_asked()? {
        return Ok(());
    }
    let arguments = Arguments::parse();
    need("psql", "postgresql-client")?;
    let folder = tempfile::tempdir()?;
    // The server's account reads files here.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let mut programs = Programs {
        bulk: match &arguments.bulk {
            Some(bulk) => bulk.canonicalize()?,
            None => build_bulk()?,
        },
        peers: arguments.peers.as_ref().map(|peers| peers.canonicalize()).transpose()?,
        script: folder.path().join("peers.py"),
        work: folder.path().to_owned(),
        sockets: None,
    };
    fs::write(&programs.script, include_str!("peers.py"))?;
    let mut options = postgres::Options::default();
    options.database_url = DatabaseUrl::Ignore;
    let settings = [("autovacuum", "off"), ("max_wal_size", "64GB"), ("checkpoint_timeout", "1d")];
    options.settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let server = Server::start(&options)?;
    programs.sockets = server.socket_dir().map(Path::to_owned);
    let versions = programs.versions();
    println!(
        "PostgreSQL {}, {} cores; {}\n",
        server.version(),
        std::thread::available_parallelism()?,
        versions.join("; ")
    );

    let mut tables = Vec::new();
    for table in &arguments.tables {
        let input = match table.as_str() {
            "pyLoader" => Input::py_loader(&server, folder.path(), arguments.rows, arguments.first)?,
            "court" => Input::court(&server, folder.path(), arguments.scale, arguments.first)?,
            other => return Err(format!("no table is called {other}; there are pyLoader and court").into()),
        };
        let bench = Bench { server: &server, programs: &programs, input: &input, arguments: &arguments };
        let tried = bench.run()?;
        bench.print(&tried)?;
        tables.push(bench.to_json(&tried)?);
        for file in [&input.csv, &input.text, &input.binary, &input.with_bad] {
            fs::remove_file(file)?;
        }
    }
    if let Some(path) = &arguments.json {
        let version = server.version().to_string();
        let all = json!({"postgresql": version, "versions": versions, "tables": tables});
        fs::write(path, serde_json::to_string_pretty(&all)?)?;
    }
    Ok(())
}

struct Bench<'a> {
    server: &'a Server,
    programs: &'a Programs,
    input: &'a Input,
    arguments: &'a Arguments,
}

impl Bench<'_> {
    fn run(&self) -> Result<Vec<Tried>, Failed> {
        let is_wanted = |name: &str| {
            let only = &self.arguments.only;
            only.is_empty() || name == FLOOR.name() || only.iter().any(|part| name.contains(part.as_str()))
        };
        let tried = |way: Way| {
            let (name, rows) = (way.name(), way.rows(self.input));
            is_wanted(&name).then(|| Tried { way, name, rows, costs: Vec::new(), problem: self.programs.missing(way) })
        };
        let mut all: Vec<Tried> = Way::ALL.into_iter().filter_map(tried).collect();
        for round in 1..=self.arguments.rounds {
            for tried in all.iter_mut().filter(|tried| tried.problem.is_none()) {
                match self.load(tried.way)? {
                    Ok(cost) => {
                        eprintln!(
                            "{}, round {round}: {:40} {:7.2} s, {:7.2} us of the client, {:7.2} us of the server",
                            self.input.name, tried.name, cost.wall, cost.client, cost.server
                        );
                        tried.costs.push(cost);
                    }
                    Err(problem) if tried.way.is_ours() => return Err(format!("{}: {problem}", tried.name).into()),
                    Err(problem) => {
                        eprintln!("{}, round {round}: {:40} {problem}", self.input.name, tried.name);
                        tried.problem = Some(problem);
                    }
                }
            }
        }
        Ok(all)
    }

    /// Loads the table once, in a fresh database. The inner error is the way's own.
    fn load(&self, way: Way) -> Result<Result<Cost, String>, Failed> {
        let database = self.server.create_database("copy")?;
        self.server.psql(database.url(), &self.input.create)?;
        if let Err(error) = way.prepare(self.server, &database, self.input) {
            return Ok(Err(format!("fails: {error}")));
        }
        self.server.psql(database.url(), "CHECKPOINT")?;
        let cpu = ServerCpu::new(self.server.pid().ok_or("the server is down")?)?;
        let log = self.programs.work.join("log");
        let command = self.programs.command(way, self.input, &database)?;
        let before = cpu.seconds()?;
        let cost = measured(&command, &log, Duration::from_secs(self.arguments.limit))?;
        let server = cpu.seconds()? - before;
        let rows = way.rows(self.input);
        let is_all = rows == self.input.rows;
        let expected = if is_all { &self.input.content } else { &self.input.first_content };
        let found = content(self.server, &database)?;
        database.remove()?;
        if cost.status != Some(way.done()) {
            return Ok(Err(format!("fails: {}", last_words(&log))));
        }
        if found != *expected {
            return Ok(Err(format!("loads something else: {found}, and not {expected}")));
        }
        let of_row = |seconds: f64| seconds * 1e6 / rows as f64;
        Ok(Ok(Cost { wall: cost.wall, client: of_row(cost.cpu), server: of_row(server) }))
    }

    fn print(&self, all: &[Tried]) -> Result<(), Failed> {
        let input = self.input;
        println!("\n{}: {} rows, {} MB of CSV\n", input.name, input.rows, input.bytes()? / 1_000_000);
        println!("| | wall, s | client, us a row | server, us a row | server / floor | |\n|---|--:|--:|--:|--:|---|");
        let floor = cost_of(all, FLOOR);
        for tried in all {
            let (name, problem) = (&tried.name, tried.problem.as_deref().unwrap_or_default());
            match (tried.cost(), tried.wall_of(input.rows), floor) {
                (Some(Cost { client, server, .. }), Some(wall), Some(floor)) => {
                    let scaled =
                        if tried.rows < input.rows { format!("of {} rows", tried.rows) } else { String::new() };
                    let ratio = server / floor.server;
                    println!("| {name} | {wall:.2} | {client:.2} | {server:.2} | {ratio:.2} | {scaled}{problem} |");
                }
                _ => println!("| {name} | | | | | {problem} |"),
            }
        }
        println!();
        for (what, value) in self.aims(all) {
            println!("- {what}: **{value:.2}**");
        }
        Ok(())
    }

    /// The ratios that are aimed at, as far as what they need was tried.
    fn aims(&self, all: &[Tried]) -> Vec<(&'static str, f64)> {
        let of = |way| cost_of(all, way);
        let (one, two) = (Way::Bulk(Bulk::ONE), Way::Bulk(Bulk::TWO));
        let ours = |bulk| of(Way::Bulk(bulk));
        let ratio = |ours: Option<f64>, theirs: Option<f64>| Some(ours? / theirs?);
        let server = |cost: Option<Cost>| Some(cost?.server);
        let client = |cost: Option<Cost>| Some(cost?.client);
        let wall = |cost: Option<Cost>| Some(cost?.wall);
        let sum = |cost: Option<Cost>| Some(cost?.client + cost?.server);
        // The same compression on both sides.
        let pglz = ours(Bulk { pglz: true, ..Bulk::ONE });
        let with_bad = |bulk| ours(Bulk { with_bad: true, ..bulk });
        let one_chunk = |bulk| ours(Bulk { one_chunk: true, ..bulk });
        let peers = all.iter().filter(|tried| !tried.way.is_ours());
        let best = peers
            // Nobody is given the server's own format by others.
            .filter(|tried| !matches!(tried.way, Way::Server(..) | Way::Psql("binary", _) | Way::PsqlUnix))
            .filter_map(|tried| tried.wall_of(self.input.rows))
            .min_by(f64::total_cmp);
        let aims = [
            ("server CPU, ours / server-side binary, both pglz (at most 1.07)", ratio(server(pglz), server(of(FLOOR)))),
            (
                "server CPU, ours / server-side binary, both lz4 (at most 1.07)",
                ratio(server(of(one)), server(of(Way::Server("binary", true)))),
            ),
            (
                "server CPU over the Unix socket, ours / server-side binary, both pglz (at most 1.07)",
                ratio(server(ours(Bulk { unix: true, pglz: true, ..Bulk::ONE })), server(of(FLOOR))),
            ),
            (
                "server CPU over the Unix socket, ours / server-side binary, both lz4 (at most 1.07)",
                ratio(server(ours(Bulk { unix: true, ..Bulk::ONE })), server(of(Way::Server("binary", true)))),
            ),
            (
                "server CPU, psql binary / server-side binary",
                ratio(server(of(Way::Psql("binary", false))), server(of(FLOOR))),
            ),
            (
                "server CPU over the Unix socket, psql binary / server-side binary",
                ratio(server(of(Way::PsqlUnix)), server(of(FLOOR))),
            ),
            ("our CPU, us a row (at most 0.6 for pyLoader's)", client(of(one))),
            (
                "server CPU, psql \\copy csv / ours (at least 3 for the court's)",
                ratio(server(of(Way::Psql("csv", false))), server(of(one))),
            ),
            ("wall, the best client / ours with 2 connections (above 1)", ratio(best, wall(of(two)))),
            ("wall, pgloader / ours with 2 connections (at least 10)", ratio(wall(of(Way::Pgloader)), wall(of(two)))),
            ("wall, 0.1% bad / clean, 1 connection (at most 1.2)", ratio(wall(with_bad(Bulk::ONE)), wall(of(one)))),
            ("wall, 0.1% bad / clean, 2 connections (at most 1.2)", ratio(wall(with_bad(Bulk::TWO)), wall(of(two)))),
            (
                "CPU of both, 0.1% bad / clean, 1 connection (at most 1.2)",
                ratio(sum(with_bad(Bulk::ONE)), sum(of(one))),
            ),
            (
                "CPU of both, chunks / one chunk, 1 connection (at most 1.02)",
                ratio(sum(of(one)), sum(one_chunk(Bulk::ONE))),
            ),
            (
                "CPU of both, chunks / one chunk, 2 connections (at most 1.02)",
                ratio(sum(of(two)), sum(one_chunk(Bulk::TWO))),
            ),
        ];
        aims.into_iter().filter_map(|(what, value)| Some((what, value?))).collect()
    }

    fn to_json(&self, all: &[Tried]) -> Result<Value, Failed> {
        let run = |cost: &Cost| json!({"wall": cost.wall, "client_us": cost.client, "server_us": cost.server});
        let tried = |tried: &Tried| {
            let runs: Vec<Value> = tried.costs.iter().map(run).collect();
            let median = tried.cost().as_ref().map(run);
            json!({
                "way": tried.name, "rows": tried.rows, "median": median, "runs": runs, "problem": tried.problem,
            })
        };
        let aims: Vec<Value> =
            self.aims(all).iter().map(|(what, value)| json!({"what": what, "value": value})).collect();
        Ok(json!({
            "table": self.input.name, "rows": self.input.rows, "bytes": self.input.bytes()?,
            "ways": all.iter().map(tried).collect::<Vec<_>>(), "aims": aims,
        }))
    }
}

fn cost_of(all: &[Tried], way: Way) -> Option<Cost> {
    all.iter().find(|tried| tried.way == way)?.cost()
}

/// The last lines of what a program said, as one.
fn last_words(log: &Path) -> String {
    let said = fs::read(log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(2)..].join(" ");
    last.chars().take(300).collect::<String>().replace('|', "/")
}
