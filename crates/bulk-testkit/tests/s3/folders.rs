//! Buckets whose objects are files.

use std::fs;

use bulk_testkit::s3::{EtagStyle, Object, Server, Store};

use super::support::{ALPHABET, ALPHABET_MD5, Result, get, header, leaves, list, list_all, raw};

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
