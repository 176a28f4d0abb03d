//! What the calls of a crawl give is in the tables once, whatever happens on the way.

mod support;

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulk_pg::{
    CallProgress, CrawlJob, CrawlLoad, CrawlLoadOptions, CrawlMode, CrawlOutcome, CrawlTable, Error, Event,
    QuarantinedCall, Session, drop_indexes, write_call_rejects,
};
use futures::FutureExt;
use serde_json::{Value, json};
use support::{Bench, table};

async fn session(bench: &Bench) -> Session {
    Session::connect(bench.database.url()).await.unwrap()
}

fn job(name: &str, columns: &[&str], mode: CrawlMode) -> CrawlJob {
    CrawlJob::new("stats", vec![CrawlTable::new(table(name), columns.iter().copied(), mode)])
}

fn options() -> CrawlLoadOptions {
    CrawlLoadOptions::default()
}

fn lenient() -> CrawlLoadOptions {
    let mut options = options();
    options.max_rejects = u64::MAX;
    options
}

async fn begin(bench: &Bench, job: &CrawlJob, options: CrawlLoadOptions) -> CrawlLoad {
    CrawlLoad::begin(session(bench).await, job, options).await.unwrap()
}

async fn call<const N: usize>(load: &mut CrawlLoad, key: &str, rows: &[[Value; N]]) -> Result<(), Error> {
    let mut call = load.call(key);
    for row in rows {
        call.row(0, row.iter().map(Some))?;
    }
    call.finish().await
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn values_arrive_exactly() {
    let bench = Bench::new(
        "crawl",
        "CREATE DOMAIN small AS integer CHECK (VALUE < 100);
         CREATE TABLE t (n integer, id bigint, amount numeric, ratio double precision, ok boolean, name text, doc jsonb,
                         raw json, tags text[], docs jsonb[], numbers integer[], at timestamptz, day date, s small)",
    );
    let columns =
        ["n", "id", "amount", "ratio", "ok", "name", "doc", "raw", "tags", "docs", "numbers", "at", "day", "s"];
    let text = "tab\t nl\n crlf\r\n \\ \\N \\. \"q\" 'a' \u{1F600} \u{8}\u{b}\u{c}";
    let rows = [
        [
            json!(1),
            parse("9223372036854775807"),
            parse("12345678901234567890.12345678901234567890"),
            parse("0.1"),
            json!(true),
            json!(text),
            parse(r#"{"a": [1.10, "\u00e9\t\\u0000"], "b": null, "c": 12345678901234567890123}"#),
            parse(r#"{"x": 1.10, "nul": "\u0000"}"#),
            json!(["a,b", "", "NULL", null, "\"\\{}", text]),
            json!([{"a": "\t"}, null, "x", [1]]),
            parse("[[1, 2.0], [3, 0.4e1]]"),
            json!("2020-09-04T09:00:00+02:00"),
            json!("2020-09-04"),
            json!(99),
        ],
        [
            parse("2.0"),
            parse("1.5e1"),
            parse("1e3"),
            json!("NaN"),
            json!("yes"),
            json!(""),
            json!(""),
            json!(""),
            json!([]),
            json!("{\"1\"}"),
            json!("{1,NULL}"),
            json!("infinity"),
            json!("-infinity"),
            parse("7.0"),
        ],
        [
            json!(3),
            json!("4"),
            json!("0.10"),
            parse("1e-300"),
            json!("f"),
            json!({"a": "\u{0}", "b": [1]}),
            json!(false),
            json!(0),
            json!([["x"]]),
            json!([]),
            json!([]),
            json!(null),
            json!(null),
            json!(null),
        ],
    ];
    let job = job("t", &columns, CrawlMode::Append);
    let mut load = begin(&bench, &job, options()).await;
    call(&mut load, "a", &rows).await.unwrap();
    // NULL in all columns: what is missing, and what is null.
    let mut missing = load.call("b");
    assert!(missing.row(0, [None; 14]).unwrap());
    assert!(missing.row(0, [Some(&Value::Null); 14]).unwrap());
    missing.finish().await.unwrap();
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.calls, outcome.rows, outcome.rejected, outcome.is_complete), (2, 5, 0, true));

    let session = session(&bench).await;
    let tags = ["a,b", "", "NULL"].map(|tag| Some(tag.to_owned())).into_iter();
    let tags: Vec<Option<String>> = tags.chain([None, Some("\"\\{}".to_owned()), Some(text.to_owned())]).collect();
    let text_of = |n: i32| {
        let (tags, session) = (&tags, &session);
        async move {
            let sql = "SELECT r::text FROM (SELECT n, id, amount, ratio, ok, doc, raw, tags = $1, docs, numbers,
                                            at AT TIME ZONE 'UTC', day, s, name = $2 FROM t WHERE n = $3) r";
            session.client().query_one(sql, &[tags, &text, &n]).await.unwrap().get::<_, String>(0)
        }
    };
    assert_eq!(
        text_of(1).await,
        r#"(1,9223372036854775807,12345678901234567890.12345678901234567890,0.1,t,"{""a"": [1.10, ""é\\t\\\\u0000""], ""b"": null, ""c"": 12345678901234567890123}","{""nul"":""\\u0000"",""x"":1.10}",t,"{""{\\""a\\"": \\""\\\\t\\""}"",NULL,""\\""x\\"""",[1]}","{{1,2},{3,4}}","2020-09-04 07:00:00",2020-09-04,99,t)"#
    );
    assert_eq!(text_of(2).await, r#"(2,15,1000,NaN,t,"""""","""""",f,{1},"{1,NULL}",infinity,-infinity,7,f)"#);
    assert_eq!(
        bench.psql(
            "SELECT n, id, amount, ratio, ok, name, doc, raw, tags, docs, numbers, at IS NULL FROM t WHERE n = 3"
        ),
        r#"3|4|0.10|1e-300|f|{"a":"\u0000","b":[1]}|false|0|{{x}}|{}|{}|t"#
    );
    assert_eq!(bench.psql("SELECT count(*) FROM t WHERE num_nulls(n, id, amount, ratio, ok, name, doc, raw, tags, docs, numbers, at, day, s) = 14"), "2");
}

#[tokio::test]
async fn a_bad_row_is_named_and_costs_nothing_else() {
    let bench = Bench::new(
        "crawl",
        "CREATE TABLE parent (id integer PRIMARY KEY); INSERT INTO parent VALUES (1);
         CREATE TABLE t (id integer PRIMARY KEY CHECK (id <> 13), name text NOT NULL, doc jsonb,
                         parent integer REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
    );
    for mode in [CrawlMode::Append, CrawlMode::Upsert] {
        bench.psql("TRUNCATE t");
        let job = job("t", &["id", "name", "doc", "parent"], mode);
        let mut load = begin(&bench, &job, lenient()).await;
        let good = |id: i64| [json!(id), json!(format!("n{id}")), json!({}), json!(1)];
        for number in 0..10 {
            let mut rows: Vec<_> = (0..100).map(|row| good(1000 + number * 100 + row)).collect();
            match number {
                2 => rows[50] = [json!(13), json!("check"), json!({}), json!(1)],
                3 => rows[0] = [json!("x"), json!("no integer\t"), json!({}), json!(1)],
                5 => rows[99] = [json!(1), json!(null), json!({}), json!(1)],
                6 => {
                    rows[10] = [json!(1), json!("a\0b"), json!({}), json!(1)];
                    rows[11] = [json!(1), json!("x"), json!({"a": ["\0"]}), json!(1)];
                }
                7 => rows[40] = [json!(2), json!("orphan"), json!({}), json!(2)],
                _ => {}
            }
            call(&mut load, &format!("GET /{number}"), &rows).await.unwrap();
        }
        let outcome = load.finish().await.unwrap();
        assert_eq!((outcome.calls, outcome.rows, outcome.rejected), (10, 994, 6), "{mode:?}");
        assert_eq!(bench.psql("SELECT count(*), count(*) FILTER (WHERE name = 'n' || id) FROM t"), "994|994");
        let rejects = bench.psql(
            "SELECT key, target_schema, target_table, row, \"column\", sqlstate, fields::text FROM bulk.call_reject
             ORDER BY key, row",
        );
        // The server names no row of what it finds out behind all of them, and no column of a row that it has read.
        assert_eq!(
            rejects,
            r#"GET /2|public|t|51||23514|{"id":"13","name":"check","doc":"{}","parent":"1"}
GET /3|public|t|1|id|22P02|{"id":"x","name":"no integer\t","doc":"{}","parent":"1"}
GET /5|public|t|100|name|23502|{"id":"1","name":null,"doc":"{}","parent":"1"}
GET /6|public|t|11|name|22021|{"id":1,"name":"a\u0000b","doc":{},"parent":1}
GET /6|public|t|12|doc|22P05|{"id":1,"name":"x","doc":{"a":["\u0000"]},"parent":1}
GET /7|public|t|41||23503|{"id":"2","name":"orphan","doc":"{}","parent":"2"}"#
        );
        assert_eq!(bench.psql("SELECT sum(rows), sum(rejected) FROM bulk.call"), "994|6");
    }
}

#[tokio::test]
async fn too_many_bad_rows_end_it_and_the_next_run_goes_on() {
    let bench = Bench::new("crawl", "CREATE TABLE t (id integer PRIMARY KEY)");
    let job = job("t", &["id"], CrawlMode::Append);
    let mut one = options();
    (one.max_rejects, one.batch_bytes) = (1, 0);
    let mut load = begin(&bench, &job, one.clone()).await;
    call(&mut load, "a", &[[json!(1)], [json!("x")]]).await.unwrap();
    let error = match call(&mut load, "b", &[[json!(2)], [json!(1)]]).await {
        Err(error) => error,
        Ok(()) => load.finish().await.unwrap_err(),
    };
    assert_eq!(
        error.to_string(),
        "the crawl stats: more than 1 rows are bad; the first one too many: row 2 for public.t of b: duplicate key value violates \
         unique constraint \"t_pkey\" (Key (id)=(1) already exists.) [SQLSTATE 23505]"
    );
    assert_eq!(bench.psql("SELECT * FROM t; SELECT key, rows, rejected FROM bulk.call"), "1\na|1|1");
    let mut load = begin(&bench, &job, one).await;
    assert_eq!(load.done(&["a", "b"]).await.unwrap(), [true, false]);
    call(&mut load, "b", &[[json!(2)]]).await.unwrap();
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.calls, outcome.rows, outcome.rejected), (2, 2, 1));
}

