//! Which types a value may be of, by its spelling.

use super::jsonb;
use super::types::{InferredType, Types};
use crate::value::{boolean, date_time, float, integer, numeric, uuid};

/// What a value says of its column.
pub(super) struct Spelled {
    pub(super) types: Types,
    /// A word that several types have, such as `infinity`; alone it makes no column one of them.
    pub(super) is_word: bool,
}

/// The most significant digits that a writer gives a double: `DBL_DECIMAL_DIG` in C's `float.h`.
const DOUBLE_DIGITS: usize = 17;
/// Digits of a second's fraction that a timestamp keeps.
const FRACTION_DIGITS: usize = 6;

/// The types among `among` that a value may be of: those that it is spelled as, and that the encoder understands, for
/// which `room` is.
pub(super) fn spelled(value: &[u8], among: Types, room: &mut Vec<u8>) -> Spelled {
    let is = |words: &[&str]| words.iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()));
    let is_infinite = is(&["infinity", "-infinity"]);
    let is_word = is_infinite || is(&["nan", "inf", "-inf"]);
    let candidates = match value {
        _ if is_infinite => Types::MOMENTS.with(InferredType::DoublePrecision),
        _ if is_word => Types::of(InferredType::DoublePrecision),
        _ if is(&["t", "f", "true", "false"]) => Types::of(InferredType::Boolean),
        _ if is_hyphenated(value) => Types::of(InferredType::Uuid),
        _ if is_moment(value) => Types::MOMENTS,
        [b'0'..=b'9' | b'-' | b'.', ..] => number(value),
        _ if matches!(value.trim_ascii_start().first(), Some(b'{' | b'[')) => Types::of(InferredType::Jsonb),
        _ => Types::NONE,
    };
    let mut types = candidates.and(among).filter(|data_type| {
        room.clear();
        is_encoded(data_type, value, room)
    });
    if !is_word && types.has(InferredType::Timestamptz) {
        // The other one would disregard the zone.
        types = types.without(InferredType::Timestamp);
    }
    // Of a time without a zone the server would have to be told one.
    if !is_word && !among.has(InferredType::Timestamptz) && types.has(InferredType::Timestamp) {
        room.clear();
        if date_time::timestamptz(value, room).is_ok() {
            types = types.without(InferredType::Timestamp);
        }
    }
    Spelled { types, is_word }
}

/// Whether the encoder understands the value.
fn is_encoded(data_type: InferredType, value: &[u8], room: &mut Vec<u8>) -> bool {
    match data_type {
        InferredType::Boolean => boolean::boolean(value, room).is_ok(),
        InferredType::Integer => integer::int4(value, value.len(), room).is_ok(),
        InferredType::Bigint => integer::int8(value, value.len(), room).is_ok(),
        InferredType::Numeric => numeric::numeric(value, None, room).is_ok(),
        InferredType::DoublePrecision => float::float8(value, room).is_ok(),
        InferredType::Date => date_time::date(value, room).is_ok(),
        InferredType::Timestamp => date_time::timestamp(value, room).is_ok(),
        InferredType::Timestamptz => date_time::timestamptz(value, room).is_ok(),
        InferredType::Uuid => uuid::uuid(value, room).is_ok(),
        InferredType::Jsonb => jsonb::is_container(value),
        InferredType::Text => true,
    }
}

/// Whether hyphens stand where a uuid has them. Without them it could be any digest.
fn is_hyphenated(value: &[u8]) -> bool {
    value.len() == 36 && [8, 13, 18, 23].into_iter().all(|at: usize| value[at] == b'-')
}

/// Whether it begins with a date of ISO 8601, and has no more digits behind the second than are kept.
fn is_moment(value: &[u8]) -> bool {
    let (year, rest) = digits(value);
    let is_year = match year.len() {
        4 => true,
        5..=7 => year[0] != b'0',
        _ => false,
    };
    let [b'-', b'0'..=b'9', b'0'..=b'9', b'-', b'0'..=b'9', b'0'..=b'9', rest @ ..] = rest else { return false };
    let fraction = rest.iter().position(|byte| *byte == b'.').map_or(&[][..], |point| digits(&rest[point + 1..]).0);
    let zeros = fraction.iter().rev().take_while(|byte| **byte == b'0').count();
    is_year && matches!(rest, [] | [b' ' | b'T' | b't', ..]) && fraction.len() - zeros <= FRACTION_DIGITS
}

