use std::io;

use tokio_postgres::error::SqlState;

use crate::counted::counted;
use crate::{Dialect, RecordError, SchemaError, TableName, Undetected};

/// What can go wrong with a load.
///
/// `Display` names the file, table or object and what was tried; `source()` carries the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It was told to stop. What had been committed stays, and the next run goes on behind it.
    #[error("{what} was stopped; what is done is kept")]
    Stopped {
        /// What was going on.
        what: String,
    },
    /// Options that do not go together. Nothing was done.
    #[error("{what}")]
    Options {
        /// Which, and why.
        what: String,
    },
    /// The connection string cannot be used. Nothing of it is shown.
    #[error("the database URL cannot be used: {what}")]
    Url {
        /// What is wrong with it.
        what: String,
    },
    /// No session: no server there, or one that refuses us.
    #[error("cannot connect to {target}")]
    Connect {
        /// Host, port and database, without the password.
        target: String,
        /// The cause.
        source: Cause,
    },
    /// A statement of ours failed.
    #[error("cannot {action}")]
    Database {
        /// What was tried.
        action: String,
        /// The cause.
        source: Cause,
    },
    /// The server refused rows.
    #[error("{file}: the server refuses {}{}{} for {table:#}", records(*first, *last), at_byte(*first == *last, *offset), of_column(column.as_deref()))]
    Copy {
        /// The file.
        file: String,
        /// Where the rows go.
        table: Box<TableName>,
        /// The record that the server complains of, or the first of the chunk.
        first: u64,
        /// The same, or the last record that had been sent.
        last: u64,
        /// Where the first of them starts, in decoded bytes of the file. Not known far behind the start of a chunk that is
        /// much larger than the default.
        offset: Option<u64>,
        /// The column that the server names.
        column: Option<Box<str>>,
        /// The cause.
        source: Cause,
    },
    /// A value that the table cannot hold. It was not sent.
    #[error("{file}: {}: {message} [SQLSTATE {sqlstate}]", place(*record, *offset, Some(column)))]
    Value {
        /// The file.
        file: String,
        /// Where the record was to go.
        table: Box<TableName>,
        /// The record's number, from 1.
        record: u64,
        /// Where the record starts, in decoded bytes of the file.
        offset: u64,
        /// The table's column.
        column: Box<str>,
        /// The code with which the server would refuse it (PostgreSQL manual, "PostgreSQL Error Codes"), or one of the
        /// same class.
        sqlstate: &'static str,
        /// What the server would say.
        message: Box<str>,
    },
    /// More records are bad than may be left out. Nothing of the chunk that this one is in is kept; those of the chunks
    /// before it are noted.
    #[error("{file}: more than {} bad; the first one too many: {}: {message} [SQLSTATE {sqlstate}]", counted(*limit, "record is", "records are"), place(*record, *offset, column.as_deref()))]
    Rejects {
        /// The file.
        file: String,
        /// How many may be left out.
        limit: u64,
        /// The first one too many: its number, from 1.
        record: u64,
        /// Where it starts, in decoded bytes of the file.
        offset: u64,
        /// The column to blame, where there is one.
        column: Option<Box<str>>,
        /// What is wrong with it: the server's code, or the one with which it would refuse it.
        sqlstate: Box<str>,
        /// The same in words.
        message: Box<str>,
    },
    /// What was to be written out could not be.
    #[error("cannot write {what}")]
    Write {
        /// What it was.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// The server counted other rows than were sent.
    #[error("{file}: {} sent to {table:#} and the server took {taken}; nothing of that chunk is kept", counted(*sent, "row was", "rows were"))]
    RowCount {
        /// The file.
        file: String,
        /// Where the rows went.
        table: TableName,
        /// Rows sent.
        sent: u64,
        /// Rows in the server's answer.
        taken: u64,
    },
    /// A record cannot be read.
    #[error("{file}")]
    Record {
        /// The file.
        file: String,
        /// Record, byte and reason.
        source: RecordError,
    },
    /// The file has no byte, not even a header.
    #[error(
        "{file}: there is nothing in it, not even a header; it may be a placeholder, or its writer failed: get it anew, or leave it out"
    )]
    Empty {
        /// The file.
        file: String,
    },
    /// The file cannot be read or decoded.
    #[error("cannot read {file}{}", behind(*records, *offset))]
    Read {
        /// The file.
        file: String,
        /// Its records that were read whole, those of earlier runs included.
        records: u64,
        /// Its decoded bytes that were read; 0 if the first megabyte could not be read.
        offset: u64,
        /// The cause.
        source: io::Error,
    },
    /// No dialect reads the file.
    #[error("{file}")]
    Undetected {
        /// The file.
        file: String,
        /// Where each dialect failed.
        source: Undetected,
    },
    /// The file is of another dialect than the one asked for.
    #[error("{file}: it was to be read as dialect {asked} and is {found} ({evidence}); leave --dialect out")]
    Dialect {
        /// The file.
        file: String,
        /// The dialect asked for.
        asked: Dialect,
        /// What it is.
        found: Dialect,
        /// Why.
        evidence: String,
    },
    /// Records of a file have the same key.
    #[error("{file}: {} a key ({}) that another record before them has, such as {}; --max-rejects leaves them out", counted(*records, "record has", "records have"), columns.join(", "), examples.join("; "))]
    Duplicates {
        /// The file.
        file: String,
        /// The table that it is to be merged into.
        table: Box<TableName>,
        /// The columns of the key.
        columns: Vec<String>,
        /// How many records there are beside the first of each key.
        records: u64,
        /// Some of those keys, with how often each stands in the file.
        examples: Vec<String>,
    },
    /// The target table does not exist.
    #[error("table {table:#} does not exist in the database{}", instead(near))]
    NoTable {
        /// The table.
        table: TableName,
        /// Some that do and have names like its own, the nearest first, where they were looked for.
        near: Vec<TableName>,
    },
    /// The file's columns do not fit the table.
    #[error("{file}: {what}")]
    Columns {
        /// The file.
        file: String,
        /// What does not fit, and what to do.
        what: String,
    },
    /// A table does not have the columns that are to be written.
    #[error("table {table:#} {what}")]
    Target {
        /// The table.
        table: TableName,
        /// What it lacks, or does itself.
        what: String,
    },
    /// A row that the table cannot hold. It was not written.
    #[error("row {row} for {table:#}{}: {message} [SQLSTATE {sqlstate}]", of_typed_column(column.as_ref()))]
    BadRow {
        /// Where the row was to go.
        table: Box<TableName>,
        /// The row's number, from 1, among those that were written.
        row: u64,
        /// The column, which is the field's name, and its type.
        column: Option<(Box<str>, Box<str>)>,
        /// The code with which the server would refuse it (PostgreSQL manual, "PostgreSQL Error Codes"), or one of the
        /// same class.
        sqlstate: &'static str,
        /// What is wrong with it.
        message: Box<str>,
    },
    /// The server refused rows that were written. None of them is kept.
    #[error("the server refuses {}{} for {table:#}", of_rows(*row, *written), of_column(column.as_deref()))]
    RefusedRow {
        /// Where the rows go.
        table: Box<TableName>,
        /// The row that it complains of, from 1, if it names one.
        row: Option<u64>,
        /// Rows that had been written.
        written: u64,
        /// The column that the server names.
        column: Option<Box<str>>,
        /// The cause.
        source: Cause,
    },
    /// The server counted other rows than were written. None of them is kept.
    #[error("{} sent to {table:#} and the server took {taken}; none of them is kept", counted(*sent, "row was", "rows were"))]
    TakenRows {
        /// Where the rows went.
        table: TableName,
        /// Rows sent.
        sent: u64,
        /// Rows in the server's answer.
        taken: u64,
    },
    /// A writer of rows that had failed before, or whose last call was given up before it was done.
    #[error("an earlier write into {table:#} failed or was cut short; nothing of it is kept")]
    Spent {
        /// The table.
        table: TableName,
    },
    /// The table holds rows that are not this file's, or another session uses it.
    #[error("table {table:#} {what}")]
    Occupied {
        /// The table.
        table: TableName,
        /// Whose rows, or what goes on, and what to do.
        what: String,
    },
    /// Another mirror into the same database is under way.
    #[error("another mirror into {target} is under way; wait for it, or stop it")]
    Mirrored {
        /// Host, port and database, without the password.
        target: String,
    },
    /// Another run of the same crawl is under way.
    #[error("another run of the crawl {job} is under way; wait for it, or stop it")]
    Crawling {
        /// The job's name.
        job: String,
    },
    /// A crawl cannot go on.
    #[error("the crawl {job}: {what}")]
    Crawl {
        /// The job's name.
        job: String,
        /// Why, and what to do.
        what: String,
    },
    /// More rows of a crawl are bad than may be left out. Nothing of what was to be committed with this one is kept.
    #[error("the crawl {job}: more than {} bad; the first one too many: row {row} for {table:#} of {key}{}: {message} [SQLSTATE {sqlstate}]", counted(*limit, "row is", "rows are"), of_column(column.as_deref()))]
    CallRejects {
        /// The job's name.
        job: String,
        /// How many may be left out.
        limit: u64,
        /// The key of the call that gave it.
        key: String,
        /// Where it was to go.
        table: Box<TableName>,
        /// Its number, from 1, among the rows of the call for the table.
        row: u64,
        /// The column to blame, where there is one.
        column: Option<Box<str>>,
        /// What is wrong with it: the server's code, or the one with which it would refuse it.
        sqlstate: Box<str>,
        /// The same in words.
        message: Box<str>,
    },
    /// The schema file cannot be used.
    #[error("schema file {file}")]
    Schema {
        /// The file.
        file: String,
        /// The cause.
        source: SchemaError,
    },
    /// Tables were emptied, rewritten, replaced or partitioned anew after a snapshot had been taken and before they were held. In it they may look
    /// empty, so it is of no use; another one is.
    #[error("{name}: {} emptied, rewritten, replaced or partitioned anew behind the snapshot, in which its rows may be missing; take another one", tables.join(", ") + if tables.len() == 1 { " was" } else { " were" })]
    Rewritten {
        /// What the items are called.
        name: String,
        /// The tables.
        tables: Vec<String>,
    },
    /// The server's answer is not what it must be.
    #[error("the server sent {what}")]
    Received {
        /// What it sent.
        what: &'static str,
    },
    /// No runtime for what is [blocking](crate::BlockingLoader).
    #[error("cannot start a runtime")]
    Runtime {
        /// The cause.
        source: io::Error,
    },
    /// A thread of ours ended early.
    #[error("{file}: the thread that reads it was lost")]
    Interrupted {
        /// The file.
        file: String,
    },
}

