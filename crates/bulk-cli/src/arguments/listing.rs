//! What `bulk list` and `bulk diff` are asked for.

use std::path::PathBuf;

use bulk_s3::Compare;
use clap::{Args, ValueEnum};

use super::{BucketArguments, number};

const KEYS: &str = "Which keys";
const STORE: &str = "What is known";

/// Which keys of a bucket are meant.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = KEYS)]
pub(crate) struct KeyArguments {
    /// Only keys that end with this; more than once: with one of them.
    #[arg(long, value_name = "TEXT")]
    pub(crate) suffix: Vec<String>,
    /// Only keys that match this glob, as they stand below the prefix's last `/`; more than once: one of them. `*` matches
    /// `/`, too.
    #[arg(long, value_name = "GLOB")]
    pub(crate) include: Vec<String>,
    /// No keys that match this glob.
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Only whole keys in which this regular expression matches somewhere; more than once: all of them.
    #[arg(long, value_name = "REGEX")]
    pub(crate) regex: Vec<String>,
    /// Pages of the listing asked for at a time, over the whole key space, which is cut while it is listed.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = number, env = "BULK_LISTERS")]
    pub(crate) listers: usize,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  All keys below a prefix, sorted, a JSON object a line:
    bulk list s3://bucket/builds/ --anonymous
  Those with a suffix, as they come, into a file of another format:
    bulk list s3://bucket --suffix buildhub.json --unsorted --format parquet --out builds.parquet

Each line has key, etag, size and last_modified. A file appears under its name only whole.
`bulk --help` tells what the exit status means.")]
pub(crate) struct List {
    /// s3://bucket/prefix, or file:///folder.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// How objects are written.
    #[arg(long, value_name = "FORMAT", default_value = "ndjson", env = "BULK_LIST_FORMAT")]
    pub(crate) format: ListFormat,
    /// Write to this file. Default: standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Write objects as they come, and not in the order of their keys: nothing waits for what sorts before it.
    #[arg(long)]
    pub(crate) unsorted: bool,
    #[command(flatten)]
    pub(crate) keys: KeyArguments,
    #[command(flatten)]
    pub(crate) bucket: BucketArguments,
}

/// How a listing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    /// A JSON object a line.
    Ndjson,
    /// With a header.
    Csv,
    /// Needs --out.
    Parquet,
}

/// Where known objects are.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = STORE)]
pub(crate) struct StoreArguments {
    /// The store of known objects: sqlite:FILE, or postgresql://… for a table there. A password is better in
    /// ~/.pgpass.
    #[arg(long, value_name = "STORE", env = "BULK_KNOWN")]
    pub(crate) known: String,
    /// The table of known objects, such as one of your own. Default: bulk.known_object, which is made.
    #[arg(long, value_name = "TABLE", requires = "key_column", requires = "etag_column")]
    pub(crate) known_table: Option<String>,
    /// The column of the keys in that table.
    #[arg(long, value_name = "COLUMN", requires = "known_table")]
    pub(crate) key_column: Option<String>,
    /// The column of the ETags.
    #[arg(long, value_name = "COLUMN", requires = "known_table")]
    pub(crate) etag_column: Option<String>,
    /// The column of the bucket's name. Default: all rows are of this bucket.
    #[arg(long, value_name = "COLUMN", requires = "known_table")]
    pub(crate) bucket_column: Option<String>,
    /// The column of sizes in bytes.
    #[arg(long, value_name = "COLUMN", requires = "known_table")]
    pub(crate) size_column: Option<String>,
    /// The column of the times of modification.
    #[arg(long, value_name = "COLUMN", requires = "known_table")]
    pub(crate) mtime_column: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  What a bucket has that a store has not, or has otherwise, and what is gone:
    bulk diff s3://bucket/builds/ --anonymous --known sqlite:known.db
  Against a table of your own:
    bulk diff s3://bucket --suffix buildhub.json --known postgresql://me@localhost/buildhub \
      --known-table builds --key-column s3_object_key --etag-column s3_object_etag
  In pieces: a run that was ended goes on where it was, and its output is appended:
    bulk diff s3://bucket --known sqlite:known.db --checkpoint diff.checkpoint >> changes.ndjson

Each line is a change: added, modified (with what it was before) or removed. Nothing is changed in the store.
`bulk --help` tells what the exit status means.")]
pub(crate) struct Diff {
    /// s3://bucket/prefix.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// What makes an object another one: etag, size, mtime (both by the server's clock), or etag+size.
    #[arg(long, value_name = "HOW", default_value = "etag", env = "BULK_COMPARE")]
    pub(crate) compare: Compare,
    /// What is said of objects that are known and gone: report (each of them), or ignore.
    #[arg(long, value_name = "HOW", default_value = "report")]
    pub(crate) deletions: Deletions,
    /// Write changes as they are found, and not in the order of their keys.
    #[arg(long)]
    pub(crate) unsorted: bool,
    /// Keep in this file how far the comparison has come, and go on from it if it is there. It is removed in the end.
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Begin anew, whatever the checkpoint says.
    #[arg(long, requires = "checkpoint")]
    pub(crate) restart: bool,
    /// Begin behind the key that Buildhub's own backfill was done with, as its file says: {"key", "loops", "time"}.
    #[arg(long, value_name = "FILE")]
    pub(crate) since_checkpoint: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    #[command(flatten)]
    pub(crate) keys: KeyArguments,
    #[command(flatten)]
    pub(crate) bucket: BucketArguments,
}

/// What is said of objects that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Deletions {
    Report,
    Ignore,
}
