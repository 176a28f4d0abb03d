//! The inverse Burrows–Wheeler transform.
//!
//! The sorted rotations of a text form a permutation: each points to the one that begins a byte later. Going along it
//! from the unrotated text gives the text, byte after byte, and every step is a load from anywhere in a table of
//! 3.6 MB that cannot begin before the one before has ended. To have many loads under way, the walk begins at many
//! rotations at once: each is marked, each walk ends where it meets a mark, and in the end the parts are put together in
//! the order in which they met.

use std::iter;

/// How many walks go on at once.
const LANES: usize = 8;

/// How many steps every lane makes before room is needed for more.
const BATCH: usize = 4096;

/// A step of every lane writes to lines of this distance, which are not all in the same set of the cache.
const LANE_LEN: usize = BATCH + 64;

/// An entry is marked where a walk begins. Below that is the number of the next rotation, and in the lowest byte
/// the first byte of this one.
const MARK: u32 = 1 << 31;
const NEXT_SHIFT: u32 = 8;

/// Rotations this far apart are where walks begin.
const SPACING: usize = 1024;

/// What the inverse transform needs room for.
pub(super) struct InverseBwt {
    /// A power of two of entries, more than there are rotations: no block points to the last one. Indices are masked.
    table: Vec<u32>,
    /// What each lane has written: batches of steps, of each lane. More are made where lanes go idle early.
    batches: Vec<[[u8; LANE_LEN]; LANES]>,
    walks: Vec<Walk>,
}

/// A part of the text: what a lane has written from one step up to another.
#[derive(Clone, Copy, Default)]
struct Walk {
    lane: usize,
    from: usize,
    to: usize,
    /// The rotation at which the part that follows begins.
    next: usize,
}

impl InverseBwt {
    pub(super) fn new() -> InverseBwt {
        InverseBwt { table: Vec::new(), batches: Vec::new(), walks: Vec::new() }
    }

    /// Turns the last column of the sorted rotations into the text, given how often each byte occurs in it and which
    /// rotation is the text. That must be one of them, of which there are 900 000 at most.
    pub(super) fn run(&mut self, column: &mut [u8], counts: &[u32; 256], origin: usize) {
        let slots = (column.len() + 1).next_power_of_two();
        if self.table.len() < slots {
            self.table = vec![0; slots];
        }
        self.link(column, counts);
        self.mark(column.len(), origin);
        self.walk(column.len(), origin);
        self.join(column, origin);
    }

    /// Fills the table. The column is gone through from both ends, so that a byte that repeats does not have to wait for
    /// its counter.
    fn link(&mut self, column: &[u8], counts: &[u32; 256]) {
        let (mut starts, mut ends) = ([0u32; 256], [0u32; 256]);
        let mut sum = 0;
        for byte in 0..256 {
            starts[byte] = sum;
            sum += counts[byte];
            ends[byte] = sum;
        }
        debug_assert_eq!(sum as usize, column.len());
        let table = &mut self.table[..];
        let mask = table.len() - 1;
        let mut up = |table: &mut [u32], byte: u8, next: usize| {
            let slot = &mut starts[usize::from(byte)];
            table[*slot as usize & mask] = (next as u32) << NEXT_SHIFT | u32::from(byte);
            *slot += 1;
        };
        let mut down = |table: &mut [u32], byte: u8, next: usize| {
            let slot = &mut ends[usize::from(byte)];
            *slot -= 1;
            table[*slot as usize & mask] = (next as u32) << NEXT_SHIFT | u32::from(byte);
        };
        let (low, high) = column.split_at(column.len().div_ceil(2));
        for (i, (&first, &last)) in low.iter().zip(high.iter().rev()).enumerate() {
            up(table, first, i);
            down(table, last, column.len() - 1 - i);
        }
        if low.len() > high.len() {
            up(table, low[low.len() - 1], low.len() - 1);
        }
    }

    fn mark(&mut self, len: usize, origin: usize) {
        for start in (0..len).step_by(SPACING) {
            self.table[start] |= MARK;
        }
        self.table[origin] |= MARK;
        let idle = self.table.len() - 1;
        self.table[idle] = (idle as u32) << NEXT_SHIFT;
    }

