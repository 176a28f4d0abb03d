//! What an interrupted refresh or swap has left beside a table that now comes to be filled in another way.

use std::time::Duration;

use tokio_postgres::types::Oid;
use tokio_postgres::{GenericClient, Transaction};

use crate::staging::{self, rename};
use crate::swap::drop_if_empty;
use crate::table_lock::begin_locked;
use crate::{Error, Session, TableName};

/// Which tables are beside others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The staging table of a refresh.
    Staging,
    /// The new table of a swap that has not taken its place.
    Twin,
}

/// A table beside the one that it is for.
#[derive(Clone, Debug)]
pub(crate) struct Leftover {
    kind: Kind,
    target: TableName,
    target_oid: Oid,
    oid: Oid,
    /// `None` if somebody has dropped or moved it, so that only the ledger has it.
    table: Option<TableName>,
}

/// As [`begin_locked`], with the locks of what is left beside the tables, too, so that nobody works on it. Gives that, to be
/// [discarded](discard).
pub(crate) async fn begin_locked_with_leftovers<'a>(
    session: &'a mut Session,
    tables: &[TableName],
    kinds: &[Kind],
    timeout: Duration,
) -> Result<(Transaction<'a>, Vec<(TableName, Oid)>, Vec<Leftover>), Error> {
    let before = find(session.client(), tables, kinds).await?;
    let mut all = tables.to_vec();
    all.extend(before.iter().filter_map(|leftover| leftover.table.clone()));
    let known = |error, leftover: &Leftover| match &leftover.table {
        Some(table) => rename(error, table, &leftover.target),
        None => error,
    };
    let begun = begin_locked(session, &all, timeout).await;
    let (transaction, mut locked) = begun.map_err(|error| before.iter().fold(error, known))?;
    // What was made in the meantime is not locked, and so left to those who have made it.
    let mut leftovers = find(&transaction, tables, kinds).await?;
    let is_locked = |oid| locked.iter().any(|(table, locked)| *locked == oid && !tables.contains(table));
    leftovers.retain(|leftover| leftover.table.is_none() || is_locked(leftover.oid));
    locked.retain(|(table, _)| tables.contains(table));
    Ok((transaction, locked, leftovers))
}

async fn find(client: &impl GenericClient, tables: &[TableName], kinds: &[Kind]) -> Result<Vec<Leftover>, Error> {
    let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
    let rows = client
        .query(
            "SELECT min(t.place), b.target_oid, b.oid, b.is_staging, n.nspname::text, c.relname::text
             FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY t(name, place)
             JOIN (SELECT target_oid, staging_oid, true FROM bulk.refresh UNION ALL
                   SELECT target_oid, twin_oid, false FROM bulk.swap WHERE swapped_at IS NULL) b(target_oid, oid, is_staging)
                  ON b.target_oid = pg_catalog.to_regclass(t.name)::oid
             LEFT JOIN (pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace)
                  ON c.oid = b.oid AND n.nspname LIKE CASE WHEN b.is_staging THEN 'bulk' ELSE 'bulk\\_next\\_%' END
             WHERE b.is_staging AND $2 OR NOT b.is_staging AND $3
             GROUP BY 2, 3, 4, 5, 6 ORDER BY 2, 4",
            &[&names, &kinds.contains(&Kind::Staging), &kinds.contains(&Kind::Twin)],
        )
        .await
        .map_err(Error::database("look for what a refresh or a swap has left"))?;
    let leftover = |row: &tokio_postgres::Row| {
        let target = tables.get(usize::try_from(row.get::<_, i64>(0)).ok()?.checked_sub(1)?)?.clone();
        let name = row.get::<_, Option<String>>(4).zip(row.get::<_, Option<String>>(5));
        let table = name.and_then(|(schema, name)| TableName::new(schema, name).ok());
        let kind = if row.get(3) { Kind::Staging } else { Kind::Twin };
        Some(Leftover { kind, target, target_oid: row.get(1), oid: row.get(2), table })
    };
    Ok(rows.iter().filter_map(leftover).collect())
}

/// Removes what is left, with all that the ledger has of it.
pub(crate) async fn discard(transaction: &Transaction<'_>, leftovers: &[Leftover]) -> Result<(), Error> {
    for leftover in leftovers {
        match leftover.kind {
            Kind::Staging => staging::discard(transaction, leftover.target_oid).await?,
            Kind::Twin => discard_twin(transaction, leftover).await?,
        }
    }
    Ok(())
}

async fn discard_twin(transaction: &Transaction<'_>, leftover: &Leftover) -> Result<(), Error> {
    let action = || Error::database(format!("remove the table that was to take the place of {:#}", leftover.target));
    if let Some(table) = &leftover.table {
        // Foreign keys of other new tables may lead to it.
        transaction.batch_execute(&format!("DROP TABLE {table} CASCADE")).await.map_err(action())?;
        drop_if_empty(transaction, table.schema.as_str()).await?;
    }
    transaction
        .execute(
            "DELETE FROM bulk.load WHERE target_oid = $1 AND target_schema LIKE 'bulk\\_next\\_%'",
            &[&leftover.oid],
        )
        .await
        .map_err(action())?;
    transaction
        .execute("DELETE FROM bulk.swap WHERE target_oid = $1 AND swapped_at IS NULL", &[&leftover.target_oid])
        .await
        .map_err(action())?;
    Ok(())
}
