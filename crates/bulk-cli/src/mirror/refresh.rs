use bulk_pg::{
    Error, FileIdentity, LoadOptions, Plan, Session, TableName, drop_foreign_keys, find_loaded, find_refreshed,
    is_staged, merge_staged,
};

use super::Run;
use crate::exit::Failure;

/// What the database has of a file.
pub(super) enum Found {
    /// All, in its table.
    Loaded(u64),
    /// All, in the staging table.
    Staged,
    /// Not all of it. It is to go into the staging table if its own holds something else.
    Nothing { stage: bool },
}

/// Finds what is to be done with a file. Only a refresh takes a table that holds something else for what it is.
pub(super) async fn find(
    session: &Session,
    table: &TableName,
    identity: &FileIdentity,
    options: &LoadOptions,
    is_refresh: bool,
) -> Result<Found, Failure> {
    if !is_refresh {
        let loaded = find_loaded(session, table, identity, options).await?;
        return Ok(loaded.map_or(Found::Nothing { stage: false }, Found::Loaded));
    }
    if let Some(records) = find_refreshed(session, table, identity, options).await? {
        return Ok(Found::Loaded(records));
    }
    match find_loaded(session, table, identity, options).await {
        // Nobody reads what is empty, or half of this very file: it is filled where it is.
        Ok(None) => Ok(Found::Nothing { stage: false }),
        Ok(Some(_)) | Err(Error::Occupied { .. } | Error::Columns { .. })
            if is_staged(session, table, identity, options).await? =>
        {
            Ok(Found::Staged)
        }
        Ok(Some(_)) | Err(Error::Occupied { .. } | Error::Columns { .. }) => Ok(Found::Nothing { stage: true }),
        Err(error) => Err(error.into()),
    }
}

/// Makes tables what is staged for them. False if it was stopped.
pub(super) async fn merge(
    run: &Run<'_>,
    session: &mut Session,
    plan: &Plan<'_>,
    tables: &[TableName],
) -> Result<bool, Failure> {
    if tables.is_empty() {
        return Ok(true);
    }
    let dropped = drop_foreign_keys(session, plan, tables).await?;
    if dropped > 0 {
        run.report.note("foreign keys of the tables to be refreshed are dropped, and made again after it");
    }
    let mut options = LoadOptions::default();
    options.stop = run.common.stop.clone();
    let observer = run.report.clone();
    options.observer = std::sync::Arc::new(move |event: &bulk_pg::Event<'_>| observer.on_load(event));
    match merge_staged(session, tables, &options).await {
        Err(Error::Stopped { .. }) => Ok(false),
        merged => {
            merged?;
            Ok(true)
        }
    }
}
