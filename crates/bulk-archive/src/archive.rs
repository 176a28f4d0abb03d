//! Archives of items that change: a tar of sorted entries as one gzip member, an index of it, and how changes get in.
//!
//! ```text
//! gzip header | block | block | … | end of the tar, last deflate block | CRC-32, length
//! ```
//! A block is some whole entries, compressed up to an empty stored block, so that it begins and ends at a byte. Blocks
//! make chains: the first block of a chain refers to nothing before it, each other one to the block before it. An item that
//! changes costs its block and the one that refers to it; to inflate them, the blocks of the chain before them.
//!
//! Where blocks and chains begin is chosen by the ids ([`borders`]). Each block is compressed by itself, from its bytes and
//! those that it may refer to alone. So the archive is a function of the items.

mod borders;
mod chains;
mod composer;
mod deflate;
mod filler;
mod header;
mod index;
mod name;
mod press;
mod reader;
mod rebuild;
#[cfg(all(feature = "export", unix))]
mod shape;
mod splice;
mod varint;
mod verify;
mod writer;

#[cfg(all(feature = "export", unix))]
pub use self::shape::{
    BadColumns, ColumnSource, ColumnType, ParquetColumn, ParquetColumns, Shape, Unfit, UnknownShape,
};
#[cfg(all(feature = "export", unix))]
pub(crate) use self::{
    deflate::HEADER as ARCHIVE_HEADER,
    header::write as write_header,
    index::LONGEST_CONTENT,
    name::{escaped, to_id as name_to_id, unescaped},
    press::{PressEvent, PressObserver, Stretch, copy_bytes},
    shape::{
        Comparison, Found, How, Map, Member, Old, OpenOwn, Part, check_rows, columns_of, make as make_shape, open_rows,
    },
    splice::splice_observed,
    verify::look_into,
    writer::processors,
};
pub use self::{
    index::{ArchiveIndex, ArchiveSummary, ContentHash, IndexedBlock, IndexedEntry},
    name::entry_name,
    reader::{ArchiveReader, Item},
    rebuild::rebuild_index,
    splice::{
        Change, ForeignBlocks, IndexedArchive, Outcome, SameContent, SpliceOptions, Spliced, changes_anything, splice,
    },
    verify::{verify, verify_blocks},
    writer::{ArchiveOptions, ArchiveWriter},
};
