//! Rows written by COPY: all of them are there, or none.

mod support;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bulk_pg::{CopyFormat, CopyWriter, Error, Session};
use support::{Bench, chain, table};

async fn session(bench: &Bench) -> Session {
    Session::connect(bench.database.url()).await.unwrap()
}

#[tokio::test]
async fn rows_are_there_when_it_is_finished() {
    for format in [CopyFormat::Auto, CopyFormat::Text] {
        let bench = Bench::new("writer", "CREATE TABLE t (id integer PRIMARY KEY, name text, more text DEFAULT 'x')");
        let mut session = session(&bench).await;
        let mut writer = CopyWriter::begin(&mut session, &table("t"), &["name", "id"], format).await.unwrap();
        for id in 0..1000 {
            writer.write(&(Some("a\tb\\.\n").filter(|_| id % 2 == 0), id)).await.unwrap();
        }
        assert_eq!(bench.psql("SELECT count(*) FROM t"), "0");
        assert_eq!(writer.finish().await.unwrap(), 1000);
        let sums = "SELECT count(*), sum(id), count(name), count(*) FILTER (WHERE name = E'a\\tb\\\\.\\n' AND more = 'x') FROM t";
        assert_eq!(bench.psql(sums), "1000|499500|500|500");
        // The session goes on to be of use.
        let writer = CopyWriter::begin(&mut session, &table("t"), &[], format).await.unwrap();
        assert_eq!(writer.finish().await.unwrap(), 0);
    }
}

#[tokio::test]
async fn the_format_is_the_one_that_the_types_allow() {
    let bench = Bench::new(
        "formats",
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN document AS jsonb CHECK (VALUE IS NOT NULL);
         CREATE TABLE t (id integer, mood mood, moods mood[], span interval, data document)",
    );
    let mut session = session(&bench).await;
    #[derive(serde::Serialize)]
    #[serde(rename_all = "lowercase")]
    enum Mood {
        Sad,
        Ok,
    }
    let mut writer = CopyWriter::begin(&mut session, &table("t"), &[], CopyFormat::Auto).await.unwrap();
    let data = serde_json::json!({"a": ["\\", "\t"], "b": null});
    writer.write(&(1, Mood::Sad, [Some(Mood::Ok), None], "1 day 02:00", &data)).await.unwrap();
    writer.write(&(2, None::<Mood>, [Mood::Ok; 0], None::<&str>, 7.5)).await.unwrap();
    assert_eq!(writer.finish().await.unwrap(), 2);
    assert_eq!(
        bench.psql("SELECT * FROM t ORDER BY id"),
        "1|sad|{ok,NULL}|1 day 02:00:00|{\"a\": [\"\\\\\", \"\\t\"], \"b\": null}\n2||{}||7.5"
    );
}

#[tokio::test]
async fn what_only_the_server_can_read_goes_beside() {
    let bench = Bench::new("beside", "CREATE TABLE t (id integer, day date)");
    let mut session = session(&bench).await;
    let mut writer = CopyWriter::begin(&mut session, &table("t"), &["id", "day"], CopyFormat::Auto).await.unwrap();
    // More than a megabyte of such rows, so that the two formats take turns.
    let rows = 120_000;
    for id in 0..rows {
        writer.write(&(id, if id % 2 == 0 { "2001-02-03" } else { "Feb 3, 2001" })).await.unwrap();
    }
    assert_eq!(writer.finish().await.unwrap(), rows);
    let sums = "SELECT count(*), sum(id), count(DISTINCT id), min(day), max(day) FROM t";
    assert_eq!(bench.psql(sums), format!("{rows}|{}|{rows}|2001-02-03|2001-02-03", rows * (rows - 1) / 2));
}

#[tokio::test]
async fn rows_longer_than_a_message_arrive_whole() {
    let bench = Bench::new("long", "CREATE TABLE t (id integer, text text)");
    let mut session = session(&bench).await;
    let mut writer = CopyWriter::begin(&mut session, &table("t"), &[], CopyFormat::Auto).await.unwrap();
    for id in 0..3 {
        writer.write(&(id, "é\\".repeat(1_000_000 * id))).await.unwrap();
    }
    assert_eq!(writer.finish().await.unwrap(), 3);
    let lengths = "SELECT id, length(text), text = repeat('é\\', 1000000 * id) FROM t ORDER BY id";
    assert_eq!(bench.psql(lengths), "0|0|t\n1|2000000|t\n2|4000000|t");
}

