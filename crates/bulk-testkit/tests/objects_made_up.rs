//! Objects that are made up, their checksums, and what a server can do to the headers and the end of an answer.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use bulk_testkit::s3::{Checksum, Fault, Object, Rule, Server, Store, made_up};
use http::{HeaderName, header};
use md5::{Digest, Md5};
use reqwest::{Client, Response, StatusCode};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const ALPHABET: &str = "abcdefghijklmnopqrstuvwxyz";
/// `printf abcdefghijklmnopqrstuvwxyz | md5sum`
const ALPHABET_MD5: &str = "c3fcd3d76192e4007dfb496cca67e13b";
const CHECKSUM_MODE: (&str, &str) = ("x-amz-checksum-mode", "ENABLED");

fn serve(object: impl Into<Object>) -> Result<Server> {
    Ok(Server::builder().bucket("b", Store::memory().with("k", object)).start()?)
}

/// Does not decode, redirect, or use a proxy.
fn client() -> Result<Client> {
    Ok(Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?)
}

async fn get(server: &Server, headers: &[(&str, &str)]) -> Result<Response> {
    let mut request = client()?.get(server.object_url("b", "k"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Ok(request.send().await?)
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// A connection that is used by hand.
struct Wire(TcpStream);

impl Wire {
    fn open(server: &Server) -> Result<Self> {
        let stream = TcpStream::connect(server.url().trim_start_matches("http://"))?;
        Ok(Self(stream))
    }

    /// The head of the answer, and of its body what arrived with it.
    fn get(&mut self) -> Result<(String, Vec<u8>)> {
        self.0.write_all(b"GET /b/k HTTP/1.1\r\nhost: loopback\r\n\r\n")?;
        let mut bytes = Vec::new();
        loop {
            let mut buffer = [0; 4096];
            let read = self.0.read(&mut buffer)?;
            bytes.extend_from_slice(&buffer[..read]);
            if let Some(split) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                return Ok((String::from_utf8(bytes[..split].to_vec())?, bytes[split + 4..].to_vec()));
            }
            if read == 0 {
                return Err("the connection ended in the head".into());
            }
        }
    }
}

#[test]
fn content_follows_from_its_offset() {
    let mut whole = vec![0; 1 << 16];
    made_up(1, 0, &mut whole);
    for (offset, len) in [(0, 1), (1, 3), (7, 1), (7, 2), (8, 8), (13, 0), (13, 500), (4096, 4096), (65_535, 1)] {
        let mut part = vec![0xaa; len];
        made_up(1, offset as u64, &mut part);
        assert!(part == whole[offset..offset + len], "{len} bytes from {offset}");
    }
    let mut words: Vec<_> = whole.chunks_exact(8).collect();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), whole.len() / 8, "a word occurs twice");
    let mut other = vec![0; 1 << 16];
    made_up(2, 0, &mut other);
    assert!(other.chunks_exact(8).all(|word| words.binary_search(&word).is_err()), "two seeds share a word");
}

#[tokio::test]
async fn any_range_of_a_hundred_gigabytes_is_served() -> Result {
    let size = 100_000_000_000;
    let server = serve(Object::made_up(size, 7))?;
    for (start, end) in [(0, 10), (99_999_000_001, size), (55_555_555_555, 55_557_000_000)] {
        let response = get(&server, &[("range", &format!("bytes={start}-{}", end - 1))]).await?;
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
        let content_range = format!("bytes {start}-{}/{size}", end - 1);
        assert_eq!(header(&response, "content-range"), Some(content_range.as_str()));
        let mut expected = vec![0; (end - start) as usize];
        made_up(7, start, &mut expected);
        assert!(response.bytes().await? == expected, "from {start}");
    }
    let head = client()?.head(server.object_url("b", "k")).send().await?;
    assert_eq!(header(&head, "content-length"), Some("100000000000"));
    let (_, parts) = header(&head, "etag").ok_or("no ETag")?.split_once('-').ok_or("no multipart ETag")?;
    assert_eq!(parts, "10000\"", "10,000 parts are the most that S3 takes");
    Ok(())
}

