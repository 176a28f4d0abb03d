use std::time::Duration;

use tokio_postgres::types::{Kind, Type};
use tokio_postgres::{Client, Column};

use super::selection::Part;
use super::{ExportSnapshotOptions, ItemDeletions, ItemJson, ItemRows, ItemSource, Selection};
use crate::user_query::subselect;
use crate::{Error, Ident, TableName, quote_literal};

/// An [`ItemSource`] that the server knows; what can be read of it.
#[derive(Clone, Debug)]
pub struct ItemQuery {
    name: String,
    /// The rows, as [`ROW`].
    from: String,
    /// The same without what only the JSON needs.
    from_rows: String,
    id: String,
    group: String,
    time: String,
    json: String,
    modified: Option<TimeColumn>,
    /// The names and types of what the items are made of.
    layout: String,
    /// Whether an index sees to it that no two rows have the same id.
    ids_are_unique: bool,
    /// The type by which an index of the ids is found; else they are compared as text.
    id_type: Option<&'static str>,
    gone: Option<Gone>,
    /// Conditions that share the rows among them; none if one statement reads all of them.
    ranges: Vec<String>,
    /// How large the table is.
    bytes: u64,
}

/// From where on changes are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    /// The [watermark](crate::ExportSnapshot::watermark) of the last export that was kept.
    pub watermark: String,
    /// How much earlier. 15 minutes suit most databases.
    pub overlap: Duration,
}

#[derive(Clone, Debug)]
struct TimeColumn {
    name: String,
    kind: TimeKind,
    has_nulls: bool,
    /// Whether the zone in which it is may turn its clocks back.
    is_zoned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TimeKind {
    Instant,
    Local,
    Date,
}

/// What is gone, as rows of [`GONE`].
#[derive(Clone, Debug)]
enum Gone {
    /// A subselect, in which [`SINCE`] may stand.
    Query {
        query: String,
        is_zoned: bool,
    },
    Table {
        from: String,
        id: String,
        deleted: TimeColumn,
    },
}

/// What rows are called in our statements.
const ROW: &str = "\"bulk_item\"";
/// The columns that become the JSON.
const JSON: &str = "\"bulk_json\"";
const GONE: &str = "\"bulk_gone\"";
/// What stands in the user's statement for the moment.
const SINCE: &str = "{since}";

/// How times without a zone are read.
#[derive(Clone, Copy)]
pub(super) struct Clock<'a> {
    /// The zone that they are of.
    pub(super) zone: &'a str,
    /// The database's own, where it is another one and nobody has said which of the two is meant.
    pub(super) doubt: Option<&'a str>,
}

