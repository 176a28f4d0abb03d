//! Chunks that are committed together: the same rows and marks as one by one, in fewer transactions.

mod support;

use std::time::Duration;

use bulk_pg::{CopyFormat, Error, LoadOptions, load};
use support::{Bench, HEADER, LINE, chain, file, gated, load_t, numbered, table, whole};

const ROWS: usize = 20_000;
const TABLE: &str = "CREATE TABLE t (id integer, text text)";
/// Nothing that is loaded here takes so long.
const ALL: Duration = Duration::from_secs(3600);

/// Of 1,000 records a chunk.
fn options(every: Duration) -> LoadOptions {
    let mut options = LoadOptions::default();
    (options.chunk_size, options.commit_every) = ((1000 * LINE) as u64, every);
    options
}

/// In how many transactions the rows came.
fn transactions(bench: &Bench) -> u64 {
    bench.psql("SELECT count(DISTINCT xmin::text) FROM t").parse().unwrap()
}

/// That the table holds the records of [`numbered`], each once, and that the marks are of each once, 1,000 a chunk.
#[track_caller]
fn assert_whole(bench: &Bench) {
    let rows = bench.psql("SELECT count(*), count(DISTINCT id), min(id), max(id) FROM t");
    assert_eq!(rows, format!("{ROWS}|{ROWS}|1|{ROWS}"));
    let chunks = "SELECT count(*), bool_and(first_record = chunk * 1000 AND records = 1000
                                            AND first_byte = 8 + first_record * 120 AND bytes = 120000) FROM bulk.chunk";
    assert_eq!(bench.psql(chunks), "20|t");
    assert_eq!(bench.psql("SELECT records, finished_at IS NOT NULL FROM bulk.load"), format!("{ROWS}|t"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_are_committed_together_where_that_makes_nobody_wait() {
    let csv = numbered(ROWS);
    let key = "CREATE TABLE t (id integer PRIMARY KEY, text text)";
    let trigger = "CREATE TABLE t (id integer, text text);
                   CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
                   CREATE TRIGGER nothing BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION nothing()";
    for (create, count, every, expected) in [
        (TABLE, 1, ALL, 1..=1),
        (TABLE, 3, ALL, 1..=3),
        (key, 1, ALL, 1..=1),
        (TABLE, 1, Duration::ZERO, 20..=20),
        (TABLE, 1, Duration::from_nanos(1), 20..=20),
        (TABLE, 1, Duration::MAX, 1..=1),
        (key, 3, ALL, 20..=20),
        (trigger, 3, ALL, 20..=20),
    ] {
        let bench = Bench::new("together", create);
        let mut sessions = bench.sessions(count).await;
        let loaded =
            load(&mut sessions, &table("t"), &file("t.csv", &csv), whole(&csv), &options(every)).await.unwrap();
        assert_eq!((loaded.records, loaded.sent, loaded.bytes), (20_000, 20_000, (ROWS * LINE) as u64));
        assert_whole(&bench);
        let transactions = transactions(&bench);
        assert!(expected.contains(&transactions), "{transactions} transactions of {count} sessions: {create}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_whose_records_may_be_left_out_or_are_hashed_are_committed_one_by_one() {
    let csv = numbered(ROWS);
    for (max_rejects, hash_content) in [(1, false), (0, true)] {
        let bench = Bench::new("alone", TABLE);
        let mut options = options(ALL);
        (options.max_rejects, options.hash_content) = (max_rejects, hash_content);
        load_t(&mut bench.session().await, &csv, &options).await.unwrap();
        assert_whole(&bench);
        assert_eq!(transactions(&bench), 20);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_is_committed_while_the_file_goes_no_further() {
    let csv = numbered(ROWS);
    let bench = Bench::new("stalls", TABLE);
    let mut session = bench.session().await;
    // All that the dialect is told from, and some of what the reader asks for behind it.
    let (input, gate) = gated(&csv, HEADER + 12_010 * LINE);
    let (target, identity, options) = (table("t"), file("t.csv", &csv), options(Duration::from_millis(50)));
    let sessions = std::slice::from_mut(&mut session);
    let load = load(sessions, &target, &identity, input, &options);
    let opened = async {
        // The chunks that are whole within the first MiB. The next one is begun with a piece of its rows, and none has come.
        let looker = bench.session().await;
        loop {
            let rows = looker.client().query_one("SELECT count(*) FROM t", &[]).await.unwrap().get::<_, i64>(0);
            assert_eq!(rows % 1000, 0);
            if rows >= 8000 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(gate);
    };
    let (loaded, ()) = tokio::join!(load, opened);
    assert_eq!(loaded.unwrap().records, 20_000);
    assert_whole(&bench);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_refused_is_named_and_takes_the_group_with_it() {
    // In the sixteenth chunk.
    let mut csv = numbered(ROWS);
    let at = HEADER + 15_432 * LINE;
    csv[at..at + 8].copy_from_slice(b"99999999");
    for (count, format) in [(1, CopyFormat::Auto), (3, CopyFormat::Auto), (1, CopyFormat::Text)] {
        let bench = Bench::new("refused", "CREATE TABLE t (id integer CHECK (id < 90000000), text text)");
        let mut sessions = bench.sessions(count).await;
        let mut options = options(ALL);
        options.format = format;
        let (target, identity) = (table("t"), file("t.csv", &csv));
        let error = load(&mut sessions, &target, &identity, whole(&csv), &options).await.unwrap_err();
        let expected = format!("t.csv: the server refuses record 15433, byte {at} for public.t: new row for relation");
        assert!(chain(&error).starts_with(&expected), "{}", chain(&error));
        let Error::Copy { first, last, offset, .. } = error else { panic!("{error}") };
        assert_eq!((first, last, offset), (15_433, 15_433, Some(at as u64)));
        let (rows, marked) = (bench.psql("SELECT count(*) FROM t"), "SELECT coalesce(sum(records), 0) FROM bulk.chunk");
        assert_eq!(rows, bench.psql(marked));
        assert!(count > 1 || rows == "0");

        // All that is not in a mark is loaded by the next one.
        options.max_rejects = 1;
        let loaded = load(&mut sessions, &target, &identity, whole(&csv), &options).await.unwrap();
        assert_eq!((loaded.records, loaded.rejected), (20_000, 1));
        assert_eq!(bench.psql("SELECT count(*), count(DISTINCT id), sum(id) FROM t"), {
            format!("19999|19999|{}", ROWS * (ROWS + 1) / 2 - 15_433)
        });
    }
}
