//! The backfill of Buildhub, against our own S3 server and a real PostgreSQL, also killed again and again.
//!
//! `BULK_KILL_SEED` repeats the moments of a failure.

#![allow(clippy::print_stdout, reason = "the seed repeats a failure")]

#[path = "../buildhub_backfill/made_up.rs"]
mod made_up;
mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bulk_testkit::postgres::{Database, shared};
use bulk_testkit::s3::{Fault, Rule, Server, Store};
use support::example;

const BUILDS: usize = 1500;
const KEYS: u64 = BUILDS as u64 * 8;
const KILLS: usize = 20;
const LIMIT: Duration = Duration::from_secs(120);

fn serve() -> Server {
    let store: Store = made_up::objects(BUILDS).collect();
    Server::builder().bucket("data", store).start().unwrap()
}

fn backfill(server: &Server, database: &Database, checkpoint: &Path) -> Command {
    let mut command = Command::new(example("buildhub_backfill"));
    command.args([database.url(), "data", &server.url()]).arg(checkpoint).stdin(Stdio::null());
    command
}

/// What a run prints, line by line. Its requests are those since the last one.
#[track_caller]
fn run(server: &Server, database: &Database, checkpoint: &Path) -> Vec<String> {
    server.clear_requests();
    let output = backfill(server, database, checkpoint).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!checkpoint.exists(), "what is done has no checkpoint");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn psql(database: &Database, sql: &str) -> String {
    shared().unwrap().psql(database.url(), sql).unwrap()
}

/// Asserts that there was one GET for each of so many objects, one LIST for each thousand of `keys`, one more at most for each
/// range, and nothing else.
#[track_caller]
fn assert_requests(server: &Server, keys: u64, gets: u64) {
    let counts = server.counts();
    assert_eq!((counts.get, counts.head, counts.refused), (gets, 0, 0));
    assert_eq!(counts.requests(), counts.lists() + gets);
    let requests = server.requests();
    let ranges =
        requests.iter().filter(|request| request.key.is_none() && request.param("continuation-token").is_none());
    let (pages, ranges) = (counts.lists(), ranges.count() as u64);
    assert!(
        pages * 1000 >= keys && (pages - ranges) * 1000 <= keys,
        "{pages} pages of {ranges} ranges for {keys} keys"
    );
}

