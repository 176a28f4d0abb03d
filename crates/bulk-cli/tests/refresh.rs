//! `bulk load --refresh` and `bulk mirror --refresh`, from the outside.

mod support;

use std::fs::{File, OpenOptions, read_to_string};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bulk_testkit::postgres::Database;
use bulk_testkit::s3::{Fault, FaultHandle, Rule};
use bulk_testkit::snapshot::{self, SchemaFlavour, Snapshot, Spec};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use support::{Bench, Ran, bulk, files, kill_when, server, small};

/// A folder, and a database with a table of four rows of whatever origin.
fn people() -> (tempfile::TempDir, Database) {
    let database = server().create_database("refresh").unwrap();
    let ddl = "CREATE TABLE people (id bigint PRIMARY KEY, name text NOT NULL, note text DEFAULT 'new');
               INSERT INTO people VALUES (1, 'ann', 'a'), (2, 'bob', 'b'), (3, 'cid', 'c'), (4, 'dan', 'd')";
    support::sql(&database, ddl);
    (tempfile::tempdir().unwrap(), database)
}

fn load(folder: &tempfile::TempDir, database: &Database, more: &[&str]) -> Command {
    let mut command = bulk(["load"]);
    command.args(more).args(["--table", "people"]).current_dir(folder.path()).env("BULK_DB", database.url());
    command
}

#[test]
fn a_table_of_any_rows_becomes_what_the_file_says() {
    let (folder, database) = people();
    std::fs::write(folder.path().join("people.csv"), "id,name\n1,ann\n2,bert\n4,dan\n5,eve\n").unwrap();
    Ran::of(load(&folder, &database, &["people.csv"])).assert(1, &["has rows that this program did not load"]);
    let ran = Ran::of(load(&folder, &database, &["people.csv", "--refresh", "--json"]));
    assert_eq!(ran.status, Some(0), "{}", ran.stdout);
    let events = ran.events_of("refreshed");
    assert_eq!(events.len(), 1);
    for (field, value) in [
        ("table", json!("public.people")),
        ("added", json!(1)),
        ("changed", json!(1)),
        ("removed", json!(1)),
        ("unchanged", json!(2)),
    ] {
        assert_eq!(events[0][field], value, "{field}");
    }
    let rows = "1|ann|a\n2|bert|b\n4|dan|d\n5|eve|new";
    assert_eq!(support::sql(&database, "SELECT * FROM people ORDER BY id"), rows);
    // Again: it is not read.
    Ran::of(load(&folder, &database, &["people.csv", "--refresh"]))
        .assert(0, &["public.people is what its 4 records say", "verified: public.people has 4 rows"]);

    // The next version has two records of one key.
    std::fs::write(folder.path().join("people.csv"), "id,name\n1,ann\n5,eve\n1,anna\n").unwrap();
    let refused = ["1 record has a key (id) that another record before them has, such as 1 (2 times)"];
    Ran::of(load(&folder, &database, &["people.csv", "--refresh"])).assert(1, &refused);
    assert_eq!(support::sql(&database, "SELECT * FROM people ORDER BY id"), rows);
    let tolerant = ["people.csv", "--refresh", "--max-rejects", "1", "--rejects", "bad"];
    Ran::of(load(&folder, &database, &tolerant))
        .assert(3, &["public.people: 0 rows added, 0 changed, 2 removed, 2 as they were", "1 record was left out"]);
    assert_eq!(std::fs::read_to_string(folder.path().join("bad/people.csv.rejects")).unwrap(), "1,anna\n");
    assert_eq!(support::sql(&database, "SELECT id, name, note FROM people ORDER BY id"), "1|ann|a\n5|eve|new");
    assert_eq!(support::sql(&database, "SELECT count(*) FROM bulk.refresh"), "0");
    // Once more: nothing is loaded, and the same is said and written.
    std::fs::remove_dir_all(folder.path().join("bad")).unwrap();
    Ran::of(load(&folder, &database, &tolerant))
        .assert(3, &["public.people is what its 3 records say", "people.csv: 1 record was left out"]);
    assert_eq!(read_to_string(folder.path().join("bad/people.csv.rejects")).unwrap(), "1,anna\n");
}

