//! A file in the making: the part file, and the sidecar that says what it is a part of.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::source::is_inside;
use crate::{Body, ETag, Error, Request};

/// The subfolder of parts and sidecars.
const STATE_FOLDER: &str = ".bulk";

/// What a sidecar holds: the version that the bytes belong to, and how many of them are safe on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Version {
    pub(crate) key: String,
    pub(crate) etag: Option<ETag>,
    pub(crate) size: Option<u64>,
    pub(crate) last_modified: Option<Timestamp>,
    /// Bytes of the part that were synced; the rest may be lost in a power cut.
    pub(crate) synced: u64,
}

impl Version {
    pub(crate) fn of(key: &str, body: &Body) -> Self {
        Self {
            key: key.to_owned(),
            etag: body.etag.clone(),
            size: body.size,
            last_modified: body.last_modified,
            synced: 0,
        }
    }

    /// Whether a later version of the same key could be told from this one.
    pub(crate) fn is_checkable(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }

    /// Why these are not the bytes that `request` wants, if it is sure.
    fn mismatch(&self, request: &Request) -> Option<&'static str> {
        if self.key != request.key {
            return Some("it was another object");
        }
        if !self.is_checkable() {
            return Some("the server names no version");
        }
        if self.etag.is_some() && request.etag.is_some() && self.etag != request.etag {
            return Some("its ETag changed");
        }
        if self.size.is_some() && request.size.is_some() && self.size != request.size {
            return Some("its size changed");
        }
        // Listings and headers give times of different precision.
        let seconds = |time: Option<Timestamp>| time.map(Timestamp::as_second);
        if self.etag.is_none()
            && request.last_modified.is_some()
            && seconds(self.last_modified) != seconds(request.last_modified)
        {
            return Some("it was modified");
        }
        None
    }

    /// Why `body` does not continue these bytes, if it does not.
    pub(crate) fn mismatch_body(&self, body: &Body) -> Option<String> {
        if self.etag != body.etag {
            return Some("its ETag changed".to_owned());
        }
        // A server may tell the size in one answer and not in the next.
        if self.size.is_some() && body.size.is_some() && self.size != body.size {
            return Some("its size changed".to_owned());
        }
        if self.etag.is_none() && self.last_modified != body.last_modified {
            return Some("it was modified".to_owned());
        }
        None
    }
}

/// What is there of a file before its first attempt.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// Whole, under its final name.
    Whole(Version),
    /// A part, perhaps empty. `discarded` says what was thrown away and why.
    Part { part: Part, discarded: Option<(&'static str, u64)> },
}

#[derive(Debug)]
pub(crate) struct Part {
    folder: PathBuf,
    name: String,
    part: PathBuf,
    sidecar: PathBuf,
    /// The version of the bytes in the part; `None` while there are none.
    pub(crate) version: Option<Version>,
    /// Bytes in the part.
    pub(crate) len: u64,
}

impl Part {
    /// The paths of `name`; nothing is read yet.
    fn named(folder: &Path, name: &str) -> Result<Self, Error> {
        let unusable = |reason| Error::Name { name: name.to_owned(), reason };
        if !is_inside(name) {
            return Err(unusable("it leaves the folder"));
        }
        if name.split('/').next() == Some(STATE_FOLDER) {
            return Err(unusable("that folder is for parts"));
        }
        let state = folder.join(STATE_FOLDER);
        Ok(Self {
            folder: folder.to_owned(),
            name: name.to_owned(),
            part: state.join(format!("{name}.part")),
            sidecar: state.join(format!("{name}.json")),
            version: None,
            len: 0,
        })
    }

    /// Finds or makes the part of `request` in `folder`.
    pub(crate) fn prepare(folder: &Path, request: &Request) -> Result<Prepared, Error> {
        let mut part = Self::named(folder, &request.name)?;
        let parent = part.sidecar.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(|error| Error::io("create", parent, error))?;

        let found = part.read_sidecar()?;
        let in_part = len(&part.part)?;
        let whole = len(&part.target())?;
        let Some(version) = found else {
            part.restart()?;
            let discarded = in_part.filter(|len| *len > 0).map(|len| ("nothing says what it is a part of", len));
            return Ok(Prepared::Part { part, discarded });
        };
        let reason = version.mismatch(request);
        // The file may still be an older version, if a new one's part was about to be made: only a sidecar that speaks
        // of all bytes speaks of the file.
        let is_complete = version.size == Some(version.synced);
        if reason.is_none() && is_complete && whole.is_some() && whole == version.size && in_part.is_none() {
            return Ok(Prepared::Whole(version));
        }
        let Some(kept) = in_part.map(|len| len.min(version.synced)).filter(|_| reason.is_none()) else {
            part.restart()?;
            let discarded = reason.zip(in_part.or(whole));
            return Ok(Prepared::Part { part, discarded });
        };
        part.len = kept;
        part.version = Some(version);
        Ok(Prepared::Part { part, discarded: None })
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.part
    }

    fn temporary(&self) -> PathBuf {
        self.sidecar.with_extension("json.new")
    }

    /// Throws the part away, so that the next attempt starts at byte 0.
    pub(crate) fn restart(&mut self) -> Result<(), Error> {
        self.version = None;
        self.len = 0;
        remove(&self.part)?;
        remove(&self.sidecar)
    }

    /// Opens the part for writing at its end; what stands after it is cut off. A part that became shorter since it was
    /// looked at is refused: growing it would fill the gap with zeros.
    pub(crate) fn open(&self) -> Result<File, Error> {
        let failed = |error| Error::io("write", &self.part, error);
        let mut options = File::options();
        let mut file = options.create(self.len == 0).write(true).truncate(false).open(&self.part).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() < self.len {
            return Err(failed(io::Error::new(io::ErrorKind::UnexpectedEof, "it was cut meanwhile")));
        }
        file.set_len(self.len).map_err(failed)?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(self.len)).map_err(failed)?;
        Ok(file)
    }

    /// Takes note that the part has this many bytes, all of them synced.
    pub(crate) fn advance(&mut self, synced: u64) -> Result<(), Error> {
        self.len = synced;
        if let Some(version) = &mut self.version {
            version.synced = synced;
        }
        self.write_sidecar()
    }

    /// Records the version that the part holds, if there is one, and how much of it is synced. Atomic: a temporary file
    /// is synced and renamed.
    pub(crate) fn write_sidecar(&self) -> Result<(), Error> {
        let Some(version) = &self.version else { return Ok(()) };
        let temporary = self.temporary();
        let failed = |error| Error::io("write", &temporary, error);
        let mut file = File::create(&temporary).map_err(failed)?;
        let text = serde_json::to_vec(version).map_err(|error| failed(error.into()))?;
        file.write_all(&text).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        fs::rename(&temporary, &self.sidecar).map_err(|error| Error::io("rename", &temporary, error))
    }

    /// Syncs the part and gives it its final name. The sidecar stays, as the record of what the file is.
    pub(crate) fn persist(&self) -> Result<PathBuf, Error> {
        let target = self.target();
        File::open(&self.part)
            .and_then(|file| file.sync_all())
            .map_err(|error| Error::io("sync", &self.part, error))?;
        let parent = target.parent().unwrap_or(&self.folder);
        fs::create_dir_all(parent).map_err(|error| Error::io("create", parent, error))?;
        fs::rename(&self.part, &target).map_err(|error| Error::io("rename", &self.part, error))?;
        File::open(parent).and_then(|folder| folder.sync_all()).map_err(|error| Error::io("sync", parent, error))?;
        Ok(target)
    }

    /// A sidecar that is torn or of an unknown form counts as absent.
    fn read_sidecar(&self) -> Result<Option<Version>, Error> {
        match fs::read(&self.sidecar) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &self.sidecar, error)),
        }
    }
}

