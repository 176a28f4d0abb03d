//! Inventories that Python has written, as listings.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bulk_core::{Algorithm, Digest, FileSource, Source};
use bulk_s3::conformance::KnownConformance;
use bulk_s3::{Batch, Bucket, BucketOptions, Error, Inventory, InventoryOptions, KeyFilter, KeyRange, ObjectRef, Page};
use bulk_testkit::pyarrow;
use bulk_testkit::s3::{Fault, Rule, Server, Store};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

const DATED: &str = "reports/data/daily/2026-11-06T21-32Z";
const FORMATS: [&str; 2] = ["CSV", "Parquet"];

/// Writes an inventory; each file has these rows.
fn write(format: &str, versions: bool, files: &[Vec<Value>]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let python =
        if format == "CSV" { PathBuf::from("python3") } else { pyarrow::python(&std::env::temp_dir()).unwrap() };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inventory.py");
    let mut child = Command::new(python)
        .arg(script)
        .env("PYTHONUTF8", "1")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let spec = json!({"folder": folder.path(), "format": format, "versions": versions, "files": files});
    child.stdin.take().unwrap().write_all(spec.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder
}

fn row(key: &str, size: u64) -> Value {
    json!({"key": key, "size": size, "etag": format!("{size:032x}"), "time": 1_700_000_000_000_u64 + size * 1000,
        "version": "v", "latest": true, "deleted": false})
}

fn objects<'a>(rows: impl IntoIterator<Item = &'a Value>) -> Batch {
    let mut rows: Vec<&Value> = rows.into_iter().collect();
    rows.sort_by_key(|row| row["key"].as_str());
    let mut objects = Batch::new();
    for row in rows {
        let mut object = ObjectRef::new(row["key"].as_str().unwrap());
        object.etag = row["etag"].as_str();
        object.size = row["size"].as_u64();
        object.last_modified = Some(Timestamp::from_millisecond(row["time"].as_i64().unwrap()).unwrap());
        objects.push(object);
    }
    objects
}

fn opened(folder: &TempDir) -> Result<Inventory, Error> {
    Inventory::open_folder(folder.path().join(DATED))
}

async fn pages(inventory: &Inventory, options: InventoryOptions) -> Result<Vec<Page>, Error> {
    inventory.pages(options).try_collect().await
}

async fn all(inventory: &Inventory) -> Result<Batch, Error> {
    let pages = pages(inventory, InventoryOptions::default()).await?;
    assert!(pages.last().is_some_and(|page| page.is_last && page.range.until.is_none()));
    Ok(pages.iter().flat_map(|page| page.objects.iter()).collect())
}

async fn failure(folder: &TempDir) -> String {
    all(&opened(folder).unwrap()).await.unwrap_err().to_string()
}

fn odd_rows() -> Vec<Value> {
    let mut keys = KnownConformance::default().keys;
    keys.extend(["a b", "a+b", "a%2Bb", "a%20b", "a,\"b\"\n"].map(str::to_owned));
    keys.sort();
    keys.dedup();
    keys.iter().enumerate().map(|(number, key)| row(key, number as u64)).collect()
}

/// Writes a file of the inventory anew, and puts its sums right.
fn replace(folder: &TempDir, file: &str, content: &[u8]) {
    std::fs::write(folder.path().join(file), content).unwrap();
    edit(folder, |manifest| {
        for entry in manifest["files"].as_array_mut().unwrap() {
            if entry["key"] == file {
                *entry = json!({"key": file, "size": content.len(), "MD5checksum": Digest::of(Algorithm::Md5, content).to_hex()});
            }
        }
    });
}

