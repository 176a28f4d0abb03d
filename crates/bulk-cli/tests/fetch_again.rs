//! What a second `bulk fetch` into a folder makes of what is there: from the outside.

mod support;

use std::fs;
use std::process::Command;

use bulk_testkit::s3::{Fault, Object, Rule, Server, Store};
use support::{BUCKET, Ran, bulk, files};

fn server(object: impl Into<Object>) -> Server {
    Server::builder().bucket(BUCKET, Store::memory().with("data/a.csv", object)).start().unwrap()
}

/// `bulk fetch URL`.
#[track_caller]
fn fetch(url: &str, out: &std::path::Path, more: &[&str]) -> Ran {
    let mut command = bulk(["fetch", url, "--out"]);
    command.arg(out).args(more);
    Ran::of(command)
}

/// The bytes that each request brought since the last time.
fn sent(server: &Server) -> Vec<u64> {
    let sent = server.requests().iter().map(|request| request.bytes_sent).collect();
    server.clear_requests();
    sent
}

#[test]
fn a_url_is_asked_whether_it_is_still_what_is_there() {
    let out = tempfile::tempdir().unwrap();
    let server = server("id\n1\n");
    let url = server.object_url(BUCKET, "data/a.csv");
    fetch(&url, out.path(), &[]).assert(0, &[]);
    assert_eq!(sent(&server), [5]);
    fetch(&url, out.path(), &[]).assert(0, &["0 B fetched"]);
    assert_eq!(sent(&server), [1]);
    server.put(BUCKET, "data/a.csv", "id\n2\n").unwrap();
    fetch(&url, out.path(), &[]).assert(0, &["it changed at its source"]);
    assert_eq!(sent(&server), [1, 5]);
    assert_eq!(files(out.path())["a.csv"], b"id\n2\n");
    // What cannot be asked is not said to be there.
    let status = Fault::Status { code: 404, error: "NoSuchKey".into(), retry_after: None };
    server.fault(Rule::new(status));
    fetch(&url, out.path(), &[]).assert(1, &["a.csv does not exist"]);
    assert_eq!(files(out.path())["a.csv"], b"id\n2\n");
}

#[test]
fn another_query_or_another_host_is_another_file() {
    let out = tempfile::tempdir().unwrap();
    // They have all in common that a server can say of them.
    let said =
        |text: &str| Object::new(text.to_owned()).etag("one").last_modified("2026-01-01T00:00:00Z".parse().unwrap());
    let (one, other) = (server(said("id\n1\n")), server(said("id\n2\n")));
    let urls = [&one, &one, &other].map(|server| server.object_url(BUCKET, "data/a.csv"));
    let urls = [format!("{}?id=1", urls[0]), format!("{}?id=2", urls[1]), format!("{}?id=2", urls[2])];
    for (url, server, text) in [(&urls[0], &one, "id\n1\n"), (&urls[1], &one, "id\n1\n"), (&urls[2], &other, "id\n2\n")]
    {
        fetch(url, out.path(), &[]).assert(0, &[]);
        assert_eq!(sent(server), [5], "{url}");
        assert_eq!(files(out.path())["a.csv"], text.as_bytes(), "{url}");
        fetch(url, out.path(), &[]).assert(0, &["0 B fetched"]);
        assert_eq!(sent(server), [1], "{url}");
    }
    // How it is signed differs each time.
    for signed in ["id=2&Expires=1&Signature=one", "Expires=2&id=2&Signature=two"] {
        let url = other.object_url(BUCKET, "data/a.csv");
        fetch(&format!("{url}?{signed}"), out.path(), &[]).assert(0, &["0 B fetched"]);
    }
    // The record is read by others, too.
    let record = fs::read_to_string(out.path().join(".bulk/a.csv.json")).unwrap();
    assert!(record.contains("data/a.csv?sha256:") && !record.contains("id=2"), "{record}");
}

#[test]
fn a_checksum_list_is_held_against_the_file_and_not_against_what_is_noted_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (out, list) = (folder.path().join("out"), folder.path().join("SHA256SUMS"));
    let server = server("id\n1\n");
    let sum = |text: &str| {
        let path = folder.path().join("a.csv");
        fs::write(&path, text).unwrap();
        let output = Command::new("sha256sum").arg(path).output().unwrap();
        String::from_utf8(output.stdout).unwrap()[..64].to_owned()
    };
    fs::write(&list, format!("{}  a.csv\n", sum("id\n1\n"))).unwrap();
    let run = || {
        let source = format!("s3://{BUCKET}/data/");
        let mut command = bulk(["fetch", &source, "--anonymous", "--endpoint", &server.url(), "--sha256", "--out"]);
        command.arg(&out).arg("--sums").arg(&list);
        Ran::of(command)
    };
    run().assert(0, &[]);
    run().assert(0, &["0 B fetched"]);
    fs::write(out.join("a.csv"), "id\n2\n").unwrap();
    run().assert(7, &["a.csv differs: its checksum list says", &format!("it has sha256:{}", sum("id\n2\n"))]);
}

#[test]
fn the_digests_of_an_object_in_segments_cost_no_second_transfer() {
    let folder = tempfile::tempdir().unwrap();
    let object = Object::repeating(3 << 20, b"some bytes ").multipart_etag(1 << 20);
    let server = server(object);
    let source = format!("s3://{BUCKET}/data/");
    let mut command =
        bulk(["fetch", &source, "--anonymous", "--endpoint", &server.url(), "--segment", "1MiB", "--out"]);
    command.arg(folder.path());
    Ran::of(command).assert(0, &[]);
    let of_key = server.requests().into_iter().filter(|request| request.key.is_some());
    let (heads, gets): (Vec<_>, Vec<_>) = of_key.partition(|request| request.method.as_str() == "HEAD");
    assert_eq!(heads.len(), 1);
    assert_eq!(gets.iter().filter(|request| request.range.is_none()).count(), 0, "{gets:?}");
    assert_eq!(gets.iter().map(|request| request.bytes_sent).sum::<u64>(), 3 << 20);
}
