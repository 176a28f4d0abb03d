//! What stands beside the archive of a group, and beside the folder of a type: the items in other formats, made from the archives.
//!
//! A map says what each stretch of such a file was made of. It is bound to the file by its digest, which the roster has, so
//! that one that is lost, damaged or left over from a run that was cut short costs time alone: the file is made anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    event::ExportEvent,
    files::{
        self, Folder, Hashed, INDEX, LONGEST_NAME, Named, cannot_read, digest, inner, shape_files, shown, whole_files,
    },
    group::{Task, newest, open_published, pair},
    options::{CheckNew, ExportOptions},
    roster::{Facts, Group, Kind, Roster},
    whose::{self, There},
};
use crate::{
    Error,
    archive::{
        ArchiveReader, Comparison, How, IndexedArchive, Map, Member, Old, OpenOwn, ParquetColumns, Part, Shape,
        check_rows, make_shape,
    },
};

/// The columns that the Parquet of a type is to have.
#[derive(Clone)]
pub(crate) struct KindColumns {
    pub(crate) columns: Arc<ParquetColumns>,
    /// Whether what is there has others, or they are to be noted for the first time.
    pub(crate) are_new: bool,
}

impl KindColumns {
    /// Those of all types.
    pub(crate) fn all(roster: &Roster, options: &ExportOptions) -> Result<BTreeMap<u32, KindColumns>, Error> {
        let of = |(number, kind): (&u32, &Kind)| {
            let known = roster.columns(*number)?;
            let wanted = options.columns_of.get(&kind.name).or(known.as_ref()).cloned().unwrap_or_default();
            // Where none are known, what is there was made before there were any: then times were in milliseconds.
            let are_new = known.as_ref() != Some(&wanted);
            Ok((*number, KindColumns { columns: Arc::new(wanted), are_new }))
        };
        roster.names.kinds.iter().map(of).collect()
    }
}

/// A shape that a group is to have.
#[derive(Clone, Copy)]
pub(crate) struct WantedShape {
    pub(crate) shape: Shape,
    /// What is there of it.
    pub(crate) old: Option<Facts>,
    /// Whether it is to be made even if the archive does not change.
    pub(crate) is_due: bool,
}

/// What shapes the groups have and are to have.
pub(crate) struct Plan {
    have: BTreeMap<u32, BTreeMap<Shape, Facts>>,
    /// Those that they have by what is known, and not by their length.
    lost: BTreeSet<(u32, Shape)>,
    /// By type.
    want: BTreeMap<u32, BTreeSet<Shape>>,
}

impl Plan {
    pub(crate) fn new(roster: &Roster, folder: &Folder, options: &ExportOptions) -> Result<Plan, Error> {
        let have = roster.shapes()?;
        let mut lost = BTreeSet::new();
        for (number, shapes) in &have {
            let Some(group) = roster.names.groups.get(number) else { continue };
            for (shape, facts) in shapes {
                if is_lost(folder, &shape_files(&group.file, *shape).0, facts)? {
                    lost.insert((*number, *shape));
                }
            }
        }
        let mut want = BTreeMap::new();
        for (number, kind) in &roster.names.kinds {
            let wanted = match options.shapes_of(&kind.name) {
                Some(shapes) => shapes.clone(),
                None => {
                    let own = have
                        .iter()
                        .filter(|(group, _)| roster.names.groups.get(group).is_some_and(|group| group.kind == *number));
                    own.flat_map(|(_, shapes)| shapes.keys().copied()).collect()
                }
            };
            want.insert(*number, wanted);
        }
        Ok(Plan { have, lost, want })
    }

    /// The shapes that a group of this type is to have, and what is there of them.
    pub(crate) fn wanted(&self, kind: u32, group: u32, columns: &KindColumns) -> Vec<WantedShape> {
        let have = self.have.get(&group);
        let wanted = |shape: &Shape| {
            let old = have.and_then(|have| have.get(shape)).copied();
            let has_new_columns = columns.are_new && *shape == Shape::Parquet;
            let is_due = old.is_none() || has_new_columns || self.lost.contains(&(group, *shape));
            WantedShape { shape: *shape, old, is_due }
        };
        self.want.get(&kind).into_iter().flatten().map(wanted).collect()
    }

