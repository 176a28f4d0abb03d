//! Meters of real threads and tasks. Times are asserted as bounds that no scheduler can break: a wait takes at least what it
//! takes, and no more than what a clock around it shows.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use bulk_core::{
    Body, DownloadOptions, ETag, Error, Evidence, Get, InputState, Limit, MeterReading, MeteredRead, MeteredStream,
    Meters, Request, Resource, RunVerdict, Source, StageCounts, StageReading, StageSample, Wait, WorkerMeter, download,
};
use bytes::Bytes;
use futures::StreamExt;

const A_WHILE: Duration = Duration::from_millis(20);

fn stage<'a>(reading: &'a MeterReading, name: &str) -> &'a StageReading {
    reading.stages.iter().find(|stage| stage.name == name).unwrap()
}

/// Works on the CPU for at least that long.
fn spin(time: Duration) {
    let clock = || Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime)).unwrap();
    let begin = clock();
    while clock() - begin < time {
        std::hint::spin_loop();
    }
}

#[test]
fn a_worker_is_always_in_one_state() {
    let meters = Meters::new();
    let outer = Instant::now();
    let worker = meters.stage("encode", &[Resource::Cpu], &[]).worker();
    let inner = Instant::now();
    for wait in [Wait::Input, Wait::Output, Wait::Network, Wait::Disk, Wait::Server, Wait::RateLimit, Wait::Budget] {
        assert_eq!(worker.wait(wait, || thread::sleep(A_WHILE)), ());
        worker.add(2, 100);
    }
    spin(A_WHILE);
    let inner = inner.elapsed();
    drop(worker);
    let outer = outer.elapsed();

    let total = stage(&meters.reading(), "encode").total;
    assert_eq!((total.items, total.bytes), (14, 700));
    let StageCounts { starved, blocked, network, disk, server, rate_limit, budget, .. } = total;
    for waited in [starved, blocked, network, disk, server, rate_limit, budget, total.working()] {
        assert!(waited >= A_WHILE && waited < outer - 6 * A_WHILE, "{total:?}");
    }
    assert!(inner <= total.time() && total.time() <= outer, "{inner:?} {total:?} {outer:?}");
    assert!(total.rate_limit_held >= A_WHILE && total.budget_held >= A_WHILE, "{total:?}");
    assert_eq!(total.busy(), total.working() + network + disk + server);

    // Nobody is there any more, so no time goes by.
    assert_eq!(stage(&meters.reading(), "encode").total, total);
}

#[test]
fn work_splits_into_on_and_off_the_cpu() {
    let meters = Meters::new();
    let begin = Instant::now();
    let worker = meters.stage("index", &[Resource::Disk], &[]).worker();
    spin(2 * A_WHILE);
    worker.add(1, 0);
    thread::sleep(3 * A_WHILE);
    drop(worker);
    let elapsed = begin.elapsed();
    let total = stage(&meters.reading(), "index").total;
    assert!(total.on_cpu >= 2 * A_WHILE - Duration::from_millis(1), "{total:?}");
    assert!(total.on_cpu <= elapsed - 3 * A_WHILE, "{total:?}");
    // Where the system does not tell of its queue, being in line is off the CPU.
    assert!(total.run_queue + total.off_cpu >= 3 * A_WHILE - Duration::from_millis(1), "{total:?}");
    assert_eq!(total.working(), total.on_cpu + total.run_queue + total.off_cpu);
    assert!(total.working() <= elapsed);
}

#[test]
fn places_are_those_of_workers_at_once() {
    let meters = Meters::new();
    let stage_meter = meters.stage("fetch", &[Resource::Network], &[]);
    for _ in 0..5 {
        stage_meter.worker().add(1, 0);
    }
    let (first, second) = (stage_meter.worker(), stage_meter.worker());
    let clone = first.clone();
    drop(first);
    // The clone is the worker, so a third one has a place of its own.
    let third = stage_meter.worker();
    drop((clone, second));
    let reading = meters.reading();
    assert_eq!(stage(&reading, "fetch").workers.len(), 3);
    assert_eq!(stage(&reading, "fetch").workers.iter().map(|worker| worker.items).sum::<u64>(), 5);
    assert_eq!(reading.timeline.samples()[0].stage(0).workers, 3);
    // Two have gone since.
    meters.sample();
    assert_eq!(meters.reading().timeline.samples()[1].stage(0).workers, 1);
    drop(third);
}