/// What to do where a table holds other rows than it should. It may have some that nobody can load again.
pub(crate) const ANEW: &str = "load it anew with --restart, which deletes all rows of the table";

/// What PostgreSQL or the connection to it says: message, detail, hint and SQLSTATE on one line.
#[derive(Debug)]
pub struct Cause(pub(crate) tokio_postgres::Error);

impl Cause {
    /// As [`Error::is_remote`].
    pub fn is_remote(&self) -> bool {
        let Self(error) = self;
        match error.code().filter(|_| !self.is_of_value()) {
            Some(code) => ["08", "40", "53", "57"].iter().any(|class| code.code().starts_with(class)),
            None => error.is_closed() || std::error::Error::source(error).is_some_and(|cause| cause.is::<io::Error>()),
        }
    }

    /// As [`Error::is_denied`].
    pub fn is_denied(&self) -> bool {
        let code = self.code();
        code.is_some_and(|code| code.code().starts_with("28") || *code == SqlState::INSUFFICIENT_PRIVILEGE)
    }

    /// Whether the rows themselves are to blame: any class of codes (PostgreSQL manual, "PostgreSQL Error Codes") but those
    /// of the connection, the transaction, the statement, privileges, resources, the operator and the server's own faults.
    /// A trigger's function may give a code of its own.
    pub fn is_of_rows(&self) -> bool {
        const OTHERS: [&str; 21] = [
            "00", "01", "02", "03", "08", "0A", "25", "26", "28", "2D", "34", "3D", "3F", "40", "42", "53", "55", "57",
            "58", "F0", "XX",
        ];
        self.is_of_value()
            || self.code().is_some_and(|code| code.code().get(..2).is_some_and(|class| !OTHERS.contains(&class)))
    }

