//! JSON values as the fields of a line of COPY.

use serde_json::{Number, Value};
use tokio_postgres::types::Type;

use super::is_too_deep;
use crate::column::Column;
use crate::json::NoText;
use crate::json_column::{JsonShape, append_array};
use crate::typed::escape;

/// What a column makes of values.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) name: String,
    shape: JsonShape,
    /// It cannot hold the escape of a NUL either.
    is_jsonb: bool,
    is_integer: bool,
}

/// Why a column does not hold a value, as the server would say it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    pub(super) sqlstate: &'static str,
    pub(super) message: String,
}

impl Unfit {
    fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { sqlstate, message: message.into() }
    }

    /// `character_not_in_repertoire`.
    fn nul() -> Self {
        Self::new("22021", "invalid byte sequence for encoding \"UTF8\": 0x00, a NUL, which no text can hold")
    }
}

impl Cell {
    /// `is_integer` says whether it, or each element of it, is a whole number, whatever domain that is of.
    pub(super) fn new(column: &Column, shape: JsonShape, is_integer: bool) -> Self {
        let oid = column.binary_type.map(crate::BinaryType::oid);
        Self { name: column.name.clone(), shape, is_jsonb: oid == Some(Type::JSONB.oid()), is_integer }
    }

    /// Appends a field without what separates it from others. On an error the end of `out` is undefined.
    pub(super) fn append(&self, value: Option<&Value>, out: &mut Vec<u8>) -> Result<(), Unfit> {
        let Some(value) = value.filter(|value| !value.is_null()) else {
            out.extend_from_slice(b"\\N");
            return Ok(());
        };
        if is_too_deep(value) {
            // `statement_too_complex`, which is what the server says of stacks.
            return Err(Unfit::new("54001", format!("it is nested deeper than {}", super::MAX_DEPTH)));
        }
        match (self.shape, value) {
            (JsonShape::Json, _) => {
                let document = value.to_string();
                if self.is_jsonb && has_nul(document.as_bytes()) {
                    // `untranslatable_character`.
                    return Err(Unfit::new(
                        "22P05",
                        "unsupported Unicode escape sequence: \\u0000 cannot be converted to text",
                    ));
                }
                escape(document.as_bytes(), out);
            }
            (_, Value::String(text)) if text.contains('\0') => return Err(Unfit::nul()),
            (_, Value::String(text)) => escape(text.as_bytes(), out),
            (JsonShape::Array { delimiter, is_json }, Value::Array(_)) => {
                let mut literal = Vec::new();
                let array = if self.is_integer { whole_numbers(value) } else { value.to_string() };
                let appended = append_array(array.as_bytes(), delimiter, is_json, &mut literal);
                appended.map_err(|(_, why)| match why {
                    NoText::Nul => Unfit::nul(),
                    NoText::LoneSurrogate => Unfit::new("22P02", "half of a pair of surrogates, which is no character"),
                })?;
                escape(&literal, out);
            }
            (JsonShape::Array { .. }, Value::Object(_)) => {
                return Err(Unfit::new("42804", "a column of this type cannot hold an object"));
            }
            (_, Value::Number(number)) if self.is_integer => out.extend_from_slice(whole(number).as_bytes()),
            _ => escape(value.to_string().as_bytes(), out),
        }
        Ok(())
    }
}

/// Whether a document has the escape of a NUL.
fn has_nul(document: &[u8]) -> bool {
    memchr::memmem::find_iter(document, b"\\u0000").any(|at| {
        let before = document[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        before.is_multiple_of(2)
    })
}

/// A whole number as the server reads integers, also where it is written with a point or an exponent; any other as it is.
fn whole(number: &Number) -> String {
    let text = number.to_string();
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return text;
    }
    expand(&text).unwrap_or(text)
}

/// An array whose [`whole`] numbers are written so, in whatever depth.
fn whole_numbers(value: &Value) -> String {
    match value {
        Value::Number(number) => whole(number),
        Value::Array(items) => format!("[{}]", items.iter().map(whole_numbers).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// No integer has more digits, whatever zeros are before it.
const DIGITS: i64 = 40;

fn expand(text: &str) -> Option<String> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (rest, 0),
    };
    let (before, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{before}{behind}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some("0".to_owned());
    }
    let point =
        i64::try_from(digits.len()).ok()?.checked_sub(i64::try_from(behind.len()).ok()?)?.checked_add(exponent)?;
    if !(1..=DIGITS).contains(&point) {
        return None;
    }
    let point = usize::try_from(point).ok()?;
    let (kept, dropped) = digits.split_at(point.min(digits.len()));
    dropped.bytes().all(|byte| byte == b'0').then(|| format!("{sign}{kept:0<point$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_however_they_are_written() {
        for (text, expected) in [
            ("1e3", "1000"),
            ("1.50E+1", "15"),
            ("-20.0", "-20"),
            ("0.0", "0"),
            ("-0.00e7", "0"),
            ("0.5e1", "5"),
            ("120e-1", "12"),
            ("9223372036854775807.000", "9223372036854775807"),
        ] {
            assert_eq!(expand(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["0.5", "1e-1", "1e400", "15e-1", "1e99999999999999999999", "1e9223372036854775807"] {
            assert_eq!(expand(text), None, "{text}");
        }
    }

    #[test]
    fn the_escape_of_a_nul_is_told_from_the_text_of_one() {
        for (value, expected) in
            [("\0", true), ("\\u0000", false), ("\\\0", true), ("u0000", false), ("\\\\u0000", false)]
        {
            assert_eq!(has_nul(Value::from(value).to_string().as_bytes()), expected, "{value:?}");
        }
    }
}
