//! Bytes as deflate blocks (RFC 1951, 3.2.3).

use std::mem;

use super::{
    bit_writer::BitWriter,
    matcher::{Effort, HASHED, LONGEST_MATCH, Match, Matcher, PADDING, SHORTEST_MATCH, WINDOW},
    prefix_code::{self, PrefixCode},
    symbols::{
        DISTANCES, END_OF_BLOCK, FIRST_LEN, LENS, LITERALS, SHORTEST_LEN, distance_extra_bits, distance_symbol,
        len_extra_bits, len_symbol,
    },
};

/// How many bytes are looked at as one. Longer ones are several, so that memory does not follow them.
const STRETCH: usize = 1 << 20;

/// How many literals and matches a block has at most.
const ITEMS: usize = 1 << 15;

/// Marks a match among the items: the length beyond [`SHORTEST_LEN`] is in the bits from 16 on, the distance beyond 1 below.
const MATCH: u32 = 1 << 31;

/// How many bytes a stored block holds at most.
const LONGEST_STORED: usize = 0xffff;

/// Symbols that lengths of codes are written by (RFC 1951, 3.2.7): lengths, the one before again, and two kinds of runs of zeros.
const LEN_CODES: usize = 19;
const REPEAT: u8 = 16;
const ZEROS: u8 = 17;
const MANY_ZEROS: u8 = 18;

/// The order in which the lengths of their codes are written.
const LEN_CODE_ORDER: [usize; LEN_CODES] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

const LONGEST_LEN_CODE: usize = 7;

/// Literals and matches of a block that is yet to be written.
struct Items {
    items: Vec<u32>,
    literals: [u32; LITERALS],
    distances: [u32; DISTANCES],
}

impl Items {
    fn clear(&mut self) {
        self.items.clear();
        self.literals.fill(0);
        self.distances.fill(0);
    }

    #[inline]
    fn literal(&mut self, byte: u8) {
        self.literals[usize::from(byte)] += 1;
        self.items.push(u32::from(byte));
    }

    #[inline]
    fn matched(&mut self, found: Match) {
        let (len, distance) = (found.len - SHORTEST_LEN, (found.distance - 1) as u32);
        self.literals[len_symbol(len).0] += 1;
        self.distances[distance_symbol(distance).0] += 1;
        self.items.push(MATCH | (len as u32) << 16 | distance);
    }
}

/// Compresses bytes. What they become depends on them and on what they may refer to alone, not on what came before, although
/// it is of use: where that is the end of what was compressed last, the matcher knows it already.
pub(super) struct Encoder {
    effort: Effort,
    matcher: Matcher,
    /// What bytes may refer to, they, and some that do not count.
    data: Vec<u8>,
    items: Items,
    bits: BitWriter,
}

impl Encoder {
    pub(super) fn new(effort: Effort) -> Encoder {
        Encoder {
            effort,
            matcher: Matcher::new(),
            data: vec![0; PADDING],
            items: Items { items: Vec::new(), literals: [0; LITERALS], distances: [0; DISTANCES] },
            bits: BitWriter::default(),
        }
    }

    /// Blocks of these bytes, that may refer to `window`, and an empty stored block, which ends with a whole byte: a sync
    /// flush, as zlib calls it.
    pub(super) fn flushed(&mut self, plain: &[u8], window: &[u8]) -> Vec<u8> {
        self.bits.clear();
        self.blocks(plain, window);
        self.stored(&[]);
        self.bits.written()
    }

    /// Blocks of these bytes that refer to nothing before them, and an empty one that is the last of the stream.
    pub(super) fn last(&mut self, plain: &[u8]) -> Vec<u8> {
        self.bits.clear();
        self.blocks(plain, &[]);
        // A final block with fixed codes: nothing but its end, which is seven zeros.
        self.bits.reserve(16);
        self.bits.put(0b011, 10);
        self.bits.align();
        self.bits.written()
    }

    fn blocks(&mut self, plain: &[u8], window: &[u8]) {
        let mut window = &window[window.len().saturating_sub(WINDOW)..];
        for stretch in plain.chunks(STRETCH) {
            self.stretch(stretch, window);
            window = &stretch[stretch.len().saturating_sub(WINDOW)..];
        }
    }

