use async_trait::async_trait;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use crate::redaction::{redacted, redacted_text};
use crate::{Algorithm, Body, Digest, Error, Get, HttpClient, Source};

/// What stands unescaped in a path: `pchar` of RFC 3986, section 3.3, and `/`, but not `+`, which many servers take for a
/// space.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@')
    .remove(b'/');

/// Objects below one HTTP or HTTPS URL: the key is the path below it, as it is before it is percent-encoded, which the
/// source does.
///
/// An answer that is coded (`Content-Encoding`, RFC 9110, section 8.4) although `identity` was asked for is
/// [`Error::Protocol`]: what a server compresses on the fly has other bytes than the file, and not always the same. The
/// exception is a coding that the key's extension names, such as `gzip` of `a.tar.gz`: servers say so of files that they
/// send as they are.
#[derive(Clone, Debug)]
pub struct HttpSource {
    client: HttpClient,
    base: Url,
}

impl HttpSource {
    /// A source of the objects below `base`; a missing `/` at its path's end is added. A query of `base`, such as a
    /// signature, goes with every request, and is never shown.
    ///
    /// # Errors
    ///
    /// [`Error::Url`] if `base` is no `http` or `https` URL; else as [`HttpClient::new`].
    pub fn new(base: &str) -> Result<Self, Error> {
        Self::with_client(base, HttpClient::new()?)
    }

    /// As [`HttpSource::new`], over connections of one's own, such as ones with other
    /// [`HttpOptions`](crate::HttpOptions).
    ///
    /// # Errors
    ///
    /// [`Error::Url`] if `base` is no `http` or `https` URL.
    pub fn with_client(base: &str, client: HttpClient) -> Result<Self, Error> {
        let unusable = |reason: &str| Error::Url { url: redacted_text(base), reason: reason.to_owned() };
        let mut base: Url = base.parse().map_err(|error: url::ParseError| unusable(&error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(unusable("it is not http:// or https://"));
        }
        if base.query() == Some("") {
            base.set_query(None);
        }
        base.set_fragment(None);
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        Ok(Self { client, base })
    }

    /// The URL of `key`; false if it is another one, because every URL library resolves `.` and `..` segments.
    fn url(&self, key: &str) -> (Url, bool) {
        let mut url = self.base.clone();
        let path = format!("{}{}", self.base.path(), utf8_percent_encode(key, PATH));
        url.set_path(&path);
        let is_exact = url.path() == path;
        (url, is_exact)
    }
}

#[async_trait]
impl Source for HttpSource {
    fn location(&self, key: &str) -> String {
        redacted(&self.url(key).0)
    }

    /// With a digest of the query, but for what signs it.
    fn identity(&self, key: &str) -> String {
        let url = self.url(key).0;
        match unsigned_query(&url) {
            query if query.is_empty() => redacted(&url),
            query => format!("{}?{}", redacted(&url), Digest::of(Algorithm::Sha256, query.as_bytes())),
        }
    }

