//! The server: its start, its thread, its end.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
};

use bytes::Bytes;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::loopback::Loopback;
use crate::wire::{CutSwitch, Wire};

use super::{
    Counts, Error, FaultHandle, Object, Quirk, RequestRecord, Rule, Store,
    handler::{Bucket, Connection, Site, handle},
    multipart::Uploads,
    quirk::Quirks,
    record::{CountedIn, Log},
    sigv4::Credentials,
    xml::{uri_encode, uri_encode_path},
};

/// S3 lists no more keys than this in a page.
const MAX_KEYS: usize = 1000;

/// An S3 server on a loopback port of its own, with threads and a runtime of its own, so that synchronous and
/// asynchronous tests can use it alike.
///
/// Dropping it closes all connections at once, in whatever state they are, and waits until the port is free.
#[derive(Debug)]
pub struct Server {
    site: Arc<Site>,
    loopback: Loopback,
}

/// What a [`Server`] is to serve, and to whom.
#[derive(Debug)]
#[must_use = "nothing is served before `start`"]
pub struct Builder {
    buckets: HashMap<String, Store>,
    credentials: Option<(String, String)>,
    session_token: Option<String>,
    require_credentials: bool,
    max_keys_cap: usize,
    writable: bool,
    quirks: Vec<Quirk>,
    kept_requests: usize,
}

impl Builder {
    /// Serves this store as a bucket. A second one of the same name takes the place of the first.
    pub fn bucket(mut self, name: &str, store: Store) -> Self {
        self.buckets.insert(name.to_owned(), store);
        self
    }

    /// Verifies the signature (SigV4, in the `Authorization` header) of requests that carry one. Without this, such
    /// headers are ignored and every request is taken for an anonymous one.
    pub fn credentials(mut self, access_key: &str, secret_key: &str) -> Self {
        self.credentials = Some((access_key.to_owned(), secret_key.to_owned()));
        self
    }

    /// The session token that belongs to the credentials; requests must carry it. By default they must carry none.
    pub fn session_token(mut self, token: &str) -> Self {
        self.session_token = Some(token.to_owned());
        self
    }

    /// Whether requests without a signature are denied. By default they are served.
    pub fn require_credentials(mut self, required: bool) -> Self {
        self.require_credentials = required;
        self
    }

    /// How many keys a page of a listing has at most: 1 to 1,000, by default 1,000.
    pub fn max_keys_cap(mut self, keys: usize) -> Self {
        self.max_keys_cap = keys.clamp(1, MAX_KEYS);
        self
    }

    /// Whether PUT, POST and DELETE are allowed. By default they are denied.
    pub fn writable(mut self, writable: bool) -> Self {
        self.writable = writable;
        self
    }

    /// Serves all buckets with this difference from S3, beside those of each [`Store`]. Several add up.
    pub fn quirk(mut self, quirk: Quirk) -> Self {
        self.quirks.push(quirk);
        self
    }

    /// How many of the newest requests [`Server::requests`] remembers. By default all of them, which takes some 500
    /// bytes for each; [`Server::counts`] is exact in any case.
    pub fn keep_requests(mut self, newest: usize) -> Self {
        self.kept_requests = newest;
        self
    }

    /// Starts the server. It answers when this returns.
    ///
    /// # Errors
    ///
    /// If a folder to be served cannot be read or given its first objects, or if the system has no port or thread for
    /// the server.
    pub fn start(self) -> Result<Server, Error> {
        let mut buckets = HashMap::new();
        for (name, mut store) in self.buckets {
            store.prepare()?;
            let mut quirks = Quirks::default();
            self.quirks.iter().chain(&store.quirks).for_each(|quirk| quirks.add(quirk.clone()));
            buckets.insert(name, Bucket { store, uploads: Uploads::default(), quirks });
        }
        let session_token = self.session_token;
        let site = Arc::new(Site {
            buckets,
            credentials: self.credentials.map(|(access_key, secret_key)| Credentials {
                access_key,
                secret_key,
                session_token,
            }),
            require_credentials: self.require_credentials,
            max_keys_cap: self.max_keys_cap,
            writable: self.writable,
            faults: Arc::default(),
            log: Log::new(self.kept_requests),
            request_ids: AtomicU64::new(0),
        });
        let served = Arc::clone(&site);
        let loopback = Loopback::start("s3-server", move |stream, number| serve(stream, number, Arc::clone(&served)));
        Ok(Server { site, loopback: loopback.map_err(Error::Start)? })
    }
}

