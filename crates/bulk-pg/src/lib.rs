//! Exactly-once bulk loading of CSV, NDJSON and COPY files into PostgreSQL.
//!
//! A [`Session`] is a connection set up for loading; [`load`] streams a file's decoded bytes through [`Records`] and
//! [`CopyText`] into COPY, and commits each chunk of rows together with its mark in the ledger ([`prepare_ledger`]), so
//! that a rerun goes on where the last one stopped. Around the data, a [`Schema`] is cut into a [`Plan`] of phases:
//! [`apply_pre_data`] makes tables before it, [`apply_post_data`] indexes, constraints, foreign keys, triggers and
//! sequences after it. [`Event`]s leave sideways to an [`Observer`].
//!
//! - *Load a file and compare*: [`Loader`]; without a runtime, [`BlockingLoader`].
//! - *The same step by step*: [`load()`], with [`LoadOptions`]; ask before fetching it with [`find_loaded`]; begin anew with
//!   [`restart`]; compare counts with [`count_rows`].
//! - *Load tables that have foreign keys and triggers*: [`drop_dependents`] or [`restart_with_plan`] before,
//!   [`apply_post_data`] after, which makes again what these have dropped; [`lock_mirror`] around it all. Or, without a
//!   plan: [`drop_indexes`] before, [`restore_dependents`] after.
//! - *Compare a table with what was loaded into it*: [`Verifier`], with [`LoadOptions::hash_content`].
//! - *Write rows of Rust values*: [`CopyWriter`]; without a runtime, [`BlockingCopyWriter`]. Read them: [`CopyReader`].
//! - *Load NDJSON, or what COPY wrote*: [`LoadOptions::input_format`].
//! - *Load a part of a file*: [`LoadOptions::columns`], [`LoadOptions::filter`] with [`Condition`]s, [`LoadOptions::limit`].
//! - *Load what is good of a file*: [`LoadOptions::max_rejects`], [`write_rejects`]; [`LoadOptions::repair`] makes text
//!   good that PostgreSQL cannot hold. Rows that refer to nothing: [`PostDataOptions::orphans`].
//! - *Make a table what a newer file says*: [`refresh()`]; of several tables, [`load()`] with [`LoadOptions::stage`], then
//!   [`merge_staged`]. Or load new tables beside the old ones, and have them take their places: [`prepare_swap`].
//! - *Read what has changed in a table*: [`ExportSnapshot`], with an [`ItemSource`] for each type of item.
//! - *Load what the calls of a crawl give, each once*: [`CrawlLoad`].
//! - *Make a table for a file*: [`Inference`] tells its columns' types, [`create_table`] makes it.
//! - *Tell a file's dialect*: [`detect`].
//! - *Read records without a database*: [`Records`].
//! - *Read a `pg_dump` schema*: [`Schema`].
//! - *Quote a name*: [`Ident`], [`TableName`]; nothing else does.
//!
//! # Example
//!
//! ```
//! use bulk_pg::{FileIdentity, Input, LoadOptions, Plain, Session, count_rows, load, prepare_ledger};
//!
//! # let server = bulk_testkit::postgres::shared().unwrap();
//! # let database = server.create_database("doc").unwrap();
//! # let url = database.url();
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! // Chunks go over several at once.
//! let mut sessions = [Session::connect(url).await?, Session::connect(url).await?];
//! let [session, _] = &sessions;
//! session.client().batch_execute("CREATE TABLE court (id text PRIMARY KEY, name text)").await.unwrap();
//! prepare_ledger(session).await?;
//!
//! let csv = &b"name,id\n\"Supreme Court\",\"scotus\"\n"[..];
//! let file = FileIdentity::new("courts.csv", Some("v1".to_owned()), csv.len() as u64);
//! let table = "court".parse().unwrap();
//! let open = move || Ok(Box::new(Plain(csv)) as Box<dyn Input>);
//! let loaded = load(&mut sessions, &table, &file, open, &LoadOptions::default()).await?;
//! assert_eq!((loaded.records, loaded.sent), (1, 1));
//!
//! // A second call finds it loaded, and does not read the file.
//! let loaded = load(&mut sessions, &table, &file, || unreachable!(), &LoadOptions::default()).await?;
//! assert_eq!((loaded.records, loaded.sent), (1, 0));
//! assert!(count_rows(&sessions[0], &table).await?.matches());
//! # Ok::<(), bulk_pg::Error>(())
//! # }).unwrap();
//! ```
//!
//! # Guarantees
//!
//! Rows of a chunk and its mark, which says what bytes of the file it has, commit in one transaction: after any crash the
//! same call gives the table that an undisturbed one would have given. A foreign key or trigger that is dropped
//! for a load is written down in the transaction that drops it, and comes back as it was with the next run that succeeds,
//! whatever schema that run has. No privilege beyond those of the tables' owner is needed. Memory does not grow with the
//! file.
//!
//! # Tracing
//!
//! With the feature `tracing`, what goes on is in spans of the crate of that name, of level DEBUG, for whoever has a
//! subscriber: `load` (of a `file` into a `table`), in it a `chunk` for each that is sent and committed, and a `definition`
//! for each index or constraint that is made.

