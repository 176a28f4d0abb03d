//! What has been loaded: `bulk.load`, a row for each file, and `bulk.chunk`, a row for each committed chunk of one.

use tokio_postgres::types::Oid;

use crate::{Dialect, Error, Position, Session, TableName};

/// Which bytes a file holds: two files with equal identities have the same content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileIdentity {
    /// The object key, or the path of a local file.
    pub key: String,
    /// The object's ETag, or another text that changes with the content.
    pub etag: Option<String>,
    /// Bytes, as stored (compressed).
    pub size: u64,
}

impl FileIdentity {
    /// An identity of these parts.
    pub fn new(key: impl Into<String>, etag: Option<String>, size: u64) -> Self {
        Self { key: key.into(), etag, size }
    }
}

const TABLES: &str = "
    CREATE SCHEMA IF NOT EXISTS bulk;
    CREATE TABLE IF NOT EXISTS bulk.load (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        target_schema text NOT NULL,
        target_table text NOT NULL,
        target_oid oid NOT NULL,
        file_key text NOT NULL,
        file_etag text,
        file_size bigint NOT NULL,
        dialect text,
        records bigint,
        started_at timestamptz NOT NULL DEFAULT now(),
        finished_at timestamptz,
        UNIQUE (target_schema, target_table, file_key)
    );
    COMMENT ON TABLE bulk.load IS 'A file and the table that it is loaded into; finished_at is set when all of it is there.';
    CREATE TABLE IF NOT EXISTS bulk.chunk (
        load_id bigint NOT NULL REFERENCES bulk.load ON DELETE CASCADE,
        chunk bigint NOT NULL,
        first_record bigint NOT NULL,
        records bigint NOT NULL,
        first_byte bigint NOT NULL,
        bytes bigint NOT NULL,
        guarded boolean NOT NULL,
        committed_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (load_id, chunk)
    );
    COMMENT ON TABLE bulk.chunk IS 'A run of records whose rows were committed in the transaction that wrote this row.';";

/// The load of one file as the ledger has it.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) id: i64,
    pub(crate) file: FileIdentity,
    pub(crate) dialect: Option<Dialect>,
    /// Records of the whole file, once it is loaded.
    pub(crate) finished: Option<u64>,
    /// The border behind the last committed chunk, and whether the dialect was still in doubt there.
    pub(crate) committed: Option<(Position, bool)>,
}

/// Makes the ledger's tables where they are absent.
///
/// # Errors
///
/// [`Error::Database`], such as for a role that may not create a schema.
pub async fn prepare_ledger(session: &Session) -> Result<(), Error> {
    let exists = session
        .client()
        .query_one("SELECT to_regclass('bulk.chunk') IS NOT NULL", &[])
        .await
        .map_err(Error::database("look for the ledger"))?;
    if exists.get(0) {
        return Ok(());
    }
    // Two first runs at once would both find nothing, so one waits for the other.
    let sql = format!("BEGIN; SELECT pg_advisory_xact_lock({LEDGER_LOCK}); {TABLES} COMMIT");
    session.client().batch_execute(&sql).await.map_err(Error::database("create the schema bulk with the load's ledger"))
}

/// A number of our own; advisory locks are shared by all users of a database.
const LEDGER_LOCK: i64 = 0x6275_6c6b;

/// Takes the table for this session, until it ends.
pub(crate) async fn lock(session: &Session, table: &TableName, oid: Oid) -> Result<(), Error> {
    let row = session
        .client()
        .query_one("SELECT pg_try_advisory_lock($1, $2)", &[&(LEDGER_LOCK as i32), &(oid as i32)])
        .await
        .map_err(Error::database(format!("lock {table:#}")))?;
    if row.get(0) {
        Ok(())
    } else {
        let what = "is being loaded by another session; wait for it, or stop it".to_owned();
        Err(Error::Occupied { table: table.clone(), what })
    }
}

