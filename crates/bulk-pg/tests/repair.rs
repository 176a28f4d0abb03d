//! Text that PostgreSQL cannot hold, repaired on its way: exactly the values that need it, and no border of a record.

mod support;

use std::slice::from_mut;
use std::sync::{Arc, Mutex};

use bulk_pg::{CopyFormat, Dialect, Error, Event, LoadOptions, Loaded, load, restart, write_rejects};
use support::{Bench, chain, file, load_t, table, whole};

fn repairing() -> LoadOptions {
    let mut options = LoadOptions::default();
    options.repair = true;
    options
}

fn assert_counted(bench: &Bench, loaded: &Loaded) {
    let counts = format!("{}|{}|{}", loaded.records, loaded.rejected, loaded.repaired);
    assert_eq!(bench.psql("SELECT records, rejected, repaired FROM bulk.load WHERE finished_at IS NOT NULL"), counts);
    assert_eq!(bench.psql("SELECT sum(records), sum(rejected), sum(repaired) FROM bulk.chunk"), counts);
}

#[tokio::test]
async fn values_are_repaired_as_the_standard_library_has_it() {
    for (dialect, csv) in [
        (Dialect::CSV, &b"id,a,b\n1,good,\n2,\0,x\0y\n3,caf\xe9,\"\xc3\0\xa9,\"\"\0\"\"\n\xf0\x9f\"\n4\0,,\"\0\"\n5,\xed\xa0\x80,\xc3\xa9\n"[..]),
        (Dialect::D, b"id,a,b\n\"1\",\"good\",\n\"2\",\"\0\",\"x\0y\"\n\"3\",\"caf\xe9\",\"\xc3\0\xa9,\\\"\0\\\"\n\xf0\x9f\"\n\"4\0\",,\"\0\"\n\"5\",\"\xed\xa0\x80\",\"\xc3\xa9\"\n"),
        (Dialect::C, b"id,a,b\n`1`,`good`,\n`2`,`\0`,`x\0y`\n`3`,`caf\xe9`,`\xc3\0\xa9,\"\0\"\n\xf0\x9f`\n`4\0`,,`\0`\n`5`,`\xed\xa0\x80`,`\xc3\xa9`\n"),
    ] {
        for format in [CopyFormat::Auto, CopyFormat::Text] {
            let bench = Bench::new("values", "CREATE TABLE t (id integer, a text, b text)");
            let mut session = bench.session().await;
            let named = Arc::new(Mutex::new(Vec::new()));
            let mut options = repairing();
            (options.dialect, options.format) = (Some(dialect), format);
            let list = named.clone();
            options.observer = Arc::new(move |event: &Event<'_>| {
                if let Event::Repaired { file, record, byte, column, .. } = event {
                    assert_eq!(*file, "t.csv");
                    list.lock().unwrap().push((*record, *byte as usize, column.unwrap().to_owned()));
                }
            });
            let loaded = load_t(&mut session, csv, &options).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
            assert_eq!((loaded.records, loaded.sent, loaded.repaired, loaded.rejected), (5, 5, 4, 0));
            assert_counted(&bench, &loaded);
            let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
            let expected = [
                format!("1|{}|NULL", hex("good")),
                format!("2||{}", hex("xy")),
                format!("3|{}|{}", hex("caf\u{fffd}"), hex("\u{fffd}\u{fffd},\"\"\n\u{fffd}")),
                "4|NULL|".to_owned(),
                format!("5|{}|{}", hex("\u{fffd}\u{fffd}\u{fffd}"), hex("é")),
            ];
            let rows = bench.psql(
                "SELECT id, coalesce(encode(convert_to(a, 'UTF8'), 'hex'), 'NULL'),
                        coalesce(encode(convert_to(b, 'UTF8'), 'hex'), 'NULL') FROM t ORDER BY id",
            );
            assert_eq!(rows, expected.join("\n"), "{dialect}");
            let named = named.lock().unwrap();
            let columns: Vec<_> = named.iter().map(|(record, _, column)| (*record, column.as_str())).collect();
            assert_eq!(columns, [(2, "a"), (3, "a"), (4, "id"), (5, "a")]);
            let bytes: Vec<_> = named.iter().map(|(_, byte, _)| csv[*byte]).collect();
            assert_eq!(bytes, [0, 0xe9, 0, 0xed]);
        }
    }
}

