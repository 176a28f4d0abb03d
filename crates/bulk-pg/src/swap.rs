//! New tables beside the old ones, which take their places in one moment.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Oid;
use tokio_util::sync::CancellationToken;

use crate::counted::counted;
use crate::entangled::{OutsideKey, outside_keys, outside_keys_of_replaceable};
use crate::input_format::can_go_on;
use crate::ledger::{self, Load};
use crate::leftover::{self, Kind, begin_locked_with_leftovers};
use crate::table_lock::{LOCK_TIMEOUT, begin_locked, end};
use crate::twin::{Script, Statistics, Twin, revoke_defaults, scripts, statistics};
use crate::verify::is_any_row;
use crate::{Error, Event, FileIdentity, LoadOptions, Observer, Schema, Session, TableName, choice};

/// The statement that makes what swaps need in the ledger.
pub(crate) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS bulk.swap (
        target_oid oid PRIMARY KEY,
        target_schema text NOT NULL,
        target_table text NOT NULL,
        twin_oid oid NOT NULL,
        structure text NOT NULL,
        started_at timestamptz NOT NULL DEFAULT now(),
        swapped_at timestamptz
    );
    COMMENT ON TABLE bulk.swap IS 'A table and the new one, in a schema bulk_next_OID, that is to take its place; once swapped_at is set, the old one, which is to be dropped.';";

/// Tables that are loaded anew beside the old ones. Made by [`prepare_swap`]; dropped, it leaves them for the next call.
#[derive(Clone, Debug)]
pub struct Swap {
    twins: Vec<Twin>,
    scripts: Vec<Script>,
}

/// How [`swap`] works.
#[derive(Clone)]
#[non_exhaustive]
pub struct SwapOptions {
    /// Whether the old tables stay, in schemas whose names begin with `bulk_old_`. Default: they are to be dropped by
    /// [`drop_swapped`].
    pub keep_old: bool,
    /// How long to try while others use the tables. Default ten minutes.
    pub patience: Duration,
    /// Who is told of what happens. Default nobody.
    pub observer: Arc<dyn Observer>,
    /// Cancel it to give up between two attempts, with [`Error::Stopped`]. Default a token of its own.
    pub stop: CancellationToken,
}

impl Default for SwapOptions {
    fn default() -> Self {
        Self {
            keep_old: false,
            patience: Duration::from_secs(600),
            observer: Arc::new(()),
            stop: CancellationToken::new(),
        }
    }
}

impl Swap {
    /// The new table, which is to be loaded in place of `table`. `None` if that is not one of the swap.
    pub fn twin(&self, table: &TableName) -> Option<&TableName> {
        self.twins.iter().find(|twin| twin.table == *table).map(|twin| &twin.twin)
    }

    /// The new tables.
    pub fn twins(&self) -> Vec<TableName> {
        self.twins.iter().map(|twin| twin.twin.clone()).collect()
    }

    /// What the new tables get after their rows, as the old ones have it: indexes, constraints, foreign keys, triggers. To
    /// be made by [`apply_post_data`](crate::apply_post_data).
    ///
    /// # Errors
    ///
    /// [`Error::Schema`] if the server describes something in a way that is not understood.
    pub fn schema(&self) -> Result<Schema, Error> {
        let statements: Vec<&str> = self.scripts.iter().flat_map(|s| &s.post_data).map(String::as_str).collect();
        let text = if statements.is_empty() { String::new() } else { format!("{};\n", statements.join(";\n")) };
        let file = || "of the tables that are to be swapped".to_owned();
        let schema = Schema::parse(&text).map_err(|source| Error::Schema { file: file(), source })?;
        match schema.plan().left_out.first() {
            None => Ok(schema),
            Some(left_out) => {
                let table = self.twins.first().map(|twin| twin.table.clone());
                let what = format!("cannot be swapped: {} would get lost; use --refresh", left_out.what);
                table.map_or(Ok(schema), |table| Err(Error::Occupied { table, what }))
            }
        }
    }
}

