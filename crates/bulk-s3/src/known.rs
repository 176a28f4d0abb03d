//! What is known of a bucket: the trait, and the stores that implement it.

mod changes;
mod exchange;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod quantiles;
#[cfg(feature = "sqlite")]
mod sqlite;

use async_trait::async_trait;

#[cfg(feature = "postgres")]
pub use self::postgres::{KnownTable, PostgresKnown, PostgresOptions, RowPolicy};
#[cfg(feature = "sqlite")]
pub use self::sqlite::{SqliteKnown, SqliteOptions};
pub use self::{
    changes::KnownChange,
    exchange::{Imported, export_known, import_known},
    memory::MemoryKnown,
};
use crate::{Batch, Error, KeyRange};

/// A store of objects that are known, each with the ETag it had: what a listing is compared with.
///
/// Keys are compared by their UTF-8 bytes, whatever collation the store has for other purposes. Each method may be called
/// from many tasks at once. Times are kept to the microsecond; what is below is cut off. A store may have no place for
/// sizes, times or digests of contents: then they are none when they are read.
///
/// [`MemoryKnown`] keeps them in memory; `SqliteKnown` (feature `sqlite`) in a file, `PostgresKnown` (feature `postgres`)
/// in a table. The `conformance` module (feature `conformance`) checks whether an implementation does
/// what is promised here.
///
/// ```
/// use bulk_s3::{Error, KeyRange, KnownChange, KnownObjects, MemoryKnown, ObjectRef};
///
/// /// Goes through all of it, with a thousand objects in memory.
/// async fn total_size(known: &dyn KnownObjects) -> Result<u64, Error> {
///     let (mut total, mut range) = (0, KeyRange::all());
///     loop {
///         let objects = known.scan(&range, 1000).await?;
///         total += objects.iter().filter_map(|object| object.size).sum::<u64>();
///         match objects.last() {
///             Some(last) if objects.len() == 1000 => range.after = Some(last.key.to_owned()),
///             _ => return Ok(total),
///         }
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let known = MemoryKnown::new();
/// let keys: Vec<String> = (0..2500).map(|number| format!("builds/{number:04}.json")).collect();
/// let objects = keys.iter().map(|key| {
///     let mut object = ObjectRef::new(key);
///     object.size = Some(2);
///     KnownChange::Set(object)
/// });
/// known.apply(&objects.collect::<Vec<_>>()).await?;
/// known.apply(&[KnownChange::Remove("builds/0007.json")]).await?;
/// assert_eq!(total_size(&known).await?, 4998);
/// # Ok::<(), Error>(())
/// # }).unwrap();
/// ```
#[async_trait]
pub trait KnownObjects: Send + Sync {
    /// Known objects with keys in `range`, in the order of their keys: the first `limit` of them, and one at least. Fewer
    /// say that there are no more.
    ///
    /// # Errors
    ///
    /// [`Error::Known`] if the store cannot be read.
    async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Batch, Error>;

    /// Makes all of `changes`, or none if it fails; durable when it returns, as far as the store can be. Of several changes
    /// to a key the last one counts. Making one again changes nothing.
    ///
    /// Dropping the future leaves either all of them made or none.
    ///
    /// # Errors
    ///
    /// [`Error::Known`] if the store cannot be written, [`Error::Unfit`] if it cannot hold one of the objects.
    async fn apply(&self, changes: &[KnownChange<'_>]) -> Result<(), Error>;

    /// Up to `parts - 1` keys in `range`, ascending, that cut it into stretches of about the same number of known objects; an
    /// estimate will do, and so will none. The key with which the range ends is not among them.
    ///
    /// # Errors
    ///
    /// [`Error::Known`] if the store cannot be read.
    async fn split_points(&self, range: &KeyRange, parts: usize) -> Result<Vec<String>, Error>;

    /// What tells this store from others, without secrets: a checkpoint is bound to it.
    fn identity(&self) -> String;
}
