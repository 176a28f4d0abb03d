use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use crossbeam_channel::bounded;
use serde::de::IgnoredAny;

use super::{
    event::ExportEvent,
    files::{self, INDEX, INFO, MANIFEST, cannot_read, shape_files, shown, whole_files},
    group::{self, Counts, Done, Task, Work},
    publication,
    roster::{Names, short},
    runs::{Runs, Tag},
    set::{ExportSet, Published},
    shapes::{self, Fate, KindColumns, Plan},
};
use crate::counted::counted;
use crate::{
    Error, Refusal,
    archive::{LONGEST_CONTENT, Shape, entry_name, name_to_id, unescaped},
};

/// The changes of a run.
///
/// They go to memory first ([`ExportOptions::memory`](crate::ExportOptions::memory)), and to files below `.bulk/stage` when
/// that is full: one after another, never a file for each item. Of several changes of one item the last counts; where items come
/// in no order that means anything, [`repeated`](Stage::repeated) tells which ones came more than once.
///
/// [`publish`](Stage::publish) is the only commit: dropping a stage publishes nothing.
pub struct Stage<'a> {
    pub(crate) set: &'a mut ExportSet,
    pub(crate) runs: Runs,
    pub(crate) buffer: Buffer,
    started: String,
    begun: Instant,
    kinds: BTreeSet<u32>,
    /// The groups whose archives are to be made of what is staged alone.
    mended: BTreeSet<u32>,
    is_committed: bool,
}

/// Changes in memory, in the order in which they came.
#[derive(Default)]
pub(crate) struct Buffer {
    changes: Vec<Waiting>,
    /// Their ids and contents.
    bytes: Vec<u8>,
}

/// A change in memory: an item put into a group, or removed from whichever it is in.
#[derive(Clone, Copy)]
struct Waiting {
    kind: u32,
    group: Option<u32>,
    mtime: i64,
    id: (usize, usize),
    content_end: usize,
}

/// What loose files became.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loose {
    /// Files that were staged.
    pub put: u64,
    /// Files that were refused.
    pub refused: u64,
}

impl ExportSet {
    /// Begins a run.
    ///
    /// # Errors
    /// [`Error::Roster`], [`Error::Output`], and those of a run that is finished first.
    pub fn begin(&mut self) -> Result<Stage<'_>, Error> {
        Stage::begin(self)
    }
}

