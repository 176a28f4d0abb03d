use std::{
    io::{self, Read, Seek, SeekFrom, Write},
    iter::Peekable,
    ops::Range,
    sync::Arc,
};

use super::{
    composer::{Composer, with_contents},
    deflate::{self, HEADER, TRAILER_LEN},
    index::{ArchiveIndex, ArchiveSummary, ContentHash, IndexedBlock, IndexedEntry},
    press::{CopyBytes, Press, PressObserver, copy_bytes},
    writer::processors,
};
use crate::Error;

/// An archive and its index, which have been found to belong together.
pub struct IndexedArchive<A, I> {
    pub(crate) archive: A,
    pub(crate) index: ArchiveIndex<I>,
}

impl<A: Read + Seek, I: Read + Seek> IndexedArchive<A, I> {
    /// Opens both. `file` is the name of the archive that errors give.
    ///
    /// Only the ends are looked at: [`verify`](crate::verify) looks at all.
    ///
    /// # Errors
    /// [`Error::IndexMismatch`] where the archive's length or its trailer is not what the index has;
    /// [`Error::Index`] where the index is damaged; [`Error::Io`].
    pub fn open(mut archive: A, index: I, file: &str) -> Result<IndexedArchive<A, I>, Error> {
        let index = ArchiveIndex::open(index, file)?;
        let summary = index.summary();
        let io = |source| Error::Io { file: file.to_owned(), offset: None, source };
        let mismatch = |reason| Error::IndexMismatch { file: file.to_owned(), reason };
        if archive.seek(SeekFrom::End(0)).map_err(io)? != summary.len || summary.len < HEADER.len() as u64 + 8 {
            return Err(mismatch("the archive has another length"));
        }
        let (mut header, mut trailer) = ([0; HEADER.len()], [0; TRAILER_LEN]);
        archive.seek(SeekFrom::End(-(TRAILER_LEN as i64))).map_err(io)?;
        archive.read_exact(&mut trailer).map_err(io)?;
        archive.seek(SeekFrom::Start(0)).map_err(io)?;
        archive.read_exact(&mut header).map_err(io)?;
        if header != HEADER {
            return Err(mismatch("the archive has another header"));
        }
        if trailer != summary.trailer() {
            return Err(mismatch("the archive has another checksum"));
        }
        Ok(IndexedArchive { archive, index })
    }

    /// What the archive has as a whole.
    pub fn summary(&self) -> ArchiveSummary {
        self.index.summary()
    }
}

/// What becomes of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is added, or takes the place of the one with its id.
    Put {
        /// The id.
        id: String,
        /// When it was modified, in seconds since 1970.
        mtime: i64,
        /// What its entry has.
        content: Vec<u8>,
    },
    /// It goes.
    Remove {
        /// The id.
        id: String,
    },
}

impl Change {
    /// The id of the item.
    pub fn id(&self) -> &str {
        match self {
            Change::Put { id, .. } | Change::Remove { id } => id,
        }
    }
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The item is new.
    Added,
    /// The item took the place of another version.
    Replaced,
    /// The item was there as it is.
    Unchanged,
    /// The item is gone.
    Removed,
    /// There was no item to remove.
    Missing,
}

impl Outcome {
    /// Whether the archive has other items now.
    pub fn has_changed(self) -> bool {
        matches!(self, Outcome::Added | Outcome::Replaced | Outcome::Removed)
    }
}

/// What an item with the content that is there already, but another time, does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SameContent {
    /// It takes the place of the one that is there: the archive is what a new one of the same items would be.
    #[default]
    Replace,
    /// Nothing: the entry keeps its time.
    Keep,
}

/// What becomes of blocks that another version of the compressor has made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForeignBlocks {
    /// They are compressed anew: the archive is what a new one of the same items would be.
    #[default]
    Redo,
    /// They are copied, which is as good for readers. The bytes depend on the archive's history then, and its index
    /// cannot be rebuilt.
    Copy,
}

/// How changes are spliced in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpliceOptions {
    /// How many threads compress; 0 is taken for 1. By default as many as there are processors.
    pub threads: usize,
    /// By default [`SameContent::Replace`].
    pub same_content: SameContent,
    /// By default [`ForeignBlocks::Redo`].
    pub foreign_blocks: ForeignBlocks,
}

impl Default for SpliceOptions {
    fn default() -> SpliceOptions {
        SpliceOptions {
            threads: processors(),
            same_content: SameContent::default(),
            foreign_blocks: ForeignBlocks::default(),
        }
    }
}

