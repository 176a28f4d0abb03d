//! What fails: what is tried again, what is given up, and what is said of it.

use std::sync::Arc;

use bulk_core::crawl::{Batch, Pagination, RequestTemplate};
use bulk_core::{Error, Event, Observer};
use bulk_testkit::api::{Answer, Asked, Fault, Server};
use futures::{StreamExt, stream};
use serde_json::json;

use crate::{all, crawler, echo, records};

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
