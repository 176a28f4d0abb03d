//! Files in COPY's own formats: the rows that the server would make of them, and a word where it would say none.

mod support;

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::slice::from_mut;

use bulk_pg::{
    ContentVerdict, CopyBinary, CopyFormat, Drift, Error, FileIdentity, InputFormat, LoadOptions, Loaded, Session,
    Verification, Verifier, count_rows, find_loaded, load,
};
use bytes::Bytes;
use futures::{SinkExt, TryStreamExt};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::{Bench, broken_after, chain, file, table, whole};

fn options(format: InputFormat) -> LoadOptions {
    let mut options = LoadOptions::default();
    options.input_format = format;
    options
}

fn text() -> LoadOptions {
    options(InputFormat::CopyText)
}

fn binary() -> LoadOptions {
    options(InputFormat::CopyBinary)
}

/// Loads `content` as the file `t.copy` into the table `t`.
async fn load_t(session: &mut Session, content: impl AsRef<[u8]>, options: &LoadOptions) -> Result<Loaded, Error> {
    let content = content.as_ref();
    load(from_mut(session), &table("t"), &file("t.copy", content), whole(content), options).await
}

/// What the server writes.
async fn copy_out(session: &Session, sql: &str) -> Vec<u8> {
    let stream = session.client().copy_out(sql).await.unwrap();
    pin!(stream).try_fold(Vec::new(), async |all, piece| Ok([all, piece.to_vec()].concat())).await.unwrap()
}

/// Whether the server reads it.
async fn copy_in(session: &Session, sql: &str, content: &[u8]) -> Result<u64, tokio_postgres::Error> {
    let mut sink = pin!(session.client().copy_in::<_, Bytes>(sql).await?);
    sink.send(Bytes::copy_from_slice(content)).await?;
    sink.finish().await
}

#[tokio::test]
async fn text_is_chosen_and_hashed_and_binary_is_not() {
    let bench = Bench::new(
        "part",
        "CREATE TABLE s AS SELECT id, id % 7 AS rest, md5(id::text) AS note
                                    FROM generate_series(1, 10000) id; CREATE TABLE t (LIKE s)",
    );
    let mut session = bench.session().await;
    let mut options = text();
    options.filter = vec!["rest=3".parse().unwrap()];
    options.limit = Some(500);
    options.hash_content = true;
    let content = copy_out(&session, "COPY s TO STDOUT").await;
    let loaded = load_t(&mut session, &content, &options).await.unwrap();
    assert_eq!(loaded.sent, 500);
    let expected =
        "SELECT count(*) FROM (SELECT * FROM s WHERE rest = 3 ORDER BY id LIMIT 500) e JOIN t USING (id, rest, note)";
    assert_eq!(bench.psql(expected), "500");
    let verified = Verifier::new(Verification::Full).verify(&session, &table("t")).await.unwrap();
    assert!(matches!(verified.content, Some(ContentVerdict::Same { content }) if content.rows == 500), "{verified:?}");

    bench.psql("TRUNCATE t");
    let content = copy_out(&session, "COPY s TO STDOUT (FORMAT binary)").await;
    let mut options = binary();
    options.hash_content = true;
    let error = load_t(&mut session, &content, &options).await.unwrap_err();
    assert!(chain(&error).contains("cannot be hashed while it is loaded"), "{}", chain(&error));
    options.hash_content = false;
    options.filter = vec!["rest=3".parse().unwrap()];
    let error = load_t(&mut session, &content, &options).await.unwrap_err();
    assert!(chain(&error).contains("cannot be chosen by a condition"), "{}", chain(&error));
    options.filter.clear();
    options.columns = Some(vec!["id".to_owned(), "note".to_owned()]);
    options.limit = Some(10);
    assert_eq!(load_t(&mut session, &content, &options).await.unwrap().sent, 10);
    assert_eq!(bench.psql("SELECT count(*), sum(id), count(rest), count(note) FROM t"), "10|55|0|10");
}

/// Counts on.
fn next(number: &Cell<u64>) -> u64 {
    number.replace(number.get() + 1)
}

