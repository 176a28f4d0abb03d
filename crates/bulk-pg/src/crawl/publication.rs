//! New tables for a crawl that replaces tables.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Oid, ToSql};

use super::ledger::Round;
use super::{CrawlJob, CrawlLoadOptions, CrawlTable};
use crate::counted::counted;
use crate::entangled::has_dependents;
use crate::ledger::{self, Load};
use crate::leftover::{Kind, begin_locked_with_leftovers, discard};
use crate::post_data::apply_post_data_of;
use crate::sequences::raise_sequences_of;
use crate::swap::{Attempt, Exchange, always_in_use, is_in_use, prepare_twins};
use crate::table_lock::{LOCK_TIMEOUT, end, lock_tables};
use crate::verify::is_any_row;
use crate::{
    Definition, DefinitionKind, Error, FileIdentity, ForeignKey, Ident, LoadOptions, PostData, PostDataOptions,
    Session, Swap, SwapOptions, TableName, drop_swapped, settle, swap,
};

/// How long others may go on before it is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// The tables that are to take the places of others.
pub(super) struct Publication {
    swap: Swap,
    /// The old tables.
    tables: Vec<TableName>,
    /// The marks by which the swap knows what they hold.
    loads: Vec<(TableName, Load)>,
    /// Its number in the ledger.
    crawl: i64,
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
pub(super) async fn prepare(
    session: &mut Session,
    job: &CrawlJob,
    options: &CrawlLoadOptions,
    round: &mut Round,
) -> Result<Publication, Error> {
    drop_old(session).await?;
    let tables = tables(job);
    let file = FileIdentity::new(format!("crawl {}", job.name), Some(format!("{}/{}", round.id, round.number)), 0);
    let files: Vec<_> = tables.iter().map(|table| (table.clone(), file.clone(), LoadOptions::default())).collect();
    let swap = prepare_twins(session, &files, true).await?;
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
    // So that a row with the key of another one, or one that refers to nothing, is left out when it comes, and not found
    // when all have.
    let schema = swap.schema()?;
    let mut plan = schema.plan();
    let is_unique = |definition: &&Definition| match &definition.kind {
        DefinitionKind::Index { unique, .. } => *unique,
        kind => matches!(kind, DefinitionKind::Constraint(_)),
    };
    plan.indexes.retain(is_unique);
    // What a row of this job refers to may come behind it.
    let leads_out = |key: &ForeignKey| key.checked && !twins.contains(&key.references);
    plan.foreign_keys
        .retain(|definition| matches!(&definition.kind, DefinitionKind::ForeignKey(key) if leads_out(key)));
    plan.after_indexes.clear();
    plan.triggers.clear();
    let done = apply_post_data_of(session, &plan, &twins, &[], &post_data(options)).await?;
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
    Ok(Publication { swap, tables, loads, crawl: round.id })
}

fn post_data(options: &CrawlLoadOptions) -> PostDataOptions {
    let (observer, stop) = (Arc::clone(&options.observer), options.stop.clone());
    PostDataOptions { observer, stop, ..PostDataOptions::default() }
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
        rejected: u64,
    ) -> Result<(), Error> {
        let twins = self.swap.twins();
        let schema = self.swap.schema()?;
        let plan = schema.plan();
        let keys = plan.foreign_keys.iter().filter_map(|definition| match &definition.kind {
            DefinitionKind::ForeignKey(key) if key.checked && twins.contains(&key.references) => Some(key),
            _ => None,
        });
        let keys: Vec<&ForeignKey> = keys.collect();
        self.reject_orphans(session, job, &keys, options.max_rejects, rejected).await?;
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
        if has_dependents(session.client(), &self.swap.tables()).await? {
            return self.put_rows(session, job, options).await;
        }
        let done = apply_post_data_of(session, &plan, &twins, &twins, &post_data(options)).await?;
        check(job, &done, &twins)?;
        settle(session, &twins).await?;
        let (observer, stop) = (Arc::clone(&options.observer), options.stop.clone());
        let how = SwapOptions { observer, stop, ..SwapOptions::default() };
        swap(session, &self.swap, &how).await?;
        drop_old(session).await
    }
}

impl Publication {
    /// Leaves out the rows of the new tables that refer to rows of these which are not there, and the rows that refer to
    /// them, and so on.
    async fn reject_orphans(
        &self,
        session: &mut Session,
        job: &CrawlJob,
        keys: &[&ForeignKey],
        max_rejects: u64,
        rejected: u64,
    ) -> Result<(), Error> {
        let action = || Error::database(format!("look for rows of the crawl {} that refer to nothing", job.name));
        let transaction = session.client_mut().transaction().await.map_err(action())?;
        let mut found = 0;
        loop {
            let before = found;
            for key in keys {
                let Some(table) = self.old_name(&key.table) else { continue };
                let message = format!("it violates the foreign key {} to {:#}", key.name.as_str(), key.references.name);
                let pairs = key.columns.iter().zip(&key.ref_columns);
                let is_same: Vec<_> = pairs.map(|(column, other)| format!("p.{other} = c.{column}")).collect();
                let is_set: Vec<_> = key.columns.iter().map(|column| format!("c.{column} IS NOT NULL")).collect();
                let sql = format!(
                    "WITH gone AS (
                         DELETE FROM {} c WHERE {} AND NOT EXISTS (SELECT FROM {} p WHERE {}) RETURNING c.*)
                     INSERT INTO bulk.call_reject (crawl_id, target_schema, target_table, \"column\", sqlstate, message, fields)
                     SELECT $1, $2, $3, $4, '23503', $5, pg_catalog.row_to_json(gone) FROM gone",
                    key.table,
                    is_set.join(" AND "),
                    key.references,
                    is_same.join(" AND "),
                );
                let column = key.columns.iter().map(Ident::as_str).collect::<Vec<_>>().join(", ");
                let parameters: [&(dyn ToSql + Sync); 5] =
                    [&self.crawl, &table.schema.as_str(), &table.name.as_str(), &column, &message];
                found += transaction.execute(&sql, &parameters).await.map_err(action())?;
            }
            if found == before {
                break;
            }
        }
        if found > 0 && rejected.saturating_add(found) > max_rejects {
            let what = format!(
                "{} to rows that have not come, and {} left out already, which is more than the {max_rejects} that \
                 may be; the old tables stay",
                counted(found, "row refers", "rows refer"),
                counted(rejected, "is", "are")
            );
            return Err(Error::Crawl { job: job.name.clone(), what });
        }
        transaction.commit().await.map_err(action())
    }

