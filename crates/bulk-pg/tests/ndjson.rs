//! NDJSON: which keys go where, what values become, and what is told of a record that is bad.

mod support;

use std::cell::{Cell, RefCell};
use std::slice::from_mut;

use bulk_pg::{
    ContentVerdict, Drift, Error, FileIdentity, InputFormat, LoadOptions, RecordErrorKind, Session, Verification,
    Verifier, count_rows, load,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::{Bench, Log, broken_after, chain, file, table, whole};

fn options() -> LoadOptions {
    let mut options = LoadOptions::default();
    options.input_format = InputFormat::Ndjson;
    options
}

/// Loads `content` as the file `t.ndjson` into the table `t`.
async fn load_t(
    session: &mut Session,
    content: impl AsRef<[u8]>,
    options: &LoadOptions,
) -> Result<bulk_pg::Loaded, Error> {
    let content = content.as_ref();
    load(from_mut(session), &table("t"), &file("t.ndjson", content), whole(content), options).await
}

#[tokio::test]
async fn values_become_what_their_columns_take() {
    let ddl = "CREATE DOMAIN document AS jsonb;
               CREATE TABLE t (id bigint PRIMARY KEY, name text, amount numeric, ok boolean, day date, data jsonb,
                               raw json, own document, tags text[], sums integer[], grid integer[], docs jsonb[],
                               other inet)";
    let lines = [
        r#"{"id": 1, "name": "é \"q\" \\ \/ \n\t\u20ac\ud83d\ude00", "amount": -12.50, "ok": true, "day": "2020-02-29",
            "data": {"b": [1, null], "a": "x"}, "raw": [1,  2], "own": "s", "tags": ["a,b", null, "", "NULL", "\"\\"],
            "sums": [1, -2, null], "grid": [[1, 2], [3, 4]], "docs": [{"a": [1]}, "s", 7, [1]], "other": "10.0.0.1"}"#,
        r#"{"id": 2, "name": "", "amount": "7", "ok": false, "day": "infinity", "data": "s", "raw": "é\u0000", "own": 1.50,
            "tags": [], "sums": "{5}", "grid": null, "docs": []}"#,
        r#"{"name": null, "data": null, "raw": 1e2, "tags": [{"a": 1}, true, 1.0], "id": 3}"#,
        r#"{"id": 5, "name": {"a":  1}, "id": 4, "data": [], "raw": {"a": 1, "a": 2}}"#,
    ];
    let content = lines.map(|line| line.replace("\n            ", "") + "\n").concat();
    // With inet there is no binary way; without it there is.
    for drop in ["", "ALTER TABLE t DROP other"] {
        let bench = Bench::new("values", ddl);
        bench.psql(drop);
        let mut session = bench.session().await;
        let loaded = load_t(&mut session, &content, &options()).await.map_err(|error| chain(&error)).unwrap();
        assert_eq!((loaded.records, loaded.sent, loaded.verdict), (4, 4, None));
        let found = |id: u8| {
            bench.psql(&format!(
                "SELECT replace(name, E'\\n\\t', '!'), amount, ok, day, data, raw, own FROM t WHERE id = {id}"
            ))
        };
        assert_eq!(found(1), r#"é "q" \ / !€😀|-12.50|t|2020-02-29|{"a": "x", "b": [1, null]}|[1,  2]|"s""#);
        assert_eq!(found(2), r#"|7|f|infinity|"s"|"é\u0000"|1.50"#);
        assert_eq!(found(3), "|||||1e2|");
        assert_eq!(found(4), r#"{"a":  1}||||[]|{"a": 1, "a": 2}|"#);
        assert_eq!(
            bench.psql("SELECT tags, sums, grid, docs, cardinality(docs) FROM t WHERE id < 4 ORDER BY id"),
            [
                r#"{"a,b",NULL,"","NULL","\"\\"}|{1,-2,NULL}|{{1,2},{3,4}}|{"{\"a\": [1]}","\"s\"",7,[1]}|4"#,
                "{}|{5}||{}|0",
                r#"{"{\"a\": 1}",true,1.0}||||"#,
            ]
            .join("\n")
        );
        assert_eq!(bench.psql("SELECT name IS NULL, id FROM t WHERE id IN (2, 3) ORDER BY id"), "f|2\nt|3");
    }
}

#[tokio::test]
async fn keys_meet_columns_by_name_and_what_differs_is_said() {
    let bench = Bench::new(
        "drift",
        "CREATE TABLE t (id integer PRIMARY KEY, a text, made text GENERATED ALWAYS AS (a || '!') STORED,
                         born integer DEFAULT 7, must text NOT NULL, given text NOT NULL)",
    );
    let mut session = bench.session().await;
    let mut options = options();
    options.fill.insert("given".to_owned(), "g".to_owned());
    let content =
        "{\"x\": 1, \"a\": \"A\", \"id\": 1, \"made\": \"m\", \"must\": \"M\"}\n{\"id\":2,\"must\":\"\",\"y\":{}}\n";
    let log = Log::default();
    log.observe(&mut options);
    let loaded = load_t(&mut session, content, &options).await.unwrap();
    let column = |name: &str| name.to_owned();
    assert_eq!(
        loaded.drift,
        [
            Drift::Generated { column: column("made") },
            Drift::Default { column: column("born") },
            Drift::Filled { column: column("given"), value: "g".to_owned() },
            Drift::Dropped { column: column("x") },
            Drift::Dropped { column: column("y") },
        ]
    );
    assert!(log.lines()[0].starts_with("t.ndjson into public.t: ; column made is generated"), "{:?}", log.lines());
    assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), "1|A|A!|7|M|g\n2|||7||g");

    // A column that must have a value is asked for, whether the sample has it or not.
    let bench = Bench::new("must", "CREATE TABLE t (id integer, must text NOT NULL)");
    let mut session = bench.session().await;
    let error = load_t(&mut session, "{\"id\":1}\n", &self::options()).await.unwrap_err();
    assert!(
        chain(&error).contains("null value in column \"must\" of relation \"t\" violates not-null constraint"),
        "{}",
        chain(&error)
    );
    let error = load_t(&mut session, "{\"other\":1}\n", &self::options()).await.unwrap_err();
    assert!(chain(&error).contains("violates not-null constraint"), "{}", chain(&error));
    bench.psql("ALTER TABLE t ALTER must DROP NOT NULL");
    let error = load_t(&mut session, "{\"other\":1}\n", &self::options()).await.unwrap_err();
    assert_eq!(chain(&error), "t.ndjson: none of its columns (other) is in public.t");
}

