//! One page of a listing: what stands in its XML.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>, and its relatives ListObjects and
//! ListObjectVersions.
//!
//! Two readers of the same XML. The quick one knows how servers write it: elements without attributes, one behind another.
//! It goes over a page with one search for `<` in each element, and gives up at whatever it does not expect. Then the
//! other one, a real parser of XML, has the word: it reads all that XML allows, and alone says what an error is.

use std::borrow::Cow;

use memchr::memchr;
use quick_xml::Reader;
use quick_xml::events::Event;

/// Characters of an answer that is no listing, in the message that says so.
const EXCERPT: usize = 100;
/// Levels of a listing's XML: it has four, and each end of an element looks at all that it is in.
const DEEPEST: usize = 16;

/// What stands in a page, as it stands there: nothing is decoded that nobody has asked for.
#[derive(Debug, Default)]
pub(crate) struct RawPage<'a> {
    pub(crate) objects: Vec<RawObject<'a>>,
    pub(crate) common_prefixes: Vec<Text<'a>>,
    pub(crate) is_truncated: bool,
    /// The token that asks for the next page of ListObjectsV2.
    pub(crate) next_token: Option<Text<'a>>,
    /// Where the next page of ListObjects begins, if it says so.
    pub(crate) next_marker: Option<Text<'a>>,
    pub(crate) next_key_marker: Option<Text<'a>>,
    pub(crate) next_version_marker: Option<Text<'a>>,
    /// `Marker` is of ListObjects, `KeyCount` of its second version.
    has_marker: bool,
    has_key_count: bool,
    /// Whether keys are percent-encoded.
    pub(crate) is_url_encoded: bool,
}

/// One object, or one version of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawObject<'a> {
    pub(crate) key: Text<'a>,
    pub(crate) etag: Text<'a>,
    pub(crate) size: Text<'a>,
    pub(crate) last_modified: Text<'a>,
    pub(crate) version: Text<'a>,
    pub(crate) is_latest: bool,
    pub(crate) is_delete_marker: bool,
}

/// The text of an element.
#[derive(Clone, Debug, Default)]
pub(crate) enum Text<'a> {
    #[default]
    Absent,
    /// With the entities that stand in it.
    Escaped(&'a str),
    Plain(String),
}

impl<'a> Text<'a> {
    /// The text without entities; empty if it is absent.
    pub(crate) fn unescape(&self) -> Result<Cow<'_, str>, String> {
        match self {
            Self::Absent => Ok(Cow::Borrowed("")),
            Self::Plain(text) => Ok(Cow::Borrowed(text)),
            Self::Escaped(text) if memchr(b'&', text.as_bytes()).is_none() => Ok(Cow::Borrowed(text)),
            Self::Escaped(text) => unescape(text).map(Cow::Owned),
        }
    }

    /// The text as it is, if it needs no more than that: no entity stands in it.
    pub(crate) fn verbatim(&self) -> Option<&str> {
        match self {
            Self::Absent => Some(""),
            Self::Plain(text) => Some(text),
            Self::Escaped(text) => memchr(b'&', text.as_bytes()).is_none().then_some(*text),
        }
    }

    /// An ETag without the quotes around it. They are entities in S3's own XML, and stand as they are in that of others.
    pub(crate) fn unquote(&self) -> Result<Option<Cow<'_, str>>, String> {
        if let Self::Absent = self {
            return Ok(None);
        }
        if let Self::Escaped(text) = self
            && let Some(inner) = text.strip_prefix("&quot;").and_then(|text| text.strip_suffix("&quot;"))
            && memchr(b'&', inner.as_bytes()).is_none()
        {
            return Ok(Some(Cow::Borrowed(inner)));
        }
        let text = self.unescape()?;
        let strip = |text: &str| {
            let text = text.trim();
            text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).len()
        };
        Ok(Some(match text {
            Cow::Borrowed(text) if strip(text) == text.len() => Cow::Borrowed(text),
            text => Cow::Owned(bulk_core::ETag::new(&text).as_str().to_owned()),
        }))
    }

    #[cfg(any(test, feature = "fuzzing"))]
    fn owned(&self) -> Result<Option<String>, String> {
        if let Self::Absent = self { Ok(None) } else { self.unescape().map(|text| Some(text.into_owned())) }
    }
}

