use serde::{Deserialize, Serialize};

use crate::Crc64Nvme;

/// A stretch of a file, with the CRC-64/NVME of its bytes where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) crc: Option<u64>,
}

impl Range {
    pub(crate) fn len(&self) -> u64 {
        self.end - self.start
    }

    /// This one and the one that begins where it ends.
    fn join(self, next: Self) -> Self {
        let crc = self.crc.zip(next.crc).map(|(first, second)| Crc64Nvme::combine(first, second, next.len()));
        Self { start: self.start, end: next.end, crc }
    }
}

/// Which bytes of a file are there: sorted, disjoint, and neighbours merged, so that there are no more of them than
/// segments were ever under way at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Ranges(Vec<Range>);

impl Ranges {
    /// Adds bytes that were not there.
    pub(crate) fn insert(&mut self, range: Range) {
        if range.start == range.end {
            return;
        }
        let at = self.0.partition_point(|other| other.end <= range.start);
        debug_assert!(self.0.get(at).is_none_or(|next| range.end <= next.start), "{range:?} overlaps {:?}", self.0);
        let joins_next = self.0.get(at).is_some_and(|next| next.start == range.end);
        let joins_last = at > 0 && self.0[at - 1].end == range.start;
        match (joins_last, joins_next) {
            (false, false) => self.0.insert(at, range),
            (true, false) => self.0[at - 1] = self.0[at - 1].join(range),
            (false, true) => self.0[at] = range.join(self.0[at]),
            (true, true) => {
                let next = self.0.remove(at);
                self.0[at - 1] = self.0[at - 1].join(range).join(next);
            }
        }
    }

    /// How many bytes are there.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(Range::len).sum()
    }

    /// Where the bytes end that stand without a gap from `from` on; `from` itself if that byte is not there.
    pub(crate) fn end_from(&self, from: u64) -> u64 {
        let at = self.0.partition_point(|range| range.end <= from);
        self.0.get(at).filter(|range| range.start <= from).map_or(from, |range| range.end)
    }

    /// Whether a file of this size is whole.
    pub(crate) fn covers(&self, size: u64) -> bool {
        self.end_from(0) >= size
    }

    /// The CRC of a whole file, if it is known.
    pub(crate) fn crc(&self, size: u64) -> Option<u64> {
        match self.0.first() {
            None if size == 0 => Some(0),
            Some(Range { start: 0, end, crc }) if *end == size => *crc,
            _ => None,
        }
    }

    /// Forgets the bytes before `offset`.
    pub(crate) fn forget_before(&mut self, offset: u64) {
        self.0.retain(|range| range.end > offset);
        if let Some(first) = self.0.first_mut().filter(|first| first.start < offset) {
            *first = Range { start: offset, end: first.end, crc: None };
        }
    }

    /// Forgets all bytes at and behind `offset`.
    pub(crate) fn forget_behind(&mut self, offset: u64) {
        self.0.retain(|range| range.start < offset);
        if let Some(last) = self.0.last_mut().filter(|last| last.end > offset) {
            *last = Range { start: last.start, end: offset, crc: None };
        }
    }

    /// Whether they are such as this type makes them, and within a file of that size: what a record says may be anything.
    pub(crate) fn are_sound(&self, size: Option<u64>) -> bool {
        self.0.last().is_none_or(|last| last.end <= size.unwrap_or(i64::MAX as u64))
            && self.0.iter().all(|range| range.start < range.end)
            && self.0.windows(2).all(|pair| pair[0].end < pair[1].start)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + Clone {
        self.0.iter().map(|range| (range.start, range.end))
    }
}

/// The first stretch at or behind `from` that none of `taken` (start and end, in any order) touches: its start, and its
/// end where something follows.
pub(crate) fn first_gap(mut from: u64, taken: impl Iterator<Item = (u64, u64)> + Clone) -> (u64, Option<u64>) {
    while let Some(end) = taken.clone().filter(|(start, end)| *start <= from && from < *end).map(|(_, end)| end).max() {
        from = end;
    }
    (from, taken.map(|(start, _)| start).filter(|start| *start > from).min())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> Range {
        Range { start, end, crc: Some(Crc64Nvme::of(&vec![b'x'; (end - start) as usize]).value()) }
    }

    #[test]
    fn neighbours_merge_in_any_order_and_know_their_crc() {
        let mut ranges = Ranges::default();
        for (start, end) in [(10, 20), (30, 40), (0, 5), (20, 30), (5, 10), (7, 7)] {
            ranges.insert(range(start, end));
        }
        assert_eq!(ranges.0, [range(0, 40)]);
        assert_eq!(ranges.crc(40), range(0, 40).crc);
        assert_eq!((ranges.crc(41), ranges.covers(40), ranges.covers(41)), (None, true, false));
        assert_eq!((Ranges::default().crc(0), Ranges::default().covers(0)), (Some(0), true));
    }

    #[test]
    fn what_is_forgotten_is_a_gap() {
        let mut ranges = Ranges::default();
        for (start, end) in [(0, 10), (20, 30), (40, 50)] {
            ranges.insert(range(start, end));
        }
        ranges.forget_before(5);
        ranges.forget_behind(45);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(5, 10), (20, 30), (40, 45)]);
        assert_eq!((ranges.end_from(0), ranges.end_from(5), ranges.end_from(29), ranges.total()), (0, 10, 30, 20));
        assert_eq!(first_gap(0, ranges.iter()), (0, Some(5)));
        assert_eq!(first_gap(7, ranges.iter()), (10, Some(20)));
        assert_eq!(first_gap(5, ranges.iter().chain([(10, 22)])), (30, Some(40)));
        assert_eq!(first_gap(44, ranges.iter()), (45, None));
    }
}
