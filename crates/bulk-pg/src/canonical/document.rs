//! jsonb as its text: what `JsonbToCString` makes of what `jsonb_in` has read.

/// Deeper ones are left to the server.
const MAX_DEPTH: u32 = 100;
/// Numbers with more digits, before or behind the point, are left to the server.
const MAX_DIGITS: usize = 1000;

/// Appends the text of a document: keys by length and then by bytes, the last one of several that are equal, numbers as
/// numeric has them, and only what has to be escaped in strings escaped. `None` for what is no document, and what is not
/// looked at here.
pub(super) fn append(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut reader = Reader { rest: text };
    reader.value(MAX_DEPTH, out)?;
    reader.skip_space();
    reader.rest.is_empty().then_some(())
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn skip_space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.rest.first() == Some(&byte);
        self.rest = &self.rest[usize::from(found)..];
        found
    }

    fn word(&mut self, word: &[u8], out: &mut Vec<u8>) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        out.extend_from_slice(word);
        Some(())
    }

    fn value(&mut self, depth: u32, out: &mut Vec<u8>) -> Option<()> {
        self.skip_space();
        match self.rest.first()? {
            b'{' => self.object(depth.checked_sub(1)?, out),
            b'[' => self.array(depth.checked_sub(1)?, out),
            b'"' => {
                let mut text = Vec::new();
                self.string(&mut text)?;
                escape(&text, out);
                Some(())
            }
            b't' => self.word(b"true", out),
            b'f' => self.word(b"false", out),
            b'n' => self.word(b"null", out),
            _ => self.number(out),
        }
    }

    fn array(&mut self, depth: u32, out: &mut Vec<u8>) -> Option<()> {
        self.rest = &self.rest[1..];
        out.push(b'[');
        if !self.take(b']') {
            loop {
                self.value(depth, out)?;
                if !self.take(b',') {
                    break;
                }
                out.extend_from_slice(b", ");
            }
            self.take(b']').then_some(())?;
        }
        out.push(b']');
        Some(())
    }

    fn object(&mut self, depth: u32, out: &mut Vec<u8>) -> Option<()> {
        self.rest = &self.rest[1..];
        let mut members: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        if !self.take(b'}') {
            loop {
                self.skip_space();
                let (mut key, mut value) = (Vec::new(), Vec::new());
                self.string(&mut key)?;
                // Their order is that of the bytes of the database's encoding.
                key.is_ascii().then_some(())?;
                self.take(b':').then_some(())?;
                self.value(depth, &mut value)?;
                members.push((key, value));
                if !self.take(b',') {
                    break;
                }
            }
            self.take(b'}').then_some(())?;
        }
        // Those that are equal stay in their order, and the last one counts.
        members.sort_by(|(a, _), (b, _)| (a.len(), a).cmp(&(b.len(), b)));
        out.push(b'{');
        let mut is_first = true;
        for (place, (key, value)) in members.iter().enumerate() {
            if members.get(place + 1).is_some_and(|(next, _)| next == key) {
                continue;
            }
            if !std::mem::take(&mut is_first) {
                out.extend_from_slice(b", ");
            }
            escape(key, out);
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
        }
        out.push(b'}');
        Some(())
    }

    /// Appends the text that a string is.
    fn string(&mut self, out: &mut Vec<u8>) -> Option<()> {
        self.rest = self.rest.strip_prefix(b"\"")?;
        loop {
            let end = self.rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..=0x1f))?;
            out.extend_from_slice(&self.rest[..end]);
            let (special, rest) = self.rest[end..].split_first()?;
            self.rest = rest;
            match special {
                b'"' => return Some(()),
                b'\\' => self.escaped(out)?,
                _ => return None,
            }
        }
    }

    /// What stands behind a backslash.
    fn escaped(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let (letter, rest) = self.rest.split_first()?;
        self.rest = rest;
        let byte = match letter {
            b'"' | b'\\' | b'/' => *letter,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut code = self.hexadecimal()?;
                if (0xd800..0xdc00).contains(&code) {
                    self.rest = self.rest.strip_prefix(b"\\u")?;
                    let low = self.hexadecimal().filter(|low| (0xdc00..0xe000).contains(low))?;
                    code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                }
                let character = char::from_u32(code).filter(|character| *character != '\0')?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Some(());
            }
            _ => return None,
        };
        out.push(byte);
        Some(())
    }

    fn hexadecimal(&mut self) -> Option<u32> {
        let (digits, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        digits.iter().try_fold(0, |code, digit| Some(code << 4 | char::from(*digit).to_digit(16)?))
    }

    fn digits(&mut self) -> &[u8] {
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        digits
    }

    /// Appends a number without an exponent, and with the digits behind the point that numeric keeps.
    fn number(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let is_negative = self.rest.first() == Some(&b'-');
        self.rest = &self.rest[usize::from(is_negative)..];
        let mut digits = self.digits().to_vec();
        // No zeros before others.
        if digits.is_empty() || digits.len() > 1 && digits[0] == b'0' {
            return None;
        }
        let whole = digits.len();
        if let [b'.', rest @ ..] = self.rest {
            self.rest = rest;
            digits.extend_from_slice(self.digits());
            (digits.len() > whole).then_some(())?;
        }
        let fraction = digits.len() - whole;
        let mut exponent = 0;
        if let [b'e' | b'E', rest @ ..] = self.rest {
            let (sign, rest) = match rest {
                [b'-', rest @ ..] => (-1, rest),
                [b'+', rest @ ..] | rest => (1, rest),
            };
            self.rest = rest;
            let digits = self.digits();
            if digits.is_empty() || digits.len() > 6 {
                return None;
            }
            exponent = digits.iter().fold(0, |number, digit| number * 10 + isize::from(digit - b'0')) * sign;
        }
        if digits.len() > MAX_DIGITS || exponent.unsigned_abs() > MAX_DIGITS {
            return None;
        }
        let shown = fraction.saturating_add_signed(-exponent);
        // Where the point stands among the digits.
        let point = whole.cast_signed() + exponent;
        if is_negative && digits.iter().any(|digit| *digit != b'0') {
            out.push(b'-');
        }
        let digit = |place: isize| usize::try_from(place).ok().and_then(|place| digits.get(place)).unwrap_or(&b'0');
        let first = (0..point - 1).find(|place| *digit(*place) != b'0').unwrap_or((point - 1).max(0));
        match point {
            1.. => out.extend((first..point).map(digit)),
            _ => out.push(b'0'),
        }
        if shown > 0 {
            out.push(b'.');
            out.extend((point..point + shown.cast_signed()).map(digit));
        }
        Some(())
    }
}

