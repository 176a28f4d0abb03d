//! What a command that loads is asked for of records, whatever they come from.

use std::time::Duration;

use bulk_pg::LoadOptions;
use clap::Args;

use super::{REJECTS, ratio, segment, time};

/// How much is committed at once, and how much is taken.
#[derive(Debug, Args)]
pub(crate) struct RecordArguments {
    /// Commit at least this often, such as 5s: chunks that are sent in the meantime are committed together, which costs the
    /// server less. It is what a kill, a bad record or an input that ends in the middle costs, beside a chunk of each
    /// connection. 0s: each chunk by itself, as it is of standard input, with --max-rejects, --verify full or --freeze, and
    /// where connections could wait for each other's rows.
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "1s", env = "BULK_COMMIT_EVERY")]
    commit_every: Duration,
    /// Refuse records that are longer than this: a quote that is never closed makes one of the rest of the file. Memory
    /// grows to some three times the longest record. PostgreSQL takes no value of 1 GB.
    #[arg(long, value_name = "SIZE", value_parser = segment, default_value = "64MiB", help_heading = REJECTS)]
    max_record: u64,
    /// Refuse a compressed file of which comes more than N times its own size, once 64 MiB came: one that was made to fill
    /// the database. Text is rarely packed to less than a fiftieth.
    #[arg(long, value_name = "N", value_parser = ratio, default_value_t = 1000.0, help_heading = REJECTS)]
    pub(crate) max_ratio: f64,
}

impl RecordArguments {
    /// Sets up a load.
    pub(crate) fn set(&self, options: &mut LoadOptions) {
        options.commit_every = self.commit_every;
        options.max_record = usize::try_from(self.max_record).unwrap_or(usize::MAX);
    }
}
