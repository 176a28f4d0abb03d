//! What `bulk sync` and `bulk known` are asked for.

use std::path::PathBuf;

use bulk_pg::{Ident, TableName};
use bulk_s3::{BodyType, PathColumn};
use clap::{Args, Subcommand, ValueEnum};

use super::{ComparisonArguments, DatabaseUrl, GoalArguments, OutputArguments, StoreArguments, segment};

const TARGET: &str = "Where objects go";

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  A folder with a file for each object; what is known of them is kept in its subfolder .bulk:
    bulk sync s3://bucket/builds/ --anonymous --out builds
  The same command again fetches what has changed since; so does it after whatever ended it:
    bulk sync s3://bucket/builds/ --anonymous --out builds
  JSON documents into a table (key, etag, body), marked known in the same transactions:
    bulk sync s3://bucket --suffix buildhub.json --table build \\
      --db postgresql://me@localhost/buildhub
  Some values of each document in columns of their own, and not the whole of it:
    bulk sync s3://bucket --suffix buildhub.json --table build --db URL --body none \\
      --column 'product=$.source.product' --column 'size:bigint=$.download.size'
  What that would fetch, and nothing done:
    bulk sync s3://bucket --suffix buildhub.json --db URL --table build --dry-run
  What is gone from the bucket is removed from the table, too:
    bulk sync s3://bucket --suffix buildhub.json --db URL --table build --deletions apply
  For a program of your own, a JSON object a line:
    bulk sync s3://bucket --suffix buildhub.json --known sqlite:known.db --stdout | ./take
  By last night's inventory, without listing the bucket:
    bulk sync s3://bucket --out builds \\
      --inventory s3://reports/bucket/daily/2026-11-06T21-32Z/manifest.json

Without --known, what a folder has is known in its .bulk/known.db, and what a table has in
bulk.known_object of its database, so that an object and its mark are committed together. Without
--checkpoint, how far a run has come is kept in the folder's .bulk, beside the SQLite file of
--known, or below XDG_STATE_HOME; it only spares the next run a part of the listing.

An object is marked known when it is stored for good, so that no run fetches it again until it
changes. One that cannot be fetched or stored is named, counted, and tried again by the next run;
the exit status is 3 then.
`bulk --help` tells what the exit status means.")]
pub(crate) struct Sync {
    /// What becomes of objects that are known and gone from the listing: report (each is said, and stays), apply (they are
    /// removed and known no more; a --listing from a file lacks what came since), or ignore.
    #[arg(long, value_name = "HOW", default_value = "report")]
    pub(crate) deletions: SyncDeletions,
    /// Hold objects of so many bytes in memory: those that are being fetched, wait, or are being stored. A larger one is left
    /// out.
    #[arg(long, value_name = "SIZE", value_parser = segment, default_value = "64MiB", env = "BULK_MEMORY")]
    pub(crate) memory: u64,
    #[command(flatten)]
    pub(crate) target: TargetArguments,
    #[command(flatten)]
    pub(crate) goal: GoalArguments,
    #[command(flatten)]
    pub(crate) comparison: ComparisonArguments,
}

/// Where fetched objects go: one of these.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = TARGET)]
pub(crate) struct TargetArguments {
    /// Into this folder, as files: the / of a key are those of the path, and what no file system takes is
    /// percent-encoded.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["table", "stdout"])]
    pub(crate) out: Option<PathBuf>,
    /// Into this table of --db, a row for each object: key, etag, body. It is made if it is not there; it may have more
    /// columns, which get their defaults.
    #[arg(long, value_name = "TABLE", conflicts_with = "stdout")]
    pub(crate) table: Option<TableName>,
    /// To standard output, a JSON object a line: key, etag, size, and body, or body_base64 if that is no JSON. Marked known is
    /// what this program has written: whoever reads it has to see that it lasts. Needs --known.
    #[arg(long)]
    pub(crate) stdout: bool,
    #[command(flatten)]
    pub(crate) database: DatabaseUrl,
    /// The type of the column body: jsonb, bytea, or text, or none for a table without it. What cannot be of that type is left
    /// out.
    #[arg(long, value_name = "TYPE", default_value = "jsonb", env = "BULK_BODY")]
    pub(crate) body: BodyType,
    /// A column of the table that is filled from within the body, such as version=$.target.version or
    /// size:bigint=$.download.size: the first item that the SQL/JSON path finds. The type counts where the table is made;
    /// default: text. More than once: several of them.
    #[arg(long, value_name = "NAME[:TYPE]=PATH", value_parser = path_column, requires = "table")]
    pub(crate) column: Vec<PathColumn>,
}

/// `NAME[:TYPE]=PATH`.
fn path_column(text: &str) -> Result<PathColumn, String> {
    let (column, path) = text.split_once('=').ok_or("it is NAME=PATH or NAME:TYPE=PATH")?;
    let (name, data_type) = column.split_once(':').map_or((column, None), |(name, data_type)| (name, Some(data_type)));
    let name = Ident::new(name).map_err(|error| error.to_string())?;
    let mut column = PathColumn::new(name, path);
    if let Some(data_type) = data_type {
        data_type.clone_into(&mut column.data_type);
    }
    Ok(column)
}

/// What becomes of objects that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SyncDeletions {
    Report,
    Apply,
    Ignore,
}

#[derive(Debug, Args)]
pub(crate) struct Known {
    #[command(subcommand)]
    pub(crate) action: KnownAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KnownAction {
    /// Make known what a file has.
    Import(Import),
    /// Write what is known to a file, in the order of the keys.
    Export(Export),
}

#[derive(Debug, Args)]
#[command(mut_arg("known", |known| known.required(true)), after_help = "\
Examples:
  What another program has fetched already, as it says (columns key and etag will do):
    bulk known import s3://bucket fetched.csv --known sqlite:known.db
  All that a listing has, so that only what changes from now on is fetched:
    bulk list s3://bucket --out now.parquet
    bulk known import s3://bucket now.parquet --known postgresql://me@localhost/buildhub

What is known already stays; where the file has it, too, it is known as the file has it. Doing it
again does no harm.")]
pub(crate) struct Import {
    /// s3://bucket: whose objects they are. A data set of the catalogue stands for the bucket that it is in.
    #[arg(value_name = "BUCKET")]
    pub(crate) source: String,
    /// NDJSON, CSV or Parquet, as its content says, also through gzip. Of bucket, key, etag, size, last_modified and content
    /// (SHA-256) only key must be there. Rows that name other buckets are passed over.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
}

#[derive(Debug, Args)]
#[command(mut_arg("known", |known| known.required(true)), after_help = "\
Examples:
  bulk known export s3://bucket --known sqlite:known.db --out known.parquet
  bulk known export s3://bucket --known sqlite:known.db | head")]
pub(crate) struct Export {
    /// s3://bucket: whose objects are written. A data set of the catalogue stands for the bucket that it is in.
    #[arg(value_name = "BUCKET")]
    pub(crate) source: String,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
}
