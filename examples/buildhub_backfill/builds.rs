//! The table of builds, and the sink that fills it.

use std::io;
use std::slice;
use std::sync::Arc;

use async_trait::async_trait;
use bulk_core::{Algorithm, Digest};
use bulk_pg::{Cause, Session};
use bulk_s3::{Error, KnownChange, KnownObjects, KnownTable, PostgresKnown, Refusal, Sink, SinkBatch, SyncedObject};
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};
use tokio::sync::Mutex;

/// As Buildhub has it, but that a key stands in one row: a build that changes keeps its row. Keys in the order of their bytes
/// (`COLLATE "C"`) are what a comparison reads; Buildhub's own table would need that index.
const TABLE: &str = r#"
    CREATE TABLE IF NOT EXISTS builds (
        id bigserial PRIMARY KEY,
        build_hash text NOT NULL,
        build jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        s3_object_key text COLLATE "C" UNIQUE,
        s3_object_etag text
    );
    CREATE INDEX IF NOT EXISTS builds_build_hash ON builds (build_hash)"#;

/// In the order of keys, so that two programs that do the same do not wait for each other's rows. A row is left alone if only
/// the spelling of its JSON has changed.
const STORE: &str = r#"
    INSERT INTO builds (s3_object_key, build_hash, build)
    SELECT key, hash, build::jsonb FROM unnest($1::text[], $2::text[], $3::text[]) AS new (key, hash, build)
    ORDER BY key COLLATE "C"
    ON CONFLICT (s3_object_key) DO UPDATE SET build_hash = excluded.build_hash, build = excluded.build
    WHERE builds.build_hash <> excluded.build_hash"#;

pub(crate) async fn create_table(database: &str) -> Result<(), Box<dyn std::error::Error>> {
    Session::connect(database).await?.client().batch_execute(TABLE).await?;
    Ok(())
}

/// The columns that say what is known.
pub(crate) fn known_table() -> KnownTable {
    let name = |text: &str| text.parse().unwrap_or_else(|_| unreachable!("{text} is a name"));
    let table = "builds".parse().unwrap_or_else(|_| unreachable!("it is a name"));
    KnownTable::new(table, name("s3_object_key"), name("s3_object_etag"))
}

/// Writes builds, and in the same transaction the ETags by which they are known.
pub(crate) struct Builds {
    session: Mutex<Session>,
    known: Arc<PostgresKnown>,
}

impl Builds {
    pub(crate) async fn connect(database: &str, known: Arc<PostgresKnown>) -> Result<Self, bulk_pg::Error> {
        Ok(Self { session: Mutex::new(Session::connect(database).await?), known })
    }

    /// All of it or nothing: a transaction that is dropped is rolled back.
    async fn commit(&self, builds: &[Build<'_>], changes: &[KnownChange<'_>]) -> Result<(), Error> {
        let keys: Vec<&str> = builds.iter().map(|build| build.object.key.as_str()).collect();
        let hashes: Vec<&str> = builds.iter().map(|build| build.hash.as_str()).collect();
        let texts: Vec<&str> = builds.iter().map(|build| build.text).collect();
        let mut session = self.session.lock().await;
        let transaction = session.client_mut().transaction().await.map_err(failed)?;
        // The checkpoint will say that this is done, so it has to be on the server's disk. A session does not wait for that.
        transaction.batch_execute("SET LOCAL synchronous_commit = on").await.map_err(failed)?;
        transaction.execute(STORE, &[&keys, &hashes, &texts]).await.map_err(failed)?;
        self.known.apply_in(&transaction, changes).await?;
        transaction.commit().await.map_err(failed)
    }
}

#[async_trait]
impl Sink for Builds {
    async fn store(&self, batch: &SinkBatch, _known: &dyn KnownObjects) -> Result<Vec<Refusal>, Error> {
        let (mut builds, mut refusals) = (Vec::new(), Vec::new());
        for object in &batch.objects {
            match Build::read(object) {
                Ok(build) => builds.push(build),
                Err(reason) => refusals.push(Refusal::new(&object.key, reason)),
            }
        }
        match self.commit(&builds, &batch.changes(&refusals)).await {
            Err(error) if refused(&error).is_some() => {}
            done => return done.map(|()| refusals),
        }
        // The server does not take one of them: which one, it shows by taking the others.
        for build in &builds {
            let marked = KnownChange::Set(build.object.describe());
            if let Err(error) = self.commit(slice::from_ref(build), &[marked]).await {
                let reason = refused(&error).ok_or(error)?;
                refusals.push(Refusal::new(&build.object.key, reason));
            }
        }
        // The rest of the batch; what is marked already stays so.
        self.commit(&[], &batch.changes(&refusals)).await?;
        Ok(refusals)
    }

    fn identity(&self) -> String {
        format!("builds in {}", self.known.identity())
    }
}

/// What the server says, if rows are to blame.
fn refused(error: &Error) -> Option<String> {
    let (Error::Sink { source, .. } | Error::Known { source, .. }) = error else { return None };
    let cause = source.as_ref()?.downcast_ref::<Cause>()?;
    cause.is_of_rows().then(|| cause.to_string())
}

fn failed(error: impl Into<Cause>) -> Error {
    let source: Cause = error.into();
    Error::Sink { sink: "builds".to_owned(), what: "cannot be written to".to_owned(), source: Some(source.into()) }
}

/// An object that is a build.
struct Build<'a> {
    object: &'a SyncedObject,
    text: &'a str,
    hash: String,
}

impl<'a> Build<'a> {
    fn read(object: &'a SyncedObject) -> Result<Self, String> {
        let text = std::str::from_utf8(object.bytes()).map_err(|error| format!("it is not UTF-8: {error}"))?;
        let build: Value = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
        if !build.is_object() {
            return Err("it is JSON, but no object".to_owned());
        }
        Ok(Self { object, text, hash: hash(&build).map_err(|error| format!("it has no hash: {error}"))? })
    }
}

/// That of Buildhub: of the text that Python's `json.dumps(build, sort_keys=True)` makes. A [`Value`] has its keys sorted.
/// Python writes very large and very small floats in another way than Rust; a build has none.
fn hash(build: &Value) -> serde_json::Result<String> {
    let mut text = Vec::new();
    build.serialize(&mut Serializer::with_formatter(&mut text, Python))?;
    Ok(format!("v1:{}", Digest::of(Algorithm::Md5, &text).to_hex()))
}

struct Python;

impl Formatter for Python {
    fn begin_array_value<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.begin_array_value(writer, first)
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        for char in fragment.chars() {
            match char {
                ' '..='~' => write!(writer, "{char}")?,
                _ => char.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(writer, "\\u{unit:04x}"))?,
            }
        }
        Ok(())
    }
}
