//! numeric, as `numeric_in` reads it, in the digits to base 10,000 that `numeric_recv` takes.

use super::refusal::{Refusal, bad_syntax, numeric_overflow};
use super::{close, fixed, integer, open, trim};

/// What a column's type modifier says of its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Precision {
    /// Digits, altogether.
    pub(crate) digits: i32,
    /// Digits behind the point, to which the server rounds.
    pub(crate) scale: i32,
}

const POSITIVE: u16 = 0;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xc000;

/// Decimal digits of one to base 10,000.
const GROUP: i32 = 4;
/// Numbers with more digits, before or behind the point, are left to the server, which has limits there.
const MAX_DIGITS: i32 = 1000;

/// A decimal number, as it is written.
struct Decimal<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i32,
}

#[inline]
pub(crate) fn numeric(value: &[u8], precision: Option<Precision>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    if append_usual(value, precision, out) {
        return Ok(());
    }
    let text = trim(value);
    let Some(decimal) = Decimal::parse(text) else {
        if text.eq_ignore_ascii_case(b"nan") {
            fixed::<8, 12>(header(0, 0, NAN, 0), out);
            return Ok(());
        }
        return Err(not_decimal(text, value));
    };
    let Decimal { negative, mut whole, fraction, exponent } = decimal;
    while let [b'0', rest @ ..] = whole {
        whole = rest;
    }
    let within = |count: usize| count <= MAX_DIGITS as usize;
    if !within(whole.len()) || !within(fraction.len()) || !(-MAX_DIGITS..=MAX_DIGITS).contains(&exponent) {
        return Err(Refusal::Unclear);
    }
    // Where the point stands, counted in digits from the first that is not zero.
    let zeros = if whole.is_empty() { fraction.iter().take_while(|byte| **byte == b'0').count() } else { 0 };
    let fraction_digits = &fraction[zeros..];
    let point = whole.len() as i32 - zeros as i32 + exponent;
    let display_scale = (fraction.len() as i32 - exponent).max(0);
    let digits = || whole.iter().chain(fraction_digits);
    let count = whole.len() + fraction_digits.len();
    if count == 0 {
        fixed::<8, 12>(header(0, 0, POSITIVE, display_scale as u16), out);
        return Ok(());
    }
    if let Some(precision) = precision {
        precision.check(point, digits())?;
    }

    let weight = (point - 1).div_euclid(GROUP);
    let start = open(out);
    out.extend_from_slice(&[0; 8]);
    let (mut group, mut lacking) = (0_u16, point - GROUP * weight);
    for byte in digits() {
        group = group * 10 + u16::from(byte - b'0');
        lacking -= 1;
        if lacking == 0 {
            out.extend_from_slice(&group.to_be_bytes());
            (group, lacking) = (0, GROUP);
        }
    }
    if lacking < GROUP {
        group *= [1, 10, 100, 1000][lacking as usize];
        out.extend_from_slice(&group.to_be_bytes());
    }
    let mut groups = (out.len() - start - 8) / 2;
    while groups > 0 && out.ends_with(&[0, 0]) {
        out.truncate(out.len() - 2);
        groups -= 1;
    }
    let sign = if negative { NEGATIVE } else { POSITIVE };
    out[start..start + 8].copy_from_slice(&header(groups as u16, weight as i16, sign, display_scale as u16));
    close(start, out)
}

