//! Order and bytes, at every concurrency and window, under each thing that a server or the way to it can do.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bulk_core::{Algorithm, DownloadOptions, Hasher, Keep, Request, Source, StagedFile, download, stream};
use bulk_testkit::s3::{Fault, Object, Rule};
use futures::StreamExt;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, ETAG, LAST_MODIFIED};
use tokio::io::AsyncReadExt;

#[path = "support/fetch.rs"]
mod fetch;
use fetch::*;

const SEGMENT: u64 = 64 * KIB;
const A: u64 = 10 * SEGMENT + 1234;
/// The seed of another version of `a`.
const OTHER: u64 = 77;
const OBJECTS: [(&str, u64); 4] = [("c", SEGMENT), ("a", A), ("d", 1), ("b", 3 * SEGMENT - 1)];

struct Case {
    name: String,
    faults: Vec<Fault>,
    /// Which of the requests for `a`; all if 0.
    nth: u64,
    /// Requests beyond those of a run without a fault.
    more: u64,
    /// Whether it is one fault, for which there is one retry, no fewer and no more.
    is_single: bool,
    /// Whether sizes are listed.
    is_listed: bool,
}

/// Those that hit one request, which is sent once more.
const SINGLE: [&str; 6] = ["500", "503", "429", "reset", "truncation", "wrong Content-Range"];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |name: &str, faults: Vec<Fault>, nth, more| {
        let is_single = SINGLE.contains(&name);
        cases.push(Case { name: name.to_owned(), faults, nth, more, is_single, is_listed: true });
    };
    case("latency", vec![Fault::Latency(Duration::from_millis(10))], 0, 0);
    case("slow connection", vec![Fault::Bandwidth(4_000_000)], 0, 0);
    for nth in [1, 2] {
        case("500", vec![Fault::internal_error()], nth, 1);
        case("503", vec![Fault::slow_down()], nth, 1);
        for seventh in 0..7 {
            case("reset", vec![Fault::ResetAfter(seventh * SEGMENT / 7)], nth, 1);
        }
        case("truncation", vec![Fault::Truncate(SEGMENT / 2)], nth, 1);
        case("stall", vec![Fault::StallAfter(SEGMENT / 3)], nth, 2);
        case("wrong Content-Range", vec![Fault::WrongContentRange], nth, 1);
        case("range as 200", vec![Fault::RangeAsOk], nth, 0);
        case("no range once", vec![Fault::NoRange], nth, 14);
        case("no length once", vec![Fault::WithoutHeader(CONTENT_LENGTH)], nth, 1);
    }
    case("429", vec![Fault::too_many_requests(1)], 2, 1);
    case("wrong total", vec![Fault::WrongTotal], 2, 14);
    case("corrupt byte", vec![Fault::CorruptByte(A / 2)], 0, 14);
    for nth in [2, 3, 7] {
        case("replaced", vec![Fault::ReplaceBefore(Object::made_up(A, OTHER))], nth, 14);
        let with = Object::made_up(A, OTHER);
        case("replaced midway", vec![Fault::ReplaceMidway { after_bytes: SEGMENT / 2, with }], nth, 14);
    }
    case("unknown total", vec![Fault::UnknownTotal], 0, 0);
    case("no range", vec![Fault::NoRange], 0, 14);
    case("no ETag", vec![Fault::WithoutHeader(ETAG)], 0, 0);
    case("weak ETag", vec![Fault::WeakEtag], 0, 0);
    case("no Last-Modified", vec![Fault::WithoutHeader(LAST_MODIFIED)], 0, 0);
    case("no version", vec![Fault::WithoutHeader(ETAG), Fault::WithoutHeader(LAST_MODIFIED)], 0, 14);
    case("no Accept-Ranges", vec![Fault::WithoutHeader(ACCEPT_RANGES)], 0, 0);
    for name in ["no length", "no length and no range"] {
        let mut faults = vec![Fault::WithoutHeader(CONTENT_LENGTH)];
        if name != "no length" {
            faults.push(Fault::NoRange);
        }
        cases.push(Case { name: name.to_owned(), faults, nth: 0, more: 14, is_single: false, is_listed: false });
    }
    cases
}

/// How the objects are taken.
#[derive(Clone, Copy, Debug)]
enum Take {
    Files,
    Bodies(Keep),
}

