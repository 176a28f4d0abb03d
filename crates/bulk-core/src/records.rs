//! What the records of a staging folder say of its files.

use std::fs::{self, ReadDir};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::budget::Reservation;
use crate::manifest::ManifestEntry;
use crate::part::{Record, STATE_FOLDER};
use crate::{Algorithm, Digest, Error, StagedFile};

/// Where a record ends its name.
const SUFFIX: &str = ".json";
/// Larger than the record of any whole file.
const MAX_RECORD: u64 = 1024 * 1024;

/// The files that downloads have staged in `folder`, in no particular order, as
/// [`write_manifest`](crate::write_manifest) takes them: from their records, so that nothing is read but those.
///
/// A file that is no longer there is left out; one that was altered is given as it was fetched. Where several digests are
/// known, SHA-256 is preferred, then CRC-64/NVME. Files on their way are left out; what a download that is under way
/// finishes meanwhile may be or not. A folder that is not there has none. It blocks, and holds a record and one open
/// folder for each level.
pub fn staged_records(folder: impl Into<PathBuf>) -> StagedRecords {
    let folder = folder.into();
    let state = folder.join(STATE_FOLDER);
    StagedRecords { folder, state: Some(state), open: Vec::new() }
}

/// The iterator of [`staged_records`]. An item that is an error ([`Error::Io`]) is about one record or folder; others
/// follow.
#[derive(Debug)]
pub struct StagedRecords {
    folder: PathBuf,
    /// Where to begin.
    state: Option<PathBuf>,
    /// The folders under way, from the outermost, with their paths below the state folder.
    open: Vec<(String, ReadDir)>,
}

impl StagedRecords {
    fn enter(&mut self, path: &Path, prefix: String) -> Result<(), Error> {
        match fs::read_dir(path) {
            Ok(entries) => self.open.push((prefix, entries)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("list", path, error)),
        }
        Ok(())
    }

    fn entry(&self, path: &Path, name: &str) -> Result<Option<ManifestEntry>, Error> {
        match fs::metadata(self.folder.join(name)) {
            Ok(metadata) if metadata.is_file() => {}
            _ => return Ok(None),
        }
        let failed = |error| Error::io("read", path, error);
        let text = match fs::metadata(path) {
            Ok(metadata) if metadata.len() <= MAX_RECORD => fs::read(path).map_err(failed)?,
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        // What is torn or of an unknown form counts as absent, as it does for a download.
        let record: Option<Record> = serde_json::from_slice(&text).ok();
        let Some(record) = record.filter(Record::is_whole) else { return Ok(None) };
        let mut entry = ManifestEntry::new(record.key.clone(), record.version.size.unwrap_or_default());
        entry.name = name.to_owned();
        entry.etag = record.version.etag;
        entry.digest = strongest(&record.digests);
        entry.fetched_at = record.fetched_at;
        Ok(Some(entry))
    }
}

impl Iterator for StagedRecords {
    type Item = Result<ManifestEntry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(state) = self.state.take()
            && let Err(error) = self.enter(&state, String::new())
        {
            return Some(Err(error));
        }
        while let Some((prefix, entries)) = self.open.last_mut() {
            let Some(found) = entries.next() else {
                self.open.pop();
                continue;
            };
            let folder = || self.folder.join(STATE_FOLDER);
            let found = match found {
                Ok(found) => found,
                Err(error) => return Some(Err(Error::io("list", folder(), error))),
            };
            // Names are UTF-8; what is not is none of ours.
            let Ok(name) = found.file_name().into_string() else { continue };
            let name = format!("{prefix}{name}");
            let is_folder = match found.file_type() {
                Ok(kind) => kind.is_dir(),
                Err(error) => return Some(Err(Error::io("read", found.path(), error))),
            };
            if is_folder {
                if let Err(error) = self.enter(&found.path(), format!("{name}/")) {
                    return Some(Err(error));
                }
            } else if let Some(name) = name.strip_suffix(SUFFIX)
                && let Some(entry) = self.entry(&found.path(), name).transpose()
            {
                return Some(entry);
            }
        }
        None
    }
}

/// The digest that says most of what the bytes are.
fn strongest(digests: &[Digest]) -> Option<Digest> {
    let of = |algorithm| digests.iter().find(|digest| digest.algorithm() == algorithm);
    of(Algorithm::Sha256).or_else(|| of(Algorithm::Crc64Nvme)).or(digests.first()).copied()
}

impl StagedFile {
    /// The disk space that is reserved for the file and for its request's
    /// [`extra_space`](crate::Request::extra_space), to go on with: for what is extracted, or for as long as the file
    /// stays. `None` where it is not counted, or a clone of this is left.
    pub fn into_space(mut self) -> Option<Reservation> {
        self.take_space()
    }

    /// As [`into_space`](Self::into_space), for who needs the rest of it further on.
    pub fn take_space(&mut self) -> Option<Reservation> {
        self._space.take().and_then(Arc::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_files_that_are_there_have_records() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join(STATE_FOLDER);
        fs::create_dir_all(state.join("x")).unwrap();
        fs::create_dir(folder.path().join("x")).unwrap();
        let record =
            |ranges: &str| format!(r#"{{"key":"k","etag":"e","size":3,"last_modified":null,"ranges":{ranges}}}"#);
        let (whole, none) = (r#"[{"start":0,"end":3,"crc":null}]"#, "[]");
        for (name, record) in [
            ("a.csv", record(whole)),
            ("x/b.csv", record(whole)),
            ("gone.csv", record(whole)),
            ("part.csv", record(none)),
            ("torn.csv", record(whole)[..9].to_owned()),
        ] {
            fs::write(state.join(format!("{name}.json")), record).unwrap();
            if name != "gone.csv" {
                fs::write(folder.path().join(name), "id\n").unwrap();
            }
        }
        fs::write(state.join("lock"), "").unwrap();
        let mut names: Vec<_> = staged_records(folder.path()).map(|entry| entry.unwrap().name).collect();
        names.sort();
        assert_eq!(names, ["a.csv", "x/b.csv"]);
        assert_eq!(staged_records(folder.path().join("absent")).count(), 0);
    }

    #[test]
    fn the_strongest_digest_is_taken() {
        let all =
            [Algorithm::Md5, Algorithm::Crc64Nvme, Algorithm::Sha256].map(|algorithm| Digest::of(algorithm, b"x"));
        assert_eq!(strongest(&all), Some(all[2]));
        assert_eq!(strongest(&all[..2]), Some(all[1]));
        assert_eq!(strongest(&all[..1]), Some(all[0]));
        assert_eq!(strongest(&[]), None);
    }
}
