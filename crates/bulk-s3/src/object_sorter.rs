//! Objects in the order of their keys, out of objects in any order, in bounded memory.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::{Batch, Error, ObjectRef};

/// Bytes of objects that are sorted in memory; more are sorted in files.
const RUN: usize = 32 << 20;
/// Sorted files that are merged at once.
const FAN_IN: usize = 64;
/// About the bytes that an object takes besides its texts.
const OBJECT: usize = 128;
/// Objects that are handed on at a time.
const BATCH: usize = 1024;

/// Sorts objects by their keys: sorted runs in files without names, merged in levels. Those of one key stay in their order.
pub(crate) struct Sorter {
    folder: PathBuf,
    objects: Batch,
    /// About the bytes that `objects` take.
    bytes: usize,
    /// Runs of level n are merged of `FAN_IN` runs of level n - 1.
    levels: Vec<Vec<File>>,
    run: usize,
}

impl Sorter {
    /// A sorter of nothing; its files will be in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), objects: Batch::new(), bytes: 0, levels: Vec::new(), run: RUN }
    }

    /// Takes an object.
    pub(crate) fn push(&mut self, object: ObjectRef<'_>) -> Result<(), Error> {
        self.objects.push(object);
        self.bytes += OBJECT + object.key.len() + object.etag.map_or(0, str::len);
        if self.bytes >= self.run {
            let run = Merge::new(&self.folder, Vec::new(), std::mem::take(&mut self.objects))?;
            self.bytes = 0;
            let run = self.spill(run)?;
            self.add(0, run)?;
        }
        Ok(())
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
        let merged = self.spill(Merge::new(&self.folder, runs, Batch::new())?)?;
        self.add(level + 1, merged)
    }

    fn spill(&self, mut objects: Merge) -> Result<File, Error> {
        let mut file = BufWriter::new(tempfile::tempfile_in(&self.folder).map_err(|error| spool(&self.folder, error))?);
        let (mut batch, mut bytes) = (Batch::new(), Vec::new());
        loop {
            batch.clear();
            objects.read(&mut batch, BATCH)?;
            if batch.is_empty() {
                return file.into_inner().map_err(|error| spool(&self.folder, error.into_error()));
            }
            bytes.clear();
            batch.iter().for_each(|object| encode(object, &mut bytes));
            file.write_all(&bytes).map_err(|error| spool(&self.folder, error))?;
        }
    }

    /// All objects, in order.
    pub(crate) fn finish(mut self) -> Result<Merge, Error> {
        let mut levels = std::mem::take(&mut self.levels);
        // A merge opens no more files than a level has.
        while levels.iter().map(Vec::len).sum::<usize>() > FAN_IN {
            let low = levels.remove(0);
            let merged = self.spill(Merge::new(&self.folder, low, Batch::new())?)?;
            levels[0].push(merged);
        }
        // The higher the level, the earlier its objects came.
        Merge::new(&self.folder, levels.into_iter().rev().flatten().collect(), self.objects)
    }
}

#[cold]
fn spool(folder: &Path, source: io::Error) -> Error {
    Error::Spool { folder: folder.to_owned(), source }
}

/// The objects of sorted runs, and of a list, in order.
pub(crate) struct Merge {
    folder: PathBuf,
    runs: Vec<BufReader<File>>,
    /// Run `runs.len()`, with its objects in their order, last one first.
    objects: Batch,
    order: Vec<u32>,
    heads: BinaryHeap<Head>,
}

impl Merge {
    fn new(folder: &Path, files: Vec<File>, objects: Batch) -> Result<Self, Error> {
        let mut runs = Vec::with_capacity(files.len());
        for mut file in files {
            file.rewind().map_err(|error| spool(folder, error))?;
            runs.push(BufReader::with_capacity(64 << 10, file));
        }
        let mut order = sorted(&objects);
        order.reverse();
        let mut merge = Self { folder: folder.to_owned(), heads: BinaryHeap::new(), runs, objects, order };
        for run in 0..=merge.runs.len() {
            let mut head = Head { run, ..Head::default() };
            if merge.advance(&mut head)? {
                merge.heads.push(head);
            }
        }
        Ok(merge)
    }

