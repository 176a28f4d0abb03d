//! From records to the rows of COPY, in batches.

use crate::content::RowHasher;
use crate::copy_format::Encoding;
use crate::feed::{Deserted, Feed, PIECE, Stretch};
use crate::lines::Lines;
use crate::rejects::Reject;
use crate::tuples::CopyTuples;
use crate::{Checkpoint, CopyBinary, CopyText, Position, Record, Unencoded};

/// Bytes of rows that wait to be sent as text beside those in binary.
const ASIDE: usize = 1 << 20;
/// Of so many records of a chunk, one may be [unclear](Unencoded::Unclear); where more are, a COPY of its own for them
/// costs more than is saved by binary.
const CLEAR: u64 = 20;
/// Fewer records of a chunk say nothing about the next one.
const SAMPLE: u64 = 100;
/// Rejects of a chunk, and records of one that may have rejects: so many take some ten megabytes until they are noted.
const MAX_REJECTS: u64 = 4 << 10;
const MAX_RECORDS: u64 = 128 << 10;
/// Records that become no rows are given away when there are so many.
const MAX_LENGTHS: usize = 128 << 10;
/// Runs of records of a chunk between others that are passed over, each of which takes some memory until it is committed.
const MAX_RUNS: u64 = 256 << 10;
/// Bytes of the chunks of all sessions that are kept until these are committed: records that may be left out, and rows
/// that the server is to hash.
const MAX_KEPT: usize = 32 << 20;
/// Records of the chunks of all sessions whose places are kept until then, in four bytes each.
const MAX_PLACES: u64 = 4 << 20;

/// Makes a row of any record.
#[derive(Clone, Debug)]
pub(crate) enum RowMaker {
    Text(CopyText),
    Tuples(CopyTuples),
}

impl RowMaker {
    #[inline(always)]
    pub(crate) fn append(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => text.append(record, out),
            Self::Tuples(tuples) => tuples.append(record, out),
        }
    }

    pub(crate) fn encoding(&self) -> Encoding {
        match self {
            Self::Text(_) => Encoding::Text,
            Self::Tuples(_) => Encoding::Binary,
        }
    }
}

/// Encodes the records of chunk after chunk, and feeds them.
pub(crate) struct RowEncoder {
    maker: RowMaker,
    /// Until it is given up.
    binary: Option<CopyBinary>,
    /// Of the columns that are loaded.
    names: Vec<String>,
    /// Whether records may be left out, and so all are kept.
    tolerant: bool,
    /// Whether rows in text are kept, to be hashed where they arrive.
    keeps_text: bool,
    /// A chunk ends where it has so many records, or so much of it is kept.
    max_records: u64,
    max_kept: usize,
    /// Bytes of the chunk that are kept, of what was fed.
    kept: usize,
    /// Records of the chunk so far.
    records: u64,
    unclear: u64,
    rejected: u64,
    passed_over: u64,
    /// Runs of those, and whether the last record is one.
    runs: u64,
    is_in_run: bool,
    /// Repaired records of all chunks.
    repaired: u64,
    /// If the rows' content is asked for.
    hasher: Option<RowHasher>,
    rows: Batch,
    /// Text beside binary.
    aside: Batch,
    stretch: Stretch,
}

#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: Lines,
}

/// A value that the table cannot hold.
#[derive(Debug)]
pub(crate) struct BadValue {
    /// Its column.
    pub(crate) column: Box<str>,
    pub(crate) sqlstate: &'static str,
    pub(crate) message: String,
}

impl RowEncoder {
    /// An encoder of rows of columns with these names: in `binary` where there is one, if that can be. What is kept of
    /// chunks is shared by so many `sessions`.
    pub(crate) fn new(
        maker: RowMaker,
        binary: Option<CopyBinary>,
        names: Vec<String>,
        tolerant: bool,
        sessions: usize,
    ) -> Self {
        let sessions = sessions.max(1);
        let places = MAX_PLACES / sessions as u64;
        Self {
            maker,
            binary,
            names,
            tolerant,
            keeps_text: false,
            max_records: if tolerant { places.min(MAX_RECORDS) } else { places },
            max_kept: MAX_KEPT / sessions,
            kept: 0,
            records: 0,
            unclear: 0,
            rejected: 0,
            passed_over: 0,
            runs: 0,
            is_in_run: false,
            repaired: 0,
            hasher: None,
            rows: Batch::new(),
            aside: Batch::default(),
            stretch: Stretch::default(),
        }
    }

    /// Has rows hashed: those in binary here, if there is a hasher for them, those in text where they arrive.
    pub(crate) fn hash(&mut self, hasher: Option<RowHasher>) {
        self.hasher = hasher;
        self.keeps_text = true;
    }

    /// Takes the next record of the chunk. One with a bad value is [to be left out](Self::leave_out), or the end of all.
    #[inline(always)]
    pub(crate) fn push(&mut self, record: &Record<'_>) -> Result<(), BadValue> {
        self.push_as(record, record.raw())
    }

    /// As [`push`](Self::push), of a record that was repaired and stands in the file as `raw`. How many there are so far.
    pub(crate) fn push_repaired(&mut self, record: &Record<'_>, raw: &[u8]) -> Result<u64, BadValue> {
        self.push_as(record, raw)?;
        self.stretch.repaired += 1;
        self.repaired += 1;
        Ok(self.repaired)
    }

