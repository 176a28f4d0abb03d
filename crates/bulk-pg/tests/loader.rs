//! The loader that does it all, with a runtime around it and without one.

mod support;

use std::fs;
use std::io::Cursor;

use bulk_pg::{
    BlockingCopyWriter, BlockingLoader, ContentVerdict, CopyFormat, Error, FileIdentity, Input, LoadOptions, Loader,
    Plain, Verification,
};
use support::{Bench, chain, numbered, table};
use tempfile::TempDir;

const DDL: &str = "CREATE TABLE t (id integer PRIMARY KEY, text text)";

/// A file of so many records in a folder.
fn written(records: usize) -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.csv");
    fs::write(&path, numbered(records)).unwrap();
    (folder, path)
}

#[tokio::test]
async fn a_file_is_loaded_and_compared() {
    let bench = Bench::new("loader", DDL);
    let (_folder, path) = written(20_000);
    let mut options = LoadOptions::default();
    options.chunk_size = 100_000;
    let loader =
        Loader::new(bench.database.url(), table("t")).connections(3).verification(Verification::Full).options(options);
    let outcome = loader.load_path(&path).await.unwrap();
    assert_eq!((outcome.loaded.records, outcome.loaded.sent), (20_000, 20_000));
    assert!(matches!(outcome.verified.content, Some(ContentVerdict::Same { content }) if content.rows == 20_000));
    assert_eq!(bench.psql("SELECT count(*), sum(id) FROM t"), "20000|200010000");

    let again = loader.load_path(&path).await.unwrap();
    assert_eq!((again.loaded.sent, &again.verified), (0, &outcome.verified));
    bench.psql("UPDATE t SET text = text || '.' WHERE id = 7");
    let outcome = loader.load_path(&path).await.unwrap();
    assert!(matches!(outcome.verified.content, Some(ContentVerdict::Differs { .. })) && !outcome.verified.matches());
    let outcome = loader.clone().restart(true).load_path(&path).await.unwrap();
    assert!(outcome.loaded.sent == 20_000 && outcome.verified.matches());

    // Another version of it.
    fs::write(&path, numbered(3)).unwrap();
    let error = loader.load_path(&path).await.unwrap_err();
    assert!(matches!(error, Error::Occupied { .. }), "{error}");
    let uncounted = loader.clone().verification(Verification::None).restart(true).load_path(&path).await.unwrap();
    assert_eq!((uncounted.loaded.records, uncounted.verified.count), (3, None));
}

#[tokio::test]
async fn what_cannot_be_loaded_is_told() {
    let bench = Bench::new("untold", DDL);
    let loader = Loader::new(bench.database.url(), table("t"));
    let error = loader.load_path("/nowhere/at/all.csv").await.unwrap_err();
    assert!(chain(&error).starts_with("cannot read /nowhere/at/all.csv: "), "{}", chain(&error));
    let (_folder, path) = written(3);
    let nowhere = Loader::new("postgresql://me:secret@127.0.0.1:1/x", table("t"));
    let error = nowhere.load_path(&path).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }) && error.is_remote());
    assert!(!format!("{nowhere:?} {}", chain(&error)).contains("secret"));
}

#[test]
fn without_a_runtime() {
    let bench = Bench::new("blocking", DDL);
    let (_folder, path) = written(20_000);
    let loader = BlockingLoader::new(Loader::new(bench.database.url(), table("t")).verification(Verification::Full));
    let outcome = loader.load_path(&path).unwrap();
    assert_eq!((outcome.loaded.sent, outcome.verified.matches()), (20_000, true));
    let more = FileIdentity::new("more", None, 10);
    let mut options = LoadOptions::default();
    options.append = true;
    let loader = BlockingLoader::new(Loader::new(bench.database.url(), table("t")).options(options));
    assert_eq!(loader.load_reader(&more, Cursor::new("id,text\n0,a\n")).unwrap().loaded.sent, 1);
    let last = FileIdentity::new("last", None, 10);
    let open = || Ok(Box::new(Plain(Cursor::new("id,text\n-1,a\n"))) as Box<dyn Input>);
    assert_eq!(loader.load_input(&last, open).unwrap().loaded.sent, 1);
    assert_eq!(bench.psql("SELECT count(*), min(id) FROM t"), "20002|-1");

    bench.psql("TRUNCATE t");
    let begin = || BlockingCopyWriter::connect(bench.database.url(), &table("t"), &[], CopyFormat::Auto).unwrap();
    let mut writer = begin();
    for id in 0..10_000 {
        writer.write(&(id, "x".repeat(100))).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), 10_000);
    let mut writer = begin();
    for id in 10_000..20_000 {
        writer.write(&(id, "x".repeat(100))).unwrap();
    }
    drop(writer);
    assert_eq!(bench.psql("SELECT count(*), max(id) FROM t"), "10000|9999");
    // Nothing holds the table any more.
    bench.psql("TRUNCATE t");
    let mut writer = begin();
    writer.write(&(1, "a")).unwrap();
    writer.write(&(1, "b")).unwrap();
    assert!(matches!(writer.finish().unwrap_err(), Error::RefusedRow { row: Some(2), .. }));
}

/// What is done within a task of somebody's.
fn within(bench: &Bench, path: &std::path::Path) {
    let loader = BlockingLoader::new(Loader::new(bench.database.url(), table("t")).restart(true));
    assert_eq!(loader.load_path(path).unwrap().loaded.sent, 20_000);
    let begin = || BlockingCopyWriter::connect(bench.database.url(), &table("t"), &[], CopyFormat::Auto).unwrap();
    for finishes in [true, false] {
        let mut writer = begin();
        for id in 0..10_000 {
            writer.write(&(-1 - id, "x".repeat(100))).unwrap();
        }
        if finishes {
            assert_eq!(writer.finish().unwrap(), 10_000);
        }
    }
    assert_eq!(bench.psql("SELECT count(*), min(id) FROM t"), "30000|-10000");
}

#[tokio::test]
async fn within_a_runtime_of_one_thread() {
    let bench = Bench::new("current", DDL);
    let (_folder, path) = written(20_000);
    within(&bench, &path);
}

#[tokio::test(flavor = "multi_thread")]
async fn within_a_runtime_of_several_threads() {
    let bench = Bench::new("several", DDL);
    let (_folder, path) = written(20_000);
    tokio::spawn(async move {
        within(&bench, &path);
        tokio::task::spawn_blocking(move || within(&bench, &path)).await.unwrap();
    })
    .await
    .unwrap();
}