fn edit(folder: &TempDir, change: impl FnOnce(&mut Value)) {
    let path = folder.path().join(DATED).join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut manifest);
    let text = manifest.to_string();
    std::fs::write(path.with_extension("checksum"), Digest::of(Algorithm::Md5, text.as_bytes()).to_hex()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[tokio::test]
async fn odd_keys_come_in_order_out_of_files_without_order() {
    let rows = odd_rows();
    let wanted = objects(&rows);
    let mut shuffled = rows.clone();
    fastrand::Rng::with_seed(1).shuffle(&mut shuffled);
    let files: Vec<Vec<Value>> = shuffled.chunks(5).map(<[Value]>::to_vec).collect();
    for format in FORMATS {
        let folder = write(format, false, &files);
        let inventory = opened(&folder).unwrap();
        assert_eq!((inventory.bucket(), inventory.files()), ("data", files.len()));
        assert_eq!(inventory.created(), Timestamp::from_second(1_794_000_000).ok());
        assert_eq!(all(&inventory).await.unwrap(), wanted, "{format}");
        // Beside the manifest is as good.
        let dated = folder.path().join(DATED);
        std::fs::rename(dated.join("../data"), dated.join("data")).unwrap();
        assert_eq!(all(&inventory).await.unwrap(), wanted, "{format}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_fetched_from_where_it_stands() {
    let rows: Vec<Value> = (0..3000).map(|number| row(&format!("{:04}", number * 7 % 3000), number)).collect();
    let files: Vec<Vec<Value>> = rows.chunks(300).map(<[Value]>::to_vec).collect();
    let key = format!("{DATED}/manifest.json");
    for format in FORMATS {
        let folder = write(format, false, &files);
        let mut store = Store::memory();
        for name in ["manifest.json", "manifest.checksum"] {
            let key = format!("{DATED}/{name}");
            store = store.with(&key, std::fs::read(folder.path().join(&key)).unwrap());
        }
        let data = "reports/data/daily/data";
        for entry in std::fs::read_dir(folder.path().join(data)).unwrap() {
            let entry = entry.unwrap();
            store = store
                .with(format!("{data}/{}", entry.file_name().to_str().unwrap()), std::fs::read(entry.path()).unwrap());
        }
        let server = Server::builder().bucket("reports", store).start().unwrap();
        let mut options = BucketOptions::default();
        options.endpoint = Some(server.url());
        options.retry.attempts = 2;
        options.retry.initial = std::time::Duration::ZERO;
        let bucket = Bucket::new("reports", options).unwrap();
        let sources: [Arc<dyn Source>; 2] = [Arc::new(bucket.clone()), Arc::new(FileSource::new(folder.path()))];
        for source in sources {
            let inventory = Inventory::open(source, &key).await.unwrap();
            let temporary = tempfile::tempdir().unwrap();
            let mut options = InventoryOptions::default();
            options.folder = temporary.path().to_owned();
            let found = pages(&inventory, options).await.unwrap();
            assert_eq!(
                found.iter().flat_map(|page| page.objects.iter()).collect::<Batch>(),
                objects(&rows),
                "{format}"
            );
            assert_eq!(found.iter().map(|page| page.keys).sum::<u64>(), 3000);
            assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "nothing is left");
        }
        // Files that stay are not fetched again.
        let kept = tempfile::tempdir().unwrap();
        let mut options = InventoryOptions::default();
        options.files = Some(kept.path().to_owned());
        let inventory = Inventory::open(Arc::new(bucket), &key).await.unwrap();
        for _ in 0..2 {
            let found = pages(&inventory, options.clone()).await.unwrap();
            assert_eq!(found.iter().map(|page| page.keys).sum::<u64>(), 3000);
            assert_eq!(
                std::fs::read_dir(kept.path())
                    .unwrap()
                    .filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_file())
                    .count(),
                10
            );
        }

        // Nor are they trusted.
        let entries = std::fs::read_dir(kept.path()).unwrap().map(|entry| entry.unwrap().path());
        let path = entries.filter(|path| path.is_file()).max().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = pages(&inventory, options).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: its content is md5:", path.display())), "{error}");

        // Another content than the manifest says.
        server
            .put("reports", &format!("{data}/0000-3{}", if format == "CSV" { ".csv.gz" } else { ".parquet" }), "x")
            .unwrap();
        let error = pages(&inventory, InventoryOptions::default()).await.unwrap_err();
        assert!(matches!(error, Error::Request(bulk_core::Error::Unexpected { .. })), "{error:?}");
        let error = Inventory::open(Arc::new(FileSource::new(folder.path())), "x/manifest.txt").await.err().unwrap();
        assert!(error.to_string().ends_with("x/manifest.txt: a manifest's name ends with manifest.json"), "{error}");
        let error = Inventory::open(Arc::new(FileSource::new(folder.path())), "x/manifest.json").await.err().unwrap();
        assert!(matches!(error, Error::Request(bulk_core::Error::NotFound { .. })), "{error:?}");
    }
}

#[test]
fn a_drop_ends_a_download_that_stands_still() {
    let rows: Vec<Value> = (0..100).map(|number| row(&format!("{number:03}"), number)).collect();
    let folder = write("CSV", false, &[rows]);
    let files = ["manifest.json", "manifest.checksum"].map(|name| format!("{DATED}/{name}"));
    let data = "reports/data/daily/data/0000-0.csv.gz".to_owned();
    let read = |key: &String| std::fs::read(folder.path().join(key)).unwrap();
    let store = files.iter().chain([&data]).fold(Store::memory(), |store, key| store.with(key, read(key)));
    let server = Server::builder().bucket("reports", store).start().unwrap();
    let stalls = server.fault(Rule::new(Fault::StallAfter(10)).suffix(".csv.gz"));
    let mut options = BucketOptions::default();
    options.endpoint = Some(server.url());
    let bucket = Bucket::new("reports", options).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let inventory = Inventory::open(Arc::new(bucket), &files[0]).await.unwrap();
        let mut pages = inventory.pages(InventoryOptions::default());
        while stalls.hits() == 0 {
            assert!(futures::poll!(pages.next()).is_pending());
            tokio::task::yield_now().await;
        }
    });
    // It waits for all of its threads.
    drop(runtime);
}