mod binary_type;
mod blocking;
mod buffer;
mod canonical;
mod choice;
mod chunk;
mod chunk_content;
mod column;
mod condition;
mod conninfo;
mod content;
mod copy_binary;
mod copy_data;
mod copy_format;
mod copy_reader;
mod copy_text;
mod copy_writer;
mod counted;
mod crawl;
mod create_table;
mod cut;
mod dependents;
mod detect;
mod dialect;
mod difference;
mod drift;
mod dropped;
mod encode;
mod entangled;
mod error;
mod event;
mod existing;
mod export;
mod feed;
mod field;
mod first_line;
mod foreign_key;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod group;
mod header;
mod ident;
mod indexes;
mod infer;
mod inferred_table;
mod input;
mod input_format;
mod json;
mod json_column;
mod key;
mod ledger;
mod leftover;
mod lines;
mod load;
mod loader;
mod local_file;
mod merge;
mod mirror_lock;
mod misspelt;
mod ndjson;
mod opening;
mod orphans;
mod place;
mod position;
mod post_data;
mod pre_data;
mod reader;
mod received;
mod record;
mod record_error;
mod record_options;
mod records;
mod refresh;
mod rejects;
mod repair;
mod restart;
mod restore;
mod rows;
mod salvage;
mod scan;
mod schema;
mod sequences;
mod server_access;
mod session;
mod span;
mod stage;
mod staging;
mod statement;
mod swap;
mod table_lock;
mod text_lines;
mod tls;
mod tuples;
mod turns;
mod twin;
mod typed;
mod user_query;
mod value;
mod verifier;
mod verify;

pub use binary_type::BinaryType;
pub use blocking::{BlockingCopyWriter, BlockingLoader};
pub use condition::{Condition, InvalidCondition};
pub use content::Content;
pub use copy_binary::{CopyBinary, NoCopyBinary, Unencoded};
pub use copy_format::CopyFormat;
pub use copy_reader::{CopiedRow, CopyReader};
pub use copy_text::{CopyText, NoSuchField, Source};
pub use copy_writer::CopyWriter;
pub use crawl::{
    CallProgress, CallRows, CrawlJob, CrawlLoad, CrawlLoadOptions, CrawlMarks, CrawlMode, CrawlOutcome, CrawlTable,
    QuarantinedCall, write_call_rejects,
};
pub use crawl::{count_records, query_columns, query_records};
pub use create_table::{SqlType, create_table, table_exists};
pub use dependents::{drop_dependents, drop_foreign_keys};
pub use detect::{Attempt, Certainty, Undetected, Verdict, detect};
pub use dialect::{Dialect, InvalidDialect, Quoting, UnknownDialect};
pub use drift::Drift;
pub use error::{Cause, Error};
pub use event::{Event, Observer};
pub use export::{
    ExportSnapshot, ExportSnapshotOptions, ItemBatch, ItemDeletions, ItemJson, ItemQuery, ItemReader, ItemRow,
    ItemRows, ItemSource, Selection, Since, Unseen,
};
pub use field::Field;
pub use foreign_key::Orphans;
pub use header::Header;
pub use ident::{Ident, IdentError, QualifiedName, TableName, quote_literal};
pub use indexes::drop_indexes;
pub use infer::{Inference, InferredType, infer};
pub use inferred_table::{InferredColumn, InferredTable};
pub use input::{Checkpoint, Input, Plain};
pub use input_format::{InputFormat, UnknownInputFormat};
pub use ledger::{FileIdentity, in_own_schema, prepare_ledger, settle, unfinished, unsettled};
pub use load::{Checksum, LoadOptions, Loaded, find_loaded, load};
pub use loader::{Loader, LoaderOutcome};
pub use merge::{Merged, merge_staged};
pub use mirror_lock::lock_mirror;
pub use orphans::{KeptOrphans, OrphanPolicy, RejectedOrphans};
pub use position::Position;
pub use post_data::{
    HeadStart, PostData, PostDataOptions, apply_post_data, has_dropped, make_indexes, restore_dependents,
};
pub use pre_data::{PreData, Refused, apply_pre_data};
pub use record::Record;
pub use record_error::{Contradiction, RecordError, RecordErrorKind};
pub use record_options::{Grammar, RecordOptions};
pub use records::Records;
pub use refresh::{Refreshed, find_refreshed, refresh};
pub use rejects::{RejectedRecord, RejectedRecords, find_rejects, write_rejects};
pub use restart::{restart, restart_with_plan};
pub use restore::NotRestored;
pub use schema::{
    ColumnDefinition, Constraint, ConstraintKind, Definition, DefinitionKind, ForeignKey, IdentityKind, LeftOut,
    LeftOutReason, Need, Phase, Plan, Schema, SchemaError, TableDefinition,
};
pub use sequences::{RaisedSequences, raise_sequences};
pub use server_access::{ServerAccess, server_access};
pub use session::Session;
pub use stage::{LoadStage, WorkerState};
pub use staging::is_staged;
pub use statement::{Construct, SplitError, Statement, StatementKind, split_statements};
pub use swap::{Swap, SwapOptions, drop_swapped, prepare_swap, swap};
pub use table_lock::lock_table;
pub use verifier::{ContentVerdict, UnknownVerification, Verification, Verified, Verifier};
pub use verify::{Count, count_rejects, count_rows, has_rows};

/// The program of the crate's page.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
