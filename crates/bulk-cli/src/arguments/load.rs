//! What `bulk load` is asked for.

use std::path::PathBuf;

use clap::Args;

use super::{
    BucketArguments, DISK, DatabaseArguments, DiskArguments, GoalArguments, REJECTS, ROWS, RecordArguments, number,
    segment,
};

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
    /// What stands between the values of CSV files: one character, such as ';', or tab. Default: a comma.
    #[arg(long, value_name = "CHARACTER", value_parser = delimited, conflicts_with = "dialect")]
    pub(crate) delimiter: Option<bulk_pg::Dialect>,
    /// Give a column that the files lack this value in every row. A rerun is to give the same.
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
    /// Leave out bad records, up to this many of a file; they are noted in bulk.reject. Default: the first one ends the
    /// load.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, help_heading = REJECTS)]
    pub(crate) max_rejects: u64,
    #[command(flatten)]
    pub(crate) records: RecordArguments,
    /// Write what is left out of FILE to this folder: FILE.rejects as it stands there, and FILE.rejects.jsonl with why.
    #[arg(long, value_name = "DIR", requires = "max_rejects", help_heading = REJECTS)]
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
    /// interrupted load begins anew. Frozen rows are visible to transactions that began before, too.
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

impl Load {
    /// Whether it loads what comes over standard input and nobody can tell from what another run is given.
    pub(crate) fn is_unnamed(&self) -> bool {
        self.name.is_none() && self.reads_stdin()
    }

    /// Whether any of it comes over standard input.
    pub(crate) fn reads_stdin(&self) -> bool {
        self.files.iter().any(|file| file.as_os_str() == "-")
    }
}

/// CSV with this between its values, and quotes where they are needed.
fn delimited(text: &str) -> Result<bulk_pg::Dialect, String> {
    let delimiter = match text.as_bytes() {
        b"tab" | b"\\t" => b'\t',
        [byte] => *byte,
        _ => return Err("it is one ASCII character, or tab".to_owned()),
    };
    bulk_pg::Dialect::new(delimiter, b'"', b'"', bulk_pg::Quoting::AsNeeded).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::delimited;

    #[test]
    fn a_delimiter_is_one_character_or_tab() {
        for (text, delimiter) in [(";", b';'), ("tab", b'\t'), ("\\t", b'\t'), ("\t", b'\t'), ("|", b'|'), (",", b',')]
        {
            assert_eq!(delimited(text).unwrap().delimiter(), delimiter, "{text}");
        }
        for text in ["", "\"", ";;", "§", "\n", "tabs"] {
            assert!(delimited(text).is_err(), "{text}");
        }
    }
}
