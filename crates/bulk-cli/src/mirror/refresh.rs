use bulk_pg::{
    Error, FileIdentity, LoadOptions, OrphanPolicy, Plan, PostData, Session, TableName, drop_foreign_keys, find_loaded,
    find_refreshed, has_dropped, is_staged, merge_staged, restore_dependents,
};
use tokio_util::sync::CancellationToken;

use super::findings::list_post_data;
use super::{Run, post_data_options};
use crate::exit::Failure;
use crate::meters::ServerStage;

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
    let merging = merge_staged(session, tables, &options);
    let merged = run.report.meters().on_server(ServerStage::Merge, merging).await;
    if merged.is_err() {
        restore_keys(run, session, tables).await;
    }
    match merged {
        Err(Error::Stopped { .. }) => Ok(false),
        merged => {
            merged?;
            Ok(true)
        }
    }
}

/// Makes again what is dropped of tables that were to be merged, so that those that others use are not without their foreign
/// keys until the next run succeeds. What cannot be is said, and left to that.
async fn restore_keys(run: &Run<'_>, session: &mut Session, tables: &[TableName]) {
    let report = run.report;
    let left = |error: bulk_pg::Error| {
        let error = anyhow::Error::from(error);
        report.warn(format!("foreign keys that were dropped stay in bulk.dropped for the next run: {error:#}"));
    };
    let mut options = post_data_options(run);
    // Whoever stopped the run did not ask for tables without keys; and these are no rows to take anything out of.
    options.stop = CancellationToken::new();
    options.orphans = OrphanPolicy::Report;
    // It may be that the merge failed because others use a table: they are not waited for without end. A session that
    // cannot be told this cannot do the rest.
    let patience = LoadOptions::default().lock_timeout.as_millis();
    let _ = session.client().batch_execute(&format!("SET lock_timeout = {patience}")).await;
    // One by one, so that each that is free gets its keys.
    for table in tables.iter().map(std::slice::from_ref) {
        let restored = async {
            match has_dropped(session, table).await? {
                true => restore_dependents(std::slice::from_mut(session), table, &options).await,
                false => Ok(PostData::default()),
            }
        };
        match restored.await {
            Ok(done) => _ = list_post_data(&done, report),
            Err(error) if session.client().is_closed() => return left(error),
            Err(error) => left(error),
        }
    }
    let _ = session.client().batch_execute("SET lock_timeout = 0").await;
}
