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
    files::{self, Folder, Hashed, INDEX, Named, copy_hashed, inner, shown},
    options::{CheckNew, ExportOptions},
    publication,
    roster::Facts,
    runs::{Merge, Runs, Tag},
    shapes::{self, KindColumns, WantedShape},
    whose::{self, ArchiveThere, There},
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
    /// Whether nothing of it is used, as it is damaged or gone: what is staged is all of it.
    pub(crate) is_anew: bool,
    /// How many bytes of changes are staged.
    pub(crate) staged: u64,
    /// How many threads compress.
    pub(crate) threads: usize,
    /// The shapes that it is to have, and what is there of them.
    pub(crate) shapes: Vec<WantedShape>,
    /// Those that it has and is not to have, and whether what stands there is ours.
    pub(crate) unwanted: Vec<(Shape, bool)>,
    pub(crate) columns: KindColumns,
}

/// Whether nothing of somebody else's stands where a new archive is to be. One that takes the place of an old one has that known as
/// ours when it is read.
pub(crate) fn check_place(task: &Task, folder: &Folder) -> Result<(), Error> {
    if task.old.is_some() || task.staged == 0 {
        return Ok(());
    }
    let path = folder.root.join(&task.file);
    let there = whose::file_there(&path)?.map_or_else(|there| there, |_| There::Others);
    whose::check(&path, there, false)
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
        Some(old) if !task.is_anew => spliced(task, &old, runs, folder, options),
        _ => new(task, runs, folder, options),
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
    let index = pair(&folder.root, &task.file).1;
    let file = shown(&folder.root.join(&task.file));
    let open = || open_published(folder, &task.file, old, options);
    let explained = |error| whose::explained(folder, &task.file, &[*old], inner(error), options);
    drop(open()?);
    let mut counts = Counts::default();
    let index_alone = ArchiveIndex::open(Named::open(&index)?, &file)?;
    let mut puts = 0;
    let count = |tag| puts += u64::from(tag == Tag::Put);
    let changes = Changes { merge: runs.merge(task.group)?, options, note: count };
    if !changes_anything(index_alone, changes, options.same_content).map_err(explained)? {
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
    let spliced = splice_observed(open()?, changes, archive, index, &how, tell, (copy_hashed, observer(options)))
        .map_err(explained)?;
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
    let (mut counts, mut moved) = (Counts::default(), 0);
    let mut next_put = || -> Result<_, Error> {
        loop {
            options.go_on()?;
            match merge.next()? {
                Some(record) if record.tag != Tag::Put => moved += u64::from(record.tag == Tag::Move),
                record => return Ok(record),
            }
        }
    };
    let first = next_put()?;
    match (&first, task.old) {
        (None, None) => return Ok((Done::Untouched, counts)),
        (None, Some(old)) if !options.keep_empty => {
            counts.moved = moved.min(old.entries);
            counts.removed = old.entries - counts.moved;
            return Ok((Done::Emptied, counts));
        }
        _ => {}
    }
    let (archive, index) = pair(&folder.next(), &task.file);
    let file = shown(&archive);
    let how = recipe(task, folder).unwrap_or_else(|| options.archive.clone());
    let how = ArchiveOptions { threads: task.threads, ..how };
    let outputs = (Hashed::create(&archive, options)?, Hashed::create(&index, options)?);
    let mut writer = ArchiveWriter::observed(outputs.0, outputs.1, &file, &how, observer(options))?;
    let mut next = first;
    while let Some(record) = next {
        writer.append(&record.id, record.mtime, &record.content)?;
        counts.added += 1;
        next = next_put()?;
    }
    if let Some(old) = task.old {
        // Which of them were there as they are nobody can tell any more.
        counts.moved = moved.min(old.entries);
        let left = old.entries - counts.moved;
        counts.replaced = counts.added.min(left);
        counts.added -= counts.replaced;
        counts.removed = left - counts.replaced;
    }
    let (archive_file, index_file, summary) = writer.finish()?;
    let (bytes, sha256) = files::finish(archive_file)?;
    files::finish(index_file)?;
    if options.check != CheckNew::Nothing {
        verify(IndexedArchive::open(Named::open(&archive)?, Named::open(&index)?, &file)?)?;
    }
    Ok((Done::Made(Facts { entries: summary.entries, bytes, sha256 }), counts))
}

/// How the archive was made that is there, as far as its index can tell.
fn recipe(task: &Task, folder: &Folder) -> Option<ArchiveOptions> {
    let old = task.old?;
    let index = Named::open(&pair(&folder.root, &task.file).1).ok()?;
    let index = ArchiveIndex::open(index, &task.file).ok()?;
    let summary = index.summary();
    ((summary.entries, summary.len) == (old.entries, old.bytes)).then(|| index.options())
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

/// Opens an archive of the set as it was published.
///
/// # Errors
/// What has become of it.
pub(crate) fn open_published(
    folder: &Folder,
    file: &str,
    known: &Facts,
    options: &ExportOptions,
) -> Result<IndexedArchive<Named, Named>, Error> {
    let (archive, index) = pair(&folder.root, file);
    for path in [&archive, &index] {
        if !publication::exists(path)? {
            return Err(Error::Missing { file: shown(path) });
        }
    }
    let open = || {
        let file = shown(&archive);
        let opened = IndexedArchive::open(Named::open(&archive)?, Named::open(&index)?, &file)?;
        let summary = opened.summary();
        if (summary.entries, summary.len) == (known.entries, known.bytes) {
            return Ok(opened);
        }
        Err(Error::IndexMismatch { file, reason: "the archive is not the one that was published" })
    };
    open().map_err(|error| whose::explained(folder, file, &[*known], inner(error), options))
}

/// Whether an archive has the bytes that were published, and these are what its index says.
///
/// # Errors
/// [`Error::Set`] where something else is in its place.
pub(crate) fn is_sound(folder: &Folder, file: &str, known: &Facts, options: &ExportOptions) -> Result<bool, Error> {
    match whose::archive_there(folder, file, &[*known], options)? {
        ArchiveThere::Sound => {}
        ArchiveThere::Damaged | ArchiveThere::Other(There::Nothing) => return Ok(false),
        ArchiveThere::Other(there) => return whose::check(&folder.root.join(file), there, true).map(|()| false),
    }
    options.go_on()?;
    match open_published(folder, file, known, options).and_then(verify).map_err(inner) {
        Ok(_) => Ok(true),
        Err(Error::Index { .. } | Error::IndexMismatch { .. } | Error::Missing { .. }) => Ok(false),
        Err(error) if whose::is_of_bytes(&error) => Ok(false),
        Err(error) => Err(error),
    }
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
