//! Names and files of a set.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::options::ExportOptions;
use crate::{
    Error, Refusal,
    archive::{Shape, Stretch, copy_bytes, escaped},
};

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const INFO: &str = "info.json";
pub(crate) const ALL: &str = "all.tar";
pub(crate) const ARCHIVE: &str = ".tar.gz";
pub(crate) const INDEX: &str = ".idx";
/// What stands before the names of files that are no part of the set, below its folder.
pub(crate) const STATE: &str = ".bulk";

/// The longest name of a file or folder on common file systems.
pub(crate) const LONGEST_NAME: usize = 255;

/// Where things are.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(crate) root: PathBuf,
}

impl Folder {
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join(STATE)
    }

    pub(crate) fn roster(&self) -> PathBuf {
        self.state().join("export.sqlite")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.state().join("export.lock")
    }

    pub(crate) fn stage(&self) -> PathBuf {
        self.state().join("stage")
    }

    pub(crate) fn next(&self) -> PathBuf {
        self.state().join("next")
    }
}

/// The folder of a type that is there. It is never that of the state, since no such name begins with a dot.
pub(crate) fn kind_folder(kind: &str) -> Result<String, Refusal> {
    if kind == MANIFEST { Err(Refusal::Reserved) } else { escaped(kind, LONGEST_NAME) }
}

/// The folder of a new type, which is not called as a file beside folders may be, for which there is room. Earlier versions did not
/// see to that.
pub(crate) fn new_kind_folder(kind: &str) -> Result<String, Refusal> {
    // File systems may take names for one that differ in case alone.
    if Shape::of_file(&kind.to_ascii_lowercase()).is_some() {
        return Err(Refusal::Reserved);
    }
    let folder = kind_folder(kind)?;
    let has_room = Shape::ALL.into_iter().all(|shape| whole_files(&folder, shape).0.len() <= LONGEST_NAME);
    if has_room { Ok(folder) } else { Err(Refusal::NameTooLong) }
}

/// What the names of the files of a group begin with.
pub(crate) fn group_file(group: &str) -> Result<String, Refusal> {
    escaped(group, LONGEST_NAME - ARCHIVE.len() - INDEX.len())
}

/// The file of a shape of the group that has this archive, and the map of it.
pub(crate) fn shape_files(archive: &str, shape: Shape) -> (String, String) {
    let name = format!("{}.{shape}", archive.strip_suffix(ARCHIVE).unwrap_or(archive));
    // Of the same name, which has to fit, too.
    let map = format!("{STATE}/shapes/{name}");
    (name, map)
}

/// The file of a shape of the type that has this folder, and the map of it. No new type's folder is called so.
pub(crate) fn whole_files(folder: &str, shape: Shape) -> (String, String) {
    let name = format!("{folder}.{shape}");
    let map = format!("{STATE}/shapes/{name}");
    (name, map)
}

/// The time, to the second, as RFC 3339 in UTC.
pub(crate) fn now() -> String {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// A path as errors give it.
pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string()
}

pub(crate) fn cannot_read(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let file = shown(path);
    move |source| Error::Io { file, offset: None, source }
}

pub(crate) fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let file = shown(path);
    move |source| Error::Output { file, source }
}

pub(crate) fn make_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(cannot_write(path))
}

/// Removes a file that may not be there.
pub(crate) fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot_write(path)(error)),
        _ => Ok(()),
    }
}

/// Removes a folder that may not be there, with what is in it.
pub(crate) fn remove_folder(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot_write(path)(error)),
        _ => Ok(()),
    }
}

/// Makes names in a folder last through a loss of power.
pub(crate) fn sync_folder(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(cannot_write(path))
}

/// The error that a reader or writer of ours has put into an [`io::Error`], in place of the one about it.
pub(crate) fn inner(error: Error) -> Error {
    match error {
        Error::Io { source, file, offset } => match source.downcast() {
            Ok(inner) => inner,
            Err(source) => Error::Io { source, file, offset },
        },
        Error::Output { source, file } => source.downcast().unwrap_or_else(|source| Error::Output { source, file }),
        Error::Changes { source, file } => source.downcast().unwrap_or_else(|source| Error::Changes { source, file }),
        error => error,
    }
}

/// A file that is read, whose errors name it.
pub(crate) struct Named {
    file: File,
    path: PathBuf,
}

impl Named {
    pub(crate) fn open(path: &Path) -> Result<Named, Error> {
        Ok(Named { file: File::open(path).map_err(cannot_read(path))?, path: path.to_owned() })
    }
}

impl Read for Named {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.file.read(into).map_err(|error| cannot_read(&self.path)(error).into())
    }
}

impl Seek for Named {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to).map_err(|error| cannot_read(&self.path)(error).into())
    }
}

/// A file that is written, with its digest. What is copied goes through memory for that, unless the file system may share it
/// ([`copy_hashed`]): letting the kernel copy it and reading it back for the digest was found to take as much CPU (0.37 s for
/// 400 MB, against 0.35 s) and more time.
pub(crate) struct Hashed<'a> {
    file: File,
    path: PathBuf,
    sha256: Sha256,
    len: u64,
    options: &'a ExportOptions,
}

