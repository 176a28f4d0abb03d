//! New tables take the places of old ones, with all that belongs to these, in one moment.

mod support;

use std::slice::from_mut;
use std::time::Duration;

use bulk_pg::{
    Error, FileIdentity, LoadOptions, PostDataOptions, Session, Swap, SwapOptions, TableName, apply_post_data,
    count_rows, drop_swapped, find_loaded, is_staged, load, prepare_swap, restart, settle, swap,
};
use support::{Bench, chain, table, whole};
use tokio_util::sync::CancellationToken;

const DDL: &str = r#"
    CREATE SCHEMA app;
    CREATE FUNCTION app.stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TABLE court (id text PRIMARY KEY, name text COLLATE "C" DEFAULT 'none' NOT NULL) WITH (fillfactor = 70);
    CREATE TABLE app."Docket" (
        id serial, n bigint GENERATED ALWAYS AS IDENTITY, court text, twice integer GENERATED ALWAYS AS (id * 2) STORED,
        parent integer, CONSTRAINT positive CHECK (id > 0), CONSTRAINT "Docket's key" PRIMARY KEY (id));
    ALTER TABLE app."Docket" ADD CONSTRAINT docket_court FOREIGN KEY (court) REFERENCES court DEFERRABLE;
    ALTER TABLE app."Docket" ADD CONSTRAINT docket_parent FOREIGN KEY (parent) REFERENCES app."Docket";
    CREATE INDEX "by court" ON app."Docket" USING btree (court DESC) WHERE court <> ' ON app."Docket" USING ';
    CREATE UNIQUE INDEX docket_n ON app."Docket" (n);
    ALTER TABLE app."Docket" CLUSTER ON docket_n, REPLICA IDENTITY USING INDEX docket_n;
    CREATE STATISTICS app.s ON id, n FROM app."Docket";
    CREATE TRIGGER stamp BEFORE UPDATE ON app."Docket" FOR EACH ROW WHEN (NEW.id > 7) EXECUTE FUNCTION app.stamp();
    CREATE TRIGGER "off" BEFORE INSERT ON app."Docket" FOR EACH ROW EXECUTE FUNCTION app.stamp();
    ALTER TABLE app."Docket" DISABLE TRIGGER "off";
    ALTER TABLE app."Docket" ALTER COLUMN court SET STATISTICS 7;
    COMMENT ON TABLE app."Docket" IS 'it''s \ mine'; COMMENT ON COLUMN app."Docket".court IS 'where';
    CREATE TABLE empty (id integer, court text CONSTRAINT empty_court REFERENCES court ON DELETE CASCADE);
    COMMENT ON CONSTRAINT empty_court ON empty IS 'mine, too';
    CREATE TABLE parent_of_all (id integer PRIMARY KEY);
    INSERT INTO court VALUES ('a', 'old'); INSERT INTO app."Docket" (court) VALUES ('a'), ('a');
"#;

const COURT: &[u8] = b"id,name\nb,new\nc,new\n";
const DOCKET: &[u8] = b"id,n,court,parent\n2,5,b,\n9,6,c,2\n";

fn docket() -> TableName {
    TableName::new("app", "Docket").unwrap()
}

fn file(name: &str, csv: &[u8]) -> FileIdentity {
    FileIdentity::new(name, Some("v2".to_owned()), csv.len() as u64)
}

fn files() -> Vec<(TableName, FileIdentity, LoadOptions)> {
    let options = LoadOptions::default;
    vec![(docket(), file("docket.csv", DOCKET), options()), (table("court"), file("court.csv", COURT), options())]
}