#[tokio::test]
async fn etags_are_the_ones_that_s3_computes() -> Result {
    let size = 1_000_003;
    let mut bytes = vec![0; size];
    made_up(3, 0, &mut bytes);
    let md5 = |bytes: &[u8]| Md5::digest(bytes).to_vec();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let digests: Vec<u8> = bytes.chunks(300_000).flat_map(md5).collect();
    let object = Object::made_up(size as u64, 3);
    for (object, etag) in [
        (object.clone().md5_etag(), hex(&md5(&bytes))),
        (object.clone().multipart_etag(300_000), format!("{}-4", hex(&md5(&digests)))),
        (object.clone().multipart_etag(0), format!("{}-1", hex(&md5(&md5(&bytes))))),
        (object.clone().multipart_etag(2_000_000), format!("{}-1", hex(&md5(&md5(&bytes))))),
        // The MD5 of the MD5 of nothing.
        (Object::made_up(0, 3).multipart_etag(5), "59adb24ef3cdbe0297f05b395827453f-1".to_owned()),
    ] {
        let response = get(&serve(object)?, &[]).await?;
        assert_eq!(header(&response, "etag"), Some(format!("\"{etag}\"").as_str()));
    }
    Ok(())
}

#[tokio::test]
async fn checksums_come_with_the_whole_object_on_request() -> Result {
    let names = ["crc32", "crc32c", "crc64nvme", "sha256"].map(|name| format!("x-amz-checksum-{name}"));
    let kinds = [Checksum::Crc32, Checksum::Crc32c, Checksum::Crc64Nvme, Checksum::Sha256];
    let server = serve(kinds.into_iter().fold(Object::new(ALPHABET), Object::checksum))?;
    // Computed in Python: zlib.crc32, hashlib, and the other two bit by bit.
    let expected = ["TCdQvQ==", "nubvJQ==", "GhENahH+Y6g=", "ccSA35PWri8e+tFEfGbJUl4xYhjPUfyNntgy8trxi3M="];
    let found = |response: &Response| names.each_ref().map(|name| header(response, name).map(str::to_owned));

    let response = get(&server, &[CHECKSUM_MODE]).await?;
    assert_eq!(found(&response), expected.map(|value| Some(value.to_owned())));
    assert_eq!(header(&response, "x-amz-checksum-type"), Some("FULL_OBJECT"));
    let head = client()?.head(server.object_url("b", "k")).header(CHECKSUM_MODE.0, CHECKSUM_MODE.1).send().await?;
    assert_eq!(found(&head), expected.map(|value| Some(value.to_owned())));

    for headers in [&[][..], &[CHECKSUM_MODE, ("range", "bytes=0-")]] {
        let response = get(&server, headers).await?;
        assert_eq!(found(&response), [const { None }; 4], "{headers:?}");
        assert_eq!(header(&response, "x-amz-checksum-type"), None);
    }

    let lies = server.fault(Rule::new(Fault::WrongChecksum));
    let wrong = found(&get(&server, &[CHECKSUM_MODE]).await?);
    for (wrong, right) in wrong.iter().zip(expected) {
        let wrong = wrong.as_deref().ok_or("no checksum")?;
        assert_eq!(wrong.len(), right.len());
        assert_ne!(wrong, right);
    }
    assert_eq!(lies.hits(), 1);
    Ok(())
}

#[tokio::test]
async fn checksums_can_be_given() -> Result {
    let object = Object::new(ALPHABET).checksum(Checksum::Crc32).checksum_value(Checksum::Crc32, "AAAAAA==");
    let response = get(&serve(object)?, &[CHECKSUM_MODE]).await?;
    assert_eq!(header(&response, "x-amz-checksum-crc32"), Some("AAAAAA=="));
    assert_eq!(header(&response, "x-amz-checksum-type"), Some("FULL_OBJECT"));
    let object = Object::new(ALPHABET).checksum_value(Checksum::Sha256, "AAAA-3");
    let response = get(&serve(object)?, &[CHECKSUM_MODE]).await?;
    assert_eq!(header(&response, "x-amz-checksum-sha256"), Some("AAAA-3"));
    assert_eq!(header(&response, "x-amz-checksum-type"), Some("COMPOSITE"));
    Ok(())
}

