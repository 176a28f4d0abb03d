use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;

use crate::ledger::unsigned;
use crate::user_query::subselect;
use crate::{Error, Session};

const OF: &str = "the input";
const READ: &str = "read the input";

/// The columns that the [records](query_records) of a query have, in their order. The query is prepared, and not run.
///
/// # Errors
///
/// As [`query_records`].
pub async fn query_columns(session: &Session, query: &str) -> Result<Vec<String>, Error> {
    let sql = format!("SELECT * FROM (\n{}\n) bulk_input", subselect(query, OF)?);
    let prepared = session.client().prepare(&sql).await.map_err(Error::database(READ))?;
    Ok(prepared.columns().iter().map(|column| column.name().to_owned()).collect())
}

/// The rows of a query as JSON objects, by the server's `row_to_json`: records for a crawl, for instance. They are read as they
/// are taken, in one statement, whose snapshot the server keeps until the last one. Dropping the stream ends the session.
///
/// # Errors
///
/// [`Error::Options`] if it is no query, [`Error::Database`] if the server refuses it; so may be an item, and is the last then.
pub async fn query_records(session: Session, query: &str) -> Result<BoxStream<'static, Result<Value, Error>>, Error> {
    let query = subselect(query, OF)?;
    let sql = format!("SELECT pg_catalog.row_to_json(bulk_input)::text FROM (\n{query}\n) bulk_input");
    let failed = |error| Error::database(READ)(error);
    let rows = session.client().query_raw(&sql, Vec::<String>::new()).await.map_err(failed)?;
    let records = rows.map_err(failed).and_then(move |row| async move {
        let text: &str = row.try_get(0).map_err(failed)?;
        serde_json::from_str(text)
            .map_err(|error| Error::Options { what: format!("a row of the input is no JSON: {error}") })
    });
    // As long as there may be more of them.
    let records = records.map(move |record| {
        let _session = &session;
        record
    });
    Ok(records.boxed())
}

/// How many [records](query_records) a query has, `most` at most. It is run for that, in a transaction that only reads, for 10 minutes at most.
///
/// # Errors
///
/// As [`query_records`], also for a query that writes.
pub async fn count_records(session: &mut Session, query: &str, most: Option<u64>) -> Result<u64, Error> {
    let query = subselect(query, OF)?;
    let most = most.map_or_else(|| "ALL".to_owned(), |most| most.min(i64::MAX as u64).to_string());
    let sql = format!("SELECT count(*) FROM (SELECT FROM (\n{query}\n) bulk_input LIMIT {most}) bulk_input");
    let failed = |error| Error::database("count the input")(error);
    let transaction = session.client_mut().build_transaction().read_only(true).start().await.map_err(failed)?;
    // Nobody waits for longer, nor does the server count on for somebody who has gone.
    transaction.batch_execute("SET LOCAL statement_timeout = '10min'").await.map_err(failed)?;
    let row = transaction.query_one(&sql, &[]).await.map_err(failed)?;
    Ok(unsigned(row.get(0)))
}
