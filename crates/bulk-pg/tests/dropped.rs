//! Foreign keys and triggers that stand in the way of a load: dropped, and made again as they were.

mod support;

use std::slice::from_mut;
use std::sync::Mutex;

use bulk_pg::{
    Error, Event, PostData, PostDataOptions, Schema, Session, apply_post_data, drop_dependents, load, restart,
    restart_with_plan,
};
use support::{Bench, chain, file, table, whole};
use tokio_util::sync::CancellationToken;

/// What is in the database.
const DDL: &str = r#"
    CREATE TABLE court (id text PRIMARY KEY);
    CREATE TABLE docket (id integer PRIMARY KEY, court_id text, "Other" text);
    CREATE TABLE entry (id integer, docket_id integer);
    CREATE SCHEMA app;
    CREATE FUNCTION app.stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    ALTER TABLE docket ADD CONSTRAINT docket_court FOREIGN KEY (court_id) REFERENCES court ON DELETE CASCADE DEFERRABLE;
    COMMENT ON CONSTRAINT docket_court ON docket IS 'it''s \ mine';
    ALTER TABLE docket ADD CONSTRAINT "Docket's ""other""" FOREIGN KEY ("Other") REFERENCES court NOT VALID;
    ALTER TABLE entry ADD CONSTRAINT entry_docket FOREIGN KEY (docket_id) REFERENCES docket;
    CREATE TRIGGER stamp AFTER UPDATE OF court_id ON docket FOR EACH ROW WHEN (NEW.id > 7) EXECUTE FUNCTION app.stamp();
    CREATE TRIGGER "Off" BEFORE INSERT ON docket FOR EACH ROW EXECUTE FUNCTION app.stamp();
    CREATE TRIGGER "Always" BEFORE INSERT ON docket FOR EACH ROW EXECUTE FUNCTION app.stamp();
    ALTER TABLE docket DISABLE TRIGGER "Off";
    ALTER TABLE docket ENABLE ALWAYS TRIGGER "Always";
    COMMENT ON TRIGGER stamp ON docket IS 'of mine';
"#;

/// What the schema file would make under the same names.
const FILE: &str = r#"
    CREATE TABLE court (id text PRIMARY KEY);
    CREATE TABLE docket (id integer PRIMARY KEY, court_id text, "Other" text);
    CREATE TABLE entry (id integer, docket_id integer);
    ALTER TABLE docket ADD CONSTRAINT docket_court FOREIGN KEY (court_id) REFERENCES court(id);
    ALTER TABLE docket ADD CONSTRAINT "Docket's ""other""" FOREIGN KEY ("Other") REFERENCES court(id) NOT VALID;
    ALTER TABLE entry ADD CONSTRAINT entry_docket FOREIGN KEY (docket_id) REFERENCES docket(id);
    CREATE TRIGGER stamp BEFORE INSERT ON docket FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
    CREATE TRIGGER "Off" BEFORE INSERT ON docket FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
    CREATE TRIGGER "Always" BEFORE INSERT ON docket FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
"#;

const STAMP: &str = "CREATE TRIGGER stamp AFTER UPDATE OF court_id ON public.docket FOR EACH ROW WHEN ((new.id > 7)) \
                     EXECUTE FUNCTION app.stamp()|O|of mine";

/// All foreign keys and triggers, with everything that could get lost.
fn dependents(bench: &Bench) -> String {
    bench.psql(
        "SELECT conrelid::regclass, pg_get_constraintdef(oid), convalidated, obj_description(oid, 'pg_constraint')
         FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace ORDER BY conname;
         SELECT pg_get_triggerdef(oid), tgenabled, obj_description(oid, 'pg_trigger')
         FROM pg_trigger WHERE NOT tgisinternal ORDER BY tgname",
    )
}

fn noted(bench: &Bench) -> String {
    bench.psql("SELECT count(*) FROM bulk.dropped")
}

fn docket() -> [bulk_pg::TableName; 1] {
    [table("docket")]
}

async fn drop_all(session: &mut Session, schema: &Schema) -> usize {
    drop_dependents(session, &schema.plan(), &docket()).await.unwrap()
}

