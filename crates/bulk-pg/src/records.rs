//! Records: a CSV stream, cut into records and fields at memory speed.

use std::io::{self, Read};

use crate::buffer::{BYTE_ORDER_MARK, Buffer};
use crate::field::Field;
use crate::scan::{FaultKind, Form, Newline, Rules, Scan, Span};
use crate::{Dialect, Grammar, Header, InputFormat, Position, Record, RecordError, RecordErrorKind, RecordOptions};

/// Reads the records of a CSV stream.
///
/// It lends one [`Record`] at a time from a buffer of its own, and allocates only when the buffer has to grow for a
/// long record. It reads in pieces of up to [`buffer_size`](RecordOptions::buffer_size) bytes, so a reader needs no
/// buffer of its own; `&mut R` is a reader, too. Bytes that were read and not yet lent are lost when it is dropped.
///
/// ```
/// use bulk_pg::{Dialect, RecordOptions, Records};
///
/// let csv = b"id,name\n\"1\",\"say \\\"hi\\\"\"\n\"2\",\n";
/// let mut records = Records::new(&csv[..], Dialect::D, RecordOptions::default())?;
/// assert_eq!(records.header().names(), ["id", "name"]);
/// let mut names = Vec::new();
/// while let Some(record) = records.next_record()? {
///     names.extend(record.field(1).map(|field| field.value().map(|value| value.into_owned())));
/// }
/// assert_eq!(names, [Some(b"say \"hi\"".to_vec()), None]);
/// # Ok::<(), bulk_pg::RecordError>(())
/// ```
///
/// # Errors and rejects
///
/// An error leaves the reader in front of the record that caused it, so that the next call fails in the same way,
/// except where [`RecordError::is_reject`] says that this one record alone is bad: then the reader stands behind it,
/// [`rejected`](Self::rejected) has its bytes, and reading can go on.
#[derive(Debug)]
pub struct Records<R> {
    input: R,
    rules: Rules,
    header: Header,
    in_header: bool,
    options: RecordOptions,
    guarded: bool,
    buffer: Buffer,
    spans: Vec<Span>,
    rival_spans: Vec<Span>,
    /// The border before the record in hand.
    position: Position,
    chunk_start: u64,
    /// The bytes in the buffer of the last record that was read.
    last: (usize, usize),
}

impl<R: Read> Records<R> {
    /// Starts at the first byte of a stream, and reads its header. A byte order mark before it is skipped.
    ///
    /// # Errors
    ///
    /// [`RecordErrorKind::NoHeader`] if the stream is empty; otherwise as [`next_record`](Self::next_record), with
    /// record 0 for the header.
    pub fn new(input: R, dialect: Dialect, options: RecordOptions) -> Result<Self, RecordError> {
        let mut records = Self::start(input, dialect, Header::new(Vec::new()), Position::default(), options);
        records.in_header = true;
        records.read_header()?;
        records.in_header = false;
        Ok(records)
    }

    /// Starts at the start of a chunk: `input`'s next byte is the one at `position`, which is one that
    /// [`position`](Self::position) gave right after a chunk's last record. Then the same records follow, in the same
    /// chunks and with the same numbers, as if the stream had been read from its start.
    ///
    /// `header` is that of the same stream. Ask for a [guard](RecordOptions::guard) only if
    /// [`is_guarded`](Self::is_guarded) was true there, lest what settled the dialect is forgotten.
    pub fn resume(input: R, dialect: Dialect, header: Header, position: Position, options: RecordOptions) -> Self {
        Self::start(input, dialect, header, position, options)
    }

    fn start(input: R, dialect: Dialect, header: Header, position: Position, mut options: RecordOptions) -> Self {
        options.max_record = options.max_record.min(u32::MAX as usize - 1);
        let mut rules = Rules::new(dialect, options.grammar);
        rules.newline = header.newline;
        Self {
            input,
            rules,
            header,
            in_header: false,
            guarded: options.guard,
            buffer: Buffer::new(options.buffer_size),
            options,
            spans: Vec::new(),
            rival_spans: Vec::new(),
            position,
            chunk_start: position.offset,
            last: (0, 0),
        }
    }

    /// The file's columns.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The dialect by which the records are read.
    pub fn dialect(&self) -> Dialect {
        self.rules.dialect
    }