#[test]
fn a_sample_tells_how_long_the_busiest_worker_was_busy() {
    let meters = Meters::new();
    let fetch = meters.stage("fetch", &[Resource::Network], &[]);
    let (long, short) = (fetch.worker(), fetch.worker());
    short.wait_begins(Wait::Input);
    long.wait(Wait::Network, || thread::sleep(2 * A_WHILE));
    long.wait_begins(Wait::Input);
    meters.sample();
    short.wait(Wait::Disk, || thread::sleep(A_WHILE));
    short.wait_begins(Wait::Input);
    let reading = meters.reading();
    let samples: Vec<_> = reading.timeline.samples().iter().map(|sample| sample.stage(0)).collect();
    assert!(samples[0].busiest >= 2 * A_WHILE && samples[0].busiest <= samples[0].counts.busy(), "{samples:?}");
    assert!(samples[1].busiest >= A_WHILE && samples[1].busiest <= samples[1].counts.busy(), "{samples:?}");
    // Of all of the run it was the other one.
    let busiest = samples[0].busiest + samples[1].busiest;
    assert!(reading.stages[0].workers.iter().all(|worker| worker.busy() < busiest), "{reading:?}");
}

#[test]
fn a_reading_changes_nothing() {
    let meters = Meters::new();
    let fetch = meters.stage("fetch", &[Resource::Network], &[]);
    let (long, short) = (fetch.worker(), fetch.worker());
    short.wait_begins(Wait::Input);
    long.wait(Wait::Network, || thread::sleep(A_WHILE));
    long.wait_begins(Wait::Input);
    drop(short);
    long.add(3, 0);
    for _ in 0..3 {
        for reading in [meters.reading(), meters.recent()] {
            let [sample] = reading.timeline.samples() else { panic!("{reading:#?}") };
            let StageSample { workers, busiest, counts, .. } = sample.stage(0);
            assert_eq!((sample.start, workers, counts.items), (Duration::ZERO, 2, 3));
            assert!(busiest >= A_WHILE, "{sample:?}");
        }
    }
    meters.sample();
    long.add(4, 0);
    for reading in [meters.reading(), meters.recent()] {
        let [first, second] = reading.timeline.samples() else { panic!("{reading:#?}") };
        assert_eq!((first.start, first.stage(0).workers, first.stage(0).counts.items), (Duration::ZERO, 2, 3));
        assert!(first.stage(0).busiest >= A_WHILE, "{first:?}");
        assert_eq!((second.start, second.stage(0).workers, second.stage(0).counts.items), (first.end, 1, 4));
        assert_eq!(reading.stages[0].total.items, 7);
    }
}

#[test]
fn a_stage_is_known_by_its_name() {
    let meters = Meters::new();
    meters.stage("copy", &[Resource::Server], &["encode"]).worker().add(1, 10);
    // What it gets its input from is added: there may be several ways.
    let again = meters.stage("copy", &[Resource::Cpu], &["merge", "encode"]);
    again.worker().add(1, 10);
    again.set_workers(4);
    again.set_capacity(0.5);
    again.set_workers_of("encode");
    ["CPU", "ClientRead", "CPU"].into_iter().for_each(|event| again.saw_server(event));
    (0..1000).for_each(|event| again.saw_server(&event.to_string()));
    let reading = meters.reading();
    let [copy] = &reading.stages[..] else { panic!("{reading:?}") };
    assert_eq!((&copy.resources[..], copy.after.join(" ").as_str()), (&[Resource::Server][..], "encode merge"));
    assert_eq!((copy.max_workers, copy.capacity, copy.total.items, copy.total.bytes), (Some(4), Some(0.5), 2, 20));
    assert_eq!(copy.workers_of.as_deref(), Some("encode"));
    assert_eq!((copy.server_events.len(), copy.server_events["CPU"], copy.server_events["ClientRead"]), (64, 2, 1));
}

