//! What a prefix is to have, what it has, and how the one becomes the other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulk_core::{Algorithm, Digest};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use crate::bucket::md5;
use crate::upload::{CopyPlan, Observer, Uploader, blocking, headers_of};
use crate::{Bucket, Error, Object};

/// S3 takes no smaller part, but for the last one of an object.
pub(crate) const LEAST_PART: u64 = 5 << 20;
/// How many files are looked through at a time for what objects have of them.
const SCANS: usize = 4;
/// A manifest that is longer is taken for a damaged one.
const MANIFEST_LIMIT: usize = 256 << 20;

/// Files that belong together, and are to be all that stands below a prefix of a bucket.
///
/// A bucket has no rename, so objects are replaced one by one. What tells readers whether they see one set is its manifest: it is
/// removed before the first object of the old set is replaced, and written behind the last one. So readers have one set, if they
/// find the same manifest before and after they read; and where it has the digests of the files, each object can be held
/// against it. While no manifest is there, a set is being uploaded, or its upload was cut short.
#[derive(Clone)]
#[non_exhaustive]
pub struct FileSet {
    /// What all keys begin with: empty, or a folder with the slash behind it.
    pub prefix: String,
    /// Its files, but for the manifest, in any order.
    pub files: Vec<SetFile>,
    /// What is written last.
    pub manifest: FileSetManifest,
    /// Whether an object whose key is the prefix and this name may be of another edition of the set, so that it is removed if the
    /// set does not have it, and it was uploaded here. So may what the manifest names that stands there. Default: nothing else
    /// may.
    pub is_own: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

impl FileSet {
    /// Files under a prefix, from which nothing is removed but what its manifest there names.
    pub fn new(prefix: impl Into<String>, files: Vec<SetFile>, manifest: FileSetManifest) -> Self {
        Self { prefix: prefix.into(), files, manifest, is_own: Arc::new(|_| false) }
    }
}

impl fmt::Debug for FileSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, files, manifest, is_own: _ } = self;
        f.debug_struct("FileSet")
            .field("prefix", prefix)
            .field("files", files)
            .field("manifest", manifest)
            .finish_non_exhaustive()
    }
}

/// A file of a set. It must not change until it is uploaded: one that has another digest then is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetFile {
    /// Its key, without the prefix.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Its SHA-256. The object has it in hexadecimal digits as metadata, `x-amz-meta-sha256`.
    pub sha256: [u8; 32],
    /// The `Content-Type` of the object. Default none: then the server has one of its own.
    pub content_type: Option<String>,
    /// Whether it says nothing of the other files, so that it may be replaced while the manifest is there. Default no.
    pub stands_alone: bool,
}

impl SetFile {
    /// A file by name, place, size and digest.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>, size: u64, sha256: [u8; 32]) -> Self {
        Self { name: name.into(), path: path.into(), size, sha256, content_type: None, stands_alone: false }
    }
}

/// The manifest of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileSetManifest {
    /// Its key, without the prefix.
    pub name: String,
    /// Its content.
    pub bytes: Bytes,
    /// The `Content-Type` of the object. Default none.
    pub content_type: Option<String>,
}

impl FileSetManifest {
    /// A manifest by name and content.
    pub fn new(name: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        Self { name: name.into(), bytes: bytes.into(), content_type: None }
    }
}

/// How a set is uploaded.
#[derive(Clone)]
#[non_exhaustive]
pub struct SetOptions {
    /// Files that are larger go in parts of this size, or of a larger one if there were more than 10,000 of them. Default
    /// 8 MiB, at least 5 MiB.
    pub part_size: u64,
    /// Requests, and files or parts in memory, at a time, 1 to 1,024. Default 8.
    pub concurrency: usize,
    /// A folder where it is kept what the objects that were uploaded consist of, so that the server copies from the old object what
    /// a new one has in common with it, and only the rest is sent. It is made if need be, is for such notes alone, of whatever
    /// buckets, and may be lost: then files are sent whole. It takes about 40 bytes for 96 KiB of an object, in memory, too, for
    /// those files of an upload that are put together by copies. Notes of objects that the set has no more are removed when it is
    /// uploaded. What is to be removed though the set cannot tell that it was its own ([`FileSet::is_own`]) is kept there, too, as
    /// the manifest that names it goes before. Default none: nothing is copied, and such objects stay if an upload is cut short.
    ///
    /// This is for files of 16 MiB and more. What changed in a file is found by its content, and parts have at least 5 MiB, so
    /// each place that changed costs that much, and changes all over a file cost as much as the file.
    pub notes: Option<PathBuf>,
    /// Who is told. It runs in the task that uploads, so it should be quick. Default nobody.
    pub observer: Observer,
}

