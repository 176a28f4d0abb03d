//! `--columns`, `--where`, `--limit` and `--repair` of `bulk load` and `bulk mirror`, from the outside.

mod support;

use std::io::Write;
use std::path::Path;
use std::process::Command;

use bulk_testkit::postgres::Database;
use bulk_testkit::s3::{Fault, Rule};
use bulk_testkit::snapshot::Spec;
use serde_json::Value;
use support::{Bench, Gate, Ran, bulk, files, kill_when, server, small, sql};

/// A folder for files, and a database with an empty table.
struct Load {
    folder: tempfile::TempDir,
    database: Database,
}

impl Load {
    fn new() -> Self {
        let load = Self { folder: tempfile::tempdir().unwrap(), database: server().create_database("choice").unwrap() };
        load.sql("CREATE TABLE people (id bigint PRIMARY KEY, court text, note text)");
        load
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.folder.path().join(name), bytes).unwrap();
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = bulk(["load", "--table", "people"]);
        command.args(more).current_dir(self.folder.path()).env("BULK_DB", self.database.url());
        command
    }

    #[track_caller]
    fn load(&self, more: &[&str]) -> Ran {
        Ran::of(self.command(more))
    }

    #[track_caller]
    fn sql(&self, text: &str) -> String {
        sql(&self.database, text)
    }

    #[track_caller]
    fn ids(&self) -> String {
        self.sql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM people")
    }
}

const COURTS: &str = "id,court,note\n1,scotus,\n2,ca1,x\n3,,y\n4,\"a|b\",z\n5,scotus,\"it's\"\n6,\"\",\n7,ca2,x\n";

#[test]
fn records_are_chosen_by_their_values() {
    let load = Load::new();
    load.write("a.csv", COURTS);
    for (flags, ids) in [
        (&["--where", "court=scotus"][..], "1 5"),
        (&["--where", "court = ca1|scotus", "--where", "note is not null"], "2 5"),
        (&["--where", "court!=scotus"], "2 4 6 7"),
        (&["--where", "court='a|b'"], "4"),
        (&["--where", "note='it''s'"], "5"),
        (&["--where", "court="], "6"),
        (&["--where", "court is null"], "3"),
        (&["--where", "court=scotsu"], ""),
        (&["--where", "note is not null", "--limit", "3"], "2 3 4"),
        (&["--limit", "2"], "1 2"),
        (&["--limit", "0"], ""),
    ] {
        let all = [&["a.csv"], flags].concat();
        load.load(&[&all[..], &["--restart"]].concat()).assert(0, &[]);
        assert_eq!(load.ids(), ids, "{flags:?}");
        load.load(&all).assert(0, &["a.csv: all of its", " had been loaded"]);
        assert_eq!(load.ids(), ids, "{flags:?}");
    }
    load.load(&["a.csv", "--limit", "2", "--restart"]).assert(0, &[]);
    let refused = "table public.people holds all rows of another choice of";
    load.load(&["a.csv"]).assert(1, &[refused, "(it was: limit 2; now: all of it); load it anew with --restart"]);
    load.load(&["a.csv", "--where", "id=7"]).assert(1, &["(it was: limit 2; now: where id=7)"]);
    assert_eq!(load.ids(), "1 2");
    load.load(&["a.csv", "--restart", "--columns", "id, note"]).assert(0, &["7 rows"]);
    assert_eq!(load.sql("SELECT count(court), count(note) FROM people"), "0|5");
}

#[test]
fn what_cannot_be_chosen_is_said() {
    let load = Load::new();
    load.write("a.csv", COURTS);
    for (flags, status, said) in [
        (&["--where", "court > x"][..], 2, "is no condition: it is to be COLUMN=VALUE"),
        (&["--where", "court_id=x"], 1, "by the column \"court_id\", and its columns are id, court, note"),
        (&["--columns", "id,court_id"], 1, "it has no column \"court_id\"; its columns are id, court, note"),
        (&["--columns", "id,"], 2, "--columns id,: a column's name is empty"),
        (&["--limit=-1"], 2, "'--limit <N>'"),
    ] {
        load.load(&[&["a.csv"], flags].concat()).assert(status, &[said]);
        assert_eq!(load.sql("SELECT count(*) FROM people"), "0");
    }
}

