//! Objects in S3 and in whatever speaks its protocol: listings of any length, a [`Source`](bulk_core::Source) for
//! [`bulk_core::download`], and the choice of a snapshot among dated files.
//!
//! A [`Bucket`] is an endpoint, a name and credentials. [`Bucket::list`] streams [`Object`]s page by page;
//! [`choose_snapshot`] picks, among objects with dates in their names, the newest date at which everything wanted is
//! there and none of it is a placeholder; the bucket itself is the source that fetches them.
//!
//! ```
//! use bulk_s3::{Object, Wanted, choose_snapshot};
//!
//! let listing = [
//!     Object::new("bulk-data/courts-2026-03-31.csv.bz2", 80_000),
//!     Object::new("bulk-data/dockets-2026-03-31.csv.bz2", 5_000_000_000),
//!     Object::new("bulk-data/schema-2026-04-01.sql", 140_000),
//!     Object::new("bulk-data/courts-2026-06-30.csv.bz2", 81_000),
//!     Object::new("bulk-data/dockets-2026-06-30.csv.bz2", 14), // a failed export
//! ];
//! let snapshot = choose_snapshot(listing, &Wanted::new(["courts", "dockets"])).unwrap();
//! assert_eq!(snapshot.date.to_string(), "2026-03-31");
//! assert_eq!(snapshot.schema.unwrap().key, "bulk-data/schema-2026-04-01.sql");
//! assert_eq!(snapshot.passed_over[0].to_string(), "2026-06-30: dockets is a placeholder of 14 bytes");
//! ```
//!
//! What was dealt with before is in a store of [`KnownObjects`]: [`MemoryKnown`], `SqliteKnown` (feature `sqlite`) or
//! `PostgresKnown` (feature `postgres`), which may be any table of the user's. [`import_known`] and [`export_known`] move
//! it from and to files: CSV, NDJSON, and Parquet (feature `parquet`).
//!
//! A listing may come from elsewhere than the bucket: [`file_pages`] reads files of objects, and [`Inventory`] what S3
//! Inventory has written; [`diff_pages`] takes either in place of [`Bucket::pages`]. Where the bucket is listed,
//! [`split_ranges`] cuts it by what is known, so that all connections have work at once.
//!
//! [`sync()`] fetches what [`diff_pages`] found, gives it to a [`Sink`] ([`FolderSink`], [`LinesSink`], or `TableSink` with
//! feature `postgres`) and marks it known, in the same transaction where sink and store share a database.
//!
//! The other way, [`compare_set`] finds what a prefix lacks of a [`FileSet`], such as a folder of archives with their manifest,
//! and [`SetPlan::upload`] brings it there, so that readers can tell a whole set.
//!
//! Keys are UTF-8 of up to 1,024 bytes and are kept as they are: `a//b`, a leading `/`, `+`, `%` and control characters
//! included. A listing asks for `encoding-type=url`, so that XML can carry them all.
//!
//! # Tracing
//!
//! With the feature `tracing`, what goes on is in spans of the crate of that name, of level DEBUG, for whoever has a
//! subscriber: `page` (its `prefix`) for each that is asked for, `store` (how many `objects`) for each batch of a sync, and
//! those of [`bulk_core`].

mod batch;
mod bucket;
mod checkpoint;
mod chunks;
#[cfg(feature = "conformance")]
pub mod conformance;
mod counted;
mod diff;
mod error;
mod file_set;
mod filter;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gauge;
mod in_order;
mod inventory;
mod key_range;
mod known;
mod list;
mod lister;
mod listing_file;
mod object;
mod object_sorter;
mod page;
mod pager;
mod ranges;
mod removals;
mod rows;
mod snapshot;
mod span;
mod split_ranges;
mod stretch_diff;
mod sync;
mod upload;
mod upload_answer;
mod upload_note;
mod upload_plan;
mod versions;

pub use batch::{Batch, ObjectRef};
pub use bucket::{Bucket, BucketOptions, Credentials};
pub use checkpoint::{Checkpoint, Counts, Job};
pub use diff::{Change, Compare, Diff, OutOfOrder, UnknownCompare, diff};
pub use error::Error;
pub use file_set::{
    FileSet, FileSetManifest, ReadManifest, SetEvent, SetFile, SetOptions, SetPlan, Uploaded, compare_set,
};
pub use filter::{InvalidFilter, KeyFilter};
pub use in_order::in_order;
pub use inventory::{Inventory, InventoryOptions};
pub use key_range::KeyRange;
pub use known::{Imported, KnownChange, KnownObjects, MemoryKnown, export_known, import_known};
#[cfg(feature = "postgres")]
pub use known::{KnownTable, PostgresKnown, PostgresOptions, RowPolicy};
#[cfg(feature = "sqlite")]
pub use known::{SqliteKnown, SqliteOptions};
pub use lister::{ListOptions, Page, Pages};
pub use listing_file::{FileListOptions, RowOrder, file_pages, open_objects};
pub use object::Object;
pub use rows::{CsvReader, CsvWriter, NdjsonReader, NdjsonWriter, ObjectReader, ObjectWriter};
#[cfg(feature = "parquet")]
pub use rows::{ParquetReader, ParquetWriter};
pub use snapshot::{
    BadPattern, DatePattern, DatedName, Lack, PassedOver, Snapshot, Wanted, choose_snapshot, is_placeholder,
    newest_of_each,
};
pub use split_ranges::split_ranges;
pub use stretch_diff::{DiffOptions, StretchDiff, StretchDiffs, diff_pages};
#[cfg(feature = "postgres")]
pub use sync::{BodyType, PathColumn, TableOptions, TableSink, UnknownBodyType};
pub use sync::{
    Deletions, FolderSink, LinesSink, QuarantineReason, Quarantined, Refusal, Sink, SinkBatch, SyncCounts, SyncOptions,
    SyncRun, SyncStep, SyncedObject, key_of_path, path_of_key, sync,
};
pub use versions::ObjectVersion;

/// The program of the crate's page.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
