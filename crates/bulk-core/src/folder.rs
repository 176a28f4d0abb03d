use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// Opens a file of ours in a folder that others may write to. A link in its place, which would lead what is written to some
/// other file, is an error. Links before its last name are followed: a folder may well be one.
pub(crate) fn open_own(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    options.open(path)
}

/// Waits until the names in a folder are on the disk. Some file systems, and Windows, do not sync folders.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.or_else(|error| match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => Ok(()),
        io::ErrorKind::PermissionDenied if cfg!(windows) => Ok(()),
        _ => Err(error),
    })
}
