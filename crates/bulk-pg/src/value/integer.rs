//! smallint, integer and bigint, as `pg_strtoint16`, `pg_strtoint32` and `pg_strtoint64` read them.

use super::refusal::{Refusal, bad_syntax, integer_out_of_range};
use super::{fixed, trim};

/// Of `from[..len]`; the bytes after those are of no account, but make it quicker.
#[inline(always)]
pub(crate) fn int2(from: &[u8], len: usize, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let number = parse(from, len, i16::MIN.into(), i16::MAX.into(), "smallint")?;
    fixed::<2, 6>((number as i16).to_be_bytes(), out);
    Ok(())
}

/// As [`int2`].
#[inline(always)]
pub(crate) fn int4(from: &[u8], len: usize, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let number = parse(from, len, i32::MIN.into(), i32::MAX.into(), "integer")?;
    fixed::<4, 8>((number as i32).to_be_bytes(), out);
    Ok(())
}

/// As [`int2`].
#[inline(always)]
pub(crate) fn int8(from: &[u8], len: usize, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let number = parse(from, len, i64::MIN, i64::MAX, "bigint")?;
    fixed::<8, 12>(number.to_be_bytes(), out);
    Ok(())
}

#[inline(always)]
fn parse(from: &[u8], len: usize, min: i64, max: i64, type_name: &'static str) -> Result<i64, Refusal> {
    let number = match from.first() {
        Some(b'-') if len > 0 => unsigned(&from[1..], len - 1).and_then(|number| 0_i64.checked_sub_unsigned(number)),
        _ => unsigned(from, len).and_then(|number| i64::try_from(number).ok()),
    };
    match number {
        Some(number) if (min..=max).contains(&number) => Ok(number),
        _ => parse_any(&from[..len], min, max, type_name),
    }
}

/// The most digits that are certain to fit into 64 bits.
const MOST: usize = 19;
const WORD: usize = 8;

/// The number that `from[..len]` is, if that is one to [`MOST`] digits.
#[inline(always)]
pub(super) fn unsigned(from: &[u8], len: usize) -> Option<u64> {
    const SCALE: u64 = 100_000_000;
    match len {
        1..=WORD => short(from, len),
        9..=16 => {
            let (low, _) = from[len - WORD..].split_first_chunk()?;
            Some(short(from, len - WORD)? * SCALE + eight(u64::from_le_bytes(*low))?)
        }
        17..=MOST => {
            let (middle, rest) = from[len - 2 * WORD..].split_first_chunk()?;
            let (low, _) = rest.split_first_chunk()?;
            let high = short(from, len - 2 * WORD)? * SCALE + eight(u64::from_le_bytes(*middle))?;
            Some(high * SCALE + eight(u64::from_le_bytes(*low))?)
        }
        _ => None,
    }
}

/// The number that `from[..len]` is, if that is one to eight digits.
#[inline(always)]
fn short(from: &[u8], len: usize) -> Option<u64> {
    if let Some(word) = from.first_chunk() {
        // As many zeros go before the digits as make it eight.
        let digits = u64::from_le_bytes(*word) << (64 - 8 * len);
        return eight(digits | ZEROS.checked_shr(8 * len as u32).unwrap_or(0));
    }
    from[..len].iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0')))
}

const ZEROS: u64 = u64::from_ne_bytes([b'0'; WORD]);
const HIGH: u64 = u64::from_ne_bytes([0xf0; WORD]);
const SIX: u64 = u64::from_ne_bytes([6; WORD]);

/// Up to eight digits at the start, as if as many zeros followed them as make it eight, and how many there are. `None`
/// if there are less than eight bytes.
#[inline(always)]
pub(super) fn leading_digits(text: &[u8]) -> Option<(u64, usize)> {
    let word = u64::from_le_bytes(*text.first_chunk()?);
    let differs = (word & HIGH) | ((word.wrapping_add(SIX) & HIGH) >> 4);
    let count = ((differs ^ (ZEROS | (ZEROS >> 4))).trailing_zeros() / 8) as usize;
    let rest = u64::MAX.checked_shl(8 * count as u32).unwrap_or(0);
    Some((eight((word & !rest) | (ZEROS & rest))?, count))
}

/// The number that eight digits are, of which the lowest byte is the first.
#[inline(always)]
fn eight(word: u64) -> Option<u64> {
    let pairs = pairs(word)?;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours * 10_000 + (fours >> 32)) & 0xffff_ffff)
}

/// The numbers that four pairs of digits are, in 16 bits each; the lowest byte is the first digit.
#[inline(always)]
pub(super) fn pairs(word: u64) -> Option<u64> {
    // No byte is below '0', and none above '9'.
    if (word & HIGH) | ((word.wrapping_add(SIX) & HIGH) >> 4) != ZEROS | (ZEROS >> 4) {
        return None;
    }
    let digits = word & !HIGH;
    Some((digits * 10 + (digits >> 8)) & 0x00ff_00ff_00ff_00ff)
}

/// White space around it, a plus sign, and numbers that may be too great.
#[cold]
fn parse_any(value: &[u8], min: i64, max: i64, type_name: &'static str) -> Result<i64, Refusal> {
    let (negative, digits) = match trim(value) {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    // From version 16 on there are hexadecimal, octal and binary integers, and underscores within digits.
    let may_be_newer = matches!(digits, [b'0', b'x' | b'X' | b'o' | b'O' | b'b' | b'B', ..])
        || digits.first().is_some_and(u8::is_ascii_digit) && digits.contains(&b'_');
    if may_be_newer || !value.is_ascii() {
        return Err(Refusal::Unclear);
    }
    // The server sees first that a number is too great, and then what follows it.
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = digits[..count].iter().try_fold(0_i64, |number, byte| {
        let digit = i64::from(byte - b'0');
        number.checked_mul(10)?.checked_add(if negative { -digit } else { digit })
    });
    match number {
        Some(number) if (min..=max).contains(&number) => {
            if count > 0 && count == digits.len() {
                Ok(number)
            } else {
                Err(bad_syntax(type_name, value))
            }
        }
        _ => Err(integer_out_of_range(type_name, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With bytes after the number and without.
    fn read(text: &str) -> [Option<u64>; 2] {
        let longer = format!("{text}\",9999999999");
        [unsigned(text.as_bytes(), text.len()), unsigned(longer.as_bytes(), text.len())]
    }

    #[test]
    fn numbers_of_every_length_are_read() {
        let digits = "9081726354091827364";
        for len in 1..=MOST {
            for text in [&digits[..len], &"9".repeat(len), &"0".repeat(len)] {
                assert_eq!(read(text), [Some(text.parse().unwrap()); 2]);
            }
        }
        assert_eq!([read(""), read("12345678901234567890")], [[None; 2]; 2]);
    }

    #[test]
    fn what_is_no_digit_is_seen_in_every_place() {
        for len in 1..=MOST {
            for at in 0..len {
                for byte in (0..=255).filter(|byte: &u8| !byte.is_ascii_digit()) {
                    let mut text = vec![b'5'; len + 9];
                    text[at] = byte;
                    assert_eq!(unsigned(&text, len), None);
                    assert_eq!(unsigned(&text[..len], len), None);
                }
            }
        }
    }
}
