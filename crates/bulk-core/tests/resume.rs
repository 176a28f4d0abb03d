//! What an earlier run left, in whatever state: it is gone on with, or begun anew, and the file is right.

use std::path::Path;

use bulk_core::{Event, Keep, download, stream};
use bulk_testkit::s3::{Fault, Object, Rule};
use futures::StreamExt;
use tokio::io::AsyncReadExt;

#[path = "support/fetch.rs"]
mod fetch;
use fetch::*;

const LEN: u64 = 1_000_000;

/// Leaves a part of 900,000 bytes and its record.
async fn leave_part(folder: &Path) -> bulk_testkit::s3::Server {
    let server = serve(&[("a", LEN)]);
    let fault = server.fault(Rule::new(Fault::Truncate(900_000)));
    let (_, mut options) = recorded();
    options.retry.attempts = 1;
    (options.concurrency, options.segment) = (1, Some(LEN));
    let deliveries: Vec<_> = download(source(&server), plan(&[("a", LEN)]), folder, options).collect().await;
    assert!(deliveries[0].outcome.is_err());
    assert_eq!(state(folder), ["a.json", "a.part"]);
    fault.remove();
    server
}

/// What a run fetches of an object that is then `seed`'s.
async fn fetched(server: &bulk_testkit::s3::Server, folder: &Path, seed: u64, len: u64) -> u64 {
    let (_, mut options) = recorded();
    options.observer = std::sync::Arc::new(|_: &Event<'_>| {});
    let request = [bulk_core::Request::new("a")];
    let deliveries: Vec<_> = download(source(server), request, folder, options).collect().await;
    let staged = deliveries[0].outcome.as_ref().unwrap();
    assert!(std::fs::read(&staged.path).unwrap() == content(seed, len));
    assert_no_parts(folder);
    staged.fetched
}

#[tokio::test]
async fn a_record_that_cannot_be_trusted_is_not() {
    let whole = std::iter::repeat_n(' ', 5 << 20).collect::<String>();
    type Damage<'a> = Box<dyn Fn(&str) -> String + 'a>;
    let range = |start: u64, end: u64| format!("[{{\"start\":{start},\"end\":{end},\"crc\":null}}]");
    let ranges = |text: &str, with: &str| {
        let mut record: serde_json::Value = serde_json::from_str(text).unwrap();
        record["ranges"] = serde_json::from_str(with).unwrap();
        record.to_string()
    };
    let damages: Vec<(&str, Damage<'_>, u64)> = vec![
        ("as it is", Box::new(str::to_owned), 100_000),
        ("empty", Box::new(|_| String::new()), LEN),
        ("torn", Box::new(|text| text[..text.len() / 2].to_owned()), LEN),
        ("garbage", Box::new(|_| "\u{0}\u{1}{[".to_owned()), LEN),
        ("oversized", Box::new(|text| format!("{text}{whole}")), LEN),
        ("nested", Box::new(|_| "[".repeat(1 << 20)), LEN),
        ("beyond the size", Box::new(move |text| ranges(text, &range(0, LEN + 1))), LEN),
        ("beyond all numbers", Box::new(move |text| ranges(text, &range(0, u64::MAX))), LEN),
        ("negative", Box::new(move |text| ranges(text, &range(0, 1).replace("\"end\":1", "\"end\":-1"))), LEN),
        ("backwards", Box::new(move |text| ranges(text, &range(9, 8))), LEN),
        ("empty stretch", Box::new(move |text| ranges(text, &range(8, 8))), LEN),
        (
            "overlapping",
            Box::new(move |text| {
                let both = format!("{},{}", range(0, 9), range(5, 20)).replace("],[", ",");
                ranges(text, &both)
            }),
            LEN,
        ),
        ("of another object", Box::new(|text| text.replace("\"key\":\"a\"", "\"key\":\"b\"")), LEN),
        ("of another version", Box::new(|text| text.replace("\"etag\":\"", "\"etag\":\"x")), LEN),
    ];
    for (name, damage, expected) in damages {
        let folder = tempfile::tempdir().unwrap();
        let server = leave_part(folder.path()).await;
        let path = folder.path().join(".bulk/a.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, damage(&text)).unwrap();
        assert_eq!(fetched(&server, folder.path(), 0, LEN).await, expected, "{name}");
    }
}

#[tokio::test]
async fn a_part_that_was_cut_extended_or_removed_is_no_trap() {
    for (len, expected) in [(Some(0), LEN), (Some(400_000), LEN - 400_000), (Some(5_000_000), 100_000), (None, LEN)] {
        let folder = tempfile::tempdir().unwrap();
        let server = leave_part(folder.path()).await;
        let part = folder.path().join(".bulk/a.part");
        match len {
            Some(len) => std::fs::File::options().write(true).open(part).unwrap().set_len(len).unwrap(),
            None => std::fs::remove_file(part).unwrap(),
        }
        assert_eq!(fetched(&server, folder.path(), 0, LEN).await, expected, "{len:?}");
    }
}

#[tokio::test]
async fn an_object_of_another_version_or_size_is_begun_anew() {
    for len in [LEN, LEN - 1, LEN + 1, 800_000, 0] {
        let folder = tempfile::tempdir().unwrap();
        let server = leave_part(folder.path()).await;
        server.put(BUCKET, "a", Object::made_up(len, 5)).unwrap();
        assert_eq!(fetched(&server, folder.path(), 5, len).await, len, "{len}");
    }
}

#[tokio::test]
async fn a_part_of_another_version_is_not_read_while_the_rest_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let server = leave_part(folder.path()).await;
    server.put(BUCKET, "a", Object::made_up(LEN, 5)).unwrap();
    let slow = server.fault(Rule::new(Fault::Latency(std::time::Duration::from_millis(200))).first(1));
    let request = [bulk_core::Request::new("a")];
    let mut bodies = stream(source(&server), request, folder.path(), Keep::File, recorded().1);
    let mut bytes = Vec::new();
    bodies.next().await.unwrap().outcome.unwrap().read_to_end(&mut bytes).await.unwrap();
    assert!(bytes == content(5, LEN));
    assert_eq!(slow.hits(), 1);
}
