use std::fs::File;
use std::io;
use std::path::Path;

/// Waits until the names in a folder are on the disk. Some file systems, and Windows, do not sync folders.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.or_else(|error| match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => Ok(()),
        io::ErrorKind::PermissionDenied if cfg!(windows) => Ok(()),
        _ => Err(error),
    })
}
