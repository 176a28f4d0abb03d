//! The faults that a rule brings about.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bulk_testkit::s3::{EtagStyle, Fault, FaultHandle, Object, Rule, Server, Store};
use http::Method;
use reqwest::StatusCode;

use super::support::{ALPHABET, Result, client, get, header, leaves, list, raw};

const MEGABYTE: usize = 1_000_000;

fn with_rule(rule: Rule) -> Result<(Server, FaultHandle)> {
    let store = Store::memory().with("abc", ALPHABET).with("big", Object::repeating(MEGABYTE as u64, b"0123456789"));
    let server = Server::builder().bucket("b", store).start()?;
    let handle = server.fault(rule);
    Ok((server, handle))
}

#[test]
fn an_error_comes_as_often_as_asked() -> Result {
    let (server, handle) = with_rule(Rule::new(Fault::slow_down()).key("abc").first(2))?;
    let statuses: Vec<_> =
        (0..4).map(|_| Ok(raw(&server, "GET", "/b/abc", &[], b"")?.status)).collect::<Result<_>>()?;
    assert_eq!(statuses, [503, 503, 200, 200]);
    assert_eq!(handle.hits(), 2);

    server.fault(Rule::new(Fault::too_many_requests(7)).key("abc").nth(2));
    assert_eq!(raw(&server, "GET", "/b/abc", &[], b"")?.status, 200);
    let answer = raw(&server, "GET", "/b/abc", &[], b"")?;
    assert_eq!(answer.status, 429);
    assert!(answer.head.contains("retry-after: 7\r\n"), "{}", answer.head);
    assert_eq!(leaves(answer.text())?[0].1, "TooManyRequests");
    assert_eq!(raw(&server, "GET", "/b/abc", &[], b"")?.status, 200);

    let handle = server.fault(Rule::new(Fault::internal_error()));
    let answer = raw(&server, "GET", "/b/abc", &[], b"")?;
    assert_eq!((answer.status, leaves(answer.text())?[0].1.as_str()), (500, "InternalError"));
    assert!(!answer.head.contains("retry-after"), "{}", answer.head);
    assert_eq!(raw(&server, "GET", "/b?list-type=2", &[], b"")?.status, 500);
    handle.remove();
    assert_eq!(raw(&server, "GET", "/b/abc", &[], b"")?.status, 200);
    assert_eq!(handle.hits(), 2);
    Ok(())
}

#[test]
fn a_rule_is_about_what_it_names() -> Result {
    const LIST: &str = "/b?list-type=2";
    let fault = || Rule::new(Fault::internal_error());
    for (rule, struck) in [
        (fault(), [true, true, true, true, true]),
        (fault().list(), [false, false, false, false, true]),
        (fault().key("abc"), [true, true, false, false, false]),
        (fault().prefix("a"), [true, true, false, false, false]),
        (fault().suffix("g"), [false, false, true, true, false]),
        (fault().method(Method::GET), [true, false, true, true, true]),
        (fault().method(Method::HEAD).key("abc"), [false, true, false, false, false]),
        (fault().containing(20), [true, true, true, false, false]),
        (fault().containing(5), [true, true, false, true, false]),
    ] {
        let (server, _) = with_rule(rule.clone())?;
        let seen = [
            ("GET", "/b/abc", None),
            ("HEAD", "/b/abc", None),
            ("GET", "/b/big", Some("bytes=10-")),
            ("GET", "/b/big", Some("bytes=5-19")),
            ("GET", LIST, None),
        ]
        .map(|(method, path, range)| {
            let headers: Vec<_> = range.iter().map(|range| ("range", *range)).collect();
            raw(&server, method, path, &headers, b"").map(|answer| answer.status == 500)
        });
        assert_eq!(seen.into_iter().collect::<Result<Vec<_>>>()?, struck, "{rule:?}");
    }
    Ok(())
}

