//! What is made below the folder waits here until it is synced, a few members at a time.

use std::{
    ffi::OsString,
    fs::File,
    io, mem,
    path::{Path, PathBuf},
    thread,
};

use super::{
    ExtractOptions, Extracted, Member, MemberKind,
    disk::{Disk, Fault, Part},
    number::Time,
};
use crate::Error;

/// How many members, files and bytes wait at most. Each file that waits is open.
const MOST_STEPS: usize = 256;
const MOST_FILES: usize = 64;
pub(crate) const MOST_BYTES: u64 = 8 << 20;

/// How many threads sync. A file system writes what several ask for at once: of many small files, eight sync 1.4 to 3.5
/// times as many in a second as one does, and sixteen no more.
const SYNC_THREADS: usize = 8;

/// Something that gets its name when all before it have theirs.
enum Step {
    File { part: Part, bytes: u64, digest: Option<String> },
    Folder,
    Symlink { target: OsString, mtime: Time },
    HardLink { to: PathBuf },
    FolderTime(Time),
}

/// The members that wait, and the folder in which they are made.
pub(crate) struct Stage<'a> {
    // Dropped before the folder, so that unfinished files are gone when that is cleaned up.
    steps: Vec<(PathBuf, Step)>,
    files: usize,
    bytes: u64,
    /// The folders above the member at hand that have a time in the archive. They get it when the archive has left
    /// them, since what is made in them changes it.
    folders: Vec<(PathBuf, Time)>,
    pub(crate) disk: Disk,
    archive: &'a str,
    options: &'a ExtractOptions,
    pub(crate) done: Extracted,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(disk: Disk, archive: &'a str, options: &'a ExtractOptions) -> Stage<'a> {
        Stage {
            steps: Vec::new(),
            files: 0,
            bytes: 0,
            folders: Vec::new(),
            disk,
            archive,
            options,
            done: Extracted::default(),
        }
    }

    /// Says that the archive goes on with `path`, and so has left the folders that are not above it.
    pub(crate) fn enter(&mut self, path: &Path) {
        while let Some((folder, mtime)) = self.folders.pop_if(|(folder, _)| !path.starts_with(folder)) {
            self.steps.push((folder, Step::FolderTime(mtime)));
        }
    }

    pub(crate) fn file(&mut self, path: PathBuf, part: Part, bytes: u64, digest: Option<String>) -> Result<(), Error> {
        self.files += 1;
        self.bytes += bytes;
        self.push(path, Step::File { part, bytes, digest })
    }

    pub(crate) fn folder(&mut self, path: PathBuf, mtime: Option<Time>) -> Result<(), Error> {
        self.folders.retain(|(folder, _)| *folder != path);
        self.folders.extend(mtime.map(|mtime| (path.clone(), mtime)));
        self.push(path, Step::Folder)
    }

    pub(crate) fn symlink(&mut self, path: PathBuf, target: OsString, mtime: Time) -> Result<(), Error> {
        self.push(path, Step::Symlink { target, mtime })
    }

    pub(crate) fn hard_link(&mut self, path: PathBuf, to: PathBuf) -> Result<(), Error> {
        self.push(path, Step::HardLink { to })
    }

    /// Gives the times to the folders that the archive has not left.
    pub(crate) fn leave_all(&mut self) {
        while let Some((folder, mtime)) = self.folders.pop() {
            self.steps.push((folder, Step::FolderTime(mtime)));
        }
    }

    /// Syncs what waits, then names it in the archive's order, then syncs the folders.
    ///
    /// After an error, what comes after the member that failed is gone.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        let mut steps = mem::take(&mut self.steps);
        (self.files, self.bytes) = (0, 0);
        let mut files = Vec::new();
        let mut places = Vec::new();
        for (place, (path, step)) in steps.iter().enumerate() {
            if let Step::File { part, .. } = step {
                files.push(part.file().map_err(|error| self.failed(path, error.into()))?);
                places.push(place);
            }
        }
        let synced = sync(&files);
        drop(files);
        let mut outcome = Ok(());
        if let Err((i, error)) = synced {
            outcome = Err(self.failed(&steps[places[i]].0, error.into()));
            steps.truncate(places[i]);
        }
        for (path, step) in steps {
            if let Err(fault) = self.apply(&path, step) {
                outcome = Err(self.failed(&path, fault));
                break;
            }
        }
        self.sync_folders().and(outcome)
    }

    pub(crate) fn failed(&self, path: &Path, fault: Fault) -> Error {
        let member = path.to_string_lossy().into_owned();
        match fault {
            Fault::Refused(reason) => Error::Refused { file: self.archive.to_owned(), member, reason },
            Fault::Io(source) => Error::Write { file: self.archive.to_owned(), member, source },
        }
    }

    fn push(&mut self, path: PathBuf, step: Step) -> Result<(), Error> {
        self.steps.push((path, step));
        if self.steps.len() >= MOST_STEPS || self.files >= MOST_FILES || self.bytes >= MOST_BYTES {
            return self.flush();
        }
        Ok(())
    }

    fn apply(&mut self, path: &Path, step: Step) -> Result<(), Fault> {
        let (kind, size, digest) = match step {
            Step::File { part, bytes, digest } => {
                self.disk.finish(part, path)?;
                self.done.files += 1;
                self.done.bytes += bytes;
                (MemberKind::File, bytes, digest)
            }
            Step::Folder => {
                self.disk.folder(path)?;
                self.done.folders += 1;
                (MemberKind::Folder, 0, None)
            }
            Step::Symlink { target, mtime } => {
                self.disk.symlink(path, &target, mtime)?;
                self.done.links += 1;
                (MemberKind::Symlink, 0, None)
            }
            Step::HardLink { to } => {
                self.disk.hard_link(path, &to)?;
                self.done.links += 1;
                (MemberKind::HardLink, 0, None)
            }
            Step::FolderTime(mtime) => return self.disk.set_folder_time(path, mtime),
        };
        if let Some(on_member) = &self.options.on_member {
            on_member(&Member { path, kind, bytes: size, digest: digest.as_deref() });
        }
        Ok(())
    }

    fn sync_folders(&mut self) -> Result<(), Error> {
        loop {
            let folders = self.disk.take_touched(MOST_FILES).map_err(|fault| self.failed(Path::new("."), fault))?;
            if folders.is_empty() {
                return Ok(());
            }
            let folders: Vec<&File> = folders.iter().collect();
            sync(&folders).map_err(|(_, error)| self.failed(Path::new("."), error.into()))?;
        }
    }
}

