//! A table becomes what a newer file says: exactly those rows change that differ, and readers see one or the other.

mod support;

use std::io;
use std::slice::from_mut;

use bulk_pg::{
    Dialect, Error, FileIdentity, InputFormat, LoadOptions, Merged, Refreshed, Session, count_rows, find_loaded,
    find_refreshed, is_staged, load, merge_staged, refresh, restart, write_rejects,
};
use bulk_testkit::postgres::{DatabaseUrl, Options, Server};
use support::{Bench, Input, Log, broken_after, chain, load_t, numbered, table, whole};

fn version(name: &str, csv: &[u8]) -> FileIdentity {
    FileIdentity::new("t.csv", Some(name.to_owned()), csv.len() as u64)
}

fn options() -> LoadOptions {
    let mut options = LoadOptions::default();
    options.dialect = Some(Dialect::CSV);
    options
}

async fn refresh_t(session: &mut Session, name: &str, csv: &str) -> Result<Refreshed, Error> {
    refresh_with(session, name, csv, &options()).await
}

async fn refresh_with(session: &mut Session, name: &str, csv: &str, options: &LoadOptions) -> Result<Refreshed, Error> {
    let csv = csv.as_bytes();
    refresh(from_mut(session), &table("t"), &version(name, csv), whole(csv), options).await
}

/// Added, changed, removed, unchanged.
fn counts(merged: &Merged) -> [u64; 4] {
    [merged.added, merged.changed, merged.removed, merged.unchanged]
}

fn unread() -> io::Result<Input> {
    unreachable!("it is not to be read")
}

/// That nothing is left of a staging table.
fn assert_nothing_staged(bench: &Bench) {
    let left = "SELECT (SELECT count(*) FROM bulk.refresh),
                       (SELECT count(*) FROM pg_class WHERE relname ~ '^refresh_[0-9]'),
                       (SELECT count(*) FROM bulk.load WHERE target_schema = 'bulk')";
    assert_eq!(bench.psql(left), "0|0|0");
}

const PEOPLE: &str = "
    CREATE TABLE t (
        id serial PRIMARY KEY, name text NOT NULL, born date, score numeric,
        twice numeric GENERATED ALWAYS AS (score * 2) STORED, note text DEFAULT 'new', CHECK (score < 1000));
    CREATE INDEX ON t (name);
    CREATE TABLE audit (what text, id integer);
    CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO audit VALUES (TG_OP, coalesce(NEW.id, OLD.id)); RETURN NULL; END $$;
    CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION audit();";

const OLD: &str = "id,name,born,score\n1,ann,2000-01-01,1\n2,bob,,2.5\n3,cid,1999-12-31,\n4,dan,,4\n";
const NEW: &str = "score,id,name,born\n1,1,ann,2000-01-01\n2.50,2,bob,\n4,4,\"dan, the man\",\n7,9,eve,2020-02-29\n";

#[tokio::test]
async fn exactly_those_rows_change_that_differ() {
    let bench = Bench::new("refresh", PEOPLE);
    let mut session = bench.session().await;
    let first = refresh_t(&mut session, "v1", OLD).await.unwrap();
    assert_eq!((counts(&first.merged), first.loaded.records), ([4, 0, 0, 0], 4));
    bench.psql("UPDATE t SET note = 'kept ' || id; TRUNCATE audit; ANALYZE t");
    let untouched = bench.psql("SELECT ctid, xmin FROM t WHERE id = 1");

    let log = Log::default();
    let mut observed = options();
    log.observe(&mut observed);
    let second = refresh_with(&mut session, "v2", NEW, &observed).await.unwrap();
    assert_eq!((counts(&second.merged), second.merged.table), ([1, 2, 1, 1], table("t")));
    assert_eq!((second.loaded.records, second.loaded.sent), (4, 4));
    assert_eq!(
        bench.psql("SELECT * FROM t ORDER BY id"),
        "1|ann|2000-01-01|1|2|kept 1\n2|bob||2.50|5.00|kept 2\n4|dan, the man||4|8|kept 4\n9|eve|2020-02-29|7|14|new"
    );
    assert_eq!(bench.psql("SELECT ctid, xmin FROM t WHERE id = 1"), untouched);
    assert_eq!(bench.psql("SELECT * FROM audit ORDER BY id"), "UPDATE|2\nDELETE|3\nUPDATE|4\nINSERT|9");
    assert_eq!(bench.psql("SELECT nextval('t_id_seq')"), "10");
    assert_nothing_staged(&bench);
    assert_eq!(
        bench.psql(
            "SELECT target_oid = 't'::regclass, file_etag, records, (SELECT count(*) FROM bulk.chunk) FROM bulk.load"
        ),
        "t|v2|4|1"
    );
    assert!(count_rows(&session, &table("t")).await.unwrap().matches());
    let lines = log.lines();
    assert!(lines.iter().all(|line| !line.contains("refresh_")), "{lines:?}");
    assert!(lines[0].starts_with("t.csv into public.t: A "), "{lines:?}");
    assert!(lines.last().unwrap().starts_with("Merged { merged: Merged { table: "), "{lines:?}");

    // It is what it should be, for this call and for others.
    let new = version("v2", NEW.as_bytes());
    assert_eq!(find_refreshed(&session, &table("t"), &new, &LoadOptions::default()).await.unwrap(), Some(4));
    assert_eq!(
        find_refreshed(&session, &table("t"), &version("v1", OLD.as_bytes()), &LoadOptions::default()).await.unwrap(),
        None
    );
    assert_eq!(find_loaded(&session, &table("t"), &new, &options()).await.unwrap(), Some(4));
    let again = refresh(from_mut(&mut session), &table("t"), &new, unread, &options()).await.unwrap();
    assert_eq!((counts(&again.merged), again.loaded.records, again.loaded.sent), ([0, 0, 0, 4], 4, 0));
}

