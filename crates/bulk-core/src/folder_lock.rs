use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Error;
use crate::part::STATE_FOLDER;

/// How long a folder that is in use is waited for: the tasks of a download that ended just now may still hold it.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// Keeps a second run out of a folder, also one of another process.
///
/// A drop ends it, and so does the system when the process ends, however that comes about. Where the file system has no
/// locks (some network file systems), and on systems other than Unix, it keeps nobody out.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Locks a folder (`flock(2)`), which is made if need be; gives `None` if somebody else has it. It does not wait.
    ///
    /// # Errors
    ///
    /// If the folder cannot be made, opened or locked.
    pub fn try_acquire(folder: &Path) -> io::Result<Option<Self>> {
        fs::create_dir_all(folder)?;
        let file = File::open(folder)?;
        Ok(try_lock(&file)?.then_some(Self { _file: file }))
    }

    /// Keeps downloads out of a staging folder. While one is under way, or its tasks and readers end, it waits, up to five
    /// seconds, and blocks its thread.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] if they do not end, and [`Error::Io`].
    pub fn of_staging(folder: &Path) -> Result<Self, Error> {
        let state = folder.join(STATE_FOLDER);
        let begun = Instant::now();
        loop {
            if let Some(lock) = Self::try_acquire(&state).map_err(|error| Error::io("lock", &state, error))? {
                return Ok(lock);
            }
            if begun.elapsed() >= PATIENCE {
                return Err(Error::Locked { folder: folder.to_owned() });
            }
            std::thread::sleep(POLL);
        }
    }
}

#[cfg(unix)]
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    use rustix::fs::{FlockOperation, flock};
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        // A file system without locks does not keep anybody out.
        Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOLCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(unix))]
pub(crate) fn try_lock(_: &File) -> io::Result<bool> {
    Ok(true)
}
