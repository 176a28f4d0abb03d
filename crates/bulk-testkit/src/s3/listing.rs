//! One page of the keys of a bucket, and its XML: ListObjectsV2, its predecessor ListObjects, and ListObjectVersions.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjects.html>
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html>

use std::{
    fmt::Write,
    ops::{Bound, Range},
};

use jiff::Timestamp;

use super::{
    answer::S3Error,
    fault::ListingEffects,
    object::Meta,
    quirk::Quirks,
    target::Target,
    xml::{DECLARATION, element, escape, form_encode, hex, unhex},
};

const NAMESPACE: &str = " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">";
const OWNER: &str = "<Owner><ID>0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef</ID></Owner>";
/// The version of what was put into a bucket without versions.
const NULL_VERSION: &str = "null";

/// What a listing is made from: keys that can be walked in byte order from anywhere, so that a store may as well make
/// its keys up.
pub(super) trait SortedKeys {
    type Meta;

    /// Shows keys until there are no more or `take` has had enough, which it says with `false`. A key that stands there
    /// in several versions is shown as often, the newest first.
    fn walk(&self, from: Bound<&[u8]>, take: impl FnMut(&str, &Self::Meta) -> bool);
}

/// What may stand under its key in several versions.
pub(super) trait Versioned: Clone {
    fn version(&self) -> Version {
        Version { id: None, is_latest: true, is_delete_marker: false }
    }
}

/// What a listing says of a key.
pub(super) trait Listed: Versioned {
    fn size(&self) -> u64;

    /// Appends it as it is, without quotes.
    fn push_etag(&self, out: &mut String);

    /// In seconds since 1970.
    fn last_modified(&self) -> i64;
}

/// Which of a key's versions this is.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// `None` for the one version of a key in a bucket without versions.
    pub(super) id: Option<String>,
    pub(super) is_latest: bool,
    pub(super) is_delete_marker: bool,
}

impl Version {
    fn id(&self) -> &str {
        self.id.as_deref().unwrap_or(NULL_VERSION)
    }
}

impl Versioned for Meta {}

impl Listed for Meta {
    fn size(&self) -> u64 {
        self.size
    }

    fn push_etag(&self, out: &mut String) {
        escape(out, &self.etag);
    }

    fn last_modified(&self) -> i64 {
        self.last_modified.as_second()
    }
}

/// The three requests that list a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    V1,
    V2,
    Versions,
}

impl Kind {
    /// `None` if the target names an object, or another aspect of a bucket.
    pub(super) fn of(target: &Target) -> Option<Self> {
        const ASPECTS: [&str; 25] = [
            "accelerate",
            "acl",
            "analytics",
            "cors",
            "delete",
            "encryption",
            "intelligent-tiering",
            "inventory",
            "lifecycle",
            "location",
            "logging",
            "metadataTable",
            "metrics",
            "notification",
            "object-lock",
            "ownershipControls",
            "policy",
            "policyStatus",
            "publicAccessBlock",
            "replication",
            "requestPayment",
            "tagging",
            "uploads",
            "versioning",
            "website",
        ];
        if target.key.is_some() || target.bucket.is_empty() {
            return None;
        }
        if target.query.iter().any(|(name, _)| ASPECTS.contains(&name.as_str())) {
            return None;
        }
        match (target.param("versions"), target.param("list-type")) {
            (Some(_), _) => Some(Self::Versions),
            (None, Some("2")) => Some(Self::V2),
            (None, None) => Some(Self::V1),
            (None, Some(_)) => None,
        }
    }

    /// What the parameter is called behind whose key the listing starts.
    fn start(self) -> &'static str {
        match self {
            Self::V1 => "marker",
            Self::V2 => "start-after",
            Self::Versions => "key-marker",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Query {
    kind: Kind,
    pub(super) prefix: String,
    delimiter: Option<String>,
    /// Or the marker, or the key marker.
    start_after: Option<String>,
    version_id_marker: Option<String>,
    token: Option<(String, Resume)>,
    max_keys: usize,
    url_encoded: bool,
    is_unordered: bool,
}

/// Where a page goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Resume {
    After {
        key: String,
        version: Option<String>,
    },
    PastPrefix(String),
    /// Where the page itself began, which no sound server says: as `start-after`, if the request had no token.
    Again(String),
    /// So many have been listed, of what has an order of its own.
    Behind(usize),
}

impl Resume {
    fn to_token(&self) -> String {
        match self {
            Self::Again(start) => format!("0{}", hex(start.as_bytes())),
            Self::After { key, .. } => format!("1{}", hex(key.as_bytes())),
            Self::PastPrefix(prefix) => format!("2{}", hex(prefix.as_bytes())),
            Self::Behind(count) => format!("9{count}"),
        }
    }

