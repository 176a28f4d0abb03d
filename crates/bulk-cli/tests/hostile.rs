//! Buckets and files that mean harm, and roles that bound what they could do, from the outside.

mod support;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;

use bulk_testkit::api::{Server as Api, bungie};
use bulk_testkit::s3::{Fault, Rule, Store};
use support::{Bench, Fetch, NOWHERE, Ran, bulk, server, small, sql};

/// Asserts that nothing that a terminal obeys was printed, and that no line passes for one of the program's own.
#[track_caller]
fn assert_plain(ran: &Ran) {
    let is_obeyed = |char: char| char.is_control() && !matches!(char, '\n' | '\t');
    for text in [&ran.stdout, &ran.stderr] {
        assert!(!text.contains(is_obeyed), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("forged")), "{text}");
    }
}

#[test]
fn control_characters_of_keys_and_servers_are_shown_and_not_obeyed() {
    const KEY: &str = "a\u{1b}]0;title\u{7}\u{9b}2J\nforged: \rb.csv";
    const SHOWN: &str = r"a\u{1b}]0;title\u{7}\u{9b}2J\nforged: \rb.csv";
    let fetch = Fetch::new(Store::memory().with(format!("data/{KEY}"), "id\n1\n"), &[]);
    let planned = fetch.fetch(&["--dry-run"]);
    planned.assert(0, &[]);
    assert_plain(&planned);
    assert_eq!(planned.stdout, format!("5\tdata/{SHOWN}\n"));

    let denied = Fault::Status { code: 403, error: "No\nforged: yes\u{9b}1m".to_owned(), retry_after: None };
    let fault = fetch.server.fault(Rule::new(denied).suffix(".csv"));
    let failed = fetch.fetch(&["-v"]);
    failed.assert(6, &["is denied (No"]);
    assert_plain(&failed);
    fault.remove();

    let events = fetch.fetch(&["--json", "--dry-run"]);
    assert_plain(&events);
    assert_eq!(events.events_of("planned")[0]["key"], format!("data/{KEY}"));

    let fetched = fetch.fetch(&["-v"]);
    fetched.assert(0, &[r"a\u{1b}]0;title\u{7}\u{9b}2J", r"\rb.csv: 5 B fetched"]);
    assert_plain(&fetched);
    // The file has the name that it has there.
    fetch.assert_files(&[(KEY, "id\n1\n")]);
}

#[test]
fn credentials_that_would_go_readably_over_a_network_are_warned_of() {
    let doctor = |endpoint: &str, more: &[&str]| {
        let mut command = bulk(["doctor", "s3://bucket/prefix/", "--endpoint", endpoint]);
        command.args(more).env("http_proxy", format!("http://{NOWHERE}"));
        command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret");
        let folder = tempfile::tempdir().unwrap();
        command.arg("--dir").arg(folder.path());
        Ran::of(command).stderr
    };
    const WARNING: &str = "requests go to storage.example without encryption";
    assert!(doctor("http://storage.example", &[]).contains(WARNING));
    assert!(!doctor("http://storage.example", &["--anonymous"]).contains("without encryption"));
    assert!(!doctor("http://127.0.0.1:1", &[]).contains("without encryption"));
}