/// Makes new, empty tables of the structure of old ones, each beside its own in a schema `bulk_next_…`: columns, defaults,
/// sequences, owner, privileges, comments and storage parameters are taken over. What an interrupted run has loaded into
/// them of the same file stays; what is of another version of it, or was chosen or read by other options, goes; so does what
/// an interrupted refresh has staged for the old ones.
///
/// Load them by the names that [`Swap::twin`] gives, give them what [`Swap::schema`] has, verify them, and
/// [`swap`] them. The ledger must be [prepared](crate::prepare_ledger).
///
/// # Errors
///
/// [`Error::Occupied`] for a table that something else depends on, such as a view or a foreign key of another table with
/// rows: it would go with the old table. For one that is partitioned, inherits, or has rules or row level security; for
/// one that is loaded by another session. [`Error::NoTable`], [`Error::Database`]. Nothing is changed then.
pub async fn prepare_swap(
    session: &mut Session,
    files: &[(TableName, FileIdentity, LoadOptions)],
) -> Result<Swap, Error> {
    prepare_twins(session, files, false).await
}

/// The same, also of tables that other things depend on, if those need not go with them: for tables that may get the rows of
/// their twins where they are.
pub(crate) async fn prepare_twins(
    session: &mut Session,
    files: &[(TableName, FileIdentity, LoadOptions)],
    may_stay: bool,
) -> Result<Swap, Error> {
    let tables: Vec<TableName> = files.iter().map(|(table, ..)| table.clone()).collect();
    let (transaction, found, leftovers) =
        begin_locked_with_leftovers(session, &tables, &[Kind::Staging], LOCK_TIMEOUT).await?;
    let result = async {
        leftover::discard(&transaction, &leftovers).await?;
        prepare(&transaction, files, found, may_stay).await
    };
    let result = result.await;
    end(transaction, result, "make tables to be swapped").await
}

async fn prepare(
    transaction: &Transaction<'_>,
    files: &[(TableName, FileIdentity, LoadOptions)],
    found: Vec<(TableName, Oid)>,
    may_stay: bool,
) -> Result<Swap, Error> {
    let action = || Error::database("make tables to be swapped");
    qualify_names(transaction).await?;
    if let Some((table, ..)) = files.iter().find(|(table, ..)| !found.iter().any(|(other, _)| other == table)) {
        return Err(Error::NoTable { table: table.clone(), near: Vec::new() });
    }
    let exchange = if may_stay { Exchange::Rows } else { Exchange::Places };
    exchange.outside_keys(transaction, &found).await?;
    let mut twins = Vec::new();
    for (table, oid) in found {
        let row = transaction
            .query_one("SELECT relnamespace FROM pg_catalog.pg_class WHERE oid = $1", &[&oid])
            .await
            .map_err(action())?;
        let twin = TableName::new(format!("bulk_next_{}", row.get::<_, Oid>(0)), table.name.as_str())
            .expect("a word and a number are an identifier, and the other is one already");
        transaction.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {}", twin.schema)).await.map_err(action())?;
        twins.push(Twin { table, oid, twin });
    }
    let scripts = scripts(transaction, &twins).await?;
    for (twin, script) in twins.iter().zip(&scripts) {
        let Some((_, file, options)) = files.iter().find(|(table, ..)| *table == twin.table) else { continue };
        let structure = [script.pre_data.join(";\n"), script.privileges.join(";\n")].join(";\n");
        if !is_usable(transaction, twin, &structure, file, options).await? {
            make(transaction, twin, script, &structure).await?;
        }
    }
    Ok(Swap { twins, scripts })
}

/// So that the server writes all names with their schemas.
async fn qualify_names(transaction: &Transaction<'_>) -> Result<(), Error> {
    let sql = "SET LOCAL search_path = ''";
    transaction.batch_execute(sql).await.map_err(Error::database("set the search path"))
}

/// Whether the new table is there, fits the old one, and has nothing but rows of the file that the options would have put
/// there.
async fn is_usable(
    transaction: &Transaction<'_>,
    twin: &Twin,
    structure: &str,
    file: &FileIdentity,
    options: &LoadOptions,
) -> Result<bool, Error> {
    let row = transaction
        .query_one(
            "SELECT EXISTS (
                 SELECT FROM bulk.swap w
                 WHERE w.target_oid = $1 AND w.target_schema = $2 AND w.target_table = $3 AND w.swapped_at IS NULL
                   AND w.twin_oid = pg_catalog.to_regclass($4)::oid AND w.structure = $5
                   AND NOT EXISTS (
                       SELECT FROM bulk.load l WHERE l.target_schema = $6 AND l.target_table = $3
                       AND (l.file_key <> $7 OR l.file_etag IS DISTINCT FROM $8 OR l.file_size <> $9
                            OR l.target_oid <> w.twin_oid OR l.damage IS NOT NULL)))",
            &[
                &twin.oid,
                &twin.table.schema.as_str(),
                &twin.table.name.as_str(),
                &twin.twin.to_string(),
                &structure,
                &twin.twin.schema.as_str(),
                &file.key,
                &file.etag,
                &(file.size as i64),
            ],
        )
        .await
        .map_err(Error::database(format!("look for the table that is to take the place of {:#}", twin.table)))?;
    let is_asked_for = |load: &Load| choice::is_same(load, options) && can_go_on(load, options);
    Ok(row.get(0) && ledger::loads(transaction, &twin.twin).await?.iter().all(is_asked_for))
}

