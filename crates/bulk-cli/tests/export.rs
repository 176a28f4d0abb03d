//! `bulk export`, from the first run on: what it publishes is read back by GNU tar.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bulk_testkit::postgres::Database;
use bulk_testkit::s3::{Fault, RequestRecord, Rule, Server, Store};
use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{NOWHERE, Ran, Running, bulk, server};

/// A database, and a folder with a spec.
struct Bench {
    folder: tempfile::TempDir,
    database: Database,
}

const SPEC: &str = r#"
out = "archives"
[[type]]
name = "opinions"
table = "opinion"
id = "id"
group = "court"
modified = "changed"
columns = ["id", "text"]
deletions = { table = "grave", id = "id", deleted = "at" }

[[type]]
name = "people"
query = "SELECT id, state, changed, body FROM person; -- all of them"
id = "id"
group = "state"
modified = "changed"
json = "body"
deletions = { query = "SELECT id FROM gone_person WHERE at >= {since}" }
"#;

const DDL: &str = "
    CREATE TABLE opinion (id int PRIMARY KEY, court text, changed timestamptz DEFAULT now(), text text);
    CREATE TABLE person (id text PRIMARY KEY, state text, changed timestamptz DEFAULT now(), body jsonb);
    CREATE TABLE grave (id int, at timestamptz DEFAULT now());
    CREATE TABLE gone_person (id text, at timestamptz DEFAULT now());
    INSERT INTO opinion (id, court, text) SELECT n, 'ca' || n % 3, 'opinion ' || n FROM generate_series(1, 30) n;
    INSERT INTO person (id, state, body) VALUES ('a/b', 'New York', '{\"name\": \"Ann\"}'), ('..', 'x', '[1, null]')";

impl Bench {
    fn new(spec: &str, ddl: &str) -> Self {
        let bench =
            Self { folder: tempfile::tempdir().unwrap(), database: server().create_database("export").unwrap() };
        fs::write(bench.path("export.toml"), spec).unwrap();
        bench.sql(ddl);
        bench
    }

