//! A load of a whole file: what arrives in the table, and what is told of it.

mod support;

use bulk_pg::{Certainty, Dialect, LoadOptions, Quoting, count_rows, load};
use std::pin::pin;
use std::slice::from_mut;
use support::{Bench, HEADER, LINE, Log, chain, file, gated, load_t, numbered, table, whole};

#[tokio::test]
async fn a_file_is_loaded_whole_and_told_of_as_it_happens() {
    let bench = Bench::new("load", "CREATE TABLE t (id integer PRIMARY KEY, text text)");
    let mut session = bench.session().await;
    let csv = b"id,text\n1,one\n2,\n3,\"\"\n4,\"say \"\"hi\"\", ok\"\n";
    let mut options = LoadOptions::default();
    options.chunk_size = 12;
    let log = Log::default();
    log.observe(&mut options);
    let loaded = load_t(&mut session, csv, &options).await.unwrap();
    assert_eq!((loaded.records, loaded.sent, loaded.bytes), (4, 4, csv.len() as u64 - 8));
    let verdict = loaded.verdict.unwrap();
    assert_eq!((verdict.dialect, verdict.certainty), (Dialect::A, Certainty::Proven));
    assert_eq!(
        log.lines(),
        [
            "t.csv into public.t: A Proven (4 records, 2 quoted values, 2 doubled quotes; not D (record 1, byte 8: a \
             value is not quoted)); ; behind 0",
            "t.csv into public.t: 3 in 14",
            "t.csv into public.t: 1 in 19",
            "t.csv into public.t: all 4",
        ]
    );
    assert_eq!(
        bench.psql("SELECT id, text, text IS NULL FROM t ORDER BY id"),
        "1|one|f\n2||t\n3||f\n4|say \"hi\", ok|f"
    );
    assert_eq!(
        bench.psql("SELECT chunk, first_record, records, first_byte, bytes FROM bulk.chunk ORDER BY 1"),
        "0|0|3|8|14\n1|3|1|22|19"
    );
    let count = count_rows(&session, &table("t")).await.unwrap();
    assert_eq!((count.rows, count.records, count.matches()), (4, 4, true));
}

