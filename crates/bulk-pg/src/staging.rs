//! Staging tables: what a file says that a table should be, beside the table, until it is merged.

use std::io;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Oid;
use tokio_postgres::{GenericClient, Transaction};

use crate::column::Target;
use crate::input_format::can_go_on;
use crate::key::Key;
use crate::ledger::{self, FileIdentity, Load, unsigned};
use crate::leftover::{self, Kind, begin_locked_with_leftovers};
use crate::load::load_table;
use crate::table_lock::{LOCK_CLASS, end};
use crate::verify::has_rows;
use crate::{Error, Event, Ident, Input, LoadOptions, Loaded, Session, TableName, choice};

/// The statements that make what staging needs in the ledger.
pub(crate) const TABLE: &str = "
    ALTER TABLE bulk.load ADD COLUMN IF NOT EXISTS columns text[];
    COMMENT ON COLUMN bulk.load.columns IS 'Of a load into a staging table: the columns that the file has, or got from the caller.';
    CREATE TABLE IF NOT EXISTS bulk.refresh (
        target_oid oid PRIMARY KEY,
        target_schema text NOT NULL,
        target_table text NOT NULL,
        staging_oid oid NOT NULL,
        file_key text NOT NULL,
        file_etag text,
        file_size bigint NOT NULL,
        started_at timestamptz NOT NULL DEFAULT now()
    );
    COMMENT ON TABLE bulk.refresh IS 'A table that is to become what a file says. The file goes into the staging table bulk.refresh_OID first; that table and this row go in the transaction that merges it.';";

/// The schema of the ledger, which staging tables are in, too.
const SCHEMA: &str = "bulk";

/// A file that is whole in a staging table.
#[derive(Clone, Debug)]
pub(crate) struct Staged {
    /// The table that it is for.
    pub(crate) target: TableName,
    pub(crate) target_oid: Oid,
    /// The staging table.
    pub(crate) table: TableName,
    pub(crate) oid: Oid,
    pub(crate) file: FileIdentity,
    /// The row of `bulk.load`.
    pub(crate) load: i64,
    /// The columns that the file has, or got from the caller, in the table's order.
    pub(crate) columns: Vec<String>,
}

/// An expression for all of a table that its staging table must have, too. `oid` is an expression.
fn shape(oid: &str) -> String {
    format!(
        "(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', pg_catalog.quote_ident(attname), atttypid, atttypmod,
                                                            attcollation, attgenerated, attnotnull, atthasdef),
                                       ', ' ORDER BY attnum)
          FROM pg_catalog.pg_attribute WHERE attrelid = {oid} AND attnum > 0 AND NOT attisdropped)"
    )
}

fn name(target: Oid) -> TableName {
    TableName::new(SCHEMA, format!("refresh_{target}")).expect("a word and a number are an identifier")
}

impl Staged {
    /// What is whole in the staging table of `target`, if both are as they were when it was made.
    pub(crate) async fn find(client: &impl GenericClient, target: &TableName) -> Result<Option<Self>, Error> {
        let sql = format!(
            "SELECT r.target_oid, r.staging_oid, r.file_key, r.file_etag, r.file_size, l.id,
                    ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                          WHERE a.attrelid = r.target_oid AND a.attnum > 0 AND a.attname::text = ANY (l.columns)
                          ORDER BY a.attnum)
             FROM bulk.refresh r
             JOIN bulk.load l ON l.target_oid = r.staging_oid AND l.target_schema = $4 AND l.file_key = r.file_key
                  AND l.file_etag IS NOT DISTINCT FROM r.file_etag AND l.file_size = r.file_size
             WHERE r.target_oid = pg_catalog.to_regclass($1)::oid AND r.target_schema = $2 AND r.target_table = $3
               AND l.finished_at IS NOT NULL AND l.damage IS NULL AND {} = {}",
            shape("r.target_oid"),
            shape("r.staging_oid")
        );
        let row = client
            .query_opt(&sql, &[&target.to_string(), &target.schema.as_str(), &target.name.as_str(), &SCHEMA])
            .await
            .map_err(Error::database(format!("look for the staging table of {target:#}")))?;
        Ok(row.map(|row| Self {
            target: target.clone(),
            target_oid: row.get(0),
            table: name(row.get(0)),
            oid: row.get(1),
            file: FileIdentity::new(row.get::<_, String>(2), row.get(3), unsigned(row.get(4))),
            load: row.get(5),
            columns: row.get(6),
        }))
    }

    /// Makes the staging table as unique as the key of its target, so that no row of that has two to become. `None` if the
    /// target has no key among the columns of the file.
    pub(crate) async fn key(&self, client: &impl GenericClient) -> Result<Option<Key>, Error> {
        let keys = Key::all(client, self.target_oid, &self.columns).await?;
        let Some(key) = keys.into_iter().next() else { return Ok(None) };
        let is_there = |other: &Key| other.columns == key.columns;
        if !Key::all(client, self.oid, &self.columns).await?.iter().any(is_there) {
            let sql = format!("CREATE UNIQUE INDEX ON {} ({})", self.table, key.index());
            let action = Error::database(format!("compare the keys of {} for {:#}", self.file.key, self.target));
            client.batch_execute(&sql).await.map_err(action)?;
        }
        Ok(Some(key))
    }
}

