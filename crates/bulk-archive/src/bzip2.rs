//! Block-parallel bzip2.
//!
//! A bzip2 stream is a header, blocks that can be decoded each on its own, and a trailer; blocks begin at any bit and
//! have no length, only a 48-bit magic. [`scan`] cuts the input at every such magic, [`pipeline`] lets threads decode
//! the pieces ahead of the reader, and [`reader`] puts the outcome in order. A magic may also turn up by chance inside a
//! block, so the cuts and the levels that the scan assigns are guesses: the reader alone knows at which bit the next
//! block must begin and takes a guess only where it fits, else it decodes the block itself, over the false cut. Whatever
//! the scan does, the outcome is thus that of reading the bits one after another.
//!
//! A block is decoded by [`block`], which is fast: [`column`](mod@column) undoes its prefix codes ([`huffman`]), move-to-front
//! ([`move_to_front`]) and runs of zeros, [`inverse`] the Burrows–Wheeler transform, [`runs`] the runs of bytes. It
//! vouches for nothing but a whole block with the right CRC. All else, be it damage or a rarity, goes to the
//! `bzip2` crate ([`trusted`]), which alone says what is an error. Either gives nothing of a block before its CRC was
//! right: the one keeps the block as it is before its runs of bytes are restored, the other decodes it twice.

mod bit_reader;
mod bits;
mod block;
mod column;
mod crc;
mod huffman;
mod inverse;
mod move_to_front;
mod pipeline;
mod reader;
mod runs;
mod scan;
mod trusted;

pub(crate) use reader::Reader;
