use std::fmt;

use bulk_core::ETag;
use jiff::Timestamp;

use crate::Object;

/// An object as a listing or a known-object store describes it, borrowed from a [`Batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectRef<'a> {
    /// The key, decoded.
    pub key: &'a str,
    /// The ETag without quotes, opaque. Default none.
    pub etag: Option<&'a str>,
    /// Bytes. Default none: not every store knows them.
    pub size: Option<u64>,
    /// By the server's clock. Default none.
    pub last_modified: Option<Timestamp>,
    /// SHA-256 of the content, if a sync has fetched it. Default none; a listing has none.
    pub content: Option<[u8; 32]>,
}

impl<'a> ObjectRef<'a> {
    /// An object of which only the key is known.
    pub fn new(key: &'a str) -> Self {
        Self { key, etag: None, size: None, last_modified: None, content: None }
    }
}

impl<'a> From<&'a Object> for ObjectRef<'a> {
    fn from(object: &'a Object) -> Self {
        Self {
            key: &object.key,
            etag: object.etag.as_ref().map(ETag::as_str),
            size: Some(object.size),
            last_modified: object.last_modified,
            content: None,
        }
    }
}

/// Objects, in the order in which they were pushed: their texts stand in one buffer, so a batch of any number of them has
/// two allocations.
#[derive(Clone, Default)]
pub struct Batch {
    text: String,
    entries: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    /// Where the key ends and the ETag begins; the key begins where the entry before ends.
    key_end: usize,
    etag_end: usize,
    has_etag: bool,
    size: Option<u64>,
    last_modified: Option<Timestamp>,
    content: Option<[u8; 32]>,
}

impl Batch {
    /// No objects.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts an object behind those that are there.
    pub fn push(&mut self, object: ObjectRef<'_>) {
        self.text.push_str(object.key);
        let key_end = self.text.len();
        self.text.push_str(object.etag.unwrap_or_default());
        self.entries.push(Entry {
            key_end,
            etag_end: self.text.len(),
            has_etag: object.etag.is_some(),
            size: object.size,
            last_modified: object.last_modified,
            content: object.content,
        });
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The object at `index`, from 0.
    pub fn get(&self, index: usize) -> Option<ObjectRef<'_>> {
        let entry = self.entries.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.entries[before].etag_end);
        Some(ObjectRef {
            key: &self.text[start..entry.key_end],
            etag: entry.has_etag.then(|| &self.text[entry.key_end..entry.etag_end]),
            size: entry.size,
            last_modified: entry.last_modified,
            content: entry.content,
        })
    }

    /// The last one.
    pub fn last(&self) -> Option<ObjectRef<'_>> {
        self.get(self.len().checked_sub(1)?)
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = ObjectRef<'_>> {
        (0..self.len()).map(|index| self.get(index).unwrap_or_else(|| unreachable!("{index} is below the length")))
    }

    /// Leaves only the first `len` of them.
    pub fn truncate(&mut self, len: usize) {
        self.entries.truncate(len);
        self.text.truncate(self.entries.last().map_or(0, |last| last.etag_end));
    }

    /// Removes all, and keeps the memory.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Bytes of memory that it holds.
    pub fn footprint(&self) -> usize {
        self.text.capacity() + self.entries.capacity() * size_of::<Entry>()
    }
}

impl<'a> Extend<ObjectRef<'a>> for Batch {
    fn extend<I: IntoIterator<Item = ObjectRef<'a>>>(&mut self, objects: I) {
        for object in objects {
            self.push(object);
        }
    }
}

impl<'a> FromIterator<ObjectRef<'a>> for Batch {
    fn from_iter<I: IntoIterator<Item = ObjectRef<'a>>>(objects: I) -> Self {
        let mut batch = Self::new();
        batch.extend(objects);
        batch
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::{Batch, ObjectRef};

    #[test]
    fn what_was_pushed_is_there() {
        let mut plain = ObjectRef::new("a//b");
        plain.size = Some(3);
        let mut tagged = ObjectRef::new("ü");
        tagged.etag = Some("d41d-2");
        let mut empty_tag = ObjectRef::new("z");
        empty_tag.etag = Some("");
        let objects = [plain, tagged, empty_tag];
        let mut batch: Batch = objects.into_iter().collect();
        assert!(batch.iter().eq(objects));
        assert_eq!(batch.last(), Some(empty_tag));
        batch.truncate(1);
        assert!(batch.iter().eq([plain]));
        batch.push(tagged);
        assert!(batch.iter().eq([plain, tagged]));
        batch.clear();
        assert_eq!((batch.len(), batch.last()), (0, None));
    }
}
