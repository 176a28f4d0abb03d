//! Listings compared with what is known, against a model and with interruptions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bulk_core::{Algorithm, Digest};
use bulk_s3::{
    Bucket, BucketOptions, Change, Checkpoint, DiffOptions, Job, KeyFilter, KeyRange, KnownChange, KnownObjects,
    ListOptions, MemoryKnown, ObjectRef, diff_pages, in_order, split_ranges,
};
use bulk_testkit::s3::{Fault, KeySpace, Layout, Rule, Server, Store};
use futures::{StreamExt, TryStreamExt};
use proptest::prelude::*;

fn bucket(server: &Server) -> Bucket {
    let mut options = BucketOptions::default();
    options.endpoint = Some(server.url());
    Bucket::new("data", options).unwrap()
}

/// A change as text, so that sets of them can be compared.
fn text(change: &Change<'_>) -> String {
    match change {
        Change::Added(object) => format!("+ {} {:?}", object.key, object.etag),
        Change::Removed(object) => format!("- {} {:?}", object.key, object.etag),
        Change::Modified { before, after } => format!("~ {} {:?} {:?}", after.key, before.etag, after.etag),
    }
}

/// The changes from one edition to another, by two maps.
fn model(known: &KeySpace, listed: &KeySpace, prefix: &str, filter: &KeyFilter) -> BTreeSet<String> {
    let map = |space: &KeySpace| -> BTreeMap<String, String> {
        let is_meant = |key: &str| key.starts_with(prefix) && filter.matches(key);
        space.objects().filter(|object| is_meant(&object.key)).map(|object| (object.key, object.etag)).collect()
    };
    let (known, listed) = (map(known), map(listed));
    let keys: BTreeSet<&String> = known.keys().chain(listed.keys()).collect();
    let changes = keys.into_iter().filter_map(|key| match (known.get(key), listed.get(key)) {
        (None, Some(etag)) => Some(format!("+ {key} {:?}", Some(etag))),
        (Some(etag), None) => Some(format!("- {key} {:?}", Some(etag))),
        (Some(before), Some(after)) if before != after => Some(format!("~ {key} {:?} {:?}", Some(before), Some(after))),
        _ => None,
    });
    changes.collect()
}

async fn known(space: &KeySpace) -> Arc<MemoryKnown> {
    let known = MemoryKnown::new();
    for object in space.objects() {
        let mut described = ObjectRef::new(&object.key);
        described.etag = Some(&object.etag);
        known.apply(&[KnownChange::Set(described)]).await.unwrap();
    }
    Arc::new(known)
}

