use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use super::{
    files::{self, ALL, ARCHIVE, Folder, Hashed, INDEX, Named, digest, inner, shape_files, shown},
    group::{Task, newest, pair},
    manifest::SetManifest,
    options::ExportOptions,
    publication,
    roster::Facts,
    set::{ExportSet, Published, each_file, lock},
    shapes,
};
use crate::{
    Error,
    archive::{
        ArchiveIndex, ArchiveOptions, ArchiveReader, ArchiveSummary, ArchiveWriter, Shape, rebuild_index, unescaped,
    },
};

/// What [`rebuild_indexes`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rebuilt {
    /// Archives of the set.
    pub archives: u64,
    /// Items that they have.
    pub entries: u64,
    /// Indexes that were missing or not those of their archives, and are new.
    pub indexes: u64,
    /// Archives that were not as they would be made here, and were made anew of their items.
    pub remade: u64,
    /// Files of items in other formats that were not those of their archives, and are new.
    pub shapes: u64,
}

/// Makes all that stands beside the archives of a set anew, from them: their indexes and shapes, the roster, the manifest. What had
/// been staged is discarded.
///
/// Each archive is made again in memory, so it takes as long as a full export. It is taken to have been made with the
/// options that its index has, or else those given; one that was not, or by another version of the compressor, is made anew
/// of its items. Watermarks are lost, since the archives may be older than these: the next export has to be a full one, and
/// rewrites only what differs.
///
/// # Errors
/// [`Error::Locked`]; [`Error::Set`] where an item stands in two archives, as after files of two sets were mixed: remove
/// one of them; [`Error::Corrupt`], [`Error::Truncated`], [`Error::Tar`], [`Error::TarTruncated`] for an archive that cannot
/// be read, which has to be removed; [`Error::Stopped`], [`Error::Roster`], [`Error::Io`], [`Error::Output`]. All is as it
/// was then, unless the error comes behind the commit.
pub fn rebuild_indexes(folder: impl Into<PathBuf>, options: &ExportOptions) -> Result<Rebuilt, Error> {
    let folder = Folder { root: folder.into() };
    let locked = lock(&folder)?;
    let again = locked.try_clone().map_err(files::cannot_read(&folder.lock()))?;
    let mut set = match ExportSet::locked(folder.clone(), options.clone(), locked) {
        Err(Error::Roster { source, .. }) if is_damage(source.as_ref()) => {
            files::remove_file(&folder.roster())?;
            files::remove_file(&folder.state().join("export.sqlite-journal"))?;
            ExportSet::locked(folder.clone(), options.clone(), again)?
        }
        set => set?,
    };
    set.roster.begin()?;
    let rebuilt = rebuild(&mut set);
    if rebuilt.is_err() {
        // What remains the next run removes, or uses where the error comes behind the commit.
        let _ = set.roster.roll_back();
    }
    rebuilt
}

