//! In which format a file is, and what the ledger keeps of how it was read.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::encode::reads_alike;
use crate::error::ANEW;
use crate::ledger::Load;
use crate::{Error, LoadOptions};

/// In which format [`load`](crate::load()) reads a file.
///
/// They parse from, and print as, `csv`, `ndjson`, `text` and `binary`.
///
/// ```
/// use bulk_pg::InputFormat;
///
/// assert_eq!("text".parse(), Ok(InputFormat::CopyText));
/// assert_eq!(InputFormat::Ndjson.to_string(), "ndjson");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InputFormat {
    /// CSV of any [`Dialect`](crate::Dialect). The first line has the columns' names, unless
    /// [`LoadOptions::header`](crate::LoadOptions::header) does.
    #[default]
    Csv,
    /// A JSON object (RFC 8259) a line; blank lines are passed over. Keys are the columns' names.
    ///
    /// Loaded are the columns of the table that are keys in the first MiB, or are named by
    /// [`LoadOptions::header`](crate::LoadOptions::header), or may not be NULL and have no default; others are left to
    /// their defaults. A record with a key that is one of those others is bad, so that nothing is lost. Keys that are no
    /// columns are not loaded, or go where [`LoadOptions::rest`](crate::LoadOptions::rest) says. Of equal keys the last
    /// one counts.
    ///
    /// null, and a key that is missing, is NULL. Columns of json and jsonb get each value as it stands in the file. For
    /// others a string is its text, in which no NUL and no lone surrogate may be; an array is an array literal for a
    /// column of an array type; and whatever else is its text as it stands in the file.
    Ndjson,
    /// COPY's text format (PostgreSQL manual, COPY, "Text Format"), with its default delimiter and `\N` for NULL, as
    /// `COPY … TO` and `pg_dump` write it. There is no header: the columns are the table's without its generated ones, in
    /// its order, or [`LoadOptions::header`](crate::LoadOptions::header).
    ///
    /// Lines end as the first one does. `\.` on a line of its own ends the data. Where the server would go on without a
    /// word, two things are errors: data behind that line, and a file that ends in the midst of an escape.
    CopyText,
    /// COPY's binary format (PostgreSQL manual, COPY, "Binary Format"), without object identifiers. Columns are those of
    /// [`CopyText`](Self::CopyText). Values go to the server as they are, which refuses those that its types cannot have;
    /// but as with COPY itself, nobody can tell that a value was of another type if its bytes fit the column's.
    ///
    /// Without the trailer the file is cut off, which is an error.
    CopyBinary,
}

/// A format's name that is none of csv, ndjson, text and binary.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown format {name:?}: it is one of csv, ndjson, text, binary")]
pub struct UnknownInputFormat {
    name: String,
}

impl InputFormat {
    fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
            Self::CopyText => "text",
            Self::CopyBinary => "binary",
        }
    }
}

impl FromStr for InputFormat {
    type Err = UnknownInputFormat;

    /// Reads `csv`, `ndjson`, `text` or `binary`.
    fn from_str(name: &str) -> Result<Self, UnknownInputFormat> {
        let all = [Self::Csv, Self::Ndjson, Self::CopyText, Self::CopyBinary];
        all.into_iter().find(|format| format.name() == name).ok_or_else(|| UnknownInputFormat { name: name.to_owned() })
    }
}

impl fmt::Display for InputFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The statement that gives an older ledger the column.
pub(crate) const COLUMN: &str = "
    ALTER TABLE bulk.load ADD COLUMN IF NOT EXISTS format text;
    COMMENT ON COLUMN bulk.load.format IS 'How the file is read: its format, and the names of columns that were given for it. NULL is csv.';";

/// How a file is read, but for its dialect, as the ledger keeps it: two ways with the same text give the same rows.
pub(crate) fn reading(options: &LoadOptions) -> String {
    let mut text = options.input_format.to_string();
    if let Some(header) = &options.header {
        text += &format!(", header {}", serde_json::json!(header));
    }
    if let Some(rest) = options.rest.as_ref().filter(|_| options.input_format == InputFormat::Ndjson) {
        text += &format!(", rest {}", serde_json::json!(rest));
    }
    text
}

/// How a load has read its file, as [`reading`] says it.
fn reading_of(load: &Load) -> &str {
    load.format.as_deref().unwrap_or(InputFormat::Csv.name())
}

/// Whether a load has read its file as the options have it, but for the dialect, which the file tells.
pub(crate) fn is_read_alike(load: &Load, options: &LoadOptions) -> bool {
    reading_of(load) == reading(options)
}

/// Whether a load that is whole is what the options ask for, or one that is not can go on by them: then a dialect that is
/// asked for must read what is missing as the rest was read.
pub(crate) fn can_go_on(load: &Load, options: &LoadOptions) -> bool {
    let dialects = options.dialect.zip(load.dialect).filter(|_| load.finished.is_none());
    is_read_alike(load, options) && dialects.is_none_or(|(asked, known)| reads_alike(asked, known))
}

/// Says of a file with rows in the table that it is to be read in another way than before.
pub(crate) fn not_read_alike(load: &Load, options: &LoadOptions) -> Error {
    let (before, now) = (reading_of(load), reading(options));
    let part = if load.finished.is_some() { "it" } else { "a part of it" };
    let what = format!("{part} is loaded as {before}, and it is now to be read as {now}; read it as before, or {ANEW}");
    Error::Columns { file: load.file.key.clone(), what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_of_reading_is_one_text() {
        let mut options = LoadOptions::default();
        assert_eq!(reading(&options), "csv");
        options.header = Some(vec!["a".to_owned(), "b, \"c\"".to_owned()]);
        assert_eq!(reading(&options), r#"csv, header ["a","b, \"c\""]"#);
        (options.header, options.rest) = (None, Some("more".to_owned()));
        assert_eq!(reading(&options), "csv");
        options.input_format = InputFormat::Ndjson;
        assert_eq!(reading(&options), r#"ndjson, rest "more""#);
    }

    #[test]
    fn a_format_is_named() {
        assert_eq!("binary".parse(), Ok(InputFormat::CopyBinary));
        let error = "json".parse::<InputFormat>().unwrap_err();
        assert_eq!(error.to_string(), "unknown format \"json\": it is one of csv, ndjson, text, binary");
    }
}
