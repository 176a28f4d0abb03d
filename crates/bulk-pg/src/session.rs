use std::str::FromStr;

use tokio::task::JoinHandle;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls};

use crate::Error;
use crate::error::Cause;

/// A connection to the database, set up for loading.
///
/// The session reads names as a schema file means them (`search_path` is `public`), has no time-outs, and commits
/// without waiting for the disk: each chunk of rows commits together with the mark that it is there, so a crash of the
/// server loses both or neither, and [`Session::flush`] makes the last commit wait for all before it (PostgreSQL manual,
/// "Asynchronous Commit"). New values of wide columns are compressed by lz4 where the server has it. Nothing of this
/// outlives the session.
///
/// Dropping it closes the connection and rolls back what is open.
#[derive(Debug)]
pub struct Session {
    client: Client,
    connection: JoinHandle<()>,
    target: String,
    lz4: bool,
}

const SETTINGS: &str = "
    SET client_encoding = 'UTF8';
    SET search_path = public;
    SET standard_conforming_strings = on;
    SET check_function_bodies = off;
    SET datestyle = 'ISO, MDY';
    SET intervalstyle = postgres;
    SET array_nulls = on;
    SET default_transaction_isolation = 'read committed';
    SET statement_timeout = 0;
    SET lock_timeout = 0;
    SET idle_in_transaction_session_timeout = 0;
    SET client_min_messages = warning;
    SET synchronous_commit = off;";

impl Session {
    /// Opens a session. `url` is a libpq connection string or URI.
    ///
    /// # Errors
    ///
    /// [`Error::Url`] and [`Error::Connect`]; [`Error::is_denied`] tells a wrong password from an absent server.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        let mut config = parse(url)?;
        if config.get_application_name().is_none() {
            config.application_name("bulk");
        }
        let target = describe(&config);
        let failed = |error| Error::Connect { target: target.clone(), source: Cause(error) };
        let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
        // Its errors reach whoever waits for an answer.
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        client.batch_execute(SETTINGS).await.map_err(failed)?;
        // From version 14 on, so that a statement does not run on for hours when its program has been killed.
        let _ = client.batch_execute("SET client_connection_check_interval = '1s'").await;
        // An unknown setting or a server without the library: the default compression it is.
        let lz4 = client.batch_execute("SET default_toast_compression = lz4").await.is_ok();
        Ok(Self { client, connection, target, lz4 })
    }

    /// Whether wide values are compressed by lz4 rather than pglz, which takes the server several times the CPU.
    pub fn uses_lz4(&self) -> bool {
        self.lz4
    }

    /// Host, port and database, without user and password.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The connection itself, for statements of the caller's.
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Waits until everything that this server has committed so far is on its disk.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub async fn flush(&self) -> Result<(), Error> {
        // A transaction that writes nothing does not wait, so this one writes a message into the log.
        self.client
            .batch_execute(
                "BEGIN; SET LOCAL synchronous_commit = on;
                 SELECT pg_catalog.pg_current_xact_id(); COMMIT",
            )
            .await
            .map_err(Error::database("flush the server's log"))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Reads a connection string. What is wrong with it is said without quoting any of it: it may hold a password.
fn parse(url: &str) -> Result<Config, Error> {
    let unusable = |what: &str| Error::Url { what: what.to_owned() };
    let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
    // The rest of a password would be taken for the host, and shown as such.
    if is_url && url.matches('@').count() > 1 {
        return Err(unusable(
            "it has more than one @; write one that is a part of the user, password or an option as %40",
        ));
    }
    Config::from_str(url).map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        // These name an option of libpq's, and no others of its messages are without the text around the fault.
        match cause.strip_prefix("invalid value for option ") {
            Some(option) => unusable(&format!("the value of its option {option} is not valid")),
            None if is_url => {
                unusable("it is not of the form postgres://user:password@host:port/database?option=value")
            }
            None => unusable(
                "it is neither postgres://user:password@host:port/database nor host=... port=... dbname=... user=...",
            ),
        }
    })
}

fn describe(config: &Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        #[cfg(unix)]
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "localhost".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    match config.get_dbname().or(config.get_user()) {
        Some(name) => format!("database {name:?} at {host}:{port}"),
        None => format!("{host}:{port}"),
    }
}
