//! Stage meters: what each stage of a pipeline did with its workers' time.

mod clock;
mod counts;
mod read;
mod reading;
mod sampling;
mod slot;
mod stream;
mod timeline;
mod wait;
mod worker;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use counts::StageCounts;
pub(crate) use counts::{fraction, number, seconds};
pub use read::MeteredRead;
pub use reading::{MeterReading, StageReading};
pub use sampling::Sampling;
use slot::{Held, Slot};
pub use stream::{InputState, MeteredInput, MeteredStream};
pub use timeline::{Sample, StageSample, Timeline};
pub use wait::{Resource, Wait};
pub use worker::WorkerMeter;

/// What a server said of itself is kept under so many names.
const MAX_SERVER_EVENTS: usize = 64;

/// How much of a run is recent.
const RECENT: Duration = Duration::from_secs(10);

/// Samples shorter than this are kept together with the next, so that there are 51 recent ones at most.
const SHORT: Duration = Duration::from_millis(200);

/// The meters of one run: its [stages](StageMeter), and how they did over time.
///
/// Clones share everything. There is no state outside: who wants two runs metered makes two of these. A worker that waits
/// or goes on costs a reading of the clock and an uncontended lock, about 0.05 µs; see [`WorkerMeter`].
///
/// ```
/// use std::time::Duration;
///
/// use bulk_core::{Meters, Resource, RunVerdict, Wait};
///
/// let meters = Meters::new();
/// let read = meters.stage("read", &[Resource::Disk], &[]);
/// let parse = meters.stage("parse", &[Resource::Cpu], &["read"]);
/// let (send, receive) = std::sync::mpsc::sync_channel::<String>(1);
/// std::thread::scope(|scope| {
///     scope.spawn(move || {
///         let worker = read.worker();
///         for line in ["1", "2", "3"] {
///             worker.add(1, line.len() as u64);
///             worker.wait(Wait::Output, || send.send(line.to_owned())).expect("somebody parses");
///         }
///     });
///     let worker = parse.worker();
///     while let Ok(line) = worker.wait(Wait::Input, || receive.recv()) {
///         assert!(line.parse::<u32>().is_ok());
///         worker.add(1, line.len() as u64);
///     }
/// });
/// let reading = meters.reading();
/// assert_eq!(reading.stages[1].total.items, 3);
/// println!("{}", RunVerdict::of(&reading));
/// ```
#[derive(Clone, Debug)]
pub struct Meters {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    stages: Mutex<Vec<Arc<Stage>>>,
    history: Mutex<History>,
}

#[derive(Debug)]
struct History {
    timeline: Timeline,
    /// The last samples, which stay as short as they were taken however coarse the timeline grows.
    recent: VecDeque<Sample>,
    /// What each stage had counted at the last sample.
    seen: Vec<StageCounts>,
    process_cpu: Option<Duration>,
}

#[derive(Debug)]
struct Stage {
    name: String,
    resources: Vec<Resource>,
    settings: Mutex<Settings>,
    slots: Mutex<Slots>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Settings {
    after: Vec<String>,
    workers: Option<usize>,
    workers_of: Option<String>,
    capacity: Option<f64>,
    server_events: BTreeMap<String, u64>,
}

/// The places of workers: who comes takes the first that is free, so there are no more than ever worked at once.
#[derive(Debug, Default)]
struct Slots {
    all: Vec<Arc<Mutex<Slot>>>,
    /// How long each had been busy at the last sample.
    busy: Vec<Duration>,
    free: Vec<usize>,
    /// The most that were taken at once since the last sample.
    peak: usize,
}

impl Default for Meters {
    fn default() -> Self {
        Self::new()
    }
}

impl Meters {
    /// Meters whose time begins now, and whose timeline has 600 samples at most.
    pub fn new() -> Self {
        Self::with_samples(Timeline::SAMPLES)
    }

    /// Meters whose timeline has so many samples at most, and at least two.
    pub fn with_samples(samples: usize) -> Self {
        let history = History {
            timeline: Timeline::new(samples),
            recent: VecDeque::new(),
            seen: Vec::new(),
            process_cpu: clock::of_process(),
        };
        let shared = Shared { started: Instant::now(), stages: Mutex::default(), history: Mutex::new(history) };
        Self { shared: Arc::new(shared) }
    }

    /// The stage of that name, which is made if there is none.
    ///
    /// `resources` says what its work depends on, what matters most first: time that it works without being on a CPU or
    /// waiting for anything that it named counts as the first one's that is not [`Resource::Cpu`]. `after` names the stages
    /// that it gets its input from, none for the first; they may be made later. Of a stage that is there already the
    /// resources stay as they are, and what `after` names comes to those that it has: input may take several ways.
    pub fn stage(&self, name: &str, resources: &[Resource], after: &[&str]) -> StageMeter {
        let mut stages = lock(&self.shared.stages);
        let stage = match stages.iter().find(|stage| stage.name == name) {
            Some(stage) => stage.clone(),
            None => {
                let stage = Arc::new(Stage {
                    name: name.to_owned(),
                    resources: resources.to_vec(),
                    settings: Mutex::default(),
                    slots: Mutex::default(),
                    held: Mutex::default(),
                });
                stages.push(stage.clone());
                stage
            }
        };
        stage.follow(after);
        StageMeter { stage }
    }

