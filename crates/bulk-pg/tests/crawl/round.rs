//! Runs of one round, what they leave, and who may go on with it.

use bulk_pg::{CrawlLoad, CrawlMode, QuarantinedCall};
use serde_json::json;

use crate::support::{Bench, table};
use crate::{OLD, begin, call, call_two, job, lenient, options, parse, session, two};

#[tokio::test]
async fn a_round_is_gone_on_with_by_the_same_job_alone() {
    let bench = Bench::new("crawl", "CREATE TABLE t (id integer); CREATE TABLE u (id integer)");
    let job = job("t", &["id"], CrawlMode::Append);
    let mut load = begin(&bench, &job, options()).await;
    assert_eq!(load.done(&["a"]).await.unwrap(), [false]);
    call(&mut load, "a", &[[json!(1)]]).await.unwrap();

    let error = CrawlLoad::begin(session(&bench).await, &job, options()).await.unwrap_err();
    assert_eq!(error.to_string(), "another run of the crawl stats is under way; wait for it, or stop it");
    let mut other = job.clone();
    other.name = "other".to_owned();
    other.tables[0].table = table("u");
    let mut beside = begin(&bench, &other, options()).await;
    assert_eq!(beside.done(&["a"]).await.unwrap(), [false]);
    beside.suspend().await.unwrap();

    let outcome = load.suspend().await.unwrap();
    assert_eq!((outcome.is_complete, outcome.calls), (false, 1));
    let mut changed = job.clone();
    changed.definition = "otherwise".to_owned();
    let error = CrawlLoad::begin(session(&bench).await, &changed, options()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the crawl stats: a round of it is open that was begun by another definition of its calls, rows or tables; finish it as it was, or begin anew with --restart"
    );
    let mut load = begin(&bench, &job, options()).await;
    assert_eq!(load.done(&["b", "a"]).await.unwrap(), [false, true]);
    call(&mut load, "a", &[[json!(1)]]).await.unwrap();
    let error = load.finish().await.unwrap_err();
    assert_eq!(error.to_string(), "the crawl stats: a is committed already; its rows are not taken twice");
    let load = begin(&bench, &job, options()).await;
    assert_eq!(load.finish().await.unwrap().rows, 1);
    assert_eq!(bench.psql("SELECT * FROM t"), "1");

    // Once it is finished, all is to be done again, by whatever definition.
    let mut load = begin(&bench, &changed, options()).await;
    assert_eq!(load.done(&["a"]).await.unwrap(), [false]);
    call(&mut load, "a", &[[json!(2)]]).await.unwrap();
    load.suspend().await.unwrap();
    let mut anew = options();
    anew.restart = true;
    let mut load = begin(&bench, &job, anew).await;
    assert_eq!(load.done(&["a"]).await.unwrap(), [false]);
    load.finish().await.unwrap();
}

#[tokio::test]
async fn a_call_in_quarantine_keeps_the_round_open_and_the_watermark_where_it_is() {
    let bench = Bench::new("crawl", "CREATE TABLE t (id integer)");
    let job = job("t", &["id"], CrawlMode::Append);
    let with = |watermark: &str| {
        let mut options = options();
        options.next_watermark = Some(watermark.to_owned());
        options
    };
    let mut load = begin(&bench, &job, with("monday")).await;
    assert_eq!(load.watermark(), None);
    call(&mut load, "a", &[[json!(1)]]).await.unwrap();
    let mut failed = QuarantinedCall::new("b\0", "503 \0 of the server");
    (failed.inputs, failed.request) = (vec![json!({"id": parse("1.10")})], json!({"url": "https://example.org/b"}));
    (failed.response, failed.attempts) = (Some("oh\0".to_owned()), 5);
    load.quarantine(failed.clone()).await.unwrap();
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.is_complete, outcome.quarantined, outcome.watermark), (false, 1, None));

    let mut load = begin(&bench, &job, with("tuesday")).await;
    assert_eq!(load.done(&["a", "b\0"]).await.unwrap(), [true, false]);
    load.quarantine(failed.clone()).await.unwrap();
    let found = load.quarantined(None, 10).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].key.as_str(), found[0].reason.as_str()), ("b\\0", "503 \\0 of the server"));
    assert_eq!((found[0].response.as_deref(), found[0].attempts), (Some("oh\\0"), 10));
    assert_eq!((&found[0].inputs, &found[0].request), (&failed.inputs, &failed.request));
    assert_eq!(load.quarantined(Some("b\\0"), 10).await.unwrap(), []);
    call(&mut load, "b\0", &[[json!(2)]]).await.unwrap();
    assert_eq!(load.quarantined(None, 10).await.unwrap(), []);
    // Of the moment before the round's first call.
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.is_complete, outcome.quarantined, outcome.watermark.as_deref()), (true, 0, Some("monday")));
    assert_eq!(bench.psql("SELECT id FROM t ORDER BY 1; SELECT count(*) FROM bulk.quarantine"), "1\n2\n0");

    let mut some = with("wednesday");
    some.max_quarantined = 1;
    let mut load = begin(&bench, &job, some).await;
    assert_eq!(load.watermark(), Some("monday"));
    load.quarantine(QuarantinedCall::new("c", "gone")).await.unwrap();
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.is_complete, outcome.quarantined, outcome.watermark.as_deref()), (true, 1, Some("monday")));
    let mut load = begin(&bench, &job, with("thursday")).await;
    // The next round asks for all again.
    assert_eq!(load.quarantined(None, 1).await.unwrap(), []);
    drop(load);

    // Another definition has other rows: what has not changed lacks them, too.
    let mut other = job.clone();
    other.definition = "more columns".to_owned();
    assert_eq!(begin(&bench, &other, with("friday")).await.watermark(), None);
}

