//! Random plans, faults, consumers and limits: the order is the plan's, the bytes are equal, the disk is not overrun.

use std::collections::{HashMap, VecDeque};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bulk_core::{Bodies, DiskBudget, Download, Error, Keep, Request, download, stream};
use bulk_testkit::s3::{Fault, Object, Rule, Server, Store};
use futures::StreamExt;
use proptest::prelude::*;
use tokio::io::AsyncReadExt;

#[path = "support/fetch.rs"]
mod fetch;
use fetch::*;

/// The largest object, which any limit has room for.
const LARGEST: u64 = 3_000_000;
/// Records and folders, which are no bytes of objects.
const OVERHEAD: u64 = 256 * KIB;

#[derive(Clone, Debug)]
struct Case {
    /// `None` is missing.
    sizes: Vec<Option<u64>>,
    is_listed: bool,
    faults: Vec<(u8, usize, u64)>,
    concurrency: usize,
    segment: u64,
    window: u64,
    limit: u64,
    /// How many deliveries the consumer holds before it lets one go.
    holds: usize,
    /// Milliseconds that it takes over each of them.
    pace: u64,
    /// Files, or bodies that are read while they arrive.
    take: Option<Keep>,
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = prop::collection::vec(prop::option::weighted(0.9, prop_oneof![0..100_000u64, 0..LARGEST]), 1..12);
    let faults = prop::collection::vec((0..7u8, 0..12usize, 1..4u64), 0..6);
    let window = prop_oneof![Just(1), 0..2 * LARGEST, Just(1 << 40)];
    let take = prop_oneof![Just(None), Just(Some(Keep::File)), Just(Some(Keep::Nothing))];
    let consumer = (0..3usize, 0..20u64, take);
    (sizes, any::<bool>(), faults, 1..9usize, 20_000..LARGEST, window, LARGEST..3 * LARGEST, consumer).prop_map(
        |(sizes, is_listed, faults, concurrency, segment, window, limit, (holds, pace, take))| Case {
            sizes,
            is_listed,
            faults,
            concurrency,
            segment,
            window,
            limit,
            holds,
            pace,
            take,
        },
    )
}

fn fault(kind: u8) -> Fault {
    match kind {
        0 => Fault::internal_error(),
        1 => Fault::ResetAfter(30_000),
        2 => Fault::Truncate(10_000),
        3 => Fault::NoRange,
        4 => Fault::WrongContentRange,
        5 => Fault::Latency(Duration::from_millis(5)),
        _ => Fault::Bandwidth(20_000_000),
    }
}

/// The bytes that each file below `folder` takes on the disk. What vanishes meanwhile is left out.
fn by_inode(folder: &Path, found: &mut HashMap<u64, u64>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => by_inode(&entry.path(), found),
            Ok(metadata) => drop(found.insert(metadata.ino(), metadata.blocks() * 512)),
            Err(_) => {}
        }
    }
}