#[tokio::test]
async fn an_upsert_writes_what_differs_and_the_last_row_counts() {
    let bench = Bench::new(
        "crawl",
        "CREATE TABLE t (a text, b integer, name text, doc jsonb, mine text DEFAULT 'd', PRIMARY KEY (a, b));
         INSERT INTO t VALUES ('x', 1, 'same', '{}', 'kept'), ('x', 2, 'old', NULL, 'kept');
         CREATE TABLE n (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text)",
    );
    let unchanged = "SELECT xmin, ctid FROM t WHERE b = 1";
    let before = bench.psql(unchanged);
    let columns = ["b", "name", "a", "doc"];
    let job = job("t", &columns, CrawlMode::Upsert);
    let mut load = begin(&bench, &job, options()).await;
    let row = |b: i64, name: &str, doc: Value| [json!(b), json!(name), json!("x"), doc];
    call(&mut load, "a", &[row(1, "same", json!({})), row(2, "new", json!(1)), row(3, "first", json!(1))])
        .await
        .unwrap();
    call(&mut load, "b", &[row(3, "second", json!(2)), row(4, "only", json!(null))]).await.unwrap();
    load.finish().await.unwrap();
    assert_eq!(
        bench.psql("SELECT b, name, doc, mine FROM t ORDER BY b"),
        "1|same|{}|kept\n2|new|1|kept\n3|second|2|d\n4|only||d"
    );
    assert_eq!(bench.psql(unchanged), before);

    // Numbers are those of the crawl, and the table's own go on behind them.
    let numbered = CrawlJob::new("numbers", vec![CrawlTable::new(table("n"), ["id", "name"], CrawlMode::Upsert)]);
    let mut load = begin(&bench, &numbered, options()).await;
    call(&mut load, "n", &[[json!(7), json!("seven")], [json!(7), json!("VII")]]).await.unwrap();
    load.finish().await.unwrap();
    assert_eq!(bench.psql("INSERT INTO n (name) VALUES ('own') RETURNING id; SELECT * FROM n"), "8\n7|VII\n8|own");

    let mut both = CrawlJob::new(
        "with deletions",
        vec![
            CrawlTable::new(table("t"), columns, CrawlMode::Upsert),
            CrawlTable::new(table("t"), ["a", "b"], CrawlMode::Delete),
        ],
    );
    both.after = vec!["CREATE TABLE after AS SELECT count(*) FROM t".to_owned()];
    let mut load = begin(&bench, &both, options()).await;
    call(&mut load, "c", &[row(5, "five", json!(5))]).await.unwrap();
    let mut deletions = load.call("d");
    for b in [1, 5, 99] {
        assert!(deletions.row(1, [Some(&json!("x")), Some(&json!(b))]).unwrap());
    }
    deletions.finish().await.unwrap();
    load.finish().await.unwrap();
    assert_eq!(bench.psql("SELECT b FROM t ORDER BY b; SELECT * FROM after"), "2\n3\n4\n3");
}

#[tokio::test]
async fn tables_that_do_not_fit_are_told_before_the_first_call() {
    let bench = Bench::new(
        "crawl",
        "CREATE TABLE t (id integer NOT NULL, twice integer GENERATED ALWAYS AS (id * 2) STORED, name text);
         CREATE TABLE d (id integer UNIQUE DEFERRABLE NOT NULL)",
    );
    let fails = |job: CrawlJob| {
        let bench = &bench;
        async move {
            let session = session(bench).await;
            let checked = job.check_tables(&session).await.unwrap_err().to_string();
            let begun = CrawlLoad::begin(session, &job, options()).await.unwrap_err().to_string();
            assert_eq!(checked, begun);
            begun
        }
    };
    for (columns, mode, error) in [
        (&["id", "x"][..], CrawlMode::Append, "table public.t has no column \"x\""),
        (&["id", "twice"], CrawlMode::Append, "table public.t computes the column \"twice\" itself; leave it out"),
        (&["id", "id"], CrawlMode::Append, "table public.t is to get the column \"id\" twice"),
        (
            &["name"],
            CrawlMode::Replace,
            "table public.t has a column \"id\" that may not be NULL and has no default; give its rows a value for it",
        ),
        (
            &["id"],
            CrawlMode::Upsert,
            "table public.t has no key to tell rows by: that is its primary key, or a unique index over columns that may not be NULL, \
             not deferrable, of which all columns are given",
        ),
        (&[], CrawlMode::Append, "the crawl stats: a table is to get no column"),
    ] {
        assert_eq!(fails(job("t", columns, mode)).await, error);
    }
    assert!(
        fails(job("d", &["id"], CrawlMode::Upsert)).await.starts_with("table public.d has no key to tell rows by: ")
    );
    assert_eq!(
        fails(job("none", &["id"], CrawlMode::Append)).await,
        "table public.none does not exist in the database; create it, or give a schema file that does"
    );
    let mut mixed = job("t", &["id"], CrawlMode::Append);
    mixed.tables.push(CrawlTable::new(table("t"), ["id"], CrawlMode::Replace));
    assert_eq!(fails(mixed).await, "the crawl stats: either all of its tables are replaced or none");
    assert_eq!(fails(CrawlJob::new("stats", vec![])).await, "the crawl stats: it has no table");
}

#[tokio::test]
async fn a_table_that_a_view_needs_is_replaced_where_it_is() {
    let bench = Bench::new(
        "crawl",
        "CREATE TABLE p (id integer PRIMARY KEY, name text);
         CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, p integer REFERENCES p, twice integer GENERATED ALWAYS AS (2 * p) STORED);
         INSERT INTO p VALUES (1, 'old'), (2, 'old'); INSERT INTO t (p) SELECT 1 + n % 2 FROM generate_series(1, 10) n;
         CREATE VIEW v AS SELECT t.*, p.name FROM t JOIN p ON p.id = t.p;
         CREATE MATERIALIZED VIEW m AS SELECT count(*) AS rows, min(name) AS name FROM v",
    );
    let mut job = job("p", &["id", "name"], CrawlMode::Replace);
    job.tables.push(CrawlTable::new(table("t"), ["p"], CrawlMode::Replace));
    job.after = vec!["REFRESH MATERIALIZED VIEW m".to_owned()];
    job.check_tables(&session(&bench).await).await.unwrap();
    let seen =
        "SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM v), (SELECT string_agg(DISTINCT name, ',') FROM v)";
    let load_calls = async |load: &mut CrawlLoad, rows: i32| {
        for key in ["a", "b"] {
            let mut call = load.call(key);
            let first = if key == "a" { 0 } else { 1 };
            if first == 0 {
                for id in 2..=4 {
                    call.row(0, [Some(&json!(id)), Some(&json!("new"))]).unwrap();
                }
            }
            for number in 0..rows / 2 {
                call.row(1, [Some(&json!(2 + (number + first) % 3))]).unwrap();
            }
            call.finish().await.unwrap();
        }
    };

    let mut load = begin(&bench, &job, options()).await;
    load_calls(&mut load, 3000).await;
    // Somebody looks all the time, and somebody has looked before.
    let (stop, readers) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (ends, found, url) = (stop.clone(), readers.clone(), bench.database.url().to_owned());
    let looks = tokio::spawn(async move {
        let reader = Session::connect(&url).await.unwrap();
        while ends.load(Ordering::SeqCst) == 0 {
            let row = reader.client().query_one("SELECT count(*) FROM v", &[]).await.unwrap();
            found.lock().unwrap().push(row.get::<_, i64>(0));
        }
    });
    let old = session(&bench).await;
    old.client().batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t").await.unwrap();
    while readers.lock().unwrap().len() < 3 {
        tokio::task::yield_now().await;
    }
    let outcome = load.finish().await.unwrap();
    let after = readers.lock().unwrap().len();
    while readers.lock().unwrap().len() < after + 2 {
        tokio::task::yield_now().await;
    }
    stop.store(1, Ordering::SeqCst);
    looks.await.unwrap();
    assert_eq!((outcome.is_complete, outcome.rows), (true, 3003));
    assert_eq!(bench.psql(seen), "3000|3000|new");
    assert_eq!(bench.psql("SELECT rows, name FROM m"), "3000|new");
    assert_eq!(bench.psql("SELECT count(*) FROM t WHERE twice <> 2 * p"), "0");
    let counts = readers.lock().unwrap().clone();
    assert!(counts.iter().all(|count| [10, 3000].contains(count)), "{counts:?}");
    assert_eq!((counts[0], counts.last()), (10, Some(&3000)));
    let row = old.client().query_one("SELECT count(*), (SELECT min(name) FROM v) FROM t", &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, &str>(1)), (10, "old"));
    // Nothing is left beside them, and numbers go on behind the largest.
    assert_eq!(bench.psql("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'bulk\\_%'"), "0");
    assert_eq!(bench.psql("SELECT count(*) FROM bulk.swap"), "0");
    assert_eq!(
        bench.psql("INSERT INTO t (p) VALUES (2) RETURNING id > (SELECT max(id) FROM t)").lines().next(),
        Some("t")
    );

    // What fails behind it does not have it done again.
    job.after.push("SELECT 1 / (SELECT count(*) FROM ready)".to_owned());
    bench.psql("CREATE TABLE ready (); DELETE FROM t WHERE id > 100");
    let mut load = begin(&bench, &job, options()).await;
    load_calls(&mut load, 600).await;
    load.finish().await.unwrap_err();
    assert_eq!(bench.psql(seen), "600|600|new");
    bench.psql("INSERT INTO ready DEFAULT VALUES");
    let load = begin(&bench, &job, options()).await;
    assert!(load.is_published());
    assert!(load.finish().await.unwrap().is_complete);
    assert_eq!(bench.psql(seen), "600|600|new");
    assert_eq!(bench.psql("SELECT rows FROM m"), "600");

    // What would be told of each row is told before the first call.
    bench.psql(
        "CREATE TRIGGER told AFTER DELETE ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    );
    let error = CrawlLoad::begin(session(&bench).await, &job, options()).await.unwrap_err();
    assert!(
        matches!(error, Error::Occupied { .. }) && error.to_string().contains("trigger told on table public.t"),
        "{error}"
    );
}

