//! The tokens of SQL, as the server's and psql's own scanners cut them (PostgreSQL's `scan.l` and `psqlscan.l`).

use crate::statement::{Construct, SplitError};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A keyword or an identifier without quotes.
    Word,
    /// An identifier in double quotes.
    QuotedIdent,
    /// A string in quotes or dollar quotes, with its prefix (`E`, `B`, `X`, `U&`).
    Literal,
    /// A number or a parameter.
    Number,
    /// Any other single character.
    Symbol,
}

/// One token: a range of the text that it was read from. Comments are no tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    /// The byte at which it begins.
    pub(crate) start: usize,
    /// The byte after it.
    pub(crate) end: usize,
    /// The line in which it begins; the first line is 1.
    pub(crate) line: usize,
}

impl Token {
    /// The token as it stands in the text that it was read from.
    pub(crate) fn text<'a>(&self, text: &'a str) -> &'a str {
        text.get(self.start..self.end).unwrap_or_default()
    }

    /// Whether it is this keyword, in either case, without quotes.
    pub(crate) fn is_word(&self, text: &str, keyword: &str) -> bool {
        self.kind == TokenKind::Word && self.text(text).eq_ignore_ascii_case(keyword)
    }

    /// Whether it is this character.
    pub(crate) fn is_symbol(&self, text: &str, symbol: &str) -> bool {
        self.kind == TokenKind::Symbol && self.text(text) == symbol
    }

    /// The name that an identifier stands for: folded to lower case, or with its quotes removed. None for other tokens,
    /// and for `U&"…"`, which pg_dump does not write.
    pub(crate) fn name(&self, text: &str) -> Option<String> {
        let raw = self.text(text);
        match self.kind {
            TokenKind::Word => Some(raw.to_ascii_lowercase()),
            TokenKind::QuotedIdent => Some(raw.strip_prefix('"')?.strip_suffix('"')?.replace("\"\"", "\"")),
            _ => None,
        }
    }
}

/// All tokens of a text.
pub(crate) fn tokens(text: &str) -> Result<Vec<Token>, SplitError> {
    let mut lexer = Lexer::new(text);
    let mut tokens = Vec::new();
    while let Some(token) = lexer.next_token()? {
        tokens.push(token);
    }
    Ok(tokens)
}

