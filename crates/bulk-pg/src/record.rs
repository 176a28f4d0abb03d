//! Records: a CSV stream, cut into records and fields at memory speed.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io::{self, Read};

use memchr::{memchr, memchr2};

use crate::buffer::{BadText, Buffer};
use crate::dialect::Dialect;
use crate::scan::{FaultKind, Form, Newline, Rules, Scan, Span};

/// Which files are taken for one of the [`Dialect`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grammar {
    /// What writers write: a quote opens and closes whole values only, an escape byte other than the quote stands only
    /// before itself or a quote, and with [`Quoting::Always`](crate::Quoting::Always) every value is quoted.
    /// PostgreSQL's `COPY TO` and other CSV writers keep to it, so whatever breaks it is a [`Contradiction`]: the file
    /// is of another dialect, and reading on would change values without a sign.
    #[default]
    Strict,
    /// What the server's `COPY FROM` reads: quotes may open and close anywhere in a field, and an escape byte before
    /// anything but itself or a quote is an ordinary character. It hides a wrong dialect.
    Server,
}

/// How [`Records`] reads.
///
/// The default is the strict grammar, no guard, chunks of 16 MiB, records of up to 1 GiB and a buffer of 256 KiB.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecordOptions {
    /// What is taken for a record.
    pub grammar: Grammar,
    /// Whether to stop at the first record that two dialects read with different values, and both without complaint:
    /// the dialect itself, and the one that differs in how a quote is written inside quotes (B and D are such a pair).
    ///
    /// It is meant for [`Certainty::Ambiguous`](crate::Certainty::Ambiguous). Every record is read by both dialects.
    /// One that the other contradicts settles the matter: the guard is done, [`Records::is_guarded`] turns false, and
    /// reading goes on. One that both read alike (it has no escape of either kind) says nothing. At any other the
    /// reader stops with [`RecordErrorKind::Ambiguous`]; for B and D that is a record with a backslash inside quotes,
    /// always twice or before a closing quote, and no doubled quote.
    pub guard: bool,
    /// How many decoded bytes make a chunk: the first border between two records at or after so many bytes from the
    /// start of a chunk ends it. The first chunk starts after the header. Zero makes each record a chunk.
    ///
    /// The borders therefore depend on the bytes and on this number alone, and not on the sizes of the reads.
    pub chunk_size: u64,
    /// The longest record, in bytes with its line end; more is [`RecordErrorKind::TooLong`]. The default is
    /// PostgreSQL's limit for a field and for an input line, 1 GiB; the most is 4 GiB - 2.
    pub max_record: usize,
    /// The size of the buffer, in bytes; at least 1. It grows for a longer record, to at most four times its length
    /// and not beyond `max_record`, and what it grew beyond 32 times its size is given back.
    pub buffer_size: usize,
}

impl Default for RecordOptions {
    fn default() -> Self {
        Self {
            grammar: Grammar::Strict,
            guard: false,
            chunk_size: 16 << 20,
            max_record: 1 << 30,
            buffer_size: 256 << 10,
        }
    }
}

/// The first line of a file: the columns' names, in the file's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    names: Vec<String>,
    newline: Option<Newline>,
    end: u64,
}

impl Header {
    /// The header of a file that has none, for [`Records::resume`] at [`Position::default`].
    pub fn new(names: Vec<String>) -> Self {
        Self { names, newline: None, end: 0 }
    }

    /// The columns' names, in the file's order, as they stand there.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Where the first record starts, in decoded bytes from the start of the stream.
    pub fn end(&self) -> u64 {
        self.end
    }
}

