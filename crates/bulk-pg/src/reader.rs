//! A file's records, whatever its format is.

use std::io::Read;
use std::sync::Arc;

use crate::cut::CutRecords;
use crate::ndjson::{self, JsonFields, Ndjson};
use crate::scan::Newline;
use crate::text_lines::TextLines;
use crate::tuples::Tuples;
use crate::{Dialect, Header, Position, Record, RecordError, RecordOptions, Records};

/// How a file's records are written, so that they can be read from any border on.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// The names of the fields, and where the first record starts.
    pub(crate) header: Header,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    Csv(Dialect),
    Ndjson(Arc<JsonFields>),
    Text,
    Binary,
}

/// How far a reader's input goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// To the end of the file.
    ToEnd,
    /// To a border between two records.
    ToBorder,
}

impl Layout {
    pub(crate) fn csv(dialect: Dialect, header: Header) -> Self {
        Self { header, way: Way::Csv(dialect) }
    }

    /// NDJSON, whose first record starts at the byte `end`.
    pub(crate) fn ndjson(names: Vec<String>, fields: JsonFields, end: u64) -> Self {
        Self { header: Header { names, newline: None, end }, way: Way::Ndjson(Arc::new(fields)) }
    }

    /// COPY's text format.
    pub(crate) fn text(names: Vec<String>) -> Self {
        Self { header: Header::new(names), way: Way::Text }
    }

    /// COPY's binary format, whose first tuple starts at the byte `end`.
    pub(crate) fn binary(names: Vec<String>, end: u64) -> Self {
        Self { header: Header { names, newline: None, end }, way: Way::Binary }
    }

    /// Whether records end as the first one does, and it is not known how that is.
    pub(crate) fn lacks_newline(&self) -> bool {
        matches!(self.way, Way::Csv(_) | Way::Text) && self.header.newline.is_none()
    }

    /// Finds out how the first record ends, from the bytes that the file starts with. False if they are too few.
    pub(crate) fn find_newline(&mut self, sample: &[u8], is_complete: bool) -> bool {
        let at = Position { offset: self.header.end, ..Position::default() };
        let first = sample.get(at.offset as usize..).unwrap_or_default();
        let options = RecordOptions { max_record: usize::MAX, ..RecordOptions::default() };
        let mut reader = self.resume(first, Extent::ToEnd, at, options);
        // A record that cannot be read is met again, where it is told of.
        let _ = reader.next_record();
        // What stands behind a line end tells whether that is all of it.
        let is_followed = reader.position().offset - at.offset < first.len() as u64;
        self.header.newline = reader.newline().filter(|_| is_complete || is_followed);
        is_complete || self.header.newline.is_some()
    }

    /// Reads on at a border, as [`Records::resume`] does.
    pub(crate) fn resume<R: Read>(&self, input: R, extent: Extent, at: Position, options: RecordOptions) -> Reader<R> {
        let names = || self.header.names.clone();
        let width = self.header.names.len();
        match &self.way {
            Way::Csv(dialect) => Reader::Csv(Records::resume(input, *dialect, self.header.clone(), at, options)),
            Way::Ndjson(fields) => {
                Reader::Ndjson(CutRecords::new(input, Ndjson::new(fields.clone()), names(), at, options))
            }
            Way::Text => {
                let lines = TextLines::new(width, self.header.newline);
                Reader::Text(CutRecords::new(input, lines, names(), at, options))
            }
            Way::Binary => {
                let tuples = Tuples::new(width, extent == Extent::ToEnd);
                Reader::Binary(CutRecords::new(input, tuples, names(), at, options))
            }
        }
    }

    /// What a reject file gets of a record's bytes.
    pub(crate) fn without_gap<'a>(&self, raw: &'a [u8]) -> &'a [u8] {
        match self.way {
            Way::Ndjson(_) => ndjson::line(raw),
            _ => raw,
        }
    }
}

/// Lends records as [`Records`] does.
pub(crate) enum Reader<R> {
    Csv(Records<R>),
    Ndjson(CutRecords<R, Ndjson>),
    Text(CutRecords<R, TextLines>),
    Binary(CutRecords<R, Tuples>),
}

impl<R: Read> Reader<R> {
    #[inline(always)]
    pub(crate) fn next_record(&mut self) -> Result<Option<Record<'_>>, RecordError> {
        match self {
            Self::Csv(records) => records.next_record(),
            Self::Ndjson(records) => records.next_record(),
            Self::Text(records) => records.next_record(),
            Self::Binary(records) => records.next_record(),
        }
    }

    #[inline(always)]
    pub(crate) fn position(&self) -> Position {
        match self {
            Self::Csv(records) => records.position(),
            Self::Ndjson(records) => records.position(),
            Self::Text(records) => records.position(),
            Self::Binary(records) => records.position(),
        }
    }

    pub(crate) fn rejected(&self) -> &[u8] {
        match self {
            Self::Csv(records) => records.rejected(),
            Self::Ndjson(records) => records.rejected(),
            Self::Text(records) => records.rejected(),
            Self::Binary(records) => records.rejected(),
        }
    }

    /// The last record, if its text alone is bad and its fields are known, as this error of its reading says. Only CSV's is
    /// told.
    pub(crate) fn bad_text(&self, error: &RecordError) -> Option<Record<'_>> {
        match self {
            Self::Csv(records) => records.bad_text(error),
            _ => None,
        }
    }

    pub(crate) fn end_chunk(&mut self) {
        match self {
            Self::Csv(records) => records.end_chunk(),
            Self::Ndjson(records) => records.end_chunk(),
            Self::Text(records) => records.end_chunk(),
            Self::Binary(records) => records.end_chunk(),
        }
    }

    /// Whether the dialect is in doubt.
    pub(crate) fn is_guarded(&self) -> bool {
        matches!(self, Self::Csv(records) if records.is_guarded())
    }

    fn newline(&self) -> Option<Newline> {
        match self {
            Self::Csv(records) => records.newline(),
            Self::Text(records) => records.cut().newline(),
            Self::Ndjson(_) | Self::Binary(_) => None,
        }
    }
}
