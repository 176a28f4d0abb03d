//! The bytes of the gzip member: its header, blocks, end and trailer.

mod bit_writer;
mod encoder;
mod matcher;
mod prefix_code;
mod symbols;

use std::sync::OnceLock;

use self::{
    encoder::Encoder,
    matcher::{Effort, WINDOW},
};
use super::header::END;

/// The header of the member (RFC 1952): deflate, no name, no time, no system.
pub(crate) const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// The trailer: CRC-32 and the length modulo 2^32.
pub(crate) const TRAILER_LEN: usize = 8;

/// The end of every block: LEN and NLEN of an empty stored block (RFC 1951, 3.2.4), on whole bytes.
pub(crate) const SYNC: [u8; 4] = [0, 0, 0xff, 0xff];

/// Bytes that one byte can stand for, at most: a match gives 258 of them for a bit each of length and distance.
pub(crate) const HIGHEST_RATIO: u64 = 258 * 4;

/// The lowest level: one that compresses.
pub(crate) const LOWEST_LEVEL: u32 = 1;

/// The highest level.
pub(crate) const HIGHEST_LEVEL: u32 = 9;

pub(crate) fn trailer(crc: u32, plain_len: u64) -> [u8; TRAILER_LEN] {
    let mut trailer = [0; TRAILER_LEN];
    trailer[..4].copy_from_slice(&crc.to_le_bytes());
    trailer[4..].copy_from_slice(&(plain_len as u32).to_le_bytes());
    trailer
}

/// What the block after one with these bytes may refer to: the end of it. Never of the block before, so that a changed
/// block changes one that follows it at most.
pub(crate) fn window(plain: &[u8]) -> &[u8] {
    &plain[plain.len().saturating_sub(WINDOW)..]
}

/// More than a block of this length can take: bytes that do not compress are stored, in parts of 64 KiB at most.
pub(crate) fn longest(plain_len: u64) -> u64 {
    plain_len + plain_len / 8 + 256
}

/// Compresses blocks, each by itself: the same input gives the same bytes whatever came before.
///
/// An encoder of our own, since no library's gives both that and what a block costs that follows the one it refers to: zlib and
/// its kin read the window anew before each block, 32 KiB of it for one of 32 KiB. Its bytes do not change with the version of a
/// library, either, so that archives need not be made anew for one.
pub(crate) struct Deflate {
    encoder: Encoder,
}

impl Deflate {
    pub(crate) fn new(level: u32) -> Deflate {
        Deflate { encoder: Encoder::new(effort(level)) }
    }

    /// A block, that may refer to `window`, and ends with an empty stored block, on a whole byte. The quickest where it follows
    /// the block before it, whose end the window is.
    pub(crate) fn block(&mut self, plain: &[u8], window: &[u8]) -> Vec<u8> {
        self.encoder.flushed(plain, window)
    }

    /// The end of the tar as the last block of the stream.
    pub(crate) fn end(&mut self) -> Vec<u8> {
        self.encoder.last(&END)
    }

    /// The last block of a stream that has nothing more.
    #[cfg(all(feature = "export", unix))]
    pub(crate) fn empty_end(&mut self) -> Vec<u8> {
        self.encoder.last(&[])
    }
}

/// What a level does.
fn effort(level: u32) -> Effort {
    let (places, enough, further) = match level.clamp(LOWEST_LEVEL, HIGHEST_LEVEL) {
        1 => (2, 16, 0),
        2 => (4, 32, 0),
        3 => (10, 32, 0),
        4 => (5, 32, 1),
        5 => (8, 32, 3),
        6 => (20, 64, 8),
        7 => (64, 128, 32),
        8 => (256, 258, 128),
        _ => (1024, 258, 1024),
    };
    Effort { places, enough, further }
}

/// A mark of how blocks are compressed at this level: the CRC of what becomes of samples of several kinds. Another release may
/// find other matches, and blocks of both must not be mixed where the same entries are to give the same bytes.
pub(crate) fn engine(level: u32) -> u32 {
    static MARKS: [OnceLock<u32>; HIGHEST_LEVEL as usize + 1] = [const { OnceLock::new() }; HIGHEST_LEVEL as usize + 1];
    let mark = &MARKS[level.min(HIGHEST_LEVEL) as usize];
    if let Some(&mark) = mark.get() {
        return mark;
    }
    let mut deflate = Deflate::new(level);
    let mut crc = crc32fast::Hasher::new();
    for sample in all_samples() {
        let (before, plain) = sample.split_at(sample.len() / 3);
        crc.update(&deflate.block(plain, &[]));
        crc.update(&deflate.block(plain, window(before)));
    }
    crc.update(&deflate.end());
    *mark.get_or_init(|| crc.finalize())
}

fn all_samples() -> [Vec<u8>; 5] {
    [sample(), runs(), noise(48 * 1024), far(), numbers()]
}

/// Samples of several kinds, one behind another.
#[cfg(all(feature = "export", unix))]
pub(crate) fn samples() -> Vec<u8> {
    all_samples().concat()
}

/// Numbers that look random, the same ones each time.
fn random() -> impl FnMut() -> u64 {
    let mut state = 1u64;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    }
}

/// What does not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut next = random();
    (0..len).map(|_| (next() >> 7) as u8).collect()
}

/// Runs of one byte each, up to some longer than the longest match.
fn runs() -> Vec<u8> {
    let (mut next, mut runs) = (random(), Vec::new());
    while runs.len() < 96 * 1024 {
        let len = (next() % 700).min(next() % 700) as usize;
        runs.resize(runs.len() + len, next() as u8);
    }
    runs
}

