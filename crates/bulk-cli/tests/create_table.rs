//! `bulk load --create-table`, from the outside.

mod support;

use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

use bulk_testkit::postgres::Database;
use bulk_testkit::s3::{Server, Store};
use support::{BUCKET, Ran, bulk, kill_when, server};

struct Bench {
    folder: tempfile::TempDir,
    database: Database,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), database: server().create_database("create").unwrap() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).unwrap();
    }

    fn command(&self, inputs: &[&str], more: &[&str]) -> Command {
        let mut command = bulk(["load"]);
        command.args(inputs).args(["--table", "people", "--create-table"]).args(more);
        command.current_dir(self.folder.path()).env("BULK_DB", self.database.url()).env("TMPDIR", self.folder.path());
        command
    }

    #[track_caller]
    fn load(&self, inputs: &[&str], more: &[&str]) -> Ran {
        Ran::of(self.command(inputs, more))
    }

    #[track_caller]
    fn sql(&self, text: &str) -> String {
        support::sql(&self.database, text)
    }

    /// The columns as the server has them.
    #[track_caller]
    fn columns(&self) -> String {
        self.sql(
            "SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
             FROM pg_attribute WHERE attrelid = to_regclass('people') AND attnum > 0",
        )
    }
}

const PEOPLE: &str = "id,Name,born,notes\n1,a,2026-06-30,\"{}\"\n2,b,,\n";
const COLUMNS: &str = "id integer, \"Name\" text, born date, notes jsonb";

#[test]
fn the_table_is_made_once_and_loaded() {
    let bench = Bench::new();
    bench.write("people.csv", PEOPLE);
    let made =
        "table public.people is made as the first 2 records have it: id integer, \"Name\" text, born date, notes jsonb";
    bench.load(&["people.csv"], &[]).assert(0, &[made, "2 rows"]);
    assert_eq!(bench.columns(), COLUMNS);
    assert_eq!(bench.sql("SELECT * FROM people ORDER BY id"), "1|a|2026-06-30|{}\n2|b||");
    let is_there = "table public.people is there, and is loaded into as it is";
    bench.load(&["people.csv"], &[]).assert(0, &[is_there, "all of its 2 rows had been loaded"]);
    bench.write("more.csv", "id,Name\n3,c\n");
    bench.load(&["more.csv"], &["--append"]).assert(0, &[is_there]);
    bench.load(&["people.csv"], &["--restart"]).assert(0, &[is_there, "2 rows"]);
    assert_eq!(bench.columns(), COLUMNS);
}

#[test]
fn a_dry_run_prints_the_statement_and_changes_nothing() {
    let bench = Bench::new();
    bench.write("people.csv", PEOPLE);
    let ran = bench.load(&["people.csv"], &["--dry-run", "--column-type", "id=numeric(10,2)"]);
    ran.assert(0, &[]);
    let sql = "CREATE TABLE \"public\".\"people\" (\n    \"id\" numeric(10,2),\n    \"Name\" text,\n    \"born\" date,\n    \"notes\" jsonb\n)";
    let path = bench.file("people.csv");
    assert_eq!(ran.stdout, format!("{sql};\n{} ({} bytes) into public.people\n", path.display(), PEOPLE.len()));
    assert_eq!(bench.sql("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"), "0");
    let ran = bench.load(&["people.csv"], &["--dry-run", "--column-type", "id=numeric(10,2)", "--json"]);
    ran.assert(0, &[]);
    let [table, file] = &ran.events_of("planned")[..] else { panic!("{}", ran.stdout) };
    assert_eq!((&table["sql"], &table["table"], &table["records"]), (&sql.into(), &"public.people".into(), &2.into()));
    assert_eq!(file["size"], PEOPLE.len());
    // What it prints is what is made.
    bench.sql(sql);
    let printed = bench.columns();
    bench.sql("DROP TABLE people");
    let ran = bench.load(&["people.csv"], &["--column-type", "id=numeric(10,2)", "--json"]);
    let [created] = &ran.events_of("created")[..] else { panic!("{}", ran.stdout) };
    assert_eq!((&created["sql"], &created["columns"]), (&sql.into(), &4.into()));
    assert_eq!(bench.columns(), printed);
}

