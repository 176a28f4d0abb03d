use std::sync::{Arc, Mutex, PoisonError};

use tokio_postgres::Client;

use super::ExportSnapshotOptions;
use crate::{Error, Session, quote_literal};

/// Sessions that see one snapshot.
pub(super) struct Pool {
    url: String,
    settings: String,
    /// The snapshot's name, as a literal.
    snapshot: String,
    idle: Mutex<Vec<Session>>,
}

/// What is read is to depend on the rows alone, not on how server, database or role are set up.
const SETTINGS: &str = "
    SET row_security = off;
    SET extra_float_digits = 1;
    SET bytea_output = hex;
    SET xmlbinary = base64;
    SET lc_monetary = 'C';
    SET jit = off;";

/// The beginning of each transaction.
pub(super) const BEGIN: &str = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY";

/// The statements that set up a session.
pub(super) fn settings(options: &ExportSnapshotOptions) -> Result<String, Error> {
    let zone = quote_literal(options.zone())
        .map_err(|error| Error::Options { what: format!("the time zone cannot be used: {error}") })?;
    Ok(format!("{SETTINGS} SET TimeZone = {zone}"))
}

/// Sets a session up.
pub(super) async fn set_up(client: &Client, settings: &str) -> Result<(), Error> {
    client.batch_execute(settings).await.map_err(Error::database("set up a session to read from"))
}

impl Pool {
    pub(super) fn new(url: &str, settings: String, snapshot: &str) -> Result<Self, Error> {
        let snapshot =
            quote_literal(snapshot).map_err(|_| Error::Received { what: "a snapshot whose name has a NUL" })?;
        Ok(Self { url: url.to_owned(), settings, snapshot, idle: Mutex::default() })
    }

    /// An idle session, or a new one.
    pub(super) async fn take(self: &Arc<Self>) -> Result<Session, Error> {
        let idle = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|session| !session.is_closed());
            idle.pop()
        };
        if let Some(session) = idle {
            return Ok(session);
        }
        let session = Session::connect(&self.url).await?;
        set_up(session.client(), &self.settings).await?;
        let begin = format!("{BEGIN}; SET TRANSACTION SNAPSHOT {}", self.snapshot);
        session.client().batch_execute(&begin).await.map_err(Error::database("take over the snapshot"))?;
        Ok(session)
    }

    /// Keeps a session for whoever needs one next. No statement may be under way in it.
    pub(super) fn give_back(&self, session: Session) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }
}
