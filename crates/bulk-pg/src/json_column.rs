//! What a JSON value becomes for a column.

use std::collections::HashMap;

use tokio_postgres::types::{Oid, Type};

use crate::json::{Kind, NoText, Scanner, unescape};
use crate::{Error, Session, TableName};

/// How a column takes JSON values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonShape {
    /// As text: a string's characters, and whatever else as it stands in the file.
    Text,
    /// All as it stands in the file, for json and jsonb.
    Json,
    /// An array as the literal that the server's `array_in` reads, whose elements are JSON or text; the rest as text.
    Array { delimiter: u8, is_json: bool },
}

/// The shapes of a table's columns, by name. A domain counts for the type under it.
pub(crate) async fn json_shapes(
    session: &Session,
    table: &TableName,
    oid: Oid,
) -> Result<HashMap<String, JsonShape>, Error> {
    let rows = session
        .client()
        .query(
            "WITH RECURSIVE c(name, type) AS (
                 SELECT attname::text, atttypid FROM pg_catalog.pg_attribute
                 WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
                 UNION ALL
                 SELECT c.name, t.typbasetype FROM c JOIN pg_catalog.pg_type t ON t.oid = c.type AND t.typtype = 'd')
             SELECT c.name, t.oid, e.oid, pg_catalog.ascii(e.typdelim::text)
             FROM c JOIN pg_catalog.pg_type t ON t.oid = c.type AND t.typtype <> 'd'
             LEFT JOIN pg_catalog.pg_type e ON e.typarray = t.oid",
            &[&oid],
        )
        .await
        .map_err(Error::database(format!("read the columns of {table:#}")))?;
    let is_json = |oid: Oid| [Type::JSON.oid(), Type::JSONB.oid()].contains(&oid);
    let shape = |row: &tokio_postgres::Row| match (row.get::<_, Option<Oid>>(2), row.get::<_, Option<i32>>(3)) {
        (Some(element), delimiter) => JsonShape::Array {
            delimiter: delimiter.and_then(|code| u8::try_from(code).ok()).unwrap_or(b','),
            is_json: is_json(element),
        },
        _ if is_json(row.get(1)) => JsonShape::Json,
        _ => JsonShape::Text,
    };
    Ok(rows.iter().map(|row| (row.get(0), shape(row))).collect())
}

/// Appends an array, which is JSON, as a literal of PostgreSQL's (manual, "Arrays", "Array Input and Output Syntax"):
/// arrays in it are dimensions, unless the elements are JSON.
///
/// # Errors
///
/// The place of an escape in a string that no text can hold, and why.
pub(crate) fn append_array(
    array: &[u8],
    delimiter: u8,
    is_json: bool,
    out: &mut Vec<u8>,
) -> Result<(), (usize, NoText)> {
    let mut scanner = Scanner::new(array, 0);
    let mut string = Vec::new();
    let mut depth = 0_usize;
    while let Some(byte) = scanner.peek() {
        match byte {
            b'[' if depth == 0 || !is_json => {
                out.push(b'{');
                depth += 1;
                scanner.at += 1;
            }
            b']' => {
                out.push(b'}');
                depth = depth.saturating_sub(1);
                scanner.at += 1;
            }
            b',' => {
                out.push(delimiter);
                scanner.at += 1;
            }
            _ => {
                let Ok(value) = scanner.value() else { break };
                let raw = &array[value.start..value.end];
                match value.kind {
                    Kind::Null => out.extend_from_slice(b"NULL"),
                    Kind::Plain => out.extend_from_slice(raw),
                    Kind::String { .. } if !is_json => {
                        string.clear();
                        let inner = &raw[1..raw.len() - 1];
                        unescape(inner, &mut string).map_err(|(at, why)| (value.start + 1 + at, why))?;
                        quote(&string, out);
                    }
                    _ => quote(raw, out),
                }
            }
        }
    }
    Ok(())
}

fn quote(element: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in element {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(array: &str, is_json: bool) -> String {
        let mut out = Vec::new();
        append_array(array.as_bytes(), b',', is_json, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn arrays_become_literals() {
        assert_eq!(literal("[1, -2.5e3 , null,true]", false), "{1,-2.5e3,NULL,true}");
        assert_eq!(literal(r#"["a,b", "", "NULL", "\"\\\u00e9"]"#, false), "{\"a,b\",\"\",\"NULL\",\"\\\"\\\\é\"}");
        assert_eq!(literal("[[1,2],[3,4]]", false), "{{1,2},{3,4}}");
        assert_eq!(literal(r#"[{"a":[1]}]"#, false), r#"{"{\"a\":[1]}"}"#);
        assert_eq!(literal(r#"[[1,2],"x",null,{"a": "\n"}]"#, true), r#"{"[1,2]","\"x\"",NULL,"{\"a\": \"\\n\"}"}"#);
        assert_eq!(literal("[]", true), "{}");
        let out = append_array(br#"["a", "b\u0000"]"#, b',', false, &mut Vec::new());
        assert_eq!(out, Err((8, NoText::Nul)));
    }
}