impl<'a> RawPage<'a> {
    /// Reads a page.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words: it is no listing, its XML is broken, it ends in the middle.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, String> {
        if let Ok(text) = simdutf8::basic::from_utf8(body)
            && let Some(page) = Scanner::new(text).page()
        {
            return Ok(page);
        }
        Self::parse_xml(body)
    }

    /// Reads all that XML allows.
    pub(crate) fn parse_xml(body: &[u8]) -> Result<Self, String> {
        let mut reader = Reader::from_reader(body);
        reader.config_mut().expand_empty_elements = true;
        let mut is_listing = false;
        let mut page = Self::default();
        let mut path: Vec<Vec<u8>> = Vec::new();
        let mut text = String::new();
        let mut object: Option<RawObject<'_>> = None;
        let broken = |reader: &Reader<&[u8]>, error: &dyn std::fmt::Display| {
            format!("its XML is broken at byte {}: {error}", reader.error_position())
        };
        loop {
            let event = match reader.read_event() {
                Err(_) if !is_listing => return Err(no_listing(body)),
                event => event.map_err(|error| broken(&reader, &error))?,
            };
            match event {
                // Only white space may stand outside the root.
                Event::Text(text) if path.is_empty() && text.trim_ascii().is_empty() => {}
                Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) if path.is_empty() => {
                    return Err(no_listing(body));
                }
                Event::Start(start) => {
                    let name = start.local_name().as_ref().to_vec();
                    if path.is_empty() {
                        if is_listing || !is_root(&name) {
                            return Err(no_listing(body));
                        }
                        is_listing = true;
                    }
                    if path.len() == 1 && is_object(&name) {
                        let is_delete_marker = name == b"DeleteMarker";
                        object = Some(RawObject { is_delete_marker, ..RawObject::default() });
                    }
                    if path.len() == DEEPEST {
                        return Err(format!("its XML has more than {DEEPEST} levels, which no listing has"));
                    }
                    path.push(name);
                    text.clear();
                }
                Event::Text(part) => text.push_str(&part.decode().map_err(|error| broken(&reader, &error))?),
                Event::CData(part) => text.push_str(&part.decode().map_err(|error| broken(&reader, &error))?),
                Event::GeneralRef(entity) => match entity.resolve_char_ref() {
                    Ok(Some(char)) => text.push(char),
                    _ => {
                        let name = entity.decode().map_err(|error| broken(&reader, &error))?;
                        text.push(named_entity(&name).ok_or_else(|| format!("it has an unknown entity &{name};"))?);
                    }
                },
                Event::End(_) => {
                    let names: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
                    let mut take = || Text::Plain(std::mem::take(&mut text));
                    match (&names[..], &mut object) {
                        ([_, b"CommonPrefixes", b"Prefix"], _) => page.common_prefixes.push(take()),
                        ([_, name], _) if is_object(name) => page.objects.extend(object.take()),
                        ([_, name, field], Some(object)) if is_object(name) => object.set(field, take()),
                        ([_, field], _) => page.set(field, take()),
                        _ => {}
                    }
                    path.pop();
                    text.clear();
                }
                Event::Eof if !is_listing => return Err(no_listing(body)),
                Event::Eof if path.is_empty() => return Ok(page),
                Event::Eof => return Err("it ends in the middle".to_owned()),
                _ => {}
            }
        }
    }

    /// Whether it answers ListObjects, and not the second version of it.
    pub(crate) fn is_of_v1(&self) -> bool {
        self.has_marker && !self.has_key_count && self.next_token.is_none()
    }

    /// A text as keys are encoded here.
    pub(crate) fn decoded(&self, text: &Text<'_>) -> Result<String, String> {
        let text = text.unescape()?;
        if !self.is_url_encoded {
            return Ok(text.into_owned());
        }
        let mut decoded = String::new();
        decode_url(&text, &mut decoded)?;
        Ok(decoded)
    }

    /// What an element of the listing itself says.
    fn set(&mut self, name: &[u8], text: Text<'a>) {
        let is = |wanted: &str| text.verbatim().is_some_and(|text| text.trim() == wanted);
        match name {
            b"IsTruncated" => self.is_truncated = is("true"),
            b"EncodingType" => self.is_url_encoded = is("url"),
            b"NextContinuationToken" => self.next_token = Some(text),
            b"NextMarker" => self.next_marker = Some(text).filter(|text| text.verbatim() != Some("")),
            b"NextKeyMarker" => self.next_key_marker = Some(text).filter(|text| text.verbatim() != Some("")),
            b"NextVersionIdMarker" => self.next_version_marker = Some(text).filter(|text| text.verbatim() != Some("")),
            b"Marker" => self.has_marker = true,
            b"KeyCount" => self.has_key_count = true,
            _ => {}
        }
    }
}

