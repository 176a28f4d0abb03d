//! A small generator whose numbers are the same on every machine and in every version.

/// Mixes a few numbers into one; neighbouring inputs give unrelated outputs.
pub(super) fn mix(a: u64, b: u64, c: u64) -> u64 {
    finish(finish(finish(a.wrapping_add(0x9E37_79B9_7F4A_7C15)) ^ b) ^ c)
}

/// The output function of SplitMix64 (Steele, Lea and Flood, 2014).
fn finish(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        finish(self.0)
    }

    /// A number below `n`; 0 where `n` is 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// A number of `range`, its end not included.
    pub(super) fn range(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    /// True in `permille` of a thousand cases.
    pub(super) fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    pub(super) fn of<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A rank below `n` after Zipf's law in steps: each octave of ranks is equally likely.
    pub(super) fn zipf(&mut self, n: usize) -> usize {
        let bits = self.next();
        let octaves = usize::BITS - n.leading_zeros();
        let octave = ((bits >> 32) * u64::from(octaves)) >> 32;
        let rank = ((1 << octave) | (bits & ((1 << octave) - 1))) as usize - 1;
        rank % n
    }

    /// About `median`, spread like sizes in nature are: log-normal in shape, from a 16th to 16 times the median.
    /// Whole numbers alone, since logarithms differ between C libraries in their last bits.
    pub(super) fn size(&mut self, median: u64) -> u64 {
        let bits = self.next();
        let sum: u64 = (0..4).map(|part| (bits >> (16 * part)) & 0xFFFF).sum();
        // The sum of four numbers below 2^16 is nearly normal around 2^17; 4 octaves lie on either side.
        let octave = sum * 8;
        let (whole, part) = (octave >> 18, octave & 0x3_FFFF);
        (((median << whole) + (((median << whole) * part) >> 18)) >> 4).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_in_their_ranges() {
        let mut rng = Rng::new(7);
        for n in 1..600 {
            assert!(rng.below(n) < n);
            assert!(rng.zipf(n as usize) < n as usize);
            assert!((5..5 + n).contains(&rng.range(5..5 + n)));
            assert!((100 / 16..=100 * 16).contains(&rng.size(100)));
        }
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn splitmix_gives_the_published_numbers() {
        let mut rng = Rng::new(1_234_567);
        assert_eq!(
            [rng.next(), rng.next(), rng.next()],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }
}
