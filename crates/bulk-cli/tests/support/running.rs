use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A program that runs, with what it says.
pub(crate) struct Running {
    pub(crate) child: Child,
    said: PathBuf,
    _folder: tempfile::TempDir,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().join("stderr");
        let child = command.stdout(Stdio::null()).stderr(File::create(&said).unwrap()).spawn().unwrap();
        Self { child, said, _folder: folder }
    }

    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }

    #[track_caller]
    pub(crate) fn wait_until(&mut self, what: &str, mut is_so: impl FnMut(&str) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let said = self.said();
            if is_so(&said) {
                return;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "it ended before {what}:\n{said}");
            assert!(Instant::now() < deadline, "{what} never came:\n{said}");
            std::thread::yield_now();
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Exit status and standard error.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        (self.child.wait().unwrap().code(), self.said())
    }
}
