//! Safe extraction: of a compressed file its plain bytes, of a tar its members, and nothing outside the folder.

mod disk;
mod name;
mod number;
mod path;
mod pax;
mod source;
mod sparse;
mod stage;
mod tar;

use std::{
    ffi::OsString,
    fmt,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use self::name::ArchiveName;
use self::{
    disk::{Disk, Fault, Part},
    source::Source,
    stage::{MOST_BYTES, Stage},
    tar::{BLOCK, Entry, Kind, Tar},
};
use crate::span::enter_span;
use crate::{DecodeOptions, Decoder, Error, Limit, Refusal};

/// How many bytes are asked for at once.
const STEP: u64 = 8 << 20;

/// What a hole is made of, a divisor of `STEP` long.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// How much of a member's name an error has.
const SHOWN: usize = 300;

/// How [`extract`] works. Made by [`Default`], then assigned.
#[derive(Clone)]
#[non_exhaustive]
pub struct ExtractOptions {
    /// How many threads decode bzip2 blocks, as in [`DecodeOptions::threads`]. Default: the number of processors.
    pub threads: usize,
    /// Where the members of a tar go. Default: [`Destination::Target`].
    pub destination: Destination,
    /// Which links are made. Default: [`Links::Inside`].
    pub links: Links,
    /// The most bytes that may come out for each compressed byte, checked once more than 64 MiB came out. Holes of files
    /// and the tar's headers count as bytes. Default: 1,000, which gzip reaches with nothing but zeros and data never do.
    pub max_ratio: Option<f64>,
    /// The most bytes that all files together may have, holes included. A member whose header says more is refused
    /// before a byte of it is written. Default: no limit.
    pub max_bytes: Option<u64>,
    /// The most members. Default: 10 million.
    pub max_entries: Option<u64>,
    /// The most names in the path of a member. Default: 128.
    pub max_depth: usize,
    /// The most bytes in the path of a member and in the target of a link. Default: 4,095, which is Linux's own limit.
    pub max_path_length: usize,
    /// Called with a number of bytes before that many are written, in steps of up to 8 MiB, so that a budget of disk
    /// space can take them into account, wait until there is room, or refuse with an error; and with 0 as often in a hole
    /// that is digested. Where nothing fails, the sum is [`Extracted::bytes`] without holes, which take no room. An error
    /// stops the extraction ([`Error::Write`]) and is the way to cancel it. Default: none.
    #[allow(clippy::type_complexity)]
    pub on_write: Option<Arc<dyn Fn(u64) -> io::Result<()> + Send + Sync>>,
    /// Makes, for each file, what its bytes are given to while they are written, holes as zeros. What comes of it is
    /// [`Member::digest`]. Default: none.
    #[allow(clippy::type_complexity)]
    pub digest: Option<Arc<dyn Fn() -> Box<dyn ContentDigest> + Send + Sync>>,
    /// Called for each member when it has its final name. Default: none.
    #[allow(clippy::type_complexity)]
    pub on_member: Option<Arc<dyn Fn(&Member<'_>) + Send + Sync>>,
}

impl Default for ExtractOptions {
    fn default() -> ExtractOptions {
        ExtractOptions {
            threads: DecodeOptions::default().threads,
            destination: Destination::default(),
            links: Links::default(),
            max_ratio: Some(1000.0),
            max_bytes: None,
            max_entries: Some(10_000_000),
            max_depth: 128,
            max_path_length: 4095,
            on_write: None,
            digest: None,
            on_member: None,
        }
    }
}

impl fmt::Debug for ExtractOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExtractOptions")
            .field("threads", &self.threads)
            .field("destination", &self.destination)
            .field("links", &self.links)
            .field("max_ratio", &self.max_ratio)
            .field("max_bytes", &self.max_bytes)
            .field("max_entries", &self.max_entries)
            .field("max_depth", &self.max_depth)
            .field("max_path_length", &self.max_path_length)
            .finish_non_exhaustive()
    }
}