#[test]
fn types_that_are_none_and_columns_that_are_not_there_make_no_table() {
    let bench = Bench::new();
    bench.write("people.csv", PEOPLE);
    for (column_type, said) in [
        ("id=nonsense", "--column-type id=nonsense: the server has no such type"),
        ("id=int); DROP TABLE x; --", "the server has no such type"),
        ("name=text", "--column-type name: the files have no such column; they have id, Name, born, notes"),
    ] {
        bench.load(&["people.csv"], &["--column-type", column_type]).assert(2, &[said]);
    }
    bench.write("bad.csv", "id,id\n1,2\n");
    bench.load(&["people.csv", "bad.csv"], &[]).assert(1, &["bad.csv: its header has the column \"id\" twice"]);
    bench.write("json", "{\"id\": 1}\n");
    bench.load(&["json"], &[]).assert(1, &["json: it is no CSV", "looks like JSON, which --format ndjson reads"]);
    bench.write("empty.csv", "");
    bench.load(&["empty.csv"], &[]).assert(1, &["empty.csv: there is nothing in it"]);
    assert_eq!(bench.columns(), "");
}

#[test]
fn a_header_with_another_delimiter_than_a_comma_is_no_column() {
    let bench = Bench::new();
    for (delimiter, said) in [(";", "--delimiter ';'"), ("\t", "--delimiter tab"), ("|", "--delimiter '|'")] {
        bench.write("people.csv", &"id,name\n1,a\n2,b\n".replace(',', delimiter));
        let one = "people.csv: its header is one column, ";
        bench.load(&["people.csv"], &[]).assert(2, &[one, said, "--delimiter ','"]);
        bench.load(&["people.csv"], &["--dry-run"]).assert(2, &[one, said]);
        // Nor beside another file, or with a column of its own.
        bench.write("more.csv", &"id,name,x\n1,a,2\n".replace(',', delimiter));
        bench.load(&["more.csv", "people.csv"], &[]).assert(2, &["more.csv: its header is one column, ", said]);
        bench.load(&["people.csv"], &["--fill", "source=x"]).assert(2, &[one, said]);
        assert_eq!(bench.columns(), "");
        // With quotes it is no CSV without the delimiter.
        bench.write("quoted.csv", &PEOPLE.replace(',', delimiter));
        bench.load(&["quoted.csv"], &[]).assert(1, &["its first line has a", said]);
        bench.load(&["people.csv"], &["--delimiter", delimiter]).assert(0, &["2 rows"]);
        assert_eq!(bench.columns(), "id integer, name text");
        bench.sql("DROP TABLE people");
    }
    // Whoever says that it is a comma has one column.
    bench.write("odd.csv", "a;b\n1;2\n");
    bench.load(&["odd.csv"], &["--delimiter", ","]).assert(0, &["1 row"]);
    assert_eq!(bench.columns(), "\"a;b\" text");
    bench.sql("DROP TABLE people");
    // So has whoever takes one of several.
    bench.write("odd.csv", "id,a|b\n1,2\n");
    bench.load(&["odd.csv"], &["--columns", "a|b"]).assert(0, &["1 row"]);
}

#[test]
fn several_files_of_several_places_make_one_table() {
    let bench = Bench::new();
    let bucket = Server::builder().bucket(BUCKET, Store::memory()).start().unwrap();
    bench.write("a.csv", "id,day\n1,2026-01-01\n");
    // More than is read to tell the dialect, so that some of it is given twice.
    let mut fed = "note,id\n".to_owned();
    for id in 10..60_000 {
        writeln!(fed, "{:x<60},{id}", id * 7919).unwrap();
    }
    bucket.put(BUCKET, "p/b.csv", "id,extra,day\n2,0.5,2026-01-01T10:00\n3000000000,,\n").unwrap();
    let url = bucket.object_url(BUCKET, "p/b.csv");
    let ran = Ran::fed(bench.command(&["a.csv", "-", &url], &["--fill", "extra=1"]), fed);
    ran.assert(0, &["59990 rows"]);
    assert_eq!(bench.columns(), "id bigint, day timestamp without time zone, extra numeric, note text");
    assert_eq!(bench.sql("SELECT count(*), sum(id), count(note), sum(extra) FROM people"), {
        let sum = (10..60_000_u64).sum::<u64>() + 3 + 3_000_000_000;
        format!("59993|{sum}|59990|59991.5")
    });
}

