//! What a bucket on any server must stand: listings over many connections, resumption, syncs into a folder and a table.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bulk_core::{Algorithm, Digest};
use bulk_s3::{
    BodyType, Bucket, Change, Checkpoint, Compare, Deletions, DiffOptions, FolderSink, Job, KeyFilter, KeyRange,
    KnownObjects, KnownTable, ListOptions, MemoryKnown, Page, PostgresKnown, PostgresOptions, Sink, SyncCounts,
    SyncOptions, SyncStep, TableSink, diff_pages, key_of_path, sync,
};
use bulk_testkit::postgres::shared;
use futures::{StreamExt, TryStreamExt};

/// What is in the bucket.
pub(crate) type Objects = BTreeMap<String, Vec<u8>>;

/// No URL can name these, so they are listed and not fetched.
#[allow(dead_code, reason = "one of the servers has no such keys")]
pub(crate) const UNASKABLE: [&str; 3] = ["odd/./b", "odd/../b", "odd/.."];

/// Keys with all that a key may have.
#[allow(dead_code, reason = "one of the servers has no such keys")]
pub(crate) fn odd() -> Objects {
    let long = "é".repeat(509) + "/12345";
    assert_eq!(long.len(), 1024);
    let keys = [
        "odd//b",
        "/odd",
        "//",
        "odd/",
        "odd b",
        " odd ",
        "odd+b",
        "odd%2Fb",
        "odd%b",
        "odd%",
        "odd\u{1}b",
        "odd\tb",
        "odd\u{7f}",
        "odd&b<c>\"d'",
        "odd?b=c#d",
        "odd\\b",
        "odd*b",
        "é",
        "e\u{301}",
        "漢/字",
        "😀",
        "\u{ffee}",
        &long,
    ];
    keys.into_iter().chain(UNASKABLE).map(|key| (key.to_owned(), format!("body of {key}").into_bytes())).collect()
}

/// So many others, below `many/`.
pub(crate) fn many(count: usize) -> impl Iterator<Item = (String, Vec<u8>)> {
    (0..count).map(|number| {
        let kind = ["json", "zip", "txt"][number % 3];
        (format!("many/{}/{number:05}.{kind}", number % 7), number.to_string().into_bytes())
    })
}

/// Lists with 1, 4 and 16 connections; all keys, two stretches, and those that a filter means. A server may keep its ETags to
/// itself.
pub(crate) async fn check_listing(bucket: &Bucket, objects: &Objects, has_etags: bool) {
    let described: BTreeMap<&str, _> = objects
        .iter()
        .map(|(key, body)| {
            let etag = has_etags.then(|| Digest::of(Algorithm::Md5, body).to_hex());
            (key.as_str(), (body.len() as u64, etag))
        })
        .collect();
    let serial: Vec<_> = bucket.list("").try_collect().await.unwrap();
    assert!(serial.iter().map(|object| object.key.as_str()).eq(described.keys().copied()));
    let behind = |key: &str| Some(objects.range(key.to_owned()..).next().unwrap().0.clone());
    let (a, b, c) = (behind("many/1/"), behind("many/3/01"), behind("many/6/02"));
    let stretches = vec![KeyRange::new(None, a), KeyRange::new(b, c)];
    for connections in [1, 4, 16] {
        for (ranges, filter, prefix) in [
            (vec![KeyRange::all()], KeyFilter::all(), ""),
            (stretches.clone(), KeyFilter::all(), ""),
            (vec![KeyRange::all()], KeyFilter::all().suffix(".json"), "many/"),
        ] {
            let mut options = ListOptions::default();
            (options.connections, options.prefix) = (connections, prefix.to_owned());
            (options.ranges, options.filter) = (ranges.clone(), filter.clone());
            let pages: Vec<Page> = bucket.pages(options).try_collect().await.unwrap();
            let is_asked = |key: &str| key.starts_with(prefix) && ranges.iter().any(|range| range.contains(key));
            let keys = described.keys().filter(|key| is_asked(key)).count();
            assert_eq!(pages.iter().map(|page| page.keys).sum::<u64>(), keys as u64);
            let mut found: Vec<_> = pages
                .iter()
                .flat_map(|page| page.objects.iter())
                .map(|object| (object.key, (object.size.unwrap(), object.etag.map(str::to_owned))))
                .collect();
            found.sort_unstable();
            let wanted = described.iter().filter(|(key, _)| is_asked(key) && filter.matches(key));
            assert!(found.iter().eq(wanted.map(|(key, told)| (*key, told.clone())).collect::<Vec<_>>().iter()));
        }
    }
}

