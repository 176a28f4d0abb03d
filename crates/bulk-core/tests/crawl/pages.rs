//! Calls with several pages, and those that come in parts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bulk_core::crawl::{CrawlOrder, Crawled, Pagination, Progress};
use bulk_testkit::api::{Answer, Asked, Server, paged};
use futures::{FutureExt, StreamExt, TryStreamExt};
use serde_json::{Value, json};

use crate::{all, crawler, records};

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
