//! How much memory answers take that are under way or wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bulk_core::crawl::{CrawlOrder, Crawler, RequestTemplate};
use bulk_core::{HttpClient, Meters, Resource};
use bulk_testkit::api::{Answer, Fault, Server};
use futures::StreamExt;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::{all, crawler, limiter, records};

#[tokio::test]
async fn no_more_is_fetched_than_memory_allows() {
    let server = Server::builder(|_| Answer::json(json!("x".repeat(100_000)))).start().unwrap();
    let mut crawler = crawler(&server, "/{id}");
    (crawler.options.memory, crawler.options.concurrency) = (1_000_000, 4);
    let limiter = crawler.limiter.clone();
    let mut calls = crawler.crawl(records(0..100)).unwrap();
    let mut kept = Vec::new();
    for _ in 0..10 {
        kept.push(calls.next().await.unwrap());
    }
    // 10 are kept: one more at a time, so that nobody waits for ever.
    let more = calls.next().await.unwrap();
    assert!(server.arrivals().len() <= 10 + 4, "{}", server.arrivals().len());
    drop((more, kept));
    assert_eq!(all(calls).await.len(), 89);
    assert_eq!(limiter.status().granted, 100);
}

#[tokio::test]
async fn attempts_are_counted_anew_behind_a_wait_for_memory() {
    const LARGE: usize = 600;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (is_asked_again, has_first) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (asked_again, first_is_read) = (is_asked_again.clone(), has_first.clone());
    let asked = Arc::new(AtomicUsize::new(0));
    let asked_of_large = asked.clone();
    tokio::spawn(async move {
        loop {
            let mut stream = BufReader::new(listener.accept().await.unwrap().0);
            let (asked, asked_again, first_is_read) = (asked.clone(), asked_again.clone(), first_is_read.clone());
            tokio::spawn(async move {
                let mut head = String::new();
                while stream.read_line(&mut head).await.unwrap() > 2 {}
                let answer = |len: usize, sent: usize| {
                    let body = format!("\"{}\"", "x".repeat(len - 2));
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{}", &body[..sent])
                };
                let answer = if head.starts_with("GET /0 ") {
                    asked_again.notified().await;
                    answer(900, 900)
                } else {
                    match asked.fetch_add(1, Ordering::Relaxed) {
                        0 => return,
                        1 => {
                            asked_again.notify_one();
                            first_is_read.notified().await;
                            answer(LARGE, 100)
                        }
                        _ => answer(LARGE, LARGE),
                    }
                };
                stream.get_mut().write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    let template = RequestTemplate::get("{$base}/{id}").unwrap().value("base", &base);
    let mut crawler = Crawler::new(HttpClient::new().unwrap(), limiter(&[]), template);
    (crawler.options.retry.attempts, crawler.options.retry.initial) = (2, Duration::ZERO);
    crawler.options.memory = 1000;
    let meters = Meters::new();
    crawler.options.meter = Some(meters.stage("fetch", &[Resource::Network], &[]));
    let mut calls = crawler.crawl(records(0..2)).unwrap();
    let first = calls.next().await.unwrap();
    assert_eq!(first.bytes, 900);
    // The first attempt for the other one has failed. The second has no room as long as the reader has this.
    has_first.notify_one();
    while meters.reading().stages[0].total.budget.is_zero() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(first);
    let second = calls.next().await.unwrap();
    let pages = second.records[0].outcome.as_ref().unwrap();
    assert_eq!((pages[0].as_str().unwrap().len(), second.requests), (LARGE - 2, 3));
    assert_eq!(asked_of_large.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn requests_that_fail_and_calls_that_are_given_up_give_their_memory_back() {
    let server = Server::builder(|asked| match asked.path.as_str() {
        // Too long, and refused with a long text.
        "/7" => Answer::json(json!("x".repeat(30_000))),
        "/8" => Answer::text("text/plain", "x".repeat(20_000)).status(404),
        _ => Answer::json(json!({"ids": asked.param("ids"), "text": "x".repeat(10_000)})),
    });
    let server = server.fault(Fault::Garbage, 0.1).fault(Fault::Closed, 0.1).fault(Fault::Status(500), 0.1);
    let server = server.start().unwrap();
    for order in [CrawlOrder::OfInput, CrawlOrder::AsTheyCome] {
        let mut crawler = crawler(&server, "/{id}");
        (crawler.options.memory, crawler.options.order, crawler.options.answer_limit) = (25_000, order, 20_500);
        crawler.options.retry.attempts = 50;
        let mut calls = crawler.clone().crawl(records(0..60)).unwrap();
        let mut places = Vec::new();
        while let Some(call) = calls.next().await {
            let record = &call.records[0];
            assert_eq!(record.outcome.is_err(), matches!(record.place, 7 | 8), "{:?}", record.outcome);
            places.push(record.place);
        }
        assert!(order == CrawlOrder::AsTheyCome || places.is_sorted(), "{places:?}");
        assert_eq!(places.len(), 60);
        assert!(format!("{calls:?}").contains("taken: 0,"), "{calls:?}");
    }
}
