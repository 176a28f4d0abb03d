//! Records whose text PostgreSQL cannot hold, made into ones that it can.

use memchr::memchr;

use crate::Record;
use crate::scan::{Form, Span};

/// So many repaired records of a call are named to its observer.
pub(crate) const NAMED: u64 = 10;

/// A record with the values of another one, each without its NUL characters and with U+FFFD for what is not UTF-8.
///
/// The values are repaired and not the bytes of the file, so that no field, quote or record can end elsewhere by it. A value
/// of nothing but NULs becomes the empty string, and not NULL.
pub(crate) struct Repaired {
    /// The values, one after the other.
    raw: Vec<u8>,
    spans: Vec<Span>,
}

impl Repaired {
    /// `None` if it would be longer than so many bytes: a byte may become three.
    pub(crate) fn new(record: &Record<'_>, longest: usize) -> Option<Self> {
        let longest = longest.min(u32::MAX as usize);
        let mut raw = Vec::with_capacity(record.raw().len());
        let mut spans = Vec::with_capacity(record.field_count());
        for field in record.fields() {
            let start = raw.len();
            let form = if field.is_null() { Form::Bare } else { Form::Quoted };
            append_text(&field.value().unwrap_or_default(), &mut raw);
            if raw.len() > longest {
                return None;
            }
            spans.push(Span { start: start as u32, end: raw.len() as u32, form });
        }
        Some(Self { raw, spans })
    }

    /// It, in the place of the one that it was made of.
    pub(crate) fn in_place_of<'a>(&'a self, record: &Record<'a>) -> Record<'a> {
        Record { text: &self.raw, spans: &self.spans, ..*record }
    }
}

/// As [`String::from_utf8_lossy`], without the NULs.
fn append_text(value: &[u8], out: &mut Vec<u8>) {
    for chunk in value.utf8_chunks() {
        out.extend(chunk.valid().bytes().filter(|byte| *byte != 0));
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Whether a record needs no repair.
pub(crate) fn is_text(raw: &[u8]) -> bool {
    memchr(0, raw).is_none() && simdutf8::basic::from_utf8(raw).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Dialect, Header, Position, RecordOptions, Records};

    /// The values of a line, repaired if it has to be.
    fn repaired(dialect: Dialect, line: &[u8], columns: usize, longest: usize) -> Option<Vec<Option<Vec<u8>>>> {
        let header = Header::new(vec!["c".to_owned(); columns]);
        let mut records = Records::resume(line, dialect, header, Position::default(), RecordOptions::default());
        let error = match records.next_record() {
            Ok(record) => return Some(values(&record.unwrap())),
            Err(error) => error,
        };
        assert!(!is_text(line));
        let bad = records.bad_text(&error).unwrap_or_else(|| panic!("{error}"));
        assert_eq!((bad.number(), bad.raw(), bad.ends_chunk()), (1, line, false));
        Repaired::new(&bad, longest).map(|repaired| values(&repaired.in_place_of(&bad)))
    }

    fn values(record: &Record<'_>) -> Vec<Option<Vec<u8>>> {
        record.fields().map(|field| field.value().map(|value| value.into_owned())).collect()
    }

    #[test]
    fn values_are_repaired_and_null_stays_null() {
        let line = b"\0,,\"\",\"a\"\"\0\"\"b\",caf\xe9,\xc3\0\xa9\n";
        let values: Vec<_> = repaired(Dialect::CSV, line, 6, 100).unwrap();
        let values: Vec<_> = values.iter().map(|value| value.as_deref().map(|v| str::from_utf8(v).unwrap())).collect();
        assert_eq!(values, [Some(""), None, Some(""), Some("a\"\"b"), Some("caf\u{fffd}"), Some("\u{fffd}\u{fffd}")]);
        // Sixteen bytes.
        assert!(repaired(Dialect::CSV, line, 6, 16).is_some());
        assert!(repaired(Dialect::CSV, line, 6, 15).is_none());
    }

    proptest! {
        /// Any bytes, written as a dialect writes them.
        #[test]
        fn every_value_becomes_what_the_standard_library_makes_of_it(
            written in prop::collection::vec(
                prop::option::of(prop::collection::vec(
                    prop_oneof![Just(0_u8), Just(b'"'), Just(b'\\'), Just(b'\n'), Just(b','), any::<u8>()], 0..12,
                )),
                2..5,
            ),
            dialect in prop::sample::select(&Dialect::ERAS[..]),
        ) {
            let mut line = Vec::new();
            for (place, value) in written.iter().enumerate() {
                if place > 0 {
                    line.push(dialect.delimiter());
                }
                let Some(value) = value else { continue };
                line.push(dialect.quote());
                for &byte in value {
                    if byte == dialect.quote() || byte == dialect.escape() {
                        line.push(dialect.escape());
                    }
                    line.push(byte);
                }
                line.push(dialect.quote());
            }
            line.push(b'\n');
            let expected: Vec<_> = written
                .iter()
                .map(|value| value.as_ref().map(|v| String::from_utf8_lossy(v).replace('\0', "").into_bytes()))
                .collect();
            prop_assert_eq!(repaired(dialect, &line, written.len(), 1000).unwrap(), expected);
        }
    }
}
