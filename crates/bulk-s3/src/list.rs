//! The pages of one run through a stretch of the key space: what is asked for, and what an answer means.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use bulk_core::{Event, Pace};
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use jiff::Timestamp;
use memchr::memchr2;

use crate::lister::Page;
use crate::page::{RawObject, RawPage, decode_url};
use crate::{Batch, Bucket, Error, KeyFilter, KeyRange, Object, ObjectRef};

/// Pages without keys that may follow one another.
pub(crate) const EMPTY_PAGES: u32 = 1000;
/// A page of 1,000 keys of 1,024 bytes, each byte percent-encoded, takes less.
pub(crate) const PAGE_LIMIT: usize = 8 * 1024 * 1024;

impl Bucket {
    /// Streams the objects whose keys start with `prefix`, in the server's order (for AWS: by UTF-8 bytes), over all
    /// pages. Pages are fetched one after another, as they are read; dropping the stream stops it. [`Bucket::pages`] is
    /// faster.
    ///
    /// # Errors
    ///
    /// An item that is an error is the last one: a request that failed for good, an answer that is no listing, or a
    /// listing that might never end. For the latter, each page must bring a key that is greater than all before it, by
    /// UTF-8 bytes; the order within pages is free. A page without keys may name another one, but no more than 1,000
    /// such pages may follow one another. S3 sorts the keys of general purpose buckets; of a server that does not sort
    /// at all, as S3's directory buckets, listings of one page (1,000 keys) can be read.
    pub fn list(&self, prefix: &str) -> impl Stream<Item = Result<Object, Error>> + Send + use<> {
        let mut cursor = Cursor::new(self.clone(), prefix, None, Pace::new(1, self.retry.timeout));
        cursor.is_sorted = false;
        let pages = futures::stream::try_unfold(Some(cursor), |cursor| async move {
            let Some(mut cursor) = cursor else { return Ok(None) };
            let page = loop {
                let body = cursor.fetch().await?;
                // It begins with the first key, so nothing is skipped.
                if let Fetched::Page(page) = cursor.read(&body, &KeyFilter::all())? {
                    break page;
                }
            };
            let objects: Vec<_> = page.objects.iter().map(|object| Ok(Object::from(object))).collect();
            Ok::<_, Error>(Some((futures::stream::iter(objects), page.has_more.then_some(cursor))))
        });
        pages.try_flatten()
    }
}

/// What a server was found to speak.
#[derive(Debug, Default)]
pub(crate) struct Spoken {
    /// ListObjects, and not its second version.
    only_v1: AtomicBool,
}

/// A place between two pages.
pub(crate) struct Cursor {
    bucket: Bucket,
    /// That of all places of one listing.
    pace: Pace,
    prefix: String,
    /// Where the first page begins.
    after: Option<String>,
    next: Next,
    /// The greatest key of all pages so far.
    greatest: Option<String>,
    /// Pages without keys since the last one with some.
    empty: u32,
    /// Whether a key must sort behind the one before it, also within a page.
    is_sorted: bool,
    /// Whether the server sends what is before the beginning, too, and it is passed over.
    skips: bool,
}

/// What the next page is asked for by.
#[derive(Debug, PartialEq)]
enum Next {
    First,
    Token(String),
    Marker(String),
}

/// What became of an answer.
pub(crate) enum Fetched {
    Page(FetchedPage),
    /// It is to be asked for in another way.
    Again,
    /// The server does not begin where it was asked to.
    FromTheStart,
}

pub(crate) struct FetchedPage {
    /// The objects that are meant.
    pub(crate) objects: Batch,
    /// How many keys there are.
    keys: u64,
    pub(crate) first: Option<String>,
    pub(crate) last: Option<String>,
    pub(crate) has_more: bool,
    body: Bytes,
}

impl FetchedPage {
    /// What of it is in `range`. All of it is behind its beginning.
    pub(crate) fn within(mut self, range: KeyRange, lane: u64, is_last: bool) -> Page {
        if let (Some(until), Some(last)) = (&range.until, &self.last)
            && last > until
        {
            let objects = self.objects.iter().take_while(|object| object.key <= until.as_str()).count();
            self.objects.truncate(objects);
            // It was read before, so it can be.
            self.keys = RawPage::parse(&self.body).map_or(0, |page| {
                let mut keys = Keys::new(page.is_url_encoded);
                let is_inside = |object| keys.decode(object).is_ok() && keys.current() <= until.as_str();
                page.objects.iter().map(is_inside).take_while(|is_inside| *is_inside).count() as u64
            });
        }
        Page { range, objects: self.objects, keys: self.keys, lane, is_last }
    }
}

