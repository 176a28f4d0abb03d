//! A chunk that the server refuses is narrowed down to the records that it refuses.

use std::mem::take;
use std::ops::Range;
use std::pin::pin;

use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::types::Oid;
use tokio_postgres::{GenericClient, Statement, Transaction};

use crate::chunk::{Destination, Tolerance};
use crate::copy_data;
use crate::copy_format::Encoding;
use crate::error::Cause;
use crate::feed::PIECE;
use crate::place::Place;
use crate::reader::Reader;
use crate::received::{Kept, Received};
use crate::rejects::Reject;
use crate::{CopyBinary, Error};

/// What can be taken back begins here.
pub(crate) const KEEP: &str = "SAVEPOINT bulk_rows";
/// How many records more than may be left out are tried again, where they may need others of the table.
pub(crate) const OPEN: u64 = 4096;
/// Takes it back.
pub(crate) const UNDO: &str = "ROLLBACK TO SAVEPOINT bulk_rows";

/// Sends a chunk's records again, with all that can be taken back taken back, in the order of the file and as text or tuples; the
/// rejects among them, in order. All but these are in the table then. `known` is one of the rejects, if one is known.
///
/// A COPY of many records is tried, and where it fails one of fewer: up to the line that the server names, or of half as
/// many where it names none, which it does not for foreign keys and whatever else it checks behind all rows. After each
/// that succeeds twice as many are tried. What is deferred is checked with each.
pub(crate) async fn salvage(
    destination: &Destination<'_>,
    tolerance: &Tolerance,
    transaction: &Transaction<'_>,
    received: &Received,
    kept: &Kept<'_>,
    known: Option<Reject>,
) -> Result<Vec<Reject>, Error> {
    let action = || Error::database(format!("load a chunk of {}", destination.file.key));
    let begin = format!("RELEASE SAVEPOINT bulk_rows; SET CONSTRAINTS ALL IMMEDIATE; {KEEP}");
    transaction.batch_execute(&begin).await.map_err(action())?;
    let statement = transaction.prepare(&destination.statement(tolerance.maker.encoding())).await.map_err(action())?;
    let refers_to_itself = refers_to_itself(transaction, destination.load.oid).await?;
    let mut salvage = Salvage {
        destination,
        tolerance,
        transaction,
        received,
        left_out: received.left_out(),
        kept,
        statement,
        refers_to_itself,
        found: Vec::new(),
    };
    salvage.send_all(known).await?;
    if refers_to_itself {
        salvage.send_again().await?;
    }
    Ok(salvage.found)
}

/// Whether rows may need others of the same table, which may stand behind them.
pub(crate) async fn refers_to_itself(client: &impl GenericClient, oid: Oid) -> Result<bool, Error> {
    let row = client
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint
                            WHERE contype = 'f' AND conrelid = $1 AND confrelid = $1)",
            &[&oid],
        )
        .await
        .map_err(Error::database("read the table's foreign keys"))?;
    Ok(row.get(0))
}

struct Salvage<'a> {
    destination: &'a Destination<'a>,
    tolerance: &'a Tolerance,
    transaction: &'a Transaction<'a>,
    received: &'a Received,
    /// Those that are not to be sent, in order.
    left_out: Vec<u64>,
    kept: &'a Kept<'a>,
    statement: Statement,
    refers_to_itself: bool,
    found: Vec<Reject>,
}

/// Why a COPY failed, and by which record if the server names a line.
struct Refusal {
    record: Option<u64>,
    column: Option<Box<str>>,
    sqlstate: Box<str>,
    message: Box<str>,
}

/// What the server said of a record in the first COPY of a chunk, whose records stand in the order of the file.
pub(crate) fn known(destination: &Destination<'_>, received: &Received, error: &Error) -> Option<Reject> {
    let Error::Copy { first, last, source, .. } = error else { return None };
    let answer = source.0.as_db_error().filter(|_| first == last && source.is_of_rows())?;
    let index = first.checked_sub(received.start.record + 1)?;
    let refusal = Refusal::read(answer, destination, |_| Some(index));
    refusal.record.map(|index| refusal.of(index))
}

