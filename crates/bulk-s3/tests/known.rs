//! Every store of known objects does what the trait promises, and what a map does.

use std::collections::BTreeMap;

use bulk_s3::conformance::KnownConformance;
use bulk_s3::{KeyRange, KnownChange, KnownObjects, MemoryKnown, ObjectRef, SqliteKnown, SqliteOptions, split_ranges};
use proptest::prelude::*;

#[tokio::test]
async fn memory_conforms() {
    KnownConformance::default().check(&MemoryKnown::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known.sqlite");
    let known = SqliteKnown::open(&path, "data", SqliteOptions::default()).await.unwrap();
    KnownConformance::default().check(&known).await.unwrap();
    // Beside another bucket, whose objects stay what they are.
    let other = known.for_bucket("data2");
    other.apply(&[KnownChange::Set(ObjectRef::new("a/b")), KnownChange::Set(ObjectRef::new("m"))]).await.unwrap();
    KnownConformance::default().check(&known).await.unwrap();
    assert_eq!(other.scan(&KeyRange::all(), 10).await.unwrap().len(), 2);
}

/// A change to one of few keys, so that changes meet.
#[derive(Clone, Debug)]
struct Step {
    key: String,
    /// `None` removes it.
    etag: Option<Option<String>>,
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof!["[ab/\\.\0\u{1}\u{7f}Ää😀 ]{1,3}", ".{1,4}"]
}

fn step() -> impl Strategy<Value = Step> {
    let etag = proptest::option::weighted(0.7, proptest::option::of("[x\"\\\\N]{0,2}"));
    (key(), etag).prop_map(|(key, etag)| Step { key, etag })
}

/// Applies batches of steps, and compares scans in pages with a map.
async fn does_what_a_map_does(
    store: &dyn KnownObjects,
    batches: &[Vec<Step>],
    range: &KeyRange,
    page: usize,
) -> Result<(), TestCaseError> {
    let mut map = BTreeMap::new();
    for batch in batches {
        let changes = batch.iter().map(|step| match &step.etag {
            Some(etag) => {
                let mut object = ObjectRef::new(&step.key);
                object.etag = etag.as_deref();
                KnownChange::Set(object)
            }
            None => KnownChange::Remove(&step.key),
        });
        store.apply(&changes.collect::<Vec<_>>()).await.unwrap();
        for step in batch {
            match &step.etag {
                Some(etag) => drop(map.insert(step.key.clone(), etag.clone())),
                None => drop(map.remove(&step.key)),
            }
        }
    }
    let mut found = Vec::new();
    let mut rest = range.clone();
    loop {
        let batch = store.scan(&rest, page).await.unwrap();
        found.extend(batch.iter().map(|object| (object.key.to_owned(), object.etag.map(str::to_owned))));
        if batch.len() < page {
            break;
        }
        rest.after = batch.last().map(|last| last.key.to_owned());
    }
    let wanted: Vec<_> = map.into_iter().filter(|(key, _)| range.contains(key)).collect();
    prop_assert_eq!(found, wanted);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn stores_do_what_a_map_does(
        batches in proptest::collection::vec(proptest::collection::vec(step(), 0..20), 1..5),
        (after, until) in (proptest::option::of(key()), proptest::option::of(key())),
        page in 1..12_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let range = KeyRange::new(after, until);
        runtime.block_on(async {
            does_what_a_map_does(&MemoryKnown::new(), &batches, &range, page).await?;
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("known.sqlite");
            let known = SqliteKnown::open(path, "data", SqliteOptions::default()).await.unwrap();
            does_what_a_map_does(&known, &batches, &range, page).await
        })?;
    }

    #[test]
    fn cuts_leave_the_same_stretches(
        keys in 0..6000_usize,
        borders in proptest::collection::btree_set(0..6000_usize, 0..6),
        skipped in proptest::collection::vec(any::<bool>(), 7),
        prefix in prop::sample::select(vec!["", "0", "00", "a"]),
        parts in 0..70_usize,
    ) {
        let name = |number: usize| format!("{number:04}");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let known = MemoryKnown::new();
        let names: Vec<String> = (0..keys).map(name).collect();
        let changes: Vec<_> = names.iter().map(|key| KnownChange::Set(ObjectRef::new(key))).collect();
        runtime.block_on(known.apply(&changes)).unwrap();
        let borders = borders.into_iter().map(|number| Some(name(number)));
        let borders: Vec<Option<String>> = [None].into_iter().chain(borders).chain([None]).collect();
        let stretches = borders.windows(2).zip(&skipped).filter(|(_, skipped)| !**skipped);
        let ranges: Vec<_> = stretches.map(|(pair, _)| KeyRange::new(pair[0].clone(), pair[1].clone())).collect();
        let cut = runtime.block_on(split_ranges(&known, ranges.clone(), prefix, parts)).unwrap();
        prop_assert!(cut.len() <= parts.max(ranges.len()), "{} of {}", cut.len(), ranges.len());
        prop_assert!(cut.iter().all(|range| !range.is_empty()));
        let probes = (0..6000).step_by(7).map(name).chain(["".into(), "z".into()]);
        for key in probes.chain(cut.iter().filter_map(|range| range.until.clone())) {
            let of = |ranges: &[KeyRange]| ranges.iter().filter(|range| range.contains(&key)).count();
            prop_assert_eq!(of(&cut), of(&ranges), "{}", key);
        }
        // None but the last one of each is shorter than a page, as far as the prefix goes.
        for range in cut.iter().filter(|range| !ranges.contains(range)) {
            let is_last = ranges.iter().any(|whole| whole.until == range.until);
            let objects = names.iter().filter(|key| range.contains(key) && key.starts_with(prefix)).count();
            prop_assert!(is_last || objects >= 950, "{objects} in {range}");
        }
    }
}