    fn from_token(token: &str) -> Option<Self> {
        let (kind, rest) = token.split_at_checked(1)?;
        if kind == "9" {
            return rest.parse().ok().map(Self::Behind);
        }
        let text = String::from_utf8(unhex(rest)?).ok();
        match kind {
            "0" => text.map(Self::Again),
            "1" => text.filter(|key| !key.is_empty()).map(|key| Self::After { key, version: None }),
            "2" => text.filter(|prefix| !prefix.is_empty()).map(Self::PastPrefix),
            _ => None,
        }
    }

    fn bound(&self) -> Bound<Vec<u8>> {
        match self {
            Self::After { key, .. } => Bound::Excluded(key.as_bytes().to_vec()),
            Self::PastPrefix(prefix) => past(prefix),
            Self::Again(start) if !start.is_empty() => Bound::Excluded(start.as_bytes().to_vec()),
            Self::Again(_) | Self::Behind(_) => Bound::Unbounded,
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

/// Keys and prefixes stand end to end in one text.
#[derive(Debug)]
pub(super) struct Page<M> {
    text: String,
    contents: Vec<(Range<usize>, M)>,
    common_prefixes: Vec<Range<usize>>,
    truncated: bool,
    next: Option<Resume>,
}

impl<M> Page<M> {
    fn empty() -> Self {
        Self { text: String::new(), contents: Vec::new(), common_prefixes: Vec::new(), truncated: false, next: None }
    }

    pub(super) fn try_map<N, E>(self, mut map: impl FnMut(&str, M) -> Result<N, E>) -> Result<Page<N>, E> {
        let Self { text, contents, common_prefixes, truncated, next } = self;
        let contents = contents.into_iter().map(|(key, meta)| {
            let meta = map(&text[key.clone()], meta)?;
            Ok((key, meta))
        });
        let contents = contents.collect::<Result<_, E>>()?;
        Ok(Page { text, contents, common_prefixes, truncated, next })
    }

    pub(super) fn keys(&self) -> usize {
        self.contents.len()
    }

    /// Keys and common prefixes.
    fn len(&self) -> usize {
        self.contents.len() + self.common_prefixes.len()
    }

    fn push_text(&mut self, text: &str) -> Range<usize> {
        let start = self.text.len();
        self.text.push_str(text);
        start..self.text.len()
    }
}

/// What a page can hold of a place in a bucket.
#[derive(Clone)]
enum Item<M> {
    Object(Range<usize>, M),
    Prefix(Range<usize>),
}

impl<M> Item<M> {
    fn text(&self) -> Range<usize> {
        match self {
            Self::Object(text, _) | Self::Prefix(text) => text.clone(),
        }
    }
}

impl Query {
    pub(super) fn parse(target: &Target, kind: Kind, cap: usize, quirks: &Quirks) -> Result<Self, S3Error> {
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
            _ if quirks.ignores_encoding => false,
            Some("url") => true,
            Some(other) => {
                let message = "Invalid Encoding Method specified in Request";
                return Err(S3Error::invalid_argument(message, "encoding-type", other));
            }
        };
        let token = match target.param("continuation-token").filter(|_| kind == Kind::V2) {
            None => None,
            Some(token) => match Resume::from_token(token) {
                Some(resume) => Some((token.to_owned(), resume)),
                None => {
                    let message = "The continuation token provided is incorrect";
                    return Err(S3Error::invalid_argument(message, "continuation-token", token));
                }
            },
        };
        let start_after = text(kind.start()).filter(|_| kind != Kind::V2 || !quirks.ignores_start_after);
        let version_id_marker = text("version-id-marker").filter(|_| kind == Kind::Versions);
        if let (None, Some(version)) = (&start_after, &version_id_marker) {
            let message = "A version-id marker cannot be specified without a key marker.";
            return Err(S3Error::invalid_argument(message, "version-id-marker", version));
        }
        Ok(Self {
            kind,
            prefix: text("prefix").unwrap_or_default(),
            delimiter: text("delimiter"),
            start_after,
            version_id_marker,
            token,
            max_keys,
            url_encoded,
            is_unordered: quirks.is_unordered,
        })
    }

    pub(super) fn is_of_versions(&self) -> bool {
        self.kind == Kind::Versions
    }

    /// A token outranks `start-after`, as it already says where the earlier pages ended. A marker that is a common
    /// prefix has been listed with all that rolls up into it: `NextMarker` may be one.
    fn start(&self) -> Bound<Vec<u8>> {
        let bound = match (&self.token, &self.start_after) {
            (Some((_, resume)), _) => resume.bound(),
            (None, Some(key)) if self.version_id_marker.is_some() => Bound::Included(key.as_bytes().to_vec()),
            (None, Some(key)) if self.kind != Kind::V2 && self.rolled_up(key) == Some(key) => past(key),
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
        let at = self.prefix.len() + key.strip_prefix(self.prefix.as_str())?.find(delimiter)?;
        Some(&key[..at + delimiter.len()])
    }

    pub(super) fn page<K: SortedKeys<Meta: Versioned>>(&self, keys: &K) -> Page<K::Meta> {
        if self.is_unordered { self.unordered(keys) } else { self.ordered(keys, self.start(), self.max_keys) }
    }

    /// A common prefix is listed if any key behind the start rolls up into it.
    fn ordered<K: SortedKeys<Meta: Versioned>>(
        &self,
        keys: &K,
        mut from: Bound<Vec<u8>>,
        max_keys: usize,
    ) -> Page<K::Meta> {
        let mut page = Page::empty();
        if max_keys == 0 {
            return page;
        }
        let mut last_is_prefix = false;
        // Versions of the marker's own key that have been listed before.
        let mut listed_before = self.version_id_marker.as_deref().zip(self.start_after.as_deref());
        loop {
            let mut rolled_up = None;
            page.truncated = false;
            keys.walk(from.as_ref().map(Vec::as_slice), |key, meta| {
                if !key.starts_with(&self.prefix) {
                    return false;
                }
                match listed_before {
                    Some((last, of)) if of == key => {
                        if meta.version().id() == last {
                            listed_before = None;
                        }
                        return true;
                    }
                    _ => {}
                }
                page.truncated = page.len() == max_keys;
                if page.truncated {
                    return false;
                }
                rolled_up = self.rolled_up(key).map(str::to_owned);
                if rolled_up.is_none() {
                    let text = page.push_text(key);
                    page.contents.push((text, meta.clone()));
                    last_is_prefix = false;
                }
                rolled_up.is_none()
            });
            let Some(prefix) = rolled_up else { break };
            from = past(&prefix);
            let text = page.push_text(&prefix);
            page.common_prefixes.push(text);
            last_is_prefix = true;
        }
        if page.truncated {
            page.next = match (last_is_prefix, page.contents.last(), page.common_prefixes.last()) {
                (true, _, Some(prefix)) => Some(Resume::PastPrefix(page.text[prefix.clone()].to_owned())),
                (_, Some((key, meta)), _) => {
                    let version = (self.kind == Kind::Versions).then(|| meta.version().id().to_owned());
                    Some(Resume::After { key: page.text[key.clone()].to_owned(), version })
                }
                _ => None,
            };
        }
        page
    }

    /// Lists all there is, for each page anew, in an order that follows from the keys and is not theirs.
    fn unordered<K: SortedKeys<Meta: Versioned>>(&self, keys: &K) -> Page<K::Meta> {
        let all = Self { version_id_marker: None, ..self.clone() };
        let all = all.ordered(keys, Bound::Included(self.prefix.as_bytes().to_vec()), usize::MAX);
        let Page { text, contents, common_prefixes, .. } = all;
        let mut items: Vec<_> = contents
            .into_iter()
            .map(|(key, meta)| Item::Object(key, meta))
            .chain(common_prefixes.into_iter().map(Item::Prefix))
            .collect();
        // Stable, so that the versions of a key stay in their order.
        items.sort_by_cached_key(|item| scattered(&text[item.text()]));
        let start = match (&self.token, &self.start_after) {
            (Some((_, Resume::Behind(count))), _) => *count,
            // Directory buckets know no `start-after`, and the markers of others stand somewhere.
            (None, Some(marker)) if self.kind != Kind::V2 => {
                let is_marker = |item: &Item<K::Meta>| {
                    let is_version = |wanted: &String| match item {
                        Item::Object(_, meta) => meta.version().id() == wanted,
                        Item::Prefix(_) => false,
                    };
                    &text[item.text()] == marker && self.version_id_marker.as_ref().is_none_or(is_version)
                };
                items.iter().rposition(is_marker).map_or(0, |at| at + 1)
            }
            _ => 0,
        };
        let end = items.len().min(start.saturating_add(self.max_keys));
        let mut page = Page { text, ..Page::empty() };
        page.truncated = self.max_keys > 0 && end < items.len();
        if page.truncated {
            page.next = match (self.kind, &items[end - 1]) {
                (Kind::V2, _) => Some(Resume::Behind(end)),
                (_, Item::Prefix(prefix)) => Some(Resume::PastPrefix(page.text[prefix.clone()].to_owned())),
                (_, Item::Object(key, meta)) => Some(Resume::After {
                    key: page.text[key.clone()].to_owned(),
                    version: (self.kind == Kind::Versions).then(|| meta.version().id().to_owned()),
                }),
            };
        }
        for item in items.into_iter().take(end).skip(start) {
            match item {
                Item::Object(key, meta) => page.contents.push((key, meta)),
                Item::Prefix(prefix) => page.common_prefixes.push(prefix),
            }
        }
        page
    }

    /// What a broken server makes of a page.
    pub(super) fn spoil<M>(&self, page: &mut Page<M>, effects: &ListingEffects) {
        if effects.out_of_order && page.contents.len() > 1 {
            let last = page.contents.len() - 1;
            page.contents.swap(0, last);
        }
        if effects.empty {
            page.contents.clear();
            page.common_prefixes.clear();
        }
        if effects.empty || effects.repeated_token {
            page.truncated = true;
            page.next = Some(Resume::Again(self.start_after.clone().unwrap_or_default()));
        }
        if effects.without_token {
            page.truncated = true;
            page.next = None;
        }
    }

    pub(super) fn render<M: Listed>(&self, bucket: &str, page: &Page<M>) -> String {
        let mut out = String::with_capacity(1024 + 400 * page.contents.len());
        out.push_str(DECLARATION);
        let root = match self.kind {
            Kind::Versions => "ListVersionsResult",
            Kind::V1 | Kind::V2 => "ListBucketResult",
        };
        let _ = write!(out, "<{root}{NAMESPACE}");
        element(&mut out, "Name", bucket);
        self.encoded(&mut out, "Prefix", &self.prefix);
        match self.kind {
            Kind::V1 => self.push_markers(&mut out, page.next.as_ref()),
            Kind::V2 => self.push_tokens(&mut out, page.next.as_ref(), page.len()),
            Kind::Versions => self.push_version_markers(&mut out, page.next.as_ref()),
        }
        let _ = write!(out, "<MaxKeys>{}</MaxKeys>", self.max_keys);
        if let Some(delimiter) = &self.delimiter {
            self.encoded(&mut out, "Delimiter", delimiter);
        }
        if self.url_encoded {
            element(&mut out, "EncodingType", "url");
        }
        let _ = write!(out, "<IsTruncated>{}</IsTruncated>", page.truncated);
        let mut time = TimeText::default();
        for (key, meta) in &page.contents {
            let key = &page.text[key.clone()];
            match self.kind {
                Kind::Versions => self.push_version(&mut out, key, meta, &mut time),
                Kind::V1 | Kind::V2 => {
                    out.push_str("<Contents><Key>");
                    self.push_encoded(&mut out, key);
                    out.push_str("</Key>");
                    push_meta(&mut out, meta, &mut time);
                    if self.kind == Kind::V1 {
                        out.push_str(OWNER);
                    }
                    out.push_str("<StorageClass>STANDARD</StorageClass></Contents>");
                }
            }
        }
        for prefix in &page.common_prefixes {
            out.push_str("<CommonPrefixes>");
            self.encoded(&mut out, "Prefix", &page.text[prefix.clone()]);
            out.push_str("</CommonPrefixes>");
        }
        let _ = write!(out, "</{root}>");
        out
    }

    /// `NextMarker` comes only with a delimiter: without one, the last key is the next marker.
    fn push_markers(&self, out: &mut String, next: Option<&Resume>) {
        self.encoded(out, "Marker", self.start_after.as_deref().unwrap_or_default());
        match next {
            Some(Resume::After { key, .. }) if self.delimiter.is_some() => self.encoded(out, "NextMarker", key),
            Some(Resume::PastPrefix(text) | Resume::Again(text)) => self.encoded(out, "NextMarker", text),
            _ => {}
        }
    }

    fn push_tokens(&self, out: &mut String, next: Option<&Resume>, count: usize) {
        if let Some(start_after) = &self.start_after {
            self.encoded(out, "StartAfter", start_after);
        }
        let token = self.token.as_ref().map(|(token, _)| token.as_str());
        if let Some(token) = token {
            element(out, "ContinuationToken", token);
        }
        match (next, token) {
            (Some(Resume::Again(_)), Some(token)) => element(out, "NextContinuationToken", token),
            (Some(resume), _) => element(out, "NextContinuationToken", &resume.to_token()),
            (None, _) => {}
        }
        let _ = write!(out, "<KeyCount>{count}</KeyCount>");
    }

    fn push_version_markers(&self, out: &mut String, next: Option<&Resume>) {
        self.encoded(out, "KeyMarker", self.start_after.as_deref().unwrap_or_default());
        element(out, "VersionIdMarker", self.version_id_marker.as_deref().unwrap_or_default());
        let (key, version) = match next {
            Some(Resume::After { key, version }) => (key, version.as_ref()),
            Some(Resume::PastPrefix(prefix)) => (prefix, None),
            Some(Resume::Again(start)) => (start, self.version_id_marker.as_ref()),
            Some(Resume::Behind(_)) | None => return,
        };
        self.encoded(out, "NextKeyMarker", key);
        if let Some(version) = version {
            element(out, "NextVersionIdMarker", version);
        }
    }

    fn push_version(&self, out: &mut String, key: &str, meta: &impl Listed, time: &mut TimeText) {
        let version = meta.version();
        let name = if version.is_delete_marker { "DeleteMarker" } else { "Version" };
        let _ = write!(out, "<{name}><Key>");
        self.push_encoded(out, key);
        out.push_str("</Key>");
        element(out, "VersionId", version.id());
        let _ = write!(out, "<IsLatest>{}</IsLatest>", version.is_latest);
        if version.is_delete_marker {
            out.push_str("<LastModified>");
            time.push(out, meta.last_modified());
            let _ = write!(out, "</LastModified>{OWNER}</{name}>");
        } else {
            push_meta(out, meta, time);
            let _ = write!(out, "{OWNER}<StorageClass>STANDARD</StorageClass></{name}>");
        }
    }

    fn encoded(&self, out: &mut String, name: &str, text: &str) {
        let _ = write!(out, "<{name}>");
        self.push_encoded(out, text);
        let _ = write!(out, "</{name}>");
    }

    fn push_encoded(&self, out: &mut String, text: &str) {
        if self.url_encoded { form_encode(out, text) } else { escape(out, text) }
    }
}

fn push_meta(out: &mut String, meta: &impl Listed, time: &mut TimeText) {
    out.push_str("<LastModified>");
    time.push(out, meta.last_modified());
    out.push_str("</LastModified><ETag>&quot;");
    meta.push_etag(out);
    out.push_str("&quot;</ETag><Size>");
    let _ = write!(out, "{}", meta.size());
    out.push_str("</Size>");
}

/// Where a text stands in an order that nobody would call one (FNV-1a).
fn scattered(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Neighbours in a listing often share their day.
#[derive(Default)]
struct TimeText {
    /// Days since 1970.
    day: Option<i64>,
    date: String,
}

impl TimeText {
    fn push(&mut self, out: &mut String, at: i64) {
        let (day, second) = (at.div_euclid(86_400), at.rem_euclid(86_400));
        if self.day != Some(day) {
            self.day = Some(day);
            let at = Timestamp::from_second(at).unwrap_or(Timestamp::UNIX_EPOCH);
            self.date = at.strftime("%Y-%m-%dT").to_string();
        }
        out.push_str(&self.date);
        for (number, behind) in [(second / 3600, ':'), (second / 60 % 60, ':'), (second % 60, '.')] {
            out.extend([b'0' + (number / 10) as u8, b'0' + (number % 10) as u8].map(char::from));
            out.push(behind);
        }
        out.push_str("000Z");
    }
}