pub(super) async fn prepare(
    client: &Client,
    source: &ItemSource,
    options: &ExportSnapshotOptions,
    clock: Clock<'_>,
    version: u32,
) -> Result<ItemQuery, Error> {
    let ItemSource { name, rows, id, group, modified, json, deletions } = source;
    let from_rows = match rows {
        ItemRows::Table(table) => format!("{table} {ROW}"),
        ItemRows::Query(query) => format!("(\n{}\n) {ROW}", subselect(query, name)?),
    };
    let column = |column: &Ident| format!("{ROW}.{column}");
    let from = match json {
        ItemJson::Columns(columns) if columns.is_empty() => {
            return Err(Error::Options { what: format!("{name}: its JSON has no columns") });
        }
        ItemJson::Columns(columns) => {
            let columns: Vec<String> = columns.iter().map(column).collect();
            format!("{from_rows}, LATERAL (SELECT {}) {JSON}", columns.join(", "))
        }
        _ => from_rows.clone(),
    };
    let (json, json_column, made_of) = match json {
        ItemJson::Row => (format!("pg_catalog.row_to_json({ROW}.*)::text"), None, format!("{ROW}.*")),
        ItemJson::Columns(_) => (format!("pg_catalog.row_to_json({JSON}.*)::text"), None, format!("{JSON}.*")),
        ItemJson::Column(name) => (format!("{}::text", column(name)), Some(name), column(name)),
    };
    let described = format!(
        "SELECT {}, {}, {}, {json}, {made_of} FROM {from}",
        column(id),
        column(group),
        modified.as_ref().map_or("NULL".to_owned(), column),
    );
    let action = || format!("read the items of {name}");
    hold(client, &described, action()).await?;
    assert_is_held(client, name).await?;
    let statement = client.prepare(&described).await.map_err(Error::database(action()))?;
    let [id_column, group_column, time_column, _, made_of @ ..] = statement.columns() else {
        return Err(Error::Received { what: "another number of columns than it was asked for" });
    };
    if let (Some(column), [json_column]) = (json_column, made_of) {
        let json_type = base(json_column.type_());
        if ![Type::JSON, Type::JSONB, Type::TEXT, Type::VARCHAR, Type::BPCHAR].contains(json_type) {
            let what = format!("{name}: the column {column:#} is {json_type}, and JSON is json, jsonb or text");
            return Err(Error::Options { what });
        }
    }
    let layout = [id_column, group_column, time_column].into_iter().chain(made_of).map(layout).collect::<Vec<_>>();
    let time_type = base(time_column.type_());
    let is_zoned = !["utc", "etc/utc", "gmt"].contains(&clock.zone.to_ascii_lowercase().as_str());
    let modified = match modified {
        None => None,
        Some(modified) => {
            let kind = time_kind(time_type, modified, name, clock)?;
            let has_nulls = match rows {
                ItemRows::Table(table) => has_nulls(client, table, modified).await?,
                ItemRows::Query(_) => true,
            };
            Some(TimeColumn { name: column(modified), kind, has_nulls, is_zoned })
        }
    };
    let ((ranges, bytes), ids_are_unique) = match rows {
        ItemRows::Table(table) => {
            (ranges(client, table, options.range, version).await?, is_unique(client, table, id).await?)
        }
        ItemRows::Query(_) => ((Vec::new(), 0), false),
    };
    let time = modified.as_ref().map_or("NULL".to_owned(), |modified| modified.name.clone());
    let mut query = ItemQuery {
        name: name.clone(),
        from,
        from_rows,
        id: column(id),
        group: column(group),
        time: format!("{time}::timestamptz"),
        json,
        modified,
        layout: layout.join(", "),
        ids_are_unique,
        id_type: indexed(base(id_column.type_())),
        gone: None,
        ranges,
        bytes,
    };
    if let Some(deletions) = deletions {
        query.gone = Some(gone(client, deletions, name, is_zoned, clock).await?);
        let since = Since { watermark: "2000-01-01T00:00:00+00:00".to_owned(), overlap: Duration::ZERO };
        for part in query.gone(&since)?.iter().flat_map(|selection| &selection.parts) {
            hold(client, &part.query, format!("read what is gone of {name}")).await?;
        }
        assert_is_held(client, name).await?;
    }
    Ok(query)
}

impl ItemQuery {
    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has a column that tells what has changed.
    pub fn tells_changes(&self) -> bool {
        self.modified.is_some()
    }

    /// The names and types of the columns that items are made of: equal as long as the same rows make the same items.
    pub fn layout(&self) -> &str {
        &self.layout
    }

    /// Whether no two rows can have the same id, since the table has an index that sees to it. Of a view or a query nobody knows.
    pub fn ids_are_unique(&self) -> bool {
        self.ids_are_unique
    }

    /// All items.
    pub fn all(&self) -> Selection {
        self.in_ranges(&self.columns(), &self.from)
    }

