use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::{
    event::ExportEvent,
    files::{self, ALL, ARCHIVE, Folder, MANIFEST, cannot_read, cannot_write, shown, whole_files},
    group::{bundle, newest},
    options::ExportOptions,
    publication,
    roster::{Kind, Roster},
    shapes::{self, Fate, KindColumns, WholePlan},
    stage::each_done,
};
use crate::{Error, archive::Shape};

/// A folder of archives that are published together, opened and locked.
///
/// It has an archive with its index for each group of each type, `manifest.json`, for each type an `info.json` and, if asked
/// for, an `all.tar`; and [shapes](crate::Shape) of groups and of types. [`begin`](ExportSet::begin) stages changes, [`Stage::publish`](crate::Stage::publish) commits them. What is killed, or runs out
/// of disk, at any moment leaves the old set or the new one: where the manifest is missing, its files are just being
/// renamed, and the next [`open`](ExportSet::open) finishes that.
///
/// Where the file system takes names for one that differ in case alone, so that `Scotus` would overwrite `scotus`, items of the
/// second such group or type are refused ([`Refusal::NameInAnotherCase`](crate::Refusal::NameInAnotherCase)).
pub struct ExportSet {
    pub(crate) folder: Folder,
    pub(crate) options: ExportOptions,
    pub(crate) roster: Roster,
    _lock: File,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// Items that are new.
    pub added: u64,
    /// Items that took the place of another version.
    pub replaced: u64,
    /// Items that were put and were there as they are.
    pub unchanged: u64,
    /// Items that are gone.
    pub removed: u64,
    /// Items that are in another group now, which are neither counted as added nor as removed.
    pub moved: u64,
    /// Groups with changes that had no effect: their archives are as they were.
    pub untouched_groups: u64,
    /// Groups whose archives are new or made anew.
    pub made_groups: u64,
    /// Groups that have lost their archives.
    pub emptied_groups: u64,
    /// Files of items in other formats that were made.
    pub made_shapes: u64,
    /// Such files that the set has no longer. They are gone, but where somebody else's is in their place.
    pub removed_shapes: u64,
    /// Bytes of the files that were made.
    pub made_bytes: u64,
    /// How many of them are those of files in other formats.
    pub made_shape_bytes: u64,
    /// Archives of the set now.
    pub archives: u64,
    /// Items of the set now.
    pub entries: u64,
    /// Bytes of all archives of the set now.
    pub bytes: u64,
}

impl Published {
    /// Whether the set has changed.
    pub fn has_changed(&self) -> bool {
        self.made_groups + self.emptied_groups + self.made_shapes + self.removed_shapes > 0
    }
}

impl ExportSet {
    /// Opens a folder, which is made if need be, and locks it (`flock(2)`) until the set is dropped.
    ///
    /// A run that was cut short behind its commit is finished; what another had staged is discarded.
    ///
    /// # Errors
    /// [`Error::Locked`] where somebody else has it open; [`Error::RosterMissing`] where there are archives and nothing is
    /// known of them: see [`rebuild_indexes`](crate::rebuild_indexes); [`Error::Roster`], [`Error::Set`], [`Error::Io`],
    /// [`Error::Output`].
    pub fn open(folder: impl Into<PathBuf>, options: ExportOptions) -> Result<ExportSet, Error> {
        let folder = Folder { root: folder.into() };
        let lock = lock(&folder)?;
        let missing = Error::RosterMissing { file: shown(&folder.roster()) };
        let has_archives = has_archives(&folder.root)?;
        if has_archives && !publication::exists(&folder.roster())? {
            return Err(missing);
        }
        let set = ExportSet::locked(folder, options, lock)?;
        // One that was just made, by somebody who had none either.
        if has_archives && !set.roster.has_run()? { Err(missing) } else { Ok(set) }
    }

    pub(crate) fn locked(folder: Folder, options: ExportOptions, lock: File) -> Result<ExportSet, Error> {
        let mut roster = Roster::open(&folder.roster())?;
        roster.folds_case = folds_case(&folder, &lock)?;
        let mut set = ExportSet { folder, options, roster, _lock: lock };
        set.recover()?;
        Ok(set)
    }

    /// Finishes a committed run, and discards what another had staged.
    pub(crate) fn recover(&mut self) -> Result<(), Error> {
        self.roster.roll_back()?;
        if !self.roster.pending()?.is_empty() {
            self.options.tell(&ExportEvent::Resuming);
            publication::finish(&self.folder, &self.roster, &self.options)?;
        }
        files::remove_folder(&self.folder.next())?;
        files::remove_folder(&self.folder.stage())
    }

