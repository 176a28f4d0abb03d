//! Parts that an earlier run left and this one does not ask for, or not yet.

use std::path::Path;
use std::time::Duration;

use bulk_core::{DiskBudget, Keep, Request, download, stream};
use bulk_testkit::s3::{Fault, Rule, Server};
use futures::StreamExt;
use tokio::io::AsyncReadExt;

#[path = "support/fetch.rs"]
mod fetch;
use fetch::*;

const LEN: u64 = 1_000_000;
const PART: u64 = 900_000;
const OBJECTS: [(&str, u64); 4] = [("a", LEN), ("sub/b", LEN), ("c", LEN), ("d", 1000)];

/// A server, and a folder with parts of 900,000 bytes of `a`, `sub/b` and `c`.
async fn leave_parts(folder: &Path) -> Server {
    let server = serve(&OBJECTS);
    let fault = server.fault(Rule::new(Fault::Truncate(PART)));
    let (_, mut options) = recorded();
    options.retry.attempts = 1;
    options.segment = Some(LEN);
    let deliveries: Vec<_> = download(source(&server), plan(&OBJECTS[..3]), folder, options).collect().await;
    assert!(deliveries.iter().all(|delivery| delivery.outcome.is_err()));
    fault.remove();
    server.clear_requests();
    server
}

/// The sizes of the parts in a folder, by name.
fn parts(folder: &Path) -> Vec<(String, u64)> {
    let state = folder.join(".bulk");
    let mut parts = Vec::new();
    for name in ["a", "sub/b", "c", "d", "never"] {
        parts.extend(std::fs::metadata(state.join(format!("{name}.part"))).map(|part| (name.to_owned(), part.len())));
    }
    parts
}

#[tokio::test]
async fn what_can_be_resumed_is_kept_counted_and_said_and_the_rest_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let server = leave_parts(folder.path()).await;
    let state = folder.path().join(".bulk");
    // Torn, without a record, and without a version.
    std::fs::write(state.join("a.json"), "{\"key\":").unwrap();
    std::fs::write(state.join("a.json.new"), "{").unwrap();
    std::fs::write(state.join("never.part"), vec![1; 5000]).unwrap();
    let text = std::fs::read_to_string(state.join("c.json")).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    (record["etag"], record["last_modified"]) = (serde_json::Value::Null, serde_json::Value::Null);
    std::fs::write(state.join("c.json"), record.to_string()).unwrap();
    // Not ours.
    std::fs::write(state.join("d.extracted"), "x").unwrap();

    let budget = DiskBudget::new(folder.path());
    let (events, mut options) = recorded();
    options.budget = Some(budget.clone());
    let deliveries: Vec<_> = download(source(&server), plan(&OBJECTS[3..]), folder.path(), options).collect().await;
    assert!(std::fs::read(&deliveries[0].outcome.as_ref().unwrap().path).unwrap() == content(3, 1000));
    drop(deliveries);
    let mut said = events.lock().unwrap().clone();
    said.sort();
    let why = "nothing says what it is a part of, or of which version";
    let expected = ["a", "c", "never"].map(|name| format!("removed {name}: {why}"));
    assert_eq!(said[0], format!("kept sub/b: {PART}"));
    assert_eq!(said[1..], expected);
    assert_eq!(parts(folder.path()), [("sub/b".to_owned(), PART)]);
    assert!(state.join("d.extracted").exists() && !state.join("a.json.new").exists());

    // A run that asks for it goes on with it, and says nothing.
    let (events, options) = recorded();
    let deliveries: Vec<_> = download(source(&server), plan(&OBJECTS[1..2]), folder.path(), options).collect().await;
    let staged = deliveries[0].outcome.as_ref().unwrap();
    assert_eq!((staged.fetched, events.lock().unwrap().len()), (LEN - PART, 0));
    assert!(std::fs::read(&staged.path).unwrap() == content(1, LEN));
    assert_eq!(parts(folder.path()), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_that_are_asked_for_later_count_from_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let server = leave_parts(folder.path()).await;
    let hang = server.fault(Rule::new(Fault::Hang).key("d"));
    let budget = DiskBudget::new(folder.path());
    let (_, mut options) = recorded();
    options.budget = Some(budget.clone());
    // The plan waits behind its first file.
    let (sender, receiver) = std::sync::mpsc::channel();
    sender.send(plan(&OBJECTS[3..]).remove(0)).unwrap();
    let source = impatient(&server, Duration::from_secs(1));
    let mut files = download(source, receiver, folder.path(), options);
    while hang.hits() == 0 {
        assert!(futures::poll!(files.next()).is_pending());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(budget.held() - budget.unwritten(), 3 * PART);
    for request in plan(&OBJECTS[..3]) {
        sender.send(request).unwrap();
    }
    drop(sender);
    server.clear_faults();
    let deliveries: Vec<_> = files.collect().await;
    let fetched: Vec<_> = deliveries.iter().map(|delivery| delivery.outcome.as_ref().unwrap().fetched).collect();
    assert_eq!(fetched, [1000, LEN - PART, LEN - PART, LEN - PART]);
    assert_eq!(budget.held(), 3 * LEN + 1000);
    drop(deliveries);
    assert_eq!(budget.held(), 0);
}

#[tokio::test]
async fn the_file_in_front_gets_the_space_of_what_is_not_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let server = leave_parts(folder.path()).await;
    let budget = DiskBudget::new(folder.path());
    budget.set_limit(Some(2_000_000));
    let (events, mut options) = recorded();
    options.budget = Some(budget.clone());
    options.disk_patience = Duration::from_secs(60);
    let deliveries: Vec<_> = download(source(&server), plan(&OBJECTS[..1]), folder.path(), options).collect().await;
    let staged = deliveries[0].outcome.as_ref().unwrap();
    assert_eq!(staged.fetched, LEN - PART);
    assert!(std::fs::read(&staged.path).unwrap() == content(0, LEN));
    // With 900,000 bytes of one of them there is room for the last 100,000 of the front.
    let said = events.lock().unwrap().clone();
    assert_eq!(
        said.iter().filter(|text| text.ends_with("the file in front needs its disk space")).count(),
        1,
        "{said:?}"
    );
    assert_eq!(said.iter().filter(|text| text.starts_with("kept ")).count(), 1, "{said:?}");
    assert_eq!(parts(folder.path()).len(), 1);
}