    #[inline(always)]
    fn push_as(&mut self, record: &Record<'_>, raw: &[u8]) -> Result<(), BadValue> {
        let (index, start) = (self.records, self.rows.bytes.len());
        match &mut self.binary {
            None => self.maker.append(record, &mut self.rows.bytes),
            Some(binary) => match binary.append(record, &mut self.rows.bytes) {
                Ok(()) if self.hasher.is_some() => self.hash_row(start, record),
                Ok(()) => {}
                Err(Unencoded::Invalid { column, sqlstate, message }) => {
                    let column = self.names.get(column).map(|name| name.as_str().into()).unwrap_or_default();
                    return Err(BadValue { column, sqlstate, message });
                }
                Err(Unencoded::Unclear { .. }) => {
                    self.unclear += 1;
                    self.maker.append(record, &mut self.aside.bytes);
                    self.aside.lines.push(index);
                    self.keep(raw);
                    return Ok(());
                }
            },
        }
        self.rows.lines.push(index);
        self.keep(raw);
        Ok(())
    }

    /// Takes the next record of the chunk as one that is not wanted.
    #[inline(always)]
    pub(crate) fn pass_over(&mut self, raw: &[u8]) {
        if self.tolerant {
            self.stretch.passed_over.push(self.records);
        }
        self.stretch.filtered += 1;
        self.passed_over += 1;
        self.runs += u64::from(!self.is_in_run);
        self.keep(raw);
        self.is_in_run = true;
    }

    /// Hashes the row that starts there.
    #[inline(never)]
    fn hash_row(&mut self, start: usize, record: &Record<'_>) {
        let hashed = self.hasher.as_mut().and_then(|hasher| hasher.hash(&self.rows.bytes[start..]));
        match hashed {
            Some(content) => self.stretch.content.add(content),
            None => self.maker.append(record, &mut self.stretch.unhashed),
        }
    }

    /// Leaves out the next record of the chunk.
    pub(crate) fn leave_out(&mut self, raw: &[u8], column: Option<&str>, sqlstate: &str, message: &str) {
        self.stretch.rejects.push(Reject::new(self.records, column, sqlstate, message));
        self.rejected += 1;
        self.keep(raw);
    }

    #[inline(always)]
    fn keep(&mut self, raw: &[u8]) {
        self.records += 1;
        self.is_in_run = false;
        self.stretch.lengths.push(u32::try_from(raw.len()).unwrap_or(u32::MAX));
        if self.tolerant {
            self.stretch.raw.extend_from_slice(raw);
        }
    }

    /// Whether the chunk is to end here, however short it is: a session has all that is kept of it, beside what is yet
    /// to be sent.
    #[inline(always)]
    pub(crate) fn is_chunk_full(&self) -> bool {
        self.records >= self.max_records
            || self.kept >= self.max_kept
            || self.rejected >= MAX_REJECTS
            || self.runs >= MAX_RUNS
    }

    /// Feeds what has come together, if that is enough.
    #[inline(always)]
    pub(crate) fn feed(&mut self, start: Position, feed: &mut Feed) -> Result<(), Deserted> {
        let Stretch { raw, lengths, .. } = &self.stretch;
        let is_full = self.rows.bytes.len() >= PIECE || raw.len() >= 2 * PIECE || lengths.len() >= MAX_LENGTHS;
        if is_full || self.aside.bytes.len() >= ASIDE { self.feed_batches(start, feed, is_full) } else { Ok(()) }
    }

    #[cold]
    fn feed_batches(&mut self, start: Position, feed: &mut Feed, rows: bool) -> Result<(), Deserted> {
        if rows {
            self.feed_rows(start, feed)?;
        }
        if self.aside.bytes.len() >= ASIDE {
            self.feed_aside(start, feed)?;
        }
        Ok(())
    }

    fn feed_rows(&mut self, start: Position, feed: &mut Feed) -> Result<(), Deserted> {
        let encoding = if self.binary.is_some() { Encoding::Binary } else { self.maker.encoding() };
        let rows = std::mem::replace(&mut self.rows, Batch::new());
        self.feed_batch(start, encoding, rows, feed)
    }

    fn feed_aside(&mut self, start: Position, feed: &mut Feed) -> Result<(), Deserted> {
        let rows = std::mem::take(&mut self.aside);
        self.feed_batch(start, Encoding::Text, rows, feed)
    }

    fn feed_batch(
        &mut self,
        start: Position,
        encoding: Encoding,
        Batch { mut bytes, lines }: Batch,
        feed: &mut Feed,
    ) -> Result<(), Deserted> {
        let mut stretch = std::mem::take(&mut self.stretch);
        self.kept += stretch.kept();
        if self.keeps_text && encoding == Encoding::Text {
            self.kept += bytes.len();
            bytes.shrink_to_fit();
        }
        // They grew by doubling, and stay for a while.
        stretch.raw.shrink_to_fit();
        stretch.unhashed.shrink_to_fit();
        feed.rows(start, encoding, bytes, lines, stretch)
    }

    /// Feeds the rest of a chunk, and ends it.
    pub(crate) fn end(
        &mut self,
        start: Position,
        end: Position,
        (guarded, checkpoint): (bool, Option<Checkpoint>),
        feed: &mut Feed,
    ) -> Result<(), Deserted> {
        if !self.rows.bytes.is_empty() || self.aside.bytes.is_empty() && !self.stretch.lengths.is_empty() {
            self.feed_rows(start, feed)?;
        }
        if !self.aside.bytes.is_empty() {
            self.feed_aside(start, feed)?;
        }
        let wanted = self.records - self.passed_over;
        if wanted >= SAMPLE && self.unclear * CLEAR > wanted {
            self.binary = None;
        }
        (self.records, self.unclear, self.rejected, self.kept) = (0, 0, 0, 0);
        (self.passed_over, self.runs, self.is_in_run) = (0, 0, false);
        feed.end(start, end, guarded, checkpoint)
    }
}

impl Batch {
    fn new() -> Self {
        Self { bytes: Vec::with_capacity(PIECE + PIECE / 4), lines: Lines::default() }
    }
}