    fn stretch(&mut self, plain: &[u8], window: &[u8]) {
        let mut data = mem::take(&mut self.data);
        data.truncate(data.len() - PADDING);
        let is_known = data.ends_with(window);
        let passed = if is_known { data.len() - window.len() } else { data.len() };
        data.clear();
        data.extend_from_slice(window);
        data.extend_from_slice(plain);
        data.extend_from_slice(&[0; PADDING]);
        let is_known = self.matcher.shift(passed, window.len() + plain.len()) && is_known;
        // The last places of what is known had too little behind them.
        let first = if is_known { window.len().saturating_sub(HASHED - 1) } else { 0 };
        self.matcher.insert(&data, first..window.len().min(hashed(&data)));

        let mut at = window.len();
        while at < data.len() - PADDING {
            self.items.clear();
            let from = at;
            at = if self.effort.further > 0 { self.lazy(&data, at) } else { self.greedy(&data, at) };
            self.block(&data[from..at]);
        }
        self.data = data;
    }

    /// Takes each match that there is, up to the end of the block.
    fn greedy(&mut self, data: &[u8], mut at: usize) -> usize {
        let Effort { places, enough, .. } = self.effort;
        let (end, hashed) = (data.len() - PADDING, hashed(data));
        while at < end && self.items.items.len() < ITEMS {
            let found =
                if at < hashed { self.matcher.find(data, at, SHORTEST_MATCH - 1, places, enough) } else { None };
            let Some(found) = found else {
                self.items.literal(data[at]);
                at += 1;
                continue;
            };
            self.items.matched(found);
            self.matcher.insert(data, at + 1..(at + found.len).min(hashed));
            at += found.len;
        }
        at
    }

    /// Takes a match unless there is a better one a byte further on, up to the end of the block.
    fn lazy(&mut self, data: &[u8], mut at: usize) -> usize {
        let Effort { places, enough, further } = self.effort;
        let (end, hashed) = (data.len() - PADDING, hashed(data));
        while at < end && self.items.items.len() < ITEMS {
            let found =
                if at < hashed { self.matcher.find(data, at, SHORTEST_MATCH - 1, places, enough) } else { None };
            let Some(mut found) = found else {
                self.items.literal(data[at]);
                at += 1;
                continue;
            };
            let mut noted = at + 1;
            while found.len < enough && at + 1 < hashed {
                let longer_than = (found.len - 1).max(SHORTEST_MATCH - 1);
                let next = self.matcher.find(data, at + 1, longer_than, further, enough);
                noted = at + 2;
                match next.filter(|next| is_better(*next, found)) {
                    Some(next) => {
                        self.items.literal(data[at]);
                        at += 1;
                        found = next;
                    }
                    None => break,
                }
            }
            self.items.matched(found);
            let after = at + found.len;
            self.matcher.insert(data, noted..after.min(hashed));
            at = after;
        }
        at
    }

    /// Writes the items as a block, with codes of its own, or fixed ones, or as they were, whatever is shortest.
    fn block(&mut self, plain: &[u8]) {
        self.items.literals[END_OF_BLOCK] += 1;
        let Items { literals, distances, .. } = &self.items;
        let extra: u64 = (FIRST_LEN..LITERALS)
            .map(|symbol| u64::from(literals[symbol]) * u64::from(len_extra_bits(symbol)))
            .chain((0..DISTANCES).map(|symbol| u64::from(distances[symbol]) * u64::from(distance_extra_bits(symbol))))
            .sum();
        let cost = |codes: &Codes| codes.literals.cost(literals) + codes.distances.cost(distances) + extra;
        let own = Codes::of(literals, distances);
        let header = CodeLens::of(&own);
        let fixed = Codes::fixed();
        let (own_cost, fixed_cost) = (header.cost() + cost(&own), cost(&fixed));
        // Each begins with three bits, fills up a byte, and has its length twice.
        let stored_cost: u64 = plain.chunks(LONGEST_STORED).map(|part| 8 * part.len() as u64 + 3 + 7 + 32).sum();
        if stored_cost < own_cost.min(fixed_cost) {
            for part in plain.chunks(LONGEST_STORED) {
                self.stored(part);
            }
        } else if fixed_cost <= own_cost {
            self.bits.reserve(3 + fixed_cost);
            self.bits.put(0b010, 3);
            self.bits.flush();
            fixed.write(&self.items.items, &mut self.bits);
        } else {
            self.bits.reserve(3 + own_cost);
            self.bits.put(0b100, 3);
            header.write(&mut self.bits);
            own.write(&self.items.items, &mut self.bits);
        }
    }

