//! Names and literals of SQL: the one place that quotes and reads them.

use std::fmt;
use std::str::FromStr;

use crate::statement::lexer::{self, Token};

/// The longest identifier that PostgreSQL keeps, in bytes: NAMEDATALEN - 1. The server cuts longer ones off with no
/// more than a notice, so that two long names may become one.
const MAX_BYTES: usize = 63;

/// A name or literal that cannot be written in SQL, or text that is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentError {
    /// An identifier of no characters, which SQL does not have.
    #[error("an identifier is empty")]
    Empty,
    /// A NUL character, which no PostgreSQL string can hold.
    #[error("{text:?} holds a NUL character, which PostgreSQL cannot store")]
    Nul {
        /// The text as it was given.
        text: String,
    },
    /// More than 63 bytes of UTF-8: the server would cut the name off.
    #[error("the identifier {name:?} has {} bytes: PostgreSQL keeps {MAX_BYTES}", name.len())]
    TooLong {
        /// The name as it was given.
        name: String,
    },
    /// Not `name` or `schema.name`, with each part a plain word or in double quotes.
    #[error("{text:?} is not a name of the form table or schema.table")]
    Syntax {
        /// The text as it was given.
        text: String,
    },
}

/// An SQL identifier, held without quotes, that the server will take as it is: 1 to 63 bytes, no NUL.
///
/// `Display` writes it quoted, with quotes inside doubled, whatever it is made of: `format!("{ident}")` is safe within
/// a statement. The alternate form `{:#}` leaves out quotes around a plain lower-case word; it is for people to read,
/// and no SQL (a keyword would stand bare).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ident(String);

impl Ident {
    /// An identifier of exactly this name: no folding of case, no quotes removed.
    ///
    /// # Errors
    /// [`IdentError::Empty`], [`IdentError::Nul`] or [`IdentError::TooLong`].
    pub fn new(name: impl Into<String>) -> Result<Self, IdentError> {
        let name = name.into();
        if name.is_empty() {
            return Err(IdentError::Empty);
        }
        if name.contains('\0') {
            return Err(IdentError::Nul { text: name });
        }
        if name.len() > MAX_BYTES {
            return Err(IdentError::TooLong { name });
        }
        Ok(Self(name))
    }

    /// The name itself, without quotes: what `pg_attribute.attname` and its like hold.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_plain_word(&self) -> bool {
        let mut bytes = self.0.bytes();
        bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    }
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() && self.is_plain_word() {
            f.write_str(&self.0)
        } else {
            write!(f, "\"{}\"", self.0.replace('"', "\"\""))
        }
    }
}

/// An identifier as SQL writes it: a plain word is folded to lower case (A to Z only, as the server does in UTF-8
/// databases), a name in double quotes is taken as it stands.
impl FromStr for Ident {
    type Err = IdentError;

    fn from_str(text: &str) -> Result<Self, IdentError> {
        match parts(text)?.as_mut_slice() {
            [name] => Self::new(std::mem::take(name)),
            _ => Err(IdentError::Syntax { text: text.to_owned() }),
        }
    }
}

impl AsRef<str> for Ident {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// The name of a table: a [`QualifiedName`].
pub type TableName = QualifiedName;

/// The name of a table, view, sequence, index or function, always with its schema.
///
/// `Display` writes both parts quoted, `{:#}` for people: see [`Ident`]. The order is by schema, then by name, in the
/// order of bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QualifiedName {
    /// The schema, `public` unless one was given.
    pub schema: Ident,
    /// The name within the schema.
    pub name: Ident,
}

impl QualifiedName {
    /// A name of exactly these two parts.
    ///
    /// # Errors
    /// As [`Ident::new`], for either part.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Result<Self, IdentError> {
        Ok(Self { schema: Ident::new(schema)?, name: Ident::new(name)? })
    }

    /// A name in the schema `public`.
    pub fn in_public(name: Ident) -> Self {
        Self { schema: Ident("public".to_owned()), name }
    }
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            write!(f, "{:#}.{:#}", self.schema, self.name)
        } else {
            write!(f, "{}.{}", self.schema, self.name)
        }
    }
}

/// `table` (in `public`) or `schema.table`, each part a plain word, folded to lower case, or in double quotes:
/// `public."My ""T"""`. No spaces around the parts.
impl FromStr for QualifiedName {
    type Err = IdentError;

    fn from_str(text: &str) -> Result<Self, IdentError> {
        match parts(text)?.as_mut_slice() {
            [name] => Ok(Self::in_public(Ident::new(std::mem::take(name))?)),
            [schema, name] => Self::new(std::mem::take(schema), std::mem::take(name)),
            _ => Err(IdentError::Syntax { text: text.to_owned() }),
        }
    }
}

