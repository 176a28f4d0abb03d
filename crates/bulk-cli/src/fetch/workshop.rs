//! Where one archive at a time is unpacked before what comes out gets its place, so that two versions never mix and no half
//! of one is ever there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bulk_core::{FolderLock, remove_staged};

use super::extracted::{self, Extraction, STATE_FOLDER};
use crate::exit::{Exit, Failure};

/// The workshop, in the folder of the fetch.
pub(super) const WORKSHOP: &str = ".bulk-extract";

/// The folder in which archives are unpacked.
///
/// An archive is unpacked into `new`, and what came out is noted in `list`. That is synced and renamed to `whole`: from then
/// on it is certain that the archive is extracted, and each step that follows can be done again, by a later run if this one
/// is killed: what stood in the place goes to `old`, and what is new into the place; of `old` goes what the earlier
/// extraction had made, and the rest returns; `whole` becomes the archive's record.
pub(super) struct Workshop {
    /// Of the fetch.
    folder: PathBuf,
    root: PathBuf,
    /// Keeps other runs out.
    _lock: FolderLock,
}

/// What was not put back into a folder, since something of another kind has its name.
pub(super) type Left = Option<PathBuf>;

impl Workshop {
    /// Locks the folder, and brings to its end what a run that was killed had left.
    pub(super) fn open(folder: &Path) -> Result<(Self, Left), Failure> {
        let root = folder.join(WORKSHOP);
        let Some(lock) = FolderLock::try_acquire(&root).map_err(|error| failed(&root, error))? else {
            let what = anyhow::anyhow!("another run extracts files into {}", folder.display());
            return Err(Failure::new(Exit::Failed, what));
        };
        let workshop = Self { folder: folder.to_owned(), root, _lock: lock };
        let left = match extracted::read(&workshop.whole()).map_err(|error| failed(&workshop.whole(), error))? {
            Some((head, _)) => workshop.finish(&head)?,
            None => None,
        };
        workshop.clear()?;
        Ok((workshop, left))
    }

    /// Where an archive is unpacked.
    pub(super) fn new_folder(&self) -> PathBuf {
        self.root.join("new")
    }

    /// Where it is noted what came out.
    pub(super) fn list(&self) -> PathBuf {
        self.root.join("list")
    }

    fn whole(&self) -> PathBuf {
        self.root.join("whole")
    }

    fn old(&self) -> PathBuf {
        self.root.join("old")
    }

    /// Removes what is not whole.
    pub(super) fn clear(&self) -> Result<(), Failure> {
        for folder in [self.new_folder(), self.old()] {
            fs::remove_dir_all(&folder).or_else(if_there).map_err(|error| failed(&folder, error))?;
        }
        for file in [self.list(), self.whole()] {
            fs::remove_file(&file).or_else(if_there).map_err(|error| failed(&file, error))?;
        }
        Ok(())
    }

    /// Puts what came out, which is synced as its list is, in its place.
    pub(super) fn put_in_place(&self, head: &Extraction) -> Result<Left, Failure> {
        self.check_place(head)?;
        fs::rename(self.list(), self.whole()).map_err(|error| failed(&self.whole(), error))?;
        sync(&self.root)?;
        let left = self.finish(head)?;
        self.clear()?;
        Ok(left)
    }

    /// What an archive became, before it has its place.
    fn made(&self, head: &Extraction) -> PathBuf {
        self.new_folder().join(head.output.rsplit('/').next().unwrap_or(&head.output))
    }