fn hex(raw: &[u8]) -> String {
    raw.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Values of every kind of type, of which one, inet, cannot be encoded here.
const TYPES: &str =
    "id integer PRIMARY KEY, big bigint, small smallint, ok boolean, real real, double double precision,
     amount numeric(12,3), day date, at timestamp, atz timestamptz, name text, code varchar(5), pad char(4), raw json,
     data jsonb, bytes bytea, uuid uuid, tags text[], grid integer[], made integer GENERATED ALWAYS AS (id + 1) STORED";
const VALUES: &str = r#"
    (1, -9000000000, 7, true, 1.5, -1e300, 12.5, '2020-02-29', '1999-01-08 04:05:06.789', '2000-01-01 00:00:00+02',
     E'tab\t line\n cr\r back\\slash \\N \\. é 😀', 'äöü', 'ab', '{"a":  1}', '{"b": [1, null]}', '\x00ff5c',
     '00112233-4455-6677-8899-aabbccddeeff', '{"a,b",NULL,"","\\"}', '{{1,2},{3,4}}'),
    (2, NULL, NULL, NULL, 'NaN', 'Infinity', 'NaN', 'infinity', '-infinity', 'infinity', '', '', '', NULL, NULL, '', NULL,
     '{}', NULL),
    (3, 0, -32768, false, '-0', 0, 0, '4713-01-01 BC', '10000-01-01', '0044-03-15 12:00:00+00 BC', E'\\N', NULL, NULL,
     'null', '"s"', NULL, NULL, NULL, '[2:3]={5,6}')"#;
const WRITTEN: &str =
    "id, big, small, ok, real, double, amount, day, at, atz, name, code, pad, raw, data, bytes, uuid, tags, grid";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_has_written_comes_back_as_it_was() {
    for more in ["", ", host inet DEFAULT '10.0.0.1'"] {
        let bench =
            Bench::new("types", &format!("CREATE TABLE source ({TYPES}{more}); CREATE TABLE t ({TYPES}{more})"));
        bench.psql(&format!("INSERT INTO source ({WRITTEN}) VALUES {VALUES}"));
        let mut session = bench.session().await;
        let expected = bench.psql("SELECT * FROM source ORDER BY id");
        for (options, sql) in [(text(), "COPY source TO STDOUT"), (binary(), "COPY source TO STDOUT (FORMAT binary)")] {
            let content = copy_out(&session, sql).await;
            for format in [CopyFormat::Auto, CopyFormat::Text] {
                bench.psql("TRUNCATE t");
                let mut options = options.clone();
                options.format = format;
                let loaded = load_t(&mut session, &content, &options).await.map_err(|error| chain(&error)).unwrap();
                assert_eq!((loaded.records, loaded.sent, loaded.verdict, loaded.drift), (3, 3, None, vec![]));
                assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), expected, "{sql}");
            }
        }
    }
}

#[tokio::test]
async fn columns_are_those_that_are_named() {
    let bench = Bench::new(
        "columns",
        "CREATE TABLE t (id integer PRIMARY KEY, a text, born date DEFAULT '2000-01-01', given numeric NOT NULL)",
    );
    let mut session = bench.session().await;
    for (mut options, sql) in [(text(), ""), (binary(), " (FORMAT binary)")] {
        bench.psql("TRUNCATE t");
        options.header = Some(["a", "extra", "id"].map(str::to_owned).to_vec());
        options.fill.insert("given".to_owned(), "-1.5".to_owned());
        let rows = "COPY (VALUES ('A', 1.5, 1), (NULL, NULL, 2)) TO STDOUT";
        let content = copy_out(&session, &format!("{rows}{sql}")).await;
        let loaded = load_t(&mut session, &content, &options).await.map_err(|error| chain(&error)).unwrap();
        let column = |name: &str| name.to_owned();
        assert_eq!(
            loaded.drift,
            [
                Drift::Default { column: column("born") },
                Drift::Filled { column: column("given"), value: "-1.5".to_owned() },
                Drift::Order,
                Drift::Dropped { column: column("extra") },
            ]
        );
        assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), "1|A|2000-01-01|-1.5\n2||2000-01-01|-1.5");
    }
    bench.psql("TRUNCATE t; ALTER TABLE t ADD host inet NOT NULL");
    let mut options = binary();
    options.header = Some(vec!["id".to_owned()]);
    for name in ["host", "given"] {
        options.fill.insert(name.to_owned(), "10".to_owned());
    }
    let error = load_t(&mut session, CopyBinary::HEADER, &options).await.unwrap_err();
    assert_eq!(
        chain(&error),
        "t.copy: the value for its column host cannot be added to binary rows: values of its type cannot be encoded"
    );
}

