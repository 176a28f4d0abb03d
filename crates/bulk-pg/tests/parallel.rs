//! Loads over several sessions: the same rows and marks as over one, whatever is committed first.

mod support;

use std::collections::BTreeMap;
use std::slice::from_mut;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulk_pg::{CopyFormat, Error, Event, LoadOptions, WorkerState, load};
use support::{Bench, HEADER, LINE, broken_after, chain, file, numbered, table, whole};

const ROWS: usize = 20_000;

fn options(lines: usize) -> LoadOptions {
    let mut options = LoadOptions::default();
    options.chunk_size = (lines * LINE) as u64;
    options
}

/// That the table holds the records of [`numbered`], each once, and the marks speak of each once.
fn assert_whole(bench: &Bench) {
    assert_eq!(
        bench.psql("SELECT count(*), count(DISTINCT id), min(id), max(id), bool_and(length(text) = 110) FROM t"),
        format!("{ROWS}|{ROWS}|1|{ROWS}|t")
    );
    let gaps = "SELECT count(*) FILTER (WHERE first_byte <> coalesce(behind, 8)), sum(records), max(first_byte + bytes)
                FROM (SELECT *, lag(first_byte + bytes) OVER (ORDER BY first_byte) behind FROM bulk.chunk) c";
    assert_eq!(bench.psql(gaps), format!("0|{ROWS}|{}", HEADER + ROWS * LINE));
    assert_eq!(bench.psql("SELECT records, finished_at IS NOT NULL FROM bulk.load"), format!("{ROWS}|t"));
}