#[test]
fn a_second_run_fetches_what_changed() {
    let server = serve();
    let odd = r#"{"ü\u007f😀": [1, -2, 0.5, true, null, {"b": "\n\t\"\\\/", "a": ""}, [], {}], "Z": "\ud83d\ude00"}"#;
    server.put("data", "odd//buildhub.json", odd).unwrap();
    let database = shared().unwrap().create_database("backfill").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("checkpoint");
    let run = || run(&server, &database, &checkpoint);

    let first =
        ["12001 keys; builds: 1501 added, 0 modified, 0 removed, 0 unchanged", "1501 fetched, 1501 stored, 0 left out"];
    assert_eq!(run(), first);
    assert_requests(&server, KEYS + 1, 1501);
    let nothing =
        ["12001 keys; builds: 0 added, 0 modified, 0 removed, 1501 unchanged", "0 fetched, 0 stored, 0 left out"];
    assert_eq!(run(), nothing);
    assert_requests(&server, KEYS + 1, 0);

    // The bodies are the bucket's, and the hashes those that Python makes, as Buildhub has it.
    for number in [0, 7, BUILDS - 1] {
        let sql = format!(
            "SELECT s3_object_key, build = $body${}$body$::jsonb FROM builds WHERE s3_object_key = '{}'",
            made_up::body(number, 1),
            made_up::key(number)
        );
        assert_eq!(psql(&database, &sql), format!("{}|t\n", made_up::key(number)));
    }
    assert_eq!(psql(&database, "SELECT count(*), count(DISTINCT build_hash) FROM builds"), "1501|1501\n");
    assert_eq!(hashed_by_python(&psql(&database, "SELECT build_hash, build FROM builds")), "1501\n");

    // One other build, and one other spelling of the same.
    let row = |number| {
        let sql = "SELECT id, created_at, build_hash, build, s3_object_etag FROM builds WHERE s3_object_key";
        psql(&database, &format!("{sql} = '{}'", made_up::key(number)))
    };
    let (before, spelled_before) = (row(3), row(4));
    server.put("data", &made_up::key(3), made_up::body(3, 2)).unwrap();
    assert_eq!(
        run(),
        ["12001 keys; builds: 0 added, 1 modified, 0 removed, 1500 unchanged", "1 fetched, 1 stored, 0 left out"]
    );
    assert_requests(&server, KEYS + 1, 1);
    server.put("data", &made_up::key(4), made_up::body(4, 1).replace('\n', "")).unwrap();
    assert_eq!(
        run(),
        ["12001 keys; builds: 0 added, 1 modified, 0 removed, 1500 unchanged", "1 fetched, 1 stored, 0 left out"]
    );
    assert_requests(&server, KEYS + 1, 1);
    let changed = |before: String, after: String| {
        let (before, after) = (before.trim_end().to_owned(), after.trim_end().to_owned());
        before.split('|').zip(after.split('|')).map(|(before, after)| before != after).collect::<Vec<_>>()
    };
    // Id and time stay.
    assert_eq!(changed(before, row(3)), [false, false, true, true, true]);
    assert_eq!(changed(spelled_before, row(4)), [false, false, false, false, true]);
    assert_eq!(run(), nothing);

    // What is gone is told each time, and stays.
    server.remove("data", &made_up::key(5)).unwrap();
    for _ in 0..2 {
        let lines = run();
        let gone = format!("gone: {}", made_up::key(5));
        let counts = "12000 keys; builds: 0 added, 0 modified, 1 removed, 1500 unchanged";
        assert_eq!(lines, [&gone, counts, nothing[1]]);
        assert_requests(&server, KEYS, 0);
    }
    assert_eq!(psql(&database, "SELECT count(*) FROM builds"), "1501\n");

    // What is bad stops nothing else, and is tried again. The last one only the server knows to be bad.
    server.put("data", "bad/1/buildhub.json", "{\"build\": ").unwrap();
    server.put("data", "bad/2/buildhub.json", "[]").unwrap();
    server.put("data", "bad/3/buildhub.json", "{\"build\": \"\\u0000\"}").unwrap();
    server.put("data", "good/buildhub.json", "{}").unwrap();
    for stored in [1, 0] {
        let mut lines = run();
        let end = lines.split_off(lines.len() - 2);
        lines.sort();
        assert_eq!(
            lines,
            [
                format!("gone: {}", made_up::key(5)),
                "left out: bad/1/buildhub.json: it is no JSON: EOF while parsing a value at line 1 column 10"
                    .to_owned(),
                "left out: bad/2/buildhub.json: it is JSON, but no object".to_owned(),
                format!("left out: bad/3/buildhub.json: {}", lines[3].rsplit_once("json: ").unwrap().1),
            ]
        );
        assert!(lines[3].contains("unsupported Unicode escape sequence"), "{lines:?}");
        assert_eq!(
            end,
            [
                format!("12004 keys; builds: {} added, 0 modified, 1 removed, {} unchanged", 3 + stored, 1501 - stored),
                format!("{} fetched, {stored} stored, 3 left out", 3 + stored)
            ]
        );
    }
    assert_eq!(psql(&database, "SELECT count(*) FROM builds WHERE s3_object_etag IS NOT NULL"), "1502\n");
}

