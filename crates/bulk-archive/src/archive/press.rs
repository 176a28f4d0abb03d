//! Blocks compressed by several threads and written in order, beside blocks that are copied as they are.

use std::{
    collections::VecDeque,
    io::{self, Read, Seek, SeekFrom, Write},
    mem,
    ops::Range,
    sync::Arc,
    thread,
};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{
    deflate::{self, Deflate},
    filler::{self, GRAIN},
    header::END,
    index::{self, ArchiveSummary, ContentHash, IndexWriter, IndexedBlock, IndexedEntry, Recipe},
};
use crate::Error;

/// How many plain bytes may wait for each thread, unless a block is longer.
const WAITING_PER_THREAD: usize = 1 << 20;

/// How many blocks may wait for each thread.
const BLOCKS_PER_THREAD: usize = 64;

/// How many plain bytes a thread is given together, at least, where as many follow one another.
const TOGETHER: usize = 256 * 1024;

/// How many copied blocks may wait behind one that is being compressed.
const MOST_PIECES: usize = 4096;

/// A block that is yet to be compressed.
#[derive(Default)]
pub(crate) struct Raw {
    /// Its bytes in the tar.
    pub(crate) plain: Vec<u8>,
    /// What it may refer to; empty where it begins a chain.
    pub(crate) window: Vec<u8>,
    pub(crate) begins_chain: bool,
    pub(crate) entries: Vec<RawEntry>,
}

/// An entry of a block that is yet to be compressed.
pub(crate) struct RawEntry {
    pub(crate) id: String,
    pub(crate) mtime: i64,
    /// Where its content is in the block.
    pub(crate) content: Range<usize>,
    /// The hash of the content where it is known.
    pub(crate) hash: Option<ContentHash>,
}

/// A block as it is written.
struct Made {
    packed: Vec<u8>,
    body: Vec<u8>,
    plain_len: u64,
    crc: u32,
    begins_chain: bool,
    entries: u64,
}

/// What is written next, in order.
enum Piece {
    /// A block that some thread compresses, or will, and its length.
    Made(Receiver<Made>, usize),
    /// A block that is copied.
    Copied(Box<IndexedBlock>),
}

/// What the threads of a press do, told in the thread that it is of. Where its own thread compresses blocks although there may
/// be others, it says so as one of them, and waits for itself meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PressEvent {
    /// One that compresses waits for blocks. The first that is heard of it.
    WaitsForBlock,
    /// It compresses some that follow one another.
    Compresses,
    /// There is no such thread any more.
    Ends,
    /// The press's own thread waits for one that is compressed.
    WaitsForCompressed,
    /// It goes on.
    GoesOn,
}

/// Who hears that.
pub(crate) type PressObserver = Arc<dyn Fn(PressEvent) + Send + Sync>;

/// Tells that a thread has ended, however that was.
struct Ending(PressObserver);

impl Drop for Ending {
    fn drop(&mut self) {
        (self.0)(PressEvent::Ends);
    }
}

/// How bytes come from the source to the archive: so many, from where the source stands, to the end of what is written. How many
/// came, fewer only where the source ends.
pub(crate) type CopyBytes<S, W> = fn(&mut S, &mut W, u64, Stretch) -> io::Result<u64>;

/// What is to be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stretch {
    /// Some bytes.
    Bytes,
    /// Some that begin at a multiple of [`GRAIN`] here and there, so that a file system may share them.
    Shareable,
}

/// Between files [`io::copy`] leaves that to the kernel (`copy_file_range` on Linux), which shares what can be shared.
pub(crate) fn copy_bytes<S: Read, W: Write>(
    source: &mut S,
    archive: &mut W,
    len: u64,
    stretch: Stretch,
) -> io::Result<u64> {
    if stretch == Stretch::Shareable {
        // What waits in a buffer would keep the kernel out.
        archive.flush()?;
    }
    io::copy(&mut source.by_ref().take(len), archive)
}

