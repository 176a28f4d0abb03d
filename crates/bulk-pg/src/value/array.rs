//! Arrays, as `array_in` reads them where all is plain: braces, commas, quotes and NULL. Bounds, escapes without
//! quotes, and whatever else is peculiar are left to the server.

use super::refusal::{Refusal, malformed_array};
use super::{NULL, close, is_space, open, trim};

/// `MAXDIM` in `src/include/utils/array.h`.
const MAX_DIMENSIONS: usize = 6;
const NO_DIMENSIONS: usize = 0;

/// Dimensions, whether there are NULLs, and the elements' type: a word of four bytes for each.
pub(crate) const HEADER: usize = 12;
/// The length and the lower bound of a dimension.
pub(crate) const DIMENSION: usize = 8;

/// Appends an array of elements of the type `oid`, each of which `element` appends with its length. `scratch` is room for
/// elements that have to be unescaped.
pub(crate) fn array(
    value: &[u8],
    oid: u32,
    scratch: &mut Vec<u8>,
    out: &mut Vec<u8>,
    element: impl Fn(&[u8], &mut Vec<u8>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let text = trim(value);
    match text.first() {
        Some(b'{') => {}
        Some(b'[') => return Err(Refusal::Unclear),
        _ => return Err(malformed_array(value)),
    }
    let start = open(out);
    let mut reader = Reader { rest: text };
    let mut dimensions = NO_DIMENSIONS;
    let mut has_null = false;
    // How many items the open braces have had, and how many those have that are closed.
    let mut counts = [0_u32; MAX_DIMENSIONS];
    let mut lengths = [None; MAX_DIMENSIONS];
    let mut depth = 0;
    // The server looks at the elements when it has seen that the braces are in order.
    let mut refusal = None;
    'items: loop {
        if reader.take(b'{') {
            if depth == MAX_DIMENSIONS {
                return Err(Refusal::Unclear);
            }
            counts[depth] = 0;
            depth += 1;
            // Only a whole array may be empty.
            if depth == 1 && reader.take(b'}') {
                out.extend_from_slice(&header(0, false, oid));
                break 'items;
            }
            continue 'items;
        }
        if dimensions == NO_DIMENSIONS {
            dimensions = depth;
            out.resize(start + HEADER + DIMENSION * depth, 0);
        }
        if depth == 0 || depth != dimensions {
            return Err(Refusal::Unclear);
        }
        let appended = match reader.element(scratch)? {
            Element::Null => {
                has_null = true;
                out.extend_from_slice(&NULL);
                Ok(())
            }
            Element::Plain(text) => element(text, out),
            Element::Unescaped => element(scratch, out),
        };
        if let Err(found) = appended {
            refusal.get_or_insert(found);
        }
        counts[depth - 1] += 1;
        // What may follow an item: the next one, or the end of one or more braces.
        loop {
            if reader.take(b',') {
                continue 'items;
            }
            if !reader.take(b'}') {
                return Err(Refusal::Unclear);
            }
            depth -= 1;
            if *lengths[depth].get_or_insert(counts[depth]) != counts[depth] {
                return Err(Refusal::Unclear);
            }
            if depth == 0 {
                break 'items;
            }
            counts[depth - 1] += 1;
        }
    }
    if !reader.rest.is_empty() {
        return Err(Refusal::Unclear);
    }
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    if dimensions == NO_DIMENSIONS {
        return close(start, out);
    }
    let words = &mut out[start..start + HEADER + DIMENSION * dimensions];
    words[..HEADER].copy_from_slice(&header(dimensions as u32, has_null, oid));
    for (words, length) in words[HEADER..].chunks_exact_mut(DIMENSION).zip(lengths) {
        words.copy_from_slice(&dimension(length.unwrap_or_default()));
    }
    close(start, out)
}

/// A dimension of this length.
pub(crate) fn dimension(length: u32) -> [u8; DIMENSION] {
    (u64::from(length) << 32 | 1).to_be_bytes()
}

pub(crate) fn header(dimensions: u32, has_null: bool, oid: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    for (word, value) in header.chunks_exact_mut(4).zip([dimensions, has_null.into(), oid]) {
        word.copy_from_slice(&value.to_be_bytes());
    }
    header
}

enum Element<'a> {
    Null,
    Plain(&'a [u8]),
    /// It is in the scratch room.
    Unescaped,
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn skip_space(&mut self) {
        while let [first, rest @ ..] = self.rest
            && is_space(*first)
        {
            self.rest = rest;
        }
    }

    fn is_at(&mut self, byte: u8) -> bool {
        self.skip_space();
        self.rest.first() == Some(&byte)
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.is_at(byte);
        self.rest = &self.rest[usize::from(found)..];
        found
    }

    fn element(&mut self, scratch: &mut Vec<u8>) -> Result<Element<'a>, Refusal> {
        if self.take(b'"') {
            return self.quoted(scratch);
        }
        let special = |byte: &u8| matches!(byte, b',' | b'{' | b'}' | b'"' | b'\\');
        let end = self.rest.iter().position(special).ok_or(Refusal::Unclear)?;
        let (text, rest) = self.rest.split_at(end);
        if !matches!(rest, [b',' | b'}', ..]) {
            return Err(Refusal::Unclear);
        }
        self.rest = rest;
        let text = trim(text);
        if text.is_empty() {
            return Err(Refusal::Unclear);
        }
        Ok(if text.eq_ignore_ascii_case(b"null") { Element::Null } else { Element::Plain(text) })
    }

    /// The rest of an element after its quote.
    fn quoted(&mut self, scratch: &mut Vec<u8>) -> Result<Element<'a>, Refusal> {
        scratch.clear();
        loop {
            let end = memchr::memchr2(b'"', b'\\', self.rest).ok_or(Refusal::Unclear)?;
            let (text, rest) = self.rest.split_at(end);
            match rest {
                [b'\\', byte, rest @ ..] => {
                    scratch.extend_from_slice(text);
                    scratch.push(*byte);
                    self.rest = rest;
                }
                [b'"', rest @ ..] => {
                    self.rest = rest;
                    if scratch.is_empty() {
                        return Ok(Element::Plain(text));
                    }
                    scratch.extend_from_slice(text);
                    return Ok(Element::Unescaped);
                }
                _ => return Err(Refusal::Unclear),
            }
        }
    }
}
