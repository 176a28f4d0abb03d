//! The spans of a download and of objects, as a subscriber of the program hears of them. It is of the whole process, so this
//! is one test.

use std::sync::Arc;

use bulk_core::{DownloadOptions, HttpSource, ObjectOptions, Request, download, fetch_objects};
use bulk_testkit::s3::{Server, Store};
use bulk_testkit::spans::Spans;
use futures::{StreamExt, stream};

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_on_is_in_spans() {
    let spans = Spans::record();
    let store: Store = ["a", "b"].map(|key| (key, "0123456789")).into_iter().collect();
    let server = Server::builder().bucket("data", store).start().unwrap();
    let source = Arc::new(HttpSource::new(&format!("{}/data", server.url())).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut options = DownloadOptions::default();
    options.concurrency = 1;
    let requests = ["a", "b"].map(Request::new);
    let mut files = download(source.clone(), requests.clone(), folder.path(), options);
    while let Some(delivery) = files.next().await {
        delivery.outcome.unwrap();
    }
    drop(files);
    let objects = fetch_objects(source, stream::iter(requests), ObjectOptions::default());
    assert_eq!(objects.map(|fetched| fetched.outcome.unwrap().bytes.len()).collect::<Vec<_>>().await, [10, 10]);

    let run = format!("download{{folder={}}}", folder.path().display());
    // The task of the run may end a moment behind its stream.
    while !spans.closed().contains(&run) {
        tokio::task::yield_now().await;
    }
    let mut found = spans.closed();
    found.dedup();
    let expected = [
        run,
        "finish{}".to_owned(),
        "object{key=a}".to_owned(),
        "object{key=b}".to_owned(),
        "segment{file=a}".to_owned(),
        "segment{file=b}".to_owned(),
    ];
    assert_eq!(found, expected);
}
