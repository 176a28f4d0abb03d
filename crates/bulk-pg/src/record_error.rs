use std::error::Error;
use std::fmt;
use std::io;

use crate::buffer::BadText;
use crate::counted::counted;
use crate::scan::{FaultKind, MAX_FIELDS};
use crate::{Dialect, InputFormat};

/// Why a record cannot be read, and where it stands.
#[derive(Debug)]
#[non_exhaustive]
pub struct RecordError {
    /// The record's number, from 1; 0 for the header.
    pub record: u64,
    /// Where the record starts, in decoded bytes from the start of the stream.
    pub start: u64,
    /// Where the offending byte stands, in decoded bytes from the start of the stream.
    pub offset: u64,
    /// The name of the column, where there is one to blame.
    pub column: Option<Box<str>>,
    /// The dialect by which the record was read, if its format is CSV.
    pub dialect: Dialect,
    /// The format in which it was read.
    pub format: InputFormat,
    /// What is wrong.
    pub kind: RecordErrorKind,
}

/// What is wrong with a record.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecordErrorKind {
    /// The record is not written as the dialect's writers write: the file is of another one.
    Contradiction(Contradiction),
    /// The dialect was left open, and this is the first record whose values depend on it; see
    /// [`RecordOptions::guard`](crate::RecordOptions::guard).
    Ambiguous,
    /// The stream ends inside quotes: it was cut off, or is of another dialect.
    Unterminated,
    /// A line end outside quotes of another style than the first one of the file, which PostgreSQL refuses, too.
    MixedNewlines,
    /// The record has more fields than any table or header could: it is no CSV, or of another dialect.
    TooManyFields {
        /// That many are allowed.
        limit: usize,
    },
    /// The record is longer than [`RecordOptions::max_record`](crate::RecordOptions::max_record).
    TooLong {
        /// That many bytes.
        limit: usize,
    },
    /// The record has more or fewer fields than the header.
    FieldCount {
        /// The header's.
        expected: usize,
        /// The record's.
        found: usize,
    },
    /// A NUL byte, which no PostgreSQL text can hold.
    Nul,
    /// Bytes that are not UTF-8.
    InvalidUtf8,
    /// The record is not as its format wants it.
    Malformed {
        /// What is wrong with it.
        message: Box<str>,
    },
    /// The file is not as its format wants it, and nobody can say where its next record starts: it is of another format, or
    /// cut off, or damaged.
    Broken {
        /// What is wrong with it.
        message: Box<str>,
    },
    /// The stream is empty: it has not even a header.
    NoHeader,
    /// The stream could not be read on. Whole records before the error were lent first.
    Io(io::Error),
}

/// What no writer of a dialect writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Contradiction {
    /// Something other than a delimiter or a line end follows a closing quote.
    TextAfterQuote,
    /// A quote in a value that does not start with one.
    QuoteInBareValue,
    /// A value without quotes, where all are quoted.
    BareValue,
    /// Inside quotes, an escape byte before something other than a quote or itself.
    LoneEscape,
}

impl RecordError {
    /// Whether this one record is bad and the ones after it can be read: its border is certain. Then
    /// [`Records::rejected`](crate::Records::rejected) has its bytes.
    pub fn is_reject(&self) -> bool {
        self.record > 0 && self.kind.of_one_record().is_some()
    }

    /// Whether the file is, or may be, of another dialect than the one by which it was read.
    pub fn is_dialect(&self) -> bool {
        matches!(self.kind, RecordErrorKind::Contradiction(_) | RecordErrorKind::Ambiguous)
    }
}

impl RecordErrorKind {
    /// The code with which the server would refuse such a record, and what is wrong with it, if that is it alone.
    pub(crate) fn of_one_record(&self) -> Option<(&'static str, String)> {
        match self {
            // `bad_copy_file_format`
            Self::FieldCount { expected, found } => {
                Some(("22P04", format!("{} where the header has {expected}", counted(*found, "field", "fields"))))
            }
            Self::Malformed { message } => Some(("22P04", message.to_string())),
            // `character_not_in_repertoire`
            Self::Nul => Some(("22021", "a NUL byte, which text in PostgreSQL cannot hold".to_owned())),
            Self::InvalidUtf8 => Some(("22021", "invalid UTF-8".to_owned())),
            _ => None,
        }
    }
}

impl From<BadText> for RecordErrorKind {
    fn from(bad: BadText) -> Self {
        match bad {
            BadText::Nul => Self::Nul,
            BadText::InvalidUtf8 => Self::InvalidUtf8,
        }
    }
}

impl From<FaultKind> for RecordErrorKind {
    fn from(kind: FaultKind) -> Self {
        match kind {
            FaultKind::Contradiction(what) => Self::Contradiction(what),
            FaultKind::Unterminated => Self::Unterminated,
            FaultKind::MixedNewlines => Self::MixedNewlines,
            FaultKind::TooManyFields => Self::TooManyFields { limit: MAX_FIELDS },
        }
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TextAfterQuote => "text follows a closing quote",
            Self::QuoteInBareValue => "a quote stands inside an unquoted value",
            Self::BareValue => "a value is not quoted",
            Self::LoneEscape => "an escape stands before neither a quote nor an escape",
        })
    }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.record {
            0 => f.write_str("header")?,
            number => write!(f, "record {number}")?,
        }
        write!(f, ", byte {}", self.offset)?;
        if let Some(column) = &self.column {
            write!(f, ", column {column:?}")?;
        }
        if let Some((_, message)) = self.kind.of_one_record() {
            return write!(f, ": {message}");
        }
        let dialect = self.dialect;
        match &self.kind {
            RecordErrorKind::Contradiction(what) => {
                write!(f, ": {what}, so the file is not of dialect {dialect}; name the right one with --dialect")
            }
            RecordErrorKind::Ambiguous => write!(
                f,
                ": this record reads differently as {dialect} and as {}, and nothing before it told which one the \
                 file is; name it with --dialect",
                dialect.rival(),
            ),
            RecordErrorKind::Unterminated => {
                write!(
                    f,
                    ": the input ends inside quotes (read as dialect {dialect}): it is cut off, or of another dialect"
                )
            }
            RecordErrorKind::MixedNewlines => f.write_str(": the line ends in another way than the first line"),
            RecordErrorKind::TooManyFields { limit } => {
                write!(
                    f,
                    ": more than {} (read as dialect {dialect}): it is no CSV, or of another dialect",
                    counted(*limit, "field", "fields")
                )
            }
            RecordErrorKind::TooLong { limit } if self.format != InputFormat::Csv => {
                write!(
                    f,
                    ": longer than {}: the file is of another format, or damaged, or the limit is too low (--max-record)",
                    counted(*limit, "byte", "bytes")
                )
            }
            RecordErrorKind::TooLong { limit } => write!(
                f,
                ": longer than {} (read as dialect {dialect}): a quote is not closed, or the dialect is \
                 another, or the limit is too low (--max-record)",
                counted(*limit, "byte", "bytes")
            ),
            RecordErrorKind::FieldCount { .. }
            | RecordErrorKind::Malformed { .. }
            | RecordErrorKind::Nul
            | RecordErrorKind::InvalidUtf8 => Ok(()),
            RecordErrorKind::Broken { message } => write!(f, ": {message}"),
            RecordErrorKind::NoHeader => f.write_str(": the input is empty"),
            RecordErrorKind::Io(_) => f.write_str(": cannot read on"),
        }
    }
}

impl Error for RecordError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.kind {
            RecordErrorKind::Io(error) => Some(error),
            _ => None,
        }
    }
}
