use std::time::Duration;

use tokio::time::Instant;

/// For how long a connection is taken to stay open that nobody uses.
const MEMORY: Duration = Duration::from_secs(5);

/// Which requests to a host may wait for a connection to be opened, by how many are under way at once: each has one of its
/// own. A request that opens one is overtaken on its way by all that find one open.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// Requests under way.
    out: usize,
    /// Connections that are open, or being opened by a request that is under way, and no more.
    open: usize,
    lost: u64,
    /// The most requests under way of late, and in the stretch of time before.
    peak: usize,
    peak_before: usize,
    begun: Option<Instant>,
}

/// Of a request for which no connection may have been open: how many there are with its own, if none was lost since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    with_it: usize,
    lost: u64,
}

impl Connections {
    /// One more is sent.
    pub(super) fn sent(&mut self, now: Instant) -> Option<Opening> {
        let age = now.duration_since(*self.begun.get_or_insert(now));
        if age >= MEMORY {
            self.peak_before = if age < 2 * MEMORY { self.peak } else { self.out };
            (self.begun, self.peak) = (Some(now), self.out);
            self.open = self.open.min(self.peak.max(self.peak_before));
        }
        self.out += 1;
        self.peak = self.peak.max(self.out);
        (self.out > self.open).then_some(Opening { with_it: self.out, lost: self.lost })
    }

    pub(super) fn answered(&mut self, opening: Option<Opening>) {
        self.out = self.out.saturating_sub(1);
        if let Some(Opening { with_it, lost }) = opening {
            let lost = usize::try_from(self.lost - lost).unwrap_or(usize::MAX);
            self.open = self.open.max(with_it.saturating_sub(lost));
        }
    }

    /// Nothing will be heard, and its connection is gone.
    pub(super) fn lost(&mut self) {
        self.out = self.out.saturating_sub(1);
        self.open = self.open.saturating_sub(1);
        self.lost += 1;
    }

    /// It was not sent, and opened none.
    pub(super) fn unused(&mut self) {
        self.out = self.out.saturating_sub(1);
        // Those that were counted behind it counted one too many.
        self.lost += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_open_as_were_under_way_at_once() {
        let (mut connections, now) = (Connections::default(), Instant::now());
        let (first, second) = (connections.sent(now), connections.sent(now));
        assert!(first.is_some() && second.is_some());
        connections.answered(first);
        // The connection of the first may have been free for it, or not yet.
        let third = connections.sent(now);
        assert!(third.is_some());
        connections.answered(third);
        assert_eq!(connections.sent(now), None);
        connections.answered(None);
        connections.answered(second);
        // Three were answered, but never more than two under way.
        assert_eq!([connections.sent(now), connections.sent(now)], [None, None]);
        let other = connections.sent(now);
        assert!(other.is_some());
        connections.lost();
        connections.answered(other);
        assert_eq!(connections.sent(now), None);
        assert!(connections.sent(now).is_some());
    }

    #[test]
    fn one_that_is_not_sent_opens_none() {
        let (mut connections, now) = (Connections::default(), Instant::now());
        connections.sent(now);
        let second = connections.sent(now);
        connections.unused();
        connections.answered(second);
        assert_eq!(connections.sent(now), None);
        assert!(connections.sent(now).is_some());
    }

    #[test]
    fn what_was_not_used_for_long_is_not_open() {
        let (mut connections, begun) = (Connections::default(), Instant::now());
        let two = |connections: &mut Connections, now: Instant| {
            let openings = [connections.sent(now), connections.sent(now)];
            openings.into_iter().for_each(|opening| connections.answered(opening));
            openings.map(|opening| opening.is_some())
        };
        assert_eq!(two(&mut connections, begun), [true, true]);
        assert_eq!(two(&mut connections, begun + MEMORY), [false, false]);
        assert_eq!(two(&mut connections, begun + 3 * MEMORY), [true, true]);
        // One at a time is enough.
        for times in 4..7 {
            let opening = connections.sent(begun + times * MEMORY);
            connections.answered(opening);
        }
        assert_eq!(two(&mut connections, begun + 7 * MEMORY), [false, true]);
    }
}
