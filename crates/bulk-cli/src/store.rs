//! The store of known objects that the flags name.

use std::path::PathBuf;
use std::sync::Arc;

use bulk_core::Resource;
use bulk_pg::{Ident, Session, TableName};
use bulk_s3::{
    Compare, KnownObjects, KnownTable, MemoryKnown, PostgresKnown, PostgresOptions, SqliteKnown, SqliteOptions,
};

use crate::arguments::StoreArguments;
use crate::exit::{Exit, Failure};
use crate::report::Report;

/// Where a store is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// An SQLite file.
    File(PathBuf),
    /// A database, by what reaches it.
    Database(String),
}

/// A store that is open.
pub(crate) struct Store {
    pub(crate) known: Arc<dyn KnownObjects>,
    /// The same, if it is in PostgreSQL.
    pub(crate) postgres: Option<Arc<PostgresKnown>>,
}

impl Place {
    /// What the flags name.
    pub(crate) fn given(arguments: &StoreArguments) -> Result<Option<Self>, Failure> {
        let Some(known) = arguments.known.as_deref() else { return Ok(None) };
        if let Some(path) = known.strip_prefix("sqlite:") {
            if path.is_empty() {
                return Err(Failure::usage("--known sqlite: needs the name of a file behind it"));
            }
            return Ok(Some(Self::File(PathBuf::from(path))));
        }
        if known.starts_with("postgres://") || known.starts_with("postgresql://") {
            return Ok(Some(Self::Database(known.to_owned())));
        }
        // The rest of it may hold a password.
        let other = known.split_once("://").map(|(scheme, _)| format!(", and not {scheme}://…"));
        Err(Failure::usage(format!("--known is sqlite:FILE or postgresql://…{}", other.unwrap_or_default())))
    }

    /// Refuses a comparison by what the flags give a table of the user's own no column for.
    pub(crate) fn check(arguments: &StoreArguments, compare: Compare) -> Result<(), Failure> {
        let Some(table) = &arguments.known_table else { return Ok(()) };
        let missing = match compare {
            Compare::Size | Compare::EtagAndSize if arguments.size_column.is_none() => "--size-column",
            Compare::Mtime if arguments.mtime_column.is_none() => "--mtime-column",
            _ => return Ok(()),
        };
        Err(Failure::usage(format!("--compare {compare} needs {missing}: without it nothing in {table} is the same")))
    }

    /// What whoever reads it waits for.
    pub(crate) fn resource(&self) -> Resource {
        match self {
            Self::File(_) => Resource::Disk,
            Self::Database(_) => Resource::Server,
        }
    }

    /// As [`given`](Self::given), of a command that cannot do without.
    pub(crate) fn required(arguments: &StoreArguments) -> Result<Self, Failure> {
        Self::given(arguments)?.ok_or_else(|| Failure::usage("what is known is not said: give --known or BULK_KNOWN"))
    }

    /// Opens it for a bucket. One that is not there is made if `creates`; else a file is an error, and a database without
    /// the table that we would make has nothing known.
    pub(crate) async fn open(
        &self,
        arguments: &StoreArguments,
        bucket: &str,
        creates: bool,
        report: &Report,
    ) -> Result<Store, Failure> {
        match self {
            Self::File(path) => {
                if arguments.known_table.is_some() {
                    return Err(Failure::usage("--known-table is for a store in PostgreSQL"));
                }
                let mut options = SqliteOptions::default();
                options.create = creates;
                let known = SqliteKnown::open(path, bucket, options).await?;
                Ok(Store { known: Arc::new(known), postgres: None })
            }
            Self::Database(_) if !creates && !self.is_there(arguments).await? => {
                Ok(Store { known: Arc::new(MemoryKnown::new()), postgres: None })
            }
            Self::Database(url) => {
                let options = PostgresOptions::default();
                let known = Arc::new(PostgresKnown::connect(url, bucket, table(arguments)?, options).await?);
                if let Some(hint) = known.missing_index() {
                    report.warn(hint);
                }
                Ok(Store { known: known.clone(), postgres: Some(known) })
            }
        }
    }

    /// What is known, without making a store that is not there.
    pub(crate) async fn look(
        &self,
        arguments: &StoreArguments,
        bucket: &str,
        report: &Report,
    ) -> Result<Arc<dyn KnownObjects>, Failure> {
        match self {
            Self::File(path) if !path.exists() => Ok(Arc::new(MemoryKnown::new())),
            Self::File(_) | Self::Database(_) => Ok(self.open(arguments, bucket, false, report).await?.known),
        }
    }

    async fn is_there(&self, arguments: &StoreArguments) -> Result<bool, Failure> {
        match self {
            Self::File(path) => Ok(path.exists()),
            Self::Database(_) if arguments.known_table.is_some() => Ok(true),
            Self::Database(url) => {
                let session = Session::connect(url).await?;
                let exists = "SELECT pg_catalog.to_regclass('bulk.known_object') IS NOT NULL";
                let row = session.client().query_one(exists, &[]).await;
                Ok(row.map_err(|error| Failure::new(Exit::Failed, error))?.get(0))
            }
        }
    }
}

/// The table that the flags describe.
fn table(arguments: &StoreArguments) -> Result<KnownTable, Failure> {
    let (Some(name), Some(key), Some(etag)) = (&arguments.known_table, &arguments.key_column, &arguments.etag_column)
    else {
        return Ok(KnownTable::default());
    };
    let column =
        |flag: &str, name: &str| Ident::new(name).map_err(|error| Failure::usage(format!("{flag} {name}: {error}")));
    let name: TableName = name.parse().map_err(|error| Failure::usage(format!("--known-table {name}: {error}")))?;
    let mut table = KnownTable::new(name, column("--key-column", key)?, column("--etag-column", etag)?);
    let optional = |flag: &str, name: &Option<String>| name.as_ref().map(|name| column(flag, name)).transpose();
    table.bucket = optional("--bucket-column", &arguments.bucket_column)?;
    table.size = optional("--size-column", &arguments.size_column)?;
    table.last_modified = optional("--mtime-column", &arguments.mtime_column)?;
    Ok(table)
}
