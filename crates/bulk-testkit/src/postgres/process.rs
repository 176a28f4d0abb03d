use std::{
    io,
    process::{Child, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

/// How often a condition of another process is looked at.
const TICK: Duration = Duration::from_millis(5);

/// A process as the system lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    parent: u32,
    /// The letter of `ps`: `T` is stopped, `Z` and `X` are dead.
    state: char,
}

/// Looks at a condition until it gives a value or the time is over.
pub(super) fn poll<T>(timeout: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + timeout;
    loop {
        match condition() {
            Some(value) => return Some(value),
            None if Instant::now() >= end => return None,
            None => thread::sleep(TICK),
        }
    }
}

/// Waits for a child to end; none is a timeout.
pub(super) fn wait(child: &mut Child, timeout: Duration) -> io::Result<Option<ExitStatus>> {
    poll(timeout, || child.try_wait().transpose()).transpose()
}

/// Sends a signal to a child that was not waited for yet, so that its id is still its own.
pub(super) fn send(child: &Child, signal: Signal) {
    send_to(child.id(), signal);
}

/// Kills a child and its children as if the machine lost power: none of them runs another instruction of its own, so
/// nothing is flushed, logged or cleaned up. False if one of them is still there after `timeout`.
pub(super) fn kill_family(child: &mut Child, timeout: Duration) -> io::Result<bool> {
    // A stopped process forks no more, so the list of its children is complete.
    send(child, Signal::SIGSTOP);
    poll(timeout, || (!matches!(state_of(child.id()), Some('R' | 'S' | 'D'))).then_some(()));
    let children: Vec<u32> =
        processes().into_iter().filter(|process| process.parent == child.id()).map(|process| process.pid).collect();
    for &pid in &children {
        send_to(pid, Signal::SIGKILL);
    }
    child.kill()?;
    if wait(child, timeout)?.is_none() {
        return Ok(false);
    }
    let gone = || children.iter().all(|&pid| matches!(state_of(pid), None | Some('Z' | 'X')));
    Ok(poll(timeout, || gone().then_some(())).is_some())
}

fn send_to(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // A process that is gone already is what a signal is for.
        let _ = signal::kill(Pid::from_raw(pid), signal);
    }
}

fn state_of(pid: u32) -> Option<char> {
    #[cfg(target_os = "linux")]
    return Some(of_proc(pid)?.state);
    #[cfg(not(target_os = "linux"))]
    processes().into_iter().find(|process| process.pid == pid).map(|process| process.state)
}

#[cfg(target_os = "linux")]
fn processes() -> Vec<Process> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| of_proc(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

#[cfg(not(target_os = "linux"))]
fn processes() -> Vec<Process> {
    let output = std::process::Command::new("ps").args(["-A", "-o", "pid=,ppid=,stat="]).output();
    let listed = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&listed)
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            Some(Process {
                pid: fields.next()?.parse().ok()?,
                parent: fields.next()?.parse().ok()?,
                state: fields.next()?.chars().next()?,
            })
        })
        .collect()
}

#[cfg(target_os = "linux")]
fn of_proc(pid: u32) -> Option<Process> {
    of_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads a line of `/proc/PID/stat`, proc(5): id, name in parentheses (which may hold anything), state, parent.
#[cfg(target_os = "linux")]
fn of_stat(stat: &str) -> Option<Process> {
    let (pid, rest) = stat.split_once(' ')?;
    let (_, rest) = rest.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    Some(Process {
        pid: pid.parse().ok()?,
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
        time::Duration,
    };

    use super::{kill_family, processes, state_of};

    #[cfg(target_os = "linux")]
    #[test]
    fn names_with_parentheses_are_read() {
        let process = super::of_stat("42 (a) b) (c) S 7 42 42 0 -1\n").unwrap();
        assert_eq!(process, super::Process { pid: 42, parent: 7, state: 'S' });
        assert_eq!(super::of_stat("42"), None);
    }

    #[test]
    fn a_family_is_killed() {
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM INT QUIT; sleep 1000 & echo $!; sleep 1000 & echo $!; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let children: Vec<u32> = lines.take(2).map(|line| line.unwrap().parse().unwrap()).collect();
        assert!(children.iter().all(|&pid| processes().iter().any(|p| p.pid == pid && p.parent == child.id())));

        assert!(kill_family(&mut child, Duration::from_secs(30)).unwrap());
        assert!(children.iter().all(|&pid| matches!(state_of(pid), None | Some('Z' | 'X'))));
    }
}
