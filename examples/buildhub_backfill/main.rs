//! The backfill of Mozilla's Buildhub: compares a bucket with a table of builds, fetches the `buildhub.json` files that are
//! new or have changed, and stores them (`bulk-s3`, `bulk-pg`).
//!
//! ```text
//! cargo run --release -p bulk-examples --example buildhub_backfill
//! cargo run --release -p bulk-examples --example buildhub_backfill -- \
//!     postgresql://me@localhost/buildhub BUCKET us-west-2 backfill.json
//! ```
//!
//! The first one serves an invented bucket from a loopback S3 server to a PostgreSQL of its own. The second one asks a public
//! bucket of that region, or of the server of a URL in its place (`http://127.0.0.1:9000`). Ended in whatever way, even by
//! `kill -9`, it goes on where it was when it is run again: the file named last says what is left.

#![allow(clippy::print_stdout, reason = "an example that shows what it does")]

mod builds;
mod made_up;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use bulk_core::Source;
use bulk_s3::{
    Bucket, BucketOptions, Checkpoint, Compare, DiffOptions, Job, KeyFilter, KnownObjects, ListOptions, PostgresKnown,
    PostgresOptions, Sink, SyncOptions, SyncStep, diff_pages, sync,
};
use bulk_testkit::{postgres, s3};
use futures::TryStreamExt;

use builds::Builds;

async fn backfill(database: &str, bucket: Bucket, checkpoint: &Path) -> Result<(), Box<dyn Error>> {
    // The table says what is known, and the sink writes it.
    builds::create_table(database).await?;
    let known =
        PostgresKnown::connect(database, bucket.name(), builds::known_table(), PostgresOptions::default()).await?;
    let known = Arc::new(known);
    let sink = Arc::new(Builds::connect(database, known.clone()).await?);

    // What an earlier run has left, if it was of the same job; else all.
    let filter = KeyFilter::all().suffix("buildhub.json");
    let mut job = Job::default();
    job.bucket = bucket.identity("");
    job.filter = filter.identity();
    job.compare = Compare::Etag.to_string();
    job.store = known.identity();
    job.target = sink.identity();
    let mut checkpoint = Checkpoint::open(checkpoint, job)?;
    if checkpoint.is_resumed() {
        println!("going on behind {} keys", checkpoint.counts.keys);
    }

    // Listed over many connections, compared stretch by stretch, fetched and stored: all of it at the same time.
    let mut listing = ListOptions::default();
    listing.ranges = checkpoint.left().to_vec();
    listing.filter = filter.clone();
    let mut comparison = DiffOptions::default();
    comparison.filter = filter;
    let stretches = diff_pages(bucket.pages(listing), known.clone(), comparison);
    let mut run = sync(stretches, Arc::new(bucket), known, sink, SyncOptions::default());
    while let Some(step) = run.try_next().await? {
        match step {
            // All of it is committed.
            SyncStep::Done(stretch) => {
                checkpoint.counts.add(&stretch);
                checkpoint.done(&stretch.range);
                checkpoint.save()?;
            }
            SyncStep::Quarantined(object) => println!("left out: {}: {}", object.key, object.reason),
            SyncStep::Removed { key, .. } => println!("gone: {key}"),
            _ => {}
        }
    }
    let (found, done) = (checkpoint.counts, run.counts());
    checkpoint.finish()?;
    println!(
        "{} keys; builds: {} added, {} modified, {} removed, {} unchanged",
        found.keys, found.added, found.modified, found.removed, found.unchanged
    );
    println!("{} fetched, {} stored, {} left out", done.fetched, done.stored, done.quarantined);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => show().await,
        [database, bucket, place, checkpoint] => {
            let mut options = BucketOptions::default();
            match place.contains("://") {
                true => options.endpoint = Some(place.clone()),
                false => options.region = Some(place.clone()),
            }
            backfill(database, Bucket::new(bucket, options)?, Path::new(checkpoint)).await
        }
        _ => Err("give a database, a bucket, a region or URL, and a file for the checkpoint; or nothing".into()),
    }
}

/// An invented bucket, and four runs over it.
async fn show() -> Result<(), Box<dyn Error>> {
    let store = made_up::objects(500).collect();
    let s3_server = s3::Server::builder().bucket("builds", store).start()?;
    let server = postgres::Server::start(&postgres::Options::default())?;
    let folder = tempfile::tempdir()?;
    let checkpoint = folder.path().join("backfill.json");
    let mut options = BucketOptions::default();
    options.endpoint = Some(s3_server.url());
    let bucket = Bucket::new("builds", options)?;
    let run = || backfill(server.url(), bucket.clone(), &checkpoint);

    run().await?;
    run().await?;
    println!("one build has changed, another one is gone, and a third is no JSON");
    s3_server.put("builds", &made_up::key(1), made_up::body(1, 2))?;
    s3_server.remove("builds", &made_up::key(2))?;
    s3_server.put("builds", &made_up::key(3), "<html>")?;
    run().await
}
