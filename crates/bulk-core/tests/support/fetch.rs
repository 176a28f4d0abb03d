//! What the tests of downloads share: a server, a source, and a record of what happened.
#![allow(dead_code)] // Each test file uses a part of it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bulk_core::{
    Body, Digest, DownloadOptions, Error, Event, Get, HttpClient, HttpOptions, HttpSource, Request, RetryPolicy, Source,
};
use bulk_testkit::s3::{Object, Server, Store, made_up};

pub(crate) const BUCKET: &str = "data";
pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;

/// The bytes of [`Object::made_up`].
pub(crate) fn content(seed: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    made_up(seed, 0, &mut bytes);
    bytes
}

/// Serves objects of these keys and sizes, with their places as seeds.
pub(crate) fn serve(objects: &[(&str, u64)]) -> Server {
    let objects = objects.iter().zip(0..);
    let store = objects.fold(Store::memory(), |store, ((key, len), seed)| store.with(key, Object::made_up(*len, seed)));
    Server::builder().bucket(BUCKET, store).start().unwrap()
}

/// Objects below the server's bucket, over connections that count as dead after `patience`.
pub(crate) fn impatient(server: &Server, patience: Duration) -> Arc<dyn Source> {
    let mut options = HttpOptions::default();
    options.read_timeout = patience;
    let client = HttpClient::with_options(&options).unwrap();
    Arc::new(HttpSource::with_client(&format!("{}/{BUCKET}", server.url()), client).unwrap())
}

pub(crate) fn source(server: &Server) -> Arc<dyn Source> {
    impatient(server, Duration::from_secs(60))
}

/// A source that states these digests of each object.
pub(crate) struct Stating {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) digests: Vec<Digest>,
}

#[async_trait]
impl Source for Stating {
    fn location(&self, key: &str) -> String {
        self.source.location(key)
    }

    async fn get(&self, get: &Get) -> Result<Body, Error> {
        let mut body = self.source.get(get).await?;
        body.digests.clone_from(&self.digests);
        Ok(body)
    }
}

pub(crate) type Events = Arc<Mutex<Vec<String>>>;

/// What happened, as text; the options that record it, with waits of no length.
pub(crate) fn recorded() -> (Events, DownloadOptions) {
    let events = Events::default();
    let mut options = DownloadOptions::default();
    let mut retry = RetryPolicy::default();
    retry.initial = Duration::ZERO;
    options.retry = retry;
    let sink = events.clone();
    options.observer = Arc::new(move |event: &Event<'_>| {
        let text = match event {
            Event::Retry { name, error, .. } => format!("retry {name}: {error}"),
            Event::Restarted { name, reason, .. } => format!("restart {name}: {reason}"),
            Event::Paused { .. } => "paused".to_owned(),
            Event::Resumed { .. } => "resumed".to_owned(),
            Event::Failed { name, .. } => format!("failed {name}"),
            Event::Kept { name, bytes } => format!("kept {name}: {bytes}"),
            Event::Removed { name, reason, .. } => format!("removed {name}: {reason}"),
            _ => return,
        };
        sink.lock().unwrap().push(text);
    });
    (events, options)
}

pub(crate) fn count(events: &Events, prefix: &str) -> usize {
    events.lock().unwrap().iter().filter(|text| text.starts_with(prefix)).count()
}

/// Requests for these keys, of known size.
pub(crate) fn plan(objects: &[(&str, u64)]) -> Vec<Request> {
    let sized = |(key, len): &(&str, u64)| {
        let mut request = Request::new(*key);
        request.size = Some(*len);
        request
    };
    objects.iter().map(sized).collect()
}

/// The bytes that all files below `folder` take on the disk. What vanishes meanwhile counts as nothing.
pub(crate) fn allocated(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => allocated(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

/// The names of all files in the staging folder's `.bulk`.
pub(crate) fn state(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join(".bulk")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Nothing but sidecars is left of the work.
pub(crate) fn assert_no_parts(folder: &Path) {
    let left: Vec<_> = state(folder).into_iter().filter(|name| !name.ends_with(".json")).collect();
    assert_eq!(left, Vec::<String>::new());
}
