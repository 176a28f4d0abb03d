use std::time::{Duration, Instant};

/// How long nothing must have gone on before that counts as a pause: a reader that frees space all the time makes none.
const STILL: Duration = Duration::from_millis(400);
/// How long work must have gone on before a pause counts as over.
const MOVING: Duration = Duration::from_secs(1);

/// Whether a download stands still for want of disk space, and what is said of it: a pause begins and ends once, however
/// small the steps in which space comes free.
#[derive(Debug)]
pub(crate) struct Pause {
    patience: Duration,
    /// Since when nothing goes on.
    still: Option<Instant>,
    /// Since when patience is spent.
    waiting: Option<Instant>,
    /// Since when that was so, if it was said and its end was not.
    said: Option<Instant>,
    /// Since when work goes on while a pause is said.
    moving: Option<Instant>,
}

impl Pause {
    /// A download that may stand still for so long.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, still: None, waiting: None, said: None, moving: None }
    }

    pub(crate) fn is_still(&self) -> bool {
        self.still.is_some()
    }

    /// Takes in that nothing can go on at `now`. How long that may last yet, `None` if it was too long; and whether a pause
    /// begins, which is to be said. While the consumer `is_busy`, who may free what it holds, patience is not spent.
    pub(crate) fn stand(&mut self, now: Instant, is_busy: bool) -> (Option<Duration>, bool) {
        let since = *self.still.get_or_insert(now);
        self.moving = None;
        let waited = match is_busy {
            true => {
                self.waiting = None;
                Duration::ZERO
            }
            false => now.duration_since(*self.waiting.get_or_insert(now)),
        };
        let left = match is_busy {
            true => Some(self.patience.max(STILL)),
            false => self.patience.checked_sub(waited).filter(|left| !left.is_zero()),
        };
        let begins = self.said.is_none() && now.duration_since(since) >= STILL.min(self.patience / 2);
        if begins {
            self.said = Some(since);
        }
        (left, begins)
    }

    /// Takes in that a file was given up for it, and that the next one has patience of its own.
    pub(crate) fn give_up(&mut self) {
        self.waiting = None;
    }

    /// Takes in that work goes on at `now`. How long the pause lasted that is over with it, if one is: after a while, or
    /// at once if a file `is_whole`.
    pub(crate) fn go_on(&mut self, now: Instant, is_whole: bool) -> Option<Duration> {
        (self.still, self.waiting) = (None, None);
        let since = self.said?;
        let moving = *self.moving.get_or_insert(now);
        if !is_whole && now.duration_since(moving) < MOVING {
            return None;
        }
        (self.said, self.moving) = (None, None);
        Some(moving.duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_pause_is_said_once_however_often_some_bytes_go_on() {
        let (start, mut pause) = (Instant::now(), Pause::new(60_000 * MS));
        let at = |ms| start + ms * MS;
        assert_eq!(pause.stand(at(0), false), (Some(60_000 * MS), false));
        assert_eq!(pause.go_on(at(300), false), None);
        assert_eq!(pause.stand(at(600), false), (Some(60_000 * MS), false));
        assert_eq!(pause.stand(at(1000), false), (Some(59_600 * MS), true));
        for step in 0..10 {
            assert!(!pause.stand(at(2000 + 1000 * step), false).1);
            assert_eq!(pause.go_on(at(2200 + 1000 * step), false), None);
            assert_eq!(pause.go_on(at(2400 + 1000 * step), false), None);
        }
        assert_eq!(pause.go_on(at(12_199), false), None);
        assert_eq!(pause.go_on(at(12_200), false), Some(10_600 * MS));
        assert_eq!(pause.go_on(at(12_300), true), None);
        assert_eq!((pause.stand(at(20_000), false).1, pause.stand(at(20_400), false).1), (false, true));
        assert_eq!(pause.go_on(at(20_500), true), Some(500 * MS));
    }

    #[test]
    fn patience_is_for_one_standstill() {
        let (start, mut pause) = (Instant::now(), Pause::new(500 * MS));
        let at = |ms| start + ms * MS;
        assert_eq!(pause.stand(at(0), false), (Some(500 * MS), false));
        assert_eq!(pause.stand(at(250), false), (Some(250 * MS), true));
        assert_eq!(pause.go_on(at(400), false), None);
        assert!(!pause.is_still());
        assert_eq!(pause.stand(at(900), false), (Some(500 * MS), false));
        assert_eq!(pause.stand(at(1400), false), (None, false));
        assert!(pause.is_still());
        pause.give_up();
        assert_eq!(pause.stand(at(1500), false), (Some(500 * MS), false));
        assert_eq!(Pause::new(Duration::ZERO).stand(at(0), false), (None, true));
    }

    #[test]
    fn a_consumer_that_is_busy_spends_no_patience() {
        let (start, mut pause) = (Instant::now(), Pause::new(500 * MS));
        let at = |ms| start + ms * MS;
        for ms in [0, 1000, 100_000] {
            assert_eq!(pause.stand(at(ms), true), (Some(500 * MS), ms == 1000));
        }
        assert_eq!(pause.stand(at(100_100), false).0, Some(500 * MS));
        assert_eq!(pause.stand(at(100_400), false).0, Some(200 * MS));
        assert_eq!(pause.stand(at(100_500), true).0, Some(500 * MS));
        assert_eq!(pause.stand(at(100_600), false).0, Some(500 * MS));
        assert_eq!(pause.stand(at(101_100), false).0, None);
    }
}
