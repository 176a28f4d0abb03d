//! The command line: each command's flags stand in a module of its name, what several commands share in others.

mod bucket;
mod crawl;
mod database;
mod demo;
mod disk;
mod doctor;
mod export;
mod fetch;
mod figures;
mod goal;
mod listing;
mod load;
mod manual;
mod mirror;
mod records;
mod report;
mod sync;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

pub(crate) use self::bucket::BucketArguments;
pub(crate) use self::crawl::CrawlArguments;
pub(crate) use self::database::{DatabaseArguments, DatabaseUrl};
pub(crate) use self::demo::Demo;
pub(crate) use self::disk::DiskArguments;
pub(crate) use self::doctor::Doctor;
pub(crate) use self::export::ExportArguments;
pub(crate) use self::fetch::Fetch;
use self::figures::{number, ratio};
pub(crate) use self::figures::{segment, size, time};
pub(crate) use self::goal::GoalArguments;
pub(crate) use self::listing::{
    CheckpointArguments, ComparisonArguments, Deletions, Diff, KeyArguments, List, ListFormat, OutputArguments,
    StoreArguments,
};
pub(crate) use self::load::Load;
pub(crate) use self::manual::{CompletionsArguments, ManArguments};
pub(crate) use self::mirror::{Mirror, Orphans};
pub(crate) use self::records::RecordArguments;
pub(crate) use self::report::ReportArguments;
pub(crate) use self::sync::{Export, Import, Known, KnownAction, Sync, SyncDeletions, TargetArguments};

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
    /// Say what would be done, and change nothing. A crawl makes the requests of the first three records for it.
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
            Self::Load(load) if load.reads_stdin() => Some("what is committed is kept, and no more is read"),
            Self::Mirror(_) | Self::Fetch(_) | Self::Load(_) | Self::List(_) | Self::Diff(_) | Self::Sync(_) => {
                Some("what is in hand is finished and kept")
            }
            Self::Crawl(_) => Some(
                "what was sent has 30 s to be answered, and what has been answered is kept, but for a few pages of a record \
                 whose next one is told by a link or a cursor",
            ),
            Self::Export(_) => Some("nothing is published, unless it is already"),
            Self::Known(_)
            | Self::Report(_)
            | Self::Demo(_)
            | Self::Doctor(_)
            | Self::Completions(_)
            | Self::Man(_) => None,
        }
    }

    /// What there is to be done when it was stopped behind so many rows that it has loaded.
    pub(crate) fn after_stop(&self, loaded: u64) -> &'static str {
        const GO_ON: &str = "run the same command again to go on";
        match self {
            Self::Mirror(_) | Self::Sync(_) | Self::Crawl(_) => GO_ON,
            Self::Fetch(fetch) if !fetch.verify => GO_ON,
            Self::Load(load) if load.is_unnamed() => match loaded {
                0 => "nothing was loaded",
                _ => {
                    "what standard input gave cannot be told from what it gives another time: --restart deletes what \
                     is loaded of it, and with --name NAME from the start the same command goes on"
                }
            },
            Self::Load(_) => GO_ON,
            Self::Diff(diff) if diff.comparison.checkpoint.checkpoint.is_some() => GO_ON,
            Self::Demo(_) => "what it had started and invented is gone",
            _ => "the same command begins anew",
        }
    }
}

const DISK: &str = "Disk and network";
const ROWS: &str = "Which rows and columns";
const REJECTS: &str = "Bad records and rows";
