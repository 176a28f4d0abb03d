use std::error::Error;
use std::io;
use std::process::ExitCode;

const FREE_SPACE: &str = "free some space, and run it again";

/// Why the program ends, as its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Incomplete = 3,
    Remote = 4,
    Disk = 5,
    Denied = 6,
    Differs = 7,
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error on its way to the user, with the exit status that it means.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) error: anyhow::Error,
}

impl Failure {
    pub(crate) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into() }
    }

    pub(crate) fn usage(what: impl std::fmt::Display) -> Self {
        Self::new(Exit::Usage, anyhow::anyhow!("{what}"))
    }

    /// A file that could not be read to its end.
    pub(crate) fn of_read(file: &str, error: io::Error) -> Self {
        let exit = fetch_error(&error).map_or(Exit::Failed, exit_of_fetch);
        Self::new(exit, anyhow::Error::from(error).context(format!("cannot read {file}")))
    }

    /// What the user can do about it, where that is known.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        self.error.chain().find_map(|cause| {
            if let Some(error) = cause.downcast_ref() {
                return hint_for_database(error);
            }
            if let Some(bulk_s3::Error::Checkpoint { source: None, .. }) = cause.downcast_ref() {
                return Some("--restart begins anew; --checkpoint FILE names another one");
            }
            if cause.downcast_ref().is_some_and(bulk_s3::Error::is_disk_full) {
                return Some(FREE_SPACE);
            }
            // What a store or a sink says comes from its database.
            if matches!(cause.downcast_ref(), Some(bulk_s3::Error::Known { .. } | bulk_s3::Error::Sink { .. })) {
                return None;
            }
            // A reader's error wraps the archive's, and passes it over in its chain.
            let wrapped = || cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref();
            if let Some(hint) = cause.downcast_ref().or_else(wrapped).and_then(hint_for_archives) {
                return Some(hint);
            }
            if let Some(error) = cause.downcast_ref::<bulk_s3::Error>() {
                return hint_for_source(error.is_denied(), error.is_remote());
            }
            match fetch_error(cause)? {
                error if error.is_disk_full() => Some(FREE_SPACE),
                bulk_core::Error::Io { .. } => None,
                error => hint_for_source(error.is_denied(), error.is_remote()),
            }
        })
    }

    /// Whether the database cannot be reached or used, so that nothing else can be loaded either.
    pub(crate) fn is_of_database(&self) -> bool {
        let is_fetch = self.error.chain().any(|cause| fetch_error(cause).is_some());
        !is_fetch && matches!(self.exit, Exit::Remote | Exit::Denied)
    }

    /// Whether it is no failure, but the answer to a stop.
    pub(crate) fn is_stop(&self) -> bool {
        self.exit == Exit::Interrupted
    }
}

/// The exit status of work on several items of which each may fail for itself.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    is_any_done: bool,
    is_disk_full: bool,
    worst: Option<Exit>,
}

impl Tally {
    pub(crate) fn done(&mut self) {
        self.is_any_done = true;
    }

    pub(crate) fn failed(&mut self, failure: &Failure) {
        self.is_disk_full |= failure.exit == Exit::Disk;
        self.worst = self.worst.max(Some(failure.exit));
    }

    /// Where all failed it says why; where some did, that the whole is incomplete. A full disk is the cause of whatever
    /// else failed.
    pub(crate) fn exit(&self) -> Exit {
        match self.worst {
            None => Exit::Done,
            Some(_) if self.is_disk_full => Exit::Disk,
            Some(_) if self.is_any_done => Exit::Incomplete,
            Some(exit) => exit,
        }
    }
}

impl From<bulk_core::Error> for Failure {
    fn from(error: bulk_core::Error) -> Self {
        Self::new(exit_of_fetch(&error), error)
    }
}

impl From<bulk_s3::Error> for Failure {
    fn from(error: bulk_s3::Error) -> Self {
        let of_database = std::error::Error::source(&error).and_then(|source| source.downcast_ref());
        let exit = match &error {
            bulk_s3::Error::Bucket { .. } | bulk_s3::Error::Checkpoint { source: None, .. } => Exit::Usage,
            _ if matches!(of_database, Some(bulk_pg::Error::Url { .. })) => Exit::Usage,
            bulk_s3::Error::Request(error) => exit_of_fetch(error),
            error if error.is_disk_full() => Exit::Disk,
            error => exit_of(error.is_denied(), error.is_remote()),
        };
        Self::new(exit, error)
    }
}