#[tokio::test]
async fn only_current_objects_count() {
    let mut rows = Vec::new();
    for (key, version, latest, deleted) in [
        ("a", "3", true, false),
        ("a", "2", false, false),
        ("a", "1", false, true),
        ("b", "2", true, true),
        ("b", "1", false, false),
        ("c", "null", true, false),
    ] {
        let mut row = row(key, 7);
        (row["version"], row["latest"], row["deleted"]) = (version.into(), latest.into(), deleted.into());
        rows.push(row);
    }
    let wanted = objects([&rows[0], &rows[5]]);
    for format in FORMATS {
        let folder = write(format, true, &[rows[3..].to_vec(), rows[..3].to_vec()]);
        assert_eq!(all(&opened(&folder).unwrap()).await.unwrap(), wanted, "{format}");
    }
    let folder = write("CSV", true, &[rows]);
    edit(&folder, |manifest| {
        let schema = manifest["fileSchema"].as_str().unwrap().replace("IsLatest", "Other");
        manifest["fileSchema"] = schema.into();
    });
    let error = failure(&folder).await;
    assert!(error.ends_with("it has versions, and no column says which of them is the current one"), "{error}");
}

#[tokio::test]
async fn an_inventory_of_nothing_has_one_page() {
    for format in FORMATS {
        for files in [vec![], vec![vec![]], vec![vec![], vec![]]] {
            let folder = write(format, false, &files);
            let found = pages(&opened(&folder).unwrap(), InventoryOptions::default()).await.unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!((&found[0].range, found[0].keys, found[0].is_last), (&KeyRange::all(), 0, true));
        }
    }
}

#[tokio::test]
async fn what_was_not_asked_for_is_left_out() {
    let rows: Vec<Value> = (0..1000).map(|number| row(&format!("{:03}", number * 7 % 1000), number)).collect();
    for format in FORMATS {
        let folder = write(format, false, &[rows[..400].to_vec(), rows[400..].to_vec()]);
        let mut options = InventoryOptions::default();
        let border = |key: &str| Some(key.to_owned());
        options.ranges = vec![KeyRange::new(None, border("299")), KeyRange::new(border("700"), None)];
        options.prefix = "7".to_owned();
        options.filter = KeyFilter::all().suffix("5");
        let found = pages(&opened(&folder).unwrap(), options).await.unwrap();
        let keys: Vec<&str> = found.iter().flat_map(|page| page.objects.iter()).map(|object| object.key).collect();
        assert_eq!(keys, ["705", "715", "725", "735", "745", "755", "765", "775", "785", "795"]);
        assert_eq!(found.iter().map(|page| page.keys).collect::<Vec<_>>(), [0, 99]);
    }
}

#[tokio::test]
async fn what_does_not_fit_its_checksum_is_refused() {
    let rows: Vec<Value> = (0..100).map(|number| row(&format!("{number:03}"), number)).collect();
    for (format, file) in [("CSV", "0000-0.csv.gz"), ("Parquet", "0000-0.parquet")] {
        let folder = write(format, false, std::slice::from_ref(&rows));
        let manifest = folder.path().join(DATED).join("manifest.json");
        let path = folder.path().join("reports/data/daily/data").join(file);
        let shown = folder.path().join(DATED).join("../data").join(file).display().to_string();
        let whole = std::fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let (found, wanted) = (Digest::of(Algorithm::Md5, &damaged), Digest::of(Algorithm::Md5, &whole));
        assert_eq!(
            failure(&folder).await,
            format!("{shown}: its content is {found}, and must be {wanted}, by the manifest")
        );
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let (less, all) = (whole.len() - 1, whole.len());
        assert_eq!(failure(&folder).await, format!("{shown}: it has {less} bytes, and by the manifest {all}"));
        std::fs::remove_file(&path).unwrap();
        let what = format!("there is no {file} beside it, nor in data there, nor in data beside its folder");
        assert_eq!(failure(&folder).await, format!("{}: {what}", manifest.display()));

        let shown = manifest.display();
        let text = std::fs::read(&manifest).unwrap();
        std::fs::write(&manifest, [&text[..], b" "].concat()).unwrap();
        let error = opened(&folder).err().unwrap().to_string();
        assert!(
            error.starts_with(&format!("{shown}: its content is md5:")) && error.ends_with(", by manifest.checksum"),
            "{error}"
        );
        std::fs::write(manifest.with_extension("checksum"), "x").unwrap();
        let error = opened(&folder).err().unwrap().to_string();
        assert_eq!(error, format!("{shown}: manifest.checksum beside it is no MD5 in hexadecimal"));
        std::fs::remove_file(manifest.with_extension("checksum")).unwrap();
        let error = opened(&folder).err().unwrap().to_string();
        let what =
            "its checksum, in manifest.checksum beside it, cannot be read: without it the inventory is not complete";
        assert_eq!(error, format!("{shown}: {what}"));
    }
}