    /// With both types exported.
    fn exported() -> Self {
        let bench = Self::new(SPEC, DDL);
        bench.export(&[]).assert(0, &[]);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn out(&self) -> PathBuf {
        self.path("archives")
    }

    fn sql(&self, text: &str) -> String {
        support::sql(&self.database, text)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bulk(["export"]);
        command.args(arguments).current_dir(self.folder.path()).env("BULK_DB", self.database.url());
        command
    }

    /// Of the spec, with these flags beside.
    #[track_caller]
    fn export(&self, more: &[&str]) -> Ran {
        Ran::of(self.command(&[&["export.toml"], more].concat()))
    }

    /// The figures of a run that has to end so.
    #[track_caller]
    fn exported_with(&self, status: i32, more: &[&str]) -> Value {
        let ran = self.export(&[&["--json"], more].concat());
        assert_eq!(ran.status, Some(status), "{ran:?}");
        ran.events_of("exported").remove(0)
    }

    /// Asserts that what is published is whole.
    #[track_caller]
    fn verify(&self) {
        Ran::of(self.command(&["--verify", "--out", "archives"])).assert(0, &["all is as it was made"]);
    }

    /// All items, by type, group and id.
    #[track_caller]
    fn items(&self) -> BTreeMap<String, String> {
        items(&self.out())
    }

    /// What tells a file from one of the same name that was written anew.
    fn stamps(&self) -> BTreeMap<String, (u64, i64, i64)> {
        let names = support::files(&self.out()).into_keys().filter(|name| !name.ends_with("info.json"));
        let stamp = |name: String| {
            let facts = fs::metadata(self.out().join(&name)).unwrap();
            (name, (facts.ino(), facts.mtime(), facts.mtime_nsec()))
        };
        names.map(stamp).collect()
    }

    /// The files that are others than before, or gone.
    fn touched(&self, before: &BTreeMap<String, (u64, i64, i64)>) -> Vec<String> {
        let now = self.stamps();
        let names: std::collections::BTreeSet<_> = before.keys().chain(now.keys()).collect();
        names.into_iter().filter(|name| before.get(*name) != now.get(*name)).cloned().collect()
    }
}

/// What GNU tar finds in the archives of a manifest.
#[track_caller]
fn items(out: &Path) -> BTreeMap<String, String> {
    let manifest: Value = serde_json::from_slice(&fs::read(out.join("manifest.json")).unwrap()).unwrap();
    let mut items = BTreeMap::new();
    for archive in manifest["archives"].as_array().unwrap() {
        let name = archive["name"].as_str().unwrap();
        let place = tempfile::tempdir().unwrap();
        let status = Command::new("tar").arg("-xzf").arg(out.join(name)).arg("-C").arg(place.path()).status().unwrap();
        assert!(status.success(), "{name}");
        let found = support::files(place.path());
        assert_eq!(archive["entries"], found.len(), "{name}");
        for (file, bytes) in found {
            items
                .insert(format!("{}/{file}", name.strip_suffix(".tar.gz").unwrap()), String::from_utf8(bytes).unwrap());
        }
    }
    items
}

/// What the table has, as the server tells it.
fn opinions(bench: &Bench) -> BTreeMap<String, String> {
    let rows = bench.sql("SELECT court || '/' || id, json_build_object('id', id, 'text', text) FROM opinion");
    let item = |line: &str| {
        let (name, json) = line.split_once('|').unwrap();
        // The one puts spaces where the other has none.
        (format!("opinions/{name}.json"), json.replace("\" : ", "\":").replace(", \"", ",\""))
    };
    rows.lines().map(item).collect()
}

fn people() -> BTreeMap<String, String> {
    let items = [("people/New%20York/a%2Fb.json", "{\"name\": \"Ann\"}"), ("people/x/%2E..json", "[1, null]")];
    items.map(|(name, json)| (name.to_owned(), json.to_owned())).into()
}

fn both(bench: &Bench) -> BTreeMap<String, String> {
    opinions(bench).into_iter().chain(people()).collect()
}

#[test]
fn all_is_exported_and_then_what_changes() {
    let bench = Bench::new(SPEC, DDL);
    let ran = bench.export(&[]);
    ran.assert(0, &["opinions: 30 rows read, 0 are gone", "people: 2 rows read, 0 are gone"]);
    ran.assert(0, &["32 items added, 0 replaced, 0 moved, 0 removed; 5 archives made", "5 archives have 32 items"]);
    assert_eq!(bench.items(), both(&bench));
    bench.verify();
    let info: Value = serde_json::from_slice(&fs::read(bench.out().join("opinions/info.json")).unwrap()).unwrap();
    assert!(info["last_good_date"].is_string() && info["last_attempt"].is_string(), "{info}");

    // Nothing to do: all is read within the overlap, and nothing is touched.
    let before = bench.stamps();
    let figures = bench.exported_with(0, &[]);
    assert_eq!((&figures["added"], &figures["replaced"], &figures["unchanged"]), (&json!(0), &json!(0), &json!(32)));
    assert_eq!(bench.touched(&before), [""; 0]);
    bench.export(&["--overlap", "0s"]).assert(0, &["nothing has changed"]);

    // A change, a new row, one that moves into a new group.
    bench.sql(
        "UPDATE opinion SET text = 'it''s\n\"new\"', changed = now() WHERE id = 3;
         INSERT INTO opinion (id, court, text) VALUES (31, 'ca0', NULL);
         UPDATE opinion SET court = 'scotus', changed = now() WHERE id = 6",
    );
    let figures = bench.exported_with(0, &[]);
    let of = |name: &str| figures[name].as_u64().unwrap();
    assert_eq!([of("added"), of("replaced"), of("moved"), of("removed")], [1, 1, 1, 0]);
    assert_eq!((of("archives_made"), of("archives"), of("items")), (2, 6, 33));
    let names = ["manifest.json", "opinions/ca0.tar.gz", "opinions/ca0.tar.gz.idx", "opinions/scotus.tar.gz"];
    assert_eq!(bench.touched(&before), [&names[..], &["opinions/scotus.tar.gz.idx"]].concat());
    assert_eq!(bench.items(), both(&bench));
    assert_eq!(bench.items()["opinions/ca0/3.json"], "{\"id\":3,\"text\":\"it's\\n\\\"new\\\"\"}");
    bench.verify();

    // The last of a group leaves it.
    bench.sql("UPDATE opinion SET court = 'ca1', changed = now() WHERE id = 6");
    bench.export(&[]).assert(0, &["0 items added, 0 replaced, 1 moved, 0 removed; 1 archive made", "1 removed"]);
    assert!(!bench.out().join("opinions/scotus.tar.gz").exists());
    bench.verify();

    // A row that was touched alone.
    let before = bench.stamps();
    bench.sql("UPDATE opinion SET changed = now() + interval '1 hour' WHERE id = 7");
    bench.export(&["--ignore-times"]).assert(0, &["nothing has changed"]);
    assert_eq!(bench.touched(&before), [""; 0]);
    bench.export(&[]).assert(0, &["0 items added, 1 replaced"]);
}

#[test]
fn what_is_gone_goes() {
    let bench = Bench::exported();
    bench.sql(
        "DELETE FROM opinion WHERE id IN (1, 2, 3); INSERT INTO grave VALUES (1), (2), (4);
         DELETE FROM person WHERE id = '..'; INSERT INTO gone_person VALUES ('..'), ('a/b'), ('never')",
    );
    // 4 and a/b are there again; of 3 nobody tells.
    bench.export(&[]).assert(0, &["0 replaced, 0 moved, 3 removed"]);
    let mut wanted = both(&bench);
    wanted.remove("people/x/%2E..json").unwrap();
    wanted.insert("opinions/ca0/3.json".to_owned(), "{\"id\":3,\"text\":\"opinion 3\"}".to_owned());
    assert_eq!(bench.items(), wanted);

    // A sweep finds it, and what was changed without its time.
    bench.sql(
        "UPDATE opinion SET court = 'scotus', changed = '2001-01-01' WHERE id = 8;
         INSERT INTO opinion VALUES (32, 'ca2', '2001-01-01', 'old')",
    );
    bench.export(&[]).assert(0, &["nothing has changed"]);
    let ran = bench.export(&["--sweep"]);
    ran.assert(
        0,
        &["opinions: 28 ids; 1 item is gone, 2 were missed or have moved", "people: 1 id; 0 items are gone, 0"],
    );
    ran.assert(0, &["1 item added, 0 replaced, 1 moved, 1 removed"]);
    wanted = both(&bench);
    wanted.remove("people/x/%2E..json").unwrap();
    assert_eq!(bench.items(), wanted);
    bench.verify();

    // Content that was changed without its time is found by reading all.
    bench.sql("UPDATE opinion SET text = 'quiet', changed = '2001-01-01' WHERE id = 9");
    bench.export(&["--sweep"]).assert(0, &["nothing has changed"]);
    bench.export(&["--full"]).assert(0, &["0 items added, 1 replaced"]);
    wanted.insert("opinions/ca0/9.json".to_owned(), "{\"id\":9,\"text\":\"quiet\"}".to_owned());
    assert_eq!(bench.items(), wanted);
}

#[test]
fn another_spec_is_another_export() {
    let bench = Bench::exported();
    bench.sql("UPDATE opinion SET changed = '2001-01-01'");
    let spec = SPEC.replace("columns = [\"id\", \"text\"]", "columns = [\"text\"]");
    fs::write(bench.path("export.toml"), spec.replace("out = \"archives\"", "out = \"archives\"\nall-tar = true"))
        .unwrap();
    bench.sql("DELETE FROM opinion WHERE id > 2");
    bench.export(&["-v"]).assert(
        0,
        &[
            "opinions: all rows are read, since the spec of it is another one than it was",
            "2 replaced, 0 moved, 28 removed",
        ],
    );
    assert_eq!(bench.items()["opinions/ca1/1.json"], "{\"text\":\"opinion 1\"}");
    let listed = Command::new("tar").arg("-tf").arg(bench.out().join("opinions/all.tar")).output().unwrap();
    assert_eq!(String::from_utf8(listed.stdout).unwrap(), "ca1.tar.gz\nca2.tar.gz\n");
    bench.verify();
}

#[test]
fn types_are_exported_one_by_one() {
    let bench = Bench::new(SPEC, DDL);
    bench.export(&["--type", "people"]).assert(0, &["2 items added"]);
    assert_eq!(bench.items(), people());
    bench.export(&["--type", "opinions", "--out", "elsewhere"]).assert(0, &["30 items added"]);
    assert_eq!(items(&bench.path("elsewhere")), opinions(&bench));
    bench.export(&["--overlap", "0s"]).assert(0, &["30 items added"]);
    assert_eq!(bench.items(), both(&bench));
    bench.export(&["--type", "judges"]).assert(2, &["--type judges: the spec has opinions, people"]);
}

#[test]
fn a_dry_run_says_what_would_be_read() {
    let bench = Bench::new(SPEC, DDL);
    let dry = |more: &[&str]| {
        let ran = bench.export(&[&["--dry-run"], more].concat());
        ran.assert(0, &[]);
        ran.stdout
    };
    assert_eq!(
        dry(&[]),
        "opinions: read all 30 rows, since nothing is known of an earlier export\n\
         people: read all 2 rows, since nothing is known of an earlier export\n"
    );
    assert!(!bench.out().exists());
    bench.export(&[]).assert(0, &[]);
    bench.sql(
        "UPDATE opinion SET changed = '2001-01-01' WHERE id > 4; DELETE FROM opinion WHERE id = 1; INSERT INTO grave VALUES (1)",
    );
    let before = bench.stamps();
    assert_eq!(
        dry(&["--sweep", "--type", "opinions"]),
        "opinions: read 3 rows that may have changed, and remove 1 that are gone; look at the ids of all\n"
    );
    assert_eq!(
        dry(&["--full", "--type", "people"]),
        "people: read all 2 rows, since --full asks for it, and remove 0 that are gone\n"
    );
    assert_eq!(bench.touched(&before), [""; 0]);
    let planned = bench.export(&["--dry-run", "--json"]).events_of("planned");
    assert_eq!((&planned[0]["rows"], &planned[0]["gone"], &planned[0]["all"]), (&json!(3), &json!(1), &json!(false)));
}

#[test]
fn bad_rows_are_named_and_left_out() {
    let spec = "[[type]]\nname = \"t\"\ntable = \"t\"\nid = \"id\"\ngroup = \"grp\"\njson = \"body\"";
    let bench = Bench::new(
        spec,
        "CREATE TABLE t (id text, grp text, body text);
         INSERT INTO t VALUES ('good', 'g', '{}'), (NULL, 'g', '{}'), ('lost', NULL, '{}'), ('none', 'g', NULL),
             ('bad', 'g', '{\"a\":1'), ('two', 'g', '{} {}'), ('', 'g', '{}'), (repeat('x', 300), 'g', '{}'), ('nameless', '', '{}')",
    );
    let ran = bench.export(&["--out", "archives", "--report", "run.json"]);
    ran.assert(
        3,
        &[
            "t: a row is left out: it has no id",
            "t: the row \"lost\" is left out: it has no group",
            "t: the row \"none\" is left out: it has no JSON",
            "t: the row \"bad\" is left out: ",
            "t: the row \"two\" is left out: ",
            "t: the row \"\" is left out: ",
            "t: the row \"nameless\" is left out: ",
            "1 item added",
            "8 left out",
        ],
    );
    assert_eq!(bench.items(), BTreeMap::from([("t/g/good.json".to_owned(), "{}".to_owned())]));
    let run: Value = serde_json::from_slice(&fs::read(bench.path("run.json")).unwrap()).unwrap();
    assert_eq!((&run["command"], &run["exit"]), (&json!("export"), &json!(3)));
    let rejected = run["events"].as_array().unwrap().iter().filter(|event| event["event"] == "rejected").count();
    assert_eq!(rejected, 8);

    // A sweep meets those without a group again, and does not count them twice.
    bench.sql("DELETE FROM t WHERE id IS NULL");
    assert_eq!(bench.exported_with(3, &["--out", "archives", "--sweep"])["rejected"], 7);

    // Too many of them, and nothing is published.
    bench.sql("INSERT INTO t VALUES ('new', 'g', '{}')");
    let before = bench.stamps();
    let ran = bench.export(&["--out", "archives", "--max-rejects", "2"]);
    ran.assert(1, &["more than 2 items are bad, so nothing is published; --max-rejects N leaves out more"]);
    assert_eq!(bench.touched(&before), [""; 0]);
}

#[test]
fn lines_are_taken_from_a_file_or_standard_input() {
    let bench = Bench::new(SPEC, "");
    let lines = "{\"type\":\"a\",\"group\":\"g\",\"id\":1,\"modified\":\"2026-06-30T12:00:00Z\",\"item\":{\"x\": [1.0]}}\n\
         \n{\"type\":\"b\",\"group\":\"h\",\"id\":\"z\",\"item\":null}\r\n";
    let fed = |arguments: &[&str], bytes: &str| Ran::fed(bench.command(arguments), bytes);
    let out = ["--ndjson", "-", "--out", "archives"];
    fed(&out, lines).assert(0, &["2 items added"]);
    let item = |name: &str, json: &str| (name.to_owned(), json.to_owned());
    assert_eq!(bench.items(), BTreeMap::from([item("a/g/1.json", "{\"x\": [1.0]}"), item("b/h/z.json", "null")]));
    bench.verify();
    let listed = Command::new("tar")
        .args(["--utc", "--full-time", "-tvzf"])
        .arg(bench.out().join("a/g.tar.gz"))
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("2026-06-30 12:00:00 1.json"), "{listed}");