/// As `escape_json` writes a string.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..=0x1f)) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            byte => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> Option<String> {
        let mut out = Vec::new();
        append(text.as_bytes(), &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn documents_are_put_into_order() {
        for (text, expected) in [
            (r#" {"bb":1,"a":[1 ,2,{}],"c":null,"a":[]} "#, r#"{"a": [], "c": null, "bb": 1}"#),
            (r#""\u00e9\/\ud83d\ude00\u0001\n\"\\""#, "\"é/😀\\u0001\\n\\\"\\\\\""),
            ("\"\u{7f}é\"", "\"\u{7f}é\""),
            ("[]", "[]"),
            ("[[], {}, true ,false]", "[[], {}, true, false]"),
            ("-1.50e3", "-1500"),
            ("-1.50e1", "-15.0"),
            ("1.50e-3", "0.00150"),
            ("0.5e1", "5"),
            ("0.05e1", "0.5"),
            ("-0", "0"),
            ("-0.00", "0.00"),
            ("0e-3", "0.000"),
            ("10e2", "1000"),
            ("12345678901234567890.10", "12345678901234567890.10"),
            ("1E+2", "100"),
            ("120e-1", "12.0"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_in_doubt_is_left_to_the_server() {
        let deep = "[".repeat(101) + &"]".repeat(101);
        for text in [
            "",
            "{",
            "[1,]",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "1e2000",
            "\"\u{1}\"",
            "\"\\u0000\"",
            "\"\\ud800\"",
            "nul",
            "1 2",
            "{\"é\": 1}",
            "{1: 2}",
            "\"\\x\"",
            &deep,
        ] {
            assert_eq!(canonical(text), None, "{text}");
        }
        assert!(canonical(&deep[1..201]).is_some());
    }
}
