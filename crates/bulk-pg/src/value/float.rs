//! real and double precision, as `float4in` and `float8in` read them by `strtof` and `strtod`.

use std::str::FromStr;

use super::refusal::{Refusal, bad_syntax, float_out_of_range};
use super::{fixed, trim};

#[inline(always)]
pub(crate) fn float4(value: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let number: f32 = parse(value, "real")?;
    fixed::<4, 8>(number.to_be_bytes(), out);
    Ok(())
}

#[inline(always)]
pub(crate) fn float8(value: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let number: f64 = parse(value, "double precision")?;
    fixed::<8, 12>(number.to_be_bytes(), out);
    Ok(())
}

trait Float: FromStr + Copy {
    const NAN: Self;
    const INFINITY: Self;
    const NEG_INFINITY: Self;

    fn is_finite(self) -> bool;
    fn is_zero(self) -> bool;
}

macro_rules! float {
    ($type:ty) => {
        impl Float for $type {
            const NAN: Self = Self::NAN;
            const INFINITY: Self = Self::INFINITY;
            const NEG_INFINITY: Self = Self::NEG_INFINITY;

            fn is_finite(self) -> bool {
                self.is_finite()
            }

            fn is_zero(self) -> bool {
                self == 0.0
            }
        }
    };
}

float!(f32);
float!(f64);

#[inline]
fn parse<F: Float>(value: &[u8], type_name: &'static str) -> Result<F, Refusal> {
    // Every number that Rust reads the server reads, too.
    match str::from_utf8(value).ok().and_then(|text| text.parse::<F>().ok()) {
        Some(number) if number.is_finite() && !number.is_zero() => Ok(number),
        _ => parse_any(value, type_name),
    }
}

/// White space around it, zero and what became zero, and what is no number.
fn parse_any<F: Float>(value: &[u8], type_name: &'static str) -> Result<F, Refusal> {
    let text = trim(value);
    let is_decimal = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'+' | b'-' | b'e' | b'E');
    if !text.iter().all(is_decimal) {
        return parse_word(text).ok_or_else(|| not_decimal(text, value, type_name));
    }
    let parsed = str::from_utf8(text).ok().and_then(|text| text.parse::<F>().ok());
    let number = parsed.ok_or_else(|| bad_syntax(type_name, value))?;
    // No decimal number is infinite, or becomes zero, but by lack of range.
    let mantissa = || text.iter().take_while(|byte| !matches!(byte, b'e' | b'E'));
    if !number.is_finite() || (number.is_zero() && mantissa().any(|byte| matches!(byte, b'1'..=b'9'))) {
        return Err(float_out_of_range(type_name, text));
    }
    Ok(number)
}

fn parse_word<F: Float>(text: &[u8]) -> Option<F> {
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()));
    if is(&["nan"]) {
        Some(F::NAN)
    } else if is(&["inf", "+inf", "infinity", "+infinity"]) {
        Some(F::INFINITY)
    } else if is(&["-inf", "-infinity"]) {
        Some(F::NEG_INFINITY)
    } else {
        None
    }
}

/// Hexadecimal numbers, a signed NaN and one with letters in brackets depend on the server's C library.
#[cold]
fn not_decimal(text: &[u8], value: &[u8], type_name: &'static str) -> Refusal {
    let unclear = |byte: &u8| matches!(byte, b'x' | b'X' | b'n' | b'N' | b'i' | b'I') || !byte.is_ascii();
    if text.iter().any(unclear) { Refusal::Unclear } else { bad_syntax(type_name, value) }
}
