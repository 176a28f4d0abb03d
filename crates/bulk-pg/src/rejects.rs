//! The records that a load has left out: `bulk.reject`.

use std::io::{self, Write};
use std::pin::pin;

use futures::TryStreamExt;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Transaction};

use crate::ledger::{Load, unsigned};
use crate::reader::Layout;
use crate::received::Kept;
use crate::{Error, FileIdentity, Session, TableName};

/// The statements that make the table, and the columns that count its rows in a ledger which has none.
pub(crate) const TABLE: &str = "
    ALTER TABLE bulk.load ADD COLUMN IF NOT EXISTS rejected bigint NOT NULL DEFAULT 0;
    ALTER TABLE bulk.chunk ADD COLUMN IF NOT EXISTS rejected bigint NOT NULL DEFAULT 0;
    CREATE TABLE IF NOT EXISTS bulk.reject (
        load_id bigint NOT NULL REFERENCES bulk.load ON DELETE CASCADE,
        record bigint,
        byte bigint,
        \"column\" text,
        sqlstate text NOT NULL,
        message text NOT NULL,
        raw bytea,
        fields jsonb
    );
    ALTER TABLE bulk.reject ADD COLUMN IF NOT EXISTS fields jsonb, DROP CONSTRAINT IF EXISTS reject_pkey;
    ALTER TABLE bulk.reject ALTER record DROP NOT NULL, ALTER byte DROP NOT NULL, ALTER raw DROP NOT NULL;
    CREATE UNIQUE INDEX IF NOT EXISTS reject_record ON bulk.reject (load_id, record);
    COMMENT ON TABLE bulk.reject IS 'A record that was left out of a load, written in the transaction of the rows around it; byte is where it starts in the decoded file, raw is the record as it stands there. Or a row that was taken out of its table because it refers to nothing: it has fields in place of these.';";

/// A record that is left out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reject {
    /// Its place in the chunk, from 0.
    pub(crate) index: u64,
    pub(crate) column: Option<Box<str>>,
    pub(crate) sqlstate: Box<str>,
    pub(crate) message: Box<str>,
}

impl Reject {
    pub(crate) fn new(index: u64, column: Option<&str>, sqlstate: &str, message: &str) -> Self {
        // No text of the server's holds a NUL.
        let message = if message.contains('\0') { message.replace('\0', "\\0").into() } else { message.into() };
        Self { index, column: column.map(Into::into), sqlstate: sqlstate.into(), message }
    }

    /// Bytes that it takes, about.
    pub(crate) fn room(&self) -> usize {
        size_of::<Self>() + self.message.len() + 64
    }

    /// That it is the first one too many.
    pub(crate) fn too_many(&self, file: &str, limit: u64, kept: &Kept<'_>) -> Error {
        let position = kept.position(self.index);
        Error::Rejects {
            file: file.to_owned(),
            limit,
            record: position.record + 1,
            offset: position.offset,
            column: self.column.clone(),
            sqlstate: self.sqlstate.clone(),
            message: self.message.clone(),
        }
    }
}

/// Rejects and bytes of them in one statement.
const BATCH: usize = 1000;
const BATCH_BYTES: usize = 1 << 20;

