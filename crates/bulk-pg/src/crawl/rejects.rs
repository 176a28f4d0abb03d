//! The rows of a crawl that were left out, as a list.

use std::io::{self, Write};
use std::pin::pin;

use futures::TryStreamExt;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio_postgres::Row;

use super::ledger::is_prepared;
use crate::{Error, Session, TableName};

/// A line for a program to read.
#[derive(Serialize)]
struct Line<'a> {
    call: Option<&'a str>,
    table: String,
    row: Option<i64>,
    column: Option<&'a str>,
    sqlstate: &'a str,
    message: &'a str,
    fields: Option<&'a RawValue>,
}

/// Writes the rows that were left out of the last round of a crawl, and tells how many they are. Each is a line of JSON:
/// `call` (its key), `table`, `row` (its number, from 1, among those of the call for the table; it and the call are null
/// of a row that was found when all had come), `column` (or null),
/// `sqlstate`, `message` and `fields`, the row as an object; of a row that the server has refused, all values are texts.
///
/// It writes in small pieces, as the server gives them, and does not flush. Nothing needs to be locked or under way for it;
/// where no crawl has begun yet, there are none.
///
/// # Errors
///
/// [`Error::Database`] and [`Error::Write`]. What had been written stays.
pub async fn write_call_rejects(session: &Session, job: &str, lines: &mut impl Write) -> Result<u64, Error> {
    let action = || Error::database(format!("read the rejects of the crawl {job}"));
    if !is_prepared(session).await? {
        return Ok(0);
    }
    let rows = session
        .client()
        .query_raw(
            "SELECT r.key, r.target_schema, r.target_table, r.row, r.\"column\", r.sqlstate, r.message, r.fields::text
             FROM bulk.crawl w JOIN bulk.call_reject r ON r.crawl_id = w.id WHERE w.job = $1
             ORDER BY r.key COLLATE \"C\", r.target_schema, r.target_table, r.row",
            [job],
        )
        .await
        .map_err(action())?;
    let mut rows = pin!(rows);
    let mut count = 0;
    while let Some(row) = rows.try_next().await.map_err(action())? {
        let what = || format!("the rejects of the crawl {job}");
        write_line(&row, lines).map_err(|source| Error::Write { what: what(), source })?;
        count += 1;
    }
    Ok(count)
}

fn write_line(row: &Row, lines: &mut impl Write) -> io::Result<()> {
    let table = TableName::new(row.get::<_, &str>(1), row.get::<_, &str>(2));
    let line = Line {
        call: row.get(0),
        table: table.map_or_else(|_| row.get(2), |table| format!("{table:#}")),
        row: row.get(3),
        column: row.get(4),
        sqlstate: row.get(5),
        message: row.get(6),
        fields: row.get::<_, Option<&str>>(7).map(serde_json::from_str).transpose()?,
    };
    serde_json::to_writer(&mut *lines, &line)?;
    lines.write_all(b"\n")
}
