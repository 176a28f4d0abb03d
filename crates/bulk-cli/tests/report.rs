//! What runs write of themselves, and how `bulk report` shows it.

mod support;

use std::io::Write;
use std::process::Command;

use bulk_core::RunReport;
use bulk_testkit::browser;
use bulk_testkit::postgres::Database;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Bench, Ran, Running, bulk, server, small};

const ROWS: usize = 150_000;

/// A folder with a compressed file and its bytes, and a database with a table for it.
struct Load {
    folder: tempfile::TempDir,
    database: Database,
    csv: Vec<u8>,
}

impl Load {
    fn new() -> Self {
        let (folder, database) = (tempfile::tempdir().unwrap(), server().create_database("report").unwrap());
        support::sql(&database, "CREATE TABLE people (id bigint, name text)");
        let mut csv = b"id,name\n".to_vec();
        for id in 0..ROWS {
            writeln!(csv, "{id},name {}", id * 7919 % 100_003).unwrap();
        }
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
        encoder.write_all(&csv).unwrap();
        std::fs::write(folder.path().join("people.csv.bz2"), encoder.finish().unwrap()).unwrap();
        Self { folder, database, csv }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bulk(arguments);
        command.current_dir(self.folder.path()).env("BULK_DB", self.database.url());
        command
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments))
    }

    #[track_caller]
    fn load(&self, file: &str, more: &[&str]) -> Ran {
        self.run(&[&["load", file, "--table", "people", "--report", "run.json"], more].concat())
    }

    #[track_caller]
    fn report(&self, name: &str) -> RunReport {
        RunReport::parse(&std::fs::read(self.folder.path().join(name)).unwrap()).unwrap()
    }
}

#[track_caller]
fn stages(report: &RunReport) -> Vec<&str> {
    report.meters.stages.iter().map(|stage| stage.name.as_str()).collect()
}

#[test]
fn a_load_says_what_bound_it() {
    let load = Load::new();
    let ran = load.load("people.csv.bz2", &["--json"]);
    ran.assert(0, &[]);
    let verdicts = ran.events_of("verdict");
    let [said] = &verdicts[..] else { panic!("{verdicts:#?}") };
    let report = load.report("run.json");
    assert_eq!((report.schema, report.command.as_str(), report.exit), (1, "load", 0));
    assert!(report.events.contains(said), "{said:#}");
    assert!(report.events.iter().any(|event| event["event"] == "loaded" && event["records"] == ROWS), "{report}");

    // Each stage has done all of the work, and was always in one state.
    assert_eq!(stages(&report), ["read ahead", "decode", "encode", "copy", "verify"]);
    let [read, decode, encode, copy, verify] = &report.meters.stages[..] else { unreachable!() };
    let stored = std::fs::metadata(load.folder.path().join("people.csv.bz2")).unwrap().len();
    assert_eq!((read.total.bytes, decode.total.bytes), (stored, load.csv.len() as u64));
    assert_eq!((copy.total.items, copy.total.bytes), (ROWS as u64, encode.total.bytes));
    assert!(encode.total.bytes > 0 && !copy.total.server.is_zero() && !verify.total.server.is_zero());
    assert_eq!((&decode.after, &encode.after, &copy.after), (&names("read ahead"), &names("decode"), &names("encode")));
    let workers = decode.workers.len();
    assert!(workers > 0 && workers <= 4, "{workers}");

    let [file] = &report.files[..] else { panic!("{report}") };
    assert_eq!((file.name.as_str(), file.table.as_deref()), ("people.csv.bz2", Some("public.people")));
    assert_eq!((file.bytes, file.records, file.rejected), (Some(stored), Some(ROWS as u64), 0));
    assert!(file.seconds.unwrap() > 0.0 && file.error.is_none());

    // What is said to people is its first part; and what they do not want to hear is not said.
    let ran = load.load("people.csv.bz2", &["--restart", "--verbose"]);
    let report = load.report("run.json");
    let verdict = report.verdict.as_ref().unwrap();
    let said = verdict.bottleneck.as_ref().map_or(verdict.to_string(), |bottleneck| bottleneck.to_string());
    let head = said.split(['%', '\n']).next().unwrap();
    assert!(ran.stderr.lines().any(|line| line.starts_with(head)), "{head}: {}", ran.stderr);
    assert_eq!(load.load("people.csv.bz2", &["--restart", "--quiet"]).stderr, "");
}

