//! Schema files of pg_dump: the published ones of CourtListener, and one with every kind of statement.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bulk_pg::{
    ConstraintKind, DefinitionKind, IdentityKind, LeftOutReason, Need, Phase, Plan, Schema, SchemaError, SplitError,
    StatementKind, TableName, split_statements,
};
use proptest::prelude::*;

const EVERYTHING: &str = include_str!("data/pg_dump.sql");
const PLAN_OF_EVERYTHING: &str = include_str!("data/pg_dump.plan");

/// A published schema file. They are not part of the repository; where they should be and are not, that is a failure.
fn published(name: &str) -> Option<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/courtlistener").join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("{}: {error}", path.display()),
        Err(_) => None,
    }
}

fn table(name: &str) -> TableName {
    name.parse().unwrap()
}

fn names<'a>(tables: impl IntoIterator<Item = &'a TableName>) -> Vec<String> {
    tables.into_iter().map(|name| format!("{name:#}")).collect()
}

/// How many statements each phase has, and how many are left out.
fn counts(plan: &Plan<'_>) -> ([usize; 5], usize) {
    (Phase::ALL.map(|phase| plan.phase(phase).len()), plan.left_out.len())
}

/// How many statements are left out for each reason.
fn reasons(plan: &Plan<'_>) -> BTreeMap<String, usize> {
    let mut reasons = BTreeMap::new();
    for left_out in &plan.left_out {
        *reasons.entry(format!("{:?}", left_out.reason)).or_default() += 1;
    }
    reasons
}

fn expected<const N: usize>(reasons: [(&str, usize); N]) -> BTreeMap<String, usize> {
    reasons.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect()
}

#[test]
fn the_published_schema_is_cut_into_phases() {
    let Some(text) = published("schema-published.sql") else { return };
    let schema = Schema::parse(&text).unwrap();
    let mut plan = schema.plan();
    // 44 tables, 33 sequences with owners and defaults, 10 identities; 62 constraints and 206 indexes; 67 foreign keys;
    // 6 triggers, each with a comment.
    assert_eq!(counts(&plan), ([44 + 33 * 3 + 10, 62 + 206, 0, 67, 12], 24 + 2 + 77 + 5));
    assert_eq!(reasons(&plan), expected([("Setting", 24), ("Database", 1), ("Owner", 78), ("MetaCommand", 5)]));
    assert_eq!(schema.tables().count(), 44);
    assert_eq!(names(schema.missing_tables()), ["public.auth_user"]);
    assert_eq!(
        names(schema.missing_functions()),
        [
            "public.pgtrigger_delete_delete_10f00",
            "public.pgtrigger_delete_delete_29c58",
            "public.pgtrigger_delete_delete_d311e",
            "public.pgtrigger_insert_insert_7cbd4",
            "public.pgtrigger_update_update_5a8a9",
            "public.pgtrigger_update_update_5ddde",
        ]
    );
    assert_eq!(plan.needs().len(), 7);

    plan.leave_out_unmet(|_| false);
    assert_eq!(counts(&plan), ([153, 268, 0, 65, 0], 108 + 14));
    let missing: Vec<_> = plan
        .left_out
        .iter()
        .filter(|l| matches!(l.reason, LeftOutReason::Missing(_)))
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        missing[0],
        "line 4097: CREATE TRIGGER pgtrigger_delete_delete_10f00 AFTER DELETE ON public.search_docket FOR EACH ROW …: \
         function public.pgtrigger_delete_delete_10f00() is neither in the file nor in the database"
    );
    assert_eq!(
        missing[1],
        "line 4104: COMMENT ON TRIGGER pgtrigger_delete_delete_10f00 ON public.search_docket IS '…': function \
         public.pgtrigger_delete_delete_10f00() is neither in the file nor in the database"
    );
    assert_eq!(
        missing[13],
        "line 4709: ALTER TABLE ONLY public.search_searchquery ADD CONSTRAINT …: table public.auth_user is neither in the \
         file nor in the database"
    );
    assert!(plan.left_out.is_sorted_by_key(|left_out| left_out.line));
}

