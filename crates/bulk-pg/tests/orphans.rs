//! Rows that refer to nothing are moved to `bulk.reject`, with all that refers to them.

mod support;

use std::collections::BTreeMap;
use std::slice::from_mut;

use bulk_pg::{
    LoadOptions, OrphanPolicy, PostData, PostDataOptions, Schema, Session, apply_post_data, apply_pre_data,
    count_rejects, count_rows, load, write_rejects,
};
use support::{Bench, file, table, whole};

const SCHEMA: &str = r#"
CREATE TABLE public.court (id text NOT NULL, name text);
CREATE TABLE public.docket (id integer NOT NULL, court_id text, appeal integer, note text);
CREATE TABLE public."the entry" (docket integer, number integer, "what's" jsonb);
CREATE TABLE public.half (a integer, b integer);
ALTER TABLE ONLY public.court ADD CONSTRAINT court_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.docket ADD CONSTRAINT docket_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public."the entry" ADD CONSTRAINT entry_pkey PRIMARY KEY (docket, number);
ALTER TABLE ONLY public.docket ADD CONSTRAINT docket_court_fk FOREIGN KEY (court_id) REFERENCES public.court(id) DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY public.docket ADD CONSTRAINT docket_appeal_fk FOREIGN KEY (appeal) REFERENCES public.docket(id) ON DELETE CASCADE;
ALTER TABLE ONLY public."the entry" ADD CONSTRAINT "entry's fk" FOREIGN KEY (docket) REFERENCES public.docket(id);
ALTER TABLE ONLY public.half ADD CONSTRAINT half_fk FOREIGN KEY (a, b) REFERENCES public."the entry";
CREATE TRIGGER log BEFORE DELETE ON public.docket FOR EACH ROW EXECUTE FUNCTION public.log();
"#;

const FILES: [(&str, &str); 4] = [
    ("court", "id,name\nscotus,Supreme\nca1,\n"),
    // 2 and 5 refer to no court, 3 and 6 to them, 4 to 3.
    (
        "docket",
        "id,court_id,appeal,note\n1,scotus,,\n2,ca9,1,\"x, \"\"y\"\"\"\n3,ca1,2,\n4,ca1,3,\n5,ca8,,\n6,scotus,5,\n7,ca1,1,\n",
    ),
    ("the entry", "docket,number,what's\n1,1,{}\n1,2,\n2,1,\"{\"\"k\"\": 1.50}\"\n4,1,\n7,1,\n"),
    ("half", "a,b\n1,1\n1,\n4,1\n9,9\n"),
];

struct Loaded {
    bench: Bench,
    session: Session,
    schema: Schema,
}

impl Loaded {
    async fn new(name: &str) -> Self {
        let function = "CREATE TABLE logged (id int);
            CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN INSERT INTO logged VALUES (old.id); RETURN old; END'";
        let bench = Bench::new(name, function);
        let mut session = bench.session().await;
        let schema = Schema::parse(SCHEMA).unwrap();
        let wanted: Vec<_> = FILES.iter().map(|(name, _)| table(&quoted(name))).collect();
        apply_pre_data(&mut session, &mut schema.plan(), &wanted).await.unwrap();
        for (name, csv) in FILES {
            let (table, identity) = (table(&quoted(name)), file(name, csv.as_bytes()));
            let options = LoadOptions::default();
            load(from_mut(&mut session), &table, &identity, whole(csv.as_bytes()), &options).await.unwrap();
        }
        Self { bench, session, schema }
    }

    async fn after(&mut self, orphans: OrphanPolicy, loaded: &[&str]) -> PostData {
        let mut plan = self.schema.plan();
        apply_pre_data(&mut self.session, &mut plan, &[]).await.unwrap();
        let tables: Vec<_> = loaded.iter().map(|name| table(&quoted(name))).collect();
        let mut options = PostDataOptions::default();
        options.orphans = orphans;
        apply_post_data(from_mut(&mut self.session), &plan, &tables, &options).await.unwrap()
    }

    fn rows(&self) -> [String; 4] {
        FILES.map(|(name, _)| {
            let sql = format!("SELECT string_agg(t::text, ' ' ORDER BY t::text) FROM {} t", quoted(name));
            self.bench.psql(&sql)
        })
    }

