//! Staged changes on disk: runs of records, sorted by group and id, each group of each run a slice that can be read by
//! itself. Where there are many runs, they are merged to fewer.
//!
//! A record is a byte for what it is, with a bit for whether the item was put before, the length of the id (u16), the time
//! (i64), the length of the content (u32), all little endian, the id and the content. Where slices begin, and their checksums,
//! is kept in memory: a stage ends with its process.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::files::{cannot_read, cannot_write, shown};
use crate::Error;

/// So many runs of one size are merged to a larger one.
const FAN_IN: usize = 16;

/// What is read of each slice at once.
const BUFFER: usize = 64 * 1024;

const HEAD_LEN: usize = 15;

/// The bit of a record that is not the first to put its item.
const AGAIN: u8 = 0x80;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    /// The item is in the group.
    Put = 1,
    /// It is not.
    Remove = 2,
    /// It is not, since it is in another group now.
    Move = 3,
}

/// A staged change of a group.
pub(crate) struct Record {
    pub(crate) tag: Tag,
    /// Whether the stage has put the item before: into this group, or, of a [`Tag::Move`], into it and then another one.
    pub(crate) again: bool,
    pub(crate) id: String,
    pub(crate) mtime: i64,
    pub(crate) content: Vec<u8>,
}

/// The records of a group in a run.
#[derive(Clone, Copy)]
struct Slice {
    group: u32,
    offset: u64,
    len: u64,
    crc: u32,
}

struct Run {
    file: Arc<File>,
    path: PathBuf,
    slices: Vec<Slice>,
    /// How often its records have been merged.
    level: u32,
    /// Whether a record of it says that its item was put before.
    has_again: bool,
}

impl Drop for Run {
    fn drop(&mut self) {
        // What is left the next run removes.
        let _ = fs::remove_file(&self.path);
    }
}

/// All runs of a stage, from the oldest to the newest. Of one item the newest record counts.
pub(crate) struct Runs {
    folder: PathBuf,
    runs: Vec<Run>,
    made: u64,
}

impl Runs {
    /// Runs are files in this folder, which is there.
    pub(crate) fn new(folder: &Path) -> Runs {
        Runs { folder: folder.to_owned(), runs: Vec::new(), made: 0 }
    }

    /// Begins a run. Records come by group and, in each, by id; no id twice.
    pub(crate) fn write(&mut self) -> Result<RunWriter, Error> {
        self.made += 1;
        RunWriter::create(&self.folder.join(format!("{:06}.run", self.made)))
    }

    /// Adds a run.
    pub(crate) fn add(&mut self, run: RunWriter, go_on: impl Fn() -> Result<(), Error>) -> Result<(), Error> {
        self.runs.push(run.finish(0)?);
        loop {
            let level = self.runs.last().map_or(0, |run| run.level);
            let first = self.runs.iter().position(|run| run.level == level).unwrap_or(0);
            if self.runs.len() - first < FAN_IN {
                return Ok(());
            }
            let mut writer = self.write()?;
            let merged = &self.runs[first..];
            for (group, _) in groups(merged) {
                let mut merge = Merge::new(merged, group)?;
                while let Some(record) = merge.next()? {
                    go_on()?;
                    let Record { tag, again, id, mtime, content } = record;
                    writer.mark_again(again);
                    writer.record(group, tag, &id, mtime, &content)?;
                }
            }
            let run = writer.finish(level + 1)?;
            self.runs.truncate(first);
            self.runs.push(run);
        }
    }

    /// The groups that have records, and how many bytes of them.
    pub(crate) fn groups(&self) -> Vec<(u32, u64)> {
        groups(&self.runs)
    }

    /// Whether an item of a group may have been put more than once.
    pub(crate) fn may_repeat(&self, group: u32) -> bool {
        let has_group = |run: &&Run| run.slices.binary_search_by_key(&group, |slice| slice.group).is_ok();
        let mut runs = self.runs.iter().filter(has_group);
        runs.next().is_some_and(|run| run.has_again || runs.next().is_some())
    }

