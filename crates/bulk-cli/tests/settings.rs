//! `--config` and `--report`.

mod support;

use std::process::Command;

use bulk_testkit::s3::{Server, Store};
use serde_json::Value;
use support::{NOWHERE, Ran, bulk, files};

fn bucket(content: &str) -> Server {
    Server::builder().bucket("data", Store::memory().with("a.txt", content.to_owned())).start().unwrap()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// What was fetched as `a.txt` to the folder `out`, and nothing else but the manifest.
    fn fetched(&self) -> String {
        let found = files(&self.0.path().join("out"));
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a.txt", "manifest.json"]);
        String::from_utf8(found["a.txt"].clone()).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bulk(arguments);
        command.current_dir(self.0.path());
        command
    }
}

#[test]
fn flags_win_over_the_environment_and_that_wins_over_the_file() {
    let (flag, environment, file) = (bucket("flag"), bucket("environment"), bucket("file"));
    let settings = format!("anonymous = true\nendpoint = '{}'\n[fetch]\nout = 'out'\njson = true\n", file.url());
    for (set, given, expected) in [(false, false, "file"), (true, false, "environment"), (true, true, "flag")] {
        for by_flag in [true, false] {
            let folder = Folder::new();
            let path = folder.write("bulk.toml", &settings);
            let mut command = folder.command(&["fetch", "s3://data"]);
            if by_flag {
                command.args(["--config", &path]);
            } else {
                command.env("BULK_CONFIG", &path);
            }
            if set {
                command.env("BULK_ENDPOINT", environment.url());
            }
            if given {
                command.args(["--endpoint", &flag.url()]);
            }
            let ran = Ran::of(command);
            assert_eq!(ran.status, Some(0), "{}", ran.stderr);
            assert_eq!(ran.events_of("fetched").len(), 1);
            assert_eq!(folder.fetched(), expected);
        }
    }
}

#[test]
fn the_environment_says_that_requests_are_not_signed() {
    let (bucket, folder) = (bucket("a"), Folder::new());
    let fetch = |value: &str| {
        let mut command = folder.command(&["fetch", "s3://data", "--out", "out"]);
        command.env("BULK_ENDPOINT", bucket.url()).env("BULK_ANONYMOUS", value).env("BULK_REQUESTER_PAYS", "no");
        Ran::of(command)
    };
    fetch("perhaps").assert(2, &["invalid value 'perhaps' for '--anonymous'"]);
    fetch("1").assert(0, &[]);
    assert_eq!(folder.fetched(), "a");
}

/// The file is for the runs that write reports.
#[test]
fn what_shows_reports_writes_none() {
    let (bucket, folder) = (bucket("a"), Folder::new());
    let settings = format!("anonymous = true\nendpoint = '{}'\nreport = 'run.json'\n", bucket.url());
    folder.write("bulk.toml", &settings);
    let run = |arguments: &[&str]| Ran::of(folder.command(&[&["--config", "bulk.toml"], arguments].concat()));
    run(&["fetch", "s3://data", "--out", "out"]).assert(0, &[]);
    let written = std::fs::read_to_string(folder.0.path().join("run.json")).unwrap();
    let ran = run(&["report", "run.json"]);
    ran.assert(0, &[]);
    assert!(ran.stdout.starts_with("bulk fetch ("), "{}", ran.stdout);
    run(&["report", "run.json", "--report", "run.json"]).assert(2, &["`bulk report` shows what other commands have"]);
    assert_eq!(std::fs::read_to_string(folder.0.path().join("run.json")).unwrap(), written);
}