#[test]
fn a_schema_with_functions_lacks_nothing() {
    let Some(text) = published("schema.sql") else { return };
    let schema = Schema::parse(&text).unwrap();
    let mut plan = schema.plan();
    let before = counts(&plan);
    assert_eq!(before, ([6 + 37 + 30 * 3 + 6, 52 + 186, 0, 58, 12], 22 + 2 + 73 + 1));
    assert_eq!(plan.needs(), Vec::<&Need>::new());
    plan.leave_out_unmet(|_| false);
    assert_eq!(counts(&plan), before);
    let functions = schema.definitions().iter().filter(|d| matches!(d.kind, DefinitionKind::Function { .. }));
    assert_eq!(functions.count(), 6);
}

#[test]
fn the_columns_of_a_published_table_are_known() {
    let Some(text) = published("schema-published.sql") else { return };
    let schema = Schema::parse(&text).unwrap();
    let cluster = schema.table(&table("search_opinioncluster")).unwrap();
    for name in ["filepath_pdf_scan", "filepath_xml_scan"] {
        assert!(cluster.column(name).unwrap().is_required(), "{name} is NOT NULL and has no default");
    }
    assert!(!cluster.column("id").unwrap().is_required());
    let citation = schema.table(&table("search_citation")).unwrap();
    let columns: Vec<_> = citation.columns.iter().map(|c| (c.name.as_str(), c.type_sql.as_str(), c.not_null)).collect();
    assert_eq!(
        columns,
        [
            ("id", "integer", true),
            ("reporter", "text", true),
            ("page", "text", true),
            ("type", "smallint", true),
            ("cluster_id", "integer", true),
            ("date_created", "timestamp with time zone", true),
            ("date_modified", "timestamp with time zone", true),
            ("volume", "text", false),
        ]
    );
    assert_eq!(citation.columns[0].default.as_deref(), Some("nextval('public.search_citation_id_seq'::regclass)"));
    let unmatched = schema.table(&table("citations_unmatchedcitation")).unwrap();
    assert_eq!(unmatched.column("id").unwrap().identity, Some(IdentityKind::ByDefault));
    assert!(schema.table(&table("auth_user")).is_none());
}

#[test]
fn a_published_foreign_key_is_added_in_two_steps() {
    let Some(text) = published("schema-published.sql") else { return };
    let schema = Schema::parse(&text).unwrap();
    let key = schema.foreign_keys().last().unwrap();
    assert_eq!(
        key.not_valid_sql().unwrap(),
        "ALTER TABLE ONLY public.search_searchquery\n    ADD CONSTRAINT \
         search_searchquery_user_id_cc40fee9_fk_auth_user_id FOREIGN KEY (user_id) REFERENCES public.auth_user(id) \
         DEFERRABLE INITIALLY DEFERRED NOT VALID;"
    );
    assert_eq!(
        key.validate_sql().unwrap(),
        r#"ALTER TABLE ONLY "public"."search_searchquery" VALIDATE CONSTRAINT "search_searchquery_user_id_cc40fee9_fk_auth_user_id";"#
    );
    assert_eq!(names([&key.table, &key.references]), ["public.search_searchquery", "public.auth_user"]);
    assert_eq!((key.columns[0].as_str(), key.ref_columns[0].as_str()), ("user_id", "id"));
}

/// Every statement in the order of the file: line, phase or reason, summary, needs.
fn listing(schema: &Schema) -> String {
    let mut lines = Vec::new();
    for definition in schema.definitions() {
        let needs: String = definition.needs.iter().map(|need| format!(" [needs {need}]")).collect();
        lines.push((definition.line, format!("{:?}: {}{needs}", definition.phase, definition.summary())));
    }
    for left_out in &schema.plan().left_out {
        lines.push((left_out.line, format!("out, {:?}: {}", left_out.reason, left_out.what)));
    }
    lines.sort();
    lines.iter().map(|(line, text)| format!("{line} {text}\n")).collect()
}