impl Refusal {
    /// Of what the server says. `record` tells the record of a line, if it can be told.
    fn read(answer: &DbError, destination: &Destination<'_>, record: impl Fn(u64) -> Option<u64>) -> Self {
        let place = answer.where_().and_then(|context| Place::find(context, destination.table.name.as_str()));
        let record = place.as_ref().and_then(|place| record(place.line));
        let column = place.and_then(|place| place.column).or_else(|| answer.column().map(Into::into));
        let message = match answer.detail() {
            Some(detail) => format!("{} ({detail})", answer.message()),
            None => answer.message().to_owned(),
        };
        Self { record, column, sqlstate: answer.code().code().into(), message: message.into() }
    }

    fn of(self, index: u64) -> Reject {
        Reject::new(index, self.column.as_deref(), &self.sqlstate, &self.message)
    }
}

impl Salvage<'_> {
    /// `bad` is the next one that is known to be refused.
    async fn send_all(&mut self, mut bad: Option<Reject>) -> Result<(), Error> {
        let end = self.received.records;
        let (mut at, mut width) = (0, bad.as_ref().map_or(end, |bad| bad.index + 1));
        while at < end {
            if let Some(reject) = bad.take_if(|reject| reject.index == at) {
                self.reject(reject)?;
                at += 1;
                continue;
            }
            let to = bad.as_ref().map_or(end, |reject| reject.index).min(at.saturating_add(width));
            let Some(refusal) = self.try_to_send(std::slice::from_ref(&(at..to))).await? else {
                at = to;
                width = width.saturating_mul(2);
                continue;
            };
            match refusal.record {
                Some(record) => {
                    width = record - at + 1;
                    bad = Some(refusal.of(record));
                }
                None if self.rows(at..to) == 1 => {
                    let record = self.record(at, 1);
                    width = 1;
                    bad = Some(refusal.of(record));
                }
                None => width = ((to - at) / 2).max(1),
            }
        }
        Ok(())
    }

    /// Sends once more what was refused for a record of the table that was not there yet: all of it at once, or each by
    /// itself, those first that stand last, until no more of it is taken. (So those that refer to each other in a circle
    /// are left out where others are.)
    async fn send_again(&mut self) -> Result<(), Error> {
        let is_open = |reject: &Reject| &*reject.sqlstate == SqlState::FOREIGN_KEY_VIOLATION.code();
        let (open, found) = std::mem::take(&mut self.found).into_iter().partition(is_open);
        self.found = found;
        let mut open: Vec<Reject> = open;
        let one = |reject: &Reject| reject.index..reject.index + 1;
        if open.len() > 1 && self.try_to_send(&open.iter().map(one).collect::<Vec<_>>()).await?.is_none() {
            open.clear();
        }
        loop {
            let before = open.len();
            let mut still = Vec::new();
            for reject in open.into_iter().rev() {
                if self.try_to_send(&[one(&reject)]).await?.is_some() {
                    still.push(reject);
                }
            }
            still.reverse();
            open = still;
            if open.len() == before {
                break;
            }
        }
        self.found.extend(open);
        self.found.sort_by_key(|reject| reject.index);
        Ok(())
    }

    /// Takes the next reject in order. Fails as soon as there are too many, whatever comes.
    fn reject(&mut self, reject: Reject) -> Result<(), Error> {
        self.found.push(reject);
        if self.refers_to_itself && (self.found.len() as u64) < self.tolerance.left().saturating_add(OPEN) {
            return Ok(());
        }
        let index = self.found.last().map_or(0, |reject| reject.index);
        let before = self.received.rejects.partition_point(|reject| reject.index < index);
        let left = self.tolerance.left();
        if (before + self.found.len()) as u64 <= left {
            return Ok(());
        }
        let mut all: Vec<&Reject> = self.received.rejects[..before].iter().chain(&self.found).collect();
        all.sort_by_key(|reject| reject.index);
        let first_too_many = usize::try_from(left).ok().and_then(|left| all.get(left));
        let (file, limit) = (&self.destination.file.key, self.tolerance.limit);
        first_too_many.map_or(Ok(()), |reject| Err(reject.too_many(file, limit, self.kept)))
    }

    /// How many of the records were not left out before they came here.
    fn rows(&self, range: Range<u64>) -> u64 {
        let place = |index| self.left_out.partition_point(|left_out| *left_out < index);
        range.end - range.start - (place(range.end) - place(range.start)) as u64
    }

    /// The record of a line, from 1, in a COPY of the records from `at` on.
    fn record(&self, at: u64, line: u64) -> u64 {
        let left_out = &self.left_out[self.left_out.partition_point(|left_out| *left_out < at)..];
        let mut record = at + line.saturating_sub(1);
        for left_out in left_out {
            if *left_out > record {
                break;
            }
            record += 1;
        }
        record
    }

    /// Sends records, or takes them back and says why they are refused, and for which of them if they follow each other.
    async fn try_to_send(&self, ranges: &[Range<u64>]) -> Result<Option<Refusal>, Error> {
        let rows: u64 = ranges.iter().map(|range| self.rows(range.clone())).sum();
        if rows == 0 {
            return Ok(None);
        }
        let result = loop {
            match self.send(ranges).await? {
                // Again and again: until those behind it have given back what they hold, each may be its deadlock.
                Err(cause) if self.tolerance.several && cause.is_of_locks() => {
                    // Those behind this chunk may hold what it waits for.
                    self.tolerance.turns.ask();
                    let sql = format!("{UNDO}; RELEASE SAVEPOINT bulk_rows; SET LOCAL lock_timeout = 0; {KEEP}");
                    self.execute(&sql).await?;
                }
                result => break result,
            }
        };
        let Err(cause) = result else {
            self.execute(&format!("RELEASE SAVEPOINT bulk_rows; {KEEP}")).await?;
            return Ok(None);
        };
        let record = |line| match ranges {
            [range] if (1..=rows).contains(&line) => Some(self.record(range.start, line)),
            _ => None,
        };
        let answer = cause.0.as_db_error().filter(|_| cause.is_of_rows());
        let Some(refusal) = answer.map(|answer| Refusal::read(answer, self.destination, record)) else {
            return Err(self.destination.refusal(std::slice::from_ref(self.received), None, cause.0));
        };
        self.execute(UNDO).await?;
        Ok(Some(refusal))
    }

    async fn execute(&self, sql: &str) -> Result<(), Error> {
        let action = || Error::database(format!("load a chunk of {}", self.destination.file.key));
        self.transaction.batch_execute(sql).await.map_err(action())
    }

    /// Sends records but for those that were left out before they came here.
    async fn send(&self, ranges: &[Range<u64>]) -> Result<Result<(), Cause>, Error> {
        let mut sink = match self.transaction.copy_in(&self.statement).await {
            Ok(sink) => pin!(sink),
            Err(error) => return Ok(Err(Cause(error))),
        };
        let is_binary = self.tolerance.maker.encoding() == Encoding::Binary;
        let (mut rows, mut buffer) = (0, Vec::new());
        if is_binary {
            buffer.extend_from_slice(&CopyBinary::HEADER);
        }
        let pieces: Vec<_> = ranges.iter().flat_map(|range| self.kept.records(range.clone())).collect();
        for (mut index, raw) in pieces {
            let mut left_out = &self.left_out[self.left_out.partition_point(|left_out| *left_out < index)..];
            let mut records = self.read(index, raw);
            loop {
                let is_left_out = left_out.first() == Some(&index);
                match self.tolerance.append_next(&mut records, is_left_out, &mut buffer) {
                    Ok(None) => break,
                    Ok(Some(is_row)) => rows += u64::from(is_row),
                    Err(source) => {
                        return Err(Error::Record { file: self.destination.file.key.clone(), source });
                    }
                }
                left_out = &left_out[usize::from(is_left_out)..];
                index += 1;
                if buffer.len() >= PIECE
                    && let Err(error) = copy_data::send(sink.as_mut(), take(&mut buffer).into()).await
                {
                    return Ok(Err(Cause(error)));
                }
            }
        }
        if is_binary {
            buffer.extend_from_slice(&CopyBinary::TRAILER);
        }
        if let Err(error) = copy_data::send(sink.as_mut(), buffer.into()).await {
            return Ok(Err(Cause(error)));
        }
        match sink.finish().await {
            Ok(taken) => self.destination.compare(rows, taken).map(Ok),
            Err(error) => Ok(Err(Cause(error))),
        }
    }

    /// Reads records as they were read before.
    fn read<'r>(&self, index: u64, raw: &'r [u8]) -> Reader<&'r [u8]> {
        self.tolerance.read(self.kept.position(index), raw)
    }
}
