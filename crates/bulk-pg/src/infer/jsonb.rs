//! What jsonb holds (PostgreSQL manual, "JSON Types").

use serde_json::Value;

/// The server keeps numbers as numeric, whose limits are far beyond these.
const MAX_DIGITS: usize = 1000;
const MAX_EXPONENT_DIGITS: usize = 3;

/// Whether it is an object or an array that jsonb holds: JSON without NUL characters, halves of surrogate pairs, or
/// numbers that are out of all measure.
pub(super) fn is_container(text: &[u8]) -> bool {
    is_within_limits(text)
        && serde_json::from_slice(text).is_ok_and(|value: Value| value.is_object() || value.is_array())
}

/// Looks at what a JSON parser lets pass. What is no JSON it may take for whatever it likes.
fn is_within_limits(text: &[u8]) -> bool {
    let mut rest = text;
    let mut digits = 0;
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'"' => match string(rest) {
                Some(after) => rest = after,
                None => return false,
            },
            b'0'..=b'9' => digits += 1,
            b'e' | b'E' if digits > 0 => {
                let exponent = rest.strip_prefix(b"-").or(rest.strip_prefix(b"+")).unwrap_or(rest);
                let count = exponent.iter().take_while(|byte| byte.is_ascii_digit()).count();
                if count > MAX_EXPONENT_DIGITS {
                    return false;
                }
                rest = &exponent[count..];
                digits = 0;
            }
            b'.' => {}
            _ => digits = 0,
        }
        if digits > MAX_DIGITS {
            return false;
        }
    }
    true
}

/// What follows a string whose first quote has been read, if it ends and has no NUL character.
fn string(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let at = memchr::memchr2(b'"', b'\\', rest)?;
        match &rest[at..] {
            [b'\\', b'u', b'0', b'0', b'0', b'0', ..] => return None,
            [b'\\', _, after @ ..] => rest = after,
            [b'"', after @ ..] => return Some(after),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_container;

    #[test]
    fn what_the_server_refuses_is_no_container() {
        for good in ["{}", "[]", r#"{"a":"\"\\u0000 \ud83d\ude00","e1000":[1.5e-300,-0,true,null]}"#, "[[1],{}]\n"] {
            assert!(is_container(good.as_bytes()), "{good}");
        }
        let (long, deep) = (format!("[{}]", "1".repeat(1001)), format!("{}{}", "[".repeat(5000), "]".repeat(5000)));
        let bad = ["1", "\"x\"", "null", "", "{", "[1,]", r#"["\u0000"]"#, r#"["\ud800"]"#, "[1e-100000]", "[1e9999]"];
        for bad in bad.into_iter().chain([long.as_str(), &deep, "[\"a\nb\"]", "[01]"]) {
            assert!(!is_container(bad.as_bytes()), "{bad}");
        }
    }
}
