//! `bulk load` into a real PostgreSQL, from the outside.

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
        load.sql("CREATE TABLE people (id bigint PRIMARY KEY, name text NOT NULL, note text, born date)");
        load
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.file(name), bytes).unwrap();
    }

    /// `bulk load` of these files into the table, run in their folder.
    fn command(&self, files: &[&str], more: &[&str]) -> Command {
        let mut command = bulk(["load"]);
        command.args(files).args(["--table", "people"]).args(more);
        command.current_dir(self.folder.path()).env("BULK_DB", self.database.url());
        command
    }

    #[track_caller]
    fn load(&self, files: &[&str], more: &[&str]) -> Ran {
        Ran::of(self.command(files, more))
    }

    #[track_caller]
    fn sql(&self, text: &str) -> String {
        support::sql(&self.database, text)
    }

    /// What the server prints of the table, in the order of the ids.
    #[track_caller]
    fn table(&self) -> String {
        self.sql("COPY (SELECT * FROM people ORDER BY id) TO STDOUT")
    }

    /// Asserts that no file counts as loaded and no row is there.
    #[track_caller]
    fn assert_nothing(&self) {
        assert_eq!(self.sql("SELECT count(*) FROM people"), "0");
        assert_eq!(self.sql("SELECT count(*) FROM bulk.load WHERE finished_at IS NOT NULL"), "0");
    }
}

/// What stands in the notes, by turns.
const NOTES: [Option<&str>; 6] = [
    None,
    Some(""),
    Some("plain"),
    Some("first\n\\.\nthird"),
    Some("a\r\nb\t\\\"quoted\" `ticks` C:\\new"),
    Some("§ — 最高裁 🧑"),
];

/// The records of these ids as today's exports write them (everything quoted, quotes and backslashes escaped by
/// backslashes), below their header.
fn csv(ids: std::ops::Range<usize>) -> String {
    let mut out = "id,name,note,born\n".to_owned();
    for id in ids {
        let note = NOTES[id % NOTES.len()]
            .map_or(String::new(), |note| format!("\"{}\"", note.replace('\\', "\\\\").replace('"', "\\\"")));
        out.push_str(&format!("\"{id}\",\"name {id}\",{note},\"1900-01-{:02}\"\n", id % 28 + 1));
    }
    out
}

/// The same rows as `COPY TO` prints them.
fn rows(ids: std::ops::Range<usize>) -> String {
    let row = |id: usize| {
        let note = NOTES[id % NOTES.len()].map_or("\\N".to_owned(), |note| {
            note.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t")
        });
        format!("{id}\tname {id}\t{note}\t1900-01-{:02}", id % 28 + 1)
    };
    ids.map(row).collect::<Vec<_>>().join("\n")
}

type Encode = fn(&[u8]) -> Vec<u8>;

/// Each codec by its extension, with a checksum where the format leaves that open.
const CODECS: [(&str, Encode); 4] = [
    ("bz2", |bytes| {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }),
    ("gz", |bytes| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }),
    ("zst", |bytes| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }),
    ("xz", |bytes| {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 3);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }),
];

#[test]
fn files_of_every_codec_arrive_and_a_second_run_has_nothing_to_do() {
    let load = Load::new();
    let text = csv(0..500);
    let (first, second) = text.split_at(text.len() / 2);
    load.write("people.csv", &text);
    for (extension, encode) in CODECS {
        // Two streams, one after the other, with a border inside a record.
        load.write(&format!("people.csv.{extension}"), [encode(first.as_bytes()), encode(second.as_bytes())].concat());
    }
    for name in ["people.csv", "people.csv.bz2", "people.csv.gz", "people.csv.zst", "people.csv.xz"] {
        load.load(&[name], &["--restart"]).assert(0, &["500 rows"]);
        assert!(load.table() == rows(0..500), "{name}");
        load.load(&[name], &[]).assert(0, &[name, "all of its 500 rows had been loaded"]);
        assert!(load.table() == rows(0..500), "{name}");
    }
}