#[tokio::test]
async fn what_is_dropped_is_not_there() {
    let bench = Bench::new("dropped", "CREATE TABLE t (id integer, text text)");
    let mut session = session(&bench).await;
    // Before anything is sent, with a COPY under way, and with rows that wait.
    for rows in [0, 1, 10_000] {
        let mut writer = CopyWriter::begin(&mut session, &table("t"), &[], CopyFormat::Auto).await.unwrap();
        for id in 0..rows {
            writer.write(&(id, "x".repeat(100))).await.unwrap();
        }
        drop(writer);
        assert_eq!(session.client().query_one("SELECT count(*) FROM t", &[]).await.unwrap().get::<_, i64>(0), 0);
    }
    let owned = Session::connect(bench.database.url()).await.unwrap();
    let mut writer = CopyWriter::begin_owned(owned, &table("t"), &[], CopyFormat::Auto).await.unwrap();
    for id in 0..10_000 {
        writer.write(&(id, "x".repeat(100))).await.unwrap();
    }
    drop(writer);
    // Its lock on the table goes with it.
    session.client().batch_execute("TRUNCATE t").await.unwrap();
    let owned = Session::connect(bench.database.url()).await.unwrap();
    let mut writer = CopyWriter::begin_owned(owned, &table("t"), &[], CopyFormat::Auto).await.unwrap();
    writer.write(&(1, "a")).await.unwrap();
    assert_eq!(writer.finish().await.unwrap(), 1);
    assert_eq!(bench.psql("SELECT * FROM t"), "1|a");
}