    /// What the last run saved for this type, or whatever it used as a name; see [`Stage::publish`](crate::Stage::publish).
    ///
    /// # Errors
    /// [`Error::Roster`].
    pub fn watermark(&self, kind: &str) -> Result<Option<String>, Error> {
        self.roster.watermark(kind)
    }

    /// The types of which there are archives, or have been.
    pub fn kinds(&self) -> Vec<String> {
        self.roster.names.kinds.values().map(|kind| kind.name.clone()).collect()
    }

    /// The group of an item; none where it is not published.
    ///
    /// # Errors
    /// [`Error::Roster`].
    pub fn group_of(&self, kind: &str, id: &str) -> Result<Option<String>, Error> {
        let names = &self.roster.names;
        let Some(kind) = names.kind(kind) else { return Ok(None) };
        Ok(self.roster.find(kind, id)?.and_then(|group| names.groups.get(&group)).map(|group| group.name.clone()))
    }

    /// Makes the `all.tar` of types whose archives have changed. Whether the set has other ones now.
    pub(crate) fn make_bundles(&self, changed: &BTreeSet<u32>) -> Result<bool, Error> {
        let (folder, roster, options) = (&self.folder, &self.roster, &self.options);
        let bundles: BTreeSet<u32> = roster.bundles()?.into_iter().map(|(kind, _)| kind).collect();
        let archives = roster.archives()?;
        let mut is_new = false;
        for (number, kind) in &roster.names.kinds {
            let mut own: Vec<_> = archives
                .iter()
                .filter(|(group, _)| roster.names.groups.get(group).is_some_and(|group| group.kind == *number))
                .map(|(group, facts)| {
                    let file = &roster.names.groups[group].file;
                    let name = file.rsplit_once('/').map_or(&**file, |(_, name)| name).to_owned();
                    (newest(folder, file), name, facts.bytes)
                })
                .collect();
            own.sort_by(|a, b| a.1.cmp(&b.1));
            let name = format!("{}/{ALL}", kind.folder);
            if options.all_tar && !own.is_empty() {
                if changed.contains(number) || !bundles.contains(number) {
                    files::make_folder(&folder.next().join(&kind.folder))?;
                    let facts = bundle(&name, &own, folder, options)?;
                    roster.set_bundle(*number, Some(&facts))?;
                    roster.add_pending(&name, true)?;
                    is_new = true;
                }
            } else if bundles.contains(number) {
                roster.set_bundle(*number, None)?;
                roster.add_pending(&name, false)?;
                is_new = true;
            }
        }
        Ok(is_new)
    }

    /// The shapes that types are to have, which are noted.
    pub(crate) fn whole_wishes(&self) -> Result<BTreeMap<u32, BTreeSet<Shape>>, Error> {
        let (roster, options) = (&self.roster, &self.options);
        let (mut wishes, have) = (roster.wishes()?, roster.whole_shapes()?);
        for (number, kind) in &roster.names.kinds {
            let known = wishes.entry(*number).or_default();
            let mut wanted = known.clone();
            match options.whole_shapes_of(&kind.name) {
                Some(asked) => wanted.clone_from(asked),
                // A roster of an earlier version has no wishes.
                None => wanted.extend(have.get(number).into_iter().flat_map(BTreeMap::keys)),
            }
            if wanted != *known {
                roster.set_wishes(*number, &wanted)?;
                *known = wanted;
            }
        }
        Ok(wishes)
    }

    /// Makes the shapes of types whose archives have changed, and those that are missing; removes those that are not asked for.
    pub(crate) fn make_whole_shapes(
        &self,
        changed: &BTreeSet<u32>,
        columns: &BTreeMap<u32, KindColumns>,
        wishes: &BTreeMap<u32, BTreeSet<Shape>>,
        published: &mut Published,
    ) -> Result<(), Error> {
        let (folder, roster, options) = (&self.folder, &self.roster, &self.options);
        let wanted = |number: u32, _: &Kind| wishes.get(&number).cloned().unwrap_or_default();
        let WholePlan { tasks, unwanted } = shapes::plan_whole(roster, folder, changed, options, columns, wanted)?;
        for (kind, shape, facts) in unwanted {
            published.removed_shapes += 1;
            let names = whole_files(roster.names.kinds.get(&kind).map_or("", |kind| &kind.folder), shape);
            let is_ours = shapes::goes(folder, &names, shape, facts, options)?;
            shapes::note_whole(roster, kind, shape, Fate::Gone { is_ours })?;
        }
        each_done(
            &tasks,
            options.jobs.max(1),
            |task| shapes::make_whole(task, folder, options),
            |task, facts| {
                published.made_shapes += 1;
                published.made_bytes += facts.bytes;
                published.made_shape_bytes += facts.bytes;
                shapes::note_whole(roster, task.kind, task.shape, Fate::Made(facts))
            },
        )
    }