/// What a splice did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spliced {
    /// The new archive.
    pub summary: ArchiveSummary,
    /// Items that are new.
    pub added: u64,
    /// Items that took the place of another version.
    pub replaced: u64,
    /// Items that were there as they are.
    pub unchanged: u64,
    /// Items that are gone.
    pub removed: u64,
    /// Items that were to go and were not there.
    pub missing: u64,
    /// Blocks of the new archive that were copied from the old one.
    pub copied_blocks: u64,
    /// The numbers of the other blocks, which were made anew, in order, and of copied ones before which something new stands, as
    /// it may in an archive that is laid out for reflinks; neighbours are in one range. Whoever trusts the old archive has to
    /// check these alone: see [`verify_blocks`](crate::verify_blocks).
    pub made_blocks: Vec<Range<u64>>,
}

impl Spliced {
    /// Whether the new archive has other items than the old one.
    pub fn has_changed(&self) -> bool {
        self.added + self.replaced + self.removed > 0
    }
}

/// Writes a new archive: the old one with some changes, which come in the order of their ids.
///
/// Blocks that the changes leave as they are are copied as compressed bytes; where both archives are files, by the
/// kernel, which does not even copy them where [`ArchiveOptions::reflink`](crate::ArchiveOptions::reflink) was given and the file
/// system can share them. The others are inflated, edited and compressed again. The new archive and index have the bytes that an
/// [`ArchiveWriter`](crate::ArchiveWriter) would have given them for the same items and the options of the first one.
/// That holds for all archives with [`SpliceOptions::default`], and is how archives do not degrade: small blocks merge
/// and large ones split as they would have been made.
///
/// `tell` hears of each change what it did. Indexes are read and written as a stream, so memory depends on the longest
/// entry and the number of threads, and not on how many items there are. What is copied is not read, so damage in it
/// passes on, with the checksums that show it; [`verify`](crate::verify) finds it.
///
/// # Errors
/// [`Error::Unsorted`], [`Error::Refused`] for an id that cannot be a name, [`Error::Changes`] where `changes` gives an
/// error, [`Error::Corrupt`] and [`Error::Truncated`] where a block is not what the index says, [`Error::Index`],
/// [`Error::Io`], [`Error::Output`]. The old archive is as it was, and the new one has no end: remove it.
pub fn splice<A, I, W, X>(
    old: IndexedArchive<A, I>,
    changes: impl IntoIterator<Item = io::Result<Change>>,
    archive: W,
    index: X,
    options: &SpliceOptions,
    tell: impl FnMut(&str, Outcome),
) -> Result<Spliced, Error>
where
    A: Read + Seek,
    I: Read + Seek,
    W: Write,
    X: Write,
{
    splice_observed(old, changes, archive, index, options, tell, (copy_bytes, Arc::new(|_| {})))
}

/// The same, where somebody copies the bytes, and hears what its threads do.
pub(crate) fn splice_observed<A, I, W, X>(
    old: IndexedArchive<A, I>,
    changes: impl IntoIterator<Item = io::Result<Change>>,
    archive: W,
    index: X,
    options: &SpliceOptions,
    tell: impl FnMut(&str, Outcome),
    (copy_bytes, observer): (CopyBytes<A, W>, PressObserver),
) -> Result<Spliced, Error>
where
    A: Read + Seek,
    I: Read + Seek,
    W: Write,
    X: Write,
{
    let IndexedArchive { archive: source, index: mut old } = old;
    let file = old.file().to_owned();
    let mut recipe = old.recipe();
    let engine = deflate::engine(recipe.level);
    let may_copy = recipe.engine == engine || options.foreign_blocks == ForeignBlocks::Copy;
    if recipe.engine != engine {
        recipe.engine = if may_copy { 0 } else { engine };
    }
    let press = Press::new((source, copy_bytes), archive, index, &recipe, options.threads, &file, observer)?;
    let mut splice = Splice {
        composer: Composer::new(press, &recipe, may_copy, &file),
        changes: Changes { source: changes.into_iter().peekable(), last_id: None, file },
        same_content: options.same_content,
        spliced: Spliced::default(),
        tell,
    };
    let mut next = old.next_block()?;
    while let Some(block) = next {
        next = old.next_block()?;
        splice.block(block, next.as_ref().map(IndexedBlock::first_id))?;
    }
    splice.put_before(None)?;
    let pressed = splice.composer.finish()?;
    Ok(Spliced { summary: pressed.summary, copied_blocks: pressed.copied, made_blocks: pressed.made, ..splice.spliced })
}