    /// Puts the next object of its run into a head; says whether there is one.
    fn advance(&mut self, head: &mut Head) -> Result<bool, Error> {
        advance(&mut self.runs, &self.objects, &mut self.order, head).map_err(|error| spool(&self.folder, error))
    }

    /// Puts up to `limit` objects behind those of `batch`, and one at least as long as there are any.
    pub(crate) fn read(&mut self, batch: &mut Batch, limit: usize) -> Result<(), Error> {
        for _ in 0..limit.max(1) {
            let Some(mut head) = self.heads.peek_mut() else { break };
            batch.push(head.object());
            let advanced = advance(&mut self.runs, &self.objects, &mut self.order, &mut head);
            if !advanced.map_err(|error| spool(&self.folder, error))? {
                PeekMut::pop(head);
            }
        }
        Ok(())
    }
}

fn advance(runs: &mut [BufReader<File>], objects: &Batch, order: &mut Vec<u32>, head: &mut Head) -> io::Result<bool> {
    match runs.get_mut(head.run) {
        Some(run) => decode(run, head),
        None => {
            let next = order.pop().and_then(|index| objects.get(index as usize));
            next.inspect(|object| head.set(*object));
            Ok(next.is_some())
        }
    }
}

/// The places of objects, in the order of their keys. A run has fewer than 2^32 of them.
fn sorted(objects: &Batch) -> Vec<u32> {
    let keys = || objects.iter().map(|object| object.key.as_bytes());
    let first = keys().next().unwrap_or_default();
    // What all keys begin with tells none apart; the eight bytes behind it tell most.
    let shared = keys().fold(first.len(), |shared, key| {
        first[..shared].iter().zip(key).take_while(|(first, byte)| first == byte).count()
    });
    let marks = keys().map(|key| {
        let mut mark = [0; 8];
        key[shared..].iter().zip(&mut mark).for_each(|(byte, mark)| *mark = *byte);
        u64::from_be_bytes(mark)
    });
    let mut places: Vec<(u64, u32)> = marks.zip(0..).collect();
    let key = |place: u32| objects.get(place as usize).map(|object| object.key);
    places.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| key(a.1).cmp(&key(b.1))).then(a.1.cmp(&b.1)));
    places.into_iter().map(|(_, place)| place).collect()
}

/// The object in front of a run.
#[derive(Default)]
struct Head {
    /// The key, and the ETag.
    text: String,
    key_end: usize,
    has_etag: bool,
    size: Option<u64>,
    last_modified: Option<Timestamp>,
    content: Option<[u8; 32]>,
    run: usize,
}

impl Head {
    fn key(&self) -> &str {
        &self.text[..self.key_end]
    }

    fn object(&self) -> ObjectRef<'_> {
        let mut object = ObjectRef::new(self.key());
        object.etag = self.has_etag.then(|| &self.text[self.key_end..]);
        (object.size, object.last_modified, object.content) = (self.size, self.last_modified, self.content);
        object
    }

    fn set(&mut self, object: ObjectRef<'_>) {
        self.text.clear();
        self.text.push_str(object.key);
        self.key_end = self.text.len();
        self.text.push_str(object.etag.unwrap_or_default());
        self.has_etag = object.etag.is_some();
        (self.size, self.last_modified, self.content) = (object.size, object.last_modified, object.content);
    }
}

