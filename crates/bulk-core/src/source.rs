use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;

use crate::{ETag, Error};

/// One file of a plan: what to fetch, and the name under which it is staged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// What the source calls it: an object key, or a path below the source's base URL or folder.
    pub key: String,
    /// Its path below the staging folder. No absolute paths, no `.` or `..`, nothing below `.bulk`.
    pub name: String,
    /// Bytes, where a listing gave them. An object of another size has changed since.
    pub size: Option<u64>,
    /// The version, where a listing gave it. If the object has changed since, [`download`](crate::download()) says so
    /// in [`Event::Restarted`](crate::Event::Restarted) and fetches what is there instead;
    /// [`StagedFile::etag`](crate::StagedFile::etag) tells which version came.
    pub etag: Option<ETag>,
    /// When the object last changed, by the server's clock.
    pub last_modified: Option<Timestamp>,
}

impl Request {
    /// A request for `key`, staged under the same name, of unknown size and version.
    pub fn new(key: impl Into<String>) -> Self {
        let key = key.into();
        Self { name: key.clone(), key, size: None, etag: None, last_modified: None }
    }
}

/// What [`Source::get`] is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Get {
    /// The key, as in [`Request::key`].
    pub key: String,
    /// The first byte wanted; the body runs to the end of the object. 0 asks for all of it.
    pub start: u64,
    /// Answer only if the object still has this tag; [`Error::Changed`] otherwise.
    pub if_match: Option<ETag>,
}

impl Get {
    /// The whole object, whatever its version.
    pub fn new(key: impl Into<String>) -> Self {
        Self { key: key.into(), start: 0, if_match: None }
    }
}

/// A source's answer: the object's properties, and its bytes from [`Body::start`] on.
///
/// Dropping it closes the connection that carries it.
#[non_exhaustive]
pub struct Body {
    /// The offset of the first byte that follows. It may be 0 where more was asked for: a server without ranges sends
    /// everything.
    pub start: u64,
    /// The size of the whole object, if the source told.
    pub size: Option<u64>,
    /// The object's tag, if it has one.
    pub etag: Option<ETag>,
    /// When the object last changed, by the source's clock.
    pub last_modified: Option<Timestamp>,
    /// The bytes. An item that is an error is the last one.
    pub bytes: BoxStream<'static, Result<Bytes, Error>>,
}

impl Body {
    /// A body of `bytes` that starts at `start`, with nothing known of the object.
    pub fn new(start: u64, bytes: BoxStream<'static, Result<Bytes, Error>>) -> Self {
        Self { start, size: None, etag: None, last_modified: None, bytes }
    }
}

/// Where objects come from. Implementations hold connections and credentials, make one attempt for each call, and
/// leave retries to the caller.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// How messages name `key`: a URL or a path, without secrets.
    fn location(&self, key: &str) -> String;

    /// Opens the object at `get.start`.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Denied`], [`Error::Changed`] when `if_match` does not hold, and errors of the
    /// transport; [`Error::is_transient`] tells which are worth a retry.
    async fn get(&self, get: &Get) -> Result<Body, Error>;
}

/// Whether a key or name, joined to a folder, stays below it and names a file.
pub(crate) fn is_inside(name: &str) -> bool {
    !name.contains('\0') && name.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
}
