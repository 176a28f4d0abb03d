//! Second opinions: moto as a server, boto3 as a client of ours.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use bulk_testkit::{moto, s3};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Runs a script with boto3 against an endpoint; gives what it prints.
fn run(python: &Path, script: &str, url: &str, access_key: &str, secret_key: &str) -> Result<String> {
    const PRELUDE: &str = r#"
import json, sys
import boto3, botocore
from botocore.config import Config
from botocore.exceptions import ClientError
url, access_key, secret_key = sys.argv[1:]
anonymous = Config(signature_version=botocore.UNSIGNED)
def client(access_key=access_key, secret_key=secret_key, token=None, **config):
    return boto3.client("s3", endpoint_url=url, region_name="eu-west-1", aws_access_key_id=access_key,
        aws_secret_access_key=secret_key, aws_session_token=token,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, proxies={}, **config))
def refusal(call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"]
"#;
    let output = Command::new(python)
        .args(["-c", &format!("{PRELUDE}{script}"), url, access_key, secret_key])
        .env_remove("AWS_PROFILE")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("PYTHONIOENCODING", "utf-8")
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn python() -> Result<std::path::PathBuf> {
    Ok(moto::python(&std::env::temp_dir())?)
}

#[test]
fn boto3_lists_and_gets_with_signatures_that_we_verify() -> Result {
    let keys = ["a b+c&d=e", "dir//x", "dir/é😀", "control\u{1}", "~tilde*'()", "z%2F"];
    let mut store: s3::Store = (0..1200).map(|number| (format!("many/{number:04}"), "x")).collect();
    for key in keys {
        store = store.with(key, format!("at {key}"));
    }
    let builder = s3::Server::builder().bucket("data", store).credentials("AKIAEXAMPLE/+", "secret/+key");
    let server = builder.require_credentials(true).start()?;
    let script = r#"
s3 = client()
pages = s3.get_paginator("list_objects_v2").paginate(Bucket="data")
entries = [entry for page in pages for entry in page["Contents"]]
odd = [entry["Key"] for entry in entries if not entry["Key"].startswith("many/")]
print(json.dumps({
    "count": len(entries),
    "sorted": [entry["Key"] for entry in entries] == sorted((entry["Key"] for entry in entries), key=str.encode),
    "first": [entries[0]["ETag"], entries[0]["Size"], entries[0]["LastModified"].isoformat(), entries[0]["StorageClass"]],
    "bodies": {key: s3.get_object(Bucket="data", Key=key)["Body"].read().decode() for key in odd},
    "range": s3.get_object(Bucket="data", Key=odd[0], Range="bytes=3-4")["ContentRange"],
    "head": s3.head_object(Bucket="data", Key=odd[0])["ContentLength"],
    "bucket": s3.head_bucket(Bucket="data")["ResponseMetadata"]["HTTPStatusCode"],
    "prefixes": [prefix["Prefix"] for prefix in s3.list_objects_v2(Bucket="data", Delimiter="/")["CommonPrefixes"]],
    "start_after": s3.list_objects_v2(Bucket="data", StartAfter="many/1198", Prefix="many/")["Contents"][0]["Key"],
    "wrong_secret": refusal(client(secret_key="other").list_objects_v2, Bucket="data"),
    "wrong_key": refusal(client(access_key="OTHER").get_object, Bucket="data", Key="z%2F"),
    "wrong_token": refusal(client(token="token").get_object, Bucket="data", Key="z%2F"),
    "no_key": refusal(s3.get_object, Bucket="data", Key="nothing"),
    "no_bucket": refusal(s3.list_objects_v2, Bucket="nothing"),
    "read_only": refusal(s3.put_object, Bucket="data", Key="new", Body=b"x"),
    "unsigned": refusal(client(signature_version=botocore.UNSIGNED).list_objects_v2, Bucket="data"),
}))
"#;
    let seen: serde_json::Value =
        serde_json::from_str(&run(&python()?, script, &server.url(), "AKIAEXAMPLE/+", "secret/+key")?)?;
    let bodies: serde_json::Map<_, _> = keys.iter().map(|&key| (key.into(), format!("at {key}").into())).collect();
    assert_eq!(
        seen,
        serde_json::json!({
            "count": 1206,
            "sorted": true,
            // `printf 'at a b+c&d=e' | md5sum`
            "first": ["\"8146e402e2381c2277d6198e4a71dbcd\"", 12, "2024-01-01T00:00:00+00:00", "STANDARD"],
            "bodies": bodies,
            "range": "bytes 3-4/12",
            "head": 12,
            "bucket": 200,
            "prefixes": ["dir/", "many/"],
            "start_after": "many/1199",
            "wrong_secret": "SignatureDoesNotMatch",
            "wrong_key": "InvalidAccessKeyId",
            "wrong_token": "InvalidToken",
            "no_key": "NoSuchKey",
            "no_bucket": "NoSuchBucket",
            "read_only": "AccessDenied",
            "unsigned": "AccessDenied",
        })
    );
    Ok(())
}

#[test]
fn boto3_puts_and_deletes_with_a_session_token() -> Result {
    let builder = s3::Server::builder().bucket("data", s3::Store::memory()).writable(true);
    let server = builder.credentials("ASIAEXAMPLE", "secret").session_token("token/+=").start()?;
    let script = r#"
s3 = client(token="token/+=")
def corrupt(request, **_):
    request.body = b"other"
broken = client(token="token/+=")
broken.meta.events.register("before-send.s3.PutObject", corrupt)
print(json.dumps([
    s3.put_object(Bucket="data", Key="a b/+é", Body=b"hello", ContentType="text/plain")["ETag"],
    s3.get_object(Bucket="data", Key="a b/+é")["ContentType"],
    refusal(s3.put_object, Bucket="data", Key="a b/+é", Body=b"x", IfNoneMatch="*"),
    s3.put_object(Bucket="data", Key="gone", Body=b"")["ETag"],
    s3.delete_object(Bucket="data", Key="gone")["ResponseMetadata"]["HTTPStatusCode"],
    refusal(client().get_object, Bucket="data", Key="a b/+é"),
    refusal(broken.put_object, Bucket="data", Key="broken", Body=b"hello"),
]))
"#;
    let seen: serde_json::Value =
        serde_json::from_str(&run(&python()?, script, &server.url(), "ASIAEXAMPLE", "secret")?)?;
    assert_eq!(
        seen,
        serde_json::json!([
            "\"5d41402abc4b2a76b9719d911017c592\"",
            "text/plain",
            "PreconditionFailed",
            "\"d41d8cd98f00b204e9800998ecf8427e\"",
            204,
            "InvalidToken",
            "XAmzContentSHA256Mismatch",
        ])
    );
    assert_eq!(server.get("data", "a b/+é")?.as_deref(), Some(&b"hello"[..]));
    assert_eq!(server.get("data", "gone")?, None);
    assert_eq!(server.get("data", "broken")?, None);
    Ok(())
}

#[test]
fn a_strict_parser_reads_control_characters_only_when_they_are_encoded() -> Result {
    let server = s3::Server::builder().bucket("data", s3::Store::memory().with("a\u{1} b", "x")).start()?;
    let script = r#"
import urllib.parse, urllib.request, xml.etree.ElementTree as ElementTree
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
def keys(query):
    root = ElementTree.fromstring(opener.open(f"{url}/data?list-type=2{query}").read())
    name = "{http://s3.amazonaws.com/doc/2006-03-01/}"
    return [urllib.parse.unquote_plus(key.text) for key in root.iterfind(f"{name}Contents/{name}Key")]
try:
    plain = keys("")
except ElementTree.ParseError:
    plain = "not well-formed"
print(json.dumps([plain, keys("&encoding-type=url")]))
"#;
    let seen: serde_json::Value = serde_json::from_str(&run(&python()?, script, &server.url(), "", "")?)?;
    assert_eq!(seen, serde_json::json!(["not well-formed", ["a\u{1} b"]]));
    Ok(())
}

/// All that a listing tells, in the order of its entries, with ordinals for versions.
const LISTINGS: &str = r#"
s3 = client()
for attempt in [lambda: s3.create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}),
                lambda: s3.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Enabled"})]:
    try:
        attempt()
    except ClientError:
        pass
