use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::SinkExt;
use tokio::sync::mpsc;

use crate::column::{Mapping, Target};
use crate::error::Cause;
use crate::ledger::{self, FileIdentity, Load};
use crate::{
    Certainty, CopyText, Dialect, Error, Event, Header, Observer, Position, RecordError, RecordOptions, Records,
    Session, TableName, Verdict, detect,
};

/// Decoded bytes that the dialect is told from.
const SAMPLE: u64 = 1 << 20;
/// Encoded bytes in one message to the server.
const BUFFER: usize = 256 << 10;
/// Buffers between the thread that encodes and the connection.
const QUEUE: usize = 8;

/// How [`load`] works.
#[derive(Clone)]
#[non_exhaustive]
pub struct LoadOptions {
    /// Read the file as this dialect. One that the file contradicts is refused. Default: told from the file.
    pub dialect: Option<Dialect>,
    /// The dialect to take where the file's beginning allows several.
    pub hint: Option<Dialect>,
    /// Values for columns that the file lacks, as they would stand in the file.
    pub fill: BTreeMap<String, String>,
    /// Decoded bytes of a chunk, which is what a kill can cost. A load goes on with the size it began with only if it is
    /// not changed in between. Default 16 MiB.
    pub chunk_size: u64,
    /// Whether rows may be added to a table that has some already, whoever put them there. Default: refused.
    pub append: bool,
    /// Who is told of what happens. Default nobody.
    pub observer: Arc<dyn Observer>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            dialect: None,
            hint: None,
            fill: BTreeMap::new(),
            chunk_size: 16 << 20,
            append: false,
            observer: Arc::new(()),
        }
    }
}

/// What [`load`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loaded {
    /// Records of the file, all of which are in the table.
    pub records: u64,
    /// Records that this call sent: fewer than `records` after an interruption, 0 if the file had been loaded.
    pub sent: u64,
    /// Decoded bytes of the records that this call sent.
    pub bytes: u64,
    /// By which dialect the file was read; `None` if it was not read.
    pub verdict: Option<Verdict>,
    /// Differences between header and table, one sentence each.
    pub drift: Vec<String>,
}

/// Records of `file` that are in `table` already, if all of them are. Nothing is read or locked, so a caller can ask
/// before it fetches the file.
///
/// # Errors
///
/// [`Error::NoTable`], [`Error::Occupied`] if the table holds another file's rows and `options.append` is off, and
/// [`Error::Database`]. The ledger must be [prepared](crate::prepare_ledger).
pub async fn find_loaded(
    session: &Session,
    table: &TableName,
    file: &FileIdentity,
    options: &LoadOptions,
) -> Result<Option<u64>, Error> {
    let target = Target::find(session, table).await?;
    Ok(find(session, table, &target, file, options).await?.and_then(|load| load.finished))
}

async fn find(
    session: &Session,
    table: &TableName,
    target: &Target,
    file: &FileIdentity,
    options: &LoadOptions,
) -> Result<Option<Load>, Error> {
    let occupied = |what: String| Error::Occupied { table: table.clone(), what };
    let mut loads = ledger::loads(session, table, target.oid).await?;
    let is_empty = session
        .client()
        .query_opt(&format!("SELECT 1 FROM {table} LIMIT 1"), &[])
        .await
        .map_err(Error::database(format!("look into {table:#}")))?
        .is_none();
    let has_rows = |load: &Load| load.finished.unwrap_or(0) > 0 || load.committed.is_some();
    if is_empty && loads.iter().any(has_rows) {
        // Somebody emptied the table; its marks speak of rows that are gone.
        ledger::forget(session, table).await?;
        loads.clear();
    }
    if let Some(load) = loads.iter().find(|load| load.file.key == file.key) {
        if load.file == *file {
            return Ok(Some(load.clone()));
        }
        return Err(occupied(format!(
            "holds {} of another version of {} (ETag {}, {} bytes; now {}, {} bytes); load it anew with --restart",
            if load.finished.is_some() { "all" } else { "a part" },
            file.key,
            load.file.etag.as_deref().unwrap_or("none"),
            load.file.size,
            file.etag.as_deref().unwrap_or("none"),
            file.size,
        )));
    }
    if options.append {
        return Ok(None);
    }
    if let Some(load) = loads.first() {
        return Err(occupied(format!("holds the rows of {}; load it anew with --restart", load.file.key)));
    }
    if !is_empty {
        return Err(occupied("has rows that this program did not load; load it anew with --restart".to_owned()));
    }
    Ok(None)
}

