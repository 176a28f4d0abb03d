//! What comes after the rows: foreign keys over orphans, sequences, indexes that are there, triggers that cannot be.

mod support;

use bulk_pg::{
    HeadStart, PostData, PostDataOptions, Schema, Session, TableName, apply_post_data, apply_pre_data, drop_dependents,
    drop_indexes, make_indexes, raise_sequences,
};
use std::slice::from_mut;
use support::{Bench, table};
use tokio_util::sync::CancellationToken;

const SCHEMA: &str = r#"
CREATE TABLE public.court (id text NOT NULL, name text);
CREATE TABLE public.docket (id integer NOT NULL, court_id text, appeal integer);
CREATE TABLE public.pair (a integer NOT NULL, b text NOT NULL);
CREATE TABLE public.half (id integer, a integer, b text);
CREATE SEQUENCE public.docket_id_seq;
ALTER SEQUENCE public.docket_id_seq OWNED BY public.docket.id;
ALTER TABLE ONLY public.docket ALTER COLUMN id SET DEFAULT nextval('public.docket_id_seq'::regclass);
ALTER TABLE ONLY public.court ADD CONSTRAINT court_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.docket ADD CONSTRAINT docket_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.pair ADD CONSTRAINT pair_pkey PRIMARY KEY (a, b);
CREATE INDEX docket_court ON public.docket USING btree (court_id);
ALTER TABLE ONLY public.docket ADD CONSTRAINT docket_court_fk FOREIGN KEY (court_id) REFERENCES public.court(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY public.docket ADD CONSTRAINT docket_appeal_fk FOREIGN KEY (appeal) REFERENCES public.docket(id);
ALTER TABLE ONLY public.half ADD CONSTRAINT "half's ""fk""" FOREIGN KEY (a, b) REFERENCES public.pair;
CREATE TRIGGER stamp BEFORE INSERT ON public.docket FOR EACH ROW EXECUTE FUNCTION public.no_such_function();
CREATE TRIGGER keep BEFORE UPDATE ON public.docket FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
"#;

const ROWS: &str = r#"
INSERT INTO court VALUES ('scotus', 'Supreme Court'), ('ca1', NULL);
INSERT INTO docket VALUES (1, 'scotus', NULL), (2, 'ca9', 1), (3, 'ca9', 1), (40, 'it''s "x", such as \', 2), (5, NULL, 1);
INSERT INTO pair VALUES (1, 'x'), (2, 'y, z');
INSERT INTO half VALUES (1, 1, 'x'), (2, 1, 'y'), (3, NULL, 'q'), (4, 2, 'y, z'), (5, 7, 'a"b');
"#;

/// Makes the tables of the schema, puts rows into them as a load would, and runs what comes after.
struct Loaded {
    bench: Bench,
    session: Session,
    schema: Schema,
}

impl Loaded {
    async fn new(name: &str, schema: &str, rows: &str) -> Self {
        let bench = Bench::new(name, "");
        let session = bench.session().await;
        let mut loaded = Self { bench, session, schema: Schema::parse(schema).unwrap() };
        let wanted: Vec<TableName> = loaded.schema.tables().map(|table| table.name.clone()).collect();
        let mut plan = loaded.schema.plan();
        apply_pre_data(&mut loaded.session, &mut plan, &wanted).await.unwrap();
        loaded.bench.psql(rows);
        loaded
    }

    async fn after(&mut self, loaded: &[&str]) -> PostData {
        let mut plan = self.schema.plan();
        apply_pre_data(&mut self.session, &mut plan, &[]).await.unwrap();
        let tables: Vec<_> = loaded.iter().map(|name| table(name)).collect();
        apply_post_data(from_mut(&mut self.session), &plan, &tables, &PostDataOptions::default()).await.unwrap()
    }

    fn psql(&self, sql: &str) -> String {
        self.bench.psql(sql)
    }

    fn keys(&self) -> String {
        self.psql(
            "SELECT conname, convalidated, obj_description(oid, 'pg_constraint') FROM pg_constraint
             WHERE contype = 'f' AND connamespace = 'public'::regnamespace
             ORDER BY conname",
        )
    }
}

const COURT_NOTE: &str = r#"NOT VALID: 3 rows refer to nothing in public.court, such as ["ca9"]"#;
const HALF_NOTE: &str = r#"NOT VALID: 2 rows refer to nothing in public.pair, such as ["1", "y"]"#;

fn known() -> Vec<(String, String)> {
    vec![("docket_court_fk".to_owned(), COURT_NOTE.to_owned()), ("half's \"fk\"".to_owned(), HALF_NOTE.to_owned())]
}

#[tokio::test]
async fn orphans_are_listed_and_their_keys_stay_not_valid_with_a_note() {
    let mut loaded = Loaded::new("orphans", SCHEMA, ROWS).await;
    let all = ["court", "docket", "pair", "half"];
    let done = loaded.after(&all).await;
    assert_eq!(done.refused, []);
    assert_eq!((done.applied, done.existing, done.sequences), (8, 0, 1));
    let found: Vec<_> = done
        .orphans
        .iter()
        .map(|found| {
            let tables = format!("{:#} {:#}", found.table, found.references);
            (found.constraint.as_str(), tables, found.rows, found.examples.clone())
        })
        .collect();
    assert_eq!(
        found,
        [
            (
                "docket_court_fk",
                "public.docket public.court".to_owned(),
                3,
                vec!["ca9".to_owned(), r#"it's "x", such as \"#.to_owned()]
            ),
            ("half's \"fk\"", "public.half public.pair".to_owned(), 2, vec!["1, y".to_owned(), "7, a\"b".to_owned()]),
        ]
    );
    assert_eq!(
        loaded.keys(),
        format!("docket_appeal_fk|t|\ndocket_court_fk|f|{COURT_NOTE}\nhalf's \"fk\"|f|{HALF_NOTE}")
    );
    // New rows are checked.
    let refused = loaded.session.client().batch_execute("INSERT INTO half VALUES (6, 9, 'z')").await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "23503");
}

#[tokio::test]
async fn a_second_run_changes_nothing_and_remembers_the_orphans() {
    let mut loaded = Loaded::new("second", SCHEMA, ROWS).await;
    loaded.after(&["court", "docket", "pair", "half"]).await;
    let before = loaded.keys();
    let done = loaded.after(&[]).await;
    assert_eq!((done.applied, done.existing, done.sequences), (0, 8, 0));
    assert_eq!((done.orphans.len(), done.refused.len(), done.repaired.len()), (0, 0, 0));
    assert_eq!(done.known_orphans, known());
    assert_eq!(loaded.keys(), before);
}

/// The comment claims something else than the rows say: who believes it did not look at all rows.
#[tokio::test]
async fn known_orphans_are_not_counted_again() {
    let mut loaded = Loaded::new("believed", SCHEMA, ROWS).await;
    loaded.after(&["court", "docket", "pair", "half"]).await;
    let claim = r#"NOT VALID: 99 rows refer to nothing in public.court, such as ["it's \"x\", such as \\"]"#;
    loaded.psql(&format!("COMMENT ON CONSTRAINT docket_court_fk ON docket IS '{}'", claim.replace('\'', "''")));
    let done = loaded.after(&[]).await;
    assert_eq!(done.known_orphans[0], ("docket_court_fk".to_owned(), claim.to_owned()));
    // A load into either table is a reason to look.
    let done = loaded.after(&["court"]).await;
    assert_eq!((done.orphans.len(), done.orphans[0].rows, done.known_orphans.len()), (1, 3, 1));
    assert_eq!(loaded.keys().lines().nth(1).unwrap(), format!("docket_court_fk|f|{COURT_NOTE}"));
}

#[tokio::test]
async fn a_key_whose_orphans_were_repaired_is_validated_by_the_next_run() {
    let mut loaded = Loaded::new("repaired", SCHEMA, ROWS).await;
    loaded.after(&["court", "docket", "pair", "half"]).await;
    // Of one key all orphans, of the other those that the note names.
    loaded.psql(
        r#"INSERT INTO court SELECT DISTINCT court_id FROM docket WHERE court_id IS NOT NULL AND court_id <> 'scotus';
                   DELETE FROM half WHERE b = 'y'"#,
    );
    let done = loaded.after(&[]).await;
    assert_eq!(done.repaired, ["docket_court_fk"]);
    assert_eq!(
        (done.orphans.len(), done.orphans[0].rows, &done.orphans[0].examples[..]),
        (1, 1, &["7, a\"b".to_owned()][..])
    );
    assert_eq!(done.known_orphans, []);
    let note = r#"NOT VALID: 1 row refers to nothing in public.pair, such as ["7", "a\"b"]"#;
    assert_eq!(loaded.keys(), format!("docket_appeal_fk|t|\ndocket_court_fk|t|\nhalf's \"fk\"|f|{note}"));

    loaded.psql("DELETE FROM half WHERE id = 5; ALTER TABLE half VALIDATE CONSTRAINT \"half's \"\"fk\"\"\"");
    let done = loaded.after(&[]).await;
    assert_eq!((done.repaired, done.known_orphans), (vec!["half's \"fk\"".to_owned()], Vec::new()));
    assert_eq!(loaded.keys(), "docket_appeal_fk|t|\ndocket_court_fk|t|\nhalf's \"fk\"|t|");
    let done = loaded.after(&[]).await;
    assert_eq!((done.repaired.len(), done.existing, done.applied), (0, 8, 0));
}

#[tokio::test]
async fn a_note_that_somebody_changed_is_not_believed() {
    for comment in [
        "NOT VALID: because I say so",
        "NOT VALID: x, such as nothing that can be read",
        r#"NOT VALID: x, such as ["a", "b"]"#,
        r#"NOT VALID: x, such as [null]"#,
        r#"NOT VALID: x, such as ["'; DROP TABLE docket; --"]"#,
        "my own words",
    ] {
        let mut loaded = Loaded::new("changed", SCHEMA, ROWS).await;
        loaded.after(&["court", "docket", "pair", "half"]).await;
        loaded.psql(&format!("COMMENT ON CONSTRAINT docket_court_fk ON docket IS '{}'", comment.replace('\'', "''")));
        let done = loaded.after(&[]).await;
        assert_eq!((done.orphans.len(), done.orphans[0].rows), (1, 3), "{comment}");
        assert_eq!(loaded.keys().lines().nth(1).unwrap(), format!("docket_court_fk|f|{COURT_NOTE}"));
    }
}

#[tokio::test]
async fn a_run_that_stopped_before_the_check_is_gone_on_with() {
    let mut loaded = Loaded::new("stopped", SCHEMA, ROWS).await;
    loaded.psql(
        "ALTER TABLE court ADD CONSTRAINT court_pkey PRIMARY KEY (id);
         ALTER TABLE docket ADD CONSTRAINT docket_court_fk FOREIGN KEY (court_id) REFERENCES court NOT VALID",
    );
    let done = loaded.after(&[]).await;
    assert_eq!((done.applied, done.existing, done.refused.len()), (6, 2, 0));
    assert_eq!(done.orphans.len(), 2);
    assert_eq!(loaded.psql("SELECT conname FROM pg_constraint WHERE contype = 'f' AND convalidated AND connamespace = 'public'::regnamespace"), "docket_appeal_fk");
}

#[tokio::test]
async fn triggers_whose_functions_are_missing_are_left_out_and_listed() {
    let mut loaded = Loaded::new("triggers", SCHEMA, ROWS).await;
    let mut plan = loaded.schema.plan();
    apply_pre_data(&mut loaded.session, &mut plan, &[]).await.unwrap();
    let left_out: Vec<_> = plan.left_out.iter().map(ToString::to_string).collect();
    assert_eq!(
        left_out,
        [
            "line 16: CREATE TRIGGER stamp BEFORE INSERT ON public.docket FOR EACH ROW EXECUTE FUNCTION public.…: function \
          public.no_such_function() is neither in the file nor in the database"
        ]
    );
    let done = loaded.after(&["docket"]).await;
    assert_eq!(done.refused, []);
    assert_eq!(loaded.psql("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"), "keep");
}

#[tokio::test]
async fn a_statement_that_the_server_refuses_is_listed_and_the_others_go_on() {
    let rows = "INSERT INTO court VALUES ('a', NULL), ('a', NULL); INSERT INTO docket VALUES (1, 'a', NULL)";
    let mut loaded = Loaded::new("refused", SCHEMA, rows).await;
    let done = loaded.after(&["court", "docket"]).await;
    let refused: Vec<_> = done.refused.iter().map(|refused| (refused.line, refused.reason.as_str())).collect();
    assert_eq!(
        refused,
        [
            (9, "could not create unique index \"court_pkey\" (Key (id)=(a) is duplicated.) [SQLSTATE 23505]"),
            (13, "there is no unique constraint matching given keys for referenced table \"court\" [SQLSTATE 42830]"),
        ]
    );
    assert_eq!((done.applied, done.orphans.len()), (6, 0));
}

#[tokio::test]
async fn what_has_no_name_is_neither_made_by_each_run_nor_dropped_silently() {
    let schema = "CREATE TABLE p (id integer PRIMARY KEY); CREATE TABLE c (id integer, other integer);
                  ALTER TABLE c ADD FOREIGN KEY (id) REFERENCES p(id);
                  CREATE INDEX ON c (other);
                  ALTER TABLE c ADD UNIQUE (id, other);
                  CREATE UNIQUE INDEX c_other ON c (other);
                  ALTER TABLE c ADD UNIQUE USING INDEX c_other;";
    let mut loaded = Loaded::new("nameless", schema, "").await;
    for run in 0..2 {
        let done = loaded.after(&["c"]).await;
        let refused: Vec<_> = done.refused.iter().map(|refused| (refused.line, refused.reason.as_str())).collect();
        let reason = "it has no name, so that a second run could not tell that it is there";
        assert_eq!(refused, [(2, reason), (3, reason), (4, reason), (6, reason)]);
        assert_eq!((done.applied, done.existing), (1 - run, run));
        assert_eq!(loaded.psql("SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'c'::regclass"), "c_other");
        assert_eq!(loaded.keys(), "");
    }
}

#[tokio::test]
async fn indexes_are_made_by_several_sessions_at_once() {
    let mut loaded = Loaded::new("several", SCHEMA, ROWS).await;
    let mut plan = loaded.schema.plan();
    apply_pre_data(&mut loaded.session, &mut plan, &[]).await.unwrap();
    let mut sessions = vec![loaded.bench.session().await, loaded.bench.session().await, loaded.bench.session().await];
    let done = apply_post_data(&mut sessions, &plan, &[table("docket")], &PostDataOptions::default()).await.unwrap();
    assert_eq!((done.applied, done.orphans.len(), done.refused.len()), (8, 2, 0));
    assert_eq!(
        loaded.psql("SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace = 'public'::regnamespace AND indisvalid"),
        "4"
    );
}

#[tokio::test]
async fn sequences_are_raised_to_the_largest_value_and_never_lowered() {
    let schema = r#"
        CREATE TABLE owned (id integer NOT NULL, other bigint, word text);
        CREATE SEQUENCE owned_id_seq AS integer OWNED BY owned.id;
        ALTER TABLE owned ALTER COLUMN id SET DEFAULT nextval('owned_id_seq');
        CREATE SEQUENCE word_seq OWNED BY owned.word;
        CREATE TABLE "Identity" ("Id" bigint NOT NULL);
        ALTER TABLE "Identity" ALTER COLUMN "Id" ADD GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME "Seq ""x""");
        CREATE TABLE empty (id integer NOT NULL);
        CREATE SEQUENCE empty_seq OWNED BY empty.id;
        CREATE SEQUENCE shared_seq;
        CREATE TABLE defaulted (id integer DEFAULT nextval('shared_seq') NOT NULL);
        CREATE TABLE odd (down integer, high integer, small integer);
        CREATE SEQUENCE down_seq INCREMENT -1 MAXVALUE 100 START 100 OWNED BY odd.down;
        CREATE SEQUENCE high_seq MINVALUE 1000 OWNED BY odd.high;
        CREATE SEQUENCE small_seq MAXVALUE 10 OWNED BY odd.small;
    "#;
    let rows = r#"
        INSERT INTO owned VALUES (17, 99, '500'), (3, NULL, NULL);
        INSERT INTO "Identity" OVERRIDING SYSTEM VALUE VALUES (5000000000), (-3);
        INSERT INTO defaulted VALUES (40);
        INSERT INTO odd VALUES (7, 7, 70);
    "#;
    let mut loaded = Loaded::new("sequences", schema, rows).await;
    let names = ["owned", "\"Identity\"", "empty", "defaulted", "odd"];
    let done = loaded.after(&names).await;
    assert_eq!((done.sequences, done.refused.len()), (3, 0));
    let values = r#"SELECT (SELECT last_value || ' ' || is_called FROM owned_id_seq), (SELECT is_called FROM word_seq),
                           (SELECT last_value || ' ' || is_called FROM "Seq ""x"""), (SELECT is_called FROM empty_seq),
                           (SELECT last_value || ' ' || is_called FROM shared_seq), (SELECT is_called FROM down_seq),
                           (SELECT is_called FROM high_seq), (SELECT is_called FROM small_seq)"#;
    assert_eq!(loaded.psql(values), "17 true|f|5000000000 true|f|40 true|f|f|f");
    assert_eq!(loaded.psql("INSERT INTO owned DEFAULT VALUES RETURNING id"), "18");
    assert_eq!(loaded.psql("INSERT INTO \"Identity\" DEFAULT VALUES RETURNING \"Id\""), "5000000001");

    // Values that were given out and deleted are not given out again.
    loaded.psql("SELECT setval('owned_id_seq', 1000)");
    assert_eq!(loaded.after(&names).await.sequences, 0);
    assert_eq!(loaded.psql("SELECT nextval('owned_id_seq')"), "1001");
}

#[tokio::test]
async fn what_a_sequence_was_set_to_is_not_lowered_before_it_is_drawn_from() {
    let bench = Bench::new(
        "raised",
        "CREATE SEQUENCE high START 1000; CREATE SEQUENCE set; CREATE SEQUENCE even; SELECT setval('set', 500, false);
         SELECT setval('even', 7, false);
         CREATE TABLE t (a integer DEFAULT nextval('high'), b integer DEFAULT nextval('set'),
                         c integer DEFAULT nextval('even'), d integer GENERATED ALWAYS AS IDENTITY);
         INSERT INTO t (a, b, c, d) OVERRIDING SYSTEM VALUE VALUES (7, 7, 7, 7)",
    );
    let session = bench.session().await;
    let done = raise_sequences(&session, &table("t")).await.unwrap();
    assert_eq!((done.raised, done.refused), (2, vec![]));
    assert_eq!(bench.psql("INSERT INTO t DEFAULT VALUES RETURNING *"), "1000|500|8|8");
    assert_eq!(raise_sequences(&session, &table("t")).await.unwrap().raised, 0);

    // What is not allowed is told, and what is allowed is done. Of the second one and those of the other table it cannot be read
    // what they were set to; one of these has been drawn from.
    bench.psql(
        "INSERT INTO t (a, b, c, d) OVERRIDING SYSTEM VALUE VALUES (9000, 9000, 9000, 9000);
         CREATE SCHEMA hidden; CREATE SEQUENCE hidden.drawn; CREATE SEQUENCE hidden.restarted; SELECT nextval('hidden.drawn');
         ALTER SEQUENCE hidden.restarted RESTART WITH 7000;
         CREATE TABLE of_hidden (a integer DEFAULT nextval('hidden.drawn'), b integer DEFAULT nextval('hidden.restarted'));
         INSERT INTO of_hidden VALUES (5000, 5000)",
    );
    let role = format!("loader_{}", std::process::id());
    bench.psql(&format!(
        "CREATE ROLE {role}; GRANT SELECT, INSERT ON t TO {role}; GRANT USAGE ON SEQUENCE high TO {role};
         GRANT USAGE, UPDATE ON SEQUENCE set TO {role}; GRANT SELECT, UPDATE ON SEQUENCE even TO {role};
         GRANT SELECT, INSERT ON of_hidden TO {role}; GRANT ALL ON ALL SEQUENCES IN SCHEMA hidden TO {role}"
    ));
    session.client().batch_execute(&format!("SET SESSION AUTHORIZATION {role}")).await.unwrap();
    let done = raise_sequences(&session, &table("t")).await;
    let of_hidden = raise_sequences(&session, &table("of_hidden")).await;
    bench.psql(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    let (done, of_hidden) = (done.unwrap(), of_hidden.unwrap());
    let refused: Vec<String> = of_hidden.refused.iter().map(|name| format!("{name:#}")).collect();
    assert_eq!((of_hidden.raised, refused), (1, vec!["hidden.restarted".to_owned()]));
    assert_eq!(bench.psql("SELECT nextval('hidden.drawn'), nextval('hidden.restarted')"), "5001|7000");
    assert_eq!((done.raised, done.refused), (2, vec![table("high"), table("t_d_seq")]));
    assert_eq!(bench.psql("INSERT INTO t DEFAULT VALUES RETURNING *"), "1001|9001|9001|9");
}

#[tokio::test]
async fn a_stop_ends_it_between_two_statements_and_the_next_run_goes_on() {
    let mut loaded = Loaded::new("stop", SCHEMA, "INSERT INTO docket VALUES (1, NULL, NULL)").await;
    let stop = CancellationToken::new();
    let (cancel, steps) = (stop.clone(), std::sync::Arc::new(std::sync::Mutex::new(0)));
    let count = steps.clone();
    let observer = move |_: &bulk_pg::Event<'_>| {
        *count.lock().unwrap() += 1;
        cancel.cancel();
    };
    let mut plan = loaded.schema.plan();
    apply_pre_data(&mut loaded.session, &mut plan, &[]).await.unwrap();
    let tables = [table("docket")];
    let sessions = from_mut(&mut loaded.session);
    let mut options = PostDataOptions::default();
    (options.observer, options.stop) = (std::sync::Arc::new(observer), stop);
    let error = apply_post_data(sessions, &plan, &tables, &options).await.unwrap_err();
    assert!(matches!(error, bulk_pg::Error::Stopped { .. }), "{error}");
    let made = "SELECT (SELECT count(*) FROM pg_constraint WHERE connamespace = 'public'::regnamespace)
                     + (SELECT count(*) FROM pg_class WHERE relname = 'docket_court')";
    assert_eq!((*steps.lock().unwrap(), loaded.psql(made).as_str()), (1, "1"));

    let done = loaded.after(&["docket"]).await;
    assert_eq!(done.existing, 1);
    assert_eq!(loaded.psql("SELECT count(*) FROM pg_constraint WHERE NOT convalidated"), "0");
}

#[tokio::test]
async fn what_stands_in_the_way_of_a_second_load_is_dropped_and_made_again() {
    let mut loaded = Loaded::new(
        "again",
        SCHEMA,
        "INSERT INTO court VALUES ('ca9', NULL); INSERT INTO docket VALUES (1, 'ca9', NULL)",
    )
    .await;
    loaded.after(&["court", "docket"]).await;
    let keys = loaded.keys();
    let mut plan = loaded.schema.plan();
    apply_pre_data(&mut loaded.session, &mut plan, &[]).await.unwrap();
    let of_docket = "SELECT count(*) FROM pg_constraint WHERE contype = 'f'
                     AND 'docket'::regclass IN (conrelid, confrelid)";
    assert_ne!(loaded.psql(of_docket), "0");

    let dropped = drop_dependents(&mut loaded.session, &plan, &[table("docket")]).await.unwrap();
    assert!(dropped > 0);
    assert_eq!(loaded.psql(of_docket), "0");
    // A child before its parent, as the order of sizes may have it.
    loaded.psql(
        "TRUNCATE docket; INSERT INTO docket VALUES (7, 'scotus', NULL); INSERT INTO court VALUES ('scotus', NULL)",
    );
    assert_eq!(drop_dependents(&mut loaded.session, &plan, &[table("docket")]).await.unwrap(), 0);
    loaded.after(&["docket", "court"]).await;
    assert_eq!(loaded.keys(), keys);
}

#[tokio::test]
async fn a_head_start_makes_the_indexes_of_one_table_and_leaves_what_is_refused() {
    let mut loaded = Loaded::new("head_start", SCHEMA, ROWS).await;
    let options = PostDataOptions::default();
    let definitions = loaded.schema.definitions().to_vec();
    let head = make_indexes(&loaded.session, &table("docket"), &definitions, &options).await.unwrap();
    assert_eq!((head.made, head.is_analyzed), (2, true));
    let indexes = "SELECT indexname FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1";
    assert_eq!(loaded.psql(indexes), "docket_court\ndocket_pkey");
    // -1 before, in the versions that know it.
    assert_eq!(loaded.psql("SELECT reltuples > 0 FROM pg_class WHERE oid = 'docket'::regclass"), "t");
    assert_eq!(make_indexes(&loaded.session, &table("docket"), &definitions, &options).await.unwrap().made, 0);
    // It is said by those who come after.
    loaded.psql("INSERT INTO pair VALUES (1, 'x')");
    let head = make_indexes(&loaded.session, &table("pair"), &definitions, &options).await.unwrap();
    assert_eq!((head.made, head.is_analyzed), (0, false));
    let done = loaded.after(&["court", "docket", "pair", "half"]).await;
    let refused: Vec<_> = done.refused.iter().map(|refused| refused.line).collect();
    assert_eq!((refused.first().copied(), done.existing), (Some(11), 2));
}

#[tokio::test]
async fn what_is_analyzed_already_is_not_analyzed_again() {
    let mut loaded = Loaded::new("analyzed", SCHEMA, ROWS).await;
    let (plan, tables) = (loaded.schema.plan(), [table("court"), table("docket")]);
    let mut options = PostDataOptions::default();
    options.analyzed = vec![table("docket")];
    apply_post_data(from_mut(&mut loaded.session), &plan, &tables, &options).await.unwrap();
    let analyzed = "SELECT DISTINCT tablename FROM pg_stats WHERE schemaname = 'public'";
    assert_eq!(loaded.psql(analyzed), "court");
}

#[tokio::test]
async fn a_head_start_leaves_alone_what_is_made_as_it_was() {
    let mut loaded = Loaded::new("head_start_dropped", SCHEMA, ROWS).await;
    loaded.after(&["court"]).await;
    assert!(drop_indexes(&mut loaded.session, &[table("docket")]).await.unwrap() > 0);
    let definitions = loaded.schema.definitions().to_vec();
    let made = make_indexes(&loaded.session, &table("docket"), &definitions, &PostDataOptions::default()).await;
    assert_eq!(made.unwrap(), HeadStart::default());
}