    /// The items that may have changed: those whose time is not before the moment, or NULL. All, if no column tells the time.
    ///
    /// # Errors
    ///
    /// [`Error::Options`]: the watermark cannot be one.
    pub fn changed(&self, since: &Since) -> Result<Selection, Error> {
        let Some(modified) = &self.modified else { return Ok(self.all()) };
        let query = format!("SELECT {} FROM {} WHERE {}", self.columns(), self.from, modified.not_before(since)?);
        Ok(self.selection(query))
    }

    /// The items with these ids, as text, as far as they are there.
    ///
    /// # Errors
    ///
    /// [`Error::Options`]: an id cannot be one.
    pub fn of_ids<S: AsRef<str>>(&self, ids: &[S]) -> Result<Selection, Error> {
        /// Ids of one statement.
        const AT_ONCE: usize = 1000;
        let statement = |ids: &[S]| {
            let query = format!("SELECT {} FROM {} WHERE {}", self.columns(), self.from, self.is_one_of(ids)?);
            Ok(Part { query, bytes: 0 })
        };
        let parts = ids.chunks(AT_ONCE).map(statement).collect::<Result<_, Error>>()?;
        Ok(Selection { name: self.name.clone(), parts })
    }

    /// All rows with these ids, by one statement: one id after another, and of each the row that is to count last. That is the
    /// one modified last; of several of one time that with the greatest group, then the greatest JSON, byte by byte.
    ///
    /// # Errors
    ///
    /// [`Error::Options`]: an id cannot be one.
    pub fn versions<S: AsRef<str>>(&self, ids: &[S]) -> Result<Selection, Error> {
        let Self { from, id, time, group, json, .. } = self;
        let query = format!(
            "SELECT {} FROM {from} WHERE {}
             ORDER BY {id}::text COLLATE \"C\", {time} NULLS FIRST, {group}::text COLLATE \"C\" NULLS FIRST,
                      ({json}) COLLATE \"C\" NULLS FIRST",
            self.columns(),
            self.is_one_of(ids)?
        );
        Ok(self.selection(query))
    }

    fn is_one_of<S: AsRef<str>>(&self, ids: &[S]) -> Result<String, Error> {
        let mut list = String::from("{");
        for id in ids {
            if list.len() > 1 {
                list.push(',');
            }
            list.push('"');
            list.push_str(&id.as_ref().replace('\\', "\\\\").replace('"', "\\\""));
            list.push('"');
        }
        list.push('}');
        let list = literal(&list)?;
        Ok(match self.id_type {
            Some(id_type) => format!("{} = ANY ({list}::text[]::{id_type}[])", self.id),
            None => format!("{}::text = ANY ({list}::text[])", self.id),
        })
    }

    /// Id and group of all items, without their JSON.
    pub fn ids(&self) -> Selection {
        self.in_ranges(&format!("{}::text, {}::text", self.id, self.group), &self.from_rows)
    }

    /// The ids of items that are gone since then. None if nothing tells of them.
    ///
    /// # Errors
    ///
    /// [`Error::Options`]: the watermark cannot be one.
    pub fn gone(&self, since: &Since) -> Result<Option<Selection>, Error> {
        let Some(gone) = &self.gone else { return Ok(None) };
        let (from, id, condition) = match gone {
            Gone::Query { query, is_zoned } => {
                let query = query.replace(SINCE, &earlier(moment(since)?, *is_zoned));
                (format!("(\n{query}\n) {GONE}(\"id\")"), format!("{GONE}.\"id\""), "true".to_owned())
            }
            Gone::Table { from, id, deleted } => (from.clone(), id.clone(), deleted.not_before(since)?),
        };
        let is_same = match self.id_type {
            Some(id_type) => format!("{} = {id}::text::{id_type}", self.id),
            None => format!("{}::text = {id}::text", self.id),
        };
        let query = format!(
            "SELECT {id}::text FROM {from} WHERE {id} IS NOT NULL AND {condition}
             AND NOT EXISTS (SELECT FROM {} WHERE {is_same})",
            self.from_rows
        );
        Ok(Some(self.selection(query)))
    }

