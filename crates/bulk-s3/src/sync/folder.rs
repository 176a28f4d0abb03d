use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;

use super::object_path::path_of_key;
use super::sink::{Refusal, Sink, SinkBatch};
use crate::{Error, KnownObjects};

/// Where parts are written: the path of no key.
const PARTS: &str = "%part";

/// A folder with a file for each object, under the [path of its key](path_of_key).
///
/// A file is written whole beside its place, in the subfolder `%part`, synced, and put into its place by a rename, and the
/// folders are synced, before its object is marked known: of whatever ends the process or the machine, it leaves no half
/// file, and nothing known that is not there. Nothing is written outside the folder: a symbolic link on the way of a path is
/// not followed. An object is refused where a folder or a link stands in its file's place, or a file in the place of one of its
/// folders: a folder cannot hold both `a` and `a/b`. What an object's removal leaves empty is removed, too.
///
/// One run may use a folder at a time. Dropping the future of [`store`](Sink::store) leaves its files to be written by the
/// thread that is at it, and none of them is marked. The next `store` of the same sink waits for that.
#[derive(Clone, Debug)]
pub struct FolderSink {
    folder: PathBuf,
    /// Held while files are written.
    writing: Arc<Mutex<()>>,
}

impl FolderSink {
    /// A sink that writes into this folder, which is made if it is not there. What killed runs have left in `%part` is
    /// removed.
    ///
    /// # Errors
    ///
    /// [`Error::Sink`] if it cannot be made or written to.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let folder = folder.into();
        let parts = folder.join(PARTS);
        let prepare = || {
            fs::create_dir_all(&folder)?;
            match fs::remove_dir_all(&parts) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::create_dir(&parts)
        };
        prepare().map_err(|error| failed(&folder, "cannot be made ready", error))?;
        Ok(Self { folder, writing: Arc::default() })
    }
}

#[async_trait]
impl Sink for FolderSink {
    async fn store(&self, batch: &SinkBatch, known: &dyn KnownObjects) -> Result<Vec<Refusal>, Error> {
        let mut refusals = Vec::new();
        if !batch.objects.is_empty() || !batch.removed.is_empty() {
            let guard = Arc::clone(&self.writing).lock_owned().await;
            let folder = self.folder.clone();
            let objects = batch.objects.iter().map(|object| (object.key.clone(), object.bytes().clone())).collect();
            let removed = batch.removed.clone();
            let writing = tokio::task::spawn_blocking(move || {
                let _guard = guard;
                write(&folder, objects, removed)
            });
            refusals = match writing.await {
                Ok(written) => written?,
                Err(lost) => match lost.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The runtime is going down, and this task with it.
                    Err(_) => std::future::pending().await,
                },
            };
        }
        batch.mark(known, &mut refusals).await?;
        Ok(refusals)
    }

    fn identity(&self) -> String {
        let folder = fs::canonicalize(&self.folder);
        format!("folder {}", folder.as_deref().unwrap_or(&self.folder).display())
    }
}

#[cold]
fn failed(folder: &Path, what: impl Into<String>, source: io::Error) -> Error {
    Error::Sink { sink: format!("folder {}", folder.display()), what: what.into(), source: Some(Box::new(source)) }
}

fn write(folder: &Path, objects: Vec<(String, Bytes)>, removed: Vec<String>) -> Result<Vec<Refusal>, Error> {
    let mut refusals = Vec::new();
    // Folders whose entries have changed.
    let mut changed = BTreeSet::new();
    for key in &removed {
        // What could not be stored is not there.
        if let Some(path) = path_of_key(key) {
            remove(folder, &path, &mut changed)
                .map_err(|error| failed(folder, format!("{key:?} cannot be removed"), error))?;
        }
    }
    let parts = folder.join(PARTS);
    let mut written = Vec::new();
    for (number, (key, bytes)) in objects.into_iter().enumerate() {
        let part = parts.join(number.to_string());
        let write = || {
            let mut file = File::create(&part)?;
            file.write_all(&bytes)?;
            Ok(file)
        };
        let file = write().map_err(|error| failed(folder, format!("{key:?} cannot be written"), error))?;
        written.push((key, part, file));
        // They are synced behind each other, so that the system may write them all at once, and not many are open.
        if written.len() == 64 {
            put(folder, written.drain(..), &mut changed, &mut refusals)?;
        }
    }
    put(folder, written.drain(..), &mut changed, &mut refusals)?;
    for path in changed {
        match sync_folder(&path) {
            // It became empty, and was removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done.map_err(|error| failed(folder, "cannot be synced", error))?,
        }
    }
    Ok(refusals)
}

/// Puts files that were written into their places.
fn put(
    folder: &Path,
    written: impl Iterator<Item = (String, PathBuf, File)>,
    changed: &mut BTreeSet<PathBuf>,
    refusals: &mut Vec<Refusal>,
) -> Result<(), Error> {
    for (key, part, file) in written {
        file.sync_all().map_err(|error| failed(folder, format!("{key:?} cannot be synced"), error))?;
        drop(file);
        let Some(path) = path_of_key(&key) else {
            refusals.push(Refusal::new(key, "an empty key has no file"));
            continue;
        };
        match place(folder, &path, &part, changed) {
            Ok(None) => {}
            Ok(Some(reason)) => refusals.push(Refusal::new(key, reason)),
            Err(error) => return Err(failed(folder, format!("{key:?} cannot be put into its place"), error)),
        }
    }
    Ok(())
}

/// Renames a part to its path; says why, if something is in its way.
fn place(folder: &Path, path: &Path, part: &Path, changed: &mut BTreeSet<PathBuf>) -> io::Result<Option<String>> {
    let in_the_way = |path: &Path, what: &str| {
        let path = path.strip_prefix(folder).unwrap_or(path);
        Ok(Some(format!("{what} is in the way at {}", path.display())))
    };
    let mut parent = folder.to_owned();
    for name in path.parent().into_iter().flatten() {
        let inner = parent.join(name);
        match fs::symlink_metadata(&inner) {
            Ok(found) if found.is_dir() => {}
            Ok(found) => return in_the_way(&inner, if found.is_symlink() { "a symbolic link" } else { "a file" }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&inner)?;
                changed.insert(parent);
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidFilename => return Ok(Some(error.to_string())),
            Err(error) => return Err(error),
        }
        parent = inner;
    }
    let target = folder.join(path);
    match fs::symlink_metadata(&target) {
        Ok(found) if found.is_dir() => return in_the_way(&target, "a folder"),
        Ok(found) if found.is_symlink() => return in_the_way(&target, "a symbolic link"),
        Err(error) if error.kind() == io::ErrorKind::InvalidFilename => return Ok(Some(error.to_string())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(part, &target)?;
    changed.insert(parent);
    Ok(None)
}

/// Removes a file, if it is there, and the folders that are empty then.
fn remove(folder: &Path, path: &Path, changed: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let mut parent = folder.to_owned();
    for name in path.parent().into_iter().flatten() {
        parent.push(name);
        match fs::symlink_metadata(&parent) {
            Ok(found) if found.is_dir() => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            // Not one of our files.
            _ => return Ok(()),
        }
    }
    let target = folder.join(path);
    match fs::symlink_metadata(&target) {
        Ok(found) if found.is_file() => fs::remove_file(&target)?,
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => return Ok(()),
    }
    changed.insert(parent.clone());
    while parent != folder && fs::remove_dir(&parent).is_ok() && parent.pop() {
        changed.insert(parent.clone());
    }
    Ok(())
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Elsewhere a folder cannot be opened as a file, and its entries are the system's matter.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}
