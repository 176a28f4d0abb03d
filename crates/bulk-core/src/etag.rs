use std::fmt;

use serde::{Deserialize, Serialize};

/// An entity tag: opaque text that changes with the object (RFC 9110, section 8.8.3).
///
/// Surrounding quotes are stripped, so tags from S3 listings (with or without quotes), response headers and databases
/// compare equal. Nothing else is read into it: it need not be an MD5.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ETag(String);

impl ETag {
    /// Takes a tag as a header, a listing or a table holds it.
    pub fn new(text: impl AsRef<str>) -> Self {
        let text = text.as_ref().trim();
        Self(text.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(text).to_owned())
    }

    /// The tag without quotes. A weak tag keeps its `W/"…"` form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the tag promises only semantic equality. `If-Match` never matches such a tag (RFC 9110, 13.1.1).
    pub fn is_weak(&self) -> bool {
        self.0.starts_with("W/")
    }

    /// The tag as a header value: quoted unless weak.
    pub fn to_header(&self) -> String {
        if self.is_weak() { self.0.clone() } else { format!("\"{}\"", self.0) }
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::ETag;

    #[test]
    fn quotes_are_not_part_of_the_tag() {
        assert_eq!(ETag::new("\"abc-3\""), ETag::new("abc-3"));
        assert_eq!(ETag::new("\"abc-3\"").to_header(), "\"abc-3\"");
        assert_eq!(ETag::new("\"").as_str(), "\"");
        assert_eq!(ETag::new("W/\"x\"").to_header(), "W/\"x\"");
        assert!(ETag::new("W/\"x\"").is_weak());
    }
}