/// Another run may have it, for which it is set as well.
#[test]
fn an_address_for_metrics_that_is_taken_fails_only_who_asked_for_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (bucket, folder) = (bucket("a"), Folder::new());
    let settings = format!("anonymous = true\nendpoint = '{}'\nout = 'out'\n", bucket.url());
    folder.write("plain.toml", &settings);
    folder.write("metrics.toml", &format!("{settings}metrics = '{address}'\n"));
    let fetch = |file: &str, more: &[&str], set: bool| {
        let mut command = folder.command(&[&["fetch", "s3://data", "--config", file], more].concat());
        if set {
            command.env("BULK_METRICS", &address);
        }
        Ran::of(command)
    };
    let said = format!("--metrics: cannot listen on {address}: ");
    fetch("metrics.toml", &["--metrics", &address], true).assert(2, &[&format!("error: {said}")]);
    assert!(!folder.0.path().join("out").exists());
    for (file, set) in [("plain.toml", true), ("metrics.toml", false)] {
        fetch(file, &[], set).assert(0, &[&said, "; the run goes on without"]);
        assert_eq!(folder.fetched(), "a");
    }

    // Where nothing is metered, nobody listens.
    folder.write(
        "run.json",
        r#"{"bulk": "0", "command": "fetch", "started": "2026-01-01T00:00:00Z", "seconds": 1, "exit": 0}"#,
    );
    let mut command = folder.command(&["report", "run.json", "--config", "metrics.toml"]);
    command.env("BULK_METRICS", &address);
    let ran = Ran::of(command);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    let ran = Ran::of(folder.command(&["report", "run.json", "--metrics", &address]));
    ran.assert(2, &["--metrics: `bulk report` does nothing that is metered"]);
}

#[test]
fn what_a_file_cannot_say_is_told_with_its_name() {
    let folder = Folder::new();
    for (text, said) in [
        ("endpont = 'x'", "bulk.toml: no command has a flag --endpont"),
        ("jobs = 'many'", "bulk.toml: error: invalid value 'many' for '--jobs <N>'"),
        ("jobs = \n", "bulk.toml: line 1: "),
        ("jobs = 3\ndb = \"postgres://me:hid\\den@host/x\"\n", "bulk.toml: line 2: "),
        ("restart = true", "bulk.toml: restart cannot stand in a file; give it as a flag"),
    ] {
        folder.write("bulk.toml", text);
        let ran = Ran::of(folder.command(&["fetch", "s3://data", "--out", "out", "--config=bulk.toml"]));
        ran.assert(2, &[said]);
        assert!(!ran.stderr.contains("hid") && !ran.stderr.contains("den@"), "{}", ran.stderr);
    }
    Ran::of(folder.command(&["fetch", "s3://data", "--config", "absent.toml"])).assert(2, &["absent.toml: "]);
    assert!(!folder.0.path().join("out").exists());
}

#[test]
fn a_report_tells_what_was_done_and_how_it_ended() {
    let server = bucket("text");
    let folder = Folder::new();
    let run = |source: &str, endpoint: &str| {
        let arguments =
            ["fetch", source, "--anonymous", "--endpoint", endpoint, "--out", "out", "--report", "run.json"];
        let ran = Ran::of(folder.command(&arguments));
        let report = std::fs::read(folder.0.path().join("run.json")).unwrap();
        (ran.status, serde_json::from_slice::<Value>(&report).unwrap())
    };
    let (status, report) = run("s3://data", &server.url());
    assert_eq!((status, &report["exit"], &report["command"]), (Some(0), &0.into(), &"fetch".into()));
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
    let events = report["events"].as_array().unwrap();
    assert!(events.iter().any(|event| event["event"] == "fetched" && event["size"] == 4), "{report:#}");

    // That of a run that fails takes the place of the one before.
    let (status, report) = run("s3://nothing-there", &server.url());
    assert_eq!((status, &report["exit"]), (Some(1), &1.into()));
    let events = report["events"].as_array().unwrap();
    assert!(events.iter().any(|event| event["event"] == "error" && event["exit"] == 1), "{report:#}");
    assert_eq!(files(folder.0.path()).len(), 3, "no temporary file stays");
}

#[test]
fn a_report_that_cannot_be_written_is_told_before_the_work() {
    let folder = Folder::new();
    let nowhere = format!("http://{NOWHERE}");
    let arguments =
        ["fetch", "s3://data", "--anonymous", "--endpoint", &nowhere, "--out", "out", "--report", "absent/run.json"];
    Ran::of(folder.command(&arguments)).assert(2, &["cannot write the report absent/run.json: "]);
}
