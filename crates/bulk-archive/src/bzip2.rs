//! Block-parallel bzip2.
//!
//! A bzip2 stream is a header, blocks that can be decoded each on its own, and a trailer; blocks begin at any bit and
//! have no length, only a 48-bit magic. [`scan`] cuts the input at every such magic, [`pipeline`] lets threads decode
//! the pieces ahead of the reader, and [`reader`] puts the outcome in order. A magic may also turn up by chance inside a
//! block, so the cuts and the levels that the scan assigns are guesses: the reader alone knows at which bit the next
//! block must begin and takes a guess only where it fits, else it decodes the block itself, over the false cut. Whatever
//! the scan does, the outcome is thus that of reading the bits one after another.
//!
//! The block format itself is left to the `bzip2` crate ([`block`]).

mod bits;
mod block;
mod pipeline;
mod reader;
mod scan;

pub(crate) use reader::Reader;
