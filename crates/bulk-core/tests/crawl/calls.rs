//! What is asked for, and what comes of it.

use std::sync::Arc;
use std::time::Duration;

use bulk_core::crawl::{Batch, CrawlOrder, Crawled, Crawler, Pagination, Progress, RequestTemplate, Watermark};
use bulk_core::{Error, Limiter, LimiterOptions};
use bulk_testkit::api::{Answer, ArchivesSpace, Server};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use crate::{all, by_place, crawler, echo, records};

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
