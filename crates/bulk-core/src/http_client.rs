use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH, LAST_MODIFIED,
    LOCATION, RANGE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use tokio::time::Instant;
use url::{Host, Url};

use crate::counted::counted;
use crate::redaction::{redacted, redacted_text};
#[cfg(feature = "crawl")]
use crate::refusal::refusal_with_text;
use crate::refusal::{element, error_text, refusal};
use crate::{Body, Digest, ETag, Error, Get, HttpOptions, Proxy};

/// What is said where nothing was sent.
pub(crate) const CANNOT_CONNECT: &str = "cannot connect";

/// Redirects that one request follows, as browsers do.
const REDIRECTS: usize = 20;

/// One pool of HTTP/1.1 connections under one set of [`HttpOptions`]. Clones share it.
///
/// Redirects are followed. The caller's headers go to the host that they are meant for (same scheme, host and port) and
/// to no other, so that signatures, keys and session tokens stay there; nor does a `Referer` carry the query of a URL.
/// [`Error::Protocol`] is one that leads from `https` to `http`, and one that leads from elsewhere to this machine
/// (`localhost`, loopback and unspecified addresses) or to a link-local address, where clouds have the credentials of a
/// machine. What a name resolves to is not looked at.
///
/// A wait for bytes has a limit ([`HttpOptions::read_timeout`]), and so have many of them: where 5 minutes of waiting bring
/// less than 4 KiB, the answer ends in an [`Error::Transport`].
///
/// It makes one attempt for each call; [`retry`](crate::retry()) is the caller's.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: reqwest::Client,
    writer: Arc<Writer>,
}

/// The connections of requests with a body. Where a wait for bytes has a limit, reqwest counts the time in which a request is
/// sent as a part of it, and a slow line may need longer for one; so these have none, and each request its own.
#[derive(Debug)]
struct Writer {
    options: HttpOptions,
    /// Made with the first request: few programs write.
    client: OnceLock<reqwest::Client>,
}

/// How slow a line may be over which a request's body is sent, in bytes a second.
const SLOWEST_UPLOAD: u64 = 32 * 1024;
/// How many bytes must come at least in so much time: a server that sends one now and then holds nobody for good.
const SLOWEST_DOWNLOAD: usize = 4096;
const SLOWEST_OVER: Duration = Duration::from_secs(300);
/// How long the answer to a request with a body may be.
const SMALL_ANSWER: usize = 64 * 1024;
/// By how much the memory of an answer grows at least that does not say how long it is.
#[cfg(feature = "crawl")]
const LEAST_GROWTH: usize = 16 * 1024;

impl HttpClient {
    /// Makes the pool with the default options; no connection is opened yet.
    ///
    /// # Errors
    ///
    /// As [`HttpClient::with_options`].
    pub fn new() -> Result<Self, Error> {
        Self::with_options(&HttpOptions::default())
    }

    /// Makes the pool; no connection is opened yet. Certificates are read now, in calls that block.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if a file of certificates cannot be read or holds none, [`Error::Url`] if the proxy's URL is
    /// unusable, [`Error::Transport`] if the TLS library is, or if the system has no roots.
    pub fn with_options(options: &HttpOptions) -> Result<Self, Error> {
        let writer = Writer { options: options.clone(), client: OnceLock::new() };
        let client = build(builder(options)?.read_timeout(options.read_timeout))?;
        Ok(Self { client, writer: Arc::new(writer) })
    }