/// A border between two records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// Decoded bytes before it, from the start of the stream.
    pub offset: u64,
    /// Records before it, the header not counted.
    pub record: u64,
    /// Chunks before it that are whole.
    pub chunk: u64,
}

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

    /// Discards what comes before `position`, the start of a chunk as for [`resume`](Self::resume), without looking at
    /// it, and goes on there. So a stream that cannot be read from its middle is resumed after its header was read.
    ///
    /// # Errors
    ///
    /// [`RecordErrorKind::Io`] if the stream cannot be read on, if it ends before `position` (then it is not the same
    /// stream), or if the reader is already beyond it.
    pub fn skip_to(&mut self, position: Position) -> Result<(), RecordError> {
        let Some(mut ahead) = position.offset.checked_sub(self.position.offset) else {
            return Err(
                self.io_error(io::Error::new(io::ErrorKind::InvalidInput, "already beyond the position to skip to"))
            );
        };
        self.last = (0, 0);
        loop {
            let step = usize::try_from(ahead).unwrap_or(usize::MAX).min(self.buffer.pending().len());
            self.buffer.skip(step);
            self.position.offset += step as u64;
            ahead -= step as u64;
            if ahead == 0 {
                break;
            }
            if self.buffer.ended {
                let error =
                    io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ends before the position to skip to");
                return Err(self.io_error(error));
            }
            let size = self.options.buffer_size;
            self.buffer.fill(&mut self.input, 1, size).map_err(|error| self.io_error(error))?;
        }
        self.position = position;
        self.chunk_start = position.offset;
        Ok(())
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
            spans: &self.spans,
            dialect: self.rules.dialect,
            number: self.position.record,
            offset: before.offset,
            chunk: before.chunk,
            ends_chunk: self.position.chunk != before.chunk,
        }))
    }

    fn read_header(&mut self) -> Result<(), RecordError> {
        const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
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
            // A record that is too long must not be accepted because the buffer happens to hold it.
            let window = &input[..input.len().min(self.options.max_record + 1)];
            let last = self.buffer.ended && window.len() == input.len();
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
            | RecordErrorKind::NoHeader
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
            kind,
        }
    }

    fn io_error(&self, error: io::Error) -> RecordError {
        let read = self.buffer.pending().len();
        RecordError { column: None, ..self.fault(self.position, read, RecordErrorKind::Io(error)) }
    }
}

/// One record, lent by [`Records`].
#[derive(Clone, Copy)]
pub struct Record<'a> {
    raw: &'a [u8],
    spans: &'a [Span],
    dialect: Dialect,
    number: u64,
    offset: u64,
    chunk: u64,
    ends_chunk: bool,
}

impl<'a> Record<'a> {
    /// The record's number: 1 for the first after the header.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Where it starts, in decoded bytes from the start of the stream.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Its bytes as they stand in the stream, with the line end (which the last record may lack).
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The number of its chunk: 0 for the first.
    pub fn chunk(&self) -> u64 {
        self.chunk
    }

    /// Whether it is the last of its chunk. Not known of the stream's last record, which ends the last chunk.
    pub fn ends_chunk(&self) -> bool {
        self.ends_chunk
    }

    /// How many fields it has: as many as the header.
    pub fn field_count(&self) -> usize {
        self.spans.len()
    }

    /// The field of a column, counted from 0.
    pub fn field(&self, index: usize) -> Option<Field<'a>> {
        self.spans.get(index).map(|span| Field::new(self.raw, *span, self.dialect))
    }

    /// The fields, in the file's order.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = Field<'a>> + use<'a> {
        let (raw, dialect) = (self.raw, self.dialect);
        self.spans.iter().map(move |span| Field::new(raw, *span, dialect))
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("number", &self.number)
            .field("offset", &self.offset)
            .field("len", &self.raw.len())
            .field("fields", &self.spans.len())
            .finish_non_exhaustive()
    }
}

/// One field of a [`Record`].
#[derive(Clone, Copy)]
pub struct Field<'a> {
    /// The field's bytes, and those after them to the end of the record.
    from: &'a [u8],
    len: usize,
    form: Form,
    dialect: Dialect,
}

impl<'a> Field<'a> {
    fn new(record: &'a [u8], span: Span, dialect: Dialect) -> Self {
        let len = (span.end - span.start) as usize;
        Self { from: &record[span.start as usize..], len, form: span.form, dialect }
    }

    pub(crate) fn form(&self) -> Form {
        self.form
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The raw bytes with those after them to the end of the record, and how many the former are.
    pub(crate) fn raw_and_after(&self) -> (&'a [u8], usize) {
        (self.from, self.len)
    }

    /// Whether it is NULL: empty and not quoted.
    pub fn is_null(&self) -> bool {
        self.form == Form::Bare && self.len == 0
    }

    /// Whether it is quoted.
    pub fn is_quoted(&self) -> bool {
        self.form != Form::Bare
    }

    /// Whether its value differs from its raw bytes.
    pub fn needs_unescape(&self) -> bool {
        matches!(self.form, Form::Escaped | Form::Mixed)
    }

    /// Its bytes as they stand in the stream, without the quotes around them. (Under [`Grammar::Server`] a field that
    /// is quoted in part keeps them.)
    pub fn raw(&self) -> &'a [u8] {
        &self.from[..self.len]
    }

