//! The spans of a sync, as a subscriber of the program hears of them. It is of the whole process, so this is one test.

use std::sync::Arc;

use bulk_s3::{
    Bucket, BucketOptions, DiffOptions, FolderSink, ListOptions, MemoryKnown, SyncOptions, diff_pages, sync,
};
use bulk_testkit::s3::{Server, Store};
use bulk_testkit::spans::Spans;
use futures::TryStreamExt;

#[tokio::test]
async fn what_goes_on_is_in_spans() {
    let spans = Spans::record();
    let store: Store = [("a/1", "{}"), ("a/2", "[]")].into_iter().collect();
    let server = Server::builder().bucket("data", store).start().unwrap();
    let mut options = BucketOptions::default();
    options.endpoint = Some(server.url());
    let bucket = Bucket::new("data", options).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (known, sink) = (Arc::new(MemoryKnown::new()), Arc::new(FolderSink::open(folder.path()).unwrap()));
    let mut listing = ListOptions::default();
    (listing.prefix, listing.connections) = ("a/".to_owned(), 1);
    let stretches = diff_pages(bucket.pages(listing), known.clone(), DiffOptions::default());
    let mut run = sync(stretches, Arc::new(bucket), known, sink, SyncOptions::default());
    while run.try_next().await.unwrap().is_some() {}
    assert_eq!(run.counts().stored, 2);

    let mut found = spans.closed();
    // They may come to the sink together, or one after the other.
    let stores = found.iter().filter(|name| name.starts_with("store{objects=")).count();
    found.retain(|name| !name.starts_with("store{objects="));
    assert_eq!(found, ["object{key=a/1}", "object{key=a/2}", "page{prefix=a/}"]);
    assert!((1..=2).contains(&stores));
}
