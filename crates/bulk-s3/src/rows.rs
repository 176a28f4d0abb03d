//! Objects as rows of files: CSV, NDJSON and Parquet.
//!
//! Columns: `bucket`, `key`, `etag`, `size`, `last_modified`, `content`, of which only `key` must be there; `seen_at` may
//! be, and is passed over: it is the store's own.

mod csv;
mod inventory;
mod ndjson;
#[cfg(feature = "parquet")]
mod parquet;

pub use self::csv::{CsvReader, CsvWriter};
pub(crate) use self::inventory::InventoryReader;
pub use self::ndjson::{NdjsonReader, NdjsonWriter};
#[cfg(feature = "parquet")]
pub use self::parquet::{ParquetReader, ParquetWriter};
use crate::{Batch, Error};

/// Reads objects, such as from a file.
pub trait ObjectReader: Send {
    /// Puts up to `limit` objects behind those of `batch`, and one at least as long as there are any.
    ///
    /// # Errors
    ///
    /// [`Error::Table`]; nothing more can be read then.
    fn read(&mut self, batch: &mut Batch, limit: usize) -> Result<(), Error>;

    /// Rows that were passed over so far because they are of other buckets.
    fn passed_over(&self) -> u64;
}

impl<R: ObjectReader + ?Sized> ObjectReader for Box<R> {
    fn read(&mut self, batch: &mut Batch, limit: usize) -> Result<(), Error> {
        (**self).read(batch, limit)
    }

    fn passed_over(&self) -> u64 {
        (**self).passed_over()
    }
}

/// Writes objects, such as to a file.
pub trait ObjectWriter: Send {
    /// What is left when all is written.
    type Output: Send;

    /// Writes objects. They are sent on sooner or later.
    ///
    /// # Errors
    ///
    /// [`Error::Table`].
    fn write(&mut self, objects: &Batch) -> Result<(), Error>;

    /// Writes what is left. A writer that is dropped without it leaves half a file, which it may not be possible to tell
    /// from a whole one: write to a file of another name, and rename it in the end.
    ///
    /// # Errors
    ///
    /// [`Error::Table`].
    fn finish(self) -> Result<Self::Output, Error>;
}

/// The columns that are read and written.
const COLUMNS: [&str; 6] = ["bucket", "key", "etag", "size", "last_modified", "content"];
/// A column that is passed over.
const SEEN_AT: &str = "seen_at";

/// What is wrong with the names of a file's columns.
fn check_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    let mut found: Vec<&str> = Vec::new();
    for name in names {
        if !COLUMNS.contains(&name) && name != SEEN_AT {
            let known = COLUMNS.join(", ");
            return Err(format!("nobody knows what its column {name:?} is; those that are read are {known}"));
        }
        if found.contains(&name) {
            return Err(format!("two of its columns are named {name:?}"));
        }
        found.push(name);
    }
    if found.contains(&"key") { Ok(()) } else { Err("it has no column \"key\"".to_owned()) }
}

/// What an inventory lacks, by the columns that it has.
fn check_versions(has_key: bool, has_version: bool, has_latest: bool) -> Result<(), String> {
    if !has_key {
        return Err("it has no column of keys".to_owned());
    }
    if has_version && !has_latest {
        return Err("it has versions, and no column says which of them is the current one".to_owned());
    }
    Ok(())
}

#[cold]
fn other_bucket(found: &[u8], wanted: &str) -> String {
    format!("it is of the bucket \"{}\", and the inventory of {wanted:?}", found.escape_ascii())
}

/// Writes bytes in lower-case hexadecimal.
fn put_hex(text: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        text.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
    }
}

/// A digest of 64 hexadecimal digits.
fn unhex(text: &[u8]) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    if pairs.len() != digest.len() {
        return None;
    }
    for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
        let digit = |digit: &u8| char::from(*digit).to_digit(16);
        *byte = u8::try_from(digit(high)? << 4 | digit(low)?).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::unhex;

    #[test]
    fn digests_are_of_64_digits() {
        let text = "00ff".repeat(16);
        assert_eq!(unhex(text.as_bytes()), Some(std::array::from_fn(|place| if place % 2 == 0 { 0 } else { 255 })));
        assert_eq!(unhex(text.to_uppercase().as_bytes()), unhex(text.as_bytes()));
        for bad in
            [&text[1..], &text[2..], &format!("{text}00"), &text.replacen('f', "g", 1), &text.replacen('f', "+", 1)]
        {
            assert_eq!(unhex(bad.as_bytes()), None, "{bad}");
        }
    }
}
