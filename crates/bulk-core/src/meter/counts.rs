use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Resource;

/// What a stage, or one of its workers, did: items, bytes, and where the time of its workers went. Times of several workers
/// add up, so two of them that work for a second have worked for two. In JSON times are seconds, and what is zero is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct StageCounts {
    /// Items that were done.
    #[serde(skip_serializing_if = "is_none", deserialize_with = "number::whole")]
    pub items: u64,
    /// Bytes of them.
    #[serde(skip_serializing_if = "is_none", deserialize_with = "number::whole")]
    pub bytes: u64,
    /// Working, and on a CPU.
    #[serde(with = "seconds", skip_serializing_if = "Duration::is_zero")]
    pub on_cpu: Duration,
    /// Working, and in line for a CPU. Zero where the system does not tell, and then part of `off_cpu`.
    #[serde(with = "seconds", skip_serializing_if = "Duration::is_zero")]
    pub run_queue: Duration,
    /// Working, and neither: the stage's code waits for something that it did not name.
    #[serde(with = "seconds", skip_serializing_if = "Duration::is_zero")]
    pub off_cpu: Duration,
    /// Waiting for input.
    #[serde(with = "seconds", skip_serializing_if = "Duration::is_zero")]
    pub starved: Duration,
    /// Waiting for somebody to take the output.
    #[serde(with = "seconds", skip_serializing_if = "Duration::is_zero")]
    pub blocked: Duration,
    /// Waiting for the network.
    #[serde(with = "seconds", skip_serializing_if = "Duration::is_zero")]
    pub network: Duration,
    /// Waiting for a disk.
    #[serde(with = "seconds", skip_serializing_if = "Duration::is_zero")]
    pub disk: Duration,
    /// Waiting for a server.
    #[serde(with = "seconds", skip_serializing_if = "Duration::is_zero")]
    pub server: Duration,
    /// Waiting for leave of a rate limiter.
    #[serde(with = "seconds", skip_serializing_if = "Duration::is_zero")]
    pub rate_limit: Duration,
    /// Waiting for room in a budget.
    #[serde(with = "seconds", skip_serializing_if = "Duration::is_zero")]
    pub budget: Duration,
    /// Time, and not of workers, at which at least one worker waited for the rate limiter.
    #[serde(with = "seconds", skip_serializing_if = "Duration::is_zero")]
    pub rate_limit_held: Duration,
    /// Time, and not of workers, at which at least one worker waited for the budget.
    #[serde(with = "seconds", skip_serializing_if = "Duration::is_zero")]
    pub budget_held: Duration,
}

impl StageCounts {
    /// Time that workers worked, whether or not on a CPU.
    pub fn working(&self) -> Duration {
        self.on_cpu + self.run_queue + self.off_cpu
    }

    /// Time that workers were of use to the work in hand: working, or waiting for what the stage itself depends on (network,
    /// disk, server). Waiting for its neighbours, for a limiter or a budget is not.
    pub fn busy(&self) -> Duration {
        self.working() + self.network + self.disk + self.server
    }

    /// All time of the workers.
    pub fn time(&self) -> Duration {
        self.busy() + self.starved + self.blocked + self.rate_limit + self.budget
    }

    /// Adds what another one has.
    pub fn add(&mut self, other: &Self) {
        self.items = self.items.saturating_add(other.items);
        self.bytes = self.bytes.saturating_add(other.bytes);
        for (to, from) in self.times_mut().into_iter().zip(other.times()) {
            *to += from;
        }
    }

    /// What came since `before`. The split of the last stretch of working time is an estimate that later figures correct; the
    /// sum of a stage's working time is kept.
    pub(super) fn since(&self, before: &Self) -> Self {
        let mut since = *self;
        since.items -= before.items.min(since.items);
        since.bytes -= before.bytes.min(since.bytes);
        for (to, from) in since.times_mut().into_iter().zip(before.times()) {
            *to = to.saturating_sub(from);
        }
        let working = self.working().saturating_sub(before.working());
        since.on_cpu = since.on_cpu.min(working);
        since.run_queue = since.run_queue.min(working - since.on_cpu);
        since.off_cpu = working - since.on_cpu - since.run_queue;
        since
    }

    /// What the busy time was spent on most, and how much of it that is, by the resources that the stage states.
    pub(crate) fn resource(&self, resources: &[Resource]) -> Resource {
        let other = resources.iter().copied().find(|&resource| resource != Resource::Cpu);
        let mut by = [
            (Resource::Cpu, self.on_cpu + self.run_queue),
            (Resource::Network, self.network),
            (Resource::Disk, self.disk),
            (Resource::Server, self.server),
            (Resource::Unknown, Duration::ZERO),
        ];
        let other = by.iter().position(|(resource, _)| Some(*resource) == other).unwrap_or(by.len() - 1);
        by[other].1 += self.off_cpu;
        // The first of equals, as a stage that did nothing is bound by what it says.
        by.iter().rev().max_by_key(|(_, time)| *time).map_or(Resource::Unknown, |(resource, _)| *resource)
    }

