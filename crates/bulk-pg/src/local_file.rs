//! The identity of a file on this machine.

use std::io;
use std::path::Path;

use jiff::Timestamp;

use crate::FileIdentity;

impl FileIdentity {
    /// Of a local file: its absolute path, its time of change, and its size. As long as these are the same, so is the
    /// file.
    ///
    /// # Errors
    ///
    /// Of a file that is not there, or may not be looked at.
    pub fn of_file(path: impl AsRef<Path>) -> io::Result<Self> {
        let metadata = std::fs::metadata(&path)?;
        let absolute = std::path::absolute(&path)?;
        let modified = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
        Ok(Self::new(absolute.to_string_lossy(), modified.map(|time| time.to_string()), metadata.len()))
    }
}
