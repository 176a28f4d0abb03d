//! CSV: the records do not depend on how their bytes arrive, nor on where reading was taken up; and what `detect` says of a
//! file is what its reader finds.

use std::io::Read;

use bulk_pg::{CopyText, Dialect, Grammar, Header, Position, Quoting, RecordOptions, Records, Source, detect};

use crate::{Take, Trickle};

/// What came of reading one record, and where its reader stood then.
type ReadRecord = (Result<Vec<u8>, String>, Position);

/// The borders at which reading is taken up again, at most.
const RESUMED: usize = 12;

/// See the module.
pub fn target(data: &[u8]) {
    let mut take = Take::new(data);
    let other = Dialect::new(b';', b'\'', b'~', Quoting::AsNeeded).expect("three bytes that can be told apart");
    let dialect = take.one_of(&[Dialect::A, Dialect::B, Dialect::C, Dialect::D, other]);
    let choices = take.byte();
    let mut options = RecordOptions::default();
    options.grammar = if choices & 1 == 0 { Grammar::Strict } else { Grammar::Server };
    options.guard = choices & 2 != 0;
    options.chunk_size = u64::from(take.byte());
    if choices & 4 != 0 {
        options.max_record = usize::from(take.byte());
    }
    let mut small = options.clone();
    small.buffer_size = 1 + usize::from(take.byte());
    let sizes = [usize::from(take.byte()), usize::from(take.byte())];
    let csv = take.rest();

    let whole = read(csv, dialect, &options);
    assert_eq!(read(Trickle::new(csv, sizes), dialect, &small), whole);
    if let Ok((header, start, records)) = &whole {
        let mut before = *start;
        let mut left = RESUMED;
        for (number, (_, after)) in records.iter().enumerate() {
            assert!(after.offset >= before.offset && after.offset <= csv.len() as u64);
            if after.chunk != before.chunk && left > 0 && !options.guard {
                left -= 1;
                assert_eq!(after.record, number as u64 + 1);
                let rest = Trickle::new(&csv[after.offset as usize..], sizes);
                let resumed = Records::resume(rest, dialect, header.clone(), *after, small.clone());
                assert_eq!(rows(resumed), records[number + 1..]);
            }
            before = *after;
        }
        // A reader that ends without an error has read all.
        if records.last().is_none_or(|(row, _)| row.is_ok()) {
            assert_eq!(before.offset, csv.len() as u64);
        }
    }
    detected(csv);
}

/// The dialect that the content tells reads as many records as were counted, and none of them contradicts it.
fn detected(csv: &[u8]) {
    let _ = detect(csv, false, None);
    let Ok(verdict) = detect(csv, true, None) else { return };
    let Ok(mut records) = Records::new(csv, verdict.dialect, RecordOptions::default()) else { return };
    let mut count = 0;
    loop {
        match records.next_record() {
            Ok(None) => break,
            Ok(Some(_)) => count += 1,
            Err(error) => {
                assert!(error.is_reject(), "{verdict:?}, and {error}");
                count += 1;
            }
        }
    }
    assert_eq!(count, verdict.records, "{verdict:?}");
}

fn read(
    input: impl Read,
    dialect: Dialect,
    options: &RecordOptions,
) -> Result<(Header, Position, Vec<ReadRecord>), String> {
    let records = Records::new(input, dialect, options.clone()).map_err(|error| error.to_string())?;
    let (header, start) = (records.header().clone(), records.position());
    assert_eq!(start.offset, header.end());
    Ok((header, start, rows(records)))
}

fn rows(mut records: Records<impl Read>) -> Vec<ReadRecord> {
    let fields = records.header().names().len();
    let all: Vec<_> = (0..fields).map(Source::Field).collect();
    let encoder = CopyText::new(&all, fields).expect("the fields are there");
    let mut rows = Vec::new();
    loop {
        let (row, is_fatal) = match records.next_record() {
            Ok(None) => return rows,
            Ok(Some(record)) => {
                let place = (record.number(), record.offset(), record.chunk(), record.ends_chunk());
                let mut row = format!("{place:?} ").into_bytes();
                let start = row.len();
                encoder.append(&record, &mut row);
                let values = record.fields().map(|field| field.value().map(|value| value.into_owned()));
                assert_eq!(decode(&row[start..]), values.collect::<Vec<_>>());
                (Ok(row), false)
            }
            Err(error) => (Err(error.to_string()), !error.is_reject()),
        };
        rows.push((row, records.position()));
        if is_fatal {
            return rows;
        }
    }
}

/// The values of a row of COPY's text (PostgreSQL manual, COPY, "Text Format").
fn decode(row: &[u8]) -> Vec<Option<Vec<u8>>> {
    let row = row.strip_suffix(b"\n").expect("a line feed ends a row");
    let value = |field: &[u8]| {
        if field == b"\\N" {
            return None;
        }
        let (mut value, mut rest) = (Vec::new(), field);
        while let [byte, after @ ..] = rest {
            rest = after;
            let byte = match (byte, rest) {
                (b'\\', [escaped, after @ ..]) => {
                    rest = after;
                    match escaped {
                        b'b' => 8,
                        b't' => b'\t',
                        b'n' => b'\n',
                        b'v' => 11,
                        b'f' => 12,
                        b'r' => b'\r',
                        b'\\' => b'\\',
                        other => panic!("an escape that none wrote: {other}"),
                    }
                }
                (byte, _) => *byte,
            };
            value.push(byte);
        }
        Some(value)
    };
    row.split(|byte| *byte == b'\t').map(value).collect()
}