#[tokio::test]
async fn a_part_of_a_call_that_failed_is_made_by_itself() {
    let bench = Bench::new("crawl", "CREATE TABLE t (id integer)");
    let job = job("t", &["id"], CrawlMode::Append);
    let mut load = begin(&bench, &job, options()).await;
    let mut batch = load.call("GET /?ids=1,2");
    assert!(batch.row(0, [Some(&json!(1))]).unwrap());
    let mut part = QuarantinedCall::new("GET /?ids=2", "not in the answer");
    part.inputs = vec![json!({"id": 2})];
    batch.quarantine(part).unwrap();
    batch.finish().await.unwrap();
    assert!(!load.finish().await.unwrap().is_complete);
    assert_eq!(bench.psql("SELECT key FROM bulk.call; SELECT key FROM bulk.quarantine"), "GET /?ids=1,2\nGET /?ids=2");

    let mut load = begin(&bench, &job, options()).await;
    let marks = load.marks();
    assert_eq!(marks.done(&["GET /?ids=1,2", "GET /?ids=2"]).await.unwrap(), [true, false]);
    assert_eq!(load.quarantined(None, 10).await.unwrap()[0].inputs, [json!({"id": 2})]);
    call(&mut load, "GET /?ids=2", &[[json!(2)]]).await.unwrap();
    // It does not wait for those who could still ask.
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.is_complete, outcome.calls, outcome.rows, outcome.quarantined), (true, 2, 2, 0));
    assert_eq!(marks.done(&["GET /?ids=2"]).await.unwrap_err().to_string(), "the crawl stats: its load has ended");
    assert_eq!(bench.psql("SELECT id FROM t ORDER BY id"), "1\n2");
}

#[tokio::test]
async fn what_is_kept_can_be_read_again() {
    let bench = Bench::new("crawl", "CREATE TABLE t (doc json)");
    let job = job("t", &["doc"], CrawlMode::Append);
    let nested = |depth: usize| (1..depth).fold(json!([]), |value, _| json!([value]));
    let mut load = begin(&bench, &job, lenient()).await;
    let mut deep = load.call("a");
    assert!(deep.row(0, [Some(&nested(127))]).unwrap());
    assert!(!deep.row(0, [Some(&nested(128))]).unwrap());
    deep.finish().await.unwrap();
    for depth in [126, 127] {
        let mut failed = QuarantinedCall::new(depth.to_string(), "gone");
        (failed.inputs, failed.request) = (vec![nested(depth)], nested(depth));
        load.quarantine(failed).await.unwrap();
    }
    let mut found = load.quarantined(None, 10).await.unwrap();
    found.sort_by(|one, other| one.key.cmp(&other.key));
    assert_eq!((&found[0].inputs[..], &found[0].request), (&[nested(126)][..], &nested(126)));
    assert_eq!((&found[1].inputs[..], &found[1].request), (&[][..], &nested(127)));
    load.suspend().await.unwrap();
    let text = bench.psql("SELECT doc FROM t");
    assert_eq!(parse(&text), nested(127));
}

#[tokio::test]
async fn what_is_in_quarantine_comes_some_at_a_time() {
    let bench = Bench::new("crawl", "CREATE TABLE t (id integer)");
    let job = job("t", &["id"], CrawlMode::Append);
    let mut load = begin(&bench, &job, options()).await;
    assert_eq!(load.in_quarantine(), 0);
    for number in 0..30 {
        let length = if number % 10 == 7 { 3 << 20 } else { 200_000 };
        let mut failed = QuarantinedCall::new(format!("GET /{number}"), "gone");
        failed.inputs = vec![json!({"text": "x".repeat(length)})];
        load.quarantine(failed).await.unwrap();
    }
    load.suspend().await.unwrap();
    let load = begin(&bench, &job, options()).await;
    assert_eq!(load.in_quarantine(), 30);
    let marks = load.marks();
    for limit in [1000, 3] {
        let (mut found, mut last) = (Vec::new(), None::<String>);
        loop {
            let calls = marks.quarantined(last.as_deref(), limit).await.unwrap();
            let Some(call) = calls.last() else { break };
            last = Some(call.key.clone());
            let bytes: usize = calls.iter().map(|call| call.inputs[0].to_string().len()).sum();
            assert!(calls.len() <= limit && (bytes <= 1 << 20 || calls.len() == 1), "{} of {bytes}", calls.len());
            found.push(calls.into_iter().map(|call| call.key).collect::<Vec<_>>());
        }
        assert!(found.iter().any(|keys| keys.len() > 1), "{found:?}");
        let mut keys = found.concat();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 30, "{found:?}");
    }
}

