//! From a request to its answer.

use std::{
    collections::HashMap,
    convert::Infallible,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{
    HeaderMap, HeaderName, Method, Request, Response, StatusCode,
    header::{
        ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, IF_RANGE,
        LAST_MODIFIED, RANGE,
    },
    request::Parts,
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use jiff::Timestamp;
use md5::{Digest, Md5};
use sha2::Sha256;

use crate::wire::CutSwitch;

use super::{
    answer::{Answer, S3Error},
    body::Body,
    checksum::Checksum,
    fault::{Asked, Effects, Faults, Instead},
    listing::{Kind, Query},
    multipart::{self, Uploads},
    object::{Content, Object, whole_seconds},
    quirk::{Quirks, V2},
    range::{self, Ranged},
    record::{CountedIn, Entry, Log, RequestKind, RequestRecord},
    sigv4::{self, Credentials, Payload, Signed},
    store::{Found, Store},
    target::Target,
    upload::Upload,
    xml::hex,
};

/// What all connections of a server share.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) buckets: HashMap<String, Bucket>,
    pub(super) credentials: Option<Credentials>,
    pub(super) require_credentials: bool,
    pub(super) max_keys_cap: usize,
    pub(super) writable: bool,
    pub(super) faults: Arc<Faults>,
    pub(super) log: Log,
    pub(super) request_ids: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) store: Store,
    pub(super) uploads: Uploads,
    /// Those of the server among them.
    pub(super) quirks: Quirks,
}

/// What the requests of one connection share.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) number: u64,
    pub(super) switch: Arc<CutSwitch>,
    pub(super) counted: Arc<CountedIn>,
}

pub(super) async fn handle(
    site: Arc<Site>,
    connection: Connection,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (parts, mut incoming) = request.into_parts();
    let request_id = format!("{:016X}", site.request_ids.fetch_add(1, Ordering::Relaxed) + 1);
    let target = Target::parse(&parts.uri);
    let named = target.as_ref();
    let record = RequestRecord {
        connection: connection.number,
        arrived: Instant::now(),
        finished: None,
        method: parts.method.clone(),
        bucket: named.map_or_else(String::new, |target| target.bucket.clone()),
        key: named.and_then(|target| target.key.clone()),
        query: named.map_or_else(Vec::new, |target| target.query.clone()),
        range: text(&parts.headers, RANGE).map(str::to_owned),
        if_match: text(&parts.headers, IF_MATCH).map(str::to_owned),
        copy_range: text(&parts.headers, HeaderName::from_static("x-amz-copy-source-range")).map(str::to_owned),
        body_len: text(&parts.headers, CONTENT_LENGTH).and_then(|len| len.parse().ok()),
        status: None,
        bytes_sent: 0,
    };
    let kind = kind(&parts.method, named);
    let entry = site.log.add(record, kind, &connection.counted);
    let mut effects = site.faults.strike(&Asked {
        connection: connection.number,
        method: &parts.method,
        key: named.and_then(|target| target.key.as_deref()),
        is_list: matches!(kind, RequestKind::List(_)),
        range: text(&parts.headers, RANGE),
    });
    if !effects.latency.is_zero() {
        tokio::time::sleep(effects.latency).await;
    }
    let replace = {
        let (site, target) = (Arc::clone(&site), target.clone());
        move |object| {
            let Some(Target { bucket, key: Some(key), .. }) = &target else { return };
            // If a folder refuses it, the test sees the old version.
            let _ = site.buckets.get(bucket).map(|bucket| bucket.store.put(key, object));
        }
    };
    if let Some(object) = effects.replace_before.take() {
        replace(object);
    }
    let answer = match &effects.instead {
        Some(Instead::Hang(released)) => {
            // It is closed, and gives nothing.
            let _ = released.acquire().await;
            Err(S3Error::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "This error was asked for."))
        }
        Some(Instead::Status { code, error, retry_after }) => {
            let status = StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Err(S3Error::new(status, error, "This error was asked for.").retry_after(*retry_after))
        }
        Some(Instead::Redirect { code, location }) => {
            let status = StatusCode::from_u16(*code).unwrap_or(StatusCode::TEMPORARY_REDIRECT);
            let message = "Please re-send this request to the specified temporary endpoint.";
            Err(S3Error::new(status, "TemporaryRedirect", message).location(location))
        }
        Some(Instead::Html) => {
            let page = "<!DOCTYPE html>\n<html><head><title>Welcome</title></head><body>Please log in.</body></html>\n";
            Ok(Answer::text(StatusCode::OK, "text/html; charset=utf-8", page.to_owned()))
        }
        None => match &target {
            Some(target) => site.answer(&parts, target, &mut incoming, &effects, &entry).await,
            None => Err(S3Error::bad_request("InvalidURI", "Couldn't parse the specified URI.")),
        },
    };
    // A connection that is closed with bytes unread is reset, and the answer lost with it.
    let rest = async { while let Some(Ok(_)) = incoming.frame().await {} };
    // Who waits for the answer before that gets it.
    let _ = tokio::time::timeout(Duration::from_secs(5), rest).await;
    let mut answer = answer.unwrap_or_else(|error| error.into_answer(&request_id));
    answer.set(HeaderName::from_static("x-amz-request-id"), &request_id);
    let status = answer.status;
    answer.len = answer.len.min(effects.short_body.unwrap_or(u64::MAX));
    if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
        answer.set(CONTENT_LENGTH, &answer.len.to_string());
    }
    for name in &effects.without {
        answer.headers.remove(name);
    }
    if parts.method == Method::HEAD {
        answer.len = 0;
    }
    entry.answered(status.as_u16());

    let body = Body::new(&answer, effects.body, replace, connection.switch, entry);
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = answer.headers;
    Ok(response)
}

