//! What `bulk doctor` is asked for.

use std::path::PathBuf;

use clap::Args;

use super::{BucketArguments, DatabaseArguments};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  Whether a mirror of CourtListener would find its bucket, the database and room:
    bulk doctor --db postgresql://me@localhost/courts --dir /srv/bulk
  A bucket and a database for a sync:
    bulk doctor s3://bucket/builds/ --db URL
  What runs every night: an export, a crawl, a data set of your own:
    bulk doctor export.toml stats.toml my-data.toml --db URL --dir /srv/archives

`bulk --help` tells what the exit status means.")]
pub(crate) struct Doctor {
    /// What is to be worked with: a data set of the catalogue, a TOML file that describes one, s3://bucket/prefix,
    /// file:///folder, https://host/file, or the spec of an export or a crawl, which is held against the database without
    /// reading a row and making a request. Can be given again. Default: courtlistener.
    #[arg(value_name = "WHAT")]
    pub(crate) what: Vec<String>,
    #[command(flatten)]
    pub(crate) database: DatabaseArguments,
    /// The folder that files would wait in, or archives be written to.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) bucket: BucketArguments,
}
