//! Measures what a row costs on one thread, over bytes in memory: split, and encoded as text and as binary.
//!
//! ```text
//! cargo run --release -p bulk-pg --example copy_binary -- [MEGABYTES, 100 by default]
//! ```

#![allow(clippy::print_stdout)]

use std::time::Instant;

use bulk_pg::{BinaryType, CopyBinary, CopyText, Dialect, RecordOptions, Records, Source};

type Column = (&'static str, BinaryType);
type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let megabytes = std::env::args().nth(1).map_or(Ok(100), |argument| argument.parse())?;
    println!("{:<40} {:>10} {:>8} {:>9} {:>9} {:>9}", "", "records", "bytes", "split ns", "+ text", "+ binary");
    for dialect in [Dialect::A, Dialect::D] {
        for (name, columns, row) in [
            ("integers, text and jsonb", events()?, event as fn(u64) -> Vec<String>),
            ("a docket's forty columns", dockets()?, docket),
            ("an opinion", opinions()?, opinion),
        ] {
            let csv = generate(dialect, &columns, row, megabytes * 1_000_000);
            let records = split(&csv, dialect)?;
            let split = best_of_20(|| split(&csv, dialect).map(drop))?;
            let text = best_of_20(|| encode_text(&csv, dialect, &columns).map(drop))?;
            let binary = best_of_20(|| encode_binary(&csv, dialect, &columns).map(drop))?;
            let each = |seconds: f64| seconds * 1e9 / records as f64;
            println!(
                "{:<40} {records:>10} {:>8} {:>9.0} {:>9.0} {:>9.0}",
                format!("{}, {name}", dialect.name()),
                csv.len() as u64 / records,
                each(split),
                each(text),
                each(binary)
            );
        }
    }
    Ok(())
}

/// The shortest of several runs, in seconds: the one that other programs disturbed least.
fn best_of_20(mut run: impl FnMut() -> Result<(), Error>) -> Result<f64, Error> {
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn split(csv: &[u8], dialect: Dialect) -> Result<u64, Error> {
    let mut records = Records::new(csv, dialect, RecordOptions::default())?;
    while records.next_record()?.is_some() {}
    Ok(records.position().record)
}

/// What a buffer holds when it is sent.
const BUFFER: usize = 256 << 10;

fn encode_text(csv: &[u8], dialect: Dialect, columns: &[Column]) -> Result<usize, Error> {
    let sources: Vec<Source> = (0..columns.len()).map(Source::Field).collect();
    let encoder = CopyText::new(&sources, columns.len())?;
    let mut records = Records::new(csv, dialect, RecordOptions::default())?;
    let (mut out, mut total) = (Vec::new(), 0);
    while let Some(record) = records.next_record()? {
        encoder.append(&record, &mut out);
        if out.len() > BUFFER {
            total += out.len();
            out.clear();
        }
    }
    Ok(total + out.len())
}

fn encode_binary(csv: &[u8], dialect: Dialect, columns: &[Column]) -> Result<usize, Error> {
    let columns: Vec<_> = columns.iter().enumerate().map(|(index, (_, of))| (Source::Field(index), *of)).collect();
    let mut encoder = CopyBinary::new(&columns, columns.len())?;
    let mut records = Records::new(csv, dialect, RecordOptions::default())?;
    let (mut out, mut total) = (Vec::new(), 0);
    while let Some(record) = records.next_record()? {
        encoder.append(&record, &mut out)?;
        if out.len() > BUFFER {
            total += out.len();
            out.clear();
        }
    }
    Ok(total + out.len())
}

fn generate(dialect: Dialect, columns: &[Column], row: fn(u64) -> Vec<String>, size: usize) -> Vec<u8> {
    let mut csv = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",").into_bytes();
    csv.push(b'\n');
    let quote = char::from(dialect.quote());
    let escape = char::from(dialect.escape());
    let mut number = 0;
    while csv.len() < size {
        for (index, value) in row(number).iter().enumerate() {
            if index > 0 {
                csv.push(b',');
            }
            if value.is_empty() {
                continue;
            }
            if dialect == Dialect::A && !value.contains(['"', ',', '\n']) {
                csv.extend_from_slice(value.as_bytes());
                continue;
            }
            let mut escaped = value.replace(escape, &format!("{escape}{escape}"));
            if quote != escape {
                escaped = escaped.replace(quote, &format!("{escape}{quote}"));
            }
            csv.push(dialect.quote());
            csv.extend_from_slice(escaped.as_bytes());
            csv.push(dialect.quote());
        }
        csv.push(b'\n');
        number += 1;
    }
    csv
}