impl Site {
    async fn answer(
        &self,
        parts: &Parts,
        target: &Target,
        incoming: &mut Incoming,
        effects: &Effects,
        entry: &Entry,
    ) -> Result<Answer, S3Error> {
        let payload = self.authorize(parts)?;
        if target.bucket.is_empty() {
            return Err(S3Error::not_implemented());
        }
        let bucket = self.buckets.get(&target.bucket).ok_or_else(|| S3Error::no_such_bucket(&target.bucket))?;
        let store = &bucket.store;
        let payer = text(&parts.headers, HeaderName::from_static("x-amz-request-payer"));
        if store.is_requester_pays && payer != Some("requester") {
            return Err(S3Error::access_denied());
        }
        let mut answer = match (&parts.method, target.key.as_deref()) {
            (&Method::HEAD, None) => Answer::empty(StatusCode::OK),
            (&Method::GET, None) if target.param("uploads").is_some() => bucket.uploads.list(&target.bucket, target)?,
            (&Method::GET, None) => match Kind::of(target) {
                Some(kind) => self.list(bucket, target, kind, effects, entry)?,
                None => return Err(S3Error::not_implemented()),
            },
            (&Method::GET | &Method::HEAD, Some(key)) if !has_subresource(target) => {
                get(store, key, target.param("versionId"), &parts.headers, effects)?
            }
            (&Method::PUT, Some(key)) if is_of_newest(target) => {
                self.check_writable()?;
                put(store, key, &parts.headers, incoming, &payload).await?
            }
            (&Method::DELETE, Some(key)) if is_of_newest(target) => {
                self.check_writable()?;
                store.remove(key).map_err(|error| S3Error::internal(&error))?;
                Answer::empty(StatusCode::NO_CONTENT)
            }
            (&Method::POST, Some(key)) if target.param("uploads").is_some() => {
                self.check_writable()?;
                bucket.uploads.create(&target.bucket, key, Metadata::of_headers(&parts.headers))
            }
            (&Method::PUT, Some(key)) if target.param("uploadId").is_some() => {
                self.check_writable()?;
                self.put_part(bucket, key, target, &parts.headers, incoming, &payload).await?
            }
            (&Method::POST, Some(key)) if target.param("uploadId").is_some() => {
                self.check_writable()?;
                check_conditions(store, key, &parts.headers)?;
                let request = receive(incoming, &payload).await?;
                let request = String::from_utf8_lossy(&request);
                let (object, answer) = bucket.uploads.complete(&target.bucket, key, target, &request)?;
                store.put(key, object).map_err(|error| S3Error::internal(&error))?;
                answer
            }
            (&Method::DELETE, Some(key)) if target.param("uploadId").is_some() => {
                self.check_writable()?;
                bucket.uploads.abort(key, target)?
            }
            (&Method::GET | &Method::HEAD | &Method::PUT | &Method::DELETE | &Method::POST, _) => {
                return Err(S3Error::not_implemented());
            }
            (method, _) => return Err(S3Error::method_not_allowed(method.as_str())),
        };
        if store.is_requester_pays {
            answer.set(HeaderName::from_static("x-amz-request-charged"), "requester");
        }
        Ok(answer)
    }

