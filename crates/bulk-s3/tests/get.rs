//! Objects of a bucket, from our own server, from one that we did not write, and from one that says what it is told.

use std::sync::{Arc, Mutex};

use bulk_core::conformance::Conformance;
use bulk_core::{Body, Digest, Error, Get, HttpClient, Source};
use bulk_s3::{Bucket, BucketOptions, Credentials};
use bulk_testkit::moto;
use bulk_testkit::s3::{Server, Store};
use futures::TryStreamExt;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

fn bucket(name: &str, endpoint: &str, credentials: Credentials) -> Bucket {
    let mut options = BucketOptions::default();
    options.endpoint = Some(endpoint.to_owned());
    options.credentials = credentials;
    options.client = Some(HttpClient::new().unwrap());
    Bucket::new(name, options).unwrap()
}

fn key_pair() -> Credentials {
    Credentials::Static {
        key_id: "AKIDEXAMPLE".to_owned(),
        secret: "hidden-secret".to_owned(),
        token: Some("hidden-token".to_owned()),
    }
}

fn conformance() -> Conformance {
    let mut conformance = Conformance::default();
    conformance.secrets = vec!["hidden".to_owned()];
    conformance
}

#[tokio::test]
async fn a_bucket_conforms_signed_and_unsigned() {
    let conformance = conformance();
    let store: Store = conformance.objects.iter().map(|(key, bytes)| (key, bytes.clone())).collect();
    // The server denies requests with an x-amz- header that is not signed.
    let server = Server::builder()
        .bucket("data", store)
        .credentials("AKIDEXAMPLE", "hidden-secret")
        .session_token("hidden-token")
        .start()
        .unwrap();
    conformance.check(Arc::new(bucket("data", &server.url(), Credentials::Anonymous))).await.unwrap();
    conformance.check(Arc::new(bucket("data", &server.url(), key_pair()))).await.unwrap();
}

