//! One loader a table.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use futures::FutureExt;
use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Oid;

use crate::{Error, Session, TableName};

/// The first of the two numbers of an advisory lock of ours, "bulk" in ASCII; the second is the table's OID. All users of
/// a database share these locks, and the server keeps pairs of numbers apart from single ones.
pub(crate) const LOCK_CLASS: i32 = 0x6275_6c6b;

/// How long is waited for a lock, unless the caller says: a program that was killed is missed by the server within a second
/// or so.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Lets this session, among the sessions of this program, alone write to a table, until the session ends: a
/// [`load`](crate::load()) into it waits or fails meanwhile. For who writes to it in another way for long.
///
/// It waits 5 s for another one, since that may be of a program that was killed, which the server misses within a second or
/// so.
///
/// # Errors
///
/// [`Error::Occupied`] if another session has it, [`Error::Database`], also if there is no such table.
pub async fn lock_table(session: &mut Session, table: &TableName) -> Result<(), Error> {
    let transaction = begin(session, LOCK_TIMEOUT).await?;
    let find = "SELECT $1::text::pg_catalog.regclass::oid";
    let row = transaction.query_one(find, &[&table.to_string()]).await;
    let oid: Oid = row.map_err(Error::database(format!("find {table:#}")))?.get(0);
    let lock = format!("SELECT pg_catalog.pg_advisory_lock({LOCK_CLASS}, {})", oid.cast_signed());
    transaction.batch_execute(&lock).await.map_err(held(table))?;
    transaction.commit().await.map_err(Error::database(format!("lock {table:#}")))
}

/// As [`lock_table`], of several tables that were found before.
pub(crate) async fn lock_tables(session: &mut Session, tables: &[(TableName, Oid)]) -> Result<(), Error> {
    let mut tables: Vec<_> = tables.iter().collect();
    // As in `begin_locked`.
    tables.sort_by_key(|(_, oid)| *oid);
    tables.dedup_by_key(|(_, oid)| *oid);
    let transaction = begin(session, LOCK_TIMEOUT).await?;
    for (table, oid) in tables {
        let lock = format!("SELECT pg_catalog.pg_advisory_lock({LOCK_CLASS}, {})", oid.cast_signed());
        transaction.batch_execute(&lock).await.map_err(held(table))?;
    }
    transaction.commit().await.map_err(Error::database("lock tables"))
}

/// A session that has a table to itself, among the sessions of this program, until the value is dropped.
///
/// The lock is the session's and not a transaction's, so it holds from chunk to chunk; it ends at the latest with the
/// session. PostgreSQL manual, "Advisory Locks".
pub(crate) struct LockedTable<'a> {
    session: &'a mut Session,
    /// The statement that gives the lock back, while it is held.
    unlock: Option<String>,
}

impl<'a> LockedTable<'a> {
    /// Takes the lock, or fails with [`Error::Occupied`] if another session still has it after `timeout`.
    pub(crate) async fn lock(
        session: &'a mut Session,
        table: &TableName,
        oid: Oid,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let unlock = format!("SELECT pg_catalog.pg_advisory_unlock({LOCK_CLASS}, {})", oid.cast_signed());
        // Made before the lock is asked for, lest a drop in between leaves the session with it.
        let mut locked = Self { session, unlock: Some(unlock) };
        let taken = locked.take(table, oid, timeout).await;
        if taken.is_err() {
            locked.unlock = None;
        }
        taken.map(|()| locked)
    }

    async fn take(&mut self, table: &TableName, oid: Oid, timeout: Duration) -> Result<(), Error> {
        let transaction = begin(self.session, timeout).await?;
        let sql = format!("SELECT pg_catalog.pg_advisory_lock({LOCK_CLASS}, {})", oid.cast_signed());
        transaction.batch_execute(&sql).await.map_err(held(table))?;
        transaction.commit().await.map_err(Error::database(format!("lock {table:#}")))
    }

    /// Gives the lock back, and waits until the server has it.
    pub(crate) async fn unlock(mut self) -> Result<(), Error> {
        let Some(sql) = self.unlock.take() else { return Ok(()) };
        self.session.client().batch_execute(&sql).await.map_err(Error::database("unlock the table"))
    }
}

