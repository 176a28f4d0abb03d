//! Random input, read by [`Records`] and by the server's own CSV reader: the same rows, or a refusal by both.

mod support;

use std::cell::RefCell;
use std::pin::pin;

use bulk_pg::{
    CopyText, Dialect, Grammar, Quoting, RecordError, RecordErrorKind, RecordOptions, Records, Session, Source,
};
use bytes::Bytes;
use futures::{SinkExt, TryStreamExt};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::Bench;
use tokio::runtime::Runtime;

/// Inputs of one proptest case, of which there are [`CASES`].
const BATCH: usize = 16;
const CASES: u32 = 256;
/// Tables `t1` to `t4` of so many text columns.
const WIDTHS: usize = 4;

fn dialects() -> [Dialect; 5] {
    let odd = Dialect::new(b';', b'\'', b'~', Quoting::AsNeeded).unwrap();
    [Dialect::A, Dialect::B, Dialect::C, Dialect::D, odd]
}

#[derive(Clone, Debug)]
struct Input {
    dialect: Dialect,
    width: usize,
    csv: Vec<u8>,
}

/// What is put together to make a file. The first five stand for what the dialect has there.
const ATOMS: [&[u8]; 24] = [
    b"Q",
    b"E",
    b"D",
    b"N",
    b"QQ",
    b"EQ",
    b"EE",
    b"QDQ",
    b"QNQ",
    b"QQD",
    b"\n",
    b"\r",
    b"\r\n",
    b"\\",
    b"\\.",
    b"\\N",
    b"x",
    b"yz ",
    "é".as_bytes(),
    "😀".as_bytes(),
    b"\t",
    b"\x01\x0b",
    b"\0",
    b"\xc3",
];

/// How often each of [`ATOMS`] comes.
const WEIGHTS: [u32; 24] = [9, 6, 12, 12, 4, 4, 3, 6, 6, 3, 2, 1, 1, 4, 3, 2, 12, 6, 3, 2, 2, 2, 1, 1];

/// The letters stand for the dialect's quote, escape, delimiter and the file's line end.
fn spell(pattern: &[u8], dialect: Dialect, newline: &[u8], out: &mut Vec<u8>) {
    for byte in pattern {
        match byte {
            b'Q' => out.push(dialect.quote()),
            b'E' => out.push(dialect.escape()),
            b'D' => out.push(dialect.delimiter()),
            b'N' => out.extend_from_slice(newline),
            byte => out.push(*byte),
        }
    }
}

fn atom() -> impl Strategy<Value = &'static [u8]> {
    let weighted = WEIGHTS.iter().zip(ATOMS).map(|(weight, atom)| (*weight, Just(atom)));
    proptest::strategy::Union::new_weighted(weighted.collect())
}

/// A value, whether it is quoted, and what is wrong with it, if anything.
type Written = (Option<Vec<&'static [u8]>>, bool, Option<&'static [u8]>);

/// Rows as a writer of the dialect would write them, but for a fault here and there.
fn written() -> impl Strategy<Value = Vec<Vec<Written>>> {
    let text = vec(atom(), 0..4);
    let value = prop_oneof![1 => Just(None), 6 => text.prop_map(Some)];
    let fault = prop_oneof![60 => Just(None), 1 => atom().prop_map(Some)];
    vec(vec((value, any::<bool>(), fault), 1..=WIDTHS), 0..6)
}

fn write(rows: &[Vec<Written>], dialect: Dialect, newline: &[u8], width: usize, out: &mut Vec<u8>) {
    for row in rows {
        for column in 0..width {
            if column > 0 {
                out.push(dialect.delimiter());
            }
            // Short rows are filled up with what they have.
            let (value, quoted, fault) = &row[column % row.len()];
            if let Some(fault) = fault {
                spell(fault, dialect, newline, out);
            }
            let Some(value) = value else { continue };
            let mut text = Vec::new();
            for atom in value {
                spell(atom, dialect, newline, &mut text);
            }
            let special = |byte: &u8| [dialect.delimiter(), dialect.quote(), b'\n', b'\r'].contains(byte);
            if !quoted && dialect.quoting() == Quoting::AsNeeded && !text.is_empty() && !text.iter().any(special) {
                out.extend_from_slice(&text);
                continue;
            }
            out.push(dialect.quote());
            for byte in text {
                if byte == dialect.quote() || byte == dialect.escape() {
                    out.push(dialect.escape());
                }
                out.push(byte);
            }
            out.push(dialect.quote());
        }
        out.extend_from_slice(newline);
    }
}

