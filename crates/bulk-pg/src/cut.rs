//! Records of the formats beside CSV: what a reader of each has to know, and what all have in common.

use std::io::{self, Read};

use crate::buffer::Buffer;
use crate::scan::Span;
use crate::{Dialect, InputFormat, Position, Record, RecordError, RecordErrorKind, RecordOptions};

/// How the records of a format stand in a stream.
pub(crate) trait Cut {
    const FORMAT: InputFormat;
    /// Whether a record is text, so that it may hold no NUL and nothing that is not UTF-8.
    const IS_TEXT: bool;

    /// Looks for the end of the record at the start of `input`, whose last byte is the last of all if `is_last`.
    ///
    /// # Errors
    ///
    /// Why nobody can say where it ends.
    fn cut(&mut self, input: &[u8], is_last: bool) -> Result<Found, Fault>;

    /// The fields of a record that [`cut`](Self::cut) has found.
    ///
    /// # Errors
    ///
    /// Why it is bad. The next one is read as if it were not.
    fn split<'a>(&'a mut self, raw: &'a [u8]) -> Result<Fields<'a>, Fault>;

    /// In which field of a record a byte stands, if that is easily told.
    fn field_at(&self, raw: &[u8], at: usize) -> Option<usize> {
        let _ = (raw, at);
        None
    }
}

/// What stands at the start of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A whole record of so many bytes.
    Record(usize),
    /// A record that is not whole in fewer bytes than these. Not where the input is the last.
    More(usize),
    /// There are no more records.
    End,
}

/// The fields of a record.
pub(crate) struct Fields<'a> {
    /// What the spans are of.
    pub(crate) text: &'a [u8],
    pub(crate) spans: &'a [Span],
}

#[derive(Debug)]
pub(crate) struct Fault {
    /// The offending byte, counted from the start of the record.
    pub(crate) at: usize,
    /// Its field.
    pub(crate) field: Option<usize>,
    pub(crate) kind: RecordErrorKind,
}

impl Fault {
    /// Of a record that alone is bad.
    #[cold]
    pub(crate) fn malformed(at: usize, field: Option<usize>, message: impl Into<Box<str>>) -> Self {
        Self { at, field, kind: RecordErrorKind::Malformed { message: message.into() } }
    }

    /// Of a file that cannot be read on.
    #[cold]
    pub(crate) fn broken(at: usize, message: impl Into<Box<str>>) -> Self {
        Self { at, field: None, kind: RecordErrorKind::Broken { message: message.into() } }
    }
}

/// As [`Records`](crate::Records), of another format than CSV.
#[derive(Debug)]
pub(crate) struct CutRecords<R, C> {
    input: R,
    cut: C,
    names: Vec<String>,
    options: RecordOptions,
    buffer: Buffer,
    /// The border before the record in hand.
    position: Position,
    chunk_start: u64,
    /// The bytes in the buffer of the last record that was read.
    last: (usize, usize),
}

/// The places of a record's fields, unescaped if need be, are counted in 32 bits: none of the formats makes more than
/// four bytes of one.
pub(crate) const MAX_RECORD: usize = (1 << 30) - 1;

impl<R: Read, C: Cut> CutRecords<R, C> {
    /// Starts at a border. `names` are those of the fields.
    pub(crate) fn new(input: R, cut: C, names: Vec<String>, position: Position, mut options: RecordOptions) -> Self {
        options.max_record = options.max_record.min(MAX_RECORD);
        let buffer = Buffer::new(options.buffer_size);
        Self { input, cut, names, options, buffer, position, chunk_start: position.offset, last: (0, 0) }
    }

    /// As [`Records::position`](crate::Records::position).
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// As [`Records::rejected`](crate::Records::rejected).
    pub(crate) fn rejected(&self) -> &[u8] {
        &self.buffer.bytes[self.last.0..self.last.1]
    }

    pub(crate) fn cut(&self) -> &C {
        &self.cut
    }

    /// As [`Records::end_chunk`](crate::Records::end_chunk).
    pub(crate) fn end_chunk(&mut self) {
        if self.position.offset > self.chunk_start {
            self.position.chunk += 1;
            self.chunk_start = self.position.offset;
        }
    }

    /// As [`Records::next_record`](crate::Records::next_record).
    pub(crate) fn next_record(&mut self) -> Result<Option<Record<'_>>, RecordError> {
        self.last = (0, 0);
        let Some(len) = self.find()? else { return Ok(None) };
        let (start, before) = (self.buffer.start, self.position);
        self.buffer.start += len;
        self.last = (start, start + len);
        self.position.offset += len as u64;
        self.position.record += 1;
        if self.position.offset - self.chunk_start >= self.options.chunk_size {
            self.position.chunk += 1;
            self.chunk_start = self.position.offset;
        }
        let bad_text = if C::IS_TEXT { self.buffer.check_text(start, start + len) } else { None };
        let raw = &self.buffer.bytes[start..start + len];
        if let Some((at, kind)) = bad_text {
            let at = at - start;
            let fault = Fault { at, field: self.cut.field_at(raw, at), kind: kind.into() };
            return Err(error::<C>(before, &self.names, fault));
        }
        match self.cut.split(raw) {
            Ok(Fields { text, spans }) => Ok(Some(Record {
                raw,
                text,
                spans,
                dialect: Dialect::CSV,
                number: self.position.record,
                offset: before.offset,
                chunk: before.chunk,
                ends_chunk: self.position.chunk != before.chunk,
            })),
            Err(fault) => Err(error::<C>(before, &self.names, fault)),
        }
    }

    /// Brings the next record into the buffer whole; its length, or `None` at the end.
    fn find(&mut self) -> Result<Option<usize>, RecordError> {
        let limit = self.options.max_record;
        loop {
            let input = self.buffer.pending();
            // A record that is too long must not be accepted because the buffer happens to hold it.
            let window = &input[..input.len().min(limit + 1)];
            let is_last = self.buffer.ended && window.len() == input.len();
            let len = match self.cut.cut(window, is_last) {
                Ok(Found::End) => return Ok(None),
                Ok(Found::Record(len)) if len <= limit => return Ok(Some(len)),
                Ok(Found::Record(len) | Found::More(len)) => len.max(window.len()),
                Err(fault) => return Err(error::<C>(self.position, &self.names, fault)),
            };
            if len > limit {
                let fault = Fault { at: 0, field: None, kind: RecordErrorKind::TooLong { limit } };
                return Err(error::<C>(self.position, &self.names, fault));
            }
            let wanted = len.max(input.len() + 1);
            self.buffer.fill(&mut self.input, wanted, limit + 1).map_err(|source| self.io_error(source))?;
        }
    }

    fn io_error(&self, source: io::Error) -> RecordError {
        let fault = Fault { at: self.buffer.pending().len(), field: None, kind: RecordErrorKind::Io(source) };
        error::<C>(self.position, &self.names, fault)
    }
}

/// The error of the record that starts at `before`.
#[cold]
fn error<C: Cut>(before: Position, names: &[String], fault: Fault) -> RecordError {
    let Fault { at, field, kind } = fault;
    RecordError {
        record: before.record + 1,
        start: before.offset,
        offset: before.offset + at as u64,
        column: field.and_then(|field| names.get(field)).map(|name| name.as_str().into()),
        dialect: Dialect::CSV,
        format: C::FORMAT,
        kind,
    }
}
