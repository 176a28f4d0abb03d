use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    event::ExportEvent,
    files::{
        ALL, ARCHIVE, Folder, INDEX, MANIFEST, Named, cannot_read, digest, inner, shape_files, shown, whole_files,
    },
    group::pair,
    manifest::{SetArchive, SetManifest, SetShape, hexadecimal},
    options::ExportOptions,
    set::{each_file, whole_shapes},
    set_files::types_in,
    shapes,
    whose::{self, There},
};
use crate::counted::counted;
use crate::{
    Error,
    archive::{IndexedArchive, Shape, unescaped, verify},
};

/// What a set was found to be.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct SetReport {
    /// Archives of the manifest.
    pub archives: u64,
    /// Items that they have, by the manifest.
    pub entries: u64,
    /// Bytes that they have, by the manifest.
    pub bytes: u64,
    /// What is wrong, in the order of names.
    pub faults: Vec<SetFault>,
}

/// A file of a set that is not what it should be.
#[derive(Debug)]
#[non_exhaustive]
pub struct SetFault {
    /// Its path below the folder.
    pub name: String,
    /// What is wrong.
    pub error: Error,
}

/// Checks all files of a set: each archive against the manifest (bytes, SHA-256, items) and against its index, as
/// [`verify`](crate::verify()) does, each [`Shape`](crate::Shape) against the manifest and, item by item, its archive or those of its type,
/// and that there are no others of the set. Of the options `jobs`, `observer` and `stop` count.
///
/// It reads, writes nothing and takes no lock.
///
/// # Errors
/// [`Error::Set`] where there is no manifest, or another one in the end: the set is being published, or was while it was
/// read; or none ever was. [`Error::Stopped`]; [`Error::Io`] for the folder. All that is wrong with files is in the report: a shape
/// of an archive that is not what it should be is compared with the manifest alone.
pub fn verify_set(folder: impl AsRef<Path>, options: &ExportOptions) -> Result<SetReport, Error> {
    let folder = folder.as_ref();
    let path = folder.join(MANIFEST);
    fs::metadata(folder).map_err(cannot_read(folder))?;
    let set = Folder { root: folder.to_owned() };
    let missing = || {
        let reason = match set.roster().exists() {
            true => "there is none: the set is being published, or that was cut short, which the next export mends",
            false => "there is none, and nothing that an export knows: no set was published here",
        };
        Error::Set { file: shown(&path), reason: reason.to_owned() }
    };
    let manifest = SetManifest::read(folder)?.ok_or_else(missing)?;
    let (next, faults) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let add = |name: &str, error| {
        let fault = SetFault { name: name.to_owned(), error };
        faults.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    };
    // Differences between shapes and archives, by shape.
    let differences = Mutex::new(Vec::new());
    let work = || {
        while options.go_on().is_ok() {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let (name, checked) = if let Some(archive) = manifest.archives.get(at) {
                (&archive.name, check(folder, archive, options))
            } else if let Some(shape) = manifest.shapes.get(at - manifest.archives.len()) {
                let checked = check_file(folder, &shape.name, shape.bytes, &shape.sha256, options);
                if checked.is_ok()
                    && let Err(error) = compare_shape(folder, shape, &manifest, options)
                {
                    differences.lock().unwrap_or_else(PoisonError::into_inner).push((&shape.name, error));
                }
                (&shape.name, checked)
            } else if let Some(bundle) = manifest.bundles.get(at - manifest.archives.len() - manifest.shapes.len()) {
                (&bundle.name, check_file(folder, &bundle.name, bundle.bytes, &bundle.sha256, options))
            } else {
                break;
            };
            if let Err(error) = checked {
                add(name, error);
            }
            options.tell(&ExportEvent::Checked { name });
        }
    };
    thread::scope(|scope| {
        for _ in 1..options.jobs {
            // Fewer threads do the same work.
            let _ = thread::Builder::new().name("export-verify".to_owned()).spawn_scoped(scope, work);
        }
        work();
    });
    options.go_on()?;
    // What is wrong with an archive is said of it, and not of what was made of it, too.
    let faulty: BTreeSet<String> =
        faults.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|fault| fault.name.clone()).collect();
    let is_of = |archive: &String, of: &str| {
        archive.strip_suffix(ARCHIVE) == Some(of) || archive.split_once('/').is_some_and(|(kind, _)| kind == of)
    };
    for (name, error) in differences.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let of = Shape::of_file(name).map_or("", |(of, _)| of);
        if !faulty.iter().any(|archive| archive.ends_with(ARCHIVE) && is_of(archive, of)) {
            add(name, error);
        }
    }
    let mut known = BTreeSet::new();
    for archive in &manifest.archives {
        known.extend([archive.name.clone(), format!("{}{INDEX}", archive.name)]);
    }
    known.extend(manifest.shapes.iter().map(|shape| shape.name.clone()));
    known.extend(manifest.bundles.iter().map(|bundle| bundle.name.clone()));
    let unknown = |name: &str| {
        let reason = "the manifest does not speak of it".to_owned();
        add(name, Error::Set { file: shown(&folder.join(name)), reason });
    };
    let (types, mut shapes) = (types_in(folder)?, Vec::new());
    each_file(folder, |kind, file| {
        let name = format!("{kind}/{file}");
        let is_archive = file.ends_with(ARCHIVE) || file.ends_with(&format!("{ARCHIVE}{INDEX}"));
        if known.contains(&name) {
            return;
        }
        if is_archive || file == ALL && types.contains(kind) {
            unknown(&name);
        } else if let Some((group, shape)) = Shape::of_file(file) {
            shapes.push((shape_files(&format!("{kind}/{group}{ARCHIVE}"), shape), shape));
        }
    })?;
    shapes.extend(whole_shapes(folder)?.into_iter().map(|(kind, shape)| (whole_files(&kind, shape), shape)));
    // Others may have files with such endings.
    for (names, shape) in shapes.iter().filter(|(names, _)| !known.contains(&names.0)) {
        match whose::there(&set, names, *shape, &[], options) {
            Ok(There::Ours) => unknown(&names.0),
            Ok(_) => {}
            Err(Error::Stopped) => return Err(Error::Stopped),
            Err(error) => add(&names.0, error),
        }
    }
    if SetManifest::read(folder)?.as_ref() != Some(&manifest) {
        let reason = "another set was published while this one was read".to_owned();
        return Err(Error::Set { file: shown(&path), reason });
    }
    let mut faults = faults.into_inner().unwrap_or_else(PoisonError::into_inner);
    faults.sort_by(|a, b| a.name.cmp(&b.name));
    let archives = manifest.archives.len() as u64;
    Ok(SetReport { archives, entries: manifest.entries, bytes: manifest.bytes, faults })
}

