//! Which parts of a file are sent, and which the server copies from the object that stands there.

use std::collections::HashMap;
use std::ops::Range;

use crate::chunks::Chunk;
use crate::file_set::LEAST_PART;

/// S3 has no more parts of an object.
pub(crate) const MAX_PARTS: u64 = 10_000;
/// S3 copies up to 5 GiB at once; smaller parts are copied side by side, and none takes long.
const COPIED_PART: u64 = 128 << 20;

/// A part of a file, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its chunks, of those of the file.
    pub(crate) chunks: Range<usize>,
    /// Where it begins.
    pub(crate) start: u64,
    /// Bytes.
    pub(crate) len: u64,
    /// Where in the old object the same bytes begin; none if they are to be sent.
    pub(crate) copied_from: Option<u64>,
}

/// The parts of a file of these chunks, where an object of those `old` ones can be copied from; none if nothing is worth it.
///
/// A part but the last has at least 5 MiB, so a stretch that is in the old object is sent all the same where it is shorter, and
/// as far as a changed stretch beside it is.
pub(crate) fn parts(new: &[Chunk], old: &[Chunk], part_size: u64) -> Option<Vec<Part>> {
    let (new_at, old_at) = (starts(new), starts(old));
    let size = new_at.last().copied().unwrap_or_default();
    // So there cannot be too many.
    let least = LEAST_PART.max(size.div_ceil(MAX_PARTS - 1));
    let mut plan = Plan { at: &new_at, least, sent: part_size.max(least), parts: Vec::new() };
    // Up to where the parts go.
    let mut done = 0;
    for (run, from) in runs(new, old) {
        // What was not there before takes from the run what it lacks of a part.
        let mut start = run.start;
        while start < run.end && start > done && new_at[start] - new_at[done] < least {
            start += 1;
        }
        if new_at[run.end] - new_at[start] < least {
            continue;
        }
        plan.send(done..start);
        plan.copy(start..run.end, old_at[from + (start - run.start)]);
        done = run.end;
    }
    if done == 0 {
        return None;
    }
    plan.send(done..new.len());
    Some(plan.parts)
}

/// Stretches of the new chunks that are in the old object in the same order, and where there, by index, in their order. What is
/// between them is not in it.
fn runs(new: &[Chunk], old: &[Chunk]) -> Vec<(Range<usize>, usize)> {
    let places: HashMap<&[u8; 32], usize> = old.iter().enumerate().rev().map(|(at, old)| (&old.sha256, at)).collect();
    let mut runs: Vec<(Range<usize>, usize)> = Vec::new();
    for (at, chunk) in new.iter().enumerate() {
        // Where one stands more than once, the one behind that before it.
        let before = runs.last_mut().filter(|(run, _)| run.end == at);
        match before.filter(|(run, from)| old.get(*from + run.len()) == Some(chunk)) {
            Some((run, _)) => run.end += 1,
            None => runs.extend(places.get(&chunk.sha256).map(|from| (at..at + 1, *from))),
        }
    }
    runs
}

/// Where each chunk begins, and the last one ends.
fn starts(chunks: &[Chunk]) -> Vec<u64> {
    let ends = chunks.iter().scan(0, |end, chunk| {
        *end += u64::from(chunk.len);
        Some(*end)
    });
    std::iter::once(0).chain(ends).collect()
}

struct Plan<'a> {
    /// Where each chunk begins.
    at: &'a [u64],
    least: u64,
    /// About so long is what is sent in one part.
    sent: u64,
    parts: Vec<Part>,
}