/// Removes the file that [`download`](crate::download()) staged as `name` in `folder`, what there is of a part of it,
/// and the record of its version.
///
/// It is the end of a staged file, for whatever reason: its reader is done with it, so that disk space and record are
/// free; or its reader found it damaged, and the next download that asks for it shall fetch it from its first byte.
/// Removing the file alone serves the second purpose, too, but leaves the record behind. What is not there counts as
/// removed; empty subfolders stay. A few system calls, which block.
///
/// Not to be called while a download of that name is under way. If it is interrupted, what is left counts as damaged:
/// the record goes first.
///
/// # Errors
///
/// [`Error::Name`] for a name that [`Request::name`] must not have, [`Error::Io`] if a file cannot be removed.
pub fn remove_staged(folder: impl AsRef<Path>, name: &str) -> Result<(), Error> {
    let part = Part::named(folder.as_ref(), name)?;
    [&part.sidecar, &part.temporary(), &part.part, &part.target()].into_iter().try_for_each(|path| remove(path))
}

/// What is not there counts as removed.
fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        _ => Ok(()),
    }
}

fn len(path: &Path) -> Result<Option<u64>, Error> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(folder: &Path) -> Part {
        match Part::prepare(folder, &Request::new("a")).unwrap() {
            Prepared::Part { part, discarded: None } => part,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_older_file_of_the_same_size_is_not_the_version_whose_part_was_about_to_be_made() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "old").unwrap();
        let mut part = prepared(folder.path());
        let version = Version { key: "a".into(), etag: Some(ETag::new("new")), size: Some(3), ..Version::default() };
        part.version = Some(version.clone());
        part.write_sidecar().unwrap();
        assert_eq!(prepared(folder.path()).len, 0);

        part.version = Some(version);
        part.open().unwrap().write_all(b"new").unwrap();
        part.advance(3).unwrap();
        part.persist().unwrap();
        assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"new");
        assert!(matches!(Part::prepare(folder.path(), &Request::new("a")).unwrap(), Prepared::Whole(_)));
    }

    #[test]
    fn a_part_that_is_cut_or_removed_meanwhile_is_not_filled_with_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let mut part = prepared(folder.path());
        part.open().unwrap().write_all(b"12345").unwrap();
        part.len = 5;
        File::options().write(true).open(part.path()).unwrap().set_len(4).unwrap();
        let Err(Error::Io { source, .. }) = part.open() else { panic!("it opens") };
        assert_eq!(source.kind(), io::ErrorKind::UnexpectedEof);
        fs::remove_file(part.path()).unwrap();
        let Err(Error::Io { source, .. }) = part.open() else { panic!("it opens") };
        assert_eq!(source.kind(), io::ErrorKind::NotFound);
        assert!(!part.path().exists());
    }
}