#[tokio::test]
async fn a_second_load_sends_nothing_and_does_not_open_the_file() {
    let bench = Bench::new("again", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    let csv = numbered(1000);
    load_t(&mut session, &csv, &LoadOptions::default()).await.unwrap();
    let identity = file("t.csv", &csv);
    let open = || panic!("it was opened");
    let loaded = load(from_mut(&mut session), &table("t"), &identity, open, &LoadOptions::default()).await.unwrap();
    assert_eq!((loaded.records, loaded.sent, loaded.bytes, loaded.verdict), (1000, 0, 0, None));
    assert_eq!(bench.psql("SELECT count(*), count(DISTINCT id) FROM t"), "1000|1000");
}

/// The samples were written by PostgreSQL; here it reads them back by itself, too.
#[tokio::test]
async fn values_of_every_dialect_arrive_as_the_server_reads_them() {
    use futures::SinkExt;
    const COLUMNS: &str = "(id int, a text, b text, flag boolean, ts timestamptz, d date, f float8)";
    let csv_options = [
        (Dialect::A, "QUOTE '\"'"),
        (Dialect::B, "QUOTE '\"'"),
        (Dialect::C, "QUOTE '`'"),
        (Dialect::D, r#"QUOTE '"', ESCAPE '\'"#),
    ];
    for (dialect, csv_options) in csv_options {
        let bench = Bench::new("dialects", &format!("CREATE TABLE t {COLUMNS}; CREATE TABLE theirs {COLUMNS}"));
        let mut session = bench.session().await;
        let path = format!("{}/tests/data/dialects/{}.csv", env!("CARGO_MANIFEST_DIR"), dialect.name());
        let csv = std::fs::read(path).unwrap();
        for chunk_size in [0, 1 << 20] {
            bench.psql("TRUNCATE t");
            let mut options = LoadOptions::default();
            options.chunk_size = chunk_size;
            let loaded = load_t(&mut session, &csv, &options).await.unwrap();
            assert_eq!((loaded.records, loaded.verdict.unwrap().dialect), (7, dialect));
            let statement = format!("COPY theirs FROM STDIN (FORMAT csv, HEADER, {csv_options})");
            bench.psql("TRUNCATE theirs");
            let sink = session.client().copy_in::<_, bytes::Bytes>(&statement).await.unwrap();
            let mut sink = std::pin::pin!(sink);
            sink.send(csv.clone().into()).await.unwrap();
            assert_eq!(sink.finish().await.unwrap(), 7);
            let rows = |name| bench.psql(&format!("COPY (SELECT * FROM {name} ORDER BY id) TO STDOUT"));
            assert_eq!(rows("t"), rows("theirs"), "{dialect}");
            assert_eq!(rows("t").lines().count(), 7);
        }
    }
}

#[tokio::test]
async fn a_dialect_of_ones_own_is_read_as_it_is_named() {
    let bench = Bench::new("custom", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    let mut options = LoadOptions::default();
    options.dialect = Some(Dialect::new(b';', b'\'', b'~', Quoting::AsNeeded).unwrap());
    load_t(&mut session, b"id;text\n1;'a;~'b~~'\n2;\"c\"\n", &options).await.unwrap();
    assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), "1|a;'b~\n2|\"c\"");
    assert_eq!(bench.psql("SELECT dialect FROM bulk.load"), "custom ;'~ as needed");
}

#[tokio::test]
async fn a_likely_dialect_is_told_with_what_it_rests_on() {
    let bench = Bench::new("likely", "CREATE TABLE t (id integer, path text)");
    let mut session = bench.session().await;
    // Dialect B as it writes \\server, or dialect D as it writes \server.
    let csv = b"id,path\n\"1\",\"\\\\server\"\n";
    let mut options = LoadOptions::default();
    let log = Log::default();
    log.observe(&mut options);
    let verdict = load_t(&mut session, csv, &options).await.unwrap().verdict.unwrap();
    assert_eq!((verdict.dialect, verdict.certainty), (Dialect::D, Certainty::Likely));
    let evidence = "1 record, 2 backslashes inside quotes, all in pairs, and no quotes inside quotes; D reads a pair as \
                    one, B would keep both";
    assert_eq!(verdict.evidence, evidence);
    assert_eq!(log.lines()[0], format!("t.csv into public.t: D Likely ({evidence}); ; behind 0"));
    assert_eq!(bench.psql("SELECT path FROM t"), "\\server");
    // Who knows better says so.
    bench.psql("TRUNCATE t");
    options.dialect = Some(Dialect::B);
    let verdict = load_t(&mut session, csv, &options).await.unwrap().verdict.unwrap();
    assert_eq!((verdict.dialect, verdict.certainty), (Dialect::B, Certainty::Hinted));
    assert_eq!(bench.psql("SELECT path FROM t"), "\\\\server");
}

#[tokio::test]
async fn columns_meet_by_name_whatever_the_name() {
    let ddl = r#"
        CREATE SCHEMA "My ""Schema""";
        CREATE TABLE "My ""Schema"""."T; DROP TABLE x" (
            id integer NOT NULL, "we""ird ; DROP" text, "Größe, in m" numeric, plain text DEFAULT 'there',
            serial integer GENERATED ALWAYS AS IDENTITY, twice integer GENERATED ALWAYS AS (id * 2) STORED,
            gone text);
        ALTER TABLE "My ""Schema"""."T; DROP TABLE x" DROP COLUMN gone"#;
    let bench = Bench::new("names", ddl);
    let mut session = bench.session().await;
    let csv = "\"Größe, in m\",more,\"we\"\"ird ; DROP\",twice,id\n0.5,x,it's,7,1\n,y,\"a\tb\",8,2\n";
    let target = table(r#""My ""Schema"""."T; DROP TABLE x""#);
    let identity = file("odd ; name.csv", csv.as_bytes());
    let loaded =
        load(from_mut(&mut session), &target, &identity, whole(csv.as_bytes()), &LoadOptions::default()).await.unwrap();
    assert_eq!(
        loaded.drift.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "column plain is not in the file and is left to its default",
            "column serial is not in the file and is left to its default",
            "column twice is generated by the server; the file's values are not used",
            "the columns stand in another order in the file; they are matched by name",
            "column more of the file is not in the table and is not loaded",
        ]
    );
    assert_eq!(bench.psql(&format!("SELECT * FROM {target} ORDER BY id")), "1|it's|0.5|there|1|2\n2|a\tb||there|2|4");
    assert!(count_rows(&session, &target).await.unwrap().matches());
}

#[tokio::test]
async fn a_required_column_that_the_file_lacks_needs_a_value() {
    let bench = Bench::new("fill", "CREATE TABLE t (id integer NOT NULL, \"a path\" text NOT NULL, note text)");
    let mut session = bench.session().await;
    let csv = b"id\n1\n2\n";
    let mut options = LoadOptions::default();
    let error = load_t(&mut session, csv, &options).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "t.csv: it has no column for a path (text) of public.t, which may not be NULL and has no default; give every \
         row a value with --fill 't.a path=VALUE'"
    );
    assert_eq!(bench.psql("SELECT count(*) FROM t"), "0");
    for (column, value) in [("a path", "x\ty\\."), ("note", ""), ("nowhere", "1")] {
        options.fill.insert(column.to_owned(), value.to_owned());
    }
    let loaded = load_t(&mut session, csv, &options).await.unwrap();
    assert_eq!(bench.psql("SELECT *, note IS NULL FROM t ORDER BY id"), "1|x\ty\\.||f\n2|x\ty\\.||f");
    assert_eq!(
        loaded.drift.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "column a path is not in the file; every row gets \"x\\ty\\\\.\"",
            "column note is not in the file; every row gets \"\"",
            "a value is given for the column nowhere, which public.t does not have; it is not used",
        ]
    );
}

