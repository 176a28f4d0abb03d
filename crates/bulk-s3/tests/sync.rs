//! Syncs from our own server into folders, lines and a real PostgreSQL.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bulk_core::{Algorithm, Digest};
use bulk_pg::Ident;
use bulk_s3::{
    BodyType, Bucket, BucketOptions, Change, Checkpoint, Deletions, DiffOptions, Error, FolderSink, Job, KeyRange,
    KnownChange, KnownObjects, KnownTable, LinesSink, ListOptions, MemoryKnown, ObjectRef, PathColumn, PostgresKnown,
    PostgresOptions, QuarantineReason, Quarantined, Refusal, Sink, SinkBatch, SyncCounts, SyncOptions, SyncStep,
    TableOptions, TableSink, diff_pages, key_of_path, path_of_key, sync,
};
use bulk_testkit::postgres::{Database, shared};
use bulk_testkit::s3::{Fault, Rule, Server, Store};
use futures::{StreamExt, TryStreamExt};
use proptest::prelude::*;

fn serve<K: AsRef<str>, B: Into<String>>(objects: impl IntoIterator<Item = (K, B)>) -> Server {
    let store: Store = objects.into_iter().map(|(key, body)| (key, body.into())).collect();
    Server::builder().bucket("data", store).max_keys_cap(10).start().unwrap()
}

fn bucket(server: &Server) -> Bucket {
    let mut options = BucketOptions::default();
    options.endpoint = Some(server.url());
    (options.retry.initial, options.retry.attempts) = (Duration::ZERO, 3);
    Bucket::new("data", options).unwrap()
}

fn options() -> SyncOptions {
    let mut options = SyncOptions::default();
    (options.objects.retry.initial, options.objects.retry.attempts) = (Duration::ZERO, 3);
    options.deletions = Deletions::Apply;
    options
}

/// What a run told.
#[derive(Debug, Default)]
struct Told {
    counts: SyncCounts,
    quarantined: BTreeMap<String, String>,
    removed: BTreeSet<String>,
    /// Changes in the stretches that were done.
    changes: usize,
    error: Option<Error>,
}

/// A whole run over the whole bucket.
async fn run(server: &Server, known: Arc<dyn KnownObjects>, sink: Arc<dyn Sink>, options: SyncOptions) -> Told {
    let bucket = bucket(server);
    let mut listing = ListOptions::default();
    listing.connections = 2;
    let stretches = diff_pages(bucket.pages(listing), known.clone(), DiffOptions::default());
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoint = Checkpoint::open(folder.path().join("checkpoint"), Job::default()).unwrap();
    let mut told = Told::default();
    let mut run = sync(stretches, Arc::new(bucket), known, sink, options);
    loop {
        match run.next().await {
            Some(Ok(SyncStep::Done(stretch))) => {
                checkpoint.counts.add(&stretch);
                checkpoint.done(&stretch.range);
                told.changes += stretch.changes().len();
            }
            Some(Ok(SyncStep::Quarantined(Quarantined { key, reason, .. }))) => {
                assert_eq!(told.quarantined.insert(key, reason.to_string()), None);
            }
            Some(Ok(SyncStep::Removed { key, .. })) => assert!(told.removed.insert(key)),
            Some(Ok(other)) => panic!("{other:?}"),
            Some(Err(error)) => told.error = Some(error),
            None => break,
        }
    }
    told.counts = run.counts();
    assert_eq!(told.counts.quarantined, told.quarantined.len() as u64);
    assert_eq!(told.counts.removed, told.removed.len() as u64);
    // Each stretch was done, and once.
    assert_eq!(checkpoint.left().is_empty(), told.error.is_none(), "{:?}", checkpoint.left());
    let counts = checkpoint.counts;
    assert_eq!((counts.added + counts.modified + counts.removed) as usize, told.changes);
    told
}

fn counts(fetched: u64, bytes: u64, stored: u64, unchanged_content: u64, removed: u64, quarantined: u64) -> SyncCounts {
    let mut counts = SyncCounts::default();
    (counts.fetched, counts.bytes, counts.stored) = (fetched, bytes, stored);
    (counts.unchanged_content, counts.removed, counts.quarantined) = (unchanged_content, removed, quarantined);
    counts
}

fn body(number: usize) -> String {
    format!("{{\"number\": {number}}}")
}

fn builds(count: usize) -> Vec<(String, String)> {
    (0..count).map(|number| (format!("builds/{}/{number:04}.json", number % 3), body(number))).collect()
}