impl<'a> Stage<'a> {
    fn begin(set: &'a mut ExportSet) -> Result<Stage<'a>, Error> {
        set.recover()?;
        let stage = set.folder.stage();
        files::make_folder(&stage)?;
        set.roster.begin()?;
        let mut stage = Stage {
            runs: Runs::new(&stage),
            buffer: Buffer::default(),
            started: files::now(),
            begun: Instant::now(),
            kinds: BTreeSet::new(),
            mended: BTreeSet::new(),
            is_committed: false,
            set,
        };
        let kinds: Vec<u32> = stage.set.roster.names.kinds.keys().copied().collect();
        kinds.into_iter().try_for_each(|kind| stage.attempt(kind))?;
        Ok(stage)
    }

    /// Notes that something is tried with a type.
    fn attempt(&mut self, kind: u32) -> Result<(), Error> {
        if self.kinds.insert(kind) {
            let roster = &self.set.roster;
            let (last_good, duration) = roster.good(kind)?;
            let (folder, kind) = (&self.set.folder, &roster.names.kinds[&kind].folder);
            files::make_folder(&folder.root.join(kind))?;
            let info = publication::info(last_good.as_deref(), &self.started, duration);
            folder.replace(&format!("{kind}/{INFO}"), &info)?;
        }
        Ok(())
    }

    pub(crate) fn kind(&mut self, name: &str) -> Result<u32, Error> {
        let kind = self.set.roster.kind(name)?;
        self.attempt(kind)?;
        Ok(kind)
    }

    /// Whether a type is there, or may be.
    fn check_kind(&self, name: &str) -> Result<(), Refusal> {
        let is_there = self.set.roster.names.kind(name).is_some();
        if is_there { Ok(()) } else { files::new_kind_folder(name).map(drop) }
    }

    /// Puts an item into a group, and takes it out of the one that it is in. `json` becomes its entry, as it is, once it has
    /// been found to be JSON (RFC 8259). `mtime` is when it was modified, in seconds since 1970.
    ///
    /// Names of types and groups become those of folders and files, escaped as [`entry_name`] says.
    ///
    /// # Errors
    /// [`Error::Refused`] where the item is bad: an id, a type or a group that cannot be a name, or not beside the names that
    /// there are, content that is no JSON or longer than 1 GiB. The stage is as it was then, and goes on. [`Error::Output`], [`Error::Roster`],
    /// [`Error::Stopped`].
    pub fn put(&mut self, kind: &str, group: &str, id: &str, mtime: i64, json: &[u8]) -> Result<(), Error> {
        let refused = |reason| Error::Refused { file: format!("{kind}/{group}"), member: short(id), reason };
        entry_name(id).map_err(refused)?;
        self.check_kind(kind).map_err(refused)?;
        files::group_file(group).map_err(refused)?;
        if json.len() as u64 > LONGEST_CONTENT {
            return Err(refused(Refusal::ContentTooLong));
        }
        check_json(json).map_err(refused)?;
        self.make_room(id.len() + json.len())?;
        let kind = self.kind(kind)?;
        let group = self.set.roster.group(kind, group)?;
        self.buffer.push(kind, Some(group), id, mtime, json);
        Ok(())
    }

    /// Removes an item from whichever group it is in, if it is in one.
    ///
    /// # Errors
    /// [`Error::Refused`] for an id or type that cannot be a name; [`Error::Output`], [`Error::Roster`], [`Error::Stopped`].
    pub fn remove(&mut self, kind: &str, id: &str) -> Result<(), Error> {
        let refused = |reason| Error::Refused { file: kind.to_owned(), member: short(id), reason };
        entry_name(id).map_err(refused)?;
        self.check_kind(kind).map_err(refused)?;
        self.make_room(id.len())?;
        let kind = self.kind(kind)?;
        self.buffer.push(kind, None, id, 0, &[]);
        Ok(())
    }

    /// Puts the files of a folder, `<type>/<group>/<id>.json`, with the times that they have. Names are taken to be escaped
    /// as [`entry_name`] says, which plain ones are. `refused` hears of files and folders that are none of these, and why;
    /// names that begin with a dot are passed over. The files stay.
    ///
    /// # Errors
    /// [`Error::Io`] where a file or folder cannot be read; [`Error::Output`], [`Error::Roster`], [`Error::Stopped`].
    pub fn put_folder(
        &mut self,
        folder: impl AsRef<Path>,
        mut refused: impl FnMut(&Path, &Error),
    ) -> Result<Loose, Error> {
        let mut loose = Loose::default();
        let mut bad = |path: &Path, reason| {
            let member = path.file_name().unwrap_or_default().to_string_lossy();
            let file = path.parent().map_or_else(String::new, shown);
            refused(path, &Error::Refused { file, member: short(&member), reason });
        };
        for (kind_path, kind) in entries(folder.as_ref())? {
            let Some(kind) = unescaped(kind.as_encoded_bytes()).filter(|_| kind_path.is_dir()) else {
                bad(&kind_path, Refusal::NotAnItem);
                loose.refused += 1;
                continue;
            };
            for (group_path, group) in entries(&kind_path)? {
                let Some(group) = unescaped(group.as_encoded_bytes()).filter(|_| group_path.is_dir()) else {
                    bad(&group_path, Refusal::NotAnItem);
                    loose.refused += 1;
                    continue;
                };
                for item in fs::read_dir(&group_path).map_err(cannot_read(&group_path))? {
                    let item = item.map_err(cannot_read(&group_path))?;
                    let (path, name) = (item.path(), item.file_name());
                    if name.as_encoded_bytes().starts_with(b".") {
                        continue;
                    }
                    match self.put_file(&kind, &group, &path, &name)? {
                        Ok(()) => loose.put += 1,
                        Err(reason) => {
                            bad(&path, reason);
                            loose.refused += 1;
                        }
                    }
                }
            }
        }
        Ok(loose)
    }

    /// Puts a file, or says why it is no item.
    fn put_file(&mut self, kind: &str, group: &str, path: &Path, name: &OsStr) -> Result<Result<(), Refusal>, Error> {
        let facts = fs::metadata(path).map_err(cannot_read(path))?;
        let Some(id) = name_to_id(name.as_encoded_bytes()).filter(|_| facts.is_file()) else {
            return Ok(Err(Refusal::NotAnItem));
        };
        if facts.len() > LONGEST_CONTENT {
            return Ok(Err(Refusal::ContentTooLong));
        }
        let json = fs::read(path).map_err(cannot_read(path))?;
        match self.put(kind, group, &id, modified(&facts), &json) {
            Ok(()) => Ok(Ok(())),
            Err(Error::Refused { reason, .. }) => Ok(Err(reason)),
            Err(error) => Err(error),
        }
    }

    /// Looks for archives of a type that are damaged or missing, as [`verify_set`](crate::verify_set) does, and has them made anew by
    /// [`publish`](Stage::publish) of what is staged alone. How many there are.
    ///
    /// All items that they are to have must be put by then, and what they have besides be removed, as a [`sweep`](Stage::sweep)
    /// does.
    ///
    /// # Errors
    /// [`Error::Set`] where something that no export has made is in the place of an archive; [`Error::Roster`], [`Error::Io`],
    /// [`Error::Stopped`].
    pub fn mend(&mut self, kind: &str) -> Result<u64, Error> {
        let ExportSet { folder, options, roster, .. } = &*self.set;
        let number = roster.names.kind(kind);
        let groups = &roster.names.groups;
        let of_kind = |group: u32| groups.get(&group).filter(|group| Some(group.kind) == number);
        let archives: Vec<_> = roster
            .archives()?
            .into_iter()
            .filter_map(|(group, facts)| Some((group, of_kind(group)?.file.as_str(), facts)))
            .collect();
        let mut found = Vec::new();
        each_done(
            &archives,
            options.jobs.max(1),
            |(_, file, facts)| group::is_sound(folder, file, facts, options),
            |(group, ..), is_sound| {
                found.extend((!is_sound).then_some(*group));
                Ok(())
            },
        )?;
        self.mended.extend(&found);
        Ok(found.len() as u64)
    }

    /// Whether all is staged of which archives are to be made anew.
    fn check_mended(&self) -> Result<(), Error> {
        let ExportSet { folder, options, roster, .. } = &*self.set;
        let mut counts = BTreeMap::new();
        for number in &self.mended {
            let Some(group) = roster.names.groups.get(number) else { continue };
            let of_kind = match counts.entry(group.kind) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(roster.count_items(group.kind)?),
            };
            let (items, mut staged) = (of_kind.get(number).copied().unwrap_or(0), 0);
            let mut records = self.runs.merge(*number)?;
            while let Some(record) = records.next()? {
                options.go_on()?;
                staged += u64::from(record.tag == Tag::Put);
            }
            if staged < items {
                let reason = format!(
                    "it is damaged or missing, and {staged} of its {} staged, all of which it takes to make it anew",
                    counted(items, "item is", "items are")
                );
                return Err(Error::Set { file: shown(&folder.root.join(&group.file)), reason });
            }
        }
        Ok(())
    }