    /// The records of a group: of each item the newest, by id.
    pub(crate) fn merge(&self, group: u32) -> Result<Merge, Error> {
        Merge::new(&self.runs, group)
    }
}

fn groups(runs: &[Run]) -> Vec<(u32, u64)> {
    let mut groups: Vec<(u32, u64)> =
        runs.iter().flat_map(|run| &run.slices).map(|slice| (slice.group, slice.len)).collect();
    groups.sort_unstable();
    groups.dedup_by(|next, before| {
        let same = next.0 == before.0;
        if same {
            before.1 += next.1;
        }
        same
    });
    groups
}

/// Writes a run.
pub(crate) struct RunWriter {
    output: BufWriter<File>,
    path: PathBuf,
    slices: Vec<Slice>,
    crc: crc32fast::Hasher,
    offset: u64,
    next_is_again: bool,
    has_again: bool,
}

impl RunWriter {
    fn create(path: &Path) -> Result<RunWriter, Error> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
        Ok(RunWriter {
            output: BufWriter::with_capacity(256 * 1024, file.map_err(cannot_write(path))?),
            path: path.to_owned(),
            slices: Vec::new(),
            crc: crc32fast::Hasher::new(),
            offset: 0,
            next_is_again: false,
            has_again: false,
        })
    }

    /// Says of the next record whether its item was put before.
    pub(crate) fn mark_again(&mut self, again: bool) {
        self.next_is_again = again;
        self.has_again |= again;
    }

    pub(crate) fn record(&mut self, group: u32, tag: Tag, id: &str, mtime: i64, content: &[u8]) -> Result<(), Error> {
        if self.slices.last().is_none_or(|slice| slice.group != group) {
            self.end_slice();
            self.slices.push(Slice { group, offset: self.offset, len: 0, crc: 0 });
        }
        let mut head = [0; HEAD_LEN];
        head[0] = tag as u8 | if std::mem::take(&mut self.next_is_again) { AGAIN } else { 0 };
        // Names have at most 255 bytes and contents 1 GiB.
        head[1..3].copy_from_slice(&(id.len() as u16).to_le_bytes());
        head[3..11].copy_from_slice(&mtime.to_le_bytes());
        head[11..15].copy_from_slice(&(content.len() as u32).to_le_bytes());
        for bytes in [&head[..], id.as_bytes(), content] {
            self.crc.update(bytes);
            self.output.write_all(bytes).map_err(cannot_write(&self.path))?;
            self.offset += bytes.len() as u64;
        }
        Ok(())
    }

    fn end_slice(&mut self) {
        if let Some(slice) = self.slices.last_mut() {
            slice.len = self.offset - slice.offset;
            slice.crc = std::mem::take(&mut self.crc).finalize();
        }
    }

    fn finish(mut self, level: u32) -> Result<Run, Error> {
        self.end_slice();
        let path = self.path;
        let file = self.output.into_inner().map_err(|error| cannot_write(&path)(error.into_error()))?;
        Ok(Run { file: Arc::new(file), path, slices: self.slices, level, has_again: self.has_again })
    }
}

/// Reads a part of a file that others read, too.
struct Part {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut into[..most], self.offset)?;
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// The records of a slice, one after another, the content of each on demand.
struct Reader {
    input: BufReader<Part>,
    path: PathBuf,
    left: u64,
    crc: crc32fast::Hasher,
    expected: u32,
    tag: Tag,
    again: bool,
    mtime: i64,
    /// Bytes of the content that are yet to be read.
    content: usize,
}

impl Reader {
    fn new(run: &Run, slice: Slice) -> Reader {
        let part = Part { file: Arc::clone(&run.file), offset: slice.offset, left: slice.len };
        Reader {
            input: BufReader::with_capacity(BUFFER.min(slice.len as usize), part),
            path: run.path.clone(),
            left: slice.len,
            crc: crc32fast::Hasher::new(),
            expected: slice.crc,
            tag: Tag::Put,
            again: false,
            mtime: 0,
            content: 0,
        }
    }