#[test]
fn several_files_go_into_one_table_and_each_goes_once() {
    let load = Load::new();
    for (name, ids) in [("a.csv", 0..10), ("b.csv", 10..20), ("c.csv", 20..30), ("d.csv", 30..40)] {
        load.write(name, csv(ids));
    }
    load.load(&["a.csv", "b.csv"], &[]).assert(0, &["20 rows"]);
    assert_eq!(load.table(), rows(0..20));
    // Another file is no part of what the table holds, so it takes a word to add it.
    let said = ["table public.people holds the rows of", "a.csv", "--restart", "--append of bulk load adds to them"];
    load.load(&["c.csv"], &[]).assert(1, &said);
    assert_eq!(load.table(), rows(0..20));
    load.load(&["c.csv"], &["--append"]).assert(0, &[]);
    assert_eq!(load.table(), rows(0..30));
    for _ in 0..2 {
        load.load(&["a.csv", "d.csv", "c.csv"], &["--append"])
            .assert(0, &["a.csv: all of its 10 rows had been loaded"]);
        assert_eq!(load.table(), rows(0..40));
    }
    load.load(&["b.csv"], &["--restart"]).assert(0, &[]);
    assert_eq!(load.table(), rows(10..20));
    load.load(&["b.csv"], &["--restart", "--append"]).assert(2, &["--restart", "--append"]);
}

#[test]
fn rows_of_others_are_not_mixed_with_without_a_word() {
    let load = Load::new();
    load.sql("INSERT INTO people VALUES (1000, 'somebody')");
    let others = "1000\tsomebody\t\\N\t\\N";
    load.write("a.csv", csv(0..10));
    load.write("b.csv", csv(10..20));
    for files in [&["a.csv"][..], &["a.csv", "b.csv"]] {
        load.load(files, &[])
            .assert(1, &["table public.people", "has rows that this program did not load", "--restart"]);
        assert_eq!(load.table(), others);
    }
    load.load(&["a.csv", "b.csv"], &["--append"]).assert(0, &[]);
    assert_eq!(load.table(), format!("{}\n{others}", rows(0..20)));
}

#[test]
fn a_file_that_changed_since_is_not_taken_for_the_same() {
    let load = Load::new();
    load.write("a.csv", csv(0..10));
    load.load(&["a.csv"], &[]).assert(0, &[]);
    load.write("a.csv", csv(0..20));
    load.load(&["a.csv"], &[]).assert(1, &["a.csv", "another version", "--restart"]);
    assert_eq!(load.table(), rows(0..10));
    load.load(&["a.csv"], &["--restart"]).assert(0, &[]);
    assert_eq!(load.table(), rows(0..20));
}

#[test]
fn a_wrong_dialect_by_flag_is_refused_and_the_right_one_is_not() {
    let records = [
        ("A", "id,name,note,born\n1,\"says \"\"hi\"\"\",C:\\new,\n2,b,\"\",\n"),
        ("B", "id,name,note,born\n\"1\",\"says \"\"hi\"\"\",\"C:\\new\",\n\"2\",\"b\",\"\",\n"),
        ("C", "id,name,note,born\n`1`,`says \"hi\"`,`C:\\new`,\n`2`,`b`,``,\n"),
        ("D", "id,name,note,born\n\"1\",\"says \\\"hi\\\"\",\"C:\\\\new\",\n\"2\",\"b\",\"\",\n"),
    ];
    let load = Load::new();
    for (right, text) in records {
        load.write("people.csv", text);
        for wrong in ["A", "B", "C", "D"] {
            // What quotes all is also what quotes where it must, so A and B read each other's files.
            if wrong == right || [wrong, right] == ["A", "B"] || [wrong, right] == ["B", "A"] {
                continue;
            }
            load.load(&["people.csv"], &["--dialect", wrong, "--restart"]).assert(1, &["people.csv", "--dialect"]);
            load.assert_nothing();
        }
        for more in [&["--restart"][..], &["--restart", "--dialect", right]] {
            load.load(&["people.csv"], more).assert(0, &[]);
            assert_eq!(load.table(), "1\tsays \"hi\"\tC:\\\\new\t\\N\n2\tb\t\t\\N", "{right}");
        }
    }
    load.load(&["people.csv"], &["--dialect", "E"]).assert(2, &["--dialect"]);
}

