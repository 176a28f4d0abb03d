//! Text of others, such as keys and what servers say, as a terminal or a log can show it: without what a terminal obeys.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a terminal or a reader is led astray by it: control characters (C0, DEL, C1), line and paragraph separators, and
/// what changes the direction of the text around it (Unicode Standard Annex 9, section 2).
fn is_misleading(char: char) -> bool {
    char.is_control() || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with every misleading character written as Rust writes it, such as `\u{1b}`, unless `is_kept` wants it.
fn escaped(text: &str, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_bad = |char| is_misleading(char) && !is_kept(char);
    if !text.contains(is_bad) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        match is_bad(char) {
            true => plain.extend(char.escape_default()),
            false => plain.push(char),
        }
    }
    Cow::Owned(plain)
}

/// A name within a line: no character of it ends the line or one of its columns.
pub(crate) fn name(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// Text of several lines.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |char| matches!(char, '\n' | '\t'))
}

/// A message of a log. Lines behind its first one are indented, so that none can pass for a message of its own; an empty line
/// before it may stand.
pub(crate) fn message(text: &str) -> Cow<'_, str> {
    let text = lines(text);
    let beginning = text.len() - text.trim_start_matches('\n').len();
    let is_forged = |line: &str| !line.is_empty() && !line.starts_with(' ');
    if !text[beginning..].split('\n').skip(1).any(is_forged) {
        return text;
    }
    let mut plain = text[..beginning].to_owned();
    for (place, line) in text[beginning..].split('\n').enumerate() {
        if place > 0 {
            plain.push('\n');
        }
        if place > 0 && is_forged(line) {
            plain.push_str("  ");
        }
        plain.push_str(line);
    }
    Cow::Owned(plain)
}

/// JSON, which has no such character but in strings, where it may stand escaped. What JSON does not escape by itself (DEL, C1)
/// some terminals obey, too.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    if !text.contains(is_misleading) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        match is_misleading(char) {
            // All of them are of the basic plane. Writing to a string does not fail.
            true => _ = write!(plain, "\\u{:04x}", u32::from(char)),
            false => plain.push(char),
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_shown_and_not_sent() {
        let hostile = "a\x1b[2J\x07\r\x7f\u{9b}31m\u{202e}b";
        let shown = r"a\u{1b}[2J\u{7}\r\u{7f}\u{9b}31m\u{202e}b";
        assert_eq!((name(hostile), lines(hostile), message(hostile)), (shown.into(), shown.into(), shown.into()));
        for harmless in ["", "é 雪 🎉 \"quoted\" \\", "C:\\x"] {
            assert_eq!((name(harmless), message(harmless)), (harmless.into(), harmless.into()));
        }
    }

    #[test]
    fn no_line_of_a_message_passes_for_another_message() {
        assert_eq!(message("key a\nerror: forged\n\tx\n\n  hint"), "key a\n  error: forged\n  \tx\n\n  hint");
        assert_eq!(message("\n\nour own:\n  next"), "\n\nour own:\n  next");
        assert_eq!(message("\nour own\nforged"), "\nour own\n  forged");
        assert_eq!(name("a\tb\nc"), r"a\tb\nc");
        assert_eq!(lines("a\tb\nc"), "a\tb\nc");
    }

    #[test]
    fn json_stays_json() {
        let value = serde_json::json!({"key": "a\u{1b}\u{7f}\u{9b}\u{2028}\nb"});
        let text = value.to_string();
        let plain = json(&text);
        assert_eq!(plain, r#"{"key":"a\u001b\u007f\u009b\u2028\nb"}"#);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&plain).unwrap(), value);
    }
}
