//! The HTTP client against answers that the S3 server of the other tests does not give: redirects, and bodies of which
//! the server says as little as HTTP allows.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulk_core::{
    Body, Digest, DownloadOptions, ETag, Error, Event, Get, HttpClient, HttpOptions, HttpSource, Proxy, Request,
    Source, download,
};
use futures::{StreamExt, TryStreamExt};
use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use url::Url;

/// A server that gives these answers, one for each connection, and the heads of the requests that it took.
async fn serve(answers: impl IntoIterator<Item = String>) -> (Url, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let (taken, answers) = (heads.clone(), answers.into_iter().collect::<Vec<_>>());
    tokio::spawn(async move {
        for answer in answers {
            let mut stream = BufReader::new(listener.accept().await.unwrap().0);
            let mut head = String::new();
            while stream.read_line(&mut head).await.unwrap() > 2 {}
            taken.lock().unwrap().push(head.to_lowercase());
            stream.get_mut().write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, heads)
}

/// An answer that ends with its connection.
fn answer(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n{body}")
}

fn secrets() -> HeaderMap {
    let secrets = ["authorization", "x-amz-security-token", "x-api-key"];
    secrets.into_iter().map(|name| (name.parse().unwrap(), HeaderValue::from_static("secret"))).collect()
}

#[tokio::test]
async fn what_is_secret_stays_with_its_host_when_a_redirect_leads_away() {
    let (other, other_heads) = serve([answer("206 Partial Content\r\nContent-Range: bytes 2-4/5", "cde")]).await;
    let away = answer(&format!("302 Found\r\nLocation: {other}there"), "");
    let (first, first_heads) = serve([answer("307 Temporary Redirect\r\nLocation: /here", ""), away]).await;
    let mut get = Get::new("");
    get.start = 2;
    let url = first.join("?signature=secret").unwrap();
    let (_, body) = HttpClient::new().unwrap().get(&url, secrets(), &get).await.unwrap();
    assert_eq!((body.start, body.end, body.size), (2, Some(5), Some(5)));
    assert_eq!(body.bytes.try_collect::<Vec<_>>().await.unwrap().concat(), b"cde");

    let heads = first_heads.lock().unwrap().clone();
    assert_eq!(heads.len(), 2);
    assert!(heads[0].starts_with("get /?signature=secret "), "{heads:?}");
    assert!(heads[1].starts_with("get /here "), "{heads:?}");
    for head in heads {
        assert_eq!(head.matches(": secret\r\n").count(), 3, "{head}");
    }
    let heads = other_heads.lock().unwrap().clone();
    assert_eq!(heads.len(), 1);
    assert!(heads[0].starts_with("get /there ") && heads[0].contains("\r\nrange: bytes=2-\r\n"), "{heads:?}");
    assert!(!heads[0].contains("secret"), "{heads:?}");
}

#[tokio::test]
async fn what_is_written_goes_to_no_other_host() {
    let (other, other_heads) = serve([answer("200 OK", "taken")]).await;
    for status in [301, 302, 303, 307, 308] {
        let (first, heads) = serve([answer(&format!("{status} Elsewhere\r\nLocation: {other}"), "")]).await;
        let client = HttpClient::new().unwrap();
        let body = bytes::Bytes::from_static(b"secret");
        let error = client.write(http::Method::PUT, &first, secrets(), body, Duration::ZERO).await.unwrap_err();
        assert!(matches!(error, Error::Status { status: found, .. } if found == status), "{error:?}");
        assert_eq!(heads.lock().unwrap().len(), 1);
    }
    assert_eq!(*other_heads.lock().unwrap(), [""; 0]);
}

/// A server of another host, as far as the client knows: it is reached over a proxy.
#[tokio::test]
async fn no_server_elsewhere_leads_into_this_machine_or_its_clouds_metadata() {
    let (inside, inside_heads) = serve([answer("200 OK", "inside")]).await;
    for (location, what) in [
        (inside.as_str(), format!("it redirects to this machine, {inside}")),
        (
            "http://169.254.169.254/latest?secret",
            "it redirects to a link-local address, http://169.254.169.254/latest".to_owned(),
        ),
    ] {
        let (proxy, heads) = serve([answer(&format!("302 Found\r\nLocation: {location}"), "")]).await;
        let mut options = HttpOptions::default();
        options.proxy = Proxy::Url(proxy.to_string());
        let url: Url = "http://bucket.example/a".parse().unwrap();
        let error = HttpClient::with_options(&options).unwrap().read(&url, secrets(), 10).await.unwrap_err();
        assert_eq!(error.to_string(), format!("{url}: {what}"));
        assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
        assert_eq!(heads.lock().unwrap().len(), 1);
    }
    assert_eq!(*inside_heads.lock().unwrap(), [""; 0]);
}

#[tokio::test]
async fn redirects_that_lead_nowhere_are_errors() {
    let client = HttpClient::new().unwrap();
    let (url, heads) = serve((0..30).map(|_| answer("301 Moved Permanently\r\nLocation: /", ""))).await;
    let error = client.read(&url, HeaderMap::new(), 10).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{url}: more than 20 redirects"));
    assert_eq!(heads.lock().unwrap().len(), 21);

    for location in ["", "\r\nLocation: file:///etc/passwd"] {
        let (url, _) = serve([answer(&format!("302 Found{location}"), "")]).await;
        let error = client.read(&url, HeaderMap::new(), 10).await.unwrap_err();
        assert!(matches!(error, Error::Status { status: 302, .. }), "{error:?}");
    }
}

/// Asks for the bytes from `start` to `end` of `a`; gives the answer, or the message of the error, and the request.
async fn ask(start: u64, end: Option<u64>, answer: String) -> (Result<Body, Error>, String) {
    let mut get = Get::new("a");
    (get.start, get.end) = (start, end);
    ask_for(&get, answer).await
}

async fn ask_for(get: &Get, answer: String) -> (Result<Body, Error>, String) {
    let (url, heads) = serve([answer]).await;
    let result = HttpSource::new(url.as_str()).unwrap().get(get).await;
    let head = heads.lock().unwrap().concat();
    (result, head)
}

async fn content(body: Body) -> Result<String, Error> {
    Ok(String::from_utf8(body.bytes.try_collect::<Vec<_>>().await?.concat()).unwrap())
}

#[tokio::test]
async fn a_range_is_asked_for_and_taken_as_it_is_told() {
    const PART: &str = "206 Partial Content\r\nContent-Range: ";
    let ranges = [
        // (asked, sent as, answered, (end, size))
        ((2, None), Some("2-"), "bytes 2-4/5", (5, Some(5))),
        ((2, None), Some("2-"), "bytes 2-4/*", (5, None)),
        ((2, Some(5)), Some("2-4"), "bytes 2-4/9", (5, Some(9))),
        ((2, Some(9)), Some("2-8"), "bytes 2-4/5", (5, Some(5))),
        ((2, Some(5)), Some("2-4"), "bytes 2-4/*", (5, None)),
        ((2, Some(9)), Some("2-8"), "bytes 2-4/*", (5, None)),
    ];
    for ((start, end), sent, range, (body_end, size)) in ranges {
        for length in ["", "\r\nContent-Length: 3"] {
            let (body, head) = ask(start, end, answer(&format!("{PART}{range}{length}"), "cde")).await;
            let body = body.unwrap();
            let told = (body.start, body.end, body.size, body.has_ranges);
            assert_eq!(told, (start, Some(body_end), size, true), "{range}");
            assert_eq!(content(body).await.unwrap(), "cde");
            let sent = format!("\r\nrange: bytes={}\r\n", sent.unwrap());
            assert!(head.contains(&sent) && head.contains("\r\naccept-encoding: identity\r\n"), "{head}");
        }
    }
    let (body, head) = ask(0, Some(1), answer(&format!("{PART}bytes 0-0/5"), "a")).await;
    assert_eq!(content(body.unwrap()).await.unwrap(), "a");
    assert!(head.contains("\r\nrange: bytes=0-0\r\n"), "{head}");
    let (body, head) = ask(0, None, answer("200 OK\r\nContent-Length: 5", "abcde")).await;
    assert_eq!(content(body.unwrap()).await.unwrap(), "abcde");
    assert!(!head.contains("range"), "{head}");
}

#[tokio::test]
async fn a_partial_answer_that_is_not_the_range_asked_for_is_refused() {
    let wrong = [
        ((2, None), "Content-Range: bytes 1-4/5"),
        ((2, None), "Content-Range: bytes 3-4/5"),
        ((2, None), "Content-Range: bytes 2-3/5"),
        ((2, None), "Content-Range: bytes 2-5/5"),
        ((2, None), "Content-Range: items 2-4/5"),
        ((2, None), "Content-Range: bytes */5"),
        ((2, None), "X-None: "),
        ((2, None), "Content-Range: bytes 2-4/5\r\nContent-Length: 2"),
        ((2, None), "Content-Range: bytes 2-4/*\r\nContent-Length: 4"),
        ((2, Some(5)), "Content-Range: bytes 2-3/9"),
        ((2, Some(5)), "Content-Range: bytes 2-5/9"),
        ((2, Some(9)), "Content-Range: bytes 2-3/5"),
        ((2, Some(5)), "Content-Range: bytes 2-5/*"),
        ((0, None), "Content-Range: bytes 0-2/3"),
        ((2, Some(5)), "Content-Type: multipart/byteranges; boundary=x"),
        ((2, Some(5)), "Content-Range: bytes 2-4/9\r\nContent-Type: Multipart/ByteRanges;boundary=x"),
        ((2, Some(5)), "Content-Range: bytes 2-4/9\r\nContent-Encoding: gzip"),
    ];
    for ((start, end), headers) in wrong {
        let (result, _) = ask(start, end, answer(&format!("206 Partial Content\r\n{headers}"), "cde")).await;
        let Err(error) = result else { panic!("{headers:?} is taken for {start}-{end:?}") };
        assert!(matches!(error, Error::Protocol { .. }) && error.is_transient(), "{headers}: {error:?}");
    }
    let (result, _) = ask(2, Some(5), answer("206 Partial Content\r\nContent-Range: bytes 2-3/9", "cd")).await;
    let message = result.err().unwrap().to_string();
    let expected = "a: asked for bytes=2-4, the server sent Content-Range \"bytes 2-3/9\"";
    assert!(message.ends_with(expected), "{message}");
    let (result, _) = ask(2, Some(2), String::new()).await;
    assert!(result.err().unwrap().to_string().ends_with("a: the range asked for is empty"));
}

#[tokio::test]
async fn a_whole_answer_to_a_range_is_the_whole() {
    let heads = ["Accept-Ranges: bytes", "Content-Range: bytes 2-4/5", "Content-Type: multipart/byteranges"];
    for head in heads {
        let (body, _) = ask(2, Some(4), answer(&format!("200 OK\r\nContent-Length: 5\r\n{head}"), "abcde")).await;
        let body = body.unwrap();
        assert_eq!((body.start, body.end, body.size, body.has_ranges), (0, Some(5), Some(5), false), "{head}");
        assert_eq!(content(body).await.unwrap(), "abcde");
    }
    for (head, has_ranges) in [("Accept-Ranges: none", false), ("Accept-Ranges: Bytes", true), ("X-None: ", false)] {
        let (body, _) = ask(0, None, answer(&format!("200 OK\r\n{head}"), "abcde")).await;
        let body = body.unwrap();
        assert_eq!((body.start, body.end, body.size, body.has_ranges), (0, None, None, has_ranges), "{head}");
        assert_eq!(content(body).await.unwrap(), "abcde");
    }
    for status in ["204 No Content", "202 Accepted"] {
        let error = ask(0, None, answer(status, "")).await.0.err().unwrap();
        assert!(error.to_string().ends_with(&format!("a: a GET was answered with status {}", &status[..3])), "{error}");
    }
}

#[tokio::test]
async fn a_range_under_the_status_of_the_whole_is_that_range_if_all_headers_agree() {
    const MD5: &str = "Content-MD5: kAFQmDzST7DWlj99KOF/cg==";
    let head = format!("200 OK\r\nContent-Length: 3\r\n{MD5}\r\nContent-Range: bytes 2-4");
    for (end, size) in [(None, 5), (Some(5), 9), (Some(9), 5)] {
        let body = ask(2, end, answer(&format!("{head}/{size}"), "cde")).await.0.unwrap();
        assert_eq!((body.start, body.end, body.size, body.has_ranges), (2, Some(5), Some(size), true), "{end:?}");
        // It is that of the part.
        assert_eq!(body.digests, []);
        assert_eq!(content(body).await.unwrap(), "cde");
    }
    // What does not agree is a whole object of three bytes, whatever the header says.
    for range in ["bytes 2-4/*", "bytes 1-3/9", "bytes 2-3/9", "bytes 2-5/9", "items 2-4/9", "bytes 2-4"] {
        let stray = format!("200 OK\r\nContent-Length: 3\r\nContent-Range: {range}");
        let body = ask(2, Some(5), answer(&stray, "abc")).await.0.unwrap();
        assert_eq!((body.start, body.end, body.size, body.has_ranges), (0, Some(3), Some(3), false), "{range}");
    }
    // Without a length nothing tells them apart.
    let body = ask(2, Some(5), answer("200 OK\r\nContent-Range: bytes 2-4/9", "cde")).await.0.unwrap();
    assert_eq!((body.start, body.end, body.size, body.has_ranges), (0, None, None, false));
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_its_range_ends_in_an_error() {
    let head = "206 Partial Content\r\nContent-Range: bytes 2-4/5";
    let (body, _) = ask(2, None, answer(head, "cd")).await;
    let Err(Error::Truncated { expected: 5, received: 4, .. }) = content(body.unwrap()).await else { panic!() };
    let (body, _) = ask(2, None, answer(head, "cdef")).await;
    let Err(Error::Protocol { what, .. }) = content(body.unwrap()).await else { panic!() };
    assert_eq!(what, "it sends more bytes than it announced");
}

#[tokio::test]
async fn a_range_that_cannot_be_satisfied_is_an_empty_object_or_a_changed_one() {
    let head = "416 Range Not Satisfiable\r\nETag: \"x\"";
    let s3 = |size| format!("<Error><Code>InvalidRange</Code><ActualObjectSize>{size}</ActualObjectSize></Error>");
    let empty = [answer(&format!("{head}\r\nContent-Range: bytes */0"), "nothing"), answer(head, &s3(0))];
    for answer in empty {
        let mut get = Get::new("a");
        get.end = Some(10);
        get.if_match = Some(ETag::new("x"));
        let body = ask_for(&get, answer.clone()).await.0.unwrap();
        assert_eq!((body.start, body.end, body.size, body.has_ranges), (0, Some(0), Some(0), true));
        assert_eq!(body.etag, Some(ETag::new("x")));
        assert_eq!(content(body).await.unwrap(), "");
        get.if_match = Some(ETag::new("y"));
        let error = ask_for(&get, answer).await.0.err().unwrap();
        assert!(error.to_string().ends_with("a changed: its ETag was y and is x"), "{error}");
    }
    let satisfiable = [answer(head, &s3(5)), answer(&format!("{head}\r\nContent-Range: bytes */5"), &s3(0))];
    let empty_now = answer(&format!("{head}\r\nContent-Range: bytes */0"), "");
    let changed = satisfiable.into_iter().chain([answer(head, "")]).map(|answer| (0, answer)).chain([(1, empty_now)]);
    for (start, answer) in changed {
        let error = ask(start, Some(10), answer.clone()).await.0.err().unwrap();
        assert!(matches!(&error, Error::Changed { what, .. } if what == "it is shorter than before"), "{answer}");
    }
}

#[tokio::test]
async fn a_version_that_is_asked_for_must_be_named_in_the_answer() {
    let mut get = Get::new("a");
    get.if_match = Some(ETag::new("x"));
    let (result, head) = ask_for(&get, answer("200 OK\r\nETag: \"x\"", "abc")).await;
    assert!(head.contains("\r\nif-match: \"x\"\r\n"), "{head}");
    assert_eq!(result.unwrap().etag, get.if_match);
    for (head, what) in [
        ("200 OK\r\nETag: \"y\"", "its ETag was x and is y"),
        ("200 OK", "its ETag was x and it has none now"),
        ("412 Precondition Failed", "it is not the version asked for"),
    ] {
        let error = ask_for(&get, answer(head, "abc")).await.0.err().unwrap();
        assert!(matches!(&error, Error::Changed { what: found, .. } if found == what), "{error:?}");
    }
}

#[tokio::test]
async fn coded_bytes_are_refused() {
    let (result, _) = ask(0, None, answer("200 OK\r\nContent-Encoding: gzip", "abc")).await;
    let error = result.err().unwrap();
    let message = error.to_string();
    assert!(message.ends_with("a: asked for the bytes as they are, the server sent them as gzip"), "{message}");
    let archive = Get::new("a.tar.gz");
    let (body, _) = ask_for(&archive, answer("200 OK\r\nContent-Encoding: x-gzip", "abc")).await;
    assert_eq!(content(body.unwrap()).await.unwrap(), "abc");
}

#[tokio::test]
async fn digests_of_the_whole_object_are_passed_on() {
    // Of "abc".
    let sha256 = "sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:";
    let headers =
        format!("Repr-Digest: sha-512=:AA==:\r\nRepr-Digest: {sha256}\r\nContent-MD5: kAFQmDzST7DWlj99KOF/cg==");
    let expected = [
        Digest::Sha256(*b"\xba\x78\x16\xbf\x8f\x01\xcf\xea\x41\x41\x40\xde\x5d\xae\x22\x23\xb0\x03\x61\xa3\x96\x17\x7a\x9c\xb4\x10\xff\x61\xf2\x00\x15\xad"),
        Digest::Md5(*b"\x90\x01\x50\x98\x3c\xd2\x4f\xb0\xd6\x96\x3f\x7d\x28\xe1\x7f\x72"),
    ];
    let (body, _) = ask(0, None, answer(&format!("200 OK\r\n{headers}"), "abc")).await;
    assert_eq!(body.unwrap().digests, expected);
    let part = format!("206 Partial Content\r\nContent-Range: bytes 1-2/3\r\n{headers}");
    let (body, _) = ask(1, None, answer(&part, "bc")).await;
    assert_eq!(body.unwrap().digests, expected[..1]);
}

#[tokio::test]
async fn the_token_that_a_refusal_repeats_is_not_shown() {
    let body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>ExpiredToken</Code><Message>The provided token \
                has expired.</Message><Token-0>FwoGZXIvYXdzSecret</Token-0><RequestId>1</RequestId></Error>";
    let refused = "(ExpiredToken The provided token has expired.)";
    for status in ["400 Bad Request", "403 Forbidden"] {
        let error = ask(0, None, answer(status, body)).await.0.err().unwrap();
        assert!(error.to_string().ends_with(refused), "{error}");
        assert!(!format!("{error:?}").contains("FwoGZXIvYXdzSecret"), "{error:?}");
    }
}

/// Fetches `a`, listed with five bytes; gives its content and what happened.
async fn fetch(url: &Url) -> (String, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = events.clone();
    let mut options = DownloadOptions::default();
    options.retry.initial = Duration::ZERO;
    options.observer = Arc::new(move |event: &Event<'_>| match event {
        Event::Retry { error, .. } => sink.lock().unwrap().push(format!("retry: {error}")),
        Event::Restarted { reason, discarded, .. } => {
            sink.lock().unwrap().push(format!("restart after {discarded}: {reason}"));
        }
        _ => {}
    });
    let mut request = Request::new("a");
    request.size = Some(5);
    let source = Arc::new(HttpSource::new(url.as_str()).unwrap());
    let deliveries: Vec<_> = download(source, [request], folder.path(), options).collect().await;
    let content = std::fs::read_to_string(&deliveries[0].outcome.as_ref().unwrap().path).unwrap();
    let events = events.lock().unwrap().clone();
    (content, events)
}

#[tokio::test]
async fn a_body_without_a_length_is_held_against_the_listing() {
    for size in ["*", "5"] {
        let range = format!("206 Partial Content\r\nETag: \"x\"\r\nContent-Range: bytes 3-4/{size}");
        let (url, heads) = serve([answer("200 OK\r\nETag: \"x\"", "abc"), answer(&range, "de")]).await;
        let (content, events) = fetch(&url).await;
        assert_eq!((content.as_str(), events), ("abcde", vec![format!("retry: {url}a ended after 3 of 5 bytes")]));
        assert!(heads.lock().unwrap()[1].contains("\r\nif-match: \"x\"\r\n"));
    }

    let (url, _) = serve([answer("200 OK", "abcdef"), answer("200 OK", "abcdef")]).await;
    let (content, events) = fetch(&url).await;
    let restart = "restart after 0: it has more than 5 bytes".to_owned();
    assert_eq!((content.as_str(), events), ("abcdef", vec![restart]));
}

#[tokio::test]
async fn an_answer_without_a_length_that_stays_short_of_the_listing_is_given_up() {
    let short = answer("200 OK\r\nETag: \"x\"", "abc");
    let (url, heads) = serve(std::iter::repeat_n(short, 50)).await;
    let folder = tempfile::tempdir().unwrap();
    let mut options = DownloadOptions::default();
    (options.retry.initial, options.retry.attempts) = (Duration::ZERO, 3);
    let mut request = Request::new("a");
    request.size = Some(5);
    let source = Arc::new(HttpSource::new(url.as_str()).unwrap());
    let fetching = download(source, [request], folder.path(), options).collect::<Vec<_>>();
    let deliveries = tokio::time::timeout(Duration::from_secs(60), fetching).await.expect("it asks for ever");
    let Err(Error::Exhausted { source, .. }) = &deliveries[0].outcome else { panic!("{deliveries:?}") };
    assert!(matches!(**source, Error::Truncated { expected: 5, received: 3, .. }), "{source:?}");
    // The first brought something, so that three more were allowed.
    assert_eq!(heads.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn without_a_version_nothing_is_resumed() {
    let whole = "200 OK\r\nContent-Length: 5";
    let (url, heads) = serve([answer(whole, "abc"), answer(whole, "vwxyz")]).await;
    let (content, events) = fetch(&url).await;
    assert_eq!(content, "vwxyz");
    assert_eq!(events.len(), 2);
    assert!(events[0].starts_with("retry: "), "{events:?}");
    assert_eq!(events[1], "restart after 3: the server names no version");
    assert!(!heads.lock().unwrap()[1].contains("range:"));
}
