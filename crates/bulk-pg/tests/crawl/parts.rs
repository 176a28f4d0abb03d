//! What of a call is committed, and when.

use bulk_pg::{CallProgress, CrawlJob, CrawlLoad, CrawlMode, CrawlTable, Error, QuarantinedCall, write_call_rejects};
use serde_json::{Value, json};

use crate::support::{Bench, table};
use crate::{begin, call, job, lenient, options, parse, session};

/// A part of a call of several, from one number to another, each a row and its double as a row of another table.
async fn part(
    load: &mut CrawlLoad,
    at: Option<&str>,
    next: Option<&str>,
    numbers: std::ops::Range<i32>,
) -> Result<(), Error> {
    let mut call = match at {
        None => load.call("long"),
        Some(at) => load.call_at("long", at),
    };
    for number in numbers {
        call.row(0, [Some(&json!(number))])?;
        call.row(1, [Some(&json!(2 * number))])?;
    }
    match next {
        None => call.finish().await,
        Some(next) => call.finish_part(next).await,
    }
}

#[tokio::test]
async fn a_long_call_is_committed_in_parts_and_goes_on_behind_them() {
    let bench = Bench::new("crawl", "CREATE TABLE t (id integer CHECK (id <> 7)); CREATE TABLE u (id integer)");
    let mut job = job("t", &["id"], CrawlMode::Append);
    job.tables.push(CrawlTable::new(table("u"), ["id"], CrawlMode::Append));
    let count = "SELECT (SELECT count(*) FROM t), (SELECT count(DISTINCT id) FROM t), (SELECT count(*) FROM u)";

    // Such as an older version has made it.
    begin(&bench, &job, lenient()).await.suspend().await.unwrap();
    bench.psql("ALTER TABLE bulk.call DROP next, DROP given");
    let mut load = begin(&bench, &job, lenient()).await;
    // Both in one batch.
    part(&mut load, None, Some("page 2"), 0..3).await.unwrap();
    part(&mut load, Some("page 2"), Some("page 3"), 3..6).await.unwrap();
    call(&mut load, "short", &[[json!(100)]]).await.unwrap();
    let outcome = load.suspend().await.unwrap();
    assert_eq!((outcome.calls, outcome.rows, outcome.is_complete), (1, 13, false));
    assert_eq!(bench.psql(count), "7|7|6");

    // Another run knows how far it is, and goes on there and nowhere else.
    let mut load = begin(&bench, &job, lenient()).await;
    let progress = load.marks().progress(&["long", "short", "none"]).await.unwrap();
    assert_eq!(progress, [CallProgress::Part("page 3".to_owned()), CallProgress::Done, CallProgress::Open]);
    assert_eq!(load.done(&["long", "short", "none"]).await.unwrap(), [false, true, false]);
    let mut failed = QuarantinedCall::new("long", "page 4 is missing");
    failed.attempts = 2;
    load.quarantine(failed).await.unwrap();
    part(&mut load, Some("page 3"), Some("page 4"), 6..9).await.unwrap();
    let outcome = load.suspend().await.unwrap();
    // Of the 7 the rows of both tables are numbered behind those of before; it is in quarantine until it is whole.
    assert_eq!((outcome.calls, outcome.rows, outcome.rejected, outcome.quarantined), (1, 18, 1, 1));
    assert_eq!(bench.psql("SELECT key, target_table, row FROM bulk.call_reject"), "long|t|8");
    assert_eq!(bench.psql("SELECT key, next, given FROM bulk.call WHERE next IS NOT NULL"), "long|page 4|{9,9}");

    for (at, next) in [(None, None), (Some("page 3"), Some("page 4")), (Some("page 5"), None)] {
        let mut load = begin(&bench, &job, lenient()).await;
        part(&mut load, at, next, 20..21).await.unwrap();
        let error = load.suspend().await.unwrap_err().to_string();
        assert!(error.contains("long is committed already"), "{error}");
    }
    assert_eq!(bench.psql(count), "9|9|9");

    let mut load = begin(&bench, &job, lenient()).await;
    part(&mut load, Some("page 4"), None, 9..10).await.unwrap();
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.calls, outcome.rows, outcome.quarantined, outcome.is_complete), (2, 20, 0, true));
    assert_eq!(bench.psql(count), "10|10|10");
}

#[tokio::test]
async fn half_a_call_is_none() {
    let bench = Bench::new("crawl", "CREATE TABLE t (id integer, name text)");
    let mut load = begin(&bench, &job("t", &["id", "name"], CrawlMode::Append), options()).await;
    let (id, name) = (json!(1), json!("x"));
    for wrong in [vec![Some(&id)], vec![Some(&id), Some(&name), Some(&name)]] {
        let mut broken = load.call("a");
        assert!(broken.row(0, [Some(&id), Some(&name)]).unwrap());
        broken.row(0, wrong).unwrap_err();
        let row = broken.row(0, [Some(&id), Some(&name)]).unwrap_err();
        let reject = broken.reject(0, [None], None, "22000", "").unwrap_err();
        let part = broken.quarantine(QuarantinedCall::new("b", "")).unwrap_err();
        for error in [row, reject, part, broken.finish().await.unwrap_err()] {
            let expected = "the crawl stats: something of a was not taken, so that nothing of it is";
            assert_eq!(error.to_string(), expected);
        }
    }
    call(&mut load, "a", &[[json!(2), json!("y")]]).await.unwrap();
    assert_eq!(load.finish().await.unwrap().rows, 1);
    assert_eq!(bench.psql("SELECT * FROM t"), "2|y");
}

