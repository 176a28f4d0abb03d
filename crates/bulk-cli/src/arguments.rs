mod crawl;
mod export;
mod goal;
mod listing;
mod manual;
mod report;
mod sync;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulk_core::{DiskBudget, DownloadOptions};
use bulk_pg::Session;
use bulk_s3::DatePattern;
use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;

pub(crate) use self::crawl::CrawlArguments;
pub(crate) use self::export::ExportArguments;
pub(crate) use self::goal::GoalArguments;
pub(crate) use self::listing::{
    CheckpointArguments, ComparisonArguments, Deletions, Diff, KeyArguments, List, ListFormat, OutputArguments,
    StoreArguments,
};
pub(crate) use self::manual::{CompletionsArguments, ManArguments};
pub(crate) use self::report::ReportArguments;
pub(crate) use self::sync::{Export, Import, Known, KnownAction, Sync, SyncDeletions, TargetArguments};
use crate::exit::Failure;

/// Moves bulk data sets: into PostgreSQL, out of it, and between buckets and folders.
#[derive(Debug, Parser)]
#[command(name = "bulk", version, long_version = LONG_VERSION, max_term_width = 100, after_help = EXIT_STATUS)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What `--version` says; `-V` says the first line.
const LONG_VERSION: &str = if cfg!(feature = "postgres-download") {
    concat!(
        env!("CARGO_PKG_VERSION"),
        "\nfeatures: postgres-download (bulk demo fetches a server where none is installed)"
    )
} else {
    concat!(env!("CARGO_PKG_VERSION"), "\nfeatures: none (bulk demo wants an installed PostgreSQL)")
};

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
#[command(next_help_heading = "With every command")]
pub(crate) struct Common {
    /// Print one JSON event a line on stdout, and nothing else there.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say what would be done, and do nothing.
    #[arg(long, global = true)]
    pub(crate) dry_run: bool,
    /// Connections to the source: requests under way at once. Several serve one large file, each a stretch of it. Default:
    /// 8, and 64 for the small objects of a sync.
    #[arg(long, global = true, value_name = "N", value_parser = number, env = "BULK_JOBS")]
    jobs: Option<usize>,
    /// Write a report of the run to this file, as JSON: what was done, when, how it ended, and what bound it. `bulk report`
    /// shows it.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Say what the run's stages do, and what binds, to whoever asks over HTTP, as Prometheus does: at /metrics of this
    /// address, such as 127.0.0.1:9000. A port alone is one of 127.0.0.1, which other machines do not reach. Where it is the
    /// environment or a file that says so and the address cannot be had, the run goes on without.
    #[arg(long, global = true, value_name = "ADDRESS:PORT", value_parser = crate::metrics::address, env = "BULK_METRICS")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Whether the command line says so, rather than the environment or a file.
    #[arg(skip)]
    pub(crate) is_metrics_said: bool,
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

impl Common {
    /// Requests under way at once, of large files.
    pub(crate) fn jobs(&self) -> usize {
        self.jobs.unwrap_or(8)
    }

    /// The same of small objects, which take a round trip each and little else.
    pub(crate) fn jobs_of_small(&self) -> usize {
        self.jobs.unwrap_or(64)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List a data set, choose its newest good snapshot, fetch, load, index and verify it.
    Mirror(Mirror),
    /// Fetch the files of a bucket, folder or URL in order, check them, and extract them.
    Fetch(Fetch),
    /// Load CSV of any dialect into a table, exactly once: files, standard input, URLs, objects of buckets.
    Load(Load),
    /// List the keys of a bucket over many connections at once, as NDJSON, CSV or Parquet.
    List(List),
    /// Compare a bucket with the objects that are known: what was added, modified, removed.
    Diff(Diff),
    /// Fetch what changed in a bucket into a folder or a table, and mark it known.
    Sync(Sync),
    /// Write known objects to a file, or take them from one.
    Known(Known),
    /// Export rows as JSON into a tar.gz for each group of them, at the price of what has changed.
    Export(ExportArguments),
    /// Ask a rate-limited API for each record of an input, at exactly the permitted rate, and load what it answers.
    Crawl(CrawlArguments),
    /// Show what a run has written of itself with --report: as text, as a page, or compared with another run.
    Report(ReportArguments),
    /// Show the main job on embedded parts: a PostgreSQL, an S3 server and an invented snapshot.
    Demo(Demo),
    /// Check database, buckets, specs, disk and limits, and say how to mend what fails.
    Doctor(Doctor),
    /// Print what a shell needs to complete commands and flags.
    Completions(CompletionsArguments),
    /// Print a page of the manual, or write all of them.
    Man(ManArguments),
}

impl Command {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Mirror(_) => "mirror",
            Self::Fetch(_) => "fetch",
            Self::Load(_) => "load",
            Self::List(_) => "list",
            Self::Diff(_) => "diff",
            Self::Sync(_) => "sync",
            Self::Known(_) => "known",
            Self::Export(_) => "export",
            Self::Crawl(_) => "crawl",
            Self::Report(_) => "report",
            Self::Demo(_) => "demo",
            Self::Doctor(_) => "doctor",
            Self::Completions(_) => "completions",
            Self::Man(_) => "man",
        }
    }

