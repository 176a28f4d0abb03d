use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulk_core::{FolderLock, Resource};
use bulk_pg::{Session, TableName, lock_table};
use bulk_s3::{BodyType, FolderSink, LinesSink, Sink, TableOptions, TableSink};

use crate::arguments::{StoreArguments, TargetArguments};
use crate::exit::Failure;
use crate::store::{Place, Store};

/// Where objects go.
pub(crate) enum Target<'a> {
    Folder(&'a Path),
    Table { name: &'a TableName, url: &'a str },
    Stdout,
}

impl<'a> Target<'a> {
    /// What the flags name.
    pub(crate) fn of(arguments: &'a TargetArguments, is_json: bool) -> Result<Self, Failure> {
        if let (Some(column), BodyType::Bytea | BodyType::Text) = (arguments.column.first(), arguments.body) {
            let (name, body) = (&column.name, arguments.body);
            return Err(Failure::usage(format!("--column {name:#} is taken from JSON, and --body is {body}")));
        }
        match (&arguments.out, &arguments.table, arguments.stdout) {
            (Some(folder), _, _) => Ok(Self::Folder(folder)),
            (None, Some(name), _) => Ok(Self::Table { name, url: arguments.database.url()? }),
            (None, None, true) if is_json => {
                Err(Failure::usage("--json has standard output for its events: --stdout is for the objects"))
            }
            (None, None, true) => Ok(Self::Stdout),
            (None, None, false) => Err(Failure::usage(
                "where objects go is not said: give --out DIR, --table TABLE with --db, or --stdout",
            )),
        }
    }

    /// What whoever stores there waits for.
    pub(crate) fn resource(&self) -> Resource {
        match self {
            Self::Folder(_) => Resource::Disk,
            Self::Table { .. } | Self::Stdout => Resource::Server,
        }
    }

    /// The store that the flags name, else the one that goes with the target.
    pub(crate) fn place_of_store(&self, arguments: &StoreArguments) -> Result<Place, Failure> {
        if let Some(given) = Place::given(arguments)? {
            return Ok(given);
        }
        match self {
            Self::Folder(folder) => Ok(Place::File(state(folder).join("known.db"))),
            Self::Table { url, .. } => Ok(Place::Database((*url).to_owned())),
            Self::Stdout => Err(Failure::usage("--stdout needs --known: it keeps nothing that tells what is known")),
        }
    }

    /// Where a target keeps what is not an object of its own.
    pub(crate) fn state_folder(&self) -> Option<PathBuf> {
        match self {
            Self::Folder(folder) => Some(state(folder)),
            Self::Table { .. } | Self::Stdout => None,
        }
    }

    /// Keeps a second run out of a folder.
    pub(crate) fn lock_folder(&self) -> Result<Option<FolderLock>, Failure> {
        match self {
            Self::Folder(folder) => Ok(Some(tokio::task::block_in_place(|| FolderLock::of_staging(folder))?)),
            Self::Table { .. } | Self::Stdout => Ok(None),
        }
    }

    /// Keeps a second run, and loads, out of a table that is there, as long as the session lasts.
    pub(crate) async fn lock_table(&self) -> Result<Option<Session>, Failure> {
        match self {
            Self::Table { name, url } => {
                let mut session = Session::connect(url).await?;
                lock_table(&mut session, name).await?;
                Ok(Some(session))
            }
            Self::Folder(_) | Self::Stdout => Ok(None),
        }
    }

    /// Makes it ready to take objects.
    pub(crate) async fn open(&self, arguments: &TargetArguments, store: &Store) -> Result<Arc<dyn Sink>, Failure> {
        Ok(match self {
            Self::Folder(folder) => Arc::new(FolderSink::open(*folder)?),
            Self::Table { name, url } => {
                let known = store.postgres.clone();
                let mut options = TableOptions::from(arguments.body);
                options.columns.clone_from(&arguments.column);
                Arc::new(TableSink::connect(url, (*name).clone(), options, known).await?)
            }
            Self::Stdout => Arc::new(LinesSink::new(io::stdout(), "stdout")),
        })
    }
}

/// Of a folder of objects; no key has a path below it.
fn state(folder: &Path) -> PathBuf {
    folder.join(".bulk")
}
