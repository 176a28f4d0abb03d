//! `--verify`, from the outside: what is as it was loaded, what was changed since, and what nobody knows.

mod support;

use bulk_testkit::postgres::Database;
use bulk_testkit::snapshot::Spec;
use support::{Bench, Ran, bulk, gets, kill_when, server, small};

/// A folder with a file of some rows, and a database with an empty table.
struct Load {
    folder: tempfile::TempDir,
    database: Database,
}

impl Load {
    fn new() -> Self {
        let load = Self { folder: tempfile::tempdir().unwrap(), database: server().create_database("verify").unwrap() };
        load.sql("CREATE TABLE t (id integer PRIMARY KEY, name varchar(20), data jsonb, at timestamptz(0))");
        let row =
            |id| format!("{id},name {id},\"{{\"\"b\"\": {id}.50, \"\"a\"\": []}}\",2020-01-01 00:00:00.{id}+01\n");
        let csv = (100..300).map(row).collect::<String>();
        std::fs::write(load.folder.path().join("t.csv"), format!("id,name,data,at\n{csv}")).unwrap();
        load
    }

    #[track_caller]
    fn load(&self, more: &[&str]) -> Ran {
        let mut command = bulk(["load", "t.csv", "--table", "t"]);
        command.args(more).current_dir(self.folder.path()).env("BULK_DB", self.database.url());
        Ran::of(command)
    }

    #[track_caller]
    fn sql(&self, text: &str) -> String {
        support::sql(&self.database, text)
    }
}

const VERIFIED: &str = "verified: public.t has 200 rows, with the files' content";

#[test]
fn a_change_behind_the_load_is_found() {
    let load = Load::new();
    load.load(&["--verify", "full"]).assert(0, &[VERIFIED]);
    load.load(&["--verify=full"]).assert(0, &["all of its 200 rows had been loaded", VERIFIED]);
    let events = load.load(&["--verify=full", "--json"]).events_of("content");
    assert_eq!(events.len(), 1);
    assert_eq!((&events[0]["table"], &events[0]["rows"]), (&"public.t".into(), &200.into()));
    assert_eq!(events[0]["sum"], load.sql("SELECT sum(content) FROM bulk.chunk"));

    load.sql("UPDATE t SET data = jsonb_set(data, '{b}', '100.5') WHERE id = 100");
    load.load(&["--verify=full"]).assert(
        7,
        &[
            "public.t has 200 rows with the sum",
            "the content differs",
            "error: public.t: the content of its rows is not that of the files that were loaded into it",
        ],
    );
    load.load(&[]).assert(0, &["verified: public.t has 200 rows"]);
    load.sql("DELETE FROM t WHERE id = 100");
    load.load(&["--verify=full"]).assert(7, &["public.t has 199 rows, and 200 were loaded into it"]);
    load.load(&["--verify=count"]).assert(7, &["public.t has 199 rows, and 200 were loaded into it"]);
    load.load(&["--verify=none"]).assert(0, &[]);
    load.load(&["--verify=full", "--restart"]).assert(0, &[VERIFIED]);
}

#[test]
fn what_nobody_hashed_is_said_not_to_be_known() {
    let load = Load::new();
    let ran = load.load(&[]);
    ran.assert(0, &["verified: public.t has 200 rows"]);
    assert!(!ran.stderr.contains("content"), "{}", ran.stderr);
    load.load(&["--verify=full"]).assert(
        3,
        &[
            "the content of public.t is not compared: rows of it were loaded without --verify=full",
            "load the table anew with --restart --verify=full",
            "verified: public.t has 200 rows",
        ],
    );
    load.load(&["--verify=everything"]).assert(2, &["is none of count, full and none"]);
    let other = Load::new();
    other.sql("INSERT INTO t VALUES (1)");
    other
        .load(&["--verify=full", "--append"])
        .assert(3, &["the content of public.t is not compared: it has rows that were not loaded"]);
}

#[test]
fn a_mirror_has_the_content_of_its_files_whatever_happened() {
    let (bench, made) = Bench::with(&Spec { scale: 0.2, ..small() });
    let committed = || match bench.sql("SELECT to_regclass('bulk.chunk') IS NOT NULL").as_str() {
        "t" => bench.sql("SELECT count(*) FROM bulk.chunk") != "0",
        _ => false,
    };
    kill_when(bench.command(&["--verify=full"]), committed);
    let rows: u64 = made.files.iter().map(|file| file.rows).sum();
    let verified =
        format!("verified: {} tables have the {rows} rows of their files, and their content", made.files.len());
    bench.mirror(&["--verify=full"]).assert(3, &[&verified]);
    bench.assert_holds(&made);

    bench.bucket.clear_requests();
    bench.mirror(&["--verify=full"]).assert(3, &["nothing to load", &verified]);
    let fetched: Vec<_> = gets(&bench.bucket).into_iter().filter(|key| key.ends_with(".bz2")).collect();
    assert_eq!(fetched, Vec::<String>::new());

    bench.sql("UPDATE search_court SET full_name = full_name || '.' WHERE id = (SELECT min(id) FROM search_court)");
    bench.mirror(&["--verify=full"]).assert(7, &["public.search_court has", "the content differs"]);
    bench.mirror(&[]).assert(3, &["nothing to load"]);
}
