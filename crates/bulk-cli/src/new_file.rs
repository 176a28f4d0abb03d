use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A file that gets its name when it is whole, and then takes the place of what had it. Dropped before that, it leaves what was
/// there.
pub(crate) struct NewFile {
    path: PathBuf,
    part: NamedTempFile,
}

impl NewFile {
    /// Makes it beside its name, so that a folder of no use is found before the work and not after it.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        // Such as any other file gets: the process's mask applies.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let part = builder.prefix(".bulk-part-").tempfile_in(folder)?;
        Ok(Self { path: path.to_owned(), part })
    }

    /// Writes all of a file.
    pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = Self::create(path)?;
        file.part.write_all(bytes)?;
        file.keep()
    }

    /// What is written to.
    pub(crate) fn handle(&self) -> io::Result<File> {
        self.part.reopen()
    }

    pub(crate) fn keep(self) -> io::Result<()> {
        self.part.as_file().sync_all()?;
        self.part.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }
}
