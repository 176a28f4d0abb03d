//! How many rows wait, and how long.

use std::sync::Arc;
use std::time::Duration;

use bulk_pg::{CrawlMode, Event};
use futures::FutureExt;
use serde_json::json;

use crate::support::Bench;
use crate::{begin, call, job, options, session};

#[tokio::test]
async fn a_large_call_waits_for_all_of_the_room() {
    let bench = Bench::new("crawl", "CREATE TABLE t (name text)");
    let mut options = options();
    // The time of a batch never comes.
    (options.batch_bytes, options.batch_time) = (10_000, Duration::MAX);
    let mut load = begin(&bench, &job("t", &["name"], CrawlMode::Append), options).await;
    let large = json!("y".repeat(30_000));
    call(&mut load, "small", &[[json!("z")]]).await.unwrap();
    call(&mut load, "large", &[[large.clone()]]).await.unwrap();
    call(&mut load, "small too", &[[json!("z")]]).await.unwrap();
    let mut next = load.call("large too");
    assert!(next.row(0, [Some(&large)]).unwrap());
    assert!(next.finish().now_or_never().is_none());
    assert_eq!(load.finish().await.unwrap().rows, 3);
}

#[tokio::test]
async fn no_more_rows_wait_than_there_is_room_for() {
    let bench = Bench::new("crawl", "CREATE TABLE t (name text)");
    let mut options = options();
    options.batch_bytes = 10_000;
    let mut load = begin(&bench, &job("t", &["name"], CrawlMode::Append), options).await;
    let mut holder = session(&bench).await;
    let hold = holder.client_mut().transaction().await.unwrap();
    hold.batch_execute("LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE").await.unwrap();
    let name = json!("y".repeat(2000));
    let mut taken = 0;
    loop {
        let mut call = load.call(format!("{taken}"));
        call.row(0, [Some(&name)]).unwrap();
        // Dropped where it would wait, with the call.
        match call.finish().now_or_never() {
            Some(finished) => finished.unwrap(),
            None => break,
        }
        taken += 1;
        tokio::task::yield_now().await;
    }
    assert_eq!(taken, 20_000 / 2537);
    hold.rollback().await.unwrap();
    call(&mut load, "behind", &[[json!("z")]]).await.unwrap();
    assert_eq!(load.finish().await.unwrap().rows, taken + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_do_not_wait_for_ever_and_a_call_has_its_limit() {
    let bench = Bench::new("crawl", "CREATE TABLE t (id integer, name text)");
    let job = job("t", &["id", "name"], CrawlMode::Append);
    let (committed, mut commits) = tokio::sync::mpsc::unbounded_channel();
    let mut options = options();
    (options.batch_time, options.call_bytes) = (Duration::from_millis(20), 100_000);
    options.observer = Arc::new(move |event: &Event<'_>| {
        if let Event::Called { calls, rows, .. } = event {
            committed.send((*calls, *rows)).unwrap();
        }
    });
    let mut load = begin(&bench, &job, options).await;
    call(&mut load, "a", &[[json!(1), json!("x")]]).await.unwrap();
    assert_eq!(commits.recv().await, Some((1, 1)));
    assert_eq!(bench.psql("SELECT * FROM t"), "1|x");
    let mut large = load.call("b");
    let (id, name) = (json!(2), json!("y".repeat(60_000)));
    assert!(large.row(0, [Some(&id), Some(&name)]).unwrap());
    let error = large.row(0, [Some(&id), Some(&name)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the crawl stats: b has more than 100000 bytes of rows, which is what one call may have"
    );
    drop(large);
    for (values, error) in [(vec![Some(&id)], "too few"), (vec![Some(&id); 3], "too many")] {
        let error = load.call("c").row(0, values).map_err(|found| (found.to_string(), error)).unwrap_err();
        assert_eq!(error.0, format!("the crawl stats: table 0 of 1 is given {} values", error.1));
    }
    assert_eq!(load.call("c").row(1, []).unwrap_err().to_string(), "the crawl stats: table 1 of 1 is not one of them");
    assert_eq!(load.finish().await.unwrap().rows, 1);
}
