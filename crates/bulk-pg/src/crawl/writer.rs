//! The task that commits calls.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Transaction;
use tokio_postgres::types::ToSql;

use super::batch::{Batch, CallBatch, CallMark, CallReject};
use super::ledger::{QuarantinedCall, signed, without_nul};
use super::salvage::Sender;
use super::target::{Target, check_names};
use super::{CrawlJob, CrawlLoadOptions};
use crate::ledger::unsigned;
use crate::salvage::{KEEP, UNDO};
use crate::stage::{LoadStage, Watch, WorkerState};
use crate::{Error, Event, Session};

/// What the writer is told. What it is given has room, which its permit gives back when it is committed; whoever asks waits
/// for the answer. So no more of them wait than there is room for.
pub(super) enum Message {
    Call {
        call: Box<CallBatch>,
        permit: OwnedSemaphorePermit,
    },
    Quarantine {
        call: Box<QuarantinedCall>,
        permit: OwnedSemaphorePermit,
    },
    /// That what waits is to be committed now.
    Commit,
    /// The same, and to say so.
    Flush {
        answer: oneshot::Sender<()>,
    },
    /// Which of these are committed, and those of which a part is with where they go on.
    Progress {
        digests: Vec<Vec<u8>>,
        answer: oneshot::Sender<HashMap<Vec<u8>, Option<String>>>,
    },
    Quarantined {
        /// The digest of a key.
        after: Option<Vec<u8>>,
        limit: usize,
        answer: oneshot::Sender<Vec<QuarantinedCall>>,
    },
}

pub(super) struct Writer {
    pub(super) session: Session,
    pub(super) job: Arc<CrawlJob>,
    pub(super) targets: Arc<[Target]>,
    pub(super) crawl: i64,
    /// Whether any call of this round is committed.
    pub(super) has_calls: Arc<AtomicBool>,
    /// In this round.
    pub(super) rejected: u64,
    /// In this round, of each table.
    pub(super) target_rows: Vec<u64>,
    pub(super) options: CrawlLoadOptions,
}