    /// Whether it does anything that may be metered.
    pub(crate) fn is_metered(&self) -> bool {
        !matches!(self, Self::Report(_) | Self::Doctor(_) | Self::Completions(_) | Self::Man(_))
    }

    /// What it does when [`Common::stop`] is cancelled; nothing if it does not heed that, since it has nothing to keep.
    pub(crate) fn when_stopped(&self) -> Option<&'static str> {
        match self {
            Self::Mirror(_) | Self::Fetch(_) | Self::Load(_) | Self::List(_) | Self::Diff(_) | Self::Sync(_) => {
                Some("what is in hand is finished and kept")
            }
            Self::Crawl(_) => Some("what has been answered is kept"),
            Self::Export(_) => Some("nothing is published, unless it is already"),
            Self::Known(_)
            | Self::Report(_)
            | Self::Demo(_)
            | Self::Doctor(_)
            | Self::Completions(_)
            | Self::Man(_) => None,
        }
    }
}

const DISK: &str = "Disk and network";
const ROWS: &str = "Which rows and columns";
const REJECTS: &str = "Bad records and rows";
const CHOICE: &str = "Which files, and their order";

/// Where a bucket is and who asks.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "The bucket")]
pub(crate) struct BucketArguments {
    /// Base URL of an S3 server that is not AWS.
    #[arg(long, value_name = "URL", env = "BULK_ENDPOINT")]
    pub(crate) endpoint: Option<String>,
    /// Region of the bucket.
    #[arg(long, env = "BULK_REGION")]
    pub(crate) region: Option<String>,
    /// Do not sign requests, as public buckets want it. Without it they are signed with the credentials of the usual AWS
    /// variables, a web identity, the container or the instance, unless the data set says that its bucket is public.
    /// Profiles of ~/.aws are not read: `aws configure export-credentials --format env` prints one as variables.
    #[arg(long)]
    pub(crate) anonymous: bool,
    /// Pay for the requests, as buckets want it whose owners do not.
    #[arg(long)]
    pub(crate) requester_pays: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  What would be loaded, and nothing done:
    bulk mirror courtlistener --db postgresql://me@localhost/courts --dry-run
  All of it; the same command again goes on where it stopped:
    bulk mirror courtlistener --db postgresql://me@localhost/courts
  Two tables, as they were at a date:
    bulk mirror courtlistener --db URL --tables courts,dockets --date 2026-06-30
  On a disk that is smaller than the largest file:
    bulk mirror courtlistener --db URL --no-files --window 2GiB
  A part of it:
    bulk mirror courtlistener --db URL --tables courts,dockets \\
      --where search_docket.court_id=scotus --columns courts=id,full_name --limit 1000
  A data set of your own, from a folder:
    bulk mirror my-data.toml --db URL --from file:///srv/snapshots

`bulk --help` tells what the exit status means.")]
pub(crate) struct Mirror {
    /// A data set of the built-in catalogue (courtlistener), or a TOML file that describes one.
    #[arg(value_name = "DATASET")]
    pub(crate) dataset: String,
    #[command(flatten)]
    pub(crate) database: DatabaseArguments,
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
    /// Where files are kept while they arrive and are loaded, so that whatever ends a run, the next one goes on with what
    /// is there. Each is removed when all of it is loaded.
    #[arg(long, value_name = "DIR", default_value = "bulk-files", help_heading = DISK)]
    pub(crate) dir: PathBuf,
    /// Keep the files when they are loaded, too, with a manifest.json that `bulk fetch --verify` checks them against.
    #[arg(long, conflicts_with = "no_files", help_heading = DISK)]
    pub(crate) keep_files: bool,
    /// Keep no file at all: bytes leave the disk as they are loaded, so that a file of any size needs no more room than
    /// --window and some MiB. The price: a run that was stopped or killed in the middle of a file has the next one fetch
    /// it again.
    #[arg(long, conflicts_with = "keep_files", help_heading = DISK)]
    pub(crate) no_files: bool,
    /// Which file comes first: by size, by name, as listed, or as a file says that has a base name or key a line (what it
    /// does not name comes last); each with :asc or :desc behind it. Files are loaded in this order, and fetched ahead of it:
    /// from the smallest on, the many rows and indexes of small files are made while the largest one is still fetched.
    #[arg(long, value_name = "ORDER", default_value = "size:asc", env = "BULK_ORDER", help_heading = DISK)]
    pub(crate) order: String,
    /// Read all files as this dialect: A, B, C, D or csv. Default: told from each file.
    #[arg(long)]
    pub(crate) dialect: Option<bulk_pg::Dialect>,
    /// Give a column that the file lacks this value in every row.
    #[arg(long, value_name = "TABLE.COLUMN=VALUE")]
    pub(crate) fill: Vec<String>,
    /// Load only these columns of a table's file. Can be given again, for other tables, too. TABLE is the name of the table
    /// or of its file.
    #[arg(long, value_name = "TABLE=COLUMN,…", help_heading = ROWS)]
    pub(crate) columns: Vec<String>,
    /// Load only the records of a table's file that meet this condition: TABLE.COLUMN=VALUE, COLUMN=ONE|OTHER,
    /// COLUMN!=VALUE, COLUMN is null, COLUMN is not null, as `bulk load --help` explains. Can be given again: all must be
    /// met. Rows of other tables that refer to what is not loaded are orphans.
    #[arg(long = "where", value_name = "TABLE.CONDITION", help_heading = ROWS)]
    pub(crate) filter: Vec<String>,
    /// Load only the first N records of each file that meet the conditions, and fetch no more of it.
    #[arg(long, value_name = "N", conflicts_with = "keep_files", help_heading = ROWS)]
    pub(crate) limit: Option<u64>,
    /// Remove NUL bytes from values and put U+FFFD for what is not UTF-8, where the file would fail for them.
    #[arg(long, help_heading = ROWS)]
    pub(crate) repair: bool,
    /// Database connections: small tables loaded at once, parts of a large one, and tables indexed. From 2 on there is one
    /// more, which indexes tables that are loaded while others still are.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = number, env = "BULK_CONNECTIONS")]
    pub(crate) connections: usize,
    /// Commit at least this often, such as 5s: chunks that are sent in the meantime are committed together, which costs the
    /// server less. It is what a kill, a bad record or an input that ends in the middle costs, beside a chunk of each connection. 0s:
    /// each chunk by itself, as it is of standard input, with --max-rejects, --verify full or --freeze, and where
    /// connections could wait for each other's rows.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "1s", env = "BULK_COMMIT_EVERY")]
    pub(crate) commit_every: Duration,
    /// Leave out bad records, up to this many of each file; they are noted in bulk.reject. Default: the first one ends the
    /// load of its file. Of rows that a key forbids this leaves out the later ones where the table has the key already; a
    /// key that is made behind the rows is refused instead, and the run says so.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, help_heading = REJECTS)]
    pub(crate) max_rejects: u64,
    /// Refuse records that are longer than this: a quote that is never closed makes one of the rest of the file. Memory
    /// grows to some three times the longest record. PostgreSQL takes no value of 1 GB.
    #[arg(long, value_name = "SIZE", value_parser = segment, default_value = "64MiB", help_heading = REJECTS)]
    pub(crate) max_record: u64,
    /// Refuse a compressed file of which comes more than N times its own size, once 64 MiB came: one that was made to fill
    /// the database. Text is rarely packed to less than a fiftieth.
    #[arg(long, value_name = "N", value_parser = ratio, default_value_t = 1000.0, help_heading = REJECTS)]
    pub(crate) max_ratio: f64,
    /// Write what is left out of FILE to this folder: FILE.rejects as it stands there, and FILE.rejects.jsonl with why.
    #[arg(long, value_name = "DIR", help_heading = REJECTS)]
    pub(crate) rejects: Option<PathBuf>,
    /// What to do with rows that a foreign key forbids: report them, and leave the key NOT VALID; reject them, with the
    /// rows that refer to them, to bulk.reject; or fail.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Orphans::Report, help_heading = REJECTS)]
    pub(crate) orphans: Orphans,
    /// Empty the tables and load them anew.
    #[arg(long)]
    pub(crate) restart: bool,
    /// Drop the indexes, primary keys and unique constraints that the tables have, and build them anew behind the rows:
    /// faster, where many rows come. Default: they are kept up to date row by row.
    #[arg(long)]
    pub(crate) rebuild_indexes: bool,
    /// Fill each empty table in one transaction with rows that are frozen, so that no vacuum has to write them once more
    /// (COPY's FREEZE). The table is locked against readers, too, until it is full; one connection loads it, and what is
    /// interrupted begins anew.
    #[arg(long, conflicts_with = "refresh")]
    pub(crate) freeze: bool,
    /// Make tables that hold an older snapshot, or other rows, what this one says: rows that are gone are deleted, those
    /// that differ changed, new ones added, each table in one transaction, so that its readers see the old rows or the new
    /// ones. It takes room for a second copy of them. Default: such tables are refused.
    #[arg(long, conflicts_with_all = ["restart", "rebuild_indexes"])]
    pub(crate) refresh: bool,
    /// Load tables that hold an older snapshot, or other rows, anew beside the old ones, index and verify them there, and
    /// put all of them in their places in one moment: readers never see an empty table, nor tables of two snapshots. Views
    /// and foreign keys of other tables that would go with the old ones are refused before anything is loaded.
    #[arg(long, conflicts_with_all = ["restart", "refresh", "rebuild_indexes"])]
    pub(crate) swap: bool,
    /// Keep the tables that --swap takes away, in schemas named bulk_old_….
    #[arg(long, requires = "swap")]
    pub(crate) keep_old: bool,
    /// How the tables are compared with their files in the end: count (their rows), full (also a hash of their content,
    /// which is computed while the files are loaded, and by the server; also of tables that were loaded so before) or
    /// none.
    #[arg(long, value_name = "HOW", default_value = "count", env = "BULK_VERIFY")]
    pub(crate) verify: bulk_pg::Verification,
    #[command(flatten)]
    pub(crate) disk: DiskArguments,
    #[command(flatten)]
    pub(crate) goal: GoalArguments,
    #[command(flatten)]
    pub(crate) bucket: BucketArguments,
}

/// What becomes of rows that refer to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Orphans {
    Report,
    Reject,
    Fail,
}