/// Compares with an empty store, by runs that are each ended behind their first stretch, and go on from the file.
pub(crate) async fn check_resume(bucket: &Bucket, objects: &Objects) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("checkpoint");
    let known: Arc<dyn KnownObjects> = Arc::new(MemoryKnown::new());
    let mut found = Vec::new();
    let mut runs = 0;
    loop {
        let mut checkpoint = Checkpoint::open(&file, Job::default()).unwrap();
        assert_eq!(checkpoint.is_resumed(), runs > 0);
        let mut options = ListOptions::default();
        (options.ranges, options.connections) = (checkpoint.left().to_vec(), 4);
        let mut stretches = diff_pages(bucket.pages(options), known.clone(), DiffOptions::default());
        runs += 1;
        // A drop is the end, as of a program that is killed: what was not saved is done again.
        let mut has_one = false;
        let is_whole = loop {
            let Some(stretch) = stretches.try_next().await.unwrap() else { break true };
            if std::mem::replace(&mut has_one, true) {
                break false;
            }
            found.extend(stretch.changes().map(|change| match change {
                Change::Added(object) => object.key.to_owned(),
                other => panic!("{other:?}"),
            }));
            checkpoint.counts.add(&stretch);
            checkpoint.done(&stretch.range);
            checkpoint.save().unwrap();
        };
        if is_whole {
            assert_eq!((checkpoint.left(), checkpoint.counts.keys), (&[][..], objects.len() as u64));
            assert_eq!(checkpoint.counts.added, objects.len() as u64);
            checkpoint.finish().unwrap();
            break;
        }
    }
    assert!(runs > 1, "it was never ended");
    found.sort();
    assert!(found.iter().eq(objects.keys()), "{} of {}", found.len(), objects.len());
}

/// Syncs one in ten of the many, and the others, into a folder and a table, then what is changed and removed by `edit`. Keys
/// of `unaskable` cannot be asked for.
pub(crate) async fn check_sync(
    bucket: &Bucket,
    objects: &Objects,
    unaskable: &[&str],
    compare: Compare,
    mut edit: impl FnMut(&str, Option<&[u8]>),
) {
    let database = shared().unwrap().create_database("servers").unwrap();
    let url = database.url();
    let table_known = PostgresKnown::connect(url, "data", KnownTable::default(), PostgresOptions::default());
    let table_known = Arc::new(table_known.await.unwrap());
    let table = TableSink::connect(url, "objects".parse().unwrap(), BodyType::Bytea, Some(table_known.clone()));
    let folder = tempfile::tempdir().unwrap();
    let targets: [(Arc<dyn KnownObjects>, Arc<dyn Sink>); 2] = [
        (table_known, Arc::new(table.await.unwrap())),
        (Arc::new(MemoryKnown::new()), Arc::new(FolderSink::open(folder.path()).unwrap())),
    ];
    let rows = || {
        let sql = "SELECT encode(convert_to(key, 'UTF8'), 'hex'), encode(body, 'hex') FROM objects";
        let text = shared().unwrap().psql(url, sql).unwrap();
        let bytes = |hex: &str| -> Vec<u8> {
            let digits: Vec<_> = hex.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
            digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
        };
        text.lines()
            .map(|line| line.split_once('|').unwrap())
            .map(|(key, body)| (String::from_utf8(bytes(key)).unwrap(), bytes(body)))
            .collect::<Objects>()
    };
    let mut there: Objects = objects.clone();
    there.retain(|key, _| synced().matches(key) && !unaskable.contains(&key.as_str()));
    let all = there.len() as u64;
    let quarantined: BTreeSet<String> = unaskable.iter().map(|key| (*key).to_owned()).collect();
    let check = async |there: &Objects, fetched: u64, removed: u64| {
        for (known, sink) in &targets {
            let (counts, left_out) = run(bucket, known.clone(), sink.clone(), compare).await;
            let told = (counts.fetched, counts.stored, counts.removed, counts.unchanged_content);
            assert_eq!(told, (fetched, fetched, removed, 0), "{}", sink.identity());
            assert_eq!(left_out, quarantined, "{}", sink.identity());
        }
        assert!(rows() == *there && files(folder.path()) == *there);
    };
    check(&there, all, 0).await;
    check(&there, 0, 0).await;
    let changed = there.keys().nth(there.len() / 2).unwrap().clone();
    edit(&changed, Some(b"another body"));
    there.insert(changed, b"another body".to_vec());
    check(&there, 1, 0).await;
    let (gone, _) = there.pop_last().unwrap();
    edit(&gone, None);
    check(&there, 0, 1).await;
    check(&there, 0, 0).await;
}

fn synced() -> KeyFilter {
    KeyFilter::all().exclude("many/*[1-9].*").unwrap()
}

/// A whole run, and the keys that were quarantined.
async fn run(
    bucket: &Bucket,
    known: Arc<dyn KnownObjects>,
    sink: Arc<dyn Sink>,
    compare: Compare,
) -> (SyncCounts, BTreeSet<String>) {
    let mut listing = ListOptions::default();
    (listing.connections, listing.filter) = (4, synced());
    let mut comparison = DiffOptions::default();
    (comparison.compare, comparison.filter) = (compare, synced());
    let stretches = diff_pages(bucket.pages(listing), known.clone(), comparison);
    let mut options = SyncOptions::default();
    (options.deletions, options.objects.concurrency) = (Deletions::Apply, 8);
    let mut run = sync(stretches, Arc::new(bucket.clone()), known, sink, options);
    let mut quarantined = BTreeSet::new();
    while let Some(step) = run.next().await {
        if let SyncStep::Quarantined(object) = step.unwrap() {
            let reason = object.reason.to_string();
            assert!(reason.ends_with("a key with a . or .. segment cannot stand in a URL"), "{}: {reason}", object.key);
            assert!(quarantined.insert(object.key));
        }
    }
    (run.counts(), quarantined)
}

/// The files of a folder by their keys.
fn files(folder: &Path) -> Objects {
    let mut found = Objects::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in next.read_dir().unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let key = key_of_path(path.strip_prefix(folder).unwrap()).unwrap();
                    found.insert(key, std::fs::read(&path).unwrap());
                }
            }
        }
    }
    found
}
