//! COPY's text format: rows as `COPY … FROM STDIN` reads them by default.

use thiserror::Error;

use crate::scan::Form;
use crate::{Dialect, Field, Record};

/// Where a target column's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The record's field of this index, from 0.
    Field(usize),
    /// The same value in every row; its plain bytes, not yet in COPY's format.
    Constant(Vec<u8>),
    /// NULL in every row.
    Null,
}

/// A [`Source::Field`] beyond the file's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("there is no field {index}: a record has {fields}")]
pub struct NoSuchField {
    /// The field asked for, from 0.
    pub index: usize,
    /// How many fields there are.
    pub fields: usize,
}

/// Encodes records as rows of COPY's text format (PostgreSQL manual, COPY, "Text Format"): columns separated by tabs,
/// rows ended by LF, NULL as `\N`, and backslash, backspace, tab, LF, vertical tab, form feed and CR as `\\`, `\b`,
/// `\t`, `\n`, `\v`, `\f` and `\r`.
///
/// No row can be taken for the end mark `\.`, since every backslash of a value is doubled.
///
/// ```
/// use bulk_pg::{CopyText, Dialect, RecordOptions, Records, Source};
///
/// let csv = b"id,path,note\n1,C:\\temp,\n";
/// let mut records = Records::new(&csv[..], Dialect::CSV, RecordOptions::default())?;
/// let columns = [Source::Field(2), Source::Field(1), Source::Constant(b"a\tb".to_vec()), Source::Null];
/// let encoder = CopyText::new(&columns, records.header().names().len()).expect("the file has three columns");
/// let mut rows = Vec::new();
/// while let Some(record) = records.next_record()? {
///     encoder.append(&record, &mut rows);
/// }
/// assert_eq!(rows, b"\\N\tC:\\\\temp\ta\\tb\t\\N\n");
/// # Ok::<(), bulk_pg::RecordError>(())
/// ```
#[derive(Clone, Debug)]
pub struct CopyText {
    columns: Vec<Column>,
    /// The bytes of a row beside its fields' values, at most.
    frame: usize,
}

#[derive(Clone, Debug)]
enum Column {
    Field(usize),
    /// In COPY's format.
    Encoded(Vec<u8>),
}

const NULL: &[u8] = b"\\N";

impl CopyText {
    /// An encoder of rows with these columns, from records of `fields` fields.
    ///
    /// # Errors
    ///
    /// [`NoSuchField`] if a column's source is a field beyond those.
    pub fn new(columns: &[Source], fields: usize) -> Result<Self, NoSuchField> {
        let column = |source: &Source| match source {
            Source::Field(index) if *index < fields => Ok(Column::Field(*index)),
            Source::Field(index) => Err(NoSuchField { index: *index, fields }),
            Source::Constant(value) => {
                let mut encoded = Vec::new();
                let mut row = Row { len: 0, out: &mut encoded };
                row.piece::<PLAIN>(value, value.len(), Dialect::CSV);
                row.finish();
                Ok(Column::Encoded(encoded))
            }
            Source::Null => Ok(Column::Encoded(NULL.to_vec())),
        };
        let columns = columns.iter().map(column).collect::<Result<Vec<_>, _>>()?;
        let width = |column: &Column| match column {
            Column::Field(_) => NULL.len() + 1,
            Column::Encoded(bytes) => bytes.len() + 1,
        };
        Ok(Self { frame: columns.iter().map(width).sum(), columns })
    }

    /// Appends the row of a record to `out`. A field that the record lacks is NULL.
    pub fn append(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        let mut row = Row { len: out.len(), out };
        row.room(self.frame + 2 * record.raw().len().min(STRETCH) + SLACK);
        for (index, column) in self.columns.iter().enumerate() {
            if index > 0 {
                row.bytes(b"\t");
            }
            match column {
                Column::Field(index) => match record.field(*index) {
                    Some(field) if !field.is_null() => row.value(&field),
                    _ => row.bytes(NULL),
                },
                Column::Encoded(bytes) => row.bytes(bytes),
            }
        }
        row.bytes(b"\n");
        row.finish();
    }
}

/// Values are encoded in stretches of this many bytes, so that the room for the worst case, which has to be
/// initialised, stays in the nearest cache.
const STRETCH: usize = 4096;

/// How many bytes more than a stretch needs are written to: values are moved by whole words.
const SLACK: usize = 8;

/// What is to be resolved in a piece of a value: nothing.
const PLAIN: u8 = 0;
/// Every escape byte is there twice.
const DOUBLED: u8 = 1;
/// An escape byte before a quote or before itself is no part of the value.
const ESCAPED: u8 = 2;

