//! What `bulk list` and `bulk diff` are asked for, and what other commands about keys have in common with them.

use std::path::PathBuf;

use bulk_s3::Compare;
use clap::{Args, ValueEnum};

use super::{BucketArguments, number};

const KEYS: &str = "Which keys";
const LISTING: &str = "Where the listing comes from";
const STORE: &str = "What is known";
const CHECKPOINT: &str = "How far it is";

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
    #[command(flatten)]
    pub(crate) listing: ListingArguments,
}

/// Where a listing comes from, if the bucket is not asked.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = LISTING)]
pub(crate) struct ListingArguments {
    /// Take the listing from this file, which `bulk list` has written, and do not list the bucket; more than once: all of
    /// them are one listing. What a file is, NDJSON, CSV or Parquet, its content says, also through gzip.
    #[arg(long, value_name = "FILE", conflicts_with = "inventory")]
    pub(crate) listing: Vec<PathBuf>,
    /// Take the listing from an S3 Inventory, and do not list the bucket: s3://bucket/…/manifest.json, or a copy in a folder.
    /// Its files are compared with the checksums of the manifest.
    #[arg(long, value_name = "MANIFEST")]
    pub(crate) inventory: Option<String>,
}

/// Where objects are written, and how.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct OutputArguments {
    /// How objects are written. Default: as the name of --out ends (.csv, .parquet), else ndjson.
    #[arg(long, value_name = "FORMAT", env = "BULK_LIST_FORMAT")]
    pub(crate) format: Option<ListFormat>,
    /// Write to this file, which appears under its name only whole. Default: standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// Where it is kept how far a comparison has come.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = CHECKPOINT)]
pub(crate) struct CheckpointArguments {
    /// Keep in this file how far the comparison has come, and go on from it if it is there. It is removed in the end.
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Begin anew, whatever the checkpoint says.
    #[arg(long)]
    pub(crate) restart: bool,
    /// Begin behind the key that Buildhub's own backfill was done with, as its file says: {"key", "loops", "time"}.
    #[arg(long, value_name = "FILE")]
    pub(crate) since_checkpoint: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  All keys below a prefix, sorted, a JSON object a line:
    bulk list s3://bucket/builds/ --anonymous
  Those with a suffix, as they come, into a file of another format:
    bulk list s3://bucket --suffix buildhub.json --unsorted --out builds.parquet
  The same from the bucket's last inventory, without asking the bucket:
    bulk list s3://bucket --inventory s3://reports/bucket/daily/2026-11-06T21-32Z/manifest.json
  A listing in another format:
    bulk list s3://bucket --listing builds.parquet --out builds.csv
  All versions and deletion marks of the objects below a prefix:
    bulk list s3://bucket/builds/ --versions

Each line of NDJSON has key, etag, size and last_modified, of which the last three are left out where the bucket does not
say them; with --versions also version, is_latest and delete_marker. CSV and Parquet have the columns bucket,
key, etag, size, last_modified and content: as `bulk known export` has them, where content is a SHA-256. A
listing has none, unless --listing brings it along.
`bulk --help` tells what the exit status means.")]
pub(crate) struct List {
    /// s3://bucket/prefix, or a data set of the catalogue (courtlistener), or a TOML file that describes one.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
    /// Write objects as they come, and not in the order of their keys: nothing waits for what sorts before it.
    #[arg(long)]
    pub(crate) unsorted: bool,
    /// List all versions of each object, the latest first, and the marks of deletions, as NDJSON. One page is asked for
    /// after another.
    #[arg(long, conflicts_with_all = ["unsorted", "listing", "inventory"])]
    pub(crate) versions: bool,
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
    #[arg(long, value_name = "STORE", env = "BULK_KNOWN", hide_env_values = true)]
    pub(crate) known: Option<String>,
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

/// What is compared with what, and how.
#[derive(Debug, Args)]
pub(crate) struct ComparisonArguments {
    /// s3://bucket/prefix, or a data set of the catalogue (courtlistener), or a TOML file that describes one.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// What makes an object another one: etag, size, mtime (both by the server's clock), or etag+size.
    #[arg(long, value_name = "HOW", default_value = "etag", env = "BULK_COMPARE")]
    pub(crate) compare: Compare,
    #[command(flatten)]
    pub(crate) checkpoint: CheckpointArguments,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    #[command(flatten)]
    pub(crate) keys: KeyArguments,
    #[command(flatten)]
    pub(crate) bucket: BucketArguments,
}

#[derive(Debug, Args)]
#[command(mut_arg("known", |known| known.required(true)), after_help = "\
Examples:
  What a bucket has that a store has not, or has otherwise, and what is gone:
    bulk diff s3://bucket/builds/ --anonymous --known sqlite:known.db
  Against a table of your own:
    bulk diff s3://bucket --suffix buildhub.json --known postgresql://me@localhost/buildhub \\
      --known-table builds --key-column s3_object_key --etag-column s3_object_etag
  In pieces: a run that was ended goes on where it was, and its output is appended:
    bulk diff s3://bucket --known sqlite:known.db --checkpoint diff.checkpoint >> changes.ndjson

Each line is a change: added, modified (with what it was before) or removed. Nothing is changed in the store.
`bulk --help` tells what the exit status means.")]
pub(crate) struct Diff {
    /// What is said of objects that are known and gone: report (each of them), or ignore.
    #[arg(long, value_name = "HOW", default_value = "report")]
    pub(crate) deletions: Deletions,
    /// Write changes as they are found, and not in the order of their keys.
    #[arg(long)]
    pub(crate) unsorted: bool,
    #[command(flatten)]
    pub(crate) comparison: ComparisonArguments,
}

/// What is said of objects that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Deletions {
    Report,
    Ignore,
}