/// A digest of one file's content in the making.
pub trait ContentDigest {
    /// Takes in the next bytes.
    fn update(&mut self, bytes: &[u8]);

    /// The digest, in whatever form the caller reads.
    fn finish(self: Box<Self>) -> String;
}

/// Where the members of a tar go. A plain file always goes into the target folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Destination {
    /// Into the target folder, as with `tar x`.
    #[default]
    Target,
    /// Into a folder in the target folder that has the archive's name without `.tar` and the codec's extension
    /// ([`ArchiveName::output`]), which is made also for a tar without members. Links must stay in that folder.
    Folder,
}

/// Which links of a tar are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Links {
    /// Symbolic links whose target is inside, whether it exists or not, and hard links to files that are inside.
    #[default]
    Inside,
    /// None: [`Refusal::Link`].
    Refuse,
}

/// A member that was extracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member<'a> {
    /// Its path, relative to the target folder.
    pub path: &'a Path,
    /// What it is.
    pub kind: MemberKind,
    /// The size of a file, holes included; 0 for all else.
    pub bytes: u64,
    /// What [`ExtractOptions::digest`] made of a file; none for all else.
    pub digest: Option<&'a str>,
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MemberKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink,
    /// A hard link to a file.
    HardLink,
}

/// What was extracted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extracted {
    /// Regular files. One that an archive has twice counts twice, here and below.
    pub files: u64,
    /// Folders that are members.
    pub folders: u64,
    /// Symbolic and hard links.
    pub links: u64,
    /// Bytes of the files, holes included.
    pub bytes: u64,
    /// Bytes of the input.
    pub compressed_bytes: u64,
    /// Whether the content was a tar.
    pub is_tar: bool,
}