/// Where the database is, and how it is set up.
#[derive(Clone, Debug, Args)]
pub(crate) struct DatabaseArguments {
    #[command(flatten)]
    pub(crate) target: DatabaseUrl,
    /// Let the server compress wide values as it is set up to, mostly by pglz. Default: by lz4, where the server has it and
    /// the column has no method of its own; that takes it a fraction of the CPU, and some more disk.
    #[arg(long)]
    no_lz4: bool,
}

impl DatabaseArguments {
    /// A session with the database, set up as the flags say.
    pub(crate) async fn connect(&self) -> Result<Session, Failure> {
        let mut session = Session::connect(self.target.url()?).await?;
        if self.no_lz4 {
            session.reset_compression().await?;
        }
        Ok(session)
    }
}

/// Where the database is.
#[derive(Clone, Debug, Args)]
pub(crate) struct DatabaseUrl {
    /// The database, which has to be there: postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full, or libpq's
    /// key=value form. Where others see the command line, a password is better in BULK_DB or ~/.pgpass. What it leaves
    /// open is as psql has it: PGHOST and the other variables, service and password files. Default: all of it.
    #[arg(long, value_name = "URL", env = "BULK_DB", hide_env_values = true)]
    db: Option<String>,
}

impl DatabaseUrl {
    /// The variables of libpq's that say which database is meant.
    const VARIABLES: [&str; 4] = ["PGHOST", "PGHOSTADDR", "PGDATABASE", "PGSERVICE"];

