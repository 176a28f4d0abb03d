//! The folder below which all is written.
//!
//! Each part of a path is opened from the folder above it and never through a symbolic link, so that no link, whoever
//! makes it and when, leads a name out of the folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, flock, fstat,
        futimens, linkat, mkdirat, openat, renameat, statat, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};

use super::number::Time;
use crate::Refusal;

/// The folder of unfinished files, below the target.
pub(crate) const PARTS: &str = ".bulk-extract";

/// The end of the name of an unfinished file. Before it come the run's name and a number.
const PART: &str = ".part";

/// The end of the name of the file that a run holds locked as long as it lives.
const RUN: &str = ".run";

/// How often a run tries to get its place, which others' removal of leftovers can spoil.
const TRIES: usize = 1000;

/// How files that must not exist are opened.
const CREATE: OFlags =
    OFlags::CREATE.union(OFlags::EXCL).union(OFlags::RDWR).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Why something was not made.
#[derive(Debug)]
pub(crate) enum Fault {
    Refused(Refusal),
    Io(io::Error),
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        Fault::Refused(refusal)
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Fault {
        Fault::Io(errno.into())
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Io(error)
    }
}

/// The target folder. All paths are relative to it and consist of ordinary names.
///
/// Dropped, it removes the folder of unfinished files where that is empty.
pub(crate) struct Disk {
    root: OwnedFd,
    run: Option<Run>,
    /// The folder that was asked for last.
    last: Option<(PathBuf, OwnedFd)>,
    /// The folders in which names were made since they were last synced.
    touched: BTreeSet<PathBuf>,
}