#[tokio::test]
async fn the_etag_of_an_encrypted_object_only_looks_like_an_md5() -> Result {
    let plain = get(&serve(ALPHABET)?, &[]).await?;
    assert_eq!(header(&plain, "etag"), Some(format!("\"{ALPHABET_MD5}\"").as_str()));
    assert_eq!(header(&plain, "x-amz-server-side-encryption"), None);
    let encrypted = get(&serve(Object::new(ALPHABET).kms_encrypted())?, &[]).await?;
    let etag = header(&encrypted, "etag").ok_or("no ETag")?.trim_matches('"');
    assert!(etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_hexdigit()), "{etag}");
    assert_ne!(etag, ALPHABET_MD5);
    assert_eq!(header(&encrypted, "x-amz-server-side-encryption"), Some("aws:kms"));
    Ok(())
}

#[tokio::test]
async fn ranges_are_answered_wrongly_in_each_way() -> Result {
    let cases = [
        (Fault::NoRange, 200, None, ALPHABET),
        (Fault::RangeAsOk, 200, Some("bytes 3-5/26"), "def"),
        (Fault::WrongContentRange, 206, Some("bytes 4-6/26"), "def"),
        (Fault::WrongTotal, 206, Some("bytes 3-5/27"), "def"),
        (Fault::UnknownTotal, 206, Some("bytes 3-5/*"), "def"),
    ];
    for (fault, status, content_range, body) in cases {
        let server = serve(ALPHABET)?;
        let handle = server.fault(Rule::new(fault.clone()));
        let response = get(&server, &[("range", "bytes=3-5")]).await?;
        assert_eq!(response.status().as_u16(), status, "{fault:?}");
        assert_eq!(header(&response, "content-range"), content_range, "{fault:?}");
        assert_eq!(response.text().await?, body, "{fault:?}");
        let response = get(&server, &[]).await?;
        assert_eq!(response.status().as_u16(), 200, "{fault:?}");
        assert_eq!(header(&response, "content-range"), None, "{fault:?}");
        assert_eq!(response.text().await?, ALPHABET, "{fault:?}");
        assert_eq!(handle.hits(), 2, "{fault:?}");
    }
    let server = serve(ALPHABET)?;
    server.fault(Rule::new(Fault::Unsatisfiable));
    let response = get(&server, &[("range", "bytes=3-5")]).await?;
    assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(header(&response, "content-range"), Some("bytes */26"));
    assert_eq!(get(&server, &[]).await?.text().await?, ALPHABET);
    Ok(())
}

#[tokio::test]
async fn headers_can_be_missing() -> Result {
    let server = serve(ALPHABET)?;
    for name in [header::ETAG, header::LAST_MODIFIED, header::ACCEPT_RANGES] {
        assert!(get(&server, &[]).await?.headers().contains_key(&name), "{name}");
        let rule = server.fault(Rule::new(Fault::WithoutHeader(name.clone())));
        assert!(!get(&server, &[]).await?.headers().contains_key(&name), "{name}");
        rule.remove();
    }
    Ok(())
}

#[tokio::test]
async fn a_body_of_untold_length_comes_in_chunks() -> Result {
    let server = serve(Object::made_up(1_000_000, 1))?;
    server.fault(Rule::new(Fault::WithoutHeader(header::CONTENT_LENGTH)));
    let response = get(&server, &[]).await?;
    assert_eq!(header(&response, "content-length"), None);
    assert_eq!(header(&response, "transfer-encoding"), Some("chunked"));
    let mut expected = vec![0; 1_000_000];
    made_up(1, 0, &mut expected);
    assert!(response.bytes().await? == expected);

    server.fault(Rule::new(Fault::Truncate(500_000)));
    let cut = get(&server, &[]).await?.bytes().await;
    assert!(cut.is_err(), "{} bytes without an error", cut?.len());
    Ok(())
}