/// Loads a CSV file into a table, exactly once.
///
/// `input` gives the file's decoded bytes; it is read in a thread of its own. Records are re-encoded for COPY and sent in
/// chunks; the rows of a chunk and its mark in `bulk.chunk` are committed together. Chunk borders depend on the bytes
/// alone, so after any interruption the same call skips what is committed and goes on behind it. A file that had been
/// loaded is not read at all.
///
/// Columns are matched by the header's names. The ledger must be [prepared](crate::prepare_ledger). One session loads one
/// file at a time; the table is locked against other loaders for as long as the session lives.
///
/// Dropping the future rolls back the chunk under way; the thread ends at its next buffer.
///
/// # Errors
///
/// See [`Error`]. Chunks that were committed before the error stay and are skipped by the next call.
pub async fn load(
    session: &mut Session,
    table: &TableName,
    file: &FileIdentity,
    input: impl FnOnce() -> io::Result<Box<dyn Read + Send>> + Send + 'static,
    options: &LoadOptions,
) -> Result<Loaded, Error> {
    let target = Target::find(session, table).await?;
    ledger::lock(session, table, target.oid).await?;
    let load = match find(session, table, &target, file, options).await? {
        Some(Load { finished: Some(records), .. }) => {
            return Ok(Loaded { records, sent: 0, bytes: 0, verdict: None, drift: Vec::new() });
        }
        Some(load) => load,
        None => ledger::begin(session, table, target.oid, file).await?,
    };
    let (sender, mut receiver) = mpsc::channel(QUEUE);
    let worker = Worker {
        file: file.key.clone(),
        table: table.clone(),
        target,
        committed: load.committed,
        known_dialect: load.dialect,
        options: options.clone(),
        sender,
    };
    let thread = std::thread::Builder::new().name("bulk-encode".to_owned()).spawn(move || worker.run(input));
    let lost = || Error::Interrupted { file: file.key.clone() };
    let thread = thread.map_err(|source| Error::Read { file: file.key.clone(), source })?;

    let opened = match receiver.recv().await {
        Some(Message::Opened(opened)) => *opened,
        Some(Message::Failed(error)) => return Err(*error),
        _ => return Err(lost()),
    };
    let resumed = load.committed.map_or(0, |(position, _)| position.record);
    let (verdict, mapping) = (opened.verdict, opened.mapping);
    let (verdict_ref, drift) = (&verdict, &mapping.drift[..]);
    options.observer.event(&Event::Opened { file: &file.key, table, verdict: verdict_ref, drift, resumed });
    if load.dialect.is_none() {
        ledger::set_dialect(session, &load, verdict.dialect).await?;
    }

    let mut done = load.committed.map_or(Position { offset: opened.header_end, record: 0, chunk: 0 }, |(at, _)| at);
    let first = done;
    while let Some(end) = copy_chunk(session, table, file, &load, &mapping.list, done, &mut receiver).await? {
        let (records, bytes) = (end.record - done.record, end.offset - done.offset);
        options.observer.event(&Event::Committed { file: &file.key, table, records, bytes });
        done = end;
    }
    thread.join().map_err(|_| lost())?;
    ledger::finish(session, &load, done.record).await?;
    options.observer.event(&Event::Loaded { file: &file.key, table, records: done.record });
    Ok(Loaded {
        records: done.record,
        sent: done.record - first.record,
        bytes: done.offset - first.offset,
        verdict: Some(verdict),
        drift: mapping.drift,
    })
}