    /// The connection string, which is empty where variables say it all. `None` if nothing says it.
    pub(crate) fn given(&self) -> Option<&str> {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        self.db.as_deref().filter(|db| !db.is_empty()).or_else(|| Self::VARIABLES.into_iter().any(is_set).then_some(""))
    }

    /// As [`given`](Self::given), of a command that cannot do without.
    pub(crate) fn url(&self) -> Result<&str, Failure> {
        self.given().ok_or_else(|| {
            Failure::usage(
                "which database is not said: give --db URL or BULK_DB, or PGDATABASE and its like; see --help",
            )
        })
    }
}

/// How much disk a run may take.
#[derive(Clone, Debug, Args)]
pub(crate) struct DiskArguments {
    /// Leave this much of the file system free, such as 20GiB. Default: a twentieth of it, at most 1GiB.
    #[arg(long, value_name = "SIZE", value_parser = size, env = "BULK_RESERVE", help_heading = DISK)]
    reserve: Option<u64>,
    /// Take no more disk than this for all files of the run together, such as 500GB. Default: all that is free.
    #[arg(long, value_name = "SIZE", value_parser = size, env = "BULK_MAX_DISK", help_heading = DISK)]
    max_disk: Option<u64>,
    /// When the disk is full, wait so long for room, such as 90s or 2h, before it counts as failed. 0s: not at all.
    #[arg(
        long,
        value_name = "TIME",
        value_parser = time,
        default_value = "5m",
        env = "BULK_DISK_WAIT",
        help_heading = DISK
    )]
    pub(crate) disk_wait: Duration,
    /// Ask for so many bytes in one request, such as 16MiB. Default: what a connection brings in some seconds, from 1 to 64
    /// MiB.
    #[arg(long, value_name = "SIZE", value_parser = segment, env = "BULK_SEGMENT", help_heading = DISK)]
    segment: Option<u64>,
    /// Fetch so far ahead of what is being loaded or extracted, and no further. Default: 64GiB with --extract, an eighth of
    /// the disk's room in a mirror, and at least 4GiB; 4GiB in a load with --dir, 256MiB in one without, and else without
    /// end.
    #[arg(long, value_name = "SIZE", value_parser = size, env = "BULK_WINDOW", help_heading = DISK)]
    pub(crate) window: Option<u64>,
}

