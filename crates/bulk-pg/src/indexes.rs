//! Indexes of tables that are loaded: dropped before, and built anew after, which costs less than keeping them up to date
//! row by row.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use futures::future::join_all;
use tokio_postgres::types::Oid;
use tokio_postgres::{Row, Transaction};

use crate::dropped::{self, Dropped, Kind};
use crate::error::Cause;
use crate::restore::Restored;
use crate::table_lock::{LOCK_TIMEOUT, begin_locked, end, in_use, lock_exclusively};
use crate::{Error, QualifiedName, Session, TableName};

/// Drops the indexes of `tables`, their primary keys and unique constraints among them, and the foreign keys that lead from
/// them, in one transaction that also writes down in `bulk.dropped` how each was; how many there were.
/// [`restore_dependents`](crate::restore_dependents) and [`apply_post_data`](crate::apply_post_data) make them again just
/// so, the indexes of a table several at a time.
///
/// What cannot be made again as it was, or something else needs, is left alone: an index that a foreign key of another
/// table or a view depends on, that is the replica identity, that the table is clustered on, of an exclusion constraint, in
/// a tablespace of its own, with statistics targets, of an extension, and all of a partitioned table. Without a primary key
/// a published table could not be changed: that one stays, too.
///
/// Until they are made again, nothing keeps two equal keys out of the tables: where a load brings some, the index cannot be
/// made and stays in `bulk.dropped`. The ledger must be [prepared](crate::prepare_ledger).
///
/// # Errors
///
/// [`Error::Occupied`] if one of the tables is loaded by another session, or used by one for longer than 5 s;
/// [`Error::Database`]. Nothing is changed then, nor if the future is dropped.
pub async fn drop_indexes(session: &mut Session, tables: &[TableName]) -> Result<usize, Error> {
    let (transaction, asked) = begin_locked(session, tables, LOCK_TIMEOUT).await?;
    let result = drop_all(&transaction, &asked).await;
    end(transaction, result, DROP).await
}

const DROP: &str = "drop indexes before the load";

/// An index as it is to be dropped.
struct Index {
    oid: Oid,
    name: QualifiedName,
    table: TableName,
    is_constraint: bool,
}

const INDEXES: &str = "
    SELECT i.oid, n.nspname::text, i.relname::text, c.relname::text, k.oid IS NOT NULL
    FROM pg_catalog.pg_index x
    JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid JOIN pg_catalog.pg_am m ON m.oid = i.relam
    JOIN pg_catalog.pg_class c ON c.oid = x.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.oid AND k.conrelid = c.oid AND k.contype IN ('p', 'u', 'x')
    WHERE c.oid = ANY ($1) AND c.relkind = 'r' AND NOT c.relispartition
      AND x.indisvalid AND x.indisready AND NOT (x.indisreplident OR x.indisclustered OR x.indisexclusion)
      AND (k.oid IS NULL OR m.amname = 'btree') AND i.reltablespace = 0
      AND NOT (x.indisprimary AND EXISTS (SELECT FROM pg_catalog.pg_publication_tables p
                                          WHERE p.schemaname = n.nspname AND p.tablename = c.relname))
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = i.oid AND coalesce(a.attstattarget, -1) >= 0)
      AND NOT EXISTS (
          SELECT FROM pg_catalog.pg_depend d
          WHERE d.deptype = 'n'
            AND (d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = i.oid
                 OR d.refclassid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.refobjid = k.oid)
            AND NOT (d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid = ANY ($2)))
      AND NOT EXISTS (
          SELECT FROM pg_catalog.pg_depend d
          WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = i.oid AND d.deptype IN ('e', 'x'))
    ORDER BY i.oid";

const KEYS: &str = "
    SELECT k.oid, n.nspname::text, k.conname::text, c.relname::text, true
    FROM pg_catalog.pg_constraint k
    JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE k.conrelid = ANY ($1) AND k.contype = 'f' AND k.conparentid = 0 ORDER BY k.oid";

