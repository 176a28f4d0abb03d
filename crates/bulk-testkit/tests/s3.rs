//! The loopback S3 server, read by reqwest, by quick-xml, and by bare sockets where a client would tidy up the URL.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use bulk_testkit::s3::{EtagStyle, Fault, Object, RequestRecord, Rule, Server, Store};
use http::Method;
use md5::{Digest, Md5};
use quick_xml::{Reader, events::Event};
use reqwest::{Client, Response, StatusCode};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const ALPHABET: &str = "abcdefghijklmnopqrstuvwxyz";
/// `printf abcdefghijklmnopqrstuvwxyz | md5sum`
const ALPHABET_MD5: &str = "c3fcd3d76192e4007dfb496cca67e13b";

fn alphabet() -> Result<Server> {
    Ok(Server::builder().bucket("b", Store::memory().with("abc", ALPHABET)).start()?)
}

/// Does not decode, redirect, or use a proxy.
fn client() -> Client {
    Client::builder().no_proxy().build().expect("a client")
}

async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Result<Response> {
    let mut request = client().get(format!("{}{path}", server.url()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Ok(request.send().await?)
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// An answer as it came over a connection that was read to its end.
#[derive(Debug)]
struct Raw {
    status: u16,
    head: String,
    body: Vec<u8>,
    end: io::Result<()>,
}

impl Raw {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }
}

/// Sends the path to the letter.
fn raw(server: &Server, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Raw> {
    let mut stream = TcpStream::connect(server.url().trim_start_matches("http://"))?;
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: loopback\r\nconnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    if method == "PUT" {
        request += &format!("content-length: {}\r\n", body.len());
    }
    stream.write_all(format!("{request}\r\n").as_bytes())?;
    stream.write_all(body)?;
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes).map(drop);
    let Some(split) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Err(format!("no head in {bytes:?}, {end:?}").into());
    };
    let head = String::from_utf8(bytes[..split].to_vec())?;
    let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
    Ok(Raw { status, head, body: bytes[split + 4..].to_vec(), end })
}

/// The leaves of a document: the path of element names below the root, and the text.
fn leaves(xml: &str) -> Result<Vec<(String, String)>> {
    let mut reader = Reader::from_str(xml);
    let (mut path, mut leaves, mut text) = (Vec::new(), Vec::new(), None::<String>);
    loop {
        match reader.read_event()? {
            Event::Start(start) => {
                path.push(String::from_utf8(start.name().as_ref().to_vec())?);
                text = Some(String::new());
            }
            Event::Text(part) => {
                if let Some(text) = &mut text {
                    text.push_str(&part.decode()?);
                }
            }
            Event::GeneralRef(reference) => {
                let text = text.as_mut().ok_or("a reference between elements")?;
                match reference.resolve_char_ref()? {
                    Some(c) => text.push(c),
                    None => text.push_str(
                        quick_xml::escape::resolve_predefined_entity(&reference.decode()?).ok_or("no such entity")?,
                    ),
                }
            }
            Event::End(_) => {
                if let Some(text) = text.take() {
                    leaves.push((path[1..].join("/"), text));
                }
                path.pop();
            }
            Event::Eof => return Ok(leaves),
            _ => {}
        }
    }
}

/// The parts of a listing that tests look at.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listing {
    keys: Vec<String>,
    prefixes: Vec<String>,
    token: Option<String>,
    truncated: bool,
    count: usize,
}

async fn list(server: &Server, query: &str) -> Result<Listing> {
    let response = get(server, &format!("/b?list-type=2{query}"), &[]).await?;
    assert_eq!(response.status(), StatusCode::OK);
    let mut listing = Listing::default();
    for (path, text) in leaves(&response.text().await?)? {
        match path.as_str() {
            "Contents/Key" => listing.keys.push(text),
            "CommonPrefixes/Prefix" => listing.prefixes.push(text),
            "NextContinuationToken" => listing.token = Some(text),
            "IsTruncated" => listing.truncated = text == "true",
            "KeyCount" => listing.count = text.parse()?,
            _ => {}
        }
    }
    Ok(listing)
}

