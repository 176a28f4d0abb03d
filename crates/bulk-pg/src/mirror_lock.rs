use tokio_postgres::error::SqlState;

use crate::table_lock::{LOCK_CLASS, LOCK_TIMEOUT, begin};
use crate::{Error, Session};

/// Lets this session, and so its program, alone mirror into the database, until the session ends. A mirror makes indexes,
/// foreign keys and triggers on any table of its schema; two at once would make them between two chunks of the other.
///
/// It waits 5 s for another one, since that may be of a program that was killed, which the server misses within a second
/// or so. A single [`load`](crate::load()) asks for nothing but its table, and neither waits for a mirror nor makes one
/// wait, except on that table.
///
/// # Errors
///
/// [`Error::Mirrored`] if another session has it, [`Error::Database`].
pub async fn lock_mirror(session: &mut Session) -> Result<(), Error> {
    let target = session.target().to_owned();
    let transaction = begin(session, LOCK_TIMEOUT).await?;
    // Beside the locks of the tables; no table has the OID 0.
    let taken = transaction.batch_execute(&format!("SELECT pg_catalog.pg_advisory_lock({LOCK_CLASS}, 0)")).await;
    taken.map_err(|error| match error.code() {
        Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => Error::Mirrored { target },
        _ => Error::database("lock the database for a mirror")(error),
    })?;
    transaction.commit().await.map_err(Error::database("lock the database for a mirror"))
}
