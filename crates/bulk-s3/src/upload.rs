//! One file on its way into a bucket: in one request, or in parts.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html>

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bulk_core::{Algorithm, Digest, Event, Hasher, Pace, Source};
use bytes::Bytes;
use futures::TryStreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::file_set::{LEAST_PART, SetEvent, SetFile, SetOptions};
use crate::page::decode_url;
use crate::upload_answer::UploadAnswer;
use crate::{Bucket, Error};

/// What says of an object that it was uploaded here, and what it has.
const SHA256: HeaderName = HeaderName::from_static("x-amz-meta-sha256");
/// S3 has no more parts of an object.
const MAX_PARTS: u64 = 10_000;
/// How long a server may take to put an object together. S3 speaks of minutes.
const WORK: Duration = Duration::from_secs(600);
/// A page of 1,000 uploads takes less.
const PAGE_LIMIT: usize = 8 * 1024 * 1024;

/// What all uploads of a run share.
pub(crate) struct Uploader {
    bucket: Bucket,
    pace: Pace,
    /// A permit for each part in memory.
    memory: Arc<Semaphore>,
    concurrency: usize,
    part_size: u64,
    observer: Observer,
}

/// Who is told of events.
pub(crate) type Observer = Arc<dyn Fn(&SetEvent<'_>) + Send + Sync>;

/// What stands under a key, as far as its headers tell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) size: Option<u64>,
    /// If it was uploaded here.
    pub(crate) sha256: Option<[u8; 32]>,
}

impl Uploader {
    /// With no more requests, and parts in memory, at a time than the options say.
    pub(crate) fn new(bucket: &Bucket, options: &SetOptions) -> Self {
        let concurrency = options.concurrency.clamp(1, 1024);
        Self {
            bucket: bucket.clone(),
            pace: Pace::new(concurrency, bucket.retry.timeout),
            memory: Arc::new(Semaphore::new(concurrency)),
            concurrency,
            part_size: options.part_size.max(LEAST_PART),
            observer: Arc::clone(&options.observer),
        }
    }

    /// Whether a file of this size goes in one request, so that the object's ETag is its MD5 where S3's rules hold.
    pub(crate) fn is_single(&self, size: u64) -> bool {
        size <= self.part_size
    }

    /// Uploads the file, whatever stands there. What arrives is what the file's digest says, or nothing does.
    pub(crate) async fn put(&self, key: &str, file: &SetFile) -> Result<(), Error> {
        (self.observer)(&SetEvent::Begun { file });
        if !self.is_single(file.size) {
            return self.put_in_parts(key, file).await;
        }
        let _memory = self.memory().await;
        let mut reader = FileReader::open(file).await?;
        let bytes = reader.next(file.size).await?;
        reader.finish(file)?;
        self.put_bytes(key, file.headers(), bytes).await?;
        (self.observer)(&SetEvent::Sent { file, bytes: file.size });
        Ok(())
    }

    /// Uploads what is in memory.
    pub(crate) async fn put_bytes(&self, key: &str, headers: HeaderMap, bytes: Bytes) -> Result<(), Error> {
        self.send(Method::PUT, key, &[], headers, bytes, Duration::ZERO).await?;
        Ok(())
    }

    /// Removes the object, if it is there.
    pub(crate) async fn remove(&self, key: &str) -> Result<(), Error> {
        self.send(Method::DELETE, key, &[], HeaderMap::new(), Bytes::new(), Duration::ZERO).await?;
        Ok(())
    }

