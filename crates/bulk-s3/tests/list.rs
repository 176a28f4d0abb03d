//! Listings against our own server and against one that we did not write.

use bulk_core::{Get, Source};
use bulk_s3::{Bucket, BucketOptions, Credentials, Error, Object};
use bulk_testkit::moto;
use bulk_testkit::s3::{Fault, Rule, Server, Store};
use futures::{StreamExt, TryStreamExt};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

fn bucket(endpoint: &str, credentials: Credentials) -> Bucket {
    let mut options = BucketOptions::default();
    options.endpoint = Some(endpoint.to_owned());
    options.credentials = credentials;
    options.retry.initial = std::time::Duration::ZERO;
    options.retry.attempts = 3;
    Bucket::new("data", options).unwrap()
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("bulk-data/{number:05}.csv.bz2")).collect()
}

fn serve(keys: &[String]) -> Server {
    let store = keys.iter().fold(Store::memory(), |store, key| store.with(key, key.as_bytes().to_vec()));
    Server::builder().bucket("data", store).start().unwrap()
}

async fn list(bucket: &Bucket, prefix: &str) -> Result<Vec<Object>, Error> {
    bucket.list(prefix).try_collect().await
}

#[tokio::test]
async fn all_pages_are_read() {
    for (count, pages) in [(0, 1), (1, 1), (999, 1), (1000, 1), (1001, 2), (2500, 3)] {
        let wanted = keys(count);
        let server = serve(&wanted);
        server.put("data", "elsewhere", "x").unwrap();
        let found = list(&bucket(&server.url(), Credentials::Anonymous), "bulk-data/").await.unwrap();
        let found: Vec<_> = found.into_iter().map(|object| object.key).collect();
        assert_eq!(found, wanted);
        assert_eq!(server.requests().len(), pages, "{count} keys");
    }
}

#[tokio::test]
async fn odd_keys_round_trip() {
    let mut wanted: Vec<String> = [
        "a//b",
        "/a",
        "a/./b",
        "a/../b",
        "a b",
        "a+b",
        "a%2Fb",
        "a%b",
        "a/",
        "a\u{1}b",
        "a\tb",
        "a&b<c>\"d'",
        "é/ü/漢/😀",
    ]
    .map(str::to_owned)
    .to_vec();
    wanted.push("x".repeat(1024));
    wanted.sort();
    let server = serve(&wanted);
    let bucket = bucket(&server.url(), Credentials::Anonymous);
    let found = list(&bucket, "").await.unwrap();
    assert_eq!(found.iter().map(|object| &object.key).collect::<Vec<_>>(), wanted.iter().collect::<Vec<_>>());
    for key in wanted {
        let body = match bucket.get(&Get::new(&key)).await {
            Ok(body) => body,
            // Every URL library resolves such segments, so no GET can name these keys.
            Err(bulk_core::Error::Url { .. }) if key.contains("/.") => continue,
            Err(error) => panic!("{key:?}: {error}"),
        };
        let bytes: Vec<_> = body.bytes.try_collect::<Vec<_>>().await.unwrap().concat();
        assert_eq!(bytes, key.as_bytes(), "{key:?}");
    }
}

#[tokio::test]
async fn signed_requests_are_accepted_and_unsigned_ones_denied() {
    let store = Store::memory().with("a b+c", "content");
    let server = Server::builder()
        .bucket("data", store)
        .credentials("AKIDEXAMPLE", "secret")
        .require_credentials(true)
        .start()
        .unwrap();
    let pair = |secret: &str| Credentials::Static { key_id: "AKIDEXAMPLE".into(), secret: secret.into(), token: None };
    let signed = bucket(&server.url(), pair("secret"));
    assert_eq!(list(&signed, "a ").await.unwrap()[0].key, "a b+c");
    let mut get = Get::new("a b+c");
    get.start = 3;
    let body = signed.get(&get).await.unwrap();
    assert_eq!(body.bytes.try_collect::<Vec<_>>().await.unwrap().concat(), b"tent");
    for refused in [pair("another"), Credentials::Anonymous] {
        let error = list(&bucket(&server.url(), refused), "").await.unwrap_err();
        assert!(error.is_denied(), "{error}");
        assert!(!error.to_string().contains("another"), "{error}");
    }
}

#[tokio::test]
async fn faults_are_retried_and_nonsense_is_refused() {
    let wanted = keys(1500);
    let server = serve(&wanted);
    server.fault(Rule::new(Fault::slow_down()).list().nth(2));
    let anonymous = bucket(&server.url(), Credentials::Anonymous);
    assert_eq!(list(&anonymous, "").await.unwrap().len(), 1500);
    assert_eq!(server.requests().len(), 3);

    server.fault(Rule::new(Fault::HtmlInsteadOfXml).list());
    let error = list(&anonymous, "bulk-data/").await.unwrap_err();
    assert!(
        error.to_string().starts_with("the listing of s3://data/bulk-data/ is unusable: the answer is no listing: <"),
        "{error}"
    );

    let mut stream = Box::pin(bucket("http://127.0.0.1:1", Credentials::Anonymous).list(""));
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(error.is_remote(), "{error}");
    assert!(stream.next().await.is_none());
}

