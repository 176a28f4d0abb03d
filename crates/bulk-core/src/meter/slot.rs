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

/// What was compared speaks for a hundred times as much; for more, if it is of so many stretches.
const MANY: u32 = 32;

#[derive(Debug)]
pub(super) struct Slot {
    counts: StageCounts,
    /// Of stretches that have ended.
    working: Split,
    activity: Activity,
    since: Instant,
    is_synchronous: bool,
    probe: Option<Probe>,
    last_probe: Option<Instant>,
}

/// Working time. What was not compared with the thread's clocks is taken to be as what is compared next, and stays so: a worker
/// that begins to do something else changes nothing of what it did before.
#[derive(Debug, Default)]
struct Split {
    on_cpu: Duration,
    run_queue: Duration,
    off_cpu: Duration,
    /// What is not split yet.
    open: Duration,
    /// How much of that was compared, in how many stretches, and what the clocks said of it.
    compared: Duration,
    stretches: u32,
    cpu: Duration,
    queue: Duration,
    /// The parts on a CPU and in line for one, of what was split last.
    last: Option<(f64, f64)>,
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
            working: Split::default(),
            activity: Activity::Absent,
            since: Instant::now(),
            is_synchronous: true,
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
            let last_probe = self.last_probe;
            let is_synchronous = self.is_synchronous;
            self.switch(Activity::Working, is_synchronous);
            // What begins here may end here, and is no reason not to look at the next long stretch.
            self.last_probe = last_probe;
        }
    }

    /// Ends what the worker did up to now. The thread's clocks tell of it only if it is synchronous: all that the thread did
    /// since the last call was of this worker.
    pub(super) fn switch(&mut self, next: Activity, is_synchronous: bool) {
        self.is_synchronous = is_synchronous;
        if !is_synchronous {
            self.probe = None;
        }
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
            && is_synchronous
            && self.last_probe.is_none_or(|last| now.saturating_duration_since(last) >= PROBE_EVERY)
        {
            self.probe = clock::of_thread().map(|times| Probe { thread: thread::current().id(), times });
            self.last_probe = Some(now);
        }
    }

    fn end_stretch(&mut self, spent: Duration) {
        let probe = self.probe.take();
        // Work that moved to another thread in the middle has no clock.
        let probe = probe.filter(|probe| probe.thread == thread::current().id());
        match probe.and_then(|probe| Some((probe.times, clock::of_thread()?))) {
            Some((before, after)) => {
                let queue = match (after.run_queue, before.run_queue) {
                    (Some(after), Some(before)) => after.saturating_sub(before),
                    _ => Duration::ZERO,
                };
                self.working.add_compared(spent, after.on_cpu.saturating_sub(before.on_cpu), queue);
            }
            None => self.working.open += spent,
        }
    }

    /// All counts up to now, with what goes on.
    pub(super) fn read(&self, now: Instant, resources: &[Resource]) -> StageCounts {
        let mut counts = self.counts;
        let going_on = now.saturating_duration_since(self.since);
        let mut open = self.working.open;
        match self.activity {
            Activity::Absent => {}
            Activity::Working => open += going_on,
            Activity::Waiting(wait) => *time_of(&mut counts, wait) += going_on,
        }
        let is_cpu = resources.first().is_none_or(|first| *first == Resource::Cpu);
        (counts.on_cpu, counts.run_queue, counts.off_cpu) = self.working.with(open, is_cpu);
        counts
    }
}

impl Split {
    /// Adds a stretch of which so much was on a CPU, and in line for one.
    fn add_compared(&mut self, spent: Duration, cpu: Duration, queue: Duration) {
        self.open += spent;
        self.compared += spent;
        self.stretches += 1;
        self.cpu += cpu.min(spent);
        self.queue += queue.min(spent);
        // A microsecond tells nothing of the twenty milliseconds before it.
        let speaks = self.compared.saturating_mul(100) >= self.open || self.stretches >= MANY;
        if self.compared.is_zero() || !speaks {
            return;
        }
        let part = |time: Duration| time.as_secs_f64() / self.compared.as_secs_f64();
        self.last = Some((part(self.cpu), part(self.queue)));
        (self.on_cpu, self.run_queue, self.off_cpu) = self.with(self.open, true);
        (self.open, self.compared, self.stretches) = (Duration::ZERO, Duration::ZERO, 0);
        (self.cpu, self.queue) = (Duration::ZERO, Duration::ZERO);
    }

    /// On a CPU, in line for one, and neither, with so much more that is taken to be as it was last. Before anything was
    /// compared, as the stage says that it works.
    fn with(&self, open: Duration, is_cpu: bool) -> (Duration, Duration, Duration) {
        let (cpu, queue) = self.last.unwrap_or(if is_cpu { (1.0, 0.0) } else { (0.0, 0.0) });
        let on_cpu = open.mul_f64(cpu).min(open);
        let run_queue = open.mul_f64(queue).min(open - on_cpu);
        (self.on_cpu + on_cpu, self.run_queue + run_queue, self.off_cpu + (open - on_cpu - run_queue))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_turns_to_is_not_taken_for_what_it_did() {
        let secs = Duration::from_secs;
        let mut split = Split::default();
        assert_eq!(split.with(secs(4), true), (secs(4), secs(0), secs(0)));
        assert_eq!(split.with(secs(4), false), (secs(0), secs(0), secs(4)));
        // A hundred seconds of which one was compared: on the CPU.
        split.open += secs(99);
        split.add_compared(secs(1), secs(1), secs(0));
        assert_eq!(split.with(secs(0), false), (secs(100), secs(0), secs(0)));
        assert_eq!(split.with(secs(4), false), (secs(104), secs(0), secs(0)));
        // Then ten off it, of which five were compared.
        split.open += secs(5);
        split.add_compared(secs(5), secs(0), secs(0));
        assert_eq!(split.with(secs(0), false), (secs(100), secs(0), secs(10)));
        // Then two in line, whose clocks say more than there is time.
        split.add_compared(secs(2), secs(1), secs(9));
        assert_eq!(split.with(secs(0), false), (secs(101), secs(1), secs(10)));
        // A stretch of no time tells nothing.
        split.add_compared(secs(0), secs(0), secs(0));
        assert_eq!(split.with(secs(2), false), (secs(102), secs(2), secs(10)));
    }

    #[test]
    fn a_moment_does_not_speak_for_a_long_time() {
        let (milli, micro) = (Duration::from_millis(1), Duration::from_micros(1));
        let mut split = Split::default();
        split.open += 20 * milli;
        split.add_compared(micro, micro, Duration::ZERO);
        assert_eq!((split.open, split.last), (20 * milli + micro, None));
        // What follows off the CPU does.
        split.add_compared(20 * milli, Duration::ZERO, Duration::ZERO);
        let (on_cpu, run_queue, off_cpu) = split.with(Duration::ZERO, true);
        assert!(on_cpu < 3 * micro && run_queue.is_zero(), "{split:?}");
        assert_eq!(on_cpu + off_cpu, 40 * milli + micro);
        // Many moments do, too, where there is nothing else.
        for stretch in 0..MANY {
            assert!(split.last.is_some_and(|(cpu, _)| cpu < 0.0001), "{stretch} {split:?}");
            split.open += 4 * milli;
            split.add_compared(10 * micro, 10 * micro, Duration::ZERO);
        }
        assert_eq!((split.open, split.last), (Duration::ZERO, Some((1.0, 0.0))));
    }
}
