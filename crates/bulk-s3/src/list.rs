//! ListObjectsV2: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>.

use std::borrow::Cow;

use bulk_core::{ETag, Event, retry};
use futures::{Stream, TryStreamExt};
use jiff::Timestamp;
use quick_xml::Reader;
use quick_xml::events::Event as Xml;

use crate::{Bucket, Error, Object};

/// Pages without keys that may follow one another.
const EMPTY_PAGES: u32 = 1000;
/// Characters of an answer that is no listing, in the message that says so.
const EXCERPT: usize = 100;
/// A page of 1,000 keys of 1,024 bytes, each byte percent-encoded, takes less.
const PAGE_LIMIT: usize = 8 * 1024 * 1024;

impl Bucket {
    /// Streams the objects whose keys start with `prefix`, in the server's order (for AWS: by UTF-8 bytes), over all
    /// pages. Pages are fetched one after another, as they are read; dropping the stream stops it.
    ///
    /// # Errors
    ///
    /// An item that is an error is the last one: a request that failed for good, an answer that is no listing, or a
    /// listing that might never end. For the latter, each page must bring a key that is greater than all before it, by
    /// UTF-8 bytes; the order within pages is free. A page without keys may name another one, but no more than 1,000
    /// such pages may follow one another. S3 sorts the keys of general purpose buckets; of a server that does not sort
    /// at all, as S3's directory buckets, listings of one page (1,000 keys) can be read.
    pub fn list(&self, prefix: &str) -> impl Stream<Item = Result<Object, Error>> + Send + use<> {
        let first = Cursor { bucket: self.clone(), prefix: prefix.to_owned(), token: None, greatest: None, empty: 0 };
        let pages = futures::stream::try_unfold(Some(first), |cursor| async move {
            let Some(cursor) = cursor else { return Ok(None) };
            let page = cursor.bucket.page(&cursor.prefix, cursor.token.as_deref()).await?;
            let location = format!("{}/{}", cursor.bucket.location_of_bucket(), cursor.prefix);
            let (objects, next) = cursor.advance(page).map_err(|what| Error::Listing { location, what })?;
            Ok::<_, Error>(Some((futures::stream::iter(objects.into_iter().map(Ok)), next)))
        });
        pages.try_flatten()
    }

    async fn page(&self, prefix: &str, token: Option<&str>) -> Result<Page, Error> {
        // In the order of their names, as a signature sorts them.
        let mut query = Vec::with_capacity(4);
        query.extend(token.map(|token| ("continuation-token", token)));
        query.extend([("encoding-type", "url"), ("list-type", "2"), ("prefix", prefix)]);
        let url = self.url("", &query)?;
        let location = format!("{}/{prefix}", self.location_of_bucket());
        let on_retry = |attempt, delay, error: &bulk_core::Error| {
            self.observer.event(&Event::Retry { name: &location, attempt, delay, error });
        };
        let body = retry(&self.retry, on_retry, || async {
            let headers = match self.sign(&url).await {
                Ok(headers) => headers,
                Err(error) => return (Err(error), false),
            };
            (self.client.read(&url, headers, PAGE_LIMIT).await, false)
        })
        .await?;
        Page::parse(&body).map_err(|what| Error::Listing { location, what })
    }
}

/// A place between two pages.
struct Cursor {
    bucket: Bucket,
    prefix: String,
    token: Option<String>,
    /// The greatest key of all pages so far.
    greatest: Option<String>,
    /// Pages without keys since the last one with some.
    empty: u32,
}

impl Cursor {
    /// The objects of the page here, and the place behind it if there is one.
    fn advance(self, page: Page) -> Result<(Vec<Object>, Option<Self>), String> {
        let brought = page.objects.iter().map(|object| &object.key).max();
        let (greatest, empty) = match (brought, self.greatest) {
            (None, greatest) => (greatest, self.empty + 1),
            (Some(brought), Some(greatest)) if *brought <= greatest => {
                return Err(format!("a page brings no key greater than {greatest:?}, which came before"));
            }
            (Some(brought), _) => (Some(brought.clone()), 0),
        };
        let next = match (page.truncated, page.next_token) {
            (false, _) => None,
            (true, None) => return Err("a page says that more follows, but not how to ask for it".to_owned()),
            (true, next) if next == self.token => return Err("a page names itself as the next one".to_owned()),
            (true, _) if empty > EMPTY_PAGES => {
                return Err(format!("more than {EMPTY_PAGES} pages in a row have no keys"));
            }
            (true, token) => Some(Self { token, greatest, empty, ..self }),
        };
        Ok((page.objects, next))
    }
}

#[derive(Debug, Default, PartialEq)]
struct Page {
    objects: Vec<Object>,
    truncated: bool,
    next_token: Option<String>,
}

