//! What the tests of the program share: the built binary, a PostgreSQL for all tests of a file, and a served snapshot.
#![allow(dead_code, unused_imports, reason = "each test file uses a part of this")]

mod campaign;
mod fetch;
mod gate;
mod proxy;
#[cfg(unix)]
mod running;
#[cfg(target_os = "linux")]
mod slow_disk;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use assert_cmd::cargo::CommandCargoExt;
use bulk_testkit::postgres::{self, Database, Durability};
use bulk_testkit::s3::{self, EtagStyle, Store};
use bulk_testkit::snapshot::{self, Snapshot, Spec, TABLES};
use serde_json::Value;

pub(crate) use campaign::{Campaign, Disturbed, Work};
pub(crate) use fetch::{DATA, Fetch};
pub(crate) use gate::Gate;
#[cfg(unix)]
pub(crate) use running::Running;
#[cfg(target_os = "linux")]
pub(crate) use slow_disk::SlowDisk;

pub(crate) const BUCKET: &str = "com-courtlistener-storage";

/// Nothing listens there: port 1 is tcpmux, which no machine runs.
pub(crate) const NOWHERE: &str = "127.0.0.1:1";

/// Longer than any command of these tests takes; one that hangs fails instead of holding up the others.
const LIMIT: Duration = Duration::from_secs(180);

/// The program, with nothing in its environment that would change what it does.
pub(crate) fn bulk<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::cargo_bin("bulk").unwrap();
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_uppercase();
        if upper.starts_with("BULK_")
            || upper.starts_with("AWS_")
            || upper.starts_with("PG")
            || upper.ends_with("_PROXY")
        {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// A run of the program that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn of(command: Command) -> Self {
        let output = assert_cmd::Command::from_std(command).timeout(LIMIT).output().unwrap();
        Self {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Of a program that is given these bytes over standard input.
    #[track_caller]
    pub(crate) fn fed(command: Command, bytes: impl Into<Vec<u8>>) -> Self {
        let mut command = assert_cmd::Command::from_std(command);
        let output = command.write_stdin(bytes.into()).timeout(LIMIT).output().unwrap();
        Self {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Asserts the exit status, and that each text was said to people.
    #[track_caller]
    pub(crate) fn assert(&self, status: i32, said: &[&str]) {
        assert_eq!(self.status, Some(status), "{}{}", self.stdout, self.stderr);
        for text in said {
            assert!(self.stderr.contains(text), "{text:?} is not in:\n{}", self.stderr);
        }
    }

    /// The events of a run with `--json`: every line of stdout must be one, and stderr empty.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<Value> {
        assert_eq!(self.stderr, "");
        let event = |line: &str| {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(value["event"].is_string(), "{line}");
            value
        };
        self.stdout.lines().map(event).collect()
    }

    /// Those of one kind.
    #[track_caller]
    pub(crate) fn events_of(&self, kind: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["event"] == kind).collect()
    }
}

/// Starts the command, waits until `is_time` says so, and kills it as `kill -9` does.
#[track_caller]
pub(crate) fn kill_when(command: Command, is_time: impl FnMut() -> bool) {
    assert!(is_killed_when(command, is_time), "it ended before it could be killed");
}

/// The same for a moment that is so short that it may be over before it is seen. Whether it was killed.
#[track_caller]
pub(crate) fn is_killed_when(mut command: Command, mut is_time: impl FnMut() -> bool) -> bool {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + LIMIT;
    while !is_time() {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if Instant::now() >= deadline {
            child.kill().unwrap();
            panic!("the moment to kill it never came");
        }
        // What it waits for is seen when it is there; this only leaves the processor to those that bring it about.
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap().code().is_none()
}

/// The server of this test file. What is killed in these tests is the program and never the server, so its commits need
/// not wait for the disk.
pub(crate) fn server() -> &'static postgres::Server {
    static SERVER: OnceLock<postgres::Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let mut options = postgres::Options::default();
        options.durability = Durability::Off;
        postgres::Server::start(&options).unwrap()
    })
}

/// What psql prints for `sql`, without the last line end.
#[track_caller]
pub(crate) fn sql(database: &Database, sql: &str) -> String {
    server().psql(database.url(), sql).unwrap().trim_end_matches('\n').to_owned()
}

/// All regular files below `folder` with their bytes, but for those of hidden folders, where the program keeps its state.
pub(crate) fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(folder: &Path, prefix: &str, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_file() {
                found.insert(format!("{prefix}{name}"), std::fs::read(entry.path()).unwrap());
            } else if !name.starts_with('.') {
                walk(&entry.path(), &format!("{prefix}{name}/"), found);
            }
        }
    }
    let mut found = BTreeMap::new();
    if folder.exists() {
        walk(folder, "", &mut found);
    }
    found
}