    fn times(&self) -> [Duration; 12] {
        let Self { on_cpu, run_queue, off_cpu, starved, blocked, network, disk, server, .. } = *self;
        let Self { rate_limit, budget, rate_limit_held, budget_held, .. } = *self;
        [
            on_cpu,
            run_queue,
            off_cpu,
            starved,
            blocked,
            network,
            disk,
            server,
            rate_limit,
            budget,
            rate_limit_held,
            budget_held,
        ]
    }

    fn times_mut(&mut self) -> [&mut Duration; 12] {
        [
            &mut self.on_cpu,
            &mut self.run_queue,
            &mut self.off_cpu,
            &mut self.starved,
            &mut self.blocked,
            &mut self.network,
            &mut self.disk,
            &mut self.server,
            &mut self.rate_limit,
            &mut self.budget,
            &mut self.rate_limit_held,
            &mut self.budget_held,
        ]
    }
}

fn is_none(number: &u64) -> bool {
    *number == 0
}

/// One time as a fraction of another, 0 of none.
pub(crate) fn fraction(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() { 0.0 } else { part.as_secs_f64() / whole.as_secs_f64() }
}

/// Numbers of structs that others flatten. Serde buffers these, and where a feature has `serde_json` keep the text of numbers,
/// what it buffers is a number to nobody but [`Number`](serde_json::Number).
pub(crate) mod number {
    use serde::{Deserialize, Deserializer, de};
    use serde_json::Number;

    pub(crate) fn float<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        let number = Number::deserialize(deserializer)?;
        number.as_f64().ok_or_else(|| de::Error::custom(format!("{number} is out of range")))
    }

    pub(crate) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let number = Number::deserialize(deserializer)?;
        number.as_u64().ok_or_else(|| de::Error::custom(format!("{number} is no whole number")))
    }
}

/// Durations in JSON.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::{Deserializer, Serializer, de};

    /// More than thirty years. So many of them can be added up that there is no overflow.
    const MAX: f64 = 1e9;

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = super::number::float(deserializer)?;
        match Duration::try_from_secs_f64(seconds) {
            Ok(duration) if seconds <= MAX => Ok(duration),
            _ => Err(de::Error::custom(format!("{seconds} is no time of a run in seconds"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resource_is_what_took_most_of_the_busy_time() {
        let counts = |on_cpu, off_cpu, network, server| StageCounts {
            on_cpu: Duration::from_secs(on_cpu),
            off_cpu: Duration::from_secs(off_cpu),
            network: Duration::from_secs(network),
            server: Duration::from_secs(server),
            ..StageCounts::default()
        };
        use Resource::{Cpu, Disk, Network, Server, Unknown};
        assert_eq!(counts(3, 2, 1, 0).resource(&[Cpu]), Cpu);
        assert_eq!(counts(1, 2, 0, 0).resource(&[Cpu]), Unknown);
        assert_eq!(counts(1, 2, 0, 0).resource(&[Cpu, Disk, Server]), Disk);
        assert_eq!(counts(3, 2, 0, 2).resource(&[Server]), Server);
        assert_eq!(counts(1, 0, 2, 2).resource(&[Cpu]), Network);
    }

    #[test]
    fn a_later_estimate_moves_no_time_between_samples() {
        let secs = Duration::from_secs;
        let before = StageCounts { on_cpu: secs(5), off_cpu: secs(1), ..StageCounts::default() };
        // It turns out that less of it was on the CPU than was thought.
        let now = StageCounts { on_cpu: secs(4), run_queue: secs(1), off_cpu: secs(3), ..StageCounts::default() };
        let expected = StageCounts { run_queue: secs(1), off_cpu: secs(1), ..StageCounts::default() };
        assert_eq!(now.since(&before), expected);
    }

    #[test]
    fn json_leaves_out_zeros_and_keeps_nanoseconds() {
        let counts = StageCounts { items: 7, starved: Duration::new(1234, 567_890_123), ..StageCounts::default() };
        let json = serde_json::to_string(&counts).unwrap();
        assert_eq!(json, r#"{"items":7,"starved":1234.567890123}"#);
        assert_eq!(serde_json::from_str::<StageCounts>(&json).unwrap(), counts);
        for bad in [r#"{"starved":-1}"#, r#"{"starved":1e10}"#, r#"{"starved":1e300}"#] {
            assert!(serde_json::from_str::<StageCounts>(bad).is_err(), "{bad}");
        }
    }
}
