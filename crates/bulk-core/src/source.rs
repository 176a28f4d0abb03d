use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;

use crate::{Digest, ETag, Error};

/// One file of a plan: what to fetch, and the name under which it is staged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// What the source calls it: an object key, or a path below the source's base URL or folder.
    pub key: String,
    /// Its path below the staging folder, with `/` between its segments. No absolute paths, no empty segments, `.` or `..`,
    /// nothing below `.bulk`, and not `manifest.json`, which [`write_manifest`](crate::write_manifest) makes; on Windows no
    /// `\` or `:` either. Another one fails with [`Error::Name`] in its place of the plan.
    pub name: String,
    /// Bytes, where a listing gave them. An object of another size has changed since.
    pub size: Option<u64>,
    /// The version, where a listing gave it. If the object has changed since, [`download`](crate::download()) says so
    /// in [`Event::Restarted`](crate::Event::Restarted) and fetches what is there instead;
    /// [`StagedFile::etag`](crate::StagedFile::etag) tells which version came.
    pub etag: Option<ETag>,
    /// When the object last changed, by the server's clock.
    pub last_modified: Option<Timestamp>,
    /// What its content has to be, where somebody else than the source says so, such as a list of checksums: compared
    /// with what arrives, before it gets its final name. Another content fails with [`Error::Unexpected`] and is thrown
    /// away; of [bodies](crate::OrderedBody) it is the last read that fails. A file that is there already is not read for
    /// it. With [`Keep::Nothing`](crate::Keep) they are computed as the bytes are read. Default none.
    pub digests: Vec<Digest>,
    /// Bytes of disk that its reader will need besides, such as for what it extracts, as far as can be guessed. They are
    /// reserved together with its own, and are free again when the [`StagedFile`](crate::StagedFile) or body is dropped. A
    /// guess refuses nothing: the file in front is fetched without them where they cannot be had, and those behind it give
    /// them up when a claim on the [`DiskBudget`](crate::DiskBudget) waits. Default 0.
    pub extra_space: u64,
}

impl Request {
    /// A request for `key`, staged under the same name, of unknown size and version.
    pub fn new(key: impl Into<String>) -> Self {
        let key = key.into();
        Self {
            name: key.clone(),
            key,
            size: None,
            etag: None,
            last_modified: None,
            digests: Vec::new(),
            extra_space: 0,
        }
    }

    /// Whether another version of the object than the one wanted could be told from it without asking the source. A time
    /// does not do: what is written twice within its precision has the same.
    pub(crate) fn names_version(&self) -> bool {
        self.etag.as_ref().is_some_and(|etag| !etag.is_weak())
    }
}

/// What [`Source::get`] is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Get {
    /// The key, as in [`Request::key`].
    pub key: String,
    /// The first byte wanted.
    pub start: u64,
    /// The byte behind the last one wanted; `None` for the object's end. A range from 0 to `None` is no range: it asks
    /// for the whole object. Never at or before `start`.
    pub end: Option<u64>,
    /// Answer only if the object still has this tag; [`Error::Changed`] otherwise.
    pub if_match: Option<ETag>,
}

impl Get {
    /// The whole object, whatever its version.
    pub fn new(key: impl Into<String>) -> Self {
        Self { key: key.into(), start: 0, end: None, if_match: None }
    }
}

/// A source's answer: the object's properties, and its bytes from [`Body::start`] on.
///
/// Dropping it closes the connection that carries it.
#[non_exhaustive]
pub struct Body {
    /// The offset of the first byte that follows: the one asked for, or 0 from a source without ranges, which gives the
    /// whole object.
    pub start: u64,
    /// The offset behind the last byte, if the source told.
    pub end: Option<u64>,
    /// The size of the whole object, if the source told.
    pub size: Option<u64>,
    /// The object's tag, if it has one.
    pub etag: Option<ETag>,
    /// When the object last changed, by the source's clock.
    pub last_modified: Option<Timestamp>,
    /// Whether the source gives ranges of this object, as far as this answer tells. In an answer to a request for a range:
    /// whether it is that range; else it is the whole object.
    pub has_ranges: bool,
    /// Digests of the whole object, as the source states them.
    pub digests: Vec<Digest>,
    /// The bytes. An item that is an error is the last one.
    pub bytes: BoxStream<'static, Result<Bytes, Error>>,
}

impl Body {
    /// A body of `bytes` that starts at `start`, with nothing known of the object.
    pub fn new(start: u64, bytes: BoxStream<'static, Result<Bytes, Error>>) -> Self {
        Self {
            start,
            end: None,
            size: None,
            etag: None,
            last_modified: None,
            has_ranges: false,
            digests: Vec::new(),
            bytes,
        }
    }
}

/// Where objects come from. Implementations hold connections and credentials, make one attempt for each call, and
/// leave retries to the caller.
///
/// Whether an implementation does what is written here, the `conformance` module (feature `conformance`) checks.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// How messages name `key`: a URL or a path, without secrets.
    fn location(&self, key: &str) -> String;

    /// What tells the object from every other one, of whatever source: a file that a record says came from elsewhere is
    /// not taken for it. Without secrets, since it is written beside the file; the same for every run, so without what
    /// differs from one to the next, such as a signature. Default: as [`location`](Self::location).
    fn identity(&self, key: &str) -> String {
        self.location(key)
    }

    /// Opens the object at `get.start`. The call returns when the object's properties are known; its bytes come as the
    /// body is read.
    ///
    /// The body is of one version of the object, starts at `get.start` and ends at `get.end` or the object's end, whichever
    /// comes first; or, from a source without ranges, is the whole object. Where [`Body::end`] is told, the stream has
    /// exactly that many bytes or ends in an error.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Denied`], [`Error::Changed`] when `if_match` does not hold (also because the object
    /// has no tag any more) or when `start` is not 0 and no byte stands there, and errors of the transport;
    /// [`Error::is_transient`] tells which are worth a retry.
    async fn get(&self, get: &Get) -> Result<Body, Error>;

    /// Digests of the whole object, for a source that does not state them beside a range (S3 does not). It is asked once
    /// for an object that came in segments of which none stated any, and answers for the version `if_match`. Default:
    /// none.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get). The object counts as one without digests then.
    async fn digests(&self, key: &str, if_match: Option<&ETag>) -> Result<Vec<Digest>, Error> {
        let _ = (key, if_match);
        Ok(Vec::new())
    }
}

/// Whether a key or name, joined to a folder, stays below it and names a file.
pub(crate) fn is_inside(name: &str) -> bool {
    // On Windows the others separate segments, drives and streams, too.
    let foreign: &[char] = if cfg!(windows) { &['\0', '\\', ':'] } else { &['\0'] };
    !name.contains(foreign) && name.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
}