impl Writer {
    /// Until nobody can tell it anything more.
    pub(super) async fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) -> Result<Self, Error> {
        let mut batch = Batch::default();
        let mut deadline = None;
        let watch = Watch::new(&self.options.observer, &self.job.name, LoadStage::Copy, 0);
        loop {
            let waiting = watch.waits(WorkerState::WaitsForInput);
            let message = if batch.is_empty() {
                let message = messages.recv().await;
                // `None` is for ever.
                deadline = Instant::now().checked_add(self.options.batch_time);
                message
            } else {
                let next = match deadline {
                    Some(deadline) => timeout_at(deadline, messages.recv()).await.ok(),
                    None => Some(messages.recv().await),
                };
                match next {
                    Some(message) => message,
                    None => {
                        drop(waiting);
                        let _waiting = watch.waits(WorkerState::WaitsForServer);
                        self.commit(std::mem::take(&mut batch)).await?;
                        continue;
                    }
                }
            };
            drop(waiting);
            let _waiting = watch.waits(WorkerState::WaitsForServer);
            match message {
                None if batch.is_empty() => return Ok(self),
                None => self.commit(std::mem::take(&mut batch)).await?,
                Some(Message::Call { call, permit }) => {
                    if batch.comes_before(&call, &self.targets) {
                        self.commit(std::mem::take(&mut batch)).await?;
                    }
                    batch.add(*call, permit);
                }
                Some(Message::Quarantine { call, permit }) => batch.add_quarantined(*call, permit),
                Some(Message::Commit) => self.commit(std::mem::take(&mut batch)).await?,
                // Whoever has asked may be gone.
                Some(Message::Flush { answer }) => {
                    self.commit(std::mem::take(&mut batch)).await?;
                    let _ = answer.send(());
                }
                Some(Message::Progress { digests, answer }) => drop(answer.send(self.progress(&digests).await?)),
                Some(Message::Quarantined { after, limit, answer }) => {
                    self.commit(std::mem::take(&mut batch)).await?;
                    let calls = QuarantinedCall::read(&self.session, self.crawl, after.as_deref(), limit).await?;
                    drop(answer.send(calls));
                }
            }
            if batch.bytes >= self.options.batch_bytes {
                self.commit(std::mem::take(&mut batch)).await?;
            }
        }
    }

    async fn progress(&self, digests: &[Vec<u8>]) -> Result<HashMap<Vec<u8>, Option<String>>, Error> {
        let sql = "SELECT digest, next FROM bulk.call WHERE crawl_id = $1 AND digest = ANY ($2)";
        let rows = self.session.client().query(sql, &[&self.crawl, &digests]).await;
        let rows = rows.map_err(Error::database(format!("read the marks of the crawl {}", self.job.name)))?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    async fn commit(&mut self, mut batch: Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let Self { session, job, targets, crawl, has_calls, rejected, target_rows, options } = self;
        let mut counts = target_rows.clone();
        for (count, lines) in counts.iter_mut().zip(&batch.lines) {
            *count += lines.rows.len() as u64;
        }
        let action = || Error::database(format!("load calls of the crawl {}", job.name));
        let transaction = session.client_mut().transaction().await.map_err(action())?;
        let left = options.max_rejects.saturating_sub(*rejected);
        number_on(&transaction, *crawl, job, &mut batch).await?;
        transaction.batch_execute(KEEP).await.map_err(action())?;
        let sender = Sender { transaction: &transaction, targets, job };
        if let Err(cause) = sender.send_all(&batch.lines).await? {
            if !cause.is_of_rows() {
                return Err(Error::Database { action: format!("load calls of the crawl {}", job.name), source: cause });
            }
            transaction.batch_execute(UNDO).await.map_err(action())?;
            let left = left.saturating_sub(batch.rejects.len() as u64);
            for reject in sender.salvage(&batch.lines, left).await? {
                let call = &mut batch.calls[reject.call];
                (call.rows, call.rejected) = (call.rows - 1, call.rejected + 1);
                counts[reject.table] -= 1;
                batch.rejects.push(reject);
            }
        }
        let Batch { calls, rejects, quarantined, bytes, .. } = &batch;
        let first_too_many = usize::try_from(left).ok().and_then(|left| rejects.get(left));
        if let Some(reject) = first_too_many {
            return Err(too_many(job, targets, options.max_rejects, &calls[reject.call], reject));
        }
        // Now that rows hold the tables, so that nobody can take their names away before this is committed.
        check_names(&transaction, job, targets).await?;
        if counts != *target_rows {
            let sql = "UPDATE bulk.crawl SET target_rows = $2 WHERE id = $1";
            transaction.execute(sql, &[&*crawl, &signed(&counts)]).await.map_err(action())?;
        }
        insert_rejects(&transaction, *crawl, targets, calls, rejects).await.map_err(action())?;
        for call in quarantined {
            call.insert(&transaction, *crawl).await.map_err(action())?;
        }
        mark(&transaction, *crawl, job, calls).await?;
        transaction.commit().await.map_err(action())?;
        has_calls.fetch_or(!calls.is_empty(), Ordering::Release);
        *rejected += rejects.len() as u64;
        *target_rows = counts;
        let rows = calls.iter().map(|call| call.rows).sum();
        options.observer.event(&Event::Called {
            job: &job.name,
            calls: calls.iter().filter(|call| call.next.is_none()).count() as u64,
            rows,
            rejected: rejects.len() as u64,
            quarantined: quarantined.len() as u64,
            bytes: *bytes as u64,
        });
        Ok(())
    }
}

fn too_many(job: &CrawlJob, targets: &[Target], limit: u64, call: &CallMark, reject: &CallReject) -> Error {
    Error::CallRejects {
        job: job.name.clone(),
        limit,
        key: call.key.clone(),
        table: Box::new(targets[reject.table].table.clone()),
        row: reject.row,
        column: reject.column.as_deref().map(Into::into),
        sqlstate: reject.sqlstate.as_str().into(),
        message: reject.message.as_str().into(),
    }
}