#[test]
fn what_goes_on_is_seen_before_it_ends() {
    let meters = Meters::new();
    let (send, receive) = sync_channel::<()>(0);
    let (began, begin) = sync_channel(0);
    let waiter = meters.stage("parse", &[Resource::Cpu], &[]).worker();
    let thread = thread::spawn(move || {
        began.send(()).unwrap();
        waiter.wait(Wait::Input, || receive.recv().unwrap());
    });
    begin.recv().unwrap();
    // It waits now, or will soon.
    let starved = || stage(&meters.reading(), "parse").total.starved;
    while starved() < A_WHILE {
        thread::yield_now();
    }
    send.send(()).unwrap();
    thread.join().unwrap();
    let reading = meters.reading();
    let sum: Duration = reading.timeline.samples().iter().map(|sample| sample.stage(0).counts.starved).sum();
    assert_eq!(sum, stage(&reading, "parse").total.starved);
    let ends: Vec<_> = reading.timeline.samples().iter().map(|sample| (sample.start, sample.end)).collect();
    assert!(ends[0].0.is_zero() && ends.windows(2).all(|pair| pair[0].1 == pair[1].0), "{ends:?}");
    assert!(ends.len() <= 600);
}

#[test]
fn a_limit_holds_up_once_however_many_wait() {
    let meters = Meters::new();
    let ask = meters.stage("ask", &[Resource::Network], &[]);
    let all = Arc::new(Barrier::new(3));
    let begin = Instant::now();
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (worker, all) = (ask.worker(), all.clone());
            thread::spawn(move || {
                all.wait();
                worker.wait(Wait::RateLimit, || thread::sleep(A_WHILE));
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let elapsed = begin.elapsed();
    let total = stage(&meters.reading(), "ask").total;
    assert!(total.rate_limit >= 3 * A_WHILE, "{total:?}");
    assert!(total.rate_limit_held >= A_WHILE && total.rate_limit_held <= elapsed, "{total:?} in {elapsed:?}");
    assert!(total.budget_held.is_zero());
}

#[tokio::test]
async fn a_task_waits_between_its_polls() {
    let meters = Meters::new();
    let fetch = meters.stage("fetch", &[Resource::Network], &[]);
    let begin = Instant::now();
    let worker = fetch.worker();
    let task = async {
        // What is not said to be anything else is what the stage works with.
        tokio::time::sleep(A_WHILE).await;
        worker.waiting(Wait::Output, tokio::time::sleep(2 * A_WHILE)).await;
        // A wait that is given up is over.
        let forever = worker.waiting(Wait::Budget, std::future::pending::<()>());
        assert!(tokio::time::timeout(A_WHILE, forever).await.is_err());
        tokio::time::sleep(A_WHILE).await;
        thread::sleep(3 * A_WHILE);
        7
    };
    assert_eq!(worker.run(task).await, 7);
    drop(worker);
    let elapsed = begin.elapsed();
    let total = stage(&meters.reading(), "fetch").total;
    assert!(total.network >= 2 * A_WHILE, "{total:?}");
    assert!(
        total.blocked >= 2 * A_WHILE && total.blocked <= elapsed - 6 * A_WHILE + Duration::from_millis(3),
        "{total:?}"
    );
    assert!(total.budget >= A_WHILE - Duration::from_millis(2), "{total:?}");
    assert!(total.working() >= 3 * A_WHILE && total.off_cpu >= 3 * A_WHILE - Duration::from_millis(3), "{total:?}");
    assert!(total.time() <= elapsed);
}

#[tokio::test]
async fn a_task_that_is_not_run_says_when_it_waits() {
    let meters = Meters::new();
    let worker = meters.stage("copy", &[Resource::Server], &[]).worker();
    // What is ready at once is no wait.
    assert_eq!(worker.waiting(Wait::Server, async { 5 }).await, 5);
    assert!(meters.reading().stages[0].total.server.is_zero());
    worker.waiting(Wait::Server, tokio::time::sleep(A_WHILE)).await;
    let forever = worker.waiting(Wait::Input, std::future::pending::<()>());
    assert!(tokio::time::timeout(A_WHILE, forever).await.is_err());
    let before = meters.reading().stages[0].total;
    thread::sleep(A_WHILE);
    let total = meters.reading().stages[0].total;
    assert!(total.server >= A_WHILE - Duration::from_millis(2), "{total:?}");
    assert_eq!((total.server, total.starved), (before.server, before.starved));
    assert!(total.working() >= before.working() + A_WHILE);
}

#[tokio::test]
async fn waits_of_a_task_may_end_in_any_order() {
    let meters = Meters::new();
    let worker = meters.stage("fetch", &[Resource::Network], &[]).worker();
    let task = async {
        let (short, long) = (tokio::time::sleep(A_WHILE), tokio::time::sleep(3 * A_WHILE));
        futures::join!(worker.waiting(Wait::Output, short), worker.waiting(Wait::Budget, long));
        tokio::time::sleep(4 * A_WHILE).await;
    };
    worker.run(task).await;
    drop(worker);
    let total = stage(&meters.reading(), "fetch").total;
    // All waited for the one that began last, and for the network once neither went on.
    assert!(total.budget >= 3 * A_WHILE - Duration::from_millis(2), "{total:?}");
    assert!(total.network >= 4 * A_WHILE - Duration::from_millis(2), "{total:?}");
    assert!(total.blocked.is_zero(), "{total:?}");
}

#[tokio::test]
async fn what_a_thread_does_for_others_is_no_work_of_a_task() {
    let meters = Meters::new();
    let worker = meters.stage("copy", &[Resource::Server], &[]).worker();
    let copy = async {
        worker.waiting(Wait::Server, tokio::time::sleep(A_WHILE)).await;
        // It waits without saying so, and the thread turns to the other one.
        tokio::time::sleep(A_WHILE).await;
        worker.waiting(Wait::Server, tokio::time::sleep(A_WHILE)).await;
    };
    let other = async {
        for _ in 0..3 {
            tokio::time::sleep(A_WHILE).await;
            spin(A_WHILE);
        }
    };
    futures::join!(copy, other);
    drop(worker);
    let total = stage(&meters.reading(), "copy").total;
    assert!(total.on_cpu.is_zero() && total.run_queue.is_zero() && !total.off_cpu.is_zero(), "{total:?}");
}

/// Each read gives a byte, and takes a while off the CPU.
struct Slow(u8);

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        thread::sleep(A_WHILE);
        self.0 = self.0.saturating_sub(1);
        buffer[0] = self.0;
        Ok(usize::from(self.0 > 0))
    }
}

