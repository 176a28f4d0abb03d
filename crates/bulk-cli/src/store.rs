//! The store of known objects that the flags name.

use std::sync::Arc;

use bulk_pg::{Ident, TableName};
use bulk_s3::{KnownObjects, KnownTable, PostgresKnown, PostgresOptions, SqliteKnown, SqliteOptions};

use crate::arguments::StoreArguments;
use crate::exit::Failure;
use crate::report::Report;

/// Opens it for a bucket. One that is not there is made if `creates`.
pub(crate) async fn open(
    arguments: &StoreArguments,
    bucket: &str,
    creates: bool,
    report: &Report,
) -> Result<Arc<dyn KnownObjects>, Failure> {
    let known = arguments.known.as_str();
    if let Some(path) = known.strip_prefix("sqlite:") {
        if arguments.known_table.is_some() {
            return Err(Failure::usage("--known-table is for a store in PostgreSQL"));
        }
        let mut options = SqliteOptions::default();
        options.create = creates;
        return Ok(Arc::new(SqliteKnown::open(path, bucket, options).await?));
    }
    if !known.starts_with("postgres://") && !known.starts_with("postgresql://") {
        // The rest of it may hold a password.
        let scheme = known.split(':').next().unwrap_or_default();
        return Err(Failure::usage(format!("--known is sqlite:FILE or postgresql://…, and not {scheme}:…")));
    }
    let store = PostgresKnown::connect(known, bucket, table(arguments)?, PostgresOptions::default()).await?;
    if let Some(hint) = store.missing_index() {
        report.warn(hint);
    }
    Ok(Arc::new(store))
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