/// All that makes a table what it is, without numbers that differ from table to table.
fn structure(bench: &Bench) -> String {
    bench.psql(
        r#"SELECT attrelid::regclass::text, attname, attnum, format_type(atttypid, atttypmod), attnotnull, attidentity,
                  attgenerated, attcollation, attstattarget, pg_get_expr(adbin, adrelid), attacl,
                  col_description(attrelid, attnum), pg_get_serial_sequence(attrelid::regclass::text, attname)
           FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
           WHERE attrelid IN ('court'::regclass, 'app."Docket"'::regclass) AND attnum > 0 ORDER BY 1, 3;
           SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated,
                  obj_description(oid, 'pg_constraint')
           FROM pg_constraint WHERE connamespace IN ('public'::regnamespace, 'app'::regnamespace) ORDER BY 1, 2;
           SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid), indisclustered, indisreplident FROM pg_index
           WHERE indrelid IN ('court'::regclass, 'app."Docket"'::regclass) ORDER BY 1;
           SELECT pg_get_triggerdef(oid), tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1;
           SELECT oid::regclass::text, relkind, relacl, relowner::regrole, reloptions, relreplident, relpersistence,
                  obj_description(oid, 'pg_class')
           FROM pg_class WHERE relnamespace IN ('public'::regnamespace, 'app'::regnamespace) ORDER BY 1;
           SELECT stxrelid::regclass, stxkeys FROM pg_statistic_ext"#,
    )
}

async fn fill(session: &mut Session, tables: &Swap) {
    for (name, csv) in [("docket.csv", DOCKET), ("court.csv", COURT)] {
        let old = if name == "docket.csv" { docket() } else { table("court") };
        let twin = tables.twin(&old).unwrap();
        load(from_mut(session), twin, &file(name, csv), whole(csv), &LoadOptions::default()).await.unwrap();
    }
}

async fn complete(session: &mut Session, tables: &Swap) {
    let (schema, twins) = (tables.schema().unwrap(), tables.twins());
    let done = apply_post_data(from_mut(session), &schema.plan(), &twins, &PostDataOptions::default()).await.unwrap();
    assert_eq!((done.refused, done.orphans, done.not_restored), (vec![], vec![], vec![]));
    for twin in &twins {
        assert!(count_rows(session, twin).await.unwrap().matches());
    }
    settle(session, &twins).await.unwrap();
}

#[tokio::test]
async fn new_tables_are_what_the_old_ones_were_with_other_rows() {
    let bench = Bench::new("swap", DDL);
    bench.psql(
        r#"GRANT SELECT ON court TO pg_monitor WITH GRANT OPTION; GRANT UPDATE (name) ON court TO PUBLIC;
           GRANT USAGE ON SEQUENCE app."Docket_id_seq" TO pg_monitor; REVOKE DELETE ON app."Docket" FROM postgres;
           ALTER DEFAULT PRIVILEGES GRANT INSERT ON TABLES TO pg_monitor"#,
    );
    let before = structure(&bench);
    let mut session = bench.session().await;
    let tables = prepare_swap(&mut session, &files()).await.unwrap();
    fill(&mut session, &tables).await;
    complete(&mut session, &tables).await;
    assert_eq!(bench.psql("SELECT * FROM court; SELECT count(*) FROM app.\"Docket\""), "a|old\n2");
    swap(&mut session, &tables, &SwapOptions::default()).await.unwrap();
    assert_eq!(
        bench.psql("SELECT * FROM court ORDER BY 1; SELECT * FROM app.\"Docket\" ORDER BY 1"),
        "b|new\nc|new\n2|5|b|4|\n9|6|c|18|2"
    );
    assert_eq!(drop_swapped(&mut session).await.unwrap(), 2);
    assert_eq!(drop_swapped(&mut session).await.unwrap(), 0);
    assert_eq!(structure(&bench), before);
    assert_eq!(bench.psql("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'bulk%' ORDER BY 1"), "bulk");
    assert_eq!(bench.psql("SELECT count(*) FROM bulk.swap"), "0");
    // Sequences go on behind the rows, or where they were.
    assert_eq!(bench.psql("INSERT INTO app.\"Docket\" (court) VALUES ('c') RETURNING id, n"), "10|7");
    for (name, identity, options) in files() {
        let found = find_loaded(&session, &name, &identity, &options).await.unwrap();
        assert_eq!(found, Some(2));
    }
    assert_eq!(bench.psql("SELECT count(*), bool_and(settled_at IS NOT NULL) FROM bulk.load"), "2|t");
    bench.psql("ALTER DEFAULT PRIVILEGES REVOKE INSERT ON TABLES FROM pg_monitor");
}

