//! Pages in the order of their keys, out of pages in any order.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use jiff::Timestamp;

use crate::{Batch, Error, KeyRange, ObjectRef, Page};

/// Bytes of pages that wait in memory; beyond that they wait on disk.
const MEMORY: usize = 16 * 1024 * 1024;
/// Bytes of one file of those.
const SEGMENT: u64 = 64 * 1024 * 1024;

/// Gives `pages`, which come in any order, in the order of their keys. `ranges` are the stretches that they are of, as they
/// were [asked for](crate::ListOptions::ranges).
///
/// A page that comes early waits: in memory up to 16 MiB together, and beyond that in temporary files in `folder`, which
/// vanish with the process. At the worst, if the listing runs over many connections, nearly all of it waits there: about 150
/// bytes for each object that the filter means. Pages are asked for only when the next one in order is not there yet.
///
/// # Errors
///
/// An item that is an error is the last one: that of `pages`, [`Error::Spool`] if the disk refuses, and [`Error::Listing`] if
/// the pages end before the stretches do.
pub fn in_order<S>(pages: S, ranges: &[KeyRange], folder: &Path) -> BoxStream<'static, Result<Page, Error>>
where
    S: Stream<Item = Result<Page, Error>> + Send + Unpin + 'static,
{
    let mut ranges: Vec<KeyRange> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
    ranges.sort_by(|a, b| a.after.cmp(&b.after));
    let waiting = Waiting { early: BTreeMap::new(), memory: 0, spool: Spool::new(folder.to_owned()) };
    let state = State { pages, ranges: ranges.into(), at: None, waiting };
    futures::stream::try_unfold(state, |mut state| async move { Ok(state.next().await?.map(|page| (page, state))) })
        .boxed()
}

struct State<S> {
    pages: S,
    /// Those that are not done; the first is under way if there is a place in it.
    ranges: VecDeque<KeyRange>,
    /// Where in the first of them the next page begins, once its first page has gone.
    at: Option<String>,
    waiting: Waiting,
}

impl<S: Stream<Item = Result<Page, Error>> + Send + Unpin> State<S> {
    async fn next(&mut self) -> Result<Option<Page>, Error> {
        loop {
            let Some(range) = self.ranges.front() else { return Ok(None) };
            let after = self.at.as_ref().or(range.after.as_ref()).cloned();
            if let Some(page) = self.waiting.take(&after).await? {
                return Ok(Some(self.step(page)));
            }
            match self.pages.next().await.transpose()? {
                // It has no keys, and no place.
                Some(page) if page.range.is_empty() => {}
                Some(page) if page.range.after == after => return Ok(Some(self.step(page))),
                Some(page) => self.waiting.keep(page).await?,
                None => {
                    let what = format!("its pages end before {range} have come");
                    return Err(Error::Listing { location: "the bucket".to_owned(), what });
                }
            }
        }
    }

    /// Goes on to behind a page.
    fn step(&mut self, page: Page) -> Page {
        let is_end = self.ranges.front().is_none_or(|range| range.until == page.range.until);
        if is_end {
            self.ranges.pop_front();
            self.at = None;
        } else {
            self.at.clone_from(&page.range.until);
        }
        page
    }
}

/// Pages that came early, by where they begin.
struct Waiting {
    early: BTreeMap<Option<String>, Place>,
    memory: usize,
    spool: Spool,
}

enum Place {
    Memory(Page),
    Disk(Slot),
}

impl Waiting {
    async fn take(&mut self, after: &Option<String>) -> Result<Option<Page>, Error> {
        match self.early.remove(after) {
            None => Ok(None),
            Some(Place::Memory(page)) => {
                self.memory -= page.objects.footprint();
                Ok(Some(page))
            }
            Some(Place::Disk(slot)) => self.spool.on_thread(move |spool| spool.read(&slot)).await.map(Some),
        }
    }

    async fn keep(&mut self, page: Page) -> Result<(), Error> {
        let after = page.range.after.clone();
        let size = page.objects.footprint();
        let place = if self.memory + size <= MEMORY {
            self.memory += size;
            Place::Memory(page)
        } else {
            Place::Disk(self.spool.on_thread(move |spool| spool.write(&page)).await?)
        };
        self.early.insert(after, place);
        Ok(())
    }
}

