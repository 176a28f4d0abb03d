//! What `bulk export` is asked for.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use bulk_archive::{Shape, UnknownShape};
use clap::{ArgGroup, Args};

use super::{BucketArguments, DatabaseUrl, GoalArguments, number, segment, time};

const SOURCE: &str = "Where items come from";
const ARCHIVES: &str = "The archives";
const UPLOAD: &str = "To a bucket";

/// What stands beside archives, or the folders of types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shapes(pub(crate) BTreeSet<Shape>);

fn shapes(text: &str) -> Result<Shapes, UnknownShape> {
    match text {
        "none" => Ok(Shapes(BTreeSet::new())),
        text => text.split(',').map(str::parse).collect::<Result<_, _>>().map(Shapes),
    }
}

#[derive(Clone, Debug, Args)]
#[command(
    group = ArgGroup::new("mode").args(["ndjson", "loose", "verify", "rebuild_index"]),
    after_help = "\
Examples:
  All items, in an archive for each group (archives/opinions/scotus.tar.gz); the same command again
  exports what has changed since:
    bulk export export.toml --db postgresql://me@localhost/courts --out archives
  What that would read, and nothing done:
    bulk export export.toml --db URL --out archives --dry-run
  With a look for items that are gone or were missed, which reads the ids of all:
    bulk export export.toml --db URL --out archives --sweep
  With Parquet and compressed lines of JSON beside each archive, kept up to date as it is:
    bulk export export.toml --db URL --out archives --also parquet,jsonl.zst
  With all opinions in one file, archives/opinions.parquet, which has their group as a column:
    bulk export export.toml --db URL --out archives --whole parquet
  Lines such as {\"type\": \"opinions\", \"group\": \"scotus\", \"id\": 1, \"item\": {…}}:
    ./changes | bulk export --ndjson - --out archives
  Files such as loose/opinions/scotus/1.json:
    bulk export --loose loose --out archives
  To a bucket, too; what it has already is not sent again:
    bulk export export.toml --db URL --out archives --to s3://bucket/archives
  Whether the archives are what they were when they were made:
    bulk export --verify --out archives

The spec, of which only name, table (or query), id and group must be there:
  out = \"archives\"
  [[type]]
  name = \"opinions\"
  table = \"search_opinion\"           # or query = \"SELECT …\"
  id = \"id\"
  group = \"court_id\"
  modified = \"date_modified\"         # tells what has changed; without it all rows are read
  columns = [\"id\", \"plain_text\"]     # of the JSON; or json = \"body\", a column that has it
  deletions = { table = \"deleted_opinion\", id = \"id\", deleted = \"deleted_at\" }
                                     # or { query = \"SELECT id FROM … WHERE at >= {since}\" }
  also = [\"jsonl.zst\", \"parquet\"]    # beside the tar.gz of each group; or jsonl.gz
  whole = [\"parquet\"]                # all groups in one file, opinions.parquet
  parquet-columns = [                # in place of id, modified and json
    { name = \"id\", type = \"bigint\", from = \"id\" },
    { name = \"filed\", type = \"date\", from = \"/docket/filed\", unfit = \"null\" },
  ]
At its top there may be also, whole, level, block-length, chain-length, reflink, overlap, time-zone,
keep-empty, ignore-times and all-tar, too. time-zone (\"America/New_York\") is that of times without one,
and has to be there where modified or deleted is such a column and the database is not in UTC. Tables
are named as in SQL, columns as they are called.

Readers find all archives of a set while manifest.json is there, and the same before and after they
read. Changes are published together, or not at all; the exit status is 3 where rows were left out.
`bulk --help` tells what the exit status means."
)]
pub(crate) struct ExportArguments {
    /// A TOML file that says what is exported.
    #[arg(value_name = "SPEC", required_unless_present_any = ["ndjson", "loose", "verify", "rebuild_index"])]
    pub(crate) spec: Option<PathBuf>,
    /// The folder of the archives. Default: what the spec says.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) database: DatabaseUrl,
    /// Read only this type of the spec. Can be given again. Archives of other types stay as they are.
    #[arg(long = "type", value_name = "NAME")]
    pub(crate) types: Vec<String>,
    /// Look at the ids of all rows: items whose rows are gone are removed, and those are read that are not in the archives,
    /// or in those of another group.
    #[arg(long, conflicts_with = "mode", help_heading = SOURCE)]
    pub(crate) sweep: bool,
    /// Read all rows again, and not only those that may have changed. Archives of which nothing has changed stay as they are;
    /// those that are damaged or missing are made anew, for which all of them are read.
    #[arg(long, conflicts_with = "mode", help_heading = SOURCE)]
    pub(crate) full: bool,
    /// Take items from this file, or standard input (-), plain or compressed. A line is {"type": …, "group": …, "id": …,
    /// "modified": …, "item": {…}}, and {"type": …, "id": …, "deleted": true} for one that is gone; modified is an RFC 3339
    /// time or seconds since 1970. With one --type and a spec, a line is the item itself, whose fields are named as the spec
    /// names columns.
    #[arg(long, value_name = "FILE|-", help_heading = SOURCE)]
    pub(crate) ndjson: Option<PathBuf>,
    /// Take items from the files of this folder: TYPE/GROUP/ID.json, with the times that they have. They stay there.
    #[arg(long, value_name = "DIR", help_heading = SOURCE)]
    pub(crate) loose: Option<PathBuf>,
    /// Read rows over so many connections at once.
    #[arg(long, value_name = "N", value_parser = number, default_value = "4", env = "BULK_CONNECTIONS", help_heading = SOURCE)]
    pub(crate) connections: usize,
    /// Read again what was changed so long before the last run began. What a transaction that was open then has committed
    /// since is read in any case, if the role may see when it began (pg_read_all_stats); this is for others, for those of a
    /// standby's primary, for prepared ones, and for clocks that differ. Default: what the spec says, or 15m.
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = SOURCE)]
    pub(crate) overlap: Option<Duration>,
    /// Leave out up to so many bad rows: without an id or a group, with JSON that is none, or a name that cannot be a file's.
    /// Each is said, and what was published of it before goes. With more of them, nothing is published.
    #[arg(long, value_name = "N", default_value_t = 1000, help_heading = SOURCE)]
    pub(crate) max_rejects: u64,
    /// Hold so many bytes of changes in memory before they are written to disk.
    #[arg(long, value_name = "SIZE", value_parser = segment, default_value = "64MiB", env = "BULK_MEMORY")]
    pub(crate) memory: u64,
    /// The level of compression of new archives, 1 to 9. Those that are there keep theirs. Default: what the spec says, or 5.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=9), help_heading = ARCHIVES)]
    pub(crate) level: Option<u32>,
    /// Lay new archives out so that a changed one shares with the one before what has not changed, on file systems that have
    /// reflinks (Btrfs, XFS): that is not written again. They are 0.8% larger for it. Those that are there stay as they are.
    #[arg(long, help_heading = ARCHIVES)]
    pub(crate) reflink: bool,
    /// Keep an archive without items of a group that has become empty.
    #[arg(long, help_heading = ARCHIVES)]
    pub(crate) keep_empty: bool,
    /// Leave items alone of which only the time of the last change is another.
    #[arg(long, help_heading = ARCHIVES)]
    pub(crate) ignore_times: bool,
    /// Write an all.tar of the archives of each type, too.
    #[arg(long, help_heading = ARCHIVES)]
    pub(crate) all_tar: bool,
    /// Beside each archive, keep its items in these formats, too: jsonl.gz, jsonl.zst, parquet, several with commas between, or
    /// none. It counts for all types of the set, those that --type leaves out, too, and in place of what the spec says of each
    /// (also). Default: what the spec says, or what is there.
    #[arg(long, value_name = "FORMATS", value_parser = shapes, help_heading = ARCHIVES)]
    pub(crate) also: Option<Shapes>,
    /// Beside the folder of each type, keep the items of all its groups in one file of these formats (opinions.parquet): as with
    /// --also, which need not be given for it. Default: what the spec says (whole), or what is there.
    #[arg(long, value_name = "FORMATS", value_parser = shapes, help_heading = ARCHIVES)]
    pub(crate) whole: Option<Shapes>,
    /// Compare all files of the set, of whatever type, with the sizes and digests of the manifest, and the archives with their
    /// indexes, and do nothing else; no spec is needed. Where one differs, the exit status is 7.
    #[arg(long, help_heading = ARCHIVES)]
    pub(crate) verify: bool,
    /// Make the indexes, and what is known of the archives, anew from the archives. What was changed since the last run is not
    /// known then: the next one reads all.
    #[arg(long, help_heading = ARCHIVES)]
    pub(crate) rebuild_index: bool,
    /// Bring what is published to this prefix of a bucket, too, for readers there: s3://bucket/prefix. Only what it does not
    /// have is uploaded, over --jobs connections, and what is gone is removed. Its manifest.json is removed before archives are
    /// replaced, and written last.
    #[arg(long, value_name = "S3-URL", conflicts_with_all = ["verify", "rebuild_index"], help_heading = UPLOAD)]
    pub(crate) to: Option<String>,
    #[command(flatten)]
    pub(crate) goal: GoalArguments,
    #[command(flatten, next_help_heading = UPLOAD)]
    pub(crate) bucket: BucketArguments,
}
