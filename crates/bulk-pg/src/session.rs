use std::path::PathBuf;
use std::str::FromStr;

use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, SimpleQueryMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::Error;
use crate::conninfo::{self, Place, Surroundings};
use crate::error::Cause;
use crate::tls::{Mode, Tls};

/// A connection to the database, set up for loading.
///
/// The session reads names as a schema file means them (`search_path` is `public`), has no time-outs, whatever database or
/// role are set up to have, and commits without waiting for the disk (`synchronous_commit = off`): each chunk of rows commits
/// together with the mark that it is there, so a crash of the server loses both or neither, and [`Session::flush`] makes the
/// last commit wait for all before it (PostgreSQL manual, "Asynchronous Commit"). What is told to be done, such as that a
/// file is loaded, merged or swapped, is committed in the usual way. New values of wide columns are compressed by lz4 where the server has it and the column has no
/// method of its own ([`Session::reset_compression`] leaves it to the server). Nothing of this outlives the session.
///
/// Dropping it closes the connection and rolls back what is open.
#[derive(Debug)]
pub struct Session {
    client: Client,
    connection: JoinHandle<()>,
    target: String,
    process: Option<i32>,
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
    SET client_min_messages = warning;
    SET synchronous_commit = off;
    SELECT pg_catalog.pg_backend_pid();";

/// Those that the server knows: `idle_session_timeout` came with version 14, `transaction_timeout` with 17.
const NO_TIMEOUTS: &str = "
    SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings
    WHERE name IN ('statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout',
                   'idle_session_timeout');";

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
        let (servers, tls) = read(url)?;
        let mut failure = None;
        for config in servers {
            let target = describe(&config);
            match connect_to(&config, &tls).await {
                Ok((client, connection)) => return Self::set_up(client, connection, target).await,
                Err(error) => {
                    let error = Error::Connect { target, source: Cause(error) };
                    // Who is refused by one server is not to try his password at the others.
                    if error.is_denied() {
                        return Err(error);
                    }
                    failure.get_or_insert(error);
                }
            }
        }
        Err(failure.unwrap_or_else(|| Error::Url { what: "it names no server".to_owned() }))
    }

    async fn set_up(client: Client, connection: Connection, target: String) -> Result<Self, Error> {
        // Its errors reach whoever waits for an answer.
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        let failed = |error| Error::Connect { target: target.clone(), source: Cause(error) };
        // The number of the process is in the first row.
        let answers = client.simple_query(&format!("{SETTINGS} {NO_TIMEOUTS}")).await.map_err(failed)?;
        let process = answers.iter().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        });
        // From version 14 on, so that a statement does not run on for hours when its program has been killed.
        let _ = client.batch_execute("SET client_connection_check_interval = '1s'").await;
        // An unknown setting or a server without the library: the default compression it is.
        let lz4 = client.batch_execute("SET default_toast_compression = lz4").await.is_ok();
        Ok(Self { client, connection, target, process, lz4 })
    }

    /// The server's process for this session, as `pg_stat_activity` calls it; `None` if the server does not tell. Behind a
    /// pooler it is the one that the session had at first.
    pub fn process(&self) -> Option<i32> {
        self.process
    }

    /// Whether wide values are compressed by lz4 rather than pglz, which takes the server several times the CPU.
    pub fn uses_lz4(&self) -> bool {
        self.lz4
    }

    /// Compresses wide values as the server is set up to, for the rest of the session.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub async fn reset_compression(&mut self) -> Result<(), Error> {
        if self.lz4 {
            let reset = self.client.batch_execute("RESET default_toast_compression").await;
            reset.map_err(Error::database("reset default_toast_compression"))?;
            self.lz4 = false;
        }
        Ok(())
    }

    /// Host, port and database, without user and password.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The connection itself, for statements of the caller's.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the connection is lost, so that nothing can be done with it any more.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// The same, for transactions of the caller's. As all of the session's, they commit without waiting for the disk, unless
    /// they say `SET LOCAL synchronous_commit = on`.
    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Waits until everything that this server has committed so far is on its disk.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub async fn flush(&self) -> Result<(), Error> {
        // A transaction that writes nothing does not wait, though it has a number; so this one writes a message into the
        // log. Everybody may do that.
        self.client
            .batch_execute(
                "BEGIN; SET LOCAL synchronous_commit = on;
                 SELECT pg_catalog.pg_logical_emit_message(true, 'bulk', ''); COMMIT",
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

type Connection = tokio_postgres::Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

async fn connect_to(config: &Config, tls: &Encryption) -> Result<(Client, Connection), tokio_postgres::Error> {
    let connected = config.connect(tls.connector.clone()).await;
    match connected {
        Err(error) if tls.is_second && config.get_ssl_mode() == SslMode::Disable && is_remote(config) => {
            let mut config = config.clone();
            config.ssl_mode(SslMode::Require);
            // The first error says more than that the server has no TLS either.
            config.connect(tls.connector.clone()).await.map_err(|_| error)
        }
        connected => connected,
    }
}

fn is_remote(config: &Config) -> bool {
    matches!(config.get_hosts().first(), Some(Host::Tcp(_)))
}

/// What encrypts a connection.
struct Encryption {
    connector: MakeRustlsConnect,
    /// It is tried where a connection without is refused.
    is_second: bool,
}

/// libpq's keywords that are not read here. Any other may be a part of a password that was not written as a URL wants it.
const KEYWORDS: [&str; 17] = [
    "client_encoding",
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
    "sslcrldir",
    "sslpassword",
    "sslsni",
];

/// Those of their values that ask for nothing else than what is done.
const GRANTED: [(&str, &[&str]); 7] = [
    ("client_encoding", &["UTF8", "utf8", "UTF-8", "utf-8"]),
    ("gssencmode", &["disable", "prefer"]),
    ("ssl_max_protocol_version", &["TLSv1.3"]),
    ("ssl_min_protocol_version", &["TLSv1", "TLSv1.1", "TLSv1.2"]),
    ("sslcertmode", &["allow"]),
    ("sslcompression", &["0"]),
    ("sslsni", &["1"]),
];

/// What a connection string, and all that completes it, comes to: the servers, in the order in which they are tried.
fn read(url: &str) -> Result<(Vec<Config>, Encryption), Error> {
    let around = System;
    let (mut places, mut parameters) = conninfo::read(url, &around)?;
    let tls = Tls::take(&mut parameters, around.home().as_deref())?;
    for (key, values) in GRANTED {
        if parameters.get(key).is_some_and(|value| values.contains(&value.as_str())) {
            parameters.remove(key);
        }
    }
    if let Some(count) = parameters.remove("keepalives_count") {
        parameters.insert("keepalives_retries".to_owned(), count);
    }
    if let Some(attrs) = parameters.get_mut("target_session_attrs").filter(|attrs| *attrs == "primary") {
        "read-write".clone_into(attrs);
    }
    let fallback = parameters.remove("fallback_application_name").unwrap_or_else(|| "bulk".to_owned());
    parameters.entry("application_name".to_owned()).or_insert(fallback);
    if parameters.remove("load_balance_hosts").is_some_and(|how| how == "random") {
        fastrand::shuffle(&mut places);
    }
    let quoted = |value: &str| value.replace('\\', r"\\").replace('\'', r"\'");
    let pairs = parameters.iter().map(|(key, value)| format!("{key}='{}'", quoted(value)));
    let base = Config::from_str(&pairs.collect::<Vec<_>>().join(" ")).map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let keyword = |text: &str| KEYWORDS.into_iter().find(|keyword| text.trim_matches(['`', '"', '\'']) == *keyword);
        // No others of its messages are without the text around the fault.
        let what = match (cause.strip_prefix("invalid value for option "), cause.strip_prefix("unknown option ")) {
            (Some(option), _) => format!("the value of its option {option} is not valid"),
            (_, Some(option)) => match keyword(option) {
                Some(option) => format!("what its option {option} asks for, bulk does not do"),
                None => "it has an option that libpq does not have either".to_owned(),
            },
            _ => "its options do not go together".to_owned(),
        };
        Error::Url { what }
    })?;
    let is_encrypted = tls.mode != Mode::Disable && places.iter().any(|place| !place.is_socket());
    // What is never used needs no certificates.
    let config = if is_encrypted { tls.config()? } else { Tls::take(&mut Default::default(), None)?.config()? };
    let server = |place: Place| {
        let mut config = base.clone();
        config.host(&place.host).port(place.port).ssl_mode(match tls.mode {
            _ if place.is_socket() => SslMode::Disable,
            Mode::Disable | Mode::Allow => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            _ => SslMode::Require,
        });
        if let Some(address) = place.address {
            config.hostaddr(address);
        }
        if let Some(password) = &place.password {
            config.password(password);
        }
        config
    };
    let connector = MakeRustlsConnect::new(config);
    Ok((places.into_iter().map(server).collect(), Encryption { connector, is_second: tls.mode == Mode::Allow }))
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
        whoami::username().ok()
    }
}

fn describe(config: &Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        #[cfg(unix)]
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "localhost".to_owned(),
    };
    let host = match config.get_hostaddrs().first().map(ToString::to_string) {
        Some(address) if address != host => format!("{host} ({address})"),
        _ => host,
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    match config.get_dbname().or(config.get_user()) {
        Some(name) => format!("database {name:?} at {host}:{port}"),
        None => format!("{host}:{port}"),
    }
}