#[test]
fn a_damaged_file_is_named_with_the_byte_and_leaves_nothing_that_counts_as_loaded() {
    let load = Load::new();
    let text = csv(0..30_000);
    for (extension, encode) in CODECS {
        let name = format!("people.csv.{extension}");
        let whole = encode(text.as_bytes());
        let flipped = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            bytes
        };
        // A flip in the middle may show as a record that is none before its checksum is reached.
        let (middle, checksum) = (whole.len() * 2 / 3, whole.len() - 3);
        for (damaged, said) in [
            (whole[..middle].to_vec(), &["cut short", "compressed byte"][..]),
            (flipped(middle), &["byte"]),
            (flipped(checksum), &["corrupt", "compressed byte"]),
        ] {
            load.write(&name, damaged);
            let ran = load.load(&[&name], &["--restart"]);
            ran.assert(1, &[&name]);
            ran.assert(1, said);
            load.assert_nothing();
        }
        load.write(&name, &whole);
        load.load(&[&name], &["--restart"]).assert(0, &[]);
        assert!(load.table() == rows(0..30_000), "{name}");
    }
    load.write("plain.csv.bz2", &text);
    load.load(&["plain.csv.bz2"], &["--restart"]).assert(1, &["plain.csv.bz2", "named as bzip2", "content is plain"]);
    load.assert_nothing();
}

#[test]
fn a_bad_record_is_named_by_file_record_and_place() {
    let load = Load::new();
    // The second record has lines of its own, which are no records.
    let good = "id,name,note,born\n\"1\",\"a\",,\n\"2\",\"b\",\"one\n\\\\.\nthree\n\",\n";
    let at = good.len();
    let cases: [(&[u8], Vec<String>); 7] = [
        (b"\"3\",\"c\",,\"1900-02-30\"\n", vec!["record 3".into(), "column born".into(), "1900-02-30".into()]),
        (b"\"x\",\"c\",,\n", vec!["record 3".into(), "column id".into(), "bigint: \"x\"".into()]),
        (b"\"2\",\"c\",,\n", vec!["record 3".into(), "duplicate key".into(), "people_pkey".into()]),
        (b"\"3\",,,\n", vec!["record 3".into(), "null value in column \"name\"".into()]),
        (b"\"3\",\"c\xff\",,\n", vec![format!("record 3, byte {}, column \"name\": invalid UTF-8", at + 6)]),
        (b"\"3\",\"c\0\",,\n", vec![format!("record 3, byte {}, column \"name\": a NUL byte", at + 6)]),
        (b"\"3\",\"c\",\n", vec![format!("record 3, byte {at}: 3 fields where the header has 4")]),
    ];
    for (record, mut said) in cases {
        load.write("people.csv", [good.as_bytes(), record].concat());
        said.push(load.file("people.csv").display().to_string());
        let said: Vec<_> = said.iter().map(String::as_str).collect();
        load.load(&["people.csv"], &["--restart"]).assert(1, &said);
        load.assert_nothing();
    }
    load.write("people.csv", [good.as_bytes(), b"\"3\",\"c"].concat());
    load.load(&["people.csv"], &["--restart"]).assert(1, &["people.csv", "ends inside quotes"]);
    load.assert_nothing();
    load.write("people.csv", "");
    load.load(&["people.csv"], &["--restart"]).assert(1, &["people.csv", "header"]);
    load.assert_nothing();
    load.write("people.csv", "id,name,note,born\n");
    load.load(&["people.csv"], &["--restart"]).assert(0, &["0 rows"]);
    assert_eq!(load.table(), "");
}

#[test]
fn what_is_not_there_is_named() {
    let load = Load::new();
    load.write("people.csv", csv(0..10));
    let missing = load.file("missing.csv").display().to_string();
    load.load(&["missing.csv"], &[]).assert(1, &["missing.csv", "No such file"]);
    load.load(&[&missing], &[]).assert(1, &[&missing, "No such file"]);
    let into = |table: &str| {
        let mut command = bulk(["load", "people.csv", "--table", table]);
        command.current_dir(load.folder.path()).env("BULK_DB", load.database.url());
        Ran::of(command)
    };
    into("persons").assert(1, &["table public.persons does not exist"]);
    into("other.people").assert(1, &["table other.people does not exist in the database; is it public.people?"]);
    into("Poeple").assert(1, &["is it public.people?", "create it first: bulk load --create-table makes it"]);
    into("a.b.c.d").assert(2, &["--table"]);
    load.load(&["."], &[]).assert(1, &["directory"]);
    load.assert_nothing();
    Ran::of(bulk(["load", "people.csv", "--db", load.database.url()])).assert(2, &["--table"]);
    Ran::of(bulk(["load", "people.csv", "--table", "people"])).assert(2, &["--db"]);
    Ran::of(bulk(["load", "--table", "people", "--db", load.database.url()])).assert(2, &["<FILE>"]);
}

