//! What a request line names: bucket, key, query.

use http::Uri;
use percent_encoding::percent_decode_str;

/// The parts of a path-style URL, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Empty for the root.
    pub(super) bucket: String,
    /// All that follows the slash behind the bucket, to the letter: `a//b`, `../a` and `+` are what they say. `None`
    /// if nothing follows.
    pub(super) key: Option<String>,
    pub(super) query: Vec<(String, String)>,
}

impl Target {
    /// `None` if what is decoded is no UTF-8.
    pub(super) fn parse(uri: &Uri) -> Option<Self> {
        let path = uri.path().strip_prefix('/').unwrap_or(uri.path());
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let key = decode(key)?;
        let query = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode_form(name)?, decode_form(value)?))
        });
        Some(Self {
            bucket: decode(bucket)?,
            key: if key.is_empty() { None } else { Some(key) },
            query: query.collect::<Option<_>>()?,
        })
    }

    /// The first value of this parameter.
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

fn decode(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

/// In a query, and only there, `+` is a space.
fn decode_form(text: &str) -> Option<String> {
    decode(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::Target;

    fn parse(uri: &str) -> Option<Target> {
        Target::parse(&uri.parse().expect("a URI"))
    }

    #[test]
    fn keys_are_taken_to_the_letter() {
        for (uri, bucket, key) in [
            ("/", "", None),
            ("/b", "b", None),
            ("/b/", "b", None),
            ("/b/k", "b", Some("k")),
            ("/b//k", "b", Some("/k")),
            ("/b/a//b", "b", Some("a//b")),
            ("/b/../a/./b/", "b", Some("../a/./b/")),
            ("/b/a+b%2B%20%25%2f", "b", Some("a+b+ %/")),
            ("/b/%C3%A9%00", "b", Some("é\0")),
        ] {
            let target = parse(uri).expect("UTF-8");
            assert_eq!((target.bucket.as_str(), target.key.as_deref()), (bucket, key), "{uri}");
        }
        assert_eq!(parse("/b/%ff"), None);
    }

    #[test]
    fn a_plus_in_a_query_is_a_space() {
        let target = parse("/b?prefix=a+b%2B&acl&x=1=2").expect("UTF-8");
        let pairs: Vec<_> = target.query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("prefix", "a b+"), ("acl", ""), ("x", "1=2")]);
        assert_eq!(target.param("acl"), Some(""));
        assert_eq!(target.param("uploads"), None);
    }
}
