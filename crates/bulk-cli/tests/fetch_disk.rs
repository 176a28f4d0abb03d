//! `bulk fetch` of more than the disk has room for, with somebody who takes files away and without.

mod support;

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use bulk_testkit::s3::{Object, Server, Store};
use support::{BUCKET, Ran, bulk, files};

const DISK: u64 = 8 << 20;
const SIZE: u64 = 6 << 20;
const SEGMENT: u64 = 1 << 20;
const JOBS: u64 = 2;
const NAMES: [&str; 3] = ["a.bin", "b.bin", "c.bin"];

/// Mounts a disk, and runs a command so many times, for the files that are still to come. What stands on the disk under a
/// final name is moved to another folder after each run, and meanwhile, too, if there is a consumer.
const RUNS: &str = r#"
    disk=$1 said=$2 size=$3 runs=$4 consumer=$5
    shift 5
    take() {
        for file in "$disk"/*.bin; do
            if [ -f "$file" ]; then mv "$file" "$said/"; fi
        done
    }
    mount -t tmpfs -o size="$size" tmpfs "$disk" || exit 99
    for run in $(seq "$runs"); do
        for name in a.bin b.bin c.bin; do
            if [ ! -f "$said/$name" ]; then echo "$name"; fi
        done > "$said/list"
        "$@" > "$said/stdout.$run" 2> "$said/stderr.$run" &
        if [ "$consumer" = yes ]; then
            while kill -0 $! 2> /dev/null; do
                take
                sleep 0.02
            done
        fi
        wait $!
        echo $? > "$said/status.$run"
        ls "$disk" > "$said/there.$run"
        take
    done
"#;

struct SmallDisk {
    folder: tempfile::TempDir,
    unshare: &'static [&'static str],
    server: Server,
}

impl SmallDisk {
    /// `None` where the system lets nobody mount: said in a line, and a failure where a CI runs.
    fn new() -> Option<Self> {
        let store = NAMES.iter().zip(1..).fold(Store::memory(), |store, (name, seed)| {
            store.with(format!("data/{name}"), Object::made_up(SIZE, seed))
        });
        let server = Server::builder().bucket(BUCKET, store).start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        for name in ["disk", "said"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        // As root, or in a user namespace in which we are root.
        let can_mount = |options: &&[&str]| {
            let mut command = Command::new("unshare");
            command.args(*options).args(["mount", "-t", "tmpfs", "tmpfs"]).arg(folder.path().join("disk"));
            command.output().is_ok_and(|output| output.status.success())
        };
        if let Some(unshare) = [&["-m"][..], &["-r", "-m"]].into_iter().find(can_mount) {
            return Some(Self { folder, unshare, server });
        }
        let why = "nobody may mount a tmpfs in a mount namespace here (unshare -m, or unshare -r -m)";
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}");
        // Around the harness, which hides what a test that passes prints.
        std::io::stderr().write_all(format!("fetch_disk.rs: a small disk is not tested: {why}\n").as_bytes()).unwrap();
        None
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the fetch of all files so many times.
    #[track_caller]
    fn run(&self, runs: usize, has_consumer: bool, more: &[&str]) -> Vec<Ran> {
        let mut fetch = bulk(["fetch", &format!("s3://{BUCKET}/data/"), "--anonymous", "--order", "name"]);
        fetch.args(["--endpoint", &self.server.url(), "--jobs", &JOBS.to_string(), "--segment", &SEGMENT.to_string()]);
        fetch.args(more);
        fetch.arg("--files-from").arg(self.path("said/list")).arg("--out").arg(self.path("disk"));
        let mut command = Command::new("unshare");
        command.args(self.unshare).args(["sh", "-c", RUNS, "sh"]).arg(self.path("disk")).arg(self.path("said"));
        command.args([DISK.to_string(), runs.to_string(), if has_consumer { "yes" } else { "no" }.to_owned()]);
        command.arg(fetch.get_program()).args(fetch.get_args());
        for (name, _) in fetch.get_envs() {
            command.env_remove(name);
        }
        let ran = Ran::of(command);
        assert_eq!(ran.status, Some(0), "{}", ran.stderr);
        let read =
            |what: &str, run: usize| std::fs::read_to_string(self.path("said").join(format!("{what}.{run}"))).unwrap();
        let ran = |run| Ran {
            status: read("status", run).trim().parse().ok(),
            stdout: read("stdout", run),
            stderr: read("stderr", run),
        };
        (1..=runs).map(ran).collect()
    }

    /// What stood under a final name after a run.
    fn there(&self, run: usize) -> Vec<String> {
        let there = std::fs::read_to_string(self.path("said").join(format!("there.{run}"))).unwrap();
        there.lines().filter(|name| name.ends_with(".bin")).map(str::to_owned).collect()
    }

    /// All files were taken, with the bytes that they have.
    #[track_caller]
    fn assert_all(&self) {
        let mut taken = files(&self.path("said"));
        taken.retain(|name, _| name.ends_with(".bin"));
        assert_eq!(taken.keys().collect::<Vec<_>>(), NAMES);
        let whole = tempfile::tempdir().unwrap();
        let mut command = bulk(["fetch", &format!("s3://{BUCKET}/data/"), "--anonymous", "--endpoint"]);
        command.arg(self.server.url()).arg("--out").arg(whole.path());
        Ran::of(command).assert(0, &[]);
        let expected = files(whole.path());
        for (name, bytes) in taken {
            assert!(bytes == expected[&name], "{name}");
        }
    }
}

#[test]
fn with_somebody_who_takes_them_away_all_files_arrive() {
    let Some(disk) = SmallDisk::new() else { return };
    let [ran] = &disk.run(1, true, &["--disk-wait", "60s"])[..] else { unreachable!() };
    ran.assert(0, &["not all files fit at once: 18.0 MiB are needed"]);
    disk.assert_all();
}

#[test]
fn without_anybody_it_ends_clearly_and_the_next_run_goes_on() {
    let Some(disk) = SmallDisk::new() else { return };
    let ran = disk.run(3, false, &["--disk-wait", "0s"]);
    ran[0].assert(5, &["no room for b.bin: ", "no room for c.bin: "]);
    assert_eq!(disk.there(1), ["a.bin"]);
    assert_eq!(disk.there(2), ["b.bin"]);
    ran[2].assert(0, &["c.bin: goes on behind its first"]);
    let of_keys = disk.server.requests().into_iter().filter(|request| request.key.is_some());
    let sent: u64 = of_keys.map(|request| request.bytes_sent).sum();
    // What had come of the last one had to make way for the one before it, in each of two runs, and so had what was on its
    // way to it.
    assert!(sent <= 3 * SIZE + 2 * (DISK - SIZE + JOBS * SEGMENT), "{sent}: {ran:#?}");
    disk.assert_all();
}
