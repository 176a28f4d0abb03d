//! Objects fetched into memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bulk_core::{
    Algorithm, Digest, ETag, Error, FetchedObject, FileSource, HttpSource, Meters, ObjectOptions, Request, Resource,
    fetch_objects,
};
use bulk_testkit::s3::{Fault, Rule, Server, Store};
use futures::{StreamExt, stream};

fn source(server: &Server) -> Arc<HttpSource> {
    Arc::new(HttpSource::new(&format!("{}/data", server.url())).unwrap())
}

fn options() -> ObjectOptions {
    let mut options = ObjectOptions::default();
    options.retry.attempts = 3;
    options.retry.initial = Duration::ZERO;
    options
}

fn body(number: usize) -> String {
    format!("object {number} ").repeat(number % 50)
}

#[tokio::test]
async fn many_objects_come_whole_with_one_request_each() {
    let store: Store = (0..300).map(|number| (format!("{number}"), body(number))).collect();
    let server = Server::builder().bucket("data", store).start().unwrap();
    // One is refused once, so the server is asked once more.
    server.fault(Rule::new(Fault::slow_down()).key("17").first(1));
    let requests = (0..300).map(|number| {
        let mut request = Request::new(format!("{number}"));
        request.size = (number % 2 == 0).then_some(body(number).len() as u64);
        request
    });
    let mut options = options();
    options.digests = vec![Algorithm::Sha256];
    // Four of the largest at a time.
    options.budget = 4096;
    let meters = Meters::new();
    options.meter = Some(meters.stage("fetch", &[Resource::Cpu, Resource::Network], &[]));
    let mut found = BTreeMap::new();
    let mut objects = fetch_objects(source(&server), stream::iter(requests), options);
    while let Some(FetchedObject { request, outcome, .. }) = objects.next().await {
        let object = outcome.unwrap();
        assert_eq!(object.digests, [Digest::of(Algorithm::Sha256, &object.bytes)]);
        assert!(object.etag.is_some());
        found.insert(request.key.parse::<u32>().unwrap(), String::from_utf8(object.bytes.to_vec()).unwrap());
    }
    assert!(found.into_iter().eq((0..300).map(|number| (number, body(number as usize)))));
    assert_eq!(server.requests().len(), 301);
    let [fetch] = &meters.reading().stages[..] else { panic!("{:?}", meters.reading()) };
    let bytes: usize = (0..300).map(|number| body(number).len()).sum();
    assert_eq!((fetch.total.items, fetch.total.bytes, fetch.max_workers), (300, bytes as u64, Some(64)));
    assert!(!fetch.total.network.is_zero() && !fetch.total.budget.is_zero(), "{fetch:?}");
}

#[tokio::test]
async fn what_is_not_as_expected_fails_alone() {
    let store: Store =
        ["same", "other", "gone", "longer", "large"].map(|key| (key, "0123456789")).into_iter().collect();
    let server = Server::builder().bucket("data", store).start().unwrap();
    server.remove("data", "gone").unwrap();
    server.put("data", "large", vec![0; 3000]).unwrap();
    let with = |key: &str, change: &dyn Fn(&mut Request)| {
        let mut request = Request::new(key);
        change(&mut request);
        request
    };
    let requests = [
        with("same", &|request| request.size = Some(10)),
        with("other", &|request| request.etag = Some(ETag::new("another"))),
        with("gone", &|_| {}),
        with("longer", &|request| request.size = Some(9)),
        with("large", &|request| request.size = Some(3000)),
        with("same", &|request| request.digests = vec![Digest::Crc32(1)]),
    ];
    let mut options = options();
    options.budget = 2048;
    let outcomes = fetch_objects(source(&server), stream::iter(requests), options)
        .map(|fetched| fetched.outcome.err().map(|error| error.to_string().replace(&server.url(), "")));
    let mut errors: Vec<String> = outcomes.collect::<Vec<_>>().await.into_iter().flatten().collect();
    errors.sort();
    let expected = [
        "/data/gone does not exist",
        "/data/large is too large for memory: 3000 bytes where 2048 are allowed",
        "/data/longer changed: it had 9 bytes and has 10",
        "/data/other changed: ",
        "same differs: its content is expected to have crc32:AAAAAQ==, and has crc32:poTHxg==",
    ];
    assert_eq!(errors.len(), expected.len(), "{errors:?}");
    for (error, expected) in errors.iter().zip(expected) {
        assert!(error.starts_with(expected), "{error}\n{expected}");
    }
}

/// Objects of which nobody tells the size have room for a MiB at first.
#[tokio::test]
async fn what_is_larger_than_was_thought_is_fetched_with_more_room() {
    let large = |number: u8| vec![number; 3 << 20];
    let store: Store = (0..6).map(|number: u8| (format!("{number}"), large(number))).collect();
    let server = Server::builder().bucket("data", store).start().unwrap();
    // Half of the answers do not tell a length either.
    server.fault(Rule::new(Fault::WithoutHeader(http::header::CONTENT_LENGTH)).key("1"));
    let mut options = options();
    options.budget = 4 << 20;
    let requests = (0..6).map(|number| Request::new(format!("{number}")));
    let mut objects = fetch_objects(source(&server), stream::iter(requests), options.clone());
    let mut found = BTreeMap::new();
    while let Some(FetchedObject { request, outcome, .. }) = objects.next().await {
        found.insert(request.key, outcome.unwrap().bytes.to_vec());
    }
    assert!(found.into_values().eq((0..6).map(large)));
    options.budget = 2 << 20;
    let requests = [Request::new("0"), Request::new("1")];
    let outcomes = fetch_objects(source(&server), stream::iter(requests), options).map(|fetched| fetched.outcome);
    for outcome in outcomes.collect::<Vec<_>>().await {
        assert!(matches!(outcome, Err(Error::TooLarge { limit: 2_097_152, .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_stop_ends_what_is_under_way() {
    let store: Store = (0..50).map(|number| (format!("{number}"), "x")).collect();
    let server = Server::builder().bucket("data", store).start().unwrap();
    server.fault(Rule::new(Fault::Latency(Duration::from_secs(600))).key("3"));
    let options = options();
    let stop = options.stop.clone();
    let requests = stream::iter((0..50).map(|number| Request::new(format!("{number}"))));
    let mut objects = fetch_objects(source(&server), requests, options);
    let mut interrupted = Vec::new();
    let mut whole = 0;
    while let Some(fetched) = objects.next().await {
        match fetched.outcome {
            Ok(_) => whole += 1,
            Err(Error::Interrupted { .. }) => interrupted.push(fetched.request.key),
            Err(error) => panic!("{error}"),
        }
        if whole == 49 {
            stop.cancel();
        }
    }
    assert_eq!(interrupted, ["3"]);
}

#[tokio::test]
async fn files_are_objects_too() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), "first").unwrap();
    let requests = stream::iter(["a", "b"].map(Request::new));
    let source = Arc::new(FileSource::new(folder.path()));
    let found: Vec<FetchedObject> = fetch_objects(source, requests, options()).collect().await;
    for fetched in found {
        match fetched.request.key.as_str() {
            "a" => assert_eq!(&fetched.outcome.unwrap().bytes[..], b"first"),
            _ => assert!(matches!(fetched.outcome, Err(Error::NotFound { .. }))),
        }
    }
}