    /// Goes to the next record, and gives its id.
    fn next(&mut self) -> Result<Option<String>, Error> {
        self.skip_content()?;
        if self.left == 0 {
            let crc = std::mem::take(&mut self.crc).finalize();
            return if crc == self.expected { Ok(None) } else { Err(self.damaged()) };
        }
        let mut head = [0; HEAD_LEN];
        self.fill(&mut head)?;
        let number = |range: std::ops::Range<usize>| {
            head[range].iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte))
        };
        self.again = head[0] & AGAIN != 0;
        self.tag = match head[0] & !AGAIN {
            1 => Tag::Put,
            2 => Tag::Remove,
            3 => Tag::Move,
            _ => return Err(self.damaged()),
        };
        self.mtime = number(3..11) as i64;
        self.content = number(11..15) as usize;
        let mut id = vec![0; number(1..3) as usize];
        self.fill(&mut id)?;
        String::from_utf8(id).map(Some).map_err(|_| self.damaged())
    }

    fn content(&mut self) -> Result<Vec<u8>, Error> {
        // Not more than there is, however damaged the record is.
        if self.content as u64 > self.left {
            return Err(self.damaged());
        }
        let mut content = vec![0; std::mem::take(&mut self.content)];
        self.fill(&mut content)?;
        Ok(content)
    }

    fn skip_content(&mut self) -> Result<(), Error> {
        let mut buffer = [0; 4096];
        while self.content > 0 {
            let some = self.content.min(buffer.len());
            self.fill(&mut buffer[..some])?;
            self.content -= some;
        }
        Ok(())
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<(), Error> {
        if into.len() as u64 > self.left {
            return Err(self.damaged());
        }
        self.input.read_exact(into).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged(),
            _ => cannot_read(&self.path)(error),
        })?;
        self.crc.update(into);
        self.left -= into.len() as u64;
        Ok(())
    }

    fn damaged(&self) -> Error {
        let reason =
            "the staged changes are not what was written: the disk, or somebody else, has changed them".to_owned();
        Error::Set { file: shown(&self.path), reason }
    }
}

/// The records of a group out of all runs, by id.
pub(crate) struct Merge {
    readers: Vec<Reader>,
    /// The next id of each reader; of equal ones the newest comes first.
    heads: BinaryHeap<Reverse<Head>>,
}

#[derive(PartialEq, Eq)]
struct Head {
    id: String,
    reader: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Head) -> Ordering {
        self.id.cmp(&other.id).then_with(|| other.reader.cmp(&self.reader))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Merge {
    fn new(runs: &[Run], group: u32) -> Result<Merge, Error> {
        let readers = runs.iter().filter_map(|run| {
            let at = run.slices.binary_search_by_key(&group, |slice| slice.group).ok()?;
            Some(Reader::new(run, run.slices[at]))
        });
        let mut merge = Merge { readers: readers.collect(), heads: BinaryHeap::new() };
        for reader in 0..merge.readers.len() {
            merge.advance(reader)?;
        }
        Ok(merge)
    }

    fn advance(&mut self, reader: usize) -> Result<(), Error> {
        if let Some(id) = self.readers[reader].next()? {
            self.heads.push(Reverse(Head { id, reader }));
        }
        Ok(())
    }

    /// The next record.
    pub(crate) fn next(&mut self) -> Result<Option<Record>, Error> {
        let Some(Reverse(Head { id, reader })) = self.heads.pop() else { return Ok(None) };
        let newest = &mut self.readers[reader];
        let (tag, again) = (newest.tag, newest.again);
        let mut record = Record { tag, again, mtime: newest.mtime, content: newest.content()?, id };
        self.advance(reader)?;
        while let Some(Reverse(older)) = self.heads.peek()
            && older.id == record.id
        {
            let reader = older.reader;
            let older = &self.readers[reader];
            // What is removed is not put, however often it was before.
            record.again |= record.tag != Tag::Remove && (older.again || older.tag == Tag::Put);
            self.heads.pop();
            self.advance(reader)?;
        }
        Ok(Some(record))
    }
}
