//! What the system says of a thread's and the process's time on the CPU.

use std::time::Duration;

/// What a thread had of the CPU since it began.
#[derive(Clone, Copy, Debug)]
pub(super) struct ThreadTimes {
    pub(super) on_cpu: Duration,
    /// Time that it could have run, and others did; `None` where the system does not tell.
    pub(super) run_queue: Option<Duration>,
}

/// Of the calling thread; `None` where the system has no such clock.
#[cfg(unix)]
pub(super) fn of_thread() -> Option<ThreadTimes> {
    // In this order: both are system calls, on return from which others like to have their turn, and what they take of the time
    // then is in the run queue's figure of later only.
    let run_queue = run_queue();
    let on_cpu = read(rustix::time::ClockId::ThreadCPUTime)?;
    Some(ThreadTimes { on_cpu, run_queue })
}

/// Of all threads of the process together.
#[cfg(unix)]
pub(super) fn of_process() -> Option<Duration> {
    read(rustix::time::ClockId::ProcessCPUTime)
}

#[cfg(unix)]
fn read(clock: rustix::time::ClockId) -> Option<Duration> {
    Duration::try_from(rustix::time::clock_gettime(clock)).ok()
}

#[cfg(not(unix))]
pub(super) fn of_thread() -> Option<ThreadTimes> {
    None
}

#[cfg(not(unix))]
pub(super) fn of_process() -> Option<Duration> {
    None
}

/// From `/proc/thread-self/schedstat`: time on the CPU, time on the run queue, number of slices. The first lags behind by a
/// tick of the scheduler, so the clock is asked for it.
#[cfg(target_os = "linux")]
fn run_queue() -> Option<Duration> {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    thread_local! {
        // Opened once by each thread: the link leads to the thread that opens it.
        static SCHEDSTAT: Option<File> = File::open("/proc/thread-self/schedstat").ok();
    }
    let mut text = [0; 64];
    // A thread that ends may have none any more.
    let length = SCHEDSTAT.try_with(|file| file.as_ref()?.read_at(&mut text, 0).ok()).ok().flatten()?;
    parse_schedstat(text.get(..length)?)
}

#[cfg(all(unix, not(target_os = "linux")))]
fn run_queue() -> Option<Duration> {
    None
}

#[cfg(target_os = "linux")]
fn parse_schedstat(text: &[u8]) -> Option<Duration> {
    let mut fields = std::str::from_utf8(text).ok()?.split_ascii_whitespace();
    let waited: u64 = fields.nth(1)?.parse().ok()?;
    // A number that was cut off at the buffer's end is no number.
    fields.next().map(|_| Duration::from_nanos(waited))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn schedstat_has_three_numbers() {
        assert_eq!(parse_schedstat(b"52117 1534377 12\n"), Some(Duration::from_nanos(1_534_377)));
        for text in [&b""[..], b"1 2", b"1 x 3", b"1 -2 3", b"\xff 1 1"] {
            assert_eq!(parse_schedstat(text), None);
        }
    }

    #[test]
    fn a_thread_that_works_is_on_the_cpu() {
        let before = of_thread().unwrap();
        let mut rounds = 0_u64;
        while of_thread().unwrap().on_cpu < before.on_cpu + Duration::from_millis(2) {
            rounds = std::hint::black_box(rounds + 1);
        }
        assert!(of_process().unwrap() >= Duration::from_millis(2));
    }
}
