//! ListObjectsV2: one page of the keys of a bucket, and its XML.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>

use std::{borrow::Cow, fmt::Write, ops::Bound, sync::Arc};

use jiff::Timestamp;

use super::{
    answer::S3Error,
    object::Meta,
    target::Target,
    xml::{DECLARATION, element, escape, form_encode, hex, unhex},
};

/// A set of keys that can be walked in byte order from anywhere.
///
/// This is all that a listing needs of a store, so that a store may as well make its keys up.
pub(super) trait SortedKeys {
    type Meta: Clone;

    fn range(&self, from: Bound<&[u8]>) -> impl Iterator<Item = (&Arc<str>, &Self::Meta)>;
}

#[derive(Debug)]
pub(super) struct Query {
    pub(super) prefix: String,
    delimiter: Option<String>,
    start_after: Option<String>,
    token: Option<(String, Resume)>,
    max_keys: usize,
    url_encoded: bool,
}

/// Where a page goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Resume {
    After(Arc<str>),
    PastPrefix(String),
}

impl Resume {
    fn to_token(&self) -> String {
        match self {
            Self::After(key) => format!("1{}", hex(key.as_bytes())),
            Self::PastPrefix(prefix) => format!("2{}", hex(prefix.as_bytes())),
        }
    }

    fn from_token(token: &str) -> Option<Self> {
        let text = String::from_utf8(unhex(token.get(1..)?)?).ok().filter(|text| !text.is_empty())?;
        match token.as_bytes()[0] {
            b'1' => Some(Self::After(text.into())),
            b'2' => Some(Self::PastPrefix(text)),
            _ => None,
        }
    }

    fn bound(&self) -> Bound<Vec<u8>> {
        match self {
            Self::After(key) => Bound::Excluded(key.as_bytes().to_vec()),
            Self::PastPrefix(prefix) => past(prefix),
        }
    }
}

/// The first place behind all keys with this prefix. The last byte of a UTF-8 string is never 0xff.
fn past(prefix: &str) -> Bound<Vec<u8>> {
    let mut bytes = prefix.as_bytes().to_vec();
    if let Some(last) = bytes.last_mut() {
        *last += 1;
    }
    Bound::Included(bytes)
}

#[derive(Debug)]
pub(super) struct Page<M> {
    contents: Vec<(Arc<str>, M)>,
    common_prefixes: Vec<String>,
    next: Option<Resume>,
}

impl<M> Page<M> {
    pub(super) fn try_map<N, E>(self, mut map: impl FnMut(&str, M) -> Result<N, E>) -> Result<Page<N>, E> {
        let contents = self.contents.into_iter().map(|(key, meta)| {
            let meta = map(&key, meta)?;
            Ok((key, meta))
        });
        Ok(Page {
            contents: contents.collect::<Result<_, E>>()?,
            common_prefixes: self.common_prefixes,
            next: self.next,
        })
    }
}

impl Query {
    pub(super) fn parse(target: &Target, cap: usize) -> Result<Self, S3Error> {
        let text = |name| target.param(name).filter(|value| !value.is_empty()).map(str::to_owned);
        let max_keys = match target.param("max-keys").filter(|value| !value.is_empty()) {
            None => cap,
            Some(number) => match number.parse::<u32>() {
                Ok(number) if i32::try_from(number).is_ok() => cap.min(number as usize),
                _ => {
                    return Err(S3Error::invalid_argument(
                        "Argument max-keys must be an integer between 0 and 2147483647",
                        "max-keys",
                        number,
                    ));
                }
            },
        };
        let url_encoded = match target.param("encoding-type") {
            None | Some("") => false,
            Some("url") => true,
            Some(other) => {
                let message = "Invalid Encoding Method specified in Request";
                return Err(S3Error::invalid_argument(message, "encoding-type", other));
            }
        };
        let token = match target.param("continuation-token") {
            None => None,
            Some(token) => match Resume::from_token(token) {
                Some(resume) => Some((token.to_owned(), resume)),
                None => {
                    let message = "The continuation token provided is incorrect";
                    return Err(S3Error::invalid_argument(message, "continuation-token", token));
                }
            },
        };
        Ok(Self {
            prefix: text("prefix").unwrap_or_default(),
            delimiter: text("delimiter"),
            start_after: text("start-after"),
            token,
            max_keys,
            url_encoded,
        })
    }

