//! Bytes in order, while later ones still arrive.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bulk_core::{
    Algorithm, BlockingBody, Bodies, Digest, DiskBudget, DownloadOptions, Error, Event, Hasher, Keep, OrderedBody,
    Request, Source, stream,
};
use bulk_testkit::s3::{Fault, Object, Rule};
use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt};

#[path = "support/fetch.rs"]
mod fetch;
use fetch::*;

/// Longer than anything here takes: a test that hangs ends with it.
const FOREVER: Duration = Duration::from_secs(60);

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(FOREVER, future).await.expect("it hangs")
}

/// A body, read by async code or by a thread.
enum Reader {
    Tasks(OrderedBody),
    Threads(Option<BlockingBody>),
}

impl Reader {
    fn new(body: OrderedBody, blocks: bool) -> Self {
        if blocks { Self::Threads(Some(body.into_blocking())) } else { Self::Tasks(body) }
    }

    /// At most `len` bytes; fewer at the end.
    async fn take(&mut self, len: u64) -> io::Result<Vec<u8>> {
        let taking = async {
            match self {
                Self::Tasks(body) => {
                    let mut bytes = Vec::new();
                    body.take(len).read_to_end(&mut bytes).await?;
                    Ok(bytes)
                }
                Self::Threads(place) => {
                    let mut body = place.take().unwrap();
                    let (body, result) = tokio::task::spawn_blocking(move || {
                        let mut bytes = Vec::new();
                        let result = body.by_ref().take(len).read_to_end(&mut bytes);
                        (body, result.map(|_| bytes))
                    })
                    .await
                    .unwrap();
                    *place = Some(body);
                    result
                }
            }
        };
        in_time(taking).await
    }
}

async fn next(bodies: &mut Bodies) -> OrderedBody {
    in_time(bodies.next()).await.unwrap().outcome.unwrap()
}

