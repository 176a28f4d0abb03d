//! What the server gives back of a value that it was sent in the binary format.

mod document;

use tokio_postgres::types::Type;

use crate::BinaryType;
use crate::value::array::{DIMENSION, HEADER};
use crate::value::json::VERSION;
use crate::value::numeric::Precision;
use crate::value::{LENGTH, NULL};

/// The binary form of a column's values once the server has stored them, which its type's send function gives
/// (`record_send` among others): rounded, padded, or put into order as the type has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Canonical {
    oid: u32,
    is_array: bool,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// It comes back as it was sent.
    Same,
    /// A number that is rounded to so many digits behind the point, and has as many.
    Scale(i32),
    /// A time that is rounded to so many microseconds.
    Micros(i64),
    /// Text without the blanks beyond a limit, which is filled up with blanks or not.
    Characters { limit: usize, is_padded: bool },
    /// A jsonb.
    Document,
}

impl Canonical {
    pub(crate) fn new(binary_type: BinaryType) -> Self {
        let element = binary_type.element();
        let scalar = element.unwrap_or(binary_type);
        Self { oid: binary_type.oid(), is_array: element.is_some(), form: Form::of(scalar.oid(), scalar.typmod()) }
    }

    /// The type's object identifier.
    pub(crate) fn oid(self) -> u32 {
        self.oid
    }

    /// Appends a value with its length. `None` if it is not known what the server makes of it; then the end of `out` is
    /// undefined.
    pub(crate) fn append(self, sent: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH]);
        match self.is_array && self.form != Form::Same {
            true => self.form.append_array(sent, out)?,
            false => self.form.append(sent, out)?,
        }
        let length = u32::try_from(out.len() - start - LENGTH).ok()?;
        out[start..start + LENGTH].copy_from_slice(&length.to_be_bytes());
        Some(())
    }
}

impl Form {
    fn of(oid: u32, typmod: i32) -> Self {
        const VARLENA_HEADER: i32 = 4;
        let limit = || usize::try_from(typmod - VARLENA_HEADER);
        match Type::from_oid(oid) {
            Some(Type::NUMERIC) if typmod >= 0 => {
                Precision::of(typmod).map_or(Self::Same, |precision| Self::Scale(precision.scale))
            }
            Some(Type::TIMESTAMP | Type::TIMESTAMPTZ) => match typmod {
                0..=5 => Self::Micros(10_i64.pow(6 - typmod.unsigned_abs())),
                _ => Self::Same,
            },
            Some(Type::VARCHAR) => limit().map_or(Self::Same, |limit| Self::Characters { limit, is_padded: false }),
            Some(Type::BPCHAR) => limit().map_or(Self::Same, |limit| Self::Characters { limit, is_padded: true }),
            Some(Type::JSONB) => Self::Document,
            _ => Self::Same,
        }
    }

    fn append(self, sent: &[u8], out: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Same => out.extend_from_slice(sent),
            Self::Scale(scale) => append_rounded(sent, scale, out)?,
            Self::Micros(unit) => {
                let micros = i64::from_be_bytes(sent.try_into().ok()?);
                out.extend_from_slice(&round_time(micros, unit)?.to_be_bytes());
            }
            Self::Characters { limit, is_padded } => append_limited(sent, limit, is_padded, out),
            Self::Document => {
                out.extend_from_slice(&VERSION);
                document::append(sent.strip_prefix(&VERSION)?, out)?;
            }
        }
        Some(())
    }

    /// As `array_send` has it: the frame is as it was sent, and each element has a length of its own.
    fn append_array(self, sent: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let dimensions = u32::from_be_bytes(*sent.first_chunk()?) as usize;
        let (frame, mut rest) = sent.split_at_checked(HEADER + DIMENSION * dimensions)?;
        out.extend_from_slice(frame);
        while let Some((length, behind)) = rest.split_first_chunk::<LENGTH>() {
            if *length == NULL {
                out.extend_from_slice(&NULL);
                rest = behind;
                continue;
            }
            let (value, behind) = behind.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            let start = out.len();
            out.extend_from_slice(&[0; LENGTH]);
            self.append(value, out)?;
            let length = u32::try_from(out.len() - start - LENGTH).ok()?;
            out[start..start + LENGTH].copy_from_slice(&length.to_be_bytes());
            rest = behind;
        }
        rest.is_empty().then_some(())
    }
}

/// As `AdjustTimestampForTypmod` rounds; infinity stays.
fn round_time(micros: i64, unit: i64) -> Option<i64> {
    if micros == i64::MIN || micros == i64::MAX {
        return Some(micros);
    }
    let rounded = micros.checked_abs()?.checked_add(unit / 2)? / unit * unit;
    Some(if micros < 0 { -rounded } else { rounded })
}

/// As `varchar` and `bpchar` have it. What stands beyond the limit is blanks, or it would have been refused.
fn append_limited(sent: &[u8], limit: usize, is_padded: bool, out: &mut Vec<u8>) {
    let is_start = |byte: &u8| *byte & 0xc0 != 0x80;
    let mut starts = sent.iter().enumerate().filter(|(_, byte)| is_start(byte)).map(|(at, _)| at);
    let end = starts.by_ref().nth(limit).unwrap_or(sent.len());
    out.extend_from_slice(&sent[..end]);
    if is_padded {
        let characters = sent[..end].iter().filter(|byte| is_start(byte)).count();
        out.resize(out.len() + limit.saturating_sub(characters), b' ');
    }
}