fn check(folder: &Path, expected: &SetArchive, options: &ExportOptions) -> Result<(), Error> {
    check_file(folder, &expected.name, expected.bytes, &expected.sha256, options)?;
    let (archive, index) = pair(folder, &expected.name);
    let file = shown(&archive);
    let opened = IndexedArchive::open(Named::open(&archive)?, Named::open(&index)?, &file).map_err(inner)?;
    if verify(opened).map_err(inner)?.entries == expected.entries {
        return Ok(());
    }
    let reason = format!("it does not have the {} of the manifest", counted(expected.entries, "item", "items"));
    Err(Error::Set { file, reason })
}

/// Compares a shape with what it was made of.
fn compare_shape(
    folder: &Path,
    expected: &SetShape,
    manifest: &SetManifest,
    options: &ExportOptions,
) -> Result<(), Error> {
    let path = folder.join(&expected.name);
    let Some((of, shape)) = Shape::of_file(&expected.name) else {
        return Err(Error::Set { file: shown(&path), reason: "its name is that of no shape".to_owned() });
    };
    if of.contains('/') {
        return shapes::compare(shape, &path, &folder.join(format!("{of}{ARCHIVE}")), options);
    }
    let mut groups = Vec::new();
    for SetArchive { name, .. } in &manifest.archives {
        if let Some((kind, file)) = name.split_once('/')
            && kind == of
            && let Some(group) = file.strip_suffix(ARCHIVE).and_then(|group| unescaped(group.as_bytes()))
        {
            groups.push((folder.join(name), group));
        }
    }
    shapes::compare_whole(shape, &path, groups.iter().map(|(path, group)| (path.clone(), group.as_str())), options)
}

fn check_file(folder: &Path, name: &str, bytes: u64, sha256: &str, options: &ExportOptions) -> Result<(), Error> {
    let path = folder.join(name);
    let set = |reason: &str| Err(Error::Set { file: shown(&path), reason: reason.to_owned() });
    if fs::metadata(&path).map_err(cannot_read(&path))?.len() != bytes {
        return set("it has not the length that the manifest says");
    }
    if hexadecimal(&digest(&path, options)?.1) != sha256 {
        return set("it has not the SHA-256 that the manifest says");
    }
    Ok(())
}