#[test]
fn a_value_behind_the_sample_that_does_not_fit_is_named_with_the_way_out() {
    let bench = Bench::new();
    let mut text = "id,code\n".to_owned();
    for id in 1..=120_000 {
        writeln!(text, "{id},{id}").unwrap();
    }
    let offset = text.len();
    text.push_str("120001,x7\n");
    bench.write("people.csv", &text);
    let said = [
        format!("people.csv: record 120001, byte {offset}, column code: invalid input syntax for type integer: \"x7\""),
        "inferred from a sample".to_owned(),
        "after ALTER TABLE \"public\".\"people\" ALTER COLUMN \"code\" TYPE text the same command goes on".to_owned(),
        "--column-type code=text".to_owned(),
    ];
    let said: Vec<_> = said.iter().map(String::as_str).collect();
    bench.load(&["people.csv"], &[]).assert(1, &said);
    bench.load(&["people.csv"], &[]).assert(1, &said);
    bench.sql("ALTER TABLE \"public\".\"people\" ALTER COLUMN \"code\" TYPE text");
    bench.load(&["people.csv"], &[]).assert(0, &[]);
    assert_eq!(bench.sql("SELECT count(*), sum(id), max(code) FROM people"), "120001|7200180001|x7");
    // The other way out.
    bench.sql("DROP TABLE people");
    bench.load(&["people.csv"], &["--column-type", "code=text"]).assert(0, &[]);
    assert_eq!(bench.columns(), "id integer, code text");
    // Who chose the type knows.
    bench.sql("DROP TABLE people");
    let ran = bench.load(&["people.csv"], &["--column-type", "code=int"]);
    ran.assert(1, &["record 120001"]);
    assert!(!ran.stderr.contains("sample"), "{}", ran.stderr);
}

#[test]
fn of_two_at_once_one_makes_it_and_no_row_is_there_twice() {
    let bench = Bench::new();
    bench.write("people.csv", PEOPLE);
    for _ in 0..4 {
        let both = std::thread::scope(|scope| {
            let runs = [0, 1].map(|_| scope.spawn(|| bench.load(&["people.csv"], &["--connections", "1"])));
            runs.map(|run| run.join().unwrap())
        });
        for ran in &both {
            ran.assert(0, &[]);
        }
        let made = both.iter().filter(|ran| ran.stderr.contains("is made as the first")).count();
        assert_eq!(made, 1);
        assert_eq!(bench.sql("SELECT count(*) FROM people"), "2");
        bench.sql("DROP TABLE people");
    }
}

/// The marks are locked, so that the program is killed at a known place: the table is made, and nothing is in it.
#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_first_row_and_run_again_it_goes_on() {
    let bench = Bench::new();
    bench.write("people.csv", PEOPLE);
    bench.load(&["people.csv"], &[]).assert(0, &[]);
    bench.sql("DROP TABLE people");
    let (client, connection) = tokio_postgres::connect(bench.database.url(), tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute("BEGIN; LOCK TABLE bulk.load").await.unwrap();
    tokio::task::block_in_place(|| {
        kill_when(bench.command(&["people.csv"], &[]), || {
            bench.columns() == COLUMNS
                && bench.sql("SELECT count(*) > 0 FROM pg_locks WHERE relation = 'bulk.load'::regclass AND NOT granted")
                    == "t"
        });
    });
    client.batch_execute("ROLLBACK").await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
    let is_there = "table public.people is there, and is loaded into as it is";
    tokio::task::block_in_place(|| bench.load(&["people.csv"], &[]).assert(0, &[is_there, "2 rows"]));
    assert_eq!(bench.sql("SELECT count(*) FROM people"), "2");
}
