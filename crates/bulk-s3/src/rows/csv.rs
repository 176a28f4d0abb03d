use std::io::{BufRead, BufReader, Read, Write};

use jiff::Timestamp;

use super::{COLUMNS, ObjectReader, ObjectWriter, check_names, put_hex, unhex};
use crate::counted::counted;
use crate::{Batch, Error, ObjectRef};

/// Writes objects as CSV (RFC 4180): a header with the columns `bucket`, `key`, `etag`, `size`, `last_modified` (RFC 3339)
/// and `content` (hexadecimal), then a row for each. What is none is a field without anything, what is empty one of two
/// quotes. Lines end with a line feed.
///
/// ```
/// use bulk_s3::{Batch, CsvWriter, ObjectRef, ObjectWriter};
///
/// let mut object = ObjectRef::new("say \"hi\",\nthere");
/// object.size = Some(3);
/// let mut writer = CsvWriter::new("objects.csv", Vec::new(), "my-bucket")?;
/// writer.write(&Batch::from_iter([object]))?;
/// let csv = writer.finish()?;
/// assert_eq!(csv, b"bucket,key,etag,size,last_modified,content\nmy-bucket,\"say \"\"hi\"\",\nthere\",,3,,\n");
/// # Ok::<(), bulk_s3::Error>(())
/// ```
#[derive(Debug)]
pub struct CsvWriter<W> {
    file: String,
    output: W,
    bucket: String,
    rows: Vec<u8>,
}

impl<W: Write> CsvWriter<W> {
    /// Writes the header. `file` names the output in errors.
    ///
    /// # Errors
    ///
    /// [`Error::Table`].
    pub fn new(file: &str, output: W, bucket: &str) -> Result<Self, Error> {
        let mut writer =
            Self { file: file.to_owned(), output, bucket: bucket.to_owned(), rows: COLUMNS.join(",").into_bytes() };
        writer.rows.push(b'\n');
        writer.send()?;
        Ok(writer)
    }

    fn send(&mut self) -> Result<(), Error> {
        let sent = self.output.write_all(&self.rows);
        self.rows.clear();
        sent.map_err(|error| self.failed(error))
    }

    #[cold]
    fn failed(&self, error: std::io::Error) -> Error {
        let what = "it cannot be written".to_owned();
        Error::Table { file: self.file.clone(), row: None, byte: None, what, source: Some(Box::new(error)) }
    }
}

/// Rows are written when so many bytes of them have come together.
const PIECE: usize = 256 << 10;

impl<W: Write + Send> ObjectWriter for CsvWriter<W> {
    type Output = W;

