//! What of a crawl is committed: `bulk.crawl`, a row for each job, and what hangs on it.

use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Oid, ToSql};
use tokio_postgres::{Row, Transaction};

use super::target::Target;
use super::{CrawlJob, CrawlLoadOptions, CrawlMode};
use crate::counted::counted;
use crate::ledger::unsigned;
use crate::table_lock::{LOCK_TIMEOUT, begin};
use crate::verify::is_any_row;
use crate::{Error, Session, TableName, in_own_schema};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS bulk.crawl (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        job text NOT NULL UNIQUE,
        definition text NOT NULL DEFAULT '',
        round bigint NOT NULL DEFAULT 0,
        targets oid[] NOT NULL DEFAULT '{}',
        target_rows bigint[] NOT NULL DEFAULT '{}',
        twins oid[] NOT NULL DEFAULT '{}',
        watermark text,
        next_watermark text,
        started_at timestamptz,
        finished_at timestamptz
    );
    COMMENT ON TABLE bulk.crawl IS 'A crawl by its name. A round is all of its calls from one beginning to the end: finished_at is not set while it is open. targets are the tables of the job, target_rows how many rows of the round are committed into each. twins are the new tables of a round that replaces tables, or the old ones once these have the new rows. watermark is that of the last round that was whole, next_watermark what it becomes with this one.';
    CREATE TABLE IF NOT EXISTS bulk.call (
        crawl_id bigint NOT NULL REFERENCES bulk.crawl ON DELETE CASCADE,
        digest bytea NOT NULL,
        key text NOT NULL,
        rows bigint NOT NULL,
        rejected bigint NOT NULL,
        committed_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (crawl_id, digest)
    );
    ALTER TABLE bulk.call ADD COLUMN IF NOT EXISTS next text, ADD COLUMN IF NOT EXISTS given bigint[];
    COMMENT ON TABLE bulk.call IS 'A call of the round, whose rows were committed in the transaction that wrote this row. digest is the SHA-256 of its key. next is set of a call of which a part alone is committed, and says where it goes on; given is how many rows that part had for each table of the job, with those that were left out.';
    CREATE TABLE IF NOT EXISTS bulk.quarantine (
        crawl_id bigint NOT NULL REFERENCES bulk.crawl ON DELETE CASCADE,
        digest bytea NOT NULL,
        key text NOT NULL,
        inputs json,
        request json,
        response text,
        reason text NOT NULL,
        attempts bigint NOT NULL,
        first_at timestamptz NOT NULL DEFAULT now(),
        last_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (crawl_id, digest)
    );
    COMMENT ON TABLE bulk.quarantine IS 'A call that failed, with what it was for, without secrets. The row goes in the transaction of the call''s rows.';
    CREATE TABLE IF NOT EXISTS bulk.call_reject (
        crawl_id bigint NOT NULL REFERENCES bulk.crawl ON DELETE CASCADE,
        key text,
        target_schema text NOT NULL,
        target_table text NOT NULL,
        row bigint,
        \"column\" text,
        sqlstate text NOT NULL,
        message text NOT NULL,
        fields json,
        rejected_at timestamptz NOT NULL DEFAULT now()
    );
    COMMENT ON TABLE bulk.call_reject IS 'A row of a call that was left out, written in the transaction of the rows around it; row is its number among those of the call for the table, from 1. key and row are not known of one that was found when all calls had been made.';";

/// Whether the tables are there.
pub(super) async fn is_prepared(session: &Session) -> Result<bool, Error> {
    let row = session
        .client()
        // The last one, and what older ones lack.
        .query_one(
            "SELECT pg_catalog.to_regclass('bulk.call_reject') IS NOT NULL AND EXISTS (
                 SELECT FROM pg_catalog.pg_attribute
                 WHERE attrelid = pg_catalog.to_regclass('bulk.call') AND attname = 'given' AND NOT attisdropped)",
            &[],
        )
        .await
        .map_err(Error::database("look for the ledger of crawls"))?;
    Ok(row.get(0))
}