async fn check(case: Case) {
    let objects: HashMap<_, _> =
        case.sizes.iter().enumerate().map(|(seed, size)| (format!("o{seed}"), *size)).collect();
    let store = objects
        .iter()
        .filter_map(|(key, size)| Some((key, (*size)?)))
        .fold(Store::memory(), |store, (key, size)| store.with(key, Object::made_up(size, key[1..].parse().unwrap())));
    let server = Server::builder().bucket(BUCKET, store).start().unwrap();
    for (kind, place, nth) in &case.faults {
        server.fault(Rule::new(fault(*kind)).key(&format!("o{place}")).nth(*nth));
    }
    let folder = tempfile::tempdir().unwrap();
    let plan: Vec<_> = (0..case.sizes.len())
        .map(|place| {
            let mut request = Request::new(format!("o{place}"));
            request.size = case.sizes[place].filter(|_| case.is_listed);
            request
        })
        .collect();
    let (events, mut options) = recorded();
    let budget = DiskBudget::new(folder.path());
    budget.set_limit(Some(case.limit));
    options.budget = Some(budget.clone());
    (options.concurrency, options.segment, options.window) = (case.concurrency, Some(case.segment), case.window);
    options.disk_patience = Duration::from_secs(30);
    // What the disk says, from another thread.
    let (ends, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let looks = Arc::new(AtomicU64::new(0));
    let watching = {
        let (ends, most, looks, folder) = (ends.clone(), most.clone(), looks.clone(), folder.path().to_owned());
        std::thread::spawn(move || {
            let mut before: HashMap<u64, u64> = HashMap::new();
            while !ends.load(Ordering::Relaxed) || looks.load(Ordering::Relaxed) < 2 {
                let mut now = HashMap::new();
                by_inode(&folder, &mut now);
                // What is there in both was there in between, all of it at once: a look takes its time, in which files
                // get other names, go, and make room for others.
                let both = now.iter().filter_map(|(inode, bytes)| Some(*before.get(inode)?.min(bytes)));
                most.fetch_max(both.sum(), Ordering::Relaxed);
                before = now;
                looks.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    match case.take {
        None => take_files(&case, download(source(&server), plan, folder.path(), options), &events).await,
        Some(keep) => take_bodies(&case, stream(source(&server), plan, folder.path(), keep, options), &events).await,
    }
    ends.store(true, Ordering::Relaxed);
    watching.join().unwrap();
    let most = most.load(Ordering::Relaxed);
    assert!(most <= case.limit + OVERHEAD, "{most} bytes on disk, {} allowed: {case:?}", case.limit);
    assert_eq!(budget.held(), 0, "{case:?}");
    assert_no_parts(folder.path());
}

async fn take_files(case: &Case, mut files: Download, events: &Events) {
    let (mut held, mut place) = (VecDeque::new(), 0);
    loop {
        // A consumer that holds what fills the disk would wait for itself.
        let delivery = match tokio::time::timeout(Duration::from_millis(100), files.next()).await {
            Ok(delivery) => delivery,
            Err(_) if held.pop_front().is_some() => continue,
            Err(_) => in_time(case, place, events, files.next()).await,
        };
        let Some(delivery) = delivery else { break };
        assert_eq!((delivery.place, &delivery.request.key), (place, &format!("o{place}")));
        match (delivery.outcome, case.sizes[place as usize]) {
            (Ok(staged), Some(size)) => {
                assert!(std::fs::read(&staged.path).unwrap() == content(place, size), "o{place} differs: {case:?}");
                tokio::time::sleep(Duration::from_millis(case.pace)).await;
                held.push_back(Held(staged.path.clone(), Some(staged)));
                if held.len() > case.holds {
                    held.pop_front();
                }
            }
            (Err(Error::NotFound { .. }), None) => {}
            (outcome, size) => panic!("o{place} of {size:?}: {outcome:?}, {:?}, {case:?}", events.lock().unwrap()),
        }
        place += 1;
    }
    assert_eq!(place as usize, case.sizes.len());
}

/// Reads each body by pieces, slowly, and removes the file of it, if there is one.
async fn take_bodies(case: &Case, mut bodies: Bodies, events: &Events) {
    let mut place = 0;
    while let Some(delivery) = in_time(case, place, events, bodies.next()).await {
        assert_eq!((delivery.place, &delivery.request.key), (place, &format!("o{place}")));
        let size = case.sizes[place as usize];
        place += 1;
        let mut body = match (delivery.outcome, size) {
            (Ok(body), Some(_)) => body,
            (Err(Error::NotFound { .. }), None) => continue,
            (outcome, _) => panic!("{:?}, {:?}, {case:?}", outcome.err(), events.lock().unwrap()),
        };
        let (mut bytes, mut piece) = (Vec::new(), vec![0; 1 << 20]);
        loop {
            match in_time(case, place, events, body.read(&mut piece)).await {
                Ok(0) => break,
                Ok(read) => bytes.extend_from_slice(&piece[..read]),
                Err(error) => panic!("{}: {error:?}, {:?}, {case:?}", delivery.place, events.lock().unwrap()),
            }
            tokio::time::sleep(Duration::from_millis(case.pace / 4)).await;
        }
        assert!(bytes == content(delivery.place, size.unwrap()), "{} differs: {case:?}", delivery.place);
        match (case.take, body.staged()) {
            (Some(Keep::File), Some(staged)) => std::fs::remove_file(&staged.path).unwrap(),
            (Some(Keep::Nothing), None) => {}
            (_, staged) => panic!("{}: {staged:?}, {case:?}", delivery.place),
        }
    }
    assert_eq!(place as usize, case.sizes.len());
}

/// What comes of `waiting`, which must not take for ever.
async fn in_time<T>(case: &Case, place: u64, events: &Events, waiting: impl Future<Output = T>) -> T {
    let came = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    came.unwrap_or_else(|_| panic!("{case:?} hangs at {place}: {:?}", events.lock().unwrap()))
}

/// A staged file that is removed before its space is free.
struct Held(std::path::PathBuf, Option<bulk_core::StagedFile>);

impl Drop for Held {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
        drop(self.1.take());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 90, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn deliveries_keep_the_order_and_the_limit(case in cases()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(check(case));
    }
}
