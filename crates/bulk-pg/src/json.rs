//! A scanner of JSON (RFC 8259) that finds where values stand and builds none. Its input is UTF-8.

/// Why a text is no JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The offending byte.
    pub(crate) at: usize,
    pub(crate) what: &'static str,
}

/// A string, without its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JsonString {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) has_escapes: bool,
}

/// Where a value stands. Of a string, the quotes belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    /// A number, true or false.
    Plain,
    String {
        has_escapes: bool,
    },
    Array,
    Object,
}

/// Goes over a text, value by value.
pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    pub(crate) at: usize,
    /// Whether the object in hand has had a member.
    has_members: bool,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a [u8], at: usize) -> Self {
        Self { text, at, has_members: false }
    }

    /// The next byte that is no white space, which is not taken.
    #[inline(always)]
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Takes the byte if it comes next.
    #[inline(always)]
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    #[cold]
    pub(crate) fn fault(&self, what: &'static str) -> Fault {
        let what = if self.at < self.text.len() { what } else { "it ends too soon" };
        Fault { at: self.at, what }
    }

    /// Opens the object that comes next.
    pub(crate) fn open_object(&mut self) -> Result<(), Fault> {
        self.has_members = false;
        if self.take(b'{') { Ok(()) } else { Err(self.fault("there is no object")) }
    }

    /// The next key of the object in hand, whose [value](Self::value) is to be taken next. `None` closes the object.
    #[inline(always)]
    pub(crate) fn next_key(&mut self) -> Result<Option<JsonString>, Fault> {
        if self.take(b'}') {
            return Ok(None);
        }
        if self.has_members && !self.take(b',') {
            return Err(self.fault("a comma or the object's end is missing"));
        }
        self.has_members = true;
        self.key().map(Some)
    }

    fn key(&mut self) -> Result<JsonString, Fault> {
        if !self.take(b'"') {
            return Err(self.fault("a key is missing"));
        }
        let key = self.string()?;
        if !self.take(b':') {
            return Err(self.fault("a colon is missing"));
        }
        Ok(key)
    }

    /// The value that comes next.
    #[inline(always)]
    pub(crate) fn value(&mut self) -> Result<Value, Fault> {
        let first = self.peek();
        let start = self.at;
        let kind = match first {
            Some(b'{') => {
                self.container()?;
                Kind::Object
            }
            Some(b'[') => {
                self.container()?;
                Kind::Array
            }
            _ => self.scalar()?,
        };
        Ok(Value { start, end: self.at, kind })
    }

    /// Goes over the string whose opening quote was taken.
    #[inline(always)]
    fn string(&mut self) -> Result<JsonString, Fault> {
        let start = self.at;
        let mut has_escapes = false;
        loop {
            self.at += plain_len(&self.text[self.at..]);
            match self.text.get(self.at) {
                Some(b'"') => {
                    let end = self.at;
                    self.at += 1;
                    return Ok(JsonString { start, end, has_escapes });
                }
                Some(b'\\') => {
                    has_escapes = true;
                    self.escape()?;
                }
                _ => return Err(self.fault("a control character in a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') if self.text.get(self.at + 2..self.at + 6).is_some_and(is_hex) => self.at += 6,
            Some(b'u') if self.text.len() < self.at + 6 => {
                return Err(Fault { at: self.text.len(), what: "it ends too soon" });
            }
            _ => return Err(self.fault("an escape that JSON does not have")),
        }
        Ok(())
    }

    #[inline(always)]
    fn scalar(&mut self) -> Result<Kind, Fault> {
        match self.text.get(self.at) {
            Some(b'"') => {
                self.at += 1;
                self.string().map(|string| Kind::String { has_escapes: string.has_escapes })
            }
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| Kind::Plain),
            Some(b't') => self.word(b"true").map(|()| Kind::Plain),
            Some(b'f') => self.word(b"false").map(|()| Kind::Plain),
            Some(b'n') => self.word(b"null").map(|()| Kind::Null),
            _ => Err(self.fault("a value is missing")),
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Fault> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.fault("a value is missing"));
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), Fault> {
        self.at += usize::from(self.text[self.at] == b'-');
        if self.text.get(self.at) == Some(&b'0') {
            self.at += 1
        } else {
            self.digits()?
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            self.at += usize::from(matches!(self.text.get(self.at), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(())
    }

    #[inline(always)]
    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(self.fault("a digit is missing")) }
    }

    /// Goes over an object or an array, however deep.
    fn container(&mut self) -> Result<(), Fault> {
        let mut closing = Vec::new();
        'values: loop {
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    self.at += 1;
                    // Of either pair the one is two codes behind the other.
                    let close = open + 2;
                    if !self.take(close) {
                        closing.push(close);
                        if close == b'}' {
                            self.key()?;
                        }
                        continue 'values;
                    }
                }
                _ => {
                    self.scalar()?;
                }
            }
            while let Some(&close) = closing.last() {
                if self.take(b',') {
                    if close == b'}' {
                        self.key()?;
                    }
                    continue 'values;
                }
                if !self.take(close) {
                    return Err(self.fault("a comma or the end of an object or array is missing"));
                }
                closing.pop();
            }
            return Ok(());
        }
    }
}