for key, body in [("a b+c", b"1"), ("dir/1", b"2"), ("a b+c", b"3"), ("dir/2/x", b"4"), ("gone", b"5"), ("gone", None),
                  ("back", b"6"), ("back", None), ("back", b"7"), ("é", b"8"), ("dir/1", None), ("z/", b"9")]:
    if body is None:
        s3.delete_object(Bucket="data", Key=key)
    else:
        s3.put_object(Bucket="data", Key=key, Body=body)
def listed(name, **arguments):
    pages = []
    for page in s3.get_paginator(name).paginate(Bucket="data", **arguments):
        versions = [[entry["Key"], entry["ETag"], entry["Size"], entry["IsLatest"]] for entry in page.get("Versions", [])]
        markers = [[entry["Key"], entry["IsLatest"]] for entry in page.get("DeleteMarkers", [])]
        contents = [[entry["Key"], entry["ETag"], entry["Size"], entry["StorageClass"]] for entry in page.get("Contents", [])]
        prefixes = [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
        pages.append([contents, versions, markers, prefixes])
    return pages
def joined(name, **arguments):
    return [sum(parts, []) for parts in zip(*listed(name, **arguments))]
everything = {}
for name in ["list_objects", "list_objects_v2", "list_object_versions"]:
    for arguments in [{}, {"Delimiter": "/"}, {"Prefix": "dir/"}, {"Prefix": "dir/", "Delimiter": "/"}]:
        everything[f"{name} {arguments}"] = joined(name, **arguments)
        # moto repeats common prefixes on the pages of list_objects.
        for size in [1, 2, 3] if access_key != "moto" or "Delimiter" not in arguments else []:
            paged = joined(name, **arguments, PaginationConfig={"PageSize": size})
            assert paged == everything[f"{name} {arguments}"], (name, arguments, size, paged)
print(json.dumps(everything))
"#;

#[test]
fn boto3_sees_the_same_listings_of_ours_as_of_moto() -> Result {
    let moto = moto::Server::start()?;
    let builder = s3::Server::builder().bucket("data", s3::Store::versioned()).writable(true);
    let ours = builder.credentials("AKIAEXAMPLE", "secret").start()?;
    let listings = |url: &str, access_key: &str| -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&run(moto.python(), LISTINGS, url, access_key, "secret")?)?)
    };
    let (ours, theirs) = (listings(&ours.url(), "AKIAEXAMPLE")?, listings(&moto.url(), "moto")?);
    assert_eq!(ours.as_object().map(serde_json::Map::len), Some(12));
    assert_eq!(ours, theirs);
    Ok(())
}