/// All pages: their keys and prefixes together, and how many there were.
async fn list_all(server: &Server, query: &str) -> Result<(Vec<String>, Vec<String>, Vec<usize>)> {
    let (mut keys, mut prefixes, mut counts, mut token) = (Vec::new(), Vec::new(), Vec::new(), String::new());
    loop {
        let page = list(server, &format!("{query}{token}")).await?;
        assert_eq!(page.truncated, page.token.is_some());
        assert_eq!(page.count, page.keys.len() + page.prefixes.len());
        keys.extend(page.keys);
        prefixes.extend(page.prefixes);
        counts.push(page.count);
        match page.token {
            Some(next) => token = format!("&continuation-token={next}"),
            None => return Ok((keys, prefixes, counts)),
        }
    }
}

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
        ("GET", "/b", 501, "NotImplemented"),
        ("GET", "/b/abc?acl", 501, "NotImplemented"),
        ("POST", "/b/abc?uploads", 501, "NotImplemented"),
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
async fn a_listing_is_the_documented_xml() -> Result {
    let store = Store::memory()
        .with("a<&>\"'.txt", "hello")
        .with("dir/x", Object::zeros(100_000_000_000).etag("e\"").last_modified("2025-02-03T04:05:06.789Z".parse()?))
        .with("empty", "");
    let server = Server::builder().bucket("b", store).start()?;
    let response = get(&server, "/b/?list-type=2&delimiter=%2F&max-keys=2&fetch-owner=true", &[]).await?;
    assert_eq!(header(&response, "content-type"), Some("application/xml"));
    assert_eq!(
        response.text().await?,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><Prefix></Prefix>\
         <NextContinuationToken>26469722f</NextContinuationToken><KeyCount>2</KeyCount><MaxKeys>2</MaxKeys>\
         <Delimiter>/</Delimiter><IsTruncated>true</IsTruncated><Contents><Key>a&lt;&amp;&gt;&quot;'.txt</Key>\
         <LastModified>2024-01-01T00:00:00.000Z</LastModified>\
         <ETag>&quot;5d41402abc4b2a76b9719d911017c592&quot;</ETag><Size>5</Size><StorageClass>STANDARD</StorageClass>\
         </Contents><CommonPrefixes><Prefix>dir/</Prefix></CommonPrefixes></ListBucketResult>"
    );
    let query = "/b?list-type=2&prefix=dir%2F&start-after=b%20%2B&continuation-token=161&encoding-type=url";
    assert_eq!(
        get(&server, query, &[]).await?.text().await?,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><Prefix>dir/</Prefix>\
         <StartAfter>b+%2B</StartAfter><ContinuationToken>161</ContinuationToken><KeyCount>1</KeyCount>\
         <MaxKeys>1000</MaxKeys><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated><Contents>\
         <Key>dir/x</Key><LastModified>2025-02-03T04:05:06.000Z</LastModified><ETag>&quot;e&quot;&quot;</ETag>\
         <Size>100000000000</Size><StorageClass>STANDARD</StorageClass></Contents></ListBucketResult>"
    );
    assert_eq!(
        get(&server, "/b?list-type=2&prefix=zzz", &[]).await?.text().await?,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><Prefix>zzz</Prefix>\
         <KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>"
    );
    Ok(())
}

#[tokio::test]
async fn pages_join_without_a_gap_or_an_overlap() -> Result {
    for (count, expected) in [
        (0, vec![0]),
        (999, vec![999]),
        (1000, vec![1000]),
        (1001, vec![1000, 1]),
        (2000, vec![1000, 1000]),
        (2500, vec![1000, 1000, 500]),
    ] {
        let keys: Vec<_> = (0..count).map(|number| format!("k/{number:05}")).collect();
        let store = keys.iter().map(|key| (key, Object::zeros(1))).collect();
        let server = Server::builder().bucket("b", store).start()?;
        assert_eq!(list_all(&server, "").await?, (keys.clone(), Vec::new(), expected.clone()));
        assert_eq!(list_all(&server, "&max-keys=5000").await?, (keys, Vec::new(), expected));
    }
    Ok(())
}

#[tokio::test]
async fn pages_are_as_long_as_asked_and_allowed() -> Result {
    let keys: Vec<_> = (0..20).map(|number| format!("{number:02}")).collect();
    let store = keys.iter().map(|key| (key, "x")).collect();
    let server = Server::builder().bucket("b", store).max_keys_cap(7).start()?;
    assert_eq!(list_all(&server, "").await?, (keys.clone(), vec![], vec![7, 7, 6]));
    assert_eq!(list_all(&server, "&max-keys=8").await?.2, [7, 7, 6]);
    assert_eq!(list_all(&server, "&max-keys=5").await?, (keys.clone(), vec![], vec![5, 5, 5, 5]));
    assert_eq!(list(&server, "&max-keys=0").await?, Listing::default());
    assert_eq!(list_all(&server, "&start-after=04").await?.0, keys[5..]);
    assert_eq!(list_all(&server, "&start-after=045").await?.0, keys[5..]);
    assert_eq!(list_all(&server, "&start-after=19").await?, (vec![], vec![], vec![0]));
    // The token goes on where its page ended, whatever `start-after` says.
    let first = list(&server, "&max-keys=3").await?;
    let token = first.token.ok_or("no token")?;
    let second = list(&server, &format!("&max-keys=3&start-after=15&continuation-token={token}")).await?;
    assert_eq!(second.keys, ["03", "04", "05"]);
    Ok(())
}

