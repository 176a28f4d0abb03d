//! Pipelines in virtual time, metered exactly: what each worker does is known to the nanosecond, and the same each time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use bulk_core::{MeterReading, Resource, Sample, StageCounts, StageReading, StageSample, Timeline};

/// Something that an item needs, in its order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Microseconds on a CPU, after those that came before have had theirs.
    Cpu(u64),
    /// Microseconds of waiting for something.
    Wait(Resource, u64),
    /// Leave of the stage's rate limiter.
    Permit,
    /// One of the budget's places, and back with it.
    Take,
    Free,
}

pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) resources: Vec<Resource>,
    pub(crate) workers: usize,
    /// How many items may wait before it.
    pub(crate) queue: usize,
    /// What its nth item needs.
    pub(crate) work: Box<dyn Fn(u64) -> Vec<Step>>,
    /// Permits at once, and microseconds until the next such lot.
    pub(crate) rate: Option<(u64, u64)>,
    pub(crate) is_metered: bool,
    /// Whether workers of the first stage stay until the last of them has done its work.
    pub(crate) lingers: bool,
}

pub(crate) fn stage(name: &'static str, workers: usize, work: impl Fn(u64) -> Vec<Step> + 'static) -> Stage {
    let work = Box::new(work);
    Stage {
        name,
        resources: vec![Resource::Cpu],
        workers,
        queue: 4,
        work,
        rate: None,
        is_metered: true,
        lingers: false,
    }
}

impl Stage {
    pub(crate) fn on(mut self, resource: Resource) -> Self {
        self.resources = vec![resource];
        self
    }

    pub(crate) fn rate(mut self, permits: u64, micros: u64) -> Self {
        self.rate = Some((permits, micros));
        self
    }

    pub(crate) fn lingering(mut self) -> Self {
        self.lingers = true;
        self
    }

    pub(crate) fn unmetered(mut self) -> Self {
        self.is_metered = false;
        self
    }

    /// Each item takes it a `speed`th of the time.
    pub(crate) fn faster(mut self, speed: f64) -> Self {
        let work = self.work;
        let less = move |micros: u64| (micros as f64 / speed).round() as u64;
        self.work = Box::new(move |item| {
            let steps = work(item).into_iter();
            let faster = steps.map(|step| match step {
                Step::Cpu(micros) => Step::Cpu(less(micros)),
                Step::Wait(resource, micros) => Step::Wait(resource, less(micros)),
                step => step,
            });
            faster.collect()
        });
        self
    }
}

/// A chain of stages.
pub(crate) struct Pipeline {
    pub(crate) stages: Vec<Stage>,
    pub(crate) items: u64,
    pub(crate) cores: Option<usize>,
    pub(crate) budget: usize,
    pub(crate) samples: usize,
}

pub(crate) fn pipeline(items: u64, stages: Vec<Stage>) -> Pipeline {
    Pipeline { stages, items, cores: None, budget: usize::MAX, samples: 100 }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Absent,
    Starved,
    Blocked,
    OnCpu,
    RunQueue,
    Waiting(Resource),
}

struct Worker {
    stage: usize,
    state: State,
    since: u64,
    item: u64,
    steps: VecDeque<Step>,
    /// How long it was busy, and how much of that has been sampled.
    busy: u64,
    sampled: u64,
}

struct Run<'a> {
    pipeline: &'a Pipeline,
    now: u64,
    workers: Vec<Worker>,
    queues: Vec<VecDeque<u64>>,
    blocked: Vec<VecDeque<usize>>,
    run_queue: VecDeque<usize>,
    free_cores: usize,
    free_budget: usize,
    out_of_budget: VecDeque<usize>,
    /// The begin of each limiter's present lot, and what is left of it.
    lots: Vec<(u64, u64)>,
    next_item: u64,
    events: BinaryHeap<Reverse<(u64, u64, usize)>>,
    sequence: u64,
    counts: Vec<StageCounts>,
    held_since: Vec<[Option<u64>; 2]>,
}