    /// Opens an object: sends `get` as `Range` and `If-Match` along with `headers`, and checks the answer against it.
    /// Gives the answer's headers, for what a protocol above HTTP says in them, and the body.
    ///
    /// | asked | answer | taken for |
    /// |---|---|---|
    /// | a range | 206 | that range, if `Content-Range` says so exactly (RFC 9110, section 14.4) and `Content-Length` agrees |
    /// | a range | 200 | the whole object: the server gives no ranges (section 14.2) |
    /// | a range | 200 | that range, if `Content-Range`, with the object's size, and `Content-Length` both say so exactly: some servers send the range that was asked for under this status, against section 14.4 |
    /// | a range from 0 | 416 of 0 bytes | an empty object: no range of it can be satisfied (section 14.1.2) |
    /// | the whole | 200 | the whole object; whether it has ranges says `Accept-Ranges` (section 14.3) |
    ///
    /// [`Body::digests`] are the SHA-256 in `Repr-Digest` (RFC 9530, section 3), which is of the whole object also beside
    /// a range, and, in answers that are whole, `Content-MD5` (RFC 1864). If [`Body::end`] is known, the bytes are
    /// exactly as many, or end in an error.
    ///
    /// Every request says `Accept-Encoding: identity`. Whether the bytes are coded nonetheless is for the caller to read
    /// in `Content-Encoding`: a server compresses on the fly, or states a property of the object as it is stored.
    ///
    /// # Errors
    ///
    /// As [`Source::get`](crate::Source::get). A status 412, a status 416, and another `ETag` than the one asked for or
    /// none are [`Error::Changed`]. Any other answer than those above is [`Error::Protocol`] if it is a success, such as
    /// `multipart/byteranges`, or a 206 to a request without a range.
    pub async fn get(&self, url: &Url, headers: HeaderMap, get: &Get) -> Result<(HeaderMap, Body), Error> {
        let location = redacted(url);
        let protocol = |what: String| Error::Protocol { location: location.clone(), what };
        let changed = |what: String| Error::Changed { location: location.clone(), what };
        let mut conditions = HeaderMap::new();
        conditions.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let range = match get.end {
            Some(end) if end <= get.start => return Err(protocol("the range asked for is empty".to_owned())),
            Some(end) => Some(format!("bytes={}-{}", get.start, end - 1)),
            None if get.start > 0 => Some(format!("bytes={}-", get.start)),
            None => None,
        };
        if let Some(range) = &range {
            conditions.insert(RANGE, header(range, &location)?);
        }
        if let Some(etag) = get.if_match.as_ref().filter(|etag| !etag.is_weak()) {
            conditions.insert(IF_MATCH, header(&etag.to_header(), &location)?);
        }
        let mut response = self.send(Method::GET, url, headers.clone(), conditions, &location).await?;
        let status = response.status();
        let length = response.content_length();
        let found = std::mem::take(response.headers_mut());
        let is_empty = match status {
            StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION | StatusCode::PARTIAL_CONTENT => false,
            StatusCode::RANGE_NOT_SATISFIABLE if get.start == 0 && range.is_some() => {
                let text = error_text(response).await;
                if !is_of_empty_object(&found, &text) {
                    return Err(changed("it is shorter than before".to_owned()));
                }
                response = reqwest::Response::from(http::Response::new(""));
                true
            }
            _ => {
                *response.headers_mut() = found;
                return Err(refusal(url, &headers, status, response).await);
            }
        };
        let etag = found.get(ETAG).and_then(|value| value.to_str().ok()).map(ETag::new);
        match (&get.if_match, &etag) {
            (Some(expected), Some(found)) if expected != found => {
                return Err(changed(format!("its ETag was {expected} and is {found}")));
            }
            // The server has seen If-Match before it saw the range (section 13.2.2), and need not repeat the tag.
            (Some(expected), None) if !is_empty => {
                return Err(changed(format!("its ETag was {expected} and it has none now")));
            }
            _ => {}
        }
        let (start, end, size, has_ranges) = match status {
            _ if is_empty => (0, Some(0), Some(0), true),
            StatusCode::PARTIAL_CONTENT => {
                let Some(range) = &range else {
                    return Err(protocol("asked for the whole, the server sent a part of it".to_owned()));
                };
                let (end, size) = partial(&found, length, get)
                    .map_err(|what| protocol(format!("asked for {range}, the server sent {what}")))?;
                (get.start, Some(end), size, true)
            }
            // Its length tells the range from a whole object under a stray header.
            _ => match range.as_ref().and(length).and_then(|_| partial(&found, length, get).ok()) {
                Some((end, size @ Some(_))) => (get.start, Some(end), size, true),
                _ => (0, length, length, range.is_none() && accepts_ranges(&found)),
            },
        };
        let is_whole = status == StatusCode::OK && start == 0 && end == size;
        let bytes = bytes_of(response, &location);
        let bytes = match end {
            Some(end) => exactly(bytes, start, end, location),
            None => bytes,
        };
        let mut body = Body::new(start, bytes);
        body.end = end;
        body.size = size;
        body.etag = etag;
        body.last_modified = found.get(LAST_MODIFIED).and_then(|value| http_date(value.to_str().ok()?));
        body.has_ranges = has_ranges;
        body.digests = digests(&found, is_whole);
        Ok((found, body))
    }

