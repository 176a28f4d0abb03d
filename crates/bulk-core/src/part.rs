//! A file in the making: the part file, and the record that says what it is a part of.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::folder::open_own;
use crate::manifest::MANIFEST;
use crate::ranges::Ranges;
use crate::source::is_inside;
use crate::{Body, Digest, ETag, Error, Request};

/// The subfolder of parts and records.
pub(crate) const STATE_FOLDER: &str = ".bulk";
/// Larger than any record of ours: there are no more stretches in it than connections.
const MAX_RECORD: u64 = 4 * 1024 * 1024;

/// Which version of an object the bytes are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Version {
    pub(crate) etag: Option<ETag>,
    pub(crate) size: Option<u64>,
    pub(crate) last_modified: Option<Timestamp>,
}

impl Version {
    pub(crate) fn of(body: &Body) -> Self {
        Self { etag: body.etag.clone(), size: body.size, last_modified: body.last_modified }
    }

    /// Whether another version of the same key could be told from this one: by a strong ETag, or by its time.
    pub(crate) fn is_checkable(&self) -> bool {
        self.strong_etag().is_some() || self.last_modified.is_some()
    }

    /// The ETag, if it promises equal bytes (RFC 9110, section 8.8.1).
    pub(crate) fn strong_etag(&self) -> Option<&ETag> {
        self.etag.as_ref().filter(|etag| !etag.is_weak())
    }

    /// Why `body` is not of this version, if it is not.
    pub(crate) fn mismatch(&self, body: &Body) -> Option<String> {
        if self.etag != body.etag {
            return Some("its ETag changed".to_owned());
        }
        // A server may tell the size in one answer and not in the next.
        if self.size.is_some() && body.size.is_some() && self.size != body.size {
            return Some("its size changed".to_owned());
        }
        if self.strong_etag().is_none() && self.last_modified != body.last_modified {
            return Some("it was modified".to_owned());
        }
        None
    }
}

/// What is known of a file that is staged, or on its way: its sidecar.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) key: String,
    /// [`Source::identity`](crate::Source::identity) of it.
    #[serde(default)]
    pub(crate) identity: String,
    #[serde(flatten)]
    pub(crate) version: Version,
    /// The bytes that are safe on disk.
    pub(crate) ranges: Ranges,
    /// Digests that the source stated, as long as the file is not whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) stated: Vec<Digest>,
    /// Of a whole file: digests of its content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) digests: Vec<Digest>,
    /// When it became whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fetched_at: Option<Timestamp>,
}

impl Record {
    pub(crate) fn is_whole(&self) -> bool {
        self.version.size.is_some_and(|size| self.ranges.covers(size))
    }

    /// Why these are not the bytes that `request` wants of the object with this identity, if it is sure.
    fn mismatch(&self, request: &Request, identity: &str) -> Option<&'static str> {
        let version = &self.version;
        // The same version, told by a listing, has the same bytes also where the bucket has moved.
        let is_same_version = version.strong_etag().is_some() && version.etag == request.etag;
        if self.key != request.key || (self.identity != identity && !is_same_version) {
            return Some("it was another object");
        }
        if !version.is_checkable() {
            return Some("the server names no version");
        }
        if version.etag.is_some() && request.etag.is_some() && version.etag != request.etag {
            return Some("its ETag changed");
        }
        if version.size.is_some() && request.size.is_some() && version.size != request.size {
            return Some("its size changed");
        }
        // Listings and headers give times of different precision.
        let seconds = |time: Option<Timestamp>| time.map(Timestamp::as_second);
        let tells_versions = request.etag.as_ref().is_some_and(|etag| !etag.is_weak());
        if !(tells_versions && version.strong_etag().is_some())
            && request.last_modified.is_some()
            && version.last_modified.is_some()
            && seconds(version.last_modified) != seconds(request.last_modified)
        {
            return Some("it was modified");
        }
        None
    }
}

/// What is there of a file before its first attempt.
#[derive(Debug)]
pub(crate) enum Found {
    /// All of it, under its final name.
    Whole(Record),
    /// A part that can be gone on with.
    Part(Record, PartFile),
    /// Nothing of use.
    Nothing,
}