    /// Whether a value of COPY's binary format is to blame, of which the server may say by codes that are else its own or
    /// the connection's: too few bytes for a number are a protocol violation, another version of jsonb an internal error.
    fn is_of_value(&self) -> bool {
        let Some(answer) = self.0.as_db_error() else { return false };
        let is_code = [SqlState::PROTOCOL_VIOLATION, SqlState::INTERNAL_ERROR].contains(answer.code());
        let is_of_column = |line: &str| line.starts_with("COPY ") && line.contains(", column ");
        is_code && answer.where_().is_some_and(|context| context.lines().any(is_of_column))
    }

    /// Whether it waited too long for what another session holds, or would have waited for ever.
    pub(crate) fn is_of_locks(&self) -> bool {
        let code = self.code();
        code.is_some_and(|code| [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED].contains(code))
    }

    /// The SQLSTATE, if the server answered at all.
    pub fn code(&self) -> Option<&SqlState> {
        self.0.code()
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(error) = self.0.as_db_error() else {
            write!(f, "{}", self.0)?;
            let mut source = std::error::Error::source(&self.0);
            while let Some(cause) = source {
                write!(f, ": {cause}")?;
                source = cause.source();
            }
            return Ok(());
        };
        write!(f, "{}", error.message())?;
        if let Some(detail) = error.detail() {
            write!(f, " ({detail})")?;
        }
        if let Some(hint) = error.hint() {
            write!(f, "; {hint}")?;
        }
        write!(f, " [SQLSTATE {}]", error.code().code())
    }
}

