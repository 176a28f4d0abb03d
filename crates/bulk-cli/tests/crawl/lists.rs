//! Lists of records, and of what is gone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bulk_testkit::api::{Answer, ArchivesSpace, Asked, Server, paged};
use serde_json::json;

use crate::bench::{Bench, SECRET, targets};

/// Later than any run of these tests.
const LATER: u64 = 4_000_000_000;

#[test]
fn each_list_has_its_own_most_pages() {
    let bench = Bench::new("CREATE TABLE item (id int PRIMARY KEY)");
    let list = paged((1..=30).map(|id| json!(id)).collect(), 10);
    let api = Server::builder(move |asked: &Asked| match asked.segments()[0].as_str() {
        "items" => Answer::json(json!({"id": asked.segments()[1], "last_page": 1})),
        _ => list(asked),
    })
    .start()
    .unwrap();
    let spec = |input: &str, deletes: &str| {
        bench.spec(&format!(
            r#"
            [input]
            url = "{url}/number"
            pages = {{ parameter = "page", last = "$.last_page"{input} }}
            each = "$.items[*]"
            [request]
            url = "{url}/items/{{id}}"
            [pages]
            parameter = "page"
            last = "$.last_page"
            max = 1
            [limits]
            rate = ["2000/s"]
            [[rows]]
            table = "item"
            mode = "upsert"
            columns = {{ id = "$.id" }}
            [[deletes]]
            url = "{url}/number"
            pages = {{ parameter = "page", last = "$.last_page"{deletes} }}
            each = ["$.items[*]"]
            table = "item"
            columns = {{ id = "$" }}
            "#,
            url = api.url()
        ));
    };
    spec("", "");
    bench.run(&[]).assert(0, &["31 calls", "complete"]);
    assert_eq!((api.arrivals().len(), bench.sql("SELECT count(*) FROM item").as_str()), (3 + 30 + 3, "0"));
    for (input, deletes, calls) in [(", max = 2", "", 20), ("", ", max = 2", 30)] {
        spec(input, deletes);
        let calls = format!("{calls} calls");
        bench.run(&["--restart"]).assert(4, &["it has more than 2 pages", &calls, "not complete"]);
    }
}

/// The objects of an ArchivesSpace, in batches of 25, what changed alone, and what was deleted.
fn objects(url: &str) -> String {
    format!(
        r#"
        [input]
        url = "{url}/repositories/2/archival_objects?all_ids=true&modified_since={{$since}}"
        [request]
        url = "{url}/repositories/2/archival_objects?id_set={{id}}&resolve[]=subjects"
        headers = {{ X-ArchivesSpace-Session = "{{$session}}" }}
        secrets = {{ session = "env:API_KEY" }}
        [limits]
        rate = ["500/s"]
        [batch]
        size = 25
        field = "id"
        elements = "$[*]"
        id = "$.uri"
        of-record = "/repositories/2/archival_objects/{{id}}"
        [[rows]]
        table = "object"
        mode = "upsert"
        columns = {{ uri = "$.uri", title = "$.title", subject = "$.subjects[0]._resolved.title" }}
        [since]
        slack = "1s"
        [[deletes]]
        url = "{url}/delete-feed?modified_since={{$since}}&page_size=2"
        pages = {{ parameter = "page", last = "$.last_page" }}
        each = ["$.results[*]"]
        table = "object"
        columns = {{ uri = "$" }}
        "#
    )
}