/// Answers with this head and `abc`; gives its URL and the heads of the requests.
async fn serve(status: &'static str, headers: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let taken = heads.clone();
    tokio::spawn(async move {
        loop {
            let mut stream = BufReader::new(listener.accept().await.unwrap().0);
            let mut head = String::new();
            while stream.read_line(&mut head).await.unwrap() > 2 {}
            taken.lock().unwrap().push(head.to_lowercase());
            let answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\nabc");
            stream.get_mut().write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, heads)
}

async fn digests(bucket_name: &str, status: &'static str, headers: &[&str]) -> Vec<Digest> {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let (url, _) = serve(status, headers).await;
    let mut get = Get::new("a");
    if status.starts_with("206") {
        get.start = 1;
    }
    bucket(bucket_name, &url, Credentials::Anonymous).get(&get).await.unwrap().digests
}

// Of "abc", as zlib, RFC 3720, the NVM Command Set Specification, FIPS 180-4 and RFC 1321 have them.
const CRC32: &str = "x-amz-checksum-crc32: NSRBwg==";
const CRC32C: &str = "x-amz-checksum-crc32c: Nks/tw==";
const CRC64: &str = "x-amz-checksum-crc64nvme: BeXJeotcmVg=";
const SHA256: &str = "x-amz-checksum-sha256: ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
const ETAG: &str = "ETag: \"900150983cd24fb0d6963f7d28e17f72\"";
const MD5: Digest = Digest::Md5(0x9001_5098_3cd2_4fb0_d696_3f7d_28e1_7f72_u128.to_be_bytes());

#[tokio::test]
async fn checksums_and_tags_become_digests() {
    let all = digests("data", "200 OK", &[CRC32, CRC32C, CRC64, SHA256, ETAG]).await;
    let [
        Digest::Crc32(0x3524_41c2),
        Digest::Crc32c(0x364b_3fb7),
        Digest::Crc64Nvme(0x05e5_c97a_8b5c_9958),
        Digest::Sha256(sha256),
        MD5,
    ] = all[..]
    else {
        panic!("{all:x?}");
    };
    assert_eq!(sha256[..4], [0xba, 0x78, 0x16, 0xbf]);
    let full = digests("data", "200 OK", &[CRC64, "x-amz-checksum-type: FULL_OBJECT"]).await;
    assert_eq!(full, all[2..3]);
    assert_eq!(digests("data", "200 OK", &[ETAG, "x-amz-server-side-encryption: AES256"]).await, [MD5]);
    // An object that is packed comes as it is stored.
    assert_eq!(digests("data", "200 OK", &[ETAG, "Content-Encoding: gzip"]).await, [MD5]);
    assert_eq!(digests("data", "206 Partial Content", &[ETAG, CRC32, "Content-Range: bytes 1-3/4"]).await, [MD5]);
}

#[tokio::test]
async fn what_is_of_parts_or_of_other_bytes_is_no_digest() {
    let none: [&[&str]; 9] = [
        &["x-amz-checksum-crc32: NSRBwg==-3", "x-amz-checksum-sha256: ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=-1"],
        &[CRC32, CRC32C, SHA256, "x-amz-checksum-type: COMPOSITE"],
        &["x-amz-checksum-crc32: AAAA", "x-amz-checksum-crc64nvme: NSRBwg=="],
        &["ETag: \"900150983cd24fb0d6963f7d28e17f72-2\""],
        &["ETag: W/\"900150983cd24fb0d6963f7d28e17f72\""],
        &[ETAG, "x-amz-server-side-encryption: aws:kms"],
        &[ETAG, "x-amz-server-side-encryption: aws:kms:dsse"],
        &[ETAG, "x-amz-server-side-encryption-customer-algorithm: AES256"],
        &[ETAG, CRC32C, "x-goog-stored-content-encoding: gzip"],
    ];
    for headers in none {
        assert_eq!(digests("data", "200 OK", headers).await, [], "{headers:?}");
    }
    assert_eq!(digests("data--use1-az4--x-s3", "200 OK", &[ETAG]).await, []);
}

#[tokio::test]
async fn checksums_are_asked_for_under_the_signature() {
    let (url, heads) = serve("200 OK", String::new()).await;
    for credentials in [Credentials::Anonymous, key_pair()] {
        bucket("data", &url, credentials).get(&Get::new("a")).await.unwrap();
    }
    let heads = heads.lock().unwrap().clone();
    assert!(heads.iter().all(|head| head.contains("\r\nx-amz-checksum-mode: enabled\r\n")), "{heads:?}");
    assert!(!heads[0].contains("\r\nauthorization:"), "{heads:?}");
    let signed = "signedheaders=host;x-amz-checksum-mode;x-amz-content-sha256;x-amz-date;x-amz-security-token,";
    assert!(heads[1].contains(signed), "{heads:?}");
}

async fn content(body: Body) -> Vec<u8> {
    body.bytes.try_collect::<Vec<_>>().await.unwrap().concat()
}

#[tokio::test]
async fn another_server_means_the_same() {
    let moto = moto::Server::start().unwrap();
    moto.create_bucket("data").unwrap();
    moto.put("data", "a b", b"abcdef").unwrap();
    let bucket = bucket("data", &moto.url(), key_pair());
    let mut get = Get::new("a b");
    let body = bucket.get(&get).await.unwrap();
    assert_eq!((body.start, body.end, body.size), (0, Some(6), Some(6)));
    let md5 = Digest::Md5(0xe80b_5017_0989_50fc_58aa_d83c_8c14_978e_u128.to_be_bytes());
    assert!(body.digests.contains(&md5), "{:x?}", body.digests);
    get.if_match = body.etag.clone();
    assert_eq!(content(body).await, b"abcdef");

    (get.start, get.end) = (2, Some(4));
    let body = bucket.get(&get).await.unwrap();
    assert_eq!((body.start, body.end, body.size, body.has_ranges), (2, Some(4), Some(6), true));
    assert_eq!(content(body).await, b"cd");
    moto.put("data", "a b", b"ABCDEF").unwrap();
    assert!(matches!(bucket.get(&get).await, Err(Error::Changed { .. })));
}
