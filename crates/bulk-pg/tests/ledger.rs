//! Marks of rows that are not there any more.

mod support;

use bulk_pg::{
    Error, LoadOptions, Session, count_rows, find_loaded, has_rows, prepare_ledger, restart, settle, unsettled,
};
use bulk_testkit::postgres::{DatabaseUrl, Options, Server};
use support::{Bench, chain, file, load_t, numbered, table};

const CSV: &[u8] = b"id,text\n1,a\n2,b\n";

/// The schema comes into being between the look for it and the lock, so that the session has noted that there is none.
#[tokio::test]
async fn of_two_first_runs_the_second_finds_the_schema_of_the_first() {
    let bench = Bench::new("first_runs", "");
    let first = Session::connect(bench.database.url()).await.unwrap();
    first.client().batch_execute("BEGIN; SELECT pg_advisory_xact_lock(1651862635)").await.unwrap();
    let second = Session::connect(bench.database.url()).await.unwrap();
    let make = async {
        bench.waits("wait_event = 'advisory'").await;
        first.client().batch_execute("CREATE SCHEMA bulk; COMMIT").await.unwrap();
    };
    let (made, ()) = futures::join!(prepare_ledger(&second), make);
    made.unwrap();
    assert_eq!(bench.psql("SELECT count(*) FROM bulk.load"), "0");
}

/// Nothing but the schema needs the right to make one.
#[tokio::test]
async fn a_role_that_may_not_create_a_schema_uses_one_that_is_there() {
    let bench =
        Bench::new("no_create", "CREATE ROLE ledger_no_create; CREATE SCHEMA bulk AUTHORIZATION ledger_no_create");
    let session = Session::connect(bench.database.url()).await.unwrap();
    session.client().batch_execute("SET ROLE ledger_no_create").await.unwrap();
    prepare_ledger(&session).await.unwrap();
    assert_eq!(
        bench.psql("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'bulk.load'::regclass"),
        "ledger_no_create"
    );
}

async fn found(session: &bulk_pg::Session) -> Option<u64> {
    find_loaded(session, &table("t"), &file("t.csv", CSV), &LoadOptions::default()).await.unwrap()
}

#[tokio::test]
async fn a_file_is_found_when_all_of_it_is_loaded() {
    let bench = Bench::new("found", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    assert_eq!(found(&session).await, None);
    load_t(&mut session, b"id,text\n1,a\nnone,b\n", &LoadOptions::default()).await.unwrap_err();
    let mut each = LoadOptions::default();
    each.chunk_size = 0;
    let broken = b"id,text\n1,a\nx,b\n";
    load_t(&mut session, broken, &each).await.unwrap_err();
    // A part is not all.
    let part = find_loaded(&session, &table("t"), &file("t.csv", broken), &each).await.unwrap();
    assert_eq!((part, bench.psql("SELECT count(*) FROM t")), (None, "1".to_owned()));
    bench.psql("TRUNCATE t");
    load_t(&mut session, CSV, &each).await.unwrap();
    assert_eq!(found(&session).await, Some(2));
}

#[tokio::test]
async fn a_table_emptied_by_somebody_has_nothing_and_is_loaded_anew() {
    for empty in ["TRUNCATE t", "DELETE FROM t", "DROP TABLE t; CREATE TABLE t (id integer, text text)"] {
        let bench = Bench::new("emptied", "CREATE TABLE t (id integer, text text)");
        let mut session = bench.session().await;
        load_t(&mut session, CSV, &LoadOptions::default()).await.unwrap();
        bench.psql(empty);
        assert_eq!(found(&session).await, None, "{empty}");
        // Only asked: the marks are there until the next load.
        assert_eq!(bench.psql("SELECT (SELECT count(*) FROM bulk.load), (SELECT count(*) FROM bulk.chunk)"), "1|1");
        let id = bench.psql("SELECT id FROM bulk.load");
        let loaded = load_t(&mut session, CSV, &LoadOptions::default()).await.unwrap();
        assert_eq!((loaded.records, loaded.sent), (2, 2), "{empty}");
        assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), "1|a\n2|b");
        assert_eq!(bench.psql("SELECT count(*), min(id) > 0 FROM bulk.load"), "1|t");
        assert_ne!(bench.psql("SELECT id FROM bulk.load"), id);
        assert!(count_rows(&session, &table("t")).await.unwrap().matches());
    }
}

