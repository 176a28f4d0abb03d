//! Listings in files as pages.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulk_s3::conformance::KnownConformance;
use bulk_s3::{
    Batch, Change, CsvWriter, DiffOptions, Error, FileListOptions, KeyFilter, KeyRange, KnownChange, KnownObjects,
    MemoryKnown, NdjsonWriter, ObjectRef, ObjectWriter, Page, ParquetWriter, RowOrder, diff_pages, file_pages,
};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::TryStreamExt;
use proptest::prelude::*;

/// The objects of all pages, and their keys, after a look at whether the stretches are those that were asked for.
fn together(pages: &[Page], asked: &[KeyRange]) -> (Batch, u64) {
    let mut lanes: Vec<Vec<&Page>> = Vec::new();
    for page in pages {
        match lanes.last_mut().filter(|lane| lane[0].lane == page.lane) {
            Some(lane) => {
                let before = lane.last().unwrap();
                assert!(!before.is_last && before.range.until == page.range.after, "{before:?} {page:?}");
                lane.push(page);
            }
            None => lanes.push(vec![page]),
        }
    }
    let ranges: Vec<KeyRange> = lanes
        .iter()
        .map(|lane| KeyRange::new(lane[0].range.after.clone(), lane[lane.len() - 1].range.until.clone()))
        .collect();
    assert_eq!(ranges, asked);
    assert!(lanes.iter().all(|lane| lane[lane.len() - 1].is_last));
    for page in pages {
        assert!(!page.range.is_empty());
        assert!(page.objects.iter().all(|object| page.range.contains(object.key)), "{page:?}");
    }
    let objects = pages.iter().flat_map(|page| page.objects.iter()).collect();
    (objects, pages.iter().map(|page| page.keys).sum())
}

fn numbered(keys: &[String]) -> Batch {
    let objects = keys.iter().enumerate().map(|(number, key)| {
        let mut object = ObjectRef::new(key);
        object.etag = (number % 2 > 0).then_some("tag");
        object.size = (number % 3 > 0).then_some(number as u64);
        object
    });
    objects.collect()
}

fn write<W: ObjectWriter>(mut writer: W, objects: &Batch) -> W::Output {
    writer.write(objects).unwrap();
    writer.finish().unwrap()
}

fn ndjson(objects: &Batch) -> Vec<u8> {
    write(NdjsonWriter::new("x", Vec::new()), objects)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

async fn pages(files: &[PathBuf], options: FileListOptions) -> Result<Vec<Page>, Error> {
    file_pages(files, options).try_collect().await
}

async fn all(files: &[PathBuf]) -> Result<(Batch, u64), Error> {
    pages(files, FileListOptions::default()).await.map(|pages| together(&pages, &[KeyRange::all()]))
}

async fn failure(files: &[PathBuf]) -> String {
    all(files).await.unwrap_err().to_string()
}

#[tokio::test]
async fn every_format_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut keys = KnownConformance::default().keys;
    keys.sort();
    keys.dedup();
    let objects = numbered(&keys);
    let csv = write(CsvWriter::new("x", Vec::new(), "data").unwrap(), &objects);
    let parquet = write(ParquetWriter::new("x", Vec::new(), "data").unwrap(), &objects);
    let lines = ndjson(&objects);
    // Two members, as programs write that compress in parallel.
    let halves = lines.split_at(lines.len() / 2);
    let members = [gzip(halves.0), gzip(halves.1)].concat();
    for (name, bytes) in [
        ("a", lines.clone()),
        ("b", csv.clone()),
        ("c", parquet),
        ("d", gzip(&lines)),
        ("e", gzip(&csv)),
        ("f", members),
    ] {
        let file = put(folder.path(), name, &bytes);
        assert_eq!(all(&[file]).await.unwrap(), (objects.clone(), objects.len() as u64), "{name}");
    }
    for (name, bytes) in [("none", Vec::new()), ("none.gz", gzip(b"")), ("header.csv", b"key\n".to_vec())] {
        assert_eq!(all(&[put(folder.path(), name, &bytes)]).await.unwrap(), (Batch::new(), 0), "{name}");
    }
    assert_eq!(all(&[]).await.unwrap(), (Batch::new(), 0));
}

