//! Prefix codes of deflate (RFC 1951, 3.2.2).

/// The longest code of a literal, a length or a distance.
pub(super) const LONGEST: usize = 15;

/// How many bits of a number that is sorted by frequency name the symbol.
const SYMBOL_BITS: u32 = 9;

/// A code for each of `N` symbols.
pub(super) struct PrefixCode<const N: usize> {
    /// How many bits it has; none where the symbol does not occur.
    pub(super) lens: [u8; N],
    /// They, the first one lowest.
    pub(super) bits: [u16; N],
}

impl<const N: usize> PrefixCode<N> {
    /// The code that makes text with these frequencies shortest, among those that have no longer codes than `longest`, or
    /// one that is nearly as short.
    ///
    /// Two symbols have a code at least, since there are readers that refuse one that is not complete. A frequency is below
    /// 2^23.
    pub(super) fn new(frequencies: &[u32; N], longest: usize) -> PrefixCode<N> {
        const SYMBOL: u32 = (1 << SYMBOL_BITS) - 1;
        let mut used: Vec<u32> = Vec::with_capacity(N);
        for (symbol, &frequency) in (0..).zip(frequencies) {
            if frequency > 0 {
                used.push(frequency << SYMBOL_BITS | symbol);
            }
        }
        for symbol in 0..2 {
            if used.len() < 2 && !used.iter().any(|other| other & SYMBOL == symbol) {
                used.push(1 << SYMBOL_BITS | symbol);
            }
        }
        used.sort_unstable();
        let counts = counts_of_lens(used.iter().map(|number| number >> SYMBOL_BITS).collect(), longest);
        let mut lens = [0; N];
        let mut from_most_frequent = used.iter().rev().map(|number| (number & SYMBOL) as usize);
        for (len, &count) in (0..).zip(&counts) {
            for symbol in from_most_frequent.by_ref().take(count as usize) {
                lens[symbol] = len;
            }
        }
        PrefixCode::with_lens(lens)
    }

    /// The code with these lengths: shorter ones first, and by their symbols.
    pub(super) fn with_lens(lens: [u8; N]) -> PrefixCode<N> {
        let mut counts = [0u16; LONGEST + 1];
        for &len in lens.iter().filter(|&&len| len > 0) {
            counts[usize::from(len)] += 1;
        }
        let mut next = [0u16; LONGEST + 1];
        for len in 1..=LONGEST {
            next[len] = (next[len - 1] + counts[len - 1]) << 1;
        }
        let mut bits = [0; N];
        for (bits, &len) in bits.iter_mut().zip(&lens).filter(|(_, len)| **len > 0) {
            let code = &mut next[usize::from(len)];
            *bits = code.reverse_bits() >> (16 - u32::from(len));
            *code = code.wrapping_add(1);
        }
        PrefixCode { lens, bits }
    }

    /// How many bits the codes of symbols with these frequencies take.
    pub(super) fn cost(&self, frequencies: &[u32; N]) -> u64 {
        self.lens.iter().zip(frequencies).map(|(&len, &frequency)| u64::from(len) * u64::from(frequency)).sum()
    }
}

