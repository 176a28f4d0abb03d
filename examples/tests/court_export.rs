//! The export of the courts' archives, into which Python looks afterwards.

#[path = "../court_export/made_up.rs"]
mod made_up;
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use bulk_core::{Algorithm, Digest};
use made_up::{Day, archive, court, json, kind, modified, other_court};
use support::example;

const ITEMS: u64 = 12_000;

/// What it prints, line by line, but for what differs from run to run: bytes and seconds stand behind the last semicolon.
fn run(folder: &Path) -> Vec<String> {
    let mut command = Command::new(example("court_export"));
    command.args(["--items", &ITEMS.to_string(), "--out"]).arg(folder).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let fixed = |line: &str| line.rsplit_once("; ").map_or(line, |(fixed, _)| fixed).to_owned();
    lines.lines().map(fixed).collect()
}

/// The archive, the name, the time and the SHA-256 of each item, sorted, as Python finds them. Times of the day are called so.
fn read_by_python(folder: &Path) -> String {
    let script = "
import glob, hashlib, os, sys, tarfile
for name in glob.glob('*/*.tar.gz', root_dir=sys.argv[1]):
    with tarfile.open(os.path.join(sys.argv[1], name), 'r|gz') as archive:
        for member in archive:
            time = member.mtime if member.mtime < 1_500_000_000 else 'of the day'
            print(name, member.name, time, hashlib.sha256(archive.extractfile(member).read()).hexdigest())";
    let output = Command::new("python3").args(["-c", script]).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    sorted(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

fn sorted(mut lines: Vec<String>) -> String {
    lines.sort();
    lines.join("\n")
}

/// What there is to be found when the day is over.
fn expected() -> String {
    let untouched = |number| (number, (court(number), Some(modified(number)), 0));
    let mut items: BTreeMap<u64, (String, Option<i64>, u64)> = (0..ITEMS).map(untouched).collect();
    let day = Day::of(ITEMS);
    items.extend(day.changed.iter().map(|&number| (number, (court(number), None, 1))));
    items.extend(day.moved.iter().map(|&number| (number, (other_court(number), None, 0))));
    items.extend(day.added.iter().map(|&number| (number, (court(number), None, 0))));
    for number in &day.removed {
        items.remove(number).unwrap();
    }
    let line = |(number, (court, modified, edition)): (u64, (String, Option<i64>, u64))| {
        let time = modified.map_or("of the day".to_owned(), |time| time.to_string());
        let digest = Digest::of(Algorithm::Sha256, json(number, edition).as_bytes()).to_hex();
        format!("{} {number}.json {time} {digest}", archive(kind(number), &court))
    };
    sorted(items.into_iter().map(line).collect())
}

#[test]
fn only_archives_with_changes_are_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("archives");
    let lines = run(&folder);
    let expected_lines = [
        "the database has 12000 items",
        "first run: 12000 items added, 0 replaced, 0 moved, 0 removed, 0 as they were",
        "1400 of 1400 archives made anew, 0 emptied",
        "a day: 12 items changed, 3 moved to another court, 3 deleted, 3 new",
        "second run: 3 items added, 12 replaced, 3 moved, 3 removed, 0 as they were",
        "23 of 1400 archives made anew, 0 emptied",
        "23 archives are other files than before, 1377 are not",
        "third run: 0 items added, 0 replaced, 0 moved, 0 removed, 18 as they were",
        "0 of 1400 archives made anew, 0 emptied",
        "0 archives are other files than before",
        "verified: 1400 archives have 12000 items, all as they were made",
        "GNU tar has read 21 archives: the items of the day are in the right ones",
    ];
    assert_eq!(lines, expected_lines);
    assert_eq!(Day::of(ITEMS).archives().len(), 23);
    let (found, expected) = (read_by_python(&folder), expected());
    assert_eq!(found.lines().count(), 12_000);
    assert!(found == expected, "the archives differ from what they should be");
}

#[test]
fn a_folder_that_is_there_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(example("court_export")).arg("--out").arg(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        format!("Error: \"{} is there already\"\n", folder.path().display())
    );
}