/// The error of ours within.
fn ours(error: &io::Error) -> &Error {
    error.get_ref().unwrap_or_else(|| panic!("{error:?}")).downcast_ref().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_can_be_read_before_the_object_is_whole() {
    let len = 2 * MIB + 12_345;
    let bytes = content(0, len);
    for blocks in [false, true] {
        for (concurrency, segment) in
            [(1, Some(64 * KIB)), (2, Some(64 * KIB)), (8, Some(64 * KIB)), (1, None), (8, Some(MIB))]
        {
            for keep in [Keep::File, Keep::Nothing] {
                let server = serve(&[("a", len)]);
                let last_begin = segment.map_or(0, |segment| len / segment * segment);
                let stall = server.fault(Rule::new(Fault::StallAfter(1000)).containing(len - 1).first(1));
                let folder = tempfile::tempdir().unwrap();
                let (events, mut options) = recorded();
                options.concurrency = concurrency;
                options.segment = segment;
                let source = impatient(&server, Duration::from_secs(2));
                let mut bodies = stream(source, plan(&[("a", len)]), folder.path(), keep, options);
                let body = next(&mut bodies).await;
                assert_eq!(body.size(), Some(len));
                let mut reader = Reader::new(body, blocks);
                let first = last_begin + 1000;
                let head = reader.take(first).await.unwrap();
                assert!(head == bytes[..first as usize]);
                assert_eq!((stall.hits(), count(&events, "retry")), (1, 0), "it stalls yet");
                let rest = reader.take(u64::MAX).await.unwrap();
                assert!(rest == bytes[first as usize..]);
                drop(reader);
                assert!(in_time(bodies.next()).await.is_none());
                let left = match keep {
                    Keep::File => vec!["a.json".to_owned()],
                    _ => vec![],
                };
                assert_eq!(state(folder.path()), left);
                assert_eq!(folder.path().join("a").exists(), keep == Keep::File);
                if keep == Keep::File {
                    assert!(std::fs::read(folder.path().join("a")).unwrap() == bytes);
                }
            }
        }
    }
}

#[tokio::test]
async fn the_first_segments_are_small_where_several_are_fetched_at_once() {
    for (concurrency, first) in [(1, 8 * MIB), (4, 512 * KIB)] {
        let len = 40 * MIB;
        let server = serve(&[("a", len)]);
        let folder = tempfile::tempdir().unwrap();
        let (_, mut options) = recorded();
        options.concurrency = concurrency;
        let mut bodies = stream(source(&server), plan(&[("a", len)]), folder.path(), Keep::Nothing, options);
        let mut reader = Reader::new(next(&mut bodies).await, false);
        assert!(reader.take(u64::MAX).await.unwrap() == content(0, len));
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for request in server.requests() {
            let range = request.range.unwrap();
            let (start, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
            let start: u64 = start.parse().unwrap();
            let end = if last.is_empty() { len } else { last.parse::<u64>().unwrap() + 1 };
            ranges.push((start, end - start));
        }
        ranges.sort_unstable();
        let expected: Vec<_> = (0..concurrency as u64).map(|place| (place * first, first)).collect();
        assert_eq!(ranges[..concurrency], expected);
        assert!(ranges.iter().any(|(_, len)| *len > 512 * KIB), "{ranges:?}");
    }
}

/// A reader that waits for the network has nothing ahead of it that segments could grow with.
#[tokio::test]
async fn segments_are_worth_their_requests_where_answers_take_long() {
    let len = 24 * MIB;
    let server = serve(&[("a", len)]);
    server.fault(Rule::new(Fault::Latency(Duration::from_millis(100))));
    server.fault(Rule::new(Fault::Bandwidth(4_000_000)));
    let folder = tempfile::tempdir().unwrap();
    let (_, mut options) = recorded();
    options.concurrency = 4;
    let mut bodies = stream(source(&server), plan(&[("a", len)]), folder.path(), Keep::Nothing, options);
    let mut reader = Reader::new(next(&mut bodies).await, false);
    assert!(reader.take(u64::MAX).await.unwrap() == content(0, len));
    let requests = server.requests().len();
    assert!(requests < 36, "{requests} requests, and 48 of the smallest segments would do");
}

#[tokio::test]
async fn what_arrived_can_be_read_while_its_connection_stands_still() {
    let server = serve(&[("a", MIB)]);
    server.fault(Rule::new(Fault::StallAfter(300_000)));
    let folder = tempfile::tempdir().unwrap();
    let (_, mut options) = recorded();
    options.concurrency = 1;
    let mut bodies = stream(source(&server), plan(&[("a", MIB)]), folder.path(), Keep::File, options);
    let mut body = next(&mut bodies).await;
    let mut head = vec![0; 300_000];
    in_time(body.read_exact(&mut head)).await.unwrap();
    assert!(head == content(0, 300_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_is_fetched_than_the_window_has_room_for() {
    const LEN: u64 = 16 * MIB;
    for keep in [Keep::File, Keep::Nothing] {
        let server = serve(&[("a", LEN), ("b", LEN)]);
        let folder = tempfile::tempdir().unwrap();
        let (_, mut options) = recorded();
        (options.concurrency, options.window, options.segment) = (4, MIB, Some(256 * KIB));
        let mut bodies = stream(source(&server), plan(&[("a", LEN), ("b", LEN)]), folder.path(), keep, options);
        let mut bytes = Vec::new();
        let mut body = next(&mut bodies).await;
        for _ in 0..8 {
            let mut some = vec![0; 100_000];
            in_time(body.read_exact(&mut some)).await.unwrap();
            bytes.extend(some);
            // If it went on, it would by now.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let sent: u64 = server.requests().iter().map(|request| request.bytes_sent).sum();
            let allowed = bytes.len() as u64 + MIB + 256 * KIB;
            assert!(sent <= allowed, "{sent} bytes sent, {allowed} allowed");
        }
        in_time(body.read_to_end(&mut bytes)).await.unwrap();
        assert!(bytes == content(0, LEN));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_leaves_the_disk() {
    const LEN: u64 = 64 * MIB;
    for (blocks, digests) in [(true, vec![]), (false, vec![Algorithm::Sha256])] {
        let server = serve(&[("a", LEN)]);
        let folder = tempfile::tempdir().unwrap();
        let (_, mut options) = recorded();
        (options.concurrency, options.window, options.segment) = (4, 4 * MIB, Some(MIB));
        options.digests = digests;
        let budget = DiskBudget::new(folder.path());
        options.budget = Some(budget.clone());
        let mut bodies = stream(source(&server), plan(&[("a", LEN)]), folder.path(), Keep::Nothing, options);
        let mut reader = Reader::new(next(&mut bodies).await, blocks);
        let (mut largest, mut hasher) = (0, Hasher::new(&[Algorithm::Md5]));
        loop {
            let bytes = reader.take(256 * KIB).await.unwrap();
            largest = largest.max(allocated(folder.path()));
            if bytes.is_empty() {
                break;
            }
            hasher.update(&bytes);
        }
        let mut whole = Hasher::new(&[Algorithm::Md5]);
        whole.update(&content(0, LEN));
        assert_eq!(hasher.finish(), whole.finish());
        // The window, what is read and not worth a call yet, and a segment in front.
        assert!(largest <= (4 + 4 + 3) * MIB, "{largest}");
        drop(reader);
        assert!(in_time(bodies.next()).await.is_none());
        assert_eq!((state(folder.path()), budget.held()), (vec![], 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_of_an_object_that_is_all_there_gives_its_space_back() {
    const LEN: u64 = 10 * MIB;
    let server = serve(&[("a", LEN)]);
    let folder = tempfile::tempdir().unwrap();
    let (_, mut options) = recorded();
    let budget = DiskBudget::new(folder.path());
    options.budget = Some(budget.clone());
    let is_whole = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let whole = is_whole.clone();
    options.observer = Arc::new(move |event: &Event<'_>| {
        if matches!(event, Event::Finished { .. }) {
            whole.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    });
    let mut bodies = stream(source(&server), plan(&[("a", LEN)]), folder.path(), Keep::Nothing, options);
    let mut body = next(&mut bodies).await;
    while !is_whole.load(std::sync::atomic::Ordering::Relaxed) || budget.unwritten() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(budget.held(), LEN);
    for read in 1..=5 {
        let mut bytes = vec![0; 2 * MIB as usize];
        in_time(body.read_exact(&mut bytes)).await.unwrap();
        assert_eq!(budget.held(), LEN - read / 2 * 4 * MIB, "after {read}");
    }
    assert!(allocated(folder.path()) <= 2 * MIB + 64 * KIB);
    assert!(body.staged().is_none());
    drop(body);
    assert_eq!((budget.held(), state(folder.path())), (0, vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_dropped_early_leaves_nothing_if_nothing_is_kept() {
    const LEN: u64 = 12 * MIB;
    for read in [0, 1, 5 * MIB, LEN] {
        for blocks in [false, true] {
            let server = serve(&[("a", LEN), ("b", 1000)]);
            let folder = tempfile::tempdir().unwrap();
            let (_, mut options) = recorded();
            options.segment = Some(MIB);
            let budget = DiskBudget::new(folder.path());
            options.budget = Some(budget.clone());
            let plan = plan(&[("a", LEN), ("b", 1000)]);
            let mut bodies = stream(source(&server), plan, folder.path(), Keep::Nothing, options);
            let mut reader = Reader::new(next(&mut bodies).await, blocks);
            assert!(reader.take(read).await.unwrap() == content(0, read));
            drop(reader);
            let mut second = Vec::new();
            in_time(next(&mut bodies).await.read_to_end(&mut second)).await.unwrap();
            assert!(second == content(1, 1000));
            assert!(in_time(bodies.next()).await.is_none());
            drop(bodies);
            assert_eq!((state(folder.path()), budget.held()), (vec![], 0), "after {read}");
        }
    }
}

#[tokio::test]
async fn a_body_dropped_early_is_resumed_by_the_next_run() {
    const LEN: u64 = 4 * MIB;
    let server = serve(&[("a", LEN), ("b", 1000)]);
    let objects = [("a", LEN), ("b", 1000)];
    let stall = server.fault(Rule::new(Fault::StallAfter(0)).key("a").containing(3 * MIB));
    let folder = tempfile::tempdir().unwrap();
    let (_, mut options) = recorded();
    (options.concurrency, options.segment) = (2, Some(MIB));
    let mut bodies = stream(source(&server), plan(&objects), folder.path(), Keep::File, options.clone());
    let mut body = next(&mut bodies).await;
    let mut head = vec![0; 3 * MIB as usize];
    in_time(body.read_exact(&mut head)).await.unwrap();
    drop(body);
    // What is behind it goes on.
    let mut second = Vec::new();
    in_time(next(&mut bodies).await.read_to_end(&mut second)).await.unwrap();
    assert!(second == content(1, 1000));
    assert!(in_time(bodies.next()).await.is_none());
    drop(bodies);
    stall.remove();
    server.clear_requests();

    let mut bodies = stream(source(&server), plan(&objects), folder.path(), Keep::File, options);
    let mut bytes = Vec::new();
    in_time(next(&mut bodies).await.read_to_end(&mut bytes)).await.unwrap();
    assert!(bytes == content(0, LEN));
    in_time(next(&mut bodies).await.read_to_end(&mut second)).await.unwrap();
    let requests = server.requests();
    let of = |key| requests.iter().filter(move |request| request.key.as_deref() == Some(key));
    let ranges: Vec<_> = of("a").map(|request| request.range.as_deref()).collect();
    assert_eq!(ranges, [Some("bytes=3145728-")]);
    // The plan names no version, so it is asked whether what is there is still the one.
    let ranges: Vec<_> = of("b").map(|request| request.range.as_deref()).collect();
    assert_eq!(ranges, [Some("bytes=0-0")]);
}

#[tokio::test]
async fn an_object_replaced_before_its_first_byte_is_read_is_the_new_one() {
    let server = serve(&[("a", MIB)]);
    server.fault(Rule::new(Fault::ReplaceBefore(Object::made_up(MIB - 7, 9))).nth(3));
    let folder = tempfile::tempdir().unwrap();
    let (events, mut options) = recorded();
    (options.concurrency, options.segment) = (1, Some(64 * KIB));
    let mut bodies = stream(source(&server), plan(&[("a", MIB)]), folder.path(), Keep::File, options);
    let mut body = next(&mut bodies).await;
    while count(&events, "restart") == 0 {
        tokio::task::yield_now().await;
    }
    let mut bytes = Vec::new();
    in_time(body.read_to_end(&mut bytes)).await.unwrap();
    assert!(bytes == content(9, MIB - 7));
    assert_eq!(body.staged().unwrap().size, MIB - 7);
}

/// An object of two versions is read: whatever the reader gets is of the first, and ends in an error.
async fn read_replaced(blocks: bool, keep: Keep) {
    let server = serve(&[("a", MIB)]);
    let hang = server.fault(Rule::new(Fault::Hang).containing(512 * KIB));
    let folder = tempfile::tempdir().unwrap();
    let (_, mut options) = recorded();
    (options.concurrency, options.segment) = (1, Some(512 * KIB));
    let source = impatient(&server, Duration::from_millis(300));
    let mut bodies = stream(source.clone(), plan(&[("a", MIB)]), folder.path(), keep, options.clone());
    let mut reader = Reader::new(next(&mut bodies).await, blocks);
    assert!(reader.take(10).await.unwrap() == content(0, 10));
    server.put(BUCKET, "a", Object::made_up(MIB, 9)).unwrap();
    hang.remove();
    let error = reader.take(u64::MAX).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(matches!(ours(&error), Error::Changed { .. }), "{error:?}");
    drop(reader);
    assert!(in_time(bodies.next()).await.is_none());
    drop(bodies);

    // And the next run has the new one.
    let mut bodies = stream(source, plan(&[("a", MIB)]), folder.path(), keep, options);
    let mut reader = Reader::new(next(&mut bodies).await, blocks);
    assert!(reader.take(u64::MAX).await.unwrap() == content(9, MIB));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_replaced_after_bytes_were_read_is_an_error() {
    for blocks in [false, true] {
        for keep in [Keep::File, Keep::Nothing] {
            read_replaced(blocks, keep).await;
        }
    }
}

#[tokio::test]
async fn bytes_that_are_being_read_are_never_followed_by_those_of_another_version() {
    let server = serve(&[("a", MIB)]);
    let hang = server.fault(Rule::new(Fault::Hang).containing(512 * KIB));
    let folder = tempfile::tempdir().unwrap();
    let (events, mut options) = recorded();
    (options.concurrency, options.segment) = (1, Some(512 * KIB));
    let source = impatient(&server, Duration::from_millis(300));
    let mut bodies = stream(source, plan(&[("a", MIB)]), folder.path(), Keep::File, options);
    let mut body = next(&mut bodies).await;
    let mut some = [0; 16];
    let mut buffer = tokio::io::ReadBuf::new(&mut some);
    while hang.hits() == 0 {
        tokio::task::yield_now().await;
    }
    // The bytes are on their way out of the part, and taken at most in part.
    let mut read = std::future::poll_fn(|context| std::pin::Pin::new(&mut body).poll_read(context, &mut buffer));
    let _ = futures::poll!(&mut read);
    let mut bytes = buffer.filled().to_vec();
    server.put(BUCKET, "a", Object::made_up(MIB, 9)).unwrap();
    hang.remove();
    while count(&events, "restart") + count(&events, "failed") == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let result = in_time(body.read_to_end(&mut bytes)).await;
    let old = bytes.len() <= MIB as usize && bytes == content(0, bytes.len() as u64);
    assert!(old && result.is_err(), "{} bytes, {result:?}", bytes.len());
}

#[tokio::test]
async fn a_missing_object_is_an_item_in_its_place() {
    let server = serve(&[("a", 1000), ("c", 2000)]);
    let folder = tempfile::tempdir().unwrap();
    let (_, options) = recorded();
    let requests = ["a", "b", "c", "../d"].map(Request::new);
    let mut bodies = stream(source(&server), requests, folder.path(), Keep::Nothing, options);
    let mut outcomes = Vec::new();
    while let Some(delivery) = in_time(bodies.next()).await {
        assert_eq!(delivery.place, outcomes.len() as u64);
        outcomes.push(match delivery.outcome {
            Ok(mut body) => {
                let mut bytes = Vec::new();
                body.read_to_end(&mut bytes).await.unwrap();
                Ok(bytes.len())
            }
            Err(error) => Err(error.to_string()),
        });
    }
    let missing = format!("{}/{BUCKET}/b does not exist", server.url());
    let name = "\"../d\" cannot be staged: it leaves the folder".to_owned();
    assert_eq!(outcomes, [Ok(1000), Err(missing), Ok(2000), Err(name)]);
    assert_eq!(state(folder.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_read_side_by_side_and_out_of_order() {
    let sizes = [("a", MIB), ("b", 300_000), ("c", 0), ("d", 2 * MIB), ("e", 1)];
    let server = serve(&sizes);
    for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 4, 1, 0, 3]] {
        for blocks in [false, true] {
            for keep in [Keep::File, Keep::Nothing] {
                let folder = tempfile::tempdir().unwrap();
                let (_, mut options) = recorded();
                options.segment = Some(100_000);
                let mut bodies = stream(source(&server), plan(&sizes), folder.path(), keep, options);
                let mut readers = Vec::new();
                for (key, _) in sizes {
                    let delivery = in_time(bodies.next()).await.unwrap();
                    assert_eq!(delivery.request.key, key);
                    readers.push(Some(Reader::new(delivery.outcome.unwrap(), blocks)));
                }
                for place in order {
                    let mut reader = readers[place].take().unwrap();
                    assert!(reader.take(u64::MAX).await.unwrap() == content(place as u64, sizes[place].1), "{place}");
                }
                assert!(in_time(bodies.next()).await.is_none());
                drop(bodies);

                // And all at once, in turns.
                let mut bodies = stream(source(&server), plan(&sizes), folder.path(), Keep::Nothing, recorded().1);
                let mut readers = Vec::new();
                for _ in sizes {
                    readers.push((Reader::new(next(&mut bodies).await, blocks), Vec::new()));
                }
                loop {
                    let mut took = 0;
                    for (reader, bytes) in &mut readers {
                        let some = reader.take(50_000).await.unwrap();
                        took += some.len();
                        bytes.extend(some);
                    }
                    if took == 0 {
                        break;
                    }
                }
                for (place, (_, bytes)) in readers.iter().enumerate() {
                    assert!(*bytes == content(place as u64, sizes[place].1), "{place}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_the_readers_and_keeps_what_arrived() {
    for (blocks, digests) in [(false, vec![]), (true, vec![Algorithm::Sha256])] {
        const LEN: u64 = 10 * MIB;
        let server = serve(&[("a", LEN)]);
        let hang = server.fault(Rule::new(Fault::Hang).containing(9 * MIB));
        let folder = tempfile::tempdir().unwrap();
        let (_, mut options) = recorded();
        (options.concurrency, options.segment) = (1, Some(MIB));
        options.digests = digests;
        let stop = options.stop.clone();
        let mut bodies = stream(source(&server), plan(&[("a", LEN)]), folder.path(), Keep::File, options);
        let mut reader = Reader::new(next(&mut bodies).await, blocks);
        assert!(reader.take(9 * MIB).await.unwrap() == content(0, 9 * MIB));
        let waiting = tokio::spawn(async move { reader.take(1).await });
        stop.cancel();
        let error = waiting.await.unwrap().unwrap_err();
        assert!(matches!(ours(&error), Error::Interrupted { .. }), "{error:?}");
        assert!(in_time(bodies.next()).await.is_none());
        drop(bodies);
        hang.remove();
        server.clear_requests();
        let mut bodies = stream(source(&server), plan(&[("a", LEN)]), folder.path(), Keep::File, recorded().1);
        assert!(Reader::new(next(&mut bodies).await, blocks).take(u64::MAX).await.unwrap() == content(0, LEN));
        assert_eq!(server.requests()[0].range, Some(format!("bytes={}-", 9 * MIB)));
    }
}

#[test]
fn the_end_of_the_bodies_or_of_the_runtime_ends_the_readers() {
    for ends_runtime in [false, true] {
        for digests in [vec![], vec![Algorithm::Sha256]] {
            let server = serve(&[("a", 20 * MIB)]);
            server.fault(Rule::new(Fault::Hang).containing(10 * MIB));
            let folder = tempfile::tempdir().unwrap();
            let (_, mut options) = recorded();
            options.segment = Some(MIB);
            options.digests = digests;
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let (bodies, body) = runtime.block_on(async {
                let mut bodies = stream(source(&server), plan(&[("a", 20 * MIB)]), folder.path(), Keep::File, options);
                let body = next(&mut bodies).await;
                (bodies, body)
            });
            let (told, tells) = std::sync::mpsc::channel();
            let reading = std::thread::spawn(move || {
                let mut body = body.into_blocking();
                let mut bytes = vec![0; 10 * MIB as usize];
                body.read_exact(&mut bytes).unwrap();
                told.send(()).unwrap();
                let result = body.read(&mut bytes);
                told.send(()).unwrap();
                result.map_err(|error| matches!(ours(&error), Error::Interrupted { .. }))
            });
            tells.recv_timeout(FOREVER).unwrap();
            let (bodies, runtime) = match ends_runtime {
                true => {
                    runtime.shutdown_background();
                    (Some(bodies), None)
                }
                false => {
                    drop(bodies);
                    (None, Some(runtime))
                }
            };
            tells.recv_timeout(FOREVER).expect("its reader hangs");
            assert_eq!(reading.join().unwrap(), Err(true));
            drop((bodies, runtime));
        }
    }
}

#[tokio::test]
async fn the_end_of_the_bodies_ends_a_reader_that_is_a_task() {
    let server = serve(&[("a", MIB)]);
    server.fault(Rule::new(Fault::Hang).containing(512 * KIB));
    let folder = tempfile::tempdir().unwrap();
    let (_, mut options) = recorded();
    options.segment = Some(512 * KIB);
    let mut bodies = stream(source(&server), plan(&[("a", MIB)]), folder.path(), Keep::File, options);
    let mut body = next(&mut bodies).await;
    let (told, tells) = tokio::sync::oneshot::channel();
    let reading = tokio::spawn(async move {
        let mut bytes = vec![0; 512 * KIB as usize];
        body.read_exact(&mut bytes).await.unwrap();
        let mut rest = Vec::new();
        let mut read = std::pin::pin!(body.read_to_end(&mut rest));
        assert!(futures::poll!(&mut read).is_pending());
        told.send(()).unwrap();
        read.await
    });
    in_time(tells).await.unwrap();
    drop(bodies);
    let error = in_time(reading).await.unwrap().unwrap_err();
    assert!(matches!(ours(&error), Error::Interrupted { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_digest_is_said_at_the_end_and_nothing_of_the_file_stays() {
    const LEN: u64 = 9 * MIB;
    let wrong = [Digest::Md5([1; 16]), Digest::Sha256([1; 32]), Digest::Crc64Nvme(1), Digest::Crc32c(1)];
    for digest in wrong {
        for keep in [Keep::File, Keep::Nothing] {
            let server = serve(&[("a", LEN)]);
            let folder = tempfile::tempdir().unwrap();
            let (_, mut options) = recorded();
            options.segment = Some(MIB);
            let stating = Stating { source: source(&server), digests: vec![digest] };
            let mut bodies = stream(Arc::new(stating), plan(&[("a", LEN)]), folder.path(), keep, options);
            let mut body = next(&mut bodies).await;
            let mut bytes = vec![0; LEN as usize];
            in_time(body.read_exact(&mut bytes)).await.unwrap();
            assert!(bytes == content(0, LEN));
            let error = in_time(body.read(&mut bytes)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(matches!(ours(&error), Error::Corrupt { .. }), "{error:?}");
            drop(body);
            assert!(in_time(bodies.next()).await.is_none());
            assert_eq!(state(folder.path()), Vec::<String>::new());
            assert!(!folder.path().join("a").exists());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn right_digests_are_accepted_whether_bytes_stay_or_not() {
    const LEN: u64 = 20 * MIB;
    let algorithms = [Algorithm::Md5, Algorithm::Sha256, Algorithm::Crc32c, Algorithm::Crc64Nvme];
    let mut hasher = Hasher::new(&algorithms);
    hasher.update(&content(0, LEN));
    let digests = hasher.finish();
    for keep in [Keep::File, Keep::Nothing] {
        for early in [false, true] {
            let server = serve(&[("a", LEN)]);
            let folder = tempfile::tempdir().unwrap();
            let (_, mut options) = recorded();
            (options.segment, options.window) = (Some(MIB), 4 * MIB);
            let source: Arc<dyn Source> = match early {
                true => Arc::new(Stating { source: source(&server), digests: digests.clone() }),
                false => Arc::new(StatingLate { source: source(&server), digests: digests.clone() }),
            };
            let mut bodies = stream(source, plan(&[("a", LEN)]), folder.path(), keep, options);
            let mut bytes = Vec::new();
            in_time(next(&mut bodies).await.read_to_end(&mut bytes)).await.unwrap();
            assert!(bytes == content(0, LEN));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_digest_that_is_stated_late_is_compared_also_beside_one_that_was_asked_for() {
    const LEN: u64 = 20 * MIB;
    let server = serve(&[("a", LEN)]);
    for (wrong, digests) in [(Digest::Md5([1; 16]), vec![Algorithm::Sha256]), (Digest::Sha256([1; 32]), vec![])] {
        let folder = tempfile::tempdir().unwrap();
        let (events, mut options) = recorded();
        options.digests = digests;
        let late = StatingLate { source: source(&server), digests: vec![wrong] };
        let mut files = bulk_core::download(Arc::new(late), plan(&[("a", LEN)]), folder.path(), options);
        let error = in_time(files.next()).await.unwrap().outcome.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        assert_eq!(count(&events, "restart a: its "), 3);
        assert!(!folder.path().join("a").exists());
        assert_eq!(state(folder.path()), Vec::<String>::new());
    }
}

/// A source that states digests only when asked for them.
struct StatingLate {
    source: Arc<dyn Source>,
    digests: Vec<Digest>,
}

#[async_trait::async_trait]
impl Source for StatingLate {
    fn location(&self, key: &str) -> String {
        self.source.location(key)
    }

    async fn get(&self, get: &bulk_core::Get) -> Result<bulk_core::Body, Error> {
        self.source.get(get).await
    }

    async fn digests(&self, _: &str, _: Option<&bulk_core::ETag>) -> Result<Vec<Digest>, Error> {
        Ok(self.digests.clone())
    }
}

#[tokio::test]
async fn bytes_that_left_the_disk_are_not_taken_for_those_of_the_object() {
    const LEN: u64 = 16 * MIB;
    let server = serve(&[("a", LEN)]);
    let folder = tempfile::tempdir().unwrap();
    // A run that keeps everything leaves a part with all but its last bytes.
    let fault = server.fault(Rule::new(Fault::Truncate(LEN - 1000)));
    let (_, mut options) = recorded();
    (options.concurrency, options.segment, options.retry.attempts) = (1, Some(LEN), 1);
    let run = |keep, options: &DownloadOptions| {
        stream(source(&server), plan(&[("a", LEN)]), folder.path(), keep, options.clone())
    };
    let mut bodies = run(Keep::File, &options);
    let mut bytes = Vec::new();
    in_time(next(&mut bodies).await.read_to_end(&mut bytes)).await.unwrap_err();
    assert_eq!(bytes.len() as u64, LEN - 1000);
    drop(bodies);
    fault.remove();
    // One that keeps nothing reads half of it, and is killed: what the disk has at that moment is what the next one finds.
    server.fault(Rule::new(Fault::StallAfter(10)));
    let mut bodies = run(Keep::Nothing, &options);
    let mut body = next(&mut bodies).await;
    let mut half = vec![0; LEN as usize / 2];
    in_time(body.read_exact(&mut half)).await.unwrap();
    assert!(half == content(0, LEN / 2));
    let taken = folder.path().join("taken");
    copy(&folder.path().join(".bulk"), &taken);
    drop(body);
    drop(bodies);
    server.clear_faults();
    std::fs::remove_dir_all(folder.path().join(".bulk")).unwrap();
    std::fs::rename(taken, folder.path().join(".bulk")).unwrap();
    let mut bodies = run(Keep::File, &options);
    let mut bytes = Vec::new();
    in_time(next(&mut bodies).await.read_to_end(&mut bytes)).await.unwrap();
    assert!(bytes == content(0, LEN));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
