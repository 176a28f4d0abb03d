//! Uploads in parts.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html>

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use jiff::Timestamp;
use md5::{Digest, Md5};
use percent_encoding::percent_decode_str;

use super::{
    answer::{Answer, S3Error},
    handler::{Metadata, Site, lists_etag, text},
    object::{Content, Object},
    quirk::Quirks,
    target::Target,
    xml::{DECLARATION, element, form_encode, hex},
};

/// The least size of all parts but the last.
const LEAST_PART: usize = 5 * 1024 * 1024;
/// Of a smaller object S3 copies no range.
const LEAST_SOURCE: u64 = 5 * 1024 * 1024;
const LAST_NUMBER: u32 = 10_000;
/// On a page of ListMultipartUploads.
const MAX_UPLOADS: usize = 1000;
const XMLNS: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// The uploads of a bucket that are neither complete nor aborted.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    begun: AtomicU64,
    /// By key and id, as they are listed.
    pending: Mutex<BTreeMap<(String, String), Pending>>,
}

#[derive(Debug)]
struct Pending {
    initiated: Timestamp,
    metadata: Metadata,
    parts: BTreeMap<u32, Part>,
}

#[derive(Debug)]
struct Part {
    bytes: Bytes,
    md5: [u8; 16],
}

impl Uploads {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// CreateMultipartUpload.
    pub(super) fn create(&self, bucket: &str, key: &str, metadata: Metadata) -> Answer {
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        // Opaque; with characters that a client must escape.
        let id = format!("{:016x}+/{number}=", super::made_up::mixed(number));
        let mut out = format!("{DECLARATION}<InitiateMultipartUploadResult xmlns=\"{XMLNS}\">");
        element(&mut out, "Bucket", bucket);
        element(&mut out, "Key", key);
        element(&mut out, "UploadId", &id);
        out.push_str("</InitiateMultipartUploadResult>");
        let pending = Pending { initiated: Timestamp::now(), metadata, parts: BTreeMap::new() };
        self.lock().insert((key.to_owned(), id), pending);
        xml(out)
    }

    /// Whether the upload that is named can take a part, before its bytes are read.
    pub(super) fn check(&self, key: &str, target: &Target) -> Result<(), S3Error> {
        part_number(target)?;
        if self.lock().contains_key(&upload(key, target)) { Ok(()) } else { Err(no_such_upload()) }
    }

    /// UploadPart. Gives the part's ETag, without quotes. A part with the number of another takes its place.
    pub(super) fn put(&self, key: &str, target: &Target, bytes: Bytes) -> Result<String, S3Error> {
        let number = part_number(target)?;
        let mut pending = self.lock();
        let upload = pending.get_mut(&upload(key, target)).ok_or_else(no_such_upload)?;
        let md5 = Md5::digest(&bytes).into();
        upload.parts.insert(number, Part { bytes, md5 });
        Ok(hex(&md5))
    }

    /// CompleteMultipartUpload: the object, and its answer.
    pub(super) fn complete(
        &self,
        bucket: &str,
        key: &str,
        target: &Target,
        request: &str,
    ) -> Result<(Object, Answer), S3Error> {
        let mut pending = self.lock();
        let name = upload(key, target);
        let upload = pending.get(&name).ok_or_else(no_such_upload)?;
        let listed = listed_parts(request).filter(|parts| !parts.is_empty()).ok_or_else(|| {
            let message = "The XML you provided was not well-formed or did not validate against our published schema";
            S3Error::bad_request("MalformedXML", message)
        })?;
        if !listed.is_sorted_by(|(one, _), (next, _)| one < next) {
            let message = "The list of parts was not in ascending order. Parts must be ordered by part number.";
            return Err(S3Error::bad_request("InvalidPartOrder", message));
        }
        let (mut content, mut digests) = (Vec::new(), Md5::new());
        for (at, (number, etag)) in listed.iter().enumerate() {
            let part = upload.parts.get(number).filter(|part| hex(&part.md5) == *etag).ok_or_else(|| {
                let message = "One or more of the specified parts could not be found. The part may not have been \
                               uploaded, or the specified entity tag may not match the part's entity tag.";
                S3Error::bad_request("InvalidPart", message).with("PartNumber", &number.to_string())
            })?;
            if at + 1 < listed.len() && part.bytes.len() < LEAST_PART {
                let message = "Your proposed upload is smaller than the minimum allowed size";
                return Err(S3Error::bad_request("EntityTooSmall", message).with("PartNumber", &number.to_string()));
            }
            content.extend_from_slice(&part.bytes);
            digests.update(part.md5);
        }
        let etag = format!("{}-{}", hex(&digests.finalize()), listed.len());
        let object = Object::with_content(content.len() as u64, etag.clone(), Content::Bytes(content.into()));
        let object = upload.metadata.clone().of(object.last_modified(Timestamp::now()));
        let mut out = format!("{DECLARATION}<CompleteMultipartUploadResult xmlns=\"{XMLNS}\">");
        element(&mut out, "Location", &format!("/{bucket}/{key}"));
        element(&mut out, "Bucket", bucket);
        element(&mut out, "Key", key);
        element(&mut out, "ETag", &format!("\"{etag}\""));
        out.push_str("</CompleteMultipartUploadResult>");
        pending.remove(&name);
        Ok((object, xml(out)))
    }