/// Whether what the options choose of `file` is whole in a staging table of `table`, so that [`merge_staged`](crate::merge_staged) is all that is left
/// to do. Nothing is changed or locked, so a caller can ask before it fetches the file.
///
/// Staging tables are not logged: what crash recovery has emptied does not count, and the next [`load`](crate::load())
/// with [`LoadOptions::stage`] begins it anew.
///
/// # Errors
///
/// [`Error::Database`].
pub async fn is_staged(
    session: &Session,
    table: &TableName,
    file: &FileIdentity,
    options: &LoadOptions,
) -> Result<bool, Error> {
    let Some(staged) = Staged::find(session.client(), table).await?.filter(|staged| staged.file == *file) else {
        return Ok(false);
    };
    let loads = ledger::loads(session.client(), &staged.table).await?;
    // Asked after the marks were read: rows that they speak of are seen.
    let is_empty = !has_rows(session, &staged.table).await?;
    let is_asked_for = loads.iter().all(|load| choice::is_same(load, options) && can_go_on(load, options));
    Ok(is_asked_for && !(is_empty && loads.iter().any(|load| load.has_rows)))
}

/// [`load`](crate::load()) with [`LoadOptions::stage`].
pub(crate) async fn stage(
    sessions: &mut [Session],
    table: &TableName,
    file: &FileIdentity,
    input: impl FnOnce() -> io::Result<Box<dyn Input>> + Send + 'static,
    options: &LoadOptions,
) -> Result<Loaded, Error> {
    let first = sessions.first_mut().expect("a load takes at least one session");
    let target = Target::find(first, table).await?;
    let staging = name(target.oid);
    let named = |error| rename(error, &staging, table);
    prepare(first, (table, target.oid), &staging, file, options).await.map_err(named)?;
    let mut inner = options.clone();
    (inner.stage, inner.append, inner.freeze, inner.staged_for) = (false, false, false, Some(table.clone()));
    let loaded = load_table(sessions, &staging, file, input, &inner).await.map_err(named)?;
    let first = sessions.first().expect("there was one");
    complete(first, table, options).await?;
    Ok(loaded)
}

/// Finds the staging table with what an interrupted run has left in it, or makes it. A new table that an interrupted swap
/// has left goes.
async fn prepare(
    session: &mut Session,
    (table, oid): (&TableName, Oid),
    staging: &TableName,
    file: &FileIdentity,
    options: &LoadOptions,
) -> Result<(), Error> {
    let both = [table.clone(), staging.clone()];
    let (transaction, _, leftovers) =
        begin_locked_with_leftovers(session, &both, &[Kind::Twin], options.lock_timeout).await?;
    let result = async {
        leftover::discard(&transaction, &leftovers).await?;
        forget_strays(&transaction).await?;
        if is_usable(&transaction, (table, oid), staging, file, options).await? {
            return Ok(());
        }
        discard(&transaction, oid).await?;
        make(&transaction, (table, oid), staging, file, options.is_tolerant()).await
    };
    let result = result.await;
    end(transaction, result, MAKE).await
}

const MAKE: &str = "make a staging table";