/// A place in the order in which the record of one file is written and removed: what comes late for its turn is not done
/// any more, and two never do it at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turn {
    number: u64,
    /// The numbers given, and the last one whose turn it was.
    given: Arc<AtomicU64>,
    taken: Arc<Mutex<u64>>,
}

impl Turn {
    /// The turn behind all others.
    pub(crate) fn next(&self) -> Self {
        let number = self.given.fetch_add(1, Ordering::Relaxed) + 1;
        Self { number, given: self.given.clone(), taken: self.taken.clone() }
    }

    /// Does `work`, unless a later turn was taken.
    pub(crate) fn take(&self, work: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if *taken > self.number {
            return Ok(());
        }
        *taken = self.number;
        work()
    }
}

/// Why something was thrown away, and how many bytes of it.
pub(crate) type Lost = (&'static str, u64);

/// Where a file and what belongs to it stand.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    folder: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) part: PathBuf,
    record: PathBuf,
}

impl Paths {
    /// How the names of a part, and of a record that is being written, end.
    pub(crate) const PART: &str = ".part";
    pub(crate) const TEMPORARY: &str = ".json.new";

    pub(crate) fn new(folder: &Path, name: &str) -> Result<Self, Error> {
        let unusable = |reason| Error::Name { name: name.to_owned(), reason };
        if !is_inside(name) {
            return Err(unusable("it leaves the folder"));
        }
        if name.split('/').next() == Some(STATE_FOLDER) {
            return Err(unusable("that folder is for parts"));
        }
        if name == MANIFEST {
            return Err(unusable("it is the manifest's"));
        }
        let state = folder.join(STATE_FOLDER);
        Ok(Self {
            folder: folder.to_owned(),
            target: folder.join(name),
            part: state.join(format!("{name}{}", Self::PART)),
            record: state.join(format!("{name}.json")),
        })
    }

    /// Looks what an earlier run left of `request`, an object with this identity, and removes what is of no use: why, and
    /// how many bytes of it.
    pub(crate) fn find(&self, request: &Request, identity: &str) -> Result<(Found, Option<Lost>), Error> {
        let in_part = len(&self.part)?;
        let Some(record) = self.read_record()? else {
            if in_part.is_some() || len(&self.record)?.is_some() {
                self.clear()?;
            }
            let lost = in_part.filter(|len| *len > 0).map(|len| ("nothing says what it is a part of", len));
            return Ok((Found::Nothing, lost));
        };
        let whole = len(&self.target)?;
        let reason = record.mismatch(request, identity);
        // The file may still be an older version, if a new one's part was about to be made: only a record that speaks
        // of all bytes speaks of the file.
        if reason.is_none() && record.is_whole() && whole.is_some() && whole == record.version.size && in_part.is_none()
        {
            return Ok((Found::Whole(record), None));
        }
        let Some(in_part) = in_part.filter(|_| reason.is_none()) else {
            self.clear()?;
            return Ok((Found::Nothing, reason.zip(in_part.or(whole))));
        };
        let mut record = record;
        // One that was cut has lost what was behind the cut.
        record.ranges.forget_behind(in_part);
        let part = PartFile::open(&self.part)?;
        // What came after the record was written is fetched again, and is not to count twice until then.
        part.keep_only(&record.ranges)?;
        Ok((Found::Part(record, part), None))
    }

    /// Whether a run that asks for the file can go on with the part.
    pub(crate) fn is_resumable(&self) -> bool {
        let record = self.read_record().ok().flatten();
        record.is_some_and(|record| record.version.is_checkable() && record.ranges.total() > 0)
    }

    /// Throws away what there is of a part, so that the next attempt starts at byte 0. The record goes first: without a
    /// part it would be taken for that of the file under the final name.
    pub(crate) fn clear(&self) -> Result<(), Error> {
        [&self.record, &self.temporary(), &self.part].into_iter().try_for_each(|path| remove(path))
    }

    /// Removes the record, so that no later run goes on with the part.
    pub(crate) fn forget(&self) -> Result<(), Error> {
        remove(&self.record)
    }