impl Pipeline {
    /// Runs it to its end, and then once more, sampled so often.
    pub(crate) fn run(&self) -> MeterReading {
        let end = self.simulate(u64::MAX).timeline.end().as_micros() as u64;
        self.simulate(end.div_ceil(self.samples as u64).max(1))
    }

    fn simulate(&self, interval: u64) -> MeterReading {
        let stages = self.stages.len();
        let mut run = Run {
            pipeline: self,
            now: 0,
            workers: Vec::new(),
            queues: vec![VecDeque::new(); stages],
            blocked: vec![VecDeque::new(); stages],
            run_queue: VecDeque::new(),
            free_cores: self.cores.unwrap_or(usize::MAX),
            free_budget: self.budget,
            out_of_budget: VecDeque::new(),
            lots: self.stages.iter().map(|stage| (0, stage.rate.map_or(0, |(permits, _)| permits))).collect(),
            next_item: 0,
            events: BinaryHeap::new(),
            sequence: 0,
            counts: vec![StageCounts::default(); stages],
            held_since: vec![[None; 2]; stages],
        };
        for (index, stage) in self.stages.iter().enumerate() {
            for _ in 0..stage.workers {
                let steps = VecDeque::new();
                run.workers.push(Worker {
                    stage: index,
                    state: State::Starved,
                    since: 0,
                    item: 0,
                    steps,
                    busy: 0,
                    sampled: 0,
                });
            }
        }
        for worker in 0..run.workers.len() {
            if run.workers[worker].stage == 0 {
                run.take(worker);
            }
        }
        let mut timeline = Timeline::new(Timeline::SAMPLES);
        let mut sampled = vec![StageCounts::default(); stages];
        let mut next_sample = interval;
        while let Some(Reverse((at, _, worker))) = run.events.pop() {
            while next_sample < at {
                run.sample(next_sample, &mut timeline, &mut sampled);
                next_sample = next_sample.saturating_add(interval);
            }
            run.now = at;
            if run.workers[worker].state == State::OnCpu {
                run.leave_cpu();
            }
            run.go_on(worker);
        }
        let end = run.now;
        run.sample(end, &mut timeline, &mut sampled);
        let metered = self.stages.iter().zip(&run.counts).filter(|(stage, _)| stage.is_metered);
        let mut before: Option<&str> = None;
        let readings = metered.map(|(stage, counts)| {
            let mut reading = StageReading::new(stage.name);
            reading.resources.clone_from(&stage.resources);
            reading.after = before.into_iter().map(str::to_owned).collect();
            reading.total = *counts;
            before = Some(stage.name);
            reading
        });
        let mut reading = MeterReading::new(readings.collect(), timeline);
        reading.cores = self.cores.map(|cores| cores as f64);
        reading
    }
}

