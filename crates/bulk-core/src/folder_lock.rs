use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Error;
use crate::part::STATE_FOLDER;

/// How long a folder that is in use is waited for: the tasks of a download that ended just now may still hold it.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// Keeps a second download out of a staging folder, also one of another process. The system ends it with the process.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Locks the subfolder `.bulk` of a folder, which is made if need be. It blocks.
    pub(crate) fn acquire(folder: &Path) -> Result<Self, Error> {
        let state = folder.join(STATE_FOLDER);
        fs::create_dir_all(&state).map_err(|error| Error::io("create", &state, error))?;
        let file = File::open(&state).map_err(|error| Error::io("open", &state, error))?;
        let begun = Instant::now();
        while !try_lock(&file).map_err(|error| Error::io("lock", &state, error))? {
            if begun.elapsed() >= PATIENCE {
                return Err(Error::Locked { folder: folder.to_owned() });
            }
            std::thread::sleep(POLL);
        }
        Ok(Self { _file: file })
    }
}

#[cfg(unix)]
fn try_lock(file: &File) -> std::io::Result<bool> {
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
fn try_lock(_: &File) -> std::io::Result<bool> {
    Ok(true)
}
