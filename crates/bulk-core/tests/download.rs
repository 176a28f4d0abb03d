//! The ordered download against a real HTTP server that misbehaves on request.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulk_core::{Delivery, DownloadOptions, Error, Event, HttpSource, Request, RetryPolicy, Source, download};
use bulk_testkit::s3::{Fault, Object, Rule, Server, Store};
use bytes::Bytes;
use futures::StreamExt;

const BUCKET: &str = "data";

/// Bytes that differ at every place.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

fn serve(objects: &[(&str, Vec<u8>)]) -> Server {
    let store = objects.iter().fold(Store::memory(), |store, (key, bytes)| store.with(key, bytes.clone()));
    Server::builder().bucket(BUCKET, store).start().unwrap()
}

fn source(server: &Server) -> Arc<dyn Source> {
    Arc::new(HttpSource::new(&format!("{}/{BUCKET}", server.url())).unwrap())
}

/// What happened, as text; the options that record it, with waits of no length.
fn recorded() -> (Arc<Mutex<Vec<String>>>, DownloadOptions) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let mut options = DownloadOptions::default();
    let mut retry = RetryPolicy::default();
    retry.initial = Duration::ZERO;
    options.retry = retry;
    let sink = events.clone();
    options.observer = Arc::new(move |event: &Event<'_>| {
        let text = match event {
            Event::Retry { name, error, .. } => format!("retry {name}: {error}"),
            Event::Restarted { name, reason, .. } => format!("restart {name}: {reason}"),
            _ => return,
        };
        sink.lock().unwrap().push(text);
    });
    (events, options)
}

fn plan(objects: &[(&str, Vec<u8>)]) -> Vec<Request> {
    objects
        .iter()
        .map(|(key, bytes)| {
            let mut request = Request::new(*key);
            request.size = Some(bytes.len() as u64);
            request
        })
        .collect()
}

async fn run(server: &Server, plan: Vec<Request>, folder: &Path, options: DownloadOptions) -> Vec<Delivery> {
    download(source(server), plan, folder, options).collect().await
}

