//! uuid, as `uuid_in` reads it.

use super::fixed;
use super::refusal::{Refusal, bad_syntax};

#[inline]
pub(crate) fn uuid(value: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let parsed = parse_usual(value).or_else(|| parse(value)).ok_or_else(|| bad_syntax("uuid", value))?;
    fixed::<16, 20>(parsed, out);
    Ok(())
}

/// Groups of 8, 4, 4, 4 and 12 digits with hyphens between them.
#[inline]
fn parse_usual(value: &[u8]) -> Option<[u8; 16]> {
    const PAIRS: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let text: &[u8; 36] = value.try_into().ok()?;
    let hyphens = [8, 13, 18, 23].into_iter().all(|at: usize| text[at] == b'-');
    let (mut bytes, mut any) = ([0; 16], 0);
    for (byte, at) in bytes.iter_mut().zip(PAIRS) {
        let (high, low) = (DIGITS[text[at] as usize], DIGITS[text[at + 1] as usize]);
        any |= high | low;
        *byte = (high << 4) | (low & 0x0f);
    }
    (hyphens && any != NO_DIGIT).then_some(bytes)
}

/// 32 hexadecimal digits, a hyphen or none after every four of them, and braces or none around it all.
fn parse(value: &[u8]) -> Option<[u8; 16]> {
    let mut rest = match value {
        [b'{', rest @ .., b'}'] => rest,
        rest => rest,
    };
    let mut bytes = [0; 16];
    for (index, byte) in bytes.iter_mut().enumerate() {
        let [high, low, after @ ..] = rest else { return None };
        *byte = hex_pair(*high, *low)?;
        rest = match after {
            [b'-', after @ ..] if index % 2 == 1 && index < 15 => after,
            after => after,
        };
    }
    rest.is_empty().then_some(bytes)
}

/// Each byte's value as a hexadecimal digit, or [`NO_DIGIT`].
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut byte = 0;
    while byte < 256 {
        if let Some(digit) = (byte as u8 as char).to_digit(16) {
            digits[byte] = digit as u8;
        }
        byte += 1;
    }
    digits
};

const NO_DIGIT: u8 = 0xff;

/// The byte that two hexadecimal digits stand for.
#[inline(always)]
pub(super) fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let (high, low) = (DIGITS[high as usize], DIGITS[low as usize]);
    (high | low != NO_DIGIT).then_some((high << 4) | (low & 0x0f))
}
