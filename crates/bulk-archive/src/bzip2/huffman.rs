use super::bit_reader::BitReader;

/// The longest code that the format can write.
pub(super) const MAX_LEN: usize = 20;

/// All byte values but one, two run symbols, the end of the block.
pub(super) const MAX_SYMBOLS: usize = 258;

/// Codes up to this length, nearly all that occur, are looked up at once.
const SHORT_LEN: u32 = 10;

const LEN_BITS: u32 = 5;

/// A canonical prefix code.
pub(super) struct Code {
    /// What the next [`SHORT_LEN`] bits begin with: a symbol above the length of its code, or 0 for a longer code.
    short: [u16; 1 << SHORT_LEN],
    /// For each length, what the next [`MAX_LEN`] bits are less than if they begin with a code of that length or a
    /// shorter one.
    limits: [u32; MAX_LEN + 1],
    /// For each length, the place in `symbols` of the code of that length whose bits are all zeros, if there were one.
    offsets: [i32; MAX_LEN + 1],
    /// The symbols in the order of their codes.
    symbols: [u16; MAX_SYMBOLS],
}

impl Code {
    /// The code whose symbols, in order, have codes of these lengths. None where a length is not 1 to [`MAX_LEN`], or
    /// where some bits begin with no code or with two.
    pub(super) fn new(lengths: &[u8]) -> Option<Box<Code>> {
        let mut code = Box::new(Code {
            short: [0; 1 << SHORT_LEN],
            limits: [0; MAX_LEN + 1],
            offsets: [0; MAX_LEN + 1],
            symbols: [0; MAX_SYMBOLS],
        });
        let mut counts = [0u32; MAX_LEN + 1];
        for &length in lengths {
            *counts.get_mut(usize::from(length))? += 1;
        }
        if counts[0] > 0 || lengths.len() > MAX_SYMBOLS {
            return None;
        }
        let (mut limit, mut place) = (0u32, 0);
        let mut places = [0; MAX_LEN + 1];
        for length in 1..=MAX_LEN {
            let spare = MAX_LEN - length;
            places[length] = place;
            code.offsets[length] = place as i32 - (limit >> spare) as i32;
            place += counts[length] as usize;
            limit += counts[length] << spare;
            code.limits[length] = limit;
        }
        if limit != 1 << MAX_LEN {
            return None;
        }
        for (symbol, &length) in lengths.iter().enumerate() {
            let (place, length) = (&mut places[usize::from(length)], u32::from(length));
            code.symbols[*place] = symbol as u16;
            if length <= SHORT_LEN {
                let bits = (*place as i32 - code.offsets[length as usize]) as usize;
                let spare = SHORT_LEN - length;
                code.short[bits << spare..(bits + 1) << spare].fill((symbol as u16) << LEN_BITS | length as u16);
            }
            *place += 1;
        }
        Some(code)
    }

    /// Takes the next symbol. At least [`MAX_LEN`] bits must be ready.
    #[inline(always)]
    pub(super) fn take(&self, bits: &mut BitReader) -> u16 {
        let entry = self.short[bits.peek(SHORT_LEN) as usize & ((1 << SHORT_LEN) - 1)];
        let (symbol, length) = match entry {
            0 => self.long(bits.peek(MAX_LEN as u32)),
            _ => (entry >> LEN_BITS, u32::from(entry & ((1 << LEN_BITS) - 1))),
        };
        bits.skip(length);
        symbol
    }

    /// The symbol whose code, longer than [`SHORT_LEN`], these [`MAX_LEN`] bits begin with, and the code's length.
    #[cold]
    #[inline(never)]
    fn long(&self, bits: u32) -> (u16, u32) {
        let length = (SHORT_LEN as usize + 1..MAX_LEN).find(|&length| bits < self.limits[length]).unwrap_or(MAX_LEN);
        let place = (bits >> (MAX_LEN - length)) as i32 + self.offsets[length];
        (self.symbols[place as usize], length as u32)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The codes that these lengths stand for, by the rule of canonical codes: in the order of length, then of symbol.
    fn codes(lengths: &[u8]) -> Vec<(u16, u32, u8)> {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&symbol| (lengths[symbol], symbol));
        let (mut next, mut last) = (0u32, 0);
        order
            .iter()
            .map(|&symbol| {
                next <<= lengths[symbol] - last;
                last = lengths[symbol];
                next += 1;
                (symbol as u16, next - 1, last)
            })
            .collect()
    }

    #[test]
    fn lengths_that_are_no_code() {
        let is_code = |lengths: &[u8]| Code::new(lengths).is_some();
        assert!(is_code(&[1, 1]));
        assert!(is_code(&[2, 2, 1]));
        assert!(!is_code(&[1, 2]), "bits that begin with no code");
        assert!(!is_code(&[1]));
        assert!(!is_code(&[]));
        assert!(!is_code(&[1, 1, 1]), "bits that begin with two");
        assert!(!is_code(&[1, 1, 20]));
        assert!(!is_code(&[0, 1, 1]));
        assert!(is_code(&[8; 256]));
        assert!(!is_code(&[8; 257]));
        let longest: Vec<u8> = (1..=20).chain([20]).collect();
        assert!(is_code(&longest));
        let too_long: Vec<u8> = (1..=21).chain([21]).collect();
        assert!(!is_code(&too_long));
        assert!(!is_code(&[255, 1, 1]));
    }

    proptest! {
        #[test]
        fn codes_are_read_back(
            splits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..257),
            symbols in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
        ) {
            // Every complete code comes of splitting leaves of the tree. Where the deepest are split, it is deep.
            let mut lengths = vec![1u8, 1];
            for (n, (leaf, place)) in splits.iter().enumerate() {
                let leaf = if n < 25 { lengths.len() - 1 } else { leaf.index(lengths.len()) };
                if lengths[leaf] < MAX_LEN as u8 {
                    lengths[leaf] += 1;
                    let length = lengths[leaf];
                    lengths.insert(if n < 25 { leaf } else { place.index(lengths.len() + 1) }, length);
                }
            }
            let code = Code::new(&lengths).expect("a complete code");
            let codes = codes(&lengths);
            let symbols: Vec<_> = symbols.iter().map(|symbol| codes[symbol.index(codes.len())]).collect();
            let text: String =
                symbols.iter().map(|(_, bits, length)| format!("{bits:0length$b}", length = usize::from(*length))).collect();
            let byte = |bits: &[u8]| (0..8).fold(0, |byte, i| byte << 1 | u8::from(bits.get(i) == Some(&b'1')));
            let bytes: Vec<u8> = text.as_bytes().chunks(8).map(byte).collect();
            let mut reader = BitReader::new(&bytes, 0);
            for (symbol, ..) in symbols {
                reader.refill();
                prop_assert_eq!(code.take(&mut reader), symbol);
            }
            prop_assert_eq!(reader.position(), text.len());
        }
    }
}