#[tokio::test]
async fn what_is_no_column_goes_into_one_object() {
    for kind in ["jsonb", "json"] {
        let bench = Bench::new(
            "rest",
            &format!("CREATE TABLE t (id integer, a text, more {kind}, made int GENERATED ALWAYS AS (1) STORED)"),
        );
        let mut session = bench.session().await;
        let mut options = options();
        options.rest = Some("more".to_owned());
        let content = "{\"x\":[1, 2],\"id\":1,\"\\u0079\":\"\\u00e9\"}\n{\"id\":2,\"made\":5,\"a\":\"A\"}\n\
                       {\"more\":null,\"id\":3}\n";
        let loaded = load_t(&mut session, content, &options).await.unwrap();
        assert_eq!(loaded.drift, [Drift::Generated { column: "made".to_owned() }]);
        let expected = if kind == "jsonb" {
            "1||{\"x\": [1, 2], \"y\": \"é\"}|1\n2|A|{}|1\n3||{\"more\": null}|1"
        } else {
            "1||{\"x\":[1, 2],\"\\u0079\":\"\\u00e9\"}|1\n2|A|{}|1\n3||{\"more\":null}|1"
        };
        assert_eq!(bench.psql("SELECT * FROM t ORDER BY id"), expected);
    }
    let bench = Bench::new("norest", "CREATE TABLE t (id integer, a text)");
    let mut session = bench.session().await;
    for (rest, said) in [
        ("b", "t.ndjson: public.t has no column b for the rest of the keys"),
        ("a", "t.ndjson: the column a of public.t is text: the rest of the keys takes one of type json or jsonb"),
    ] {
        let mut options = options();
        options.rest = Some(rest.to_owned());
        assert_eq!(chain(&load_t(&mut session, "{\"id\":1}\n", &options).await.unwrap_err()), said);
    }
}

