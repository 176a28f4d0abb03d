//! What a session has of a chunk's records.

use std::ops::Range;

use crate::Position;
use crate::chunk_content::Hashed;
use crate::feed::Stretch;
use crate::lines::Lines;
use crate::rejects::Reject;

/// The records of a chunk that a session was given so far, so that a record which the server names is found in the file.
pub(crate) struct Received {
    pub(crate) start: Position,
    pub(crate) records: u64,
    /// Of the first records, or of all if they are kept.
    lengths: Vec<u32>,
    kept: Vec<Part>,
    /// Those that were left out before they came here, in order.
    pub(crate) rejects: Vec<Reject>,
    /// How many did not meet the conditions, and which, if they are kept.
    pub(crate) filtered: u64,
    passed_over: Lines,
    /// How many were repaired.
    pub(crate) repaired: u64,
    /// What is known of its content.
    pub(crate) hashed: Hashed,
}

/// Records as they stand in the file.
struct Part {
    /// The place of the first one in the chunk.
    first: u64,
    raw: Vec<u8>,
}

impl Received {
    /// Records of a chunk whose places are kept: in 16 MiB no more than this many of four bytes.
    const PLACED: usize = 1 << 22;

    pub(crate) fn new(start: Position) -> Self {
        Self {
            start,
            records: 0,
            lengths: Vec::new(),
            kept: Vec::new(),
            rejects: Vec::new(),
            filtered: 0,
            passed_over: Lines::default(),
            repaired: 0,
            hashed: Hashed::default(),
        }
    }

    pub(crate) fn add(&mut self, stretch: Stretch) {
        let Stretch { lengths, raw, mut rejects, filtered, passed_over, repaired, content, unhashed } = stretch;
        self.hashed.content.add(content);
        if !unhashed.is_empty() {
            self.hashed.unhashed.push(unhashed.into());
        }
        let room = if raw.is_empty() { Self::PLACED.saturating_sub(self.lengths.len()) } else { lengths.len() };
        self.lengths.extend(lengths.iter().take(room));
        if !raw.is_empty() {
            self.kept.push(Part { first: self.records, raw });
        }
        self.records += lengths.len() as u64;
        self.rejects.append(&mut rejects);
        self.filtered += filtered;
        self.passed_over.append(passed_over);
        self.repaired += repaired;
    }

    /// The chunk that has a record, and its place there, of the place among the records of all of them.
    pub(crate) fn find(chunks: &[Self], mut index: u64) -> Option<(&Self, u64)> {
        chunks.iter().find_map(|chunk| {
            if index < chunk.records {
                return Some((chunk, index));
            }
            index -= chunk.records;
            None
        })
    }

    /// The records that became no rows, in order, if they are kept.
    pub(crate) fn left_out(&self) -> Vec<u64> {
        let rejects = self.rejects.iter().map(|reject| reject.index);
        let mut left_out: Vec<u64> = self.passed_over.records().chain(rejects).collect();
        left_out.sort_unstable();
        left_out
    }

    /// Where a record starts in the file.
    pub(crate) fn offset(&self, index: u64) -> Option<u64> {
        let lengths = self.lengths.get(..usize::try_from(index).ok()?)?;
        Some(self.start.offset + lengths.iter().map(|length| u64::from(*length)).sum::<u64>())
    }

    /// The records, if they were kept.
    pub(crate) fn kept(&self) -> Kept<'_> {
        let mut end = 0;
        let ends = self.lengths.iter().map(|length| {
            end += u64::from(*length);
            end
        });
        Kept { received: self, starts: std::iter::once(0).chain(ends).collect() }
    }
}

/// The records of a chunk, each of which can be found.
pub(crate) struct Kept<'a> {
    received: &'a Received,
    /// Where each starts in the chunk, and where that ends.
    starts: Vec<u64>,
}

impl<'a> Kept<'a> {
    pub(crate) fn position(&self, index: u64) -> Position {
        let start = self.received.start;
        Position { offset: start.offset + self.start(index), record: start.record + index, chunk: start.chunk }
    }

    /// Of a record that was not received: where the last one ends.
    fn start(&self, index: u64) -> u64 {
        let start = usize::try_from(index).ok().and_then(|index| self.starts.get(index));
        start.or(self.starts.last()).copied().unwrap_or(0)
    }

    /// A record's bytes, with the line end.
    pub(crate) fn record(&self, index: u64) -> &'a [u8] {
        self.records(index..index + 1).next().map_or(&[], |(_, raw)| raw)
    }

    /// The bytes of successive records, in pieces of whole ones, each with the place of its first.
    pub(crate) fn records(&self, range: Range<u64>) -> impl Iterator<Item = (u64, &'a [u8])> {
        let parts = &self.received.kept;
        let first = parts.partition_point(|part| part.first <= range.start).saturating_sub(1);
        let range_of = range.clone();
        let parts = parts[first.min(parts.len())..].iter().take_while(move |part| part.first < range_of.end);
        parts.filter_map(move |part| {
            let (base, from) = (self.start(part.first), part.first.max(range.start));
            let at = |offset: u64| usize::try_from(offset - base).unwrap_or(usize::MAX).min(part.raw.len());
            let raw = &part.raw[at(self.start(from))..at(self.start(range.end))];
            (!raw.is_empty()).then_some((from, raw))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(stretches: &[&[&str]], kept: bool) -> Received {
        let mut received = Received::new(Position { offset: 100, record: 10, chunk: 1 });
        for records in stretches {
            let raw = if kept { records.concat().into_bytes() } else { Vec::new() };
            let lengths = records.iter().map(|record| record.len() as u32).collect();
            received.add(Stretch { lengths, raw, ..Stretch::default() });
        }
        received
    }

    #[test]
    fn a_record_is_found_in_the_file() {
        let received = received(&[&["five\n", "siiix\n"], &["seven.\n"]], false);
        let offsets: Vec<_> = (0..5).map(|index| received.offset(index)).collect();
        assert_eq!(offsets, [Some(100), Some(105), Some(111), Some(118), None]);
        assert_eq!(received.records, 3);
    }

    #[test]
    fn records_that_are_kept_come_back() {
        let received = received(&[&["a\n", "bb\n"], &[], &["c\n", "dddd\n", "e"]], true);
        let kept = received.kept();
        let record = |index| std::str::from_utf8(kept.record(index)).unwrap();
        assert_eq!([0, 1, 2, 3, 4, 5].map(record), ["a\n", "bb\n", "c\n", "dddd\n", "e", ""]);
        let records =
            |range| kept.records(range).map(|(at, raw)| (at, str::from_utf8(raw).unwrap())).collect::<Vec<_>>();
        assert_eq!(records(0..5), [(0, "a\nbb\n"), (2, "c\ndddd\ne")]);
        assert_eq!(records(1..3), [(1, "bb\n"), (2, "c\n")]);
        assert_eq!(records(2..2), []);
        assert_eq!(kept.position(3), Position { offset: 107, record: 13, chunk: 1 });
    }
}