async fn after(session: &mut Session, schema: &Schema) -> PostData {
    let sessions = std::slice::from_mut(session);
    apply_post_data(sessions, &schema.plan(), &[], &PostDataOptions::default()).await.unwrap()
}

async fn load_into(session: &mut Session, name: &str, csv: &[u8]) {
    load(from_mut(session), &table(name), &file(name, csv), whole(csv), &Default::default()).await.unwrap();
}

#[tokio::test]
async fn what_somebody_changed_comes_back_as_it_was_and_not_as_the_file_has_it() {
    for next in [FILE, "", "CREATE TABLE unrelated (id integer);"] {
        let bench = Bench::new("changed", DDL);
        let before = dependents(&bench);
        assert!(before.contains(STAMP), "{before}");
        let mut session = bench.session().await;
        // Two keys and three triggers; the key to the table does not hinder.
        assert_eq!(drop_all(&mut session, &Schema::parse(FILE).unwrap()).await, 5);
        assert_eq!(dependents(&bench), "entry|FOREIGN KEY (docket_id) REFERENCES docket(id)|t|");
        assert_eq!(noted(&bench), "5");
        // The program ends here, by whatever ends it, and the next run has this schema file or another or none.
        drop(session);
        let done = after(&mut bench.session().await, &Schema::parse(next).unwrap()).await;
        assert_eq!(dependents(&bench), before, "{next}");
        let existing = if next == FILE { 6 } else { 0 };
        assert_eq!((done.applied, done.existing, done.restored, noted(&bench).as_str()), (0, existing, 5, "0"));
        assert_eq!((done.refused, done.not_restored, done.orphans), (vec![], vec![], vec![]));
    }
}

#[tokio::test]
async fn a_key_that_the_new_rows_violate_comes_back_not_valid_with_its_orphans() {
    let bench = Bench::new("violated", DDL);
    let mut session = bench.session().await;
    let schema = Schema::parse(FILE).unwrap();
    drop_all(&mut session, &schema).await;
    bench.psql("INSERT INTO docket VALUES (1, 'ca9', 'ca9'), (2, 'ca9', 'ca1')");
    let done = after(&mut session, &Schema::default()).await;
    let found: Vec<_> = done.orphans.iter().map(|found| (found.constraint.as_str(), found.rows)).collect();
    // The one that nobody had checked is not checked now.
    assert_eq!(found, [("docket_court", 2)]);
    let key = "docket|FOREIGN KEY (court_id) REFERENCES court(id) ON DELETE CASCADE DEFERRABLE NOT VALID|f|\
               NOT VALID: 2 rows refer to nothing in public.court, such as [\"ca9\"]";
    assert!(dependents(&bench).contains(key), "{}", dependents(&bench));
    assert_eq!(noted(&bench), "0");

    // What a run found violated is checked again when it was dropped again.
    drop_all(&mut session, &schema).await;
    bench.psql("INSERT INTO court VALUES ('ca9')");
    let done = after(&mut session, &Schema::default()).await;
    assert_eq!((done.repaired, done.orphans), (vec!["docket_court".to_owned()], vec![]));
    let key = "docket|FOREIGN KEY (court_id) REFERENCES court(id) ON DELETE CASCADE DEFERRABLE|t|\n";
    assert!(dependents(&bench).contains(key), "{}", dependents(&bench));
}

/// Stops before the second statement, which is the first check, as a kill there would.
async fn stop_before_the_check(session: &mut Session) {
    let stop = CancellationToken::new();
    let (cancel, steps) = (stop.clone(), std::sync::Arc::new(Mutex::new(Vec::new())));
    let seen = steps.clone();
    let observer = move |event: &Event<'_>| {
        let Event::Step { what } = event else { return };
        let mut seen = seen.lock().unwrap();
        seen.push(what.to_string());
        if seen.len() == 2 {
            cancel.cancel();
        }
    };
    let plan = Schema::default();
    let sessions = std::slice::from_mut(session);
    let mut options = PostDataOptions::default();
    (options.observer, options.stop) = (std::sync::Arc::new(observer), stop);
    let error = apply_post_data(sessions, &plan.plan(), &[], &options).await.unwrap_err();
    assert!(matches!(error, Error::Stopped { .. }), "{error}");
    assert!(steps.lock().unwrap().iter().all(|step| step.contains("ADD CONSTRAINT")), "{steps:?}");
}

