//! What rows become in the tables.

use bulk_pg::{CrawlJob, CrawlLoad, CrawlMode, CrawlTable};
use serde_json::{Value, json};

use crate::support::{Bench, table};
use crate::{begin, call, job, options, parse, session};

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
        "table public.none does not exist in the database"
    );
    let mut mixed = job("t", &["id"], CrawlMode::Append);
    mixed.tables.push(CrawlTable::new(table("t"), ["id"], CrawlMode::Replace));
    assert_eq!(fails(mixed).await, "the crawl stats: either all of its tables are replaced or none");
    assert_eq!(fails(CrawlJob::new("stats", vec![])).await, "the crawl stats: it has no table");
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
