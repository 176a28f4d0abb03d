//! ListObjectVersions: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html>.

use bulk_core::{Event, Pace};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use crate::list::{EMPTY_PAGES, PAGE_LIMIT, describe};
use crate::page::RawPage;
use crate::{Bucket, Error, Object};

/// One version of an object, or the mark that it was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectVersion {
    /// What it is; a mark has no size and no ETag.
    pub object: Object,
    /// Its id; `null` where it was written before the bucket had versions.
    pub version: String,
    /// Whether it is what a GET without an id finds, or why it finds nothing.
    pub is_latest: bool,
    /// Whether it says that the object was deleted.
    pub is_delete_marker: bool,
}

impl Bucket {
    /// Streams all versions of the objects whose keys start with `prefix`, in the order of the keys, those of a key from the
    /// latest to the first. Pages are fetched one after another, as they are read; dropping the stream stops it.
    ///
    /// # Errors
    ///
    /// As [`Bucket::list`]; the place that a page names for the next one must lie behind its own.
    pub fn versions(&self, prefix: &str) -> BoxStream<'static, Result<ObjectVersion, Error>> {
        let place = Place {
            bucket: self.clone(),
            prefix: prefix.to_owned(),
            next: None,
            earlier: Earlier::default(),
            empty: 0,
        };
        let pages = futures::stream::try_unfold(Some(place), |place| async move {
            let Some(place) = place else { return Ok(None) };
            place.page().await.map(Some)
        });
        pages.map_ok(|versions| futures::stream::iter(versions.into_iter().map(Ok))).try_flatten().boxed()
    }
}

/// A place between two pages.
struct Place {
    bucket: Bucket,
    prefix: String,
    /// The last key and version before it.
    next: Option<(String, String)>,
    earlier: Earlier,
    /// Pages without versions since the last one with some.
    empty: u32,
}

/// A place that pages of one key began at, by which a circle of them is found: Brent, "An improved Monte Carlo factorization
/// algorithm", BIT 20 (1980). It stays for twice as many pages as the one before it did, so that it comes to lie in a circle,
/// and the circle comes back to it.
#[derive(Default)]
struct Earlier {
    version: String,
    pages: u64,
    stays: u64,
}

impl Earlier {
    /// Whether pages have begun there before, as far as it is noticed. No page can begin with no version twice.
    fn was_at(&mut self, version: &str) -> bool {
        if self.version == version {
            return true;
        }
        if self.pages == self.stays {
            *self = Self { version: version.to_owned(), pages: 0, stays: self.stays * 2 + 1 };
        }
        self.pages += 1;
        false
    }
}

impl Place {
    fn location(&self) -> String {
        format!("{}/{}", self.bucket.location_of_bucket(), self.prefix)
    }

    async fn page(self) -> Result<(Vec<ObjectVersion>, Option<Self>), Error> {
        let bucket = &self.bucket;
        // In the order of their names, as a signature sorts them.
        let mut query = vec![("encoding-type", "url")];
        query.extend(self.next.iter().map(|(key, _)| ("key-marker", key.as_str())));
        query.push(("prefix", &self.prefix));
        let version = self.next.as_ref().map(|(_, version)| version.as_str()).filter(|version| !version.is_empty());
        query.extend(version.map(|version| ("version-id-marker", version)));
        query.push(("versions", ""));
        let url = bucket.url("", &query)?;
        let location = self.location();
        let on_retry = |attempt, delay, error: &bulk_core::Error| {
            bucket.observer.event(&Event::Retry { name: &location, attempt, delay, error });
        };
        let attempt = || async {
            match bucket.sign(&url).await {
                Ok(headers) => (bucket.client.read(&url, headers, PAGE_LIMIT).await, false),
                Err(error) => (Err(error), false),
            }
        };
        let body = Pace::new(1, bucket.retry.timeout).retry(&bucket.retry, on_retry, attempt).await?;
        self.read(&body).map_err(|what| Error::Listing { location, what })
    }

    fn read(self, body: &[u8]) -> Result<(Vec<ObjectVersion>, Option<Self>), String> {
        let page = RawPage::parse(body)?;
        let mut versions = Vec::with_capacity(page.objects.len());
        for raw in &page.objects {
            let key = page.decoded(&raw.key)?;
            if key.is_empty() {
                return Err("it has an object without a key".to_owned());
            }
            let etag = raw.etag.unquote()?;
            versions.push(ObjectVersion {
                object: Object::from(describe(&key, etag.as_deref(), raw)?),
                version: raw.version.unescape()?.into_owned(),
                is_latest: raw.is_latest,
                is_delete_marker: raw.is_delete_marker,
            });
        }
        if !page.is_truncated {
            return Ok((versions, None));
        }
        let key = page.next_key_marker.as_ref().map(|key| page.decoded(key)).transpose()?;
        let key = key.ok_or("a page says that more follows, but not how to ask for it")?;
        let version = page.next_version_marker.as_ref().map(|version| version.unescape()).transpose()?;
        let next = (key, version.unwrap_or_default().into_owned());
        // Versions are in no order that a client could check, but keys are.
        let (is_ahead, earlier) = match &self.next {
            Some(before) if before.0 == next.0 => {
                let mut earlier = self.earlier;
                (before.1 != next.1 && !earlier.was_at(&next.1), earlier)
            }
            before => (before.as_ref().is_none_or(|before| before.0 < next.0), Earlier::default()),
        };
        if !is_ahead {
            return Err(format!("a page names one at {:?} as the next, which does not lie behind it", next.0));
        }
        let empty = if versions.is_empty() { self.empty + 1 } else { 0 };
        if empty > EMPTY_PAGES {
            return Err(format!("more than {EMPTY_PAGES} pages in a row have no keys"));
        }
        Ok((versions, Some(Self { next: Some(next), earlier, empty, ..self })))
    }
}