#[tokio::test]
async fn sequences_do_not_go_back() {
    let bench = Bench::new("sequences", DDL);
    bench.psql("SELECT setval('app.\"Docket_id_seq\"', 70), setval('app.\"Docket_n_seq\"', 80)");
    let mut session = bench.session().await;
    let tables = prepare_swap(&mut session, &files()).await.unwrap();
    fill(&mut session, &tables).await;
    complete(&mut session, &tables).await;
    let mut options = SwapOptions::default();
    options.keep_old = true;
    swap(&mut session, &tables, &options).await.unwrap();
    assert_eq!(drop_swapped(&mut session).await.unwrap(), 0);
    assert_eq!(bench.psql("INSERT INTO app.\"Docket\" (court) VALUES ('c') RETURNING id, n"), "71|81");
    // What was there is kept, and works on.
    let old = bench.psql(
        "SELECT oid::regclass FROM pg_class WHERE relname = 'Docket' AND relnamespace::regnamespace::text ~ 'old'",
    );
    assert!(old.starts_with("bulk_old_"), "{old}");
    assert_eq!(bench.psql(&format!("INSERT INTO {old} (court) VALUES ('a') RETURNING id, n")), "71|81");
    assert_eq!(bench.psql(&format!("SELECT count(*) FROM {old}")), "3");
}

#[tokio::test]
async fn what_would_go_with_an_old_table_is_named_before_anything_is_done() {
    for (ddl, named) in [
        ("CREATE VIEW v AS SELECT id FROM court", "rule _RETURN on view public.v"),
        ("CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM court", "rule _RETURN on materialized view public.m"),
        ("CREATE RULE r AS ON UPDATE TO court DO ALSO NOTHING", "rule r on table public.court"),
        ("INSERT INTO empty VALUES (1, 'a')", "foreign key empty_court of public.empty, which has rows"),
        ("CREATE TABLE u (c court)", "column"),
        ("CREATE FUNCTION f() RETURNS SETOF court LANGUAGE sql AS 'SELECT * FROM public.court'", "function public.f()"),
        ("CREATE POLICY p ON court USING (true)", "policy p on table public.court"),
        ("ALTER TABLE court ENABLE ROW LEVEL SECURITY", "it has row level security"),
        ("CREATE TABLE child () INHERITS (court)", "table public.child"),
        ("CREATE PUBLICATION p FOR TABLE court", "publication of table public.court in publication p"),
        ("ALTER TABLE court INHERIT older", "it inherits"),
    ] {
        let bench = Bench::new("entangled", DDL);
        if ddl.contains("older") {
            bench.psql("CREATE TABLE older (id text NOT NULL, name text COLLATE \"C\" NOT NULL)");
        }
        bench.psql(ddl);
        let mut session = bench.session().await;
        let error = prepare_swap(&mut session, &files()).await.unwrap_err();
        assert!(matches!(error, Error::Occupied { .. }) && chain(&error).contains(named), "{ddl}: {}", chain(&error));
        assert_eq!(bench.psql("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'bulk\\_next%'"), "0");
    }
}

