use std::sync::Arc;

use tokio_postgres::Client;

use super::item_query::{self, Clock, ItemQuery};
use super::item_reader::ItemReader;
use super::pool::{self, BEGIN, Pool};
use super::{ItemSource, Selection};
use crate::{Error, Session};

/// The items of a database as of one moment, read over several connections at once.
///
/// The first connection holds a REPEATABLE READ, READ ONLY transaction, and the others read in the same snapshot
/// (PostgreSQL manual, "Snapshot Synchronization Functions"): whatever is written meanwhile, all types and all ranges of a
/// table are of that moment. Nothing is locked but against changes of the tables' definitions, and `TRUNCATE`. As with any
/// long transaction, dead rows that are newer are not vacuumed before it ends.
///
/// JSON is what the server makes of a row, the same for the same row wherever it is read: formats of times, numbers and bytes
/// are set for the session. Row-level security makes it fail, rather than pass over rows that the role may not see
/// (`row_security = off`).
///
/// Dropping it ends the transactions.
///
/// # What has changed
///
/// A later export reads the rows whose time of change is not before this one's [`watermark`](Self::watermark), less an
/// overlap. The watermark is the moment before the snapshot was taken, or when the oldest transaction began that was open
/// then: such a transaction may commit rows later with the time at which it began, that is what `now()` gives it. It is
/// the standby's last replayed commit, where it is one.
///
/// The overlap is for what the server cannot tell: transactions of other roles, where the role is not a member of
/// `pg_read_all_stats`, those of the primary, where the server is a standby, and prepared ones
/// ([`unseen`](Self::unseen)); clocks of programs that write the times themselves; and the
/// instant between a transaction's beginning and the server's note of it. Rows whose time does not change with them, or
/// lies further back, such as those that logical replication brings, are found by reading all.
///
/// # Tables that are emptied or rewritten
///
/// `TRUNCATE`, those `ALTER TABLE` that rewrite, other partitions, and another table in the place of an old one do not keep
/// what older snapshots see. From [`prepare`](Self::prepare) on the tables are held, so that such a statement waits for the
/// end of the export. What came between the snapshot and that is [`Error::Rewritten`]: drop the snapshot and take another
/// one. Tables that only a function reads, which a query or a view calls, are not held.
///
/// ```
/// use std::time::Duration;
///
/// use bulk_pg::{ExportSnapshot, ExportSnapshotOptions, ItemRows, ItemSource, Since};
///
/// # let server = bulk_testkit::postgres::shared().unwrap();
/// # let database = server.create_database("doc").unwrap();
/// # let url = database.url();
/// # server.psql(url, "CREATE TABLE court (id text, state text, changed timestamptz DEFAULT now());
/// #     INSERT INTO court (id, state) VALUES ('cal', 'CA'), ('tex', 'TX')").unwrap();
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let rows = ItemRows::Table("court".parse().unwrap());
/// let mut courts = ItemSource::new("courts", rows, "id".parse().unwrap(), "state".parse().unwrap());
/// courts.modified = Some("changed".parse().unwrap());
///
/// let snapshot = ExportSnapshot::open(url, ExportSnapshotOptions::default()).await?;
/// let query = snapshot.prepare(&courts).await?;
/// let mut items = snapshot.read(vec![query.all()]);
/// let mut ids = Vec::new();
/// while let Some(batch) = items.next_batch().await? {
///     for row in batch.rows() {
///         let row = row?;
///         ids.push((row.id.unwrap().to_owned(), row.group.unwrap().to_owned()));
///     }
/// }
/// ids.sort();
/// assert_eq!(ids, [("cal".to_owned(), "CA".to_owned()), ("tex".to_owned(), "TX".to_owned())]);
///
/// // The next time.
/// let since = Since { watermark: snapshot.watermark().to_owned(), overlap: Duration::from_secs(900) };
/// assert_eq!(snapshot.count(&query.changed(&since)?).await?, 2);
/// # Ok::<(), bulk_pg::Error>(())
/// # }).unwrap();
/// ```
pub struct ExportSnapshot {
    session: Session,
    pool: Arc<Pool>,
    options: ExportSnapshotOptions,
    watermark: String,
    unseen: Vec<Unseen>,
    /// The database's own time zone, where its clocks show another time than UTC.
    own_zone: Option<String>,
    /// Such as 160004.
    version: u32,
}