#[tokio::test]
async fn rows_of_any_origin_make_way() {
    for rows in ["INSERT INTO t SELECT i, 'theirs' FROM generate_series(2, 7) i", ""] {
        let bench = Bench::new("origin", "CREATE TABLE t (id bigint PRIMARY KEY, name text)");
        let mut session = bench.session().await;
        match rows {
            "" => drop(load_t(&mut session, b"id,name\n2,a\n5,b\n", &options()).await.unwrap()),
            rows => drop(bench.psql(rows)),
        }
        let refreshed = refresh_t(&mut session, "v2", "id,name\n1,x\n2,y\n").await.unwrap();
        assert_eq!(counts(&refreshed.merged), if rows.is_empty() { [1, 1, 1, 0] } else { [1, 1, 5, 0] });
        assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), "1|x\n2|y");
        assert_eq!(bench.psql("SELECT count(*) FROM bulk.load"), "1");
        // And a file of nothing empties it.
        let refreshed = refresh_t(&mut session, "v3", "id,name\n").await.unwrap();
        assert_eq!(counts(&refreshed.merged), [0, 0, 2, 0]);
        assert_eq!(bench.psql("SELECT count(*) FROM t"), "0");
    }
}

/// What the server's `=` takes for equal, or has no `=` for.
#[tokio::test]
async fn values_become_what_a_fresh_load_would_have_given() {
    let columns = "k,n,f,i,j,b,p,x,a,z";
    let ddl = "CREATE TABLE t (k numeric PRIMARY KEY, n numeric, f float8, i interval, j json, b jsonb, p point, x xml,
                               a text[], z timestamptz)";
    let old = "1,1.0,0,1 day,\"{\"\"a\"\": 1}\",\"{\"\"a\"\": 1}\",\"(1,2)\",<a/>,\"{a,b}\",2020-01-01 00:00:00+00\n\
               2,1,NaN,1 day,[],[],\"(0,0)\",<b/>,{},infinity\n";
    let new = "1.0,1.00,-0,24:00:00,\"{\"\"a\"\":1}\",\"{\"\"a\"\":1}\",\"(1,2)\",<a />,\"{a,NULL}\",2020-01-01 01:00:00+01\n\
               2,1,NaN,1 day,[],[],\"(0,0)\",<b/>,{},infinity\n";
    for with_key in [true, false] {
        let bench = Bench::new("values", ddl);
        if !with_key {
            bench.psql("ALTER TABLE t DROP CONSTRAINT t_pkey");
        }
        let mut session = bench.session().await;
        refresh_t(&mut session, "v1", &format!("{columns}\n{old}")).await.unwrap();
        let refreshed = refresh_t(&mut session, "v2", &format!("{columns}\n{new}")).await.unwrap();
        assert_eq!(counts(&refreshed.merged), if with_key { [0, 1, 0, 1] } else { [1, 0, 1, 1] });
        let found = bench.psql("COPY (SELECT * FROM t ORDER BY k) TO STDOUT");
        bench.psql("TRUNCATE t, bulk.load CASCADE");
        let csv = format!("{columns}\n{new}");
        let (identity, input) = (version("v2", csv.as_bytes()), whole(csv.as_bytes()));
        let fresh = load(from_mut(&mut session), &table("t"), &identity, input, &options()).await.unwrap();
        assert_eq!(fresh.sent, 2);
        assert_eq!(found, bench.psql("COPY (SELECT * FROM t ORDER BY k) TO STDOUT"));
        // Each column of the first row but two is another one.
        assert!(
            found.starts_with("1.0\t1.00\t-0\t24:00:00\t{\"a\":1}\t{\"a\": 1}\t(1,2)\t<a />\t{a,NULL}\t"),
            "{found}"
        );
    }
}

#[tokio::test]
async fn without_a_key_each_row_is_there_as_often_as_in_the_file() {
    let bench = Bench::new("multiset", "CREATE TABLE t (a integer, b text UNIQUE, c text DEFAULT 'mine', d text)");
    bench.psql("ALTER TABLE t DROP CONSTRAINT t_b_key");
    let mut session = bench.session().await;
    refresh_t(&mut session, "v1", "a,b,d\n1,x,\n1,x,\n1,x,\n2,,\"\"\n2,,\"\"\n3,z,\n").await.unwrap();
    bench.psql("UPDATE t SET c = 'kept'");
    let refreshed = refresh_t(&mut session, "v2", "a,b,d\n1,x,\n2,,\"\"\n2,,\"\"\n2,,\"\"\n2,,\n,,\n").await.unwrap();
    assert_eq!(counts(&refreshed.merged), [3, 0, 3, 3]);
    assert_eq!(
        bench.psql("SELECT a, b, d IS NULL, c, count(*) FROM t GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"),
        "1|x|t|kept|1\n2||f|kept|2\n2||f|mine|1\n2||t|mine|1\n||t|mine|1"
    );
}

