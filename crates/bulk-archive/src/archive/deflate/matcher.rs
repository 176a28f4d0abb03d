//! Where bytes have stood before.

use std::{mem, ops::Range};

/// How far back deflate can refer.
pub(super) const WINDOW: usize = 32 * 1024;

/// The longest match (RFC 1951, 3.2.5).
pub(super) const LONGEST_MATCH: usize = 258;

/// The shortest one that is looked for. Deflate knows such of three bytes, which gain nothing in texts.
pub(super) const SHORTEST_MATCH: usize = 4;

/// How many bytes behind data have to be there, whatever they are.
pub(super) const PADDING: usize = 8;

/// So many bytes have to follow where a match is looked for.
pub(super) const HASHED: usize = 6;

const CHAIN_BITS: u32 = 15;
const NEWEST_BITS: u32 = 15;

/// How much is done to find the longest match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Effort {
    /// How many places are looked at, at most.
    pub(super) places: u32,
    /// A match of this length is long enough.
    pub(super) enough: usize,
    /// How many places are looked at for a longer match one byte further on; 0 for taking the first match there is.
    pub(super) further: u32,
}

/// Bytes that stood before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) len: usize,
    pub(super) distance: usize,
}

/// Finds matches, by the newest place of four bytes, and by all places of six. Chains of five or four bytes are longer, and
/// what is found in their first places is shorter: for the same size more of them have to be looked at.
///
/// What it finds depends on the bytes of the window at hand alone. Places have numbers that ascend from one stretch of
/// data to the next, so that those of another one are known by them, and nothing has to be cleared.
pub(super) struct Matcher {
    /// The newest place of four bytes, by their hash.
    newest: Box<[u32; 1 << NEWEST_BITS]>,
    /// The same of six bytes.
    heads: Box<[u32; 1 << CHAIN_BITS]>,
    /// The place before each one of the window with the same hash of six bytes.
    chains: Box<[u32; WINDOW]>,
    /// The number of the first byte of the data at hand. None is 0.
    base: u32,
}

impl Matcher {
    pub(super) fn new() -> Matcher {
        Matcher { newest: zeros(), heads: zeros(), chains: zeros(), base: 1 }
    }

    #[cfg(test)]
    pub(super) fn with_base(base: u32) -> Matcher {
        Matcher { base, ..Matcher::new() }
    }

    /// Other data take the place of those at hand, whose first byte stands so far behind the first one there. Whether what is
    /// known of bytes that they share is kept.
    pub(super) fn shift(&mut self, by: usize, len: usize) -> bool {
        let base = u64::from(self.base) + by as u64;
        let fits = base + len as u64 <= u64::from(u32::MAX);
        if fits {
            self.base = base as u32;
        } else {
            *self = Matcher::new();
        }
        fits
    }

    /// The newest places before of the first six of these bytes, and of the first four. `at` is from now on.
    #[inline]
    fn put(&mut self, bytes: u64, at: usize) -> (u32, u32) {
        let number = self.base + at as u32;
        let six = ((bytes << 16).wrapping_mul(0x9e37_79b1_85eb_ca87) >> (64 - CHAIN_BITS)) as usize;
        let before = mem::replace(&mut self.heads[six], number);
        self.chains[number as usize % WINDOW] = before;
        let four = ((bytes as u32).wrapping_mul(0x9e37_79b1) >> (32 - NEWEST_BITS)) as usize;
        (before, mem::replace(&mut self.newest[four], number))
    }

    /// Takes note of places. Behind each of them [`HASHED`] bytes are data.
    #[inline]
    pub(super) fn insert(&mut self, data: &[u8], places: Range<usize>) {
        for at in places {
            self.put(eight(data, at), at);
        }
    }

    /// The longest match at a place, longer than `longer_than`, which is three at least, among so many `places`; and takes
    /// note of it. [`HASHED`] bytes from there on are data, and [`PADDING`] more follow all data.
    #[inline]
    pub(super) fn find(
        &mut self,
        data: &[u8],
        at: usize,
        longer_than: usize,
        places: u32,
        enough: usize,
    ) -> Option<Match> {
        let longest = (data.len() - PADDING - at).min(LONGEST_MATCH);
        let here = eight(data, at);
        let (mut place, newest) = self.put(here, at);
        if longer_than >= longest {
            return None;
        }
        let (mut len, mut found) = (longer_than, None);
        let enough = enough.min(longest);
        let number = self.base + at as u32;
        // In the chains a place that is a whole window back has given its own to this one.
        let oldest = self.base.max(number.saturating_sub(WINDOW as u32 - 1));
        if newest >= oldest {
            let other = (newest - self.base) as usize;
            let common = common_len(data, at, other, longest);
            if common > len {
                (len, found) = (common, Some(Match { len: common, distance: at - other }));
                if len >= enough {
                    return found;
                }
            }
        }
        // A longer match has the next byte, too, with the three before it.
        let mut end = four(data, at + len - 3);
        for _ in 0..places {
            if place < oldest {
                break;
            }
            let other = (place - self.base) as usize;
            if four(data, other + len - 3) == end && four(data, other) == here as u32 {
                let common = common_len(data, at, other, longest);
                if common > len {
                    (len, found) = (common, Some(Match { len: common, distance: at - other }));
                    if len >= enough {
                        break;
                    }
                    end = four(data, at + len - 3);
                }
            }
            place = self.chains[place as usize % WINDOW];
        }
        found
    }
}

/// How many bytes are the same at two places, up to `longest`.
#[inline]
fn common_len(data: &[u8], at: usize, other: usize, longest: usize) -> usize {
    let mut len = 0;
    while len < longest {
        let different = eight(data, at + len) ^ eight(data, other + len);
        if different != 0 {
            return (len + different.trailing_zeros() as usize / 8).min(longest);
        }
        len += 8;
    }
    longest
}

#[inline]
fn four(data: &[u8], at: usize) -> u32 {
    data.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[inline]
fn eight(data: &[u8], at: usize) -> u64 {
    data.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn zeros<const N: usize>() -> Box<[u32; N]> {
    match vec![0; N].into_boxed_slice().try_into() {
        Ok(zeros) => zeros,
        Err(_) => Box::new([0; N]),
    }
}
