use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bulk_core::{
    Body, Digest, ETag, Error, FileSource, Get, HttpClient, HttpOptions, HttpSource, Request, RetryPolicy, Source,
};
use bulk_s3::{Bucket, BucketOptions, Credentials, Object};
use futures::{Stream, StreamExt, TryStreamExt};
use percent_encoding::percent_decode_str;
use url::{Host, Url};

use crate::arguments::BucketArguments;
use crate::counted::counted;
use crate::exit::{Exit, Failure};
use crate::progress::Totals;
use crate::report::Report;

/// How much memory a listing may take that is held whole. That is some 8 million objects with keys of ordinary length.
const LISTING_LIMIT: usize = 1 << 30;

/// A place with files: it lists them, and is the source that fetches them.
pub(crate) enum Place {
    Bucket { bucket: Box<Bucket>, prefix: String },
    Folder(PathBuf),
}

impl Place {
    /// `s3://bucket/prefix` or `file:///folder`.
    pub(crate) fn open(source: &str, arguments: &BucketArguments, report: &Report) -> Result<Self, Failure> {
        Self::open_with(source, arguments, RetryPolicy::default(), report)
    }

    /// As [`open`](Self::open), with other patience.
    pub(crate) fn open_with(
        source: &str,
        arguments: &BucketArguments,
        retry: RetryPolicy,
        report: &Report,
    ) -> Result<Self, Failure> {
        if let Some(path) = source.strip_prefix("file://") {
            if !path.starts_with('/') {
                let what = format!("{source}: a folder has three slashes and its whole path, such as file:///srv/data");
                return Err(Failure::usage(what));
            }
            return Ok(Self::Folder(PathBuf::from(path)));
        }
        let Some(rest) = source.strip_prefix("s3://") else {
            // The rest of it may hold a password.
            let other = source.split_once("://").map(|(scheme, _)| format!(", and not {scheme}://…"));
            return Err(Failure::usage(format!(
                "a source is s3://bucket/prefix or file:///folder{}",
                other.unwrap_or_default()
            )));
        };
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let mut options = BucketOptions::default();
        options.endpoint.clone_from(&arguments.endpoint);
        options.region.clone_from(&arguments.region);
        if !arguments.anonymous {
            options.credentials = Credentials::Environment;
        }
        options.requester_pays = arguments.requester_pays;
        options.client = Some(http_client()?);
        options.retry = retry;
        let is_signed = !arguments.anonymous;
        if let Some(host) = arguments.endpoint.as_deref().filter(|_| is_signed).and_then(readable_host) {
            report.warn(format!(
                "requests go to {host} without encryption: who is on the way can read the data and a session token, and \
                 change both; https:// hides them, and --anonymous sends no credentials"
            ));
        }
        let report = report.clone();
        options.observer = Arc::new(move |event: &bulk_core::Event<'_>| report.on_download(event));
        Ok(Self::Bucket { bucket: Box::new(Bucket::new(name, options)?), prefix: prefix.to_owned() })
    }

    /// Refuses a folder for fetched files that is the very place they come from: a file would be replaced by its copy, and
    /// removed with it.
    pub(crate) fn refuse_folder(&self, flag: &str, folder: &Path) -> Result<(), Failure> {
        let Self::Folder(source) = self else { return Ok(()) };
        // One that is not there yet is another one.
        match (source.canonicalize(), folder.canonicalize()) {
            (Ok(source), Ok(folder)) if source == folder => Err(Failure::usage(format!(
                "{flag} {}: the files come from that folder; name another one for their copies",
                folder.display()
            ))),
            _ => Ok(()),
        }
    }

    /// All objects.
    pub(crate) async fn list(&self) -> Result<Vec<Object>, Failure> {
        match self {
            Self::Bucket { bucket, prefix } => hold(bucket.list(prefix), LISTING_LIMIT, &self.location()).await,
            Self::Folder(folder) => list_folder(folder),
        }
    }

    /// The part of a key below the prefix's last `/`.
    pub(crate) fn name<'a>(&self, key: &'a str) -> &'a str {
        let Self::Bucket { prefix, .. } = self else { return key };
        let folder = prefix.rfind('/').map_or("", |at| &prefix[..=at]);
        key.strip_prefix(folder).unwrap_or(key)
    }

    pub(crate) fn source(&self) -> Arc<dyn Source> {
        match self {
            Self::Bucket { bucket, .. } => Arc::new(Bucket::clone(bucket)),
            Self::Folder(folder) => Arc::new(FileSource::new(folder)),
        }
    }

    pub(crate) fn location(&self) -> String {
        match self {
            Self::Bucket { bucket, prefix } => format!("s3://{}/{prefix}", bucket.name()),
            Self::Folder(folder) => folder.display().to_string(),
        }
    }
}