#[test]
fn latency_and_bandwidth_add_up() -> Result {
    let (server, latency) = with_rule(Rule::new(Fault::Latency(Duration::from_millis(60))).key("big"))?;
    let bandwidth = server.fault(Rule::new(Fault::Bandwidth(10_000_000)).key("big"));
    let start = Instant::now();
    let answer = raw(&server, "GET", "/b/big", &[], b"")?;
    // Waiting is the contract, so this cannot fail on a slow machine.
    assert!(start.elapsed() >= Duration::from_millis(160), "{:?}", start.elapsed());
    assert_eq!(answer.body, b"0123456789".repeat(MEGABYTE / 10));
    assert_eq!((latency.hits(), bandwidth.hits()), (1, 1));
    Ok(())
}

#[test]
fn a_reset_loses_the_rest() -> Result {
    for after in [0, 1, 10, 100_000] {
        let (server, handle) = with_rule(Rule::new(Fault::ResetAfter(after)).key("big").first(1))?;
        let mut stream = TcpStream::connect(server.url().trim_start_matches("http://"))?;
        stream.write_all(b"GET /b/big HTTP/1.1\r\nhost: h\r\n\r\n")?;
        let mut bytes = Vec::new();
        let error = stream.read_to_end(&mut bytes).expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let head = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
        let body = &bytes[head..];
        assert!(body.len() as u64 <= after, "{}", body.len());
        assert_eq!(body, &b"0123456789".repeat(10_000)[..body.len()]);
        assert_eq!(server.requests()[0].bytes_sent, after);
        assert_eq!(handle.hits(), 1);
        assert_eq!(raw(&server, "GET", "/b/big", &[], b"")?.body.len(), MEGABYTE);
    }
    Ok(())
}