    /// A stored block.
    fn stored(&mut self, plain: &[u8]) {
        self.bits.reserve(3 + 7 + 32 + 8 * plain.len() as u64);
        self.bits.put(0, 3);
        self.bits.align();
        let len = plain.len() as u64;
        self.bits.put(len | (len ^ 0xffff) << 16, 32);
        self.bits.flush();
        self.bits.extend(plain);
    }
}

/// From where on there is too little for a match to be looked for.
fn hashed(data: &[u8]) -> usize {
    (data.len() - PADDING).saturating_sub(HASHED - 1)
}

/// Whether a match is worth a literal more than one that begins a byte before it. A byte more is worth some four bits, and
/// each bit of the distance has to be written.
#[inline]
fn is_better(next: Match, found: Match) -> bool {
    let worth = |found: Match| 4 * found.len as i64 - i64::from(found.distance.ilog2());
    worth(next) > worth(found) + 4
}

struct Codes {
    literals: PrefixCode<LITERALS>,
    distances: PrefixCode<DISTANCES>,
}

impl Codes {
    fn of(literals: &[u32; LITERALS], distances: &[u32; DISTANCES]) -> Codes {
        let longest = prefix_code::LONGEST;
        Codes { literals: PrefixCode::new(literals, longest), distances: PrefixCode::new(distances, longest) }
    }

    /// Those of RFC 1951, 3.2.6. Two more symbols of either kind have a code there, which never occur.
    fn fixed() -> Codes {
        let mut lens = [8; LITERALS + 2];
        lens[144..256].fill(9);
        lens[256..280].fill(7);
        let PrefixCode { lens, bits } = PrefixCode::with_lens(lens);
        let mut literals = PrefixCode { lens: [0; LITERALS], bits: [0; LITERALS] };
        literals.lens.copy_from_slice(&lens[..LITERALS]);
        literals.bits.copy_from_slice(&bits[..LITERALS]);
        Codes { literals, distances: PrefixCode::with_lens([5; DISTANCES]) }
    }

    /// Writes the items, and the end of the block.
    fn write(&self, items: &[u32], bits: &mut BitWriter) {
        let lens: [(u32, u32); LENS] = std::array::from_fn(|beyond| {
            let (symbol, extra, count) = len_symbol(beyond);
            let len = u32::from(self.literals.lens[symbol]);
            (u32::from(self.literals.bits[symbol]) | extra << len, len + count)
        });
        // What one item takes at most.
        const LITERAL: u32 = prefix_code::LONGEST as u32;
        const LEN_AND_DISTANCE: u32 = 2 * prefix_code::LONGEST as u32 + 5 + 13;
        for &item in items {
            if item & MATCH == 0 {
                if bits.waiting() > BitWriter::MOST - LITERAL {
                    bits.flush();
                }
                let byte = (item % 256) as usize;
                bits.put(u64::from(self.literals.bits[byte]), u32::from(self.literals.lens[byte]));
            } else {
                if bits.waiting() > BitWriter::MOST - LEN_AND_DISTANCE {
                    bits.flush();
                }
                let (len, count) = lens[(item >> 16) as usize % LENS];
                bits.put(u64::from(len), count);
                let (symbol, extra, count) = distance_symbol(item & 0xffff);
                let len = u32::from(self.distances.lens[symbol]);
                bits.put(u64::from(self.distances.bits[symbol]) | u64::from(extra) << len, len + count);
            }
        }
        bits.flush();
        bits.put(u64::from(self.literals.bits[END_OF_BLOCK]), u32::from(self.literals.lens[END_OF_BLOCK]));
        bits.flush();
    }
}