#[tokio::test]
async fn a_column_that_comes_late_is_not_lost() {
    let bench = Bench::new("late", "CREATE TABLE t (id integer, a text, late text DEFAULT 'none')");
    let mut session = bench.session().await;
    let mut content = String::new();
    for id in 1..=12_000 {
        content += &format!("{{\"id\": {id}, \"a\": \"{:x<90}\"}}\n", "y");
    }
    assert!(content.len() > 1 << 20);
    let start = content.len();
    content += "{\"id\": 12001, \"late\": null}\n{\"id\": 12002}\n";
    let said = "record 12001, byte AT: the key \"late\" is a column of the table, but was not among the keys of the \
                first MiB, so the column is not loaded; name it with --header";
    let error = load_t(&mut session, &content, &options()).await.unwrap_err();
    assert_eq!(chain(&error), format!("t.ndjson: {}", said.replace("AT", &(start + 15).to_string())));
    let Error::Record { source, .. } = &error else { panic!("{error}") };
    assert!(matches!(&source.kind, RecordErrorKind::Malformed { .. }));
    assert_eq!((source.record, source.start, source.is_reject()), (12_001, start as u64, true));

    let mut tolerant = options();
    tolerant.max_rejects = 1;
    let loaded = load_t(&mut session, &content, &tolerant).await.unwrap();
    assert_eq!((loaded.records, loaded.rejected), (12_002, 1));
    assert_eq!(bench.psql("SELECT count(*), max(id), min(late), max(late) FROM t"), "12001|12002|none|none");

    bench.psql("TRUNCATE t");
    let mut named = options();
    named.header = Some(vec!["late".to_owned(), "id".to_owned()]);
    assert_eq!(load_t(&mut session, &content, &named).await.unwrap().records, 12_002);
    assert_eq!(bench.psql("SELECT count(*), count(late) FROM t"), "12002|0");
}

#[tokio::test]
async fn a_first_object_longer_than_the_sample_shows_its_keys() {
    let bench = Bench::new("long", "CREATE TABLE t (id integer, body text, late text)");
    let mut session = bench.session().await;
    let content = format!("{{\"id\":1,\"body\":\"{}\"}}\n{{\"id\":2}}\n", "é".repeat(1 << 20));
    assert_eq!(load_t(&mut session, &content, &options()).await.unwrap().records, 2);
    assert_eq!(bench.psql("SELECT id, length(body) FROM t ORDER BY id"), format!("1|{}\n2|", 1 << 20));

    // Longer than may be.
    bench.psql("TRUNCATE t");
    let mut options = options();
    options.max_record = 1 << 20;
    let error = load_t(&mut session, &content, &options).await.unwrap_err();
    assert_eq!(
        chain(&error),
        "t.ndjson: record 1, byte 0: longer than 1048576 bytes: the file is of another format, or damaged, or the limit \
         is too low (--max-record)"
    );
}

