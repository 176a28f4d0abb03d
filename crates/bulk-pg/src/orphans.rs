//! Rows that refer to nothing, moved out of the tables that were loaded.

use std::collections::BTreeMap;

use tokio_postgres::types::Oid;
use tokio_postgres::{Row, Transaction};

use crate::foreign_key::NOTE;
use crate::table_lock::{LOCK_TIMEOUT, begin, end, in_use};
use crate::{Error, Ident, Session, TableName, content};

/// What is done with rows that a foreign key forbids, once all rows are loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrphanPolicy {
    /// They stay; their foreign key stays NOT VALID, with a comment that says so.
    #[default]
    Report,
    /// They are moved to `bulk.reject`, with the rows that refer to them, and so on, and the foreign key is valid then.
    Reject,
}

/// Rows that were moved to `bulk.reject` for one foreign key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RejectedOrphans {
    /// The constraint.
    pub constraint: String,
    /// The table that refers.
    pub table: TableName,
    /// The table that lacks the rows.
    pub references: TableName,
    /// How many rows went of each table: of `table` those that refer to nothing, of it and others those that referred to
    /// them.
    pub rows: BTreeMap<TableName, u64>,
}

/// A foreign key whose orphans could not be moved, and why. It stays as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptOrphans {
    /// The constraint.
    pub constraint: String,
    /// The table that refers.
    pub table: TableName,
    /// What stands in the way.
    pub reason: String,
}

/// What became of the foreign keys that were found violated.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    pub(crate) rejected: Vec<RejectedOrphans>,
    pub(crate) kept: Vec<KeptOrphans>,
}

/// Moves the orphans of every foreign key that a [note](foreign_key::NOTE) of ours marks, and that leads from a table which
/// was loaded and `is_asked` takes; then the key is validated. Each in one transaction, so that whatever ends it leaves the
/// key as it was. `step` is told of each key, and may stop the work.
///
/// A row that refers to one which is moved would be an orphan, so it goes, too. Only rows of tables that were loaded are
/// ever moved: where others would have to go, nothing is done.
pub(crate) async fn reject(
    session: &mut Session,
    is_asked: impl Fn(&TableName) -> bool,
    step: impl Fn(&str) -> Result<(), Error>,
) -> Result<Moved, Error> {
    let mut moved = Moved::default();
    for key in violated(session).await? {
        if !is_asked(&key.table) {
            continue;
        }
        step(&format!("move the orphans of {:#} to bulk.reject", key.name))?;
        let transaction = begin(session, LOCK_TIMEOUT).await?;
        let result = move_orphans(&transaction, &key).await;
        let result = end(transaction, result, MOVE).await;
        let Key { name, table, references, .. } = key;
        let constraint = name.as_str().to_owned();
        match result {
            Ok(rows) => moved.rejected.push(RejectedOrphans { constraint, table, references, rows }),
            Err(error) if error.is_remote() => return Err(error),
            Err(error) => moved.kept.push(KeptOrphans { constraint, table, reason: reason(&error) }),
        }
    }
    Ok(moved)
}

fn reason(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

const MOVE: &str = "move orphans to bulk.reject";

/// A foreign key as the server has it.
struct Key {
    name: Ident,
    table: TableName,
    oid: Oid,
    columns: Vec<Ident>,
    references: TableName,
    ref_columns: Vec<Ident>,
    /// Whether the rows of `table` were loaded.
    is_loaded: bool,
}

/// What a query for [`Key`]s selects.
const KEY: &str = "
    SELECT k.conname::text, n.nspname::text, c.relname::text, c.oid, m.nspname::text, p.relname::text,
           ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY u(attnum, place)
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum ORDER BY u.place),
           ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY u(attnum, place)
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum ORDER BY u.place),
           EXISTS (SELECT FROM bulk.load l WHERE l.target_oid = c.oid AND l.finished_at IS NOT NULL)
    FROM pg_catalog.pg_constraint k
    JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_class p ON p.oid = k.confrelid JOIN pg_catalog.pg_namespace m ON m.oid = p.relnamespace
    WHERE k.contype = 'f' AND k.conparentid = 0";

