use std::borrow::Cow;
use std::io::{BufRead, BufReader, Read, Write};

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::Deserialize;

use super::{ObjectReader, ObjectWriter, put_hex, unhex};
use crate::{Batch, Error, ObjectRef};

/// Writes objects as NDJSON: a line with a JSON object for each, of which the members are `key`, `etag`, `size`,
/// `last_modified` (RFC 3339) and `content` (hexadecimal). What is none is left out. Lines end with a line feed, so no
/// objects are no bytes.
///
/// ```
/// use bulk_s3::{Batch, NdjsonWriter, ObjectRef, ObjectWriter};
///
/// let mut object = ObjectRef::new("say \"hi\"\n");
/// object.size = Some(3);
/// let mut writer = NdjsonWriter::new("objects.ndjson", Vec::new());
/// writer.write(&Batch::from_iter([object]))?;
/// assert_eq!(writer.finish()?, b"{\"key\":\"say \\\"hi\\\"\\n\",\"size\":3}\n");
/// # Ok::<(), bulk_s3::Error>(())
/// ```
#[derive(Debug)]
pub struct NdjsonWriter<W> {
    file: String,
    output: W,
    lines: Vec<u8>,
}

/// Lines are written when so many bytes of them have come together.
const PIECE: usize = 256 << 10;
/// Longer ones are none of objects: a key has 1,024 bytes at most, and each of them may be an escape of six.
const MAX_LINE: usize = 64 << 10;

impl<W: Write> NdjsonWriter<W> {
    /// A writer that has written nothing. `file` names the output in errors.
    pub fn new(file: &str, output: W) -> Self {
        Self { file: file.to_owned(), output, lines: Vec::new() }
    }

    fn send(&mut self) -> Result<(), Error> {
        let sent = self.output.write_all(&self.lines);
        self.lines.clear();
        sent.map_err(|error| self.failed(error))
    }

    #[cold]
    fn failed(&self, error: std::io::Error) -> Error {
        let what = "it cannot be written".to_owned();
        Error::Table { file: self.file.clone(), row: None, byte: None, what, source: Some(Box::new(error)) }
    }
}

impl<W: Write + Send> ObjectWriter for NdjsonWriter<W> {
    type Output = W;

    fn write(&mut self, objects: &Batch) -> Result<(), Error> {
        for object in objects.iter() {
            let lines = &mut self.lines;
            lines.extend_from_slice(b"{\"key\":");
            put(lines, object.key);
            if let Some(etag) = object.etag {
                lines.extend_from_slice(b",\"etag\":");
                put(lines, etag);
            }
            if let Some(size) = object.size {
                lines.extend_from_slice(b",\"size\":");
                put_number(lines, size);
            }
            if let Some(time) = object.last_modified {
                lines.extend_from_slice(b",\"last_modified\":\"");
                // A Vec takes whatever there is.
                let _ = DateTimePrinter::new().print_timestamp(&time, &mut *lines);
                lines.push(b'"');
            }
            if let Some(content) = &object.content {
                lines.extend_from_slice(b",\"content\":\"");
                put_hex(lines, content);
                lines.push(b'"');
            }
            lines.extend_from_slice(b"}\n");
            if self.lines.len() >= PIECE {
                self.send()?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<W, Error> {
        self.send()?;
        self.output.flush().map_err(|error| self.failed(error))?;
        Ok(self.output)
    }
}

/// A JSON string (RFC 8259, section 7).
fn put(lines: &mut Vec<u8>, text: &str) {
    lines.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20)) {
        let (plain, special) = rest.split_at(at);
        lines.extend_from_slice(plain);
        match special[0] {
            byte @ (b'"' | b'\\') => lines.extend([b'\\', byte]),
            b'\n' => lines.extend_from_slice(b"\\n"),
            b'\r' => lines.extend_from_slice(b"\\r"),
            b'\t' => lines.extend_from_slice(b"\\t"),
            byte => {
                lines.extend_from_slice(b"\\u00");
                put_hex(lines, &[byte]);
            }
        }
        rest = &special[1..];
    }
    lines.extend_from_slice(rest);
    lines.push(b'"');
}

fn put_number(lines: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b"0123456789"[(number % 10) as usize];
        number /= 10;
        if number == 0 {
            break;
        }
    }
    lines.extend_from_slice(&digits[start..]);
}

