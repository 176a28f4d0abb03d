use bulk_pg::{Cause, Ident, TableName, in_own_schema, quote_literal};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::target::{Target, Time};
use super::{Source, failed, unusable};
use crate::{Error, KeyRange};

/// A table that says which objects are known, and which of its columns says what.
///
/// The default is the table of ours, `bulk.known_object`, which [`PostgresKnown::connect`](crate::PostgresKnown::connect)
/// makes if it is not there: `bucket`, `key`, `etag`, `size`, `last_modified`, `seen_at` and `content`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownTable {
    /// Its name; [parse](str::parse) one as people write it, such as `builds` (in `public`) or `archive."Builds"`.
    pub name: TableName,
    /// The key's column: `text` or `varchar`.
    pub key: Ident,
    /// The ETag's column: `text` or `varchar`. Quotes around it are passed over when it is read.
    pub etag: Ident,
    /// The column of the bucket's name, `text` or `varchar`. Default none: all rows are of one bucket.
    pub bucket: Option<Ident>,
    /// The column of the size in bytes: `bigint`, `integer` or `numeric`. Default none.
    pub size: Option<Ident>,
    /// The column of the time by the bucket's clock: `timestamptz`, or `timestamp`, which is read as UTC. Default none.
    pub last_modified: Option<Ident>,
    /// The column of when the object was first seen as it is now, by the database server's clock: of a type as
    /// `last_modified`. It is only written. Default none.
    pub seen_at: Option<Ident>,
    /// The column of the SHA-256 of what was fetched: `bytea`. Default none.
    pub content: Option<Ident>,
    /// Whether rows come and go. Default [`RowPolicy::InsertAndDelete`].
    pub rows: RowPolicy,
}

/// What becomes of rows when objects become known, or are known no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowPolicy {
    /// An object without a row gets one, with what is known of it and the defaults of the table's other columns; the
    /// row of one that is known no more is deleted. Where a column has neither value nor default and must have one, the
    /// server refuses that.
    #[default]
    InsertAndDelete,
    /// Rows are only updated: an object that has none gets none, and none is deleted. For a table whose rows somebody else
    /// inserts and deletes, such as the sink of a sync in the same transaction.
    UpdateOnly,
}

impl Default for KnownTable {
    fn default() -> Self {
        let column = |name: &str| Ident::new(name).unwrap_or_else(|_| unreachable!("{name} is a name"));
        let name = TableName { schema: column("bulk"), name: column("known_object") };
        let mut table = Self::new(name, column("key"), column("etag"));
        table.bucket = Some(column("bucket"));
        table.size = Some(column("size"));
        table.last_modified = Some(column("last_modified"));
        table.seen_at = Some(column("seen_at"));
        table.content = Some(column("content"));
        table
    }
}

impl KnownTable {
    /// A table with these columns, and none for anything else.
    pub fn new(name: TableName, key: Ident, etag: Ident) -> Self {
        Self {
            name,
            key,
            etag,
            bucket: None,
            size: None,
            last_modified: None,
            seen_at: None,
            content: None,
            rows: RowPolicy::default(),
        }
    }

    /// Whether it is the table of ours.
    pub(super) fn is_ours(&self) -> bool {
        *self == Self::default()
    }
}

/// Makes the table of ours where it is absent. The schema is left alone where it is there: to ask for it takes a privilege.
pub(super) async fn create(client: &Client) -> Result<(), Cause> {
    let exists = "SELECT pg_catalog.to_regclass('bulk.known_object') IS NOT NULL";
    if client.query_one(exists, &[]).await?.get(0) {
        return Ok(());
    }
    let create = in_own_schema(
        "CREATE TABLE IF NOT EXISTS bulk.known_object (
             bucket text COLLATE \"C\" NOT NULL,
             key text COLLATE \"C\" NOT NULL,
             etag text COLLATE \"C\",
             size bigint,
             last_modified timestamptz,
             seen_at timestamptz NOT NULL DEFAULT now(),
             content bytea CHECK (octet_length(content) = 32),
             PRIMARY KEY (bucket, key)
         );
         COMMENT ON TABLE bulk.known_object IS 'An object of a bucket, as it was when it was last dealt with; seen_at is when it was first seen so, content the SHA-256 of what was fetched.';",
    );
    Ok(client.batch_execute(&create).await?)
}

