//! Identifiers, bytes, texts and documents in many spellings.

use bulk_pg::{CopyBinary, Dialect, RecordOptions, Records, Source};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::reference::{Reference, SPELLINGS, any_of, csv, edited, one_of};

#[tokio::test]
async fn uuids() {
    let reference = Reference::new().await;
    let value = (any::<u128>(), any::<bool>(), any::<u8>(), 0..6).prop_map(|(number, upper, hyphens, style)| {
        let digits = if upper { format!("{number:032X}") } else { format!("{number:032x}") };
        let hyphens = if style < 3 { 0b0001_1110 } else { hyphens };
        let mut text = String::new();
        for (group, digits) in digits.as_bytes().chunks(4).enumerate() {
            if group > 0 && hyphens >> group & 1 == 1 {
                text.push('-');
            }
            text.push_str(str::from_utf8(digits).unwrap());
        }
        if style == 4 { format!("{{{text}}}") } else { text }
    });
    let odd = one_of(&["", "{}", "-", "00000000-0000-0000-0000-00000000000", "{00000000-0000-0000-0000-000000000000"]);
    let seen = reference.spellings("uuid", SPELLINGS, prop_oneof![20 => edited(value, "0aF-{} gé"), 1 => odd]).await;
    assert!(seen.understood > 400 && seen.invalid > 80 && seen.unclear == 0, "{seen:?}");
}

#[tokio::test]
async fn byte_strings() {
    let reference = Reference::new().await;
    let hex = (vec(any::<u8>(), 0..20), any_of(" \n", 0..2)).prop_map(|(bytes, space)| {
        bytes.iter().fold("\\x".to_owned(), |text, byte| text + &format!("{byte:02x}") + &space)
    });
    let escape = any::<u8>().prop_map(|byte| format!("\\{byte:03o}"));
    let piece = prop_oneof![2 => any_of("abc '\",", 1..4), 1 => escape, 1 => Just("\\\\".to_owned())];
    let escaped = vec(piece, 0..8).prop_map(|pieces| pieces.concat());
    let value = prop_oneof![edited(hex, "0123456789abcdefABCDEFgx\\ \té"), edited(escaped, "0123456789\\abxé\n\t`")];
    let seen = reference.spellings("bytea", SPELLINGS, value).await;
    assert!(seen.understood > 400 && seen.invalid > 40 && seen.unclear > 0, "{seen:?}");
}

/// With many quotes and backslashes; one in fifty is longer than what is unescaped in one go.
fn text() -> impl Strategy<Value = String> {
    let short = any_of("ab \"\\`',\n\r\té😀0{}", 0..40);
    let word = prop_oneof![3 => any_of("\"\\`", 0..3), 1 => any_of("abc \n", 0..60)];
    let long = vec(word, 300..900).prop_map(|words| words.concat());
    prop_oneof![48 => short, 1 => long, 1 => any::<String>().prop_map(|text| text.replace('\0', "0"))]
}

#[tokio::test]
async fn texts() {
    let reference = Reference::new().await;
    let seen = reference.spellings("text", 3 * SPELLINGS, text()).await;
    assert!(seen.understood > 2000 && seen.unclear + seen.invalid == 0, "{seen:?}");
}

#[tokio::test]
async fn texts_of_limited_length() {
    let reference = Reference::new().await;
    let value = (any_of("aé😀\" ", 0..9), 0..5_usize).prop_map(|(text, blanks)| text + &" ".repeat(blanks)).boxed();
    for type_name in ["varchar(5)", "char(5)", "char", "varchar(5)[]"] {
        let value = value.clone();
        let seen = if type_name.ends_with("[]") {
            let quoted = |text: String| format!("{{\"{}\"}}", text.replace('"', "\\\""));
            reference.spellings(type_name, SPELLINGS, value.prop_map(quoted)).await
        } else {
            reference.spellings(type_name, SPELLINGS, value).await
        };
        assert!(seen.understood > 10 && seen.invalid > 100 && seen.unclear == 0, "{type_name}: {seen:?}");
    }
    for type_name in ["varchar", "bpchar"] {
        let seen = reference.spellings(type_name, SPELLINGS, value.clone()).await;
        assert!(seen.understood > 500 && seen.unclear + seen.invalid == 0, "{type_name}: {seen:?}");
    }
}

pub(crate) fn json() -> impl Strategy<Value = String> {
    let string = || any_of("ab é😀'`,", 0..8).prop_map(|text| format!("\"{text}\\n\\\"\\u00e9\""));
    let leaf = prop_oneof![
        one_of(&["null", "true", "false", "0", "-1.50e3", "\"\"", "{}", "[]", "12345678901234567890.10"]),
        string(),
    ];
    let value = leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            vec((string(), inner), 0..4).prop_map(|pairs| {
                let pairs: Vec<_> = pairs.into_iter().map(|(key, value)| format!("{key} : {value}")).collect();
                format!("{{{}}}", pairs.join(","))
            }),
        ]
    });
    let blank = any_of(" \n\t", 0..3);
    prop_oneof![20 => spaced_json(value), 1 => blank]
}

/// JSON knows fewer blanks.
fn spaced_json(text: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (any_of(" \n\r\t", 0..3), text).prop_map(|(space, text)| format!("{space}{text}{space}"))
}

#[tokio::test]
async fn documents() {
    let reference = Reference::new().await;
    for type_name in ["json", "jsonb"] {
        let seen = reference.spellings(type_name, SPELLINGS, json()).await;
        assert!(seen.understood > 400 && seen.invalid > 2 && seen.unclear == 0, "{type_name}: {seen:?}");
    }
}

#[tokio::test]
async fn documents_are_refused_by_the_server_alone() {
    let reference = Reference::new().await;
    for type_name in ["json", "jsonb"] {
        reference.run(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t (v {type_name})")).await;
        let of_value = reference.binary_type("t", "v").await.unwrap();
        for value in ["{", "abc", "{\"a\": 1,}", "[1] 2", "\"\t\""] {
            let csv = csv(&[(0, &value.to_owned())], Dialect::D);
            let mut records = Records::new(&csv[..], Dialect::D, RecordOptions::default()).unwrap();
            let mut encoder = CopyBinary::new(&[(Source::Field(1), of_value)], 2).unwrap();
            let mut binary = CopyBinary::HEADER.to_vec();
            encoder.append(&records.next_record().unwrap().unwrap(), &mut binary).unwrap();
            binary.extend_from_slice(&CopyBinary::TRAILER);
            let refused = reference.copy_in("COPY t FROM STDIN (FORMAT binary)", binary).await.unwrap_err();
            assert_eq!(
                (&refused.sqlstate[..], &refused.message[..]),
                ("22P02", "invalid input syntax for type json"),
                "{value}"
            );
        }
    }
}