/// All objects of a listing, which may be one without an end, so `limit` bytes are all that they may take.
async fn hold(
    listing: impl Stream<Item = Result<Object, bulk_s3::Error>>,
    limit: usize,
    location: &str,
) -> Result<Vec<Object>, Failure> {
    let mut listing = std::pin::pin!(listing);
    let (mut objects, mut bytes) = (Vec::new(), 0);
    while let Some(object) = listing.try_next().await? {
        let etag = object.etag.as_ref().map_or(0, |etag| etag.as_str().len());
        bytes += size_of::<Object>() + object.key.len() + etag;
        if bytes > limit {
            let count = counted(objects.len(), "object", "objects");
            let what = anyhow::anyhow!(
                "{location} has more than {count}, and that is as many as are held in memory; name a longer prefix, \
                 or use `bulk sync`, which holds none"
            );
            return Err(Failure::new(Exit::Failed, what));
        }
        objects.push(object);
    }
    Ok(objects)
}

/// The host of a URL to which requests go readably over a network: with `http`, and not to this machine.
pub(crate) fn readable_host(url: &str) -> Option<String> {
    // What is no URL is refused by whoever sends to it.
    let url = Url::parse(url).ok().filter(|url| url.scheme() == "http")?;
    let is_loopback = match url.host()? {
        Host::Domain(name) => name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    (!is_loopback).then(|| url.host_str().map(str::to_owned)).flatten()
}

/// The file of a URL.
pub(crate) struct WebFile {
    pub(crate) source: HttpSource,
    pub(crate) request: Request,
}

impl WebFile {
    /// `None` if the URL names no file.
    pub(crate) fn open(url: &str) -> Result<Option<Self>, Failure> {
        let url = url.split('#').next().unwrap_or(url);
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        // What stands behind the scheme and no slash is a host.
        let is_file = |(base, name): &(&str, &str)| !name.is_empty() && !base.ends_with('/');
        let Some((base, name)) = path.rsplit_once('/').filter(is_file) else { return Ok(None) };
        // The source escapes what a key holds.
        let name = percent_decode_str(name)
            .decode_utf8()
            .map_err(|_| Failure::usage(format!("the file name {name:?} in the URL is no UTF-8")))?;
        let source = HttpSource::with_client(&format!("{base}?{query}"), http_client()?)?;
        Ok(Some(Self { source, request: Request::new(name) }))
    }
}

/// The files of a folder and of those below it, in the order of their names, but for what a download has left of its own. A
/// link to a file counts as a file, one to a folder is not followed.
fn list_folder(folder: &Path) -> Result<Vec<Object>, Failure> {
    let mut objects = Vec::new();
    let mut prefixes = vec![String::new()];
    while let Some(prefix) = prefixes.pop() {
        let path = folder.join(&prefix);
        let failed = |error: std::io::Error| {
            Failure::new(Exit::Failed, anyhow::anyhow!("cannot list {}: {error}", path.display()))
        };
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let is_own = prefix.is_empty() && matches!(name.as_str(), ".bulk" | ".bulk-extract" | "manifest.json");
            let key = format!("{prefix}{name}");
            if is_own {
                continue;
            }
            if entry.file_type().map_err(failed)?.is_dir() {
                prefixes.push(format!("{key}/"));
                continue;
            }
            // What a link leads to may be gone.
            let Ok(metadata) = std::fs::metadata(entry.path()) else { continue };
            if metadata.is_file() {
                let mut object = Object::new(key, metadata.len());
                object.last_modified = metadata.modified().ok().and_then(|time| time.try_into().ok());
                objects.push(object);
            }
        }
    }
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(objects)
}