    /// Makes room in memory for a change of so many bytes.
    fn make_room(&mut self, len: usize) -> Result<(), Error> {
        self.set.options.go_on()?;
        let is_full = (self.buffer.len() + len) as u64 > self.set.options.memory;
        if is_full && !self.buffer.changes.is_empty() { self.spill() } else { Ok(()) }
    }

    /// Writes what is in memory to a file, and to the roster.
    pub(crate) fn spill(&mut self) -> Result<(), Error> {
        if self.buffer.changes.is_empty() {
            return Ok(());
        }
        let Buffer { changes, bytes } = &mut self.buffer;
        let id = |change: &Waiting| &bytes[change.id.0..change.id.1];
        // Stable, so that the last of an item comes last.
        changes.sort_by(|a, b| (a.kind, id(a)).cmp(&(b.kind, id(b))));
        let mut records: Vec<(u32, Tag, bool, usize)> = Vec::with_capacity(changes.len());
        let roster = &self.set.roster;
        let mut again = false;
        for (at, change) in changes.iter().enumerate() {
            if changes.get(at + 1).is_some_and(|next| (next.kind, id(next)) == (change.kind, id(change))) {
                again |= change.group.is_some();
                continue;
            }
            // It came from a `str`.
            let text = str::from_utf8(id(change)).unwrap_or_default();
            let old = roster.find(change.kind, text)?;
            if old != change.group {
                match change.group {
                    Some(group) => roster.set(change.kind, text, group)?,
                    None => roster.unset(change.kind, text)?,
                }
                let tag = if change.group.is_some() { Tag::Move } else { Tag::Remove };
                records.extend(old.map(|old| (old, tag, false, at)));
            }
            let again = std::mem::take(&mut again);
            records.extend(change.group.map(|group| (group, Tag::Put, again, at)));
        }
        // By group; the ids of each are in order already.
        records.sort_by_key(|(group, ..)| *group);
        let mut run = self.runs.write()?;
        for &(group, tag, again, at) in &records {
            let change = &changes[at];
            let content = if tag == Tag::Put { &bytes[change.id.1..change.content_end] } else { &[] };
            run.mark_again(again);
            run.record(group, tag, str::from_utf8(id(change)).unwrap_or_default(), change.mtime, content)?;
        }
        let count = changes.len() as u64;
        self.buffer.clear(self.set.options.memory);
        let options = &self.set.options;
        if records.is_empty() {
            drop(run);
        } else {
            self.runs.add(run, || options.go_on())?;
        }
        options.tell(&ExportEvent::Spilled { changes: count });
        Ok(())
    }

