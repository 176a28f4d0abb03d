use std::time::Duration;

use tokio_postgres::Transaction;
use tokio_postgres::types::Oid;

use crate::table_lock::begin_locked;
use crate::{Error, Session, TableName};

/// As the default of [`LoadOptions::lock_timeout`](crate::LoadOptions::lock_timeout).
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Empties tables and forgets what was loaded into them, in one transaction, so that a load begins anew. Tables that are
/// not there are passed over.
///
/// Other tables that refer to them by foreign keys must be empty: none of their rows is touched.
///
/// # Errors
///
/// [`Error::Occupied`] for a table with rows that refers to one of `tables`, or one that another session loads at the
/// moment; [`Error::Database`]. Nothing is changed then, nor if the future is dropped.
pub async fn restart(session: &mut Session, tables: &[TableName]) -> Result<(), Error> {
    let reached = find_reached(session, tables).await?;
    let asked: Vec<_> =
        reached.iter().filter(|table| table.asked).map(|table| (table.name.clone(), table.oid)).collect();
    let transaction = begin_locked(session, &asked, LOCK_TIMEOUT).await?;
    let result = empty_and_forget(&transaction, &reached, tables).await;
    let end = if result.is_ok() { transaction.commit().await } else { transaction.rollback().await };
    result.and(end.map_err(Error::database("empty the tables")))
}

/// A table that TRUNCATE has to be told of.
struct Reached {
    name: TableName,
    oid: Oid,
    /// Or else it refers to one that is.
    asked: bool,
}

async fn find_reached(session: &Session, tables: &[TableName]) -> Result<Vec<Reached>, Error> {
    let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
    let rows = session
        .client()
        .query(
            "WITH RECURSIVE asked AS
                 (SELECT pg_catalog.to_regclass(t)::oid AS oid FROM pg_catalog.unnest($1::text[]) t
                  WHERE pg_catalog.to_regclass(t) IS NOT NULL),
             reached AS
                 (SELECT oid FROM asked UNION
                  SELECT k.conrelid FROM pg_catalog.pg_constraint k JOIN reached r ON k.confrelid = r.oid
                  WHERE k.contype = 'f')
             SELECT n.nspname::text, c.relname::text, c.oid, EXISTS (SELECT FROM asked WHERE asked.oid = c.oid)
             FROM reached JOIN pg_catalog.pg_class c ON c.oid = reached.oid
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY c.oid",
            &[&names],
        )
        .await
        .map_err(Error::database("find the tables to empty"))?;
    let table = |row: &tokio_postgres::Row| {
        let name = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)).ok()?;
        Some(Reached { name, oid: row.get(2), asked: row.get(3) })
    };
    Ok(rows.iter().filter_map(table).collect())
}

async fn empty_and_forget(
    transaction: &Transaction<'_>,
    reached: &[Reached],
    tables: &[TableName],
) -> Result<(), Error> {
    if !reached.is_empty() {
        empty(transaction, reached).await?;
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
    Ok(())
}

async fn empty(transaction: &Transaction<'_>, reached: &[Reached]) -> Result<(), Error> {
    let action = || Error::database("empty the tables");
    let list = reached.iter().map(|table| table.name.to_string()).collect::<Vec<_>>().join(", ");
    // Before the look at those that refer, lest one gets rows behind it.
    transaction.batch_execute(&format!("LOCK TABLE {list} IN ACCESS EXCLUSIVE MODE")).await.map_err(action())?;
    for Reached { name, .. } in reached.iter().filter(|table| !table.asked) {
        let row = transaction.query_opt(&format!("SELECT 1 FROM {name} LIMIT 1"), &[]).await.map_err(action())?;
        if row.is_some() {
            let what = "refers to a table that is to be loaded anew, and has rows of its own; empty it first";
            return Err(Error::Occupied { table: name.clone(), what: what.to_owned() });
        }
    }
    transaction.batch_execute(&format!("TRUNCATE {list}")).await.map_err(action())
}
