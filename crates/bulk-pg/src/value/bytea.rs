//! bytea, as `byteain` reads it: hexadecimal digits after `\x`, or text with escapes.

use super::refusal::{Refusal, bad_hexadecimal, bad_value};
use super::uuid::hex_pair;
use super::{close, open};

pub(crate) fn bytea(value: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let start = open(out);
    match value {
        [b'\\', b'x', digits @ ..] => hexadecimal(digits, out)?,
        _ => escaped(value, out)?,
    }
    close(start, out)
}

fn hexadecimal(digits: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    out.reserve(digits.len() / 2);
    let mut rest = digits;
    while let [high, after @ ..] = rest {
        if matches!(high, b' ' | b'\n' | b'\t' | b'\r') {
            rest = after;
            continue;
        }
        let [low, after @ ..] = after else {
            return Err(match char::from(*high).is_ascii_hexdigit() {
                true => bad_hexadecimal("invalid hexadecimal data: odd number of digits".to_owned()),
                false => bad_digit(rest),
            });
        };
        out.push(hex_pair(*high, *low).ok_or_else(|| bad_digit(rest))?);
        rest = after;
    }
    Ok(())
}

/// The first of two digits, or the second, is none.
#[cold]
fn bad_digit(pair: &[u8]) -> Refusal {
    let bad = if pair[0].is_ascii_hexdigit() { &pair[1..] } else { pair };
    let character = String::from_utf8_lossy(&bad[..bad.len().min(4)]).chars().next().unwrap_or_default();
    bad_hexadecimal(format!("invalid hexadecimal digit: \"{character}\""))
}

fn escaped(value: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    // What the bytes of other characters are depends on the database's encoding.
    if !value.is_ascii() {
        return Err(Refusal::Unclear);
    }
    let mut rest = value;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = match &rest[at + 1..] {
            [b'\\', after @ ..] => {
                out.push(b'\\');
                after
            }
            [high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', after @ ..] => {
                out.push(((high - b'0') << 6) | ((middle - b'0') << 3) | (low - b'0'));
                after
            }
            _ => return Err(bad_value("bytea")),
        };
    }
    out.extend_from_slice(rest);
    Ok(())
}
