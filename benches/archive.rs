//! An archive of JSON items made whole, read, and updated, in memory: `cargo bench -p bulk-benches --bench archive`.
//!
//! The items are like court decisions, 0.5 to 20 KB each, some 28 MB. Bytes are those of the items, also where a splice
//! touches few of them. Against tar, pigz and others it is measured by `compare-archive`.

use std::hint::black_box;
use std::io::{self, Cursor};

use bulk_archive::{ArchiveOptions, ArchiveReader, ArchiveWriter, Change, IndexedArchive, SpliceOptions, splice};
use bulk_testkit::snapshot::opinion_json;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const ITEMS: u64 = 5000;

type Item = (String, Vec<u8>);

fn archive(criterion: &mut Criterion) {
    let items: Vec<Item> = (0..ITEMS).map(|number| item(number, 0)).collect();
    let bytes: usize = items.iter().map(|(_, content)| content.len()).sum();
    let mut group = criterion.benchmark_group("archive");
    group.throughput(Throughput::Bytes(bytes as u64)).sample_size(10);
    for threads in [1, 2] {
        group.bench_function(format!("made whole, threads: {threads}"), |bencher| {
            bencher.iter(|| make(black_box(&items), threads));
        });
    }

    let (archive, index) = make(&items, 2);
    group.bench_function("read", |bencher| {
        bencher.iter(|| {
            let mut reader = ArchiveReader::new(black_box(&archive[..]), "old");
            let mut total = 0;
            while let Some(item) = reader.next_item().expect("the archive is whole") {
                total += item.content.len();
            }
            total
        });
    });
    for (name, step) in [("one item in 1000 changed", 1000), ("one item in 100 changed", 100)] {
        let changed: Vec<Item> = (0..ITEMS).step_by(step).map(|number| item(number, 1)).collect();
        group.bench_function(format!("spliced, {name}"), |bencher| {
            bencher.iter(|| update(black_box(&archive), black_box(&index), &changed));
        });
    }
    group.finish();
}

fn item(number: u64, edition: u64) -> Item {
    (format!("{number:08}"), opinion_json(number, edition).into_bytes())
}

fn make(items: &[Item], threads: usize) -> (Vec<u8>, Vec<u8>) {
    let mut options = ArchiveOptions::default();
    options.threads = threads;
    let mut writer = ArchiveWriter::new(Vec::new(), Vec::new(), "new", &options).expect("a Vec takes everything");
    for (id, content) in items {
        writer.append(id, 1_700_000_000, content).expect("the ids ascend");
    }
    let (archive, index, _) = writer.finish().expect("a Vec takes everything");
    (archive, index)
}

/// One thread: what it takes is the same then, however many cores there are.
fn update(archive: &[u8], index: &[u8], changed: &[Item]) -> u64 {
    let mut options = SpliceOptions::default();
    options.threads = 1;
    let old = IndexedArchive::open(Cursor::new(archive), Cursor::new(index), "old").expect("it is an archive");
    let changes = changed.iter().map(|(id, content)| {
        io::Result::Ok(Change::Put { id: id.clone(), mtime: 1_700_000_060, content: content.clone() })
    });
    let spliced = splice(old, changes, Vec::new(), Vec::new(), &options, |_, _| {}).expect("the changes are in order");
    spliced.replaced
}

criterion_group!(benches, archive);
criterion_main!(benches);