#[test]
fn what_does_not_go_together_is_refused() {
    let (folder, database) = people();
    std::fs::write(folder.path().join("people.csv"), "id,name\n1,ann\n").unwrap();
    for more in [&["people.csv", "--refresh", "--append"][..], &["people.csv", "--refresh", "--restart"]] {
        Ran::of(load(&folder, &database, more)).assert(2, &["cannot be used with"]);
    }
    std::fs::write(folder.path().join("more.csv"), "id,name\n2,bo\n").unwrap();
    Ran::of(load(&folder, &database, &["people.csv", "more.csv", "--refresh"])).assert(2, &["one file says"]);
    assert_eq!(support::sql(&database, "SELECT count(*) FROM people"), "4");
}

/// A newer snapshot of another content in place of the one before.
fn newer(bench: &Bench, spec: &Spec) -> Snapshot {
    for entry in std::fs::read_dir(bench.data()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let mut spec = spec.clone();
    spec.date = "2026-07-31".parse().unwrap();
    snapshot::generate(&spec, &bench.data()).unwrap()
}

/// Foreign keys with whether they are valid, and indexes.
fn structure(bench: &Bench) -> String {
    bench.sql(
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
         WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2;
         SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
    )
}

#[test]
fn a_newer_snapshot_takes_the_place_of_an_older_one() {
    let (bench, _) = Bench::with(&small());
    bench.mirror(&[]).assert(3, &[]);
    let before = structure(&bench);
    // Rows that stay, that change, that go and that come, in a schema with keys that the data violates.
    let spec = Spec { scale: 0.03, ..small() };
    let made = newer(&bench, &spec);
    bench.mirror(&[]).assert(1, &["holds the rows of"]);
    bench.mirror(&["--refresh"]).assert(3, &["rows added", "verified: 33 tables have the ", "stays NOT VALID"]);
    bench.assert_holds(&made);
    assert_eq!(structure(&bench), before);
    assert_eq!(bench.sql("SELECT count(*), count(DISTINCT target_oid) FROM bulk.load"), "33|33");
    assert_eq!(bench.sql("SELECT (SELECT count(*) FROM bulk.refresh) + (SELECT count(*) FROM bulk.dropped)"), "0");
    bench.mirror(&["--refresh"]).assert(3, &["33 of 33 files had been loaded", "nothing to load"]);
    bench.mirror(&[]).assert(3, &["33 of 33 files had been loaded"]);
    // To another seed: nearly all rows are others under the same ids.
    let made = newer(&bench, &Spec { seed: 2, ..small() });
    bench.mirror(&["--refresh", "--no-files", "--tables", "courts,dockets,people-db-people"]);
    let ran = bench.mirror(&["--refresh", "--no-files"]);
    ran.assert(3, &["verified: "]);
    bench.assert_holds(&made);
    assert_eq!(structure(&bench), before);
}

/// Holds up the merge of dockets, which come in the middle. All see at once what a sequence is set to: to wait, to fail, to go
/// on.
const GATE: &str = "
    CREATE SEQUENCE gate;
    CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS '
    DECLARE now bigint;
    BEGIN
        LOOP
            SELECT last_value INTO now FROM public.gate;
            EXIT WHEN now > 1;
            PERFORM pg_sleep(0.005);
        END LOOP;
        IF now = 2 THEN RAISE EXCEPTION ''not now''; END IF;
        RETURN NULL;
    END';
    CREATE TRIGGER gate BEFORE INSERT OR UPDATE OR DELETE ON search_docket EXECUTE FUNCTION gate()";

/// Holds back one file of the newer snapshot, without which no table is anything yet.
fn stall_opinions(bench: &Bench) -> FaultHandle {
    bench.bucket.fault(Rule::new(Fault::StallAfter(0)).key("bulk-data/opinions-2026-07-31.csv.bz2"))
}

#[test]
fn a_refresh_that_is_killed_goes_on() {
    let (bench, _) = Bench::with(&small());
    bench.mirror(&[]).assert(3, &[]);
    let before = structure(&bench);
    let made = newer(&bench, &Spec { seed: 3, scale: 0.2, ..small() });
    let number = |sql: &str| bench.sql(sql).parse::<u32>().unwrap();
    // In the middle of staging, then as soon as anything is merged.
    let chunks =
        "SELECT count(*) FROM bulk.chunk c JOIN bulk.load l ON l.id = c.load_id WHERE l.target_schema = 'bulk'";
    let stall = stall_opinions(&bench);
    kill_when(bench.command(&["--refresh"]), || number(chunks) > 5);
    stall.remove();
    let merged = "SELECT count(*) FROM bulk.load WHERE file_key LIKE '%2026-07-31%' AND target_schema = 'public'";
    assert_eq!(number(merged), 0);
    bench.sql(GATE);
    bench.sql("SELECT setval('gate', 1)");
    kill_when(bench.command(&["--refresh"]), || number(merged) > 0);
    // Its sessions end once they need not wait any more, and hold locks until then.
    bench.sql("SELECT setval('gate', 3)");
    let sessions =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
                                                               AND backend_type = 'client backend'";
    while number(sessions) > 0 {
        std::thread::yield_now();
    }
    bench.sql("DROP TRIGGER gate ON search_docket; DROP FUNCTION gate(); DROP SEQUENCE gate");
    bench.mirror(&["--refresh"]).assert(3, &["verified: "]);
    bench.assert_holds(&made);
    assert_eq!(structure(&bench), before);
    assert_eq!(bench.sql("SELECT (SELECT count(*) FROM bulk.refresh) + (SELECT count(*) FROM bulk.dropped)"), "0");
}

/// Whether the foreign keys are there, and how many are noted as dropped.
fn keys(bench: &Bench) -> String {
    bench.sql(
        "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype = 'f' ORDER BY 1, 2;
         SELECT count(*) FROM bulk.dropped",
    )
}

#[test]
fn a_merge_that_fails_or_is_stopped_leaves_no_table_without_its_keys() {
    let (bench, _) = Bench::with(&small());
    bench.mirror(&[]).assert(3, &[]);
    let (before, with_keys) = (structure(&bench), keys(&bench));
    let made = newer(&bench, &Spec { seed: 2, ..small() });
    bench.sql(GATE);
    bench.sql("SELECT setval('gate', 2)");
    bench.mirror(&["--refresh"]).assert(1, &["foreign keys of the tables to be refreshed are dropped", "not now"]);
    assert_eq!(keys(&bench), with_keys);

    bench.sql("SELECT setval('gate', 1)");
    let said = bench.folder.path().join("said");
    let mut command = bench.command(&["--refresh"]);
    let mut child = command.stdout(Stdio::null()).stderr(File::create(&said).unwrap()).spawn().unwrap();
    let (pid, deadline) = (Pid::from_child(&child), Instant::now() + Duration::from_secs(120));
    let said = || read_to_string(&said).unwrap();
    let mut wait_until = |is_so: &dyn Fn() -> bool| {
        while !is_so() {
            assert!(child.try_wait().unwrap().is_none() && Instant::now() < deadline, "{}", said());
            std::thread::yield_now();
        }
    };
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event = 'PgSleep'";
    wait_until(&|| bench.sql(waiting) == "1");
    assert_ne!(keys(&bench), with_keys);
    kill_process(pid, Signal::INT).unwrap();
    wait_until(&|| said().contains("stopping"));
    bench.sql("SELECT setval('gate', 3)");
    assert_eq!(child.wait().unwrap().code(), Some(130), "{}", said());
    assert_eq!(keys(&bench), with_keys);
    assert_ne!(bench.sql("SELECT count(*) FROM bulk.refresh"), "0");

    bench.mirror(&["--refresh"]).assert(3, &["verified: "]);
    bench.assert_holds(&made);
    assert_eq!(structure(&bench), before);
    assert_eq!(keys(&bench), with_keys);
}

#[test]
fn orphans_of_new_tables_are_no_matter_of_the_old_ones() {
    let spec = Spec { schema: SchemaFlavour::Published, orphans: 40, ..small() };
    let (bench, old) = Bench::with(&spec);
    bench.mirror(&[]).assert(3, &["5 rows refer to nothing in public.search_opinioncluster"]);
    newer(&bench, &Spec { seed: 2, ..spec });
    let courts = "courts-2026-07-31.csv.bz2";
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    encoder.write_all(b"\"bad\"\n").unwrap();
    let mut file = OpenOptions::new().append(true).open(bench.data().join(courts)).unwrap();
    file.write_all(&encoder.finish().unwrap()).unwrap();
    let folder = bench.folder.path().join("rejects");
    let swap = |orphans| {
        let rejects = ["--max-rejects", "1", "--rejects", folder.to_str().unwrap()];
        bench.mirror(&[&["--swap", "--keep-old", "--orphans", orphans][..], &rejects].concat())
    };
    let raw = || read_to_string(folder.join(format!("{courts}.rejects"))).unwrap();
    let lines = || -> usize {
        let files = files(&folder).into_iter().filter(|(name, _)| name.ends_with(".jsonl"));
        files.map(|(_, content)| content.iter().filter(|byte| **byte == b'\n').count()).sum()
    };

    swap("fail").assert(1, &["rows refer to nothing, and --orphans fail was asked for"]);
    bench.assert_holds(&old);
    assert_eq!(bench.sql("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'bulk\\_old%'"), "0");
    assert_eq!((raw().as_str(), lines()), ("\"bad\"\n", 1));

    swap("reject").assert(3, &["are moved to bulk.reject", "33 tables have taken the places of the old ones"]);
    let rejects: usize = bench.sql("SELECT count(*) FROM bulk.reject").parse().unwrap();
    assert!(rejects > 40, "{rejects}");
    assert_eq!((raw().as_str(), lines()), ("\"bad\"\n", rejects));
    assert_eq!(
        bench
            .sql("SELECT count(*) FROM pg_constraint WHERE NOT convalidated AND connamespace = 'public'::regnamespace"),
        "0"
    );
    // Those that were there have all of their rows.
    let kept =
        "SELECT sum((xpath('/row/c/text()', query_to_xml('SELECT count(*) AS c FROM ' || oid::regclass, false, true,
                                                                '')))[1]::text::bigint)
                FROM pg_class WHERE relkind = 'r' AND relnamespace::regnamespace::text LIKE 'bulk\\_old\\_%'";
    assert_eq!(bench.sql(kept), old.files.iter().map(|file| file.rows).sum::<u64>().to_string());

    std::fs::remove_dir_all(&folder).unwrap();
    swap("reject").assert(3, &["33 of 33 files had been loaded", "nothing to load"]);
    assert_eq!((raw().as_str(), lines()), ("\"bad\"\n", rejects));
}

