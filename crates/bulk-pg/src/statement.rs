//! Cuts an SQL script, as pg_dump writes it for psql, into its statements.

use std::fmt;

use lexer::{Lexer, Token};

pub(crate) mod lexer;

/// One piece of a script, in the order of the file. Comments between statements and empty statements are no pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statement<'a> {
    /// What it is.
    pub kind: StatementKind,
    /// The line in which it begins; the first line is 1.
    pub line: usize,
    /// The byte at which it begins, counted after a byte order mark.
    pub offset: usize,
    /// From its first character to its last: for SQL with the semicolon, for data every line but the closing `\.`.
    pub text: &'a str,
}

/// What a [`Statement`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StatementKind {
    /// An SQL statement, for the server.
    Sql,
    /// A command for psql, such as `\connect` or `\restrict`: one line.
    Meta,
    /// The rows that follow a `COPY … FROM stdin` statement.
    CopyData,
}

/// What was opened and never closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Construct {
    /// A string in single quotes.
    String,
    /// A string in dollar quotes.
    DollarString,
    /// An identifier in double quotes.
    Identifier,
    /// A block comment.
    Comment,
    /// A statement without its semicolon.
    Statement,
    /// Rows of a COPY without the closing `\.`.
    CopyData,
}

impl fmt::Display for Construct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String => "quoted string",
            Self::DollarString => "dollar-quoted string",
            Self::Identifier => "quoted identifier",
            Self::Comment => "block comment",
            Self::Statement => "statement",
            Self::CopyData => "block of COPY data",
        })
    }
}

/// A script that cannot be cut into statements. A file that was cut off in the middle mostly ends here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// The script ends within something.
    #[error("line {line}: the script ends within the {what} that begins here")]
    Unterminated {
        /// What was not closed.
        what: Construct,
        /// The line in which it begins.
        line: usize,
    },
    /// A backslash that belongs to no string: psql would run a command in the middle of a statement.
    #[error("line {line}: a psql command stands within the statement that begins in line {statement_line}")]
    MetaWithinStatement {
        /// The line of the backslash.
        line: usize,
        /// The line in which the statement begins.
        statement_line: usize,
    },
    /// Something follows `COPY … FROM stdin;` in its line, where only the rows may follow.
    #[error("line {line}: there is text between a COPY statement and its data")]
    TextBeforeData {
        /// The line of that text.
        line: usize,
    },
}

/// Cuts a script into its statements.
///
/// A statement ends at a semicolon outside of quotes, comments and parentheses (`CREATE RULE … DO (…; …)`), and outside
/// of a function body between `BEGIN ATOMIC` and its `END`: the rules of psql. Strings are read with
/// `standard_conforming_strings` on. A leading byte order mark is ignored.
///
/// # Errors
/// See [`SplitError`]. There is no partial result: what follows an unclosed quote cannot be told.
pub fn split_statements(text: &str) -> Result<Vec<Statement<'_>>, SplitError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lexer = Lexer::new(text);
    let mut statements = Vec::new();
    let mut open: Option<Open> = None;
    while let Some(token) = lexer.next_token()? {
        if token.is_symbol(text, "\\") {
            if let Some(open) = open {
                return Err(SplitError::MetaWithinStatement { line: token.line, statement_line: open.first.line });
            }
            lexer.rest_of_line();
            let (line, offset) = (token.line, token.start);
            let command = text.get(offset..lexer.position()).unwrap_or_default().trim_end();
            statements.push(Statement { kind: StatementKind::Meta, line, offset, text: command });
            continue;
        }
        let ends = token.is_symbol(text, ";");
        let Some(current) = &mut open else {
            if !ends {
                open = Some(Open::new(text, token));
            }
            continue;
        };
        if !(ends && current.depth == 0 && current.atomic == 0) {
            current.push(text, token);
            continue;
        }
        let (line, offset) = (current.first.line, current.first.start);
        let sql = text.get(offset..token.end).unwrap_or_default();
        let copies_in = current.copies_in;
        statements.push(Statement { kind: StatementKind::Sql, line, offset, text: sql });
        open = None;
        if copies_in {
            statements.push(copy_data(text, &mut lexer)?);
        }
    }
    match open {
        Some(open) => Err(SplitError::Unterminated { what: Construct::Statement, line: open.first.line }),
        None => Ok(statements),
    }
}

/// The rows after a COPY statement: whole lines up to the one that is `\.`.
fn copy_data<'a>(text: &'a str, lexer: &mut Lexer<'a>) -> Result<Statement<'a>, SplitError> {
    let statement_line = lexer.line();
    if !lexer.rest_of_line().trim().is_empty() {
        return Err(SplitError::TextBeforeData { line: statement_line });
    }
    let (line, offset) = (lexer.line(), lexer.position());
    loop {
        let end = lexer.position();
        match lexer.rest_of_line() {
            "" => return Err(SplitError::Unterminated { what: Construct::CopyData, line: statement_line }),
            row if row.trim_end_matches(['\r', '\n']) == "\\." => {
                let rows = text.get(offset..end).unwrap_or_default();
                return Ok(Statement { kind: StatementKind::CopyData, line, offset, text: rows });
            }
            _ => {}
        }
    }
}