/// A part of a call of several, from one number to another, each a row and its double as a row of another table.
async fn part(
    load: &mut CrawlLoad,
    at: Option<&str>,
    next: Option<&str>,
    numbers: std::ops::Range<i32>,
) -> Result<(), Error> {
    let mut call = match at {
        None => load.call("long"),
        Some(at) => load.call_at("long", at),
    };
    for number in numbers {
        call.row(0, [Some(&json!(number))])?;
        call.row(1, [Some(&json!(2 * number))])?;
    }
    match next {
        None => call.finish().await,
        Some(next) => call.finish_part(next).await,
    }
}

#[tokio::test]
async fn a_long_call_is_committed_in_parts_and_goes_on_behind_them() {
    let bench = Bench::new("crawl", "CREATE TABLE t (id integer CHECK (id <> 7)); CREATE TABLE u (id integer)");
    let mut job = job("t", &["id"], CrawlMode::Append);
    job.tables.push(CrawlTable::new(table("u"), ["id"], CrawlMode::Append));
    let count = "SELECT (SELECT count(*) FROM t), (SELECT count(DISTINCT id) FROM t), (SELECT count(*) FROM u)";

    // Such as an older version has made it.
    begin(&bench, &job, lenient()).await.suspend().await.unwrap();
    bench.psql("ALTER TABLE bulk.call DROP next, DROP given");
    let mut load = begin(&bench, &job, lenient()).await;
    // Both in one batch.
    part(&mut load, None, Some("page 2"), 0..3).await.unwrap();
    part(&mut load, Some("page 2"), Some("page 3"), 3..6).await.unwrap();
    call(&mut load, "short", &[[json!(100)]]).await.unwrap();
    let outcome = load.suspend().await.unwrap();
    assert_eq!((outcome.calls, outcome.rows, outcome.is_complete), (1, 13, false));
    assert_eq!(bench.psql(count), "7|7|6");

    // Another run knows how far it is, and goes on there and nowhere else.
    let mut load = begin(&bench, &job, lenient()).await;
    let progress = load.marks().progress(&["long", "short", "none"]).await.unwrap();
    assert_eq!(progress, [CallProgress::Part("page 3".to_owned()), CallProgress::Done, CallProgress::Open]);
    assert_eq!(load.done(&["long", "short", "none"]).await.unwrap(), [false, true, false]);
    let mut failed = QuarantinedCall::new("long", "page 4 is missing");
    failed.attempts = 2;
    load.quarantine(failed).await.unwrap();
    part(&mut load, Some("page 3"), Some("page 4"), 6..9).await.unwrap();
    let outcome = load.suspend().await.unwrap();
    // Of the 7 the rows of both tables are numbered behind those of before; it is in quarantine until it is whole.
    assert_eq!((outcome.calls, outcome.rows, outcome.rejected, outcome.quarantined), (1, 18, 1, 1));
    assert_eq!(bench.psql("SELECT key, target_table, row FROM bulk.call_reject"), "long|t|8");
    assert_eq!(bench.psql("SELECT key, next, given FROM bulk.call WHERE next IS NOT NULL"), "long|page 4|{9,9}");

    for (at, next) in [(None, None), (Some("page 3"), Some("page 4")), (Some("page 5"), None)] {
        let mut load = begin(&bench, &job, lenient()).await;
        part(&mut load, at, next, 20..21).await.unwrap();
        let error = load.suspend().await.unwrap_err().to_string();
        assert!(error.contains("long is committed already"), "{error}");
    }
    assert_eq!(bench.psql(count), "9|9|9");

    let mut load = begin(&bench, &job, lenient()).await;
    part(&mut load, Some("page 4"), None, 9..10).await.unwrap();
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.calls, outcome.rows, outcome.quarantined, outcome.is_complete), (2, 20, 0, true));
    assert_eq!(bench.psql(count), "10|10|10");
}

#[tokio::test]
async fn a_round_is_gone_on_with_by_the_same_job_alone() {
    let bench = Bench::new("crawl", "CREATE TABLE t (id integer); CREATE TABLE u (id integer)");
    let job = job("t", &["id"], CrawlMode::Append);
    let mut load = begin(&bench, &job, options()).await;
    assert_eq!(load.done(&["a"]).await.unwrap(), [false]);
    call(&mut load, "a", &[[json!(1)]]).await.unwrap();

    let error = CrawlLoad::begin(session(&bench).await, &job, options()).await.unwrap_err();
    assert_eq!(error.to_string(), "another run of the crawl stats is under way; wait for it, or stop it");
    let mut other = job.clone();
    other.name = "other".to_owned();
    other.tables[0].table = table("u");
    let mut beside = begin(&bench, &other, options()).await;
    assert_eq!(beside.done(&["a"]).await.unwrap(), [false]);
    beside.suspend().await.unwrap();

    let outcome = load.suspend().await.unwrap();
    assert_eq!((outcome.is_complete, outcome.calls), (false, 1));
    let mut changed = job.clone();
    changed.definition = "otherwise".to_owned();
    let error = CrawlLoad::begin(session(&bench).await, &changed, options()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the crawl stats: a round of it is open that was begun by another definition of its calls, rows or tables; finish it as it was, or begin anew with --restart"
    );
    let mut load = begin(&bench, &job, options()).await;
    assert_eq!(load.done(&["b", "a"]).await.unwrap(), [false, true]);
    call(&mut load, "a", &[[json!(1)]]).await.unwrap();
    let error = load.finish().await.unwrap_err();
    assert_eq!(error.to_string(), "the crawl stats: a is committed already; its rows are not taken twice");
    let load = begin(&bench, &job, options()).await;
    assert_eq!(load.finish().await.unwrap().rows, 1);
    assert_eq!(bench.psql("SELECT * FROM t"), "1");

    // Once it is finished, all is to be done again, by whatever definition.
    let mut load = begin(&bench, &changed, options()).await;
    assert_eq!(load.done(&["a"]).await.unwrap(), [false]);
    call(&mut load, "a", &[[json!(2)]]).await.unwrap();
    load.suspend().await.unwrap();
    let mut anew = options();
    anew.restart = true;
    let mut load = begin(&bench, &job, anew).await;
    assert_eq!(load.done(&["a"]).await.unwrap(), [false]);
    load.finish().await.unwrap();
}

#[tokio::test]
async fn a_call_in_quarantine_keeps_the_round_open_and_the_watermark_where_it_is() {
    let bench = Bench::new("crawl", "CREATE TABLE t (id integer)");
    let job = job("t", &["id"], CrawlMode::Append);
    let with = |watermark: &str| {
        let mut options = options();
        options.next_watermark = Some(watermark.to_owned());
        options
    };
    let mut load = begin(&bench, &job, with("monday")).await;
    assert_eq!(load.watermark(), None);
    call(&mut load, "a", &[[json!(1)]]).await.unwrap();
    let mut failed = QuarantinedCall::new("b\0", "503 \0 of the server");
    (failed.inputs, failed.request) = (vec![json!({"id": parse("1.10")})], json!({"url": "https://example.org/b"}));
    (failed.response, failed.attempts) = (Some("oh\0".to_owned()), 5);
    load.quarantine(failed.clone()).await.unwrap();
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.is_complete, outcome.quarantined, outcome.watermark), (false, 1, None));

    let mut load = begin(&bench, &job, with("tuesday")).await;
    assert_eq!(load.done(&["a", "b\0"]).await.unwrap(), [true, false]);
    load.quarantine(failed.clone()).await.unwrap();
    let found = load.quarantined(None, 10).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].key.as_str(), found[0].reason.as_str()), ("b\\0", "503 \\0 of the server"));
    assert_eq!((found[0].response.as_deref(), found[0].attempts), (Some("oh\\0"), 10));
    assert_eq!((&found[0].inputs, &found[0].request), (&failed.inputs, &failed.request));
    assert_eq!(load.quarantined(Some("b\\0"), 10).await.unwrap(), []);
    call(&mut load, "b\0", &[[json!(2)]]).await.unwrap();
    assert_eq!(load.quarantined(None, 10).await.unwrap(), []);
    // Of the moment before the round's first call.
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.is_complete, outcome.quarantined, outcome.watermark.as_deref()), (true, 0, Some("monday")));
    assert_eq!(bench.psql("SELECT id FROM t ORDER BY 1; SELECT count(*) FROM bulk.quarantine"), "1\n2\n0");

    let mut some = with("wednesday");
    some.max_quarantined = 1;
    let mut load = begin(&bench, &job, some).await;
    assert_eq!(load.watermark(), Some("monday"));
    load.quarantine(QuarantinedCall::new("c", "gone")).await.unwrap();
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.is_complete, outcome.quarantined, outcome.watermark.as_deref()), (true, 1, Some("monday")));
    let mut load = begin(&bench, &job, with("thursday")).await;
    // The next round asks for all again.
    assert_eq!(load.quarantined(None, 1).await.unwrap(), []);
    drop(load);

    // Another definition has other rows: what has not changed lacks them, too.
    let mut other = job.clone();
    other.definition = "more columns".to_owned();
    assert_eq!(begin(&bench, &other, with("friday")).await.watermark(), None);
}