impl Default for SetOptions {
    fn default() -> Self {
        Self { part_size: 8 << 20, concurrency: 8, notes: None, observer: Arc::new(|_| {}) }
    }
}

impl fmt::Debug for SetOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part_size, concurrency, notes, observer: _ } = self;
        f.debug_struct("SetOptions")
            .field("part_size", part_size)
            .field("concurrency", concurrency)
            .field("notes", notes)
            .finish_non_exhaustive()
    }
}

/// What happens while a set is uploaded.
#[derive(Debug)]
#[non_exhaustive]
pub enum SetEvent<'a> {
    /// Uploads in parts that were cut short are aborted: what they had sent is paid for until then.
    Aborted {
        /// How many.
        uploads: u64,
    },
    /// It cannot be told, or changed, what uploads were cut short. This one goes on.
    NotAborted {
        /// Why.
        error: &'a Error,
    },
    /// The manifest is gone.
    Unpublished,
    /// A file is on its way.
    Begun {
        /// Which.
        file: &'a SetFile,
    },
    /// The server has taken some of its bytes. What is sent again, as an answer was lost, counts once.
    Sent {
        /// Of which.
        file: &'a SetFile,
        /// How many.
        bytes: u64,
    },
    /// The server has copied some of its bytes from the object that it takes the place of.
    Copied {
        /// Of which.
        file: &'a SetFile,
        /// How many.
        bytes: u64,
    },
    /// The server does not copy, or not this object, so the file begins anew and is sent whole; where it refuses to copy at
    /// all, so are those behind it.
    NotCopied {
        /// Which.
        file: &'a SetFile,
        /// What the server says.
        error: &'a Error,
    },
    /// It cannot be kept what an object consists of that was uploaded, so the next edition of it is sent whole.
    NotNoted {
        /// The object's file.
        file: &'a SetFile,
        /// What cannot be written.
        path: &'a Path,
        /// Why.
        error: &'a std::io::Error,
    },
    /// It cannot be kept what is to be removed once the manifest is there: it stays if this upload is cut short.
    RemovalsNotNoted {
        /// What cannot be written.
        path: &'a Path,
        /// Why.
        error: &'a std::io::Error,
    },
    /// A file is there.
    Put {
        /// Which.
        file: &'a SetFile,
    },
    /// The manifest is there: the set is whole.
    Published,
    /// An object that is not of the set any more is gone.
    Removed {
        /// Its key, without the prefix.
        name: &'a str,
    },
}

