//! CSV as PostgreSQL writes it, by a writer of a few lines, and what is likely to go wrong in it.

#![allow(dead_code, unreachable_pub, reason = "each test program takes what it needs")]

use std::io::{self, Read};

use bulk_pg::{Dialect, Header, Quoting, RecordError, RecordOptions, Records};

pub type Value = Option<Vec<u8>>;
pub type Row = Vec<Value>;

/// What is likely to go wrong.
pub const ATOMS: [&str; 27] = [
    "\"",
    "\"\"",
    "\\",
    "\\\\",
    "\\\"",
    "\\.",
    "\n\\.\n",
    "\\N",
    "\n",
    "\r\n",
    "\r",
    "\t",
    ",",
    ";",
    "`",
    "``",
    "é",
    "😀",
    "\u{8}",
    "\u{b}",
    "\u{c}",
    "\u{1}",
    " ",
    "a",
    "1",
    "a long stretch of plain text, longer than any word or block that is looked at in one piece; and then some more of it",
    "0123456789abcdef0123456789abcde",
];

pub const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

pub fn semicolons() -> Dialect {
    Dialect::new(b';', b'\'', b'~', Quoting::AsNeeded).unwrap()
}

pub fn options(buffer_size: usize) -> RecordOptions {
    let mut options = RecordOptions::default();
    options.buffer_size = buffer_size;
    options
}

pub fn row<const N: usize>(values: [&str; N]) -> Row {
    values.map(|value| Some(value.into())).into()
}

pub fn read_all(input: impl Read, dialect: Dialect, options: RecordOptions) -> Result<(Header, Vec<Row>), RecordError> {
    let mut records = Records::new(input, dialect, options)?;
    let mut rows = Vec::new();
    while let Some(record) = records.next_record()? {
        rows.push(record.fields().map(|field| field.value().map(|value| value.into_owned())).collect());
    }
    Ok((records.header().clone(), rows))
}

/// Writes CSV as `COPY TO` does.
pub fn write(dialect: Dialect, names: &[&str], rows: &[Row], newline: &str) -> Vec<u8> {
    let delimiter = [dialect.delimiter()];
    let mut csv = names.join(std::str::from_utf8(&delimiter).unwrap()).into_bytes();
    csv.extend_from_slice(newline.as_bytes());
    for row in rows {
        for (index, value) in row.iter().enumerate() {
            if index > 0 {
                csv.push(dialect.delimiter());
            }
            let Some(value) = value else { continue };
            let special = |byte: &u8| [dialect.delimiter(), dialect.quote(), b'\n', b'\r'].contains(byte);
            if dialect.quoting() == Quoting::AsNeeded && !value.is_empty() && !value.iter().any(special) {
                csv.extend_from_slice(value);
                continue;
            }
            csv.push(dialect.quote());
            for &byte in value {
                if byte == dialect.quote() || byte == dialect.escape() {
                    csv.push(dialect.escape());
                }
                csv.push(byte);
            }
            csv.push(dialect.quote());
        }
        csv.extend_from_slice(newline.as_bytes());
    }
    csv
}

/// Reads COPY's text format.
pub fn decode_copy_text(text: &[u8]) -> Vec<Row> {
    let lines = text.split_inclusive(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\n").unwrap());
    let decode = |column: &[u8]| {
        if column == b"\\N" {
            return None;
        }
        let mut value = Vec::new();
        let mut bytes = column.iter();
        while let Some(&byte) = bytes.next() {
            value.push(match byte {
                b'\\' => match bytes.next().unwrap() {
                    b'b' => 8,
                    b't' => 9,
                    b'n' => 10,
                    b'v' => 11,
                    b'f' => 12,
                    b'r' => 13,
                    b'\\' => b'\\',
                    other => panic!("\\{}", *other as char),
                },
                8..=13 => panic!("a raw control character"),
                byte => byte,
            });
        }
        Some(value)
    };
    lines.map(|line| line.split(|byte| *byte == b'\t').map(decode).collect()).collect()
}

/// Gives between one and `most` bytes a read.
pub struct Trickle<'a> {
    rest: &'a [u8],
    most: usize,
    seed: u64,
}

impl<'a> Trickle<'a> {
    pub fn new(rest: &'a [u8], most: usize) -> Self {
        Self { rest, most, seed: 1 }
    }
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let random = next_random(&mut self.seed) as usize;
        if random.is_multiple_of(7) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = (1 + random % self.most).min(buffer.len());
        self.rest.read(&mut buffer[..len])
    }
}

/// A linear congruential generator's upper bits.
pub fn next_random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    *seed >> 33
}
