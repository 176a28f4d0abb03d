use std::time::Duration;

use tokio::time::Instant;

/// Answers before the quickest of them says anything: the first ones wait for connections.
const ENOUGH: u32 = 16;
/// How long the quickest answer is remembered at least, and twice that at most. A way that has become longer for good costs
/// as long; one that was longer for a while must not be forgotten to have been shorter.
const MEMORY: Duration = Duration::from_secs(600);

/// How long the quickest answers take: the time that no request waited anywhere.
#[derive(Debug, Default)]
pub(super) struct Floor {
    answers: u32,
    least: Option<Duration>,
    least_before: Option<Duration>,
    begun: Option<Instant>,
}

impl Floor {
    pub(super) fn add(&mut self, now: Instant, time: Duration) {
        if now.duration_since(*self.begun.get_or_insert(now)) >= MEMORY {
            (self.begun, self.least_before, self.least) = (Some(now), self.least.take(), None);
        }
        self.answers = self.answers.saturating_add(1);
        self.least = Some(self.least.map_or(time, |least| least.min(time)));
    }

    pub(super) fn get(&self) -> Option<Duration> {
        let least = self.least.into_iter().chain(self.least_before).min();
        least.filter(|_| self.answers >= ENOUGH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quickest_is_known_after_some_answers_and_for_a_while() {
        let (mut floor, begun) = (Floor::default(), Instant::now());
        let millis = Duration::from_millis;
        for time in 1..ENOUGH {
            floor.add(begun, millis(100 - u64::from(time)));
            assert_eq!(floor.get(), None);
        }
        floor.add(begun, millis(100));
        assert_eq!(floor.get(), Some(millis(85)));
        floor.add(begun + MEMORY, millis(90));
        assert_eq!(floor.get(), Some(millis(85)));
        floor.add(begun + 2 * MEMORY, millis(95));
        assert_eq!(floor.get(), Some(millis(90)));
        floor.add(begun + 2 * MEMORY, millis(5));
        assert_eq!(floor.get(), Some(millis(5)));
    }
}
