//! What a server says that does not give what it was asked for.

use std::time::Duration;

use futures::StreamExt;
use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use url::Url;

use crate::Error;
use crate::http_client::{bytes_of, http_date};
use crate::redaction::{Secrets, redacted};

/// How much of an error's body is read, and how much of it is shown.
const REASON_READ: usize = 8 * 1024;
const REASON_SHOWN: usize = 200;

/// What an answer means that is none to the request, which was sent to `url` with these headers.
pub(crate) async fn refusal(url: &Url, headers: &HeaderMap, status: StatusCode, response: reqwest::Response) -> Error {
    refusal_with_text(url, headers, status, response, &|text| text).await.0
}

/// The same, with the beginning of the answer's body, where `hide` hides what is secret besides.
pub(crate) async fn refusal_with_text(
    url: &Url,
    headers: &HeaderMap,
    status: StatusCode,
    response: reqwest::Response,
    hide: &(dyn Fn(String) -> String + Sync),
) -> (Error, String) {
    let location = redacted(url);
    // A redirect may have led to a URL that is signed.
    let secrets = Secrets::of(&[url, response.url()], headers);
    let retry_after = wait_of(response.headers());
    let text = error_text(response).await;
    let reason = reason(&text, &|text| hide(secrets.hide(text)));
    let error = match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Error::NotFound { location },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied { location, reason },
        StatusCode::PRECONDITION_FAILED => Error::Changed { location, what: "it is not the version asked for".into() },
        StatusCode::RANGE_NOT_SATISFIABLE => Error::Changed { location, what: "it is shorter than before".into() },
        status if status.is_success() => {
            Error::Protocol { location, what: format!("a GET was answered with status {}", status.as_u16()) }
        }
        status => Error::Status { location, status: status.as_u16(), retry_after, reason },
    };
    (error, text)
}

/// The body of an error, as far as it is read.
pub(crate) async fn error_text(response: reqwest::Response) -> String {
    let mut body = Vec::new();
    let mut stream = bytes_of(response, "");
    while let Some(Ok(bytes)) = stream.next().await
        && body.len() < REASON_READ
    {
        body.extend_from_slice(&bytes);
    }
    String::from_utf8_lossy(&body).into_owned()
}

/// What the body of an error says, on one line.
///
/// Of an `Error` in XML only code and message: S3 repeats in the other elements what it was sent, a session token
/// (`ExpiredToken`, `InvalidToken`) and the headers that were signed (`SignatureDoesNotMatch`) included. See
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>. In whatever is left, as in the pages of proxies
/// that repeat the URL, secrets are hidden by `hide`, before it is cut.
fn reason(body: &str, hide: &dyn Fn(String) -> String) -> Option<String> {
    let text = match is_xml_error(body) {
        true => {
            let elements = ["Code", "Message"].into_iter().filter_map(|name| element(body, name));
            elements.collect::<Vec<_>>().join(" ")
        }
        false => without_tags(body),
    };
    // & last: what it stands before is no entity of its own.
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#39;", "'"), ("&amp;", "&")];
    let text = entities.into_iter().fold(text, |text, (entity, char)| text.replace(entity, char));
    let text = hide(text);
    let text = text.replace(char::is_control, " ");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = text.chars().take(REASON_SHOWN).collect();
    (!shown.is_empty()).then_some(shown)
}

/// Whether the root element is `Error`, or `ErrorResponse` as some services of AWS wrap it. Comments before it count as
/// text: whatever looks like an error's body must not be shown whole.
fn is_xml_error(body: &str) -> bool {
    let mut names = body.split('<').skip(1).map(|tag| {
        let end = tag.find(|char: char| char.is_whitespace() || matches!(char, '>' | '/')).unwrap_or(tag.len());
        // Without the prefix of a namespace.
        tag[..end].rsplit(':').next().unwrap_or_default()
    });
    names.find(|name| !name.starts_with(['?', '!'])).is_some_and(|name| matches!(name, "Error" | "ErrorResponse"))
}