    let bad = "{\"type\":\"a\",\"id\":1,\"deleted\":true}\nnonsense\n{\"type\":\"a\",\"group\":\"g\",\"id\":\"\",\"item\":1}\n";
    fed(&out, bad).assert(
        3,
        &[
            "standard input: line 2 is left out: expected ident",
            "standard input: line 3 is left out: ",
            "1 removed",
            "2 left out",
        ],
    );
    assert_eq!(bench.items(), BTreeMap::from([item("b/h/z.json", "null")]));

    // Lines that are items, of a compressed file.
    let file = fs::File::create(bench.path("people.jsonl.gz")).unwrap();
    let mut file = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    file.write_all(b"{\"id\": 5, \"state\": \"x\", \"changed\": 7, \"body\": {\"name\": \"Ann\"}}\n").unwrap();
    file.finish().unwrap();
    let ran = Ran::of(bench.command(&["export.toml", "--type", "people", "--ndjson", "people.jsonl.gz"]));
    ran.assert(0, &["1 item added"]);
    assert_eq!(bench.items()["people/x/5.json"], "{\"name\": \"Ann\"}");
    let ran = fed(&["export.toml", "--ndjson", "-"], "{\"type\":\"judges\",\"group\":\"g\",\"id\":1,\"item\":1}");
    ran.assert(3, &["line 1 is left out: \"judges\" is no type that is asked for"]);

