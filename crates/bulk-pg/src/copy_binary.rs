//! COPY's binary format: rows as `COPY … FROM STDIN (FORMAT binary)` reads them.

use thiserror::Error;

use crate::binary_type::Scratch;
use crate::value::NULL;
use crate::value::refusal::{Invalid, Refusal};
use crate::{BinaryType, NoSuchField, Record, Source};

/// Encodes records as rows of COPY's binary format (PostgreSQL manual, COPY, "Binary Format"), which costs the server
/// less than text: it gets numbers and times ready-made.
///
/// A stream of rows begins with [`HEADER`](Self::HEADER) and ends with [`TRAILER`](Self::TRAILER). `client_encoding` has
/// to be UTF8, and `array_nulls` on, as it is by default.
///
/// What the server stores is what it would have stored of the same text. Only spellings are encoded that mean the same
/// on every server from version 13 on, whatever the session's settings are; a value with another one is [left to the
/// server](Unencoded::Unclear), by way of [`CopyText`](crate::CopyText). A value that every server refuses is
/// [refused](Unencoded::Invalid) here. What is not looked at here, and found by the server alone: the syntax of json and
/// jsonb, NULL where it may not be, and all constraints.
///
/// ```
/// use bulk_pg::{BinaryType, CopyBinary, Dialect, RecordOptions, Records, Source, Unencoded};
///
/// let csv = b"day,id\n2000-01-02,258\ntoday,7\n2000-01-01,x\n";
/// let (int4, date) = (BinaryType::new(23, -1).unwrap(), BinaryType::new(1082, -1).unwrap());
/// let columns = [(Source::Field(1), int4), (Source::Field(0), date)];
/// let mut encoder = CopyBinary::new(&columns, 2).expect("the file has two columns");
///
/// let mut records = Records::new(&csv[..], Dialect::CSV, RecordOptions::default())?;
/// let mut rows = Vec::new();
/// encoder.append(&records.next_record()?.unwrap(), &mut rows).unwrap();
/// assert_eq!(rows, b"\0\x02\0\0\0\x04\0\0\x01\x02\0\0\0\x04\0\0\0\x01");
///
/// let unclear = encoder.append(&records.next_record()?.unwrap(), &mut rows).unwrap_err();
/// assert_eq!(unclear, Unencoded::Unclear { column: 1 });
/// let invalid = encoder.append(&records.next_record()?.unwrap(), &mut rows).unwrap_err();
/// assert_eq!(invalid.to_string(), "invalid input syntax for type integer: \"x\"");
/// assert_eq!(rows.len(), 18);
/// # Ok::<(), bulk_pg::RecordError>(())
/// ```
#[derive(Clone, Debug)]
pub struct CopyBinary {
    columns: Vec<Column>,
    /// The count of the columns, with which each row begins.
    count: [u8; 2],
    /// The bytes of a row beside its fields' values, about.
    frame: usize,
    scratch: Scratch,
}

#[derive(Clone, Debug)]
enum Column {
    Field(usize, BinaryType),
    /// With its length.
    Encoded(Vec<u8>),
}

/// Why a record was not encoded. Columns are counted from 0, in the order that [`CopyBinary::new`] had them in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unencoded {
    /// A value that the server may understand, or understand differently by its settings: it is to judge the record,
    /// as text.
    #[error("a value that only the server can read")]
    Unclear {
        /// The value's column.
        column: usize,
    },
    /// A value that every server refuses, if its encoding is UTF8.
    #[error("{message}")]
    Invalid {
        /// The value's column.
        column: usize,
        /// The code with which the server would refuse it (PostgreSQL manual, "PostgreSQL Error Codes"), or one of the
        /// same class.
        sqlstate: &'static str,
        /// What the server would say, of no more than the value's first 200 characters.
        message: String,
    },
}