#[tokio::test]
async fn a_csv_file_without_a_header_has_the_names_that_are_given() {
    let bench = Bench::new("headless", "CREATE TABLE t (id integer, a text)");
    let mut session = bench.session().await;
    let mut options = options(InputFormat::Csv);
    options.header = Some(vec!["a".to_owned(), "id".to_owned()]);
    for newline in ["\n", "\r\n", "\r"] {
        for mark in ["", "\u{feff}"] {
            bench.psql("TRUNCATE t");
            let csv = format!("{mark}x,1\n\"y\"\"\",2\n").replace('\n', newline);
            assert_eq!(load_t(&mut session, &csv, &options).await.unwrap().records, 2);
            assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), "1|x\n2|y\"");
            assert_eq!(
                bench.psql("SELECT first_byte, format FROM bulk.chunk JOIN bulk.load ON id = load_id"),
                format!("{}|csv, header [\"a\",\"id\"]", mark.len())
            );
        }
    }
    bench.psql("TRUNCATE t");
    let error = load_t(&mut session, "x,1\ny,2,3\nz,3\nw,4\n", &options).await.unwrap_err();
    assert_eq!(chain(&error), "t.copy: record 2, byte 4: 3 fields where the header has 2");
    // A first record that is longer than what is read ahead tells how lines end, too.
    let csv = format!("\"{}\",\"1\"\r\n\"a\nb\",\"2\"\r\n", "é".repeat(1 << 20));
    assert_eq!(load_t(&mut session, &csv, &options).await.unwrap().records, 2);
    assert_eq!(bench.psql("SELECT id, length(a) FROM t ORDER BY id"), format!("1|{}\n2|3", 1 << 20));
}

#[tokio::test]
async fn a_text_file_is_read_to_its_end_mark() {
    let bench = Bench::new("mark", "CREATE TABLE t (id integer, a text)");
    let mut session = bench.session().await;
    for (content, rows) in [
        ("1\ta\n2\tb\n\\.\n", "1|a\n2|b"),
        ("1\ta\r\n2\t\\N\r\n\\.\r\n", "1|a\n2|"),
        ("1\ta\r2\tb", "1|a\n2|b"),
        ("1\ta\n\\.", "1|a"),
        ("1\ta\n\\.\n\n\r\n", "1|a"),
        ("\\.\n", ""),
        ("1\ta\\\nb\n", "1|a\nb"),
    ] {
        bench.psql("TRUNCATE t; DELETE FROM bulk.load");
        load_t(&mut session, content, &text()).await.map_err(|error| chain(&error)).unwrap();
        assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), rows, "{content:?}");
    }
    bench.psql("TRUNCATE t; DELETE FROM bulk.load");
    for (content, said) in [
        ("1\ta\n\\.\n2\tb\n", "record 2, byte 7: there is more behind the end mark \\."),
        ("1\ta\n2\tb\\", "record 2, byte 7: the input ends within an escape: it is cut off"),
        ("1\ta\n2\tb\\.\n", "record 2, byte 7, column \"a\": the end mark \\. does not stand alone on its line"),
        (
            "1\ta\n2\tb\r\n",
            "record 2, byte 7, column \"a\": a carriage return that is not escaped, and the first line ends in another way",
        ),
        (
            "1\ta\r\n2\tb\n3\tc\r\n",
            "record 2, byte 8, column \"a\": a line feed that is not escaped, and the first line ends in another way",
        ),
        ("1\ta\n2\n", "record 2, byte 4: 1 field where the header has 2"),
        ("1\ta\n2\tb\tc\n", "record 2, byte 4: 3 fields where the header has 2"),
        ("1\ta\n2\tb\\0\n", "record 2, byte 6, column \"a\": a NUL byte, which text in PostgreSQL cannot hold"),
        ("1\ta\n2\t\\303\n", "record 2, byte 6, column \"a\": invalid UTF-8"),
        ("1\ta\n2\tb\0\n", "record 2, byte 7, column \"a\": a NUL byte, which text in PostgreSQL cannot hold"),
    ] {
        let error = load_t(&mut session, content, &text()).await.unwrap_err();
        assert_eq!(chain(&error), format!("t.copy: {said}"));
        assert_eq!(bench.psql("SELECT count(*) FROM t"), "0");
    }
    // A first line that is longer than what is read ahead tells how lines end, too.
    let content = format!("1\t{}\\\n\\\r\r\n2\t\r\n", "é".repeat(1 << 20));
    assert_eq!(load_t(&mut session, &content, &text()).await.unwrap().records, 2);
    assert_eq!(bench.psql("SELECT id, length(a) FROM t ORDER BY id"), format!("1|{}\n2|0", (1 << 20) + 2));
}

