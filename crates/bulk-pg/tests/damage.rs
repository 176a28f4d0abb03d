//! Input that turns out to be damaged when rows of it are committed already.

mod support;

use std::io::{self, Read};
use std::slice::from_mut;

use bulk_pg::{Checksum, Error, LoadOptions, Plain, load, restart};
use support::{Bench, HEADER, Input, LINE, file, load_t, numbered, table, whole};

const CHUNK: usize = 1000;

fn options() -> LoadOptions {
    let mut options = LoadOptions::default();
    options.chunk_size = (CHUNK * LINE) as u64;
    options
}

/// An input whose checksum, behind its first bytes, is wrong.
fn damaged(content: &[u8]) -> impl FnOnce() -> io::Result<Input> + Send + 'static {
    struct Checksum;
    impl Read for Checksum {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum is wrong"))
        }
    }
    let content = content.to_vec();
    move || Ok(Box::new(Plain(io::Cursor::new(content).chain(Checksum))) as Input)
}

#[tokio::test]
async fn rows_of_a_damaged_copy_are_never_kept_for_good_ones() {
    let bench = Bench::new("damage", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    let csv = numbered(20_000);
    let identity = file("t.csv", &csv);
    let error = load(from_mut(&mut session), &table("t"), &identity, damaged(&csv), &options()).await.unwrap_err();
    assert!(matches!(error, Error::Read { .. }), "{error}");

    let error = load_t(&mut session, &csv, &options()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "table public.t holds rows of a damaged copy of t.csv; load it anew with --restart, which \
         deletes all rows of the table"
    );
    restart(&mut session, &[table("t")]).await.unwrap();
    assert_eq!(load_t(&mut session, &csv, &options()).await.unwrap().sent, 20_000);
    assert_eq!(bench.psql("SELECT count(*), count(DISTINCT id) FROM t"), "20000|20000");
}

/// Who removes the damaged file must not find its rows unmarked after a crash of the server.
#[tokio::test]
async fn the_note_of_damage_waits_for_the_disk() {
    let bench = Bench::new("note", "CREATE TABLE t (id integer, text text); CREATE TABLE seen (setting text)");
    let mut session = bench.session().await;
    bench.psql(
        "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO public.seen VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$;
         CREATE TRIGGER see BEFORE UPDATE OF damage ON bulk.load FOR EACH ROW EXECUTE FUNCTION see()",
    );
    let csv = numbered(20_000);
    load(from_mut(&mut session), &table("t"), &file("t.csv", &csv), damaged(&csv), &options()).await.unwrap_err();
    assert_eq!(bench.psql("SELECT setting FROM seen"), "on");
    let row = session.client().query_one("SHOW synchronous_commit", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "off");
}

#[tokio::test]
async fn of_an_input_that_checks_first_the_committed_rows_are_kept() {
    let bench = Bench::new("checked", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    let csv = numbered(20_000);
    let mut checked = options();
    checked.checksum = Checksum::Precedes;
    let cut = &csv[..HEADER + 15_500 * LINE];
    load(from_mut(&mut session), &table("t"), &file("t.csv", &csv), damaged(cut), &checked).await.unwrap_err();
    assert_eq!(load_t(&mut session, &csv, &checked).await.unwrap().sent, 5000);
    assert_eq!(bench.psql("SELECT count(*), count(DISTINCT id) FROM t"), "20000|20000");
}

#[tokio::test]
async fn a_bad_record_of_a_damaged_file_is_blamed_on_the_damage() {
    let bench = Bench::new("blame", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    let mut csv = numbered(20_000);
    // Another comma, which makes a third field.
    csv[HEADER + 18_000 * LINE + 60] = b',';
    let identity = file("t.csv", &csv);
    let mut follows = options();
    follows.checksum = Checksum::Follows;
    let error = load(from_mut(&mut session), &table("t"), &identity, damaged(&csv), &follows).await.unwrap_err();
    assert!(matches!(&error, Error::Read { source, .. } if source.kind() == io::ErrorKind::InvalidData), "{error}");
    restart(&mut session, &[table("t")]).await.unwrap();
    // Where the checksum is right, it is the record.
    let error = load_t(&mut session, &csv, &follows).await.unwrap_err();
    assert!(matches!(error, Error::Record { .. }), "{error}");
}

#[tokio::test]
async fn so_is_what_the_server_refuses() {
    let bench = Bench::new("refused", "CREATE TABLE t (id integer CHECK (id <> 3500), text text)");
    let mut sessions = [bench.session().await, bench.session().await];
    let csv = numbered(20_000);
    let mut follows = options();
    follows.checksum = Checksum::Follows;
    for max_rejects in [0, 1] {
        // More than may be left out.
        follows.max_rejects = max_rejects;
        if max_rejects > 0 {
            bench.psql("ALTER TABLE t ADD CHECK (id <> 3600)");
        }
        let error = load(&mut sessions, &table("t"), &file("t.csv", &csv), damaged(&csv), &follows).await.unwrap_err();
        assert!(matches!(&error, Error::Read { source, .. } if source.kind() == io::ErrorKind::InvalidData), "{error}");
        assert_eq!(bench.psql("SELECT count(*) FROM bulk.load WHERE damage IS NOT NULL"), "1");
        restart(&mut sessions[0], &[table("t")]).await.unwrap();
        // Where the checksum is right, it is the row.
        let error = load(&mut sessions, &table("t"), &file("t.csv", &csv), whole(&csv), &follows).await.unwrap_err();
        assert!(matches!(error, Error::Copy { .. } | Error::Rejects { .. }), "{error}");
        restart(&mut sessions[0], &[table("t")]).await.unwrap();
    }
}
