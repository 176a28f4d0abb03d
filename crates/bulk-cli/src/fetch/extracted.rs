//! What is known of archives that were extracted: a file for each, in the folder of parts.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use bulk_core::{ETag, Error, ManifestEntry};
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use serde::{Deserialize, Serialize};

/// The folder of parts and records.
pub(super) const STATE_FOLDER: &str = ".bulk";
const SUFFIX: &str = ".extracted";

/// Which version of which object was extracted, and what it became: the first line of its file. Each line after it is a
/// [`Line`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Extraction {
    /// The archive's name below the folder of the fetch.
    pub(super) name: String,
    pub(super) version: Version,
    /// The file or folder that it became, below the folder of the fetch.
    pub(super) output: String,
    /// What that takes on the disk, in bytes.
    pub(super) bytes: u64,
    /// The archive of which what stood there before had come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replaces: Option<String>,
    /// The archive goes when what it became has its place.
    pub(super) removes_archive: bool,
}

/// A version of an object, as far as its source names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Version {
    pub(super) key: String,
    /// [`bulk_core::Source::identity`] of it.
    pub(super) identity: String,
    pub(super) size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) etag: Option<ETag>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_modified: Option<Timestamp>,
}

impl Version {
    /// Whether it is surely the same: another version of the object would have another strong ETag, or another time.
    pub(super) fn is_surely(&self, other: &Self) -> bool {
        let is_same_size = self.size.is_none() || other.size.is_none() || self.size == other.size;
        if self.key != other.key || self.identity != other.identity || !is_same_size {
            return false;
        }
        if let (Some(etag), Some(other)) = (strong(&self.etag), strong(&other.etag)) {
            return etag == other;
        }
        let is_same_etag = self.etag.is_none() || other.etag.is_none() || self.etag == other.etag;
        // Listings and headers give times of different precision.
        let seconds = |time: Option<Timestamp>| time.map(Timestamp::as_second);
        let is_same_time = self.last_modified.is_some() && seconds(self.last_modified) == seconds(other.last_modified);
        is_same_etag && is_same_time
    }

    pub(super) fn has_strong_etag(&self) -> bool {
        strong(&self.etag).is_some()
    }
}

/// A tag that promises equal bytes (RFC 9110, section 8.8.1).
fn strong(etag: &Option<ETag>) -> Option<&ETag> {
    etag.as_ref().filter(|etag| !etag.is_weak())
}

/// Something that came out of an archive. Of what came twice the last line counts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    /// A file, as the manifest has it.
    File(ManifestEntry),
    /// What the manifest does not list: a symbolic link, or a file whose name is not UTF-8.
    Other {
        /// Below the folder of the fetch, percent-encoded.
        path: String,
    },
}

impl Line {
    pub(super) fn other(path: &[u8]) -> Self {
        Self::Other { path: percent_encode(path, NON_ALPHANUMERIC).to_string() }
    }

    /// Below the folder of the fetch.
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Self::File(entry) => PathBuf::from(&entry.name),
            Self::Other { path } => path_of(percent_decode_str(path).collect()),
        }
    }
}

#[cfg(unix)]
fn path_of(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes))
}

#[cfg(not(unix))]
fn path_of(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(&bytes).into_owned())
}

/// A record in the making. Lines are written as they come, so that memory does not grow with them.
pub(super) struct Writer {
    file: BufWriter<File>,
    head: Extraction,
    /// The room that the first line has.
    width: usize,
}

impl Writer {
    pub(super) fn create(path: &Path, head: Extraction) -> io::Result<Self> {
        // How many bytes it is, is known at the end.
        let widest = Extraction { bytes: u64::MAX, ..head.clone() };
        let width = serde_json::to_string(&widest)?.len();
        let mut writer = Self { file: BufWriter::new(File::create(path)?), head, width };
        writer.head()?;
        Ok(writer)
    }

    fn head(&mut self) -> io::Result<()> {
        let text = serde_json::to_string(&self.head)?;
        writeln!(self.file, "{text:width$}", width = self.width)
    }

    pub(super) fn add(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.file, line)?;
        self.file.write_all(b"\n")
    }

    /// Brings it to the disk.
    pub(super) fn finish(mut self, bytes: u64) -> io::Result<Extraction> {
        self.head.bytes = bytes;
        self.file.rewind()?;
        self.head()?;
        self.file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(self.head)
    }
}

/// Reads a record. `None` if there is none, or one of an unknown form, which is as good.
pub(super) fn read(path: &Path) -> io::Result<Option<(Extraction, Lines)>> {
    let mut reader = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut head = Vec::new();
    reader.read_until(b'\n', &mut head)?;
    Ok(serde_json::from_slice(&head).ok().map(|head| (head, Lines(reader))))
}

/// The lines of a record, without those that are none.
pub(super) struct Lines(BufReader<File>);