/// The text of the first XML element of that name, up to a child of it.
pub(crate) fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    body.split('<').skip(1).find_map(|tag| {
        let (head, text) = tag.split_once('>')?;
        let head = head.split_whitespace().next()?;
        (head.rsplit(':').next() == Some(name)).then_some(text)
    })
}

fn without_tags(body: &str) -> String {
    let mut text = String::new();
    let mut in_tag = false;
    for char in body.chars() {
        match char {
            '<' => in_tag = true,
            '>' if in_tag => {
                in_tag = false;
                text.push(' ');
            }
            char if !in_tag => text.push(char),
            _ => {}
        }
    }
    text
}

/// For how long an answer asks to wait, in `Retry-After`.
pub(crate) fn wait_of(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?))
}

/// `Retry-After` in seconds or as a date (RFC 9110, 10.2.3), an hour at most. A date that is past is now: by the server's clock it
/// need not be.
fn retry_after(text: &str) -> Option<Duration> {
    let seconds = match text.trim().parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => u64::try_from(http_date(text)?.as_second() - Timestamp::now().as_second()).unwrap_or(0).max(1),
    };
    Some(Duration::from_secs(seconds.min(3600)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> impl Fn(String) -> String {
        hiding(Secrets::of(&[], &HeaderMap::new()))
    }

    fn hiding(secrets: Secrets) -> impl Fn(String) -> String {
        move |text| secrets.hide(text)
    }

    #[test]
    fn dates_and_waits() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT").map(|t| t.as_second()), Some(784111777));
        assert_eq!(retry_after("120"), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(1)));
        assert_eq!(retry_after("0"), Some(Duration::ZERO));
        assert_eq!(retry_after("99999999"), Some(Duration::from_secs(3600)));
        assert_eq!(retry_after("soon"), None);
    }

    #[test]
    fn a_reason_is_text_on_one_line() {
        let body =
            "<?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code>\n<Message>Reduce your rate.</Message></Error>";
        assert_eq!(reason(body, &none()).as_deref(), Some("SlowDown Reduce your rate."));
        assert_eq!(reason(" \n", &none()), None);
        let page = "<!DOCTYPE html>\n<html><body><h1>Not now</h1>\n\tCome back later\u{7}.</body></html>";
        assert_eq!(reason(page, &none()).as_deref(), Some("Not now Come back later ."));
    }

    #[test]
    fn of_an_xml_error_only_code_and_message_are_a_reason() {
        let token = "<Token-0>secret</Token-0><StringToSign>secret</StringToSign><HostId>secret</HostId>";
        let shown = "ExpiredToken The token isn't <valid> & has expired.";
        let text = "<Code>ExpiredToken</Code><Message>The token isn&apos;t &lt;valid&gt; &amp; has\nexpired.</Message>";
        for body in [
            format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>{text}{token}</Error>"),
            format!("<Error xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{token}{text}</Error>"),
            format!("<!-- secret --><s3:Error>{token}{text}"),
            format!("<ErrorResponse><Error>{text}</Error>{token}</ErrorResponse>"),
        ] {
            assert_eq!(reason(&body, &none()).as_deref(), Some(shown), "{body}");
        }
        assert_eq!(reason(&format!("<Error>{token}</Error>"), &none()), None);
    }

    #[test]
    fn a_page_that_repeats_the_request_is_shown_without_its_secrets() {
        let url = Url::parse("https://host/a?X-Amz-Date=20260101T000000Z&X-Amz-Signature=feedbeef").unwrap();
        let page =
            "<html>No route for GET /a?X-Amz-Date=20260101T000000Z&amp;X-Amz-Signature=feedbeef by \"p1\"</html>";
        let shown = "No route for GET /a?… by \"p1\"";
        assert_eq!(reason(page, &hiding(Secrets::of(&[&url], &HeaderMap::new()))).as_deref(), Some(shown));
        let message = "<Error><Code>AccessDenied</Code><Message>Signature feedbeef has expired</Message></Error>";
        let shown = "AccessDenied Signature … has expired";
        assert_eq!(reason(message, &hiding(Secrets::of(&[&url], &HeaderMap::new()))).as_deref(), Some(shown));
    }
}