    /// Its value, or `None` for NULL. It allocates only if the field [needs it](Self::needs_unescape).
    pub fn value(&self) -> Option<Cow<'a, [u8]>> {
        if self.is_null() {
            None
        } else if self.needs_unescape() {
            let mut value = Vec::with_capacity(self.len);
            self.append_value(&mut value);
            Some(Cow::Owned(value))
        } else {
            Some(Cow::Borrowed(self.raw()))
        }
    }

    /// Appends the value to `out`; nothing for NULL.
    pub fn append_value(&self, out: &mut Vec<u8>) {
        self.for_each_piece(|piece| out.extend_from_slice(piece));
    }

    /// Calls `piece` with slices that make up the value, in order.
    #[inline(always)]
    pub(crate) fn for_each_piece(&self, mut piece: impl FnMut(&'a [u8])) {
        match self.form {
            Form::Bare | Form::Quoted => piece(self.raw()),
            Form::Escaped => {
                unescape(self.raw(), self.dialect, &mut piece);
            }
            Form::Mixed => {
                let (mut rest, quote) = (self.raw(), self.dialect.quote());
                while let Some(open) = memchr(quote, rest) {
                    piece(&rest[..open]);
                    let quoted = &rest[open + 1..];
                    rest = &quoted[unescape(quoted, self.dialect, &mut piece)..];
                }
                piece(rest);
            }
        }
    }
}

impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Field({:?}, {})", self.form, self.raw().escape_ascii())
    }
}

/// Calls `piece` with the slices of a value that starts after an opening quote. Returns how many bytes it took,
/// the closing quote (if there is one) included.
#[inline(always)]
fn unescape<'a>(raw: &'a [u8], dialect: Dialect, piece: &mut impl FnMut(&'a [u8])) -> usize {
    let (quote, escape) = (dialect.quote(), dialect.escape());
    let (mut start, mut at) = (0, 0);
    while let Some(distance) = memchr2(quote, escape, &raw[at..]) {
        let found = at + distance;
        match raw.get(found + 1) {
            // The escaped byte begins the next piece.
            Some(&next) if raw[found] == escape && (next == quote || next == escape) => {
                piece(&raw[start..found]);
                start = found + 1;
                at = found + 2;
            }
            _ if raw[found] == quote => {
                piece(&raw[start..found]);
                return found + 1;
            }
            _ => at = found + 1,
        }
    }
    piece(&raw[start..]);
    raw.len()
}

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
    /// The dialect by which the record was read.
    pub dialect: Dialect,
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
    /// [`RecordOptions::guard`].
    Ambiguous,
    /// The stream ends inside quotes: it was cut off, or is of another dialect.
    Unterminated,
    /// A line end outside quotes of another style than the first one of the file, which PostgreSQL refuses, too.
    MixedNewlines,
    /// The record is longer than [`RecordOptions::max_record`].
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
    /// [`Records::rejected`] has its bytes.
    pub fn is_reject(&self) -> bool {
        use RecordErrorKind::{FieldCount, InvalidUtf8, Nul};
        self.record > 0 && matches!(self.kind, FieldCount { .. } | Nul | InvalidUtf8)
    }

    /// Whether the file is, or may be, of another dialect than the one by which it was read.
    pub fn is_dialect(&self) -> bool {
        matches!(self.kind, RecordErrorKind::Contradiction(_) | RecordErrorKind::Ambiguous)
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
            RecordErrorKind::TooLong { limit } => write!(f, ": longer than {limit} bytes"),
            RecordErrorKind::FieldCount { expected, found } => {
                write!(f, ": {found} fields where the header has {expected}")
            }
            RecordErrorKind::Nul => f.write_str(": a NUL byte, which text in PostgreSQL cannot hold"),
            RecordErrorKind::InvalidUtf8 => f.write_str(": invalid UTF-8"),
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