    /// AbortMultipartUpload.
    pub(super) fn abort(&self, key: &str, target: &Target) -> Result<Answer, S3Error> {
        let removed = self.lock().remove(&upload(key, target));
        removed.map(|_| Answer::empty(StatusCode::NO_CONTENT)).ok_or_else(no_such_upload)
    }

    /// Key and id of each.
    pub(super) fn names(&self) -> Vec<(String, String)> {
        self.lock().keys().cloned().collect()
    }

    /// ListMultipartUploads, without a delimiter.
    pub(super) fn list(&self, bucket: &str, target: &Target) -> Result<Answer, S3Error> {
        let param = |name| target.param(name).unwrap_or_default();
        if !param("delimiter").is_empty() {
            return Err(S3Error::not_implemented());
        }
        let is_url = match target.param("encoding-type") {
            None => false,
            Some("url") => true,
            Some(other) => {
                let message = "Invalid Encoding Method specified in Request";
                return Err(S3Error::invalid_argument(message, "encoding-type", other));
            }
        };
        let most = match target.param("max-uploads") {
            None => MAX_UPLOADS,
            Some(number) => number
                .parse::<usize>()
                .map(|most| most.min(MAX_UPLOADS))
                .map_err(|_| S3Error::invalid_argument("Provided max-uploads not an integer", "max-uploads", number))?,
        };
        let (prefix, after, after_id) = (param("prefix"), param("key-marker"), param("upload-id-marker"));
        // Without an id the marker's key itself is not listed.
        let is_behind = |(key, id): &(String, String)| {
            key.as_str() > after || key == after && !after_id.is_empty() && id.as_str() > after_id
        };
        let pending = self.lock();
        let mut uploads = pending.iter().filter(|(name, _)| name.0.starts_with(prefix) && is_behind(name)).peekable();
        let page: Vec<_> = uploads.by_ref().take(most).collect();
        let key_element = |out: &mut String, name: &str, key: &str| match is_url {
            true => {
                let mut encoded = String::new();
                form_encode(&mut encoded, key);
                element(out, name, &encoded);
            }
            false => element(out, name, key),
        };
        let mut out = format!("{DECLARATION}<ListMultipartUploadsResult xmlns=\"{XMLNS}\">");
        element(&mut out, "Bucket", bucket);
        key_element(&mut out, "KeyMarker", after);
        element(&mut out, "UploadIdMarker", after_id);
        if let (Some((name, _)), true) = (page.last(), uploads.peek().is_some()) {
            key_element(&mut out, "NextKeyMarker", &name.0);
            element(&mut out, "NextUploadIdMarker", &name.1);
        }
        key_element(&mut out, "Prefix", prefix);
        if is_url {
            element(&mut out, "EncodingType", "url");
        }
        element(&mut out, "MaxUploads", &most.to_string());
        element(&mut out, "IsTruncated", if uploads.peek().is_some() { "true" } else { "false" });
        for ((key, id), upload) in page {
            out.push_str("<Upload>");
            key_element(&mut out, "Key", key);
            element(&mut out, "UploadId", id);
            element(&mut out, "Initiated", &upload.initiated.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string());
            out.push_str("</Upload>");
        }
        out.push_str("</ListMultipartUploadsResult>");
        Ok(xml(out))
    }
}