impl Key {
    fn read(row: &Row) -> Option<Self> {
        let table = |place| TableName::new(row.get::<_, String>(place), row.get::<_, String>(place + 1)).ok();
        let idents = |place| -> Option<Vec<Ident>> {
            row.get::<_, Vec<String>>(place).into_iter().map(|name| Ident::new(name).ok()).collect()
        };
        Some(Self {
            name: Ident::new(row.get::<_, String>(0)).ok()?,
            table: table(1)?,
            oid: row.get(3),
            references: table(4)?,
            columns: idents(6)?,
            ref_columns: idents(7)?,
            is_loaded: row.get(8),
        })
    }

    /// `c.a = p.x AND c.b = p.y`.
    fn equal(&self) -> String {
        let pairs = self.columns.iter().zip(&self.ref_columns).map(|(column, other)| format!("c.{column} = p.{other}"));
        pairs.collect::<Vec<_>>().join(" AND ")
    }

    /// What a reject has as its column.
    fn column(&self) -> String {
        self.columns.iter().map(Ident::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// The keys that are NOT VALID, noted by us, and of tables that were loaded.
async fn violated(session: &Session) -> Result<Vec<Key>, Error> {
    let sql = format!(
        "{KEY} AND NOT k.convalidated AND EXISTS (SELECT FROM bulk.load l WHERE l.target_oid = c.oid)
         AND pg_catalog.starts_with(pg_catalog.obj_description(k.oid, 'pg_constraint'), $1)
         ORDER BY n.nspname, c.relname, k.conname"
    );
    let rows = session.client().query(&sql, &[&NOTE]).await;
    let rows = rows.map_err(Error::database("find the foreign keys that are violated"))?;
    Ok(rows.iter().filter_map(Key::read).collect())
}

/// The keys that lead to a table.
async fn referring(transaction: &Transaction<'_>, to: Oid) -> Result<Vec<Key>, Error> {
    let rows = transaction.query(&format!("{KEY} AND k.confrelid = $1 ORDER BY c.oid, k.oid"), &[&to]).await;
    Ok(rows.map_err(Error::database(MOVE))?.iter().filter_map(Key::read).collect())
}

/// Moves the orphans of one key with all that refers to them, validates it and takes its note away. How many rows went.
async fn move_orphans(transaction: &Transaction<'_>, key: &Key) -> Result<BTreeMap<TableName, u64>, Error> {
    let action = || Error::database(MOVE);
    lock(transaction, &key.table).await?;
    lock(transaction, &key.references).await?;
    // By `tableoid`, too: rows of two partitions may have one `ctid`.
    let sql = "CREATE TEMPORARY TABLE bulk_orphan (
                   of oid NOT NULL, part oid NOT NULL, place tid NOT NULL, refers text NOT NULL, message text NOT NULL,
                   PRIMARY KEY (of, part, place)
               ) ON COMMIT DROP";
    transaction.batch_execute(sql).await.map_err(action())?;
    let not_null: Vec<_> = key.columns.iter().map(|column| format!("c.{column} IS NOT NULL")).collect();
    let message = format!("it refers to no row of {:#} ({})", key.references, key.name.as_str());
    let sql = format!(
        "INSERT INTO pg_temp.bulk_orphan
         SELECT {}, c.tableoid, c.ctid, $1, $2 FROM {} c
         WHERE {} AND NOT EXISTS (SELECT FROM {} p WHERE {})",
        key.oid,
        key.table,
        not_null.join(" AND "),
        key.references,
        key.equal(),
    );
    transaction.execute(&sql, &[&key.column(), &message]).await.map_err(action())?;
    let tables = follow(transaction, key).await?;

    let mut rows = BTreeMap::new();
    for (oid, table) in &tables {
        let sql = "SELECT count(*) FROM pg_temp.bulk_orphan WHERE of = $1";
        let count: i64 = transaction.query_one(sql, &[oid]).await.map_err(action())?.get(0);
        if count > 0 {
            rows.insert(table.clone(), count.unsigned_abs());
        }
    }
    let tables: Vec<_> = tables.iter().filter(|(_, table)| rows.contains_key(table)).collect();
    if !tables.is_empty() {
        delete(transaction, &tables).await?;
    }
    // Else the key could not be altered while its checks are pending.
    transaction.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await.map_err(action())?;
    let Key { name, table, .. } = key;
    let sql =
        format!("ALTER TABLE {table} VALIDATE CONSTRAINT {name}; COMMENT ON CONSTRAINT {name} ON {table} IS NULL");
    transaction.batch_execute(&sql).await.map_err(in_use(table, MOVE))?;
    Ok(rows)
}

async fn lock(transaction: &Transaction<'_>, table: &TableName) -> Result<(), Error> {
    let sql = format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE");
    transaction.batch_execute(&sql).await.map_err(in_use(table, MOVE))
}

/// Notes the rows that refer to those which are noted, until there are no more; all tables that may have some.
async fn follow(transaction: &Transaction<'_>, key: &Key) -> Result<Vec<(Oid, TableName)>, Error> {
    let mut tables = vec![(key.oid, key.table.clone())];
    let mut next = vec![key.oid];
    while let Some(oid) = next.pop() {
        for referrer in referring(transaction, oid).await? {
            lock(transaction, &referrer.table).await?;
            let select = format!(
                "FROM {} c JOIN {} p ON {} JOIN pg_temp.bulk_orphan o ON o.of = {oid} AND o.part = p.tableoid
                 AND o.place = p.ctid",
                referrer.table,
                referrer.references,
                referrer.equal(),
            );
            if !referrer.is_loaded {
                let sql = format!("SELECT EXISTS (SELECT {select})");
                if transaction.query_one(&sql, &[]).await.map_err(Error::database(MOVE))?.get(0) {
                    let what = "has rows that refer to the orphans, and that this program did not load".to_owned();
                    return Err(Error::Occupied { table: referrer.table, what });
                }
                continue;
            }
            let message = format!(
                "it refers to a row of {:#} that was left out ({})",
                referrer.references,
                referrer.name.as_str()
            );
            let sql = format!(
                "INSERT INTO pg_temp.bulk_orphan
                 SELECT DISTINCT ON (c.tableoid, c.ctid) {}, c.tableoid, c.ctid, $1, $2 {select} ON CONFLICT DO NOTHING",
                referrer.oid,
            );
            let found =
                transaction.execute(&sql, &[&referrer.column(), &message]).await.map_err(Error::database(MOVE))?;
            if found > 0 && !next.contains(&referrer.oid) {
                next.push(referrer.oid);
            }
            if !tables.iter().any(|(oid, _)| *oid == referrer.oid) {
                tables.push((referrer.oid, referrer.table));
            }
        }
    }
    Ok(tables)
}

/// Deletes the rows that are noted and writes them down, all in one statement: keys are checked when it ends, so that no
/// order of the tables matters. PostgreSQL manual, "Data-Modifying Statements in WITH" and "SET CONSTRAINTS".
async fn delete(transaction: &Transaction<'_>, tables: &[&(Oid, TableName)]) -> Result<(), Error> {
    let mut gone = Vec::new();
    for (place, (oid, table)) in tables.iter().enumerate() {
        let content = match content::columns_of_last(transaction, *oid).await? {
            Some(columns) => {
                content::of_row(&columns.iter().map(|name| format!("t.{name}")).collect::<Vec<_>>().join(", "))
            }
            None => "NULL::bigint".to_owned(),
        };
        gone.push(format!(
            "gone{place} AS (DELETE FROM {table} t USING pg_temp.bulk_orphan o
                             WHERE o.of = {oid} AND o.part = t.tableoid AND o.place = t.ctid
                             RETURNING o.of, o.refers, o.message, pg_catalog.to_jsonb(t.*) AS fields,
                                       {content} AS content)"
        ));
    }
    let all = (0..tables.len()).map(|place| format!("SELECT * FROM gone{place}"));
    // Of several files that went into a table nobody knows whose a row is.
    let sql = format!(
        "WITH {}, gone AS ({}),
              loads AS (SELECT target_oid, max(id) AS id FROM bulk.load WHERE finished_at IS NOT NULL GROUP BY 1),
              counted AS (UPDATE bulk.load l SET rejected = l.rejected + g.rows, content_gone = l.content_gone + g.content
                          FROM (SELECT s.id, count(*) AS rows, coalesce(sum(gone.content), 0) AS content FROM gone JOIN loads s ON s.target_oid = gone.of GROUP BY 1) g
                          WHERE l.id = g.id)
         INSERT INTO bulk.reject (load_id, \"column\", sqlstate, message, fields)
         SELECT s.id, gone.refers, '{FOREIGN_KEY_VIOLATION}', gone.message, gone.fields
         FROM gone JOIN loads s ON s.target_oid = gone.of",
        gone.join(",\n"),
        all.collect::<Vec<_>>().join(" UNION ALL "),
    );
    transaction.execute(&sql, &[]).await.map_err(Error::database(MOVE))?;
    Ok(())
}

const FOREIGN_KEY_VIOLATION: &str = "23503";
