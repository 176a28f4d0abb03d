//! New tables in place of old ones.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bulk_pg::{CrawlJob, CrawlLoad, CrawlMode, CrawlTable, Error, Event, QuarantinedCall, Session, drop_indexes};
use serde_json::json;

use crate::support::{Bench, table};
use crate::{OLD, begin, call, call_two, job, lenient, options, session, two};

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

/// They would go with the old rows, by the key's own word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_other_tables_that_come_meanwhile_keep_the_old_ones() {
    let bench = Bench::new(
        "crawl",
        "CREATE TABLE p (id integer PRIMARY KEY); INSERT INTO p VALUES (1), (2); CREATE VIEW v AS SELECT * FROM p;
         CREATE TABLE child (p integer REFERENCES p ON DELETE CASCADE)",
    );
    let job = job("p", &["id"], CrawlMode::Replace);
    let rows = "SELECT string_agg(id::text, ',' ORDER BY id), (SELECT string_agg(p::text, ',') FROM child) FROM v";
    let assert_kept = |ended: Result<bool, Error>| {
        let error = ended.unwrap_err();
        assert!(matches!(error, Error::Occupied { .. }), "{error:?}");
        assert!(error.to_string().contains("of public.child, which has rows"), "{error}");
        assert_eq!(bench.psql(rows), "1,2|1");
    };
    let mut load = begin(&bench, &job, options()).await;
    call(&mut load, "a", &[[json!(1)], [json!(3)]]).await.unwrap();
    bench.psql("INSERT INTO child VALUES (1)");
    assert_kept(load.finish().await.map(|outcome| outcome.is_complete));
    assert_kept(CrawlLoad::begin(session(&bench).await, &job, options()).await.map(|load| load.is_published()));

    // One that is under way when the tables are looked at.
    bench.psql("DELETE FROM child");
    let mut load = begin(&bench, &job, options()).await;
    assert_eq!(load.done(&["a"]).await.unwrap(), [true]);
    let other = session(&bench).await;
    other.client().batch_execute("BEGIN; INSERT INTO child VALUES (1)").await.unwrap();
    let finishing = tokio::spawn(load.finish());
    bench.waits("state = 'active'").await;
    other.client().batch_execute("COMMIT").await.unwrap();
    assert_kept(finishing.await.unwrap().map(|outcome| outcome.is_complete));

    bench.psql("DELETE FROM child");
    assert!(begin(&bench, &job, options()).await.finish().await.unwrap().is_complete);
    assert_eq!(bench.psql(rows), "1,3|");
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

#[tokio::test]
async fn a_key_of_another_roles_table_is_named_before_the_first_call() {
    let bench =
        Bench::new("crawl", "CREATE TABLE t (id integer PRIMARY KEY); CREATE TABLE child (t integer REFERENCES t)");
    let job = job("t", &["id"], CrawlMode::Replace);
    let role = format!("replacer_{}", std::process::id());
    bench.psql(&format!("CREATE ROLE {role}; ALTER TABLE t OWNER TO {role}; CREATE VIEW v AS SELECT FROM t"));
    let limited = session(&bench).await;
    limited.client().batch_execute(&format!("SET SESSION AUTHORIZATION {role}")).await.unwrap();
    let mut said = Vec::new();
    // Where the rows are replaced the other table is locked, and where the table is it is altered.
    for sql in [
        "",
        &format!("GRANT UPDATE ON child TO {role}"),
        &format!("GRANT SELECT ON child TO {role}"),
        "DROP VIEW v; REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        &format!("GRANT CREATE ON SCHEMA public TO {role}"),
        &format!("ALTER TABLE child OWNER TO {role}"),
    ] {
        bench.psql(sql);
        said.push(job.check_tables(&limited).await.map_err(|error| error.to_string()));
    }
    bench.psql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    let wanted = [
        Some("of public.child, which this role may not lock: it has no right to UPDATE, DELETE or TRUNCATE it; "),
        Some("of public.child, which this role may not read, so that nobody knows whether it has rows; "),
        None,
        Some("this role may not CREATE in its schema public"),
        Some("of public.child, which is another role's; "),
        None,
    ];
    for (said, wanted) in said.iter().zip(wanted) {
        match (said, wanted) {
            (Err(said), Some(wanted)) => assert!(said.contains(wanted), "{said}"),
            _ => assert_eq!((said, wanted), (&Ok(()), None)),
        }
    }
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