    /// What stands there; none if nothing does.
    pub(crate) async fn stored(&self, key: &str) -> Result<Option<Stored>, Error> {
        let bucket = &self.bucket;
        let url = bucket.url(key, &[])?;
        let attempt = || async {
            let answer = async {
                let headers = bucket.sign_with(Method::HEAD, &url, HeaderMap::new(), Bytes::new()).await?;
                bucket.client.head(&url, headers, None).await
            };
            (answer.await, false)
        };
        match self.retry(key, attempt).await {
            Ok(headers) => {
                let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
                let size = text(CONTENT_LENGTH).and_then(|size| size.parse().ok());
                Ok(Some(Stored { size, sha256: text(SHA256).and_then(hexadecimal) }))
            }
            Err(bulk_core::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The bytes under the key, if they are no more than `limit`; none if nothing stands there.
    pub(crate) async fn read(&self, key: &str, limit: usize) -> Result<Option<Bytes>, Error> {
        let url = self.bucket.url(key, &[])?;
        let attempt = || async {
            let answer = async {
                let headers = self.bucket.sign(&url).await?;
                self.bucket.client.read(&url, headers, limit).await
            };
            (answer.await, false)
        };
        match self.retry(key, attempt).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(bulk_core::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Aborts the uploads in parts that somebody began and has not completed, under keys with `prefix` that are meant. Gives
    /// how many.
    pub(crate) async fn abort_unfinished(&self, prefix: &str, is_meant: impl Fn(&str) -> bool) -> Result<u64, Error> {
        let bucket = &self.bucket;
        let (mut aborted, mut place): (u64, Option<(String, String)>) = (0, None);
        loop {
            // In the order of their names, as a signature sorts them.
            let mut query = vec![("encoding-type", "url")];
            query.extend(place.iter().map(|(key, _)| ("key-marker", key.as_str())));
            query.push(("prefix", prefix));
            query.extend(place.iter().map(|(_, id)| ("upload-id-marker", id.as_str())));
            query.push(("uploads", ""));
            let url = bucket.url("", &query)?;
            let attempt = || async {
                let answer = async {
                    let headers = bucket.sign(&url).await?;
                    bucket.client.read(&url, headers, PAGE_LIMIT).await
                };
                (answer.await, false)
            };
            let page = self.retry(prefix, attempt).await?;
            let unusable = |what: String| Error::Listing { location: bucket.location(prefix), what };
            let page = UploadAnswer::parse(&page).map_err(unusable)?;
            if page.root != "ListMultipartUploadsResult" {
                return Err(unusable("the answer is no list of uploads".to_owned()));
            }
            let is_url = page.text("EncodingType").is_some_and(|encoding| encoding == "url");
            let decoded = |text: &str| -> Result<String, Error> {
                let mut key = String::new();
                match is_url {
                    true => decode_url(text, &mut key).map_err(unusable)?,
                    false => key.push_str(text),
                }
                Ok(key)
            };
            for (key, id) in page.uploads() {
                let key = decoded(key)?;
                // A server may not know the prefix.
                if key.starts_with(prefix) && is_meant(&key) {
                    self.abort(&key, id).await?;
                    aborted += 1;
                }
            }
            let next = (page.text("NextKeyMarker"), page.text("NextUploadIdMarker"));
            let (Some("true"), (Some(key), Some(id))) = (page.text("IsTruncated"), next) else { return Ok(aborted) };
            let next = (decoded(key)?, id.to_owned());
            if place.as_ref().is_some_and(|place| *place >= next) {
                return Err(unusable("a page of uploads names one as the next that does not lie behind it".to_owned()));
            }
            place = Some(next);
        }
    }

    async fn abort(&self, key: &str, id: &str) -> Result<(), Error> {
        let query = [("uploadId", id)];
        match self.send(Method::DELETE, key, &query, HeaderMap::new(), Bytes::new(), Duration::ZERO).await {
            Err(Error::Request(bulk_core::Error::NotFound { .. })) => Ok(()),
            aborted => aborted.map(drop),
        }
    }

    async fn put_in_parts(&self, key: &str, file: &SetFile) -> Result<(), Error> {
        let begun =
            self.send(Method::POST, key, &[("uploads", "")], file.headers(), Bytes::new(), Duration::ZERO).await?;
        let id = self.text(key, &begun.1, "UploadId")?;
        let completed = match self.put_parts(key, &id, file).await {
            Ok(parts) => self.complete(key, &id, file, &parts).await,
            Err(error) => Err(error),
        };
        if completed.is_err() {
            // What is in the way of this one is said by the error above, and the next run looks for what is left.
            let _ = self.abort(key, &id).await;
        }
        completed
    }

    /// Uploads the parts of a file, and gives their ETags.
    async fn put_parts(&self, key: &str, id: &str, file: &SetFile) -> Result<Vec<String>, Error> {
        let part_size = self.part_size.max(file.size.div_ceil(MAX_PARTS));
        let reader = FileReader::open(file).await?;
        let parts = futures::stream::try_unfold((reader, 0, 1_u32), |(mut reader, start, number)| async move {
            if start == file.size {
                reader.finish(file)?;
                return Ok::<_, Error>(None);
            }
            let len = part_size.min(file.size - start);
            let memory = self.memory().await;
            let bytes = reader.next(len).await?;
            Ok(Some(((number, bytes, memory), (reader, start + len, number + 1))))
        });
        let sent = parts.map_ok(|(number, bytes, memory)| async move {
            // It is free when the part is sent.
            let _memory = memory;
            let number = number.to_string();
            let query = [("partNumber", number.as_str()), ("uploadId", id)];
            let len = bytes.len() as u64;
            let (headers, _) = self.send(Method::PUT, key, &query, HeaderMap::new(), bytes, Duration::ZERO).await?;
            (self.observer)(&SetEvent::Sent { file, bytes: len });
            let etag = headers.get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
            etag.ok_or_else(|| self.protocol(key, "a part was taken without an ETag".to_owned()))
        });
        sent.try_buffered(self.concurrency).try_collect().await
    }

    async fn complete(&self, key: &str, id: &str, file: &SetFile, parts: &[String]) -> Result<(), Error> {
        let mut body = "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">".to_owned();
        for (number, etag) in (1..).zip(parts) {
            let etag = etag.replace('&', "&amp;").replace('<', "&lt;");
            // A string takes all that is written to it.
            let _ = write!(body, "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
        }
        body.push_str("</CompleteMultipartUpload>");
        let completed =
            self.send(Method::POST, key, &[("uploadId", id)], HeaderMap::new(), Bytes::from(body), WORK).await;
        match completed {
            // An attempt whose answer was lost has completed it, and the id is of no upload any more.
            Err(Error::Request(bulk_core::Error::NotFound { .. }))
                if self.stored(key).await?.is_some_and(|stored| stored.is(file)) =>
            {
                Ok(())
            }
            completed => completed.map(drop),
        }
    }

    async fn memory(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        self.memory.clone().acquire_owned().await.ok()
    }

    /// Sends a request until it is answered. S3 begins some answers before it knows how they end: an error may come with
    /// status 200 (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html>).
    async fn send(
        &self,
        method: Method,
        key: &str,
        query: &[(&str, &str)],
        headers: HeaderMap,
        body: Bytes,
        work: Duration,
    ) -> Result<(HeaderMap, Bytes), Error> {
        let bucket = &self.bucket;
        let url = bucket.url(key, query)?;
        let attempt = || async {
            let answer = async {
                let signed = bucket.sign_with(method.clone(), &url, headers.clone(), body.clone()).await?;
                let (headers, body) = bucket.client.write(method.clone(), &url, signed, body.clone(), work).await?;
                match UploadAnswer::parse(&body) {
                    Ok(answer) if answer.root == "Error" => {
                        let said = [answer.text("Code"), answer.text("Message")].into_iter().flatten();
                        let what = format!("it took the request, and then said {}", said.collect::<Vec<_>>().join(" "));
                        Err(bulk_core::Error::Protocol { location: bucket.location(key), what })
                    }
                    // Whoever wants something of it says what is missing.
                    _ => Ok((headers, body)),
                }
            };
            (answer.await, false)
        };
        Ok(self.retry(key, attempt).await?)
    }

    async fn retry<T, F, Fut>(&self, key: &str, attempt: F) -> Result<T, bulk_core::Error>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = (Result<T, bulk_core::Error>, bool)>,
    {
        let location = self.bucket.location(key);
        let on_retry = |attempt, delay, error: &bulk_core::Error| {
            self.bucket.observer.event(&Event::Retry { name: &location, attempt, delay, error });
        };
        self.pace.retry(&self.bucket.retry, on_retry, attempt).await
    }

    fn text(&self, key: &str, body: &[u8], name: &str) -> Result<String, Error> {
        let answer = UploadAnswer::parse(body).map_err(|what| self.protocol(key, what))?;
        let text = answer.text(name).filter(|text| !text.is_empty()).map(str::to_owned);
        text.ok_or_else(|| self.protocol(key, format!("its answer has no {name}")))
    }

    fn protocol(&self, key: &str, what: String) -> Error {
        bulk_core::Error::Protocol { location: self.bucket.location(key), what }.into()
    }
}

impl Stored {
    /// Whether it is the file, as far as who uploaded it says.
    pub(crate) fn is(&self, file: &SetFile) -> bool {
        self.sha256 == Some(file.sha256) && self.size.is_none_or(|size| size == file.size)
    }
}

impl SetFile {
    /// What is said of it to the server.
    fn headers(&self) -> HeaderMap {
        headers_of(&self.sha256, self.content_type.as_deref())
    }
}

/// What is said to the server of an object.
pub(crate) fn headers_of(sha256: &[u8; 32], content_type: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let digest = Digest::Sha256(*sha256).to_string();
    let digits = digest.split_once(':').and_then(|(_, digits)| HeaderValue::from_str(digits).ok());
    headers.extend(digits.map(|digits| (SHA256, digits)));
    let content_type = content_type.and_then(|content_type| HeaderValue::from_str(content_type).ok());
    headers.extend(content_type.map(|content_type| (CONTENT_TYPE, content_type)));
    headers
}

fn hexadecimal(text: &str) -> Option<[u8; 32]> {
    match format!("{}:{text}", Algorithm::Sha256).parse() {
        Ok(Digest::Sha256(digest)) => Some(digest),
        _ => None,
    }
}

/// Reads a file from its beginning, in threads that may wait for a disk, and hashes it on the way.
struct FileReader {
    /// Away while a thread reads.
    state: Option<(File, Hasher)>,
    path: PathBuf,
}

impl FileReader {
    async fn open(file: &SetFile) -> Result<Self, Error> {
        let path = file.path.clone();
        let opened = blocking(&path, {
            let path = path.clone();
            move || File::open(path)
        });
        let state = Some((opened.await?, Hasher::new(&[Algorithm::Sha256])));
        Ok(Self { state, path })
    }

    /// The next `len` bytes.
    async fn next(&mut self, len: u64) -> Result<Bytes, Error> {
        let Some((mut file, mut hasher)) = self.state.take() else { return Err(changed(&self.path)) };
        let (state, bytes) = blocking(&self.path, move || {
            let mut bytes = Vec::new();
            (&mut file).take(len).read_to_end(&mut bytes)?;
            hasher.update(&bytes);
            Ok(((file, hasher), Bytes::from(bytes)))
        })
        .await?;
        self.state = Some(state);
        if bytes.len() as u64 == len { Ok(bytes) } else { Err(changed(&self.path)) }
    }

    /// Whether what was read is what it was to be.
    fn finish(mut self, file: &SetFile) -> Result<(), Error> {
        let digests = self.state.take().map(|(_, hasher)| hasher.finish()).unwrap_or_default();
        if digests == [Digest::Sha256(file.sha256)] { Ok(()) } else { Err(changed(&self.path)) }
    }
}

fn changed(path: &Path) -> Error {
    Error::Upload { path: path.to_owned(), what: "it is not what the manifest says".to_owned(), source: None }
}

/// Runs what reads a file where it holds up nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let failed =
        |source| Error::Upload { path: path.to_owned(), what: "it cannot be read".to_owned(), source: Some(source) };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(failed),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(failed(std::io::Error::other(error))),
        },
    }
}