#[tokio::test]
async fn bad_files_are_named_with_row_and_byte() {
    let rows: Vec<Value> = (0..1000).map(|number| row(&format!("{number:03}"), number)).collect();
    let file = "reports/data/daily/data/0000-0.csv.gz";
    let folder = write("CSV", false, std::slice::from_ref(&rows));
    let shown = folder.path().join(DATED).join("../data/0000-0.csv.gz").display().to_string();
    let whole = std::fs::read(folder.path().join(file)).unwrap();
    replace(&folder, file, &whole[..whole.len() - 20]);
    let error = all(&opened(&folder).unwrap()).await.unwrap_err();
    let Error::Table { file: name, row: Some(_), what, source: Some(source), .. } = &error else { panic!("{error:?}") };
    assert_eq!((name.as_str(), what.as_str()), (shown.as_str(), "it cannot be read"));
    assert_eq!(source.downcast_ref::<std::io::Error>().unwrap().kind(), std::io::ErrorKind::UnexpectedEof);

    let good = "\"data\",\"a\",\"1\",\"2026-01-01T00:00:00.000Z\",\"x\",\"STANDARD\"\n";
    for (bad, what) in [
        ("\"data\",\"b\"\n", "it has 2 fields, and the schema of the manifest 6"),
        ("\"other\",\"b\",\"1\",\"\",\"\",\"\"\n", "it is of the bucket \"other\", and the inventory of \"data\""),
        ("\"data\",\"\",\"1\",\"\",\"\",\"\"\n", "it has no key"),
        ("\"data\",\"%ff\",\"1\",\"\",\"\",\"\"\n", "the key \"%ff\" is no UTF-8"),
        ("\"data\",\"b\",\"-1\",\"\",\"\",\"\"\n", "its Size is \"-1\", and must be a number of bytes"),
        (
            "\"data\",\"b\",\"\",\"now\",\"\",\"\"\n",
            "its LastModifiedDate is \"now\", and must be a time such as 2024-01-31T12:00:00.000Z",
        ),
        ("\"data\",\"b\n", "the file ends within quotes: it is cut off"),
    ] {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(format!("{good}{bad}").as_bytes()).unwrap();
        replace(&folder, file, &encoder.finish().unwrap());
        assert_eq!(failure(&folder).await, format!("{shown}, row 2, byte {}: {what}", good.len()));
    }

    let mut foreign = rows[7].clone();
    foreign["bucket"] = "other".into();
    let folder = write("Parquet", false, &[rows[..7].iter().cloned().chain([foreign]).collect()]);
    let shown = folder.path().join(DATED).join("../data/0000-0.parquet").display().to_string();
    let what = "it is of the bucket \"other\", and the inventory of \"data\"";
    assert_eq!(failure(&folder).await, format!("{shown}, row 8: {what}"));

    // The same row twice counts once; two rows of one key contradict each other.
    let folder = write("CSV", false, &[vec![rows[1].clone(), rows[2].clone()], vec![rows[1].clone()]]);
    assert_eq!(all(&opened(&folder).unwrap()).await.unwrap(), objects(&rows[1..3]));
    let folder = write("CSV", false, &[vec![rows[1].clone()], vec![row("001", 9)]]);
    let what = "the inventory of data: the key \"001\" stands in it twice, with different properties";
    assert_eq!(failure(&folder).await, what);
}

#[tokio::test]
async fn other_formats_are_refused() {
    let folder = write("CSV", false, &[vec![row("a", 1)]]);
    let shown = folder.path().join(DATED).join("manifest.json").display().to_string();
    edit(&folder, |manifest| manifest["fileFormat"] = "ORC".into());
    let error = opened(&folder).err().unwrap().to_string();
    let what = "its files are ORC, which is not read: have the inventory written as CSV or Parquet";
    assert_eq!(error, format!("{shown}: {what}"));
    edit(&folder, |manifest| manifest["files"][0]["MD5checksum"] = "x".into());
    edit(&folder, |manifest| manifest["fileFormat"] = "CSV".into());
    let error = opened(&folder).err().unwrap().to_string();
    assert_eq!(
        error,
        format!("{shown}: the MD5checksum of \"reports/data/daily/data/0000-0.csv.gz\" is no MD5 in hexadecimal")
    );
    edit(&folder, |manifest| manifest["files"] = Value::Null);
    let error = opened(&folder).err().unwrap().to_string();
    assert!(error.starts_with(&format!("{shown}: it is no manifest of an inventory: invalid type: null")), "{error}");
}
