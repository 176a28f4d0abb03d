//! What stands in the way of a load: foreign keys, which would be checked row by row, and triggers, which would fire.

use std::collections::BTreeMap;

use tokio_postgres::types::Oid;
use tokio_postgres::{GenericClient, Row, Transaction};

use crate::table_lock::{LOCK_TIMEOUT, begin_locked, end, in_use, lock_exclusively};
use crate::{DefinitionKind, Error, Ident, Plan, Session, TableName, dropped};

/// Drops what would stand in the way of loading `tables`, of all that `plan` has: their foreign keys, which would be
/// checked row by row while parents are still missing, and their triggers, which would fire. In one transaction, that also
/// writes down in `bulk.dropped` how each was; [`apply_post_data`](crate::apply_post_data) makes it again just so,
/// whichever plan it is given. Tells how many there were.
///
/// Keys that lead to one of the tables stay: they do not hinder new rows. What the plan does not have is left alone.
///
/// The ledger must be [prepared](crate::prepare_ledger).
///
/// # Errors
///
/// [`Error::Occupied`] if one of the tables is loaded by another session, or another session uses one that has to be
/// changed for longer than 5 s; [`Error::Database`]. Nothing is changed then, nor if the future is dropped.
pub async fn drop_dependents(session: &mut Session, plan: &Plan<'_>, tables: &[TableName]) -> Result<usize, Error> {
    if Dependents::of(session.client(), plan, tables).await?.is_empty() {
        return Ok(0);
    }
    let (transaction, _) = begin_locked(session, tables, LOCK_TIMEOUT).await?;
    let result = lock_and_drop(&transaction, plan, tables).await;
    end(transaction, result, DROP).await
}

/// As [`drop_dependents`], of foreign keys alone: for [`merge_staged`](crate::merge_staged), under which triggers fire, and
/// keys would be checked while tables are of two versions, and would refuse rows whose parents the data never has.
///
/// # Errors
///
/// As [`drop_dependents`].
pub async fn drop_foreign_keys(session: &mut Session, plan: &Plan<'_>, tables: &[TableName]) -> Result<usize, Error> {
    if Dependents::keys_of(session.client(), plan, tables).await?.is_empty() {
        return Ok(0);
    }
    let (transaction, _) = begin_locked(session, tables, LOCK_TIMEOUT).await?;
    let dropped = async {
        Dependents::keys_of(&transaction, plan, tables).await?.lock(&transaction).await?;
        // What there is now, and not what was there before the locks.
        Dependents::keys_of(&transaction, plan, tables).await?.drop(&transaction).await
    };
    let result = dropped.await;
    end(transaction, result, DROP).await
}

async fn lock_and_drop(transaction: &Transaction<'_>, plan: &Plan<'_>, tables: &[TableName]) -> Result<usize, Error> {
    Dependents::of(transaction, plan, tables).await?.lock(transaction).await?;
    // What there is now, and not what was there before the locks.
    Dependents::of(transaction, plan, tables).await?.drop(transaction).await
}

const DROP: &str = "drop foreign keys and triggers before the load";

/// Foreign keys and triggers of a plan, as the database has them.
#[derive(Default)]
pub(crate) struct Dependents {
    pub(crate) keys: Vec<Key>,
    triggers: Vec<Trigger>,
}

pub(crate) struct Key {
    pub(crate) oid: Oid,
    name: Ident,
    pub(crate) table: TableName,
    table_oid: Oid,
    references: TableName,
}

struct Trigger {
    oid: Oid,
    name: Ident,
    table: TableName,
    table_oid: Oid,
}

impl Dependents {
    /// The keys and triggers of the tables.
    async fn of<C: GenericClient>(client: &C, plan: &Plan<'_>, tables: &[TableName]) -> Result<Self, Error> {
        let mut found = Self::find(client, plan, tables).await?;
        found.keys.retain(|key| tables.contains(&key.table));
        Ok(found)
    }

    /// The keys of the tables, without their triggers.
    async fn keys_of<C: GenericClient>(client: &C, plan: &Plan<'_>, tables: &[TableName]) -> Result<Self, Error> {
        let mut found = Self::of(client, plan, tables).await?;
        found.triggers.clear();
        Ok(found)
    }

