//! Parallel downloads that arrive in strict order, survive faults, and resume.
//!
//! A [`Source`] answers [`Get`]s with [`Body`]s; a plan is a sequence of [`Request`]s; [`download`] fetches the plan
//! over several connections into a folder and hands the files on in the plan's order, each whole, as a [`Delivery`].
//! Data flows from the source to the folder to the caller; [`Event`]s leave sideways to an [`Observer`] and steer
//! nothing.
//!
//! - *Fetch files in order*: [`download`], with [`DownloadOptions`] for concurrency, window and retries.
//! - *Fetch from HTTP or a folder*: [`HttpSource`], [`FileSource`]; implement [`Source`] for anything else.
//! - *Be done with a staged file, or have it fetched anew*: [`remove_staged`].
//! - *Retry an own request*: [`retry`] under a [`RetryPolicy`]; what is worth a retry is [`Error::is_transient`].
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//! use bulk_core::{DownloadOptions, FileSource, Request, download};
//! use futures::StreamExt;
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let data = tempfile::tempdir().unwrap();
//! std::fs::write(data.path().join("a"), b"first").unwrap();
//! std::fs::write(data.path().join("b"), b"second").unwrap();
//!
//! let out = tempfile::tempdir().unwrap();
//! let source = Arc::new(FileSource::new(data.path()));
//! let plan = vec![Request::new("b"), Request::new("a")];
//! let mut files = download(source, plan, out.path(), DownloadOptions::default());
//!
//! let mut names = Vec::new();
//! while let Some(delivery) = files.next().await {
//!     let staged = delivery.outcome.unwrap();
//!     names.push(delivery.request.name);
//!     assert!(staged.path.is_file());
//! }
//! assert_eq!(names, ["b", "a"]);
//! # });
//! ```
//!
//! # Guarantees
//!
//! A file appears under its final name only when it is whole: it grows as a part file in the folder's `.bulk`
//! subfolder, is checked, synced to disk and renamed. Memory does not grow with the plan or with the size of files.
//!
//! What is checked is the length that the server announces or else the listing gave, and the version: a request that
//! resumes a part carries `If-Match` where there is a strong ETag; its answer must have the same ETag and no other size,
//! and without an ETag the same time of modification; where the server gives neither, nothing is resumed. So two versions
//! never mix, as far as the server gives each of them another ETag or time.
//!
//! What is not checked is the content. Bytes that were altered on the way, at the server, or by someone in the folder
//! stay unnoticed as long as their number is right: ETags are opaque (RFC 9110, section 8.8.3), for S3 an MD5 at best by
//! chance, and other checksums are not asked for. TLS guards the way; the checksums of the compressed formats, which the
//! reader of the files verifies, guard the rest. A file that a reader finds damaged is fetched anew after
//! [`remove_staged`].
//!
//! One download at a time may use a folder; nothing keeps two processes from spoiling each other's parts.

mod download;
mod error;
mod etag;
mod event;
mod file_source;
mod http_source;
mod part;
mod retry;
mod source;

pub use download::{Delivery, Download, DownloadOptions, StagedFile, download};
pub use error::Error;
pub use etag::ETag;
pub use event::{Event, Observer};
pub use file_source::FileSource;
pub use http_source::{HttpClient, HttpSource};
pub use part::remove_staged;
pub use retry::{RetryPolicy, retry};
pub use source::{Body, Get, Request, Source};
