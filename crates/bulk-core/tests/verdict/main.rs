//! Verdicts on pipelines whose bottleneck is known.

mod simulation;

use std::time::Duration;

use bulk_core::Resource::{Budget, Cpu, Disk, Network, RateLimit, Server, Unknown};
use bulk_core::{
    Evidence, Goal, GoalProgress, Limit, MeterReading, Outlook, Resource, RunPhase, RunVerdict, Sample, StageCounts,
    StageReading, StageSample, Timeline, WhatIf,
};
use proptest::prelude::*;

use simulation::Step::{self, Free, Permit, Take, Wait};
use simulation::{Pipeline, Stage, pipeline, stage};

/// Each item takes so many microseconds of the CPU.
fn cpu(micros: u64) -> impl Fn(u64) -> Vec<Step> {
    move |_| vec![Step::Cpu(micros)]
}

/// Each item waits so many microseconds.
fn wait(resource: Resource, micros: u64) -> impl Fn(u64) -> Vec<Step> {
    move |_| vec![Wait(resource, micros)]
}

fn of(stage: &str) -> Limit {
    serde_json::from_value(serde_json::json!({"limit": "stage", "stage": stage})).unwrap()
}

/// As figures of a verdict are.
fn rounded(figure: f64) -> f64 {
    (figure * 1e6).round() / 1e6
}

/// The verdict, whose bottleneck is the one that is expected, throughout.
#[track_caller]
fn bound(reading: &MeterReading, limit: &Limit, resource: Resource) -> RunVerdict {
    let verdict = RunVerdict::of(reading);
    let bottleneck = verdict.bottleneck.as_ref().unwrap_or_else(|| panic!("no bottleneck: {reading:#?}"));
    assert_eq!((&bottleneck.used.limit, bottleneck.used.resource), (limit, resource), "{verdict}");
    assert_eq!(verdict.phases.len(), 1, "{verdict}");
    verdict
}

/// The same, and its neighbours bear it out.
#[track_caller]
fn confirmed(reading: &MeterReading, limit: &Limit, resource: Resource) -> RunVerdict {
    let verdict = bound(reading, limit, resource);
    assert_eq!(verdict.bottleneck.as_ref().unwrap().evidence, Evidence::Confirmed, "{verdict}");
    verdict
}

/// Fetch over four connections, decode, encode, copy over two: what each item takes, in microseconds.
fn mirror(fetch: u64, decode: u64, encode: u64, copy: u64) -> Vec<Stage> {
    vec![
        stage("fetch", 4, wait(Network, fetch)).on(Network),
        stage("decode", 2, cpu(decode)),
        stage("encode", 1, cpu(encode)),
        stage("copy", 2, move |_| vec![Step::Cpu(50), Wait(Server, copy)]).on(Server),
    ]
}

#[test]
fn one_stage_of_a_chain() {
    for (stages, name, resource) in [
        (mirror(8000, 1000, 500, 1000), "fetch", Network),
        (mirror(1000, 3000, 500, 1000), "decode", Cpu),
        (mirror(1000, 1000, 2000, 1000), "encode", Cpu),
        (mirror(1000, 1000, 500, 4000), "copy", Server),
    ] {
        let verdict = confirmed(&pipeline(1000, stages).run(), &of(name), resource);
        assert!(verdict.bottleneck.unwrap().used.utilisation > 0.98);
    }
}

#[test]
fn its_utilisation_is_exact() {
    // 1,000 items of 3 ms for two workers take 1.5 s. Before that the first are fetched, behind it the last two, which are
    // decoded at once, are encoded one after the other, and the last is copied.
    let reading = pipeline(1000, mirror(1000, 3000, 500, 1000)).run();
    let verdict = confirmed(&reading, &of("decode"), Cpu);
    let end = reading.timeline.end();
    assert_eq!(end, Duration::from_micros(1000 + 500 * 3000 + 2 * 500 + 1050));
    let bottleneck = verdict.bottleneck.unwrap();
    assert_eq!(bottleneck.used.utilisation, rounded(1.5 / end.as_secs_f64()));
    assert_eq!(bottleneck.used.workers, 2.0);
    assert_eq!(bottleneck.share, 1.0);
    let others: Vec<_> = bottleneck.others.iter().map(|used| (used.limit.to_string(), used.utilisation)).collect();
    let used = |millis: u32, workers: u32| rounded(f64::from(millis) / 1000.0 / f64::from(workers) / end.as_secs_f64());
    assert_eq!(
        others,
        [("copy".to_owned(), used(1050, 2)), ("encode".to_owned(), used(500, 1)), ("fetch".to_owned(), used(1000, 4))]
    );
}

#[test]
fn a_disk_that_is_slow_behind_four_stages() {
    let mut stages = mirror(1000, 1000, 500, 1000);
    stages.push(stage("write", 1, wait(Disk, 2500)).on(Disk));
    confirmed(&pipeline(1000, stages).run(), &of("write"), Disk);
}

