use std::{fmt, path::PathBuf, time::Duration};

/// How to start a [`Server`](super::Server). [`Options::default`] is right for most tests.
///
/// Where [`DatabaseUrl::Honour`] finds a server in the environment, nothing else in here applies.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Whether `DATABASE_URL` is looked at. Default: [`DatabaseUrl::Honour`].
    pub database_url: DatabaseUrl,
    /// Which programs to run. Default: [`Binaries::Installed`].
    pub binaries: Binaries,
    /// The account that runs the server where the owner is root; without effect for any other owner. Default: the
    /// first of `postgres`, `nobody` and `daemon` that exists.
    pub account: Option<String>,
    /// The folder in which the server's own folder is made. Default: the first of `TMPDIR`, `/tmp` and `/var/tmp` in
    /// which the server's account may make one.
    pub parent_dir: Option<PathBuf>,
    /// The password of the superuser, asked for (SCRAM-SHA-256) of every connection. Default: none, and every local
    /// user who can reach the loopback port is trusted.
    pub password: Option<String>,
    /// Whether a crash of the machine may lose data. Default: [`Durability::On`].
    pub durability: Durability,
    /// Settings of `postgresql.conf`, name and plain value (it is quoted here); a later one beats an earlier one, and
    /// all beat what this crate sets. Default: none.
    pub settings: Vec<(String, String)>,
    /// How long a start may take, crash recovery after [`Server::kill`](super::Server::kill) included. Default: 120
    /// seconds.
    pub start_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            database_url: DatabaseUrl::Honour,
            binaries: Binaries::Installed,
            account: None,
            parent_dir: None,
            password: None,
            durability: Durability::On,
            settings: Vec::new(),
            start_timeout: Duration::from_secs(120),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("database_url", &self.database_url)
            .field("binaries", &self.binaries)
            .field("account", &self.account)
            .field("parent_dir", &self.parent_dir)
            .field("password", &self.password.as_ref().map(|_| "_"))
            .field("durability", &self.durability)
            .field("settings", &self.settings)
            .field("start_timeout", &self.start_timeout)
            .finish()
    }
}

/// Whether the environment may name the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A `DATABASE_URL` that is set and not empty is the server.
    #[default]
    Honour,
    /// The server is embedded, whatever the environment says: for tests that stop, kill or configure it.
    Ignore,
}

/// Where the programs `postgres`, `initdb` and `pg_ctl` come from; they must live in one folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Binaries {
    /// What is installed: `PATH`, `pg_config --bindir`, then the usual folders, newest version first. Where nothing is
    /// found, what [`Binaries::Downloaded`] does, if this build can.
    #[default]
    Installed,
    /// This folder and no other.
    In(PathBuf),
    /// The pinned build, from the cache folder of the user, downloaded if it is not there. Needs the cargo feature
    /// `postgres-download`, else it is never found.
    Downloaded,
}

/// Whether what was committed survives a crash of the machine. A crash of the server alone loses nothing either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// PostgreSQL's defaults.
    #[default]
    On,
    /// `fsync`, `full_page_writes` and `synchronous_commit` off: faster, and honest only where nothing is measured.
    Off,
}
