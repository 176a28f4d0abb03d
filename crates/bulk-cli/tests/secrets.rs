//! A password given to the program appears in nothing that it prints, whatever goes wrong.

mod support;

use std::path::Path;
use std::process::Command;

use bulk_testkit::postgres::{DatabaseUrl, Durability, Options, Server};
use bulk_testkit::s3::{self, Store};
use support::{BUCKET, NOWHERE, Ran, bulk, files};

/// Characters that a URL must escape, so that both forms are looked for.
const SECRET: &str = "p@ss:w/rd 42";
const ESCAPED: &str = "p%40ss%3Aw%2Frd%2042";

/// Those that connect to a database with `--db`.
const COMMANDS: [&str; 6] = ["mirror", "load", "doctor", "sync", "export", "crawl"];

#[track_caller]
fn assert_hidden(ran: &Ran) {
    for secret in [SECRET, ESCAPED, "p@ss", "w/rd", "p%40ss", "w%2Frd"] {
        assert!(!ran.stdout.contains(secret), "{secret} is in {}", ran.stdout);
        assert!(!ran.stderr.contains(secret), "{secret} is in {}", ran.stderr);
    }
}

/// Everything that is printed and noted in all these ways of running one command.
#[track_caller]
fn run_all(command: impl Fn() -> Command, status: i32, said: &str) {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("run.json");
    for flags in [&[][..], &["-v"], &["--json"], &["--json", "-v"], &["-q"]] {
        let mut command = command();
        command.args(flags).arg("--report").arg(&report);
        let ran = Ran::of(command);
        assert_hidden(&ran);
        let written = std::fs::read_to_string(&report).unwrap();
        let record: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(record["exit"], status, "{written}");
        assert_hidden(&Ran { status: None, stdout: written, stderr: String::new() });
        assert_eq!(ran.status, Some(status), "{ran:?}");
        assert!((ran.stdout.clone() + &ran.stderr).contains(said), "{ran:?}");
    }
    let page = folder.path().join("run.html");
    let shown = Ran::of(bulk([Path::new("report"), &report, Path::new("--html"), &page]));
    assert_hidden(&shown);
    let page = std::fs::read_to_string(page).unwrap();
    assert_hidden(&Ran { status: None, stdout: page, stderr: String::new() });
}

