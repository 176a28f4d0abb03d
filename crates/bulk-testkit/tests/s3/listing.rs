//! ListObjectsV2: its XML, its pages, and what it rolls up.

use bulk_testkit::s3::{Object, Server, Store};
use reqwest::StatusCode;

use super::support::{Listing, Result, alphabet, get, header, leaves, list, list_all, raw};

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
