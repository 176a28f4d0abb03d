//! Crawls of APIs on loopback that count what they are asked.

#![allow(clippy::print_stdout, reason = "the figures are what a larger run is for")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bulk_core::crawl::{
    Batch, Crawl, CrawlOrder, Crawled, CrawledRecord, Crawler, Pagination, Progress, RequestTemplate, Watermark,
};
use bulk_core::{
    Error, Event, HttpClient, Limit, Limiter, LimiterOptions, Margin, Meters, Observer, Resource, RunVerdict,
};
use bulk_testkit::api::{Answer, ArchivesSpace, Arrival, Asked, Fault, Latency, Server, bungie, paged};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

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
async fn calls_come_in_the_order_of_the_input_or_of_the_answers() {
    // The first answer comes last.
    let gate = Arc::new(std::sync::Barrier::new(2));
    let entered = gate.clone();
    let server = Server::builder(move |asked| {
        if asked.path == "/0" {
            tokio::task::block_in_place(|| entered.wait());
        }
        echo(asked)
    });
    let server = server.start().unwrap();
    let places = |calls: Vec<Crawled>| calls.iter().map(|call| call.records[0].place).collect::<Vec<_>>();

    let mut calls = crawler(&server, "/{id}").crawl(records(0..20)).unwrap();
    let mut first: Vec<Crawled> = Vec::new();
    while first.len() < 19 {
        first.push(calls.next().await.unwrap());
    }
    gate.wait();
    let mut found = places(first);
    found.extend(places(all(calls).await));
    assert_eq!(found[19], 0);
    found.sort_unstable();
    assert!(found.into_iter().eq(0..20));

    let mut in_order = crawler(&server, "/{id}");
    in_order.options.order = CrawlOrder::OfInput;
    in_order.options.window = 5;
    let calls = in_order.crawl(records(0..20)).unwrap();
    server.clear();
    let asked = tokio::spawn(async move { all(calls).await });
    // Those of the window, and no more.
    while server.arrivals().len() < 5 {
        tokio::task::yield_now().await;
    }
    // Time in which more would be asked for, if that was wrong.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.arrivals().len(), 5);
    gate.wait();
    assert!(places(asked.await.unwrap()).into_iter().eq(0..20));
}