    /// Asks for what the server says of an object, with `HEAD`, and gives the answer's headers. `if_match` is held against
    /// the `ETag` in them, too.
    ///
    /// # Errors
    ///
    /// As [`HttpClient::get`].
    pub async fn head(&self, url: &Url, headers: HeaderMap, if_match: Option<&ETag>) -> Result<HeaderMap, Error> {
        let location = redacted(url);
        let mut conditions = HeaderMap::new();
        conditions.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(etag) = if_match.filter(|etag| !etag.is_weak()) {
            conditions.insert(IF_MATCH, header(&etag.to_header(), &location)?);
        }
        let mut response = self.send(Method::HEAD, url, headers.clone(), conditions, &location).await?;
        match response.status() {
            StatusCode::OK => {}
            status if status.is_success() => {
                let what = format!("a HEAD was answered with status {}", status.as_u16());
                return Err(Error::Protocol { location, what });
            }
            status => return Err(refusal(url, &headers, status, response).await),
        }
        let found = std::mem::take(response.headers_mut());
        let etag = found.get(ETAG).and_then(|value| value.to_str().ok()).map(ETag::new);
        if if_match.is_some() && if_match != etag.as_ref() {
            return Err(Error::Changed { location, what: "it is not the version asked for".to_owned() });
        }
        Ok(found)
    }

    /// Reads a small answer (a listing page, a schema) whole.
    ///
    /// # Errors
    ///
    /// As [`HttpClient::get`], and [`Error::Protocol`] if it is longer than `limit` bytes.
    pub async fn read(&self, url: &Url, headers: HeaderMap, limit: usize) -> Result<Bytes, Error> {
        let location = redacted(url);
        let response = self.send(Method::GET, url, headers.clone(), HeaderMap::new(), &location).await?;
        if !response.status().is_success() {
            return Err(refusal(url, &headers, response.status(), response).await);
        }
        small_body(bytes_of(response, &location), &location, limit).await
    }

    /// Sends a request with `body`, which may be empty, and reads its small answer whole: for what changes something on the
    /// server. Gives the answer's headers and body. No redirect is followed: a body, and what is to be done with it, is meant
    /// for one host.
    ///
    /// It may take [`HttpOptions::read_timeout`], what the body takes at 32 KiB a second, and `work`: the time that the server
    /// may need beside that.
    ///
    /// # Errors
    ///
    /// As [`HttpClient::read`], with a limit of 64 KiB. A redirect is [`Error::Status`].
    pub async fn write(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        work: Duration,
    ) -> Result<(HeaderMap, Bytes), Error> {
        let location = redacted(url);
        let Writer { options, client } = &*self.writer;
        let client = match client.get() {
            Some(client) => client,
            None => {
                let made = build(builder(options)?)?;
                client.get_or_init(|| made)
            }
        };
        let time = options.read_timeout + work + Duration::from_secs(body.len() as u64 / SLOWEST_UPLOAD);
        let request = client.request(method, url.clone()).headers(headers.clone()).timeout(time);
        // Without a Content-Length some servers refuse requests that may have a body (RFC 9112, section 6.3).
        let request = if body.is_empty() { request.header(CONTENT_LENGTH, 0) } else { request.body(body) };
        let mut response = request.send().await.map_err(|error| unanswered(&location, error))?;
        if !response.status().is_success() {
            return Err(refusal(url, &headers, response.status(), response).await);
        }
        let found = std::mem::take(response.headers_mut());
        // The whole request has a limit. While S3 puts an object together it answers with a space now and then.
        Ok((found, small_body(body_of(response, &location), &location, SMALL_ANSWER).await?))
    }

