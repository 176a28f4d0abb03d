//! What loads have dropped and that is to be made again as it was: `bulk.dropped`, a row for each foreign key, trigger and
//! index.
//!
//! A row is written in the transaction that drops the thing, and goes in the one that makes it again; that of a foreign
//! key whose rows are to be checked stays until they are, and that of a constraint's index until it is the constraint's. So nothing is lost wherever a run ends.

use tokio_postgres::Transaction;
use tokio_postgres::types::Oid;

use crate::{Error, Ident, Session, TableName, foreign_key, quote_literal};

pub(crate) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS bulk.dropped (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        target_schema text NOT NULL,
        target_table text NOT NULL,
        kind text NOT NULL,
        name text NOT NULL,
        definition text NOT NULL,
        comment text,
        validated boolean,
        enabled text,
        dropped_at timestamptz NOT NULL DEFAULT now(),
        remade_at timestamptz,
        UNIQUE (target_schema, target_table, kind, name)
    );
    ALTER TABLE bulk.dropped ADD COLUMN IF NOT EXISTS attach text, DROP CONSTRAINT IF EXISTS dropped_kind_check;
    COMMENT ON TABLE bulk.dropped IS 'A foreign key, trigger or index that was dropped for a load and is made again after it as it was; remade_at is set on a foreign key that is there again, and whose rows are still to be checked, and on an index that is there and still to become that of the constraint that attach speaks of.';";

/// What a row of the record is about. Their names on a table do not clash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    ForeignKey,
    Trigger,
    Index,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::ForeignKey => "foreign key",
            Self::Trigger => "trigger",
            Self::Index => "index",
        }
    }
}

/// Something that was dropped, and what became of it and its table since.
#[derive(Clone, Debug)]
pub(crate) struct Dropped {
    pub(crate) id: i64,
    pub(crate) kind: Kind,
    pub(crate) table: TableName,
    pub(crate) name: Ident,
    /// What the server says that it was, with all names qualified: of a foreign key what follows its name, without NOT
    /// VALID; of a trigger or index the statement.
    pub(crate) definition: String,
    comment: Option<String>,
    /// Whether the rows were known to fulfil a foreign key.
    validated: bool,
    /// `pg_trigger.tgenabled`.
    enabled: Option<String>,
    /// Which constraint an index is to be of: `PRIMARY KEY` or `UNIQUE`, and when it is checked.
    pub(crate) attach: Option<String>,
    /// Whether it was made again and only its rows are still to be checked.
    pub(crate) remade: bool,
    pub(crate) has_table: bool,
    is_partitioned: bool,
    /// Whether the table has one of this name, whoever made it.
    pub(crate) exists: bool,
}

const NOTE: &str = "note what is dropped for the load";

/// Writes down indexes, which the same transaction is to drop.
pub(crate) async fn note_indexes(transaction: &Transaction<'_>, indexes: &[Oid]) -> Result<(), Error> {
    let sql = "
        INSERT INTO bulk.dropped (target_schema, target_table, kind, name, definition, comment, attach)
        SELECT n.nspname, c.relname, 'index', i.relname, pg_catalog.pg_get_indexdef(i.oid),
               coalesce(pg_catalog.obj_description(k.oid, 'pg_constraint'), pg_catalog.obj_description(i.oid, 'pg_class')),
               CASE k.contype WHEN 'p' THEN 'PRIMARY KEY' WHEN 'u' THEN 'UNIQUE' END
               || CASE WHEN k.condeferrable THEN ' DEFERRABLE' ELSE '' END
               || CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' ELSE '' END
        FROM pg_catalog.pg_index x
        JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
        JOIN pg_catalog.pg_class c ON c.oid = x.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.oid AND k.conrelid = c.oid AND k.contype IN ('p', 'u')
        WHERE i.oid = ANY ($1) ORDER BY i.oid
        ON CONFLICT (target_schema, target_table, kind, name) DO UPDATE
        SET definition = excluded.definition, comment = excluded.comment, attach = excluded.attach, dropped_at = now(),
            remade_at = NULL";
    // The server leaves out the schemas of the search path.
    transaction.batch_execute("SET LOCAL search_path = ''").await.map_err(Error::database(NOTE))?;
    transaction.execute(sql, &[&indexes]).await.map_err(Error::database(NOTE))?;
    transaction.batch_execute("SET LOCAL search_path = public").await.map_err(Error::database(NOTE))
}

