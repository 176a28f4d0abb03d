use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bulk_core::{Body, Digest, ETag, Get, HttpClient, Observer, RetryPolicy, Source};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_RANGE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use object_store::RetryConfig;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer, AwsCredentialProvider};
use object_store::client::HttpRequestBody;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use crate::Error;
use crate::list::Spoken;

/// What stands unescaped in a path besides letters and digits (the unreserved set of RFC 3986 and `/`), as SigV4 wants it.
pub(crate) const PATH: &AsciiSet = &UNRESERVED.remove(b'/');
pub(crate) const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const DEFAULT_REGION: &str = "us-east-1";

/// Who asks. `Debug` shows a secret and a token as `_`.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Credentials {
    /// Nobody: requests are not signed. For public buckets.
    #[default]
    Anonymous,
    /// A key pair.
    Static {
        /// The access key id.
        key_id: String,
        /// The secret access key.
        secret: String,
        /// The session token of temporary credentials.
        token: Option<String>,
    },
    /// What `AWS_ACCESS_KEY_ID` and its relatives, a web identity, the container or the instance give, as the
    /// `object_store` crate looks for it.
    Environment,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Static { key_id, secret: _, token } => f
                .debug_struct("Static")
                .field("key_id", key_id)
                .field("secret", &format_args!("_"))
                .field("token", &token.as_ref().map(|_| format_args!("_")))
                .finish(),
            Self::Environment => f.write_str("Environment"),
        }
    }
}

/// Where a bucket is, and how it is asked.
#[derive(Clone)]
#[non_exhaustive]
pub struct BucketOptions {
    /// Base URL of a server that is not AWS; buckets are then addressed by path. Default: AWS.
    pub endpoint: Option<String>,
    /// Default: `us-east-1`, or with [`Credentials::Environment`] what `AWS_REGION` says.
    pub region: Option<String>,
    /// Default: anonymous.
    pub credentials: Credentials,
    /// Says in each request that whoever asks pays for it, as buckets want it whose owner does not
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/RequesterPaysBuckets.html>). Default no.
    pub requester_pays: bool,
    /// The connections. Default: [`HttpClient::new`]'s. The look-up of credentials has its own.
    pub client: Option<HttpClient>,
    /// When to try again. Used by listings and uploads; downloads have their own.
    pub retry: RetryPolicy,
    /// Who is told of the retries of listings and uploads. Default nobody.
    pub observer: Arc<dyn Observer>,
}

impl Default for BucketOptions {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            credentials: Credentials::Anonymous,
            requester_pays: false,
            client: None,
            retry: RetryPolicy::default(),
            observer: Arc::new(()),
        }
    }
}

/// A bucket: lists its objects, and is the source that fetches them. [`compare_set`](crate::compare_set) and what it finds
/// bring files to it.
///
/// [`Body::digests`] are what S3 says of a whole object:
/// - `x-amz-checksum-crc32`, `-crc32c`, `-crc64nvme` and `-sha256`, which are asked for with `x-amz-checksum-mode`, in
///   answers that are whole. A composite one, made of the checksums of a multipart upload's parts, is none of the object
///   (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>); and beside a range S3 sends
///   none, or one that is of the range.
/// - The ETag as MD5, if it has 32 hexadecimal digits: so it is for what was uploaded in one piece and is encrypted with
///   S3's own keys or not at all, but with KMS or a customer's key, and in a directory bucket (`…--x-s3`), it is none
///   (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html>). Of other servers nobody can know; those in wide
///   use follow S3.
///
/// A `Content-Encoding` is a property of the object as it was uploaded; its bytes come as they are stored.
///
/// Cheap to clone; clones share connections and credentials.
///
/// ```
/// use bulk_s3::{Bucket, BucketOptions, KeyFilter, ListOptions};
/// use futures::TryStreamExt;
///
/// # let builds = (0..2500).map(|number| (format!("builds/{number:04}.json"), "{}"));
/// # let store = builds.chain([("elsewhere".to_owned(), "")]).collect();
/// # let server = bulk_testkit::s3::Server::builder().bucket("my-bucket", store).start().unwrap();
/// # let endpoint = server.url();
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let mut options = BucketOptions::default();
/// options.endpoint = Some(endpoint); // of a server that is not AWS
/// let bucket = Bucket::new("my-bucket", options)?;
///
/// let mut listing = ListOptions::default();
/// listing.prefix = "builds/".to_owned();
/// listing.filter = KeyFilter::all().suffix("7.json");
/// let mut pages = bucket.pages(listing);
/// let (mut keys, mut meant) = (0, 0);
/// while let Some(page) = pages.try_next().await? {
///     keys += page.keys;
///     meant += page.objects.len();
/// }
/// assert_eq!((keys, meant), (2500, 250));
/// # Ok::<(), bulk_s3::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Bucket {
    pub(crate) name: String,
    /// URL of the bucket itself, ending in `/`.
    base: Url,
    region: String,
    credentials: Option<Arc<Lookup>>,
    requester_pays: bool,
    pub(crate) client: HttpClient,
    pub(crate) retry: RetryPolicy,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) spoken: Arc<Spoken>,
}

