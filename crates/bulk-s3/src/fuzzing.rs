//! What the fuzz targets reach of the inside (feature `fuzzing`): no part of the API.

use std::sync::OnceLock;
use std::time::Duration;

use bulk_core::{HttpClient, Pace};
use bytes::Bytes;

use crate::list::{Cursor, Fetched};
use crate::page::{RawPage, parse_quickly};
use crate::upload_note::UploadNote;
use crate::{Bucket, BucketOptions, Error, KeyFilter, Object};

/// What the quick reader finds in a page, if it knows all that stands there.
pub fn read_quickly(body: &str) -> Option<Vec<String>> {
    parse_quickly(body).map(|page| page.facts())
}

/// What the parser of XML finds in a page.
///
/// # Errors
///
/// Why it is none, in words.
pub fn read_as_xml(body: &[u8]) -> Result<Vec<String>, String> {
    RawPage::parse_xml(body).map(|page| page.facts())
}

/// The objects of a page, as a listing gives them; `None` if the listing asks again in another way.
///
/// # Errors
///
/// Why it is none, in words.
pub fn read_objects(body: &[u8]) -> Result<Option<Vec<Object>>, String> {
    // A client takes longer to make than a page to read.
    static CLIENT: OnceLock<Option<HttpClient>> = OnceLock::new();
    let mut options = BucketOptions::default();
    options.client.clone_from(CLIENT.get_or_init(|| HttpClient::new().ok()));
    // A bucket remembers how its server speaks.
    let bucket = Bucket::new("b", options).map_err(|error| error.to_string())?;
    let mut cursor = Cursor::new(bucket, "", None, Pace::new(1, Duration::ZERO));
    match cursor.read(&Bytes::copy_from_slice(body), &KeyFilter::all()) {
        Ok(Fetched::Page(page)) => Ok(Some(page.objects.iter().map(Object::from).collect())),
        Ok(_) => Ok(None),
        Err(Error::Listing { what, .. }) => Err(what),
        Err(error) => Err(error.to_string()),
    }
}

/// The note of an upload, written again.
pub fn rewrite_upload_note(bytes: &[u8]) -> Option<Vec<u8>> {
    UploadNote::parse(bytes).map(|note| note.to_bytes())
}
