use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::window::Window;
use crate::Error;
use crate::folder_lock::try_lock;

/// In how many stretches the arrivals of a window are counted at most.
const STRETCHES: u128 = 512;
/// The longest file that is read.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// What a limiter leaves for the next one.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Saved {
    version: u32,
    /// Milliseconds since 1970 by the wall clock.
    saved_at: u64,
    /// Permits that may have been granted after this was written.
    leave: usize,
    windows: Vec<SavedWindow>,
    /// The time from then on until it was read.
    #[serde(skip)]
    elapsed: Duration,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedWindow {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    /// Milliseconds.
    window: u64,
    /// Requests that may not have arrived.
    pending: usize,
    /// Before how many milliseconds how many arrived; negative for those that arrive later, at the latest.
    arrived: Vec<(i64, usize)>,
}

/// The file of a limiter.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    /// Permits that may be granted before it is written again.
    leave: usize,
    /// What was found in it, and when: for hosts that are not known yet.
    pub(super) inherited: Option<(Saved, Instant)>,
    _lock: File,
}

impl Store {
    pub(super) fn open(path: PathBuf) -> Result<(Self, Option<Saved>), Error> {
        let lock_path = beside(&path, ".lock");
        let failed = |source| Error::io("lock", &lock_path, source);
        let lock = File::options().create(true).append(true).open(&lock_path).map_err(failed)?;
        if !try_lock(&lock).map_err(failed)? {
            return Err(failed(io::Error::new(io::ErrorKind::WouldBlock, "another run uses the limits of this file")));
        }
        let saved = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io("read", &path, error)),
            Ok(metadata) => {
                let bytes = match metadata.len() > MAX_FILE {
                    true => Vec::new(),
                    false => fs::read(&path).map_err(|error| Error::io("read", &path, error))?,
                };
                // To count nothing instead would break the promise, in a long window for long.
                let what = "no limiter wrote it; remove it if no request of a window before now counts";
                let none = || Error::io("read", &path, io::Error::new(io::ErrorKind::InvalidData, what));
                Some(Saved::read(&bytes, wall_clock()).ok_or_else(none)?)
            }
        };
        Ok((Self { path, leave: 0, inherited: None, _lock: lock }, saved))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn has_leave(&self) -> bool {
        self.leave > 0
    }

    pub(super) fn take_leave(&mut self) {
        self.leave = self.leave.saturating_sub(1);
    }

    pub(super) fn save<'a>(
        &mut self,
        windows: impl Iterator<Item = (Option<&'a str>, &'a mut Window)>,
        leave: usize,
    ) -> Result<(), Error> {
        let saved = Saved::of(windows, leave, wall_clock(), Instant::now());
        let new = beside(&self.path, ".new");
        let json = serde_json::to_vec(&saved).map_err(|error| Error::io("write", &new, error.into()))?;
        fs::write(&new, json).map_err(|error| Error::io("write", &new, error))?;
        fs::rename(&new, &self.path).map_err(|error| Error::io("rename", &new, error))?;
        self.leave = leave;
        Ok(())
    }
}

