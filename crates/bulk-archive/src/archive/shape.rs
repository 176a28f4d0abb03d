//! The items of an archive, or of all archives of a type, in other formats: shapes, each a file that is made from the archives and
//! their indexes.
//!
//! A shape is a row of stretches. Each has some neighbouring blocks of the archive, begins where one of them does, and is a
//! function of their entries; which blocks make one follows from the archive, and so from the items. A map beside the shape
//! ([`map`]) has a digest of the entries of each stretch, so that a stretch that an older file of the shape has already is
//! copied, and nothing of the archive is inflated for it. So a shape is, like the archive, the same however it came about,
//! as long as the same compressor makes it: another one makes the whole of it anew.
//!
//! A stretch is of one archive, and refers to nothing in another. So the shape of a type has the stretches that the shapes of its
//! groups have, and copies them from there, or from its own older file.
//!
//! | shape | a stretch is |
//! |---|---|
//! | [`JsonlGz`](Shape::JsonlGz) | the lines of a block, compressed as the block of the archive is ([`lines`]) |
//! | [`JsonlZst`](Shape::JsonlZst) | the lines of a chain, as blocks of the one frame ([`frame`]) |
//! | [`Parquet`](Shape::Parquet) | the rows of some chains, as a row group ([`rows`]) |

mod columns;
mod compare;
mod frame;
mod in_order;
mod lines;
mod map;
mod rows;
mod stretch;

use std::{
    fmt,
    fs::File,
    io::{Read, Seek, Write},
    str::FromStr,
    sync::Arc,
};

pub use self::columns::{BadColumns, ColumnSource, ColumnType, ParquetColumn, ParquetColumns, Unfit};
pub(crate) use self::{
    compare::Comparison,
    map::{Found, Map},
    rows::{check as check_rows, columns_of, open as open_rows},
    stretch::Digest,
};
use self::{
    map::{MapWriter, Place},
    stretch::Stretch,
};
use super::{deflate, splice::IndexedArchive};
use crate::Error;

/// What may stand beside the archive of a group, or the folder of a type: the same items in another format.
///
/// Rows of JSON have what the items have, in the order of their ids, a line each. A line break between two tokens of an
/// item, which JSON allows, becomes a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Shape {
    /// `<group>.jsonl.gz`: JSON, a line for each item, as one gzip member. A changed item costs its block, as in the archive.
    JsonlGz,
    /// `<group>.jsonl.zst`: the same as one Zstandard frame (RFC 8878), for which a reader needs a window of 2 MiB. Lines
    /// that end a stretch have some spaces at their end, by which the next one is independent of it. It is one frame because
    /// readers stop behind the first one, silently (Python's `zstandard`, and with it pandas). A changed item costs its chain.
    JsonlZst,
    /// `<group>.parquet`: each item a row of [`ParquetColumns`], by default of `id`, `modified` and `json`, compressed by Zstandard; of a
    /// whole type, with a column `group`, too. A row group has about 16 chains of the archive, 16 MiB by
    /// default, and is made anew as a whole where an item of it has changed: that many changes all over a group cost as much as
    /// a new file.
    Parquet,
}

impl Shape {
    /// All that there are.
    pub const ALL: [Shape; 3] = [Shape::JsonlGz, Shape::JsonlZst, Shape::Parquet];

    /// Its name, which is what the name of its files ends with, behind a dot.
    pub fn name(self) -> &'static str {
        match self {
            Shape::JsonlGz => "jsonl.gz",
            Shape::JsonlZst => "jsonl.zst",
            Shape::Parquet => "parquet",
        }
    }

    /// What each file of ours begins with.
    pub(crate) fn header(self) -> &'static [u8] {
        match self {
            Shape::JsonlGz => &deflate::HEADER,
            Shape::JsonlZst => &frame::HEADER,
            Shape::Parquet => b"PAR1",
        }
    }

    /// What stands before a name that ends as a file of a shape does, and the shape.
    pub(crate) fn of_file(name: &str) -> Option<(&str, Shape)> {
        Shape::ALL.into_iter().find_map(|shape| Some((name.strip_suffix(shape.name())?.strip_suffix('.')?, shape)))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Shape {
    type Err = UnknownShape;

    fn from_str(name: &str) -> Result<Shape, UnknownShape> {
        Shape::ALL.into_iter().find(|shape| shape.name() == name).ok_or_else(|| UnknownShape(name.to_owned()))
    }
}

/// A name that is that of no [`Shape`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownShape(String);

impl fmt::Display for UnknownShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no shape; there are ", self.0)?;
        for (at, shape) in Shape::ALL.into_iter().enumerate() {
            write!(f, "{}{shape}", if at > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownShape {}

/// A file of a shape that is there, and its map.
pub(crate) struct Old {
    pub(crate) file: File,
    pub(crate) map: Map,
}

/// An archive of which a shape is made.
pub(crate) struct Part<'a, A, I> {
    pub(crate) archive: IndexedArchive<A, I>,
    /// Where the shape is that of a type.
    pub(crate) member: Option<Member<'a>>,
}

/// A group of a type.
pub(crate) struct Member<'a> {
    pub(crate) group: Arc<str>,
    /// What its archive is called, by which groups are sorted.
    pub(crate) archive: String,
    /// What opens its own file of the shape, once a stretch is missing in the older file of the type; none where it has none.
    pub(crate) own: Option<OpenOwn<'a>>,
}

pub(crate) type OpenOwn<'a> = Box<dyn FnOnce() -> Result<Option<Old>, Error> + 'a>;

impl Member<'_> {
    fn open(&mut self) -> Result<Option<Old>, Error> {
        self.own.take().map_or(Ok(None), |open| open())
    }
}