impl Iterator for Lines {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut text = Vec::new();
        loop {
            text.clear();
            match self.0.read_until(b'\n', &mut text) {
                Ok(0) => return None,
                Ok(_) => {
                    if let Ok(line) = serde_json::from_slice(&text) {
                        return Some(Ok(line));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Where the record of the archive `name` is.
pub(super) fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(STATE_FOLDER).join(format!("{name}{SUFFIX}"))
}

/// The archives whose files are in `folder`, by what they became.
pub(super) fn outputs(folder: &Path) -> Result<HashMap<String, Extraction>, Error> {
    let mut outputs = HashMap::new();
    for record in records(vec![folder.join(STATE_FOLDER)]) {
        let record = record?;
        if let Some((head, _)) = read(&record).map_err(|error| failed(&record, error))?
            && is_there(folder, &head)
        {
            outputs.insert(head.output.clone(), head);
        }
    }
    Ok(outputs)
}

/// Whether what came out is there, and nothing else was fetched to its place since, of which there would be a record.
fn is_there(folder: &Path, head: &Extraction) -> bool {
    folder.join(&head.output).exists() && !folder.join(STATE_FOLDER).join(format!("{}.json", head.output)).exists()
}

/// The files that extractions into `folder` have left, as the manifest has them; those of which nothing is left are passed
/// by, and what has taken the place of a file and is none.
pub(super) fn members(folder: &Path) -> impl Iterator<Item = Result<ManifestEntry, Error>> + use<> {
    let folder = folder.to_owned();
    records(vec![folder.join(STATE_FOLDER)]).flat_map(move |record| {
        let folder = folder.clone();
        let read = record.and_then(|path| match read(&path) {
            Ok(found) => Ok(found.filter(|(head, _)| is_there(&folder, head)).map(|(_, lines)| (lines, path))),
            Err(error) => Err(failed(&path, error)),
        });
        let (error, lines) = match read {
            Ok(lines) => (None, lines),
            Err(error) => (Some(Err(error)), None),
        };
        let entries = lines.into_iter().flat_map(move |(lines, path)| {
            let folder = folder.clone();
            lines.filter_map(move |line| match line {
                Ok(Line::File(entry)) => {
                    let found = fs::symlink_metadata(folder.join(&entry.name));
                    found.map_or(true, |found| found.is_file()).then_some(Ok(entry))
                }
                Ok(Line::Other { .. }) => None,
                Err(error) => Some(Err(failed(&path, error))),
            })
        });
        error.into_iter().chain(entries)
    })
}

/// The files of extractions in these folders and below.
fn records(mut folders: Vec<PathBuf>) -> impl Iterator<Item = Result<PathBuf, Error>> {
    let mut open: Option<(PathBuf, fs::ReadDir)> = None;
    std::iter::from_fn(move || {
        loop {
            let Some((folder, entries)) = &mut open else {
                let folder = folders.pop()?;
                match fs::read_dir(&folder) {
                    Ok(entries) => open = Some((folder, entries)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Some(Err(failed(&folder, error))),
                }
                continue;
            };
            match entries.next().map(|entry| entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))) {
                None => open = None,
                Some(Ok((path, kind))) if kind.is_dir() => folders.push(path),
                Some(Ok((path, _))) if path.to_string_lossy().ends_with(SUFFIX) => return Some(Ok(path)),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Some(Err(failed(folder, error))),
            }
        }
    })
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Io { action: "read", path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(etag: Option<&str>, second: Option<i64>) -> Version {
        Version {
            key: "a.gz".to_owned(),
            identity: "https://host/a.gz".to_owned(),
            size: Some(7),
            etag: etag.map(ETag::new),
            last_modified: second.map(|second| Timestamp::from_second(second).unwrap()),
        }
    }

    #[test]
    fn a_version_is_the_same_only_if_another_one_would_show() {
        let elsewhere = |version: Version| Version { identity: "https://other/a.gz".to_owned(), ..version };
        let same = [
            (version(Some("x"), None), version(Some("x"), Some(2))),
            (version(Some("x"), Some(1)), version(Some("x"), Some(2))),
            (version(None, Some(1)), version(Some("x"), Some(1))),
            (version(Some("W/\"x\""), Some(1)), version(Some("W/\"x\""), Some(1))),
            (Version { size: None, ..version(None, Some(1)) }, version(None, Some(1))),
        ];
        for (a, b) in &same {
            assert!(a.is_surely(b) && b.is_surely(a), "{a:?} {b:?}");
        }
        let different = [
            (version(Some("x"), Some(1)), version(Some("y"), Some(1))),
            (version(None, None), version(None, None)),
            (version(Some("x"), None), version(None, None)),
            (version(Some("W/\"x\""), None), version(Some("W/\"x\""), None)),
            (version(Some("W/\"x\""), Some(1)), version(Some("W/\"y\""), Some(1))),
            (version(None, Some(1)), version(None, Some(2))),
            (version(None, Some(1)), elsewhere(version(None, Some(1)))),
            (version(Some("x"), None), elsewhere(version(Some("x"), None))),
            (version(Some("x"), None), Version { size: Some(8), ..version(Some("x"), None) }),
            (version(Some("x"), None), Version { key: "b.gz".to_owned(), ..version(Some("x"), None) }),
        ];
        for (a, b) in &different {
            assert!(!a.is_surely(b) && !b.is_surely(a), "{a:?} {b:?}");
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_torn_lines_are_passed_by() {
        let folder = tempfile::tempdir().unwrap();
        let record = folder.path().join("record");
        let head = Extraction {
            name: "a.gz".to_owned(),
            version: version(Some("x"), None),
            output: "a".to_owned(),
            bytes: 0,
            replaces: None,
            removes_archive: true,
        };
        let mut writer = Writer::create(&record, head.clone()).unwrap();
        writer.add(&Line::File(ManifestEntry::new("a", 7))).unwrap();
        writer.add(&Line::other(b"x/\xff\n")).unwrap();
        let head = Extraction { bytes: 12, ..head };
        assert_eq!(writer.finish(12).unwrap(), head);
        let mut text = fs::read(&record).unwrap();
        text.extend(b"{\"name\":\"b\"\n{\"path\":\"y\"}\n");
        fs::write(&record, text).unwrap();
        let (found, lines) = read(&record).unwrap().unwrap();
        assert_eq!(found, head);
        let paths: Vec<_> = lines.map(|line| line.unwrap().path()).collect();
        assert_eq!(paths, [PathBuf::from("a"), path_of(b"x/\xff\n".to_vec()), PathBuf::from("y")]);
        assert!(read(&folder.path().join("none")).unwrap().is_none());
    }
}
