//! Lengths and distances as symbols and extra bits (RFC 1951, 3.2.5).

/// Literals, the end of a block, and lengths.
pub(super) const LITERALS: usize = 286;

/// The end of a block.
pub(super) const END_OF_BLOCK: usize = 256;

/// The symbol of the shortest length.
pub(super) const FIRST_LEN: usize = 257;

/// The shortest length that has a symbol.
pub(super) const SHORTEST_LEN: usize = 3;

/// How many lengths there are.
pub(super) const LENS: usize = 256;

/// Symbols of distances.
pub(super) const DISTANCES: usize = 30;

/// The least length of each symbol, from [`FIRST_LEN`] on.
const LEAST_LENS: [u16; 29] =
    [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];

const LEN_EXTRA_BITS: [u8; 29] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];

/// Of each length from [`SHORTEST_LEN`] on.
static LEN_SYMBOLS: [u8; LENS] = len_symbols();

const fn len_symbols() -> [u8; LENS] {
    let mut symbols = [0; LENS];
    let (mut at, mut symbol) = (0, 0);
    while at < LENS {
        while symbol + 1 < LEAST_LENS.len() && at + SHORTEST_LEN >= LEAST_LENS[symbol + 1] as usize {
            symbol += 1;
        }
        symbols[at] = symbol as u8;
        at += 1;
    }
    symbols
}

/// The symbol of a length, its extra bits, and how many. The length is that beyond [`SHORTEST_LEN`].
#[inline]
pub(super) fn len_symbol(beyond: usize) -> (usize, u32, u32) {
    let symbol = usize::from(LEN_SYMBOLS[beyond % LENS]);
    let extra = beyond + SHORTEST_LEN - usize::from(LEAST_LENS[symbol]);
    (FIRST_LEN + symbol, extra as u32, u32::from(LEN_EXTRA_BITS[symbol]))
}

/// How many extra bits the lengths of a symbol have.
pub(super) fn len_extra_bits(symbol: usize) -> u32 {
    u32::from(LEN_EXTRA_BITS[symbol - FIRST_LEN])
}

/// The symbol of a distance, its extra bits, and how many. The distance is that beyond 1.
#[inline]
pub(super) fn distance_symbol(beyond: u32) -> (usize, u32, u32) {
    if beyond < 4 {
        return (beyond as usize, 0, 0);
    }
    // Two symbols for each power of two, by the bit behind the highest one.
    let bits = beyond.ilog2() - 1;
    ((2 * bits + (beyond >> bits)) as usize, beyond & ((1 << bits) - 1), bits)
}

/// How many extra bits the distances of a symbol have.
pub(super) fn distance_extra_bits(symbol: usize) -> u32 {
    (symbol as u32 / 2).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_the_symbols_of_the_rfc() {
        for (len, expected) in [
            (3, (257, 0, 0)),
            (10, (264, 0, 0)),
            (11, (265, 0, 1)),
            (12, (265, 1, 1)),
            (13, (266, 0, 1)),
            (34, (272, 3, 2)),
        ] {
            assert_eq!(len_symbol(len - SHORTEST_LEN), expected, "{len}");
        }
        for (len, expected) in [(130, (280, 15, 4)), (131, (281, 0, 5)), (257, (284, 30, 5)), (258, (285, 0, 0))] {
            assert_eq!(len_symbol(len - SHORTEST_LEN), expected, "{len}");
        }
        for beyond in 0..LENS {
            let (symbol, extra, bits) = len_symbol(beyond);
            assert!(extra < 1 << bits && bits == len_extra_bits(symbol));
        }
    }

    #[test]
    fn distances_have_the_symbols_of_the_rfc() {
        for (distance, expected) in [
            (1, (0, 0, 0)),
            (4, (3, 0, 0)),
            (5, (4, 0, 1)),
            (6, (4, 1, 1)),
            (7, (5, 0, 1)),
            (9, (6, 0, 2)),
            (13, (7, 0, 2)),
        ] {
            assert_eq!(distance_symbol(distance - 1), expected, "{distance}");
        }
        for (distance, expected) in [(193, (15, 0, 6)), (24577, (29, 0, 13)), (32768, (29, 8191, 13))] {
            assert_eq!(distance_symbol(distance - 1), expected, "{distance}");
        }
        let mut next = (0, 0);
        for beyond in 0..32 * 1024 {
            let (symbol, extra, bits) = distance_symbol(beyond);
            assert_eq!(((symbol, extra), bits), (next, distance_extra_bits(symbol)));
            next = if extra + 1 == 1 << bits { (symbol + 1, 0) } else { (symbol, extra + 1) };
        }
        assert_eq!(next, (DISTANCES, 0));
    }
}