#[tokio::test]
async fn a_part_that_a_stopped_run_did_not_come_to_is_neither_removed_nor_said() {
    let folder = tempfile::tempdir().unwrap();
    let server = leave_parts(folder.path()).await;
    std::fs::write(folder.path().join(".bulk/never.part"), [1; 50]).unwrap();
    let hang = server.fault(Rule::new(Fault::Hang).key("d"));
    let (events, mut options) = recorded();
    let stop = options.stop.clone();
    options.window = 1;
    let plan = plan(&OBJECTS[3..]).into_iter().chain(std::iter::repeat_with(|| Request::new("d")));
    let mut files = download(source(&server), plan, folder.path(), options);
    while hang.hits() == 0 {
        assert!(futures::poll!(files.next()).is_pending());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stop.cancel();
    while files.next().await.is_some() {}
    let said = events.lock().unwrap().clone();
    assert!(said.iter().all(|text| !text.starts_with("kept") && !text.starts_with("removed")), "{said:?}");
    assert_eq!(parts(folder.path()).len(), 4);
}

#[tokio::test]
async fn bytes_behind_the_record_do_not_count_twice() {
    let folder = tempfile::tempdir().unwrap();
    let server = leave_parts(folder.path()).await;
    // What a killed run leaves: the part has more than its record says.
    let path = folder.path().join(".bulk/a.part");
    let record = folder.path().join(".bulk/a.json");
    let text = std::fs::read_to_string(&record).unwrap();
    let mut told: serde_json::Value = serde_json::from_str(&text).unwrap();
    told["ranges"] =
        serde_json::from_str(r#"[{"start":0,"end":100000,"crc":null},{"start":400000,"end":500000,"crc":null}]"#)
            .unwrap();
    std::fs::write(&record, told.to_string()).unwrap();
    let hang = server.fault(Rule::new(Fault::Hang));
    let (_, mut options) = recorded();
    options.concurrency = 1;
    let mut bodies = stream(source(&server), plan(&OBJECTS[..1]), folder.path(), Keep::File, options);
    while hang.hits() == 0 {
        assert!(futures::poll!(bodies.next()).is_pending());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let metadata = std::fs::metadata(&path).unwrap();
    let blocks = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
    assert_eq!(metadata.len(), 500_000);
    assert!((200_000..=200_000 + 5 * 4096).contains(&blocks), "{blocks} bytes on the disk");
    drop(bodies);
    server.clear_faults();
    let mut bodies = stream(source(&server), plan(&OBJECTS[..1]), folder.path(), Keep::File, recorded().1);
    let mut bytes = Vec::new();
    bodies.next().await.unwrap().outcome.unwrap().read_to_end(&mut bytes).await.unwrap();
    assert!(bytes == content(0, LEN));
}