/// What is put together to make a text file.
const ATOMS: [&[u8]; 28] = [
    b"\t",
    b"\n",
    b"\\\t",
    b"\\\n",
    b"\\\r",
    b"\\\\",
    b"\\N",
    b"\\n",
    b"\\b\\f\\r\\t\\v",
    b"\\.",
    b"\\x",
    b"\\x4",
    b"\\x41",
    b"\\xc3\\xa9",
    b"\\101",
    b"\\303\\251",
    b"\\7",
    b"\\0",
    b"\\377",
    b"\\q",
    b"\r",
    b"a",
    b"78",
    "é".as_bytes(),
    "😀".as_bytes(),
    b"N",
    b"\x01\x08",
    b"some plain text of more than one word",
];
const WEIGHTS: [u32; 28] = [60, 30, 6, 6, 3, 8, 12, 6, 3, 1, 3, 4, 4, 4, 4, 4, 4, 1, 1, 3, 1, 20, 8, 6, 3, 6, 3, 4];

/// The server reads the same, or it refuses.
#[test]
fn text_means_what_the_server_says() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bench = Bench::new("text", "CREATE TABLE t (a text, b text); CREATE TABLE s (a text, b text)");
    let session = RefCell::new(runtime.block_on(bench.session()));
    let atoms = WEIGHTS.iter().zip(ATOMS).map(|(weight, atom)| (*weight, Just(atom)));
    let noise = vec(proptest::strategy::Union::new_weighted(atoms.collect()), 0..40).prop_map(|atoms| atoms.concat());
    // Lines of two fields, most of which are good.
    let value = vec(
        prop::sample::select(
            ATOMS
                .into_iter()
                .filter(|atom| !matches!(*atom, b"\t" | b"\n" | b"\r" | b"\\." | b"\\0" | b"\\377"))
                .collect::<Vec<_>>(),
        ),
        0..4,
    )
    .prop_map(|atoms| atoms.concat());
    let line = (value.clone(), value).prop_map(|(a, b)| [a, b].join(&b'\t'));
    let newline = prop::sample::select(vec![&b"\n"[..], b"\r\n", b"\r"]);
    let lines = (vec(line, 1..8), newline, any::<bool>()).prop_map(|(lines, newline, ends)| {
        let mut content = lines.join(newline);
        if ends {
            content.extend_from_slice(newline);
        }
        content
    });
    let content = prop_oneof![1 => noise, 2 => lines];
    let config = Config { cases: 400, failure_persistence: None, ..Config::default() };
    let (number, alike) = (Cell::new(0_u64), Cell::new(0));
    let mut runner = TestRunner::new(config);
    let result = runner.run(&(content, 1..60_u64), |(content, chunk_size)| {
        let mut session = session.borrow_mut();
        // There is no file without a byte.
        prop_assume!(!content.is_empty());
        let number = next(&number);
        bench.psql("TRUNCATE t, s");
        let mut options = text();
        options.chunk_size = chunk_size;
        if number.is_multiple_of(2) {
            options.format = CopyFormat::Text;
        }
        let identity = FileIdentity::new(format!("{number}"), None, content.len() as u64);
        let loaded = runtime.block_on(load(from_mut(&mut session), &table("t"), &identity, whole(&content), &options));
        let server = runtime.block_on(copy_in(&session, "COPY s FROM STDIN", &content));
        let shown = content.escape_ascii();
        match (loaded, server) {
            (Ok(loaded), Ok(rows)) => {
                prop_assert_eq!(loaded.records, rows, "{}", shown);
                let all = |name: &str| format!("COPY (SELECT * FROM {name} ORDER BY ctid) TO STDOUT");
                let [ours, servers] =
                    ["t", "s"].map(|name| runtime.block_on(copy_out(&session, &all(name))).escape_ascii().to_string());
                prop_assert_eq!(ours, servers, "{}", shown);
                alike.set(alike.get() + usize::from(rows > 0));
            }
            // It wants a line end behind the end mark, and one like the others.
            (Ok(_), Err(error)) => {
                let said = error.to_string() + error.as_db_error().map_or("", |error| error.message());
                prop_assert!(said.contains("end-of-copy marker"), "the server: {}: {}", said, shown);
            }
            (Err(_), Err(_)) => {}
            (Err(error), Ok(_)) => {
                let said = chain(&error);
                let known = ["behind the end mark", "ends within an escape", "does not stand alone"];
                prop_assert!(known.iter().any(|known| said.contains(known)), "{}: {}", said, shown);
            }
        }
        Ok(())
    });
    result.unwrap();
    assert!(alike.get() > 100, "{}", alike.get());
}