/// Extracts an archive or a compressed file into the folder `target`, which is made where it does not exist.
///
/// The codec is found by the content and checked against `name` (see [`Decoder::new`]). Whether what comes out is a tar
/// is found by its content, too: its first block is a header with a right checksum, or, where the name says tar (`.tar`,
/// `.tar.gz`, `.tgz` and the like), a block of zeros, which is an empty tar. A tar's members go where
/// [`ExtractOptions::destination`] says. Anything else is a single file, which goes to the last part of `name` without
/// the codec's extension, `target/courts.csv` for `bulk/courts.csv.bz2`.
///
/// ```
/// use std::io::Cursor;
///
/// use bulk_archive::{Error, ExtractOptions, Refusal, extract};
///
/// let folder = tempfile::tempdir()?;
/// let mut options = ExtractOptions::default();
/// options.max_bytes = Some(1 << 30);
/// let extracted = extract(Cursor::new("id\n"), "bulk/courts.csv", folder.path(), &options)?;
/// assert_eq!((extracted.files, extracted.bytes, extracted.is_tar), (1, 3, false));
/// assert_eq!(std::fs::read(folder.path().join("courts.csv"))?, b"id\n");
///
/// # let mut header = tar::Header::new_gnu();
/// # header.as_old_mut().name[..10].copy_from_slice(b"../escapes");
/// # (header.set_size(0), header.set_mode(0o644), header.set_mtime(0), header.set_cksum());
/// # let hostile = [header.as_bytes().as_slice(), &[0; 1024]].concat();
/// let error = extract(Cursor::new(hostile), "hostile.tar", folder.path(), &options).unwrap_err();
/// assert!(matches!(error, Error::Refused { reason: Refusal::ParentFolder, .. }));
/// assert_eq!(error.to_string(), r#"hostile.tar: member "../escapes" refused: its name has a `..`"#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What is made
/// - Every file grows under another name, in the folder `.bulk-extract` below `target`, is synced, and gets its final
///   name by a rename, in place of the file or link that has it. So a file under its final name is whole, whenever the
///   process or the machine dies. The folders are synced before it returns, `target` and those that it made above it
///   included. Several runs may extract into one target at once; each removes what it finds of runs that died.
/// - Files have the mode that the umask decides, with the executable bits that the header has; folders the mode that
///   the umask decides. Owners, the sticky bit and extended attributes are not restored. Times of last change are the
///   header's, for a folder that of its own header once the archive has left it; a single file's is now.
/// - A member that comes again replaces the one before it, as with `tar x`. Folders stay and are filled up. A file never
///   replaces a folder, nor a folder a file.
/// - Holes of files stored with GNU tar's `--sparse`, in all its formats, are made as holes.
///
/// # What is refused
/// Each [`Refusal`], and nothing is ever made outside `target` or through a symbolic link, also not through one that was
/// there before or that somebody else makes meanwhile. (`target` itself may be one.) Headers that readers are known to
/// take differently give [`Error::Tar`]: a long name that is given twice and differently, or to what is no member, a name
/// or size in a header for all members, a folder or link with data, numbers with anything behind them.
///
/// # Errors
/// The first error ends it, and nothing after it is extracted. Where it is about a member or a limit
/// ([`Error::Refused`], [`Error::LimitExceeded`], [`Error::Write`]) or about the tar ([`Error::Tar`],
/// [`Error::TarTruncated`]), the members before stay. So do some of the members before an error of the codec
/// ([`Error::Truncated`], [`Error::Corrupt`]), and those may be wrong unless
/// [`Codec::checks_before_giving`](crate::Codec::checks_before_giving). A tar without the block of zeros at its end is
/// cut short, though some programs accept it, and what follows that block must be zeros, up to the end of the input.
///
/// The other errors are those of [`Decoder`].
///
/// # Limits
/// Memory is bounded by the decoder's and a few MiB; 16 MiB more for a file with a million holes. Up to 70 files are
/// open at once. All that is made is on the file system of `target`: a mount point below it gives [`Error::Write`].
pub fn extract(
    input: impl Read + Send + 'static,
    name: &str,
    target: &Path,
    options: &ExtractOptions,
) -> Result<Extracted, Error> {
    enter_span!("extract", { archive = name });
    let decoder = Decoder::new(input, name, &DecodeOptions { threads: options.threads, ..DecodeOptions::default() })?;
    let mut source = Source::new(decoder, name, options.max_ratio);
    let head = source.head(BLOCK)?;
    let is_tar = match tar::is_header(head) {
        false if self::name::says_tar(name) => {
            if head.len() < BLOCK {
                return Err(Error::TarTruncated { file: name.to_owned(), offset: head.len() as u64 });
            }
            if !tar::is_zero(head) {
                let reason = "named as a tar, but the content does not begin with a header".to_owned();
                return Err(Error::Tar { file: name.to_owned(), offset: 0, reason });
            }
            true
        }
        is_tar => is_tar,
    };
    let write = |source| Error::Write { file: name.to_owned(), member: target.display().to_string(), source };
    let mut disk = Disk::open(target).map_err(write)?;
    disk.remove_leftovers().map_err(|fault| leftovers_failed(name, fault))?;
    let mut extraction =
        Extraction { options, base: PathBuf::new(), written: 0, stage: Stage::new(disk, name, options) };
    extraction.stage.done.is_tar = is_tar;
    let source = if is_tar { extraction.tar(source)? } else { extraction.plain(source)? };
    Ok(Extracted { compressed_bytes: source.compressed_bytes(), ..extraction.stage.done })
}

/// Removes what an [`extract`] into `target` that was killed has left of unfinished files, and says how many bytes they
/// took on disk. Those of runs that are under way stay. The next [`extract`] into `target` does it, too.
///
/// On file systems without locks (some network file systems) nothing can be told from a run that is under way, and
/// leftovers stay.
///
/// # Errors
/// [`Error::Write`] where a folder cannot be read, [`Error::Refused`] where the folder of unfinished files is none.
pub fn remove_leftovers(target: &Path) -> Result<u64, Error> {
    disk::remove_leftovers(target).map_err(|fault| leftovers_failed(&target.display().to_string(), fault))
}

