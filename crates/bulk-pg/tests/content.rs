//! The content of a table against that of the files that were loaded into it: equal where all is as it was loaded,
//! whatever the values, and another one after any change.

mod support;

use std::slice::from_mut;

use bulk_pg::{ContentVerdict, CopyFormat, Error, LoadOptions, Session, Verification, Verified, Verifier, load};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use support::{Bench, broken_after, file, load_t, numbered, table, whole};

fn options() -> LoadOptions {
    let mut options = LoadOptions::default();
    options.hash_content = true;
    options
}

async fn verify(session: &Session) -> Verified {
    Verifier::new(Verification::Full).verify(session, &table("t")).await.unwrap()
}

/// The sum that psql prints for these columns, by another expression than the one of the library.
fn summed(bench: &Bench, columns: &str) -> i128 {
    let sql = format!(
        "SELECT coalesce(sum(('x' || right(left(sha256(record_send(r))::text, 18), 16))::bit(64)::bigint), 0)
         FROM (SELECT ROW({columns}) r FROM t) t"
    );
    bench.psql(&sql).parse().unwrap()
}

#[track_caller]
fn assert_same(verified: &Verified, rows: u64) {
    assert!(verified.matches(), "{verified:?}");
    let Some(ContentVerdict::Same { content }) = verified.content else { panic!("{verified:?}") };
    assert_eq!(content.rows, rows);
}

/// A CSV file of numbered values.
fn csv(values: &[String]) -> Vec<u8> {
    let mut csv = "id,v\n".to_owned();
    for (id, value) in values.iter().enumerate() {
        csv.push_str(&format!("{id},\"{}\"\n", value.replace('"', "\"\"")));
    }
    csv.into_bytes()
}