#[test]
fn a_reader_is_a_border_of_stages_on_one_thread() {
    let meters = Meters::new();
    let decode = meters.stage("decode", &[Resource::Disk], &[]).worker();
    let encode = meters.stage("encode", &[Resource::Cpu], &["decode"]).worker();
    let reader = MeteredRead::stage(Slow(4), decode);
    let mut reader = MeteredRead::new(reader, encode.clone(), Wait::Input);
    let mut bytes = [0; 8];
    let mut read = 0;
    loop {
        match reader.read(&mut bytes).unwrap() {
            0 => break,
            more => read += more,
        }
        spin(A_WHILE);
    }
    drop((reader, encode));
    assert_eq!(read, 3);
    let reading = meters.reading();
    let (decode, encode) = (stage(&reading, "decode").total, stage(&reading, "encode").total);
    assert_eq!((decode.items, decode.bytes), (3, 3));
    // Four reads, the last one of nothing; three spins.
    assert!(decode.off_cpu + decode.run_queue >= 4 * A_WHILE - Duration::from_millis(2), "{decode:?}");
    assert!(decode.blocked >= 3 * A_WHILE && decode.blocked >= encode.on_cpu, "{decode:?} {encode:?}");
    assert!(encode.starved >= 4 * A_WHILE, "{encode:?}");
    // The decoder's thread is the encoder's, and each has its own part of the CPU.
    assert!(encode.on_cpu >= 3 * A_WHILE - Duration::from_millis(2), "{encode:?}");
    assert!(decode.on_cpu < A_WHILE, "{decode:?}");
}

