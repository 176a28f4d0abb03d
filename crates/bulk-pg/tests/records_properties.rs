//! Records and COPY text of random tables, against writers and decoders of their own: a small one here, and Python's csv
//! module. The server's own reader is in `against_server.rs`.

#[path = "support/csv.rs"]
mod csv;

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use bulk_pg::{CopyText, Dialect, Grammar, Position, RecordErrorKind, Records, Source};
use csv::{ATOMS, NAMES, Row, Trickle, Value, decode_copy_text, next_random, options, read_all, semicolons, write};
use proptest::collection::vec;
use proptest::prelude::*;

fn value() -> impl Strategy<Value = Value> {
    let nasty = vec(prop::sample::select(&ATOMS[..]), 0..5).prop_map(|atoms| Some(atoms.concat().into_bytes()));
    let any = "[^\0]{0,20}".prop_map(|text| Some(text.into_bytes()));
    prop_oneof![1 => Just(None), 6 => nasty, 2 => any]
}

fn table() -> impl Strategy<Value = Vec<Row>> {
    (1usize..5).prop_flat_map(|width| vec(vec(value(), width), 0..20))
}

fn any_dialect() -> impl Strategy<Value = Dialect> {
    prop::sample::select(vec![Dialect::A, Dialect::B, Dialect::C, Dialect::D, semicolons()])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_written_is_read(
        rows in table(),
        dialect in any_dialect(),
        newline in prop::sample::select(vec!["\n", "\r", "\r\n"]),
        buffer_size in 1usize..200,
        read_size in 1usize..50,
        last_line_end in any::<bool>(),
    ) {
        let names = &NAMES[..rows.first().map_or(1, Vec::len)];
        let mut csv = write(dialect, names, &rows, newline);
        // Without its line end a last line of one NULL would be no line.
        if !last_line_end && rows.last() != Some(&vec![None]) {
            csv.truncate(csv.len() - newline.len());
        }
        for grammar in [Grammar::Strict, Grammar::Server] {
            let mut options = options(buffer_size);
            options.grammar = grammar;
            let mut records = Records::new(Trickle::new(&csv, read_size), dialect, options).unwrap();
            let mut offset = records.header().end();
            let mut read = Vec::new();
            while let Some(record) = records.next_record().unwrap() {
                prop_assert_eq!(record.number(), read.len() as u64 + 1);
                prop_assert_eq!(record.offset(), offset);
                prop_assert_eq!(record.raw(), &csv[offset as usize..][..record.raw().len()]);
                offset += record.raw().len() as u64;
                read.push(record.fields().map(|field| field.value().map(|value| value.into_owned())).collect::<Row>());
            }
            prop_assert_eq!(offset, csv.len() as u64);
            prop_assert_eq!(&read, &rows);
        }
    }

    #[test]
    fn copy_text_holds_the_values(rows in table(), dialect in any_dialect(), server in any::<bool>()) {
        let width = rows.first().map_or(1, Vec::len);
        let csv = write(dialect, &NAMES[..width], &rows, "\n");
        let mut options = options(100);
        options.grammar = if server { Grammar::Server } else { Grammar::Strict };
        let columns: Vec<Source> = (0..width).rev().map(Source::Field).chain([Source::Null]).collect();
        let encoder = CopyText::new(&columns, width).unwrap();
        let mut records = Records::new(&csv[..], dialect, options).unwrap();
        let mut text = Vec::new();
        while let Some(record) = records.next_record().unwrap() {
            encoder.append(&record, &mut text);
        }
        let expected: Vec<Row> = rows.iter().map(|row| row.iter().rev().cloned().chain([None]).collect()).collect();
        prop_assert_eq!(decode_copy_text(&text), expected);
    }

    #[test]
    fn chunks_depend_on_the_bytes_alone(
        rows in table(),
        dialect in any_dialect(),
        chunk_size in 0u64..100,
        buffer_size in 1usize..200,
        read_size in 1usize..50,
    ) {
        let csv = write(dialect, &NAMES[..rows.first().map_or(1, Vec::len)], &rows, "\r\n");
        let mut whole = options(1 << 20);
        whole.chunk_size = chunk_size;
        let mut records = Records::new(&csv[..], dialect, whole.clone()).unwrap();
        let header = records.header().clone();
        let mut starts = vec![records.position()];
        let mut all = Vec::new();
        let mut chunk_start = header.end();
        while let Some(record) = records.next_record().unwrap() {
            let end = record.offset() + record.raw().len() as u64;
            prop_assert_eq!(record.ends_chunk(), end >= chunk_start + chunk_size);
            prop_assert_eq!(record.chunk(), starts.len() as u64 - 1);
            let place = (record.number(), record.offset(), record.chunk(), record.ends_chunk());
            all.push((place, record.raw().to_vec()));
            if record.ends_chunk() {
                chunk_start = end;
                starts.push(Position { offset: end, record: all.len() as u64, chunk: starts.len() as u64 });
                prop_assert_eq!(records.position(), *starts.last().unwrap());
            }
        }
        let mut small = options(buffer_size);
        small.chunk_size = chunk_size;
        for start in starts {
            let input = Trickle::new(&csv[start.offset as usize..], read_size);
            let mut resumed = Records::resume(input, dialect, header.clone(), start, small.clone());
            let mut rest = Vec::new();
            while let Some(record) = resumed.next_record().unwrap() {
                let place = (record.number(), record.offset(), record.chunk(), record.ends_chunk());
                rest.push((place, record.raw().to_vec()));
            }
            prop_assert_eq!(&rest[..], &all[start.record as usize..]);
        }
    }

    #[test]
    fn bad_text_is_found_where_it_stands(
        rows in table(),
        dialect in any_dialect(),
        bad in prop::sample::select(vec![&b"\0"[..], b"\xff", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\x80"]),
        place in any::<prop::sample::Index>(),
        buffer_size in 1usize..200,
        read_size in 1usize..50,
    ) {
        // Into a value, so that the records stay what they are.
        let mut rows = rows;
        let width = rows.first().map_or(0, Vec::len);
        let places: Vec<usize> = (0..rows.len() * width).filter(|at| rows[at / width][at % width].is_some()).collect();
        prop_assume!(!places.is_empty());
        let at = places[place.index(places.len())];
        let (row, column) = (at / width, at % width);
        rows[row][column].as_mut().unwrap().extend_from_slice(bad);
        let names = &NAMES[..rows[0].len()];
        let csv = write(dialect, names, &rows, "\n");
        let expected = match std::str::from_utf8(&csv) {
            Ok(text) => text.find('\0').unwrap(),
            Err(error) => error.valid_up_to(),
        };
        let mut records = Records::new(Trickle::new(&csv, read_size), dialect, options(buffer_size)).unwrap();
        let mut good = 0;
        let mut errors = Vec::new();
        loop {
            match records.next_record() {
                Ok(Some(_)) => good += 1,
                Ok(None) => break,
                Err(error) => errors.push(error),
            }
        }
        prop_assert_eq!((errors.len(), good), (1, rows.len() - 1));
        let error = &errors[0];
        prop_assert!(error.is_reject());
        prop_assert_eq!(matches!(error.kind, RecordErrorKind::Nul), bad == b"\0");
        prop_assert_eq!((error.record, error.offset), (row as u64 + 1, expected as u64));
        prop_assert_eq!(error.column.as_deref(), Some(names[column]));
    }

    #[test]
    fn any_bytes_are_read_or_refused_and_never_twice(
        noise in vec(prop::sample::select(&b"\"\"\"\\\\,,\n\n\r`a\0\xff\xc3\xa9"[..]), 0..60),
        dialect in any_dialect(),
        server in any::<bool>(),
        guard in any::<bool>(),
        buffer_size in 1usize..80,
        read_size in 1usize..20,
    ) {
        let run = |input: &mut dyn Read, buffer_size| {
            let mut options = options(buffer_size);
            options.grammar = if server { Grammar::Server } else { Grammar::Strict };
            options.guard = guard;
            let mut log = Vec::new();
            let mut records = match Records::new(input, dialect, options) {
                Ok(records) => records,
                Err(error) => return vec![error.to_string()],
            };
            let mut offset = records.header().end();
            loop {
                match records.next_record() {
                    Ok(Some(record)) => {
                        assert_eq!(record.offset(), offset);
                        offset += record.raw().len() as u64;
                        let values: Vec<_> = record.fields().map(|field| field.value()).collect();
                        log.push(format!("{values:?}"));
                    }
                    Ok(None) => return log,
                    Err(error) => {
                        log.push(error.to_string());
                        if !error.is_reject() {
                            return log;
                        }
                        offset += records.rejected().len() as u64;
                    }
                }
            }
        };
        let whole = run(&mut &noise[..], 1 << 16);
        prop_assert_eq!(run(&mut Trickle::new(&noise, read_size), buffer_size), whole);
    }
}

#[test]
fn pythons_csv_module_writes_what_is_read() {
    let atoms: Vec<&str> = ATOMS.into_iter().filter(|atom| !atom.contains('\r')).collect();
    let mut seed = 7;
    let mut random = |below: usize| next_random(&mut seed) as usize % below;
    let rows: Vec<Vec<String>> = (0..2000)
        .map(|_| (0..3).map(|_| (0..random(6)).map(|_| atoms[random(atoms.len())]).collect()).collect())
        .collect();
    // One value a line in, in hexadecimal; Python knows no NULL, so all are strings.
    let hex: String = rows.iter().flatten().map(|value| format!("{}\n", hex(value.as_bytes()))).collect();
    for (dialect, arguments) in [
        (Dialect::A, "quoting=csv.QUOTE_MINIMAL"),
        (Dialect::A, "quoting=csv.QUOTE_ALL"),
        (Dialect::B, "quoting=csv.QUOTE_ALL"),
        (Dialect::C, "quoting=csv.QUOTE_ALL, quotechar='`'"),
        (Dialect::D, "quoting=csv.QUOTE_ALL, doublequote=False, escapechar='\\\\'"),
    ] {
        let script = format!(
            "import csv, io, sys\n\
             values = [bytes.fromhex(line).decode() for line in sys.stdin]\n\
             out = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8', newline='')\n\
             out.write('a,b,c\\n')\n\
             rows = csv.writer(out, lineterminator='\\n', {arguments})\n\
             rows.writerows(values[at:at + 3] for at in range(0, len(values), 3))\n\
             out.flush()\n"
        );
        let csv = run("python3", &["-c", &script], hex.as_bytes());
        let (_, read) = read_all(Trickle::new(&csv, 999), dialect, options(4096)).unwrap();
        let text: Vec<Vec<String>> = read
            .into_iter()
            .map(|row| row.into_iter().map(|value| String::from_utf8(value.unwrap_or_default()).unwrap()).collect())
            .collect();
        assert!(text == rows, "{dialect}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn run(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{program} failed: {}", output.status);
    output.stdout
}