/// Numbers of up to 19 digits before the point and 16 behind it that need no rounding; returns whether it was one.
#[inline(always)]
fn append_usual(value: &[u8], precision: Option<Precision>, out: &mut Vec<u8>) -> bool {
    let (sign, unsigned) = match value {
        [b'-', rest @ ..] => (NEGATIVE, rest),
        rest => (POSITIVE, rest),
    };
    let point = memchr::memchr(b'.', unsigned).unwrap_or(unsigned.len());
    let (whole, fraction) = (&unsigned[..point], unsigned.get(point + 1..).unwrap_or_default());
    let Some(whole_number) = integer::unsigned(whole, point) else { return false };
    let fits = |precision: Precision| point as i32 <= precision.digits - precision.scale;
    let places = fraction.len();
    if !precision.is_none_or(|precision| fits(precision) && places as i32 <= precision.scale) || places > 16 {
        return false;
    }
    let fraction_number = match places {
        0 => 0,
        _ => match integer::unsigned(fraction, places) {
            Some(number) => number * [1, 1000, 100, 10][places % 4],
            None => return false,
        },
    };

    // Five to base 10,000 before the point, and four behind it.
    let mut groups = [0_u16; 9];
    let split = |mut number: u64, groups: &mut [u16]| {
        for group in groups.iter_mut().rev() {
            if number == 0 {
                break;
            }
            *group = (number % 10_000) as u16;
            number /= 10_000;
        }
    };
    split(whole_number, &mut groups[..5]);
    split(fraction_number, &mut groups[5..5 + places.div_ceil(4)]);
    let first = groups.iter().position(|group| *group > 0);
    let last = groups.iter().rposition(|group| *group > 0);
    let (Some(first), Some(last)) = (first, last) else {
        fixed::<8, 12>(header(0, 0, POSITIVE, places as u16), out);
        return true;
    };
    let groups = &groups[first..=last];
    let length = 8 + 2 * groups.len();
    out.extend_from_slice(&(length as u32).to_be_bytes());
    out.extend_from_slice(&header(groups.len() as u16, 4 - first as i16, sign, places as u16));
    for group in groups {
        out.extend_from_slice(&group.to_be_bytes());
    }
    true
}

fn header(groups: u16, weight: i16, sign: u16, display_scale: u16) -> [u8; 8] {
    let [a, b] = groups.to_be_bytes();
    let [c, d] = weight.to_be_bytes();
    let [e, f] = sign.to_be_bytes();
    let [g, h] = display_scale.to_be_bytes();
    [a, b, c, d, e, f, g, h]
}

impl<'a> Decimal<'a> {
    /// `None` if it is not a number of digits, point and exponent; also if the exponent has more than six digits.
    #[inline]
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let (whole, rest) = split_digits(rest);
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => split_digits(rest),
            rest => (&[][..], rest),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', rest @ ..] => {
                let (negative, rest) = match rest {
                    [b'-', rest @ ..] => (true, rest),
                    [b'+', rest @ ..] => (false, rest),
                    rest => (false, rest),
                };
                let (digits, []) = split_digits(rest) else { return None };
                if digits.is_empty() || digits.len() > 6 {
                    return None;
                }
                let size = digits.iter().fold(0, |number, byte| number * 10 + i32::from(byte - b'0'));
                if negative { -size } else { size }
            }
            _ => return None,
        };
        Some(Self { negative, whole, fraction, exponent })
    }
}

#[inline]
fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len()))
}

/// Infinity (from version 14 on), other bases and underscores (from 16 on) are left to the server.
#[cold]
fn not_decimal(text: &[u8], value: &[u8]) -> Refusal {
    let unsigned = match text {
        [b'-' | b'+', rest @ ..] => rest,
        rest => rest,
    };
    let clear = match unsigned {
        [] => true,
        // Whatever else may be a number begins with a digit or a point, or is infinite.
        [b'0'..=b'9' | b'.' | b'i' | b'I', ..] => false,
        _ => value.is_ascii(),
    };
    if clear { bad_syntax("numeric", value) } else { Refusal::Unclear }
}

impl Precision {
    /// Of a type modifier. `None` for one that has no sense before version 15: a negative scale, or one beyond the
    /// precision.
    pub(crate) fn of(typmod: i32) -> Option<Self> {
        let modifier = typmod - 4;
        let (digits, scale) = ((modifier >> 16) & 0xffff, modifier & 0xffff);
        (0..=digits).contains(&scale).then_some(Self { digits, scale })
    }

    /// Whether a number fits once it is rounded to the scale; its digits begin with one that is not zero.
    #[inline]
    fn check<'a>(self, point: i32, digits: impl Iterator<Item = &'a u8> + Clone) -> Result<(), Refusal> {
        let most = self.digits - self.scale;
        if point < most {
            return Ok(());
        }
        if point > most {
            // Rounding can only make it longer; but what lies behind all digits is rounded to zero.
            return Err(numeric_overflow());
        }
        // As many digits before the point as there may be: one more if it is rounded up from all nines.
        let kept = point + self.scale;
        let mut rest = digits;
        let nines = kept >= 0 && (0..kept).all(|_| rest.next() == Some(&b'9'));
        if nines && rest.next().is_some_and(|byte| *byte >= b'5') {
            return Err(numeric_overflow());
        }
        Ok(())
    }
}
