use tokio_postgres::GenericClient;
use tokio_postgres::error::SqlState;

use crate::pre_data::is_duplicate;
use crate::table_lock::{LOCK_CLASS, LOCK_TIMEOUT, begin};
use crate::{Error, InferredTable, Session, TableName};

/// A type, as SQL writes it, that a server has: what a user may have given, and nothing that could be more than a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlType(String);

impl SqlType {
    /// The type that a text stands for, such as `numeric(10,2)`, `text[]` or `public.mood`; `None` if the server has none,
    /// or the text is something else.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub async fn find(session: &Session, text: &str) -> Result<Option<Self>, Error> {
        // Before version 14 the server puts the text into a statement of its own, where a comment would hide what follows.
        if ["--", "/*", "\0"].iter().any(|mark| text.contains(mark)) {
            return Ok(None);
        }
        match session.client().query_one("SELECT pg_catalog.to_regtype($1) IS NOT NULL", &[&text]).await {
            Ok(row) => Ok(row.get::<_, bool>(0).then(|| Self(text.trim().to_owned()))),
            // Up to version 15 what cannot be read is an error.
            Err(error) if error.code().is_some_and(is_of_names) => Ok(None),
            Err(error) => Err(Error::database(format!("look for the type {text:?}"))(error)),
        }
    }

    /// As it stands in a statement.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Classes of syntax and of names that are not there (PostgreSQL manual, "PostgreSQL Error Codes").
fn is_of_names(code: &SqlState) -> bool {
    ["22", "3D", "3F", "42"].iter().any(|class| code.code().starts_with(class))
        && *code != SqlState::INSUFFICIENT_PRIVILEGE
}

/// Whether there is a table of this name that [`load`](crate::load()) can load into.
///
/// # Errors
///
/// [`Error::Database`].
pub async fn table_exists(session: &Session, table: &TableName) -> Result<bool, Error> {
    exists(session.client(), table).await
}

async fn exists(client: &impl GenericClient, table: &TableName) -> Result<bool, Error> {
    let row = client
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c
                            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                            WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p'))",
            &[&table.schema.as_str(), &table.name.as_str()],
        )
        .await
        .map_err(Error::database(format!("look for {table:#}")))?;
    Ok(row.get(0))
}

/// Makes a table, if there is none of its name. False if there is; that is left as it is, whatever its columns are.
///
/// Of two that make the same table at once, one makes it, and the other finds it.
///
/// # Errors
///
/// [`Error::Database`], such as for a schema that is not there or is not ours to make tables in, or a view of that name.
/// Nothing is changed then, nor if the future is dropped.
pub async fn create_table(session: &mut Session, table: &TableName, columns: &InferredTable) -> Result<bool, Error> {
    let action = || Error::database(format!("create table {table:#}"));
    let sql = columns.create_sql(table);
    let transaction = begin(session, LOCK_TIMEOUT).await?;
    // Until the transaction ends: who comes second sees the table of the first.
    let lock = "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1, $2))";
    transaction.execute(lock, &[&table.to_string(), &i64::from(LOCK_CLASS)]).await.map_err(action())?;
    if exists(&transaction, table).await? {
        return Ok(false);
    }
    match transaction.batch_execute(&sql).await {
        Ok(()) => transaction.commit().await.map_err(action()).map(|()| true),
        Err(error) => {
            transaction.rollback().await.map_err(action())?;
            // Somebody else's program does not ask for the lock.
            let is_there = error.code().is_some_and(|code| is_duplicate(code) || *code == SqlState::UNIQUE_VIOLATION);
            if is_there && table_exists(session, table).await? { Ok(false) } else { Err(action()(error)) }
        }
    }
}