#[tokio::test]
async fn a_delimiter_rolls_keys_up() -> Result {
    let keys = ["a", "b/", "b/1", "b/2/x", "b//y", "c/d/e", "c0", "d"];
    let server = Server::builder().bucket("b", keys.iter().map(|key| (key, "x")).collect()).start()?;
    for (query, keys, prefixes) in [
        ("&delimiter=/", &["a", "c0", "d"][..], &["b/", "c/"][..]),
        ("&delimiter=/&prefix=b", &[], &["b/"]),
        ("&delimiter=/&prefix=b/", &["b/", "b/1"], &["b//", "b/2/"]),
        ("&delimiter=%2F&prefix=c", &["c0"], &["c/"]),
        ("&delimiter=/d/", &["a", "b/", "b//y", "b/1", "b/2/x", "c0", "d"], &["c/d/"]),
        ("&delimiter=/&start-after=b/1", &["c0", "d"], &["b/", "c/"]),
        ("&delimiter=", &["a", "b/", "b//y", "b/1", "b/2/x", "c/d/e", "c0", "d"], &[]),
    ] {
        let keys: Vec<_> = keys.iter().map(|&key| key.to_owned()).collect();
        let prefixes: Vec<_> = prefixes.iter().map(|&key| key.to_owned()).collect();
        let count = keys.len() + prefixes.len();
        assert_eq!(list_all(&server, query).await?, (keys.clone(), prefixes.clone(), vec![count]), "{query}");
        let singly = list_all(&server, &format!("{query}&max-keys=1")).await?;
        assert_eq!(singly, (keys, prefixes, vec![1; count]), "{query}");
    }
    Ok(())
}

const ODD_KEYS: [&str; 22] = [
    "/leading",
    "//",
    "a//b",
    "trailing/",
    ".",
    "..",
    "../up",
    "a/./b/../c",
    "space in key",
    " ",
    "a+b",
    "100%",
    "%2F",
    "a&b=c?d#e",
    "<xml>&amp;\"'",
    "back\\slash",
    "tab\tnewline\ncr\r",
    "control\u{1}\u{1f}\u{7f}",
    "nul\0",
    "é",
    "e\u{301}",
    "😀\u{ffff}\u{10ffff}",
];

#[tokio::test]
async fn odd_keys_survive_the_path_and_the_listing() -> Result {
    let store = ODD_KEYS.iter().map(|key| (key, Object::new(format!("at {key}")))).collect();
    let server = Server::builder().bucket("b", store).start()?;
    for key in ODD_KEYS {
        let url = server.object_url("b", key);
        let path = url.strip_prefix(&server.url()).ok_or("another server")?;
        let answer = raw(&server, "GET", path, &[], b"")?;
        assert_eq!((answer.status, answer.text()), (200, format!("at {key}").as_str()));
        assert_eq!(server.requests().last().and_then(|request| request.key.clone()).as_deref(), Some(key));
    }
    let mut sorted = ODD_KEYS.map(str::to_owned);
    sorted.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    let decoded = |keys: Vec<String>| -> Vec<String> {
        let decode =
            |key: &String| percent_encoding::percent_decode_str(&key.replace('+', " ")).decode_utf8_lossy().into();
        keys.iter().map(decode).collect()
    };
    for page in [1, 3, 1000] {
        let (keys, _, _) = list_all(&server, &format!("&encoding-type=url&max-keys={page}")).await?;
        assert!(keys.iter().all(|key| key.bytes().all(|byte| byte.is_ascii_graphic())), "{keys:?}");
        assert_eq!(decoded(keys), sorted);
    }
    // Without it, what XML cannot hold stands there as references that only a lenient parser takes.
    let xml = get(&server, "/b?list-type=2", &[]).await?.text().await?;
    assert!(xml.contains("<Key>control&#x1;&#x1f;\u{7f}</Key>"), "{xml}");
    assert!(xml.contains("<Key>tab&#x9;newline&#xa;cr&#xd;</Key>"), "{xml}");
    assert!(xml.contains("<Key>nul&#x0;</Key>"), "{xml}");
    Ok(())
}

