//! New tables for a crawl that replaces tables.

use std::slice::from_mut;
use std::sync::Arc;

use tokio_postgres::types::Oid;

use super::ledger::Round;
use super::{CrawlJob, CrawlLoadOptions};
use crate::ledger::{self, Load};
use crate::table_lock::lock_tables;
use crate::verify::is_any_row;
use crate::{
    Definition, DefinitionKind, Error, FileIdentity, LoadOptions, PostData, PostDataOptions, Session, Swap,
    SwapOptions, TableName, apply_post_data, drop_swapped, prepare_swap, settle, swap,
};

/// The tables that are to take the places of others.
pub(super) struct Publication {
    swap: Swap,
    /// The marks by which the swap knows what they hold.
    loads: Vec<(TableName, Load)>,
}

fn tables(job: &CrawlJob) -> Vec<TableName> {
    let mut tables: Vec<TableName> = job.tables.iter().map(|table| table.table.clone()).collect();
    tables.sort();
    tables.dedup();
    tables
}

async fn oids(session: &Session, tables: &[TableName]) -> Result<Vec<Oid>, Error> {
    let mut oids = Vec::new();
    for table in tables {
        let row = session
            .client()
            .query_one("SELECT coalesce(pg_catalog.to_regclass($1)::oid, 0)", &[&table.to_string()])
            .await
            .map_err(Error::database(format!("find {table:#}")))?;
        oids.push(row.get(0));
    }
    Ok(oids)
}

/// Whether the tables are the new ones of this round already.
pub(super) async fn is_published(session: &Session, job: &CrawlJob, round: &Round) -> Result<bool, Error> {
    Ok(!round.twins.is_empty() && oids(session, &tables(job)).await? == round.twins)
}

/// Makes the new tables, or finds what an earlier run of the round has left.
pub(super) async fn prepare(session: &mut Session, job: &CrawlJob, round: &mut Round) -> Result<Publication, Error> {
    drop_old(session).await?;
    let tables = tables(job);
    let file = FileIdentity::new(format!("crawl {}", job.name), Some(format!("{}/{}", round.id, round.number)), 0);
    let files: Vec<_> = tables.iter().map(|table| (table.clone(), file.clone(), LoadOptions::default())).collect();
    let swap = prepare_swap(session, &files).await?;
    let mut twins = Vec::new();
    for table in &tables {
        let what = "could not be made anew beside the old one".to_owned();
        let lost = || Error::Occupied { table: table.clone(), what };
        twins.push(swap.twin(table).ok_or_else(lost)?.clone());
    }
    let oids = oids(session, &twins).await?;
    let locked: Vec<_> = twins.iter().cloned().zip(oids.iter().copied()).collect();
    lock_tables(session, &locked).await?;
    let mut is_lost = oids != round.twins;
    for (table, (twin, oid)) in tables.iter().zip(&locked) {
        let rows = job.tables.iter().zip(&round.target_rows).filter(|(target, _)| target.table == *table);
        let has_rows = rows.map(|(_, rows)| *rows).any(|rows| rows > 0);
        is_lost |= has_rows && is_emptied(session, twin, *oid).await?;
    }
    if is_lost {
        round.set_twins(session, &job.name, &twins, oids.clone()).await?;
    }
    // So that a row with the key of another one is left out when it comes, and not found when all have.
    let schema = swap.schema()?;
    let mut plan = schema.plan();
    let is_unique = |definition: &&Definition| match &definition.kind {
        DefinitionKind::Index { unique, .. } => *unique,
        kind => matches!(kind, DefinitionKind::Constraint(_)),
    };
    plan.indexes.retain(is_unique);
    for later in [&mut plan.after_indexes, &mut plan.foreign_keys, &mut plan.triggers] {
        later.clear();
    }
    let done = apply_post_data(from_mut(session), &plan, &[], &PostDataOptions::default()).await?;
    check(job, &done, &twins)?;

    let mut loads = Vec::new();
    for (twin, oid) in twins.into_iter().zip(oids) {
        let known = ledger::loads(session.client(), &twin).await?;
        let load = match known.into_iter().find(|load| load.oid == oid && load.file == file) {
            Some(load) => load,
            None => ledger::begin(session, &twin, oid, &file, None).await?,
        };
        loads.push((twin, load));
    }
    Ok(Publication { swap, loads })
}

/// Whether crash recovery may have emptied a table: one that is not logged, and has no row.
async fn is_emptied(session: &Session, table: &TableName, oid: Oid) -> Result<bool, Error> {
    let row = session
        .client()
        .query_one("SELECT relpersistence = 'u' FROM pg_catalog.pg_class WHERE oid = $1", &[&oid])
        .await
        .map_err(Error::database(format!("look into {table:#}")))?;
    Ok(row.get(0) && !is_any_row(session.client(), table).await?)
}

impl Publication {
    /// The new table in place of `table`.
    pub(super) fn twin(&self, table: &TableName) -> Option<(&TableName, Oid)> {
        let twin = self.swap.twin(table)?;
        let (_, load) = self.loads.iter().find(|(other, _)| other == twin)?;
        Some((twin, load.oid))
    }

    /// Has the new tables take the places of the old ones, with all that belongs to these.
    pub(super) async fn publish(
        self,
        session: &mut Session,
        job: &CrawlJob,
        options: &CrawlLoadOptions,
    ) -> Result<(), Error> {
        for (twin, load) in &self.loads {
            let count = session.client().query_one(&format!("SELECT pg_catalog.count(*) FROM {twin}"), &[]).await;
            let count = count.map_err(Error::database(format!("count the rows of {twin:#}")))?;
            let rows = ledger::unsigned(count.get(0));
            if rows == 0 && !options.allow_empty {
                let what = format!("it gave no row for {:#}, whose rows stay", twin.name);
                return Err(Error::Crawl { job: job.name.clone(), what });
            }
            ledger::finish(session, load, rows).await?;
        }
        let twins = self.swap.twins();
        let schema = self.swap.schema()?;
        let post_data = PostDataOptions {
            orphans_of: Some(twins.clone()),
            observer: Arc::clone(&options.observer),
            stop: options.stop.clone(),
            ..PostDataOptions::default()
        };
        let done = apply_post_data(from_mut(session), &schema.plan(), &twins, &post_data).await?;
        check(job, &done, &twins)?;
        settle(session, &twins).await?;
        let (observer, stop) = (Arc::clone(&options.observer), options.stop.clone());
        let how = SwapOptions { observer, stop, ..SwapOptions::default() };
        swap(session, &self.swap, &how).await?;
        drop_old(session).await
    }
}

/// What somebody still reads goes with the next run.
async fn drop_old(session: &mut Session) -> Result<(), Error> {
    match drop_swapped(session).await {
        Err(error) if session.is_closed() => Err(error),
        _ => Ok(()),
    }
}

/// Fails if the new tables cannot have all that the old ones have.
fn check(job: &CrawlJob, done: &PostData, twins: &[TableName]) -> Result<(), Error> {
    let orphans = done.orphans.iter().filter(|orphans| twins.contains(&orphans.table)).map(|orphans| {
        format!("{} rows violate the foreign key {} to {:#}", orphans.rows, orphans.constraint, orphans.references)
    });
    let refused = done.refused.iter().map(|refused| format!("{}: {}", refused.what, refused.reason));
    match refused.chain(orphans).next() {
        None => Ok(()),
        Some(first) => {
            let what = format!("the new tables cannot have what the old ones have, so that these stay: {first}");
            Err(Error::Crawl { job: job.name.clone(), what })
        }
    }
}
