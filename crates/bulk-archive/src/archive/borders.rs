//! Where blocks end: at entries that their ids choose, so that the same entries have the same borders however they
//! came to stand beside one another, and a change moves borders near it alone.

/// How long blocks and chains are meant to be, in bytes of the tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lens {
    /// A block; the shortest is half of it, the longest four times.
    pub(crate) block: u64,
    /// A chain; the shortest is half of it, the longest twice, and a block more.
    pub(crate) chain: u64,
}

/// How far the block and the chain at hand have come. All there is to know for where the next border is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Borders {
    lens: Lens,
    /// Bytes of the block at hand.
    block: u64,
    /// Bytes of the chain's blocks before it; none before the first block.
    chain: Option<u64>,
}

impl Borders {
    pub(crate) fn new(lens: Lens) -> Borders {
        Borders { lens, block: 0, chain: None }
    }

    /// Whether a border stands before the entry with this id, which takes `len` bytes.
    ///
    /// From the shortest length on, each byte is as likely to end the block, whatever the size of the entries.
    pub(crate) fn end_block(&self, id: &str, len: u64) -> bool {
        let shortest = self.lens.block / 2;
        self.block > 0
            && (self.block + len > self.lens.block * 4
                || (self.block >= shortest && is_chosen(hash(id), len, self.lens.block - shortest)))
    }

    /// Whether no block is at hand.
    pub(crate) fn at_border(&self) -> bool {
        self.block == 0
    }

    /// Ends the block at hand.
    pub(crate) fn end(&mut self) {
        self.chain = self.chain.map(|chain| chain + self.block);
        self.block = 0;
    }

    /// Whether the block that begins with this id begins a chain.
    pub(crate) fn begin_chain(&self, id: &str) -> bool {
        let shortest = self.lens.chain / 2;
        self.chain.is_none_or(|chain| {
            chain >= self.lens.chain * 2
                || (chain >= shortest
                    && is_chosen(mix(hash(id)), self.lens.block, self.lens.chain.saturating_sub(shortest).max(1)))
        })
    }

    /// Begins a block.
    pub(crate) fn begin(&mut self, chain: bool) {
        if chain {
            self.chain = Some(0);
        }
    }

    /// Adds an entry, or a whole block, to the block at hand.
    pub(crate) fn add(&mut self, len: u64) {
        self.block += len;
    }
}

/// Whether a stretch of chains, `len` bytes long, ends before the chain that begins with this id. A stretch has 16 chains on
/// average, half of that at least, and twice at most, and a chain more.
#[cfg(all(feature = "export", unix))]
pub(crate) fn ends_stretch(id: &str, len: u64, lens: Lens) -> bool {
    let shortest = lens.chain * 8;
    // Mixed once more than for chains, so that what has begun a chain tells nothing.
    len >= lens.chain * 32 || (len >= shortest && is_chosen(mix(mix(hash(id))), lens.chain, shortest))
}

/// True for `part` of `whole` of all hashes.
fn is_chosen(hash: u64, part: u64, whole: u64) -> bool {
    u128::from(hash) * u128::from(whole) < u128::from(part) << 64
}

/// A hash of an id that must never change: borders would move. FNV-1a, mixed, since consecutive numbers differ in the
/// last bytes alone.
fn hash(id: &str) -> u64 {
    mix(id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// The mixing step of SplitMix64.
fn mix(hash: u64) -> u64 {
    let hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths of the blocks and of the chains of entries with consecutive ids.
    fn lens(entries: u64, len: u64, lens: Lens) -> (Vec<u64>, Vec<u64>) {
        let (mut blocks, mut chains) = (Vec::new(), Vec::new());
        let mut borders = Borders::new(lens);
        for id in 0..entries {
            let id = id.to_string();
            if blocks.is_empty() || borders.end_block(&id, len) {
                borders.end();
                let chain = blocks.is_empty() || borders.begin_chain(&id);
                borders.begin(chain);
                blocks.push(0);
                if chain {
                    chains.push(0);
                }
            }
            borders.add(len);
            *blocks.last_mut().unwrap() += len;
            *chains.last_mut().unwrap() += len;
        }
        (blocks, chains)
    }

    #[test]
    fn lengths_are_about_what_was_asked_for() {
        let asked = Lens { block: 32 << 10, chain: 512 << 10 };
        let (blocks, chains) = lens(200_000, 4096, asked);
        let mean = |lens: &[u64]| (lens.iter().sum::<u64>() / lens.len() as u64) >> 10;
        assert_eq!((mean(&blocks), mean(&chains)), (28, 466));
        let within = |lens: &[u64], least, most| lens[..lens.len() - 1].iter().all(|len| (least..=most).contains(len));
        assert!(within(&blocks, 16 << 10, 128 << 10) && within(&chains, 256 << 10, (1024 + 128) << 10));
    }

    #[test]
    fn an_entry_that_is_longer_than_any_block_has_its_own() {
        let (blocks, _) = lens(5, 1 << 20, Lens { block: 1 << 10, chain: 1 << 12 });
        assert_eq!(blocks, [1 << 20; 5]);
    }

    #[test]
    fn the_hash_is_what_it_always_was() {
        assert_eq!(
            [hash(""), hash("1"), hash("us-v-jones")],
            [0xc381_7c01_6ba4_ff30, 0x895a_0ba9_7ae3_1bf5, 0x9308_049b_60bf_377f]
        );
    }
}
