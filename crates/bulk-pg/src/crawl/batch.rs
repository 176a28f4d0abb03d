//! Rows of calls, as they wait to be committed.

use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use super::ledger::{QuarantinedCall, digest, without_nul};
use super::salvage::object;
use super::target::Target;
use super::writer::Message;
use super::{CrawlLoad, CrawlMode, is_too_deep};
use crate::Error;
use crate::counted::counted;

/// A row that is left out.
#[derive(Debug)]
pub(super) struct CallReject {
    /// The place of its call in the batch.
    pub(super) call: usize,
    /// The place of its table in the job.
    pub(super) table: usize,
    /// Its number among those of the call for the table, from 1.
    pub(super) row: u64,
    pub(super) column: Option<String>,
    pub(super) sqlstate: String,
    pub(super) message: String,
    /// The row as an object.
    pub(super) fields: Option<String>,
}

/// Where a row of a table ends, and whose it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowEnd {
    pub(super) end: usize,
    pub(super) call: usize,
    pub(super) row: u64,
}

/// Lines of COPY for a table.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) bytes: Vec<u8>,
    pub(super) rows: Vec<RowEnd>,
}

impl Lines {
    /// The bytes of some of them.
    pub(super) fn slice(&self, range: std::ops::Range<usize>) -> &[u8] {
        let end = |place: usize| place.checked_sub(1).and_then(|last| self.rows.get(last)).map_or(0, |row| row.end);
        &self.bytes[end(range.start)..end(range.end)]
    }
}

/// A call of a batch, or a part of it.
#[derive(Debug)]
pub(super) struct CallMark {
    pub(super) key: String,
    pub(super) digest: Vec<u8>,
    pub(super) rows: u64,
    pub(super) rejected: u64,
    /// How many rows there were for each table, with those that are left out.
    pub(super) given: Vec<u64>,
    /// Where it begins, if a part of the call comes before it.
    pub(super) at: Option<String>,
    /// Where the call goes on, if this is not all of it.
    pub(super) next: Option<String>,
}

/// The rows of one call.
#[derive(Debug)]
pub(super) struct CallBatch {
    mark: CallMark,
    lines: Vec<Lines>,
    rejects: Vec<CallReject>,
    quarantined: Vec<QuarantinedCall>,
    pub(super) bytes: usize,
}

impl CallBatch {
    pub(super) fn new(key: String, at: Option<String>, tables: usize) -> Self {
        let digest = digest(&key);
        Self {
            mark: CallMark { key, digest, rows: 0, rejected: 0, given: vec![0; tables], at, next: None },
            lines: (0..tables).map(|_| Lines::default()).collect(),
            rejects: Vec::new(),
            quarantined: Vec::new(),
            bytes: 512,
        }
    }
}

/// Takes the rows of a call. Made by [`CrawlLoad::call`]; dropped, nothing of the call is kept.
#[derive(Debug)]
pub struct CallRows<'a> {
    load: &'a mut CrawlLoad,
    batch: CallBatch,
    /// Whether something of it was not taken, so that the rest of it is not the call.
    is_broken: bool,
}

impl<'a> CallRows<'a> {
    pub(super) fn new(load: &'a mut CrawlLoad, batch: CallBatch) -> Self {
        Self { load, batch, is_broken: false }
    }