/// Whether a [`splice()`] of these changes would make another archive, by the index alone. The changes come in the order of
/// their ids, and are read up to the first that has an effect.
///
/// Blocks that another version of the compressor has made are none: as long as no item changes, they are as good as ever.
///
/// # Errors
/// [`Error::Unsorted`], [`Error::Changes`], [`Error::Index`], [`Error::Io`].
pub fn changes_anything<I: Read + Seek>(
    mut index: ArchiveIndex<I>,
    changes: impl IntoIterator<Item = io::Result<Change>>,
    same_content: SameContent,
) -> Result<bool, Error> {
    let file = index.file().to_owned();
    let mut changes = Changes { source: changes.into_iter().peekable(), last_id: None, file };
    let mut next = index.next_block()?;
    while let Some(block) = next {
        next = index.next_block()?;
        let mut entries = None;
        // Before the block there are those that are before all.
        while let Some(change) = changes.next_if(|id| next.as_ref().is_none_or(|next| id < next.first_id()))? {
            let entries = match &mut entries {
                Some(entries) => entries,
                None => entries.insert(block.entries()?),
            };
            if effect(entries, &change, same_content).has_changed() {
                return Ok(true);
            }
        }
    }
    while let Some(change) = changes.next_if(|_| true)? {
        if matches!(change, Change::Put { .. }) {
            return Ok(true);
        }
    }
    Ok(false)
}

struct Splice<S, W, X, C: Iterator, T> {
    composer: Composer<S, W, X>,
    changes: Changes<C>,
    same_content: SameContent,
    spliced: Spliced,
    tell: T,
}