    /// Writes the record in place of the one before. Atomic: a temporary file is renamed.
    pub(crate) fn write_record(&self, record: &Record, sync: bool) -> Result<(), Error> {
        let temporary = self.temporary();
        write_new(&temporary, File::options().create(true).truncate(true), record, sync)?;
        fs::rename(&temporary, &self.record).map_err(|error| Error::io("rename", &temporary, error))
    }

    /// Writes the record of a file that has come to its end. Where there was none, what a kill leaves of it counts as none.
    pub(crate) fn write_last_record(&self, record: &Record) -> Result<(), Error> {
        match write_new(&self.record, File::options().create_new(true), record, false) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                self.write_record(record, false)
            }
            written => written,
        }
    }

    /// Gives the part its final name. The record stays, as that of the file. Gives the folders that are to be synced for it.
    pub(crate) fn persist(&self) -> Result<Vec<PathBuf>, Error> {
        let parent = self.target.parent().unwrap_or(&self.folder);
        let rename = || fs::rename(&self.part, &self.target);
        let mut folders = vec![parent.to_owned()];
        rename()
            .or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    let above = parent.ancestors().skip(1).take_while(|above| above.starts_with(&self.folder));
                    folders.extend(above.map(Path::to_owned));
                    fs::create_dir_all(parent).and_then(|()| rename())
                }
                _ => Err(error),
            })
            .map_err(|error| Error::io("rename", &self.part, error))?;
        Ok(folders)
    }

    fn temporary(&self) -> PathBuf {
        self.record.with_extension(&Self::TEMPORARY[1..])
    }

    /// A record that is torn or of an unknown form counts as absent.
    fn read_record(&self) -> Result<Option<Record>, Error> {
        let failed = |error| Error::io("read", &self.record, error);
        match fs::metadata(&self.record) {
            Ok(metadata) if metadata.len() > MAX_RECORD => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        }
        let text = fs::read(&self.record).map_err(failed)?;
        let is_sound = |record: &Record| record.ranges.are_sound(record.version.size);
        Ok(serde_json::from_slice(&text).ok().filter(is_sound))
    }
}

/// An open part. Its bytes are written and read at any offset, by several at once.
#[derive(Debug)]
pub(crate) struct PartFile {
    path: PathBuf,
    file: File,
}