    /// Makes the new archives of all groups with changes, and publishes the set. `watermarks` are saved with it, by type or
    /// any other name; those of other names stay.
    ///
    /// An archive none of whose items changes is not touched, and where that is so of all, nor is the manifest. A file in another format
    /// that is missing, or has another length than it had, is made anew. What is to
    /// stand beside archives ([`ExportOptions::shapes`](crate::ExportOptions::shapes)) is made, or removed, for all groups of a
    /// type, whether they have changed or not; what is to stand beside types
    /// ([`ExportOptions::whole_shapes`](crate::ExportOptions::whole_shapes)) behind that. Before the
    /// commit all is as it was, and after it the rest is finished by [`ExportSet::open`] if not here. New files are synced
    /// before.
    ///
    /// # Errors
    /// Those of [`splice`](crate::splice()) for the archives; [`Error::Damaged`] and [`Error::Missing`] for one that is to change and
    /// was not [mended](Stage::mend); [`Error::Set`] where staged changes are damaged, or not all is staged of which an archive is
    /// to be made anew, or something that no export has made is in the place of an archive, or of a file in another format,
    /// which is found before any is made; [`Error::Stopped`], [`Error::Roster`], [`Error::Io`], [`Error::Output`]. Nothing is
    /// published then, or (where the error comes behind the commit, which [`ExportEvent::Committed`] tells) the next
    /// [`ExportSet::open`] goes on.
    pub fn publish(mut self, watermarks: &BTreeMap<String, String>) -> Result<Published, Error> {
        self.spill()?;
        self.buffer = Buffer::default();
        let columns = KindColumns::all(&self.set.roster, &self.set.options)?;
        for (kind, columns) in columns.iter().filter(|(_, columns)| columns.are_new) {
            self.set.roster.set_columns(*kind, &columns.columns)?;
        }
        self.check_mended()?;
        let (tasks, kinds) = self.tasks(&columns)?;
        let wishes = self.set.whole_wishes()?;
        self.check_places(&tasks, &columns, &wishes)?;
        let (folder, options) = (&self.set.folder, &self.set.options);
        options.tell(&ExportEvent::Staged { groups: tasks.len() as u64 });
        for kind in &kinds {
            files::make_folder(&folder.next().join(kind))?;
        }
        files::make_folder(&folder.next())?;
        let mut published = Published::default();
        let (mut counts, mut changed) = (Counts::default(), BTreeSet::new());
        let roster = &self.set.roster;
        each_done(
            &tasks,
            options.jobs.max(1),
            |task| group::make(task, &self.runs, folder, options),
            |task, work| {
                let Work { done, counts: of_group, shapes: made_shapes } = work;
                counts.add(&of_group);
                published.made_shapes += made_shapes.len() as u64;
                for (shape, facts) in &made_shapes {
                    published.made_bytes += facts.bytes;
                    published.made_shape_bytes += facts.bytes;
                    shapes::note(roster, &task.file, task.group, *shape, Fate::Made(*facts))?;
                }
                let there = task.shapes.iter().filter(|wanted| wanted.old.is_some()).map(|wanted| (wanted.shape, true));
                let gone = there.filter(|_| matches!(done, Done::Emptied)).chain(task.unwanted.iter().copied());
                for (shape, is_ours) in gone {
                    published.removed_shapes += 1;
                    shapes::note(roster, &task.file, task.group, shape, Fate::Gone { is_ours })?;
                }
                let index = format!("{}{INDEX}", task.file);
                match done {
                    Done::Untouched => {
                        published.untouched_groups += u64::from(task.staged > 0);
                        return Ok(());
                    }
                    Done::Made(facts) => {
                        published.made_groups += 1;
                        published.made_bytes += facts.bytes;
                        roster.set_archive(task.group, Some(&facts))?;
                        roster.add_pending(&task.file, true)?;
                        roster.add_pending(&index, true)?;
                    }
                    Done::Emptied => {
                        published.emptied_groups += 1;
                        roster.set_archive(task.group, None)?;
                        roster.add_pending(&task.file, false)?;
                        roster.add_pending(&index, false)?;
                    }
                }
                changed.insert(roster.names.groups[&task.group].kind);
                Ok(())
            },
        )?;
        // One that has left its group, and then all, has not moved.
        published.moved = counts.moved.min(counts.added);
        published.added = counts.added - published.moved;
        published.removed = counts.removed + counts.moved - published.moved;
        (published.replaced, published.unchanged) = (counts.replaced, counts.unchanged);
        let has_new_bundles = self.set.make_bundles(&changed)?;
        self.set.make_whole_shapes(&changed, &columns, &wishes, &mut published)?;
        self.set.options.go_on()?;
        let is_new = published.has_changed() || has_new_bundles;
        self.commit(watermarks, &mut published, is_new)?;
        Ok(published)
    }