/// From when on the next round of a job is to ask.
pub(super) async fn watermark(session: &Session, job: &str) -> Result<Option<String>, Error> {
    if !is_prepared(session).await? {
        return Ok(None);
    }
    let found = session.client().query_opt("SELECT watermark FROM bulk.crawl WHERE job = $1", &[&job]).await;
    let found = found.map_err(Error::database("read the watermark of a crawl"))?;
    Ok(found.and_then(|row| row.get(0)))
}

/// Makes the tables where they are absent.
pub(super) async fn prepare(session: &Session) -> Result<(), Error> {
    if is_prepared(session).await? {
        return Ok(());
    }
    let made = session.client().batch_execute(&in_own_schema(TABLES)).await;
    made.map_err(Error::database("create the ledger of crawls in the schema bulk"))
}

/// By which a call is known: by its key as the ledger has it, since who reads it there gives it back so.
pub(super) fn digest(key: &str) -> Vec<u8> {
    Sha256::digest(without_nul(key).as_bytes()).to_vec()
}

/// As no text of the server's holds a NUL.
pub(super) fn without_nul(text: &str) -> String {
    text.replace('\0', "\\0")
}

/// The first of the two numbers of the advisory lock of a crawl, "bulc" in ASCII; the second is of its row.
const LOCK_CLASS: i32 = 0x6275_6c63;

/// Finds a job's row, or makes it, and has this session alone run the job, until it ends.
pub(super) async fn lock(session: &mut Session, job: &str) -> Result<i64, Error> {
    let action = || Error::database(format!("lock the crawl {job}"));
    let insert = "INSERT INTO bulk.crawl (job) VALUES ($1) ON CONFLICT DO NOTHING";
    session.client().execute(insert, &[&job]).await.map_err(action())?;
    let row = session.client().query_one("SELECT id FROM bulk.crawl WHERE job = $1", &[&job]).await;
    let id: i64 = row.map_err(action())?.get(0);
    let transaction = begin(session, LOCK_TIMEOUT).await?;
    let number = (id & i64::from(i32::MAX)) as i32;
    let taken = transaction.batch_execute(&format!("SELECT pg_catalog.pg_advisory_lock({LOCK_CLASS}, {number})")).await;
    taken.map_err(|error| match error.code() {
        Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => Error::Crawling { job: job.to_owned() },
        _ => action()(error),
    })?;
    transaction.commit().await.map_err(action())?;
    Ok(id)
}

/// The round that is under way.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) id: i64,
    pub(super) number: i64,
    /// The tables of the job, as they were when rows were first committed.
    targets: Vec<Oid>,
    /// How many rows are committed into each of them.
    pub(super) target_rows: Vec<u64>,
    /// The new tables, in the order of their names.
    pub(super) twins: Vec<Oid>,
    pub(super) watermark: Option<String>,
    pub(super) next_watermark: Option<String>,
    /// Whether any call is committed.
    pub(super) has_calls: bool,
    pub(super) rows: u64,
    pub(super) rejected: u64,
    /// Calls in quarantine that can be made again.
    pub(super) quarantined: u64,
}