/// How many bytes stand for themselves before the first quote, backslash or control character.
#[inline(always)]
fn plain_len(text: &[u8]) -> usize {
    const WORD: usize = 8;
    const fn repeat(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; WORD])
    }
    // The top bit of the lowest zero byte is set, and none below it.
    let zeros = |word: u64| word.wrapping_sub(repeat(0x01)) & !word & repeat(0x80);
    let mut at = 0;
    while let Some(word) = text[at..].first_chunk::<WORD>() {
        let word = u64::from_le_bytes(*word);
        // The control characters are those whose upper three bits are not set.
        let hits = zeros(word ^ repeat(b'"')) | zeros(word ^ repeat(b'\\')) | zeros(word & repeat(0xe0));
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += WORD;
    }
    let is_plain = |byte: &&u8| **byte >= 0x20 && **byte != b'"' && **byte != b'\\';
    at + text[at..].iter().take_while(is_plain).count()
}

fn is_hex(digits: &[u8]) -> bool {
    digits.iter().all(u8::is_ascii_hexdigit)
}

/// Why a string that is JSON is no text of PostgreSQL's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoText {
    /// `\u0000`.
    Nul,
    /// Half of a pair of surrogates.
    LoneSurrogate,
}

/// Appends what a string means to `out`. `raw` is what the scanner took for a string, without its quotes.
///
/// # Errors
///
/// The place of the escape that means nothing, and why.
pub(crate) fn unescape(raw: &[u8], out: &mut Vec<u8>) -> Result<(), (usize, NoText)> {
    let mut at = 0;
    while let Some(distance) = memchr::memchr(b'\\', &raw[at..]) {
        out.extend_from_slice(&raw[at..at + distance]);
        at += distance;
        let Some(&byte) = raw.get(at + 1) else { break };
        let meant = match byte {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let (character, len) = code_point(&raw[at..]).map_err(|why| (at, why))?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                at += len;
                continue;
            }
            itself => itself,
        };
        out.push(meant);
        at += 2;
    }
    out.extend_from_slice(&raw[at..]);
    Ok(())
}