#[tokio::test]
async fn a_header_alone_loads_no_rows_once() {
    for csv in [&b"id,text\n"[..], b"id,text", b"\xef\xbb\xbfid,text\r\n"] {
        let bench = Bench::new("header", "CREATE TABLE t (id integer, text text)");
        let mut session = bench.session().await;
        let loaded = load_t(&mut session, csv, &LoadOptions::default()).await.unwrap();
        assert_eq!((loaded.records, loaded.sent, loaded.bytes), (0, 0, 0));
        let loaded = load_t(&mut session, csv, &LoadOptions::default()).await.unwrap();
        assert_eq!((loaded.records, loaded.verdict), (0, None));
        assert_eq!(bench.psql("SELECT records, finished_at IS NOT NULL FROM bulk.load"), "0|t");
    }
}

#[tokio::test]
async fn rows_that_end_within_a_message_arrive_whole() {
    let bench = Bench::new("long", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    // Longer than several messages, between short ones, with what takes two bytes in COPY.
    let long = "é\t\\ \n".repeat(400_000);
    let csv = format!("id,text\n1,x\n2,\"{long}\"\n3,\"{long}\"\n4,y\n");
    let loaded = load_t(&mut session, csv.as_bytes(), &LoadOptions::default()).await.unwrap();
    assert_eq!(loaded.records, 4);
    assert_eq!(
        bench.psql("SELECT id, length(text), text = repeat(E'é\\t\\\\ \\n', 400000) FROM t ORDER BY id"),
        "1|1|f\n2|2000000|t\n3|2000000|t\n4|1|f"
    );
}

#[tokio::test]
async fn rows_of_somebody_else_are_left_alone_unless_asked() {
    let bench = Bench::new("append", "CREATE TABLE t (id integer, text text); INSERT INTO t VALUES (0, 'theirs')");
    let mut session = bench.session().await;
    let mut options = LoadOptions::default();
    let error = load_t(&mut session, b"id,text\n1,a\n", &options).await.unwrap_err();
    assert_eq!(
        chain(&error),
        "table public.t has rows that this program did not load; --restart deletes them, --append of bulk load adds to \
         them"
    );
    options.append = true;
    load_t(&mut session, b"id,text\n1,a\n", &options).await.unwrap();
    let second = b"id,text\n2,b\n";
    let identity = file("second.csv", second);
    let refused =
        load(from_mut(&mut session), &table("t"), &identity, whole(second), &LoadOptions::default()).await.unwrap_err();
    assert_eq!(
        chain(&refused),
        "table public.t holds the rows of t.csv; load it anew with --restart, which deletes all \
         rows of the table; --append of bulk load adds to them"
    );
    load(from_mut(&mut session), &table("t"), &identity, whole(second), &options).await.unwrap();
    assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), "0|theirs\n1|a\n2|b");
    let count = count_rows(&session, &table("t")).await.unwrap();
    assert_eq!((count.rows, count.records), (3, 2));
}