    fn columns(&self) -> String {
        format!("{}::text, {}::text, {}, {}", self.id, self.group, self.time, self.json)
    }

    fn selection(&self, query: String) -> Selection {
        Selection { name: self.name.clone(), parts: vec![Part { query, bytes: 0 }] }
    }

    fn in_ranges(&self, columns: &str, from: &str) -> Selection {
        let all = format!("SELECT {columns} FROM {from}");
        if self.ranges.is_empty() {
            return Selection { name: self.name.clone(), parts: vec![Part { query: all, bytes: self.bytes }] };
        }
        let bytes = self.bytes / self.ranges.len() as u64;
        let part = |range| Part { query: format!("{all} WHERE {range}"), bytes };
        Selection { name: self.name.clone(), parts: self.ranges.iter().map(part).collect() }
    }
}

impl TimeColumn {
    fn not_before(&self, since: &Since) -> Result<String, Error> {
        let moment = earlier(moment(since)?, self.is_zoned && self.kind != TimeKind::Instant);
        let name = &self.name;
        let is_later = match self.kind {
            TimeKind::Instant => format!("{name} >= {moment}"),
            TimeKind::Local => format!("{name} >= {moment}::timestamp"),
            TimeKind::Date => format!("{name} >= {moment}::date"),
        };
        Ok(if self.has_nulls { format!("({is_later} OR {name} IS NULL)") } else { is_later })
    }
}

/// The moment as an expression of type timestamptz.
fn moment(since: &Since) -> Result<String, Error> {
    let Since { watermark, overlap } = since;
    Ok(format!(
        "({}::timestamptz - interval '{}.{:06} seconds')",
        literal(watermark)?,
        overlap.as_secs(),
        overlap.subsec_micros()
    ))
}

/// An hour may come twice, by the clock of whoever wrote: what it showed later may be less than what it showed before.
fn earlier(moment: String, is_zoned: bool) -> String {
    if is_zoned { format!("({moment} - interval '1 hour')") } else { moment }
}

fn literal(text: &str) -> Result<String, Error> {
    quote_literal(text).map_err(|error| Error::Options { what: error.to_string() })
}

async fn gone(
    client: &Client,
    deletions: &ItemDeletions,
    of: &str,
    is_zoned: bool,
    clock: Clock<'_>,
) -> Result<Gone, Error> {
    Ok(match deletions {
        ItemDeletions::Query(query) => {
            Gone::Query { query: subselect(query, &format!("the deletions of {of}"))?, is_zoned }
        }
        ItemDeletions::Table { table, id, deleted } => {
            let described = client.prepare(&format!("SELECT {GONE}.{id}, {GONE}.{deleted} FROM {table} {GONE}")).await;
            let described = described.map_err(Error::database(format!("read what is gone of {of}")))?;
            let time_type = described.columns().get(1).map_or(&Type::UNKNOWN, |column| base(column.type_()));
            let kind = time_kind(time_type, deleted, of, clock)?;
            let has_nulls = has_nulls(client, table, deleted).await?;
            let deleted = TimeColumn { name: format!("{GONE}.{deleted}"), kind, has_nulls, is_zoned };
            Gone::Table { from: format!("{table} {GONE}"), id: format!("{GONE}.{id}"), deleted }
        }
    })
}

/// The type itself, of a domain over it.
fn base(of: &Type) -> &Type {
    match of.kind() {
        Kind::Domain(inner) => base(inner),
        _ => of,
    }
}

fn time_kind(of: &Type, column: &Ident, name: &str, clock: Clock<'_>) -> Result<TimeKind, Error> {
    let kind = match *of {
        Type::TIMESTAMPTZ => return Ok(TimeKind::Instant),
        Type::TIMESTAMP => TimeKind::Local,
        Type::DATE => TimeKind::Date,
        _ => {
            return Err(Error::Options {
                what: format!("{name}: the column {column:#} is {of}, and a time is timestamptz, timestamp or date"),
            });
        }
    };
    match clock.doubt {
        None => Ok(kind),
        Some(own) => Err(Error::Options {
            what: format!(
                "{name}: the column {column:#} is {of}, which has no time zone, and that of the database is {own}; say of which \
                 zone its times are: time-zone = \"{own}\" (what now() writes there), or \"UTC\", at the top of the spec"
            ),
        }),
    }
}

