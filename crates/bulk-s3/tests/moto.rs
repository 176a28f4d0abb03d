//! Against moto: an S3 server that nobody here wrote, with all keys that S3 allows, but for those with a line feed, for which
//! it has no route.

mod servers;

use bulk_s3::{Bucket, BucketOptions, Compare, Credentials};
use bulk_testkit::moto;
use servers::{Objects, UNASKABLE, check_listing, check_resume, check_sync, many, odd};

/// Several connections at once, as each takes moto some milliseconds.
fn serve() -> (moto::Server, Bucket, Objects) {
    let server = moto::Server::start().unwrap();
    server.create_bucket("data").unwrap();
    let objects: Objects = many(1300).chain(odd()).collect();
    let all: Vec<_> = objects.iter().collect();
    std::thread::scope(|scope| {
        for part in all.chunks(all.len().div_ceil(8)) {
            let server = &server;
            scope.spawn(move || part.iter().for_each(|(key, body)| server.put("data", key, body).unwrap()));
        }
    });
    let mut options = BucketOptions::default();
    options.endpoint = Some(server.url());
    options.credentials =
        Credentials::Static { key_id: "testing".to_owned(), secret: "testing".to_owned(), token: None };
    let bucket = Bucket::new("data", options).unwrap();
    (server, bucket, objects)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_listed_resumed_and_synced() {
    let (server, bucket, objects) = tokio::task::spawn_blocking(serve).await.unwrap();
    check_listing(&bucket, &objects, true).await;
    check_resume(&bucket, &objects).await;
    let edit = |key: &str, body: Option<&[u8]>| match body {
        Some(body) => server.put("data", key, body).unwrap(),
        None => server.remove("data", key).unwrap(),
    };
    check_sync(&bucket, &objects, &UNASKABLE, Compare::Etag, edit).await;
}
