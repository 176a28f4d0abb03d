use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bulk_core::{Body, Get, HttpClient, Observer, RetryPolicy, Source};
use http::HeaderMap;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer, AwsCredentialProvider};
use object_store::client::HttpRequestBody;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use crate::Error;

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
    /// When to try again. Used by listings; downloads have their own.
    pub retry: RetryPolicy,
    /// Who is told of a listing's retries. Default nobody.
    pub observer: Arc<dyn Observer>,
}

impl Default for BucketOptions {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            credentials: Credentials::Anonymous,
            retry: RetryPolicy::default(),
            observer: Arc::new(()),
        }
    }
}

/// A bucket: lists its objects, and is the source that fetches them.
///
/// Cheap to clone; clones share connections and credentials.
#[derive(Clone)]
pub struct Bucket {
    pub(crate) name: String,
    /// URL of the bucket itself, ending in `/`.
    base: Url,
    region: String,
    credentials: Option<AwsCredentialProvider>,
    pub(crate) client: HttpClient,
    pub(crate) retry: RetryPolicy,
    pub(crate) observer: Arc<dyn Observer>,
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
        let (credentials, environment_region) = provider(&name, &options)?;
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
        Ok(Self {
            client: HttpClient::new()?,
            name,
            base,
            region,
            credentials,
            retry: options.retry,
            observer: options.observer,
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
        let Some(provider) = &self.credentials else { return Ok(HeaderMap::new()) };
        let denied =
            |what: String| bulk_core::Error::Denied { location: self.location_of_bucket(), reason: Some(what) };
        let credential = provider.get_credential().await.map_err(|error| {
            denied(format!("no usable credentials were found; a public bucket needs anonymous access: {error}"))
        })?;
        let mut request = http::Request::get(url.as_str())
            .body(HttpRequestBody::empty())
            .map_err(|error| denied(error.to_string()))?;
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

    async fn get(&self, get: &Get) -> Result<Body, bulk_core::Error> {
        let url = self.url(&get.key, &[])?;
        let headers = self.sign(&url).await?;
        self.client.get(&url, headers, get).await
    }
}

/// The provider of credentials, and the region that the environment names.
fn provider(bucket: &str, options: &BucketOptions) -> Result<(Option<AwsCredentialProvider>, Option<String>), Error> {
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
    // The store itself stays unused: its key type refuses keys that S3 allows.
    let store = builder.with_bucket_name(bucket).build().map_err(failed)?;
    Ok((Some(store.credentials().clone()), region))
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
