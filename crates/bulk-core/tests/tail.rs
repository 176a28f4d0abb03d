//! What one slow connection, or a place in the order, does to an object whose segments are under way.

use std::time::Duration;

use bulk_core::{DiskBudget, Error, download};
use bulk_testkit::s3::{Fault, Rule, Server};
use futures::StreamExt;

#[path = "support/fetch.rs"]
mod fetch;
use fetch::*;

/// First and last byte of the range of a request for an object of `len` bytes.
fn range(range: Option<&str>, len: u64) -> (u64, u64) {
    let Some(range) = range else { return (0, len - 1) };
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    (first.parse().unwrap(), if last.is_empty() { len - 1 } else { last.parse().unwrap() })
}

async fn fetch_over_a_slow_connection(server: &Server, len: u64) {
    let folder = tempfile::tempdir().unwrap();
    let (events, mut options) = recorded();
    (options.concurrency, options.segment) = (4, Some(MIB));
    let fetching = download(source(server), plan(&[("a", len)]), folder.path(), options).collect::<Vec<_>>();
    let deliveries = tokio::time::timeout(Duration::from_secs(50), fetching).await.expect("it waits for the slow one");
    assert!(std::fs::read(&deliveries[0].outcome.as_ref().unwrap().path).unwrap() == content(0, len));
    // It is helped, and nothing failed.
    assert_eq!(*events.lock().unwrap(), Vec::<String>::new());
    assert_no_parts(folder.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_to_a_connection_that_crawls_is_asked_for_over_another() {
    const LEN: u64 = 12 * MIB;
    // The second sends nothing at all; the limit of a wait for bytes would be 60 s.
    for bandwidth in [50_000, 0] {
        let server = serve(&[("a", LEN)]);
        let slow = server.fault(Rule::new(Fault::Bandwidth(bandwidth)).connection(2));
        fetch_over_a_slow_connection(&server, LEN).await;
        let requests = server.requests();
        let crawling: Vec<_> = requests.iter().filter(|request| request.connection == 2).collect();
        assert_eq!((slow.hits(), crawling.len()), (1, 1), "it is not used again");
        let (first, last) = range(crawling[0].range.as_deref(), LEN);
        // Not all of it came over that connection, and what did not was asked for once, up to its end.
        assert!(crawling[0].bytes_sent < last + 1 - first, "{crawling:?}");
        let helps: Vec<_> = requests.iter().filter(|request| request.connection != 2).collect();
        let helps: Vec<_> = helps.iter().map(|request| range(request.range.as_deref(), LEN)).collect();
        let helps: Vec<_> = helps.into_iter().filter(|(start, end)| *start >= first && *end <= last).collect();
        assert_eq!(helps.iter().filter(|(_, end)| *end == last).count(), 1, "{helps:?} of {first}-{last}");
        if bandwidth == 0 {
            assert_eq!(helps, [(first, last)]);
        }
        let sent: u64 = requests.iter().map(|request| request.bytes_sent).sum();
        assert!(sent <= LEN + MIB, "{sent} bytes were sent");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_evicted_between_its_segments_comes_again_in_its_place() {
    let objects = [("a", 3 * MIB), ("b", 4 * MIB), ("c", 10)];
    let server = serve(&objects);
    // Until its first answer nothing else is asked of the head, so that `b` takes all that is left.
    let hang = server.fault(Rule::new(Fault::Hang).key("a").first(1));
    let folder = tempfile::tempdir().unwrap();
    let (events, mut options) = recorded();
    (options.concurrency, options.segment) = (2, Some(MIB));
    let budget = DiskBudget::new(folder.path());
    budget.set_limit(Some(4 * MIB));
    options.budget = Some(budget.clone());
    let mut files = download(source(&server), plan(&objects), folder.path(), options);
    let (hung, held) = (hang.clone(), budget.clone());
    tokio::spawn(async move {
        while hung.hits() == 0 || held.held() < 4 * MIB {
            tokio::task::yield_now().await;
        }
        hung.release();
    });
    let mut most = 0;
    for (place, (_, len)) in (0..).zip(objects) {
        let next = tokio::time::timeout(Duration::from_secs(50), files.next()).await.expect("it hangs");
        let delivery = next.unwrap();
        let staged = delivery.outcome.unwrap();
        most = most.max(allocated(folder.path()));
        assert_eq!(delivery.place, place);
        assert!(std::fs::read(&staged.path).unwrap() == content(place, len));
        std::fs::remove_file(&staged.path).unwrap();
    }
    assert!(files.next().await.is_none());
    assert_eq!(hang.hits(), 1);
    let said = events.lock().unwrap().clone();
    let evicted = said.iter().filter(|text| *text == "restart b: the file in front needs its disk space").count();
    assert_eq!(evicted, 1, "{said:?}");
    assert!(most <= 4 * MIB + 64 * KIB, "{most}");
    assert_eq!(budget.held(), 0);
    assert_no_parts(folder.path());
}

#[tokio::test]
async fn an_object_that_is_removed_between_its_segments_fails_alone() {
    let objects = [("a", 4 * MIB), ("b", 1000)];
    for nth in 1..=4 {
        let server = serve(&objects);
        let hang = server.fault(Rule::new(Fault::Hang).key("a").nth(nth));
        let folder = tempfile::tempdir().unwrap();
        let (events, mut options) = recorded();
        (options.concurrency, options.segment) = (1, Some(MIB));
        let downloads = download(source(&server), plan(&objects), folder.path(), options);
        let fetching = tokio::spawn(downloads.collect::<Vec<_>>());
        while hang.hits() == 0 {
            tokio::task::yield_now().await;
        }
        server.remove(BUCKET, "a").unwrap();
        hang.release();
        let deliveries = tokio::time::timeout(Duration::from_secs(50), fetching).await.expect("it hangs").unwrap();
        assert!(matches!(deliveries[0].outcome, Err(Error::NotFound { .. })), "{deliveries:?}");
        assert!(std::fs::read(&deliveries[1].outcome.as_ref().unwrap().path).unwrap() == content(1, 1000));
        assert!(!folder.path().join("a").exists());
        assert_eq!((count(&events, "retry a"), count(&events, "failed a")), (1, 1));
        assert_eq!(server.requests().len() as u64, nth + 2);
    }
}