impl std::error::Error for Cause {}

/// For statements of the caller's own.
impl From<tokio_postgres::Error> for Cause {
    fn from(error: tokio_postgres::Error) -> Self {
        Self(error)
    }
}

impl Error {
    /// Makes a [`Error::Database`] out of what a statement answered.
    pub(crate) fn database(action: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let action = action.into();
        move |source| Self::Database { action, source: Cause(source) }
    }

    fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Connect { source, .. }
            | Self::Database { source, .. }
            | Self::Copy { source, .. }
            | Self::RefusedRow { source, .. } => Some(source),
            _ => None,
        }
    }

    /// As [`Cause::is_of_rows`].
    pub(crate) fn is_of_rows(&self) -> bool {
        self.cause().is_some_and(Cause::is_of_rows)
    }

    /// As [`Cause::is_of_locks`].
    pub(crate) fn is_of_locks(&self) -> bool {
        self.cause().is_some_and(Cause::is_of_locks)
    }

    /// Whether the role, its password or its privileges are to blame (SQLSTATE class 28, and 42501).
    pub fn is_denied(&self) -> bool {
        self.cause().is_some_and(Cause::is_denied)
    }

    /// Whether the server or the way to it is to blame, and a later run may do better: no answer, or SQLSTATE classes 08
    /// (connection), 40 (rollback, such as of a deadlock), 53 (resources) and 57 (operator's intervention); and
    /// [`Error::Rewritten`].
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Rewritten { .. }) || self.cause().is_some_and(Cause::is_remote)
    }
}

fn instead(near: &[TableName]) -> String {
    let names: Vec<_> = near.iter().map(|table| format!("{table:#}")).collect();
    if names.is_empty() { String::new() } else { format!("; is it {}?", names.join(" or ")) }
}

fn place(record: u64, offset: u64, column: Option<&str>) -> String {
    format!("record {record}, byte {offset}{}", of_column(column))
}

fn of_column(column: Option<&str>) -> String {
    column.map(|column| format!(", column {column}")).unwrap_or_default()
}

fn of_typed_column(column: Option<&(Box<str>, Box<str>)>) -> String {
    column.map(|(name, type_name)| format!(", column {name} ({type_name})")).unwrap_or_default()
}

fn of_rows(row: Option<u64>, written: u64) -> String {
    match row {
        Some(row) => format!("row {row}"),
        None => format!("one of {}", counted(written, "row", "rows")),
    }
}

fn records(first: u64, last: u64) -> String {
    if first == last { format!("record {first}") } else { format!("one of the records {first} to {last}") }
}

fn at_byte(alone: bool, offset: Option<u64>) -> String {
    match offset {
        Some(offset) if alone => format!(", byte {offset}"),
        Some(offset) => format!(", from byte {offset} on"),
        None => String::new(),
    }
}

fn behind(records: u64, offset: u64) -> String {
    if offset == 0 { String::new() } else { format!(" behind record {records}, decoded byte {offset}") }
}
