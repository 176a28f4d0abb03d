//! Objects as rows of COPY's binary format.

use bulk_pg::{CopiedRow, CopyBinary, CopyReader};
use jiff::Timestamp;
use tokio_postgres::Client;

use super::target::Target;
use super::{failed, twice, unusable, unwrap};
use crate::known::changes::signed_size;
use crate::{Batch, Error, KeyRange, KnownChange, ObjectRef};

/// 2000-01-01, from which PostgreSQL counts, in microseconds since 1970.
const EPOCH: i64 = 946_684_800_000_000;

/// The first objects of a range.
pub(super) async fn scan(
    client: &Client,
    target: &Target,
    range: &KeyRange,
    limit: usize,
    store: &str,
) -> Result<Batch, Error> {
    let failed = |error| failed(store, "read", unwrap(error));
    // One more, to see whether the key of the last one has another row.
    let mut rows = CopyReader::begin(client, &target.scan(range, limit.saturating_add(1))).await.map_err(failed)?;
    let mut batch = Batch::new();
    while let Some(mut row) = rows.next_row().await.map_err(failed)? {
        let object = object(&mut row, target, store)?;
        match batch.last() {
            Some(last) if last.key == object.key => return Err(twice(store, &target.shown, object.key)),
            Some(last) if last.key > object.key => {
                let (last, key) = (last.key, object.key);
                return Err(unusable(
                    store,
                    format!("the server sorts {key:?} behind {last:?}, which is not by bytes"),
                ));
            }
            _ if batch.len() < limit => batch.push(object),
            // The server sends no more; its last word must be heard, or the connection would have it left over.
            _ => {}
        }
    }
    Ok(batch)
}

/// The key, with which a row begins.
pub(super) fn key<'a>(row: &mut CopiedRow<'a>, store: &str) -> Result<&'a str, Error> {
    let key = row.next_field().map_err(|error| failed(store, "read", unwrap(error)))?.unwrap_or_default();
    std::str::from_utf8(key).map_err(|_| unusable(store, format!("the key {} is no UTF-8", key.escape_ascii())))
}

fn object<'a>(row: &mut CopiedRow<'a>, target: &Target, store: &str) -> Result<ObjectRef<'a>, Error> {
    let mut object = ObjectRef::new(key(row, store)?);
    let mut field = |is_there: bool| match is_there {
        true => row.next_field().map_err(|error| failed(store, "read", unwrap(error))),
        false => Ok(None),
    };
    let key = object.key;
    let bad = |what: &str| unusable(store, format!("{} has {what} for the key {key:?}", target.shown));
    if let Some(etag) = field(true)? {
        object.etag = Some(unquoted(std::str::from_utf8(etag).map_err(|_| bad("an ETag that is no UTF-8"))?));
    }
    let number = |bytes: &[u8]| bytes.try_into().map(i64::from_be_bytes).map_err(|_| bad("no number of eight bytes"));
    if let Some(size) = field(target.size.is_some())? {
        object.size = Some(u64::try_from(number(size)?).map_err(|_| bad("a size of less than nothing"))?);
    }
    if let Some(time) = field(target.last_modified.is_some())? {
        object.last_modified = match number(time)? {
            // Either infinity.
            i64::MIN | i64::MAX => None,
            time => {
                let time = time.checked_add(EPOCH).and_then(|time| Timestamp::from_microsecond(time).ok());
                Some(time.ok_or_else(|| bad("a time beyond the year 9999"))?)
            }
        };
    }
    if let Some(content) = field(target.content.is_some())? {
        object.content = Some(content.try_into().map_err(|_| bad("a digest that is none of 32 bytes"))?);
    }
    Ok(object)
}

/// An ETag without the quotes that others may have stored with it, as [`bulk_core::ETag`] reads it.
fn unquoted(etag: &str) -> &str {
    let etag = etag.trim();
    etag.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(etag)
}

/// Changes as rows: key, ETag, size, time, digest, and whether the object is removed.
pub(super) fn encode(changes: &[KnownChange<'_>]) -> Vec<u8> {
    let mut rows = CopyBinary::HEADER.to_vec();
    for change in changes {
        let (object, is_removed) = match *change {
            KnownChange::Set(object) => (object, false),
            // What no table can hold is in none.
            KnownChange::Remove(key) if key.contains('\0') => continue,
            KnownChange::Remove(key) => (ObjectRef::new(key), true),
        };
        rows.extend_from_slice(&6_i16.to_be_bytes());
        put(&mut rows, Some(object.key.as_bytes()));
        put(&mut rows, object.etag.map(str::as_bytes));
        // Checked before.
        put(
            &mut rows,
            object.size.and_then(|size| signed_size(size).ok()).map(i64::to_be_bytes).as_ref().map(|size| &size[..]),
        );
        let time = object.last_modified.map(|time| (time.as_microsecond() - EPOCH).to_be_bytes());
        put(&mut rows, time.as_ref().map(|time| &time[..]));
        put(&mut rows, object.content.as_ref().map(|content| &content[..]));
        put(&mut rows, Some(&[u8::from(is_removed)]));
    }
    rows.extend_from_slice(&CopyBinary::TRAILER);
    rows
}

fn put(rows: &mut Vec<u8>, value: Option<&[u8]>) {
    let len = value.map_or(-1, |value| i32::try_from(value.len()).unwrap_or(i32::MAX));
    rows.extend_from_slice(&len.to_be_bytes());
    rows.extend_from_slice(value.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::unquoted;

    #[test]
    fn quotes_are_not_part_of_an_etag() {
        for (stored, etag) in [("\"abc-3\"", "abc-3"), ("abc", "abc"), ("\"", "\""), ("W/\"x\"", "W/\"x\""), ("", "")] {
            assert_eq!(unquoted(stored), etag);
            assert_eq!(bulk_core::ETag::new(stored).as_str(), etag);
        }
    }
}