/// Reads tokens one after another.
pub(crate) struct Lexer<'a> {
    text: &'a str,
    position: usize,
    line: usize,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, position: 0, line: 1 }
    }

    /// The next token; None at the end of the text.
    pub(crate) fn next_token(&mut self) -> Result<Option<Token>, SplitError> {
        self.skip_blanks()?;
        let (start, line) = (self.position, self.line);
        let Some(first) = self.byte(0) else {
            return Ok(None);
        };
        let kind = match first {
            b'\'' => self.string(Construct::String, false)?,
            b'"' => self.quoted_ident()?,
            b'$' => self.dollar()?,
            b if is_ident_start(b) => self.word()?,
            b if b.is_ascii_digit() => {
                self.advance_while(|b| is_ident_start(b) || b.is_ascii_digit() || b == b'.');
                TokenKind::Number
            }
            _ => {
                self.advance(1);
                TokenKind::Symbol
            }
        };
        Ok(Some(Token { kind, start, end: self.position, line }))
    }

    /// Reads the rest of the line, and its end, as raw text.
    pub(crate) fn rest_of_line(&mut self) -> &'a str {
        let rest = self.text.get(self.position..).unwrap_or_default();
        let line = rest.split_inclusive('\n').next().unwrap_or_default();
        self.advance(line.len());
        line
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    pub(crate) fn line(&self) -> usize {
        self.line
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.position + ahead).copied()
    }

    fn starts_with(&self, prefix: &str) -> bool {
        self.text.as_bytes().get(self.position..).is_some_and(|rest| rest.starts_with(prefix.as_bytes()))
    }

    fn advance(&mut self, bytes: usize) {
        let end = (self.position + bytes).min(self.text.len());
        self.line += memchr::memchr_iter(b'\n', &self.text.as_bytes()[self.position..end]).count();
        self.position = end;
    }

    fn advance_while(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.byte(0).is_some_and(&wanted) {
            self.advance(1);
        }
    }

    /// Passes whitespace and comments; block comments nest.
    fn skip_blanks(&mut self) -> Result<(), SplitError> {
        loop {
            self.advance_while(is_space);
            if self.starts_with("--") {
                self.advance_while(|b| b != b'\n' && b != b'\r');
            } else if self.starts_with("/*") {
                let line = self.line;
                let mut depth = 0_usize;
                loop {
                    if self.starts_with("/*") {
                        depth += 1;
                        self.advance(2);
                    } else if self.starts_with("*/") {
                        depth -= 1;
                        self.advance(2);
                        if depth == 0 {
                            break;
                        }
                    } else if self.byte(0).is_some() {
                        self.advance(1);
                    } else {
                        return Err(SplitError::Unterminated { what: Construct::Comment, line });
                    }
                }
            } else {
                return Ok(());
            }
        }
    }

    fn word(&mut self) -> Result<TokenKind, SplitError> {
        let start = self.position;
        self.advance_while(|b| is_ident_start(b) || b.is_ascii_digit() || b == b'$');
        let word = &self.text.as_bytes()[start..self.position];
        match (word, self.byte(0), self.byte(1)) {
            (b"e" | b"E", Some(b'\''), _) => self.string(Construct::String, true),
            (b"b" | b"B" | b"x" | b"X" | b"n" | b"N", Some(b'\''), _) => self.string(Construct::String, false),
            (b"u" | b"U", Some(b'&'), Some(b'\'')) => {
                self.advance(1);
                self.string(Construct::String, false)
            }
            (b"u" | b"U", Some(b'&'), Some(b'"')) => {
                self.advance(1);
                self.quoted_ident()
            }
            _ => Ok(TokenKind::Word),
        }
    }

    /// A string in single quotes, with whatever continues it after a line break.
    fn string(&mut self, what: Construct, escapes: bool) -> Result<TokenKind, SplitError> {
        let line = self.line;
        self.advance(1);
        loop {
            match self.byte(0) {
                None => return Err(SplitError::Unterminated { what, line }),
                Some(b'\\') if escapes => self.advance(2),
                Some(b'\'') if self.byte(1) == Some(b'\'') => self.advance(2),
                Some(b'\'') => {
                    self.advance(1);
                    match self.continuation() {
                        Some(bytes) => self.advance(bytes),
                        None => return Ok(TokenKind::Literal),
                    }
                }
                Some(_) => self.advance(1),
            }
        }
    }

    /// The length of what leads into a further quoted part of the same string: blanks with a line break, and the quote.
    fn continuation(&self) -> Option<usize> {
        let mut ahead = 0;
        let mut line_break = false;
        loop {
            match self.byte(ahead)? {
                b'\'' if line_break => return Some(ahead + 1),
                b'-' if self.byte(ahead + 1) == Some(b'-') => {
                    while !matches!(self.byte(ahead)?, b'\n' | b'\r') {
                        ahead += 1;
                    }
                }
                b if is_space(b) => {
                    line_break |= matches!(b, b'\n' | b'\r');
                    ahead += 1;
                }
                _ => return None,
            }
        }
    }

    fn quoted_ident(&mut self) -> Result<TokenKind, SplitError> {
        let line = self.line;
        self.advance(1);
        loop {
            match (self.byte(0), self.byte(1)) {
                (None, _) => return Err(SplitError::Unterminated { what: Construct::Identifier, line }),
                (Some(b'"'), Some(b'"')) => self.advance(2),
                (Some(b'"'), _) => {
                    self.advance(1);
                    return Ok(TokenKind::QuotedIdent);
                }
                _ => self.advance(1),
            }
        }
    }

    /// A string in dollar quotes, a parameter, or a lone dollar sign.
    fn dollar(&mut self) -> Result<TokenKind, SplitError> {
        let (start, line) = (self.position, self.line);
        self.advance(1);
        if self.byte(0).is_some_and(|b| b.is_ascii_digit()) {
            self.advance_while(|b| b.is_ascii_digit());
            return Ok(TokenKind::Number);
        }
        self.advance_while(|b| is_ident_start(b) || b.is_ascii_digit());
        if self.byte(0) != Some(b'$') {
            self.position = start + 1;
            return Ok(TokenKind::Symbol);
        }
        self.advance(1);
        let delimiter = &self.text.as_bytes()[start..self.position];
        match memchr::memmem::find(&self.text.as_bytes()[self.position..], delimiter) {
            Some(body) => {
                self.advance(body + delimiter.len());
                Ok(TokenKind::Literal)
            }
            None => Err(SplitError::Unterminated { what: Construct::DollarString, line }),
        }
    }
}

/// Letters, the underscore, and every byte of a character beyond ASCII.
fn is_ident_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c')
}