#[tokio::test]
async fn a_reset_is_an_error_to_a_client() -> Result {
    let (server, _) = with_rule(Rule::new(Fault::ResetAfter(500_000)).key("big"))?;
    let response = get(&server, "/b/big", &[]).await?;
    assert_eq!(header(&response, "content-length"), Some("1000000"));
    assert!(response.bytes().await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_truncated_body_ends_in_order_and_too_early() -> Result {
    for after in [0, 1, 13, 300_000, 999_999] {
        let (server, _) = with_rule(Rule::new(Fault::Truncate(after)).key("big"))?;
        let answer = raw(&server, "GET", "/b/big", &[], b"")?;
        assert!(answer.head.contains("content-length: 1000000"), "{}", answer.head);
        assert!(answer.end.is_ok(), "{:?}", answer.end);
        assert_eq!(answer.body, b"0123456789".repeat(MEGABYTE / 10)[..after as usize]);
        assert!(get(&server, "/b/big", &[]).await?.bytes().await.is_err());
    }
    let (server, handle) = with_rule(Rule::new(Fault::Truncate(26)).key("abc"))?;
    assert_eq!(get(&server, "/b/abc", &[]).await?.text().await?, ALPHABET);
    assert_eq!(handle.hits(), 1);
    let (server, _) = with_rule(Rule::new(Fault::Truncate(100)).list())?;
    let answer = raw(&server, "GET", "/b?list-type=2", &[], b"")?;
    assert_eq!((answer.status, answer.body.len()), (200, 100));
    Ok(())
}

#[test]
fn a_corrupt_byte_is_where_it_was_asked_for() -> Result {
    let (server, _) = with_rule(Rule::new(Fault::CorruptByte(3)))?;
    server.fault(Rule::new(Fault::CorruptByte(700_000)));
    let mut expected = b"0123456789".repeat(MEGABYTE / 10);
    expected[3] ^= 0xff;
    expected[700_000] ^= 0xff;
    assert!(raw(&server, "GET", "/b/big", &[], b"")?.body == expected);
    for (range, part) in
        [("bytes=3-5", 3..6), ("bytes=0-3", 0..4), ("bytes=4-9", 4..10), ("bytes=700000-", 700_000..MEGABYTE)]
    {
        assert!(raw(&server, "GET", "/b/big", &[("range", range)], b"")?.body == expected[part], "{range}");
    }
    Ok(())
}

#[tokio::test]
async fn a_server_may_not_know_ranges() -> Result {
    let (server, handle) = with_rule(Rule::new(Fault::NoRange).key("abc"))?;
    let response = get(&server, "/b/abc", &[("range", "bytes=2-5")]).await?;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(&response, "content-range"), None);
    assert_eq!(response.text().await?, ALPHABET);
    assert_eq!(handle.hits(), 1);
    Ok(())
}

#[tokio::test]
async fn a_content_range_may_lie() -> Result {
    let (server, _) = with_rule(Rule::new(Fault::WrongContentRange).key("abc"))?;
    let response = get(&server, "/b/abc", &[("range", "bytes=2-5")]).await?;
    assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(header(&response, "content-range"), Some("bytes 3-6/26"));
    assert_eq!(response.text().await?, "cdef");
    Ok(())
}

#[tokio::test]
async fn an_object_may_be_replaced_under_a_reader() -> Result {
    let folder = tempfile::tempdir()?;
    for store in [Store::memory(), Store::folder(folder.path(), EtagStyle::Md5)] {
        let server = Server::builder().bucket("b", store.with("k", "old ".repeat(1000))).start()?;
        let fault = Fault::ReplaceMidway { after_bytes: 1002, with: Object::new("new") };
        server.fault(Rule::new(fault).key("k").first(1));
        let answer = raw(&server, "GET", "/b/k", &[], b"")?;
        assert_eq!(answer.body, "old ".repeat(1000).as_bytes()[..1002]);
        let etag = answer.head.lines().find_map(|line| line.strip_prefix("etag: ")).ok_or("no ETag")?.to_owned();
        let headers = [("range", "bytes=1002-"), ("if-match", etag.as_str())];
        assert_eq!(get(&server, "/b/k", &headers).await?.status(), StatusCode::PRECONDITION_FAILED);
        assert_eq!(get(&server, "/b/k", &[]).await?.text().await?, "new");
    }
    Ok(())
}

#[tokio::test]
async fn html_may_come_instead_of_xml() -> Result {
    let (server, _) = with_rule(Rule::new(Fault::HtmlInsteadOfXml).list().first(1))?;
    let response = get(&server, "/b?list-type=2", &[]).await?;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(&response, "content-type"), Some("text/html; charset=utf-8"));
    assert!(response.text().await?.starts_with("<!DOCTYPE html>\n<html>"));
    assert_eq!(list(&server, "").await?.keys, ["abc", "big"]);
    Ok(())
}

#[tokio::test]
async fn a_hanging_request_ends_with_its_client() -> Result {
    let (server, handle) = with_rule(Rule::new(Fault::Hang).key("abc"))?;
    let response = client().get(server.object_url("b", "abc")).timeout(Duration::from_millis(200)).send().await;
    assert!(response.expect_err("no answer").is_timeout());
    assert_eq!(handle.hits(), 1);
    assert_eq!(get(&server, "/b/big", &[]).await?.bytes().await?.len(), MEGABYTE);
    server.clear_faults();
    assert_eq!(get(&server, "/b/abc", &[]).await?.text().await?, ALPHABET);
    Ok(())
}

#[tokio::test]
async fn a_hanging_request_fails_when_it_is_released() -> Result {
    let (server, handle) = with_rule(Rule::new(Fault::Hang).key("abc"))?;
    let url = server.object_url("b", "abc");
    let hanging = tokio::spawn(async move { client().get(url).send().await.map(|response| response.status()) });
    while handle.hits() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!hanging.is_finished());
    handle.release();
    assert_eq!(hanging.await??, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(get(&server, "/b/abc", &[]).await?.text().await?, ALPHABET);
    Ok(())
}