impl Cursor {
    /// The place before the first key with `prefix` behind `after`.
    pub(crate) fn new(bucket: Bucket, prefix: &str, after: Option<String>, pace: Pace) -> Self {
        Self {
            bucket,
            pace,
            prefix: prefix.to_owned(),
            after,
            next: Next::First,
            greatest: None,
            empty: 0,
            is_sorted: true,
            skips: false,
        }
    }

    /// Passes over what the server sends from before the beginning.
    pub(crate) fn skip(&mut self) {
        self.skips = true;
    }

    fn location(&self) -> String {
        format!("{}/{}", self.bucket.location_of_bucket(), self.prefix)
    }

    fn unusable(&self, what: impl Into<String>) -> Error {
        Error::Listing { location: self.location(), what: what.into() }
    }

    /// Asks for the page behind this place. It stays where it is until that is [read](Self::read).
    pub(crate) async fn fetch(&self) -> Result<Bytes, Error> {
        let only_v1 = &self.bucket.spoken.only_v1;
        // What has given a token goes on from there, whatever others have found meanwhile.
        if only_v1.load(Ordering::Relaxed) && !matches!(self.next, Next::Token(_)) {
            return Ok(self.request(true).await?);
        }
        match self.request(false).await {
            Ok(body) => Ok(body),
            Err(bulk_core::Error::Status { status, retry_after, location, reason })
                if matches!(status, 400 | 405 | 501) && self.next == Next::First =>
            {
                // A server that does not know the one may know the other; else what it said first is what counts.
                match self.request(true).await {
                    Ok(body) if RawPage::parse(&body).is_ok() => {
                        only_v1.store(true, Ordering::Relaxed);
                        Ok(body)
                    }
                    _ => Err(bulk_core::Error::Status { status, retry_after, location, reason }.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn request(&self, is_v1: bool) -> Result<Bytes, bulk_core::Error> {
        // In the order of their names, as a signature sorts them.
        let mut query = Vec::with_capacity(5);
        if let (false, Next::Token(token)) = (is_v1, &self.next) {
            query.push(("continuation-token", token.as_str()));
        }
        query.push(("encoding-type", "url"));
        let start = match &self.next {
            Next::First => self.after.as_deref(),
            Next::Marker(marker) => Some(marker.as_str()),
            Next::Token(_) => None,
        };
        match is_v1 {
            true => query.extend(start.map(|marker| ("marker", marker))),
            false => query.push(("list-type", "2")),
        }
        query.push(("prefix", self.prefix.as_str()));
        if !is_v1 {
            query.extend(start.map(|start| ("start-after", start)));
        }
        let bucket = &self.bucket;
        let url = bucket.url("", &query)?;
        let location = self.location();
        let on_retry = |attempt, delay, error: &bulk_core::Error| {
            bucket.observer.event(&Event::Retry { name: &location, attempt, delay, error });
        };
        let attempt = || async {
            let headers = match bucket.sign(&url).await {
                Ok(headers) => headers,
                Err(error) => return (Err(error), false),
            };
            (bucket.client.read(&url, headers, PAGE_LIMIT).await, false)
        };
        self.pace.retry(&bucket.retry, on_retry, attempt).await
    }

    /// Reads an answer, and goes on to behind it.
    pub(crate) fn read(&mut self, body: &Bytes, filter: &KeyFilter) -> Result<Fetched, Error> {
        let raw = RawPage::parse(body).map_err(|what| self.unusable(what))?;
        let only_v1 = &self.bucket.spoken.only_v1;
        let is_first = self.next == Next::First;
        if is_first && !only_v1.load(Ordering::Relaxed) && raw.is_of_v1() {
            // It does not know what it was asked for, so it took no notice of where to begin, either.
            only_v1.store(true, Ordering::Relaxed);
            if self.after.is_some() {
                return Ok(Fetched::Again);
            }
        }
        let page = self.decode(&raw, filter)?;
        let (first, mut page) = match page {
            Some(page) => page,
            None if !only_v1.swap(true, Ordering::Relaxed) => return Ok(Fetched::Again),
            None => return Ok(Fetched::FromTheStart),
        };
        page.body = body.clone();
        page.first = first;
        self.go_on(&raw, &page)?;
        Ok(Fetched::Page(page))
    }

    /// The place behind a page.
    fn go_on(&mut self, raw: &RawPage<'_>, page: &FetchedPage) -> Result<(), Error> {
        match (&page.last, &self.greatest) {
            (Some(_), _) => self.empty = 0,
            (None, Some(greatest)) if page.keys > 0 => {
                let what = format!("a page brings no key greater than {greatest:?}, which came before");
                return Err(self.unusable(what));
            }
            // What is passed over is progress, too.
            (None, _) if !raw.objects.is_empty() => self.empty = 0,
            (None, _) => self.empty += 1,
        }
        if page.last.is_some() {
            self.greatest.clone_from(&page.last);
        }
        if !raw.is_truncated {
            return Ok(());
        }
        let text = |text: Result<Option<String>, String>| text.map_err(|what| self.unusable(what));
        let next = if self.bucket.spoken.only_v1.load(Ordering::Relaxed) && raw.next_token.is_none() {
            let named = raw.next_marker.as_ref().map(|marker| raw.decoded(marker)).transpose();
            // Without a delimiter the last key is the marker.
            let last = || raw.objects.last().map(|object| raw.decoded(&object.key)).transpose();
            let marker = match text(named)? {
                Some(marker) => Some(marker),
                None => text(last())?,
            };
            marker.map(Next::Marker)
        } else {
            text(raw.next_token.as_ref().map(|token| token.unescape().map(Cow::into_owned)).transpose())?
                .map(Next::Token)
        };
        match next {
            None => Err(self.unusable("a page says that more follows, but not how to ask for it")),
            Some(next) if next == self.next => Err(self.unusable("a page names itself as the next one")),
            Some(_) if self.empty > EMPTY_PAGES => {
                Err(self.unusable(format!("more than {EMPTY_PAGES} pages in a row have no keys")))
            }
            Some(next) => {
                self.next = next;
                Ok(())
            }
        }
    }

    /// The objects that are meant. `None` if there are some from before the beginning, which are not to be passed over. The
    /// first key stands beside the page.
    fn decode(&self, raw: &RawPage<'_>, filter: &KeyFilter) -> Result<Option<(Option<String>, FetchedPage)>, Error> {
        let mut cursor = Keys::new(raw.is_url_encoded);
        let mut objects = Batch::new();
        let mut first: Option<String> = None;
        let mut keys = 0;
        for object in &raw.objects {
            cursor.decode(object).map_err(|what| self.unusable(what))?;
            let key = cursor.current();
            if let Some(after) = &self.after
                && key <= after.as_str()
            {
                match self.skips {
                    true => continue,
                    false if self.next == Next::First => return Ok(None),
                    false => {}
                }
            }
            let before = cursor.greatest().or(self.greatest.as_deref());
            let is_greater = before.is_none_or(|before| key > before);
            if !is_greater && self.is_sorted {
                let before = before.unwrap_or_default();
                let what = format!("its keys are not in the order of their bytes: {key:?} comes behind {before:?}");
                return Err(self.unusable(what));
            }
            if first.is_none() {
                first = Some(key.to_owned());
            }
            keys += 1;
            if filter.matches(key) {
                let etag = object.etag.unquote().map_err(|what| self.unusable(what))?;
                objects.push(describe(key, etag.as_deref(), object).map_err(|what| self.unusable(what))?);
            }
            if is_greater {
                cursor.keep();
            }
        }
        let last = cursor.greatest().map(str::to_owned);
        let page = FetchedPage { objects, keys, first: None, last, has_more: raw.is_truncated, body: Bytes::new() };
        Ok(Some((first, page)))
    }
}

/// Decodes one key after another. One that stands in the page as it is stays there.
struct Keys<'a> {
    is_url_encoded: bool,
    current: Place<'a>,
    current_buffer: String,
    greatest: Option<Place<'a>>,
    greatest_buffer: String,
}

#[derive(Clone, Copy)]
enum Place<'a> {
    Page(&'a str),
    Buffer,
}

impl<'a> Keys<'a> {
    fn new(is_url_encoded: bool) -> Self {
        Self {
            is_url_encoded,
            current: Place::Buffer,
            current_buffer: String::new(),
            greatest: None,
            greatest_buffer: String::new(),
        }
    }

    fn decode(&mut self, object: &'a RawObject<'a>) -> Result<(), String> {
        self.current = match object.key.unescape()? {
            Cow::Borrowed(text) if !self.is_url_encoded || memchr2(b'%', b'+', text.as_bytes()).is_none() => {
                Place::Page(text)
            }
            text if self.is_url_encoded => {
                self.current_buffer.clear();
                decode_url(&text, &mut self.current_buffer)?;
                Place::Buffer
            }
            text => {
                self.current_buffer = text.into_owned();
                Place::Buffer
            }
        };
        if self.current().is_empty() {
            return Err("it has an object without a key".to_owned());
        }
        Ok(())
    }

    fn current(&self) -> &str {
        match self.current {
            Place::Page(key) => key,
            Place::Buffer => &self.current_buffer,
        }
    }

    fn greatest(&self) -> Option<&str> {
        match self.greatest? {
            Place::Page(key) => Some(key),
            Place::Buffer => Some(&self.greatest_buffer),
        }
    }

    /// The current key is the greatest.
    fn keep(&mut self) {
        if let Place::Buffer = self.current {
            std::mem::swap(&mut self.current_buffer, &mut self.greatest_buffer);
        }
        self.greatest = Some(self.current);
    }
}

/// What a page says of an object.
pub(crate) fn describe<'a>(
    key: &'a str,
    etag: Option<&'a str>,
    object: &RawObject<'_>,
) -> Result<ObjectRef<'a>, String> {
    let mut described = ObjectRef::new(key);
    described.etag = etag;
    let size = object.size.unescape()?;
    described.size = match size.trim() {
        "" => None,
        size => Some(size.parse().map_err(|_| format!("it has an object of size {size:?}"))?),
    };
    described.last_modified = object.last_modified.unescape()?.trim().parse::<Timestamp>().ok();
    Ok(described)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BucketOptions;

    fn read(body: &str) -> Result<FetchedPage, String> {
        let bucket = Bucket::new("b", BucketOptions::default()).unwrap();
        let mut cursor = Cursor::new(bucket, "", None, Pace::new(1, std::time::Duration::ZERO));
        match cursor.read(&Bytes::copy_from_slice(body.as_bytes()), &KeyFilter::all()) {
            Ok(Fetched::Page(page)) => Ok(page),
            Ok(_) => panic!("asked again"),
            Err(Error::Listing { what, .. }) => Err(what),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_page_is_decoded() {
        let page = read(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><EncodingType>url</EncodingType>
<IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b+c=</NextContinuationToken>
<Contents><Key>a//b+%2B%25%01</Key><LastModified>2026-07-01T00:00:00.000Z</LastModified>
<ETag>&quot;d41d8cd9-3&quot;</ETag><Size>14</Size><Owner><ID>Key</ID></Owner></Contents>
<CommonPrefixes><Prefix>x/</Prefix></CommonPrefixes></ListBucketResult>"#,
        )
        .unwrap();
        assert_eq!((page.keys, page.has_more), (1, true));
        assert_eq!((page.first.as_deref(), page.last.as_deref()), (Some("a//b +%\u{1}"), Some("a//b +%\u{1}")));
        let object = page.objects.get(0).unwrap();
        assert_eq!(object.key, "a//b +%\u{1}");
        assert_eq!((object.size, object.etag), (Some(14), Some("d41d8cd9-3")));
        assert_eq!(object.last_modified.unwrap().as_second(), 1_782_864_000);
    }

    #[test]
    fn objects_that_cannot_be_are_refused() {
        for (contents, expected) in [
            ("<Key>a</Key><Size>x</Size>", "it has an object of size \"x\""),
            ("", "it has an object without a key"),
            (
                "<Key>b</Key></Contents><Contents><Key>a</Key>",
                "its keys are not in the order of their bytes: \"a\" comes behind \"b\"",
            ),
            (
                "<Key>a</Key></Contents><Contents><Key>a</Key>",
                "its keys are not in the order of their bytes: \"a\" comes behind \"a\"",
            ),
        ] {
            let body = format!("<ListBucketResult><Contents>{contents}</Contents></ListBucketResult>");
            assert_eq!(read(&body).err().as_deref(), Some(expected));
        }
        let body =
            "<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>%ff</Key></Contents></ListBucketResult>";
        assert_eq!(read(body).err().as_deref(), Some("the key \"%ff\" is no UTF-8"));
    }
}
