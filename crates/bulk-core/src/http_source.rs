use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::header::{CONTENT_RANGE, ETAG, IF_MATCH, LAST_MODIFIED, LOCATION, RANGE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use url::Url;

use crate::{Body, ETag, Error, Get, Source};

/// Redirects that one request follows, as browsers do.
const REDIRECTS: usize = 20;
/// How much of an error's body is read, and how much of it is shown.
const REASON_READ: usize = 8 * 1024;
const REASON_SHOWN: usize = 200;

/// One pool of HTTP/1.1 connections with the time-outs of this workspace: 10 s to connect, 30 s without a byte, no limit
/// on the whole of a body. Proxies and their exceptions come from the usual environment variables.
///
/// Redirects are followed. The caller's headers go to the host that they are meant for (same scheme, host and port) and
/// to no other, so that signatures, keys and session tokens stay there; nor does a `Referer` carry the query of a URL.
///
/// It makes one attempt for each call; [`retry`](crate::retry()) is the caller's.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: reqwest::Client,
}

impl HttpClient {
    /// Makes the pool; no connection is opened yet.
    ///
    /// # Errors
    ///
    /// [`Error::Transport`] if the TLS library or a proxy setting is unusable.
    pub fn new() -> Result<Self, Error> {
        reqwest::Client::builder()
            .user_agent(concat!("bulk/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(30))
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map(|client| Self { client })
            .map_err(|error| transport("the HTTP client", "cannot be set up", error))
    }

    /// Opens an object: sends `get` as `Range` and `If-Match` along with `headers`, and checks the answer against it
    /// (RFC 9110, sections 13.1.1 and 14).
    ///
    /// # Errors
    ///
    /// As [`Source::get`]. A status 412, a status 416, or another `ETag` than the one asked for is [`Error::Changed`].
    pub async fn get(&self, url: &Url, headers: HeaderMap, get: &Get) -> Result<Body, Error> {
        let location = redacted(url);
        let mut conditions = HeaderMap::new();
        if get.start > 0 {
            conditions.insert(RANGE, header(&format!("bytes={}-", get.start), &location)?);
        }
        if let Some(etag) = get.if_match.as_ref().filter(|etag| !etag.is_weak()) {
            conditions.insert(IF_MATCH, header(&etag.to_header(), &location)?);
        }
        let response = self.send(url, headers, conditions, &location).await?;
        let found = response.headers();
        let etag = found.get(ETAG).and_then(|value| value.to_str().ok()).map(ETag::new);
        if let (Some(expected), Some(found)) = (&get.if_match, &etag)
            && expected != found
        {
            return Err(Error::Changed { location, what: format!("its ETag was {expected} and is {found}") });
        }
        let last_modified = found.get(LAST_MODIFIED).and_then(|value| http_date(value.to_str().ok()?));
        let (start, size) = match (response.status(), found.get(CONTENT_RANGE)) {
            (StatusCode::PARTIAL_CONTENT, range) => {
                let text = range.and_then(|value| value.to_str().ok()).unwrap_or_default();
                let (start, size) =
                    content_range(text).filter(|(start, _)| *start == get.start).ok_or_else(|| Error::Protocol {
                        location: location.clone(),
                        what: format!("asked for bytes from {}, the server sent Content-Range {text:?}", get.start),
                    })?;
                (start, size)
            }
            _ => (0, response.content_length()),
        };
        let bytes = response
            .bytes_stream()
            .map(move |item| item.map_err(|error| transport(&location, "the connection broke", error)))
            .boxed();
        Ok(Body { start, size, etag, last_modified, bytes })
    }

    /// Reads a small answer (a listing page, a schema) whole.
    ///
    /// # Errors
    ///
    /// As [`HttpClient::get`], and [`Error::Protocol`] if it is longer than `limit` bytes.
    pub async fn read(&self, url: &Url, headers: HeaderMap, limit: usize) -> Result<Bytes, Error> {
        let location = redacted(url);
        let response = self.send(url, headers, HeaderMap::new(), &location).await?;
        let mut stream = response.bytes_stream();
        let mut body = Vec::new();
        while let Some(item) = stream.next().await {
            body.extend_from_slice(&item.map_err(|error| transport(&location, "the connection broke", error))?);
            if body.len() > limit {
                return Err(Error::Protocol { location, what: format!("the answer is longer than {limit} bytes") });
            }
        }
        Ok(body.into())
    }

    /// Sends `headers` along as long as no redirect leads to another host, and `conditions` in any case.
    async fn send(
        &self,
        url: &Url,
        mut headers: HeaderMap,
        conditions: HeaderMap,
        location: &str,
    ) -> Result<reqwest::Response, Error> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTS {
            let request = self.client.get(url.clone()).headers(headers.clone()).headers(conditions.clone());
            let response = request.send().await.map_err(|error| {
                let what = match () {
                    () if error.is_connect() => "cannot connect",
                    () if error.is_timeout() => "no answer in time",
                    () => "the request failed",
                };
                transport(location, what, error)
            })?;
            let Some(next) = redirect(&url, &response) else {
                return match response.status() {
                    status if status.is_success() => Ok(response),
                    status => Err(refusal(location, status, response).await),
                };
            };
            if next.origin() != url.origin() {
                headers.clear();
            }
            url = next;
        }
        Err(Error::Protocol { location: location.to_owned(), what: format!("more than {REDIRECTS} redirects") })
    }
}

/// Where the answer leads on to (RFC 9110, section 15.4), if it leads to an HTTP or HTTPS URL.
fn redirect(url: &Url, response: &reqwest::Response) -> Option<Url> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let next = url.join(response.headers().get(LOCATION)?.to_str().ok()?).ok()?;
    matches!(next.scheme(), "http" | "https").then_some(next)
}

