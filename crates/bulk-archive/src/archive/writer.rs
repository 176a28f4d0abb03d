use std::{
    io::{self, Write},
    num::NonZeroUsize,
    sync::Arc,
    thread,
};

use super::{
    borders::Lens,
    composer::Composer,
    deflate::{self, HIGHEST_LEVEL, LOWEST_LEVEL},
    index::{ArchiveSummary, LONGEST, Recipe},
    press::{Press, PressObserver, copy_bytes},
};
use crate::Error;

/// How a new archive is made.
///
/// All but `threads` decide about its bytes. A splice keeps what the archive was made with.
///
/// Measured with JSON documents of 0.5 to 20 KB: the defaults give archives 2.6% larger than `gzip -6`, in a third of its
/// time. Level 6 saves 0.9% and takes a seventh longer, level 4 is a ninth quicker and gives 1% more. Blocks of
/// 64 KiB save 0.3% and cost a third more for each change; chains as short as their blocks (all of 256 KiB) save nothing, and
/// a change costs more than twice as much.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArchiveOptions {
    /// How many threads compress; 0 is taken for 1. By default as many as there are processors.
    pub threads: usize,
    /// The level of compression, 1 to 9; less or more is taken for the nearest. By default 5.
    pub level: u32,
    /// How many bytes of the tar a block has on average: what a change costs. A block has half of it at least and four
    /// times at most, unless an entry is longer. By default 32 KiB, at most 1 MiB.
    pub block_len: u32,
    /// How many bytes of the tar, on average, stand between two places at which a decoder can begin (full-flush
    /// points). The more, the smaller is the archive, and the more has to be inflated for a change. By default
    /// 1 MiB, at least `block_len`, at most 64 MiB.
    pub chain_len: u32,
    /// Whether the archive is laid out so that a file system that has reflinks (Btrfs, XFS) shares what a splice copies between the
    /// old archive and the new one, in place of writing it: chains begin at multiples of 4096 bytes then, and what is between them
    /// is filled with empty deflate blocks, of which nothing comes out in any reader. By default not, since it takes 2 KiB for
    /// each chain: 0.8% of the archive, or half of that with chains of 2 MiB.
    pub reflink: bool,
}

impl Default for ArchiveOptions {
    fn default() -> ArchiveOptions {
        ArchiveOptions { threads: processors(), level: 5, block_len: 32 * 1024, chain_len: 1024 * 1024, reflink: false }
    }
}

/// How many processors there are.
pub(crate) fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

impl ArchiveOptions {
    pub(crate) fn recipe(&self) -> Recipe {
        let block = u64::from(self.block_len).clamp(1, LONGEST.block);
        let chain = u64::from(self.chain_len).clamp(block, LONGEST.chain);
        let level = self.level.clamp(LOWEST_LEVEL, HIGHEST_LEVEL);
        Recipe { lens: Lens { block, chain }, level, engine: deflate::engine(level), reflink: self.reflink }
    }
}

/// Writes a tar of items, compressed as one gzip member, and its index.
///
/// The same items and options give the same bytes, however many threads compress. [`finish`](ArchiveWriter::finish)
/// is the only commit: dropping a writer leaves an archive without its end, which readers report as cut short, and no
/// usable index. Write to part files and rename them.
///
/// At most a MiB for each thread waits to be compressed, and besides a block, which is as long as its longest entry.
pub struct ArchiveWriter<W, X> {
    composer: Composer<io::Empty, W, X>,
    file: String,
    last_id: Option<String>,
}

impl<W: Write, X: Write> ArchiveWriter<W, X> {
    /// Begins an archive. `file` is the name that errors give.
    ///
    /// Blocks are written whole, so that the archive needs no buffer of its own; the index does.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn new(archive: W, index: X, file: &str, options: &ArchiveOptions) -> Result<ArchiveWriter<W, X>, Error> {
        ArchiveWriter::observed(archive, index, file, options, Arc::new(|_| {}))
    }

    /// The same, where somebody hears what its threads do.
    pub(crate) fn observed(
        archive: W,
        index: X,
        file: &str,
        options: &ArchiveOptions,
        observer: PressObserver,
    ) -> Result<ArchiveWriter<W, X>, Error> {
        let recipe = options.recipe();
        let press = Press::new((io::empty(), copy_bytes), archive, index, &recipe, options.threads, file, observer)?;
        Ok(ArchiveWriter { composer: Composer::new(press, &recipe, false, file), file: file.to_owned(), last_id: None })
    }

    /// Adds an item as the entry `<id>.json`, modified at `mtime` (seconds since 1970). Ids come in the order of their
    /// bytes. In the name, bytes of the id that are no ASCII letters, digits, `-`, `_` or `.`, and a `.` or `-` at its
    /// beginning, are escaped as in URLs (`%2F`). Names of more than 100 bytes need a reader that knows pax headers, as all
    /// have for twenty years; others cut them.
    ///
    /// # Errors
    /// [`Error::Unsorted`], [`Error::Refused`] where the id is empty, its name longer than 255 bytes or the content
    /// longer than 1 GiB: the writer is as it was then. [`Error::Output`] may be about items before this one; the archive
    /// cannot be finished then.
    pub fn append(&mut self, id: &str, mtime: i64, content: &[u8]) -> Result<(), Error> {
        if let Some(last) = &self.last_id
            && last.as_str() >= id
        {
            return Err(Error::Unsorted { file: self.file.clone(), id: id.to_owned(), after: last.clone() });
        }
        self.composer.put(id, mtime, content, None)?;
        let last = self.last_id.get_or_insert_default();
        last.clear();
        last.push_str(id);
        Ok(())
    }

    /// Writes the end, and flushes both outputs. Gives them back.
    ///
    /// # Errors
    /// [`Error::Output`].
    pub fn finish(self) -> Result<(W, X, ArchiveSummary), Error> {
        let pressed = self.composer.finish()?;
        Ok((pressed.archive, pressed.index, pressed.summary))
    }
}