#[test]
fn new_tables_take_the_places_of_old_ones() {
    let (bench, _) = Bench::with(&small());
    bench.mirror(&[]).assert(3, &[]);
    let before = structure(&bench);
    let spec = Spec { seed: 2, scale: 0.03, ..small() };
    let made = newer(&bench, &spec);
    bench.sql("CREATE VIEW mine AS SELECT id FROM search_court");
    bench.mirror(&["--swap"]).assert(1, &["rule _RETURN on view public.mine"]);
    bench.sql("DROP VIEW mine; GRANT SELECT ON search_court TO PUBLIC");
    let loaded =
        "SELECT count(*) FROM bulk.chunk c JOIN bulk.load l ON l.id = c.load_id WHERE l.target_schema LIKE 'bulk%'";
    let stall = stall_opinions(&bench);
    kill_when(bench.command(&["--swap"]), || bench.sql(loaded).parse::<u32>().unwrap() > 5);
    stall.remove();
    assert_eq!(
        bench.sql("SELECT count(*) FROM bulk.load WHERE file_key LIKE '%2026-07-31%' AND target_schema = 'public'"),
        "0"
    );
    bench.mirror(&["--swap"]).assert(
        3,
        &[
            "33 tables have taken the places of the old ones",
            "33 old tables are dropped",
            "verified: 33 tables have the ",
        ],
    );
    bench.assert_holds(&made);
    assert_eq!(structure(&bench), before);
    assert_eq!(bench.sql("SELECT relacl FROM pg_class WHERE oid = 'search_court'::regclass").matches("=r/").count(), 1);
    assert_eq!(bench.sql("SELECT count(*) FROM bulk.swap"), "0");
    assert_eq!(bench.sql("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'bulk%'"), "bulk");
    bench.mirror(&["--swap"]).assert(3, &["33 of 33 files had been loaded", "nothing to load"]);
    bench.mirror(&[]).assert(3, &["33 of 33 files had been loaded"]);
    // And the old ones may stay.
    let made = newer(&bench, &small());
    bench.mirror(&["--swap", "--keep-old"]).assert(3, &["33 tables have taken the places"]);
    bench.assert_holds(&made);
    let kept =
        "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace::regnamespace::text LIKE 'bulk\\_old\\_%'";
    assert_eq!(bench.sql(kept), "33");
}
