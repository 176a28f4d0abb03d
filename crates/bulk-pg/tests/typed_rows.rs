//! Values of Rust as the table has them in the end, by serde.

mod support;

use std::collections::BTreeMap;

use bulk_pg::{CopyFormat, CopyWriter, Session};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde::Serialize;
use serde_json::json;
use support::{Bench, table};

/// Writes rows in both formats, and gives what is in the table then, which has to be the same.
async fn written<T: Serialize>(ddl: &str, columns: &[&str], rows: &[T], show: &str) -> String {
    let bench = Bench::new("typed", ddl);
    let mut session = Session::connect(bench.database.url()).await.unwrap();
    let mut shown = Vec::new();
    for format in [CopyFormat::Auto, CopyFormat::Text] {
        let mut writer = CopyWriter::begin(&mut session, &table("t"), columns, format).await.unwrap();
        for row in rows {
            writer.write(row).await.unwrap();
        }
        assert_eq!(writer.finish().await.unwrap(), rows.len() as u64);
        shown.push(bench.psql(&format!("SET timezone = 'UTC'; {show}")));
        bench.psql("TRUNCATE t");
    }
    assert_eq!(shown[0], shown[1]);
    shown.remove(0)
}

#[derive(Default, Serialize)]
struct Everything<'a> {
    a: bool,
    b: i16,
    c: i32,
    d: i64,
    e: f32,
    f: f64,
    g: Option<rust_decimal::Decimal>,
    h: Option<jiff::civil::Date>,
    i: Option<chrono::NaiveDateTime>,
    j: Option<jiff::Timestamp>,
    k: Option<chrono::DateTime<chrono::Utc>>,
    l: &'a str,
    m: char,
    n: uuid::Uuid,
    o: serde_json::Value,
    p: BTreeMap<&'a str, Vec<Option<i32>>>,
    q: &'a [u8],
    r: Vec<i32>,
    s: Vec<Vec<Option<&'a str>>>,
    t: u64,
    u: [f64; 2],
    v: i128,
}

const EVERYTHING: &str = "CREATE TABLE t (a boolean, b smallint, c integer, d bigint, e real, f double precision,
    g numeric(20, 4), h date, i timestamp, j timestamptz, k timestamptz(3), l text, m char(3), n uuid, o jsonb, p json,
    q bytea, r integer[], s text[], t numeric, u double precision[], v numeric)";

#[tokio::test]
async fn a_struct_of_everything() {
    let rows = [
        Everything {
            a: true,
            b: -2,
            c: i32::MIN,
            d: i64::MAX,
            e: 0.1,
            f: -1.5e300,
            g: Some("-12345.678".parse().unwrap()),
            h: Some("2020-06-25".parse().unwrap()),
            i: Some("2020-06-25T17:13:53.973335".parse().unwrap()),
            j: Some("2020-06-25T17:13:53.973335Z".parse().unwrap()),
            k: Some("2020-06-25T19:13:53.973335+02:00".parse().unwrap()),
            l: "say \"hi\",\t\\ é",
            m: 'é',
            n: uuid::Uuid::from_u128(0xa0ee_bc99_9c0b_4ef8_bb6d_6bb9_bd38_0a11),
            o: json!({"b": 1.50, "a": ["\\\"", null]}),
            p: BTreeMap::from([("x", vec![Some(1), None])]),
            q: &[0, 255, b'\\'],
            r: vec![1, -2],
            s: vec![vec![Some("a \"b\\"), None], vec![Some("{}"), Some("NULL")]],
            t: u64::MAX,
            u: [0.5, f64::INFINITY],
            v: i128::MIN,
        },
        Everything { s: vec![], e: f32::NAN, f: f64::NEG_INFINITY, l: "", m: 'x', ..Everything::default() },
    ];
    let shown = written(EVERYTHING, &[], &rows, "COPY (SELECT * FROM t) TO STDOUT").await;
    let expected = [
        "t\t-2\t-2147483648\t9223372036854775807\t0.1\t-1.5e+300\t-12345.6780\t2020-06-25\t2020-06-25 \
         17:13:53.973335\t2020-06-25 17:13:53.973335+00\t2020-06-25 17:13:53.973+00\tsay \"hi\",\\t\\\\ é\té  \t\
         a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\t{\"a\": [\"\\\\\\\\\\\\\"\", null], \"b\": 1.5}\t{\"x\":[1,null]}\t\
         \\\\x00ff5c\t{1,-2}\t{{\"a \\\\\"b\\\\\\\\\",NULL},{\"{}\",\"NULL\"}}\t18446744073709551615\t{0.5,Infinity}\t\
         -170141183460469231731687303715884105728",
        "f\t0\t0\t0\tNaN\t-Infinity\t\\N\t\\N\t\\N\t\\N\t\\N\t\tx  \t00000000-0000-0000-0000-000000000000\tnull\t{}\t\
         \\\\x\t{}\t{}\t0\t{0,0}\t0",
    ];
    assert_eq!(shown, expected.join("\n"));
}

