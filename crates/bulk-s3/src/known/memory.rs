use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;

use super::quantiles::quantiles;
use crate::{Batch, Error, KeyRange, KnownChange, KnownObjects, ObjectRef};

/// Known objects in memory, for tests, and for whoever keeps them elsewhere between runs.
///
/// ```
/// use bulk_s3::{KeyRange, KnownChange, KnownObjects, MemoryKnown, ObjectRef};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let known = MemoryKnown::new();
/// known.apply(&[KnownChange::Set(ObjectRef::new("b")), KnownChange::Set(ObjectRef::new("a"))]).await?;
/// let first = known.scan(&KeyRange::all(), 1).await?;
/// assert_eq!(first.get(0), Some(ObjectRef::new("a")));
/// # Ok::<(), bulk_s3::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Default)]
pub struct MemoryKnown {
    objects: Mutex<BTreeMap<String, Known>>,
}

#[derive(Debug)]
struct Known {
    etag: Option<String>,
    size: Option<u64>,
    last_modified: Option<Timestamp>,
    content: Option<[u8; 32]>,
}

impl MemoryKnown {
    /// Nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        // No step that could panic leaves it half changed.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bounds(range: &KeyRange) -> (Bound<&str>, Bound<&str>) {
    let after = range.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    (after, range.until.as_deref().map_or(Bound::Unbounded, Bound::Included))
}

/// Without what is below a microsecond, as stores keep it.
fn whole_microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

#[async_trait]
impl KnownObjects for MemoryKnown {
    async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Batch, Error> {
        if range.is_empty() {
            return Ok(Batch::new());
        }
        let objects = self.objects();
        let found = objects.range::<str, _>(bounds(range)).take(limit.max(1));
        Ok(found
            .map(|(key, known)| ObjectRef {
                key,
                etag: known.etag.as_deref(),
                size: known.size,
                last_modified: known.last_modified,
                content: known.content,
            })
            .collect())
    }

    async fn apply(&self, changes: &[KnownChange<'_>]) -> Result<(), Error> {
        let mut objects = self.objects();
        for change in changes {
            match *change {
                KnownChange::Set(object) => {
                    let known = Known {
                        etag: object.etag.map(str::to_owned),
                        size: object.size,
                        last_modified: object.last_modified.map(whole_microseconds),
                        content: object.content,
                    };
                    objects.insert(object.key.to_owned(), known);
                }
                KnownChange::Remove(key) => {
                    objects.remove(key);
                }
            }
        }
        Ok(())
    }

    async fn split_points(&self, range: &KeyRange, parts: usize) -> Result<Vec<String>, Error> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<String> = self.objects().range::<str, _>(bounds(range)).map(|(key, _)| key.clone()).collect();
        Ok(quantiles(&keys, range, parts))
    }

    /// The same for all of them: nothing in memory outlives a run.
    fn identity(&self) -> String {
        "memory".to_owned()
    }
}