/// What a prefix lacks of a set.
pub struct SetPlan {
    set: FileSet,
    /// Indexes into the files of the set, the largest first.
    uploads: Vec<usize>,
    /// The objects that they take the place of.
    old: HashMap<usize, Object>,
    removals: Vec<String>,
    /// What other editions have had, as the manifest there says, or an upload that was cut short.
    former: BTreeSet<String>,
    replaced: u64,
    manifest: ManifestThere,
    options: SetOptions,
    bucket: Bucket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ManifestThere {
    None,
    Another,
    Same,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Uploaded {
    /// Files that were uploaded.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Those of the bytes that the server has copied.
    pub copied: u64,
    /// Files that were there already.
    pub kept: u64,
    /// Objects that were removed.
    pub removed: u64,
    /// Uploads of earlier runs that were aborted.
    pub aborted: u64,
}

/// Reads a manifest: the name of each file of its set, with the SHA-256 of those that it vouches for; none if it is damaged.
pub type ReadManifest<'a> = &'a (dyn Fn(&[u8]) -> Option<Vec<(String, Option<[u8; 32]>)>> + Send + Sync);

/// Finds what is missing below the set's prefix, or stands there and is not of the set. It only reads.
///
/// What may be removed is what the set says ([`FileSet::is_own`]), and what the manifest there names; it is removed if it has the
/// metadata that all objects get which are uploaded here.
///
/// An object is what the set has if its size is the file's, and the manifest that stands in the bucket, as `read_manifest`
/// reads it, names the same digest. Without a manifest, as after an upload that was cut short, and for files that it does not
/// name, the object's ETag says it, where it is the file's MD5, or else its metadata `x-amz-meta-sha256`, for which it is asked
/// with a HEAD.
///
/// The prefix is listed, page by page; what is kept in memory is what is, or may be, of the set.
///
/// # Errors
///
/// [`Error::Request`] and [`Error::Listing`] as [`Bucket::list`]; [`Error::Upload`] if a file cannot be read.
pub async fn compare_set(
    bucket: &Bucket,
    set: FileSet,
    options: SetOptions,
    read_manifest: ReadManifest<'_>,
) -> Result<SetPlan, Error> {
    let uploader = Uploader::new(bucket, &set.prefix, &options);
    let key_of = |name: &str| format!("{}{name}", set.prefix);
    let (manifest, named) = match uploader.read(&key_of(&set.manifest.name), MANIFEST_LIMIT).await {
        Ok(None) => (ManifestThere::None, Vec::new()),
        Ok(Some(bytes)) => {
            let is_same = bytes == set.manifest.bytes;
            let named = read_manifest(&bytes).unwrap_or_default();
            (if is_same { ManifestThere::Same } else { ManifestThere::Another }, named)
        }
        // One that is too long for us is another one.
        Err(Error::Request(error)) if is_too_long(&error) => (ManifestThere::Another, Vec::new()),
        Err(error) => return Err(error),
    };
    let names: BTreeSet<&str> = set.files.iter().map(|file| file.name.as_str()).collect();
    let mut former: BTreeSet<String> = uploader.noted_removals(&key_of(&set.manifest.name)).await.into_iter().collect();
    former.extend(named.iter().map(|(name, _)| name.clone()));
    former.retain(|name| !names.contains(name.as_str()));
    let vouched: HashMap<String, [u8; 32]> =
        named.into_iter().filter_map(|(name, sha256)| Some((name, sha256?))).collect();
    let mut there: BTreeMap<String, Object> = BTreeMap::new();
    let mut listing = std::pin::pin!(bucket.list(&set.prefix));
    while let Some(object) = listing.try_next().await? {
        let Some(name) = object.key.strip_prefix(&set.prefix) else { continue };
        let may_be_own = names.contains(name) || former.contains(name) || (set.is_own)(name);
        if name != set.manifest.name && may_be_own {
            there.insert(name.to_owned(), object);
        }
    }
    let has = |at: usize| {
        let (file, uploader) = (&set.files[at], &uploader);
        let object = there.get(&file.name).filter(|object| object.size == file.size);
        let is_vouched = vouched.get(&file.name).map(|sha256| *sha256 == file.sha256);
        let key = key_of(&file.name);
        async move {
            let has = match (object, is_vouched) {
                (None, _) => false,
                (Some(_), Some(is_same)) => is_same,
                (Some(object), None) => {
                    is_by_etag(uploader, object, file).await?
                        || uploader.stored(&key).await?.is_some_and(|stored| stored.is(file))
                }
            };
            Ok::<_, Error>((at, has))
        }
    };
    let compared = futures::stream::iter(0..set.files.len()).map(has).buffered(options.concurrency.clamp(1, 1024));
    let missing = compared.try_filter_map(|(at, has)| std::future::ready(Ok((!has).then_some(at))));
    let mut uploads: Vec<usize> = missing.try_collect().await?;
    uploads.sort_by(|one, other| set.files[*other].size.cmp(&set.files[*one].size).then(one.cmp(other)));
    let is_replaced = |at: &&usize| !set.files[**at].stands_alone && there.contains_key(&set.files[**at].name);
    let replaced = uploads.iter().filter(is_replaced).count() as u64;
    let gone = there.keys().filter(|name| !names.contains(name.as_str())).map(|name| {
        let (key, uploader) = (key_of(name), &uploader);
        async move {
            let stored = uploader.stored(&key).await?;
            Ok::<_, Error>(stored.is_some_and(|stored| stored.sha256.is_some()).then(|| name.clone()))
        }
    });
    let gone: Vec<_> = gone.collect();
    let gone = futures::stream::iter(gone).buffered(options.concurrency.clamp(1, 1024));
    let removals: Vec<String> = gone.try_filter_map(|name| std::future::ready(Ok(name))).try_collect().await?;
    drop(names);
    let old = uploads.iter().filter_map(|at| Some((*at, there.remove(&set.files[*at].name)?))).collect();
    Ok(SetPlan { set, uploads, old, removals, former, replaced, manifest, options, bucket: bucket.clone() })
}

fn is_too_long(error: &bulk_core::Error) -> bool {
    match error {
        bulk_core::Error::Exhausted { source, .. } => is_too_long(source),
        bulk_core::Error::Protocol { what, .. } => what.starts_with("the answer is longer than "),
        _ => false,
    }
}

/// Whether the object's ETag is the MD5 of the file, as far as it can be one.
async fn is_by_etag(uploader: &Uploader, object: &Object, file: &SetFile) -> Result<bool, Error> {
    let Some(md5) = object.etag.as_ref().and_then(|etag| md5(etag.as_str())) else { return Ok(false) };
    if !uploader.is_single(file.size) {
        return Ok(false);
    }
    let path = file.path.clone();
    let bytes = blocking(&file.path, move || std::fs::read(path)).await?;
    Ok(Digest::of(Algorithm::Md5, &bytes) == Digest::Md5(md5))
}

impl SetPlan {
    /// Files that are missing in the bucket, or stand there otherwise, the largest first.
    pub fn uploads(&self) -> impl ExactSizeIterator<Item = &SetFile> {
        self.uploads.iter().map(|at| &self.set.files[*at])
    }

    /// Names of objects that are not of the set any more.
    pub fn removals(&self) -> &[String] {
        &self.removals
    }

    /// Whether the manifest is to be removed before anything else is done, as objects that it may name are replaced.
    pub fn unpublishes(&self) -> bool {
        self.replaced > 0 && self.manifest != ManifestThere::None
    }

    /// Whether the set stands there as it is to be.
    pub fn is_done(&self) -> bool {
        self.uploads.is_empty() && self.removals.is_empty() && self.manifest == ManifestThere::Same
    }

    /// Makes the prefix be the set: aborts uploads of its keys that were cut short, removes the manifest if objects are
    /// replaced, uploads what is missing, writes the manifest, and removes what is not of the set.
    ///
    /// Dropping the future stops everything. What was uploaded stays; what was under way stays in the bucket without being an
    /// object, until the next run aborts it, or a rule of the bucket does (`AbortIncompleteMultipartUpload` in its lifecycle).
    /// The next [`compare_set`] finds what is missing then.
    ///
    /// Only one upload to a prefix may run at a time: nothing in S3's protocol keeps another one out.
    ///
    /// # Errors
    ///
    /// [`Error::Request`] if a request failed for good, [`Error::Upload`] if a file cannot be read or is not what the set
    /// says of it. The manifest is not written then. No other part of any file is begun, and unless the server does not answer,
    /// those that are on their way are waited for, and their uploads aborted.
    pub async fn upload(self) -> Result<Uploaded, Error> {
        let Self { set, options, .. } = &self;
        let uploader = Uploader::new(&self.bucket, &set.prefix, options);
        let concurrency = options.concurrency.clamp(1, 1024);
        let key_of = |name: &str| format!("{}{name}", set.prefix);
        let tell = |event: &SetEvent<'_>| (options.observer)(event);
        let mut done = Uploaded { kept: (set.files.len() - self.uploads.len()) as u64, ..Uploaded::default() };
        if self.is_done() {
            return Ok(done);
        }
        let names: BTreeSet<&str> = set.files.iter().map(|file| file.name.as_str()).collect();
        let is_meant = |key: &str| {
            let name = key.strip_prefix(&set.prefix).unwrap_or_default();
            names.contains(name) || self.former.contains(name) || (set.is_own)(name)
        };
        let manifest_key = key_of(&set.manifest.name);
        // The next run could not tell them from what somebody else has there: the manifest that names them goes.
        let untold: Vec<&str> = self.removals.iter().map(String::as_str).filter(|name| !(set.is_own)(name)).collect();
        if !untold.is_empty() {
            uploader.note_removals(&manifest_key, &untold).await;
        }
        match uploader.abort_unfinished(&set.prefix, &is_meant).await {
            Ok(0) => {}
            Ok(uploads) => {
                done.aborted = uploads;
                tell(&SetEvent::Aborted { uploads });
            }
            // Many a role may write and not list; what is left costs a little, and hinders nobody.
            Err(error) => tell(&SetEvent::NotAborted { error: &error }),
        }
        // Before the manifest goes: readers wait from then on.
        let mut plans = self.plans(&uploader).await?;
        if self.unpublishes() {
            uploader.remove(&manifest_key).await?;
            tell(&SetEvent::Unpublished);
        }
        let puts = self.uploads.iter().map(|at| {
            let (file, plan, uploader) = (&set.files[*at], plans.remove(at), &uploader);
            let key = key_of(&file.name);
            async move { uploader.put(&key, file, plan).await.map(|copied| Some((file, copied?))) }
        });
        let puts: Vec<_> = puts.collect();
        let mut puts = futures::stream::iter(puts).buffer_unordered(concurrency);
        let mut failed = None;
        while let Some(put) = puts.next().await {
            match put {
                Ok(Some((file, copied))) => {
                    done.files += 1;
                    done.bytes += file.size;
                    done.copied += copied;
                    tell(&SetEvent::Put { file });
                }
                Ok(None) => {}
                // A server that does not answer is not asked again; the next run is.
                Err(error) if error.is_remote() => return Err(failed.unwrap_or(error)),
                // It may do what is on its way to it after the upload was aborted, so that is waited for.
                Err(error) => {
                    uploader.end();
                    failed.get_or_insert(error);
                }
            }
        }
        drop(puts);
        if let Some(error) = failed {
            let _ = uploader.abort_unfinished(&set.prefix, &is_meant).await;
            return Err(error);
        }
        if self.unpublishes() || self.manifest != ManifestThere::Same {
            let FileSetManifest { bytes, content_type, .. } = &set.manifest;
            let Digest::Sha256(sha256) = Digest::of(Algorithm::Sha256, bytes) else { return Ok(done) };
            let headers = headers_of(&sha256, content_type.as_deref());
            uploader.put_bytes(&manifest_key, headers, bytes.clone()).await?;
            tell(&SetEvent::Published);
        }
        let removals = self.removals.iter().map(|name| {
            let (key, uploader) = (key_of(name), &uploader);
            async move {
                uploader.remove(&key).await?;
                Ok::<_, Error>(name)
            }
        });
        let removals: Vec<_> = removals.collect();
        let mut removals = futures::stream::iter(removals).buffer_unordered(concurrency);
        while let Some(name) = removals.try_next().await? {
            done.removed += 1;
            tell(&SetEvent::Removed { name });
        }
        uploader.forget_others(names.into_iter().map(key_of)).await;
        Ok(done)
    }

    /// How files are put together by copies. Not many are read at a time, since what is found out of a large one, and was of the
    /// object, is in memory meanwhile.
    async fn plans(&self, uploader: &Uploader) -> Result<HashMap<usize, CopyPlan>, Error> {
        let Self { set, old, .. } = self;
        let plans = self.uploads.iter().map(|at| async move {
            let file = &set.files[*at];
            let plan = uploader.plan(&format!("{}{}", set.prefix, file.name), file, old.get(at)).await?;
            Ok::<_, Error>(plan.map(|plan| (*at, plan)))
        });
        let plans: Vec<_> = plans.collect();
        let plans = futures::stream::iter(plans).buffer_unordered(SCANS.min(self.options.concurrency.max(1)));
        plans.try_filter_map(|plan| std::future::ready(Ok(plan))).try_collect().await
    }
}
