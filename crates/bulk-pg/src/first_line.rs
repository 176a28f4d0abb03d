//! What the first line of a file tells that does not read as CSV, or not as that of its table.

use crate::buffer::BYTE_ORDER_MARK;
use crate::{Dialect, Error, Quoting, RecordOptions, Records, Undetected};

/// The error for a file that no dialect reads, with the way out if one is known.
pub(crate) fn undetected(file: &str, source: Undetected, advice: Option<String>) -> Error {
    let file = file.to_owned();
    match advice {
        Some(advice) => Error::Columns { file, what: format!("it is no CSV of this kind: {advice} ({source})") },
        None => Error::Undetected { file, source },
    }
}

/// How to read the file that begins with `sample`, if it looks like another format, or has names of columns between other
/// delimiters than commas. Where no columns are known, any names are such, if there is no comma.
pub(crate) fn advice<'c>(sample: &[u8], columns: impl Iterator<Item = &'c str> + Clone) -> Option<String> {
    let sample = sample.strip_prefix(BYTE_ORDER_MARK).unwrap_or(sample);
    let line = sample.trim_ascii_start().split(|byte| matches!(byte, b'\n' | b'\r')).next()?;
    if line.starts_with(b"{") {
        return Some("its first line looks like JSON, which --format ndjson reads".to_owned());
    }
    let line = String::from_utf8_lossy(line);
    let is_column = |name: &str| {
        let name = name.trim().trim_matches('"');
        columns.clone().any(|column| column.eq_ignore_ascii_case(name))
    };
    let is_any = columns.clone().next().is_none() && !line.contains(',');
    let between = |delimiter: char| {
        line.contains(delimiter)
            && (line.split(delimiter).any(is_column) || (is_any && reads_as_several(sample, delimiter)))
    };
    DELIMITERS.into_iter().find_map(|(delimiter, flag, name)| {
        between(delimiter)
            .then(|| format!("its first line has {name} between the names, which --delimiter {flag} reads"))
    })
}

/// What a header of this one column is, if it looks like several between other delimiters than commas.
pub(crate) fn joined(name: &str) -> Option<String> {
    let (_, flag, between) = DELIMITERS.into_iter().find(|(delimiter, ..)| name.contains(*delimiter))?;
    Some(format!(
        "its header is one column, {name:?}; if there is {between} between several, --delimiter {flag} reads them"
    ))
}

/// What stands between values now and then, how the program is told so, and what it is called.
const DELIMITERS: [(char, &str, &str); 3] =
    [(';', "';'", "a semicolon"), ('\t', "tab", "a tab"), ('|', "'|'", "a bar")];

/// Whether the first record has as many values between such delimiters as the header has names, and more than one.
fn reads_as_several(sample: &[u8], delimiter: char) -> bool {
    let Ok(delimiter) = u8::try_from(delimiter) else { return false };
    let Ok(dialect) = Dialect::new(delimiter, b'"', b'"', Quoting::AsNeeded) else { return false };
    let Ok(mut records) = Records::new(sample, dialect, RecordOptions::default()) else { return false };
    let names = records.header().names().len();
    names > 1 && matches!(records.next_record(), Ok(Some(record)) if record.fields().count() == names)
}

#[cfg(test)]
mod tests {
    use super::advice;

    #[test]
    fn what_the_first_line_looks_like_is_told() {
        let json = Some("its first line looks like JSON, which --format ndjson reads");
        let semicolon = Some("its first line has a semicolon between the names, which --delimiter ';' reads");
        let tab = Some("its first line has a tab between the names, which --delimiter tab reads");
        let bar = Some("its first line has a bar between the names, which --delimiter '|' reads");
        for (sample, said) in [
            ("{\"id\": 1}\n", json),
            ("\u{feff} \n{\"id\": 1, \"name\": \"a;b\"}", json),
            ("id;name\n1;a\n", semicolon),
            ("\u{feff}\"ID\"; \"text\"\r1;a\r", semicolon),
            ("other\tname\r\n", tab),
            ("id|x\n", bar),
            ("x;y\n", None),
            ("id,name\n1;a\n", None),
            ("[1]\n", None),
            ("id\n", None),
            ("", None),
        ] {
            assert_eq!(advice(sample.as_bytes(), ["id", "name"].into_iter()).as_deref(), said, "{sample}");
        }
        for (sample, said) in [
            ("x;y\n1;\"2\"\n", semicolon),
            ("x\ty\n1\t2\n", tab),
            ("x;y,z\n1;2,3\n", None),
            ("<p>a; b</p>\n<p>c</p>\n", None),
            ("x\n1\n", None),
            ("[1]", None),
        ] {
            assert_eq!(advice(sample.as_bytes(), std::iter::empty()).as_deref(), said, "{sample}");
        }
    }
}