/// How items are read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportSnapshotOptions {
    /// How many connections read at once; at least 1. One more holds the snapshot. Default 4.
    pub connections: usize,
    /// Bytes of rows that wait to be taken; each connection holds a row beside. Default 16 MiB.
    pub memory: u64,
    /// The time zone in which JSON has times, and of which columns are that have none. Default: none, which is UTC; where a
    /// time of change or deletion has no zone, and the database's own is another one than UTC, it has to be said.
    pub time_zone: Option<String>,
    /// A plain table is read in ranges of about so many bytes, by several connections at once. Default 64 MiB.
    ///
    /// Measured with 300,000 rows, 430 MB of JSON, on two cores that run the server, too: 2.2 s over one connection, 1.7 s over
    /// two, 1.5 s over four; ranges of 8 MiB take as long, those of 256 MiB, which are two, 1.7 s over four.
    pub range: u64,
}

impl Default for ExportSnapshotOptions {
    fn default() -> Self {
        Self { connections: 4, memory: 16 << 20, time_zone: None, range: 64 << 20 }
    }
}

impl ExportSnapshotOptions {
    /// The zone of times that have none.
    pub(super) fn zone(&self) -> &str {
        self.time_zone.as_deref().unwrap_or("UTC")
    }
}

/// Transactions whose beginnings could not be seen. What they write may have a time before the watermark and appear behind it,
/// so the overlap of the next export has to be longer than they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unseen {
    /// Those of other roles: the role is not a member of `pg_read_all_stats`.
    OtherRoles,
    /// Those of the primary: the server is a standby.
    Primary,
    /// Prepared ones: the server knows when they were prepared, and not when they began.
    Prepared,
}

/// The database's own time zone, which a session has before it sets another, and whether its clocks show what those of UTC do.
const ZONE: &str = "
    SELECT pg_catalog.current_setting('TimeZone'),
           NOT EXISTS (SELECT FROM pg_catalog.generate_series(pg_catalog.now() - interval '2 years',
                                                             pg_catalog.now() + interval '1 year',
                                                             interval '7 days') clock(moment)
                       WHERE clock.moment::timestamp <> clock.moment AT TIME ZONE 'UTC')";

/// A moment that no transaction which is still to commit began before, as far as anybody can tell who asks before the
/// snapshot is taken: those that begin after the question do so later. What a prepared one began with is not known, only
/// when it was prepared. And which ones could not be seen. A standby that has replayed nothing since it was started has at least
/// what was there at the checkpoint that it started from.
const WATERMARK: &str = "
    SELECT pg_catalog.to_char(least(pg_catalog.now(), s.oldest, p.oldest, r.last) AT TIME ZONE 'UTC',
                              'YYYY-MM-DD\"T\"HH24:MI:SS.US\"+00:00\"'),
           s.hidden > 0, pg_catalog.pg_is_in_recovery(), p.count > 0,
           pg_catalog.current_setting('server_version_num')::int
    FROM (SELECT min(xact_start) AS oldest,
                 count(*) FILTER (WHERE query = '<insufficient privilege>' OR state = 'disabled') AS hidden
          FROM pg_catalog.pg_stat_activity
          WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid()
                AND backend_type IS DISTINCT FROM 'autovacuum worker') s,
         (SELECT min(prepared) AS oldest, count(*) AS count FROM pg_catalog.pg_prepared_xacts
          WHERE database = pg_catalog.current_database()) p,
         (SELECT CASE WHEN pg_catalog.pg_is_in_recovery()
                 THEN coalesce(pg_catalog.pg_last_xact_replay_timestamp(),
                               (SELECT checkpoint_time FROM pg_catalog.pg_control_checkpoint())) END AS last) r";