/// Polls a future once.
fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn a_call_that_is_given_up_spends_the_writer() {
    let bench = Bench::new("given_up", "CREATE TABLE t (id integer, text text)");
    let mut session = session(&bench).await;
    let mut writer = CopyWriter::begin(&mut session, &table("t"), &[], CopyFormat::Auto).await.unwrap();
    writer.write(&(0, "a")).await.unwrap();
    // The COPY has to be begun, which the server is to answer.
    assert!(poll_once(writer.write(&(1, "x".repeat(1 << 20)))).is_pending());
    let spent = "an earlier write into public.t failed or was cut short; nothing of it is kept";
    let error = writer.write(&(2, "b")).await.unwrap_err();
    assert!(matches!(error, Error::Spent { .. }));
    assert_eq!(error.to_string(), spent);
    assert_eq!(writer.finish().await.unwrap_err().to_string(), spent);
    assert_eq!(session.client().query_one("SELECT count(*) FROM t", &[]).await.unwrap().get::<_, i64>(0), 0);

    let mut writer = CopyWriter::begin(&mut session, &table("t"), &[], CopyFormat::Auto).await.unwrap();
    writer.write(&(1, "x".repeat(1 << 20))).await.unwrap();
    assert!(poll_once(writer.finish()).is_pending());
    assert_eq!(session.client().query_one("SELECT count(*) FROM t", &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn a_bad_row_is_left_out_and_the_next_one_goes_on() {
    let bench = Bench::new("bad", "CREATE TABLE t (id smallint, code varchar(2), day date)");
    let mut session = session(&bench).await;
    for format in [CopyFormat::Auto, CopyFormat::Text] {
        let mut writer = CopyWriter::begin(&mut session, &table("t"), &[], format).await.unwrap();
        writer.write(&(1, "a", "2001-02-03")).await.unwrap();
        let error = writer.write(&(1, "a\0", "2001-02-03")).await.unwrap_err();
        let text = "row 2 for public.t, column code (character varying(2)): invalid byte sequence for encoding \
                    \"UTF8\" [SQLSTATE 22021]";
        assert_eq!(error.to_string(), text);
        if format == CopyFormat::Auto {
            let error = writer.write(&(70_000, "a", "2001-02-03")).await.unwrap_err();
            let text = "row 2 for public.t, column id (smallint): value \"70000\" is out of range for type smallint \
                        [SQLSTATE 22003]";
            assert_eq!(error.to_string(), text);
            let error = writer.write(&(2, "abc", "2001-02-03")).await.unwrap_err();
            let text = "row 2 for public.t, column code (character varying(2)): value too long for type character \
                        varying(2) [SQLSTATE 22001]";
            assert_eq!(error.to_string(), text);
        }
        writer.write(&(2, "b", "Feb 3, 2001")).await.unwrap();
        assert_eq!(writer.finish().await.unwrap(), 2);
        assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), "1|a|2001-02-03\n2|b|2001-02-03");
        bench.psql("TRUNCATE t");
    }
}

#[tokio::test]
async fn what_the_server_refuses_is_named_and_nothing_is_kept() {
    let bench = Bench::new("refused", "CREATE TABLE t (id integer PRIMARY KEY CHECK (id < 1000000), day date)");
    let mut session = session(&bench).await;
    let mut writer = CopyWriter::begin(&mut session, &table("t"), &["id", "day"], CopyFormat::Auto).await.unwrap();
    for id in [1, 2, 3, 2, 4] {
        writer.write(&(id, "2001-02-03")).await.unwrap();
    }
    let error = writer.finish().await.unwrap_err();
    assert_eq!(
        chain(&error),
        "the server refuses row 4 for public.t: duplicate key value violates unique constraint \"t_pkey\" (Key \
         (id)=(2) already exists.) [SQLSTATE 23505]"
    );
    assert_eq!(bench.psql("SELECT count(*) FROM t"), "0");

    let mut writer = CopyWriter::begin(&mut session, &table("t"), &["id", "day"], CopyFormat::Auto).await.unwrap();
    for (id, day) in [(1, "2001-02-03"), (2, "Feb 3, 2001"), (3, "2001-02-03"), (4, "Feb 30, 2001")] {
        writer.write(&(id, day)).await.unwrap();
    }
    let error = writer.finish().await.unwrap_err();
    let text = "the server refuses row 4, column day for public.t: date/time field value out of range";
    assert!(chain(&error).starts_with(text), "{}", chain(&error));
    assert_eq!(bench.psql("SELECT count(*) FROM t"), "0");

    // A deferred constraint is refused by the commit.
    bench.psql("CREATE TABLE u (id integer UNIQUE DEFERRABLE INITIALLY DEFERRED)");
    let mut writer = CopyWriter::begin(&mut session, &table("u"), &[], CopyFormat::Auto).await.unwrap();
    writer.write(&[1]).await.unwrap();
    writer.write(&[1]).await.unwrap();
    let error = writer.finish().await.unwrap_err();
    assert!(chain(&error).starts_with("the server refuses one of 2 rows for public.u: duplicate key value"), "{error}");
    assert_eq!(bench.psql("SELECT count(*) FROM u"), "0");
}

#[tokio::test]
async fn the_server_is_heard_before_the_end() {
    let bench = Bench::new("heard", "CREATE TABLE t (id integer CHECK (id > 0), text text)");
    let mut session = session(&bench).await;
    let mut writer = CopyWriter::begin(&mut session, &table("t"), &[], CopyFormat::Auto).await.unwrap();
    let text = "x".repeat(1 << 20);
    let mut rows = 0;
    let error = loop {
        if let Err(error) = writer.write(&(0, &text)).await {
            break error;
        }
        rows += 1;
        assert!(rows < 100, "nobody heard of it");
    };
    let said = chain(&error);
    assert!(said.starts_with("the server refuses row 1 for public.t: new row for relation \"t\" violates"), "{said}");
    assert!(matches!(writer.finish().await.unwrap_err(), Error::Spent { .. }));
    assert_eq!(bench.psql("SELECT count(*) FROM t"), "0");
}

#[tokio::test]
async fn columns_are_found_or_refused() {
    let bench = Bench::new(
        "columns",
        r#"CREATE TABLE "T ""1" (id integer, "a ""b" text, twice integer GENERATED ALWAYS AS (id * 2) STORED)"#,
    );
    let mut session = session(&bench).await;
    let odd = table(r#""T ""1""#);
    let mut refused = async |table, columns: &[&str]| {
        CopyWriter::begin(&mut session, table, columns, CopyFormat::Auto).await.unwrap_err().to_string()
    };
    assert_eq!(refused(&odd, &["id", "x"]).await, r#"table public."T ""1" has no column "x""#);
    assert_eq!(refused(&odd, &["id", "id"]).await, r#"table public."T ""1" is to get the column "id" twice"#);
    assert_eq!(
        refused(&odd, &["twice"]).await,
        r#"table public."T ""1" computes the column "twice" itself; leave it out"#
    );
    assert!(refused(&table("nowhere"), &[]).await.starts_with("table public.nowhere does not exist"));
    let mut writer = CopyWriter::begin(&mut session, &odd, &[], CopyFormat::Auto).await.unwrap();
    writer.write(&(7, "x")).await.unwrap();
    assert_eq!(writer.finish().await.unwrap(), 1);
    assert_eq!(bench.psql(r#"SELECT * FROM "T ""1""#), "7|x|14");
}

#[tokio::test]
async fn it_writes_within_a_transaction_of_the_callers() {
    let bench = Bench::new("within", "CREATE TABLE t (id integer); CREATE TABLE mark (upto integer)");
    let (mut client, connection) = tokio_postgres::connect(bench.database.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    for commits in [true, false] {
        let transaction = client.transaction().await.unwrap();
        let mut writer = CopyWriter::begin_within(&transaction, &table("t"), &["id"], CopyFormat::Auto).await.unwrap();
        writer.write(&(1,)).await.unwrap();
        assert_eq!(writer.finish().await.unwrap(), 1);
        transaction.execute("INSERT INTO mark VALUES (1)", &[]).await.unwrap();
        if commits {
            transaction.commit().await.unwrap();
        }
        assert_eq!(bench.psql("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM mark)"), "1|1");
    }
    // With a writer that is dropped nothing of the transaction is kept, whether anything was sent or not.
    for (rows, format) in
        [(0, CopyFormat::Auto), (3, CopyFormat::Auto), (3, CopyFormat::Text), (100_000, CopyFormat::Text)]
    {
        let transaction = client.transaction().await.unwrap();
        transaction.execute("INSERT INTO mark VALUES (2)", &[]).await.unwrap();
        let mut writer = CopyWriter::begin_within(&transaction, &table("t"), &["id"], format).await.unwrap();
        for id in 0..rows {
            writer.write(&(id,)).await.unwrap();
        }
        drop(writer);
        transaction.commit().await.unwrap();
        assert_eq!(bench.psql("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM mark)"), "1|1");
    }
}
