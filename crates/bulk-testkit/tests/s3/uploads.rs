//! What clients put and delete.

use std::io::{Read, Write};
use std::net::TcpStream;

use bulk_testkit::s3::{EtagStyle, Server, Store};
use md5::{Digest, Md5};

use super::support::{ALPHABET, ALPHABET_MD5, Raw, Result, client, get, header, list, raw};

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
        assert_eq!(put(&server, "/b/x?uploadId=1&partNumber=1", &[], b"")?.status, 404);

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

/// The text of an element.
fn element(xml: &[u8], name: &str) -> String {
    let text = String::from_utf8_lossy(xml);
    let (_, rest) = text.split_once(&format!("<{name}>")).unwrap_or_default();
    rest.split_once('<').unwrap_or_default().0.replace("&quot;", "\"")
}

#[tokio::test]
async fn parts_are_copied_of_objects() -> Result {
    const MIB: usize = 1 << 20;
    let bytes: Vec<u8> = (0..12 * MIB as u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let store = Store::memory().with("old key", bytes.clone()).with("small", vec![7_u8; 5 * MIB]);
    let server = Server::builder().bucket("b", store).writable(true).start()?;
    let etag = header(&get(&server, "/b/old%20key", &[]).await?, "etag").unwrap_or_default().to_owned();
    let begun = raw(&server, "POST", "/b/new?uploads=", &[], b"")?;
    let id = element(&begun.body, "UploadId").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let part = |number: u32| format!("/b/new?partNumber={number}&uploadId={id}");
    let copy = |number, source: &str, range: &str, if_match: &str| {
        let mut headers = vec![("x-amz-copy-source", source)];
        headers.extend([("x-amz-copy-source-range", range)].into_iter().filter(|(_, range)| !range.is_empty()));
        headers.extend([("x-amz-copy-source-if-match", if_match)].into_iter().filter(|(_, etag)| !etag.is_empty()));
        put(&server, &part(number), &headers, b"")
    };
    let old = "/b/old%20key";
    for (source, range, if_match, status, code) in [
        (old, "bytes=0-12582912", "", 400, "InvalidArgument"),
        (old, "bytes=5-4", "", 400, "InvalidArgument"),
        (old, "bytes=5-", "", 400, "InvalidArgument"),
        (old, "bytes=0-4", "\"0\"", 412, "PreconditionFailed"),
        ("/b/small", "bytes=0-4", "", 400, "InvalidRequest"),
        ("/b/none", "", "", 404, "NoSuchKey"),
        ("/none/old", "", "", 404, "NoSuchBucket"),
    ] {
        let answer = copy(1, source, range, if_match)?;
        assert_eq!((answer.status, element(&answer.body, "Code").as_str()), (status, code), "{source} {range}");
    }
    let first = copy(1, old, "bytes=1048576-7340031", &etag)?;
    let second = put(&server, &part(2), &[], &bytes[..6 * MIB])?;
    let third = copy(3, "b/small", "", "")?;
    assert_eq!([first.status, second.status, third.status], [200; 3]);
    let etag_of = |bytes: &[u8]| -> String {
        let digits: String = Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("\"{digits}\"")
    };
    let etags = [&bytes[MIB..7 * MIB], &bytes[..6 * MIB], &[7; 5 * MIB]].map(etag_of);
    assert_eq!([element(&first.body, "ETag"), element(&third.body, "ETag")], [&*etags[0], &*etags[2]]);
    let parts: String = (1..)
        .zip(&etags)
        .map(|(number, etag)| format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"))
        .collect();
    let list = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    let completed = raw(&server, "POST", &format!("/b/new?uploadId={id}"), &[], list.as_bytes())?;
    assert_eq!(completed.status, 200, "{}", String::from_utf8_lossy(&completed.body));
    let wanted = [&bytes[MIB..7 * MIB], &bytes[..6 * MIB], &[7; 5 * MIB]].concat();
    assert!(server.get("b", "new")?.as_deref() == Some(&wanted[..]));
    assert_eq!(server.uploads("b")?, []);
    let lens: Vec<_> =
        server.requests().iter().filter(|request| request.method == "PUT").map(|request| request.body_len).collect();
    assert_eq!(lens[7..], [Some(0), Some(6 << 20), Some(0)]);
    Ok(())
}
