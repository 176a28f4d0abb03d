//! Lines on their way to the server, which may refuse some.

use std::collections::HashSet;
use std::ops::Range;
use std::pin::pin;

use bytes::Bytes;
use serde_json::Value;
use tokio_postgres::Transaction;
use tokio_postgres::error::{DbError, SqlState};

use super::batch::{CallReject, Lines};
use super::target::Target;
use super::{CrawlJob, CrawlMode};
use crate::Error;
use crate::copy_data;
use crate::error::Cause;
use crate::feed::PIECE;
use crate::place::Place;
use crate::salvage::{KEEP, OPEN, UNDO};
use crate::text_lines::unescape;

/// Sends lines within a transaction that has a savepoint to go back to.
pub(super) struct Sender<'a> {
    pub(super) transaction: &'a Transaction<'a>,
    pub(super) targets: &'a [Target],
    pub(super) job: &'a CrawlJob,
}

/// Checks what is deferred, and goes on doing so, so that it is told of the rows and not of the commit.
const CHECK: &str = "SET CONSTRAINTS ALL IMMEDIATE";

impl Sender<'_> {
    /// Sends all lines of all tables, which the rows that are to blame may prevent.
    pub(super) async fn send_all(&self, lines: &[Lines]) -> Result<Result<(), Cause>, Error> {
        for (target, lines) in self.targets.iter().zip(lines) {
            if let Err(cause) = self.send(target, lines, std::slice::from_ref(&(0..lines.rows.len()))).await? {
                return Ok(Err(cause));
            }
        }
        Ok(self.transaction.batch_execute(CHECK).await.map_err(Cause))
    }

    /// Sends all lines but for those that the server refuses, which it gives, table by table and in order. Nothing of them
    /// is there yet. Ends early with more than `left`.
    ///
    /// Many lines are tried, and where that fails fewer: up to the one that the server names, or half of them where it
    /// names none. After each success twice as many are tried. What was refused for a row that was not there yet is tried
    /// again in the end.
    pub(super) async fn salvage(&self, all: &[Lines], left: u64) -> Result<Vec<CallReject>, Error> {
        self.execute(&format!("RELEASE SAVEPOINT bulk_rows; {CHECK}; {KEEP}")).await?;
        let (mut found, mut closed) = (Vec::new(), 0);
        for (table, (target, lines)) in self.targets.iter().zip(all).enumerate() {
            let end = lines.rows.len();
            let (mut at, mut width) = (0, end);
            let mut bad: Option<(usize, Refusal)> = None;
            while at < end {
                if let Some((place, refusal)) = bad.take_if(|(place, _)| *place == at) {
                    closed += u64::from(!refusal.is_open());
                    found.push(Refused { table, place, refusal });
                    if closed > left {
                        found.retain(|refused: &Refused| !refused.refusal.is_open());
                        return Ok(self.rejects(all, found));
                    }
                    if found.len() as u64 > left.saturating_add(OPEN) {
                        return Ok(self.rejects(all, found));
                    }
                    at += 1;
                    continue;
                }
                let to = bad.as_ref().map_or(end, |(place, _)| *place).min(at.saturating_add(width));
                let Some((place, refusal)) = self.try_to_send(target, lines, at..to).await? else {
                    at = to;
                    width = width.saturating_mul(2);
                    continue;
                };
                match place {
                    Some(place) => {
                        width = place - at + 1;
                        bad = Some((place, refusal));
                    }
                    None if to - at == 1 => bad = Some((at, refusal)),
                    None => width = ((to - at) / 2).max(1),
                }
            }
        }
        let found = self.send_again(all, found).await?;
        Ok(self.rejects(all, found))
    }

    fn rejects(&self, lines: &[Lines], found: Vec<Refused>) -> Vec<CallReject> {
        let reject =
            |Refused { table, place, refusal }: Refused| refusal.of(table, &self.targets[table], &lines[table], place);
        found.into_iter().map(reject).collect()
    }

    /// Sends once more what was refused for a row that was not there yet: all of it at once, or each by itself, those first
    /// that stand last, until no more of it is taken. (So those that refer to each other in a circle are left out where
    /// others are.) Gives what is still refused, in order.
    async fn send_again(&self, lines: &[Lines], found: Vec<Refused>) -> Result<Vec<Refused>, Error> {
        let (mut open, mut found): (Vec<_>, Vec<_>) = found.into_iter().partition(|refused| refused.refusal.is_open());
        let mut first_taken = vec![None; lines.len()];
        let mut take = |refused: &Refused| {
            let first: &mut Option<usize> = &mut first_taken[refused.table];
            *first = Some(first.map_or(refused.place, |first| first.min(refused.place)));
        };
        if open.len() > 1 && self.try_places(lines, &open).await? {
            open.drain(..).for_each(|refused| take(&refused));
        }
        loop {
            let before = open.len();
            let mut still = Vec::new();
            for refused in open.into_iter().rev() {
                if self.try_places(lines, std::slice::from_ref(&refused)).await? {
                    take(&refused);
                } else {
                    still.push(refused);
                }
            }
            still.reverse();
            open = still;
            if open.len() == before {
                break;
            }
        }
        found.extend(open);
        found.sort_by_key(|refused| (refused.table, refused.place));
        // Of rows with one key the last one counts, also where one before it came late.
        for (table, first) in first_taken.into_iter().enumerate() {
            let Some(first) = first.filter(|_| self.targets[table].mode == CrawlMode::Upsert) else { continue };
            let of_table = found.iter().filter(|refused| refused.table == table);
            let refused: HashSet<usize> = of_table.map(|refused| refused.place).collect();
            let places = (first..lines[table].rows.len()).filter(|place| !refused.contains(place));
            let ranges: Vec<_> = places.map(|place| place..place + 1).collect();
            let sent = self.send(&self.targets[table], &lines[table], &ranges).await?;
            sent.map_err(|source| Error::Database { action: self.action(), source })?;
        }
        Ok(found)
    }

    /// Sends lines of several tables, whichever of them need each other, or none. Whether they are taken.
    async fn try_places(&self, lines: &[Lines], refused: &[Refused]) -> Result<bool, Error> {
        self.execute("SET CONSTRAINTS ALL DEFERRED").await?;
        for (table, (target, lines)) in self.targets.iter().zip(lines).enumerate() {
            let places = refused.iter().filter(|refused| refused.table == table).map(|refused| refused.place);
            let ranges: Vec<_> = places.map(|place| place..place + 1).collect();
            if let Err(cause) = self.send(target, lines, &ranges).await? {
                self.take_back(cause).await?;
                return Ok(false);
            }
        }
        if let Err(error) = self.transaction.batch_execute(CHECK).await {
            self.take_back(Cause(error)).await?;
            return Ok(false);
        }
        self.execute(&format!("RELEASE SAVEPOINT bulk_rows; {KEEP}")).await?;
        Ok(true)
    }

    /// Takes back what was sent since the savepoint, if rows are to blame for it.
    async fn take_back(&self, cause: Cause) -> Result<(), Error> {
        if !cause.is_of_rows() {
            return Err(Error::Database { action: self.action(), source: cause });
        }
        self.execute(UNDO).await
    }

    /// Sends lines, or takes them back and says why they are refused, and which one if that can be told.
    async fn try_to_send(
        &self,
        target: &Target,
        lines: &Lines,
        range: Range<usize>,
    ) -> Result<Option<(Option<usize>, Refusal)>, Error> {
        let sent = match self.send(target, lines, std::slice::from_ref(&range)).await? {
            Ok(()) => self.transaction.batch_execute(CHECK).await.map_err(Cause),
            refused => refused,
        };
        let Err(cause) = sent else {
            self.execute(&format!("RELEASE SAVEPOINT bulk_rows; {KEEP}")).await?;
            return Ok(None);
        };
        let Some(answer) = cause.0.as_db_error().filter(|_| cause.is_of_rows()) else {
            return Err(Error::Database { action: self.action(), source: cause });
        };
        let (line, refusal) = Refusal::read(answer, &target.relation);
        let place = line.and_then(|line| usize::try_from(line).ok()?.checked_sub(1)?.checked_add(range.start));
        self.execute(UNDO).await?;
        Ok(Some((place.filter(|place| range.contains(place)), refusal)))
    }

    async fn send(&self, target: &Target, lines: &Lines, ranges: &[Range<usize>]) -> Result<Result<(), Cause>, Error> {
        let count = ranges.iter().map(|range| range.len() as u64).sum();
        if count == 0 {
            return Ok(Ok(()));
        }
        let mut sink = match self.transaction.copy_in(&target.copy).await {
            Ok(sink) => pin!(sink),
            Err(error) => return Ok(Err(Cause(error))),
        };
        // In pieces, since it is copied.
        for piece in ranges.iter().flat_map(|range| lines.slice(range.clone()).chunks(PIECE)) {
            if let Err(error) = copy_data::send(sink.as_mut(), Bytes::copy_from_slice(piece)).await {
                return Ok(Err(Cause(error)));
            }
        }
        match sink.finish().await {
            Ok(taken) if taken != count => {
                return Err(Error::TakenRows { table: target.table.clone(), sent: count, taken });
            }
            Ok(_) => {}
            Err(error) => return Ok(Err(Cause(error))),
        }
        match &target.apply {
            Some(apply) => Ok(self.transaction.batch_execute(apply).await.map_err(Cause)),
            None => Ok(Ok(())),
        }
    }

    async fn execute(&self, sql: &str) -> Result<(), Error> {
        self.transaction.batch_execute(sql).await.map_err(Error::database(self.action()))
    }

    fn action(&self) -> String {
        format!("load calls of the crawl {}", self.job.name)
    }
}

