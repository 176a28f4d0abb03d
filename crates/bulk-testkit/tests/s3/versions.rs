//! ListObjects and ListObjectVersions: their XML, their markers, and versions of objects.

use bulk_testkit::s3::{Object, Server, Store};
use http::Method;
use reqwest::StatusCode;

use super::support::{Entry, Result, all_pages, client, get, header, leaves, page};

const OWNER: &str = "<Owner><ID>0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef</ID></Owner>";

#[tokio::test]
async fn the_first_version_of_a_listing_is_the_documented_xml() -> Result {
    let store = Store::memory().with("a<b", "hello").with("dir/x", "x").with("z", "");
    let server = Server::builder().bucket("b", store).start()?;
    assert_eq!(
        get(&server, "/b?delimiter=%2F&max-keys=2&x-id=ListObjects", &[]).await?.text().await?,
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><Prefix></Prefix>\
             <Marker></Marker><NextMarker>dir/</NextMarker><MaxKeys>2</MaxKeys><Delimiter>/</Delimiter>\
             <IsTruncated>true</IsTruncated><Contents><Key>a&lt;b</Key>\
             <LastModified>2024-01-01T00:00:00.000Z</LastModified>\
             <ETag>&quot;5d41402abc4b2a76b9719d911017c592&quot;</ETag><Size>5</Size>{OWNER}\
             <StorageClass>STANDARD</StorageClass></Contents><CommonPrefixes><Prefix>dir/</Prefix></CommonPrefixes>\
             </ListBucketResult>"
        )
    );
    let xml = get(&server, "/b?max-keys=1&marker=a%3Cb&encoding-type=url", &[]).await?.text().await?;
    let leaves = leaves(&xml)?;
    assert_eq!(leaves[2], ("Marker".to_owned(), "a%3Cb".to_owned()));
    assert!(leaves.contains(&("IsTruncated".to_owned(), "true".to_owned())));
    assert!(leaves.iter().all(|(name, _)| name != "NextMarker"), "{leaves:?}");
    assert_eq!((server.counts().list_v1, server.counts().lists()), (2, 2));
    Ok(())
}

#[tokio::test]
async fn a_marker_may_be_a_common_prefix() -> Result {
    let keys = ["a", "b/", "b/1", "b/2", "c"];
    let server = Server::builder().bucket("b", keys.iter().map(|key| (key, "x")).collect()).start()?;
    let listed = |marker| page(&server, &[("delimiter", "/"), ("marker", marker)]).map(|page| page.entries);
    let (key, prefix) = (|key: &str| Entry::Key(key.to_owned()), Entry::Prefix("b/".to_owned()));
    assert_eq!(listed("a")?, [key("c"), prefix.clone()]);
    assert_eq!(listed("b/")?, [key("c")]);
    assert_eq!(listed("b/1")?, [key("c"), prefix]);
    Ok(())
}

fn versions() -> Store {
    let object = |text: &'static str, second: i64| {
        Object::new(text).last_modified(jiff::Timestamp::from_second(second).unwrap_or_default())
    };
    Store::versioned()
        .with("a", object("one", 1))
        .with("a", object("three", 3))
        .without("b")
        .with("dir/x", "x")
        .with("dir/x", "y")
        .with("c", "gone")
        .without("c")
        .with("c", "back")
}

#[tokio::test]
async fn versions_are_the_documented_xml() -> Result {
    let server = Server::builder().bucket("b", versions()).start()?;
    let xml = get(&server, "/b?versions&max-keys=3&delimiter=/", &[]).await?.text().await?;
    let Page { a, b } = Page::ids(&server)?;
    let [new, old] = a;
    assert_eq!(
        xml,
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <ListVersionsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><Prefix></Prefix>\
             <KeyMarker></KeyMarker><VersionIdMarker></VersionIdMarker><NextKeyMarker>b</NextKeyMarker>\
             <NextVersionIdMarker>{b}</NextVersionIdMarker><MaxKeys>3</MaxKeys><Delimiter>/</Delimiter>\
             <IsTruncated>true</IsTruncated>\
             <Version><Key>a</Key><VersionId>{new}</VersionId><IsLatest>true</IsLatest>\
             <LastModified>1970-01-01T00:00:03.000Z</LastModified>\
             <ETag>&quot;35d6d33467aae9a2e3dccb4b6b027878&quot;</ETag><Size>5</Size>{OWNER}\
             <StorageClass>STANDARD</StorageClass></Version>\
             <Version><Key>a</Key><VersionId>{old}</VersionId><IsLatest>false</IsLatest>\
             <LastModified>1970-01-01T00:00:01.000Z</LastModified>\
             <ETag>&quot;f97c5d29941bfb1b2fdab0874906ab82&quot;</ETag><Size>3</Size>{OWNER}\
             <StorageClass>STANDARD</StorageClass></Version>\
             <DeleteMarker><Key>b</Key><VersionId>{b}</VersionId><IsLatest>true</IsLatest>\
             <LastModified>2024-01-01T00:00:00.000Z</LastModified>{OWNER}</DeleteMarker></ListVersionsResult>"
        )
    );
    Ok(())
}

/// The ids of the versions of `a`, newest first, and of the delete marker `b`.
struct Page {
    a: [String; 2],
    b: String,
}