impl ExportSnapshot {
    /// Takes a snapshot. `url` is what [`Session::connect`] takes.
    ///
    /// # Errors
    ///
    /// [`Error::Url`], [`Error::Connect`], [`Error::Options`], and [`Error::Database`], also for a time zone that the server
    /// does not know.
    pub async fn open(url: &str, options: ExportSnapshotOptions) -> Result<Self, Error> {
        let settings = pool::settings(&options)?;
        let session = Session::connect(url).await?;
        let client = session.client();
        let zone = client.query_one(ZONE, &[]).await.map_err(Error::database("ask for the time zone"))?;
        let own_zone = if zone.get(1) { None } else { Some(zone.get(0)) };
        pool::set_up(client, &settings).await?;
        let row = client.query_one(WATERMARK, &[]).await.map_err(Error::database("ask for open transactions"))?;
        let (watermark, version) = (row.get(0), u32::try_from(row.get::<_, i32>(4)));
        let unseen = [(1_usize, Unseen::OtherRoles), (2, Unseen::Primary), (3, Unseen::Prepared)];
        let unseen = unseen.into_iter().filter(|(place, _)| row.get(*place)).map(|(_, unseen)| unseen).collect();
        client.batch_execute(BEGIN).await.map_err(Error::database("begin a transaction"))?;
        let exported = client.query_one("SELECT pg_catalog.pg_export_snapshot()", &[]).await;
        let exported = exported.map_err(Error::database("take a snapshot"))?;
        let pool = Arc::new(Pool::new(url, settings, exported.get(0))?);
        Ok(Self { session, pool, options, watermark, unseen, own_zone, version: version.unwrap_or_default() })
    }

    /// From where on the next export looks for changes: a time as text, such as `2026-06-30T12:00:00.000000+00:00`.
    pub fn watermark(&self) -> &str {
        &self.watermark
    }

    /// Whether the beginnings of all transactions of the database could be seen. If not, the overlap has to be longer than
    /// any of those that write items takes.
    pub fn sees_all(&self) -> bool {
        self.unseen.is_empty()
    }

    /// The transactions whose beginnings could not be seen, each kind once.
    pub fn unseen(&self) -> &[Unseen] {
        &self.unseen
    }

    /// Host, port and database, without user and password.
    pub fn target(&self) -> &str {
        self.session.target()
    }

    /// Asks the server whether there are such items, and what their columns are. After an error, nothing more can be prepared
    /// or counted.
    ///
    /// # Errors
    ///
    /// [`Error::Database`]: there is no such table or column, the role may not read it, or only a part of its rows (row-level
    /// security). [`Error::Options`]: a query that is none, a column of another type, or a time of change or deletion without a
    /// zone where the database has another one than UTC and [`ExportSnapshotOptions::time_zone`] says none.
    /// [`Error::Rewritten`]: a table is not what it was when the snapshot was taken.
    pub async fn prepare(&self, source: &ItemSource) -> Result<ItemQuery, Error> {
        let doubt = self.own_zone.as_deref().filter(|_| self.options.time_zone.is_none());
        let clock = Clock { zone: self.options.zone(), doubt };
        item_query::prepare(self.client(), source, &self.options, clock, self.version).await
    }

    /// Reads what is selected, over as many connections as there may be. Each batch names its selection by its place.
    /// The order of the rows is any.
    ///
    /// # Panics
    ///
    /// Outside of a runtime of tokio.
    pub fn read(&self, selections: Vec<Selection>) -> ItemReader {
        ItemReader::start(&self.pool, selections, &self.options)
    }

    /// How many rows are selected.
    ///
    /// # Errors
    ///
    /// [`Error::Database`].
    pub async fn count(&self, selection: &Selection) -> Result<u64, Error> {
        let mut rows = 0;
        for part in &selection.parts {
            let query = format!("SELECT count(*) FROM ({}) \"bulk_count\"", part.query);
            let row = self.client().query_one(&query, &[]).await;
            let row = row.map_err(Error::database(format!("count the items of {}", selection.name)))?;
            rows += u64::try_from(row.get::<_, i64>(0)).unwrap_or_default();
        }
        Ok(rows)
    }

    fn client(&self) -> &Client {
        self.session.client()
    }
}

impl std::fmt::Debug for ExportSnapshot {
    /// Without the URL, in which a password may stand.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let target = self.target();
        f.debug_struct("ExportSnapshot")
            .field("target", &target)
            .field("watermark", &self.watermark)
            .finish_non_exhaustive()
    }
}
