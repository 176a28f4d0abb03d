//! Listings over several connections, against a server that sorts as S3 does.

use std::collections::{BTreeMap, BTreeSet};

use bulk_s3::{Batch, Bucket, BucketOptions, Error, KeyFilter, KeyRange, ListOptions, Page};
use bulk_testkit::s3::{Fault, Quirk, Rule, Server, Store};
use futures::{StreamExt, TryStreamExt};

fn bucket(server: &Server) -> Bucket {
    let mut options = BucketOptions::default();
    options.endpoint = Some(server.url());
    options.retry.initial = std::time::Duration::ZERO;
    options.retry.attempts = 3;
    Bucket::new("data", options).unwrap()
}

fn serve(keys: impl IntoIterator<Item = String>, page: usize) -> Server {
    let store = keys.into_iter().map(|key| (key, "x")).collect::<Store>();
    Server::builder().bucket("data", store).max_keys_cap(page).start().unwrap()
}

/// The keys of all pages, after a look at whether the stretches are those that were asked for.
fn together(pages: Vec<Page>, asked: &[KeyRange]) -> Vec<String> {
    let mut lanes: BTreeMap<u64, &Page> = BTreeMap::new();
    for page in &pages {
        if let Some(before) = lanes.insert(page.lane, page) {
            assert!(!before.is_last, "{before:?}");
            assert_eq!(before.range.until, page.range.after);
        }
    }
    assert!(lanes.values().all(|page| page.is_last));
    let mut ranges: Vec<&KeyRange> = pages.iter().map(|page| &page.range).filter(|range| !range.is_empty()).collect();
    ranges.sort_by(|a, b| a.after.cmp(&b.after));
    let mut joined: Vec<KeyRange> = Vec::new();
    for range in ranges {
        match joined.last_mut().filter(|last| last.until.is_some() && last.until == range.after) {
            Some(last) => last.until.clone_from(&range.until),
            None => joined.push(range.clone()),
        }
    }
    assert_eq!(joined, asked);
    let mut keys = Vec::new();
    for page in &pages {
        assert!(page.objects.iter().all(|object| page.range.contains(object.key)), "{page:?}");
        keys.extend(page.objects.iter().map(|object| object.key.to_owned()));
    }
    keys.sort();
    keys
}