    fn write(&mut self, objects: &Batch) -> Result<(), Error> {
        for object in objects.iter() {
            let rows = &mut self.rows;
            put(rows, &self.bucket);
            rows.push(b',');
            put(rows, object.key);
            rows.push(b',');
            object.etag.inspect(|etag| put(rows, etag));
            rows.push(b',');
            object.size.inspect(|size| rows.extend_from_slice(size.to_string().as_bytes()));
            rows.push(b',');
            object.last_modified.inspect(|time| rows.extend_from_slice(time.to_string().as_bytes()));
            rows.push(b',');
            object.content.inspect(|content| put_hex(rows, content));
            rows.push(b'\n');
            if self.rows.len() >= PIECE {
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

fn put(rows: &mut Vec<u8>, text: &str) {
    let is_special = |byte: u8| matches!(byte, b',' | b'"' | b'\n' | b'\r');
    if !text.is_empty() && !text.bytes().any(is_special) {
        rows.extend_from_slice(text.as_bytes());
        return;
    }
    rows.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' {
            rows.push(b'"');
        }
        rows.push(byte);
    }
    rows.push(b'"');
}

/// Reads objects of CSV as [`CsvWriter`] writes it: columns in any order, of which `key` must be there. The grammar is
/// strict, and a file that was cut off within a row is an error: what is not understood is not guessed at.
///
/// ```
/// use bulk_s3::{Batch, CsvReader, ObjectReader, ObjectRef};
///
/// let csv = "etag,key\nd41d,a//b\n,\"a\"\"b\"\n";
/// let mut reader = CsvReader::new("objects.csv", csv.as_bytes(), None)?;
/// let mut batch = Batch::new();
/// reader.read(&mut batch, 10)?;
/// assert_eq!(batch.get(1), Some(ObjectRef::new("a\"b")));
///
/// let mut cut_off = CsvReader::new("objects.csv", &csv.as_bytes()[..csv.len() - 2], None)?;
/// let error = cut_off.read(&mut batch, 10).unwrap_err();
/// assert_eq!(error.to_string(), "objects.csv, row 2, byte 19: the file ends within quotes: it is cut off");
/// # Ok::<(), bulk_s3::Error>(())
/// ```
#[derive(Debug)]
pub struct CsvReader<R> {
    file: String,
    records: Records<BufReader<R>>,
    /// The place of each column, in the order of [`COLUMNS`].
    places: [Option<usize>; COLUMNS.len()],
    width: usize,
    bucket: Option<String>,
    passed_over: u64,
}

impl<R: Read> CsvReader<R> {
    /// Reads the header. `file` names the input in errors. With a bucket, rows of others are passed over, if there is a
    /// column that tells; without one all rows are read.
    ///
    /// # Errors
    ///
    /// [`Error::Table`].
    pub fn new(file: &str, input: R, bucket: Option<&str>) -> Result<Self, Error> {
        let mut reader = Self {
            file: file.to_owned(),
            records: Records::new(BufReader::with_capacity(PIECE, input)),
            places: [None; COLUMNS.len()],
            width: 0,
            bucket: bucket.map(str::to_owned),
            passed_over: 0,
        };
        let has_header = reader.records.next().map_err(|fault| reader.at_row(fault))?;
        let at_header =
            |what: String| Error::Table { file: file.to_owned(), row: None, byte: None, what, source: None };
        if !has_header {
            return Err(at_header("there is nothing in it, not even a header".to_owned()));
        }
        let names: Vec<_> = (0..reader.records.len()).filter_map(|place| reader.records.field(place)).collect();
        let names: Vec<_> = names.into_iter().map(String::from_utf8_lossy).collect();
        check_names(names.iter().map(AsRef::as_ref)).map_err(at_header)?;
        reader.width = reader.records.len();
        if names.len() != reader.width {
            return Err(at_header("a column has no name".to_owned()));
        }
        let places = COLUMNS.map(|column| names.iter().position(|name| name == column));
        reader.places = places;
        Ok(reader)
    }

    #[cold]
    fn at_row(&self, fault: Fault) -> Error {
        let (what, source) = match fault {
            Fault::Input(error) => ("it cannot be read".to_owned(), Some(Box::new(error) as _)),
            Fault::Record(what) => (what, None),
        };
        let row = self.records.row.checked_sub(1).filter(|row| *row > 0);
        Error::Table { file: self.file.clone(), row, byte: Some(self.records.start), what, source }
    }
}

impl<R: Read + Send> ObjectReader for CsvReader<R> {
    fn read(&mut self, batch: &mut Batch, limit: usize) -> Result<(), Error> {
        let mut left = limit.max(1);
        while left > 0 {
            if !self.records.next().map_err(|fault| self.at_row(fault))? {
                break;
            }
            match self.object() {
                Ok(Some(object)) => {
                    batch.push(object);
                    left -= 1;
                }
                Ok(None) => self.passed_over += 1,
                Err(what) => return Err(self.at_row(Fault::Record(what))),
            }
        }
        Ok(())
    }

    fn passed_over(&self) -> u64 {
        self.passed_over
    }
}

impl<R: Read> CsvReader<R> {
    /// The object of the row; none if it is of another bucket.
    fn object(&self) -> Result<Option<ObjectRef<'_>>, String> {
        let found = self.records.len();
        if found != self.width {
            return Err(format!("it has {}, and the header {}", counted(found, "field", "fields"), self.width));
        }
        let [bucket, key, etag, size, last_modified, content] = self.places.map(|place| self.records.field(place?));
        if let (Some(wanted), Some(_)) = (&self.bucket, self.places[0])
            && bucket.unwrap_or_default() != wanted.as_bytes()
        {
            return Ok(None);
        }
        fn text<'a>(column: &str, value: &'a [u8]) -> Result<&'a str, String> {
            std::str::from_utf8(value).map_err(|_| format!("its {column} is no UTF-8: {}", value.escape_ascii()))
        }
        let mut object = ObjectRef::new(text("key", key.unwrap_or_default())?);
        if object.key.is_empty() {
            return Err("it has no key".to_owned());
        }
        object.etag = etag.map(|etag| text("etag", etag)).transpose()?;
        fn parsed<T: std::str::FromStr>(column: &str, wanted: &str, value: &[u8]) -> Result<T, String> {
            let value = String::from_utf8_lossy(value);
            value.parse().map_err(|_| format!("its {column} is {value:?}, and must be {wanted}"))
        }
        object.size = size.map(|size| parsed("size", "a number of bytes", size)).transpose()?;
        let time = |time| parsed::<Timestamp>("last_modified", "a time such as 2024-01-31T12:00:00Z", time);
        object.last_modified = last_modified.map(time).transpose()?;
        let bad =
            |digest: &[u8]| format!("its content is \"{}\", and must be 64 hexadecimal digits", digest.escape_ascii());
        object.content = content.map(|digest| unhex(digest).ok_or_else(|| bad(digest))).transpose()?;
        Ok(Some(object))
    }
}