impl Disk {
    /// Opens the folder, which is made where it does not exist. It may be a symbolic link itself.
    pub(crate) fn open(target: &Path) -> io::Result<Disk> {
        // A relative path has an empty one above it, which is where it is.
        let at = |folder: &Path| if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() };
        let made = target.ancestors().take_while(|folder| !at(folder).exists()).count();
        fs::create_dir_all(target)?;
        for above in target.ancestors().skip(1).take(made) {
            match File::open(at(above)).and_then(|folder| folder.sync_all()) {
                // Some file systems have no sync of folders.
                Err(error) if error.kind() != io::ErrorKind::InvalidInput => return Err(error),
                _ => {}
            }
        }
        Ok(Disk { root: open_root(target)?, run: None, last: None, touched: BTreeSet::new() })
    }

    /// Removes what runs that were killed have left of unfinished files. Says how many bytes they had.
    pub(crate) fn remove_leftovers(&mut self) -> Result<u64, Fault> {
        let parts = match open_folder(&self.root, OsStr::new(PARTS)) {
            Ok(parts) => parts,
            Err(Errno::NOENT) => return Ok(0),
            Err(errno) => return Err(obstacle(&self.root, OsStr::new(PARTS), errno)),
        };
        let mut parts_of: BTreeMap<OsString, Vec<OsString>> = BTreeMap::new();
        for entry in Dir::read_from(&parts)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if let Some(run) = name.strip_suffix(RUN.as_bytes()) {
                parts_of.entry(OsStr::from_bytes(run).to_owned()).or_default();
            } else if let Some(part) = name.strip_suffix(PART.as_bytes()) {
                let end = part.iter().rposition(|&byte| byte == b'.').unwrap_or(part.len());
                let run = OsStr::from_bytes(&part[..end]).to_owned();
                parts_of.entry(run).or_default().push(OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(parts_of.into_iter().map(|(run, names)| remove_leftovers_of(&parts, &run, &names)).sum())
    }

    /// An unfinished file. Its mode is `mode` as the umask allows.
    pub(crate) fn part(&mut self, mode: u32) -> Result<Part, Fault> {
        let run = self.run()?;
        let name = run.next_name();
        let file = openat(&run.parts, &name, CREATE, Mode::from_raw_mode(mode as _))?;
        Ok(Part { parts: Arc::clone(&run.parts), name, file: Some(File::from(file)) })
    }

    /// Gives an unfinished file its name, in place of the file or link that has it.
    pub(crate) fn finish(&mut self, part: Part, path: &Path) -> Result<(), Fault> {
        self.rename(&part, path)
    }

    /// Makes a symbolic link, in place of the file or link that has its name.
    pub(crate) fn symlink(&mut self, path: &Path, target: &OsStr, mtime: Time) -> Result<(), Fault> {
        self.link(path, |parts, name| {
            symlinkat(target, parts, name)?;
            utimensat(parts, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
        })
    }

    /// Makes a hard link to the file `to`, in place of the file or link that has its name.
    pub(crate) fn hard_link(&mut self, path: &Path, to: &Path) -> Result<(), Fault> {
        let (to_parent, to_name) = split(to)?;
        let from = match self.existing(to_parent)? {
            Some(from) => from,
            None => return Err(Refusal::LinkMissing.into()),
        };
        let mut special = false;
        let linked = self.link(path, |parts, name| {
            linkat(&from, to_name, parts, name, AtFlags::empty())?;
            let kind = FileType::from_raw_mode(statat(parts, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
            special = kind != FileType::RegularFile;
            if special {
                unlinkat(parts, name, AtFlags::empty())?;
                return Err(Errno::PERM);
            }
            Ok(())
        });
        match linked {
            Err(_) if special => Err(Refusal::LinkToSpecial.into()),
            Err(Fault::Io(error)) => match statat(&from, to_name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => Err(Refusal::LinkMissing.into()),
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile => {
                    Err(Refusal::LinkToSpecial.into())
                }
                _ => Err(Fault::Io(error)),
            },
            other => other,
        }
    }

    /// Makes a folder and those above it, as far as they do not exist.
    pub(crate) fn folder(&mut self, path: &Path) -> Result<BorrowedFd<'_>, Fault> {
        if path.as_os_str().is_empty() {
            return Ok(self.root.as_fd());
        }
        let (mut done, mut at) = match self.last.take() {
            Some((done, fd)) if path.starts_with(&done) => (done, Some(fd)),
            _ => (PathBuf::new(), None),
        };
        let rest: Vec<_> = path.strip_prefix(&done).unwrap_or(path).iter().map(OsStr::to_owned).collect();
        for name in rest {
            let folder = at.as_ref().unwrap_or(&self.root);
            let next = match open_folder(folder, &name) {
                Err(Errno::NOENT) => {
                    match mkdirat(folder, &name, Mode::from_raw_mode(0o777)) {
                        Ok(()) => {
                            self.touched.insert(done.clone());
                        }
                        Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                    open_folder(folder, &name)
                }
                other => other,
            };
            at = Some(next.map_err(|errno| obstacle(folder, &name, errno))?);
            done.push(name);
        }
        match at {
            Some(fd) => Ok(self.last.insert((done, fd)).1.as_fd()),
            None => Ok(self.root.as_fd()),
        }
    }

    /// Sets when a folder was last changed.
    pub(crate) fn set_folder_time(&mut self, path: &Path, mtime: Time) -> Result<(), Fault> {
        Ok(futimens(self.folder(path)?, &times(mtime))?)
    }

    /// The folders in which names were made since the last call, opened, at most `most` of them; none at the end.
    pub(crate) fn take_touched(&mut self, most: usize) -> Result<Vec<File>, Fault> {
        let mut folders = Vec::new();
        while folders.len() < most {
            let Some(path) = self.touched.pop_first() else { break };
            folders.extend(self.existing(&path)?.map(File::from));
        }
        Ok(folders)
    }

    /// Opens a folder if it is there.
    fn existing(&self, path: &Path) -> Result<Option<OwnedFd>, Fault> {
        let mut at = open_folder(&self.root, OsStr::new("."))?;
        for name in path {
            at = match open_folder(&at, name) {
                Ok(next) => next,
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(obstacle(&at, name, errno)),
            };
        }
        Ok(Some(at))
    }

    /// Makes a link as an unfinished one and gives it its name.
    fn link(&mut self, path: &Path, make: impl FnOnce(&OwnedFd, &str) -> Result<(), Errno>) -> Result<(), Fault> {
        let run = self.run()?;
        let name = run.next_name();
        make(&run.parts, &name)?;
        let part = Part { parts: Arc::clone(&run.parts), name, file: None };
        self.rename(&part, path)
    }

    /// This run's place among the unfinished files.
    fn run(&mut self) -> Result<&mut Run, Fault> {
        let run = match self.run.take() {
            Some(run) => run,
            None => Run::begin(&self.root)?,
        };
        Ok(self.run.insert(run))
    }

    fn rename(&mut self, part: &Part, path: &Path) -> Result<(), Fault> {
        let (above, name) = split(path)?;
        let parent = self.folder(above)?;
        if let Err(errno) = renameat(&part.parts, &part.name, parent, name) {
            return match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                    Err(Refusal::FolderInTheWay.into())
                }
                _ => Err(errno.into()),
            };
        }
        self.touched.insert(above.to_owned());
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.run = None;
        // Others may have files in it, and then it stays.
        let _ = unlinkat(&self.root, PARTS, AtFlags::REMOVEDIR);
    }
}

/// What marks unfinished files as those of a run that lives: a file that it holds locked.
struct Run {
    parts: Arc<OwnedFd>,
    name: String,
    count: u64,
    _lock: OwnedFd,
}

impl Run {
    fn begin(root: &OwnedFd) -> Result<Run, Fault> {
        let folder = OsStr::new(PARTS);
        for _ in 0..TRIES {
            match mkdirat(root, folder, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            // Until there is a file in it, another run may remove the folder.
            let parts = match open_folder(root, folder) {
                Err(Errno::NOENT) => continue,
                other => other.map_err(|errno| obstacle(root, folder, errno))?,
            };
            let name = run_name();
            let lock = match openat(&parts, format!("{name}{RUN}"), CREATE, Mode::from_raw_mode(0o666)) {
                Err(Errno::NOENT | Errno::EXIST) => continue,
                other => other?,
            };
            // Until it is locked, another run takes it for a leftover. Where the file system has no locks, there is no
            // such run.
            let locked = flock(&lock, FlockOperation::NonBlockingLockExclusive);
            if locked != Err(Errno::WOULDBLOCK) && fstat(&lock)?.st_nlink > 0 {
                return Ok(Run { parts: Arc::new(parts), name, count: 0, _lock: lock });
            }
        }
        Err(Errno::AGAIN.into())
    }

    fn next_name(&mut self) -> String {
        self.count += 1;
        format!("{}.{}{PART}", self.name, self.count)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = unlinkat(&self.parts, format!("{}{RUN}", self.name), AtFlags::empty());
    }
}

/// An unfinished file or link. Dropped, it is removed, unless it has got its name.
pub(crate) struct Part {
    parts: Arc<OwnedFd>,
    name: String,
    file: Option<File>,
}

impl Part {
    pub(crate) fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// Sets when the file was last changed. To be called after it was written.
    pub(crate) fn set_mtime(&self, mtime: Time) -> io::Result<()> {
        Ok(futimens(self.file()?, &times(mtime))?)
    }
}

#[cfg(test)]
impl Part {
    /// Puts in the file's place a handle without access to it, which fsync(2) refuses.
    pub(crate) fn make_unsyncable(&mut self) {
        let handle = openat(&self.parts, &self.name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        self.file = Some(File::from(handle));
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After the rename it is gone, but for a link to the file that had the name before, which the rename leaves.
        let _ = unlinkat(&self.parts, &self.name, AtFlags::empty());
    }
}

/// Removes the unfinished files of a run that no longer lives, and says how many bytes they had on disk. What cannot be
/// removed stays for the run that comes next.
fn remove_leftovers_of(parts: &OwnedFd, run: &OsStr, names: &[OsString]) -> u64 {
    let mut run = run.to_owned();
    run.push(RUN);
    // The lock is held until the last is removed: whoever gets it then sees that the file has no name any more.
    let lock = match openat(parts, &run, OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(lock) if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() => Some(lock),
        // It ended meanwhile, or something else removed the file: a run has it before and after all others.
        Err(Errno::NOENT) => None,
        Ok(_) | Err(_) => return 0,
    };
    let mut bytes = 0u64;
    for name in names {
        let stat = statat(parts, name, AtFlags::SYMLINK_NOFOLLOW);
        if unlinkat(parts, name, AtFlags::empty()).is_ok() {
            // Another name of a file keeps its bytes.
            let freed = stat.ok().filter(|stat| stat.st_nlink == 1).map_or(0, |stat| stat.st_blocks as u64 * 512);
            bytes = bytes.saturating_add(freed);
        }
    }
    if lock.is_some() {
        let _ = unlinkat(parts, &run, AtFlags::empty());
    }
    bytes
}

fn open_root(target: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, target, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn open_folder(above: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(above, name, flags, Mode::empty())
}

/// What is in the way of a folder.
fn obstacle(above: &OwnedFd, name: &OsStr, errno: Errno) -> Fault {
    match statat(above, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Ok(FileType::Symlink) => Refusal::ThroughLink.into(),
        Ok(FileType::Directory) | Err(_) => errno.into(),
        Ok(_) => Refusal::FileInTheWay.into(),
    }
}

/// The folder of a path and the name in it.
fn split(path: &Path) -> Result<(&Path, &OsStr), Refusal> {
    path.parent().zip(path.file_name()).ok_or(Refusal::TargetItself)
}

/// A name that no run has used, nor will: another's removal of leftovers may come late.
fn run_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{}-{count}-{now}", process::id())
}

/// The time of the last access is left alone.
fn times(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
        last_modification: Timespec { tv_sec: mtime.seconds as _, tv_nsec: mtime.nanoseconds as _ },
    }
}

/// Removes leftovers of a folder that need not exist.
pub(crate) fn remove_leftovers(target: &Path) -> Result<u64, Fault> {
    let root = match open_root(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    Disk { root, run: None, last: None, touched: BTreeSet::new() }.remove_leftovers()
}