/// The key need not be the primary key, and is no key if the file lacks a column of it.
#[tokio::test]
async fn a_unique_index_of_the_file_will_do() {
    let ddl =
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, slug text NOT NULL, lang text NOT NULL,
                               maybe text UNIQUE, body text);
               CREATE UNIQUE INDEX ON t (lower(slug)); CREATE UNIQUE INDEX ON t (slug) WHERE lang = 'x';
               CREATE UNIQUE INDEX ON t (lang, slug) INCLUDE (body);";
    let bench = Bench::new("unique", ddl);
    let mut session = bench.session().await;
    refresh_t(&mut session, "v1", "slug,lang,body\na,en,1\nb,en,2\nc,de,3\n").await.unwrap();
    let ids = || bench.psql("SELECT slug, id FROM t WHERE slug IN ('b', 'c') ORDER BY slug");
    let (before, b) = (ids(), bench.psql("SELECT id FROM t WHERE slug = 'b'"));
    let refreshed = refresh_t(&mut session, "v2", "slug,lang,body\nc,de,3\nb,en,two\nd,en,4\n").await.unwrap();
    assert_eq!(counts(&refreshed.merged), [1, 1, 1, 1]);
    // The rows are the same ones, by what the file does not have.
    assert_eq!(ids(), before);
    assert_eq!(bench.psql("SELECT slug, body, id > 3 FROM t ORDER BY slug"), "b|two|f\nc|3|f\nd|4|t");
    // With the primary key in the file, numbers are taken from it, also where the server would give its own.
    let csv = format!("id,slug,lang,body\n{b},b,en,two\n70,e,en,5\n");
    let refreshed = refresh_t(&mut session, "v3", &csv).await.unwrap();
    assert_eq!(counts(&refreshed.merged), [1, 0, 2, 1]);
    assert_eq!(bench.psql("SELECT slug, id FROM t ORDER BY slug"), format!("b|{b}\ne|70"));
    assert_eq!(bench.psql("INSERT INTO t (slug, lang) VALUES ('f', 'en') RETURNING id"), "71");
    // By the other key, the number is what differs, which the server lets nobody update.
    bench.psql("ALTER TABLE t DROP CONSTRAINT t_pkey; DELETE FROM t WHERE id = 71");
    let refreshed = refresh_t(&mut session, "v4", &format!("id,slug,lang\n{b},b,en\n8,e,en\n")).await.unwrap();
    assert_eq!(counts(&refreshed.merged), [0, 1, 0, 1]);
    assert_eq!(bench.psql("SELECT slug, id, body FROM t ORDER BY slug"), format!("b|{b}|two\ne|8|5"));
}

#[tokio::test]
async fn two_records_of_one_key_are_named_or_left_out() {
    let csv = "id,name\n1,a\n2,b\n1,c\n3,d\n1,e\n2,f\n";
    let ddl = "CREATE TABLE t (id integer PRIMARY KEY, name text CHECK (name <> 'd'))";
    let bench = Bench::new("duplicates", ddl);
    bench.psql("INSERT INTO t VALUES (7, 'before')");
    let mut session = bench.session().await;
    let error = refresh_t(&mut session, "v1", &csv.replace("3,d", "3,x")).await.unwrap_err();
    assert_eq!(
        chain(&error),
        "t.csv: 3 records have a key (id) that another record before them has, such as 1 (3 times); 2 (2 times); \
         --max-rejects leaves them out"
    );
    assert_eq!(bench.psql("SELECT * FROM t"), "7|before");
    // A CHECK is one of the staging table's, too, so that the record can be told.
    let error = refresh_t(&mut session, "v2", csv).await.unwrap_err();
    assert!(matches!(&error, Error::Copy { first: 4, table: t, .. } if **t == table("t")), "{}", chain(&error));

    let mut tolerant = options();
    tolerant.max_rejects = 3;
    let error = refresh_with(&mut session, "v2", csv, &tolerant).await.unwrap_err();
    assert!(matches!(error, Error::Rejects { limit: 3, record: 6, .. }), "{}", chain(&error));
    assert_eq!(bench.psql("SELECT * FROM t"), "7|before");
    tolerant.max_rejects = 4;
    let refreshed = refresh_with(&mut session, "v2", csv, &tolerant).await.unwrap();
    assert_eq!((counts(&refreshed.merged), refreshed.loaded.rejected), ([2, 0, 1, 0], 4));
    assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), "1|a\n2|b");
    assert_eq!(
        bench.psql("SELECT record, sqlstate FROM bulk.reject ORDER BY record"),
        "3|23505\n4|23514\n5|23505\n6|23505"
    );
    let (mut raw, mut lines) = (Vec::new(), Vec::new());
    let file = version("v2", csv.as_bytes());
    assert_eq!(write_rejects(&session, &table("t"), &file, &mut raw, &mut lines).await.unwrap(), 4);
    assert_eq!(String::from_utf8(raw).unwrap(), "1,c\n3,d\n1,e\n2,f\n");
    assert!(count_rows(&session, &table("t")).await.unwrap().matches());
    assert_nothing_staged(&bench);
}