    // A type that came so, and now comes from the database, is what the database has.
    bench.sql(DDL);
    bench.export(&[]).assert(0, &["people: 2 ids; 1 item is gone"]);
    let mut wanted = both(&bench);
    wanted.extend([item("b/h/z.json", "null")]);
    assert_eq!(bench.items(), wanted);
}

#[test]
fn loose_files_are_taken() {
    let bench = Bench::new("", "");
    let put = |name: &str, text: &str| {
        let path = bench.path("loose").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("opinions/scotus/1.json", "{\"id\": 1}");
    put("opinions/ca9/a%2Fb.json", "[]");
    put("opinions/ca9/bad.json", "[");
    put("opinions/ca9/notes.txt", "no item");
    let ran = Ran::of(bench.command(&["--loose", "loose", "--out", "archives"]));
    ran.assert(
        3,
        &["loose/opinions/ca9/bad.json is left out: ", "notes.txt is left out: ", "2 items added", "2 left out"],
    );
    let item = |name: &str, json: &str| (name.to_owned(), json.to_owned());
    let wanted = BTreeMap::from([item("opinions/scotus/1.json", "{\"id\": 1}"), item("opinions/ca9/a%2Fb.json", "[]")]);
    assert_eq!(bench.items(), wanted);
    assert!(bench.path("loose/opinions/scotus/1.json").exists());
    let ran = Ran::of(bench.command(&["--loose", "loose", "--out", "archives", "--max-rejects", "1"]));
    ran.assert(1, &["more than 1 item is bad"]);
    Ran::of(bench.command(&["--loose", "absent", "--out", "archives"]))
        .assert(2, &["--loose absent: that is no folder"]);
}

/// What stands below `exports/` in the bucket of the server.
fn in_bucket(server: &Server) -> BTreeMap<String, Vec<u8>> {
    let url = server.url();
    let listed = Ran::of(bulk(["list", "s3://data", "--endpoint", &url, "--anonymous"]));
    assert_eq!(listed.status, Some(0), "{listed:?}");
    let keys = listed.stdout.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        Some(line.get("key")?.as_str()?.to_owned())
    });
    let read = |key: String| {
        let bytes = server.get("data", &key).unwrap().unwrap();
        (key.strip_prefix("exports/").unwrap_or(&key).to_owned(), bytes.to_vec())
    };
    keys.map(read).collect()
}

#[test]
fn a_bucket_gets_what_it_lacks() {
    let bench = Bench::new("", "");
    let server = Server::builder().bucket("data", Store::memory()).writable(true).start().unwrap();
    let lines = |text: &str| fs::write(bench.path("changes.ndjson"), text).unwrap();
    let url = server.url();
    let to = ["--ndjson", "changes.ndjson", "--out", "archives", "--to", "s3://data/exports"];
    let export = |more: &[&str]| {
        let more = [&to[..], &["--endpoint", &url, "--anonymous", "--json"], more].concat();
        Ran::of(bench.command(&more))
    };
    let item = |group: &str, id: u32| {
        format!("{{\"type\": \"opinions\", \"group\": \"{group}\", \"id\": {id}, \"item\": {{\"id\": {id}}}}}\n")
    };
    lines(&(item("ca1", 1) + &item("ca2", 2) + &item("ca3", 3)));
    let planned = export(&["--dry-run"]);
    assert_eq!((planned.status, in_bucket(&server), bench.out().exists()), (Some(0), BTreeMap::new(), false));
    let ran = export(&[]);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    let figures = |ran: &Ran| {
        let event = ran.events_of("uploaded").remove(0);
        ["files", "kept", "removed"].map(|name| event[name].as_u64().unwrap())
    };
    // Three archives, their indexes, and info.json.
    assert_eq!(figures(&ran), [7, 0, 0]);
    assert_eq!(in_bucket(&server), support::files(&bench.out()));

    // One group changes, one goes.
    lines(&(item("ca1", 4) + "{\"type\": \"opinions\", \"id\": 3, \"deleted\": true}\n"));
    let denied = Fault::Status { code: 403, error: "AccessDenied".to_owned(), retry_after: None };
    server.fault(Rule::new(denied).key("exports/opinions/ca1.tar.gz"));
    let ran = export(&[]);
    assert_eq!(ran.status, Some(6), "{ran:?}");
    assert!(
        ran.stdout.contains("the same command again brings to s3://data/exports/ what is missing there"),
        "{ran:?}"
    );
    assert!(!in_bucket(&server).contains_key("manifest.json"));
    server.clear_faults();
    let planned = export(&["--dry-run"]);
    let uploads = planned
        .events_of("planned")
        .iter()
        .filter_map(|event| Some(event.get("upload")?.as_str()?.to_owned()))
        .collect::<Vec<_>>();
    assert!(uploads.contains(&"opinions/ca1.tar.gz".to_owned()), "{planned:?}");
    assert!(!uploads.contains(&"opinions/ca2.tar.gz".to_owned()), "{planned:?}");
    let ran = export(&[]);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert_eq!(ran.events_of("uploaded")[0]["removed"], 2);
    assert_eq!(in_bucket(&server), support::files(&bench.out()));
    let names: Vec<_> = in_bucket(&server).into_keys().collect();
    let of = |group: &str| [format!("opinions/{group}.tar.gz"), format!("opinions/{group}.tar.gz.idx")];
    let others = ["manifest.json".to_owned(), "opinions/info.json".to_owned()];
    let mut wanted: Vec<_> = of("ca1").into_iter().chain(of("ca2")).chain(others).collect();
    wanted.sort();
    assert_eq!(names, wanted);
}

