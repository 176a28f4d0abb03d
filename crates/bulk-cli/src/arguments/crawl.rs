use std::path::PathBuf;

use clap::Args;

use super::{DatabaseArguments, GoalArguments};

const PROGRESS: &str = "Runs and what they leave";

#[derive(Clone, Debug, Args)]
#[command(
    after_help = "\
Examples:
  What would be requested, and the rows of the first three answers; nothing is loaded:
    bulk crawl stats.toml --db postgresql://me@localhost/stats --dry-run
  All of it; the same command again goes on where it stopped:
    bulk crawl stats.toml --db postgresql://me@localhost/stats
  Whether the spec fits the database, without a request:
    bulk crawl stats.toml --db postgresql://me@localhost/stats --check

Requests that failed for good are kept in bulk.quarantine, and made again by the next run; rows that a table cannot hold \
are kept in bulk.call_reject. `bulk --help` tells what the exit status means.",
    after_long_help = "\
The spec is a TOML file:

  name = \"stats\"            # of the job; default: that of the file

  [input]                   # one record makes one request
  # or file = \"members.ndjson\", which is \"-\" for standard input
  query = \"SELECT id, type FROM member\"

  [request]
  url = \"https://api.example.org/{type}/{id}/stats?lang=en\"
  headers = { X-API-Key = \"{$key}\" }
  # or \"file:PATH\"; values = { … } for what is none
  secrets = { key = \"env:API_KEY\" }

  [limits]
  rate = [\"25/s over 10s\"]  # what the server allows, in any ten seconds
  # of answers and rows together; no more is asked for beyond it
  memory = \"256MiB\"
  answer = \"32MiB\"          # of one answer; a longer one is a failure

  [success]
  # what an answer says that is one
  rules = [\"$.ErrorCode == 1\"]
  # how long all are asked to wait
  throttle = \"$.ThrottleSeconds\"
  # what is not tried again
  lasting = [\"$.ErrorCode == 1601\"]
  message = \"$.Message\"

  [[rows]]
  table = \"stats.stat\"
  mode = \"replace\"          # append, upsert, replace, delete
  each = [\"$.Response.activities[*]\", \"$.values.*\"]
  require = [\"stat\"]
  [rows.columns]
  member = \"input.id\"
  activity = \"$1.activityHash\"
  stat = \"key\"
  value = \"$\"

  [load]
  after = [\"ANALYZE stats.stat\"]

Paths are JSONPath (RFC 9535). Pages are followed by [pages]: next = \"$.next\", link-header = true, cursor = \"$.cursor\" \
with parameter = \"page\", or parameter = \"page\" with last = \"$.last_page\" or until-empty = \"$.results[*]\". Several records \
are asked for at once by [batch]: size = 25, field = \"id\", elements = \"$[*]\", id = \"$.uri\", of-record = \"/items/{id}\". \
What is gone since it was listed is no failure with nothing = [\"404\"] in [success], may-miss = true in [batch]. Lists, and the \
pages behind a first one, are to be there. [pages], and pages of a list, may say max = 500: how many there are at most (10,000).

What has changed alone is asked for where a url has {$since}:

  [since]
  format = \"unix\"           # or unix-ms, rfc3339
  slack = \"60s\"             # how far the server's clock may be behind

  [input]                   # ids of what changed; each becomes {\"id\": …}
  url = \"https://api.example.org/items?ids=true&since={$since}\"
  each = \"$[*]\"
  as = \"id\"

  [[deletes]]               # what is deleted, behind all rows
  url = \"https://api.example.org/deleted?since={$since}\"
  pages = { parameter = \"page\", last = \"$.last_page\" }
  each = [\"$.results[*]\"]
  table = \"item\"
  columns = { uri = \"$\" }

{$since} is the beginning of the last run but for the slack whose requests all succeeded; at first it is 0, or what \
[since] first = \"…\" says."
)]
pub(crate) struct CrawlArguments {
    /// The spec: a TOML file. `bulk crawl --help` shows one.
    #[arg(value_name = "SPEC")]
    pub(crate) spec: PathBuf,
    #[command(flatten)]
    pub(crate) database: DatabaseArguments,
    /// Hold the spec against the database and make no request: tables, columns, keys, the input's query, and whether the
    /// input has what requests are made of.
    #[arg(long, conflicts_with_all = ["dry_run", "restart"])]
    pub(crate) check: bool,
    /// Make the calls of N records at most: of those that failed in an earlier run, then of the first ones of the input. The
    /// round stays open.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Begin anew, whatever an earlier run has left, and ask for everything where there is a watermark. Rows that it appended
    /// stay.
    #[arg(long, help_heading = PROGRESS)]
    pub(crate) restart: bool,
    /// Write the rows that were left out to this folder: SPEC.rejects.jsonl, a line of JSON each, with their calls and
    /// reasons.
    #[arg(long, value_name = "DIR", value_parser = reject_folder, help_heading = PROGRESS)]
    pub(crate) rejects: Option<PathBuf>,
    /// End the run once so many records in a row failed, such as when a session has ended; 0: never. Of those that failed in
    /// an earlier run only failures of the server count, such as status 5xx: what it says of one of them keeps no run from the
    /// others.
    #[arg(long, value_name = "N", default_value_t = 100, help_heading = PROGRESS)]
    pub(crate) give_up_after: u64,
    /// How many rows may be left out because their table cannot hold them.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, help_heading = PROGRESS)]
    pub(crate) max_rejects: u64,
    /// With how many requests in quarantine the crawl may be called complete, so that tables are replaced.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, help_heading = PROGRESS)]
    pub(crate) max_quarantined: u64,
    /// Replace a table even by one without rows.
    #[arg(long, help_heading = PROGRESS)]
    pub(crate) allow_empty: bool,
    /// Where it is noted how many requests were made lately, and for how long the API asked to wait, so that the next run keeps
    /// to both, too. Default: SPEC.limits. Specs that ask one API need one file; one of them runs at a time.
    #[arg(long, value_name = "FILE", help_heading = PROGRESS)]
    pub(crate) limits_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) goal: GoalArguments,
}

/// It was the name of a file once, of which nobody wants a folder.
fn reject_folder(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let is_file = path.extension().is_some_and(|end| ["ndjson", "jsonl", "json"].iter().any(|name| end == *name));
    match is_file && !path.is_dir() {
        true => Err("it is a folder, for SPEC.rejects.jsonl; name one".to_owned()),
        false => Ok(path),
    }
}