#[tokio::test]
async fn a_weak_etag_matches_no_condition_but_if_none_match() -> Result {
    let server = serve(ALPHABET)?;
    server.fault(Rule::new(Fault::WeakEtag));
    let (weak, strong) = (format!("W/\"{ALPHABET_MD5}\""), format!("\"{ALPHABET_MD5}\""));
    let (weak, strong) = (weak.as_str(), strong.as_str());
    assert_eq!(header(&get(&server, &[]).await?, "etag"), Some(weak));
    for (headers, status) in [
        (&[("if-match", weak)][..], 412),
        (&[("if-match", strong)], 412),
        (&[("if-match", "*")], 200),
        (&[("if-none-match", weak)], 304),
        (&[("if-range", weak), ("range", "bytes=0-0")], 200),
        (&[("if-range", "Mon, 01 Jan 2024 00:00:00 GMT"), ("range", "bytes=0-0")], 206),
    ] {
        assert_eq!(get(&server, headers).await?.status().as_u16(), status, "{headers:?}");
    }
    Ok(())
}

#[tokio::test]
async fn clients_are_sent_elsewhere() -> Result {
    let server = serve(ALPHABET)?;
    let location = "http://127.0.0.1:1/other?a=b";
    let rule = server.fault(Rule::new(Fault::Redirect { code: 307, location: location.to_owned() }).first(1));
    let response = get(&server, &[]).await?;
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(header(&response, "location"), Some(location));
    assert_eq!(get(&server, &[]).await?.status(), StatusCode::OK);
    assert_eq!(rule.hits(), 1);
    Ok(())
}

#[tokio::test]
async fn an_object_can_be_replaced_between_two_of_its_ranges() -> Result {
    let server = serve(Object::made_up(1000, 1))?;
    let replace = Rule::new(Fault::ReplaceBefore(Object::made_up(1000, 2))).containing(500).first(1);
    let replace = server.fault(replace);
    let mut etags = Vec::new();
    for (range, start, seed) in [("bytes=0-499", 0, 1), ("bytes=500-999", 500, 2), ("bytes=0-499", 0, 2)] {
        let response = get(&server, &[("range", range)]).await?;
        etags.push(header(&response, "etag").ok_or("no ETag")?.to_owned());
        let mut expected = [0; 500];
        made_up(seed, start, &mut expected);
        assert!(response.bytes().await? == expected[..], "{range} of version {seed}");
    }
    assert_eq!(replace.hits(), 1);
    assert_ne!(etags[0], etags[1]);
    assert_eq!(etags[1], etags[2]);
    Ok(())
}

#[test]
fn a_body_stalls_on_an_open_connection() -> Result {
    let server = serve(ALPHABET)?;
    let stall = server.fault(Rule::new(Fault::StallAfter(10)).first(1));
    let mut wire = Wire::open(&server)?;
    let (head, mut body) = wire.get()?;
    assert!(head.contains("content-length: 26"), "{head}");
    let mut rest = vec![0; 10 - body.len()];
    wire.0.read_exact(&mut rest)?;
    body.extend(rest);
    assert_eq!(body, b"abcdefghij");
    // Neither a byte nor an end of the connection comes any more.
    wire.0.set_read_timeout(Some(Duration::from_millis(50)))?;
    let end = wire.0.read(&mut [0; 1]).map_err(|error: io::Error| error.kind());
    assert!(matches!(end, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)), "{end:?}");
    assert_eq!(stall.hits(), 1);
    let sent: Vec<_> =
        server.requests().iter().map(|request| (request.bytes_sent, request.finished.is_some())).collect();
    assert_eq!(sent, [(10, false)]);
    Ok(())
}

#[test]
fn one_connection_of_many_suffers() -> Result {
    let server = serve(ALPHABET)?;
    let slow = server.fault(Rule::new(Fault::WithoutHeader(HeaderName::from_static("etag"))).connection(2));
    // Connections count when they are accepted, so each is used before the next one is opened.
    let mut wires = Vec::new();
    for _ in 0..3 {
        wires.push(Wire::open(&server)?);
        wires.last_mut().ok_or("no connection")?.get()?;
    }
    let mut tagged = Vec::new();
    for wire in &mut wires {
        tagged.push(wire.get()?.0.contains("etag"));
    }
    assert_eq!(tagged, [true, false, true]);
    assert_eq!(slow.hits(), 2);
    let connections: Vec<_> = server.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [1, 2, 3, 1, 2, 3]);
    Ok(())
}
