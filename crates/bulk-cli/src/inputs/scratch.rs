use std::io;
use std::path::{Path, PathBuf};

use bulk_core::FolderLock;
use tempfile::TempDir;

/// How the names of such folders begin.
const PREFIX: &str = "bulk-load-";
/// What a download makes in its folder, and so what one that was killed leaves.
const STATE: &str = ".bulk";

/// A folder among the system's temporary ones, for what arrives and is not kept. It goes with this value; what a program
/// that was killed has left is removed by the next one.
pub(super) struct Scratch {
    folder: TempDir,
    /// Tells the others that it is in use.
    _lock: Option<FolderLock>,
}

impl Scratch {
    pub(super) fn create() -> io::Result<Self> {
        sweep(&std::env::temp_dir());
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
        let lock = FolderLock::try_acquire(folder.path())?;
        Ok(Self { folder, _lock: lock })
    }

    /// A folder in it, which is made when it is used.
    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Removes what nobody uses any more. One that is new, and not locked yet, has nothing in it.
fn sweep(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let path = entry.path();
        // A link is none of ours; neither is another user's folder, which cannot be removed.
        if is_ours
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
            && has_state(&path)
            && let Ok(Some(_lock)) = FolderLock::try_acquire(&path)
        {
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}

/// Whether a download has been in one of its folders.
fn has_state(scratch: &Path) -> bool {
    let Ok(folders) = std::fs::read_dir(scratch) else { return false };
    folders.flatten().any(|folder| folder.path().join(STATE).is_dir())
}