    /// Whether all files that may be made or replaced are ours, or not there: before the work, and whatever comes
    /// of the changes. One that is to go stays where it is somebody else's.
    fn check_places(
        &self,
        tasks: &[Task],
        columns: &BTreeMap<u32, KindColumns>,
        wishes: &BTreeMap<u32, BTreeSet<Shape>>,
    ) -> Result<(), Error> {
        let ExportSet { folder, options, roster, .. } = &*self.set;
        for task in tasks {
            group::check_place(task, folder)?;
            shapes::check_places(task, folder, options)?;
        }
        let kind_of = |group: u32| roster.names.groups.get(&group).map(|group| group.kind);
        let changed: BTreeSet<u32> = tasks
            .iter()
            .filter(|task| task.staged > 0 || task.is_anew)
            .filter_map(|task| kind_of(task.group))
            .collect();
        let mut filled = changed.clone();
        filled.extend(roster.archives()?.into_iter().filter_map(|(group, _)| kind_of(group)));
        let have = roster.whole_shapes()?;
        for (number, kind) in &roster.names.kinds {
            for shape in Shape::ALL {
                options.go_on()?;
                let facts = have.get(number).and_then(|have| have.get(&shape)).copied();
                let is_wanted =
                    filled.contains(number) && wishes.get(number).is_some_and(|wishes| wishes.contains(&shape));
                let is_new = columns.get(number).is_some_and(|columns| columns.are_new) && shape == Shape::Parquet;
                let is_due = changed.contains(number)
                    || is_new
                    || match &facts {
                        Some(facts) => shapes::is_lost(folder, &whole_files(&kind.folder, shape).0, facts)?,
                        None => true,
                    };
                if is_wanted && is_due {
                    shapes::check_whole_place(roster, folder, &kind.folder, shape, facts, options)?;
                }
            }
        }
        Ok(())
    }

