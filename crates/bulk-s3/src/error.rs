/// What can go wrong with a bucket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A request failed.
    #[error(transparent)]
    Request(#[from] bulk_core::Error),
    /// The server's answer to a listing is no listing, or contradicts itself.
    #[error("the listing of {location} is unusable: {what}")]
    Listing {
        /// Bucket and prefix.
        location: String,
        /// What is wrong with it.
        what: String,
    },
    /// The bucket cannot be addressed as asked.
    #[error("bucket {bucket:?}: {what}")]
    Bucket {
        /// Its name.
        bucket: String,
        /// What is wrong.
        what: String,
    },
    /// No credentials were found, or they could not be used.
    #[error(
        "no usable credentials for bucket {bucket:?}: {what} (a public bucket needs none: ask for anonymous access)"
    )]
    Credentials {
        /// The bucket.
        bucket: String,
        /// What the lookup says.
        what: String,
    },
    /// A store of known objects cannot be read or written.
    #[error("known objects in {store}: {what}")]
    Known {
        /// Its [`identity`](crate::KnownObjects::identity).
        store: String,
        /// What could not be done, and why if nothing stands behind it.
        what: String,
        /// What its driver says.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A checkpoint cannot be used.
    #[error("the checkpoint {}: {what}", path.display())]
    Checkpoint {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        what: String,
        /// What the system says.
        source: Option<std::io::Error>,
    },
    /// Pages that came early cannot be kept on disk.
    #[error("cannot keep pages of the listing in {}", folder.display())]
    Spool {
        /// The folder for temporary files.
        folder: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Listing or store are not sorted as they must be.
    #[error(transparent)]
    OutOfOrder(#[from] crate::OutOfOrder),
    /// A store of known objects cannot hold this one; nothing was changed. Without it the others can be.
    #[error("known objects in {store}: {key:?} cannot be kept: {what}")]
    Unfit {
        /// The store's [`identity`](crate::KnownObjects::identity).
        store: String,
        /// The object's key.
        key: String,
        /// Why.
        what: String,
    },
    /// A sink cannot be used, or failed for another reason than the objects that it was given.
    #[error("{sink}: {what}")]
    Sink {
        /// Its [`identity`](crate::Sink::identity).
        sink: String,
        /// What could not be done, and why if nothing stands behind it.
        what: String,
        /// What its driver or the system says.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A file of objects cannot be used.
    #[error("{file}{}: {what}", place(*row, *byte))]
    Table {
        /// Its name.
        file: String,
        /// The row to blame, from 1, without the header.
        row: Option<u64>,
        /// Where the row begins, or what is wrong within it, in bytes of the file, or of what a compressed file
        /// decompresses to; none in a Parquet file, whose rows do not stand together.
        byte: Option<u64>,
        /// What is wrong.
        what: String,
        /// What the reader or the writer says.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A file cannot be uploaded as it is.
    #[error("cannot upload {}: {what}", path.display())]
    Upload {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        what: String,
        /// What the system says.
        source: Option<std::io::Error>,
    },
    /// No date has everything that is wanted.
    #[error("{}", no_snapshot(.passed_over))]
    NoSnapshot {
        /// Every date seen, newest first, with what it lacks.
        passed_over: Vec<crate::PassedOver>,
    },
}

impl Error {
    /// Whether the remote end is to blame and a later run may do better.
    pub fn is_remote(&self) -> bool {
        match self {
            Self::Request(error) => error.is_remote(),
            Self::Listing { .. } => true,
            #[cfg(feature = "postgres")]
            Self::Known { source, .. } | Self::Sink { source, .. } => {
                database(source).is_some_and(|(is_remote, _)| is_remote)
            }
            _ => false,
        }
    }

    /// Whether credentials or permissions are to blame.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Request(error) => error.is_denied(),
            Self::Credentials { .. } => true,
            #[cfg(feature = "postgres")]
            Self::Known { source, .. } | Self::Sink { source, .. } => {
                database(source).is_some_and(|(_, is_denied)| is_denied)
            }
            _ => false,
        }
    }

    /// Whether a disk of this machine, or a quota, is full.
    pub fn is_disk_full(&self) -> bool {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            if says_disk_full(error) {
                return true;
            }
            // An I/O error that wraps another one passes it over in its chain, and so does one of ours that is transparent.
            let wrapped = match (error.downcast_ref::<std::io::Error>(), error.downcast_ref::<Self>()) {
                (Some(error), _) => error.get_ref().map(|error| error as &(dyn std::error::Error + 'static)),
                (None, Some(Self::Request(error))) => Some(error as &(dyn std::error::Error + 'static)),
                _ => None,
            };
            next = wrapped.or_else(|| error.source());
        }
        false
    }
}

fn says_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind;
    #[cfg(feature = "sqlite")]
    if let Some(rusqlite::Error::SqliteFailure(failure, _)) = error.downcast_ref() {
        return failure.code == rusqlite::ErrorCode::DiskFull;
    }
    if let Some(error) = error.downcast_ref::<bulk_core::Error>() {
        return error.is_disk_full();
    }
    let kind = error.downcast_ref().map(std::io::Error::kind);
    matches!(kind, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
}

/// What bulk-pg says of an error of its own: whether it is remote, and whether access is denied.
#[cfg(feature = "postgres")]
fn database(source: &Option<Box<dyn std::error::Error + Send + Sync>>) -> Option<(bool, bool)> {
    let source = source.as_deref()?;
    if let Some(error) = source.downcast_ref::<bulk_pg::Error>() {
        return Some((error.is_remote(), error.is_denied()));
    }
    source.downcast_ref::<bulk_pg::Cause>().map(|cause| (cause.is_remote(), cause.is_denied()))
}

fn place(row: Option<u64>, byte: Option<u64>) -> String {
    let row = row.map(|row| format!(", row {row}")).unwrap_or_default();
    let byte = byte.map(|byte| format!(", byte {byte}")).unwrap_or_default();
    row + &byte
}

fn no_snapshot(passed_over: &[crate::PassedOver]) -> String {
    const SHOWN: usize = 3;
    if passed_over.is_empty() {
        return "no snapshot: nothing in the listing is named <base>-YYYY-MM-DD.csv[.bz2]".to_owned();
    }
    let mut text = "no snapshot is complete: ".to_owned();
    let shown: Vec<_> = passed_over.iter().take(SHOWN).map(ToString::to_string).collect();
    text.push_str(&shown.join("; "));
    if let Some(more @ 1..) = passed_over.len().checked_sub(SHOWN) {
        text.push_str(&format!("; and {more} older"));
    }
    text
}