fn layouts() -> Vec<(&'static str, BTreeSet<String>)> {
    let flat = (0..3000).map(|number| format!("builds/{number:08}.json"));
    let dates = (0..3000).map(|number| {
        let (year, month, day) = (2015 + number / 600, number / 50 % 12 + 1, number % 50 / 2 + 1);
        format!("a/very/long/prefix/that/all/keys/share/{year}/{month:02}/{day:02}/{number}.json")
    });
    let hot = (0..3000).map(|number| if number % 100 == 0 { format!("{number}/x") } else { format!("hot/{number:x}") });
    let odd = (0..300).flat_map(|number| {
        ["a//b", "/", "a/./", "../", "a b", "+", "%2F", "\u{1}", "é/", "漢", "\u{10ffff}", "~"]
            .map(|odd| format!("{odd}{number}"))
    });
    vec![
        ("flat", flat.collect()),
        ("dates", dates.collect()),
        ("hot", hot.collect()),
        ("odd", odd.collect()),
        ("none", BTreeSet::new()),
        ("one", BTreeSet::from(["x".to_owned()])),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_comes_once_whatever_the_layout() {
    for (name, wanted) in layouts() {
        let server = serve(wanted.iter().cloned(), 50);
        for connections in [1, 2, 7, 32] {
            let mut options = ListOptions::default();
            options.connections = connections;
            let before = server.requests().len();
            let pages: Vec<Page> = bucket(&server).pages(options).try_collect().await.unwrap();
            let requests = server.requests().len() - before;
            assert_eq!(pages.iter().map(|page| page.keys).sum::<u64>(), wanted.len() as u64, "{name}");
            let lanes = pages.iter().map(|page| page.lane).collect::<BTreeSet<_>>().len();
            assert_eq!(pages.len(), requests, "{name} {connections}");
            // The last page of each lane may have been cut short.
            assert!(
                requests <= wanted.len().div_ceil(50).max(1) + lanes,
                "{name} {connections}: {requests} for {lanes}"
            );
            let keys = together(pages, &[KeyRange::all()]);
            assert!(keys.iter().eq(wanted.iter()), "{name} {connections}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stretches_and_filters_choose() {
    let keys: BTreeSet<String> =
        (0..2000).map(|number| format!("a/{number:05}.{}", ["json", "zip"][number % 2])).collect();
    let server = serve(keys.iter().cloned().chain(["b".to_owned()]), 100);
    let range = |after: &str, until: Option<&str>| KeyRange::new(Some(after.to_owned()), until.map(str::to_owned));
    let ranges = vec![range("a/00099.zip", Some("a/00500.json")), range("a/01990.json", None)];
    let mut options = ListOptions::default();
    options.prefix = "a/".to_owned();
    options.ranges = ranges.clone();
    options.filter = KeyFilter::all().suffix(".json");
    options.connections = 4;
    let pages: Vec<Page> = bucket(&server).pages(options).try_collect().await.unwrap();
    let wanted = |key: &&String| key.ends_with(".json") && ranges.iter().any(|range| range.contains(key));
    let wanted: Vec<_> = keys.iter().filter(wanted).cloned().collect();
    assert_eq!(pages.iter().map(|page| page.keys).sum::<u64>(), 401 + 9);
    assert_eq!(together(pages, &ranges), wanted);
}

#[tokio::test]
async fn an_error_ends_the_listing() {
    let server = serve((0..500).map(|number| format!("{number:04}")), 10);
    server.fault(Rule::new(Fault::HtmlInsteadOfXml).list().nth(20));
    let mut pages = bucket(&server).pages(ListOptions::default());
    let mut errors = Vec::new();
    while let Some(page) = pages.next().await {
        errors.extend(page.err());
    }
    let [Error::Listing { location, what }] = &errors[..] else { panic!("{errors:?}") };
    assert_eq!(location, "s3://data/");
    assert!(what.starts_with("the answer is no listing: <"), "{what}");
    assert!(pages.next().await.is_none());
}

#[tokio::test]
async fn dropping_the_listing_stops_it() {
    let server = serve((0..5000).map(|number| format!("{number:04}")), 1);
    let mut options = ListOptions::default();
    options.connections = 3;
    let mut pages = bucket(&server).pages(options);
    let first: Batch = pages.next().await.unwrap().unwrap().objects;
    assert_eq!(first.len(), 1);
    drop(pages);
    // At most a page for each connection waits to be read, one more is held by each, and one may be under way.
    assert!(server.requests().len() <= 10, "{}", server.requests().len());
}

/// A first page without keys that says that there are more is no end, nor all that there is.
#[tokio::test(flavor = "multi_thread")]
async fn empty_pages_are_no_stretches() {
    let keys: Vec<String> = (0..100).map(|number| format!("k/{number:03}")).collect();
    let halves = || vec![KeyRange::new(None, Some("k/049".to_owned())), KeyRange::new(Some("k/049".to_owned()), None)];
    for (connections, ranges) in [(1, vec![KeyRange::all()]), (7, vec![KeyRange::all()]), (2, halves())] {
        let server = serve(keys.iter().cloned(), 10);
        server.fault(Rule::new(Fault::EmptyPage).list().first(1));
        let mut options = ListOptions::default();
        options.connections = connections;
        options.ranges.clone_from(&ranges);
        let pages: Vec<Page> = bucket(&server).pages(options.clone()).try_collect().await.unwrap();
        assert_eq!(together(pages, &[KeyRange::all()]), keys, "{connections}");
        server.fault(Rule::new(Fault::EmptyPage).list().first(1));
        let folder = tempfile::tempdir().unwrap();
        let pages = bulk_s3::in_order(bucket(&server).pages(options), &ranges, folder.path());
        let pages: Vec<Page> = pages.try_collect().await.unwrap();
        let sorted: Vec<&str> = pages.iter().flat_map(|page| page.objects.iter().map(|object| object.key)).collect();
        assert_eq!(sorted, keys);
    }
}

/// Servers that know less than S3 are listed whole over several connections, too.
#[tokio::test(flavor = "multi_thread")]
async fn odd_servers_are_listed() {
    let keys: Vec<String> = (0..2000).map(|number| format!("k/{number:04}")).collect();
    for quirk in [Quirk::V2NotImplemented, Quirk::V2Refused, Quirk::V2Ignored, Quirk::StartAfterIgnored] {
        for connections in [1, 7] {
            let store = keys.iter().map(|key| (key.clone(), "x")).collect::<Store>();
            let server = Server::builder().bucket("data", store).max_keys_cap(20).quirk(quirk.clone()).start().unwrap();
            let mut options = ListOptions::default();
            options.connections = connections;
            let pages: Vec<Page> = bucket(&server).pages(options).try_collect().await.unwrap();
            assert_eq!(together(pages, &[KeyRange::all()]), keys, "{quirk:?} {connections}");
        }
    }
}

/// A lister that panics leaves a gap that the others would wait for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_the_observer_is_passed_on() {
    let server = serve((0..3000).map(|number| format!("{number:08}")), 10);
    server.fault(Rule::new(Fault::slow_down()).list().nth(20));
    let mut options = BucketOptions::default();
    options.endpoint = Some(server.url());
    options.retry.initial = std::time::Duration::ZERO;
    options.observer = std::sync::Arc::new(|event: &bulk_core::Event<'_>| {
        if matches!(event, bulk_core::Event::Retry { .. }) {
            panic!("as an observer's own fault");
        }
    });
    let bucket = Bucket::new("data", options).unwrap();
    let mut listing = ListOptions::default();
    listing.connections = 4;
    let listed = tokio::spawn(async move { bucket.pages(listing).try_collect::<Vec<Page>>().await });
    let panic = listed.await.unwrap_err().into_panic();
    assert_eq!(panic.downcast_ref(), Some(&"as an observer's own fault"));
}