#[test]
fn every_kind_of_statement_has_its_place() {
    let schema = Schema::parse(EVERYTHING).unwrap();
    assert_eq!(listing(&schema), PLAN_OF_EVERYTHING);
    // A byte order mark and the line ends of Windows change nothing.
    let windows = format!("\u{feff}{}", EVERYTHING.replace('\n', "\r\n"));
    assert_eq!(listing(&Schema::parse(&windows).unwrap()), PLAN_OF_EVERYTHING);
}

#[test]
fn no_statement_is_lost() {
    for text in [Some(EVERYTHING.to_owned()), published("schema.sql"), published("schema-published.sql")] {
        let Some(text) = text else { return };
        let schema = Schema::parse(&text).unwrap();
        let plan = schema.plan();
        let (phases, left_out) = counts(&plan);
        let pieces = split_statements(&text).unwrap();
        let statements = pieces.iter().filter(|piece| piece.kind != StatementKind::CopyData).count();
        assert_eq!(phases.iter().sum::<usize>() + left_out, statements);
        for definition in schema.definitions() {
            assert_eq!(pieces.iter().filter(|p| p.line == definition.line && p.text == definition.sql).count(), 1);
        }
    }
}

#[test]
fn secrets_are_in_no_summary() {
    let schema = Schema::parse(EVERYTHING).unwrap();
    assert_eq!(EVERYTHING.matches("secret").count(), 4);
    assert!(schema.plan().left_out.iter().all(|left_out| !left_out.to_string().contains("secret")));
}