/// Reads objects of NDJSON as [`NdjsonWriter`] writes it: members in any order, of which `key` must be there. Besides those
/// that are written, `bucket` and `seen_at` may be. Lines without anything are passed over; a file whose last line was cut
/// off is an error, and so is whatever else is not understood.
///
/// ```
/// use bulk_s3::{Batch, NdjsonReader, ObjectReader};
///
/// let lines = "{\"key\":\"a//b\",\"size\":1}\n{\"key\":\"c\",\"size\":\"1\"}\n";
/// let mut reader = NdjsonReader::new("objects.ndjson", lines.as_bytes(), None);
/// let mut batch = Batch::new();
/// reader.read(&mut batch, 1)?;
/// assert_eq!(batch.last().unwrap().size, Some(1));
///
/// let error = reader.read(&mut batch, 1).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "objects.ndjson, row 2, byte 44: invalid type: string \"1\", expected u64"
/// );
/// # Ok::<(), bulk_s3::Error>(())
/// ```
#[derive(Debug)]
pub struct NdjsonReader<R> {
    file: String,
    input: BufReader<R>,
    line: Vec<u8>,
    /// Lines that were read, and the bytes of them.
    row: u64,
    at: u64,
    bucket: Option<String>,
    passed_over: u64,
}

/// A line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with a key")]
struct Line<'a> {
    #[serde(borrow)]
    bucket: Option<Text<'a>>,
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    etag: Option<Text<'a>>,
    size: Option<u64>,
    last_modified: Option<Timestamp>,
    #[serde(borrow)]
    content: Option<Text<'a>>,
    #[serde(rename = "seen_at")]
    _seen_at: Option<serde::de::IgnoredAny>,
}

/// Within an `Option`, serde borrows only what says so itself.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<R: Read> NdjsonReader<R> {
    /// A reader that has read nothing. `file` names the input in errors. With a bucket, lines of others are passed over, if
    /// they tell theirs; without one all lines are read.
    pub fn new(file: &str, input: R, bucket: Option<&str>) -> Self {
        Self {
            file: file.to_owned(),
            input: BufReader::with_capacity(PIECE, input),
            line: Vec::new(),
            row: 0,
            at: 0,
            bucket: bucket.map(str::to_owned),
            passed_over: 0,
        }
    }

    /// Reads the next line that has anything; says whether there is one.
    fn next(&mut self) -> Result<bool, Error> {
        loop {
            self.at += self.line.len() as u64;
            self.line.clear();
            self.row += 1;
            let mut input = self.input.by_ref().take(MAX_LINE as u64 + 1);
            let read = input.read_until(b'\n', &mut self.line);
            read.map_err(|error| self.failed(0, "it cannot be read".to_owned(), Some(error)))?;
            if self.line.len() > MAX_LINE {
                return Err(self.failed(0, "it is longer than 64 KiB, and so no object".to_owned(), None));
            }
            if self.line.is_empty() || !self.line.trim_ascii().is_empty() {
                return Ok(!self.line.is_empty());
            }
        }
    }

    #[cold]
    fn failed(&self, offset: usize, what: String, source: Option<std::io::Error>) -> Error {
        let source = source.map(|error| Box::new(error) as _);
        Error::Table { file: self.file.clone(), row: Some(self.row), byte: Some(self.at + offset as u64), what, source }
    }

    /// What serde says, without the place in its text, which is told as one in the file. The text begins `skipped` bytes
    /// behind the line.
    #[cold]
    fn no_object(&self, skipped: usize, error: &serde_json::Error) -> Error {
        if error.is_eof() {
            let end = self.line.trim_ascii_end().len();
            return self.failed(end, "the line ends within the object: it is cut off".to_owned(), None);
        }
        let text = error.to_string();
        let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        self.failed(skipped + error.column().saturating_sub(1), what.to_owned(), None)
    }
}

impl<R: Read + Send> ObjectReader for NdjsonReader<R> {
    fn read(&mut self, batch: &mut Batch, limit: usize) -> Result<(), Error> {
        let mut left = limit.max(1);
        while left > 0 && self.next()? {
            let text = simdutf8::compat::from_utf8(&self.line)
                .map_err(|error| self.failed(error.valid_up_to(), "it is no UTF-8".to_owned(), None))?;
            // A mark of the byte order at the file's start, as some programs write it.
            let text = if self.row == 1 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
            let line: Line<'_> =
                serde_json::from_str(text).map_err(|error| self.no_object(self.line.len() - text.len(), &error))?;
            if let (Some(wanted), Some(Text(bucket))) = (&self.bucket, &line.bucket)
                && bucket != wanted
            {
                self.passed_over += 1;
                continue;
            }
            if line.key.is_empty() {
                return Err(self.failed(0, "it has no key".to_owned(), None));
            }
            let mut object = ObjectRef::new(&line.key);
            object.etag = line.etag.as_ref().map(|Text(etag)| &**etag);
            object.size = line.size;
            object.last_modified = line.last_modified;
            let bad = |digest: &str| {
                self.failed(0, format!("its content is {digest:?}, and must be 64 hexadecimal digits"), None)
            };
            let digest = |Text(digest): &Text<'_>| unhex(digest.as_bytes()).ok_or_else(|| bad(digest));
            object.content = line.content.as_ref().map(digest).transpose()?;
            batch.push(object);
            left -= 1;
        }
        Ok(())
    }

    fn passed_over(&self) -> u64 {
        self.passed_over
    }
}