fn leftovers_failed(file: &str, fault: Fault) -> Error {
    let (file, member) = (file.to_owned(), disk::PARTS.to_owned());
    match fault {
        Fault::Refused(reason) => Error::Refused { file, member, reason },
        Fault::Io(source) => Error::Write { file, member, source },
    }
}

/// One archive on its way to disk.
struct Extraction<'a> {
    options: &'a ExtractOptions,
    /// The folder of the members, relative to the target.
    base: PathBuf,
    /// Bytes of files so far.
    written: u64,
    stage: Stage<'a>,
}

impl Extraction<'_> {
    /// Extracts the single file that the content is.
    fn plain(&mut self, mut source: Source) -> Result<Source, Error> {
        let member = name::of_file(source.name(), source.codec()).to_owned();
        let path = self.path(&source, member.as_bytes())?;
        if path.as_os_str().is_empty() {
            return Err(refused(&source, member.as_bytes(), Refusal::TargetItself));
        }
        let part = self.stage.disk.part(0o666).map_err(|fault| self.stage.failed(&path, fault))?;
        let mut digest = self.digest();
        let mut file = part.file().map_err(|error| self.stage.failed(&path, error.into()))?;
        loop {
            let n = source.fill()?.len();
            if n == 0 {
                break;
            }
            self.count(&source, member.as_bytes(), n as u64)?;
            self.ask(n as u64).map_err(|error| self.stage.failed(&path, error.into()))?;
            let bytes = source.fill()?;
            file.write_all(bytes).map_err(|error| self.stage.failed(&path, error.into()))?;
            digest.update(bytes);
            source.consume(n);
        }
        self.stage.file(path, part, self.written, digest.finish())?;
        self.stage.flush()?;
        Ok(source)
    }

    /// Extracts the members of the tar.
    fn tar(&mut self, source: Source) -> Result<Source, Error> {
        if self.options.destination == Destination::Folder {
            let folder = name::of_folder(source.name()).as_bytes().to_owned();
            self.base = self.path(&source, &folder)?;
            if self.base.as_os_str().is_empty() {
                return Err(refused(&source, &folder, Refusal::TargetItself));
            }
        }
        let codec = source.codec();
        let mut tar = Tar::new(source);
        let outcome = self.members(&mut tar);
        match &outcome {
            // What waits was read of a file that is damaged.
            Err(Error::Truncated { .. } | Error::Corrupt { .. }) if !codec.checks_before_giving() => {}
            // An error of a member before is the one that counts.
            Err(_) => self.stage.flush()?,
            Ok(()) => {
                let base = &self.base;
                self.stage.disk.folder(base).map(drop).map_err(|fault| self.stage.failed(base, fault))?;
                self.stage.leave_all();
                self.stage.flush()?;
            }
        }
        outcome.map(|()| tar.source)
    }

    fn members(&mut self, tar: &mut Tar) -> Result<(), Error> {
        loop {
            let entry = tar.next()?;
            if let Some(most) = self.options.max_entries.filter(|&most| tar.entries > most) {
                let member = entry.map(|entry| shown(&entry.name));
                return Err(Error::LimitExceeded {
                    file: tar.source.name().to_owned(),
                    member,
                    limit: Limit::Entries(most),
                });
            }
            match entry {
                Some(entry) => self.member(tar, entry)?,
                None => return Ok(()),
            }
        }
    }

    fn member(&mut self, tar: &mut Tar, entry: Entry) -> Result<(), Error> {
        let refuse = |source: &Source, reason| Err(refused(source, &entry.name, reason));
        let inner = self.path(&tar.source, &entry.name)?;
        let path = self.base.join(&inner);
        match entry.kind {
            Kind::Device => return refuse(&tar.source, Refusal::Device),
            Kind::Fifo => return refuse(&tar.source, Refusal::Fifo),
            Kind::Unknown(kind) => return refuse(&tar.source, Refusal::UnknownType(kind)),
            Kind::Symlink | Kind::HardLink if self.options.links == Links::Refuse => {
                return refuse(&tar.source, Refusal::Link);
            }
            Kind::File if entry.mode & 0o6000 != 0 => return refuse(&tar.source, Refusal::SetId),
            Kind::Folder => {}
            _ if inner.as_os_str().is_empty() => return refuse(&tar.source, Refusal::TargetItself),
            _ => {}
        }
        self.stage.enter(&path);
        match entry.kind {
            Kind::File => self.file(tar, entry, path),
            Kind::Folder => {
                let mtime = Some(entry.mtime).filter(|_| !inner.as_os_str().is_empty());
                self.stage.folder(path, mtime)
            }
            Kind::Symlink => {
                path::link_target(&entry.link, &inner, self.options)
                    .map_err(|fault| not_taken(&tar.source, &entry.name, fault))?;
                self.stage.symlink(path, OsString::from_vec(entry.link), entry.mtime)
            }
            _ => {
                let to = match path::member(&entry.link, self.options) {
                    Ok(to) if to.as_os_str().is_empty() => return refuse(&tar.source, Refusal::LinkToSpecial),
                    Ok(to) => self.base.join(to),
                    Err(fault) => return Err(not_taken(&tar.source, &entry.name, target_fault(fault))),
                };
                if let Err(reason) = path::not_reserved(&to) {
                    return refuse(&tar.source, reason);
                }
                self.stage.hard_link(path, to)
            }
        }
    }

    fn file(&mut self, tar: &mut Tar, entry: Entry, path: PathBuf) -> Result<(), Error> {
        let size = entry.size();
        self.count(&tar.source, &entry.name, size)?;
        tar.source.count_hole(size.saturating_sub(entry.stored))?;
        if size >= MOST_BYTES {
            // Before much is written: what is in its way would be found only when it is named.
            self.stage.flush()?;
            let above = path.parent().unwrap_or(Path::new(""));
            self.stage.disk.folder(above).map(drop).map_err(|fault| self.stage.failed(&path, fault))?;
        }
        let part = self.stage.disk.part(0o666 | entry.mode & 0o111).map_err(|fault| self.stage.failed(&path, fault))?;
        let mut digest = self.digest();
        match &entry.sparse {
            None => self.copy(tar, &part, &path, entry.stored, &mut digest)?,
            Some(sparse) => {
                let mut end = 0;
                for &(offset, length) in &sparse.pieces {
                    self.hole(offset - end, &path, &mut digest)?;
                    seek(&part, offset).map_err(|error| self.stage.failed(&path, error.into()))?;
                    self.copy(tar, &part, &path, length, &mut digest)?;
                    end = offset + length;
                }
                self.hole(sparse.size - end, &path, &mut digest)?;
                part.file()
                    .and_then(|file| file.set_len(sparse.size))
                    .map_err(|error| self.stage.failed(&path, error.into()))?;
            }
        }
        tar.skip_padding(entry.stored)?;
        part.set_mtime(entry.mtime).map_err(|error| self.stage.failed(&path, error.into()))?;
        self.stage.file(path, part, size, digest.finish())
    }

    fn digest(&self) -> FileDigest {
        FileDigest(self.options.digest.as_ref().map(|new| new()))
    }

    /// Digests the zeros that a hole reads as.
    fn hole(&self, bytes: u64, path: &Path, digest: &mut FileDigest) -> Result<(), Error> {
        let mut rest = if digest.0.is_some() { bytes } else { 0 };
        while rest > 0 {
            if (bytes - rest).is_multiple_of(STEP) {
                self.ask(0).map_err(|error| self.stage.failed(path, error.into()))?;
            }
            let n = rest.min(ZEROS.len() as u64);
            digest.update(&ZEROS[..n as usize]);
            rest -= n;
        }
        Ok(())
    }

    /// Writes the next `length` bytes of the archive to the file.
    fn copy(
        &mut self,
        tar: &mut Tar,
        part: &Part,
        path: &Path,
        length: u64,
        digest: &mut FileDigest,
    ) -> Result<(), Error> {
        let (mut rest, mut granted) = (length, 0);
        let failed = |stage: &Stage<'_>, error: io::Error| stage.failed(path, error.into());
        let mut file: &File = part.file().map_err(|error| failed(&self.stage, error))?;
        while rest > 0 {
            if granted == 0 {
                granted = rest.min(STEP);
                self.ask(granted).map_err(|error| failed(&self.stage, error))?;
            }
            let bytes = tar.source.fill()?;
            if bytes.is_empty() {
                return Err(tar.source.truncated());
            }
            let n = granted.min(bytes.len() as u64);
            file.write_all(&bytes[..n as usize]).map_err(|error| failed(&self.stage, error))?;
            digest.update(&bytes[..n as usize]);
            tar.source.consume(n as usize);
            (rest, granted) = (rest - n, granted - n);
        }
        Ok(())
    }

    /// Counts bytes of files before they are written.
    fn count(&mut self, source: &Source, member: &[u8], bytes: u64) -> Result<(), Error> {
        self.written = self.written.saturating_add(bytes);
        match self.options.max_bytes {
            Some(most) if self.written > most => Err(not_taken(source, member, path::Fault::Limit(Limit::Bytes(most)))),
            _ => Ok(()),
        }
    }

    fn ask(&self, bytes: u64) -> io::Result<()> {
        self.options.on_write.as_ref().map_or(Ok(()), |on_write| on_write(bytes))
    }

    /// The path of a member relative to the folder of the archive's members.
    fn path(&self, source: &Source, name: &[u8]) -> Result<PathBuf, Error> {
        let path = path::member(name, self.options).map_err(|fault| not_taken(source, name, fault))?;
        path::not_reserved(&self.base.join(&path)).map_err(|reason| refused(source, name, reason))?;
        Ok(path)
    }
}

