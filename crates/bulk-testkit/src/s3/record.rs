//! What was asked of a server, and what it sent.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::Instant,
};

use http::Method;

/// One request that reached the server, and what has been done about it so far.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestRecord {
    /// Counts the connections of the server; requests over one connection have the same number.
    pub connection: u64,
    /// When the head of the request had arrived.
    pub arrived: Instant,
    /// When the last byte of the answer was handed to the connection, or the answer given up. `None` until then.
    pub finished: Option<Instant>,
    /// The method.
    pub method: Method,
    /// The bucket, decoded; empty if the path names none.
    pub bucket: String,
    /// The key, decoded; `None` for a request to the bucket, such as a listing.
    pub key: Option<String>,
    /// The query as decoded pairs, in the order sent.
    pub query: Vec<(String, String)>,
    /// The `Range` header as sent.
    pub range: Option<String>,
    /// The `If-Match` header as sent.
    pub if_match: Option<String>,
    /// The status answered, `None` until then.
    pub status: Option<u16>,
    /// How many bytes of the body have been handed to the connection: at least as many as the client has received.
    pub bytes_sent: u64,
}

impl RequestRecord {
    /// The first value of this parameter of the query.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    asked: RequestRecord,
    status: AtomicU16,
    bytes_sent: AtomicU64,
    finished: OnceLock<Instant>,
}

impl Entry {
    pub(super) fn answered(&self, status: u16) {
        self.status.store(status, Ordering::Release);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Release);
    }

    pub(super) fn finish(&self) {
        self.finished.get_or_init(Instant::now);
    }

    fn snapshot(&self) -> RequestRecord {
        RequestRecord {
            status: Some(self.status.load(Ordering::Acquire)).filter(|status| *status != 0),
            bytes_sent: self.bytes_sent.load(Ordering::Acquire),
            finished: self.finished.get().copied(),
            ..self.asked.clone()
        }
    }
}

/// The requests of a server, in the order in which they arrived.
#[derive(Debug, Default)]
pub(super) struct Log(Mutex<Vec<Arc<Entry>>>);

impl Log {
    pub(super) fn add(&self, asked: RequestRecord) -> Arc<Entry> {
        let entry = Arc::new(Entry {
            asked,
            status: AtomicU16::new(0),
            bytes_sent: AtomicU64::new(0),
            finished: OnceLock::new(),
        });
        self.lock().push(Arc::clone(&entry));
        entry
    }

    pub(super) fn snapshot(&self) -> Vec<RequestRecord> {
        self.lock().iter().map(|entry| entry.snapshot()).collect()
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