/// Makes the insertion of these ids wait for the advisory lock 7.
fn hold(bench: &Bench, ids: &str) {
    bench.psql(&format!(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NEW; END $$;
         CREATE TRIGGER hold BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.id IN ({ids})) EXECUTE FUNCTION hold()"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_number_of_sessions_gives_the_same_chunks() {
    let csv = numbered(ROWS);
    let mut first: Option<String> = None;
    for count in [1, 2, 4, 7] {
        let bench = Bench::new("sessions", "CREATE TABLE t (id integer, text text)");
        let mut sessions = bench.sessions(count).await;
        let loaded = load(&mut sessions, &table("t"), &file("t.csv", &csv), whole(&csv), &options(700)).await.unwrap();
        assert_eq!((loaded.records, loaded.sent, loaded.bytes), (20_000, 20_000, (ROWS * LINE) as u64));
        assert_whole(&bench);
        let chunks = bench.psql(
            "SELECT string_agg(concat_ws(' ', chunk, first_record, records, first_byte, bytes), ',' ORDER BY chunk)
             FROM bulk.chunk",
        );
        assert_eq!(*first.get_or_insert(chunks.clone()), chunks);
    }
}

/// What is kept of chunks until they are committed is bounded for all sessions together, whatever the size of a chunk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_end_early_where_more_of_them_would_be_kept() {
    const MIB: u64 = 1 << 20;
    let wide = {
        let mut csv = b"id,text\n".to_vec();
        (0..12_000).for_each(|id| csv.extend(format!("{id},{:x<1000}\n", "").bytes()));
        csv
    };
    let narrow = "id\n".to_owned() + &"1\n".repeat(600_000);
    let tolerant = |options: &mut LoadOptions| options.max_rejects = 1;
    let hashed = |options: &mut LoadOptions| options.hash_content = true;
    let hashed_as_text = |options: &mut LoadOptions| {
        (options.hash_content, options.format) = (true, CopyFormat::Text);
    };
    let nothing = |_: &mut LoadOptions| {};
    let grouped = |options: &mut LoadOptions| options.commit_every = Duration::from_secs(3600);
    let all = wide.len() as u64 - 8;
    type Range = (u64, u64);
    type Case<'a> = (&'a str, &'a [u8], usize, fn(&mut LoadOptions), Range, Range);
    let cases: [Case<'_>; 8] = [
        ("wide", &wide, 8, nothing, (all, all), (12_000, 12_000)),
        ("tolerant", &wide, 1, tolerant, (all, all), (12_000, 12_000)),
        // An eighth of what all of them may keep, and the piece of rows with which that is found out.
        ("tolerant", &wide, 8, tolerant, (3 * MIB, 5 * MIB), (0, 12_000)),
        ("hashed", &wide, 8, hashed, (all, all), (12_000, 12_000)),
        ("hashed", &wide, 8, hashed_as_text, (3 * MIB, 5 * MIB), (0, 12_000)),
        ("narrow", narrow.as_bytes(), 1, nothing, (1_200_000, 1_200_000), (600_000, 600_000)),
        ("narrow", narrow.as_bytes(), 8, nothing, (MIB, MIB), (512 << 10, 512 << 10)),
        ("narrow", narrow.as_bytes(), 8, grouped, (MIB, MIB), (512 << 10, 512 << 10)),
    ];
    for (name, csv, count, set, bytes, records) in cases {
        let bench = Bench::new("kept", "CREATE TABLE t (id integer, text text)");
        let mut sessions = bench.sessions(count).await;
        let mut options = LoadOptions::default();
        set(&mut options);
        let loaded = load(&mut sessions, &table("t"), &file("t.csv", csv), whole(csv), &options).await.unwrap();
        assert_eq!(bench.psql("SELECT count(*) FROM t"), loaded.records.to_string(), "{name} over {count}");
        let longest = bench.psql("SELECT max(bytes), max(records) FROM bulk.chunk");
        let longest: Vec<u64> = longest.split('|').map(|number| number.parse().unwrap()).collect();
        assert!((bytes.0..=bytes.1).contains(&longest[0]), "{name} over {count}: {longest:?}");
        assert!((records.0..=records.1).contains(&longest[1]), "{name} over {count}: {longest:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gaps_that_an_interrupted_load_left_are_filled_in() {
    let csv = numbered(ROWS);
    let bench = Bench::new("gaps", "CREATE TABLE t (id integer, text text)");
    // In the first chunk of 1,000 lines, and in the thirteenth.
    hold(&bench, "900, 12001");
    let holder = bench.session().await;
    holder.client().batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
    let mut three = bench.sessions(3).await;
    let (target, identity) = (table("t"), file("t.csv", &csv));
    let options_of_1000 = options(1000);
    {
        let load = load(&mut three, &target, &identity, whole(&csv), &options_of_1000);
        let rest_is_there = async {
            while bench.psql("SELECT count(*) FROM bulk.chunk") != "18" {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            ended = load => panic!("{ended:?}"),
            () = rest_is_there => {}
        }
    }
    holder.client().batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
    // Each session can be used.
    for session in &three {
        session.client().batch_execute("SELECT 1").await.unwrap();
    }
    assert_eq!(bench.psql("SELECT count(*) FROM t WHERE id <= 1000 OR id BETWEEN 12001 AND 13000"), "0");
    // Smaller chunks, so that the gaps need several; and the input breaks off within the second gap.
    let mut two = bench.sessions(2).await;
    let open = broken_after(&csv, HEADER + 12_500 * LINE + 5);
    let error = load(&mut two, &target, &identity, open, &options(300)).await.unwrap_err();
    assert_eq!(chain(&error), "cannot read t.csv behind record 12500, decoded byte 1500013: the disk is gone");
    assert_eq!(bench.psql("SELECT count(*) FROM t"), "19300");
    let loaded = load(&mut two, &target, &identity, whole(&csv), &options(300)).await.unwrap();
    assert_eq!((loaded.records, loaded.sent), (20_000, 700));
    assert_whole(&bench);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_whose_records_lie_elsewhere_is_not_put_into_a_gap() {
    let csv = numbered(ROWS);
    let bench = Bench::new("elsewhere", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    let (target, identity) = (table("t"), file("t.csv", &csv));
    let open = broken_after(&csv, HEADER + 15_000 * LINE);
    load(from_mut(&mut session), &target, &identity, open, &options(1000)).await.unwrap_err();
    bench.psql("DELETE FROM bulk.chunk WHERE chunk = 3; DELETE FROM t WHERE id BETWEEN 3001 AND 4000");
    // As long, and one line of the gap is now two.
    let mut other = csv.clone();
    other[HEADER + 3500 * LINE + 60..][..7].copy_from_slice(b"\n99999,");
    let error = load(from_mut(&mut session), &target, &identity, whole(&other), &options(1000)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "t.csv: its record 4002 starts at byte 480008, and what is loaded of it has record 4001 at byte 480008: it is \
         not the same file; load it anew with --restart, which deletes all rows of the table"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loader_that_lost_its_lock_commits_nothing_after_another_has_begun() {
    let csv = numbered(ROWS);
    let bench = Bench::new("fence", "CREATE TABLE t (id integer, text text)");
    hold(&bench, "900");
    let holder = bench.session().await;
    holder.client().batch_execute("SELECT pg_advisory_lock(7)").await.unwrap();
    let mut two = bench.sessions(2).await;
    let (target, identity) = (table("t"), file("t.csv", &csv));
    let options = options(ROWS);
    let load = load(&mut two, &target, &identity, whole(&csv), &options);
    let another = async {
        bench.waits("query LIKE 'COPY%'").await;
        // What another loader does when it has the table's lock.
        bench.psql("UPDATE bulk.load SET attempt = attempt + 1");
        holder.client().batch_execute("SELECT pg_advisory_unlock(7)").await.unwrap();
    };
    let (loaded, ()) = tokio::join!(load, another);
    let error = loaded.unwrap_err();
    assert!(matches!(error, Error::Occupied { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "table public.t is loaded from t.csv by another session by now, or was emptied or altered"
    );
    assert_eq!(bench.psql("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM bulk.chunk)"), "0|0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_a_lost_loader_is_about_to_commit_is_waited_for() {
    let csv = numbered(ROWS);
    let bench = Bench::new("straggler", "CREATE TABLE t (id integer, text text)");
    let mut two = bench.sessions(2).await;
    let (target, identity) = (table("t"), file("t.csv", &csv));
    // It leaves its row in the ledger, and no chunk.
    load(&mut two, &target, &identity, broken_after(&csv, HEADER + 10), &options(1000)).await.unwrap_err();
    let straggler = bench.session().await;
    let chunk = format!(
        "BEGIN;
         INSERT INTO t SELECT id, rpad('', 110, 'x') FROM generate_series(1, 1000) id;
         INSERT INTO bulk.chunk (load_id, chunk, first_record, records, first_byte, bytes, guarded)
         SELECT id, 0, 0, 1000, {HEADER}, {}, false FROM bulk.load FOR SHARE",
        1000 * LINE
    );
    straggler.client().batch_execute(&chunk).await.unwrap();
    let options = options(1000);
    let load = load(&mut two, &target, &identity, whole(&csv), &options);
    let commit = async {
        bench.waits("query LIKE '%bulk.load%'").await;
        straggler.client().batch_execute("COMMIT").await.unwrap();
    };
    let (loaded, ()) = tokio::join!(load, commit);
    assert_eq!(loaded.unwrap().sent, ROWS as u64 - 1000);
    assert_whole(&bench);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_altered_meanwhile_gets_nothing() {
    let csv = numbered(ROWS);
    let bench = Arc::new(Bench::new("altered", "CREATE TABLE t (id bigint, text text)"));
    let mut two = bench.sessions(2).await;
    // Eight bytes stand for another number then.
    let (altering, input) = (bench.clone(), whole(&csv));
    let open = move || {
        altering.psql("ALTER TABLE t ALTER id TYPE double precision");
        input()
    };
    let error = load(&mut two, &table("t"), &file("t.csv", &csv), open, &options(1000)).await.unwrap_err();
    assert!(error.to_string().ends_with("or was emptied or altered"), "{error}");
    assert_eq!(bench.psql("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM bulk.chunk)"), "0|0");
    let loaded = load(&mut two, &table("t"), &file("t.csv", &csv), whole(&csv), &options(1000)).await.unwrap();
    assert_eq!(loaded.sent, ROWS as u64);
    assert_whole(&bench);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_refer_to_rows_of_chunks_before_them_are_no_failure() {
    let lines: String = (1..=ROWS).map(|id| format!("{id},{}\n", (id - 1).max(1))).collect();
    let csv = format!("id,parent\n{lines}").into_bytes();
    let schema = "CREATE TABLE t (id integer PRIMARY KEY, parent integer REFERENCES t DEFERRABLE INITIALLY DEFERRED)";
    let bench = Bench::new("itself", schema);
    let mut four = bench.sessions(4).await;
    let mut options = LoadOptions::default();
    options.chunk_size = 2000;
    let loaded = load(&mut four, &table("t"), &file("t.csv", &csv), whole(&csv), &options).await.unwrap();
    assert_eq!(loaded.sent, ROWS as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_of_several_failures_is_told() {
    let mut csv = numbered(ROWS);
    for id in [2500, 7500, 12_500] {
        csv[HEADER + (id - 1) * LINE] = b'x';
    }
    let bench = Bench::new("several", "CREATE TABLE t (id integer, text text)");
    let mut four = bench.sessions(4).await;
    let error = load(&mut four, &table("t"), &file("t.csv", &csv), whole(&csv), &options(5000)).await.unwrap_err();
    assert!(chain(&error).contains("record 2500, byte 299888, column id"), "{}", chain(&error));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_can_be_a_task() {
    let csv = numbered(ROWS);
    let bench = Bench::new("task", "CREATE TABLE t (id integer, text text)");
    let mut sessions = bench.sessions(2).await;
    let (target, identity) = (table("t"), file("t.csv", &csv));
    let task = tokio::spawn(async move {
        let open = whole(&csv);
        load(&mut sessions, &target, &identity, open, &options(700)).await.map(|loaded| loaded.sent)
    });
    assert_eq!(task.await.unwrap().unwrap(), ROWS as u64);
    assert_whole(&bench);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_worker_says_what_it_does_from_its_begin_to_its_end() {
    type Said = BTreeMap<(String, usize), (Vec<WorkerState>, u64)>;
    let csv = numbered(ROWS);
    let bench = Bench::new("workers", "CREATE TABLE t (id integer, text text)");
    let mut sessions = bench.sessions(2).await;
    let said = Arc::new(Mutex::new(Said::new()));
    let mut options = options(700);
    let heard = said.clone();
    options.observer = Arc::new(move |event: &Event<'_>| {
        let mut heard = heard.lock().unwrap();
        match event {
            Event::Worker { file, stage, worker, state } => {
                assert_eq!(*file, "t.csv");
                heard.entry((format!("{stage:?}"), *worker)).or_default().0.push(*state);
            }
            Event::Gave { stage, worker, bytes, .. } => {
                heard.entry((format!("{stage:?}"), *worker)).or_default().1 += bytes;
            }
            _ => {}
        }
    });
    load(&mut sessions, &table("t"), &file("t.csv", &csv), whole(&csv), &options).await.unwrap();
    drop(options);
    let said = Arc::into_inner(said).expect("nobody says more").into_inner().unwrap();
    let workers: Vec<_> = said.keys().map(|(stage, worker)| (stage.as_str(), *worker)).collect();
    assert_eq!(workers, [("Copy", 0), ("Copy", 1), ("Encode", 0)]);
    for (worker, (states, _)) in &said {
        use WorkerState::{Ends, WaitsForInput, WaitsForOutput, WaitsForServer, Works};
        assert_eq!((states.first(), states.last()), (Some(&Works), Some(&Ends)), "{worker:?}");
        let ends = states.iter().filter(|state| **state == Ends).count();
        let other = if worker.0 == "Copy" { WaitsForServer } else { WaitsForOutput };
        assert_eq!((ends, states.contains(&WaitsForInput)), (1, true), "{worker:?}");
        // A session that was given nothing had no use for the server.
        assert!(states.contains(&other) || said[worker].1 == 0, "{worker:?}");
    }
    // Rows of 4 + 110 bytes, two lengths of 4 and a count of 2, all of which are handed on once and sent once.
    let given: Vec<u64> = said.values().map(|(_, bytes)| *bytes).collect();
    assert_eq!((given[0] + given[1], given[2]), (ROWS as u64 * 124, ROWS as u64 * 124));
}
