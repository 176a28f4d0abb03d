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

    /// Of a record that is longer than `window`, how much is one without what follows it and is no part of it, if that is so.
    fn end_before_gap(&self, window: &[u8]) -> Option<usize> {
        let _ = window;
        None
    }

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
    /// So many bytes that are no record's.
    Gap(usize),
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
            // What is said of a record that is too long must not depend on how much of the input happens to be known: neither
            // is it accepted, nor is it another fault that the input ends within it.
            let window = &input[..input.len().min(limit + 1)];
            let mut found = self.cut.cut(window, false);
            if let Ok(Found::More(len)) = found
                && len <= limit + 1
                && window.len() <= limit
                && self.buffer.ended
            {
                found = self.cut.cut(window, true);
            }
            let wanted = match found {
                Ok(Found::End) => return Ok(None),
                Ok(Found::Gap(len)) => {
                    self.buffer.start += len;
                    self.position.offset += len as u64;
                    continue;
                }
                Ok(Found::Record(len)) if len <= limit => return Ok(Some(len)),
                // The last byte may be one behind it, at which its end is told.
                Ok(Found::More(len)) if len <= limit + 1 && window.len() <= limit => len,
                Ok(Found::Record(_) | Found::More(_)) => {
                    if let Some(len) = self.cut.end_before_gap(&window[..window.len().min(limit)]) {
                        return Ok(Some(len));
                    }
                    let fault = Fault { at: 0, field: None, kind: RecordErrorKind::TooLong { limit } };
                    return Err(error::<C>(self.position, &self.names, fault));
                }
                Err(fault) => return Err(error::<C>(self.position, &self.names, fault)),
            };
            let wanted = wanted.max(input.len() + 1);
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use crate::json_column::JsonShape;
    use crate::ndjson::{JsonFields, Target};
    use crate::reader::{Extent, Layout};
    use crate::{Position, RecordOptions};

    /// What is said of the first record, which is the same however large the buffer is: its length, or the error.
    fn said(layout: &Layout, bytes: &[u8], max_record: usize) -> Result<usize, String> {
        let read = |buffer_size| {
            let mut options = RecordOptions::default();
            (options.max_record, options.buffer_size) = (max_record, buffer_size);
            let mut reader = layout.resume(bytes, Extent::ToEnd, Position::default(), options);
            let record = reader.next_record().map_err(|error| error.to_string())?;
            Ok(record.map_or(0, |record| record.raw().len()))
        };
        let first = read(1);
        for buffer_size in (2..=bytes.len() + 2).chain([1 << 16]) {
            assert_eq!(read(buffer_size), first, "a buffer of {buffer_size} bytes");
        }
        first
    }

    fn too_long(limit: usize) -> Result<usize, String> {
        Err(format!(
            "record 1, byte 0: longer than {limit} bytes: the file is of another format, or damaged, or the limit is too low \
             (--max-record)"
        ))
    }

    #[test]
    fn the_limit_is_met_to_the_byte_however_the_bytes_arrive() {
        let names = || vec!["a".to_owned()];
        let fields = || JsonFields {
            shapes: vec![Some(JsonShape::Text)],
            keys: HashMap::from([(b"a".to_vec(), Target::Field(0))]),
            others: Target::Ignored,
        };
        for (bytes, len) in
            [(&b"{\"a\":1}"[..], 7), (b"{\"a\":1}\n", 8), (b"{\"a\":1}\n{}", 8), (b"{\"a\":1}\n   {}", 8)]
        {
            let layout = Layout::ndjson(names(), fields(), 0);
            assert_eq!(said(&layout, bytes, len), Ok(len));
            assert_eq!(said(&layout, bytes, len - 1), too_long(len - 1));
        }
        // Neither blank lines nor the white space of the next one make a line too long.
        for behind in ["\n \n", "    ", "\n\n\n\n", "\n \n{}", "    {}", "\n    {}\n"] {
            let bytes = format!("{{\"a\":1}}\n{behind}");
            let layout = Layout::ndjson(names(), fields(), 0);
            assert_eq!(said(&layout, bytes.as_bytes(), 8), Ok(8), "{bytes}");
            assert_eq!(said(&layout, bytes.as_bytes(), 7), too_long(7), "{bytes}");
        }
        for (bytes, len) in [(&b"abc"[..], 3), (b"abc\n", 4), (b"abc\r\nd", 5), (b"ab\\\n\n", 5)] {
            let mut layout = Layout::text(names());
            layout.find_newline(bytes, true);
            assert_eq!(said(&layout, bytes, len), Ok(len));
            assert_eq!(said(&layout, bytes, len - 1), too_long(len - 1));
        }
    }

    #[test]
    fn what_follows_an_ndjson_record_is_passed_over_where_both_are_beyond_the_limit() {
        let fields = JsonFields {
            shapes: vec![Some(JsonShape::Text)],
            keys: HashMap::from([(b"a".to_vec(), Target::Field(0))]),
            others: Target::Ignored,
        };
        let layout = Layout::ndjson(vec!["a".to_owned()], fields, 0);
        let bytes = b"{\"a\":1}\n\n  \n\n\n\n \n\n \n  {\"a\":2}\n\n\n       \n\n\n\n\n\n\n";
        for max_record in [10, 11, 12, 20, 100] {
            for buffer_size in 1..=bytes.len() {
                let mut options = RecordOptions::default();
                (options.max_record, options.buffer_size) = (max_record, buffer_size);
                let mut reader = layout.resume(&bytes[..], Extent::ToEnd, Position::default(), options);
                let mut lines = Vec::new();
                while let Some(record) = reader.next_record().unwrap() {
                    let line = std::str::from_utf8(crate::ndjson::line(record.raw())).unwrap();
                    lines.push((record.offset(), line.to_owned()));
                }
                let expected = [(0, "{\"a\":1}\n".to_owned()), (20, "  {\"a\":2}\n".to_owned())];
                assert_eq!(lines, expected, "{max_record}, a buffer of {buffer_size} bytes");
                assert_eq!(reader.position().offset, bytes.len() as u64);
            }
        }
    }

    #[test]
    fn a_value_beyond_the_limit_and_the_end_is_beyond_the_limit() {
        let layout = Layout::binary(vec!["a".to_owned()], 0);
        let tuple = b"\0\x01\0\0\0\x0axyz";
        assert_eq!(said(&layout, tuple, 14), too_long(14));
        let beyond = "record 1, byte 2: a value of 10 bytes goes beyond the end: the file is cut off or damaged";
        assert_eq!(said(&layout, tuple, 16), Err(beyond.to_owned()));
        // However few bytes are there.
        assert_eq!(said(&layout, &tuple[..6], 14), too_long(14));
        assert_eq!(said(&layout, &tuple[..6], 16), Err(beyond.to_owned()));
        let whole = [&tuple[..], b"0123456"].concat();
        assert_eq!(said(&layout, &whole, 16), Ok(16));
    }
}