/// An export of lines into a bucket, request by request.
struct Upload {
    bench: Bench,
    server: Server,
}

/// Text that does not compress to less than three quarters of its length.
fn noise(len: usize, seed: u32) -> String {
    let mut random = fastrand::Rng::with_seed(seed.into());
    (0..len).map(|_| random.alphanumeric()).collect()
}

impl Upload {
    /// Of a large archive, in two parts, and two small ones.
    fn new() -> Self {
        let upload = Self::empty();
        upload.change(0);
        Ran::of(upload.command()).assert(0, &[]);
        upload.assert_is_there();
        upload
    }

    fn empty() -> Self {
        let server = Server::builder().bucket("data", Store::memory()).writable(true).start().unwrap();
        Self { bench: Bench::new("", ""), server }
    }

    /// What the next run exports: other items in `large`, one more in `small`, and group `gone-{edition - 1}` goes as the next one
    /// comes.
    fn change(&self, edition: u32) {
        let item = |group: &str, id: u32, text: &str| {
            format!("{{\"type\": \"opinions\", \"group\": \"{group}\", \"id\": {id}, \"item\": \"{text}\"}}\n")
        };
        // Some 9 MiB when they are compressed.
        let mut lines: String = (0..25).map(|id| item("large", id, &noise(500_000, edition * 25 + id))).collect();
        lines += &item("small", 1000 + edition, "small");
        lines += &item(&format!("gone-{edition}"), 2000 + edition, "gone");
        if let Some(before) = edition.checked_sub(1) {
            lines += &format!("{{\"type\": \"opinions\", \"id\": {}, \"deleted\": true}}\n", 2000 + before);
        }
        fs::write(self.bench.path("changes.ndjson"), lines).unwrap();
    }

    /// One request at a time, so that it is known what was done before one that is held.
    fn command(&self) -> Command {
        let to = ["--ndjson", "changes.ndjson", "--out", "archives", "--to", "s3://data/exports", "--jobs", "1"];
        self.bench.command(&[&to[..], &["--endpoint", &self.server.url(), "--anonymous"]].concat())
    }

    /// What changed something in the bucket, in the order of the requests, and the key below `exports/`. But for `info.json`,
    /// which has the time of each run.
    fn writes(&self) -> Vec<(&'static str, String)> {
        let write = |record: RequestRecord| {
            let key = record.key.as_deref()?.strip_prefix("exports/")?.to_owned();
            let what = match (record.method.as_str(), record.param("uploadId").is_some()) {
                ("PUT", false) => "put",
                ("PUT", true) => "part",
                ("POST", false) => "begin",
                ("POST", true) => "complete",
                ("DELETE", false) => "remove",
                ("DELETE", true) => "abort",
                _ => return None,
            };
            (!key.ends_with("info.json")).then_some((what, key))
        };
        self.server.requests().into_iter().filter_map(write).collect()
    }

    /// Asserts that the bucket has what the folder has, nothing else, and no upload that is not finished.
    #[track_caller]
    fn assert_is_there(&self) {
        assert!(in_bucket(&self.server) == support::files(&self.bench.out()), "the bucket has another set");
        assert_eq!(self.server.uploads("data").unwrap(), []);
    }

    /// Runs it once more, behind a run that was cut short and left this in the bucket.
    #[track_caller]
    fn finish(&self, moment: &str, left: &BTreeMap<String, Vec<u8>>) {
        self.server.clear_faults();
        self.server.clear_requests();
        Ran::of(self.command()).assert(0, &["nothing has changed", "uploaded"]);
        self.assert_is_there();
        let (writes, local) = (self.writes(), support::files(&self.bench.out()));
        let is_left = |key: &String| left.get(key).is_some_and(|bytes| local.get(key) == Some(bytes));
        let twice: Vec<_> = writes.iter().filter(|(_, key)| is_left(key)).collect();
        assert!(twice.is_empty(), "{moment}: {twice:?} although they were there");
        // What is gone goes when the manifest is there.
        let behind = writes.iter().rev().take_while(|(_, key)| key != "manifest.json");
        assert!(behind.clone().all(|(what, _)| *what == "remove"), "{moment}: {writes:?}");
        self.server.clear_requests();
        Ran::of(self.command()).assert(0, &["nothing has changed", "s3://data/exports/: "]);
        assert_eq!(self.writes(), [], "{moment}");
    }
}

