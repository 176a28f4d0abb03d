//! An archive of JSON items, made whole and updated, against tar with what compresses it, in turn, on the same files.
//!
//! ```text
//! cargo run --release -p bulk-benches --bin compare-archive -- [--documents 90000] [--rounds 3]
//!     [--tools python,gzip,pigz,igzip,bsdtar] [--threads 2] [--reflink]
//! ```
//!
//! The documents are like those of court decisions, 0.5 to 20 KB each (500 MB by default), a file each in one folder, from
//! which each tool makes its archive. None of the peers can change an archive: what they pay for a change is what a new one
//! costs. Ours reads the changed documents, a file each too, and splices them into the archive that stands: one in a
//! thousand at random, as many side by side, one in a hundred at random. That the new archive has the bytes of one made whole
//! is checked once for each.
//!
//! With `--reflink` ours is laid out for reflinks: what a splice copies is shared where `TMPDIR` is on Btrfs or XFS.
//!
//! Rounds are interleaved; CPU time is that of the tool and what it starts, as the kernel counts it; figures are medians.
//! Needed are the peers that `--tools` names: Debian's packages python3, tar, gzip, pigz, isal, libarchive-tools.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bulk_archive::{ArchiveOptions, ArchiveWriter, Change, IndexedArchive, SpliceOptions, splice, verify};
use bulk_benches::{Cost, Failed, measured, median, need, run_if_asked};
use bulk_testkit::snapshot::opinion_json;
use clap::{Parser, ValueEnum};

/// No run takes as long, unless it hangs.
const LIMIT: Duration = Duration::from_secs(1800);
/// When all items were modified: readers of archives do not care, and neither do the measurements.
const TIME: i64 = 1_780_000_000;

/// Makes and updates archives, and prints times, CPU seconds and sizes.
#[derive(Parser)]
struct Arguments {
    /// How many documents there are.
    #[arg(long, default_value_t = 90_000)]
    documents: u64,
    /// Runs of each.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The peers.
    #[arg(long, value_delimiter = ',', default_value = "python,gzip,pigz,igzip,bsdtar")]
    tools: Vec<Peer>,
    /// How many threads compress, of ours and of pigz and igzip.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Lays ours out for reflinks.
    #[arg(long)]
    reflink: bool,
    /// Does this work of ours, and nothing else.
    #[arg(long, hide = true)]
    work: Option<Work>,
    /// The folder with the documents, or the changed ones.
    #[arg(long, hide = true, default_value = ".")]
    items: PathBuf,
    /// The archive that stands.
    #[arg(long, hide = true, default_value = ".")]
    old: PathBuf,
    /// The new archive.
    #[arg(long, hide = true, default_value = ".")]
    new: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Work {
    Build,
    Splice,
}

/// What makes an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// Python's tarfile with its defaults.
    Python,
    /// GNU tar with gzip -6.
    Gzip,
    /// GNU tar with pigz -6.
    Pigz,
    /// GNU tar with igzip -3, its best.
    Igzip,
    /// bsdtar -z.
    Bsdtar,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::Python => "Python tarfile",
            Self::Gzip => "tar, gzip -6",
            Self::Pigz => "tar, pigz -6",
            Self::Igzip => "tar, igzip -3",
            Self::Bsdtar => "bsdtar -z",
        }
    }

    fn need(self) -> Result<(), Failed> {
        match self {
            Self::Python => need("python3", "python3"),
            Self::Gzip => need("tar", "tar").and_then(|()| need("gzip", "gzip")),
            Self::Pigz => need("tar", "tar").and_then(|()| need("pigz", "pigz")),
            Self::Igzip => need("tar", "tar").and_then(|()| need("igzip", "isal")),
            Self::Bsdtar => need("bsdtar", "libarchive-tools"),
        }
    }

    fn command(self, items: &Path, archive: &Path, threads: usize) -> Command {
        let tar = |program: String| {
            let mut command = Command::new("tar");
            command.args(["--sort=name", "--format=ustar", "-I", &program, "-cf"]).arg(archive).arg("-C").arg(items);
            command.arg(".");
            command
        };
        match self {
            Self::Python => {
                let mut command = Command::new("python3");
                let program =
                    "import sys, tarfile\nwith tarfile.open(sys.argv[1], 'w:gz') as tar: tar.add(sys.argv[2], '.')";
                command.args(["-c", program]).arg(archive).arg(items);
                command
            }
            Self::Gzip => tar("gzip -6".to_owned()),
            Self::Pigz => tar(format!("pigz -6 -p {threads}")),
            Self::Igzip => tar(format!("igzip -3 -T {threads}")),
            Self::Bsdtar => {
                let mut command = Command::new("bsdtar");
                command.args(["--format=ustar", "-czf"]).arg(archive).arg("-C").arg(items).arg(".");
                command
            }
        }
    }
}

