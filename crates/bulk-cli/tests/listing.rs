//! `bulk list` and `bulk diff`, against a loopback server and real stores.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use bulk_core::{Algorithm, Digest};
use bulk_s3::{KnownChange, KnownObjects, ObjectRef, SqliteKnown, SqliteOptions};
use bulk_testkit::s3::{KeySpace, Layout, Server, Store};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use support::{Ran, bulk};

fn serve(space: &KeySpace) -> Server {
    Server::builder().bucket("data", Store::made_up(space.clone())).max_keys_cap(100).start().unwrap()
}

fn space(edition: u64) -> KeySpace {
    let mut space = KeySpace::new(Layout::Dates, 5000);
    space.edition = edition;
    (space.match_one_in, space.changed_one_in, space.missing_one_in) = (4, 20, 30);
    space
}

fn with(server: &Server, arguments: &[&str]) -> Command {
    let url = server.url();
    bulk([arguments, &["--endpoint", &url, "--anonymous"]].concat())
}

/// The lines that a command has printed.
fn lines(ran: &Ran) -> Vec<Value> {
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn keys(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["key"].as_str().unwrap()).collect()
}

#[test]
fn a_bucket_is_listed_in_order() {
    let space = space(0);
    let server = serve(&space);
    let ran = Ran::of(with(&server, &["list", "s3://data"]));
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let found = lines(&ran);
    let expected: Vec<_> = space.objects().collect();
    assert_eq!(found.len(), expected.len());
    for (line, object) in found.iter().zip(&expected) {
        assert_eq!(line["key"], *object.key);
        assert_eq!(line["etag"], *object.etag);
        assert_eq!(line["size"], object.size);
        assert_eq!(line["last_modified"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap(), object.last_modified);
    }
    assert!(ran.stderr.contains("5000 keys listed"), "{}", ran.stderr);
}

#[test]
fn a_data_set_stands_for_where_it_is() {
    let server = serve(&space(0));
    let folder = tempfile::tempdir().unwrap();
    let of = |prefix: &str| {
        format!(
            "title = 'Builds'\nsource = 's3://data/{prefix}'\nendpoint = '{}'\nanonymous = true\n[tables]\nbuild = 'build'\n",
            server.url()
        )
    };
    let run = |arguments: &[&str]| {
        let mut command = bulk(arguments);
        command.current_dir(folder.path());
        Ran::of(command)
    };
    let listed = Ran::of(with(&server, &["list", "s3://data"]));
    let first = lines(&listed)[0]["key"].as_str().unwrap().to_owned();
    let prefix = &first[..first.rfind('/').unwrap() + 1];
    let below: Vec<&str> = listed.stdout.lines().filter(|line| line.contains(&format!("\"key\":\"{prefix}"))).collect();
    std::fs::write(folder.path().join("builds.toml"), of(prefix)).unwrap();
    assert_eq!(run(&["list", "builds.toml"]).stdout.lines().collect::<Vec<_>>(), below);

    let now = "now.ndjson";
    std::fs::write(folder.path().join(now), below.join("\n")).unwrap();
    let known = ["--known", "sqlite:known.db"];
    let all = below.len();
    run(&[&["known", "import", "builds.toml", now][..], &known].concat())
        .assert(0, &[&format!("{all} object"), "0 rows are of other buckets"]);
    run(&[&["diff", "builds.toml"][..], &known].concat())
        .assert(0, &[&format!("0 added, 0 modified, 0 removed, {all} unchanged, of {all} key")]);
    run(&["list", "absent"]).assert(2, &["there is no data set \"absent\"", "a bucket is s3://bucket/prefix"]);
}

#[test]
fn filters_choose_and_formats_hold_the_same() {
    let space = space(0);
    let server = serve(&space);
    let folder = tempfile::tempdir().unwrap();
    let expected: BTreeSet<String> =
        space.objects().map(|object| object.key).filter(|key| key.ends_with("buildhub.json")).collect();
    for (flags, name) in [
        (&["--suffix", "buildhub.json", "--unsorted"][..], "a.ndjson"),
        (&["--include", "*buildhub.json", "--format", "csv", "--listers", "1"], "a.csv"),
        (&["--regex", "buildhub[.]json$", "--format", "parquet"], "a.parquet"),
    ] {
        let path = folder.path().join(name);
        let out = path.to_str().unwrap();
        let ran = Ran::of(with(&server, &[&["list", "s3://data", "--out", out], flags].concat()));
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(0), ""), "{}", ran.stderr);
        assert!(ran.stderr.contains(&format!("{} of them meant", expected.len())), "{}", ran.stderr);
    }
    let text = std::fs::read_to_string(folder.path().join("a.ndjson")).unwrap();
    let found: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(keys(&found).into_iter().collect::<BTreeSet<_>>().into_iter().eq(expected.iter()));
    let text = std::fs::read_to_string(folder.path().join("a.csv")).unwrap();
    assert_eq!(text.lines().next(), Some("bucket,key,etag,size,last_modified,content"));
    let found = text.lines().skip(1).map(|line| line.split(',').nth(1).unwrap());
    assert!(found.eq(expected.iter()));
    let mut reader = bulk_s3::ParquetReader::open(folder.path().join("a.parquet"), Some("data")).unwrap();
    let mut batch = bulk_s3::Batch::new();
    bulk_s3::ObjectReader::read(&mut reader, &mut batch, 10_000).unwrap();
    assert!(batch.iter().map(|object| object.key).eq(expected.iter()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "something else was left");
}