#[test]
fn samples_are_taken_until_nobody_wants_them() {
    let meters = Meters::with_samples(8);
    let sampling = meters.sample_every(Duration::from_millis(1)).unwrap();
    let worker = meters.stage("a", &[], &[]).worker();
    // Until there are more than a timeline of eight has room for, so that two become one.
    let mut before = 0;
    loop {
        let samples = meters.reading().timeline.samples().len();
        assert!(samples <= 8, "{samples}");
        if samples < before {
            break;
        }
        before = samples;
        worker.add(1, 0);
        // The lock of a reading is the sampler's, too.
        thread::yield_now();
    }
    drop(worker);
    drop(sampling);
    let timeline = meters.reading().timeline;
    assert!((2..=8).contains(&timeline.samples().len()), "{}", timeline.samples().len());
    let items: u64 = timeline.samples().iter().map(|sample| sample.stage(0).counts.items).sum();
    assert_eq!(items, meters.reading().stages[0].total.items);
}

/// Waits for that long, if at all.
fn rest(worker: &WorkerMeter, wait: Wait, time: Duration) {
    if !time.is_zero() {
        worker.wait(wait, || thread::sleep(time));
    }
}

/// Threads over bounded channels, each of whose items takes its stage `cost`: what binds is known.
fn threads(costs: [Duration; 3]) -> RunVerdict {
    const ITEMS: u32 = 25;
    let meters = Meters::new();
    let fetch = meters.stage("fetch", &[Resource::Network], &[]).worker();
    let decode = meters.stage("decode", &[Resource::Cpu], &["fetch"]).worker();
    let copy = meters.stage("copy", &[Resource::Server], &["decode"]).worker();
    let (to_decode, from_fetch) = sync_channel::<u32>(2);
    let (to_copy, from_decode) = sync_channel::<u32>(2);
    let sampling = meters.sample_every(Duration::from_millis(5)).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            for item in 0..ITEMS {
                rest(&fetch, Wait::Network, costs[0]);
                fetch.add(1, 1000);
                fetch.wait(Wait::Output, || to_decode.send(item)).unwrap();
            }
        });
        scope.spawn(move || {
            while let Ok(item) = decode.wait(Wait::Input, || from_fetch.recv()) {
                spin(costs[1]);
                decode.add(1, 1000);
                decode.wait(Wait::Output, || to_copy.send(item)).unwrap();
            }
        });
        scope.spawn(move || {
            while copy.wait(Wait::Input, || from_decode.recv()).is_ok() {
                rest(&copy, Wait::Server, costs[2]);
                copy.add(1, 1000);
            }
        });
    });
    drop(sampling);
    let reading = meters.reading();
    assert_eq!(reading.stages.iter().map(|stage| stage.total.items).collect::<Vec<_>>(), [25, 25, 25]);
    RunVerdict::of(&reading)
}