impl Round {
    /// Begins a round, or goes on with the one that is open.
    pub(super) async fn open(
        session: &mut Session,
        id: i64,
        job: &CrawlJob,
        targets: &[Target],
        options: &CrawlLoadOptions,
    ) -> Result<Self, Error> {
        let definition = describe(job);
        let action = || Error::database(format!("begin the crawl {}", job.name));
        let transaction = session.client_mut().transaction().await.map_err(action())?;
        let found = Self::read(&transaction, id, &job.name).await?;
        let mut round = if found.is_over || options.restart {
            clear(&transaction, id, true).await.map_err(action())?;
            let forgets = options.restart || found.is_other(&definition);
            let sql = "UPDATE bulk.crawl SET round = round + 1, definition = $2, twins = '{}', next_watermark = $3,
                              watermark = CASE WHEN $4 THEN NULL ELSE watermark END,
                              started_at = now(), finished_at = NULL WHERE id = $1";
            let parameters: [&(dyn ToSql + Sync); 4] = [&id, &definition, &options.next_watermark, &forgets];
            transaction.execute(sql, &parameters).await.map_err(action())?;
            Self::read(&transaction, id, &job.name).await?.round
        } else if found.definition == definition {
            if !job.is_replace() {
                found.round.check_targets(&transaction, job, targets).await?;
            }
            found.round
        } else if !found.round.has_calls && found.round.twins.is_empty() {
            clear(&transaction, id, true).await.map_err(action())?;
            let sql = "UPDATE bulk.crawl SET definition = $2, watermark = NULL WHERE id = $1";
            transaction.execute(sql, &[&id, &definition]).await.map_err(action())?;
            Self::read(&transaction, id, &job.name).await?.round
        } else {
            let what = "a round of it is open that was begun by another definition of its calls, rows or tables; finish \
                        it as it was, or begin anew with --restart";
            return Err(Error::Crawl { job: job.name.clone(), what: what.to_owned() });
        };
        if round.rows == 0 {
            round.target_rows = vec![0; targets.len()];
        }
        // Those without rows may be others by now.
        round.targets = targets.iter().map(|target| target.oid).collect();
        let sql = "UPDATE bulk.crawl SET targets = $2, target_rows = $3 WHERE id = $1";
        let rows = signed(&round.target_rows);
        transaction.execute(sql, &[&id, &round.targets, &rows]).await.map_err(action())?;
        transaction.commit().await.map_err(action())?;
        Ok(round)
    }

    /// Fails if rows that have marks cannot be where they were written: the marks would keep them from coming again.
    async fn check_targets(
        &self,
        transaction: &Transaction<'_>,
        job: &CrawlJob,
        targets: &[Target],
    ) -> Result<(), Error> {
        let written = || targets.iter().zip(&self.target_rows).filter(|(_, rows)| **rows > 0);
        // What was deleted, and what went with it, is missing rightly.
        let deletes = written().any(|(target, _)| target.mode == CrawlMode::Delete);
        for ((target, rows), was) in targets.iter().zip(&self.target_rows).zip(&self.targets) {
            let what = match rows {
                0 => continue,
                _ if target.oid != *was => "is another table",
                _ if !deletes && !is_any_row(transaction, &target.table).await? => "has been emptied",
                _ => continue,
            };
            let table = &target.table;
            let what = format!(
                "{table:#} {what} since {} written into it, whose calls count as done; begin anew with --restart",
                counted(*rows, "row of the open round was", "rows of the open round were")
            );
            return Err(Error::Crawl { job: job.name.clone(), what });
        }
        Ok(())
    }

    async fn read(transaction: &Transaction<'_>, id: i64, job: &str) -> Result<Found, Error> {
        let row = transaction
            .query_one(
                "SELECT w.round, w.twins, w.watermark, w.next_watermark, w.definition,
                        w.round = 0 OR w.finished_at IS NOT NULL, c.calls, c.rows, c.rejected, w.targets, w.target_rows,
                        (SELECT pg_catalog.count(*) FROM bulk.call_reject WHERE crawl_id = $1 AND key IS NULL),
                        (SELECT pg_catalog.count(inputs) FROM bulk.quarantine WHERE crawl_id = $1)
                 FROM bulk.crawl w,
                      (SELECT pg_catalog.count(*), coalesce(sum(rows), 0)::bigint, coalesce(sum(rejected), 0)::bigint
                       FROM bulk.call WHERE crawl_id = $1) c(calls, rows, rejected)
                 WHERE w.id = $1",
                &[&id],
            )
            .await
            .map_err(Error::database(format!("read the marks of the crawl {job}")))?;
        let round = Self {
            id,
            number: row.get(0),
            twins: row.get(1),
            watermark: row.get(2),
            next_watermark: row.get(3),
            has_calls: row.get::<_, i64>(6) > 0,
            rows: unsigned(row.get(7)),
            rejected: unsigned(row.get(8)) + unsigned(row.get(11)),
            quarantined: unsigned(row.get(12)),
            targets: row.get(9),
            target_rows: row.get::<_, Vec<i64>>(10).into_iter().map(unsigned).collect(),
        };
        Ok(Found { round, definition: row.get(4), is_over: row.get(5) })
    }