fn names(name: &str) -> Vec<String> {
    vec![name.to_owned()]
}

#[test]
fn stages_are_those_of_the_input() {
    let load = Load::new();
    std::fs::write(load.folder.path().join("people.csv"), &load.csv).unwrap();
    load.load("people.csv", &[]).assert(0, &[]);
    let report = load.report("run.json");
    assert_eq!(stages(&report), ["read", "encode", "copy", "verify"]);
    // One thread does both.
    let [read, encode, ..] = &report.meters.stages[..] else { unreachable!() };
    assert_eq!((read.workers_of.as_deref(), &encode.after), (Some("encode"), &names("read")));
    assert_eq!(read.total.bytes, load.csv.len() as u64);

    let compressed = std::fs::read(load.folder.path().join("people.csv.bz2")).unwrap();
    let size = compressed.len() as u64;
    let command = load.command(&["load", "-", "--table", "people", "--restart", "--report", "run.json"]);
    Ran::fed(command, compressed).assert(0, &[]);
    let report = load.report("run.json");
    assert_eq!(stages(&report), ["stdin", "decode", "encode", "copy", "verify"]);
    assert_eq!(report.meters.stages[0].total.bytes, size);

    // What had been loaded is not read, so that there is nothing to say of it.
    load.load("people.csv", &["--restart"]).assert(0, &[]);
    load.load("people.csv", &["--verify", "none"]).assert(0, &["had been loaded"]);
    let report = load.report("run.json");
    assert_eq!((report.verdict.is_none(), report.meters.stages.len(), report.files.len()), (true, 0, 1));
}

/// Threads that decode, and the one that encodes and also reads and decodes what is in other codecs, are not taken for each
/// other.
#[test]
fn files_of_several_codecs_have_the_stages_of_each() {
    let load = Load::new();
    std::fs::write(load.folder.path().join("plain.csv"), &load.csv).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&load.csv).unwrap();
    let gzip = encoder.finish().unwrap();
    std::fs::write(load.folder.path().join("people.csv.gz"), &gzip).unwrap();
    let bzip2 = std::fs::metadata(load.folder.path().join("people.csv.bz2")).unwrap().len();
    let arguments =
        ["load", "people.csv.gz", "people.csv.bz2", "plain.csv", "--table", "people", "--report", "run.json"];
    load.run(&arguments).assert(0, &[]);
    let report = load.report("run.json");
    assert_eq!(stages(&report), ["read", "inflate", "encode", "copy", "read ahead", "decode", "verify"]);
    let [read, inflate, encode, copy, read_ahead, decode, _] = &report.meters.stages[..] else { unreachable!() };
    let (plain, of_encode) = (load.csv.len() as u64, Some("encode"));
    assert_eq!((read.total.bytes, read.workers_of.as_deref()), (gzip.len() as u64 + plain, of_encode));
    assert_eq!((inflate.total.bytes, inflate.workers_of.as_deref()), (plain, of_encode));
    assert_eq!((inflate.after.join(" "), decode.after.join(" ")), ("read".to_owned(), "read ahead".to_owned()));
    assert_eq!((read_ahead.total.bytes, read_ahead.workers_of.as_deref()), (bzip2, None));
    assert_eq!((decode.total.bytes, decode.workers_of.as_deref()), (plain, None));
    assert_eq!((encode.after.join(" ").as_str(), copy.total.items), ("inflate decode read", 3 * ROWS as u64));
}

#[test]
fn what_fails_and_what_is_left_out_is_named() {
    let load = Load::new();
    std::fs::write(load.folder.path().join("bad.csv"), "id,name\n1,a\nx,b\n3,c\n").unwrap();
    load.load("bad.csv", &[]).assert(1, &[]);
    let report = load.report("run.json");
    let [file] = &report.files[..] else { panic!("{report}") };
    assert!(report.exit == 1 && file.error.as_deref().is_some_and(|error| error.contains("record 2")), "{report}");

    load.load("bad.csv", &["--max-rejects", "1", "--restart"]).assert(3, &[]);
    let report = load.report("run.json");
    let [file] = &report.files[..] else { panic!("{report}") };
    assert_eq!((report.exit, file.error.as_deref(), file.records, file.rejected), (3, None, Some(3), 1));
    let [reject] = &report.rejects[..] else { panic!("{report}") };
    assert_eq!((reject.record, reject.byte, reject.column.as_deref()), (2, Some(12), Some("id")));
    assert!(reject.file.ends_with("bad.csv") && !reject.reason.is_empty(), "{report}");
}

