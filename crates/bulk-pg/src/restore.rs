//! Makes again what loads have dropped.

use tokio_postgres::error::SqlState;

use crate::dropped::{self, Dropped, Kind};
use crate::error::Cause;
use crate::{Error, ForeignKey, Ident, Session, TableName};

/// A foreign key, trigger or index that was dropped for a load and that the server refuses to make again. It stays in
/// `bulk.dropped`, and the next run tries again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotRestored {
    /// Its table.
    pub table: TableName,
    /// Its name.
    pub name: Ident,
    /// The statement that would make it.
    pub statement: String,
    /// What the server says.
    pub reason: String,
}

/// What became of all that had been dropped of one kind.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub(crate) made: usize,
    /// Foreign keys that are there, now or since an earlier run, and whose rows are to be checked.
    pub(crate) unchecked: Vec<Unchecked>,
    pub(crate) refused: Vec<NotRestored>,
}

/// A foreign key that is there NOT VALID, and the row that says so.
#[derive(Debug)]
pub(crate) struct Unchecked {
    pub(crate) id: i64,
    pub(crate) key: ForeignKey,
}

impl Restored {
    pub(crate) fn refuse(&mut self, dropped: Dropped, reason: String) {
        let statement = dropped.statement();
        let Dropped { table, name, .. } = dropped;
        self.refused.push(NotRestored { table, name, statement, reason });
    }

    /// Whether something of this name was dropped and could not be made again, so that nothing else may take its place.
    pub(crate) fn has_refused(&self, table: &TableName, name: &Ident) -> bool {
        self.refused.iter().any(|refused| refused.table == *table && refused.name == *name)
    }

    pub(crate) fn has_unchecked(&self, key: &ForeignKey) -> bool {
        self.unchecked.iter().any(|unchecked| unchecked.key.table == key.table && unchecked.key.name == key.name)
    }
}

/// Makes again whatever was dropped of a kind and is not there. What belongs to a table that is gone is forgotten, and so
/// is what somebody else has made or dropped since. If some tables are said, it is `only` about theirs. `step` is told of
/// each statement, and may stop the work.
pub(crate) async fn restore(
    session: &Session,
    kind: Kind,
    only: Option<&[TableName]>,
    step: impl Fn(&str) -> Result<(), Error>,
) -> Result<Restored, Error> {
    let mut restored = Restored::default();
    for dropped in dropped::list(session, kind, only).await? {
        match (dropped.exists, dropped.remade) {
            (true, true) => match find_unchecked(session, &dropped).await? {
                Some(unchecked) => restored.unchecked.push(unchecked),
                None => dropped::forget(session, dropped.id).await?,
            },
            (false, false) if dropped.has_table => make(session, dropped, &step, &mut restored).await?,
            _ => dropped::forget(session, dropped.id).await?,
        }
    }
    Ok(restored)
}

async fn make(
    session: &Session,
    dropped: Dropped,
    step: impl Fn(&str) -> Result<(), Error>,
    restored: &mut Restored,
) -> Result<(), Error> {
    let statement = dropped.statement();
    step(&statement)?;
    match session.client().batch_execute(&dropped.script()).await {
        Ok(()) => {
            restored.made += 1;
            if dropped.is_to_be_checked() {
                restored.unchecked.extend(find_unchecked(session, &dropped).await?);
            }
        }
        Err(error) if dropped.kind == Kind::ForeignKey && error.code().is_some_and(is_absent) => {
            // DROP TABLE would have taken the key with the table that it refers to.
            dropped::forget(session, dropped.id).await?;
        }
        Err(error) => match Cause(error) {
            cause if cause.is_remote() => {
                let action = format!("make {:#} of {:#} again", dropped.name, dropped.table);
                return Err(Error::Database { action, source: cause });
            }
            cause => restored.refuse(dropped, cause.to_string()),
        },
    }
    Ok(())
}

fn is_absent(code: &SqlState) -> bool {
    [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME].contains(code)
}

/// The foreign key as the server has it, which the plan may not know, or not as it is. `None` if a constraint of another
/// kind has its name by now.
async fn find_unchecked(session: &Session, dropped: &Dropped) -> Result<Option<Unchecked>, Error> {
    let row = session
        .client()
        .query_opt(
            "SELECT n.nspname::text, p.relname::text,
                    ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY u(attnum, place)
                          JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum
                          ORDER BY u.place),
                    ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY u(attnum, place)
                          JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum
                          ORDER BY u.place)
             FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class p ON p.oid = k.confrelid
             JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace
             WHERE k.contype = 'f' AND k.conrelid = pg_catalog.to_regclass($1)::oid AND k.conname = $2",
            &[&dropped.table.to_string(), &dropped.name.as_str()],
        )
        .await
        .map_err(Error::database(format!("read the columns of {:#}", dropped.name)))?;
    let idents = |row: &tokio_postgres::Row, place| -> Option<Vec<Ident>> {
        row.get::<_, Vec<String>>(place).into_iter().map(|name| Ident::new(name).ok()).collect()
    };
    let key = row.and_then(|row| {
        let references = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)).ok()?;
        let (columns, ref_columns) = (idents(&row, 2)?, idents(&row, 3)?);
        let (name, table, sql) = (dropped.name.clone(), dropped.table.clone(), dropped.statement());
        Some(ForeignKey::existing(name, table, columns, references, ref_columns, sql))
    });
    Ok(key.map(|key| Unchecked { id: dropped.id, key }))
}