/// What the bytes of the file at hand are given to, if anybody wants that.
struct FileDigest(Option<Box<dyn ContentDigest>>);

impl FileDigest {
    fn update(&mut self, bytes: &[u8]) {
        if let Some(digest) = &mut self.0 {
            digest.update(bytes);
        }
    }

    fn finish(self) -> Option<String> {
        self.0.map(ContentDigest::finish)
    }
}

fn seek(part: &Part, offset: u64) -> io::Result<()> {
    let mut file: &File = part.file()?;
    file.seek(SeekFrom::Start(offset)).map(drop)
}

/// What is wrong with the name that a hard link is to.
fn target_fault(fault: path::Fault) -> path::Fault {
    match fault {
        path::Fault::Refused(Refusal::AbsolutePath | Refusal::ParentFolder) => Refusal::LinkLeaves.into(),
        path::Fault::Refused(Refusal::EmptyName) => Refusal::LinkEmpty.into(),
        other => other,
    }
}

fn not_taken(source: &Source, member: &[u8], fault: path::Fault) -> Error {
    match fault {
        path::Fault::Refused(reason) => refused(source, member, reason),
        path::Fault::Limit(limit) => {
            Error::LimitExceeded { file: source.name().to_owned(), member: Some(shown(member)), limit }
        }
    }
}

fn refused(source: &Source, member: &[u8], reason: Refusal) -> Error {
    Error::Refused { file: source.name().to_owned(), member: shown(member), reason }
}

fn shown(member: &[u8]) -> String {
    String::from_utf8_lossy(&member[..member.len().min(SHOWN)]).into_owned()
}