    /// Takes a row for the table of this place in the [job](super::CrawlJob::tables): the values of its columns, in their
    /// order. Whether it was taken: one that the table cannot hold is left out. (What only the server can find out, it finds when
    /// the row is committed.)
    ///
    /// # Errors
    ///
    /// [`Error::Crawl`] if there is no such table, for another number of values, and for more than
    /// [`call_bytes`](super::CrawlLoadOptions::call_bytes) in one call. Behind an error nothing more is taken, and the call
    /// cannot be finished.
    pub fn row<'v>(
        &mut self,
        table: usize,
        values: impl IntoIterator<Item = Option<&'v Value>, IntoIter: Clone>,
    ) -> Result<bool, Error> {
        self.check_whole()?;
        let taken = self.take(table, values.into_iter());
        self.is_broken = taken.is_err();
        taken
    }

    fn take<'v>(
        &mut self,
        table: usize,
        values: impl Iterator<Item = Option<&'v Value>> + Clone,
    ) -> Result<bool, Error> {
        let Some(target) = self.load.targets.get(table) else { return Err(self.misuse(table, "is not one of them")) };
        let lines = &mut self.batch.lines[table];
        let start = lines.bytes.len();
        let mut unfit = None;
        let mut given = values.clone();
        for (place, cell) in target.cells.iter().enumerate() {
            let Some(value) = given.next() else {
                lines.bytes.truncate(start);
                return Err(self.misuse(table, "is given too few values"));
            };
            if place > 0 {
                lines.bytes.push(b'\t');
            }
            if let Err(why) = cell.append(value, &mut lines.bytes) {
                unfit = Some((cell.name.clone(), why));
                break;
            }
        }
        if unfit.is_none() && given.next().is_some() {
            lines.bytes.truncate(start);
            return Err(self.misuse(table, "is given too many values"));
        }
        if let Some((column, why)) = unfit {
            lines.bytes.truncate(start);
            self.leave_out(table, values, (Some(&column), why.sqlstate, &why.message))?;
            return Ok(false);
        }
        lines.bytes.push(b'\n');
        self.batch.mark.given[table] += 1;
        lines.rows.push(RowEnd { end: lines.bytes.len(), call: 0, row: self.batch.mark.given[table] });
        self.batch.bytes += lines.bytes.len() - start + size_of::<RowEnd>();
        self.batch.mark.rows += 1;
        self.check_room()?;
        Ok(true)
    }

    /// Leaves out a row for the table of this place: it is counted and noted with its call, for this reason, with what it
    /// has of values.
    ///
    /// # Errors
    ///
    /// As [`row`](Self::row).
    pub fn reject<'v>(
        &mut self,
        table: usize,
        values: impl IntoIterator<Item = Option<&'v Value>>,
        column: Option<&str>,
        sqlstate: &str,
        message: &str,
    ) -> Result<(), Error> {
        self.check_whole()?;
        let left_out = self.leave_out(table, values, (column, sqlstate, message));
        self.is_broken = left_out.is_err();
        left_out
    }

    fn leave_out<'v>(
        &mut self,
        table: usize,
        values: impl IntoIterator<Item = Option<&'v Value>>,
        (column, sqlstate, message): (Option<&str>, &str, &str),
    ) -> Result<(), Error> {
        let Some(target) = self.load.targets.get(table) else { return Err(self.misuse(table, "is not one of them")) };
        let known = |value: Option<&'v Value>| value.filter(|value| !is_too_deep(value)).unwrap_or(&Value::Null);
        let fields = object(target, values.into_iter().map(known));
        self.batch.mark.given[table] += 1;
        let reject = CallReject {
            call: 0,
            table,
            row: self.batch.mark.given[table],
            column: column.map(ToOwned::to_owned),
            sqlstate: sqlstate.to_owned(),
            message: without_nul(message),
            fields: Some(fields),
        };
        self.batch.bytes += reject.room();
        self.batch.mark.rejected += 1;
        self.batch.rejects.push(reject);
        self.check_room()
    }

    /// Notes that a part of the call has failed, such as a record of a batch, which is to be made by itself, under a key of
    /// its own, by the next run of the round: it goes into quarantine in the transaction of the call's rows.
    /// (A part with the key of the call itself says that all of it failed: then no row of it is kept, and it has no mark, so
    /// that the next run makes it again.)
    ///
    /// # Errors
    ///
    /// [`Error::Crawl`] for more than [`call_bytes`](super::CrawlLoadOptions::call_bytes) in one call.
    pub fn quarantine(&mut self, part: QuarantinedCall) -> Result<(), Error> {
        self.check_whole()?;
        self.batch.bytes += part.room();
        self.batch.quarantined.push(part);
        let room = self.check_room();
        self.is_broken = room.is_err();
        room
    }

    /// How many rows were taken.
    pub fn rows(&self) -> u64 {
        self.batch.mark.rows
    }

    /// How many were left out so far.
    pub fn rejected(&self) -> u64 {
        self.batch.mark.rejected
    }

    /// That these are all rows of the call. They are committed sooner or later, in one transaction with the mark that the
    /// call is done; this waits while more rows wait than [may](super::CrawlLoadOptions::batch_bytes).
    ///
    /// # Errors
    ///
    /// Whatever ended the writing, be it of an earlier call: [`Error::CallRejects`], [`Error::Crawl`] for a call that is
    /// committed already, [`Error::Database`]. Nothing is taken any more then. [`Error::Crawl`] for this call alone if
    /// something of it was not taken.
    pub async fn finish(self) -> Result<(), Error> {
        self.check_whole()?;
        self.send().await
    }

    /// That these are all rows of a part of the call, which goes on at `next` with [`CrawlLoad::call_at`]: for calls that are too
    /// long to be in memory. The part is committed by itself, with a mark that says so, and not taken twice; a run that ends
    /// behind it leaves it there, and [`CrawlMarks::progress`](super::CrawlMarks::progress) tells the next one.
    ///
    /// # Errors
    ///
    /// As [`finish`](Self::finish).
    pub async fn finish_part(mut self, next: impl Into<String>) -> Result<(), Error> {
        self.check_whole()?;
        self.batch.mark.next = Some(without_nul(&next.into()));
        self.send().await
    }

    async fn send(self) -> Result<(), Error> {
        let Self { load, mut batch, .. } = self;
        load.check_open()?;
        let digest_of = |part: &QuarantinedCall| digest(&part.key);
        if let Some(place) = batch.quarantined.iter().position(|part| digest_of(part) == batch.mark.digest) {
            return load.quarantine(batch.quarantined.swap_remove(place)).await;
        }
        let permit = load.room_for(batch.bytes).await?;
        load.tell(Message::Call { call: Box::new(batch), permit }).await
    }

    fn check_whole(&self) -> Result<(), Error> {
        if !self.is_broken {
            return Ok(());
        }
        let what = format!("something of {} was not taken, so that nothing of it is", self.batch.mark.key);
        Err(Error::Crawl { job: self.load.job.name.clone(), what })
    }

    fn check_room(&self) -> Result<(), Error> {
        let most = self.load.options.call_bytes;
        if self.batch.bytes <= most {
            return Ok(());
        }
        let most = counted(most, "byte", "bytes");
        let what = format!("{} has more than {most} of rows, which is what one call may have", self.batch.mark.key);
        Err(Error::Crawl { job: self.load.job.name.clone(), what })
    }

    fn misuse(&self, table: usize, what: &str) -> Error {
        let what = format!("table {table} of {} {what}", self.load.targets.len());
        Error::Crawl { job: self.load.job.name.clone(), what }
    }
}