async fn drop_all(transaction: &Transaction<'_>, tables: &[(TableName, Oid)]) -> Result<usize, Error> {
    for (table, _) in tables {
        lock_exclusively(transaction, table).await?;
    }
    let read = |row: &Row| {
        let name = |place| row.get::<_, String>(place);
        let table = TableName::new(name(1), name(3)).ok()?;
        let name = QualifiedName::new(name(1), name(2)).ok()?;
        Some(Index { oid: row.get(0), name, table, is_constraint: row.get(4) })
    };
    let oids: Vec<Oid> = tables.iter().map(|(_, oid)| *oid).collect();
    let keys = transaction.query(KEYS, &[&oids]).await.map_err(Error::database(DROP))?;
    let keys: Vec<_> = keys.iter().filter_map(read).collect();
    let key_oids: Vec<Oid> = keys.iter().map(|key| key.oid).collect();
    let indexes = transaction.query(INDEXES, &[&oids, &key_oids]).await.map_err(Error::database(DROP))?;
    let indexes: Vec<_> = indexes.iter().filter_map(read).collect();
    let index_oids: Vec<Oid> = indexes.iter().map(|index| index.oid).collect();
    dropped::note(transaction, &key_oids, &[]).await?;
    dropped::note_indexes(transaction, &index_oids).await?;
    // Keys first: some of the indexes are theirs.
    for Index { name, table, is_constraint, .. } in keys.iter().chain(&indexes) {
        let sql = match is_constraint {
            true => format!("ALTER TABLE {table} DROP CONSTRAINT {}", name.name),
            false => format!("DROP INDEX {name}"),
        };
        transaction.batch_execute(&sql).await.map_err(in_use(table, DROP))?;
    }
    Ok(keys.len() + indexes.len())
}

/// Makes again whatever indexes were dropped, of `only` these tables if some are said: each session takes the next one as it
/// gets free. Constraints get theirs when all are made, since that locks their table.
pub(crate) async fn restore_indexes(
    sessions: &[Session],
    only: Option<&[TableName]>,
    step: impl Fn(&str) -> Result<(), Error> + Sync,
) -> Result<Restored, Error> {
    let mut restored = Restored::default();
    let Some(first) = sessions.first() else { return Ok(restored) };
    let (mut queue, mut made) = (VecDeque::new(), Vec::new());
    for dropped in dropped::list(first, Kind::Index, only).await? {
        match (dropped.exists, dropped.remade) {
            (true, true) => made.push(dropped),
            (false, false) if dropped.has_table => queue.push_back(dropped),
            _ => dropped::forget(first, dropped.id).await?,
        }
    }
    let queue = &Mutex::new(queue);
    let step = &step;
    let work = sessions.iter().map(|session| async move {
        let mut done: Vec<(Dropped, Result<(), String>)> = Vec::new();
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(dropped) = next else { return Ok::<_, Error>(done) };
            step(&dropped.definition)?;
            let result = dropped.run(session, &dropped.script()).await?;
            done.push((dropped, result));
        }
    });
    // Each ends by itself, so that what one has begun is not dropped because another one failed.
    for done in join_all(work).await {
        for (dropped, result) in done? {
            match result {
                Ok(()) if dropped.attach.is_some() => made.push(dropped),
                Ok(()) => restored.made += 1,
                Err(reason) => restored.refuse(dropped, reason),
            }
        }
    }
    made.sort_by_key(|dropped| dropped.id);
    for dropped in made {
        let Some(script) = dropped.attach_script() else {
            dropped::forget(first, dropped.id).await?;
            continue;
        };
        step(&script)?;
        match dropped.run(first, &script).await? {
            Ok(()) => restored.made += 1,
            Err(reason) => restored.refuse(dropped, reason),
        }
    }
    Ok(restored)
}

impl Dropped {
    /// Runs what makes it again. `Ok(Err)` says why the server refuses.
    async fn run(&self, session: &Session, script: &str) -> Result<Result<(), String>, Error> {
        match session.client().batch_execute(script).await.map_err(Cause) {
            Ok(()) => Ok(Ok(())),
            Err(cause) if cause.is_remote() => {
                let action = format!("make {:#} of {:#} again", self.name, self.table);
                Err(Error::Database { action, source: cause })
            }
            Err(cause) => Ok(Err(cause.to_string())),
        }
    }

    /// What gives the constraint its index, which is there.
    fn attach_script(&self) -> Option<String> {
        let Self { id, table, name, attach, .. } = self;
        let attach = attach.as_deref()?;
        let (what, more) =
            ["PRIMARY KEY", "UNIQUE"].into_iter().find_map(|what| Some((what, attach.strip_prefix(what)?)))?;
        let comment = self.comment_statement().map(|statement| format!("{statement};\n")).unwrap_or_default();
        Some(format!(
            "ALTER TABLE {table} ADD CONSTRAINT {name} {what} USING INDEX {name}{more};\n{comment}\
             DELETE FROM bulk.dropped WHERE id = {id}"
        ))
    }
}