#[test]
fn the_first_and_the_last_of_a_long_chain() {
    let chain = |slow: usize| {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().enumerate();
        names.map(|(i, name)| stage(name, 1, cpu(if i == slow { 1500 } else { 1000 }))).collect::<Vec<_>>()
    };
    confirmed(&pipeline(1000, chain(0)).run(), &of("a"), Cpu);
    confirmed(&pipeline(1000, chain(4)).run(), &of("e"), Cpu);
    confirmed(&pipeline(1000, chain(7)).run(), &of("h"), Cpu);
}

#[test]
fn items_that_differ_in_cost() {
    // A third of them takes ten times as long: 4 ms on the average, against 3.
    let decode = stage("decode", 2, |item| vec![Step::Cpu(if item * 7 % 3 == 0 { 10_000 } else { 1000 })]);
    let stages = vec![
        stage("fetch", 4, wait(Network, 5000)).on(Network),
        decode,
        stage("copy", 1, wait(Server, 1500)).on(Server),
    ];
    confirmed(&pipeline(1200, stages).run(), &of("decode"), Cpu);
}

#[test]
fn a_stage_that_is_never_starved_and_hardly_works() {
    // "Not waiting for input" would call it used 97% of the time.
    let stages = vec![
        stage("read", 1, wait(Disk, 500)).on(Disk),
        stage("parse", 1, cpu(20)),
        stage("send", 1, wait(Network, 2000)).on(Network),
    ];
    let verdict = confirmed(&pipeline(1000, stages).run(), &of("send"), Network);
    let parse = verdict.bottleneck.unwrap().others.into_iter().find(|used| used.limit == of("parse")).unwrap();
    assert!(parse.utilisation < 0.011, "{parse:?}");
}

#[test]
fn work_that_is_off_the_cpu() {
    let stages = |resource| {
        vec![
            stage("read", 1, cpu(100)),
            stage("index", 1, |_| vec![Step::Cpu(300), Wait(Unknown, 700)]).on(resource),
            stage("send", 1, cpu(100)),
        ]
    };
    confirmed(&pipeline(1000, stages(Cpu)).run(), &of("index"), Unknown);
    // It says what it works with.
    confirmed(&pipeline(1000, stages(Disk)).run(), &of("index"), Disk);
}

#[test]
fn more_workers_than_it_needs() {
    // 64 connections may be open, and no more than 4 ever are.
    let stages = vec![stage("ask", 4, wait(Network, 2000)).on(Network), stage("load", 1, wait(Server, 490)).on(Server)];
    let mut reading = pipeline(1000, stages).run();
    confirmed(&reading, &of("ask"), Network);
    reading.stages[0].max_workers = Some(64);
    confirmed(&reading, &of("load"), Server);
}

/// Eight connections, over one of which a large object comes after `small` small ones.
fn straggler(small: u64, then: u64) -> Pipeline {
    let fetch = stage("fetch", 8, |item| vec![Wait(Network, if item == 0 { 800_000 } else { 1000 })]);
    pipeline(1 + small, vec![fetch.on(Network).lingering(), stage("load", 1, wait(Server, then)).on(Server)])
}

#[test]
fn one_connection_of_many_that_has_something_to_do() {
    // A straggler, and a plan of one object.
    for small in [80, 0] {
        let verdict = confirmed(&straggler(small, 100).run(), &of("fetch"), Network);
        let used = verdict.bottleneck.as_ref().unwrap().used.clone();
        assert!(used.utilisation > 0.98 && (1.0..1.2).contains(&used.workers), "{verdict}");
        // Twice as fast is half of the time.
        let twice = &verdict.bottleneck.as_ref().unwrap().twice;
        assert!((0.49..0.52).contains(&twice.most), "{verdict}");
    }
    // What all wait for is it all the same.
    confirmed(&straggler(80, 12_000).run(), &of("load"), Server);
}

/// Four samples of a second: what four fetch, of which `workers` decode one does all of the work and the others are starved.
fn single_stream(is_fetch_blocked: bool, workers: u32, busiest: u64) -> MeterReading {
    let mut stages = vec![StageReading::new("fetch"), StageReading::new("decode")];
    (stages[0].resources, stages[1].resources) = (vec![Network], vec![Cpu]);
    stages[1].after = vec!["fetch".to_owned()];
    let mut timeline = Timeline::new(10);
    for second in 0..4 {
        let mut sample = Sample::new(Duration::from_secs(second), Duration::from_secs(second + 1));
        let (mut fetch, mut decode) = (StageSample::new(4), StageSample::new(workers));
        (fetch.counts.network, fetch.busiest) = (Duration::from_millis(200), Duration::from_millis(200));
        let idle = if is_fetch_blocked { &mut fetch.counts.blocked } else { &mut fetch.counts.starved };
        *idle = Duration::from_millis(3800);
        (decode.counts.on_cpu, decode.busiest) = (Duration::from_secs(1), Duration::from_millis(busiest));
        decode.counts.starved = Duration::from_secs(u64::from(workers) - 1);
        sample.stages = vec![fetch, decode];
        timeline.push(sample);
    }
    MeterReading::new(stages, timeline)
}