#[tokio::test]
async fn wrong_parameters_of_a_listing_are_refused() -> Result {
    let server = alphabet()?;
    for (query, name) in [
        ("max-keys=x", "max-keys"),
        ("max-keys=-1", "max-keys"),
        ("max-keys=2147483648", "max-keys"),
        ("encoding-type=base64", "encoding-type"),
        ("continuation-token=", "continuation-token"),
        ("continuation-token=1zz", "continuation-token"),
        ("continuation-token=361", "continuation-token"),
        ("continuation-token=%C3%A9", "continuation-token"),
    ] {
        let response = get(&server, &format!("/b?list-type=2&{query}"), &[]).await?;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
        let leaves = leaves(&response.text().await?)?;
        assert_eq!(leaves[0], ("Code".to_owned(), "InvalidArgument".to_owned()));
        assert_eq!(leaves[2], ("ArgumentName".to_owned(), name.to_owned()));
    }
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

fn put(server: &Server, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Raw> {
    raw(server, "PUT", path, headers, body)
}

#[tokio::test]
async fn objects_are_put_and_deleted() -> Result {
    let folder = tempfile::tempdir()?;
    for store in [Store::memory(), Store::folder(folder.path(), EtagStyle::Md5)] {
        let server = Server::builder().bucket("b", store).writable(true).start()?;
        let answer = put(&server, "/b/deep/abc", &[("content-type", "text/plain")], ALPHABET.as_bytes())?;
        assert_eq!((answer.status, answer.body.len()), (200, 0));
        assert!(answer.head.contains(&format!("etag: \"{ALPHABET_MD5}\"")), "{}", answer.head);
        assert_eq!(server.get("b", "deep/abc")?.as_deref(), Some(ALPHABET.as_bytes()));
        assert_eq!(get(&server, "/b/deep/abc", &[]).await?.text().await?, ALPHABET);
        assert_eq!(list(&server, "").await?.keys, ["deep/abc"]);

        assert_eq!(put(&server, "/b/deep/abc", &[("if-none-match", "*")], b"x")?.status, 412);
        assert_eq!(put(&server, "/b/deep/abc", &[("if-match", "\"0\"")], b"x")?.status, 412);
        assert_eq!(put(&server, "/b/other", &[("if-match", "\"0\"")], b"x")?.status, 404);
        assert_eq!(server.get("b", "deep/abc")?.as_deref(), Some(ALPHABET.as_bytes()));
        assert_eq!(put(&server, "/b/deep/abc", &[("if-match", ALPHABET_MD5)], b"x")?.status, 200);
        assert_eq!(server.get("b", "deep/abc")?.as_deref(), Some(&b"x"[..]));
        assert_eq!(put(&server, "/b/x", &[("x-amz-copy-source", "/b/deep/abc")], b"")?.status, 501);
        assert_eq!(put(&server, "/b/x", &[("content-encoding", "aws-chunked")], b"")?.status, 501);
        assert_eq!(put(&server, "/b/x?uploadId=1&partNumber=1", &[], b"")?.status, 501);

        for _ in 0..2 {
            let answer = raw(&server, "DELETE", "/b/deep/abc", &[], b"")?;
            assert_eq!((answer.status, answer.body.len()), (204, 0));
        }
        assert_eq!(list(&server, "").await?.keys, [""; 0]);
    }
    Ok(())
}

#[tokio::test]
async fn a_large_upload_arrives_whole_or_not_at_all() -> Result {
    let folder = tempfile::tempdir()?;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let etag: String = Md5::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    for store in [Store::memory(), Store::folder(folder.path(), EtagStyle::Md5)] {
        let server = Server::builder().bucket("b", store).writable(true).start()?;
        let response = client().put(server.object_url("b", "big")).body(bytes.clone()).send().await?;
        assert_eq!(header(&response, "etag"), Some(format!("\"{etag}\"").as_str()));
        assert_eq!(server.get("b", "big")?.as_deref(), Some(bytes.as_slice()));

        let mut stream = TcpStream::connect(server.url().trim_start_matches("http://"))?;
        stream.write_all(b"PUT /b/big HTTP/1.1\r\nhost: h\r\ncontent-length: 1000\r\n\r\nonly this")?;
        stream.shutdown(std::net::Shutdown::Write)?;
        stream.read_to_end(&mut Vec::new())?;
        assert_eq!(server.get("b", "big")?.as_deref(), Some(bytes.as_slice()));
        assert_eq!(list(&server, "").await?.keys, ["big"]);
    }
    Ok(())
}

#[tokio::test]
async fn a_folder_is_served_as_it_is_now() -> Result {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("a/b"))?;
    fs::create_dir(path("empty"))?;
    for (name, text) in [("a/b/2", "two"), ("a.txt", ALPHABET), ("a/1", "one"), ("é ü", "")] {
        fs::write(path(name), text)?;
    }
    let store = Store::folder(folder.path(), EtagStyle::Md5).with("z/given", "at the start");
    let server = Server::builder().bucket("b", store).start()?;
    // A dot sorts before a slash.
    assert_eq!(list(&server, "").await?.keys, ["a.txt", "a/1", "a/b/2", "z/given", "é ü"]);
    assert_eq!(list_all(&server, "&max-keys=1").await?.0, ["a.txt", "a/1", "a/b/2", "z/given", "é ü"]);
    assert_eq!(list(&server, "&prefix=a/b").await?.keys, ["a/b/2"]);
    assert_eq!(list(&server, "&prefix=a/b/").await?.keys, ["a/b/2"]);
    assert_eq!(list(&server, "&prefix=a&delimiter=/").await?.prefixes, ["a/"]);
    for prefix in ["a/b/2/", "empty/", "nothing/", "../", "/", "a/../a/", "a//b"] {
        assert_eq!(list(&server, &format!("&prefix={prefix}")).await?.keys, [""; 0], "{prefix}");
    }
    for path in ["/b/../a.txt", "/b/a/../a.txt", "/b/a", "/b/a/", "/b//a.txt", "/b/./a.txt", "/b/a.txt/x", "/b/%00"] {
        assert_eq!(raw(&server, "GET", path, &[], b"")?.status, 404, "{path}");
    }
    let response = get(&server, "/b/a.txt", &[("range", "bytes=2-4")]).await?;
    assert_eq!(header(&response, "etag"), Some(format!("\"{ALPHABET_MD5}\"").as_str()));
    assert_eq!(response.text().await?, "cde");

    fs::write(path("a.txt"), "hello")?;
    fs::write(path("new"), "")?;
    fs::remove_file(path("a/1"))?;
    let response = get(&server, "/b/a.txt", &[]).await?;
    assert_eq!(header(&response, "etag"), Some("\"5d41402abc4b2a76b9719d911017c592\""));
    assert_eq!(response.text().await?, "hello");
    assert_eq!(list(&server, "").await?.keys, ["a.txt", "a/b/2", "new", "z/given", "é ü"]);
    server.put("b", "a/1", Object::repeating(5, b"ab"))?;
    assert_eq!(fs::read_to_string(path("a/1"))?, "ababa");
    server.remove("b", "a/1")?;
    assert!(!path("a/1").exists());
    assert!(server.put("b", "../out", "x").is_err());
    Ok(())
}

#[tokio::test]
async fn a_large_file_is_streamed_with_a_multipart_etag() -> Result {
    let folder = tempfile::tempdir()?;
    let bytes: Vec<u8> = (0..20_000_000_u32).map(|number| (number / 7) as u8).collect();
    fs::write(folder.path().join("big"), &bytes)?;
    let server = Server::builder().bucket("b", Store::folder(folder.path(), EtagStyle::Multipart)).start()?;
    let response = get(&server, "/b/big", &[]).await?;
    let etag = header(&response, "etag").ok_or("no ETag")?.to_owned();
    assert!(etag.len() == 36 && etag.ends_with("-3\""), "{etag}");
    assert!(response.bytes().await? == bytes);
    let response = get(&server, "/b/big", &[("range", "bytes=262143-9000000"), ("if-match", &etag)]).await?;
    assert_eq!(header(&response, "content-range"), Some("bytes 262143-9000000/20000000"));
    assert!(response.bytes().await? == bytes[262_143..=9_000_000]);
    let xml = get(&server, "/b?list-type=2", &[]).await?.text().await?;
    assert!(leaves(&xml)?.contains(&("Contents/ETag".to_owned(), etag)));
    Ok(())
}

#[test]
fn a_missing_folder_is_an_error_at_the_start() {
    let result = Server::builder().bucket("b", Store::folder("/no/such/folder", EtagStyle::Md5)).start();
    assert_eq!(result.expect_err("there is no such folder").to_string(), "cannot serve the folder /no/such/folder");
}

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

mod faults {
    use std::time::Instant;

    use super::*;

    const MEGABYTE: usize = 1_000_000;

    fn with_rule(rule: Rule) -> Result<(Server, bulk_testkit::s3::FaultHandle)> {
        let store =
            Store::memory().with("abc", ALPHABET).with("big", Object::repeating(MEGABYTE as u64, b"0123456789"));
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
}