#[tokio::test]
async fn a_part_of_a_call_that_failed_is_made_by_itself() {
    let bench = Bench::new("crawl", "CREATE TABLE t (id integer)");
    let job = job("t", &["id"], CrawlMode::Append);
    let mut load = begin(&bench, &job, options()).await;
    let mut batch = load.call("GET /?ids=1,2");
    assert!(batch.row(0, [Some(&json!(1))]).unwrap());
    let mut part = QuarantinedCall::new("GET /?ids=2", "not in the answer");
    part.inputs = vec![json!({"id": 2})];
    batch.quarantine(part).unwrap();
    batch.finish().await.unwrap();
    assert!(!load.finish().await.unwrap().is_complete);
    assert_eq!(bench.psql("SELECT key FROM bulk.call; SELECT key FROM bulk.quarantine"), "GET /?ids=1,2\nGET /?ids=2");

    let mut load = begin(&bench, &job, options()).await;
    let marks = load.marks();
    assert_eq!(marks.done(&["GET /?ids=1,2", "GET /?ids=2"]).await.unwrap(), [true, false]);
    assert_eq!(load.quarantined(None, 10).await.unwrap()[0].inputs, [json!({"id": 2})]);
    call(&mut load, "GET /?ids=2", &[[json!(2)]]).await.unwrap();
    // It does not wait for those who could still ask.
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.is_complete, outcome.calls, outcome.rows, outcome.quarantined), (true, 2, 2, 0));
    assert_eq!(marks.done(&["GET /?ids=2"]).await.unwrap_err().to_string(), "the crawl stats: its load has ended");
    assert_eq!(bench.psql("SELECT id FROM t ORDER BY id"), "1\n2");
}

const OLD: &str = "
    CREATE TABLE t (id integer PRIMARY KEY, name text DEFAULT 'd' NOT NULL);
    CREATE INDEX by_name ON t (name); COMMENT ON TABLE t IS 'mine'; GRANT SELECT ON t TO PUBLIC;
    INSERT INTO t VALUES (1, 'old'), (2, 'old')";

#[tokio::test]
async fn a_replaced_table_has_the_old_rows_until_it_has_the_new_ones() {
    let bench = Bench::new("crawl", OLD);
    let structure = "SELECT indexdef FROM pg_indexes WHERE tablename = 't' AND schemaname = 'public' ORDER BY 1;
                     SELECT obj_description('t'::regclass), relacl FROM pg_class WHERE oid = 't'::regclass";
    let before = bench.psql(structure);
    let mut job = job("t", &["id", "name"], CrawlMode::Replace);
    job.after = vec![
        "ANALYZE t".to_owned(),
        "CREATE MATERIALIZED VIEW IF NOT EXISTS v AS SELECT count(*) FROM bulk.call".to_owned(),
    ];
    let row = |id: i64| [json!(id), json!("new")];
    let mut load = begin(&bench, &job, lenient()).await;
    call(&mut load, "a", &[row(3), row(4)]).await.unwrap();
    load.suspend().await.unwrap();
    assert_eq!(bench.psql("SELECT * FROM t ORDER BY 1"), "1|old\n2|old");
    // A row with the key of another one is left out when it comes.
    let mut load = begin(&bench, &job, lenient()).await;
    assert_eq!(load.done(&["a", "b"]).await.unwrap(), [true, false]);
    call(&mut load, "b", &[row(4), row(5)]).await.unwrap();

    let (counts, reader) = (Arc::new(Mutex::new(Vec::new())), session(&bench).await);
    let seen = Arc::clone(&counts);
    let reading = tokio::spawn(async move {
        loop {
            let rows = reader.client().query("SELECT id FROM t ORDER BY id", &[]).await.unwrap();
            let ids: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
            seen.lock().unwrap().push(ids.clone());
            if ids.contains(&3) {
                return;
            }
        }
    });
    let outcome = load.finish().await.unwrap();
    reading.await.unwrap();
    let mut counts = std::mem::take(&mut *counts.lock().unwrap());
    // One of the two at each moment.
    counts.dedup();
    assert_eq!(counts, [vec![1, 2], vec![3, 4, 5]]);
    assert_eq!((outcome.is_complete, outcome.calls, outcome.rows, outcome.rejected), (true, 2, 3, 1));
    assert_eq!(bench.psql("SELECT key, row, sqlstate FROM bulk.call_reject"), "b|1|23505");
    assert_eq!(bench.psql(structure), before);
    assert_eq!(bench.psql("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'bulk%' ORDER BY 1"), "bulk");
    assert_eq!(bench.psql("SELECT * FROM v"), "2");

    // The next round has nothing, which is not published.
    bench.psql("DROP MATERIALIZED VIEW v");
    let load = begin(&bench, &job, options()).await;
    let error = load.finish().await.unwrap_err();
    assert_eq!(error.to_string(), "the crawl stats: it gave no row for t, whose rows stay");
    let mut empty = options();
    empty.allow_empty = true;
    assert!(begin(&bench, &job, empty).await.finish().await.unwrap().is_complete);
    assert_eq!(bench.psql("SELECT count(*) FROM t"), "0");
}

#[tokio::test]
async fn new_tables_that_are_gone_are_filled_again() {
    let bench = Bench::new("crawl", OLD);
    let job = job("t", &["id"], CrawlMode::Replace);
    let mut load = begin(&bench, &job, options()).await;
    call(&mut load, "a", &[[json!(3)]]).await.unwrap();
    load.suspend().await.unwrap();
    let schema = bench.psql("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'bulk_next%'");
    bench.psql(&format!("DROP SCHEMA {schema} CASCADE"));
    let mut load = begin(&bench, &job, options()).await;
    assert_eq!(load.done(&["a"]).await.unwrap(), [false]);
    call(&mut load, "a", &[[json!(3)]]).await.unwrap();
    let mut failed = QuarantinedCall::new("b", "gone");
    failed.attempts = 1;
    load.quarantine(failed).await.unwrap();
    assert!(!load.finish().await.unwrap().is_complete);
    assert_eq!(bench.psql("SELECT * FROM t ORDER BY 1"), "1|old\n2|old");
    let mut load = begin(&bench, &job, options()).await;
    call(&mut load, "b", &[[json!(4)]]).await.unwrap();
    assert!(load.finish().await.unwrap().is_complete);
    assert_eq!(bench.psql("SELECT * FROM t ORDER BY 1"), "3|d\n4|d");
}

/// Two tables of which each call has a row.
fn two(mode: CrawlMode) -> CrawlJob {
    CrawlJob::new("two", ["a", "b"].map(|name| CrawlTable::new(table(name), ["id"], mode)).to_vec())
}

async fn call_two(load: &mut CrawlLoad, key: &str, id: i64) {
    let mut call = load.call(key);
    for place in 0..2 {
        assert!(call.row(place, [Some(&json!(id))]).unwrap());
    }
    call.finish().await.unwrap();
}

#[tokio::test]
async fn one_new_table_made_again_takes_the_rows_of_the_others_with_it() {
    let bench = Bench::new("crawl", "CREATE TABLE a (id integer); CREATE TABLE b (id integer)");
    let job = two(CrawlMode::Replace);
    let mut load = begin(&bench, &job, options()).await;
    call_two(&mut load, "1", 1).await;
    load.suspend().await.unwrap();
    bench.psql("COMMENT ON TABLE a IS 'other'");
    let mut load = begin(&bench, &job, options()).await;
    assert_eq!(load.done(&["1"]).await.unwrap(), [false]);
    call_two(&mut load, "1", 1).await;
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.is_complete, outcome.calls, outcome.rows), (true, 1, 2));
    assert_eq!(bench.psql("SELECT * FROM a; SELECT * FROM b"), "1\n1");
}

#[tokio::test]
async fn a_new_table_that_never_had_a_row_has_not_lost_one() {
    let bench = Bench::new("crawl", "CREATE UNLOGGED TABLE a (id integer); CREATE UNLOGGED TABLE b (id integer)");
    let job = two(CrawlMode::Replace);
    let mut load = begin(&bench, &job, options()).await;
    call(&mut load, "1", &[[json!(1)]]).await.unwrap();
    load.suspend().await.unwrap();
    let mut load = begin(&bench, &job, options()).await;
    assert_eq!(load.done(&["1"]).await.unwrap(), [true]);
    call(&mut load, "2", &[[json!(2)]]).await.unwrap();
    load.suspend().await.unwrap();

    // As crash recovery does it.
    let schema = bench.psql("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'bulk_next%'");
    bench.psql(&format!("TRUNCATE {schema}.a"));
    let mut load = begin(&bench, &job, options()).await;
    assert_eq!(load.done(&["1", "2"]).await.unwrap(), [false, false]);
    call_two(&mut load, "1", 3).await;
    assert!(load.finish().await.unwrap().is_complete);
    assert_eq!(bench.psql("SELECT * FROM a; SELECT * FROM b"), "3\n3");
}