/// The bytes of what was taken, or the error, and those that came before it.
type Taken = Result<Vec<u8>, (Vec<u8>, std::io::Error)>;

async fn take(
    how: Take,
    source: Arc<dyn Source>,
    plan: Vec<Request>,
    folder: &Path,
    options: DownloadOptions,
) -> Vec<Taken> {
    let mut taken = Vec::new();
    let mut place = 0;
    let mut check = |delivered: u64, request: &Request| {
        assert_eq!((delivered, request.key.as_str()), (place, OBJECTS[place as usize].0));
        place += 1;
    };
    match how {
        Take::Files => {
            let mut files = download(source, plan, folder, options);
            while let Some(delivery) = files.next().await {
                check(delivery.place, &delivery.request);
                let read = |staged: StagedFile| std::fs::read(staged.path).unwrap();
                taken.push(delivery.outcome.map(read).map_err(|error| (Vec::new(), std::io::Error::other(error))));
            }
        }
        Take::Bodies(keep) => {
            let mut bodies = stream(source, plan, folder, keep, options);
            while let Some(delivery) = bodies.next().await {
                check(delivery.place, &delivery.request);
                let mut body = delivery.outcome.unwrap();
                let mut bytes = Vec::new();
                let result = body.read_to_end(&mut bytes).await;
                assert_eq!(body.staged().is_some(), result.is_ok() && keep == Keep::File);
                taken.push(match result {
                    Ok(_) => Ok(bytes),
                    Err(error) => Err((bytes, error)),
                });
            }
        }
    }
    taken
}