    /// A token outranks `start-after`, as it already says where the earlier pages ended.
    fn start(&self) -> Bound<Vec<u8>> {
        let bound = match (&self.token, &self.start_after) {
            (Some((_, resume)), _) => resume.bound(),
            (None, Some(key)) => Bound::Excluded(key.as_bytes().to_vec()),
            (None, None) => Bound::Unbounded,
        };
        match &bound {
            Bound::Included(bytes) | Bound::Excluded(bytes) if bytes.as_slice() >= self.prefix.as_bytes() => bound,
            _ => Bound::Included(self.prefix.as_bytes().to_vec()),
        }
    }

    /// The common prefix that the key is rolled up into, if any.
    fn rolled_up<'k>(&self, key: &'k str) -> Option<&'k str> {
        let delimiter = self.delimiter.as_deref()?;
        let at = self.prefix.len() + key[self.prefix.len()..].find(delimiter)?;
        Some(&key[..at + delimiter.len()])
    }

    /// A common prefix is listed if any key behind `start-after` rolls up into it.
    pub(super) fn page<K: SortedKeys>(&self, keys: &K) -> Page<K::Meta> {
        let mut page = Page { contents: Vec::new(), common_prefixes: Vec::new(), next: None };
        let mut from = self.start();
        let mut last = None;
        if self.max_keys == 0 {
            return page;
        }
        loop {
            let mut rolled_up = None;
            for (key, meta) in keys.range(from.as_ref().map(Vec::as_slice)) {
                if !key.starts_with(&self.prefix) {
                    break;
                }
                if page.contents.len() + page.common_prefixes.len() == self.max_keys {
                    page.next = last;
                    return page;
                }
                rolled_up = self.rolled_up(key).map(str::to_owned);
                if rolled_up.is_some() {
                    break;
                }
                page.contents.push((Arc::clone(key), meta.clone()));
                last = Some(Resume::After(Arc::clone(key)));
            }
            let Some(prefix) = rolled_up else { return page };
            from = past(&prefix);
            last = Some(Resume::PastPrefix(prefix.clone()));
            page.common_prefixes.push(prefix);
        }
    }

    pub(super) fn render(&self, bucket: &str, page: &Page<Meta>) -> String {
        let encode = |text| if self.url_encoded { Cow::Owned(form_encode(text)) } else { Cow::Borrowed(text) };
        let mut out = String::with_capacity(512 + 320 * page.contents.len());
        out.push_str(DECLARATION);
        out.push_str("<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
        element(&mut out, "Name", bucket);
        element(&mut out, "Prefix", &encode(&self.prefix));
        if let Some(start_after) = &self.start_after {
            element(&mut out, "StartAfter", &encode(start_after));
        }
        if let Some((token, _)) = &self.token {
            element(&mut out, "ContinuationToken", token);
        }
        if let Some(resume) = &page.next {
            element(&mut out, "NextContinuationToken", &resume.to_token());
        }
        let count = page.contents.len() + page.common_prefixes.len();
        let _ = write!(out, "<KeyCount>{count}</KeyCount><MaxKeys>{}</MaxKeys>", self.max_keys);
        if let Some(delimiter) = &self.delimiter {
            element(&mut out, "Delimiter", &encode(delimiter));
        }
        if self.url_encoded {
            element(&mut out, "EncodingType", "url");
        }
        let _ = write!(out, "<IsTruncated>{}</IsTruncated>", page.next.is_some());
        let mut time = TimeText::default();
        for (key, meta) in &page.contents {
            out.push_str("<Contents><Key>");
            escape(&mut out, &encode(key));
            let _ = write!(out, "</Key><LastModified>{}</LastModified><ETag>&quot;", time.of(meta.last_modified));
            escape(&mut out, &meta.etag);
            let _ =
                write!(out, "&quot;</ETag><Size>{}</Size><StorageClass>STANDARD</StorageClass></Contents>", meta.size);
        }
        for prefix in &page.common_prefixes {
            out.push_str("<CommonPrefixes>");
            element(&mut out, "Prefix", &encode(prefix));
            out.push_str("</CommonPrefixes>");
        }
        out.push_str("</ListBucketResult>");
        out
    }
}

/// Neighbours in a listing often share their time.
#[derive(Default)]
struct TimeText(Option<(Timestamp, String)>);

impl TimeText {
    fn of(&mut self, at: Timestamp) -> &str {
        if self.0.as_ref().is_none_or(|(known, _)| *known != at) {
            self.0 = Some((at, at.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()));
        }
        self.0.as_ref().map_or("", |(_, text)| text)
    }
}