    /// The shapes that a group of this type has and is not to have.
    pub(crate) fn unwanted(&self, kind: u32, group: u32) -> Vec<(Shape, Facts)> {
        let have = self.have.get(&group).into_iter().flatten().map(|(shape, facts)| (*shape, *facts));
        have.filter(|(shape, _)| !self.want.get(&kind).is_some_and(|want| want.contains(shape))).collect()
    }

    /// Whether the shapes of a group are to change even if its items do not.
    pub(crate) fn differs(&self, kind: u32, group: u32, columns: &KindColumns) -> bool {
        self.wanted(kind, group, columns).iter().any(|wanted| wanted.is_due) || !self.unwanted(kind, group).is_empty()
    }
}

/// Whether a file that the set has is not there, or has another length: damage that is cheap to see.
pub(crate) fn is_lost(folder: &Folder, name: &str, known: &Facts) -> Result<bool, Error> {
    let path = folder.root.join(name);
    match fs::metadata(&path) {
        Ok(facts) => Ok(!facts.is_file() || facts.len() != known.bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(cannot_read(&path)(error)),
    }
}

/// Whether the files of a group that may be made or replaced are ours, or not there.
pub(crate) fn check_places(task: &Task, folder: &Folder, options: &ExportOptions) -> Result<(), Error> {
    let may_change = |wanted: &&WantedShape| task.staged > 0 || task.is_anew || wanted.is_due;
    for WantedShape { shape, old, .. } in task.shapes.iter().filter(may_change) {
        options.go_on()?;
        let names = shape_files(&task.file, *shape);
        let there = whose::there(folder, &names, *shape, old.as_slice(), options)?;
        whose::check(&folder.root.join(&names.0), there, old.is_some())?;
    }
    Ok(())
}

/// Whether the file of a shape that is to go is ours: somebody else's stays.
pub(crate) fn goes(
    folder: &Folder,
    names: &(String, String),
    shape: Shape,
    known: Facts,
    options: &ExportOptions,
) -> Result<bool, Error> {
    let there = whose::there(folder, names, shape, &[known], options)?;
    Ok(matches!(there, There::Ours | There::Nothing))
}

/// Makes the shapes of a group in `next/`: all, if the archive is new, or those that are due.
pub(crate) fn make_all(
    task: &Task,
    is_new: bool,
    folder: &Folder,
    options: &ExportOptions,
) -> Result<Vec<(Shape, Facts)>, Error> {
    let mut made = Vec::new();
    for WantedShape { shape, old, .. } in task.shapes.iter().filter(|wanted| is_new || wanted.is_due) {
        options.go_on()?;
        made.push((*shape, make(task, *shape, old.as_ref(), folder, options)?));
    }
    Ok(made)
}

fn make(
    task: &Task,
    shape: Shape,
    facts: Option<&Facts>,
    folder: &Folder,
    options: &ExportOptions,
) -> Result<Facts, Error> {
    let target = Target {
        names: shape_files(&task.file, shape),
        shape,
        is_whole: false,
        threads: task.threads,
        columns: &task.columns.columns,
        folder,
        options,
    };
    let (facts, copied, made) = target.with_old(facts, false, |old| {
        let archive = opened(folder, &task.file, task.old.as_ref(), options);
        let part = archive.map(|archive| Part { archive, member: None });
        let made = target.make(std::iter::once(part), old)?;
        if options.check == CheckNew::Whole {
            compare(shape, &target.path(), &newest(folder, &task.file), options)?;
        }
        Ok(made)
    })?;
    let (kind, group, bytes) = (&*task.kind_name, &*task.group_name, facts.bytes);
    options.tell(&ExportEvent::Shaped { kind, group, shape, bytes, copied, made });
    Ok(facts)
}

/// What is to be done with the shapes of types.
pub(crate) struct WholePlan {
    pub(crate) tasks: Vec<WholeTask>,
    /// Those that are to go, by type, and what they are.
    pub(crate) unwanted: Vec<(u32, Shape, Facts)>,
}

/// Plans to make the shapes of the types in `changed` and those that are missing or lost. `wanted` tells what a type is to have.
pub(crate) fn plan_whole(
    roster: &Roster,
    folder: &Folder,
    changed: &BTreeSet<u32>,
    options: &ExportOptions,
    columns: &BTreeMap<u32, KindColumns>,
    wanted: impl Fn(u32, &Kind) -> BTreeSet<Shape>,
) -> Result<WholePlan, Error> {
    let (have, own) = (roster.whole_shapes()?, roster.shapes()?);
    let mut groups: BTreeMap<u32, Vec<(u32, &Group, Facts)>> = BTreeMap::new();
    for (number, facts) in roster.archives()? {
        if let Some(group) = roster.names.groups.get(&number) {
            groups.entry(group.kind).or_default().push((number, group, facts));
        }
    }
    let (mut tasks, mut unwanted) = (Vec::new(), Vec::new());
    for (number, kind) in &roster.names.kinds {
        let have = have.get(number).cloned().unwrap_or_default();
        // A type without groups has nothing to make one of.
        let mut groups = groups.remove(number).unwrap_or_default();
        let wanted = if groups.is_empty() { BTreeSet::new() } else { wanted(*number, kind) };
        groups.sort_by(|a, b| a.1.file.cmp(&b.1.file));
        let gone = have.iter().filter(|(shape, _)| !wanted.contains(shape));
        unwanted.extend(gone.map(|(shape, facts)| (*number, *shape, *facts)));
        for shape in wanted {
            let old = have.get(&shape).copied();
            let Some(columns) = columns.get(number) else { continue };
            let has_changed = changed.contains(number) || columns.are_new && shape == Shape::Parquet;
            if let Some(old) = &old
                && !has_changed
                && !is_lost(folder, &whole_files(&kind.folder, shape).0, old)?
            {
                continue;
            }
            let group = |(of, group, archive): &(u32, &Group, Facts)| WholeGroup {
                name: group.name.as_str().into(),
                file: group.file.clone(),
                archive: *archive,
                own: own.get(of).and_then(|own| own.get(&shape)).copied(),
            };
            tasks.push(WholeTask {
                kind: *number,
                kind_name: kind.name.clone(),
                folder: kind.folder.clone(),
                shape,
                old,
                groups: groups.iter().map(group).collect(),
                threads: 1,
                columns: Arc::clone(&columns.columns),
            });
        }
    }
    let threads = options.archive.threads.max(1) / options.jobs.min(tasks.len()).max(1);
    tasks.iter_mut().for_each(|task| task.threads = threads.max(1));
    Ok(WholePlan { tasks, unwanted })
}

/// Whether the file of a shape of a type may be made or replaced. `facts`: of the one that the set has.
pub(crate) fn check_whole_place(
    roster: &Roster,
    folder: &Folder,
    of: &str,
    shape: Shape,
    facts: Option<Facts>,
    options: &ExportOptions,
) -> Result<(), Error> {
    let names = whole_files(of, shape);
    let (name, path) = (&names.0, folder.root.join(&names.0));
    let set = |reason: &str| Err(Error::Set { file: shown(&path), reason: reason.to_owned() });
    // Of types that earlier versions have made.
    if name.len() > LONGEST_NAME {
        return set("its name would be too long, so the type cannot have this file");
    }
    if roster.names.kinds.values().any(|kind| kind.folder == *name) {
        return set("it is the folder of another type, so this type cannot have this file");
    }
    whose::check(&path, whose::there(folder, &names, shape, facts.as_slice(), options)?, facts.is_some())
}

/// The shape of a type that is to be made.
pub(crate) struct WholeTask {
    pub(crate) kind: u32,
    pub(crate) kind_name: String,
    /// The folder of the type.
    pub(crate) folder: String,
    pub(crate) shape: Shape,
    /// What is there of it.
    pub(crate) old: Option<Facts>,
    /// Its groups, in the order of their archives' names.
    pub(crate) groups: Vec<WholeGroup>,
    pub(crate) threads: usize,
    pub(crate) columns: Arc<ParquetColumns>,
}

/// A group of a type.
pub(crate) struct WholeGroup {
    pub(crate) name: Arc<str>,
    /// The archive below the folder of the set, and what it is.
    pub(crate) file: String,
    pub(crate) archive: Facts,
    /// Its own file of the shape.
    pub(crate) own: Option<Facts>,
}

/// Makes a shape of a type in `next/`, from its archives and the shapes of its groups as they will be published.
pub(crate) fn make_whole(task: &WholeTask, folder: &Folder, options: &ExportOptions) -> Result<Facts, Error> {
    let shape = task.shape;
    let names = whole_files(&task.folder, shape);
    let (threads, columns) = (task.threads, &*task.columns);
    let target = Target { names, shape, is_whole: true, threads, columns, folder, options };
    let part = |group: &'_ WholeGroup, with_own: bool| {
        options.go_on()?;
        let own = group.own.filter(|_| with_own).map(|facts| {
            let (name, map) = shape_files(&group.file, shape);
            let open = move || old_of(shape, &newest(folder, &name), &newest(folder, &map), &facts, options);
            Box::new(open) as OpenOwn<'_>
        });
        let archive = group.file.rsplit_once('/').map_or(&*group.file, |(_, name)| name).to_owned();
        let member = Member { group: Arc::clone(&group.name), archive, own };
        Ok(Part { archive: opened(folder, &group.file, Some(&group.archive), options)?, member: Some(member) })
    };
    let mut is_first = true;
    let has_own = task.groups.iter().any(|group| group.own.is_some());
    let (facts, copied, made) = target.with_old(task.old.as_ref(), has_own, |old| {
        let with_own = std::mem::replace(&mut is_first, false);
        let made = target.make(task.groups.iter().map(|group| part(group, with_own)), old)?;
        if options.check == CheckNew::Whole {
            let archives = task.groups.iter().map(|group| (newest(folder, &group.file), &*group.name));
            compare_whole(shape, &target.path(), archives, options)?;
        }
        Ok(made)
    })?;
    let (kind, bytes) = (&*task.kind_name, facts.bytes);
    options.tell(&ExportEvent::ShapedWhole { kind, shape, bytes, copied, made });
    Ok(facts)
}

