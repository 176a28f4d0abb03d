//! The edges of each type, and types without an encoder.

use bulk_pg::{BinaryType, CopyBinary, Dialect, RecordOptions, Records, Source, Unencoded};

use crate::reference::{Reference, csv};

/// What becomes of a value by itself: `None` if it is encoded.
fn outcome(binary_type: BinaryType, value: &str) -> Option<Unencoded> {
    let csv = csv(&[(0, &value.to_owned())], Dialect::B);
    let mut records = Records::new(&csv[..], Dialect::B, RecordOptions::default()).unwrap();
    let mut encoder = CopyBinary::new(&[(Source::Field(1), binary_type)], 2).unwrap();
    encoder.append(&records.next_record().unwrap().unwrap(), &mut Vec::new()).err()
}

#[tokio::test]
async fn the_server_has_the_last_word_on_edges() {
    let understood: &[(&str, &[&str])] = &[
        ("smallint", &["-32768", "32767", "+1", " 007 "]),
        ("bigint", &["-9223372036854775808", "9223372036854775807", "0000000000000000000000000000001"]),
        ("boolean", &["TRUE", "y", "oN", "of", " 0 "]),
        ("real", &["1.4e-45", "3.4028235e38", "-0", "Infinity", "nan", ".5", "5."]),
        ("double precision", &["4.9e-324", "1.7976931348623157e308", "0e999999", "-inf"]),
        ("numeric", &["NaN", "-0.00", "0.00001", "1e200", "1e-200", ".5", "5.", "10000", "100000000.0001"]),
        ("numeric(5, 2)", &["999.99", "999.994", "-999.99499999", "0.001", "1e2", "NaN"]),
        ("numeric(2, 2)", &["0.99", "-0.994", ".00000001"]),
        (
            "date",
            &["4713-01-01 BC", "0001-01-01", "5874897-12-31", "infinity", "-infinity", "2000-02-29", "1750-01-01"],
        ),
        ("timestamp", &["294276-12-31 23:59:59.999999", "4714-11-24 00:00:00 BC", "2016-12-31 23:59:60", "2020-01-01"]),
        ("timestamp", &["1999-12-31 23:59:59.9999995", "2020-01-01 24:00:00", "2020-01-01T10:11:12Z"]),
        ("timestamptz", &["2020-06-25 17:13:53.973335+00", "2020-06-25 17:13:53-05:30", "2020-06-25T17:13:53Z"]),
        ("timestamptz", &["12345-06-07 08:09+00", "0044-03-15 12:00:00+00 BC", "1883-11-18 12:03:57-04:56:02"]),
        ("uuid", &["{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}", "A0EEBC999C0B4EF8BB6D6BB9BD380A11"]),
        ("bytea", &["", "\\x", "\\xDE ad\nBE ef", "\\\\\\000\\377abc"]),
        ("varchar(3)", &["", "abc   ", "éé😀", "   "]),
        ("text[]", &["{}", "{NULL,\"NULL\",\"\",a b}", "{{a,b},{c,d}}", " { \"a\\\"\" , b } "]),
    ];
    let unclear: &[(&str, &[&str])] = &[
        ("integer", &["0x1F", "1_000", "0b1"]),
        ("double precision", &["0x1p3", "-nan"]),
        ("numeric", &["Infinity", "0x1F", "1_000", "1e99999999"]),
        ("date", &["today", "01/02/2003", "Jan 8 1999", "20200102", "2020-01-02 10:00", "4714-11-23 BC", "99-01-01"]),
        ("timestamp", &["now", "2020-01-01 10:00 PM", "294277-01-01", "2020-01-01 10:00:00 America/New_York"]),
        (
            "timestamptz",
            &["2020-01-01 10:00:00", "2020-01-01", "epoch", "2020-01-01 10:00:00 EST", "2020-01-01 10:00+16"],
        ),
        ("bytea", &["é"]),
        ("integer[]", &["[1:2]={1,2}", "{1", "{{1},{2,3}}"]),
        ("text[]", &["{a\\b}", "{a\"b\"}", "{{}}"]),
    ];
    let invalid: &[(&str, &str, &str, &str)] = &[
        ("integer", "", "22P02", "invalid input syntax for type integer: \"\""),
        ("integer", "abc", "22P02", "invalid input syntax for type integer: \"abc\""),
        ("integer", "1.5", "22P02", "invalid input syntax for type integer: \"1.5\""),
        ("smallint", "32768", "22003", "value \"32768\" is out of range for type smallint"),
        ("bigint", "-9223372036854775809", "22003", "value \"-9223372036854775809\" is out of range for type bigint"),
        ("boolean", "o", "22P02", "invalid input syntax for type boolean: \"o\""),
        ("double precision", "1e309", "22003", "\"1e309\" is out of range for type double precision"),
        ("double precision", "1e-400", "22003", "\"1e-400\" is out of range for type double precision"),
        ("real", "1e39", "22003", "\"1e39\" is out of range for type real"),
        ("real", "1,5", "22P02", "invalid input syntax for type real: \"1,5\""),
        ("numeric", "", "22P02", "invalid input syntax for type numeric: \"\""),
        ("numeric", "$1", "22P02", "invalid input syntax for type numeric: \"$1\""),
        ("numeric(5, 2)", "1000", "22003", "numeric field overflow"),
        ("numeric(5, 2)", "999.995", "22003", "numeric field overflow"),
        ("numeric(2, 2)", "-0.995", "22003", "numeric field overflow"),
        ("date", "", "22007", "invalid input syntax for type date: \"\""),
        ("date", "abc", "22007", "invalid input syntax for type date: \"abc\""),
        ("date", "2023-02-30", "22008", "date/time field value out of range: \"2023-02-30\""),
        ("date", "1900-02-29", "22008", "date/time field value out of range: \"1900-02-29\""),
        ("date", "0000-00-00", "22008", "date/time field value out of range: \"0000-00-00\""),
        ("timestamp", "2020-01-01 24:00:01", "22008", "date/time field value out of range: \"2020-01-01 24:00:01\""),
        ("timestamptz", "abc", "22007", "invalid input syntax for type timestamp with time zone: \"abc\""),
        ("uuid", "abc", "22P02", "invalid input syntax for type uuid: \"abc\""),
        ("json", " ", "22P02", "invalid input syntax for type json"),
        ("bytea", "\\xa", "22023", "invalid hexadecimal data: odd number of digits"),
        ("bytea", "\\xag", "22023", "invalid hexadecimal digit: \"g\""),
        ("bytea", "\\8", "22P02", "invalid input syntax for type bytea"),
        ("varchar(3)", "abcd", "22001", "value too long for type character varying(3)"),
        ("char(3)", "éé😀é", "22001", "value too long for type character(3)"),
        ("integer[]", "1,2", "22P02", "malformed array literal: \"1,2\""),
        ("integer[]", "{1,x}", "22P02", "invalid input syntax for type integer: \"x\""),
    ];
    let reference = Reference::new().await;
    let type_of = async |type_name: &str| {
        reference.run(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (v {type_name})")).await;
        reference.binary_type("t", "v").await.unwrap()
    };
    for (type_name, values) in understood {
        let values: Vec<_> = values.iter().map(|value| (*value).to_owned()).collect();
        let seen = reference.compare(type_name, &values).await;
        assert_eq!(seen.understood, values.len(), "{type_name} {values:?}: {seen:?}");
    }
    for (type_name, values) in unclear {
        let binary_type = type_of(type_name).await;
        for value in *values {
            assert_eq!(outcome(binary_type, value), Some(Unencoded::Unclear { column: 0 }), "{type_name} {value:?}");
        }
    }
    for (type_name, value, sqlstate, message) in invalid {
        let binary_type = type_of(type_name).await;
        let expected = Unencoded::Invalid { column: 0, sqlstate, message: (*message).to_owned() };
        assert_eq!(outcome(binary_type, value), Some(expected), "{type_name} {value:?}");
        let seen = reference.compare(type_name, &[(*value).to_owned()]).await;
        assert_eq!(seen.same_words, 1, "{type_name} {value:?}");
    }
}

#[tokio::test]
async fn types_without_an_encoder_are_told() {
    let reference = Reference::new().await;
    reference.run("CREATE DOMAIN positive AS integer; CREATE TYPE mood AS ENUM ('sad', 'ok')").await;
    for type_name in
        ["smallint", "varchar", "bpchar", "varchar(9)[]", "numeric(1000, 0)", "timestamptz(3)[]", "jsonb[]"]
    {
        reference.run(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (v {type_name})")).await;
        assert!(reference.binary_type("t", "v").await.is_some(), "{type_name}");
    }
    for type_name in [
        "positive",
        "positive[]",
        "mood",
        "oid",
        "name",
        "\"char\"",
        "interval",
        "time",
        "timetz",
        "inet",
        "money",
        "xml",
        "point",
        "int4range",
        "int2vector",
        "oidvector",
        "int2vector[]",
        "bit(3)",
        "tsvector",
        "regclass",
        "inet[]",
    ] {
        reference.run(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (v {type_name})")).await;
        assert_eq!(reference.binary_type("t", "v").await, None, "{type_name}");
    }
    // numeric(3, -2) and numeric(3, 5), from version 15 on.
    let (numeric, modifier) = (1700, |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + 4);
    assert!(BinaryType::new(numeric, modifier(3, 3)).is_some());
    assert_eq!([modifier(3, -2), modifier(3, 5)].map(|typmod| BinaryType::new(numeric, typmod)), [None, None]);
}
