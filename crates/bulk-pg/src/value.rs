//! The binary form of one value, from the text that the server's input function for its type would read.
//!
//! Every function here appends a value with its length before it, as COPY's binary format has it, and refuses what it
//! is not sure of. What it leaves behind in `out` when it refuses is for its caller to cut off.

pub(crate) mod array;
pub(crate) mod boolean;
pub(crate) mod bytea;
pub(crate) mod character;
pub(crate) mod date_time;
pub(crate) mod float;
pub(crate) mod integer;
pub(crate) mod json;
pub(crate) mod numeric;
pub(crate) mod refusal;
pub(crate) mod uuid;

use refusal::Refusal;

/// Bytes of a value's length.
pub(crate) const LENGTH: usize = 4;
/// The length that stands for NULL.
pub(crate) const NULL: [u8; LENGTH] = (-1_i32).to_be_bytes();

/// No value is longer, with the header that the server gives it (`MaxAllocSize` in `src/include/utils/memutils.h`).
const MAX_VALUE: usize = 0x3fff_ffff;

/// Whether C's `isspace` says so, in any locale of UTF-8.
#[inline(always)]
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Without the white space at both ends.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = value
        && is_space(*first)
    {
        value = rest;
    }
    while let [rest @ .., last] = value
        && is_space(*last)
    {
        value = rest;
    }
    value
}

/// Appends a length that is not known yet. Returns where the value starts.
#[inline(always)]
pub(crate) fn open(out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&NULL);
    out.len()
}

/// Fills in the length of the value that starts at `start`.
#[inline(always)]
pub(crate) fn close(start: usize, out: &mut [u8]) -> Result<(), Refusal> {
    let length = out.len() - start;
    if length >= MAX_VALUE {
        return Err(refusal::too_long(length));
    }
    out[start - LENGTH..start].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(())
}

/// Appends a value of `N` bytes, `M` with its length.
#[inline(always)]
pub(crate) fn fixed<const N: usize, const M: usize>(value: [u8; N], out: &mut Vec<u8>) {
    const { assert!(M == N + LENGTH) };
    let mut framed = [0; M];
    framed[..LENGTH].copy_from_slice(&(N as u32).to_be_bytes());
    framed[LENGTH..].copy_from_slice(&value);
    out.extend_from_slice(&framed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_as_many_bytes_as_no_field_has_is_refused() {
        // Of the zeros nothing is touched, so that the system has no memory to give for them.
        let mut out = vec![0; LENGTH + MAX_VALUE];
        let Err(Refusal::Invalid(refused)) = close(LENGTH, &mut out) else { panic!("it is taken") };
        assert_eq!((refused.sqlstate, refused.message.contains("1073741823 bytes")), ("54000", true), "{refused:?}");
        out.pop();
        assert!(close(LENGTH, &mut out).is_ok());
        assert_eq!(out[..LENGTH], [0x3f, 0xff, 0xff, 0xfe]);
    }
}