fn space(layout: Layout, edition: u64) -> KeySpace {
    let mut space = KeySpace::new(layout, 3000);
    space.edition = edition;
    (space.match_one_in, space.changed_one_in, space.missing_one_in) = (5, 11, 13);
    space
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_those_of_two_maps_however_often_the_run_is_cut_short() {
    let mut random = fastrand::Rng::with_seed(7);
    let (mut jobs, mut all_runs) = (0, 0);
    for layout in Layout::ALL {
        let (before, after) = (space(layout, 1), space(layout, 2));
        let store = known(&before).await;
        let server = Server::builder().bucket("data", Store::made_up(after.clone())).max_keys_cap(40).start().unwrap();
        let middle = after.objects().nth(1500).unwrap().key;
        let prefixes = [String::new(), middle[..middle.len() / 3].to_owned()];
        let filters = [KeyFilter::all(), KeyFilter::all().suffix("buildhub.json")];
        for (prefix, filter) in prefixes.iter().flat_map(|prefix| filters.iter().map(move |filter| (prefix, filter))) {
            let expected = model(&before, &after, prefix, filter);
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("checkpoint");
            let mut found = Vec::new();
            jobs += 1;
            let counts = loop {
                all_runs += 1;
                let mut checkpoint = Checkpoint::open(&path, Job::default()).unwrap();
                let mut list = ListOptions::default();
                list.prefix.clone_from(prefix);
                list.filter = filter.clone();
                list.ranges = checkpoint.left().to_vec();
                list.connections = random.usize(1..9);
                let mut options = DiffOptions::default();
                options.prefix.clone_from(prefix);
                options.filter = filter.clone();
                options.concurrency = random.usize(1..5);
                let mut stretches = diff_pages(bucket(&server).pages(list), store.clone(), options);
                // Cut short after some stretches, until it is not.
                let patience = random.usize(1..40);
                let mut taken = 0;
                while let Some(stretch) = stretches.next().await {
                    let stretch = stretch.unwrap();
                    found.extend(stretch.changes().map(|change| text(&change)));
                    checkpoint.counts.add(&stretch);
                    checkpoint.done(&stretch.range);
                    checkpoint.save().unwrap();
                    taken += 1;
                    if taken == patience {
                        break;
                    }
                }
                if checkpoint.left().is_empty() {
                    let counts = checkpoint.counts;
                    checkpoint.finish().unwrap();
                    break counts;
                }
                assert_eq!(taken, patience, "the listing ended, and left {:?}", checkpoint.left());
            };
            assert_eq!(found.len(), expected.len(), "a change came twice");
            assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
            assert_eq!(counts.added + counts.modified + counts.removed, expected.len() as u64);
        }
    }
    // Some have few pages, or much patience; by no means all.
    assert!(all_runs > 2 * jobs, "{all_runs} runs of {jobs} jobs");
}

/// Keys that sort in each other's way, below one another and with odd characters.
fn keys() -> impl Strategy<Value = BTreeMap<String, u8>> {
    proptest::collection::btree_map("[ab/]{0,3}(/|\u{1}|é|\\+|%2F|[.])?[a-c]{1,2}(json|x)?", 0..3_u8, 0..80)
}

fn filters() -> impl Strategy<Value = KeyFilter> {
    prop_oneof![
        Just(KeyFilter::all()),
        Just(KeyFilter::all().suffix("json").suffix("x")),
        Just(KeyFilter::all().include("a*").unwrap().exclude("*b*").unwrap()),
        Just(KeyFilter::all().exclude("*/*").unwrap()),
        Just(KeyFilter::all().regex("[ac].?j").unwrap().suffix("json")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 200 } else { 1000 }))]

    /// Each run is cut short behind its first page, whatever the server had answered then, and of some pages it says that
    /// they are to be asked for once more.
    #[test]
    fn changes_come_once_if_each_page_is_the_last_of_its_run(
        (before, after) in (keys(), keys()),
        filter in filters(),
        prefix in prop_oneof![Just(""), Just("a"), Just("b/")],
        (page, connections, pieces, busy) in (1..8_usize, 1..6_usize, 1..9_usize, 1..9_u64),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let store: Store = after.iter().map(|(key, version)| (key.clone(), vec![*version])).collect();
            let server = Server::builder().bucket("data", store).max_keys_cap(page).start().unwrap();
            server.fault(Rule::new(Fault::slow_down()).list().nth(busy));
            let mut options = BucketOptions::default();
            options.endpoint = Some(server.url());
            options.retry.initial = std::time::Duration::ZERO;
            let bucket = Bucket::new("data", options).unwrap();
            let etag = |version: u8| format!("\"{}\"", Digest::of(Algorithm::Md5, &[version]).to_hex());
            let known = Arc::new(MemoryKnown::new());
            for (key, version) in &before {
                let etag = etag(*version);
                let mut object = ObjectRef::new(key);
                object.etag = Some(etag.trim_matches('"'));
                known.apply(&[KnownChange::Set(object)]).await.unwrap();
            }
            let is_meant = |key: &str| key.starts_with(prefix) && filter.matches(key);
            let mut expected = BTreeSet::new();
            for key in before.keys().chain(after.keys()).filter(|key| is_meant(key)) {
                let what = match (before.get(key), after.get(key)) {
                    (None, _) => '+',
                    (_, None) => '-',
                    (before, after) if before != after => '~',
                    _ => continue,
                };
                expected.insert(format!("{what}{key}"));
            }
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("checkpoint");
            let mut found = Vec::new();
            loop {
                let mut checkpoint = Checkpoint::open(&path, Job::default()).unwrap();
                if checkpoint.left().is_empty() {
                    break;
                }
                let mut list = ListOptions::default();
                (list.prefix, list.filter, list.connections) = (prefix.to_owned(), filter.clone(), connections);
                list.ranges = split_ranges(&*known, checkpoint.left().to_vec(), prefix, pieces).await.unwrap();
                let mut options = DiffOptions::default();
                (options.prefix, options.filter) = (prefix.to_owned(), filter.clone());
                let mut stretches = diff_pages(bucket.pages(list), known.clone(), options);
                let stretch = stretches.next().await.expect("a stretch for what is left").unwrap();
                found.extend(stretch.changes().map(|change| match change {
                    Change::Added(object) => format!("+{}", object.key),
                    Change::Removed(object) => format!("-{}", object.key),
                    Change::Modified { after, .. } => format!("~{}", after.key),
                }));
                checkpoint.done(&stretch.range);
                checkpoint.save().unwrap();
            }
            prop_assert_eq!(found.len(), expected.len());
            prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
            Ok(())
        })?;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sorted_pages_give_sorted_changes() {
    let (before, after) = (space(Layout::Builds, 1), space(Layout::Builds, 2));
    let store = known(&before).await;
    let server = Server::builder().bucket("data", Store::made_up(after.clone())).max_keys_cap(50).start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let pages = in_order(bucket(&server).pages(ListOptions::default()), &[KeyRange::all()], folder.path());
    let mut options = DiffOptions::default();
    options.concurrency = 1;
    let stretches: Vec<_> = diff_pages(pages, store, options).try_collect().await.unwrap();
    let changes: Vec<_> = stretches
        .iter()
        .flat_map(|stretch| {
            stretch.changes().map(|change| (change.key().to_owned(), text(&change))).collect::<Vec<_>>()
        })
        .collect();
    assert!(changes.is_sorted());
    assert!(
        changes.into_iter().map(|(_, text)| text).collect::<BTreeSet<_>>()
            == model(&before, &after, "", &KeyFilter::all())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_and_gone_comes_in_bounded_pieces() {
    let space = space(Layout::Builds, 1);
    let store = known(&space).await;
    let server = Server::builder().bucket("data", Store::memory()).start().unwrap();
    let stretches = diff_pages(bucket(&server).pages(ListOptions::default()), store, DiffOptions::default());
    let stretches: Vec<_> = stretches.try_collect().await.unwrap();
    let sizes: Vec<usize> = stretches.iter().map(|stretch| stretch.changes().len()).collect();
    assert!(sizes.len() >= 3 && sizes.iter().all(|size| *size <= 1000), "{sizes:?}");
    assert_eq!(sizes.iter().sum::<usize>(), space.objects().count());
    assert_eq!(server.counts().lists(), 1);
}
