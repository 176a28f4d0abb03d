use std::sync::{Arc, Mutex, PoisonError};

use bulk_pg::Session;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::Client;

use super::failed;
use crate::Error;

/// A few connections to one database.
pub(super) struct Pool {
    url: String,
    idle: Mutex<Vec<Session>>,
    permits: Arc<Semaphore>,
}

/// A connection that is in use. Dropped, it is closed, with whatever is open in it.
pub(super) struct Lease {
    session: Session,
    pool: Arc<Pool>,
    _permit: Option<OwnedSemaphorePermit>,
}

/// Ranges are read through the index, in its order, whatever the server thinks of the table's size: it knows nothing of
/// one that was filled a minute ago, and a sort of the whole range for each page of it would be ruinous. With such
/// estimates the compiler of expressions would set to work, for queries of a millisecond.
const SETTINGS: &str = "
    SET enable_seqscan = off; SET enable_sort = off; SET enable_bitmapscan = off;
    SET max_parallel_workers_per_gather = 0; SET jit = off";

impl Pool {
    pub(super) fn new(url: &str, connections: usize) -> Self {
        let permits = Arc::new(Semaphore::new(connections.max(1)));
        Self { url: url.to_owned(), idle: Mutex::default(), permits }
    }

    /// An idle connection, or a new one; waits for one if there are as many as there may be.
    pub(super) async fn lease(self: &Arc<Self>, store: &str) -> Result<Lease, Error> {
        // It is never closed.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let idle = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|session| !session.is_closed());
            idle.pop()
        };
        let session = match idle {
            Some(session) => session,
            None => self.connect(store).await?,
        };
        Ok(Lease { session, pool: Arc::clone(self), _permit: permit })
    }

    /// A connection that is not counted.
    pub(super) async fn connect(&self, store: &str) -> Result<Session, Error> {
        let session = Session::connect(&self.url).await.map_err(|error| failed(store, "be reached", error))?;
        let set = session.client().batch_execute(SETTINGS).await.map_err(bulk_pg::Cause::from);
        set.map_err(|error| failed(store, "be reached", error))?;
        Ok(session)
    }
}

impl Lease {
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn client(&self) -> &Client {
        self.session.client()
    }

    /// Keeps the connection for the next one. No transaction may be open in it.
    pub(super) fn give_back(self) {
        let Self { session, pool, .. } = self;
        pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }
}

impl std::fmt::Debug for Pool {
    /// Without the URL, in which a password may stand.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("permits", &self.permits).finish_non_exhaustive()
    }
}
