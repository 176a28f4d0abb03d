//! A made-up bucket, served until the standard input ends.
//!
//! ```text
//! cargo run --release -p bulk-benches --bin serve-bucket -- [--layout builds] [--keys 60000000] [--edition 0]
//!     [--latency 100]
//! ```
//!
//! Prints its URL; the bucket is called `data`. For each line of input it prints, as JSON, what it has done since the line
//! before: requests, listings, keys listed, bytes, connections, and the CPU seconds that this took. So a client's CPU time
//! is apart from the server's, and "one LIST for each thousand keys" can be checked.

use std::time::Duration;

use bulk_benches::{Failed, serve_keys};
use bulk_testkit::s3::{KeySpace, Layout};
use clap::Parser;

/// Serves a made-up bucket on loopback.
#[derive(Parser)]
struct Arguments {
    /// How the keys look: builds, dates, hot-prefix or skewed.
    #[arg(long, default_value = "builds")]
    layout: Layout,
    /// How many there are.
    #[arg(long, default_value_t = 60_000_000)]
    keys: u64,
    /// Which state of the bucket: each differs from the one before as the next three arguments say.
    #[arg(long, default_value_t = 0)]
    edition: u64,
    /// One key in so many ends with buildhub.json.
    #[arg(long, default_value_t = 33)]
    match_one_in: u64,
    /// One object in so many has changed since the edition before. 0: none.
    #[arg(long, default_value_t = 1000)]
    changed_one_in: u64,
    /// One key in so many is gone since the edition before, and as many are new. 0: none.
    #[arg(long, default_value_t = 1000)]
    missing_one_in: u64,
    /// Milliseconds before each answer.
    #[arg(long, default_value_t = 0)]
    latency: u64,
}

fn main() -> Result<(), Failed> {
    let arguments = Arguments::parse();
    let keys = KeySpace {
        layout: arguments.layout,
        keys: arguments.keys,
        edition: arguments.edition,
        match_one_in: arguments.match_one_in,
        changed_one_in: arguments.changed_one_in,
        missing_one_in: arguments.missing_one_in,
    };
    serve_keys(keys, Duration::from_millis(arguments.latency))
}
