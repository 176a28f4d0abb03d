//! The identity of a file on this machine.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::FileIdentity;

/// Bytes that are hashed at a time.
const READ: usize = 256 * 1024;

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

    /// Of a local file, which is read for it: its absolute path, its size, and the SHA-256 of its bytes as they are stored,
    /// so that a file which was only touched is the same, and one that was changed is not, whatever its time says.
    ///
    /// # Errors
    ///
    /// Of a file that is not there, or cannot be read.
    pub fn of_content(path: impl AsRef<Path>) -> io::Result<Self> {
        let absolute = std::path::absolute(&path)?;
        let mut file = File::open(&path)?;
        let mut digest = Sha256::new();
        let (mut size, mut buffer) = (0, vec![0; READ]);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    digest.update(&buffer[..read]);
                    size += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let hex: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self::new(absolute.to_string_lossy(), Some(format!("sha256:{hex}")), size))
    }
}