#[tokio::test]
async fn a_row_that_others_refer_to_stays_and_so_does_all_of_the_table() {
    let ddl = "CREATE TABLE t (id integer PRIMARY KEY, name text);
               CREATE TABLE child (id integer, t_id integer CONSTRAINT child_t REFERENCES t DEFERRABLE);
               INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'); INSERT INTO child VALUES (1, 2), (2, 3);";
    let bench = Bench::new("referred", ddl);
    let mut session = bench.session().await;
    let csv = "id,name\n1,z\n3,c\n4,d\n";
    let error = refresh_t(&mut session, "v2", csv).await.unwrap_err();
    let said = chain(&error);
    for part in ["\"child_t\"", "(Key (id)=(2) is still referenced from table \"child\".)", "[SQLSTATE 23503]"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), "1|a\n2|b\n3|c");
    let file = version("v2", csv.as_bytes());
    assert!(is_staged(&session, &table("t"), &file, &LoadOptions::default()).await.unwrap());
    // Once that is mended, it goes on with what is staged.
    bench.psql("DELETE FROM child WHERE t_id = 2");
    let refreshed = refresh(from_mut(&mut session), &table("t"), &file, unread, &options()).await.unwrap();
    assert_eq!((counts(&refreshed.merged), refreshed.loaded.sent), ([1, 1, 1, 1], 0));
    assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), "1|z\n3|c\n4|d");
    assert_nothing_staged(&bench);
}

#[tokio::test]
async fn a_table_may_refer_to_itself() {
    for deferrable in ["", " DEFERRABLE"] {
        let ddl = format!(
            "CREATE TABLE t (id integer PRIMARY KEY, parent integer REFERENCES t{deferrable}, slug text UNIQUE)"
        );
        let bench = Bench::new("self", &ddl);
        let mut session = bench.session().await;
        refresh_t(&mut session, "v1", "id,parent,slug\n1,,a\n2,1,b\n3,2,c\n4,4,d\n").await.unwrap();
        // What is kept comes to refer to what is new, new rows to each other, and what it referred to goes.
        let new = "id,parent,slug\n3,9,c\n8,9,e\n9,8,f\n4,3,d\n";
        let refreshed = refresh_t(&mut session, "v2", new).await.unwrap();
        assert_eq!(counts(&refreshed.merged), [2, 2, 2, 0]);
        assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), "3|9|c\n4|3|d\n8|9|e\n9|8|f");
    }
}

#[tokio::test]
async fn values_of_another_unique_column_may_be_exchanged() {
    let ddl = "CREATE TABLE t (id integer PRIMARY KEY, slug text UNIQUE, note text DEFAULT 'new', \"Other\" integer)";
    let old = "id,slug\n1,a\n2,b\n3,c\n4,d\n";
    // A circle, one that takes the place of a row that goes, and a new one in the place of one that changes.
    let new = "id,slug\n1,b\n2,a\n3,d\n5,c\n";
    let bench = Bench::new("exchange", ddl);
    let mut session = bench.session().await;
    refresh_t(&mut session, "v1", old).await.unwrap();
    bench.psql("UPDATE t SET note = 'kept', \"Other\" = id");
    let refreshed = refresh_t(&mut session, "v2", new).await.unwrap();
    assert_eq!(counts(&refreshed.merged), [1, 3, 1, 0]);
    assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), "1|b|kept|1\n2|a|kept|2\n3|d|kept|3\n5|c|new|");

    // No circle: no row need be deleted, so a foreign key does not matter.
    bench.psql("CREATE TABLE child (t_id integer REFERENCES t); INSERT INTO child VALUES (1), (2)");
    let refreshed = refresh_t(&mut session, "v3", "id,slug\n1,c\n2,a\n6,b\n").await.unwrap();
    assert_eq!(counts(&refreshed.merged), [1, 1, 2, 1]);
    // A circle: it does.
    let error = refresh_t(&mut session, "v4", "id,slug\n1,a\n2,c\n6,b\n").await.unwrap_err();
    assert!(
        chain(&error).contains("duplicate key value violates unique constraint \"t_slug_key\""),
        "{}",
        chain(&error)
    );
    assert_eq!(bench.psql("SELECT id, slug FROM t ORDER BY id"), "1|c\n2|a\n6|b");
    bench.psql("ALTER TABLE t DROP CONSTRAINT t_slug_key, ADD UNIQUE (slug) DEFERRABLE");
    let refreshed = refresh_t(&mut session, "v4", "id,slug\n1,a\n2,c\n6,b\n").await.unwrap();
    assert_eq!(counts(&refreshed.merged), [0, 2, 0, 1]);
    assert_eq!(bench.psql("SELECT id, slug FROM t ORDER BY id"), "1|a\n2|c\n6|b");

    // Two rows of the file that exclude each other in the end.
    let error = refresh_t(&mut session, "v5", "id,slug\n1,a\n2,a\n").await.unwrap_err();
    assert!(chain(&error).contains("(Key (slug)=(a) already exists.)"), "{}", chain(&error));
    assert_eq!(bench.psql("SELECT id, slug FROM t ORDER BY id"), "1|a\n2|c\n6|b");
}