/// What the map calls a stretch. No name of an archive has a zero byte, so that keys are in the order of archives.
fn key(member: Option<&Member<'_>>, stretch: &Stretch) -> String {
    match member {
        Some(member) => format!("{}\0{}", member.archive, stretch.first_id()),
        None => stretch.first_id().to_owned(),
    }
}

/// How a shape is made.
pub(crate) struct How<'a> {
    /// The name that errors give.
    pub(crate) file: &'a str,
    /// Whether it is that of a type.
    pub(crate) is_whole: bool,
    pub(crate) threads: usize,
    /// Of rows.
    pub(crate) columns: &'a ParquetColumns,
    /// Whether what is compressed is inflated again, and compared. Of rows that is left to [`check_rows`].
    pub(crate) check: bool,
}

/// What was made.
#[derive(Debug, Default)]
pub(crate) struct Made {
    /// Stretches that were copied.
    pub(crate) copied: u64,
    /// How many were not.
    pub(crate) made: u64,
    /// What these are, of rows: of lines there are too many, and each was read back at once.
    pub(crate) rows: Vec<MadeRows>,
}

/// A row group that was not copied.
#[derive(Debug)]
pub(crate) struct MadeRows {
    number: u64,
    /// The digest of its rows.
    content: Digest,
    /// Where the shape is that of a type.
    group: Option<Arc<str>>,
}

/// A mark of what makes a shape of archives of this level: stretches of two that differ must not be mixed.
fn mark(shape: Shape, level: u32, how: &How<'_>) -> Result<Vec<u8>, Error> {
    let mark = match shape {
        Shape::JsonlGz => Ok(super::deflate::engine(level)),
        Shape::JsonlZst => frame::mark(),
        Shape::Parquet => rows::mark(),
    };
    let mut mark = mark.map_err(|source| Error::Output { file: how.file.to_owned(), source })?.to_le_bytes().to_vec();
    if shape == Shape::Parquet {
        mark.extend_from_slice(how.columns.text().as_bytes());
    }
    Ok(mark)
}

/// Makes a shape of an archive, or of those of a type in the order of their names. What an older file of it has already is copied
/// from there, or from the shape of the group: if that is not what its map says, the error is [`Error::Set`], and it can be made
/// without.
///
/// Both outputs are flushed and given back; the map lacks its end, for which the digest of the shape is needed.
pub(crate) fn make<'a, A, I, W, X>(
    shape: Shape,
    parts: impl Iterator<Item = Result<Part<'a, A, I>, Error>>,
    old: Option<Old>,
    output: W,
    map: X,
    how: &How<'_>,
) -> Result<(W, MapWriter<X>, Made), Error>
where
    A: Read + Seek,
    I: Read + Seek,
    W: Write + Send,
    X: Write,
{
    let map = MapWriter::new(map, shape, how.file)?;
    match shape {
        Shape::JsonlGz | Shape::JsonlZst => lines::make(shape, parts, old, output, map, how),
        Shape::Parquet => rows::make(parts, old, output, map, how),
    }
}

/// Where a stretch begins in a file of the shape; none where there can be no such place.
fn start(shape: Shape, place: &Place) -> Option<u64> {
    match shape {
        Shape::JsonlGz | Shape::JsonlZst => lines::start(shape, place),
        // Row groups stand one behind another, behind the magic number.
        Shape::Parquet => place.before.checked_add(4),
    }
}

/// An old file that is not what its map says.
fn not_as_mapped(file: &str) -> Error {
    Error::Set { file: file.to_owned(), reason: "it is not what was made".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_shapes_or_not() {
        for shape in Shape::ALL {
            assert_eq!(shape.to_string().parse(), Ok(shape));
            assert_eq!(Shape::of_file(&format!("a.b.{shape}")), Some(("a.b", shape)));
        }
        assert_eq!(Shape::of_file("a.tar.gz"), None);
        assert_eq!(Shape::of_file("ajsonl.gz"), None);
        let error = "tar.gz".parse::<Shape>().unwrap_err();
        assert_eq!(error.to_string(), "\"tar.gz\" is no shape; there are jsonl.gz, jsonl.zst, parquet");
    }
}
