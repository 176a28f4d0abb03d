//! The HTTP client against answers that the S3 server of the other tests does not give: redirects, and bodies of which
//! the server says as little as HTTP allows.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulk_core::{DownloadOptions, Error, Event, Get, HttpClient, HttpSource, Request, download};
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
    let body = HttpClient::new().unwrap().get(&url, secrets(), &get).await.unwrap();
    assert_eq!((body.start, body.size), (2, Some(5)));
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
    let restart = "restart after 6: it was listed with 5 bytes and has 6".to_owned();
    assert_eq!((content.as_str(), events), ("abcdef", vec![restart]));
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
