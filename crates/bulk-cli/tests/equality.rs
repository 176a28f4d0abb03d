//! What `bulk mirror` loads equals, byte for byte, what the server's own `COPY FROM` makes of the same files.

mod support;

use std::path::Path;
use std::pin::pin;

use bulk_testkit::snapshot::{Dialect, TABLES};
use bytes::Bytes;
use futures::{SinkExt, TryStreamExt};
use support::{Bench, small};

/// Each dialect with a date of its era and the options by which the server reads it.
const DIALECTS: [(Dialect, &str, &str); 4] = [
    (Dialect::A, "2022-08-31", ""),
    (Dialect::B, "2023-12-04", ""),
    (Dialect::C, "2024-07-31", ", QUOTE '`'"),
    (Dialect::D, "2026-06-30", ", ESCAPE '\\'"),
];

/// Rows that a careless reader gets wrong: the name, and a condition that some rows of a table of the server's fulfil.
const NASTY: [(&str, &str, &str); 7] = [
    ("a line that is \\. inside quotes", "search_opinion", r"position(E'\n\\.\n' IN plain_text) > 0"),
    ("CRLF inside quotes", "search_opinion", r"position(E'a\r\nb\rc' IN plain_text) > 0"),
    ("a field of a mebibyte", "search_opinion", "octet_length(plain_text) = 1048576"),
    ("the empty string", "search_opinion", "xml_harvard = ''"),
    ("a character of four bytes", "search_opinion", "position(U&'\\+01F9D1' IN plain_text) > 0"),
    ("a backslash before a quote", "search_opinion", r#"position('\"' IN plain_text) > 0"#),
    ("a backslash before a backtick", "search_opinion", r"position('\`' IN plain_text) > 0"),
];

#[test]
fn dialect_a() {
    assert_equal(DIALECTS[0]);
}

#[test]
fn dialect_b() {
    assert_equal(DIALECTS[1]);
}

#[test]
fn dialect_c() {
    assert_equal(DIALECTS[2]);
}

#[test]
fn dialect_d() {
    assert_equal(DIALECTS[3]);
}

#[tokio::main(flavor = "current_thread")]
async fn assert_equal((dialect, date, options): (Dialect, &str, &str)) {
    let mut spec = small();
    spec.dialect = dialect;
    spec.date = date.parse().unwrap();
    spec.nasty = true;
    let (bench, made) = Bench::with(&spec);
    // Parentheticals always violate a foreign key, so this is not 0.
    bench.mirror(&[]).assert(3, &["search_par_group_id", "stays NOT VALID", "verified: 33 tables have the "]);
    bench.assert_holds(&made);

    assert_eq!(made.files.len(), 33);
    let theirs = Theirs::new(&bench).await;
    for file in &made.files {
        let csv = decompressed(&made.dir.join(&file.name));
        assert_eq!(csv.len() as u64, file.csv_bytes, "{}", file.name);
        assert_eq!(theirs.assert_equal(file.table, &csv, options).await, file.rows, "{}", file.name);
    }
    let client = &theirs.client;
    for (what, table, condition) in NASTY {
        let rows = client.query(&format!("SELECT FROM theirs.{table} WHERE {condition}"), &[]).await.unwrap();
        assert!(!rows.is_empty(), "no row of {table} has {what}");
    }
    assert_raw_bytes(dialect, &decompressed(&made.dir.join(format!("opinions-{date}.csv.bz2"))));
}

#[tokio::test]
async fn the_published_fixtures() {
    let Some(shared) = support::shared("courtlistener/real") else { return };
    let bench = Bench::new();
    for entry in std::fs::read_dir(&shared).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".bz2") || name.ends_with(".sql") {
            std::fs::copy(entry.path(), bench.data().join(name)).unwrap();
        }
    }
    let ran = bench.mirror(&[]);
    assert!([0, 3].contains(&ran.status.unwrap()), "{}", ran.stderr);
    let theirs = Theirs::new(&bench).await;
    let mut rows = 0;
    for table in TABLES.iter().filter(|table| !table.base.is_empty()) {
        let csv = std::fs::read(shared.join(format!("{}-2026-06-30.csv", table.base))).unwrap();
        rows += theirs.assert_equal(table.name, &csv, DIALECTS[3].2).await;
    }
    assert_eq!(bench.sql("SELECT count(*), sum(records) FROM bulk.load"), format!("33|{rows}"));
    bench.mirror(&[]).assert(ran.status.unwrap(), &["33 of 33 files had been loaded"]);
}

