//! What is particular to known objects in an SQLite file.

use std::path::Path;
use std::time::Duration;

use bulk_s3::{Error, KeyRange, KnownChange, KnownObjects, ObjectRef, SqliteKnown, SqliteOptions};
use rusqlite::Connection;

async fn open(path: &Path) -> Result<SqliteKnown, Error> {
    SqliteKnown::open(path, "data", SqliteOptions::default()).await
}

fn object<'a>(key: &'a str, etag: &'a str) -> ObjectRef<'a> {
    let mut object = ObjectRef::new(key);
    object.etag = Some(etag);
    object
}

async fn keys(known: &SqliteKnown) -> Vec<String> {
    let batch = known.scan(&KeyRange::all(), 1000).await.unwrap();
    batch.iter().map(|object| object.key.to_owned()).collect()
}

/// The message, with its causes.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

#[tokio::test]
async fn it_is_there_when_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known.sqlite");
    let known = open(&path).await.unwrap();
    known.apply(&[KnownChange::Set(object("a\0b", "1")), KnownChange::Set(object("ä", "2"))]).await.unwrap();
    assert_eq!(known.identity(), format!("sqlite:{} bucket \"data\"", path.display()));
    drop(known);
    assert_eq!(keys(&open(&path).await.unwrap()).await, ["a\0b", "ä"]);
    let mut existing = SqliteOptions::default();
    existing.create = false;
    assert!(SqliteKnown::open(&path, "data", existing.clone()).await.is_ok());
    let absent = folder.path().join("absent");
    let error = SqliteKnown::open(&absent, "data", existing).await.unwrap_err();
    assert_eq!(error.to_string(), format!("known objects in {}: cannot open it", absent.display()));
    assert!(!absent.exists());
}

#[tokio::test]
async fn people_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known.sqlite");
    let known = open(&path).await.unwrap();
    let mut full = object("a//b", "d41d");
    full.size = Some(7);
    full.last_modified = Some("2024-02-29T12:34:56.789Z".parse().unwrap());
    full.content = Some([0xab; 32]);
    let before = jiff::Timestamp::now().to_string();
    known.apply(&[KnownChange::Set(full)]).await.unwrap();
    let read = |columns: &str| -> String {
        let connection = Connection::open(&path).unwrap();
        connection.query_row(&format!("SELECT {columns} FROM known_object"), [], |row| row.get(0)).unwrap()
    };
    let row = "concat_ws(' ', bucket, key, etag, size, last_modified, content)";
    assert_eq!(read(row), format!("data a//b d41d 7 2024-02-29T12:34:56.789Z {}", "ab".repeat(32)));
    let seen = read("seen_at");
    assert!(seen[..19] >= before[..19] && seen.ends_with('Z'), "{seen} {before}");
    // It is when the object was first seen so, and no later.
    let raw = || -> i64 {
        let connection = Connection::open(&path).unwrap();
        connection.query_row("SELECT seen_at FROM object", [], |row| row.get(0)).unwrap()
    };
    let first = raw();
    known.apply(&[KnownChange::Set(full)]).await.unwrap();
    assert_eq!(raw(), first);
    known.apply(&[KnownChange::Set(object("a//b", "other"))]).await.unwrap();
    assert!(raw() > first);
}

#[tokio::test]
async fn files_that_are_no_store_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let refused = async |what: &str| {
        let error = open(&path).await.unwrap_err();
        assert!(matches!(error, Error::Known { .. }) && !error.is_remote(), "{error:?}");
        assert_eq!(error.to_string(), format!("known objects in {}: {what}", path.display()));
    };
    let text = "This is a letter to nobody in particular. ".repeat(50);
    std::fs::write(&path, &text).unwrap();
    refused("it is no SQLite database").await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);

    std::fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    refused("it is an SQLite database of another program").await;

    std::fs::remove_file(&path).unwrap();
    drop(open(&path).await.unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 2).unwrap();
    refused("it was made by a newer bulk (its tables are of version 2, and this program knows 1)").await;

    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    assert_eq!(keys(&open(&path).await.unwrap()).await, [""; 0], "an empty file is as good as none");
}

