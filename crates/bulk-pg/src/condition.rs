//! Which records of a file are loaded: conditions on their values.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::Field;

/// What a record must be like to be loaded: a test of the value of one of the file's columns, as it stands in the file,
/// without the quotes and escapes that its dialect needs. Values are compared byte by byte.
///
/// | text | true of a record whose column is |
/// |---|---|
/// | `court_id=scotus` | `scotus` |
/// | `court_id=scotus\|ca1` | one of these |
/// | `court_id!=scotus\|ca1` | none of these, and not NULL |
/// | `note is null` | NULL, such as nothing between two delimiters in CSV |
/// | `note is not null` | anything else, the empty string included |
///
/// As in SQL, neither `=` nor `!=` is true of NULL. `note=` asks for the empty string.
///
/// White space around a name or a value is no part of it. A value with such, with a `|`, or with a `'` or `=` as its first
/// character stands in single quotes, doubled inside; a column's name with an `=` or such stands in double quotes:
/// `"a=b" = 'x|y' | 'it''s'`. Case matters in both, but for the words `is not null`.
///
/// `Display` writes the same text for the same condition, and it parses back.
///
/// ```
/// use bulk_pg::Condition;
///
/// let condition: Condition = "court_id = scotus|'ca|1'".parse()?;
/// assert_eq!(condition, Condition::one_of("court_id", ["ca|1", "scotus"])?);
/// assert_eq!(condition.to_string(), "court_id='ca|1'|scotus");
/// assert!("court_id > scotus".parse::<Condition>().is_err());
/// # Ok::<(), bulk_pg::InvalidCondition>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    column: String,
    test: Test,
}

/// Values in order, each once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Test {
    OneOf(Vec<String>),
    NoneOf(Vec<String>),
    Null,
    NotNull,
}

/// A text that is no [`Condition`], or a condition without a value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is no condition: {what}")]
pub struct InvalidCondition {
    text: String,
    what: &'static str,
}

impl Condition {
    /// That the column has one of these values.
    ///
    /// # Errors
    ///
    /// [`InvalidCondition`] if there is none, or if the column's name is empty.
    pub fn one_of<V: Into<String>>(
        column: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Result<Self, InvalidCondition> {
        Self::new(column.into(), Test::OneOf(sorted(values)))
    }

    /// That the column has a value, and none of these.
    ///
    /// # Errors
    ///
    /// As [`one_of`](Self::one_of).
    pub fn none_of<V: Into<String>>(
        column: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Result<Self, InvalidCondition> {
        Self::new(column.into(), Test::NoneOf(sorted(values)))
    }

    /// That the column is NULL.
    ///
    /// # Errors
    ///
    /// [`InvalidCondition`] if the column's name is empty.
    pub fn null(column: impl Into<String>) -> Result<Self, InvalidCondition> {
        Self::new(column.into(), Test::Null)
    }

    /// That the column is not NULL.
    ///
    /// # Errors
    ///
    /// As [`null`](Self::null).
    pub fn not_null(column: impl Into<String>) -> Result<Self, InvalidCondition> {
        Self::new(column.into(), Test::NotNull)
    }

    /// The column that is looked at, as the file names it.
    pub fn column(&self) -> &str {
        &self.column
    }

    pub(crate) fn test(&self) -> &Test {
        &self.test
    }

    fn new(column: String, test: Test) -> Result<Self, InvalidCondition> {
        let what = match &test {
            Test::OneOf(values) | Test::NoneOf(values) if values.is_empty() => "it has no value to compare with",
            _ if column.is_empty() => NO_COLUMN,
            _ => return Ok(Self { column, test }),
        };
        Err(InvalidCondition { text: column, what })
    }
}

const NO_COLUMN: &str = "it has no column's name";
const NO_OPERATOR: &str =
    "it is to be COLUMN=VALUE, COLUMN!=VALUE, COLUMN is null or COLUMN is not null, with | between several values";

fn sorted<V: Into<String>>(values: impl IntoIterator<Item = V>) -> Vec<String> {
    let mut values: Vec<String> = values.into_iter().map(Into::into).collect();
    values.sort_unstable();
    values.dedup();
    values
}

impl Test {
    /// Whether it is true of a value.
    pub(crate) fn holds(&self, field: &Field<'_>) -> bool {
        match self {
            Self::Null => field.is_null(),
            Self::NotNull => !field.is_null(),
            Self::OneOf(values) => !field.is_null() && values.iter().any(|value| is(field, value)),
            Self::NoneOf(values) => !field.is_null() && !values.iter().any(|value| is(field, value)),
        }
    }
}

fn is(field: &Field<'_>, value: &str) -> bool {
    if !field.needs_unescape() {
        return field.raw() == value.as_bytes();
    }
    let mut rest = Some(value.as_bytes());
    field.for_each_piece(|piece| rest = rest.and_then(|rest| rest.strip_prefix(piece)));
    rest.is_some_and(<[u8]>::is_empty)
}

impl FromStr for Condition {
    type Err = InvalidCondition;

    fn from_str(text: &str) -> Result<Self, InvalidCondition> {
        parse(text).map_err(|what| InvalidCondition { text: text.to_owned(), what })
    }
}

fn parse(text: &str) -> Result<Condition, &'static str> {
    let text = text.trim();
    let (column, rest) = match text.strip_prefix('"') {
        Some(rest) => unquote(rest, '"').ok_or("the double quotes around the column's name are not closed")?,
        None => {
            let end = text.find('=').map_or_else(|| before_is(text), |at| Some(at - usize::from(is_negated(text, at))));
            let (column, rest) = text.split_at(end.ok_or(NO_OPERATOR)?);
            (column.trim_end().to_owned(), rest)
        }
    };
    let rest = rest.trim_start();
    let test = if let Some(values) = rest.strip_prefix("!=") {
        Test::NoneOf(sorted(parse_values(values)?))
    } else if let Some(values) = rest.strip_prefix('=') {
        Test::OneOf(sorted(parse_values(values)?))
    } else {
        let words: Vec<String> = rest.split_whitespace().map(str::to_ascii_lowercase).collect();
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["is", "null"] => Test::Null,
            ["is", "not", "null"] => Test::NotNull,
            _ => return Err(NO_OPERATOR),
        }
    };
    Condition::new(column, test).map_err(|error| error.what)
}