/// Which documents change.
#[derive(Clone, Copy, Debug)]
enum Changes {
    Thousandth,
    Neighbours,
    Hundredth,
}

impl Changes {
    const ALL: [Self; 3] = [Self::Thousandth, Self::Neighbours, Self::Hundredth];

    fn name(self) -> &'static str {
        match self {
            Self::Thousandth => "0.1%, at random",
            Self::Neighbours => "0.1%, side by side",
            Self::Hundredth => "1%, at random",
        }
    }

    fn numbers(self, documents: u64) -> Vec<u64> {
        let random = |count: u64| {
            let mut random = fastrand::Rng::with_seed(7);
            (0..count).map(|_| random.u64(0..documents)).collect()
        };
        let count = (documents / 1000).max(1);
        match self {
            Self::Thousandth => random(count),
            Self::Neighbours => (documents / 3..documents / 3 + count).collect(),
            Self::Hundredth => random((documents / 100).max(1)),
        }
    }
}

/// All figures of one line.
#[derive(Default)]
struct Line {
    costs: Vec<Cost>,
    size: u64,
}

impl Line {
    fn wall(&self) -> f64 {
        median(self.costs.iter().map(|cost| cost.wall))
    }

    fn cpu(&self) -> f64 {
        median(self.costs.iter().map(|cost| cost.cpu))
    }
}

fn main() -> Result<(), Failed> {
    if run_if_asked()? {
        return Ok(());
    }
    let arguments = Arguments::parse();
    match arguments.work {
        Some(Work::Build) => return build(&arguments),
        Some(Work::Splice) => return splice_files(&arguments),
        None => {}
    }
    arguments.tools.iter().try_for_each(|peer| peer.need())?;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let documents = 0..arguments.documents;
    let bytes = write_items(&path("items"), documents, 0)?;
    println!("{} cores; {} documents, {} MB\n", arguments.threads, arguments.documents, bytes / 1_000_000);
    for (place, changes) in Changes::ALL.into_iter().enumerate() {
        write_items(&path(&format!("changes-{place}")), changes.numbers(arguments.documents), 1)?;
    }

    let mut whole = Line::default();
    let mut spliced: [Line; 3] = Default::default();
    let mut peers: Vec<Line> = arguments.tools.iter().map(|_| Line::default()).collect();
    for round in 1..=arguments.rounds {
        run(
            &mut whole,
            &own(&arguments, Work::Build, &path("items"), &path("-"), &path("ours"))?,
            &path("ours"),
            "bulk",
        )?;
        for (place, line) in spliced.iter_mut().enumerate() {
            let (changes, new) = (path(&format!("changes-{place}")), path("spliced"));
            run(
                line,
                &own(&arguments, Work::Splice, &changes, &path("ours"), &new)?,
                &new,
                Changes::ALL[place].name(),
            )?;
            if round == 1 {
                check(&arguments, &path(""), place)?;
            }
        }
        for (peer, line) in arguments.tools.iter().zip(&mut peers) {
            let archive = path("theirs");
            run(line, &peer.command(&path("items"), &archive, arguments.threads), &archive, peer.name())?;
            fs::remove_file(archive)?;
        }
    }
    print(&arguments, &whole, &peers, &spliced);
    Ok(())
}

fn print(arguments: &Arguments, whole: &Line, peers: &[Line], spliced: &[Line]) {
    println!("| | wall s | CPU s | MB | CPU, of ours |\n|---|--:|--:|--:|--:|");
    let all = arguments.tools.iter().map(|peer| peer.name()).zip(peers);
    for (name, line) in [("bulk-archive", whole)].into_iter().chain(all.clone()) {
        let (wall, cpu, size) = (line.wall(), line.cpu(), line.size as f64 / 1e6);
        println!("| {name} | {wall:.2} | {cpu:.2} | {size:.1} | {:.1} |", cpu / whole.cpu());
    }
    println!("\n| changed | wall s | CPU s | {} |", all.clone().map(|(name, _)| name).collect::<Vec<_>>().join(" | "));
    println!("|---|--:|--:|{}", "--:|".repeat(peers.len()));
    for (changes, line) in Changes::ALL.iter().zip(spliced) {
        let ratio =
            |peer: &Line| format!("{:.0} × CPU, {:.0} × wall", peer.cpu() / line.cpu(), peer.wall() / line.wall());
        let ratios: Vec<_> = peers.iter().map(ratio).collect();
        println!("| {} | {:.3} | {:.3} | {} |", changes.name(), line.wall(), line.cpu(), ratios.join(" | "));
    }
}