/// A server whose every page is what `page` makes of the token asked for (empty for the first). Gives its URL.
async fn serve_pages(page: impl Fn(&str) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let (mut token, mut line) = (String::new(), String::new());
            while stream.read_line(&mut line).await.unwrap() > 2 {
                let after = ["continuation-token=", "version-id-marker="].iter().find_map(|name| line.split_once(name));
                if let Some((_, rest)) = after {
                    token = rest.split(['&', ' ']).next().unwrap().to_owned();
                }
                line.clear();
            }
            let body = page(&token);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.get_mut().write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
    });
    url
}

fn page(keys: &[&str], next: Option<&str>) -> String {
    let contents = keys.iter().map(|key| format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>"));
    let token = next.map(|token| format!("<NextContinuationToken>{token}</NextContinuationToken>"));
    format!(
        "<ListBucketResult>{}<IsTruncated>{}</IsTruncated>{}</ListBucketResult>",
        contents.collect::<String>(),
        next.is_some(),
        token.unwrap_or_default()
    )
}

/// The keys up to the end or the error, and the error.
async fn list_all(url: &str) -> (Vec<String>, Option<String>) {
    let mut stream = Box::pin(bucket(url, Credentials::Anonymous).list(""));
    let mut keys = Vec::new();
    while let Some(item) = stream.next().await {
        match item {
            Ok(object) => keys.push(object.key),
            Err(error) => {
                assert!(stream.next().await.is_none());
                return (keys, Some(error.to_string()));
            }
        }
    }
    (keys, None)
}

#[tokio::test]
async fn a_listing_that_goes_round_in_circles_ends_with_an_error() {
    let circle = |token: &str| match token {
        "" => page(&["a"], Some("A")),
        "A" => page(&["c", "b"], Some("B")),
        _ => page(&["a", "c"], Some("A")),
    };
    let error = r#"the listing of s3://data/ is unusable: a page brings no key greater than "c", which came before"#;
    let expected = (["a", "c", "b"].map(str::to_owned).to_vec(), Some(error.to_owned()));
    assert_eq!(list_all(&serve_pages(circle).await).await, expected);

    let itself = |_: &str| page(&[], Some("A"));
    let error = "the listing of s3://data/ is unusable: a page names itself as the next one";
    assert_eq!(list_all(&serve_pages(itself).await).await, (Vec::new(), Some(error.to_owned())));
}

#[tokio::test]
async fn versions_that_go_round_in_circles_end_with_an_error() {
    let page = |next: String| {
        let version = "<Version><Key>a</Key><VersionId>1</VersionId><Size>1</Size></Version>";
        let next = format!("<NextKeyMarker>a</NextKeyMarker><NextVersionIdMarker>{next}</NextVersionIdMarker>");
        format!("<ListVersionsResult>{version}<IsTruncated>true</IsTruncated>{next}</ListVersionsResult>")
    };
    let error =
        r#"the listing of s3://data/ is unusable: a page names one at "a" as the next, which does not lie behind it"#;
    // Pages that lead into the circle, and pages of it.
    for (before, circle) in [(0, 1), (0, 2), (1, 2), (5, 3), (2, 40), (40, 7)] {
        let next = move |token: &str| match token.parse().unwrap_or(0) {
            last if last == before + circle => before + 1,
            number => number + 1,
        };
        let server = serve_pages(move |token| page(next(token).to_string())).await;
        let mut versions = bucket(&server, Credentials::Anonymous).versions("");
        let mut pages = 0;
        let found = loop {
            match versions.next().await {
                Some(Ok(_)) => pages += 1,
                end => break end.map(|end| end.unwrap_err().to_string()),
            }
        };
        assert_eq!(found.as_deref(), Some(error));
        assert!((before + circle..=4 * (before + circle)).contains(&pages), "{before} and {circle}: {pages}");
    }
}

#[tokio::test]
async fn a_thousand_pages_in_a_row_may_be_empty() {
    let empty_pages = |count: u32| {
        move |token: &str| match token.parse().unwrap_or(0) {
            0 => page(&["a"], Some("1")),
            number if number <= count => page(&[], Some(&(number + 1).to_string())),
            _ => page(&["b"], None),
        }
    };
    let both = ["a", "b"].map(str::to_owned).to_vec();
    assert_eq!(list_all(&serve_pages(empty_pages(1000)).await).await, (both, None));
    let error = "the listing of s3://data/ is unusable: more than 1000 pages in a row have no keys";
    assert_eq!(list_all(&serve_pages(empty_pages(1001)).await).await, (vec!["a".to_owned()], Some(error.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_we_did_not_write_is_listed_and_read() {
    let server = tokio::task::spawn_blocking(|| {
        let server = moto::Server::start().unwrap();
        server.create_bucket("data").unwrap();
        for key in ["a/1", "a b+c", "é"].iter().map(|key| (*key).to_owned()).chain(keys(1001)) {
            server.put("data", &key, key.as_bytes()).unwrap();
        }
        server
    })
    .await
    .unwrap();
    let pair = Credentials::Static { key_id: "testing".into(), secret: "testing".into(), token: None };
    let bucket = bucket(&server.url(), pair);
    assert_eq!(list(&bucket, "bulk-data/").await.unwrap().len(), 1001);
    for key in ["a/1", "a b+c", "é"] {
        assert_eq!(list(&bucket, key).await.unwrap()[0].key, key);
        let body = bucket.get(&Get::new(key)).await.unwrap();
        assert_eq!(body.bytes.try_collect::<Vec<_>>().await.unwrap().concat(), key.as_bytes());
    }
}