#[test]
fn only_what_changed_is_asked_for_in_batches_and_what_is_gone_is_deleted() {
    let bench = Bench::new("CREATE TABLE object (uri text PRIMARY KEY, title text, subject text)");
    let space = ArchivesSpace::new(SECRET);
    for id in 1..=110 {
        space.put(id, &format!("Box {id}"), 1000);
    }
    // One that is listed and cannot be had.
    let hidden: Arc<Mutex<Option<String>>> = Arc::default();
    let (served, hides) = (space.clone(), hidden.clone());
    let api = Server::builder(move |asked| {
        let answer = served.answer(asked);
        let hidden = hides.lock().unwrap().clone();
        match (asked.param("id_set"), hidden) {
            (Some(_), Some(uri)) => {
                let mut objects: Vec<serde_json::Value> = serde_json::from_slice(&answer.body).unwrap();
                objects.retain(|object| object["uri"] != uri);
                Answer::json(objects.into())
            }
            _ => answer,
        }
    })
    .start()
    .unwrap();
    bench.spec(&objects(&api.url()));
    let count = |what: &str| {
        targets(&api).into_iter().filter(|(target, _)| target.contains(what)).map(|(_, n)| n).sum::<usize>()
    };

    *hidden.lock().unwrap() = Some("/repositories/2/archival_objects/30".to_owned());
    bench
        .run(&[])
        .assert(3, &["110 calls with 109 rows", "1 request in quarantine", "it has nothing for /repositories/2"]);
    assert_eq!((count("all_ids"), count("id_set="), count("delete-feed")), (1, 5, 1), "110 in batches of 25");
    assert_eq!(bench.sql("SELECT count(*), max(subject) FROM object"), "109|Subject 6");
    assert_eq!(bench.sql("SELECT watermark IS NULL, finished_at IS NULL FROM bulk.crawl"), "t|t");

    // Its own request, and the list of those that there are: the batches are done.
    *hidden.lock().unwrap() = None;
    api.clear();
    bench.run(&[]).assert(0, &["111 calls with 110 rows", "complete"]);
    assert_eq!((count("all_ids"), count("id_set="), count("delete-feed")), (1, 1, 0), "{:?}", targets(&api));
    assert_eq!(bench.sql("SELECT watermark IS NOT NULL, finished_at IS NOT NULL FROM bulk.crawl"), "t|t");

    // Two have changed, and five are gone.
    for id in [7, 90] {
        space.put(id, &format!("Crate {id}"), LATER);
    }
    for id in 101..=105 {
        space.delete(id, LATER);
    }
    api.clear();
    let before = bench.sql("SELECT watermark FROM bulk.crawl");
    bench.run(&[]).assert(0, &["complete"]);
    assert_eq!((count("all_ids"), count("id_set=7,90"), count("delete-feed")), (1, 1, 3), "{:?}", targets(&api));
    assert_eq!(api.arrivals().len(), 5);
    assert_eq!(bench.sql("SELECT count(*), count(*) FILTER (WHERE title LIKE 'Crate%') FROM object"), "105|2");
    assert_eq!(bench.sql(&format!("SELECT watermark > '{before}' FROM bulk.crawl")), "t");

    // What is gone between list and request is no failure, if so asked.
    space.put(50, "Crate 50", LATER + 1);
    *hidden.lock().unwrap() = Some("/repositories/2/archival_objects/50".to_owned());
    bench.spec(&objects(&api.url()).replace("[batch]", "[batch]\n        may-miss = true"));
    bench.run(&[]).assert(0, &["0 requests in quarantine: complete"]);

    // All of it anew.
    *hidden.lock().unwrap() = None;
    api.clear();
    bench.run(&["--restart"]).assert(0, &["complete"]);
    assert_eq!(count("modified_since=0"), 1 + 3, "{:?}", targets(&api));
    assert_eq!(bench.sql("SELECT count(*), count(*) FILTER (WHERE title LIKE 'Crate%') FROM object"), "105|3");
}

#[test]
fn a_list_that_fails_ends_the_run_and_nothing_is_passed_over() {
    let bench = Bench::new("CREATE TABLE object (uri text PRIMARY KEY, title text, subject text)");
    let space = ArchivesSpace::new(SECRET);
    (1..=10).for_each(|id| space.put(id, "Box", 1000));
    let is_broken = Arc::new(AtomicBool::new(true));
    let (served, broken) = (space.clone(), is_broken.clone());
    let api = Server::builder(move |asked| match asked.path.as_str() {
        "/delete-feed" if broken.load(Ordering::SeqCst) => Answer::error(403, "not yours"),
        _ => served.answer(asked),
    })
    .start()
    .unwrap();
    bench.spec(&objects(&api.url()));
    bench.run(&[]).assert(6, &["GET http://", "/delete-feed?modified_since=0", "not yours"]);
    assert_eq!(
        bench.sql("SELECT count(*), (SELECT watermark IS NULL AND finished_at IS NULL FROM bulk.crawl) FROM object"),
        "10|t"
    );
    is_broken.store(false, Ordering::SeqCst);
    api.clear();
    bench.run(&[]).assert(0, &["11 calls with 10 rows", "complete"]);
    assert_eq!(api.arrivals().len(), 2, "{:?}", targets(&api));
}