#[tokio::test]
async fn what_is_bad_for_another_reason_stays_bad() {
    let bench = Bench::new("bad", "CREATE TABLE t (id integer, a text)");
    let mut session = bench.session().await;
    for (csv, error) in [
        (
            &b"id,a\n1,x\nx\0y,y\n"[..],
            "t.csv: record 2, byte 9, column id: invalid input syntax for type integer: \"xy\" [SQLSTATE 22P02]",
        ),
        (
            b"id,a\n1,x\nx\xff,y\n",
            "t.csv: the server refuses record 2, byte 9, column id for public.t: invalid input syntax for type integer: \
             \"x\u{fffd}\" [SQLSTATE 22P02]",
        ),
        (b"id,a\n1,x\n2,\0,\n", "t.csv: record 2, byte 9: 3 fields where the header has 2"),
    ] {
        let failed = load_t(&mut session, csv, &repairing()).await.unwrap_err();
        assert_eq!(chain(&failed), error);
    }
    load_t(&mut session, b"id,a\0\n1,x\n", &repairing()).await.unwrap_err();
    // Without a word it is an error as ever.
    let failed = load_t(&mut session, b"id,a\n1,x\0y\n", &LoadOptions::default()).await.unwrap_err();
    assert_eq!(
        chain(&failed),
        "t.csv: record 1, byte 8, column \"a\": a NUL byte, which text in PostgreSQL cannot hold"
    );
    // Each byte becomes three, and the record would be too long.
    let mut short = repairing();
    short.max_record = 20;
    let failed = load_t(&mut session, b"id,a\n1,\xff\xff\xff\xff\xff\xff\xff\n", &short).await.unwrap_err();
    assert!(matches!(failed, Error::Record { .. }), "{}", chain(&failed));
    assert_eq!(bench.psql("SELECT count(*) FROM t"), "0");
    load_t(&mut session, b"id,a\n1,\xff\xff\xff\xff\xff\xff\n", &short).await.unwrap();
    assert_eq!(bench.psql("SELECT length(a) FROM t"), "6");
}

/// A file of which the records that need a repair, and those that are refused, are known.
struct Sown {
    csv: Vec<u8>,
    records: u64,
    rows: Vec<String>,
    repaired: u64,
    bad: Vec<(u64, Vec<u8>)>,
}