/// Whether the staging table is there, fits its target, and has nothing but rows of the file that the options would have
/// put there.
async fn is_usable(
    transaction: &Transaction<'_>,
    (table, oid): (&TableName, Oid),
    staging: &TableName,
    file: &FileIdentity,
    options: &LoadOptions,
) -> Result<bool, Error> {
    // Where rows may be left out, those of a key that had been are found as they come.
    let sql = format!(
        "SELECT EXISTS (
             SELECT FROM bulk.refresh r
             WHERE r.target_oid = $1 AND r.target_schema = $2 AND r.target_table = $3
               AND r.staging_oid = pg_catalog.to_regclass($4)::oid AND r.file_key = $5
               AND r.file_etag IS NOT DISTINCT FROM $6 AND r.file_size = $7 AND {} = {}
               AND NOT EXISTS (
                   SELECT FROM bulk.load l WHERE l.target_schema = $8 AND l.target_table = $9
                   AND (l.file_key <> $5 OR l.file_etag IS DISTINCT FROM $6 OR l.file_size <> $7
                        OR l.target_oid <> r.staging_oid OR l.damage IS NOT NULL))
               AND (NOT $10 OR {} >= {}))",
        shape("r.target_oid"),
        shape("r.staging_oid"),
        unique_indexes("r.staging_oid"),
        unique_indexes("r.target_oid"),
    );
    let row = transaction
        .query_one(
            &sql,
            &[
                &oid,
                &table.schema.as_str(),
                &table.name.as_str(),
                &staging.to_string(),
                &file.key,
                &file.etag,
                &(file.size as i64),
                &SCHEMA,
                &staging.name.as_str(),
                &options.is_tolerant(),
            ],
        )
        .await
        .map_err(Error::database(format!("look for the staging table of {table:#}")))?;
    let is_asked_for = |load: &Load| choice::is_same(load, options) && can_go_on(load, options);
    Ok(row.get(0) && ledger::loads(transaction, staging).await?.iter().all(is_asked_for))
}

fn unique_indexes(oid: &str) -> String {
    format!(
        "(SELECT pg_catalog.count(*) FROM pg_catalog.pg_index
          WHERE indrelid = {oid} AND (indisunique OR indisexclusion))"
    )
}

async fn make(
    transaction: &Transaction<'_>,
    (table, oid): (&TableName, Oid),
    staging: &TableName,
    file: &FileIdentity,
    is_tolerant: bool,
) -> Result<(), Error> {
    let action = || Error::database(format!("make a staging table for {table:#}"));
    let indexes = if is_tolerant { " INCLUDING INDEXES" } else { "" };
    // It is analyzed when it is whole.
    let sql = format!(
        "CREATE UNLOGGED TABLE {staging} (LIKE {table} INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING IDENTITY
             INCLUDING CONSTRAINTS INCLUDING STORAGE{indexes}) WITH (autovacuum_enabled = off)"
    );
    transaction.batch_execute(&sql).await.map_err(action())?;
    if is_tolerant {
        drop_plain_indexes(transaction, staging).await?;
    }
    transaction
        .execute(
            "INSERT INTO bulk.refresh (target_oid, target_schema, target_table, staging_oid, file_key, file_etag, file_size)
             VALUES ($1, $2, $3, pg_catalog.to_regclass($4)::oid, $5, $6, $7)",
            &[
                &oid,
                &table.schema.as_str(),
                &table.name.as_str(),
                &staging.to_string(),
                &file.key,
                &file.etag,
                &(file.size as i64),
            ],
        )
        .await
        .map_err(action())?;
    Ok(())
}

/// Leaves those indexes alone that refuse rows.
async fn drop_plain_indexes(transaction: &Transaction<'_>, staging: &TableName) -> Result<(), Error> {
    let action = || Error::database(MAKE);
    let rows = transaction
        .query(
            "SELECT c.relname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
             WHERE i.indrelid = pg_catalog.to_regclass($1)::oid AND NOT i.indisunique AND NOT i.indisexclusion",
            &[&staging.to_string()],
        )
        .await
        .map_err(action())?;
    for row in &rows {
        // An index is in the schema of its table.
        let Ok(index) = TableName::new(SCHEMA, row.get::<_, String>(0)) else { continue };
        transaction.batch_execute(&format!("DROP INDEX {index}")).await.map_err(action())?;
    }
    Ok(())
}

/// Removes a staging table with all that is known of it.
pub(crate) async fn discard(transaction: &Transaction<'_>, target: Oid) -> Result<(), Error> {
    let action = || Error::database("remove a staging table");
    let staging = name(target);
    transaction.batch_execute(&format!("DROP TABLE IF EXISTS {staging}")).await.map_err(action())?;
    transaction
        .execute(
            "DELETE FROM bulk.load WHERE target_schema = $1 AND target_table = $2",
            &[&SCHEMA, &staging.name.as_str()],
        )
        .await
        .map_err(action())?;
    transaction.execute("DELETE FROM bulk.refresh WHERE target_oid = $1", &[&target]).await.map_err(action())?;
    Ok(())
}