    /// Commits the transaction of the roster, and does what follows. Where the set is a new one, `started` is when the run
    /// began that made it.
    pub(crate) fn commit(&mut self, published: &mut Published, started: Option<String>) -> Result<(), Error> {
        let (folder, roster, options) = (&self.folder, &self.roster, &self.options);
        if let Some(started) = &started {
            roster.set_run(started)?;
        }
        let manifest = roster.manifest()?;
        (published.archives, published.entries) = (manifest.archives.len() as u64, manifest.entries);
        published.bytes = manifest.bytes;
        let next = folder.next();
        files::make_folder(&next)?;
        if started.is_some() {
            files::write(&next.join(MANIFEST), &manifest.to_bytes())?;
            roster.add_pending(MANIFEST, true)?;
        }
        for kind in roster.names.kinds.values().map(|kind| next.join(&kind.folder)).filter(|path| path.is_dir()) {
            files::sync_folder(&kind)?;
        }
        files::sync_folder(&next)?;
        files::sync_folder(&folder.state())?;
        roster.forget_empty()?;
        options.tell(&ExportEvent::Prepared);
        roster.commit()?;
        options.tell(&ExportEvent::Committed);
        publication::finish(folder, roster, options)?;
        self.roster.read_names()
    }
}

pub(crate) fn lock(folder: &Folder) -> Result<File, Error> {
    files::make_folder(&folder.state())?;
    let path = folder.lock();
    let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(cannot_write(&path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        // A file system without locks does not keep anybody out.
        Ok(()) | Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOLCK) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked { file: shown(&folder.root) }),
        Err(error) => Err(cannot_write(&path)(error.into())),
    }
}

/// Whether the file system takes names that differ in case alone for one: then the lock is found by such a name, too.
fn folds_case(folder: &Folder, lock: &File) -> Result<bool, Error> {
    let other = folder.state().join("EXPORT.LOCK");
    let number = |facts: fs::Metadata| (facts.dev(), facts.ino());
    match fs::metadata(&other) {
        Ok(facts) => Ok(number(facts) == number(lock.metadata().map_err(cannot_read(&folder.lock()))?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(cannot_read(&other)(error)),
    }
}

fn has_archives(root: &Path) -> Result<bool, Error> {
    let mut found = false;
    each_file(root, |_, name| found |= name.ends_with(ARCHIVE))?;
    Ok(found)
}

/// Calls with the type's folder and the name of each file of a set, but for those that begin with a dot. In no order.
pub(crate) fn each_file(root: &Path, mut call: impl FnMut(&str, &str)) -> Result<(), Error> {
    for kind in fs::read_dir(root).map_err(cannot_read(root))? {
        let kind = kind.map_err(cannot_read(root))?;
        let path = kind.path();
        let folder = kind.file_name();
        if folder.to_string_lossy().starts_with('.') || !path.is_dir() {
            continue;
        }
        for file in fs::read_dir(&path).map_err(cannot_read(&path))? {
            let name = file.map_err(cannot_read(&path))?.file_name();
            if !name.to_string_lossy().starts_with('.') {
                call(&folder.to_string_lossy(), &name.to_string_lossy());
            }
        }
    }
    Ok(())
}

/// The files beside the folders of types whose names end as those of shapes do: what stands before that, and the shape.
pub(crate) fn whole_shapes(root: &Path) -> Result<BTreeSet<(String, Shape)>, Error> {
    let mut found = BTreeSet::new();
    for file in fs::read_dir(root).map_err(cannot_read(root))? {
        let file = file.map_err(cannot_read(root))?;
        let name = file.file_name();
        if let Some((kind, shape)) = Shape::of_file(&name.to_string_lossy())
            && !kind.is_empty()
            && !kind.starts_with('.')
            && file.path().is_file()
        {
            found.insert((kind.to_owned(), shape));
        }
    }
    Ok(found)
}
