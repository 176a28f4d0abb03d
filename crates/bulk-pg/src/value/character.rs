//! Text, which is itself in the binary format, too.

use crate::Field;
use crate::scan::Form;

use super::refusal::{Refusal, too_many_characters};
use super::{LENGTH, close, open};

/// How many characters `character varying(n)` and `character(n)` hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) characters: usize,
    pub(crate) type_name: &'static str,
}

impl Limit {
    /// Blanks beyond the limit are cut off by the server, and anything else is refused.
    #[inline(always)]
    pub(crate) fn check(self, text: &[u8]) -> Result<(), Refusal> {
        if text.len() <= self.characters { Ok(()) } else { self.count(text) }
    }

    fn count(self, text: &[u8]) -> Result<(), Refusal> {
        let end = text.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
        let continues = |byte: &&u8| **byte & 0xc0 == 0x80;
        let characters = end - text[..end].iter().filter(continues).count();
        if characters <= self.characters { Ok(()) } else { Err(too_many_characters(self.type_name, self.characters)) }
    }
}

/// Appends `from[..len]` with its length; the bytes after those are of no account, but make it quicker.
#[inline(always)]
pub(crate) fn text(from: &[u8], len: usize, out: &mut Vec<u8>) -> Result<(), Refusal> {
    if let Some(word) = from.first_chunk::<SHORT>()
        && len <= SHORT
    {
        let mut framed = [0; LENGTH + SHORT];
        framed[..LENGTH].copy_from_slice(&(len as u32).to_be_bytes());
        framed[LENGTH..].copy_from_slice(word);
        let start = out.len();
        out.extend_from_slice(&framed);
        out.truncate(start + LENGTH + len);
        return Ok(());
    }
    let start = open(out);
    out.extend_from_slice(&from[..len]);
    close(start, out)
}

/// Appends a field's value with its length, and returns where it starts.
#[inline(always)]
pub(crate) fn field(field: &Field<'_>, out: &mut Vec<u8>) -> Result<usize, Refusal> {
    let start = out.len() + LENGTH;
    match field.form() {
        Form::Bare | Form::Quoted => {
            let (from, len) = field.raw_and_after();
            text(from, len, out)?;
        }
        _ => {
            open(out);
            append(field, out);
            close(start, out)?;
        }
    }
    Ok(start)
}

/// Appends a field's value, without its length.
#[inline(always)]
pub(crate) fn append(field: &Field<'_>, out: &mut Vec<u8>) {
    match field.form() {
        Form::Bare | Form::Quoted => out.extend_from_slice(field.raw()),
        Form::Escaped if field.dialect().doubles_quotes() => unescape::<true>(field, out),
        Form::Escaped => unescape::<false>(field, out),
        Form::Mixed => field.append_value(out),
    }
}

/// Texts of up to so many bytes are moved as a whole number of words.
const SHORT: usize = 32;

/// Values are unescaped in stretches of this many bytes, so that the room, which has to be initialised, stays in the
/// nearest cache.
const STRETCH: usize = 4096;
const BLOCK: usize = 32;
const WORD: usize = 8;

/// As [`Field::append_value`], and quicker where escapes are near to each other.
fn unescape<const DOUBLED: bool>(field: &Field<'_>, out: &mut Vec<u8>) {
    let (from, len) = field.raw_and_after();
    let (quote, escape) = (field.dialect().quote(), field.dialect().escape());
    let is_escaped = |next: Option<&u8>| DOUBLED || next.is_some_and(|next| *next == quote || *next == escape);
    let (mut at, mut filled) = (0, out.len());
    while at < len {
        let end = len.min(at + STRETCH);
        // A whole word is moved at the end, and an escape takes the byte after it along.
        out.resize(filled + (end - at) + WORD, 0);
        let room = &mut out[filled..];
        let mut to = 0;
        while at < end {
            let clean = match from[at..].first_chunk::<WORD>() {
                Some(word) => {
                    room[to..to + WORD].copy_from_slice(word);
                    clean_len(u64::from_le_bytes(*word), escape).min(end - at)
                }
                None => 0,
            };
            at += clean;
            to += clean;
            if at == end {
                break;
            }
            if clean < WORD {
                at += usize::from(from[at] == escape && is_escaped(from.get(at + 1)));
                room[to] = from[at];
                at += 1;
                to += 1;
                continue;
            }
            while let Some(block) = from[at..end].first_chunk::<BLOCK>()
                && !block.iter().fold(false, |any, byte| any | (*byte == escape))
            {
                room[to..to + BLOCK].copy_from_slice(block);
                at += BLOCK;
                to += BLOCK;
            }
        }
        filled += to;
    }
    out.truncate(filled);
}

/// How many bytes of a word, the lowest first, stand before the first `escape`.
#[inline(always)]
fn clean_len(word: u64, escape: u8) -> usize {
    const fn repeat(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; WORD])
    }
    let differs = word ^ repeat(escape);
    // The top bit of the lowest zero byte is set, and none below it.
    let zeros = differs.wrapping_sub(repeat(0x01)) & !differs & repeat(0x80);
    (zeros.trailing_zeros() / 8) as usize
}
