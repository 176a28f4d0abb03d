//! What `bulk report` is asked for.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  A run that is written down, and then read:
    bulk load people.csv.bz2 --table people --db URL --report run.json
    bulk report run.json
  The same as a page that needs no network:
    bulk report run.json --html run.html
  What another run of it did otherwise:
    bulk load people.csv.bz2 --table people --db URL --connections 4 --restart --report faster.json
    bulk report run.json faster.json

`bulk --help` tells what the exit status means.")]
pub(crate) struct ReportArguments {
    /// What --report of any command has written.
    #[arg(value_name = "RUN.json")]
    pub(crate) run: PathBuf,
    /// A later run, which is compared with the first: its time, its bottleneck, and what each stage took.
    #[arg(value_name = "OTHER.json", conflicts_with = "html")]
    pub(crate) later: Option<PathBuf>,
    /// Write the report to this file, as one page of HTML that needs nothing else: verdict, stages and throughput over time,
    /// files and rejects.
    #[arg(long, value_name = "OUT.html")]
    pub(crate) html: Option<PathBuf>,
}