    /// Notes the new tables, one of which is not that of before, or has lost its rows. As calls have rows in several, all of
    /// them are emptied with the marks.
    pub(super) async fn set_twins(
        &mut self,
        session: &mut Session,
        job: &str,
        twins: &[TableName],
        oids: Vec<Oid>,
    ) -> Result<(), Error> {
        let action = || Error::database(format!("note the new tables of the crawl {job}"));
        let transaction = session.client_mut().transaction().await.map_err(action())?;
        clear(&transaction, self.id, false).await.map_err(action())?;
        let list: Vec<String> = twins.iter().map(ToString::to_string).collect();
        transaction.batch_execute(&format!("TRUNCATE {}", list.join(", "))).await.map_err(action())?;
        self.target_rows.fill(0);
        let sql = "UPDATE bulk.crawl SET twins = $2, target_rows = $3 WHERE id = $1";
        transaction.execute(sql, &[&self.id, &oids, &signed(&self.target_rows)]).await.map_err(action())?;
        transaction.commit().await.map_err(action())?;
        (self.twins, self.has_calls, self.rows, self.rejected) = (oids, false, 0, 0);
        Ok(())
    }

    /// Ends the round, and waits until that is on the server's disk.
    pub(super) async fn close(&self, session: &Session, is_moved: bool) -> Result<(), Error> {
        session
            .client()
            .batch_execute(&format!(
                "BEGIN; SET LOCAL synchronous_commit = on;
                 UPDATE bulk.crawl SET finished_at = now(),
                     watermark = CASE WHEN {is_moved} THEN coalesce(next_watermark, watermark) ELSE watermark END
                 WHERE id = {}; COMMIT",
                self.id
            ))
            .await
            .map_err(Error::database("note that the crawl is finished"))
    }
}

/// As the server has counts.
pub(super) fn signed(counts: &[u64]) -> Vec<i64> {
    counts.iter().map(|count| i64::try_from(*count).unwrap_or(i64::MAX)).collect()
}

struct Found {
    round: Round,
    definition: String,
    is_over: bool,
}

impl Found {
    /// Whether its calls or rows were not those of this definition: rows of before lack what it asks for.
    fn is_other(&self, definition: &str) -> bool {
        !self.definition.is_empty() && self.definition != definition
    }
}

async fn clear(transaction: &Transaction<'_>, id: i64, all: bool) -> Result<(), tokio_postgres::Error> {
    transaction.execute("DELETE FROM bulk.call WHERE crawl_id = $1", &[&id]).await?;
    transaction.execute("DELETE FROM bulk.call_reject WHERE crawl_id = $1", &[&id]).await?;
    if all {
        transaction.execute("DELETE FROM bulk.quarantine WHERE crawl_id = $1", &[&id]).await?;
    }
    Ok(())
}

/// A digest of what tells whether a round can be gone on with.
fn describe(job: &CrawlJob) -> String {
    let mut sha = Sha256::new();
    let mut add = |text: &str| {
        sha.update((text.len() as u64).to_be_bytes());
        sha.update(text);
    };
    add(&job.definition);
    for table in &job.tables {
        add(&table.table.to_string());
        add(&format!("{:?}", table.mode));
        table.columns.iter().for_each(|column| add(column));
        add("");
    }
    sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of calls in quarantine that are read at once, at most, unless the first one has more.
const READ: i64 = 1 << 20;

/// A call that failed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QuarantinedCall {
    /// The call's key. A NUL in it is kept as `\0`.
    pub key: String,
    /// The input records that it is for.
    pub inputs: Vec<Value>,
    /// The request, such as method, URL, headers and body, without secrets.
    pub request: Value,
    /// The answer, or as much of it as is kept. A NUL in it is kept as `\0`.
    pub response: Option<String>,
    /// Why it failed.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u64,
}

