use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

/// Mirrors huge public data sets into PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "bulk", version, max_term_width = 100, after_help = EXIT_STATUS)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
}

const EXIT_STATUS: &str = "\
Exit status:
  0  all done                          5  the disk is full
  1  failed                            6  not allowed: credentials or permissions
  2  wrong usage or configuration      7  verification found a difference
  3  finished, but some items failed, are missing, or violate the schema
  4  the remote end failed; a later try may work
  130  stopped by Ctrl-C or SIGTERM: the first finishes what is in hand, the second stops at once

A second run of the same command goes on where the first one stopped.";

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Print one JSON event a line on stdout, and nothing else there.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say what would be done, and do nothing.
    #[arg(long, global = true)]
    pub(crate) dry_run: bool,
    /// Files fetched at once, each over one connection.
    #[arg(long, global = true, value_name = "N", default_value_t = 8, env = "BULK_JOBS")]
    pub(crate) jobs: usize,
    /// Write a report of the run to this file, as JSON: what was done, when, and how it ended.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Take settings from this TOML file: long flags as keys, at its top or in a table named as a command. Flags win
    /// over the environment (BULK_…), and that wins over the file.
    #[arg(long, global = true, value_name = "FILE", env = "BULK_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Print only warnings and errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print each step.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Cancelled by the first Ctrl-C: finish what is in hand, and begin nothing.
    #[arg(skip)]
    pub(crate) stop: CancellationToken,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List a data set, choose its newest good snapshot, fetch, load, index and verify it.
    Mirror(Mirror),
    /// Fetch the newest of each file of a bucket or folder, largest first.
    Fetch(Fetch),
    /// Load CSV files of any dialect into a table, exactly once.
    Load(Load),
    /// Show the main job on embedded parts: a PostgreSQL, an S3 server and an invented snapshot.
    Demo(Demo),
    /// Check database, bucket and disk, and say how to mend what fails.
    Doctor(Doctor),
}

impl Command {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Mirror(_) => "mirror",
            Self::Fetch(_) => "fetch",
            Self::Load(_) => "load",
            Self::Demo(_) => "demo",
            Self::Doctor(_) => "doctor",
        }
    }

    /// Whether it heeds [`Common::stop`]; the others have nothing to keep.
    pub(crate) fn is_resumable(&self) -> bool {
        matches!(self, Self::Mirror(_) | Self::Fetch(_) | Self::Load(_))
    }
}

/// Where a bucket is and who asks.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct BucketArguments {
    /// Base URL of an S3 server that is not AWS.
    #[arg(long, value_name = "URL", env = "BULK_ENDPOINT")]
    pub(crate) endpoint: Option<String>,
    /// Region of the bucket.
    #[arg(long, env = "BULK_REGION")]
    pub(crate) region: Option<String>,
    /// Do not sign requests. Without it the usual AWS variables are used, where a data set does not say otherwise.
    #[arg(long)]
    pub(crate) anonymous: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bulk mirror courtlistener --db postgresql://me@localhost/courts
  bulk mirror courtlistener --db URL --tables courts,dockets --date 2026-06-30
  bulk mirror my-data.toml --db URL --from file:///srv/snapshots")]
pub(crate) struct Mirror {
    /// A data set of the built-in catalogue (courtlistener), or a TOML file that describes one.
    #[arg(value_name = "DATASET")]
    pub(crate) dataset: String,
    /// The database: postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or libpq's key=value form.
    #[arg(long, value_name = "URL", env = "BULK_DB", hide_env_values = true)]
    pub(crate) db: String,
    /// Take the files from another place: s3://bucket/prefix or file:///folder.
    #[arg(long, value_name = "SOURCE")]
    pub(crate) from: Option<String>,
    /// Only these files, by base name (courts,dockets). Default: all of the data set.
    #[arg(long, value_delimiter = ',', value_name = "BASE,…")]
    pub(crate) tables: Vec<String>,
    /// The snapshot of this date. Default: the newest that is complete.
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub(crate) date: Option<jiff::civil::Date>,
    /// A schema file in place of the snapshot's.
    #[arg(long, value_name = "FILE")]
    pub(crate) schema: Option<PathBuf>,
    /// Where files wait for their turn. Each is removed when it is loaded.
    #[arg(long, value_name = "DIR", default_value = "bulk-files")]
    pub(crate) dir: PathBuf,
    /// Keep the files.
    #[arg(long)]
    pub(crate) keep_files: bool,
    /// Read all files as this dialect: A, B, C, D or csv. Default: told from each file.
    #[arg(long)]
    pub(crate) dialect: Option<bulk_pg::Dialect>,
    /// Give a column that the file lacks this value in every row.
    #[arg(long, value_name = "TABLE.COLUMN=VALUE")]
    pub(crate) fill: Vec<String>,
    /// Database connections: tables loaded and indexed at once.
    #[arg(long, value_name = "N", default_value_t = 2, env = "BULK_CONNECTIONS")]
    pub(crate) connections: usize,
    /// Empty the tables and load them anew.
    #[arg(long)]
    pub(crate) restart: bool,
    #[command(flatten)]
    pub(crate) bucket: BucketArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bulk fetch s3://com-courtlistener-storage/bulk-data/ --region us-west-2 --anonymous --out files
  bulk fetch https://example.org/data/big.csv.bz2 --out files")]
pub(crate) struct Fetch {
    /// s3://bucket/prefix, https://host/path, file:///folder, or a data set of the catalogue.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// The folder that the files go to.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) bucket: BucketArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bulk load courts-2026-06-30.csv.bz2 --db URL --table search_court
  bulk load a.csv b.csv.gz --db URL --table events --append")]
pub(crate) struct Load {
    /// CSV files with a header, plain or compressed.
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// The database: postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or libpq's key=value form.
    #[arg(long, value_name = "URL", env = "BULK_DB", hide_env_values = true)]
    pub(crate) db: String,
    /// The table, with its schema if that is not public.
    #[arg(long, value_name = "TABLE")]
    pub(crate) table: bulk_pg::TableName,
    /// Read the files as this dialect: A, B, C, D or csv. Default: told from each file.
    #[arg(long)]
    pub(crate) dialect: Option<bulk_pg::Dialect>,
    /// Give a column that the files lack this value in every row.
    #[arg(long, value_name = "COLUMN=VALUE")]
    pub(crate) fill: Vec<String>,
    /// Add to rows that the table has already.
    #[arg(long)]
    pub(crate) append: bool,
    /// Empty the table and load it anew.
    #[arg(long, conflicts_with = "append")]
    pub(crate) restart: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How much to invent: 1 is about 200 MB of CSV.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) scale: f64,
    /// Leave database and server running until Ctrl-C, and print their URLs.
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// A data set of the catalogue, or a TOML file that describes one.
    #[arg(value_name = "DATASET", default_value = "courtlistener")]
    pub(crate) dataset: String,
    /// The database: postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or libpq's key=value form.
    #[arg(long, value_name = "URL", env = "BULK_DB", hide_env_values = true)]
    pub(crate) db: Option<String>,
    /// The folder that files would wait in.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) bucket: BucketArguments,
}
