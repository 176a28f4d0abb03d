//! What `bulk mirror` is asked for.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{
    BucketArguments, DISK, DatabaseArguments, DiskArguments, GoalArguments, REJECTS, ROWS, RecordArguments, number,
};

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
    /// Leave out bad records, up to this many of each file; they are noted in bulk.reject. Default: the first one ends the
    /// load of its file. Of rows that a key forbids this leaves out the later ones where the table has the key already; a
    /// key that is made behind the rows is refused instead, and the run says so.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, help_heading = REJECTS)]
    pub(crate) max_rejects: u64,
    #[command(flatten)]
    pub(crate) records: RecordArguments,
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
    /// interrupted begins anew. Frozen rows are visible to transactions that began before, too.
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