impl Page {
    fn ids(server: &Server) -> Result<Self> {
        let entries = page(server, &[("versions", "")])?.entries;
        match &entries[..3] {
            [Entry::Version(_, new, true), Entry::Version(_, old, false), Entry::DeleteMarker(_, b, true)] => {
                Ok(Self { a: [new.clone(), old.clone()], b: b.clone() })
            }
            other => Err(format!("{other:?}").into()),
        }
    }
}

#[test]
fn versions_join_over_pages_of_any_size() -> Result {
    let server = Server::builder().bucket("b", versions()).start()?;
    let (all, counts) = all_pages(&server, &[("versions", "")])?;
    assert_eq!(counts, [8]);
    let seen: Vec<_> = all
        .iter()
        .map(|entry| match entry {
            Entry::Version(key, _, latest) => (key.as_str(), true, *latest),
            Entry::DeleteMarker(key, _, latest) => (key.as_str(), false, *latest),
            _ => ("", false, false),
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("a", true, true),
            ("a", true, false),
            ("b", false, true),
            ("c", true, true),
            ("c", false, false),
            ("c", true, false),
            ("dir/x", true, true),
            ("dir/x", true, false),
        ]
    );
    for size in 1..8 {
        let (entries, counts) = all_pages(&server, &[("versions", ""), ("max-keys", &size.to_string())])?;
        assert_eq!(entries, all, "{size}");
        assert_eq!(counts.len(), 8_usize.div_ceil(size), "{size}");
    }
    // Behind a key means behind all of its versions.
    let after = |key: &str| page(&server, &[("versions", ""), ("key-marker", key)]).map(|page| page.entries);
    assert_eq!((after("a")?, after("bb")?, after("c")?), (all[2..].to_vec(), all[3..].to_vec(), all[6..].to_vec()));
    let (entries, _) = all_pages(&server, &[("versions", ""), ("delimiter", "/"), ("max-keys", "1")])?;
    assert_eq!((&entries[..6], &entries[6..]), (&all[..6], &[Entry::Prefix("dir/".to_owned())][..]));
    // The others list what is there now.
    let now = ["a", "c", "dir/x"].map(|key| Entry::Key(key.to_owned()));
    for query in [&[("list-type", "2")][..], &[]] {
        assert_eq!(all_pages(&server, query)?.0, now);
    }
    Ok(())
}

#[tokio::test]
async fn a_version_is_fetched_by_its_id() -> Result {
    let server = Server::builder().bucket("b", versions()).writable(true).start()?;
    let Page { a: [new, old], b } = Page::ids(&server)?;
    for (path, status, text, id) in [
        ("/b/a".to_owned(), 200, Some("three"), Some(&new)),
        (format!("/b/a?versionId={new}"), 200, Some("three"), Some(&new)),
        (format!("/b/a?versionId={old}"), 200, Some("one"), Some(&old)),
        (format!("/b/a?versionId={b}"), 404, None, None),
        ("/b/a?versionId=null".to_owned(), 404, None, None),
        ("/b/b".to_owned(), 404, None, Some(&b)),
        (format!("/b/b?versionId={b}"), 405, None, Some(&b)),
    ] {
        let response = get(&server, &path, &[]).await?;
        assert_eq!(response.status().as_u16(), status, "{path}");
        assert_eq!(header(&response, "x-amz-version-id"), id.map(String::as_str), "{path}");
        let is_marker = id == Some(&b);
        assert_eq!(header(&response, "x-amz-delete-marker"), is_marker.then_some("true"), "{path}");
        if let Some(text) = text {
            assert_eq!(response.text().await?, text);
        }
    }
    let url = format!("{}/b/a", server.url());
    assert_eq!(client().delete(format!("{url}?versionId={old}")).send().await?.status(), StatusCode::NOT_IMPLEMENTED);
    // What is replaced and removed stays.
    client().put(&url).body("five").send().await?.error_for_status()?;
    client().request(Method::DELETE, &url).send().await?.error_for_status()?;
    assert_eq!(server.get("b", "a")?, None);
    let entries = page(&server, &[("versions", ""), ("prefix", "a")])?.entries;
    assert!(matches!(&entries[0], Entry::DeleteMarker(key, _, true) if key == "a"), "{entries:?}");
    let Entry::Version(_, id, false) = &entries[1] else { return Err(format!("{entries:?}").into()) };
    assert_eq!(get(&server, &format!("/b/a?versionId={id}"), &[]).await?.text().await?, "five");
    assert_eq!(entries.len(), 4);
    Ok(())
}

#[tokio::test]
async fn without_versions_there_is_one_called_null() -> Result {
    let server = Server::builder().bucket("b", Store::memory().with("a", "x").with("a", "y")).start()?;
    let entries = page(&server, &[("versions", "")])?.entries;
    assert_eq!(entries, [Entry::Version("a".to_owned(), "null".to_owned(), true)]);
    assert_eq!(get(&server, "/b/a?versionId=null", &[]).await?.text().await?, "y");
    let response = get(&server, "/b?versions&version-id-marker=null", &[]).await?;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let leaves = leaves(&response.text().await?)?;
    assert_eq!(leaves[1].1, "A version-id marker cannot be specified without a key marker.");
    Ok(())
}
