//! An embedded PostgreSQL: a real server that starts in seconds, on loopback, and stops with its owner.
//!
//! Two nouns: a [`Server`] is a running PostgreSQL, with its own folder, port and process; a [`Database`] is a fresh
//! database on it, dropped with its value. [`shared`] is one server for a whole test process.
//!
//! ```
//! use bulk_testkit::postgres::{Options, Server};
//!
//! let server = Server::start(&Options::default())?;
//! let database = server.create_database("orders")?;
//! server.psql(database.url(), "create table orders (id bigint); insert into orders values (7)")?;
//! assert_eq!(server.psql(database.url(), "select id from orders")?, "7\n");
//! # Ok::<(), bulk_testkit::postgres::Error>(())
//! ```
//!
//! # Where the server comes from
//! 1. `DATABASE_URL`, where the environment has it: the [`Server`] is then a handle on that server, creates its
//!    databases there and never stops it.
//! 2. Installed programs: `PATH`, `pg_config --bindir`, then the folders where distributions put them, newest version
//!    first. PostgreSQL 13 is the oldest that will do (`DROP DATABASE ... WITH (FORCE)`).
//! 3. With the cargo feature `postgres-download`: a pinned build, downloaded once, checked, and kept in the cache
//!    folder of the user.
//! 4. Else [`Error::NoBinaries`], whose sentence names the command that installs PostgreSQL here.
//!
//! # What it is
//! A cluster made by `initdb` with UTF-8 and the C locale, in a temporary folder that only its account can read, on a
//! free port of 127.0.0.1, superuser `postgres`. Settings are PostgreSQL's defaults (durable: `fsync`,
//! `full_page_writes` and `synchronous_commit` are on) but for four: it listens on loopback alone, its Unix socket is
//! in its folder, times are UTC, and `dynamic_shared_memory_type` is `mmap`, so that shared memory segments are files
//! of the folder and not of the machine. [`Options::settings`] overrides each of them.
//!
//! PostgreSQL refuses to run as root: an owner that is root starts it under `postgres`, `nobody` or `daemon`.
//!
//! # How it ends
//! A drop stops it and returns when it is gone. Any other end of the owner (`exit`, Ctrl-C, `abort`, `kill -9`) is
//! seen by a watchdog, a shell that reads a pipe of which the owner alone holds the other end: at its end of file it
//! stops the server and removes the folder. So a server in a `static` ends with its process, too. No process, folder
//! or shared memory is left behind; [`Server::detach`] is the only way to leave a server running.

mod account;
mod binaries;
mod client;
mod cluster;
mod connection_url;
mod database;
#[cfg(feature = "postgres-download")]
mod download;
mod error;
mod install;
mod options;
mod process;
mod server;
mod version;
mod watchdog;

use std::sync::OnceLock;

pub use self::{
    database::Database,
    error::Error,
    options::{Binaries, DatabaseUrl, Durability, Options},
    server::{Detached, Server},
    version::Version,
};

/// The server of this process, with [`Options::default`]: started by the first call, the same for every later one, and
/// stopped when the process ends, however that happens.
///
/// Tests that stop or kill their server, or need other options, start their own.
///
/// # Errors
/// What [`Server::start`] said at the first call. It is not tried again.
pub fn shared() -> Result<&'static Server, &'static Error> {
    static SHARED: OnceLock<Result<Server, Error>> = OnceLock::new();
    SHARED.get_or_init(|| Server::start(&Options::default())).as_ref()
}