/// How many lines have a hash and the build that Python gives this hash.
fn hashed_by_python(lines: &str) -> String {
    let script = "
import hashlib, json, sys
lines = [line.rstrip('\\n').split('|', 1) for line in sys.stdin]
print(sum(1 for hash, build in lines
          if hash == 'v1:' + hashlib.md5(json.dumps(json.loads(build), sort_keys=True).encode()).hexdigest()))";
    let mut python = Command::new("python3")
        .args(["-X", "utf8", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Starts the command, waits until `is_time` says so, and kills it as `kill -9` does.
#[track_caller]
fn kill_when(mut command: Command, mut is_time: impl FnMut() -> bool) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + LIMIT;
    while !is_time() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        if Instant::now() >= deadline {
            child.kill().unwrap();
            panic!("the moment to kill it never came");
        }
        // What it waits for is seen when it is there; this only leaves the processor to those that bring it about.
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "it ended before it was killed");
}

#[test]
fn the_table_is_the_same_however_often_it_is_killed() {
    let seed = std::env::var("BULK_KILL_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    println!("BULK_KILL_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let server = serve();
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("checkpoint");
    let [undisturbed, database] =
        ["undisturbed", "killed"].map(|name| shared().unwrap().create_database(name).unwrap());
    run(&server, &undisturbed, &checkpoint);

    // So that none of the runs is done before it is killed, or far beyond its moment.
    server.fault(Rule::new(Fault::Latency(Duration::from_millis(100))).suffix("buildhub.json"));
    server.fault(Rule::new(Fault::Hang).key(&made_up::key(random.usize(..BUILDS))));
    let exists = || psql(&database, "SELECT to_regclass('builds') IS NOT NULL") == "t\n";
    let rows = || match exists() {
        true => psql(&database, "SELECT count(*) FROM builds").trim_end().parse::<u64>().unwrap(),
        false => 0,
    };
    let mut resumed = 0;
    for kill in 0..KILLS {
        let before = rows();
        let left = BUILDS as u64 - before;
        let some = random.u64(1..=250).min(left);
        let step = random.u64(1..=5);
        resumed += u64::from(checkpoint.exists());
        server.clear_requests();
        let command = backfill(&server, &database, &checkpoint);
        match kill % 4 {
            // Near the end there may be no second page to list.
            0 => kill_when(command, || server.counts().lists() >= if left > 700 { step } else { 1 }),
            1 | 2 => kill_when(command, || server.counts().get >= some),
            // The one that hangs does not come.
            _ => kill_when(command, || rows() >= before + some.min(left - 1)),
        }
        // What was on its way to the server may still be committed.
        let others = "SELECT count(*) FROM pg_stat_activity
                      WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
        let deadline = Instant::now() + LIMIT;
        while psql(&database, others) != "0\n" {
            assert!(Instant::now() < deadline, "the sessions of a program that is gone do not end");
        }
        let after = rows();
        let counts = server.counts();
        println!("{kill}: {before} rows before, {} LISTs, {} GETs, {after} rows", counts.lists(), counts.get);
        assert!(after >= before);
        if exists() {
            // None without its mark.
            assert_eq!(psql(&database, "SELECT count(*) FROM builds WHERE s3_object_etag IS NULL"), "0\n");
        }
    }
    assert!(resumed > 0, "no checkpoint was ever left");

    server.clear_faults();
    let before = rows();
    let lines = run(&server, &database, &checkpoint);
    let missing = BUILDS as u64 - before;
    assert!(missing > 0);
    assert_eq!(lines.last().unwrap(), &format!("{missing} fetched, {missing} stored, 0 left out"));
    assert_eq!(server.counts().get, missing);
    let table = "SELECT s3_object_key, s3_object_etag, build_hash, build FROM builds ORDER BY s3_object_key";
    let (killed, whole) = (psql(&database, table), psql(&undisturbed, table));
    assert_eq!(whole.lines().count(), BUILDS);
    assert!(killed == whole, "the tables differ");
    let nothing =
        ["12000 keys; builds: 0 added, 0 modified, 0 removed, 1500 unchanged", "0 fetched, 0 stored, 0 left out"];
    assert_eq!(run(&server, &database, &checkpoint), nothing);
}