impl QuarantinedCall {
    /// A call of this key that failed for this reason, at the first attempt.
    pub fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            inputs: Vec::new(),
            request: Value::Null,
            response: None,
            reason: reason.into(),
            attempts: 1,
        }
    }

    /// Bytes that it takes, about.
    pub(super) fn room(&self) -> usize {
        let json = |value: &Value| if super::is_too_deep(value) { 0 } else { value.to_string().len() };
        let values = json(&self.request) + self.inputs.iter().map(json).sum::<usize>();
        512 + self.key.len() + self.reason.len() + self.response.as_ref().map_or(0, String::len) + values
    }

    pub(super) async fn insert(&self, transaction: &Transaction<'_>, crawl: i64) -> Result<(), tokio_postgres::Error> {
        let json = |value: &Value| (!super::is_too_deep(value)).then(|| value.to_string());
        // With the list around them they are to be read again.
        let is_deep = self.inputs.iter().any(|input| super::is_deeper(input, super::MAX_DEPTH - 1));
        let inputs = (!is_deep).then(|| Value::Array(self.inputs.clone()).to_string());
        let (key, reason) = (without_nul(&self.key), without_nul(&self.reason));
        let response = self.response.as_deref().map(without_nul);
        let (request, attempts) = (json(&self.request), i64::try_from(self.attempts).unwrap_or(i64::MAX));
        let parameters: [&(dyn ToSql + Sync); 8] =
            [&crawl, &digest(&self.key), &key, &inputs, &request, &response, &reason, &attempts];
        transaction
            .execute(
                "INSERT INTO bulk.quarantine AS q (crawl_id, digest, key, inputs, request, response, reason, attempts)
                 SELECT $1, $2, $3, $4::text::json, $5::text::json, $6, $7, $8
                 WHERE NOT EXISTS (SELECT FROM bulk.call WHERE crawl_id = $1 AND digest = $2 AND next IS NULL)
                 ON CONFLICT (crawl_id, digest) DO UPDATE SET inputs = excluded.inputs, request = excluded.request,
                     response = excluded.response, reason = excluded.reason,
                     attempts = q.attempts + excluded.attempts, last_at = now()",
                &parameters,
            )
            .await?;
        Ok(())
    }

    /// Those behind a digest.
    pub(super) async fn read(
        session: &Session,
        crawl: i64,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Self>, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = session
            .client()
            .query(
                "SELECT key, inputs, request, response, reason, attempts
                 FROM (SELECT *, sum(bytes) OVER (ORDER BY digest) AS total
                       FROM (SELECT digest, key, inputs::text, request::text, response, reason, attempts,
                                    pg_catalog.octet_length(pg_catalog.concat(key, inputs, request, response, reason)) AS bytes
                             FROM bulk.quarantine WHERE crawl_id = $1 AND digest > $2 ORDER BY digest LIMIT $3) q) q
                 WHERE total <= $4 OR total = bytes ORDER BY digest",
                &[&crawl, &after.unwrap_or_default(), &limit, &READ],
            )
            .await
            .map_err(Error::database("read which calls are in quarantine"))?;
        let json = |row: &Row, place| {
            let text: Option<&str> = row.get(place);
            text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null)
        };
        let call = |row: &Row| Self {
            key: row.get(0),
            inputs: match json(row, 1) {
                Value::Array(inputs) => inputs,
                _ => Vec::new(),
            },
            request: json(row, 2),
            response: row.get(3),
            reason: row.get(4),
            attempts: unsigned(row.get(5)),
        };
        Ok(rows.iter().map(call).collect())
    }
}