    /// The border after the last record that was lent or rejected. Where [`Position::chunk`] is higher than before
    /// that record, the record was the last of its chunk.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Whether the [guard](RecordOptions::guard) is still up: it was asked for, and no record has settled the dialect.
    pub fn is_guarded(&self) -> bool {
        self.guarded
    }

    /// The last record's bytes as they stand in the stream, with the line end; for a reject file.
    pub fn rejected(&self) -> &[u8] {
        &self.buffer.bytes[self.last.0..self.last.1]
    }

    /// The stream's reader. Bytes that it gave beyond [`position`](Self::position) are lost.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// The next record, or `None` after the last one.
    ///
    /// # Errors
    ///
    /// See [`RecordErrorKind`].
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, RecordError> {
        self.last = (0, 0);
        let Some(len) = self.scan()? else { return Ok(None) };
        let start = self.buffer.start;
        let before = self.position;
        if self.guarded {
            self.examine(start..start + len)?;
        }
        self.buffer.start += len;
        self.last = (start, start + len);
        self.position.offset += len as u64;
        self.position.record += 1;
        if self.position.offset - self.chunk_start >= self.options.chunk_size {
            self.position.chunk += 1;
            self.chunk_start = self.position.offset;
        }
        let (expected, found) = (self.header.names.len(), self.spans.len());
        let bad_text = self.buffer.check_text(start, start + len);
        if found != expected {
            return Err(self.fault(before, 0, RecordErrorKind::FieldCount { expected, found }));
        }
        if let Some((at, kind)) = bad_text {
            return Err(self.fault(before, at - start, kind.into()));
        }
        Ok(Some(Record {
            raw: &self.buffer.bytes[start..start + len],
            text: &self.buffer.bytes[start..start + len],
            spans: &self.spans,
            dialect: self.rules.dialect,
            number: self.position.record,
            offset: before.offset,
            chunk: before.chunk,
            ends_chunk: self.position.chunk != before.chunk,
        }))
    }

