//! The decoder of blocks against the trusted one.

use std::io::Write;

use ::bzip2::{Compression, write::BzEncoder};
use proptest::prelude::*;

use super::*;
use crate::bzip2::{
    bits::Bits,
    scan::{Magic, Opening, Scanner},
    trusted::{Checked, TrustedDecoder},
};

fn compress(plain: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = BzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(plain).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

fn blocks(bytes: &[u8]) -> Vec<Segment> {
    let mut scanner = Scanner::new(bytes);
    std::iter::from_fn(|| scanner.segment().expect("a slice does not fail"))
        .filter(|segment| segment.opening == Opening::Magic(Magic::Block))
        .collect()
}

/// What the decoder makes of a segment, written in pieces of this length.
fn decode(decoder: &mut BlockDecoder, segment: &Segment, piece_len: usize) -> Option<(Vec<u8>, u32)> {
    let mut block = decoder.decode(segment).ok()?;
    let mut plain = Vec::new();
    let mut piece = Vec::with_capacity(piece_len);
    loop {
        let more = block.write(&mut piece);
        plain.append(&mut piece);
        if !more {
            return Some((plain, block.crc));
        }
    }
}

fn decode_trusted(segment: &Segment) -> Option<(Vec<u8>, u32)> {
    let mut scratch = Vec::with_capacity(1 << 16);
    let Ok(Checked::Block(mut block)) = TrustedDecoder::new(segment.level, segment).check(&mut scratch) else {
        return None;
    };
    assert!(scratch.is_empty());
    let mut plain = Vec::new();
    loop {
        plain.reserve(1 << 16);
        if !block.write(&mut plain).expect("it was checked") {
            return Some((plain, block.crc));
        }
    }
}

/// Every block of a good file is decoded, as the trusted decoder does it.
#[track_caller]
fn check(bytes: &[u8], piece_len: usize) -> Vec<u8> {
    let mut decoder = BlockDecoder::new();
    blocks(bytes)
        .iter()
        .flat_map(|segment| {
            let (plain, crc) = decode(&mut decoder, segment, piece_len).expect("a good block");
            let (expected, expected_crc) = decode_trusted(segment).expect("a good block");
            assert!(plain == expected, "{} bytes at level {}", expected.len(), segment.level);
            assert_eq!(crc, expected_crc);
            plain
        })
        .collect()
}

fn flip(bytes: &mut [u8], bit: usize) {
    bytes[bit / 8] ^= 0x80 >> (bit % 8);
}

/// Replaces bits of `bytes`, from bit `at` on.
fn put(bytes: &mut Vec<u8>, at: usize, value: u32) {
    let mut bits = Bits::default();
    bits.push(bytes, 0, at);
    bits.push(&value.to_be_bytes(), 0, 32);
    bits.push(bytes, at + 32, bytes.len() * 8 - at - 32);
    *bytes = bits.into_bytes();
}

fn noise(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed | 1;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    }
}

/// Bytes of some kind: noise of an alphabet, words, runs, a short text again and again, a long one now and then
/// changed.
fn sample(kind: u8, size: usize, len: usize, seed: u64) -> Vec<u8> {
    let mut random = noise(seed);
    let byte = |n: usize| (n * 151 + seed as usize) as u8;
    let mut plain = Vec::with_capacity(len + 700);
    let unit: Vec<u8> = (0..if kind == 4 { 5_000 } else { size }).map(|_| byte(random(256))).collect();
    while plain.len() < len {
        match kind {
            0 => plain.push(byte(random(size))),
            1 => plain.extend_from_slice([b"the ".as_slice(), b"court ", b"of ", b"appeals\n", b"\"1\","][random(5)]),
            2 => {
                let longest = [3, 6, 300, 600][random(4)];
                let run = 1 + random(longest);
                plain.extend(std::iter::repeat_n(byte(random(size)), run));
            }
            3 => plain.extend_from_slice(&unit),
            _ => {
                plain.extend_from_slice(&unit);
                plain.push(byte(random(256)));
            }
        }
    }
    plain.truncate(len);
    plain
}

/// Bytes among which there are no four equal ones in a row, so that nothing is added to them.
fn runless(len: usize) -> Vec<u8> {
    (0..len).map(|i| if i % 3 == 2 { b',' } else { b'0' + (i * i % 101 / 7) as u8 }).collect()
}

#[test]
fn files_of_other_programs() {
    let plain = check(include_bytes!("../../../tests/data/bzip2.csv.bz2"), 1000);
    assert_eq!(check(include_bytes!("../../../tests/data/lbzip2.csv.bz2"), 1000), plain);
    assert_eq!(check(include_bytes!("../../../tests/data/python.csv.bz2"), 1000), plain);
}