    /// Without credentials of its own the server takes every request for an anonymous one.
    fn authorize(&self, parts: &Parts) -> Result<Payload, S3Error> {
        let Some(credentials) = &self.credentials else { return Ok(Payload::Unsigned) };
        if !parts.headers.contains_key("authorization") {
            return if self.require_credentials { Err(S3Error::access_denied()) } else { Ok(Payload::Unsigned) };
        }
        let request = Signed {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or_default(),
            headers: &parts.headers,
        };
        sigv4::verify(request, credentials, Timestamp::now())
    }

    fn check_writable(&self) -> Result<(), S3Error> {
        if self.writable { Ok(()) } else { Err(S3Error::access_denied()) }
    }

    /// UploadPart, or UploadPartCopy if the request names a source.
    async fn put_part(
        &self,
        bucket: &Bucket,
        key: &str,
        target: &Target,
        headers: &HeaderMap,
        incoming: &mut Incoming,
        payload: &Payload,
    ) -> Result<Answer, S3Error> {
        bucket.uploads.check(key, target)?;
        let body = receive(incoming, payload).await?;
        if let Some(bytes) = multipart::copied(self, headers, &bucket.quirks)? {
            return Ok(multipart::copy_answer(&bucket.uploads.put(key, target, bytes)?));
        }
        let mut answer = Answer::empty(StatusCode::OK);
        answer.set(ETAG, &format!("\"{}\"", bucket.uploads.put(key, target, body.into())?));
        Ok(answer)
    }

    fn list(
        &self,
        bucket: &Bucket,
        target: &Target,
        kind: Kind,
        effects: &Effects,
        entry: &Entry,
    ) -> Result<Answer, S3Error> {
        let Bucket { store, quirks, uploads: _ } = bucket;
        let kind = match (kind, quirks.v2) {
            (Kind::V2, V2::NotImplemented) => return Err(S3Error::not_implemented()),
            (Kind::V2, V2::Refused) => {
                return Err(S3Error::invalid_argument("Invalid list type", "list-type", "2"));
            }
            (Kind::V2, V2::Ignored) => Kind::V1,
            (kind, _) => kind,
        };
        let query = Query::parse(target, kind, self.max_keys_cap, quirks)?;
        if quirks.forbidden.iter().any(|prefix| query.prefix.starts_with(prefix)) {
            return Err(S3Error::access_denied());
        }
        let listed = store.list(&query, &target.bucket, &effects.listing);
        let (xml, keys) = listed.map_err(|error| S3Error::internal(&error))?;
        entry.listed(keys);
        Ok(Answer::text(StatusCode::OK, "application/xml", xml))
    }
}

fn kind(method: &Method, target: Option<&Target>) -> RequestKind {
    match (method, target) {
        (&Method::GET, Some(target)) if target.key.is_none() => {
            Kind::of(target).map_or(RequestKind::Other, RequestKind::List)
        }
        (&Method::GET, Some(_)) => RequestKind::Get,
        (&Method::HEAD, Some(Target { key: Some(_), .. })) => RequestKind::Head,
        (&Method::PUT, Some(Target { key: Some(_), .. })) => RequestKind::Put,
        (&Method::DELETE, Some(Target { key: Some(_), .. })) => RequestKind::Delete,
        _ => RequestKind::Other,
    }
}

/// Parameters that make an operation on an object another one, which this server does not know.
fn has_subresource(target: &Target) -> bool {
    const SUBRESOURCES: [&str; 12] = [
        "X-Amz-Signature",
        "acl",
        "attributes",
        "legal-hold",
        "partNumber",
        "restore",
        "retention",
        "select",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
    ];
    target.query.iter().any(|(name, _)| SUBRESOURCES.contains(&name.as_str()))
}

/// A version can be read here, and neither written nor removed.
fn is_of_newest(target: &Target) -> bool {
    !has_subresource(target) && target.param("versionId").is_none()
}