#[tokio::test]
async fn a_table_has_one_crawl_at_a_time() {
    let bench = Bench::new("crawl", OLD);
    for mode in [CrawlMode::Append, CrawlMode::Upsert, CrawlMode::Replace] {
        let load = begin(&bench, &job("t", &["id"], CrawlMode::Replace), options()).await;
        let mut other = job("t", &["id"], mode);
        other.name = "other".to_owned();
        let error = CrawlLoad::begin(session(&bench).await, &other, options()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "table public.t is being loaded by another session; wait for it, or stop it",
            "{mode:?}"
        );
        load.suspend().await.unwrap();
    }
}

#[tokio::test]
async fn rows_do_not_go_to_a_table_that_has_come_by_the_name() {
    for mode in [CrawlMode::Append, CrawlMode::Upsert, CrawlMode::Replace] {
        let bench = Bench::new("crawl", OLD);
        let mut load = begin(&bench, &job("t", &["id"], mode), options()).await;
        let schema = match mode {
            CrawlMode::Replace => bench.psql("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'bulk_next%'"),
            _ => "public".to_owned(),
        };
        let name = format!("{schema}.t");
        bench.psql(&format!(
            "ALTER TABLE {name} RENAME TO gone; CREATE TABLE {name} (LIKE {schema}.gone INCLUDING ALL)"
        ));
        call(&mut load, "a", &[[json!(3)]]).await.unwrap();
        let error = load.finish().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "the crawl stats: {name} is another table than when the run began; what is not committed is dropped"
            )
        );
        assert_eq!(bench.psql(&format!("SELECT count(*) FROM {name}; SELECT count(*) FROM bulk.call")), "0\n0");
    }
}

#[tokio::test]
async fn marks_whose_rows_are_gone_do_not_count() {
    for mode in [CrawlMode::Append, CrawlMode::Upsert] {
        for (change, what) in [
            ("DROP TABLE a; CREATE TABLE a (id integer PRIMARY KEY)", "is another table"),
            ("TRUNCATE a", "has been emptied"),
        ] {
            let bench =
                Bench::new("crawl", "CREATE TABLE a (id integer PRIMARY KEY); CREATE TABLE b (id integer PRIMARY KEY)");
            let job = two(mode);
            let mut load = begin(&bench, &job, options()).await;
            // The other one gets no row, so that it may be whichever it is.
            call(&mut load, "1", &[[json!(1)], [json!(2)]]).await.unwrap();
            load.suspend().await.unwrap();
            bench.psql("DROP TABLE b; CREATE TABLE b (id integer PRIMARY KEY)");
            begin(&bench, &job, options()).await.suspend().await.unwrap();
            bench.psql(change);
            let error = CrawlLoad::begin(session(&bench).await, &job, options()).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "the crawl two: public.a {what} since 2 rows of the open round were written into it, whose calls \
                     count as done; begin anew with --restart"
                )
            );
            let mut anew = options();
            anew.restart = true;
            let mut load = begin(&bench, &job, anew).await;
            assert_eq!(load.done(&["1"]).await.unwrap(), [false]);
            call_two(&mut load, "1", 1).await;
            assert!(load.finish().await.unwrap().is_complete);
            assert_eq!(bench.psql("SELECT * FROM a; SELECT * FROM b"), "1\n1");
        }
    }
}

#[tokio::test]
async fn half_a_call_is_none() {
    let bench = Bench::new("crawl", "CREATE TABLE t (id integer, name text)");
    let mut load = begin(&bench, &job("t", &["id", "name"], CrawlMode::Append), options()).await;
    let (id, name) = (json!(1), json!("x"));
    for wrong in [vec![Some(&id)], vec![Some(&id), Some(&name), Some(&name)]] {
        let mut broken = load.call("a");
        assert!(broken.row(0, [Some(&id), Some(&name)]).unwrap());
        broken.row(0, wrong).unwrap_err();
        let row = broken.row(0, [Some(&id), Some(&name)]).unwrap_err();
        let reject = broken.reject(0, [None], None, "22000", "").unwrap_err();
        let part = broken.quarantine(QuarantinedCall::new("b", "")).unwrap_err();
        for error in [row, reject, part, broken.finish().await.unwrap_err()] {
            let expected = "the crawl stats: something of a was not taken, so that nothing of it is";
            assert_eq!(error.to_string(), expected);
        }
    }
    call(&mut load, "a", &[[json!(2), json!("y")]]).await.unwrap();
    assert_eq!(load.finish().await.unwrap().rows, 1);
    assert_eq!(bench.psql("SELECT * FROM t"), "2|y");
}

#[tokio::test]
async fn notes_go_with_their_calls_and_no_sooner() {
    let bench = Bench::new("crawl", "CREATE TABLE t (id integer)");
    let job = job("t", &["id"], CrawlMode::Append);
    let mut load = begin(&bench, &job, options()).await;
    // A part that is all of its call.
    let mut own = load.call("own");
    assert!(own.row(0, [Some(&json!(1))]).unwrap());
    own.quarantine(QuarantinedCall::new("own", "gone")).unwrap();
    own.finish().await.unwrap();
    load.quarantine(QuarantinedCall::new("nul\0", "gone")).await.unwrap();
    // One that is done, in the same commit and behind it.
    call(&mut load, "done", &[[json!(2)]]).await.unwrap();
    load.quarantine(QuarantinedCall::new("done", "gone")).await.unwrap();
    let keys = async |load: &mut CrawlLoad| -> Vec<String> {
        load.quarantined(None, 10).await.unwrap().into_iter().map(|call| call.key).collect()
    };
    assert_eq!(keys(&mut load).await, ["nul\\0", "own"]);
    load.quarantine(QuarantinedCall::new("done", "gone")).await.unwrap();
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.is_complete, outcome.calls, outcome.rows, outcome.quarantined), (false, 1, 1, 2));

    let mut load = begin(&bench, &job, options()).await;
    assert_eq!(load.done(&["own", "done"]).await.unwrap(), [false, true]);
    for key in keys(&mut load).await {
        call(&mut load, &key, &[[json!(3)]]).await.unwrap();
    }
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.is_complete, outcome.calls, outcome.rows, outcome.quarantined), (true, 3, 3, 0));
    assert_eq!(bench.psql("SELECT id FROM t ORDER BY id"), "2\n3\n3");
}

#[tokio::test]
async fn a_large_call_waits_for_all_of_the_room() {
    let bench = Bench::new("crawl", "CREATE TABLE t (name text)");
    let mut options = options();
    // The time of a batch never comes.
    (options.batch_bytes, options.batch_time) = (10_000, Duration::MAX);
    let mut load = begin(&bench, &job("t", &["name"], CrawlMode::Append), options).await;
    let large = json!("y".repeat(30_000));
    call(&mut load, "small", &[[json!("z")]]).await.unwrap();
    call(&mut load, "large", &[[large.clone()]]).await.unwrap();
    call(&mut load, "small too", &[[json!("z")]]).await.unwrap();
    let mut next = load.call("large too");
    assert!(next.row(0, [Some(&large)]).unwrap());
    assert!(next.finish().now_or_never().is_none());
    assert_eq!(load.finish().await.unwrap().rows, 3);
}

#[tokio::test]
async fn what_is_kept_can_be_read_again() {
    let bench = Bench::new("crawl", "CREATE TABLE t (doc json)");
    let job = job("t", &["doc"], CrawlMode::Append);
    let nested = |depth: usize| (1..depth).fold(json!([]), |value, _| json!([value]));
    let mut load = begin(&bench, &job, lenient()).await;
    let mut deep = load.call("a");
    assert!(deep.row(0, [Some(&nested(127))]).unwrap());
    assert!(!deep.row(0, [Some(&nested(128))]).unwrap());
    deep.finish().await.unwrap();
    for depth in [126, 127] {
        let mut failed = QuarantinedCall::new(depth.to_string(), "gone");
        (failed.inputs, failed.request) = (vec![nested(depth)], nested(depth));
        load.quarantine(failed).await.unwrap();
    }
    let found = load.quarantined(None, 10).await.unwrap();
    assert_eq!((&found[0].inputs[..], &found[0].request), (&[nested(126)][..], &nested(126)));
    assert_eq!((&found[1].inputs[..], &found[1].request), (&[][..], &nested(127)));
    load.suspend().await.unwrap();
    let text = bench.psql("SELECT doc FROM t");
    assert_eq!(parse(&text), nested(127));
}

