//! A disk that is really too small, and a budget that is.

use std::time::Duration;

use bulk_core::{DiskBudget, Error, Source, download};
use bulk_testkit::s3::{Fault, Rule};
use futures::StreamExt;

#[allow(dead_code)] // A part of it is used.
#[path = "support/disk.rs"]
mod disk;
#[path = "support/fetch.rs"]
mod fetch;
use fetch::*;

const THREE: [(&str, u64); 3] = [("a", 48 * MIB), ("b", 48 * MIB), ("c", 48 * MIB)];

#[tokio::test]
async fn a_consumer_that_makes_room_gets_all() {
    let Some(folder) = disk::small("a_consumer_that_makes_room_gets_all", 64 * MIB) else { return };
    let server = serve(&THREE);
    let (_, options) = recorded();
    let mut files = download(source(&server), plan(&THREE), &folder, options);
    for place in 0..3 {
        let staged = files.next().await.unwrap().outcome.unwrap();
        assert!(std::fs::read(&staged.path).unwrap() == content(place, 48 * MIB));
        std::fs::remove_file(&staged.path).unwrap();
    }
    assert!(files.next().await.is_none());
    assert_no_parts(&folder);
}

#[tokio::test]
async fn a_full_disk_pauses_and_goes_on_when_there_is_room() {
    let Some(folder) = disk::small("a_full_disk_pauses_and_goes_on_when_there_is_room", 64 * MIB) else { return };
    let server = serve(&THREE);
    let (events, options) = recorded();
    let mut files = download(source(&server), plan(&THREE), &folder, options);
    let first = files.next().await.unwrap().outcome.unwrap();
    while count(&events, "paused") == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    std::fs::remove_file(&first.path).unwrap();
    drop(first);
    let second = files.next().await.unwrap().outcome.unwrap();
    assert!(count(&events, "resumed") > 0);
    std::fs::remove_file(&second.path).unwrap();
    assert!(std::fs::read(&files.next().await.unwrap().outcome.unwrap().path).unwrap() == content(2, 48 * MIB));
}

#[tokio::test]
async fn a_disk_that_stays_full_ends_clearly_and_the_next_run_goes_on() {
    let Some(folder) = disk::small("a_disk_that_stays_full_ends_clearly_and_the_next_run_goes_on", 64 * MIB) else {
        return;
    };
    let server = serve(&THREE);
    let (_, mut options) = recorded();
    options.disk_patience = Duration::from_millis(500);
    let deliveries: Vec<_> = download(source(&server), plan(&THREE), &folder, options).collect().await;
    assert!(std::fs::read(&deliveries[0].outcome.as_ref().unwrap().path).unwrap() == content(0, 48 * MIB));
    for delivery in &deliveries[1..] {
        assert!(matches!(delivery.outcome, Err(Error::Space { .. })), "{:?}", delivery.outcome);
    }
    assert!(!folder.join("b").exists());
    drop(deliveries);
    let (_, options) = recorded();
    let mut files = download(source(&server), plan(&THREE), &folder, options);
    for (place, found) in [(0, true), (1, false), (2, false)] {
        let staged = files.next().await.unwrap().outcome.unwrap();
        assert!(std::fs::read(&staged.path).unwrap() == content(place, 48 * MIB));
        assert_eq!(staged.fetched == 0, found);
        std::fs::remove_file(&staged.path).unwrap();
    }
}

