//! The bytes of a PUT on their way into a store.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// A file of this name is an upload under way, and no object.
const UNFINISHED: &str = ".s3-upload-";

pub(super) fn is_unfinished(name: &str) -> bool {
    name.starts_with(UNFINISHED)
}

/// Appears under its key only when it is finished; dropped before, it leaves nothing behind.
#[derive(Debug)]
pub(super) enum Upload {
    Memory(Vec<u8>),
    File { part: NamedTempFile, path: PathBuf },
}

impl Upload {
    pub(super) fn memory() -> Self {
        Self::Memory(Vec::new())
    }

    pub(super) fn file(path: PathBuf) -> io::Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let part = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
        Ok(Self::File { part, path })
    }

    /// Gives a file its name. There is no fsync: what a test wrote need not survive a power cut.
    pub(super) fn persist(self) -> io::Result<()> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::File { part, path } => part.persist(path).map(drop).map_err(|error| error.error),
        }
    }
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Memory(buffer) => buffer.write(bytes),
            Self::File { part, .. } => part.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
