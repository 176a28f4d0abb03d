//! A small disk of a test's own, so that "full" is real.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Names the disk to the test that runs on it.
const DISK: &str = "BULK_TEST_DISK";

/// Mounts a tmpfs of so many bytes and runs a command.
const MOUNTED: &str = r#"disk=$1 size=$2; shift 2; mount -t tmpfs -o size="$size" tmpfs "$disk" && exec "$@""#;

/// An empty tmpfs of `size` bytes for the test of that name, which is at the root of its file.
///
/// A test cannot mount without leaving its process, so it runs twice: the first call starts the test anew, alone, in a
/// mount namespace where the disk is, and returns `None` once that passed; the second is within, and has the disk.
/// Where the system lets nobody mount, the test is left out: said in a line, and a failure where a CI runs.
#[track_caller]
pub(crate) fn small(test: &str, size: u64) -> Option<PathBuf> {
    if let Some(disk) = std::env::var_os(DISK) {
        return Some(disk.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let size = size.to_string();
    let within = |unshare: &[&str], command: &[&str]| -> Output {
        let mut mounted = Command::new("unshare");
        mounted.args(unshare).args(["sh", "-c", MOUNTED, "sh"]).arg(folder.path()).arg(&size).args(command);
        mounted.env(DISK, folder.path()).output().unwrap()
    };
    // As root, or in a user namespace in which we are root.
    let ways = [&["-m"][..], &["-r", "-m"]];
    let Some(unshare) = ways.into_iter().find(|unshare| within(unshare, &["true"]).status.success()) else {
        let why = format!("{test}: nobody may mount a tmpfs in a mount namespace here (unshare -m, or unshare -r -m)");
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}");
        // Around the harness, which hides what a test that passes prints.
        std::io::stderr().write_all(format!("{why}: not tested\n").as_bytes()).unwrap();
        return None;
    };
    let this = std::env::current_exe().unwrap();
    let ran = within(unshare, &[this.to_str().unwrap(), "--exact", test, "--nocapture"]);
    let [stdout, stderr] = [&ran.stdout, &ran.stderr].map(|said| String::from_utf8_lossy(said));
    assert!(ran.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains("test result: ok. 1 passed"), "no test is named {test}: {stdout}");
    None
}

/// A file that grows and shrinks by blocks that are really allocated.
pub(crate) struct Blocks(std::fs::File);

impl Blocks {
    pub(crate) fn new(path: &Path) -> Self {
        Self(std::fs::File::create(path).unwrap())
    }

    /// Makes it so long.
    pub(crate) fn resize(&self, bytes: u64) {
        let before = self.0.metadata().unwrap().len();
        self.0.set_len(bytes).unwrap();
        if let Some(more) = bytes.checked_sub(before).filter(|more| *more > 0) {
            rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), before, more).unwrap();
        }
    }

    /// Frees a stretch within.
    pub(crate) fn punch(&self, start: u64, bytes: u64) {
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.0, flags, start, bytes).unwrap();
    }

    /// The bytes that it takes on the disk.
    pub(crate) fn allocated(&self) -> u64 {
        std::os::unix::fs::MetadataExt::blocks(&self.0.metadata().unwrap()) * 512
    }
}