/// Connections that trust what the usual variables name: `AWS_CA_BUNDLE`, and `SSL_CERT_FILE` and `SSL_CERT_DIR`, which
/// the system's own verifier does not read on macOS and Windows.
pub(crate) fn http_client() -> Result<HttpClient, Failure> {
    let named = |name| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let mut options = HttpOptions::default();
    options.root_certificates.extend(named("AWS_CA_BUNDLE"));
    if cfg!(any(target_os = "macos", windows)) {
        options.root_certificates.extend(named("SSL_CERT_FILE"));
        let folders = named("SSL_CERT_DIR").map(|paths| std::env::split_paths(&paths).collect::<Vec<_>>());
        for folder in folders.unwrap_or_default() {
            let entries = std::fs::read_dir(&folder)
                .map_err(|error| Failure::usage(format!("SSL_CERT_DIR: cannot list {}: {error}", folder.display())))?;
            options.root_certificates.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()));
        }
    }
    Ok(HttpClient::with_options(&options)?)
}

/// A source whose connections count in the report's totals while they are at work, and of which is said where it sends
/// a whole object although a part of it would do.
pub(crate) fn watched(source: Arc<dyn Source>, report: &Report) -> Arc<dyn Source> {
    Arc::new(Watched { source, report: report.clone(), without_ranges: Mutex::default() })
}

struct Watched {
    source: Arc<dyn Source>,
    report: Report,
    /// The keys of which that was said.
    without_ranges: Mutex<HashSet<String>>,
}

impl Watched {
    fn look(&self, get: &Get, body: &Body) {
        if let Some(size) = body.size {
            // Where there is no listing, names are keys.
            self.report.totals().measure_file(&get.key, size);
        }
        let is_version_known = body.last_modified.is_some() || body.etag.as_ref().is_some_and(|etag| !etag.is_weak());
        // Else the download begins anew, and says why.
        if get.start > 0 && body.start == 0 && is_version_known {
            let mut said = self.without_ranges.lock().unwrap_or_else(PoisonError::into_inner);
            if said.insert(get.key.clone()) {
                let key = &get.key;
                self.report.note(format!(
                    "{key}: the server sends no ranges, so one connection brings it from its first byte"
                ));
            }
        }
    }
}

/// One connection at work.
struct Connection(Arc<Totals>);

impl Connection {
    fn new(totals: &Arc<Totals>) -> Self {
        totals.add_connection();
        Self(totals.clone())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.remove_connection();
    }
}

#[async_trait]
impl Source for Watched {
    fn location(&self, key: &str) -> String {
        self.source.location(key)
    }

    fn identity(&self, key: &str) -> String {
        self.source.identity(key)
    }

    async fn get(&self, get: &Get) -> Result<Body, Error> {
        let connection = Connection::new(self.report.totals());
        let mut body = self.source.get(get).await?;
        self.look(get, &body);
        body.bytes = body
            .bytes
            .inspect(move |_| {
                let _ = &connection;
            })
            .boxed();
        Ok(body)
    }

    async fn digests(&self, key: &str, if_match: Option<&ETag>) -> Result<Vec<Digest>, Error> {
        self.source.digests(key, if_match).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listing_without_an_end_is_not_held() {
        let object = |number: u64| Ok(Object::new(format!("{number:020}"), 1));
        let endless = futures::stream::iter(0..).map(object);
        let limit = 1000 * (size_of::<Object>() + 20);
        let error = hold(endless, limit, "s3://bucket/").await.unwrap_err().error.to_string();
        assert!(error.starts_with("s3://bucket/ has more than 1000 objects"), "{error}");

        let listing = futures::stream::iter(0..1000).map(object);
        let objects = hold(listing, limit, "s3://bucket/").await.unwrap();
        assert_eq!((objects.len(), objects[999].key.as_str()), (1000, "00000000000000000999"));
    }

    #[test]
    fn what_leaves_the_machine_without_encryption_is_readable() {
        for url in
            ["http://storage.example", "http://10.0.0.1:9000/x", "http://[2001:db8::1]", "http://127.0.0.1.example"]
        {
            assert!(readable_host(url).is_some(), "{url}");
        }
        let kept = [
            "https://storage.example",
            "http://localhost:9000",
            "http://s3.localhost",
            "http://127.0.0.9:1",
            "http://[::1]",
            "x",
        ];
        for url in kept {
            assert_eq!(readable_host(url), None, "{url}");
        }
    }
}