    /// Adds what happened since the last call to the timeline. Call it at even intervals, such as each second;
    /// [`sample_every`](Self::sample_every) does.
    pub fn sample(&self) {
        // Held first, so that samples are in the order of their times.
        let mut history = lock(&self.shared.history);
        let sample = self.since_last(&mut history, Instant::now(), true);
        history.push(sample);
    }

    /// What happened since the last sample. The next one begins at its end, if it is kept.
    fn since_last(&self, history: &mut History, now: Instant, is_kept: bool) -> Sample {
        let end = now.saturating_duration_since(self.shared.started);
        let mut sample = Sample::new(history.timeline.end(), end);
        let process_cpu = clock::of_process();
        sample.process_cpu = match (process_cpu, history.process_cpu) {
            (Some(now), Some(before)) => now.saturating_sub(before),
            _ => Duration::ZERO,
        };
        if is_kept {
            history.process_cpu = process_cpu;
        }
        for (i, stage) in lock(&self.shared.stages).iter().enumerate() {
            let (counts, workers, busiest) = stage.read(now, is_kept);
            if history.seen.len() == i {
                history.seen.push(StageCounts::default());
            }
            let mut since = StageSample::new(workers);
            since.busiest = busiest;
            since.counts = counts.since(&history.seen[i]);
            sample.stages.push(since);
            if is_kept {
                history.seen[i] = counts;
            }
        }
        sample
    }

    /// Takes a [sample](Self::sample) at each interval, from a thread that ends when what this returns is dropped.
    ///
    /// # Errors
    ///
    /// If the system makes no thread.
    pub fn sample_every(&self, interval: Duration) -> std::io::Result<Sampling> {
        Sampling::start(self.clone(), interval)
    }

    /// All that was metered up to now. What happened since the last [sample](Self::sample) is one more in its timeline alone:
    /// a reading changes nothing of those that follow.
    pub fn reading(&self) -> MeterReading {
        self.look(|history, last| {
            let mut timeline = history.timeline.clone();
            timeline.push(last);
            timeline
        })
    }

    /// The same, but with a timeline of no more than the last ten seconds, in samples as short as they are taken (or a fifth
    /// of a second, where they are shorter): those of a long run's [reading](Self::reading) grow longer than that. What its
    /// stages say is of all of the run.
    pub fn recent(&self) -> MeterReading {
        self.look(|history, last| {
            let begin = last.end.saturating_sub(RECENT);
            let recent = history.recent.iter().filter(|sample| sample.end > begin).cloned();
            Timeline::from(recent.chain([last]).collect::<Vec<_>>())
        })
    }

    fn look(&self, timeline: impl FnOnce(&History, Sample) -> Timeline) -> MeterReading {
        let mut history = lock(&self.shared.history);
        let now = Instant::now();
        let last = self.since_last(&mut history, now, false);
        let stages = lock(&self.shared.stages).iter().map(|stage| stage.reading(now)).collect();
        let mut reading = MeterReading::new(stages, timeline(&history, last));
        reading.cores = std::thread::available_parallelism().ok().map(|cores| cores.get() as f64);
        reading
    }
}

impl History {
    fn push(&mut self, sample: Sample) {
        match self.recent.back_mut().filter(|last| last.duration() < SHORT) {
            Some(last) => last.append(&sample),
            None => self.recent.push_back(sample.clone()),
        }
        let begin = sample.end.saturating_sub(RECENT);
        while self.recent.front().is_some_and(|first| first.end <= begin) {
            self.recent.pop_front();
        }
        self.timeline.push(sample);
    }
}

/// One stage of a pipeline, such as "decode". Clones are of the same stage.
#[derive(Clone, Debug)]
pub struct StageMeter {
    stage: Arc<Stage>,
}

impl StageMeter {
    /// A worker that begins to work now, and does until it is dropped: a thread, a task, or a connection.
    pub fn worker(&self) -> WorkerMeter {
        WorkerMeter::begin(self.stage.clone())
    }

    /// What its workers wait for where nobody says: its first resource that is not the CPU; its input, if it states none.
    pub fn wait(&self) -> Wait {
        let mut waits = self.stage.resources.iter().map(|resource| resource.wait());
        waits.find(|wait| *wait != Wait::Input).unwrap_or(Wait::Input)
    }

    /// How many workers there may be. Default: as many as there ever were at once. It matters where workers come and go
    /// with the work, such as a task for each request.
    pub fn set_workers(&self, workers: usize) {
        lock(&self.stage.settings).workers = Some(workers);
    }