/// The files of a folder by their keys.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in next.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let key = key_of_path(path.strip_prefix(folder).unwrap()).unwrap();
                found.insert(key, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

async fn known_keys(known: &dyn KnownObjects) -> BTreeMap<String, Option<String>> {
    let found = known.scan(&KeyRange::all(), 100_000).await.unwrap();
    found.iter().map(|object| (object.key.to_owned(), object.etag.map(str::to_owned))).collect()
}

fn psql(database: &Database, sql: &str) -> String {
    shared().unwrap().psql(database.url(), sql).unwrap()
}

async fn known_in(database: &Database) -> Arc<PostgresKnown> {
    let (table, options) = (KnownTable::default(), PostgresOptions::default());
    Arc::new(PostgresKnown::connect(database.url(), "data", table, options).await.unwrap())
}

async fn table(database: &Database, body: BodyType) -> (Arc<PostgresKnown>, Arc<TableSink>) {
    let known = known_in(database).await;
    let sink = TableSink::connect(database.url(), "objects".parse().unwrap(), body, Some(known.clone())).await.unwrap();
    (known, Arc::new(sink))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_fetches_what_changed() {
    let objects = builds(95);
    let bytes: u64 = objects.iter().map(|(_, body)| body.len() as u64).sum();
    let server = serve(objects.clone());
    let database = shared().unwrap().create_database("sync").unwrap();
    let (known, sink) = table(&database, BodyType::Jsonb).await;
    let run = || run(&server, known.clone(), sink.clone(), options());

    assert_eq!(run().await.counts, counts(95, bytes, 95, 0, 0, 0));
    assert_eq!((server.counts().get, server.counts().head), (95, 0));
    assert_eq!(psql(&database, "SELECT count(*), sum((body->>'number')::int) FROM objects"), "95|4465\n");
    let joined = "SELECT count(*) FROM objects o JOIN bulk.known_object k USING (key)
                  WHERE o.etag = k.etag AND k.size > 0 AND k.last_modified IS NOT NULL AND length(k.content) = 32";
    assert_eq!(psql(&database, joined), "95\n");

    server.clear_requests();
    assert_eq!(run().await.counts, SyncCounts::default());
    assert_eq!(server.counts().get, 0);

    server.put("data", "builds/1/0040.json", "{\"number\": \"new\"}").unwrap();
    assert_eq!(run().await.counts, counts(1, 17, 1, 0, 0, 0));
    let asked: Vec<_> = server.requests().into_iter().filter(|request| request.key.is_some()).collect();
    let [request] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((request.key.as_deref(), request.status), (Some("builds/1/0040.json"), Some(200)));
    assert!(request.if_match.is_some());
    assert_eq!(psql(&database, "SELECT key FROM objects WHERE body->>'number' = 'new'"), "builds/1/0040.json\n");
    assert_eq!(psql(&database, joined), "95\n");

    server.remove("data", "builds/1/0040.json").unwrap();
    server.clear_requests();
    let told = run().await;
    assert_eq!(told.counts, counts(0, 0, 0, 0, 1, 0));
    assert_eq!(told.removed, BTreeSet::from(["builds/1/0040.json".to_owned()]));
    assert_eq!(server.counts().get, 0);
    assert_eq!(psql(&database, "SELECT count(*) FROM objects"), "94\n");
    assert_eq!(psql(&database, joined), "94\n");
    assert_eq!(run().await.counts, SyncCounts::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_are_reported_applied_or_ignored() {
    for (deletions, stays) in [(Deletions::Report, true), (Deletions::Ignore, true), (Deletions::Apply, false)] {
        let server = serve([("a/b/gone", "x"), ("a/stays", "y")]);
        let folder = tempfile::tempdir().unwrap();
        let known = Arc::new(MemoryKnown::new());
        let sink = Arc::new(FolderSink::open(folder.path()).unwrap());
        run(&server, known.clone(), sink.clone(), options()).await;
        server.remove("data", "a/b/gone").unwrap();
        let mut options = options();
        options.deletions = deletions;
        // It is told as long as it is known.
        for _ in 0..2 {
            let told = run(&server, known.clone(), sink.clone(), options.clone()).await;
            let is_told = deletions == Deletions::Report || deletions == Deletions::Apply && told.changes > 0;
            assert_eq!(told.removed.contains("a/b/gone"), is_told, "{deletions:?}");
            assert_eq!(files(folder.path()).contains_key("a/b/gone"), stays);
            assert_eq!(known_keys(&*known).await.contains_key("a/b/gone"), stays);
            // An empty folder would be in the way of an object with its name.
            assert_eq!(folder.path().join("a/b").exists(), stays);
            assert_eq!(files(folder.path())["a/stays"], "y");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_content_only_gets_its_etag() {
    let server = serve([("a", "[1]"), ("b", "[2]")]);
    let database = shared().unwrap().create_database("sync").unwrap();
    let (known, sink) = table(&database, BodyType::Jsonb).await;
    run(&server, known.clone(), sink.clone(), options()).await;
    let rows = "SELECT o.key, o.etag = k.etag, k.etag = 'another-1', o.body FROM objects o JOIN bulk.known_object k USING (key) ORDER BY 1";
    assert_eq!(psql(&database, rows), "a|t|f|[1]\nb|t|f|[2]\n");
    // Known as another version of the same content; the body tells whether it is stored again.
    psql(&database, "UPDATE objects SET etag = 'another-1', body = '\"kept\"' WHERE key = 'a'");
    psql(&database, "UPDATE bulk.known_object SET etag = 'another-1' WHERE key = 'a'");
    assert_eq!(psql(&database, rows), "a|t|t|\"kept\"\nb|t|f|[2]\n");
    let told = run(&server, known.clone(), sink.clone(), options()).await;
    assert_eq!(told.counts, counts(1, 3, 0, 1, 0, 0));
    assert_eq!(psql(&database, rows), "a|t|f|\"kept\"\nb|t|f|[2]\n");
    assert_eq!(run(&server, known, sink, options()).await.counts, SyncCounts::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_object_stops_nothing_else() {
    let mut objects = builds(30);
    let bad = [
        ("bad/no-json", "{\"a\":"),
        ("bad/nul-in-json", "{\"a\": \"\\u0000\"}"),
        ("bad/number", "1e999999"),
        ("bad/nul\u{1}", "[]"),
        ("forbidden", "[]"),
        ("gone", "[]"),
        ("large", "[]"),
    ];
    objects.extend(bad.map(|(key, body)| (key.to_owned(), body.to_owned())));
    let server = serve(objects);
    server.put("data", "large", format!("[{}1]", "1,".repeat(40_000))).unwrap();
    let forbidden = Fault::Status { code: 403, error: "AccessDenied".to_owned(), retry_after: None };
    let gone = Fault::Status { code: 404, error: "NoSuchKey".to_owned(), retry_after: None };
    server.fault(Rule::new(forbidden).key("forbidden"));
    server.fault(Rule::new(gone).key("gone"));
    let database = shared().unwrap().create_database("sync").unwrap();
    let (known, sink) = table(&database, BodyType::Jsonb).await;
    let mut options = options();
    options.objects.budget = 64 * 1024;
    let told = run(&server, known.clone(), sink.clone(), options.clone()).await;
    let reasons: Vec<_> = told.quarantined.iter().map(|(key, reason)| format!("{key}: {reason}")).collect();
    let url = server.url();
    let wanted = [
        "bad/no-json: its body is no JSON: EOF while parsing a value at line 1 column 5".to_owned(),
        "bad/nul-in-json: unsupported Unicode escape sequence".to_owned(),
        "bad/number: ".to_owned(),
        format!("forbidden: access to {url}/data/forbidden is denied (AccessDenied"),
        "gone: it is gone since the listing".to_owned(),
        "large: s3://data/large is too large for memory: 80003 bytes where 65536 are allowed".to_owned(),
    ];
    assert_eq!(reasons.len(), wanted.len(), "{reasons:#?}");
    for (reason, wanted) in reasons.iter().zip(&wanted) {
        assert!(reason.starts_with(wanted), "{reason}\n{wanted}");
    }
    assert!(told.error.is_none());
    let stored = "SELECT (SELECT count(*) FROM objects), (SELECT count(*) FROM bulk.known_object)";
    assert_eq!(psql(&database, stored), "31|31\n");
    assert_eq!(told.counts.stored, 31);
    // The next run tries these, and nothing else.
    server.clear_faults();
    server.clear_requests();
    server.put("data", "bad/no-json", "{}").unwrap();
    let told = run(&server, known, sink, options).await;
    assert!(told.quarantined.keys().eq(["bad/nul-in-json", "bad/number", "large"]), "{:?}", told.quarantined);
    assert_eq!(server.counts().get, 5);
    assert_eq!(psql(&database, stored), "34|34\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_changed_since_the_listing_comes_as_it_is() {
    let server = serve([("a", "old"), ("b", "old"), ("c", "old")]);
    let folder = tempfile::tempdir().unwrap();
    let known = Arc::new(MemoryKnown::new());
    let sink = Arc::new(FolderSink::open(folder.path()).unwrap());
    server.fault(Rule::new(Fault::ReplaceBefore("newer".into())).key("b").first(1));
    let told = run(&server, known.clone(), sink.clone(), options()).await;
    assert_eq!(told.counts, counts(3, 11, 3, 0, 0, 0));
    assert_eq!(files(folder.path())["b"], "newer");
    let asked: Vec<_> = server.requests().into_iter().filter(|request| request.key.as_deref() == Some("b")).collect();
    let asked: Vec<_> = asked.iter().map(|request| (request.if_match.is_some(), request.status)).collect();
    assert_eq!(asked, [(true, Some(412)), (false, Some(200))]);
    // Known with the ETag of what came: the next run finds nothing to do.
    let md5 = Digest::of(Algorithm::Md5, b"newer").to_string();
    assert_eq!(known_keys(&*known).await["b"].as_deref(), md5.strip_prefix("md5:"));
    assert_eq!(run(&server, known, sink, options()).await.counts, SyncCounts::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_stops_the_run() {
    let server = serve(builds(60));
    server.fault(Rule::new(Fault::internal_error()).key("builds/1/0031.json"));
    let folder = tempfile::tempdir().unwrap();
    let known = Arc::new(MemoryKnown::new());
    let sink = Arc::new(FolderSink::open(folder.path()).unwrap());
    let told = run(&server, known.clone(), sink.clone(), options()).await;
    assert!(matches!(&told.error, Some(error) if error.is_remote()), "{:?}", told.error);
    assert!(told.quarantined.is_empty());
    // What came before is stored, and just that is known.
    assert!(known_keys(&*known).await.keys().eq(files(folder.path()).keys()));
    server.clear_faults();
    let told = run(&server, known, sink, options()).await;
    assert!(told.error.is_none());
    assert!(files(folder.path()).into_iter().eq(builds(60).into_iter().collect::<BTreeMap<_, _>>()));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_stop_the_run() {
    let store: Store = builds(60).into_iter().collect();
    let server = Server::builder().bucket("data", store).start().unwrap();
    let expired = Fault::Status { code: 403, error: "ExpiredToken".to_owned(), retry_after: None };
    server.fault(Rule::new(expired).prefix("builds/"));
    let told =
        run(&server, Arc::new(MemoryKnown::new()), Arc::new(LinesSink::new(io::sink(), "sink")), options()).await;
    assert!(matches!(&told.error, Some(error) if error.is_denied()), "{:?}", told.error);
    assert_eq!(told.counts, SyncCounts::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_fails_ends_the_run_behind_what_it_gave() {
    let server = serve(builds(60));
    server.fault(Rule::new(Fault::HtmlInsteadOfXml).list().nth(4));
    let folder = tempfile::tempdir().unwrap();
    let known = Arc::new(MemoryKnown::new());
    let sink = Arc::new(FolderSink::open(folder.path()).unwrap());
    let bucket = bucket(&server);
    let mut listing = ListOptions::default();
    listing.connections = 1;
    let stretches = diff_pages(bucket.pages(listing), known.clone(), DiffOptions::default());
    let mut run = sync(stretches, Arc::new(bucket), known.clone(), sink, options());
    let mut done = 0;
    let error = loop {
        match run.next().await {
            Some(Ok(SyncStep::Done(stretch))) => done += stretch.changes().len(),
            Some(Err(error)) => break error,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(error, Error::Listing { .. }), "{error}");
    assert!(run.next().await.is_none());
    assert_eq!(done, files(folder.path()).len());
    assert_eq!(done, known_keys(&*known).await.len());
    assert!(done > 0, "the pages before the fourth were given");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_not_taken_for_the_end() {
    let server = serve(builds(60));
    let options = options();
    options.objects.stop.cancel();
    let told = run(&server, Arc::new(MemoryKnown::new()), Arc::new(LinesSink::new(io::sink(), "sink")), options).await;
    let error = told.error.map(|error| error.to_string());
    assert_eq!(error.as_deref(), Some("the download of s3://data/ was interrupted"));
    assert_eq!(told.counts, SyncCounts::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_of_few_objects_and_few_stretches_is_enough() {
    let objects = builds(300);
    let server = serve(objects.clone());
    let folder = tempfile::tempdir().unwrap();
    let known = Arc::new(MemoryKnown::new());
    let sink = Arc::new(FolderSink::open(folder.path()).unwrap());
    let mut options = options();
    // Each takes one KiB.
    (options.objects.budget, options.stretches, options.batch) = (2048, 1, 7);
    let told = run(&server, known.clone(), sink, options).await;
    assert_eq!(told.counts.stored, 300);
    assert!(files(folder.path()).into_iter().eq(objects.into_iter().collect::<BTreeMap<_, _>>()));
    assert_eq!(known_keys(&*known).await.len(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn stretches_without_changes_and_objects_take_turns() {
    let objects = builds(400);
    let server = serve(objects.clone());
    let known = Arc::new(MemoryKnown::new());
    let sink = Arc::new(LinesSink::new(io::sink(), "sink"));
    run(&server, known.clone(), sink.clone(), options()).await;
    let mut options = options();
    (options.batch, options.objects.concurrency) = (1, 11);
    // Every other page has changes.
    let keys: BTreeSet<_> = objects.into_iter().map(|(key, _)| key).collect();
    let changed: Vec<_> = keys.iter().enumerate().filter(|(number, _)| number / 10 % 2 == 0).collect();
    for round in 0..20 {
        for (_, key) in &changed {
            server.put("data", key, format!("{round}")).unwrap();
        }
        let told = run(&server, known.clone(), sink.clone(), options.clone()).await;
        assert_eq!((told.counts.stored, told.changes), (200, 200));
    }
}

/// A writer that others can look into.
#[derive(Clone, Default)]
struct Shown(Arc<Mutex<Vec<u8>>>);

impl Write for Shown {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_have_bodies_as_they_are() {
    let server = serve([
        ("a \"quoted\"", "{\"big\": 12345678901234567890.10,\r\n \"b\": \"\\n\"}"),
        ("b", "no JSON"),
        ("c", ""),
        ("d", "\"text\""),
    ]);
    let known = Arc::new(MemoryKnown::new());
    let shown = Shown::default();
    let sink = Arc::new(LinesSink::new(shown.clone(), "lines"));
    run(&server, known.clone(), sink.clone(), options()).await;
    let text = String::from_utf8(std::mem::take(&mut shown.0.lock().unwrap())).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    let etag = |body: &str| Digest::of(Algorithm::Md5, body.as_bytes()).to_string().replace("md5:", "");
    let first = etag("{\"big\": 12345678901234567890.10,\r\n \"b\": \"\\n\"}");
    assert_eq!(
        lines,
        [
            format!(
                "{{\"key\":\"a \\\"quoted\\\"\",\"etag\":\"{first}\",\"size\":45,\"body\":{{\"big\": 12345678901234567890.10,   \"b\": \"\\n\"}}}}"
            ),
            format!("{{\"key\":\"b\",\"etag\":\"{}\",\"size\":7,\"body_base64\":\"bm8gSlNPTg==\"}}", etag("no JSON")),
            format!("{{\"key\":\"c\",\"etag\":\"{}\",\"size\":0,\"body_base64\":\"\"}}", etag("")),
            format!("{{\"key\":\"d\",\"etag\":\"{}\",\"size\":6,\"body\":\"text\"}}", etag("\"text\"")),
        ]
    );
    server.remove("data", "b").unwrap();
    run(&server, known, sink, options()).await;
    assert_eq!(shown.0.lock().unwrap().as_slice(), b"{\"key\":\"b\",\"removed\":true}\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_may_be_text_or_bytes() {
    let objects = [("a", "no JSON"), ("b", "\0"), ("c", ""), ("d", "\\x41")];
    for (body, wanted, refused) in [
        (BodyType::Text, "a|6e6f204a534f4e\nc|\nd|5c783431\n", &["b"][..]),
        (BodyType::Bytea, "a|6e6f204a534f4e\nb|00\nc|\nd|5c783431\n", &[]),
    ] {
        let server = serve(objects);
        let database = shared().unwrap().create_database("sync").unwrap();
        let (known, sink) = table(&database, body).await;
        let told = run(&server, known.clone(), sink, options()).await;
        assert!(told.quarantined.keys().eq(refused), "{:?}", told.quarantined);
        let bytes = if body == BodyType::Text { "convert_to(body, 'UTF8')" } else { "body" };
        assert_eq!(psql(&database, &format!("SELECT key, encode({bytes}, 'hex') FROM objects ORDER BY 1")), wanted);
        // A table that is there is used, but not for other bodies.
        let connect = |body| TableSink::connect(database.url(), "objects".parse().unwrap(), body, Some(known.clone()));
        connect(body).await.unwrap();
        let error = connect(BodyType::Jsonb).await.unwrap_err().to_string();
        assert!(
            error.ends_with(&format!("table public.objects: its column body has the type {body}, and not jsonb")),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_filled_from_within_the_bodies() {
    let objects = [
        ("a", r#"{"target": {"version": "1.2", "os": null}, "size": 7, "tags": ["x", "y"]}"#),
        ("b", r#"{"target": {"version": "say \"1\""}, "size": 9007199254740993, "tags": {}}"#),
        ("c", r#"{"size": "many"}"#),
        ("d", "[]"),
        ("e", "no JSON"),
        ("f", r#"{"target": {"version": "too long for it"}}"#),
    ];
    let column = |name: &str, path: &str, data_type: &str| {
        let mut column = PathColumn::new(Ident::new(name).unwrap(), path);
        data_type.clone_into(&mut column.data_type);
        column
    };
    let columns = vec![
        column("Version", "$.target.version", "varchar(9)"),
        column("os", "$.target.os", "text"),
        column("size", "$.size", "int8"),
        column("tags", "$.tags", "jsonb"),
        column("first \"tag\"", "$.tags[*]", "text"),
    ];
    for (body, of_body, is_made) in [(BodyType::None, "", true), (BodyType::Jsonb, ", body->'size'", false)] {
        let server = serve(objects);
        let database = shared().unwrap().create_database("sync").unwrap();
        if !is_made {
            let columns = r#""first ""tag""" text, tags json, size numeric, os char(3), "Version" varchar(9)"#;
            psql(&database, &format!("CREATE TABLE objects (body jsonb, {columns}, etag text, key text PRIMARY KEY)"));
        }
        let known = known_in(&database).await;
        let mut options = TableOptions::from(body);
        options.columns.clone_from(&columns);
        let connect =
            |options| TableSink::connect(database.url(), "objects".parse().unwrap(), options, Some(known.clone()));
        let sink = Arc::new(connect(options.clone()).await.unwrap());
        let told = run(&server, known.clone(), sink, self::options()).await;
        // A type with a length is one of the user's own table: none is made with it.
        let refused = if is_made { &["c", "e"][..] } else { &["c", "e", "f"] };
        assert!(told.quarantined.keys().eq(refused), "{:?}", told.quarantined);
        assert!(told.quarantined["c"].contains("invalid input syntax for type"), "{:?}", told.quarantined);
        let rows = format!(
            r#"SELECT key, "Version", os IS NULL, size, tags, "first ""tag"""{of_body} FROM objects WHERE key < 'f' ORDER BY 1"#
        );
        let expected = [
            ("a|1.2|t|7|[\"x\", \"y\"]|x", "|7"),
            ("b|say \"1\"|t|9007199254740993|{}|{}", "|9007199254740993"),
            ("d||t|||", "|"),
        ];
        let expected = expected.map(|(row, body)| format!("{row}{}\n", if is_made { "" } else { body }));
        assert_eq!(psql(&database, &rows), expected.concat());
        // A changed object changes its row.
        server.put("data", "a", r#"{"size": 8}"#).unwrap();
        let sink = Arc::new(connect(options.clone()).await.unwrap());
        run(&server, known.clone(), sink, self::options()).await;
        assert_eq!(
            psql(&database, r#"SELECT "Version" IS NULL, size, tags IS NULL FROM objects WHERE key = 'a'"#),
            "t|8|t\n"
        );
        // What cannot be is said before anything is fetched.
        for (wrong, said) in [
            (column("size", "$.[", "text"), "cannot take \"$.[\" for a path"),
            (column("size", "$.size", "no type"), "has no type \"no type\""),
            (column("other", "$.size", "text"), "it has no column other"),
        ] {
            let mut options = TableOptions::from(body);
            options.columns = vec![wrong];
            let error = connect(options).await.unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let mut options = TableOptions::from(BodyType::Text);
        options.columns.clone_from(&columns);
        let error = connect(options).await.unwrap_err().to_string();
        assert!(error.ends_with("columns from within bodies need those as jsonb, and not as text"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_beside_the_table_is_marked_after_the_commit() {
    let server = serve([("a\0b", "1"), ("c", "2"), ("d", "no JSON")]);
    let database = shared().unwrap().create_database("sync").unwrap();
    let (_, sink) = table(&database, BodyType::Jsonb).await;
    let known = Arc::new(MemoryKnown::new());
    let told = run(&server, known.clone(), sink.clone(), options()).await;
    assert_eq!(told.quarantined["a\0b"], "its key holds U+0000, which no text of PostgreSQL can");
    assert!(told.quarantined.keys().eq(["a\0b", "d"]));
    assert!(known_keys(&*known).await.keys().eq(["c"]));
    assert_eq!(psql(&database, "SELECT key, body FROM objects"), "c|2\n");
    // Removing what never was there is no error.
    known.apply(&[KnownChange::Set(ObjectRef::new("a\0b"))]).await.unwrap();
    server.remove("data", "a\0b").unwrap();
    server.remove("data", "c").unwrap();
    let told = run(&server, known.clone(), sink, options()).await;
    assert!(told.removed.iter().eq(["a\0b", "c"]));
    assert_eq!(psql(&database, "SELECT count(*) FROM objects"), "0\n");
    assert!(known_keys(&*known).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_cannot_hold_is_quarantined() {
    let server = serve([("a\0b", "1"), ("c", "2")]);
    let database = shared().unwrap().create_database("sync").unwrap();
    let (known, _) = table(&database, BodyType::Jsonb).await;
    let folder = tempfile::tempdir().unwrap();
    let told = run(&server, known.clone(), Arc::new(FolderSink::open(folder.path()).unwrap()), options()).await;
    let reason = "it cannot be marked known: it holds U+0000, which no text of PostgreSQL can";
    assert_eq!(told.quarantined, BTreeMap::from([("a\0b".to_owned(), reason.to_owned())]));
    assert!(known_keys(&*known).await.keys().eq(["c"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_constraint_of_the_users_refuses_single_objects() {
    let objects = builds(100);
    let server = serve(objects);
    let database = shared().unwrap().create_database("sync").unwrap();
    psql(
        &database,
        "CREATE TABLE objects (id bigserial, key varchar(99) UNIQUE, etag text, body jsonb CHECK ((body->>'number')::int % 25 <> 7))",
    );
    let (known, sink) = table(&database, BodyType::Jsonb).await;
    let told = run(&server, known.clone(), sink, options()).await;
    let refused = ["builds/0/0057.json", "builds/1/0007.json", "builds/1/0082.json", "builds/2/0032.json"];
    assert!(told.quarantined.keys().eq(refused), "{:?}", told.quarantined);
    assert!(told.quarantined.values().all(|reason| reason.contains("violates check constraint")));
    let stored = "SELECT (SELECT count(*) FROM objects), (SELECT count(*) FROM bulk.known_object)";
    assert_eq!(psql(&database, stored), "96|96\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_table_without_an_index_is_marked_in_the_same_transaction() {
    let server = serve(builds(30));
    let database = shared().unwrap().create_database("sync").unwrap();
    psql(&database, "CREATE TABLE builds (s3_object_key text COLLATE \"C\", s3_object_etag text)");
    let column = |name: &str| name.parse().unwrap();
    let table = KnownTable::new("builds".parse().unwrap(), column("s3_object_key"), column("s3_object_etag"));
    let known = PostgresKnown::connect(database.url(), "data", table, PostgresOptions::default()).await.unwrap();
    let known = Arc::new(known);
    assert!(known.missing_index().is_some());
    let sink = TableSink::connect(database.url(), "objects".parse().unwrap(), BodyType::Jsonb, Some(known.clone()));
    let sink = Arc::new(sink.await.unwrap());
    let told = run(&server, known.clone(), sink.clone(), options()).await;
    assert_eq!(told.counts.stored, 30);
    // The sorted copy that is read has followed.
    assert_eq!(run(&server, known.clone(), sink.clone(), options()).await.counts, SyncCounts::default());
    server.remove("data", "builds/0/0000.json").unwrap();
    for removed in [1, 0] {
        assert_eq!(run(&server, known.clone(), sink.clone(), options()).await.counts, counts(0, 0, 0, 0, removed, 0));
    }
    let equal = "SELECT count(*) FROM objects JOIN builds ON s3_object_key = key AND s3_object_etag = etag";
    assert_eq!(psql(&database, equal), "29\n");
    // All of a transaction, or nothing: what the store refuses is not in the table either.
    psql(&database, "ALTER TABLE builds ADD CHECK (s3_object_key <> 'new')");
    server.put("data", "new", "[]").unwrap();
    let told = run(&server, known.clone(), sink, options()).await;
    assert!(matches!(&told.error, Some(Error::Known { .. })), "{:?}", told.error);
    assert_eq!(psql(&database, "SELECT count(*) FROM objects WHERE key = 'new'"), "0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_gone_stops_the_run() {
    let server = serve(builds(20));
    let database = shared().unwrap().create_database("sync").unwrap();
    let (known, sink) = table(&database, BodyType::Jsonb).await;
    psql(&database, "DROP TABLE objects");
    let told = run(&server, known.clone(), sink, options()).await;
    assert!(matches!(&told.error, Some(Error::Sink { .. })), "{:?}", told.error);
    assert_eq!(told.changes, 0);
    assert!(known_keys(&*known).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_keys_have_files_and_never_leave_the_folder() {
    let long = "x".repeat(700);
    let keys = [
        "a//b",
        "/lead",
        "tail/",
        "..%2F..",
        "a b",
        "c:d",
        "e\\f",
        "NUL.txt",
        "%part",
        "\u{1}\u{7f}",
        "é/漢",
        "end.",
        "*?\"<>|",
        &long,
        "d/%",
        "//",
    ];
    let server = serve(keys.map(|key| (key, key)));
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("in/ner");
    let sink = Arc::new(FolderSink::open(&folder).unwrap());
    let told = run(&server, Arc::new(MemoryKnown::new()), sink, options()).await;
    assert!(told.quarantined.is_empty(), "{:?}", told.quarantined);
    assert!(
        files(&folder)
            .into_iter()
            .eq(keys.map(|key| (key.to_owned(), key.to_owned())).into_iter().collect::<BTreeMap<_, _>>())
    );
    assert_eq!(outer.path().read_dir().unwrap().count(), 1);
    assert_eq!(outer.path().join("in").read_dir().unwrap().count(), 1);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_refuses_an_object() {
    let server = serve([("a", "1"), ("link/x", "3"), ("there", "4"), ("z", "5")]);
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(other.path(), folder.path().join("link")).unwrap();
    std::os::unix::fs::symlink(other.path().join("file"), folder.path().join("there")).unwrap();
    std::fs::create_dir(folder.path().join("z")).unwrap();
    let sink = Arc::new(FolderSink::open(folder.path()).unwrap());
    let known = Arc::new(MemoryKnown::new());
    let told = run(&server, known.clone(), sink.clone(), options()).await;
    let wanted = [
        ("link/x", "a symbolic link is in the way at link"),
        ("there", "a symbolic link is in the way at there"),
        ("z", "a folder is in the way at z"),
    ];
    assert_eq!(told.quarantined, wanted.map(|(key, reason)| (key.to_owned(), reason.to_owned())).into());
    assert_eq!(other.path().read_dir().unwrap().count(), 0);
    assert!(known_keys(&*known).await.keys().eq(["a"]));
    // A file in the place of a folder.
    server.put("data", "a/b", "2").unwrap();
    let told = run(&server, known, sink, options()).await;
    assert_eq!(told.quarantined["a/b"], "a file is in the way at a");
}

/// A sink that fails at its nth call, after or before it has stored, as a machine that goes down does.
struct Failing<S> {
    sink: S,
    left: Mutex<u32>,
    is_after: bool,
}

#[async_trait]
impl<S: Sink> Sink for Failing<S> {
    async fn store(&self, batch: &SinkBatch, known: &dyn KnownObjects) -> Result<Vec<Refusal>, Error> {
        let fails = {
            let mut left = self.left.lock().unwrap();
            *left = left.saturating_sub(1);
            *left == 0
        };
        if fails {
            if self.is_after {
                // Stored, and marked in a store that is thrown away.
                self.sink.store(batch, &MemoryKnown::new()).await?;
            }
            return Err(Error::Sink { sink: self.identity(), what: "it fails".to_owned(), source: None });
        }
        self.sink.store(batch, known).await
    }

    fn identity(&self) -> String {
        self.sink.identity()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_between_storing_and_marking_is_done_again() {
    for is_after in [false, true] {
        let objects = builds(80);
        let server = serve(objects.clone());
        let folder = tempfile::tempdir().unwrap();
        let known = Arc::new(MemoryKnown::new());
        let mut failures = 0;
        loop {
            let sink = Failing { sink: FolderSink::open(folder.path()).unwrap(), left: Mutex::new(3), is_after };
            let mut options = options();
            options.batch = 5;
            let told = run(&server, known.clone(), Arc::new(sink), options).await;
            let Some(error) = told.error else { break };
            assert!(error.to_string().ends_with("it fails"));
            // Nothing is known that is not there.
            let there = files(folder.path());
            assert!(known_keys(&*known).await.keys().all(|key| there.contains_key(key)));
            failures += 1;
        }
        assert!(failures > 3, "{failures}");
        assert!(files(folder.path()).into_iter().eq(objects.into_iter().collect::<BTreeMap<_, _>>()));
        assert_eq!(known_keys(&*known).await.len(), 80);
    }
}

/// Runs that are dropped at random, each after so many polls, until one comes to its end.
#[tokio::test(flavor = "multi_thread")]
async fn runs_that_are_dropped_lead_to_the_same_table() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..4 {
        let objects: Vec<_> = builds(200).into_iter().chain([("bad".to_owned(), "{".to_owned())]).collect();
        let server = serve(objects.clone());
        let database = shared().unwrap().create_database("sync").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let folder_known = Arc::new(MemoryKnown::new());
        let folder_sink = Arc::new(FolderSink::open(folder.path()).unwrap());
        let mut drops = 0;
        loop {
            let (known, sink) = table(&database, BodyType::Jsonb).await;
            let mut ended = 0;
            for (known, sink) in
                [(known as Arc<dyn KnownObjects>, sink as Arc<dyn Sink>), (folder_known.clone(), folder_sink.clone())]
            {
                let bucket = bucket(&server);
                let stretches = diff_pages(bucket.pages(ListOptions::default()), known.clone(), DiffOptions::default());
                let mut options = options();
                options.batch = random.usize(1..20);
                options.objects.concurrency = random.usize(1..20);
                let run = sync(stretches, Arc::new(bucket), known, sink, options);
                // Dropped at any point at which it waits.
                let mut polls = random.u32(1..60 * (drops / 20 + 1));
                let mut all = Box::pin(run.try_for_each(|_| std::future::ready(Ok(()))));
                let outcome = std::future::poll_fn(|context| {
                    if polls == 0 {
                        return std::task::Poll::Ready(None);
                    }
                    polls -= 1;
                    all.as_mut().poll(context).map(Some)
                });
                match outcome.await {
                    Some(done) => {
                        done.unwrap();
                        ended += 1;
                    }
                    None => drops += 1,
                }
            }
            // At no time is one without the other.
            let unequal = "SELECT count(*) FROM objects o FULL JOIN bulk.known_object k USING (key) WHERE o.etag IS DISTINCT FROM k.etag";
            assert_eq!(psql(&database, unequal), "0\n", "seed {seed}, round {round}");
            if ended == 2 {
                break;
            }
        }
        let told = psql(&database, "SELECT count(*), count(DISTINCT body->'number') FROM objects");
        assert_eq!(told, "200|200\n", "seed {seed}, round {round}");
        assert!(files(folder.path()).into_iter().eq(objects.into_iter().collect::<BTreeMap<_, _>>()));
        assert!(drops > 0, "seed {seed}, round {round}");
        server.clear_requests();
        let told = run(&server, folder_known, folder_sink, options()).await;
        assert_eq!((told.counts, server.counts().get), (SyncCounts::default(), 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_quarantined_says_which_version() {
    let server = serve([("a", "[]")]);
    let denied = Fault::Status { code: 403, error: "AccessDenied".to_owned(), retry_after: None };
    server.fault(Rule::new(denied).key("a"));
    let bucket = bucket(&server);
    let known = Arc::new(MemoryKnown::new());
    let stretches = diff_pages(bucket.pages(ListOptions::default()), known.clone(), DiffOptions::default());
    let sink = Arc::new(LinesSink::new(io::sink(), "sink"));
    let steps: Vec<_> = sync(stretches, Arc::new(bucket), known, sink, options()).try_collect().await.unwrap();
    let mut quarantined = steps.iter().filter_map(|step| match step {
        SyncStep::Quarantined(quarantined) => Some(quarantined),
        _ => None,
    });
    let found = quarantined.next().unwrap();
    assert!(matches!(found.reason, QuarantineReason::Denied(_)));
    let md5 = Digest::of(Algorithm::Md5, b"[]").to_string();
    assert_eq!(found.etag.as_ref().map(|etag| format!("md5:{etag}")), Some(md5));
    assert!(quarantined.next().is_none());
    let done = steps.iter().filter_map(|step| match step {
        SyncStep::Done(stretch) => Some(stretch.changes().map(|change| matches!(change, Change::Added(_))).collect()),
        _ => None,
    });
    assert_eq!(done.collect::<Vec<Vec<bool>>>().concat(), [true]);
}

fn keys() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec![
        "/", "//", ".", "..", "%", "%2F", "\\", ":", "con", "NUL", "com1", "lpt9.txt", " ", "\0", "\u{85}", "é", "漢",
        "a", "%part", "A", ".bulk", ".BULK",
    ]);
    let unit = prop_oneof![odd.prop_map(str::to_owned), any::<char>().prop_map(String::from)];
    let short = prop::collection::vec(unit.clone(), 1..12).prop_map(|units| units.concat());
    let long = (unit, 1..1024_usize, short.clone()).prop_map(|(unit, times, end)| unit.repeat(times) + &end);
    prop_oneof![3 => short, 1 => long]
}

proptest! {
    #[test]
    fn every_key_has_a_safe_path_of_its_own(key in keys()) {
        let path = path_of_key(&key).unwrap();
        prop_assert_eq!(key_of_path(&path), Some(key));
        let text = path.to_str().unwrap();
        prop_assert!(!text.starts_with('/') && !text.ends_with('/') && !text.starts_with("%part"));
        prop_assert!(!text.split('/').next().unwrap().eq_ignore_ascii_case(".bulk"));
        for name in text.split('/') {
            prop_assert!((1..=255).contains(&name.len()), "{}", name.len());
            prop_assert!(!name.ends_with(['.', ' ']));
            prop_assert!(!name.contains(|char: char| char.is_control() || "\\:*?\"<>|".contains(char)));
            let stem = name.split('.').next().unwrap().to_ascii_lowercase();
            prop_assert!(!["con", "nul", "com1", "lpt9"].contains(&stem.trim_end()), "{}", name);
        }
    }

    #[test]
    fn a_path_of_no_key_has_none(path in "[a%/.:2F\\\\]{0,12}") {
        let path = Path::new(&path);
        if let Some(key) = key_of_path(path) {
            let made = path_of_key(&key).unwrap();
            prop_assert_eq!(made.as_path(), path);
        }
    }
}