/// The numbers that it may be.
fn number(value: &[u8]) -> Types {
    let unsigned = value.strip_prefix(b"-").unwrap_or(value);
    let (whole, rest) = digits(unsigned);
    let (fraction, rest) = match rest {
        [b'.', b'0'..=b'9', ..] => digits(&rest[1..]),
        rest => (&[][..], rest),
    };
    let is_padded = whole.len() > 1 && whole[0] == b'0';
    if is_padded || (whole.is_empty() && fraction.is_empty()) {
        return Types::NONE;
    }
    let exact = if significant(whole, fraction) <= DOUBLE_DIGITS {
        Types::of(InferredType::DoublePrecision)
    } else {
        Types::NONE
    };
    match rest {
        [] if fraction.is_empty() => {
            exact.with(InferredType::Numeric).with(InferredType::Bigint).with(InferredType::Integer)
        }
        [] => exact.with(InferredType::Numeric),
        [b'e' | b'E', exponent @ ..] => {
            let exponent = exponent.strip_prefix(b"-").or(exponent.strip_prefix(b"+")).unwrap_or(exponent);
            if matches!(digits(exponent), ([_, ..], [])) { exact } else { Types::NONE }
        }
        _ => Types::NONE,
    }
}

/// How many digits there are from the first that is not zero to the last.
fn significant(whole: &[u8], fraction: &[u8]) -> usize {
    let digits = || whole.iter().chain(fraction);
    let (first, last) = (digits().position(|byte| *byte != b'0'), digits().rev().position(|byte| *byte != b'0'));
    first.zip(last).map_or(0, |(before, behind)| whole.len() + fraction.len() - before - behind)
}

/// The digits at the start, and what follows.
fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(value: &str) -> Vec<InferredType> {
        spelled(value.as_bytes(), Types::ALL, &mut Vec::new()).types.iter().collect()
    }

    #[test]
    fn numbers_are_told_by_their_digits() {
        use InferredType::{Bigint, DoublePrecision, Integer, Numeric};
        for integer in ["0", "7", "-1", "2147483647", "-2147483648"] {
            assert_eq!(types(integer), [Integer, Bigint, Numeric, DoublePrecision], "{integer}");
        }
        assert_eq!(types("2147483648"), [Bigint, Numeric, DoublePrecision]);
        assert_eq!(types("9223372036854775807"), [Bigint, Numeric]);
        assert_eq!(types("9223372036854775808"), [Numeric]);
        for decimal in ["0.50", "-12.5", ".5", "100000000000000000000"] {
            assert_eq!(types(decimal), [Numeric, DoublePrecision], "{decimal}");
        }
        for float in ["1e5", "-1.5E-7", "1e+5", "NaN", "-inf"] {
            assert_eq!(types(float), [DoublePrecision], "{float}");
        }
        let odd = ["007", "00.5", "+1", "1.", " 1", "1 ", "1_000", "0x10", "1e", "1e5x", "1e400", "-", ".", "1,5", ""];
        for text in odd.into_iter().chain(["12345678901234567890.5e1", "--1", "1e-400"]) {
            assert_eq!(types(text), [], "{text}");
        }
    }

    #[test]
    fn moments_are_told_by_clock_and_zone() {
        use InferredType::{Date, Timestamp, Timestamptz};
        for date in ["2026-06-30", "0044-03-15 BC", "0001-01-01"] {
            assert_eq!(types(date), [Date, Timestamp], "{date}");
        }
        assert_eq!(types("1000000-01-01"), [Date]);
        for local in ["2026-06-30 12:00:00", "2026-06-30T12:00", "2026-06-30 12:00:00.123456000"] {
            assert_eq!(types(local), [Timestamp], "{local}");
        }
        for zoned in ["2026-06-30 12:00:00+00", "2026-06-30T12:00:00.5Z", "2026-06-30 12:00:00 UTC"] {
            assert_eq!(types(zoned), [Timestamptz], "{zoned}");
            let local = Types::of(Timestamp);
            assert_eq!(spelled(zoned.as_bytes(), local, &mut Vec::new()).types, Types::NONE, "{zoned}");
        }
        for text in ["2026-02-30", "2026-6-30", "30-06-2026", "2026-06-30 12:00:00.1234567", "02026-06-30", "12:00:00"]
        {
            assert_eq!(types(text), [], "{text}");
        }
    }

    #[test]
    fn other_types_are_told_by_their_form() {
        for boolean in ["t", "F", "true", "False"] {
            assert_eq!(types(boolean), [InferredType::Boolean], "{boolean}");
        }
        assert_eq!(types("A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11"), [InferredType::Uuid]);
        for json in ["{}", "[]", " {\"a\": [1, \"x\"]}", "[1e300]"] {
            assert_eq!(types(json), [InferredType::Jsonb], "{json}");
        }
        let texts = ["yes", "on", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", "a0eebc999c0b4ef8bb6d6bb9bd380a11", "null"];
        for text in texts.into_iter().chain(["\"x\"", "{1}", "{a,b}", "[1", "a"]) {
            assert_eq!(types(text), [], "{text}");
        }
    }
}