/// What has been written.
pub(crate) struct Pressed<W, X> {
    pub(crate) archive: W,
    pub(crate) index: X,
    pub(crate) summary: ArchiveSummary,
    /// How many of the blocks were copied.
    pub(crate) copied: u64,
    /// The numbers of the others, and of copied ones before which something new stands; neighbours are one range.
    pub(crate) made: Vec<Range<u64>>,
}

/// Writes an archive and its index.
///
/// One thread is the caller's own. Others are started where there is work for two.
///
/// Dropping it leaves an archive without its end, which every reader takes for cut short, and waits for the blocks that the
/// threads have in hand, and no others.
pub(crate) struct Press<S, W, X> {
    file: String,
    /// What blocks are copied from.
    source: S,
    copy_bytes: CopyBytes<S, W>,
    archive: W,
    index: IndexWriter<X>,
    recipe: Recipe,
    /// What this thread compresses with, once it does.
    own: Option<Deflate>,
    threads: usize,
    crew: Crew,
    pieces: VecDeque<Piece>,
    /// What no thread has been given yet, and whether there may be more in the last of them.
    unsent: VecDeque<Job>,
    is_open: bool,
    /// How many of the pieces are being compressed, and their plain bytes.
    in_work: (usize, usize),
    /// A run of blocks that stand one behind another in the source, too, and are yet to be copied, with what is before chains, and
    /// the number of the block after it.
    run: Range<u64>,
    after_run: u64,
    crc: crc32fast::Hasher,
    summary: ArchiveSummary,
    copied: u64,
    made: Vec<Range<u64>>,
    /// Something that was to be written is not, so that nothing may follow.
    has_failed: bool,
    observer: PressObserver,
}

/// Blocks that one thread compresses, one behind another: it knows then what each may refer to.
#[derive(Default)]
struct Job {
    blocks: Vec<(Raw, Sender<Made>)>,
    /// Their plain bytes.
    len: usize,
}

impl Job {
    fn add(&mut self, raw: Raw, made: Sender<Made>) {
        self.len += raw.plain.len();
        self.blocks.push((raw, made));
    }

    fn compress(self, deflate: &mut Deflate) {
        for (raw, made) in self.blocks {
            // Nobody wants it where the press was dropped.
            let _ = made.send(make(raw, deflate));
        }
    }
}

/// The threads that compress. They have ended when it is dropped, so that nothing is heard of them behind an error, either.
struct Crew {
    workers: Vec<thread::JoinHandle<()>>,
    /// None once all has been compressed.
    jobs: Option<Sender<Job>>,
    waiting: Receiver<Job>,
}

impl Crew {
    /// Waits until all that was begun is compressed and the threads have ended. Whether none of them panicked.
    fn end(&mut self) -> bool {
        self.jobs = None;
        let ended: Vec<_> = self.workers.drain(..).map(thread::JoinHandle::join).collect();
        ended.iter().all(Result::is_ok)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // What was not begun nobody wants any more.
        while self.waiting.try_recv().is_ok() {}
        self.end();
    }
}

impl<S: Read + Seek, W: Write, X: Write> Press<S, W, X> {
    pub(crate) fn new(
        (source, copy_bytes): (S, CopyBytes<S, W>),
        mut archive: W,
        index: X,
        recipe: &Recipe,
        threads: usize,
        file: &str,
        observer: PressObserver,
    ) -> Result<Press<S, W, X>, Error> {
        let index = IndexWriter::new(index, recipe, file)?;
        archive.write_all(&deflate::HEADER).map_err(|source| output(file, source))?;
        let threads = threads.max(1);
        let (jobs, waiting) = bounded(BLOCKS_PER_THREAD * threads);
        Ok(Press {
            file: file.to_owned(),
            source,
            copy_bytes,
            archive,
            index,
            recipe: *recipe,
            own: None,
            threads,
            crew: Crew { workers: Vec::new(), jobs: Some(jobs), waiting },
            pieces: VecDeque::new(),
            unsent: VecDeque::new(),
            is_open: false,
            in_work: (0, 0),
            run: 0..0,
            after_run: 0,
            crc: crc32fast::Hasher::new(),
            summary: ArchiveSummary { len: deflate::HEADER.len() as u64, ..ArchiveSummary::default() },
            copied: 0,
            made: Vec::new(),
            has_failed: false,
            observer,
        })
    }

