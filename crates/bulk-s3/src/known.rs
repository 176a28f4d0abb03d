use async_trait::async_trait;

use crate::{Batch, Error, KeyRange, ObjectRef};

/// A store of objects that are known, each with the ETag it had: what a listing is compared with.
///
/// Keys are compared by their UTF-8 bytes, whatever collation the store has for other purposes. Each method may be called
/// from many tasks at once.
#[async_trait]
pub trait KnownObjects: Send + Sync {
    /// Known objects with keys in `range`, in the order of their keys: the first `limit` (at least 1) of them. Fewer say that
    /// there are no more.
    ///
    /// # Errors
    ///
    /// [`Error::Known`] if the store cannot be read.
    async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Batch, Error>;

    /// Makes all of `changes`, or none if it fails; durable when it returns. Making one again changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Known`] if the store cannot be written.
    async fn apply(&self, changes: &[KnownChange<'_>]) -> Result<(), Error>;

    /// Up to `parts - 1` keys in `range`, ascending, that cut it into stretches of about the same number of known objects; an
    /// estimate will do, and so will none.
    ///
    /// # Errors
    ///
    /// [`Error::Known`] if the store cannot be read.
    async fn split_points(&self, range: &KeyRange, parts: usize) -> Result<Vec<String>, Error>;

    /// What tells this store from others, without secrets: a checkpoint is bound to it.
    fn identity(&self) -> String;
}

/// A change to what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownChange<'a> {
    /// The object is known as this from now on. What is `None` is unknown from now on.
    Set(ObjectRef<'a>),
    /// The object with this key is known no more.
    Remove(&'a str),
}
