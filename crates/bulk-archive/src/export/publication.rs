//! What follows the commit of a run, by the run itself or by whoever opens the folder next. Each step may be done again.

use std::{collections::BTreeSet, fs, io, path::Path};

use serde::Serialize;

use super::{
    event::ExportEvent,
    files::{self, Folder, MANIFEST, STATE, cannot_read, cannot_write, shown},
    options::ExportOptions,
    roster::Roster,
};
use crate::Error;

/// Gives files their names, as the last commit says, if that is yet to be done. Whether it was.
pub(crate) fn finish(folder: &Folder, roster: &Roster, options: &ExportOptions) -> Result<bool, Error> {
    let pending = roster.pending()?;
    if pending.is_empty() {
        return Ok(false);
    }
    let (next, manifest) = (folder.next(), folder.root.join(MANIFEST));
    let next_manifest = next.join(MANIFEST);
    let has_manifest = pending.iter().any(|(name, _)| name == MANIFEST);
    // It is the last that is renamed.
    let has_begun_anew = has_manifest && exists(&next_manifest)?;
    if has_begun_anew {
        files::remove_file(&manifest)?;
        files::sync_folder(&folder.root)?;
        options.tell(&ExportEvent::Unpublished);
    }
    let mut folders = BTreeSet::new();
    for (name, renamed) in pending.iter().filter(|(name, _)| name != MANIFEST) {
        let path = folder.root.join(name);
        if let Some(parent) = path.parent()
            && !name.starts_with(STATE)
        {
            folders.insert(parent.to_owned());
        }
        if !renamed {
            files::remove_file(&path)?;
            if !name.starts_with(STATE) {
                options.tell(&ExportEvent::Removed { name });
            }
        } else if name.starts_with(STATE) {
            // It may be lost, and costs time then.
            match fs::rename(next.join(name), &path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot_write(&path)(error)),
                _ => {}
            }
        } else if rename(&next.join(name), &path)? {
            options.tell(&ExportEvent::Renamed { name });
        }
    }
    for touched in folders.iter().filter(|folder| folder.is_dir()) {
        files::sync_folder(touched)?;
    }
    files::sync_folder(&folder.root)?;
    if has_begun_anew {
        check(folder, roster, &pending)?;
        fs::rename(&next_manifest, &manifest).map_err(cannot_write(&manifest))?;
        files::sync_folder(&folder.root)?;
    } else if has_manifest && !exists(&manifest)? {
        check(folder, roster, &pending)?;
        folder.replace(MANIFEST, &roster.manifest()?.to_bytes())?;
        files::sync_folder(&folder.root)?;
    }
    if has_manifest {
        options.tell(&ExportEvent::Published);
    }
    roster.clear_pending()?;
    files::remove_folder(&next)?;
    Ok(true)
}

/// Renames a file; not, if that has been done before.
fn rename(from: &Path, to: &Path) -> Result<bool, Error> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !exists(from)? && exists(to)? {
                return Ok(false);
            }
            Err(cannot_write(to)(error))
        }
        renamed => renamed.map(|()| true).map_err(cannot_write(to)),
    }
}

/// Whether what was to be renamed is there, as far as lengths tell: somebody may have removed it before it was.
fn check(folder: &Folder, roster: &Roster, pending: &[(String, bool)]) -> Result<(), Error> {
    let manifest = roster.manifest()?;
    for (name, bytes, _) in manifest.named() {
        if pending.binary_search_by(|(pending, _)| pending.as_str().cmp(name)).is_ok() {
            let path = folder.root.join(name);
            if fs::metadata(&path).map_err(cannot_read(&path))?.len() != bytes {
                let reason = "it is not what the last run made, whose files were removed; making the indexes anew takes it as it is";
                return Err(Error::Set { file: shown(&path), reason: reason.to_owned() });
            }
        }
    }
    Ok(())
}

pub(crate) fn exists(path: &Path) -> Result<bool, Error> {
    fs::exists(path).map_err(cannot_read(path))
}

/// The content of `info.json`, as CourtListener's system wrote it.
#[derive(Serialize)]
struct Info<'a> {
    /// When the last run began that succeeded.
    last_good_date: Option<&'a str>,
    /// When the last run began.
    last_attempt: &'a str,
    /// How many seconds the last run took that succeeded.
    duration: Option<f64>,
}

/// The `info.json` of a type.
pub(crate) fn info(last_good_date: Option<&str>, last_attempt: &str, duration: Option<f64>) -> Vec<u8> {
    // Nothing in it can fail.
    let mut bytes = serde_json::to_vec(&Info { last_good_date, last_attempt, duration }).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}