async fn known(path: &Path, space: &KeySpace) {
    let store = SqliteKnown::open(path, "data", SqliteOptions::default()).await.unwrap();
    let objects: Vec<_> = space.objects().collect();
    for part in objects.chunks(1000) {
        let changes: Vec<_> = part
            .iter()
            .map(|object| {
                let mut described = ObjectRef::new(&object.key);
                described.etag = Some(&object.etag);
                described.size = Some(object.size);
                KnownChange::Set(described)
            })
            .collect();
        store.apply(&changes).await.unwrap();
    }
}

/// How many changes of each kind there are from one edition to the next.
fn expected(before: &KeySpace, after: &KeySpace) -> [u64; 3] {
    let changes = before.changes(after, |_| true);
    [changes.added, changes.modified, changes.removed]
}

fn counts(lines: &[Value]) -> [u64; 3] {
    ["added", "modified", "removed"].map(|kind| lines.iter().filter(|line| line["change"] == kind).count() as u64)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_compared_with_a_store() {
    let (before, after) = (space(0), space(1));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known.db");
    known(&path, &before).await;
    let server = serve(&after);
    let store = format!("sqlite:{}", path.display());
    let ran = Ran::of(with(&server, &["diff", "s3://data", "--known", &store]));
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let found = lines(&ran);
    assert!(keys(&found).is_sorted());
    assert_eq!(counts(&found), expected(&before, &after));
    let modified = found.iter().find(|line| line["change"] == "modified").unwrap();
    assert_ne!(modified["etag"], modified["before"]["etag"]);
    // Nothing was changed in the store, so it is the same again; and the other way round.
    let again = Ran::of(with(&server, &["diff", "s3://data", "--known", &store, "--unsorted"]));
    assert_eq!(counts(&lines(&again)), counts(&found));
    let ignored = Ran::of(with(&server, &["diff", "s3://data", "--known", &store, "--deletions", "ignore"]));
    let [added, modified, _] = counts(&found);
    assert_eq!(counts(&lines(&ignored)), [added, modified, 0]);
}

/// Lines with their ends.
fn whole_lines(reader: &mut impl BufRead) -> impl Iterator<Item = String> {
    std::iter::from_fn(|| {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line.ends_with('\n').then_some(line)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_that_is_killed_goes_on() {
    let (before, after) = (space(0), space(1));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known.db");
    known(&path, &before).await;
    let server = serve(&after);
    server.fault(
        bulk_testkit::s3::Rule::new(bulk_testkit::s3::Fault::Latency(std::time::Duration::from_millis(20))).list(),
    );
    let store = format!("sqlite:{}", path.display());
    let checkpoint = folder.path().join("checkpoint").to_str().unwrap().to_owned();
    let arguments =
        ["diff", "s3://data", "--known", &store, "--checkpoint", &checkpoint, "--listers", "2", "--unsorted", "-q"];
    let mut all = BTreeSet::new();
    let (mut runs, mut killed) = (0, 0);
    let of_last = loop {
        let mut child = with(&server, &arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        // Each run gets further than the one before, on however slow a machine.
        runs += 1;
        let found: Vec<_> = whole_lines(&mut output).take(40 * runs).collect();
        all.extend(found.iter().cloned());
        if found.len() < 40 * runs {
            assert!(child.wait().unwrap().success());
            break found.len();
        }
        child.kill().unwrap();
        killed += u32::from(child.wait().unwrap().code().is_none());
        // What it had said counts. The last line may be half of one: the stretch that it is of comes again.
        all.extend(whole_lines(&mut output));
    };
    assert!(killed > 1 && of_last < all.len(), "{killed} {of_last}");
    let found: Vec<Value> = all.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(counts(&found), expected(&before, &after));
    assert!(!Path::new(&checkpoint).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_tells_where_to_cut() {
    let space = space(0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known.db");
    known(&path, &space).await;
    let server = serve(&space);
    // No page comes before all connections have asked for one.
    let slow = std::time::Duration::from_secs(2);
    server.fault(bulk_testkit::s3::Rule::new(bulk_testkit::s3::Fault::Latency(slow)).list().first(4));
    let store = format!("sqlite:{}", path.display());
    let ran = Ran::of(with(&server, &["diff", "s3://data", "--known", &store, "--listers", "4"]));
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(0), ""), "{}", ran.stderr);
    assert!(ran.stderr.contains("0 removed, 5000 unchanged, of 5000 keys"), "{}", ran.stderr);
    let keys: Vec<String> = space.objects().map(|object| object.key).collect();
    let begins = server.requests().into_iter().take(4).map(|request| request.param("start-after").map(str::to_owned));
    // Of 64 stretches of 5,000 objects 13 have a thousand together.
    let expected =
        [None, Some(1014), Some(2030), Some(3045)].map(|place| place.map(|place: usize| keys[place].clone()));
    assert_eq!(begins.collect::<BTreeSet<_>>(), BTreeSet::from(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_in_a_file_stands_for_the_bucket() {
    let (before, after) = (space(0), space(1));
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    known(Path::new(&path("known.db")), &before).await;
    let server = serve(&after);
    let store = format!("sqlite:{}", path("known.db"));
    let diff = |more: &[&str]| {
        let ran = Ran::of(with(&server, &[&["diff", "s3://data", "--known", &store], more].concat()));
        assert_eq!(ran.status, Some(0), "{}", ran.stderr);
        ran.stdout
    };
    let list = |more: &[&str]| {
        let ran = Ran::of(with(&server, &[&["list", "s3://data", "-q"], more].concat()));
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
        ran.stdout
    };
    let (changes, lines) = (diff(&[]), list(&[]));
    list(&["--unsorted", "--out", &path("a.csv")]);
    server.clear_requests();
    assert!(diff(&["--listing", &path("a.csv")]) == changes);
    // From one format to the other, and with a filter.
    list(&["--listing", &path("a.csv"), "--out", &path("b.parquet")]);
    assert!(list(&["--listing", &path("b.parquet")]) == lines);
    let builds = |line: &&str| line.contains("buildhub.json\"");
    let found = list(&["--listing", &path("b.parquet"), "--suffix", "buildhub.json"]);
    assert!(found.lines().eq(lines.lines().filter(builds)) && !found.is_empty());
    let ran = Ran::of(with(
        &server,
        &["sync", "s3://data", "--out", &path("out"), "--known", &store, "--dry-run", "--listing", &path("a.csv")],
    ));
    let [added, modified, removed] = expected(&before, &after);
    assert!(
        ran.stdout.starts_with(&format!("fetch {added} new objects and {modified} that are others now")),
        "{ran:?}"
    );
    assert!(ran.stdout.contains(&format!("tell of {removed} that are gone")), "{ran:?}");
    assert_eq!(server.counts().requests(), 0);
}

/// Writes an inventory of the bucket `data` as S3 lays one out, and gives its manifest.
fn inventory(folder: &Path, space: &KeySpace) -> std::path::PathBuf {
    let mut rows = GzEncoder::new(Vec::new(), Compression::fast());
    for object in space.objects() {
        let (key, size, time, etag) = (&object.key, object.size, object.last_modified, &object.etag);
        writeln!(rows, "\"data\",\"{key}\",\"{size}\",\"{time}\",\"{etag}\"").unwrap();
    }
    let rows = rows.finish().unwrap();
    let manifest = json!({
        "sourceBucket": "data", "destinationBucket": "arn:aws:s3:::reports", "version": "2016-11-30",
        "creationTimestamp": "1700000000000", "fileFormat": "CSV",
        "fileSchema": "Bucket, Key, Size, LastModifiedDate, ETag",
        "files": [{"key": "daily/data/a.csv.gz", "size": rows.len(), "MD5checksum": Digest::of(Algorithm::Md5, &rows).to_hex()}],
    });
    let dated = folder.join("daily/2026-11-06T21-32Z");
    std::fs::create_dir_all(&dated).unwrap();
    std::fs::create_dir_all(folder.join("daily/data")).unwrap();
    std::fs::write(folder.join("daily/data/a.csv.gz"), rows).unwrap();
    let manifest = manifest.to_string();
    std::fs::write(dated.join("manifest.checksum"), Digest::of(Algorithm::Md5, manifest.as_bytes()).to_hex()).unwrap();
    std::fs::write(dated.join("manifest.json"), manifest).unwrap();
    dated.join("manifest.json")
}

#[test]
fn an_inventory_stands_for_the_bucket() {
    let space = space(0);
    let folder = tempfile::tempdir().unwrap();
    let local = inventory(folder.path(), &space);
    let reports = Store::folder(folder.path(), bulk_testkit::s3::EtagStyle::Multipart);
    let server = Server::builder().bucket("data", Store::made_up(space)).bucket("reports", reports).start().unwrap();
    let list = |manifest: &[&str]| Ran::of(with(&server, &[&["list", "s3://data"], manifest].concat()));
    let listed = list(&[]);
    server.clear_requests();
    for manifest in [local.to_str().unwrap(), "s3://reports/daily/2026-11-06T21-32Z/manifest.json"] {
        let ran = list(&["--inventory", manifest]);
        assert_eq!(ran.status, Some(0), "{}", ran.stderr);
        assert!(ran.stdout == listed.stdout, "{}", ran.stderr);
        assert!(ran.stderr.contains("the inventory is of 2023-11-14T22:13:20Z"), "{}", ran.stderr);
    }
    assert_eq!(server.counts().lists(), 0);
    // Of another bucket, and with a file that is not what the manifest says.
    let ran = Ran::of(with(&server, &["list", "s3://reports", "--inventory", local.to_str().unwrap()]));
    ran.assert(2, &["it is of the bucket \"data\", and not of \"reports\""]);
    let file = folder.path().join("daily/data/a.csv.gz");
    let mut rows = std::fs::read(&file).unwrap();
    rows[1000] ^= 1;
    std::fs::write(&file, rows).unwrap();
    for (manifest, status) in [(local.to_str().unwrap(), 1), ("s3://reports/daily/2026-11-06T21-32Z/manifest.json", 7)]
    {
        let ran = list(&["--inventory", manifest]);
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(status), ""), "{}", ran.stderr);
        assert!(ran.stderr.contains("md5:"), "{}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inventory_says_nothing_of_what_is_younger() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known.db");
    let space = space(0);
    let manifest = inventory(folder.path(), &space);
    let first = space.objects().next().unwrap();
    let store = SqliteKnown::open(&path, "data", SqliteOptions::default()).await.unwrap();
    let object = |key, time: &str| {
        let mut object = ObjectRef::new(key);
        (object.etag, object.last_modified) = (Some("another"), Some(time.parse().unwrap()));
        object
    };
    // The inventory is of 2023-11-14T22:13:20Z. Of what is known to be younger it cannot tell.
    let (old, young) = ("2023-11-14T22:13:20Z", "2023-11-14T22:13:21Z");
    let known = [object("zz/old", old), object("zz/young", young), object(&first.key, young)];
    store.apply(&known.map(KnownChange::Set)).await.unwrap();
    let (known, manifest) = (format!("sqlite:{}", path.display()), manifest.to_str().unwrap());
    let arguments = ["diff", "s3://data", "--anonymous", "--known", &known, "--inventory", manifest];
    let ran = Ran::of(bulk(arguments));
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let lines = lines(&ran);
    assert_eq!(counts(&lines), [4999, 0, 1]);
    assert_eq!(*keys(&lines).last().unwrap(), "zz/old");
    assert!(ran.stderr.contains("2 unchanged"), "{}", ran.stderr);
}

#[test]
fn versions_are_listed_with_the_marks_of_deletions() {
    let store = Store::versioned().with("a", "one").with("a", "three").with("b", "x").without("b").with("c", "y");
    let server = Server::builder().bucket("data", store).max_keys_cap(2).start().unwrap();
    let ran = Ran::of(with(&server, &["list", "s3://data", "--versions", "--exclude", "c"]));
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let found = lines(&ran);
    let flags = found.iter().map(|line| {
        let flag = |name: &str| line[name].as_bool().unwrap();
        (line["key"].as_str().unwrap(), line["size"].as_u64(), flag("is_latest"), flag("delete_marker"))
    });
    let expected = [
        ("a", Some(5), true, false),
        ("a", Some(3), false, false),
        ("b", None, true, true),
        ("b", Some(1), false, false),
    ];
    assert_eq!(flags.collect::<Vec<_>>(), expected);
    let versions: BTreeSet<_> = found.iter().map(|line| line["version"].as_str().unwrap()).collect();
    assert_eq!(versions.len(), 4);
    assert_eq!((server.counts().list_versions, server.counts().requests()), (3, 3));
    assert!(ran.stderr.contains("5 keys listed"), "{}", ran.stderr);
    let ran = Ran::of(with(&server, &["list", "s3://data", "--versions", "--format", "csv"]));
    ran.assert(2, &["--versions are written as NDJSON alone"]);
}

#[test]
fn what_cannot_be_done_is_refused() {
    let server = serve(&space(0));
    let folder = tempfile::tempdir().unwrap();
    for (arguments, said) in [
        (&["list", "s3://data", "--format", "parquet"][..], "--format parquet needs --out FILE"),
        (&["list", "s3://data", "--include", "["], "--include: error parsing glob '['"),
        (&["list", "s3://data", "--regex", "("], "--regex: regex parse error"),
        (
            &["diff", "s3://data", "--known", "mysql://x:secret@h"],
            "--known is sqlite:FILE or postgresql://…, and not mysql://…",
        ),
        (&["diff", "s3://data", "--known", "host=h password=secret"], "--known is sqlite:FILE or postgresql://…\n"),
        (&["diff", "s3://data", "--known", "sqlite:x", "--compare", "md5"], "is none of etag, size, mtime, etag+size"),
        (&["diff", "s3://data", "--known", "sqlite:x", "--known-table", "t"], "--key-column <COLUMN>"),
        (&["diff", "s3://data", "--known", "sqlite:x", "--restart"], "--restart needs --checkpoint FILE"),
        (&["diff", "s3://data"], "--known <STORE>"),
        (&["list", "s3://data", "--listing", "absent"], "--listing absent: No such file"),
        (&["list", "s3://data", "--inventory", "manifest.csv"], "that is neither s3://bucket/…/manifest.json"),
        (&["list", "s3://data", "--versions", "--listing", "a"], "'--versions' cannot be used with '--listing"),
        (&["diff", "file:///x", "--known", "sqlite:x"], "a folder has no ETags to compare"),
        (&["list", "/tmp"], "one of your own is a .toml file; a bucket is s3://bucket/prefix\n"),
        (&["list", "ftp://me:secret@h/x"], "a bucket is s3://bucket/prefix, and not ftp://…"),
    ] {
        let mut command = with(&server, arguments);
        command.current_dir(folder.path());
        let ran = Ran::of(command);
        ran.assert(2, &[said]);
        assert!(!ran.stderr.contains("secret"), "{}", ran.stderr);
    }
    let ran = Ran::of(with(&server, &["list", "s3://data", "--json"]));
    assert_eq!(ran.status, Some(2));
    assert!(ran.stdout.contains("--json has standard output for its events"), "{}", ran.stdout);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was made");
}

#[test]
fn output_goes_to_files_and_devices_and_nowhere_else() {
    let server = serve(&space(0));
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let to = |out: &str| Ran::of(with(&server, &["list", "s3://data", "--out", out]));
    let ran = to(folder.path().to_str().unwrap());
    assert_eq!(ran.status, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("it is a folder; name a file"), "{}", ran.stderr);
    assert!(server.requests().is_empty());
    // What is full says so, here and on standard output.
    assert!(is_device("/dev/full"));
    let ran = to("/dev/full");
    assert_eq!(ran.status, Some(5), "{}", ran.stderr);
    assert!(ran.stderr.contains("/dev/full") && ran.stderr.contains("free some space"), "{}", ran.stderr);
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let known = format!("sqlite:{}", path("known.db"));
    let imported = Ran::of(bulk(["known", "import", "s3://data", &write_empty(&path("none.csv")), "--known", &known]));
    assert_eq!(imported.status, Some(0), "{}", imported.stderr);
    for arguments in [&["list", "s3://data"][..], &["diff", "s3://data", "--known", &known]] {
        let status = with(&server, arguments).stdout(full()).stderr(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(5), "{arguments:?}");
    }
    assert_eq!(to("/dev/null").status, Some(0));
    assert!(is_device("/dev/full") && is_device("/dev/null"));
    // A pipe stays one, and gets all.
    let pipe = path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let child = with(&server, &["list", "s3://data", "--out", &pipe]).spawn().unwrap();
    let mut text = String::new();
    std::fs::File::open(&pipe).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(text.lines().count(), 5000);
}

fn is_device(path: &str) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).unwrap().file_type().is_char_device()
}

/// A file of objects that has none.
fn write_empty(path: &str) -> String {
    std::fs::write(path, "key,etag\n").unwrap();
    path.to_owned()
}

#[test]
fn a_table_without_the_column_that_is_compared_is_refused() {
    let columns = ["--known-table", "t", "--key-column", "k", "--etag-column", "e"];
    for (compare, flag) in [("size", "--size-column"), ("etag+size", "--size-column"), ("mtime", "--mtime-column")] {
        let arguments = ["diff", "s3://data", "--known", "postgresql://nobody@localhost/none", "--compare", compare];
        let ran = Ran::of(bulk([&arguments[..], &columns].concat()));
        assert_eq!(ran.status, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains(&format!("--compare {compare} needs {flag}")), "{}", ran.stderr);
    }
}