#[tokio::test]
async fn what_changes_in_the_meantime_is_seen_and_an_interrupted_swap_goes_on() {
    let bench = Bench::new("meantime", DDL);
    let mut session = bench.session().await;
    let tables = prepare_swap(&mut session, &files()).await.unwrap();
    let error = swap(&mut session, &tables, &SwapOptions::default()).await.unwrap_err();
    assert!(chain(&error).contains("the new table is not loaded"), "{}", chain(&error));
    fill(&mut session, &tables).await;
    // The program ends here; the next run finds the rows.
    drop(session);
    let mut session = bench.session().await;
    let tables = prepare_swap(&mut session, &files()).await.unwrap();
    let twin = tables.twin(&docket()).unwrap();
    let found = find_loaded(&session, twin, &files()[0].1, &LoadOptions::default()).await.unwrap();
    assert_eq!(found, Some(2));
    complete(&mut session, &tables).await;
    for (sql, what) in [
        ("CREATE VIEW v AS SELECT id FROM court", "rule _RETURN on view public.v"),
        ("DROP VIEW v; CREATE INDEX later ON court (name)", "was altered"),
    ] {
        bench.psql(sql);
        let error = swap(&mut session, &tables, &SwapOptions::default()).await.unwrap_err();
        assert!(chain(&error).contains(what), "{}", chain(&error));
        assert_eq!(bench.psql("SELECT * FROM court"), "a|old");
    }
    // Rows stay where only what follows them is another; they go where columns are, or the file.
    let tables = prepare_swap(&mut session, &files()).await.unwrap();
    assert_eq!(bench.psql(&format!("SELECT count(*) FROM {}", tables.twin(&table("court")).unwrap())), "2");
    bench.psql("ALTER TABLE court ADD more integer");
    let mut other = files();
    other[0].1 = file("docket.csv", b"another");
    let tables = prepare_swap(&mut session, &other).await.unwrap();
    for twin in tables.twins() {
        assert_eq!(bench.psql(&format!("SELECT count(*) FROM {twin}")), "0");
    }
    assert_eq!(bench.psql("SELECT count(*) FROM bulk.load"), "0");
}

#[tokio::test]
async fn a_new_table_is_made_anew_where_its_file_is_to_be_read_in_another_way() {
    let bench = Bench::new("reading", "CREATE TABLE court (id text PRIMARY KEY, name text)");
    let mut session = bench.session().await;
    let mut named = LoadOptions::default();
    named.header = Some(vec!["id".to_owned(), "name".to_owned()]);
    for (options, left) in [(&named, "3"), (&LoadOptions::default(), "0")] {
        let files = [(table("court"), file("court.csv", COURT), named.clone())];
        let tables = prepare_swap(&mut session, &files).await.unwrap();
        let twin = tables.twin(&table("court")).unwrap();
        load(from_mut(&mut session), twin, &files[0].1, whole(COURT), &named).await.unwrap();
        let files = [(table("court"), file("court.csv", COURT), options.clone())];
        let tables = prepare_swap(&mut session, &files).await.unwrap();
        assert_eq!(bench.psql(&format!("SELECT count(*) FROM {}", tables.twin(&table("court")).unwrap())), left);
    }
    assert_eq!(bench.psql("SELECT count(*) FROM bulk.load"), "0");
}