#[test]
fn whatever_kills_an_upload_the_next_one_ends_it() {
    let upload = Upload::new();
    let (large, small, manifest) = ("opinions/large.tar.gz", "opinions/small.tar.gz", "manifest.json");
    // The request that is held, how many uploads in parts are left unfinished, and the manifest that is left.
    let moments = [
        ("unpublish", manifest, Method::DELETE, 1, 0, Some("old")),
        ("begin", large, Method::POST, 1, 0, None),
        ("part", large, Method::PUT, 2, 1, None),
        ("complete", large, Method::POST, 2, 1, None),
        ("unheard", large, Method::POST, 2, 0, None),
        ("put", small, Method::PUT, 1, 0, None),
        ("publish", manifest, Method::PUT, 1, 0, None),
        ("remove", "opinions/gone-7.tar.gz", Method::DELETE, 1, 0, Some("new")),
    ];
    for (edition, (moment, key, method, nth, unfinished, has_manifest)) in (1..).zip(moments) {
        let old = in_bucket(&upload.server);
        upload.change(edition);
        // The server answers to what is unheard, and puts the object together.
        let fault = if moment == "unheard" { Fault::StallAfter(0) } else { Fault::Hang };
        let held = upload.server.fault(Rule::new(fault).key(&format!("exports/{key}")).method(method).nth(nth));
        let uploads = || upload.server.uploads("data").unwrap().len();
        support::kill_when(upload.command(), || held.hits() > 0 && uploads() == unfinished);
        let (left, local) = (in_bucket(&upload.server), support::files(&upload.bench.out()));
        let has = |set: &BTreeMap<String, Vec<u8>>| set.iter().all(|(key, bytes)| left.get(key) == Some(bytes));
        match has_manifest {
            Some("old") => assert!(left == old, "{moment}"),
            Some(_) => assert!(has(&local), "{moment}"),
            None => assert!(!left.contains_key(manifest), "{moment}"),
        }
        assert_eq!(left.get(large) == local.get(large), edition > 4, "{moment}");
        upload.finish(moment, &left);
    }
}

#[test]
fn whatever_kills_an_upload_by_copies_the_next_one_ends_it() {
    let upload = Upload::empty();
    let large = "opinions/large.tar.gz";
    let change = |items: &mut dyn Iterator<Item = (u32, u32)>| {
        let line = |(id, seed)| {
            let text = noise(500_000, seed);
            format!("{{\"type\": \"opinions\", \"group\": \"large\", \"id\": {id}, \"item\": \"{text}\"}}\n")
        };
        fs::write(upload.bench.path("changes.ndjson"), items.map(line).collect::<String>()).unwrap();
    };
    // Some 21 MiB when they are compressed.
    change(&mut (0..60).map(|id| (id, id)));
    Ran::of(upload.command()).assert(0, &[]);
    upload.assert_is_there();
    let copies = || upload.server.requests().iter().filter(|record| record.copy_range.is_some()).count();
    // The request that is held, how many uploads in parts are left unfinished, and how many copies were asked for.
    let moments = [
        ("begin", Method::POST, 1, 0, 0),
        ("first part", Method::PUT, 1, 1, 1),
        ("second part", Method::PUT, 2, 1, 1),
        ("complete", Method::POST, 2, 1, 2),
        ("unheard", Method::POST, 2, 0, 2),
    ];
    for (edition, (moment, method, nth, unfinished, asked)) in (1..).zip(moments) {
        // In the middle: what is before it is copied, and what is behind it.
        change(&mut [(30, 100 + edition)].into_iter());
        upload.server.clear_requests();
        let fault = if moment == "unheard" { Fault::StallAfter(0) } else { Fault::Hang };
        let held = upload.server.fault(Rule::new(fault).key(&format!("exports/{large}")).method(method).nth(nth));
        let uploads = || upload.server.uploads("data").unwrap().len();
        support::kill_when(upload.command(), || held.hits() > 0 && uploads() == unfinished);
        assert_eq!(copies(), asked, "{moment}");
        let left = in_bucket(&upload.server);
        assert!(!left.contains_key("manifest.json"), "{moment}");
        let is_there = left[large] == support::files(&upload.bench.out())[large];
        assert_eq!(is_there, moment == "unheard", "{moment}");
        upload.server.clear_faults();
        upload.server.clear_requests();
        Ran::of(upload.command()).assert(0, &["nothing has changed", "uploaded"]);
        upload.assert_is_there();
        // What was there already is not known piece by piece: nobody has noted it.
        assert_eq!(copies(), if is_there { 0 } else { 2 }, "{moment}");
    }
}

#[test]
fn ctrl_c_leaves_an_upload_to_the_next_one() {
    let upload = Upload::new();
    upload.change(1);
    let large = "exports/opinions/large.tar.gz";
    let held = upload.server.fault(Rule::new(Fault::Hang).key(large).method(Method::PUT).nth(2));
    let mut running = Running::start(upload.command());
    running.wait_until("the second part", |_| held.hits() > 0);
    running.signal(Signal::INT);
    let (status, said) = running.end();
    assert_eq!(status, Some(130), "{said}");
    assert!(said.contains("stopping: nothing is published, unless it is already; once more to stop at once"), "{said}");
    let next = "the archives are published in archives; the same command again brings to s3://data/exports/ what is missing there";
    assert!(said.contains(next) && !said.contains("error"), "{said}");
    let left = in_bucket(&upload.server);
    assert!(!left.contains_key("manifest.json"));
    upload.bench.verify();
    upload.finish("Ctrl-C", &left);
}

#[test]
fn of_a_large_archive_only_what_changed_is_sent() {
    let upload = Upload::empty();
    // Some 21 MiB when they are compressed.
    let texts: Vec<_> = (0..60).map(|id| noise(500_000, id)).collect();
    let export = |items: &mut dyn Iterator<Item = (usize, &str)>| {
        let line = |(id, text): (usize, &str)| {
            format!("{{\"type\": \"o\", \"group\": \"all\", \"id\": {id}, \"item\": \"{text}\"}}\n")
        };
        fs::write(upload.bench.path("changes.ndjson"), items.map(line).collect::<String>()).unwrap();
        upload.server.clear_requests();
        let mut command = upload.command();
        command.arg("--json");
        let event = Ran::of(command).events_of("uploaded").remove(0);
        upload.assert_is_there();
        // Without the bodies of requests that are not for a file.
        let is_file = |record: &RequestRecord| record.param("uploadId").is_none() || record.method == Method::PUT;
        let sent: u64 =
            upload.server.requests().iter().filter(|record| is_file(record)).filter_map(|record| record.body_len).sum();
        let manifest = fs::metadata(upload.bench.out().join("manifest.json")).unwrap().len();
        let [bytes, copied] = ["bytes", "copied"].map(|name| event[name].as_u64().unwrap());
        assert_eq!(sent, bytes + manifest - copied);
        (bytes, copied)
    };
    let (bytes, copied) = export(&mut texts.iter().map(String::as_str).enumerate());
    assert!(bytes > 16 << 20 && copied == 0, "{bytes} {copied}");
    // One is replaced, and after that one comes.
    for change in [(30, "other"), (61, "another")] {
        let (bytes, copied) = export(&mut [change].into_iter());
        assert!(bytes - copied < 8 << 20 && copied > 8 << 20, "{change:?}: {copied} of {bytes}");
    }
    upload.bench.verify();
}