/// Syncs the files. An error comes with the place of its file; all before it are synced.
fn sync(files: &[&File]) -> Result<(), (usize, io::Error)> {
    let each = files.len().div_ceil(SYNC_THREADS).max(1);
    let chunk = |(i, files): (usize, &[&File])| {
        files.iter().enumerate().try_for_each(|(j, file)| match file.sync_all() {
            // Some file systems have no sync of folders.
            Err(error) if error.kind() != io::ErrorKind::InvalidInput => Err((i * each + j, error)),
            _ => Ok(()),
        })
    };
    thread::scope(|scope| {
        let mut running = Vec::new();
        let mut errors = Vec::new();
        let mut chunks = files.chunks(each).enumerate();
        let first = chunks.next();
        for task in chunks {
            match thread::Builder::new().name("extract-sync".to_owned()).spawn_scoped(scope, move || chunk(task)) {
                Ok(handle) => running.push(handle),
                Err(_) => errors.extend(chunk(task).err()),
            }
        }
        errors.extend(first.and_then(|task| chunk(task).err()));
        let of_threads = running.into_iter().map(|handle| handle.join());
        errors.extend(
            of_threads.filter_map(|ended| ended.unwrap_or_else(|_| Err((0, io::ErrorKind::Other.into()))).err()),
        );
        errors.into_iter().min_by_key(|(i, _)| *i).map_or(Ok(()), Err)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_before_one_that_cannot_be_synced_stay() {
        let folder = tempfile::tempdir().unwrap();
        let options = ExtractOptions::default();
        for bad in [0, 3, 20, 39] {
            let target = folder.path().join(bad.to_string());
            let mut stage = Stage::new(Disk::open(&target).unwrap(), "a.tar", &options);
            for n in 0..40 {
                let mut part = stage.disk.part(0o666).unwrap();
                if n == bad {
                    part.make_unsyncable();
                }
                stage.file(PathBuf::from(format!("{n:02}")), part, 0, None).unwrap();
            }
            let error = stage.flush().unwrap_err();
            assert!(matches!(&error, Error::Write { member, .. } if *member == format!("{bad:02}")), "{error}");
            drop(stage);
            let mut names: Vec<_> = std::fs::read_dir(&target)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            assert_eq!(names, (0..bad).map(|n| format!("{n:02}")).collect::<Vec<_>>());
        }
    }
}
