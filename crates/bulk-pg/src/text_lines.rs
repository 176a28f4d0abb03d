//! Records of COPY's text format, as `CopyReadLineText` and `CopyReadAttributesText` in
//! `src/backend/commands/copyfromparse.c` read them.

use memchr::{memchr, memchr2, memchr3};

use crate::cut::{Cut, Fault, Fields, Found};
use crate::scan::{Form, Newline, Span};
use crate::{InputFormat, RecordErrorKind};

/// Cuts lines of a given number of fields.
#[derive(Debug)]
pub(crate) struct TextLines {
    width: usize,
    /// Fixed by the first line end.
    newline: Option<Newline>,
    spans: Vec<Span>,
    /// A line with escapes, and behind it what its fields mean.
    meant: Vec<u8>,
}

/// Bytes that are kept from one record to the next.
const KEEP: usize = 1 << 20;

impl TextLines {
    pub(crate) fn new(width: usize, newline: Option<Newline>) -> Self {
        Self { width, newline, spans: Vec::new(), meant: Vec::new() }
    }

    /// How lines end, once one has.
    pub(crate) fn newline(&self) -> Option<Newline> {
        self.newline
    }

    /// Looks at the first line end. False if there is none, or it is not all there.
    fn find_newline(&mut self, input: &[u8], is_last: bool) -> bool {
        let mut at = 0;
        while let Some(distance) = memchr3(b'\n', b'\r', b'\\', input.get(at..).unwrap_or_default()) {
            at += distance;
            let newline = match (input[at], input.get(at + 1)) {
                (b'\\', _) => {
                    at += 2;
                    continue;
                }
                (b'\n', _) => Newline::Lf,
                (_, Some(b'\n')) => Newline::CrLf,
                (_, None) if !is_last => return false,
                _ => Newline::Cr,
            };
            self.newline = Some(newline);
            return true;
        }
        false
    }

    /// What follows an end mark: nothing but line ends.
    fn end(input: &[u8], is_last: bool) -> Result<Found, Fault> {
        match input[2..].iter().position(|byte| !matches!(byte, b'\r' | b'\n')) {
            Some(distance) => Err(Fault::broken(2 + distance, "there is more behind the end mark \\.")),
            None if is_last => Ok(Found::End),
            None => Ok(Found::More(input.len() + 1)),
        }
    }

    /// The line without its end.
    fn content<'a>(&self, raw: &'a [u8]) -> &'a [u8] {
        let end: &[u8] = match self.newline {
            Some(Newline::Lf) => b"\n",
            Some(Newline::Cr) => b"\r",
            Some(Newline::CrLf) => b"\r\n",
            None => b"",
        };
        // The stream's last line may have none; then what it ends in is escaped.
        raw.strip_suffix(end).filter(|content| !is_escaped(content)).unwrap_or(raw)
    }

    /// Adds a field, which `has_escapes` or not.
    fn push(&mut self, raw: &[u8], start: usize, end: usize, has_escapes: bool) -> Result<(), Fault> {
        let field = &raw[start..end];
        let span = if field == b"\\N" {
            Span { start: 0, end: 0, form: Form::Bare }
        } else if !has_escapes {
            Span { start: start as u32, end: end as u32, form: Form::Quoted }
        } else {
            if self.meant.is_empty() {
                self.meant.extend_from_slice(raw);
            }
            let from = self.meant.len();
            if unescape(field, &mut self.meant) {
                let bad = match (memchr(0, &self.meant[from..]), str::from_utf8(&self.meant[from..])) {
                    (Some(_), _) => Some(RecordErrorKind::Nul),
                    (None, Err(_)) => Some(RecordErrorKind::InvalidUtf8),
                    (None, Ok(_)) => None,
                };
                if let Some(kind) = bad {
                    return Err(Fault { at: start, field: Some(self.spans.len()), kind });
                }
            }
            Span { start: from as u32, end: self.meant.len() as u32, form: Form::Quoted }
        };
        self.spans.push(span);
        Ok(())
    }
}

impl Cut for TextLines {
    const FORMAT: InputFormat = InputFormat::CopyText;
    const IS_TEXT: bool = true;

    fn cut(&mut self, input: &[u8], is_last: bool) -> Result<Found, Fault> {
        match input {
            [] if is_last => return Ok(Found::End),
            [] | [b'\\'] | [b'\\', b'.'] if !is_last => return Ok(Found::More(input.len() + 1)),
            [b'\\', b'.'] | [b'\\', b'.', b'\r' | b'\n', ..] => return Self::end(input, is_last),
            _ => {}
        }
        let more = Ok(Found::More(input.len() + 1));
        if self.newline.is_none() && !self.find_newline(input, is_last) && !is_last {
            return more;
        }
        let last_byte = if self.newline == Some(Newline::Cr) { b'\r' } else { b'\n' };
        let first_byte = if self.newline == Some(Newline::CrLf) { b'\r' } else { last_byte };
        let mut at = 0;
        while let Some(distance) = memchr2(first_byte, b'\\', &input[at..]) {
            at += distance;
            match (input[at], input.get(at + 1)) {
                (b'\\', None) if is_last => {
                    return Err(Fault::broken(at, "the input ends within an escape: it is cut off"));
                }
                (_, None) if !is_last && first_byte != last_byte => return more,
                (b'\\', None) => return more,
                (b'\\', Some(_)) => at += 2,
                (_, next) if first_byte != last_byte => {
                    at += 1;
                    if next == Some(&last_byte) {
                        return Ok(Found::Record(at + 1));
                    }
                }
                _ => return Ok(Found::Record(at + 1)),
            }
        }
        if is_last { Ok(Found::Record(input.len())) } else { more }
    }