impl Bucket {
    /// A bucket by name. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// [`Error::Bucket`] for a name or endpoint that cannot be used, [`Error::Credentials`] if the lookup fails.
    pub fn new(name: impl Into<String>, options: BucketOptions) -> Result<Self, Error> {
        let name = name.into();
        let unusable = |what: &str| Error::Bucket { bucket: name.clone(), what: what.to_owned() };
        // The rules of the S3 user guide, with the capitals and underscores that old buckets and other servers have.
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if !(1..=255).contains(&name.len()) || !name.bytes().all(is_name) || name.bytes().all(|byte| byte == b'.') {
            return Err(unusable("that is no bucket name"));
        }
        let (credentials, environment_region) = find_lookup(&name, &options)?;
        let region = options.region.or(environment_region).unwrap_or_else(|| DEFAULT_REGION.to_owned());
        let base = match &options.endpoint {
            Some(endpoint) => format!("{}/{name}/", endpoint.trim_end_matches('/')),
            // A dot in the name would not match the wildcard of the server's certificate.
            None if name.contains('.') => format!("https://s3.{region}.amazonaws.com/{name}/"),
            None => format!("https://{name}.s3.{region}.amazonaws.com/"),
        };
        let base = Url::parse(&base).map_err(|error| unusable(&format!("its endpoint is no URL: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(unusable("its endpoint is not http:// or https://"));
        }
        let client = match options.client {
            Some(client) => client,
            None => HttpClient::new()?,
        };
        Ok(Self {
            client,
            name,
            base,
            region,
            credentials,
            requester_pays: options.requester_pays,
            retry: options.retry,
            observer: options.observer,
            spoken: Arc::default(),
        })
    }

    /// The bucket's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URL of `key` (or of the bucket, for an empty one) with `query` in the order given, encoded as SigV4 wants it.
    pub(crate) fn url(&self, key: &str, query: &[(&str, &str)]) -> Result<Url, bulk_core::Error> {
        let mut url = self.base.clone();
        let path = format!("{}{}", self.base.path(), utf8_percent_encode(key, PATH));
        url.set_path(&path);
        if url.path() != path {
            let reason = "a key with a . or .. segment cannot stand in a URL".to_owned();
            return Err(bulk_core::Error::Url { url: path, reason });
        }
        if !query.is_empty() {
            let encode = |text| utf8_percent_encode(text, UNRESERVED).to_string();
            let pairs: Vec<_> = query.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
            url.set_query(Some(&pairs.join("&")));
        }
        Ok(url)
    }

    /// The headers that sign a GET of `url`; none for an anonymous bucket.
    pub(crate) async fn sign(&self, url: &Url) -> Result<HeaderMap, bulk_core::Error> {
        self.sign_with(Method::GET, url, HeaderMap::new(), Bytes::new()).await
    }

    /// `headers`, and those that sign them and `body` along with a request for `url`. SigV4 wants every `x-amz-` header
    /// signed.
    pub(crate) async fn sign_with(
        &self,
        method: Method,
        url: &Url,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<HeaderMap, bulk_core::Error> {
        if self.requester_pays {
            headers.insert(REQUEST_PAYER, REQUESTER);
        }
        let Some(lookup) = &self.credentials else { return Ok(headers) };
        let denied =
            |what: String| bulk_core::Error::Denied { location: self.location_of_bucket(), reason: Some(what) };
        let credential = lookup.provider.get_credential().await.map_err(|error| {
            // Who gave some before will do so again.
            if lookup.has_succeeded.load(Ordering::Relaxed) {
                let what = "the credentials ran out, and new ones cannot be had";
                return bulk_core::Error::Transport {
                    location: self.location_of_bucket(),
                    what,
                    source: Box::new(error),
                };
            }
            denied(format!("no usable credentials were found; a public bucket needs anonymous access: {error}"))
        })?;
        lookup.has_succeeded.store(true, Ordering::Relaxed);
        let mut request = http::Request::builder()
            .method(method)
            .uri(url.as_str())
            .body(HttpRequestBody::from(body))
            .map_err(|error| denied(error.to_string()))?;
        *request.headers_mut() = headers;
        AwsAuthorizer::new(&credential, "s3", &self.region)
            .try_authorize(&mut request, None)
            .map_err(|error| denied(error.to_string()))?;
        Ok(std::mem::take(request.headers_mut()))
    }

    pub(crate) fn location_of_bucket(&self) -> String {
        format!("s3://{}", self.name)
    }
}

#[async_trait]
impl Source for Bucket {
    fn location(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.name)
    }

    /// The URL: buckets of one name are at more than one endpoint.
    fn identity(&self, key: &str) -> String {
        let mut url = self.base.clone();
        // A URL that cannot have them answers Err, and has none.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        url.set_query(None);
        format!("{url}{}", utf8_percent_encode(key, PATH))
    }

    async fn get(&self, get: &Get) -> Result<Body, bulk_core::Error> {
        let url = self.url(&get.key, &[])?;
        let headers =
            self.sign_with(Method::GET, &url, HeaderMap::from_iter([(CHECKSUM_MODE, ENABLED)]), Bytes::new()).await?;
        let (headers, mut body) = self.client.get(&url, headers, get).await?;
        body.digests.extend(self.digests_in(&headers, body.etag.as_ref()));
        Ok(body)
    }

    async fn digests(&self, key: &str, if_match: Option<&ETag>) -> Result<Vec<Digest>, bulk_core::Error> {
        let url = self.url(key, &[])?;
        let headers =
            self.sign_with(Method::HEAD, &url, HeaderMap::from_iter([(CHECKSUM_MODE, ENABLED)]), Bytes::new()).await?;
        let headers = self.client.head(&url, headers, if_match).await?;
        let etag = headers.get(ETAG).and_then(|value| value.to_str().ok()).map(ETag::new);
        Ok(self.digests_in(&headers, etag.as_ref()))
    }
}

const CHECKSUM_MODE: HeaderName = HeaderName::from_static("x-amz-checksum-mode");
const REQUEST_PAYER: HeaderName = HeaderName::from_static("x-amz-request-payer");
const REQUESTER: HeaderValue = HeaderValue::from_static("requester");
const ENABLED: HeaderValue = HeaderValue::from_static("ENABLED");

impl Bucket {
    /// What S3 says of the object's content.
    fn digests_in(&self, headers: &HeaderMap, etag: Option<&ETag>) -> Vec<Digest> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let says = |name, wanted: &str| text(name).is_some_and(|text| text.eq_ignore_ascii_case(wanted));
        // Google Cloud Storage unpacks such objects on their way, and its digests are of what it keeps
        // (https://docs.cloud.google.com/storage/docs/transcoding).
        let is_kept_packed = text("x-goog-stored-content-encoding").is_some_and(|coding| coding != "identity");
        if is_kept_packed && !headers.contains_key(CONTENT_ENCODING) {
            return Vec::new();
        }
        let mut digests = Vec::new();
        if !headers.contains_key(CONTENT_RANGE) && !says("x-amz-checksum-type", "COMPOSITE") {
            digests.extend(text("x-amz-checksum-crc32").and_then(base64).map(u32::from_be_bytes).map(Digest::Crc32));
            digests.extend(text("x-amz-checksum-crc32c").and_then(base64).map(u32::from_be_bytes).map(Digest::Crc32c));
            let crc64 = text("x-amz-checksum-crc64nvme").and_then(base64).map(u64::from_be_bytes);
            digests.extend(crc64.map(Digest::Crc64Nvme));
            digests.extend(text("x-amz-checksum-sha256").and_then(base64).map(Digest::Sha256));
        }
        if !has_own_key(headers) && !self.name.ends_with("--x-s3") {
            digests.extend(etag.and_then(|etag| md5(etag.as_str())).map(Digest::Md5));
        }
        digests
    }
}

/// Whether what the answer is of is encrypted with a key of its own, so that its ETag is no MD5.
pub(crate) fn has_own_key(headers: &HeaderMap) -> bool {
    let how = headers.get("x-amz-server-side-encryption").and_then(|how| how.to_str().ok());
    how.is_some_and(|how| how.starts_with("aws:kms"))
        || headers.contains_key("x-amz-server-side-encryption-customer-algorithm")
}

/// A checksum of the whole object. A composite one has its number of parts behind it (`…-3`), which is no base64.
fn base64<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
}

