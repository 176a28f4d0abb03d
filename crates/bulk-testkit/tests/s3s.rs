//! What s3s-fs can do and what it cannot, seen by boto3.

#![cfg(feature = "s3s")]

use std::fs;
use std::net::TcpStream;
use std::process::{Command, Stdio};

use bulk_testkit::{moto, s3s};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const SCRIPT: &str = r#"
import json, sys
import boto3, botocore
from botocore.config import Config
from botocore.exceptions import ClientError
s3 = boto3.client("s3", endpoint_url=sys.argv[1], region_name="eu-west-1",
    config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, proxies={},
                  signature_version=botocore.UNSIGNED))
def tried(call, **arguments):
    try:
        return call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"]
keys = ["a+b", "a b", "a%2Fb", "dir/1", "dir/2", "dir.x", "e\u0301", "é", "😀", "\uffee"]
for key in keys:
    s3.put_object(Bucket="data", Key=key, Body=key.encode())
def listed(name, **arguments):
    pages = list(s3.get_paginator(name).paginate(Bucket="data", **arguments))
    return [[entry["Key"] for page in pages for entry in page.get("Contents", [])],
            [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])], len(pages)]
everything = listed("list_objects_v2")
import urllib.request, xml.etree.ElementTree as ElementTree
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
def raw(query):
    root = ElementTree.fromstring(opener.open(f"{sys.argv[1]}/data?{query}").read())
    name = "{http://s3.amazonaws.com/doc/2006-03-01/}"
    return [key.text for key in root.iterfind(f"{name}Contents/{name}Key")]
print(json.dumps({
    "in_order": raw("list-type=2") == sorted(keys, key=str.encode),
    "everything": everything[0],
    "encoded": raw("list-type=2&encoding-type=url") == raw("list-type=2"),
    "pages": listed("list_objects_v2", PaginationConfig={"PageSize": 3}) == [*everything[:2], 4],
    "pages_v1": [len(listed("list_objects", PaginationConfig={"PageSize": 3})[0]),
                 listed("list_objects", PaginationConfig={"PageSize": 3})[2]],
    "marker": raw("marker=dir/1") == raw("list-type=2&start-after=dir/1"),
    "start_after": listed("list_objects_v2", StartAfter="dir/1", Prefix="dir")[0],
    "delimiter": listed("list_objects_v2", Delimiter="/", Prefix="d")[:2],
    "etag": tried(s3.list_objects_v2, Bucket="data", Prefix="a b")["Contents"][0].get("ETag"),
    "head_etag": tried(s3.head_object, Bucket="data", Key="a b").get("ETag"),
    "if_match_passed_over": isinstance(tried(s3.get_object, Bucket="data", Key="a b", IfMatch='"other"'), dict),
    "range": tried(s3.get_object, Bucket="data", Key="a+b", Range="bytes=1-1")["ContentRange"],
    "versions": tried(s3.list_object_versions, Bucket="data"),
    "no_bucket": tried(s3.list_objects_v2, Bucket="nothing"),
    "double": s3.put_object(Bucket="data", Key="odd//x", Body=b"") and listed("list_objects_v2", Prefix="odd")[0],
    "slash": s3.put_object(Bucket="data", Key="folder/", Body=b"") and listed("list_objects_v2", Prefix="folder")[0],
    "below": tried(s3.put_object, Bucket="data", Key="a b/c", Body=b""),
}))
"#;

#[test]
fn it_lists_what_it_can_and_ends_when_it_is_dropped() -> Result {
    let root = tempfile::tempdir()?;
    fs::create_dir(root.path().join("data"))?;
    let server = s3s::Server::start(&s3s::program(&std::env::temp_dir())?, root.path())?;
    let output = Command::new(moto::python(&std::env::temp_dir())?)
        .args(["-c", SCRIPT, server.url()])
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("PYTHONIOENCODING", "utf-8")
        .stdin(Stdio::null())
        .output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let keys = ["a b", "a/b", "a b", "dir.x", "dir/1", "dir/2", "e\u{301}", "é", "\u{ffee}", "😀"];
    assert_eq!(
        seen,
        serde_json::json!({
            "in_order": true,
            // It says that keys are encoded, and they are not: boto3 reads `a+b` and `a%2Fb` as other keys.
            "encoded": true,
            "everything": keys,
            "pages": true,
            // Nor are its markers, so that boto3 goes back from page to page.
            "pages_v1": [12, 4],
            "marker": true,
            "start_after": ["dir/2"],
            "delimiter": [["dir.x"], ["dir/"]],
            "etag": null,
            "head_etag": "\"0cc9cd4dd26c5137b675a0d819cb9ab0\"",
            "if_match_passed_over": true,
            "range": "bytes 1-1/3",
            "versions": "NotImplemented",
            "no_bucket": "NoSuchBucket",
            "double": ["odd/x"],
            "slash": [],
            "below": "InternalError",
        })
    );

    let address = server.url().trim_start_matches("http://").to_owned();
    drop(server);
    let error = TcpStream::connect(&address).expect_err("nobody listens");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    Ok(())
}

#[test]
fn a_folder_that_is_not_there_is_an_error() -> Result {
    let root = tempfile::tempdir()?.path().join("nothing");
    let error = s3s::Server::start(&s3s::program(&std::env::temp_dir())?, &root).expect_err("no such folder");
    assert_eq!(error.to_string(), format!("s3s-fs does not start in {}", root.display()));
    Ok(())
}