impl DiskArguments {
    /// The most that is left free where nobody said how much.
    const RESERVE: u64 = 1 << 30;

    /// The budget of a run whose files go to `folder`.
    pub(crate) fn budget(&self, folder: &Path) -> DiskBudget {
        let budget = DiskBudget::new(folder);
        // More than any disk has is what tells how much it has.
        let total = budget.can_ever_fit(u64::MAX).err().and_then(|shortage| shortage.total);
        budget.set_reserve(self.reserve.unwrap_or_else(|| (total.unwrap_or(0) / 20).min(Self::RESERVE)));
        budget.set_limit(self.max_disk);
        budget
    }

    /// Sets what these flags say of a download under that budget.
    pub(crate) fn apply(&self, budget: &DiskBudget, options: &mut DownloadOptions) {
        options.budget = Some(budget.clone());
        options.disk_patience = self.disk_wait;
        options.segment = self.segment;
        options.window = self.window.unwrap_or(options.window);
    }
}

/// Bytes, as people write them.
fn size(text: &str) -> Result<u64, String> {
    let size: ByteSize =
        text.parse().map_err(|_| "a size is a number with a unit, such as 20GiB or 512MB".to_owned())?;
    Ok(size.as_u64())
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "it must be a number from 1 on".to_owned())
}

pub(crate) fn segment(text: &str) -> Result<u64, String> {
    size(text).and_then(|size| if size == 0 { Err("it must be more than nothing".to_owned()) } else { Ok(size) })
}

/// A span of time, as people write it.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let span: Option<jiff::SignedDuration> = text.parse().ok();
    span.and_then(|span| span.try_into().ok())
        .ok_or_else(|| "a time is a number with a unit, such as 90s or 5m".to_owned())
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio: &f64| *ratio >= 1.0 && ratio.is_finite());
    ratio.ok_or_else(|| "a ratio is a number from 1 on".to_owned())
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  The newest of each file of a public bucket, the largest first, over 16 connections:
    bulk fetch s3://com-courtlistener-storage/bulk-data/ --region us-west-2 \\
      --anonymous --out files --jobs 16
  What that would be, and nothing done:
    bulk fetch courtlistener --out files --dry-run
  Only some of them, every date of each, by name, and never less than 50 GiB left on the disk:
    bulk fetch courtlistener --out files --include 'courts-*' --all-dates \\
      --order name --reserve 50GiB
  Unpacked in order while the next ones arrive; the archives are removed:
    bulk fetch courtlistener --out files --extract
  From a web server, the files that a list names, checked against its checksums:
    bulk fetch https://example.org/data/ --files-from names.txt \\
      --sums SHA256SUMS --out files
  Whether the files are still what they were:
    bulk fetch --verify --out files

