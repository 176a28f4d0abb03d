//! Pages of a listing: both readers of their XML find the same, and what a server prints is what is read.

use std::collections::BTreeSet;

use bulk_s3::fuzzing::{read_as_xml, read_objects, read_quickly};

use crate::Take;

/// See the module.
pub fn target(data: &[u8]) {
    let mut take = Take::new(data);
    if take.byte() & 1 == 0 {
        any(take.rest());
    } else {
        printed(take);
    }
}

fn any(body: &[u8]) {
    let xml = read_as_xml(body);
    // The quick one does not look at entities that nobody asks for, so it may read what is no XML.
    if let Ok(text) = str::from_utf8(body)
        && let (Some(found), Ok(expected)) = (read_quickly(text), &xml)
    {
        assert_eq!(found, *expected);
    }
    if let Ok(Some(objects)) = read_objects(body) {
        // Each costs a stretch of the page: a small answer is no large listing.
        assert!(objects.len() * "<Contents/>".len() <= body.len());
    }
}

/// Keys, as one server or another prints them.
fn printed(mut take: Take<'_>) {
    let choices = take.byte();
    let (is_encoded, is_plain) = (choices & 1 != 0, choices & 2 != 0);
    let mut keys = BTreeSet::new();
    while !take.is_empty() {
        let Ok(key) = str::from_utf8(take.part()) else { return };
        if !key.is_empty() {
            keys.insert(key);
        }
    }
    let mut body = "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"urn:x\"><KeyCount>1</KeyCount>".to_owned();
    if is_encoded {
        body += "<EncodingType>url</EncodingType>";
    }
    for (size, key) in keys.iter().enumerate() {
        let key = if is_encoded { encoded(key) } else { escaped(key, is_plain) };
        body += &format!("<Contents><Key>{key}</Key><ETag>&quot;{size}&quot;</ETag><Size>{size}</Size></Contents>");
    }
    body += "<IsTruncated>false</IsTruncated></ListBucketResult>";
    let found = match read_objects(body.as_bytes()) {
        Ok(Some(objects)) => objects,
        other => panic!("{other:?} of {body}"),
    };
    let found: Vec<_> = found.iter().map(|object| (&*object.key, object.size)).collect();
    assert_eq!(found, keys.into_iter().zip(0..).collect::<Vec<_>>());
    any(body.as_bytes());
}

/// As S3 does with `encoding-type=url`.
fn encoded(key: &str) -> String {
    let mut text = String::new();
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' | b'/' => text.push(char::from(byte)),
            b' ' => text.push('+'),
            _ => text += &format!("%{byte:02X}"),
        }
    }
    text
}

/// By entities: only those that must be, or all that is not a letter.
fn escaped(key: &str, is_plain: bool) -> String {
    let mut text = String::new();
    for char in key.chars() {
        match char {
            '&' => text += "&amp;",
            '<' => text += "&lt;",
            '>' => text += "&gt;",
            '\r' | '\n' | '\t' => text += &format!("&#{};", u32::from(char)),
            _ if is_plain || char.is_ascii_alphanumeric() => text.push(char),
            _ => text += &format!("&#x{:x};", u32::from(char)),
        }
    }
    text
}