#[test]
fn of_a_database_password_nothing_is_shown() {
    let mut options = Options::default();
    options.password = Some(SECRET.to_owned());
    options.database_url = DatabaseUrl::Ignore;
    options.durability = Durability::Off;
    let server = Server::start(&options).unwrap();
    let (user_and_secret, rest) = server.url().strip_prefix("postgresql://").unwrap().rsplit_once('@').unwrap();
    let user = user_and_secret.split(':').next().unwrap();
    let address = rest.split('/').next().unwrap();
    let (host, port) = address.rsplit_once(':').unwrap();

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("people.csv");
    std::fs::write(&file, "id\n\"1\"\n").unwrap();
    let export = "[[type]]\nname = 'people'\nquery = 'SELECT 1 AS id, 1 AS home'\nid = 'id'\ngroup = 'home'\n";
    std::fs::write(folder.path().join("export.toml"), export).unwrap();
    let crawl = format!(
        "[input]\nquery = 'SELECT 1 AS id'\n[request]\nurl = 'http://{NOWHERE}/{{id}}'\n[limits]\nrate = ['1/s']\n\
         [[rows]]\ntable = 'people'\ncolumns = {{ id = '$.id' }}\n"
    );
    std::fs::write(folder.path().join("crawl.toml"), crawl).unwrap();
    let store = Store::memory().with("bulk-data/courts-2026-06-30.csv.bz2", "fifteen bytes..");
    let bucket = s3::Server::builder().bucket(BUCKET, store).start().unwrap();

    // A letter more makes the password a wrong one.
    let cases = [
        (format!("postgresql://{user}:{ESCAPED}x@{address}/postgres"), 6, "password authentication failed"),
        (
            format!("host={host} port={port} user={user} password='{SECRET}x' dbname=postgres"),
            6,
            "password authentication",
        ),
        (format!("postgresql://{user}:{ESCAPED}@{NOWHERE}/postgres"), 4, "cannot connect"),
        (format!("postgresql://{user}:{ESCAPED}@{host}:port/postgres"), 2, "the database URL cannot be used"),
        (format!("host={host} password='{SECRET}"), 2, "the database URL cannot be used"),
        (format!("postgresql://{user}:{ESCAPED}@{address}/absent"), 1, "does not exist"),
    ];
    for (url, status, said) in &cases {
        for name in COMMANDS {
            let given_by_flag = || {
                let mut command = on(name, folder.path(), &bucket.url());
                command.args(["--db", url]);
                command
            };
            run_all(given_by_flag, *status, said);
        }
    }
    let by_environment = |url: &str, name: &str, more: &[&str]| {
        let mut command = on(name, folder.path(), &bucket.url());
        command.args(more).env("BULK_DB", url);
        Ran::of(command)
    };
    for name in COMMANDS {
        // Usage is printed with the names of the variables, and not with what they hold.
        for more in [["--help", "-v"], ["--nonsense", "-v"]] {
            assert_hidden(&by_environment(server.url(), name, &more));
        }
        assert_hidden(&by_environment(&cases[0].0, name, &["-v"]));
    }
    // Nor does what goes well show it: on the terminal, in the ledger, in the files.
    server.psql(server.url(), "CREATE TABLE people (id int)").unwrap();
    let loaded = by_environment(server.url(), "load", &["-v"]);
    loaded.assert(0, &["1 row"]);
    assert_hidden(&loaded);
    let synced = by_environment(server.url(), "sync", &["-v"]);
    synced.assert(0, &["1 stored"]);
    assert_hidden(&synced);
    let exported = by_environment(server.url(), "export", &["-v"]);
    exported.assert(0, &["1 "]);
    assert_hidden(&exported);
    let crawled = by_environment(server.url(), "crawl", &["--check", "-v"]);
    crawled.assert(0, &[]);
    assert_hidden(&crawled);
    let store = |name: &str, url: &str| {
        let mut command = bulk([name, &format!("s3://{BUCKET}"), "--anonymous", "--endpoint", &bucket.url()]);
        if name == "sync" {
            command.args(["--out"]).arg(folder.path().join("out"));
        }
        command.args(["-v", "--restart", "--checkpoint"]).arg(folder.path().join("checkpoint")).env("BULK_KNOWN", url);
        command
    };
    for name in ["diff", "sync"] {
        for (url, status, said) in cases.iter().filter(|(url, ..)| url.contains("://")) {
            run_all(
                || {
                    let mut command =
                        bulk([name, &format!("s3://{BUCKET}"), "--anonymous", "--endpoint", &bucket.url()]);
                    if name == "sync" {
                        command.args(["--out"]).arg(folder.path().join("out"));
                    }
                    command.env("BULK_KNOWN", url);
                    command
                },
                *status,
                said,
            );
        }
        let ran = Ran::of(store(name, server.url()));
        assert_eq!(ran.status, Some(0), "{ran:?}");
        assert_hidden(&ran);
        let mut help = store(name, server.url());
        help.arg("--help");
        assert_hidden(&Ran::of(help));
    }
    let checked = by_environment(server.url(), "doctor", &["-v"]);
    checked.assert(0, &["ok    database"]);
    assert_hidden(&checked);
    let ledger = server.psql(server.url(), "SELECT * FROM bulk.load").unwrap();
    assert!(!ledger.contains(SECRET) && !ledger.contains(ESCAPED), "{ledger}");
    for (name, bytes) in files(folder.path()) {
        assert!(!String::from_utf8_lossy(&bytes).contains(SECRET), "{name}");
    }
}

/// A command that connects to a database.
fn on(name: &str, folder: &Path, endpoint: &str) -> Command {
    let mut command = bulk([name]);
    match name {
        "load" => command.arg(folder.join("people.csv")).args(["--table", "people"]),
        "mirror" => command.args(["courtlistener", "--endpoint", endpoint, "--dir"]).arg(folder.join("files")),
        "sync" => {
            let source = format!("s3://{BUCKET}");
            command.args([&source, "--anonymous", "--endpoint", endpoint, "--table", "object", "--body", "bytea"]);
            command.env("XDG_STATE_HOME", folder)
        }
        "export" => command.arg(folder.join("export.toml")).arg("--out").arg(folder.join("archives")),
        "crawl" => command.arg(folder.join("crawl.toml")),
        _ => command.args(["--endpoint", endpoint, "--dir"]).arg(folder),
    };
    command
}

#[test]
fn of_what_stands_in_a_url_nothing_is_shown() {
    let server = s3::Server::builder().bucket(BUCKET, Store::memory()).start().unwrap();
    let host = server.url().strip_prefix("http://").unwrap().to_owned();
    let folder = tempfile::tempdir().unwrap();
    for (url, status, said) in [
        (format!("http://me:{ESCAPED}@{host}/{BUCKET}/a.csv"), 1, "does not exist"),
        (format!("http://me:{ESCAPED}@{host}/"), 2, "names no file"),
        (format!("ftp://me:{ESCAPED}@{host}/a.csv"), 2, "s3://bucket/prefix"),
    ] {
        let command = || {
            let mut command = bulk(["fetch", &url, "--out"]);
            command.arg(folder.path().join("out"));
            command
        };
        run_all(command, status, said);
    }
}
