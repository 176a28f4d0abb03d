//! A full disk: its own exit status, a message that names the file, and a second run that completes.

mod support;

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use bulk_testkit::s3::{Object, Server, Store};
use bulk_testkit::snapshot::Spec;
use support::{BUCKET, Bench, Ran, bulk, files, gets, small};

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
    size: u64,
}

impl SmallDisk {
    /// Of so many bytes. `None` where the system lets nobody mount: said in a line, and a failure where a CI runs.
    fn new(size: u64) -> Option<Self> {
        // As root, or in a user namespace in which we are root.
        for unshare in [&["-m"][..], &["-r", "-m"]] {
            let disk = Self { folder: tempfile::tempdir().unwrap(), unshare, size };
            for folder in [disk.path(), disk.said("")] {
                std::fs::create_dir(folder).unwrap();
            }
            let mut mount = disk.within(Command::new("true"), size);
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
        unshare.args([self.size, self.size - free].map(|bytes| bytes.to_string()));
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
    let Some(disk) = SmallDisk::new(8 << 20) else { return };
    let pattern: Vec<u8> = (0..=250).collect();
    let object = |size| Object::repeating(size, &pattern);
    let store = Store::memory().with("data/large.csv", object(4 << 20)).with("data/small.csv", object(1 << 20));
    let server = Server::builder().bucket(BUCKET, store).start().unwrap();
    let mut command = bulk(["fetch", &format!("s3://{BUCKET}/data/"), "--anonymous", "--endpoint", &server.url()]);
    command.args(["--jobs", "1", "--disk-wait", "0s", "--reserve", "256KiB", "--out"]).arg(disk.path());
    let [full, again] = disk.twice(command, 2 << 20);

    full.assert(5, &["no room for large.csv: 4.0 MiB are needed", "256.0 KiB in reserve"]);
    again.assert(0, &[]);
    let mut there = files(&disk.said("disk"));
    there.remove("manifest.json").unwrap();
    assert_eq!(there.keys().collect::<Vec<_>>(), ["large.csv", "small.csv"]);
    for (name, size) in [("large.csv", 4 << 20), ("small.csv", 1 << 20)] {
        let expected: Vec<u8> = pattern.iter().copied().cycle().take(size).collect();
        assert!(there[name] == expected, "{name}");
    }
}

/// `bulk mirror` with its files on that disk.
fn mirror(bench: &Bench, disk: &SmallDisk, more: &[&str]) -> Command {
    let mut command = bulk(["mirror", "courtlistener", "--endpoint", &bench.bucket.url(), "--dir"]);
    command.arg(disk.path()).args(more).env("BULK_DB", bench.database.url());
    command
}

#[test]
fn a_mirror_that_fills_the_disk_says_so_and_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::new(8 << 20) else { return };
    let (bench, made) = Bench::with(&small());
    // Room for the schema, and for a part of the opinions.
    let [full, again] = disk.twice(mirror(&bench, &disk, &["--disk-wait", "0s", "--reserve", "0"]), 256 << 10);

    full.assert(5, &["no room for opinions-2026-06-30.csv.bz2: 430.4 KiB are needed", "not loaded; indexes"]);
    again.assert(3, &["stays NOT VALID"]);
    bench.assert_holds(&made);
    assert_eq!(files(&disk.said("disk")).keys().collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_file_larger_than_the_disk_is_refused_before_anything_is_done_and_mirrored_without_files() {
    let Some(disk) = SmallDisk::new(10 << 20) else { return };
    let (bench, made) = Bench::with(&Spec { scale: 0.5, ..Spec::default() });
    let size = |base: &str| std::fs::metadata(bench.file(base)).unwrap().len();
    assert!(size("opinions") > disk.size);
    let needed = format!("{:.1} MiB", size("opinions") as f64 / f64::from(1 << 20));
    for ran in disk.twice(mirror(&bench, &disk, &[]), disk.size) {
        let said =
            format!("opinions-2026-06-30.csv.bz2 cannot fit into {}: {} are needed", disk.path().display(), needed);
        ran.assert(5, &[&said, "less is needed with --no-files"]);
    }
    assert!(gets(&bench.bucket).iter().all(|key| key.ends_with(".sql")));
    assert_eq!(bench.sql("SELECT count(*) FROM bulk.load"), "0");

    let without_files = mirror(&bench, &disk, &["--no-files", "--window", "2MiB"]);
    let [loaded, again] = disk.twice(without_files, disk.size);
    loaded.assert(3, &["stays NOT VALID"]);
    again.assert(3, &["33 of 33 files had been loaded"]);
    bench.assert_holds(&made);
    assert_eq!(files(&disk.said("disk")).keys().collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn files_that_are_to_stay_must_fit_all_at_once() {
    let (bench, made) = Bench::with(&small());
    let limited = |more: &[&str]| bench.mirror(&[&["--max-disk", "600kB"], more].concat());
    limited(&["--keep-files"]).assert(5, &["the files cannot fit into", "less is needed without --keep-files"]);
    assert_eq!(bench.sql("SELECT count(*) FROM bulk.load"), "0");
    limited(&["--disk-wait", "0s"]).assert(3, &["stays NOT VALID"]);
    bench.assert_holds(&made);
}
