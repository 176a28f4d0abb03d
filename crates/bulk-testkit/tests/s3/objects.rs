//! Requests for one object: whole, in part, on a condition, and in vain.

use bulk_testkit::s3::{Object, Server, Store};
use http::Method;
use reqwest::StatusCode;

use super::support::{ALPHABET, ALPHABET_MD5, Result, alphabet, client, get, header, leaves, raw};

#[tokio::test]
async fn a_whole_object_comes_with_its_headers() -> Result {
    let server = alphabet()?;
    for method in [Method::GET, Method::HEAD] {
        let response = client().request(method.clone(), server.object_url("b", "abc")).send().await?;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(header(&response, "content-length"), Some("26"));
        assert_eq!(header(&response, "content-type"), Some("binary/octet-stream"));
        assert_eq!(header(&response, "etag"), Some(format!("\"{ALPHABET_MD5}\"").as_str()));
        assert_eq!(header(&response, "last-modified"), Some("Mon, 01 Jan 2024 00:00:00 GMT"));
        assert_eq!(header(&response, "accept-ranges"), Some("bytes"));
        assert_eq!(header(&response, "content-range"), None);
        let request_id = header(&response, "x-amz-request-id").ok_or("no request id")?;
        assert!(request_id.len() == 16 && request_id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{request_id}");
        let expected = if method == Method::GET { ALPHABET } else { "" };
        assert_eq!(response.text().await?, expected);
    }
    Ok(())
}

#[tokio::test]
async fn ranges_are_answered_with_their_part() -> Result {
    let server = alphabet()?;
    for (range, content_range, body) in [
        ("bytes=0-0", "bytes 0-0/26", "a"),
        ("bytes=2-5", "bytes 2-5/26", "cdef"),
        ("bytes=24-", "bytes 24-25/26", "yz"),
        ("bytes=-3", "bytes 23-25/26", "xyz"),
        ("bytes=20-99", "bytes 20-25/26", "uvwxyz"),
        ("bytes=-99", "bytes 0-25/26", ALPHABET),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let request = client().request(method.clone(), server.object_url("b", "abc")).header("range", range);
            let response = request.send().await?;
            assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT, "{range}");
            assert_eq!(header(&response, "content-range"), Some(content_range));
            assert_eq!(header(&response, "content-length"), Some(body.len().to_string().as_str()));
            assert_eq!(response.text().await?, if method == Method::GET { body } else { "" });
        }
    }
    for range in ["bytes=5-2", "bytes=0-1,4-5", "lines=1-2", "bytes=x"] {
        let response = get(&server, "/b/abc", &[("range", range)]).await?;
        assert_eq!(response.status(), StatusCode::OK, "{range}");
        assert_eq!(header(&response, "content-range"), None);
        assert_eq!(response.text().await?, ALPHABET);
    }
    Ok(())
}

#[tokio::test]
async fn a_range_outside_the_object_is_an_error_with_its_size() -> Result {
    let server = alphabet()?;
    let response = get(&server, "/b/abc", &[("range", "bytes=26-")]).await?;
    assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(header(&response, "content-range"), Some("bytes */26"));
    let id = header(&response, "x-amz-request-id").ok_or("no request id")?.to_owned();
    assert_eq!(
        response.text().await?,
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>InvalidRange</Code><Message>The requested range \
             is not satisfiable</Message><RangeRequested>bytes=26-</RangeRequested><ActualObjectSize>26\
             </ActualObjectSize><RequestId>{id}</RequestId></Error>"
        )
    );
    server.put("b", "empty", "")?;
    let response = get(&server, "/b/empty", &[("range", "bytes=0-")]).await?;
    assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(header(&response, "content-range"), Some("bytes */0"));
    let response = get(&server, "/b/empty", &[]).await?;
    assert_eq!((response.status(), header(&response, "content-length")), (StatusCode::OK, Some("0")));
    Ok(())
}

#[tokio::test]
async fn conditions_are_judged_before_ranges() -> Result {
    let server = alphabet()?;
    let quoted = format!("\"{ALPHABET_MD5}\"");
    let list = format!("\"0\", {quoted}");
    let weak = format!("W/{quoted}");
    let date = "Mon, 01 Jan 2024 00:00:00 GMT";
    for (name, value, status, body) in [
        ("if-match", quoted.as_str(), 206, "bc"),
        ("if-match", ALPHABET_MD5, 206, "bc"),
        ("if-match", "*", 206, "bc"),
        ("if-match", &list, 206, "bc"),
        ("if-none-match", "\"0\"", 206, "bc"),
        ("if-none-match", &quoted, 304, ""),
        ("if-none-match", "*", 304, ""),
        ("if-range", &quoted, 206, "bc"),
        ("if-range", date, 206, "bc"),
        ("if-range", "\"0\"", 200, ALPHABET),
        ("if-range", "Tue, 02 Jan 2024 00:00:00 GMT", 200, ALPHABET),
    ] {
        let response = get(&server, "/b/abc", &[(name, value), ("range", "bytes=1-2")]).await?;
        assert_eq!(response.status().as_u16(), status, "{name}: {value}");
        assert_eq!(header(&response, "etag"), Some(quoted.as_str()));
        assert_eq!(response.text().await?, body, "{name}: {value}");
    }
    for value in ["\"0\"", weak.as_str()] {
        let response = get(&server, "/b/abc", &[("if-match", value), ("range", "bytes=1-2")]).await?;
        assert_eq!(response.status(), StatusCode::PRECONDITION_FAILED);
        let leaves = leaves(&response.text().await?)?;
        assert_eq!(leaves[0], ("Code".to_owned(), "PreconditionFailed".to_owned()));
        assert_eq!(leaves[2], ("Condition".to_owned(), "If-Match".to_owned()));
    }
    Ok(())
}