#[tokio::test]
async fn rows_that_refer_to_those_behind_them_are_taken() {
    for mode in [CrawlMode::Append, CrawlMode::Upsert] {
        let bench =
            Bench::new("crawl", "CREATE TABLE t (id integer PRIMARY KEY, parent integer REFERENCES t, name text)");
        let mut load = begin(&bench, &job("t", &["id", "parent", "name"], mode), lenient()).await;
        let row = |id: Value, parent: Value, name: &str| [id, parent, json!(name)];
        let mut rows = vec![
            row(json!(3), json!(2), "child"),
            row(json!(2), json!(1), "first"),
            row(json!("x"), json!(null), "bad"),
            row(json!(5), json!(6), "circle"),
            row(json!(6), json!(5), "circle"),
        ];
        if mode == CrawlMode::Upsert {
            rows.push(row(json!(2), json!(null), "second"));
        }
        rows.push(row(json!(1), json!(null), "root"));
        call(&mut load, "a", &rows).await.unwrap();
        let outcome = load.finish().await.unwrap();
        assert_eq!(outcome.rejected, 1, "{mode:?}");
        let second = if mode == CrawlMode::Upsert { "2||second" } else { "2|1|first" };
        assert_eq!(
            bench.psql("SELECT * FROM t ORDER BY id"),
            format!("1||root\n{second}\n3|2|child\n5|6|circle\n6|5|circle")
        );

        // What refers to nothing is left out still, and those that it does not concern are not.
        let mut load = begin(&bench, &job("t", &["id", "parent", "name"], mode), lenient()).await;
        let rows = [(13, 12), (12, 11), (19, 99), (11, 10), (18, 19), (10, 1)];
        let rows = rows.map(|(id, parent)| row(json!(id), json!(parent), "more"));
        call(&mut load, "b", &rows).await.unwrap();
        assert_eq!(load.finish().await.unwrap().rejected, 2);
        assert_eq!(bench.psql("SELECT id FROM t WHERE name = 'more' ORDER BY id"), "10\n11\n12\n13");
        let rejects = bench.psql("SELECT row, sqlstate FROM bulk.call_reject ORDER BY row");
        assert_eq!(rejects, "3|23503\n5|23503");
    }
}

#[tokio::test]
async fn tables_that_refer_to_each_other_are_filled_beside_a_bad_row() {
    let bench = Bench::new(
        "crawl",
        "CREATE TABLE a (id integer PRIMARY KEY, other integer);
         CREATE TABLE b (id integer PRIMARY KEY, other integer REFERENCES a DEFERRABLE INITIALLY DEFERRED);
         ALTER TABLE a ADD FOREIGN KEY (other) REFERENCES b DEFERRABLE INITIALLY DEFERRED",
    );
    let tables = ["a", "b"].map(|name| CrawlTable::new(table(name), ["id", "other"], CrawlMode::Append));
    let mut load = begin(&bench, &CrawlJob::new("circle", tables.to_vec()), lenient()).await;
    let mut call = load.call("a");
    for (place, id) in [(0, json!(1)), (1, json!(1)), (0, json!("x"))] {
        assert!(call.row(place, [Some(&id), Some(&json!(1))]).unwrap());
    }
    call.finish().await.unwrap();
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.rows, outcome.rejected), (2, 1));
    assert_eq!(bench.psql("SELECT * FROM a; SELECT * FROM b"), "1|1\n1|1");
}

#[tokio::test]
async fn deletions_and_rows_go_in_the_order_of_their_calls() {
    // Together or each by itself.
    for batch_bytes in [0, 8 << 20] {
        let bench = Bench::new("crawl", "CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (5), (6)");
        for modes in [[CrawlMode::Upsert, CrawlMode::Delete], [CrawlMode::Delete, CrawlMode::Upsert]] {
            let tables = modes.map(|mode| CrawlTable::new(table("t"), ["id"], mode));
            let place = |mode| modes.iter().position(|other| *other == mode).unwrap();
            let mut options = options();
            options.batch_bytes = batch_bytes;
            let mut load = begin(&bench, &CrawlJob::new("both", tables.to_vec()), options).await;
            let calls =
                [(CrawlMode::Delete, 5), (CrawlMode::Upsert, 5), (CrawlMode::Upsert, 6), (CrawlMode::Delete, 6)];
            for (number, (mode, id)) in calls.into_iter().enumerate() {
                let mut call = load.call(number.to_string());
                assert!(call.row(place(mode), [Some(&json!(id))]).unwrap());
                call.finish().await.unwrap();
            }
            load.finish().await.unwrap();
            assert_eq!(bench.psql("SELECT * FROM t"), "5", "{modes:?}");
        }
    }
}

#[tokio::test]
async fn rows_of_replaced_tables_that_refer_to_nothing_are_left_out() {
    let bench = Bench::new(
        "crawl",
        "CREATE TABLE outside (id integer PRIMARY KEY); INSERT INTO outside VALUES (1);
         CREATE TABLE parent (id integer PRIMARY KEY, up integer REFERENCES parent);
         CREATE TABLE child (id integer PRIMARY KEY, parent integer REFERENCES parent, outside integer REFERENCES outside);
         INSERT INTO parent VALUES (1, 1); INSERT INTO child VALUES (1, 1, 1)",
    );
    let keys = "SELECT conrelid::regclass, conname, confrelid::regclass, convalidated FROM pg_constraint
                WHERE contype = 'f' AND connamespace = 'public'::regnamespace ORDER BY conname";
    let before = bench.psql(keys);
    let tables = vec![
        CrawlTable::new(table("child"), ["id", "parent", "outside"], CrawlMode::Replace),
        CrawlTable::new(table("parent"), ["id", "up"], CrawlMode::Replace),
    ];
    let job = CrawlJob::new("families", tables);
    let mut some = options();
    (some.max_rejects, some.batch_bytes) = (2, 0);
    let mut load = begin(&bench, &job, some.clone()).await;
    for (id, parent, outside) in [(1, 10, 1), (2, 11, 1), (3, 10, 2)] {
        let mut call = load.call(format!("child {id}"));
        assert!(call.row(0, [Some(&json!(id)), Some(&json!(parent)), Some(&json!(outside))]).unwrap());
        call.finish().await.unwrap();
    }
    for (id, up) in [(10, json!(null)), (11, json!(99))] {
        let mut call = load.call(format!("parent {id}"));
        assert!(call.row(1, [Some(&json!(id)), Some(&up)]).unwrap());
        call.finish().await.unwrap();
    }
    let error = load.finish().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the crawl families: 2 rows refer to rows that have not come, and 1 are left out already, which is more than the 2 \
         that may be; the old tables stay"
    );
    assert_eq!(bench.psql("SELECT * FROM child; SELECT * FROM parent"), "1|1|1\n1|1");
    some.max_rejects = 3;
    let outcome = begin(&bench, &job, some).await.finish().await.unwrap();
    assert_eq!((outcome.is_complete, outcome.calls, outcome.rows, outcome.rejected), (true, 5, 2, 3));
    assert_eq!(bench.psql("SELECT * FROM child; SELECT * FROM parent"), "1|10|1\n10|");
    assert_eq!(bench.psql(keys), before);
    assert_eq!(
        bench.psql(
            "SELECT key, target_table, row, \"column\", sqlstate, fields FROM bulk.call_reject ORDER BY key, target_table"
        ),
        r#"child 3|child|1||23503|{"id":"3","parent":"10","outside":"2"}
|child||parent|23503|{"id":2,"parent":11,"outside":1}
|parent||up|23503|{"id":11,"up":99}"#
    );
    let mut lines = Vec::new();
    assert_eq!(write_call_rejects(&session(&bench).await, "families", &mut lines).await.unwrap(), 3);
    let last = parse(str::from_utf8(&lines).unwrap().lines().last().unwrap());
    assert_eq!((&last["call"], &last["row"], &last["table"]), (&json!(null), &json!(null), &json!("public.parent")));
}

#[tokio::test]
async fn a_crawl_makes_nothing_that_was_dropped_of_other_tables() {
    let bench =
        Bench::new("crawl", &format!("{OLD}; CREATE TABLE other (id integer); CREATE INDEX theirs ON other (id)"));
    let mut theirs = bench.session().await;
    assert_eq!(drop_indexes(&mut theirs, &[table("other")]).await.unwrap(), 1);
    let job = job("t", &["id"], CrawlMode::Replace);
    let mut stopped = options();
    stopped.stop.cancel();
    let error = CrawlLoad::begin(session(&bench).await, &job, stopped).await.unwrap_err();
    assert!(matches!(error, Error::Stopped { .. }), "{error:?}");
    stopped = options();
    let mut load = begin(&bench, &job, stopped).await;
    call(&mut load, "a", &[[json!(3)]]).await.unwrap();
    assert!(load.finish().await.unwrap().is_complete);
    assert_eq!(bench.psql("SELECT to_regclass('theirs') IS NULL, (SELECT count(*) FROM bulk.dropped)"), "t|1");
}