#[test]
fn what_is_damaged_is_found_and_indexes_are_made_anew() {
    let bench = Bench::exported();
    let path = bench.out().join("opinions/ca1.tar.gz");
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&path, &flipped).unwrap();
    let ran = Ran::of(bench.command(&["--verify", "--out", "archives"]));
    ran.assert(7, &["opinions/ca1.tar.gz: it has not the SHA-256 that the manifest says", "1 file differs"]);
    let checks = Ran::of(bench.command(&["--verify", "--out", "archives", "--json"])).events_of("check");
    assert_eq!(checks[0]["file"], "opinions/ca1.tar.gz");
    fs::remove_file(&path).unwrap();
    bench.sql("UPDATE opinion SET text = text || ' again', changed = now() WHERE court = 'ca1'");
    let ran = bench.export(&[]);
    ran.assert(
        1,
        &["opinions/ca1.tar.gz: missing, though the set has it", "bulk export --rebuild-index --out DIR does without"],
    );
    fs::write(&path, &whole).unwrap();
    bench.export(&[]).assert(0, &["0 items added"]);
    bench.verify();
    let wanted = bench.items();

    // An index that is gone, and the memory of all of them.
    fs::remove_file(bench.out().join("opinions/ca0.tar.gz.idx")).unwrap();
    fs::remove_file(bench.out().join(".bulk/export.sqlite")).unwrap();
    bench
        .export(&[])
        .assert(1, &["missing, though there are archives", "bulk export --rebuild-index --out DIR makes it anew"]);
    let ran = Ran::of(bench.command(&["--rebuild-index", "--out", "archives"]));
    ran.assert(0, &["5 archives have 32 items; 1 index was not theirs and is new, 0 archives were made anew"]);
    bench.verify();
    assert_eq!(bench.items(), wanted);
    // Since when changes are to be read is not known any more, nor what is gone.
    bench.sql("DELETE FROM opinion WHERE id = 30; UPDATE opinion SET text = 'x', changed = '2001-01-01' WHERE id = 1");
    bench.export(&[]).assert(0, &["0 items added, 1 replaced, 0 moved, 1 removed"]);
    assert_eq!(bench.items(), both(&bench));
    Ran::of(bench.command(&["--verify", "--out", "absent"])).assert(1, &["absent"]);
    Ran::of(bench.command(&["--rebuild-index", "--out", "absent"])).assert(2, &["absent: there is no such folder"]);
}

