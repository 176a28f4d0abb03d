use std::{
    env, fmt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    Database, DatabaseUrl, Error, Options, Version, client, cluster::Cluster, cluster::SUPERUSER, connection_url,
};

/// A running PostgreSQL: an embedded one that stops with this value, or a handle on that of `DATABASE_URL`.
///
/// All methods are synchronous and block, and may be called from any thread, also from inside an async runtime.
///
/// # An early drop
/// A drop stops an embedded server: a fast shutdown, after 10 seconds an immediate one, after 10 more a kill. It
/// returns when process and folder are gone. Databases that are still held go with it. Where the owner ends without a
/// drop, the watchdog does the same with an immediate shutdown.
pub struct Server {
    url: String,
    version: Version,
    embedded: Option<Embedded>,
}

struct Embedded {
    bin_dir: PathBuf,
    data_dir: PathBuf,
    log_file: PathBuf,
    socket_dir: Option<PathBuf>,
    cluster: Mutex<Cluster>,
}

/// A server that was left running by [`Server::detach`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Detached {
    /// URL of its maintenance database, with the password, if there is one.
    pub url: String,
    /// The shell command that stops it at once and removes its folder. It works for root and for the account that runs
    /// the server.
    pub stop_command: String,
    /// Its folder: data, log, socket.
    pub folder: PathBuf,
}

impl Server {
    /// Starts a server, or finds the one of `DATABASE_URL`. Takes 1 to 3 seconds, most of them in `initdb`.
    ///
    /// # Errors
    /// [`Error::NoBinaries`] or [`Error::Download`] where there is no PostgreSQL; [`Error::NoAccount`] and
    /// [`Error::NoFolder`] where it has nothing to run as or in; [`Error::Setting`], [`Error::Initdb`],
    /// [`Error::Start`] and [`Error::StartTimeout`] where it does not come up, with the end of its log;
    /// [`Error::Query`] where the server of `DATABASE_URL` cannot be reached (without TLS). Nothing is left behind.
    pub fn start(options: &Options) -> Result<Self, Error> {
        let given = match options.database_url {
            DatabaseUrl::Honour => env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()),
            DatabaseUrl::Ignore => None,
        };
        if let Some(url) = given {
            let number = client::execute(&url, "SHOW server_version_num", "tell its version")?;
            let number = number.and_then(|number| number.parse().ok()).unwrap_or_default();
            return Ok(Self { url, version: Version::of_number(number), embedded: None });
        }
        let cluster = Cluster::create(options)?;
        Ok(Self {
            url: connection_url::of_embedded(SUPERUSER, options.password.as_deref(), cluster.port()),
            version: cluster.installation().version,
            embedded: Some(Embedded {
                bin_dir: cluster.installation().bin_dir.clone(),
                data_dir: cluster.data_dir(),
                log_file: cluster.log_file(),
                socket_dir: cluster.socket_dir().map(Path::to_owned),
                cluster: Mutex::new(cluster),
            }),
        })
    }

    /// The URL of the maintenance database, with the password, if there is one. It stays the same over
    /// [`Server::restart`].
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Creates a fresh database, whose name begins with `name_prefix` and is unique.
    ///
    /// # Errors
    /// [`Error::Query`] where the server is down or refuses; [`Error::DatabaseName`] where the prefix has a zero
    /// character.
    pub fn create_database(&self, name_prefix: &str) -> Result<Database, Error> {
        Database::create(&self.url, name_prefix)
    }

    /// Runs `psql -XqAt` on `sql` and gives its standard output: a reading that shares no code with the Rust driver.
    /// It stops at the first error; several statements are one transaction, as `psql -c` has it.
    ///
    /// # Errors
    /// [`Error::NoPsql`] where there is none; [`Error::Psql`] with its standard error where it fails.
    pub fn psql(&self, database_url: &str, sql: &str) -> Result<String, Error> {
        client::psql(self.bin_dir(), database_url, sql)
    }

    /// The version of the server.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether this server is ours; if not, it is that of `DATABASE_URL`.
    pub fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// The process id of the postmaster; none for the server of `DATABASE_URL`, and while the server is down.
    pub fn pid(&self) -> Option<u32> {
        self.embedded.as_ref().and_then(|embedded| embedded.lock().pid())
    }

    /// The data folder; none for the server of `DATABASE_URL`, as are the four below.
    pub fn data_dir(&self) -> Option<&Path> {
        self.embedded.as_ref().map(|embedded| embedded.data_dir.as_path())
    }

    /// The folder of the programs.
    pub fn bin_dir(&self) -> Option<&Path> {
        self.embedded.as_ref().map(|embedded| embedded.bin_dir.as_path())
    }

    /// The log of `initdb` and of the server.
    pub fn log_file(&self) -> Option<&Path> {
        self.embedded.as_ref().map(|embedded| embedded.log_file.as_path())
    }

    /// The folder of the Unix socket; none as well where a socket in it would have too long a path. Only root and the
    /// account of the server can enter it.
    pub fn socket_dir(&self) -> Option<&Path> {
        self.embedded.as_ref().and_then(|embedded| embedded.socket_dir.as_deref())
    }

    /// Kills all processes of the server at once, as a loss of power would: nothing is flushed, no client is told. What
    /// the operating system has of its files stays. Does nothing to a server that is down.
    ///
    /// # Errors
    /// [`Error::NotOwned`] for the server of `DATABASE_URL`; [`Error::Stop`] where a process outlives it.
    pub fn kill(&self) -> Result<(), Error> {
        self.owned("kill")?.lock().kill()
    }

    /// Shuts the server down (fast: open transactions are rolled back), if it is up, and starts it again on the same
    /// port. After [`Server::kill`] it recovers from its log.
    ///
    /// # Errors
    /// [`Error::NotOwned`] for the server of `DATABASE_URL`; [`Error::Stop`], [`Error::Start`] and
    /// [`Error::StartTimeout`] where it fails; the server is then down.
    pub fn restart(&self) -> Result<(), Error> {
        self.owned("restart")?.lock().restart()
    }

    /// Leaves the server running when its owner ends, until [`Detached::stop_command`] is run.
    ///
    /// # Errors
    /// [`Error::NotOwned`] for the server of `DATABASE_URL`; [`Error::File`] and [`Error::Run`] where the watchdog
    /// cannot be told: the server is then stopped.
    pub fn detach(self) -> Result<Detached, Error> {
        let Some(embedded) = self.embedded else {
            return Err(Error::NotOwned { operation: "detach" });
        };
        let cluster = embedded.cluster.into_inner().unwrap_or_else(PoisonError::into_inner);
        let folder = cluster.folder().to_owned();
        Ok(Detached { url: self.url, stop_command: cluster.release()?, folder })
    }

    fn owned(&self, operation: &'static str) -> Result<&Embedded, Error> {
        self.embedded.as_ref().ok_or(Error::NotOwned { operation })
    }
}

impl Embedded {
    fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("url", &connection_url::without_password(&self.url))
            .field("version", &self.version)
            .field("data_dir", &self.data_dir())
            .finish_non_exhaustive()
    }
}
