//! Parallel downloads that arrive in strict order, survive faults, and resume.
//!
//! A [`Source`] answers [`Get`]s with [`Body`]s; a plan is a sequence of [`Request`]s; [`download`] fetches the plan
//! over several connections into a folder and hands the files on in the plan's order, each whole, as a [`Delivery`].
//! [`stream`] hands on each object's bytes in order, while the rest of it still arrives. Data flows from the source to the
//! folder to the caller; [`Event`]s leave sideways to an [`Observer`] and steer nothing.
//!
//! The examples below need `bulk-core`, `futures`, `tokio` (with its features `rt-multi-thread` and `macros`) and, for the
//! folders that they try it in, `tempfile` in `[dependencies]`; a [`Source`] of your own `async-trait` and `bytes` besides.
//! They are the bodies of a `#[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>>`: downloads run on the
//! caller's tokio runtime.
//!
//! # Files in order
//!
//! ```
//! use std::sync::Arc;
//!
//! use bulk_core::{DownloadOptions, FileSource, Request, download};
//! use futures::StreamExt;
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let data = tempfile::tempdir()?;
//! std::fs::write(data.path().join("a"), b"first")?;
//! std::fs::write(data.path().join("b"), b"second")?;
//!
//! // Over the network it is HttpSource::new("https://example.org/data")?, or the bucket of bulk-s3.
//! let source = Arc::new(FileSource::new(data.path()));
//! let plan = ["b", "missing", "a"].map(Request::new);
//! let folder = tempfile::tempdir()?;
//! let mut files = download(source, plan, folder.path(), DownloadOptions::default());
//!
//! let mut arrived = Vec::new();
//! while let Some(delivery) = files.next().await {
//!     // What fails is an item in its place, and not the end.
//!     match delivery.outcome {
//!         Ok(staged) => arrived.push((delivery.request.name.clone(), std::fs::read(&staged.path)?)),
//!         Err(error) => assert!(error.to_string().ends_with("missing does not exist")),
//!     }
//! }
//! assert_eq!(arrived, [("b".to_owned(), b"second".to_vec()), ("a".to_owned(), b"first".to_vec())]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! Run it again with the same folder, and nothing is fetched that is there: `staged.fetched` is 0. Give requests the size,
//! ETag and time of a listing where you have one; then not even a request is made for what has not changed.
//!
//! # Bytes in order, into a decoder
//!
//! An [`OrderedBody`] is an `AsyncRead`, and as a [`BlockingBody`] an `io::Read` for the thread of a decoder. With
//! [`Keep::Nothing`] an object is never whole on the disk.
//!
//! ```
//! use std::io::{BufRead, BufReader};
//! use std::sync::Arc;
//!
//! use bulk_core::{DownloadOptions, FileSource, Keep, Request, stream};
//! use futures::StreamExt;
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let data = tempfile::tempdir()?;
//! std::fs::write(data.path().join("a.csv"), "id\n1\n2\n")?;
//!
//! let source = Arc::new(FileSource::new(data.path()));
//! let folder = tempfile::tempdir()?;
//! let mut bodies = stream(source, [Request::new("a.csv")], folder.path(), Keep::Nothing, DownloadOptions::default());
//! while let Some(delivery) = bodies.next().await {
//!     let body = delivery.outcome?.into_blocking();
//!     let lines = tokio::task::spawn_blocking(|| BufReader::new(body).lines().count()).await?;
//!     assert_eq!(lines, 3);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # A source of one's own
//!
//! Implement [`Source::get`] and [`Source::location`]: make one attempt, say what the object is, and give its bytes from
//! [`Get::start`] on. Retries, order, resume and checks are the download's. The `conformance` module (feature
//! `conformance`) checks whether an implementation does what the trait promises.
//!
//! ```
//! use bulk_core::{Body, ETag, Error, Get, Source};
//! use bytes::Bytes;
//! use futures::StreamExt;
//!
//! /// One object, in memory.
//! struct Memory(Bytes);
//!
//! #[async_trait::async_trait]
//! impl Source for Memory {
//!     fn location(&self, key: &str) -> String {
//!         format!("memory:{key}")
//!     }
//!
//!     async fn get(&self, get: &Get) -> Result<Body, Error> {
//!         let location = || self.location(&get.key);
//!         let (size, etag) = (self.0.len() as u64, ETag::new("1"));
//!         if get.if_match.as_ref().is_some_and(|wanted| *wanted != etag) || (get.start > 0 && get.start >= size) {
//!             return Err(Error::Changed { location: location(), what: "it is another one".to_owned() });
//!         }
//!         let end = get.end.unwrap_or(size).min(size);
//!         let bytes = self.0.slice(get.start as usize..end as usize);
//!         let mut body = Body::new(get.start, futures::stream::iter([Ok(bytes)]).boxed());
//!         (body.end, body.size, body.etag, body.has_ranges) = (Some(end), Some(size), Some(etag), true);
//!         Ok(body)
//!     }
//! }
//! ```
//!
//! # And besides
//!
//! - *Set connections, window, disk, retries*: [`DownloadOptions`]. *Stop gently*: [`DownloadOptions::stop`].
//! - *Show progress*: [`DownloadOptions::observer`] is told of each [`Event`].
//! - *Fetch over HTTP through a proxy, with a CA of one's own*: [`HttpClient`] under [`HttpOptions`], for an [`HttpSource`].
//! - *Keep within the disk*: [`DiskBudget`], shared with whatever else writes there.
//! - *Be done with a staged file, or have it fetched anew*: [`remove_staged`].
//! - *Check what arrived*: [`Digest`]s are compared where the source states them; [`Sums`] reads lists of them,
//!   [`write_manifest`] keeps them, [`verify_folder`] compares a folder with them.
//! - *Fetch small objects by the thousand into memory*: [`fetch_objects`].
//! - *Read rows out of JSON*: `Explode` (feature `crawl`).
//! - *Slow down all requests of a kind together*: [`Pace`].
//! - *Send no more requests than are allowed, in any window*: [`Limiter`].
//! - *Ask an API for each record of an input*: the `crawl` module (feature `crawl`).
//! - *Know what throttles a pipeline*: [`Meters`] count what each stage's workers do with their time, a [`RunVerdict`] names
//!   what binds and what would if that were faster, a [`RunReport`] keeps both, as JSON, text or (feature `html`) a page.
//! - *Retry an own request*: [`retry`] under a [`RetryPolicy`]; what is worth a retry is [`Error::is_transient`].
//!
//! # Guarantees
//!
//! **Order.** Deliveries come in the plan's order, whatever the order in which bytes arrive. The unit of work is a segment,
//! a range of a file; free connections always take what is first in the order of (file, offset). So the file in front is
//! whole first, over all connections, and its bytes can be read as they come. A connection that crawls is helped out as
//! soon as another one has nothing else to do.
//!
//! **Nothing torn.** A file appears under its final name only when it is whole: it grows as a part file in the folder's
//! `.bulk` subfolder, is checked, synced to disk and renamed. Beside the part a record of version and stretches is what a
//! rerun resumes from.
//!
//! **One version.** Two versions never mix, as far as the server gives each of them another strong ETag or another time of
//! modification: each request carries `If-Match` where there is a strong ETag, and its answer must have the same ETag, and
//! no other size, and without an ETag the same time. Where the server gives neither, one connection brings the object, and
//! nothing is resumed. An object that changes under the download is begun anew, and an [`Event`] says so; if its bytes are
//! being read, the reader gets an error.
//!
//! **Checked.** Length and `Content-Range` always are. The content is, where the source states a digest of the whole
//! object: an S3 bucket's ETag that is an MD5, its `x-amz-checksum-` headers, `Repr-Digest` (RFC 9530). Whatever it states,
//! a CRC-64/NVME of each file is computed as its bytes arrive. Where nothing is stated, TLS guards the way, and the
//! checksums of the compressed formats, which the reader verifies, guard the rest.
//!
//! **Bounded.** Bytes are in the part file, not in memory, which grows neither with the plan nor with the size of files. The
//! disk stays within the [`DiskBudget`]: space is reserved before it is written, by the front of the order first. A download
//! that finds none pauses, and goes on by itself; what could never fit is refused before its first byte. If the front has
//! no room, what is behind it and was not delivered makes way, and is fetched again in its place.
//!
//! **Nothing left behind.** What failed, was interrupted or killed leaves parts. The next run in the folder goes on with
//! those that its plan asks for. Of the others it removes those that nobody could go on with; the rest is kept, counts
//! against the budget, and is named ([`Event::Kept`]).
//!
//! One download at a time may use a folder, as long as its stream or one of its bodies lives; a second one, also of another
//! process, waits for 5 s and fails with [`Error::Locked`].
//!
//! # Tracing
//!
//! With the feature `tracing`, what goes on is in spans of the crate of that name, of level DEBUG, for whoever has a
//! subscriber: `download` (its `folder`) around the run, `segment` (of a `file`) and `finish` (of a few whole files at once) of
//! its connections, and `object` (its `key`) of [`fetch_objects`]. What happens in them is told by [`Event`]s and [`Meters`],
//! which need no feature.

