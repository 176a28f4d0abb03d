//! One file on its way into a bucket: in one request, or in parts.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html>

use std::collections::HashSet;
use std::fmt::Write;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bulk_core::{Algorithm, Digest, ETag as EntityTag, Event, Hasher, Pace, Source};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::utf8_percent_encode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::bucket::{PATH, has_own_key};
use crate::chunks::{Chunk, Chunker};
use crate::file_set::{LEAST_PART, SetEvent, SetFile, SetOptions};
use crate::page::decode_url;
use crate::removals;
use crate::upload_answer::UploadAnswer;
use crate::upload_note::UploadNote;
use crate::upload_plan::{MAX_PARTS, Part, parts};
use crate::{Bucket, Error, Object};

/// What says of an object that it was uploaded here, and what it has.
const SHA256: HeaderName = HeaderName::from_static("x-amz-meta-sha256");
const COPY_SOURCE: HeaderName = HeaderName::from_static("x-amz-copy-source");
const COPY_SOURCE_IF_MATCH: HeaderName = HeaderName::from_static("x-amz-copy-source-if-match");
const COPY_SOURCE_RANGE: HeaderName = HeaderName::from_static("x-amz-copy-source-range");
/// Smaller files are sent whole: they have hardly a part that could be copied.
const LEAST_COPIED: u64 = 16 << 20;
/// So much of a file is in memory while it is looked for what it has in common with an object.
const SCANNED: u64 = 4 << 20;
/// How long a server may take to copy a part, or to put an object together. S3 speaks of minutes.
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
    /// Where it is kept what objects below the prefix consist of.
    notes: Option<PathBuf>,
    /// Whether the server has refused none yet.
    copies: AtomicBool,
    /// Whether a file has failed, so that no other part of any is to be begun.
    is_over: AtomicBool,
}

/// How a file is put together: by copies of stretches of the object that it takes the place of, and of what is sent.
pub(crate) struct CopyPlan {
    chunks: Vec<Chunk>,
    parts: Vec<Part>,
    /// The object's.
    etag: EntityTag,
}

/// Why a file was not uploaded by copies.
enum Uncopied {
    /// The server does not do it, or does something else: no file is to be.
    Unknown(Error),
    /// This one is not: it is to be sent whole. Whatever is in the way of copies alone must not be in the way of that; what is in
    /// the way of both, that tells, too.
    Refused(Error),
    Failed(Error),
    /// Another file has failed, and with it the set.
    Over,
}

impl From<Error> for Uncopied {
    fn from(error: Error) -> Self {
        match error {
            Error::Request(bulk_core::Error::Status { status: 501, .. }) => Self::Unknown(error),
            Error::Request(_) => Self::Refused(error),
            _ => Self::Failed(error),
        }
    }
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
    pub(crate) fn new(bucket: &Bucket, prefix: &str, options: &SetOptions) -> Self {
        let concurrency = options.concurrency.clamp(1, 1024);
        Self {
            bucket: bucket.clone(),
            pace: Pace::new(concurrency, bucket.retry.timeout),
            memory: Arc::new(Semaphore::new(concurrency)),
            concurrency,
            part_size: options.part_size.max(LEAST_PART),
            observer: Arc::clone(&options.observer),
            notes: options.notes.as_ref().map(|folder| UploadNote::path(folder, &bucket.identity(prefix))),
            copies: AtomicBool::new(true),
            is_over: AtomicBool::new(false),
        }
    }

    /// Begins no other file or part: what is [put](Self::put) ends behind the requests that are on their way.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Whether a file of this size goes in one request, so that the object's ETag is its MD5 where S3's rules hold.
    pub(crate) fn is_single(&self, size: u64) -> bool {
        size <= self.part_size
    }

