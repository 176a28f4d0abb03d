//! The names of entries: `<id>.json`, with what is not safe in a file's name escaped.

use crate::{Error, Refusal};

/// What follows the id in a name.
const SUFFIX: &str = ".json";

/// The longest name, which is the longest that common file systems have for a file.
const LONGEST: usize = 255;

/// The name of the entry with this id: the id and `.json`.
///
/// ASCII letters, digits, `-`, `_`, and `.` and `-` but for the first byte stand for themselves; every other byte of its
/// UTF-8 becomes `%` and two upper-case hexadecimal digits, as in URLs. So a name has no folder, no space, no control
/// character, does not begin with a dot or a dash, and is the same in every character set.
///
/// # Errors
/// [`Refusal::EmptyName`], and [`Refusal::NameTooLong`] where the name has more than 255 bytes. No archive takes an item
/// with such an id.
pub fn entry_name(id: &str) -> Result<String, Refusal> {
    let mut name = escaped(id, LONGEST - SUFFIX.len())?;
    name.push_str(SUFFIX);
    Ok(name)
}

/// The name of the entry with this id, as [`entry_name`] gives it.
pub(crate) fn of_id(id: &str, file: &str) -> Result<String, Error> {
    entry_name(id).map_err(|reason| Error::Refused {
        file: file.to_owned(),
        member: id.chars().take(100).collect(),
        reason,
    })
}

/// A name as part of a path, escaped as [`entry_name`] says, of at most so many bytes.
pub(crate) fn escaped(text: &str, longest: usize) -> Result<String, Refusal> {
    if text.is_empty() {
        return Err(Refusal::EmptyName);
    }
    let mut name = String::with_capacity(text.len() + SUFFIX.len());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => name.push(char::from(byte)),
            b'.' | b'-' if at > 0 => name.push(char::from(byte)),
            _ => {
                name.push('%');
                name.push(char::from(HEX[usize::from(byte >> 4)]));
                name.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
        if name.len() > longest {
            return Err(Refusal::NameTooLong);
        }
    }
    Ok(name)
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// The id of the entry with this name; none where [`of_id`] gives no such name.
pub(crate) fn to_id(name: &[u8]) -> Option<String> {
    let id = unescaped(name.strip_suffix(SUFFIX.as_bytes())?)?;
    (name.len() <= LONGEST).then_some(id)
}

/// What [`escaped`] made this of, if it did.
pub(crate) fn unescaped(name: &[u8]) -> Option<String> {
    let mut rest = name;
    let mut id = Vec::with_capacity(rest.len());
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte == b'%' {
            let (digits, after) = rest.split_first_chunk::<2>()?;
            let digit = |digit: u8| char::from(digit).to_digit(16);
            id.push(u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?);
            rest = after;
        } else {
            id.push(*byte);
        }
    }
    let id = String::from_utf8(id).ok()?;
    (escaped(&id, name.len()).ok()?.as_bytes() == name).then_some(id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names() {
        let cases = [
            ("1", "1.json"),
            ("us-v.jones_2", "us-v.jones_2.json"),
            ("..", "%2E..json"),
            ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd.json"),
            ("-rf", "%2Drf.json"),
            ("a b%", "a%20b%25.json"),
            ("é\0", "%C3%A9%00.json"),
        ];
        for (id, name) in cases {
            assert_eq!(of_id(id, "").unwrap(), name);
            assert_eq!(to_id(name.as_bytes()).unwrap(), id);
        }
    }

    #[test]
    fn what_is_no_name_is_none() {
        for name in
            ["1", ".json", "a/b.json", "../x.json", "%41.json", "%2f.json", "%.json", "%C3.json", "-.json", " .json"]
        {
            assert_eq!(to_id(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn empty_and_long_ids_are_refused() {
        let reason = |id: &str| match of_id(id, "x").unwrap_err() {
            Error::Refused { reason, .. } => reason,
            other => panic!("{other}"),
        };
        assert_eq!(reason(""), Refusal::EmptyName);
        assert_eq!(of_id(&"a".repeat(250), "x").unwrap().len(), 255);
        assert_eq!(reason(&"a".repeat(251)), Refusal::NameTooLong);
        assert_eq!(reason(&"/".repeat(84)), Refusal::NameTooLong);
    }

    proptest! {
        #[test]
        fn a_name_leads_back_to_its_id(id in "\\PC{1,20}|[ -~\0\n]{1,40}") {
            let name = of_id(&id, "").unwrap();
            prop_assert!(!name.starts_with(['.', '-']) && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/'));
            prop_assert_eq!(to_id(name.as_bytes()), Some(id));
        }
    }
}