/// A file of a shape that is to be made.
struct Target<'a> {
    /// The file and its map, below the folder of the set.
    names: (String, String),
    shape: Shape,
    is_whole: bool,
    threads: usize,
    columns: &'a ParquetColumns,
    folder: &'a Folder,
    options: &'a ExportOptions,
}

impl Target<'_> {
    /// Where it is until the commit.
    fn path(&self) -> PathBuf {
        self.folder.next().join(&self.names.0)
    }

    /// Makes it with what is there of it, and again without where something is not what it was: somebody, or the disk, has
    /// changed it. `has_more`: the first time it is made with other files, too.
    fn with_old<T>(
        &self,
        facts: Option<&Facts>,
        has_more: bool,
        mut make: impl FnMut(Option<Old>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let root = &self.folder.root;
        let old = match facts {
            Some(facts) => {
                old_of(self.shape, &root.join(&self.names.0), &root.join(&self.names.1), facts, self.options)?
            }
            None => None,
        };
        let has_old = has_more || old.is_some();
        match make(old).map_err(inner) {
            Err(Error::Set { .. }) if has_old => make(None).map_err(inner),
            made => made,
        }
    }

    /// Makes the file and its map in `next/`. What is known of it then, and how many stretches were copied and made.
    fn make<'p>(
        &self,
        parts: impl Iterator<Item = Result<Part<'p, Named, Named>, Error>>,
        old: Option<Old>,
    ) -> Result<(Facts, u64, u64), Error> {
        let (path, map_path) = (self.path(), self.folder.next().join(&self.names.1));
        let state = self.folder.root.join(&self.names.1);
        for parent in [path.parent(), map_path.parent(), state.parent()].into_iter().flatten() {
            files::make_folder(parent)?;
        }
        let (file, options) = (shown(&path), self.options);
        let outputs = (Hashed::create(&path, options)?, Hashed::create(&map_path, options)?);
        let check = options.check != CheckNew::Nothing;
        let Target { is_whole, threads, columns, .. } = *self;
        let how = How { file: &file, is_whole, threads, columns, check };
        let (output, map, made) = make_shape(self.shape, parts, old, outputs.0, outputs.1, &how)?;
        let (bytes, sha256) = files::finish(output)?;
        files::finish_lightly(map.finish(bytes, &sha256)?)?;
        if options.check == CheckNew::Made && self.shape == Shape::Parquet {
            check_rows(&path, &made.rows, columns)?;
        }
        Ok((Facts { entries: 0, bytes, sha256 }, made.copied, made.made))
    }
}

