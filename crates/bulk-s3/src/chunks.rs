//! A file as a row of chunks whose borders follow from its content, so that those of two editions are the same where their
//! bytes are, wherever these stand.
//!
//! A border is where a hash of the 64 bytes before it, which rolls along, has a certain form. The hash is that of FastCDC
//! (<https://www.usenix.org/conference/atc16/technical-sessions/presentation/xia>).

use bulk_core::{Algorithm, Digest, Hasher};

/// No chunk but the last is shorter.
const LEAST: usize = 32 * 1024;
/// No chunk is longer.
pub(crate) const MOST: usize = 512 * 1024;
/// Behind the least length each byte is the last one with a chance of 1 in 65,536.
const BITS: u32 = 16;

/// Random numbers, by SplitMix64 of 0. Another table finds other borders, so what was noted of objects would be of no use.
const GEAR: [u64; 256] = {
    let (mut table, mut state, mut at) = ([0; 256], 0_u64, 0);
    while at < table.len() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[at] = mixed ^ (mixed >> 31);
        at += 1;
    }
    table
};

/// A stretch of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Bytes, at least 1.
    pub(crate) len: u32,
    pub(crate) sha256: [u8; 32],
}

/// Finds the chunks of bytes that come piece by piece.
pub(crate) struct Chunker {
    chunks: Vec<Chunk>,
    /// Of the chunk under way.
    len: usize,
    hash: u64,
    hasher: Hasher,
}

impl Chunker {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new(), len: 0, hash: 0, hasher: sha256() }
    }

    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (taken, is_whole) = self.walk(bytes);
            self.hasher.update(&bytes[..taken]);
            self.len += taken;
            if is_whole {
                self.cut();
            }
            bytes = &bytes[taken..];
        }
    }

    pub(crate) fn finish(mut self) -> Vec<Chunk> {
        if self.len > 0 {
            self.cut();
        }
        self.chunks
    }

    /// How many of the bytes belong to the chunk under way, and whether it ends with them.
    fn walk(&mut self, bytes: &[u8]) -> (usize, bool) {
        let most = bytes.len().min(MOST - self.len);
        for (at, byte) in bytes[..most].iter().enumerate().skip(LEAST.saturating_sub(self.len)) {
            self.hash = (self.hash << 1).wrapping_add(GEAR[usize::from(*byte)]);
            if self.hash >> (u64::BITS - BITS) == 0 {
                return (at + 1, true);
            }
        }
        (most, self.len + most == MOST)
    }

    fn cut(&mut self) {
        let hasher = std::mem::replace(&mut self.hasher, sha256());
        self.chunks.push(Chunk { len: self.len as u32, sha256: digest(hasher) });
        (self.len, self.hash) = (0, 0);
    }
}

impl Chunk {
    /// Whether these are its bytes.
    pub(crate) fn is(&self, bytes: &[u8]) -> bool {
        let mut hasher = sha256();
        hasher.update(bytes);
        bytes.len() == self.len as usize && digest(hasher) == self.sha256
    }
}

fn sha256() -> Hasher {
    Hasher::new(&[Algorithm::Sha256])
}

/// Of a hasher that makes one SHA-256.
fn digest(hasher: Hasher) -> [u8; 32] {
    match hasher.finish().first() {
        Some(Digest::Sha256(sha256)) => *sha256,
        _ => [0; 32],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::{Chunk, Chunker, LEAST, MOST};

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed;
        let byte = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..len).map(byte).collect()
    }

    fn chunks(bytes: &[u8], step: usize) -> Vec<Chunk> {
        let mut chunker = Chunker::new();
        bytes.chunks(step).for_each(|piece| chunker.update(piece));
        chunker.finish()
    }

    #[test]
    fn chunks_are_neither_long_nor_short_and_cover_all() {
        let bytes = noise(1, 8 << 20);
        let found = chunks(&bytes, bytes.len());
        let mut at = 0;
        for (number, chunk) in found.iter().enumerate() {
            let len = chunk.len as usize;
            assert!(len <= MOST && (len >= LEAST || number + 1 == found.len()), "{len}");
            assert!(chunk.is(&bytes[at..at + len]) && !chunk.is(&bytes[at..at + len - 1]));
            at += len;
        }
        assert_eq!(at, bytes.len());
        // 96 KiB on an average.
        assert!((60..120).contains(&found.len()), "{}", found.len());
        // Where no border is to be found, each is the longest.
        let same = chunks(&vec![7; 3 * MOST + 1], 1000);
        assert_eq!(same.iter().map(|chunk| chunk.len as usize).collect::<Vec<_>>(), [MOST, MOST, MOST, 1]);
        assert_eq!(chunks(&[], 1), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn pieces_make_no_difference(seed in any::<u64>(), step in 1_usize..300_000) {
            let bytes = noise(seed, 1 << 20);
            prop_assert_eq!(chunks(&bytes, step), chunks(&bytes, bytes.len()));
        }

        #[test]
        fn what_is_inserted_changes_few_chunks(seed in any::<u64>(), at in 0_usize..4 << 20, len in 1_usize..100_000) {
            let mut bytes = noise(seed, 4 << 20);
            let old: HashSet<_> = chunks(&bytes, 1 << 20).iter().map(|chunk| chunk.sha256).collect();
            bytes.splice(at..at, noise(!seed, len));
            let new = chunks(&bytes, 1 << 20);
            let others: u64 =
                new.iter().filter(|chunk| !old.contains(&chunk.sha256)).map(|chunk| u64::from(chunk.len)).sum();
            // What is inserted, and some chunks around it until the borders are the same again.
            prop_assert!(others <= (len + 4 * MOST) as u64, "{}", others);
        }
    }
}
