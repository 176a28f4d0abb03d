//! Damaged archives and indexes, and others than ours: they end in errors, or in the truth.

use std::io::{Cursor, Write};
use std::sync::LazyLock;

use bulk_archive::{ArchiveIndex, ArchiveOptions, Change, Error, IndexedArchive, changes_anything, verify};

use crate::Take;
use crate::splice::{Items, NAME, Pair, build, document};
use crate::tar::sealed;

/// See the module.
pub fn target(data: &[u8]) {
    let mut take = Take::new(data);
    let kind = take.byte();
    let reflink = kind / 6 % 2 == 1;
    match kind % 6 {
        0 => damaged_archive(take, reflink),
        1 => damaged_index(take, reflink),
        2 => records_that_lie(take, reflink),
        3 => foreign_tar(take.rest()),
        4 => foreign_archive(take.rest()),
        _ => foreign_index(take.rest()),
    }
}

fn options(reflink: bool) -> ArchiveOptions {
    let mut options = ArchiveOptions::default();
    (options.threads, options.level, options.block_len, options.chain_len) = (1, 6, 1024, 6 * 1024);
    options.reflink = reflink;
    options
}

fn whole(reflink: bool) -> &'static Pair {
    static PAIRS: LazyLock<[Pair; 2]> = LazyLock::new(|| {
        let item = |number: u64| {
            (format!("{number:03}"), (number as i64 * 977, document(number, (number * 7919 % 700) as usize)))
        };
        let items = (0..40).map(item).collect();
        [false, true].map(|reflink| build(&items, &options(reflink)))
    });
    &PAIRS[usize::from(reflink)]
}

fn changes() -> [Change; 2] {
    [Change::Put { id: "010".to_owned(), mtime: 1, content: b"[]".to_vec() }, Change::Remove { id: "030".to_owned() }]
}

/// Some bytes of `bytes`, from `start` to `end`, are others.
fn damage(take: &mut Take<'_>, bytes: &mut [u8], start: usize, end: usize) {
    for _ in 0..1 + take.below(8) {
        let at = start + usize::from(take.two()) % (end - start);
        match take.byte() {
            0 => bytes[at] = take.byte(),
            bits => bytes[at] ^= bits,
        }
    }
}

fn damaged_archive(mut take: Take<'_>, reflink: bool) {
    let mut pair = whole(reflink).clone();
    if take.byte() & 1 == 0 {
        let len = pair.archive.len();
        damage(&mut take, &mut pair.archive, 0, len);
    } else {
        let len = usize::from(take.two()) % pair.archive.len();
        pair.archive.truncate(len);
    }
    let items = pair.items();
    if let Ok(items) = &items {
        assert!(*items == whole(reflink).items().expect("our own"));
    }
    if pair.verify().is_ok() {
        assert!(items.is_ok());
    }
    if let Ok((spliced, ..)) = pair.splice(&changes()) {
        // Damage in a block that is copied passes on, and is found there, unless it is in bits that mean nothing.
        let (expected, ..) = whole(reflink).splice(&changes()).expect("our own");
        assert!(
            spliced == expected
                || spliced.verify().is_err()
                || spliced.items().ok() == Some(expected.items().expect("our own"))
        );
    }
    if let Ok(index) = pair.rebuilt(&options(reflink)) {
        assert!(index == whole(reflink).index);
    }
}

fn damaged_index(mut take: Take<'_>, reflink: bool) {
    let mut pair = whole(reflink).clone();
    let len = pair.index.len();
    damage(&mut take, &mut pair.index, 0, len);
    if take.byte() & 1 != 0 {
        pair.index.truncate(usize::from(take.two()) % len);
    }
    if pair != *whole(reflink) {
        assert!(matches!(pair.verify(), Err(Error::Index { .. })));
        assert!(matches!(pair.splice(&changes()), Err(Error::Index { .. })));
    }
}