#[tokio::test]
async fn what_is_no_listing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let objects = numbered(&(0..5000).map(|number| format!("{number:06}")).collect::<Vec<_>>());
    let whole = gzip(&ndjson(&objects));
    let name = |name: &str| folder.path().join(name).display().to_string();
    for (file, bytes, what) in [
        ("none.csv", &b""[..], ": there is nothing in it, not even a header"),
        (
            "z",
            &[0x28, 0xb5, 0x2f, 0xfd, 0],
            ": it is compressed with zstd, and listings are read plain or compressed with gzip: decompress it first",
        ),
        ("p", b"PAR1", ": it is no whole Parquet file"),
        ("n", b"{\"key\":\"a\"}\n{\"key\":1}\n", ", row 2, byte 19: invalid type: integer `1`, expected a string"),
        ("c", b"key\na\n\xff\n", ", row 2, byte 6: its key is no UTF-8: \\xff"),
    ] {
        assert_eq!(failure(&[put(folder.path(), file, bytes)]).await, format!("{}{what}", name(file)));
    }
    assert_eq!(failure(&[folder.path().join("gone")]).await, format!("{}: it cannot be read", name("gone")));
    for cut in [11, whole.len() / 2, whole.len() - 1] {
        let error = all(&[put(folder.path(), "cut.gz", &whole[..cut])]).await.unwrap_err();
        assert!(error.to_string().ends_with("it cannot be read"), "{error}");
        let cause = std::error::Error::source(&error).unwrap().downcast_ref::<std::io::Error>().unwrap();
        assert_eq!(cause.kind(), std::io::ErrorKind::UnexpectedEof, "{cut}");
    }
    // The checksum in the last bytes.
    let mut damaged = whole.clone();
    damaged[whole.len() - 6] ^= 1;
    let error = all(&[put(folder.path(), "bad.gz", &damaged)]).await.unwrap_err();
    assert!(error.to_string().ends_with("it cannot be read"), "{error}");
}

#[tokio::test]
async fn rows_in_any_order_are_sorted() {
    let folder = tempfile::tempdir().unwrap();
    // More than is sorted in memory.
    let mut keys: Vec<String> = (0..400_000).map(|number| format!("{number:08}")).collect();
    let sorted = numbered(&keys);
    fastrand::Rng::with_seed(7).shuffle(&mut keys);
    let by_key: Vec<ObjectRef<'_>> = sorted.iter().collect();
    let shuffled: Batch = keys.iter().map(|key| by_key[key.parse::<usize>().unwrap()]).collect();
    let file = put(folder.path(), "shuffled", &ndjson(&shuffled));
    let mut options = FileListOptions::default();
    options.folder = folder.path().to_owned();
    let found = pages(std::slice::from_ref(&file), options.clone()).await.unwrap();
    assert!(together(&found, &[KeyRange::all()]) == (sorted.clone(), 400_000));
    assert!(found.iter().all(|page| page.objects.len() <= 4096));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "temporary files are gone");

    options.order = RowOrder::Sorted;
    let error = pages(&[file], options.clone()).await.unwrap_err().to_string();
    let second = keys.windows(2).find(|pair| pair[0] > pair[1]).unwrap();
    let what = format!("shuffled: it is not in the order of its keys: {:?} comes behind {:?}", second[1], second[0]);
    assert!(error.ends_with(&what), "{error}");

    // Two files: in order, and the other way round.
    let half = |skip, take| ndjson(&sorted.iter().skip(skip).take(take).collect());
    let files = [put(folder.path(), "1", &half(0, 10)), put(folder.path(), "2", &half(10, 10))];
    let twenty: Batch = sorted.iter().take(20).collect();
    assert_eq!(all(&files).await.unwrap(), (twenty.clone(), 20));
    let [first, second] = files;
    assert_eq!(all(&[second.clone(), first.clone()]).await.unwrap(), (twenty.clone(), 20));
    assert!(pages(&[second, first.clone()], options.clone()).await.is_err());
    // The same rows twice count once.
    assert_eq!(all(&[first.clone(), first.clone()]).await.unwrap(), (twenty.iter().take(10).collect(), 10));
    assert!(pages(&[first.clone(), first.clone()], options).await.is_err());
    let other = put(folder.path(), "3", b"{\"key\":\"00000003\",\"size\":9}\n");
    let what =
        format!("{} and 1 more: the key \"00000003\" stands in it twice, with different properties", first.display());
    assert_eq!(failure(&[first, other]).await, what);
}

#[tokio::test]
async fn what_was_not_asked_for_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let keys: Vec<String> =
        (0..30_000).map(|number| format!("{}/{number:05}", ["a", "b", "c"][number / 10_000])).collect();
    let objects = numbered(&keys);
    let border = |key: &str| Some(key.to_owned());
    let ranges = [
        KeyRange::new(None, border("a/5")),
        KeyRange::new(border("b/10000"), border("b/12345")),
        KeyRange::new(border("b/15000"), None),
    ];
    let wanted: Batch = objects
        .iter()
        .filter(|object| object.key.starts_with("b/") && object.key.ends_with('5'))
        .filter(|object| ranges.iter().any(|range| range.contains(object.key)))
        .collect();
    let mut options = FileListOptions::default();
    options.prefix = "b/".to_owned();
    options.filter = KeyFilter::all().suffix("5");
    // In no order.
    options.ranges =
        vec![ranges[2].clone(), KeyRange::new(border("x"), border("x")), ranges[0].clone(), ranges[1].clone()];
    let mut rows: Vec<ObjectRef<'_>> = objects.iter().collect();
    let sorted = put(folder.path(), "sorted", &ndjson(&objects));
    fastrand::Rng::with_seed(3).shuffle(&mut rows);
    let shuffled = put(folder.path(), "shuffled", &ndjson(&rows.into_iter().collect()));
    for file in [sorted, shuffled] {
        let found = pages(&[file], options.clone()).await.unwrap();
        assert_eq!(together(&found, &ranges), (wanted.clone(), 2345 + 5000 - 1));
        let of = |lane| found.iter().filter(|page| page.lane == lane).map(|page| page.keys).sum::<u64>();
        assert_eq!([of(0), of(1), of(2)], [0, 2345, 4999]);
    }
    let csv = put(folder.path(), "csv", b"bucket,key\nx,a\ny,b\nx,c\n");
    let mut options = FileListOptions::default();
    options.bucket = Some("x".to_owned());
    let found = pages(&[csv], options).await.unwrap();
    assert_eq!(together(&found, &[KeyRange::all()]).0, ["a", "c"].map(ObjectRef::new).into_iter().collect());
}