/// Sends the next chunk and commits it with its mark. `None` at the end of the file.
async fn copy_chunk(
    session: &mut Session,
    table: &TableName,
    file: &FileIdentity,
    load: &Load,
    columns: &str,
    start: Position,
    receiver: &mut mpsc::Receiver<Message>,
) -> Result<Option<Position>, Error> {
    let lost = || Error::Interrupted { file: file.key.clone() };
    let mut buffer = match receiver.recv().await {
        Some(Message::Rows(buffer)) => buffer,
        Some(Message::End) => return Ok(None),
        Some(Message::Failed(error)) => return Err(*error),
        _ => return Err(lost()),
    };
    let action = || format!("load a chunk of {}", file.key);
    let transaction = session.client_mut().transaction().await.map_err(Error::database(action()))?;
    let refused = |error: tokio_postgres::Error| refusal(file, table, start, error);
    let statement = format!("COPY {table} ({columns}) FROM STDIN");
    let mut sink = pin!(transaction.copy_in::<_, Bytes>(&statement).await.map_err(refused)?);
    let (end, guarded) = loop {
        if !buffer.is_empty() {
            sink.as_mut().send(buffer).await.map_err(refused)?;
        }
        match receiver.recv().await {
            Some(Message::Rows(next)) => buffer = next,
            Some(Message::ChunkEnd { end, guarded }) => break (end, guarded),
            Some(Message::Failed(error)) => return Err(*error),
            _ => return Err(lost()),
        }
    };
    let taken = sink.finish().await.map_err(refused)?;
    let sent = end.record - start.record;
    if taken != sent {
        return Err(Error::RowCount { file: file.key.clone(), table: table.clone(), sent, taken });
    }
    transaction
        .execute(
            "INSERT INTO bulk.chunk (load_id, chunk, first_record, records, first_byte, bytes, guarded)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            &[
                &load.id,
                &(start.chunk as i64),
                &(start.record as i64),
                &(sent as i64),
                &(start.offset as i64),
                &((end.offset - start.offset) as i64),
                &guarded,
            ],
        )
        .await
        .map_err(Error::database(action()))?;
    transaction.commit().await.map_err(Error::database(action()))?;
    Ok(Some(Position { chunk: start.chunk + 1, ..end }))
}

/// The server names a line of the chunk as `COPY table, line 7, column x: "…"` in the context of its error.
fn refusal(file: &FileIdentity, table: &TableName, start: Position, error: tokio_postgres::Error) -> Error {
    let context = error.as_db_error().and_then(|error| error.where_()).unwrap_or_default();
    let place = context.lines().find_map(|line| line.strip_prefix("COPY ")?.split_once(", line "));
    let rest = place.map_or("", |(_, rest)| rest);
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let line = rest[..digits].parse::<u64>().ok().filter(|line| *line > 0);
    let column = rest[digits..].strip_prefix(", column ").and_then(|rest| rest.split(':').next()).map(str::to_owned);
    let (file, table) = (file.key.clone(), table.clone());
    match line {
        Some(line) => {
            let record = start.record + line;
            Error::Copy { file, table, first: record, last: record, column, source: Cause(error) }
        }
        None => Error::Database { action: format!("load {file} into {table:#}"), source: Cause(error) },
    }
}

enum Message {
    Opened(Box<Opened>),
    Rows(Bytes),
    ChunkEnd { end: Position, guarded: bool },
    End,
    Failed(Box<Error>),
}

struct Opened {
    verdict: Verdict,
    mapping: Mapping,
    header_end: u64,
}

/// The thread that reads, splits and encodes.
struct Worker {
    file: String,
    table: TableName,
    target: Target,
    committed: Option<(Position, bool)>,
    known_dialect: Option<Dialect>,
    options: LoadOptions,
    sender: mpsc::Sender<Message>,
}

impl Worker {
    fn run(self, input: impl FnOnce() -> io::Result<Box<dyn Read + Send>>) {
        if let Err(error) = self.encode(input) {
            // The receiver is gone if the load was dropped.
            let _ = self.sender.blocking_send(Message::Failed(Box::new(error)));
        }
    }