    /// Walks from every mark to the next.
    #[expect(
        clippy::needless_range_loop,
        reason = "a step writes to every lane, and the lanes stand one after another"
    )]
    fn walk(&mut self, len: usize, origin: usize) {
        self.walks.clear();
        self.walks.resize(1 + len.div_ceil(SPACING), Walk::default());
        let mut starts = iter::once(origin).chain((0..len).step_by(SPACING).filter(|&start| start != origin));
        // The rotation at which each lane is, and where its walk began. The first step ends a walk from nowhere.
        let mut at = [origin as u32; LANES];
        let mut begun = [None; LANES];
        let mut walking = LANES;
        let table = &self.table[..];
        let idle = table.len() - 1;
        for batch in 0.. {
            if batch == self.batches.len() {
                self.batches.push([[0; LANE_LEN]; LANES]);
            }
            let lanes = &mut self.batches[batch];
            for step in 0..BATCH {
                let mut entries = at.map(|at| table[at as usize & idle]);
                if entries.iter().fold(0, |all, entry| all | entry) & MARK != 0 {
                    for lane in 0..LANES {
                        if entries[lane] & MARK == 0 {
                            continue;
                        }
                        let step = batch * BATCH + step;
                        if let Some((start, from)) = begun[lane] {
                            let next = at[lane] as usize;
                            self.walks[index(start, origin)] = Walk { lane, from, to: step, next };
                        }
                        let start = starts.next();
                        begun[lane] = start.map(|start| (start, step));
                        entries[lane] = table[start.unwrap_or(idle)] & !MARK;
                        walking -= usize::from(start.is_none());
                    }
                    if walking == 0 {
                        return;
                    }
                }
                for lane in 0..LANES {
                    lanes[lane][step] = entries[lane] as u8;
                    at[lane] = entries[lane] >> NEXT_SHIFT;
                }
            }
        }
    }

    /// Puts the parts together.
    fn join(&self, text: &mut [u8], origin: usize) {
        let (mut filled, mut next) = (0, origin);
        loop {
            let walk = &self.walks[index(next, origin)];
            let mut from = walk.from;
            while from < walk.to {
                let to = walk.to.min((from / BATCH + 1) * BATCH);
                let lane = &self.batches[from / BATCH][walk.lane][from % BATCH..];
                text[filled..filled + to - from].copy_from_slice(&lane[..to - from]);
                (filled, from) = (filled + to - from, to);
            }
            next = walk.next;
            if next == origin {
                break;
            }
        }
        // Where the text repeats itself, the walk comes back early.
        while filled < text.len() {
            let more = filled.min(text.len() - filled);
            text.copy_within(..more, filled);
            filled += more;
        }
    }
}

/// The place of the walk that begins at rotation `start`.
fn index(start: usize, origin: usize) -> usize {
    if start == origin { 0 } else { 1 + start / SPACING }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The transform one step after the other.
    fn by_step(column: &[u8], origin: usize) -> Vec<u8> {
        let mut next: Vec<usize> = (0..column.len()).collect();
        next.sort_by_key(|&at| column[at]);
        let mut at = origin;
        column
            .iter()
            .map(|_| {
                at = next[at];
                column[at]
            })
            .collect()
    }

    #[track_caller]
    fn check(inverse: &mut InverseBwt, column: &[u8], origin: usize) {
        let mut counts = [0; 256];
        column.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        let mut text = column.to_vec();
        inverse.run(&mut text, &counts, origin);
        assert!(text == by_step(column, origin), "{} bytes, origin {origin}", column.len());
    }

    #[test]
    fn a_text_known_from_the_literature() {
        let mut text = b"nnbaaa".to_vec();
        let mut counts = [0; 256];
        counts[b'a' as usize..=b'b' as usize].copy_from_slice(&[3, 1]);
        counts[b'n' as usize] = 2;
        InverseBwt::new().run(&mut text, &counts, 3);
        assert_eq!(text, b"banana");
    }

    proptest! {
        #[test]
        fn any_column_is_walked_through(
            blocks in prop::collection::vec((1usize..40_000, 1usize..200, 1usize..=256, any::<prop::sample::Index>()), 1..4),
        ) {
            let mut inverse = InverseBwt::new();
            for (len, run, symbols, origin) in blocks {
                // From one symbol, where every walk is a step long, to what is nearly noise.
                let column: Vec<u8> = (0..len).map(|i| ((i / run).wrapping_mul(0x9e37_79b1) >> 7) % symbols).map(|n| n as u8).collect();
                check(&mut inverse, &column, origin.index(len));
            }
        }
    }

    #[test]
    fn few_walks_of_many_batches() {
        // Every rotation points to the next but one: few marks are met, and the lanes go idle one after the other.
        let len = 9 * BATCH + 1;
        let column: Vec<u8> = (0..len).map(|i| u8::from(i < len / 2)).collect();
        for origin in [0, 1, len / 2, len - 1] {
            check(&mut InverseBwt::new(), &column, origin);
        }
    }
}
