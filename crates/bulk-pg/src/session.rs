use std::path::PathBuf;
use std::str::FromStr;

use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::Error;
use crate::conninfo::{self, Surroundings};
use crate::error::Cause;
use crate::tls::{Mode, Tls};

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
    /// Opens a session. `url` is a libpq connection string or URI; what it leaves open is completed as libpq does: by a
    /// service (`service=`, `PGSERVICE`, `PGSERVICEFILE`, `~/.pg_service.conf`), the `PG…` variables, and a password of
    /// `PGPASSFILE` or `~/.pgpass`. Without a host it is the socket of this machine's server, or localhost.
    ///
    /// It is encrypted as `sslmode` says: `disable`, `allow`, `prefer` (the default: encrypted if the server can),
    /// `require`, `verify-ca` or `verify-full`, with the certificates of `sslrootcert` (a file, or `system`), `sslcert`
    /// and `sslkey`, or of `~/.postgresql`. Where there is a root certificate, it is used from `prefer` on.
    ///
    /// # Errors
    ///
    /// [`Error::Url`] and [`Error::Connect`]; [`Error::is_denied`] tells a wrong password from an absent server.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        let (mut config, tls) = read(url)?;
        if config.get_application_name().is_none() {
            config.application_name("bulk");
        }
        let target = describe(&config);
        let failed = |error| Error::Connect { target: target.clone(), source: Cause(error) };
        let connector = MakeRustlsConnect::new(tls.config);
        let mut connected = config.connect(connector.clone()).await;
        if tls.mode == Mode::Allow && connected.is_err() {
            config.ssl_mode(SslMode::Require);
            connected = config.connect(connector).await;
        }
        let (client, connection) = connected.map_err(failed)?;
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

/// libpq's keywords that are not read here. Any other may be a part of a password that was not written as a URL wants it.
const KEYWORDS: [&str; 19] = [
    "client_encoding",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "krbsrvname",
    "replication",
    "require_auth",
    "requirepeer",
    "scram_client_key",
    "scram_server_key",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
    "sslsni",
];

/// What a connection string, and all that completes it, comes to.
fn read(url: &str) -> Result<(Config, Tls), Error> {
    let around = System;
    let mut parameters = conninfo::read(url, &around)?;
    let tls = Tls::take(&mut parameters, around.home().as_deref())?;
    let quoted = |value: &str| value.replace('\\', r"\\").replace('\'', r"\'");
    let pairs = parameters.iter().map(|(key, value)| format!("{key}='{}'", quoted(value)));
    let mut config = Config::from_str(&pairs.collect::<Vec<_>>().join(" ")).map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let keyword = |text: &str| KEYWORDS.into_iter().find(|keyword| text.trim_matches(['`', '"', '\'']) == *keyword);
        // No others of its messages are without the text around the fault.
        let what = match (cause.strip_prefix("invalid value for option "), cause.strip_prefix("unknown option ")) {
            (Some(option), _) => format!("the value of its option {option} is not valid"),
            (_, Some(option)) => match keyword(option) {
                Some(option) => format!("its option {option} is one that bulk does not know"),
                None => "it has an option that libpq does not have either".to_owned(),
            },
            _ => "its options do not go together".to_owned(),
        };
        Error::Url { what }
    })?;
    config.ssl_mode(match tls.mode {
        Mode::Disable | Mode::Allow => SslMode::Disable,
        Mode::Prefer => SslMode::Prefer,
        _ => SslMode::Require,
    });
    Ok((config, tls))
}

/// The process's own surroundings.
struct System;

impl Surroundings for System {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    fn home(&self) -> Option<PathBuf> {
        std::env::home_dir()
    }

    fn account(&self) -> Option<String> {
        self.variable("USER").or_else(|| self.variable("USERNAME"))
    }
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
