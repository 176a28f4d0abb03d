use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use super::{
    files::{self, ALL, ARCHIVE, Folder, Hashed, INDEX, Named, digest, inner, shape_files, shown, whole_files},
    group::{Task, newest, pair},
    manifest::{SetManifest, of_hexadecimal},
    options::ExportOptions,
    publication,
    roster::Facts,
    set::{ExportSet, Published, each_file, lock, whole_shapes},
    shapes::{self, KindColumns, WantedShape, WholePlan},
    whose::{self, There},
};
use crate::{
    Error,
    archive::{
        ArchiveIndex, ArchiveOptions, ArchiveReader, ArchiveSummary, ArchiveWriter, Shape, columns_of, open_rows,
        rebuild_index, unescaped,
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
/// A file in another format is made anew where the set has it, as its manifest or the roster says, or where it is known by its
/// map; another one that is called so is somebody else's, and left alone.
///
/// # Errors
/// [`Error::Locked`]; [`Error::Set`] where an item stands in two archives, as after files of two sets were mixed: remove
/// one of them; where something else is in the place of an archive, or of a file in another format: move it elsewhere;
/// [`Error::Damaged`] for an archive of the set that cannot be read, which has to be removed, or to be made anew before, of all its
/// items ([`Stage::mend`](crate::Stage::mend)); [`Error::Stopped`], [`Error::Roster`], [`Error::Io`], [`Error::Output`]. All is as
/// it was then, unless the error comes behind the commit.
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
    let (mut archives, mut indexes, mut bundled) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut shapes: BTreeSet<(String, Shape)> = BTreeSet::new();
    let known = Known::of(set)?;
    let known_archives = known_archives(set)?;
    each_file(&set.folder.root, |kind, file| {
        if let Some(group) = file.strip_suffix(ARCHIVE)
            && let (Some(kind_name), Some(group)) = (unescaped(kind.as_bytes()), unescaped(group.as_bytes()))
        {
            archives.insert((format!("{kind}/{file}"), kind_name, group));
        } else if let Some(archive) = file.strip_suffix(INDEX).filter(|archive| archive.ends_with(ARCHIVE)) {
            indexes.insert(format!("{kind}/{archive}"));
        } else if file == ALL {
            bundled.insert(kind.to_owned());
        } else if let Some((group, shape)) = Shape::of_file(file) {
            shapes.insert((format!("{kind}/{group}{ARCHIVE}"), shape));
        }
    })?;
    // What stands beside an archive under a name in another case is found under the archive's, and is not to go; nor is what
    // stands so beside a type.
    let folds_case = set.roster.folds_case;
    let in_case = |name: &str| if folds_case { name.to_ascii_lowercase() } else { name.to_owned() };
    let files: BTreeMap<String, &str> = archives.iter().map(|(file, ..)| (in_case(file), file.as_str())).collect();
    let folders = files.values().filter_map(|file| Some(file.split_once('/')?.0));
    let folders: BTreeMap<String, &str> = folders.map(|kind| (in_case(kind), kind)).collect();
    let file = |archive: &str| files.get(&in_case(archive)).copied();
    let folder = |kind: &str| folders.get(&in_case(kind)).copied();
    let beside = |archive: String| file(&archive).map_or(archive, str::to_owned);
    let mut indexes: BTreeSet<String> = indexes.into_iter().map(beside).collect();
    let mut shapes = known.sort(set, shapes, true, file)?;
    let whole_there = known.sort(set, whole_shapes(&set.folder.root)?, false, folder)?;
    set.options.all_tar |= bundled.iter().any(|kind| folder(kind).is_some());
    set.roster.clear()?;
    let mut rebuilt = Rebuilt::default();
    for (_, kind, _) in &archives {
        set.roster.kind_there(kind)?;
    }
    take_columns(set, &shapes, &whole_there)?;
    let columns = KindColumns::all(&set.roster, &set.options)?;
    for (kind, columns) in columns.iter().filter(|(_, columns)| columns.are_new) {
        set.roster.set_columns(*kind, &columns.columns)?;
    }
    let mut kinds = BTreeSet::new();
    for (file, kind, group) in &archives {
        set.options.go_on()?;
        let kind = set.roster.kind_there(kind)?;
        let group = set.roster.group(kind, group)?;
        kinds.insert(kind);
        let made = one(set, file, &mut rebuilt)
            .map_err(inner)
            .map_err(|error| unusable(set, file, known_archives.get(file).map_or(&[], Vec::as_slice), error))?;
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
                rebuilt.shapes += u64::from(one_shape(set, file, group, shape, &columns[&kind])?);
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
    rebuilt.shapes += whole(set, &kinds, &columns, whole_there)?;
    set.commit(&mut Published::default(), Some(files::now()))?;
    Ok(rebuilt)
}

/// The archives that the set has had, and what they were, as the manifest and the roster have them.
fn known_archives(set: &ExportSet) -> Result<BTreeMap<String, Vec<Facts>>, Error> {
    let (roster, mut known) = (&set.roster, BTreeMap::<String, Vec<Facts>>::new());
    for (group, facts) in roster.archives()? {
        let Some(group) = roster.names.groups.get(&group) else { continue };
        known.entry(group.file.clone()).or_default().push(facts);
    }
    for archive in SetManifest::read(&set.folder.root).ok().flatten().into_iter().flat_map(|it| it.archives) {
        if let Some(sha256) = of_hexadecimal(&archive.sha256) {
            let facts = Facts { entries: archive.entries, bytes: archive.bytes, sha256 };
            known.entry(archive.name).or_default().push(facts);
        }
    }
    Ok(known)
}

/// What it means that an archive cannot be read, for whoever is to see to it.
fn unusable(set: &ExportSet, file: &str, known: &[Facts], error: Error) -> Error {
    if !whose::is_of_bytes(&error) {
        return error;
    }
    if known.is_empty() {
        let reason = format!("no archive of items: {}; move it elsewhere", reason_of(&error));
        return Error::Set { file: shown(&set.folder.root.join(file)), reason };
    }
    whose::explained(&set.folder, file, known, error, &set.options)
}

/// What an error says of a file, without its name.
fn reason_of(error: &Error) -> String {
    let text = error.to_string();
    let rest = text.strip_prefix(error.file()).and_then(|rest| rest.strip_prefix(": "));
    rest.map_or(text.clone(), str::to_owned)
}

/// The shapes that the set has had, by the names of their files, and what they were.
struct Known(BTreeMap<String, Vec<Facts>>);

impl Known {
    /// As the manifest and the roster have them, where they are there: one that was cut short has no manifest.
    fn of(set: &ExportSet) -> Result<Known, Error> {
        let (roster, mut known) = (&set.roster, BTreeMap::<String, Vec<Facts>>::new());
        let mut add = |name: String, facts| known.entry(name).or_default().push(facts);
        for (group, shapes) in roster.shapes()? {
            let Some(group) = roster.names.groups.get(&group) else { continue };
            shapes.into_iter().for_each(|(shape, facts)| add(shape_files(&group.file, shape).0, facts));
        }
        for (kind, shapes) in roster.whole_shapes()? {
            let Some(kind) = roster.names.kinds.get(&kind) else { continue };
            shapes.into_iter().for_each(|(shape, facts)| add(whole_files(&kind.folder, shape).0, facts));
        }
        for (name, bytes, sha256) in SetManifest::read(&set.folder.root).ok().flatten().iter().flat_map(|it| it.named())
        {
            if let (Some(_), Some(sha256)) = (Shape::of_file(name), sha256) {
                add(name.to_owned(), Facts { entries: 0, bytes, sha256 });
            }
        }
        Ok(Known(known))
    }

    /// The shapes of groups, or of types, that are to be made anew, or are ours and to go, as what they are of is not there. A name
    /// alone does not make a file ours: what somebody else has put there stays, and the map that was left over goes. `find`
    /// gives the name of what a shape is of, if that is there.
    ///
    /// # Errors
    /// [`Error::Set`] where something else is in the place of one that is to be made.
    fn sort<'a>(
        &self,
        set: &ExportSet,
        found: BTreeSet<(String, Shape)>,
        of_groups: bool,
        find: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<BTreeSet<(String, Shape)>, Error> {
        let had = self.0.iter().filter(|(name, _)| name.contains('/') == of_groups).filter_map(|(name, facts)| {
            let (of, shape) = Shape::of_file(name)?;
            let of = if of_groups { format!("{of}{ARCHIVE}") } else { of.to_owned() };
            Some(((of, shape), facts.as_slice()))
        });
        let mut all: BTreeMap<(String, Shape), (bool, Vec<Facts>)> = BTreeMap::new();
        for ((of, shape), facts) in found.into_iter().map(|found| (found, &[][..])).chain(had) {
            let there = find(&of);
            let (is_there, known) = all.entry((there.map_or(of, str::to_owned), shape)).or_default();
            *is_there = there.is_some();
            known.extend(facts);
        }
        let (mut ours, folder) = (BTreeSet::new(), &set.folder);
        for ((of, shape), (is_there, known)) in all {
            set.options.go_on()?;
            let names = if of_groups { shape_files(&of, shape) } else { whole_files(&of, shape) };
            let there = whose::there(folder, &names, shape, &known, &set.options)?;
            let is_wanted = is_there && !known.is_empty();
            if is_wanted {
                whose::check(&folder.root.join(&names.0), there, true)?;
            }
            if is_wanted || there == There::Ours {
                ours.insert((of, shape));
            } else if folder.root.join(&names.1).is_file() {
                set.roster.add_pending(&names.1, false)?;
            }
        }
        Ok(ours)
    }
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
    let is_known = known.is_ok();
    let how = known.unwrap_or_else(|_| set.options.archive.clone());
    let how = ArchiveOptions { threads: set.options.archive.threads, ..how };
    let index_of = |how: &ArchiveOptions| {
        let output = Hashed::create(&next_index, &set.options)?;
        rebuild_index(Named::open(&archive)?, output, &name, how).map_err(inner)
    };
    let outcome = match index_of(&how) {
        // Whoever does not ask for the layout may have an archive that has it.
        Err(Error::NotCanonical { file, offset }) if !is_known && !how.reflink => {
            let other = index_of(&ArchiveOptions { reflink: true, ..how.clone() });
            other.map_err(|error| match error {
                Error::NotCanonical { .. } => Error::NotCanonical { file, offset },
                error => error,
            })
        }
        outcome => outcome,
    };
    match outcome {
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
fn one_shape(set: &ExportSet, file: &str, group: u32, shape: Shape, columns: &KindColumns) -> Result<bool, Error> {
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
        is_anew: false,
        staged: 0,
        threads: set.options.archive.threads,
        shapes: vec![WantedShape { shape, old: None, is_due: true }],
        unwanted: Vec::new(),
        columns: columns.clone(),
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

/// Where the roster does not know what columns the Parquet of a type has, a file of it does.
fn take_columns(
    set: &ExportSet,
    shapes: &BTreeSet<(String, Shape)>,
    whole: &BTreeSet<(String, Shape)>,
) -> Result<(), Error> {
    for (number, kind) in &set.roster.names.kinds {
        if set.roster.columns(*number)?.is_some() {
            continue;
        }
        let own = shapes.iter().filter(|(archive, _)| archive.split('/').next() == Some(&kind.folder));
        let own = own.map(|(archive, shape)| (shape_files(archive, *shape).0, *shape));
        let whole = whole.iter().filter(|(folder, _)| *folder == kind.folder);
        let files = whole.map(|(folder, shape)| (whole_files(folder, *shape).0, *shape)).chain(own);
        let known = files
            .filter(|(_, shape)| *shape == Shape::Parquet)
            .find_map(|(file, _)| columns_of(&open_rows(&set.folder.root.join(file)).ok()?));
        if let Some(columns) = known {
            set.roster.set_columns(*number, &columns)?;
        }
    }
    Ok(())
}

/// The shapes of types made anew that were there or are to be, and those removed whose types are gone. How many are others than
/// were there.
fn whole(
    set: &ExportSet,
    kinds: &BTreeSet<u32>,
    columns: &BTreeMap<u32, KindColumns>,
    mut there: BTreeSet<(String, Shape)>,
) -> Result<u64, Error> {
    let (folder, roster, options) = (&set.folder, &set.roster, &set.options);
    let WholePlan { tasks, .. } = shapes::plan_whole(roster, folder, kinds, options, columns, |_, kind| {
        Shape::ALL.into_iter().filter(|shape| there.contains(&(kind.folder.clone(), *shape))).collect()
    })?;
    let (mut new, mut kept) = (0, BTreeSet::new());
    for mut task in tasks {
        task.threads = options.archive.threads;
        kept.insert((task.folder.clone(), task.shape));
        let facts = shapes::make_whole(&task, folder, options)?;
        roster.set_whole_shape(task.kind, task.shape, Some(&facts))?;
        let (name, map) = whole_files(&task.folder, task.shape);
        let next = folder.next().join(&name);
        if same(&folder.root.join(&name), &next)? {
            files::remove_file(&next)?;
        } else {
            roster.add_pending(&name, true)?;
            new += 1;
        }
        roster.add_pending(&map, true)?;
    }
    there.retain(|shape| !kept.contains(shape));
    for (kind, shape) in &there {
        let (name, map) = whole_files(kind, *shape);
        roster.add_pending(&name, false)?;
        roster.add_pending(&map, false)?;
    }
    Ok(new)
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
