//! Runs that are ended anywhere.

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulk_pg::{CrawlJob, CrawlLoad, CrawlLoadOptions, CrawlMode, CrawlOutcome, Error, Event, QuarantinedCall, Session};
use serde_json::json;

use crate::support::Bench;
use crate::{begin, call, job, lenient, session};

/// Makes all calls that are not done, of ten rows each: some of them bad, some failing the first time.
async fn run(url: &str, job: &CrawlJob, options: CrawlLoadOptions, made: impl Fn(&str)) -> Result<CrawlOutcome, Error> {
    let mut load = CrawlLoad::begin(Session::connect(url).await?, job, options).await?;
    let keys: Vec<String> = (0..20).map(|number| format!("GET /{number}")).collect();
    let done = load.done(&keys.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let quarantined: Vec<String> = load.quarantined(None, 100).await?.into_iter().map(|call| call.key).collect();
    for (number, key) in keys.iter().enumerate().filter(|(number, _)| !done[*number]) {
        if number % 7 == 3 && !quarantined.contains(key) {
            load.quarantine(QuarantinedCall::new(key.as_str(), "the first time")).await?;
            continue;
        }
        made(key);
        let rows: Vec<_> =
            (0..10).map(|row| if row == number { [json!("bad")] } else { [json!(number * 10 + row)] }).collect();
        call(&mut load, key, &rows).await?;
    }
    load.finish().await
}

fn expected() -> String {
    let ids = (0..20).flat_map(|number| (0..10).filter(move |row| *row != number).map(move |row| number * 10 + row));
    ids.map(|id| id.to_string()).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_cut_anywhere_is_gone_on_with() {
    for mode in [CrawlMode::Append, CrawlMode::Upsert, CrawlMode::Replace] {
        let bench = Arc::new(Bench::new("crawl", "CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (-1)"));
        if mode != CrawlMode::Replace {
            bench.psql("TRUNCATE t");
        }
        let job = job("t", &["id"], mode);
        let made = Mutex::new(Vec::new());
        let mut cuts = 0;
        // Cut behind the first commit of each run, until one has no more.
        let outcome = loop {
            let mut options = lenient();
            (options.batch_bytes, options.batch_time) = (2000, Duration::from_secs(600));
            let (observed, is_cut) = (Arc::clone(&bench), Arc::new(Mutex::new(false)));
            let cut = Arc::clone(&is_cut);
            options.observer = Arc::new(move |event: &Event<'_>| {
                if let Event::Called { .. } = event
                    && !std::mem::replace(&mut *cut.lock().unwrap(), true)
                {
                    observed.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()");
                }
            });
            let note = |key: &str| made.lock().unwrap().push(key.to_owned());
            match run(bench.database.url(), &job, options, note).await {
                Ok(outcome) if outcome.is_complete => break outcome,
                Ok(_) => {}
                Err(_) => cuts += 1,
            }
            // What is committed is there, and nothing else of it is made again.
            let committed = bench.psql("SELECT key FROM bulk.call");
            made.lock().unwrap().retain(|key| committed.lines().any(|line| line == key));
            let old = if mode == CrawlMode::Replace { "-1" } else { "" };
            if !old.is_empty() {
                assert_eq!(bench.psql("SELECT * FROM t"), old);
            }
        };
        assert!(cuts > 5, "{cuts}");
        assert_eq!((outcome.calls, outcome.rows, outcome.rejected, outcome.quarantined), (20, 190, 10, 0));
        let mut made = made.into_inner().unwrap();
        made.sort();
        let count = made.len();
        made.dedup();
        assert_eq!((made.len(), count), (20, 20));
        assert_eq!(bench.psql("SELECT id FROM t ORDER BY id"), expected());
        assert_eq!(bench.psql("SELECT count(*) FROM bulk.call_reject"), "10");
    }
}

/// The database that a program is to crawl into, and the file of the calls that it makes.
const URL: &str = "BULK_TEST_CRAWL_URL";

const MADE: &str = "BULK_TEST_CRAWL_MADE";

/// The program that is killed, and a crawl like others where nobody kills it.
#[tokio::test]
async fn a_program_crawls() {
    let own = std::env::var(URL).is_err().then(|| Bench::new("crawl", "CREATE TABLE t (id integer PRIMARY KEY)"));
    let url = own.as_ref().map_or_else(|| std::env::var(URL).unwrap(), |bench| bench.database.url().to_owned());
    let made = std::env::var(MADE).ok().map(|path| File::options().create(true).append(true).open(path).unwrap());
    let mut options = lenient();
    options.batch_bytes = 0;
    let note = |key: &str| made.iter().for_each(|mut made| writeln!(made, "{key}").unwrap());
    let job = job("t", &["id"], CrawlMode::Append);
    while !run(&url, &job, options.clone(), note).await.unwrap().is_complete {}
    if let Some(bench) = own {
        assert_eq!(bench.psql("SELECT id FROM t ORDER BY id"), expected());
    }
}

#[test]
fn a_program_that_is_killed_repeats_no_committed_call() {
    let slow = "CREATE TABLE t (id integer PRIMARY KEY);
                CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END';
                CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION slow()";
    let bench = Bench::new("crawl", slow);
    let folder = tempfile::tempdir().unwrap();
    let committed = || {
        let has_begun = bench.psql("SELECT to_regclass('bulk.call') IS NOT NULL") == "t";
        let keys = if has_begun { bench.psql("SELECT key FROM bulk.call") } else { String::new() };
        keys.lines().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let mut kills = 0;
    loop {
        let before = committed();
        let path = folder.path().join(kills.to_string());
        let mut program = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cut::a_program_crawls"])
            .envs([(URL, bench.database.url()), (MADE, path.to_str().unwrap())])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let ended = loop {
            if let Some(status) = program.try_wait().unwrap() {
                assert!(status.success());
                break true;
            }
            if committed().len() > before.len() + 2 {
                program.kill().unwrap();
                program.wait().unwrap();
                break false;
            }
        };
        let made = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(made.lines().find(|key| before.iter().any(|known| known == key)), None);
        // What is there is what the marks say, at every moment.
        let is_so = "SELECT (SELECT count(*) FROM t) = (SELECT sum(rows) FROM bulk.call)";
        assert_eq!(bench.psql(is_so), "t");
        if ended {
            break;
        }
        kills += 1;
    }
    assert!(kills > 1, "{kills}");
    assert_eq!(bench.psql("SELECT id FROM t ORDER BY id"), expected());
    let counts = "SELECT (SELECT count(*) FROM bulk.call_reject), (SELECT count(*) FROM bulk.quarantine)";
    assert_eq!(bench.psql(counts), "10|0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_within_a_commit_leaves_nothing_of_it() {
    let bench = Bench::new("crawl", "CREATE TABLE t (id integer PRIMARY KEY)");
    let job = job("t", &["id"], CrawlMode::Append);
    let mut small = lenient();
    small.batch_bytes = 0;
    let mut load = begin(&bench, &job, small.clone()).await;
    call(&mut load, "first", &[[json!(0)]]).await.unwrap();
    load.suspend().await.unwrap();
    for place in ["t", "bulk.call_reject", "bulk.call", "bulk.quarantine"] {
        let mut holder = session(&bench).await;
        let hold = holder.client_mut().transaction().await.unwrap();
        let mut load = begin(&bench, &job, small.clone()).await;
        hold.batch_execute(&format!("LOCK TABLE {place} IN SHARE ROW EXCLUSIVE MODE")).await.unwrap();
        call(&mut load, "next", &[[json!(1)], [json!("x")]]).await.unwrap();
        let pid = loop {
            let found = bench.psql(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
            );
            if !found.is_empty() {
                break found;
            }
        };
        bench.psql(&format!("SELECT pg_terminate_backend({pid})"));
        let error = load.finish().await.unwrap_err();
        assert!(error.is_remote(), "{error:?}");
        hold.rollback().await.unwrap();
        let state = "SELECT * FROM t; SELECT key FROM bulk.call; SELECT count(*) FROM bulk.call_reject";
        assert_eq!(bench.psql(state), "0\nfirst\n0", "{place}");
    }
    // Dropped, the load keeps nothing of what was not committed either.
    let mut load = begin(&bench, &job, lenient()).await;
    call(&mut load, "next", &[[json!(1)]]).await.unwrap();
    drop(load);
    let mut load = begin(&bench, &job, lenient()).await;
    assert_eq!(load.done(&["first", "next"]).await.unwrap(), [true, false]);
    call(&mut load, "next", &[[json!(1)], [json!("x")]]).await.unwrap();
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.calls, outcome.rows, outcome.rejected), (2, 2, 1));
}