/// Notes rejects of a chunk within its transaction.
pub(crate) async fn insert(
    transaction: &Transaction<'_>,
    load: &Load,
    layout: &Layout,
    kept: &Kept<'_>,
    rejects: &[Reject],
) -> Result<(), Error> {
    let action = || Error::database(format!("note the rejects of {}", load.file.key));
    if rejects.is_empty() {
        return Ok(());
    }
    let insert = transaction
        .prepare(
            "INSERT INTO bulk.reject (load_id, record, byte, \"column\", sqlstate, message, raw)
             SELECT $1, * FROM ROWS FROM (
                 pg_catalog.unnest($2::bigint[]), pg_catalog.unnest($3::bigint[]), pg_catalog.unnest($4::text[]),
                 pg_catalog.unnest($5::text[]), pg_catalog.unnest($6::text[]), pg_catalog.unnest($7::bytea[]))",
        )
        .await
        .map_err(action())?;
    let mut rest = rejects;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |reject: &&Reject| {
            let is_first = bytes == 0;
            bytes += reject.room() + kept.record(reject.index).len();
            is_first || bytes <= BATCH_BYTES
        };
        let (batch, others) = rest.split_at(rest.iter().take(BATCH).take_while(fits).count());
        rest = others;
        let positions: Vec<_> = batch.iter().map(|reject| kept.position(reject.index)).collect();
        let records: Vec<_> = positions.iter().map(|position| position.record as i64 + 1).collect();
        let bytes: Vec<_> = positions.iter().map(|position| position.offset as i64).collect();
        let columns: Vec<_> = batch.iter().map(|reject| reject.column.as_deref()).collect();
        let sqlstates: Vec<_> = batch.iter().map(|reject| &*reject.sqlstate).collect();
        let messages: Vec<_> = batch.iter().map(|reject| &*reject.message).collect();
        let raw: Vec<_> = batch.iter().map(|reject| layout.without_gap(kept.record(reject.index))).collect();
        let parameters: [&(dyn ToSql + Sync); 7] = [&load.id, &records, &bytes, &columns, &sqlstates, &messages, &raw];
        transaction.execute(&insert, &parameters).await.map_err(action())?;
    }
    Ok(())
}

/// That a load has more rejects than it may; it names the first one too many.
pub(crate) async fn over_limit(session: &Session, load: &Load, limit: u64) -> Result<Option<Error>, Error> {
    let skip = i64::try_from(limit).unwrap_or(i64::MAX);
    let row = session
        .client()
        .query_opt(
            "SELECT record, byte, \"column\", sqlstate, message FROM bulk.reject
             WHERE load_id = $1 AND record IS NOT NULL ORDER BY record OFFSET $2 LIMIT 1",
            &[&load.id, &skip],
        )
        .await
        .map_err(Error::database(format!("read the rejects of {}", load.file.key)))?;
    Ok(row.map(|row| Error::Rejects {
        file: load.file.key.clone(),
        limit,
        record: unsigned(row.get(0)),
        offset: unsigned(row.get(1)),
        column: row.get(2),
        sqlstate: row.get(3),
        message: row.get(4),
    }))
}

/// A line for a program to read.
#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    byte: Option<i64>,
    column: Option<&'a str>,
    sqlstate: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<&'a RawValue>,
}

/// The rejects of a file, by the [parameters](OfFile::parameters) that tell it.
const OF_FILE: &str = "
    FROM bulk.load l JOIN bulk.reject r ON r.load_id = l.id
    WHERE (l.target_schema = $1 AND l.target_table = $2 OR l.target_oid IN
           (SELECT s.staging_oid FROM bulk.refresh s WHERE s.target_schema = $1 AND s.target_table = $2
            UNION SELECT w.twin_oid FROM bulk.swap w
            WHERE w.target_schema = $1 AND w.target_table = $2 AND w.swapped_at IS NULL))
      AND l.file_key = $3
      AND l.file_etag IS NOT DISTINCT FROM $4 AND l.file_size = $5";

/// A record that was left out of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RejectedRecord {
    /// Its number in the file, from 1.
    pub record: u64,
    /// Where it starts in the decoded file.
    pub byte: u64,
    /// The column that is to blame, if it is one.
    pub column: Option<String>,
    /// Why: its first 1,001 characters.
    pub message: String,
}

/// The first records of a file that were left out, and how many they all are: see [`find_rejects`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RejectedRecords {
    /// The first ones, in the file's order.
    pub first: Vec<RejectedRecord>,
    /// How many there are.
    pub count: u64,
}