#[tokio::test]
async fn what_is_not_there_or_not_known_is_an_s3_error() -> Result {
    let server = alphabet()?;
    for (method, path, status, code) in [
        ("GET", "/b/nothing%20%26", 404, "NoSuchKey"),
        ("GET", "/c/abc", 404, "NoSuchBucket"),
        ("GET", "/c?list-type=2", 404, "NoSuchBucket"),
        ("GET", "/b/%ff", 400, "InvalidURI"),
        ("GET", "/", 501, "NotImplemented"),
        ("GET", "/b?acl", 501, "NotImplemented"),
        ("GET", "/b?list-type=3", 501, "NotImplemented"),
        ("GET", "/b/abc?acl", 501, "NotImplemented"),
        ("POST", "/b/abc?restore", 501, "NotImplemented"),
        ("POST", "/b/abc?uploads", 403, "AccessDenied"),
        ("PATCH", "/b/abc", 405, "MethodNotAllowed"),
        ("PUT", "/b/abc", 403, "AccessDenied"),
        ("DELETE", "/b/abc", 403, "AccessDenied"),
    ] {
        let answer = raw(&server, method, path, &[], b"")?;
        assert_eq!(answer.status, status, "{method} {path}");
        assert!(answer.head.contains("content-type: application/xml"), "{}", answer.head);
        assert_eq!(leaves(answer.text())?[0], ("Code".to_owned(), code.to_owned()), "{method} {path}");
    }
    let missing = get(&server, "/b/nothing%20%26", &[]).await?;
    let id = header(&missing, "x-amz-request-id").ok_or("no request id")?.to_owned();
    assert_eq!(
        missing.text().await?,
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code><Message>The specified key does \
             not exist.</Message><Key>nothing &amp;</Key><RequestId>{id}</RequestId></Error>"
        )
    );
    let head = raw(&server, "HEAD", "/b/nothing", &[], b"")?;
    assert_eq!((head.status, head.body.len()), (404, 0));
    assert_eq!(raw(&server, "HEAD", "/b", &[], b"")?.status, 200);
    assert_eq!(raw(&server, "HEAD", "/c", &[], b"")?.status, 404);
    assert_eq!(server.get("b", "abc")?.as_deref(), Some(ALPHABET.as_bytes()));
    Ok(())
}

#[tokio::test]
async fn made_up_objects_are_as_large_as_they_say() -> Result {
    const SIZE: u64 = 100_000_000_000;
    let store = Store::memory()
        .with("zeros", Object::zeros(SIZE))
        .with("pattern", Object::repeating(SIZE, b"0123456"))
        .with(
            "numbers",
            Object::generated(SIZE, |offset, out| {
                for (byte, position) in out.iter_mut().zip(offset..) {
                    *byte = (position / 3) as u8;
                }
            }),
        )
        .with("parts", Object::new(ALPHABET).multipart(3));
    let server = Server::builder().bucket("b", store).start()?;
    let part = async |key: &str, from: u64, len: u64| {
        let range = format!("bytes={from}-{}", from + len - 1);
        let response = get(&server, &format!("/b/{key}"), &[("range", &range)]).await?;
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
        Result::<_>::Ok(response.bytes().await?)
    };
    server.put("b", "long", Object::repeating(900_000, &[7; 500_000]))?;
    server.put("b", "short", Object::repeating(5, b"abc"))?;
    assert_eq!(get(&server, "/b/long", &[]).await?.bytes().await?, vec![7; 900_000]);
    assert_eq!(get(&server, "/b/short", &[]).await?.text().await?, "abcab");
    assert_eq!(part("short", 2, 2).await?, "ca");
    for from in [0, 1, 262_143, SIZE - 1_000_000] {
        assert_eq!(part("zeros", from, 1_000_000).await?, vec![0; 1_000_000]);
        let expected: Vec<_> = (from..from + 1_000_000).map(|offset| b'0' + (offset % 7) as u8).collect();
        assert_eq!(part("pattern", from, 1_000_000).await?, expected);
        let expected: Vec<_> = (from..from + 1_000_000).map(|offset| (offset / 3) as u8).collect();
        assert_eq!(part("numbers", from, 1_000_000).await?, expected);
    }
    let etag = async |key| {
        let response = client().head(server.object_url("b", key)).send().await?;
        Result::<_>::Ok(header(&response, "etag").unwrap_or_default().trim_matches('"').to_owned())
    };
    let zeros = etag("zeros").await?;
    let (hash, parts) = zeros.split_once('-').ok_or("a plain ETag")?;
    assert_eq!((hash.len(), parts), (32, "10000"));
    assert_ne!(etag("pattern").await?, zeros);
    let parts = etag("parts").await?;
    assert!(parts.ends_with("-3") && !parts.starts_with(ALPHABET_MD5), "{parts}");
    Ok(())
}