impl Load {
    /// Has each row take the server so long, of which a new file has as many.
    fn slow(&self, seconds: f64, rows: usize) {
        let check = format!(
            "CREATE FUNCTION slow(bigint) RETURNS boolean LANGUAGE plpgsql AS
                 'BEGIN PERFORM pg_sleep({seconds}); RETURN true; END';
             ALTER TABLE people ADD CONSTRAINT slow CHECK (slow(id)) NOT VALID"
        );
        support::sql(&self.database, &check);
        let csv: String = (0..rows).map(|id| format!("{id},name\n")).collect();
        std::fs::write(self.folder.path().join("few.csv"), format!("id,name\n{csv}")).unwrap();
    }
}

#[test]
fn a_server_is_watched_again_after_a_failure() {
    let load = Load::new();
    load.slow(0.05, 2_000);
    let mut running = Running::start(load.command(&["load", "few.csv", "--table", "people"]));
    let watching = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'bulk (watching)'";
    let process = || support::sql(&load.database, &format!("SELECT pid {watching}"));
    let mut first = String::new();
    running.wait_until("somebody to watch", |_| {
        first = process();
        !first.is_empty()
    });
    assert_eq!(support::sql(&load.database, &format!("SELECT pg_terminate_backend({first})")), "t");
    running.wait_until("somebody else", |_| !["", first.as_str()].contains(&process().as_str()));
    running.signal(Signal::TERM);
    running.wait_until("the answer to the first signal", |said| said.contains("stopping"));
    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(130));
}

/// The one connection that the role may have is the load's.
#[test]
fn a_server_that_cannot_be_watched_makes_no_difference() {
    let load = Load::new();
    let (role, name) = (format!("lone_{}", load.database.name()), load.database.name());
    support::sql(
        &load.database,
        &format!(
            "CREATE ROLE \"{role}\" LOGIN PASSWORD 'lone' CONNECTION LIMIT 1; GRANT CREATE ON DATABASE \"{name}\" TO \"{role}\";
             GRANT CREATE ON SCHEMA public TO \"{role}\"; ALTER TABLE people OWNER TO \"{role}\""
        ),
    );
    let url = load.database.url_for(&role, "lone");
    let run = |file: &str| {
        let arguments = ["load", file, "--table", "people", "--connections", "1", "--restart", "--report", "run.json"];
        let mut command = load.command(&arguments);
        command.env("BULK_DB", &url);
        let ran = Ran::of(command);
        ran.assert(0, &[]);
        let report = load.report("run.json");
        let copy = report.meters.stages.iter().find(|stage| stage.name == "copy").unwrap();
        (copy.total.items, copy.server_events.len(), ran.stderr)
    };
    let (rows, events, _) = run("people.csv.bz2");
    assert_eq!((rows, events), (ROWS as u64, 0));
    // A verdict that speaks of the server says what it does not know.
    load.slow(0.02, 100);
    let (rows, events, said) = run("few.csv");
    assert_eq!((rows, events), (100, 0));
    assert!(said.contains(" What the server did in the end is not known: cannot connect"), "{said}");
}