#[tokio::test]
async fn a_key_that_was_made_again_and_not_checked_is_checked_by_the_next_run() {
    let bench = Bench::new("unchecked", DDL);
    let before = dependents(&bench);
    let mut session = bench.session().await;
    let schema = Schema::parse(FILE).unwrap();
    drop_all(&mut session, &schema).await;
    stop_before_the_check(&mut session).await;
    let unchecked = "SELECT conname, convalidated FROM pg_constraint WHERE conname = 'docket_court'";
    assert_eq!(bench.psql(unchecked), "docket_court|f");
    drop(session);
    let mut session = bench.session().await;
    after(&mut session, &Schema::default()).await;
    assert_eq!((dependents(&bench), noted(&bench)), (before.clone(), "0".to_owned()));

    // Or it is dropped again before that.
    drop_all(&mut session, &schema).await;
    stop_before_the_check(&mut session).await;
    drop_all(&mut session, &schema).await;
    after(&mut session, &Schema::default()).await;
    assert_eq!((dependents(&bench), noted(&bench)), (before, "0".to_owned()));
}

#[tokio::test]
async fn what_cannot_be_made_again_is_listed_and_kept_and_nothing_takes_its_place() {
    let bench = Bench::new("refused", DDL);
    let before = dependents(&bench);
    let mut session = bench.session().await;
    let schema = Schema::parse(FILE).unwrap();
    drop_all(&mut session, &schema).await;
    bench.psql("ALTER TABLE docket RENAME court_id TO court; ALTER FUNCTION app.stamp RENAME TO other");
    let done = after(&mut session, &schema).await;
    let refused: Vec<_> = done
        .not_restored
        .iter()
        .map(|item| format!("{:#} {:#}: {}", item.table, item.name, item.reason.rsplit(" [").next().unwrap()))
        .collect();
    assert_eq!(
        refused,
        [
            "public.docket docket_court: SQLSTATE 42703]",
            "public.docket stamp: SQLSTATE 42883]",
            "public.docket \"Off\": SQLSTATE 42883]",
            "public.docket \"Always\": SQLSTATE 42883]",
        ]
    );
    assert_eq!(
        done.not_restored[0].statement,
        "ALTER TABLE \"public\".\"docket\" ADD CONSTRAINT \"docket_court\" FOREIGN KEY (court_id) REFERENCES \
         public.court(id) ON DELETE CASCADE DEFERRABLE NOT VALID"
    );
    assert_eq!((done.refused, done.restored, noted(&bench).as_str()), (vec![], 1, "4"));
    assert_eq!(bench.psql("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"), "0");
    bench.psql("ALTER TABLE docket RENAME court TO court_id; ALTER FUNCTION app.other RENAME TO stamp");
    after(&mut session, &schema).await;
    assert_eq!((dependents(&bench), noted(&bench)), (before, "0".to_owned()));
}

#[tokio::test]
async fn what_somebody_made_in_the_meantime_stands_and_what_belongs_to_no_table_is_forgotten() {
    let bench = Bench::new("meantime", DDL);
    let mut session = bench.session().await;
    let schema = Schema::parse(FILE).unwrap();
    drop_all(&mut session, &schema).await;
    bench.psql("ALTER TABLE docket ADD CONSTRAINT docket_court FOREIGN KEY (court_id) REFERENCES court");
    let done = after(&mut session, &Schema::default()).await;
    assert_eq!((done.restored, noted(&bench).as_str()), (4, "0"));
    assert!(dependents(&bench).contains("docket|FOREIGN KEY (court_id) REFERENCES court(id)|t|\n"));

    drop_all(&mut session, &schema).await;
    bench.psql("DROP TABLE court");
    let done = after(&mut session, &Schema::default()).await;
    // The triggers; there is nothing that the keys could refer to.
    assert_eq!((done.restored, done.not_restored, noted(&bench).as_str()), (3, vec![], "0"));
    drop_all(&mut session, &schema).await;
    bench.psql("DROP TABLE docket CASCADE");
    let done = after(&mut session, &Schema::default()).await;
    assert_eq!((done.restored, done.not_restored, noted(&bench).as_str()), (0, vec![], "0"));
}