/// The columns, each with its base type, how people write its type, and whether its collation sorts by bytes and tells
/// apart what differs. What is not in the catalogues of all versions is asked for by way of JSON.
const COLUMNS: &str = "
    SELECT a.attname::text, b.oid, pg_catalog.format_type(a.atttypid, a.atttypmod),
        coalesce(CASE l.collprovider::text
            WHEN 'c' THEN l.collcollate IN ('C', 'POSIX')
            WHEN 'b' THEN true
            WHEN 'd' THEN CASE coalesce(d.d ->> 'datlocprovider', 'c')
                WHEN 'c' THEN d.d ->> 'datcollate' IN ('C', 'POSIX') ELSE d.d ->> 'datlocprovider' = 'b' END
            END, false),
        coalesce(l.collisdeterministic, true)
    FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    JOIN pg_catalog.pg_type b ON b.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END
    LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation,
    (SELECT pg_catalog.to_jsonb(d) AS d FROM pg_catalog.pg_database d WHERE datname = pg_catalog.current_database()) d
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped";

/// Unique indexes that can tell apart what differs, by the names of their columns.
const UNIQUE: &str = "
    SELECT (SELECT pg_catalog.array_agg(a.attname::text)
            FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place)
            JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
            WHERE k.place <= i.indnkeyatts)
    FROM pg_catalog.pg_index i
    WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
        AND i.indexprs IS NULL
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_collation l
                        WHERE l.oid = ANY (i.indcollation::oid[]) AND NOT l.collisdeterministic)";

struct Column {
    name: String,
    base: u32,
    type_name: String,
    is_by_bytes: bool,
    is_deterministic: bool,
}

/// Type OIDs (`pg_type.dat`): they never change.
mod oid {
    pub(super) const BYTEA: u32 = 17;
    pub(super) const INT8: u32 = 20;
    pub(super) const INT4: u32 = 23;
    pub(super) const TEXT: u32 = 25;
    pub(super) const VARCHAR: u32 = 1043;
    pub(super) const TIMESTAMP: u32 = 1114;
    pub(super) const TIMESTAMPTZ: u32 = 1184;
    pub(super) const NUMERIC: u32 = 1700;
}