/// A row that is being appended: `out` may be longer than the row, which ends at `len`.
struct Row<'a> {
    out: &'a mut Vec<u8>,
    len: usize,
}

impl Row<'_> {
    /// The bytes after the row, at least `least` of them.
    #[inline(always)]
    fn room(&mut self, least: usize) -> &mut [u8] {
        let end = self.len + least;
        if self.out.len() < end {
            self.out.resize(end, 0);
        }
        &mut self.out[self.len..]
    }

    #[inline(always)]
    fn bytes(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    #[inline(always)]
    fn value(&mut self, field: &Field<'_>) {
        let (from, len) = field.raw_and_after();
        match field.form() {
            Form::Bare | Form::Quoted if self.word(from, len) => {}
            Form::Bare | Form::Quoted => self.piece::<PLAIN>(from, len, field.dialect()),
            Form::Escaped if field.dialect().doubles_quotes() => self.piece::<DOUBLED>(from, len, field.dialect()),
            Form::Escaped => self.piece::<ESCAPED>(from, len, field.dialect()),
            Form::Mixed => field.for_each_piece(|piece| self.piece::<PLAIN>(piece, piece.len(), field.dialect())),
        }
    }

    /// Appends `from[..len]` if that is no more than a word and clean.
    #[inline(always)]
    fn word(&mut self, from: &[u8], len: usize) -> bool {
        match from.first_chunk::<WORD>() {
            Some(word) if len <= WORD && len <= clean_len(u64::from_le_bytes(*word), b'\\') => {
                self.room(WORD)[..WORD].copy_from_slice(word);
                self.len += len;
                true
            }
            _ => false,
        }
    }

    /// Appends `from[..len]`; the bytes after those are of no account, but make it quicker.
    #[inline(always)]
    fn piece<const UNESCAPE: u8>(&mut self, from: &[u8], len: usize, dialect: Dialect) {
        let quote = dialect.quote();
        let escape = if UNESCAPE == PLAIN { b'\\' } else { dialect.escape() };
        let mut at = 0;
        while at < len {
            let end = len.min(at + STRETCH);
            let room = self.room(2 * (end - at) + SLACK);
            let mut to = 0;
            while at < end {
                // By blocks while all is clean, then by words up to the byte that is not.
                while let Some(block) = from[at..end].first_chunk::<BLOCK>() {
                    room[to..to + BLOCK].copy_from_slice(block);
                    if block.iter().fold(false, |any, byte| any | is_special(*byte) | (*byte == escape)) {
                        break;
                    }
                    at += BLOCK;
                    to += BLOCK;
                }
                while at < end
                    && let Some(word) = from[at..].first_chunk::<WORD>()
                {
                    room[to..to + WORD].copy_from_slice(word);
                    let clean = clean_len(u64::from_le_bytes(*word), escape);
                    let taken = clean.min(end - at);
                    at += taken;
                    to += taken;
                    if clean < WORD {
                        break;
                    }
                }
                if at == end {
                    break;
                }
                if UNESCAPE != PLAIN && from[at] == escape {
                    let next = from.get(at + 1).copied();
                    let escaped = UNESCAPE == DOUBLED || next == Some(quote) || next == Some(escape);
                    at += usize::from(escaped);
                }
                let byte = from[at];
                at += 1;
                if is_special(byte) {
                    room[to] = b'\\';
                    room[to + 1] = letter(byte);
                    to += 2;
                } else {
                    room[to] = byte;
                    to += 1;
                }
            }
            self.len += to;
        }
    }

    fn finish(self) {
        self.out.truncate(self.len);
    }
}

const BLOCK: usize = 16;
const WORD: usize = 8;

/// How many bytes of a word, the lowest first, are certain to stand for themselves.
#[inline(always)]
fn clean_len(word: u64, escape: u8) -> usize {
    const fn repeat(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; WORD])
    }
    // The top bit of the lowest zero byte is set, and none below it.
    let zeros = |word: u64| word.wrapping_sub(repeat(0x01)) & !word & repeat(0x80);
    // The bytes from 0x08 to 0x0f have the same upper five bits.
    let control = zeros((word & repeat(0xf8)) ^ repeat(0x08));
    let hits = control | zeros(word ^ repeat(b'\\')) | zeros(word ^ repeat(escape));
    (hits.trailing_zeros() / 8) as usize
}

/// Without a branch, so that compilers may look at a whole block at once.
#[inline(always)]
fn is_special(byte: u8) -> bool {
    (byte.wrapping_sub(0x08) < 6) | (byte == b'\\')
}

/// What stands after the backslash for a byte that [`is_special`].
pub(crate) fn letter(byte: u8) -> u8 {
    match byte {
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0b => b'v',
        0x0c => b'f',
        b'\r' => b'r',
        other => other,
    }
}