#[test]
fn a_restart_with_a_file_that_cannot_be_read_leaves_the_rows_of_the_last_one() {
    let load = Load::new();
    load.write("people.csv", csv(0..10));
    load.load(&["people.csv"], &[]).assert(0, &["10 rows"]);
    let ledger = || {
        let table = |name| load.sql(&format!("SELECT t FROM bulk.{name} t ORDER BY t::text"));
        (table("load"), table("chunk"))
    };
    let before = ledger();
    assert_ne!(before.0, "");
    let missing = ("missing.csv", "No such file");
    for (files, (file, why)) in
        [(&["missing.csv"][..], missing), (&["people.csv", "missing.csv"], missing), (&["."], (".", "Is a directory"))]
    {
        load.load(files, &["--restart"]).assert(1, &[file, why]);
        assert_eq!(load.table(), rows(0..10));
        assert_eq!(ledger(), before);
    }
    load.load(&["people.csv"], &[]).assert(0, &["all of its 10 rows had been loaded"]);
}

#[test]
fn a_file_that_brought_nothing_is_not_in_the_way() {
    let load = Load::new();
    load.write("a.csv", "\"x\",\"y\"\n\"1\",\"2\"\n");
    load.load(&["a.csv"], &[]).assert(1, &["a.csv: ", "public.people"]);
    // Neither of another file, nor of the same when it is mended.
    load.write("b.csv", "id,name\n\"x\",\"\"\n");
    load.load(&["b.csv"], &[]).assert(1, &["b.csv: record 1, byte 8, column id: invalid input syntax"]);
    load.write("b.csv", csv(0..10));
    load.load(&["b.csv"], &[]).assert(0, &["10 rows"]);
    assert_eq!(load.table(), rows(0..10));
}

#[test]
fn a_column_that_may_not_be_null_and_is_not_in_the_file_is_refused_with_the_flag_that_mends_it() {
    let load = Load::new();
    load.write("people.csv", "note,id\n\"x\",\"1\"\n,\"2\"\n");
    let ran = load.load(&["people.csv"], &[]);
    ran.assert(1, &["people.csv", "name", "may not be NULL"]);
    load.assert_nothing();
    // The flag, as the message has it.
    let flag = ran.stderr.split("--fill ").nth(1).and_then(|rest| rest.split("VALUE").next()).unwrap();
    load.load(&["people.csv"], &["--fill", &format!("{flag}un known")]).assert(0, &["every row gets \"un known\""]);
    assert_eq!(load.table(), "1\tun known\tx\t\\N\n2\tun known\t\\N\t\\N");
    // Without the table it is shorter, and the table is known.
    load.load(&["people.csv"], &["--fill", "name=", "--restart"]).assert(0, &[]);
    assert_eq!(load.table(), "1\t\tx\t\\N\n2\t\t\\N\t\\N");
    load.load(&["people.csv"], &["--fill", "name"]).assert(2, &["--fill name"]);
}

#[test]
fn a_dry_run_changes_nothing() {
    let load = Load::new();
    load.write("people.csv", csv(0..10));
    let ran = load.load(&["people.csv"], &["--dry-run"]);
    ran.assert(0, &[]);
    assert!(ran.stdout.contains("people.csv") && ran.stdout.contains("public.people"), "{}", ran.stdout);
    assert_eq!(load.sql("SELECT count(*) FROM people"), "0");
    assert_eq!(load.sql("SELECT to_regnamespace('bulk') IS NULL"), "t");
}

#[test]
fn with_json_every_line_is_an_event_and_there_is_nothing_else() {
    let load = Load::new();
    load.write("people.csv", csv(0..10));
    let ran = load.load(&["people.csv"], &["--json", "-v"]);
    ran.assert(0, &[]);
    let [loaded] = &ran.events_of("loaded")[..] else { panic!("{}", ran.stdout) };
    assert_eq!((&loaded["table"], &loaded["records"]), (&"public.people".into(), &10.into()));
    assert!(loaded["file"].as_str().unwrap().ends_with("people.csv"), "{loaded}");
    load.write("people.csv", "id,name\n\"1\",\"\0\"\n");
    let ran = load.load(&["people.csv"], &["--json", "--restart"]);
    ran.assert(1, &[]);
    let [error] = &ran.events_of("error")[..] else { panic!("{}", ran.stdout) };
    assert_eq!(error["exit"], 1);
    assert!(error["message"].as_str().unwrap().contains("record 1, byte 13"), "{error}");
}

