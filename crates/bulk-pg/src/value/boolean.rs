//! boolean, as `boolin` reads it.

use super::refusal::{Refusal, bad_syntax};
use super::{fixed, trim};

#[inline(always)]
pub(crate) fn boolean(value: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let truth = match value {
        b"t" => true,
        b"f" => false,
        _ => parse_any(value)?,
    };
    fixed::<1, 5>([truth.into()], out);
    Ok(())
}

/// The words, of which a prefix will do that is of no other word, and how long it has to be.
const WORDS: [(&[u8], usize, bool); 8] = [
    (b"true", 1, true),
    (b"false", 1, false),
    (b"yes", 1, true),
    (b"no", 1, false),
    (b"on", 2, true),
    (b"off", 2, false),
    (b"1", 1, true),
    (b"0", 1, false),
];

fn parse_any(value: &[u8]) -> Result<bool, Refusal> {
    let word = trim(value);
    let is_prefix = |(full, least, _): &&(&[u8], usize, bool)| {
        (*least..=full.len()).contains(&word.len()) && full[..word.len()].eq_ignore_ascii_case(word)
    };
    match WORDS.iter().find(is_prefix) {
        Some((_, _, truth)) => Ok(*truth),
        None if value.is_ascii() => Err(bad_syntax("boolean", value)),
        None => Err(Refusal::Unclear),
    }
}
