//! What the archives are to others: files of a folder, and what GNU tar finds in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::Failure;
use crate::made_up::{self, Day, KINDS};

/// What tells a file from one that has taken its place: inode and time of modification.
type Identity = (u64, i64, i64);

/// The archives of a set, by their paths below its folder.
pub(crate) fn archives(folder: &Path) -> io::Result<BTreeMap<String, Identity>> {
    let mut archives = BTreeMap::new();
    for kind in KINDS {
        for file in fs::read_dir(folder.join(kind))? {
            let file = file?;
            let name = format!("{kind}/{}", file.file_name().to_string_lossy());
            // Beside them are their indexes.
            if name.ends_with(".tar.gz") {
                let file = file.metadata()?;
                archives.insert(name, (file.ino(), file.mtime(), file.mtime_nsec()));
            }
        }
    }
    Ok(archives)
}

/// Those that are new, gone, or other files.
pub(crate) fn touched(before: &BTreeMap<String, Identity>, after: &BTreeMap<String, Identity>) -> BTreeSet<String> {
    let names = before.keys().chain(after.keys());
    names.filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

/// How many of each of the day's lists are looked at: tar reads an archive from its beginning for each.
const SOME: usize = 10;

/// Reads some items of the day out of their archives, and looks for them where they must not be any more. The number of archives.
pub(crate) fn read_back(folder: &Path, day: &Day) -> Result<usize, Failure> {
    let mut read = BTreeSet::new();
    let mut look_for = |number: u64, court: &str, json: Option<String>| -> Result<(), Failure> {
        let archive = made_up::archive(made_up::kind(number), court);
        let name = format!("{number}.json");
        let names = tar("-tzf", &folder.join(&archive), None)?;
        let is_there = names.split(|&byte| byte == b'\n').any(|line| line == name.as_bytes());
        let found = if is_there { Some(tar("-xzOf", &folder.join(&archive), Some(&name))?) } else { None };
        if found != json.map(String::into_bytes) {
            return Err(format!("{archive}: {name} is not what it should be").into());
        }
        read.insert(archive);
        Ok(())
    };
    for &number in day.changed.iter().take(SOME) {
        look_for(number, &made_up::court(number), Some(made_up::json(number, 1)))?;
    }
    for &number in day.moved.iter().take(SOME) {
        look_for(number, &made_up::court(number), None)?;
        look_for(number, &made_up::other_court(number), Some(made_up::json(number, 0)))?;
    }
    for &number in day.removed.iter().take(SOME) {
        look_for(number, &made_up::court(number), None)?;
    }
    for &number in day.added.iter().take(SOME) {
        look_for(number, &made_up::court(number), Some(made_up::json(number, 0)))?;
    }
    Ok(read.len())
}

/// What tar prints.
fn tar(what: &str, archive: &Path, name: Option<&str>) -> Result<Vec<u8>, Failure> {
    let output = Command::new("tar").arg(what).arg(archive).args(name).output()?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(format!("tar: {}", String::from_utf8_lossy(&output.stderr).trim_end()).into()),
    }
}
