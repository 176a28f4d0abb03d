//! How much memory a crawl takes whose answers come faster than anybody reads them. By itself, as the figures are the process's.
#![cfg(target_os = "linux")]

use std::time::Duration;

use bulk_core::crawl::{CrawlOrder, Crawler, RequestTemplate};
use bulk_core::{HttpClient, Limiter, LimiterOptions, Meters, Resource};
use bulk_testkit::api::{Answer, Server};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, Method};
use serde_json::json;

const BODY: usize = 8 << 20;
const MEMORY: u64 = 32 << 20;
const CALLS: u64 = 64;

/// The most memory that this process has had so far, in bytes (proc_pid_status(5)).
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}

#[tokio::test]
async fn answers_under_way_and_those_that_wait_take_no_more_than_the_budget() {
    let body = Bytes::from(format!("\"{}\"", "x".repeat(BODY - 2)));
    let server = Server::builder(move |asked| {
        let answer = Answer::text("application/json", body.clone());
        match asked.param("length") {
            Some("unknown") => answer.header("transfer-encoding", "chunked"),
            _ => answer,
        }
    });
    let server = server.start().unwrap();
    let url = format!("{}/0?length=unknown", server.url()).parse().unwrap();
    let answer = HttpClient::new().unwrap().ask(Method::GET, &url, HeaderMap::new(), None).await.unwrap();
    assert_eq!(answer.headers.get("content-length"), None);
    drop(answer);
    let before = peak();
    for (order, length) in [
        (CrawlOrder::AsTheyCome, "known"),
        (CrawlOrder::OfInput, "known"),
        (CrawlOrder::AsTheyCome, "unknown"),
        (CrawlOrder::OfInput, "unknown"),
    ] {
        let mut options = LimiterOptions::default();
        options.limits = vec!["100000/s".parse().unwrap()];
        let template = RequestTemplate::get("{$base}/{id}?length={$length}").unwrap();
        let template = template.value("base", &server.url()).value("length", length);
        let mut crawler = Crawler::new(HttpClient::new().unwrap(), Limiter::new(options), template);
        (crawler.options.memory, crawler.options.order) = (MEMORY, order);
        let meters = Meters::new();
        crawler.options.meter = Some(meters.stage("fetch", &[Resource::Network], &[]));
        let mut calls = crawler.crawl(stream::iter((0..CALLS).map(|id| json!({"id": id})))).unwrap();
        let mut read = 0;
        while let Some(call) = calls.next().await {
            assert_eq!(call.records[0].outcome.as_ref().unwrap()[0].as_str().unwrap().len(), BODY - 2);
            read += 1;
            // Time in which all would come, if that was wrong: each takes a few milliseconds.
            tokio::time::sleep(Duration::from_millis(if read == 1 { 1000 } else { 2 })).await;
        }
        assert_eq!(read, CALLS);
        let fetch = &meters.reading().stages[0];
        assert!(!fetch.total.budget.is_zero(), "{fetch:?}");
        // The budget, one body more, and what is parsed: of the reader and of the thread that fetches, some times a body; and
        // those of unknown length, which the allocator may have twice while they grow. All of them would be 512 MiB.
        let taken = peak() - before;
        assert!(taken < MEMORY + 18 * BODY as u64, "{} MiB", taken >> 20);
    }
}