impl Ord for Head {
    /// The greatest is the one with the first key.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.key(), other.run).cmp(&(self.key(), self.run))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

/// Bytes of what stands before an object's texts: which fields there are, size, time, and the lengths of the texts.
const FIXED: usize = 1 + 8 + 16 + 4 + 4;
const HAS_ETAG: u8 = 1;
const HAS_SIZE: u8 = 2;
const HAS_TIME: u8 = 4;
const HAS_CONTENT: u8 = 8;

/// An object as this process reads it again.
fn encode(object: ObjectRef<'_>, bytes: &mut Vec<u8>) {
    let flag = |flag, is_there| if is_there { flag } else { 0 };
    bytes.push(
        flag(HAS_ETAG, object.etag.is_some())
            | flag(HAS_SIZE, object.size.is_some())
            | flag(HAS_TIME, object.last_modified.is_some())
            | flag(HAS_CONTENT, object.content.is_some()),
    );
    bytes.extend(object.size.unwrap_or_default().to_le_bytes());
    bytes.extend(object.last_modified.map_or(0, Timestamp::as_nanosecond).to_le_bytes());
    let etag = object.etag.unwrap_or_default();
    for text in [object.key, etag] {
        // Readers bound what a row may have, far below this.
        bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    }
    bytes.extend(object.content.iter().flatten());
    bytes.extend(object.key.as_bytes());
    bytes.extend(etag.as_bytes());
}

/// Reads the next object of a run; says whether there is one.
fn decode(run: &mut BufReader<File>, head: &mut Head) -> io::Result<bool> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "an object that was kept cannot be read");
    let mut fixed = [0; FIXED];
    match run.read(&mut fixed[..1])? {
        0 => return Ok(false),
        _ => run.read_exact(&mut fixed[1..])?,
    }
    let mut at = &fixed[1..];
    fn take<const N: usize>(at: &mut &[u8]) -> Option<[u8; N]> {
        let (taken, rest) = at.split_first_chunk::<N>()?;
        *at = rest;
        Some(*taken)
    }
    let size = u64::from_le_bytes(take(&mut at).ok_or_else(broken)?);
    let time = i128::from_le_bytes(take(&mut at).ok_or_else(broken)?);
    let key = u32::from_le_bytes(take(&mut at).ok_or_else(broken)?) as usize;
    let etag = u32::from_le_bytes(take(&mut at).ok_or_else(broken)?) as usize;
    let has = |flag| fixed[0] & flag != 0;
    head.content = None;
    if has(HAS_CONTENT) {
        run.read_exact(head.content.insert([0; 32]))?;
    }
    let mut text = std::mem::take(&mut head.text).into_bytes();
    text.resize(key + etag, 0);
    run.read_exact(&mut text)?;
    head.text = String::from_utf8(text).map_err(|_| broken())?;
    head.key_end = head.text.is_char_boundary(key).then_some(key).ok_or_else(broken)?;
    head.has_etag = has(HAS_ETAG);
    head.size = has(HAS_SIZE).then_some(size);
    head.last_modified = has(HAS_TIME).then(|| Timestamp::from_nanosecond(time)).transpose().map_err(|_| broken())?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(sorter: Sorter) -> Batch {
        let mut merge = sorter.finish().unwrap();
        let mut all = Batch::new();
        loop {
            let before = all.len();
            merge.read(&mut all, 100).unwrap();
            if all.len() == before {
                return all;
            }
        }
    }

    #[test]
    fn runs_that_are_merged_in_levels_give_every_object_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(folder.path());
        // A run for each object, so two levels of merging and some runs left over on each.
        sorter.run = 1;
        let count = FAN_IN * FAN_IN + FAN_IN * (FAN_IN - 1) + 63;
        let mut keys: Vec<String> = (0..count).map(|n| format!("{:x}/ä{n}", n * 7919 % 8191)).collect();
        for key in &keys {
            sorter.push(ObjectRef::new(key)).unwrap();
        }
        assert_eq!(sorter.levels.iter().map(Vec::len).collect::<Vec<_>>(), [63, 63, 1]);
        let sorted = all(sorter);
        keys.sort();
        assert!(sorted.iter().map(|object| object.key).eq(keys.iter()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    proptest! {
        #[test]
        fn objects_come_in_the_order_of_keys_and_then_of_their_coming(
            rows in proptest::collection::vec(("[ab\0é]{0,4}|abcdefghijkl[a-c]{0,3}", 0..40u64), 0..60),
            run in 1..2000usize,
        ) {
            let mut wanted: Vec<ObjectRef<'_>> = Vec::new();
            for (key, number) in &rows {
                let mut object = ObjectRef::new(key);
                object.etag = [None, Some(""), Some("tag"), Some("ß")][*number as usize % 4];
                object.size = (number % 3 > 0).then_some(*number);
                object.last_modified = (number % 5 > 0).then_some(Timestamp::MIN);
                object.content = (number % 7 > 0).then_some([7; 32]);
                wanted.push(object);
            }
            let mut sorter = Sorter::new(&std::env::temp_dir());
            sorter.run = run;
            wanted.iter().for_each(|object| sorter.push(*object).unwrap());
            wanted.sort_by_key(|object| object.key);
            prop_assert_eq!(all(sorter), wanted.into_iter().collect::<Batch>());
        }
    }
}