fn is_damage(error: &(dyn std::error::Error + 'static)) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let code = error.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
    matches!(code, Some(NotADatabase | DatabaseCorrupt))
}

fn rebuild(set: &mut ExportSet) -> Result<Rebuilt, Error> {
    let (mut archives, mut indexes, mut bundled) = (BTreeSet::new(), BTreeSet::new(), false);
    let mut shapes: BTreeSet<(String, Shape)> = BTreeSet::new();
    // A set that was cut short has none, and maps.
    let manifest = SetManifest::read(&set.folder.root).ok().flatten();
    let named: BTreeSet<String> =
        manifest.into_iter().flat_map(|manifest| manifest.shapes).map(|shape| shape.name).collect();
    each_file(&set.folder.root, |kind, file| {
        if let Some(group) = file.strip_suffix(ARCHIVE)
            && let (Some(kind_name), Some(group)) = (unescaped(kind.as_bytes()), unescaped(group.as_bytes()))
        {
            archives.insert((format!("{kind}/{file}"), kind_name, group));
        } else if let Some(archive) = file.strip_suffix(INDEX).filter(|archive| archive.ends_with(ARCHIVE)) {
            indexes.insert(format!("{kind}/{archive}"));
        } else if file == ALL {
            bundled = true;
        } else if let Some((group, shape)) = Shape::of_file(file) {
            shapes.insert((format!("{kind}/{group}{ARCHIVE}"), shape));
        }
    })?;
    let folded = archives.iter().map(|(file, ..)| (file.to_ascii_lowercase(), file.as_str()));
    let folded: BTreeMap<String, &str> = folded.collect();
    // What stands beside an archive under a name in another case is found under the archive's, and is not to go.
    let beside = |archive: String| match folded.get(&archive.to_ascii_lowercase()) {
        Some(file) if set.roster.folds_case => (*file).to_owned(),
        _ => archive,
    };
    let mut indexes: BTreeSet<String> = indexes.into_iter().map(beside).collect();
    let mut shapes: BTreeSet<(String, Shape)> =
        shapes.into_iter().map(|(archive, shape)| (beside(archive), shape)).collect();
    // Others may have files with such endings here.
    shapes.retain(|(archive, shape)| {
        let (name, map) = shape_files(archive, *shape);
        named.contains(&name) || set.folder.root.join(map).exists()
    });
    set.options.all_tar |= bundled;
    set.roster.clear()?;
    let mut rebuilt = Rebuilt::default();
    let mut kinds = BTreeSet::new();
    for (file, kind, group) in &archives {
        set.options.go_on()?;
        let kind = set.roster.kind(kind)?;
        let group = set.roster.group(kind, group)?;
        kinds.insert(kind);
        let made = one(set, file, &mut rebuilt).map_err(inner)?;
        let (archive, index) = (newest(&set.folder, file), newest(&set.folder, &format!("{file}{INDEX}")));
        let facts = Facts { entries: made.entries, bytes: made.len, sha256: digest(&archive, &set.options)?.1 };
        set.roster.set_archive(group, Some(&facts))?;
        let mut blocks = ArchiveIndex::open(Named::open(&index)?, &shown(&archive)).map_err(inner)?;
        while let Some(block) = blocks.next_block().map_err(inner)? {
            set.options.go_on()?;
            for entry in block.entries()? {
                if let Some(other) = set.roster.find(kind, &entry.id)? {
                    let reason = format!(
                        "the item {:?} is in {:?}, too: remove one of the two archives, and export all",
                        entry.id, set.roster.names.groups[&other].file
                    );
                    return Err(Error::Set { file: shown(&set.folder.root.join(file)), reason });
                }
                set.roster.set(kind, &entry.id, group)?;
            }
        }
        indexes.remove(file);
        for shape in Shape::ALL {
            if shapes.remove(&(file.clone(), shape)) {
                rebuilt.shapes += u64::from(one_shape(set, file, group, shape)?);
            }
        }
        rebuilt.archives += 1;
        rebuilt.entries += made.entries;
    }
    for archive in &indexes {
        set.roster.add_pending(&format!("{archive}{INDEX}"), false)?;
    }
    for (archive, shape) in &shapes {
        let (name, map) = shape_files(archive, *shape);
        set.roster.add_pending(&name, false)?;
        set.roster.add_pending(&map, false)?;
    }
    set.make_bundles(&kinds)?;
    set.commit(&mut Published::default(), Some(files::now()))?;
    Ok(rebuilt)
}

/// The index of an archive, and if need be the archive, made anew in `next/` where they are not as they should be.
fn one(set: &ExportSet, file: &str, rebuilt: &mut Rebuilt) -> Result<ArchiveSummary, Error> {
    let (archive, index) = pair(&set.folder.root, file);
    let (next_archive, next_index) = pair(&set.folder.next(), file);
    if let Some(parent) = next_index.parent() {
        files::make_folder(parent)?;
    }
    let name = shown(&archive);
    let known = Named::open(&index).and_then(|index| ArchiveIndex::open(index, &name)).map(|index| index.options());
    let how = known.unwrap_or_else(|_| set.options.archive.clone());
    let how = ArchiveOptions { threads: set.options.archive.threads, ..how };
    let output = Hashed::create(&next_index, &set.options)?;
    match rebuild_index(Named::open(&archive)?, output, &name, &how).map_err(inner) {
        Ok((output, summary)) => {
            files::finish(output)?;
            if same(&index, &next_index)? {
                files::remove_file(&next_index)?;
            } else {
                set.roster.add_pending(&format!("{file}{INDEX}"), true)?;
                rebuilt.indexes += 1;
            }
            Ok(summary)
        }
        Err(Error::NotCanonical { .. }) => {
            let mut reader = ArchiveReader::new(Named::open(&archive)?, &name);
            let outputs = (Hashed::create(&next_archive, &set.options)?, Hashed::create(&next_index, &set.options)?);
            let mut writer = ArchiveWriter::new(outputs.0, outputs.1, &shown(&next_archive), &how)?;
            while let Some(item) = reader.next_item()? {
                writer.append(item.id, item.mtime, item.content)?;
            }
            let (output, next_index, summary) = writer.finish()?;
            files::finish(output)?;
            files::finish(next_index)?;
            set.roster.add_pending(file, true)?;
            set.roster.add_pending(&format!("{file}{INDEX}"), true)?;
            rebuilt.remade += 1;
            Ok(summary)
        }
        Err(error) => Err(error),
    }
}

/// A shape made anew in `next/`, with its map. Whether it is another one than is there.
fn one_shape(set: &ExportSet, file: &str, group: u32, shape: Shape) -> Result<bool, Error> {
    let names = &set.roster.names;
    let (kind_name, group_name) = match names.groups.get(&group) {
        Some(group) => {
            (names.kinds.get(&group.kind).map_or(String::new(), |kind| kind.name.clone()), group.name.clone())
        }
        None => Default::default(),
    };
    let task = Task {
        group,
        kind_name,
        group_name,
        file: file.to_owned(),
        old: None,
        staged: 0,
        threads: set.options.archive.threads,
        shapes: vec![(shape, None)],
        unwanted: Vec::new(),
    };
    let (name, map) = shape_files(file, shape);
    let mut is_new = false;
    for (shape, facts) in shapes::make_all(&task, true, &set.folder, &set.options)? {
        set.roster.set_shape(group, shape, Some(&facts))?;
        let next = set.folder.next().join(&name);
        if same(&set.folder.root.join(&name), &next)? {
            files::remove_file(&next)?;
        } else {
            set.roster.add_pending(&name, true)?;
            is_new = true;
        }
        set.roster.add_pending(&map, true)?;
    }
    Ok(is_new)
}

/// Whether two files have the same bytes; not, if the first is not there.
fn same(a: &Path, b: &Path) -> Result<bool, Error> {
    if !publication::exists(a)? {
        return Ok(false);
    }
    let len = |path: &Path| fs::metadata(path).map(|facts| facts.len()).map_err(files::cannot_read(path));
    if len(a)? != len(b)? {
        return Ok(false);
    }
    let (mut left, mut right) = (Named::open(a)?, Named::open(b)?);
    let (mut buffers, failed) = ((vec![0; 64 * 1024], vec![0; 64 * 1024]), files::cannot_read(a));
    let mut compare = || -> std::io::Result<bool> {
        loop {
            let read = left.read(&mut buffers.0)?;
            if read == 0 {
                return Ok(true);
            }
            right.read_exact(&mut buffers.1[..read])?;
            if buffers.0[..read] != buffers.1[..read] {
                return Ok(false);
            }
        }
    };
    compare().map_err(|error| inner(failed(error)))
}