#[test]
fn the_bottleneck_of_threads_is_found() {
    // A machine that is busy makes the others slower, too, but not as slow as that.
    let (none, long) = (Duration::ZERO, Duration::from_millis(30));
    for (costs, name, resource) in [
        ([long, none, none], "fetch", Some(Resource::Network)),
        // A virtual machine may have its processors taken away, which is no queue that the system tells of.
        ([none, long, none], "decode", None),
        ([none, none, long], "copy", Some(Resource::Server)),
    ] {
        let verdict = threads(costs);
        let bottleneck = verdict.bottleneck.as_ref().unwrap();
        let Limit::Stage { stage } = &bottleneck.used.limit else { panic!("{verdict}") };
        assert_eq!(stage, name, "{verdict}");
        assert!(resource.is_none_or(|resource| bottleneck.used.resource == resource), "{verdict}");
        assert_eq!(bottleneck.evidence, Evidence::Confirmed, "{verdict}");
    }
}

/// Objects of zeros, in chunks that come after a pause each.
struct Trickle(Duration);

const SIZE: u64 = 1 << 20;

#[async_trait::async_trait]
impl Source for Trickle {
    fn location(&self, key: &str) -> String {
        format!("trickle:{key}")
    }

    async fn get(&self, get: &Get) -> Result<Body, Error> {
        let (end, pause) = (get.end.unwrap_or(SIZE).min(SIZE), self.0);
        let chunks = futures::stream::unfold(get.start, move |at| async move {
            let next = (at + (64 << 10)).min(end);
            if at == next {
                return None;
            }
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            Some((Ok(Bytes::from(vec![0; (next - at) as usize])), next))
        });
        let mut body = Body::new(get.start, chunks.boxed());
        (body.end, body.size, body.etag, body.has_ranges) = (Some(end), Some(SIZE), Some(ETag::new("1")), true);
        Ok(body)
    }
}

/// A download of ten objects, whose stage is called "fetch".
fn download_options(meters: &Meters) -> DownloadOptions {
    let mut options = DownloadOptions::default();
    options.concurrency = 4;
    options.meter = Some(meters.stage("fetch", &[Resource::Network], &[]));
    options
}

#[tokio::test]
async fn a_download_waits_for_the_network() {
    let (meters, folder) = (Meters::new(), tempfile::tempdir().unwrap());
    let plan = (0..10).map(|i| Request::new(i.to_string()));
    let source = Arc::new(Trickle(Duration::from_millis(4)));
    let files = download(source, plan, folder.path(), download_options(&meters)).collect::<Vec<_>>().await;
    assert!(files.iter().all(|file| file.outcome.is_ok()), "{files:?}");
    let reading = meters.reading();
    let fetch = stage(&reading, "fetch");
    assert_eq!((fetch.total.bytes, fetch.workers.len()), (10 * SIZE, 4));
    // Sixteen chunks of each object, one after the other.
    assert!(fetch.total.network >= Duration::from_millis(10 * 16 * 4), "{fetch:?}");
    let verdict = RunVerdict::of(&reading);
    assert_eq!(verdict.bottleneck.as_ref().map(|found| found.used.resource), Some(Resource::Network), "{verdict}");
}

/// Answers after a while, if it does not ask for a pause of a second first.
struct Busy(AtomicBool);

#[async_trait::async_trait]
impl Source for Busy {
    fn location(&self, key: &str) -> String {
        format!("busy:{key}")
    }

    async fn get(&self, get: &Get) -> Result<Body, Error> {
        tokio::time::sleep(A_WHILE).await;
        if self.0.swap(false, Ordering::Relaxed) {
            let retry_after = Some(5 * A_WHILE);
            return Err(Error::Status { location: self.location(&get.key), status: 503, retry_after, reason: None });
        }
        Trickle(Duration::ZERO).get(get).await
    }
}