impl Unencoded {
    /// The column of the value that is to blame, from 0.
    pub fn column(&self) -> usize {
        match self {
            Self::Unclear { column } | Self::Invalid { column, .. } => *column,
        }
    }

    #[cold]
    pub(crate) fn new(refusal: Refusal, column: usize) -> Self {
        match refusal {
            Refusal::Unclear => Self::Unclear { column },
            Refusal::Invalid(invalid) => {
                let Invalid { sqlstate, message } = *invalid;
                Self::Invalid { column, sqlstate, message }
            }
        }
    }
}

/// Why there is no [`CopyBinary`] for some columns.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoCopyBinary {
    /// A column's source is a field that the file does not have.
    #[error(transparent)]
    NoSuchField(#[from] NoSuchField),
    /// A [`Source::Constant`] that cannot be encoded.
    #[error(transparent)]
    Constant(#[from] Unencoded),
    /// More columns than a row of the format can have; a table has at most 1,600.
    #[error("{columns} columns are more than a row can have")]
    TooManyColumns {
        /// So many.
        columns: usize,
    },
}

impl CopyBinary {
    /// What stands before the first row: the signature, no flags, and no extension.
    pub const HEADER: [u8; 19] = *b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
    /// What stands after the last row.
    pub const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();

    /// An encoder of rows with these columns, from records of `fields` fields.
    ///
    /// # Errors
    ///
    /// [`NoCopyBinary`]. A constant that is [unclear](Unencoded::Unclear) means that the rows have to go as text.
    pub fn new(columns: &[(Source, BinaryType)], fields: usize) -> Result<Self, NoCopyBinary> {
        let count =
            i16::try_from(columns.len()).map_err(|_| NoCopyBinary::TooManyColumns { columns: columns.len() })?;
        let column = |(index, (source, binary_type)): (usize, &(Source, BinaryType))| match source {
            Source::Field(index) if *index < fields => Ok(Column::Field(*index, *binary_type)),
            Source::Field(index) => Err(NoSuchField { index: *index, fields }.into()),
            Source::Constant(value) => {
                let mut encoded = Vec::new();
                let appended = binary_type.append_constant(value, &mut encoded);
                appended.map_err(|refusal| NoCopyBinary::Constant(Unencoded::new(refusal, index)))?;
                Ok(Column::Encoded(encoded))
            }
            Source::Null => Ok(Column::Encoded(NULL.to_vec())),
        };
        let columns = columns.iter().enumerate().map(column).collect::<Result<Vec<_>, NoCopyBinary>>()?;
        let width = |column: &Column| match column {
            Column::Field(..) => NUMBER,
            Column::Encoded(bytes) => bytes.len(),
        };
        let count = count.to_be_bytes();
        Ok(Self {
            frame: count.len() + columns.iter().map(width).sum::<usize>(),
            columns,
            count,
            scratch: Scratch::default(),
        })
    }

    /// Appends the row of a record to `out`. A field that the record lacks is NULL.
    ///
    /// # Errors
    ///
    /// [`Unencoded`], of the first column that cannot be encoded; then `out` is as it was before.
    pub fn append(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), Unencoded> {
        let start = out.len();
        out.reserve(self.frame + record.raw().len());
        out.extend_from_slice(&self.count);
        for (column, source) in self.columns.iter().enumerate() {
            let result = match source {
                Column::Field(index, binary_type) => match record.field(*index) {
                    Some(field) if !field.is_null() => binary_type.append(&field, &mut self.scratch, out),
                    _ => {
                        out.extend_from_slice(&NULL);
                        Ok(())
                    }
                },
                Column::Encoded(bytes) => {
                    out.extend_from_slice(bytes);
                    Ok(())
                }
            };
            if let Err(refusal) = result {
                out.truncate(start);
                self.scratch.shrink();
                return Err(Unencoded::new(refusal, column));
            }
        }
        self.scratch.shrink();
        Ok(())
    }
}

/// A number or a time, with its length.
const NUMBER: usize = 12;
