//! `bulk load` of what is no file: standard input, URLs, objects of buckets.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use bulk_testkit::postgres::Database;
use bulk_testkit::s3::{Fault, Object, Rule, Server, Store};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{BUCKET, Ran, asked, assert_apart, bulk, gets, kill_when, noted, server};

/// A folder, a bucket, and a database with an empty table.
struct Bench {
    folder: tempfile::TempDir,
    bucket: Server,
    database: Database,
}

impl Bench {
    fn new() -> Self {
        let bench = Self {
            folder: tempfile::tempdir().unwrap(),
            bucket: Server::builder().bucket(BUCKET, Store::memory()).start().unwrap(),
            database: server().create_database("inputs").unwrap(),
        };
        std::fs::create_dir(bench.file("tmp")).unwrap();
        bench.sql("CREATE TABLE t (id bigint PRIMARY KEY, text text)");
        bench
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, key: &str, object: impl Into<Object>) {
        self.bucket.put(BUCKET, key, object).unwrap();
    }

    /// `bulk load` of these into the table, run in the folder.
    fn command(&self, inputs: &[&str], more: &[&str]) -> Command {
        let mut command = bulk(["load"]);
        command.args(inputs).args(["--table", "t", "--anonymous", "--endpoint", &self.bucket.url()]).args(more);
        command.current_dir(self.folder.path()).env("BULK_DB", self.database.url());
        command.env("TMPDIR", self.file("tmp"));
        command
    }

    #[track_caller]
    fn load(&self, inputs: &[&str], more: &[&str]) -> Ran {
        Ran::of(self.command(inputs, more))
    }

    #[track_caller]
    fn fed(&self, bytes: impl Into<Vec<u8>>, more: &[&str]) -> Ran {
        Ran::fed(self.command(&["-"], more), bytes)
    }

    #[track_caller]
    fn sql(&self, text: &str) -> String {
        support::sql(&self.database, text)
    }

    /// Asserts that the table has exactly the rows of [`csv`] for these ids.
    #[track_caller]
    fn assert_holds(&self, ids: std::ops::Range<u64>) {
        let (start, end) = (ids.start, ids.end);
        let sql = "SELECT count(*) FROM (TABLE t EXCEPT ALL (QUERY)) a
                   UNION ALL SELECT count(*) FROM ((QUERY) EXCEPT ALL TABLE t) b";
        let query = format!("SELECT id, md5(id::text) || repeat('x', 60) FROM generate_series({start}, {end} - 1) id");
        assert_eq!(self.sql(&sql.replace("QUERY", &query)), "0\n0");
    }

    fn chunks(&self) -> u32 {
        match self.sql("SELECT to_regclass('bulk.chunk') IS NOT NULL").as_str() {
            "t" => self.sql("SELECT count(*) FROM bulk.chunk").parse().unwrap(),
            _ => 0,
        }
    }

    /// The CSV file of these ids, made by the server.
    #[track_caller]
    fn csv(&self, ids: std::ops::Range<u64>) -> Vec<u8> {
        let (start, end) = (ids.start, ids.end);
        let query =
            format!("SELECT id, md5(id::text) || repeat('x', 60) AS text FROM generate_series({start}, {end} - 1) id");
        (self.sql(&format!("COPY ({query}) TO STDOUT (FORMAT csv, HEADER)")) + "\n").into_bytes()
    }