/// Looks at a table, and finds out how it is to be spoken to.
pub(super) async fn describe(client: &Client, table: &KnownTable, bucket: &str, store: &str) -> Result<Target, Error> {
    let failed = |error: tokio_postgres::Error| failed(store, "look at the table", Cause::from(error));
    let name = table.name.to_string();
    let found = "SELECT c.oid, c.relkind::text, pg_catalog.current_setting('server_encoding')
                 FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1)";
    let Some(row) = client.query_opt(found, &[&name]).await.map_err(failed)? else {
        return Err(unusable(store, format!("table {:#} does not exist in the database", table.name)));
    };
    let (relation, kind, encoding): (u32, String, String) = (row.get(0), row.get(1), row.get(2));
    if encoding != "UTF8" {
        return Err(unusable(store, format!("the database's encoding is {encoding}; keys need UTF8")));
    }
    let rows = client.query(COLUMNS, &[&relation]).await.map_err(failed)?;
    let columns: Vec<Column> = rows
        .iter()
        .map(|row| Column {
            name: row.get(0),
            base: row.get(1),
            type_name: row.get(2),
            is_by_bytes: row.get(3),
            is_deterministic: row.get(4),
        })
        .collect();
    let column = |ident: &Ident, types: &[u32], wanted: &str| {
        let Some(column) = columns.iter().find(|column| column.name == ident.as_str()) else {
            return Err(unusable(store, format!("table {:#} has no column {ident:#}", table.name)));
        };
        if types.contains(&column.base) {
            return Ok(column);
        }
        let what =
            format!("column {ident:#} of {:#} is of type {}, and must be {wanted}", table.name, column.type_name);
        Err(unusable(store, what))
    };
    const TEXTS: (&[u32], &str) = (&[oid::TEXT, oid::VARCHAR], "text or varchar");
    const TIMES: (&[u32], &str) = (&[oid::TIMESTAMPTZ, oid::TIMESTAMP], "timestamptz or timestamp");
    let quoted = |ident: &Ident| ident.to_string();
    let key = column(&table.key, TEXTS.0, TEXTS.1)?;
    column(&table.etag, TEXTS.0, TEXTS.1)?;
    let bucket = match &table.bucket {
        Some(ident) => {
            if !column(ident, TEXTS.0, TEXTS.1)?.is_deterministic {
                let what =
                    format!("column {ident:#} of {:#} has a collation that takes for equal what differs", table.name);
                return Err(unusable(store, what));
            }
            let name = quote_literal(bucket).map_err(|error| unusable(store, format!("the bucket's name: {error}")))?;
            Some((quoted(ident), name))
        }
        None => None,
    };
    if let Some(size) = &table.size {
        column(size, &[oid::INT8, oid::INT4, oid::NUMERIC], "bigint, integer or numeric")?;
    }
    if let Some(content) = &table.content {
        column(content, &[oid::BYTEA], "bytea")?;
    }
    let time = |ident: &Option<Ident>| -> Result<Option<Time>, Error> {
        let Some(ident) = ident else { return Ok(None) };
        let is_plain = column(ident, TIMES.0, TIMES.1)?.base == oid::TIMESTAMP;
        Ok(Some(Time { column: quoted(ident), is_plain }))
    };
    let plain = format!("o.{}", table.key);
    let by_bytes = format!("{plain} COLLATE \"C\"");
    let unique = client.query(UNIQUE, &[&relation]).await.map_err(failed)?;
    let mut tells_apart: Vec<&Ident> = table.bucket.iter().chain([&table.key]).collect();
    tells_apart.sort();
    let arbiter = unique.iter().any(|row| {
        let mut names: Vec<String> = row.get::<_, Option<_>>(0).unwrap_or_default();
        names.sort();
        names.iter().eq(tells_apart.iter().map(|ident| ident.as_str()))
    });
    let mut target = Target {
        name,
        shown: format!("{:#}", table.name),
        key: quoted(&table.key),
        order: by_bytes.clone(),
        equal: by_bytes.clone(),
        bucket,
        etag: quoted(&table.etag),
        size: table.size.as_ref().map(quoted),
        last_modified: time(&table.last_modified)?,
        seen_at: time(&table.seen_at)?,
        content: table.content.as_ref().map(quoted),
        rows: table.rows,
        arbiter: arbiter.then(|| tells_apart.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        is_ours: table.is_ours(),
        is_indexed: false,
        missing_index: None,
        can_be_sampled: ["r", "m", "p"].contains(&kind.as_str()),
    };
    // An index serves only the collation that it has, also where another one sorts alike.
    let orders = if key.is_by_bytes { vec![&plain, &by_bytes] } else { vec![&by_bytes] };
    for order in orders {
        target.order.clone_from(order);
        target.equal.clone_from(order);
        if is_sorted_by_index(client, &target).await.map_err(|error| super::failed(store, "plan a scan", error))? {
            target.is_indexed = true;
            return Ok(target);
        }
    }
    if key.is_deterministic {
        target.equal = plain;
    }
    if kind != "v" && kind != "f" {
        let bucket = table.bucket.as_ref().map(|bucket| format!("{bucket}, ")).unwrap_or_default();
        let concurrently = if kind == "p" { "" } else { " CONCURRENTLY" };
        let statement = format!("CREATE INDEX{concurrently} ON {} ({bucket}{} COLLATE \"C\")", table.name, table.key);
        target.missing_index = Some(statement);
    }
    Ok(target)
}

/// Whether the server reads a range through an index that has it in order: as it says itself, since nobody knows all its
/// kinds of indexes better.
async fn is_sorted_by_index(client: &Client, target: &Target) -> Result<bool, Source> {
    let range = KeyRange::new(Some("a".to_owned()), Some("b".to_owned()));
    let plan = client.simple_query(&format!("EXPLAIN (FORMAT json) {}", target.scan(&range, 1000))).await;
    let plan: String = plan
        .map_err(Cause::from)?
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        })
        .collect();
    Ok(!["\"Sort\"", "\"Incremental Sort\""].iter().any(|node| plan.contains(&format!("\"Node Type\": {node}"))))
}