fn get(
    store: &Store,
    key: &str,
    version_id: Option<&str>,
    headers: &HeaderMap,
    effects: &Effects,
) -> Result<Answer, S3Error> {
    let found = match version_id {
        Some(id) => store.open_version(key, id),
        None => store.open(key),
    };
    let (object, version) = match (found.map_err(|error| S3Error::internal(&error))?, version_id) {
        (Found::Object { object, version }, _) => (object, version),
        (Found::DeleteMarker { version }, None) => return Err(S3Error::no_such_key(key).delete_marker(version)),
        (Found::DeleteMarker { version }, Some(_)) => {
            return Err(S3Error::method_not_allowed("GET").delete_marker(version));
        }
        (Found::Nothing, None) => return Err(S3Error::no_such_key(key)),
        (Found::Nothing, Some(id)) => return Err(S3Error::no_such_version(key, id)),
    };
    let Object { meta, content, content_type, metadata, checksums, is_kms_encrypted } = object;
    let last_modified = http_date(meta.last_modified);
    let mut answer = Answer::empty(StatusCode::OK);
    answer.set(ETAG, &format!("{}\"{}\"", if effects.weak_etag { "W/" } else { "" }, meta.etag));
    answer.set(LAST_MODIFIED, &last_modified);
    answer.set(ACCEPT_RANGES, "bytes");
    if let Some(version) = version {
        answer.set(HeaderName::from_static("x-amz-version-id"), &version);
    }
    for (name, value) in metadata.iter() {
        if let Ok(name) = HeaderName::try_from(name) {
            answer.set(name, value);
        }
    }
    if is_kms_encrypted {
        answer.set(HeaderName::from_static("x-amz-server-side-encryption"), "aws:kms");
    }

    let is_same = |tags: &str| if effects.weak_etag { tags.trim() == "*" } else { lists_etag(tags, &meta.etag) };
    if text(headers, IF_MATCH).is_some_and(|wanted| !is_same(wanted)) {
        return Err(S3Error::precondition_failed("If-Match"));
    }
    if text(headers, IF_NONE_MATCH).is_some_and(|known| lists_etag(&known.replace("W/", ""), &meta.etag)) {
        answer.status = StatusCode::NOT_MODIFIED;
        return Ok(answer);
    }
    let asked = text(headers, RANGE).filter(|_| {
        let same = |validator: &str| is_same(validator) || validator == last_modified;
        !effects.range.ignored && text(headers, IF_RANGE).is_none_or(same)
    });
    answer.content = content;
    answer.set(CONTENT_TYPE, &content_type);
    let range = &effects.range;
    let ranged = match range::parse(asked, meta.size) {
        Ranged::Part(_) if range.unsatisfiable => Ranged::Unsatisfiable,
        ranged => ranged,
    };
    match ranged {
        Ranged::Unsatisfiable => return Err(S3Error::invalid_range(asked.unwrap_or_default(), meta.size)),
        Ranged::Whole => {
            answer.len = meta.size;
            if text(headers, HeaderName::from_static("x-amz-checksum-mode")) == Some("ENABLED") {
                set_checksums(&mut answer, &checksums, effects.wrong_checksum);
            }
        }
        Ranged::Part(part) => {
            answer.status = if range.as_ok { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT };
            (answer.position, answer.len) = (part.start, part.end - part.start);
            let shift = u64::from(range.shifted);
            let (first, last) = (part.start + shift, part.end - 1 + shift);
            let total = match (range.unknown_total, range.wrong_total) {
                (true, _) => "*".to_owned(),
                (false, wrong) => (meta.size + u64::from(wrong)).to_string(),
            };
            answer.set(CONTENT_RANGE, &format!("bytes {first}-{last}/{total}"));
        }
    }
    Ok(answer)
}

fn set_checksums(answer: &mut Answer, checksums: &[(Checksum, Arc<str>)], wrong: bool) {
    for (algorithm, value) in checksums {
        let name = algorithm.header();
        if wrong {
            // Of the same length, and of no content that a test would have.
            answer.set(name, &algorithm.of(value.as_bytes()));
        } else {
            answer.set(name, value);
        }
        let is_composite = value.contains('-');
        let kind = if is_composite { "COMPOSITE" } else { "FULL_OBJECT" };
        answer.set(HeaderName::from_static("x-amz-checksum-type"), kind);
    }
}

/// What S3 keeps of a request beside an object's bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Metadata {
    content_type: Option<String>,
    /// Names in small letters, with their `x-amz-meta-`.
    pairs: Vec<(String, String)>,
}