    /// Folders for temporary files that nobody has removed.
    fn scratches(&self) -> usize {
        std::fs::read_dir(self.file("tmp")).unwrap().count()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(1));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Three chunks of 16 MiB, about.
const MANY: u64 = 400_000;

#[test]
fn standard_input_is_loaded_plain_or_compressed() {
    let bench = Bench::new();
    let csv = bench.csv(0..500);
    for bytes in [csv.clone(), gzip(&csv), bzip2(&csv)] {
        bench.fed(bytes, &["--restart"]).assert(0, &["500 rows"]);
        bench.assert_holds(0..500);
    }
    // Nobody knows whether it is the same.
    bench.fed(csv.clone(), &[]).assert(1, &["holds the rows of stdin of 20", "--restart"]);
    bench.assert_holds(0..500);
    bench.fed(bench.csv(500..600), &["--append"]).assert(0, &["100 rows"]);
    bench.assert_holds(0..600);
    // What has a name is.
    bench.fed(csv.clone(), &["--restart", "--name", "five hundred"]).assert(0, &[]);
    bench.fed(csv, &["--name", "five hundred"]).assert(0, &["standard input: all of its 500 rows had been loaded"]);
    bench.assert_holds(0..500);
    bench.fed(bench.csv(500..600), &["--name", "hundred"]).assert(1, &["holds the rows of stdin:five hundred"]);
    bench.fed(bench.csv(500..600), &["--name", "hundred", "--append"]).assert(0, &[]);
    bench.assert_holds(0..600);
    bench.fed("", &["--restart"]).assert(1, &["there is nothing in it"]);
    let cut = gzip(&bench.csv(0..500));
    bench.fed(&cut[..cut.len() / 2], &["--restart"]).assert(1, &["standard input", "cut short"]);
    assert_eq!(bench.sql("SELECT count(*) FROM t"), "0");
}

#[test]
fn wrong_usage_is_said_at_once() {
    let bench = Bench::new();
    let cases: [(&[&str], &[&str], &str); 10] = [
        (&["-", "-"], &[], "- is given twice"),
        (&["a.csv"], &["--name", "x"], "--name is the name of standard input"),
        (&["/dev/null"], &[], "/dev/null: it is a pipe or a device; give it over standard input, as -"),
        (&["ftp://user:secret@host/a.csv"], &[], "ftp://…: a file is a path, -, https://host/file"),
        (&["https://host/"], &[], "a URL names no file"),
        (&["https://host"], &[], "a URL names no file"),
        (&["s3://"], &[], "that is no bucket name"),
        (&["s3://b/[a"], &[], "s3://…/[a: error parsing glob"),
        (&["a.csv"], &["--column-type", "a=b"], "--create-table"),
        (&["a.csv"], &["--create-table", "--column-type", "a"], "--column-type a: that is not COLUMN=TYPE"),
    ];
    for (inputs, more, said) in cases {
        let ran = bench.load(inputs, more);
        ran.assert(2, &[said]);
        assert!(!ran.stderr.contains("secret"), "{}", ran.stderr);
    }
    assert_eq!(bench.sql("SELECT to_regnamespace('bulk') IS NULL"), "t");
}

/// Starts the program, gives it the first part over a pipe that stays open, and kills it when chunks are committed.
#[track_caller]
fn kill_fed(bench: &Bench, bytes: &[u8], more: &[&str]) {
    let mut command = bench.command(&["-"], more);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(bytes).unwrap();
    while bench.chunks() == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None);
}

#[test]
fn killed_over_standard_input_a_name_makes_it_go_on() {
    let bench = Bench::new();
    let csv = bench.csv(0..MANY);
    assert!(csv.len() > 2 * (16 << 20), "{}", csv.len());
    let part = &csv[..csv.len() * 3 / 4];
    kill_fed(&bench, part, &["--name", "many"]);
    bench.fed(csv.clone(), &[]).assert(1, &["holds the rows of stdin:many"]);
    bench.fed(csv.clone(), &["--name", "many"]).assert(0, &["stdin:many: goes on behind record"]);
    bench.assert_holds(0..MANY);
    bench.fed(csv.clone(), &["--name", "many"]).assert(0, &["had been loaded"]);
    bench.assert_holds(0..MANY);
}

#[test]
fn killed_over_standard_input_without_a_name_it_is_not_loaded_twice() {
    let bench = Bench::new();
    let csv = bench.csv(0..MANY);
    kill_fed(&bench, &csv[..csv.len() * 3 / 4], &[]);
    let before = bench.sql("SELECT count(*) FROM t");
    for more in [&[][..], &["--append"]] {
        let said = &["table public.t holds a part of stdin of 20", "--restart", "--name NAME from the start"];
        bench.fed(csv.clone(), more).assert(1, said);
        assert_eq!(bench.sql("SELECT count(*) FROM t"), before);
    }
    bench.fed(csv, &["--restart"]).assert(0, &[]);
    bench.assert_holds(0..MANY);
}