impl<'a> Hashed<'a> {
    /// Makes the file anew.
    pub(crate) fn create(path: &Path, options: &'a ExportOptions) -> Result<BufWriter<Hashed<'a>>, Error> {
        let file = File::create(path).map_err(cannot_write(path))?;
        let hashed = Hashed { file, path: path.to_owned(), sha256: Sha256::new(), len: 0, options };
        Ok(BufWriter::with_capacity(128 * 1024, hashed))
    }

    fn finish(self, sync: bool) -> Result<(u64, [u8; 32]), Error> {
        if sync {
            self.file.sync_all().map_err(cannot_write(&self.path))?;
        }
        Ok((self.len, self.sha256.finalize().into()))
    }
}

/// How many bytes are copied and then read for their digest at a time.
const SHARED_AT_ONCE: u64 = 16 << 20;

/// Copies bytes of a file as [`copy_bytes`] does, but those that the file system may share with the kernel, and reads them for the
/// digest from the one that has been read before.
pub(crate) fn copy_hashed(
    source: &mut Named,
    output: &mut &mut BufWriter<Hashed<'_>>,
    len: u64,
    stretch: Stretch,
) -> io::Result<u64> {
    if stretch == Stretch::Bytes {
        return copy_bytes(source, output, len, stretch);
    }
    output.flush()?;
    let output = output.get_mut();
    let mut copied = 0;
    while copied < len {
        let start = source.stream_position()?;
        let wanted = SHARED_AT_ONCE.min(len - copied);
        let outcome = io::copy(&mut (&source.file).take(wanted), &mut output.file);
        source.seek(SeekFrom::Start(start))?;
        let some = match outcome {
            Ok(some) => some,
            Err(error) => {
                // Which side it is from is seen by reading.
                io::copy(&mut source.take(wanted), &mut io::sink())?;
                return Err(cannot_write(&output.path)(error).into());
            }
        };
        let hashed = hash(&mut source.take(some), &mut output.sha256, output.options)?;
        if some == 0 || hashed < some {
            break;
        }
        copied += some;
    }
    output.len += copied;
    Ok(copied)
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.options.go_on()?;
        let written = self.file.write(bytes).map_err(|error| io::Error::from(cannot_write(&self.path)(error)))?;
        self.sha256.update(&bytes[..written]);
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes what waits, and syncs the file. Gives its length and digest.
pub(crate) fn finish(file: BufWriter<Hashed<'_>>) -> Result<(u64, [u8; 32]), Error> {
    end(file, true)
}

/// Writes what waits to a file that may be lost.
pub(crate) fn finish_lightly(file: BufWriter<Hashed<'_>>) -> Result<(), Error> {
    end(file, false).map(drop)
}

fn end(file: BufWriter<Hashed<'_>>, sync: bool) -> Result<(u64, [u8; 32]), Error> {
    match file.into_inner() {
        Ok(hashed) => hashed.finish(sync),
        Err(error) => {
            let (error, file) = error.into_parts();
            Err(inner(Error::Output { file: shown(&file.get_ref().path), source: error }))
        }
    }
}

/// The length and digest of a file.
pub(crate) fn digest(path: &Path, options: &ExportOptions) -> Result<(u64, [u8; 32]), Error> {
    let mut sha256 = Sha256::new();
    let len = hash(&mut Named::open(path)?, &mut sha256, options)
        .map_err(|source| inner(Error::Io { file: shown(path), offset: None, source }))?;
    Ok((len, sha256.finalize().into()))
}

/// Reads all that there is for a digest. How many bytes there were.
fn hash(input: &mut impl Read, sha256: &mut Sha256, options: &ExportOptions) -> io::Result<u64> {
    let (mut len, mut buffer) = (0, vec![0; 256 * 1024]);
    loop {
        options.go_on()?;
        match input.read(&mut buffer) {
            Ok(0) => return Ok(len),
            Ok(read) => {
                sha256.update(&buffer[..read]);
                len += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes a small file, and syncs it.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(cannot_write(path))
}

impl Folder {
    /// Writes a small file of the set whole: elsewhere, then renamed.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let (part, path) = (self.state().join("part"), self.root.join(name));
        write(&part, bytes)?;
        fs::rename(&part, &path).map_err(cannot_write(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both are as empty or as full as asked for; each may be opened in a way that it cannot be used.
    fn copied(can_be_read: bool, can_be_written: bool) -> Result<(u64, [u8; 32]), Error> {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, b"some bytes").unwrap();
        let options = ExportOptions::default();
        let mut output = Hashed::create(&to, &options)?;
        output.write_all(b"first, ").unwrap();
        let mut source = Named::open(&from)?;
        if !can_be_read {
            source.file = File::options().append(true).open(&from).unwrap();
        }
        if !can_be_written {
            output.flush().unwrap();
            output.get_mut().file = File::open(&to).unwrap();
        }
        let copied = copy_hashed(&mut source, &mut &mut output, 100, Stretch::Shareable)
            .map_err(|source| inner(Error::Output { file: "x".to_owned(), source }))?;
        assert_eq!(copied, 10);
        output.write_all(b" and more").unwrap();
        let done = finish(output)?;
        assert_eq!(fs::read(&to).unwrap(), b"first, some bytes and more");
        assert_eq!(done, digest(&to, &options)?);
        Ok(done)
    }

    #[test]
    fn what_is_shared_is_in_the_digest_and_an_error_names_its_side() {
        copied(true, true).unwrap();
        let Err(Error::Io { file, .. }) = copied(false, true) else { panic!("it was read") };
        assert!(file.ends_with("from"), "{file}");
        let Err(Error::Output { file, .. }) = copied(true, false) else { panic!("it was written") };
        assert!(file.ends_with("to"), "{file}");
    }
}
