use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use bulk_pg::{Cause, CopyBinary, Ident, Session, TableName};
use bytes::{Bytes, BytesMut};
use futures::SinkExt;
use serde::de::IgnoredAny;
use tokio::sync::Mutex;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::sink::{Refusal, Sink, SinkBatch, SyncedObject};
use crate::{Error, KnownChange, KnownObjects, ObjectRef, PostgresKnown};

/// Sent at once; the connection copies what it is given.
const PIECE: usize = 256 << 10;

/// What type the bodies of a [`TableSink`] have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyType {
    /// `jsonb`. What is no JSON is refused.
    #[default]
    Jsonb,
    /// `bytea`: any bytes.
    Bytea,
    /// `text`. What is not UTF-8 or holds U+0000 is refused.
    Text,
    /// There is no such column, but some of [`TableOptions::columns`]. What is no JSON is refused.
    None,
}

impl fmt::Display for BodyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jsonb => "jsonb",
            Self::Bytea => "bytea",
            Self::Text => "text",
            Self::None => "none",
        })
    }
}

/// A text that names no [`BodyType`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no type of a body: jsonb, bytea, text or none")]
pub struct UnknownBodyType(pub String);

impl FromStr for BodyType {
    type Err = UnknownBodyType;

    fn from_str(text: &str) -> Result<Self, UnknownBodyType> {
        let named =
            [Self::Jsonb, Self::Bytea, Self::Text, Self::None].into_iter().find(|body| body.to_string() == text);
        named.ok_or_else(|| UnknownBodyType(text.to_owned()))
    }
}

/// A column that is filled from within the bodies, which are JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathColumn {
    /// The column.
    pub name: Ident,
    /// Where its value is in a body: an SQL/JSON path, such as `$.target.version`. The first item that it finds counts; if it
    /// finds none, or a JSON null, the value is NULL.
    ///
    /// <https://www.postgresql.org/docs/current/functions-json.html#FUNCTIONS-SQLJSON-PATH>
    pub path: String,
    /// The type that the column gets where the table is made, as PostgreSQL writes it; a length in it does not count.
    /// Default: `text`.
    pub data_type: String,
}

impl PathColumn {
    /// A column of texts.
    pub fn new(name: Ident, path: impl Into<String>) -> Self {
        Self { name, path: path.into(), data_type: "text".to_owned() }
    }
}

/// What a row of a [`TableSink`] has beside key and ETag.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TableOptions {
    /// The type of the column `body`. Default `jsonb`.
    pub body: BodyType,
    /// Columns that are filled from within the bodies, which must be `jsonb` or none then. A column `jsonb` or `json` gets
    /// the item as it is; one of another type what its input makes of the item's text, a string without its quotes. An
    /// object with an item that its column does not take is refused. Default: none.
    ///
    /// Rows that are there already get them when their objects change.
    pub columns: Vec<PathColumn>,
}

impl From<BodyType> for TableOptions {
    fn from(body: BodyType) -> Self {
        Self { body, columns: Vec::new() }
    }
}

/// A table of PostgreSQL with a row for each object: `key text COLLATE "C" PRIMARY KEY, etag text, body` of a [`BodyType`], or
/// others [from within the bodies](TableOptions::columns).
///
/// A batch goes by COPY into a temporary table and from there into the table, in one transaction, and in the same one it is
/// marked known, if the store is the [`PostgresKnown`] that it was given: after whatever end, all of it is there, or nothing.
/// With another store it is marked after the commit. A commit waits for the server's disk.
///
/// Objects that the server does not take (a number out of the range of `numeric` in a JSON, what a constraint or a trigger of
/// the user's refuses) are found by cutting the batch in halves, and refused one by one.
///
/// Dropping the future of [`store`](Sink::store) closes its connection, and the server rolls back what was open; it may be that
/// a commit was on its way.
pub struct TableSink {
    url: String,
    table: TableName,
    body: BodyType,
    /// What puts the objects of a batch into the table.
    merge: String,
    /// The parameters of that.
    paths: Vec<String>,
    known: Option<Arc<PostgresKnown>>,
    identity: String,
    /// None while it is used, and after an error.
    session: Mutex<Option<Session>>,
}

