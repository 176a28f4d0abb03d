//! How many requests leave, and who holds them back.

#![allow(clippy::print_stdout, reason = "the figures are what a larger run is for")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bulk_core::crawl::CrawlOrder;
use bulk_core::{Error, Limit, Limiter, LimiterOptions, Margin, Meters, Resource, RunVerdict};
use bulk_testkit::api::{Answer, Arrival, Fault, Latency, Server, bungie};
use futures::StreamExt;
use serde_json::json;

use crate::{all, by_place, crawler, echo, limiter, records};

/// How many requests the campaign makes, if it is one; the suite makes fewer, but several times what a window allows.
fn campaign() -> Option<u64> {
    std::env::var("BULK_CRAWL_REQUESTS").ok().map(|text| text.parse().unwrap())
}

/// What part of the permitted rate arrived while nobody was asked to wait, and how long that was, by the server's own record. Up
/// to when all had been asked for once: what is left then is to ask again, for a few.
fn used_outside_of_penalties(arrivals: &[Arrival], per_second: f64) -> (f64, Duration) {
    let (mut seen, mut end) = (BTreeSet::new(), arrivals[0].at);
    for arrival in arrivals {
        if seen.insert(arrival.target.as_str()) {
            end = arrival.at;
        }
    }
    let hold = |arrival: &Arrival| match arrival.fault {
        Some(Fault::TooManyRequests(seconds) | Fault::Throttled(seconds)) => {
            let told = arrival.at + arrival.latency;
            Some((told, told + Duration::from_secs(seconds)))
        }
        _ => None,
    };
    let mut holds: Vec<(Instant, Instant)> = arrivals.iter().filter_map(hold).collect();
    holds.sort_unstable();
    let before = |at: Instant| arrivals.partition_point(|arrival| arrival.at < at);
    let (mut free, mut sent, mut time) = (arrivals[0].at, 0, Duration::ZERO);
    for (begin, until) in holds.into_iter().chain([(end, end)]) {
        let begin = begin.min(end);
        if begin > free {
            sent += before(begin) - before(free);
            time += begin - free;
        }
        free = free.max(until);
    }
    (sent as f64 / (per_second * time.as_secs_f64()), time)
}