impl Saved {
    fn of<'a>(
        windows: impl Iterator<Item = (Option<&'a str>, &'a mut Window)>,
        leave: usize,
        wall_clock: u64,
        now: Instant,
    ) -> Self {
        let windows = windows.map(|(host, window)| {
            let length = window.limit().window();
            let step = (length.as_millis() / STRETCHES).max(1) as i64;
            let mut arrived: Vec<(i64, usize)> = Vec::new();
            for remaining in window.remaining(now) {
                let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
                // Rounded so that it counts for no shorter time.
                let ago = millis(length).saturating_sub(millis(remaining)).saturating_sub(1);
                // The end of its stretch, so that it counts for no shorter time.
                let ago = ago.div_euclid(step) * step;
                match arrived.last_mut() {
                    Some((last, count)) if *last == ago => *count += 1,
                    _ => arrived.push((ago, 1)),
                }
            }
            let (host, window_millis) = (host.map(str::to_owned), length.as_millis() as u64);
            SavedWindow { host, window: window_millis, pending: window.pending(), arrived }
        });
        // A host for which nothing counts is as good as an unknown one.
        let windows = windows
            .filter(|window| window.host.is_none() || window.pending > 0 || !window.arrived.is_empty())
            .collect();
        Self { version: 1, saved_at: wall_clock, leave, windows, elapsed: Duration::ZERO }
    }

    /// None if it is not what a limiter writes.
    fn read(bytes: &[u8], wall_clock: u64) -> Option<Self> {
        let mut saved: Self = serde_json::from_slice(bytes).ok()?;
        // Zero if the clock went backwards.
        saved.elapsed = Duration::from_millis(wall_clock.saturating_sub(saved.saved_at));
        (saved.version == 1).then_some(saved)
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.windows.iter().filter_map(|window| window.host.as_deref())
    }

    /// Counts in a window what was counted in one like it, if this was read at `now`.
    pub(super) fn restore(&self, host: Option<&str>, window: &mut Window, now: Instant) {
        let length = window.limit().window();
        let is_of = |host: Option<&str>| self.windows.iter().any(|saved| saved.host.as_deref() == host);
        // Where limits of all have become those of each host, or the other way round, all of it may have been its own.
        let sources: Vec<Option<&str>> = match host {
            None if !is_of(None) => {
                let mut hosts: Vec<_> = self.hosts().map(Some).collect();
                hosts.sort_unstable();
                hosts.dedup();
                hosts
            }
            Some(_) if self.hosts().next().is_none() => vec![None],
            host => vec![host],
        };
        for saved in sources.into_iter().filter_map(|host| self.best(host, length)) {
            for (ago, count) in &saved.arrived {
                let since = self.elapsed.saturating_add(Duration::from_millis(u64::try_from(*ago).unwrap_or(0)));
                // None arrives later than in a window's time.
                let later = Duration::from_millis(if *ago < 0 { ago.unsigned_abs() } else { 0 }).min(length);
                let remaining = (length + later).saturating_sub(since);
                if !remaining.is_zero() {
                    window.add(now + remaining, *count);
                }
            }
            window.add(now + length, saved.pending);
        }
        window.add(now + length, self.leave);
    }

    /// The window of that host, or of all, that tells the most about one of that length: the shortest that is long enough,
    /// else the longest.
    fn best(&self, host: Option<&str>, length: Duration) -> Option<&SavedWindow> {
        let millis = length.as_millis() as u64;
        let windows = self.windows.iter().filter(|saved| saved.host.as_deref() == host);
        windows.min_by_key(|saved| match saved.window.checked_sub(millis) {
            Some(longer) => (0, longer),
            None => (1, millis - saved.window),
        })
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Milliseconds since 1970.
fn wall_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::window::Room;
    use super::*;

    const NOON: u64 = 1_800_000_000_000;

    fn window() -> Window {
        Window::new("10/s over 10s".parse().unwrap(), Some(Duration::ZERO), false)
    }

    /// A window of 100 in 10 s, 60 of which arrived after 0, 0.1, ... 5.9 s, after 6 s; one more has not.
    fn saved(begun: Instant) -> Vec<u8> {
        let (mut window, host): (_, Arc<str>) = (window(), "x".into());
        for number in 0..60 {
            let at = begun + Duration::from_millis(100) * number;
            assert_eq!(window.room(at, 1.0), Room::Now);
            window.grant(at, 1.0, number.into(), &host);
            window.taken(at, number.into(), false, None);
            window.answered(at, number.into(), at, &host, Duration::ZERO);
        }
        let now = begun + Duration::from_secs(6);
        window.grant(now, 1.0, 60, &host);
        serde_json::to_vec(&Saved::of([(None, &mut window)].into_iter(), 7, NOON, now)).unwrap()
    }

    /// How many go at once in a window that goes on from what was read at that time.
    fn free(bytes: &[u8], wall_clock: u64, at: Instant) -> usize {
        let (mut window, host): (_, Arc<str>) = (window(), "x".into());
        Saved::read(bytes, wall_clock).unwrap().restore(None, &mut window, at);
        let mut number = 0;
        while window.room(at, 1.0) == Room::Now {
            window.grant(at, 1.0, number, &host);
            number += 1;
        }
        number as usize
    }

    #[test]
    fn what_was_granted_counts_in_the_next_run() {
        // The time of the process before is none of this one's.
        let at = Instant::now() + Duration::from_secs(1_000_000);
        let bytes = saved(Instant::now());
        // 60 arrived, 1 may still have, and 7 may have been granted since.
        assert_eq!(free(&bytes, NOON, at), 100 - 60 - 1 - 7);
        // A clock that went backwards: as if no time had passed.
        assert_eq!(free(&bytes, NOON - 3_600_000, at), 100 - 60 - 1 - 7);
        // After 6 s those of the first 2 s have ceased to count, but for one that a stretch of 19 ms keeps.
        assert_eq!(free(&bytes, NOON + 6_000, at), 100 - 40 + 1 - 1 - 7 - 1);
        assert_eq!(free(&bytes, NOON + 3_600_000, at), 100 - 1 - 7);
    }

    #[test]
    fn what_counts_is_kept_where_time_began_after_it() {
        // The process's time began less than a window ago: on Linux with the machine.
        let mut long = Window::new("5/d".parse().unwrap(), Some(Duration::ZERO), false);
        long.add(Instant::now() + Duration::from_secs(3600), 3);
        let now = Instant::now();
        let bytes = serde_json::to_vec(&Saved::of([(None, &mut long)].into_iter(), 0, NOON, now)).unwrap();
        let mut next = Window::new("5/d".parse().unwrap(), Some(Duration::ZERO), false);
        Saved::read(&bytes, NOON + 60_000).unwrap().restore(None, &mut next, now);
        let remaining = next.remaining(now);
        assert_eq!(remaining.len(), 3);
        // Counted in stretches of 168.75 s.
        assert!(remaining.iter().all(|time| (3500..3720).contains(&time.as_secs())), "{remaining:?}");
    }

    #[test]
    fn limits_of_hosts_that_become_those_of_all_count_on() {
        let (now, window) = (Instant::now(), || Window::new("10/h".parse().unwrap(), Some(Duration::ZERO), false));
        let remaining = |saved: &[(Option<&str>, usize)], host: Option<&str>| {
            let mut windows: Vec<Window> = saved.iter().map(|_| window()).collect();
            for (window, (_, count)) in windows.iter_mut().zip(saved) {
                window.add(now + Duration::from_secs(60), *count);
            }
            let windows = saved.iter().map(|(host, _)| *host).zip(&mut windows);
            let bytes = serde_json::to_vec(&Saved::of(windows, 0, NOON, now)).unwrap();
            let mut next = window();
            Saved::read(&bytes, NOON).unwrap().restore(host, &mut next, now);
            next.remaining(now).len()
        };
        assert_eq!(remaining(&[(Some("a"), 2), (Some("b"), 3)], None), 5);
        assert_eq!(remaining(&[(None, 4)], Some("a")), 4);
        assert_eq!(remaining(&[(None, 4), (Some("a"), 2)], Some("a")), 2);
        assert_eq!(remaining(&[(None, 4), (Some("a"), 2)], Some("b")), 0);
        assert_eq!(remaining(&[(None, 4), (Some("a"), 2)], None), 4);
    }

    #[test]
    fn a_file_does_not_grow_with_the_number_of_requests() {
        let (mut window, host, now): (_, Arc<str>, _) =
            (Window::new("500000/h".parse().unwrap(), None, false), "x".into(), Instant::now());
        for number in 0..400_000 {
            let at = now + Duration::from_millis(9) * number;
            window.grant(at, 1.0, number.into(), &host);
            window.taken(at, number.into(), false, None);
            window.answered(at, number.into(), at, &host, Duration::ZERO);
        }
        let now = now + Duration::from_secs(3600);
        let saved = Saved::of([(None, &mut window)].into_iter(), 0, NOON, now);
        assert!(saved.windows[0].arrived.len() <= STRETCHES as usize + 1, "{}", saved.windows[0].arrived.len());
        assert!(saved.windows[0].arrived.iter().map(|(_, count)| count).sum::<usize>() >= 399_000);
    }

    #[test]
    fn what_no_limiter_wrote_is_not_read() {
        for bytes in ["", "{", "[]", r#"{"version":2,"saved_at":0,"leave":0,"windows":[]}"#] {
            assert!(Saved::read(bytes.as_bytes(), NOON).is_none(), "{bytes}");
            // It may have counted for a window of a month.
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("limits");
            std::fs::write(&path, bytes).unwrap();
            assert!(matches!(Store::open(path), Err(Error::Io { action: "read", .. })), "{bytes}");
        }
    }
}
