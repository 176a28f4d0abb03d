//! Bad input: the error names the file, the record and the byte, and nothing of the chunk stays.

mod support;

use std::io::{self, Read};
use std::slice::from_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bulk_pg::{CopyFormat, Dialect, Error, LoadOptions, Plain, RecordErrorKind, Session, load};
use support::{Bench, Counted, HEADER, LINE, chain, file, load_t, numbered, table, whole};

/// Loads into a fresh `t (id integer, text text)`, which must fail, and gives the error and the rows that stay.
async fn refused(content: &[u8], options: &LoadOptions) -> (Error, String) {
    let bench = Bench::new("refused", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    let error = load_t(&mut session, content, options).await.unwrap_err();
    assert_eq!(bench.psql("SELECT count(*) FROM bulk.load WHERE finished_at IS NOT NULL"), "0");
    (error, bench.psql("SELECT count(*) FROM t"))
}

async fn said(content: &[u8]) -> String {
    chain(&refused(content, &LoadOptions::default()).await.0)
}

#[tokio::test]
async fn a_value_that_the_server_refuses_is_named_with_record_byte_and_column() {
    // The server counts lines from the start of a chunk, and a value of several lines as one.
    let mut csv = numbered(20_000);
    let at = HEADER + 15_432 * LINE;
    csv[at..at + 8].copy_from_slice(b"1543x433");
    let mut options = LoadOptions::default();
    options.chunk_size = (1000 * LINE) as u64;
    let (error, rows) = refused(&csv, &options).await;
    assert_eq!(
        chain(&error),
        format!(
            "t.csv: record 15433, byte {at}, column id: invalid input syntax for type integer: \"1543x433\" [SQLSTATE \
             22P02]"
        )
    );
    assert_eq!(rows, "15000");
    let Error::Value { record, offset, column, sqlstate, .. } = error else { panic!("{error}") };
    assert_eq!((record, offset, &*column, sqlstate), (15_433, at as u64, "id", "22P02"));
    // Where the server is left to find it.
    options.format = CopyFormat::Text;
    let (error, rows) = refused(&csv, &options).await;
    assert_eq!(
        chain(&error),
        format!(
            "t.csv: the server refuses record 15433, byte {at}, column id for public.t: invalid input syntax for type \
             integer: \"1543x433\" [SQLSTATE 22P02]"
        )
    );
    assert_eq!(rows, "15000");
    let Error::Copy { first, last, offset, column, .. } = error else { panic!("{error}") };
    assert_eq!((first, last, offset, column.as_deref()), (15_433, 15_433, Some(at as u64), Some("id")));
    options.chunk_size = 16 << 20;
    let (error, rows) = refused(&csv, &options).await;
    assert!(chain(&error).starts_with(&format!("t.csv: the server refuses record 15433, byte {at}, column id")));
    assert_eq!(rows, "0");

    let multiline = b"id,text\n1,\"a\nb\r\nc\"\n2,\"\n\n\"\nx,d\n";
    let (error, _) = refused(multiline, &options).await;
    let expected = "t.csv: the server refuses record 3, byte 26, column id for public.t: invalid input syntax for type \
                    integer: \"x\" [SQLSTATE 22P02]";
    assert_eq!(chain(&error), expected);
    let expected = "t.csv: record 3, byte 26, column id: invalid input syntax for type integer: \"x\" [SQLSTATE 22P02]";
    assert_eq!(said(multiline).await, expected);
}

#[tokio::test]
async fn a_row_against_a_constraint_is_named() {
    let bench = Bench::new(
        "constraint",
        "CREATE TABLE t (id integer PRIMARY KEY, text text NOT NULL,
                         CONSTRAINT \"x, line 9\" CHECK (text <> 'bad'));
         CREATE TABLE later (id integer UNIQUE DEFERRABLE INITIALLY DEFERRED, text text)",
    );
    let mut session = bench.session().await;
    let options = LoadOptions::default();
    for (csv, expected) in [
        (
            &b"id,text\n1,a\n2,b\n1,c\n"[..],
            "t.csv: the server refuses record 3, byte 16 for public.t: duplicate key value violates unique constraint \
             \"t_pkey\" (Key (id)=(1) already exists.) [SQLSTATE 23505]",
        ),
        (
            b"id,text\n1,a\n2,bad\n",
            "t.csv: the server refuses record 2, byte 12 for public.t: new row for relation \"t\" violates check \
             constraint \"x, line 9\" (Failing row contains (2, bad).) [SQLSTATE 23514]",
        ),
        (
            b"id,text\n1,\n",
            "t.csv: the server refuses record 1, byte 8 for public.t: null value in column \"text\" of relation \"t\" \
             violates not-null constraint (Failing row contains (1, null).) [SQLSTATE 23502]",
        ),
    ] {
        let error = load_t(&mut session, csv, &options).await.unwrap_err();
        assert_eq!(chain(&error), expected);
        bench.psql("DELETE FROM bulk.load");
    }
    // The server has no line for what it checks at the end.
    let csv = b"id,text\n1,a\n2,b\n1,c\n";
    let error =
        load(from_mut(&mut session), &table("later"), &file("l.csv", csv), whole(csv), &options).await.unwrap_err();
    assert_eq!(
        chain(&error),
        "l.csv: the server refuses one of the records 1 to 3, from byte 8 on for public.later: duplicate key value \
         violates unique constraint \"later_id_key\" (Key (id)=(1) already exists.) [SQLSTATE 23505]"
    );
    assert_eq!(bench.psql("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM later)"), "0|0");
}

#[tokio::test]
async fn bytes_that_are_no_text_are_named() {
    assert_eq!(
        said(b"id,text\n1,a\n2,x\0y\n").await,
        "t.csv: record 2, byte 15, column \"text\": a NUL byte, which text in PostgreSQL cannot hold"
    );
    assert_eq!(said(b"id,text\n1,a\n2,caf\xe9\n").await, "t.csv: record 2, byte 17, column \"text\": invalid UTF-8");
    assert_eq!(said(b"id,\xff\n1,a\n").await, "t.csv: header, byte 3: invalid UTF-8");
    // Beyond the first megabyte, and beyond what was committed.
    let mut csv = numbered(20_000);
    csv[HEADER + 17_000 * LINE + 30] = 0xff;
    let mut options = LoadOptions::default();
    options.chunk_size = (1000 * LINE) as u64;
    let (error, rows) = refused(&csv, &options).await;
    assert_eq!(
        chain(&error),
        format!("t.csv: record 17001, byte {}, column \"text\": invalid UTF-8", HEADER + 17_000 * LINE + 30)
    );
    assert_eq!(rows, "17000");
}

#[tokio::test]
async fn a_record_of_another_width_is_named() {
    let mut csv = numbered(20_000);
    csv[HEADER + 17_000 * LINE + 30] = b',';
    let (error, rows) = refused(&csv, &LoadOptions::default()).await;
    let at = HEADER + 17_000 * LINE;
    assert_eq!(chain(&error), format!("t.csv: record 17001, byte {at}: 3 fields where the header has 2"));
    assert_eq!(rows, "0");
}

#[tokio::test]
async fn a_file_without_a_byte_is_told_as_such() {
    let (error, _) = refused(b"", &LoadOptions::default()).await;
    assert_eq!(
        chain(&error),
        "t.csv: there is nothing in it, not even a header; it may be a placeholder, or its writer failed: get it anew, \
         or leave it out"
    );
    assert!(matches!(error, Error::Empty { .. }));
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_named() {
    let bench = Bench::new("unreadable", "CREATE TABLE t (id integer)");
    let mut session = bench.session().await;
    let open = || std::fs::File::open("/nowhere/t.csv").map(|file| Box::new(Plain(file)) as support::Input);
    let error = load(from_mut(&mut session), &table("t"), &file("t.csv", b""), open, &LoadOptions::default())
        .await
        .unwrap_err();
    assert_eq!(chain(&error), "cannot read t.csv: No such file or directory (os error 2)");
    assert!(!error.is_remote());
}

#[tokio::test]
async fn a_file_cut_off_inside_quotes_is_not_taken_for_whole() {
    let mut csv = b"id,text\n".to_vec();
    for id in 0..30_000 {
        csv.extend_from_slice(format!("\"{id}\",\"say \"\"{id:030}\"\"\"\n").as_bytes());
    }
    csv.truncate(csv.len() - 10);
    let (error, rows) = refused(&csv, &LoadOptions::default()).await;
    let start = csv.len() - 39;
    assert_eq!(
        chain(&error),
        format!(
            "t.csv: record 30000, byte {start}, column \"text\": the input ends inside quotes (read as dialect B: \
             quotes \", doubled inside, every value quoted): it is cut off, or of another dialect"
        )
    );
    assert_eq!(rows, "0");
}

#[tokio::test]
async fn a_wrong_dialect_by_name_is_refused_with_the_evidence() {
    let mut options = LoadOptions::default();
    options.dialect = Some(Dialect::D);
    let (error, rows) = refused(b"id,text\n\"1\",\"say \"\"hi\"\"\"\n", &options).await;
    assert_eq!(
        chain(&error),
        "t.csv: it was to be read as dialect D: quotes \", escaped by a backslash, every value quoted and is B: quotes \
         \", doubled inside, every value quoted (1 record, 2 quoted values, 2 doubled quotes; not D (record 1, byte 18: \
         text follows a closing quote)); leave --dialect out"
    );
    assert_eq!(rows, "0");
}

#[tokio::test]
async fn a_record_beyond_the_limit_is_refused_and_not_held_in_memory() {
    let mut options = LoadOptions::default();
    options.max_record = 2 << 20;
    // A quote that is never closed, in an input without an end.
    let mut csv = b"id,text\n".to_vec();
    for id in 0..30_000 {
        csv.extend_from_slice(format!("{id},{:060}\n", id).as_bytes());
    }
    let start = csv.len();
    csv.extend_from_slice(b"30000,\"");
    let bench = Bench::new("limit", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    let identity = file("t.csv", &csv);
    let read = Arc::new(AtomicU64::new(0));
    let count = read.clone();
    let open = move || {
        let endless = Counted { count, inner: io::repeat(b'x') };
        Ok(Box::new(Plain(io::Cursor::new(csv).chain(endless))) as support::Input)
    };
    let error = load(from_mut(&mut session), &table("t"), &identity, open, &options).await.unwrap_err();
    assert_eq!(
        chain(&error),
        format!(
            "t.csv: record 30001, byte {start}: longer than 2097152 bytes (read as dialect A: quotes \", doubled inside, \
             values quoted where needed): a quote is not closed, or the dialect is another, or the limit is too low (--max-record)"
        )
    );
    let Error::Record { source, .. } = error else { panic!("{error}") };
    assert!(matches!(source.kind, RecordErrorKind::TooLong { limit: 2_097_152 }));
    // No more than the limit and a buffer's worth was taken.
    let read = read.load(Ordering::SeqCst);
    assert!((1 << 20..4 << 20).contains(&read), "{read}");
}

#[tokio::test]
async fn a_first_line_without_an_end_is_no_header() {
    let (error, _) = refused("x".repeat(3 << 20).as_bytes(), &LoadOptions::default()).await;
    assert_eq!(chain(&error), "t.csv: its first line, the columns' names, is longer than 1048576 bytes: it is no CSV");
    let (error, _) = refused(",".repeat(3 << 20).as_bytes(), &LoadOptions::default()).await;
    assert!(
        chain(&error).starts_with("t.csv: no dialect reads the file: A (record 0, byte 65536: more than 65536 fields)"),
        "{}",
        chain(&error)
    );
}

#[tokio::test]
async fn a_line_of_delimiters_does_not_fill_the_memory() {
    let mut csv = numbered(20_000);
    let start = csv.len();
    csv.extend_from_slice(",".repeat(1 << 20).as_bytes());
    let (error, _) = refused(&csv, &LoadOptions::default()).await;
    assert_eq!(
        chain(&error),
        format!(
            "t.csv: record 20001, byte {}: more than 65536 fields (read as dialect A: quotes \", doubled inside, values \
             quoted where needed): it is no CSV, or of another dialect",
            start + 65_536
        )
    );
}

/// A password, and what is left of one that was not written as a URL wants it.
#[tokio::test]
async fn a_password_is_in_no_message() {
    let bench = Bench::new("secrets", "CREATE TABLE t (id integer)");
    let config: tokio_postgres::Config = bench.database.url().parse().unwrap();
    let tokio_postgres::config::Host::Tcp(host) = &config.get_hosts()[0] else { panic!("not over TCP") };
    let (port, name) = (config.get_ports()[0], bench.database.name());
    let role = format!("role_{name}");
    bench.psql(&format!("CREATE ROLE \"{role}\" LOGIN PASSWORD 'hunter2secret'"));

    let url = format!("postgres://{role}:hunter2secret@{host}:{port}/{name}");
    let mut session = Session::connect(&url).await.unwrap();
    assert_eq!(session.target(), format!("database \"{name}\" at {host}:{port}"));
    let mut said = vec![format!("{session:?}"), session.target().to_owned()];
    let denied = bulk_pg::prepare_ledger(&session).await.unwrap_err();
    assert!(denied.is_denied(), "{}", chain(&denied));
    said.extend([chain(&denied), format!("{denied:?}")]);
    let failed = load_t(&mut session, b"id\n1\n", &LoadOptions::default()).await.unwrap_err();
    said.extend([chain(&failed), format!("{failed:?}")]);
    drop(session);

    for url in [
        format!("postgres://{role}:hunter2secret@{host}:1/{name}"),
        format!("postgres://{role}:hunter2secret@{host}:{port}/absent"),
        format!("postgres://{role}:hunter2secret@nowhere.invalid/{name}"),
        format!("host={host} port=1 user={role} password=hunter2secret"),
        // Not written as a URL wants them.
        format!("postgres://{role}:hunter2@secret@{host}/{name}"),
        format!("postgres://{role}:hunter2@a?secret=b@{host}/{name}"),
        format!("postgres://{role}:hunter2/secret@{host}:x/{name}"),
        format!("postgres://{role}:hunter2secret"),
        format!("postgres://{role}@{host}/{name}?hunter2secret"),
        format!("postgres://{role}@{host}/{name}?hunter2=secret"),
        format!("user={role} password=hunter2 secret"),
        format!("user={role} password=hunter2 secret=1"),
        format!("user={role} password='hunter2secret"),
        "hunter2secret".to_owned(),
    ] {
        let error = Session::connect(&url).await.unwrap_err();
        assert!(matches!(error, Error::Url { .. } | Error::Connect { .. }));
        said.extend([chain(&error), format!("{error:?}")]);
    }
    for text in &said {
        assert!(!text.contains("hunter2") && !text.contains("secret@") && !text.contains("secret\""), "{text}");
        assert!(!text.contains("secret="), "{text}");
    }
    bench.psql(&format!("DROP ROLE \"{role}\""));
}

#[tokio::test]
async fn a_url_that_cannot_be_read_says_what_to_do() {
    for (url, expected) in [
        (
            "postgres://me:pass@word@host/db",
            "the database URL cannot be used: it has more than one @; write one that is a part of the user, password or \
             an option as %40",
        ),
        ("postgres://me@host:port/db", "the database URL cannot be used: the value of its option `port` is not valid"),
        (
            "postgres://me@host/db?sslcert",
            "the database URL cannot be used: it is not of the form \
             postgres://user:password@host:port/database?option=value",
        ),
        (
            "db",
            "the database URL cannot be used: it is neither postgres://user:password@host:port/database nor host=... \
             port=... dbname=... user=...",
        ),
    ] {
        assert_eq!(chain(&Session::connect(url).await.unwrap_err()), expected);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_by_its_address() {
    let error = Session::connect("postgres://me@127.0.0.1:1/db").await.unwrap_err();
    assert_eq!(error.to_string(), "cannot connect to database \"db\" at 127.0.0.1:1");
    assert!(error.is_remote() && !error.is_denied());
}