/// Matches of all lengths and distances, beyond the window, too.
fn far() -> Vec<u8> {
    let (mut next, mut far) = (random(), noise(8 * 1024));
    while far.len() < 128 * 1024 {
        let (from, len) = (next() as usize % far.len(), 1 + (next() % 400).min(next() % 400) as usize);
        far.extend_from_within(from..(from + len).min(far.len()));
        far.push(next() as u8);
    }
    far
}

/// Few symbols, in short strings that come again: JSON of numbers.
fn numbers() -> Vec<u8> {
    let (mut next, mut numbers) = (random(), Vec::new());
    while numbers.len() < 96 * 1024 {
        let (id, count) = (next() % 100_000, (next() % 50).min(next() % 50));
        numbers.extend_from_slice(format!("{{\"id\": {id}, \"count\": {count}, \"done\": false}}, ").as_bytes());
    }
    numbers
}

/// Something like text: words that are repeated, the frequent ones more often.
fn sample() -> Vec<u8> {
    let (mut next, mut sample) = (random(), Vec::new());
    while sample.len() < 48 * 1024 {
        let word = (next() % 900).min(next() % 900);
        sample.extend_from_slice(format!("{:x} ", word * word * 7919).as_bytes());
    }
    sample
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn stream(parts: &[Vec<u8>], plain: &[u8]) -> Vec<u8> {
        let mut crc = crc32fast::Hasher::new();
        crc.update(plain);
        [&HEADER[..], &parts.concat(), &trailer(crc.finalize(), plain.len() as u64)].concat()
    }

    #[test]
    fn blocks_make_one_member() {
        let plain = sample();
        let (first, second) = plain.split_at(20_000);
        let mut deflate = Deflate::new(6);
        let parts = [deflate.block(first, &[]), deflate.block(second, window(first)), deflate.end()];
        assert!(parts[0].ends_with(&[0, 0, 0xff, 0xff]) && parts[1].ends_with(&[0, 0, 0xff, 0xff]));
        let member = stream(&parts, &[&plain[..], &END].concat());
        let mut read = Vec::new();
        let mut reader = flate2::read::GzDecoder::new(&member[..]);
        reader.read_to_end(&mut read).unwrap();
        assert!(read == [&plain[..], &END].concat());
        let alone = Deflate::new(6).block(second, &[]);
        assert!(parts[1].len() < alone.len());
        assert_eq!(Deflate::new(6).block(second, window(first)), parts[1]);
    }

    #[test]
    fn what_does_not_compress_fits() {
        let all = noise(WINDOW + 1_000_000);
        let (window, plain) = all.split_at(WINDOW);
        for len in [0, 1, 100, 70_000, 1_000_000] {
            let plain = &plain[..len];
            for level in LOWEST_LEVEL..=HIGHEST_LEVEL {
                let packed = Deflate::new(level).block(plain, window);
                assert!((len..longest(len as u64) as usize).contains(&packed.len()), "{len} {}", packed.len());
                let mut inflate = flate2::Decompress::new(false);
                inflate.set_dictionary(window).unwrap();
                let mut read = Vec::with_capacity(len + 1);
                inflate.decompress_vec(&packed, &mut read, flate2::FlushDecompress::Sync).unwrap();
                assert!(read == plain, "{len} {level}");
            }
        }
    }

    /// Zlib reads the pieces as they were, and each is what a new one makes of it, whatever came before.
    fn check(level: u32, pieces: &[&[u8]]) {
        let mut deflate = Deflate::new(level);
        let mut inflate = flate2::Decompress::new(false);
        let mut before: &[u8] = &[];
        for (at, piece) in pieces.iter().enumerate() {
            // As chains have it: some refer to nothing.
            let window = if at % 5 == 3 { &[] } else { window(before) };
            let packed = deflate.block(piece, window);
            assert!(
                packed == Deflate::new(level).block(piece, window),
                "level {level}, piece {at}: not as of a new one"
            );
            let mut read = Vec::with_capacity(piece.len() + 1);
            inflate.decompress_vec(&packed, &mut read, flate2::FlushDecompress::Sync).unwrap();
            assert!(read == *piece, "level {level}, piece {at}: not what it was");
            before = piece;
        }
    }

    #[test]
    fn what_came_before_leaves_no_trace() {
        let text: Vec<u8> =
            (0..40).flat_map(|_| sample()).enumerate().map(|(at, byte)| byte ^ (at % 977 == 0) as u8).collect();
        for level in LOWEST_LEVEL..=HIGHEST_LEVEL {
            for len in [1, 3, 4, 5, 100, 20_000, 32 * 1024, 50_000] {
                check(level, &text[..(60 * len).min(text.len())].chunks(len).collect::<Vec<_>>());
            }
        }
        for samples in all_samples() {
            check(5, &samples.chunks(7000).collect::<Vec<_>>());
        }
        // Longer than what is looked at as one.
        check(5, &text.chunks(1_200_000).collect::<Vec<_>>());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_pieces_are_read_back(
            level in LOWEST_LEVEL..=HIGHEST_LEVEL,
            kinds in prop::collection::vec((0..6usize, any::<u8>(), 0..40_000usize), 1..12),
        ) {
            let pieces: Vec<Vec<u8>> = kinds
                .iter()
                .map(|&(kind, byte, len)| match kind {
                    0 => vec![byte; len],
                    1 => noise(len),
                    2 => sample()[..len].to_vec(),
                    3 => numbers()[usize::from(byte)..][..len].to_vec(),
                    4 => far()[100 * usize::from(byte)..][..len].to_vec(),
                    _ => noise(len).iter().map(|other| other % (byte % 8 + 1)).collect(),
                })
                .collect();
            check(level, &pieces.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
    }

    #[test]
    fn levels_have_marks() {
        let marks = [1, 6, 9].map(engine);
        assert!(marks[0] != marks[1] && marks[1] != marks[2]);
    }
}