`bulk --help` tells what the exit status means.")]
pub(crate) struct Fetch {
    /// s3://bucket/prefix, https://host/file, file:///folder, or a data set of the catalogue (courtlistener).
    #[arg(value_name = "SOURCE", required_unless_present = "verify")]
    pub(crate) source: Option<String>,
    /// The folder that the files go to; it is made if need be. What is there already, whole or in part, is not fetched
    /// again.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Only files whose name below the prefix matches, such as '*.csv.bz2'; * matches / too. Can be given again.
    #[arg(long, value_name = "GLOB", help_heading = CHOICE)]
    pub(crate) include: Vec<String>,
    /// No files whose name below the prefix matches. Can be given again.
    #[arg(long, value_name = "GLOB", help_heading = CHOICE)]
    pub(crate) exclude: Vec<String>,
    /// Exactly the files that this list names, by name or key, one a line; - is standard input. An https:// source cannot
    /// be listed, and needs it for more than one file.
    #[arg(long, value_name = "FILE", help_heading = CHOICE)]
    pub(crate) files_from: Option<PathBuf>,
    /// How a date stands in a name. Of files whose names differ in nothing else, the newest alone is fetched.
    #[arg(
        long,
        value_name = "PATTERN",
        default_value = "-YYYY-MM-DD",
        env = "BULK_DATE_PATTERN",
        help_heading = CHOICE
    )]
    pub(crate) date_pattern: DatePattern,
    /// Fetch all files, of whatever date.
    #[arg(long, help_heading = CHOICE)]
    pub(crate) all_dates: bool,
    /// What comes first: by size, by name, as listed, or as a file says that has a name or key a line (what it does not
    /// name comes last); each with :asc or :desc behind it.
    #[arg(
        long,
        value_name = "ORDER",
        default_value = "size:desc",
        env = "BULK_ORDER",
        help_heading = CHOICE
    )]
    pub(crate) order: String,
    #[command(flatten)]
    pub(crate) disk: DiskArguments,
    /// Compute each file's SHA-256 too, for manifest.json. Without it the manifest has a CRC-64 of each.
    #[arg(long, help_heading = "Checks")]
    pub(crate) sha256: bool,
    /// Compare the files with this checksum list (SHA-256 or MD5, as sha256sum writes it). Can be given again.
    #[arg(long, value_name = "FILE", help_heading = "Checks")]
    pub(crate) sums: Vec<PathBuf>,
    /// Compare files with the ETags that S3 gives to what is uploaded in parts, as far as the parts' size can be guessed.
    #[arg(long, help_heading = "Checks")]
    pub(crate) check_multipart: bool,
    /// Fetch nothing: check the files of --out against its manifest.json.
    #[arg(long, conflicts_with_all = ["source", "extract", "dry_run"], help_heading = "Checks")]
    pub(crate) verify: bool,
    /// Unpack each file in its turn while the next ones arrive: gz, bz2, zst and xz beside it, the members of a tar into a
    /// folder of its name. Then the archive is removed. A newer version of a tar takes the place of what the older one
    /// unpacked; files of your own in its folder stay.
    #[arg(long, help_heading = "Extraction")]
    pub(crate) extract: bool,
    /// Keep the archives when they are unpacked.
    #[arg(long, requires = "extract", help_heading = "Extraction")]
    pub(crate) keep_archives: bool,
    /// Refuse an archive that unpacks to more than N times its own size.
    #[arg(long, value_name = "N", value_parser = ratio, default_value_t = 1000.0, help_heading = "Extraction")]
    pub(crate) max_ratio: f64,
    /// Refuse an archive that unpacks to more than this. Default: no limit but the disk.
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Extraction")]
    pub(crate) max_extracted: Option<u64>,
    /// Refuse a tar with more members.
    #[arg(long, value_name = "N", default_value_t = 10_000_000, help_heading = "Extraction")]
    pub(crate) max_entries: u64,
    #[command(flatten)]
    pub(crate) goal: GoalArguments,
    #[command(flatten)]
    pub(crate) bucket: BucketArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  bulk load courts-2026-06-30.csv.bz2 --db URL --table search_court
  bulk load a.csv b.csv.gz --db URL --table events --append
  bulk load dockets.csv.bz2 --db URL --table search_docket --where 'court_id=scotus|ca1' \\
    --where 'date_filed is not null' --columns id,court_id,date_filed --limit 1000
  bulk load log.ndjson.zst --db URL --table log --format ndjson --rest more
  bulk load dump.copy --db URL --table people --format text --header id,name
  A newer version of a file, of which readers see all or nothing:
    bulk load courts-2026-07-31.csv.bz2 --db URL --table search_court --refresh
  What a program writes; with a name, the same command goes on after whatever ended it:
    zcat big.csv.gz | bulk load - --name big-2026 --db URL --table events
  All files of a folder of a public bucket, into a table that is made for them:
    bulk load 's3://bucket/2026/*.csv.gz' --anonymous --create-table --db URL --table events
  What that table would be, and nothing done:
    bulk load https://example.org/a.csv --create-table --dry-run --db URL --table a