/// Makes the transaction hold all tables that a statement would read, those that a view, a partitioned table or a parent stands
/// for among them, so that nobody rewrites one between two sessions that read of it.
async fn hold(client: &Client, query: &str, action: String) -> Result<(), Error> {
    client.batch_execute(&format!("EXPLAIN {query}")).await.map_err(Error::database(action))
}

/// An error if a table that is held was emptied, rewritten or put in another one's place after the snapshot had been taken: for
/// the snapshot its rows are not there (PostgreSQL manual, "Caveats" of "Concurrency Control"). What a statement finds in
/// `pg_class` is of the snapshot, and what the functions say is of now: the file of a table, its name, and of what it
/// is a partition (of what `INHERIT` makes a table's child no function tells). They lock nothing. Catalogs are left out, and
/// indexes: they have no rows of their own.
async fn assert_is_held(client: &Client, name: &str) -> Result<(), Error> {
    let sql = "SELECT DISTINCT l.relation::pg_catalog.regclass::text
               FROM pg_catalog.pg_locks l
               LEFT JOIN pg_catalog.pg_class c ON c.oid = l.relation
               LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               CROSS JOIN LATERAL
                   pg_catalog.pg_identify_object('pg_catalog.pg_class'::pg_catalog.regclass, l.relation, 0) now
               WHERE l.locktype = 'relation' AND l.pid = pg_catalog.pg_backend_pid() AND l.relation >= 16384
                     AND pg_catalog.pg_get_indexdef(l.relation) IS NULL
                     AND (c.oid IS NULL
                          OR c.relfilenode <> coalesce(pg_catalog.pg_relation_filenode(l.relation), 0::pg_catalog.oid)
                          OR (now.schema, now.name)
                             IS DISTINCT FROM (pg_catalog.quote_ident(n.nspname), pg_catalog.quote_ident(c.relname))
                          OR c.relkind = 'p' AND EXISTS (
                              SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid
                              AND pg_catalog.to_json(i) ->> 'inhdetachpending' IS DISTINCT FROM 'true'
                              AND NOT EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(i.inhrelid) a
                                              WHERE a.relid = c.oid))
                          OR EXISTS (
                              SELECT FROM pg_catalog.pg_partition_ancestors(l.relation) WITH ORDINALITY a(relid, place)
                              WHERE a.place = 2 AND NOT EXISTS (
                                  SELECT FROM pg_catalog.pg_inherits i
                                  WHERE i.inhrelid = l.relation AND i.inhparent = a.relid)))
               ORDER BY 1";
    let rows = client.query(sql, &[]).await.map_err(Error::database(format!("look at the tables of {name}")))?;
    let tables: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    if tables.is_empty() { Ok(()) } else { Err(Error::Rewritten { name: name.to_owned(), tables }) }
}

/// What a column is called and of which type it is. Numbers of types are left out: they are others in a restored database.
fn layout(column: &Column) -> String {
    let mut text = format!("{:?} {}", column.name(), type_layout(column.type_()));
    if column.type_modifier() >= 0 {
        text.push_str(&format!(" {}", column.type_modifier()));
    }
    text
}

fn type_layout(of: &Type) -> String {
    let inner = match of.kind() {
        Kind::Array(inner) | Kind::Domain(inner) => type_layout(inner),
        Kind::Composite(fields) => {
            let fields: Vec<_> =
                fields.iter().map(|field| format!("{:?} {}", field.name(), type_layout(field.type_()))).collect();
            fields.join(", ")
        }
        _ => String::new(),
    };
    format!("{:?}.{:?}({inner})", of.schema(), of.name())
}