    /// Uploads the file, whatever stands there, by copies if they are planned. What arrives is what the file's digest says, or
    /// nothing does. Gives how many of its bytes the server has copied; none if it was [ended](Self::end).
    pub(crate) async fn put(&self, key: &str, file: &SetFile, plan: Option<CopyPlan>) -> Result<Option<u64>, Error> {
        if self.is_over() {
            return Ok(None);
        }
        (self.observer)(&SetEvent::Begun { file });
        if !self.is_single(file.size) {
            // The first that the server refuses may have been another one.
            if let Some(plan) = plan.filter(|_| self.copies.load(Ordering::Relaxed)) {
                if let Some(copied) = self.put_by_copies(key, file, plan).await? {
                    return Ok(Some(copied));
                }
                // A part that was on its way when the upload was aborted may have made it live on.
                let _ = self.abort_unfinished(key, |unfinished| unfinished == key).await;
            }
            return Ok(self.put_in_parts(key, file).await?.then_some(0));
        }
        let _memory = self.memory().await;
        let mut reader = FileReader::open(file, false).await?;
        let bytes = reader.next(file.size).await?;
        reader.finish(file)?;
        self.put_bytes(key, file.headers(), bytes).await?;
        (self.observer)(&SetEvent::Sent { file, bytes: file.size });
        Ok(Some(0))
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

    /// Whether it was uploaded, and not ended before that.
    async fn put_in_parts(&self, key: &str, file: &SetFile) -> Result<bool, Error> {
        if self.is_over() {
            return Ok(false);
        }
        let id = self.begin(key, file).await?;
        let completed = async {
            let Some((parts, chunks)) = self.put_parts(key, &id, file).await? else { return Ok(None) };
            Ok::<_, Error>(Some((self.complete(key, &id, file, &parts).await?, chunks)))
        };
        let completed = completed.await;
        if let Ok(Some((etag, chunks))) = completed {
            self.note(key, file, etag, chunks).await;
            return Ok(true);
        }
        // What is in the way of this one is said by the error above, and the next run looks for what is left.
        let _ = self.abort(key, &id).await;
        completed.map(|_| false)
    }

    /// Begins an upload in parts, and gives its id.
    async fn begin(&self, key: &str, file: &SetFile) -> Result<String, Error> {
        let begun =
            self.send(Method::POST, key, &[("uploads", "")], file.headers(), Bytes::new(), Duration::ZERO).await?;
        self.text(key, &begun.1, "UploadId")
    }

    /// Looks through a file for what it has in common with the object that is `there` by the listing. None if it is to be sent
    /// whole: it is not known what the object has, or nothing of it is worth a copy.
    pub(crate) async fn plan(
        &self,
        key: &str,
        file: &SetFile,
        there: Option<&Object>,
    ) -> Result<Option<CopyPlan>, Error> {
        // S3 copies no range of a smaller object.
        let object = there.filter(|object| object.size > LEAST_PART && !self.is_single(file.size));
        let (Some(path), Some(object)) = (self.note_path(key, file), object) else { return Ok(None) };
        let Some(etag) = object.etag.as_ref().filter(|etag| !etag.is_weak()) else { return Ok(None) };
        let note = {
            let path = path.clone();
            blocking(&path.clone(), move || UploadNote::read(&path)).await
        };
        // One that cannot be read tells as little as none.
        let note = note.ok().flatten().filter(|note| note.etag == *etag && note.size() == object.size);
        let Some(note) = note else { return Ok(None) };
        let chunks = self.scan(file).await?;
        let parts = parts(&chunks, &note.chunks, self.part_size);
        Ok(parts.map(|parts| CopyPlan { chunks, parts, etag: etag.clone() }))
    }

    /// Uploads a file as planned. Gives how many bytes were copied, and none if it is to be sent whole, as the server refuses,
    /// or was ended.
    async fn put_by_copies(&self, key: &str, file: &SetFile, plan: CopyPlan) -> Result<Option<u64>, Error> {
        let id = self.begin(key, file).await?;
        let completed = async {
            let etags = self.put_planned(key, &id, file, &plan).await?;
            let etag = self.complete(key, &id, file, &etags).await?;
            // A server may have copied something else than the range that it was told.
            match self.stored(key).await? {
                Some(stored) if stored.size.is_none_or(|size| size == file.size) => Ok(etag),
                _ => {
                    Err(Uncopied::Unknown(self.protocol(key, "what it put together of copies is not the file".into())))
                }
            }
        };
        match completed.await {
            Ok(etag) => {
                let CopyPlan { chunks, parts, .. } = plan;
                self.note(key, file, etag, chunks).await;
                Ok(Some(parts.iter().filter(|part| part.copied_from.is_some()).map(|part| part.len).sum()))
            }
            Err(failed) => {
                let _ = self.abort(key, &id).await;
                let error = match failed {
                    Uncopied::Failed(error) => return Err(error),
                    Uncopied::Over => return Ok(None),
                    Uncopied::Refused(error) => error,
                    Uncopied::Unknown(error) => {
                        self.copies.store(false, Ordering::Relaxed);
                        error
                    }
                };
                (self.observer)(&SetEvent::NotCopied { file, error: &error });
                Ok(None)
            }
        }
    }

    /// The chunks of a file that is what it is to be.
    async fn scan(&self, file: &SetFile) -> Result<Vec<Chunk>, Error> {
        let mut reader = FileReader::open(file, true).await?;
        let mut left = file.size;
        while left > 0 {
            let len = left.min(SCANNED);
            let _memory = self.memory().await;
            reader.next(len).await?;
            left -= len;
        }
        reader.finish(file)
    }

    /// Uploads the parts as planned, and gives their ETags.
    ///
    /// When one fails, no other is begun, and those that are on their way are waited for: a server may finish a copy after its
    /// upload was aborted, and keep it (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_AbortMultipartUpload.html>).
    async fn put_planned(&self, key: &str, id: &str, file: &SetFile, plan: &CopyPlan) -> Result<Vec<String>, Uncopied> {
        let CopyPlan { chunks, parts, etag: source } = plan;
        let has_failed = &AtomicBool::new(false);
        let put = (1_u32..).zip(parts).map(|(number, part)| async move {
            if has_failed.load(Ordering::Relaxed) || self.is_over() {
                return None;
            }
            let put = match part.copied_from {
                Some(from) => self.copy_part(key, id, file, number, part, from..from + part.len, source).await,
                None => {
                    async {
                        let _memory = self.memory().await;
                        let bytes = read_part(file, part, &chunks[part.chunks.clone()]).await?;
                        Ok(self.put_part(key, id, file, number, bytes).await?)
                    }
                    .await
                }
            };
            has_failed.fetch_or(put.is_err(), Ordering::Relaxed);
            Some(put)
        });
        let put: Vec<_> = put.collect();
        let mut put = futures::stream::iter(put).buffered(self.concurrency);
        let (mut etags, mut failed) = (Vec::with_capacity(parts.len()), None);
        while let Some(put) = put.next().await {
            match put {
                Some(Ok(etag)) => etags.push(etag),
                Some(Err(error)) if failed.is_none() => failed = Some(error),
                _ => {}
            }
        }
        match failed {
            Some(error) => Err(error),
            None if etags.len() < parts.len() => Err(Uncopied::Over),
            None => Ok(etags),
        }
    }

    /// Lets the server copy a part from the object that stands under the key, and gives the part's ETag
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPartCopy.html>). Not each server heeds the range, or that the
    /// object is to be the one that was listed, so the ETag must be the MD5 of the file's part, where it is one.
    #[expect(clippy::too_many_arguments, reason = "they are those of the request")]
    async fn copy_part(
        &self,
        key: &str,
        id: &str,
        file: &SetFile,
        number: u32,
        part: &Part,
        range: Range<u64>,
        source: &EntityTag,
    ) -> Result<String, Uncopied> {
        let unusable = |what: &str| Uncopied::Unknown(self.protocol(key, what.to_owned()));
        let source = [
            (COPY_SOURCE, format!("/{}/{}", self.bucket.name(), utf8_percent_encode(key, PATH))),
            (COPY_SOURCE_IF_MATCH, source.to_header()),
            (COPY_SOURCE_RANGE, format!("bytes={}-{}", range.start, range.end - 1)),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in source {
            let value = HeaderValue::from_str(&value).map_err(|_| unusable("its ETag cannot stand in a header"))?;
            headers.insert(name, value);
        }
        let number = number.to_string();
        let query = [("partNumber", number.as_str()), ("uploadId", id)];
        let (answered, body) = self.send(Method::PUT, key, &query, headers, Bytes::new(), WORK).await?;
        // One that does not know these headers takes an empty part.
        let answer = UploadAnswer::parse(&body).unwrap_or_default();
        let etag = answer.text("ETag").filter(|_| answer.root == "CopyPartResult");
        let etag = etag.ok_or_else(|| unusable("it does not answer that it has copied a part"))?;
        let text = etag.trim_matches('"');
        let is_md5 = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) && !has_own_key(&answered);
        if is_md5 && !format!("md5:{text}").eq_ignore_ascii_case(&md5(file, part).await?.to_string()) {
            return Err(unusable("what it copied is not what the object was to have there"));
        }
        (self.observer)(&SetEvent::Copied { file, bytes: range.end - range.start });
        Ok(etag.to_owned())
    }