/// Tables beside ours that the server's own reader fills.
struct Theirs {
    client: tokio_postgres::Client,
}

impl Theirs {
    async fn new(bench: &Bench) -> Self {
        let (client, connection) = tokio_postgres::connect(bench.database.url(), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute("CREATE SCHEMA theirs").await.unwrap();
        Self { client }
    }

    /// Has the server read `csv`, and compares every byte of the two tables. How many rows they have.
    async fn assert_equal(&self, name: &str, csv: &[u8], options: &str) -> u64 {
        let client = &self.client;
        let header = csv.split(|byte| *byte == b'\n').next().unwrap();
        let columns = columns(&std::str::from_utf8(header).unwrap().trim_end().split(',').collect::<Vec<_>>());
        client
            .batch_execute(&format!("CREATE TABLE theirs.{name} AS SELECT {columns} FROM public.{name} LIMIT 0"))
            .await
            .unwrap();
        let copy =
            format!("COPY theirs.{name} ({columns}) FROM STDIN WITH (FORMAT csv, HEADER, ENCODING 'utf8'{options})");
        let mut sink = pin!(client.copy_in::<_, Bytes>(&copy).await.unwrap());
        for part in csv.chunks(1 << 20) {
            sink.send(Bytes::copy_from_slice(part)).await.unwrap();
        }
        let rows = sink.finish().await.unwrap();
        let (ours, theirs) =
            (dump(client, "public", name, &columns).await, dump(client, "theirs", name, &columns).await);
        assert_eq!(theirs.iter().filter(|byte| **byte == b'\n').count() as u64, rows, "{name}");
        assert!(ours == theirs, "{name} differs from byte {:?} on", first_difference(&ours, &theirs));
        rows
    }
}

/// The same in the file itself, so that the two readers cannot agree on what is not there.
fn assert_raw_bytes(dialect: Dialect, csv: &[u8]) {
    let marker: &[u8] =
        if matches!(dialect, Dialect::D) { b"first line\n\\\\.\nthird line" } else { b"first line\n\\.\nthird line" };
    let quote_behind_backslash: &[u8] = match dialect {
        Dialect::A | Dialect::B => b",\"\\\"\"\",",
        Dialect::C => b",`\\\"`,",
        Dialect::D => b",\"\\\\\\\"\",",
    };
    let empty_then_null: &[u8] = if matches!(dialect, Dialect::C) { b",``," } else { b",\"\"," };
    for (what, bytes) in [
        ("a line that is the end marker", marker),
        ("CRLF", b"a\r\nb\rc\nd\n\re"),
        ("a backslash and a quote", quote_behind_backslash),
        ("an empty string", empty_then_null),
        ("NULL", b",,"),
        ("a character of four bytes", "𠜎".as_bytes()),
    ] {
        assert!(csv.windows(bytes.len()).any(|window| window == bytes), "{what} is not in the file of {dialect:?}");
    }
}

fn columns(names: &[&str]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// What bzip2 itself makes of the file: a decoder that shares no code with the program.
fn decompressed(path: &Path) -> Vec<u8> {
    let mut command = std::process::Command::new("bzip2");
    let output = command.arg("-dc").arg(path).output().expect("bzip2 is needed: apt-get install bzip2");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

async fn dump(client: &tokio_postgres::Client, schema: &str, table: &str, columns: &str) -> Vec<u8> {
    let rows = format!("SELECT {columns} FROM {schema}.{table} ORDER BY ROW({columns})::text COLLATE \"C\"");
    let stream = pin!(client.copy_out(&format!("COPY ({rows}) TO STDOUT")).await.unwrap());
    let parts: Vec<Bytes> = stream.try_collect().await.unwrap();
    parts.concat()
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    a.iter().zip(b).position(|(a, b)| a != b)
}
