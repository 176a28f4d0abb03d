//! How fast bzip2 is decoded, over bytes in memory: `cargo bench -p bulk-benches --bench decoder`.
//!
//! One thread is the decoder of a block by itself; two share the blocks of a file. Bytes are decoded ones. Against lbzip2 it
//! is measured by `compare-decode`.

use std::hint::black_box;
use std::io::{self, Cursor, Write};

use bulk_archive::{DecodeOptions, Decoder};
use bulk_testkit::snapshot::{Spec, write_table};
use bzip2::Compression;
use bzip2::write::BzEncoder;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const BYTES: u64 = 16_000_000;

fn decode(criterion: &mut Criterion) {
    for (name, plain) in [
        ("wide text", table("opinions")),
        ("narrow integers", table("citation-map")),
        ("hardly compressible", base64()),
    ] {
        let mut packed = BzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&plain).expect("a Vec takes everything");
        let packed = packed.finish().expect("a Vec takes everything");
        let mut group = criterion.benchmark_group(format!("bzip2, {name}"));
        group.throughput(Throughput::Bytes(plain.len() as u64)).sample_size(10);
        for threads in [1, 2] {
            let mut options = DecodeOptions::default();
            options.threads = threads;
            let name = if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    let input = Cursor::new(black_box(packed.clone()));
                    let mut decoder = Decoder::new(input, "table.csv.bz2", &options).expect("it is bzip2");
                    io::copy(&mut decoder, &mut io::sink()).expect("it is whole")
                });
            });
        }
    }
}

fn table(name: &str) -> Vec<u8> {
    let mut plain = Vec::new();
    write_table(&Spec::default(), name, BYTES, &mut plain).expect("there is such a table");
    plain
}

fn base64() -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut random = fastrand::Rng::with_seed(1);
    (0..BYTES).map(|at| if at % 77 == 76 { b'\n' } else { DIGITS[random.usize(..64)] }).collect()
}

criterion_group!(benches, decode);
criterion_main!(benches);