/// Writes down foreign keys and triggers, which the same transaction is to drop.
pub(crate) async fn note(transaction: &Transaction<'_>, keys: &[Oid], triggers: &[Oid]) -> Result<(), Error> {
    let action = || Error::database(NOTE);
    // A key that was made again and dropped before its rows were checked is as valid as it was the first time.
    let update = "ON CONFLICT (target_schema, target_table, kind, name) DO UPDATE
                  SET definition = excluded.definition, comment = excluded.comment, enabled = excluded.enabled,
                      validated = excluded.validated OR (old.validated AND old.remade_at IS NOT NULL),
                      dropped_at = now(), remade_at = NULL";
    let keys_sql = format!(
        "INSERT INTO bulk.dropped AS old (target_schema, target_table, kind, name, definition, comment, validated)
         SELECT n.nspname, c.relname, 'foreign key', k.conname,
                pg_catalog.regexp_replace(pg_catalog.pg_get_constraintdef(k.oid), ' NOT VALID$', ''),
                pg_catalog.obj_description(k.oid, 'pg_constraint'), k.convalidated
         FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE k.oid = ANY ($1) ORDER BY k.oid {update}"
    );
    let triggers_sql = format!(
        "INSERT INTO bulk.dropped AS old (target_schema, target_table, kind, name, definition, comment, enabled)
         SELECT n.nspname, c.relname, 'trigger', t.tgname, pg_catalog.pg_get_triggerdef(t.oid),
                pg_catalog.obj_description(t.oid, 'pg_trigger'), t.tgenabled
         FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE t.oid = ANY ($1) ORDER BY t.oid {update}"
    );
    // The server leaves out the schemas of the search path.
    transaction.batch_execute("SET LOCAL search_path = ''").await.map_err(action())?;
    transaction.execute(&keys_sql, &[&keys]).await.map_err(action())?;
    transaction.execute(&triggers_sql, &[&triggers]).await.map_err(action())?;
    transaction.batch_execute("SET LOCAL search_path = public").await.map_err(action())
}

/// All of a kind that was dropped and is not there again, or not checked, the oldest first; of `only` these tables if some
/// are said. Nothing without a ledger.
pub(crate) async fn list(session: &Session, kind: Kind, only: Option<&[TableName]>) -> Result<Vec<Dropped>, Error> {
    let action = || Error::database("read what earlier loads have dropped");
    let exists = session.client().query_one("SELECT to_regclass('bulk.dropped') IS NOT NULL", &[]).await;
    if !exists.map_err(action())?.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let rows = session
        .client()
        .query(
            "SELECT d.id, d.target_schema, d.target_table, d.name, d.definition, d.comment, coalesce(d.validated, false),
                    d.enabled, d.remade_at IS NOT NULL, c.oid IS NOT NULL, coalesce(c.relkind = 'p', false),
                    CASE d.kind WHEN 'trigger'
                    THEN EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = d.name)
                    WHEN 'index'
                    THEN EXISTS (SELECT FROM pg_catalog.pg_class i
                                 WHERE i.relnamespace = c.relnamespace AND i.relname = d.name)
                    ELSE EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.conname = d.name)
                    END, d.attach
             FROM bulk.dropped d
             LEFT JOIN (pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace)
                  ON n.nspname = d.target_schema AND c.relname = d.target_table AND c.relkind IN ('r', 'p')
             WHERE d.kind = $1 ORDER BY d.id",
            &[&kind.as_str()],
        )
        .await
        .map_err(action())?;
    let dropped = |row: &tokio_postgres::Row| {
        Some(Dropped {
            id: row.get(0),
            kind,
            table: TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)).ok()?,
            name: Ident::new(row.get::<_, String>(3)).ok()?,
            definition: row.get(4),
            comment: row.get(5),
            validated: row.get(6),
            enabled: row.get(7),
            remade: row.get(8),
            has_table: row.get(9),
            is_partitioned: row.get(10),
            exists: row.get(11),
            attach: row.get(12),
        })
    };
    let is_asked = |dropped: &Dropped| only.is_none_or(|tables| tables.contains(&dropped.table));
    Ok(rows.iter().filter_map(dropped).filter(is_asked).collect())
}

