//! A full disk: its own exit status, a message that names the file, and a second run that completes.

mod support;

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use bulk_testkit::s3::{Object, Server, Store};
use support::{BUCKET, Bench, Ran, bulk, files, small};

const SIZE: u64 = 8 << 20;

/// Mounts a disk of so many bytes, of which so many are taken, runs a command, frees the disk, and runs it again. What
/// it printed and ended with, and what is on the disk in the end, goes to another folder.
const TWICE: &str = r#"
    disk=$1 said=$2 size=$3 taken=$4
    shift 4
    mount -t tmpfs -o size="$size" tmpfs "$disk" || exit 99
    head -c "$taken" /dev/zero > "$disk/taken"
    "$@" > "$said/stdout.1" 2> "$said/stderr.1"
    echo $? > "$said/status.1"
    rm "$disk/taken"
    "$@" > "$said/stdout.2" 2> "$said/stderr.2"
    echo $? > "$said/status.2"
    rm -rf "$said/disk"
    cp -r "$disk" "$said/disk"
"#;

/// A folder that is a small disk while a command runs, in a mount namespace of its own.
struct SmallDisk {
    folder: tempfile::TempDir,
    unshare: &'static [&'static str],
}

impl SmallDisk {
    /// `None` where the system lets nobody mount: said in a line, and a failure where a CI runs.
    fn new() -> Option<Self> {
        // As root, or in a user namespace in which we are root.
        for unshare in [&["-m"][..], &["-r", "-m"]] {
            let disk = Self { folder: tempfile::tempdir().unwrap(), unshare };
            for folder in [disk.path(), disk.said("")] {
                std::fs::create_dir(folder).unwrap();
            }
            let mut mount = disk.within(Command::new("true"), SIZE);
            if mount.status().is_ok_and(|status| status.success()) {
                return Some(disk);
            }
        }
        let why = "nobody may mount a tmpfs in a mount namespace here (unshare -m, or unshare -r -m)";
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}");
        // Around the harness, which hides what a test that passes prints.
        std::io::stderr().write_all(format!("disk.rs: a full disk is not tested: {why}\n").as_bytes()).unwrap();
        None
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn said(&self, name: &str) -> PathBuf {
        self.folder.path().join("said").join(name)
    }

    fn within(&self, command: Command, free: u64) -> Command {
        let mut unshare = Command::new("unshare");
        unshare.args(self.unshare).args(["sh", "-c", TWICE, "sh"]).arg(self.path()).arg(self.said(""));
        unshare.args([SIZE, SIZE - free].map(|bytes| bytes.to_string()));
        unshare.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => unshare.env(name, value),
                None => unshare.env_remove(name),
            };
        }
        unshare
    }

    /// Runs the command with `free` bytes on the disk, and again with all of them.
    #[track_caller]
    fn twice(&self, command: Command, free: u64) -> [Ran; 2] {
        let ran = Ran::of(self.within(command, free));
        assert_eq!(ran.status, Some(0), "{}", ran.stderr);
        ["1", "2"].map(|run| {
            let read = |what: &str| std::fs::read_to_string(self.said(&format!("{what}.{run}"))).unwrap();
            Ran { status: read("status").trim().parse().ok(), stdout: read("stdout"), stderr: read("stderr") }
        })
    }
}

#[test]
fn a_fetch_that_fills_the_disk_says_so_and_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::new() else { return };
    let pattern: Vec<u8> = (0..=250).collect();
    let object = |size| Object::repeating(size, &pattern);
    let store = Store::memory().with("data/large.csv", object(4 << 20)).with("data/small.csv", object(1 << 20));
    let server = Server::builder().bucket(BUCKET, store).start().unwrap();
    let mut command = bulk(["fetch", &format!("s3://{BUCKET}/data/"), "--anonymous", "--endpoint", &server.url()]);
    command.args(["--jobs", "1", "--out"]).arg(disk.path());
    let [full, again] = disk.twice(command, 2 << 20);

    full.assert(5, &[disk.path().to_str().unwrap(), "large.csv", "No space left on device"]);
    again.assert(0, &[]);
    let there = files(&disk.said("disk"));
    assert_eq!(there.keys().collect::<Vec<_>>(), ["large.csv", "small.csv"]);
    for (name, size) in [("large.csv", 4 << 20), ("small.csv", 1 << 20)] {
        let expected: Vec<u8> = pattern.iter().copied().cycle().take(size).collect();
        assert!(there[name] == expected, "{name}");
    }
}

#[test]
fn a_mirror_that_fills_the_disk_says_so_and_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::new() else { return };
    let (bench, made) = Bench::with(&small());
    let mut command = bulk(["mirror", "courtlistener", "--endpoint", &bench.bucket.url(), "--dir"]);
    command.arg(disk.path()).env("BULK_DB", bench.database.url());
    // Room for the schema, and for a part of the opinions.
    let [full, again] = disk.twice(command, 512 << 10);

    full.assert(5, &[disk.path().to_str().unwrap(), "opinions-2026-06-30.csv.bz2", "No space left on device"]);
    again.assert(3, &["stays NOT VALID"]);
    bench.assert_holds(&made);
    assert_eq!(files(&disk.said("disk")).keys().collect::<Vec<_>>(), [""; 0]);
}
