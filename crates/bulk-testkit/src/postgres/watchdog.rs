use std::{
    ffi::OsStr,
    io::{self, BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use super::{account::Account, process};

/// What the watchdog does, in the language of the one program that every system has. Its head says how it is called.
pub(super) const SCRIPT: &str = include_str!("watchdog.sh");

pub(super) const SHELL: &str = "/bin/sh";

/// More than the script waits for: twice 10 seconds for processes, 10 for files.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that outlives its owner by as long as it takes to end a server and remove its folder.
///
/// It reads a pipe; the other end is in here, in no other process (it is closed on exec), and closed by whatever ends
/// the owner. It has a process group of its own, so Ctrl-C in a terminal does not reach it. It makes the folder itself:
/// there is no moment at which the folder is there without it.
#[derive(Debug)]
pub(super) struct Watchdog {
    process: Child,
    line: Option<ChildStdin>,
}

impl Watchdog {
    /// Starts it, and makes the folder; the inner error is why the folder cannot be made.
    pub(super) fn start(account: &Account, folder: &Path) -> io::Result<Result<Self, String>> {
        let mut process = script(account, "guard", folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let line = process.stdin.take();
        let mut answer = String::new();
        if let Some(output) = process.stdout.take() {
            BufReader::new(output).read_line(&mut answer)?;
        }
        let mut watchdog = Self { process, line };
        if answer == "ready\n" {
            return Ok(Ok(watchdog));
        }
        watchdog.finish();
        Ok(Err(answer.trim().to_owned()))
    }

    /// Lets the server and the folder be, for good.
    pub(super) fn release(mut self) -> io::Result<()> {
        if let Some(line) = &mut self.line {
            line.write_all(b"release\n")?;
        }
        self.process.wait().map(drop)
    }

    /// Has it end the server and remove the folder, and waits until that is done.
    pub(super) fn finish(&mut self) {
        self.line = None;
        if let Ok(None) = process::wait(&mut self.process, PATIENCE) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// A command that runs `program` for a server: known to the watchdog from before its first instruction, out of reach
/// of Ctrl-C, and refused (exit status 125) when the end has begun.
pub(super) fn guarded(account: &Account, folder: &Path, program: impl AsRef<OsStr>) -> Command {
    let mut command = script(account, "run", folder);
    command.arg(program).stdin(Stdio::null());
    command
}

/// Forgets a guarded process that was waited for, as its id may soon be another's.
pub(super) fn forget(folder: &Path, pid: u32) {
    let _ = std::fs::remove_file(folder.join(format!("run.{pid}")));
}

fn script(account: &Account, mode: &str, folder: &Path) -> Command {
    let mut command = account.command(SHELL);
    command.arg("-c").arg(SCRIPT).arg(SHELL).arg(mode).arg(folder).process_group(0);
    command
}
