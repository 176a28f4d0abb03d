//! What it costs to be metered: `cargo bench -p bulk-benches --bench meters`.
//!
//! A chunk's calls are one wait for input, one for output, and one count. The last group is a pipeline of two threads that
//! hand chunks of 64 KiB on and hash them, with and without meters: the whole cost.

use std::hint::black_box;
use std::sync::mpsc::sync_channel;
use std::task::{Context, Poll, Waker};
use std::thread;

use bulk_core::{Crc64Nvme, Meters, Resource, Wait, WorkerMeter};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 2000;

fn calls(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("meter");
    let meters = Meters::new();
    let worker = meters.stage("a", &[Resource::Cpu], &[]).worker();
    group.bench_function("wait", |bencher| bencher.iter(|| worker.wait(Wait::Input, || black_box(1))));
    group.bench_function("wait for a limit", |bencher| {
        bencher.iter(|| worker.wait(Wait::RateLimit, || black_box(1)));
    });
    group.bench_function("add", |bencher| bencher.iter(|| worker.add(1, black_box(CHUNK as u64))));
    group.bench_function("poll", |bencher| {
        let mut context = Context::from_waker(Waker::noop());
        let polls = std::future::poll_fn(|_| Poll::<()>::Pending);
        let mut task = Box::pin(worker.run(polls));
        bencher.iter(|| task.as_mut().poll(&mut context).is_pending());
    });
    let others: Vec<_> = (0..16).map(|i| meters.stage(&i.to_string(), &[], &[]).worker()).collect();
    group.bench_function("sample of 17 stages", |bencher| bencher.iter(|| meters.sample()));
    drop(others);
    group.finish();
}

fn pipeline(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("two threads, chunks of 64 KiB");
    group.throughput(Throughput::Bytes((CHUNK * CHUNKS) as u64)).sample_size(30);
    group.bench_function("plain", |bencher| bencher.iter(|| hash(None)));
    group.bench_function("metered", |bencher| {
        bencher.iter(|| {
            let meters = Meters::new();
            let read = meters.stage("read", &[Resource::Cpu], &[]).worker();
            hash(Some((read, meters.stage("hash", &[Resource::Cpu], &["read"]).worker())))
        });
    });
    group.finish();
}

/// Bytes that one thread makes and another one hashes.
fn hash(meters: Option<(WorkerMeter, WorkerMeter)>) -> u64 {
    let (send, receive) = sync_channel::<Vec<u8>>(4);
    let (read, hash) = meters.unzip();
    thread::scope(|scope| {
        scope.spawn(move || {
            for chunk in 0..CHUNKS {
                let chunk = vec![chunk as u8; CHUNK];
                if let Some(read) = &read {
                    read.add(1, CHUNK as u64);
                }
                waiting(&read, Wait::Output, || send.send(chunk)).expect("somebody hashes");
            }
        });
        let mut sum = Crc64Nvme::new();
        while let Ok(chunk) = waiting(&hash, Wait::Input, || receive.recv()) {
            sum.update(&chunk);
            if let Some(hash) = &hash {
                hash.add(1, CHUNK as u64);
            }
        }
        sum.value()
    })
}

fn waiting<T>(worker: &Option<WorkerMeter>, wait: Wait, wait_for: impl FnOnce() -> T) -> T {
    match worker {
        Some(worker) => worker.wait(wait, wait_for),
        None => wait_for(),
    }
}

criterion_group!(benches, calls, pipeline);
criterion_main!(benches);