/// Stages `csv` for a table of its name.
async fn stage(session: &mut Session, name: &str, csv: &str) {
    let mut staging = options();
    staging.stage = true;
    let file = FileIdentity::new(name, Some("v2".to_owned()), csv.len() as u64);
    load(from_mut(session), &table(name), &file, whole(csv.as_bytes()), &staging).await.unwrap();
}

#[tokio::test]
async fn tables_that_refer_to_each_other_change_together() {
    let ddl = "CREATE TABLE court (id text PRIMARY KEY);
               CREATE TABLE docket (id integer PRIMARY KEY, court text REFERENCES court, entry integer);
               CREATE TABLE entry (id integer PRIMARY KEY, docket integer REFERENCES docket);
               ALTER TABLE docket ADD FOREIGN KEY (entry) REFERENCES entry DEFERRABLE;
               CREATE TABLE apart (id integer PRIMARY KEY);
               INSERT INTO court VALUES ('a'), ('b'); INSERT INTO docket VALUES (1, 'a', NULL), (2, 'b', NULL);
               INSERT INTO entry VALUES (1, 1), (2, 2); UPDATE docket SET entry = id;";
    let bench = Bench::new("together", ddl);
    let mut session = bench.session().await;
    // All that is old goes but for one docket, which moves to a new court.
    stage(&mut session, "entry", "id,docket\n3,3\n4,1\n").await;
    stage(&mut session, "docket", "id,court,entry\n1,c,4\n3,c,3\n").await;
    stage(&mut session, "court", "id\nc\n").await;
    stage(&mut session, "apart", "id\n5\n").await;
    // Nothing of it is to be seen yet.
    assert_eq!(bench.psql("SELECT (SELECT count(*) FROM apart), (SELECT string_agg(id, '') FROM court)"), "0|ab");
    let tables = ["entry", "apart", "docket", "court"].map(table);
    let merged = merge_staged(&mut session, &tables, &options()).await.unwrap();
    let found: Vec<_> = merged.iter().map(|merged| (merged.table.name.as_str(), counts(merged))).collect();
    assert_eq!(
        found,
        [("court", [1, 0, 2, 0]), ("docket", [1, 1, 1, 0]), ("entry", [2, 0, 2, 0]), ("apart", [1, 0, 0, 0])]
    );
    assert_eq!(
        bench.psql("SELECT * FROM court; SELECT * FROM docket ORDER BY id; SELECT * FROM entry ORDER BY id"),
        "c\n1|c|4\n3|c|3\n3|3\n4|1"
    );
    assert_nothing_staged(&bench);
    let error = merge_staged(&mut session, &tables[..1], &options()).await.unwrap_err();
    assert!(matches!(&error, Error::Occupied { table: t, .. } if *t == tables[0]), "{}", chain(&error));
}

#[tokio::test]
async fn an_interrupted_refresh_goes_on_and_another_version_begins_anew() {
    let rows = 20_000;
    let bench = Bench::new(
        "interrupted",
        "CREATE TABLE t (id integer PRIMARY KEY, text text); INSERT INTO t VALUES (0, 'old')",
    );
    let mut session = bench.session().await;
    let csv = numbered(rows);
    let mut each = options();
    each.chunk_size = 120_000;
    let target = table("t");
    let (one, two) = (version("v1", &csv), version("v2", &csv));
    for (file, seen) in [(&one, 0), (&two, 0), (&two, 12_000)] {
        let log = Log::default();
        log.observe(&mut each);
        let error = refresh(from_mut(&mut session), &target, file, broken_after(&csv, 1_500_000), &each).await;
        assert!(matches!(error, Err(Error::Read { .. })), "{error:?}");
        assert!(log.lines()[0].ends_with(&format!("behind {seen}")), "{:?}", log.lines());
        assert_eq!(bench.psql("SELECT * FROM t"), "0|old");
        assert_eq!(bench.psql("SELECT count(*) FROM bulk.load"), "1");
        assert!(!is_staged(&session, &target, file, &LoadOptions::default()).await.unwrap());
    }
    let refreshed = refresh(from_mut(&mut session), &target, &two, whole(&csv), &each).await.unwrap();
    assert_eq!((counts(&refreshed.merged), refreshed.loaded.sent), ([20_000, 0, 1, 0], 8000));
    assert_eq!(bench.psql("SELECT count(*), sum(id) FROM t"), "20000|200010000");
    assert_nothing_staged(&bench);
}

