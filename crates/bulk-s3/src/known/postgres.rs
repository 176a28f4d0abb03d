mod merge;
mod pool;
mod rows;
mod sorted;
mod table;
mod target;

use std::sync::Arc;

use async_trait::async_trait;
use bulk_pg::{Cause, CopyReader, quote_literal};
use tokio::sync::Mutex;
use tokio_postgres::{Client, Transaction};

pub use self::table::{KnownTable, RowPolicy};
use self::{merge::Within, pool::Pool, sorted::Sorted, target::Target};
use super::quantiles::quantiles;
use crate::{Batch, Error, KeyRange, KnownChange, KnownObjects};

/// Known objects in a table of PostgreSQL: one of ours, `bulk.known_object`, or any [`KnownTable`].
///
/// Keys are compared by bytes, whatever collation their column has. Scans are read by COPY in the binary format, each as a
/// statement of its own: nothing stays open between them. Changes are written by COPY into a temporary table, and from
/// there in one transaction: what [`apply`](KnownObjects::apply) has written is on the server's disk when it returns.
/// [`apply_in`](Self::apply_in) does the same within a transaction of the caller's, for whoever stores an object and marks
/// it known, or neither.
///
/// # Indexes
///
/// A scan needs an index that has the keys in the order of bytes; the table of ours has one. Where a table has none, the
/// first scan makes a sorted copy of the bucket's rows, as a temporary table in a connection that is kept for it, and all
/// scans read that. Each program that does so reads and sorts the whole table once, and the server's disk holds the copy
/// as long. It follows what `apply` writes. It does not follow what is written otherwise, [`apply_in`](Self::apply_in)
/// included: [`forget_sorted`](Self::forget_sorted) makes the next scan copy anew. [`missing_index`](Self::missing_index)
/// is the statement that spares all of that.
///
/// # What a table must be like
///
/// - The database's encoding is UTF8.
/// - Keys and ETags are `text` or `varchar`, or a domain over them.
/// - Rows whose key is NULL are no objects, and are passed over.
/// - A key stands in one row, or one of each bucket. A scan that meets a second row is an error that names the key, since
///   nobody could say which ETag is right: a unique index keeps such rows out, and where they belong, a view can show
///   one of them. So is a change of a key with several rows.
/// - U+0000 cannot be part of a text of PostgreSQL: an object with such a key is [`Error::Unfit`].
///
/// Dropping the future of a call closes its connection, and the server rolls back what was open; it may be that a commit
/// was on its way.
///
/// ```
/// use bulk_s3::{KeyRange, KnownChange, KnownObjects, KnownTable, ObjectRef, PostgresKnown, PostgresOptions};
///
/// # let server = bulk_testkit::postgres::shared().unwrap();
/// # let database = server.create_database("doc").unwrap();
/// # let url = database.url();
/// # server.psql(url, "CREATE TABLE builds (id bigserial, s3_object_key text COLLATE \"C\" UNIQUE, s3_object_etag text)").unwrap();
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let table = KnownTable::new("builds".parse().unwrap(), "s3_object_key".parse().unwrap(), "s3_object_etag".parse().unwrap());
/// let known = PostgresKnown::connect(url, "my-bucket", table, PostgresOptions::default()).await?;
/// assert_eq!(known.missing_index(), None);
/// let mut object = ObjectRef::new("a//b");
/// object.etag = Some("d41d8cd98f00b204e9800998ecf8427e");
/// known.apply(&[KnownChange::Set(object)]).await?;
/// assert_eq!(known.scan(&KeyRange::all(), 10).await?.get(0), Some(object));
/// # Ok::<(), bulk_s3::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct PostgresKnown {
    pool: Arc<Pool>,
    target: Target,
    /// Where no index serves.
    sorted: Option<Mutex<Sorted>>,
    identity: String,
}

/// How a table is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// How many connections may be open at once; at least 1. One more holds a sorted copy, where no index serves. Default 4.
    pub connections: usize,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { connections: 4 }
    }
}

