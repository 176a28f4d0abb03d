//! Where a column's values come from.

use serde_json_path::JsonPath;

use crate::counted::counted;

/// In what a path looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Input,
    /// The element that the path of this number, from 1, has found; 0 is the response.
    Element(usize),
    /// Its name or place.
    Key(usize),
}

/// How many values a path may find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    One,
    /// Any number, as an array.
    All,
}

/// Reads a source; `levels` paths lead to its element. `None` in place of a path is all of it.
pub(super) fn parse(source: &str, levels: usize) -> Result<(Origin, Take, Option<JsonPath>), String> {
    let (inner, take) = match source.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => (inner, Take::All),
        None => (source, Take::One),
    };
    let end = inner.find(['.', '[']).unwrap_or(inner.len());
    let (origin, segments) = inner.split_at(end);
    let origin = match origin {
        "input" => Origin::Input,
        "response" => Origin::Element(0),
        _ => match (origin.strip_prefix('$'), origin.strip_prefix("key")) {
            (Some(number), _) => Origin::Element(level(number, levels)?),
            (None, Some(_)) if !segments.is_empty() || take == Take::All => {
                return Err("a key has no parts, and is one".to_owned());
            }
            (None, Some(_)) if levels == 0 => {
                return Err("there is no path to elements, so the response is the element, and has no key".to_owned());
            }
            (None, Some(number)) => Origin::Key(level(number, levels)?),
            (None, None) => {
                return Err("it begins with none of $, $1, response, input, key and key1".to_owned());
            }
        },
    };
    if segments.is_empty() {
        return Ok((origin, take, None));
    }
    let path = JsonPath::parse(&format!("${segments}")).map_err(|error| error.to_string())?;
    Ok((origin, take, Some(path)))
}

/// The member that the path of a source that can be read begins with, if it is one member (RFC 9535, 2.5.1.1 and 2.3.1.1). A name
/// with an escape is not read.
pub(super) fn first_member(source: &str) -> Option<String> {
    let inner = source.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(source);
    let segments = &inner[inner.find(['.', '['])?..];
    let name = match segments.strip_prefix('.') {
        Some(rest) => {
            &rest[..rest.find(|c: char| c.is_ascii() && c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(rest.len())]
        }
        None => {
            let rest = segments.strip_prefix('[')?.trim_start();
            let quote = rest.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
            let (name, rest) = rest[1..].split_once(quote)?;
            rest.trim_start().strip_prefix(']')?;
            name
        }
    };
    (!name.is_empty() && !name.contains('\\')).then(|| name.to_owned())
}

/// The level of a number, from 1; the last one without a number.
fn level(number: &str, levels: usize) -> Result<usize, String> {
    if number.is_empty() {
        return Ok(levels);
    }
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
    match number.parse() {
        Ok(level) if is_plain && level <= levels => Ok(level),
        Ok(_) if is_plain => Err(format!("only {} to elements", counted(levels, "path leads", "paths lead"))),
        _ => Err(format!("{number:?} is no number of a path to elements")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_member_that_a_path_begins_with() {
        let members = [
            ("input.id", "id"),
            ("input.a_1.b", "a_1"),
            ("input['a b'].c", "a b"),
            ("input[ \"é\" ]", "é"),
            ("input.é[0]", "é"),
            ("[input.ids[*]]", "ids"),
        ];
        for (source, member) in members {
            assert!(parse(source, 0).is_ok(), "{source}");
            assert_eq!(first_member(source).as_deref(), Some(member), "{source}");
        }
        for source in ["input", "input.*", "input..id", "input[0]", "input[*].id", "input['a', 'b']", "input['a\\'b']"]
        {
            assert_eq!(first_member(source), None, "{source}");
        }
    }
}