#[tokio::test]
async fn fields_go_to_the_columns_of_their_names() {
    #[derive(Serialize)]
    struct Row {
        #[serde(rename = "My Name")]
        name: &'static str,
        #[serde(skip)]
        _left_out: i32,
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<&'static str>,
        id: Id,
    }
    #[derive(Serialize)]
    struct Id(i32);
    let rows = [
        Row { name: "a", _left_out: 7, note: None, id: Id(1) },
        Row { name: "b", _left_out: 7, note: Some("x"), id: Id(2) },
    ];
    let ddl = "CREATE TABLE t (id integer, note text, \"My Name\" text, more text)";
    let shown =
        written(ddl, &["id", "note", "My Name"], &rows, "SELECT id, note, \"My Name\", more IS NULL FROM t").await;
    assert_eq!(shown, "1||a|t\n2|x|b|t");

    let rows = [json!({"note": null, "id": 1}), json!({"id": 2, "note": "b", "My Name": true})];
    let shown = written(ddl, &["id", "note", "My Name"], &rows, "SELECT * FROM t ORDER BY id").await;
    assert_eq!(shown, "1|||\n2|b|true|");

    #[derive(Serialize)]
    struct Whole {
        id: i32,
        #[serde(flatten)]
        rest: BTreeMap<&'static str, f64>,
    }
    let rows = [Whole { id: 1, rest: BTreeMap::from([("note", 0.1), ("more", 1e300)]) }];
    assert_eq!(written(ddl, &[], &rows, "SELECT * FROM t").await, "1|0.1||1e300");
}

#[tokio::test]
async fn documents_are_written_as_json() {
    #[derive(Serialize)]
    struct Row {
        id: i32,
        a: Option<Inner>,
        b: Vec<Option<Inner>>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "lowercase")]
    enum Inner {
        Unit,
        New(&'static str),
        Tuple(i32, f64),
        Struct { x: Vec<u8>, y: () },
    }
    let rows = [
        Row { id: 1, a: Some(Inner::Unit), b: vec![None, Some(Inner::New("\"\n"))] },
        Row { id: 2, a: Some(Inner::Tuple(1, f64::NAN)), b: vec![] },
        Row { id: 3, a: None, b: vec![Some(Inner::Struct { x: vec![1, 2], y: () })] },
    ];
    let ddl = "CREATE TABLE t (id integer, a json, b jsonb[])";
    let shown = written(ddl, &[], &rows, "SELECT id, a, b[1], b[2], array_length(b, 1) FROM t ORDER BY id").await;
    assert_eq!(
        shown,
        "1|\"unit\"||{\"new\": \"\\\"\\n\"}|2\n2|{\"tuple\":[1,null]}|||\n3||{\"struct\": {\"x\": [1, 2], \"y\": \
         null}}||1"
    );
}

#[tokio::test]
async fn text_is_read_for_the_type_of_its_column() {
    let ddl = "CREATE TABLE t (a integer, b boolean, c double precision, d timestamptz, e integer[], f bytea, g text, \
               h numeric, i text, j date)";
    let rows = [(" 7 ", "yes", "1e3", "2020-01-01 00:00:00+01", "{1,2}", "\\x00", true, 0.1_f32, -5, "infinity")];
    assert_eq!(
        written(ddl, &[], &rows, "SELECT * FROM t").await,
        "7|t|1000|2019-12-31 23:00:00+00|{1,2}|\\x00|true|0.1|-5|infinity"
    );
}