#[test]
fn a_block_as_long_as_its_level_allows() {
    for level in 1..=8 {
        let len = 100_000 * level as usize;
        let plain = runless(len);
        let mut bytes = compress(&plain, level + 1);
        bytes[3] -= 1;
        assert!(check(&bytes, 1 << 18) == plain, "level {level}");
        let mut bytes = compress(&runless(len + 1), level + 1);
        bytes[3] -= 1;
        let blocks = blocks(&bytes);
        assert_eq!(decode(&mut BlockDecoder::new(), &blocks[0], 1 << 18), None);
        assert_eq!(decode_trusted(&blocks[0]), None);
    }
    // bzip2 itself never fills a block up; lbzip2 does.
    let bytes = include_bytes!("../../../tests/data/lbzip2-full.csv.bz2");
    let mut decoder = BlockDecoder::new();
    assert!(decoder.decode(&blocks(bytes)[0]).is_ok());
    assert_eq!(decoder.column.bytes().len(), 900_000);
    assert_eq!(check(bytes, 1 << 18).len(), 900_000);
}

#[test]
fn runs_of_every_length() {
    let plain: Vec<u8> = (1..=600).flat_map(|len| std::iter::repeat_n(b'a' + (len % 7) as u8, len)).collect();
    assert_eq!(check(&compress(&plain, 9), 1000), plain);
    for len in (1..=1_100).chain([100_000, 5_000_000]) {
        assert_eq!(check(&compress(&vec![b'z'; len], 1), 1 << 16), vec![b'z'; len]);
    }
}

#[test]
fn every_period() {
    for period in 1..=40 {
        let plain = sample(3, period, 70_000, period as u64);
        assert_eq!(check(&compress(&plain, 1), 1 << 16), plain, "{period}");
    }
}

#[test]
fn few_bytes() {
    for len in 1..=40 {
        let plain = sample(0, 256, len, len as u64);
        assert_eq!(check(&compress(&plain, 1), 3), plain);
    }
}

#[test]
fn a_randomised_block_is_left_to_the_trusted_decoder() {
    // So short a block is not changed by it.
    let mut bytes = compress(b"id,name\n1,a\n", 9);
    let expected = check(&bytes, 100);
    flip(&mut bytes, 32 + 48 + 32);
    let blocks = blocks(&bytes);
    assert_eq!(decode(&mut BlockDecoder::new(), &blocks[0], 100), None);
    assert_eq!(decode_trusted(&blocks[0]).map(|(plain, _)| plain), Some(expected));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn good_blocks(
        (kind, size) in (0u8..5, 1usize..=256),
        len in prop_oneof![3 => 1usize..20_000, 1 => 1usize..400_000],
        level in 1u32..=9,
        piece_len in 1usize..200_000,
        seed: u64,
    ) {
        let plain = sample(kind, size, len, seed);
        prop_assert!(check(&compress(&plain, level), piece_len) == plain);
    }

    #[test]
    fn damaged_blocks(
        (kind, size) in (0u8..5, 1usize..=256),
        len in prop_oneof![4 => 1usize..300, 2 => 1usize..20_000, 1 => 1usize..250_000],
        damage in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..4),
        seed: u64,
    ) {
        let mut bytes = compress(&sample(kind, size, len, seed), 1);
        for (early, bit) in damage {
            // Much of what can go wrong is in the first bits after the magic and the CRC.
            let bits = if early { (bytes.len() * 8 - 112).min(2_000) } else { bytes.len() * 8 - 112 };
            flip(&mut bytes, 112 + bit.index(bits));
        }
        let mut decoder = BlockDecoder::new();
        for segment in blocks(&bytes) {
            if let Some(decoded) = decode(&mut decoder, &segment, 1 << 18) {
                prop_assert!(decode_trusted(&segment) == Some(decoded));
            }
        }
        // With the CRC that it ought to have, a damaged block may be another good one.
        for segment in blocks(&bytes) {
            if let Ok(crc) = decoder.restore(&segment) {
                let mut bytes = bytes.clone();
                put(&mut bytes, segment.start as usize + MAGIC_BITS, crc);
                let segments = blocks(&bytes);
                let segment = segments.iter().find(|other| other.start == segment.start).expect("none is lost");
                let decoded = decode(&mut decoder, segment, 1 << 18);
                prop_assert!(decoded.is_some());
                prop_assert!(decode_trusted(segment) == decoded);
            }
        }
    }
}
