//! Damaged archives and indexes end in errors, not in panics or wrong items.

use std::sync::LazyLock;

use bulk_archive::{ArchiveIndex, Error, verify_blocks};
use proptest::{prelude::*, sample::Index};

use crate::support::{NAME, Pair, apply, build, for_reflinks, items, put, remove, short};

fn pair() -> Pair {
    static PAIR: LazyLock<Pair> = LazyLock::new(|| build(&items(0..120, 2500), &short()));
    PAIR.clone()
}

fn is_bad_index<T>(outcome: Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Index { .. }))
}

fn is_mismatch<T>(outcome: Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::IndexMismatch { .. }))
}

/// Whatever can be done with a pair of which one is damaged ends in an error or in the truth.
fn survive(damaged: &Pair, whole: &Pair) -> Result<(), TestCaseError> {
    let changes = [put("000030", 1, b"[]"), remove("000080")];
    let (expected, ..) = whole.splice(&changes).unwrap();
    if let Ok((spliced, ..)) = damaged.splice(&changes) {
        // Damage in a block that is copied passes on; it does not go unseen, unless it is in bits that mean nothing.
        prop_assert!(spliced == expected || spliced.verify().is_err() || spliced.items().ok() == expected.items().ok());
    }
    if let Ok(items) = damaged.items() {
        prop_assert!(items == whole.items().unwrap());
    }
    if let Ok(index) = damaged.rebuilt(&short()) {
        prop_assert!(index == whole.index);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_flipped_bit_of_the_archive_is_found_if_it_means_something(at: Index, bit in 0..8) {
        let whole = pair();
        let mut damaged = whole.clone();
        let at = at.index(damaged.archive.len());
        damaged.archive[at] ^= 1u8 << bit;
        // Some bits fill the last byte of a block.
        prop_assert!(damaged.verify().is_err() || damaged.items().ok() == whole.items().ok());
        survive(&damaged, &whole)?;
    }

    #[test]
    fn a_flipped_bit_of_the_index_is_found(at: Index, bit in 0..8) {
        let whole = pair();
        let mut damaged = whole.clone();
        let at = at.index(damaged.index.len());
        damaged.index[at] ^= 1u8 << bit;
        prop_assert!(is_bad_index(damaged.verify()));
        prop_assert!(is_bad_index(damaged.splice(&[remove("000080")])));
    }

    #[test]
    fn a_cut_is_found(archive: Index, index: Index) {
        let whole = pair();
        let mut damaged = whole.clone();
        damaged.archive.truncate(archive.index(whole.archive.len()));
        prop_assert!(is_mismatch(damaged.splice(&[])));
        prop_assert!(damaged.items().is_err());
        survive(&damaged, &whole)?;
        let mut damaged = whole.clone();
        damaged.index.truncate(index.index(whole.index.len()));
        prop_assert!(is_bad_index(damaged.verify()));
    }

    #[test]
    fn records_that_lie_are_found(at: Index, byte: u8) {
        // A byte of a record is changed and all checksums are made to fit.
        let whole = pair();
        let mut damaged = whole.clone();
        let records = records(&damaged.index);
        let (start, len) = records[at.index(records.len())];
        let target = start + at.index(len);
        damaged.index[target] = byte;
        make_checksums_fit(&mut damaged.index, start, len);
        prop_assert!(damaged == whole || damaged.verify().is_err());
        let _ = damaged.splice(&[put("000030", 1, b"[]"), remove("000080")]);
    }
}

/// Behind the last bytes of a block stands an empty one: where its first bits say that it is the last of the stream, or
/// another kind of block, all bytes of the block are as they were, and no reader finds the next one.
#[test]
fn a_block_that_does_not_end_for_readers_is_found() {
    let whole = pair();
    let mut index = ArchiveIndex::open(std::io::Cursor::new(&whole.index), NAME).unwrap();
    let mut blocks = 0;
    while let Some(block) = index.next_block().unwrap() {
        blocks += 1;
        let end = (block.offset() + block.len()) as usize;
        assert_eq!(whole.archive[end - 4..end], [0, 0, 0xff, 0xff]);
        let mut ends = 0;
        // The three bits before its length, which begins with a whole byte, are in one byte or in two.
        for bit in 0..16 {
            let mut damaged = whole.clone();
            damaged.archive[end - 5 - bit / 8] ^= 1 << (bit % 8);
            if damaged.items().is_err() {
                ends += 1;
                assert!(damaged.verify().is_err(), "block {blocks}, bit {bit}");
            }
        }
        assert!(ends > 0, "block {blocks}");
    }
    assert!(blocks > 20, "{blocks}");
}

/// Where the body of each record is, and how long.
fn records(index: &[u8]) -> Vec<(usize, usize)> {
    let mut records = Vec::new();
    let mut at = 32;
    loop {
        let len = u32::from_le_bytes(index[at..at + 4].try_into().unwrap()) as usize;
        if len == 0 {
            return records;
        }
        records.push((at + 4, len));
        at += len + 8;
    }
}

/// Makes the checksums of an index fit a record that was changed.
fn make_checksums_fit(index: &mut [u8], start: usize, len: usize) {
    let crc = crc32fast::hash(&index[start..start + len]).to_le_bytes();
    index[start + len..start + len + 4].copy_from_slice(&crc);
    let end = index.len() - 48;
    let crc = crc32fast::hash(&index[..end]).to_le_bytes();
    index[end + 36..end + 40].copy_from_slice(&crc);
    let crc = crc32fast::hash(&index[end..end + 40]).to_le_bytes();
    index[end + 40..end + 44].copy_from_slice(&crc);
}

/// Blocks of which one begins before the last item of the one before it.
#[test]
fn blocks_that_overlap_are_found() {
    let whole = pair();
    let mut index = ArchiveIndex::open(std::io::Cursor::new(&whole.index), NAME).unwrap();
    let mut blocks = Vec::new();
    while let Some(block) = index.next_block().unwrap() {
        blocks.push(block.entries().unwrap());
    }
    // Ids count up, so that this block's first shares all but the last digit with the one before.
    let at = (1..blocks.len())
        .find(|&at| blocks[at - 1].len() > 1 && blocks[at][0].id.ends_with(['2', '3', '4', '5', '6', '7', '8', '9']))
        .unwrap();
    let (last, first) = (blocks[at - 1].last().unwrap().id.clone(), blocks[at][0].id.clone());
    let (start, len) = records(&whole.index)[at];
    let place = whole.index[start..].windows(6).position(|bytes| bytes == first.as_bytes()).unwrap();
    let mut damaged = whole.clone();
    // Its first id is the last one of the block before it.
    damaged.index[start + place..start + place + 6].copy_from_slice(last.as_bytes());
    make_checksums_fit(&mut damaged.index, start, len);
    let changes = [put(&blocks[at - 1][0].id, 1, b"{}")];
    assert!(is_bad_index(damaged.splice(&changes)));
    assert!(whole.splice(&changes).is_ok());
}

#[test]
fn damage_in_what_was_made_is_found_by_reading_that() {
    let whole = pair();
    let (next, spliced, _) = whole.splice(&[put("000060", 1, b"{}"), put("000090", 1, b"[]")]).unwrap();
    let mut index = ArchiveIndex::open(std::io::Cursor::new(&next.index), NAME).unwrap();
    let (mut made, mut copied, mut number) = (0, 0, 0);
    assert_eq!(verify_blocks(next.open().unwrap(), &spliced.made_blocks).unwrap(), spliced.summary);
    while let Some(block) = index.next_block().unwrap() {
        let mut damaged = next.clone();
        damaged.archive[(block.offset() + block.len() / 2) as usize] ^= 1;
        assert!(damaged.verify().is_err(), "block {number}");
        let found = verify_blocks(damaged.open().unwrap(), &spliced.made_blocks).is_err();
        if spliced.made_blocks.iter().any(|range| range.contains(&number)) {
            assert!(found, "block {number}");
            made += 1;
        } else if !found {
            copied += 1;
        }
        number += 1;
    }
    assert_eq!(number, spliced.summary.blocks);
    assert_eq!(made, number - spliced.copied_blocks);
    // Those before them in their chains are read, too.
    assert!(copied > number / 2, "{copied} of {number}");
}

#[test]
fn damage_before_a_chain_is_found() {
    let mut model = items(0..120, 2500);
    let whole = build(&model, &for_reflinks());
    // The first item of a chain, so that what stands before it is beside something new; and one in the middle of another, so
    // that something else stands before the next one, between two that are copied.
    let mut index = ArchiveIndex::open(std::io::Cursor::new(&whole.index), NAME).unwrap();
    let mut blocks = Vec::new();
    while let Some(block) = index.next_block().unwrap() {
        blocks.push(block);
    }
    let chains: Vec<usize> = (0..blocks.len()).filter(|&at| blocks[at].begins_chain()).collect();
    assert!(chains.len() > 5 && chains[3] - chains[2] > 3);
    let (first, middle) = (blocks[chains[1]].first_id(), blocks[chains[2]].first_id());
    let changes = [put(first, 1, b"{}"), put(middle, 1, b"{}")];
    let _ = apply(&mut model, &changes);
    let (next, spliced, _) = whole.splice(&changes).unwrap();
    assert!(next == build(&model, &for_reflinks()));
    let mut index = ArchiveIndex::open(std::io::Cursor::new(&next.index), NAME).unwrap();
    let (mut end, mut number, mut was_made) = (10, 0, false);
    let (mut fillers, mut of_made) = (0, 0);
    let mut between_copies = false;
    while let Some(block) = index.next_block().unwrap() {
        let is_made = spliced.made_blocks.iter().any(|range| range.contains(&number));
        for at in (end..block.offset()).step_by(31) {
            let mut damaged = next.clone();
            damaged.archive[at as usize] ^= 0x40;
            let error = damaged.verify().unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "byte {at}: {error}");
            // Where it stands beside one that was made anew, it is looked at with this one.
            let found = verify_blocks(damaged.open().unwrap(), &spliced.made_blocks).is_err();
            assert_eq!(found, is_made || was_made, "byte {at}");
            // Of a copied block what stands before it is as new as its place.
            let was_there = blocks.iter().any(|old| old.first_id() == block.first_id() && old.crc() == block.crc());
            between_copies |= found && was_there && !was_made;
            of_made += usize::from(found);
            fillers += 1;
        }
        (end, number, was_made) = (block.offset() + block.len(), number + 1, is_made);
    }
    assert!(of_made > 0 && fillers > of_made && between_copies, "{of_made} of {fillers}");
}

#[test]
fn what_is_no_archive_is_refused() {
    let whole = pair();
    let long = Pair { archive: [&whole.archive[..], b"more"].concat(), index: whole.index.clone() };
    assert!(matches!(long.open().err(), Some(Error::IndexMismatch { .. })));
    assert!(matches!(long.rebuilt(&short()), Err(Error::Corrupt { .. })));
    let none = Pair { archive: Vec::new(), index: whole.index.clone() };
    assert!(matches!(none.rebuilt(&short()), Err(Error::NotCanonical { offset: 0, .. })));
    assert!(matches!(none.items(), Err(Error::Truncated { .. })));
    // Another tar: one with a folder.
    let mut tar = vec![0; 512];
    tar[..2].copy_from_slice(b"a/");
    tar[156] = b'5';
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, &tar).unwrap();
    let other = Pair { archive: gzip.finish().unwrap(), index: Vec::new() };
    let error = other.rebuilt(&short()).unwrap_err();
    assert_eq!(error.to_string(), format!("{NAME}: bad tar at its byte 0: an entry that was not written here"));
}
