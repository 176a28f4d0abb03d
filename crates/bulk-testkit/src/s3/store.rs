//! What stands in a bucket.

use std::{
    borrow::Borrow,
    collections::BTreeMap,
    io,
    ops::Bound,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use super::{
    Error,
    folder::Folder,
    listing::{Page, Query, SortedKeys},
    object::{Meta, Object},
    upload::Upload,
};

/// The objects of a bucket: in memory, or the files of a folder.
#[derive(Debug)]
pub struct Store {
    kind: Kind,
    /// What a folder gets when its server starts.
    initial: Vec<(String, Object)>,
}

#[derive(Debug)]
enum Kind {
    Memory(Memory),
    Folder(Folder),
}

/// What ETags the files of a folder have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtagStyle {
    /// The MD5 of the content, as S3 makes it for a plain PUT. The file is read once to compute it, and again when its
    /// size or modification time have changed.
    Md5,
    /// The form of a multipart upload's, `HEX-N`, made from path, size and modification time without reading the file.
    Multipart,
}

impl Store {
    /// No objects yet. Keys are any UTF-8.
    pub fn memory() -> Self {
        Self { kind: Kind::Memory(Memory::default()), initial: Vec::new() }
    }

    /// The regular files below a folder, under their paths relative to it, as they are at each request. Nothing is
    /// cached but the ETags, and files are streamed, not loaded.
    ///
    /// Left out are directories that are symbolic links, and names that are not UTF-8. A key with an empty, `.` or `..`
    /// segment names no file.
    pub fn folder(path: impl Into<PathBuf>, etags: EtagStyle) -> Self {
        Self { kind: Kind::Folder(Folder::new(path.into(), etags)), initial: Vec::new() }
    }

    /// The store with this object put into it. In a folder it is written when the server starts.
    #[must_use]
    pub fn with(mut self, key: impl AsRef<str>, object: impl Into<Object>) -> Self {
        match &self.kind {
            Kind::Memory(memory) => drop(memory.write().insert(Key(key.as_ref().into()), object.into())),
            Kind::Folder(_) => self.initial.push((key.as_ref().to_owned(), object.into())),
        }
        self
    }

    /// Fails if there is nothing to serve.
    pub(super) fn prepare(&mut self) -> Result<(), Error> {
        if let Kind::Folder(folder) = &self.kind {
            folder.check()?;
            for (key, object) in self.initial.drain(..) {
                folder.put(&key, &object).map_err(|source| Error::Object { key, source })?;
            }
        }
        Ok(())
    }

    pub(super) fn open(&self, key: &str) -> io::Result<Option<Object>> {
        match &self.kind {
            Kind::Memory(memory) => Ok(memory.read().get(key.as_bytes()).cloned()),
            Kind::Folder(folder) => self.blocking(|| folder.open(key)),
        }
    }

    pub(super) fn page(&self, query: &Query) -> io::Result<Page<Meta>> {
        match &self.kind {
            Kind::Memory(memory) => Ok(query.page(&*memory.read())),
            Kind::Folder(folder) => self.blocking(|| folder.page(query)),
        }
    }

    pub(super) fn put(&self, key: &str, object: Object) -> io::Result<()> {
        match &self.kind {
            Kind::Memory(memory) => {
                memory.write().insert(Key(key.into()), object);
                Ok(())
            }
            Kind::Folder(folder) => self.blocking(|| folder.put(key, &object)),
        }
    }

    /// Removing what is not there succeeds.
    pub(super) fn remove(&self, key: &str) -> io::Result<()> {
        match &self.kind {
            Kind::Memory(memory) => {
                memory.write().remove(key.as_bytes());
                Ok(())
            }
            Kind::Folder(folder) => self.blocking(|| folder.remove(key)),
        }
    }

    pub(super) fn upload(&self, key: &str) -> io::Result<Upload> {
        match &self.kind {
            Kind::Memory(_) => Ok(Upload::memory()),
            Kind::Folder(folder) => self.blocking(|| folder.upload(key)),
        }
    }

    /// Runs what may wait for a disk, without holding up the other tasks of the server's runtime.
    pub(super) fn blocking<T>(&self, work: impl FnOnce() -> T) -> T {
        match (&self.kind, tokio::runtime::Handle::try_current()) {
            (Kind::Folder(_), Ok(handle)) if handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread => {
                tokio::task::block_in_place(work)
            }
            _ => work(),
        }
    }
}

impl<K: AsRef<str>, O: Into<Object>> FromIterator<(K, O)> for Store {
    /// The objects in memory.
    fn from_iter<I: IntoIterator<Item = (K, O)>>(objects: I) -> Self {
        let objects = objects.into_iter().map(|(key, object)| (Key(key.as_ref().into()), object.into())).collect();
        Self { kind: Kind::Memory(Memory(RwLock::new(objects))), initial: Vec::new() }
    }
}

#[derive(Debug, Default)]
struct Memory(RwLock<Objects>);

type Objects = BTreeMap<Key, Object>;

impl Memory {
    fn read(&self) -> RwLockReadGuard<'_, Objects> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Objects> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looked up by bytes, so that a listing can start at a place that is no UTF-8. The order of `str` is that of its
/// bytes, which `Borrow` requires.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key(Arc<str>);

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl SortedKeys for Objects {
    type Meta = Meta;

    fn range(&self, from: Bound<&[u8]>) -> impl Iterator<Item = (&Arc<str>, &Meta)> {
        self.range::<[u8], _>((from, Bound::Unbounded)).map(|(key, object)| (&key.0, &object.meta))
    }
}