#[tokio::test]
async fn a_restart_that_is_refused_has_dropped_nothing() {
    let bench = Bench::new("refusal", DDL);
    let mut session = bench.session().await;
    let schema = Schema::parse(FILE).unwrap();
    load_into(&mut session, "court", b"id\nca9\n").await;
    load_into(&mut session, "docket", b"id,court_id\n1,ca9\n").await;
    // Rows of somebody's, though the schema file has the table and the key.
    bench.psql("INSERT INTO entry VALUES (1, 1)");
    let before = dependents(&bench);
    let both = [table("docket"), table("court")];
    for tables in [&both[..], &both[..1]] {
        let error = restart_with_plan(&mut session, &schema.plan(), tables).await.unwrap_err();
        assert_eq!(
            chain(&error),
            "table public.entry refers to a table that is to be loaded anew, and has rows of its own; empty it first"
        );
        assert_eq!((dependents(&bench), noted(&bench)), (before.clone(), "0".to_owned()));
    }
    bench.psql("TRUNCATE entry");
    // Another session loads, or only reads; it is waited for as long as for any lock.
    let other = bench.session().await;
    let oid = bench.psql("SELECT 'docket'::regclass::oid");
    for (hold, release, said) in [
        (
            format!("SELECT pg_advisory_lock({}, {oid})", 0x6275_6c6b),
            "SELECT pg_advisory_unlock_all()",
            "table public.docket is being loaded by another session; wait for it, or stop it",
        ),
        (
            "BEGIN; SELECT FROM docket".to_owned(),
            "COMMIT",
            "table public.docket is in use by another session; wait until its transaction ends, or end it",
        ),
        (
            "BEGIN; SELECT FROM entry".to_owned(),
            "COMMIT",
            "table public.entry is in use by another session; wait until its transaction ends, or end it",
        ),
    ] {
        other.client().batch_execute(&hold).await.unwrap();
        let error = restart_with_plan(&mut session, &schema.plan(), &both).await.unwrap_err();
        assert_eq!(chain(&error), said);
        assert!(matches!(error, Error::Occupied { .. }));
        other.client().batch_execute(release).await.unwrap();
        assert_eq!((dependents(&bench), noted(&bench)), (before.clone(), "0".to_owned()));
        assert_eq!(bench.psql("SELECT (SELECT count(*) FROM court), (SELECT count(*) FROM docket)"), "1|1");
    }
    assert_eq!(restart_with_plan(&mut session, &schema.plan(), &both).await.unwrap(), 5);
    assert_eq!(bench.psql("SELECT (SELECT count(*) FROM court), (SELECT count(*) FROM docket)"), "0|0");
    assert_eq!(bench.psql("SELECT count(*) FROM bulk.load"), "0");
    after(&mut session, &schema).await;
    assert_eq!((dependents(&bench), noted(&bench)), (before, "0".to_owned()));
}