/// Rejects in one statement.
const REJECTS: usize = 1000;

async fn insert_rejects(
    transaction: &Transaction<'_>,
    crawl: i64,
    targets: &[Target],
    calls: &[CallMark],
    rejects: &[CallReject],
) -> Result<(), tokio_postgres::Error> {
    for rejects in rejects.chunks(REJECTS) {
        let table = |reject: &CallReject| &targets[reject.table].table;
        let keys: Vec<_> = rejects.iter().map(|reject| without_nul(&calls[reject.call].key)).collect();
        let schemas: Vec<_> = rejects.iter().map(|reject| table(reject).schema.as_str()).collect();
        let tables: Vec<_> = rejects.iter().map(|reject| table(reject).name.as_str()).collect();
        let numbers: Vec<_> = rejects.iter().map(|reject| reject.row as i64).collect();
        let columns: Vec<_> = rejects.iter().map(|reject| reject.column.as_deref()).collect();
        let sqlstates: Vec<_> = rejects.iter().map(|reject| reject.sqlstate.as_str()).collect();
        let messages: Vec<_> = rejects.iter().map(|reject| reject.message.as_str()).collect();
        let fields: Vec<_> = rejects.iter().map(|reject| reject.fields.as_deref()).collect();
        let parameters: [&(dyn ToSql + Sync); 9] =
            [&crawl, &keys, &schemas, &tables, &numbers, &columns, &sqlstates, &messages, &fields];
        transaction
            .execute(
                "INSERT INTO bulk.call_reject (crawl_id, key, target_schema, target_table, row, \"column\", sqlstate, message, fields)
                 SELECT $1, key, s, t, n, c, q, m, f::json FROM ROWS FROM (
                     pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[]),
                     pg_catalog.unnest($5::bigint[]), pg_catalog.unnest($6::text[]), pg_catalog.unnest($7::text[]),
                     pg_catalog.unnest($8::text[]), pg_catalog.unnest($9::text[])) r(key, s, t, n, c, q, m, f)",
                &parameters,
            )
            .await?;
    }
    Ok(())
}

/// Numbers the rows of parts of calls behind those of the parts before them.
async fn number_on(transaction: &Transaction<'_>, crawl: i64, job: &CrawlJob, batch: &mut Batch) -> Result<(), Error> {
    let action = || Error::database(format!("read the marks of the crawl {}", job.name));
    let digests: Vec<_> =
        batch.calls.iter().filter(|call| call.at.is_some()).map(|call| call.digest.as_slice()).collect();
    if digests.is_empty() {
        return Ok(());
    }
    let sql = "SELECT digest, given FROM bulk.call WHERE crawl_id = $1 AND digest = ANY ($2) AND given IS NOT NULL";
    let rows = transaction.query(sql, &[&crawl, &digests]).await.map_err(action())?;
    let given: HashMap<&[u8], Vec<i64>> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let Batch { calls, lines, rejects, .. } = batch;
    let before = |call: usize, table: usize| {
        let call = calls.get(call).filter(|call| call.at.is_some())?;
        given.get(call.digest.as_slice())?.get(table).copied().map(unsigned)
    };
    for (table, lines) in lines.iter_mut().enumerate() {
        for row in &mut lines.rows {
            row.row += before(row.call, table).unwrap_or_default();
        }
    }
    for reject in rejects {
        reject.row += before(reject.call, reject.table).unwrap_or_default();
    }
    Ok(())
}

