//! Walks over the tokens of one statement.

use std::fmt::Write;

use super::SUMMARY_CHARS;
use crate::ident::{Ident, QualifiedName};
use crate::statement::lexer::{self, Token, TokenKind};

/// A place among the tokens of a statement. A method that reads something moves on only if it was there.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    tokens: &'a [Token],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str, tokens: &'a [Token]) -> Self {
        Self { text, tokens }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Whether the next token is this keyword.
    pub(super) fn sees(&self, keyword: &str) -> bool {
        self.tokens.first().is_some_and(|t| t.is_word(self.text, keyword))
    }

    /// Whether the next token is one of these keywords.
    pub(super) fn sees_any(&self, keywords: &[&str]) -> bool {
        keywords.iter().any(|keyword| self.sees(keyword))
    }

    /// Reads these keywords, one after another: all or none.
    pub(super) fn eat(&mut self, keywords: &str) -> bool {
        let mut ahead = self.clone();
        for keyword in keywords.split(' ') {
            if !ahead.sees(keyword) {
                return false;
            }
            ahead.skip();
        }
        *self = ahead;
        true
    }

    pub(super) fn sees_symbol(&self, symbol: &str) -> bool {
        self.tokens.first().is_some_and(|t| t.is_symbol(self.text, symbol))
    }

    pub(super) fn eat_symbol(&mut self, symbol: &str) -> bool {
        let there = self.sees_symbol(symbol);
        if there {
            self.skip();
        }
        there
    }

    /// Passes one token.
    pub(super) fn skip(&mut self) -> Option<Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(*first)
    }

    /// Reads an identifier. A keyword is taken for one, as are all words.
    pub(super) fn ident(&mut self) -> Option<Ident> {
        let ident = self.tokens.first()?.ident(self.text)?;
        self.skip();
        Some(ident)
    }

    /// Reads identifiers with dots between them.
    pub(super) fn dotted(&mut self) -> Option<Vec<Ident>> {
        let mut ahead = self.clone();
        let mut parts = vec![ahead.ident()?];
        while ahead.eat_symbol(".") {
            parts.push(ahead.ident()?);
        }
        *self = ahead;
        Some(parts)
    }

    /// Reads a name with or without its schema; without one, it is in `public`.
    pub(super) fn name(&mut self) -> Option<QualifiedName> {
        let mut ahead = self.clone();
        let name = qualified(ahead.dotted()?)?;
        *self = ahead;
        Some(name)
    }

    /// Reads what stands in parentheses, and them.
    pub(super) fn group(&mut self) -> Option<Cursor<'a>> {
        if !self.sees_symbol("(") {
            return None;
        }
        let mut depth = 0_usize;
        for (index, token) in self.tokens.iter().enumerate() {
            if token.is_symbol(self.text, "(") {
                depth += 1;
            } else if token.is_symbol(self.text, ")") {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    let inside = Cursor { tokens: &self.tokens[1..index], ..*self };
                    self.tokens = &self.tokens[index + 1..];
                    return Some(inside);
                }
            }
        }
        None
    }

    /// Reads a list of columns in parentheses. What PostgreSQL 18 says of a period is passed over: the word PERIOD before
    /// a column, WITHOUT OVERLAPS after it.
    pub(super) fn columns(&mut self) -> Option<Vec<Ident>> {
        let mut ahead = self.clone();
        let mut columns = Vec::new();
        for mut item in ahead.group()?.split_at_commas() {
            let mut column = item.ident()?;
            if column.as_str() == "period" && !item.is_empty() && !item.sees("WITHOUT") {
                column = item.ident()?;
            }
            item.eat("WITHOUT OVERLAPS");
            if !item.is_empty() {
                return None;
            }
            columns.push(column);
        }
        *self = ahead;
        Some(columns)
    }

    /// The parts between the commas that stand in no brackets.
    pub(super) fn split_at_commas(&self) -> Vec<Cursor<'a>> {
        let mut parts = Vec::new();
        let mut start = 0;
        self.outside_brackets(|index, token| {
            if token.is_symbol(self.text, ",") {
                parts.push(Cursor { tokens: &self.tokens[start..index], ..*self });
                start = index + 1;
            }
            false
        });
        parts.push(Cursor { tokens: &self.tokens[start..], ..*self });
        parts
    }

    /// Moves to these keywords, the first time that they stand in no brackets, and past them.
    pub(super) fn seek(&mut self, keywords: &str) -> bool {
        let mut found = None;
        self.outside_brackets(|index, _| {
            let mut ahead = Cursor { tokens: &self.tokens[index..], ..*self };
            let there = ahead.eat(keywords);
            if there {
                found = Some(ahead);
            }
            there
        });
        found.map(|ahead| *self = ahead).is_some()
    }

    /// The source from here to the end, as one line, without the semicolon.
    pub(super) fn rest_as_line(&self) -> String {
        self.line_up_to(&Cursor { tokens: &[], ..*self })
    }

    /// The source from here to where another cursor of the same statement is, as one line.
    pub(super) fn line_up_to(&self, later: &Cursor<'_>) -> String {
        let tokens = &self.tokens[..self.tokens.len() - later.tokens.len().min(self.tokens.len())];
        let mut line = String::new();
        let mut end = None;
        for token in tokens.iter().filter(|t| !t.is_symbol(self.text, ";")) {
            if end.is_some_and(|end| end < token.start) {
                line.push(' ');
            }
            line.push_str(token.text(self.text));
            end = Some(token.end);
        }
        line
    }

    /// Calls `visit` for each token that stands in no brackets, until it says that it has seen enough.
    fn outside_brackets(&self, mut visit: impl FnMut(usize, &Token) -> bool) {
        let mut depth = 0_usize;
        for (index, token) in self.tokens.iter().enumerate() {
            let is_any = |symbols: [&str; 2]| symbols.iter().any(|symbol| token.is_symbol(self.text, symbol));
            if is_any([")", "]"]) {
                depth = depth.saturating_sub(1);
            }
            if depth == 0 && visit(index, token) {
                return;
            }
            if is_any(["(", "["]) {
                depth += 1;
            }
        }
    }

    /// The start of the statement in one line for people, at most about 100 characters. String literals are not shown
    /// (a subscription's or a user mapping's holds a password), except in settings of the session.
    pub(super) fn summary(&self) -> String {
        let shows_literals = self.sees_any(&["SET", "SELECT"]) && self.tokens.len() < 20;
        let mut line = String::new();
        let mut end = None;
        for token in self.tokens.iter().filter(|t| !t.is_symbol(self.text, ";")) {
            if end.is_some_and(|end| end < token.start) {
                line.push(' ');
            }
            let hides = token.kind == TokenKind::Literal && !shows_literals;
            let shown = if hides { "'…'" } else { token.text(self.text) };
            if line.chars().count() + shown.chars().count() > SUMMARY_CHARS {
                let _ = write!(line, "…");
                break;
            }
            line.push_str(shown);
            end = Some(token.end);
        }
        line
    }
}

/// One or two identifiers as a name.
pub(super) fn qualified(parts: Vec<Ident>) -> Option<QualifiedName> {
    let mut parts = parts.into_iter();
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, None) => Some(QualifiedName::in_public(name)),
        (Some(schema), Some(name), None) => Some(QualifiedName { schema, name }),
        _ => None,
    }
}

/// The tokens of a statement that has been split off, which are whole.
pub(super) fn tokens_of(sql: &str) -> Vec<Token> {
    lexer::tokens(sql).unwrap_or_default()
}