/// Loads values of a type, whichever of them it takes, and compares. How many rows there are then.
async fn compare(session: &mut Session, bench: &Bench, type_name: &str, values: &[String]) -> u64 {
    bench.psql(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (id integer, v {type_name})"));
    let mut options = options();
    options.max_rejects = values.len() as u64;
    let content = csv(values);
    let loaded = load(from_mut(session), &table("t"), &file(type_name, &content), whole(&content), &options).await;
    let loaded = loaded.unwrap_or_else(|error| panic!("{type_name}: {}", support::chain(&error)));
    let rows = loaded.records - loaded.rejected;
    let verified = verify(session).await;
    let Some(ContentVerdict::Same { content }) = verified.content else { panic!("{type_name}: {verified:?}") };
    assert_eq!((content.rows, content.sum), (rows, summed(bench, "id, v")), "{type_name}");
    assert_eq!(bench.psql("SELECT count(*) FROM t"), rows.to_string());
    rows
}

const INTEGER: &str = "( ?[-+]?[0-9]{1,5}| ?-?[0-9]{1,20}|0x1F|1_000)";
const FLOAT: &str = "(-?[0-9]{1,9}(\\.[0-9]{1,9})?(e-?[0-9]{1,2})?|-?0|NaN|-?inf|0x1p3)";
const NUMERIC: &str = "( ?[-+]?[0-9]{0,9}(\\.[0-9]{0,9})?|-?[09]{1,6}\\.[09459]{1,9}|-?[0-9]{1,3}\\.[0-9]{1,3}e-?[0-9]|NaN|-?Infinity|0\\.000[0-9]{1,9})";
const DATE: &str = "([0-9]{4}-[01][0-9]-[0-3][0-9]( BC)?|infinity|Jan 8, 1999|today|[1-9][0-9]{4}-01-02)";
const TIME: &str = "((19|20)[0-9]{2}-[01][0-9]-[0-2][0-9][ T][012][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(\\+0[0-9]|Z)?( BC)?|-?infinity|epoch)";
const TEXT: &str = "([aé😀 \"\\\\,\n]{0,7}|[ab]{0,5} {0,4})";
const DOCUMENT: &str = "(\\{\"bb\": ?[0-9]{1,3}(\\.[0-9]{1,3})?(e-?[0-9])?, ?\"(a|b|cc|bb|é)\" ?: ?\\[(null|true|\"\\\\u00e9\\\\n[a-z\u{7f}é]{0,3}\")?\\]\\}|-?[0-9]\\.[0-9]{1,4}|\"[ -!#-\\[\\]-~]{0,9}\"| \\[\\] |\\{\\}|nul+)";

fn values(pattern: &'static str, count: usize) -> Vec<String> {
    let mut runner = TestRunner::new(Config::default());
    let strategy = proptest::string::string_regex(pattern).unwrap();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// As elements of an array's literal.
fn arrays(pattern: &'static str, count: usize) -> Vec<String> {
    let quoted = |value: &String| match value.len() % 7 {
        0 => "NULL".to_owned(),
        _ => format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
    };
    let row = |elements: &[String]| format!("{{{}}}", elements.iter().map(quoted).collect::<Vec<_>>().join(","));
    let mut literals: Vec<String> = values(pattern, 2 * count).chunks(2).map(row).collect();
    let nested: Vec<String> = literals.chunks_exact(2).map(|pair| format!("{{{}}}", pair.join(","))).collect();
    literals.extend(nested.into_iter().take(count / 4));
    literals.extend(["{}".to_owned(), "[2:3]={\"1\",\"2\"}".to_owned()]);
    literals
}

#[tokio::test]
async fn values_of_every_type_have_the_content_that_the_server_gives_them() {
    let bench = Bench::new(
        "types",
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN positive AS integer CHECK (VALUE > 0)",
    );
    let mut session = bench.session().await;
    for (type_names, pattern, least) in [
        (&["smallint", "integer", "bigint", "positive", "integer[]"][..], INTEGER, 50),
        (&["boolean"], "(t|f|yes|no|on|off|TRUE| 0|1|x)", 100),
        (&["real", "double precision"], FLOAT, 100),
        (
            &["numeric", "numeric(20, 2)", "numeric(12, 0)", "numeric(15, 8)", "numeric(9, 5)", "numeric(20, 3)[]"],
            NUMERIC,
            50,
        ),
        (&["date", "date[]"], DATE, 50),
        (
            &[
                "timestamp",
                "timestamp(3)",
                "timestamp(0)",
                "timestamptz",
                "timestamptz(2)",
                "timestamp(5)",
                "timestamptz(1)[]",
            ],
            TIME,
            50,
        ),
        (
            &["text", "varchar", "varchar(4)", "char(4)", "char", "bpchar", "varchar(3)[]", "char(4)[]", "text[]"],
            TEXT,
            5,
        ),
        (&["json", "jsonb", "jsonb[]"], DOCUMENT, 50),
        (&["bytea"], "(\\\\x([0-9a-f]{2}){0,9}|[ab]{0,5}\\\\\\\\|é|\\\\x0)", 50),
        (&["uuid"], "(\\{?[0-9a-f]{32}\\}?|[0-9A-F]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})", 50),
        (&["mood"], "(sad|ok|happy)", 100),
        (&["interval", "time"], "([0-2][0-9]:[0-5][0-9]|1 day|noon)", 50),
        (&["inet"], "([0-9]{1,3}\\.){3}[0-9]", 50),
    ] {
        for type_name in type_names {
            let values = if type_name.ends_with("[]") { arrays(pattern, 100) } else { values(pattern, 300) };
            let rows = compare(&mut session, &bench, type_name, &values).await;
            let least = if type_name.ends_with("[]") { 5 } else { least };
            assert!(rows >= least, "{type_name}: {rows}");
        }
    }
}

/// What this side can tell by itself needs no table on the server: the role may not make one.
#[tokio::test]
async fn usual_values_are_hashed_on_this_side() {
    let bench = Bench::new("usual", "");
    let mut session = bench.session().await;
    let role = format!("plain_{}", std::process::id());
    bench.psql(&format!(
        "CREATE ROLE {role}; GRANT ALL ON SCHEMA bulk, public TO {role};
         GRANT ALL ON ALL TABLES IN SCHEMA bulk TO {role}; GRANT ALL ON ALL SEQUENCES IN SCHEMA bulk TO {role};
         DO $$ BEGIN EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()); END $$"
    ));
    let columns = [
        ("smallint", "-7"),
        ("integer", "2147483647"),
        ("bigint", " 12 "),
        ("boolean", "yes"),
        ("real", "-0"),
        ("double precision", "nan"),
        ("numeric", "-0.00"),
        ("numeric(10, 2)", "1.005"),
        ("numeric(10, 2)", "-99999.994"),
        ("numeric(4, 0)", "0.5"),
        ("numeric(6, 4)", "9.99995"),
        ("numeric(12, 3)[]", "{1.23456,NULL,7}"),
        ("date", "0044-03-15 BC"),
        ("timestamp(0)", "1999-12-31 23:59:59.5"),
        ("timestamptz(3)", "1969-12-31 23:59:59.1235+00"),
        ("timestamptz(0)", "infinity"),
        ("text", "é\\\""),
        ("varchar(2)", "éé   "),
        ("char(4)", "é"),
        ("char(4)[]", "{{a,NULL},{\"b  \",c}}"),
        ("json", " {\"b\" : 1, \"a\":1.0} "),
        ("jsonb", " {\"bb\" : 1.50e1, \"a\":[null,{}], \"bb\": \"\\u00e9\\/\"} "),
        ("jsonb[]", "{\"{\\\"b\\\":1e2,\\\"a\\\":2}\"}"),
        ("bytea", "\\x00ff"),
        ("uuid", "A0EEBC999C0B4EF8BB6D6BB9BD380A11"),
        ("text[]", "{}"),
        ("integer", ""),
    ];
    let definitions: Vec<_> = columns.iter().enumerate().map(|(n, (name, _))| format!("c{n} {name}")).collect();
    let names: Vec<_> = (0..columns.len()).map(|n| format!("c{n}")).collect();
    bench.psql(&format!("CREATE TABLE t ({}); ALTER TABLE t OWNER TO {role}", definitions.join(", ")));
    let value = |value: &str| match value {
        "" => String::new(),
        value => format!("\"{}\"", value.replace('"', "\"\"")),
    };
    let row: Vec<_> = columns.iter().map(|(_, text)| value(text)).collect();
    let csv = format!("{}\n{}\n", names.join(","), row.join(","));
    session.client().batch_execute(&format!("SET ROLE {role}")).await.unwrap();
    load_t(&mut session, csv.as_bytes(), &options()).await.unwrap();
    assert_same(&verify(&session).await, 1);

    // Of text the server has to tell, and says what it wants for that.
    bench.psql(&format!("DROP TABLE t; CREATE TABLE t (c0 interval); ALTER TABLE t OWNER TO {role}"));
    let error = load_t(&mut session, b"c0\n1 day\n", &options()).await.unwrap_err();
    assert!(error.is_denied(), "{error}");
    assert_eq!(bench.psql("SELECT count(*) FROM t"), "0");
}

#[tokio::test]
async fn any_change_is_seen() {
    let bench = Bench::new("changes", "CREATE TABLE t (id integer, text text, n numeric(5, 1))");
    let mut session = bench.session().await;
    let mut csv = b"id,text,n\n".to_vec();
    for id in 0..100 {
        csv.extend_from_slice(format!("{},text {id},{}.25\n", id / 2, id % 7).as_bytes());
    }
    load_t(&mut session, &csv, &options()).await.unwrap();
    let verified = verify(&session).await;
    assert_same(&verified, 100);
    let Some(ContentVerdict::Same { content }) = verified.content else { unreachable!() };
    assert_eq!(content.sum, summed(&bench, "id, text, n"));
    for change in [
        "UPDATE t SET text = 'text 4.' WHERE text = 'text 4'",
        "UPDATE t SET n = n + 0.1 WHERE text = 'text 4'",
        "UPDATE t SET text = NULL WHERE text = 'text 4'",
        // Two values change places.
        "UPDATE t SET text = CASE text WHEN 'text 4' THEN 'text 90' ELSE 'text 4' END WHERE text IN ('text 4', 'text 90')",
        // A row gives way to another one's double.
        "DELETE FROM t WHERE text = 'text 4'; INSERT INTO t SELECT * FROM t WHERE text = 'text 5'",
    ] {
        session.client().batch_execute(&format!("BEGIN; {change}")).await.unwrap();
        let verified = verify(&session).await;
        assert!(!verified.matches());
        let Some(ContentVerdict::Differs { loaded, found }) = verified.content else {
            panic!("{change}: {verified:?}")
        };
        assert_eq!((loaded, found.rows), (content, 100), "{change}");
        assert!(verified.count.unwrap().matches());
        session.client().batch_execute("ROLLBACK").await.unwrap();
    }
    // The rows' order is of no account.
    bench.psql("CREATE TABLE u AS SELECT * FROM t ORDER BY text; DELETE FROM t; INSERT INTO t SELECT * FROM u");
    assert_same(&verify(&session).await, 100);
    bench.psql("DELETE FROM t WHERE id = 7");
    let verified = verify(&session).await;
    assert!(!verified.count.as_ref().unwrap().matches() && !verified.matches());
}

#[tokio::test]
async fn what_is_loaded_in_pieces_by_several_has_the_same_content() {
    let csv = numbered(20_000);
    let whole_bench = Bench::new("whole", "CREATE TABLE t (id integer, text text)");
    let mut session = whole_bench.session().await;
    load_t(&mut session, &csv, &options()).await.unwrap();
    let verified = verify(&session).await;
    assert_same(&verified, 20_000);
    for format in [CopyFormat::Auto, CopyFormat::Text] {
        let bench = Bench::new("pieces", "CREATE TABLE t (id integer, text text)");
        let mut sessions = [bench.session().await, bench.session().await, bench.session().await];
        let mut options = options();
        options.chunk_size = 100_000;
        options.format = format;
        let identity = file("t.csv", &csv);
        for end in [700_000, 1_500_000] {
            let broken = broken_after(&csv, end);
            let error = load(&mut sessions, &table("t"), &identity, broken, &options).await.unwrap_err();
            assert!(matches!(error, Error::Read { .. }), "{error}");
        }
        options.chunk_size = 64_000;
        load(&mut sessions, &table("t"), &identity, whole(&csv), &options).await.unwrap();
        assert_eq!(verify(&sessions[0]).await.content, verified.content);
        // Not read again.
        load(&mut sessions, &table("t"), &identity, || panic!("it was opened"), &options).await.unwrap();
        assert_eq!(verify(&sessions[0]).await.content, verified.content);
    }
}

#[tokio::test]
async fn rows_that_are_left_out_are_no_part_of_it() {
    let mut csv = b"id,day,n\n".to_vec();
    for id in 0..5000 {
        let line = match id % 500 {
            // A double, a day that only the server can read, one that it refuses, a bad number, and a row too long.
            100 => format!("{},2001-02-03,1\n", id - 1),
            200 => format!("{id},\"Feb 3, 2001\",1\n"),
            300 => format!("{id},\"Feb 30, 2001\",1\n"),
            400 => format!("x,2001-02-03,{id}\n"),
            450 => format!("{id},2001-02-03,1,2\n"),
            460 => format!("{id},2001-02-03,-1\n"),
            _ => format!("{id},2001-02-03,1.{id}\n"),
        };
        csv.extend_from_slice(line.as_bytes());
    }
    for (format, several) in [(CopyFormat::Auto, false), (CopyFormat::Auto, true), (CopyFormat::Text, true)] {
        let ddl = "CREATE TABLE t (id integer PRIMARY KEY, day date, n numeric(9, 2) CHECK (n > 0))";
        let bench = Bench::new("left_out", ddl);
        let mut sessions = vec![bench.session().await];
        if several {
            sessions.push(bench.session().await);
        }
        let mut options = options();
        options.chunk_size = 20_000;
        options.max_rejects = 1000;
        options.format = format;
        let identity = file("t.csv", &csv);
        let loaded = load(&mut sessions, &table("t"), &identity, whole(&csv), &options).await.unwrap();
        assert_eq!((loaded.records, loaded.rejected), (5000, 50));
        let verified = verify(&sessions[0]).await;
        assert_same(&verified, 4950);
        let Some(ContentVerdict::Same { content }) = verified.content else { unreachable!() };
        assert_eq!(content.sum, summed(&bench, "id, day, n"));
    }
}

#[tokio::test]
async fn only_what_the_file_has_is_compared() {
    let bench = Bench::new(
        "columns",
        "CREATE TABLE t (\"a \"\"b\" integer, serial integer GENERATED ALWAYS AS IDENTITY, made timestamptz DEFAULT now(),
                         twice integer GENERATED ALWAYS AS (\"a \"\"b\" * 2) STORED, note varchar(3), gone integer);
         ALTER TABLE t DROP COLUMN gone",
    );
    let mut session = bench.session().await;
    let mut options = options();
    options.fill.insert("note".to_owned(), "x  ".to_owned());
    load_t(&mut session, b"more,\"a \"\"b\"\ny,1\nz,\n", &options).await.unwrap();
    assert_same(&verify(&session).await, 2);
    assert_eq!(bench.psql("SELECT content_columns FROM bulk.load"), r#"{"a \"b",note}"#);
    session.client().batch_execute("UPDATE t SET made = 'epoch'").await.unwrap();
    assert_same(&verify(&session).await, 2);

    // A second file with the same columns comes to it, and one with others cannot be told from it.
    options.append = true;
    let second = b"\"a \"\"b\"\n7\n";
    load(from_mut(&mut session), &table("t"), &file("u.csv", second), whole(second), &options).await.unwrap();
    assert_same(&verify(&session).await, 3);
    let third = b"\"a \"\"b\",made\n8,2001-02-03\n";
    load(from_mut(&mut session), &table("t"), &file("v.csv", third), whole(third), &options).await.unwrap();
    let unknown = |why: &str| Some(ContentVerdict::Unknown { why: why.to_owned() });
    let verified = verify(&session).await;
    assert!(verified.matches());
    assert_eq!(
        verified.content,
        unknown("t.csv and v.csv have different columns, so that nothing can be compared with both together")
    );
    bench.psql("DELETE FROM bulk.load WHERE file_key = 'v.csv'; ALTER TABLE t ALTER COLUMN note TYPE varchar(4)");
    assert_eq!(
        verify(&session).await.content,
        unknown("columns of it were altered since t.csv was loaded, so that its content is another")
    );
}

#[tokio::test]
async fn content_that_is_not_known_is_said_to_be_so() {
    let bench = Bench::new("unknown", "CREATE TABLE t (id integer, text text)");
    let mut session = bench.session().await;
    let unknown = |why: &str| Some(ContentVerdict::Unknown { why: why.to_owned() });
    assert_eq!(verify(&session).await.content, unknown("no file was loaded into it"));
    let why = "rows of it were loaded without --verify=full, so that their content is not known; to have it compared, load \
               the table anew with --restart --verify=full";
    // A part of it was hashed, and the rest was not.
    let csv = numbered(20_000);
    let mut options = options();
    options.chunk_size = 50_000;
    load(from_mut(&mut session), &table("t"), &file("t.csv", &csv), broken_after(&csv, 1_500_000), &options)
        .await
        .unwrap_err();
    assert_eq!(bench.psql("SELECT count(*) > 0, bool_and(content IS NOT NULL) FROM bulk.chunk"), "t|t");
    load_t(&mut session, &csv, &LoadOptions::default()).await.unwrap();
    let verified = verify(&session).await;
    assert!(verified.matches());
    assert_eq!(verified.content, unknown(why));
    let counted = Verifier::new(Verification::Count).verify(&session, &table("t")).await.unwrap();
    assert_eq!((counted.count, counted.content), (verified.count, None));
    let none = Verifier::new(Verification::None).verify(&session, &table("t")).await.unwrap();
    assert_eq!((none.count.as_ref(), none.content.as_ref(), none.matches()), (None, None, true));

    // A file without records has a content, too.
    bench.psql("TRUNCATE t; DELETE FROM bulk.load");
    load_t(&mut session, b"id,text\n", &options).await.unwrap();
    assert_same(&verify(&session).await, 0);
}

#[test]
fn how_far_to_go_is_read_as_it_is_written() {
    for verification in [Verification::None, Verification::Count, Verification::Full] {
        assert_eq!(verification.to_string().parse(), Ok(verification));
    }
    let error = "all".parse::<Verification>().unwrap_err();
    assert_eq!(error.to_string(), "\"all\" is none of count, full and none");
}
