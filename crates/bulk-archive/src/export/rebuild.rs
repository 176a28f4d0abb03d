use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use super::{
    files::{self, ALL, ARCHIVE, Folder, Hashed, INDEX, Named, digest, inner, shown},
    group::{newest, pair},
    options::ExportOptions,
    publication,
    roster::Facts,
    set::{ExportSet, Published, each_file, lock},
};
use crate::{
    Error,
    archive::{ArchiveIndex, ArchiveOptions, ArchiveReader, ArchiveSummary, ArchiveWriter, rebuild_index, unescaped},
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
}

/// Makes all that stands beside the archives of a set anew, from them: their indexes, the roster, the manifest. What had
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
    each_file(&set.folder.root, |kind, file| {
        if let Some(group) = file.strip_suffix(ARCHIVE)
            && let (Some(kind_name), Some(group)) = (unescaped(kind.as_bytes()), unescaped(group.as_bytes()))
        {
            archives.insert((format!("{kind}/{file}"), kind_name, group));
        } else if file.ends_with(&format!("{ARCHIVE}{INDEX}")) {
            indexes.insert(format!("{kind}/{file}"));
        } else if file == ALL {
            bundled = true;
        }
    })?;
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
        indexes.remove(&format!("{file}{INDEX}"));
        rebuilt.archives += 1;
        rebuilt.entries += made.entries;
    }
    for index in &indexes {
        set.roster.add_pending(index, false)?;
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
