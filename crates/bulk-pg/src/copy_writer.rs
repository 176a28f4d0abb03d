use std::pin::Pin;

use bytes::Bytes;
use futures::SinkExt;
use serde::Serialize;
use tokio_postgres::{Client, CopyInSink, Transaction};

use crate::copy_data;
use crate::copy_format::Encoding;
use crate::error::Cause;
use crate::feed::PIECE;
use crate::lines::Lines;
use crate::place::Place;
use crate::typed::{self, TypedRows, Unfit};
use crate::{CopyBinary, CopyFormat, Error, Session, TableName};

/// Bytes of rows that wait to be sent as text beside those in binary.
const ASIDE: usize = 1 << 20;
/// The server's word on rows is heard when their COPY ends: one ends after so many bytes, and the next begins.
const COPY: usize = 64 << 20;

/// Writes rows of Rust values into a table by COPY.
///
/// A row is anything that serde serialises as a struct, a map, a tuple or a sequence. Fields of a struct and keys of a map
/// go to the columns of their names; a struct must have a value for each column, and a map gives NULL to those that it
/// lacks. Items of a tuple or sequence go to the columns in their order.
///
/// - `None` and `()` are NULL. A skipped field (`skip_serializing_if`) is, too.
/// - Truth values, integers, floating-point numbers and byte strings (also a `Vec<u8>`) go to columns of their kind as they
///   are. A number that its column has no room for is refused.
/// - Text, which is what the values of most crates serialise as (such as `uuid`, `jiff`, `chrono`, `rust_decimal`), is
///   read for the column's type as the server reads it. So is the text of whatever meets a column of another kind:
///   `true`, `12`, `0.5`. A variant of an enum without a value is its name.
/// - Columns of json and jsonb take any value, as [`serde_json`] writes it; `None` is NULL, [`serde_json::Value::Null`] is
///   the document `null`, and a text is a document that is a text: what is JSON already goes in as `serde_json`'s
///   `RawValue`.
/// - Arrays take sequences, nested ones for more than one dimension, or their literal as text.
///
/// All rows become visible with [`finish`](Self::finish), or none. They go in the binary format where the encoder knows
/// all columns' [types](crate::BinaryType); a row with a value that only the server can read goes as text beside it, so
/// rows may stand in the table in another order than they were written in. Memory is bounded: rows are sent in pieces of
/// 256 KiB, and [`write`](Self::write) waits while the server is behind. What the server refuses is told by one of the
/// later calls: within 64 MiB of rows, or by `finish`.
///
/// Dropping it, at any time, keeps nothing of what was written. So does dropping the future of one of its calls before it
/// is done, after which each further call is [`Error::Spent`]; of the future of `finish` alone, it may be that the commit
/// was on its way.
///
/// It knows nothing of the [ledger](crate::prepare_ledger): who writes the same rows twice has them twice.
///
/// ```
/// use bulk_pg::{CopyFormat, CopyWriter, Session};
/// use serde::Serialize;
///
/// #[derive(Serialize)]
/// struct Court<'a> {
///     id: &'a str,
///     founded: Option<i32>,
///     judges: Vec<&'a str>,
/// }
///
/// # let server = bulk_testkit::postgres::shared().unwrap();
/// # let database = server.create_database("doc").unwrap();
/// # let url = database.url();
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let mut session = Session::connect(url).await?;
/// session.client().batch_execute("CREATE TABLE court (id text, founded integer, judges text[])").await.unwrap();
///
/// let table = "court".parse().unwrap();
/// let columns = ["id", "founded", "judges"];
/// let mut writer = CopyWriter::begin(&mut session, &table, &columns, CopyFormat::Auto).await?;
/// writer.write(&Court { id: "scotus", founded: Some(1789), judges: vec!["Jay", "Rutledge"] }).await?;
/// writer.write(&("ca9", 1866, ["Sawyer"])).await?;
/// assert_eq!(writer.finish().await?, 2);
/// # Ok::<(), bulk_pg::Error>(())
/// # }).unwrap();
/// ```
pub struct CopyWriter<'a> {
    // Ended before its transaction is.
    under_way: Option<UnderWay>,
    scope: Scope<'a>,
    table: TableName,
    /// `"a", "b"`.
    columns: String,
    rows: TypedRows,
    encoding: Encoding,
    buffer: Batch,
    /// Text beside binary.
    aside: Batch,
    /// Rows that were taken.
    written: u64,
    /// Whether it was cut short.
    is_spent: bool,
}

/// What the rows are committed with.
enum Scope<'a> {
    Own(Transaction<'a>),
    Within(&'a Transaction<'a>),
    /// A transaction is open in it, and ends with it at the latest.
    Session(Box<Session>),
}

impl Scope<'_> {
    fn client(&self) -> &Client {
        match self {
            Self::Own(transaction) => transaction.client(),
            Self::Within(transaction) => transaction.client(),
            Self::Session(session) => session.client(),
        }
    }
}

#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// The rows, by their places among all.
    lines: Lines,
}

struct UnderWay {
    sink: Pin<Box<CopyInSink<Bytes>>>,
    encoding: Encoding,
    lines: Lines,
    sent: usize,
}

