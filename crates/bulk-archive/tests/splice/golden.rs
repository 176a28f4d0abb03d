//! An archive as it was made when the format was settled. Whoever changes what an archive or its index has changes this
//! test, and has to think of the archives that are there: `Redo` and `rebuild_index` are for another compressor alone.

use crate::support::{Items, Pair, apply, build, document, for_reflinks, put, remove, short};

fn golden() -> Pair {
    Pair {
        archive: include_bytes!("../data/golden.tar.gz").to_vec(),
        index: include_bytes!("../data/golden.tar.gz.idx").to_vec(),
    }
}

/// The same, made when zlib-rs was the compressor.
fn of_before() -> Pair {
    Pair {
        archive: include_bytes!("../data/golden-zlib-rs.tar.gz").to_vec(),
        index: include_bytes!("../data/golden-zlib-rs.tar.gz.idx").to_vec(),
    }
}

/// Items of all kinds: long, short and odd names, late and early times, contents that make blocks and chains.
fn golden_items() -> Items {
    let mut items: Items = (0..40u64)
        .map(|id| (format!("{id:03}"), (1_400_000_000 + id as i64, document(id, (id * 397 % 2000) as usize))))
        .collect();
    items.insert("a/b é".to_owned(), (-1, b"{}".to_vec()));
    items.insert("x".repeat(200), (1 << 40, b"[]".to_vec()));
    items.insert("z".to_owned(), (0, document(7, 9000)));
    items
}

#[test]
fn what_was_made_is_read() {
    for golden in [golden(), of_before()] {
        assert_eq!(golden.items().unwrap(), golden_items());
        let summary = golden.verify().unwrap();
        assert_eq!((summary.entries, summary.blocks), (43, 31));
    }
}

#[test]
fn what_was_made_is_made_now() {
    assert!(build(&golden_items(), &short()) == golden(), "the format has changed, or the compressor");
}

/// By their checksums, since what is between chains would be most of the files.
#[test]
fn what_was_laid_out_for_reflinks_is_laid_out_so_now() {
    let made = build(&golden_items(), &for_reflinks());
    let sums = [&made.archive, &made.index].map(|bytes| (bytes.len(), crc32fast::hash(bytes)));
    assert_eq!(sums, [(36_119, 3_296_875_276), (1961, 2_756_122_002)], "the format has changed, or the compressor");
}

#[test]
fn what_was_made_is_changed() {
    let mut items = golden_items();
    let changes = [put("000", 5, b"{}"), remove("017"), put("zz", 6, b"1")];
    let _ = apply(&mut items, &changes);
    let (next, spliced, _) = golden().splice(&changes).unwrap();
    assert!(next == build(&items, &short()));
    assert!(spliced.copied_blocks > 0, "{spliced:?}");
    let numbers: u64 = spliced.made_blocks.iter().map(|range| range.end - range.start).sum();
    assert_eq!(spliced.copied_blocks + numbers, spliced.summary.blocks);
}

#[test]
fn what_another_compressor_made_is_made_anew_when_it_changes() {
    let mut items = golden_items();
    let changes = [put("000", 5, b"{}"), remove("017"), put("zz", 6, b"1")];
    let _ = apply(&mut items, &changes);
    let (next, spliced, _) = of_before().splice(&changes).unwrap();
    assert!(next == build(&items, &short()));
    assert_eq!(spliced.copied_blocks, 0);
}