#[tokio::test]
async fn a_file_that_was_read_in_another_way_is_read_again() {
    let bench = Bench::new("reading", "CREATE TABLE t (id integer PRIMARY KEY, a integer, b integer)");
    let mut session = bench.session().await;
    let target = table("t");
    let copy = b"1\t2\t3\n4\t5\t6\n";
    let file = version("v1", copy);
    let named = |names: [&str; 3]| {
        let mut named = LoadOptions::default();
        (named.input_format, named.header) = (InputFormat::CopyText, Some(names.map(str::to_owned).to_vec()));
        named
    };
    let (wrong, right) = (named(["id", "a", "b"]), named(["id", "b", "a"]));
    load(from_mut(&mut session), &target, &file, whole(copy), &wrong).await.unwrap();
    assert_eq!(find_refreshed(&session, &target, &file, &wrong).await.unwrap(), Some(2));
    assert_eq!(find_refreshed(&session, &target, &file, &right).await.unwrap(), None);
    let refreshed = refresh(from_mut(&mut session), &target, &file, whole(copy), &right).await.unwrap();
    assert_eq!((counts(&refreshed.merged), refreshed.loaded.sent), ([0, 2, 0, 0], 2));
    assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), "1|3|2\n4|6|5");

    // The same of what is staged whole.
    for (header, is_staged_right) in [(&wrong, false), (&right, true)] {
        let mut staging = header.clone();
        staging.stage = true;
        let loaded = load(from_mut(&mut session), &target, &file, whole(copy), &staging).await.unwrap();
        assert_eq!(loaded.sent, 2);
        assert_eq!(is_staged(&session, &target, &file, &wrong).await.unwrap(), !is_staged_right);
        assert_eq!(is_staged(&session, &target, &file, &right).await.unwrap(), is_staged_right);
    }
    let merged = merge_staged(&mut session, std::slice::from_ref(&target), &right).await.unwrap();
    assert_eq!(counts(&merged[0]), [0, 0, 0, 2]);
    assert_nothing_staged(&bench);
}

#[tokio::test]
async fn what_was_staged_in_another_way_before_a_failure_is_staged_anew() {
    let bench = Bench::new("restaged", "CREATE TABLE t (id text PRIMARY KEY, text text)");
    let mut session = bench.session().await;
    let target = table("t");
    let mut csv = Vec::new();
    for id in 1..20_000 {
        csv.extend_from_slice(format!("\"{id:08}\",\"{:x<106}\"\n", "y").as_bytes());
    }
    csv.extend_from_slice(b"\"00020000\",\"\\\\server\"\n");
    let file = version("v1", &csv);
    let read = |names: [&str; 2], dialect| {
        let mut options = LoadOptions::default();
        (options.header, options.dialect) = (Some(names.map(str::to_owned).to_vec()), Some(dialect));
        options.chunk_size = 120_000;
        options
    };
    // The names are mended first, and then the dialect, as which the last record reads differently.
    let (names, dialect) = (read(["text", "id"], Dialect::B), read(["id", "text"], Dialect::B));
    let mut right = read(["id", "text"], Dialect::D);
    for wrong in [&names, &dialect] {
        let mut wrong = wrong.clone();
        let log = Log::default();
        log.observe(&mut wrong);
        let open = broken_after(&csv, 2_000_000);
        let error = refresh(from_mut(&mut session), &target, &file, open, &wrong).await.unwrap_err();
        assert!(matches!(error, Error::Read { .. }), "{}", chain(&error));
        assert!(log.lines()[0].ends_with("behind 0"), "{:?}", log.lines());
    }
    // A dialect that reads alike goes on with what is there.
    let mut same = read(["id", "text"], Dialect::A);
    let log = Log::default();
    log.observe(&mut same);
    let open = broken_after(&csv, 2_000_000);
    refresh(from_mut(&mut session), &target, &file, open, &same).await.unwrap_err();
    assert!(!log.lines()[0].ends_with("behind 0"), "{:?}", log.lines());

    let log = Log::default();
    log.observe(&mut right);
    let refreshed = refresh(from_mut(&mut session), &target, &file, whole(&csv), &right).await.unwrap();
    assert!(log.lines()[0].ends_with("behind 0"), "{:?}", log.lines());
    assert_eq!((counts(&refreshed.merged), refreshed.loaded.sent), ([20_000, 0, 0, 0], 20_000));
    assert_eq!(bench.psql("SELECT count(*), min(id), min(text) FROM t"), "20000|00000001|\\server");
    assert_nothing_staged(&bench);
}