fn is_negated(text: &str, at: usize) -> bool {
    text[..at].ends_with('!')
}

/// Where ` is null` or ` is not null` begins, at the end of the text.
fn before_is(text: &str) -> Option<usize> {
    let mut rest = text;
    for word in ["null", "not", "is"] {
        let start = rest.rfind(char::is_whitespace)?;
        let last = rest[start..].trim_start();
        if last.eq_ignore_ascii_case(word) {
            rest = rest[..start].trim_end();
        } else if word != "not" {
            return None;
        }
    }
    Some(rest.len())
}

/// The text up to the closing quote, with doubled ones inside resolved, and what follows it.
fn unquote(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once(quote)?;
        value.push_str(before);
        match after.strip_prefix(quote) {
            Some(after) => {
                value.push(quote);
                rest = after;
            }
            None => return Some((value, after)),
        }
    }
}

fn parse_values(text: &str) -> Result<Vec<String>, &'static str> {
    let mut values = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let (value, after) = match rest.strip_prefix('\'') {
            Some(quoted) => {
                let closed = unquote(quoted, '\'');
                let (value, after) =
                    closed.ok_or("the single quotes around a value are not closed; a ' is written ''")?;
                (value, after.trim_start())
            }
            None if rest.starts_with('=') => return Err("a value that begins with = stands in single quotes"),
            None => {
                let (value, after) = rest.split_at(rest.find('|').unwrap_or(rest.len()));
                (value.trim_end().to_owned(), after)
            }
        };
        values.push(value);
        match after.strip_prefix('|') {
            Some(more) => rest = more,
            None if after.is_empty() => return Ok(values),
            None => return Err("text follows a value in single quotes; | stands between values"),
        }
    }
}

/// Whether a name or a value is written without quotes. It must not be taken for what stands around it, either.
fn is_plain(text: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "_-.:/@+".contains(c);
    !text.is_empty() && text.chars().all(plain)
}