mod budget;
#[cfg(feature = "conformance")]
pub mod conformance;
mod counted;
#[cfg(feature = "crawl")]
pub mod crawl;
mod crc64;
mod digest;
mod download;
mod error;
mod etag;
mod event;
#[cfg(feature = "crawl")]
mod explode;
mod file_source;
mod finish;
mod folder;
mod folder_lock;
mod hasher;
mod http_client;
mod http_options;
mod http_source;
mod leftovers;
mod limiter;
mod manifest;
mod meter;
mod multipart;
mod objects;
mod ordered_body;
mod pace;
mod part;
mod pause;
mod queue;
mod ranges;
mod record_sorter;
mod records;
mod redaction;
mod refusal;
mod retry;
mod run;
mod run_report;
mod shortage;
mod source;
mod span;
mod sums;
mod verdict;
mod verification;
mod worker;

pub use budget::{DiskBudget, Reservation};
pub use crc64::Crc64Nvme;
pub use digest::{Algorithm, Digest, DigestError};
pub use download::{Bodies, Delivery, Download, DownloadOptions, Keep, StagedFile, download, stream};
pub use error::Error;
pub use etag::ETag;
pub use event::{Event, Observer};
#[cfg(feature = "crawl")]
pub use explode::{Explode, ExplodedRow, ExplodedRows, InvalidExplode, RowFault, RowFaultKind, TooDeep};
pub use file_source::FileSource;
pub use folder_lock::FolderLock;
pub use hasher::Hasher;
#[cfg(feature = "crawl")]
pub use http_client::HttpAnswer;
pub use http_client::HttpClient;
pub use http_options::{HttpOptions, Proxy};
pub use http_source::HttpSource;
pub use limiter::{Limiter, LimiterOptions, LimiterStatus, Margin, Permit, RateLimit, RateLimitError, Spread};
pub use manifest::{Manifest, ManifestEntry, write_manifest};
pub use meter::{
    InputState, MeterReading, MeteredInput, MeteredRead, MeteredStream, Meters, Resource, Sample, Sampling,
    StageCounts, StageMeter, StageReading, StageSample, Timeline, Wait, WorkerMeter,
};
pub use multipart::{MultipartEtag, MultipartHasher, MultipartVerdict};
pub use objects::{FetchedObject, ObjectBytes, ObjectOptions, fetch_objects};
pub use ordered_body::{BlockingBody, OrderedBody};
pub use pace::Pace;
pub use part::remove_staged;
pub use records::{StagedRecords, staged_records};
pub use retry::{RetryPolicy, retry};
pub use run_report::{FileReport, RejectReport, RunComparison, RunReport, StageComparison, StageCost};
pub use shortage::Shortage;
pub use source::{Body, Get, Request, Source};
pub use sums::{BadLine, Sums};
pub use verdict::{
    Bottleneck, Evidence, Goal, GoalProgress, Limit, LimitUse, Outlook, Projection, Remedy, RunPhase, RunVerdict,
    WhatIf,
};
pub use verification::{Expected, Verdict, Verification, Verified, VerifyOptions, verify_files, verify_folder};

/// The program of the crate's page.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
