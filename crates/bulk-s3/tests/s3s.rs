//! Against s3s-fs: another S3 server that nobody here wrote, over a folder. It lists no ETags, and says that keys are encoded
//! that are not, so there are none here with a `%` or a `+`.

mod servers;

use std::fs;

use bulk_s3::{Bucket, BucketOptions, Compare};
use bulk_testkit::s3s;
use servers::{Objects, check_listing, check_resume, check_sync, many};

#[tokio::test(flavor = "multi_thread")]
async fn it_is_listed_resumed_and_synced() {
    let root = tempfile::tempdir().unwrap();
    let long = ["x"; 5].map(|x| x.repeat(204)).join("/");
    assert_eq!(long.len(), 1024);
    let odd =
        ["odd b", " odd ", "odd&c<d>\"e'", "odd?b=c#d", "odd*b", "é", "e\u{301}", "漢/字", "😀", "\u{ffee}", &long];
    let odd = odd.map(|key| (key.to_owned(), format!("body of {key}").into_bytes()));
    let objects: Objects = many(2100).chain(odd).collect();
    let path = |key: &str| root.path().join("data").join(key);
    for (key, body) in &objects {
        fs::create_dir_all(path(key).parent().unwrap()).unwrap();
        fs::write(path(key), body).unwrap();
    }
    let program = tokio::task::spawn_blocking(|| s3s::program(&std::env::temp_dir())).await.unwrap().unwrap();
    let server = s3s::Server::start(&program, root.path()).unwrap();
    let mut options = BucketOptions::default();
    options.endpoint = Some(server.url().to_owned());
    let bucket = Bucket::new("data", options).unwrap();
    check_listing(&bucket, &objects, false).await;
    check_resume(&bucket, &objects).await;
    let edit = |key: &str, body: Option<&[u8]>| match body {
        Some(body) => fs::write(path(key), body).unwrap(),
        None => fs::remove_file(path(key)).unwrap(),
    };
    check_sync(&bucket, &objects, &[], Compare::Size, edit).await;
}
