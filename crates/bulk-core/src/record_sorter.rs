use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use crate::{Error, ManifestEntry};

/// Bytes of records that are sorted in memory; more are sorted in files.
const RUN: usize = 16 * 1024 * 1024;
/// Sorted files that are merged at once.
const FAN_IN: usize = 64;

/// Sorts records by name in bounded memory: sorted runs in unnamed files, merged in levels. Those of one name stay in their
/// order.
pub(crate) struct Sorter<'a> {
    folder: &'a Path,
    records: Vec<ManifestEntry>,
    /// About the bytes that `records` take.
    bytes: usize,
    /// Runs of level n are merged of `FAN_IN` runs of level n - 1.
    levels: Vec<Vec<File>>,
    run: usize,
}

impl<'a> Sorter<'a> {
    pub(crate) fn new(folder: &'a Path) -> Self {
        Self { folder, records: Vec::new(), bytes: 0, levels: Vec::new(), run: RUN }
    }

    pub(crate) fn push(&mut self, record: ManifestEntry) -> Result<(), Error> {
        let etag = record.etag.as_ref().map_or(0, |etag| etag.as_str().len());
        self.bytes += size_of::<ManifestEntry>() + record.name.len() + record.key.len() + etag;
        self.records.push(record);
        if self.bytes >= self.run {
            let records = self.sorted();
            let run = self.spill(records.into_iter().map(Ok))?;
            self.add(0, run)?;
        }
        Ok(())
    }

    fn sorted(&mut self) -> Vec<ManifestEntry> {
        self.bytes = 0;
        let mut records = std::mem::take(&mut self.records);
        records.sort_by(|a, b| a.name.cmp(&b.name));
        records
    }

    fn add(&mut self, level: usize, run: File) -> Result<(), Error> {
        if self.levels.len() <= level {
            self.levels.push(Vec::new());
        }
        self.levels[level].push(run);
        if self.levels[level].len() < FAN_IN {
            return Ok(());
        }
        let runs = std::mem::take(&mut self.levels[level]);
        let merged = self.spill(Merge::of(self.folder, runs, Vec::new())?)?;
        self.add(level + 1, merged)
    }

    fn spill(&self, records: impl Iterator<Item = Result<ManifestEntry, Error>>) -> Result<File, Error> {
        let failed = |error| Error::io("write a temporary file in", self.folder, error);
        let mut file = BufWriter::new(tempfile::tempfile_in(self.folder).map_err(failed)?);
        for record in records {
            serde_json::to_writer(&mut file, &record?).map_err(|error| failed(error.into()))?;
            file.write_all(b"\n").map_err(failed)?;
        }
        file.into_inner().map_err(|error| failed(error.into_error()))
    }

    pub(crate) fn finish(mut self) -> Result<Merge, Error> {
        let records = self.sorted();
        let mut levels = std::mem::take(&mut self.levels);
        // A merge opens no more files than a level has.
        while levels.iter().map(Vec::len).sum::<usize>() > FAN_IN {
            let low = levels.remove(0);
            let merged = self.spill(Merge::of(self.folder, low, Vec::new())?)?;
            levels[0].push(merged);
        }
        // The higher the level, the earlier its records came.
        Merge::of(self.folder, levels.into_iter().rev().flatten().collect(), records)
    }
}

/// The records of sorted runs, and of a sorted list, in order.
pub(crate) struct Merge {
    folder: PathBuf,
    runs: Vec<BufReader<File>>,
    /// Run `runs.len()`, first record last.
    records: Vec<ManifestEntry>,
    heads: BinaryHeap<Head>,
    is_broken: bool,
}

struct Head {
    record: ManifestEntry,
    run: usize,
}

impl Ord for Head {
    /// The greatest is the one with the first name.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&other.record.name, other.run).cmp(&(&self.record.name, self.run))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

impl Merge {
    fn of(folder: &Path, runs: Vec<File>, mut records: Vec<ManifestEntry>) -> Result<Self, Error> {
        records.reverse();
        let mut readers = Vec::with_capacity(runs.len());
        for mut run in runs {
            run.rewind().map_err(|error| Error::io("read a temporary file in", folder, error))?;
            readers.push(BufReader::with_capacity(64 * 1024, run));
        }
        let heads = BinaryHeap::with_capacity(readers.len() + 1);
        let mut merge = Self { folder: folder.to_owned(), runs: readers, records, heads, is_broken: false };
        (0..=merge.runs.len()).try_for_each(|run| merge.advance(run))?;
        Ok(merge)
    }

    /// Puts the next record of a run among the heads.
    fn advance(&mut self, run: usize) -> Result<(), Error> {
        let record = match self.runs.get_mut(run) {
            None => self.records.pop(),
            Some(reader) => {
                let mut line = Vec::new();
                let read = reader.read_until(b'\n', &mut line);
                let parsed = read.and_then(|len| match len {
                    0 => Ok(None),
                    _ => Ok(Some(serde_json::from_slice(&line)?)),
                });
                parsed.map_err(|error| Error::io("read a temporary file in", &self.folder, error))?
            }
        };
        self.heads.extend(record.map(|record| Head { record, run }));
        Ok(())
    }
}

impl Iterator for Merge {
    type Item = Result<ManifestEntry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_broken {
            return None;
        }
        let Head { record, run } = self.heads.pop()?;
        let advanced = self.advance(run);
        self.is_broken = advanced.is_err();
        Some(advanced.map(|()| record))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn runs_that_are_merged_in_levels_give_every_record_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(folder.path());
        // A run for each record, so two levels of merging and some runs left over on each.
        sorter.run = 1;
        let count = FAN_IN * FAN_IN + FAN_IN * (FAN_IN - 1) + 63;
        let mut names: Vec<String> = (0..count).map(|n| format!("{:x}/ä{n}", n * 7919 % 8191)).collect();
        for name in &names {
            sorter.push(ManifestEntry::new(name, 1)).unwrap();
        }
        assert_eq!(sorter.levels.iter().map(Vec::len).collect::<Vec<_>>(), [63, 63, 1]);
        let sorted: Vec<String> = sorter.finish().unwrap().map(|record| record.unwrap().name).collect();
        names.sort();
        assert_eq!(sorted, names);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
