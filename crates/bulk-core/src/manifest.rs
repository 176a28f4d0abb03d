//! The manifest of a staging folder: written at the end of a run, and read entry by entry.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::folder::{open_own, sync_folder};
use crate::record_sorter::Sorter;
use crate::source::is_inside;
use crate::{Digest, ETag, Error};

/// The manifest's name in the staging folder, which no staged file may have.
pub(crate) const MANIFEST: &str = "manifest.json";
/// Where it grows, below the staging folder. Nothing else in there has a name that ends so.
const TEMPORARY: &str = ".bulk/manifest.new";
/// The longest entry that is read.
const MAX_ENTRY: u64 = 1024 * 1024;

/// One staged file, as `manifest.json` records it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ManifestEntry {
    /// Its path below the staging folder.
    pub name: String,
    /// What the source calls it.
    pub key: String,
    /// Its version, if the source gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<ETag>,
    /// Bytes.
    pub size: u64,
    /// The digest of its bytes as they arrived, if one was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// When it was whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched_at: Option<Timestamp>,
}

impl ManifestEntry {
    /// An entry for the object `key` of `size` bytes, staged under the same name, of which nothing else is known.
    pub fn new(key: impl Into<String>, size: u64) -> Self {
        let key = key.into();
        Self { name: key.clone(), key, etag: None, size, digest: None, fetched_at: None }
    }
}

/// Writes `manifest.json` into `folder`: a JSON array with a line for each of `records`, sorted by the bytes of their names,
/// so that equal records give equal bytes, in whatever order they come. Of several records with one name, which speak of
/// one file, that with the latest [`fetched_at`](ManifestEntry::fetched_at) counts, and of those that are equal in it the
/// one that came last.
///
/// The file replaces an older one whole, or not at all: it grows as `.bulk/manifest.new`, is synced and renamed, and the
/// folder is synced. Memory does not grow with the number of records: beyond 16 MiB they are sorted in temporary files in
/// `folder`, which take as much space again as the manifest, twice that while they are merged, and vanish with the
/// process. It blocks.
///
/// # Errors
///
/// The first error of `records`; [`Error::Name`] for a name that leaves the folder or is `manifest.json`; [`Error::Io`]
/// if a file cannot be written. The older manifest stays then.
pub fn write_manifest(
    folder: impl AsRef<Path>,
    records: impl IntoIterator<Item = Result<ManifestEntry, Error>>,
) -> Result<(), Error> {
    let folder = folder.as_ref();
    let temporary = folder.join(TEMPORARY);
    let result = write_temporary(folder, &temporary, records);
    if result.is_err() {
        // It may not be there, and what went wrong is said already.
        let _ = fs::remove_file(&temporary);
    }
    result?;
    fs::rename(&temporary, folder.join(MANIFEST)).map_err(|error| Error::io("rename", &temporary, error))?;
    sync_folder(folder).map_err(|error| Error::io("sync", folder, error))
}

fn write_temporary(
    folder: &Path,
    temporary: &Path,
    records: impl IntoIterator<Item = Result<ManifestEntry, Error>>,
) -> Result<(), Error> {
    let failed = |error| Error::io("write", temporary, error);
    let mut sorter = Sorter::new(folder);
    for record in records {
        let record = record?;
        let unusable = |reason| Error::Name { name: record.name.clone(), reason };
        if !is_inside(&record.name) {
            return Err(unusable("it leaves the folder"));
        }
        if record.name == MANIFEST {
            return Err(unusable("it is the manifest's"));
        }
        sorter.push(record)?;
    }
    if let Some(parent) = temporary.parent() {
        fs::create_dir_all(parent).map_err(|error| Error::io("create", parent, error))?;
    }
    let mut file =
        BufWriter::new(open_own(File::options().create(true).truncate(true).write(true), temporary).map_err(failed)?);
    file.write_all(b"[").map_err(failed)?;
    let mut is_first = true;
    let mut write = |record: &ManifestEntry| {
        file.write_all(if is_first { b"\n" } else { b",\n" })?;
        is_first = false;
        serde_json::to_writer(&mut file, record).map_err(io::Error::from)
    };
    let mut last: Option<ManifestEntry> = None;
    for record in sorter.finish()? {
        let record = record?;
        match &mut last {
            Some(last) if last.name == record.name => {
                if record.fetched_at >= last.fetched_at {
                    *last = record;
                }
            }
            last => {
                if let Some(last) = last.replace(record) {
                    write(&last).map_err(failed)?;
                }
            }
        }
    }
    if let Some(last) = last {
        write(&last).map_err(failed)?;
    }
    file.write_all(b"\n]\n").map_err(failed)?;
    let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)
}

/// The entries of a manifest, in its order, read one by one.
///
/// Any JSON array of such objects is read, however it is laid out; fields that are not known are skipped. An item that is
/// an error is the last one. A manifest that is cut short ends in an error, never in silence.
#[derive(Debug)]
pub struct Manifest {
    path: PathBuf,
    reader: BufReader<File>,
    /// Entries begun.
    entries: u64,
    is_done: bool,
}

impl Manifest {
    /// Opens the manifest at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be read or is no JSON array.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let file = File::open(&path).map_err(|error| Error::io("open", &path, error))?;
        let mut manifest = Self { path, reader: BufReader::new(file), entries: 0, is_done: false };
        match manifest.token() {
            Ok(b'[') => Ok(manifest),
            Ok(_) => Err(manifest.failed(malformed("it is no JSON array"))),
            Err(error) => Err(manifest.failed(error)),
        }
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::io("read", &self.path, error)
    }

    /// Skips white space (RFC 8259, section 2).
    fn peek(&mut self) -> io::Result<Option<u8>> {
        loop {
            match self.reader.fill_buf()?.first() {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.reader.consume(1),
                byte => return Ok(byte.copied()),
            }
        }
    }

    fn token(&mut self) -> io::Result<u8> {
        let byte = self.peek()?.ok_or_else(|| malformed("it is cut short"))?;
        self.reader.consume(1);
        Ok(byte)
    }

    fn read(&mut self) -> io::Result<Option<ManifestEntry>> {
        if self.entries == 0 && self.peek()? == Some(b']') || self.entries > 0 {
            match self.token()? {
                b']' => {
                    return match self.peek()? {
                        None => Ok(None),
                        Some(_) => Err(malformed("something follows its end")),
                    };
                }
                b',' => {}
                _ => return Err(malformed(format!("no comma follows entry {}", self.entries))),
            }
        }
        self.entries += 1;
        let mut json = serde_json::Deserializer::from_reader(self.reader.by_ref().take(MAX_ENTRY));
        let entry = ManifestEntry::deserialize(&mut json);
        match entry {
            Ok(entry) => Ok(Some(entry)),
            Err(error) if error.is_io() => Err(error.into()),
            Err(error) => Err(malformed(format!("entry {}: {error}", self.entries))),
        }
    }
}

impl Iterator for Manifest {
    type Item = Result<ManifestEntry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let entry = self.read();
        self.is_done = !matches!(entry, Ok(Some(_)));
        entry.map_err(|error| self.failed(error)).transpose()
    }
}

fn malformed(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}
