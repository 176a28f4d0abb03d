//! Indexes that are dropped for a load come back as they were, whatever ends the runs between.

mod support;

use std::slice::from_mut;
use std::sync::{Arc, Mutex};

use bulk_pg::{
    Error, Event, LoadOptions, PostDataOptions, Session, apply_post_data, drop_indexes, has_dropped, load,
    restore_dependents,
};
use support::{Bench, file, table, whole};
use tokio_util::sync::CancellationToken;

const DDL: &str = r#"
CREATE TABLE court (id text PRIMARY KEY);
INSERT INTO court VALUES ('ca1'), ('ca2');
CREATE TABLE "a docket" (
    id int, court text REFERENCES court DEFERRABLE, appeal int, name text, added date,
    CONSTRAINT "the key" PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT docket_unique UNIQUE (court, name) INCLUDE (added),
    CONSTRAINT docket_later UNIQUE (added, id) DEFERRABLE
);
COMMENT ON CONSTRAINT docket_unique ON "a docket" IS 'it''s one';
CREATE UNIQUE INDEX docket_name ON "a docket" (lower(name) DESC NULLS LAST) WHERE added > '2000-01-01';
CREATE INDEX docket_hash ON "a docket" USING hash (court);
CREATE INDEX docket_brin ON "a docket" USING brin (added) WITH (pages_per_range = 4);
COMMENT ON INDEX docket_brin IS 'small';
"#;

const CSV: &str = "id,court,appeal,name,added\n1,ca1,,x,2020-01-01\n2,ca2,1,y,2020-01-02\n3,ca1,2,z,1999-01-01\n";

/// Everything that is to come back.
fn everything(bench: &Bench) -> String {
    bench.psql(
        "SELECT pg_get_indexdef(indexrelid), obj_description(indexrelid, 'pg_class') FROM pg_index
         WHERE indrelid::regclass::text ~ 'docket' ORDER BY 1;
         SELECT conname, pg_get_constraintdef(oid), convalidated, obj_description(oid, 'pg_constraint') FROM pg_constraint
         WHERE conrelid::regclass::text ~ 'docket' AND contype <> 'n' ORDER BY 1",
    )
}

async fn load_docket(sessions: &mut [Session], csv: &'static str) -> bulk_pg::Loaded {
    let (table, identity) = (table("\"a docket\""), file("docket.csv", csv.as_bytes()));
    load(sessions, &table, &identity, whole(csv.as_bytes()), &LoadOptions::default()).await.unwrap()
}

#[tokio::test]
async fn all_come_back_as_they_were() {
    let bench = Bench::new("back", DDL);
    let before = everything(&bench);
    let mut sessions = [bench.session().await, bench.session().await];
    let tables = [table("\"a docket\"")];
    assert!(!has_dropped(&sessions[0], &tables).await.unwrap());
    assert_eq!(drop_indexes(&mut sessions[0], &tables).await.unwrap(), 7);
    assert_eq!(everything(&bench), "");
    assert!(has_dropped(&sessions[0], &tables).await.unwrap());
    // A run that was killed here; the next one finds nothing to drop.
    assert_eq!(drop_indexes(&mut sessions[0], &tables).await.unwrap(), 0);
    load_docket(&mut sessions, CSV).await;

    // What belongs to others stays for them.
    let others = restore_dependents(&mut sessions, &[table("court")], &PostDataOptions::default()).await.unwrap();
    assert_eq!((others.restored, everything(&bench).as_str()), (0, ""));
    let done = restore_dependents(&mut sessions, &tables, &PostDataOptions::default()).await.unwrap();
    assert_eq!((done.restored, done.not_restored.len(), done.orphans.len()), (7, 0, 0));
    assert_eq!(everything(&bench), before);
    assert!(!has_dropped(&sessions[0], &tables).await.unwrap());
    assert_eq!(bench.psql("SELECT count(*) FROM bulk.dropped"), "0");
    assert_eq!(bench.psql("SELECT count(*) FROM pg_stats WHERE tablename = 'a docket' AND attname = 'id'"), "1");
}

