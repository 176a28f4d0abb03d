//! What stands beside the archive of a group: its items in other formats, made from the archive.
//!
//! A map says what each stretch of such a file was made of. It is bound to the file by its digest, which the roster has, so
//! that one that is lost, damaged or left over from a run that was cut short costs time alone: the file is made anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    path::Path,
};

use super::{
    event::ExportEvent,
    files::{self, Folder, Hashed, INDEX, Named, cannot_read, digest, inner, shape_files, shown},
    group::{Task, newest},
    options::{CheckNew, ExportOptions},
    roster::{Facts, Roster},
};
use crate::{
    Error,
    archive::{
        ArchiveIndex, ArchiveReader, How, IndexedArchive, Map, Old, Shape, check_rows, compare_shape, make_shape,
        shape_mark,
    },
};

/// What shapes the groups have and are to have.
pub(crate) struct Plan {
    have: BTreeMap<u32, BTreeMap<Shape, Facts>>,
    /// By type.
    want: BTreeMap<u32, BTreeSet<Shape>>,
}

impl Plan {
    pub(crate) fn new(roster: &Roster, options: &ExportOptions) -> Result<Plan, Error> {
        let have = roster.shapes()?;
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
        Ok(Plan { have, want })
    }

    /// The shapes that a group of this type is to have, and what is there of them.
    pub(crate) fn wanted(&self, kind: u32, group: u32) -> Vec<(Shape, Option<Facts>)> {
        let have = self.have.get(&group);
        let known = |shape| have.and_then(|have| have.get(shape)).copied();
        self.want.get(&kind).into_iter().flatten().map(|shape| (*shape, known(shape))).collect()
    }

    /// The shapes that a group of this type has and is not to have.
    pub(crate) fn unwanted(&self, kind: u32, group: u32) -> Vec<Shape> {
        let have = self.have.get(&group).into_iter().flat_map(|have| have.keys().copied());
        have.filter(|shape| !self.want.get(&kind).is_some_and(|want| want.contains(shape))).collect()
    }

    /// Whether the shapes of a group are to change even if its items do not.
    pub(crate) fn differs(&self, kind: u32, group: u32) -> bool {
        self.wanted(kind, group).iter().any(|(_, facts)| facts.is_none()) || !self.unwanted(kind, group).is_empty()
    }
}

/// Makes the shapes of a group in `next/`: all, if the archive is new, or those that are missing.
pub(crate) fn make_all(
    task: &Task,
    is_new: bool,
    folder: &Folder,
    options: &ExportOptions,
) -> Result<Vec<(Shape, Facts)>, Error> {
    let mut made = Vec::new();
    for (shape, facts) in task.shapes.iter().filter(|(_, facts)| is_new || facts.is_none()) {
        options.go_on()?;
        made.push((*shape, make(task, *shape, facts.as_ref(), folder, options)?));
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
    let old = match facts {
        Some(facts) => old(&task.file, shape, facts, folder, options)?,
        None => None,
    };
    let has_old = old.is_some();
    match make_of(task, shape, old, folder, options).map_err(inner) {
        // The file is not what it was: somebody, or the disk, has changed it.
        Err(Error::Set { .. }) if has_old => make_of(task, shape, None, folder, options).map_err(inner),
        made => made,
    }
}

/// What is there of a shape, if it is what it was made as.
fn old(
    archive: &str,
    shape: Shape,
    facts: &Facts,
    folder: &Folder,
    options: &ExportOptions,
) -> Result<Option<Old>, Error> {
    let (name, map) = shape_files(archive, shape);
    let path = folder.root.join(&name);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(cannot_read(&path))?,
    };
    if file.metadata().map_err(cannot_read(&path))?.len() != facts.bytes {
        return Ok(None);
    }
    // Of the others all that is copied is checked; what Parquet's footer says of its columns goes over unread.
    if shape == Shape::Parquet && digest(&path, options)?.1 != facts.sha256 {
        return Ok(None);
    }
    let index = newest(folder, &format!("{archive}{INDEX}"));
    let level = ArchiveIndex::open(Named::open(&index)?, &shown(&index))?.options().level;
    let mark = shape_mark(shape, level, &shown(&path))?;
    let map = Map::open(&folder.root.join(map), shape, mark, facts.bytes, &facts.sha256)?;
    Ok(map.map(|map| Old { file, map }))
}

fn make_of(
    task: &Task,
    shape: Shape,
    old: Option<Old>,
    folder: &Folder,
    options: &ExportOptions,
) -> Result<Facts, Error> {
    let (name, map_name) = shape_files(&task.file, shape);
    let (archive, index) = (newest(folder, &task.file), newest(folder, &format!("{}{INDEX}", task.file)));
    let (path, map_path) = (folder.next().join(&name), folder.next().join(&map_name));
    for parent in [path.parent(), map_path.parent(), folder.root.join(&map_name).parent()].into_iter().flatten() {
        files::make_folder(parent)?;
    }
    let file = shown(&path);
    let opened = IndexedArchive::open(Named::open(&archive)?, Named::open(&index)?, &shown(&archive))?;
    let outputs = (Hashed::create(&path, options)?, Hashed::create(&map_path, options)?);
    let how = How { file: &file, threads: task.threads, check: options.check != CheckNew::Nothing };
    let (output, map, made) = make_shape(shape, opened, old, outputs.0, outputs.1, &how)?;
    let (bytes, sha256) = files::finish(output)?;
    files::finish_lightly(map.finish(bytes, &sha256)?)?;
    match (options.check, shape) {
        (CheckNew::Whole, _) => compare(shape, &path, &archive, options)?,
        (CheckNew::Made, Shape::Parquet) => check_rows(&path, &made.made)?,
        _ => {}
    }
    let (kind, group) = (&*task.kind_name, &*task.group_name);
    let (copied, made) = (made.copied, made.made.len() as u64);
    options.tell(&ExportEvent::Shaped { kind, group, shape, bytes, copied, made });
    Ok(Facts { entries: 0, bytes, sha256 })
}

/// Compares a shape with the archive that it was made from.
pub(crate) fn compare(shape: Shape, path: &Path, archive: &Path, options: &ExportOptions) -> Result<(), Error> {
    let mut items = ArchiveReader::new(Named::open(archive)?, &shown(archive));
    compare_shape(shape, path, &mut items, || options.go_on()).map_err(inner)
}

/// Notes a shape of a group that was made, or is to go, for the commit.
pub(crate) fn note(
    roster: &Roster,
    archive: &str,
    group: u32,
    shape: Shape,
    facts: Option<&Facts>,
) -> Result<(), Error> {
    let (name, map) = shape_files(archive, shape);
    roster.set_shape(group, shape, facts)?;
    roster.add_pending(&name, facts.is_some())?;
    roster.add_pending(&map, facts.is_some())
}
