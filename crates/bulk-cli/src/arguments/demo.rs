//! What `bulk demo` is asked for.

use clap::Args;

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