    /// Where it is kept what the object consists of, if it is for a file of this size.
    fn note_path(&self, key: &str, file: &SetFile) -> Option<PathBuf> {
        let folder = self.notes.as_deref().filter(|_| file.size >= LEAST_COPIED)?;
        Some(UploadNote::path(folder, &self.bucket.identity(key)))
    }

    /// Keeps what the object consists of, so that the next edition of it is uploaded by copies.
    async fn note(&self, key: &str, file: &SetFile, etag: Option<EntityTag>, chunks: Vec<Chunk>) {
        let (Some(path), Some(etag)) = (self.note_path(key, file), etag) else { return };
        let note = UploadNote { etag, chunks };
        let kept = {
            let path = path.clone();
            blocking(&path.clone(), move || note.write(&path)).await
        };
        if let Err(Error::Upload { source: Some(error), .. }) = kept {
            (self.observer)(&SetEvent::NotNoted { file, path: &path, error: &error });
        }
    }

    /// What an upload was about to remove that was cut short, and had this manifest.
    pub(crate) async fn noted_removals(&self, manifest: &str) -> Vec<String> {
        let Some(path) = self.removals_path(manifest) else { return Vec::new() };
        // A note that cannot be read tells as little as none.
        blocking(&path.clone(), move || removals::read(&path)).await.unwrap_or_default()
    }