/// Starts an export, and kills it as soon as it says so.
fn kill_at(bench: &Bench, event: &str) {
    let mut command = bench.command(&["export.toml", "--json", "-v"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let is_event = BufReader::new(child.stdout.take().unwrap()).lines().any(|line| {
        let said: Value = serde_json::from_str(&line.unwrap()).unwrap();
        said["event"] == event || said["message"].as_str().unwrap().starts_with(event)
    });
    // It may have come to its end meanwhile.
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_event, "{event} never came");
}

#[test]
fn whatever_kills_it_the_set_is_the_old_or_the_new_one() {
    for event in ["opinions: all rows", "staged", "made", "committed", "exported"] {
        let bench = Bench::new(SPEC, DDL);
        kill_at(&bench, event);
        bench.export(&[]).assert(0, &[]);
        assert_eq!(bench.items(), both(&bench), "{event}");
        bench.verify();
    }
    let bench = Bench::exported();
    for event in ["staged", "made", "committed", "exported"] {
        let old = bench.items();
        bench.sql("UPDATE opinion SET text = text || '!', court = 'ca' || (id + length(text)) % 4, changed = now()");
        kill_at(&bench, event);
        if bench.out().join("manifest.json").exists() {
            bench.verify();
            let items = bench.items();
            assert!(items == old || items == both(&bench), "{event}");
        }
        bench.export(&[]).assert(0, &[]);
        assert_eq!(bench.items(), both(&bench), "{event}");
        bench.verify();
    }
}

#[test]
fn ctrl_c_publishes_nothing() {
    let bench = Bench::exported();
    let before = bench.stamps();
    let mut command = bench.command(&["--ndjson", "-", "--out", "archives"]);
    command.stdin(Stdio::piped());
    let mut running = Running::start(command);
    // It waits for more, and holds the folder.
    let mut stdin = running.child.stdin.take().unwrap();
    stdin.write_all(b"{\"type\":\"opinions\",\"group\":\"new\",\"id\":99,\"item\":1}\n").unwrap();
    stdin.flush().unwrap();
    let stage = bench.out().join(".bulk/stage");
    running.wait_until("it begins", |_| stage.exists());
    bench.export(&[]).assert(1, &["another export is using it", "wait for it, or stop it"]);
    running.signal(Signal::INT);
    let (status, said) = running.end();
    assert_eq!(status, Some(130), "{said}");
    assert!(said.contains("stopping: nothing is published, unless it is already; once more to stop at once"), "{said}");
    assert_eq!(bench.touched(&before), [""; 0]);
    bench.verify();
    bench.export(&[]).assert(0, &["nothing has changed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_does_not_wait_for_the_database() {
    let bench = Bench::exported();
    let before = bench.stamps();
    let (client, connection) = tokio_postgres::connect(bench.database.url(), tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute("BEGIN; LOCK TABLE person").await.unwrap();
    let mut running = Running::start(bench.command(&["export.toml"]));
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    running.wait_until("it waits", |_| bench.sql(waits) == "1");
    running.signal(Signal::INT);
    let (status, said) = running.end();
    assert_eq!(status, Some(130), "{said}");
    assert_eq!(bench.touched(&before), [""; 0]);
    drop(client);
    connection.await.unwrap().unwrap();
    bench.export(&[]).assert(0, &["nothing has changed"]);
}

#[test]
fn wrong_usage_is_said_first() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("empty.toml"), "out = 'o'").unwrap();
    fs::write(folder.path().join("bad.toml"), "out = 'o'\n[[type]]\nname = 't'\ntable = 't'\nid = 'i'\ngruop = 'g'")
        .unwrap();
    fs::write(folder.path().join("good.toml"), "[[type]]\nname = 't'\ntable = 't'\nid = 'i'\ngroup = 'g'").unwrap();
    for (arguments, said) in [
        (&[][..], "<SPEC>"),
        (&["absent.toml", "--out", "o"], "cannot read absent.toml"),
        (&["empty.toml"], "empty.toml: it has no [[type]]"),
        (&["bad.toml"], "bad.toml: line 6, gruop: unknown field `gruop`"),
        (&["good.toml"], "where archives go is not said: give --out DIR, or out in the spec"),
        (&["good.toml", "--out", "o"], "which database is not said"),
        (&["good.toml", "--out", "o", "--db", "nonsense"], "the database URL cannot be used"),
        (&["--ndjson", "-", "--out", "o", "--type", "t"], "--type needs a spec that has it"),
        (&["--ndjson", "-", "--loose", "x", "--out", "o"], "cannot be used with"),
        (&["good.toml", "--out", "o", "--sweep", "--verify"], "cannot be used with"),
        (&["good.toml", "--out", "o", "--level", "10"], "10 is not in 1..=9"),
        (&["good.toml", "--out", "o", "--to", "file:///x"], "--to file:///x: archives go to s3://bucket/prefix"),
        (&["--verify", "--out", "o", "--to", "s3://b"], "cannot be used with"),
        (&["good.toml", "--out", "o", "--overlap", "soon"], "a time is a number with a unit"),
    ] {
        let mut command = bulk(["export"]);
        command.args(arguments).current_dir(folder.path());
        Ran::of(command).assert(2, &[said]);
    }
    // A password is in no message.
    let url = format!("postgresql://me:hunter2@{NOWHERE}/courts");
    let mut command = bulk(["export", "good.toml", "--out", "o", "--db", &url]);
    command.current_dir(folder.path());
    let ran = Ran::of(command);
    ran.assert(4, &["cannot connect to database \"courts\""]);
    assert!(!ran.stderr.contains("hunter2"));
    assert!(!folder.path().join("o").exists());
}

#[test]
fn what_the_database_refuses_is_said() {
    let bench = Bench::exported();
    let before = bench.stamps();
    fs::write(bench.path("export.toml"), SPEC.replace("\"opinion\"", "\"opinoin\"")).unwrap();
    bench
        .export(&[])
        .assert(1, &["cannot read the items of opinions: relation \"public.opinoin\" does not exist [SQLSTATE 42P01]"]);
    fs::write(bench.path("export.toml"), SPEC.replace("group = \"state\"", "group = \"stat\"")).unwrap();
    bench.export(&[]).assert(1, &["cannot read the items of people: column bulk_item.stat does not exist"]);
    // A role that may read the one table, and of the other only some rows.
    let role = format!("exporter_{}", bench.database.name());
    let (scheme, rest) = bench.database.url().split_once("://").unwrap();
    let url = format!("{scheme}://{role}:exporter@{}", rest.rsplit_once('@').map_or(rest, |(_, rest)| rest));
    bench.sql(&format!(
        "CREATE ROLE \"{role}\" LOGIN PASSWORD 'exporter'; GRANT SELECT ON person, grave, gone_person TO \"{role}\""
    ));
    fs::write(bench.path("export.toml"), SPEC).unwrap();
    let as_role = || {
        let mut command = bench.command(&["export.toml"]);
        command.env("BULK_DB", &url);
        Ran::of(command)
    };
    as_role().assert(
        6,
        &["cannot read the items of opinions: permission denied for table opinion", "ask for the privilege"],
    );
    bench.sql(&format!("GRANT SELECT ON opinion TO \"{role}\"; ALTER TABLE opinion ENABLE ROW LEVEL SECURITY"));
    as_role().assert(6, &["query would be affected by row-level security policy for table \"opinion\""]);
    bench.sql(&format!("DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\""));
    assert_eq!(bench.touched(&before), [""; 0]);
    bench.verify();
}

#[test]
fn the_readme_has_a_spec_that_works() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md")).unwrap();
    let section = readme.split_once("### Exporting").unwrap().1;
    let spec = section.split_once("```toml\n").unwrap().1.split_once("```").unwrap().0;
    let bench = Bench::new(
        spec,
        "CREATE TABLE search_opinion (id int, court_id text, date_modified timestamptz, plain_text text);
         CREATE TABLE deleted_opinion (id int, deleted_at timestamptz);
         CREATE TABLE people (id int, home text, modified timestamptz, is_judge boolean);
         INSERT INTO search_opinion VALUES (1, 'scotus', now(), 'Affirmed.'); INSERT INTO people VALUES (2, 'NY', NULL, true)",
    );
    bench.export(&["--out", "archives"]).assert(0, &["2 items added"]);
    let wanted = [
        ("judges/NY/2.json", "{\"id\":2,\"home\":\"NY\",\"modified\":null,\"is_judge\":true}"),
        ("opinions/scotus/1.json", "{\"id\":1,\"court_id\":\"scotus\",\"plain_text\":\"Affirmed.\"}"),
    ];
    assert_eq!(bench.items(), wanted.map(|(name, json)| (name.to_owned(), json.to_owned())).into());
}
