//! The new archive of a group: the old one with the staged changes, or one of them alone.

use std::{
    cell::RefCell,
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    event::ExportEvent,
    files::{self, Folder, Hashed, INDEX, Named, inner, shown},
    options::{CheckNew, ExportOptions},
    publication,
    roster::Facts,
    runs::{Merge, Runs, Tag},
    shapes::{self, KindColumns},
};
use crate::span::enter_span;
use crate::{
    Error,
    archive::{
        ArchiveIndex, ArchiveOptions, ArchiveWriter, Change, IndexedArchive, Outcome, PressEvent, PressObserver, Shape,
        SpliceOptions, changes_anything, splice_observed, verify, verify_blocks,
    },
};

/// What is to be done.
pub(crate) struct Task {
    pub(crate) group: u32,
    pub(crate) kind_name: String,
    pub(crate) group_name: String,
    /// The archive below the folder of the set.
    pub(crate) file: String,
    /// What the archive is now.
    pub(crate) old: Option<Facts>,
    /// How many bytes of changes are staged.
    pub(crate) staged: u64,
    /// How many threads compress.
    pub(crate) threads: usize,
    /// The shapes that it is to have, and what is there of them.
    pub(crate) shapes: Vec<(Shape, Option<Facts>)>,
    /// Those that it has and is not to have.
    pub(crate) unwanted: Vec<(Shape, Facts)>,
    pub(crate) columns: KindColumns,
}

/// What came of a task.
pub(crate) struct Work {
    pub(crate) done: Done,
    pub(crate) counts: Counts,
    /// The shapes that were made.
    pub(crate) shapes: Vec<(Shape, Facts)>,
}

/// What was done with an archive.
pub(crate) enum Done {
    /// Nothing has changed.
    Untouched,
    /// There is a new archive in `next/`.
    Made(Facts),
    /// The archive is to go.
    Emptied,
}

/// What changes did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) added: u64,
    pub(crate) replaced: u64,
    pub(crate) unchanged: u64,
    pub(crate) removed: u64,
    pub(crate) moved: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Counts) {
        self.added += other.added;
        self.replaced += other.replaced;
        self.unchanged += other.unchanged;
        self.removed += other.removed;
        self.moved += other.moved;
    }

    fn count(&mut self, tag: Tag, outcome: Outcome) {
        match outcome {
            Outcome::Added => self.added += 1,
            Outcome::Replaced => self.replaced += 1,
            Outcome::Unchanged => self.unchanged += 1,
            Outcome::Removed if tag == Tag::Move => self.moved += 1,
            Outcome::Removed => self.removed += 1,
            Outcome::Missing => {}
        }
    }
}

/// Makes the archive of a group, and what stands beside it.
pub(crate) fn make(task: &Task, runs: &Runs, folder: &Folder, options: &ExportOptions) -> Result<Work, Error> {
    let (done, counts) = make_archive(task, runs, folder, options)?;
    let shapes = match &done {
        Done::Emptied => Vec::new(),
        Done::Untouched if task.old.is_none() => Vec::new(),
        Done::Untouched => shapes::make_all(task, false, folder, options)?,
        Done::Made(_) => shapes::make_all(task, true, folder, options)?,
    };
    Ok(Work { done, counts, shapes })
}

fn make_archive(task: &Task, runs: &Runs, folder: &Folder, options: &ExportOptions) -> Result<(Done, Counts), Error> {
    let (kind, group) = (&*task.kind_name, &*task.group_name);
    options.tell(&ExportEvent::Begun { kind, group, threads: task.threads });
    enter_span!("archive", { kind, group });
    let (done, counts) = match task.old {
        Some(old) => spliced(task, &old, runs, folder, options),
        None => new(task, runs, folder, options),
    }
    .map_err(inner)?;
    options.tell(&match &done {
        Done::Untouched => ExportEvent::Untouched { kind, group },
        Done::Made(facts) => ExportEvent::Made { kind, group, entries: facts.entries, bytes: facts.bytes },
        Done::Emptied => ExportEvent::Emptied { kind, group },
    });
    Ok((done, counts))
}

fn spliced(
    task: &Task,
    old: &Facts,
    runs: &Runs,
    folder: &Folder,
    options: &ExportOptions,
) -> Result<(Done, Counts), Error> {
    let (archive, index) = pair(&folder.root, &task.file);
    let file = shown(&archive);
    for path in [&archive, &index] {
        if !publication::exists(path)? {
            return Err(Error::Missing { file: shown(path) });
        }
    }
    let open = || IndexedArchive::open(Named::open(&archive)?, Named::open(&index)?, &file);
    let summary = open()?.summary();
    if (summary.entries, summary.len) != (old.entries, old.bytes) {
        return Err(Error::IndexMismatch { file, reason: "the archive is not the one that was published" });
    }
    let mut counts = Counts::default();
    let index_alone = ArchiveIndex::open(Named::open(&index)?, &file)?;
    let mut puts = 0;
    let count = |tag| puts += u64::from(tag == Tag::Put);
    let changes = Changes { merge: runs.merge(task.group)?, options, note: count };
    if !changes_anything(index_alone, changes, options.same_content)? {
        counts.unchanged = puts;
        return Ok((Done::Untouched, counts));
    }
    let (next_archive, next_index) = pair(&folder.next(), &task.file);
    let mut outputs = (Hashed::create(&next_archive, options)?, Hashed::create(&next_index, options)?);
    let mut how = SpliceOptions::default();
    (how.threads, how.same_content) = (task.threads, options.same_content);
    // A change is read before it is known what it does, and the next one may be, too.
    let tags = RefCell::new(VecDeque::new());
    let note = |tag| tags.borrow_mut().push_back(tag);
    let changes = Changes { merge: runs.merge(task.group)?, options, note };
    let tell = |_: &str, outcome| {
        let tag = tags.borrow_mut().pop_front();
        counts.count(tag.unwrap_or(Tag::Remove), outcome);
    };
    let (archive, index) = (&mut outputs.0, &mut outputs.1);
    let spliced = splice_observed(open()?, changes, archive, index, &how, tell, observer(options))?;
    if spliced.summary.entries == 0 && !options.keep_empty {
        drop(outputs);
        files::remove_file(&next_archive)?;
        files::remove_file(&next_index)?;
        return Ok((Done::Emptied, counts));
    }
    let (bytes, sha256) = files::finish(outputs.0)?;
    files::finish(outputs.1)?;
    let made = || IndexedArchive::open(Named::open(&next_archive)?, Named::open(&next_index)?, &shown(&next_archive));
    match options.check {
        CheckNew::Nothing => {}
        CheckNew::Made => drop(verify_blocks(made()?, &spliced.made_blocks)?),
        CheckNew::Whole => drop(verify(made()?)?),
    }
    Ok((Done::Made(Facts { entries: spliced.summary.entries, bytes, sha256 }), counts))
}