/// Objects below one HTTP or HTTPS URL: the key is the path below it, with reserved characters percent-encoded by the
/// source.
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
    /// [`Error::Url`] if `base` is no `http` or `https` URL; [`Error::Transport`] as [`HttpClient::new`].
    pub fn new(base: &str) -> Result<Self, Error> {
        let unusable = |reason: &str| Error::Url { url: redacted_text(base), reason: reason.to_owned() };
        let mut base: Url = base.parse().map_err(|error: url::ParseError| unusable(&error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(unusable("it is not http:// or https://"));
        }
        if base.query() == Some("") {
            base.set_query(None);
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        Ok(Self { client: HttpClient::new()?, base })
    }

    fn url(&self, key: &str) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(key.split('/'));
        }
        url
    }
}

#[async_trait]
impl Source for HttpSource {
    fn location(&self, key: &str) -> String {
        redacted(&self.url(key))
    }

    async fn get(&self, get: &Get) -> Result<Body, Error> {
        self.client.get(&self.url(&get.key), HeaderMap::new(), get).await
    }
}

/// A URL as messages show it: without user, password and query, where signatures and tokens stand.
fn redacted(url: &Url) -> String {
    let mut url = url.clone();
    // A URL that cannot have them answers Err, and has none.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.to_string()
}

/// As [`redacted`], for text that is no URL.
fn redacted_text(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}{}", &text[..scheme + 3], &text[at + 1..]),
        _ => text.to_owned(),
    }
}

fn header(value: &str, location: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(value).map_err(|_| Error::Protocol {
        location: location.to_owned(),
        what: format!("its ETag {value:?} cannot be sent in a header"),
    })
}

/// The innermost cause says what happened ("connection refused"); the layers above it repeat the URL.
fn transport(location: &str, what: &'static str, error: reqwest::Error) -> Error {
    let error = error.without_url();
    let mut cause: &(dyn std::error::Error + 'static) = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Error::Transport { location: location.to_owned(), what, source: cause.to_string().into() }
}

async fn refusal(location: &str, status: StatusCode, response: reqwest::Response) -> Error {
    let location = location.to_owned();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?));
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(Ok(bytes)) = stream.next().await
        && body.len() < REASON_READ
    {
        body.extend_from_slice(&bytes);
    }
    let reason = reason(&String::from_utf8_lossy(&body));
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Error::NotFound { location },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied { location, reason },
        StatusCode::PRECONDITION_FAILED => Error::Changed { location, what: "it is not the version asked for".into() },
        StatusCode::RANGE_NOT_SATISFIABLE => Error::Changed { location, what: "it is shorter than before".into() },
        status => Error::Status { location, status: status.as_u16(), retry_after, reason },
    }
}

/// The text of an XML, HTML or plain body on one line.
fn reason(body: &str) -> Option<String> {
    let mut text = String::new();
    let mut in_tag = false;
    for char in body.chars() {
        match char {
            '<' => in_tag = true,
            '>' if in_tag => {
                in_tag = false;
                text.push(' ');
            }
            char if !in_tag => text.push(if char.is_control() { ' ' } else { char }),
            _ => {}
        }
    }
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = text.chars().take(REASON_SHOWN).collect();
    (!shown.is_empty()).then_some(shown)
}

/// `Retry-After` in seconds or as a date (RFC 9110, 10.2.3), an hour at most.
fn retry_after(text: &str) -> Option<Duration> {
    let seconds = match text.trim().parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => u64::try_from(http_date(text)?.as_second() - Timestamp::now().as_second()).unwrap_or(0),
    };
    Some(Duration::from_secs(seconds.min(3600)))
}

fn http_date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()
}

/// First byte and size of the whole, out of `bytes 5-9/10`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
    let size = match size {
        "*" => None,
        // The answer must run to the object's end, as the request does.
        size => Some(size.parse().ok().filter(|size| end.checked_add(1) == Some(*size))?),
    };
    (start <= end).then_some((start, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_range_must_be_whole_and_reach_the_end() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["bytes 5-8/10", "bytes 9-5/6", "bytes */10", "items 5-9/10", "", "bytes 5-18446744073709551615/0"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let url = Url::parse("https://user:secret@host/a%20b?X-Amz-Signature=secret").unwrap();
        assert_eq!(redacted(&url), "https://host/a%20b");
        assert_eq!(redacted_text("ftp://user:secret@host/x?token=secret"), "ftp://host/x");
        let error = HttpSource::new("ftp://user:secret@host/x").unwrap_err();
        assert_eq!(error.to_string(), "\"ftp://host/x\" is not a usable URL: it is not http:// or https://");
    }

    #[test]
    fn dates_and_waits() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT").map(|t| t.as_second()), Some(784111777));
        assert_eq!(retry_after("120"), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after("99999999"), Some(Duration::from_secs(3600)));
        assert_eq!(retry_after("soon"), None);
    }

    #[test]
    fn a_reason_is_text_on_one_line() {
        let body =
            "<?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code>\n<Message>Reduce your rate.</Message></Error>";
        assert_eq!(reason(body).as_deref(), Some("SlowDown Reduce your rate."));
        assert_eq!(reason(" \n"), None);
    }
}
