//! Whole rows.

use bulk_pg::{BinaryType, CopyBinary, Dialect, Grammar, RecordOptions, Records, Source};

use crate::reference::Reference;

#[tokio::test]
async fn rows_are_the_ones_that_the_server_writes() {
    let reference = Reference::new().await;
    let columns = [
        ("a", "smallint", "-2"),
        ("b", "bigint", "4611686018429000000"),
        ("c", "boolean", "t"),
        ("d", "real", "1.5"),
        ("e", "double precision", "-0.1"),
        ("f", "numeric", "-1234567.0089"),
        ("g", "date", "2020-06-25"),
        ("h", "timestamp", "2020-06-25 17:13:53.973335"),
        ("i", "timestamptz", "0044-03-15 12:00:00+00 BC"),
        ("j", "text", "say \"hi\", \\ é"),
        ("k", "varchar(9)", "scotus"),
        ("l", "char(3)", "abc"),
        ("m", "json", "{\"a\" : 1}"),
        ("n", "jsonb", "{\"a\": 1}"),
        ("o", "bytea", "\\x00ff"),
        ("p", "uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("q", "integer[]", "{{1,2},{3,NULL}}"),
        ("r", "text[]", "{\"a b\",\"\\\"\",c}"),
        ("s", "date[]", "{}"),
        ("t", "integer", ""),
        ("u", "text", ""),
    ];
    let list = columns.map(|(name, type_name, _)| format!("{name} {type_name}")).join(", ");
    reference.run(&format!("CREATE TABLE t ({list})")).await;
    let mut csv = columns.map(|(name, ..)| name).join(",");
    csv.push('\n');
    let quoted =
        |value: &str| if value.is_empty() { String::new() } else { format!("\"{}\"", value.replace('"', "\"\"")) };
    let row = columns.map(|(.., value)| quoted(value)).join(",");
    csv.push_str(&format!("{row}\n{row}\n"));

    let mut types = Vec::new();
    for (index, (name, ..)) in columns.iter().enumerate() {
        types.push((Source::Field(index), reference.binary_type("t", name).await.unwrap()));
    }
    let mut encoder = CopyBinary::new(&types, columns.len()).unwrap();
    let mut records = Records::new(csv.as_bytes(), Dialect::B, RecordOptions::default()).unwrap();
    let mut binary = CopyBinary::HEADER.to_vec();
    while let Some(record) = records.next_record().unwrap() {
        encoder.append(&record, &mut binary).unwrap();
    }
    binary.extend_from_slice(&CopyBinary::TRAILER);

    let copied = reference.copy_in("COPY t FROM STDIN (FORMAT csv, HEADER)", csv.into_bytes()).await.unwrap();
    assert_eq!(copied, 2);
    let theirs = reference.copy_out("SELECT * FROM t").await;
    assert_eq!(binary.escape_ascii().to_string(), theirs.escape_ascii().to_string());
    assert_eq!(reference.copy_in("COPY t FROM STDIN (FORMAT binary)", binary).await.unwrap(), 2);
}

#[test]
fn a_record_is_encoded_whole_or_not_at_all() {
    let (int4, text, date) = (BinaryType::new(23, -1).unwrap(), BinaryType::new(25, -1).unwrap(), 1082);
    let date = BinaryType::new(date, -1).unwrap();
    let columns = [
        (Source::Field(2), date),
        (Source::Null, int4),
        (Source::Constant(b"-7".to_vec()), int4),
        (Source::Field(0), int4),
        (Source::Field(1), text),
    ];
    let mut encoder = CopyBinary::new(&columns, 3).unwrap();
    let csv = b"n,t,d\n1,,2000-01-01\n2,\"\",now\nx,a,1999-12-31\n3,a\"b\"\"c\"d,\n";
    let mut options = RecordOptions::default();
    options.grammar = Grammar::Server;
    let mut records = Records::new(&csv[..], Dialect::CSV, options).unwrap();
    let mut outcomes = Vec::new();
    let mut rows = b"before".to_vec();
    while let Some(record) = records.next_record().unwrap() {
        outcomes.push(encoder.append(&record, &mut rows).map_err(|refusal| refusal.column()));
    }
    assert_eq!(outcomes, [Ok(()), Err(0), Err(3), Ok(())]);
    let null = "\\xff\\xff\\xff\\xff";
    let int = |number: u8| format!("\\x00\\x00\\x00\\x04\\x00\\x00\\x00\\x{number:02x}");
    let minus_seven = "\\x00\\x00\\x00\\x04\\xff\\xff\\xff\\xf9";
    let count = "\\x00\\x05";
    let first = format!("{count}{}{null}{minus_seven}{}{null}", int(0), int(1));
    let last = format!("{count}{null}{null}{minus_seven}{}\\x00\\x00\\x00\\x05ab\\\"cd", int(3));
    assert_eq!(rows.escape_ascii().to_string(), format!("before{first}{last}"));
}

#[test]
fn columns_that_cannot_be_are_refused_at_once() {
    let int4 = BinaryType::new(23, -1).unwrap();
    let refused = |source: Source| CopyBinary::new(&[(Source::Null, int4), (source, int4)], 2).unwrap_err().to_string();
    assert_eq!(refused(Source::Field(2)), "there is no field 2: a record has 2");
    assert_eq!(refused(Source::Constant(b"x".to_vec())), "invalid input syntax for type integer: \"x\"");
    assert_eq!(refused(Source::Constant(b"0x1".to_vec())), "a value that only the server can read");
    let text = BinaryType::new(25, -1).unwrap();
    for bytes in [&b"a\0"[..], b"\xff"] {
        let refusal = CopyBinary::new(&[(Source::Constant(bytes.to_vec()), text)], 0).unwrap_err();
        assert_eq!(refusal.to_string(), "invalid byte sequence for encoding \"UTF8\"");
    }
    let columns = vec![(Source::Null, int4); 32_768];
    assert_eq!(CopyBinary::new(&columns, 0).unwrap_err().to_string(), "32768 columns are more than a row can have");
    assert!(CopyBinary::new(&columns[1..], 0).is_ok());
}