impl PostgresKnown {
    /// Connects to a database, and looks at the table. The table of ours is made if it is not there. `url` is what
    /// [`bulk_pg::Session::connect`] takes. The bucket's name counts where the table has a column for it; where buckets of
    /// different servers share their names, put the endpoint into it.
    ///
    /// # Errors
    ///
    /// [`Error::Known`]: no connection, no such table or column, or none that can be used. [`Error::is_denied`] and
    /// [`Error::is_remote`] tell whom to blame.
    pub async fn connect(url: &str, bucket: &str, table: KnownTable, options: PostgresOptions) -> Result<Self, Error> {
        let pool = Arc::new(Pool::new(url, options.connections));
        // Nothing of the URL is shown before bulk-pg has read it.
        let lease = pool.lease("PostgreSQL").await?;
        let named = if table.is_ours() { String::new() } else { format!(" ({:#}, {:#})", table.key, table.etag) };
        let of = table.bucket.as_ref().map(|_| format!(", bucket {bucket:?}")).unwrap_or_default();
        let identity = format!("{}, table {:#}{named}{of}", lease.session().target(), table.name);
        if table.is_ours() {
            table::create(lease.client()).await.map_err(|error| failed(&identity, "make its table", error))?;
        }
        let target = table::describe(lease.client(), &table, bucket, &identity).await?;
        lease.give_back();
        let sorted = (!target.is_indexed).then(Mutex::default);
        Ok(Self { pool, target, sorted, identity })
    }

    /// The statement that makes the index which scans lack; none if they have one, or if it is a view that is scanned,
    /// whose tables may be given one.
    pub fn missing_index(&self) -> Option<&str> {
        self.target.missing_index.as_deref()
    }

    /// Lets go of the sorted copy that scans read where no index serves. The next one makes it anew.
    pub async fn forget_sorted(&self) {
        if let Some(sorted) = &self.sorted {
            *sorted.lock().await = Sorted::default();
        }
    }

    /// As [`apply`](KnownObjects::apply), within a transaction of the caller's, whose role needs the same privileges, and
    /// that of temporary tables. Nothing is changed before it is committed, and it is the caller's matter whether that
    /// waits for the disk. The session keeps an empty temporary table, `bulk_known_change`.
    ///
    /// After an error, nothing can be done with the transaction but to roll it back.
    ///
    /// # Errors
    ///
    /// As `apply`. [`Error::Unfit`] comes before anything is done: the transaction can go on.
    pub async fn apply_in(&self, transaction: &Transaction<'_>, changes: &[KnownChange<'_>]) -> Result<(), Error> {
        self.apply_over(transaction.client(), changes).await
    }

    /// As [`apply_in`](Self::apply_in), over a connection to the same database in which a transaction is open.
    pub(crate) async fn apply_over(&self, client: &Client, changes: &[KnownChange<'_>]) -> Result<(), Error> {
        merge::check(changes, &self.identity)?;
        merge::merge(client, &self.target, changes, Within::Transaction, &self.identity).await
    }

    /// Tells a sorted copy, if there is one, what was committed elsewhere.
    pub(crate) async fn follow(&self, changes: &[KnownChange<'_>]) {
        if let Some(sorted) = &self.sorted {
            sorted.lock().await.follow(changes, &self.identity).await;
        }
    }

    /// Whether its table is in this database, as [`Session::target`](bulk_pg::Session::target) names it.
    pub(crate) fn is_in(&self, database: &str) -> bool {
        self.identity.strip_prefix(database).is_some_and(|rest| rest.starts_with(", table "))
    }

    async fn apply_own(&self, changes: &[KnownChange<'_>]) -> Result<(), Error> {
        let lease = self.pool.lease(&self.identity).await?;
        merge::merge(lease.client(), &self.target, changes, Within::Own, &self.identity).await?;
        lease.give_back();
        Ok(())
    }

    /// Keys of a random sample of the table's pages, about so many of these, and whether that is all of them.
    async fn sample(&self, client: &Client, range: &KeyRange, pages: f64) -> Result<(Vec<String>, bool), Error> {
        let failed = |error: Source| failed(&self.identity, "read a sample of the keys", error);
        let count = "SELECT (coalesce((SELECT sum(pg_catalog.pg_relation_size(relid))
                                       FROM pg_catalog.pg_partition_tree(t.oid)), pg_catalog.pg_relation_size(t.oid))
                             / pg_catalog.current_setting('block_size')::int)::float8
                     FROM (SELECT pg_catalog.to_regclass($1)::oid AS oid) t";
        let row = client
            .query_one(count, &[&self.target.name])
            .await
            .map_err(|error| failed(Box::new(Cause::from(error))))?;
        let all = row.get::<_, Option<f64>>(0).unwrap_or_default();
        let percent = (100.0 * pages / all.max(1.0)).min(100.0);
        let mut rows =
            CopyReader::begin(client, &self.target.sample(range, percent)).await.map_err(unwrap).map_err(failed)?;
        let mut keys = Vec::new();
        while let Some(mut row) = rows.next_row().await.map_err(unwrap).map_err(failed)? {
            keys.push(rows::key(&mut row, &self.identity)?.to_owned());
        }
        keys.sort_unstable();
        Ok((keys, percent >= 100.0))
    }
}