impl fmt::Debug for TableSink {
    /// Without the URL, in which a password may stand.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableSink").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl TableSink {
    /// Connects to a database, and makes the table if it is not there. One that is there must have the columns `key`, `etag`
    /// and those of `options`, this type of bodies, and keys that are unique; it may have others, which have their defaults.
    /// `url` is what [`bulk_pg::Session::connect`] takes; `options` may be a [`BodyType`] alone; `known` is the store of the
    /// same database that objects are marked in.
    ///
    /// # Errors
    ///
    /// [`Error::Sink`]: no connection, a table that cannot be used, or a path that is none.
    pub async fn connect(
        url: &str,
        table: TableName,
        options: impl Into<TableOptions>,
        known: Option<Arc<PostgresKnown>>,
    ) -> Result<Self, Error> {
        let TableOptions { body, columns: paths } = options.into();
        // Nothing of the URL is shown before bulk-pg has read it.
        let session = Session::connect(url).await.map_err(|error| failed("PostgreSQL", "cannot be reached", error))?;
        let mut identity = format!("{}, table {table:#}", session.target());
        for PathColumn { name, path, .. } in &paths {
            identity.push_str(&format!(", {name} = {path}"));
        }
        // In another database its transactions would not be those of the objects.
        let known = known.filter(|known| known.is_in(session.target()));
        let client = session.client();
        let answered = |what: &str| {
            let (identity, what) = (identity.clone(), what.to_owned());
            move |error: tokio_postgres::Error| failed(&identity, &what, Cause::from(error))
        };
        let unusable = |what: String| Error::Sink { sink: identity.clone(), what, source: None };
        if !paths.is_empty() && !matches!(body, BodyType::Jsonb | BodyType::None) {
            return Err(unusable(format!("columns from within bodies need those as jsonb, and not as {body}")));
        }
        let mut create = format!("CREATE TABLE IF NOT EXISTS {table} (key text COLLATE \"C\" PRIMARY KEY, etag text");
        if body != BodyType::None {
            create.push_str(&format!(", body {body}"));
        }
        for PathColumn { name, path, data_type } in &paths {
            let parsed = client.query_one("SELECT $1::text::jsonpath::text", &[path]).await;
            parsed.map_err(answered(&format!("cannot take {path:?} for a path")))?;
            // What is given back is a type, quoted as it has to be.
            let parsed = client.query_one("SELECT $1::text::pg_catalog.regtype::text", &[data_type]).await;
            let data_type: String = parsed.map_err(answered(&format!("has no type {data_type:?}")))?.get(0);
            create.push_str(&format!(", {name} {data_type}"));
        }
        create.push(')');
        let quoted = table.to_string();
        let exists = client.query_one("SELECT pg_catalog.to_regclass($1) IS NOT NULL", &[&quoted]).await;
        if !exists.map_err(answered("its table cannot be looked at"))?.get::<_, bool>(0) {
            client.batch_execute(&create).await.map_err(answered("its table cannot be made"))?;
        }
        let columns = "SELECT a.attname::text, pg_catalog.format_type(a.atttypid, -1) FROM pg_catalog.pg_attribute a
                       WHERE a.attrelid = pg_catalog.to_regclass($1)::oid AND a.attnum > 0 AND NOT a.attisdropped";
        let found = client.query(columns, &[&quoted]).await;
        let found = found.map_err(answered("its table cannot be looked at"))?;
        let type_of =
            |name: &str| found.iter().find(|row| row.get::<_, &str>(0) == name).map(|row| row.get::<_, String>(1));
        let text = &["text", "character varying"][..];
        let body_type = body.to_string();
        let body_type = &[body_type.as_str()][..];
        let mut wanted = vec![("key", text), ("etag", text)];
        wanted.extend((body != BodyType::None).then_some(("body", body_type)));
        for (name, types) in wanted {
            match type_of(name) {
                Some(found) if types.contains(&found.as_str()) => {}
                Some(found) => {
                    return Err(unusable(format!("its column {name} has the type {found}, and not {}", types[0])));
                }
                None => return Err(unusable(format!("it has no column {name}"))),
            }
        }
        let mut types = Vec::new();
        for PathColumn { name, .. } in &paths {
            let found = type_of(name.as_ref()).ok_or_else(|| unusable(format!("it has no column {name:#}")))?;
            types.push((name, found));
        }
        let merge = merge(&table, body, &types);
        let (url, paths) = (url.to_owned(), paths.into_iter().map(|column| column.path).collect());
        Ok(Self { url, table, body, merge, paths, known, identity, session: Mutex::new(Some(session)) })
    }

    /// Why an object cannot be held, as far as it can be told without the server.
    fn refusal(&self, object: &SyncedObject) -> Option<String> {
        let nul = "holds U+0000, which no text of PostgreSQL can";
        if object.key.contains('\0') {
            return Some(format!("its key {nul}"));
        }
        if object.etag.as_ref().is_some_and(|etag| etag.as_str().contains('\0')) {
            return Some(format!("its ETag {nul}"));
        }
        match self.body {
            BodyType::Bytea => None,
            BodyType::Jsonb | BodyType::None => serde_json::from_slice::<IgnoredAny>(object.bytes())
                .err()
                .map(|error| format!("its body is no JSON: {error}"))
                .or_else(|| {
                    simdutf8::basic::from_utf8(object.bytes()).err().map(|_| "its body is not UTF-8".to_owned())
                }),
            BodyType::Text if object.bytes().contains(&0) => Some(format!("its body {nul}")),
            BodyType::Text => {
                simdutf8::compat::from_utf8(object.bytes()).err().map(|error| format!("its body is not UTF-8: {error}"))
            }
        }
    }