#[tokio::test]
async fn rows_that_do_not_fit_are_told_with_field_column_and_type() {
    let bench = Bench::new("unfit", "CREATE TABLE t (id integer, day date, data bytea, tags text[], doc jsonb)");
    let mut session = Session::connect(bench.database.url()).await.unwrap();
    let mut writer = CopyWriter::begin(&mut session, &table("t"), &["id", "day"], CopyFormat::Auto).await.unwrap();
    macro_rules! refused {
        ($row:expr) => {
            writer.write(&$row).await.unwrap_err().to_string()
        };
    }
    #[derive(Serialize)]
    struct More {
        id: i32,
        day: &'static str,
        hour: i32,
    }
    #[derive(Serialize)]
    struct Less {
        id: i32,
    }
    assert_eq!(
        refused!((1, "whenever")),
        "row 1 for public.t, column day (date): invalid input syntax for type date: \"whenever\" [SQLSTATE 22007]"
    );
    assert_eq!(
        refused!(More { id: 1, day: "", hour: 3 }),
        "row 1 for public.t, column day (date): invalid input syntax for type date: \"\" [SQLSTATE 22007]"
    );
    assert_eq!(
        refused!(More { id: 1, day: "2001-01-01", hour: 3 }),
        "row 1 for public.t: the row has a field \"hour\", which is none of the columns that are written [SQLSTATE 42703]"
    );
    assert_eq!(
        refused!(Less { id: 1 }),
        "row 1 for public.t, column day (date): the row has no value for it [SQLSTATE 42703]"
    );
    assert_eq!(refused!((1, "2001-01-01", 2)), "row 1 for public.t: the row has more than 2 values [SQLSTATE 42703]");
    assert_eq!(
        refused!(7),
        "row 1 for public.t: a number is no row: it takes a struct, a map, a tuple or a sequence [SQLSTATE 42703]"
    );
    assert_eq!(
        refused!((vec![1], "2001-01-01")),
        "row 1 for public.t, column id (integer): a column of this type cannot hold a sequence [SQLSTATE 42804]"
    );
    assert_eq!(
        refused!((BTreeMap::from([(1, 2)]), "2001-01-01")),
        "row 1 for public.t, column id (integer): a column of this type cannot hold a map [SQLSTATE 42804]"
    );
    assert_eq!(writer.finish().await.unwrap(), 0);

    for format in [CopyFormat::Auto, CopyFormat::Text] {
        let columns = ["data", "tags", "doc"];
        let mut writer = CopyWriter::begin(&mut session, &table("t"), &columns, format).await.unwrap();
        macro_rules! refused {
            ($row:expr) => {
                writer.write(&$row).await.unwrap_err().to_string()
            };
        }
        assert_eq!(
            refused!(([1, 256], (), ())),
            "row 1 for public.t, column data (bytea): a column of this type cannot hold 256 as a byte [SQLSTATE 42804]"
        );
        assert_eq!(
            refused!(((), 5, ())),
            "row 1 for public.t, column tags (text[]): a column of this type cannot hold a number [SQLSTATE 42804]"
        );
        assert_eq!(
            refused!(((), (), BTreeMap::from([((), 1)]))),
            "row 1 for public.t, column doc (jsonb): key must be a string [SQLSTATE 22032]"
        );
        drop(writer);
    }
}

/// Numbers and texts of every kind come back as they are.
#[tokio::test]
async fn whatever_is_written_comes_back() {
    let value = (any::<i64>(), any::<f64>(), any::<f32>(), "[^\0]*", vec(any::<u8>(), 0..20), vec("[^\0]*", 0..4));
    let mut runner = TestRunner::new(Config::default());
    let rows: Vec<_> = (0..1000).map(|_| value.new_tree(&mut runner).unwrap().current()).collect();
    let bench = Bench::new(
        "back",
        "CREATE TABLE t (n integer, a bigint, b double precision, c real, d text, e bytea, f text[], g jsonb, h text)",
    );
    let mut session = Session::connect(bench.database.url()).await.unwrap();
    for format in [CopyFormat::Auto, CopyFormat::Text] {
        let mut writer = CopyWriter::begin(&mut session, &table("t"), &[], format).await.unwrap();
        for (n, (a, b, c, d, e, f)) in rows.iter().enumerate() {
            writer.write(&(n, a, b, c, d, e, f, f, b)).await.unwrap();
        }
        assert_eq!(writer.finish().await.unwrap(), rows.len() as u64);
        let found = session.client().query("SELECT a, b, c, d, e, f, g::text, h::float8 FROM t ORDER BY n", &[]).await;
        for ((a, b, c, d, e, f), row) in rows.iter().zip(found.unwrap()) {
            assert_eq!(*a, row.get::<_, i64>(0));
            assert_eq!(b.to_bits(), row.get::<_, f64>(1).to_bits());
            assert_eq!(c.to_bits(), row.get::<_, f32>(2).to_bits());
            assert_eq!(*d, row.get::<_, String>(3));
            assert_eq!(*e, row.get::<_, Vec<u8>>(4));
            assert_eq!(*f, row.get::<_, Vec<String>>(5));
            assert_eq!(*f, serde_json::from_str::<Vec<String>>(row.get(6)).unwrap());
            assert_eq!(b.to_bits(), row.get::<_, f64>(7).to_bits());
        }
        bench.psql("TRUNCATE t");
    }
}