/// Makes the new table, in place of one that is of no use.
async fn make(transaction: &Transaction<'_>, twin: &Twin, script: &Script, structure: &str) -> Result<(), Error> {
    let action = || Error::database(format!("make the table that is to take the place of {:#}", twin.table));
    // Foreign keys of other new tables may lead to it.
    let drop = format!("DROP TABLE IF EXISTS {} CASCADE", twin.twin);
    transaction.batch_execute(&drop).await.map_err(action())?;
    transaction
        .execute(
            "DELETE FROM bulk.load WHERE target_schema = $1 AND target_table = $2",
            &[&twin.twin.schema.as_str(), &twin.twin.name.as_str()],
        )
        .await
        .map_err(action())?;
    for sql in &script.pre_data {
        transaction.batch_execute(sql).await.map_err(action())?;
    }
    revoke_defaults(transaction, &twin.twin).await?;
    for sql in &script.privileges {
        transaction.batch_execute(sql).await.map_err(action())?;
    }
    transaction
        .execute(
            "INSERT INTO bulk.swap (target_oid, target_schema, target_table, twin_oid, structure)
             VALUES ($1, $2, $3, pg_catalog.to_regclass($4)::oid, $5)
             ON CONFLICT (target_oid) DO UPDATE SET target_schema = excluded.target_schema,
                 target_table = excluded.target_table, twin_oid = excluded.twin_oid,
                 structure = excluded.structure, started_at = now(), swapped_at = NULL",
            &[&twin.oid, &twin.table.schema.as_str(), &twin.table.name.as_str(), &twin.twin.to_string(), &structure],
        )
        .await
        .map_err(action())?;
    Ok(())
}