/// A file of a shape, if it is what it was made as.
fn old_of(shape: Shape, path: &Path, map: &Path, facts: &Facts, options: &ExportOptions) -> Result<Option<Old>, Error> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(cannot_read(path))?,
    };
    if file.metadata().map_err(cannot_read(path))?.len() != facts.bytes {
        return Ok(None);
    }
    // Of the others all that is copied is checked; what Parquet's footer says of its columns goes over unread.
    if shape == Shape::Parquet && digest(path, options)?.1 != facts.sha256 {
        return Ok(None);
    }
    Ok(Map::open(map, shape, facts.bytes, &facts.sha256)?.map(|map| Old { file, map }))
}

/// An archive as it will be published. `known`: what it is, if it does not change.
fn opened(
    folder: &Folder,
    file: &str,
    known: Option<&Facts>,
    options: &ExportOptions,
) -> Result<IndexedArchive<Named, Named>, Error> {
    let (archive, index) = (newest(folder, file), newest(folder, &format!("{file}{INDEX}")));
    let published = pair(&folder.root, file);
    let is_published = archive == published.0 && index == published.1;
    if let Some(known) = known.filter(|_| is_published) {
        return open_published(folder, file, known, options);
    }
    // What is wrong with an item is told of the archive that has it, whether or not it is published.
    IndexedArchive::open(Named::open(&archive)?, Named::open(&index)?, &shown(&folder.root.join(file)))
}

