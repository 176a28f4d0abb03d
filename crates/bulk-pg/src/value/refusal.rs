//! Why a value is not encoded.

use std::fmt::Display;

/// Why a value is not encoded.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The server may understand it, and the encoder does not.
    Unclear,
    /// Every server refuses it.
    Invalid(Box<Invalid>),
}

/// What the server would say.
#[derive(Debug)]
pub(crate) struct Invalid {
    pub(crate) sqlstate: &'static str,
    pub(crate) message: String,
}

/// So many characters of a value are quoted in a message.
const QUOTED: usize = 200;

fn quoted(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("\"{}…\"", &text[..end]),
        None => format!("\"{text}\""),
    }
}

#[cold]
fn invalid(sqlstate: &'static str, message: String) -> Refusal {
    Refusal::Invalid(Box::new(Invalid { sqlstate, message }))
}

/// `invalid_text_representation`.
#[cold]
pub(crate) fn bad_syntax(type_name: &str, value: &[u8]) -> Refusal {
    invalid("22P02", format!("invalid input syntax for type {type_name}: {}", quoted(value)))
}

/// `invalid_text_representation`, of a type whose values are not quoted in the message.
#[cold]
pub(crate) fn bad_value(type_name: &str) -> Refusal {
    invalid("22P02", format!("invalid input syntax for type {type_name}"))
}

/// `numeric_value_out_of_range`, of an integer.
#[cold]
pub(crate) fn integer_out_of_range(type_name: &str, value: &[u8]) -> Refusal {
    invalid("22003", format!("value {} is out of range for type {type_name}", quoted(value)))
}

/// `numeric_value_out_of_range`, of a floating-point number.
#[cold]
pub(crate) fn float_out_of_range(type_name: &str, value: &[u8]) -> Refusal {
    invalid("22003", format!("{} is out of range for type {type_name}", quoted(value)))
}

/// `numeric_value_out_of_range`, of a numeric with a precision.
#[cold]
pub(crate) fn numeric_overflow() -> Refusal {
    invalid("22003", "numeric field overflow".to_owned())
}

/// `invalid_datetime_format`.
#[cold]
pub(crate) fn bad_date_time(type_name: &str, value: &[u8]) -> Refusal {
    invalid("22007", format!("invalid input syntax for type {type_name}: {}", quoted(value)))
}

/// `datetime_field_overflow`.
#[cold]
pub(crate) fn date_time_field(value: &[u8]) -> Refusal {
    invalid("22008", format!("date/time field value out of range: {}", quoted(value)))
}

/// `string_data_right_truncation`.
#[cold]
pub(crate) fn too_many_characters(type_name: &str, limit: impl Display) -> Refusal {
    invalid("22001", format!("value too long for type {type_name}({limit})"))
}

/// `invalid_parameter_value`, of a bytea in hexadecimal digits.
#[cold]
pub(crate) fn bad_hexadecimal(what: String) -> Refusal {
    invalid("22023", what)
}

/// `invalid_text_representation`, of an array.
#[cold]
pub(crate) fn malformed_array(value: &[u8]) -> Refusal {
    invalid("22P02", format!("malformed array literal: {}", quoted(value)))
}

/// `character_not_in_repertoire`.
#[cold]
pub(crate) fn bad_encoding() -> Refusal {
    invalid("22021", "invalid byte sequence for encoding \"UTF8\"".to_owned())
}

/// `program_limit_exceeded`: a value that no server can hold.
#[cold]
pub(crate) fn too_long(length: usize) -> Refusal {
    invalid("54000", format!("a value of {length} bytes is too long: a field has less than 1 GB"))
}