#[test]
fn boto3_reads_versions_by_their_ids_and_pays() -> Result {
    let store = s3::Store::versioned().with("a", "one").with("a", "two").without("a").requester_pays();
    let server = s3::Server::builder().bucket("data", store).credentials("AKIAEXAMPLE", "secret").start()?;
    let script = r#"
s3 = client()
pays = {"Bucket": "data", "RequestPayer": "requester"}
page = s3.list_object_versions(**pays)
print(json.dumps([
    refusal(s3.list_objects_v2, Bucket="data"),
    refusal(s3.list_objects, Bucket="data"),
    refusal(s3.list_object_versions, Bucket="data"),
    s3.list_objects_v2(**pays)["KeyCount"],
    page["RequestCharged"],
    [s3.get_object(**pays, Key="a", VersionId=entry["VersionId"])["Body"].read().decode() for entry in page["Versions"]],
    [entry["IsLatest"] for entry in page["DeleteMarkers"] + page["Versions"]],
    refusal(s3.get_object, **pays, Key="a"),
    refusal(s3.get_object, **pays, Key="a", VersionId=page["DeleteMarkers"][0]["VersionId"]),
    refusal(s3.get_object, **pays, Key="a", VersionId="none"),
]))
"#;
    let seen: serde_json::Value =
        serde_json::from_str(&run(&python()?, script, &server.url(), "AKIAEXAMPLE", "secret")?)?;
    assert_eq!(
        seen,
        serde_json::json!([
            "AccessDenied",
            "AccessDenied",
            "AccessDenied",
            0,
            "requester",
            ["two", "one"],
            [true, false, false],
            "NoSuchKey",
            "MethodNotAllowed",
            "NoSuchVersion",
        ])
    );
    Ok(())
}