fn columns(columns: &[(&'static str, u32, i32)]) -> Result<Vec<Column>, Error> {
    let column = |(name, oid, typmod): &(&'static str, u32, i32)| {
        Ok((*name, BinaryType::new(*oid, *typmod).ok_or(format!("type {oid} has no binary form"))?))
    };
    columns.iter().map(column).collect()
}

const BOOL: u32 = 16;
const INT8: u32 = 20;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const VARCHAR: u32 = 1043;
const DATE: u32 = 1082;
const TIMESTAMPTZ: u32 = 1184;
const JSONB: u32 = 3802;

fn events() -> Result<Vec<Column>, Error> {
    columns(&[("id", INT8, -1), ("user", INT8, -1), ("kind", INT4, -1), ("name", TEXT, -1), ("data", JSONB, -1)])
}

fn event(number: u64) -> Vec<String> {
    let id = 4_611_686_018_429_000_000 + number * 7919;
    let data = format!(
        r#"{{"kills": {}, "deaths": {}, "assists": {}, "map": "crucible", "won": true, "score": {}.5, "team": "alpha"}}"#,
        number % 31,
        number % 17,
        number % 11,
        number % 9973
    );
    vec![id.to_string(), (id / 3).to_string(), (number % 97).to_string(), format!("player {}", number % 1009), data]
}

fn dockets() -> Result<Vec<Column>, Error> {
    let kinds = [("id", INT4, -1), ("court", VARCHAR, 19), ("created", TIMESTAMPTZ, -1), ("name", TEXT, -1)];
    let more = [("filed", DATE, -1), ("closed", DATE, -1), ("slug", VARCHAR, 79), ("blocked", BOOL, -1)];
    columns(&[kinds, more, kinds, more, kinds, more, kinds, more, kinds, more].concat())
}

/// Every other column of the second half is NULL.
fn docket(number: u64) -> Vec<String> {
    let value = |column: u64| match column % 8 {
        _ if column > 20 && column % 2 == 1 => String::new(),
        0 => (number * 31 + column).to_string(),
        1 => "scotus".to_owned(),
        2 => format!("2020-06-25 17:13:{:02}.{:06}+00", number % 60, number % 1_000_000),
        3 => "United States v. Doe".to_owned(),
        4 | 5 => format!("{}-{:02}-{:02}", 1950 + number % 70, 1 + number % 12, 1 + number % 28),
        6 => "united-states-v-doe".to_owned(),
        _ => "f".to_owned(),
    };
    (0..40).map(value).collect()
}

fn opinions() -> Result<Vec<Column>, Error> {
    columns(&[("id", INT4, -1), ("created", TIMESTAMPTZ, -1), ("html", TEXT, -1), ("ocr", BOOL, -1)])
}

fn opinion(number: u64) -> Vec<String> {
    let line = "<p id=\"b12-5\" class=\"indent\">See <span class=\"citation\" data-id=\"1234\">5 U.S. 137</span></p>\n";
    let html = line.repeat(100 + (number % 200) as usize);
    vec![number.to_string(), "2020-06-25 17:13:53.973335+00".to_owned(), html, "f".to_owned()]
}