    /// Sends a request, which may have a body, and gives its answer whatever the status, as soon as its head is there. No
    /// redirect is followed: each would be one more request, and a limit counts them one by one.
    ///
    /// # Errors
    ///
    /// [`Error::Transport`] if there is no answer.
    #[cfg(feature = "crawl")]
    pub async fn ask(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Option<Bytes>,
    ) -> Result<HttpAnswer, Error> {
        let location = redacted(url);
        let mut request = self.client.request(method, url.clone()).headers(headers.clone());
        request = request.header(ACCEPT_ENCODING, "identity");
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request.send().await.map_err(|error| unanswered(&location, error))?;
        let (status, sent) = (response.status().as_u16(), headers);
        let headers = response.headers().clone();
        Ok(HttpAnswer { status, headers, url: url.clone(), location, sent, response })
    }

    /// Sends `headers` along as long as no redirect leads to another host, and `conditions` in any case. The answer has
    /// any status.
    async fn send(
        &self,
        method: Method,
        url: &Url,
        mut headers: HeaderMap,
        conditions: HeaderMap,
        location: &str,
    ) -> Result<reqwest::Response, Error> {
        let mut url = url.clone();
        for _ in 0..=REDIRECTS {
            let request = self.client.request(method.clone(), url.clone());
            let request = request.headers(headers.clone()).headers(conditions.clone());
            let response = request.send().await.map_err(|error| unanswered(location, error))?;
            let Some(next) = redirect(&url, &response) else { return Ok(response) };
            if let Some(what) = misleads(&url, &next) {
                return Err(Error::Protocol { location: location.to_owned(), what });
            }
            if next.origin() != url.origin() {
                headers.clear();
            }
            url = next;
        }
        Err(Error::Protocol { location: location.to_owned(), what: format!("more than {REDIRECTS} redirects") })
    }
}

/// The head of an answer, and the body behind it.
#[cfg(feature = "crawl")]
#[non_exhaustive]
pub struct HttpAnswer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    url: Url,
    location: String,
    sent: HeaderMap,
    response: reqwest::Response,
}

#[cfg(feature = "crawl")]
impl HttpAnswer {
    /// The URL that was asked, without secrets.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Reads the body whole.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] if it is longer than `limit` bytes, [`Error::Transport`] if it breaks off.
    pub async fn read(self, limit: usize) -> Result<Bytes, Error> {
        self.read_with(limit, |_| std::future::ready(())).await
    }

    /// The same, where `room` waits until there is memory for so many bytes in all, before it is allocated: for all of the body
    /// where the answer says how long it is, and else a quarter more each time.
    pub(crate) async fn read_with<F>(self, limit: usize, room: impl Fn(u64) -> F) -> Result<Bytes, Error>
    where
        F: Future<Output = ()>,
    {
        let Self { location, response, .. } = self;
        let size = response.content_length();
        let too_large = |size| Error::TooLarge { location: location.clone(), size, limit: limit as u64 };
        if size.is_some_and(|size| size > limit as u64) {
            return Err(too_large(size));
        }
        let mut stream = bytes_of(response, &location);
        let expected = size.unwrap_or_default();
        room(expected).await;
        let mut body = Vec::with_capacity(expected as usize);
        while let Some(item) = stream.next().await {
            let bytes = item?;
            if bytes.len() > limit - body.len() {
                return Err(too_large(size));
            }
            let len = body.len() + bytes.len();
            if len > body.capacity() {
                let more = (body.capacity() / 4).max(LEAST_GROWTH);
                let capacity = len.max(body.capacity().saturating_add(more).min(limit));
                room(capacity as u64).await;
                body.reserve_exact(capacity - body.len());
            }
            body.extend_from_slice(&bytes);
        }
        body.shrink_to_fit();
        Ok(body.into())
    }

    /// What a status that is none of a success means, and the beginning of the body.
    pub async fn refusal(self) -> (Error, Bytes) {
        self.refusal_hiding(&|text| text).await
    }

    /// The same, where the error does not repeat what `hide` hides.
    pub(crate) async fn refusal_hiding(self, hide: &(dyn Fn(String) -> String + Sync)) -> (Error, Bytes) {
        let Self { status, url, sent, response, .. } = self;
        let code = response.status();
        let (error, text) = refusal_with_text(&url, &sent, code, response, hide).await;
        let error = match error {
            // Nobody asked for a version.
            Error::Changed { location, .. } => Error::Status { location, status, retry_after: None, reason: None },
            error => error,
        };
        (error, text.into())
    }
}

