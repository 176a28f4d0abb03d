//! What stands in a bucket.

use std::{
    borrow::Borrow,
    collections::BTreeMap,
    io,
    ops::Bound,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use jiff::Timestamp;

use super::{
    Error, KeySpace, Quirk,
    fault::ListingEffects,
    folder::Folder,
    listing::{Listed, Page, Query, SortedKeys, Version, Versioned},
    object::{Meta, Object, default_last_modified},
    upload::Upload,
};

/// The objects of a bucket: in memory, or the files of a folder, or made up.
#[derive(Debug)]
pub struct Store {
    kind: Kind,
    /// What a folder gets when its server starts.
    initial: Vec<(String, Object)>,
    pub(super) quirks: Vec<Quirk>,
    pub(super) is_requester_pays: bool,
}

#[derive(Debug)]
enum Kind {
    Memory(Memory),
    Folder(Folder),
    MadeUp(KeySpace),
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
        Self::of(Kind::Memory(Memory::default()))
    }

    /// No objects yet, in a bucket that keeps what is replaced or removed: each of them stays as a version, and what is
    /// removed is followed by a delete marker. ListObjectVersions lists them all; GET and HEAD take a `versionId`.
    pub fn versioned() -> Self {
        Self::of(Kind::Memory(Memory { is_versioned: true, ..Memory::default() }))
    }

    /// The regular files below a folder, under their paths relative to it, as they are at each request. Nothing is
    /// cached but the ETags, and files are streamed, not loaded.
    ///
    /// Left out are directories that are symbolic links, and names that are not UTF-8. A key with an empty, `.` or `..`
    /// segment names no file.
    pub fn folder(path: impl Into<PathBuf>, etags: EtagStyle) -> Self {
        Self::of(Kind::Folder(Folder::new(path.into(), etags)))
    }

    /// Keys and objects that follow from an index, so that sixty million cost no memory. Nothing can be put into it or
    /// removed.
    pub fn made_up(keys: KeySpace) -> Self {
        Self::of(Kind::MadeUp(keys))
    }

    fn of(kind: Kind) -> Self {
        Self { kind, initial: Vec::new(), quirks: Vec::new(), is_requester_pays: false }
    }

    /// The store with this object put into it. In a folder it is written when the server starts. Passed over where
    /// objects are made up.
    #[must_use]
    pub fn with(mut self, key: impl AsRef<str>, object: impl Into<Object>) -> Self {
        match &self.kind {
            Kind::Memory(memory) => memory.put(key.as_ref(), object.into()),
            Kind::Folder(_) => self.initial.push((key.as_ref().to_owned(), object.into())),
            Kind::MadeUp(_) => {}
        }
        self
    }

    /// The store with this key removed from it, which leaves a delete marker where versions are kept, last modified at
    /// 2024-01-01T00:00:00Z. Passed over in a folder and where objects are made up.
    #[must_use]
    pub fn without(self, key: impl AsRef<str>) -> Self {
        if let Kind::Memory(memory) = &self.kind {
            memory.remove(key.as_ref(), default_last_modified());
        }
        self
    }

    /// The store served with this difference from S3, and those given before.
    #[must_use]
    pub fn quirk(mut self, quirk: Quirk) -> Self {
        self.quirks.push(quirk);
        self
    }

    /// The store as a bucket whose reader pays: requests without `x-amz-request-payer: requester` are answered with 403.
    #[must_use]
    pub fn requester_pays(mut self) -> Self {
        self.is_requester_pays = true;
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

    /// Its newest version.
    pub(super) fn open(&self, key: &str) -> io::Result<Found> {
        match &self.kind {
            Kind::Memory(memory) => {
                let objects = memory.read();
                Ok(objects.get(key.as_bytes()).map_or(Found::Nothing, |versions| versions.newest().found()))
            }
            Kind::Folder(folder) => Ok(self.blocking(|| folder.open(key))?.into()),
            Kind::MadeUp(keys) => Ok(keys.open(key).into()),
        }
    }

    /// The version of this name: `null` is that of an object without versions.
    pub(super) fn open_version(&self, key: &str, id: &str) -> io::Result<Found> {
        match &self.kind {
            Kind::Memory(memory) => {
                let objects = memory.read();
                let mut versions = objects.get(key.as_bytes()).into_iter().flat_map(|versions| &versions.0);
                let version = versions.find(|version| version.id_text().as_deref().unwrap_or("null") == id);
                Ok(version.map_or(Found::Nothing, Stored::found))
            }
            _ if id == "null" => self.open(key),
            _ => Ok(Found::Nothing),
        }
    }

    /// The XML of a page, and how many keys are on it.
    pub(super) fn list(&self, query: &Query, bucket: &str, effects: &ListingEffects) -> io::Result<(String, usize)> {
        fn xml<M: Listed>(query: &Query, bucket: &str, effects: &ListingEffects, page: Page<M>) -> (String, usize) {
            let mut page = page;
            query.spoil(&mut page, effects);
            (query.render(bucket, &page), page.keys())
        }
        Ok(match &self.kind {
            Kind::Memory(memory) if query.is_of_versions() => {
                xml(query, bucket, effects, query.page(&AllVersions(&memory.read())))
            }
            Kind::Memory(memory) => xml(query, bucket, effects, query.page(&*memory.read())),
            Kind::Folder(folder) => xml(query, bucket, effects, self.blocking(|| folder.page(query))?),
            Kind::MadeUp(keys) => xml(query, bucket, effects, query.page(keys)),
        })
    }

    pub(super) fn put(&self, key: &str, object: Object) -> io::Result<()> {
        match &self.kind {
            Kind::Memory(memory) => {
                memory.put(key, object);
                Ok(())
            }
            Kind::Folder(folder) => self.blocking(|| folder.put(key, &object)),
            Kind::MadeUp(_) => Err(made_up()),
        }
    }

    /// Removing what is not there succeeds.
    pub(super) fn remove(&self, key: &str) -> io::Result<()> {
        match &self.kind {
            Kind::Memory(memory) => {
                memory.remove(key, Timestamp::now());
                Ok(())
            }
            Kind::Folder(folder) => self.blocking(|| folder.remove(key)),
            Kind::MadeUp(_) => Err(made_up()),
        }
    }

    pub(super) fn upload(&self, key: &str) -> io::Result<Upload> {
        match &self.kind {
            Kind::Memory(_) => Ok(Upload::memory()),
            Kind::Folder(folder) => self.blocking(|| folder.upload(key)),
            Kind::MadeUp(_) => Err(made_up()),
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

fn made_up() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the objects of this bucket are made up")
}

impl<K: AsRef<str>, O: Into<Object>> FromIterator<(K, O)> for Store {
    /// The objects in memory.
    fn from_iter<I: IntoIterator<Item = (K, O)>>(objects: I) -> Self {
        let store = |(key, object): (K, O)| (Key(key.as_ref().into()), Versions(vec![Stored::only(object.into())]));
        let objects = objects.into_iter().map(store).collect();
        Self::of(Kind::Memory(Memory { objects: RwLock::new(objects), ..Memory::default() }))
    }
}

/// What stands under a key.
pub(super) enum Found {
    Nothing,
    DeleteMarker { version: Option<String> },
    Object { object: Object, version: Option<String> },
}

impl Found {
    pub(super) fn into_object(self) -> Option<Object> {
        match self {
            Self::Object { object, .. } => Some(object),
            Self::Nothing | Self::DeleteMarker { .. } => None,
        }
    }
}

impl From<Option<Object>> for Found {
    fn from(object: Option<Object>) -> Self {
        object.map_or(Self::Nothing, |object| Self::Object { object, version: None })
    }
}

#[derive(Debug, Default)]
struct Memory {
    objects: RwLock<Objects>,
    is_versioned: bool,
    /// How many versions have been made.
    versions: AtomicU64,
}

type Objects = BTreeMap<Key, Versions>;

impl Memory {
    fn read(&self) -> RwLockReadGuard<'_, Objects> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Objects> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, key: &str, object: Object) {
        if self.is_versioned {
            let last_modified = object.meta.last_modified;
            self.push(key, Some(object), last_modified);
        } else {
            self.write().insert(Key(key.into()), Versions(vec![Stored::only(object)]));
        }
    }

    /// S3 marks even what never was.
    fn remove(&self, key: &str, at: Timestamp) {
        if self.is_versioned {
            self.push(key, None, at);
        } else {
            self.write().remove(key.as_bytes());
        }
    }

    fn push(&self, key: &str, object: Option<Object>, last_modified: Timestamp) {
        let id = self.versions.fetch_add(1, Ordering::Relaxed) + 1;
        let version = Stored { id, object, last_modified };
        self.write().entry(Key(key.into())).or_insert_with(|| Versions(Vec::new())).0.push(version);
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

/// Of one key, the newest last; there is at least one.
#[derive(Debug)]
struct Versions(Vec<Stored>);

impl Versions {
    fn newest(&self) -> &Stored {
        self.0.last().expect("a key comes with its first version")
    }
}

#[derive(Debug)]
struct Stored {
    /// 0 in a bucket without versions.
    id: u64,
    /// `None` for a delete marker.
    object: Option<Object>,
    last_modified: Timestamp,
}

impl Stored {
    fn only(object: Object) -> Self {
        Self { id: 0, last_modified: object.meta.last_modified, object: Some(object) }
    }

    /// Opaque, and in no order, as with S3.
    fn id_text(&self) -> Option<String> {
        (self.id > 0).then(|| format!("{:016x}{:016x}", super::made_up::mixed(self.id), self.id))
    }

    fn found(&self) -> Found {
        match &self.object {
            Some(object) => Found::Object { object: object.clone(), version: self.id_text() },
            None => Found::DeleteMarker { version: self.id_text() },
        }
    }
}

impl SortedKeys for Objects {
    type Meta = Meta;

    fn walk(&self, from: Bound<&[u8]>, mut take: impl FnMut(&str, &Meta) -> bool) {
        let keys = self.range::<[u8], _>((from, Bound::Unbounded));
        let mut objects = keys.filter_map(|(key, versions)| Some((key, versions.newest().object.as_ref()?)));
        objects.all(|(key, object)| take(&key.0, &object.meta));
    }
}

struct AllVersions<'a>(&'a Objects);

/// One version in a listing; without its object a delete marker.
#[derive(Clone)]
struct VersionMeta {
    id: Option<String>,
    is_latest: bool,
    object: Option<Meta>,
    last_modified: Timestamp,
}

impl SortedKeys for AllVersions<'_> {
    type Meta = VersionMeta;

    fn walk(&self, from: Bound<&[u8]>, mut take: impl FnMut(&str, &VersionMeta) -> bool) {
        for (key, versions) in self.0.range::<[u8], _>((from, Bound::Unbounded)) {
            for (age, version) in versions.0.iter().rev().enumerate() {
                let meta = VersionMeta {
                    id: version.id_text(),
                    is_latest: age == 0,
                    object: version.object.as_ref().map(|object| object.meta.clone()),
                    last_modified: version.last_modified,
                };
                if !take(&key.0, &meta) {
                    return;
                }
            }
        }
    }
}

impl Versioned for VersionMeta {
    fn version(&self) -> Version {
        Version { id: self.id.clone(), is_latest: self.is_latest, is_delete_marker: self.object.is_none() }
    }
}

impl Listed for VersionMeta {
    fn size(&self) -> u64 {
        self.object.as_ref().map_or(0, |meta| meta.size)
    }

    fn push_etag(&self, out: &mut String) {
        if let Some(meta) = &self.object {
            meta.push_etag(out);
        }
    }

    fn last_modified(&self) -> i64 {
        self.last_modified.as_second()
    }
}
