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
            _ => false,
        }
    }

    /// Whether credentials or permissions are to blame.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Request(error) => error.is_denied(),
            Self::Credentials { .. } => true,
            _ => false,
        }
    }
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