#[test]
fn a_file_that_becomes_too_much_is_not_loaded() {
    // 80 values of 1 MiB each in some 80 KiB.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(b"id,note\n").unwrap();
    for id in 0..80 {
        write!(encoder, "{id},").unwrap();
        io::copy(&mut io::repeat(b'x').take(1 << 20), &mut encoder).unwrap();
        encoder.write_all(b"\n").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bomb.csv.gz"), encoder.finish().unwrap()).unwrap();
    let database = server().create_database("bomb").unwrap();
    sql(&database, "CREATE TABLE t (id int, note text)");
    let load = |more: &[&str]| {
        let mut command = bulk(["load", "bomb.csv.gz", "--table", "t"]);
        command.args(more).current_dir(folder.path()).env("BULK_DB", database.url());
        Ran::of(command)
    };
    let said = ["more than 100 bytes for each compressed byte", "--max-ratio N allows more"];
    load(&["--max-ratio", "100"]).assert(1, &said);
    assert_eq!(sql(&database, "SELECT count(*) < 80 FROM t"), "t");
    // It is no damage, so what came before stays, and whoever trusts the file goes on.
    load(&["--max-ratio", "2000"]).assert(0, &["goes on behind record", "80 rows"]);
    assert_eq!(sql(&database, "SELECT count(DISTINCT id), count(*) FROM t"), "80|80");
}

#[test]
fn a_role_with_power_over_the_server_is_warned_of_where_a_bucket_brings_the_schema() {
    const WARNING: &str = "is a superuser, and functions of the snapshot's schema are run as it";
    let (bench, made) = Bench::with(&small());
    let ran = bench.mirror(&["--tables", "courts"]);
    assert!(ran.stderr.contains(WARNING), "{}", ran.stderr);
    // Who gives a schema has read it.
    let schema = bench.data().join("schema-2026-06-30.sql");
    let ran = bench.mirror(&["--tables", "courts", "--schema", schema.to_str().unwrap()]);
    assert!(!ran.stderr.contains("is a superuser"), "{}", ran.stderr);

    // A role that owns the database and nothing else is enough for all of a mirror.
    let owner = Owner::new();
    let mut command = bench.command(&["--verify", "full"]);
    command.env("BULK_DB", &owner.url);
    let ran = Ran::of(command);
    assert!(!ran.stderr.contains("is a superuser"), "{}", ran.stderr);
    assert!(matches!(ran.status, Some(0 | 3)), "{}", ran.stderr);
    let rows: u64 = made.files.iter().map(|file| file.rows).sum();
    assert!(ran.stderr.contains(&format!("have the {rows} rows of their files, and their content")), "{}", ran.stderr);
}

#[test]
fn whoever_owns_a_database_can_load_and_crawl() {
    let owner = Owner::new();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("member.csv"), "type,account,character\n3,4611686018000000001,7\n").unwrap();
    let run = |arguments: &[&str]| {
        let mut command = bulk(arguments);
        command.current_dir(folder.path()).env("BULK_DB", &owner.url).env("API_KEY", "key");
        Ran::of(command)
    };
    run(&["load", "member.csv", "--table", "member", "--create-table"]).assert(0, &["1 row"]);
    run(&["load", "member.csv", "--table", "member", "--refresh"]).assert(0, &[]);

    let api = Api::builder(bungie("key", |_| 5)).start().unwrap();
    let spec = format!(
        r#"
        name = "statistics"
        [input]
        query = "SELECT type, account, character FROM member"
        [request]
        url = "{}/Platform/Destiny2/{{type}}/Account/{{account}}/Character/{{character}}/Stats/AggregateActivityStats/"
        headers = {{ X-API-Key = "{{$key}}" }}
        secrets = {{ key = "env:API_KEY" }}
        [limits]
        rate = ["400/s"]
        [[rows]]
        table = "stat"
        each = ["$.Response.activities[*]", "$.values.*"]
        columns = {{ character = "input.character", activity = "$1.activityHash", stat = "key", value = "$.basic" }}
        "#,
        api.url()
    );
    std::fs::write(folder.path().join("job.toml"), spec).unwrap();
    let stat = "CREATE TABLE stat (character bigint, activity bigint, stat text, value jsonb)";
    sql(&owner.database, &format!("SET ROLE {}; {stat}", owner.role));
    run(&["crawl", "job.toml"]).assert(0, &["1 call", "complete"]);
    assert_eq!(sql(&owner.database, "SELECT count(*) FROM stat"), "5");
}

/// The mask of whoever runs it decides who may read what it writes, also while that is under way.
#[test]
fn files_under_way_and_whole_are_as_private_as_the_mask_says() {
    use std::os::unix::fs::PermissionsExt;

    fn modes(folder: &Path, found: &mut BTreeMap<String, u32>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            found.insert(name, entry.metadata().unwrap().permissions().mode() & 0o777);
            if entry.file_type().unwrap().is_dir() {
                modes(&entry.path(), found);
            }
        }
    }
    for (mask, file, folder) in [("077", 0o600, 0o700), ("022", 0o644, 0o755)] {
        let fetch = Fetch::new(
            Store::memory().with("data/whole.csv", "id\n1\n").with("data/part.csv", vec![b'x'; 1 << 20]),
            &[],
        );
        fetch.server.fault(Rule::new(Fault::Truncate(1 << 16)).suffix("part.csv").first(1));
        fetch.server.fault(
            Rule::new(Fault::Status { code: 403, error: "AccessDenied".to_owned(), retry_after: None })
                .suffix("part.csv")
                .nth(2),
        );
        let command = fetch.command(&["--report", "run.json"]);
        let mut masked = std::process::Command::new("sh");
        masked
            .args(["-c", &format!("umask {mask}; exec \"$0\" \"$@\"")])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => masked.env(name, value),
                None => masked.env_remove(name),
            };
        }
        masked.current_dir(fetch.folder.path());
        let ran = Ran::of(masked);
        ran.assert(3, &[]);
        let mut found = BTreeMap::new();
        modes(fetch.folder.path(), &mut found);
        for name in ["whole.csv", "manifest.json", "part.csv.part", "part.csv.json", "run.json"] {
            assert_eq!(found.get(name), Some(&file), "{name} {mask}: {found:?}\n{}", ran.stderr);
        }
        for name in ["out", ".bulk"] {
            assert_eq!(found.get(name), Some(&folder), "{name} {mask}: {found:?}");
        }
    }
}

/// A database, and a role that owns it and has no other right.
struct Owner {
    database: bulk_testkit::postgres::Database,
    role: String,
    url: String,
}

impl Owner {
    fn new() -> Self {
        let database = server().create_database("owned").unwrap();
        let role = format!("{}_owner", database.name());
        sql(
            &database,
            &format!("CREATE ROLE {role} LOGIN PASSWORD 'owner'; ALTER DATABASE {} OWNER TO {role}", database.name()),
        );
        let url = database.url_for(&role, "owner");
        Self { database, role, url }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // A role that owns something stays; the database goes with its value, behind this.
        let maintenance = server().url();
        let sql = format!("ALTER DATABASE {} OWNER TO CURRENT_USER", self.database.name());
        let _ = server().psql(maintenance, &sql);
        let sql = format!("REASSIGN OWNED BY {0} TO CURRENT_USER; DROP OWNED BY {0}; DROP ROLE {0}", self.role);
        let _ = server().psql(self.database.url(), &sql);
    }
}