impl Run<'_> {
    fn set(&mut self, worker: usize, state: State) {
        let now = self.now;
        self.flush(worker, now);
        let (stage, from) = (self.workers[worker].stage, self.workers[worker].state);
        self.workers[worker].state = state;
        for (gauge, resource) in [Resource::RateLimit, Resource::Budget].into_iter().enumerate() {
            let is_held =
                self.workers.iter().any(|worker| worker.stage == stage && worker.state == State::Waiting(resource));
            let since = &mut self.held_since[stage][gauge];
            match (is_held, *since) {
                (true, None) => *since = Some(now),
                (false, Some(begin)) if from == State::Waiting(resource) => {
                    *since = None;
                    *held(&mut self.counts[stage], gauge) += Duration::from_micros(now - begin);
                }
                _ => {}
            }
        }
    }

    /// Counts what a worker did up to then.
    fn flush(&mut self, worker: usize, now: u64) {
        let Worker { stage, state, since, busy, .. } = &mut self.workers[worker];
        let counts = &mut self.counts[*stage];
        let spent = Duration::from_micros(now - *since);
        let is_held = matches!(state, State::Waiting(Resource::RateLimit | Resource::Budget));
        if !is_held && !matches!(state, State::Absent | State::Starved | State::Blocked) {
            *busy += now - *since;
        }
        *since = now;
        match state {
            State::Absent => {}
            State::Starved => counts.starved += spent,
            State::Blocked => counts.blocked += spent,
            State::OnCpu => counts.on_cpu += spent,
            State::RunQueue => counts.run_queue += spent,
            State::Waiting(Resource::Network) => counts.network += spent,
            State::Waiting(Resource::Disk) => counts.disk += spent,
            State::Waiting(Resource::Server) => counts.server += spent,
            State::Waiting(Resource::RateLimit) => counts.rate_limit += spent,
            State::Waiting(Resource::Budget) => counts.budget += spent,
            State::Waiting(_) => counts.off_cpu += spent,
        }
    }

    fn sample(&mut self, at: u64, timeline: &mut Timeline, sampled: &mut [StageCounts]) {
        for worker in 0..self.workers.len() {
            self.flush(worker, at);
        }
        for stage in 0..self.counts.len() {
            for gauge in 0..2 {
                if let Some(begin) = &mut self.held_since[stage][gauge] {
                    *held(&mut self.counts[stage], gauge) += Duration::from_micros(at - *begin);
                    *begin = at;
                }
            }
        }
        let mut sample = Sample::new(timeline.end(), Duration::from_micros(at));
        for (index, stage) in self.pipeline.stages.iter().enumerate().filter(|(_, stage)| stage.is_metered) {
            let mut since = StageSample::new(stage.workers as u32);
            since.counts = difference(&self.counts[index], &sampled[index]);
            let of_stage = self.workers.iter().filter(|worker| worker.stage == index);
            since.busiest = Duration::from_micros(of_stage.map(|worker| worker.busy - worker.sampled).max().unwrap());
            sample.stages.push(since);
        }
        self.workers.iter_mut().for_each(|worker| worker.sampled = worker.busy);
        sampled.copy_from_slice(&self.counts);
        timeline.push(sample);
    }

    fn schedule(&mut self, worker: usize, after: u64) {
        self.sequence += 1;
        self.events.push(Reverse((self.now + after, self.sequence, worker)));
    }

    fn leave_cpu(&mut self) {
        self.free_cores += 1;
        if let Some(next) = self.run_queue.pop_front() {
            self.enter_cpu(next);
        }
    }

    fn enter_cpu(&mut self, worker: usize) {
        self.free_cores -= 1;
        self.set(worker, State::OnCpu);
        let Some(Step::Cpu(micros)) = self.workers[worker].steps.pop_front() else { unreachable!() };
        self.schedule(worker, micros);
    }

    /// The worker's next step, or what follows the last one.
    fn go_on(&mut self, worker: usize) {
        let stage = self.workers[worker].stage;
        while let Some(step) = self.workers[worker].steps.front().copied() {
            match step {
                Step::Cpu(_) if self.free_cores > 0 => return self.enter_cpu(worker),
                Step::Cpu(_) => {
                    self.run_queue.push_back(worker);
                    return self.set(worker, State::RunQueue);
                }
                Step::Wait(resource, micros) => {
                    self.workers[worker].steps.pop_front();
                    self.set(worker, State::Waiting(resource));
                    return self.schedule(worker, micros);
                }
                Step::Permit => {
                    self.workers[worker].steps.pop_front();
                    let (permits, micros) = self.pipeline.stages[stage].rate.unwrap();
                    let (begin, left) = &mut self.lots[stage];
                    if *begin + micros <= self.now {
                        (*begin, *left) = (self.now - self.now % micros, permits);
                    }
                    if *left == 0 {
                        (*begin, *left) = (*begin + micros, permits);
                    }
                    *left -= 1;
                    let begin = *begin;
                    if begin > self.now {
                        self.set(worker, State::Waiting(Resource::RateLimit));
                        return self.schedule(worker, begin - self.now);
                    }
                }
                Step::Take if self.free_budget == 0 => {
                    self.out_of_budget.push_back(worker);
                    return self.set(worker, State::Waiting(Resource::Budget));
                }
                Step::Take => {
                    self.workers[worker].steps.pop_front();
                    self.free_budget -= 1;
                }
                Step::Free => {
                    self.workers[worker].steps.pop_front();
                    self.free_budget += 1;
                    if let Some(next) = self.out_of_budget.pop_front() {
                        self.workers[next].steps.pop_front();
                        self.free_budget -= 1;
                        self.schedule(next, 0);
                    }
                }
            }
        }
        self.counts[stage].items += 1;
        self.counts[stage].bytes += 1000;
        self.hand_on(worker);
    }

    fn hand_on(&mut self, worker: usize) {
        let next = self.workers[worker].stage + 1;
        if next < self.pipeline.stages.len() {
            if self.queues[next].len() >= self.pipeline.stages[next].queue && self.starving(next).is_none() {
                self.blocked[next].push_back(worker);
                return self.set(worker, State::Blocked);
            }
            self.queues[next].push_back(self.workers[worker].item);
            if let Some(starving) = self.starving(next) {
                self.take(starving);
            }
        }
        self.take(worker);
    }

    fn starving(&self, stage: usize) -> Option<usize> {
        self.workers.iter().position(|worker| worker.stage == stage && worker.state == State::Starved)
    }

    /// The worker takes an item, or has nothing to do.
    fn take(&mut self, worker: usize) {
        let stage = self.workers[worker].stage;
        let item = if stage == 0 {
            let item = (self.next_item < self.pipeline.items).then_some(self.next_item);
            self.next_item += u64::from(item.is_some());
            item
        } else {
            self.queues[stage].pop_front()
        };
        let Some(item) = item else {
            let is_over = stage == 0 && !self.pipeline.stages[0].lingers
                || stage > 0
                    && self.workers.iter().all(|worker| worker.stage != stage - 1 || worker.state == State::Absent);
            self.set(worker, if is_over { State::Absent } else { State::Starved });
            let is_last = is_over && !self.workers.iter().any(|w| w.stage == stage && w.state != State::Absent);
            while let Some(next) = self.starving(stage + 1).filter(|_| is_last && self.queues[stage + 1].is_empty()) {
                self.take(next);
            }
            return;
        };
        self.workers[worker].item = item;
        self.workers[worker].steps = (self.pipeline.stages[stage].work)(item).into();
        // Nobody else hands it anything from here on.
        self.set(worker, State::Waiting(Resource::Unknown));
        // There is room for one who waited with his.
        if let Some(waiting) = self.blocked.get_mut(stage).and_then(VecDeque::pop_front) {
            self.queues[stage].push_back(self.workers[waiting].item);
            self.take(waiting);
        }
        self.go_on(worker);
    }
}

fn held(counts: &mut StageCounts, gauge: usize) -> &mut Duration {
    if gauge == 0 { &mut counts.rate_limit_held } else { &mut counts.budget_held }
}

fn difference(now: &StageCounts, before: &StageCounts) -> StageCounts {
    let mut since = StageCounts::default();
    since.items = now.items - before.items;
    since.bytes = now.bytes - before.bytes;
    since.on_cpu = now.on_cpu - before.on_cpu;
    since.run_queue = now.run_queue - before.run_queue;
    since.off_cpu = now.off_cpu - before.off_cpu;
    since.starved = now.starved - before.starved;
    since.blocked = now.blocked - before.blocked;
    since.network = now.network - before.network;
    since.disk = now.disk - before.disk;
    since.server = now.server - before.server;
    since.rate_limit = now.rate_limit - before.rate_limit;
    since.budget = now.budget - before.budget;
    since.rate_limit_held = now.rate_limit_held - before.rate_limit_held;
    since.budget_held = now.budget_held - before.budget_held;
    since
}
