//! The whole path in one program: list, choose, fetch in order, decode, load, index (all crates).
//!
//! ```text
//! cargo run --release -p bulk-examples --example mirror
//! ```
//!
//! It serves an invented snapshot of three tables from a loopback S3 server and loads it into a PostgreSQL of its own.
//! `bulk mirror` is this, with several files loaded at once, a catalogue, and reports.

#![allow(clippy::print_stdout, reason = "an example that shows what it does")]

use std::cmp::Reverse;
use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::Arc;

use bulk_archive::{DecodeOptions, Decoder};
use bulk_core::{DownloadOptions, Request, download};
use bulk_pg::{
    FileIdentity, Input, LoadOptions, Plain, PostDataOptions, Schema, Session, TableName, apply_post_data,
    apply_pre_data, load, prepare_ledger,
};
use bulk_s3::{Bucket, BucketOptions, Wanted, choose_snapshot};
use bulk_testkit::{postgres, s3, snapshot};
use futures::{StreamExt, TryStreamExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let tables = HashMap::from([
        ("courts", "search_court"),
        ("court-appeals-to", "search_court_appeals_to"),
        ("courthouses", "search_courthouse"),
    ]);
    let names = tables.keys().map(|base| (*base).to_owned()).collect();
    let spec = snapshot::Spec { scale: 0.01, tables: names, ..snapshot::Spec::default() };
    let made = snapshot::generate(&spec, &folder.path().join("bucket"))?;
    let schema = Schema::parse(&std::fs::read_to_string(made.dir.join(&made.schema))?)?;
    let store = s3::Store::folder(&made.dir, s3::EtagStyle::Md5);
    let s3_server = s3::Server::builder().bucket("data", store).start()?;
    let server = postgres::Server::start(&postgres::Options::default())?;

    // What there is, and which of it is the newest whole snapshot.
    let mut options = BucketOptions::default();
    options.endpoint = Some(s3_server.url());
    let bucket = Bucket::new("data", options)?;
    let listing: Vec<_> = bucket.list("").try_collect().await?;
    let snapshot = choose_snapshot(listing, &Wanted::new(tables.keys().copied()))?;
    let mut files: Vec<(TableName, Request)> = snapshot
        .files
        .iter()
        .map(|(base, object)| Ok((tables[base.as_str()].parse()?, object.request())))
        .collect::<Result<_, Box<dyn Error>>>()?;
    files.sort_by_key(|(_, request)| Reverse(request.size));
    let (wanted, plan): (Vec<TableName>, Vec<Request>) = files.into_iter().unzip();

    // Tables first, rows next, indexes and keys last.
    let mut sessions = vec![Session::connect(server.url()).await?, Session::connect(server.url()).await?];
    prepare_ledger(&sessions[0]).await?;
    let mut phases = schema.plan();
    apply_pre_data(&mut sessions[0], &mut phases, &wanted).await?;
    let mut arriving = download(Arc::new(bucket), plan, folder.path().join("files"), DownloadOptions::default());
    while let Some(delivery) = arriving.next().await {
        let table = &wanted[usize::try_from(delivery.place)?];
        let staged = delivery.outcome?;
        let etag = staged.etag.as_ref().map(ToString::to_string);
        let identity = FileIdentity::new(&delivery.request.key, etag, staged.size);
        let open = move || {
            let decoder = Decoder::open(&staged.path, &DecodeOptions::default()).map_err(io::Error::other)?;
            Ok(Box::new(Plain(decoder)) as Box<dyn Input>)
        };
        let loaded = load(&mut sessions[..1], table, &identity, open, &LoadOptions::default()).await?;
        println!("{table:#}: {} rows", loaded.records);
    }
    let done = apply_post_data(&mut sessions, &phases, &wanted, &PostDataOptions::default()).await?;
    println!("{} indexes and constraints made, {} keys violated", done.applied, done.orphans.len());
    Ok(())
}