impl Sown {
    fn new(random: &mut fastrand::Rng, records: u64, rate: u64) -> Self {
        let mut sown = Self { csv: b"id,note\n".to_vec(), records, rows: vec![], repaired: 0, bad: vec![] };
        let mut ids: Vec<u64> = Vec::new();
        for number in 1..=records {
            let (note, read, is_repaired) = match random.u64(..1000) {
                n if n >= rate => (format!("note {number}").into_bytes(), format!("note {number}"), false),
                n if n % 3 == 0 => (b"\"line\n\0\xff\"".to_vec(), "line\\n\u{fffd}".to_owned(), true),
                n if n % 3 == 1 => (b"\0".to_vec(), String::new(), true),
                _ => (b"\"caf\xe9 \"\"quoted\"\"\"".to_vec(), "caf\u{fffd} \"quoted\"".to_owned(), true),
            };
            let mut id = number.to_string();
            let is_bad = match random.u8(..50) {
                0 => {
                    id = "x".to_owned();
                    true
                }
                1 if !ids.is_empty() => {
                    id = ids[random.usize(..ids.len())].to_string();
                    true
                }
                _ => false,
            };
            let start = sown.csv.len();
            sown.csv.extend_from_slice(&[id.as_bytes(), &note].join(&b','));
            sown.csv.push(b'\n');
            if is_bad {
                sown.bad.push((number, sown.csv[start..].to_vec()));
            } else {
                ids.push(number);
                sown.rows.push(format!("{number}\t{read}"));
                sown.repaired += u64::from(is_repaired);
            }
        }
        sown
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repaired_records_and_rejects_stand_beside_each_other() {
    let bench = Bench::new("sown", "CREATE TABLE t (id integer PRIMARY KEY, note text)");
    let mut three = bench.sessions(3).await;
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for (rate, format) in
        [(0, CopyFormat::Auto), (30, CopyFormat::Auto), (30, CopyFormat::Text), (1000, CopyFormat::Auto)]
    {
        for count in [1, 3] {
            let sown = Sown::new(&mut random, 2000, rate);
            let what = format!("seed {seed}, {rate}, {count} sessions");
            restart(&mut three[0], &[table("t")]).await.unwrap();
            let identity = file("t.csv", &sown.csv);
            let mut options = repairing();
            (options.max_rejects, options.chunk_size, options.format) = (u64::MAX, 5000, format);
            // Stopped behind the first chunk, whichever that is.
            let (mut stopped, named) = (options.clone(), Arc::new(Mutex::new(0)));
            stopped.stop = tokio_util::sync::CancellationToken::new();
            let (stop, count_of_named) = (stopped.stop.clone(), named.clone());
            stopped.observer = Arc::new(move |event: &Event<'_>| match event {
                Event::Committed { .. } => stop.cancel(),
                Event::Repaired { .. } => *count_of_named.lock().unwrap() += 1,
                _ => {}
            });
            let stopped = load(&mut three[..count], &table("t"), &identity, whole(&sown.csv), &stopped).await;
            assert!(matches!(stopped, Err(Error::Stopped { .. })), "{what}: {stopped:?}");
            assert!(*named.lock().unwrap() <= 10);
            let loaded = load(&mut three[..count], &table("t"), &identity, whole(&sown.csv), &options).await;
            let loaded = loaded.unwrap_or_else(|error| panic!("{what}: {}", chain(&error)));
            assert_eq!(
                (loaded.records, loaded.rejected, loaded.repaired),
                (sown.records, sown.bad.len() as u64, sown.repaired),
                "{what}"
            );
            assert_counted(&bench, &loaded);
            let rows = bench.psql("COPY (SELECT * FROM t ORDER BY id) TO STDOUT");
            // psql's answer comes without the white space at its end.
            assert!(rows == sown.rows.join("\n").trim_end(), "{what}");
            // What is left out is as it stands in the file, whatever was repaired before it was refused.
            let (mut raw, mut lines) = (Vec::new(), Vec::new());
            write_rejects(&three[0], &table("t"), &identity, &mut raw, &mut lines).await.unwrap();
            assert!(raw == sown.bad.iter().flat_map(|(_, raw)| raw.clone()).collect::<Vec<_>>(), "{what}");
            let records =
                bench.psql("SELECT coalesce(string_agg(record::text, ' ' ORDER BY record), '') FROM bulk.reject");
            assert_eq!(records, sown.bad.iter().map(|(record, _)| record.to_string()).collect::<Vec<_>>().join(" "));
        }
    }
}

#[tokio::test]
async fn ten_repairs_are_named_and_all_are_counted() {
    let bench = Bench::new("named", "CREATE TABLE t (id integer, note text)");
    let mut session = bench.session().await;
    let mut csv = b"id,note\n".to_vec();
    for id in 1..=100 {
        csv.extend_from_slice(format!("{id},a\0b\n").as_bytes());
    }
    let named = Arc::new(Mutex::new(Vec::new()));
    let mut options = repairing();
    let list = named.clone();
    options.observer = Arc::new(move |event: &Event<'_>| {
        if let Event::Repaired { record, .. } = event {
            list.lock().unwrap().push(*record);
        }
    });
    let loaded = load_t(&mut session, &csv, &options).await.unwrap();
    assert_eq!(loaded.repaired, 100);
    assert_eq!(*named.lock().unwrap(), (1..=10).collect::<Vec<u64>>());
    assert_eq!(bench.psql("SELECT count(*), min(note), max(note) FROM t"), "100|ab|ab");
}

#[tokio::test]
async fn conditions_look_at_the_values_of_the_file() {
    let bench = Bench::new("filter", "CREATE TABLE t (id integer, note text)");
    let csv = b"id,note\n1,a\0\n2,a\n3,caf\xe9\n4,\xff\0\n5,\n";
    for (filter, repair, rejects, rows) in [
        ("note=a", true, 0, Ok("2")),
        // Of records that are not wanted nothing is asked.
        ("note=a", false, 0, Ok("2")),
        ("note!=a", true, 0, Ok("1 3 4")),
        ("note!=a", true, 5, Ok("1 3 4")),
        ("id=3|5", true, 0, Ok("3 5")),
        ("id!=3", false, 5, Ok("2 5")),
        ("id!=1", false, 0, Err("record 3, byte 22, column \"note\": invalid UTF-8")),
    ] {
        let mut session = bench.session().await;
        restart(&mut session, &[table("t")]).await.unwrap();
        let mut options = LoadOptions::default();
        options.filter.push(filter.parse().unwrap());
        (options.repair, options.max_rejects) = (repair, rejects);
        let loaded = load(from_mut(&mut session), &table("t"), &file("t.csv", csv), whole(csv), &options).await;
        let found = loaded.map(|_| bench.psql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM t"));
        let found = found.map_err(|error| chain(&error));
        assert_eq!(found, rows.map(str::to_owned).map_err(|error| format!("t.csv: {error}")), "{filter}");
    }
}