`bulk --help` tells what the exit status means.")]
pub(crate) struct Load {
    /// Records, plain or compressed: a path, - for standard input, https://host/file, or s3://bucket/key. One of s3:// that
    /// ends in / stands for all objects below it, and one with * ? [ ] { } for those that match (* stands for no /, ** does,
    /// \ takes the character behind it as it is), in the order of their keys. What is named twice is loaded once. What is
    /// fetched is loaded while it arrives.
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) database: DatabaseArguments,
    /// The table, with its schema if that is not public.
    #[arg(long, value_name = "TABLE")]
    pub(crate) table: bulk_pg::TableName,
    /// A name for what comes over standard input. You vouch that the same name means the same bytes: then the same command
    /// goes on where the last one was interrupted, and loads nothing twice. Without a name, what was loaded of an
    /// interrupted one has to be deleted, by --restart.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Tell local files by the SHA-256 of their bytes, and not by their times of change: one that was only touched is the
    /// same, and one that was changed is not, whatever its time says. Each is read once more for it.
    #[arg(long)]
    pub(crate) sha256: bool,
    /// Make the table if it is not there, with the columns of the files. Their types are told from the first 16 MiB or
    /// 100,000 records of each: boolean (t, f, true, false), integer, bigint, numeric, double precision (where there are
    /// exponents or NaN), date, timestamp, timestamptz (ISO 8601), uuid, jsonb (objects and arrays), else text. No column
    /// is NOT NULL. With --dry-run: print the statement, and change nothing.
    #[arg(long)]
    pub(crate) create_table: bool,
    /// Give a column of that table this type, such as id=bigint or price='numeric(10,2)'. Can be given again.
    #[arg(long, value_name = "COLUMN=TYPE", requires = "create_table")]
    pub(crate) column_type: Vec<String>,
    /// Keep what is fetched in this folder until it is loaded, so that the next run goes on with it, whatever ended this
    /// one. Default: nothing is kept, and the next run fetches again what it then leaves out. What waits to be loaded is in
    /// the system's folder for temporary files.
    #[arg(long, value_name = "DIR", help_heading = DISK)]
    pub(crate) dir: Option<PathBuf>,
    /// What the files are: csv, ndjson (a JSON object a line, whose keys are columns), or what COPY … TO writes: text or
    /// binary, whose columns are the table's in their order.
    #[arg(long, value_name = "FORMAT", default_value = "csv")]
    pub(crate) format: bulk_pg::InputFormat,
    /// The files' columns, in their order, where the files do not say them: a CSV file has no header line then. With
    /// ndjson, keys to load beside those of the first MiB.
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    pub(crate) header: Option<Vec<String>>,
    /// With ndjson, put the keys that are no columns into this column of type json or jsonb, as one object. Default: they
    /// are not loaded.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) rest: Option<String>,
    /// Read CSV files as this dialect: A, B, C, D or csv. Default: told from each file.
    #[arg(long)]
    pub(crate) dialect: Option<bulk_pg::Dialect>,
    /// Give a column that the files lack this value in every row.
    #[arg(long, value_name = "COLUMN=VALUE")]
    pub(crate) fill: Vec<String>,
    /// Load only these columns of the files. A name with a comma stands in double quotes.
    #[arg(long, value_name = "COLUMN,…", help_heading = ROWS)]
    pub(crate) columns: Vec<String>,
    /// Load only the records that meet this condition: COLUMN=VALUE, COLUMN=ONE|OTHER, COLUMN!=VALUE, COLUMN is null, COLUMN
    /// is not null. Can be given again: all must be met. Values are compared as they stand in the file; as in SQL, neither
    /// = nor != is true of NULL. A value with a | or with spaces at its ends stands in single quotes, doubled inside.
    #[arg(long = "where", value_name = "CONDITION", help_heading = ROWS)]
    pub(crate) filter: Vec<bulk_pg::Condition>,
    /// Load only the first N records of each file that meet the conditions, and read no further.
    #[arg(long, value_name = "N", help_heading = ROWS)]
    pub(crate) limit: Option<u64>,
    /// Remove NUL bytes from values and put U+FFFD for what is not UTF-8, where the record would be bad for them.
    #[arg(long, help_heading = ROWS)]
    pub(crate) repair: bool,
    /// Database connections: parts of a file loaded at once.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = number, env = "BULK_CONNECTIONS")]
    pub(crate) connections: usize,
    /// Commit after so many decoded bytes, such as 4MiB. It is what each connection loses when it is cut.
    #[arg(long, value_name = "SIZE", value_parser = segment, default_value = "16MiB")]
    pub(crate) chunk_size: u64,
    /// Commit at least this often, such as 5s: chunks that are sent in the meantime are committed together, which costs the
    /// server less. It is what a kill, a bad record or an input that ends in the middle costs, beside a chunk of each connection. 0s:
    /// each chunk by itself, as it is of standard input, with --max-rejects, --verify full or --freeze, and where
    /// connections could wait for each other's rows.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "1s", env = "BULK_COMMIT_EVERY")]
    pub(crate) commit_every: Duration,
    /// Leave out bad records, up to this many of a file; they are noted in bulk.reject. Default: the first one ends the
    /// load.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) max_rejects: u64,
    /// Refuse records that are longer than this: a quote that is never closed makes one of the rest of the file. Memory
    /// grows to some three times the longest record. PostgreSQL takes no value of 1 GB.
    #[arg(long, value_name = "SIZE", value_parser = segment, default_value = "64MiB")]
    pub(crate) max_record: u64,
    /// Refuse a compressed file of which comes more than N times its own size, once 64 MiB came: one that was made to fill
    /// the database. Text is rarely packed to less than a fiftieth.
    #[arg(long, value_name = "N", value_parser = ratio, default_value_t = 1000.0, help_heading = REJECTS)]
    pub(crate) max_ratio: f64,
    /// Write what is left out of FILE to this folder: FILE.rejects as it stands there, and FILE.rejects.jsonl with why.
    #[arg(long, value_name = "DIR", requires = "max_rejects")]
    pub(crate) rejects: Option<PathBuf>,
    /// Add to rows that the table has already.
    #[arg(long)]
    pub(crate) append: bool,
    /// Empty the table and load it anew.
    #[arg(long, conflicts_with = "append")]
    pub(crate) restart: bool,
    /// Drop the table's indexes, primary key, unique constraints and foreign keys, and make them anew behind the rows:
    /// faster, where many rows come. If the load fails, they come back with the next one that does not. Default: they are
    /// kept up to date and checked row by row.
    #[arg(long)]
    pub(crate) rebuild_indexes: bool,
    /// Fill the table, which is to be empty, in one transaction with rows that are frozen, so that no vacuum has to write
    /// them once more (COPY's FREEZE). It is locked against readers, too, until it is full; one connection loads it, and an
    /// interrupted load begins anew.
    #[arg(long, conflicts_with_all = ["append", "refresh"])]
    pub(crate) freeze: bool,
    /// Make the table what the one FILE says, whatever it holds: rows that are gone are deleted, those that differ changed,
    /// new ones added, in one transaction. Rows are told apart by the primary key, or another unique one. It takes room
    /// for a second copy of them.
    #[arg(long, conflicts_with_all = ["append", "restart", "rebuild_indexes"])]
    pub(crate) refresh: bool,
    /// How the table is compared with its files in the end: count (their rows), full (also a hash of their content, which
    /// is computed while they are loaded, and by the server; no file is read again that was loaded so before) or none.
    #[arg(long, value_name = "HOW", default_value = "count", env = "BULK_VERIFY")]
    pub(crate) verify: bulk_pg::Verification,
    #[command(flatten)]
    pub(crate) disk: DiskArguments,
    #[command(flatten)]
    pub(crate) goal: GoalArguments,
    #[command(flatten)]
    pub(crate) bucket: BucketArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  A mirror that is killed and goes on, with nothing installed:
    bulk demo
  Something to try all commands on; docs/ has them step by step:
    bulk demo --serve --scale 0.1