/// Runs a case, and gives the requests beyond those of a run without a fault.
async fn run(case: &Case, how: Take, concurrency: usize, window: u64) -> u64 {
    let at = format!("{} of request {}, {how:?}, {concurrency} at once, window {window}", case.name, case.nth);
    let server = serve(&OBJECTS);
    let rules = case.faults.iter().map(|fault| {
        let rule = Rule::new(fault.clone()).key("a");
        server.fault(match (&fault, case.nth) {
            // Only while the first answers are under way: it is to be had whole in the end.
            (Fault::CorruptByte(_), _) => rule.containing(A / 2).first(1),
            (_, 0) => rule,
            (_, nth) => rule.nth(nth),
        })
    });
    let rules: Vec<_> = rules.collect();
    let folder = tempfile::tempdir().unwrap();
    let (events, mut options) = recorded();
    (options.concurrency, options.window, options.segment) = (concurrency, window, Some(SEGMENT));
    // Where nothing stalls, whatever takes long is the machine's fault, and no retry.
    let patience = if case.name == "stall" { Duration::from_millis(1500) } else { Duration::from_secs(60) };
    let mut source = impatient(&server, patience);
    let plan = match case.is_listed {
        true => plan(&OBJECTS),
        false => OBJECTS.iter().map(|(key, _)| Request::new(*key)).collect(),
    };
    if case.name == "corrupt byte" {
        let mut hasher = Hasher::new(&[Algorithm::Md5]);
        hasher.update(&content(1, A));
        source = Arc::new(StatingOne { source, key: "a", digests: hasher.finish() });
    }
    let taking = take(how, source, plan, folder.path(), options);
    let taken = tokio::time::timeout(Duration::from_secs(60), taking).await;
    let taken = taken.unwrap_or_else(|_| panic!("{at}: it hangs"));
    assert_eq!(taken.len(), OBJECTS.len(), "{at}");
    for (taken, (place, (key, len))) in taken.iter().zip((0..).zip(OBJECTS)) {
        match (taken, case.name.as_str(), how) {
            (Ok(bytes), "replaced", _) if key == "a" => assert!(*bytes == content(OTHER, A), "{at}: {key} differs"),
            // Whoever asked before goes on to get what was there.
            (Ok(bytes), "replaced midway", _) if key == "a" && *bytes == content(OTHER, A) => {}
            (Ok(bytes), ..) => assert!(*bytes == content(place, len), "{at}: {key} differs"),
            // What was read cannot be taken back.
            (Err((bytes, error)), "replaced" | "replaced midway" | "wrong total", Take::Bodies(_)) if key == "a" => {
                assert_eq!(error.kind(), ErrorKind::InvalidData, "{at}: {error}");
                assert!(!bytes.is_empty() && *bytes == content(place, len)[..bytes.len()], "{at}: {key} is mixed");
            }
            (Err((bytes, error)), "corrupt byte", Take::Bodies(_)) if key == "a" => {
                assert_eq!((error.kind(), bytes.len() as u64), (ErrorKind::InvalidData, len), "{at}: {error}");
            }
            (Err((_, error)), ..) => panic!("{at}: {key}: {error:?}"),
        }
    }
    assert_no_parts(folder.path());
    assert!(rules.iter().all(|rule| rule.hits() > 0), "{at}: it did not happen");
    let segments: u64 = OBJECTS.iter().map(|(_, len)| len.div_ceil(SEGMENT)).sum();
    let requests = server.requests().len() as u64;
    let said = events.lock().unwrap();
    assert!(requests <= segments + case.more, "{at}: {requests} requests, {segments} segments, {said:?}");
    // However many of its requests are under way.
    let failures = said.iter().filter(|text| text.starts_with("failed")).count();
    assert_eq!(failures, taken.iter().filter(|taken| taken.is_err()).count(), "{at}: {said:?}");
    let retries = said.iter().filter(|text| text.starts_with("retry")).count() as u64;
    assert!(retries <= case.more, "{at}: {said:?}");
    // Requests that are sent at once may come in any order, and the last segment may be whole before its end is cut off.
    let is_short = |after: u64| A % SEGMENT <= after;
    let may_be_whole = case
        .faults
        .iter()
        .any(|fault| matches!(fault, Fault::ResetAfter(after) | Fault::Truncate(after) if is_short(*after)));
    if case.is_single && !(may_be_whole && concurrency > 1 && retries == 0) {
        assert_eq!((retries, requests), (1, segments + 1), "{at}: {said:?}");
    }
    requests.saturating_sub(segments)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_and_bytes_of_files_hold_under_every_fault() {
    for case in cases() {
        for concurrency in [1, 2, 8, 32] {
            // Side by side: most of it is waiting.
            let run = |window| run(&case, Take::Files, concurrency, window);
            tokio::join!(run(1), run(3 * SEGMENT), run(1 << 40));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_and_bytes_of_bodies_hold_under_every_fault() {
    for case in cases() {
        for concurrency in [1, 2, 8, 32] {
            let run = |keep, window| run(&case, Take::Bodies(keep), concurrency, window);
            let (file, nothing) = (Keep::File, Keep::Nothing);
            tokio::join!(run(file, 1), run(nothing, 1), run(file, 1 << 40), run(nothing, 1 << 40));
        }
    }
}

#[tokio::test]
async fn ranges_under_the_status_of_the_whole_are_ranges() {
    for concurrency in [1, 8] {
        let server = serve(&OBJECTS);
        let rule = server.fault(Rule::new(Fault::RangeAsOk));
        let folder = tempfile::tempdir().unwrap();
        let (_, mut options) = recorded();
        (options.concurrency, options.segment) = (concurrency, Some(SEGMENT));
        let deliveries: Vec<_> = download(source(&server), plan(&OBJECTS), folder.path(), options).collect().await;
        for (delivery, (place, (key, len))) in deliveries.iter().zip((0..).zip(OBJECTS)) {
            let staged = delivery.outcome.as_ref().unwrap();
            assert!(std::fs::read(&staged.path).unwrap() == content(place, len), "{key} differs");
        }
        let segments: u64 = OBJECTS.iter().map(|(_, len)| len.div_ceil(SEGMENT)).sum();
        assert_eq!((rule.hits(), server.requests().len() as u64), (segments, segments));
    }
}

/// A source that states digests of one object.
struct StatingOne {
    source: Arc<dyn Source>,
    key: &'static str,
    digests: Vec<bulk_core::Digest>,
}

#[async_trait::async_trait]
impl Source for StatingOne {
    fn location(&self, key: &str) -> String {
        self.source.location(key)
    }

    async fn get(&self, get: &bulk_core::Get) -> Result<bulk_core::Body, bulk_core::Error> {
        let mut body = self.source.get(get).await?;
        if get.key == self.key {
            body.digests.clone_from(&self.digests);
        }
        Ok(body)
    }
}