impl<'a> RawObject<'a> {
    fn set(&mut self, name: &[u8], text: Text<'a>) {
        match name {
            b"Key" => self.key = text,
            b"ETag" => self.etag = text,
            b"Size" => self.size = text,
            b"LastModified" => self.last_modified = text,
            b"VersionId" => self.version = text,
            b"IsLatest" => self.is_latest = text.verbatim().is_some_and(|text| text.trim() == "true"),
            _ => {}
        }
    }
}

fn is_root(name: &[u8]) -> bool {
    // Ceph's versions of it are named otherwise.
    matches!(name, b"ListBucketResult" | b"ListVersionsResult" | b"ListBucketVersionsResult")
}

fn is_object(name: &[u8]) -> bool {
    matches!(name, b"Contents" | b"Version" | b"DeleteMarker")
}

fn named_entity(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => return None,
    })
}

/// Text with its entities resolved, which are few.
fn unescape(text: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr(b'&', rest.as_bytes()) {
        plain.push_str(&rest[..at]);
        let end =
            memchr(b';', &rest.as_bytes()[at..]).ok_or_else(|| format!("{text:?} has an entity without an end"))?;
        let name = &rest[at + 1..at + end];
        let resolved = match name.strip_prefix('#') {
            Some(number) => match number.strip_prefix('x') {
                Some(number) => u32::from_str_radix(number, 16),
                None => number.parse(),
            }
            .ok()
            .and_then(char::from_u32),
            None => named_entity(name),
        };
        plain.push(resolved.ok_or_else(|| format!("it has an unknown entity &{name};"))?);
        rest = &rest[at + end + 1..];
    }
    plain.push_str(rest);
    Ok(plain)
}

/// S3 encodes keys as HTML forms do: a space is `+`, a plus is `%2B`.
pub(crate) fn decode_url(encoded: &str, decoded: &mut String) -> Result<(), String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    for (number, part) in encoded.split('+').enumerate() {
        if number > 0 {
            bytes.push(b' ');
        }
        bytes.extend(percent_encoding::percent_decode_str(part));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("the key {encoded:?} is no UTF-8"))?;
    decoded.push_str(text);
    Ok(())
}

/// What came instead, shortened, on one line.
fn no_listing(body: &[u8]) -> String {
    let head = &body[..body.len().min(16 * EXCERPT)];
    let text: String = String::from_utf8_lossy(head).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = text.chars().take(EXCERPT).collect();
    match () {
        () if shown.is_empty() => "the answer is no listing: it is empty".to_owned(),
        () if shown.len() < text.len() => format!("the answer is no listing: {shown}…"),
        () => format!("the answer is no listing: {shown}"),
    }
}