#[tokio::test]
async fn a_part_of_a_file_is_loaded_and_its_content_known() {
    let bench = Bench::new("part", "CREATE TABLE t (id integer, court text, note text, late text, more jsonb)");
    let mut session = bench.session().await;
    let line = |id: u32| {
        let (court, kind) = (["a", "b", "c"][id as usize % 3], id % 2);
        format!("{{\"id\": {id}, \"court\": \"{court}\", \"kind\": {kind}, \"note\": \"n\", \"bad\": [1]}}\n")
    };
    let mut content: String = (0..100).map(line).collect();
    // A column that is not wanted may come late.
    content.push_str(&" \n".repeat(1 << 19));
    content.push_str("{\"id\": 101, \"court\": \"a\", \"kind\": 1, \"late\": \"l\"}\n");
    let mut options = options();
    options.columns = Some(vec!["id".to_owned(), "court".to_owned()]);
    // `kind` is no column.
    options.filter = vec!["kind=1".parse().unwrap(), "court!=b".parse().unwrap()];
    options.limit = Some(40);
    options.hash_content = true;
    let loaded = load_t(&mut session, &content, &options).await.unwrap();
    assert_eq!((loaded.records, loaded.filtered, loaded.sent), (101, 67, 34));
    let found = "SELECT count(*), min(id), max(id), sum(id), count(note), count(*) FILTER (WHERE court = 'b') FROM t";
    assert_eq!(
        bench.psql(found),
        format!("34|3|101|{}|0|0", (0..100).filter(|id| id % 2 == 1 && id % 3 != 1).sum::<u32>() + 101)
    );
    let verified = Verifier::new(Verification::Full).verify(&session, &table("t")).await.unwrap();
    assert!(matches!(verified.content, Some(ContentVerdict::Same { content }) if content.rows == 34), "{verified:?}");

    // What takes the rest is a column that was asked for, too.
    let bench = Bench::new("and_rest", "CREATE TABLE t (id integer, court text, more jsonb)");
    let mut some = self::options();
    some.columns = Some(vec!["id".to_owned()]);
    some.rest = Some("more".to_owned());
    some.limit = Some(1);
    load_t(&mut bench.session().await, &content, &some).await.unwrap();
    assert_eq!(bench.psql("TABLE t"), r#"0||{"bad": [1], "kind": 0, "note": "n"}"#);

    options.rest = Some("more".to_owned());
    options.filter.remove(1);
    let bench = Bench::new("rest", "CREATE TABLE t (id integer, court text, more jsonb)");
    let error = load_t(&mut bench.session().await, &content, &options).await.unwrap_err();
    assert!(chain(&error).contains("chosen by kind, which is a key of the rest of them"), "{}", chain(&error));
    options.filter.clear();
    options.repair = true;
    let error = load_t(&mut bench.session().await, &content, &options).await.unwrap_err();
    assert!(chain(&error).contains("only the text of CSV is repaired"), "{}", chain(&error));
}

/// The number of a record, the place of its line, and its bytes.
type Bad = (u64, usize, Vec<u8>);

/// Lines of each kind that is bad, and good ones between them, with blank lines here and there.
fn sown() -> (Vec<u8>, Vec<Bad>) {
    let bad: [&[u8]; 16] = [
        b"[1, \"a\"]",
        b"{\"id\": 2, \"a\": \"x\"",
        b"{\"id\": 3} {}",
        b"{\"id\": 4, \"a\": \"\\ud800\"}",
        b"{\"id\": 5, \"a\": \"\\u0000\"}",
        b"{\"id\": 6, \"a\": \"caf\xe9\"}",
        b"{\"id\": 7, \"a\": \"x\0\"}",
        b"{\"id\": \"8x\"}",
        b"{\"id\": 9, \"day\": \"2021-02-29\"}",
        b"{\"id\": 1000001}",
        b"{\"id\": 11, \"data\": {\"a\": \"\\u0000\"}}",
        b"{\"id\": 12, \"a\": \"\t\"}",
        b"{\"id\": 13, 'a': 1}",
        b"{\"id\": 14, \"sums\": [1, [2]]}",
        b"{\"id\": 15, \"sums\": [1, \"x\"]}",
        b"null",
    ];
    let (mut content, mut rejects) = (b"\xef\xbb\xbf\r\n \t\n".to_vec(), Vec::new());
    let mut record = 0;
    for (place, line) in bad.iter().enumerate() {
        for id in [1_000_001 + 2 * place, 1_000_002 + 2 * place] {
            record += 1;
            content.extend_from_slice(format!("  {{\"a\": \"good\", \"id\": {id}}}\r\n").as_bytes());
        }
        record += 1;
        rejects.push((record, content.len(), [line, &b"\r\n"[..]].concat()));
        content.extend_from_slice(line);
        content.extend_from_slice(b"\r\n");
        content.extend_from_slice([&b""[..], b"\r\n", b" \n\n"][place % 3]);
    }
    (content, rejects)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_the_bad_records_are_left_out() {
    let (content, rejects) = sown();
    for (count, chunk_size) in [(1, 16 << 20), (1, 100), (3, 200), (3, 1)] {
        let bench =
            Bench::new("sown", "CREATE TABLE t (id integer PRIMARY KEY, a text, day date, data jsonb, sums integer[])");
        let mut sessions = bench.sessions(count).await;
        let mut options = options();
        (options.max_rejects, options.chunk_size) = (rejects.len() as u64, chunk_size);
        let identity = file("t.ndjson", &content);
        let loaded = load(&mut sessions, &table("t"), &identity, whole(&content), &options).await;
        let loaded = loaded.map_err(|error| chain(&error)).unwrap();
        assert_eq!((loaded.records, loaded.rejected, loaded.bytes), (48, 16, content.len() as u64 - 8));
        assert_eq!(bench.psql("SELECT count(*), min(id), max(id) FROM t"), "32|1000001|1000032");
        let hex = |raw: &[u8]| raw.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let expected: Vec<_> =
            rejects.iter().map(|(record, byte, raw)| format!("{record}|{byte}|{}", hex(raw))).collect();
        let found = bench.psql("SELECT record, byte, encode(raw, 'hex') FROM bulk.reject ORDER BY record");
        assert_eq!(found, expected.join("\n"));
        assert_eq!(
            bench.psql("SELECT record, \"column\", sqlstate FROM bulk.reject ORDER BY record"),
            [
                "3||22P04",
                "6||22P04",
                "9||22P04",
                "12|a|22P04",
                "15|a|22021",
                "18||22021",
                "21||22021",
                "24|id|22P02",
                "27|day|22008",
                "30||23505",
                "33|data|22P05",
                "36||22P04",
                "39||22P04",
                "42|sums|22P02",
                "45|sums|22P02",
                "48||22P04",
            ]
            .join("\n")
        );
        let gaps =
            "SELECT count(*) FILTER (WHERE first_byte <> coalesce(behind, 8)), sum(records), max(first_byte + bytes)
                    FROM (SELECT *, lag(first_byte + bytes) OVER (ORDER BY first_byte) behind FROM bulk.chunk) c";
        assert_eq!(bench.psql(gaps), format!("0|48|{}", content.len()));
        let mut fewer = options.clone();
        fewer.max_rejects -= 1;
        bench.psql("TRUNCATE t");
        let error = load(&mut sessions, &table("t"), &identity, whole(&content), &fewer).await.unwrap_err();
        let (record, byte, _) = rejects[15];
        assert!(
            matches!(error, Error::Rejects { record: r, offset, .. } if (r, offset) == (record, byte as u64)),
            "{}",
            chain(&error)
        );
    }
}

#[tokio::test]
async fn each_bad_line_says_what_is_wrong() {
    let bench = Bench::new("said", "CREATE TABLE t (id integer, a text, l text[])");
    let mut session = bench.session().await;
    for (line, said) in [
        ("[1]", "byte 9: the line is no JSON object: there is no object"),
        ("{\"id\":1,}", "byte 17: the line is no JSON object: a key is missing"),
        ("{\"id\":1", "byte 16: the line is no JSON object: it ends too soon"),
        ("{\"id\":1}}", "byte 17: the line is no JSON object: there is more behind it"),
        ("{\"a\":\"x\\ud800\"}", "byte 16, column \"a\": half of a pair of surrogates, which is no character"),
        ("{\"l\":[\"\\u0000\"]}", "byte 16, column \"l\": a NUL byte, which text in PostgreSQL cannot hold"),
    ] {
        let content = format!("{{\"id\":1}}\n{line}\n{{\"id\":2, \"a\":\"\", \"l\":[]}}\n");
        let error = load_t(&mut session, &content, &options()).await.unwrap_err();
        assert_eq!(chain(&error), format!("t.ndjson: record 2, {said}"));
        assert_eq!(bench.psql("SELECT count(*) FROM t"), "0");
    }
    let error = load_t(&mut session, " \n\t\n".repeat(1 << 20), &options()).await.unwrap_err();
    assert_eq!(chain(&error), "t.ndjson: its first MiB is white space: it is no NDJSON");
    assert!(matches!(load_t(&mut session, "", &options()).await.unwrap_err(), Error::Empty { .. }));
}

const ROWS: usize = 20_000;
const LINE: usize = 120;

/// Lines of the same length.
fn numbered() -> Vec<u8> {
    let line = |id| format!("{:<119}\n", format!("{{\"id\":{id},\"text\":\"text {id}, \\u00e9\",\"x\":[{id}]}}"));
    (1..=ROWS).map(line).collect::<String>().into_bytes()
}

const TABLE: &str = "CREATE TABLE t (id integer PRIMARY KEY, text text, more jsonb)";

async fn assert_whole(bench: &Bench) {
    assert_eq!(
        bench.psql(
            "SELECT count(*), min(id), max(id), bool_and(text = 'text ' || id || ', é'),
                    bool_and(more = jsonb_build_object('x', ARRAY[id])) FROM t"
        ),
        format!("{ROWS}|1|{ROWS}|t|t")
    );
    let gaps = "SELECT count(*) FILTER (WHERE first_byte <> coalesce(behind, 0)), sum(records), max(first_byte + bytes)
                FROM (SELECT *, lag(first_byte + bytes) OVER (ORDER BY first_byte) behind FROM bulk.chunk) c";
    assert_eq!(bench.psql(gaps), format!("0|{ROWS}|{}", ROWS * LINE));
    let session = bench.session().await;
    assert!(count_rows(&session, &table("t")).await.unwrap().matches());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_goes_on_where_it_stopped_and_fills_in_what_is_missing() {
    let content = numbered();
    for (count, max_rejects) in [(1, 0), (3, 0), (3, 5)] {
        let bench = Bench::new("resume", TABLE);
        let mut sessions = bench.sessions(count).await;
        let mut options = options();
        (options.chunk_size, options.max_rejects) = ((700 * LINE) as u64, max_rejects);
        options.rest = Some("more".to_owned());
        let identity = file("t.ndjson", &content);
        let open = broken_after(&content, 12_345 * LINE + 50);
        let error = load(&mut sessions, &table("t"), &identity, open, &options).await.unwrap_err();
        assert_eq!(chain(&error), "cannot read t.ndjson behind record 12345, decoded byte 1481450: the disk is gone");
        assert_eq!(bench.psql("SELECT count(*) FROM t"), "11900");
        // A chunk in the midst is missing.
        bench.psql("DELETE FROM bulk.chunk WHERE chunk = 3; DELETE FROM t WHERE id BETWEEN 2101 AND 2800");

        // Read in another way, what is there would not go with what comes.
        let mut other = options.clone();
        other.rest = None;
        let open = || panic!("it was opened");
        let error = load(&mut sessions, &table("t"), &identity, open, &other).await.unwrap_err();
        assert_eq!(
            chain(&error),
            "t.ndjson: a part of it is loaded as ndjson, rest \"more\", and it is now to be read as ndjson; read it as \
             before, or load it anew with --restart, which deletes all rows of the table"
        );
        other.input_format = InputFormat::Csv;
        let error = load(&mut sessions, &table("t"), &identity, open, &other).await.unwrap_err();
        assert!(chain(&error).contains("and it is now to be read as csv; read it as before"), "{}", chain(&error));

        options.chunk_size = (333 * LINE) as u64;
        let loaded = load(&mut sessions, &table("t"), &identity, whole(&content), &options).await.unwrap();
        assert_eq!((loaded.records, loaded.sent), (20_000, 8800));
        assert_whole(&bench).await;
        let loaded = load(&mut sessions, &table("t"), &identity, open, &options).await.unwrap();
        assert_eq!(loaded.sent, 0);
        let error = load(&mut sessions, &table("t"), &identity, open, &other).await.unwrap_err();
        assert!(chain(&error).starts_with("t.ndjson: it is loaded as ndjson, rest \"more\", and"), "{}", chain(&error));
    }
}

#[tokio::test]
async fn a_load_that_left_nothing_may_be_read_in_another_way() {
    let bench = Bench::new("another", "CREATE TABLE t (id integer, a text)");
    let mut session = bench.session().await;
    let content = b"id,a\n1,x\n";
    let identity: FileIdentity = file("t", content);
    let mut options = options();
    load(from_mut(&mut session), &table("t"), &identity, whole(content), &options).await.unwrap_err();
    options.input_format = InputFormat::Csv;
    load(from_mut(&mut session), &table("t"), &identity, whole(content), &options).await.unwrap();
    assert_eq!(bench.psql("SELECT format, dialect FROM bulk.load"), "csv|A");
    assert_eq!(bench.psql("SELECT * FROM t"), "1|x");
}

fn json() -> impl Strategy<Value = String> {
    let string = vec(
        prop_oneof![
            Just("a".to_owned()),
            Just("\\\"".to_owned()),
            Just("\\\\".to_owned()),
            Just("\\u00e9".to_owned()),
            Just("\\ud83d\\ude00".to_owned()),
            Just("é😀".to_owned()),
            Just("\\n\\t\\/".to_owned()),
            Just(",{}[]:".to_owned()),
            Just("null".to_owned()),
            Just("a rather long stretch of plain text".to_owned()),
        ],
        0..5,
    )
    .prop_map(|parts| format!("\"{}\"", parts.concat()));
    let leaf = prop_oneof![
        4 => string,
        1 => Just("null".to_owned()),
        1 => Just("true".to_owned()),
        2 => any::<i64>().prop_map(|number| number.to_string()),
        1 => (any::<i32>(), any::<u16>(), -20..20_i32).prop_map(|(a, b, c)| format!("{a}.{b}e{c}")),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
            vec(("[ab\"]", inner), 0..4).prop_map(|members| {
                let member = |(key, value): &(String, String)| format!("{}:{value}", serde_json::json!(key));
                format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(", "))
            }),
        ]
    })
}

