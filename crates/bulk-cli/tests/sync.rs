//! `bulk sync` and `bulk known`, from a loopback server into a real PostgreSQL, folders and pipes.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bulk_s3::key_of_path;
use bulk_testkit::postgres::Database;
use bulk_testkit::s3::{Fault, Rule, Server, Store};
use rustix::process::Signal;
use serde_json::Value;
use support::{NOWHERE, Ran, Running, bulk, files, kill_when, server, sql};

/// Keys on a page.
const PAGE: usize = 100;

fn body(number: usize) -> String {
    format!("{{\"number\": {number}}}")
}

fn key(number: usize) -> String {
    format!("builds/{number:04}.json")
}

fn serve(objects: usize) -> Server {
    let store: Store = (0..objects).map(|number| (key(number), body(number))).collect();
    Server::builder().bucket("data", store).max_keys_cap(PAGE).start().unwrap()
}

/// A bucket, a database, and a folder for what the program keeps.
struct Bench {
    bucket: Server,
    database: Database,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new(objects: usize) -> Self {
        Self {
            bucket: serve(objects),
            database: server().create_database("sync").unwrap(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bulk(arguments);
        command.args(["--endpoint", &self.bucket.url(), "--anonymous", "--listers", "1"]);
        command.env("XDG_STATE_HOME", self.folder.path().join("state")).current_dir(self.folder.path());
        command
    }

    /// A sync into the table `object`.
    fn sync_table(&self, more: &[&str]) -> Command {
        let mut command = self.command(&["sync", "s3://data", "--table", "object"]);
        command.args(more).env("BULK_DB", self.database.url());
        command
    }

    #[track_caller]
    fn sql(&self, text: &str) -> String {
        sql(&self.database, text)
    }

    /// Rows of the table, those of them that are known as they are, and known objects.
    fn stored(&self) -> String {
        let is_there = self.sql("SELECT to_regclass('object') IS NOT NULL");
        if is_there == "f" {
            return "0|0|0".to_owned();
        }
        self.sql(
            "SELECT (SELECT count(*) FROM object), count(o.key), count(*)
             FROM bulk.known_object k LEFT JOIN object o ON o.key = k.key AND o.etag IS NOT DISTINCT FROM k.etag",
        )
    }

    /// Asserts that the table holds these objects, each once, as they are, and that just these are known.
    #[track_caller]
    fn assert_holds(&self, objects: impl IntoIterator<Item = (String, String)>) {
        let rows = self.sql("SELECT key || ' ' || body::text FROM object ORDER BY key COLLATE \"C\"");
        let expected: Vec<_> = objects.into_iter().map(|(key, body)| format!("{key} {body}")).collect();
        assert!(rows.lines().eq(expected.iter()), "{rows}\n{expected:?}");
        let count = expected.len();
        assert_eq!(self.stored(), format!("{count}|{count}|{count}"));
    }

    /// LISTs and GETs since the last time; there were no other requests.
    #[track_caller]
    fn requests(&self) -> (u64, u64) {
        let counts = self.bucket.counts();
        assert_eq!(counts.requests(), counts.list_v2 + counts.get, "{counts:?}");
        self.bucket.clear_requests();
        (counts.list_v2, counts.get)
    }

    /// What the program has left below its state folder.
    fn checkpoints(&self) -> Vec<String> {
        let Ok(found) = self.folder.path().join("state/bulk").read_dir() else { return Vec::new() };
        found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn objects(count: usize) -> impl Iterator<Item = (String, String)> {
    (0..count).map(|number| (key(number), body(number)))
}

#[track_caller]
fn run(command: Command, status: i32) -> Ran {
    let ran = Ran::of(command);
    ran.assert(status, &[]);
    ran
}

#[test]
fn a_second_run_fetches_nothing_and_a_changed_object_is_fetched_alone() {
    let bench = Bench::new(250);
    let ran = run(bench.sync_table(&["--dry-run"]), 0);
    assert_eq!(
        ran.stdout,
        "fetch 250 new objects and 0 that are others now (3.6 KiB), tell of 0 that are gone, and leave 0 as they are, of 250 keys\n"
    );
    assert_eq!(bench.requests(), (3, 0));
    assert_eq!(bench.sql("SELECT count(*) FROM pg_class WHERE relname IN ('object', 'known_object')"), "0");

    let ran = run(bench.sync_table(&[]), 0);
    assert!(ran.stderr.contains("250 objects fetched (3.6 KiB), 250 stored, 0 of known content"), "{}", ran.stderr);
    assert_eq!(bench.requests(), (3, 250));
    bench.assert_holds(objects(250));

    let ran = run(bench.sync_table(&["--json"]), 0);
    let synced = ran.events_of("synced");
    let figure = |name: &str| synced[0][name].as_u64();
    assert_eq!((synced.len(), figure("keys"), figure("unchanged")), (1, Some(250), Some(250)));
    assert_eq!((figure("fetched"), figure("stored")), (Some(0), Some(0)));
    assert_eq!(bench.requests(), (3, 0));

    bench.bucket.put("data", &key(77), "{\"number\": \"other\"}").unwrap();
    run(bench.sync_table(&[]), 0);
    assert_eq!(bench.requests(), (3, 1));
    bench.assert_holds(objects(250).map(|(of, body)| match of == key(77) {
        true => (of, "{\"number\": \"other\"}".to_owned()),
        false => (of, body),
    }));
    assert_eq!(bench.checkpoints(), [""; 0]);
}

#[test]
fn what_is_gone_is_told_or_removed_or_neither() {
    let bench = Bench::new(30);
    run(bench.sync_table(&[]), 0);
    bench.bucket.remove("data", &key(5)).unwrap();
    let told = |deletions: &str| {
        let events = run(bench.sync_table(&["--json", "--deletions", deletions]), 0).events_of("removed");
        events.iter().map(|event| event["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(told("ignore"), [""; 0]);
    // Reported by each run, as it stays.
    assert_eq!([told("report"), told("report")], [[key(5)], [key(5)]]);
    bench.assert_holds(objects(30));
    assert_eq!(told("apply"), [key(5)]);
    assert_eq!(told("apply"), [""; 0]);
    bench.assert_holds(objects(30).filter(|(of, _)| *of != key(5)));
}

#[test]
fn a_listing_of_another_bucket_removes_nothing() {
    let bench = Bench::new(3);
    run(bench.sync_table(&[]), 0);
    bench.requests();
    std::fs::write(bench.folder.path().join("other.csv"), "bucket,key,etag\nother,a,x\n").unwrap();
    let ran = run(bench.sync_table(&["--listing", "other.csv", "--deletions", "apply"]), 2);
    assert!(ran.stderr.contains("the listing has no key of s3://data: with --deletions apply"), "{}", ran.stderr);
    let ran = run(bench.sync_table(&["--listing", "other.csv"]), 0);
    assert!(ran.stderr.contains("3 gone"), "{}", ran.stderr);
    assert_eq!(bench.requests(), (0, 0));
    bench.assert_holds(objects(3));
}

#[test]
fn what_cannot_be_stored_is_named_and_tried_again() {
    let bench = Bench::new(20);
    bench.bucket.put("data", "bad\n.json", "{\"a\":").unwrap();
    let denied = Fault::Status { code: 403, error: "AccessDenied".to_owned(), retry_after: None };
    bench.bucket.fault(Rule::new(denied).key(&key(3)));
    let ran = run(bench.sync_table(&[]), 3);
    for said in [
        "left out: \"bad\\n.json\" (",
        "): its body is no JSON: EOF while parsing a value at line 1 column 5",
        "left out: \"builds/0003.json\" (",
        "is denied (AccessDenied",
        "19 stored",
        "2 objects are left out; the next run tries them again",
    ] {
        assert!(ran.stderr.contains(said), "{said} is not in {}", ran.stderr);
    }
    bench.assert_holds(objects(20).filter(|(of, _)| *of != key(3)));
    // It is complete but for these, so nothing is left of it.
    assert_eq!(bench.checkpoints(), [""; 0]);

    bench.bucket.clear_faults();
    bench.requests();
    let ran = run(bench.sync_table(&["--json"]), 3);
    let events = ran.events_of("quarantined");
    assert_eq!(events.len(), 1);
    assert_eq!((&events[0]["key"], events[0]["etag"].as_str().unwrap().len()), (&"bad\n.json".into(), 32));
    assert_eq!(events[0]["reason"], "its body is no JSON: EOF while parsing a value at line 1 column 5");
    assert_eq!(bench.requests(), (1, 2));
    bench.bucket.put("data", "bad\n.json", "{}").unwrap();
    run(bench.sync_table(&[]), 0);
    assert_eq!(bench.requests(), (1, 1));
    assert_eq!(bench.stored(), "21|21|21");
}

#[test]
fn ctrl_c_keeps_what_is_done() {
    let bench = Bench::new(4 * PAGE);
    // In the last page one object cannot be stored, and one never comes.
    bench.bucket.put("data", &key(3 * PAGE + 7), "none").unwrap();
    let hang = bench.bucket.fault(Rule::new(Fault::Hang).key(&key(4 * PAGE - 1)));
    let mut running = Running::start(bench.sync_table(&[]));
    let all = 4 * PAGE - 2;
    running.wait_until("all that comes", |said| {
        said.contains("left out") && bench.stored() == format!("{all}|{all}|{all}")
    });
    running.signal(Signal::INT);
    let (status, said) = running.end();
    assert_eq!(status, Some(130), "{said}");
    assert!(said.contains("stopping") && said.ends_with("run the same command again to go on\n"), "{said}");
    let checkpoints = bench.checkpoints();
    assert!(matches!(&checkpoints[..], [name] if name.starts_with("sync-")), "{checkpoints:?}");

    hang.remove();
    bench.requests();
    // Only the last page is listed again, and what is missing of it fetched.
    let ran = run(bench.sync_table(&[]), 3);
    assert!(ran.stderr.contains("goes on behind 300 keys that an earlier run has dealt with"), "{}", ran.stderr);
    assert_eq!(bench.requests(), (1, 2));
    assert_eq!(bench.checkpoints(), [""; 0]);
    bench.bucket.put("data", &key(3 * PAGE + 7), body(3 * PAGE + 7)).unwrap();
    run(bench.sync_table(&[]), 0);
    assert_eq!(bench.requests(), (4, 1));
    bench.assert_holds(objects(4 * PAGE));
}

#[test]
fn a_stretch_with_an_object_that_was_left_out_is_not_done() {
    let bench = Bench::new(3 * PAGE);
    bench.bucket.put("data", &key(7), "none").unwrap();
    let hang = bench.bucket.fault(Rule::new(Fault::Hang).key(&key(3 * PAGE - 1)));
    let mut running = Running::start(bench.sync_table(&[]));
    let all = 3 * PAGE - 2;
    running.wait_until("all that comes", |_| bench.stored() == format!("{all}|{all}|{all}"));
    running.signal(Signal::INT);
    assert_eq!(running.end().0, Some(130));
    hang.remove();
    bench.requests();
    // The first page and the last one.
    let ran = run(bench.sync_table(&[]), 3);
    assert!(ran.stderr.contains("left out: \"builds/0007.json\""), "{}", ran.stderr);
    assert_eq!(bench.requests(), (2, 2));
    assert_eq!(bench.stored(), format!("{0}|{0}|{0}", all + 1));
}

#[test]
fn whatever_kills_it_the_table_is_the_bucket() {
    const KILLS: usize = 10;
    let seed = std::env::var("BULK_KILL_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(seed);
    let bench = Bench::new(800);
    // Nothing was fetched before this run, and this is known: it is removed by a run, once.
    let latency = bench.bucket.fault(Rule::new(Fault::Latency(Duration::from_millis(5))).prefix("builds/"));
    let mut fetched = 0;
    for kill in 0..KILLS {
        let moment = random.u64(1..60);
        kill_when(bench.sync_table(&["--jobs", "4"]), || bench.bucket.counts().get >= moment);
        fetched += bench.requests().1;
        // The server may be about to commit what it was told to by one that is dead.
        let connections =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        while bench.sql(connections) != "0" {
            std::thread::yield_now();
        }
        let stored = bench.stored();
        let counts: BTreeSet<_> = stored.split('|').collect();
        assert_eq!(counts.len(), 1, "seed {seed}, kill {kill}: {stored}");
    }
    latency.remove();
    run(bench.sync_table(&[]), 0);
    fetched += bench.requests().1;
    bench.assert_holds(objects(800));
    // What was under way or waited for its batch came again, and nothing else.
    assert!((800..800 + KILLS as u64 * 60).contains(&fetched), "seed {seed}: {fetched}");
    run(bench.sync_table(&[]), 0);
    assert_eq!(bench.requests(), (8, 0));
    assert_eq!(bench.checkpoints(), [""; 0]);
}

#[test]
fn a_checkpoint_of_another_job_is_refused() {
    let bench = Bench::new(2 * PAGE);
    let checkpoint = bench.folder.path().join("here");
    let with = |more: &[&str]| {
        let mut command = bench.sync_table(&["--checkpoint", "here"]);
        command.args(more);
        command
    };
    bench.bucket.fault(Rule::new(Fault::Hang).key(&key(PAGE)));
    let mut running = Running::start(with(&[]));
    let all = 2 * PAGE - 1;
    running.wait_until("all that comes", |_| bench.stored() == format!("{all}|{all}|{all}"));
    running.signal(Signal::INT);
    assert_eq!(running.end().0, Some(130));
    bench.bucket.clear_faults();
    let before = std::fs::read(&checkpoint).unwrap();
    for (more, said) in [
        (&["--suffix", "7.json"][..], "its filter was"),
        (&["--deletions", "apply"], "its target was"),
        (&["--compare", "size"], "its comparison was \"etag\" and is \"size\" now"),
    ] {
        let ran = run(with(more), 2);
        assert!(ran.stderr.contains(said) && ran.stderr.contains("here: it is of another job"), "{}", ran.stderr);
        assert!(ran.stderr.contains("--restart begins anew"), "{}", ran.stderr);
        assert!(std::fs::read(&checkpoint).unwrap() == before);
    }
    bench.requests();
    run(with(&["--restart", "--compare", "size"]), 0);
    assert_eq!(bench.requests().0, 2);
    assert!(!checkpoint.exists());
    bench.assert_holds(objects(2 * PAGE));
}

#[test]
fn a_checkpoint_that_nobody_named_and_that_is_damaged_is_no_hindrance() {
    let bench = Bench::new(2 * PAGE);
    bench.bucket.fault(Rule::new(Fault::Hang).key(&key(PAGE)));
    let mut running = Running::start(bench.sync_table(&[]));
    let all = 2 * PAGE - 1;
    running.wait_until("all that comes", |_| bench.stored() == format!("{all}|{all}|{all}"));
    running.signal(Signal::INT);
    assert_eq!(running.end().0, Some(130));
    bench.bucket.clear_faults();
    let kept = bench.checkpoints();
    assert_eq!(kept.len(), 1);
    std::fs::write(bench.folder.path().join("state/bulk").join(&kept[0]), b"").unwrap();
    bench.requests();
    let ran = run(bench.sync_table(&[]), 0);
    assert!(ran.stderr.contains("it is none") && ran.stderr.contains("begins anew"), "{}", ran.stderr);
    assert_eq!(bench.requests(), (2, 1));
    bench.assert_holds(objects(2 * PAGE));
    assert_eq!(bench.checkpoints(), [""; 0]);
}

#[test]
fn a_table_that_was_emptied_is_not_taken_for_one_that_has_all() {
    let bench = Bench::new(3);
    let warning = "object has no rows, but objects are known in";
    assert!(!run(bench.sync_table(&[]), 0).stderr.contains(warning));
    assert!(!run(bench.sync_table(&[]), 0).stderr.contains(warning));
    bench.sql("TRUNCATE object");
    let ran = run(bench.sync_table(&[]), 0);
    assert!(ran.stderr.contains(warning), "{}", ran.stderr);
    assert_eq!(bench.sql("SELECT count(*) FROM object"), "0");
}

/// The files of a folder by the keys that they stand for.
fn by_key(folder: &Path) -> BTreeMap<String, String> {
    let found = files(folder).into_iter();
    found.map(|(path, bytes)| (key_of_path(Path::new(&path)).unwrap(), String::from_utf8(bytes).unwrap())).collect()
}

#[test]
fn a_folder_knows_by_itself_what_it_has() {
    let bench = Bench::new(150);
    let odd = ["a//b", "/c", "d/../e f+%", ".bulk/known.db", "é\u{1}"];
    for key in odd {
        bench.bucket.put("data", key, key).unwrap();
    }
    let folder = bench.folder.path().join("out");
    let sync = |more: &[&str]| {
        let mut command = bench.command(&["sync", "s3://data", "--out", "out"]);
        command.args(more);
        command
    };
    run(sync(&["--dry-run"]), 0);
    assert!(!folder.exists());
    // What no URL can name is left out.
    let ran = run(sync(&[]), 3);
    assert!(ran.stderr.contains("left out: \"d/../e f+%\""), "{}", ran.stderr);
    let fetched = |except: &str| -> BTreeMap<_, _> {
        let odd = odd.iter().filter(|key| **key != except).map(|key| ((*key).to_owned(), (*key).to_owned()));
        objects(150).chain(odd).collect()
    };
    assert_eq!(by_key(&folder), fetched("d/../e f+%"));
    let own: BTreeSet<_> = folder.join(".bulk").read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(own, BTreeSet::from(["known.db".into()]));
    bench.requests();
    bench.bucket.remove("data", "d/../e f+%").unwrap();
    bench.bucket.remove("data", "a//b").unwrap();
    run(sync(&["--deletions", "apply"]), 0);
    assert_eq!(bench.requests(), (2, 0));
    let mut expected = fetched("d/../e f+%");
    expected.remove("a//b");
    assert_eq!(by_key(&folder), expected);
}

#[test]
fn a_folder_has_one_run_at_a_time() {
    let bench = Bench::new(1);
    bench.bucket.fault(Rule::new(Fault::Hang));
    let sync = || bench.command(&["sync", "s3://data", "--out", "out"]);
    let mut running = Running::start(sync());
    running.wait_until("its request", |_| bench.bucket.counts().list_v2 > 0);
    let ran = run(sync(), 1);
    assert!(ran.stderr.contains("out is in use by another download"), "{}", ran.stderr);
    running.signal(Signal::INT);
    assert_eq!(running.end().0, Some(130));
}

#[test]
fn a_table_has_one_run_at_a_time() {
    let bench = Bench::new(2);
    bench.bucket.fault(Rule::new(Fault::Hang).key(&key(1)));
    let mut running = Running::start(bench.sync_table(&[]));
    running.wait_until("the first object", |_| bench.stored() == "1|1|1");
    let ran = run(bench.sync_table(&[]), 1);
    assert!(ran.stderr.contains("table public.object is being loaded by another session"), "{}", ran.stderr);
    running.signal(Signal::INT);
    assert_eq!(running.end().0, Some(130));
}

#[test]
fn lines_go_to_standard_output() {
    let bench = Bench::new(3);
    bench.bucket.put("data", "text", "no JSON").unwrap();
    let sync = || bench.command(&["sync", "s3://data", "--stdout", "--known", "sqlite:known.db"]);
    let ran = run(sync(), 0);
    let mut lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.sort_by_key(|line| line["key"].as_str().unwrap().to_owned());
    let fields: Vec<_> =
        lines.iter().map(|line| (&line["key"], &line["body"]["number"], &line["body_base64"])).collect();
    let null = &Value::Null;
    let keys: Vec<Value> = (0..3).map(|number| key(number).into()).chain(["text".into()]).collect();
    let base64 = Value::from("bm8gSlNPTg==");
    let numbers: Vec<Value> = (0..3).map(Value::from).collect();
    assert_eq!(
        fields,
        [
            (&keys[0], &numbers[0], null),
            (&keys[1], &numbers[1], null),
            (&keys[2], &numbers[2], null),
            (&keys[3], null, &base64)
        ]
    );
    assert_eq!(run(sync(), 0).stdout, "");
    let left: BTreeSet<_> = files(bench.folder.path()).into_keys().collect();
    assert_eq!(left, BTreeSet::from(["known.db".to_owned()]));
}

#[test]
fn nothing_is_known_of_what_nobody_took() {
    let bench = Bench::new(3);
    let sync = || bench.command(&["sync", "s3://data", "--stdout", "--known", "sqlite:known.db"]);
    let hang = bench.bucket.fault(Rule::new(Fault::Hang).list());
    let mut child = sync().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Who reads it is gone before anything comes.
    drop(child.stdout.take());
    hang.remove();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("stdout: cannot be written to: Broken pipe"), "{said}");
    assert_eq!(run(sync(), 0).stdout.lines().count(), 3);
}

#[test]
fn what_is_known_goes_to_files_and_comes_from_them() {
    let bench = Bench::new(120);
    run(bench.sync_table(&["--known", "sqlite:known.db"]), 0);
    bench.requests();
    let known = |arguments: &[&str]| {
        let mut command = bulk([&["known"], arguments].concat());
        command.current_dir(bench.folder.path());
        run(command, 0)
    };
    for name in ["known.ndjson", "known.csv", "known.parquet"] {
        let ran = known(&["export", "s3://data", "--known", "sqlite:known.db", "--out", name]);
        assert!(ran.stderr.contains("120 known objects written"), "{}", ran.stderr);
        let store = format!("sqlite:{name}.db");
        let ran = known(&["import", "s3://data", name, "--known", &store]);
        assert!(ran.stderr.contains("120 objects are known of"), "{}", ran.stderr);
        // It is as if they had been fetched.
        run(bench.command(&["sync", "s3://data", "--out", name.split_once('.').unwrap().1, "--known", &store]), 0);
        assert_eq!(bench.requests(), (2, 0));
    }
    let csv = std::fs::read_to_string(bench.folder.path().join("known.csv")).unwrap();
    let ran = known(&["export", "s3://data", "--known", "sqlite:known.ndjson.db", "--format", "csv"]);
    assert_eq!(ran.stdout, csv);
    assert_eq!(csv.lines().count(), 121);
    // The rows of a bucket are its own.
    let ran = known(&["import", "s3://other", "known.csv", "--known", "sqlite:known.db"]);
    assert!(ran.stderr.contains("0 objects are known of known.csv; 120 rows are of other buckets"), "{}", ran.stderr);
}

#[test]
fn what_is_no_json_goes_as_bytes_and_what_is_too_large_stays_out() {
    let bench = Bench::new(1);
    bench.bucket.put("data", "large", "x".repeat(10_000)).unwrap();
    bench.bucket.put("data", "text", "\u{1}é").unwrap();
    let ran = run(bench.sync_table(&["--body", "bytea", "--memory", "4KiB"]), 3);
    let said = "s3://data/large is too large for memory: 10000 bytes where 4096 are allowed";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    let rows = "SELECT string_agg(key || ' ' || convert_from(body, 'UTF8'), ',' ORDER BY key) FROM object";
    assert_eq!(bench.sql(rows), format!("{} {},text \u{1}é", key(0), body(0)));
    let ran = run(bench.sync_table(&["--body", "text"]), 1);
    assert!(ran.stderr.contains("its column body has the type bytea, and not text"), "{}", ran.stderr);
}

#[test]
fn columns_are_filled_from_within_the_bodies() {
    let bench = Bench::new(3);
    bench.bucket.put("data", "other", "{\"number\": \"none\"}").unwrap();
    let columns = ["--body", "none", "--column", "number:int4=$.number", "--column", "Kind=$.number.type()"];
    let ran = run(bench.sync_table(&columns), 3);
    assert!(ran.stderr.contains("left out: \"other\"") && ran.stderr.contains("invalid input syntax for type integer"));
    let rows = "SELECT string_agg(key || ' ' || number + 1 || ' ' || \"Kind\", ',' ORDER BY key) FROM object";
    assert_eq!(bench.sql(rows), format!("{} 1 number,{} 2 number,{} 3 number", key(0), key(1), key(2)));
    assert_eq!(
        bench.sql("SELECT count(*) FROM pg_attribute WHERE attrelid = 'object'::regclass AND attname = 'body'"),
        "0"
    );
    for (wrong, said) in [
        (&["--column", "a=$.a", "--body", "text"][..], "--column a is taken from JSON, and --body is text"),
        (&["--column", "a"], "it is NAME=PATH or NAME:TYPE=PATH"),
        (&["--column", "=$"], "empty"),
    ] {
        let ran = run(bench.sync_table(wrong), 2);
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    }
    let ran = run(bench.sync_table(&["--body", "none", "--column", "number=$["]), 1);
    assert!(ran.stderr.contains("cannot take \"$[\" for a path"), "{}", ran.stderr);
}

#[test]
fn it_begins_behind_what_buildhub_was_done_with() {
    let bench = Bench::new(30);
    let theirs = bench.folder.path().join("theirs.json");
    std::fs::write(&theirs, format!("{{\"key\": \"{}\", \"loops\": 3, \"time\": 1.5}}", key(19))).unwrap();
    run(bench.sync_table(&["--since-checkpoint", "theirs.json"]), 0);
    assert_eq!(bench.requests(), (1, 10));
    bench.assert_holds(objects(30).skip(20));
}

#[test]
fn what_cannot_be_done_is_refused() {
    let bench = Bench::new(1);
    let secret = "postgresql://me:hidden@127.0.0.1:port/x";
    for (arguments, said) in [
        (&["sync", "s3://data"][..], "give --out DIR, --table TABLE with --db, or --stdout"),
        (&["sync", "s3://data", "--out", "o", "--table", "t"], "'--out <DIR>' cannot be used with '--table <TABLE>'"),
        (&["sync", "s3://data", "--table", "t"], "which database is not said"),
        (&["sync", "s3://data", "--stdout"], "--stdout needs --known"),
        (&["sync", "s3://data", "--stdout", "--json", "--known", "sqlite:k"], "--stdout is for the objects"),
        (&["sync", "s3://data", "--out", "o", "--known", "sqlite:"], "needs the name of a file"),
        (
            &["sync", "s3://data", "--out", "o", "--body", "xml"],
            "\"xml\" is no type of a body: jsonb, bytea, text or none",
        ),
        (&["sync", "s3://data", "--out", "o", "--memory", "0"], "it must be more than nothing"),
        (&["sync", "s3://data", "--out", "o", "--deletions", "keep"], "invalid value 'keep'"),
        (&["sync", "file:///data", "--out", "o"], "a folder has no ETags"),
        (&["sync", "s3://data", "--table", "t", "--db", secret], "the database URL cannot be used"),
        (&["sync", "s3://data", "--out", "o", "--known", secret], "the database URL cannot be used"),
        (&["sync", "s3://data", "--out", "o", "--listing", "absent"], "--listing absent: No such file"),
        (&["sync", "s3://data", "--out", "o", "--inventory", "absent"], "that is neither s3://"),
        (&["sync", "s3://data", "--out", "o", "--since-checkpoint", "absent"], "absent: there is no such file"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = bench.command(arguments);
        command.current_dir(folder.path());
        let ran = run(command, 2);
        let all = ran.stdout + &ran.stderr;
        assert!(all.contains(said), "{said} is not in {all}");
        assert!(!all.contains("hidden"), "{all}");
        let made: Vec<_> = files(folder.path()).into_keys().collect();
        assert_eq!(made, [""; 0], "{arguments:?}");
    }
    for (arguments, said) in [
        (&["known"][..], "Usage: bulk known"),
        (&["known", "export", "s3://data"], "--known <STORE>"),
        (&["known", "export", "s3://data/prefix", "--known", "sqlite:k"], "of a whole bucket, s3://bucket"),
        (&["known", "import", "s3://data", "absent", "--known", "sqlite:k"], "absent is no file"),
        (&["known", "export", "s3://data", "--known", "sqlite:k", "--format", "parquet"], "needs --out FILE"),
    ] {
        let mut command = bulk(arguments);
        command.current_dir(bench.folder.path());
        let ran = run(command, 2);
        assert!(ran.stderr.contains(said), "{said} is not in {}", ran.stderr);
    }
    assert_eq!(files(bench.folder.path()).len(), 0, "something was made");
    let nowhere = format!("postgresql://me:hidden@{NOWHERE}/x");
    let ran = run(bench.command(&["sync", "s3://data", "--table", "t", "--db", &nowhere]), 4);
    assert!(ran.stderr.contains("check host and port in --db") && !ran.stderr.contains("hidden"), "{}", ran.stderr);
}
