//! Streaming decoders chosen by a file's content, with a block-parallel, CRC-checked bzip2 decoder, safe extraction
//! of tars, and compressed tars of items that are updated at the price of what changed.
//!
//! A [`Codec`] says what the bytes are: it is read off their beginning, and where the file's name says something else
//! the file is refused. A [`Decoder`] turns the compressed bytes of an input into plain ones and is an
//! [`io::Read`](std::io::Read); [`DecodeOptions`] says how many threads it may use. An [`Error`] names the file and the
//! compressed byte where things went wrong; a file that is cut short or damaged always ends in one, never in a quiet
//! end of file. What was read before the error is right where [`Codec::checks_before_giving`] says so, that is with
//! bzip2, whose blocks are each checked before they are handed out; with every other codec it may be wrong.
//!
//! ```
//! # #[cfg(feature = "bzip2")] {
//! use std::io::{Cursor, Read};
//!
//! use bulk_archive::{Codec, DecodeOptions, Decoder, Error};
//!
//! let file = b"BZh91AY&SY\x01\xf3\x56\x75\x00\x00\x01\x41\x00\x00\x10\x04\
//!     \x20\x20\x00\x21\x98\x19\x81\x61\x77\x24\x53\x85\x09\x00\x1f\x35\x67\x50";
//! let mut text = String::new();
//! let mut decoder = Decoder::new(Cursor::new(file), "courts.csv.bz2", &DecodeOptions::default())?;
//! assert_eq!(decoder.codec(), Codec::Bzip2);
//! decoder.read_to_string(&mut text)?;
//! assert_eq!(text, "id\n");
//!
//! let mut cut = Decoder::new(Cursor::new(&file[..30]), "courts.csv.bz2", &DecodeOptions::default())?;
//! let error = cut.read_to_string(&mut text).unwrap_err();
//! let error = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
//! assert!(matches!(error, Some(Error::Truncated { codec: Codec::Bzip2, .. })));
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! On Unix, `extract` writes what comes out to a folder: the members of a tar, or the one file that it is. Nothing is
//! made outside the folder, nothing torn stands under a final name, and archives made to fill the disk are stopped.
//!
//! # Archives of items that change
//! An [`ArchiveWriter`] writes items (an id, a time, some JSON) as a `tar.gz` that every tar and gzip reads, and an index
//! of it. [`splice()`] makes a new archive out of it and some changes: what they do not touch is copied as it is,
//! compressed. The new archive is, byte by byte, what an [`ArchiveWriter`] would have made of the same items.
//! [`ArchiveReader`] reads the items back; [`verify()`] checks an archive against its index, and [`rebuild_index`] makes
//! that anew.
//!
//! ```
//! # #[cfg(feature = "splice")] {
//! use std::io::Cursor;
//!
//! use bulk_archive::{ArchiveOptions, ArchiveReader, ArchiveWriter, Change, IndexedArchive, Outcome, SpliceOptions, splice};
//!
//! // Files, opened for reading and writing, in place of vectors; see `ArchiveWriter` for how to replace them.
//! let mut writer = ArchiveWriter::new(Vec::new(), Vec::new(), "scotus.tar.gz", &ArchiveOptions::default())?;
//! writer.append("111014", 1_400_000_000, br#"{"case_name": "Brown v. Board of Education"}"#)?;
//! writer.append("112876", 1_400_000_000, br#"{"case_name": "Roe"}"#)?;
//! let (archive, index, summary) = writer.finish()?;
//! assert_eq!(summary.entries, 2);
//!
//! let old = IndexedArchive::open(Cursor::new(&archive), Cursor::new(&index), "scotus.tar.gz")?;
//! let content = br#"{"case_name": "Roe v. Wade"}"#.to_vec();
//! let changes = [
//!     Ok(Change::Remove { id: "107252".to_owned() }),
//!     Ok(Change::Put { id: "112876".to_owned(), mtime: 1_400_000_060, content }),
//! ];
//! let (mut archive, mut index, mut told) = (Vec::new(), Vec::new(), Vec::new());
//! let options = SpliceOptions::default();
//! splice(old, changes, &mut archive, &mut index, &options, |id, outcome| told.push((id.to_owned(), outcome)))?;
//! assert_eq!(told, [("107252".to_owned(), Outcome::Missing), ("112876".to_owned(), Outcome::Replaced)]);
//!
//! let mut reader = ArchiveReader::new(Cursor::new(archive), "scotus.tar.gz");
//! let item = reader.next_item()?.unwrap();
//! assert_eq!((item.id, item.mtime), ("111014", 1_400_000_000));
//! assert_eq!(reader.next_item()?.unwrap().content, br#"{"case_name": "Roe v. Wade"}"#);
//! assert_eq!(reader.next_item()?, None);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Sets of archives
//! With the feature `export`, on Unix, an `ExportSet` is a folder of such archives, one for each group of each type of
//! items. A `Stage` takes changes in any order; `Stage::publish` makes new archives of the groups that have changed, and
//! gives them their names together. What is killed at any moment leaves the old set or the new one. `verify_set` checks a
//! folder, `Stage::mend` has archives that are damaged or missing made anew of their items, `rebuild_indexes` all but the archives, of
//! these. Beside an archive, and beside
//! the folder of a type, there may be the items in other formats, each a `Shape`: lines of JSON, compressed as gzip or Zstandard,
//! and Parquet, whose columns are `ParquetColumns`.
//!
//! ```
//! # #[cfg(all(feature = "export", unix))] {
//! use std::collections::BTreeMap;
//!
//! use bulk_archive::{ExportOptions, ExportSet, SetManifest, verify_set};
//!
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! let mut set = ExportSet::open(folder, ExportOptions::default())?;
//! let mut stage = set.begin()?;
//! stage.put("opinions", "scotus", "112876", 1_400_000_000, br#"{"case_name": "Roe v. Wade"}"#)?;
//! stage.put("opinions", "ca1", "4711", 1_400_000_000, br#"{"case_name": "In re Smith"}"#)?;
//! let bad = stage.put("opinions", "ca1", "4712", 1_400_000_000, b"{\"case_name\": ").unwrap_err();
//! assert_eq!(bad.to_string(), "opinions/ca1: member \"4712\" refused: its content is no JSON, at line 1, column 14");
//! let first_run = BTreeMap::from([("opinions".to_owned(), "2014-11-06 03:00:00+00".to_owned())]);
//! assert_eq!(stage.publish(&first_run)?.added, 2);
//!
//! // An item that changes its group leaves the old one, whose archive goes with its last item.
//! assert_eq!(set.watermark("opinions")?.as_deref(), Some("2014-11-06 03:00:00+00"));
//! let mut stage = set.begin()?;
//! stage.put("opinions", "scotus", "4711", 1_400_000_060, br#"{"case_name": "In re Smith"}"#)?;
//! let published = stage.publish(&BTreeMap::new())?;
//! assert_eq!((published.moved, published.made_groups, published.emptied_groups), (1, 1, 1));
//!
//! let manifest = SetManifest::read(folder)?.unwrap();
//! let archives: Vec<_> = manifest.archives.iter().map(|archive| (&*archive.name, archive.entries)).collect();
//! assert_eq!(archives, [("opinions/scotus.tar.gz", 2)]);
//! assert!(verify_set(folder, &ExportOptions::default())?.faults.is_empty());
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//! `bzip2`, `gzip`, `xz` and `zstd`, all on by default, each bring their codec. Detection knows every codec whatever
//! the features; a file whose codec is left out gives [`Error::CodecDisabled`]. `extract`, on by default, brings
//! extraction, on Unix. `splice`, on by default, brings archives of items that change, and `gzip`. `export` brings sets of
//! archives, on Unix, `splice`, `zstd`, SQLite and Parquet. `tracing` has spans of the crate of that name, of level DEBUG, for whoever
//! has a subscriber: `extract` (its `archive`) and, of an export, `archive` (its `kind` and `group`), each in the thread that works.