impl Page {
    /// Pulls the few elements that matter out of the XML; no tree is built.
    fn parse(body: &[u8]) -> Result<Self, String> {
        let mut reader = Reader::from_reader(body);
        reader.config_mut().expand_empty_elements = true;
        let mut is_listing = false;
        let mut page = Self::default();
        let mut url_encoded = false;
        let mut path: Vec<Vec<u8>> = Vec::new();
        let mut text = String::new();
        let mut object: Option<Object> = None;
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
                Xml::Text(text) if path.is_empty() && text.trim_ascii().is_empty() => {}
                Xml::Text(_) | Xml::CData(_) | Xml::GeneralRef(_) if path.is_empty() => return Err(no_listing(body)),
                Xml::Start(start) => {
                    let name = start.local_name().as_ref().to_vec();
                    if path.is_empty() {
                        if is_listing || name != b"ListBucketResult" {
                            return Err(no_listing(body));
                        }
                        is_listing = true;
                    }
                    if path.len() == 1 && name == b"Contents" {
                        object = Some(Object::new(String::new(), 0));
                    }
                    path.push(name);
                    text.clear();
                }
                Xml::Text(part) => text.push_str(&part.decode().map_err(|error| broken(&reader, &error))?),
                Xml::CData(part) => text.push_str(&part.decode().map_err(|error| broken(&reader, &error))?),
                Xml::GeneralRef(entity) => {
                    let resolved = match entity.resolve_char_ref() {
                        Ok(Some(char)) => char.to_string(),
                        _ => match &*entity.decode().map_err(|error| broken(&reader, &error))? {
                            "amp" => "&".to_owned(),
                            "lt" => "<".to_owned(),
                            "gt" => ">".to_owned(),
                            "quot" => "\"".to_owned(),
                            "apos" => "'".to_owned(),
                            other => return Err(format!("it has an unknown entity &{other};")),
                        },
                    };
                    text.push_str(&resolved);
                }
                Xml::End(_) => {
                    let names: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
                    match (&names[..], &mut object) {
                        ([_, b"IsTruncated"], _) => page.truncated = text.trim() == "true",
                        ([_, b"NextContinuationToken"], _) => page.next_token = Some(std::mem::take(&mut text)),
                        ([_, b"EncodingType"], _) => url_encoded = text.trim() == "url",
                        ([_, b"Contents"], _) => page.objects.extend(object.take()),
                        ([_, b"Contents", field], Some(object)) => set_field(object, field, &text)?,
                        _ => {}
                    }
                    path.pop();
                    text.clear();
                }
                Xml::Eof if !is_listing => return Err(no_listing(body)),
                Xml::Eof if path.is_empty() => break,
                Xml::Eof => return Err("it ends in the middle".to_owned()),
                _ => {}
            }
        }
        if url_encoded {
            for object in &mut page.objects {
                object.key = decode_key(&object.key)?;
            }
        }
        if page.objects.iter().any(|object| object.key.is_empty()) {
            return Err("it has an object without a key".to_owned());
        }
        Ok(page)
    }
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

fn set_field(object: &mut Object, field: &[u8], text: &str) -> Result<(), String> {
    match field {
        b"Key" => text.clone_into(&mut object.key),
        b"Size" => object.size = text.trim().parse().map_err(|_| format!("it has an object of size {text:?}"))?,
        b"ETag" => object.etag = Some(ETag::new(text)),
        b"LastModified" => object.last_modified = text.trim().parse::<Timestamp>().ok(),
        _ => {}
    }
    Ok(())
}

/// S3 encodes keys as HTML forms do: a space is `+`, a plus is `%2B`.
fn decode_key(encoded: &str) -> Result<String, String> {
    let spaced: Cow<'_, str> = if encoded.contains('+') { encoded.replace('+', " ").into() } else { encoded.into() };
    percent_encoding::percent_decode_str(&spaced)
        .decode_utf8()
        .map(Cow::into_owned)
        .map_err(|_| format!("the key {encoded:?} is no UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_parsed() {
        let body = br#"<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><EncodingType>url</EncodingType>
<IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b+c=</NextContinuationToken>
<Contents><Key>a//b+%2B%25%01</Key><LastModified>2026-07-01T00:00:00.000Z</LastModified>
<ETag>&quot;d41d8cd9-3&quot;</ETag><Size>14</Size><Owner><ID>Key</ID></Owner></Contents>
<CommonPrefixes><Prefix>x/</Prefix></CommonPrefixes></ListBucketResult>"#;
        let page = Page::parse(body).unwrap();
        assert!(page.truncated);
        assert_eq!(page.next_token.as_deref(), Some("a&b+c="));
        let [object] = &page.objects[..] else { panic!("{page:?}") };
        assert_eq!(object.key, "a//b +%\u{1}");
        assert_eq!((object.size, object.etag.as_ref().unwrap().as_str()), (14, "d41d8cd9-3"));
        assert_eq!(object.last_modified.unwrap().as_second(), 1_782_864_000);
    }

    #[test]
    fn an_empty_listing_has_no_contents() {
        for body in [
            "<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>",
            "<ListBucketResult/>",
            "\n<a:ListBucketResult xmlns:a=\"urn:any\"></a:ListBucketResult>\n",
        ] {
            assert_eq!(Page::parse(body.as_bytes()), Ok(Page::default()), "{body}");
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
            (
                "<ListBucketResult><Contents><Key>a</Key><Size>x</Size></Contents></ListBucketResult>",
                "it has an object of size \"x\"",
            ),
            ("<ListBucketResult><Contents></Contents></ListBucketResult>", "it has an object without a key"),
            ("<ListBucketResult><Contents/></ListBucketResult>", "it has an object without a key"),
        ] {
            assert_eq!(Page::parse(body.as_bytes()).unwrap_err(), expected);
        }
    }
}