#[test]
fn a_drop_ends_the_thread_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let objects = numbered(&(0..50_000).map(|number| format!("{number:06}")).collect::<Vec<_>>());
    let sorted = put(folder.path(), "sorted", &ndjson(&objects));
    let reversed: Vec<ObjectRef<'_>> = objects.iter().collect();
    let reversed = put(folder.path(), "reversed", &ndjson(&reversed.into_iter().rev().collect()));
    for file in [sorted, reversed] {
        let mut options = FileListOptions::default();
        options.folder = temporary.path().to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let page = runtime.block_on(async { file_pages([file], options).try_next().await.unwrap().unwrap() });
        assert_eq!((page.objects.len(), page.is_last), (4096, false));
        // It waits for all of its threads.
        drop(runtime);
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_file_is_compared_with_what_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let keys: Vec<String> = (0..20_000).map(|number| format!("{number:06}")).collect();
    let rows = keys.iter().map(|key| {
        let mut object = ObjectRef::new(key);
        object.etag = Some("tag");
        object
    });
    let objects: Batch = rows.collect();
    let known = MemoryKnown::new();
    known.apply(&objects.iter().skip(2).map(KnownChange::Set).collect::<Vec<_>>()).await.unwrap();
    known.apply(&[KnownChange::Set(ObjectRef::new("gone"))]).await.unwrap();
    let file = put(folder.path(), "list", &gzip(&ndjson(&objects)));
    let stretches = diff_pages(file_pages([file], FileListOptions::default()), Arc::new(known), DiffOptions::default());
    let (mut changes, mut unchanged, mut seen) = (Vec::new(), 0, 0);
    stretches
        .try_for_each(|stretch| {
            unchanged += stretch.unchanged;
            seen += stretch.keys;
            changes.extend(stretch.changes().map(|change| match change {
                Change::Added(object) => format!("+{}", object.key),
                Change::Removed(object) => format!("-{}", object.key),
                other => format!("{other:?}"),
            }));
            std::future::ready(Ok(()))
        })
        .await
        .unwrap();
    changes.sort();
    assert_eq!(
        (changes, unchanged, seen),
        (["+000000", "+000001", "-gone"].map(str::to_owned).to_vec(), 19_998, 20_000)
    );
}

proptest! {
    #[test]
    fn pages_are_what_a_sorted_map_has(
        rows in proptest::collection::btree_map("[a-c]{1,4}", 0..9u64, 0..60),
        seed: u64,
        cuts in proptest::collection::btree_set("[a-c]{1,3}", 0..6),
    ) {
        let mut shuffled: Vec<_> = rows.iter().collect();
        fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
        // Each second stretch.
        let cuts: Vec<Option<String>> = std::iter::once(None).chain(cuts.into_iter().map(Some)).chain([None]).collect();
        let ranges: Vec<KeyRange> =
            cuts.windows(2).step_by(2).map(|pair| KeyRange::new(pair[0].clone(), pair[1].clone())).collect();
        let lines: String = shuffled.iter().map(|(key, size)| format!("{{\"size\":{size},\"key\":\"{key}\"}}\n")).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines).unwrap();
        let mut options = FileListOptions::default();
        options.ranges.clone_from(&ranges);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found = runtime.block_on(pages(&[file.path().to_owned()], options)).unwrap();
        let wanted = rows.iter().filter(|(key, _)| ranges.iter().any(|range| range.contains(key)));
        let wanted: Vec<(String, u64)> = wanted.map(|(key, size)| (key.clone(), *size)).collect();
        let (objects, keys) = together(&found, &ranges);
        prop_assert_eq!(keys, wanted.len() as u64);
        let found: Vec<(String, u64)> = objects.iter().map(|object| (object.key.to_owned(), object.size.unwrap())).collect();
        prop_assert_eq!(found, wanted);
    }
}