impl Server {
    /// A server without buckets, open to everyone, read-only.
    pub fn builder() -> Builder {
        Builder {
            buckets: HashMap::new(),
            credentials: None,
            session_token: None,
            require_credentials: false,
            max_keys_cap: MAX_KEYS,
            writable: false,
            quirks: Vec::new(),
            kept_requests: usize::MAX,
        }
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.loopback.address())
    }

    /// The URL of an object, its key escaped. Beware of clients that resolve `.` and `..` segments.
    pub fn object_url(&self, bucket: &str, key: &str) -> String {
        format!("{}/{}/{}", self.url(), uri_encode(bucket.as_bytes()), uri_encode_path(key.as_bytes()))
    }

    /// Puts an object into a bucket, or another in its place. Answers under way still send the old one.
    ///
    /// # Errors
    ///
    /// If there is no such bucket, or if the bucket is a folder and the file cannot be written.
    pub fn put(&self, bucket: &str, key: &str, object: impl Into<Object>) -> Result<(), Error> {
        self.store(bucket)?.put(key, object.into()).map_err(|source| Error::Object { key: key.to_owned(), source })
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    ///
    /// If there is no such bucket, or if the bucket is a folder and the file cannot be removed.
    pub fn remove(&self, bucket: &str, key: &str) -> Result<(), Error> {
        self.store(bucket)?.remove(key).map_err(|source| Error::Object { key: key.to_owned(), source })
    }

    /// The bytes of an object, such as one that a client has put there; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If there is no such bucket, or if the bucket is a folder and the file cannot be read.
    pub fn get(&self, bucket: &str, key: &str) -> Result<Option<Bytes>, Error> {
        let failed = |source| Error::Object { key: key.to_owned(), source };
        let Some(object) = self.store(bucket)?.open(key).map_err(failed)?.into_object() else { return Ok(None) };
        let mut bytes = Vec::new();
        object.write_to(&mut bytes).map_err(failed)?;
        Ok(Some(bytes.into()))
    }

    /// Key and id of the multipart uploads of a bucket that are neither complete nor aborted, in the order of the keys.
    ///
    /// # Errors
    ///
    /// If there is no such bucket.
    pub fn uploads(&self, bucket: &str) -> Result<Vec<(String, String)>, Error> {
        let found = self.site.buckets.get(bucket).map(|bucket| bucket.uploads.names());
        found.ok_or_else(|| Error::NoSuchBucket { bucket: bucket.to_owned() })
    }

    /// Obeys this rule from the next request on, after all rules given before.
    pub fn fault(&self, rule: Rule) -> FaultHandle {
        self.site.faults.add(rule)
    }

    /// Forgets all rules.
    pub fn clear_faults(&self) {
        self.site.faults.clear();
    }

    /// The requests since the start or the last [`clear_requests`](Self::clear_requests), in the order of their
    /// arrival, those under way included; the newest of them, where [`Builder::keep_requests`] says so.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.site.log.snapshot()
    }

    /// How much was asked since the start or the last [`clear_requests`](Self::clear_requests), requests under way
    /// included. Costs the same after sixty thousand requests as after one.
    pub fn counts(&self) -> Counts {
        self.site.log.counts()
    }

    /// Forgets the requests so far, and sets the counts to zero.
    pub fn clear_requests(&self) {
        self.site.log.clear();
    }

    fn store(&self, bucket: &str) -> Result<&Store, Error> {
        let bucket_of_site = self.site.buckets.get(bucket);
        bucket_of_site.map(|bucket| &bucket.store).ok_or_else(|| Error::NoSuchBucket { bucket: bucket.to_owned() })
    }
}

/// Serves one connection to its end.
async fn serve(stream: TcpStream, number: u64, site: Arc<Site>) {
    let connection = Connection { number, switch: Arc::<CutSwitch>::default(), counted: Arc::<CountedIn>::default() };
    let wire = TokioIo::new(Wire::new(stream, Arc::clone(&connection.switch)));
    let service = service_fn(move |request| handle(Arc::clone(&site), connection.clone(), request));
    // Its errors are the client's departures and the faults that were asked for.
    let _ = http1::Builder::new().header_read_timeout(None).serve_connection(wire, service).await;
}