/// Two chunks are committed, and the third is under way. The next run goes over two connections.
#[test]
fn killed_in_the_middle_and_run_again_every_row_is_there_once() {
    const ROWS: u64 = 120_000;
    let load = Load::new();
    let query = format!(
        "SELECT id, md5(id::text) AS name, repeat(md5(id::text), 12) || E'\\n' || id AS note, NULL::date AS born
         FROM generate_series(1, {ROWS}) id"
    );
    let text = load.sql(&format!("COPY ({query}) TO STDOUT WITH (FORMAT csv, HEADER, FORCE_QUOTE *, ESCAPE '\\')"));
    assert!(text.len() > 3 * (16 << 20), "{}", text.len());
    load.write("people.csv", text + "\n");
    let gate = Gate::close(&load.database, "people", 100_000);
    let one_by_one = ["--connections", "1", "--commit-every", "0s"];
    kill_when(load.command(&["people.csv"], &one_by_one), || gate.is_reached());
    assert_eq!(load.sql("SELECT count(*) FROM bulk.chunk"), "2");
    assert_eq!(load.sql("SELECT (SELECT count(*) FROM people) = sum(records) FROM bulk.chunk"), "t");
    assert_eq!(load.sql("SELECT count(*) FROM bulk.load WHERE finished_at IS NULL"), "1");

    gate.open();
    load.load(&["people.csv"], &[]).assert(0, &["goes on behind record"]);
    let difference = "(SELECT count(*) FROM (TABLE people EXCEPT ALL (QUERY)) a) + (SELECT count(*) FROM ((QUERY) EXCEPT ALL TABLE people) b)";
    assert_eq!(load.sql(&format!("SELECT {}", difference.replace("QUERY", &query))), "0");
    assert_eq!(load.sql("SELECT count(*) FROM people"), ROWS.to_string());
    load.load(&["people.csv"], &[]).assert(0, &["had been loaded"]);
    assert_eq!(load.sql("SELECT count(*) FROM people"), ROWS.to_string());
}

#[test]
fn of_a_bz2_file_what_is_committed_is_not_decoded_again() {
    const RECORDS: u64 = 400_000;
    let load = Load::new();
    let mut csv = b"id,name,note,born\n".to_vec();
    for id in 0..RECORDS {
        writeln!(csv, "{id},name {},{:x<80},2020-02-29", id * 7919, id.wrapping_mul(0x9e37_79b9_7f4a_7c15)).unwrap();
    }
    // Two chunks of 16 MiB, and a third.
    assert!((40_000_000..50_000_000).contains(&csv.len()), "{}", csv.len());
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(1));
    encoder.write_all(&csv).unwrap();
    let mut bytes = encoder.finish().unwrap();
    load.write("people.csv.bz2", &bytes);
    let time = std::fs::metadata(load.file("people.csv.bz2")).unwrap().modified().unwrap();
    let chunks = || match load.sql("SELECT to_regclass('bulk.chunk') IS NOT NULL").as_str() {
        "t" => load.sql("SELECT count(*) FROM bulk.chunk"),
        _ => "0".to_owned(),
    };
    let gate = Gate::close(&load.database, "people", RECORDS - 1);
    kill_when(load.command(&["people.csv.bz2"], &[]), || chunks() == "2");
    gate.open();

    // Damage in the middle of what is committed, unseen: the same size and time.
    let place = bytes.len() / 6;
    bytes[place] ^= 1;
    load.write("people.csv.bz2", &bytes);
    let file = std::fs::File::options().write(true).open(load.file("people.csv.bz2")).unwrap();
    file.set_modified(time).unwrap();
    load.load(&["people.csv.bz2"], &[]).assert(0, &["goes on behind record"]);
    let sum = RECORDS * (RECORDS - 1) / 2;
    assert_eq!(load.sql("SELECT count(*), sum(id) FROM people"), format!("{RECORDS}|{sum}"));
    // Whoever decodes it meets the damage.
    load.load(&["people.csv.bz2"], &["--restart"]).assert(1, &["the checksum of the block does not match"]);
}