/// A column's name as conditions write it.
pub(crate) fn quoted_column(name: &str) -> String {
    if is_plain(name) { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted_column(&self.column))?;
        let (operator, values) = match &self.test {
            Test::Null => return f.write_str(" is null"),
            Test::NotNull => return f.write_str(" is not null"),
            Test::OneOf(values) => ("=", values),
            Test::NoneOf(values) => ("!=", values),
        };
        for (place, value) in values.iter().enumerate() {
            f.write_str(if place == 0 { operator } else { "|" })?;
            match is_plain(value) {
                true => f.write_str(value)?,
                false => write!(f, "'{}'", value.replace('\'', "''"))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Condition {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn conditions_are_read_as_people_write_them() {
        for (text, column, test) in [
            ("court_id=scotus", "court_id", Test::OneOf(vec!["scotus".into()])),
            (" court_id =  scotus ", "court_id", Test::OneOf(vec!["scotus".into()])),
            ("court_id!=scotus|ca1|scotus", "court_id", Test::NoneOf(vec!["ca1".into(), "scotus".into()])),
            ("url=https://x/?a=b", "url", Test::OneOf(vec!["https://x/?a=b".into()])),
            ("name=O'Brien", "name", Test::OneOf(vec!["O'Brien".into()])),
            ("name= 'a|b' | ' x '|''''", "name", Test::OneOf(vec![" x ".into(), "'".into(), "a|b".into()])),
            ("note=", "note", Test::OneOf(vec!["".into()])),
            ("note!=|x", "note", Test::NoneOf(vec!["".into(), "x".into()])),
            ("note='='", "note", Test::OneOf(vec!["=".into()])),
            ("note=this is null", "note", Test::OneOf(vec!["this is null".into()])),
            ("note is null", "note", Test::Null),
            ("two words IS  NOT\tNull", "two words", Test::NotNull),
            ("not is null", "not", Test::Null),
            ("is is not null", "is", Test::NotNull),
            ("\"a=\"\"b is null\" is null", "a=\"b is null", Test::Null),
            ("\"a\"!=x", "a", Test::NoneOf(vec!["x".into()])),
        ] {
            assert_eq!(parsed(text), Condition { column: column.to_owned(), test }, "{text}");
        }
    }

    #[test]
    fn what_is_no_condition_is_said() {
        for (text, what) in [
            ("", NO_OPERATOR),
            ("court_id", NO_OPERATOR),
            ("court_id > 5", NO_OPERATOR),
            ("court_id is nothing", NO_OPERATOR),
            ("court_id not null", NO_OPERATOR),
            ("is null", NO_OPERATOR),
            ("\"a\" x is null", NO_OPERATOR),
            ("=x", NO_COLUMN),
            ("!=x", NO_COLUMN),
            ("\"\"=x", NO_COLUMN),
            ("a==x", "a value that begins with = stands in single quotes"),
            ("a='x", "the single quotes around a value are not closed; a ' is written ''"),
            ("a='x'y", "text follows a value in single quotes; | stands between values"),
            ("\"a=x", "the double quotes around the column's name are not closed"),
        ] {
            let error = text.parse::<Condition>().unwrap_err();
            assert_eq!(error, InvalidCondition { text: text.to_owned(), what });
        }
        let error = "a>1".parse::<Condition>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"a>1\" is no condition: it is to be COLUMN=VALUE, COLUMN!=VALUE, COLUMN is null or COLUMN is not null, with \
             | between several values"
        );
        assert!(Condition::one_of("a", [""; 0]).is_err() && Condition::null("").is_err());
    }

    proptest! {
        #[test]
        fn every_condition_comes_back_from_its_text(
            column in "[a=!'\" |.\\PC]{1,6}",
            values in prop::collection::vec("[a=!'\"| .\\PC]{0,6}", 1..4),
            kind in 0..4,
        ) {
            let condition = match kind {
                0 => Condition::one_of(&column, values),
                1 => Condition::none_of(&column, values),
                2 => Condition::null(&column),
                _ => Condition::not_null(&column),
            };
            let condition = condition.unwrap();
            prop_assert_eq!(parsed(&condition.to_string()), condition);
        }
    }
}