/// Types whose values are equal if their texts are, so that what is asked for by its text is found by an index.
fn indexed(of: &Type) -> Option<&'static str> {
    Some(match *of {
        Type::INT2 => "int2",
        Type::INT4 => "int4",
        Type::INT8 => "int8",
        Type::TEXT => "text",
        // Compared as text.
        Type::VARCHAR => "text",
        Type::UUID => "uuid",
        _ => return None,
    })
}

/// Whether a column may be NULL.
async fn has_nulls(client: &Client, table: &TableName, column: &Ident) -> Result<bool, Error> {
    let sql = "SELECT attnotnull FROM pg_catalog.pg_attribute
               WHERE attrelid = pg_catalog.to_regclass($1) AND attname = $2";
    let row = client.query_opt(sql, &[&table.to_string(), &column.as_str()]).await;
    let row = row.map_err(Error::database(format!("look at {table:#}")))?;
    Ok(row.is_none_or(|row| !row.get::<_, bool>(0)))
}

/// Whether an index keeps two rows from having the same value there.
async fn is_unique(client: &Client, table: &TableName, column: &Ident) -> Result<bool, Error> {
    // It says nothing about the rows of tables that inherit, unless they are partitions.
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_index i
                              JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                              WHERE i.indrelid = pg_catalog.to_regclass($1) AND a.attname = $2 AND i.indisunique
                                    AND i.indisvalid AND i.indnkeyatts = 1 AND i.indpred IS NULL)
                      AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class c ON c.oid = h.inhparent
                                      WHERE c.oid = pg_catalog.to_regclass($1) AND c.relkind <> 'p')";
    let row = client.query_one(sql, &[&table.to_string(), &column.as_str()]).await;
    Ok(row.map_err(Error::database(format!("look at {table:#}")))?.get(0))
}

/// Conditions that cut a plain table into stretches of its pages, and how large it is. Older servers would read the whole
/// table for each.
async fn ranges(client: &Client, table: &TableName, range: u64, version: u32) -> Result<(Vec<String>, u64), Error> {
    /// Of one table.
    const MOST: u64 = 1024;
    const RANGES_SINCE: u32 = 140_000;
    let sql = "SELECT coalesce(a.amname = 'heap', false) AND c.relkind IN ('r', 'm'),
                      coalesce(pg_catalog.pg_relation_size(c.oid), 0)
                          / pg_catalog.current_setting('block_size')::int,
                      coalesce(pg_catalog.pg_table_size(c.oid), 0)
               FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
               WHERE c.oid = pg_catalog.to_regclass($1)";
    let row = client.query_opt(sql, &[&table.to_string()]).await;
    let row = row.map_err(Error::database(format!("look at {table:#}")))?;
    let Some(row) = row else { return Ok((Vec::new(), 0)) };
    let number = |place: usize| u64::try_from(row.get::<_, i64>(place)).unwrap_or_default();
    let (is_plain, pages, bytes) = (row.get::<_, bool>(0), number(1), number(2));
    let parts = bytes.div_ceil(range.max(1)).min(pages).min(MOST);
    if !is_plain || parts < 2 || version < RANGES_SINCE {
        return Ok((Vec::new(), bytes));
    }
    // The first has no beginning and the last no end: a table that inherits from it may have more pages.
    let border = |part: u64| format!("'({},0)'::tid", pages * part / parts);
    let condition = |part: u64| match part {
        0 => format!("{ROW}.ctid < {}", border(1)),
        part if part + 1 == parts => format!("{ROW}.ctid >= {}", border(part)),
        part => format!("{ROW}.ctid >= {} AND {ROW}.ctid < {}", border(part), border(part + 1)),
    };
    Ok(((0..parts).map(condition).collect(), bytes))
}