#[tokio::test]
async fn no_right_is_needed_to_sequences_that_are_not_written() {
    let bench = Bench::new("crawl", "CREATE TABLE t (id serial, name text, own serial)");
    let job = job("t", &["name"], CrawlMode::Append);
    begin(&bench, &job, options()).await.finish().await.unwrap();
    let role = format!("crawler_{}", std::process::id());
    bench.psql(&format!(
        "INSERT INTO t VALUES (100, 'old', 100); CREATE ROLE {role}; GRANT USAGE, CREATE ON SCHEMA bulk TO {role};
         GRANT ALL ON ALL TABLES IN SCHEMA bulk TO {role}; GRANT SELECT, INSERT ON t TO {role};
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA public, bulk TO {role}"
    ));
    let limited = session(&bench).await;
    limited.client().batch_execute(&format!("SET SESSION AUTHORIZATION {role}")).await.unwrap();
    let mut load = CrawlLoad::begin(limited, &job, options()).await.unwrap();
    call(&mut load, "a", &[[json!("new")]]).await.unwrap();
    let outcome = load.finish().await;
    bench.psql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    assert!(outcome.unwrap().is_complete);
    assert_eq!(bench.psql("SELECT * FROM t"), "100|old|100\n1|new|1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_that_is_cut_anywhere_is_gone_on_with() {
    let ddl = format!("{OLD}; CREATE TABLE u (id integer REFERENCES t); INSERT INTO u VALUES (1)");
    let tables = ["t", "u"].map(|name| CrawlTable::new(table(name), ["id"], CrawlMode::Replace));
    let mut job = CrawlJob::new("both", tables.to_vec());
    job.after = vec!["CREATE TABLE IF NOT EXISTS after (id integer)".to_owned()];
    for number in 0.. {
        let bench = Arc::new(Bench::new("crawl", &ddl));
        let mut load = begin(&bench, &job, options()).await;
        let mut both = load.call("a");
        for place in 0..2 {
            assert!(both.row(place, [Some(&json!(3))]).unwrap());
        }
        both.finish().await.unwrap();
        load.suspend().await.unwrap();

        let (observed, steps) = (Arc::clone(&bench), Arc::new(AtomicUsize::new(0)));
        let mut cut = options();
        cut.observer = Arc::new(move |event: &Event<'_>| {
            if let Event::Step { .. } = event {
                let step = steps.fetch_add(1, Ordering::Relaxed);
                if step == number {
                    observed.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()");
                }
            }
        });
        let ended = match CrawlLoad::begin(session(&bench).await, &job, cut).await {
            Ok(load) => load.finish().await,
            Err(error) => Err(error),
        };
        let is_cut = ended.is_err();
        let rows = bench.psql("SELECT id FROM t ORDER BY id; SELECT id FROM u");
        assert!(rows == "1\n2\n1" || rows == "3\n3", "{rows}");
        if is_cut {
            let mut load = begin(&bench, &job, options()).await;
            assert_eq!(load.done(&["a"]).await.unwrap(), [true]);
            assert!(load.finish().await.unwrap().is_complete);
        }
        assert_eq!(bench.psql("SELECT id FROM t ORDER BY id; SELECT id FROM u; SELECT * FROM after"), "3\n3");
        let left = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'bulk%' ORDER BY 1";
        assert_eq!(bench.psql(left), "bulk");
        if !is_cut {
            assert!(number > 3, "{number}");
            return;
        }
    }
}

#[tokio::test]
async fn what_comes_after_is_made_up_for() {
    let bench = Bench::new("crawl", OLD);
    let mut job = job("t", &["id"], CrawlMode::Replace);
    job.after = vec!["INSERT INTO done VALUES (1)".to_owned()];
    let mut load = begin(&bench, &job, options()).await;
    call(&mut load, "a", &[[json!(3)]]).await.unwrap();
    let error = load.finish().await.unwrap_err();
    assert_eq!(error.to_string(), "cannot run the statement after the crawl stats: INSERT INTO done VALUES (1)");
    assert_eq!(bench.psql("SELECT id FROM t"), "3");
    bench.psql("CREATE TABLE done (id integer)");
    let mut load = begin(&bench, &job, options()).await;
    assert!(load.is_published());
    assert_eq!(load.done(&["a", "b"]).await.unwrap(), [true, true]);
    let error = call(&mut load, "b", &[[json!(4)]]).await.unwrap_err();
    assert_eq!(error.to_string(), "the crawl stats: its tables have been replaced; all that is left is to finish it");
    assert!(load.finish().await.unwrap().is_complete);
    assert_eq!(bench.psql("SELECT id FROM t; SELECT id FROM done"), "3\n1");
    assert!(!begin(&bench, &job, options()).await.is_published());
}

#[tokio::test]
async fn the_tables_of_a_call_are_committed_together() {
    let bench = Bench::new(
        "crawl",
        "CREATE TABLE parent (id integer PRIMARY KEY CHECK (id > 0));
         CREATE TABLE child (id integer, parent integer REFERENCES parent)",
    );
    let tables = vec![
        CrawlTable::new(table("parent"), ["id"], CrawlMode::Append),
        CrawlTable::new(table("child"), ["id", "parent"], CrawlMode::Append),
    ];
    let job = CrawlJob::new("families", tables);
    let reader = session(&bench).await;
    assert_eq!(write_call_rejects(&reader, "families", &mut Vec::new()).await.unwrap(), 0);
    let mut load = begin(&bench, &job, lenient()).await;
    for parent in -1..=2 {
        let parent = json!(parent);
        let mut call = load.call(format!("GET /{parent}"));
        // The one before the other, whichever is told of first.
        for child in [json!(1), json!("x")] {
            assert!(call.row(1, [Some(&child), Some(&parent)]).unwrap());
        }
        assert!(call.row(0, [Some(&parent)]).unwrap());
        call.reject(1, [Some(&json!("of the caller's")), None], Some("id"), "22000", "as it says").unwrap();
        assert_eq!((call.rows(), call.rejected()), (3, 1));
        call.finish().await.unwrap();
    }
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.calls, outcome.rows, outcome.rejected), (4, 4, 12));
    assert_eq!(bench.psql("SELECT * FROM parent; SELECT * FROM child"), "1\n2\n1|1\n1|2");
    let mut lines = Vec::new();
    assert_eq!(write_call_rejects(&reader, "families", &mut lines).await.unwrap(), 12);
    let lines: Vec<Value> = str::from_utf8(&lines).unwrap().lines().map(parse).collect();
    let short = |line: &Value| {
        let text = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
        format!("{} {} {} {}", text("call"), text("table"), line["row"], text("sqlstate"))
    };
    let expected = [
        "GET /-1 public.child 1 23503",
        "GET /-1 public.child 2 22P02",
        "GET /-1 public.child 3 22000",
        "GET /-1 public.parent 1 23514",
        "GET /0 public.child 1 23503",
        "GET /0 public.child 2 22P02",
        "GET /0 public.child 3 22000",
        "GET /0 public.parent 1 23514",
        "GET /1 public.child 2 22P02",
        "GET /1 public.child 3 22000",
        "GET /2 public.child 2 22P02",
        "GET /2 public.child 3 22000",
    ];
    assert_eq!(lines.iter().map(short).collect::<Vec<_>>(), expected);
    assert_eq!(
        lines[2],
        json!({"call": "GET /-1", "table": "public.child", "row": 3, "column": "id", "sqlstate": "22000",
               "message": "as it says", "fields": {"id": "of the caller's", "parent": null}})
    );
    assert_eq!(write_call_rejects(&reader, "none", &mut Vec::new()).await.unwrap(), 0);
}

#[tokio::test]
async fn whichever_rows_are_bad_the_others_are_there() {
    let bench = Bench::new("crawl", "CREATE TABLE t (id integer PRIMARY KEY CHECK (id % 10 <> 3), name text)");
    let mut seed = fastrand::Rng::with_seed(7);
    for round in 0..40 {
        let mode = [CrawlMode::Append, CrawlMode::Upsert][round % 2];
        bench.psql("TRUNCATE t");
        let mut options = lenient();
        options.batch_bytes = seed.usize(0..4000);
        let mut load = begin(&bench, &job("t", &["id", "name"], mode), options).await;
        let (mut good, mut bad) = (std::collections::BTreeMap::new(), Vec::new());
        for number in 0..seed.usize(1..8) {
            let key = format!("GET /{number}");
            let mut rows = Vec::new();
            for row in 1..=seed.usize(0..60) {
                let name = format!("{number} {row}");
                let id = seed.i64(0..2000);
                let is_good = match seed.u8(0..12) {
                    0 => {
                        rows.push([json!("x"), json!(name)]);
                        false
                    }
                    1 => {
                        rows.push([json!(id), json!("\0")]);
                        false
                    }
                    _ => {
                        rows.push([json!(id), json!(name)]);
                        id % 10 != 3 && (mode == CrawlMode::Upsert || !good.contains_key(&id))
                    }
                };
                if is_good {
                    good.insert(id, name);
                } else {
                    bad.push(format!("{key}|{row}"));
                }
            }
            call(&mut load, &key, &rows).await.unwrap();
        }
        let outcome = load.finish().await.unwrap();
        let lines = |lines: Vec<String>| lines.join("\n");
        let good = good.into_iter().map(|(id, name)| format!("{id}|{name}"));
        assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), lines(good.collect()), "{round}");
        let rejects = "SELECT key, row FROM bulk.call_reject ORDER BY key COLLATE \"C\", row";
        assert_eq!(bench.psql(rejects), lines(bad.clone()), "{round}");
        assert_eq!(outcome.rejected, bad.len() as u64);
    }
}

#[tokio::test]
async fn no_more_rows_wait_than_there_is_room_for() {
    let bench = Bench::new("crawl", "CREATE TABLE t (name text)");
    let mut options = options();
    options.batch_bytes = 10_000;
    let mut load = begin(&bench, &job("t", &["name"], CrawlMode::Append), options).await;
    let mut holder = session(&bench).await;
    let hold = holder.client_mut().transaction().await.unwrap();
    hold.batch_execute("LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE").await.unwrap();
    let name = json!("y".repeat(2000));
    let mut taken = 0;
    loop {
        let mut call = load.call(format!("{taken}"));
        call.row(0, [Some(&name)]).unwrap();
        // Dropped where it would wait, with the call.
        match call.finish().now_or_never() {
            Some(finished) => finished.unwrap(),
            None => break,
        }
        taken += 1;
        tokio::task::yield_now().await;
    }
    assert_eq!(taken, 20_000 / 2537);
    hold.rollback().await.unwrap();
    call(&mut load, "behind", &[[json!("z")]]).await.unwrap();
    assert_eq!(load.finish().await.unwrap().rows, taken + 1);
}