/// Without the URL and the headers, in which secrets stand.
#[cfg(feature = "crawl")]
impl std::fmt::Debug for HttpAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpAnswer").field("status", &self.status).finish_non_exhaustive()
    }
}

/// What the options say, but for the limit of a wait for bytes.
fn builder(options: &HttpOptions) -> Result<reqwest::ClientBuilder, Error> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("bulk/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(options.connect_timeout)
        .http1_only()
        .redirect(reqwest::redirect::Policy::none());
    for path in &options.root_certificates {
        let failed = |source| Error::io("read certificates from", path, source);
        let pem = std::fs::read(path).map_err(failed)?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|error| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, innermost(&error))))?;
        if certificates.is_empty() {
            return Err(failed(std::io::Error::new(std::io::ErrorKind::InvalidData, "it holds none in PEM form")));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    builder = match &options.proxy {
        Proxy::System => builder,
        Proxy::Direct => builder.no_proxy(),
        Proxy::Url(url) => {
            let unusable = |reason| Error::Url { url: redacted_text(url), reason };
            if !Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
                return Err(unusable("a proxy is http:// or https://".to_owned()));
            }
            let proxy = reqwest::Proxy::all(url).map_err(|error| unusable(innermost(&error.without_url())))?;
            builder.proxy(proxy)
        }
    };
    Ok(builder)
}

fn build(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, Error> {
    builder.build().map_err(|error| transport("the HTTP client", "cannot be set up", error))
}

/// Where the answer leads on to (RFC 9110, section 15.4), if it leads to an HTTP or HTTPS URL.
fn redirect(url: &Url, response: &reqwest::Response) -> Option<Url> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let next = url.join(response.headers().get(LOCATION)?.to_str().ok()?).ok()?;
    matches!(next.scheme(), "http" | "https").then_some(next)
}

/// Why a redirect from one URL to another is not followed, if that is so.
fn misleads(url: &Url, next: &Url) -> Option<String> {
    if url.scheme() == "https" && next.scheme() == "http" {
        return Some(format!("it redirects from https to {}", redacted(next)));
    }
    let reached = |url: &Url| url.host().map(|host| Reach::of(&host));
    match (reached(url)?, reached(next)?) {
        // What is on this machine is there for whoever is, too.
        (Reach::Machine, _) | (_, Reach::Network) | (Reach::Link, Reach::Link) => None,
        (_, Reach::Machine) => Some(format!("it redirects to this machine, {}", redacted(next))),
        (_, Reach::Link) => Some(format!("it redirects to a link-local address, {}", redacted(next))),
    }
}

/// From where a host can be reached, as far as its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// This machine alone: loopback, and the unspecified address, which connects to it.
    Machine,
    /// The link alone (RFC 3927, and RFC 4291, section 2.5.6).
    Link,
    Network,
}

impl Reach {
    fn of(host: &Host<&str>) -> Self {
        let of_v4 = |address: Ipv4Addr| match address {
            address if address.is_loopback() || address.octets()[0] == 0 => Self::Machine,
            address if address.is_link_local() => Self::Link,
            _ => Self::Network,
        };
        match host {
            Host::Domain(name) => {
                let name = name.trim_end_matches('.');
                // RFC 6761, section 6.3.
                if name == "localhost" || name.ends_with(".localhost") { Self::Machine } else { Self::Network }
            }
            Host::Ipv4(address) => of_v4(*address),
            Host::Ipv6(address) => match address.to_ipv4_mapped() {
                Some(address) => of_v4(address),
                None if address.is_loopback() || address.is_unspecified() => Self::Machine,
                None if address.is_unicast_link_local() => Self::Link,
                None => Self::Network,
            },
        }
    }
}

fn header(value: &str, location: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(value).map_err(|_| Error::Protocol {
        location: location.to_owned(),
        what: format!("its ETag {value:?} cannot be sent in a header"),
    })
}

/// The innermost cause says what happened ("connection refused"); the layers above it repeat the URL.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The body of an answer as it arrives.
fn body_of(response: reqwest::Response, location: &str) -> BoxStream<'static, Result<Bytes, Error>> {
    let location = location.to_owned();
    let broke = move |error| transport(&location, "the connection broke", error);
    response.bytes_stream().map(move |item| item.map_err(&broke)).boxed()
}

