//! Calls for several records.

use bulk_core::crawl::Batch;
use bulk_testkit::api::{Answer, ArchivesSpace, Asked, Server};
use futures::stream;
use serde_json::{Value, json};

use crate::{all, by_place, crawler, records};

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