    fn split<'a>(&'a mut self, raw: &'a [u8]) -> Result<Fields<'a>, Fault> {
        self.spans.clear();
        self.meant.clear();
        if self.meant.capacity() > KEEP {
            self.meant = Vec::new();
        }
        let content = self.content(raw);
        let (mut found, mut start, mut at, mut has_escapes) = (0, 0, 0, false);
        loop {
            let end = memchr2(b'\t', b'\\', &content[at..]).map_or(content.len(), |distance| at + distance);
            if let Some(distance) = memchr2(b'\r', b'\n', &content[at..end]) {
                let what = if content[at + distance] == b'\r' { "carriage return" } else { "line feed" };
                let what = format!("a {what} that is not escaped, and the first line ends in another way");
                return Err(Fault::malformed(at + distance, Some(found), what));
            }
            match (content.get(end), content.get(end + 1)) {
                (Some(b'\\'), Some(b'.')) => {
                    let what = "the end mark \\. does not stand alone on its line";
                    return Err(Fault::malformed(end, Some(found), what));
                }
                (Some(b'\\'), _) => {
                    has_escapes = true;
                    at = content.len().min(end + 2);
                }
                (border, _) => {
                    // The places of fields that are too many must not fill the memory.
                    if found < self.width {
                        self.push(raw, start, end, has_escapes)?;
                    }
                    found += 1;
                    if border.is_none() {
                        break;
                    }
                    (start, at, has_escapes) = (end + 1, end + 1, false);
                }
            }
        }
        if found != self.width {
            let kind = RecordErrorKind::FieldCount { expected: self.width, found };
            return Err(Fault { at: 0, field: None, kind });
        }
        let text: &[u8] = if self.meant.is_empty() { raw } else { &self.meant };
        Ok(Fields { text, spans: &self.spans })
    }

    fn field_at(&self, raw: &[u8], at: usize) -> Option<usize> {
        let mut tabs = 0;
        let mut bytes = raw[..at].iter();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\\' => drop(bytes.next()),
                b'\t' => tabs += 1,
                _ => {}
            }
        }
        Some(tabs)
    }
}

/// Whether the byte behind these stands behind a backslash that stands for no other.
fn is_escaped(before: &[u8]) -> bool {
    let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\').count();
    backslashes % 2 == 1
}

/// Appends what a field means to `out`. Whether a byte of it was written as a number and is no ASCII character, so that
/// it has to be looked at again.
pub(crate) fn unescape(field: &[u8], out: &mut Vec<u8>) -> bool {
    let mut is_odd = false;
    let mut rest = field;
    while let Some(at) = memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let Some((&escaped, after)) = rest[at + 1..].split_first() else { return is_odd };
        rest = after;
        let number = match escaped {
            b'0'..=b'7' => {
                let more = rest.iter().take(2).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
                let (digits, after) = rest.split_at(more);
                rest = after;
                let value =
                    digits.iter().fold(u32::from(escaped - b'0'), |value, digit| value * 8 + u32::from(digit - b'0'));
                // The server keeps the lowest eight bits, too.
                Some(value as u8)
            }
            b'x' => {
                let digits = rest.iter().take(2).map_while(|byte| char::from(*byte).to_digit(16));
                let value = digits.fold(None, |value: Option<u8>, digit| Some((value.unwrap_or(0) << 4) | digit as u8));
                let len = rest.iter().take(2).take_while(|byte| byte.is_ascii_hexdigit()).count();
                rest = &rest[len..];
                value
            }
            _ => None,
        };
        out.push(match (number, escaped) {
            (Some(number), _) => {
                is_odd |= number == 0 || number >= 0x80;
                number
            }
            (None, b'b') => 0x08,
            (None, b'f') => 0x0c,
            (None, b'n') => b'\n',
            (None, b'r') => b'\r',
            (None, b't') => b'\t',
            (None, b'v') => 0x0b,
            (None, itself) => itself,
        });
    }
    out.extend_from_slice(rest);
    is_odd
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(field: &str) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        let is_odd = unescape(field.as_bytes(), &mut out);
        (out, is_odd)
    }

    #[test]
    fn escapes_mean_what_the_manual_says() {
        assert_eq!(meaning(r"a\b\f\n\r\t\v\\\q\N"), (b"a\x08\x0c\n\r\t\x0b\\qN".to_vec(), false));
        assert_eq!(meaning(r"\1\18\101\1011\x4\x41\x411\xg"), (b"\x01\x018AA1\x04AA1xg".to_vec(), false));
        assert_eq!(meaning(r"\303\xa9\777\0"), (b"\xc3\xa9\xff\0".to_vec(), true));
    }

    #[test]
    fn lines_end_as_the_first_one_does() {
        let cut = |input: &str, newline| TextLines::new(1, newline).cut(input.as_bytes(), false).unwrap();
        assert_eq!(cut("a\nb\r\n", None), Found::Record(2));
        assert_eq!(cut("a\r\nb\r\n", None), Found::Record(3));
        assert_eq!(cut("a\rb\n", None), Found::Record(2));
        assert_eq!(cut("a\r", None), Found::More(3));
        assert_eq!(cut("a\\\r\\\nb\n", None), Found::Record(7));
        assert_eq!(cut("a\rb\nc\r\n", Some(Newline::CrLf)), Found::Record(7));
        assert_eq!(cut("a\\\nb\\\\\n", Some(Newline::Lf)), Found::Record(7));
        assert_eq!(cut("\\.\n", None), Found::More(4));
        assert_eq!(TextLines::new(1, None).cut(b"\\.\n", true).unwrap(), Found::End);
        assert_eq!(TextLines::new(1, None).cut(b"\\.\n\nx", true).unwrap_err().at, 4);
        assert_eq!(TextLines::new(1, None).cut(b"ab\\", true).unwrap_err().at, 2);
    }
}