#[tokio::test]
async fn what_no_statement_of_ours_wrote_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known.sqlite");
    let known = open(&path).await.unwrap();
    known.apply(&[KnownChange::Set(object("a", "1"))]).await.unwrap();
    for (damage, what) in [
        ("size = -1", "it is damaged: the size of \"a\""),
        ("size = NULL, last_modified = 9223372036854775807", "it is damaged: the time of \"a\""),
        ("last_modified = NULL, key = x'61ff'", "the key a\\xff is no UTF-8"),
    ] {
        Connection::open(&path).unwrap().execute_batch(&format!("UPDATE object SET {damage}")).unwrap();
        let error = known.scan(&KeyRange::all(), 10).await.unwrap_err();
        assert_eq!(error.to_string(), format!("known objects in {}: {what}", path.display()));
    }
}

#[tokio::test]
async fn a_change_that_fails_takes_all_others_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known.sqlite");
    let known = open(&path).await.unwrap();
    known.apply(&[KnownChange::Set(object("a", "1"))]).await.unwrap();
    let trigger =
        "CREATE TRIGGER refuse BEFORE INSERT ON object WHEN new.key = x'7a' BEGIN SELECT RAISE(ABORT, 'no z'); END";
    Connection::open(&path).unwrap().execute_batch(trigger).unwrap();
    let changes = [KnownChange::Remove("a"), KnownChange::Set(object("b", "1")), KnownChange::Set(object("z", "1"))];
    let error = known.apply(&changes).await.unwrap_err();
    assert_eq!(
        told(&error),
        format!("known objects in {}: cannot write: no z: Error code 1811: constraint failed", path.display())
    );
    assert_eq!(keys(&known).await, ["a"]);
    known.apply(&changes[..2]).await.unwrap();
    assert_eq!(keys(&known).await, ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_writer_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known.sqlite");
    let mut impatient = SqliteOptions::default();
    impatient.busy_timeout = Duration::from_millis(50);
    let impatient = SqliteKnown::open(&path, "data", impatient).await.unwrap();
    let patient = open(&path).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let change = [KnownChange::Set(object("a", "1"))];
    let error = impatient.apply(&change).await.unwrap_err();
    let what = "cannot write: another process has been using it all the time";
    assert_eq!(error.to_string(), format!("known objects in {}: {what}", path.display()));
    // Readers do not wait.
    assert_eq!(keys(&impatient).await, [""; 0]);
    let waiting = tokio::spawn(async move { patient.apply(&[KnownChange::Set(object("b", "1"))]).await });
    other.execute_batch("COMMIT").unwrap();
    waiting.await.unwrap().unwrap();
    impatient.apply(&change).await.unwrap();
    assert_eq!(keys(&impatient).await, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_may_make_the_same_file_at_once() {
    for _ in 0..10 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known.sqlite");
        let tasks = (0..8).map(|number| {
            let path = path.clone();
            tokio::spawn(async move {
                let key = format!("{number}");
                open(&path).await?.apply(&[KnownChange::Set(object(&key, "1"))]).await
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap().unwrap();
        }
        assert_eq!(keys(&open(&path).await.unwrap()).await, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    }
}

#[tokio::test]
async fn a_large_store_is_split_by_its_sample() {
    let folder = tempfile::tempdir().unwrap();
    let known = open(&folder.path().join("known.sqlite")).await.unwrap();
    const COUNT: usize = 100_000;
    // Nearly all of them below one prefix.
    let all: Vec<String> =
        (0..COUNT).map(|number| format!("{}/{number:08}", if number % 50 == 0 { "a" } else { "hot" })).collect();
    for some in all.chunks(20_000) {
        let changes: Vec<_> = some.iter().map(|key| KnownChange::Set(ObjectRef::new(key))).collect();
        known.apply(&changes).await.unwrap();
    }
    let points = known.split_points(&KeyRange::all(), 8).await.unwrap();
    assert_eq!(points.len(), 7);
    let mut counts = Vec::new();
    let mut rest = KeyRange::all();
    for point in &points {
        let (stretch, next) = rest.split_behind(point);
        counts.push(all.iter().filter(|key| stretch.contains(key)).count());
        rest = next;
    }
    // Of some 390 sampled keys 49 stand in each stretch; three standard deviations are 40%.
    assert!(counts.iter().all(|count| (7_000..18_000).contains(count)), "{counts:?}");
}