    /// The keys that lead from or to one of the tables, and the tables' triggers.
    pub(crate) async fn find<C: GenericClient>(
        client: &C,
        plan: &Plan<'_>,
        tables: &[TableName],
    ) -> Result<Self, Error> {
        let keys = plan.foreign_keys.iter().filter_map(|definition| match &definition.kind {
            DefinitionKind::ForeignKey(key) => Some((key.table.to_string(), key.name.as_str())),
            _ => None,
        });
        let (key_tables, key_names): (Vec<_>, Vec<_>) = keys.unzip();
        // Those of a partition belong to its parent's.
        let keys = client
            .query(
                "SELECT k.oid, k.conname::text, c.oid, n.nspname::text, c.relname::text, m.nspname::text, p.relname::text
                 FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) w(child, name)
                 JOIN pg_catalog.pg_constraint k
                      ON k.conrelid = pg_catalog.to_regclass(w.child)::oid AND k.conname = w.name
                 JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 JOIN pg_catalog.pg_class p ON p.oid = k.confrelid
                 JOIN pg_catalog.pg_namespace m ON m.oid = p.relnamespace
                 WHERE k.contype = 'f' AND k.conparentid = 0 ORDER BY k.oid",
                &[&key_tables, &key_names],
            )
            .await
            .map_err(Error::database(DROP))?;
        let triggers = plan.triggers.iter().filter_map(|definition| match &definition.kind {
            DefinitionKind::Trigger { name, table, .. } if tables.contains(table) => {
                Some((table.to_string(), name.as_str()))
            }
            _ => None,
        });
        let (trigger_tables, trigger_names): (Vec<_>, Vec<_>) = triggers.unzip();
        let triggers = client
            .query(
                "SELECT t.oid, t.tgname::text, c.oid, n.nspname::text, c.relname::text
                 FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) w(child, name)
                 JOIN pg_catalog.pg_trigger t
                      ON t.tgrelid = pg_catalog.to_regclass(w.child)::oid AND t.tgname = w.name
                 JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE NOT t.tgisinternal AND t.tgparentid = 0 ORDER BY t.oid",
                &[&trigger_tables, &trigger_names],
            )
            .await
            .map_err(Error::database(DROP))?;
        let table =
            |row: &Row, place| TableName::new(row.get::<_, String>(place), row.get::<_, String>(place + 1)).ok();
        let name = |row: &Row| Ident::new(row.get::<_, String>(1)).ok();
        let key = |row: &Row| {
            let (name, table, references) = (name(row)?, table(row, 3)?, table(row, 5)?);
            Some(Key { oid: row.get(0), name, table, table_oid: row.get(2), references })
        };
        let trigger = |row: &Row| {
            Some(Trigger { oid: row.get(0), name: name(row)?, table: table(row, 3)?, table_oid: row.get(2) })
        };
        let mut keys: Vec<_> = keys.iter().filter_map(key).collect();
        keys.retain(|key| tables.contains(&key.table) || tables.contains(&key.references));
        Ok(Self { keys, triggers: triggers.iter().filter_map(trigger).collect() })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.triggers.is_empty()
    }

    /// Locks the tables that have them, in the order of their OIDs.
    async fn lock(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        let mut tables: BTreeMap<Oid, &TableName> = BTreeMap::new();
        tables.extend(self.keys.iter().map(|key| (key.table_oid, &key.table)));
        tables.extend(self.triggers.iter().map(|trigger| (trigger.table_oid, &trigger.table)));
        for table in tables.into_values() {
            lock_exclusively(transaction, table).await?;
        }
        Ok(())
    }

    /// Writes them down and drops them; how many there were. Their tables must be locked.
    pub(crate) async fn drop(&self, transaction: &Transaction<'_>) -> Result<usize, Error> {
        let keys: Vec<Oid> = self.keys.iter().map(|key| key.oid).collect();
        let triggers: Vec<Oid> = self.triggers.iter().map(|trigger| trigger.oid).collect();
        dropped::note(transaction, &keys, &triggers).await?;
        for Key { name, table, references, .. } in &self.keys {
            let sql = format!("ALTER TABLE {table} DROP CONSTRAINT {name}");
            // Of the two tables that this locks, the first is locked.
            transaction.batch_execute(&sql).await.map_err(in_use(references, DROP))?;
        }
        for Trigger { name, table, .. } in &self.triggers {
            let sql = format!("DROP TRIGGER {name} ON {table}");
            transaction.batch_execute(&sql).await.map_err(in_use(table, DROP))?;
        }
        Ok(keys.len() + triggers.len())
    }
}