#[tokio::test]
async fn a_restart_takes_what_an_interrupted_refresh_has_left() {
    let ddl = "CREATE TABLE t (id integer PRIMARY KEY, text text); INSERT INTO t VALUES (0, 'old');
               CREATE TABLE u (LIKE t)";
    let bench = Bench::new("restart", ddl);
    let mut session = bench.session().await;
    let csv = numbered(20_000);
    let mut each = options();
    each.chunk_size = 120_000;
    let open = broken_after(&csv, 1_500_000);
    refresh(from_mut(&mut session), &table("t"), &version("v1", &csv), open, &each).await.unwrap_err();
    stage(&mut session, "u", "id,text\n1,a\n").await;
    let lock = |function: &str| {
        format!(
            "SELECT pg_{function}(x'62756c6b'::integer, staging_oid::bigint::integer) IS NULL
             FROM bulk.refresh WHERE target_table = 't'"
        )
    };
    let other = bench.session().await;
    other.client().query_one(&lock("advisory_lock"), &[]).await.unwrap();
    let error = restart(&mut session, &[table("t")]).await.unwrap_err();
    assert_eq!(chain(&error), "table public.t is being loaded by another session; wait for it, or stop it");
    assert_eq!(bench.psql("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM bulk.load)"), "1|2");
    other.client().query_one(&lock("advisory_unlock"), &[]).await.unwrap();
    restart(&mut session, &[table("t")]).await.unwrap();
    assert_eq!(bench.psql("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM bulk.load)"), "0|1");
    // That of another table stays.
    assert_eq!(bench.psql("SELECT target_table, staging_oid IN (SELECT oid FROM pg_class) FROM bulk.refresh"), "u|t");
    restart(&mut session, &[table("u")]).await.unwrap();
    assert_nothing_staged(&bench);
}

#[tokio::test]
async fn a_table_that_is_altered_or_made_anew_is_staged_anew() {
    let bench = Bench::new("altered", "CREATE TABLE t (id integer PRIMARY KEY, text text)");
    let mut session = bench.session().await;
    let csv = "id,text\n1,a\n";
    stage(&mut session, "t", csv).await;
    bench.psql("ALTER TABLE t ALTER id TYPE bigint");
    let error = merge_staged(&mut session, &[table("t")], &options()).await.unwrap_err();
    assert!(matches!(error, Error::Occupied { .. }), "{}", chain(&error));
    let refreshed = refresh_t(&mut session, "v2", csv).await.unwrap();
    assert_eq!((counts(&refreshed.merged), refreshed.loaded.sent), ([1, 0, 0, 0], 1));
    stage(&mut session, "t", "id,text\n1,b\n").await;
    bench.psql("DROP TABLE t; CREATE TABLE t (id integer, text text)");
    let refreshed = refresh_t(&mut session, "v2", csv).await.unwrap();
    assert_eq!((counts(&refreshed.merged), refreshed.loaded.sent), ([1, 0, 0, 0], 1));
    assert_nothing_staged(&bench);
}

/// A merge that waits in the middle, for a trigger that wants what somebody holds.
const SLOW: &str = "
    CREATE TABLE t (id integer PRIMARY KEY, text text); INSERT INTO t VALUES (1, 'old'), (2, 'old');
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END $$;
    CREATE TRIGGER wait AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION wait();";
const SLOW_CSV: &str = "id,text\n2,new\n3,new\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_that_is_cut_off_leaves_all_as_it_was() {
    let bench = Bench::new("cut", SLOW);
    let holder = bench.session().await;
    holder.client().batch_execute("SELECT pg_advisory_lock(42)").await.unwrap();
    let file = version("v1", SLOW_CSV.as_bytes());
    let at_trigger = "wait_event = 'advisory' AND query LIKE '%INSERT%'";
    let target = table("t");
    let mut patient = options();
    patient.lock_timeout = std::time::Duration::from_secs(120);

    // By the loss of its connection.
    let mut session = bench.session().await;
    let pid = session.client().query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get::<_, i32>(0);
    let running = refresh(from_mut(&mut session), &target, &file, whole(SLOW_CSV.as_bytes()), &patient);
    let kill = async {
        bench.waits(at_trigger).await;
        bench.psql(&format!("SELECT pg_terminate_backend({pid})"));
    };
    let (ended, ()) = futures::join!(running, kill);
    assert!(ended.as_ref().is_err_and(Error::is_remote), "{ended:?}");
    assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), "1|old\n2|old");

    // By a drop: the session can be used at once, and nobody else waits.
    let mut session = bench.session().await;
    {
        let running = refresh(from_mut(&mut session), &target, &file, unread, &patient);
        let running = std::pin::pin!(running);
        let waits = std::pin::pin!(bench.waits(at_trigger));
        let futures::future::Either::Right(_) = futures::future::select(running, waits).await else {
            panic!("it did not wait")
        };
    }
    assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), "1|old\n2|old");
    holder.client().batch_execute("SELECT pg_advisory_unlock(42)").await.unwrap();
    let refreshed = refresh(from_mut(&mut session), &target, &file, unread, &patient).await.unwrap();
    assert_eq!(counts(&refreshed.merged), [1, 1, 1, 0]);
    assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), "2|new\n3|new");
    assert_nothing_staged(&bench);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_go_on_and_writers_wait() {
    let bench = Bench::new("readers", SLOW);
    let holder = bench.session().await;
    holder.client().batch_execute("SELECT pg_advisory_lock(42)").await.unwrap();
    let mut session = bench.session().await;
    let mut patient = options();
    patient.lock_timeout = std::time::Duration::from_secs(120);
    let running = refresh_with(&mut session, "v1", SLOW_CSV, &patient);
    let look = async {
        bench.waits("wait_event = 'advisory'").await;
        assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), "1|old\n2|old");
        let error = bench.server.psql(bench.database.url(), "SET lock_timeout = '10ms'; INSERT INTO t VALUES (9)");
        assert!(error.unwrap_err().to_string().contains("lock timeout"));
        // Another loader is told so.
        let mut other = bench.session().await;
        let mut hasty = options();
        hasty.lock_timeout = std::time::Duration::from_millis(10);
        let error = refresh_with(&mut other, "v2", SLOW_CSV, &hasty).await.unwrap_err();
        let what = "table public.t is being loaded by another session; wait for it, or stop it";
        assert_eq!(chain(&error), what);
        holder.client().batch_execute("SELECT pg_advisory_unlock(42)").await.unwrap();
    };
    let (refreshed, ()) = futures::join!(running, look);
    assert_eq!(counts(&refreshed.unwrap().merged), [1, 1, 1, 0]);
}