    /// What is to be done, the largest first, and the folders of the types that it is about.
    fn tasks(&self, columns: &BTreeMap<u32, KindColumns>) -> Result<(Vec<Task>, BTreeSet<String>), Error> {
        let (mut tasks, mut kinds) = (Vec::new(), BTreeSet::new());
        let Names { kinds: all_kinds, groups, .. } = &self.set.roster.names;
        let ExportSet { folder, options, .. } = &*self.set;
        let plan = Plan::new(&self.set.roster, folder, options)?;
        let mut changed: BTreeMap<u32, u64> = self.runs.groups().into_iter().collect();
        for group in self.mended.iter().filter(|group| groups.contains_key(*group)) {
            changed.entry(*group).or_default();
        }
        for (number, _) in self.set.roster.archives()? {
            if groups.get(&number).is_some_and(|group| plan.differs(group.kind, number, &columns[&group.kind])) {
                changed.entry(number).or_default();
            }
        }
        for (number, staged) in changed {
            let group = &groups[&number];
            let kind = &all_kinds[&group.kind];
            kinds.insert(kind.folder.clone());
            let unwanted = plan.unwanted(group.kind, number).into_iter().map(|(shape, facts)| {
                let names = shape_files(&group.file, shape);
                Ok((shape, shapes::goes(folder, &names, shape, facts, options)?))
            });
            tasks.push(Task {
                group: number,
                kind_name: kind.name.clone(),
                group_name: group.name.clone(),
                file: group.file.clone(),
                old: self.set.roster.archive(number)?,
                is_anew: self.mended.contains(&number),
                staged,
                threads: 1,
                shapes: plan.wanted(group.kind, number, &columns[&group.kind]),
                unwanted: unwanted.collect::<Result<_, Error>>()?,
                columns: columns[&group.kind].clone(),
            });
        }
        let work = |task: &Task| {
            let old = task.old.map_or(0, |old| old.bytes);
            let new_shapes = task.shapes.iter().filter(|wanted| wanted.old.is_none()).count() as u64;
            old / 16 + task.staged + new_shapes * old
        };
        tasks.sort_by_key(|task| std::cmp::Reverse(work(task)));
        let all: u64 = tasks.iter().map(work).sum();
        let threads = self.set.options.archive.threads.max(1);
        for task in &mut tasks {
            let share = (u128::from(work(task)) * threads as u128).div_ceil(u128::from(all.max(1)));
            task.threads = usize::try_from(share).map_or(1, |share| share.clamp(1, threads));
        }
        Ok((tasks, kinds))
    }