#[tokio::test]
async fn what_fails_is_tried_again_and_then_quarantined_without_secrets() {
    let server = Server::builder(|asked| match asked.path.as_str() {
        "/1" => Answer::error(404, "no such thing for key-4711"),
        "/2" => Answer::json(json!({"code": 5, "message": "bad key-4711", "given": asked.header("x-key")})),
        "/3" => Answer::json(json!({"code": 7, "message": "never"})),
        "/4" => Answer::text("application/json", "x".repeat(2000)),
        "/5" => Answer::error(302, "elsewhere").header("location", "/1"),
        _ => echo(asked),
    });
    let server = server.start().unwrap();
    let mut crawler = crawler(&server, "/{id}?token={$key}&n={name}");
    crawler.template = crawler.template.header("x-key", "Bearer {$key}").unwrap().secret("key", "key-4711");
    crawler.success.rules = vec!["$.code == 1".parse().unwrap()];
    crawler.success.lasting = vec!["$.code == 7".parse().unwrap()];
    crawler.success = crawler.success.message("$.message").unwrap();
    crawler.options.answer_limit = 1000;
    let input = records(0..6).chain(stream::iter([json!({"name": "n-", "id": "-"}), json!({"name": "nnull"})]));
    let calls = all(crawler.crawl(input).unwrap()).await;
    let failures = calls.iter().filter_map(|call| call.records[0].outcome.as_ref().err()).collect::<Vec<_>>();
    assert_eq!(failures.len(), 6);
    assert!(!format!("{failures:?}").contains("key-4711"), "{failures:?}");

    let url = server.url();
    let expected = [
        (1, Some(404), 1, "does not exist"),
        (2, Some(200), 3, "gave up after 3 attempts"),
        (3, Some(200), 1, "$.code == 1 does not hold: there is 7 (never)"),
        (4, Some(200), 1, "is too large for memory: 2000 bytes where 1000 are allowed"),
        (5, Some(302), 1, "the server answered 302"),
    ];
    for call in &calls {
        let record = &call.records[0];
        let Err(failure) = &record.outcome else {
            assert!(matches!(record.place, 0 | 6), "{record:?}");
            continue;
        };
        let Some((place, status, requests, what)) = expected.iter().find(|row| row.0 == record.place) else {
            assert_eq!(failure.error.to_string(), "no request can be made of the record: the field id is missing");
            assert_eq!((call.requests, failure.request.as_str()), (0, r#"{"name":"nnull"}"#));
            continue;
        };
        assert_eq!((failure.status, call.requests), (*status, *requests), "{place}");
        assert!(failure.error.to_string().contains(what), "{}", failure.error);
        assert_eq!(failure.request, format!("GET {url}/{place}?token={{$key}}&n=n{place}"));
        assert_eq!(call.key.split_once(" #").unwrap().0, failure.request);
    }
    let second = calls.iter().find(|call| call.records[0].place == 2).unwrap();
    let response = second.records[0].outcome.as_ref().unwrap_err().response.as_deref().unwrap();
    assert_eq!(response, r#"{"code":5,"given":"…","message":"bad …"}"#);
}

#[tokio::test]
async fn a_batch_makes_one_call_and_failures_in_it_are_isolated() {
    let space = ArchivesSpace::new("session-1");
    for id in (0..100).filter(|id| *id != 37) {
        space.put(id, &format!("Letter {id}, \"quoted\""), 1000 + id);
    }
    let answers = space.clone();
    // One object that makes the server fail whenever it is asked for.
    let server =
        Server::builder(move |asked| match asked.params("id_set").any(|set| set.split(',').any(|id| id == "61")) {
            true => Answer::error(500, "subject of 61 is broken"),
            false => answers.answer(asked),
        });
    let server = server.start().unwrap();
    let mut crawler = crawler(&server, "/repositories/2/archival_objects?id_set={id}&resolve[]=subjects");
    crawler.template = crawler.template.header("x-archivesspace-session", "{$session}").unwrap();
    crawler.template = crawler.template.secret("session", "session-1");
    crawler.batch = Some(Batch::by_id(25, "id", "$[*]", "$.uri", "/repositories/2/archival_objects/{id}").unwrap());

    let calls = all(crawler.clone().crawl(records(0..50)).unwrap()).await;
    assert_eq!((calls.len(), server.arrivals().len()), (2, 2));
    let failed: Vec<_> = by_place(calls).into_values().filter_map(|record| record.outcome.err()).collect();
    assert_eq!(failed.len(), 1);
    assert!(failed[0].error.to_string().ends_with("it has nothing for /repositories/2/archival_objects/37"));

    server.clear();
    let found = by_place(all(crawler.crawl(records(50..75)).unwrap()).await);
    let failed: Vec<_> = found.iter().filter(|(_, record)| record.outcome.is_err()).map(|(place, _)| *place).collect();
    assert_eq!(failed, [11]);
    let failure = found[&11].outcome.as_ref().unwrap_err();
    assert_eq!(
        (failure.status, failure.response.as_deref()),
        (Some(500), Some(r#"{"error":"subject of 61 is broken"}"#))
    );
    for (place, record) in found.iter().filter(|(place, _)| **place != 11) {
        let page = &record.outcome.as_ref().unwrap()[0];
        assert_eq!(page["title"], format!("Letter {}, \"quoted\"", place + 50));
        assert!(page["subjects"][0]["_resolved"]["title"].is_string());
    }
    // 25, 12 | 13, then the half with it again and again, each three times.
    assert!(server.arrivals().len() <= 3 * 6 + 6, "{}", server.arrivals().len());
}

#[tokio::test]
async fn records_that_differ_elsewhere_are_no_batch() {
    let server = Server::builder(|asked| {
        let ids = asked.params("id[]").map(|id| json!({"id": id}));
        Answer::json(ids.collect())
    });
    let server = server.start().unwrap();
    let mut crawler = crawler(&server, "/{kind}?id[]={id}");
    crawler.batch = Some(Batch::by_id(4, "id", "$[*]", "$.id", "{id}").unwrap().repeat());
    let kinds = ["a", "a", "b", "b", "b", "b", "b", "a"];
    let input: Vec<Value> = kinds.iter().enumerate().map(|(id, kind)| json!({"id": id, "kind": kind})).collect();
    let mut calls = all(crawler.crawl(stream::iter(input)).unwrap()).await;
    calls.sort_by_key(|call| call.records[0].place);
    let url = server.url();
    let requests: Vec<&str> = calls.iter().map(|call| call.request.as_str()).collect();
    assert_eq!(
        requests,
        [
            format!("GET {url}/a?id[]=0&id[]=1"),
            format!("GET {url}/b?id[]=2&id[]=3&id[]=4&id[]=5"),
            format!("GET {url}/b?id[]=6"),
            format!("GET {url}/a?id[]=7"),
        ]
    );
    assert!(calls.iter().flat_map(|call| &call.records).all(|record| record.outcome.is_ok()));
}

#[tokio::test]
async fn pages_of_all_kinds_are_followed() {
    let items: Vec<Value> = (0..23).map(|number| json!({"n": number})).collect();
    let server = Server::builder(paged(items, 5)).start().unwrap();
    let numbers = |pages: &[Value]| -> Vec<u64> {
        pages
            .iter()
            .flat_map(|page| page["items"].as_array().unwrap())
            .map(|item| item["n"].as_u64().unwrap())
            .collect()
    };
    for (path, pagination) in [
        ("/next", Pagination::link_header()),
        ("/next", Pagination::next_link("$.next").unwrap()),
        ("/cursor", Pagination::cursor("$.cursor", "cursor").unwrap()),
        ("/number", Pagination::number("page", 1, "$.last_page").unwrap()),
    ] {
        server.clear();
        let mut crawler = crawler(&server, path);
        crawler.pagination = Some(pagination.clone());
        let calls = all(crawler.clone().crawl(records([1])).unwrap()).await;
        let pages = calls[0].records[0].outcome.as_ref().unwrap();
        assert_eq!((pages.len(), calls[0].requests), (5, 5), "{path}");
        assert!(numbers(pages).into_iter().eq(0..23), "{path}");
        assert_eq!(server.arrivals().len(), 5, "{path}");

        let pages: Vec<Value> = crawler.clone().pages(json!({})).unwrap().try_collect().await.unwrap();
        assert!(numbers(&pages).into_iter().eq(0..23), "{path}");

        crawler.options.max_pages = 4;
        let calls = all(crawler.crawl(records([1])).unwrap()).await;
        let failure = calls[0].records[0].outcome.as_ref().unwrap_err();
        assert!(failure.error.to_string().ends_with("it has more than 4 pages"), "{}", failure.error);
    }
    let mut crawler = crawler(&server, "/number");
    crawler.pagination = Some(Pagination::number_until_empty("page", 1, "$.items[*]").unwrap());
    let pages: Vec<Value> = crawler.pages(json!({})).unwrap().try_collect().await.unwrap();
    assert_eq!(pages.len(), 6);
}

#[tokio::test]
async fn pages_that_are_tried_end_where_there_is_nothing() {
    let answer = |asked: &Asked| match asked.param("page").unwrap().parse::<u64>().unwrap() {
        number @ 1..=3 => Answer::json(json!({"items": [{"n": number}]})),
        _ => Answer::error(404, "no such page"),
    };
    let server = Server::builder(answer).start().unwrap();
    let mut crawler = crawler(&server, "/number");
    crawler.success.nothing = vec![404..=404];
    crawler.pagination = Some(Pagination::number_until_empty("page", 1, "$.items[*]").unwrap());
    let calls = all(crawler.crawl(records([1])).unwrap()).await;
    assert_eq!((calls[0].records[0].outcome.as_ref().unwrap().len(), calls[0].requests), (3, 4));
}

#[tokio::test]
async fn a_call_with_many_pages_comes_in_parts_and_goes_on_behind_each() {
    let text = "x".repeat(1000);
    let items: Vec<Value> = (0..20).map(|number| json!({"n": number, "text": text})).collect();
    let server = Server::builder(paged(items, 1)).start().unwrap();
    let numbers = |calls: &[Crawled]| -> Vec<u64> {
        let pages = calls.iter().flat_map(|call| call.records[0].outcome.as_ref().unwrap());
        pages.map(|page| page["items"][0]["n"].as_u64().unwrap()).collect()
    };
    for (path, pagination) in [
        ("/next", Pagination::next_link("$.next").unwrap()),
        ("/cursor", Pagination::cursor("$.cursor", "cursor").unwrap()),
        ("/number", Pagination::number("page", 1, "$.last_page").unwrap()),
    ] {
        let mut crawler = crawler(&server, path);
        crawler.pagination = Some(pagination);
        // Four pages, as three have not so many bytes.
        crawler.options.part_bytes = 3500;
        let calls = all(crawler.clone().crawl(records([1])).unwrap()).await;
        assert_eq!(calls.iter().map(|call| call.requests).collect::<Vec<_>>(), [4, 4, 4, 4, 4], "{path}");
        assert_eq!((calls[0].at.as_ref(), calls[4].next.as_ref()), (None, None));
        for (one, other) in calls.iter().zip(&calls[1..]) {
            assert_eq!((&one.key, &one.request, &one.next), (&other.key, &other.request, &other.at));
            assert!(one.next.is_some());
        }
        assert!(numbers(&calls).into_iter().eq(0..20), "{path}");

        // Behind each of them another run goes on.
        for (place, call) in calls.iter().take(4).enumerate() {
            server.clear();
            let next = call.next.clone().unwrap();
            let mut crawler = crawler.clone();
            crawler.options.done = Some(Arc::new(move |keys: Vec<String>| {
                std::future::ready(vec![Progress::Part(next.clone()); keys.len()]).boxed()
            }));
            let rest = all(crawler.crawl(records([1])).unwrap()).await;
            assert_eq!(rest[0].at, call.next);
            assert!(numbers(&rest).into_iter().eq(4 * (place as u64 + 1)..20), "{path}");
            assert_eq!(server.arrivals().len(), 20 - 4 * (place + 1), "{path}");
        }
    }

    // What nobody can make sense of is no reason to begin anew.
    let mut crawler = crawler(&server, "/next");
    crawler.pagination = Some(Pagination::next_link("$.next").unwrap());
    for place in ["x", "4 http://127.0.0.1:1/next?at=4", "x http://host/"] {
        server.clear();
        let place = place.to_owned();
        crawler.options.done = Some(Arc::new(move |keys: Vec<String>| {
            std::future::ready(vec![Progress::Part(place.clone()); keys.len()]).boxed()
        }));
        let calls = all(crawler.clone().crawl(records([1])).unwrap()).await;
        let failure = calls[0].records[0].outcome.as_ref().unwrap_err().error.to_string();
        assert!(failure.contains("an earlier run has left its first pages"), "{failure}");
        assert_eq!(server.arrivals().len(), 0);
    }
}

#[tokio::test]
async fn no_part_is_fetched_before_the_one_ahead_of_it_is_taken() {
    let server = Server::builder(|asked: &Asked| {
        let page: u64 = asked.param("page").unwrap().parse().unwrap();
        Answer::json(json!({"list": asked.path, "page": page, "last": 9, "text": "x".repeat(1000)}))
    })
    .start()
    .unwrap();
    for order in [CrawlOrder::OfInput, CrawlOrder::AsTheyCome] {
        server.clear();
        let mut crawler = crawler(&server, "/{id}");
        crawler.pagination = Some(Pagination::number("page", 1, "$.last").unwrap());
        (crawler.options.part_bytes, crawler.options.concurrency, crawler.options.order) = (2000, 3, order);
        // Whoever holds all of the memory goes on.
        crawler.options.memory = 1;
        let mut calls = crawler.crawl(records(0..5)).unwrap();
        let mut found: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let (mut places, mut taken) = (Vec::new(), 0);
        while let Some(call) = calls.next().await {
            let record = &call.records[0];
            let pages = record.outcome.as_ref().unwrap();
            let pages = pages.iter().map(|page| page["page"].as_u64().unwrap());
            taken += pages.len();
            found.entry(record.place).or_default().extend(pages);
            places.push(record.place);
            // Of each call that is under way one part and a page.
            assert!(server.arrivals().len() <= taken + 3 * 3, "{} and {taken}", server.arrivals().len());
        }
        assert_eq!(found.len(), 5);
        assert!(found.values().all(|pages| pages.iter().copied().eq(1..=9)), "{found:?}");
        assert!(order == CrawlOrder::AsTheyCome || places.is_sorted(), "{places:?}");
    }
}

#[tokio::test]
async fn a_place_with_a_secret_is_not_given_away() {
    let server = Server::builder(|asked: &Asked| {
        let (key, page) = (asked.param("key").unwrap(), asked.param("page").map_or(1, |page| page.parse().unwrap()));
        let next = (page < 9).then(|| format!("/list?key={key}&page={}", page + 1));
        Answer::json(json!({"next": next, "text": "x".repeat(1000)}))
    })
    .start()
    .unwrap();
    let mut crawler = crawler(&server, "/list?key={$key}");
    crawler.template = crawler.template.secret("key", "s3cr3t-k3y");
    crawler.pagination = Some(Pagination::next_link("$.next").unwrap());
    crawler.options.part_bytes = 2000;
    let calls = all(crawler.clone().crawl(records([1])).unwrap()).await;
    assert_eq!((calls.len(), calls[0].records[0].outcome.as_ref().unwrap().len()), (1, 9));
    // That has an end, too.
    crawler.options.memory = 5000;
    let calls = all(crawler.crawl(records([1])).unwrap()).await;
    let failure = calls[0].records[0].outcome.as_ref().unwrap_err();
    assert!(failure.error.to_string().contains("the URL of the next one has a secret"), "{}", failure.error);
    assert!(!format!("{calls:?}").contains("s3cr3t-k3y"));
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
async fn changes_and_deletions_since_the_last_run_are_asked_for() {
    let space = ArchivesSpace::new("session-1");
    (0..30).for_each(|id| space.put(id, "old", 1000));
    let answers = space.clone();
    let server = Server::builder(move |asked| answers.answer(asked)).start().unwrap();
    let session = |mut crawler: Crawler| {
        crawler.template = crawler.template.header("x-archivesspace-session", "session-1").unwrap();
        crawler
    };
    let ids = async |since: i64| -> Vec<u64> {
        let path = "/repositories/2/archival_objects?all_ids=true&modified_since={since}";
        let pages = session(crawler(&server, path)).pages(json!({"since": since})).unwrap();
        let pages: Vec<Value> = pages.try_collect().await.unwrap();
        pages.iter().flat_map(|page| page.as_array().unwrap()).map(|id| id.as_u64().unwrap()).collect()
    };
    let since = Watermark::begin(None, Duration::ZERO);
    assert_eq!(ids(since.since_seconds()).await.len(), 30);

    [4, 7].into_iter().for_each(|id| space.put(id, "new", 2000));
    (10..30).for_each(|id| space.delete(id, 2001));
    assert_eq!(ids(1500).await, [4, 7]);
    let mut feed = session(crawler(&server, "/delete-feed?modified_since={since}"));
    feed.pagination = Some(Pagination::number("page", 1, "$.last_page").unwrap());
    let pages: Vec<Value> = feed.pages(json!({"since": 1500})).unwrap().try_collect().await.unwrap();
    let deleted: Vec<&str> =
        pages.iter().flat_map(|page| page["results"].as_array().unwrap()).map(|uri| uri.as_str().unwrap()).collect();
    assert_eq!((pages.len(), deleted.len(), deleted[0]), (2, 20, "/repositories/2/archival_objects/10"));

    // A page that fails ends the list, so that nobody takes it for the whole.
    let failed = crawler(&server, "/delete-feed").pages(json!({})).unwrap().collect::<Vec<_>>().await;
    assert_eq!((failed.len(), failed[0].as_ref().unwrap_err().status), (1, Some(412)));
}

#[tokio::test]
async fn calls_that_are_done_are_not_made_again() {
    let server = Server::builder(echo).start().unwrap();
    let url = server.url();
    let mut crawler = crawler(&server, "/{id}");
    let asked = Arc::new(std::sync::Mutex::new(0));
    let times = asked.clone();
    crawler.options.done = Some(Arc::new(move |keys: Vec<String>| {
        *times.lock().unwrap() += 1;
        let is_done = |key: &String| key.split_once(" #").unwrap().0.ends_with(['0', '1']);
        let progress = |key| if is_done(key) { Progress::Done } else { Progress::Open };
        std::future::ready(keys.iter().map(progress).collect()).boxed()
    }));
    let calls = all(crawler.crawl(records(0..1000)).unwrap()).await;
    let mut requests: Vec<_> = calls.into_iter().map(|call| call.request).collect();
    requests.sort_unstable();
    let mut expected: Vec<_> = (0..1000).filter(|id| id % 10 > 1).map(|id| format!("GET {url}/{id}")).collect();
    expected.sort_unstable();
    assert_eq!(requests, expected);
    assert_eq!((server.arrivals().len(), *asked.lock().unwrap()), (800, 4));
}

#[tokio::test]
async fn a_crawl_that_is_dropped_or_stopped_asks_no_more() {
    let server = Server::builder(echo).start().unwrap();
    let mut crawler = crawler(&server, "/{id}");
    crawler.limiter = limiter(&["3/h"]);
    let limiter = crawler.limiter.clone();
    let mut calls = crawler.clone().crawl(records(0..100)).unwrap();
    for _ in 0..3 {
        calls.next().await.unwrap();
    }
    while limiter.status().waiting == 0 {
        tokio::task::yield_now().await;
    }
    drop(calls);
    while limiter.status().waiting > 0 {
        tokio::task::yield_now().await;
    }
    let stop = crawler.options.stop.clone();
    let calls = tokio::spawn(all(crawler.crawl(records(0..100)).unwrap()));
    while limiter.status().waiting == 0 {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    assert_eq!(calls.await.unwrap().len(), 0);
    assert_eq!((limiter.status().waiting, server.arrivals().len()), (0, 3));
}

/// A server that answers those that are `held` only when it is told to, or when nobody is left to tell it.
fn gated(
    held: impl Fn(&Asked) -> bool + Send + Sync + 'static,
    answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
) -> (Server, watch::Sender<bool>) {
    let (open, is_open) = watch::channel(false);
    let server = Server::builder(move |asked| {
        let mut is_open = is_open.clone();
        if held(asked) {
            let opened = async { is_open.wait_for(|is_open| *is_open).await.map(drop) };
            let _ = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(opened));
        }
        answer(asked)
    });
    (server.start().unwrap(), open)
}

async fn arrived(server: &Server, requests: usize) {
    let arrived = async {
        while server.arrivals().len() < requests {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), arrived).await.unwrap();
}

#[tokio::test]
async fn a_crawl_that_is_stopped_takes_the_answers_to_what_it_has_sent() {
    for order in [CrawlOrder::AsTheyCome, CrawlOrder::OfInput] {
        let (server, open) = gated(
            |_| true,
            |asked| match asked.path.as_str() {
                "/1" => Answer::error(500, "another time"),
                "/2" => Answer::error(404, "never"),
                _ => echo(asked),
            },
        );
        let mut crawler = crawler(&server, "/{id}");
        (crawler.options.concurrency, crawler.options.order) = (4, order);
        let stop = crawler.options.stop.clone();
        let calls = tokio::spawn(all(crawler.crawl(records(0..100)).unwrap()));
        arrived(&server, 4).await;
        stop.cancel();
        open.send_replace(true);
        let found = by_place(calls.await.unwrap());
        // What failed may be asked again, by another run.
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [0, 2, 3], "{order:?}");
        assert!(found[&0].outcome.is_ok() && found[&2].outcome.is_err() && found[&3].outcome.is_ok());
        assert_eq!(server.arrivals().len(), 4, "{order:?}");
    }
}

#[tokio::test]
async fn a_crawl_that_is_stopped_does_not_wait_for_ever() {
    for order in [CrawlOrder::AsTheyCome, CrawlOrder::OfInput] {
        let (server, _closed) = gated(|asked| asked.path != "/1", echo);
        let mut crawler = crawler(&server, "/{id}");
        (crawler.options.concurrency, crawler.options.order) = (4, order);
        crawler.options.finish_within = Duration::ZERO;
        let limiter = crawler.limiter.clone();
        let (stop, mut calls) = (crawler.options.stop.clone(), crawler.crawl(records(0..100)).unwrap());
        // One more than are answered: that one has come.
        arrived(&server, 5).await;
        if order == CrawlOrder::AsTheyCome {
            assert_eq!(calls.next().await.unwrap().records[0].place, 1);
        }
        stop.cancel();
        let left = tokio::time::timeout(Duration::from_secs(20), all(calls)).await.unwrap();
        // In order, too, although the first one never comes.
        assert_eq!(left.len(), usize::from(order == CrawlOrder::OfInput));
        assert_eq!((server.arrivals().len(), limiter.status().waiting), (5, 0));
    }
}

#[tokio::test]
async fn a_call_that_is_stopped_between_pages_goes_on_behind_those_that_came() {
    let pages = paged((0..5).map(|number| json!({"n": number})).collect(), 1);
    let (server, open) = gated(|asked| asked.param("page") == Some("3"), pages);
    let mut crawler = crawler(&server, "/number");
    crawler.pagination = Some(Pagination::number("page", 1, "$.last_page").unwrap());
    let stop = crawler.options.stop.clone();
    let calls = tokio::spawn(all(crawler.clone().crawl(records([1])).unwrap()));
    arrived(&server, 3).await;
    stop.cancel();
    open.send_replace(true);
    let calls = calls.await.unwrap();
    let numbers = |calls: &[Crawled]| -> Vec<u64> {
        let pages = calls.iter().flat_map(|call| call.records[0].outcome.as_ref().unwrap());
        pages.map(|page| page["items"][0]["n"].as_u64().unwrap()).collect()
    };
    assert_eq!((numbers(&calls), calls.len(), server.arrivals().len()), (vec![0, 1, 2], 1, 3));
    let next = calls[0].next.clone().unwrap();
    // A list is not taken for whole.
    let failed = crawler.clone().pages(json!({})).unwrap().collect::<Vec<_>>().await;
    assert!(matches!(&*failed[0].as_ref().unwrap_err().error, Error::Interrupted { .. }), "{failed:?}");

    crawler.options.stop = Default::default();
    crawler.options.done =
        Some(Arc::new(move |_: Vec<String>| std::future::ready(vec![Progress::Part(next.clone())]).boxed()));
    let rest = all(crawler.crawl(records([1])).unwrap()).await;
    assert_eq!((numbers(&rest), server.arrivals().len()), (vec![3, 4], 5));
}

#[tokio::test]
async fn of_a_call_whose_place_may_expire_few_pages_are_not_kept() {
    for (pages, kept) in [(7, 0), (8, 8)] {
        let (server, open) = gated(
            move |asked| asked.param("page") == Some(&pages.to_string()),
            |asked| {
                let page = asked.param("page").map_or(1, |page| page.parse::<u64>().unwrap());
                Answer::json(json!({"next": format!("/list?page={}", page + 1)}))
            },
        );
        let mut crawler = crawler(&server, "/list");
        crawler.pagination = Some(Pagination::next_link("$.next").unwrap());
        let stop = crawler.options.stop.clone();
        let calls = tokio::spawn(all(crawler.crawl(records([1])).unwrap()));
        arrived(&server, pages).await;
        stop.cancel();
        open.send_replace(true);
        let calls = calls.await.unwrap();
        let found: usize = calls.iter().map(|call| call.records[0].outcome.as_ref().unwrap().len()).sum();
        assert_eq!((found, server.arrivals().len()), (kept, pages));
        assert!(calls.iter().all(|call| call.next.as_deref().is_some_and(|next| next.contains("page=9"))), "{calls:?}");
    }
}

#[tokio::test]
async fn of_a_batch_that_is_stopped_the_records_come_that_were_answered() {
    let (server, open) = gated(
        |asked| asked.param("ids") == Some("0,1"),
        |asked| match asked.param("ids").unwrap() {
            "0,1" => Answer::json(json!([{"id": 0}, {"id": 1}])),
            _ => Answer::error(422, "no such item"),
        },
    );
    let mut crawler = crawler(&server, "/?ids={id}");
    crawler.batch = Some(Batch::by_id(4, "id", "$[*]", "$.id", "{id}").unwrap());
    let stop = crawler.options.stop.clone();
    let calls = tokio::spawn(all(crawler.crawl(records(0..4)).unwrap()));
    arrived(&server, 2).await;
    stop.cancel();
    open.send_replace(true);
    let found = by_place(calls.await.unwrap());
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(server.arrivals().len(), 2);
}

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

#[tokio::test]
async fn a_body_has_the_values_of_the_record() {
    let server = Server::builder(|asked| {
        let body: Value = serde_json::from_slice(&asked.body).unwrap();
        Answer::json(json!({"method": asked.method.as_str(), "body": body, "type": asked.header("content-type")}))
    });
    let server = server.start().unwrap();
    let mut crawler = crawler(&server, "/");
    let template = RequestTemplate::new("POST", "{$base}/search").unwrap().value("base", &server.url());
    let body = json!({"ids": ["{id}"], "text": "of {name} with {$key}", "deep": {"whole": "{tags}"}});
    crawler.template = template.json(&body).unwrap().secret("key", "key-4711");
    let record = json!({"id": 18446744073709551615u64, "name": "a\t\"b\"\\\u{1F600}", "tags": [1, null]});
    let calls = all(crawler.crawl(stream::iter([record])).unwrap()).await;
    let expected = json!({
        "method": "POST",
        "type": "application/json",
        "body": {"ids": [18446744073709551615u64], "text": "of a\t\"b\"\\\u{1F600} with key-4711", "deep": {"whole": [1, null]}},
    });
    assert_eq!(calls[0].records[0].outcome.as_ref().unwrap(), &[expected]);
    assert!(calls[0].key.starts_with("POST http://") && calls[0].key.contains("with {$key}"), "{}", calls[0].key);
    assert!(!calls[0].key.contains("4711"));
}

#[tokio::test]
async fn parts_that_do_not_go_together_are_refused() {
    let server = Server::builder(echo).start().unwrap();
    let mut no_place = crawler(&server, "/x");
    no_place.batch = Some(Batch::in_order(5, "id", "$[*]").unwrap());
    let mut with_pages = crawler(&server, "/{id}");
    with_pages.batch = no_place.batch.clone();
    with_pages.pagination = Some(Pagination::link_header());
    let unset = crawler(&server, "/{$unset}");
    for crawler in [no_place, with_pages, unset] {
        assert!(crawler.crawl(records(0..3)).is_err());
    }
    assert_eq!(server.arrivals().len(), 0);
}

#[tokio::test]
async fn an_api_that_is_not_there_is_quarantined_as_such() {
    let gone = Server::builder(echo).start().unwrap();
    let mut crawler = crawler(&gone, "/{id}");
    crawler.batch = Some(Batch::in_order(5, "id", "$[*]").unwrap());
    drop(gone);
    let calls = all(crawler.crawl(records(0..5)).unwrap()).await;
    // Not each half of the batch by itself.
    assert_eq!(calls[0].requests, 3);
    for record in &calls[0].records {
        let failure = record.outcome.as_ref().unwrap_err();
        assert!(matches!(&*failure.error, Error::Exhausted { attempts: 3, .. }), "{:?}", failure.error);
        assert!(failure.error.is_remote() && failure.status.is_none());
    }
}

/// What an observer is told.
#[derive(Default)]
struct Told(std::sync::Mutex<String>);

impl Observer for Told {
    fn event(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push_str(&format!("{event:?}\n"));
    }
}

#[tokio::test]
async fn no_secret_is_in_any_message_however_it_is_written_or_cut() {
    let token = "pa/ss\"w\u{f6}rd-of-path";
    let repeated = move |asked: &Asked| {
        let bearer = asked.header("authorization").unwrap().split_once(' ').unwrap().1.to_owned();
        format!("{bearer} {token} pa%2fss%22w%c3%b6rd-of-path pa%2Fss%22w%C3%B6rd-of-path {}", asked.path)
    };
    let server = Server::builder(move |asked| {
        let repeated = repeated(asked);
        // Each of them where a message is cut.
        let cut = |at: usize| format!("{}{repeated}", "x".repeat(at));
        match asked.path.rsplit('/').next().unwrap() {
            "0" => Answer::error(404, &repeated),
            "1" => Answer::error(500, &cut(180)),
            "2" => Answer::text("text/plain", cut(190)).status(403),
            "3" => Answer::json(json!({"code": cut(90), "message": "no"})),
            "4" => Answer::json(json!({"code": 5, "message": cut(190)})),
            "5" => Answer::json(json!({"code": 5, "text": cut(2020)})),
            "6" => Answer::text("text/plain", cut(2040)).status(500),
            "7" => Answer::text("text/html", repeated),
            "8" => Answer::json(json!({"code": 1, "next": format!("/{repeated}?of={token}")})),
            _ => Answer::error(418, &"\u{1F600}".repeat(8 * 1024 / 4)),
        }
    });
    let server = server.start().unwrap();
    let mut crawler = crawler(&server, "/{$token}/{id}");
    crawler.template = crawler.template.header("authorization", "Bearer bearer-of-header").unwrap();
    crawler.template = crawler.template.secret("token", token);
    crawler.success.rules = vec!["$.code == 1".parse().unwrap()];
    crawler.success = crawler.success.message("$.message").unwrap();
    crawler.pagination = Some(Pagination::next_link("$.next").unwrap());
    let told = Arc::new(Told::default());
    crawler.options.observer = told.clone();
    let calls = all(crawler.crawl(records(0..10)).unwrap()).await;
    assert!(calls.iter().all(|call| call.records[0].outcome.is_err()));
    let told = told.0.lock().unwrap().clone();
    assert!(told.contains("Retry"), "{told}");
    let shown = format!("{calls:?}\n{told}");
    for secret in ["bearer-", "pa/ss", "pa\\/ss", "w\u{f6}rd", "pa%2", "rd-of", "of-path", "of-header"] {
        let at = shown.find(secret).map(|at| shown.get(at.saturating_sub(200)..at + 40));
        assert_eq!(at, None, "{secret}");
    }
}

#[tokio::test]
async fn a_call_that_nobody_reads_counts() {
    let server = Server::builder(|_| Answer::json(json!("x".repeat(1000)))).start().unwrap();
    let mut crawler = crawler(&server, "/{id}");
    (crawler.options.memory, crawler.options.concurrency) = (1, 1);
    let mut calls = crawler.crawl(records(0..20)).unwrap();
    while server.arrivals().is_empty() {
        tokio::task::yield_now().await;
    }
    let mut kept = Vec::new();
    for read in 1..=3 {
        // The first has come by itself, and no other before it is asked for.
        kept.push(calls.next().await.unwrap());
        // Time in which more would be asked for, if that was wrong.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(server.arrivals().len(), read);
    }
    drop(kept);
    assert_eq!(all(calls).await.len(), 17);
}

#[tokio::test]
async fn a_crawl_stops_although_nobody_reads() {
    let server = Server::builder(echo).start().unwrap();
    let mut crawler = crawler(&server, "/{id}");
    crawler.limiter = limiter(&["30/h"]);
    let (limiter, stop) = (crawler.limiter.clone(), crawler.options.stop.clone());
    let calls = crawler.crawl(records(0..100)).unwrap();
    while limiter.status().waiting == 0 || server.arrivals().len() < 30 {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    let stopped = async {
        while limiter.status().waiting > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), stopped).await.unwrap();
    // What had come is there.
    assert!(all(calls).await.len() <= 30);
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

#[tokio::test]
async fn of_a_batch_only_the_record_to_blame_fails() {
    let ids =
        |asked: &Asked| -> Vec<u64> { asked.param("ids").unwrap().split(',').map(|id| id.parse().unwrap()).collect() };
    // One has no element in its place.
    let server = Server::builder(move |asked| {
        Answer::json(ids(asked).into_iter().filter(|id| *id != 3).map(|id| json!({"id": id})).collect())
    });
    let server = server.start().unwrap();
    let mut crawler_of = crawler(&server, "/?ids={id}");
    crawler_of.batch = Some(Batch::in_order(8, "id", "$[*]").unwrap());
    let found = by_place(all(crawler_of.crawl(records(0..8)).unwrap()).await);
    let failed: Vec<_> =
        found.values().filter_map(|record| Some((record.place, record.outcome.as_ref().err()?))).collect();
    assert_eq!((failed.len(), failed[0].0), (1, 3));
    assert_eq!((failed[0].1.status, failed[0].1.response.as_deref()), (Some(200), Some("[]")));
    assert!(failed[0].1.error.to_string().ends_with("it has 0 elements for 1 record"));

    // One that fails once.
    let server = Server::builder(move |asked| {
        Answer::json(ids(asked).into_iter().map(|id| json!({"id": id, "ok": id != 3 || asked.number > 0})).collect())
    });
    let server = server.start().unwrap();
    let mut crawler_of = crawler(&server, "/?ids={id}");
    let mut batch = Batch::by_id(8, "id", "$[*]", "$.id", "{id}").unwrap();
    batch.rules = vec!["$.ok == true".parse().unwrap()];
    crawler_of.batch = Some(batch);
    let found = by_place(all(crawler_of.crawl(records(0..8)).unwrap()).await);
    assert!(found.values().all(|record| record.outcome.is_ok()));
    let asked: Vec<_> = server.arrivals().into_iter().map(|arrival| arrival.target).collect();
    assert_eq!(asked, ["/?ids=0,1,2,3,4,5,6,7", "/?ids=3"]);

    // A gateway in front of a server that is gone.
    let server = Server::builder(|_| Answer::error(502, "gone")).start().unwrap();
    let mut crawler_of = crawler(&server, "/?ids={id}");
    crawler_of.batch = Some(Batch::in_order(8, "id", "$[*]").unwrap());
    let calls = all(crawler_of.crawl(records(0..8)).unwrap()).await;
    assert_eq!((calls[0].requests, server.arrivals().len()), (3, 3));
}

#[tokio::test]
async fn pages_end_at_their_most_in_a_circle_and_with_the_one_that_fails() {
    let server = Server::builder(|asked| match asked.path.as_str() {
        "/a" => Answer::json(json!({"next": "/b"})),
        "/b" => Answer::json(json!({"next": "/c"})),
        "/c" => Answer::json(json!({"next": "/b"})),
        "/bad" => Answer::json(json!({"next": "/gone?key=key-4711"})),
        _ => Answer::error(404, "no"),
    });
    let server = server.start().unwrap();
    let url = server.url();
    let of = |path: &str, max_pages| {
        let mut crawler = crawler(&server, path);
        crawler.template = crawler.template.secret("key", "key-4711");
        crawler.pagination = Some(Pagination::next_link("$.next").unwrap());
        crawler.options.max_pages = max_pages;
        crawler
    };
    for (path, max_pages, pages, what, at) in [
        ("/a", 2, 2, "it has more than 2 pages", "/c"),
        ("/a", 100, 3, "its pages lead back to one that was read", "/b"),
        ("/bad", 100, 1, "does not exist", "/gone?key=\u{2026}"),
    ] {
        let found: Vec<_> = of(path, max_pages).pages(json!({})).unwrap().collect().await;
        assert_eq!(found.len(), pages + 1, "{path}");
        let failure = found[pages].as_ref().unwrap_err();
        let calls = all(of(path, max_pages).crawl(records([1])).unwrap()).await;
        for failure in [failure, calls[0].records[0].outcome.as_ref().unwrap_err()] {
            assert!(failure.error.to_string().contains(what), "{}", failure.error);
            assert_eq!(failure.request, format!("GET {url}{at}"));
        }
    }
}

#[tokio::test]
async fn nothing_is_said_of_a_first_page_and_of_one_record_alone() {
    let server = Server::builder(|asked| match (asked.path.as_str(), asked.param("ids")) {
        ("/1", _) => Answer::json(json!({"next": "/gone"})),
        ("/", Some(ids)) if ids.split(',').all(|id| id != "3") => {
            Answer::json(ids.split(',').map(|id| json!({"id": id})).collect())
        }
        _ => Answer::error(404, "no"),
    });
    let server = server.start().unwrap();
    let mut of_pages = crawler(&server, "/{id}");
    of_pages.pagination = Some(Pagination::next_link("$.next").unwrap());
    of_pages.success.nothing = vec![404..=404];
    let at = format!("1 {}/gone", server.url());
    let mut gone_on_with = of_pages.clone();
    gone_on_with.options.done =
        Some(Arc::new(move |keys| std::future::ready(vec![Progress::Part(at.clone()); keys.len()]).boxed()));
    let found = by_place(all(of_pages.crawl(records([1, 2])).unwrap()).await);
    assert_eq!(found[&1].outcome.as_ref().unwrap(), &[] as &[Value]);
    let later = by_place(all(gone_on_with.crawl(records([2])).unwrap()).await);
    for record in [&found[&0], &later[&0]] {
        let failure = record.outcome.as_ref().unwrap_err();
        assert_eq!((failure.request.clone(), failure.status), (format!("GET {}/gone", server.url()), Some(404)));
        assert!(matches!(&*failure.error, Error::NotFound { .. }), "{}", failure.error);
    }

    // What the one lacks the others do not.
    let mut of_batches = crawler(&server, "/?ids={id}");
    of_batches.batch = Some(Batch::by_id(8, "id", "$[*]", "$.id", "{id}").unwrap());
    of_batches.success.nothing = vec![404..=404];
    let found = by_place(all(of_batches.crawl(records(1..=8)).unwrap()).await);
    let pages: Vec<_> = found.into_values().map(|record| record.outcome.unwrap().len()).collect();
    assert_eq!(pages, [1, 1, 0, 1, 1, 1, 1, 1]);
}

#[tokio::test]
async fn a_request_that_may_have_been_carried_out_is_repeated_only_if_it_may_be() {
    let server = Server::builder(echo).fault(Fault::Closed, 1.0).start().unwrap();
    for (method, repeat, requests) in [("POST", false, 1), ("POST", true, 3), ("PUT", false, 3), ("GET", false, 3)] {
        let mut crawler = crawler(&server, "/{id}");
        crawler.template = RequestTemplate::new(method, &format!("{}/{{id}}", server.url())).unwrap();
        crawler.options.repeat = repeat;
        let calls = all(crawler.crawl(records([1])).unwrap()).await;
        let failure = calls[0].records[0].outcome.as_ref().unwrap_err();
        assert_eq!(calls[0].requests, requests, "{method}");
        assert_eq!(matches!(&*failure.error, Error::Unrepeatable { .. }), requests == 1, "{}", failure.error);
        assert!(failure.error.is_remote());
    }
}

#[tokio::test]
async fn no_content_is_null_and_a_record_alone_has_the_key_of_its_call() {
    let server = Server::builder(|_| Answer::text("text/plain", "").status(204)).start().unwrap();
    let crawler = crawler(&server, "/{id}");
    let calls = all(crawler.clone().crawl(records([1])).unwrap()).await;
    assert_eq!(calls[0].records[0].outcome.as_ref().unwrap(), &[Value::Null]);
    let mut batched = crawler.clone();
    batched.batch = Some(Batch::in_order(5, "id", "$[*]").unwrap());
    assert_eq!(batched.key(&calls[0].records[0].input), calls[0].key);

    let no_request = json!({"name": "x"});
    let calls = all(crawler.clone().crawl(stream::iter([no_request.clone()])).unwrap()).await;
    assert_eq!(crawler.key(&no_request), calls[0].key);

    let mut options = LimiterOptions::default();
    options.adaptive = true;
    let mut adaptive = crawler.clone();
    adaptive.limiter = Limiter::new(options);
    assert_eq!(adaptive.crawl(records([1])).unwrap_err().reason, "there is no limit to lower");
}