/// Somebody who looks all the time sees each version whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn no_reader_sees_a_mixture_or_nothing() {
    let bench = Bench::new("mixture", "CREATE TABLE t (id integer PRIMARY KEY, version integer NOT NULL)");
    let csv = |version: u32| {
        let first = version * 300;
        let rows: String = (first..first + 2000 + version).map(|id| format!("{id},{version}\n")).collect();
        format!("id,version\n{rows}")
    };
    let mut session = bench.session().await;
    refresh_t(&mut session, "0", &csv(0)).await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let reader = bench.session().await;
    let done = stop.clone();
    let reading = tokio::spawn(async move {
        let mut seen = std::collections::BTreeSet::new();
        while !done.is_cancelled() {
            let sql = "SELECT min(version), max(version), count(*) FROM t";
            let row = reader.client().query_one(sql, &[]).await.unwrap();
            let (low, high, rows): (i32, i32, i64) = (row.get(0), row.get(1), row.get(2));
            assert_eq!((low, rows), (high, 2000 + i64::from(low)));
            seen.insert(low);
        }
        seen
    });
    for version in 1..=5 {
        let refreshed = refresh_t(&mut session, &version.to_string(), &csv(version)).await.unwrap();
        assert_eq!(counts(&refreshed.merged), [301, 1700 + u64::from(version) - 1, 300, 0]);
    }
    stop.cancel();
    assert!(!reading.await.unwrap().is_empty());
}

/// Crash recovery empties what is not logged, and leaves its marks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_server_loses_no_row_and_doubles_none() {
    let mut private = Options::default();
    private.database_url = DatabaseUrl::Ignore;
    let server = Server::start(&private).unwrap();
    let database = server.create_database("crash").unwrap();
    let psql = |sql: &str| server.psql(database.url(), sql).unwrap().trim_end().to_owned();
    psql("CREATE TABLE t (id integer PRIMARY KEY, text text); INSERT INTO t VALUES (0, 'old'), (1, 'old')");
    let csv = numbered(20_000);
    let file = version("v1", &csv);
    let mut each = options();
    each.chunk_size = 120_000;
    let target = table("t");
    let connect = || async {
        let session = Session::connect(database.url()).await.unwrap();
        bulk_pg::prepare_ledger(&session).await.unwrap();
        session
    };
    let crash = || {
        server.kill().unwrap();
        server.restart().unwrap();
    };
    // In the middle, and again when a part is staged anew.
    for len in [1_500_000, 1_300_000] {
        let mut session = connect().await;
        let error = refresh(from_mut(&mut session), &target, &file, broken_after(&csv, len), &each).await;
        assert!(matches!(error, Err(Error::Read { .. })), "{error:?}");
        let chunks = psql("SELECT sum(records) FROM bulk.chunk");
        assert_eq!(chunks, (len / 120_000 * 1000).to_string());
        session.flush().await.unwrap();
        crash();
        // The marks are there, the rows are not.
        assert_eq!(psql("SELECT sum(records) FROM bulk.chunk"), chunks);
    }
    let mut session = connect().await;
    let mut staging = each.clone();
    staging.stage = true;
    let loaded = load(from_mut(&mut session), &target, &file, whole(&csv), &staging).await.unwrap();
    assert_eq!((loaded.records, loaded.sent), (20_000, 20_000));
    assert!(is_staged(&session, &target, &file, &LoadOptions::default()).await.unwrap());
    session.flush().await.unwrap();
    crash();

    // All of it is marked as staged. To merge that would empty the table.
    let mut session = connect().await;
    assert!(!is_staged(&session, &target, &file, &LoadOptions::default()).await.unwrap());
    let error = merge_staged(&mut session, std::slice::from_ref(&target), &each).await.unwrap_err();
    assert!(matches!(error, Error::Occupied { .. }), "{}", chain(&error));
    assert_eq!(psql("SELECT * FROM t ORDER BY id"), "0|old\n1|old");
    let refreshed = refresh(from_mut(&mut session), &target, &file, whole(&csv), &each).await.unwrap();
    assert_eq!((counts(&refreshed.merged), refreshed.loaded.sent), ([19_999, 1, 1, 0], 20_000));
    crash();
    assert_eq!(psql("SELECT count(*), sum(id), min(length(text)) FROM t"), "20000|200010000|110");
    let session = connect().await;
    assert_eq!(find_refreshed(&session, &target, &file, &LoadOptions::default()).await.unwrap(), Some(20_000));
}