    async fn get(&self, get: &Get) -> Result<Body, Error> {
        let (url, is_exact) = self.url(&get.key);
        if !is_exact {
            let reason = "a key with a . or .. segment cannot stand in a URL".to_owned();
            return Err(Error::Url { url: get.key.clone(), reason });
        }
        let (headers, body) = self.client.get(&url, HeaderMap::new(), get).await?;
        match foreign_coding(&headers, &get.key) {
            Some(coding) => Err(Error::Protocol {
                location: redacted(&url),
                what: format!("asked for the bytes as they are, the server sent them as {coding}"),
            }),
            None => Ok(body),
        }
    }
}

/// The query without the parameters that grant access for a time, as Amazon S3 (signature versions 4 and 2), Google Cloud
/// Storage, CloudFront and Azure's shared access signatures have them: they differ each time a URL is signed.
fn unsigned_query(url: &Url) -> String {
    const SIGNING: [&str; 7] =
        ["signature", "expires", "awsaccesskeyid", "googleaccessid", "key-pair-id", "policy", "sig"];
    // What a shared access signature signs; short names, which mean something else without it.
    const WITH_SIG: [&str; 9] = ["sv", "ss", "srt", "sr", "sp", "se", "st", "spr", "sip"];
    let parts = || url.query().unwrap_or_default().split('&').filter(|part| !part.is_empty());
    let name = |part: &str| part.split('=').next().unwrap_or_default().to_ascii_lowercase();
    let has_sig = parts().any(|part| name(part) == "sig");
    let is_lasting = |part: &&str| {
        let name = name(part);
        !(SIGNING.contains(&name.as_str())
            || ["x-amz-", "x-goog-"].iter().any(|prefix| name.starts_with(prefix))
            || has_sig && (WITH_SIG.contains(&name.as_str()) || name.starts_with("sk")))
    };
    parts().filter(is_lasting).collect::<Vec<_>>().join("&")
}

/// A content coding that is not the file's own, if there is one.
fn foreign_coding(headers: &HeaderMap, key: &str) -> Option<String> {
    let own: &[&str] = match key.rsplit('.').next().unwrap_or_default().to_ascii_lowercase().as_str() {
        "gz" | "tgz" => &["gzip", "x-gzip"],
        "z" | "taz" => &["compress", "x-compress"],
        "bz2" | "tbz2" | "tbz" => &["bzip2", "x-bzip2"],
        "xz" | "txz" => &["xz", "x-xz"],
        "br" => &["br"],
        "zst" | "tzst" => &["zstd"],
        _ => &[],
    };
    let codings = headers.get_all(CONTENT_ENCODING).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let codings: Vec<_> = codings
        .flat_map(|value| value.split(',').map(|coding| coding.trim().to_ascii_lowercase()).collect::<Vec<_>>())
        .filter(|coding| !matches!(coding.as_str(), "" | "identity"))
        .collect();
    match &codings[..] {
        [] => None,
        [coding] if own.contains(&coding.as_str()) => None,
        codings => Some(codings.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let error = HttpSource::new("ftp://user:secret@host/x").unwrap_err();
        assert_eq!(error.to_string(), "\"ftp://host/x\" is not a usable URL: it is not http:// or https://");
        let source = HttpSource::new("https://user:secret@host/x?X-Amz-Signature=secret#secret").unwrap();
        assert_eq!(source.location("a b"), "https://host/x/a%20b");
    }

    #[test]
    fn the_query_tells_objects_apart_and_its_signature_does_not() {
        let identity =
            |query: &str| HttpSource::new(&format!("https://u:secret@host/x?{query}")).unwrap().identity("a");
        assert_eq!(identity(""), "https://host/x/a");
        let one = identity("id=1");
        // printf %s 'id=1' | sha256sum
        let digest = "d9fc91d45c096b5e27dc6304d8015dc5cb0a959cd078ca25fafcf2333087728e";
        assert_eq!(one, format!("https://host/x/a?sha256:{digest}"));
        assert_ne!(one, identity("id=2"));
        for signed in [
            "id=1&X-Amz-Date=20260101T000000Z&X-Amz-Signature=secret",
            "X-Goog-Expires=1&id=1&x-goog-signature=secret",
            "id=1&Expires=1&Signature=secret&Key-Pair-Id=secret",
            "sv=2022&se=1&sp=r&id=1&sig=secret",
        ] {
            assert_eq!(identity(signed), one, "{signed}");
        }
        assert_ne!(identity("id=1&se=1"), one);
    }

    #[test]
    fn keys_are_escaped_once_and_never_resolved() {
        let source = HttpSource::new("http://host/base%20path?q=1").unwrap();
        let keys = [
            ("a/b", "a/b"),
            ("a//b", "a//b"),
            ("a b+c", "a%20b%2Bc"),
            ("100%/%2F", "100%25/%252F"),
            ("a?b#c", "a%3Fb%23c"),
            ("tab\there", "tab%09here"),
            ("é", "%C3%A9"),
            ("back\\slash", "back%5Cslash"),
            ("k=v;w,x@y:z", "k=v;w,x@y:z"),
        ];
        for (key, path) in keys {
            let (url, is_exact) = source.url(key);
            assert_eq!(
                (url.as_str(), is_exact),
                (format!("http://host/base%20path/{path}?q=1").as_str(), true),
                "{key}"
            );
        }
        for key in ["..", "a/../b", "a/.", "./a"] {
            assert!(!source.url(key).1, "{key}");
        }
    }

    #[test]
    fn a_coding_is_foreign_unless_the_key_names_it() {
        let coded = |value: &'static str, key| {
            foreign_coding(&HeaderMap::from_iter([(CONTENT_ENCODING, value.parse().unwrap())]), key)
        };
        assert_eq!(foreign_coding(&HeaderMap::new(), "a.csv"), None);
        assert_eq!(coded("Identity", "a.csv"), None);
        assert_eq!(coded("", "a.csv"), None);
        assert_eq!(coded("GZIP", "a.csv").as_deref(), Some("gzip"));
        assert_eq!(coded("gzip", "a.csv.bz2").as_deref(), Some("gzip"));
        assert_eq!(coded("x-gzip", "a.tar.gz"), None);
        assert_eq!(coded("bzip2", "a.csv.BZ2"), None);
        assert_eq!(coded("gzip, gzip", "a.tar.gz").as_deref(), Some("gzip, gzip"));
    }
}