#[test]
fn a_single_stream_that_those_before_it_wait_for() {
    let verdict = confirmed(&single_stream(true, 4, 1000), &of("decode"), Cpu);
    let used = verdict.bottleneck.unwrap().used;
    // Of the others' time, a twentieth may be for want of what is fetched.
    assert_eq!((used.utilisation, (used.workers * 100.0).round()), (rounded(1.0 / (4.0 - 3.0 * 0.95)), 115.0));
    // Those before it have nothing either, or none of them has all of its time: it is not known what it is.
    for reading in [single_stream(false, 4, 1000), single_stream(true, 4, 250)] {
        assert_eq!(RunVerdict::of(&reading).bottleneck, None);
    }
    // One worker has no others.
    let one = confirmed(&single_stream(true, 1, 1000), &of("decode"), Cpu).bottleneck.unwrap().used;
    assert_eq!((one.utilisation, one.workers), (1.0, 1.0));
}

#[test]
fn workers_to_whom_something_unmetered_hands_too_little() {
    let stages = vec![
        stage("hidden", 1, cpu(1000)).unmetered(),
        stage("split", 8, cpu(400)),
        stage("copy", 1, wait(Server, 100)).on(Server),
    ];
    assert_eq!(RunVerdict::of(&pipeline(1000, stages).run()).bottleneck, None);
}