    /// Stores and marks in one transaction. After an error there is none open.
    async fn commit(&self, session: &Session, part: &Part<'_>) -> Result<(), Error> {
        let client = session.client();
        let done = self.fill(client, part).await;
        if done.is_err() {
            client.batch_execute("ROLLBACK").await.map_err(|error| self.failed(error))?;
        }
        done
    }

    async fn fill(&self, client: &Client, part: &Part<'_>) -> Result<(), Error> {
        let failed = |error| self.failed(error);
        let table = &self.table;
        let body = match self.body {
            BodyType::None => BodyType::Jsonb,
            body => body,
        };
        let begin = format!(
            "BEGIN; SET LOCAL synchronous_commit = on;
             CREATE TEMP TABLE IF NOT EXISTS bulk_synced (key text NOT NULL, etag text, body {body}) ON COMMIT DELETE ROWS"
        );
        client.batch_execute(&begin).await.map_err(failed)?;
        if !part.removed.is_empty() {
            let delete = format!("DELETE FROM {table} WHERE key = ANY ($1)");
            client.execute(&delete, &[&part.removed]).await.map_err(failed)?;
        }
        if !part.unchanged.is_empty() {
            let keys: Vec<&str> = part.unchanged.iter().map(|object| object.key).collect();
            let etags: Vec<Option<&str>> = part.unchanged.iter().map(|object| object.etag).collect();
            let update = format!(
                "UPDATE {table} AS t SET etag = n.etag FROM unnest($1::text[], $2::text[]) AS n (key, etag) WHERE t.key = n.key"
            );
            client.execute(&update, &[&keys, &etags]).await.map_err(failed)?;
        }
        if !part.objects.is_empty() {
            self.copy(client, part.objects).await?;
            let paths: Vec<_> = self.paths.iter().map(|path| path as &(dyn ToSql + Sync)).collect();
            client.execute(&self.merge, &paths).await.map_err(failed)?;
        }
        if let Some(known) = part.known {
            known.apply_over(client, &part.changes()).await?;
        }
        client.batch_execute("COMMIT").await.map_err(failed)
    }

    async fn copy(&self, client: &Client, objects: &[&SyncedObject]) -> Result<(), Error> {
        let failed = |error| self.failed(error);
        let sink = client.copy_in("COPY pg_temp.bulk_synced FROM STDIN (FORMAT binary)").await.map_err(failed)?;
        let mut sink = Box::pin(sink);
        let mut rows = BytesMut::from(&CopyBinary::HEADER[..]);
        for object in objects {
            rows.extend_from_slice(&3_i16.to_be_bytes());
            field(&mut rows, &[object.key.as_bytes()]);
            match &object.etag {
                Some(etag) => field(&mut rows, &[etag.as_str().as_bytes()]),
                None => rows.extend_from_slice(&(-1_i32).to_be_bytes()),
            }
            match self.body {
                // The version of its format.
                BodyType::Jsonb | BodyType::None => field(&mut rows, &[&[1], object.bytes()]),
                BodyType::Bytea | BodyType::Text => field(&mut rows, &[object.bytes()]),
            }
            if rows.len() >= PIECE {
                sink.send(rows.split().freeze()).await.map_err(failed)?;
            }
        }
        rows.extend_from_slice(&CopyBinary::TRAILER);
        sink.send(Bytes::from(rows)).await.map_err(failed)?;
        sink.as_mut().finish().await.map_err(failed)?;
        Ok(())
    }

    #[cold]
    fn failed(&self, error: tokio_postgres::Error) -> Error {
        failed(&self.identity, "cannot be written to", Cause::from(error))
    }
}

/// What is stored in a transaction.
struct Part<'a> {
    objects: &'a [&'a SyncedObject],
    unchanged: &'a [ObjectRef<'a>],
    removed: &'a [&'a str],
    /// The store to mark them in.
    known: Option<&'a PostgresKnown>,
}

impl<'a> Part<'a> {
    fn changes(&self) -> Vec<KnownChange<'a>> {
        let objects = self.objects.iter().map(|object| object.describe()).chain(self.unchanged.iter().copied());
        objects.map(KnownChange::Set).chain(self.removed.iter().copied().map(KnownChange::Remove)).collect()
    }
}