#[tokio::test]
async fn a_parent_alone_is_loaded_anew_under_children_that_this_program_has_loaded() {
    let bench = Bench::new("parent", DDL);
    let mut session = bench.session().await;
    let schema = Schema::parse(FILE).unwrap();
    load_into(&mut session, "court", b"id\nca9\nca1\n").await;
    load_into(&mut session, "docket", b"id,court_id\n1,ca9\n2,ca1\n").await;
    let court = [table("court")];
    // Not by a restart without a plan, which drops nothing.
    let error = restart(&mut session, &court).await.unwrap_err();
    assert!(matches!(&error, Error::Occupied { table, .. } if *table == docket()[0]), "{}", chain(&error));
    let before = dependents(&bench);
    // Of the child's triggers none fires for it.
    assert_eq!(restart_with_plan(&mut session, &schema.plan(), &court).await.unwrap(), 2);
    assert_eq!(bench.psql("SELECT (SELECT count(*) FROM court), (SELECT count(*) FROM docket)"), "0|2");
    load_into(&mut session, "court", b"id\nca9\n").await;
    let done = after(&mut session, &Schema::default()).await;
    let found: Vec<_> = done.orphans.iter().map(|found| (found.constraint.as_str(), found.rows)).collect();
    assert_eq!((found, done.restored), (vec![("docket_court", 1)], 2));
    bench.psql("INSERT INTO court VALUES ('ca1')");
    // The key is in the plan, which tries again where the note's orphan is gone.
    after(&mut session, &schema).await;
    let mine = "COMMENT ON CONSTRAINT docket_court ON docket IS 'it''s \\ mine'";
    bench.psql(mine);
    assert_eq!((dependents(&bench), noted(&bench)), (before, "0".to_owned()));
}

#[tokio::test]
async fn an_empty_child_keeps_its_key_while_its_parent_is_loaded() {
    let bench = Bench::new("empty", DDL);
    let mut session = bench.session().await;
    let schema = Schema::parse(FILE).unwrap();
    load_into(&mut session, "court", b"id\nca9\n").await;
    let before = dependents(&bench);
    let court = [table("court")];
    assert_eq!(drop_dependents(&mut session, &schema.plan(), &court).await.unwrap(), 0);
    assert_eq!(restart_with_plan(&mut session, &schema.plan(), &court).await.unwrap(), 0);
    assert_eq!(bench.psql("SELECT count(*) FROM court"), "0");
    load_into(&mut session, "court", b"id\nca9\n").await;
    assert_eq!((dependents(&bench), noted(&bench)), (before, "0".to_owned()));
}

#[tokio::test]
async fn a_table_in_use_is_named_and_not_waited_for_without_end() {
    let bench = Bench::new("in_use", DDL);
    let before = dependents(&bench);
    let mut session = bench.session().await;
    let schema = Schema::parse(FILE).unwrap();
    let other = bench.session().await;
    // A key locks the table that it refers to as well.
    for name in ["docket", "court"] {
        other.client().batch_execute(&format!("BEGIN; SELECT FROM {name}")).await.unwrap();
        let error = drop_dependents(&mut session, &schema.plan(), &docket()).await.unwrap_err();
        assert_eq!(
            chain(&error),
            format!("table public.{name} is in use by another session; wait until its transaction ends, or end it")
        );
        other.client().batch_execute("COMMIT").await.unwrap();
        assert_eq!((dependents(&bench), noted(&bench)), (before.clone(), "0".to_owned()));
    }
    assert_eq!(drop_all(&mut session, &schema).await, 5);
}

#[tokio::test]
async fn keys_of_a_partitioned_table_come_back_too() {
    let bench = Bench::new(
        "partitions",
        "CREATE TABLE court (id text PRIMARY KEY);
         CREATE TABLE docket (id integer, court_id text REFERENCES court) PARTITION BY RANGE (id);
         CREATE TABLE low PARTITION OF docket FOR VALUES FROM (0) TO (10);
         CREATE TRIGGER keep BEFORE UPDATE ON docket FOR EACH ROW
         EXECUTE FUNCTION suppress_redundant_updates_trigger();",
    );
    let before = dependents(&bench);
    let file = "ALTER TABLE docket ADD CONSTRAINT docket_court_id_fkey FOREIGN KEY (court_id) REFERENCES court(id);
                CREATE TRIGGER keep BEFORE UPDATE ON docket FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();";
    let mut session = bench.session().await;
    assert_eq!(drop_all(&mut session, &Schema::parse(file).unwrap()).await, 2);
    assert_eq!(dependents(&bench), "");
    after(&mut session, &Schema::default()).await;
    assert_eq!((dependents(&bench), noted(&bench)), (before, "0".to_owned()));
}