/// The MD5 that an ETag of 32 digits is.
pub(crate) fn md5(etag: &str) -> Option<[u8; 16]> {
    let digits: Option<Vec<u8>> = etag.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
    let bytes: Vec<u8> =
        digits.filter(|digits| digits.len() == 32)?.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    bytes.try_into().ok()
}

/// Where credentials come from. Temporary ones are looked up again shortly before they end.
struct Lookup {
    provider: AwsCredentialProvider,
    has_succeeded: AtomicBool,
}

/// The source of credentials, and the region that the environment names.
fn find_lookup(bucket: &str, options: &BucketOptions) -> Result<(Option<Arc<Lookup>>, Option<String>), Error> {
    let builder = match &options.credentials {
        Credentials::Anonymous => return Ok((None, None)),
        Credentials::Static { key_id, secret, token } => {
            let mut builder = AmazonS3Builder::new().with_access_key_id(key_id).with_secret_access_key(secret);
            if let Some(token) = token {
                builder = builder.with_token(token);
            }
            builder
        }
        Credentials::Environment => AmazonS3Builder::from_env(),
    };
    let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
    let failed = |error: object_store::Error| Error::Credentials { bucket: bucket.to_owned(), what: error.to_string() };
    // Whoever has none is to hear of it soon; what fails later is tried again with the request that is to be signed.
    let retry = RetryConfig { max_retries: 2, retry_timeout: Duration::from_secs(10), ..RetryConfig::default() };
    // The store itself stays unused: its key type refuses keys that S3 allows.
    let store = builder.with_bucket_name(bucket).with_retry(retry).build().map_err(failed)?;
    let lookup = Lookup { provider: store.credentials().clone(), has_succeeded: AtomicBool::new(false) };
    Ok((Some(Arc::new(lookup)), region))
}

#[cfg(test)]
mod tests {
    use super::Credentials;

    #[test]
    fn secrets_are_not_shown() {
        let pair = |token: Option<&str>| Credentials::Static {
            key_id: "AKIDEXAMPLE".to_owned(),
            secret: "hidden".to_owned(),
            token: token.map(str::to_owned),
        };
        let shown = r#"Static { key_id: "AKIDEXAMPLE", secret: _, token: Some(_) }"#;
        assert_eq!(format!("{:?}", pair(Some("hidden"))), shown);
        assert_eq!(format!("{:?}", pair(None)), shown.replace("Some(_)", "None"));
        assert_eq!(format!("{:?}", [Credentials::Anonymous, Credentials::Environment]), "[Anonymous, Environment]");
    }
}