#[tokio::test]
async fn what_a_download_waits_for_is_named() {
    let folder = tempfile::tempdir().unwrap();
    // The second one finds the files there, and asks once whether they are still the ones.
    for asks_for_a_pause in [true, false] {
        let meters = Meters::new();
        let plan = (0..3).map(|i| Request::new(i.to_string()));
        let mut options = download_options(&meters);
        options.concurrency = 1;
        options.finish_meter = Some(meters.stage("finish", &[Resource::Disk], &["fetch"]));
        let source = Arc::new(Busy(AtomicBool::new(asks_for_a_pause)));
        let files = download(source, plan, folder.path(), options).collect::<Vec<_>>().await;
        assert!(files.iter().all(|file| file.outcome.is_ok()), "{files:?}");
        let reading = meters.reading();
        let (fetch, finish) = (stage(&reading, "fetch").total, stage(&reading, "finish").total);
        let pause = if asks_for_a_pause { 6 * A_WHILE } else { Duration::ZERO };
        // The way to an answer's head, and what it asks for.
        assert!(fetch.server >= 3 * A_WHILE + pause, "{fetch:?}");
        // Bytes are there at once, so whatever else it waits for has another name. A look at the files of the first may have
        // come back before anybody asked for it.
        assert!(fetch.network.is_zero() && (!asks_for_a_pause || !fetch.disk.is_zero()), "{fetch:?}");
        assert_eq!(fetch.bytes, if asks_for_a_pause { 3 * SIZE } else { 0 });
        if asks_for_a_pause {
            assert_eq!((finish.items, finish.bytes), (3, 3 * SIZE));
            assert!(!finish.busy().is_zero());
        }
    }
}

#[tokio::test]
async fn a_download_is_blocked_by_its_reader() {
    let (meters, folder) = (Meters::new(), tempfile::tempdir().unwrap());
    let plan = (0..10).map(|i| Request::new(i.to_string()));
    let mut options = download_options(&meters);
    options.window = SIZE;
    let mut files = download(Arc::new(Trickle(Duration::ZERO)), plan, folder.path(), options);
    while let Some(file) = files.next().await {
        assert!(file.outcome.is_ok(), "{file:?}");
        // It takes a while to read, and nothing else does.
        tokio::time::sleep(5 * A_WHILE).await;
    }
    let reading = meters.reading();
    let StageCounts { blocked, network, disk, budget, .. } = stage(&reading, "fetch").total;
    assert!(blocked > 10 * A_WHILE && blocked > 4 * (network + disk), "{reading:#?}");
    assert!(budget.is_zero());
}

/// A stream of one item for each of these, before which it is pending for as long as that takes.
fn slow(pauses: Vec<Duration>) -> impl futures::Stream<Item = Result<u64, ()>> + Unpin {
    let items = futures::stream::iter(pauses).then(|pause| async move {
        tokio::time::sleep(pause).await;
        Ok(pause.as_millis() as u64)
    });
    Box::pin(items)
}

/// Each wait is longer by a while than the one before, so that none is taken for another.
#[tokio::test]
async fn a_stream_waits_for_its_input_or_for_what_its_stage_states() {
    let meters = Meters::new();
    let merge = meters.stage("merge", &[Resource::Cpu, Resource::Disk], &["list"]);
    assert_eq!(merge.wait(), Wait::Disk);
    assert_eq!(meters.stage("encode", &[Resource::Cpu], &[]).wait(), Wait::Input);
    let input = InputState::default();
    let pages = input.watch(slow(vec![2 * A_WHILE; 2]));
    let merged = pages.then(|page| async move {
        tokio::time::sleep(3 * A_WHILE).await;
        page
    });
    let outer = Instant::now();
    let mut merged = MeteredStream::new(Box::pin(merged), &merge, input, |millis: &u64| (1, *millis));
    let mut items = 0;
    while let Some(item) = merged.next().await {
        assert_eq!(item, Ok(40));
        items += 1;
        tokio::time::sleep(4 * A_WHILE).await;
    }
    drop(merged);
    let outer = outer.elapsed();
    let StageCounts { starved, disk, blocked, .. } = stage(&meters.reading(), "merge").total;
    let total = stage(&meters.reading(), "merge").total;
    assert_eq!((items, total.items, total.bytes), (2, 2, 80));
    assert!(starved >= 4 * A_WHILE && disk >= 6 * A_WHILE && blocked >= 8 * A_WHILE, "{total:?}");
    assert!(total.time() <= outer && starved + disk + blocked <= outer, "{total:?} {outer:?}");
}