#[test]
fn a_mirror_says_what_bound_it() {
    let (bench, made) = Bench::with(&small());
    let path = bench.folder.path().join("run.json");
    let ran = bench.mirror(&["--json", "--report", path.to_str().unwrap()]);
    // Rows of some of its tables refer to those of others that are no part of it.
    assert_eq!(ran.status, Some(3), "{}", ran.stderr);
    assert_eq!(ran.events_of("verdict").len(), 1);
    let report = RunReport::parse(&std::fs::read(&path).unwrap()).unwrap();
    let names = stages(&report);
    for name in ["list", "schema", "fetch", "finish", "decode", "encode", "copy", "index", "verify"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    let stage = |name: &str| &report.meters.stages[names.iter().position(|other| *other == name).unwrap()].total;
    let schema = std::fs::metadata(bench.data().join("schema-2026-07-01.sql")).unwrap().len();
    assert_eq!((stage("schema").bytes, stage("fetch").bytes), (schema, made.bytes));
    assert_eq!(stage("decode").bytes, made.csv_bytes);
    // The schema is one of the files that are put away.
    assert_eq!((stage("copy").items, stage("finish").items), (made.rows, made.files.len() as u64 + 1));
    assert_eq!(report.files.len(), made.files.len());
    assert_eq!(report.files.iter().filter_map(|file| file.records).sum::<u64>(), made.rows);
}

#[test]
fn reports_are_shown_and_compared() {
    let load = Load::new();
    load.load("people.csv.bz2", &[]).assert(0, &[]);
    std::fs::rename(load.folder.path().join("run.json"), load.folder.path().join("first.json")).unwrap();
    load.load("people.csv.bz2", &["--restart"]).assert(0, &[]);
    let (first, second) = (load.report("first.json"), load.report("run.json"));

    let ran = load.run(&["report", "first.json"]);
    ran.assert(0, &[]);
    assert_eq!((ran.stdout, ran.stderr), (format!("{first}\n"), String::new()));
    let shown = load.run(&["report", "first.json", "--json"]).events();
    assert_eq!(serde_json::from_value::<RunReport>(shown[0]["report"].clone()).unwrap(), first);

    let ran = load.run(&["report", "first.json", "run.json"]);
    assert_eq!((ran.status, ran.stdout), (Some(0), format!("{}\n", first.compare(&second))));
    let shown = load.run(&["report", "first.json", "run.json", "--json"]).events();
    assert_eq!(shown[0]["comparison"], serde_json::to_value(first.compare(&second)).unwrap());

    let page = load.folder.path().join("run.html");
    load.run(&["report", "first.json", "--html", "run.html", "--dry-run"]).assert(0, &[]);
    assert!(!page.exists());
    load.run(&["report", "first.json", "--html", "run.html"]).assert(0, &["run.html is written"]);
    let html = std::fs::read_to_string(&page).unwrap();
    assert_eq!(html, first.to_html());

    let Some(browser) = browser::find() else { return };
    for (width, is_dark) in [(360, true), (1200, false)] {
        let found = browser::measure(&browser, load.folder.path(), &html, width, is_dark);
        assert_eq!(
            (&found["width"], &found["scroll"], &found["dark"]),
            (&json!(width), &json!(width), &json!(is_dark))
        );
        // A chart of each stage, and one of throughput, where there are two samples: half a second is enough.
        assert!(found["charts"].as_u64().unwrap() >= 1 && found["unpainted"] == 0, "{found}");
        assert!(found["contrast"].as_f64().unwrap() >= 4.5 && found["unlabelled"] == 0, "{found}");
        assert_eq!(found["headings"][0], "bulk load");
    }
}

#[test]
fn what_is_no_report_is_refused() {
    let load = Load::new();
    let write = |name: &str, text: &str| std::fs::write(load.folder.path().join(name), text).unwrap();
    write("people.csv", "id,name\n1,a\n");
    write("empty.json", "");
    write("other.json", r#"{"name": "x"}"#);
    let early = json!({
        "bulk": "0.0.9", "command": "fetch", "started": "2026-01-01T00:00:00Z", "seconds": 1.5, "exit": 3,
        "events": [{"event": "note"}], "events_left_out": 0,
    });
    write("early.json", &early.to_string());
    let mut late: Value = early.clone();
    late["schema"] = json!(2);
    write("late.json", &late.to_string());

    for (arguments, status, said) in [
        (&["absent.json"][..], 1, "error: cannot read absent.json: No such file"),
        (&["."], 1, "error: cannot read .: Is a directory"),
        (&["people.csv"], 1, "error: people.csv: it is not a run's report: "),
        (&["empty.json"], 1, "error: empty.json: it is not a run's report: "),
        (&["other.json"], 1, "error: other.json: it is not a run's report: missing field"),
        (&["late.json"], 1, "late.json: it is not a run's report: its schema is 2, and 1 is the latest"),
        (&["early.json", "absent.json"], 1, "cannot read absent.json"),
        (&["early.json", "early.json", "--html", "out.html"], 2, "--html"),
        (&["early.json", "--html", "absent/out.html"], 1, "error: cannot write absent/out.html: "),
        (&[], 2, "RUN.json"),
    ] {
        let ran = load.run(&[&["report"], arguments].concat());
        ran.assert(status, &[said]);
        assert_eq!(ran.stdout, "");
    }
    let ran = load.run(&["report", "early.json"]);
    ran.assert(0, &[]);
    assert_eq!(ran.stdout, "bulk fetch (0.0.9), begun 2026-01-01T00:00:00Z, took 1.5 s, exit status 3\n");
}