/// The character of the `\u…`, or the pair of them, at the start of `raw`, and how long that is.
fn code_point(raw: &[u8]) -> Result<(char, usize), NoText> {
    const ESCAPE: usize = 6;
    let unit = |at: usize| {
        let digits = raw.get(at..at + ESCAPE)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
    };
    let first = unit(0).ok_or(NoText::LoneSurrogate)?;
    if first == 0 {
        return Err(NoText::Nul);
    }
    if let Some(character) = char::from_u32(first) {
        return Ok((character, ESCAPE));
    }
    let low = unit(ESCAPE).filter(|low| (0xdc00..0xe000).contains(low) && first < 0xdc00);
    let pair = low.and_then(|low| char::from_u32(0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00)));
    pair.map(|character| (character, 2 * ESCAPE)).ok_or(NoText::LoneSurrogate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Result<Vec<(String, Kind, &str)>, Fault> {
        let mut scanner = Scanner::new(text.as_bytes(), 0);
        scanner.open_object()?;
        let mut members = Vec::new();
        while let Some(key) = scanner.next_key()? {
            let value = scanner.value()?;
            members.push((text[key.start..key.end].to_owned(), value.kind, &text[value.start..value.end]));
        }
        match scanner.peek() {
            None => Ok(members),
            Some(_) => Err(scanner.fault("more")),
        }
    }

    #[test]
    fn members_are_found_as_they_stand() {
        let text = r#" { "a" : -1.5e+3 , "b\n":"x\"y", "c": [1, {"d": []}, "]"] ,"":{ } ,"t":true,"n":null} "#;
        let expected = [
            ("a", Kind::Plain, "-1.5e+3"),
            ("b\\n", Kind::String { has_escapes: true }, r#""x\"y""#),
            ("c", Kind::Array, r#"[1, {"d": []}, "]"]"#),
            ("", Kind::Object, "{ }"),
            ("t", Kind::Plain, "true"),
            ("n", Kind::Null, "null"),
        ];
        assert_eq!(members(text).unwrap(), expected.map(|(key, kind, value)| (key.to_owned(), kind, value)));
        assert_eq!(members("{}").unwrap(), []);
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(members(&deep).unwrap().len(), 1);
    }

    /// A second implementation says what is JSON.
    #[test]
    fn what_is_no_json_is_a_fault() {
        let texts = [
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":.5}",
            "{\"a\":1e}",
            "{\"a\":+1}",
            "{\"a\":-}",
            "{\"a\":nul}",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{a:1}",
            "{\"a\":[1,]}",
            "{\"a\":[1 2]}",
            "{\"a\":{\"b\"}}",
            "{\"a\":[}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12g4\"}",
            "{\"a\":\"\t\"}",
            "{\"a\":1",
            "{\"a\":\"x",
            "{\"a\":1}}",
            "{\"a\":NaN}",
            "{,}",
            "{\"a\":1,,\"b\":2}",
            "{\"a\":\"\\u12",
            "{\"a\":truefalse}",
            "{\"a\":[[]}",
            "{\"a\":--1}",
            "",
        ];
        for text in texts {
            assert!(serde_json::from_str::<serde_json::Value>(text).is_err(), "{text}");
            assert!(members(text).is_err(), "{text}");
        }
        assert_eq!(members("{\"a\":1,,}").unwrap_err(), Fault { at: 7, what: "a key is missing" });
        assert_eq!(members("{\"a\":\"x").unwrap_err(), Fault { at: 7, what: "it ends too soon" });
    }

    #[test]
    fn strings_mean_what_another_implementation_says() {
        for raw in ["", "plain", r#"\"\\\/\b\f\n\r\t"#, r"\u00e9\u20ac\ud83d\ude00", r"a\uD834\uDD1Eb", r"\uffff\ue000"]
        {
            let mut out = Vec::new();
            unescape(raw.as_bytes(), &mut out).unwrap();
            let expected: String = serde_json::from_str(&format!("\"{raw}\"")).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        for (raw, at, why) in [
            (r"ab\u0000", 2, NoText::Nul),
            (r"\ud83d", 0, NoText::LoneSurrogate),
            (r"x\ude00\ud83d", 1, NoText::LoneSurrogate),
            (r"\ud83d\u0041", 0, NoText::LoneSurrogate),
            (r"\ud83dn", 0, NoText::LoneSurrogate),
            (r"\ud83d\ud83d\ude00", 0, NoText::LoneSurrogate),
        ] {
            assert_eq!(unescape(raw.as_bytes(), &mut Vec::new()), Err((at, why)), "{raw}");
        }
    }
}