/// Has the new tables take the places of the old ones, in one transaction: their marks take those of the old ones', and
/// sequences go on where the old ones were, or behind the largest value. Foreign keys that lead to them from tables without
/// rows are made again.
///
/// Queries under way end on the old tables, those that come later see the new ones. Only a transaction that is REPEATABLE
/// READ or SERIALIZABLE, and began before the new rows were there, does not see these (PostgreSQL manual, "Caveats" of
/// concurrency control). An attempt holds nobody up for longer
/// than a second: if the tables are in use by then, it is given up and made again, a little later each time.
///
/// Dropping the future leaves the old tables.
///
/// # Errors
///
/// [`Error::Occupied`] if the tables are in use for longer than [`SwapOptions::patience`], if something depends on an old
/// one by now, if one was altered since the new ones were made, or if a new one is not loaded; [`Error::Stopped`];
/// [`Error::Database`]. Nothing is changed then.
pub async fn swap(session: &mut Session, swap: &Swap, options: &SwapOptions) -> Result<(), Error> {
    let started = tokio::time::Instant::now();
    let mut pause = Duration::from_millis(100);
    loop {
        if options.stop.is_cancelled() {
            return Err(Error::Stopped { what: "the swap of the tables".to_owned() });
        }
        let what = format!("swapping {}", counted(swap.twins.len(), "table", "tables"));
        options.observer.event(&Event::Step { what: &what });
        match attempt(session, swap, options.keep_old).await? {
            Attempt::Done => return Ok(()),
            Attempt::InUse(table) if started.elapsed() + pause >= options.patience => return Err(always_in_use(table)),
            Attempt::InUse(_) => {}
        }
        let _ = options.stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// What became of an attempt to exchange tables or their rows.
pub(crate) enum Attempt {
    Done,
    /// Such as this one, or another.
    InUse(TableName),
}

/// What new tables take of old ones.
#[derive(Clone, Copy)]
pub(crate) enum Exchange {
    /// Their places: the old ones step aside.
    Places,
    /// Their rows: these are deleted, and the new ones are inserted.
    Rows,
}

impl Exchange {
    /// Foreign keys of other tables that lead to the tables, which have no rows; an error if anything keeps them from it.
    async fn outside_keys(
        self,
        transaction: &Transaction<'_>,
        tables: &[(TableName, Oid)],
    ) -> Result<Vec<OutsideKey>, Error> {
        match self {
            Self::Places => outside_keys(transaction, tables).await,
            Self::Rows => outside_keys_of_replaceable(transaction, tables).await,
        }
    }

    fn lock_mode(self) -> &'static str {
        match self {
            Self::Places => "ACCESS EXCLUSIVE",
            // Nobody writes meanwhile, and everybody may read.
            Self::Rows => "SHARE ROW EXCLUSIVE",
        }
    }
}

/// How long an attempt waits for all locks together. Whoever waits behind it is held up so long; and it is less than the
/// server's `deadlock_timeout` of 1 s, after which somebody else might be chosen to give way.
const LOCKS: &str = "SET LOCAL statement_timeout = '800ms'";

async fn attempt(session: &mut Session, swap: &Swap, keep_old: bool) -> Result<Attempt, Error> {
    let tables: Vec<TableName> = swap.twins.iter().map(|twin| twin.table.clone()).collect();
    let Some(first) = tables.first().cloned() else { return Ok(Attempt::Done) };
    let (transaction, found) = begin_locked(session, &tables, LOCK_TIMEOUT).await?;
    let result = exchange(&transaction, swap, &found, keep_old).await;
    match end(transaction, result, SWAP).await {
        Ok(()) => Ok(Attempt::Done),
        Err(error) if is_in_use(&error) => Ok(Attempt::InUse(first)),
        Err(error) => Err(error),
    }
}

const SWAP: &str = "swap the tables";

/// Whether a lock was not to be had in the [time](LOCKS) for all of them.
pub(crate) fn is_in_use(error: &Error) -> bool {
    match error {
        Error::Database { source, .. } => source.code().is_some_and(|code| {
            [SqlState::LOCK_NOT_AVAILABLE, SqlState::QUERY_CANCELED, SqlState::T_R_DEADLOCK_DETECTED].contains(code)
        }),
        _ => false,
    }
}

/// What is said of a table when patience has an end.
pub(crate) fn always_in_use(table: TableName) -> Error {
    let what = "is in use by other sessions all the time, so that no moment came to swap it";
    Error::Occupied { table, what: what.to_owned() }
}

impl Swap {
    /// The old tables.
    pub(crate) fn tables(&self) -> Vec<(TableName, Oid)> {
        self.twins.iter().map(|twin| (twin.table.clone(), twin.oid)).collect()
    }

    /// Locks the old tables until the transaction ends, and those whose foreign keys lead to them, so that nobody can add what
    /// would go with the old ones or their rows. Fails if something does, or if an old table is not what it was when its twin was
    /// made; else gives these keys. The names of the server's answers are whole from now on.
    pub(crate) async fn lock(
        &self,
        transaction: &Transaction<'_>,
        found: &[(TableName, Oid)],
        exchange: Exchange,
    ) -> Result<Vec<OutsideKey>, Error> {
        qualify_names(transaction).await?;
        for twin in &self.twins {
            if !found.iter().any(|(table, oid)| *table == twin.table && *oid == twin.oid) {
                return Err(altered(&twin.table));
            }
        }
        let mut locked: Vec<TableName> = self.twins.iter().map(|twin| twin.table.clone()).collect();
        locked.extend(exchange.outside_keys(transaction, found).await?.into_iter().map(|key| key.table));
        locked.sort();
        locked.dedup();
        let list: Vec<String> = locked.iter().map(ToString::to_string).collect();
        let list = list.join(", ");
        // The first holds up neither readers nor writers, but has vacuum workers give way, which takes a second.
        let vacuum = format!("LOCK TABLE {list} IN SHARE UPDATE EXCLUSIVE MODE");
        let lock = format!("LOCK TABLE {list} IN {} MODE", exchange.lock_mode());
        for sql in [&vacuum, LOCKS, &lock, "SET LOCAL statement_timeout = 0"] {
            transaction.batch_execute(sql).await.map_err(Error::database("lock the tables"))?;
        }

        // What there is now that nobody can change it.
        let keys = exchange.outside_keys(transaction, found).await?;
        if let Some(key) = keys.iter().find(|key| !locked.contains(&key.table)) {
            return Err(altered(&key.table));
        }
        let now = scripts(transaction, &self.twins).await?;
        let mut same = self.twins.iter().zip(&self.scripts).zip(now);
        match same.find(|((_, then), now)| *then != now) {
            Some(((twin, _), _)) => Err(altered(&twin.table)),
            None => Ok(keys),
        }
    }
}

fn altered(table: &TableName) -> Error {
    let what = "was altered, or made anew, since the table was made that is to take its place; run it again";
    Error::Occupied { table: table.clone(), what: what.to_owned() }
}

async fn exchange(
    transaction: &Transaction<'_>,
    swap: &Swap,
    found: &[(TableName, Oid)],
    keep_old: bool,
) -> Result<(), Error> {
    let action = || Error::database(SWAP);
    let keys = swap.lock(transaction, found, Exchange::Places).await?;
    for twin in &swap.twins {
        if !is_loaded(transaction, twin).await? {
            let what = "has nothing that could take its place: the new table is not loaded";
            return Err(Error::Occupied { table: twin.table.clone(), what: what.to_owned() });
        }
    }
    for key in &keys {
        transaction.batch_execute(&key.drop_sql()).await.map_err(action())?;
    }
    move_tables(transaction, swap).await?;
    for key in &keys {
        transaction.batch_execute(&key.add_sql()).await.map_err(action())?;
    }
    for twin in &swap.twins {
        note(transaction, twin, keep_old).await?;
    }
    transaction.batch_execute("SET LOCAL synchronous_commit = on").await.map_err(action())
}

/// Whether the new table holds a whole file.
async fn is_loaded(transaction: &Transaction<'_>, twin: &Twin) -> Result<bool, Error> {
    let row = transaction
        .query_one(
            "SELECT l.records > l.rejected + l.filtered FROM bulk.swap w JOIN bulk.load l ON l.target_oid = w.twin_oid
             WHERE w.target_oid = $1 AND w.twin_oid = pg_catalog.to_regclass($2)::oid
               AND l.finished_at IS NOT NULL AND l.damage IS NULL
             UNION ALL SELECT NULL LIMIT 1",
            &[&twin.oid, &twin.twin.to_string()],
        )
        .await
        .map_err(Error::database(SWAP))?;
    match row.get::<_, Option<bool>>(0) {
        None => Ok(false),
        Some(has_rows) => Ok(!has_rows || is_any_row(transaction, &twin.twin).await?),
    }
}

/// The old tables go into schemas of their own, and the new ones to where they were.
async fn move_tables(transaction: &Transaction<'_>, swap: &Swap) -> Result<(), Error> {
    let action = || Error::database(SWAP);
    for twin in &swap.twins {
        carry_sequences(transaction, twin).await?;
    }
    let row = transaction
        .query_one("SELECT pg_catalog.to_char(pg_catalog.clock_timestamp(), 'YYYYMMDDHH24MISSUS')", &[])
        .await
        .map_err(action())?;
    let now: &str = row.get(0);
    let old = |twin: &Twin| twin.twin.schema.as_str().replace("bulk_next", &format!("bulk_old_{now}"));
    for twin in &swap.twins {
        let schema = crate::Ident::new(old(twin)).expect("words and numbers are an identifier");
        let mut sql = format!(
            "CREATE SCHEMA IF NOT EXISTS {schema}; ALTER TABLE {} SET SCHEMA {schema}; ALTER TABLE {} SET SCHEMA {}",
            twin.table, twin.twin, twin.table.schema
        );
        for Statistics { name, schema: place, twin: new, .. } in statistics(transaction, twin).await? {
            sql += &format!("; ALTER STATISTICS {name} SET SCHEMA {schema}; ALTER STATISTICS {new} SET SCHEMA {place}");
        }
        transaction.batch_execute(&sql).await.map_err(action())?;
    }
    let mut schemas: Vec<_> = swap.twins.iter().map(|twin| &twin.twin.schema).collect();
    schemas.sort();
    schemas.dedup();
    for schema in schemas {
        drop_if_empty(transaction, schema.as_str()).await?;
    }
    Ok(())
}

/// Has the sequences of the new table go on where those of the old one are, if they are not further.
async fn carry_sequences(transaction: &Transaction<'_>, twin: &Twin) -> Result<(), Error> {
    transaction
        .query(
            "WITH owned AS (
                 SELECT d.refobjid AS owner, a.attname, q.seqrelid, q.seqincrement,
                        pg_catalog.pg_sequence_last_value(q.seqrelid::regclass) AS value
                 FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_sequence q ON q.seqrelid = d.objid
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                 WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
                   AND d.deptype IN ('a', 'i'))
             SELECT pg_catalog.setval(new.seqrelid::regclass, old.value)
             FROM owned old JOIN owned new ON new.attname = old.attname AND new.seqincrement = old.seqincrement
             WHERE old.owner = $1 AND new.owner = pg_catalog.to_regclass($2)::oid AND old.value IS NOT NULL
               AND (new.value IS NULL OR (old.value - new.value) * pg_catalog.sign(old.seqincrement) > 0)",
            &[&twin.oid, &twin.twin.to_string()],
        )
        .await
        .map_err(Error::database(format!("set the sequences of {:#}", twin.table)))?;
    Ok(())
}

