//! Tables that are filled in one transaction with frozen rows.

mod support;

use std::slice::from_mut;

use bulk_pg::{ContentVerdict, Error, InputFormat, LoadOptions, Verification, Verifier, count_rows, load};
use support::{Bench, broken_after, chain, file, table, whole};

const DDL: &str = "CREATE TABLE t (id integer PRIMARY KEY, note text) WITH (autovacuum_enabled = off)";

fn csv(records: u32) -> Vec<u8> {
    let mut csv = b"id,note\n".to_vec();
    (0..records).for_each(|id| csv.extend(format!("{id},{id:>50}\n").bytes()));
    csv
}

/// Chunks of which a file has several, over several sessions.
fn options() -> LoadOptions {
    let mut options = LoadOptions::default();
    options.freeze = true;
    options.chunk_size = 64 << 10;
    options
}

/// An index-only scan looks up in the table what is not known to be visible to all; from version 14 on, rows that are
/// copied frozen are.
fn looks_into_table(bench: &Bench) -> bool {
    let plan = bench.psql(
        "SET enable_seqscan = off; SET enable_bitmapscan = off; EXPLAIN (ANALYZE, COSTS off) SELECT id FROM t WHERE id >= 0",
    );
    assert!(plan.contains("Heap Fetches: "), "{plan}");
    !plan.contains("Heap Fetches: 0")
}

#[tokio::test]
async fn rows_are_frozen_and_all_of_them_are_there() {
    let csv = csv(20_000);
    for format in ["csv", "json", "hashed"] {
        let bench = Bench::new("freeze", DDL);
        let mut sessions = [bench.session().await, bench.session().await];
        let mut options = options();
        let lines = |id: u32| format!("{{\"id\": {id}, \"note\": \"{id:>50}\"}}\n");
        let content = match format {
            "json" => {
                options.input_format = InputFormat::Ndjson;
                (0..20_000).map(lines).collect::<String>().into_bytes()
            }
            _ => csv.clone(),
        };
        options.hash_content = format == "hashed";
        let before = bench.psql("SELECT pg_relation_filenode('t')");
        let identity = file("t", &content);
        let loaded = load(&mut sessions, &table("t"), &identity, whole(&content), &options).await.unwrap();
        assert_eq!((loaded.records, loaded.sent), (20_000, 20_000));
        assert_eq!(bench.psql("SELECT count(*), sum(id), count(DISTINCT note) FROM t"), "20000|199990000|20000");
        assert_ne!(bench.psql("SELECT pg_relation_filenode('t')"), before);
        let chunks: u32 = bench.psql("SELECT count(*) FROM bulk.chunk").parse().unwrap();
        assert!(chunks > 10, "{chunks}");
        let version: u32 = bench.psql("SHOW server_version_num").parse().unwrap();
        assert!(version < 140_000 || !looks_into_table(&bench));
        if options.hash_content {
            let verified = Verifier::new(Verification::Full).verify(&sessions[0], &table("t")).await.unwrap();
            assert!(matches!(verified.content, Some(ContentVerdict::Same { .. })), "{verified:?}");
        }

        // It is not loaded twice, and nothing more is emptied.
        let again = load(&mut sessions, &table("t"), &identity, whole(&content), &options).await.unwrap();
        assert_eq!((again.records, again.sent), (20_000, 0));
        assert!(count_rows(&sessions[0], &table("t")).await.unwrap().matches());
    }
    // What is not frozen is told from it.
    let bench = Bench::new("thawed", DDL);
    let mut session = bench.session().await;
    load(from_mut(&mut session), &table("t"), &file("t", &csv), whole(&csv), &LoadOptions::default()).await.unwrap();
    assert!(looks_into_table(&bench));
}

#[tokio::test]
async fn all_or_nothing_is_there() {
    let bench = Bench::new("nothing", DDL);
    let mut session = bench.session().await;
    let mut bad = csv(20_000);
    bad.extend(b"x,y\n");
    let identity = file("t", &bad);
    let error = load(from_mut(&mut session), &table("t"), &identity, whole(&bad), &options()).await.unwrap_err();
    assert!(matches!(error, Error::Value { record: 20_001, .. } | Error::Copy { .. }), "{}", chain(&error));
    let nothing = "SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM bulk.chunk)";
    assert_eq!(bench.psql(nothing), "0|0");
    let broken = broken_after(&bad, 1 << 20);
    load(from_mut(&mut session), &table("t"), &identity, broken, &options()).await.unwrap_err();
    assert_eq!(bench.psql(nothing), "0|0");

    // A duplicate key, and a key that is checked at the end.
    bench.psql("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED");
    let mut twice = csv(20_000);
    twice.extend(b"7,again\n");
    let error = load(from_mut(&mut session), &table("t"), &file("t", &twice), whole(&twice), &options()).await;
    assert!(chain(&error.unwrap_err()).contains("duplicate key value"));
    assert_eq!(bench.psql(nothing), "0|0");

    // What was committed without it stays, and the rest comes without it.
    let good = csv(20_000);
    let mut thawed = options();
    thawed.freeze = false;
    let identity = file("t", &good);
    load(from_mut(&mut session), &table("t"), &identity, broken_after(&good, 1 << 20), &thawed).await.unwrap_err();
    let part: u64 = bench.psql("SELECT count(*) FROM t").parse().unwrap();
    assert!((1..20_000).contains(&part), "{part}");
    let loaded = load(from_mut(&mut session), &table("t"), &identity, whole(&good), &options()).await.unwrap();
    assert_eq!((loaded.records, loaded.sent), (20_000, 20_000 - part));
    assert_eq!(bench.psql("SELECT count(*), count(DISTINCT id) FROM t"), "20000|20000");
}

#[tokio::test]
async fn what_stands_in_the_way_is_said() {
    let bench = Bench::new("refused", DDL);
    let mut session = bench.session().await;
    let csv = csv(10);
    let mut options = options();
    options.append = true;
    bench.psql("INSERT INTO t VALUES (-1, 'mine')");
    let mut load_it = async |options: &LoadOptions| {
        let loaded = load(from_mut(&mut session), &table("t"), &file("t", &csv), whole(&csv), options).await;
        chain(&loaded.unwrap_err())
    };
    let error = load_it(&options).await;
    assert!(error.contains("has rows, and only an empty table is filled with frozen ones"), "{error}");
    assert_eq!(bench.psql("TABLE t"), "-1|mine");
    options.max_rejects = 1;
    let error = load_it(&options).await;
    assert!(error.contains("cannot be frozen where records may be left out"), "{error}");

    options.max_rejects = 0;
    bench.psql("TRUNCATE t; CREATE TABLE refers (id integer REFERENCES t)");
    let error = load_it(&options).await;
    assert!(error.contains("is referred to by foreign keys, so that it cannot be filled with frozen rows"), "{error}");
}
