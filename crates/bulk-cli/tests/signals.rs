//! Ctrl-C and SIGTERM: the first lets what is in hand be finished, the second does not wait.

mod support;

use std::collections::BTreeSet;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, RwLock};

use bulk_core::RunReport;
use bulk_testkit::api::{self, Answer, Asked};
use bulk_testkit::s3::{Fault, Rule, Server, Store};
use bulk_testkit::snapshot::Spec;
use rustix::process::Signal;
use support::{BUCKET, Bench, Running, asked, assert_apart, bulk, noted, server, sql, total};

/// The length of a part, and how much of it is there.
fn part(folder: &Path) -> (u64, u64) {
    std::fs::metadata(folder.join(".bulk/big.part")).map_or((0, 0), |part| (part.len(), part.blocks() * 512))
}

#[test]
fn a_fetch_keeps_every_byte_that_arrived() {
    let big: Vec<u8> = (0..12_000_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    let bucket = Server::builder().bucket(BUCKET, Store::memory().with("big", big.clone())).start().unwrap();
    let size = big.len() as u64;
    let (one, several) = ((1, &["--jobs", "1", "--segment", "1GB"][..]), (8, &["--jobs", "8"][..]));
    for (signal, (connections, jobs)) in [(Signal::INT, one), (Signal::TERM, one), (Signal::INT, several)] {
        let slow = bucket.fault(Rule::new(Fault::Bandwidth(8_000_000 / connections)));
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let command = || {
            let mut command = bulk(["fetch", &format!("s3://{BUCKET}"), "--anonymous", "--endpoint", &bucket.url()]);
            command.arg("--out").arg(&out).args(jobs);
            command
        };
        let mut running = Running::start(command());
        running.wait_until("the first two megabytes", |_| part(&out).1 >= 2 << 20);
        running.signal(signal);
        let (status, said) = running.end();
        assert_eq!(status, Some(130), "{said}");
        assert!(said.contains("stopping") && said.ends_with("run the same command again to go on\n"), "{said}");

        slow.remove();
        bucket.clear_requests();
        let (kept, length) = (noted(&out, "big"), part(&out).0);
        assert!(total(&kept) >= 1 << 20, "{kept:?}");
        assert!(command().output().unwrap().status.success());
        assert!(std::fs::read(out.join("big")).unwrap() == big);
        let (asked, sent) = asked(&bucket, "big", size);
        assert_apart(&asked, &kept);
        assert!(sent < size, "{sent} although {kept:?} were there");
        if connections == 1 {
            let only = |stretches: &[Range<u64>]| match stretches {
                [one] => one.clone(),
                others => panic!("{others:?}"),
            };
            assert_eq!(only(&kept), 0..length, "all that arrived is kept");
            assert_eq!(only(&asked), length..size);
        }
    }
}

#[test]
fn a_mirror_stops_between_chunks_and_goes_on_behind_them() {
    let (bench, made) = Bench::with(&Spec { scale: 0.4, ..Spec::default() });
    let chunks = || match bench.sql("SELECT to_regclass('bulk.chunk') IS NOT NULL").as_str() {
        "t" => bench.sql("SELECT count(*) FROM bulk.chunk").parse::<u32>().unwrap(),
        _ => 0,
    };
    let path = bench.folder.path().join("run.json");
    let mut running = Running::start(bench.command(&["--connections", "1", "--report", path.to_str().unwrap()]));
    running.wait_until("the first chunk", |_| chunks() > 0);
    running.signal(Signal::INT);
    let (status, said) = running.end();
    assert_eq!(status, Some(130), "{said}");
    assert!(!said.contains("error"), "{said}");
    let report = RunReport::parse(&std::fs::read(&path).unwrap()).unwrap();
    assert!(report.exit == 130 && report.files.iter().all(|file| file.error.is_none()), "{report}");

    let committed =
        || -> BTreeSet<String> { bench.sql("SELECT c FROM bulk.chunk c").lines().map(str::to_owned).collect() };
    let before = committed();
    assert_eq!(bench.sql("SELECT count(*) < 33 FROM bulk.load WHERE finished_at IS NOT NULL"), "t");
    bench.mirror(&[]).assert(3, &[]);
    bench.assert_holds(&made);
    // Whatever was committed stayed, and each record is in one chunk.
    assert!(before.is_subset(&committed()), "{before:?}");
    let records = "SELECT sum(records) = (SELECT sum(records) FROM bulk.load) FROM bulk.chunk";
    assert_eq!(bench.sql(records), "t");
}

#[tokio::test]
async fn a_second_signal_does_not_wait_for_what_is_in_hand() {
    let database = server().create_database("signals").unwrap();
    let (client, connection) = tokio_postgres::connect(database.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("CREATE TABLE t (id int)").await.unwrap();
    client.batch_execute("BEGIN; LOCK TABLE t IN SHARE MODE").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.csv");
    std::fs::write(&file, "id\n1\n").unwrap();
    let command = || {
        let mut command = bulk(["load", "--table", "t"]);
        command.arg(&file).env("BULK_DB", database.url());
        command
    };
    // COPY waits for the lock, and so does the chunk in hand.
    let mut running = Running::start(command());
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                   AND wait_event_type = 'Lock' AND query LIKE 'COPY%'";
    running.wait_until("the lock", |_| sql(&database, waiting) == "1");
    running.signal(Signal::INT);
    running.wait_until("the answer to the first signal", |said| said.contains("stopping"));
    assert!(running.child.try_wait().unwrap().is_none());
    running.signal(Signal::INT);
    let (status, said) = running.end();
    assert_eq!(status, Some(130), "{said}");

    client.batch_execute("COMMIT").await.unwrap();
    assert!(command().output().unwrap().status.success());
    let rows: i64 = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
    assert_eq!(rows, 1);
}

#[test]
fn a_crawl_keeps_the_answers_to_all_that_it_has_sent() {
    let database = server().create_database("signals").unwrap();
    sql(&database, "CREATE TABLE item (id int)");
    let gate = Arc::new(RwLock::new(()));
    let held = gate.clone();
    let api = api::Server::builder(move |asked: &Asked| {
        tokio::task::block_in_place(|| drop(held.read().unwrap()));
        Answer::json(serde_json::json!({"id": asked.segments()[0]}))
    });
    let api = api.start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let spec = format!(
        r#"
        [input]
        query = "SELECT n AS id FROM generate_series(1, 100) n"
        [request]
        url = "{}/{{id}}"
        [limits]
        rate = ["1000/s"]
        concurrency = 4
        [[rows]]
        table = "item"
        columns = {{ id = "$.id" }}
        "#,
        api.url()
    );
    std::fs::write(folder.path().join("job.toml"), spec).unwrap();
    let command = || {
        let mut command = bulk(["crawl", "job.toml"]);
        command.env("BULK_DB", database.url()).current_dir(folder.path());
        command
    };
    let kept = || sql(&database, "SELECT count(*) FROM bulk.call").parse::<usize>().unwrap();

    // The second signal does not wait for them.
    let closed = gate.write().unwrap();
    let mut running = Running::start(command());
    running.wait_until("four requests", |_| api.arrivals().len() == 4);
    running.signal(Signal::INT);
    running.wait_until("the answer to the first signal", |said| said.contains("stopping"));
    assert!(running.child.try_wait().unwrap().is_none());
    running.signal(Signal::TERM);
    let (status, said) = running.end();
    assert_eq!((status, kept()), (Some(130), 0), "{said}");
    drop(closed);
    // Its session may have the lock for a moment yet.
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                  AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    while sql(&database, others) != "0" {}

    api.clear();
    let closed = gate.write().unwrap();
    let mut running = Running::start(command());
    running.wait_until("four requests", |_| api.arrivals().len() == 4);
    running.signal(Signal::INT);
    running.wait_until("the answer to the signal", |said| said.contains("stopping"));
    drop(closed);
    let (status, said) = running.end();
    assert_eq!(status, Some(130), "{said}");
    assert!(said.contains("the same command goes on"), "{said}");
    let sent = api.arrivals().len();
    assert!((4..100).contains(&sent) && kept() == sent, "{} of {sent} are kept: {said}", kept());

    api.clear();
    let output = command().output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(api.arrivals().len(), 100 - sent);
    assert_eq!(sql(&database, "SELECT count(*), count(DISTINCT id) FROM item"), "100|100");
}

/// A place that the answer names may expire, so that a few pages are not worth going on behind.
#[test]
fn of_few_pages_that_lead_to_the_next_nothing_is_said_to_be_kept() {
    let database = server().create_database("signals").unwrap();
    sql(&database, "CREATE TABLE item (id int)");
    let gate = Arc::new(RwLock::new(()));
    let held = gate.clone();
    let api = api::Server::builder(move |asked: &Asked| {
        let page: u32 = asked.param("page").map_or(1, |page| page.parse().unwrap());
        if page == 3 {
            tokio::task::block_in_place(|| drop(held.read().unwrap()));
        }
        Answer::json(serde_json::json!({"id": page, "next": format!("/items?page={}", page + 1)}))
    });
    let api = api.start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let spec = format!(
        r#"
        [input]
        query = "SELECT 1 AS id"
        [request]
        url = "{}/items"
        [limits]
        rate = ["1000/s"]
        [pages]
        next = "$.next"
        [[rows]]
        table = "item"
        columns = {{ id = "$.id" }}
        "#,
        api.url()
    );
    std::fs::write(folder.path().join("job.toml"), spec).unwrap();
    let mut command = bulk(["crawl", "job.toml"]);
    command.env("BULK_DB", database.url()).current_dir(folder.path());
    let closed = gate.write().unwrap();
    let mut running = Running::start(command);
    running.wait_until("three requests", |_| api.arrivals().len() == 3);
    running.signal(Signal::INT);
    running.wait_until("the answer to the signal", |said| said.contains("stopping"));
    drop(closed);
    let (status, said) = running.end();
    assert_eq!((status, api.arrivals().len()), (Some(130), 3), "{said}");
    assert!(said.contains("but for a few pages of a record whose next one is told by a link or a cursor"), "{said}");
    assert!(said.contains("3 requests in ") && said.contains("0 calls with 0 rows"), "{said}");
    assert_eq!(sql(&database, "SELECT (SELECT count(*) FROM item), (SELECT count(*) FROM bulk.call)"), "0|0");
}