/// How many codes there are of each length. The weights ascend, and are two or more.
///
/// The tree of Huffman's algorithm, made in the place of the weights (Moffat and Katajainen, "In-place calculation of
/// minimum-redundancy codes", 1995). Codes that would be too long are cut, and the shorter ones that make room for them
/// become longer.
fn counts_of_lens(mut weights: Vec<u32>, longest: usize) -> [u32; LONGEST + 1] {
    let leaves = weights.len();
    // Inner nodes take the places of leaves that have a parent. The first `root` of them have one, too: its place is what
    // stands there then.
    let (mut root, mut leaf) = (0, 0);
    for node in 0..leaves - 1 {
        let mut weight = 0;
        for _ in 0..2 {
            if root < node && (leaf >= leaves || weights[root] < weights[leaf]) {
                weight += weights[root];
                weights[root] = node as u32;
                root += 1;
            } else {
                weight += weights[leaf];
                leaf += 1;
            }
        }
        weights[node] = weight;
    }
    // From the root on, parents become depths.
    let mut depths = weights;
    depths.truncate(leaves - 1);
    depths[leaves - 2] = 0;
    for node in (0..leaves - 2).rev() {
        depths[node] = depths[depths[node] as usize] + 1;
    }
    let mut counts = [0; LONGEST + 1];
    let (mut nodes, mut depth, mut inner) = (1, 0, depths.iter().rev().peekable());
    while nodes > 0 {
        let mut parents = 0;
        while inner.next_if(|&&of| of == depth).is_some() {
            parents += 1;
        }
        counts[(depth as usize).min(longest)] += nodes - parents;
        nodes = 2 * parents;
        depth += 1;
    }
    // Kraft's sum, in units of the longest code: what was cut takes more room than there is.
    let taken: u32 = (1..=longest).map(|len| counts[len] << (longest - len)).sum();
    for _ in 1 << longest..taken {
        // One of the longest takes a place beside a shorter one, which becomes longer by a bit.
        counts[longest] -= 1;
        if let Some(len) = (1..longest).rev().find(|&len| counts[len] > 0) {
            counts[len] -= 1;
            counts[len + 1] += 2;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of all codes: they are whole, none begins another one, and none is longer than it may be.
    fn check<const N: usize>(frequencies: &[u32; N], longest: usize) -> PrefixCode<N> {
        let code = PrefixCode::new(frequencies, longest);
        let kraft: u64 = code.lens.iter().filter(|&&len| len > 0).map(|&len| 1 << (LONGEST - usize::from(len))).sum();
        assert_eq!(kraft, 1 << LONGEST, "{:?}", code.lens);
        for (symbol, &frequency) in frequencies.iter().enumerate() {
            assert!(frequency == 0 || code.lens[symbol] > 0);
            assert!(usize::from(code.lens[symbol]) <= longest);
        }
        let used = || (0..N).filter(|&symbol| code.lens[symbol] > 0);
        for (a, b) in used().flat_map(|a| used().map(move |b| (a, b))).filter(|(a, b)| a != b) {
            let shared = code.lens[a].min(code.lens[b]);
            assert_ne!(code.bits[a] << (16 - shared), code.bits[b] << (16 - shared), "{a} {b}");
        }
        code
    }

    #[test]
    fn frequent_symbols_are_short() {
        let code = check(&[1, 1, 2, 4, 8, 0], LONGEST);
        assert_eq!(code.lens, [4, 4, 3, 2, 1, 0]);
        assert_eq!(code.cost(&[1, 1, 2, 4, 8, 0]), 4 + 4 + 6 + 8 + 8);
        // RFC 1951, 3.2.2.
        let code = PrefixCode::with_lens([3, 3, 3, 3, 3, 2, 4, 4]);
        assert_eq!(code.bits, [0b010, 0b110, 0b001, 0b101, 0b011, 0b00, 0b0111, 0b1111]);
    }

    #[test]
    fn two_symbols_have_a_code_at_least() {
        assert_eq!(check(&[0; 30], LONGEST).lens[..3], [1, 1, 0]);
        assert_eq!(check(&[5, 0, 0], LONGEST).lens, [1, 1, 0]);
        assert_eq!(check(&[0, 5, 0], LONGEST).lens, [1, 1, 0]);
        assert_eq!(check(&[0, 0, 5], LONGEST).lens, [1, 0, 1]);
    }

    #[test]
    fn long_codes_are_cut() {
        let mut fibonacci = [1u32; 30];
        for at in 2..fibonacci.len() {
            fibonacci[at] = fibonacci[at - 1] + fibonacci[at - 2];
        }
        for longest in [5, 7, 15] {
            check(&fibonacci, longest);
        }
    }

    /// What two symbols of the least weight become one of: the cost of Huffman's own way.
    fn least_cost(frequencies: &[u32]) -> u64 {
        let mut weights: Vec<u64> = frequencies.iter().map(|&f| u64::from(f)).filter(|&f| f > 0).collect();
        let mut cost = 0;
        while weights.len() > 1 {
            weights.sort_unstable_by(|a, b| b.cmp(a));
            let sum = weights.pop().unwrap() + weights.pop().unwrap();
            weights.push(sum);
            cost += sum;
        }
        cost
    }

    proptest! {
        #[test]
        fn codes_are_whole_and_shortest(frequencies in prop::collection::vec(prop_oneof![Just(0u32), 0u32..50, 0u32..70_000], 286)) {
            let frequencies: [u32; 286] = frequencies.try_into().unwrap();
            let code = check(&frequencies, LONGEST);
            // Some 2^15 times more frequent than another one a symbol has to be for a code that is cut.
            if code.lens.iter().all(|&len| usize::from(len) < LONGEST) && frequencies.iter().filter(|&&f| f > 0).count() > 1 {
                prop_assert_eq!(code.cost(&frequencies), least_cost(&frequencies));
            }
            let some: [u32; 19] = frequencies[..19].try_into().unwrap();
            check(&some, 7);
        }
    }
}