/// The first `limit` of the records of a file that were left out of a table so far, without the records themselves, and how
/// many there are. Which these are is told as by [`write_rejects`]; rows that were taken out for a foreign key are not among
/// them, as they have no place in the file.
///
/// # Errors
///
/// [`Error::Database`].
pub async fn find_rejects(
    session: &Session,
    table: &TableName,
    file: &FileIdentity,
    limit: u32,
) -> Result<RejectedRecords, Error> {
    let action = || Error::database(format!("read the rejects of {}", file.key));
    let limit = i64::from(limit);
    let of_file = OfFile::new(table, file);
    let mut parameters = of_file.parameters().to_vec();
    let count = format!("SELECT count(r.record){OF_FILE}");
    let count = session.client().query_one(&count, &parameters).await.map_err(action())?;
    parameters.push(&limit);
    let first = format!(
        "SELECT r.record, r.byte, r.\"column\", left(r.message, 1001){OF_FILE} AND r.record IS NOT NULL
         ORDER BY r.record LIMIT $6"
    );
    let first = session.client().query(&first, &parameters).await.map_err(action())?;
    let record = |row: Row| RejectedRecord {
        record: unsigned(row.get(0)),
        byte: unsigned(row.get(1)),
        column: row.get(2),
        message: row.get(3),
    };
    Ok(RejectedRecords { first: first.into_iter().map(record).collect(), count: unsigned(count.get(0)) })
}

/// Which rejects are meant, as the server is asked for them.
struct OfFile<'a> {
    schema: &'a str,
    table: &'a str,
    file: &'a FileIdentity,
    size: i64,
}

impl<'a> OfFile<'a> {
    fn new(table: &'a TableName, file: &'a FileIdentity) -> Self {
        let size = i64::try_from(file.size).unwrap_or(i64::MAX);
        Self { schema: table.schema.as_str(), table: table.name.as_str(), file, size }
    }

    fn parameters(&self) -> [&(dyn ToSql + Sync); 5] {
        [&self.schema, &self.table, &self.file.key, &self.file.etag, &self.size]
    }
}

/// Writes the records of a file that were left out of a table, and tells how many they are.
///
/// `raw` gets them byte for byte as they stand in the decoded file, without its header (and, of COPY's binary format,
/// without the trailer), in the file's order. `lines` gets
/// a line of JSON for each: `file`, `record` (its number, from 1), `byte` (where it starts in the decoded file),
/// `column` (or null), `sqlstate` and `message`. A row that [was taken out](crate::OrphanPolicy::Reject) for a foreign key
/// comes behind them: as a line with `fields`, the row as an object, in place of `record` and `byte`. Both are written to in small pieces, as the server gives them, and are
/// not flushed. Of a load that is not finished it writes what has been left out so far; of a file that is to
/// [take the place](crate::prepare_swap) of the table's rows, or [to be merged](crate::merge_staged) into it, what is left out
/// of it there.
///
/// # Errors
///
/// [`Error::Database`], and [`Error::Write`] of either. What had been written stays.
pub async fn write_rejects(
    session: &Session,
    table: &TableName,
    file: &FileIdentity,
    raw: &mut impl Write,
    lines: &mut impl Write,
) -> Result<u64, Error> {
    let action = || Error::database(format!("read the rejects of {}", file.key));
    let of_file = OfFile::new(table, file);
    let all = format!(
        "SELECT r.record, r.byte, r.\"column\", r.sqlstate, r.message, r.raw, r.fields::text{OF_FILE}
         ORDER BY r.record, r.fields"
    );
    let rows = session.client().query_raw(&all, of_file.parameters()).await.map_err(action())?;
    let mut rows = pin!(rows);
    let mut count = 0;
    while let Some(row) = rows.try_next().await.map_err(action())? {
        write_reject(&file.key, &row, raw, lines)
            .map_err(|source| Error::Write { what: format!("the rejects of {}", file.key), source })?;
        count += 1;
    }
    Ok(count)
}

fn write_reject(file: &str, row: &Row, raw: &mut impl Write, lines: &mut impl Write) -> io::Result<()> {
    let fields = row.get::<_, Option<&str>>(6).map(serde_json::from_str).transpose()?;
    let line = Line {
        file,
        record: row.get(0),
        byte: row.get(1),
        column: row.get(2),
        sqlstate: row.get(3),
        message: row.get(4),
        fields,
    };
    raw.write_all(row.get::<_, Option<&[u8]>>(5).unwrap_or_default())?;
    serde_json::to_writer(&mut *lines, &line)?;
    lines.write_all(b"\n")
}