#[test]
fn machines_are_told_what_was_passed_over_and_repaired() {
    let load = Load::new();
    load.write("a.csv", b"id,court,note\n1,a,x\0y\n2,b,z\xff\n3,a,caf\xe9\nx,a,\n5,a,\n");
    let flags = ["a.csv", "--where", "court=a", "--repair", "--max-rejects", "1", "--json", "--report", "run.json"];
    let ran = load.load(&flags);
    ran.assert(3, &[]);
    let one = |kind: &str, fields: &[&str]| -> Vec<Value> {
        let events = ran.events_of(kind);
        let [event] = &events[..] else { panic!("{events:?}") };
        fields.iter().map(|field| event[field].clone()).collect()
    };
    assert_eq!(one("loaded", &["records", "rejected", "filtered", "repaired"]), [5, 1, 1, 2]);
    assert_eq!(one("verified", &["rows", "records", "rejected", "filtered"]), [3, 5, 1, 1]);
    let repaired: Vec<_> = ran.events_of("repaired");
    let places = repaired.iter().map(|event| (event["record"].clone(), event["byte"].clone(), event["column"].clone()));
    assert_eq!(
        places.collect::<Vec<_>>(),
        [(1.into(), 19.into(), "note".into()), (3.into(), 36.into(), "note".into())]
    );
    assert_eq!(load.sql("SELECT string_agg(note, ' ' ORDER BY id) FROM people"), "xy caf\u{fffd}");
    let report = std::fs::read_to_string(load.folder.path().join("run.json")).unwrap();
    assert!(report.contains("\"filtered\":1") || report.contains("\"filtered\": 1"), "{report}");

    let said =
        ["public.people: 3 rows, 1 record passed over", "2 records were repaired", "record 3, byte 36, column note"];
    load.load(&["a.csv", "--where", "court=a", "--repair", "--max-rejects", "1", "--restart"]).assert(3, &said);
    // Without it, the first is an error.
    load.load(&["a.csv", "--where", "court=a", "--restart"]).assert(1, &["record 1, byte 19", "a NUL byte"]);
}