/// A statement whose end has not been seen.
struct Open {
    first: Token,
    previous: Token,
    /// Parentheses that are open.
    depth: usize,
    /// `BEGIN ATOMIC` and the `CASE`s within it that are open.
    atomic: usize,
    head: Head,
    copies_in: bool,
}

/// What the first words of a statement make of it.
#[derive(PartialEq)]
enum Head {
    Create,
    CreateOr,
    Routine,
    Copy,
    Other,
}

impl Open {
    fn new(text: &str, first: Token) -> Self {
        let head = if first.is_word(text, "CREATE") {
            Head::Create
        } else if first.is_word(text, "COPY") {
            Head::Copy
        } else {
            Head::Other
        };
        let depth = usize::from(first.is_symbol(text, "("));
        Self { first, previous: first, depth, atomic: 0, head, copies_in: false }
    }

    fn push(&mut self, text: &str, token: Token) {
        let is = |keyword| token.is_word(text, keyword);
        let follows = |keyword| self.previous.is_word(text, keyword);
        match self.head {
            Head::Create if is("FUNCTION") || is("PROCEDURE") => self.head = Head::Routine,
            Head::Create if is("OR") => self.head = Head::CreateOr,
            Head::Create => self.head = Head::Other,
            Head::CreateOr if is("REPLACE") => self.head = Head::Create,
            Head::CreateOr => self.head = Head::Other,
            Head::Copy if self.depth == 0 && is("STDIN") && follows("FROM") => self.copies_in = true,
            Head::Routine if self.depth == 0 => {
                if is("ATOMIC") && follows("BEGIN") || is("CASE") && self.atomic > 0 {
                    self.atomic += 1;
                } else if is("END") {
                    self.atomic = self.atomic.saturating_sub(1);
                }
            }
            _ => {}
        }
        if token.is_symbol(text, "(") {
            self.depth += 1;
        } else if token.is_symbol(text, ")") {
            self.depth = self.depth.saturating_sub(1);
        }
        self.previous = token;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(script: &str) -> Vec<(usize, &str)> {
        split_statements(script).unwrap().iter().map(|s| (s.line, s.text)).collect()
    }

    fn fails(script: &str) -> SplitError {
        split_statements(script).unwrap_err()
    }

    #[test]
    fn semicolons_in_quotes_and_comments_end_nothing() {
        let script =
            "-- one; two\nSELECT ';', E'\\';', \";\", $$;$$, $a$;$$;$a$ /* ; /* ; */ ; */ -- ;\n;\nSELECT a$b$c;;";
        assert_eq!(
            texts(script),
            [(2, "SELECT ';', E'\\';', \";\", $$;$$, $a$;$$;$a$ /* ; /* ; */ ; */ -- ;\n;"), (4, "SELECT a$b$c;")]
        );
    }

    #[test]
    fn an_escape_string_goes_on_after_a_line_break() {
        assert_eq!(
            texts("SELECT E'a' -- c\n 'it\\';s';SELECT 2;"),
            [(1, "SELECT E'a' -- c\n 'it\\';s';"), (2, "SELECT 2;")]
        );
        assert_eq!(texts("SELECT E'a' 'b\\';SELECT 2;"), [(1, "SELECT E'a' 'b\\';"), (1, "SELECT 2;")]);
        assert_eq!(texts("SELECT 'a\\';SELECT U&'\\', N'\\', B'1', 1E1;").len(), 2);
    }

    #[test]
    fn rules_and_atomic_bodies_hold_semicolons() {
        let rule = "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2);";
        let body = "CREATE OR REPLACE FUNCTION f() RETURNS int\nBEGIN ATOMIC\n SELECT CASE WHEN true THEN 1 END;\n SELECT \
                    2;\nEND;";
        let named = "CREATE FUNCTION public.begin() RETURNS int LANGUAGE sql AS 'SELECT 1';";
        let script = format!("{rule}\n{body}\n{named}\nBEGIN;\nEND;");
        assert_eq!(texts(&script), [(1, rule), (2, body), (7, named), (8, "BEGIN;"), (9, "END;")]);
    }

    #[test]
    fn commands_of_psql_and_rows_are_pieces_of_their_own() {
        let script = "\u{feff}\\restrict a;b'\r\n\\connect \"my db\"\nCOPY public.t (a) FROM stdin;\n\\N\n;'\n\\.\nCOPY u \
                      FROM STDIN;\r\n\\.\r\nCOPY (SELECT 1) TO stdout;\n  \\unrestrict a";
        let found: Vec<_> = split_statements(script).unwrap().iter().map(|s| (s.line, s.kind, s.text)).collect();
        assert_eq!(
            found,
            [
                (1, StatementKind::Meta, "\\restrict a;b'"),
                (2, StatementKind::Meta, "\\connect \"my db\""),
                (3, StatementKind::Sql, "COPY public.t (a) FROM stdin;"),
                (4, StatementKind::CopyData, "\\N\n;'\n"),
                (7, StatementKind::Sql, "COPY u FROM STDIN;"),
                (8, StatementKind::CopyData, ""),
                (9, StatementKind::Sql, "COPY (SELECT 1) TO stdout;"),
                (10, StatementKind::Meta, "\\unrestrict a"),
            ]
        );
    }

    #[test]
    fn what_is_not_closed_is_named_with_its_line() {
        let unterminated = |what, line| SplitError::Unterminated { what, line };
        assert_eq!(fails("SELECT 1;\n\nSELECT 'a\n;"), unterminated(Construct::String, 3));
        assert_eq!(fails("SELECT E'a\\'"), unterminated(Construct::String, 1));
        assert_eq!(fails("\nSELECT \"a"), unterminated(Construct::Identifier, 2));
        assert_eq!(fails("SELECT $x$ $y$"), unterminated(Construct::DollarString, 1));
        assert_eq!(fails("/* /* */"), unterminated(Construct::Comment, 1));
        assert_eq!(fails("SELECT 1;\nSELECT (1;"), unterminated(Construct::Statement, 2));
        assert_eq!(fails("COPY t FROM stdin;\n1\n"), unterminated(Construct::CopyData, 1));
        assert_eq!(fails("COPY t FROM stdin; SELECT 1;\n\\.\n"), SplitError::TextBeforeData { line: 1 });
        assert_eq!(fails("SELECT 1\n\\g\n"), SplitError::MetaWithinStatement { line: 2, statement_line: 1 });
        assert_eq!(
            fails("\nSELECT 'a").to_string(),
            "line 2: the script ends within the quoted string that begins here"
        );
    }

    fn token() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "a",
            "SELECT",
            "\"a;\"\"b\"",
            "';'",
            "'it''s'",
            "E'\\';'",
            "$$;'$$",
            "$t$;$$;\n$t$",
            "1.5",
            "$1",
            ",",
            ":",
            "-",
            "/",
            "*",
            "é",
            "a$b$",
            "U&'\\'",
            "B'0'",
            "$",
            "(",
            ")",
            "case",
            "end",
        ])
    }

    fn blank() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![" ", "\n", " -- c ; ' $$\n", " /* ; ' /* \" */ $$ */ ", "\t\r\n", "\n--\n"])
    }

    fn token_texts(text: &str) -> Vec<String> {
        lexer::tokens(text).unwrap().iter().map(|t| t.text(text).to_owned()).collect()
    }

    proptest! {
        #[test]
        fn tokens_come_back_as_they_were_written(tokens in prop::collection::vec(token(), 0..20), comments: bool) {
            // No line breaks: with one between them, two strings are one token.
            let text = tokens.join(if comments { " /* ' /* $$ */ \" */ " } else { " " });
            prop_assert_eq!(token_texts(&text), tokens);
        }

        #[test]
        fn statements_hold_every_token(
            script in prop::collection::vec((prop::collection::vec((token(), blank()), 1..12), 0..9_usize), 0..8)
        ) {
            let mut text = String::new();
            for (tokens, closing) in &script {
                tokens.iter().for_each(|(token, blank)| text.push_str(&format!("{token}{blank}")));
                text.push_str(&format!("{};\n", ")".repeat(closing + tokens.len())));
            }
            let found = split_statements(&text).unwrap();
            prop_assert_eq!(found.len(), script.len());
            let kept: Vec<_> = found.iter().flat_map(|s| token_texts(s.text)).collect();
            prop_assert_eq!(kept, token_texts(&text));
            for statement in &found {
                prop_assert_eq!(&text[statement.offset..][..statement.text.len()], statement.text);
                prop_assert_eq!(text[..statement.offset].matches('\n').count() + 1, statement.line);
            }
        }

        #[test]
        fn any_text_splits_or_fails_and_splits_again_alike(
            text in "([-/*;'\"$\\\\\\n() .aeEnN&uU]|COPY |FROM stdin|\\n\\\\.\\n|CREATE FUNCTION |BEGIN ATOMIC |END|\\PC){0,60}"
        ) {
            if let Ok(found) = split_statements(&text) {
                let mut again = String::new();
                for statement in &found {
                    again.push_str(statement.text);
                    again.push_str(if statement.kind == StatementKind::CopyData { "\\.\n" } else { "\n" });
                }
                let twice = split_statements(&again).unwrap();
                let plain = |all: &[Statement<'_>]| all.iter().map(|s| (s.kind, s.text.to_owned())).collect::<Vec<_>>();
                prop_assert_eq!(plain(&found), plain(&twice));
            }
        }

        #[test]
        fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = split_statements(&String::from_utf8_lossy(&bytes));
        }
    }
}