fn run(line: &mut Line, command: &Command, archive: &Path, name: &str) -> Result<(), Failed> {
    let log = archive.with_extension("log");
    let cost = measured(command, &log, LIMIT)?;
    if cost.status != Some(0) {
        return Err(format!("{name}: {:?}: {}", cost.status, fs::read_to_string(&log)?).into());
    }
    line.size = fs::metadata(archive)?.len();
    eprintln!("{name:20} {:7.3} s, {:7.3} CPU s, {:7.1} MB", cost.wall, cost.cpu, line.size as f64 / 1e6);
    line.costs.push(cost);
    Ok(())
}

fn own(arguments: &Arguments, work: Work, items: &Path, old: &Path, new: &Path) -> Result<Command, Failed> {
    let mut command = Command::new(std::env::current_exe()?);
    let work = work.to_possible_value().ok_or("no such work")?;
    command.args(["--work", work.get_name(), "--threads", &arguments.threads.to_string(), "--items"]).arg(items);
    command.arg("--old").arg(old).arg("--new").arg(new);
    if arguments.reflink {
        command.arg("--reflink");
    }
    Ok(command)
}

fn id(number: u64) -> String {
    format!("{number:07}")
}

fn write_items(folder: &Path, numbers: impl IntoIterator<Item = u64>, edition: u64) -> Result<u64, Failed> {
    fs::create_dir(folder)?;
    let mut bytes = 0;
    for number in numbers {
        let document = opinion_json(number, edition);
        bytes += document.len() as u64;
        fs::write(folder.join(format!("{}.json", id(number))), document)?;
    }
    Ok(bytes)
}

/// The items of a folder, in the order of their ids.
fn items(folder: &Path) -> Result<BTreeMap<String, PathBuf>, Failed> {
    let mut items = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let id = path.file_stem().and_then(|name| name.to_str()).ok_or("a name that is not UTF-8")?;
        items.insert(id.to_owned(), path);
    }
    Ok(items)
}

fn create(path: &Path) -> io::Result<(File, BufWriter<File>)> {
    Ok((File::create(path)?, BufWriter::new(File::create(path.with_extension("idx"))?)))
}

fn build(arguments: &Arguments) -> Result<(), Failed> {
    let mut options = ArchiveOptions::default();
    (options.threads, options.reflink) = (arguments.threads, arguments.reflink);
    let (archive, index) = create(&arguments.new)?;
    let mut writer = ArchiveWriter::new(archive, index, "new", &options)?;
    for (id, path) in items(&arguments.items)? {
        writer.append(&id, TIME, &fs::read(path)?)?;
    }
    writer.finish()?;
    Ok(())
}

fn open(path: &Path) -> Result<IndexedArchive<File, File>, Failed> {
    Ok(IndexedArchive::open(File::open(path)?, File::open(path.with_extension("idx"))?, "old")?)
}

fn splice_files(arguments: &Arguments) -> Result<(), Failed> {
    let mut options = SpliceOptions::default();
    options.threads = arguments.threads;
    let changes = items(&arguments.items)?.into_iter().map(|(id, path)| {
        let content = fs::read(path)?;
        Ok(Change::Put { id, mtime: TIME, content })
    });
    let (archive, index) = create(&arguments.new)?;
    splice(open(&arguments.old)?, changes, archive, index, &options, |_, _| {})?;
    Ok(())
}

/// Whether the spliced archive is what a new one of the same items is.
fn check(arguments: &Arguments, folder: &Path, place: usize) -> Result<(), Failed> {
    let mut all = items(&folder.join("items"))?;
    all.extend(items(&folder.join(format!("changes-{place}")))?);
    let mut options = ArchiveOptions::default();
    (options.threads, options.reflink) = (arguments.threads, arguments.reflink);
    let (archive, index) = create(&folder.join("fresh"))?;
    let mut writer = ArchiveWriter::new(archive, index, "fresh", &options)?;
    for (id, path) in all {
        writer.append(&id, TIME, &fs::read(path)?)?;
    }
    writer.finish()?;
    for extension in ["", "idx"] {
        let [fresh, spliced] = ["fresh", "spliced"].map(|name| fs::read(folder.join(name).with_extension(extension)));
        if fresh? != spliced? {
            return Err(format!("{}: not what a new archive is", Changes::ALL[place].name()).into());
        }
    }
    verify(open(&folder.join("spliced"))?)?;
    Ok(())
}