/// Gives the marks of the new table its name in place of the old one's, and notes that the old one is to go.
async fn note(transaction: &Transaction<'_>, twin: &Twin, keep_old: bool) -> Result<(), Error> {
    let action = || Error::database(SWAP);
    let (schema, name) = (twin.table.schema.as_str(), twin.table.name.as_str());
    transaction
        .execute(
            "DELETE FROM bulk.load WHERE target_schema = $1 AND target_table = $2 OR target_oid = $3",
            &[&schema, &name, &twin.oid],
        )
        .await
        .map_err(action())?;
    transaction
        .execute(
            "UPDATE bulk.load SET target_schema = $1
             WHERE target_oid = (SELECT w.twin_oid FROM bulk.swap w WHERE w.target_oid = $2)",
            &[&schema, &twin.oid],
        )
        .await
        .map_err(action())?;
    let sql = match keep_old {
        true => "DELETE FROM bulk.swap WHERE target_oid = $1",
        false => "UPDATE bulk.swap SET swapped_at = now() WHERE target_oid = $1",
    };
    transaction.execute(sql, &[&twin.oid]).await.map_err(action())?;
    Ok(())
}

/// Drops the old tables of all swaps that did not keep them, with their schemas. Tells how many there were.
///
/// # Errors
///
/// [`Error::Database`], such as while somebody still reads one. They are left for the next call then, all of them.
pub async fn drop_swapped(session: &mut Session) -> Result<usize, Error> {
    let (transaction, _) = begin_locked(session, &[], LOCK_TIMEOUT).await?;
    let result = drop_old(&transaction).await;
    end(transaction, result, DROP).await
}