#[test]
fn indexes_are_built_anew_behind_the_rows_and_a_run_that_fails_leaves_them_to_the_next() {
    let load = Load::new();
    load.sql("CREATE INDEX people_born ON people (born) WHERE name <> ''");
    let indexes =
        || load.sql("SELECT string_agg(indexdef, '; ' ORDER BY indexdef) FROM pg_indexes WHERE tablename = 'people'");
    let before = indexes();
    load.write("a.csv", "id,name,note,born\n1,Ann,,2000-01-01\n2,Bo,,soon\n");
    let rebuild = ["--rebuild-indexes"];
    load.load(&["a.csv"], &rebuild).assert(1, &["record 2", "indexes and keys of public.people are dropped"]);
    assert_eq!(indexes(), "");

    load.write("a.csv", "id,name,note,born\n1,Ann,,2000-01-01\n2,Bo,,2000-01-02\n");
    load.load(&["a.csv"], &[]).assert(0, &["verified: public.people has 2 rows"]);
    assert_eq!(indexes(), before);
    load.load(&["a.csv"], &["--rebuild-indexes", "--restart"]).assert(0, &["verified: public.people has 2 rows"]);
    assert_eq!(indexes(), before);
    assert_eq!(load.table(), "1\tAnn\t\\N\t2000-01-01\n2\tBo\t\\N\t2000-01-02");

    // What is refused, or loaded already, costs no index.
    load.write("b.csv", "id,name\n3,Cy\n");
    load.load(&["b.csv"], &rebuild).assert(1, &["holds the rows of"]);
    assert_eq!(indexes(), before);
    let ran = load.load(&["a.csv"], &rebuild);
    ran.assert(0, &["all of its 2 rows had been loaded"]);
    assert!(!ran.stderr.contains("are dropped"), "{}", ran.stderr);
}

#[test]
fn a_file_can_be_told_by_its_content() {
    let load = Load::new();
    let touch = |seconds| {
        let file = std::fs::File::options().write(true).open(load.file("a.csv")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
    };
    load.write("a.csv", "id,name\n1,Ann\n");
    touch(1000);
    load.load(&["a.csv"], &["--sha256"]).assert(0, &["public.people: 1 row"]);
    touch(2000);
    load.load(&["a.csv"], &["--sha256"]).assert(0, &["all of its 1 row had been loaded"]);
    // Of the same size and time.
    load.write("a.csv", "id,name\n1,Bob\n");
    touch(2000);
    load.load(&["a.csv"], &["--sha256"]).assert(1, &["holds all of another version of"]);
    load.load(&["a.csv"], &["--sha256", "--refresh"]).assert(0, &[]);
    assert_eq!(load.sql("SELECT id, name FROM people"), "1|Bob");
}

#[test]
fn wide_values_are_compressed_by_lz4_unless_it_is_not_wanted() {
    let load = Load::new();
    let note = "wide ".repeat(2000);
    load.write("a.csv", format!("id,name,note\n1,a,{note}\n"));
    load.write("b.csv", format!("id,name,note\n2,b,{note}\n"));
    let stated = "wide values are compressed by lz4; --no-lz4 leaves that to the server";
    load.load(&["a.csv"], &["-v"]).assert(0, &[stated]);
    let ran = load.load(&["b.csv"], &["-v", "--append", "--no-lz4"]);
    ran.assert(0, &[]);
    assert!(!ran.stderr.contains("lz4"), "{}", ran.stderr);
    assert_eq!(load.sql("SELECT string_agg(pg_column_compression(note), ' ' ORDER BY id) FROM people"), "lz4 pglz");
}

#[test]
fn rows_that_come_behind_a_load_do_not_collide_with_it() {
    let load = Load::new();
    load.sql("ALTER TABLE people ALTER id ADD GENERATED BY DEFAULT AS IDENTITY");
    load.write("a.csv", "id,name\n7,Ann\n3,Bo\n");
    load.load(&["a.csv"], &["-v"]).assert(0, &["1 sequence was raised to the largest value that public.people has"]);
    assert_eq!(load.sql("INSERT INTO people (name) VALUES ('Cy') RETURNING id"), "8");

    // None is lowered, and one that a run which ended in between has left behind is raised by the next.
    load.sql("SELECT setval('people_id_seq', 100)");
    load.write("b.csv", "id,name\n20,Di\n");
    let ran = load.load(&["b.csv"], &["-v", "--append"]);
    ran.assert(0, &[]);
    assert!(!ran.stderr.contains("raised"), "{}", ran.stderr);
    assert_eq!(load.sql("INSERT INTO people (name) VALUES ('Ed') RETURNING id"), "101");
    load.sql("SELECT setval('people_id_seq', 1)");
    load.load(&["b.csv"], &["-v", "--append"]).assert(0, &["had been loaded", "1 sequence was raised"]);
    assert_eq!(load.sql("INSERT INTO people (name) VALUES ('Flo') RETURNING id"), "102");
}
