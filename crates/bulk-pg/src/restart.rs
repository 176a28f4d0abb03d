use std::collections::VecDeque;

use tokio_postgres::Transaction;
use tokio_postgres::types::Oid;

use crate::dependents::Dependents;
use crate::leftover::{self, Kind, Leftover, begin_locked_with_leftovers};
use crate::table_lock::{LOCK_TIMEOUT, end, lock_exclusively};
use crate::verify::is_any_row;
use crate::{Error, Plan, Session, TableName};

/// Empties tables and forgets what was loaded into them, in one transaction, so that a load begins anew. What an interrupted
/// refresh or swap has left beside them goes, too. Tables that are not there are passed over. The ledger must be
/// [prepared](crate::prepare_ledger).
///
/// Other tables that refer to them by foreign keys must be empty: none of their rows is touched.
///
/// # Errors
///
/// [`Error::Occupied`] for a table with rows that refers to one of `tables`, one that another session loads at the
/// moment, or one that another session uses for longer than 5 s; [`Error::Database`]. Nothing is changed then, nor if the
/// future is dropped.
pub async fn restart(session: &mut Session, tables: &[TableName]) -> Result<(), Error> {
    empty(session, None, tables).await?;
    Ok(())
}

/// As [`restart`], and drops in the same transaction what [`drop_dependents`](crate::drop_dependents) would, so that a
/// restart that is refused has dropped nothing. Tells how many keys and triggers it dropped.
///
/// Keys of the plan that lead to one of `tables` do not hinder either, if they come from rows that this program has
/// loaded: they are dropped and made again in the same way. Of other rows nobody knows whether what they refer to will
/// come again, so they must go first.
///
/// # Errors
///
/// As [`restart`].
pub async fn restart_with_plan(session: &mut Session, plan: &Plan<'_>, tables: &[TableName]) -> Result<usize, Error> {
    empty(session, Some(plan), tables).await
}

async fn empty(session: &mut Session, plan: Option<&Plan<'_>>, tables: &[TableName]) -> Result<usize, Error> {
    let kinds = [Kind::Staging, Kind::Twin];
    let (transaction, asked, leftovers) = begin_locked_with_leftovers(session, tables, &kinds, LOCK_TIMEOUT).await?;
    let result = empty_and_forget(&transaction, plan, tables, asked, &leftovers).await;
    end(transaction, result, EMPTY).await
}

const EMPTY: &str = "empty the tables";

async fn empty_and_forget(
    transaction: &Transaction<'_>,
    plan: Option<&Plan<'_>>,
    tables: &[TableName],
    asked: Vec<(TableName, Oid)>,
    leftovers: &[Leftover],
) -> Result<usize, Error> {
    for (table, _) in &asked {
        lock_exclusively(transaction, table).await?;
    }
    leftover::discard(transaction, leftovers).await?;
    let mut dependents = match plan {
        Some(plan) => Dependents::find(transaction, plan, tables).await?,
        None => Dependents::default(),
    };
    let Reach { emptied, cut } = reach(transaction, asked, &dependents).await?;
    dependents.keys.retain(|key| tables.contains(&key.table) || cut.contains(&key.oid));
    let dropped = if dependents.is_empty() { 0 } else { dependents.drop(transaction).await? };
    if !emptied.is_empty() {
        let list = emptied.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        transaction.batch_execute(&format!("TRUNCATE {list}")).await.map_err(Error::database(EMPTY))?;
    }
    for table in tables {
        transaction
            .execute(
                "DELETE FROM bulk.load WHERE target_schema = $1 AND target_table = $2",
                &[&table.schema.as_str(), &table.name.as_str()],
            )
            .await
            .map_err(Error::database(format!("forget the marks of {table:#}")))?;
    }
    Ok(dropped)
}

/// How far TRUNCATE goes.
struct Reach {
    /// The tables that it is to be told of: those asked for, and empty ones that refer to them.
    emptied: Vec<TableName>,
    /// Foreign keys to them whose tables have rows that stay.
    cut: Vec<Oid>,
}

/// Follows the foreign keys to the tables that were asked for. Each table is locked before it is looked into, lest it gets
/// rows behind the look.
async fn reach(
    transaction: &Transaction<'_>,
    asked: Vec<(TableName, Oid)>,
    dependents: &Dependents,
) -> Result<Reach, Error> {
    let mut oids: Vec<Oid> = asked.iter().map(|(_, oid)| *oid).collect();
    let mut next: VecDeque<Oid> = oids.iter().copied().collect();
    let mut reach = Reach { emptied: asked.into_iter().map(|(table, _)| table).collect(), cut: Vec::new() };
    while let Some(oid) = next.pop_front() {
        for Referrer { key, table, oid } in referrers(transaction, oid).await? {
            if oids.contains(&oid) {
                continue;
            }
            lock_exclusively(transaction, &table).await?;
            if !is_any_row(transaction, &table).await? {
                oids.push(oid);
                next.push_back(oid);
                reach.emptied.push(table);
            } else if dependents.keys.iter().any(|known| known.oid == key) && is_loaded(transaction, oid).await? {
                reach.cut.push(key);
            } else {
                let what = "refers to a table that is to be loaded anew, and has rows of its own; empty it first";
                return Err(Error::Occupied { table, what: what.to_owned() });
            }
        }
    }
    Ok(reach)
}

/// A foreign key and the table that has it.
struct Referrer {
    key: Oid,
    table: TableName,
    oid: Oid,
}

async fn referrers(transaction: &Transaction<'_>, to: Oid) -> Result<Vec<Referrer>, Error> {
    let rows = transaction
        .query(
            "SELECT k.oid, n.nspname::text, c.relname::text, c.oid
             FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE k.contype = 'f' AND k.confrelid = $1 ORDER BY c.oid, k.oid",
            &[&to],
        )
        .await
        .map_err(Error::database("find the tables to empty"))?;
    let referrer = |row: &tokio_postgres::Row| {
        let table = TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)).ok()?;
        Some(Referrer { key: row.get(0), table, oid: row.get(3) })
    };
    Ok(rows.iter().filter_map(referrer).collect())
}

/// Whether the ledger has rows of the table.
async fn is_loaded(transaction: &Transaction<'_>, oid: Oid) -> Result<bool, Error> {
    let row = transaction
        .query_one(
            "SELECT EXISTS (SELECT FROM bulk.load l WHERE l.target_oid = $1
                            AND (l.records > 0 OR EXISTS (SELECT FROM bulk.chunk c WHERE c.load_id = l.id)))",
            &[&oid],
        )
        .await
        .map_err(Error::database("read the marks of the tables"))?;
    Ok(row.get(0))
}
