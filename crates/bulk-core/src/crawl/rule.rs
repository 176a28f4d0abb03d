use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde_json::{Number, Value};
use serde_json_path::JsonPath;

/// What a JSON document has to say: `$.ErrorCode == 1`.
///
/// A JSONPath ([RFC 9535](https://www.rfc-editor.org/rfc/rfc9535)), then, if there is to be more than something in that
/// place, one of `==`, `!=`, `<`, `<=`, `>`, `>=` and a JSON literal. It holds if the path finds something, and all that it
/// finds compares so. Numbers are compared by their value (`1` is `1.0`), strings by their code points; values of different
/// types are unequal, and neither is smaller.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    text: String,
    path: JsonPath,
    comparison: Option<(Comparison, Value)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Longer ones first: each is looked for where it stands.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::Unequal),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

/// Why a part of a crawl's description cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}: {reason}")]
#[non_exhaustive]
pub struct SpecError {
    /// The part.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl SpecError {
    pub(super) fn new(text: &str, reason: impl Into<String>) -> Self {
        Self { text: text.to_owned(), reason: reason.into() }
    }
}

/// A JSONPath out of its text.
pub(super) fn json_path(text: &str) -> Result<JsonPath, SpecError> {
    JsonPath::parse(text).map_err(|error| SpecError::new(text, format!("it is no JSONPath: {error}")))
}

impl Rule {
    /// Whether the document says so.
    pub fn holds(&self, document: &Value) -> bool {
        let found = self.path.query(document);
        match &self.comparison {
            None => !found.is_empty(),
            Some((comparison, literal)) => {
                !found.is_empty() && found.iter().all(|value| comparison.holds(value, literal))
            }
        }
    }

    /// What the document says instead, for a message: the rule and what is there, without what `hide` hides.
    pub(super) fn broken_by(&self, document: &Value, hide: Hide<'_>) -> String {
        let found = self.path.query(document);
        match found.first() {
            None => format!("{self} does not hold: there is nothing"),
            Some(value) => format!("{self} does not hold: there is {}", shortened(&hide(&value.to_string()), 100)),
        }
    }
}

/// A text without secrets. It comes first, and the cut afterwards: half a secret is none that can be found.
pub(super) type Hide<'a> = &'a (dyn Fn(&str) -> String + Sync);

/// The beginning of a text.
pub(super) fn shortened(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Rule {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let text = text.trim();
        let (path, comparison) = match operator(text) {
            None => (text, None),
            Some((at, symbol, comparison)) => {
                let literal = text[at + symbol.len()..].trim();
                let literal = serde_json::from_str(literal).map_err(|error| {
                    SpecError::new(text, format!("behind {symbol} stands no JSON literal: {error}"))
                })?;
                (text[..at].trim_end(), Some((comparison, literal)))
            }
        };
        Ok(Self { text: text.to_owned(), path: json_path(path)?, comparison })
    }
}

/// The first comparison outside of the path's brackets and strings.
fn operator(text: &str) -> Option<(usize, &'static str, Comparison)> {
    let mut depth = 0u32;
    let mut quote = None;
    let mut escaped = false;
    for (at, char) in text.char_indices() {
        match (quote, char) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), char) if open == char => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(char),
            (None, '[' | '(') => depth += 1,
            (None, ']' | ')') => depth = depth.saturating_sub(1),
            (None, _) if depth == 0 => {
                if let Some((symbol, comparison)) =
                    COMPARISONS.iter().find(|(symbol, _)| text[at..].starts_with(symbol))
                {
                    return Some((at, symbol, *comparison));
                }
            }
            (None, _) => {}
        }
    }
    None
}

impl Comparison {
    fn holds(self, found: &Value, literal: &Value) -> bool {
        let order = match (found, literal) {
            (Value::Number(one), Value::Number(other)) => order(one, other),
            (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
            (one, other) => (one == other).then_some(Ordering::Equal),
        };
        match self {
            Self::Equal => order == Some(Ordering::Equal),
            Self::Unequal => order != Some(Ordering::Equal),
            Self::Less => order == Some(Ordering::Less),
            Self::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Self::Greater => order == Some(Ordering::Greater),
            Self::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

fn order(one: &Number, other: &Number) -> Option<Ordering> {
    let whole = |number: &Number| number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
    match (whole(one), whole(other)) {
        (Some(one), Some(other)) => Some(one.cmp(&other)),
        _ => one.as_f64()?.partial_cmp(&other.as_f64()?),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_compare_what_the_path_finds() {
        let document = json!({
            "ErrorCode": 1, "half": 0.5, "big": 18446744073709551615u64, "status": "ok", "none": null,
            "list": [1, 2, 3], "a == b": true, "nested": {"list": []},
        });
        for (rule, holds) in [
            ("$.ErrorCode == 1", true),
            ("$.ErrorCode==1.0", true),
            ("$.ErrorCode != 1", false),
            ("$.ErrorCode", true),
            ("$.Missing", false),
            ("$.Missing != 1", false),
            ("$.none == null", true),
            ("$.none", true),
            ("$.half < 1", true),
            ("$.half >= 0.5", true),
            ("$.big == 18446744073709551615", true),
            ("$.big == 18446744073709551614", false),
            ("$.status == \"ok\"", true),
            ("$.status > \"oa\"", true),
            ("$.status > 1", false),
            ("$.list[*] <= 3", true),
            ("$.list[*] < 3", false),
            ("$.list == [1, 2, 3]", true),
            ("$['a == b'] == true", true),
            ("$.list[?@ == 2] == 2", true),
            ("$.list[?@ > 3]", false),
            ("$.nested.list[*]", false),
        ] {
            assert_eq!(rule.parse::<Rule>().unwrap().holds(&document), holds, "{rule}");
        }
        let broken = "$.ErrorCode == 2".parse::<Rule>().unwrap().broken_by(&document, &str::to_owned);
        assert_eq!(broken, "$.ErrorCode == 2 does not hold: there is 1");
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for rule in ["", "ErrorCode == 1", "$.a ==", "$.a == b", "$.a == 1 2", "$.a = 1", "$.a[", "$['a == 1"] {
            assert!(rule.parse::<Rule>().is_err(), "{rule}");
        }
        let error = "$.a == one".parse::<Rule>().unwrap_err();
        assert!(error.to_string().starts_with("\"$.a == one\": behind == stands no JSON literal"), "{error}");
    }
}