    /// The last record, if its text alone is bad and its fields are known, as this error of its reading says.
    pub(crate) fn bad_text(&self, error: &RecordError) -> Option<Record<'_>> {
        if self.in_header || !matches!(error.kind, RecordErrorKind::Nul | RecordErrorKind::InvalidUtf8) {
            return None;
        }
        let ends_chunk = self.chunk_start == self.position.offset;
        Some(Record {
            raw: self.rejected(),
            text: self.rejected(),
            spans: &self.spans,
            dialect: self.rules.dialect,
            number: self.position.record,
            offset: error.start,
            chunk: self.position.chunk - u64::from(ends_chunk),
            ends_chunk,
        })
    }

    /// How records end, once one has.
    pub(crate) fn newline(&self) -> Option<Newline> {
        self.rules.newline
    }

    /// Ends the chunk at the border after the last record, unless that has ended it.
    pub(crate) fn end_chunk(&mut self) {
        if self.position.offset > self.chunk_start {
            self.position.chunk += 1;
            self.chunk_start = self.position.offset;
        }
    }

    fn read_header(&mut self) -> Result<(), RecordError> {
        let wanted = BYTE_ORDER_MARK.len();
        self.buffer.fill(&mut self.input, wanted, wanted).map_err(|error| self.io_error(error))?;
        if self.buffer.pending().starts_with(BYTE_ORDER_MARK) {
            self.buffer.start += BYTE_ORDER_MARK.len();
            self.position.offset += BYTE_ORDER_MARK.len() as u64;
        }
        let Some(len) = self.scan()? else {
            return Err(self.fault(self.position, 0, RecordErrorKind::NoHeader));
        };
        let start = self.buffer.start;
        if let Some((at, kind)) = self.buffer.check_text(start, start + len) {
            return Err(self.fault(self.position, at - start, kind.into()));
        }
        let raw = &self.buffer.bytes[start..start + len];
        let name = |span: &Span| {
            let value = Field::new(raw, *span, self.rules.dialect).value().unwrap_or_default();
            String::from_utf8_lossy(&value).into_owned()
        };
        self.header.names = self.spans.iter().map(name).collect();
        self.header.newline = self.rules.newline;
        self.buffer.start += len;
        self.position.offset += len as u64;
        self.header.end = self.position.offset;
        self.chunk_start = self.position.offset;
        Ok(())
    }

    /// Brings the next record into the buffer whole and finds its fields; its length, or `None` at the end.
    fn scan(&mut self) -> Result<Option<usize>, RecordError> {
        loop {
            let rules = &mut self.rules;
            let input = self.buffer.pending();
            // What is said of a record that is too long must not depend on how much of the input happens to be known: neither
            // is it accepted, nor is it another fault that the input ends within it.
            let window = &input[..input.len().min(self.options.max_record + 1)];
            let last = self.buffer.ended && input.len() <= self.options.max_record;
            let scan = if self.in_header {
                let mut header_rules = rules.for_header();
                let scan = header_rules.scan(window, last, &mut self.spans);
                rules.newline = header_rules.newline;
                scan
            } else {
                rules.scan(window, last, &mut self.spans)
            };
            let too_long = match scan {
                Ok(Scan::End) => return Ok(None),
                Ok(Scan::Record(len)) if len <= self.options.max_record => return Ok(Some(len)),
                Ok(Scan::Record(_)) => true,
                Ok(Scan::More { .. }) => window.len() > self.options.max_record,
                Err(fault) => return Err(self.fault(self.position, fault.at, fault.kind.into())),
            };
            if too_long {
                let limit = self.options.max_record;
                return Err(self.fault(self.position, 0, RecordErrorKind::TooLong { limit }));
            }
            let wanted = self.buffer.pending().len() + 1;
            let limit = self.options.max_record + 1;
            self.buffer.fill(&mut self.input, wanted, limit).map_err(|error| self.io_error(error))?;
        }
    }

    /// Reads a record by the rival dialect, too; see [`RecordOptions::guard`].
    fn examine(&mut self, range: std::ops::Range<usize>) -> Result<(), RecordError> {
        let raw = &self.buffer.bytes[range];
        let mut rival = Rules { dialect: self.rules.dialect.rival(), grammar: Grammar::Strict, ..self.rules };
        let rival_scan = rival.scan(raw, true, &mut self.rival_spans);
        let escapes = |spans: &[Span]| spans.iter().any(|span| matches!(span.form, Form::Escaped | Form::Mixed));
        match rival_scan {
            Ok(_) if !escapes(&self.spans) && !escapes(&self.rival_spans) => {}
            Ok(Scan::Record(len)) if len == raw.len() && self.rival_spans.len() == self.header.names.len() => {
                return Err(self.fault(self.position, 0, RecordErrorKind::Ambiguous));
            }
            // The rival's record goes on in the next line, where it may yet be contradicted, or not.
            Err(fault) if fault.kind == FaultKind::Unterminated => {
                return Err(self.fault(self.position, 0, RecordErrorKind::Ambiguous));
            }
            _ => self.guarded = false,
        }
        Ok(())
    }

    /// The error of the record that starts at `before`, at byte `at` of it.
    fn fault(&self, before: Position, at: usize, kind: RecordErrorKind) -> RecordError {
        let record = if self.in_header { 0 } else { before.record + 1 };
        let column = match kind {
            RecordErrorKind::FieldCount { .. }
            | RecordErrorKind::Ambiguous
            | RecordErrorKind::TooLong { .. }
            | RecordErrorKind::TooManyFields { .. }
            | RecordErrorKind::NoHeader
            | RecordErrorKind::Malformed { .. }
            | RecordErrorKind::Broken { .. }
            | RecordErrorKind::MixedNewlines => None,
            RecordErrorKind::Nul | RecordErrorKind::InvalidUtf8 => {
                let index = self.spans.partition_point(|span| span.start as usize <= at).saturating_sub(1);
                self.header.names.get(index)
            }
            // The spans before a fault are those of the fields that are whole.
            _ => self.header.names.get(self.spans.len()),
        };
        RecordError {
            record,
            start: before.offset,
            offset: before.offset + at as u64,
            column: column.map(|name| name.as_str().into()),
            dialect: self.rules.dialect,
            format: InputFormat::Csv,
            kind,
        }
    }

    fn io_error(&self, error: io::Error) -> RecordError {
        let read = self.buffer.pending().len();
        RecordError { column: None, ..self.fault(self.position, read, RecordErrorKind::Io(error)) }
    }
}
