//! A folder as a bucket.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io::{self, Read},
    ops::Bound,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use jiff::Timestamp;
use md5::{Digest, Md5};

use super::{
    Error,
    listing::{Page, Query, SortedKeys, Versioned},
    object::{Content, Meta, Object, made_up_etag, whole_seconds},
    store::EtagStyle,
    upload::{Upload, is_unfinished},
};

#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    style: EtagStyle,
    etags: Mutex<HashMap<PathBuf, (Version, Arc<str>)>>,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    size: u64,
    modified: Option<SystemTime>,
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        Self { size: metadata.len(), modified: metadata.modified().ok() }
    }
}

impl Folder {
    pub(super) fn new(root: PathBuf, style: EtagStyle) -> Self {
        Self { root, style, etags: Mutex::default() }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        fs::read_dir(&self.root).map(drop).map_err(|source| Error::Folder { path: self.root.clone(), source })
    }

    pub(super) fn open(&self, key: &str) -> io::Result<Option<Object>> {
        let Some(path) = self.path(key) else { return Ok(None) };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) => return absent(error).map(|()| None),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let meta = self.meta(&path, &metadata)?;
        let mut object = Object::with_content(meta.size, String::new(), Content::File(Arc::new(file)));
        object.meta = meta;
        Ok(Some(object))
    }

    /// Only the files of this page are read for their ETags.
    pub(super) fn page(&self, query: &Query) -> io::Result<Page<Meta>> {
        let mut files = Vec::new();
        let above = query.prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        if above.is_empty() {
            if !query.prefix.starts_with('/') {
                walk(&self.root, "", &mut files)?;
            }
        } else if let Some(path) = self.path(above).filter(|path| path.is_dir()) {
            walk(&path, &format!("{above}/"), &mut files)?;
        }
        files.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let page = query.page(&Files(files));
        page.try_map(|key, Found(metadata)| self.meta(&self.root.join(key), &metadata))
    }

    pub(super) fn put(&self, key: &str, object: &Object) -> io::Result<()> {
        let mut upload = self.upload(key)?;
        object.write_to(&mut upload)?;
        upload.persist()
    }

    pub(super) fn remove(&self, key: &str) -> io::Result<()> {
        match self.path(key) {
            None => Ok(()),
            Some(path) => fs::remove_file(path).or_else(absent),
        }
    }

    pub(super) fn upload(&self, key: &str) -> io::Result<Upload> {
        let path = self.path(key).ok_or_else(|| io::Error::other("the key names no file in a folder"))?;
        Upload::file(path)
    }

    /// `None` if the key could name anything but a file below the root.
    fn path(&self, key: &str) -> Option<PathBuf> {
        let plain = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && !segment.contains(['\0', std::path::MAIN_SEPARATOR])
                && !is_unfinished(segment)
        };
        key.split('/').all(plain).then(|| self.root.join(key))
    }

    fn meta(&self, path: &Path, metadata: &Metadata) -> io::Result<Meta> {
        let version = Version::of(metadata);
        let modified = version.modified.unwrap_or(SystemTime::UNIX_EPOCH);
        let last_modified = whole_seconds(Timestamp::try_from(modified).unwrap_or(Timestamp::UNIX_EPOCH));
        Ok(Meta { size: version.size, etag: self.etag(path, version)?, last_modified })
    }

    fn etag(&self, path: &Path, version: Version) -> io::Result<Arc<str>> {
        let etags = || self.etags.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, etag)) = etags().get(path)
            && *known == version
        {
            return Ok(Arc::clone(etag));
        }
        let etag: Arc<str> = match self.style {
            EtagStyle::Md5 => md5_of(path)?.into(),
            EtagStyle::Multipart => {
                let seed = format!("{} {:?}", path.display(), version.modified);
                made_up_etag(version.size, seed.as_bytes()).into()
            }
        };
        etags().insert(path.to_owned(), (version, Arc::clone(&etag)));
        Ok(etag)
    }
}

struct Files(Vec<(String, Found)>);

/// A file, as it was found.
#[derive(Clone)]
struct Found(Metadata);

impl Versioned for Found {}

impl SortedKeys for Files {
    type Meta = Found;

    fn walk(&self, from: Bound<&[u8]>, mut take: impl FnMut(&str, &Found) -> bool) {
        let start = self.0.partition_point(|(key, _)| match from {
            Bound::Unbounded => false,
            Bound::Included(from) => key.as_bytes() < from,
            Bound::Excluded(from) => key.as_bytes() <= from,
        });
        self.0[start..].iter().all(|(key, found)| take(key, found));
    }
}

/// Collects the files below `folder` with keys that start with `prefix`, in no order. What vanishes meanwhile is left
/// out.
fn walk(folder: &Path, prefix: &str, files: &mut Vec<(String, Found)>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return absent(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !is_unfinished(name)) else { continue };
        let key = format!("{prefix}{name}");
        let Ok(file_type) = entry.file_type() else { continue };
        if file_type.is_dir() {
            walk(&entry.path(), &format!("{key}/"), files)?;
        } else if let Ok(metadata) = fs::metadata(entry.path())
            && metadata.is_file()
        {
            files.push((key, Found(metadata)));
        }
    }
    Ok(())
}

fn md5_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut digest = Md5::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(super::xml::hex(&digest.finalize())),
            read => digest.update(&buffer[..read]),
        }
    }
}

/// A key below a file (`NotADirectory`), one that is a directory, or one that is too long names no object either.
fn absent(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::InvalidFilename => Ok(()),
        _ => Err(error),
    }
}
