//! `bulk export`, from the first run on: what it publishes is read back by GNU tar.

#[path = "../support/mod.rs"]
mod support;
mod upload;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bulk_core::RunReport;
use bulk_testkit::postgres::{Database, DatabaseUrl, Options, Server};
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
    ran.assert(0, &["opinions: 30 rows and 0 deletions read", "people: 2 rows and 0 deletions read"]);
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
    bench.export(&[]).assert(0, &["opinions: 27 rows and 2 deletions read", "0 replaced, 0 moved, 3 removed"]);
    // They are read once more, and have no effect.
    bench.export(&[]).assert(0, &["opinions: 27 rows and 2 deletions read", "nothing has changed"]);
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
            "opinions: all rows are read, since its spec or its columns are not what they were",
            "2 replaced, 0 moved, 28 removed",
        ],
    );
    assert_eq!(bench.items()["opinions/ca1/1.json"], "{\"text\":\"opinion 1\"}");
    let listed = Command::new("tar").arg("-tf").arg(bench.out().join("opinions/all.tar")).output().unwrap();
    assert_eq!(String::from_utf8(listed.stdout).unwrap(), "ca1.tar.gz\nca2.tar.gz\n");
    bench.verify();
}

#[test]
fn a_type_is_in_one_file_too() {
    let spec = SPEC.replace("[[type]]\nname = \"opinions\"", "[[type]]\nname = \"opinions\"\nwhole = [\"jsonl.gz\"]");
    let bench = Bench::new(&spec, DDL);
    let lines = || {
        let read = Command::new("gzip").args(["-dc", "archives/opinions.jsonl.gz"]).current_dir(&bench.folder).output();
        let read = read.unwrap();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        String::from_utf8(read.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    // By court, and by id as text.
    let all = || opinions(&bench).into_values().collect::<Vec<_>>();
    bench.export(&[]).assert(0, &["5 archives made (", "; 1 file in other formats made ("]);
    assert_eq!((lines().len(), lines()), (30, all()));
    bench.sql("UPDATE opinion SET text = 'new', changed = now() WHERE id = 3");
    bench.export(&[]).assert(0, &["1 archive made (", "; 1 file in other formats made ("]);
    assert_eq!(lines(), all());
    bench.verify();
    assert!(!bench.out().join("people.jsonl.gz").exists());
    // What nothing was made of has no size.
    fs::write(bench.out().join("opinions.jsonl.gz"), "").unwrap();
    let ran = bench.export(&[]);
    ran.assert(0, &["0 items added", "; 0 archives made, 0 removed; 1 file in other formats made ("]);
    assert_eq!(lines(), all());
    bench
        .export(&["--whole", "none"])
        .assert(0, &["; 0 archives made, 0 removed; 0 files in other formats made, 1 removed; "]);
    assert!(!bench.out().join("opinions.jsonl.gz").exists());
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
        "opinions: read 3 rows that may have changed, and 1 deletion; look at the ids of all\n"
    );
    assert_eq!(
        dry(&["--full", "--type", "people"]),
        "people: read all 2 rows, since --full asks for it, and 0 deletions\n"
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
fn what_the_threads_of_a_large_group_do_is_metered() {
    let spec = "[[type]]\nname = \"t\"\ntable = \"t\"\nid = \"id\"\ngroup = \"grp\"\njson = \"body\"";
    let bench = Bench::new(
        spec,
        "CREATE TABLE t AS SELECT n AS id, 'all' AS grp, jsonb_build_object('text', repeat(md5(n::text), 60)) AS body
         FROM generate_series(1, 3000) n",
    );
    bench.export(&["--out", "archives", "--report", "run.json"]).assert(0, &["items added"]);
    let run: RunReport = serde_json::from_slice(&fs::read(bench.path("run.json")).unwrap()).unwrap();
    let stage = |name: &str| run.meters.stages.iter().find(|stage| stage.name == name);
    let compress = stage("compress").unwrap();
    assert_eq!(compress.total.items, 3000);
    match std::thread::available_parallelism().unwrap().get() {
        // The thread of the group does it itself.
        1 => assert!(stage("compose").is_none()),
        _ => {
            let compose = stage("compose").unwrap();
            assert_eq!((compose.total.items, &compress.after), (3000, &vec!["compose".to_owned()]));
            // The one waits for the others, and these for it: neither is without a name.
            assert!(!compose.total.blocked.is_zero(), "{compose:?}");
            assert!(!compress.total.starved.is_zero() && !compress.total.on_cpu.is_zero(), "{compress:?}");
        }
    }
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
    Ran::of(bench.command(&["--verify", "--out", "absent"])).assert(2, &["absent: there is no such folder"]);
    let nothing =
        "archives/opinions/manifest.json: there is none, and nothing that an export knows: no set was published here";
    Ran::of(bench.command(&["--verify", "--out", "archives/opinions"])).assert(1, &[nothing]);
    Ran::of(bench.command(&["--rebuild-index", "--out", "absent"])).assert(2, &["absent: there is no such folder"]);
}

#[test]
fn a_damaged_archive_is_made_anew_of_the_rows() {
    let bench = Bench::exported();
    let path = bench.out().join("opinions/ca1.tar.gz");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let rebuild = || Ran::of(bench.command(&["--rebuild-index", "--out", "archives"]));
    let damaged = ["opinions/ca1.tar.gz: damaged: it is not what was made", "bulk export SPEC --full", "remove it"];
    bench.export(&[]).assert(1, &damaged);
    rebuild().assert(1, &damaged);
    // What nothing tells to be gone does not come back.
    bench.sql("DELETE FROM opinion WHERE id = 4");
    bench.export(&["--full"]).assert(
        0,
        &[
            "opinions: 1 archive is damaged or missing, and made anew of the rows",
            "opinions: 29 ids; 1 item is gone",
            "0 items added, 9 replaced, 0 moved, 1 removed; 1 archive made",
        ],
    );
    assert_eq!(bench.items(), both(&bench));
    bench.verify();

    // What is not ours is in the way until it is elsewhere.
    fs::write(&path, "of somebody else's").unwrap();
    let theirs =
        ["opinions/ca1.tar.gz: it is not what the last export made there, and would be lost; move it elsewhere"];
    bench.export(&[]).assert(1, &theirs);
    bench.export(&["--full"]).assert(1, &theirs);
    rebuild().assert(1, &theirs);
    fs::rename(&path, bench.path("elsewhere")).unwrap();
    bench.export(&["--full"]).assert(0, &["opinions: 1 archive is damaged or missing", "1 archive made"]);
    assert_eq!(fs::read_to_string(bench.path("elsewhere")).unwrap(), "of somebody else's");
    assert_eq!(bench.items(), both(&bench));
    bench.verify();
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
    assert!(said.ends_with("interrupted; the same command begins anew\n"), "{said}");
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
fn times_without_a_zone_want_one_where_the_database_has_another() {
    let bench = Bench::new(
        SPEC,
        &DDL.replace("changed timestamptz", "changed timestamp").replace("at timestamptz", "at timestamp"),
    );
    let zone = format!("ALTER DATABASE \"{}\" SET timezone = 'America/New_York'", bench.database.name());
    bench.sql(&zone);
    let said = "opinions: the column changed is timestamp, which has no time zone, and that of the database is \
                America/New_York; say of which zone its times are: time-zone = \"America/New_York\"";
    for more in [&[][..], &["--dry-run"]] {
        bench.export(more).assert(1, &[said]);
    }
    assert!(!bench.out().join("manifest.json").exists());
    fs::write(bench.path("export.toml"), format!("time-zone = \"America/New_York\"\n{SPEC}")).unwrap();
    bench.export(&[]).assert(0, &["32 items added"]);
    bench.sql(
        "UPDATE opinion SET text = 'new', changed = now() WHERE id = 3; DELETE FROM opinion WHERE id = 4;
         INSERT INTO grave VALUES (4)",
    );
    bench.export(&["--overlap", "0s"]).assert(0, &["0 items added, 1 replaced, 0 moved, 1 removed"]);
    assert_eq!(bench.items(), both(&bench));
}

#[test]
fn a_standby_says_what_it_does_not_see() {
    let mut private = Options::default();
    private.database_url = DatabaseUrl::Ignore;
    let standby = Server::start(&private).unwrap();
    standby.psql(standby.url(), DDL).unwrap();
    std::fs::write(standby.data_dir().unwrap().join("standby.signal"), "").unwrap();
    standby.restart().unwrap();
    let bench = Bench::new(SPEC, "");
    let mut command = bench.command(&["export.toml"]);
    command.env("BULK_DB", standby.url());
    let said = "the server is a standby, which does not see the open transactions of its primary: the overlap has to be longer";
    Ran::of(command).assert(0, &[said, "32 items added"]);
}

#[test]
fn what_cannot_be_exported_any_more_goes() {
    let spec = "out = \"archives\"\n[[type]]\nname = \"t\"\ntable = \"t\"\nid = \"id\"\ngroup = \"grp\"\njson = \"body\"\nmodified = \"at\"";
    let bench = Bench::new(
        spec,
        "CREATE TABLE t (id int PRIMARY KEY, grp text, body text, at timestamptz DEFAULT now());
         INSERT INTO t SELECT n, 'g' || n % 2, '{\"n\":' || n || '}' FROM generate_series(1, 8) n",
    );
    bench.export(&[]).assert(0, &["8 items added"]);
    let change = |id: u32, what: &str| bench.sql(&format!("UPDATE t SET {what}, at = now() WHERE id = {id}"));
    let mut left: Vec<u32> = (1..=8).collect();
    for (id, what, why) in [
        (1, "grp = NULL", "it has no group"),
        (2, "body = NULL", "it has no JSON"),
        (3, "body = '{'", ""),
        (4, "grp = ''", ""),
        (5, "grp = repeat('x', 300)", ""),
    ] {
        change(id, what);
        let ran = bench.export(&["--overlap", "0s"]);
        ran.assert(3, &[&format!("t: the row \"{id}\" is left out: {why}"), "1 removed; "]);
        left.retain(|other| *other != id);
        let wanted: BTreeMap<_, _> =
            left.iter().map(|id| (format!("t/g{}/{id}.json", id % 2), format!("{{\"n\":{id}}}"))).collect();
        assert_eq!(bench.items(), wanted, "{what}");
    }
    bench.verify();
    // It stays so, and what is mended comes back.
    let figures = bench.exported_with(3, &["--sweep"]);
    assert_eq!((&figures["removed"], &figures["rejected"], &figures["items"]), (&json!(0), &json!(5), &json!(3)));
    change(1, "grp = 'g1'");
    bench.export(&["--overlap", "0s"]).assert(0, &["1 item added"]);

    // Nothing is made for a type all of whose rows are bad from the beginning.
    bench.sql("CREATE TABLE bad (LIKE t); INSERT INTO bad VALUES (1, NULL, '{}', now())");
    let spec = spec.replace("name = \"t\"\ntable = \"t\"", "name = \"bad\"\ntable = \"bad\"");
    fs::write(bench.path("bad.toml"), spec).unwrap();
    Ran::of(bench.command(&["bad.toml"])).assert(3, &["bad: the row \"1\" is left out: it has no group"]);
    assert!(!bench.out().join("bad").exists());
}

#[test]
fn other_columns_or_deletions_are_another_export() {
    let spec = SPEC.replace("columns = [\"id\", \"text\"]\n", "");
    let bench = Bench::new(&spec, DDL);
    bench.export(&[]).assert(0, &["32 items added"]);
    bench.sql("UPDATE opinion SET changed = '2001-01-01'; UPDATE person SET changed = '2001-01-01'");
    bench
        .export(&["--overlap", "0s"])
        .assert(0, &["opinions: 0 rows and 0 deletions read", "people: 0 rows and 0 deletions read"]);
    let anew = "opinions: all rows are read, since its spec or its columns are not what they were";
    bench.sql("ALTER TABLE opinion ADD COLUMN judge text DEFAULT 'Ann'; ALTER TABLE person ADD COLUMN age int");
    let ran = bench.export(&["-v", "--overlap", "0s"]);
    ran.assert(0, &[anew, "0 items added, 30 replaced", "people: 0 rows and 0 deletions read"]);
    assert!(bench.items().values().any(|json| json.contains("\"judge\":\"Ann\"")));
    bench.export(&["--overlap", "0s"]).assert(0, &["nothing has changed"]);

    // What is told to be gone is told by another table: what that has told before is not known.
    bench.sql("CREATE TABLE tomb AS SELECT 5 AS id, '2001-01-01'::timestamptz AS at; DELETE FROM opinion WHERE id = 5");
    fs::write(bench.path("export.toml"), spec.replace("table = \"grave\"", "table = \"tomb\"")).unwrap();
    bench.export(&["-v", "--overlap", "0s"]).assert(0, &[anew, "opinions: 29 ids; 1 item is gone", "1 removed"]);
}

#[test]
fn rows_that_share_an_id_are_told_and_not_left_to_chance() {
    let spec = "
        out = \"archives\"
        [[type]]
        name = \"opinions\"
        query = \"SELECT o.id, c.court, o.at, o.text, c.judge FROM opinion o JOIN panel c ON c.opinion = o.id\"
        id = \"id\"
        group = \"court\"
        modified = \"at\"
        columns = [\"id\", \"judge\"]";
    let ddl = |order: &str| {
        format!(
            "CREATE TABLE opinion (id int PRIMARY KEY, at timestamptz, text text);
             CREATE TABLE panel (opinion int, court text, judge text);
             INSERT INTO opinion SELECT n, '2026-01-01', repeat('x', 100) FROM generate_series(1, 1000) n;
             INSERT INTO panel SELECT * FROM (
                 SELECT n, 'ca' || n % 3, 'Ann' FROM generate_series(1, 1000) n
                 UNION ALL SELECT n, 'ca' || n % 3, 'Zoe' FROM generate_series(1, 1000, 7) n
                 UNION ALL SELECT n, 'ca' || (n + 1) % 3, 'Bob' FROM generate_series(1, 1000, 11) n
                 UNION ALL SELECT 5, NULL, 'Cid') p(opinion, court, judge)
             ORDER BY {order}"
        )
    };
    // Of each the greatest group, then the greatest JSON.
    let wanted: BTreeMap<_, _> = (1..=1000)
        .map(|id| {
            let mut rows = vec![(id % 3, "Ann")];
            rows.extend((id % 7 == 1).then_some((id % 3, "Zoe")));
            rows.extend((id % 11 == 1).then_some(((id + 1) % 3, "Bob")));
            let (court, judge) = rows.into_iter().max().unwrap();
            (format!("opinions/ca{court}/{id}.json"), format!("{{\"id\":{id},\"judge\":\"{judge}\"}}"))
        })
        .collect();
    let mut archives = Vec::new();
    for (order, memory) in
        [("1, 3", "64MiB"), ("3, 1", "16KiB"), ("3 DESC, 1 DESC", "16KiB"), ("md5(judge || opinion)", "4KiB")]
    {
        let bench = Bench::new(spec, &ddl(order));
        for (full, added) in
            [(&[][..], "1000 items added"), (&["--full"], "nothing has changed"), (&["--sweep"], "nothing has changed")]
        {
            let ran = bench.export(&[full, &["--memory", memory, "--json"]].concat());
            assert_eq!(ran.status, Some(3), "{ran:?}");
            let repeated = ran.events_of("repeated").remove(0);
            // 143 of the second and 91 of the third, 13 of both, and 5.
            assert_eq!((&repeated["ids"], &repeated["rows"]), (&json!(222), &json!(235)), "{order} {memory} {full:?}");
            let exported = ran.events_of("exported").remove(0);
            assert_eq!((&exported["rejected"], &exported["repeated"]), (&json!(1), &json!(235)));
            assert!(exported["message"].as_str().unwrap().starts_with(added), "{order} {memory} {full:?}: {exported}");
            assert!(bench.items() == wanted, "{order} {memory} {full:?}");
        }
        let ran = bench.export(&["--full"]);
        ran.assert(
            3,
            &[
                "opinions: 222 ids have several rows, such as \"",
                ": of each the one that was modified last is taken, 235 rows are left out",
                "236 left out",
            ],
        );
        bench.verify();
        archives.push(fs::read(bench.out().join("opinions/ca1.tar.gz")).unwrap());
    }
    assert!(archives.windows(2).all(|pair| pair[0] == pair[1]));

    // The one that was modified last, whatever else it is.
    let bench = Bench::new(
        spec.replace(
            "SELECT o.id, c.court, o.at, o.text, c.judge FROM opinion o JOIN panel c ON c.opinion = o.id",
            "TABLE o",
        )
        .as_str(),
        "CREATE TABLE o (id text, court text, at timestamptz, judge text);
         INSERT INTO o VALUES ('a', 'ca1', '2026-01-02', 'Ann'), ('a', 'ca2', '2026-01-01', 'Zoe')",
    );
    bench.export(&[]).assert(3, &["opinions: 1 id has several rows, such as \"a\": of each the one that was modified last is taken, 1 row is left out"]);
    assert_eq!(
        bench.items(),
        BTreeMap::from([("opinions/ca1/a.json".to_owned(), "{\"id\":\"a\",\"judge\":\"Ann\"}".to_owned())])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_emptied_and_filled_meanwhile_is_read_full() {
    let bench = Bench::exported();
    let (client, connection) = tokio_postgres::connect(bench.database.url(), tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    // The export takes its snapshot before this commits, and waits for the table.
    client
        .batch_execute(
            "BEGIN; CREATE TEMPORARY TABLE kept AS TABLE opinion; TRUNCATE opinion;
             INSERT INTO opinion SELECT id, court, now(), text || '!' FROM kept",
        )
        .await
        .unwrap();
    let mut running = Running::start(bench.command(&["export.toml", "--sweep"]));
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    running.wait_until("it waits", |_| bench.sql(waits) == "1");
    client.batch_execute("COMMIT").await.unwrap();
    let (status, said) = running.end();
    assert_eq!(status, Some(0), "{said}");
    assert!(
        said.contains("opinions: opinion was emptied, rewritten, replaced or partitioned anew behind the snapshot"),
        "{said}"
    );
    assert!(said.contains("30 replaced, 0 moved, 0 removed"), "{said}");
    drop(client);
    connection.await.unwrap().unwrap();
    assert_eq!(bench.items(), both(&bench));
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
    let url = bench.database.url_for(&role, "exporter");
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
