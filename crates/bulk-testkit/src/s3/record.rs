//! What was asked of a server, and what it sent.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::Instant,
};

use http::Method;

use super::listing::Kind;

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
    /// The `x-amz-copy-source-range` header as sent.
    pub copy_range: Option<String>,
    /// How many bytes its body has, if its `Content-Length` tells.
    pub body_len: Option<u64>,
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

/// How much was asked of a server: exact, whatever the number of requests, and of a fixed size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Listings by ListObjects, the first version.
    pub list_v1: u64,
    /// Listings by ListObjectsV2.
    pub list_v2: u64,
    /// Listings by ListObjectVersions.
    pub list_versions: u64,
    /// GETs of objects.
    pub get: u64,
    /// HEADs of objects.
    pub head: u64,
    /// PUTs of objects, and of parts of them.
    pub put: u64,
    /// DELETEs of objects, and of uploads under way.
    pub delete: u64,
    /// All other requests.
    pub other: u64,
    /// Of all these, those answered with a status of 400 or above.
    pub refused: u64,
    /// Keys, versions and delete markers on the pages of listings; no common prefixes.
    pub keys_listed: u64,
    /// Bytes of bodies handed to the connections.
    pub bytes_sent: u64,
    /// Connections over which requests came.
    pub connections: u64,
}

impl Counts {
    /// Listings of all kinds.
    pub fn lists(&self) -> u64 {
        self.list_v1 + self.list_v2 + self.list_versions
    }

    /// Requests of all kinds.
    pub fn requests(&self) -> u64 {
        self.lists() + self.get + self.head + self.put + self.delete + self.other
    }

    fn of(&mut self, kind: RequestKind) -> &mut u64 {
        match kind {
            RequestKind::List(Kind::V1) => &mut self.list_v1,
            RequestKind::List(Kind::V2) => &mut self.list_v2,
            RequestKind::List(Kind::Versions) => &mut self.list_versions,
            RequestKind::Get => &mut self.get,
            RequestKind::Head => &mut self.head,
            RequestKind::Put => &mut self.put,
            RequestKind::Delete => &mut self.delete,
            RequestKind::Other => &mut self.other,
        }
    }
}

/// What a request is counted as.
#[derive(Clone, Copy, Debug)]
pub(super) enum RequestKind {
    List(Kind),
    Get,
    Head,
    Put,
    Delete,
    Other,
}

#[derive(Debug)]
pub(super) struct Entry {
    asked: RequestRecord,
    status: AtomicU16,
    bytes_sent: AtomicU64,
    finished: OnceLock<Instant>,
    counted: Arc<Mutex<Counted>>,
}

impl Entry {
    pub(super) fn answered(&self, status: u16) {
        self.status.store(status, Ordering::Release);
        if status >= 400 {
            lock(&self.counted).counts.refused += 1;
        }
    }

    pub(super) fn listed(&self, keys: usize) {
        lock(&self.counted).counts.keys_listed += keys as u64;
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Release);
        lock(&self.counted).counts.bytes_sent += bytes as u64;
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

#[derive(Debug, Default)]
struct Counted {
    counts: Counts,
    /// How often the counts have been set to zero.
    era: u64,
}

/// The newest requests of a server, in the order in which they arrived, and how many there were in all.
#[derive(Debug)]
pub(super) struct Log {
    kept: usize,
    entries: Mutex<VecDeque<Arc<Entry>>>,
    counted: Arc<Mutex<Counted>>,
}

/// The era in which a connection was counted last.
#[derive(Debug)]
pub(super) struct CountedIn(AtomicU64);

impl Default for CountedIn {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Log {
    pub(super) fn new(kept: usize) -> Self {
        Self { kept, entries: Mutex::default(), counted: Arc::default() }
    }

    pub(super) fn add(&self, asked: RequestRecord, kind: RequestKind, connection: &CountedIn) -> Arc<Entry> {
        let entry = Arc::new(Entry {
            asked,
            status: AtomicU16::new(0),
            bytes_sent: AtomicU64::new(0),
            finished: OnceLock::new(),
            counted: Arc::clone(&self.counted),
        });
        let mut counted = lock(&self.counted);
        let Counted { counts, era } = &mut *counted;
        *counts.of(kind) += 1;
        if connection.0.swap(*era, Ordering::Relaxed) != *era {
            counts.connections += 1;
        }
        drop(counted);
        if self.kept > 0 {
            let mut entries = lock(&self.entries);
            if entries.len() == self.kept {
                entries.pop_front();
            }
            entries.push_back(Arc::clone(&entry));
        }
        entry
    }

    pub(super) fn snapshot(&self) -> Vec<RequestRecord> {
        lock(&self.entries).iter().map(|entry| entry.snapshot()).collect()
    }

    pub(super) fn counts(&self) -> Counts {
        lock(&self.counted).counts
    }

    pub(super) fn clear(&self) {
        lock(&self.entries).clear();
        let mut counted = lock(&self.counted);
        *counted = Counted { counts: Counts::default(), era: counted.era + 1 };
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