    /// Keeps what is to be removed behind the manifest, until [others are forgotten](Self::forget_others).
    pub(crate) async fn note_removals(&self, manifest: &str, names: &[&str]) {
        let Some(path) = self.removals_path(manifest) else { return };
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let written = blocking(&path, {
            let path = path.clone();
            move || removals::write(&path, &names)
        });
        if let Err(Error::Upload { source: Some(error), .. }) = written.await {
            (self.observer)(&SetEvent::RemovalsNotNoted { path: &path, error: &error });
        }
    }

    /// Where that is kept: no other note is about a manifest.
    fn removals_path(&self, manifest: &str) -> Option<PathBuf> {
        self.notes.as_ref().map(|folder| UploadNote::path(folder, &self.bucket.identity(manifest)))
    }

    /// Forgets what other objects than these consist of, and what was to be removed.
    pub(crate) async fn forget_others(&self, keys: impl Iterator<Item = String>) {
        let Some(folder) = self.notes.clone() else { return };
        let known: HashSet<PathBuf> = keys.map(|key| UploadNote::path(&folder, &self.bucket.identity(&key))).collect();
        // What is left says nothing of an object with another ETag.
        let _ = blocking(&folder.clone(), move || UploadNote::remove_others(&folder, &known)).await;
    }

    /// Uploads the parts of a file, and gives their ETags, and the file's chunks if they are to be noted; none if it was ended.
    async fn put_parts(&self, key: &str, id: &str, file: &SetFile) -> Result<Option<(Vec<String>, Vec<Chunk>)>, Error> {
        let part_size = self.part_size.max(file.size.div_ceil(MAX_PARTS));
        let reader = FileReader::open(file, self.note_path(key, file).is_some()).await?;
        let chunks = OnceLock::new();
        let found = &chunks;
        let parts = futures::stream::try_unfold((reader, 0, 1_u32), |(mut reader, start, number)| async move {
            if start == file.size {
                // It ends once.
                let _ = found.set(reader.finish(file)?);
                return Ok::<_, Error>(None);
            }
            let len = part_size.min(file.size - start);
            let memory = self.memory().await;
            if self.is_over() {
                return Ok(None);
            }
            let bytes = reader.next(len).await?;
            Ok(Some(((number, bytes, memory), (reader, start + len, number + 1))))
        });
        let sent = parts.map_ok(|(number, bytes, memory)| async move {
            // It is free when the part is sent.
            let _memory = memory;
            self.put_part(key, id, file, number, bytes).await
        });
        let etags = sent.try_buffered(self.concurrency).try_collect().await?;
        Ok(chunks.into_inner().map(|chunks| (etags, chunks)))
    }

