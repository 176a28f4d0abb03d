//! A run that is killed, or finds no room on the disk, at any moment leaves the old set or the new one, whole, and the next
//! run gives the new one.
//!
//! This program is its own child: with `child FOLDER N` it exports into a copy of the old set and kills itself at the Nth
//! event, with `late FOLDER N` its parent does, some time after that; with `disk FOLDER` it does the second part, on a small
//! disk that is mounted for it alone.

#[path = "export/support.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod support;

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bulk_archive::{Error, ExportOptions, ExportSet, SetManifest, Shape, rebuild_indexes};
use rustix::process::{Signal, getpid, kill_process};
use support::{Model, check, check_set, document, options};

fn main() {
    let arguments: Vec<String> = env::args().collect();
    match arguments.as_slice() {
        [_, child, folder, last] if child == "child" => {
            let (last, events) = (last.parse::<usize>().unwrap(), AtomicUsize::new(0));
            let mut options = with_all();
            options.observer = Arc::new(move |_| {
                if events.fetch_add(1, Ordering::SeqCst) == last {
                    kill_process(getpid(), Signal::KILL).unwrap();
                }
            });
            export(Path::new(folder), options).unwrap();
        }
        [_, child, folder] if child == "late" => {
            let mut options = with_all();
            options.observer = Arc::new(|_| std::io::stdout().write_all(b"event\n").unwrap());
            export(Path::new(folder), options).unwrap();
        }
        [_, child, folder] if child == "disk" => without_room(Path::new(folder)),
        [_, ..] if arguments.iter().any(|argument| argument == "--list") => {}
        _ => {
            killed_at_each_event();
            killed_some_time_after_an_event();
            without_room_on_a_disk_of_its_own();
        }
    }
}

fn with_all() -> ExportOptions {
    let mut options = options();
    options.all_tar = true;
    options.shapes = Some(Shape::ALL.into_iter().collect());
    options.whole_shapes = options.shapes.clone();
    options
}

/// The items of the old set, and of the new one.
fn models() -> [Model; 2] {
    let mut models = [Model::new(), Model::new()];
    for id in 0..240u64 {
        let old = ["ca1", "ca9", "scotus"][id as usize % 3];
        let key = (["dockets", "opinions"][id as usize % 2].to_owned(), format!("{id:03}"));
        models[0].insert(key.clone(), (old.to_owned(), 5, document(id, 400)));
        // Some go, some change, some move; one group is emptied, one is new, and one stays as it is.
        let is_tax = old == "ca9" && key.0 == "dockets";
        let new = if is_tax || id % 11 == 0 { "tax" } else { old };
        if old == "scotus" && key.0 == "opinions" {
            models[1].insert(key, (old.to_owned(), 5, document(id, 400)));
        } else if id % 7 != 0 {
            let (seed, mtime) = if id % 5 == 0 { (id + 1000, 6) } else { (id, 5) };
            models[1].insert(key, (new.to_owned(), mtime, document(seed, 400)));
        }
    }
    models
}

/// Makes the old set.
fn prepare(folder: &Path) {
    let mut set = ExportSet::open(folder, with_all()).unwrap();
    let mut stage = set.begin().unwrap();
    for ((kind, id), (group, mtime, content)) in &models()[0] {
        stage.put(kind, group, id, *mtime, content).unwrap();
    }
    stage.publish(&BTreeMap::from([("run".to_owned(), "old".to_owned())])).unwrap();
}

/// Makes the new set out of the old one, or of itself.
fn export(folder: &Path, options: ExportOptions) -> Result<(), Error> {
    let [old, new] = models();
    let mut set = ExportSet::open(folder, options)?;
    let mut stage = set.begin()?;
    for ((kind, id), (group, mtime, content)) in &new {
        stage.put(kind, group, id, *mtime, content)?;
    }
    for (kind, id) in old.keys().filter(|key| !new.contains_key(*key)) {
        stage.remove(kind, id)?;
    }
    stage.publish(&BTreeMap::from([("run".to_owned(), "new".to_owned())]))?;
    Ok(())
}