fn new(task: &Task, runs: &Runs, folder: &Folder, options: &ExportOptions) -> Result<(Done, Counts), Error> {
    let mut merge = runs.merge(task.group)?;
    let mut next_put = || -> Result<_, Error> {
        loop {
            options.go_on()?;
            match merge.next()? {
                Some(record) if record.tag != Tag::Put => {}
                record => return Ok(record),
            }
        }
    };
    let mut counts = Counts::default();
    let Some(first) = next_put()? else { return Ok((Done::Untouched, counts)) };
    let (archive, index) = pair(&folder.next(), &task.file);
    let file = shown(&archive);
    let how = ArchiveOptions { threads: task.threads, ..options.archive.clone() };
    let outputs = (Hashed::create(&archive, options)?, Hashed::create(&index, options)?);
    let mut writer = ArchiveWriter::observed(outputs.0, outputs.1, &file, &how, observer(options))?;
    let mut next = Some(first);
    while let Some(record) = next {
        writer.append(&record.id, record.mtime, &record.content)?;
        counts.added += 1;
        next = next_put()?;
    }
    let (archive_file, index_file, summary) = writer.finish()?;
    let (bytes, sha256) = files::finish(archive_file)?;
    files::finish(index_file)?;
    if options.check != CheckNew::Nothing {
        verify(IndexedArchive::open(Named::open(&archive)?, Named::open(&index)?, &file)?)?;
    }
    Ok((Done::Made(Facts { entries: summary.entries, bytes, sha256 }), counts))
}

/// Hears what the threads do that compress an archive.
fn observer(options: &ExportOptions) -> PressObserver {
    let observer = Arc::clone(&options.observer);
    Arc::new(move |event| {
        observer(&match event {
            PressEvent::WaitsForBlock => ExportEvent::CompressorWaits,
            PressEvent::Compresses => ExportEvent::Compresses,
            PressEvent::Ends => ExportEvent::CompressorEnds,
            PressEvent::WaitsForCompressed => ExportEvent::WaitsForCompressor,
            PressEvent::GoesOn => ExportEvent::GoesOn,
        });
    })
}

/// An archive and its index.
pub(crate) fn pair(folder: &Path, file: &str) -> (PathBuf, PathBuf) {
    (folder.join(file), folder.join(format!("{file}{INDEX}")))
}

/// The staged changes of a group, for a splice. What each is is noted when it is given.
struct Changes<'a, N> {
    merge: Merge,
    options: &'a ExportOptions,
    note: N,
}

impl<N: FnMut(Tag)> Iterator for Changes<'_, N> {
    type Item = io::Result<Change>;

    fn next(&mut self) -> Option<io::Result<Change>> {
        let record = self.options.go_on().and_then(|()| self.merge.next());
        let record = record.map_err(io::Error::from).transpose()?;
        Some(record.map(|record| {
            (self.note)(record.tag);
            match record.tag {
                Tag::Put => Change::Put { id: record.id, mtime: record.mtime, content: record.content },
                Tag::Remove | Tag::Move => Change::Remove { id: record.id },
            }
        }))
    }
}

/// Writes the `all.tar` of a type: its archives, by name.
pub(crate) fn bundle(
    name: &str,
    archives: &[(PathBuf, String, u64)],
    folder: &Folder,
    options: &ExportOptions,
) -> Result<Facts, Error> {
    let path = folder.next().join(name);
    let mut output = Hashed::create(&path, options)?;
    let failed = |source| inner(Error::Output { file: shown(&path), source });
    for (archive, name, len) in archives {
        let mut header = Vec::new();
        crate::archive::write_header(&mut header, name, *len, 0);
        io::Write::write_all(&mut output, &header).map_err(failed)?;
        let mut input = io::Read::take(Named::open(archive)?, *len);
        if io::copy(&mut input, &mut output).map_err(failed)? != *len {
            let reason = "it is shorter than when it was published".to_owned();
            return Err(Error::Set { file: shown(archive), reason });
        }
        let padding = len.next_multiple_of(512) - len;
        io::Write::write_all(&mut output, &[0; 512][..padding as usize]).map_err(failed)?;
    }
    io::Write::write_all(&mut output, &[0; 1024]).map_err(failed)?;
    let (bytes, sha256) = files::finish(output)?;
    Ok(Facts { entries: 0, bytes, sha256 })
}

/// Where an archive is before the commit: in `next/` if it is new.
pub(crate) fn newest(folder: &Folder, file: &str) -> PathBuf {
    let next = folder.next().join(file);
    if fs::exists(&next).unwrap_or(false) { next } else { folder.root.join(file) }
}