/// There is no need of the disk's word for each chunk of a load; what has no mark must be there when `finish` says so.
const DURABLE: &str = "SET LOCAL synchronous_commit = on";

impl<'a> CopyWriter<'a> {
    /// Begins to write rows with these columns, in a transaction of its own, which [`finish`](Self::finish) commits, and
    /// waits until that is on the server's disk. No columns are all columns of the table whose values the server does not
    /// compute. Columns that are not written get their defaults.
    ///
    /// # Errors
    ///
    /// [`Error::NoTable`], [`Error::Target`] for a column that the table does not have, and [`Error::Database`].
    pub async fn begin(
        session: &'a mut Session,
        table: &TableName,
        columns: &[&str],
        format: CopyFormat,
    ) -> Result<Self, Error> {
        let action = || Error::database(format!("begin to write into {table:#}"));
        let transaction = session.client_mut().transaction().await.map_err(action())?;
        transaction.batch_execute(DURABLE).await.map_err(action())?;
        Self::new(Scope::Own(transaction), table, columns, format).await
    }

    /// As [`begin`](Self::begin), in a transaction of the caller's, who commits it: [`finish`](Self::finish) only ends the
    /// writing, so that rows and whatever else the transaction does are there together or not at all. Of a transaction in
    /// which a writer was dropped, or has failed, the server commits nothing.
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin).
    pub async fn begin_within(
        transaction: &'a Transaction<'a>,
        table: &TableName,
        columns: &[&str],
        format: CopyFormat,
    ) -> Result<Self, Error> {
        let mut writer = Self::new(Scope::Within(transaction), table, columns, format).await?;
        // A COPY that is broken off is what makes the server refuse to commit: so there is one from beginning to end.
        writer.begin_copy(writer.encoding).await?;
        Ok(writer)
    }

    /// As [`begin`](Self::begin), over a session that it takes, and closes in the end.
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin).
    pub async fn begin_owned(
        session: Session,
        table: &TableName,
        columns: &[&str],
        format: CopyFormat,
    ) -> Result<CopyWriter<'static>, Error> {
        let begin = format!("BEGIN; {DURABLE}");
        let begun = session.client().batch_execute(&begin).await;
        begun.map_err(Error::database(format!("begin to write into {table:#}")))?;
        CopyWriter::new(Scope::Session(Box::new(session)), table, columns, format).await
    }

    async fn new(scope: Scope<'a>, table: &TableName, columns: &[&str], format: CopyFormat) -> Result<Self, Error> {
        let found = typed::columns(scope.client(), table, columns).await?;
        let is_binary = format == CopyFormat::Auto && found.iter().all(|column| column.binary_type.is_some());
        Ok(Self {
            under_way: None,
            scope,
            table: table.clone(),
            columns: typed::list(table, &found)?,
            rows: TypedRows::new(found),
            encoding: if is_binary { Encoding::Binary } else { Encoding::Text },
            buffer: Batch::default(),
            aside: Batch::default(),
            written: 0,
            is_spent: false,
        })
    }

    /// Writes a row. It is sent sooner or later, and waits for a slow server if need be.
    ///
    /// # Errors
    ///
    /// [`Error::BadRow`]: nothing of the row is written, and the next one can be. Of all others nothing of what was written
    /// is kept: [`Error::RefusedRow`], [`Error::Database`], and [`Error::Spent`] after one of them.
    pub async fn write<T: Serialize + ?Sized>(&mut self, row: &T) -> Result<(), Error> {
        if self.put(row)? { self.send().await } else { Ok(()) }
    }

    /// Takes a row, and says whether it is time to [send](Self::send).
    pub(crate) fn put<T: Serialize + ?Sized>(&mut self, row: &T) -> Result<bool, Error> {
        self.check()?;
        match self.rows.append(row, self.encoding, &mut self.buffer.bytes) {
            Ok(()) => self.buffer.lines.push(self.written),
            Err(Unfit::Unclear) => {
                let appended = self.rows.append(row, Encoding::Text, &mut self.aside.bytes);
                appended.map_err(|unfit| self.bad_row(unfit))?;
                self.aside.lines.push(self.written);
            }
            Err(unfit) => return Err(self.bad_row(unfit)),
        }
        self.written += 1;
        Ok(self.buffer.bytes.len() >= PIECE || self.aside.bytes.len() >= ASIDE)
    }

    /// Sends what has come together.
    pub(crate) async fn send(&mut self) -> Result<(), Error> {
        self.check()?;
        // Until all is sent: whoever drops this before that has lost rows.
        self.is_spent = true;
        self.send_batches(self.aside.bytes.len() >= ASIDE).await?;
        self.is_spent = false;
        Ok(())
    }

    async fn send_batches(&mut self, all: bool) -> Result<(), Error> {
        let buffer = std::mem::take(&mut self.buffer);
        self.send_batch(self.encoding, buffer).await?;
        if all {
            let aside = std::mem::take(&mut self.aside);
            self.send_batch(Encoding::Text, aside).await?;
        }
        if self.under_way.as_ref().is_some_and(|under_way| under_way.sent >= COPY) {
            self.end_copy().await?;
            if matches!(self.scope, Scope::Within(_)) {
                self.begin_copy(self.encoding).await?;
            }
        }
        Ok(())
    }

    /// Sends the rest, and commits it. Says how many rows were written.
    ///
    /// # Errors
    ///
    /// [`Error::RefusedRow`], [`Error::TakenRows`] if the server counts other rows, [`Error::Database`] and
    /// [`Error::Spent`]. Then nothing is kept; only where the connection broke while it was committed, nobody knows.
    pub async fn finish(mut self) -> Result<u64, Error> {
        self.check()?;
        self.is_spent = true;
        self.send_batches(true).await?;
        self.end_copy().await?;
        let Self { scope, table, written, .. } = self;
        let committed = match scope {
            Scope::Own(transaction) => transaction.commit().await,
            Scope::Within(_) => Ok(()),
            Scope::Session(session) => session.client().batch_execute("COMMIT").await,
        };
        // Deferred constraints are checked here.
        committed.map_err(|error| refusal(&table, written, None, error))?;
        Ok(written)
    }

    fn check(&self) -> Result<(), Error> {
        if self.is_spent { Err(Error::Spent { table: self.table.clone() }) } else { Ok(()) }
    }

    async fn send_batch(&mut self, encoding: Encoding, batch: Batch) -> Result<(), Error> {
        let Batch { bytes, lines } = batch;
        if bytes.is_empty() {
            return Ok(());
        }
        if self.under_way.as_ref().is_some_and(|under_way| under_way.encoding != encoding) {
            self.end_copy().await?;
        }
        if self.under_way.is_none() {
            self.begin_copy(encoding).await?;
        }
        let Self { under_way: Some(under_way), table, written, .. } = self else { return Ok(()) };
        under_way.lines.append(lines);
        under_way.sent += bytes.len();
        let sent = copy_data::send(under_way.sink.as_mut(), bytes.into()).await;
        sent.map_err(|error| refusal(table, *written, Some(&under_way.lines), error))
    }

    async fn begin_copy(&mut self, encoding: Encoding) -> Result<(), Error> {
        let Self { scope, table, columns, written, .. } = self;
        let format = if encoding == Encoding::Binary { " (FORMAT binary)" } else { "" };
        let statement = format!("COPY {table} ({columns}) FROM STDIN{format}");
        let begun = scope.client().copy_in(&statement).await;
        let begun = begun.map_err(Error::database(format!("begin to write into {table:#}")))?;
        let mut sink = Box::pin(begun);
        if encoding == Encoding::Binary {
            let sent = sink.send(Bytes::from_static(&CopyBinary::HEADER)).await;
            sent.map_err(|error| refusal(table, *written, None, error))?;
        }
        self.under_way = Some(UnderWay { sink, encoding, lines: Lines::default(), sent: 0 });
        Ok(())
    }

    /// Ends the COPY under way, and compares the rows that were sent with those that the server counts.
    async fn end_copy(&mut self) -> Result<(), Error> {
        let Some(UnderWay { mut sink, encoding, lines, .. }) = self.under_way.take() else { return Ok(()) };
        let refusal = |error| refusal(&self.table, self.written, Some(&lines), error);
        if encoding == Encoding::Binary {
            sink.send(Bytes::from_static(&CopyBinary::TRAILER)).await.map_err(refusal)?;
        }
        let taken = sink.as_mut().finish().await.map_err(refusal)?;
        if taken == lines.count() {
            return Ok(());
        }
        Err(Error::TakenRows { table: self.table.clone(), sent: lines.count(), taken })
    }

    #[cold]
    fn bad_row(&self, unfit: Unfit) -> Error {
        let (place, sqlstate, message) = match unfit {
            Unfit::Bad { column, sqlstate, message } => (column, sqlstate, message),
            // Neither comes of a row of text.
            other => (None, "XX000", other.to_string()),
        };
        let column = place.and_then(|place| self.rows.columns().get(place));
        Error::BadRow {
            table: Box::new(self.table.clone()),
            row: self.written + 1,
            column: column.map(|column| (column.name.as_str().into(), column.type_name.as_str().into())),
            sqlstate,
            message: message.into(),
        }
    }
}

/// What the server says of rows, in a COPY with these lines if it was one.
fn refusal(table: &TableName, written: u64, lines: Option<&Lines>, error: tokio_postgres::Error) -> Error {
    let table = Box::new(table.clone());
    let Some(answer) = error.as_db_error() else {
        return Error::Database { action: format!("write into {table:#}"), source: Cause(error) };
    };
    let place = answer.where_().and_then(|context| Place::find(context, table.name.as_str()));
    let row = place.as_ref().and_then(|place| lines?.record(place.line));
    let column = place.filter(|_| row.is_some()).and_then(|place| place.column);
    Error::RefusedRow { table, row: row.map(|row| row + 1), written, column, source: Cause(error) }
}

impl std::fmt::Debug for CopyWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyWriter")
            .field("table", &self.table)
            .field("columns", &self.columns)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}