#[test]
fn who_waits_for_standard_input_can_be_stopped() {
    let bench = Bench::new();
    let csv = bench.csv(0..300_000);
    let connected = "SELECT count(*) > 0 FROM pg_stat_activity \
                     WHERE datname = current_database() AND application_name = 'bulk'";
    for len in [0, 20 << 20] {
        let mut command = bench.command(&["-"], &["--connections", "1"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(&csv[..len]).unwrap();
        let is_time = || if len == 0 { bench.sql(connected) == "t" } else { bench.chunks() > 0 };
        while !is_time() {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it could be stopped");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
        // What is in hand is not committed, and nothing goes on without a name.
        assert!(said.contains("stopping: what is committed is kept, and no more is read"), "{said}");
        let end = if len == 0 { "interrupted; nothing was loaded" } else { "--restart deletes what is loaded of it" };
        assert!(said.contains(end) && !said.contains("run the same command again"), "{said}");
        // Until here it could have been written to.
        drop(pipe);
    }
}

#[test]
fn a_terminal_is_read_and_said_to_be() {
    let bench = Bench::new();
    let terminal = openpty(None, None).unwrap();
    let mut command = bench.command(&["-"], &[]);
    command.stdin(terminal.slave).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    drop(command);
    let mut keys = File::from(terminal.master);
    keys.write_all(b"id,text\n7,typed\n\x04").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("standard input, which is the terminal: end it with Ctrl-D"), "{said}");
    assert_eq!(bench.sql("TABLE t"), "7|typed");
}

#[test]
fn urls_are_loaded_and_not_fetched_twice() {
    let bench = Bench::new();
    bench.put("data/a b.csv.gz", gzip(&bench.csv(0..500)));
    bench.put("data/c.csv", bench.csv(500..600));
    let (first, second) =
        (bench.bucket.object_url(BUCKET, "data/a b.csv.gz"), bench.bucket.object_url(BUCKET, "data/c.csv"));
    bench.load(&[&first, &second], &[]).assert(0, &["500 rows", "100 rows", "600 rows"]);
    bench.assert_holds(0..600);
    assert_eq!(bench.sql("SELECT string_agg(file_key, ' ' ORDER BY id) FROM bulk.load"), format!("{first} {second}"));
    bench.bucket.clear_requests();
    let signed = format!("{first}?X-Amz-Expires=60&X-Amz-Credential=secretsecret");
    let ran = bench.load(&[&signed, &second], &["-v"]);
    ran.assert(0, &["all of its 500 rows had been loaded", "all of its 100 rows had been loaded"]);
    assert!(!ran.stderr.contains("secretsecret"), "{}", ran.stderr);
    // Only what tells whether they are the same.
    assert!(bench.bucket.requests().iter().all(|request| request.range.as_deref() == Some("bytes=0-0")));
    bench
        .load(&[&bench.bucket.object_url(BUCKET, "data/none.csv")], &["--restart"])
        .assert(1, &["none.csv does not exist"]);
    bench.assert_holds(0..600);

    // One argument may stand for many files.
    for flag in ["--refresh", "--freeze"] {
        bench.load(&["s3://com-courtlistener-storage/data/"], &[flag]).assert(2, &["give one"]);
    }
    bench.assert_holds(0..600);

    // Another version is not mixed with the first.
    bench.put("data/c.csv", bench.csv(500..700));
    bench.load(&[&first, &second], &[]).assert(3, &["another version of"]);
    bench.assert_holds(0..600);
    bench.load(&[&first, &second], &["--restart"]).assert(0, &[]);
    bench.assert_holds(0..700);
    assert_eq!(bench.scratches(), 0);
}

#[test]
fn a_dry_run_reads_nothing_and_says_what_there_is() {
    let bench = Bench::new();
    bench.put("p/a.csv", bench.csv(0..5));
    let ran = bench.load(&["s3://com-courtlistener-storage/p/", "-"], &["--dry-run"]);
    ran.assert(0, &[]);
    let bytes = bench.csv(0..5).len();
    let expected = format!(
        "s3://{BUCKET}/p/a.csv ({bytes} bytes) into public.t\nstandard input (of unknown size) into public.t\n"
    );
    assert_eq!(ran.stdout, expected);
    assert_eq!(gets(&bench.bucket), [""; 0]);
    assert_eq!(bench.sql("SELECT to_regnamespace('bulk') IS NULL"), "t");
}

#[test]
fn of_a_bucket_one_object_or_all_below_or_those_that_match_are_loaded_in_order() {
    let bench = Bench::new();
    let s3 = |rest: &str| format!("s3://{BUCKET}/{rest}");
    let parts = [
        ("p/2.csv.gz", 0..10),
        ("p/1.csv.gz", 10..20),
        ("p/q/3.csv.gz", 20..30),
        ("p/4.csv", 30..40),
        ("z.csv", 90..99),
    ];
    for (key, ids) in parts {
        let csv = bench.csv(ids);
        bench.put(key, if key.ends_with(".gz") { gzip(&csv) } else { csv });
    }
    bench.put("p/q/", "");
    let keys = || bench.sql("SELECT string_agg(file_key, ' ' ORDER BY id) FROM bulk.load").replace(&s3(""), "");

    bench.load(&[&s3("p/4.csv")], &[]).assert(0, &["10 rows"]);
    assert_eq!(keys(), "p/4.csv");
    bench.load(&[&s3("p/*.csv.gz")], &["--restart"]).assert(0, &[]);
    assert_eq!(keys(), "p/1.csv.gz p/2.csv.gz");
    bench.assert_holds(0..20);
    bench.bucket.clear_requests();
    // What stands in several is loaded once, and what is there is not fetched.
    let overlapping = [s3("p/1.csv.gz"), s3("p/"), s3("p/**/*.gz")];
    let overlapping: Vec<_> = overlapping.iter().map(String::as_str).collect();
    bench
        .load(&overlapping, &[])
        .assert(0, &["p/1.csv.gz: given twice, and loaded once", "verified: public.t has 40 rows"]);
    assert_eq!(keys(), "p/1.csv.gz p/2.csv.gz p/4.csv p/q/3.csv.gz");
    bench.assert_holds(0..40);
    let mut fetched = gets(&bench.bucket);
    fetched.sort();
    fetched.dedup();
    assert_eq!(fetched, ["p/1.csv.gz", "p/4.csv", "p/q/3.csv.gz"]);
    bench.load(&[&s3("none/")], &[]).assert(1, &["there is nothing at s3://", "none/"]);
    bench.load(&[&s3("p/*.xz")], &[]).assert(1, &["there is nothing at s3://", "* stands for no /"]);
    bench.load(&[&s3("p/none.csv")], &["--restart"]).assert(1, &["p/none.csv does not exist"]);
    bench.assert_holds(0..40);
}

#[test]
fn what_is_named_twice_is_loaded_once() {
    let bench = Bench::new();
    std::fs::write(bench.file("a.csv"), bench.csv(0..10)).unwrap();
    std::os::unix::fs::symlink("a.csv", bench.file("link.csv")).unwrap();
    let absolute = bench.file("a.csv").display().to_string();
    let url = format!("file://{absolute}");
    let ran = bench.load(&["a.csv", "./a.csv", &absolute, "link.csv", &url], &[]);
    ran.assert(0, &["./a.csv: given twice", "link.csv: given twice", "10 rows"]);
    bench.assert_holds(0..10);
    assert_eq!(bench.sql("SELECT count(*) FROM bulk.load"), "1");
}

#[test]
fn connections_that_break_cost_no_row_and_double_none() {
    let bench = Bench::new();
    let csv = bench.csv(0..MANY);
    let len = csv.len() as u64;
    bench.put("many.csv", csv.clone());
    bench.put("many.csv.bz2", bzip2(&csv));
    for key in ["many.csv", "many.csv.bz2"] {
        let faults = [
            bench.bucket.fault(Rule::new(Fault::ResetAfter(300_000)).key(key).nth(3)),
            bench.bucket.fault(Rule::new(Fault::Truncate(700_000)).key(key).nth(5)),
            bench.bucket.fault(Rule::new(Fault::slow_down()).key(key).nth(4)),
        ];
        let url = bench.bucket.object_url(BUCKET, key);
        bench.load(&[&url], &["--restart", "--segment", "2MiB", "--connections", "2"]).assert(0, &["follows in"]);
        assert!(faults.iter().all(|fault| fault.hits() == 1));
        bench.bucket.clear_faults();
        bench.assert_holds(0..MANY);
        assert_eq!(bench.scratches(), 0);
    }
    // And one that ends for good.
    bench.bucket.fault(
        Rule::new(Fault::Status { code: 404, error: "NoSuchKey".to_owned(), retry_after: None })
            .key("many.csv")
            .containing(len - 1),
    );
    let url = bench.bucket.object_url(BUCKET, "many.csv");
    bench.load(&[&url], &["--restart", "--segment", "2MiB"]).assert(1, &["many.csv"]);
    bench.bucket.clear_faults();
    bench.load(&[&url], &[]).assert(0, &[]);
    bench.assert_holds(0..MANY);
}

#[test]
fn killed_while_it_arrives_and_run_again_every_row_is_there_once() {
    let bench = Bench::new();
    let csv = bench.csv(0..MANY);
    let len = csv.len() as u64;
    bench.put("many.csv", csv);
    let s3 = format!("s3://{BUCKET}/many.csv");
    for more in [&[][..], &["--dir", "kept"]] {
        let more = [more, &["--segment", "1MiB"]].concat();
        if bench.chunks() > 0 {
            bench.sql("TRUNCATE t; DELETE FROM bulk.load");
        }
        // So that it is not done before it is killed.
        let endless = bench.bucket.fault(Rule::new(Fault::StallAfter(0)).key("many.csv").containing(len - 1));
        kill_when(bench.command(&[&s3], &more), || bench.chunks() > 0);
        endless.remove();
        let there = noted(&bench.file("kept"), "many.csv");
        bench.bucket.clear_requests();
        bench.load(&[&s3], &more).assert(0, &["goes on behind record"]);
        bench.assert_holds(0..MANY);
        // The one byte that tells the version stands before all.
        let (mut fetched, _) = asked(&bench.bucket, "many.csv", len);
        assert_eq!(fetched.remove(0), 0..1);
        assert_apart(&fetched, &there);
        // Nothing stays, of the killed one neither.
        assert_eq!(bench.scratches(), 0);
        assert_eq!(support::files(&bench.file("kept")).len(), 0);
    }
}

#[test]
fn an_object_that_changed_between_two_runs_is_not_mixed() {
    let bench = Bench::new();
    bench.put("many.csv", bench.csv(0..MANY));
    let url = bench.bucket.object_url(BUCKET, "many.csv");
    let more = ["--segment", "1MiB", "--dir", "kept"];
    let last = bench.csv(0..MANY).len() as u64 - 1;
    let endless = bench.bucket.fault(Rule::new(Fault::StallAfter(0)).key("many.csv").containing(last));
    kill_when(bench.command(&[&url], &more), || bench.chunks() > 0);
    endless.remove();
    let before = bench.sql("SELECT count(*) FROM t");
    bench.put("many.csv", bench.csv(1..MANY));
    bench.load(&[&url], &more).assert(1, &["holds a part of another version of", "--restart"]);
    assert_eq!(bench.sql("SELECT count(*) FROM t"), before);
    bench.load(&[&url], &[&more[..], &["--restart"]].concat()).assert(0, &[]);
    bench.assert_holds(1..MANY);
}

#[test]
fn what_has_no_version_is_another_one_each_time() {
    let bench = Bench::new();
    bench.put("a.csv", bench.csv(0..10));
    let url = bench.bucket.object_url(BUCKET, "a.csv");
    bench.bucket.fault(Rule::new(Fault::WithoutHeader("etag".parse().unwrap())));
    bench.load(&[&url], &[]).assert(0, &["10 rows"]);
    // Its time tells it.
    bench.load(&[&url], &[]).assert(0, &["all of its 10 rows had been loaded"]);
    bench.bucket.fault(Rule::new(Fault::WithoutHeader("last-modified".parse().unwrap())));
    bench.load(&[&url], &["--restart"]).assert(0, &["10 rows"]);
    bench.load(&[&url], &[]).assert(1, &["another version of", "unknown, read at 20"]);
    bench.assert_holds(0..10);
}

#[test]
fn rejects_of_an_object_are_named_after_it() {
    let bench = Bench::new();
    bench.put("p/a.csv", "id,text\n1,a\nx,b\n");
    bench.put("p/b.csv", "id,text\n2,a\n");
    let s3 = format!("s3://{BUCKET}/p/");
    bench.load(&[&s3], &["--max-rejects", "1", "--rejects", "bad"]).assert(3, &["p/a.csv: 1 record was left out"]);
    let written: Vec<_> = support::files(&bench.file("bad")).into_keys().collect();
    assert_eq!(written, ["a.csv.rejects", "a.csv.rejects.jsonl"]);
    assert_eq!(std::fs::read_to_string(bench.file("bad/a.csv.rejects")).unwrap(), "x,b\n");
    assert_eq!(bench.sql("SELECT id FROM t ORDER BY id"), "1\n2");
}
