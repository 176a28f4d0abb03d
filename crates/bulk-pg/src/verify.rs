use tokio_postgres::GenericClient;

use crate::{Error, Session, TableName};

/// Rows of a table, and what the ledger says that they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Count {
    /// The table.
    pub table: TableName,
    /// Records of the files that were loaded into it.
    pub records: u64,
    /// Those of them that were left out.
    pub rejected: u64,
    /// Those of them that did not meet the [conditions](crate::LoadOptions::filter).
    pub filtered: u64,
    /// Rows that it has.
    pub rows: u64,
}

impl Count {
    /// Whether it has a row for each record that was not left out and met the conditions.
    pub fn matches(&self) -> bool {
        self.loaded() == self.rows
    }

    /// Rows that were loaded into it.
    pub fn loaded(&self) -> u64 {
        self.records.saturating_sub(self.rejected).saturating_sub(self.filtered)
    }
}

/// Whether a table has any row. Takes no longer for a large table.
///
/// # Errors
///
/// [`Error::Database`], also if there is no such table.
pub async fn has_rows(session: &Session, table: &TableName) -> Result<bool, Error> {
    is_any_row(session.client(), table).await
}

/// [`has_rows`], also inside a transaction.
pub(crate) async fn is_any_row(client: &impl GenericClient, table: &TableName) -> Result<bool, Error> {
    let row = client.query_one(&format!("SELECT EXISTS (SELECT FROM {table})"), &[]).await;
    Ok(row.map_err(Error::database(format!("look into {table:#}")))?.get(0))
}

/// Counts the rows of a table and the records of the files that were loaded into it.
///
/// # Errors
///
/// [`Error::Database`].
pub async fn count_rows(session: &Session, table: &TableName) -> Result<Count, Error> {
    count(session.client(), table).await
}

/// [`count_rows`], also inside a transaction.
pub(crate) async fn count(client: &impl GenericClient, table: &TableName) -> Result<Count, Error> {
    let sql = format!(
        "SELECT (SELECT count(*) FROM {table}), l.records, l.rejected, l.filtered
         FROM (SELECT coalesce(sum(records), 0)::bigint records, coalesce(sum(rejected), 0)::bigint rejected,
                      coalesce(sum(filtered), 0)::bigint filtered
               FROM bulk.load
               WHERE target_schema = $1 AND target_table = $2 AND finished_at IS NOT NULL
                 AND target_oid = $3::text::pg_catalog.regclass) l"
    );
    let row = client
        .query_one(&sql, &[&table.schema.as_str(), &table.name.as_str(), &table.to_string()])
        .await
        .map_err(Error::database(format!("count the rows of {table:#}")))?;
    let unsigned = |place| u64::try_from(row.get::<_, i64>(place)).unwrap_or(0);
    let [rows, records, rejected, filtered] = [0, 1, 2, 3].map(unsigned);
    Ok(Count { table: table.clone(), records, rejected, filtered, rows })
}

/// How many records and rows of the files that went into a table were left out of it, as `bulk.reject` lists them.
///
/// # Errors
///
/// [`Error::Database`].
pub async fn count_rejects(session: &Session, table: &TableName) -> Result<u64, Error> {
    let row = session
        .client()
        .query_one(
            "SELECT coalesce(sum(rejected), 0)::bigint FROM bulk.load
             WHERE target_oid = pg_catalog.to_regclass($1)::oid AND finished_at IS NOT NULL",
            &[&table.to_string()],
        )
        .await
        .map_err(Error::database(format!("count what was left out of {table:#}")))?;
    Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
}
