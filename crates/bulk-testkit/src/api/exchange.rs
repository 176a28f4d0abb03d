use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

/// A request that has arrived whole.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Asked {
    /// Counts the requests, from 0, in the order of their arrival.
    pub number: u64,
    /// The method.
    pub method: Method,
    /// The path as sent.
    pub path: String,
    /// The query as decoded pairs, in the order sent.
    pub query: Vec<(String, String)>,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Asked {
    /// The first value of this parameter of the query.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// All values of this parameter of the query.
    pub fn params<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.query.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The parts of the path, decoded.
    pub fn segments(&self) -> Vec<String> {
        let parts = self.path.split('/').filter(|part| !part.is_empty());
        parts.map(|part| percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()).collect()
    }

    /// A header's value, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What is answered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers besides `Content-Length`.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// A document, under status 200.
    pub fn json(document: Value) -> Self {
        Self::text("application/json", document.to_string())
    }

    /// A text, under status 200.
    pub fn text(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let content_type = (http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self { status: 200, headers: HeaderMap::from_iter([content_type]), body: body.into() }
    }

    /// An error, with `{"error": what}`.
    pub fn error(status: u16, what: &str) -> Self {
        Self::json(json!({"error": what})).status(status)
    }

    /// The same under another status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The same with this header, unless one cannot be so.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
            self.headers.insert(name, value);
        }
        self
    }
}