#[cfg(feature = "splice")]
mod archive;
#[cfg(feature = "bzip2")]
mod bzip2;
mod checkpoint;
mod codec;
mod counted;
mod decode_event;
mod decoder;
mod error;
#[cfg(all(feature = "export", unix))]
mod export;
#[cfg(all(feature = "extract", unix))]
mod extract;
#[cfg(feature = "gzip")]
mod gzip;
mod input;
mod limit;
mod refusal;
#[cfg(all(any(feature = "export", feature = "extract"), unix))]
mod span;
#[cfg(feature = "xz")]
mod xz;
#[cfg(feature = "zstd")]
mod zstandard;

#[cfg(feature = "splice")]
pub use crate::archive::{
    ArchiveIndex, ArchiveOptions, ArchiveReader, ArchiveSummary, ArchiveWriter, Change, ContentHash, ForeignBlocks,
    IndexedArchive, IndexedBlock, IndexedEntry, Item, Outcome, SameContent, SpliceOptions, Spliced, changes_anything,
    entry_name, rebuild_index, splice, verify, verify_blocks,
};
#[cfg(all(feature = "extract", unix))]
pub use crate::extract::{
    ArchiveName, ContentDigest, Destination, ExtractOptions, Extracted, Links, Member, MemberKind, extract,
    remove_leftovers,
};
#[cfg(all(feature = "export", unix))]
pub use crate::{
    archive::{BadColumns, ColumnSource, ColumnType, ParquetColumn, ParquetColumns, Shape, Unfit, UnknownShape},
    export::{
        CheckNew, ExportEvent, ExportOptions, ExportSet, Loose, Published, Rebuilt, SetArchive, SetBundle, SetFault,
        SetFiles, SetManifest, SetPath, SetReport, SetShape, Stage, Swept, Wanted, read_watermarks, rebuild_indexes,
        verify_set,
    },
};
pub use crate::{
    checkpoint::{Checkpoint, CheckpointError},
    codec::Codec,
    decode_event::DecodeEvent,
    decoder::{DecodeOptions, Decoder},
    error::Error,
    limit::Limit,
    refusal::Refusal,
};

/// The program of the crate's page.
#[cfg(all(doctest, feature = "bzip2"))]
#[doc = include_str!("../README.md")]
pub struct Readme;