#[async_trait]
impl Sink for TableSink {
    async fn store(&self, batch: &SinkBatch, known: &dyn KnownObjects) -> Result<Vec<Refusal>, Error> {
        let mut refusals = Vec::new();
        let mut objects = Vec::new();
        for object in &batch.objects {
            match self.refusal(object) {
                Some(reason) => refusals.push(Refusal::new(&object.key, reason)),
                None => objects.push(object),
            }
        }
        // Of what no text can hold there is no row.
        let unchanged: Vec<_> = batch.unchanged.iter().filter(|object| !object.key.contains('\0')).collect();
        let removed: Vec<_> = batch.removed.iter().map(String::as_str).filter(|key| !key.contains('\0')).collect();
        let own = self.known.as_deref().filter(|own| own.identity() == known.identity());
        let mut place = self.session.lock().await;
        // Taken: where this is dropped or fails, nobody knows what is open in it.
        let session = match place.take().filter(|session| !session.is_closed()) {
            Some(session) => session,
            None => {
                Session::connect(&self.url).await.map_err(|error| failed(&self.identity, "cannot be reached", error))?
            }
        };
        let part = |objects| Part { objects, unchanged: &[], removed: &[], known: own };
        let whole = Part { unchanged: &unchanged, removed: &removed, ..part(&objects) };
        match self.commit(&session, &whole).await {
            Ok(()) => {}
            Err(error) if is_of_objects(&error) && !objects.is_empty() => {
                self.commit(&session, &Part { objects: &[], ..whole }).await?;
                let mut rest = vec![&objects[..]];
                while let Some(objects) = rest.pop() {
                    match (self.commit(&session, &part(objects)).await, objects) {
                        (Ok(()), _) => {}
                        (Err(error), [object]) if is_of_objects(&error) => {
                            refusals.push(Refusal::new(&object.key, reason(&error)));
                        }
                        (Err(error), _) if is_of_objects(&error) => {
                            let (front, back) = objects.split_at(objects.len() / 2);
                            rest.extend([back, front]);
                        }
                        (Err(error), _) => return Err(error),
                    }
                }
            }
            Err(error) => return Err(error),
        }
        *place = Some(session);
        match own {
            Some(own) => own.follow(&batch.changes(&refusals)).await,
            None => batch.mark(known, &mut refusals).await?,
        }
        Ok(refusals)
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }
}

/// What puts a batch into the table. The types are those of the columns from within the bodies, whose paths are its
/// parameters.
fn merge(table: &TableName, body: BodyType, columns: &[(&Ident, String)]) -> String {
    let mut fields: Vec<(String, String)> = ["key", "etag"].map(|name| (name.to_owned(), name.to_owned())).into();
    fields.extend((body != BodyType::None).then(|| ("body".to_owned(), "body".to_owned())));
    for (place, (name, data_type)) in (1..).zip(columns) {
        let found = format!("pg_catalog.jsonb_path_query_first(body, ${place}::text::pg_catalog.jsonpath)");
        let value = match data_type.as_str() {
            "jsonb" => format!("nullif({found}, 'null')"),
            "json" => format!("nullif({found}, 'null')::text::json"),
            // Without what limits the type: an explicit cast would cut what is too long for it.
            data_type => format!("({found} #>> '{{}}')::{data_type}"),
        };
        fields.push((name.to_string(), value));
    }
    let list = |part: fn(&(String, String)) -> &str| fields.iter().map(part).collect::<Vec<_>>().join(", ");
    let set: Vec<_> = fields[1..].iter().map(|(name, _)| format!("{name} = excluded.{name}")).collect();
    // In the order of keys, so that two of these do not wait for each other's rows.
    format!(
        "INSERT INTO {table} ({}) SELECT {} FROM pg_temp.bulk_synced ORDER BY key COLLATE \"C\"
         ON CONFLICT (key) DO UPDATE SET {}",
        list(|(name, _)| name),
        list(|(_, value)| value),
        set.join(", ")
    )
}

/// Whether objects are to blame, so that others can be stored.
fn is_of_objects(error: &Error) -> bool {
    match error {
        Error::Unfit { .. } => true,
        Error::Sink { source: Some(source), .. } => source.downcast_ref::<Cause>().is_some_and(Cause::is_of_rows),
        _ => false,
    }
}

/// What the server says, in a word.
fn reason(error: &Error) -> String {
    match error {
        Error::Sink { source: Some(source), .. } => source.to_string(),
        Error::Unfit { what, .. } => format!("it cannot be marked known: {what}"),
        other => other.to_string(),
    }
}

#[cold]
fn failed(sink: &str, what: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Sink { sink: sink.to_owned(), what: what.to_owned(), source: Some(source.into()) }
}

/// A value of COPY's binary format.
fn field(rows: &mut BytesMut, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    // The budget, which counts in KiB by 32 bits, is larger; the server takes no message of this size, and says so.
    rows.extend_from_slice(&i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes());
    parts.iter().for_each(|part| rows.extend_from_slice(part));
}