/// The quick reader. `None` is not an error: it says that the other one is needed.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn page(mut self) -> Option<RawPage<'a>> {
        self.declaration()?;
        let root = self.root()?;
        let mut page = RawPage::default();
        loop {
            match self.open()? {
                Tag::Open(name) if is_object(name.as_bytes()) => {
                    let object = self.object(name)?;
                    page.objects.push(object);
                }
                Tag::Open("CommonPrefixes") => loop {
                    match self.open()? {
                        Tag::Open("Prefix") => {
                            let text = self.text_of("Prefix")?;
                            page.common_prefixes.push(Text::Escaped(text));
                        }
                        Tag::Close("CommonPrefixes") => break,
                        _ => return None,
                    }
                },
                Tag::Open(name) => {
                    let text = self.text_of(name)?;
                    page.set(name.as_bytes(), Text::Escaped(text));
                }
                Tag::Close(name) if name == root => break,
                Tag::Close(_) => return None,
            }
        }
        self.text[self.at..].trim_ascii().is_empty().then_some(page)
    }

    fn declaration(&mut self) -> Option<()> {
        self.space();
        if self.text[self.at..].starts_with("<?xml") {
            self.at += self.text[self.at..].find("?>")? + 2;
        }
        Some(())
    }

    /// Its one attribute is the namespace.
    fn root(&mut self) -> Option<&'a str> {
        self.space();
        let rest = self.text[self.at..].strip_prefix('<')?;
        let end = memchr(b'>', rest.as_bytes())?;
        let (name, attributes) = rest[..end].split_once(' ').unwrap_or((&rest[..end], ""));
        self.at += end + 2;
        (is_root(name.as_bytes()) && !attributes.ends_with('/')).then_some(name)
    }

    fn object(&mut self, element: &str) -> Option<RawObject<'a>> {
        let mut object = RawObject { is_delete_marker: element == "DeleteMarker", ..RawObject::default() };
        loop {
            match self.open()? {
                Tag::Open(name @ ("Owner" | "RestoreStatus")) => self.skip(name)?,
                Tag::Open(name) => {
                    let text = self.text_of(name)?;
                    object.set(name.as_bytes(), Text::Escaped(text));
                }
                Tag::Close(name) if name == element => return Some(object),
                Tag::Close(_) => return None,
            }
        }
    }

    /// The next tag, which only white space may separate from the last one.
    fn open(&mut self) -> Option<Tag<'a>> {
        self.space();
        let bytes = self.text.as_bytes();
        if bytes.get(self.at) != Some(&b'<') {
            return None;
        }
        let (start, is_close) = match bytes.get(self.at + 1)? {
            b'/' => (self.at + 2, true),
            _ => (self.at + 1, false),
        };
        // A name is short, and letters: a loop finds its end sooner than a search.
        let length = bytes[start..].iter().position(|byte| !byte.is_ascii_alphanumeric())?;
        if bytes[start + length] != b'>' || length == 0 {
            return None;
        }
        self.at = start + length + 1;
        let name = &self.text[start..start + length];
        Some(if is_close { Tag::Close(name) } else { Tag::Open(name) })
    }

    /// The text up to the tag that closes `name`.
    fn text_of(&mut self, name: &str) -> Option<&'a str> {
        let rest = &self.text[self.at..];
        let end = memchr(b'<', rest.as_bytes())?;
        let tag = rest[end..].strip_prefix("</")?.strip_prefix(name)?.strip_prefix('>')?;
        self.at = self.text.len() - tag.len();
        Some(&rest[..end])
    }

    /// Passes over an element with elements in it.
    fn skip(&mut self, name: &str) -> Option<()> {
        loop {
            match self.open()? {
                Tag::Open(inner) => drop(self.text_of(inner)?),
                Tag::Close(closed) if closed == name => return Some(()),
                Tag::Close(_) => return None,
            }
        }
    }

    fn space(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(self.at) {
            self.at += 1;
        }
    }
}

enum Tag<'a> {
    Open(&'a str),
    Close(&'a str),
}

/// What the quick reader makes of a page.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn parse_quickly(body: &str) -> Option<RawPage<'_>> {
    Scanner::new(body).page()
}

