//! Measures how fast records are split and encoded for COPY, on one thread, over bytes in memory.
//!
//! ```text
//! cargo run --release -p bulk-pg --example records -- [MEGABYTES, 200 by default]
//! ```

#![allow(clippy::print_stdout)]

use std::time::Instant;

use bulk_pg::{CopyText, Dialect, RecordError, RecordOptions, Records, Source};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let megabytes = std::env::args().nth(1).map_or(Ok(200), |argument| argument.parse())?;
    let size = megabytes * 1_000_000;
    println!("{:<38} {:>10} {:>10} {:>14}", "", "records", "split MB/s", "+ encode MB/s");
    for dialect in [Dialect::A, Dialect::B, Dialect::D] {
        for (name, row) in [
            ("wide text", wide as fn(u64) -> Vec<String>),
            ("wide HTML, many quotes", html),
            ("wide text, not ASCII", accented),
            ("narrow integers", narrow),
            ("a docket's forty columns", docket),
        ] {
            let csv = generate(dialect, row, size);
            let records = split(&csv, dialect)?;
            let split = best_of_20(|| split(&csv, dialect).map(drop))?;
            let encode = best_of_20(|| encode(&csv, dialect).map(drop))?;
            let rate = |seconds: f64| csv.len() as f64 / seconds / 1e6;
            let name = format!("{}, {name}", dialect.name());
            println!("{name:<38} {records:>10} {:>10.0} {:>14.0}", rate(split), rate(encode));
        }
    }
    Ok(())
}

/// The shortest of several runs, in seconds: the one that other programs disturbed least.
fn best_of_20<E>(mut run: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn split(csv: &[u8], dialect: Dialect) -> Result<u64, RecordError> {
    let mut records = Records::new(csv, dialect, RecordOptions::default())?;
    while records.next_record()?.is_some() {}
    Ok(records.position().record)
}

/// Encodes all columns, in chunks of which each fills the same buffer.
fn encode(csv: &[u8], dialect: Dialect) -> Result<usize, Box<dyn std::error::Error>> {
    let mut records = Records::new(csv, dialect, RecordOptions::default())?;
    let fields = records.header().names().len();
    let columns: Vec<Source> = (0..fields).map(Source::Field).collect();
    let encoder = CopyText::new(&columns, fields)?;
    let (mut out, mut total) = (Vec::new(), 0);
    while let Some(record) = records.next_record()? {
        encoder.append(&record, &mut out);
        if out.len() > 1 << 20 {
            total += out.len();
            out.clear();
        }
    }
    Ok(total + out.len())
}

fn generate(dialect: Dialect, row: fn(u64) -> Vec<String>, size: usize) -> Vec<u8> {
    let columns = row(0).len();
    let mut csv = (0..columns).map(|column| format!("c{column}")).collect::<Vec<_>>().join(",").into_bytes();
    csv.push(b'\n');
    let quote = char::from(dialect.quote());
    let escape = char::from(dialect.escape());
    let always = dialect != Dialect::A;
    let mut number = 0;
    while csv.len() < size {
        for (index, value) in row(number).iter().enumerate() {
            if index > 0 {
                csv.push(b',');
            }
            if value.is_empty() {
                continue;
            }
            if !always && !value.contains(['"', ',', '\n']) {
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

fn wide(number: u64) -> Vec<String> {
    let line = "The judgment of the court of appeals is affirmed, and the cause is remanded for it.\n";
    vec![number.to_string(), line.repeat(100 + (number % 200) as usize), String::new(), "f".to_owned()]
}

fn html(number: u64) -> Vec<String> {
    let line = "<p id=\"b12-5\" class=\"indent\">See <span class=\"citation\" data-id=\"1234\">5 U.S. 137</span></p>\n";
    vec![number.to_string(), line.repeat(100 + (number % 200) as usize), String::new(), "f".to_owned()]
}

fn accented(number: u64) -> Vec<String> {
    let line = "§ 12 — “L’arrêt de la cour d’appel est confirmé”, à l’unanimité, ainsi décidé\n";
    vec![number.to_string(), line.repeat(100 + (number % 200) as usize), String::new(), "f".to_owned()]
}

fn narrow(number: u64) -> Vec<String> {
    vec![
        number.to_string(),
        (number * 7919 % 9_999_991).to_string(),
        (number * 104_729 % 8_999_993).to_string(),
        "1".to_owned(),
    ]
}

fn docket(number: u64) -> Vec<String> {
    (0..40)
        .map(|column| match column % 4 {
            0 => (number * 31 + column).to_string(),
            1 => String::new(),
            2 => "2020-06-25 17:13:53.973335+00".to_owned(),
            _ => "United States v. Doe".to_owned(),
        })
        .collect()
}