/// The lengths of codes, as they stand before a block (RFC 1951, 3.2.7).
struct CodeLens {
    literals: usize,
    distances: usize,
    /// Symbols, and what is in their extra bits.
    runs: Vec<(u8, u8)>,
    counts: [u32; LEN_CODES],
    code: PrefixCode<LEN_CODES>,
    /// How many lengths of the code's own are written.
    len_codes: usize,
}

impl CodeLens {
    fn of(codes: &Codes) -> CodeLens {
        let used =
            |lens: &[u8], least: usize| lens.iter().rposition(|&len| len > 0).map_or(least, |at| (at + 1).max(least));
        let literals = used(&codes.literals.lens, FIRST_LEN);
        let distances = used(&codes.distances.lens, 1);
        let lens = [&codes.literals.lens[..literals], &codes.distances.lens[..distances]].concat();
        let mut runs = Vec::with_capacity(lens.len());
        for run in lens.chunk_by(|a, b| a == b) {
            let (len, mut left) = (run[0], run.len());
            if len > 0 {
                runs.push((len, 0));
                left -= 1;
            }
            while left > 0 {
                let (symbol, least, most) = match (len, left) {
                    (_, ..3) => (len, 1, 1),
                    (0, ..11) => (ZEROS, 3, 10),
                    (0, _) => (MANY_ZEROS, 11, 138),
                    _ => (REPEAT, 3, 6),
                };
                let taken = left.min(most);
                runs.push((symbol, (taken - least) as u8));
                left -= taken;
            }
        }
        let mut counts = [0; LEN_CODES];
        for &(symbol, _) in &runs {
            counts[usize::from(symbol)] += 1;
        }
        let code = PrefixCode::new(&counts, LONGEST_LEN_CODE);
        let len_codes =
            LEN_CODE_ORDER.iter().rposition(|&symbol| code.lens[symbol] > 0).map_or(4, |at| (at + 1).max(4));
        CodeLens { literals, distances, runs, counts, code, len_codes }
    }

    fn cost(&self) -> u64 {
        let extra = |symbol| u64::from(self.counts[usize::from(symbol)]) * u64::from(run_bits(symbol));
        let runs: u64 = [REPEAT, ZEROS, MANY_ZEROS].into_iter().map(extra).sum();
        5 + 5 + 4 + 3 * self.len_codes as u64 + self.code.cost(&self.counts) + runs
    }

    fn write(&self, bits: &mut BitWriter) {
        bits.put((self.literals - FIRST_LEN) as u64, 5);
        bits.put((self.distances - 1) as u64, 5);
        bits.put((self.len_codes - 4) as u64, 4);
        bits.flush();
        for &symbol in &LEN_CODE_ORDER[..self.len_codes] {
            bits.put(u64::from(self.code.lens[symbol]), 3);
            bits.flush();
        }
        for &(symbol, extra) in &self.runs {
            let at = usize::from(symbol);
            bits.put(u64::from(self.code.bits[at]), u32::from(self.code.lens[at]));
            bits.put(u64::from(extra), run_bits(symbol));
            bits.flush();
        }
    }
}

/// How many extra bits a symbol among the lengths of codes has.
fn run_bits(symbol: u8) -> u32 {
    match symbol {
        REPEAT => 2,
        ZEROS => 3,
        MANY_ZEROS => 7,
        _ => 0,
    }
}

const _: () = assert!(LONGEST_MATCH == LENS + SHORTEST_LEN - 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_begin_anew_where_their_numbers_end() {
        let text: Vec<u8> =
            (0..40_000u32).flat_map(|number| (number * number % 5003).to_string().into_bytes()).collect();
        let effort = Effort { places: 16, enough: 32, further: 4 };
        let (mut new, mut old) = (Encoder::new(effort), Encoder::new(effort));
        old.matcher = Matcher::with_base(u32::MAX - 70_000);
        let mut window: &[u8] = &[];
        for block in text.chunks(20_000) {
            assert!(new.flushed(block, window) == old.flushed(block, window));
            window = block;
        }
        assert!(text.len() > 140_000);
    }
}