const DROP: &str = "drop the tables that were swapped";

async fn drop_old(transaction: &Transaction<'_>) -> Result<usize, Error> {
    let action = || Error::database(DROP);
    let rows = transaction
        .query(
            "SELECT n.nspname::text, c.relname::text FROM bulk.swap w JOIN pg_catalog.pg_class c ON c.oid = w.target_oid
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE w.swapped_at IS NOT NULL AND n.nspname LIKE 'bulk\\_old\\_%' ORDER BY c.oid",
            &[],
        )
        .await
        .map_err(action())?;
    let name = |row: &tokio_postgres::Row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)).ok();
    let tables: Vec<TableName> = rows.iter().filter_map(name).collect();
    if !tables.is_empty() {
        let list: Vec<String> = tables.iter().map(ToString::to_string).collect();
        transaction.batch_execute(&format!("DROP TABLE {}", list.join(", "))).await.map_err(action())?;
    }
    let mut schemas: Vec<_> = tables.iter().map(|table| &table.schema).collect();
    schemas.sort();
    schemas.dedup();
    for schema in schemas {
        drop_if_empty(transaction, schema.as_str()).await?;
    }
    transaction.execute("DELETE FROM bulk.swap WHERE swapped_at IS NOT NULL", &[]).await.map_err(action())?;
    Ok(tables.len())
}

/// Drops a schema, unless something is in it.
pub(crate) async fn drop_if_empty(transaction: &Transaction<'_>, schema: &str) -> Result<(), Error> {
    let action = || Error::database("drop an empty schema");
    let row = transaction
        .query_one(
            "SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_namespace n
             WHERE n.nspname = $1 AND NOT EXISTS
                 (SELECT FROM pg_catalog.pg_depend d WHERE d.refclassid = 'pg_catalog.pg_namespace'::regclass
                  AND d.refobjid = n.oid AND d.deptype = 'n')
             UNION ALL SELECT NULL LIMIT 1",
            &[&schema],
        )
        .await
        .map_err(action())?;
    match row.get::<_, Option<String>>(0) {
        Some(schema) => transaction.batch_execute(&format!("DROP SCHEMA {schema}")).await.map_err(action()),
        None => Ok(()),
    }
}