#[tokio::test]
async fn others_fill_the_disk_in_the_middle() {
    let Some(folder) = disk::small("others_fill_the_disk_in_the_middle", 64 * MIB) else { return };
    let server = serve(&[("a", 40 * MIB)]);
    let slow = server.fault(Rule::new(Fault::StallAfter(10 * MIB)).first(1));
    let (events, mut options) = recorded();
    (options.concurrency, options.segment) = (1, Some(64 * MIB));
    let mut files = download(impatient(&server, Duration::from_secs(1)), plan(&[("a", 40 * MIB)]), &folder, options);
    while slow.hits() == 0 || allocated(&folder) < 10 * MIB {
        assert!(futures::poll!(files.next()).is_pending());
        tokio::task::yield_now().await;
    }
    let others = disk::Blocks::new(&folder.join("others"));
    others.resize(40 * MIB);
    while count(&events, "paused") == 0 {
        assert!(futures::poll!(files.next()).is_pending());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    others.resize(0);
    let staged = files.next().await.unwrap().outcome.unwrap();
    assert!(std::fs::read(&staged.path).unwrap() == content(0, 40 * MIB));
}

/// A source that fills the disk when all bytes of an object have arrived, before the file is finished.
struct Filling {
    source: std::sync::Arc<dyn Source>,
    others: std::path::PathBuf,
}

#[async_trait::async_trait]
impl Source for Filling {
    fn location(&self, key: &str) -> String {
        self.source.location(key)
    }

    async fn get(&self, get: &bulk_core::Get) -> Result<bulk_core::Body, Error> {
        self.source.get(get).await
    }

    async fn digests(&self, _: &str, _: Option<&bulk_core::ETag>) -> Result<Vec<bulk_core::Digest>, Error> {
        use std::io::Write;
        let mut others = std::fs::File::create(&self.others).unwrap();
        while others.write_all(&[1; 4096]).is_ok() {}
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn others_fill_the_disk_when_all_bytes_are_there() {
    let Some(folder) = disk::small("others_fill_the_disk_when_all_bytes_are_there", 64 * MIB) else { return };
    for is_freed in [true, false] {
        let server = serve(&[("a", MIB), ("b", 0)]);
        let (events, mut options) = recorded();
        if !is_freed {
            options.disk_patience = Duration::from_secs(1);
        }
        let others = folder.join("others");
        let filling = Filling { source: source(&server), others: others.clone() };
        let mut files = download(std::sync::Arc::new(filling), plan(&[("a", MIB)]), &folder, options);
        if is_freed {
            while count(&events, "paused") == 0 {
                assert!(futures::poll!(files.next()).is_pending());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            std::fs::remove_file(&others).unwrap();
            let staged = files.next().await.unwrap().outcome.unwrap();
            assert!(std::fs::read(&staged.path).unwrap() == content(0, MIB));
            assert_eq!(events.lock().unwrap()[..], ["paused", "resumed"]);
            std::fs::remove_file(&staged.path).unwrap();
        } else {
            let error = files.next().await.unwrap().outcome.unwrap_err();
            assert!(matches!(error, Error::Space { .. }), "{error:?}");
            assert_eq!(events.lock().unwrap()[..], ["paused", "failed a"]);
            assert!(!folder.join("a").exists());
            drop(files);
            std::fs::remove_file(&others).unwrap();
        }
    }
    // And nothing that arrived is lost.
    let server = serve(&[("a", MIB)]);
    let staged = download(source(&server), plan(&[("a", MIB)]), &folder, recorded().1).next().await.unwrap();
    assert!(std::fs::read(&staged.outcome.unwrap().path).unwrap() == content(0, MIB));
}

#[tokio::test]
async fn what_can_never_fit_is_refused_before_its_first_byte() {
    for is_listed in [true, false] {
        let server = serve(&[("a", 2 * MIB), ("b", 1000)]);
        let folder = tempfile::tempdir().unwrap();
        let (_, mut options) = recorded();
        let budget = DiskBudget::new(folder.path());
        budget.set_limit(Some(MIB));
        options.budget = Some(budget);
        let mut plan = plan(&[("a", 2 * MIB), ("b", 1000)]);
        if !is_listed {
            plan.iter_mut().for_each(|request| request.size = None);
        }
        let deliveries: Vec<_> = download(source(&server), plan, folder.path(), options).collect().await;
        let Err(Error::Space { name, shortage }) = &deliveries[0].outcome else { panic!("{deliveries:?}") };
        assert_eq!((name.as_str(), shortage.needed, shortage.is_lasting), ("a", 2 * MIB, true));
        assert_eq!(deliveries[1].outcome.as_ref().unwrap().size, 1000);
        let asked = server.requests().iter().filter(|request| request.key.as_deref() == Some("a")).count();
        assert_eq!(asked, usize::from(!is_listed));
        assert_eq!(state(folder.path()), ["b.json"]);
    }
}
