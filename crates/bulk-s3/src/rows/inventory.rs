use std::io::{BufRead, BufReader, Read};

use jiff::Timestamp;

use super::csv::{Fault, Records};
use super::{ObjectReader, check_versions, other_bucket};
use crate::counted::counted;
use crate::page::decode_url;
use crate::{Batch, Error, ObjectRef};

/// The columns that are read, as `fileSchema` names them
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory.html>).
const COLUMNS: [&str; 7] = ["Bucket", "Key", "ETag", "Size", "LastModifiedDate", "IsLatest", "IsDeleteMarker"];

/// Reads objects of a CSV file of an S3 inventory: no header, keys URL-encoded. Versions that are not the current one, and
/// delete markers, are passed over; a row of another bucket is an error.
pub(crate) struct InventoryReader<R> {
    file: String,
    records: Records<BufReader<R>>,
    places: [Option<usize>; COLUMNS.len()],
    width: usize,
    bucket: String,
    /// The key of the row, decoded.
    key: String,
    passed_over: u64,
}

/// Bytes that are read at a time.
const PIECE: usize = 256 << 10;

impl<R: Read> InventoryReader<R> {
    /// A reader that has read nothing of a file with the columns of `schema`, parted by commas. `file` names it in errors.
    pub(crate) fn new(file: &str, input: R, schema: &str, bucket: &str) -> Result<Self, Error> {
        let names: Vec<&str> = schema.split(',').map(str::trim).collect();
        let has = |name| names.contains(&name);
        check_versions(has("Key"), has("VersionId"), has("IsLatest")).map_err(|what| Error::Table {
            file: file.to_owned(),
            row: None,
            byte: None,
            what,
            source: None,
        })?;
        Ok(Self {
            file: file.to_owned(),
            records: Records::new(BufReader::with_capacity(PIECE, input)),
            places: COLUMNS.map(|column| names.iter().position(|name| *name == column)),
            width: names.len(),
            bucket: bucket.to_owned(),
            key: String::new(),
            passed_over: 0,
        })
    }

    #[cold]
    fn at_row(&self, fault: Fault) -> Error {
        let (what, source) = match fault {
            Fault::Input(error) => ("it cannot be read".to_owned(), Some(Box::new(error) as _)),
            Fault::Record(what) => (what, None),
        };
        let (row, byte) = (Some(self.records.row), Some(self.records.start));
        Error::Table { file: self.file.clone(), row, byte, what, source }
    }
}

/// The object of a row; none if it is no current one. Its key is put into `decoded`.
fn object<'a, R: BufRead>(
    records: &'a Records<R>,
    places: &[Option<usize>; COLUMNS.len()],
    wanted: &str,
    decoded: &'a mut String,
) -> Result<Option<ObjectRef<'a>>, String> {
    // All fields are in quotes, so what is none is empty.
    let field = |place: Option<usize>| records.field(place?).filter(|field| !field.is_empty());
    let [bucket, key, etag, size, last_modified, is_latest, is_delete_marker] = places.map(field);
    if places[0].is_some() && bucket.unwrap_or_default() != wanted.as_bytes() {
        return Err(other_bucket(bucket.unwrap_or_default(), wanted));
    }
    fn text<'a>(column: &str, value: &'a [u8]) -> Result<&'a str, String> {
        std::str::from_utf8(value).map_err(|_| format!("its {column} is no UTF-8: {}", value.escape_ascii()))
    }
    fn parsed<T: std::str::FromStr>(column: &str, wanted: &str, value: &[u8]) -> Result<T, String> {
        let value = String::from_utf8_lossy(value);
        value.parse().map_err(|_| format!("its {column} is {value:?}, and must be {wanted}"))
    }
    let flag = |column: &str, value: &[u8]| {
        let value = value.to_ascii_lowercase();
        parsed::<bool>(column, "true or false", &value)
    };
    let is_latest = match is_latest {
        Some(value) => flag("IsLatest", value)?,
        None if places[5].is_some() => return Err("it does not say whether it is the current version".to_owned()),
        None => true,
    };
    let is_delete_marker = is_delete_marker.map(|value| flag("IsDeleteMarker", value)).transpose()?;
    if !is_latest || is_delete_marker == Some(true) {
        return Ok(None);
    }
    decoded.clear();
    decode_url(text("Key", key.unwrap_or_default())?, decoded)?;
    if decoded.is_empty() {
        return Err("it has no key".to_owned());
    }
    let mut object = ObjectRef::new(decoded);
    let unquoted = |etag: &'a str| etag.strip_prefix('"').and_then(|etag| etag.strip_suffix('"')).unwrap_or(etag);
    object.etag = etag.map(|etag| text("ETag", etag).map(unquoted)).transpose()?;
    object.size = size.map(|size| parsed("Size", "a number of bytes", size)).transpose()?;
    let time = |time| parsed::<Timestamp>("LastModifiedDate", "a time such as 2024-01-31T12:00:00.000Z", time);
    object.last_modified = last_modified.map(time).transpose()?;
    Ok(Some(object))
}

impl<R: Read + Send> ObjectReader for InventoryReader<R> {
    fn read(&mut self, batch: &mut Batch, limit: usize) -> Result<(), Error> {
        let mut left = limit.max(1);
        while left > 0 {
            if !self.records.next().map_err(|fault| self.at_row(fault))? {
                break;
            }
            let found = self.records.len();
            if found != self.width {
                let what = format!(
                    "it has {}, and the schema of the manifest {}",
                    counted(found, "field", "fields"),
                    self.width
                );
                return Err(self.at_row(Fault::Record(what)));
            }
            match object(&self.records, &self.places, &self.bucket, &mut self.key) {
                Ok(Some(object)) => {
                    batch.push(object);
                    left -= 1;
                }
                Ok(None) => self.passed_over += 1,
                Err(what) => return Err(self.at_row(Fault::Record(what))),
            }
        }
        Ok(())
    }

    fn passed_over(&self) -> u64 {
        self.passed_over
    }
}
