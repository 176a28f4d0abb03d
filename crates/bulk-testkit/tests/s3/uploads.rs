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
