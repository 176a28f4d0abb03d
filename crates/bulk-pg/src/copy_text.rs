//! COPY's text format: rows as `COPY … FROM STDIN` reads them by default.

use thiserror::Error;

use crate::record::Record;

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
                escape(value, &mut encoded);
                Ok(Column::Encoded(encoded))
            }
            Source::Null => Ok(Column::Encoded(NULL.to_vec())),
        };
        Ok(Self { columns: columns.iter().map(column).collect::<Result<_, _>>()? })
    }

    /// Appends the row of a record to `out`. A field that the record lacks is NULL.
    pub fn append(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        for (index, column) in self.columns.iter().enumerate() {
            if index > 0 {
                out.push(b'\t');
            }
            match column {
                Column::Field(index) => match record.field(*index) {
                    Some(field) if !field.is_null() => field.for_each_piece(|piece| escape(piece, out)),
                    _ => out.extend_from_slice(NULL),
                },
                Column::Encoded(bytes) => out.extend_from_slice(bytes),
            }
        }
        out.push(b'\n');
    }
}

/// Appends a value, or a piece of one, in COPY's format.
#[inline]
fn escape(mut value: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = first_special(value) {
        out.extend_from_slice(&value[..at]);
        out.extend_from_slice(&[b'\\', letter(value[at])]);
        value = &value[at + 1..];
    }
    out.extend_from_slice(value);
}

/// What stands after the backslash for a byte that [`is_special`].
fn letter(byte: u8) -> u8 {
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

#[inline(always)]
fn is_special(byte: u8) -> bool {
    (byte.wrapping_sub(0x08) < 6) | (byte == b'\\')
}

/// Where the first byte stands that [`is_special`]; blocks without one are told apart without a branch for each byte,
/// which compilers turn into vector instructions.
#[inline]
fn first_special(value: &[u8]) -> Option<usize> {
    const BLOCK: usize = 32;
    let mut at = 0;
    while let Some(block) = value[at..].first_chunk::<BLOCK>() {
        if block.iter().fold(false, |any, byte| any | is_special(*byte)) {
            break;
        }
        at += BLOCK;
    }
    value[at..].iter().position(|byte| is_special(*byte)).map(|distance| at + distance)
}