/// Notes that calls are done, and that they are not in quarantine, or how far they are.
async fn mark(transaction: &Transaction<'_>, crawl: i64, job: &CrawlJob, calls: &[CallMark]) -> Result<(), Error> {
    let action = || Error::database(format!("note calls of the crawl {}", job.name));
    let refused = |key: &str, what: &str| Err(Error::Crawl { job: job.name.clone(), what: format!("{key} {what}") });
    let (whole, parts): (Vec<_>, Vec<_>) = calls.iter().partition(|call| call.at.is_none() && call.next.is_none());
    if !whole.is_empty() {
        let digests: Vec<_> = whole.iter().map(|call| call.digest.as_slice()).collect();
        let keys: Vec<_> = whole.iter().map(|call| without_nul(&call.key)).collect();
        let rows: Vec<_> = whole.iter().map(|call| call.rows as i64).collect();
        let rejected: Vec<_> = whole.iter().map(|call| call.rejected as i64).collect();
        let parameters: [&(dyn ToSql + Sync); 5] = [&crawl, &digests, &keys, &rows, &rejected];
        let marked = transaction
            .query(
                "INSERT INTO bulk.call (crawl_id, digest, key, rows, rejected)
                 SELECT $1, * FROM ROWS FROM (
                     pg_catalog.unnest($2::bytea[]), pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::bigint[]),
                     pg_catalog.unnest($5::bigint[]))
                 ON CONFLICT DO NOTHING RETURNING digest",
                &parameters,
            )
            .await
            .map_err(action())?;
        if marked.len() < whole.len() {
            let mut marked: HashSet<&[u8]> = marked.iter().map(|row| row.get(0)).collect();
            let twice = whole.iter().find(|call| !marked.remove(call.digest.as_slice()));
            return refused(
                twice.map_or("", |call| call.key.as_str()),
                "is committed already; its rows are not taken twice",
            );
        }
    }
    for part in parts {
        let CallMark { key, digest, rows, rejected, given, at, next } = part;
        let (key, rows, rejected, given) = (without_nul(key), *rows as i64, *rejected as i64, signed(given));
        let parameters: [&(dyn ToSql + Sync); 8] = [&crawl, digest, &key, &rows, &rejected, &given, next, at];
        let (sql, parameters) = match at {
            None => (
                "INSERT INTO bulk.call (crawl_id, digest, key, rows, rejected, given, next)
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
                &parameters[..7],
            ),
            Some(_) => (
                "UPDATE bulk.call SET key = $3, rows = rows + $4, rejected = rejected + $5, next = $7, committed_at = now(),
                     given = ARRAY(SELECT a + b FROM ROWS FROM (pg_catalog.unnest(given), pg_catalog.unnest($6::bigint[]))
                                                     WITH ORDINALITY t(a, b, place) ORDER BY place)
                 WHERE crawl_id = $1 AND digest = $2 AND next = $8",
                &parameters[..],
            ),
        };
        if transaction.execute(sql, parameters).await.map_err(action())? == 0 {
            return refused(&key, "is committed already, or as far as elsewhere; its rows are not taken twice");
        }
    }
    let digests: Vec<_> = calls.iter().filter(|call| call.next.is_none()).map(|call| call.digest.as_slice()).collect();
    transaction
        .execute("DELETE FROM bulk.quarantine WHERE crawl_id = $1 AND digest = ANY ($2)", &[&crawl, &digests])
        .await
        .map_err(action())?;
    Ok(())
}

/// What a round has come to so far.
pub(super) struct Totals {
    pub(super) calls: u64,
    pub(super) rows: u64,
    pub(super) rejected: u64,
    pub(super) quarantined: u64,
}

impl Totals {
    pub(super) async fn read(session: &Session, crawl: i64) -> Result<Self, Error> {
        let row = session
            .client()
            .query_one(
                "SELECT pg_catalog.count(*) FILTER (WHERE next IS NULL), coalesce(sum(rows), 0)::bigint, coalesce(sum(rejected), 0)::bigint,
                        (SELECT pg_catalog.count(*) FROM bulk.quarantine WHERE crawl_id = $1),
                        (SELECT pg_catalog.count(*) FROM bulk.call_reject WHERE crawl_id = $1 AND key IS NULL)
                 FROM bulk.call WHERE crawl_id = $1",
                &[&crawl],
            )
            .await
            .map_err(Error::database("count the calls of the crawl"))?;
        let [calls, rows, rejected, quarantined, late] = [0, 1, 2, 3, 4].map(|place| unsigned(row.get(place)));
        Ok(Self { calls, rows: rows.saturating_sub(late), rejected: rejected + late, quarantined })
    }
}
