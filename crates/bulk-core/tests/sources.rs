//! All sources of this crate against one suite, and what is peculiar to files.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bulk_core::conformance::{Conformance, Violation};
use bulk_core::{Algorithm, Body, Digest, ETag, Error, FileSource, Get, HttpSource, Source};
use bulk_testkit::s3::{Fault, Rule, Server, Store};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;

fn server(conformance: &Conformance) -> Server {
    let store: Store = conformance.objects.iter().map(|(key, bytes)| (key, bytes.clone())).collect();
    Server::builder().bucket("data", store).start().unwrap()
}

fn write(folder: &Path, key: &str, bytes: &[u8]) {
    let path = folder.join(key);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn folder(conformance: &Conformance) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    conformance.objects.iter().for_each(|(key, bytes)| write(folder.path(), key, bytes));
    folder
}

#[tokio::test]
async fn files_conform() {
    let conformance = Conformance::default();
    let folder = folder(&conformance);
    conformance.check(Arc::new(FileSource::new(folder.path()))).await.unwrap();
}

#[tokio::test]
async fn http_conforms_with_and_without_ranges() {
    let mut conformance = Conformance::default();
    conformance.secrets = vec!["hidden".to_owned()];
    let server = server(&conformance);
    let base = server.url().replace("http://", "http://hidden-user:hidden-word@") + "/data?signature=hidden";
    let source = Arc::new(HttpSource::new(&base).unwrap());
    conformance.check(source.clone()).await.unwrap();
    assert!(server.requests().iter().any(|request| request.range.as_deref() == Some("bytes=13-13")));

    server.fault(Rule::new(Fault::NoRange));
    conformance.check(source).await.unwrap();
}

/// A source of files that asks for or answers something else.
struct Wrong(FileSource, AlterGet, AlterBody);

type AlterGet = fn(&mut Get);
type AlterBody = fn(&mut Body);

#[async_trait]
impl Source for Wrong {
    fn location(&self, key: &str) -> String {
        self.0.location(key)
    }

    async fn get(&self, get: &Get) -> Result<Body, Error> {
        let mut asked = get.clone();
        self.1(&mut asked);
        let mut body = self.0.get(&asked).await?;
        self.2(&mut body);
        Ok(body)
    }
}

#[tokio::test]
async fn sources_that_do_not_conform_are_found_out() {
    let mut conformance = Conformance::default();
    let folder = folder(&conformance);
    let files = FileSource::new(folder.path());
    // An answer may be the whole object as long as it says so, and an object need not have a tag.
    let right: [(AlterGet, AlterBody); 2] =
        [(|get| (get.start, get.end) = (0, None), |body| body.has_ranges = false), (|_| (), |body| body.etag = None)];
    for (get, body) in right {
        assert_eq!(conformance.check(Arc::new(Wrong(files.clone(), get, body))).await, Ok(()));
    }
    let wrong: [(&str, AlterGet, AlterBody); 10] = [
        ("whole", |_| (), |body| body.size = Some(1)),
        ("whole", |_| (), |body| body.end = Some(1)),
        ("whole", |_| (), |body| body.bytes = futures::stream::empty().boxed()),
        ("whole, again", |_| (), |body| body.last_modified = Some(Timestamp::now())),
        ("first byte", |get| get.end = get.end.map(|end| end + 1), |_| ()),
        ("first byte", |get| get.end = None, |_| ()),
        ("first byte", |_| (), |body| body.has_ranges = false),
        ("last byte", |get| get.start = 0, |_| ()),
        ("start at or behind the object's end", |get| get.start = get.start.min(25), |_| ()),
        ("if_match with another tag", |get| get.if_match = None, |_| ()),
    ];
    // The order of the checks is that of the objects.
    conformance.objects.retain(|(key, _)| key.ends_with("/letters"));
    for (check, get, body) in wrong {
        let violation = conformance.check(Arc::new(Wrong(files.clone(), get, body))).await.unwrap_err();
        assert_eq!(violation.check, check, "{violation}");
    }
    conformance.objects.push(("not stored".to_owned(), "x".into()));
    let Err(Violation { check: "whole", key, .. }) = conformance.check(Arc::new(files.clone())).await else { panic!() };
    assert_eq!(key, "not stored");
    conformance.secrets = vec![folder.path().display().to_string()];
    let Err(Violation { check: "location", .. }) = conformance.check(Arc::new(files)).await else { panic!() };
}

/// A source of files that says of them what is not so.
struct Mistaken(FileSource, Identify, StateDigests);

type Identify = fn(&str) -> String;

type StateDigests = fn(&str, Option<&ETag>) -> Result<Vec<Digest>, Error>;

#[async_trait]
impl Source for Mistaken {
    fn location(&self, key: &str) -> String {
        self.0.location(key)
    }

    fn identity(&self, key: &str) -> String {
        self.1(key)
    }

    async fn get(&self, get: &Get) -> Result<Body, Error> {
        self.0.get(get).await
    }

