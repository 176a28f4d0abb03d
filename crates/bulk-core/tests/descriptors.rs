//! No file stays open, whatever becomes of a run. Alone in its process, whose files it counts.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bulk_core::{Event, FileSource, Keep, Request, Source, download, stream};
use bulk_testkit::s3::{Fault, Rule};
use futures::StreamExt;
use tokio::io::AsyncReadExt;

#[path = "support/fetch.rs"]
mod fetch;
use fetch::*;

const OBJECTS: [(&str, u64); 4] = [("a", 300_000), ("b", 0), ("c", 100_000), ("d", 1)];

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// One run, with an end of its kind.
async fn run(kind: u64, source: Arc<dyn Source>, folder: &Path) {
    let (_, mut options) = recorded();
    options.retry.attempts = 2;
    (options.concurrency, options.segment) = (1 + kind as usize % 8, Some(50_000));
    let mut plan = plan(&OBJECTS);
    plan.push(Request::new("missing"));
    plan.push(Request::new("../out"));
    let keep = if kind.is_multiple_of(2) { Keep::File } else { Keep::Nothing };
    match kind % 6 {
        0 => drop(download(source, plan, folder, options).collect::<Vec<_>>().await),
        // Dropped at once, after the first file, and after the first bytes.
        1 => drop(download(source, plan, folder, options)),
        2 => {
            let mut files = download(source, plan, folder, options);
            files.next().await;
        }
        3 => {
            let mut bodies = stream(source, plan, folder, keep, options);
            let mut some = [0; 1000];
            // It may fail: half of the runs are of a server that breaks off.
            let _ = bodies.next().await.unwrap().outcome.unwrap().read_exact(&mut some).await;
        }
        4 => {
            let mut bodies = stream(source, plan, folder, keep, options);
            while let Some(delivery) = bodies.next().await {
                if let Ok(mut body) = delivery.outcome {
                    let _ = body.read_to_end(&mut Vec::new()).await;
                }
            }
        }
        _ => {
            let stop = options.stop.clone();
            let mut files = download(source, plan, folder, options);
            files.next().await;
            stop.cancel();
            while files.next().await.is_some() {}
        }
    }
}

#[test]
fn a_hundred_runs_leave_no_file_open() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let objects = tempfile::tempdir().unwrap();
    for (place, (key, len)) in (0..).zip(OBJECTS) {
        std::fs::write(objects.path().join(key), content(place, len)).unwrap();
    }
    let server = serve(&OBJECTS);
    server.fault(Rule::new(Fault::ResetAfter(20_000)).key("c"));
    let mut before = 0;
    for kind in 0..=108 {
        let source: Arc<dyn Source> = match kind / 6 % 2 {
            0 => impatient(&server, Duration::from_secs(5)),
            _ => Arc::new(FileSource::new(objects.path())),
        };
        let folder = tempfile::tempdir().unwrap();
        runtime.block_on(run(kind, source, folder.path()));
        if kind == 8 {
            // What is made once is there by now.
            before = settled(0);
        }
    }
    runtime.block_on(many_bodies_that_wait());
    let after = settled(before);
    assert!(after <= before, "{before} files were open, and {after} are");
}

/// Files that are whole and wait for their reader are closed, those of an earlier run, too.
async fn many_bodies_that_wait() {
    const COUNT: usize = 300;
    let objects = tempfile::tempdir().unwrap();
    let key = |place: usize| format!("o{place:03}");
    for place in 0..COUNT {
        std::fs::write(objects.path().join(key(place)), content(place as u64, 100)).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    for fetched in [true, false] {
        let finished = Arc::new(AtomicUsize::new(0));
        let (_, mut options) = recorded();
        let sum = finished.clone();
        options.observer = Arc::new(move |event: &Event<'_>| {
            if matches!(event, Event::Finished { fetched: bytes, .. } if (*bytes > 0) == fetched) {
                sum.fetch_add(1, Ordering::Relaxed);
            }
        });
        let source = Arc::new(FileSource::new(objects.path()));
        let before = open_files();
        let plan = (0..COUNT).map(move |place| Request::new(key(place)));
        let mut bodies = stream(source, plan, folder.path(), Keep::File, options);
        while finished.load(Ordering::Relaxed) < COUNT {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let opened = open_files().saturating_sub(before);
        assert!(opened < COUNT / 4, "{opened} files are open for {COUNT} bodies");
        for place in 0..COUNT {
            let mut bytes = Vec::new();
            bodies.next().await.unwrap().outcome.unwrap().read_to_end(&mut bytes).await.unwrap();
            assert_eq!(bytes, content(place as u64, 100));
        }
        assert!(bodies.next().await.is_none());
    }
}

/// The files that are open when connections and tasks that have ended are gone: as soon as they are `expected`, or as they
/// are when nothing has changed for a while.
fn settled(expected: usize) -> usize {
    let (mut since, mut last) = (Instant::now(), open_files());
    while last > expected && since.elapsed() < Duration::from_secs(3) {
        std::thread::sleep(Duration::from_millis(20));
        let now = open_files();
        if now != last {
            (since, last) = (Instant::now(), now);
        }
    }
    last
}