/// The loads into a table. Marks of a table of that name that has since been dropped are removed.
pub(crate) async fn loads(session: &Session, table: &TableName, oid: Oid) -> Result<Vec<Load>, Error> {
    let action = || format!("read the marks of {table:#}");
    let (schema, name) = (table.schema.as_str(), table.name.as_str());
    session
        .client()
        .execute(
            "DELETE FROM bulk.load WHERE target_schema = $1 AND target_table = $2 AND target_oid <> $3",
            &[&schema, &name, &oid],
        )
        .await
        .map_err(Error::database(action()))?;
    let rows = session
        .client()
        .query(
            "SELECT l.id, l.file_key, l.file_etag, l.file_size, l.dialect, l.records, l.finished_at IS NOT NULL,
                    c.chunk, c.first_record, c.records, c.first_byte, c.bytes, c.guarded
             FROM bulk.load l
             LEFT JOIN LATERAL
                 (SELECT * FROM bulk.chunk WHERE load_id = l.id ORDER BY chunk DESC LIMIT 1) c ON true
             WHERE l.target_schema = $1 AND l.target_table = $2
             ORDER BY l.id",
            &[&schema, &name],
        )
        .await
        .map_err(Error::database(action()))?;
    let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
    let load = |row: &tokio_postgres::Row| Load {
        id: row.get(0),
        file: FileIdentity { key: row.get(1), etag: row.get(2), size: unsigned(row.get(3)) },
        dialect: row.get::<_, Option<String>>(4).and_then(|name| name.parse().ok()),
        finished: row.get::<_, bool>(6).then(|| unsigned(row.get::<_, Option<i64>>(5).unwrap_or(0))),
        committed: row.get::<_, Option<i64>>(7).map(|chunk| {
            let sum = |a, b| unsigned(row.get(a)) + unsigned(row.get(b));
            (Position { offset: sum(10, 11), record: sum(8, 9), chunk: unsigned(chunk) + 1 }, row.get(12))
        }),
    };
    Ok(rows.iter().map(load).collect())
}

/// Notes that the load of a file begins.
pub(crate) async fn begin(session: &Session, table: &TableName, oid: Oid, file: &FileIdentity) -> Result<Load, Error> {
    let row = session
        .client()
        .query_one(
            "INSERT INTO bulk.load (target_schema, target_table, target_oid, file_key, file_etag, file_size)
             VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
            &[&table.schema.as_str(), &table.name.as_str(), &oid, &file.key, &file.etag, &(file.size as i64)],
        )
        .await
        .map_err(Error::database(format!("note the load of {}", file.key)))?;
    Ok(Load { id: row.get(0), file: file.clone(), dialect: None, finished: None, committed: None })
}

/// Notes by which dialect the file is read, so that a rerun reads it alike.
pub(crate) async fn set_dialect(session: &Session, load: &Load, dialect: Dialect) -> Result<(), Error> {
    session
        .client()
        .execute("UPDATE bulk.load SET dialect = $2 WHERE id = $1", &[&load.id, &dialect.name()])
        .await
        .map_err(Error::database(format!("note the dialect of {}", load.file.key)))?;
    Ok(())
}

/// Notes that the file is loaded whole, and waits until that, and so all of its chunks, are on the server's disk.
pub(crate) async fn finish(session: &Session, load: &Load, records: u64) -> Result<(), Error> {
    session
        .client()
        .batch_execute(&format!(
            "BEGIN; SET LOCAL synchronous_commit = on;
             UPDATE bulk.load SET records = {records}, finished_at = now() WHERE id = {}; COMMIT",
            load.id
        ))
        .await
        .map_err(Error::database(format!("note that {} is loaded", load.file.key)))
}

/// Forgets the loads into a table.
pub(crate) async fn forget(session: &Session, table: &TableName) -> Result<(), Error> {
    session
        .client()
        .execute(
            "DELETE FROM bulk.load WHERE target_schema = $1 AND target_table = $2",
            &[&table.schema.as_str(), &table.name.as_str()],
        )
        .await
        .map_err(Error::database(format!("forget the marks of {table:#}")))?;
    Ok(())
}