#[tokio::test]
async fn notes_go_with_their_calls_and_no_sooner() {
    let bench = Bench::new("crawl", "CREATE TABLE t (id integer)");
    let job = job("t", &["id"], CrawlMode::Append);
    let mut load = begin(&bench, &job, options()).await;
    // A part that is all of its call.
    let mut own = load.call("own");
    assert!(own.row(0, [Some(&json!(1))]).unwrap());
    own.quarantine(QuarantinedCall::new("own", "gone")).unwrap();
    own.finish().await.unwrap();
    load.quarantine(QuarantinedCall::new("nul\0", "gone")).await.unwrap();
    // One that is done, in the same commit and behind it.
    call(&mut load, "done", &[[json!(2)]]).await.unwrap();
    load.quarantine(QuarantinedCall::new("done", "gone")).await.unwrap();
    let keys = async |load: &mut CrawlLoad| -> Vec<String> {
        let mut keys: Vec<_> = load.quarantined(None, 10).await.unwrap().into_iter().map(|call| call.key).collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&mut load).await, ["nul\\0", "own"]);
    load.quarantine(QuarantinedCall::new("done", "gone")).await.unwrap();
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.is_complete, outcome.calls, outcome.rows, outcome.quarantined), (false, 1, 1, 2));

    let mut load = begin(&bench, &job, options()).await;
    assert_eq!(load.done(&["own", "done"]).await.unwrap(), [false, true]);
    for key in keys(&mut load).await {
        call(&mut load, &key, &[[json!(3)]]).await.unwrap();
    }
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.is_complete, outcome.calls, outcome.rows, outcome.quarantined), (true, 3, 3, 0));
    assert_eq!(bench.psql("SELECT id FROM t ORDER BY id"), "2\n3\n3");
}

#[tokio::test]
async fn the_tables_of_a_call_are_committed_together() {
    let bench = Bench::new(
        "crawl",
        "CREATE TABLE parent (id integer PRIMARY KEY CHECK (id > 0));
         CREATE TABLE child (id integer, parent integer REFERENCES parent)",
    );
    let tables = vec![
        CrawlTable::new(table("parent"), ["id"], CrawlMode::Append),
        CrawlTable::new(table("child"), ["id", "parent"], CrawlMode::Append),
    ];
    let job = CrawlJob::new("families", tables);
    let reader = session(&bench).await;
    assert_eq!(write_call_rejects(&reader, "families", &mut Vec::new()).await.unwrap(), 0);
    let mut load = begin(&bench, &job, lenient()).await;
    for parent in -1..=2 {
        let parent = json!(parent);
        let mut call = load.call(format!("GET /{parent}"));
        // The one before the other, whichever is told of first.
        for child in [json!(1), json!("x")] {
            assert!(call.row(1, [Some(&child), Some(&parent)]).unwrap());
        }
        assert!(call.row(0, [Some(&parent)]).unwrap());
        call.reject(1, [Some(&json!("of the caller's")), None], Some("id"), "22000", "as it says").unwrap();
        assert_eq!((call.rows(), call.rejected()), (3, 1));
        call.finish().await.unwrap();
    }
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.calls, outcome.rows, outcome.rejected), (4, 4, 12));
    assert_eq!(bench.psql("SELECT * FROM parent; SELECT * FROM child"), "1\n2\n1|1\n1|2");
    let mut lines = Vec::new();
    assert_eq!(write_call_rejects(&reader, "families", &mut lines).await.unwrap(), 12);
    let lines: Vec<Value> = str::from_utf8(&lines).unwrap().lines().map(parse).collect();
    let short = |line: &Value| {
        let text = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
        format!("{} {} {} {}", text("call"), text("table"), line["row"], text("sqlstate"))
    };
    let expected = [
        "GET /-1 public.child 1 23503",
        "GET /-1 public.child 2 22P02",
        "GET /-1 public.child 3 22000",
        "GET /-1 public.parent 1 23514",
        "GET /0 public.child 1 23503",
        "GET /0 public.child 2 22P02",
        "GET /0 public.child 3 22000",
        "GET /0 public.parent 1 23514",
        "GET /1 public.child 2 22P02",
        "GET /1 public.child 3 22000",
        "GET /2 public.child 2 22P02",
        "GET /2 public.child 3 22000",
    ];
    assert_eq!(lines.iter().map(short).collect::<Vec<_>>(), expected);
    assert_eq!(
        lines[2],
        json!({"call": "GET /-1", "table": "public.child", "row": 3, "column": "id", "sqlstate": "22000",
               "message": "as it says", "fields": {"id": "of the caller's", "parent": null}})
    );
    assert_eq!(write_call_rejects(&reader, "none", &mut Vec::new()).await.unwrap(), 0);
}