    fn encode(&self, input: impl FnOnce() -> io::Result<Box<dyn Read + Send>>) -> Result<(), Error> {
        let mut input = input().map_err(|error| self.unreadable(error))?;
        let mut sample = Vec::new();
        (&mut input).take(SAMPLE).read_to_end(&mut sample).map_err(|error| self.unreadable(error))?;
        let complete = (sample.len() as u64) < SAMPLE;
        let verdict = self.verdict(&sample, complete)?;

        let mut options = RecordOptions::default();
        options.chunk_size = self.options.chunk_size;
        options.guard = verdict.certainty == Certainty::Ambiguous && self.committed.is_none_or(|(_, guarded)| guarded);
        let header = self.header(&sample, verdict.dialect)?;
        let header_end = header.end();
        let mapping = Mapping::new(&self.file, &self.table, header.names(), &self.target, &self.options.fill)?;
        let misfit = |what: String| Error::Columns { file: self.file.clone(), what };
        let encoder =
            CopyText::new(&mapping.sources, header.names().len()).map_err(|error| misfit(error.to_string()))?;
        let start = self.committed.map_or(Position { offset: header_end, record: 0, chunk: 0 }, |(at, _)| at);
        let mut stream = Cursor::new(sample).chain(input);
        let skipped =
            io::copy(&mut (&mut stream).take(start.offset), &mut io::sink()).map_err(|error| self.unreadable(error))?;
        if skipped < start.offset {
            return Err(misfit(format!("{} bytes of it are loaded, and it now has only {skipped}", start.offset)));
        }
        let records = Records::resume(stream, verdict.dialect, header, start, options);
        if !self.send(Message::Opened(Box::new(Opened { verdict, mapping, header_end }))) {
            return Ok(());
        }
        self.encode_records(records, &encoder)
    }

    fn encode_records(&self, mut records: Records<impl Read>, encoder: &CopyText) -> Result<(), Error> {
        let mut buffer = Vec::with_capacity(BUFFER + BUFFER / 4);
        let mut open = false;
        loop {
            let ends_chunk = match records.next_record() {
                Ok(Some(record)) => {
                    encoder.append(&record, &mut buffer);
                    record.ends_chunk()
                }
                Ok(None) => break,
                Err(error) => return Err(self.bad_record(error)),
            };
            open = true;
            if buffer.len() >= BUFFER || ends_chunk {
                let full = std::mem::replace(&mut buffer, Vec::with_capacity(BUFFER + BUFFER / 4));
                if !self.send(Message::Rows(full.into())) {
                    return Ok(());
                }
            }
            if ends_chunk {
                open = false;
                if !self.send(Message::ChunkEnd { end: records.position(), guarded: records.is_guarded() }) {
                    return Ok(());
                }
            }
        }
        if open {
            let end = Message::ChunkEnd { end: records.position(), guarded: records.is_guarded() };
            if !self.send(Message::Rows(buffer.into())) || !self.send(end) {
                return Ok(());
            }
        }
        self.send(Message::End);
        Ok(())
    }

    /// Whether anybody still listens.
    fn send(&self, message: Message) -> bool {
        self.sender.blocking_send(message).is_ok()
    }

    fn verdict(&self, sample: &[u8], complete: bool) -> Result<Verdict, Error> {
        let undetected = |source| Error::Undetected { file: self.file.clone(), source };
        let asked = self.options.dialect.or(self.known_dialect);
        let verdict = detect(sample, complete, asked.or(self.options.hint)).map_err(undetected)?;
        match asked {
            // A and B are read alike; which of the two it is matters to nobody.
            Some(asked) if !reads_alike(asked, verdict.dialect) => Err(Error::Dialect {
                file: self.file.clone(),
                asked,
                found: verdict.dialect,
                evidence: verdict.evidence,
            }),
            _ => Ok(verdict),
        }
    }

    fn header(&self, sample: &[u8], dialect: Dialect) -> Result<Header, Error> {
        let records =
            Records::new(sample, dialect, RecordOptions::default()).map_err(|error| self.bad_record(error))?;
        Ok(records.header().clone())
    }

    fn unreadable(&self, source: io::Error) -> Error {
        Error::Read { file: self.file.clone(), source }
    }

    fn bad_record(&self, source: RecordError) -> Error {
        match source {
            RecordError { kind: crate::RecordErrorKind::Io(source), .. } => self.unreadable(source),
            source => Error::Record { file: self.file.clone(), source },
        }
    }
}

fn reads_alike(a: Dialect, b: Dialect) -> bool {
    (a.delimiter(), a.quote(), a.escape()) == (b.delimiter(), b.quote(), b.escape())
}