#[test]
fn boto3_lists_made_up_keys() -> Result {
    let keys = s3::KeySpace::new(s3::Layout::Builds, 2_500);
    let server = s3::Server::builder().bucket("data", s3::Store::made_up(keys.clone())).start()?;
    let script = r#"
s3 = client(signature_version=botocore.UNSIGNED)
def entries(name, **arguments):
    pages = s3.get_paginator(name).paginate(Bucket="data", **arguments)
    return [[entry["Key"], entry["ETag"].strip('"'), entry["Size"], entry["LastModified"].timestamp()]
            for page in pages for entry in page.get("Contents", [])]
all = entries("list_objects_v2")
assert all == entries("list_objects") == entries("list_objects_v2", PaginationConfig={"PageSize": 70})
build = json.loads(s3.get_object(Bucket="data", Key=all[0][0])["Body"].read())
print(json.dumps([all, build["target"]["platform"]]))
"#;
    let seen: serde_json::Value = serde_json::from_str(&run(&python()?, script, &server.url(), "", "")?)?;
    let expected: Vec<_> = keys
        .objects()
        .map(|object| {
            serde_json::json!([object.key, object.etag, object.size, object.last_modified.as_second() as f64])
        })
        .collect();
    assert_eq!(seen, serde_json::json!([expected, "win32"]));
    let counts = server.counts();
    assert_eq!((counts.list_v2, counts.list_v1, counts.get, counts.requests()), (3 + 36, 3, 1, 43));
    Ok(())
}

#[test]
fn moto_serves_what_is_put_into_it() -> Result {
    let server = moto::Server::start()?;
    server.create_bucket("data")?;
    server.put("data", "dir/a b+c%é", b"hello")?;
    server.put("data", "empty", b"")?;
    let script = r#"
s3 = client()
print(json.dumps([
    [[entry["Key"], entry["Size"]] for entry in s3.list_objects_v2(Bucket="data")["Contents"]],
    s3.get_object(Bucket="data", Key="dir/a b+c%é")["Body"].read().decode(),
]))
"#;
    let seen: serde_json::Value = serde_json::from_str(&run(server.python(), script, &server.url(), "any", "any")?)?;
    assert_eq!(seen, serde_json::json!([[["dir/a b+c%é", 5], ["empty", 0]], "hello"]));
    let refused = server.put("nothing", "key", b"").expect_err("there is no such bucket").to_string();
    assert!(refused.starts_with("moto answered PUT /nothing/key with HTTP/1.1 404"), "{refused}");
    Ok(())
}

#[test]
fn moto_ends_with_its_owner() -> Result {
    let server = moto::Server::start()?;
    let address = server.url().trim_start_matches("http://").to_owned();
    std::net::TcpStream::connect(&address)?;
    drop(server);
    let error = std::net::TcpStream::connect(&address).expect_err("nobody listens");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    Ok(())
}

#[test]
fn what_is_no_python_with_moto_is_named() {
    let error = moto::Server::start_with("/no/such/python".into()).expect_err("there is no such program");
    assert_eq!(error.to_string(), "moto needs Python 3: install it with `apt install python3 python3-venv`");
    let error = moto::Server::start_with("false".into()).expect_err("no moto");
    assert_eq!(error.to_string(), format!("moto does not start, try `python3 -m pip install 'moto[server]==5.2.5'`: "));
}