/// Nothing but sidecars is left of the work.
fn assert_no_parts(folder: &Path) {
    let left: Vec<_> = std::fs::read_dir(folder.join(".bulk"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".json"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test]
async fn order_holds_and_bytes_are_equal_under_every_fault() {
    type Make = fn() -> Fault;
    const LEN: usize = 700_000;
    let faults: [(&str, Make); 8] = [
        ("none", || Fault::Latency(Duration::ZERO)),
        ("latency", || Fault::Latency(Duration::from_millis(20))),
        ("500", Fault::internal_error),
        ("503", Fault::slow_down),
        ("reset", || Fault::ResetAfter(LEN as u64 / 7)),
        ("truncated", || Fault::Truncate(LEN as u64 * 3 / 7)),
        ("no range", || Fault::NoRange),
        ("wrong range", || Fault::WrongContentRange),
    ];
    let objects: Vec<(&str, Vec<u8>)> =
        ["c", "a", "e", "b", "d"].into_iter().zip(0..).map(|(key, seed)| (key, content(seed, LEN))).collect();
    for (name, fault) in faults {
        for concurrency in [1, 2, 8] {
            for window in [1, 1 << 40] {
                let server = serve(&objects);
                // Interrupted once, so that the second attempt is a ranged one and the fault meets it.
                server.fault(Rule::new(Fault::Truncate(1000)).key("a").first(1));
                let ranged = server.fault(Rule::new(fault()).key("a").nth(2));
                let other = server.fault(Rule::new(fault()).nth(4));
                let folder = tempfile::tempdir().unwrap();
                let (_, mut options) = recorded();
                options.concurrency = concurrency;
                options.window = window;
                let deliveries = run(&server, plan(&objects), folder.path(), options).await;
                let places: Vec<_> = deliveries.iter().map(|delivery| delivery.place).collect();
                assert_eq!(places, [0, 1, 2, 3, 4], "{name}");
                for (delivery, (key, bytes)) in deliveries.iter().zip(&objects) {
                    assert_eq!(delivery.request.key, *key);
                    let staged = delivery.outcome.as_ref().unwrap_or_else(|error| panic!("{name}: {key}: {error}"));
                    assert_eq!(staged.path, folder.path().join(key));
                    assert!(std::fs::read(&staged.path).unwrap() == *bytes, "{name}: {key} differs");
                }
                assert_no_parts(folder.path());
                assert_eq!((ranged.hits(), other.hits()), (1, 1), "{name}");
                assert!(server.requests().len() <= 12, "{name}: {} requests", server.requests().len());
            }
        }
    }
}

#[tokio::test]
async fn a_failed_file_is_an_item_in_its_place() {
    let objects = [("a", content(1, 10)), ("c", content(2, 10))];
    let server = serve(&objects);
    let folder = tempfile::tempdir().unwrap();
    let plan = ["a", "b", "c", "../d"].map(Request::new).to_vec();
    let (_, options) = recorded();
    let deliveries = run(&server, plan, folder.path(), options).await;
    let outcomes: Vec<_> = deliveries
        .iter()
        .map(|delivery| delivery.outcome.as_ref().map(|file| file.size).map_err(ToString::to_string))
        .collect();
    let missing = format!("{}/{BUCKET}/b does not exist", server.url());
    let name = "\"../d\" cannot be staged: it leaves the folder".to_owned();
    assert_eq!(outcomes, [Ok(10), Err(missing), Ok(10), Err(name)]);
    assert!(!folder.path().join("b").exists());
}

#[tokio::test]
async fn attempts_are_bounded_and_counted() {
    let objects = [("a", content(1, 10))];
    let server = serve(&objects);
    server.fault(Rule::new(Fault::internal_error()));
    let folder = tempfile::tempdir().unwrap();
    let (events, mut options) = recorded();
    options.retry.attempts = 3;
    let deliveries = run(&server, plan(&objects), folder.path(), options).await;
    let error = deliveries[0].outcome.as_ref().unwrap_err();
    assert!(matches!(error, Error::Exhausted { attempts: 3, .. }), "{error:?}");
    assert!(error.is_remote());
    assert_eq!(server.requests().len(), 3);
    assert_eq!(events.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn an_object_replaced_midway_is_fetched_anew_and_never_mixed() {
    let old = content(1, 500_000);
    let new = content(2, 400_000);
    let objects = [("a", old.clone())];
    let server = serve(&objects);
    let fault = Fault::ReplaceMidway { after_bytes: 200_000, with: Object::new(Bytes::from(new.clone())) };
    server.fault(Rule::new(fault).first(1));
    let folder = tempfile::tempdir().unwrap();
    let (events, options) = recorded();
    let deliveries = run(&server, plan(&objects), folder.path(), options).await;
    let staged = deliveries[0].outcome.as_ref().unwrap();
    assert!(std::fs::read(&staged.path).unwrap() == new);
    assert_eq!(staged.size, 400_000);
    let restarts: Vec<_> = events.lock().unwrap().iter().filter(|text| text.starts_with("restart")).cloned().collect();
    assert_eq!(restarts, ["restart a: it is not the version asked for"]);
}

#[tokio::test]
async fn a_dropped_download_is_resumed_under_if_match() {
    let bytes = content(1, 80 << 20);
    let objects = [("a", bytes.clone())];
    let server = serve(&objects);
    let folder = tempfile::tempdir().unwrap();
    server.fault(Rule::new(Fault::Truncate(70 << 20)).first(1));
    server.fault(Rule::new(Fault::Hang).nth(2));
    let (events, options) = recorded();
    let mut files = download(source(&server), plan(&objects), folder.path(), options.clone());
    // The first attempt broke off and the second one hangs: this is the moment to stop.
    while events.lock().unwrap().is_empty() {
        assert!(futures::poll!(files.next()).is_pending());
        tokio::task::yield_now().await;
    }
    drop(files);
    server.clear_faults();
    server.clear_requests();

    let deliveries = run(&server, plan(&objects), folder.path(), options).await;
    let staged = deliveries[0].outcome.as_ref().unwrap();
    assert!(std::fs::read(&staged.path).unwrap() == bytes);
    assert_eq!(staged.fetched, 10 << 20);
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].range.as_deref(), Some("bytes=73400320-"));
    let etag = staged.etag.as_ref().unwrap().to_header();
    assert_eq!(requests[0].if_match.as_deref(), Some(etag.as_str()));

    // And a third run finds it whole.
    server.clear_requests();
    let (_, options) = recorded();
    let deliveries = run(&server, plan(&objects), folder.path(), options).await;
    assert_eq!(deliveries[0].outcome.as_ref().unwrap().fetched, 0);
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn a_stopped_download_keeps_every_byte_that_arrived() {
    let objects = [("a", content(1, 9 << 20)), ("b", content(2, 1000))];
    let server = serve(&objects);
    let folder = tempfile::tempdir().unwrap();
    let (_, mut options) = recorded();
    options.concurrency = 1;
    let arrived = Arc::new(Mutex::new(0));
    let (sum, stop) = (arrived.clone(), options.stop.clone());
    options.observer = Arc::new(move |event: &Event<'_>| {
        if let Event::Progress { bytes, .. } = event {
            let mut sum = sum.lock().unwrap();
            *sum += bytes;
            if *sum >= 2 << 20 {
                stop.cancel();
            }
        }
    });
    let deliveries = run(&server, plan(&objects), folder.path(), options).await;
    assert!(deliveries.iter().all(|delivery| matches!(delivery.outcome, Err(Error::Interrupted { .. }))));
    assert_eq!(deliveries.len(), 1, "no file is begun after the stop");
    let arrived = *arrived.lock().unwrap();
    assert!((2 << 20..9 << 20).contains(&arrived), "{arrived}");

    server.clear_requests();
    let (_, options) = recorded();
    let deliveries = run(&server, plan(&objects), folder.path(), options).await;
    for (delivery, (key, bytes)) in deliveries.iter().zip(&objects) {
        let staged = delivery.outcome.as_ref().unwrap();
        assert!(std::fs::read(&staged.path).unwrap() == *bytes, "{key} differs");
    }
    let requests = server.requests();
    let range = requests.iter().find(|request| request.key.as_deref() == Some("a")).unwrap().range.clone();
    assert_eq!(range, Some(format!("bytes={arrived}-")));
}

#[tokio::test]
async fn a_stop_ends_the_wait_for_the_next_attempt_and_for_an_answer() {
    for fault in [Fault::internal_error(), Fault::Hang] {
        let objects = [("a", content(1, 10))];
        let server = serve(&objects);
        let handle = server.fault(Rule::new(fault));
        let folder = tempfile::tempdir().unwrap();
        let mut options = DownloadOptions::default();
        let mut retry = RetryPolicy::default();
        retry.initial = Duration::from_secs(3600);
        retry.max = Duration::from_secs(3600);
        retry.timeout = Duration::from_secs(36000);
        options.retry = retry;
        let stop = options.stop.clone();
        let running =
            tokio::spawn(download(source(&server), plan(&objects), folder.path(), options).collect::<Vec<_>>());
        while handle.hits() == 0 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        let deliveries = running.await.unwrap();
        assert!(matches!(deliveries[0].outcome, Err(Error::Interrupted { .. })), "{deliveries:?}");
    }
}

#[tokio::test]
async fn the_version_of_the_listing_is_what_arrives_or_the_change_is_said() {
    let objects = [("a", content(1, 1000))];
    let server = serve(&objects);
    let folder = tempfile::tempdir().unwrap();
    let mut plan = plan(&objects);
    plan[0].etag = Some(bulk_core::ETag::new("\"of-another-time\""));
    let (events, options) = recorded();
    let deliveries = run(&server, plan, folder.path(), options).await;
    assert_eq!(deliveries[0].outcome.as_ref().unwrap().size, 1000);
    assert_eq!(events.lock().unwrap()[..], ["restart a: it is not the version asked for"]);
}