#[async_trait]
impl KnownObjects for PostgresKnown {
    async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Batch, Error> {
        if range.is_empty() {
            return Ok(Batch::new());
        }
        if let Some(sorted) = &self.sorted {
            let mut sorted = sorted.lock().await;
            return sorted.scan(&self.pool, &self.target, range, limit.max(1), &self.identity).await;
        }
        let lease = self.pool.lease(&self.identity).await?;
        let batch = rows::scan(lease.client(), &self.target, range, limit.max(1), &self.identity).await?;
        lease.give_back();
        Ok(batch)
    }

    async fn apply(&self, changes: &[KnownChange<'_>]) -> Result<(), Error> {
        merge::check(changes, &self.identity)?;
        if changes.is_empty() {
            return Ok(());
        }
        let Some(sorted) = &self.sorted else { return self.apply_own(changes).await };
        // Locked over both, so that the copy sees changes of a key in the order in which the table does.
        let mut sorted = sorted.lock().await;
        // Taken: where the call is dropped, or the connection lost, nobody knows what the table has seen.
        let mut copy = std::mem::take(&mut *sorted);
        self.apply_own(changes).await?;
        copy.follow(changes, &self.identity).await;
        *sorted = copy;
        Ok(())
    }

    async fn split_points(&self, range: &KeyRange, parts: usize) -> Result<Vec<String>, Error> {
        /// 4 MiB of the table, some 30,000 keys.
        const PAGES: f64 = 512.0;
        if range.is_empty() || parts < 2 || !self.target.can_be_sampled {
            return Ok(Vec::new());
        }
        let lease = self.pool.lease(&self.identity).await?;
        let (mut keys, is_all) = self.sample(lease.client(), range, PAGES).await?;
        if keys.len() < parts.saturating_mul(4) && !is_all {
            // A narrow range: then more pages do not bring many keys.
            (keys, _) = self.sample(lease.client(), range, PAGES * 16.0).await?;
        }
        lease.give_back();
        Ok(quantiles(&keys, range, parts))
    }

    /// Host, port, database, table and bucket, without user and password.
    fn identity(&self) -> String {
        self.identity.clone()
    }
}

/// A border as a literal. No key of a table has U+0000, so all keys lie on the same side of a border that has one as of
/// what stands before it.
fn literal(border: &str) -> String {
    let text = border.split('\0').next().unwrap_or_default();
    quote_literal(text).unwrap_or_else(|_| unreachable!("it was cut at the first NUL"))
}

type Source = Box<dyn std::error::Error + Send + Sync>;

/// The cause alone: what was tried is told here.
fn unwrap(error: bulk_pg::Error) -> Source {
    match error {
        bulk_pg::Error::Database { source, .. } => Box::new(source),
        other => Box::new(other),
    }
}

#[cold]
fn failed(store: &str, action: &str, source: impl Into<Source>) -> Error {
    Error::Known { store: store.to_owned(), what: format!("cannot {action}"), source: Some(source.into()) }
}

#[cold]
fn unusable(store: &str, what: impl Into<String>) -> Error {
    Error::Known { store: store.to_owned(), what: what.into(), source: None }
}

/// Keys are told by two rows of a table.
#[cold]
fn twice(store: &str, table: &str, key: &str) -> Error {
    unusable(
        store,
        format!(
            "{table} has several rows of the key {key:?}, so nobody can say which ETag is right; delete all but one, or name a view that shows one of them"
        ),
    )
}