/// Records of CSV.
#[derive(Debug)]
pub(super) struct Records<R> {
    input: R,
    /// The fields of the record, one behind the other.
    text: Vec<u8>,
    /// Where each ends, and whether there is anything, be it two quotes.
    fields: Vec<(usize, bool)>,
    /// How many bytes of a [`MARK`] the file begins with, as far as it is read; all of them, if it is known to have none.
    marked: usize,
    /// Bytes that are read.
    at: u64,
    /// Where the record starts.
    pub(super) start: u64,
    /// The record's number, from 1; the header is the first.
    pub(super) row: u64,
}

#[derive(Debug)]
pub(super) enum Fault {
    Input(std::io::Error),
    Record(String),
}

/// The mark of the byte order, as some programs write it at a file's start.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// Longer ones are none of objects: a key has 1,024 bytes at most, and each of them may be a quote.
const MAX_RECORD: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the start of a field.
    Start,
    Bare,
    Quoted,
    /// Behind a quote within quotes: it ends them, or another one follows.
    Quote,
    /// Behind a carriage return.
    Return,
}

impl<R: BufRead> Records<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, text: Vec::new(), fields: Vec::new(), marked: 0, at: 0, start: 0, row: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    /// A field of the record, unless there is nothing in it.
    pub(super) fn field(&self, place: usize) -> Option<&[u8]> {
        let &(end, is_there) = self.fields.get(place)?;
        let start = place.checked_sub(1).map_or(0, |before| self.fields[before].0);
        is_there.then(|| &self.text[start..end])
    }

    /// Reads the next record; says whether there is one.
    pub(super) fn next(&mut self) -> Result<bool, Fault> {
        self.text.clear();
        self.fields.clear();
        (self.start, self.row) = (self.at, self.row + 1);
        let mut state = State::Start;
        let mut is_quoted = false;
        let record = |what: &str| Err(Fault::Record(what.to_owned()));
        loop {
            let buffer = match self.input.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Fault::Input(error)),
            };
            if buffer.is_empty() {
                if (1..MARK.len()).contains(&self.marked) {
                    self.text.extend_from_slice(&MARK[..self.marked]);
                    (self.marked, state) = (MARK.len(), State::Bare);
                }
                return match state {
                    State::Start if self.fields.is_empty() => Ok(false),
                    State::Quoted => record("the file ends within quotes: it is cut off"),
                    State::Return => {
                        record("a carriage return stands without quotes, and without a line feed behind it")
                    }
                    State::Start | State::Bare | State::Quote => {
                        self.fields.push((self.text.len(), is_quoted || state == State::Bare));
                        Ok(true)
                    }
                };
            }
            let mut skipped = 0;
            // It may come byte by byte.
            while self.marked < MARK.len() && buffer.get(skipped) == Some(&MARK[self.marked]) {
                (skipped, self.marked) = (skipped + 1, self.marked + 1);
            }
            if self.marked < MARK.len() && skipped < buffer.len() {
                if self.marked > 0 {
                    self.text.extend_from_slice(&MARK[..self.marked]);
                    state = State::Bare;
                }
                self.marked = MARK.len();
            }
            let mut used = skipped;
            let mut is_done = false;
            for &byte in &buffer[skipped..] {
                used += 1;
                state = match (state, byte) {
                    (State::Quoted, b'"') => State::Quote,
                    (State::Quoted, byte) => {
                        self.text.push(byte);
                        State::Quoted
                    }
                    (State::Quote, b'"') => {
                        self.text.push(b'"');
                        State::Quoted
                    }
                    (State::Start, b'"') => {
                        is_quoted = true;
                        State::Quoted
                    }
                    (State::Return, b'\n') | (State::Start | State::Bare | State::Quote, b'\n') => {
                        if state != State::Return {
                            self.fields.push((self.text.len(), is_quoted || state == State::Bare));
                        }
                        is_done = true;
                        break;
                    }
                    (State::Return, _) => {
                        return record("a carriage return stands without quotes, and without a line feed behind it");
                    }
                    (State::Start | State::Bare | State::Quote, b',' | b'\r') => {
                        self.fields.push((self.text.len(), is_quoted || state == State::Bare));
                        is_quoted = false;
                        if byte == b',' { State::Start } else { State::Return }
                    }
                    (State::Quote, _) => return record("something stands behind the quotes of a field"),
                    (State::Bare, b'"') => return record("a quote stands within a field that has none around it"),
                    (State::Start | State::Bare, byte) => {
                        self.text.push(byte);
                        State::Bare
                    }
                };
            }
            self.input.consume(used);
            self.at += used as u64;
            if self.text.len() > MAX_RECORD || self.fields.len() > MAX_RECORD {
                return record("it is longer than 64 KiB, and so no object");
            }
            if is_done {
                return Ok(true);
            }
        }
    }
}