/// Makes all calls that are not done, of ten rows each: some of them bad, some failing the first time.
async fn run(url: &str, job: &CrawlJob, options: CrawlLoadOptions, made: impl Fn(&str)) -> Result<CrawlOutcome, Error> {
    let mut load = CrawlLoad::begin(Session::connect(url).await?, job, options).await?;
    let keys: Vec<String> = (0..20).map(|number| format!("GET /{number}")).collect();
    let done = load.done(&keys.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let quarantined: Vec<String> = load.quarantined(None, 100).await?.into_iter().map(|call| call.key).collect();
    for (number, key) in keys.iter().enumerate().filter(|(number, _)| !done[*number]) {
        if number % 7 == 3 && !quarantined.contains(key) {
            load.quarantine(QuarantinedCall::new(key.as_str(), "the first time")).await?;
            continue;
        }
        made(key);
        let rows: Vec<_> =
            (0..10).map(|row| if row == number { [json!("bad")] } else { [json!(number * 10 + row)] }).collect();
        call(&mut load, key, &rows).await?;
    }
    load.finish().await
}

fn expected() -> String {
    let ids = (0..20).flat_map(|number| (0..10).filter(move |row| *row != number).map(move |row| number * 10 + row));
    ids.map(|id| id.to_string()).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_cut_anywhere_is_gone_on_with() {
    for mode in [CrawlMode::Append, CrawlMode::Upsert, CrawlMode::Replace] {
        let bench = Arc::new(Bench::new("crawl", "CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (-1)"));
        if mode != CrawlMode::Replace {
            bench.psql("TRUNCATE t");
        }
        let job = job("t", &["id"], mode);
        let made = Mutex::new(Vec::new());
        let mut cuts = 0;
        // Cut behind the first commit of each run, until one has no more.
        let outcome = loop {
            let mut options = lenient();
            (options.batch_bytes, options.batch_time) = (2000, Duration::from_secs(600));
            let (observed, is_cut) = (Arc::clone(&bench), Arc::new(Mutex::new(false)));
            let cut = Arc::clone(&is_cut);
            options.observer = Arc::new(move |event: &Event<'_>| {
                if let Event::Called { .. } = event
                    && !std::mem::replace(&mut *cut.lock().unwrap(), true)
                {
                    observed.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()");
                }
            });
            let note = |key: &str| made.lock().unwrap().push(key.to_owned());
            match run(bench.database.url(), &job, options, note).await {
                Ok(outcome) if outcome.is_complete => break outcome,
                Ok(_) => {}
                Err(_) => cuts += 1,
            }
            // What is committed is there, and nothing else of it is made again.
            let committed = bench.psql("SELECT key FROM bulk.call");
            made.lock().unwrap().retain(|key| committed.lines().any(|line| line == key));
            let old = if mode == CrawlMode::Replace { "-1" } else { "" };
            if !old.is_empty() {
                assert_eq!(bench.psql("SELECT * FROM t"), old);
            }
        };
        assert!(cuts > 5, "{cuts}");
        assert_eq!((outcome.calls, outcome.rows, outcome.rejected, outcome.quarantined), (20, 190, 10, 0));
        let mut made = made.into_inner().unwrap();
        made.sort();
        let count = made.len();
        made.dedup();
        assert_eq!((made.len(), count), (20, 20));
        assert_eq!(bench.psql("SELECT id FROM t ORDER BY id"), expected());
        assert_eq!(bench.psql("SELECT count(*) FROM bulk.call_reject"), "10");
    }
}

/// The database that a program is to crawl into, and the file of the calls that it makes.
const URL: &str = "BULK_TEST_CRAWL_URL";
const MADE: &str = "BULK_TEST_CRAWL_MADE";

/// The program that is killed, and a crawl like others where nobody kills it.
#[tokio::test]
async fn a_program_crawls() {
    let own = std::env::var(URL).is_err().then(|| Bench::new("crawl", "CREATE TABLE t (id integer PRIMARY KEY)"));
    let url = own.as_ref().map_or_else(|| std::env::var(URL).unwrap(), |bench| bench.database.url().to_owned());
    let made = std::env::var(MADE).ok().map(|path| File::options().create(true).append(true).open(path).unwrap());
    let mut options = lenient();
    options.batch_bytes = 0;
    let note = |key: &str| made.iter().for_each(|mut made| writeln!(made, "{key}").unwrap());
    let job = job("t", &["id"], CrawlMode::Append);
    while !run(&url, &job, options.clone(), note).await.unwrap().is_complete {}
    if let Some(bench) = own {
        assert_eq!(bench.psql("SELECT id FROM t ORDER BY id"), expected());
    }
}

#[test]
fn a_program_that_is_killed_repeats_no_committed_call() {
    let slow = "CREATE TABLE t (id integer PRIMARY KEY);
                CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END';
                CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION slow()";
    let bench = Bench::new("crawl", slow);
    let folder = tempfile::tempdir().unwrap();
    let committed = || {
        let has_begun = bench.psql("SELECT to_regclass('bulk.call') IS NOT NULL") == "t";
        let keys = if has_begun { bench.psql("SELECT key FROM bulk.call") } else { String::new() };
        keys.lines().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let mut kills = 0;
    loop {
        let before = committed();
        let path = folder.path().join(kills.to_string());
        let mut program = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_program_crawls"])
            .envs([(URL, bench.database.url()), (MADE, path.to_str().unwrap())])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let ended = loop {
            if let Some(status) = program.try_wait().unwrap() {
                assert!(status.success());
                break true;
            }
            if committed().len() > before.len() + 2 {
                program.kill().unwrap();
                program.wait().unwrap();
                break false;
            }
        };
        let made = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(made.lines().find(|key| before.iter().any(|known| known == key)), None);
        // What is there is what the marks say, at every moment.
        let is_so = "SELECT (SELECT count(*) FROM t) = (SELECT sum(rows) FROM bulk.call)";
        assert_eq!(bench.psql(is_so), "t");
        if ended {
            break;
        }
        kills += 1;
    }
    assert!(kills > 1, "{kills}");
    assert_eq!(bench.psql("SELECT id FROM t ORDER BY id"), expected());
    let counts = "SELECT (SELECT count(*) FROM bulk.call_reject), (SELECT count(*) FROM bulk.quarantine)";
    assert_eq!(bench.psql(counts), "10|0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_within_a_commit_leaves_nothing_of_it() {
    let bench = Bench::new("crawl", "CREATE TABLE t (id integer PRIMARY KEY)");
    let job = job("t", &["id"], CrawlMode::Append);
    let mut small = lenient();
    small.batch_bytes = 0;
    let mut load = begin(&bench, &job, small.clone()).await;
    call(&mut load, "first", &[[json!(0)]]).await.unwrap();
    load.suspend().await.unwrap();
    for place in ["t", "bulk.call_reject", "bulk.call", "bulk.quarantine"] {
        let mut holder = session(&bench).await;
        let hold = holder.client_mut().transaction().await.unwrap();
        let mut load = begin(&bench, &job, small.clone()).await;
        hold.batch_execute(&format!("LOCK TABLE {place} IN SHARE ROW EXCLUSIVE MODE")).await.unwrap();
        call(&mut load, "next", &[[json!(1)], [json!("x")]]).await.unwrap();
        let pid = loop {
            let found = bench.psql(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
            );
            if !found.is_empty() {
                break found;
            }
        };
        bench.psql(&format!("SELECT pg_terminate_backend({pid})"));
        let error = load.finish().await.unwrap_err();
        assert!(error.is_remote(), "{error:?}");
        hold.rollback().await.unwrap();
        let state = "SELECT * FROM t; SELECT key FROM bulk.call; SELECT count(*) FROM bulk.call_reject";
        assert_eq!(bench.psql(state), "0\nfirst\n0", "{place}");
    }
    // Dropped, the load keeps nothing of what was not committed either.
    let mut load = begin(&bench, &job, lenient()).await;
    call(&mut load, "next", &[[json!(1)]]).await.unwrap();
    drop(load);
    let mut load = begin(&bench, &job, lenient()).await;
    assert_eq!(load.done(&["first", "next"]).await.unwrap(), [true, false]);
    call(&mut load, "next", &[[json!(1)], [json!("x")]]).await.unwrap();
    let outcome = load.finish().await.unwrap();
    assert_eq!((outcome.calls, outcome.rows, outcome.rejected), (2, 2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_do_not_wait_for_ever_and_a_call_has_its_limit() {
    let bench = Bench::new("crawl", "CREATE TABLE t (id integer, name text)");
    let job = job("t", &["id", "name"], CrawlMode::Append);
    let (committed, mut commits) = tokio::sync::mpsc::unbounded_channel();
    let mut options = options();
    (options.batch_time, options.call_bytes) = (Duration::from_millis(20), 100_000);
    options.observer = Arc::new(move |event: &Event<'_>| {
        if let Event::Called { calls, rows, .. } = event {
            committed.send((*calls, *rows)).unwrap();
        }
    });
    let mut load = begin(&bench, &job, options).await;
    call(&mut load, "a", &[[json!(1), json!("x")]]).await.unwrap();
    assert_eq!(commits.recv().await, Some((1, 1)));
    assert_eq!(bench.psql("SELECT * FROM t"), "1|x");
    let mut large = load.call("b");
    let (id, name) = (json!(2), json!("y".repeat(60_000)));
    assert!(large.row(0, [Some(&id), Some(&name)]).unwrap());
    let error = large.row(0, [Some(&id), Some(&name)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the crawl stats: b has more than 100000 bytes of rows, which is what one call may have"
    );
    drop(large);
    for (values, error) in [(vec![Some(&id)], "too few"), (vec![Some(&id); 3], "too many")] {
        let error = load.call("c").row(0, values).map_err(|found| (found.to_string(), error)).unwrap_err();
        assert_eq!(error.0, format!("the crawl stats: table 0 of 1 is given {} values", error.1));
    }
    assert_eq!(load.call("c").row(1, []).unwrap_err().to_string(), "the crawl stats: table 1 of 1 is not one of them");
    assert_eq!(load.finish().await.unwrap().rows, 1);
}