impl Plan<'_> {
    fn send(&mut self, chunks: Range<usize>) {
        self.add(chunks, self.sent, None);
    }

    fn copy(&mut self, chunks: Range<usize>, from: u64) {
        self.add(chunks, self.least.max(COPIED_PART), Some(from));
    }

    fn add(&mut self, chunks: Range<usize>, len: u64, from: Option<u64>) {
        let (at, first) = (self.at, self.at[chunks.start]);
        let part = |chunks: Range<usize>| Part {
            start: at[chunks.start],
            len: at[chunks.end] - at[chunks.start],
            copied_from: from.map(|from| from + (at[chunks.start] - first)),
            chunks,
        };
        let mut start = chunks.start;
        for border in chunks.start + 1..chunks.end {
            if at[border] - at[start] >= len && at[chunks.end] - at[border] >= self.least {
                self.parts.push(part(start..border));
                start = border;
            }
        }
        if start < chunks.end {
            self.parts.push(part(start..chunks.end));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{COPIED_PART, MAX_PARTS, Part, parts};
    use crate::chunks::{Chunk, MOST};
    use crate::file_set::LEAST_PART;

    const MIB: u32 = 1 << 20;

    /// A chunk is told from others by its number.
    fn chunk(number: u32, len: u32) -> Chunk {
        let mut sha256 = [0; 32];
        sha256[..4].copy_from_slice(&number.to_le_bytes());
        sha256[4..8].copy_from_slice(&len.to_le_bytes());
        Chunk { len, sha256 }
    }

    fn of(numbers: impl IntoIterator<Item = u32>) -> Vec<Chunk> {
        numbers.into_iter().map(|number| chunk(number, MIB)).collect()
    }

    /// In MiB: length, and where it is copied from.
    fn planned(new: &[Chunk], old: &[Chunk]) -> Option<Vec<(u64, Option<u64>)>> {
        let mib = u64::from(MIB);
        let short = |part: Part| (part.len / mib, part.copied_from.map(|from| from / mib));
        parts(new, old, 8 * mib).map(|parts| parts.into_iter().map(short).collect())
    }

    #[test]
    fn what_was_there_is_copied_if_it_is_a_part_and_the_rest_is_sent() {
        let old = of(0..40);
        assert_eq!(planned(&old, &old), Some(vec![(40, Some(0))]));
        // Something new at the end, at the beginning, between.
        assert_eq!(planned(&of((0..40).chain([99])), &old), Some(vec![(40, Some(0)), (1, None)]));
        assert_eq!(planned(&of([99].into_iter().chain(0..40)), &old), Some(vec![(5, None), (36, Some(4))]));
        let between = of((0..20).chain([99]).chain(21..40));
        assert_eq!(planned(&between, &old), Some(vec![(20, Some(0)), (5, None), (15, Some(25))]));
        // Much new, in parts that are none too small; something gone; the order changed.
        let much = of((0..20).chain(100..119).chain(20..40));
        let wanted = vec![(20, Some(0)), (8, None), (11, None), (20, Some(20))];
        assert_eq!(planned(&much, &old), Some(wanted));
        assert_eq!(planned(&of((0..10).chain(15..40)), &old), Some(vec![(10, Some(0)), (25, Some(15))]));
        assert_eq!(planned(&of((20..40).chain(0..20)), &old), Some(vec![(20, Some(20)), (20, Some(0))]));
        // Changes so close to each other that no part is between them; and nothing in common.
        let changed = (0..40).map(|number| if number % 5 == 0 { number + 100 } else { number });
        assert_eq!(planned(&of(changed), &old), None);
        assert_eq!((planned(&of(100..140), &old), planned(&old, &[]), planned(&[], &old)), (None, None, None));
        // What stands there more than once.
        let twice = of((0..40).map(|number| if number == 30 { 3 } else { number }));
        assert_eq!(planned(&twice, &twice), Some(vec![(40, Some(0))]));
    }

    #[test]
    fn a_large_object_has_not_too_many_parts() {
        // 5 TiB of chunks as long as they may be would be many; these stand for them.
        let len = u32::MAX / 8;
        let old: Vec<_> = (0..10_240).map(|number| chunk(number, len)).collect();
        let mut new = old.clone();
        new.iter_mut().step_by(3).for_each(|changed| *changed = chunk(changed.len, len));
        let found = parts(&new, &old, LEAST_PART).unwrap();
        assert!(found.len() as u64 <= MAX_PARTS && found.iter().all(|part| part.len <= 5 << 30), "{}", found.len());
    }

    proptest! {
        #[test]
        fn parts_are_the_file_and_what_s3_takes(
            old in prop::collection::vec((0_u32..60, 1..=MOST as u32), 0..400),
            edits in prop::collection::vec((0_usize..400, 0_usize..40, 0_usize..40), 0..8),
            part_size in LEAST_PART..20 << 20,
        ) {
            let old: Vec<_> = old.into_iter().map(|(number, len)| chunk(number, len)).collect();
            let mut new = old.clone();
            for (at, gone, come) in edits {
                let at = at.min(new.len());
                let end = (at + gone).min(new.len());
                new.splice(at..end, (0..come as u32).map(|number| chunk(1000 + number, 100_000 + number)));
            }
            let Some(found) = parts(&new, &old, part_size) else { return Ok(()) };
            let (mut at, mut end) = (0, 0);
            let place = |chunks: &[Chunk], index: usize| -> u64 { chunks[..index].iter().map(|c| u64::from(c.len)).sum() };
            for (number, part) in found.iter().enumerate() {
                prop_assert_eq!((part.chunks.start, part.start), (at, end));
                prop_assert_eq!(part.len, place(&new, part.chunks.end) - part.start);
                (at, end) = (part.chunks.end, part.start + part.len);
                prop_assert!(part.len >= LEAST_PART || number + 1 == found.len() && part.len > 0);
                match part.copied_from {
                    Some(from) => {
                        let first = (0..old.len()).find(|index| place(&old, *index) == from).unwrap();
                        prop_assert_eq!(&new[part.chunks.clone()], &old[first..first + part.chunks.len()]);
                        prop_assert!(part.len <= COPIED_PART + MOST as u64 + LEAST_PART);
                    }
                    None => prop_assert!(part.len <= part_size + MOST as u64 + LEAST_PART),
                }
            }
            prop_assert_eq!(at, new.len());
        }
    }
}