#[tokio::test]
async fn a_partitioned_table_is_loaded_through_its_parent() {
    let bench = Bench::new(
        "partitions",
        "CREATE TABLE t (id integer, text text) PARTITION BY RANGE (id);
         CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (10);
         CREATE TABLE high PARTITION OF t FOR VALUES FROM (10) TO (100)",
    );
    let mut session = bench.session().await;
    load_t(&mut session, b"id,text\n1,a\n11,b\n", &LoadOptions::default()).await.unwrap();
    assert_eq!(bench.psql("SELECT (SELECT text FROM low), (SELECT text FROM high)"), "a|b");
}

/// A source may pause for longer than an administrator lets sessions be idle, and transactions last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_outs_that_a_database_is_set_up_with_end_no_load() {
    let csv = numbered(20_000);
    let bench = Bench::new("timeouts", "CREATE TABLE t (id integer, text text)");
    let watcher = bench.session().await;
    let database = bench.psql("SELECT current_database()");
    let known = bench.psql(
        "SELECT name FROM pg_settings WHERE name ~
             '^(statement|lock|transaction|idle_session|idle_in_transaction_session)_timeout$'",
    );
    assert!(known.lines().count() >= 3, "{known}");
    for name in known.lines() {
        let alter = format!("ALTER DATABASE \"{database}\" SET {name} = '300ms'");
        watcher.client().batch_execute(&alter).await.unwrap();
    }

    let mut options = LoadOptions::default();
    options.chunk_size = (6000 * LINE) as u64;
    let mut sessions = bench.sessions(2).await;
    // Two chunks are committed in the meantime, and a part of the third is sent.
    let (input, gate) = gated(&csv, HEADER + 16_000 * LINE);
    let (target, identity) = (table("t"), file("t.csv", &csv));
    let mut loading = pin!(load(&mut sessions, &target, &identity, input, &options));
    // Also when they are gone.
    let idle = "SELECT (SELECT count(*) FROM bulk.chunk) = 2 AND
                       count(*) FILTER (WHERE clock_timestamp() - state_change < '900ms') = 0
                FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'bulk' AND pid <> pg_backend_pid()";
    let are_idle = async {
        while !watcher.client().query_one(idle, &[]).await.unwrap().get::<_, bool>(0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        ended = &mut loading => panic!("{ended:?}"),
        () = are_idle => {}
    }
    drop(gate);
    let loaded = loading.await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!((loaded.records, loaded.sent), (20_000, 20_000));
    watcher.client().batch_execute(&format!("ALTER DATABASE \"{database}\" RESET ALL")).await.unwrap();
    assert_eq!(bench.psql("SELECT count(*), count(DISTINCT id) FROM t"), "20000|20000");
}