/// Temporary files without names.
struct Spool {
    folder: PathBuf,
    /// By number; the last one grows. One whose pages have all been read is gone.
    segments: BTreeMap<u64, Segment>,
    next: u64,
}

struct Segment {
    file: File,
    size: u64,
    unread: usize,
}

struct Slot {
    segment: u64,
    offset: u64,
    size: usize,
}

impl Spool {
    fn new(folder: PathBuf) -> Self {
        Self { folder, segments: BTreeMap::new(), next: 0 }
    }

    /// Does what may wait for the disk on a thread for that.
    async fn on_thread<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let mut spool = std::mem::replace(self, Self::new(PathBuf::new()));
        let folder = spool.folder.clone();
        let failed = |source| Error::Spool { folder: folder.clone(), source };
        let worked = tokio::task::spawn_blocking(move || {
            let done = work(&mut spool);
            (done, spool)
        });
        let (done, spool) = worked.await.map_err(|error| failed(io::Error::other(error)))?;
        *self = spool;
        done.map_err(failed)
    }

    fn write(&mut self, page: &Page) -> io::Result<Slot> {
        let mut bytes = Vec::new();
        encode(page, &mut bytes);
        let is_full = self.segments.last_key_value().is_none_or(|(_, last)| last.size >= SEGMENT);
        if is_full {
            self.segments.insert(self.next, Segment { file: tempfile::tempfile_in(&self.folder)?, size: 0, unread: 0 });
            self.next += 1;
        }
        let Some(mut last) = self.segments.last_entry() else { return Err(io::Error::other("there is no file")) };
        let (number, segment) = (*last.key(), last.get_mut());
        segment.file.seek(SeekFrom::Start(segment.size))?;
        segment.file.write_all(&bytes)?;
        let slot = Slot { segment: number, offset: segment.size, size: bytes.len() };
        segment.size += bytes.len() as u64;
        segment.unread += 1;
        Ok(slot)
    }

    fn read(&mut self, slot: &Slot) -> io::Result<Page> {
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "a page that was kept cannot be read");
        let is_last = slot.segment + 1 == self.next;
        let segment = self.segments.get_mut(&slot.segment).ok_or_else(broken)?;
        let mut bytes = vec![0; slot.size];
        segment.file.seek(SeekFrom::Start(slot.offset))?;
        segment.file.read_exact(&mut bytes)?;
        segment.unread -= 1;
        if segment.unread == 0 && (!is_last || segment.size >= SEGMENT) {
            self.segments.remove(&slot.segment);
        }
        decode(&bytes).ok_or_else(broken)
    }
}

/// A page as this process reads it again.
fn encode(page: &Page, bytes: &mut Vec<u8>) {
    let mut text = |text: Option<&str>| {
        let length = text.map_or(u64::MAX, |text| text.len() as u64);
        bytes.extend(length.to_le_bytes());
        bytes.extend(text.unwrap_or_default().as_bytes());
    };
    text(page.range.after.as_deref());
    text(page.range.until.as_deref());
    for object in page.objects.iter() {
        text(Some(object.key));
        text(object.etag);
    }
    let mut number = |number: i128| bytes.extend(number.to_le_bytes());
    for object in page.objects.iter() {
        number(object.size.map_or(-1, i128::from));
        number(object.last_modified.map_or(i128::MAX, Timestamp::as_nanosecond));
    }
    number(i128::from(page.keys));
    number(i128::from(page.lane) << 1 | i128::from(page.is_last));
    number(page.objects.len() as i128);
}

