use std::time::Duration;

use jiff::Timestamp;

/// From when on changes are asked for, and from when on the next run is to ask.
///
/// A run takes it when it begins, before its first request, and moves it when all it asked for has come: what changes during
/// the run is asked for again by the next one, and what failed is not passed over.
///
/// ```
/// use std::time::Duration;
/// use bulk_core::crawl::Watermark;
///
/// // The last run left this; None is the first run.
/// let watermark = Watermark::begin(Some("2026-01-01T00:00:00Z".parse()?), Duration::from_secs(60));
/// assert_eq!(watermark.since_seconds(), 1_767_225_600);
/// // One of the calls failed: the next run asks from the same time on.
/// assert_eq!(watermark.end(false), Some("2026-01-01T00:00:00Z".parse()?));
/// # Ok::<(), jiff::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    since: Option<Timestamp>,
    next: Timestamp,
}

impl Watermark {
    /// Takes it, at the beginning of a run. `slack` is how much the server's clock may be behind this one, and how long a
    /// change may take until it is listed: so much of the time before is asked for again.
    pub fn begin(since: Option<Timestamp>, slack: Duration) -> Self {
        Self::begin_at(since, slack, Timestamp::now())
    }

    fn begin_at(since: Option<Timestamp>, slack: Duration, now: Timestamp) -> Self {
        // A slack that reaches before the beginning of time asks for everything.
        let next = now.checked_sub(slack).unwrap_or(Timestamp::MIN);
        // A clock that went backwards does not make the next run ask for more than this one.
        Self { since, next: since.map_or(next, |since| since.max(next)) }
    }

    /// From when on this run asks; none if it asks for everything.
    pub fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// The same in whole seconds since 1970, rounded down; 0 if it asks for everything.
    pub fn since_seconds(&self) -> i64 {
        self.since.map_or(0, |since| since.as_second())
    }

    /// From when on the next run is to ask, if all pages and records of this one came, or if not.
    pub fn end(self, is_complete: bool) -> Option<Timestamp> {
        if is_complete { Some(self.next) } else { self.since }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_taken_at_the_start_and_moves_only_if_all_came() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let slack = Duration::from_secs(60);
        let first = Watermark::begin_at(None, slack, at(1000));
        assert_eq!((first.since_seconds(), first.end(true), first.end(false)), (0, Some(at(940)), None));
        let later = Watermark::begin_at(Some(at(940)), slack, at(2000));
        assert_eq!((later.since(), later.end(true), later.end(false)), (Some(at(940)), Some(at(1940)), Some(at(940))));
        let back = Watermark::begin_at(Some(at(940)), slack, at(500));
        assert_eq!(back.end(true), Some(at(940)));
    }
}
