use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::window::Window;
use crate::Error;
use crate::folder_lock::try_lock;

/// Of what is written; older ones are read.
const VERSION: u32 = 2;
/// In how many stretches the arrivals of a window are counted at most.
const STRETCHES: u128 = 512;
/// Holds are noted as longer than they are, by one to two such steps of milliseconds, so that throttle answers that come together
/// are one write, also where they ask for whole seconds.
const HOLD_STEP: u64 = 250;
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
    /// Since version 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    holds: Vec<SavedHold>,
    /// The part of the limits that is used, if that is not all. Since version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    part: Option<f64>,
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

/// How long requests are held yet, to one host or all.
#[derive(Debug, Serialize, Deserialize)]
struct SavedHold {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    /// From when it was written.
    millis: u64,
}

/// The file of a limiter.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    /// Permits that may be granted before it is written again.
    leave: usize,
    /// The end of the longest hold in it, of all and of each host.
    held: HashMap<Option<Arc<str>>, Instant>,
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
        Ok((Self { path, leave: 0, held: HashMap::new(), inherited: None, _lock: lock }, saved))
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

    /// Says that a hold was found in it.
    pub(super) fn has_found(&mut self, host: Option<Arc<str>>, until: Instant) {
        self.held.insert(host, until);
    }

    /// Whether a hold that lasts as long is in it.
    pub(super) fn has_hold(&self, host: Option<&Arc<str>>, until: Instant) -> bool {
        self.held.get(&host.cloned()).is_some_and(|held| *held >= until)
    }

    pub(super) fn save<'a>(
        &mut self,
        windows: impl Iterator<Item = (Option<&'a str>, &'a mut Window)>,
        leave: usize,
        holds: Vec<(Option<Arc<str>>, Instant)>,
        part: f64,
    ) -> Result<(), Error> {
        let now = Instant::now();
        let mut saved = Saved::of(windows, leave, wall_clock(), now);
        let held = saved.hold(holds, &self.held, now);
        saved.part = (part < 1.0).then_some(part);
        let new = beside(&self.path, ".new");
        let json = serde_json::to_vec(&saved).map_err(|error| Error::io("write", &new, error.into()))?;
        fs::write(&new, json).map_err(|error| Error::io("write", &new, error))?;
        fs::rename(&new, &self.path).map_err(|error| Error::io("rename", &new, error))?;
        (self.leave, self.held) = (leave, held);
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
        let (holds, part) = (Vec::new(), None);
        Self { version: VERSION, saved_at: wall_clock, leave, windows, holds, part, elapsed: Duration::ZERO }
    }

    /// Notes until when requests are held, if it is not noted already. Gives until when they are by what was noted.
    fn hold(
        &mut self,
        holds: Vec<(Option<Arc<str>>, Instant)>,
        before: &HashMap<Option<Arc<str>>, Instant>,
        now: Instant,
    ) -> HashMap<Option<Arc<str>>, Instant> {
        let mut noted = HashMap::new();
        for (host, until) in holds {
            let known = before.get(&host).copied().filter(|known| *known >= until);
            let remaining = known.unwrap_or(until).saturating_duration_since(now);
            let millis = u64::try_from(remaining.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
            if millis == 0 {
                continue;
            }
            let millis = match known {
                Some(_) => millis,
                None => millis.div_ceil(HOLD_STEP).saturating_add(1).saturating_mul(HOLD_STEP),
            };
            if let Some(until) = known.or(now.checked_add(Duration::from_millis(millis))) {
                self.holds.push(SavedHold { host: host.as_deref().map(str::to_owned), millis });
                noted.insert(host, until);
            }
        }
        noted
    }

    /// None if it is not what a limiter writes.
    fn read(bytes: &[u8], wall_clock: u64) -> Option<Self> {
        let mut saved: Self = serde_json::from_slice(bytes).ok()?;
        // Zero if the clock went backwards.
        saved.elapsed = Duration::from_millis(wall_clock.saturating_sub(saved.saved_at));
        (1..=VERSION).contains(&saved.version).then_some(saved)
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = &str> {
        let held = self.holds.iter().filter_map(|hold| hold.host.as_deref());
        self.windows.iter().filter_map(|window| window.host.as_deref()).chain(held)
    }

    /// For how long yet requests are held to a host, or to all, and no longer than any hold may last: it is a file, and the
    /// clock that tells how old it is may have been put back.
    pub(super) fn held(&self, host: Option<&str>, longest: Duration) -> Option<Duration> {
        let holds = self.holds.iter().filter(|hold| hold.host.as_deref() == host);
        let remaining = Duration::from_millis(holds.map(|hold| hold.millis).max()?).saturating_sub(self.elapsed);
        (!remaining.is_zero()).then_some(remaining.min(longest))
    }

    /// The part of the limits that was used.
    pub(super) fn part(&self) -> f64 {
        self.part.unwrap_or(1.0)
    }

    /// Counts in a window what was counted in one like it, if this was read at `now`.
    pub(super) fn restore(&self, host: Option<&str>, window: &mut Window, now: Instant) {
        let length = window.limit().window();
        let is_of = |host: Option<&str>| self.windows.iter().any(|saved| saved.host.as_deref() == host);
        // Where limits of all have become those of each host, or the other way round, all of it may have been its own.
        let sources: Vec<Option<&str>> = match host {
            None if !is_of(None) => {
                let mut hosts: Vec<_> = self.windows.iter().map(|window| window.host.as_deref()).collect();
                hosts.sort_unstable();
                hosts.dedup();
                hosts
            }
            Some(_) if self.windows.iter().all(|window| window.host.is_none()) => vec![None],
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
    fn a_hold_goes_on_by_the_wall_clock_and_has_an_end_whatever_that_says() {
        let (now, hour) = (Instant::now(), Duration::from_secs(3600));
        let mut saved = Saved::of(std::iter::empty(), 0, NOON, now);
        let second = Duration::from_secs(1);
        let holds = vec![(None, now + 100 * second), (Some("a".into()), now + 7200 * second), (Some("b".into()), now)];
        let (noted, of_all) = (saved.hold(holds, &HashMap::new(), now), None::<Arc<str>>);
        assert_eq!((noted.len(), noted[&of_all] - now), (2, Duration::from_millis(100_250)));
        saved.part = Some(0.7);
        let bytes = serde_json::to_vec(&saved).unwrap();
        let held = |wall_clock: u64, host: Option<&str>| {
            let saved = Saved::read(&bytes, wall_clock).unwrap();
            assert_eq!(saved.part(), 0.7);
            saved.held(host, hour).map_or(0, |held| held.as_secs())
        };
        assert_eq!((held(NOON + 30_000, None), held(NOON + 100_000, None)), (70, 0));
        assert_eq!((held(NOON, Some("a")), held(NOON + 5_400_000, Some("a")), held(NOON, Some("b"))), (3600, 1800, 0));
        // A clock that went back: as if no time had passed.
        assert_eq!((held(NOON - 86_400_000, None), held(0, Some("a"))), (100, 3600));
        // Whatever a file says.
        let bad =
            format!(r#"{{"version":2,"saved_at":{NOON},"leave":0,"windows":[],"holds":[{{"millis":{}}}]}}"#, u64::MAX);
        assert_eq!(Saved::read(bad.as_bytes(), NOON).unwrap().held(None, hour), Some(hour));
        // One of the version before has none.
        let old = format!(r#"{{"version":1,"saved_at":{NOON},"leave":3,"windows":[]}}"#);
        let old = Saved::read(old.as_bytes(), NOON).unwrap();
        assert_eq!((old.held(None, hour), old.part(), old.leave), (None, 1.0, 3));
    }

    #[test]
    fn holds_that_are_told_together_are_one_write() {
        let now = Instant::now();
        let mut saved = Saved::of(std::iter::empty(), 0, NOON, now);
        let of_all = None::<Arc<str>>;
        let wait = Duration::from_secs(10);
        let noted = saved.hold(vec![(of_all.clone(), now + wait)], &HashMap::new(), now);
        assert_eq!((saved.holds[0].millis, noted[&of_all] - now), (10_250, Duration::from_millis(10_250)));
        // What one asks for that is answered a tenth of a second later is noted by then.
        let later = now + Duration::from_millis(100);
        assert!(noted[&of_all] > later + wait);
        // And makes it no longer.
        let mut again = Saved::of(std::iter::empty(), 0, NOON, later);
        assert_eq!(again.hold(vec![(of_all.clone(), later + wait)], &noted, later), noted);
        assert_eq!(again.holds[0].millis, 10_150);
    }

    #[test]
    fn what_no_limiter_wrote_is_not_read() {
        for bytes in ["", "{", "[]", r#"{"version":3,"saved_at":0,"leave":0,"windows":[]}"#] {
            assert!(Saved::read(bytes.as_bytes(), NOON).is_none(), "{bytes}");
            // It may have counted for a window of a month.
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("limits");
            std::fs::write(&path, bytes).unwrap();
            assert!(matches!(Store::open(path), Err(Error::Io { action: "read", .. })), "{bytes}");
        }
    }
}