/// A string literal of this text, right whatever the server's `standard_conforming_strings` says: quotes are doubled,
/// and a text with backslashes is written as an escape string, `E'…'`, with those doubled too.
///
/// # Errors
/// [`IdentError::Nul`].
pub fn quote_literal(text: &str) -> Result<String, IdentError> {
    if text.contains('\0') {
        return Err(IdentError::Nul { text: text.to_owned() });
    }
    let quoted = text.replace('\'', "''");
    Ok(if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") })
}

/// The dotted parts of a name, unquoted and folded, with nothing before, between or after them.
fn parts(text: &str) -> Result<Vec<String>, IdentError> {
    let syntax = || IdentError::Syntax { text: text.to_owned() };
    if text.contains('\0') {
        return Err(IdentError::Nul { text: text.to_owned() });
    }
    let tokens = lexer::tokens(text).map_err(|_| syntax())?;
    let mut end = 0;
    let mut parts = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if token.start != end {
            return Err(syntax());
        }
        end = token.end;
        match (index % 2, token.name(text)) {
            (0, Some(name)) => parts.push(name),
            (1, None) if token.text(text) == "." => {}
            _ => return Err(syntax()),
        }
    }
    if tokens.len() % 2 == 0 || end != text.len() { Err(syntax()) } else { Ok(parts) }
}

impl Token {
    /// The identifier that this token stands for, if it is one.
    pub(crate) fn ident(&self, text: &str) -> Option<Ident> {
        Ident::new(self.name(text)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_read_as_the_server_reads_them() {
        let read = |text: &str| text.parse::<TableName>().map(|name| format!("{} {}", name, name.name.as_str()));
        assert_eq!(read("search_docket").unwrap(), r#""public"."search_docket" search_docket"#);
        assert_eq!(read("Public.Search_Docket").unwrap(), r#""public"."search_docket" search_docket"#);
        assert_eq!(read(r#"public."My ""T""""#).unwrap(), r#""public"."My ""T""" My "T""#);
        assert_eq!(read(r#""a.b".c$1"#).unwrap(), r#""a.b"."c$1" c$1"#);
        assert_eq!(read("Ärger").unwrap(), r#""public"."Ärger" Ärger"#);
        for bad in
            ["", ".", "a.", ".a", "a.b.c", "a b", " a", "a ", "a/**/", "a--", "1a", "$a", "a-b", "'a'", "\"a", "a;"]
        {
            assert_eq!(read(bad), Err(IdentError::Syntax { text: bad.to_owned() }), "{bad}");
        }
        assert_eq!(read("\"\""), Err(IdentError::Empty));
        assert_eq!(read("a\0"), Err(IdentError::Nul { text: "a\0".to_owned() }));
        assert_eq!(read(&"x".repeat(64)), Err(IdentError::TooLong { name: "x".repeat(64) }));
        assert_eq!(read(&"x".repeat(63)).map(|r| r.len()), Ok(63 * 2 + 12));
    }

    #[test]
    fn people_read_names_without_needless_quotes() {
        let shown = |schema, name| format!("{:#}", TableName::new(schema, name).unwrap());
        assert_eq!(shown("public", "search_docket"), "public.search_docket");
        assert_eq!(shown("My", "a\"b"), r#""My"."a""b""#);
        assert_eq!(shown("_a1", "1a"), r#"_a1."1a""#);
    }

    #[test]
    fn literals_double_quotes_and_escape_backslashes() {
        assert_eq!(quote_literal("").unwrap(), "''");
        assert_eq!(quote_literal("it's").unwrap(), "'it''s'");
        assert_eq!(quote_literal(r"a\'b").unwrap(), r"E'a\\''b'");
        assert_eq!(quote_literal("a\0"), Err(IdentError::Nul { text: "a\0".to_owned() }));
    }

    /// What the server makes of a literal, with `standard_conforming_strings` on or off.
    fn unquote(literal: &str, standard: bool) -> String {
        let (escapes, body) = match literal.strip_prefix('E') {
            Some(rest) => (true, rest),
            None => (!standard, literal),
        };
        let mut out = String::new();
        let mut chars = body[1..body.len() - 1].chars();
        while let Some(c) = chars.next() {
            match c {
                '\'' => assert_eq!(chars.next(), Some('\'')),
                '\\' if escapes => assert_eq!(chars.next(), Some('\\')),
                _ => {}
            }
            out.push(c);
        }
        out
    }

    proptest! {
        #[test]
        fn any_name_comes_back(schema in "[^\0]{1,15}", name in "([a-zA-Z_.\"';\\\\ -]|[^\0]){1,15}") {
            let table = TableName::new(schema, name).unwrap();
            prop_assert_eq!(&table.to_string().parse::<TableName>().unwrap(), &table);
            prop_assert_eq!(&format!("{table:#}").parse::<TableName>().unwrap(), &table);
            prop_assert_eq!(&table.name.to_string().parse::<Ident>().unwrap(), &table.name);
        }

        #[test]
        fn any_literal_comes_back(text in "([\\\\'\"$a]|[^\0])*") {
            let literal = quote_literal(&text).unwrap();
            let tokens = lexer::tokens(&literal).unwrap();
            prop_assert_eq!(tokens.len(), 1);
            prop_assert_eq!(tokens[0].end, literal.len());
            prop_assert_eq!(unquote(&literal, true), text.as_str());
            prop_assert_eq!(unquote(&literal, false), text.as_str());
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in any::<String>()) {
            if let Ok(name) = text.parse::<TableName>() {
                prop_assert_eq!(name.to_string().parse::<TableName>().unwrap(), name);
            }
        }
    }
}
