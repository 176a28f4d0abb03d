//! One loader a table, and for no longer than it loads.

mod support;

use std::slice::from_mut;
use std::time::Duration;

use bulk_pg::{Error, LoadOptions, load, lock_mirror, lock_table, restart};
use support::{Bench, HEADER, LINE, chain, file, gated, load_t, numbered, table};

fn locks(bench: &Bench, granted: bool) -> String {
    bench.psql(&format!(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted = {granted}
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_loader_of_a_table_is_told_and_changes_nothing() {
    let bench = Bench::new("second", "CREATE TABLE t (id integer, text text); CREATE TABLE u (id integer, text text)");
    let csv = numbered(20_000);
    let (mut first, mut second) = (bench.session().await, bench.session().await);
    let (open, gate) = gated(&csv, HEADER + 12_000 * LINE + 7);
    let identity = file("t.csv", &csv);
    let options = LoadOptions::default();
    let mut impatient = LoadOptions::default();
    impatient.lock_timeout = Duration::ZERO;

    let target = table("t");
    let loading = load(from_mut(&mut first), &target, &identity, open, &options);
    let others = async {
        while locks(&bench, true) != "1" {
            tokio::task::yield_now().await;
        }
        let error = load_t(&mut second, &csv, &impatient).await.unwrap_err();
        assert_eq!(chain(&error), "table public.t is being loaded by another session; wait for it, or stop it");
        assert!(matches!(error, Error::Occupied { .. }));
        let error = restart(&mut second, &[table("t")]).await.unwrap_err();
        assert_eq!(chain(&error), "table public.t is being loaded by another session; wait for it, or stop it");
        // Another table is free.
        let small = numbered(3);
        let open = support::whole(&small);
        load(from_mut(&mut second), &table("u"), &file("u.csv", &small), open, &impatient).await.unwrap();
        drop(gate);
    };
    let (loaded, ()) = tokio::join!(loading, others);
    assert_eq!(loaded.unwrap().sent, 20_000);
    assert_eq!(locks(&bench, true), "0");
    assert_eq!(load_t(&mut second, &csv, &impatient).await.unwrap().sent, 0);
    assert_eq!(bench.psql("SELECT count(*), count(DISTINCT id) FROM t"), "20000|20000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_locked_for_as_long_as_the_session_lasts() {
    let bench = Bench::new("lasting", "CREATE TABLE t (id integer, text text)");
    let csv = numbered(3);
    let (mut first, mut second) = (bench.session().await, bench.session().await);
    lock_table(&mut first, &table("t")).await.unwrap();
    let mut impatient = LoadOptions::default();
    impatient.lock_timeout = Duration::ZERO;
    let error = load_t(&mut second, &csv, &impatient).await.unwrap_err();
    assert_eq!(chain(&error), "table public.t is being loaded by another session; wait for it, or stop it");
    let error = lock_table(&mut first, &table("absent")).await.unwrap_err();
    assert_eq!(chain(&error), "cannot find public.absent: relation \"public.absent\" does not exist [SQLSTATE 42P01]");
    drop(first);
    // It waits until the server has missed that session.
    lock_table(&mut second, &table("t")).await.unwrap();
    assert_eq!(locks(&bench, true), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loader_waits_for_one_that_is_about_to_end() {
    let bench = Bench::new("wait", "CREATE TABLE t (id integer, text text)");
    let csv = numbered(20_000);
    let (mut first, mut second) = (bench.session().await, bench.session().await);
    let (open, gate) = gated(&csv, HEADER + 12_000 * LINE + 7);
    let identity = file("t.csv", &csv);
    let options = LoadOptions::default();
    let mut patient = LoadOptions::default();
    patient.lock_timeout = Duration::from_secs(60);
    let target = table("t");
    let loading = load(from_mut(&mut first), &target, &identity, open, &options);
    let waiting = async {
        while locks(&bench, true) != "1" {
            tokio::task::yield_now().await;
        }
        let second = load_t(&mut second, &csv, &patient);
        let opened = async {
            while locks(&bench, false) != "1" {
                tokio::task::yield_now().await;
            }
            drop(gate);
        };
        tokio::join!(second, opened).0
    };
    let (first, second) = tokio::join!(loading, waiting);
    assert_eq!((first.unwrap().sent, second.unwrap().sent), (20_000, 0));
    assert_eq!(bench.psql("SELECT count(*) FROM t"), "20000");
}

#[tokio::test]
async fn the_table_is_free_again_after_a_load_that_failed() {
    let bench = Bench::new("failed", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    load_t(&mut session, b"id,text\nnone,a\n", &LoadOptions::default()).await.unwrap_err();
    assert_eq!(locks(&bench, true), "0");
}

#[tokio::test]
async fn the_locks_of_other_programs_are_other_locks() {
    let bench = Bench::new("others", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    let other = bulk_pg::Session::connect(bench.database.url()).await.unwrap();
    let oid = bench.psql("SELECT 't'::regclass::oid");
    let class = 0x6275_6c6b;
    let keys = format!(
        "SELECT pg_advisory_lock({oid}), pg_advisory_lock(0, {oid}), pg_advisory_lock({class}), \
                        pg_advisory_lock({class}, 0), pg_advisory_lock(({class}::bigint << 32) | {oid})"
    );
    other.client().batch_execute(&keys).await.unwrap();
    let mut impatient = LoadOptions::default();
    impatient.lock_timeout = Duration::ZERO;
    load_t(&mut session, b"id,text\n1,a\n", &impatient).await.unwrap();
    assert_eq!(bench.psql("SELECT * FROM t"), "1|a");
}

#[tokio::test]
async fn one_mirror_a_database_and_loads_beside_it() {
    let bench = Bench::new("mirrors", "CREATE TABLE t (id integer, text text)");
    let (mut first, mut second) = (bench.session().await, bench.session().await);
    lock_mirror(&mut first).await.unwrap();
    let error = lock_mirror(&mut second).await.unwrap_err();
    assert_eq!(chain(&error), format!("another mirror into {} is under way; wait for it, or stop it", second.target()));
    assert!(matches!(error, Error::Mirrored { .. }));
    assert_eq!(load_t(&mut second, b"id,text\n1,a\n", &LoadOptions::default()).await.unwrap().sent, 1);
    // In another database it is another one's.
    let other = Bench::new("mirrors", "");
    lock_mirror(&mut other.session().await).await.unwrap();
    drop(first);
    lock_mirror(&mut second).await.unwrap();
}