/// Takes a row out of the record.
pub(crate) async fn forget(session: &Session, id: i64) -> Result<(), Error> {
    session
        .client()
        .execute("DELETE FROM bulk.dropped WHERE id = $1", &[&id])
        .await
        .map_err(Error::database("note what is made again after the load"))?;
    Ok(())
}

impl Dropped {
    /// The statement that makes it again. A foreign key is added without a look at the rows; only a partitioned table's
    /// cannot be, before PostgreSQL 18.
    pub(crate) fn statement(&self) -> String {
        let Self { table, name, definition, .. } = self;
        match self.kind {
            Kind::Trigger | Kind::Index => definition.clone(),
            Kind::ForeignKey => {
                let is_checked_at_once = self.is_partitioned && self.validated;
                let not_valid = if is_checked_at_once || self.is_never_checked() { "" } else { " NOT VALID" };
                format!("ALTER TABLE {table} ADD CONSTRAINT {name} {definition}{not_valid}")
            }
        }
    }

    /// That statement, what belongs to it, and the end of its row, or its mark as made. To be run as one simple query,
    /// which is one transaction: PostgreSQL manual, "Multiple Statements in a Simple Query".
    pub(crate) fn script(&self) -> String {
        let Self { id, table, name, .. } = self;
        let mut statements = vec![self.statement()];
        match self.enabled.as_deref() {
            Some("D") => statements.push(format!("ALTER TABLE {table} DISABLE TRIGGER {name}")),
            Some("R") => statements.push(format!("ALTER TABLE {table} ENABLE REPLICA TRIGGER {name}")),
            Some("A") => statements.push(format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")),
            _ => {}
        }
        if self.attach.is_none() {
            statements.extend(self.comment_statement());
        }
        statements.push(if self.attach.is_some() || self.is_to_be_checked() {
            format!("UPDATE bulk.dropped SET remade_at = now() WHERE id = {id}")
        } else {
            format!("DELETE FROM bulk.dropped WHERE id = {id}")
        });
        statements.join(";\n")
    }

    /// What makes its comment, if it had one.
    pub(crate) fn comment_statement(&self) -> Option<String> {
        let Self { table, name, .. } = self;
        let comment = quote_literal(self.comment.as_deref()?).ok()?;
        Some(match (self.kind, &self.attach) {
            (Kind::Index, None) => format!("COMMENT ON INDEX {}.{name} IS {comment}", table.schema),
            (Kind::Trigger, _) => format!("COMMENT ON TRIGGER {name} ON {table} IS {comment}"),
            (Kind::ForeignKey | Kind::Index, _) => format!("COMMENT ON CONSTRAINT {name} ON {table} IS {comment}"),
        })
    }

    /// Whether rows are to be checked once it is made: they had been, or had been found to violate it by a run of ours.
    pub(crate) fn is_to_be_checked(&self) -> bool {
        let was_checked = self.validated || self.comment.as_deref().is_some_and(foreign_key::is_note);
        self.kind == Kind::ForeignKey && !self.is_partitioned && !self.is_never_checked() && was_checked
    }

    fn is_never_checked(&self) -> bool {
        self.definition.ends_with(" NOT ENFORCED")
    }
}