    async fn digests(&self, key: &str, if_match: Option<&ETag>) -> Result<Vec<Digest>, Error> {
        self.2(key, if_match)
    }
}

fn is_no_version(if_match: Option<&ETag>) -> bool {
    if_match.is_some_and(|tag| *tag == ETag::new("no-version-has-this-tag"))
}

/// Of every object, whatever its version.
fn of_all(key: &str, _: Option<&ETag>) -> Result<Vec<Digest>, Error> {
    let bytes: &[u8] = match key {
        "conformance/byte" => b"x",
        _ => b"abcdefghijklmnopqrstuvwxyz",
    };
    Ok(vec![Digest::of(Algorithm::Sha256, bytes)])
}

fn right(key: &str, if_match: Option<&ETag>) -> Result<Vec<Digest>, Error> {
    if is_no_version(if_match) {
        return Err(Error::Changed { location: key.to_owned(), what: "its tag".to_owned() });
    }
    if key.contains("nothing") {
        return Err(Error::NotFound { location: key.to_owned() });
    }
    of_all(key, None)
}

#[tokio::test]
async fn wrong_digests_and_identities_are_found_out() {
    let mut conformance = Conformance::default();
    conformance.objects.retain(|(key, _)| key.ends_with("/letters") || key.ends_with("/byte"));
    conformance.secrets = vec!["hidden".to_owned()];
    let folder = folder(&conformance);
    let files = FileSource::new(folder.path());
    let wrong: [(&str, Identify, StateDigests); 6] = [
        ("identity", |_| "the same".to_owned(), right),
        ("identity", |key| format!("{key}?signature=hidden"), right),
        ("identity", |key| format!("{key}?{}", fastrand::u64(..)), right),
        ("digests", str::to_owned, |_, _| Ok(vec![Digest::of(Algorithm::Md5, b"another")])),
        ("digests with another tag", str::to_owned, of_all),
        ("digests of a missing object", str::to_owned, |key, if_match| match if_match {
            _ if is_no_version(if_match) => Ok(vec![]),
            _ => of_all(key, None),
        }),
    ];
    for (check, identity, digests) in wrong {
        let violation = conformance.check(Arc::new(Mistaken(files.clone(), identity, digests))).await.unwrap_err();
        assert_eq!(violation.check, check, "{violation}");
    }
}

#[tokio::test]
async fn a_file_has_another_tag_once_it_is_written_to_or_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, "first").unwrap();
    let set_time = |seconds| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    };
    let source = FileSource::new(folder.path());
    let etag = async || source.get(&Get::new("a")).await.unwrap().etag.unwrap();
    set_time(1_000_000_000);
    let first = etag().await;
    assert!(!first.is_weak());
    assert_eq!(etag().await, first);

    set_time(1_000_000_001);
    let later = etag().await;
    assert_ne!(later, first);

    // Another file of the same size and time takes its place.
    fs::write(folder.path().join("b"), "other").unwrap();
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::File::options().write(true).open(folder.path().join("b")).unwrap().set_modified(time).unwrap();
    fs::rename(folder.path().join("b"), &path).unwrap();
    assert_eq!(cfg!(unix), etag().await != later);

    let mut get = Get::new("a");
    get.if_match = Some(first);
    assert!(matches!(source.get(&get).await, Err(Error::Changed { .. })));
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_does_not_end_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let source = FileSource::new(folder.path());
    let original = vec![b'a'; 1_000_000];
    for change in ["written to", "appended to", "cut", "replaced"] {
        fs::write(&path, &original).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        let mut body = source.get(&Get::new("a")).await.unwrap();
        let first = body.bytes.next().await.unwrap().unwrap();
        match change {
            "written to" => (&file).write_all(b"b").unwrap(),
            "appended to" => fs::File::options().append(true).open(&path).unwrap().write_all(b"b").unwrap(),
            "cut" => file.set_len(first.len() as u64).unwrap(),
            _ => {
                fs::write(folder.path().join("b"), "other").unwrap();
                fs::rename(folder.path().join("b"), &path).unwrap();
            }
        }
        let rest = body.bytes.try_collect::<Vec<_>>().await;
        match change {
            "replaced" => assert_eq!([first.as_ref(), &rest.unwrap().concat()].concat(), original),
            _ => assert!(matches!(rest, Err(Error::Changed { .. })), "{change}: {rest:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_file_below_the_folder_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("a"), "x").unwrap();
    let source = FileSource::new(folder.path().join("sub"));
    for key in ["../a", "/etc/hostname", ".", "", "a/../../a"] {
        assert!(matches!(source.get(&Get::new(key)).await, Err(Error::Name { .. })), "{key}");
    }
    let source = FileSource::new(folder.path());
    for key in ["sub", "a/b", "none"] {
        assert!(matches!(source.get(&Get::new(key)).await, Err(Error::NotFound { .. })), "{key}");
    }
    let mut get = Get::new("a");
    get.end = Some(0);
    assert!(matches!(source.get(&get).await, Err(Error::Protocol { .. })));
}