#[test]
fn boto3_uploads_in_parts_and_copies_ranges() -> Result {
    let server = s3::Server::builder()
        .bucket("data", s3::Store::memory().with("old", s3::Object::repeating(6 << 20, b"abcdefg")))
        .credentials("key", "secret")
        .require_credentials(true)
        .writable(true)
        .start()?;
    let script = r#"
s3 = client(request_checksum_calculation="when_required", response_checksum_validation="when_required")
FIVE = 5 << 20
name = {"Bucket": "data", "Key": "a b+é/&<>"}
begun = s3.create_multipart_upload(Metadata={"sha256": "x"}, ContentType="text/plain", **name)
other = s3.create_multipart_upload(Bucket="data", Key="another")
ids = {"UploadId": begun["UploadId"]}
def part(number, body, **more):
    return {"PartNumber": number, "ETag": s3.upload_part(PartNumber=number, Body=body, **name, **(more or ids))["ETag"]}
def copy(number, **more):
    copied = s3.upload_part_copy(PartNumber=number, CopySource={"Bucket": "data", "Key": "old"}, **name, **ids, **more)
    return {"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]}
def complete(*parts):
    return s3.complete_multipart_upload(MultipartUpload={"Parts": list(parts)}, **name, **ids)
parts = [part(7, b"x" * FIVE), copy(8, CopySourceRange="bytes=3-%d" % (FIVE + 2)), part(9, b"end")]
small, old = part(2, b"small"), s3.head_object(Bucket="data", Key="old")
listed = s3.list_multipart_uploads(Bucket="data", MaxUploads=1)
rest = s3.list_multipart_uploads(Bucket="data", KeyMarker=listed["NextKeyMarker"], UploadIdMarker=listed["NextUploadIdMarker"])
refused = [
    refusal(part, number=0, body=b""),
    refusal(part, number=10001, body=b""),
    refusal(part, number=1, body=b"", UploadId="absent"),
    refusal(copy, number=1, CopySourceRange="bytes=0-%d" % (6 << 20)),
    refusal(copy, number=1, CopySourceIfMatch="0"),
]
def not_complete(*parts):
    try:
        complete(*parts)
    except ClientError as error:
        return error.response["Error"]["Code"]
refused += [
    not_complete(parts[1], parts[0]),
    not_complete(parts[0], {"PartNumber": 8, "ETag": '"0"'}),
    not_complete(small, parts[0]),
    not_complete(),
]
done = complete(*parts)
object = s3.get_object(**name)
s3.abort_multipart_upload(Bucket="data", Key="another", UploadId=other["UploadId"])
print(json.dumps({
    "uploads": [[upload["Key"] for upload in page["Uploads"]] for page in (listed, rest)],
    "truncated": [listed["IsTruncated"], rest["IsTruncated"]],
    "refused": refused,
    "etag": [done["ETag"][-3:], done["ETag"] == object["ETag"]],
    "metadata": [object["Metadata"], object["ContentType"]],
    "content": object["Body"].read() == b"x" * FIVE + (b"abcdefg" * FIVE)[3:FIVE + 3] + b"end",
    "again": [not_complete(*parts), "Uploads" in s3.list_multipart_uploads(Bucket="data")],
}))
"#;
    let printed = run(&python()?, script, &server.url(), "key", "secret")?;
    let found: serde_json::Value = serde_json::from_str(&printed)?;
    let expected = serde_json::json!({
        "uploads": [["a b+é/&<>"], ["another"]],
        "truncated": [true, false],
        "refused": [
            "InvalidArgument", "InvalidArgument", "NoSuchUpload", "InvalidArgument", "PreconditionFailed",
            "InvalidPartOrder", "InvalidPart", "EntityTooSmall", "MalformedXML",
        ],
        "etag": ["-3\"", true],
        "metadata": [{"sha256": "x"}, "text/plain"],
        "content": true,
        "again": ["NoSuchUpload", false],
    });
    assert_eq!(found, expected);
    Ok(())
}