#[tokio::test]
async fn a_load_that_left_nothing_is_in_nobodys_way() {
    let bench = Bench::new("nothing", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    load_t(&mut session, b"id,text\nnone,a\n", &LoadOptions::default()).await.unwrap_err();
    assert_eq!(bench.psql("SELECT count(*) FROM bulk.load"), "1");
    // The file is mended, and so it is another version; or it is another file.
    assert_eq!(load_t(&mut session, CSV, &LoadOptions::default()).await.unwrap().sent, 2);
    assert_eq!(bench.psql("SELECT file_size, records FROM bulk.load"), "16|2");
}

#[tokio::test]
async fn marks_of_a_dropped_table_do_not_count_for_its_namesake() {
    let bench = Bench::new("namesake", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    load_t(&mut session, CSV, &LoadOptions::default()).await.unwrap();
    bench.psql("DROP TABLE t; CREATE TABLE t (id integer, text text); INSERT INTO t VALUES (7, 'theirs')");
    let count = count_rows(&session, &table("t")).await.unwrap();
    assert_eq!((count.rows, count.records), (1, 0));
    let error = find_loaded(&session, &table("t"), &file("t.csv", CSV), &LoadOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Occupied { .. }), "{}", chain(&error));
}

/// After a restore from a dump, or a swap of tables, the rows may be there under another OID.
#[tokio::test]
async fn a_file_is_not_appended_to_what_may_be_its_own_rows() {
    let bench = Bench::new("swapped", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    let mut append = LoadOptions::default();
    append.append = true;
    load_t(&mut session, CSV, &append).await.unwrap();
    let swap = "CREATE TABLE s AS TABLE t; DROP TABLE t; ALTER TABLE s RENAME TO t";
    bench.psql(swap);
    for options in [&append, &LoadOptions::default()] {
        let error = load_t(&mut session, CSV, options).await.unwrap_err();
        assert_eq!(
            chain(&error),
            "table public.t has rows, and is not the table of its name that t.csv went into, as after a restore from a \
             dump or a swap of tables; if the rows are in it, run UPDATE bulk.load SET target_oid = \
             'public.t'::regclass WHERE id IN (1), if not, DELETE FROM bulk.load WHERE id IN (1), or load it anew with \
             --restart, which deletes all rows of the table"
        );
        assert!(matches!(error, Error::Occupied { .. }));
    }
    // Nor is another file, with which the marks of the first would go.
    let other = file("other.csv", b"id,text\n3,c\n");
    let found = find_loaded(&session, &table("t"), &other, &append).await;
    assert!(matches!(found, Err(Error::Occupied { .. })), "{found:?}");
    assert_eq!(bench.psql("SELECT count(*) FROM t"), "2");

    bench.psql("UPDATE bulk.load SET target_oid = 'public.t'::regclass WHERE id IN (1)");
    assert_eq!(load_t(&mut session, CSV, &append).await.unwrap().sent, 0);
    bench.psql(swap);
    bench.psql("DELETE FROM bulk.load WHERE id IN (1)");
    assert_eq!(load_t(&mut session, CSV, &append).await.unwrap().sent, 2);
    assert_eq!(bench.psql("SELECT count(*) FROM t"), "4");
}

#[tokio::test]
async fn a_load_of_no_rows_stays_loaded_in_an_empty_table() {
    let bench = Bench::new("none", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    load_t(&mut session, b"id,text\n", &LoadOptions::default()).await.unwrap();
    let identity = file("t.csv", b"id,text\n");
    let found = find_loaded(&session, &table("t"), &identity, &LoadOptions::default()).await.unwrap();
    assert_eq!(found, Some(0));
}

#[tokio::test]
async fn an_unknown_table_is_named() {
    let bench = Bench::new("unknown", "CREATE VIEW t AS SELECT 1 AS id");
    let mut session = bench.session().await;
    let expected = "table public.t does not exist in the database";
    let error = load_t(&mut session, CSV, &LoadOptions::default()).await.unwrap_err();
    assert_eq!(chain(&error), expected);
    let error = find_loaded(&session, &table("t"), &file("t.csv", CSV), &LoadOptions::default()).await.unwrap_err();
    assert_eq!(chain(&error), expected);
}

#[tokio::test]
async fn the_ledger_is_made_once_by_many() {
    let bench = Bench::new("ledgers", "");
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(bulk_pg::Session::connect(bench.database.url()).await.unwrap());
    }
    let all = futures::future::join_all(sessions.iter().map(prepare_ledger)).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(
        bench.psql("SELECT count(*) FROM pg_class WHERE relnamespace = 'bulk'::regnamespace AND relkind = 'r'"),
        "6"
    );
}

#[tokio::test]
async fn a_table_is_unsettled_from_its_load_until_it_is_settled() {
    let bench = Bench::new("settle", "CREATE TABLE t (id integer, text text); CREATE TABLE u (id integer)");
    let mut session = bench.session().await;
    let tables = [table("u"), table("t"), table("absent")];
    let csv = numbered(10);
    assert_eq!(unsettled(&session, &tables).await.unwrap(), []);
    assert!(!has_rows(&session, &table("t")).await.unwrap());
    assert!(has_rows(&session, &table("absent")).await.is_err());
    load_t(&mut session, &csv, &LoadOptions::default()).await.unwrap();
    assert_eq!(unsettled(&session, &tables).await.unwrap(), [table("t")]);
    assert!(has_rows(&session, &table("t")).await.unwrap());
    settle(&session, &tables).await.unwrap();
    assert_eq!(unsettled(&session, &tables).await.unwrap(), []);
    restart(&mut session, &[table("t")]).await.unwrap();
    load_t(&mut session, &csv, &LoadOptions::default()).await.unwrap();
    assert_eq!(unsettled(&session, &tables).await.unwrap(), [table("t")]);
}

#[tokio::test]
async fn what_is_flushed_is_on_the_disk() {
    let mut private = Options::default();
    private.database_url = DatabaseUrl::Ignore;
    // By itself the server would not write the log for so long.
    private.settings = vec![("wal_writer_delay".to_owned(), "10s".to_owned())];
    let server = Server::start(&private).unwrap();
    let database = server.create_database("flush").unwrap();
    let session = bulk_pg::Session::connect(database.url()).await.unwrap();
    for create in ["CREATE TABLE t AS SELECT generate_series(1, 1000)", "CREATE TABLE u AS TABLE t"] {
        session.client().batch_execute(create).await.unwrap();
        let end = server.psql(database.url(), "SELECT pg_current_wal_insert_lsn()").unwrap();
        session.flush().await.unwrap();
        let is_flushed = format!("SELECT pg_current_wal_flush_lsn() >= '{}'", end.trim_end());
        assert_eq!(server.psql(database.url(), &is_flushed).unwrap(), "t\n");
    }
}