impl Deref for LockedTable<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session
    }
}

impl DerefMut for LockedTable<'_> {
    fn deref_mut(&mut self) -> &mut Session {
        self.session
    }
}

impl Drop for LockedTable<'_> {
    fn drop(&mut self) {
        if let Some(sql) = self.unlock.take() {
            // The first poll queues the statement behind what was sent; nobody waits for its answer.
            let _ = self.session.client().batch_execute(&sql).now_or_never();
        }
    }
}

/// Takes the locks of those of several tables that are there, within a transaction that it begins, until that ends. No
/// statement of the transaction waits longer for a lock than `timeout`.
pub(crate) async fn begin_locked<'a>(
    session: &'a mut Session,
    tables: &[TableName],
    timeout: Duration,
) -> Result<(Transaction<'a>, Vec<(TableName, Oid)>), Error> {
    let transaction = begin(session, timeout).await?;
    let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
    // In one order everywhere, so that two that lock several do not wait for each other.
    let rows = transaction
        .query(
            "SELECT min(t.place), pg_catalog.to_regclass(t.name)::oid
             FROM pg_catalog.unnest($1::text[]) WITH ORDINALITY t(name, place)
             WHERE pg_catalog.to_regclass(t.name) IS NOT NULL GROUP BY 2 ORDER BY 2",
            &[&names],
        )
        .await
        .map_err(Error::database("find the tables to lock"))?;
    let table = |row: &tokio_postgres::Row| {
        let place = usize::try_from(row.get::<_, i64>(0)).ok()?.checked_sub(1)?;
        Some((tables.get(place)?.clone(), row.get::<_, Oid>(1)))
    };
    let tables: Vec<_> = rows.iter().filter_map(table).collect();
    for (table, oid) in &tables {
        let sql = format!("SELECT pg_catalog.pg_advisory_xact_lock({LOCK_CLASS}, {})", oid.cast_signed());
        transaction.batch_execute(&sql).await.map_err(held(table))?;
    }
    Ok((transaction, tables))
}

/// Commits what was done, or rolls it back and waits until its locks are free.
pub(crate) async fn end<T>(
    transaction: Transaction<'_>,
    result: Result<T, Error>,
    action: &'static str,
) -> Result<T, Error> {
    let end = if result.is_ok() { transaction.commit().await } else { transaction.rollback().await };
    let done = result?;
    end.map_err(Error::database(action))?;
    Ok(done)
}

/// Locks a table against everybody, readers included, until the transaction ends.
pub(crate) async fn lock_exclusively(transaction: &Transaction<'_>, table: &TableName) -> Result<(), Error> {
    let sql = format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
    transaction.batch_execute(&sql).await.map_err(in_use(table, format!("lock {table:#}")))
}

/// Begins a transaction in which no statement waits longer for a lock than `timeout`.
pub(crate) async fn begin(session: &mut Session, timeout: Duration) -> Result<Transaction<'_>, Error> {
    let action = || Error::database("begin to lock tables");
    let transaction = session.client_mut().transaction().await.map_err(action())?;
    // Zero would mean to wait for ever, and the server counts to `i32::MAX`.
    let timeout = timeout.as_millis().clamp(1, i32::MAX as u128);
    transaction.batch_execute(&format!("SET LOCAL lock_timeout = {timeout}")).await.map_err(action())?;
    Ok(transaction)
}

fn held(table: &TableName) -> impl FnOnce(tokio_postgres::Error) -> Error {
    let what = "is being loaded by another session; wait for it, or stop it";
    not_available(table, what, format!("lock {table:#}"))
}

/// Of a statement that changes a table, and failed while it did `action`.
pub(crate) fn in_use(table: &TableName, action: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Error {
    not_available(table, "is in use by another session; wait until its transaction ends, or end it", action.into())
}

fn not_available(table: &TableName, what: &'static str, action: String) -> impl FnOnce(tokio_postgres::Error) -> Error {
    let table = table.clone();
    move |error| match error.code() {
        Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => Error::Occupied { table, what: what.to_owned() },
        _ => Error::database(action)(error),
    }
}
