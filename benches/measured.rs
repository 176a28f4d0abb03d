//! What a run of a program costs, as the kernel counts it.
//!
//! `getrusage` tells of all children of a process together, and the peak of the greatest among them. So each program
//! is run by a process of its own, which is this one, started again.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;

use crate::Failed;

/// The first argument of the process that runs the program.
const RUN: &str = "--measured-run";

/// What a program took.
#[derive(Clone, Debug)]
pub struct Cost {
    /// Seconds from its start to its end.
    pub wall: f64,
    /// Seconds on a core, in user mode and in the kernel, its own children included.
    pub cpu: f64,
    /// The greatest resident set in bytes.
    pub peak: u64,
    /// Its exit status; `None` if a signal ended it, such as ours at the limit.
    pub status: Option<i32>,
}

/// Runs a program and tells what it took. What it prints goes to the file `log`; its standard input is empty. At
/// `limit` it is killed.
///
/// The calling program must begin with [`run_if_asked`].
///
/// # Errors
///
/// If it cannot be started.
pub fn measured(command: &Command, log: &Path, limit: Duration) -> Result<Cost, Failed> {
    let out = fs::File::create(log)?;
    let told = tempfile::NamedTempFile::new()?;
    let mut runner = Command::new(env::current_exe()?);
    runner.arg(RUN).arg(told.path()).arg(limit.as_secs_f64().to_string());
    runner.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => runner.env(name, value),
            None => runner.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        runner.current_dir(folder);
    }
    let status = runner.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out).status()?;
    let text = fs::read_to_string(told.path())?;
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [wall, cpu, peak, code] = fields[..] else {
        let said = fs::read_to_string(log).unwrap_or_default();
        return Err(format!("{:?} was not measured ({status}): {said}", command.get_program()).into());
    };
    Ok(Cost { wall: wall.parse()?, cpu: cpu.parse()?, peak: peak.parse()?, status: code.parse().ok() })
}

/// Is the process that runs the program, if this one was started to be that. Returns whether it was.
///
/// # Errors
///
/// If the program cannot be started.
pub fn run_if_asked() -> Result<bool, Failed> {
    let mut arguments = env::args_os().skip(1);
    if arguments.next().is_none_or(|first| first != RUN) {
        return Ok(false);
    }
    let mut next = || arguments.next().ok_or("too few arguments");
    let (told, limit, program) = (next()?, next()?, next()?);
    let limit = Duration::from_secs_f64(limit.to_str().ok_or("the limit is no number")?.parse()?);
    let started = Instant::now();
    let mut child = Command::new(program).args(arguments).spawn()?;
    let pid = Pid::from_raw(child.id().try_into()?);
    let (ended, has_ended) = mpsc::channel::<()>();
    thread::spawn(move || {
        // An error would say that it has just ended.
        if has_ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    });
    let status = child.wait()?;
    let wall = started.elapsed().as_secs_f64();
    drop(ended);
    let cpu = cpu_seconds(UsageWho::RUSAGE_CHILDREN)?;
    // Linux counts in KiB.
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss() * 1024;
    let code = status.code().map_or_else(|| "killed".to_owned(), |code| code.to_string());
    fs::write(told, format!("{wall} {cpu} {peak} {code}"))?;
    Ok(true)
}

/// The median; between the two in the middle if there are two. NaN of nothing.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_unstable_by(f64::total_cmp);
    match (figures.len() / 2, figures.len() % 2) {
        (0, 0) => f64::NAN,
        (middle, 0) => f64::midpoint(figures[middle - 1], figures[middle]),
        (middle, _) => figures[middle],
    }
}

/// Seconds on a core, in user mode and in the kernel.
pub(crate) fn cpu_seconds(who: UsageWho) -> Result<f64, Failed> {
    let usage = getrusage(who)?;
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}
