//! What a permit of a limiter costs, beside the wait for it: `cargo bench -p bulk-benches --bench limiter`.
//!
//! Time is virtual: where all that is left to do is to wait, the clock goes on at once. What remains is the work that
//! the limiter and the runtime do for each permit. How much of a rate is used over a network, a test measures; see
//! CONTRIBUTING.md.

use std::time::Duration;

use bulk_core::{Limiter, LimiterOptions, RateLimit};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::{Builder, Runtime};

const PERMITS: u64 = 10_240;

fn permits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("permits");
    group.throughput(Throughput::Elements(PERMITS));
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().expect("there is room for one");
    for callers in [1, 64] {
        for (name, permits, window) in [
            ("25 a second over 10 s", 250, Duration::from_secs(10)),
            ("10,000 a second", 10_000, Duration::from_secs(1)),
        ] {
            let name = format!("{name}, callers: {callers}");
            group.bench_function(name, |bencher| bencher.iter(|| acquire(&runtime, callers, permits, window)));
        }
    }
    group.finish();
}

fn acquire(runtime: &Runtime, callers: u64, permits: u32, window: Duration) {
    runtime.block_on(async {
        let mut options = LimiterOptions::default();
        options.limits = vec![RateLimit::new(permits, window).expect("the limit is good")];
        let limiter = Limiter::new(options);
        let caller = || {
            let limiter = limiter.clone();
            tokio::spawn(async move {
                for _ in 0..PERMITS / callers {
                    limiter.acquire("api.example.org").await.answered();
                }
            })
        };
        let callers: Vec<_> = (0..callers).map(|_| caller()).collect();
        for caller in callers {
            caller.await.expect("it does not panic");
        }
    });
}

criterion_group!(benches, permits);
criterion_main!(benches);