/// Records of which something is wrong, and all checksums right.
fn records_that_lie(mut take: Take<'_>, reflink: bool) {
    let mut pair = whole(reflink).clone();
    let end = pair.index.len() - FOOTER;
    damage(&mut take, &mut pair.index, HEADER, end);
    make_checksums_fit(&mut pair.index);
    if pair != *whole(reflink) {
        assert!(pair.verify().is_err());
    }
    let _ = pair.splice(&changes());
    read_index(&pair.index);
}

/// What an index says of itself, to its end.
fn read_index(bytes: &[u8]) {
    let Ok(mut index) = ArchiveIndex::open(Cursor::new(bytes), NAME) else { return };
    let (mut blocks, mut entries, mut offset) = (0, 0, None);
    let summary = index.summary();
    loop {
        match index.next_block() {
            Ok(Some(block)) => {
                let is_filled = index.options().reflink && block.begins_chain() && block.offset().is_multiple_of(4096);
                assert!(offset.is_none_or(|offset| block.offset() == offset || (is_filled && block.offset() > offset)));
                offset = block.offset().checked_add(block.len());
                blocks += 1;
                let Ok(all) = block.entries() else { return };
                assert!(all.first().is_none_or(|first| first.id == block.first_id()));
                assert!(all.is_sorted_by(|one, other| one.id < other.id));
                entries += all.len() as u64;
            }
            Ok(None) => {
                assert_eq!((blocks, entries), (summary.blocks, summary.entries));
                return;
            }
            Err(_) => return,
        }
    }
}

fn foreign_index(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    read_index(&bytes);
    make_checksums_fit(&mut bytes);
    read_index(&bytes);
    if let Ok(index) = ArchiveIndex::open(Cursor::new(&bytes), NAME) {
        let _ = changes_anything(index, changes().map(Ok), Default::default());
    }
    if let Ok(pair) = IndexedArchive::open(Cursor::new(&whole(false).archive), Cursor::new(&bytes[..]), NAME) {
        let _ = verify(pair);
    }
    let pair = Pair { archive: whole(false).archive.clone(), index: bytes };
    let _ = pair.splice(&changes());
}

/// A tar as others may write it.
fn foreign_tar(bytes: &[u8]) {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&sealed(bytes)).expect("memory");
    foreign_archive(&gzip.finish().expect("memory"));
}

fn foreign_archive(bytes: &[u8]) {
    let pair = Pair { archive: bytes.to_vec(), index: Vec::new() };
    let Ok(items) = pair.items() else { return };
    // They can be items of ours, if each has its own id.
    let made: Items = items;
    let ours = build(&made, &options(false));
    assert!(ours.items().expect("our own") == made);
    if let Ok(index) = pair.rebuilt(&options(false)) {
        assert!(pair.archive == ours.archive && index == ours.index);
    }
}

const HEADER: usize = 32;
const FOOTER: usize = 48;

/// Makes all checksums of an index fit what it has, as far as it is one.
fn make_checksums_fit(index: &mut [u8]) {
    let crc = |bytes: &[u8]| crc32fast::hash(bytes).to_le_bytes();
    if index.len() < HEADER + 4 + FOOTER {
        return;
    }
    let sum = crc(&index[..HEADER - 4]);
    index[HEADER - 4..HEADER].copy_from_slice(&sum);
    let footer = index.len() - FOOTER;
    let mut at = HEADER;
    while let Some(len) = index[..footer].get(at..).and_then(|rest| rest.first_chunk::<4>()) {
        let len = u32::from_le_bytes(*len) as usize;
        let (start, Some(end)) = (at + 4, (at + 4).checked_add(len)) else { break };
        if len == 0 || end + 4 > footer {
            break;
        }
        let sum = crc(&index[start..end]);
        index[end..end + 4].copy_from_slice(&sum);
        at = end + 4;
    }
    let sum = crc(&index[..footer]);
    index[footer + 36..footer + 40].copy_from_slice(&sum);
    let sum = crc(&index[footer..footer + 40]);
    index[footer + 40..footer + 44].copy_from_slice(&sum);
}