/// The bytes that UploadPartCopy is to take from another object.
pub(super) fn copied(site: &Site, headers: &HeaderMap, quirks: &Quirks) -> Result<Option<Bytes>, S3Error> {
    let source = text(headers, HeaderName::from_static("x-amz-copy-source")).filter(|_| !quirks.ignores_copy_source);
    let Some(source) = source else { return Ok(None) };
    if quirks.copy_times_out {
        return Err(S3Error::gateway_timeout());
    }
    let invalid = |what: &str| S3Error::invalid_argument(what, "x-amz-copy-source", source);
    if source.contains('?') {
        return Err(S3Error::not_implemented());
    }
    let path = percent_decode_str(source).decode_utf8().map_err(|_| invalid("Invalid copy source encoding."))?;
    let (bucket, key) = path
        .strip_prefix('/')
        .unwrap_or(&path)
        .split_once('/')
        .ok_or_else(|| invalid("Copy Source must mention the source bucket and key: sourcebucket/sourcekey"))?;
    let store = &site.buckets.get(bucket).ok_or_else(|| S3Error::no_such_bucket(bucket))?.store;
    let found = store.open(key).map_err(|error| S3Error::internal(&error))?;
    let object = found.into_object().ok_or_else(|| S3Error::no_such_key(key))?;
    let if_match = text(headers, HeaderName::from_static("x-amz-copy-source-if-match"));
    if !quirks.ignores_copy_if_match && if_match.is_some_and(|wanted| !lists_etag(wanted, &object.meta.etag)) {
        return Err(S3Error::precondition_failed("x-amz-copy-source-If-Match"));
    }
    let mut bytes = Vec::new();
    object.write_to(&mut bytes).map_err(|error| S3Error::internal(&error))?;
    let range = text(headers, HeaderName::from_static("x-amz-copy-source-range"));
    let Some(range) = range.filter(|_| !quirks.ignores_copy_range) else {
        return Ok(Some(bytes.into()));
    };
    let wrong = |what: &str| S3Error::invalid_argument(what, "x-amz-copy-source-range", range);
    let parsed = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).and_then(|(first, last)| {
        let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
        (first <= last).then_some((first, last))
    });
    let form = "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the \
                zero-based offsets of the first and last bytes to copy";
    let (first, last) = parsed.ok_or_else(|| wrong(form))?;
    if object.meta.size <= LEAST_SOURCE {
        let message = "The specified copy source is not supported as a byte-range copy source";
        return Err(S3Error::bad_request("InvalidRequest", message));
    }
    if last >= object.meta.size {
        return Err(wrong(&format!("Range specified is not valid for source object of size: {}", object.meta.size)));
    }
    Ok(Some(Bytes::from(bytes).slice(first as usize..=last as usize)))
}

/// What UploadPartCopy answers.
pub(super) fn copy_answer(etag: &str) -> Answer {
    let mut out = format!("{DECLARATION}<CopyPartResult xmlns=\"{XMLNS}\">");
    element(&mut out, "LastModified", &Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string());
    element(&mut out, "ETag", &format!("\"{etag}\""));
    out.push_str("</CopyPartResult>");
    xml(out)
}

fn xml(text: String) -> Answer {
    Answer::text(StatusCode::OK, "application/xml", text)
}

fn upload(key: &str, target: &Target) -> (String, String) {
    (key.to_owned(), target.param("uploadId").unwrap_or_default().to_owned())
}

fn no_such_upload() -> S3Error {
    let message = "The specified upload does not exist. The upload ID may be invalid, or the upload may have been \
                   aborted or completed.";
    S3Error::new(StatusCode::NOT_FOUND, "NoSuchUpload", message)
}

fn part_number(target: &Target) -> Result<u32, S3Error> {
    let text = target.param("partNumber").unwrap_or_default();
    text.parse().ok().filter(|number| (1..=LAST_NUMBER).contains(number)).ok_or_else(|| {
        let message = "Part number must be an integer between 1 and 10000, inclusive";
        S3Error::invalid_argument(message, "partNumber", text)
    })
}

/// Number and ETag of each part that CompleteMultipartUpload names.
fn listed_parts(request: &str) -> Option<Vec<(u32, String)>> {
    fn element<'a>(part: &'a str, name: &str) -> Option<&'a str> {
        let (_, rest) = part.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0.trim())
    }
    let (_, parts) = request.split_once("<CompleteMultipartUpload")?;
    let (parts, _) = parts.split_once("</CompleteMultipartUpload>")?;
    let parts = parts.split("<Part>").skip(1).map(|part| {
        let part = part.split_once("</Part>")?.0;
        let etag = element(part, "ETag")?.replace("&quot;", "\"").replace("&#34;", "\"");
        Some((element(part, "PartNumber")?.parse().ok()?, etag.trim_matches('"').to_owned()))
    });
    parts.collect()
}