impl PartFile {
    /// Opens the file, and makes it and its folder if they are not there.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let open = || open_own(File::options().create(true).read(true).write(true).truncate(false), path);
        let file = open().or_else(|error| match (error.kind(), path.parent()) {
            (io::ErrorKind::NotFound, Some(folder)) => fs::create_dir_all(folder).and_then(|()| open()),
            _ => Err(error),
        });
        Ok(Self { path: path.to_owned(), file: file.map_err(|error| Error::io("open", path, error))? })
    }

    /// Opens a file that is whole, to read it.
    pub(crate) fn open_whole(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
        Ok(Self { path: path.to_owned(), file })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes all of `chunks`, one behind the other.
    #[cfg(unix)]
    pub(crate) fn write_at(&self, chunks: &[Bytes], mut offset: u64) -> Result<(), Error> {
        // As many as one call takes on every system (POSIX: at least 16; Linux: 1,024).
        const AT_ONCE: usize = 256;
        let (mut at, mut skip) = (0, 0);
        while at < chunks.len() {
            let slices: Vec<_> = chunks[at..]
                .iter()
                .take(AT_ONCE)
                .enumerate()
                .map(|(place, chunk)| io::IoSlice::new(if place == 0 { &chunk[skip..] } else { chunk }))
                .collect();
            let mut written = match rustix::io::pwritev(&self.file, &slices, offset) {
                Ok(0) if slices.iter().any(|slice| !slice.is_empty()) => {
                    return Err(self.failed("write", io::ErrorKind::WriteZero.into()));
                }
                Ok(written) => written,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(self.failed("write", error.into())),
            };
            offset += written as u64;
            while at < chunks.len() && written >= chunks[at].len() - skip {
                written -= chunks[at].len() - skip;
                (at, skip) = (at + 1, 0);
            }
            skip += written;
        }
        Ok(())
    }

    /// Writes all of `chunks`, one behind the other.
    #[cfg(windows)]
    pub(crate) fn write_at(&self, chunks: &[Bytes], mut offset: u64) -> Result<(), Error> {
        use std::os::windows::fs::FileExt;
        for chunk in chunks {
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                let written = self.file.seek_write(rest, offset).map_err(|error| self.failed("write", error))?;
                rest = &rest[written..];
                offset += written as u64;
            }
        }
        Ok(())
    }

    /// Reads some bytes; none at the end of the file.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            #[cfg(unix)]
            let read = std::os::unix::fs::FileExt::read_at(&self.file, buffer, offset);
            #[cfg(windows)]
            let read = std::os::windows::fs::FileExt::seek_read(&self.file, buffer, offset);
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    /// Gives the disk space of these bytes back, where the file system can. They read as zeros then.
    pub(crate) fn punch(&self, start: u64, end: u64) -> bool {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            use rustix::fs::{FallocateFlags, fallocate};
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&self.file, flags, start, end - start).is_ok()
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        {
            let _ = (start, end);
            false
        }
    }

    /// Gives the disk space of all other bytes back, where the file system can.
    fn keep_only(&self, ranges: &Ranges) -> Result<(), Error> {
        let mut end = 0;
        for (start, next) in ranges.iter() {
            if start > end {
                self.punch(end, start);
            }
            end = next;
        }
        self.set_len(end)
    }

    /// Brings the bytes to the disk.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(|error| self.failed("sync", error))
    }

    /// Brings the data of all files of its file system to the disk, where that is one call. Whether it did.
    pub(crate) fn sync_file_system(&self) -> bool {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        return rustix::fs::syncfs(&self.file).is_ok();
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        false
    }

    /// Cuts what stands behind `len` bytes, if there is anything.
    pub(crate) fn cut_to(&self, len: u64) -> Result<(), Error> {
        match self.file.metadata() {
            Ok(metadata) if metadata.len() == len => Ok(()),
            _ => self.set_len(len),
        }
    }

    pub(crate) fn set_len(&self, len: u64) -> Result<(), Error> {
        self.file.set_len(len).map_err(|error| self.failed("cut", error))
    }

    fn failed(&self, action: &'static str, error: io::Error) -> Error {
        Error::io(action, &self.path, error)
    }
}

/// Writes a record to a file that is opened so. Nothing is left of it if that fails.
fn write_new(path: &Path, options: &mut fs::OpenOptions, record: &Record, sync: bool) -> Result<(), Error> {
    let failed = |error| Error::io("write", path, error);
    let text = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
    let mut file = open_own(options.write(true), path).map_err(failed)?;
    let written = file.write_all(&text).and_then(|()| if sync { file.sync_data() } else { Ok(()) });
    written.map_err(|error| {
        // On a full disk its space is needed.
        let _ = fs::remove_file(path);
        failed(error)
    })
}

/// Removes the file that [`download`](crate::download()) staged as `name` in `folder`, what there is of a part of it,
/// and its record.
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
    let paths = Paths::new(folder.as_ref(), name)?;
    [&paths.record, &paths.temporary(), &paths.part, &paths.target].into_iter().try_for_each(|path| remove(path))
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_place_of_our_own_files_is_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "theirs").unwrap();
        let out = folder.path().join("out");
        let paths = Paths::new(&out, "a").unwrap();
        fs::create_dir_all(paths.part.parent().unwrap()).unwrap();
        let ours = [paths.part.clone(), paths.temporary(), out.join(".bulk/manifest.new")];
        for link in &ours {
            std::os::unix::fs::symlink(&victim, link).unwrap();
        }
        let opened = PartFile::open(&paths.part).map(|_| ());
        let written = paths.write_record(&Record::default(), false);
        for (result, path) in [(opened, &ours[0]), (written, &ours[1])] {
            let error = result.unwrap_err();
            let Error::Io { path: named, source, .. } = &error else { panic!("{error:?}") };
            assert_eq!((named, source.raw_os_error()), (path, Some(rustix::io::Errno::LOOP.raw_os_error())));
        }
        assert!(crate::write_manifest(&out, []).is_err());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "theirs");
    }
}