#[test]
fn a_limit_that_holds_one_of_many() {
    // Every twentieth item is of a host that is asked seldom, so that one of eight waits at any time, and seven work.
    for held in [RateLimit, Budget] {
        let ask = stage("ask", 8, move |item| {
            let first = (item % 20 == 0).then_some(Wait(held, 20_000));
            first.into_iter().chain([Wait(Network, 7000)]).collect()
        });
        let stages = vec![ask.on(Network), stage("load", 1, wait(Server, 300)).on(Server)];
        let reading = pipeline(2000, stages).run();
        let verdict = confirmed(&reading, &of("ask"), Network);
        let bottleneck = verdict.bottleneck.as_ref().unwrap();
        assert!((0.85..0.9).contains(&bottleneck.used.utilisation), "{verdict}");
        let limit = bottleneck.others.iter().find(|used| used.resource == held).unwrap();
        assert!(limit.utilisation > 0.9 && (0.1..0.15).contains(&limit.least), "{limit:?}");
        // The limit may or may not be of all of them.
        assert!(bottleneck.twice.least < 0.6 && bottleneck.twice.most > 0.95, "{verdict}");
    }
    // One of two is half of them.
    let two = vec![stage("ask", 2, |_| vec![Wait(RateLimit, 1000), Wait(Network, 900)]).on(Network)];
    let limit = serde_json::from_str(r#"{"limit": "rate_limit", "stage": "ask"}"#).unwrap();
    bound(&pipeline(1000, two).run(), &limit, RateLimit);
}

fn limited(permits: u64, micros: u64, load: u64) -> Vec<Stage> {
    vec![
        stage("ask", 30, |item| vec![Permit, Wait(Network, 100_000 + item * 7919 % 100_000)])
            .on(Network)
            .rate(permits, micros),
        stage("load", 1, wait(Server, load)).on(Server),
    ]
}

#[test]
fn a_rate_limit() {
    let limit = serde_json::from_str(r#"{"limit": "rate_limit", "stage": "ask"}"#).unwrap();
    confirmed(&pipeline(1000, limited(1, 20_000, 1000)).run(), &limit, RateLimit);
    // 30 connections make 200 a second, so a limit of 1,000 is none.
    confirmed(&pipeline(1000, limited(1, 1000, 1000)).run(), &of("ask"), Network);
    confirmed(&pipeline(1000, limited(1, 20_000, 30_000)).run(), &of("load"), Server);
}

#[test]
fn a_rate_limit_whose_permits_come_in_lots() {
    // 50 a second, a hundred at once: for a good part of the time the answers are waited for, and nobody is held.
    let limit = serde_json::from_str(r#"{"limit": "rate_limit", "stage": "ask"}"#).unwrap();
    let mut reading = pipeline(4000, limited(100, 2_000_000, 1000)).run();
    let held = confirmed(&reading, &limit, RateLimit).bottleneck.unwrap().used.utilisation;
    assert!((0.5..0.9).contains(&held), "{held}");
    // A limiter that states its rate is known to be used up.
    reading.stages[0].capacity = Some(50.0);
    let used = confirmed(&reading, &limit, RateLimit).bottleneck.unwrap().used.utilisation;
    assert!(used > 0.98, "{used}");
}

fn budgeted(fetch: u64, load: u64, places: usize) -> Pipeline {
    let stages = vec![
        stage("fetch", 8, move |_| vec![Take, Wait(Network, fetch)]).on(Network),
        stage("load", 8, move |_| vec![Wait(Server, load), Free]).on(Server),
    ];
    Pipeline { budget: places, ..pipeline(1000, stages) }
}

#[test]
fn a_budget() {
    let limit = serde_json::from_str(r#"{"limit": "budget", "stage": "fetch"}"#).unwrap();
    // Six items at once, where sixteen could be under way.
    bound(&budgeted(1000, 1000, 6).run(), &limit, Budget);
    // It is full as well where the stage behind it is slow, and more of it would change nothing.
    confirmed(&budgeted(500, 4000, 12).run(), &of("load"), Server);
    confirmed(&budgeted(4000, 500, 32).run(), &of("fetch"), Network);
}

/// Four stages that share two processors.
fn shared(micros: [u64; 4]) -> Pipeline {
    let names = ["read", "decode", "encode", "send"];
    let stages = names.into_iter().zip(micros).map(|(name, micros)| stage(name, 2, cpu(micros)));
    Pipeline { cores: Some(2), ..pipeline(1000, stages.collect()) }
}

#[test]
fn the_processors_together() {
    let verdict = bound(&shared([1000; 4]).run(), &Limit::Cores, Cpu);
    assert!(verdict.contended, "{verdict}");
    assert!(verdict.bottleneck.unwrap().used.utilisation > 0.99);
    // One of the four takes two thirds of them.
    bound(&shared([500, 4000, 1000, 500]).run(), &of("decode"), Cpu);
}

#[test]
fn the_process_knows_how_much_of_the_processors_it_has() {
    // What the stages' working time is taken to be is more than the process had.
    let mut reading = shared([1000; 4]).run();
    let mut timeline = Timeline::new(100);
    for sample in reading.timeline.samples() {
        let process_cpu = sample.duration() / 2;
        timeline.push({
            let mut sample = sample.clone();
            sample.process_cpu = process_cpu;
            sample
        });
    }
    reading.timeline = timeline;
    let verdict = RunVerdict::of(&reading);
    let bottleneck = verdict.bottleneck.unwrap();
    let cores = bottleneck.others.iter().find(|used| used.limit == Limit::Cores).unwrap();
    assert_eq!(cores.utilisation, 0.25);
}

/// A thread that decodes what it encodes: two stages, which take their parts of its time in turn.
fn one_thread(decode: u64, encode: u64) -> MeterReading {
    let stages = vec![
        stage("fetch", 1, wait(Network, 200)).on(Network),
        stage("decode", 1, cpu(decode + encode)),
        stage("copy", 1, wait(Server, 500)).on(Server),
    ];
    let mut reading = pipeline(1000, stages).run();
    let mut timeline = Timeline::new(100);
    for sample in reading.timeline.samples() {
        let mut sample = sample.clone();
        let thread = sample.stages[1].counts;
        let (mut first, mut second) = (sample.stages[1], sample.stages[1]);
        first.counts.on_cpu = thread.on_cpu.mul_f64(decode as f64 / (decode + encode) as f64);
        second.counts.on_cpu = thread.on_cpu - first.counts.on_cpu;
        first.counts.blocked += second.counts.on_cpu;
        second.counts.starved += first.counts.on_cpu;
        (sample.stages[1], sample.stages[2]) = (first, second);
        let copy = reading.timeline.samples()[timeline.samples().len()].stages[2];
        sample.stages.push(copy);
        timeline.push(sample);
    }
    reading.timeline = timeline;
    let mut encode = StageReading::new("encode");
    (encode.resources, encode.after) = (vec![Cpu], vec!["decode".to_owned()]);
    reading.stages[2].after = vec!["encode".to_owned()];
    reading.stages.insert(2, encode);
    reading.stages[1].workers_of = Some("encode".to_owned());
    reading
}

#[test]
fn stages_that_share_a_thread() {
    let reading = one_thread(600, 400);
    let verdict = confirmed(&reading, &of("decode"), Cpu);
    let bottleneck = verdict.bottleneck.as_ref().unwrap();
    assert!((0.59..0.61).contains(&bottleneck.used.utilisation), "{verdict}");
    assert_eq!(bottleneck.others[0].limit.to_string(), "the workers of decode and encode");
    assert!(bottleneck.others[0].utilisation > 0.99, "{verdict}");
    // What the one saves, the thread saves.
    for (speed, faster) in [(2.0, 300), (4.0, 150)] {
        let predicted = verdict.what_if(&reading, &of("decode"), speed).unwrap();
        let measured = one_thread(faster, 400).timeline.end().as_secs_f64() / reading.timeline.end().as_secs_f64();
        assert!((predicted.least - 0.01..=predicted.most + 0.01).contains(&measured), "{measured} {predicted:?}");
    }
    // COPY takes half of the time, and the thread does when decoding takes 100 of its 600 us. Before that encoding is more
    // of it: from 400 us on.
    let next = bottleneck.next.as_ref().unwrap();
    assert_eq!(next.then, Some(of("encode")));
    assert!((next.speed - 1.5).abs() < 0.01 && (0.79..0.81).contains(&next.most), "{next:?}");
    let quick = one_thread(800, 200);
    let next = RunVerdict::of(&quick).bottleneck.unwrap().next.unwrap();
    // With 300 us of it, and then it takes less than that.
    assert_eq!(next.then, Some(of("copy")));
    assert!((next.speed - 2.67).abs() < 0.02 && (0.49..0.51).contains(&next.most), "{next:?}");
    // A run that is to be 1.5 times as fast needs so much more of the thread, and of nothing else.
    let progress = GoalProgress::items("copy", None);
    let needed = 1.5 * 1000.0 / reading.timeline.end().as_secs_f64();
    let help = verdict.project(&reading, Goal::Rate(needed), &progress).unwrap().help;
    let help: Vec<_> = help.iter().map(|help| (help.used.limit.to_string(), (help.speed * 10.0).round())).collect();
    assert_eq!(help, [("the workers of decode and encode".to_owned(), 15.0)]);
    // Where the thread has time to spare, it is none.
    confirmed(&one_thread(100, 200), &of("copy"), Server);
}

#[test]
fn a_queue_for_processors_that_others_use() {
    // The stage has one worker of a machine of eight, and others keep it waiting.
    let mut reading = pipeline(1000, vec![stage("read", 1, cpu(100)), stage("parse", 1, cpu(1000))]).run();
    reading.cores = Some(8.0);
    let mut timeline = Timeline::new(100);
    for sample in reading.timeline.samples() {
        let mut sample = sample.clone();
        let parse = &mut sample.stages[1].counts;
        parse.run_queue = parse.on_cpu / 2;
        parse.on_cpu -= parse.run_queue;
        timeline.push(sample);
    }
    reading.timeline = timeline;
    let verdict = confirmed(&reading, &of("parse"), Cpu);
    assert!(verdict.contended);
    let used = verdict.bottleneck.unwrap().used;
    assert!(used.utilisation > 0.99 && (0.49..0.51).contains(&used.least), "{used:?}");
}

#[test]
fn two_that_are_alike() {
    // Either would do; the one before which all wait is it, and the other binds next.
    let stages = vec![
        stage("read", 1, cpu(100)),
        stage("decode", 1, cpu(1000)),
        stage("encode", 1, cpu(1000)),
        stage("send", 1, cpu(100)),
    ];
    let verdict = RunVerdict::of(&pipeline(1000, stages).run());
    let bottleneck = verdict.bottleneck.unwrap();
    let (first, other) = (of("decode"), of("encode"));
    assert_eq!(verdict.phases.len(), 1);
    assert_eq!(bottleneck.used.limit, first);
    assert_eq!(bottleneck.twice.then, Some(other));
    assert!(bottleneck.twice.least > 0.99);
}

#[test]
fn nothing_that_is_metered() {
    let stages = vec![
        stage("fetch", 1, wait(Network, 300)).on(Network),
        stage("secret", 1, cpu(1000)).unmetered(),
        stage("copy", 1, wait(Server, 300)).on(Server),
    ];
    let verdict = RunVerdict::of(&pipeline(1000, stages).run());
    assert_eq!(verdict.bottleneck, None);
    assert_eq!(verdict.phases.len(), 1);
    assert_eq!(verdict.phases[0].used, None);
    assert!(verdict.to_string().starts_with("No bottleneck: "), "{verdict}");
}

#[test]
fn neighbours_that_speak_against_it() {
    // Something before the pipeline is slow, so the stage that is used most is so for no fault of its own.
    let stages = vec![
        stage("hidden", 1, cpu(1000)).unmetered(),
        stage("split", 1, cpu(100)),
        stage("encode", 1, cpu(600)),
        stage("copy", 1, wait(Server, 100)).on(Server),
    ];
    let verdict = bound(&pipeline(1000, stages).run(), &of("encode"), Cpu);
    assert_eq!(verdict.bottleneck.as_ref().unwrap().evidence, Evidence::Contradicted);
    assert!(verdict.to_string().contains("it is not certain"), "{verdict}");
}

#[test]
fn a_stage_alone_and_no_run_at_all() {
    let verdict = bound(&pipeline(10, vec![stage("hash", 1, cpu(1000))]).run(), &of("hash"), Cpu);
    assert_eq!(verdict.bottleneck.unwrap().evidence, Evidence::Alone);
    let nothing = RunVerdict::of(&MeterReading::new(vec![StageReading::new("a")], Timeline::new(2)));
    assert_eq!((nothing.bottleneck.is_none(), nothing.phases.len()), (true, 0));
    assert_eq!(nothing.to_string(), "Nothing was metered.");
}

/// What bound, from and to which part of the run in percent.
fn phases(reading: &MeterReading) -> Vec<(String, u32, u32)> {
    let end = reading.timeline.end().as_secs_f64();
    let part = |time: Duration| (time.as_secs_f64() / end * 100.0).round() as u32;
    let name = |phase: &RunPhase| phase.used.as_ref().map_or("-".to_owned(), |used| used.limit.to_string());
    let verdict = RunVerdict::of(reading);
    verdict.phases.iter().map(|phase| (name(phase), part(phase.start), part(phase.end))).collect()
}

#[track_caller]
fn moves(pipeline: &Pipeline, expected: &[(&str, u32, u32)]) -> RunVerdict {
    let reading = pipeline.run();
    let found = phases(&reading);
    let verdict = RunVerdict::of(&reading);
    assert_eq!(found.len(), expected.len(), "{verdict}");
    for ((name, start, end), (expected_name, expected_start, expected_end)) in found.iter().zip(expected) {
        assert_eq!(name, expected_name, "{verdict}");
        assert!(start.abs_diff(*expected_start) <= 2 && end.abs_diff(*expected_end) <= 2, "{found:?}");
    }
    verdict
}

#[test]
fn it_moves_once() {
    // 300 files that compress well, then 700 that do not: 600 ms of decoding, then 1,400 ms of the network.
    let stages = vec![
        stage("fetch", 1, |item| vec![Wait(Network, if item < 300 { 500 } else { 2000 })]).on(Network),
        stage("decode", 1, |item| vec![Step::Cpu(if item < 300 { 2000 } else { 500 })]),
        stage("copy", 1, wait(Server, 300)).on(Server),
    ];
    let verdict = moves(&pipeline(1000, stages), &[("decode", 0, 30), ("fetch", 30, 100)]);
    let bottleneck = verdict.bottleneck.as_ref().unwrap();
    assert_eq!(bottleneck.used.limit, of("fetch"));
    assert!((0.68..0.72).contains(&bottleneck.share), "{}", bottleneck.share);
    assert!(verdict.to_string().contains("\nThe bottleneck moved: 0.0 s to 0."), "{verdict}");
}

#[test]
fn it_moves_there_and_back() {
    let is_slow = |item: u64| (400..700).contains(&item);
    let stages = vec![
        stage("fetch", 4, wait(Network, 3000)).on(Network),
        stage("encode", 1, cpu(800)),
        // A checkpoint of the server's.
        stage("copy", 2, move |item| vec![Wait(Server, if is_slow(item) { 6000 } else { 1000 })]).on(Server),
    ];
    // 320 ms, 900 ms, 240 ms.
    moves(&pipeline(1000, stages), &[("encode", 0, 22), ("copy", 22, 84), ("encode", 84, 100)]);
}

#[test]
fn it_moves_to_a_limiter_and_to_what_is_left() {
    // The limiter lets a lot of 600 through at first.
    let stages = vec![
        stage("ask", 10, |item| {
            let permit = if item < 600 { Wait(Network, 1) } else { Permit };
            vec![permit, Wait(Network, 10_000)]
        })
        .on(Network)
        .rate(1, 5000),
        stage("load", 1, wait(Server, 300)).on(Server),
    ];
    // 600 ms, 2 s.
    moves(&pipeline(1000, stages), &[("ask", 0, 23), ("the rate limit of ask", 23, 100)]);
}

#[test]
fn one_job_after_the_other() {
    // Rows are loaded, then an index is made, which nobody fetches anything for.
    let load = pipeline(1000, mirror(4000, 500, 500, 6000)).run();
    let index = pipeline(10, vec![stage("index", 2, wait(Server, 200_000)).on(Server)]).run();
    let begin = load.timeline.end();
    let mut timeline = load.timeline.clone();
    for sample in index.timeline.samples() {
        let mut later = Sample::new(begin + sample.start, begin + sample.end);
        later.stages = vec![StageSample::default(); 4];
        later.stages.extend(&sample.stages);
        timeline.push(later);
    }
    let reading = MeterReading::new([load.stages, index.stages].concat(), timeline);
    // 3 s and 1 s.
    assert_eq!(phases(&reading), [("copy".to_owned(), 0, 75), ("index".to_owned(), 75, 100)]);
}

#[test]
fn filling_and_draining_are_no_phases() {
    // The first item takes four stages half a percent of the run each.
    let stages =
        ["a", "b", "c", "d"].map(|name| stage(name, 1, |item| vec![Step::Cpu(if item == 0 { 5000 } else { 100 })]));
    let mut stages = Vec::from(stages);
    stages.push(stage("e", 1, cpu(1000)));
    confirmed(&pipeline(1000, stages).run(), &of("e"), Cpu);
}

#[test]
fn a_long_run_keeps_its_phases() {
    let is_slow = |item: u64| item >= 6000;
    let stages = vec![
        stage("fetch", 1, wait(Network, 1000)).on(Network),
        stage("decode", 1, move |item| vec![Step::Cpu(if is_slow(item) { 2000 } else { 200 })]),
    ];
    // More samples than a timeline keeps; 6 s and 8 s.
    let long = Pipeline { samples: 5000, ..pipeline(10_000, stages) };
    moves(&long, &[("fetch", 0, 43), ("decode", 43, 100)]);
    assert!(long.run().timeline.samples().len() <= 600);
}

/// How long it takes with a stage that is faster, by what it took.
fn measured(stages: impl Fn() -> Vec<Stage>, cores: Option<usize>, name: &str, speed: f64) -> f64 {
    let run = |speed: f64| {
        let faster = stages().into_iter().map(|stage| if stage.name == name { stage.faster(speed) } else { stage });
        Pipeline { cores, ..pipeline(1000, faster.collect()) }.run().timeline.end().as_secs_f64()
    };
    run(speed) / run(1.0)
}

/// The interval is as wide as the run-queue share allows, and no wider. Its upper end has what is used most as it was, and
/// its lower end takes off the time in line, of the stage that stood there for the greatest part of its own. If nothing stood
/// in line, what is left is that the limit itself was not used for all of the time.
#[track_caller]
fn assert_narrow(reading: &MeterReading, verdict: &RunVerdict, predicted: &WhatIf) {
    let samples = reading.timeline.samples();
    let kept = verdict.phases.iter().map(|phase| {
        let of_phase = samples.iter().filter(|sample| sample.start >= phase.start && sample.end <= phase.end);
        let of_phase: Vec<&Sample> = of_phase.collect();
        let in_line = (0..reading.stages.len()).map(|stage| {
            let sum = |of: fn(&StageCounts) -> Duration| -> f64 {
                of_phase.iter().map(|sample| of(&sample.stage(stage).counts).as_secs_f64()).sum()
            };
            let (queue, busy) = (sum(|counts| counts.run_queue), sum(StageCounts::busy));
            if busy > 0.0 { queue / busy } else { 0.0 }
        });
        let in_line = in_line.fold(0.0, f64::max);
        // Where nothing binds, nobody knows what the time goes by with.
        phase.used.as_ref().map_or(0.0, |used| used.utilisation * (1.0 - in_line))
    });
    let kept = kept.fold(1.0, f64::min);
    let WhatIf { least, most, .. } = *predicted;
    assert!(least <= most && most <= 1.0, "{predicted:?}");
    assert!(least >= most * kept - 1e-5, "{predicted:?} where {kept} of it are left without the run queue\n{verdict}");
}

#[test]
fn what_would_be_is_what_is_then() {
    type Case = (fn() -> Vec<Stage>, Option<usize>, &'static str);
    let cases: [Case; 5] = [
        (|| mirror(1000, 3000, 500, 1000), None, "decode"),
        (|| mirror(8000, 1000, 500, 3000), None, "fetch"),
        (|| mirror(1000, 1000, 500, 4000), None, "copy"),
        (|| mirror(1000, 6000, 500, 1000), Some(2), "decode"),
        (|| shared([500, 4000, 1000, 500]).stages, Some(2), "decode"),
    ];
    for (stages, cores, name) in cases {
        let reading = Pipeline { cores, ..pipeline(1000, stages()) }.run();
        let verdict = RunVerdict::of(&reading);
        for speed in [1.25, 2.0, 4.0, 100.0] {
            let predicted = verdict.what_if(&reading, &of(name), speed).unwrap();
            assert_narrow(&reading, &verdict, &predicted);
            let measured = measured(stages, cores, name, speed);
            // A hundredth is what the pipeline's filling takes.
            let (least, most) = (predicted.least - 0.01, predicted.most + 0.01);
            assert!((least..=most).contains(&measured), "{name} {speed}: {measured} is not of {predicted:?}");
        }
    }
}

#[test]
fn the_next_limit_is_named_with_the_speed_that_it_takes() {
    let reading = pipeline(1000, mirror(1000, 3000, 500, 1000)).run();
    let verdict = confirmed(&reading, &of("decode"), Cpu);
    // 1,500 us an item, against 525 for COPY.
    let next = verdict.bottleneck.as_ref().unwrap().next.as_ref().unwrap();
    assert_eq!(next.then, Some(of("copy")));
    assert_eq!((next.speed * 1000.0).round(), 2857.0);
    assert_eq!(
        verdict.to_string(),
        "CPU-bound in decode: busy 100% of 2 workers; copy 35%, encode 33%, fetch 17%. Its neighbours wait for it.\n\
         With twice the speed of decode the run would take 0.50 of its time, and decode would still bind. From 2.9 times on \
         copy binds, at 0.35 of the time."
    );
    for speed in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(verdict.what_if(&reading, &of("decode"), speed), None);
    }
    assert_eq!(verdict.what_if(&reading, &of("nobody"), 2.0), None);
}

#[test]
fn what_the_server_says_stands_beside_its_stage() {
    let mut reading = pipeline(1000, mirror(1000, 1000, 500, 4000)).run();
    reading.stages[3].server_events = [("CPU".to_owned(), 3), ("IO/DataFileExtend".to_owned(), 1)].into();
    let verdict = confirmed(&reading, &of("copy"), Server);
    let said = "The server's side: CPU 75%, IO/DataFileExtend 25%.";
    assert!(verdict.to_string().contains(said), "{verdict}");
    // One that waits for more of it is not what it waits for.
    for read in ["ClientRead", "Client/ClientRead"] {
        reading.stages[3].server_events = [("CPU".to_owned(), 3), (read.to_owned(), 4)].into();
        confirmed(&reading, &of("copy"), Network);
        reading.stages[3].server_events = [("CPU".to_owned(), 4), (read.to_owned(), 4)].into();
        confirmed(&reading, &of("copy"), Server);
    }
}

#[test]
fn good_enough_or_not() {
    // 1 MB in 1.5 s and a little.
    let reading = pipeline(1000, mirror(1000, 3000, 500, 1000)).run();
    let verdict = RunVerdict::of(&reading);
    let project = |goal, total| verdict.project(&reading, goal, &GoalProgress::bytes("copy", total)).unwrap();
    let enough = project(Goal::Rate(600_000.0), None);
    assert_eq!((enough.outlook, enough.help.len(), enough.left), (Outlook::WillMakeIt, 0, None));
    let slow = project(Goal::Rate(3_000_000.0), None);
    assert_eq!(slow.outlook, Outlook::WillMissIt);
    // Four and a half times as fast as two thirds of a megabyte a second.
    let helps: Vec<_> =
        slow.help.iter().map(|help| (help.used.limit.to_string(), (help.speed * 10.0).round())).collect();
    assert_eq!(helps, [("decode".to_owned(), 45.0), ("copy".to_owned(), 16.0), ("encode".to_owned(), 15.0)]);
    assert!(slow.to_string().contains("It would make it with 4.5 times the speed of decode, and 1.6 times"), "{slow}");

    // As much again.
    let total = Some(2_000_000);
    let late = project(Goal::Within(Duration::from_secs(1)), total);
    assert_eq!((late.outlook, late.needed_rate), (Outlook::WillMissIt, Some(1e6)));
    let (soonest, latest) = late.left.unwrap();
    assert!(soonest <= latest && (1.4..1.6).contains(&soonest) && (1.4..1.6).contains(&latest), "{late:?}");
    assert_eq!(project(Goal::Within(Duration::from_secs(2)), total).outlook, Outlook::WillMakeIt);
    assert_eq!(project(Goal::Within(Duration::from_secs(2)), None).outlook, Outlook::Open);
    assert_eq!(project(Goal::Within(Duration::ZERO), total).outlook, Outlook::WillMissIt);
    assert_eq!(project(Goal::Within(Duration::ZERO), Some(1_000_000)).outlook, Outlook::WillMakeIt);
    assert_eq!(verdict.project(&reading, Goal::Rate(1.0), &GoalProgress::items("nobody", None)), None);
}

#[test]
fn a_verdict_survives_json() {
    let mut reading = pipeline(1000, mirror(1000, 3000, 500, 1000)).run();
    reading.stages[1].capacity = None;
    let verdict = RunVerdict::of(&reading);
    let json = serde_json::to_string(&verdict).unwrap();
    assert_eq!(serde_json::from_str::<RunVerdict>(&json).unwrap(), verdict);
    let again: MeterReading = serde_json::from_str(&serde_json::to_string(&reading).unwrap()).unwrap();
    assert_eq!(again, reading);
    assert_eq!(RunVerdict::of(&again), verdict);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the stages, the one that needs most of its workers' time for an item is it, and what is predicted of it comes.
    #[test]
    fn any_chain(
        shapes in prop::collection::vec((1_usize..5, 100_u64..4000, prop::bool::ANY), 1..7),
        speed in 1.1_f64..8.0,
    ) {
        let names = ["a", "b", "c", "d", "e", "f"];
        let stages = || {
            let stage = |(name, (workers, micros, is_cpu)): (&'static str, &(usize, u64, bool))| match is_cpu {
                true => stage(name, *workers, cpu(*micros)),
                false => stage(name, *workers, wait(Network, *micros)).on(Network),
            };
            names.into_iter().zip(&shapes).map(stage).collect::<Vec<_>>()
        };
        let demand = |(workers, micros, _): &(usize, u64, bool)| *micros as f64 / *workers as f64;
        let mut order: Vec<usize> = (0..shapes.len()).collect();
        order.sort_by(|&a, &b| demand(&shapes[b]).total_cmp(&demand(&shapes[a])));
        let is_clear = order.len() == 1 || demand(&shapes[order[0]]) > 1.15 * demand(&shapes[order[1]]);
        prop_assume!(is_clear);
        let reading = pipeline(1000, stages()).run();
        let verdict = RunVerdict::of(&reading);
        let bottleneck = verdict.bottleneck.as_ref().unwrap();
        let name = names[order[0]];
        prop_assert_eq!(&bottleneck.used.limit, &of(name));
        prop_assert_eq!(verdict.phases.len(), 1);
        prop_assert_ne!(bottleneck.evidence, Evidence::Contradicted);
        let predicted = verdict.what_if(&reading, &of(name), speed).unwrap();
        let run = pipeline(1000, stages().into_iter().map(|s| if s.name == name { s.faster(speed) } else { s }).collect()).run();
        let measured = run.timeline.end().as_secs_f64() / reading.timeline.end().as_secs_f64();
        prop_assert!(
            (predicted.least - 0.02..=predicted.most + 0.02).contains(&measured),
            "{} is not of {:?}", measured, predicted
        );
    }

    /// Whatever stands in line for however many processors, what is predicted of each stage is no wider than that makes it.
    #[test]
    fn an_interval_is_as_wide_as_the_run_queue_is_long(
        shapes in prop::collection::vec((1_usize..4, 100_u64..4000, prop::bool::weighted(0.8)), 1..6),
        cores in 1_usize..4,
        speed in 1.1_f64..8.0,
    ) {
        let names = ["a", "b", "c", "d", "e"];
        let stage = |(name, (workers, micros, is_cpu)): (&'static str, &(usize, u64, bool))| match is_cpu {
            true => stage(name, *workers, cpu(*micros)),
            false => stage(name, *workers, wait(Network, *micros)).on(Network),
        };
        let stages = names.into_iter().zip(&shapes).map(stage).collect();
        let reading = Pipeline { cores: Some(cores), ..pipeline(300, stages) }.run();
        let verdict = RunVerdict::of(&reading);
        for name in &names[..shapes.len()] {
            let predicted = verdict.what_if(&reading, &of(name), speed).unwrap();
            assert_narrow(&reading, &verdict, &predicted);
        }
    }
}