/// A line that is refused, of the table of this place.
struct Refused {
    table: usize,
    place: usize,
    refusal: Refusal,
}

/// Why lines are refused.
struct Refusal {
    column: Option<String>,
    sqlstate: String,
    message: String,
}

impl Refusal {
    /// Whether it may be taken once another row is there.
    fn is_open(&self) -> bool {
        self.sqlstate == SqlState::FOREIGN_KEY_VIOLATION.code()
    }

    /// What the server says, and of which line of COPY, from 1, if it names one.
    fn read(answer: &DbError, relation: &str) -> (Option<u64>, Self) {
        let place = answer.where_().and_then(|context| Place::find(context, relation));
        let line = place.as_ref().map(|place| place.line);
        let column = place.and_then(|place| place.column).map(String::from);
        let message = match answer.detail() {
            Some(detail) => format!("{} ({detail})", answer.message()),
            None => answer.message().to_owned(),
        };
        let column = column.or_else(|| answer.column().map(ToOwned::to_owned));
        (line, Self { column, sqlstate: answer.code().code().to_owned(), message })
    }

    fn of(self, table: usize, target: &Target, lines: &Lines, place: usize) -> CallReject {
        let row = lines.rows[place];
        let fields = Some(fields(target, lines.slice(place..place + 1)));
        let Self { column, sqlstate, message } = self;
        CallReject { call: row.call, table, row: row.row, column, sqlstate, message, fields }
    }
}

/// A line of COPY as an object, whose values are texts or null.
fn fields(target: &Target, line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let value = |field: &[u8]| match field {
        b"\\N" => Value::Null,
        field => {
            let mut text = Vec::new();
            unescape(field, &mut text);
            String::from_utf8_lossy(&text).into()
        }
    };
    // No tab stands in a field as it is.
    object(target, line.split(|byte| *byte == b'\t').map(value))
}

/// Values as an object, by the names of their columns and in their order.
pub(super) fn object<V: std::fmt::Display>(target: &Target, values: impl Iterator<Item = V>) -> String {
    let pairs = target.cells.iter().zip(values);
    let pairs: Vec<_> = pairs.map(|(cell, value)| format!("{}:{value}", Value::from(cell.name.as_str()))).collect();
    format!("{{{}}}", pairs.join(","))
}