impl<S, W, X, C, T> Splice<S, W, X, C, T>
where
    S: Read + Seek,
    W: Write,
    X: Write,
    C: Iterator<Item = io::Result<Change>>,
    T: FnMut(&str, Outcome),
{
    /// Adds a block of the old archive, with the changes before it and in it.
    fn block(&mut self, block: IndexedBlock, next: Option<&str>) -> Result<(), Error> {
        self.put_before(Some(block.first_id()))?;
        self.composer.note(&block);
        let is_before_next = match self.changes.peek_id()? {
            Some(id) => next.is_none_or(|next| id < next),
            None => false,
        };
        if !is_before_next {
            return self.composer.put_block(block);
        }
        let entries = block.entries()?;
        if !self.is_changed(&entries)? {
            return self.composer.put_block(block);
        }
        self.composer.settle()?;
        let plain = self.composer.inflate(block.number)?;
        for (entry, content) in with_contents(&entries) {
            self.put_before(Some(&entry.id))?;
            match self.changes.next_if(|id| id == entry.id)? {
                Some(Change::Put { id, mtime, content }) if !self.is_same(entry, mtime, &content) => {
                    self.composer.put(&id, mtime, &content, None)?;
                    self.told(&id, Outcome::Replaced);
                }
                Some(Change::Remove { id }) => self.told(&id, Outcome::Removed),
                same => {
                    self.composer.put(&entry.id, entry.mtime, &plain[content], Some(entry.hash))?;
                    if same.is_some() {
                        self.told(&entry.id, Outcome::Unchanged);
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes the changes that come before this id, or all that are left. None of them is about an item of the archive.
    fn put_before(&mut self, before: Option<&str>) -> Result<(), Error> {
        while let Some(change) = self.changes.next_if(|id| before.is_none_or(|before| id < before))? {
            match change {
                Change::Put { id, mtime, content } => {
                    self.composer.put(&id, mtime, &content, None)?;
                    self.told(&id, Outcome::Added);
                }
                Change::Remove { id } => self.told(&id, Outcome::Missing),
            }
        }
        Ok(())
    }

    /// Takes changes that change nothing, up to one that changes these entries. Whether there is one.
    fn is_changed(&mut self, entries: &[IndexedEntry]) -> Result<bool, Error> {
        let Some(last) = entries.last() else { return Ok(false) };
        while let Some(change) = self.changes.peek()? {
            if change.id() > last.id.as_str() {
                break;
            }
            let id = change.id().to_owned();
            let outcome = effect(entries, change, self.same_content);
            if outcome.has_changed() {
                return Ok(true);
            }
            self.changes.next_if(|_| true)?;
            self.told(&id, outcome);
        }
        Ok(false)
    }

    fn is_same(&self, entry: &IndexedEntry, mtime: i64, content: &[u8]) -> bool {
        is_same(self.same_content, entry, mtime, content)
    }

    fn told(&mut self, id: &str, outcome: Outcome) {
        let count = match outcome {
            Outcome::Added => &mut self.spliced.added,
            Outcome::Replaced => &mut self.spliced.replaced,
            Outcome::Unchanged => &mut self.spliced.unchanged,
            Outcome::Removed => &mut self.spliced.removed,
            Outcome::Missing => &mut self.spliced.missing,
        };
        *count += 1;
        (self.tell)(id, outcome);
    }
}

/// What a change does to a block with these entries.
fn effect(entries: &[IndexedEntry], change: &Change, same_content: SameContent) -> Outcome {
    let entry = entries.binary_search_by(|entry| entry.id.as_str().cmp(change.id())).ok().map(|at| &entries[at]);
    match (change, entry) {
        (Change::Remove { .. }, None) => Outcome::Missing,
        (Change::Remove { .. }, Some(_)) => Outcome::Removed,
        (Change::Put { mtime, content, .. }, Some(entry)) if is_same(same_content, entry, *mtime, content) => {
            Outcome::Unchanged
        }
        (Change::Put { .. }, Some(_)) => Outcome::Replaced,
        (Change::Put { .. }, None) => Outcome::Added,
    }
}

fn is_same(same_content: SameContent, entry: &IndexedEntry, mtime: i64, content: &[u8]) -> bool {
    (same_content == SameContent::Keep || entry.mtime == mtime)
        && entry.len == content.len() as u64
        && entry.hash == ContentHash::of(content)
}

/// The changes, whose order is checked.
struct Changes<C: Iterator> {
    source: Peekable<C>,
    last_id: Option<String>,
    file: String,
}

impl<C: Iterator<Item = io::Result<Change>>> Changes<C> {
    fn peek(&mut self) -> Result<Option<&Change>, Error> {
        if let Some(Err(_)) = self.source.peek()
            && let Some(Err(source)) = self.source.next()
        {
            return Err(Error::Changes { file: self.file.clone(), source });
        }
        let change = match self.source.peek() {
            Some(Ok(change)) => change,
            _ => return Ok(None),
        };
        match &self.last_id {
            Some(last) if last.as_str() >= change.id() => {
                Err(Error::Unsorted { file: self.file.clone(), id: change.id().to_owned(), after: last.clone() })
            }
            _ => Ok(Some(change)),
        }
    }

    fn peek_id(&mut self) -> Result<Option<&str>, Error> {
        Ok(self.peek()?.map(Change::id))
    }

    /// Takes the next change if its id is one of these.
    fn next_if(&mut self, is_wanted: impl FnOnce(&str) -> bool) -> Result<Option<Change>, Error> {
        if !self.peek_id()?.is_some_and(is_wanted) {
            return Ok(None);
        }
        let change = self.source.next().and_then(Result::ok);
        self.last_id = change.as_ref().map(|change| change.id().to_owned());
        Ok(change)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::archive::{
        press::Stretch,
        writer::{ArchiveOptions, ArchiveWriter},
    };

    /// An archive that notes what is copied of it, and where to.
    struct Noted {
        archive: Cursor<Vec<u8>>,
        copied: Vec<(u64, u64, u64, Stretch)>,
    }

    impl Read for Noted {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.archive.read(into)
        }
    }

    impl Seek for Noted {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.archive.seek(to)
        }
    }

    fn note(source: &mut &mut Noted, archive: &mut &mut Vec<u8>, len: u64, stretch: Stretch) -> io::Result<u64> {
        let place = (source.archive.position(), archive.len() as u64);
        source.copied.push((place.0, place.1, len, stretch));
        copy_bytes(&mut source.archive, archive, len, stretch)
    }

    /// What a splice that changes one item of many copies.
    fn copied(reflink: bool) -> Vec<(u64, u64, u64, Stretch)> {
        let options = ArchiveOptions { threads: 1, level: 1, block_len: 8 << 10, chain_len: 64 << 10, reflink };
        let mut writer = ArchiveWriter::new(Vec::new(), Vec::new(), "a", &options).unwrap();
        let mut random = 1u64;
        for id in 0..1000 {
            let mut content = Vec::new();
            while content.len() < 3000 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                content.extend_from_slice(&random.to_le_bytes());
            }
            writer.append(&format!("{id:04}"), 0, &content).unwrap();
        }
        let (archive, index, _) = writer.finish().unwrap();
        let mut noted = Noted { archive: Cursor::new(archive), copied: Vec::new() };
        let old = IndexedArchive::open(&mut noted, Cursor::new(index), "a").unwrap();
        let change = Change::Put { id: "0500".to_owned(), mtime: 1, content: b"{}".to_vec() };
        let (mut next, mut next_index) = (Vec::new(), Vec::new());
        let how = SpliceOptions { threads: 1, ..SpliceOptions::default() };
        let hears: PressObserver = Arc::new(|_| {});
        splice_observed(old, [Ok(change)], &mut next, &mut next_index, &how, |_, _| {}, (note, hears)).unwrap();
        noted.copied
    }

    #[test]
    fn what_is_copied_can_be_shared_where_it_was_laid_out_for_that() {
        assert!(copied(false).iter().all(|(.., stretch)| *stretch == Stretch::Bytes));
        let (mut shareable, mut all) = (0, 0);
        for (from, to, len, stretch) in copied(true) {
            all += len;
            if stretch == Stretch::Shareable {
                assert!(from.is_multiple_of(4096) && to.is_multiple_of(4096), "{from} to {to}");
                shareable += len;
            }
        }
        // What is left of the chain of the change, and a part of 4 KiB.
        assert!(all > 2_500_000 && all - shareable < 150_000, "{shareable} of {all}");
    }
}
