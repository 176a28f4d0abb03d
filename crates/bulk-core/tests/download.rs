//! The ordered download against a real HTTP server that misbehaves on request.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulk_core::{
    Algorithm, Body, Delivery, Digest, DiskBudget, DownloadOptions, ETag, Error, Event, FileSource, Get, Request,
    RetryPolicy, Source, download, remove_staged,
};
use bulk_testkit::s3::{Fault, Object, Rule, Server, Store};
use bytes::Bytes;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

#[path = "support/fetch.rs"]
mod fetch;
use fetch::{BUCKET, count, recorded, source};

/// Bytes that differ at every place.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

fn serve(objects: &[(&str, Vec<u8>)]) -> Server {
    let store = objects.iter().fold(Store::memory(), |store, (key, bytes)| store.with(key, bytes.clone()));
    Server::builder().bucket(BUCKET, store).start().unwrap()
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
    assert_eq!(count(&events, "retry"), 2);
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
    let (events, mut options) = recorded();
    options.concurrency = 1;
    options.segment = Some(1 << 30);
    let mut files = download(source(&server), plan(&objects), folder.path(), options.clone());
    // The first attempt broke off and the second one hangs: this is the moment to stop.
    while count(&events, "retry") == 0 {
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

    // And a third run finds it whole: it asks whether it is still the one, unless the plan says so.
    for asked in [vec![Some("bytes=0-0".to_owned())], vec![]] {
        server.clear_requests();
        let mut plan = plan(&objects);
        plan[0].etag = staged.etag.clone().filter(|_| asked.is_empty());
        let deliveries = run(&server, plan, folder.path(), recorded().1).await;
        assert_eq!(deliveries[0].outcome.as_ref().unwrap().fetched, 0);
        assert_eq!(server.requests().into_iter().map(|request| request.range).collect::<Vec<_>>(), asked);
    }
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

#[tokio::test]
async fn a_listed_size_is_held_against_the_object_also_without_an_etag() {
    let objects = [("a", content(1, 1000))];
    let server = serve(&objects);
    let folder = tempfile::tempdir().unwrap();
    let mut plan = plan(&objects);
    plan[0].size = Some(999);
    let (events, options) = recorded();
    let deliveries = run(&server, plan, folder.path(), options).await;
    assert_eq!(deliveries[0].outcome.as_ref().unwrap().size, 1000);
    assert_eq!(events.lock().unwrap()[..], ["restart a: it was listed with 999 bytes and has 1000"]);
}

/// Everything below the folder's `.bulk`, but folders.
fn records(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.join(".bulk")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

#[tokio::test]
async fn a_removed_file_leaves_nothing_and_is_fetched_anew() {
    let objects = [("sub/a", content(1, 5000)), ("b", content(2, 100))];
    let server = serve(&objects);
    let folder = tempfile::tempdir().unwrap();
    let fetched = async || -> Vec<u64> {
        let (_, options) = recorded();
        let deliveries = run(&server, plan(&objects), folder.path(), options).await;
        deliveries.iter().map(|delivery| delivery.outcome.as_ref().unwrap().fetched).collect()
    };
    assert_eq!(fetched().await, [5000, 100]);
    assert_eq!(fetched().await, [0, 0]);

    // Damage that keeps the size goes unnoticed, until a reader says so.
    let mut damaged = content(1, 5000);
    damaged[4000] ^= 1;
    std::fs::write(folder.path().join("sub/a"), damaged).unwrap();
    assert_eq!(fetched().await, [0, 0]);
    remove_staged(folder.path(), "sub/a").unwrap();
    assert!(!folder.path().join("sub/a").exists());
    assert_eq!(fetched().await, [5000, 0]);
    assert!(std::fs::read(folder.path().join("sub/a")).unwrap() == objects[0].1);

    // A reader that removes a file itself leaves a record, which does no harm.
    std::fs::remove_file(folder.path().join("b")).unwrap();
    assert_eq!(fetched().await, [0, 100]);

    for name in ["sub/a", "b", "b", "never there"] {
        remove_staged(folder.path(), name).unwrap();
    }
    assert_eq!(records(folder.path()), Vec::<std::path::PathBuf>::new());
    let error = remove_staged(folder.path(), "../b").unwrap_err();
    assert_eq!(error.to_string(), "\"../b\" cannot be staged: it leaves the folder");
}

#[tokio::test]
async fn a_removed_part_is_not_resumed() {
    let objects = [("a", content(1, 5000))];
    let server = serve(&objects);
    let folder = tempfile::tempdir().unwrap();
    server.fault(Rule::new(Fault::Truncate(3000)).first(1));
    let (_, mut options) = recorded();
    options.retry.attempts = 1;
    let deliveries = run(&server, plan(&objects), folder.path(), options).await;
    assert!(deliveries[0].outcome.is_err());
    assert_eq!(records(folder.path()).len(), 2);
    remove_staged(folder.path(), "a").unwrap();
    assert_eq!(records(folder.path()).len(), 0);
    let (_, options) = recorded();
    let deliveries = run(&server, plan(&objects), folder.path(), options).await;
    assert_eq!(deliveries[0].outcome.as_ref().unwrap().fetched, 5000);
}

#[tokio::test]
#[should_panic(expected = "the plan cannot go on")]
async fn a_plan_that_panics_does_not_end_as_if_it_were_done() {
    let objects = [("a", content(1, 10))];
    let server = serve(&objects);
    let folder = tempfile::tempdir().unwrap();
    let (_, options) = recorded();
    let plan = plan(&objects).into_iter().chain(std::iter::once_with(|| panic!("the plan cannot go on")));
    download(source(&server), plan, folder.path(), options).collect::<Vec<_>>().await;
}

#[tokio::test]
async fn an_observer_that_panics_ends_the_download_and_is_passed_on() {
    type Is = fn(&Event<'_>) -> bool;
    let events: [(&str, Is); 4] = [
        ("a", |event| matches!(event, Event::Started { .. })),
        ("a", |event| matches!(event, Event::Progress { .. })),
        ("a", |event| matches!(event, Event::Finished { .. })),
        ("missing", |event| matches!(event, Event::Failed { .. })),
    ];
    for (key, is_the_one) in events {
        let objects = [("a", content(1, 10)), ("b", content(2, 10))];
        let server = serve(&objects);
        let folder = tempfile::tempdir().unwrap();
        let (_, mut options) = recorded();
        options.observer = Arc::new(move |event: &Event<'_>| assert!(!is_the_one(event), "the observer cannot go on"));
        let files = download(source(&server), [key, "b"].map(Request::new), folder.path(), options);
        let collecting = tokio::spawn(files.collect::<Vec<_>>());
        let ended = tokio::time::timeout(Duration::from_secs(60), collecting).await.expect("it hangs");
        let panic = ended.unwrap_err().into_panic();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"the observer cannot go on"));
    }
}

#[tokio::test]
async fn names_that_are_ours_are_refused() {
    let objects = [("a", content(1, 10))];
    let server = serve(&objects);
    let folder = tempfile::tempdir().unwrap();
    let names = ["manifest.json", ".bulk/a", ".bulk", "a/../b", "/a", "a//b", "", "a\0", "x/manifest.json"];
    let plan = names.map(|name| {
        let mut request = Request::new("a");
        request.name = name.to_owned();
        request
    });
    let deliveries = run(&server, plan.to_vec(), folder.path(), recorded().1).await;
    for (delivery, name) in deliveries.iter().zip(names) {
        match &delivery.outcome {
            Ok(staged) => assert_eq!((name, staged.size), ("x/manifest.json", 10)),
            Err(error) => assert!(matches!(error, Error::Name { name: refused, .. } if refused == name), "{error:?}"),
        }
    }
    assert_eq!(deliveries.iter().filter(|delivery| delivery.outcome.is_ok()).count(), 1);
    let reason = deliveries[0].outcome.as_ref().unwrap_err().to_string();
    assert_eq!(reason, "\"manifest.json\" cannot be staged: it is the manifest's");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_stop_ends_a_download_whose_window_is_full() {
    let objects = [("a", content(1, 10)), ("b", content(2, 10)), ("c", content(3, 10))];
    let server = serve(&objects);
    let folder = tempfile::tempdir().unwrap();
    let (_, mut options) = recorded();
    options.window = 1;
    let stop = options.stop.clone();
    let files = download(source(&server), plan(&objects), folder.path(), options);
    // Nobody reads, so the second file waits for the first one's share.
    while !folder.path().join("a").exists() {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    let deliveries: Vec<_> = files.collect().await;
    let staged: Vec<_> = deliveries.iter().map(|delivery| delivery.outcome.as_ref().unwrap().size).collect();
    assert_eq!(staged, [10]);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn objects_of_unknown_size_keep_to_the_window() {
    const WINDOW: u64 = 2 << 20;
    let objects = [("a", content(1, 4 << 20)), ("b", content(2, 4 << 20)), ("c", content(3, 4 << 20))];
    let server = serve(&objects);
    server.fault(Rule::new(Fault::WithoutHeader(http::header::CONTENT_LENGTH)));
    let (_, mut options) = recorded();
    (options.concurrency, options.window) = (3, WINDOW);
    let arrived = Arc::new(Mutex::new((0, false)));
    let sink = arrived.clone();
    options.observer = Arc::new(move |event: &Event<'_>| match event {
        Event::Progress { name: "b" | "c", bytes } => sink.lock().unwrap().0 += bytes,
        Event::Finished { name: "a", .. } => sink.lock().unwrap().1 = true,
        _ => {}
    });
    let folder = tempfile::tempdir().unwrap();
    let mut files = download(source(&server), ["a", "b", "c"].map(Request::new), folder.path(), options);
    while !arrived.lock().unwrap().1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Nobody takes the first one, so the others are held up. Without that they are here in no time.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let ahead = arrived.lock().unwrap().0;
    assert!(ahead <= WINDOW, "{ahead}");
    for (_, bytes) in &objects {
        let staged = files.next().await.unwrap().outcome.unwrap();
        assert!(std::fs::read(&staged.path).unwrap() == *bytes);
    }
}

/// A source that does not say what it has of one object until it is told to, and gives the others only when it was asked.
struct Hesitant {
    source: Arc<dyn Source>,
    is_asked: tokio::sync::Semaphore,
    answer: tokio::sync::Semaphore,
}

#[async_trait::async_trait]
impl Source for Hesitant {
    fn location(&self, key: &str) -> String {
        self.source.location(key)
    }

    async fn get(&self, get: &Get) -> Result<Body, Error> {
        if get.key != "slow" {
            drop(self.is_asked.acquire().await.unwrap());
        }
        self.source.get(get).await
    }

    async fn digests(&self, key: &str, _: Option<&ETag>) -> Result<Vec<Digest>, Error> {
        if key == "slow" {
            self.is_asked.add_permits(1);
            drop(self.answer.acquire().await.unwrap());
        }
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn who_is_slow_to_state_digests_holds_up_no_other_file() {
    let objects = [("a", content(1, 10)), ("b", content(2, 10)), ("slow", content(3, 10))];
    let server = serve(&objects);
    let (is_asked, answer) = (tokio::sync::Semaphore::new(0), tokio::sync::Semaphore::new(0));
    let hesitant = Arc::new(Hesitant { source: source(&server), is_asked, answer });
    let folder = tempfile::tempdir().unwrap();
    let mut files = download(hesitant.clone(), plan(&objects), folder.path(), recorded().1);
    for _ in 0..2 {
        files.next().await.unwrap().outcome.unwrap();
    }
    hesitant.answer.add_permits(1);
    files.next().await.unwrap().outcome.unwrap();
}

#[tokio::test]
async fn what_earlier_runs_left_whole_makes_way_only_if_it_may() {
    const LEN: usize = 1_000_000;
    let objects = [("first", content(1, LEN)), ("left", content(2, LEN))];
    let server = serve(&objects);
    for may in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let run = async |plan: Vec<Request>| {
            let (_, mut options) = recorded();
            let budget = DiskBudget::new(folder.path());
            budget.set_limit(Some(LEN as u64 + LEN as u64 / 2));
            options.budget = Some(budget);
            // What makes way is waited for, and what may not never does.
            let patience = if may { Duration::from_secs(60) } else { Duration::from_millis(300) };
            (options.evict_staged, options.disk_patience) = (may, patience);
            let mut files = download(source(&server), plan, folder.path(), options);
            let mut outcomes = Vec::new();
            while let Some(delivery) = files.next().await {
                outcomes.push(delivery.outcome.map(|staged| {
                    // The reader is done with the first.
                    if delivery.request.name == "first" {
                        std::fs::remove_file(&staged.path).unwrap();
                    }
                    staged.fetched
                }));
            }
            outcomes
        };
        assert_eq!(run(plan(&objects[1..])).await.pop().unwrap().unwrap(), LEN as u64);
        // Its size is known when the other one has been seen.
        server.fault(Rule::new(Fault::Latency(Duration::from_secs(1))).key("first"));
        let mut requests = plan(&objects);
        requests[0].size = None;
        let mut outcomes = run(requests).await;
        let (left, first) = (outcomes.pop().unwrap().unwrap(), outcomes.pop().unwrap());
        if may {
            assert_eq!((first.unwrap(), left), (LEN as u64, LEN as u64));
        } else {
            assert!(matches!(first, Err(Error::Space { .. })));
            assert_eq!(left, 0);
        }
        assert!(std::fs::read(folder.path().join("left")).unwrap() == objects[1].1);
    }
}

#[tokio::test]
async fn a_time_alone_does_not_tell_a_version() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let source = Arc::new(FileSource::new(&data));
    let mut fetched = Vec::new();
    // At one time, of one size.
    for content in ["one", "one", "two"] {
        std::fs::write(data.join("a.new"), content).unwrap();
        let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        std::fs::File::options().write(true).open(data.join("a.new")).unwrap().set_modified(time).unwrap();
        if std::fs::read_to_string(data.join("a")).ok().as_deref() != Some(content) {
            std::fs::rename(data.join("a.new"), data.join("a")).unwrap();
        }
        let mut request = Request::new("a");
        (request.size, request.last_modified) = (Some(3), Some(time.try_into().unwrap()));
        let out = folder.path().join("out");
        let mut files = download(source.clone(), [request], &out, DownloadOptions::default());
        fetched.push(files.next().await.unwrap().outcome.unwrap().fetched);
        assert_eq!(std::fs::read_to_string(out.join("a")).unwrap(), content);
    }
    assert_eq!(fetched, [3, 0, 3]);
}

/// A source that has the run stopped when it is asked for digests.
struct Stopping {
    source: Arc<dyn Source>,
    stop: CancellationToken,
    digest: Digest,
}

#[async_trait::async_trait]
impl Source for Stopping {
    fn location(&self, key: &str) -> String {
        self.source.location(key)
    }

    async fn get(&self, get: &Get) -> Result<Body, Error> {
        let mut body = self.source.get(get).await?;
        body.digests.clear();
        Ok(body)
    }

    async fn digests(&self, _: &str, _: Option<&ETag>) -> Result<Vec<Digest>, Error> {
        self.stop.cancel();
        Ok(vec![self.digest])
    }
}

#[tokio::test]
async fn a_file_that_is_read_for_its_digests_can_be_stopped_and_gone_on_with() {
    let objects = [("a", content(1, 3_000_000))];
    let server = serve(&objects);
    let folder = tempfile::tempdir().unwrap();
    let (_, mut options) = recorded();
    options.segment = Some(1 << 20);
    let digest = Digest::of(Algorithm::Crc32c, &objects[0].1);
    let stopping = Stopping { source: source(&server), stop: options.stop.clone(), digest };
    let deliveries: Vec<_> = download(Arc::new(stopping), plan(&objects), folder.path(), options).collect().await;
    assert!(deliveries.iter().all(|delivery| matches!(delivery.outcome, Err(Error::Interrupted { .. }))));
    assert!(!folder.path().join("a").exists());
    let (_, options) = recorded();
    let mut files = download(source(&server), plan(&objects), folder.path(), options);
    assert_eq!(files.next().await.unwrap().outcome.unwrap().fetched, 0);
    assert!(std::fs::read(folder.path().join("a")).unwrap() == objects[0].1);
}

/// Requests that there may be at once.
const AT_ONCE: usize = 3;

/// A source that counts how many are asking it for digests at once.
struct Counting {
    source: Arc<dyn Source>,
    /// Now, and at most.
    asking: Mutex<(usize, usize)>,
    /// Open once there were as many as there may be.
    all_are_here: tokio::sync::Semaphore,
}

#[async_trait::async_trait]
impl Source for Counting {
    fn location(&self, key: &str) -> String {
        self.source.location(key)
    }

    async fn get(&self, get: &Get) -> Result<Body, Error> {
        self.source.get(get).await
    }

    async fn digests(&self, _: &str, _: Option<&ETag>) -> Result<Vec<Digest>, Error> {
        {
            let mut asking = self.asking.lock().unwrap();
            asking.0 += 1;
            asking.1 = asking.1.max(asking.0);
            if asking.0 == AT_ONCE {
                self.all_are_here.add_permits(1);
            }
        }
        // Those of the batch that may come here do, unless it has fewer.
        if let Ok(permit) = tokio::time::timeout(Duration::from_secs(1), self.all_are_here.acquire()).await {
            drop(permit);
            // Time in which more would come, if that was wrong.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.asking.lock().unwrap().0 -= 1;
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn no_more_digests_are_asked_for_at_once_than_there_may_be_requests() {
    let names: Vec<String> = (0..40).map(|n| format!("f{n}")).collect();
    let objects: Vec<_> = names.iter().map(|name| (name.as_str(), content(1, 10))).collect();
    let server = serve(&objects);
    let all_are_here = tokio::sync::Semaphore::new(0);
    let counting = Arc::new(Counting { source: source(&server), asking: Mutex::default(), all_are_here });
    let folder = tempfile::tempdir().unwrap();
    let (_, mut options) = recorded();
    options.concurrency = AT_ONCE;
    let deliveries: Vec<_> = download(counting.clone(), plan(&objects), folder.path(), options).collect().await;
    assert!(deliveries.iter().all(|delivery| delivery.outcome.is_ok()));
    assert_eq!(*counting.asking.lock().unwrap(), (0, AT_ONCE));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_and_is_asked_for_again_is_gone_on_with() {
    const LEN: usize = 4 << 20;
    let objects = [("a", content(1, LEN))];
    let server = serve(&objects);
    // Both attempts at the last of four segments.
    for nth in [1, 2] {
        server.fault(Rule::new(Fault::internal_error()).containing(LEN as u64 - 1).nth(nth));
    }
    let (_, mut options) = recorded();
    options.retry.attempts = 2;
    (options.concurrency, options.segment) = (1, Some(1 << 20));
    // The plan names it again when the first failure is delivered; the folder was empty when all began.
    let (delivered, is_delivered) = std::sync::mpsc::channel();
    let again = plan(&objects);
    let again = std::iter::once_with(move || {
        is_delivered.recv().unwrap();
        again
    });
    let folder = tempfile::tempdir().unwrap();
    let plan = plan(&objects).into_iter().chain(again.flatten());
    let mut files = download(source(&server), plan, folder.path(), options);
    files.next().await.unwrap().outcome.unwrap_err();
    delivered.send(()).unwrap();
    let staged = files.next().await.unwrap().outcome.unwrap();
    assert_eq!(staged.fetched, LEN as u64 / 4);
    assert!(std::fs::read(&staged.path).unwrap() == objects[0].1);
}
