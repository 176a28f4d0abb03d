use async_trait::async_trait;
use bulk_core::{ETag, ObjectBytes};
use bytes::Bytes;
use jiff::Timestamp;

use crate::{Batch, Error, KnownChange, KnownObjects, ObjectRef};

/// Where a [sync](crate::sync()) puts objects. [`FolderSink`](crate::FolderSink), [`LinesSink`](crate::LinesSink) and, with
/// feature `postgres`, `TableSink` are sinks. `examples/buildhub_backfill` of the repository has one of its own, for a table with
/// columns that it computes.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Stores a batch, and marks in `known` what was stored: in one transaction, if they share a database, else
    /// [after](SinkBatch::mark) it is as durable as the sink can make it. Storing what is stored already changes nothing, as a
    /// run that was ended between both does it again. Gives those objects that cannot be held: they are not marked, and
    /// all others are stored nevertheless.
    ///
    /// Dropping the future must not leave anything marked that is not stored.
    ///
    /// # Errors
    ///
    /// [`Error::Sink`] if the sink fails for another reason than an object, and those of [`KnownObjects::apply`].
    async fn store(&self, batch: &SinkBatch, known: &dyn KnownObjects) -> Result<Vec<Refusal>, Error>;

    /// What tells this sink from others, without secrets: the target of a [checkpoint's job](crate::Job::target).
    fn identity(&self) -> String;
}

/// What a [sink](Sink) is given at a time. A key occurs once.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct SinkBatch {
    /// Objects to be stored, in the place of those with the same keys.
    pub objects: Vec<SyncedObject>,
    /// Objects whose content is the one that is stored, and only their ETags are others.
    pub unchanged: Batch,
    /// Keys of objects to be removed. They need not be there.
    pub removed: Vec<String>,
}

impl SinkBatch {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.unchanged.is_empty() && self.removed.is_empty()
    }

    /// Marks all that was not refused, objects and removals, in a store that has no part in the sink. What the store cannot
    /// hold is added to `refusals`.
    ///
    /// # Errors
    ///
    /// Those of [`KnownObjects::apply`], but [`Error::Unfit`].
    pub async fn mark(&self, known: &dyn KnownObjects, refusals: &mut Vec<Refusal>) -> Result<(), Error> {
        loop {
            let changes = self.changes(refusals);
            match known.apply(&changes).await {
                // Each time there is one less.
                Err(Error::Unfit { key, what, .. }) if changes.iter().any(|change| change.key() == key) => {
                    refusals.push(Refusal { key, reason: format!("it cannot be marked known: {what}") });
                }
                done => return done,
            }
        }
    }

    /// The changes to what is known that go with all that was not refused.
    pub fn changes(&self, refusals: &[Refusal]) -> Vec<KnownChange<'_>> {
        let refused: std::collections::HashSet<&str> = refusals.iter().map(|refusal| refusal.key.as_str()).collect();
        let objects = self.objects.iter().map(SyncedObject::describe).chain(self.unchanged.iter());
        let removed = self.removed.iter().map(|key| KnownChange::Remove(key));
        let all = objects.map(KnownChange::Set).chain(removed);
        all.filter(|change| !refused.contains(change.key())).collect()
    }
}

/// An object that a sync has fetched.
#[derive(Debug)]
#[non_exhaustive]
pub struct SyncedObject {
    /// Its key.
    pub key: String,
    /// Its version, as the answer said.
    pub etag: Option<ETag>,
    /// By the server's clock.
    pub last_modified: Option<Timestamp>,
    /// SHA-256.
    pub content: [u8; 32],
    /// It counts against the budget as long as it is here.
    pub(super) body: ObjectBytes,
}

impl SyncedObject {
    /// All of it.
    pub fn bytes(&self) -> &Bytes {
        &self.body.bytes
    }

    /// As it is marked known.
    pub fn describe(&self) -> ObjectRef<'_> {
        ObjectRef {
            key: &self.key,
            etag: self.etag.as_ref().map(ETag::as_str),
            size: Some(self.body.bytes.len() as u64),
            last_modified: self.last_modified,
            content: Some(self.content),
        }
    }
}

/// An object that a sink cannot hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// Its key.
    pub key: String,
    /// Why.
    pub reason: String,
}

impl Refusal {
    /// The object with this key cannot be held.
    pub fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { key: key.into(), reason: reason.into() }
    }
}