    fn commit(
        &mut self,
        watermarks: &BTreeMap<String, String>,
        published: &mut Published,
        is_new: bool,
    ) -> Result<(), Error> {
        let (folder, roster) = (&self.set.folder, &self.set.roster);
        for (kind, value) in watermarks {
            roster.set_watermark(kind, value)?;
        }
        let duration = (self.begun.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        for kind in &self.kinds {
            roster.set_good(*kind, &self.started, duration)?;
            let name = format!("{}/{INFO}", roster.names.kinds[kind].folder);
            files::make_folder(&folder.next().join(&roster.names.kinds[kind].folder))?;
            let info = publication::info(Some(&self.started), &self.started, Some(duration));
            files::write(&folder.next().join(&name), &info)?;
            roster.add_pending(&name, true)?;
        }
        let is_new = is_new || !publication::exists(&folder.root.join(MANIFEST))?;
        // What is in `next/` stays now, whatever becomes of the commit: whether there was one the next run asks.
        self.is_committed = true;
        self.set.commit(published, is_new.then(|| self.started.clone()))?;
        files::remove_folder(&self.set.folder.stage())
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        // What remains the next run removes. After a commit there is nothing to roll back.
        let _ = self.set.roster.roll_back();
        if !self.is_committed {
            let _ = files::remove_folder(&self.set.folder.next());
            let _ = files::remove_folder(&self.set.folder.stage());
        }
    }
}

impl Buffer {
    fn push(&mut self, kind: u32, group: Option<u32>, id: &str, mtime: i64, content: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(id.as_bytes());
        let id = (start, self.bytes.len());
        self.bytes.extend_from_slice(content);
        self.changes.push(Waiting { kind, group, mtime, id, content_end: self.bytes.len() });
    }

    /// How many bytes of memory it takes, with what is made of it when it is spilled.
    fn len(&self) -> usize {
        self.bytes.len() + self.changes.len() * (size_of::<Waiting>() * 3 / 2 + size_of::<(u32, Tag, bool, usize)>())
    }

    /// Empties it; what one long item took goes back.
    fn clear(&mut self, memory: u64) {
        self.changes.clear();
        self.bytes.clear();
        self.bytes.shrink_to(usize::try_from(memory).unwrap_or(usize::MAX));
    }
}

/// Does the work of all tasks, so many at once, and calls with what comes of each, in this thread. It ends with the first
/// error; tasks that are under way are finished before.
pub(crate) fn each_done<J: Sync, T: Send>(
    tasks: &[J],
    jobs: usize,
    work: impl Fn(&J) -> Result<T, Error> + Sync,
    mut call: impl FnMut(&J, T) -> Result<(), Error>,
) -> Result<(), Error> {
    let (next, has_failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let (send, receive) = bounded(jobs);
        for _ in 0..jobs.min(tasks.len()) {
            let (send, next, has_failed, work) = (send.clone(), &next, &has_failed, &work);
            let worker = move || {
                while !has_failed.load(Ordering::Relaxed)
                    && let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed))
                    && send.send((task, work(task))).is_ok()
                {}
            };
            let spawned = thread::Builder::new().name("export".to_owned()).spawn_scoped(scope, worker);
            spawned.map_err(|source| Error::Output { file: "a thread".to_owned(), source })?;
        }
        drop(send);
        let mut result = Ok(());
        for (task, done) in receive {
            result = result.and_then(|()| call(task, done?));
            has_failed.store(result.is_err(), Ordering::Relaxed);
        }
        result
    })
}

/// The files and folders in a folder, by name, without those that begin with a dot.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, OsString)>, Error> {
    let read = || -> io::Result<Vec<_>> {
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| (entry.path(), entry.file_name()))).collect()
    };
    let mut entries = read().map_err(cannot_read(folder))?;
    entries.retain(|(_, name)| !name.as_encoded_bytes().starts_with(b"."));
    entries.sort();
    Ok(entries)
}

fn modified(facts: &fs::Metadata) -> i64 {
    std::os::unix::fs::MetadataExt::mtime(facts)
}

/// Whether it is JSON (RFC 8259), and nothing besides.
fn check_json(json: &[u8]) -> Result<(), Refusal> {
    let text = str::from_utf8(json).map_err(|_| Refusal::NotUtf8)?;
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(Refusal::NotJson { line: error.line(), column: error.column() }),
    }
}