/// The server's own functions say what is in a line.
#[test]
fn values_are_those_that_the_server_finds() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bench = Bench::new(
        "property",
        "CREATE TABLE t (id integer PRIMARY KEY, a text, j json, b jsonb, l text[], rest json);
         CREATE TABLE line (id integer PRIMARY KEY, line json)",
    );
    let session = RefCell::new(runtime.block_on(bench.session()));
    let key = prop_oneof![Just("a"), Just("j"), Just("b"), Just("l"), Just("\\u0061"), Just("x"), Just("y"), Just("")];
    let object = vec((key, json()), 0..7);
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    let number = Cell::new(0);
    let mut runner = TestRunner::new(config);
    let result = runner.run(&(vec(object, 1..20), 1..400_u64), |(objects, chunk_size)| {
        let mut session = session.borrow_mut();
        number.set(number.get() + 1);
        bench.psql("TRUNCATE t, line");
        let (mut content, mut insert) = (String::new(), String::new());
        for (id, members) in objects.iter().enumerate() {
            let mut text = format!("{{\"id\":{id}");
            for (key, value) in members {
                // For an array of text, what lies deeper is the server's to say otherwise.
                let flat = *key != "l" || !value.starts_with(['[', '{']) || !value[1..].contains(['[', '{']);
                text += &format!(
                    ", \"{key}\" : {}",
                    if flat && (*key != "l" || value.starts_with('[')) { value } else { "[]" }
                );
            }
            text += "}";
            insert += &format!("INSERT INTO line VALUES ({id}, {});", bulk_pg::quote_literal(&text).unwrap());
            content += &text;
            content += ["\n", "\r\n", "\n\n"][id % 3];
        }
        bench.psql(&insert);
        let mut options = options();
        options.chunk_size = chunk_size;
        options.header = Some(["a", "j", "b", "l"].map(str::to_owned).to_vec());
        options.rest = Some("rest".to_owned());
        let identity = FileIdentity::new(number.get().to_string(), None, content.len() as u64);
        let loaded =
            runtime.block_on(load(from_mut(&mut session), &table("t"), &identity, whole(content.as_bytes()), &options));
        prop_assert!(loaded.is_ok(), "{}: {content}", chain(&loaded.unwrap_err()));
        let differs = bench.psql(
            "SELECT l.line, t.* FROM line l FULL JOIN t USING (id)
             WHERE t.a IS DISTINCT FROM l.line ->> 'a'
                OR t.j::text IS DISTINCT FROM nullif((l.line -> 'j')::text, 'null')
                OR t.b IS DISTINCT FROM nullif((l.line -> 'b')::jsonb, 'null')
                OR t.l IS DISTINCT FROM CASE WHEN json_typeof(l.line -> 'l') = 'array' THEN
                       ARRAY(SELECT v FROM json_array_elements_text(l.line -> 'l') v) END
                OR t.rest::jsonb IS DISTINCT FROM l.line::jsonb - ARRAY['id', 'a', 'j', 'b', 'l']",
        );
        prop_assert_eq!(differs, "");
        Ok(())
    });
    result.unwrap();
}
