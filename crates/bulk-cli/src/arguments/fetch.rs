//! What `bulk fetch` is asked for.

use std::path::PathBuf;

use bulk_s3::DatePattern;
use clap::Args;

use super::{BucketArguments, DiskArguments, GoalArguments, ratio, size};

const CHOICE: &str = "Which files, and their order";

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
    /// s3://bucket/prefix, https://host/file, file:///folder, a data set of the catalogue (courtlistener), or a TOML file
    /// that describes one.
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
    /// Fetch nothing: read the files of --out again, and compare them with the sizes and checksums of its manifest.json. Where
    /// one differs or is missing, the exit status is 7.
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