#[tokio::test]
async fn a_stop_anywhere_leaves_the_rest_to_the_next_run() {
    let bench = Bench::new("anywhere", DDL);
    let before = everything(&bench);
    let mut session = bench.session().await;
    let tables = [table("\"a docket\"")];
    for stop_at in 1.. {
        drop_indexes(&mut session, &tables).await.unwrap();
        let (steps, mut options) = (Arc::new(Mutex::new(0)), PostDataOptions::default());
        let (stop, count) = (options.stop.clone(), steps.clone());
        options.observer = Arc::new(move |_: &Event<'_>| {
            let mut steps = count.lock().unwrap();
            *steps += 1;
            if *steps == stop_at {
                stop.cancel();
            }
        });
        let stopped = restore_dependents(from_mut(&mut session), &tables, &options).await;
        options.stop = CancellationToken::new();
        options.observer = Arc::new(());
        let ends = stopped.is_ok();
        assert!(ends || matches!(stopped, Err(Error::Stopped { .. })));
        let done = apply_post_data(from_mut(&mut session), &Default::default(), &[], &options).await.unwrap();
        assert_eq!(
            (done.not_restored.len(), everything(&bench).as_str()),
            (0, before.as_str()),
            "stopped at {stop_at}"
        );
        if ends {
            assert!(stop_at > 8, "{stop_at}");
            break;
        }
    }
}

#[tokio::test]
async fn what_others_need_is_left_alone() {
    // No key refers to a constraint that can be deferred.
    let ddl = DDL.replace("PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED", "PRIMARY KEY (id)");
    let ddl = format!("{ddl} CREATE TABLE entry (docket int REFERENCES \"a docket\" DEFERRABLE);");
    let bench = Bench::new("alone", &ddl);
    bench.psql(
        "CREATE TABLE held (id int PRIMARY KEY, n int NOT NULL UNIQUE, m int, box box, EXCLUDE USING gist (box WITH &&));
         ALTER TABLE held REPLICA IDENTITY USING INDEX held_n_key;
         CREATE INDEX held_m ON held (m); CLUSTER held USING held_m;
         CREATE VIEW viewed AS SELECT id, m FROM held GROUP BY id;
         CREATE INDEX held_plain ON held (m, n)",
    );
    let mut session = bench.session().await;
    let tables = [table("\"a docket\""), table("held")];
    assert_eq!(drop_indexes(&mut session, &tables).await.unwrap(), 7);
    assert_eq!(
        bench.psql(
            r#"SELECT indexrelid::regclass::text COLLATE "C" FROM pg_index
               WHERE indrelid >= 16384 AND indrelid::regclass::text !~ '^(bulk|pg)' ORDER BY 1"#
        ),
        "\"the key\"\ncourt_pkey\nheld_box_excl\nheld_m\nheld_n_key\nheld_pkey"
    );
    let done = restore_dependents(from_mut(&mut session), &tables, &PostDataOptions::default()).await.unwrap();
    assert_eq!((done.restored, done.not_restored.len()), (7, 0));
}

#[tokio::test]
async fn one_that_the_rows_forbid_stays_written_down_until_they_allow_it() {
    let bench = Bench::new("forbidden", DDL);
    let before = everything(&bench);
    let mut session = bench.session().await;
    let tables = [table("\"a docket\"")];
    drop_indexes(&mut session, &tables).await.unwrap();
    load_docket(from_mut(&mut session), "id,court,name\n7,ca1,x\n7,ca9,y\n").await;
    let options = PostDataOptions::default();
    let done = restore_dependents(from_mut(&mut session), &tables, &options).await.unwrap();
    assert_eq!((done.restored, done.orphans.len()), (6, 1));
    let refused: Vec<_> =
        done.not_restored.iter().map(|refused| (refused.name.as_str(), &refused.reason[..])).collect();
    let reason = "could not create unique index \"the key\" (Key (id)=(7) is duplicated.) [SQLSTATE 23505]";
    assert_eq!(refused, [("the key", reason)]);

    bench.psql("DELETE FROM \"a docket\" WHERE court = 'ca9'");
    let done = restore_dependents(from_mut(&mut session), &tables, &options).await.unwrap();
    assert_eq!((done.restored, done.not_restored.len(), done.orphans.len()), (1, 0, 0));
    bench.psql("ALTER TABLE \"a docket\" VALIDATE CONSTRAINT \"a docket_court_fkey\"");
    bench.psql("COMMENT ON CONSTRAINT \"a docket_court_fkey\" ON \"a docket\" IS NULL");
    assert_eq!(everything(&bench), before);
}