impl Metadata {
    fn of_headers(headers: &HeaderMap) -> Self {
        let pairs = headers.iter().filter(|(name, _)| name.as_str().starts_with("x-amz-meta-"));
        let pairs = pairs.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()));
        Self { content_type: text(headers, CONTENT_TYPE).map(str::to_owned), pairs: pairs.collect() }
    }

    pub(super) fn of(self, mut object: Object) -> Object {
        if let Some(content_type) = &self.content_type {
            object = object.content_type(content_type);
        }
        object.metadata = self.pairs.into();
        object
    }
}

/// The conditions of PUT and CompleteMultipartUpload.
fn check_conditions(store: &Store, key: &str, headers: &HeaderMap) -> Result<(), S3Error> {
    let internal = |error| S3Error::internal(&error);
    if text(headers, IF_NONE_MATCH).is_some() && store.open(key).map_err(internal)?.into_object().is_some() {
        return Err(S3Error::precondition_failed("If-None-Match"));
    }
    if let Some(wanted) = text(headers, IF_MATCH) {
        let object = store.open(key).map_err(internal)?.into_object().ok_or_else(|| S3Error::no_such_key(key))?;
        if !lists_etag(wanted, &object.meta.etag) {
            return Err(S3Error::precondition_failed("If-Match"));
        }
    }
    Ok(())
}

/// All bytes of a body.
async fn receive(incoming: &mut Incoming, payload: &Payload) -> Result<Vec<u8>, S3Error> {
    let mut bytes = Vec::new();
    read(incoming, payload, |chunk| {
        bytes.extend_from_slice(chunk);
        Ok(())
    })
    .await?;
    Ok(bytes)
}

/// Hands out the bytes of a body as they come, and fails behind the last one if they are not what was signed.
async fn read(
    incoming: &mut Incoming,
    payload: &Payload,
    mut take: impl FnMut(&[u8]) -> Result<(), S3Error>,
) -> Result<(), S3Error> {
    let mut sha256 = Sha256::new();
    while let Some(frame) = incoming.frame().await {
        let incomplete = |_| {
            let message = "You did not provide the number of bytes specified by the Content-Length HTTP header";
            S3Error::bad_request("IncompleteBody", message)
        };
        let Ok(chunk) = frame.map_err(incomplete)?.into_data() else { continue };
        if matches!(payload, Payload::Sha256(_)) {
            sha256.update(&chunk);
        }
        take(&chunk)?;
    }
    if matches!(payload, Payload::Sha256(signed) if *signed != hex(&sha256.finalize())) {
        let message = "The provided 'x-amz-content-sha256' header does not match what was computed.";
        return Err(S3Error::bad_request("XAmzContentSHA256Mismatch", message));
    }
    Ok(())
}

async fn put(
    store: &Store,
    key: &str,
    headers: &HeaderMap,
    incoming: &mut Incoming,
    payload: &Payload,
) -> Result<Answer, S3Error> {
    let chunked = |name| text(headers, name).is_some_and(|value| value.contains("aws-chunked"));
    if chunked(http::header::CONTENT_ENCODING) || headers.contains_key("x-amz-copy-source") {
        return Err(S3Error::not_implemented());
    }
    let internal = |error| S3Error::internal(&error);
    check_conditions(store, key, headers)?;
    let mut upload = store.upload(key).map_err(internal)?;
    let (mut md5, mut size) = (Md5::new(), 0);
    read(incoming, payload, |chunk| {
        md5.update(chunk);
        size += chunk.len() as u64;
        store.blocking(|| upload.write_all(chunk)).map_err(internal)
    })
    .await?;
    let etag = hex(&md5.finalize());
    match upload {
        Upload::Memory(bytes) => {
            let content = Content::Bytes(bytes.into());
            let object = Object::with_content(size, etag.clone(), content).last_modified(Timestamp::now());
            store.put(key, Metadata::of_headers(headers).of(object)).map_err(internal)?;
        }
        upload @ Upload::File { .. } => store.blocking(|| upload.persist()).map_err(internal)?,
    }
    let mut answer = Answer::empty(StatusCode::OK);
    answer.set(ETAG, &format!("\"{etag}\""));
    Ok(answer)
}

/// Whether a list of entity tags has this one, by strong comparison. S3 takes them with or without quotes.
pub(super) fn lists_etag(list: &str, etag: &str) -> bool {
    list.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_matches('"') == etag)
}

fn http_date(at: Timestamp) -> String {
    whole_seconds(at).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

pub(super) fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