    /// What blocks are copied from.
    pub(crate) fn source(&mut self) -> &mut S {
        &mut self.source
    }

    /// Adds a block to be compressed.
    pub(crate) fn press(&mut self, raw: Raw) -> Result<(), Error> {
        self.unless_failed(|press| press.send(raw))
    }

    /// An error leaves a gap: it is the last that is done.
    fn unless_failed<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.has_failed {
            return Err(output(&self.file, io::Error::other("what came before could not be written")));
        }
        let done = work(self);
        self.has_failed = done.is_err();
        done
    }

    fn send(&mut self, raw: Raw) -> Result<(), Error> {
        if self.threads == 1 {
            while !self.pieces.is_empty() {
                self.write_first()?;
            }
            return self.make(raw);
        }
        let len = raw.plain.len();
        // So that there is room in the channel, too: nobody would make any if the threads had panicked.
        while self.in_work.0 > 0
            && (self.in_work.0 >= self.threads * BLOCKS_PER_THREAD
                || self.in_work.1 + len > self.threads * WAITING_PER_THREAD)
        {
            self.write_first()?;
        }
        let (made, receiver) = bounded(1);
        let goes_on = self.is_open && !raw.begins_chain;
        let mut job = if goes_on { self.unsent.pop_back() } else { None }.unwrap_or_default();
        job.add(raw, made);
        self.is_open = job.len < TOGETHER;
        self.unsent.push_back(job);
        self.pieces.push_back(Piece::Made(receiver, len));
        self.in_work = (self.in_work.0 + 1, self.in_work.1 + len);
        self.hand_on()
    }

    /// Gives jobs that are complete to the threads. The first of all stays here as long as there is no other.
    fn hand_on(&mut self) -> Result<(), Error> {
        while self.unsent.len() > 1 || (!self.is_open && !self.crew.workers.is_empty()) {
            let Some(job) = self.unsent.pop_front() else { break };
            self.start_worker()?;
            if let Some(jobs) = &self.crew.jobs
                && jobs.send(job).is_err()
            {
                return Err(output(&self.file, io::Error::other("the threads that compress are gone")));
            }
        }
        Ok(())
    }

    /// Sees to it that somebody compresses the first block of those in work.
    fn begin_first(&mut self) -> Result<(), Error> {
        let unsent: usize = self.unsent.iter().map(|job| job.blocks.len()).sum();
        if unsent < self.in_work.0 {
            return Ok(());
        }
        self.is_open = false;
        if !self.crew.workers.is_empty() {
            return self.hand_on();
        }
        for job in mem::take(&mut self.unsent) {
            (self.observer)(PressEvent::WaitsForCompressed);
            let ending = Ending(Arc::clone(&self.observer));
            (self.observer)(PressEvent::WaitsForBlock);
            (self.observer)(PressEvent::Compresses);
            job.compress(self.own.get_or_insert_with(|| Deflate::new(self.recipe.level)));
            drop(ending);
            (self.observer)(PressEvent::GoesOn);
        }
        Ok(())
    }

    /// Compresses a block in this thread, and writes it.
    fn make(&mut self, raw: Raw) -> Result<(), Error> {
        let made = make(raw, self.own.get_or_insert_with(|| Deflate::new(self.recipe.level)));
        self.write_made(&made)
    }

    fn write_made(&mut self, made: &Made) -> Result<(), Error> {
        self.copy_run()?;
        self.fill(self.recipe.filler_len(&self.summary, made.begins_chain))?;
        self.write(&made.packed)?;
        self.note_made();
        self.count(made.packed.len() as u64, made.plain_len, made.crc, made.entries);
        self.index.record(&made.body)
    }

    /// Adds a block of the source as it is.
    pub(crate) fn copy(&mut self, block: Box<IndexedBlock>) -> Result<(), Error> {
        self.unless_failed(|press| {
            press.is_open = false;
            press.hand_on()?;
            press.pieces.push_back(Piece::Copied(block));
            while matches!(press.pieces.front(), Some(Piece::Copied(_))) || press.pieces.len() > MOST_PIECES {
                press.write_first()?;
            }
            Ok(())
        })
    }

    /// Writes what waits, and the end.
    pub(crate) fn finish(mut self) -> Result<Pressed<W, X>, Error> {
        self.unless_failed(|press| {
            press.is_open = false;
            press.hand_on()?;
            while !press.pieces.is_empty() {
                press.write_first()?;
            }
            press.copy_run()
        })?;
        let end = self.own.get_or_insert_with(|| Deflate::new(self.recipe.level)).end();
        self.crc.update(&END);
        self.summary.crc = self.crc.clone().finalize();
        self.summary.len += (end.len() + deflate::TRAILER_LEN) as u64;
        self.write(&end)?;
        let trailer = self.summary.trailer();
        self.write(&trailer)?;
        self.archive.flush().map_err(|source| output(&self.file, source))?;
        if !self.crew.workers.is_empty() {
            (self.observer)(PressEvent::WaitsForCompressed);
            let has_ended = self.crew.end();
            (self.observer)(PressEvent::GoesOn);
            if !has_ended {
                return Err(output(&self.file, io::Error::other("a thread that compresses panicked")));
            }
        }
        let index = self.index.finish(&self.summary)?;
        let (summary, copied, made) = (self.summary, self.copied, self.made);
        Ok(Pressed { archive: self.archive, index, summary, copied, made })
    }

    /// One thread more for each job until there are enough: a small archive starts few.
    fn start_worker(&mut self) -> Result<(), Error> {
        if self.crew.workers.len() == self.threads {
            return Ok(());
        }
        let (waiting, level, observer) = (self.crew.waiting.clone(), self.recipe.level, Arc::clone(&self.observer));
        let work = move || {
            let ending = Ending(observer);
            let tell = |event| (ending.0)(event);
            tell(PressEvent::WaitsForBlock);
            let mut deflate = Deflate::new(level);
            for job in waiting {
                tell(PressEvent::Compresses);
                job.compress(&mut deflate);
                tell(PressEvent::WaitsForBlock);
            }
        };
        match thread::Builder::new().name("archive-deflate".to_owned()).spawn(work) {
            Ok(worker) => self.crew.workers.push(worker),
            // Fewer threads do the same work.
            Err(_) if !self.crew.workers.is_empty() => {}
            Err(source) => return Err(output(&self.file, source)),
        }
        Ok(())
    }

    fn write_first(&mut self) -> Result<(), Error> {
        if matches!(self.pieces.front(), Some(Piece::Made(..))) {
            self.begin_first()?;
        }
        match self.pieces.pop_front() {
            Some(Piece::Made(made, len)) => {
                self.in_work = (self.in_work.0 - 1, self.in_work.1 - len);
                let received = made.try_recv().or_else(|_| {
                    (self.observer)(PressEvent::WaitsForCompressed);
                    let received = made.recv();
                    (self.observer)(PressEvent::GoesOn);
                    received
                });
                let panicked = |_| output(&self.file, io::Error::other("a thread that compresses panicked"));
                let made = received.map_err(panicked)?;
                self.write_made(&made)
            }
            Some(Piece::Copied(block)) => {
                let place = &block.place;
                let filler_len = self.recipe.filler_len(&self.summary, place.begins_chain);
                // What is before a chain goes with the run where the same is before it in the source.
                if self.after_run == block.number && !self.run.is_empty() && self.run.end + filler_len == place.offset {
                    self.summary.len += filler_len;
                } else {
                    self.copy_run()?;
                    if filler_len > 0 {
                        self.fill(filler_len)?;
                        self.note_made();
                    }
                    self.run.start = place.offset;
                }
                self.run.end = place.offset + place.len;
                self.after_run = block.number + 1;
                self.copied += 1;
                self.count(place.len, place.plain_len, place.crc, block.entries);
                self.index.record(&block.body)
            }
            None => Ok(()),
        }
    }

    /// Notes that the next block, or what stands before it, is not a copy.
    fn note_made(&mut self) {
        let number = self.summary.blocks;
        match self.made.last_mut() {
            Some(last) if last.end == number => last.end += 1,
            _ => self.made.push(number..number + 1),
        }
    }

    fn count(&mut self, len: u64, plain_len: u64, crc: u32, entries: u64) {
        self.crc.combine(&crc32fast::Hasher::new_with_initial_len(crc, plain_len));
        self.summary.blocks += 1;
        self.summary.entries += entries;
        self.summary.plain_len += plain_len;
        self.summary.len += len;
    }

    /// Writes what stands before a chain.
    fn fill(&mut self, len: u64) -> Result<(), Error> {
        self.summary.len += len;
        self.write(&filler::bytes(len))
    }

    /// Copies the run at hand.
    fn copy_run(&mut self) -> Result<(), Error> {
        let run = mem::take(&mut self.run);
        if run.is_empty() {
            return Ok(());
        }
        let read = |source| Error::Io { file: self.file.clone(), offset: Some(run.start), source };
        self.source.seek(SeekFrom::Start(run.start)).map_err(read)?;
        let len = run.end - run.start;
        let to_grain = run.start.next_multiple_of(GRAIN) - run.start;
        let may_share = self.recipe.reflink && (self.summary.len - len + to_grain).is_multiple_of(GRAIN);
        let before = if may_share { to_grain.min(len) } else { len };
        let mut at = run.start;
        for (len, stretch) in [(before, Stretch::Bytes), (len - before, Stretch::Shareable)] {
            if len == 0 {
                continue;
            }
            // An error does not say which side it is from.
            let copied = (self.copy_bytes)(&mut self.source, &mut self.archive, len, stretch)
                .map_err(|source| output(&self.file, source))?;
            at += copied;
            if copied < len {
                return Err(Error::Truncated { file: self.file.clone(), codec: crate::Codec::Gzip, offset: at });
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.archive.write_all(bytes).map_err(|source| output(&self.file, source))
    }
}

fn make(raw: Raw, deflate: &mut Deflate) -> Made {
    let Raw { plain, window, begins_chain, entries } = raw;
    let packed = deflate.block(&plain, &window);
    let crc = crc32fast::hash(&plain);
    let entries: Vec<IndexedEntry> = entries
        .into_iter()
        .map(|RawEntry { id, mtime, content, hash }| {
            let content = &plain[content];
            let hash = hash.unwrap_or_else(|| ContentHash::of(content));
            IndexedEntry { id, mtime, len: content.len() as u64, hash }
        })
        .collect();
    let (len, plain_len) = (packed.len() as u64, plain.len() as u64);
    let body = index::encode(len, plain_len, crc, begins_chain, &entries);
    Made { packed, body, plain_len, crc, begins_chain, entries: entries.len() as u64 }
}

fn output(file: &str, source: io::Error) -> Error {
    Error::Output { file: file.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::archive::borders::Lens;

    #[test]
    fn threads_have_ended_behind_an_error_and_nothing_is_heard_of_them() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let events = Arc::clone(&told);
        let observer: PressObserver =
            Arc::new(move |event| events.lock().unwrap().push((thread::current().id(), event)));
        // Room for the head alone.
        let mut archive = [0; 16];
        let recipe = Recipe { lens: Lens { block: 10_000, chain: 10_000 }, level: 1, engine: 0, reflink: false };
        let mut press =
            Press::new((io::empty(), copy_bytes), &mut archive[..], Vec::new(), &recipe, 2, "a", Arc::clone(&observer))
                .unwrap();
        for block in 0..100 {
            let plain = (0..10_000u32).map(|at| (at * (block + at)) as u8).collect();
            press.press(Raw { plain, begins_chain: true, ..Raw::default() }).unwrap();
        }
        assert!(press.finish().is_err());
        // They had one each.
        assert_eq!(Arc::strong_count(&observer), 1);
        let told = told.lock().unwrap();
        assert_eq!(told.iter().filter(|(_, event)| *event == PressEvent::Ends).count(), 2);
    }
}
