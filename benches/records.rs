//! How fast CSV becomes COPY text on one thread: `cargo bench -p bulk-benches --bench records`.

use std::hint::black_box;

use bulk_pg::{CopyText, Dialect, RecordOptions, Records, Source};
use bulk_testkit::snapshot::{self, Spec, write_table};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const BYTES: u64 = 32_000_000;

fn records(criterion: &mut Criterion) {
    for (dialect, made_as) in [(Dialect::B, snapshot::Dialect::B), (Dialect::D, snapshot::Dialect::D)] {
        for table in ["opinions", "dockets", "citation-map"] {
            let mut csv = Vec::new();
            let spec = Spec { dialect: made_as, ..Spec::default() };
            write_table(&spec, table, BYTES, &mut csv).expect("the table grows to any size, in memory");
            let mut group = criterion.benchmark_group(format!("{table}, dialect {}", dialect.name()));
            group.throughput(Throughput::Bytes(csv.len() as u64)).sample_size(20);
            group.bench_function("split", |bencher| bencher.iter(|| split(black_box(&csv), dialect)));
            group.bench_function("split and encode", |bencher| bencher.iter(|| encode(black_box(&csv), dialect)));
        }
    }
}

fn split(csv: &[u8], dialect: Dialect) -> u64 {
    let mut records = Records::new(csv, dialect, RecordOptions::default()).expect("the header is good");
    while records.next_record().expect("the records are good").is_some() {}
    records.position().record
}

fn encode(csv: &[u8], dialect: Dialect) -> usize {
    let mut records = Records::new(csv, dialect, RecordOptions::default()).expect("the header is good");
    let fields = records.header().names().len();
    let columns: Vec<Source> = (0..fields).map(Source::Field).collect();
    let encoder = CopyText::new(&columns, fields).expect("each field is a column");
    let (mut out, mut total) = (Vec::new(), 0);
    while let Some(record) = records.next_record().expect("the records are good") {
        encoder.append(&record, &mut out);
        if out.len() > 256 << 10 {
            total += out.len();
            out.clear();
        }
    }
    total + out.len()
}

criterion_group!(benches, records);
criterion_main!(benches);
