//! Magics that stand inside a block, as they do by chance about once in 18 TB.
//!
//! A block's list of selectors may be longer than its data need; the surplus is read and ignored. A selector is a run of
//! up to five ones and a zero, so any bits without six ones in a row can be written as surplus selectors: a magic, or
//! all of what stands between two streams.

mod support;

use std::io::Cursor;

use bulk_archive::Error;
use support::{
    Trickle,
    bzip2::{borders, check_damaged, compress, serial},
    corrupt_at, decode, decode_from, flip, hex, truncated_at,
};

const BLOCK: &str = "001100010100000101011001001001100101001101011001";
const END: &str = "000101110111001001000101001110000101000010010000";

fn to_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:08b}")).collect()
}

fn to_bytes(text: &str) -> Vec<u8> {
    let byte = |bits: &[u8]| (0..8).fold(0, |byte, i| byte << 1 | u8::from(bits.get(i) == Some(&b'1')));
    text.as_bytes().chunks(8).map(byte).collect()
}

/// Where a block's selectors are counted and where they end, given the bit at which it begins.
fn selectors(text: &str, block: usize) -> (usize, usize) {
    let number = |from: usize, len: usize| usize::from_str_radix(&text[from..from + len], 2).unwrap();
    // Magic, CRC, one bit, origin.
    let used = block + 48 + 32 + 1 + 24;
    let groups = used + 16 + 16 * text[used..used + 16].matches('1').count();
    assert_eq!(number(groups, 3), 6, "with six tables any run of five ones is a selector");
    let count = groups + 3;
    let mut end = count + 15;
    for _ in 0..number(count, 15) {
        end += text[end..].find('0').unwrap() + 1;
    }
    (count, end)
}

/// Puts what `surplus` gives, told the bit at which it will stand, after the selectors of the `n`th block.
fn insert(bytes: &[u8], n: usize, surplus: impl Fn(usize) -> String) -> Vec<u8> {
    let text = to_text(bytes);
    let (block, _) = text.match_indices(BLOCK).nth(n).unwrap();
    let (count, end) = selectors(&text, block);
    let surplus = surplus(end) + "0";
    assert!(!surplus.contains("111111"));
    let number = usize::from_str_radix(&text[count..count + 15], 2).unwrap() + surplus.matches('0').count();
    assert!(number < 1 << 15);
    let text = format!("{}{number:015b}{}{surplus}{}", &text[..count], &text[count + 15..end], &text[end..]);
    // What followed the trailer, and with it the padding, is moved: cut after the trailer.
    let trailer = text.rfind(END).unwrap() + 80;
    to_bytes(&text[..trailer])
}

#[track_caller]
fn check(bytes: &[u8], plain: &[u8]) {
    assert_eq!(serial(bytes).as_deref(), Some(plain), "the file is a good one");
    for threads in [1, 2, 5] {
        let (_, outcome) = decode_from(Cursor::new(bytes.to_vec()), "a.bz2", threads);
        assert_eq!(outcome.unwrap(), plain);
    }
    let (_, outcome) = decode_from(Trickle::new(Cursor::new(bytes.to_vec()), 20_000), "a.bz2", 2);
    assert_eq!(outcome.unwrap(), plain);
}

#[test]
fn a_magic_at_each_bit() {
    let plain = hex(250_000, 1);
    let bytes = compress(&plain, 1);
    for magic in [BLOCK, END] {
        for shift in 0..8 {
            for n in 0..3 {
                let bytes = insert(&bytes, n, |_| "0".repeat(shift) + magic);
                assert_eq!(to_text(&bytes).matches(magic).count(), if magic == BLOCK { 4 } else { 2 });
                check(&bytes, &plain);
            }
        }
    }
}

#[test]
fn many_magics() {
    let plain = hex(350_000, 2);
    let mut bytes = compress(&plain, 2);
    bytes = insert(&bytes, 0, |_| [BLOCK, END, "0010", BLOCK, BLOCK, END].concat().repeat(80));
    let after = to_text(&bytes).matches(BLOCK).count() - 1;
    bytes = insert(&bytes, after, |_| [END, BLOCK, "10"].concat().repeat(120));
    check(&bytes, &plain);
}

