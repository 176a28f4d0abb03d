//! What it costs to be metered: `cargo bench -p bulk-benches --bench meters`.
//!
//! A chunk's calls are one wait and one count for each side. The last group is a pipeline of two threads that hand chunks of
//! 64 KiB on, of which each takes about 50 us, so 1.2 GB/s: faster than what decodes, encodes or copies. Its times are of the
//! CPU, and of both threads, with and without meters: what the difference is of them is the whole cost.

use std::hint::black_box;
use std::sync::mpsc::sync_channel;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use bulk_core::{Crc64Nvme, Meters, Resource, Wait, WorkerMeter};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 4000;
/// How often a chunk is hashed.
const ROUNDS: usize = 8;

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
    group.throughput(Throughput::Bytes((CHUNK * CHUNKS) as u64)).sample_size(20);
    group.bench_function("plain", |bencher| bencher.iter_custom(|times| cpu(times, || hash(None))));
    group.bench_function("metered", |bencher| {
        bencher.iter_custom(|times| {
            cpu(times, || {
                let meters = Meters::new();
                let read = meters.stage("read", &[Resource::Cpu], &[]).worker();
                hash(Some((read, meters.stage("hash", &[Resource::Cpu], &["read"]).worker())))
            })
        });
    });
    group.finish();
}

/// The CPU time that it takes, which does not depend on what else the machine does.
fn cpu(times: u64, mut run: impl FnMut() -> u64) -> Duration {
    let used = || {
        let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the system tells");
        let micros = |time: TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
        Duration::from_micros((micros(usage.user_time()) + micros(usage.system_time())) as u64)
    };
    let before = used();
    (0..times).for_each(|_| {
        black_box(run());
    });
    used() - before
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
            (0..ROUNDS).for_each(|_| sum.update(black_box(&chunk)));
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
