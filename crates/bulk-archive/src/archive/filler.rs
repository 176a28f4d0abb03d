//! What stands before a chain of an archive that is laid out for reflinks, so that the chain begins where a block of a file system
//! may: two files share extents there alone (`ioctl_ficlonerange(2)`, `copy_file_range(2)`).

use super::deflate::SYNC;

/// What places of the file the chains begin at: multiples of what Btrfs and XFS have for a block, if nobody chose another.
pub(crate) const GRAIN: u64 = 4096;

/// An empty stored block from a byte on (RFC 1951, 3.2.4).
const FIVE: [u8; 5] = [0, SYNC[0], SYNC[1], SYNC[2], SYNC[3]];

/// An empty block with the fixed codes (RFC 1951, 3.2.6), and an empty stored one.
const SIX: [u8; 6] = [2, 0, SYNC[0], SYNC[1], SYNC[2], SYNC[3]];

/// How many bytes stand between the end of a chain and the next one: the fewest that can be made of both.
pub(crate) fn len(end: u64) -> u64 {
    let len = end.next_multiple_of(GRAIN) - end;
    if len >= sixes(len) * SIX.len() as u64 { len } else { len + GRAIN }
}

/// These bytes: blocks of which nothing comes out, and which end at a byte.
pub(crate) fn bytes(len: u64) -> Vec<u8> {
    let sixes = sixes(len);
    let fives = (len - sixes * SIX.len() as u64) / FIVE.len() as u64;
    [SIX.repeat(sixes as usize), FIVE.repeat(fives as usize)].concat()
}

fn sixes(len: u64) -> u64 {
    len % FIVE.len() as u64
}

#[cfg(test)]
mod tests {
    use flate2::{Decompress, FlushDecompress, Status};

    use super::*;

    #[test]
    fn it_ends_at_the_next_place_and_nothing_comes_out() {
        for end in 10..10 + 2 * GRAIN {
            let len = len(end);
            assert!((end + len).is_multiple_of(GRAIN) && len < GRAIN + 24, "{end}: {len}");
            let bytes = bytes(len);
            assert_eq!(bytes.len() as u64, len);
            // A last block behind it shows that a reader is between two blocks then.
            let mut inflate = Decompress::new(false);
            let mut plain = Vec::with_capacity(16);
            let stream = [&bytes[..], b"\x01\x03\0\xfc\xffend"].concat();
            let status = inflate.decompress_vec(&stream, &mut plain, FlushDecompress::Finish).unwrap();
            assert_eq!((status, &plain[..], inflate.total_in()), (Status::StreamEnd, &b"end"[..], stream.len() as u64));
        }
    }
}