/// Removes staging tables whose targets are gone, unless somebody works on them.
async fn forget_strays(transaction: &Transaction<'_>) -> Result<(), Error> {
    let action = || Error::database("look for old staging tables");
    let strays = transaction
        .query(
            "SELECT r.target_oid, r.staging_oid FROM bulk.refresh r
             WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = r.target_oid)",
            &[],
        )
        .await
        .map_err(action())?;
    for row in &strays {
        let staging = row.get::<_, Oid>(1).cast_signed();
        let lock = format!("SELECT pg_catalog.pg_try_advisory_xact_lock({LOCK_CLASS}, {staging})");
        if transaction.query_one(&lock, &[]).await.map_err(action())?.get(0) {
            discard(transaction, row.get(0)).await?;
        }
    }
    Ok(())
}

/// Makes the staging table ready to be merged: finds records of the same key, and tells the planner what is in it.
async fn complete(session: &Session, table: &TableName, options: &LoadOptions) -> Result<(), Error> {
    let client = session.client();
    let Some(staged) = Staged::find(client, table).await? else { return Err(changed(table)) };
    let step = |what: String| {
        options.observer.event(&Event::Step { what: &what });
    };
    if options.stop.is_cancelled() {
        return Err(Error::Stopped { what: format!("the refresh of {table:#}") });
    }
    client
        .batch_execute("SET maintenance_work_mem = '128MB'")
        .await
        .map_err(Error::database("set maintenance_work_mem"))?;
    step(format!("comparing the keys of {} for {table:#}", staged.file.key));
    match staged.key(client).await {
        Err(Error::Database { source, .. }) if source.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
            return Err(duplicates(client, &staged).await?);
        }
        key => _ = key?,
    }
    let analyze = format!("ANALYZE {}", staged.table);
    client.batch_execute(&analyze).await.map_err(Error::database(format!("analyze the staging table of {table:#}")))
}

/// That somebody has changed a table since its staging table was made, or made that anew.
pub(crate) fn changed(table: &TableName) -> Error {
    let what = "has no file in its staging table that fits it: it was altered meanwhile, or the server has crashed and \
                emptied that table; run it again";
    Error::Occupied { table: table.clone(), what: what.to_owned() }
}

/// Names the records of a staging table that have the same key.
async fn duplicates(client: &impl GenericClient, staged: &Staged) -> Result<Error, Error> {
    let keys = Key::all(client, staged.target_oid, &staged.columns).await?;
    let Some(key) = keys.first() else { return Ok(changed(&staged.target)) };
    let names: Vec<String> = key.names().map(Ident::to_string).collect();
    let texts: Vec<String> = names.iter().map(|name| format!("{name}::text")).collect();
    let sql = format!(
        "WITH twice AS (SELECT pg_catalog.concat_ws(', ', {}) AS key, pg_catalog.count(*) AS records
                        FROM {} GROUP BY {} HAVING pg_catalog.count(*) > 1)
         SELECT coalesce(pg_catalog.sum(records - 1), 0)::bigint,
                ARRAY(SELECT pg_catalog.format('%s (%s times)', key, records) FROM twice
                      ORDER BY key COLLATE \"C\" LIMIT 5)
         FROM twice",
        texts.join(", "),
        staged.table,
        names.join(", ")
    );
    let row = client.query_one(&sql, &[]).await.map_err(Error::database("list the records of the same key"))?;
    Ok(Error::Duplicates {
        file: staged.file.key.clone(),
        table: Box::new(staged.target.clone()),
        columns: key.names().map(|name| name.as_str().to_owned()).collect(),
        records: unsigned(row.get(0)),
        examples: row.get(1),
    })
}

/// Notes which columns a load into a staging table brings, beside those that an earlier run of it has brought.
pub(crate) async fn add_columns(session: &Session, load: &Load, columns: &[String]) -> Result<(), Error> {
    session
        .client()
        .execute(
            "UPDATE bulk.load SET columns = ARRAY(SELECT pg_catalog.unnest(columns) UNION SELECT pg_catalog.unnest($2::text[]))
             WHERE id = $1",
            &[&load.id, &columns],
        )
        .await
        .map_err(Error::database(format!("note the columns of {}", load.file.key)))?;
    Ok(())
}

/// Has an error speak of the table that people know.
pub(crate) fn rename(error: Error, staging: &TableName, target: &TableName) -> Error {
    let known = |table: TableName| if table == *staging { target.clone() } else { table };
    match error {
        Error::Copy { file, table, first, last, offset, column, source } => {
            Error::Copy { file, table: Box::new(known(*table)), first, last, offset, column, source }
        }
        Error::RowCount { file, table, sent, taken } => Error::RowCount { file, table: known(table), sent, taken },
        Error::Occupied { table, what } => Error::Occupied { table: known(table), what },
        other => other,
    }
}