/// Random rows come back from the server's own files, whatever the chunks and sessions are.
#[test]
fn rows_come_back_in_both_formats() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bench = Bench::new(
        "back",
        "CREATE TABLE s (id integer, a text, b bytea, n numeric, l text[]); CREATE TABLE t (LIKE s)",
    );
    let three = RefCell::new(runtime.block_on(bench.sessions(3)));
    let text_value =
        vec(prop::char::range('\u{1}', '\u{2ff}'), 0..30).prop_map(|chars| chars.into_iter().collect::<String>());
    let row = (
        any::<i32>(),
        proptest::option::of(text_value.clone()),
        proptest::option::of(vec(any::<u8>(), 0..20)),
        proptest::option::of((any::<i64>(), any::<u32>())),
        proptest::option::of(vec(proptest::option::of(text_value), 0..4)),
    );
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    let number = Cell::new(0);
    let mut runner = TestRunner::new(config);
    let result = runner.run(&(vec(row, 1..60), 1..500_u64, 1..=3_usize), |(rows, chunk_size, count)| {
        let mut three = three.borrow_mut();
        bench.psql("TRUNCATE s");
        let insert =
            runtime.block_on(three[0].client().prepare("INSERT INTO s VALUES ($1, $2, $3, $4::text::numeric, $5)"));
        let insert = insert.unwrap();
        for (id, a, b, n, l) in &rows {
            let n = n.map(|(whole, part)| format!("{whole}.{part}"));
            runtime.block_on(three[0].client().execute(&insert, &[id, a, b, &n, l])).unwrap();
        }
        for (mut options, sql) in [(text(), "COPY s TO STDOUT"), (binary(), "COPY s TO STDOUT (FORMAT binary)")] {
            let number = next(&number);
            bench.psql("TRUNCATE t");
            let content = runtime.block_on(copy_out(&three[0], sql));
            options.chunk_size = chunk_size;
            options.max_rejects = number % 2;
            let identity = FileIdentity::new(format!("{number}"), None, content.len() as u64);
            let loaded = runtime.block_on(load(&mut three[..count], &table("t"), &identity, whole(&content), &options));
            prop_assert!(loaded.is_ok(), "{}", chain(&loaded.unwrap_err()));
            let differs =
                "SELECT count(*) FROM ((TABLE s EXCEPT ALL TABLE t) UNION ALL (TABLE t EXCEPT ALL TABLE s)) d";
            prop_assert_eq!(bench.psql(differs), "0", "{}", sql);
        }
        Ok(())
    });
    result.unwrap();
}

