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

/// Takes the locks of several tables within a transaction that it begins, until that ends.
pub(crate) async fn begin_locked<'a>(
    session: &'a mut Session,
    tables: &[(TableName, Oid)],
    timeout: Duration,
) -> Result<Transaction<'a>, Error> {
    let transaction = begin(session, timeout).await?;
    // In one order everywhere, so that two that lock several do not wait for each other.
    let mut tables: Vec<_> = tables.iter().collect();
    tables.sort_by_key(|(_, oid)| *oid);
    for (table, oid) in tables {
        let sql = format!("SELECT pg_catalog.pg_advisory_xact_lock({LOCK_CLASS}, {})", oid.cast_signed());
        transaction.batch_execute(&sql).await.map_err(held(table))?;
    }
    transaction.batch_execute("SET LOCAL lock_timeout = 0").await.map_err(Error::database("lock the tables"))?;
    Ok(transaction)
}

async fn begin(session: &mut Session, timeout: Duration) -> Result<Transaction<'_>, Error> {
    let action = || Error::database("begin to lock tables");
    let transaction = session.client_mut().transaction().await.map_err(action())?;
    // Zero would mean to wait for ever, and the server counts to `i32::MAX`.
    let timeout = timeout.as_millis().clamp(1, i32::MAX as u128);
    transaction.batch_execute(&format!("SET LOCAL lock_timeout = {timeout}")).await.map_err(action())?;
    Ok(transaction)
}

fn held(table: &TableName) -> impl FnOnce(tokio_postgres::Error) -> Error {
    let table = table.clone();
    move |error| match error.code() {
        Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => {
            Error::Occupied { table, what: "is being loaded by another session; wait for it, or stop it".to_owned() }
        }
        _ => Error::database(format!("lock {table:#}"))(error),
    }
}