    /// Has the old tables get the rows of the new ones, which go, in one transaction. While others write to the old ones it is
    /// tried again.
    async fn put_rows(&self, session: &mut Session, job: &CrawlJob, options: &CrawlLoadOptions) -> Result<(), Error> {
        let started = tokio::time::Instant::now();
        loop {
            if options.stop.is_cancelled() {
                return Err(Error::Stopped { what: "the exchange of the tables' rows".to_owned() });
            }
            match self.try_to_put_rows(session, job).await? {
                Attempt::Done => return Ok(()),
                Attempt::InUse(table) if started.elapsed() >= SwapOptions::default().patience => {
                    return Err(always_in_use(table));
                }
                Attempt::InUse(_) => {}
            }
            let _ = options.stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
        }
    }

    async fn try_to_put_rows(&self, session: &mut Session, job: &CrawlJob) -> Result<Attempt, Error> {
        let Some(first) = self.tables.first().cloned() else { return Ok(Attempt::Done) };
        let (transaction, found, leftovers) =
            begin_locked_with_leftovers(session, &self.tables, &[Kind::Twin], LOCK_TIMEOUT).await?;
        let (result, is_in_use) = match self.swap.lock(&transaction, &found, Exchange::Rows).await {
            Err(error) => {
                let is_in_use = is_in_use(&error);
                (Err(error), is_in_use)
            }
            Ok(_) => {
                let result = async {
                    self.put(&transaction, job).await?;
                    discard(&transaction, &leftovers).await
                };
                let result = result.await;
                // Who cancels the rows does not want them to be tried again.
                let is_in_use = result.as_ref().is_err_and(waits_for_a_row);
                (result, is_in_use)
            }
        };
        match end(transaction, result, "put the new rows in place of the old ones").await {
            Err(_) if is_in_use => Ok(Attempt::InUse(first)),
            ended => ended.map(|()| Attempt::Done),
        }
    }

    async fn put(&self, transaction: &Transaction<'_>, job: &CrawlJob) -> Result<(), Error> {
        let action =
            |table: &TableName| Error::database(format!("put the new rows of {table:#} in place of the old ones"));
        let mut tables: Vec<&TableName> = Vec::new();
        for CrawlTable { table, .. } in &job.tables {
            if !tables.contains(&table) {
                tables.push(table);
            }
        }
        // Rows may be locked by those who do not write.
        let wait = "SET LOCAL lock_timeout = '1s'";
        transaction.batch_execute(wait).await.map_err(Error::database("lock the rows of the tables"))?;
        // Those that refer to others go first, and come last.
        for table in tables.iter().rev() {
            transaction.batch_execute(&format!("DELETE FROM {table}")).await.map_err(action(table))?;
        }
        for table in &tables {
            let Some(twin) = self.swap.twin(table) else { continue };
            let row = transaction
                .query_one(
                    "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(attname), ', ' ORDER BY attnum)
                     FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass($1)::oid
                       AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
                    &[&table.to_string()],
                )
                .await
                .map_err(action(table))?;
            let Some(columns) = row.get::<_, Option<&str>>(0) else { continue };
            let insert =
                format!("INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {twin}");
            transaction.batch_execute(&insert).await.map_err(action(table))?;
            raise_sequences_of(transaction, table, None).await?;
        }
        let check = "SET CONSTRAINTS ALL IMMEDIATE";
        transaction.batch_execute(check).await.map_err(Error::database("check the new rows of the tables"))?;
        // By which the next run knows that it was done.
        let old = self.swap.tables();
        let oid = |table: &TableName| old.iter().find(|(other, _)| other == table).map(|(_, oid)| *oid);
        let oids: Vec<Oid> = self.tables.iter().filter_map(oid).collect();
        let sql = "UPDATE bulk.crawl SET twins = $2 WHERE id = $1";
        transaction
            .execute(sql, &[&self.crawl, &oids])
            .await
            .map_err(Error::database("note that the crawl is published"))?;
        let sync = "SET LOCAL synchronous_commit = on";
        transaction.batch_execute(sync).await.map_err(Error::database("note that the crawl is published"))
    }

    /// The table whose place a new one takes.
    fn old_name(&self, twin: &TableName) -> Option<&TableName> {
        self.tables.iter().find(|table| self.swap.twin(table) == Some(twin))
    }
}

/// Whether a row was locked by another session for too long.
fn waits_for_a_row(error: &Error) -> bool {
    match error {
        Error::Database { source, .. } => source.code() == Some(&SqlState::LOCK_NOT_AVAILABLE),
        _ => false,
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
        let violate = counted(orphans.rows, "row violates", "rows violate");
        format!("{violate} the foreign key {} to {:#}", orphans.constraint, orphans.references)
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