fn input() -> impl Strategy<Value = Input> {
    let body = prop_oneof![vec(atom(), 0..25).prop_map(Err), written().prop_map(Ok),];
    let newline = prop_oneof![4 => Just(&b"\n"[..]), 1 => Just(&b"\r\n"[..]), 1 => Just(&b"\r"[..])];
    let dialect = prop::sample::select(dialects().to_vec());
    (dialect, 1..=WIDTHS, newline, body, any::<bool>()).prop_map(|(dialect, width, newline, body, cut)| {
        let mut csv = Vec::new();
        for column in 0..width {
            spell(if column == 0 { b"c" } else { b"Dc" }, dialect, newline, &mut csv);
            csv.push(b'0' + column as u8);
        }
        csv.extend_from_slice(newline);
        match body {
            Ok(rows) => write(&rows, dialect, newline, width, &mut csv),
            Err(atoms) => atoms.iter().for_each(|atom| spell(atom, dialect, newline, &mut csv)),
        }
        if cut && csv.len() > 4 * width + 2 {
            csv.pop();
        }
        Input { dialect, width, csv }
    })
}

/// The rows in COPY's text format.
fn ours(input: &Input, grammar: Grammar) -> Result<Vec<u8>, RecordError> {
    let mut options = RecordOptions::default();
    options.grammar = grammar;
    options.buffer_size = 37;
    let mut records = Records::new(&input.csv[..], input.dialect, options)?;
    assert_eq!(records.header().names().len(), input.width);
    let columns: Vec<Source> = (0..input.width).map(Source::Field).collect();
    let encoder = CopyText::new(&columns, input.width).unwrap();
    let mut rows = Vec::new();
    while let Some(record) = records.next_record()? {
        encoder.append(&record, &mut rows);
    }
    Ok(rows)
}

/// Whether a record, or the one at which reading ends, is `\.` without quotes: servers before version 18 take it for the
/// end of the data, and we never do.
fn has_end_mark(input: &Input) -> bool {
    let mut options = RecordOptions::default();
    options.grammar = Grammar::Server;
    let is_mark = |start: u64| {
        let rest = &input.csv[start as usize..];
        rest.starts_with(b"\\.") && matches!(rest.get(2), None | Some(b'\n' | b'\r'))
    };
    let Ok(mut records) = Records::new(&input.csv[..], input.dialect, options) else { return false };
    loop {
        let start = records.position().offset;
        match records.next_record() {
            Ok(Some(record)) if is_mark(record.offset()) => return true,
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(_) => return is_mark(start),
        }
    }
}

/// A server with a table for each width. Nothing is ever committed.
struct Reference {
    session: Session,
    _bench: Bench,
}

impl Reference {
    async fn new() -> Self {
        let bench = Bench::new("against", "");
        let session = bench.session().await;
        for width in 1..=WIDTHS {
            // A page with room that earlier rows left is filled before the last one is, so rows are numbered.
            let columns: String = (0..width).map(|column| format!(", c{column} text")).collect();
            let sql = format!("CREATE TEMP TABLE t{width} (number serial{columns})");
            session.client().batch_execute(&sql).await.unwrap();
        }
        session.client().batch_execute("BEGIN").await.unwrap();
        Self { session, _bench: bench }
    }

