//! What must not be shown: passwords, tokens and signatures in URLs and headers.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use url::Url;

/// Shorter values are no secrets, and stand in any text.
const SHORTEST: usize = 6;

/// A URL as messages show it: without user, password and query, where signatures and tokens stand.
pub(crate) fn redacted(url: &Url) -> String {
    let mut url = url.clone();
    // A URL that cannot have them answers Err, and has none.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.to_string()
}

/// As [`redacted`], for text that is no URL.
pub(crate) fn redacted_text(text: &str) -> String {
    let is_scheme = |scheme: &str| scheme.chars().all(|char| char.is_ascii_alphanumeric() || "+-.".contains(char));
    let scheme = text.find("://").filter(|at| is_scheme(&text[..*at])).map_or("", |at| &text[..at + 3]);
    let query = text.find(['?', '#']);
    match text.rfind('@') {
        // A password with such a character, or a query with this one: nobody can tell.
        Some(at) if query.is_some_and(|query| query < at) => format!("{scheme}…"),
        Some(at) => {
            format!("{}{}", if scheme.len() <= at { scheme } else { "" }, &text[at + 1..query.unwrap_or(text.len())])
        }
        None => text[..query.unwrap_or(text.len())].to_owned(),
    }
}

/// What a request says that its answer must not be quoted with.
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    /// Those of requests with these headers for these URLs.
    pub(crate) fn of(urls: &[&Url], headers: &HeaderMap) -> Self {
        let mut secrets = Vec::new();
        for url in urls {
            secrets.extend([url.username(), url.password().unwrap_or_default()].map(str::to_owned));
            secrets.extend(url.query().map(str::to_owned));
            // As they are sent, and as they are meant.
            let raw = url.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
            secrets.extend(raw.map(|(_, value)| value.to_owned()));
            secrets.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
        }
        for (name, value) in headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            if name == AUTHORIZATION {
                // The scheme and its parameters; a key id stands before the scope that it signs for.
                let parameters =
                    value.split([' ', ',']).map(|part| part.split_once('=').map_or(part, |(_, value)| value));
                secrets.extend(
                    parameters
                        .flat_map(|value| [Some(value), value.split_once('/').map(|(id, _)| id)])
                        .flatten()
                        .map(str::to_owned),
                );
            }
            secrets.push(value.into_owned());
        }
        secrets.retain(|secret| secret.len() >= SHORTEST);
        // What holds another one goes first.
        secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets)
    }

    /// The text without them.
    pub(crate) fn hide(&self, text: String) -> String {
        self.0.iter().fold(text, |text, secret| if text.contains(secret) { text.replace(secret, "…") } else { text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_what_should_be_one_show_no_secrets() {
        let url = Url::parse("https://user:secret@host/a%20b?X-Amz-Signature=secret").unwrap();
        assert_eq!(redacted(&url), "https://host/a%20b");
        for (text, shown) in [
            ("ftp://user:secret@host/x?token=secret", "ftp://host/x"),
            ("user:secret@proxy:3128", "proxy:3128"),
            ("http://user:sec@ret@host/x#secret", "http://host/x"),
            ("http://user:sec#ret@host", "http://…"),
            ("http://user:sec?ret@host/x", "http://…"),
            ("http://host/x?mail=secret@secret", "http://…"),
            ("user:://secret@host", "host"),
            ("host/x", "host/x"),
            ("", ""),
        ] {
            assert_eq!(redacted_text(text), shown, "{text}");
        }
    }

    #[test]
    fn what_was_sent_is_hidden_in_what_comes_back() {
        let url = Url::parse("https://jane:pa%24%24word@host/x?X-Amz-Signature=abcdef99&t=a%2Bsecret&n=1").unwrap();
        let value = "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/eu-west-1/s3/aws4_request, Signature=feedbeef";
        let headers = [("authorization", value), ("x-amz-security-token", "FwoGZXIvYXdz")];
        let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let secrets = Secrets::of(&[&url], &HeaderMap::from_iter(headers));
        for secret in
            ["pa%24%24word", "abcdef99", "a%2Bsecret", "a+secret", "AKIAEXAMPLE", "feedbeef", "FwoGZXIvYXdz", value]
        {
            assert_eq!(secrets.hide(format!("in {secret}, 1")), "in …, 1", "{secret}");
        }
        let text = "the region eu-west-1 of jane is wrong";
        assert_eq!(secrets.hide(text.to_owned()), text);
    }
}