/// At most `permits` of its requests are in any window, whatever the server does, and all records come, once.
async fn keeps(limit: &str, permits: usize, window: Duration, requests: u64, margin: Margin, faults: &[(Fault, f64)]) {
    let mut builder = Server::builder(bungie("4711", |_| 3))
        .latency(Latency::heavy_tail(Duration::from_millis(5), Duration::from_secs(2)))
        .limit(permits, window);
    for (fault, part) in faults {
        builder = builder.fault(fault.clone(), *part);
    }
    let server = builder.start().unwrap();
    let path = "/Platform/Destiny2/2/Account/1/Character/{id}/Stats/AggregateActivityStats/";
    let mut crawler = crawler(&server, path);
    crawler.template = crawler.template.header("x-api-key", "{$key}").unwrap().secret("key", "4711");
    crawler.success.rules = vec!["$.ErrorCode == 1".parse().unwrap()];
    crawler.success = crawler.success.throttle("$.ThrottleSeconds").unwrap();
    crawler.options.retry.attempts = 8;
    let mut options = LimiterOptions::default();
    options.limits = vec![limit.parse().unwrap()];
    options.margin = margin;
    crawler.limiter = Limiter::new(options);
    let calls = all(crawler.crawl(records(0..requests)).unwrap()).await;

    let arrivals = server.arrivals();
    let sent: u32 = calls.iter().map(|call| call.requests).sum();
    let seconds = arrivals.last().unwrap().at.duration_since(arrivals[0].at).as_secs_f64();
    let used = arrivals.len() as f64 / seconds / (permits as f64 / window.as_secs_f64());
    println!("{} under {limit}, {margin:?}, in {seconds:.2} s: {used:.4} of the rate", arrivals.len());
    println!("at most {} of {permits} in a window, {} refused", server.worst(window), server.refused());
    let (outside, time) = used_outside_of_penalties(&arrivals, permits as f64 / window.as_secs_f64());
    println!("{outside:.4} of it in the {:.2} s in which nobody was asked to wait", time.as_secs_f64());
    assert!(requests as usize >= 3 * permits);
    assert_eq!((server.worst(window).max(permits), server.refused()), (permits, 0));
    // Of a campaign, which has the machine to itself, and the usual margin.
    if campaign().is_some() && margin != Margin::Exact {
        assert!(!faults.is_empty() || used >= 0.99, "{used}");
        assert!(outside >= 0.99, "{outside}");
    }
    assert_eq!(arrivals.len(), sent as usize);
    let found = by_place(calls);
    assert_eq!(found.len() as u64, requests);
    for record in found.into_values() {
        let pages = record.outcome.unwrap();
        assert_eq!(pages[0]["Response"]["activities"][0]["values"].as_object().unwrap().len(), 3);
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// In the suite the margin by which the count is certain on a machine that does much else, too; in a campaign the usual one.
fn margin() -> Margin {
    if campaign().is_some() { Margin::default() } else { Margin::Exact }
}

async fn keeps_quick(usual: u64, faults: &[(Fault, f64)]) {
    match campaign() {
        Some(requests) => keeps("1000/s", 1000, SECOND, requests, margin(), faults).await,
        None => keeps("100/s", 100, SECOND, usual, margin(), faults).await,
    }
}

async fn keeps_slow(usual: u64, faults: &[(Fault, f64)]) {
    match campaign() {
        Some(requests) => keeps("25/s over 10s", 250, 10 * SECOND, requests, margin(), faults).await,
        None => keeps("25/s over 1s", 25, SECOND, usual, margin(), faults).await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_never_counts_more_than_it_allows() {
    let faults =
        [(Fault::Status(500), 0.01), (Fault::Closed, 0.01), (Fault::Garbage, 0.01), (Fault::Throttled(1), 0.0005)];
    keeps("200/s", 200, SECOND, 1000, Margin::Exact, &faults).await;
    keeps("100/s over 500ms", 50, SECOND / 2, 300, Margin::Exact, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quick_limit_is_kept() {
    keeps_quick(400, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_limit_is_kept() {
    keeps_slow(150, &[]).await;
}

const THROTTLES: [(Fault, f64); 2] = [(Fault::TooManyRequests(1), 0.02), (Fault::Throttled(1), 0.02)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quick_limit_is_kept_under_penalties() {
    keeps_quick(300, &THROTTLES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_limit_is_kept_under_penalties() {
    keeps_slow(100, &THROTTLES).await;
}

/// The job of a seed of this project: 551 characters have 672,768 statistics.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_job_of_551_characters_is_kept_whole() {
    let server = Server::builder(bungie("4711", |character| if character < 3 { 1220 } else { 1221 }));
    let (limit, server) = match std::env::var_os("BULK_CRAWL_REQUESTS") {
        Some(_) => {
            let latency = Latency::heavy_tail(Duration::from_millis(200), Duration::from_millis(800));
            ("25/s over 10s", server.latency(latency).limit(250, 10 * SECOND))
        }
        None => ("100/s", server.limit(100, SECOND)),
    };
    let server = server.start().unwrap();
    let mut crawler = crawler(&server, "/Platform/Destiny2/2/Account/1/Character/{id}/Stats/AggregateActivityStats/");
    crawler.template = crawler.template.header("x-api-key", "4711").unwrap();
    crawler.success.rules = vec!["$.ErrorCode == 1".parse().unwrap()];
    let mut options = LimiterOptions::default();
    (options.limits, options.margin) = (vec![limit.parse().unwrap()], margin());
    crawler.limiter = Limiter::new(options);
    let begun = std::time::Instant::now();
    let mut calls = crawler.crawl(records(0..551)).unwrap();
    let mut rows = 0;
    while let Some(call) = calls.next().await {
        let pages = call.records[0].outcome.as_ref().unwrap();
        let activities = pages[0]["Response"]["activities"].as_array().unwrap();
        rows += activities.iter().map(|activity| activity["values"].as_object().unwrap().len()).sum::<usize>();
    }
    println!("{rows} rows of 551 calls under {limit} in {:.2} s", begun.elapsed().as_secs_f64());
    assert_eq!((rows, server.arrivals().len(), server.refused()), (672_768, 551, 0));
}

#[tokio::test]
async fn what_calls_wait_for_is_metered() {
    let latency = Latency::heavy_tail(Duration::from_millis(20), Duration::from_millis(30));
    let server = Server::builder(echo).latency(latency).start().unwrap();
    let mut crawler = crawler(&server, "/{id}");
    crawler.limiter = limiter(&["50/s"]);
    let meters = Meters::new();
    crawler.options.limit_meter = Some(meters.stage("requests", &[Resource::RateLimit], &[]));
    crawler.options.meter = Some(meters.stage("fetch", &[Resource::Server], &["requests"]));
    let calls = all(crawler.crawl(records(0..60)).unwrap()).await;
    let bytes: u64 = calls.iter().map(|call| call.bytes).sum();
    let reading = meters.reading();
    let [requests, fetch] = &reading.stages[..] else { panic!("{reading:?}") };
    assert_eq!((requests.total.items, fetch.total.items, fetch.total.bytes), (60, 60, bytes));
    // All but those that go at once in the beginning, at 20 ms each.
    assert!(requests.total.rate_limit_held >= SECOND, "{requests:?}");
    assert!(fetch.total.server >= Duration::from_millis(60 * 20), "{fetch:?}");
    assert!(fetch.total.starved >= SECOND && fetch.total.rate_limit.is_zero(), "{fetch:?}");
}

#[tokio::test]
async fn penalties_that_bind_are_not_taken_for_the_rate_limit() {
    // Six seconds of them, for what the limit lets through in one.
    let server = Server::builder(|asked| match asked.number % 10 {
        9 => Answer::error(429, "slow down").header("retry-after", "1"),
        _ => echo(asked),
    });
    let server = server.latency(Latency::fixed(Duration::from_millis(20))).start().unwrap();
    let mut crawler = crawler(&server, "/{id}");
    crawler.limiter = limiter(&["50/s"]);
    crawler.options.retry.attempts = 20;
    let meters = Meters::new();
    crawler.options.limit_meter = Some(meters.stage("requests", &[Resource::RateLimit], &[]));
    crawler.options.meter = Some(meters.stage("fetch", &[Resource::Server], &["requests"]));
    let _sampling = meters.sample_every(Duration::from_millis(100)).unwrap();
    let calls = all(crawler.crawl(records(0..60)).unwrap()).await;
    assert!(calls.iter().all(|call| call.records[0].outcome.is_ok()));
    assert!(server.arrivals().len() >= 66);
    let reading = meters.reading();
    let requests = &reading.stages[0].total;
    // Who waits already when it is asked for waits for the server from then on.
    assert!(requests.server >= 6 * SECOND, "{requests:?}");
    assert!(requests.rate_limit_held <= reading.timeline.end() - 5 * SECOND, "{requests:?}");
    let verdict = RunVerdict::of(&reading);
    let used = &verdict.bottleneck.as_ref().unwrap_or_else(|| panic!("{verdict}")).used;
    let of_requests = Limit::Stage { stage: "requests".to_owned() };
    assert_eq!((&used.limit, used.resource), (&of_requests, Resource::Server), "{verdict}");
}

#[tokio::test]
async fn a_body_under_another_status_asks_everybody_to_wait() {
    let server = Server::builder(|_| Answer::json(json!({"ThrottleSeconds": 1800})).status(500)).start().unwrap();
    let mut crawler = crawler(&server, "/{id}");
    crawler.success = crawler.success.throttle("$.ThrottleSeconds").unwrap();
    crawler.options.concurrency = 1;
    let limiter = crawler.limiter.clone();
    let calls = crawler.crawl(records(0..5)).unwrap();
    let held = async {
        while limiter.status().held.is_zero() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), held).await.unwrap();
    assert!(limiter.status().held > Duration::from_secs(1000));
    drop(calls);
    assert_eq!(server.arrivals().len(), 1);
}

#[tokio::test]
async fn a_refusal_that_asks_to_wait_holds_everybody_whatever_its_status() {
    let of_secondary = json!({"message": "You have exceeded a secondary rate limit."});
    let by_header = |status| Answer::json(of_secondary.clone()).status(status).header("retry-after", "1800");
    let by_body = |status| Answer::json(json!({"ThrottleSeconds": 1800})).status(status);
    for answer in [by_header(403), by_header(404), by_header(500), by_body(401), by_body(403), by_body(302)] {
        let status = answer.status;
        let server = Server::builder(move |_| answer.clone()).start().unwrap();
        let mut crawler = crawler(&server, "/{id}");
        crawler.success = crawler.success.throttle("$.ThrottleSeconds").unwrap();
        crawler.options.concurrency = 1;
        let limiter = crawler.limiter.clone();
        let calls = crawler.crawl(records(0..5)).unwrap();
        let held = async {
            while limiter.status().held.is_zero() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), held).await.unwrap_or_else(|_| panic!("{status}"));
        assert!(limiter.status().held > Duration::from_secs(1000), "{status}");
        drop(calls);
        assert_eq!(server.arrivals().len(), 1, "{status}");
    }

    // It is tried again behind the wait, if it is none that will say so again.
    let server = Server::builder(|asked| match asked.path.as_str() {
        "/0" if asked.number == 0 => Answer::json(json!({"ThrottleSeconds": 0.01})).status(403),
        "/0" => echo(asked),
        "/1" => Answer::json(json!({"ThrottleSeconds": 1800, "code": 7})).status(403),
        "/2" => Answer::error(403, "not yours"),
        "/3" => Answer::error(302, "elsewhere").header("retry-after", "1800"),
        _ => Answer::json(json!({"ThrottleSeconds": 0.01})).status(403),
    });
    let server = server.start().unwrap();
    let mut crawler = crawler(&server, "/{id}");
    crawler.success.lasting = vec!["$.code == 7".parse().unwrap()];
    crawler.success = crawler.success.throttle("$.ThrottleSeconds").unwrap();
    crawler.options.order = CrawlOrder::OfInput;
    crawler.options.concurrency = 1;
    let calls = all(crawler.crawl(records(0..5)).unwrap()).await;
    assert_eq!(calls.iter().map(|call| call.requests).collect::<Vec<_>>(), [2, 1, 1, 1, 3]);
    let found = by_place(calls);
    assert!(found[&0].outcome.is_ok());
    let failure = |place: u64| found[&place].outcome.as_ref().unwrap_err();
    assert!(matches!(&*failure(1).error, Error::Denied { .. }), "{:?}", failure(1).error);
    assert!(matches!(&*failure(2).error, Error::Denied { .. }), "{:?}", failure(2).error);
    assert!(matches!(&*failure(3).error, Error::Status { status: 302, .. }), "{:?}", failure(3).error);
    let Error::Exhausted { attempts: 3, source, .. } = &*failure(4).error else { panic!("{:?}", failure(4).error) };
    assert!(source.is_throttle() && source.to_string().contains("the server answered 403"), "{source}");
    // Somebody's credentials are not to blame.
    assert!(failure(4).error.is_remote() && !failure(4).error.is_denied() && failure(2).error.is_denied());
}