    /// Uploads a part, and gives its ETag.
    async fn put_part(&self, key: &str, id: &str, file: &SetFile, number: u32, bytes: Bytes) -> Result<String, Error> {
        let number = number.to_string();
        let query = [("partNumber", number.as_str()), ("uploadId", id)];
        let len = bytes.len() as u64;
        let (headers, _) = self.send(Method::PUT, key, &query, HeaderMap::new(), bytes, Duration::ZERO).await?;
        (self.observer)(&SetEvent::Sent { file, bytes: len });
        let etag = headers.get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        etag.ok_or_else(|| self.protocol(key, "a part was taken without an ETag".to_owned()))
    }

    /// Lets the server put the object together, and gives its ETag, if it is said.
    async fn complete(
        &self,
        key: &str,
        id: &str,
        file: &SetFile,
        parts: &[String],
    ) -> Result<Option<EntityTag>, Error> {
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
                Ok(None)
            }
            completed => {
                let (_, body) = completed?;
                let answer = UploadAnswer::parse(&body).unwrap_or_default();
                Ok(answer.text("ETag").map(EntityTag::new))
            }
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
    state: Option<Reading>,
    path: PathBuf,
}

struct Reading {
    file: File,
    hasher: Hasher,
    chunker: Option<Chunker>,
}

impl FileReader {
    /// With or without looking for its chunks.
    async fn open(file: &SetFile, chunks: bool) -> Result<Self, Error> {
        let path = file.path.clone();
        let opened = blocking(&path, {
            let path = path.clone();
            move || File::open(path)
        });
        let hasher = Hasher::new(&[Algorithm::Sha256]);
        let state = Reading { file: opened.await?, hasher, chunker: chunks.then(Chunker::new) };
        Ok(Self { state: Some(state), path })
    }

    /// The next `len` bytes.
    async fn next(&mut self, len: u64) -> Result<Bytes, Error> {
        let Some(mut state) = self.state.take() else { return Err(changed(&self.path)) };
        let (state, bytes) = blocking(&self.path, move || {
            let mut bytes = Vec::new();
            (&mut state.file).take(len).read_to_end(&mut bytes)?;
            state.hasher.update(&bytes);
            if let Some(chunker) = &mut state.chunker {
                chunker.update(&bytes);
            }
            Ok((state, Bytes::from(bytes)))
        })
        .await?;
        self.state = Some(state);
        if bytes.len() as u64 == len { Ok(bytes) } else { Err(changed(&self.path)) }
    }

    /// The chunks that were looked for, if what was read is what it was to be.
    fn finish(self, file: &SetFile) -> Result<Vec<Chunk>, Error> {
        let Some(Reading { hasher, chunker, .. }) = self.state else { return Err(changed(&self.path)) };
        match hasher.finish() == [Digest::Sha256(file.sha256)] {
            true => Ok(chunker.map(Chunker::finish).unwrap_or_default()),
            false => Err(changed(&self.path)),
        }
    }
}

/// The bytes of a part, if its chunks are still the same.
async fn read_part(file: &SetFile, part: &Part, chunks: &[Chunk]) -> Result<Bytes, Error> {
    let (path, chunks) = (file.path.clone(), chunks.to_vec());
    let (start, len) = (part.start, part.len);
    let bytes = blocking(&file.path, move || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(len).read_to_end(&mut bytes)?;
        let mut rest = bytes.as_slice();
        for chunk in chunks {
            match rest.split_at_checked(chunk.len as usize) {
                Some((bytes, behind)) if chunk.is(bytes) => rest = behind,
                _ => return Ok(None),
            }
        }
        Ok(Some(Bytes::from(bytes)))
    });
    bytes.await?.ok_or_else(|| changed(&file.path))
}

/// The MD5 of a part of a file.
async fn md5(file: &SetFile, part: &Part) -> Result<Digest, Error> {
    let (path, start, len) = (file.path.clone(), part.start, part.len);
    blocking(&file.path, move || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        let mut hasher = Hasher::new(&[Algorithm::Md5]);
        std::io::copy(&mut BufReader::with_capacity(1 << 20, file.take(len)), &mut hasher)?;
        hasher.finish().pop().ok_or_else(|| std::io::Error::other("no digest was asked for"))
    })
    .await
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
