//! Sets of files, brought to a bucket: of our own server, and of moto.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulk_core::{Algorithm, Digest, HttpClient, RetryPolicy};
use bulk_s3::{
    Bucket, BucketOptions, Credentials, Error, FileSet, FileSetManifest, SetEvent, SetFile, SetOptions, SetPlan,
    Uploaded, compare_set,
};
use bulk_testkit::moto;
use bulk_testkit::s3::{Fault, Quirk, RequestRecord, Rule, Server, Store};
use bytes::Bytes;
use futures::TryStreamExt;
use http::{HeaderMap, Method};

const MIB: usize = 1 << 20;

fn bucket(endpoint: &str) -> Bucket {
    let mut options = BucketOptions::default();
    options.endpoint = Some(endpoint.to_owned());
    options.credentials =
        Credentials::Static { key_id: "testing".to_owned(), secret: "testing".to_owned(), token: None };
    options.retry = RetryPolicy::default();
    options.retry.initial = Duration::ZERO;
    options.retry.attempts = 3;
    Bucket::new("data", options).unwrap()
}

/// Verifies signatures, those of bodies among them.
fn server(store: Store, is_signed: bool) -> Server {
    let builder = Server::builder().bucket("data", store).credentials("testing", "testing");
    builder.require_credentials(is_signed).writable(true).start().unwrap()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    match Digest::of(Algorithm::Sha256, bytes) {
        Digest::Sha256(digest) => digest,
        other => panic!("{other}"),
    }
}

