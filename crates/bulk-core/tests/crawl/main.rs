//! Crawls of APIs on loopback that count what they are asked.

mod batches;
mod calls;
mod failures;
mod memory;
mod pages;
mod rate;
mod stop;

use std::collections::BTreeMap;
use std::time::Duration;

use bulk_core::crawl::{Crawl, Crawled, CrawledRecord, Crawler, RequestTemplate};
use bulk_core::{HttpClient, Limiter, LimiterOptions};
use bulk_testkit::api::{Answer, Asked, Server};
use futures::{StreamExt, stream};
use serde_json::{Value, json};

fn limiter(limits: &[&str]) -> Limiter {
    let mut options = LimiterOptions::default();
    options.limits = limits.iter().map(|limit| limit.parse().unwrap()).collect();
    Limiter::new(options)
}

/// A crawler without limits that tries three times, and soon.
fn crawler(server: &Server, path: &str) -> Crawler {
    let template = RequestTemplate::get(&format!("{{$base}}{path}")).unwrap().value("base", &server.url());
    let mut crawler = Crawler::new(HttpClient::new().unwrap(), limiter(&[]), template);
    crawler.options.retry.attempts = 3;
    crawler.options.retry.initial = Duration::ZERO;
    crawler
}

fn records(ids: impl IntoIterator<Item = u64>) -> impl futures::Stream<Item = Value> + Send + 'static {
    stream::iter(ids.into_iter().map(|id| json!({"id": id, "name": format!("n{id}")})).collect::<Vec<_>>())
}

async fn all(crawl: Crawl) -> Vec<Crawled> {
    crawl.collect().await
}

/// What came for each record, by its place.
fn by_place(calls: Vec<Crawled>) -> BTreeMap<u64, CrawledRecord> {
    let mut found = BTreeMap::new();
    for record in calls.into_iter().flat_map(|call| call.records) {
        assert_eq!(record.input["name"], format!("n{}", record.input["id"]));
        assert!(found.insert(record.place, record).is_none());
    }
    found
}

fn echo(asked: &Asked) -> Answer {
    Answer::json(json!({"code": 1, "path": asked.path, "query": asked.query}))
}