#[tokio::test]
async fn what_an_interrupted_swap_or_refresh_has_left_goes_with_a_change_of_mind() {
    let bench = Bench::new("leftover", DDL);
    let mut session = bench.session().await;
    let left = || {
        bench.psql(
            "SELECT (SELECT string_agg(target_table, ' ' ORDER BY target_table = 'court') FROM bulk.swap),
                    (SELECT string_agg(target_table, ' ' ORDER BY target_table = 'court') FROM bulk.refresh),
                    (SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'bulk\\_next\\_%'),
                    (SELECT count(*) FROM pg_class WHERE relname ~ '^refresh_[0-9]' AND relkind = 'r'),
                    (SELECT string_agg(file_key || ' ' || (target_schema LIKE 'bulk_next%'), ', '
                                       ORDER BY file_key, target_schema LIKE 'bulk_next%') FROM bulk.load)",
        )
    };
    let tables = prepare_swap(&mut session, &files()).await.unwrap();
    fill(&mut session, &tables).await;
    complete(&mut session, &tables).await;
    assert_eq!(left(), "Docket court||2|0|court.csv true, docket.csv true");

    // The new table of the one that is to be refreshed goes, and the other stays, to which it had a foreign key.
    let mut staging = LoadOptions::default();
    staging.stage = true;
    let identity = file("court.csv", COURT);
    load(from_mut(&mut session), &table("court"), &identity, whole(COURT), &staging).await.unwrap();
    assert_eq!(left(), "Docket|court|1|1|court.csv false, docket.csv true");
    assert!(is_staged(&session, &table("court"), &identity, &staging).await.unwrap());

    let tables = prepare_swap(&mut session, &files()).await.unwrap();
    assert_eq!(left(), "Docket court||2|0|docket.csv true");
    fill(&mut session, &tables).await;
    complete(&mut session, &tables).await;
    swap(&mut session, &tables, &SwapOptions::default()).await.unwrap();
    assert_eq!(drop_swapped(&mut session).await.unwrap(), 2);
    assert_eq!(left(), "||0|0|court.csv false, docket.csv false");
    assert_eq!(bench.psql("SELECT count(*), min(name) FROM court"), "2|new");

    // A restart takes both.
    let tables = prepare_swap(&mut session, &files()).await.unwrap();
    fill(&mut session, &tables).await;
    assert_eq!(left(), "Docket court||2|0|court.csv false, court.csv true, docket.csv false, docket.csv true");
    restart(&mut session, &[docket(), table("court")]).await.unwrap();
    assert_eq!(left(), "||0|0|");
    assert_eq!(bench.psql("SELECT (SELECT count(*) FROM court), (SELECT count(*) FROM app.\"Docket\")"), "0|0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_long_reader_is_waited_for_and_holds_up_nobody_else() {
    let bench = Bench::new("reader", DDL);
    let mut session = bench.session().await;
    let tables = prepare_swap(&mut session, &files()).await.unwrap();
    fill(&mut session, &tables).await;
    complete(&mut session, &tables).await;

    let mut impatient = SwapOptions::default();
    impatient.patience = Duration::ZERO;
    let long = bench.session().await;
    long.client().batch_execute("BEGIN; SELECT FROM court").await.unwrap();
    let error = swap(&mut session, &tables, &impatient).await.unwrap_err();
    assert!(chain(&error).contains("is in use by other sessions all the time"), "{}", chain(&error));
    assert!(matches!(error, Error::Occupied { .. }));

    let swapping = async { swap(&mut session, &tables, &SwapOptions::default()).await.unwrap() };
    let reading = async {
        // It waits for the long reader, and this one behind it; both of them get what they want.
        bench.waits("query LIKE 'LOCK TABLE%ACCESS EXCLUSIVE%'").await;
        assert_eq!(bench.psql("SELECT * FROM court"), "a|old");
        let row = long.client().query_one("SELECT name FROM court", &[]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), "old");
        long.client().batch_execute("COMMIT").await.unwrap();
    };
    futures::join!(swapping, reading);
    assert_eq!(bench.psql("SELECT count(*), min(name) FROM court"), "2|new");
    // A query that began before goes on with what it began with.
    assert_eq!(drop_swapped(&mut session).await.unwrap(), 2);
}

/// Somebody who looks all the time sees all old tables or all new ones, and never an empty one.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn no_reader_sees_a_mixture_or_nothing() {
    let bench = Bench::new("mixture", DDL);
    let mut session = bench.session().await;
    let stop = CancellationToken::new();
    let (reader, done) = (bench.session().await, stop.clone());
    let reading = tokio::spawn(async move {
        let mut seen = Vec::new();
        while !done.is_cancelled() {
            let sql = "SELECT (SELECT string_agg(id, '' ORDER BY id) FROM court) || (SELECT count(*) FROM app.\"Docket\" \
                       WHERE court IN (SELECT id FROM court))";
            let row = reader.client().query_one(sql, &[]).await.unwrap();
            let now: Option<String> = row.get(0);
            if seen.last() != Some(&now) {
                seen.push(now);
            }
        }
        seen
    });
    let tables = prepare_swap(&mut session, &files()).await.unwrap();
    fill(&mut session, &tables).await;
    complete(&mut session, &tables).await;
    swap(&mut session, &tables, &SwapOptions::default()).await.unwrap();
    drop_swapped(&mut session).await.unwrap();
    assert_eq!(bench.psql("SELECT count(*) FROM court"), "2");
    stop.cancel();
    let seen: Vec<_> = reading.await.unwrap().into_iter().map(Option::unwrap).collect();
    assert!(
        ["a2", "bc2"].starts_with(&seen.iter().map(String::as_str).collect::<Vec<_>>()) || seen == ["bc2"],
        "{seen:?}"
    );
}
