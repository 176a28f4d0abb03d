//! ListObjectsV2: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>.

use std::borrow::Cow;

use bulk_core::{ETag, Event, retry};
use futures::{Stream, TryStreamExt};
use jiff::Timestamp;
use quick_xml::Reader;
use quick_xml::events::Event as Xml;

use crate::{Bucket, Error, Object};

/// A page of 1,000 keys of 1,024 bytes, each byte percent-encoded, takes less.
const PAGE_LIMIT: usize = 8 * 1024 * 1024;

impl Bucket {
    /// Streams the objects whose keys start with `prefix`, in the server's order (for AWS: by UTF-8 bytes), over all
    /// pages. Pages are fetched one after another, as they are read; dropping the stream stops it.
    ///
    /// # Errors
    ///
    /// An item that is an error is the last one: a request that failed for good, an answer that is no listing, or one
    /// that would never end (a page token given twice, or a page that says that more follows without one).
    pub fn list(&self, prefix: &str) -> impl Stream<Item = Result<Object, Error>> + Send + use<> {
        let pages =
            futures::stream::try_unfold(Some((self.clone(), prefix.to_owned(), None::<String>)), |state| async move {
                let Some((bucket, prefix, token)) = state else { return Ok(None) };
                let page = bucket.page(&prefix, token.as_deref()).await?;
                let unusable = |what: &str| Error::Listing {
                    location: format!("{}/{prefix}", bucket.location_of_bucket()),
                    what: what.to_owned(),
                };
                let next = match (page.truncated, page.next_token) {
                    (false, _) => None,
                    (true, None) => return Err(unusable("a page says that more follows, but not how to ask for it")),
                    (true, next) if next == token => return Err(unusable("a page names itself as the next one")),
                    (true, next) => Some((bucket, prefix, next)),
                };
                let objects = futures::stream::iter(page.objects.into_iter().map(Ok));
                Ok::<_, Error>(Some((objects, next)))
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
        let mut page = Self::default();
        let mut url_encoded = false;
        let mut path: Vec<Vec<u8>> = Vec::new();
        let mut text = String::new();
        let mut object: Option<Object> = None;
        let broken = |reader: &Reader<&[u8]>, error: &dyn std::fmt::Display| {
            format!("its XML is broken at byte {}: {error}", reader.error_position())
        };
        loop {
            match reader.read_event().map_err(|error| broken(&reader, &error))? {
                Xml::Start(start) => {
                    let name = start.local_name().as_ref().to_vec();
                    if path.is_empty() && name != b"ListBucketResult" {
                        let name = String::from_utf8_lossy(&name).into_owned();
                        return Err(format!("it is a <{name}> document, not a <ListBucketResult>"));
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
                Xml::Eof if path.is_empty() && reader.buffer_position() > 0 => break,
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
        assert_eq!(Page::parse(b"<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>"), Ok(Page::default()));
    }

    #[test]
    fn what_is_no_listing_is_refused() {
        for (body, expected) in [
            (&b"<html><body>hello</body></html>"[..], "it is a <html> document, not a <ListBucketResult>"),
            (b"<ListBucketResult><Contents>", "it ends in the middle"),
            (b"", "it ends in the middle"),
            (
                b"<ListBucketResult><Contents><Key>a</Key><Size>x</Size></Contents></ListBucketResult>",
                "it has an object of size \"x\"",
            ),
            (b"<ListBucketResult><Contents></Contents></ListBucketResult>", "it has an object without a key"),
        ] {
            assert_eq!(Page::parse(body).unwrap_err(), expected);
        }
    }
}
