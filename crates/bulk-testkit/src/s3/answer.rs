//! An answer before it is sent, and the errors of S3 among them.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RETRY_AFTER},
};

use super::{
    object::Content,
    xml::{DECLARATION, element},
};

/// Status, headers and a stretch of some content.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) content: Content,
    pub(super) position: u64,
    pub(super) len: u64,
}

impl Answer {
    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), content: Content::Bytes(Bytes::new()), position: 0, len: 0 }
    }

    pub(super) fn text(status: StatusCode, content_type: &'static str, text: String) -> Self {
        let len = text.len() as u64;
        let content = Content::Bytes(text.into());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self { status, headers, content, position: 0, len }
    }

    /// Sets a header, unless the value cannot stand in one.
    pub(super) fn set(&mut self, name: HeaderName, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
    }
}

/// An error as S3 words it.
#[derive(Debug)]
pub(super) struct S3Error {
    status: StatusCode,
    code: String,
    message: String,
    details: Vec<(&'static str, String)>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl S3Error {
    pub(super) fn new(status: StatusCode, code: &str, message: &str) -> Self {
        Self { status, code: code.to_owned(), message: message.to_owned(), details: Vec::new(), headers: Vec::new() }
    }

    pub(super) fn bad_request(code: &str, message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(super) fn forbidden(code: &str, message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    pub(super) fn access_denied() -> Self {
        Self::forbidden("AccessDenied", "Access Denied")
    }

    pub(super) fn invalid_argument(message: &str, name: &str, value: &str) -> Self {
        Self::bad_request("InvalidArgument", message).with("ArgumentName", name).with("ArgumentValue", value)
    }

    pub(super) fn gateway_timeout() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "GatewayTimeout", "The origin did not answer in time")
    }

    pub(super) fn not_implemented() -> Self {
        let message = "A header you provided implies functionality that is not implemented";
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
    }

    pub(super) fn no_such_bucket(bucket: &str) -> Self {
        let message = "The specified bucket does not exist";
        Self::new(StatusCode::NOT_FOUND, "NoSuchBucket", message).with("BucketName", bucket)
    }

    pub(super) fn no_such_key(key: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NoSuchKey", "The specified key does not exist.").with("Key", key)
    }

    pub(super) fn no_such_version(key: &str, id: &str) -> Self {
        let message = "The specified version does not exist.";
        Self::new(StatusCode::NOT_FOUND, "NoSuchVersion", message).with("Key", key).with("VersionId", id)
    }

    pub(super) fn method_not_allowed(method: &str) -> Self {
        let message = "The specified method is not allowed against this resource.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message).with("Method", method)
    }

    pub(super) fn precondition_failed(condition: &str) -> Self {
        let message = "At least one of the pre-conditions you specified did not hold";
        Self::new(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", message).with("Condition", condition)
    }

    pub(super) fn invalid_range(range: &str, size: u64) -> Self {
        let message = "The requested range is not satisfiable";
        let mut error = Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange", message)
            .with("RangeRequested", range)
            .with("ActualObjectSize", &size.to_string());
        error.headers.extend(HeaderValue::try_from(format!("bytes */{size}")).map(|value| (CONTENT_RANGE, value)));
        error
    }

    pub(super) fn internal(error: &std::io::Error) -> Self {
        let message = format!("We encountered an internal error: {error}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &message)
    }

    #[must_use]
    pub(super) fn retry_after(mut self, seconds: Option<u64>) -> Self {
        self.headers.extend(seconds.map(|seconds| (RETRY_AFTER, seconds.into())));
        self
    }

    /// Says that a delete marker stands there.
    #[must_use]
    pub(super) fn delete_marker(mut self, version: Option<String>) -> Self {
        self.headers.push((HeaderName::from_static("x-amz-delete-marker"), HeaderValue::from_static("true")));
        let version = version.and_then(|version| HeaderValue::try_from(version).ok());
        self.headers.extend(version.map(|version| (HeaderName::from_static("x-amz-version-id"), version)));
        self
    }

    /// Says where the client is to go instead.
    #[must_use]
    pub(super) fn location(mut self, url: &str) -> Self {
        self.headers.extend(HeaderValue::try_from(url).map(|value| (LOCATION, value)));
        self
    }

    #[must_use]
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.details.push((name, value.to_owned()));
        self
    }

    #[cfg(test)]
    pub(super) fn code(&self) -> &str {
        &self.code
    }

    pub(super) fn into_answer(self, request_id: &str) -> Answer {
        let mut out = format!("{DECLARATION}<Error>");
        element(&mut out, "Code", &self.code);
        element(&mut out, "Message", &self.message);
        for (name, value) in &self.details {
            element(&mut out, name, value);
        }
        element(&mut out, "RequestId", request_id);
        out.push_str("</Error>");
        let mut answer = Answer::text(self.status, "application/xml", out);
        answer.headers.extend(self.headers);
        answer
    }
}
