//! json and jsonb: text, which `json_recv` and `jsonb_recv` parse.

use super::refusal::{Refusal, bad_value};
use super::{is_space, open};

/// The only version of jsonb's binary format, which stands before the text.
pub(crate) const VERSION: [u8; 1] = [1];

/// Opens a jsonb. Returns where the value starts.
#[inline(always)]
pub(crate) fn open_jsonb(out: &mut Vec<u8>) -> usize {
    let start = open(out);
    out.extend_from_slice(&VERSION);
    start
}

/// Whatever else is wrong with a text, the server finds; to look for it here would cost as much again.
#[inline(always)]
pub(crate) fn check(text: &[u8]) -> Result<(), Refusal> {
    if text.iter().all(|byte| is_space(*byte)) { Err(bad_value("json")) } else { Ok(()) }
}
