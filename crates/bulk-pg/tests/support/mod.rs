//! A database for each test, and files in memory that break where a test wants them to.

#![allow(dead_code, unreachable_pub, reason = "each test program takes what it needs")]

use std::io::{self, Read};
use std::slice::from_mut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use bulk_pg::{Event, FileIdentity, LoadOptions, Loaded, Plain, Session, TableName, load, prepare_ledger};
use bulk_testkit::postgres::{self, Database, Server};

pub struct Bench {
    pub database: Database,
    pub server: &'static Server,
}

impl Bench {
    /// A fresh database in which `ddl` has been run.
    pub fn new(name: &str, ddl: &str) -> Self {
        let server = postgres::shared().unwrap();
        let bench = Self { database: server.create_database(name).unwrap(), server };
        if !ddl.is_empty() {
            bench.psql(ddl);
        }
        bench
    }

    /// A session with the ledger prepared.
    pub async fn session(&self) -> Session {
        let session = Session::connect(self.database.url()).await.unwrap();
        prepare_ledger(&session).await.unwrap();
        session
    }

    /// So many of them.
    pub async fn sessions(&self, count: usize) -> Vec<Session> {
        let mut sessions = Vec::new();
        for _ in 0..count {
            sessions.push(self.session().await);
        }
        sessions
    }

    /// What psql prints, which shares no code with the loader.
    pub fn psql(&self, sql: &str) -> String {
        self.server.psql(self.database.url(), sql).unwrap().trim_end().to_owned()
    }

    /// Ends when a session waits for a lock as this condition over `pg_stat_activity` says.
    pub async fn waits(&self, how: &str) {
        let waiting = format!(
            "SELECT count(*) > 0 FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock' AND {how}"
        );
        while self.psql(&waiting) != "t" {
            tokio::task::yield_now().await;
        }
    }
}

pub fn table(name: &str) -> TableName {
    name.parse().unwrap()
}

/// The identity of a file with this content.
pub fn file(key: &str, content: &[u8]) -> FileIdentity {
    FileIdentity::new(key, Some("v1".to_owned()), content.len() as u64)
}

/// Loads `content` as the file `t.csv` into the table `t`.
pub async fn load_t(session: &mut Session, content: &[u8], options: &LoadOptions) -> Result<Loaded, bulk_pg::Error> {
    load(from_mut(session), &table("t"), &file("t.csv", content), whole(content), options).await
}

pub type Input = Box<dyn bulk_pg::Input>;

/// An input that gives all of `content`.
pub fn whole(content: &[u8]) -> impl FnOnce() -> io::Result<Input> + Send + 'static {
    let content = content.to_vec();
    move || Ok(Box::new(Plain(io::Cursor::new(content))) as Input)
}

/// An input that fails behind its first `len` bytes.
pub fn broken_after(content: &[u8], len: usize) -> impl FnOnce() -> io::Result<Input> + Send + 'static {
    let content = content[..len].to_vec();
    move || Ok(Box::new(Plain(io::Cursor::new(content).chain(Broken))) as Input)
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("the disk is gone"))
    }
}

/// An input that waits behind its first `len` bytes until the sender is dropped, and then gives the rest.
pub fn gated(content: &[u8], len: usize) -> (impl FnOnce() -> io::Result<Input> + Send + 'static, mpsc::Sender<()>) {
    let (first, rest) = (content[..len].to_vec(), content[len..].to_vec());
    let (sender, receiver) = mpsc::channel();
    let open = move || {
        let gate = Gate { receiver };
        Ok(Box::new(Plain(io::Cursor::new(first).chain(gate).chain(io::Cursor::new(rest)))) as Input)
    };
    (open, sender)
}

struct Gate {
    receiver: mpsc::Receiver<()>,
}

impl Read for Gate {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        let _ = self.receiver.recv();
        Ok(0)
    }
}

/// A reader that counts what it gives.
pub struct Counted<R> {
    pub count: Arc<AtomicU64>,
    pub inner: R,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::SeqCst);
        Ok(read)
    }
}

/// The error with its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// What was observed, in words.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub fn observe(&self, options: &mut LoadOptions) {
        let log = self.clone();
        options.observer = Arc::new(move |event: &Event<'_>| {
            // When a worker waits is up to the scheduler.
            if !matches!(event, Event::Worker { .. } | Event::Gave { .. }) {
                log.0.lock().unwrap().push(say(event));
            }
        });
    }
}

fn say(event: &Event<'_>) -> String {
    match event {
        Event::Opened { file, table, verdict, drift, resumed } => format!(
            "{file} into {table:#}: {}; {}; behind {resumed}",
            verdict.map_or_else(String::new, |verdict| {
                format!("{} {:?} ({})", verdict.dialect.name(), verdict.certainty, verdict.evidence)
            }),
            drift.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        ),
        Event::Committed { file, table, records, bytes, .. } => {
            format!("{file} into {table:#}: {records} in {bytes}")
        }
        Event::Loaded { file, table, records, .. } => format!("{file} into {table:#}: all {records}"),
        other => format!("{other:?}"),
    }
}

/// A CSV file of `records` lines of the same length, `id,text`, over two megabytes for 20,000: more than the sample from
/// which the dialect is told.
pub fn numbered(records: usize) -> Vec<u8> {
    let mut csv = b"id,text\n".to_vec();
    for id in 1..=records {
        csv.extend_from_slice(
            format!("{id:08},{:x<110}\n", format!("text {id}, not quoted").replace(',', ";")).as_bytes(),
        );
    }
    csv
}

/// Bytes of a line of [`numbered`], and of its header.
pub const LINE: usize = 120;
pub const HEADER: usize = 8;
