//! `bulk load --format`, from the outside.

mod support;

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use bulk_testkit::postgres::Database;
use support::{Gate, Ran, bulk, kill_when, server};

/// A folder for files, and a database with an empty table.
struct Load {
    folder: tempfile::TempDir,
    database: Database,
}

impl Load {
    fn new() -> Self {
        let load = Self { folder: tempfile::tempdir().unwrap(), database: server().create_database("load").unwrap() };
        load.sql("CREATE TABLE people (id bigint PRIMARY KEY, name text NOT NULL, born date, more jsonb)");
        load
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.file(name), bytes).unwrap();
    }

    fn command(&self, file: &str, more: &[&str]) -> Command {
        let mut command = bulk(["load", file, "--table", "people"]);
        command.args(more).current_dir(self.folder.path()).env("BULK_DB", self.database.url());
        command
    }

    #[track_caller]
    fn load(&self, file: &str, more: &[&str]) -> Ran {
        Ran::of(self.command(file, more))
    }

    #[track_caller]
    fn sql(&self, text: &str) -> String {
        support::sql(&self.database, text)
    }

    #[track_caller]
    fn table(&self) -> String {
        self.sql("SELECT * FROM people ORDER BY id")
    }

    /// A file as the server writes it.
    #[track_caller]
    fn copy_out(&self, query: &str, format: &str, name: &str) {
        self.sql(&format!("\\copy ({query}) TO '{}' (FORMAT {format})", self.file(name).display()));
    }
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn objects_are_loaded_and_what_is_left_out_is_written() {
    let load = Load::new();
    let bad = ["[1]\n", "{\"id\": 4, \"name\": null}\r\n", "{\"id\": 5, \"name\": \"\\ud800\"}\n"];
    let content = format!(
        "{{\"id\": 1, \"name\": \"A\\u00e9\", \"x\": [1]}}\n{}{{\"name\": \"B\", \"id\": 2, \"born\": \"2000-01-01\"}}\n\n{}\n{}",
        bad[0], bad[1], bad[2]
    );
    load.write("a.ndjson.gz", gz(content.as_bytes()));
    let format = &["--format", "ndjson", "--rest", "more"];
    load.load("a.ndjson.gz", format).assert(1, &["a.ndjson.gz: record 2, byte 39: the line is no JSON object"]);
    let tolerant = [&format[..], &["--max-rejects", "3", "--rejects", "bad"]].concat();
    load.load("a.ndjson.gz", &tolerant).assert(3, &["a.ndjson.gz: 3 records were left out"]);
    assert_eq!(load.table(), "1|Aé||{\"x\": [1]}\n2|B|2000-01-01|{}");
    assert_eq!(std::fs::read_to_string(load.file("bad/a.ndjson.gz.rejects")).unwrap(), bad.concat());
    let lines = std::fs::read_to_string(load.file("bad/a.ndjson.gz.rejects.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let places: Vec<_> =
        lines.iter().map(|line| (line["record"].as_u64().unwrap(), line["byte"].as_u64().unwrap())).collect();
    let at = |bad: &str| content.find(bad).unwrap() as u64;
    assert_eq!(places, [(2, at(bad[0])), (4, at(bad[1])), (5, at(bad[2]))]);
    assert_eq!([&lines[1]["column"], &lines[2]["column"]], ["name", "name"]);

    load.load("a.ndjson.gz", &tolerant).assert(3, &["all of its 2 rows had been loaded"]);
    load.load("a.ndjson.gz", &["--format", "text"]).assert(
        1,
        &["it is loaded as ndjson, rest \"more\", and it is now to be read as text; read it as before, or load it anew with \
           --restart"],
    );
    // Without a column for them, keys that are no columns are named.
    let ran = load.load("a.ndjson.gz", &["--format", "ndjson", "--restart", "--max-rejects", "3"]);
    ran.assert(3, &["column x of the file is not in the table and is not loaded", "column more is not in the file"]);
    assert_eq!(load.table(), "1|Aé||\n2|B|2000-01-01|");
}

/// What says how it is written is its first record then, and there may be no other: a rejected one that was mended.
#[test]
fn a_file_of_one_record_and_no_header_is_loaded() {
    let load = Load::new();
    let header = ["--header", "id,name", "--restart"];
    for (record, row) in [
        ("5,x\n", "5|x||"),
        ("5,y", "5|y||"),
        ("904,\"a \"\"x\"\", b\"\n", "904|a \"x\", b||"),
        ("\"904\",\"a \\\"x\\\"\"\n", "904|a \"x\"||"),
    ] {
        load.write("one.csv", record.as_bytes());
        load.load("one.csv", &header).assert(0, &["public.people: 1 row"]);
        assert_eq!(load.table(), row, "{record}");
    }
}

#[test]
fn a_file_that_is_not_what_it_is_taken_for_is_told_with_the_flag_that_reads_it() {
    let load = Load::new();
    let json = "its first line looks like JSON, which --format ndjson reads";
    for (content, said, flags) in [
        ("{\"id\": 1, \"name\": \"a\"}\n", json, "--format ndjson"),
        ("{\"id\":1,\"name\":\"a\"}", json, "--format ndjson"),
        ("id;name\n1;a\n", "a semicolon between the names, which --delimiter ';' reads", "--delimiter ;"),
        ("id;name\n1;\"a\"\n", "a semicolon between the names, which --delimiter ';' reads", "--delimiter ;"),
        ("id\tname\n1\ta\n", "a tab between the names, which --delimiter tab reads", "--delimiter tab"),
        ("id|name\n1|\"a\"\n", "a bar between the names, which --delimiter '|' reads", "--delimiter |"),
    ] {
        load.write("a", content);
        load.load("a", &["--restart"]).assert(1, &["a: ", said]);
        let flags: Vec<_> = flags.split(' ').chain(["--restart"]).collect();
        load.load("a", &flags).assert(0, &["public.people: 1 row"]);
        assert_eq!(load.table(), "1|a||", "{content}");
        load.load("a", &flags[..2]).assert(0, &["all of its 1 row had been loaded"]);
    }
    // A value with the delimiter stands in quotes.
    load.write("a", "id;name\n1;\"a;b \"\"c\"\"\"\n");
    load.load("a", &["--restart", "--delimiter", ";"]).assert(0, &[]);
    assert_eq!(load.table(), "1|a;b \"c\"||");

    load.write("a", "ID,Name\n1,a\n");
    let said = "none of its columns (ID, Name) is in public.people, which has id, name; ID, Name differ in case only";
    load.load("a", &["--restart"]).assert(1, &[said]);
}

#[test]
fn files_of_copy_are_loaded_as_the_server_wrote_them() {
    let load = Load::new();
    let rows = "SELECT i::bigint AS id, E'tab\\t, \\\\N, é ' || i AS name, nullif(date '2000-01-01' + i, '2000-01-03') AS born,
                       jsonb_build_object('i', i) AS more FROM generate_series(1, 50) i"
        .replace('\n', " ");
    let expected = load.sql(&format!("SELECT * FROM ({rows}) r ORDER BY id"));
    for (format, name) in [("text", "a.copy"), ("binary", "a.bin"), ("csv", "a.csv")] {
        load.copy_out(&rows, format, name);
        // The CSV file has no header.
        let header = ["--header", "id,name,born,more"];
        let more = [&["--restart", "--format", format][..], if format == "csv" { &header[..] } else { &[] }].concat();
        load.load(name, &more).assert(0, &["public.people: 50 rows"]);
        assert_eq!(load.table(), expected);
        load.load(name, &more[1..]).assert(0, &["all of its 50 rows had been loaded"]);
        load.load(name, &["--restart", "--format", "ndjson"]).assert(1, &[name]);

        load.copy_out(
            &rows.replace("i::bigint AS id, ", "").replace("AS more", "AS more, i::bigint AS id"),
            format,
            name,
        );
        load.load(name, &["--restart", "--format", format, "--header", "name,born,more,id"]).assert(0, &["50 rows"]);
        assert_eq!(load.table(), expected);
    }
    // A copy that was cut short.
    load.copy_out(&rows, "binary", "a.bin");
    let bytes = std::fs::read(load.file("a.bin")).unwrap();
    load.write("cut.bin", &bytes[..bytes.len() - 2]);
    load.load("cut.bin", &["--restart", "--format", "binary"])
        .assert(1, &["record 51, byte ", ": the input ends without the trailer: it is cut off"]);
}

#[test]
fn flags_that_do_not_go_together_are_wrong_usage() {
    let load = Load::new();
    load.write("a", "{}");
    load.sql("INSERT INTO people VALUES (7, 'mine')");
    for (arguments, said) in [
        // Before the table is emptied for it.
        (
            &["--format", "binary", "--verify", "full", "--restart"][..],
            "the content of a file of the format binary cannot be hashed while it is loaded",
        ),
        (
            &["--format", "binary", "--where", "id=1", "--restart"],
            "records of the format binary cannot be chosen by a condition",
        ),
        (&["--format", "ndjson", "--repair", "--rebuild-indexes"], "only the text of CSV is repaired"),
        (&["--freeze", "--max-rejects", "3", "--restart"], "rows cannot be frozen where records may be left out"),
        (&["--format", "json"], "unknown format \"json\": it is one of csv, ndjson, text, binary"),
        (&["--format", "ndjson", "--dialect", "D"], "--dialect is of CSV, and --format is ndjson"),
        (&["--format", "ndjson", "--delimiter", ";"], "--delimiter is of CSV, and --format is ndjson"),
        (&["--delimiter", ";;"], "it is one ASCII character, or tab"),
        (&["--delimiter", ";", "--dialect", "A"], "cannot be used with"),
        (&["--rest", "more"], "--rest is of ndjson, and --format is csv"),
    ] {
        load.load("a", arguments).assert(2, &[said]);
    }
    assert_eq!(load.table(), "7|mine||");
}

#[test]
fn a_load_that_is_killed_goes_on_and_ends_with_the_same_table() {
    const ROWS: usize = 300_000;
    let load = Load::new();
    let mut content = String::new();
    for id in 1..=ROWS {
        content += &format!("{{\"id\": {id}, \"name\": \"{:x<150}\", \"other\": {{\"id\": {id}}}}}\n", "name");
    }
    // Three chunks of 16 MiB, and a fourth.
    assert!((51_000_000..66_000_000).contains(&content.len()), "{}", content.len());
    load.write("a.ndjson", content);
    let more = &["--format", "ndjson", "--rest", "more", "--connections", "2"];
    let chunks = || match load.sql("SELECT to_regclass('bulk.chunk') IS NOT NULL").as_str() {
        "t" => load.sql("SELECT count(*) FROM bulk.chunk"),
        _ => "0".to_owned(),
    };
    let gate = Gate::close(&load.database, "people", ROWS as u64);
    kill_when(load.command("a.ndjson", more), || chunks() != "0");
    gate.open();
    load.load("a.ndjson", &["--format", "csv"]).assert(1, &["a part of it is loaded as ndjson"]);
    load.load("a.ndjson", more).assert(0, &["goes on behind record", "public.people: 300000 rows"]);
    assert_eq!(
        load.sql(
            "SELECT count(*), sum(id), bool_and(length(name) = 150 AND more = jsonb_build_object('other',
             jsonb_build_object('id', id))) FROM people"
        ),
        format!("{ROWS}|{}|t", ROWS * (ROWS + 1) / 2)
    );
}