#[cfg(any(test, feature = "fuzzing"))]
impl RawPage<'_> {
    /// What both readers are to find, without the difference between texts that are escaped and those that are not.
    pub(crate) fn facts(&self) -> Vec<String> {
        let text = |text: &Text<'_>| format!("{:?}", text.owned());
        let option = |option: &Option<Text<'_>>| format!("{:?}", option.as_ref().map(text));
        let mut found = vec![format!("{} {} {}", self.is_truncated, self.is_url_encoded, self.is_of_v1())];
        found.extend(
            [&self.next_token, &self.next_marker, &self.next_key_marker, &self.next_version_marker].map(option),
        );
        found.extend(self.common_prefixes.iter().map(text));
        for object in &self.objects {
            let fields = [&object.key, &object.etag, &object.size, &object.last_modified, &object.version].map(text);
            found.push(format!(
                "{fields:?} {:?} {} {}",
                object.etag.unquote(),
                object.is_latest,
                object.is_delete_marker
            ));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::parse_quickly as quick;
    use super::*;

    fn plain(page: Result<RawPage<'_>, String>) -> Result<Vec<String>, String> {
        page.map(|page| page.facts())
    }

    #[test]
    fn what_nests_deeper_than_a_listing_is_refused() {
        let nested = |levels: usize| {
            let (open, close) = ("<a>".repeat(levels), "</a>".repeat(levels));
            format!("<ListBucketResult>{open}{close}<IsTruncated>false</IsTruncated></ListBucketResult>")
        };
        assert!(RawPage::parse_xml(nested(15).as_bytes()).is_ok());
        // Were it read, it would take hours.
        let refused = RawPage::parse_xml(nested(1_000_000).as_bytes()).map(|_| ()).unwrap_err();
        assert_eq!(refused, "its XML has more than 16 levels, which no listing has");
    }

    #[test]
    fn an_empty_listing_has_no_contents() {
        for body in [
            "<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>",
            "<ListBucketResult/>",
            "\n<a:ListBucketResult xmlns:a=\"urn:any\"></a:ListBucketResult>\n",
        ] {
            let page = RawPage::parse(body.as_bytes()).unwrap();
            assert!(page.objects.is_empty() && !page.is_truncated, "{body}");
        }
    }

    #[test]
    fn what_is_no_listing_is_refused() {
        let long = "word\n".repeat(1000);
        let shortened = format!("the answer is no listing: {}…", "word ".repeat(20));
        for (body, expected) in [
            ("<html><body>hello</body></html>", "the answer is no listing: <html><body>hello</body></html>"),
            ("<html/>", "the answer is no listing: <html/>"),
            ("please\r\n\tlog in", "the answer is no listing: please log in"),
            ("<?xml version=\"1.0\"?>", "the answer is no listing: <?xml version=\"1.0\"?>"),
            ("& <", "the answer is no listing: & <"),
            ("", "the answer is no listing: it is empty"),
            ("<ListBucketResult/>x", "the answer is no listing: <ListBucketResult/>x"),
            ("<ListBucketResult/><a/>", "the answer is no listing: <ListBucketResult/><a/>"),
            (&long, &shortened),
            ("<ListBucketResult><Contents>", "it ends in the middle"),
        ] {
            assert_eq!(RawPage::parse(body.as_bytes()).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_document_type_brings_in_nothing() {
        let laughs =
            "<!DOCTYPE l [<!ENTITY a \"haha\"><!ENTITY b \"&a;&a;&a;\"><!ENTITY f SYSTEM \"file:///etc/passwd\">]>";
        for entity in ["&a;", "&b;", "&f;"] {
            let body = format!(
                "{laughs}<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>{entity}</Key><Size>1</Size>\
                 </Contents></ListBucketResult>"
            );
            // What it declares is not known, wherever the page is read to.
            let keys: Result<Vec<String>, String> = RawPage::parse(body.as_bytes())
                .and_then(|page| page.objects.iter().map(|object| Ok(object.key.unescape()?.into_owned())).collect());
            assert!(keys.is_err(), "{entity}: {keys:?}");
        }
    }

    #[test]
    fn the_pages_of_servers_are_read_quickly() {
        let s3 = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
            <Name>b</Name><Prefix></Prefix><KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys><EncodingType>url</EncodingType>\
            <IsTruncated>true</IsTruncated><NextContinuationToken>1ueG&amp;=</NextContinuationToken>\
            <Contents><Key>a%2Bb</Key><LastModified>2026-07-01T00:00:00.000Z</LastModified><ETag>&quot;d4-3&quot;</ETag>\
            <ChecksumAlgorithm>CRC32</ChecksumAlgorithm><Size>14</Size><Owner><ID>1</ID><DisplayName>x</DisplayName></Owner>\
            <StorageClass>STANDARD</StorageClass></Contents><Contents><Key>b</Key><ETag>\"d5\"</ETag><Size>1</Size></Contents>\
            <CommonPrefixes><Prefix>x/</Prefix></CommonPrefixes></ListBucketResult>";
        let page = quick(s3).unwrap();
        assert_eq!(page.objects[0].etag.unquote().unwrap().unwrap(), "d4-3");
        assert_eq!(page.objects[1].etag.unquote().unwrap().unwrap(), "d5");
        assert_eq!(page.next_token.as_ref().unwrap().unescape().unwrap(), "1ueG&=");
        assert_eq!(plain(Ok(page)), plain(RawPage::parse_xml(s3.as_bytes())));
        let versions = "<ListVersionsResult><IsTruncated>false</IsTruncated><Version><Key>a</Key><VersionId>1</VersionId>\
            <IsLatest>true</IsLatest></Version><DeleteMarker><Key>a</Key><VersionId>2</VersionId></DeleteMarker>\
            </ListVersionsResult>";
        let page = quick(versions).unwrap();
        assert!(page.objects[0].is_latest && page.objects[1].is_delete_marker);
        assert_eq!(plain(Ok(page)), plain(RawPage::parse_xml(versions.as_bytes())));
    }

    #[test]
    fn what_the_quick_reader_does_not_know_goes_to_the_other() {
        for inner in [
            "<Contents><Key a=\"1\">k</Key></Contents>",
            "<Contents><Key><![CDATA[<k>]]></Key></Contents>",
            "<!-- x --><Contents><Key>k</Key></Contents>",
            "<Contents><Key/></Contents>",
            "<a:Contents xmlns:a=\"urn:a\"><a:Key>k</a:Key></a:Contents>",
            "<Other><Key>k</Key></Other>",
            "<Contents><Key>k<x/></Key></Contents>",
        ] {
            let body = format!("<ListBucketResult>{inner}</ListBucketResult>");
            assert!(quick(&body).is_none(), "{body}");
            assert!(RawPage::parse(body.as_bytes()).is_ok(), "{body}");
        }
    }

    proptest! {
        #[test]
        fn both_readers_agree(
            keys in proptest::collection::vec("([ -%\'-;=?-~é漢]|&amp;|&lt;|&#233;|&#x1;){0,12}", 0..5),
            space in "[ \n\r\t]{0,2}",
            is_truncated: bool,
            cut in proptest::option::of(0usize..400),
        ) {
            let mut body = format!("<?xml version=\"1.0\"?><ListBucketResult>{space}<IsTruncated>{is_truncated}</IsTruncated>{space}");
            for key in keys {
                body += &format!("<Contents>{space}<Key>{key}</Key><ETag>&quot;{key}&quot;</ETag>{space}<Size>1</Size></Contents>");
            }
            body += "</ListBucketResult>";
            if let Some(cut) = cut
                && body.is_char_boundary(cut.min(body.len()))
            {
                body.truncate(cut);
            }
            if let Some(page) = quick(&body) {
                prop_assert_eq!(plain(Ok(page)), plain(RawPage::parse_xml(body.as_bytes())));
            } else {
                prop_assert!(cut.is_some());
            }
        }
    }
}
