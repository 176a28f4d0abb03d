//! How fast CSV is cut into records and becomes COPY text and COPY binary, on one thread and over bytes in memory:
//! `cargo bench -p bulk-benches --bench records`.

use std::hint::black_box;

use bulk_pg::{BinaryType, CopyBinary, CopyText, Dialect, RecordOptions, Records, Source};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const BYTES: usize = 32_000_000;

/// What a buffer holds when it is sent.
const BUFFER: usize = 256 << 10;

/// Name, OID and modifier.
type Column = (&'static str, u32, i32);

fn records(criterion: &mut Criterion) {
    for dialect in [Dialect::A, Dialect::B, Dialect::D] {
        for (name, columns, row) in [
            ("integers, text and jsonb", EVENT.to_vec(), event as fn(u64) -> Vec<String>),
            ("narrow integers", NARROW.to_vec(), narrow),
            ("a docket's forty columns", DOCKET.repeat(5), docket),
            ("an opinion's HTML", OPINION.to_vec(), html),
            ("an opinion, not ASCII", OPINION.to_vec(), accented),
        ] {
            let csv = generate(dialect, &columns, row, BYTES);
            let mut group = criterion.benchmark_group(format!("{name}, dialect {}", dialect.name()));
            group.throughput(Throughput::Bytes(csv.len() as u64)).sample_size(20);
            group.bench_function("split", |bencher| bencher.iter(|| split(black_box(&csv), dialect)));
            group.bench_function("to text", |bencher| bencher.iter(|| encode_text(black_box(&csv), dialect, &columns)));
            group.bench_function("to binary", |bencher| {
                bencher.iter(|| encode_binary(black_box(&csv), dialect, &columns));
            });
        }
    }
}

fn open(csv: &[u8], dialect: Dialect) -> Records<&[u8]> {
    Records::new(csv, dialect, RecordOptions::default()).expect("the header is good")
}

fn split(csv: &[u8], dialect: Dialect) -> u64 {
    let mut records = open(csv, dialect);
    while records.next_record().expect("the records are good").is_some() {}
    records.position().record
}

fn encode_text(csv: &[u8], dialect: Dialect, columns: &[Column]) -> usize {
    let sources: Vec<Source> = (0..columns.len()).map(Source::Field).collect();
    let encoder = CopyText::new(&sources, columns.len()).expect("each field is a column");
    let mut records = open(csv, dialect);
    let (mut out, mut total) = (Vec::new(), 0);
    while let Some(record) = records.next_record().expect("the records are good") {
        encoder.append(&record, &mut out);
        if out.len() > BUFFER {
            total += out.len();
            out.clear();
        }
    }
    total + out.len()
}

fn encode_binary(csv: &[u8], dialect: Dialect, columns: &[Column]) -> usize {
    let binary = |oid, typmod| BinaryType::new(oid, typmod).expect("the type has a binary form");
    let sources = columns.iter().enumerate();
    let sources: Vec<_> =
        sources.map(|(index, (_, oid, typmod))| (Source::Field(index), binary(*oid, *typmod))).collect();
    let mut encoder = CopyBinary::new(&sources, columns.len()).expect("each field is a column");
    let mut records = open(csv, dialect);
    let (mut out, mut total) = (Vec::new(), 0);
    while let Some(record) = records.next_record().expect("the records are good") {
        encoder.append(&record, &mut out).expect("the values are good");
        if out.len() > BUFFER {
            total += out.len();
            out.clear();
        }
    }
    total + out.len()
}

fn generate(dialect: Dialect, columns: &[Column], row: fn(u64) -> Vec<String>, size: usize) -> Vec<u8> {
    let mut csv = columns.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(",").into_bytes();
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

const BOOL: u32 = 16;
const INT8: u32 = 20;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const VARCHAR: u32 = 1043;
const DATE: u32 = 1082;
const TIMESTAMPTZ: u32 = 1184;
const JSONB: u32 = 3802;

const EVENT: &[Column] =
    &[("id", INT8, -1), ("user", INT8, -1), ("kind", INT4, -1), ("name", TEXT, -1), ("data", JSONB, -1)];

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

const NARROW: &[Column] = &[("id", INT4, -1), ("cited", INT4, -1), ("citing", INT4, -1), ("depth", INT4, -1)];

fn narrow(number: u64) -> Vec<String> {
    vec![
        number.to_string(),
        (number * 7919 % 9_999_991).to_string(),
        (number * 104_729 % 8_999_993).to_string(),
        "1".to_owned(),
    ]
}

/// Five times this.
const DOCKET: &[Column] = &[
    ("id", INT4, -1),
    ("court", VARCHAR, 19),
    ("created", TIMESTAMPTZ, -1),
    ("name", TEXT, -1),
    ("filed", DATE, -1),
    ("closed", DATE, -1),
    ("slug", VARCHAR, 79),
    ("blocked", BOOL, -1),
];

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

const OPINION: &[Column] = &[("id", INT4, -1), ("created", TIMESTAMPTZ, -1), ("html", TEXT, -1), ("ocr", BOOL, -1)];

fn html(number: u64) -> Vec<String> {
    opinion(
        number,
        "<p id=\"b12-5\" class=\"indent\">See <span class=\"citation\" data-id=\"1234\">5 U.S. 137</span></p>\n",
    )
}

fn accented(number: u64) -> Vec<String> {
    opinion(number, "§ 12 — “L’arrêt de la cour d’appel est confirmé”, à l’unanimité, ainsi décidé\n")
}

fn opinion(number: u64, line: &str) -> Vec<String> {
    let text = line.repeat(100 + (number % 200) as usize);
    vec![number.to_string(), "2020-06-25 17:13:53.973335+00".to_owned(), text, "f".to_owned()]
}

criterion_group!(benches, records);
criterion_main!(benches);
