use bulk_core::{ETag, Request};
use jiff::Timestamp;

use crate::ObjectRef;

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Object {
    /// The key, decoded.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// The tag. It is an MD5 only for objects that were neither uploaded in parts nor encrypted with KMS.
    pub etag: Option<ETag>,
    /// By the server's clock.
    pub last_modified: Option<Timestamp>,
}

impl From<ObjectRef<'_>> for Object {
    /// A size that is not known is 0.
    fn from(object: ObjectRef<'_>) -> Self {
        Self {
            key: object.key.to_owned(),
            size: object.size.unwrap_or_default(),
            etag: object.etag.map(ETag::new),
            last_modified: object.last_modified,
        }
    }
}

impl Object {
    /// An object of which only key and size are known.
    pub fn new(key: impl Into<String>, size: u64) -> Self {
        Self { key: key.into(), size, etag: None, last_modified: None }
    }

    /// The part of the key after its last `/`.
    pub fn file_name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or(&self.key)
    }

    /// The request that fetches this version of the object and stages it under its file name.
    pub fn request(&self) -> Request {
        let mut request = Request::new(&self.key);
        request.name = self.file_name().to_owned();
        request.size = Some(self.size);
        request.etag = self.etag.clone();
        request.last_modified = self.last_modified;
        request
    }
}
