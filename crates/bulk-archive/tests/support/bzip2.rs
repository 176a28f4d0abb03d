use std::io::{Read, Write};

use bzip2::{Compression, read::MultiBzDecoder, write::BzEncoder};

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
