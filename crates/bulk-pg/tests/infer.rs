//! Tables that are made for files: their columns' types against the server, and how they are made.

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bulk_pg::{
    BinaryType, CopyBinary, Dialect, Error, Ident, Inference, InferredTable, InferredType, InputFormat, LoadOptions,
    RecordOptions, Records, Session, Source, SqlType, create_table, infer, load, table_exists, unfinished,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::{Bench, Counted, HEADER, LINE, broken_after, chain, file, load_t, numbered, table, whole};
use tokio::runtime::Runtime;

fn read(csv: &str) -> Result<InferredTable, Error> {
    let mut inference = Inference::new();
    inference.read("t.csv", csv.as_bytes(), &LoadOptions::default())?;
    Ok(inference.finish())
}

fn types(table: &InferredTable) -> Vec<(&str, &str)> {
    table.columns.iter().map(|column| (column.name.as_str(), column.type_name())).collect()
}

/// A column of each type, with the values that make it so, and the records of a file of them all.
const FILE: &str = "\
flag,small,big,huge,price,ratio,day,local,zoned,key,doc,code,phone,empty,none,word,mixed
t,1,2147483648,9223372036854775808,1.50,1e-3,2026-06-30,2026-06-30 12:00:00,2026-06-30T12:00:00Z,a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,\"{\"\"a\"\": 1}\",007,+4930,\"\",,NaN,1
false,-7,-1,,-3,NaN,0044-03-15 BC,2026-07-01,2026-06-30 12:00:00.5+02:00,,[],12,1,\"\",,NaN,x
,,,,,12,,,,,,,,,,,
";

#[tokio::test(flavor = "multi_thread")]
async fn a_file_makes_its_table_and_loads_into_it() {
    let bench = Bench::new("infer_file", "");
    let mut session = bench.session().await;
    let found = read(FILE).unwrap();
    assert_eq!(found.records, 3);
    assert!(!table_exists(&session, &table("t")).await.unwrap());
    assert!(create_table(&mut session, &table("t"), &found).await.unwrap());
    assert!(table_exists(&session, &table("t")).await.unwrap());
    assert_eq!(
        bench.psql(
            "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod) || ' ' || attnotnull, ', ' ORDER BY attnum)
             FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0"
        ),
        "flag boolean false, small integer false, big bigint false, huge numeric false, price numeric false, \
         ratio double precision false, day date false, local timestamp without time zone false, \
         zoned timestamp with time zone false, key uuid false, doc jsonb false, code text false, phone text false, \
         empty text false, none text false, word text false, mixed text false"
    );
    let loaded = load_t(&mut session, FILE.as_bytes(), &LoadOptions::default()).await.unwrap();
    assert_eq!(loaded.sent, 3);
    assert_eq!(
        bench.psql("SET timezone = 'UTC'; COPY (SELECT * FROM t ORDER BY small DESC NULLS LAST) TO STDOUT"),
        "t\t1\t2147483648\t9223372036854775808\t1.50\t0.001\t2026-06-30\t2026-06-30 12:00:00\t2026-06-30 12:00:00+00\t\
         a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\t{\"a\": 1}\t007\t+4930\t\t\\N\tNaN\t1\n\
         f\t-7\t-1\t\\N\t-3\tNaN\t0044-03-15 BC\t2026-07-01 00:00:00\t2026-06-30 10:00:00.5+00\t\\N\t[]\t12\t1\t\t\\N\tNaN\tx\n\
         \\N\t\\N\t\\N\t\\N\t\\N\t12\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N"
    );
    // What is there stays.
    assert!(!create_table(&mut session, &table("t"), &read("other\n1\n").unwrap()).await.unwrap());
    assert_eq!(bench.psql("SELECT count(flag) FROM t"), "2");
}

#[test]
fn several_files_meet_by_name_and_each_value_counts() {
    let mut inference = Inference::new();
    let mut options = LoadOptions::default();
    options.fill.insert("source".to_owned(), "7".to_owned());
    inference.read("a.csv", &b"id,day\n1,2026-01-01\n"[..], &options).unwrap();
    inference.read("b.csv", &b"extra,id,source\nx,2147483648,8.5\n"[..], &options).unwrap();
    let found = inference.finish();
    assert_eq!(types(&found), [("id", "bigint"), ("day", "date"), ("source", "numeric"), ("extra", "text")]);
    assert_eq!(found.records, 2);
    let counts: Vec<_> = found.columns.iter().map(|column| (column.values, column.nulls)).collect();
    assert_eq!(counts, [(2, 0), (1, 0), (2, 0), (1, 0)]);

    let names = ["a", "b"].map(|name| Ident::new(name).unwrap());
    let records = [[Some(&b"1"[..]), None], [Some(b"2.5"), Some(b"t")]];
    assert_eq!(types(&infer(names, records)), [("a", "numeric"), ("b", "boolean")]);
}

#[test]
fn what_could_not_be_loaded_makes_no_table() {
    let said = |csv: &str| chain(&read(csv).unwrap_err());
    assert_eq!(said("a,b,a\n1,2,3\n"), "t.csv: its header has the column \"a\" twice");
    assert_eq!(said("a,\"\"\n1,2\n"), "t.csv: no table can have a column of its header: an identifier is empty");
    assert!(said(&format!("{}\n1\n", "n".repeat(64))).contains("has 64 bytes: PostgreSQL keeps 63"));
    assert!(said("").contains("there is nothing in it"));
    assert!(
        said("a,b\n1,2\n3\n4,5\n").ends_with("record 2, byte 8: 1 field where the header has 2"),
        "{}",
        said("a,b\n1,2\n3\n4,5\n")
    );

    let mut options = LoadOptions::default();
    options.max_rejects = 1;
    let mut inference = Inference::new();
    inference.read("t.csv", &b"a,b\n1,2\nx\n4,5\n"[..], &options).unwrap();
    assert_eq!(types(&inference.finish()), [("a", "integer"), ("b", "integer")]);
    options.dialect = Some(Dialect::C);
    let error = Inference::new().read("t.csv", &b"a,b\n\"1\",2\n"[..], &options).unwrap_err();
    assert!(matches!(error, Error::Dialect { asked: Dialect::C, .. } | Error::Undetected { .. }), "{error}");
}

#[test]
fn no_more_is_read_than_the_sample() {
    let mut csv = numbered(usize::try_from(Inference::MAX_RECORDS).unwrap());
    let len = csv.len();
    // The one behind the last of the sample is of no account.
    csv.extend_from_slice(b"x,y\n");
    csv.resize(len + (4 << 20), b'\n');
    let count = Arc::<AtomicU64>::default();
    let mut inference = Inference::new();
    let input = Counted { count: count.clone(), inner: &csv[..] };
    inference.read("t.csv", input, &LoadOptions::default()).unwrap();
    let found = inference.finish();
    assert_eq!(found.records, Inference::MAX_RECORDS);
    assert_eq!(len, HEADER + 100_000 * LINE);
    let read = usize::try_from(count.load(Ordering::SeqCst)).unwrap();
    assert!((len..len + (1 << 20)).contains(&read), "{read} of {len}");

    // Long records: the one that begins before the end of the sample is the last.
    let mut csv = b"n,text\n".to_vec();
    for n in 0..40 {
        csv.extend_from_slice(format!("{n},{}\n", "x".repeat(1 << 20)).as_bytes());
    }
    let mut inference = Inference::new();
    inference.read("t.csv", &csv[..], &LoadOptions::default()).unwrap();
    assert_eq!(inference.finish().records, 16);
}

/// Values that are alike, some of which make a column wider.
fn pool() -> impl Strategy<Value = BoxedStrategy<String>> {
    let digits = "-?(0|[1-9][0-9]{0,24})";
    prop_oneof![
        Just(any::<i32>().prop_map(|number| number.to_string()).boxed()),
        Just(any::<i64>().prop_map(|number| number.to_string()).boxed()),
        Just(digits.boxed()),
        Just(format!("{digits}\\.[0-9]{{1,20}}").boxed_regex()),
        Just(any::<f64>().prop_map(|number| format!("{number:e}")).boxed()),
        Just(any::<f32>().prop_map(|number| number.to_string()).boxed()),
        Just(prop::sample::select(vec!["NaN", "Infinity", "-infinity", "inf", "t", "f", "TRUE", "false"]).prop_map(str::to_owned).boxed()),
        Just("[0-9]{4,7}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])( BC)?".boxed()),
        Just("[12][0-9]{3}-0[1-9]-1[0-9][ T]([01][0-9]|2[0-4]):[0-5][0-9](:[0-6][0-9](\\.[0-9]{1,7})?)?".boxed()),
        Just("[12][0-9]{3}-0[1-9]-1[0-9][ T][01][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z| UTC|[+-][01][0-9](:?[0-5][0-9])?)".boxed()),
        Just("[0-9a-fA-F]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}".boxed()),
        Just(json().prop_map(|value| value.to_string()).boxed()),
        Just("\\[\"(\\\\u[0-9a-dA-D][0-9a-f]{3}|\\\\[nt\"\\\\]|[a-z]){0,4}\"(,-?[0-9]{1,3}(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,6})?)?\\]".boxed()),
        Just("[-+0-9.eE: TZ]{0,12}".boxed()),
        Just("[ -~é]{0,8}".boxed()),
    ]
}

trait Regex {
    fn boxed_regex(self) -> BoxedStrategy<String>;
}

impl Regex for String {
    fn boxed_regex(self) -> BoxedStrategy<String> {
        proptest::string::string_regex(&self).unwrap().boxed()
    }
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::hash_map("[a-z\"\\\\]{0,3}", inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

/// A column of values of one kind, and at times one of another kind among them.
fn column() -> impl Strategy<Value = Vec<Option<String>>> {
    let values = |pool: BoxedStrategy<String>, size| vec(prop_oneof![1 => Just(None), 8 => pool.prop_map(Some)], size);
    let stray = prop_oneof![4 => Just(0..1), 1 => Just(0..3)];
    (pool(), pool(), stray).prop_flat_map(move |(main, other, stray)| {
        (values(main, 1..8), values(other, stray)).prop_map(|(mut values, stray)| {
            values.extend(stray);
            values
        })
    })
}

const CASES: u32 = 256;
const COLUMNS: usize = 6;

#[test]
fn the_server_and_the_encoder_take_every_value_as_what_was_inferred() {
    let bench = Bench::new("infer_property", "");
    let runtime = Runtime::new().unwrap();
    let session = runtime.block_on(Session::connect(bench.database.url())).unwrap();
    // Nothing depends on them.
    let settings = "SET datestyle = 'SQL, DMY'; SET timezone = 'Asia/Tokyo'; SET intervalstyle = sql_standard";
    runtime.block_on(session.client().batch_execute(settings)).unwrap();
    let mut oids = HashMap::new();
    let mut seen = HashMap::<InferredType, u32>::new();
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let cell = std::cell::RefCell::new((&mut oids, &mut seen));
    runner
        .run(&vec(column(), COLUMNS), |columns| {
            let (oids, seen) = &mut *cell.borrow_mut();
            for values in &columns {
                let name = [Ident::new("v").unwrap()];
                let records = values.iter().map(|value| [value.as_deref().map(str::as_bytes)]);
                let found = infer(name, records);
                let data_type = found.columns[0].data_type;
                *seen.entry(data_type).or_default() += 1;

                let sql = format!("SELECT count(v::{data_type}) FROM pg_catalog.unnest($1::text[]) v");
                let taken = runtime.block_on(session.client().query_one(&sql, &[values]));
                let taken =
                    taken.map_err(|error| TestCaseError::fail(format!("{data_type}: {values:?}: {error:?}")))?;
                prop_assert_eq!(taken.get::<_, i64>(0), values.iter().flatten().count() as i64);

                let oid = *oids.entry(data_type).or_insert_with(|| {
                    let sql = format!("SELECT '{data_type}'::regtype::oid");
                    runtime.block_on(session.client().query_one(&sql, &[])).unwrap().get(0)
                });
                let columns = [(Source::Field(0), BinaryType::new(oid, -1).unwrap())];
                let mut encoder = CopyBinary::new(&columns, 2).unwrap();
                let quoted = |value: &String| format!("\"{}\"", value.replace('"', "\"\""));
                let line = |value: &Option<String>| format!("{},\n", value.as_ref().map_or(String::new(), quoted));
                let csv = format!("v,w\n{}", values.iter().map(line).collect::<String>());
                let mut records = Records::new(csv.as_bytes(), Dialect::A, RecordOptions::default()).unwrap();
                while let Some(record) = records.next_record().unwrap() {
                    let encoded = encoder.append(&record, &mut Vec::new());
                    prop_assert!(encoded.is_ok(), "{data_type}: {values:?}: {encoded:?}");
                }
            }
            Ok(())
        })
        .unwrap();
    // The values are such that each type comes up.
    assert_eq!(seen.len(), 11, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_make_a_table_at_once_one_does() {
    let bench = Bench::new("infer_race", "CREATE VIEW v AS SELECT 1 AS id");
    let found = read("id,name\n1,a\n").unwrap();
    for round in 0..8 {
        let name = table(&format!("t{round}"));
        let mut sessions = [bench.session().await, bench.session().await, bench.session().await];
        let [a, b, c] = &mut sessions;
        let (a, b, c) = tokio::join!(
            create_table(a, &name, &found),
            create_table(b, &name, &found),
            create_table(c, &name, &found)
        );
        let made: Vec<_> = [a, b, c].into_iter().map(Result::unwrap).filter(|made| *made).collect();
        assert_eq!(made, [true]);
        // What the others have begun is over.
        for session in &sessions {
            assert!(table_exists(session, &name).await.unwrap());
        }
    }
    let mut session = bench.session().await;
    let error = create_table(&mut session, &table("v"), &found).await.unwrap_err();
    assert!(
        chain(&error).starts_with("cannot create table public.v: relation \"v\" already exists"),
        "{}",
        chain(&error)
    );
    let error = create_table(&mut session, &"nowhere.t".parse().unwrap(), &found).await.unwrap_err();
    assert!(chain(&error).contains("schema \"nowhere\" does not exist"), "{}", chain(&error));
    assert!(create_table(&mut session, &table("after"), &found).await.unwrap());
}

#[tokio::test]
async fn a_type_is_a_type_and_nothing_more() {
    let bench = Bench::new("infer_types", "CREATE TYPE \"my mood\" AS ENUM ('good'); CREATE TABLE precious (id int)");
    let mut session = bench.session().await;
    for good in [
        "bigint",
        "numeric(10,2)",
        "text[]",
        "timestamp with time zone",
        "\"my mood\"",
        " VARCHAR(3) ",
        "public.precious",
    ] {
        let found = SqlType::find(&session, good).await.unwrap();
        assert_eq!(found.map(|found| found.as_str().to_owned()), Some(good.trim().to_owned()));
    }
    let bad = [
        "",
        "nonsense",
        "serial",
        "int) --",
        "int /* */",
        "int); DROP TABLE precious; SELECT (1",
        "int, x int",
        "nowhere.t",
        "int NOT NULL",
        "'",
        "a.b.c.d",
        "int\0",
    ];
    for bad in bad {
        assert_eq!(SqlType::find(&session, bad).await.unwrap(), None, "{bad}");
    }
    let mut found = read("id,\"na\"\"me\"\n1,good\n").unwrap();
    found.columns[0].chosen = SqlType::find(&session, "numeric(10,2)").await.unwrap();
    found.columns[1].chosen = SqlType::find(&session, "\"my mood\"").await.unwrap();
    assert!(create_table(&mut session, &table("t"), &found).await.unwrap());
    assert_eq!(
        bench.psql("SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0"),
        "id numeric(10,2), \"na\"\"me\" \"my mood\""
    );
    assert_eq!(bench.psql("SELECT count(*) FROM precious"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_interrupted_is_told() {
    let bench =
        Bench::new("infer_unfinished", "CREATE TABLE t (id int, text text); CREATE TABLE u (id int, text text)");
    let mut session = bench.session().await;
    let csv = numbered(40_000);
    let (a, b) = (file("a.csv", &csv), file("b.csv", &csv));
    let mut options = LoadOptions::default();
    options.chunk_size = 1 << 20;
    load(std::slice::from_mut(&mut session), &table("t"), &a, whole(&csv), &options).await.unwrap();
    assert_eq!(unfinished(&session, &table("t")).await.unwrap(), []);
    options.append = true;
    let sessions = std::slice::from_mut(&mut session);
    load(sessions, &table("t"), &b, broken_after(&csv, 3 << 20), &options).await.unwrap_err();
    assert_eq!(unfinished(&session, &table("t")).await.unwrap(), std::slice::from_ref(&b));
    assert_eq!(unfinished(&session, &table("u")).await.unwrap(), []);
    assert_eq!(unfinished(&session, &table("absent")).await.unwrap(), []);
    load(std::slice::from_mut(&mut session), &table("t"), &b, whole(&csv), &options).await.unwrap();
    assert_eq!(unfinished(&session, &table("t")).await.unwrap(), []);
}

#[test]
fn what_is_not_chosen_tells_nothing() {
    let csv = b"id,court,note\n1,a,1\nx,b,\xff\n2,b,2\ny,b,n\x00\n";
    let mut options = LoadOptions::default();
    options.filter = vec!["note=1|2".parse().unwrap()];
    options.columns = Some(vec!["id".to_owned(), "note".to_owned()]);
    options.fill.insert("court".to_owned(), "7".to_owned());
    let mut inference = Inference::new();
    inference.read("t.csv", &csv[..], &options).unwrap();
    let table = inference.finish();
    assert_eq!((table.records, types(&table)), (2, vec![("id", "integer"), ("note", "integer"), ("court", "integer")]));
    options.filter.clear();
    let error = Inference::new().read("t.csv", &csv[..], &options).unwrap_err();
    assert!(chain(&error).contains("record 2"), "{}", chain(&error));
    options.repair = true;
    Inference::new().read("t.csv", &csv[..], &options).unwrap();
}

#[test]
fn keys_of_objects_are_columns() {
    let ndjson = "{\"id\": 1, \"day\": \"2026-06-30\", \"ok\": true, \"sum\": 1.50, \"tags\": [\"a\"], \"big\": 12345678901234567890123}\n\
                  {\"day\": null, \"id\": 2147483648, \"name\": \"007\", \"data\": {\"a\": null}, \"rest\": 1}\n\n";
    let mut options = LoadOptions::default();
    options.input_format = InputFormat::Ndjson;
    let types = |options: &LoadOptions| {
        let mut inference = Inference::new();
        inference.read("t.ndjson", ndjson.as_bytes(), options).unwrap();
        let table = inference.finish();
        let column = |column: &bulk_pg::InferredColumn| format!("{} {}", column.name.as_str(), column.data_type.name());
        (table.records, table.columns.iter().map(column).collect::<Vec<_>>().join(", "))
    };
    let expected = "id bigint, day date, ok boolean, sum numeric, tags jsonb, big numeric, name text, data jsonb";
    assert_eq!(types(&options), (2, format!("{expected}, rest integer")));
    options.rest = Some("rest".to_owned());
    assert_eq!(types(&options), (2, format!("{expected}, rest jsonb")));
    options.rest = None;
    options.columns = Some(vec!["id".to_owned(), "name".to_owned()]);
    options.filter = vec!["ok=true".parse().unwrap()];
    assert_eq!(types(&options), (1, "id integer, name text".to_owned()));

    options.input_format = InputFormat::CopyText;
    let error = Inference::new().read("t.copy", &b"1\t2\n"[..], &options).unwrap_err();
    assert!(error.to_string().contains("types of columns are told from CSV and NDJSON, and this is text"), "{error}");
}