`bulk --help` tells what the exit status means.")]
pub(crate) struct Demo {
    /// How much to invent: 1 is about 200 MB of CSV.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) scale: f64,
    /// Leave database and server running until Ctrl-C, and print their URLs.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Mirror nothing: start what the pages of docs/ work with, print where it is as lines for a shell, and serve it until
    /// Ctrl-C. That is an empty database (BULK_DB), an S3 server (BULK_ENDPOINT) with the invented snapshot, documents of
    /// builds and an empty bucket for archives, and an API that allows 25 requests a second (API).
    #[arg(long, conflicts_with = "keep")]
    pub(crate) serve: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  Whether a mirror of CourtListener would find its bucket, the database and room:
    bulk doctor --db postgresql://me@localhost/courts --dir /srv/bulk
  A bucket and a database for a sync:
    bulk doctor s3://bucket/builds/ --db URL
  What runs every night: an export, a crawl, a data set of your own:
    bulk doctor export.toml stats.toml my-data.toml --db URL --dir /srv/archives

`bulk --help` tells what the exit status means.")]
pub(crate) struct Doctor {
    /// What is to be worked with: a data set of the catalogue, a TOML file that describes one, s3://bucket/prefix,
    /// file:///folder, https://host/file, or the spec of an export or a crawl, which is held against the database without
    /// reading a row and making a request. Can be given again. Default: courtlistener.
    #[arg(value_name = "WHAT")]
    pub(crate) what: Vec<String>,
    #[command(flatten)]
    pub(crate) database: DatabaseArguments,
    /// The folder that files would wait in, or archives be written to.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) bucket: BucketArguments,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_as_people_write_them() {
        let sizes = ["20GiB", "512MB", "1.5 TiB", "0", "64k"].map(|text| size(text).unwrap());
        assert_eq!(sizes, [20 << 30, 512_000_000, 3 << 39, 0, 64_000]);
        for none in ["", "-1", "1 XB", "GiB", "many"] {
            assert!(size(none).is_err(), "{none}");
        }
        assert!(segment("0").is_err());
        let times = ["90s", "5m", "1h 30m", "0s"].map(|text| time(text).unwrap().as_secs());
        assert_eq!(times, [90, 300, 5400, 0]);
        for none in ["", "90", "-5s", "soon"] {
            assert!(time(none).is_err(), "{none}");
        }
        assert!(ratio("0.5").is_err() && ratio("NaN").is_err() && ratio("inf").is_err());
    }
}
