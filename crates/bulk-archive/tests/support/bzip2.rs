use std::io::{Cursor, Read, Write};

use bulk_archive::Error;
use bzip2::{Compression, read::MultiBzDecoder, write::BzEncoder};

use super::decode_until;

pub(crate) const BLOCK: u64 = 0x3141_5926_5359;
pub(crate) const END: u64 = 0x1772_4538_5090;

pub(crate) fn compress(plain: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = BzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(plain).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

/// What the independent, serial reader makes of a file; none where it finds it damaged.
pub(crate) fn serial(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    MultiBzDecoder::new(bytes).read_to_end(&mut plain).ok().map(|_| plain)
}

/// The bits at which a magic stands.
pub(crate) fn magics(bytes: &[u8], magic: u64) -> Vec<usize> {
    let mut window = 0u64;
    let mut found = Vec::new();
    for bit in 0..bytes.len() * 8 {
        window = window << 1 | u64::from(bytes[bit / 8] >> (7 - bit % 8) & 1);
        if bit >= 47 && window & 0xffff_ffff_ffff == magic {
            found.push(bit - 47);
        }
    }
    found
}

/// How many plain bytes there are before each block, and before the end, of a good file without false magics: what the
/// serial reader gives of the file up to there.
pub(crate) fn borders(bytes: &[u8]) -> Vec<usize> {
    magics(bytes, BLOCK)
        .iter()
        .map(|block| block.div_ceil(8))
        .chain([bytes.len()])
        .map(|len| {
            let mut plain = Vec::new();
            let _ = MultiBzDecoder::new(&bytes[..len]).read_to_end(&mut plain);
            plain.len()
        })
        .collect()
}

/// A file that is damaged in a block gives what stands before that block, `before`, and an error about that block,
/// which begins at bit `block`.
#[track_caller]
pub(crate) fn check_damaged(bytes: &[u8], block: usize, before: &[u8]) {
    for threads in [1, 3] {
        let (given, outcome) = decode_until(Cursor::new(bytes.to_vec()), "a.bz2", threads);
        assert!(
            given == before,
            "given {} bytes, {} of them right; {} come before the block",
            given.len(),
            given.iter().zip(before).take_while(|(a, b)| a == b).count(),
            before.len()
        );
        match outcome {
            Err(Error::Corrupt { offset, .. }) => assert_eq!(offset, block as u64 / 8),
            other => panic!("{other:?}"),
        }
    }
}