#[test]
fn columns_of_every_kind_are_read() {
    let schema = Schema::parse(EVERYTHING).unwrap();
    let columns = |name: &str| -> Vec<String> {
        let describe = |c: &bulk_pg::ColumnDefinition| {
            let mut text = format!("{:#} {}", c.name, c.type_sql);
            let mut add = |part: &str, value: &str| text.push_str(&format!(" {part}{value}"));
            c.not_null.then(|| add("not null", ""));
            c.default.iter().for_each(|default| add("default ", default));
            c.generated.iter().for_each(|generated| add("generated ", generated));
            c.identity.iter().for_each(|identity| add("identity ", &format!("{identity:?}")));
            c.is_required().then(|| add("(required)", ""));
            text
        };
        schema.table(&table(name)).unwrap().columns.iter().map(describe).collect()
    };
    assert_eq!(
        columns(r#""My Schema"."Parent ""P""""#),
        [
            r#"id integer not null default nextval('"My Schema"."Parent ""P""_id_seq"'::regclass)"#,
            r#""Group" text not null default 'a;b''c'::text"#,
            "m public.mood default 'sad;'::public.mood",
            "exclude boolean",
            "check integer",
            "required character varying(10) not null (required)",
        ]
    );
    assert_eq!(
        columns("child"),
        [
            "id bigint not null identity Always",
            "a integer",
            "b text not null default CASE WHEN (NOT true) THEN NULL::text ELSE 'x'::text END",
            "c numeric(10,2)[]",
            r#""To" integer"#,
            "d timestamp(3) with time zone not null default now()",
            "e integer generated (a * 2)",
            "f character varying(20) default 'x'::character varying",
            "g public.positive",
            "h interval day to second(3)",
            "during tsrange",
            "v integer generated (a + 1)",
        ]
    );
    assert_eq!(columns("typed"), Vec::<String>::new());
    assert!(schema.table(&table("part")).unwrap().partitioned);
    assert_eq!(schema.table(&table("part_a")).unwrap().partition_of, Some(table("part")));
}

#[test]
fn kinds_hold_the_names_of_the_statement() {
    let schema = Schema::parse(EVERYTHING).unwrap();
    let constraints: Vec<_> = schema
        .definitions()
        .iter()
        .filter_map(|definition| match &definition.kind {
            DefinitionKind::Constraint(c) => {
                let columns: Vec<_> = c.columns.iter().map(|column| column.as_str()).collect();
                Some((c.name.as_str(), format!("{:#}", c.table), c.kind, columns.join(" ")))
            }
            _ => None,
        })
        .collect();
    let constraint = |name, table: &str, kind, columns: &str| (name, table.to_owned(), kind, columns.to_owned());
    assert_eq!(
        constraints,
        [
            constraint("child_pkey", "public.child", ConstraintKind::PrimaryKey, "id"),
            constraint("Parent \"P\"_key", r#""My Schema"."Parent ""P""""#, ConstraintKind::Unique, "Group check"),
            constraint("child_during_excl", "public.child", ConstraintKind::Exclude, ""),
            constraint("late", "public.child", ConstraintKind::Check, ""),
            constraint("late_not_null", "public.child", ConstraintKind::NotNull, "a"),
            constraint("inheritor_pkey", "public.inheritor", ConstraintKind::PrimaryKey, "id during"),
            constraint("part_pkey", "public.part", ConstraintKind::PrimaryKey, "id k"),
            constraint("part_a_pkey", "public.part_a", ConstraintKind::PrimaryKey, "id k"),
        ]
    );
    let triggers: Vec<_> = schema
        .definitions()
        .iter()
        .filter_map(|definition| match &definition.kind {
            DefinitionKind::Trigger { name, table, function } => Some(format!("{name:#} {table:#} {function:#}")),
            _ => None,
        })
        .collect();
    assert_eq!(
        triggers,
        [
            "checked public.child public.touch",
            "same public.child pg_catalog.suppress_redundant_updates_trigger",
            "touch public.child public.touch",
            r#"history public.child public."not dumped""#,
        ]
    );
    let indexes: Vec<_> = schema
        .definitions()
        .iter()
        .filter_map(|definition| match &definition.kind {
            DefinitionKind::Index { name, table, unique } => Some(format!("{name:#} {table:#} {unique}")),
            _ => None,
        })
        .collect();
    assert_eq!(
        indexes,
        [
            r#"public."Idx" public.child false"#,
            "public.child_replica public.child true",
            "public.part_p public.part false",
            "public.seen_late_b public.seen_late false",
            "public.seen_id public.seen true",
        ]
    );
}

#[test]
fn foreign_keys_of_every_kind_are_rewritten() {
    let schema = Schema::parse(EVERYTHING).unwrap();
    let keys: Vec<_> = schema.foreign_keys().collect();
    let columns: Vec<_> = keys
        .iter()
        .map(|key| {
            let list = |columns: &[bulk_pg::Ident]| columns.iter().map(|c| c.as_str()).collect::<Vec<_>>().join(" ");
            (key.name.as_str(), list(&key.columns), list(&key.ref_columns))
        })
        .collect();
    let key = |name, columns: &str, ref_columns: &str| (name, columns.to_owned(), ref_columns.to_owned());
    assert_eq!(
        columns,
        [
            key("fk \"1\"", "To", "id"),
            key("fk2", "b a", "Group check"),
            key("fk3", "id during", "id during"),
            key("fk4", "a", "id"),
            key("fk5", "a", "id"),
            key("part_fk", "p", "id"),
        ]
    );
    assert_eq!(
        keys[0].not_valid_sql().unwrap(),
        "ALTER TABLE ONLY public.child\n    ADD CONSTRAINT \"fk \"\"1\"\"\" FOREIGN KEY (\"To\") REFERENCES \"My \
         Schema\".\"Parent \"\"P\"\"\"(id) MATCH FULL ON UPDATE CASCADE ON DELETE SET NULL (\"To\") DEFERRABLE \
         INITIALLY DEFERRED NOT VALID;"
    );
    assert_eq!(keys[0].validate_sql().unwrap(), r#"ALTER TABLE ONLY "public"."child" VALIDATE CONSTRAINT "fk ""1""";"#);
    for (key, end) in [(keys[1], "(\"Group\", \"check\") NOT VALID;"), (keys[3], "public.child(id) NOT ENFORCED;")] {
        assert!(key.not_valid_sql().unwrap().ends_with(end), "the file's own statement stands");
        assert_eq!(key.validate_sql(), None);
    }
    assert!(keys[5].partitioned);
    assert_eq!((keys[5].not_valid_sql(), keys[5].validate_sql()), (None, None));
}

#[test]
fn a_file_made_by_hand_is_understood() {
    let schema = Schema::parse(
        "create table if not exists A (id int primary key, \"b\" Text references B on delete cascade not null default
             'x' || 'not', constraint c foreign key (id) references other.D (id), unique (id), exclude using gist (id with =));
         CREATE TABLE b (id text, PRIMARY KEY (id)); -- c
         CREATE INDEX ON a (id);
         create unique index concurrently i on A using btree (id);
         ALTER TABLE a ADD FOREIGN KEY (id) REFERENCES b;
         ALTER TABLE a ADD CONSTRAINT a_b FOREIGN KEY (b) REFERENCES b /* why */ ;
         ALTER TABLE a ADD CONSTRAINT a_key UNIQUE USING INDEX i;
         ALTER TABLE a ADD COLUMN z int;
         CREATE MATERIALIZED VIEW m AS SELECT 1 AS one;
         CREATE INDEX m_one ON m (one);
         CREATE TABLE p PARTITION OF q FOR VALUES IN (1);
         CREATE TRIGGER t BEFORE INSERT ON nowhere EXECUTE FUNCTION a.f();
         ALTER TABLE a ENABLE TRIGGER t;
         UPDATE a SET id = 1;",
    )
    .unwrap();
    assert_eq!(
        listing(&schema).lines().collect::<Vec<_>>(),
        [
            "1 PreData: create table if not exists A (id int primary key, \"b\" Text references B on delete cascade not null … \
             [needs table other.d]",
            "3 PreData: CREATE TABLE b (id text, PRIMARY KEY (id))",
            "4 Indexes: CREATE INDEX ON a (id)",
            "5 Indexes: create unique index concurrently i on A using btree (id)",
            "6 ForeignKeys: ALTER TABLE a ADD FOREIGN KEY (id) REFERENCES b",
            "7 ForeignKeys: ALTER TABLE a ADD CONSTRAINT a_b FOREIGN KEY (b) REFERENCES b",
            "8 AfterIndexes: ALTER TABLE a ADD CONSTRAINT a_key UNIQUE USING INDEX i",
            "9 out, Unrecognised: ALTER TABLE a ADD COLUMN z int",
            "10 AfterIndexes: CREATE MATERIALIZED VIEW m AS SELECT 1 AS one",
            "11 AfterIndexes: CREATE INDEX m_one ON m (one)",
            "12 PreData: CREATE TABLE p PARTITION OF q FOR VALUES IN (1) [needs table public.q]",
            "13 Triggers: CREATE TRIGGER t BEFORE INSERT ON nowhere EXECUTE FUNCTION a.f() [needs table public.nowhere] \
             [needs function a.f()]",
            "14 Triggers: ALTER TABLE a ENABLE TRIGGER t [needs trigger t on public.a]",
            "15 out, Unrecognised: UPDATE a SET id = 1",
        ]
    );
    let a = schema.table(&table("a")).unwrap();
    assert_eq!(names(&a.references), ["public.b", "other.d"]);
    assert!(a.columns[0].not_null && a.columns[1].not_null);
    assert_eq!(a.columns[1].default.as_deref(), Some("'x' || 'not'"));
    assert!(schema.table(&table("b")).unwrap().columns[0].not_null);
    let key = schema.foreign_keys().next().unwrap();
    assert_eq!(
        key.not_valid_sql().unwrap(),
        "ALTER TABLE a ADD CONSTRAINT a_b FOREIGN KEY (b) REFERENCES b NOT VALID;"
    );
}

#[test]
fn files_that_would_be_misread_are_refused() {
    let refused = |text: &str| Schema::parse(text).unwrap_err();
    let setting = |line, what: &str| SchemaError::Setting { line, what: what.to_owned() };
    assert_eq!(refused("SET standard_conforming_strings = off;"), setting(1, "SET standard_conforming_strings = off"));
    assert_eq!(refused("\nSET search_path = app, public;"), setting(2, "SET search_path = app, public"));
    assert_eq!(
        refused("SELECT pg_catalog.set_config('search_path', 'app', false);"),
        setting(1, "SELECT pg_catalog.set_config('search_path', 'app', false)")
    );
    for harmless in [
        "SET search_path = public, pg_catalog;",
        "SET search_path TO '';",
        "SET search_path = \"$user\", public;",
        "SELECT pg_catalog.set_config('search_path', '', false);",
        "SET standard_conforming_strings = on;",
    ] {
        assert_eq!(counts(&Schema::parse(harmless).unwrap().plan()), ([0; 5], 1), "{harmless}");
    }
    assert_eq!(refused("\\connect a\nCREATE SCHEMA s;\n\\connect b\n"), SchemaError::SeveralDatabases { line: 3 });
    let error = refused("CREATE TABLE a (id int);\nCREATE TABLE b (\n  id int DEFAULT 'x\n);");
    assert_eq!(error.to_string(), "the schema file cannot be cut into statements");
    assert!(matches!(error, SchemaError::Split(SplitError::Unterminated { line: 3, .. })));
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let end = EVERYTHING.find("-- PostgreSQL database dump complete").unwrap();
    let start = EVERYTHING.find("\\restrict").unwrap();
    for at in (start..end).step_by(7) {
        let cut = EVERYTHING.get(..at).unwrap();
        assert_eq!(Schema::parse(cut), Err(SchemaError::CutOff), "cut at byte {at}");
    }
}

proptest! {
    #[test]
    fn no_sequence_of_words_makes_the_parser_panic(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "CREATE", "ALTER", "TABLE", "ONLY", "a", "public", ".", "\"B\"", "(", ")", ",", ";", "ADD", "CONSTRAINT",
                "FOREIGN", "KEY", "REFERENCES", "PRIMARY", "DEFAULT", "NOT", "NULL", "CASE", "END", "GENERATED", "ALWAYS",
                "AS", "IDENTITY", "INDEX", "ON", "TRIGGER", "EXECUTE", "FUNCTION", "COMMENT", "COLUMN", "IS", "'x'",
                "SET", "SELECT", "set_config", "search_path", "=", "RULE", "TO", "PARTITION", "OF", "BY", "ATTACH",
                "SEQUENCE", "OWNED", "UNIQUE", "PERIOD", "WITHOUT", "OVERLAPS", "[", "]", "VALID", "ENABLE", "POLICY",
                "COPY", "FROM", "stdin", "\n", "\\.\n", "VIEW", "REPLACE", "OR", "BEGIN", "ATOMIC", "1", "USING", "''",
            ]),
            0..40,
        )
    ) {
        let text = words.join(" ") + ";";
        if let Ok(schema) = Schema::parse(&text) {
            let plan = schema.plan();
            let pieces = split_statements(&text).unwrap();
            let statements = pieces.iter().filter(|piece| piece.kind != StatementKind::CopyData).count();
            let (phases, left_out) = counts(&plan);
            prop_assert_eq!(phases.iter().sum::<usize>() + left_out, statements);
            for key in schema.foreign_keys() {
                prop_assert!(!key.columns.is_empty());
            }
        }
    }

    #[test]
    fn a_damaged_file_does_not_make_the_parser_panic(
        at in 0..EVERYTHING.len(), length in 0..40_usize, put in "([;'\"$\\\\()\n]|\\PC){0,5}"
    ) {
        let mut bytes = EVERYTHING.as_bytes().to_vec();
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, put.bytes());
        let _ = Schema::parse(&String::from_utf8_lossy(&bytes));
    }
}
