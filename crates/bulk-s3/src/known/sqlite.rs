use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, ToSql, TransactionBehavior, params};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use super::changes::{last_of_each, signed_size};
use super::quantiles::Sample;
use crate::{Batch, Error, KeyRange, KnownChange, KnownObjects, ObjectRef};

/// Says that a file is a store of ours (<https://www.sqlite.org/pragma.html#pragma_application_id>): `blkk`.
const APPLICATION_ID: i32 = 0x626c_6b6b;
/// The version of its tables, as `PRAGMA user_version`.
const VERSION: i32 = 1;

/// Keys are blobs, because SQLite compares blobs byte by byte and promises nothing of texts that hold U+0000
/// (<https://www.sqlite.org/nulinstr.html>). The view shows them as text.
const TABLES: &str = "
    CREATE TABLE bucket (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE object (
        bucket INTEGER NOT NULL REFERENCES bucket,
        key BLOB NOT NULL,
        etag TEXT,
        size INTEGER,
        last_modified INTEGER, -- microseconds since 1970, as is seen_at
        seen_at INTEGER NOT NULL,
        content BLOB CHECK (octet_length(content) = 32), -- SHA-256
        sampled INTEGER NOT NULL, -- 1 for one key of 256, by a hash
        PRIMARY KEY (bucket, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX object_sample ON object (bucket, key) WHERE sampled = 1;
    CREATE VIEW known_object AS
        SELECT b.name AS bucket, CAST(o.key AS TEXT) AS key, o.etag, o.size,
            strftime('%Y-%m-%dT%H:%M:%fZ', o.last_modified / 1e6, 'unixepoch') AS last_modified,
            strftime('%Y-%m-%dT%H:%M:%fZ', o.seen_at / 1e6, 'unixepoch') AS seen_at,
            lower(hex(o.content)) AS content
        FROM object o JOIN bucket b ON b.id = o.bucket;";

const SET: &str = "
    INSERT INTO object (bucket, key, etag, size, last_modified, content, seen_at, sampled)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
    ON CONFLICT (bucket, key) DO UPDATE SET etag = excluded.etag, size = excluded.size,
        last_modified = excluded.last_modified, content = excluded.content, seen_at = excluded.seen_at
    WHERE (etag, size, last_modified, content)
        IS NOT (excluded.etag, excluded.size, excluded.last_modified, excluded.content)";

/// One key of so many stands in the sample that [`split_points`](KnownObjects::split_points) reads.
const SAMPLED: u64 = 256;
/// Where the sample is small, so may be the range: its keys are counted, if they are fewer than these.
const COUNTED: usize = 200_000;

/// Known objects in an SQLite file, which can hold those of any number of buckets.
///
/// The file's view `known_object` shows them to people: `bucket`, `key`, `etag`, `size`, `last_modified`, `seen_at`,
/// `content` (the SHA-256 of what was fetched). `seen_at` is when an object was first seen as it is now, by this machine's
/// clock; it is there to be read, and nothing is compared with it.
///
/// Several processes may use a file at once: readers do not wait, and of writers one waits for the other
/// ([`SqliteOptions::busy_timeout`]). That takes a file system whose locks and shared memory work, which those of networks
/// seldom do. The file is in WAL mode (<https://www.sqlite.org/wal.html>), so while it is open there are two more beside
/// it, `-wal` and `-shm`, which belong to it. What [`apply`](KnownObjects::apply) has written is on the disk when it
/// returns: the log is synced with each transaction, which WAL alone would not do.
///
/// Work goes to tokio's threads for blocking calls: one for each call under way, and of these no more than
/// [`SqliteOptions::readers`] and one writer; others wait. A dropped future's work is done to its end.
///
/// ```
/// use bulk_s3::{KeyRange, KnownChange, KnownObjects, ObjectRef, SqliteKnown, SqliteOptions};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("known.sqlite");
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let known = SqliteKnown::open(&path, "my-bucket", SqliteOptions::default()).await?;
/// let mut object = ObjectRef::new("a//b");
/// object.etag = Some("d41d8cd98f00b204e9800998ecf8427e");
/// known.apply(&[KnownChange::Set(object)]).await?;
/// assert_eq!(known.scan(&KeyRange::all(), 10).await?.get(0), Some(object));
/// assert!(known.for_bucket("another").scan(&KeyRange::all(), 10).await?.is_empty());
/// # Ok::<(), bulk_s3::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct SqliteKnown {
    file: Arc<File>,
    bucket: Arc<str>,
}

/// How an SQLite file is used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// Whether a file that does not exist is made. Default yes.
    pub create: bool,
    /// How many scans may be under way at once, each with a connection and a thread of its own; at least 1. Default 4.
    pub readers: usize,
    /// How long to wait for another process that writes. Default 30 s.
    pub busy_timeout: Duration,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { create: true, readers: 4, busy_timeout: Duration::from_secs(30) }
    }
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    options: SqliteOptions,
    writer: Arc<AsyncMutex<Connection>>,
    /// Connections that nobody uses just now.
    readers: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl SqliteKnown {
    /// Opens a file, for the objects of this bucket. The name is what tells buckets of a file apart: where buckets of
    /// different servers share their names, put the endpoint into it.
    ///
    /// # Errors
    ///
    /// [`Error::Known`] if it cannot be opened or made, is no store of known objects, or was made by a newer version.
    pub async fn open(path: impl AsRef<Path>, bucket: &str, options: SqliteOptions) -> Result<Self, Error> {
        let path = path.as_ref().to_owned();
        let opened = blocking(move || {
            let writer = connect(&path, &options, true);
            let writer = writer.map_err(|failure| failure.into_error(&path, "open it"))?;
            let permits = Arc::new(Semaphore::new(options.readers.max(1)));
            let writer = Arc::new(AsyncMutex::new(writer));
            Ok(File { path, options, writer, readers: Mutex::default(), permits })
        });
        Ok(Self { file: Arc::new(opened.await?), bucket: bucket.into() })
    }

    /// The objects of another bucket in the same file, over the same connections.
    #[must_use]
    pub fn for_bucket(&self, bucket: &str) -> Self {
        Self { file: Arc::clone(&self.file), bucket: bucket.into() }
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection, &str) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Error> {
        let (file, bucket) = (Arc::clone(&self.file), Arc::clone(&self.bucket));
        // It is never closed.
        let permit = Arc::clone(&file.permits).acquire_owned().await.ok();
        blocking(move || {
            let _permit = permit;
            let idle = file.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let done = idle.map_or_else(|| connect(&file.path, &file.options, false), Ok).and_then(|reader| {
                let done = read(&reader, &bucket);
                file.readers.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
                done
            });
            done.map_err(|failure| failure.into_error(&file.path, "read"))
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(lost) => match lost.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Why a file cannot be used.
#[derive(Debug)]
enum Failure {
    Sqlite(rusqlite::Error),
    Other(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Failure {
    #[cold]
    fn into_error(self, path: &Path, action: &str) -> Error {
        let store = path.display().to_string();
        let source = match self {
            Self::Sqlite(error) => error,
            Self::Other(what) => return Error::Known { store, what, source: None },
        };
        let what = match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => "it is no SQLite database".to_owned(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                format!("cannot {action}: another process has been using it all the time")
            }
            _ => format!("cannot {action}"),
        };
        Error::Known { store, what, source: Some(Box::new(source)) }
    }
}

fn connect(path: &Path, options: &SqliteOptions, is_writer: bool) -> Result<Connection, Failure> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, is_writer && options.create);
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(options.busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(16);
    if is_writer {
        set_up(&mut connection, options.busy_timeout)?;
        // FULL, because in WAL mode NORMAL loses transactions with the machine's power. The cache bounds what a large
        // transaction keeps in memory before it spills into the log.
        connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA cache_size = -16384")?;
    } else {
        connection.execute_batch("PRAGMA query_only = ON")?;
    }
    Ok(connection)
}

/// Checks that the file is a store; makes it one if there is nothing in it.
fn set_up(connection: &mut Connection, busy_timeout: Duration) -> Result<(), Failure> {
    // In one transaction, because another process may be making it one just now.
    let transaction = connection.transaction()?;
    let is_made = is_store(&transaction)?;
    drop(transaction);
    if !is_made {
        // Both can be chosen only before anything is written.
        connection.execute_batch("PRAGMA page_size = 8192; PRAGMA auto_vacuum = NONE")?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
        // Another process may have been first.
        if !is_store(&transaction)? {
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        transaction.commit()?;
    }
    let wal = |connection: &Connection| -> rusqlite::Result<String> {
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))
    };
    let deadline = std::time::Instant::now() + busy_timeout;
    loop {
        match wal(connection) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => return Err(Failure::Other(format!("its journal mode is {mode} and cannot be made wal"))),
            // SQLite does not wait by itself for a file whose mode another process is changing, too.
            Err(error) if is_busy(&error) && std::time::Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Whether the file is a store of a version that can be used; not, if there is nothing in it.
fn is_store(connection: &Connection) -> Result<bool, Failure> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    if application == APPLICATION_ID {
        return match version {
            VERSION => Ok(true),
            newer @ VERSION.. => Err(Failure::Other(format!(
                "it was made by a newer bulk (its tables are of version {newer}, and this program knows {VERSION})"
            ))),
            other => Err(Failure::Other(format!("its tables are of version {other}, which never was: it is damaged"))),
        };
    }
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application == 0 && version == 0 && tables == 0 {
        return Ok(false);
    }
    Err(Failure::Other("it is an SQLite database of another program".to_owned()))
}

/// Whether a key stands in the sample. It must be the same for ever: FNV-1a, and the last steps of MurmurHash3, which
/// spread what differs in the last bytes alone.
fn is_sampled(key: &[u8]) -> bool {
    let mut hash = key
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (hash ^ (hash >> 33)).is_multiple_of(SAMPLED)
}

/// A query of objects in a range, in the order of keys. Its parameters are the bucket and the limit, then the borders.
fn in_range(columns: &str, more: &str, range: &KeyRange) -> String {
    let after = if range.after.is_some() { " AND key > ?3" } else { "" };
    let until = if range.until.is_some() { " AND key <= ?4" } else { "" };
    format!(
        "SELECT {columns} FROM object WHERE bucket = (SELECT id FROM bucket WHERE name = ?1){more}{after}{until}
         ORDER BY key LIMIT ?2"
    )
}

fn each(
    connection: &Connection,
    query: &str,
    bucket: &str,
    range: &KeyRange,
    limit: usize,
    mut take: impl FnMut(&Row<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(query)?;
    let border = |border: &Option<String>| border.as_ref().map(|key| key.as_bytes().to_vec());
    let (after, until) = (border(&range.after), border(&range.until));
    let mut parameters: Vec<(usize, &dyn ToSql)> = vec![(1, &bucket), (2, &limit)];
    parameters.extend(after.as_ref().map(|after| (3, after as &dyn ToSql)));
    parameters.extend(until.as_ref().map(|until| (4, until as &dyn ToSql)));
    // Those of a border that is not there do not exist.
    for (place, value) in parameters {
        statement.raw_bind_parameter(place, value)?;
    }
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        take(row)?;
    }
    Ok(())
}

fn key<'a>(row: &'a Row<'_>) -> Result<&'a str, Failure> {
    let bytes = row.get_ref(0)?.as_blob().map_err(damaged)?;
    std::str::from_utf8(bytes).map_err(|_| Failure::Other(format!("the key {} is no UTF-8", bytes.escape_ascii())))
}

/// What no statement of ours has written.
#[cold]
fn damaged(error: impl std::fmt::Display) -> Failure {
    Failure::Other(format!("it is damaged: {error}"))
}

fn object<'a>(row: &'a Row<'_>) -> Result<ObjectRef<'a>, Failure> {
    let mut object = ObjectRef::new(key(row)?);
    let of_key = |what: &str| Failure::Other(format!("it is damaged: {what} of {:?}", object.key));
    object.etag = row.get_ref(1)?.as_str_or_null().map_err(|_| of_key("the ETag"))?;
    let size = row.get_ref(2)?.as_i64_or_null().map_err(|_| of_key("the size"))?;
    object.size = size.map(|size| u64::try_from(size).map_err(|_| of_key("the size"))).transpose()?;
    let time = row.get_ref(3)?.as_i64_or_null().map_err(|_| of_key("the time"))?;
    object.last_modified =
        time.map(|time| Timestamp::from_microsecond(time).map_err(|_| of_key("the time"))).transpose()?;
    object.content = match row.get_ref(4)? {
        ValueRef::Null => None,
        value => {
            let content = value.as_blob().ok().and_then(|bytes| bytes.try_into().ok());
            Some(content.ok_or_else(|| of_key("the content's digest"))?)
        }
    };
    Ok(object)
}

/// A change as a thread can take it along.
enum Step {
    Set { size: Option<i64> },
    Remove,
}

#[async_trait]
impl KnownObjects for SqliteKnown {
    async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Batch, Error> {
        if range.is_empty() {
            return Ok(Batch::new());
        }
        let (range, limit) = (range.clone(), limit.max(1));
        self.read(move |connection, bucket| {
            let mut batch = Batch::new();
            let query = in_range("key, etag, size, last_modified, content", "", &range);
            each(connection, &query, bucket, &range, limit, |row| {
                batch.push(object(row)?);
                Ok(())
            })?;
            Ok(batch)
        })
        .await
    }

    async fn apply(&self, changes: &[KnownChange<'_>]) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut objects = Batch::new();
        let mut steps = Vec::with_capacity(changes.len());
        for change in last_of_each(changes) {
            match change {
                KnownChange::Set(object) => {
                    let unfit = |what| Error::Unfit { store: self.identity(), key: object.key.to_owned(), what };
                    steps.push(Step::Set { size: object.size.map(signed_size).transpose().map_err(unfit)? });
                    objects.push(object);
                }
                KnownChange::Remove(key) => {
                    steps.push(Step::Remove);
                    objects.push(ObjectRef::new(key));
                }
            }
        }
        let (file, bucket) = (Arc::clone(&self.file), Arc::clone(&self.bucket));
        let mut writer = Arc::clone(&file.writer).lock_owned().await;
        blocking(move || {
            let written = write(&mut writer, &bucket, &objects, &steps);
            written.map_err(|failure| failure.into_error(&file.path, "write"))
        })
        .await
    }

    async fn split_points(&self, range: &KeyRange, parts: usize) -> Result<Vec<String>, Error> {
        if range.is_empty() || parts < 2 {
            return Ok(Vec::new());
        }
        let range = range.clone();
        self.read(move |connection, bucket| {
            let keys = |more: &str, limit| -> Result<Sample, Failure> {
                let mut keys = Sample::new();
                each(connection, &in_range("key", more, &range), bucket, &range, limit, |row| {
                    keys.push(key(row)?);
                    Ok(())
                })?;
                Ok(keys)
            };
            let sample = keys(" AND sampled = 1", usize::MAX)?;
            // So many for each part tell their borders well enough.
            if sample.given < parts.saturating_mul(16) {
                let all = keys("", COUNTED)?;
                if all.given < COUNTED {
                    return Ok(all.quantiles(&range, parts));
                }
            }
            Ok(sample.quantiles(&range, parts))
        })
        .await
    }

    /// The path, made absolute, and the bucket.
    fn identity(&self) -> String {
        let path = std::path::absolute(&self.file.path).unwrap_or_else(|_| self.file.path.clone());
        format!("sqlite:{} bucket {:?}", path.display(), self.bucket)
    }
}

fn write(connection: &mut Connection, bucket: &str, objects: &Batch, steps: &[Step]) -> Result<(), Failure> {
    // It takes the lock at once: a transaction that has read cannot wait for another one that writes.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        transaction
            .prepare_cached("INSERT INTO bucket (name) VALUES (?1) ON CONFLICT DO NOTHING")?
            .execute([bucket])?;
        let mut find = transaction.prepare_cached("SELECT id FROM bucket WHERE name = ?1")?;
        let bucket: i64 = find.query_row([bucket], |row| row.get(0))?;
        let mut set = transaction.prepare_cached(SET)?;
        let mut remove = transaction.prepare_cached("DELETE FROM object WHERE bucket = ?1 AND key = ?2")?;
        let now = Timestamp::now().as_microsecond();
        for (object, step) in objects.iter().zip(steps) {
            let key = object.key.as_bytes();
            match step {
                Step::Set { size } => {
                    let time = object.last_modified.map(Timestamp::as_microsecond);
                    let content = object.content.as_ref().map(|content| &content[..]);
                    set.execute(params![bucket, key, object.etag, size, time, content, now, is_sampled(key)])?;
                }
                Step::Remove => {
                    remove.execute(params![bucket, key])?;
                }
            }
        }
    }
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use super::is_sampled;

    #[test]
    fn one_key_of_256_is_sampled_whatever_it_looks_like() {
        for (first, last) in [("", ""), ("a/very/long/prefix/", ".json"), ("", "/buildhub.json")] {
            let sampled = (0..256_000).filter(|number| is_sampled(format!("{first}{number:08}{last}").as_bytes()));
            let count = sampled.count();
            // 1,000 are to be expected, with a standard deviation of 32.
            assert!((850..1150).contains(&count), "{count} of 256,000 {first}…{last}");
        }
        // It must not change: files hold what it said.
        let first: Vec<_> = (0..1000).filter(|number| is_sampled(format!("key-{number}").as_bytes())).collect();
        assert_eq!(first, [34, 39]);
    }
}
