//! The place of one worker at a time, and what was counted there.

use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use super::clock::{self, ThreadTimes};
use super::{Resource, StageCounts, Wait};

/// A stretch of work is compared with the thread's clocks if the last one that was began so long ago. Reading them costs two
/// microseconds, twice a stretch: 0.1% of this.
const PROBE_EVERY: Duration = Duration::from_millis(4);

/// Who goes on working longer than this is compared with the clocks in between.
const LONG: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Slot {
    counts: StageCounts,
    /// Working time of stretches that have ended, split or not.
    working: Duration,
    /// How much of it was compared with the thread's clocks, and what they said.
    probed: Duration,
    probed_cpu: Duration,
    probed_queue: Duration,
    activity: Activity,
    since: Instant,
    probe: Option<Probe>,
    last_probe: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    /// There is no worker.
    Absent,
    Working,
    Waiting(Wait),
}

/// What the clocks said as a stretch of work began.
#[derive(Debug)]
struct Probe {
    thread: ThreadId,
    times: ThreadTimes,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            counts: StageCounts::default(),
            working: Duration::ZERO,
            probed: Duration::ZERO,
            probed_cpu: Duration::ZERO,
            probed_queue: Duration::ZERO,
            activity: Activity::Absent,
            since: Instant::now(),
            probe: None,
            last_probe: None,
        }
    }
}

impl Slot {
    pub(super) fn activity(&self) -> Activity {
        self.activity
    }

    /// Counts what was done, and starts a new stretch where the present one grows long, so that its split is known.
    pub(super) fn add(&mut self, items: u64, bytes: u64) {
        self.counts.items = self.counts.items.saturating_add(items);
        self.counts.bytes = self.counts.bytes.saturating_add(bytes);
        if self.activity == Activity::Working && self.since.elapsed() >= LONG {
            self.switch(Activity::Working);
        }
    }

    /// Ends what the worker did up to now.
    pub(super) fn switch(&mut self, next: Activity) {
        let now = Instant::now();
        let spent = now.saturating_duration_since(self.since);
        match self.activity {
            Activity::Absent => {}
            Activity::Working => self.end_stretch(spent),
            Activity::Waiting(wait) => *time_of(&mut self.counts, wait) += spent,
        }
        self.activity = next;
        self.since = now;
        if next == Activity::Working
            && self.last_probe.is_none_or(|last| now.saturating_duration_since(last) >= PROBE_EVERY)
        {
            self.probe = clock::of_thread().map(|times| Probe { thread: thread::current().id(), times });
            self.last_probe = Some(now);
        }
    }

    fn end_stretch(&mut self, spent: Duration) {
        self.working += spent;
        let Some(probe) = self.probe.take() else { return };
        // Work that moved to another thread in the middle has no clock.
        let Some(times) = clock::of_thread().filter(|_| probe.thread == thread::current().id()) else { return };
        self.probed += spent;
        self.probed_cpu += times.on_cpu.saturating_sub(probe.times.on_cpu).min(spent);
        if let (Some(after), Some(before)) = (times.run_queue, probe.times.run_queue) {
            self.probed_queue += after.saturating_sub(before).min(spent);
        }
    }

    /// All counts up to now, with what goes on.
    pub(super) fn read(&self, now: Instant, resources: &[Resource]) -> StageCounts {
        let mut counts = self.counts;
        let mut working = self.working;
        let going_on = now.saturating_duration_since(self.since);
        match self.activity {
            Activity::Absent => {}
            Activity::Working => working += going_on,
            Activity::Waiting(wait) => *time_of(&mut counts, wait) += going_on,
        }
        // What was not compared is taken to be as what was; before anything was, as the stage says that it works.
        let (cpu, queue) = match self.probed.as_secs_f64() {
            probed if probed > 0.0 => {
                (self.probed_cpu.as_secs_f64() / probed, self.probed_queue.as_secs_f64() / probed)
            }
            _ if resources.first().is_none_or(|first| *first == Resource::Cpu) => (1.0, 0.0),
            _ => (0.0, 0.0),
        };
        counts.on_cpu = working.mul_f64(cpu).min(working);
        counts.run_queue = working.mul_f64(queue).min(working - counts.on_cpu);
        counts.off_cpu = working - counts.on_cpu - counts.run_queue;
        counts
    }
}

/// Where waiting is counted.
fn time_of(counts: &mut StageCounts, wait: Wait) -> &mut Duration {
    match wait {
        Wait::Input => &mut counts.starved,
        Wait::Output => &mut counts.blocked,
        Wait::Network => &mut counts.network,
        Wait::Disk => &mut counts.disk,
        Wait::Server => &mut counts.server,
        Wait::RateLimit => &mut counts.rate_limit,
        Wait::Budget => &mut counts.budget,
    }
}

/// When anybody waited for a limit.
#[derive(Debug, Default)]
pub(super) struct Held {
    rate_limit: Gauge,
    budget: Gauge,
}

#[derive(Debug, Default)]
struct Gauge {
    waiting: usize,
    since: Option<Instant>,
    total: Duration,
}

impl Held {
    /// Whether that is waiting for a limit.
    pub(super) fn concerns(activity: Activity) -> bool {
        matches!(activity, Activity::Waiting(Wait::RateLimit | Wait::Budget))
    }

    /// A worker goes from one activity to another.
    pub(super) fn switch(&mut self, from: Activity, to: Activity) {
        let now = Instant::now();
        if let Some(gauge) = self.gauge(from) {
            gauge.waiting = gauge.waiting.saturating_sub(1);
            if gauge.waiting == 0
                && let Some(since) = gauge.since.take()
            {
                gauge.total += now.saturating_duration_since(since);
            }
        }
        if let Some(gauge) = self.gauge(to) {
            gauge.waiting += 1;
            gauge.since.get_or_insert(now);
        }
    }

    /// How long the rate limit, and the budget, held anybody up.
    pub(super) fn read(&self, now: Instant) -> (Duration, Duration) {
        let read = |gauge: &Gauge| {
            gauge.total + gauge.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
        };
        (read(&self.rate_limit), read(&self.budget))
    }

    fn gauge(&mut self, activity: Activity) -> Option<&mut Gauge> {
        match activity {
            Activity::Waiting(Wait::RateLimit) => Some(&mut self.rate_limit),
            Activity::Waiting(Wait::Budget) => Some(&mut self.budget),
            _ => None,
        }
    }
}