/// What was left is one of the two, and which the next one who opens it says. Gives whether there was a manifest, and
/// whether it is the new set.
fn check_what_is_left(folder: &Path, at: &str) -> (bool, bool) {
    let models = models();
    let manifest = SetManifest::read(folder).unwrap();
    if let Some(manifest) = &manifest {
        check_set(folder, &models[usize::from(manifest.entries != models[0].len() as u64)]);
    }
    let set = ExportSet::open(folder, with_all()).unwrap();
    let run = set.watermark("run").unwrap();
    drop(set);
    let is_new = match run.as_deref() {
        Some("old") => false,
        Some("new") => true,
        other => panic!("{at}: {other:?}"),
    };
    check(folder, &models[usize::from(is_new)]);
    (manifest.is_some(), is_new)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn child(mode: &str, folder: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.arg(mode).arg(folder);
    command
}

fn killed_at_each_event() {
    let folder = tempfile::tempdir().unwrap();
    let (old, work) = (folder.path().join("old"), folder.path().join("work"));
    prepare(&old);
    // Without a manifest, with the old one, with the new one.
    let mut seen = [0; 3];
    for last in 0.. {
        copy(&old, &work);
        let status = child("child", &work).arg(last.to_string()).status().unwrap();
        if status.success() {
            assert!(last > 20, "{last} events");
            break;
        }
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        // Whoever is to finish it is killed as well.
        let _ = child("child", &work).arg((last % 4).to_string()).status().unwrap();
        let rebuilt = folder.path().join("rebuilt");
        copy(&work, &rebuilt);
        // Half-published files are known as our own, and made anew.
        rebuild_indexes(&rebuilt, &with_all()).unwrap();
        let (has_manifest, is_new) = check_what_is_left(&work, &format!("event {last}"));
        seen[if has_manifest { 1 + usize::from(is_new) } else { 0 }] += 1;
        check(&rebuilt, &models()[usize::from(is_new)]);
        let shapes = |folder: &Path| SetManifest::read(folder).unwrap().unwrap().shapes;
        assert!(!shapes(&work).is_empty() && shapes(&rebuilt) == shapes(&work), "event {last}");
        fs::remove_dir_all(&rebuilt).unwrap();
        export(&work, with_all()).unwrap();
        check(&work, &models()[1]);
        fs::remove_dir_all(&work).unwrap();
    }
    assert!(seen.iter().all(|&times| times > 0), "{seen:?}");
}

fn killed_some_time_after_an_event() {
    let folder = tempfile::tempdir().unwrap();
    let (old, work) = (folder.path().join("old"), folder.path().join("work"));
    prepare(&old);
    let mut new = 0;
    for event in (1..100).step_by(2) {
        copy(&old, &work);
        let mut child = child("late", &work).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Fewer events than that: it is at its end.
        let seen = lines.take(event).count();
        child.kill().unwrap();
        child.wait().unwrap();
        let (_, is_new) = check_what_is_left(&work, &format!("after event {seen}"));
        new += usize::from(is_new);
        export(&work, with_all()).unwrap();
        check(&work, &models()[1]);
        fs::remove_dir_all(&work).unwrap();
    }
    assert!((1..50).contains(&new), "{new}");
}

/// As root, or in a user namespace in which we are root.
fn without_room_on_a_disk_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let unshare = |options: &[&str], run: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(options).args([
            "sh",
            "-c",
            &format!("mount -t tmpfs -o size=4m tmpfs \"$1\" || exit 99; {run}"),
            "sh",
        ]);
        unshare.arg(folder.path()).arg(env::current_exe().unwrap());
        unshare
    };
    for options in [&["-m"][..], &["-r", "-m"]] {
        if unshare(options, "exit 0").output().is_ok_and(|output| output.status.success()) {
            let status = unshare(options, "exec \"$2\" disk \"$1\"").status().unwrap();
            assert!(status.success(), "{status}");
            return;
        }
    }
    let why = "nobody may mount a tmpfs in a mount namespace here (unshare -m, or unshare -r -m)";
    assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}");
    std::io::stderr().write_all(format!("a full disk is not tested: {why}\n").as_bytes()).unwrap();
}

fn without_room(disk: &Path) {
    let (old, work, filler) = (disk.join("old"), disk.join("work"), disk.join("filler"));
    prepare(&old);
    let (mut failed, mut new) = (0, 0);

    for free in (0..).map(|step| step * 12 * 1024) {
        copy(&old, &work);
        fill(&filler, disk, free);
        let result = export(&work, with_all());
        fs::remove_file(&filler).unwrap();
        let (_, is_new) = check_what_is_left(&work, &format!("{free} bytes"));
        let is_done = result.is_ok();
        if let Err(error) = result {
            let full = "No space left on device";
            let mut source: Option<&dyn std::error::Error> = Some(&error);
            let mut texts = std::iter::from_fn(|| {
                let error = source?;
                source = error.source();
                Some(error.to_string())
            });
            assert!(texts.any(|text| text.contains(full) || text.contains("disk is full")), "{free}: {error:?}");
            failed += 1;
            new += usize::from(is_new);
        } else {
            assert!(is_new);
        }
        export(&work, with_all()).unwrap();
        check(&work, &models()[1]);
        fs::remove_dir_all(&work).unwrap();
        if is_done {
            break;
        }
    }
    assert!(failed > 10, "{failed}, {new} of them new");
}

/// Fills the disk but for so many bytes.
fn fill(filler: &Path, disk: &Path, free: u64) {
    let facts = rustix::fs::statvfs(disk).unwrap();
    let len = (facts.f_bavail * facts.f_frsize).saturating_sub(free);
    File::create(filler).unwrap().write_all(&vec![1; len as usize]).unwrap();
}