/// A file that is bad behind its first megabytes, whatever the codec.
#[test]
fn nothing_is_decoded_behind_the_limit() {
    let load = Load::new();
    let mut csv = "id,court,note\n".to_owned();
    for id in 0..200_000 {
        csv.push_str(&format!("{id},{},note {}\n", ["a", "b"][id % 2], id * 7919 % 100_003));
    }
    let bzip2 = {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
        encoder.write_all(csv.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(csv.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    for (name, bytes) in [("a.csv", csv.into_bytes()), ("a.csv.bz2", bzip2), ("a.csv.gz", gzip)] {
        load.write(name, &bytes[..bytes.len() * 9 / 10]);
        let flags = [name, "--where", "court=b", "--limit", "30000", "--restart"];
        load.load(&flags).assert(0, &["public.people: 30000 rows, 30000 records passed over"]);
        assert_eq!(load.sql("SELECT count(*), min(id), max(id) FROM people"), "30000|1|59999");
        if name != "a.csv" {
            let failed = load.load(&[name, "--where", "court=b", "--restart"]);
            assert_eq!(failed.status, Some(1), "{}", failed.stderr);
        }
    }
}

#[test]
fn killed_in_the_middle_and_run_again_gives_the_first_records() {
    let load = Load::new();
    load.sql("DROP TABLE people; CREATE TABLE people (id bigint, court text, note text)");
    let mut csv = "id,court,note\n".to_owned();
    for id in 0..1_500_000 {
        csv.push_str(&format!("{id},{},{:x<30}\n", ["a", "b", ""][id % 3], id));
    }
    load.write("a.csv", csv);
    let flags = ["a.csv", "--where", "court!=a", "--limit", "450000"];
    let chunks = || match load.sql("SELECT to_regclass('bulk.chunk') IS NOT NULL").as_str() {
        "t" => load.sql("SELECT count(*) FROM bulk.chunk").parse().unwrap(),
        _ => 0,
    };
    let gate = Gate::close(&load.database, "people", 1_349_998);
    kill_when(load.command(&flags), || chunks() > 0);
    gate.open();
    load.load(&flags).assert(0, &["450000 rows, 899999 records passed over"]);
    assert_eq!(
        load.sql("SELECT count(*), count(DISTINCT id), min(id), max(id) FROM people"),
        "450000|450000|1|1349998"
    );
}

/// What is there of files when all are loaded, parts and records included.
fn left(folder: &Path) -> Vec<String> {
    files(folder).into_keys().chain(files(&folder.join(".bulk")).into_keys()).collect()
}

#[test]
fn a_mirror_takes_a_part_of_each_table() {
    let (bench, _) = Bench::with(&small());
    let tables = ["--tables", "courts,dockets"];
    // Some dockets refer to others that are of other courts.
    let loaded = |flags: &[&str], said: &[&str]| {
        let ran = bench.mirror(flags);
        ran.assert(if ran.stderr.contains("NOT VALID") { 3 } else { 0 }, said);
    };
    loaded(&tables, &[]);
    let court = bench.sql("SELECT court_id FROM search_docket GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1");
    let of_court = bench.sql(&format!("SELECT count(*) FROM search_docket WHERE court_id = '{court}'"));
    let courts = bench.sql("SELECT count(*) FROM search_court");
    assert_ne!(bench.sql("SELECT count(*) FROM search_docket"), of_court);

    let condition = format!("search_docket.court_id={court}");
    let chosen = [&tables[..], &["--where", &condition]].concat();
    bench.mirror(&chosen).assert(1, &["holds all rows of another choice of", "--restart"]);
    loaded(&[&chosen[..], &["--restart"]].concat(), &["records passed over"]);
    assert_eq!(
        bench.sql("SELECT count(*), count(DISTINCT court_id), min(court_id) FROM search_docket"),
        format!("{of_court}|1|{court}")
    );
    loaded(&chosen, &["2 of 2 files had been loaded", "nothing to load"]);
    assert_eq!(bench.sql("SELECT count(*) FROM search_court"), courts);

    // By the name of the file as well.
    let columns = bench.sql(
        "SELECT string_agg(attname, ',') FROM pg_attribute
         WHERE attrelid = 'search_court'::regclass AND attnum > 0 AND attnotnull AND attname <> 'id'",
    );
    let columns = format!("courts=id,{columns}");
    let flags = ["--tables", "courts", "--columns", &columns, "--limit", "5", "--restart"];
    loaded(&flags, &["public.search_court: 5 rows"]);
    assert_eq!(bench.sql("SELECT count(*), count(date_last_pacer_contact) FROM search_court"), "5|0");
    assert_eq!(left(&bench.folder.path().join("files")), [""; 0]);

    for (flags, said) in [
        (
            &["--where", "nothing.id=1"][..],
            "--where nothing.id=1: nothing is no table of this run; it has search_court",
        ),
        (&["--where", "id=1"], "--where id=1: that is not TABLE.COLUMN=VALUE"),
        (&["--where", "courts.id"], "--where courts.id: \"id\" is no condition"),
        (&["--columns", "id"], "--columns id: that is not TABLE=COLUMN,…"),
        (&["--limit", "5", "--keep-files"], "--keep-files"),
    ] {
        bench.mirror(&[&["--tables", "courts"], flags].concat()).assert(2, &[said]);
    }
}

#[test]
fn the_download_ends_with_the_limit() {
    for more in [&[][..], &["--no-files"]] {
        let (bench, _) = Bench::with(&Spec { scale: 0.2, ..Spec::default() });
        let size = std::fs::metadata(bench.file("opinions")).unwrap().len();
        // What stands at its end never comes.
        let fault = Rule::new(Fault::Hang).key("bulk-data/opinions-2026-06-30.csv.bz2").containing(size - 1);
        let hung = bench.bucket.fault(fault);
        let flags = [&["--tables", "courts,opinions", "--segment", "256KiB", "--limit", "40"], more].concat();
        let ran = bench.mirror(&flags);
        assert!([Some(0), Some(3)].contains(&ran.status), "{}", ran.stderr);
        assert_eq!(bench.sql("SELECT count(*) FROM search_opinion"), "40");
        assert_eq!(bench.sql("SELECT records, filtered FROM bulk.load WHERE target_table = 'search_opinion'"), "40|0");
        assert_eq!(left(&bench.folder.path().join("files")), [""; 0], "{more:?}");
        hung.remove();
        let again = bench.mirror(&flags);
        again.assert(ran.status.unwrap(), &["2 of 2 files had been loaded"]);
    }
}