/// The same, if it arrives fast enough.
pub(crate) fn bytes_of(response: reqwest::Response, location: &str) -> BoxStream<'static, Result<Bytes, Error>> {
    fast_enough(body_of(response, location), location.to_owned())
}

/// The stream, as long as it gives [`SLOWEST_DOWNLOAD`] in each [`SLOWEST_OVER`] that it is waited for. How long its reader
/// takes does not count.
fn fast_enough(
    bytes: BoxStream<'static, Result<Bytes, Error>>,
    location: String,
) -> BoxStream<'static, Result<Bytes, Error>> {
    let state = Some((bytes, Duration::ZERO, 0, location));
    futures::stream::unfold(state, |state| async move {
        let (mut bytes, mut waited, mut arrived, location) = state?;
        let before = Instant::now();
        let chunk = match bytes.next().await? {
            Ok(chunk) => chunk,
            Err(error) => return Some((Err(error), None)),
        };
        waited += before.elapsed();
        arrived += chunk.len();
        if waited >= SLOWEST_OVER {
            if arrived < SLOWEST_DOWNLOAD {
                let source = format!("{} in {} s", counted(arrived, "byte", "bytes"), waited.as_secs()).into();
                return Some((Err(Error::Transport { location, what: "the server sends too slowly", source }), None));
            }
            (waited, arrived) = (Duration::ZERO, 0);
        }
        Some((Ok(chunk), Some((bytes, waited, arrived, location))))
    })
    .boxed()
}

/// All of a body, if it is not too long.
async fn small_body(
    mut bytes: BoxStream<'static, Result<Bytes, Error>>,
    location: &str,
    limit: usize,
) -> Result<Bytes, Error> {
    let mut body = Vec::new();
    while let Some(item) = bytes.next().await {
        body.extend_from_slice(&item?);
        if body.len() > limit {
            let what = format!("the answer is longer than {}", counted(limit, "byte", "bytes"));
            return Err(Error::Protocol { location: location.to_owned(), what });
        }
    }
    Ok(body.into())
}

fn unanswered(location: &str, error: reqwest::Error) -> Error {
    let what = match () {
        () if error.is_connect() => CANNOT_CONNECT,
        () if error.is_timeout() => "no answer in time",
        () => "the request failed",
    };
    transport(location, what, error)
}

fn transport(location: &str, what: &'static str, error: reqwest::Error) -> Error {
    let source = innermost(&error.without_url()).into();
    Error::Transport { location: location.to_owned(), what, source }
}

/// End and size of the object out of the headers of a 206, if it is what was asked for; else what it is.
fn partial(headers: &HeaderMap, length: Option<u64>, get: &Get) -> Result<(u64, Option<u64>), String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = text(CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    if content_type.eq_ignore_ascii_case("multipart/byteranges") {
        return Err(content_type.to_owned());
    }
    let other = || format!("Content-Range {:?}", text(CONTENT_RANGE));
    let (start, end, size) = content_range(text(CONTENT_RANGE)).ok_or_else(other)?;
    let is_end = match (size, get.end) {
        (Some(size), asked) => end == asked.unwrap_or(size).min(size),
        // Short of what was asked for only if the object is.
        (None, Some(asked)) => end <= asked,
        (None, None) => true,
    };
    if start != get.start || !is_end {
        return Err(other());
    }
    match length {
        Some(length) if length != end - start => Err(format!("{}, but Content-Length {length}", other())),
        _ => Ok((end, size)),
    }
}

/// Start, end (exclusive) and size of the whole, out of `bytes 5-9/10` (RFC 9110, section 14.4).
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (unit, rest) = text.trim().split_once(' ')?;
    let (range, size) = rest.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (start, end) = (decimal(first)?, decimal(last)?.checked_add(1)?);
    let size = match size {
        "*" => None,
        size => Some(decimal(size).filter(|size| end <= *size)?),
    };
    (unit.eq_ignore_ascii_case("bytes") && start < end).then_some((start, end, size))
}

fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn accepts_ranges(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_RANGES).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|unit| unit.trim().eq_ignore_ascii_case("bytes"))
}

/// Whether a 416 is of an object without bytes: by `Content-Range: bytes */0`, or without one by the body of S3.
fn is_of_empty_object(headers: &HeaderMap, text: &str) -> bool {
    match headers.get(CONTENT_RANGE) {
        Some(value) => value.to_str().is_ok_and(|value| {
            value.trim().split_once(' ').is_some_and(|(unit, rest)| {
                unit.eq_ignore_ascii_case("bytes") && rest.trim().strip_prefix("*/").and_then(decimal) == Some(0)
            })
        }),
        None => element(text, "ActualObjectSize") == Some("0"),
    }
}

/// What HTTP itself says of the object's content.
fn digests(headers: &HeaderMap, is_whole: bool) -> Vec<Digest> {
    let mut digests = Vec::new();
    // A dictionary of structured fields (RFC 9651, section 3.2); of a key that comes twice the last value counts.
    let mut sha256 = None;
    for value in headers.get_all("repr-digest").iter().filter_map(|value| value.to_str().ok()) {
        for (key, value) in value.split(',').filter_map(|member| member.trim().split_once('=')) {
            if key == "sha-256" {
                let value = value.strip_prefix(':').and_then(|value| value.split_once(':'));
                sha256 = value.and_then(|(value, _)| base64(value));
            }
        }
    }
    digests.extend(sha256.map(Digest::Sha256));
    if is_whole && let Some(value) = headers.get("content-md5").and_then(|value| value.to_str().ok()) {
        digests.extend(base64(value.trim()).map(Digest::Md5));
    }
    digests
}

fn base64<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
}

/// The stream, if it has the bytes from `start` to `end`; else its end is an error.
fn exactly(
    bytes: BoxStream<'static, Result<Bytes, Error>>,
    start: u64,
    end: u64,
    location: String,
) -> BoxStream<'static, Result<Bytes, Error>> {
    futures::stream::unfold(Some((bytes, start, location)), move |state| async move {
        let (mut bytes, position, location) = state?;
        match bytes.next().await {
            Some(Ok(chunk)) if chunk.len() as u64 > end - position => {
                let what = "it sends more bytes than it announced".to_owned();
                Some((Err(Error::Protocol { location, what }), None))
            }
            Some(Ok(chunk)) => {
                let position = position + chunk.len() as u64;
                Some((Ok(chunk), Some((bytes, position, location))))
            }
            Some(Err(error)) => Some((Err(error), None)),
            None if position < end => {
                Some((Err(Error::Truncated { location, expected: end, received: position }), None))
            }
            None => None,
        }
    })
    .boxed()
}