/// A path in the data for tests that lie beside the project and not in it. `None` where there are none, which is a
/// failure with `CI=true`.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(path);
    let found = shared.exists();
    assert!(found || std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{} is missing", shared.display());
    found.then_some(shared)
}

/// The keys that were asked for with GET, in the order of the requests.
pub(crate) fn gets(server: &s3::Server) -> Vec<String> {
    server.requests().into_iter().filter_map(|request| request.key).collect()
}

/// The stretches of a file under way that its record in `out` says are safe on disk.
pub(crate) fn noted(out: &Path, name: &str) -> Vec<Range<u64>> {
    let text = std::fs::read(out.join(format!(".bulk/{name}.json"))).unwrap_or_default();
    let record: Value = serde_json::from_slice(&text).unwrap_or_default();
    let stretches = record["ranges"].as_array().cloned().unwrap_or_default();
    stretches.iter().map(|range| range["start"].as_u64().unwrap()..range["end"].as_u64().unwrap()).collect()
}

/// How many bytes those are.
pub(crate) fn total(stretches: &[Range<u64>]) -> u64 {
    stretches.iter().map(|range| range.end - range.start).sum()
}

/// The stretches that a server was asked for, of an object of `size` bytes, and how many bytes it sent of that object. A
/// request for all of it may be one for its digests, of which no more than the head is taken.
pub(crate) fn asked(server: &s3::Server, key: &str, size: u64) -> (Vec<Range<u64>>, u64) {
    let requests: Vec<_> =
        server.requests().into_iter().filter(|request| request.key.as_deref() == Some(key)).collect();
    let stretch = |range: &String| {
        let (start, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        start.parse().unwrap()..last.parse::<u64>().map_or(size, |last| last + 1)
    };
    let stretches = requests.iter().filter_map(|request| request.range.as_ref().map(stretch)).collect();
    (stretches, requests.iter().map(|request| request.bytes_sent).sum())
}

/// Asserts that nothing of `there` is in `asked`.
#[track_caller]
pub(crate) fn assert_apart(asked: &[Range<u64>], there: &[Range<u64>]) {
    for range in asked {
        let twice = there.iter().find(|there| range.start < there.end && there.start < range.end);
        assert_eq!(twice, None, "{range:?} was asked for, although that was there");
    }
}

/// A bucket folder with a snapshot in it, its server, and a database.
pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) bucket: s3::Server,
    pub(crate) database: Database,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("bucket/bulk-data")).unwrap();
        let store = Store::folder(folder.path().join("bucket"), EtagStyle::Multipart);
        let bucket = s3::Server::builder().bucket(BUCKET, store).start().unwrap();
        let database = server().create_database("mirror").unwrap();
        Self { folder, bucket, database }
    }

    pub(crate) fn with(spec: &Spec) -> (Self, Snapshot) {
        let bench = Self::new();
        let made = snapshot::generate(spec, &bench.data()).unwrap();
        (bench, made)
    }

    /// The folder of the snapshot's files.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("bucket/bulk-data")
    }

    pub(crate) fn file(&self, base: &str) -> PathBuf {
        self.data().join(format!("{base}-2026-06-30.csv.bz2"))
    }

    /// `bulk mirror` of a data set, with whatever it takes to find bucket and database.
    pub(crate) fn command_of(&self, dataset: &str, more: &[&str]) -> Command {
        let mut command = bulk(["mirror", dataset, "--endpoint", &self.bucket.url(), "--dir"]);
        command.arg(self.folder.path().join("files")).args(more).env("BULK_DB", self.database.url());
        command
    }

    pub(crate) fn command(&self, more: &[&str]) -> Command {
        self.command_of("courtlistener", more)
    }

    #[track_caller]
    pub(crate) fn mirror(&self, more: &[&str]) -> Ran {
        Ran::of(self.command(more))
    }

    #[track_caller]
    pub(crate) fn sql(&self, text: &str) -> String {
        sql(&self.database, text)
    }

    /// Asserts that each table holds exactly the generator's rows, by count and by a sum of row hashes that the server
    /// computes.
    #[track_caller]
    pub(crate) fn assert_holds(&self, made: &Snapshot) {
        for file in &made.files {
            let table = TABLES.iter().find(|table| table.name == file.table).unwrap();
            let columns: Vec<_> = table.csv.iter().map(|column| format!("\"{column}\"")).collect();
            let sql = format!(
                "SET timezone = 'UTC'; SELECT count(*) || ' ' || coalesce(sum(('x' || substr(md5(ROW({})::text), 1, 15))::bit(60)::bigint), 0) FROM {}",
                columns.join(", "),
                table.name
            );
            assert_eq!(self.sql(&sql), format!("{} {}", file.rows, file.row_md5_sum), "{}", table.name);
        }
    }
}

/// A snapshot of some thousand rows.
pub(crate) fn small() -> Spec {
    Spec { scale: 0.02, ..Spec::default() }
}