impl CallMark {
    /// Takes in the part that follows.
    fn go_on(&mut self, part: Self) {
        self.rows += part.rows;
        self.rejected += part.rejected;
        self.given.iter_mut().zip(part.given).for_each(|(given, more)| *given += more);
        self.next = part.next;
    }
}

impl CallReject {
    /// Bytes that it takes, about.
    fn room(&self) -> usize {
        size_of::<Self>() + self.message.len() + self.fields.as_ref().map_or(0, String::len)
    }
}

/// What is committed together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) calls: Vec<CallMark>,
    pub(super) lines: Vec<Lines>,
    pub(super) rejects: Vec<CallReject>,
    pub(super) quarantined: Vec<QuarantinedCall>,
    pub(super) bytes: usize,
    permits: Option<OwnedSemaphorePermit>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.quarantined.is_empty()
    }

    pub(super) fn add(&mut self, call: CallBatch, permit: OwnedSemaphorePermit) {
        let mark = call.mark;
        // The part before it may be here.
        let before = mark
            .at
            .as_ref()
            .and_then(|_| self.calls.iter().position(|call| call.digest == mark.digest && call.next == mark.at));
        let place = before.unwrap_or(self.calls.len());
        let given = before.map_or_else(|| vec![0; call.lines.len()], |place| self.calls[place].given.clone());
        self.lines.resize_with(call.lines.len(), Lines::default);
        for ((all, more), given) in self.lines.iter_mut().zip(call.lines).zip(&given) {
            let start = all.bytes.len();
            if start == 0 {
                all.bytes = more.bytes;
            } else {
                all.bytes.extend_from_slice(&more.bytes);
            }
            all.rows.extend(more.rows.iter().map(|row| RowEnd {
                end: start + row.end,
                call: place,
                row: given + row.row,
            }));
        }
        let rejects = call.rejects.into_iter();
        let numbered = |reject: CallReject| CallReject { call: place, row: given[reject.table] + reject.row, ..reject };
        self.rejects.extend(rejects.map(numbered));
        self.quarantined.extend(call.quarantined);
        match self.calls.get_mut(place) {
            Some(before) => before.go_on(mark),
            None => self.calls.push(mark),
        }
        self.bytes += call.bytes;
        self.keep(permit);
    }

    pub(super) fn add_quarantined(&mut self, call: QuarantinedCall, permit: OwnedSemaphorePermit) {
        self.bytes += call.room();
        self.quarantined.push(call);
        self.keep(permit);
    }

    /// Whether rows of a call, which come behind those that are here, would be written before them and may undo them, or be
    /// undone by them: those of one table, and deletions, which foreign keys pass on.
    pub(super) fn comes_before(&self, call: &CallBatch, targets: &[Target]) -> bool {
        let filled = |lines: &[Lines]| -> Vec<usize> {
            lines.iter().enumerate().filter(|(_, lines)| !lines.rows.is_empty()).map(|(place, _)| place).collect()
        };
        let (here, there) = (filled(&self.lines), filled(&call.lines));
        let pairs = there.iter().flat_map(|there| here.iter().map(move |here| (*there, *here)));
        let is_delete = |place: usize| targets[place].mode == CrawlMode::Delete;
        pairs
            .filter(|(there, here)| there < here)
            .any(|(there, here)| targets[there].table == targets[here].table || is_delete(there) || is_delete(here))
    }

    fn keep(&mut self, permit: OwnedSemaphorePermit) {
        match &mut self.permits {
            Some(permits) => permits.merge(permit),
            None => self.permits = Some(permit),
        }
    }
}