/// A tuple of fields.
fn tuple(fields: &[Option<&[u8]>]) -> Vec<u8> {
    let mut tuple = (fields.len() as i16).to_be_bytes().to_vec();
    for field in fields {
        match field {
            Some(value) => {
                tuple.extend_from_slice(&(value.len() as i32).to_be_bytes());
                tuple.extend_from_slice(value);
            }
            None => tuple.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
    }
    tuple
}

#[tokio::test]
async fn a_binary_file_is_whole_or_an_error() {
    let bench = Bench::new("whole", "CREATE TABLE t (id integer, a text)");
    let mut session = bench.session().await;
    let one = tuple(&[Some(&1_i32.to_be_bytes()), Some(b"a")]);
    let file = |tuples: &[&[u8]]| [&CopyBinary::HEADER[..], &tuples.concat(), &CopyBinary::TRAILER].concat();
    let good = file(&[&one, &tuple(&[None, Some(b"")])]);
    let mut with_extension = good.clone();
    with_extension.splice(11..19, *b"\0\0\0\x01\0\0\0\x03xyz");
    for content in [&good, &with_extension] {
        bench.psql("TRUNCATE t");
        assert_eq!(load_t(&mut session, content, &binary()).await.unwrap().records, 2);
        assert_eq!(bench.psql("SELECT id, a, a IS NULL FROM t ORDER BY id"), "1|a|f\n||f");
    }
    bench.psql("TRUNCATE t; DELETE FROM bulk.load");
    assert_eq!(load_t(&mut session, file(&[]), &binary()).await.unwrap().records, 0);

    let flags = |flags: u32| {
        let mut content = good.clone();
        content[11..15].copy_from_slice(&flags.to_be_bytes());
        content
    };
    let negative = tuple(&[Some(b"")])[..2].iter().copied().chain((-2_i32).to_be_bytes()).collect::<Vec<_>>();
    let long = tuple(&[Some(b"")])[..2].iter().copied().chain(1_000_i32.to_be_bytes()).collect::<Vec<_>>();
    bench.psql("DELETE FROM bulk.load");
    for (content, said) in [
        (
            b"id,a\n1,a\n".to_vec(),
            "header, byte 0: the signature of COPY's binary format is missing: the file is of another one",
        ),
        (good[..15].to_vec(), "header, byte 15: the input ends within the header: it is cut off, or of another format"),
        (flags(1 << 16), "header, byte 11: its tuples have object identifiers, which no server reads any more"),
        (flags(1 << 20), "header, byte 11: its header has flags that nobody knows: 0x00100000"),
        (good[..good.len() - 2].to_vec(), "record 3, byte 44: the input ends without the trailer: it is cut off"),
        (good[..good.len() - 5].to_vec(), "record 2, byte 41: the input ends without the trailer: it is cut off"),
        (
            good[..33].to_vec(),
            "record 1, byte 29: a value of 1 byte goes beyond the end: the file is cut off or damaged",
        ),
        ([&good[..], b"\n"].concat(), "record 3, byte 46: there is more behind the trailer"),
        (file(&[&one, &negative]), "record 2, byte 36: a value cannot have -2 bytes: the file is damaged"),
        (
            file(&[&one, &long]),
            "record 2, byte 36: a value of 1000 bytes goes beyond the end: the file is cut off or damaged",
        ),
        (file(&[&one, b"\xff\xfe"]), "record 2, byte 34: a tuple cannot have -2 fields: the file is damaged"),
        (file(&[&one, &tuple(&[None])]), "record 2, byte 34: 1 field where the header has 2"),
        (
            file(&[&tuple(&[Some(b""), Some(&[b'x'; 3000])])]),
            "record 1, byte 19: longer than 2000 bytes: the file is of another format, or damaged, or the limit is too low (--max-record)",
        ),
    ] {
        let mut options = binary();
        options.max_record = 2000;
        // A chunk of its own for each record.
        options.chunk_size = 1;
        let error = load_t(&mut session, &content, &options).await.unwrap_err();
        assert_eq!(chain(&error), format!("t.copy: {said}"));
        bench.psql("TRUNCATE t");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_the_bad_tuples_are_left_out() {
    let id = |id: i32| id.to_be_bytes();
    let bad = [
        // Too few bytes, too many, of which the server has words of its own.
        tuple(&[Some(&[1, 2]), None, None]),
        tuple(&[Some(&[0; 8]), None, None]),
        tuple(&[Some(&id(100)), None, None]),
        tuple(&[None, None, None]),
        tuple(&[Some(&id(6)), Some(b"caf\xe9"), None]),
        tuple(&[Some(&id(7)), Some(b"\0"), None]),
        tuple(&[Some(&id(8)), None, Some(b"\x02{}")]),
        tuple(&[Some(&id(9)), None, Some(b"\x01{")]),
        tuple(&[Some(&id(10)), Some(b"much too long"), None]),
        tuple(&[Some(&id(11)), None]),
        tuple(&[]),
    ];
    let (mut content, mut rejects, mut record) = (CopyBinary::HEADER.to_vec(), Vec::new(), 0);
    for (place, bad) in bad.iter().enumerate() {
        for more in 0..2 {
            record += 1;
            let id = id(100 + 2 * place as i32 + more);
            content.extend_from_slice(&tuple(&[Some(&id), Some("gööd".as_bytes()), Some(b"\x01{\"a\": 1}")]));
        }
        record += 1;
        rejects.push(format!("{record}|{}|{}", content.len(), hex(bad)));
        content.extend_from_slice(bad);
    }
    content.extend_from_slice(&CopyBinary::TRAILER);
    for (count, chunk_size) in [(1, 16 << 20), (1, 50), (3, 100), (3, 1)] {
        let bench = Bench::new("sown", "CREATE TABLE t (id integer PRIMARY KEY, a varchar(5), data jsonb)");
        let mut sessions = bench.sessions(count).await;
        let mut options = binary();
        (options.max_rejects, options.chunk_size) = (bad.len() as u64, chunk_size);
        let identity = file("t.copy", &content);
        let loaded = load(&mut sessions, &table("t"), &identity, whole(&content), &options).await;
        let loaded = loaded.map_err(|error| chain(&error)).unwrap();
        assert_eq!((loaded.records, loaded.rejected), (33, 11));
        assert_eq!(bench.psql("SELECT count(*), min(id), max(id) FROM t"), "22|100|121");
        assert_eq!(
            bench.psql("SELECT record, byte, encode(raw, 'hex') FROM bulk.reject ORDER BY record"),
            rejects.join("\n")
        );
        assert_eq!(
            bench.psql("SELECT record, \"column\", sqlstate FROM bulk.reject ORDER BY record"),
            "3|id|08P01\n6|id|22P03\n9||23505\n12|id|23502\n15|a|22021\n18|a|22021\n21|data|XX000\n24|data|22P02\n\
             27|a|22001\n30||22P04\n33||22P04"
        );
        let mut fewer = options.clone();
        fewer.max_rejects -= 1;
        bench.psql("TRUNCATE t");
        let error = load(&mut sessions, &table("t"), &identity, whole(&content), &fewer).await.unwrap_err();
        assert!(matches!(error, Error::Rejects { record: 33, .. }), "{}", chain(&error));
    }
    // Without leave to leave out, the first is named.
    let bench = Bench::new("first", "CREATE TABLE t (id integer PRIMARY KEY, a varchar(5), data jsonb)");
    let mut session = bench.session().await;
    let first = [&content[..85 + bad[0].len()], &CopyBinary::TRAILER].concat();
    let error = load_t(&mut session, &first, &binary()).await.unwrap_err();
    assert_eq!(
        chain(&error),
        "t.copy: the server refuses record 3, byte 85, column id for public.t: insufficient data left in message \
         [SQLSTATE 08P01]"
    );
    assert!(!error.is_remote());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_the_bad_lines_are_left_out() {
    let bad: [&[u8]; 9] = [
        b"x\ta\t{}",
        b"2\ta",
        b"3\ta\t{}\t",
        b"4\t\\377\t{}",
        b"5\tcaf\xe9\t{}",
        b"6\tmuch too long\t\\N",
        b"7\ta\t{\\\\",
        b"100\ta\t\\N",
        b"\\N\ta\t\\N",
    ];
    let (mut content, mut rejects, mut record) = (Vec::new(), Vec::new(), 0);
    for (place, bad) in bad.iter().enumerate() {
        for more in 0..2 {
            record += 1;
            content.extend_from_slice(format!("{}\tg\\\nd\t{{\"a\": 1}}\n", 100 + 2 * place + more).as_bytes());
        }
        record += 1;
        let line = [bad, &b"\n"[..]].concat();
        rejects.push(format!("{record}|{}|{}", content.len(), hex(&line)));
        content.extend_from_slice(&line);
    }
    for (count, chunk_size, mark) in [(1, 16 << 20, ""), (1, 50, "\\.\n"), (3, 100, ""), (3, 1, "\\.\n")] {
        let bench = Bench::new("sown", "CREATE TABLE t (id integer PRIMARY KEY, a varchar(5), data jsonb)");
        let mut sessions = bench.sessions(count).await;
        let content = [&content[..], mark.as_bytes()].concat();
        let mut options = text();
        (options.max_rejects, options.chunk_size) = (bad.len() as u64, chunk_size);
        let identity = file("t.copy", &content);
        let loaded = load(&mut sessions, &table("t"), &identity, whole(&content), &options).await;
        let loaded = loaded.map_err(|error| chain(&error)).unwrap();
        assert_eq!((loaded.records, loaded.rejected), (27, 9));
        assert_eq!(bench.psql("SELECT count(*), min(id), max(id) FROM t WHERE a = E'g\\nd'"), "18|100|117");
        assert_eq!(
            bench.psql("SELECT record, byte, encode(raw, 'hex') FROM bulk.reject ORDER BY record"),
            rejects.join("\n")
        );
        assert_eq!(
            bench.psql("SELECT record, \"column\", sqlstate FROM bulk.reject ORDER BY record"),
            "3|id|22P02\n6||22P04\n9||22P04\n12|a|22021\n15|a|22021\n18|a|22001\n21|data|22P02\n24||23505\n27|id|23502"
        );
    }
}

#[tokio::test]
async fn a_file_that_left_no_row_may_be_read_in_another_way() {
    let bench = Bench::new("anew", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    let content = b"a\t1\nb\t2\n";
    let mut wrong = text();
    wrong.max_rejects = 2;
    let loaded = load_t(&mut session, content, &wrong).await.unwrap();
    assert_eq!((loaded.records, loaded.rejected, loaded.sent), (2, 2, 0));
    let mut right = wrong.clone();
    right.header = Some(vec!["text".to_owned(), "id".to_owned()]);
    let identity = file("t.copy", content);
    assert_eq!(find_loaded(&session, &table("t"), &identity, &wrong).await.unwrap(), Some(2));
    assert_eq!(find_loaded(&session, &table("t"), &identity, &right).await.unwrap(), None);
    let loaded = load_t(&mut session, content, &right).await.unwrap();
    assert_eq!((loaded.records, loaded.rejected, loaded.sent), (2, 0, 2));
    assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), "1|a\n2|b");
    assert_eq!(bench.psql("SELECT (SELECT count(*) FROM bulk.load), (SELECT count(*) FROM bulk.reject)"), "1|0");
    // Now there are rows of it.
    let said = "t.copy: it is loaded as text, header [\"text\",\"id\"], and it is now to be read as text; read it as \
                before, or load it anew with --restart, which deletes all rows of the table";
    let error = load_t(&mut session, content, &wrong).await.unwrap_err();
    assert_eq!(chain(&error), said);
    let error = find_loaded(&session, &table("t"), &identity, &wrong).await.unwrap_err();
    assert_eq!(chain(&error), said);
}

const ROWS: usize = 20_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_goes_on_where_it_stopped_and_fills_in_what_is_missing() {
    let bench = Bench::new("source", "");
    let rows = format!("COPY (SELECT id, repeat('x', 100) || id % 10 FROM generate_series(1, {ROWS}) id) TO STDOUT");
    let source = bench.session().await;
    for (options, more, header, line) in [(text(), "", 0, 0), (binary(), " (FORMAT binary)", 19, 2 + 4 + 4 + 4 + 101)] {
        let content = copy_out(&source, &format!("{rows}{more}")).await;
        // All but the first 10,000 lines have the same length.
        let at = |record: usize| match line {
            0 => content.split_inclusive(|byte| *byte == b'\n').take(record).map(<[u8]>::len).sum::<usize>(),
            line => header + record * line,
        };
        for (count, max_rejects) in [(1, 0), (3, 0), (2, 9)] {
            let bench = Bench::new("resume", "CREATE TABLE t (id integer PRIMARY KEY, text text)");
            let mut sessions = bench.sessions(count).await;
            let mut options = options.clone();
            (options.chunk_size, options.max_rejects) = (80_000, max_rejects);
            let identity = file("t.copy", &content);
            let open = broken_after(&content, at(12_345) + 50);
            let error = load(&mut sessions, &table("t"), &identity, open, &options).await.unwrap_err();
            assert_eq!(
                chain(&error),
                format!("cannot read t.copy behind record 12345, decoded byte {}: the disk is gone", at(12_345) + 50)
            );
            let gone = "WITH c AS (DELETE FROM bulk.chunk WHERE chunk = 3 RETURNING first_record, records)
                        DELETE FROM t USING c WHERE id > first_record AND id <= first_record + records";
            bench.psql(gone);
            let there: u64 = bench.psql("SELECT count(*) FROM t").parse().unwrap();
            assert!((10_000..12_345).contains(&there), "{there}");

            let mut other = options.clone();
            other.header = Some(vec!["text".to_owned(), "id".to_owned()]);
            let open = || panic!("it was opened");
            let error = load(&mut sessions, &table("t"), &identity, open, &other).await.unwrap_err();
            let format = options.input_format;
            assert_eq!(
                chain(&error),
                format!(
                    "t.copy: a part of it is loaded as {format}, and it is now to be read as {format}, header \
                     [\"text\",\"id\"]; read it as before, or load it anew with --restart, which deletes all rows of the \
                     table"
                )
            );
            options.chunk_size = 30_000;
            let loaded = load(&mut sessions, &table("t"), &identity, whole(&content), &options).await.unwrap();
            assert_eq!((loaded.records, loaded.sent), (ROWS as u64, ROWS as u64 - there));
            assert_eq!(
                bench.psql("SELECT count(*), sum(id), bool_and(text = repeat('x', 100) || id % 10) FROM t"),
                format!("{ROWS}|{}|t", ROWS * (ROWS + 1) / 2)
            );
            let gaps = format!(
                "SELECT count(*) FILTER (WHERE first_byte <> coalesce(behind, {header})), sum(records),
                        max(first_byte + bytes)
                 FROM (SELECT *, lag(first_byte + bytes) OVER (ORDER BY first_byte) behind FROM bulk.chunk) c"
            );
            assert_eq!(bench.psql(&gaps), format!("0|{ROWS}|{}", at(ROWS)));
            assert!(count_rows(&sessions[0], &table("t")).await.unwrap().matches());
        }
    }
}