    /// Says that its workers are those of another stage: when the one works, the other does not. So it is with a decoder
    /// that works in the thread of the one who reads from it. Default: it has its own.
    pub fn set_workers_of(&self, stage: &str) {
        lock(&self.stage.settings).workers_of = Some(stage.to_owned());
    }

    /// How many items a second the stage may pass, where something states that: the rate of a limit. The stage then counts
    /// as used by how much of it is taken, whatever its workers do, and as bound by [`Resource::RateLimit`].
    pub fn set_capacity(&self, items_per_second: f64) {
        lock(&self.stage.settings).capacity = Some(items_per_second);
    }

    /// Counts an answer to the question of what the server is doing for this stage, such as `wait_event` of
    /// PostgreSQL's `pg_stat_activity`, or "CPU" where it waits for nothing. 64 different ones are kept.
    pub fn saw_server(&self, event: &str) {
        let events = &mut lock(&self.stage.settings).server_events;
        if let Some(times) = events.get_mut(event) {
            *times += 1;
        } else if events.len() < MAX_SERVER_EVENTS {
            events.insert(event.to_owned(), 1);
        }
    }
}

impl Stage {
    /// Gets its input from these, too.
    fn follow(&self, stages: &[&str]) {
        let after = &mut lock(&self.settings).after;
        for &name in stages {
            if !after.iter().any(|known| known == name) {
                after.push(name.to_owned());
            }
        }
    }

    /// All counts up to now, and since the last call that was kept the most workers, and how long the busiest one was busy.
    fn read(&self, now: Instant, is_kept: bool) -> (StageCounts, u32, Duration) {
        let mut slots = lock(&self.slots);
        let Slots { all, busy, .. } = &mut *slots;
        busy.resize(all.len(), Duration::ZERO);
        let (mut total, mut busiest) = (StageCounts::default(), Duration::ZERO);
        for (slot, before) in all.iter().zip(busy) {
            let counts = lock(slot).read(now, &self.resources);
            busiest = busiest.max(counts.busy().saturating_sub(*before));
            if is_kept {
                *before = counts.busy();
            }
            total.add(&counts);
        }
        let peak = slots.peak;
        if is_kept {
            slots.peak = slots.all.len() - slots.free.len();
        }
        drop(slots);
        (total.rate_limit_held, total.budget_held) = lock(&self.held).read(now);
        (total, u32::try_from(peak).unwrap_or(u32::MAX), busiest)
    }

    fn reading(&self, now: Instant) -> StageReading {
        let mut reading = StageReading::new(&self.name);
        reading.resources.clone_from(&self.resources);
        reading.workers = lock(&self.slots).all.iter().map(|slot| lock(slot).read(now, &self.resources)).collect();
        for worker in &reading.workers {
            reading.total.add(worker);
        }
        (reading.total.rate_limit_held, reading.total.budget_held) = lock(&self.held).read(now);
        let settings = lock(&self.settings);
        reading.after.clone_from(&settings.after);
        reading.max_workers = settings.workers.map(|workers| u32::try_from(workers).unwrap_or(u32::MAX));
        reading.workers_of.clone_from(&settings.workers_of);
        reading.capacity = settings.capacity;
        reading.server_events.clone_from(&settings.server_events);
        reading
    }

    fn take_slot(&self) -> (usize, Arc<Mutex<Slot>>) {
        let mut slots = lock(&self.slots);
        let index = slots.free.pop().unwrap_or_else(|| {
            slots.all.push(Arc::default());
            slots.all.len() - 1
        });
        slots.peak = slots.peak.max(slots.all.len() - slots.free.len());
        (index, slots.all[index].clone())
    }

    fn free_slot(&self, index: usize) {
        lock(&self.slots).free.push(index);
    }
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The recent samples after `count` were taken, of so many milliseconds each.
    fn recent(millis: u64, count: u64) -> Vec<(u64, u64)> {
        let shared = Meters::with_samples(2).shared;
        let mut history = lock(&shared.history);
        for at in 0..count {
            let time = |at: u64| Duration::from_millis(at * millis);
            history.push(Sample::new(time(at), time(at + 1)));
        }
        let millis = |time: Duration| time.as_millis() as u64;
        history.recent.iter().map(|sample| (millis(sample.start), millis(sample.end))).collect()
    }

    #[test]
    fn the_last_ten_seconds_are_known_as_they_were_sampled() {
        assert_eq!(recent(4_000, 2), [(0, 4_000), (4_000, 8_000)]);
        assert_eq!(recent(4_000, 5), [(8_000, 12_000), (12_000, 16_000), (16_000, 20_000)]);
        assert_eq!(recent(60_000, 3), [(120_000, 180_000)]);
        let quarters: Vec<_> = (360..400).map(|at| (at * 250, at * 250 + 250)).collect();
        assert_eq!(recent(250, 400), quarters);
        // However many there are.
        let short = recent(1, 60_000);
        assert_eq!((short.len(), short[0], short[49]), (50, (50_000, 50_200), (59_800, 60_000)));
        assert_eq!(recent(1, 60_001).len(), 51);
    }
}