#[tokio::test]
async fn what_this_run_has_committed_is_done() {
    let bench = Bench::new("crawl", "CREATE TABLE t (id integer)");
    let mut load = begin(&bench, &job("t", &["id"], CrawlMode::Append), options()).await;
    let marks = load.marks();
    assert!(marks.is_empty());
    assert_eq!(marks.done(&["a"]).await.unwrap(), [false]);
    load.quarantine(QuarantinedCall::new("b", "gone")).await.unwrap();
    load.flush().await.unwrap();
    assert!(marks.is_empty());
    call(&mut load, "a", &[[json!(1)]]).await.unwrap();
    load.flush().await.unwrap();
    assert!(!marks.is_empty());
    assert_eq!(marks.done(&["a", "b"]).await.unwrap(), [true, false]);
}

#[tokio::test]
async fn a_table_has_one_crawl_at_a_time() {
    let bench = Bench::new("crawl", OLD);
    for mode in [CrawlMode::Append, CrawlMode::Upsert, CrawlMode::Replace] {
        let load = begin(&bench, &job("t", &["id"], CrawlMode::Replace), options()).await;
        let mut other = job("t", &["id"], mode);
        other.name = "other".to_owned();
        let error = CrawlLoad::begin(session(&bench).await, &other, options()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "table public.t is being loaded by another session; wait for it, or stop it",
            "{mode:?}"
        );
        load.suspend().await.unwrap();
    }
}

#[tokio::test]
async fn rows_do_not_go_to_a_table_that_has_come_by_the_name() {
    for mode in [CrawlMode::Append, CrawlMode::Upsert, CrawlMode::Replace] {
        let bench = Bench::new("crawl", OLD);
        let mut load = begin(&bench, &job("t", &["id"], mode), options()).await;
        let schema = match mode {
            CrawlMode::Replace => bench.psql("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'bulk_next%'"),
            _ => "public".to_owned(),
        };
        let name = format!("{schema}.t");
        bench.psql(&format!(
            "ALTER TABLE {name} RENAME TO gone; CREATE TABLE {name} (LIKE {schema}.gone INCLUDING ALL)"
        ));
        call(&mut load, "a", &[[json!(3)]]).await.unwrap();
        let error = load.finish().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "the crawl stats: {name} is another table than when the run began; what is not committed is dropped"
            )
        );
        assert_eq!(bench.psql(&format!("SELECT count(*) FROM {name}; SELECT count(*) FROM bulk.call")), "0\n0");
    }
}

#[tokio::test]
async fn marks_whose_rows_are_gone_do_not_count() {
    for mode in [CrawlMode::Append, CrawlMode::Upsert] {
        for (change, what) in [
            ("DROP TABLE a; CREATE TABLE a (id integer PRIMARY KEY)", "is another table"),
            ("TRUNCATE a", "has been emptied"),
        ] {
            let bench =
                Bench::new("crawl", "CREATE TABLE a (id integer PRIMARY KEY); CREATE TABLE b (id integer PRIMARY KEY)");
            let job = two(mode);
            let mut load = begin(&bench, &job, options()).await;
            // The other one gets no row, so that it may be whichever it is.
            call(&mut load, "1", &[[json!(1)], [json!(2)]]).await.unwrap();
            load.suspend().await.unwrap();
            bench.psql("DROP TABLE b; CREATE TABLE b (id integer PRIMARY KEY)");
            begin(&bench, &job, options()).await.suspend().await.unwrap();
            bench.psql(change);
            let error = CrawlLoad::begin(session(&bench).await, &job, options()).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "the crawl two: public.a {what} since 2 rows of the open round were written into it, whose calls \
                     count as done; begin anew with --restart"
                )
            );
            let mut anew = options();
            anew.restart = true;
            let mut load = begin(&bench, &job, anew).await;
            assert_eq!(load.done(&["1"]).await.unwrap(), [false]);
            call_two(&mut load, "1", 1).await;
            assert!(load.finish().await.unwrap().is_complete);
            assert_eq!(bench.psql("SELECT * FROM a; SELECT * FROM b"), "1\n1");
        }
    }
}
