//! Crawls that are stopped, and what they keep.

use std::sync::Arc;
use std::time::Duration;

use bulk_core::Error;
use bulk_core::crawl::{Batch, CrawlOrder, Crawled, Pagination, Progress};
use bulk_testkit::api::{Answer, Asked, Server, paged};
use futures::{FutureExt, StreamExt};
use serde_json::json;
use tokio::sync::watch;

use crate::{all, by_place, crawler, echo, limiter, records};

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
