use std::{io, path::PathBuf};

/// Why the server could not start, or could not change what it serves.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No port, thread or runtime could be had.
    #[error("cannot start the S3 server on loopback")]
    Start(#[source] io::Error),
    /// The folder of a bucket is missing or is no folder.
    #[error("cannot serve the folder {}", path.display())]
    Folder {
        /// The folder that was asked for.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// The server has no bucket of this name.
    #[error("no such bucket: {bucket}")]
    NoSuchBucket {
        /// The name that was asked for.
        bucket: String,
    },
    /// An object of a folder could not be read or written.
    #[error("cannot access the object {key:?}")]
    Object {
        /// The key of the object.
        key: String,
        /// What the file system said.
        source: io::Error,
    },
}
