use std::{io, path::PathBuf};

/// Why a server could not be started, stopped or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No installed PostgreSQL server will do.
    #[error("no PostgreSQL server found{}: install one with `{install}` or set DATABASE_URL", in_parentheses(rejected))]
    NoBinaries {
        /// What was found and why it will not do, a sentence each.
        rejected: Vec<String>,
        /// The command that installs PostgreSQL on this system.
        install: &'static str,
    },
    /// The pinned build of PostgreSQL could not be downloaded, checked or unpacked.
    #[error("PostgreSQL {version} cannot be downloaded: install one with `{install}` or set DATABASE_URL")]
    Download {
        /// The pinned version.
        version: &'static str,
        /// The command that installs PostgreSQL on this system.
        install: &'static str,
        /// What failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The owner is root, and there is no account to run the server.
    #[error(
        "PostgreSQL refuses to run as root, and there is no other account {}: create one with `useradd --system postgres`",
        names.join(" or ")
    )]
    NoAccount {
        /// The accounts that were looked for.
        names: Vec<String>,
    },
    /// The server's account may make its folder nowhere.
    #[error("the account {account} can make no folder for its server: {}", refused.join("; "))]
    NoFolder {
        /// The account that would run the server.
        account: String,
        /// Each folder that was tried and what was said, a sentence each.
        refused: Vec<String>,
    },
    /// A program could not be started.
    #[error("cannot run {}{}", program.display(), as_account(account.as_deref()))]
    Run {
        /// The program.
        program: PathBuf,
        /// The account that it should run as, where that is not the owner's.
        account: Option<String>,
        /// What the system said.
        source: io::Error,
    },
    /// `initdb` failed.
    #[error("initdb failed: {output}")]
    Initdb {
        /// What it printed, last lines.
        output: String,
    },
    /// The server ended before it was ready.
    #[error("the PostgreSQL server did not start; its log ends: {log}")]
    Start {
        /// The last lines of its log.
        log: String,
    },
    /// The server was not ready in time, and was killed.
    #[error("the PostgreSQL server was not ready after {seconds} s; its log ends: {log}")]
    StartTimeout {
        /// [`Options::start_timeout`](super::Options::start_timeout).
        seconds: u64,
        /// The last lines of its log.
        log: String,
    },
    /// The server, or a process of it, outlived a SIGKILL.
    #[error("the PostgreSQL server of process {pid} does not end")]
    Stop {
        /// The postmaster.
        pid: u32,
    },
    /// Not the name of a setting.
    #[error("{name:?} is not the name of a PostgreSQL setting")]
    Setting {
        /// The name that was given.
        name: String,
    },
    /// A name that no database can have.
    #[error("{name:?} cannot begin the name of a database")]
    DatabaseName {
        /// The prefix that was given.
        name: String,
    },
    /// The server is that of `DATABASE_URL`, and not ours to do this to.
    #[error("cannot {operation} the server of DATABASE_URL")]
    NotOwned {
        /// What was asked.
        operation: &'static str,
    },
    /// The server could not be reached, or refused a statement.
    #[error("the PostgreSQL server refused: {doing}")]
    Query {
        /// What was asked of it.
        doing: String,
        /// What it said.
        source: tokio_postgres::Error,
    },
    /// The server did not answer in time.
    #[error("the PostgreSQL server did not answer in {seconds} s: {doing}")]
    QueryTimeout {
        /// What was asked of it.
        doing: String,
        /// How long was waited.
        seconds: u64,
    },
    /// There is no `psql`.
    #[error("no psql found: install it with `{install}`")]
    NoPsql {
        /// The command that installs it on this system.
        install: &'static str,
    },
    /// `psql` failed.
    #[error("psql failed: {message}")]
    Psql {
        /// What it wrote to its standard error.
        message: String,
    },
    /// The thread that talks to the server has no async runtime.
    #[error("cannot start an async runtime")]
    Runtime {
        /// What the system said.
        source: io::Error,
    },
    /// A file or folder of the server could not be read or written.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn as_account(account: Option<&str>) -> String {
    account.map(|name| format!(" as the account {name}")).unwrap_or_default()
}

fn in_parentheses(reasons: &[String]) -> String {
    if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) }
}