impl From<bulk_pg::Error> for Failure {
    fn from(error: bulk_pg::Error) -> Self {
        let exit = match (&error, fetch_error(&error)) {
            (bulk_pg::Error::Stopped { .. }, _) => Exit::Interrupted,
            (bulk_pg::Error::Url { .. }, _) => Exit::Usage,
            (_, Some(error)) => exit_of_fetch(error),
            _ => exit_of(error.is_denied(), error.is_remote()),
        };
        Self::new(exit, error)
    }
}

impl From<bulk_archive::Error> for Failure {
    fn from(error: bulk_archive::Error) -> Self {
        let exit = match &error {
            bulk_archive::Error::Stopped => Exit::Interrupted,
            _ if error.is_disk_full() => Exit::Disk,
            _ => Exit::Failed,
        };
        Self::new(exit, error)
    }
}

pub(crate) fn exit_of_fetch(error: &bulk_core::Error) -> Exit {
    match error {
        bulk_core::Error::Interrupted { .. } => Exit::Interrupted,
        bulk_core::Error::Unexpected { .. } => Exit::Differs,
        error if error.is_disk_full() => Exit::Disk,
        error => exit_of(error.is_denied(), error.is_remote()),
    }
}

/// What ended the arrival of a file, if that is what an error comes from.
pub(crate) fn fetch_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a bulk_core::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An I/O error that wraps another one passes it over in its chain.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map(|error| error as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}

fn exit_of(is_denied: bool, is_remote: bool) -> Exit {
    match (is_denied, is_remote) {
        (true, _) => Exit::Denied,
        (false, true) => Exit::Remote,
        (false, false) => Exit::Failed,
    }
}

fn hint_for_database(error: &bulk_pg::Error) -> Option<&'static str> {
    if matches!(error, bulk_pg::Error::NoTable { .. }) {
        return Some(
            "create it first: bulk load --create-table makes it for its files, bulk mirror as the schema file says",
        );
    }
    let bulk_pg::Error::Connect { source, .. } = error else {
        return error.is_denied().then_some("ask for the privilege; bulk doctor --db URL says what is wanted");
    };
    match source.code().map(|code| code.code()) {
        Some("3D000") => Some("create the database first, such as by createdb"),
        Some(code) if code.starts_with("28") => Some("check the user and the password in --db, or BULK_DB"),
        None if error.is_remote() => Some("check host and port in --db, or BULK_DB, and that the server runs"),
        _ => None,
    }
}

fn hint_for_archives(error: &bulk_archive::Error) -> Option<&'static str> {
    match error {
        bulk_archive::Error::RosterMissing { .. }
        | bulk_archive::Error::Index { .. }
        | bulk_archive::Error::IndexMismatch { .. } => Some("bulk export --rebuild-index --out DIR makes it anew"),
        bulk_archive::Error::Missing { .. } => Some(
            "put it back, or have it made anew of the rows by bulk export SPEC --full; bulk export --rebuild-index --out DIR does \
             without it, and the next run then reads all rows",
        ),
        bulk_archive::Error::Damaged { .. } => Some(
            "put it back from a copy, or have it made anew of the rows by bulk export SPEC --full; where there are none, remove it, \
             run bulk export --rebuild-index --out DIR, and give its items again",
        ),
        bulk_archive::Error::LimitExceeded { limit: bulk_archive::Limit::Ratio(_), .. } => {
            Some("--max-ratio N allows more, of a file that you trust")
        }
        bulk_archive::Error::Column { .. } => {
            Some("give the column another type in the spec's parquet-columns, or unfit = \"null\"")
        }
        bulk_archive::Error::Locked { .. } => Some("wait for it, or stop it"),
        bulk_archive::Error::Io { source, .. }
            if source.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) =>
        {
            Some(
                "the disk does not give it back: put the file back from a copy; one of a set of archives is made anew of the rows by \
                 bulk export SPEC --full once it is removed",
            )
        }
        _ => None,
    }
}

fn hint_for_source(is_denied: bool, is_remote: bool) -> Option<&'static str> {
    match (is_denied, is_remote) {
        (true, _) => Some("check the credentials; a public bucket wants --anonymous"),
        (false, true) => Some("check the network, and --endpoint if it was given, and run it again"),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_disk_does_not_give_back_has_a_way_out() {
        let of = |errno: rustix::io::Errno| {
            let source = io::Error::from_raw_os_error(errno.raw_os_error());
            let error = bulk_archive::Error::Io { file: "a.tar.gz".to_owned(), offset: None, source };
            Failure::new(Exit::Failed, anyhow::Error::from(error)).hint()
        };
        assert!(of(rustix::io::Errno::IO).unwrap().contains("--full once it is removed"));
        assert_eq!(of(rustix::io::Errno::ACCESS), None);
    }
}