/// Compares a shape with the archive that it was made from.
pub(crate) fn compare(shape: Shape, path: &Path, archive: &Path, options: &ExportOptions) -> Result<(), Error> {
    compare_all(shape, path, false, [(archive.to_owned(), "")].into_iter(), options)
}

/// Compares a shape of a type with the archives that it was made from, each of a group, in their order.
pub(crate) fn compare_whole<'a>(
    shape: Shape,
    path: &Path,
    archives: impl Iterator<Item = (PathBuf, &'a str)>,
    options: &ExportOptions,
) -> Result<(), Error> {
    compare_all(shape, path, true, archives, options)
}

fn compare_all<'a>(
    shape: Shape,
    path: &Path,
    is_whole: bool,
    mut archives: impl Iterator<Item = (PathBuf, &'a str)>,
    options: &ExportOptions,
) -> Result<(), Error> {
    let compared = Comparison::open(shape, path, is_whole).and_then(|mut comparison| {
        archives.try_for_each(|(archive, group)| {
            let mut items = ArchiveReader::new(Named::open(&archive)?, &shown(&archive));
            comparison.compare(&mut items, group, || options.go_on())
        })?;
        comparison.finish()
    });
    compared.map_err(inner)
}

/// What becomes of a shape with the commit.
#[derive(Clone, Copy)]
pub(crate) enum Fate {
    Made(Facts),
    /// The set has it no longer; the file goes, too, if it is ours.
    Gone {
        is_ours: bool,
    },
}

impl Fate {
    fn facts(&self) -> Option<&Facts> {
        match self {
            Fate::Made(facts) => Some(facts),
            Fate::Gone { .. } => None,
        }
    }

    fn note(self, roster: &Roster, (name, map): (String, String)) -> Result<(), Error> {
        let is_made = self.facts().is_some();
        if !matches!(self, Fate::Gone { is_ours: false }) {
            roster.add_pending(&name, is_made)?;
        }
        roster.add_pending(&map, is_made)
    }
}

/// Notes for the commit what becomes of a shape of a group.
pub(crate) fn note(roster: &Roster, archive: &str, group: u32, shape: Shape, fate: Fate) -> Result<(), Error> {
    roster.set_shape(group, shape, fate.facts())?;
    fate.note(roster, shape_files(archive, shape))
}

/// Notes for the commit what becomes of a shape of a type.
pub(crate) fn note_whole(roster: &Roster, kind: u32, shape: Shape, fate: Fate) -> Result<(), Error> {
    let folder = roster.names.kinds.get(&kind).map_or("", |kind| &kind.folder);
    roster.set_whole_shape(kind, shape, fate.facts())?;
    fate.note(roster, whole_files(folder, shape))
}
