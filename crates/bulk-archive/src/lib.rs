//! Streaming decoders chosen by a file's content, with a block-parallel, CRC-checked bzip2 decoder, and safe extraction
//! of tars.
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
//! # Features
//! `bzip2`, `gzip`, `xz` and `zstd`, all on by default, each bring their codec. Detection knows every codec whatever
//! the features; a file whose codec is left out gives [`Error::CodecDisabled`]. `extract`, on by default, brings
//! extraction, on Unix.

#[cfg(feature = "bzip2")]
mod bzip2;
mod checkpoint;
mod codec;
mod decoder;
mod error;
#[cfg(all(feature = "extract", unix))]
mod extract;
#[cfg(feature = "gzip")]
mod gzip;
mod input;
mod limit;
mod refusal;
#[cfg(feature = "xz")]
mod xz;
#[cfg(feature = "zstd")]
mod zstandard;

#[cfg(all(feature = "extract", unix))]
pub use crate::extract::{
    ArchiveName, ContentDigest, Destination, ExtractOptions, Extracted, Links, Member, MemberKind, extract,
    remove_leftovers,
};
pub use crate::{
    checkpoint::{Checkpoint, CheckpointError},
    codec::Codec,
    decoder::{DecodeOptions, Decoder},
    error::Error,
    limit::Limit,
    refusal::Refusal,
};