#[test]
fn magics_that_overlap() {
    // The last three bits of a block magic are the first three of another, and so on.
    let plain = hex(150_000, 3);
    let bytes = insert(&compress(&plain, 1), 0, |_| {
        [BLOCK, "1001", &BLOCK[3..], "0", &END[..45], &END[1..], &END[3..], &BLOCK[2..], "10"].concat()
    });
    check(&bytes, &plain);
    let overlapping = BLOCK[..45].to_owned() + BLOCK;
    assert_eq!((&overlapping[..48] == BLOCK, &overlapping[45..]), (true, BLOCK));
    let bytes = insert(&compress(&plain, 1), 0, |_| overlapping.clone());
    check(&bytes, &plain);
    let overlapping = END[..45].to_owned() + END;
    assert_eq!((&overlapping[..48] == END, &overlapping[45..]), (true, END));
    let bytes = insert(&compress(&plain, 1), 1, |_| overlapping.repeat(3));
    check(&bytes, &plain);
}

#[test]
fn a_false_end_of_stream_and_a_false_header() {
    // Blocks of 200 kB follow what looks like the beginning of a stream whose blocks have 100 kB at most.
    let plain = hex(650_000, 4);
    let header = to_text(b"BZh1");
    for n in 0..3 {
        let bytes = insert(&compress(&plain, 2), n, |at| {
            let padding = (8 - (at + 80) % 8) % 8;
            [END, &BLOCK[..32], &"0".repeat(padding), &header, BLOCK].concat()
        });
        assert_eq!(to_text(&bytes).matches(&(header.clone() + BLOCK)).count(), 1);
        check(&bytes, &plain);
    }
}

#[test]
fn damage_behind_a_false_magic_is_found() {
    let plain = hex(250_000, 5);
    let bytes = insert(&compress(&plain, 1), 1, |_| BLOCK.to_owned() + END);
    let text = to_text(&bytes);
    let blocks: Vec<usize> = text.match_indices(BLOCK).map(|(at, _)| at).collect();
    assert_eq!(blocks.len(), 4);
    let mut damaged = bytes.clone();
    damaged[(blocks[2] / 8 + blocks[3] / 8) / 2] ^= 1;
    assert_eq!(corrupt_at(decode(&damaged, "a.bz2")), Some(blocks[1] as u64 / 8));
    assert_eq!(truncated_at(decode(&bytes[..blocks[3] / 8 - 100], "a.bz2")), Some(blocks[1] as u64 / 8));
    // The false one is where the file ends.
    assert_eq!(truncated_at(decode(&bytes[..blocks[2] / 8 + 20], "a.bz2")), Some(blocks[1] as u64 / 8));
}

/// Where the blocks of a file with a false block magic begin and end: in the `n`th one it stands.
fn blocks(bytes: &[u8], n: usize) -> Vec<(usize, usize)> {
    let text = to_text(bytes);
    let mut at: Vec<usize> = text.match_indices(BLOCK).map(|(at, _)| at).collect();
    at.remove(n + 1);
    at.push(text.rfind(END).unwrap());
    at.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

#[test]
fn nothing_of_a_damaged_block_is_handed_out() {
    // A block of 500 kB is handed out in two pieces.
    let plain = hex(1_200_000, 6);
    let good = compress(&plain, 5);
    let borders = borders(&good);
    for n in 0..3 {
        let bytes = insert(&good, n, |_| BLOCK.to_owned());
        check(&bytes, &plain);
        for ((start, end), &border) in blocks(&bytes, n).into_iter().zip(&borders) {
            for at in [start + 48, start + 79, start.midpoint(end), end - 40] {
                check_damaged(&flip(&bytes, at), start, &plain[..border]);
            }
        }
    }
}

#[test]
fn nothing_of_a_damaged_block_whose_level_was_guessed_wrong_is_handed_out() {
    let plain = hex(1_200_000, 7);
    let good = compress(&plain, 5);
    let borders = borders(&good);
    let bytes = insert(&good, 0, |at| {
        let padding = (8 - (at + 80) % 8) % 8;
        [END, &BLOCK[..32], &"0".repeat(padding), &to_text(b"BZh1"), BLOCK].concat()
    });
    check(&bytes, &plain);
    for ((start, end), &border) in blocks(&bytes, 0).into_iter().zip(&borders) {
        for at in [start + 48, start + 79, start.midpoint(end), end - 40] {
            check_damaged(&flip(&bytes, at), start, &plain[..border]);
        }
    }
}

#[test]
fn magics_and_nothing_else() {
    let bytes = to_bytes(&(to_text(b"BZh9") + &BLOCK.repeat(40_000)));
    assert!(matches!(decode(&bytes, "a.bz2"), Err(Error::Corrupt { offset: 4, .. })));
    let bytes = to_bytes(&(to_text(b"BZh9") + &END.repeat(40_000)));
    assert!(matches!(decode(&bytes, "a.bz2"), Err(Error::Corrupt { offset: 4, .. })));
}
