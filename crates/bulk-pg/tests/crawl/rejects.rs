//! Rows that their table cannot hold, and rows that refer to others.

use bulk_pg::{CrawlJob, CrawlMode, CrawlTable, write_call_rejects};
use serde_json::{Value, json};

use crate::support::{Bench, table};
use crate::{begin, call, job, lenient, options, parse, session};

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
        "the crawl stats: more than 1 row is bad; the first one too many: row 2 for public.t of b: duplicate key value violates \
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
        "the crawl families: 2 rows refer to rows that have not come, and 1 is left out already, which is more than the 2 \
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