pub(crate) fn http_date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "crawl")]
    #[tokio::test]
    async fn an_answer_of_unknown_length_has_room_before_it_has_memory() {
        let chunks = (0..200).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 1000])));
        let body = reqwest::Body::wrap_stream(futures::stream::iter(chunks));
        let answer = HttpAnswer {
            status: 200,
            headers: HeaderMap::new(),
            url: "http://host/".parse().unwrap(),
            location: String::new(),
            sent: HeaderMap::new(),
            response: http::Response::new(body).into(),
        };
        let asked = std::sync::Mutex::new(Vec::new());
        let room = |bytes| {
            asked.lock().unwrap().push(bytes);
            std::future::ready(())
        };
        assert_eq!(answer.read_with(201_000, room).await.unwrap().len(), 200_000);
        let asked = asked.into_inner().unwrap();
        assert_eq!(asked, [0, 16384, 32768, 49152, 65536, 81920, 102400, 128000, 160000, 200000]);
    }

    /// A stream that gives chunks of this many bytes, each after so many seconds.
    fn dripping(len: usize, seconds: u64, chunks: usize) -> BoxStream<'static, Result<Bytes, Error>> {
        let chunk = move |_| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok(Bytes::from(vec![0; len]))
        };
        fast_enough(futures::stream::iter(0..chunks).then(chunk).boxed(), "http://host/a".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_is_too_slow() {
        let chunks: Vec<_> = dripping(1, 29, 1000).collect().await;
        assert_eq!(chunks.len(), 11);
        assert!(chunks[..10].iter().all(|chunk| chunk.as_ref().unwrap().len() == 1));
        let error = chunks[10].as_ref().unwrap_err();
        assert!(matches!(error, Error::Transport { .. }) && error.is_transient(), "{error:?}");
        assert_eq!(error.to_string(), "http://host/a: the server sends too slowly");
        assert_eq!(std::error::Error::source(error).unwrap().to_string(), "11 bytes in 319 s");
        // Also behind a part that came quickly.
        let quick = dripping(1 << 20, 1, 500).chain(dripping(1, 29, 1000));
        let count = quick.filter(|chunk| std::future::ready(chunk.is_ok())).count().await;
        assert_eq!(count, 500 + 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_line_and_a_slow_reader_are_none() {
        assert_eq!(dripping(400, 29, 1000).filter(|chunk| std::future::ready(chunk.is_ok())).count().await, 1000);
        let mut bytes = dripping(1, 0, 100);
        let mut count = 0;
        while let Some(chunk) = bytes.next().await {
            assert_eq!(chunk.unwrap().len(), 1);
            count += 1;
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        assert_eq!(count, 100);
    }

    #[test]
    fn redirects_lead_neither_out_of_https_nor_inside() {
        let refused = |from: &str, to: &str| misleads(&from.parse().unwrap(), &to.parse().unwrap());
        assert_eq!(
            refused("https://a.example/", "http://a.example/b?secret").as_deref(),
            Some("it redirects from https to http://a.example/b")
        );
        let inside = [
            "http://169.254.169.254/latest",
            "http://[fe80::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://127.0.0.1:8080/",
            "http://2130706433/",
            "http://[::1]/",
            "http://[::]/",
            "http://0.0.0.0/",
            "http://[::ffff:127.0.0.1]/",
            "http://localhost/",
            "http://LOCALHOST./",
            "http://db.localhost/",
        ];
        for to in inside {
            assert!(refused("http://bucket.example/", to).is_some(), "{to}");
            assert!(refused("http://10.0.0.1/", to).is_some(), "{to}");
            assert_eq!(refused("http://127.0.0.1:9000/", to), None, "{to}");
        }
        assert!(refused("http://169.254.1.1/", "http://127.0.0.1/").is_some());
        for (from, to) in [
            ("http://a.example/", "https://b.example/"),
            ("http://a.example/", "http://10.0.0.1/"),
            ("https://a.example/", "https://[2001:db8::1]/"),
            ("http://169.254.1.1/", "http://169.254.1.2/"),
        ] {
            assert_eq!(refused(from, to), None, "{from} {to}");
        }
    }

    #[test]
    fn content_range_is_read_exactly() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, 10, Some(10))));
        assert_eq!(content_range("Bytes 5-8/10"), Some((5, 9, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, 10, None)));
        let bad = ["bytes 5-10/10", "bytes 9-5/10", "bytes */10", "items 5-9/10", "", "bytes 5-9", "bytes=5-9/10"];
        let overflow = ["bytes 5-18446744073709551615/*", "bytes +5-9/10", "bytes 5-9/", "bytes -9/10", "bytes 5-/10"];
        for bad in bad.into_iter().chain(overflow) {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn digests_are_of_the_form_that_their_standard_gives() {
        let zeros = format!("{}=", "A".repeat(43));
        let headers = |pairs: &[(&'static str, String)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
        };
        let md5 = ("content-md5", "Q2hlY2sgSW50ZWdyaXR5IQ==".to_owned());
        let both = headers(&[("repr-digest", format!("sha-512=:AAAA:, sha-256=:{zeros}:;a=1")), md5]);
        let expected = [Digest::Sha256([0; 32]), Digest::Md5(*b"Check Integrity!")];
        assert_eq!(digests(&both, true), expected);
        assert_eq!(digests(&both, false), expected[..1]);
        for bad in ["sha-256=:AAAA:".to_owned(), format!("sha-256={zeros}"), format!("SHA-256=:{zeros}:")] {
            assert_eq!(digests(&headers(&[("repr-digest", bad.clone())]), true), [], "{bad}");
        }
        assert_eq!(digests(&headers(&[("content-md5", "AAAA".to_owned())]), true), []);
    }
}
