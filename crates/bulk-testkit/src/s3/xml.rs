//! Text as S3 writes it: XML, URL-encoded keys, hexadecimal, base64.

use std::fmt::Write;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

pub(super) const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// Appends `<name>text</name>`.
pub(super) fn element(out: &mut String, name: &str, text: &str) {
    let _ = write!(out, "<{name}>");
    escape(out, text);
    let _ = write!(out, "</{name}>");
}

/// Appends `text` as character data.
///
/// Control characters become character references. For most of them that is not well-formed XML 1.0, and parsers
/// refuse it, as they refuse what S3 sends: that is why `encoding-type=url` exists.
pub(super) fn escape(out: &mut String, text: &str) {
    /// 0xef leads the two non-characters, and others.
    const SPECIAL: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            table[byte] = matches!(byte as u8, 0..0x20 | b'&' | b'<' | b'>' | b'"' | 0xef);
            byte += 1;
        }
        table
    };
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| SPECIAL[usize::from(byte)]) {
        let (clean, special) = rest.split_at(at);
        out.push_str(clean);
        let mut chars = special.chars();
        match chars.next() {
            Some('&') => out.push_str("&amp;"),
            Some('<') => out.push_str("&lt;"),
            Some('>') => out.push_str("&gt;"),
            Some('"') => out.push_str("&quot;"),
            Some(other) if other < ' ' || matches!(other, '\u{fffe}' | '\u{ffff}') => {
                let _ = write!(out, "&#x{:x};", u32::from(other));
            }
            other => out.extend(other),
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
}

/// Appends `text` as `encoding-type=url` writes it: like a form, a space as `+`, but with `/` left alone. Nothing of
/// that is special in XML.
pub(super) fn form_encode(out: &mut String, text: &str) {
    const KEPT: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            let ascii = byte as u8;
            table[byte] = ascii.is_ascii_alphanumeric() || matches!(ascii, b'-' | b'.' | b'_' | b'*' | b'/');
            byte += 1;
        }
        table
    };
    let is_kept = |byte: &u8| KEPT[usize::from(*byte)];
    if text.as_bytes().iter().all(is_kept) {
        out.push_str(text);
        return;
    }
    for byte in text.bytes() {
        match byte {
            kept if is_kept(&kept) => out.push(char::from(kept)),
            b' ' => out.push('+'),
            other => {
                let _ = write!(out, "%{other:02X}");
            }
        }
    }
}

/// `bytes` with all but the unreserved characters of RFC 3986 escaped, which is what SigV4 calls `UriEncode`.
pub(super) fn uri_encode(bytes: &[u8]) -> String {
    const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encode(bytes, UNRESERVED).to_string()
}

/// Like [`uri_encode`], with `/` left alone: a key in a URL.
pub(super) fn uri_encode_path(bytes: &[u8]) -> String {
    const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
    percent_encode(bytes, PATH).to_string()
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Base64 with padding (RFC 4648, section 4).
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | usize::from(*group.get(at).unwrap_or(&0)));
        out.extend((0..=group.len()).map(|at| char::from(DIGITS[bits >> (18 - 6 * at) & 0x3f])));
        out.extend((group.len()..3).map(|_| '='));
    }
    out
}

/// The bytes of hexadecimal digits, if they are such.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings() {
        let mut out = String::new();
        form_encode(&mut out, "a b+c/d*e~é\u{1}&.-_");
        form_encode(&mut out, "/plain.txt");
        assert_eq!(out, "a+b%2Bc/d*e%7E%C3%A9%01%26.-_/plain.txt");
        assert_eq!(uri_encode("a b+c/d*e~é".as_bytes()), "a%20b%2Bc%2Fd%2Ae~%C3%A9");
        assert_eq!(uri_encode_path(b"/a b/c"), "/a%20b/c");
        let mut out = String::new();
        escape(&mut out, "a&b<c>\"d\"\u{1}é\r\n\u{f8ff}\u{fffd}\u{fffe}\u{ffff}z");
        assert_eq!(out, "a&amp;b&lt;c&gt;&quot;d&quot;&#x1;é&#xd;&#xa;\u{f8ff}\u{fffd}&#xfffe;&#xffff;z");
        for (plain, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xbf]), "+/+/");
        assert_eq!(hex(&[0, 0xab, 0xff]), "00abff");
        assert_eq!(unhex("00abFF"), Some(vec![0, 0xab, 0xff]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("0g"), None);
        assert_eq!(unhex("éa"), None);
    }
}