fn noise(len: usize, seed: u32) -> Vec<u8> {
    (0..len as u32).map(|at| (at.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

type Files = BTreeMap<String, Vec<u8>>;

fn files<const N: usize>(files: [(&str, Vec<u8>); N]) -> Files {
    files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

/// A manifest has a line for each file but those called `…info`: digest and name.
fn manifest(files: &Files) -> Vec<u8> {
    let named = files.iter().filter(|(name, _)| !name.ends_with("info"));
    named.map(|(name, bytes)| format!("{} {name}\n", Digest::of(Algorithm::Sha256, bytes))).collect::<String>().into()
}

fn read_manifest(bytes: &[u8]) -> Option<Vec<(String, Option<[u8; 32]>)>> {
    let lines = std::str::from_utf8(bytes).ok()?.lines();
    let read = lines.map(|line| {
        let (digest, name) = line.split_once(' ')?;
        match digest.parse() {
            Ok(Digest::Sha256(digest)) => Some((name.to_owned(), Some(digest))),
            _ => None,
        }
    });
    read.collect()
}

/// Writes the files into a folder, as a set below `exports/`.
fn set(folder: &Path, files: &Files) -> FileSet {
    let listed = files.iter().map(|(name, bytes)| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        let mut file = SetFile::new(name, path, bytes.len() as u64, sha256(bytes));
        file.content_type = Some("application/gzip".to_owned());
        file.stands_alone = name == "a/info";
        file
    });
    let mut set = FileSet::new("exports/", listed.collect(), FileSetManifest::new("manifest", manifest(files)));
    set.is_own = Arc::new(|name| name.starts_with("a/"));
    set
}

fn options(seen: &Heard) -> SetOptions {
    let mut options = SetOptions::default();
    options.part_size = 5 * MIB as u64;
    let seen = Arc::clone(seen);
    options.observer = Arc::new(move |event: &SetEvent<'_>| {
        let text = match event {
            SetEvent::Put { file } => format!("put {}", file.name),
            SetEvent::Removed { name } => format!("removed {name}"),
            SetEvent::Aborted { uploads } => format!("aborted {uploads}"),
            SetEvent::NotAborted { .. } => "not aborted".to_owned(),
            SetEvent::Unpublished => "unpublished".to_owned(),
            SetEvent::Published => "published".to_owned(),
            SetEvent::NotCopied { file, .. } => format!("not copied {}", file.name),
            SetEvent::NotNoted { file, .. } => format!("not noted {}", file.name),
            SetEvent::Begun { .. } | SetEvent::Sent { .. } | SetEvent::Copied { .. } => return,
            other => format!("{other:?}"),
        };
        seen.lock().unwrap().push(text);
    });
    options
}

type Heard = Arc<Mutex<Vec<String>>>;

async fn compare(bucket: &Bucket, folder: &Path, files: &Files) -> (SetPlan, Heard) {
    compare_with(bucket, folder, files, 4).await
}

async fn compare_with(bucket: &Bucket, folder: &Path, files: &Files, concurrency: usize) -> (SetPlan, Heard) {
    let seen = Arc::default();
    let mut options = options(&seen);
    options.concurrency = concurrency;
    let plan = compare_set(bucket, set(folder, files), options, &read_manifest).await.unwrap();
    (plan, seen)
}

/// Uploads the set; gives what was done, and what was heard, of puts in the order of names.
async fn upload(bucket: &Bucket, folder: &Path, files: &Files) -> (Uploaded, Vec<String>) {
    let (plan, seen) = compare(bucket, folder, files).await;
    let done = plan.upload().await.unwrap();
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    let first = seen.iter().position(|event| event.starts_with("put")).unwrap_or(0);
    let last = seen.iter().rposition(|event| event.starts_with("put")).map_or(first, |at| at + 1);
    seen[first..last].sort();
    (done, seen)
}

fn uploaded(files: u64, bytes: usize, kept: u64, removed: u64) -> (u64, u64, u64, u64) {
    (files, bytes as u64, kept, removed)
}

fn figures(done: &Uploaded) -> (u64, u64, u64, u64) {
    (done.files, done.bytes, done.kept, done.removed)
}

async fn content(bucket: &Bucket) -> Files {
    use bulk_core::{Get, Source};
    let objects: Vec<_> = bucket.list("").try_collect().await.unwrap();
    let mut content = Files::new();
    for object in objects {
        let body = bucket.get(&Get::new(&object.key)).await.unwrap();
        let chunks: Vec<Bytes> = body.bytes.try_collect().await.unwrap();
        content.insert(object.key, chunks.concat());
    }
    content
}

/// What a bucket has that has the set and these.
fn with(files: &Files, others: &[(&str, &[u8])]) -> Files {
    let own = files.iter().map(|(name, bytes)| (format!("exports/{name}"), bytes.clone()));
    let others = others.iter().map(|(key, bytes)| ((*key).to_owned(), bytes.to_vec()));
    let manifest = ("exports/manifest".to_owned(), manifest(files));
    own.chain([manifest]).chain(others).collect()
}

const FOREIGN: [(&str, &[u8]); 2] = [("exports/a/foreign", b"foreign"), ("exports/zoo", b"zoo")];

/// A set that grows, changes and shrinks, with objects beside it that are not of it.
async fn check_editions(bucket: &Bucket) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let first = files([
        ("a/large", noise(12 * MIB + 7, 1)),
        ("a/exact", noise(5 * MIB, 2)),
        ("a/empty", Vec::new()),
        ("a/odd & <name>+%25é", b"odd".to_vec()),
        ("a/info", b"first".to_vec()),
    ]);
    let (done, seen) = upload(bucket, folder, &first).await;
    assert_eq!(figures(&done), uploaded(5, 17 * MIB + 15, 0, 0));
    let puts = ["put a/empty", "put a/exact", "put a/info", "put a/large", "put a/odd & <name>+%25é", "published"];
    assert_eq!(seen, puts);
    assert_eq!(content(bucket).await, with(&first, &FOREIGN));

    // The same again.
    let (plan, _) = compare(bucket, folder, &first).await;
    assert!(plan.is_done() && plan.uploads().len() == 0 && plan.removals().is_empty() && !plan.unpublishes());
    let (done, seen) = upload(bucket, folder, &first).await;
    assert_eq!((figures(&done), seen), (uploaded(0, 0, 5, 0), vec![]));

    // Some are replaced, of the same size, too, or go; one comes.
    let mut second = first.clone();
    second.insert("a/large".to_owned(), noise(12 * MIB + 7, 3));
    second.insert("a/info".to_owned(), b"other".to_vec());
    second.insert("a/new".to_owned(), b"new".to_vec());
    second.remove("a/exact");
    let (plan, _) = compare(bucket, folder, &second).await;
    assert_eq!(plan.uploads().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["a/large", "a/info", "a/new"]);
    assert_eq!((plan.removals(), plan.unpublishes()), (&["a/exact".to_owned()][..], true));
    let (done, seen) = upload(bucket, folder, &second).await;
    assert_eq!(figures(&done), uploaded(3, 12 * MIB + 15, 2, 1));
    let events = ["unpublished", "put a/info", "put a/large", "put a/new", "published", "removed a/exact"];
    assert_eq!(seen, events);
    assert_eq!(content(bucket).await, with(&second, &FOREIGN));

    // What says nothing of the others is replaced beside the manifest.
    second.insert("a/info".to_owned(), b"third".to_vec());
    let (done, seen) = upload(bucket, folder, &second).await;
    assert_eq!((figures(&done), seen), (uploaded(1, 5, 4, 0), vec!["put a/info".to_owned()]));
    assert_eq!(content(bucket).await, with(&second, &FOREIGN));

    // What only comes leaves the manifest where it is until it is replaced.
    let mut third = second.clone();
    third.insert("a/newer".to_owned(), b"newer".to_vec());
    let (done, seen) = upload(bucket, folder, &third).await;
    assert_eq!((figures(&done), seen), (uploaded(1, 5, 5, 0), vec!["put a/newer".to_owned(), "published".to_owned()]));
    assert_eq!(content(bucket).await, with(&third, &FOREIGN));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_has_what_the_set_has() {
    let server = server(FOREIGN.into_iter().collect(), true);
    check_editions(&bucket(&server.url())).await;
    assert_eq!(server.uploads("data").unwrap(), []);
    let asked = |method: Method, query: &str| {
        let is = |record: &RequestRecord| record.method == method && record.param(query).is_some();
        server.requests().iter().filter(|record| is(record)).count()
    };
    // Two uploads in three parts each.
    assert_eq!((asked(Method::POST, "uploads"), asked(Method::PUT, "partNumber")), (2, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_moto_has_what_the_set_has() {
    let server = tokio::task::spawn_blocking(|| {
        let server = moto::Server::start().unwrap();
        server.create_bucket("data").unwrap();
        FOREIGN.iter().for_each(|(key, bytes)| server.put("data", key, bytes).unwrap());
        server
    });
    let server = server.await.unwrap();
    check_editions(&bucket(&server.url())).await;
}

fn three() -> Files {
    files([("a/1", noise(11 * MIB, 1)), ("a/2", noise(100, 2)), ("a/3", noise(101, 3)), ("a/info", b"1".to_vec())])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_short_goes_on_with_what_is_missing() {
    let (server, folder) = (server(Store::memory(), false), tempfile::tempdir().unwrap());
    let (bucket, folder) = (bucket(&server.url()), folder.path());
    let first = three();
    upload(&bucket, folder, &first).await;
    let mut second = first.clone();
    second.insert("a/1".to_owned(), noise(11 * MIB, 4));
    second.insert("a/2".to_owned(), noise(100, 5));
    second.insert("a/3".to_owned(), noise(101, 6));
    let denied = || Fault::Status { code: 403, error: "AccessDenied".to_owned(), retry_after: None };
    let completion = Rule::new(denied()).key("exports/a/1").method(Method::POST).nth(2);
    let last = Rule::new(denied()).key("exports/a/2").method(Method::PUT);
    for (rule, heard) in [(completion, &["unpublished"][..]), (last, &["put a/1", "put a/3"])] {
        let rule = server.fault(rule);
        // One by one, so that it is known what was done before.
        let (plan, seen) = compare_with(&bucket, folder, &second, 1).await;
        let error = plan.upload().await.unwrap_err();
        assert!(error.is_denied(), "{error}");
        assert_eq!(
            (rule.hits(), seen.lock().unwrap().as_slice()),
            (1, heard.iter().map(ToString::to_string).collect::<Vec<_>>().as_slice())
        );
        assert_eq!((server.get("data", "exports/manifest").unwrap(), server.uploads("data").unwrap()), (None, vec![]));
        server.clear_faults();
    }

    // Another one was killed that had begun two uploads, and somebody has one that is none of the set's.
    for key in ["exports/a/1", "exports/a/gone", "exports/other"] {
        begin_upload(&server, key).await;
    }
    assert_eq!(server.uploads("data").unwrap().len(), 3);
    let (done, seen) = upload(&bucket, folder, &second).await;
    assert_eq!((figures(&done), done.aborted), (uploaded(1, 100, 3, 0), 2));
    assert_eq!(seen, ["aborted 2", "put a/2", "published"]);
    assert_eq!(
        server.uploads("data").unwrap().iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(),
        ["exports/other"]
    );
    assert_eq!(content(&bucket).await, with(&second, &[]));
    assert!(compare(&bucket, folder, &second).await.0.is_done());
}

/// Begins an upload in parts, and leaves it at that.
async fn begin_upload(server: &Server, key: &str) {
    let url = format!("{}?uploads=", server.object_url("data", key)).parse().unwrap();
    HttpClient::new().unwrap().write(Method::POST, &url, HeaderMap::new(), Bytes::new(), Duration::ZERO).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_manifest_there_names_goes_with_it() {
    let first = files([("a/1", b"1".to_vec()), ("b/2", b"2".to_vec()), ("c", b"3".to_vec())]);
    let mut second = first.clone();
    second.insert("a/1".to_owned(), b"4".to_vec());
    second.retain(|name, _| name == "a/1");
    let foreign: [(&str, &[u8]); 2] = [("exports/b/foreign", b"foreign"), ("exports/d", b"foreign")];
    // What is denied the first time: a file, when the manifest is gone; the manifest; what is to be removed behind it.
    let denied = [None, Some((Method::PUT, "a/1")), Some((Method::PUT, "manifest")), Some((Method::DELETE, "b/2"))];
    for (denied, has_notes) in denied.iter().flat_map(|denied| [(denied, true), (denied, false)]) {
        let (server, folder) = (server(foreign.into_iter().collect(), false), tempfile::tempdir().unwrap());
        let (bucket, folder) = (bucket(&server.url()), folder.path());
        upload(&bucket, folder, &first).await;
        begin_upload(&server, "exports/c").await;
        begin_upload(&server, "exports/b/foreign").await;
        server.clear_requests();
        let run = async || {
            let seen = Heard::default();
            let mut options = options(&seen);
            (options.concurrency, options.notes) = (1, has_notes.then(|| folder.join("notes")));
            let plan = compare_set(&bucket, set(folder, &second), options, &read_manifest).await.unwrap();
            let (removals, done) = (plan.removals().to_vec(), plan.upload().await);
            (removals, done, std::mem::take(&mut *seen.lock().unwrap()))
        };
        if let Some((method, name)) = denied {
            let fault = Fault::Status { code: 403, error: "AccessDenied".to_owned(), retry_after: None };
            let rule = server.fault(Rule::new(fault).key(&format!("exports/{name}")).method(method.clone()));
            let (removals, failed, _) = run().await;
            assert!(failed.unwrap_err().is_denied() && removals == ["b/2", "c"] && rule.hits() == 1);
            server.clear_faults();
        }
        let (removals, done, seen) = run().await;
        let (done, is_first) = (done.unwrap(), denied.is_none());
        if is_first {
            let events = ["aborted 1", "unpublished", "put a/1", "published", "removed b/2", "removed c"];
            assert_eq!(seen, events);
        }
        if is_first || has_notes {
            assert_eq!((removals, done.removed), (vec!["b/2".to_owned(), "c".to_owned()], 2), "{denied:?}");
            assert_eq!(content(&bucket).await, with(&second, &foreign));
        } else {
            // Nothing tells what they are any more.
            assert_eq!(removals, [""; 0]);
            let left: [(&str, &[u8]); 2] = [("exports/b/2", b"2"), ("exports/c", b"3")];
            assert_eq!(content(&bucket).await, with(&second, &[foreign, left].concat()));
        }
        // Nobody has touched, or asked for, what is somebody else's.
        let others = ["exports/b/foreign", "exports/d"];
        let asked = |record: &RequestRecord| {
            record.method == Method::HEAD && record.key.as_deref().is_some_and(|key| others.contains(&key))
        };
        assert!(!server.requests().iter().any(asked));
        let unfinished: Vec<String> = server.uploads("data").unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(unfinished, ["exports/b/foreign"]);
        let (plan, _) = compare(&bucket, folder, &second).await;
        assert!(plan.is_done());
        if has_notes {
            let notes = fs::read_dir(folder.join("notes")).unwrap().map(|of_prefix| of_prefix.unwrap().path());
            assert_eq!(notes.flat_map(|of_prefix| fs::read_dir(of_prefix).unwrap()).count(), 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_damaged_or_gone_costs_no_upload() {
    let (server, folder) = (server(Store::memory(), true), tempfile::tempdir().unwrap());
    let (bucket, folder) = (bucket(&server.url()), folder.path());
    let files = three();
    upload(&bucket, folder, &files).await;
    for damaged in [Some("no manifest"), None] {
        match damaged {
            Some(text) => server.put("data", "exports/manifest", text).unwrap(),
            None => server.remove("data", "exports/manifest").unwrap(),
        }
        let (done, seen) = upload(&bucket, folder, &files).await;
        assert_eq!((figures(&done), seen), (uploaded(0, 0, 4, 0), vec!["published".to_owned()]));
        assert_eq!(content(&bucket).await, with(&files, &[]));
    }
    // Whoever put these has not said what they are: the ETag says it of the small one.
    for name in ["a/1", "a/2"] {
        server.put("data", &format!("exports/{name}"), files[name].clone()).unwrap();
    }
    server.remove("data", "exports/manifest").unwrap();
    let (plan, _) = compare(&bucket, folder, &files).await;
    assert_eq!(plan.uploads().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["a/1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_has_changed_is_not_uploaded() {
    for changed in [noise(11 * MIB, 9), noise(11 * MIB - 1, 1), noise(MIB, 1)] {
        let (server, folder) = (server(Store::memory(), true), tempfile::tempdir().unwrap());
        let (bucket, folder) = (bucket(&server.url()), folder.path());
        let (plan, _) = compare(&bucket, folder, &three()).await;
        fs::write(folder.join("a/1"), changed).unwrap();
        let error = plan.upload().await.unwrap_err();
        assert!(matches!(&error, Error::Upload { path, source: None, .. } if path.ends_with("a/1")), "{error:?}");
        assert!(error.to_string().ends_with("a/1: it is not what the manifest says"), "{error}");
        for key in ["exports/a/1", "exports/manifest"] {
            assert_eq!(server.get("data", key).unwrap(), None);
        }
        assert_eq!(server.uploads("data").unwrap(), []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_made_again_and_what_was_done_is_not_done_twice() {
    let (server, folder) = (server(Store::memory(), true), tempfile::tempdir().unwrap());
    let files = three();
    let busy = server.fault(Rule::new(Fault::slow_down()).method(Method::PUT).first(2));
    // The object is put together, and nobody hears of it.
    let lost = server.fault(Rule::new(Fault::ResetAfter(0)).key("exports/a/1").method(Method::POST).nth(2));
    let bucket = bucket(&server.url());
    let (done, _) = upload(&bucket, folder.path(), &files).await;
    assert_eq!((busy.hits(), lost.hits(), figures(&done)), (2, 1, uploaded(4, 11 * MIB + 202, 0, 0)));
    assert_eq!(content(&bucket).await, with(&files, &[]));
}

/// Bytes that nothing else has.
fn random(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let byte = |_| {
        // Knuth's MMIX generator.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(byte).collect()
}

/// Uploads the set by copies, as far as what is kept in `notes` tells; gives what was done, and what was heard.
async fn upload_by_copies(bucket: &Bucket, folder: &Path, files: &Files) -> (Uploaded, Vec<String>) {
    let seen = Arc::default();
    let mut options = options(&seen);
    // In the order of their sizes, and part by part.
    options.concurrency = 1;
    options.notes = Some(folder.join("notes"));
    let set = set(&folder.join("set"), files);
    let plan = compare_set(bucket, set, options, &read_manifest).await.unwrap();
    let done = plan.upload().await.unwrap();
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    (done, seen)
}

/// From where on how many bytes go, and what comes instead.
type Edit<'a> = (usize, usize, &'a [u8]);

/// A large file in editions. `sent` tells how many bytes were sent to the server since it was asked last, if it can tell.
async fn check_copies(bucket: &Bucket, sent: impl Fn() -> Option<u64>) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut bytes = random(30 * MIB, 1);
    let set = |bytes: &[u8]| files([("a/large", bytes.to_vec())]);
    let (done, _) = upload_by_copies(bucket, folder, &set(&bytes)).await;
    assert_eq!((done.bytes, done.copied), (bytes.len() as u64, 0));
    sent();
    let edit = |edition: &mut Vec<u8>, at: usize, gone: usize, come: &[u8]| {
        edition.splice(at..at + gone, come.iter().copied());
    };
    // A change costs a part and the chunks at its ends; one at the end less.
    let place = 5 * MIB as u64 + 4 * (512 << 10);
    let editions: [(&[Edit], u64); 5] = [
        (&[(15 * MIB, 0, &[1; 1000])], place),
        (&[(15 * MIB, 3, &[1, 2, 3]), (100, 7, &[])], 2 * place),
        (&[(30 * MIB, 0, &[7; 99])], place),
        // Most of it goes, from the middle.
        (&[(8 * MIB, 12 * MIB, &[])], place),
        (&[(0, 0, &random(9 * MIB, 2))], 9 * MIB as u64 + 4 * (512 << 10)),
    ];
    for (number, (edits, most)) in editions.into_iter().enumerate() {
        edits.iter().for_each(|(at, gone, come)| edit(&mut bytes, *at, *gone, come));
        let files = set(&bytes);
        let (done, seen) = upload_by_copies(bucket, folder, &files).await;
        assert_eq!((done.files, done.bytes), (1, bytes.len() as u64));
        assert!(done.bytes - done.copied <= most, "edition {number}: {done:?}");
        assert_eq!(seen, ["unpublished", "put a/large", "published"]);
        assert!(content(bucket).await == with(&files, &[]), "edition {number}");
        if let Some(sent) = sent() {
            // And what else an upload has: the list of its parts, and the manifest.
            let others = sent - (done.bytes - done.copied);
            assert!(others < 10_000, "edition {number}: {sent} for {done:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_in_a_large_file_is_sent() {
    let server = server(Store::memory(), true);
    check_copies(&bucket(&server.url()), || {
        let sent = server.requests().iter().filter_map(|record| record.body_len).sum();
        server.clear_requests();
        Some(sent)
    })
    .await;
    assert_eq!(server.uploads("data").unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_in_a_large_file_is_sent_to_moto() {
    let server = tokio::task::spawn_blocking(|| {
        let server = moto::Server::start().unwrap();
        server.create_bucket("data").unwrap();
        server
    });
    let server = server.await.unwrap();
    check_copies(&bucket(&server.url()), || None).await;
}

/// Two large files, of which little changes, and what is uploaded of them then.
struct Changed {
    server: Server,
    bucket: Bucket,
    folder: tempfile::TempDir,
    files: Files,
}

impl Changed {
    async fn new(store: Store) -> Self {
        let server = server(store, true);
        let (bucket, folder) = (bucket(&server.url()), tempfile::tempdir().unwrap());
        let mut files = files([("a/larger", random(18 * MIB, 1)), ("a/large", random(17 * MIB, 2))]);
        upload_by_copies(&bucket, folder.path(), &files).await;
        files.values_mut().for_each(|bytes| bytes.push(1));
        server.clear_requests();
        Self { server, bucket, folder, files }
    }

    /// Uploads what changed, which must be there then.
    async fn upload(&self) -> (u64, Vec<String>) {
        let (done, seen) = upload_by_copies(&self.bucket, self.folder.path(), &self.files).await;
        assert!(content(&self.bucket).await == with(&self.files, &[]));
        assert_eq!(self.server.uploads("data").unwrap(), []);
        (done.copied, seen)
    }

    /// The same where somebody puts another object in the place of one between the listing and the upload.
    async fn upload_over_another(&self) -> (Uploaded, Vec<String>) {
        let seen = Arc::default();
        let mut options = options(&seen);
        options.concurrency = 1;
        options.notes = Some(self.folder.path().join("notes"));
        let set = set(&self.folder.path().join("set"), &self.files);
        let plan = compare_set(&self.bucket, set, options, &read_manifest).await.unwrap();
        self.server.put("data", "exports/a/larger", random(18 * MIB, 3)).unwrap();
        let done = plan.upload().await.unwrap();
        assert!(content(&self.bucket).await == with(&self.files, &[]));
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        (done, seen)
    }

    /// What is kept of objects.
    fn notes(&self) -> Vec<std::path::PathBuf> {
        let entries =
            |path: &Path| -> Vec<_> { fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect() };
        entries(&self.folder.path().join("notes")).iter().flat_map(|folder| entries(folder)).collect()
    }

    /// How many copies were asked for.
    fn copies(&self) -> usize {
        self.server.requests().iter().filter(|record| record.copy_range.is_some()).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_copied_all_is_sent() {
    // The first copy is refused: where the server knows none no other is asked for, else that object is sent whole.
    let refused = ["unpublished", "not copied a/larger", "put a/larger", "put a/large", "published"];
    for (code, error, ends) in
        [(501, "NotImplemented", true), (400, "InvalidRequest", false), (403, "InvalidObjectState", false)]
    {
        let changed = Changed::new(Store::memory()).await;
        let fault = Fault::Status { code, error: error.to_owned(), retry_after: None };
        let rule = changed.server.fault(Rule::new(fault).key("exports/a/larger").method(Method::PUT).nth(1));
        let (copied, seen) = changed.upload().await;
        assert_eq!(seen, refused);
        assert_eq!((rule.hits(), copied == 0, changed.copies() == 1), (1, ends, ends), "{code}: {copied}");
        // The next time there is another chance.
        let mut changed = changed;
        changed.files.values_mut().for_each(|bytes| bytes.push(2));
        let (copied, _) = changed.upload().await;
        assert!(copied >= 33 * MIB as u64, "{copied}");
    }
    // Copies alone do not come to an end.
    let changed = Changed::new(Store::memory().quirk(Quirk::CopyTimesOut)).await;
    let neither =
        ["unpublished", "not copied a/larger", "put a/larger", "not copied a/large", "put a/large", "published"];
    assert_eq!(changed.upload().await, (0, neither.map(str::to_owned).to_vec()));
    // A server that takes an empty part, and one that copies more than it was told.
    for quirk in [Quirk::CopySourceIgnored, Quirk::CopyRangeIgnored] {
        let changed = Changed::new(Store::memory().quirk(quirk)).await;
        assert_eq!(changed.upload().await, (0, refused.map(str::to_owned).to_vec()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_not_known_is_not_copied_from() {
    // Somebody has put another one there, before it was listed, and after that.
    let changed = Changed::new(Store::memory()).await;
    changed.server.put("data", "exports/a/larger", random(18 * MIB, 1)).unwrap();
    let (copied, seen) = changed.upload().await;
    assert_eq!(seen, ["unpublished", "put a/larger", "put a/large", "published"]);
    assert!((16 * MIB as u64..=17 * MIB as u64).contains(&copied), "{copied}");

    let wanted = ["unpublished", "not copied a/larger", "put a/larger", "put a/large", "published"];
    let changed = Changed::new(Store::memory()).await;
    let (done, seen) = changed.upload_over_another().await;
    assert_eq!(seen, wanted);
    assert!((16 * MIB as u64..=17 * MIB as u64).contains(&done.copied), "{done:?}");
    // A server that copies whatever is there does not get it published.
    let changed = Changed::new(Store::memory().quirk(Quirk::CopyIfMatchIgnored)).await;
    let (done, seen) = changed.upload_over_another().await;
    assert_eq!((done.copied, seen), (0, wanted.map(str::to_owned).to_vec()));

    // Nothing is known, or what is known is damaged.
    let changed = Changed::new(Store::memory()).await;
    for path in changed.notes() {
        let mut bytes = fs::read(&path).unwrap();
        bytes[100] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let (copied, seen) = changed.upload().await;
    assert_eq!((copied, changed.copies()), (0, 0));
    assert_eq!(seen, ["unpublished", "put a/larger", "put a/large", "published"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_is_forgotten_and_what_cannot_be_kept_is_said() {
    let mut changed = Changed::new(Store::memory()).await;
    let notes = changed.folder.path().join("notes");
    assert_eq!(changed.notes().len(), 2);
    // What is gone without being removed by an upload, and what a kill has left, goes, too; not what is of another prefix.
    fs::write(changed.notes()[0].with_file_name("0123.part"), "").unwrap();
    fs::create_dir(notes.join("another")).unwrap();
    fs::write(notes.join("another/note"), "").unwrap();
    changed.files.remove("a/larger");
    changed.server.remove("data", "exports/a/larger").unwrap();
    changed.upload().await;
    assert_eq!(changed.notes().len(), 2);
    assert!(notes.join("another/note").exists());
    // A file stands where the folder is to be.
    fs::remove_dir_all(&notes).unwrap();
    fs::write(&notes, "").unwrap();
    changed.files.values_mut().for_each(|bytes| bytes.push(3));
    let (copied, seen) = changed.upload().await;
    assert_eq!(
        (copied, seen),
        (0, ["unpublished", "not noted a/large", "put a/large", "published"].map(str::to_owned).to_vec())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_has_changed_is_not_uploaded_by_copies() {
    let changed = Changed::new(Store::memory()).await;
    let (seen, folder) = (Arc::default(), changed.folder.path());
    let mut options = options(&seen);
    options.notes = Some(folder.join("notes"));
    let plan = compare_set(&changed.bucket, set(&folder.join("set"), &changed.files), options, &read_manifest).await;
    fs::write(folder.join("set/a/larger"), random(18 * MIB + 1, 1)).unwrap();
    let error = plan.unwrap().upload().await.unwrap_err();
    assert!(error.to_string().ends_with("a/larger: it is not what the manifest says"), "{error}");
    assert_eq!(changed.server.uploads("data").unwrap(), []);
    // It was found out before readers would have had to wait.
    assert!(changed.server.get("data", "exports/manifest").unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_on_its_way_is_waited_for_before_its_upload_is_aborted() {
    let changed = Changed::new(Store::memory()).await;
    let (seen, folder) = (Heard::default(), changed.folder.path());
    let mut options = options(&seen);
    options.concurrency = 2;
    options.notes = Some(folder.join("notes"));
    let heard = Arc::clone(&seen);
    let others = options.observer;
    options.observer = Arc::new(move |event| match event {
        SetEvent::Copied { file, .. } | SetEvent::Sent { file, .. } if file.name == "a/larger" => {
            heard.lock().unwrap().push("part".to_owned());
        }
        event => others(event),
    });
    // Of the two parts one takes a while, and the other one is refused meanwhile.
    let larger = |fault, nth| Rule::new(fault).key("exports/a/larger").method(Method::PUT).nth(nth);
    let slow = changed.server.fault(larger(Fault::Latency(Duration::from_millis(500)), 1));
    let refused = Fault::Status { code: 400, error: "InvalidRequest".to_owned(), retry_after: None };
    let refused = changed.server.fault(larger(refused, 2));
    let set = set(&folder.join("set"), &changed.files);
    compare_set(&changed.bucket, set, options, &read_manifest).await.unwrap().upload().await.unwrap();
    assert_eq!((slow.hits(), refused.hits()), (1, 1));
    let seen = seen.lock().unwrap().clone();
    let of_larger: Vec<&str> = seen.iter().map(String::as_str).filter(|what| !what.ends_with("a/large")).collect();
    let whole = [&["unpublished", "part", "not copied a/larger"][..], &["part"; 4], &["put a/larger", "published"]];
    assert_eq!(of_larger, whole.concat());
    assert_eq!(changed.server.uploads("data").unwrap(), []);
    assert!(content(&changed.bucket).await == with(&changed.files, &[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_other_files_are_waited_for_when_one_fails() {
    let changed = Changed::new(Store::memory()).await;
    let (seen, folder) = (Heard::default(), changed.folder.path());
    let mut options = options(&seen);
    options.concurrency = 2;
    options.notes = Some(folder.join("notes"));
    let heard = Arc::clone(&seen);
    options.observer = Arc::new(move |event| {
        if let SetEvent::Copied { file, .. } = event {
            heard.lock().unwrap().push(format!("copied {}", file.name));
        }
    });
    // The copy of one takes a while, and the other is refused for good meanwhile.
    let slow = Rule::new(Fault::Latency(Duration::from_millis(500))).key("exports/a/larger").method(Method::PUT).nth(1);
    let slow = changed.server.fault(slow);
    let refused = Fault::Status { code: 400, error: "InvalidRequest".to_owned(), retry_after: None };
    changed.server.fault(Rule::new(refused).key("exports/a/large").method(Method::PUT));
    let set = set(&folder.join("set"), &changed.files);
    let error = compare_set(&changed.bucket, set, options, &read_manifest).await.unwrap().upload().await.unwrap_err();
    assert!(error.to_string().contains("a/large"), "{error}");
    assert_eq!(slow.hits(), 1);
    assert_eq!(*seen.lock().unwrap(), ["copied a/larger"]);
    assert_eq!(changed.server.uploads("data").unwrap(), []);
    // And the next run does all of it.
    changed.server.clear_faults();
    changed.upload().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_were_cut_short_are_made_by_the_next_upload() {
    let changed = Changed::new(Store::memory()).await;
    // The copy is made, and what is to be sent is on its way.
    let rule = Rule::new(Fault::Hang).key("exports/a/larger").method(Method::PUT).nth(2);
    let held = changed.server.fault(rule);
    let reached = async {
        while held.hits() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = upload_by_copies(&changed.bucket, changed.folder.path(), &changed.files) => panic!("it came to its end"),
        () = reached => {}
    }
    assert_eq!((changed.copies(), changed.server.uploads("data").unwrap().len()), (1, 1));
    changed.server.clear_faults();
    let (copied, seen) = changed.upload().await;
    assert_eq!(seen, ["aborted 1", "put a/larger", "put a/large", "published"]);
    assert!(copied >= 33 * MIB as u64, "{copied}");
}