/// Groups to base 10,000 have so many decimal digits.
const GROUP: i32 = 4;
const BASE: u16 = 10_000;

/// As `round_var` and `make_result` have it (`src/backend/utils/adt/numeric.c`): half of the last digit is rounded away from
/// zero.
fn append_rounded(sent: &[u8], scale: i32, out: &mut Vec<u8>) -> Option<()> {
    const POSITIVE: u16 = 0;
    const NAN: u16 = 0xc000;
    let mut words = sent.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let (_, weight, sign, shown) = (words.next()?, words.next()?, words.next()?, words.next()?);
    if sign == NAN {
        out.extend_from_slice(sent);
        return Some(());
    }
    let target = u16::try_from(scale).ok()?;
    if i32::from(shown) <= scale {
        out.extend_from_slice(&sent[..6]);
        out.extend_from_slice(&target.to_be_bytes());
        out.extend_from_slice(&sent[8..]);
        return Some(());
    }
    let mut weight = i32::from(weight.cast_signed());
    // Room in front for what is carried.
    let mut groups: Vec<u16> = std::iter::once(0).chain(words).collect();
    weight += 1;
    let kept_digits = (weight + 1) * GROUP + scale;
    if kept_digits < 0 {
        groups.clear();
    } else {
        let kept = usize::try_from((kept_digits + GROUP - 1) / GROUP).ok()?;
        let partial = kept_digits % GROUP;
        if kept < groups.len() || kept == groups.len() && partial > 0 {
            let mut carry = match partial {
                0 => groups[kept] >= BASE / 2,
                _ => {
                    let unit = [1, 1000, 100, 10][partial as usize];
                    let last = &mut groups[kept - 1];
                    let extra = *last % unit;
                    *last -= extra;
                    let is_up = extra >= unit / 2;
                    *last += if is_up { unit } else { 0 };
                    let carry = *last >= BASE;
                    *last -= if carry { BASE } else { 0 };
                    carry
                }
            };
            let mut at = kept - usize::from(partial > 0);
            while carry {
                at = at.checked_sub(1)?;
                groups[at] += 1;
                carry = groups[at] >= BASE;
                groups[at] -= if carry { BASE } else { 0 };
            }
            groups.truncate(kept);
        }
    }
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let leading = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..leading);
    weight -= i32::try_from(leading).ok()?;
    let (weight, sign) = if groups.is_empty() { (0, POSITIVE) } else { (i16::try_from(weight).ok()?, sign) };
    for word in [u16::try_from(groups.len()).ok()?, weight.cast_unsigned(), sign, target].iter().chain(&groups) {
        out.extend_from_slice(&word.to_be_bytes());
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::numeric::numeric;

    /// The digits behind the length.
    fn encoded(text: &str, precision: Option<Precision>) -> Vec<u8> {
        let mut out = Vec::new();
        numeric(text.as_bytes(), precision, &mut out).unwrap();
        out.split_off(LENGTH)
    }

    #[test]
    fn numbers_are_rounded_away_from_zero() {
        for (text, scale, expected) in [
            ("1.25", 1, "1.3"),
            ("-1.25", 1, "-1.3"),
            ("1.24999", 1, "1.2"),
            ("1.2", 3, "1.200"),
            ("0.5", 0, "1"),
            ("0.4999", 0, "0"),
            ("-0.004", 2, "0.00"),
            ("9999.99995", 4, "10000.0000"),
            ("9999.99995", 2, "10000.00"),
            ("99999999.5", 0, "100000000"),
            ("0.00005", 4, "0.0001"),
            ("0.00004999", 4, "0.0000"),
            ("0.000000001", 2, "0.00"),
            ("12345678.12345678", 5, "12345678.12346"),
            ("12345678.12345678", 8, "12345678.12345678"),
            ("100.000000", 2, "100.00"),
            ("NaN", 2, "NaN"),
        ] {
            let mut out = Vec::new();
            append_rounded(&encoded(text, None), scale, &mut out).unwrap();
            assert_eq!(out, encoded(expected, None), "{text} to {scale}");
        }
    }

    #[test]
    fn times_are_rounded_away_from_the_epoch() {
        assert_eq!(round_time(1_500_000, 1_000_000), Some(2_000_000));
        assert_eq!(round_time(-1_500_000, 1_000_000), Some(-2_000_000));
        assert_eq!(round_time(1_499_999, 1_000_000), Some(1_000_000));
        assert_eq!(round_time(i64::MAX, 1000), Some(i64::MAX));
        assert_eq!(round_time(i64::MIN, 1000), Some(i64::MIN));
        assert_eq!(round_time(14, 10), Some(10));
    }

    #[test]
    fn texts_are_cut_and_filled() {
        let limited = |text: &str, limit, is_padded| {
            let mut out = Vec::new();
            append_limited(text.as_bytes(), limit, is_padded, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(limited("é  ", 2, false), "é ");
        assert_eq!(limited("é", 2, false), "é");
        assert_eq!(limited("é", 3, true), "é  ");
        assert_eq!(limited("éà   ", 2, true), "éà");
        assert_eq!(limited("", 1, true), " ");
    }
}