    fn check_place(&self, head: &Extraction) -> Result<(), Failure> {
        let (made, place) = (self.made(head), self.folder.join(&head.output));
        let is_folder = |path: &Path| fs::symlink_metadata(path).map(|found| found.is_dir());
        match (is_folder(&made).map_err(|error| failed(&made, error))?, is_folder(&place)) {
            (true, Ok(false)) => Err(in_the_way(head, "a file", &place)),
            (false, Ok(true)) => Err(in_the_way(head, "a folder", &place)),
            (_, Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(failed(&place, error)),
            _ => Ok(()),
        }
    }

    /// Does what is left to do when an extraction is whole.
    fn finish(&self, head: &Extraction) -> Result<Left, Failure> {
        let (made, place, old) = (self.made(head), self.folder.join(&head.output), self.old());
        let above = place.parent().unwrap_or(&self.folder);
        if fs::symlink_metadata(&made).is_ok() {
            self.check_place(head)?;
            fs::create_dir_all(above).map_err(|error| failed(above, error))?;
            if made.is_dir() {
                fs::rename(&place, &old).or_else(if_there).map_err(|error| failed(&place, error))?;
            } else if self.folder.join(STATE_FOLDER).join(format!("{}.json", head.output)).exists() {
                // It was fetched under that name; its record goes with it.
                remove_staged(&self.folder, &head.output)?;
            }
            fs::rename(&made, &place).map_err(|error| failed(&place, error))?;
            sync(above)?;
        }
        let left = if old.is_dir() { self.sort_out(head, &place, &old)? } else { None };
        if let Some(other) = head.replaces.as_ref().filter(|other| **other != head.name) {
            let record = extracted::path(&self.folder, other);
            fs::remove_file(&record).or_else(if_there).map_err(|error| failed(&record, error))?;
        }
        if head.removes_archive {
            remove_staged(&self.folder, &head.name)?;
        }
        let record = extracted::path(&self.folder, &head.name);
        let of_records = record.parent().unwrap_or(&self.folder);
        fs::create_dir_all(of_records).map_err(|error| failed(of_records, error))?;
        fs::rename(self.whole(), &record).map_err(|error| failed(&record, error))?;
        sync(of_records)?;
        Ok(left)
    }

    /// Removes what an earlier extraction had made from what stood in the place, and puts the rest back, where it is not
    /// replaced.
    fn sort_out(&self, head: &Extraction, place: &Path, old: &Path) -> Result<Left, Failure> {
        if let Some(before) = &head.replaces {
            let record = extracted::path(&self.folder, before);
            let lines = extracted::read(&record).map_err(|error| failed(&record, error))?;
            // A folder that somebody has replaced by a link leads elsewhere.
            let mut real: Option<(PathBuf, bool)> = None;
            for line in lines.into_iter().flat_map(|(_, lines)| lines) {
                let path = line.map_err(|error| failed(&record, error))?.path();
                let Ok(inner) = path.strip_prefix(&head.output) else { continue };
                let above = inner.parent().unwrap_or(Path::new(""));
                let is_real = match &real {
                    Some((folder, is_real)) if folder == above => *is_real,
                    _ => {
                        let is_real = is_real(old, above);
                        real = Some((above.to_owned(), is_real));
                        is_real
                    }
                };
                let path = old.join(inner);
                if is_real && fs::symlink_metadata(&path).is_ok_and(|found| !found.is_dir()) {
                    fs::remove_file(&path).map_err(|error| failed(&path, error))?;
                }
            }
        }
        let mut touched = BTreeSet::new();
        if give_back(old, place, &mut touched).map_err(|error| failed(place, error))? {
            touched.iter().try_for_each(|folder| sync(folder))?;
            return Ok(None);
        }
        let name =
            |n: u32| if n == 0 { format!("{}.before", head.output) } else { format!("{}.before.{n}", head.output) };
        let free = (0..).map(|n| self.folder.join(name(n))).find(|path| fs::symlink_metadata(path).is_err());
        let Some(free) = free else { return Ok(None) };
        fs::rename(old, &free).map_err(|error| failed(&free, error))?;
        Ok(Some(free))
    }
}

/// Moves the files below `from` to where they stand below `to`, but for those whose names are taken there, which go, and
/// removes folders that are empty then. Whether nothing is left.
fn give_back(from: &Path, to: &Path, touched: &mut BTreeSet<PathBuf>) -> io::Result<bool> {
    let mut is_all = true;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let there = fs::symlink_metadata(&to).ok();
        if entry.file_type()?.is_dir() {
            is_all &= match there {
                Some(found) if !found.is_dir() => false,
                _ => give_back(&from, &to, touched)?,
            };
        } else {
            match there {
                Some(found) if found.is_dir() => is_all = false,
                Some(_) => fs::remove_file(&from)?,
                None => {
                    if let Some(above) = to.parent() {
                        fs::create_dir_all(above)?;
                        touched.insert(above.to_owned());
                    }
                    fs::rename(&from, &to)?;
                }
            }
        }
    }
    if is_all {
        fs::remove_dir(from)?;
    }
    Ok(is_all)
}

/// Whether `path` below `root` consists of folders.
fn is_real(root: &Path, path: &Path) -> bool {
    let is_folder = |path: &Path| fs::symlink_metadata(root.join(path)).is_ok_and(|found| found.is_dir());
    path.ancestors().all(is_folder)
}

fn sync(folder: &Path) -> Result<(), Failure> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some file systems have no sync of folders.
        Err(error) if error.kind() != io::ErrorKind::InvalidInput => Err(failed(folder, error)),
        _ => Ok(()),
    }
}

/// What is not there counts as done.
fn if_there(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn in_the_way(head: &Extraction, what: &str, place: &Path) -> Failure {
    let what = anyhow::anyhow!(
        "{}: {what} is in the way of what comes out: move {} elsewhere, and run it again",
        head.name,
        place.display()
    );
    Failure::new(Exit::Failed, what)
}

fn failed(path: &Path, error: io::Error) -> Failure {
    let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let what = anyhow::anyhow!("cannot work on {}: {error}", path.display());
    Failure::new(if is_full { Exit::Disk } else { Exit::Failed }, what)
}