    /// What is in the table after COPY of `data`, in COPY's text format; or the server's refusal.
    async fn copy(&self, width: usize, options: &str, data: Vec<u8>) -> Result<Vec<u8>, String> {
        let client = self.session.client();
        client.batch_execute("SAVEPOINT s").await.unwrap();
        let result = async {
            let columns: Vec<_> = (0..width).map(|column| format!("c{column}")).collect();
            let columns = columns.join(", ");
            let statement = format!("COPY t{width} ({columns}) FROM STDIN {options}");
            let mut sink = pin!(client.copy_in::<_, Bytes>(&statement).await?);
            sink.send(data.into()).await?;
            sink.finish().await?;
            let statement = format!("COPY (SELECT {columns} FROM t{width} ORDER BY number) TO STDOUT");
            let chunks: Vec<Bytes> = client.copy_out(&statement).await?.try_collect().await?;
            Ok::<_, tokio_postgres::Error>(chunks.concat())
        };
        let result = result.await.map_err(|error| error.as_db_error().expect("the server answers").to_string());
        client.batch_execute("ROLLBACK TO s; RELEASE s").await.unwrap();
        result
    }

    async fn read_csv(&self, input: &Input) -> Result<Vec<u8>, String> {
        let literal = |byte: u8| char::from(byte).to_string().replace('\'', "''");
        let options = format!(
            "(FORMAT csv, HEADER, DELIMITER '{}', QUOTE '{}', ESCAPE '{}')",
            literal(input.dialect.delimiter()),
            literal(input.dialect.quote()),
            literal(input.dialect.escape())
        );
        self.copy(input.width, &options, input.csv.clone()).await
    }
}

#[derive(Debug, Default)]
struct Seen {
    inputs: usize,
    rows: usize,
    refused: usize,
    contradictions: usize,
}

#[test]
fn records_are_what_the_servers_reader_makes_of_them() {
    let runtime = Runtime::new().unwrap();
    let reference = runtime.block_on(Reference::new());
    let seen = RefCell::new(Seen::default());
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&vec(input(), BATCH), |batch| {
        let mut seen = seen.borrow_mut();
        let mut encoded: [Vec<u8>; WIDTHS] = Default::default();
        for input in batch.iter().filter(|input| !has_end_mark(input)) {
            let theirs = runtime.block_on(reference.read_csv(input));
            seen.inputs += 1;
            match (ours(input, Grammar::Server), &theirs) {
                (Ok(ours), Ok(theirs)) => {
                    prop_assert_eq!(ours.escape_ascii().to_string(), theirs.escape_ascii().to_string(), "{:?}", input);
                    seen.rows += ours.iter().filter(|byte| **byte == b'\n').count();
                    encoded[input.width - 1].extend(ours);
                }
                (Err(_), Err(_)) => seen.refused += 1,
                (ours, theirs) => prop_assert!(false, "{input:?}: {ours:?}, and the server {theirs:?}"),
            }
            match (ours(input, Grammar::Strict), &theirs) {
                (Ok(ours), Ok(theirs)) => prop_assert_eq!(&ours, theirs, "{:?}", input),
                // What no writer of the dialect writes.
                (Err(error), Ok(_)) => {
                    prop_assert!(matches!(error.kind, RecordErrorKind::Contradiction(_)), "{input:?}: {error}");
                    seen.contradictions += 1;
                }
                (Err(_), Err(_)) => {}
                (Ok(ours), Err(error)) => prop_assert!(false, "{input:?}: {ours:?}, and the server {error}"),
            }
        }
        // And the server takes our rows as they are.
        for (width, rows) in encoded.into_iter().enumerate() {
            let taken = runtime.block_on(reference.copy(width + 1, "", rows.clone())).unwrap();
            prop_assert_eq!(taken, rows);
        }
        Ok(())
    });
    result.unwrap();
    // That the inputs are worth something: rows, refusals, and files that the strict grammar alone refuses.
    let seen = seen.into_inner();
    assert!(seen.inputs > 3500 && seen.rows > 1500 && seen.refused > 800 && seen.contradictions > 40, "{seen:?}");
}