    fn invalid(&self) -> String {
        self.bench.psql(
            "SELECT string_agg(conname, ' ' ORDER BY conname) FROM pg_constraint WHERE contype = 'f' AND NOT convalidated",
        )
    }
}

fn quoted(name: &str) -> String {
    format!("public.\"{name}\"")
}

const ALL: [&str; 4] = ["court", "docket", "the entry", "half"];

const KEPT: [&str; 4] = ["(ca1,) (scotus,Supreme)", "(1,scotus,,) (7,ca1,1,)", "(1,1,{}) (1,2,) (7,1,)", "(1,) (1,1)"];

#[tokio::test]
async fn orphans_go_with_all_that_refers_to_them_and_their_keys_are_valid() {
    let mut loaded = Loaded::new("reject").await;
    let done = loaded.after(OrphanPolicy::Reject, &ALL).await;
    assert_eq!((&done.orphans[..], &done.kept[..], &done.refused[..]), (&[][..], &[][..], &[][..]));
    let gone: Vec<_> = done.rejected.iter().map(|gone| (gone.constraint.as_str(), gone.rows.clone())).collect();
    let rows = |rows: &[(&str, u64)]| rows.iter().map(|(name, rows)| (table(&quoted(name)), *rows)).collect();
    let expected: [(&str, BTreeMap<_, _>); 2] =
        [("docket_court_fk", rows(&[("docket", 5), ("half", 1), ("the entry", 2)])), ("half_fk", rows(&[("half", 1)]))];
    assert_eq!(gone, expected);
    assert_eq!(loaded.rows(), KEPT);
    assert_eq!(loaded.invalid(), "");
    // The trigger was made after it.
    let triggers = "SELECT (SELECT count(*) FROM logged), (SELECT count(*) FROM pg_trigger WHERE tgname = 'log')";
    assert_eq!(loaded.bench.psql(triggers), "0|1");
    assert_eq!(
        loaded.bench.psql(
            "SELECT l.target_table, r.\"column\", r.sqlstate, r.message, r.fields FROM bulk.reject r
             JOIN bulk.load l ON l.id = r.load_id ORDER BY l.target_table, r.fields->>'id', r.fields->>'docket', r.fields->>'a'"
        ),
        r#"docket|court_id|23503|it refers to no row of public.court (docket_court_fk)|{"id": 2, "note": "x, \"y\"", "appeal": 1, "court_id": "ca9"}
docket|appeal|23503|it refers to a row of public.docket that was left out (docket_appeal_fk)|{"id": 3, "note": null, "appeal": 2, "court_id": "ca1"}
docket|appeal|23503|it refers to a row of public.docket that was left out (docket_appeal_fk)|{"id": 4, "note": null, "appeal": 3, "court_id": "ca1"}
docket|court_id|23503|it refers to no row of public.court (docket_court_fk)|{"id": 5, "note": null, "appeal": null, "court_id": "ca8"}
docket|appeal|23503|it refers to a row of public.docket that was left out (docket_appeal_fk)|{"id": 6, "note": null, "appeal": 5, "court_id": "scotus"}
half|a, b|23503|it refers to a row of public."the entry" that was left out (half_fk)|{"a": 4, "b": 1}
half|a, b|23503|it refers to no row of public."the entry" (half_fk)|{"a": 9, "b": 9}
the entry|docket|23503|it refers to a row of public.docket that was left out (entry's fk)|{"docket": 2, "number": 1, "what's": {"k": 1.50}}
the entry|docket|23503|it refers to a row of public.docket that was left out (entry's fk)|{"docket": 4, "number": 1, "what's": null}"#
    );
    for (name, left_out) in [("court", 0), ("docket", 5), ("the entry", 2), ("half", 2)] {
        let table = table(&quoted(name));
        assert_eq!(count_rejects(&loaded.session, &table).await.unwrap(), left_out);
        assert!(count_rows(&loaded.session, &table).await.unwrap().matches(), "{name}");
    }

    let done = loaded.after(OrphanPolicy::Reject, &[]).await;
    assert_eq!((done.rejected.len(), done.kept.len(), done.known_orphans.len()), (0, 0, 0));
    assert_eq!(loaded.rows(), KEPT);
}

#[tokio::test]
async fn what_a_run_before_only_reported_is_moved_by_the_next_one() {
    let mut loaded = Loaded::new("later").await;
    let done = loaded.after(OrphanPolicy::Report, &ALL).await;
    assert_eq!((done.orphans.len(), done.rejected.len()), (2, 0));
    assert_eq!(loaded.invalid(), "docket_court_fk half_fk");
    // The trigger is there by now.
    loaded.bench.psql("DROP TRIGGER log ON docket");
    let done = loaded.after(OrphanPolicy::Reject, &[]).await;
    assert_eq!((done.rejected.len(), done.kept.len(), done.known_orphans.len()), (2, 0, 0));
    assert_eq!((loaded.rows(), loaded.invalid()), (KEPT.map(str::to_owned), String::new()));
}

#[tokio::test]
async fn only_those_of_the_tables_that_are_said_are_moved() {
    let mut loaded = Loaded::new("said").await;
    loaded.after(OrphanPolicy::Report, &ALL).await;
    let before = loaded.rows();
    let mut plan = loaded.schema.plan();
    apply_pre_data(&mut loaded.session, &mut plan, &[]).await.unwrap();
    let mut options = PostDataOptions::default();
    (options.orphans, options.orphans_of) = (OrphanPolicy::Reject, Some(vec![table("half"), table("court")]));
    let done = apply_post_data(from_mut(&mut loaded.session), &plan, &[], &options).await.unwrap();
    let gone: Vec<_> = done.rejected.iter().map(|gone| (gone.constraint.as_str(), gone.rows.clone())).collect();
    assert_eq!(gone, [("half_fk", BTreeMap::from([(table("half"), 1)]))]);
    assert_eq!(done.known_orphans.len(), 1);
    assert_eq!(loaded.invalid(), "docket_court_fk");
    let rows = loaded.rows();
    assert_eq!((&rows[..3], rows[3].as_str()), (&before[..3], "(1,) (1,1) (4,1)"));
}

#[tokio::test]
async fn rows_that_nobody_loaded_are_never_moved() {
    let mut loaded = Loaded::new("foreign").await;
    loaded.after(OrphanPolicy::Report, &ALL).await;
    loaded.bench.psql("CREATE TABLE mine (docket int REFERENCES docket); INSERT INTO mine VALUES (1), (4)");
    let before = loaded.rows();
    let done = loaded.after(OrphanPolicy::Reject, &[]).await;
    let kept: Vec<_> = done.kept.iter().map(|kept| (kept.constraint.as_str(), kept.reason.as_str())).collect();
    let reason = "table public.mine has rows that refer to the orphans, and that this program did not load";
    assert_eq!(kept, [("docket_court_fk", reason)]);
    assert_eq!(done.rejected.len(), 1);
    assert_eq!(loaded.rows()[1], before[1]);
    assert_eq!(loaded.invalid(), "docket_court_fk");
    assert_eq!(loaded.bench.psql("SELECT count(*) FROM mine"), "2");
}

#[tokio::test]
async fn they_are_written_out_as_objects() {
    let mut loaded = Loaded::new("written").await;
    loaded.after(OrphanPolicy::Reject, &ALL).await;
    let (mut raw, mut lines) = (Vec::new(), Vec::new());
    let (name, csv) = FILES[3];
    let identity = file(name, csv.as_bytes());
    let count = write_rejects(&loaded.session, &table("half"), &identity, &mut raw, &mut lines).await.unwrap();
    assert_eq!((count, raw.len()), (2, 0));
    assert_eq!(
        String::from_utf8(lines).unwrap(),
        r#"{"file":"half","column":"a, b","sqlstate":"23503","message":"it refers to a row of public.\"the entry\" that was left out (half_fk)","fields":{"a": 4, "b": 1}}
{"file":"half","column":"a, b","sqlstate":"23503","message":"it refers to no row of public.\"the entry\" (half_fk)","fields":{"a": 9, "b": 9}}
"#
    );
}
