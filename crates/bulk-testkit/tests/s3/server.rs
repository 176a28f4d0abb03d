//! The server as a whole: its buckets, whom it lets in, what it remembers of requests, and its end.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use bulk_testkit::s3::{Fault, RequestRecord, Rule, Server, Store};
use reqwest::StatusCode;

use super::support::{ALPHABET, Result, alphabet, client, get, leaves};

#[test]
fn an_unknown_bucket_is_an_error() -> Result {
    let server = alphabet()?;
    assert_eq!(server.put("c", "k", "").expect_err("no bucket").to_string(), "no such bucket: c");
    assert_eq!(server.get("b", "nothing")?, None);
    Ok(())
}

#[tokio::test]
async fn credentials_are_required_only_on_demand() -> Result {
    let builder =
        || Server::builder().bucket("b", Store::memory().with("abc", ALPHABET)).credentials("AKIAEXAMPLE", "secret");
    let open = builder().start()?;
    assert_eq!(get(&open, "/b/abc", &[]).await?.status(), StatusCode::OK);
    let closed = builder().require_credentials(true).start()?;
    let authorization = |key: &str| {
        format!("AWS4-HMAC-SHA256 Credential={key}/20240101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0")
    };
    for (authorization, status, code) in [
        (None, 403, "AccessDenied"),
        (Some(authorization("AKIAOTHER")), 403, "InvalidAccessKeyId"),
        (Some(authorization("AKIAEXAMPLE")), 403, "AccessDenied"),
        (Some("AWS4-HMAC-SHA256 nonsense".to_owned()), 400, "AuthorizationHeaderMalformed"),
        (Some("Basic YTpi".to_owned()), 400, "InvalidArgument"),
    ] {
        let headers: Vec<_> = authorization.iter().map(|value| ("authorization", value.as_str())).collect();
        let response = get(&closed, "/b/abc", &headers).await?;
        assert_eq!(response.status().as_u16(), status, "{authorization:?}");
        assert_eq!(leaves(&response.text().await?)?[0].1, code, "{authorization:?}");
    }
    // Nothing to verify with: the header is ignored.
    let response = get(&alphabet()?, "/b/abc", &[("authorization", &authorization("AKIAOTHER"))]).await?;
    assert_eq!(response.status(), StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn requests_are_recorded_as_they_were_sent() -> Result {
    let server = alphabet()?;
    let client = client();
    let url = server.url();
    client
        .get(format!("{url}/b/abc"))
        .header("range", "bytes=1-3")
        .header("if-match", "*")
        .send()
        .await?
        .bytes()
        .await?;
    client.get(format!("{url}/b?list-type=2&prefix=a%20b+c")).send().await?.bytes().await?;
    client.head(format!("{url}/b/a%2Fb")).send().await?;
    let requests = server.requests();
    let seen: Vec<_> = requests
        .iter()
        .map(|request| {
            let RequestRecord { method, bucket, key, range, if_match, status, .. } = request;
            (method.as_str(), bucket.as_str(), key.as_deref(), range.as_deref(), if_match.as_deref(), *status)
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("GET", "b", Some("abc"), Some("bytes=1-3"), Some("*"), Some(206)),
            ("GET", "b", None, None, None, Some(200)),
            ("HEAD", "b", Some("a/b"), None, None, Some(404)),
        ]
    );
    assert_eq!(requests[0].bytes_sent, 3);
    assert_eq!(requests[2].bytes_sent, 0);
    assert_eq!((requests[1].param("prefix"), requests[1].param("list-type")), (Some("a b c"), Some("2")));
    assert_eq!(requests[1].param("delimiter"), None);
    assert_eq!(requests[0].connection, requests[2].connection);
    assert!(requests[0].finished.is_some_and(|finished| finished >= requests[0].arrived));
    assert!(requests[0].arrived <= requests[1].arrived);
    server.clear_requests();
    assert_eq!(server.requests().len(), 0);
    Ok(())
}

#[test]
fn a_dropped_server_takes_its_connections_and_its_port_along() -> Result {
    let server = alphabet()?;
    let hang = server.fault(Rule::new(Fault::Hang).key("abc"));
    let address = server.url().trim_start_matches("http://").to_owned();
    let mut idle = TcpStream::connect(&address)?;
    let mut hanging = TcpStream::connect(&address)?;
    hanging.write_all(b"GET /b/abc HTTP/1.1\r\nhost: h\r\n\r\n")?;
    while hang.hits() == 0 {
        std::thread::yield_now();
    }
    assert_eq!(server.requests()[0].status, None);
    drop(server);
    // Closed or reset, but not left open.
    let end = |stream: &mut TcpStream| stream.read(&mut [0; 1]).map_or(0, |read| read);
    assert_eq!((end(&mut hanging), end(&mut idle)), (0, 0));
    assert_eq!(TcpStream::connect(&address).expect_err("nobody listens").kind(), io::ErrorKind::ConnectionRefused);
    Ok(())
}
