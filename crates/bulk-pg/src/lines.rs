//! Which records of a chunk the lines of a COPY are.

use std::ops::Range;

/// The records whose rows went into a COPY, in its order, by their places in the chunk, from 0. What stands between them
/// was left out, or went into another COPY. Also of records that became no rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    runs: Vec<Range<u64>>,
    count: u64,
}

impl Lines {
    /// Adds a record behind the last one.
    #[inline(always)]
    pub(crate) fn push(&mut self, index: u64) {
        self.count += 1;
        match self.runs.last_mut() {
            Some(run) if run.end == index => run.end += 1,
            _ => self.runs.push(index..index + 1),
        }
    }

    pub(crate) fn append(&mut self, more: Self) {
        self.count += more.count;
        let mut runs = more.runs.into_iter();
        if let (Some(last), Some(first)) = (self.runs.last_mut(), runs.as_slice().first())
            && last.end == first.start
        {
            last.end = first.end;
            runs.next();
        }
        self.runs.extend(runs);
    }

    /// The same, of records whose places count from `base` records before.
    pub(crate) fn behind(mut self, base: u64) -> Self {
        for run in &mut self.runs {
            *run = run.start + base..run.end + base;
        }
        self
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The records.
    pub(crate) fn records(&self) -> impl Iterator<Item = u64> {
        self.runs.iter().cloned().flatten()
    }

    /// The record of a line, from 1.
    pub(crate) fn record(&self, line: u64) -> Option<u64> {
        let mut before = line.checked_sub(1)?;
        for run in &self.runs {
            let len = run.end - run.start;
            if before < len {
                return Some(run.start + before);
            }
            before -= len;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_whatever_was_left_out() {
        let mut lines = Lines::default();
        for index in [0, 1, 3] {
            lines.push(index);
        }
        let (mut joined, mut apart) = (Lines::default(), Lines::default());
        joined.push(4);
        apart.push(9);
        for more in [joined, Lines::default(), apart] {
            lines.append(more);
        }
        assert_eq!(lines.runs, [0..2, 3..5, 9..10]);
        let found: Vec<_> = (0..=6).map(|line| lines.record(line)).collect();
        assert_eq!(found, [None, Some(0), Some(1), Some(3), Some(4), Some(9), None]);
        assert_eq!(lines.count(), 5);
        assert_eq!(lines.records().collect::<Vec<_>>(), [0, 1, 3, 4, 9]);
    }
}