fn decode(bytes: &[u8]) -> Option<Page> {
    let (bytes, count) = take_number(bytes)?;
    let (bytes, lane) = take_number(bytes)?;
    let (bytes, keys) = take_number(bytes)?;
    let count = usize::try_from(count).ok()?;
    let (mut texts, numbers) = bytes.split_at_checked(bytes.len().checked_sub(count.checked_mul(32)?)?)?;
    let mut text = || -> Option<Option<&str>> {
        let (length, rest) = texts.split_first_chunk::<8>()?;
        let length = u64::from_le_bytes(*length);
        texts = rest;
        if length == u64::MAX {
            return Some(None);
        }
        let (text, rest) = texts.split_at_checked(usize::try_from(length).ok()?)?;
        texts = rest;
        Some(Some(std::str::from_utf8(text).ok()?))
    };
    let range = KeyRange::new(text()?.map(str::to_owned), text()?.map(str::to_owned));
    let mut objects = Batch::new();
    for fields in numbers.chunks_exact(32) {
        let (rest, mtime) = take_number(fields)?;
        let (_, size) = take_number(rest)?;
        let mut object = ObjectRef::new(text()??);
        object.etag = text()?;
        object.size = u64::try_from(size).ok();
        object.last_modified = (mtime != i128::MAX).then(|| Timestamp::from_nanosecond(mtime)).transpose().ok()?;
        objects.push(object);
    }
    let (keys, is_last) = (u64::try_from(keys).ok()?, lane & 1 == 1);
    Some(Page { range, objects, keys, lane: u64::try_from(lane >> 1).ok()?, is_last })
}

/// The number at the end.
fn take_number(bytes: &[u8]) -> Option<(&[u8], i128)> {
    let (rest, number) = bytes.split_last_chunk::<16>()?;
    Some((rest, i128::from_le_bytes(*number)))
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use proptest::prelude::*;

    use super::*;

    fn page(after: Option<&str>, until: Option<&str>, keys: &[&str]) -> Page {
        let mut objects = Batch::new();
        for (number, key) in keys.iter().enumerate() {
            let mut object = ObjectRef::new(key);
            object.etag = (number % 2 == 0).then_some("tag");
            object.size = (number % 3 > 0).then_some(u64::MAX);
            object.last_modified = (number % 5 > 0).then_some(Timestamp::MIN);
            objects.push(object);
        }
        let range = KeyRange::new(after.map(str::to_owned), until.map(str::to_owned));
        Page { range, objects, keys: keys.len() as u64 + 7, lane: 3, is_last: true }
    }

    #[test]
    fn a_page_that_waits_on_disk_comes_back() {
        let mut spool = Spool::new(std::env::temp_dir());
        let pages = [page(None, Some("b"), &["a", "é", "", "x", "y", "z"]), page(Some("b"), None, &[])];
        let slots: Vec<Slot> = pages.iter().map(|page| spool.write(page).unwrap()).collect();
        for (page, slot) in pages.iter().zip(&slots).rev() {
            assert_eq!(spool.read(slot).unwrap(), *page);
        }
    }

    #[test]
    fn files_that_were_read_are_gone() {
        let mut spool = Spool::new(std::env::temp_dir());
        let key = "x".repeat(1 << 20);
        let slots: Vec<Slot> = (0..130).map(|_| spool.write(&page(None, None, &[&key])).unwrap()).collect();
        assert_eq!(spool.segments.len(), 3);
        for slot in &slots {
            assert_eq!(spool.read(slot).unwrap().objects.len(), 1);
        }
        assert_eq!(spool.segments.len(), 1);
    }

    proptest! {
        #[test]
        fn pages_are_sorted(cuts in proptest::collection::btree_set("[a-e]{1,3}", 0..20), order in Just(()).prop_perturb(|(), mut random| random.random::<u64>())) {
            let borders: Vec<Option<&str>> =
                std::iter::once(None).chain(cuts.iter().map(|cut| Some(cut.as_str()))).chain(std::iter::once(None)).collect();
            // Each third stretch was not asked for.
            let mut ranges: Vec<KeyRange> = Vec::new();
            let mut sorted = Vec::new();
            for (number, pair) in borders.windows(2).enumerate() {
                if number % 3 == 1 && borders.len() > 2 {
                    continue;
                }
                let page = page(pair[0], pair[1], &[]);
                match ranges.last_mut().filter(|last| last.until.is_some() && last.until == page.range.after) {
                    Some(last) => last.until.clone_from(&page.range.until),
                    None => ranges.push(page.range.clone()),
                }
                sorted.push(page);
            }
            let mut shuffled = sorted.clone();
            fastrand::Rng::with_seed(order).shuffle(&mut shuffled);
            let pages = futures::stream::iter(shuffled.into_iter().map(Ok));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let found: Vec<Page> =
                runtime.block_on(in_order(pages, &ranges, &std::env::temp_dir()).try_collect()).unwrap();
            prop_assert_eq!(found, sorted);
        }
    }
}
