//! Files with holes, as GNU tar stores them: a map says where each piece of the stored bytes belongs.

const BLOCK: u64 = 512;

/// The most pieces that a map may have, 16 MiB of memory.
pub(crate) const MOST_PIECES: usize = 1 << 20;

/// The pieces of a file with holes, in order, and its size.
#[derive(Debug)]
pub(crate) struct Sparse {
    /// Where each piece begins in the file, and its length.
    pub(crate) pieces: Vec<(u64, u64)>,
    /// The size of the file with its holes.
    pub(crate) size: u64,
}

impl Sparse {
    /// Checks that the pieces are in order, inside the file, each in whole blocks but for the last, and as long as
    /// what is stored of them.
    pub(crate) fn new(pieces: Vec<(u64, u64)>, size: u64, stored: u64) -> Result<Sparse, &'static str> {
        let mut end = 0u64;
        let mut sum = 0u64;
        for &(offset, length) in &pieces {
            if length > 0 && !sum.is_multiple_of(BLOCK) {
                return Err("a piece of a file with holes does not begin at a block");
            }
            if offset < end {
                return Err("the pieces of a file with holes overlap or are out of order");
            }
            end = offset
                .checked_add(length)
                .filter(|&end| end <= size)
                .ok_or("a piece of a file with holes is outside it")?;
            sum += length;
        }
        if sum != stored {
            return Err("the pieces of a file with holes are not as long as what is stored of it");
        }
        Ok(Sparse { pieces, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps() {
        assert!(Sparse::new(vec![(512, 1024), (4096, 7), (5000, 0)], 5000, 1031).is_ok());
        assert!(Sparse::new(vec![], 1 << 40, 0).is_ok());
        for (pieces, size, stored) in [
            (vec![(0, 512), (511, 1)], 1000, 513),
            (vec![(0, 7), (512, 7)], 1000, 14),
            (vec![(0, 512)], 511, 512),
            (vec![(u64::MAX, 2)], u64::MAX, 2),
            (vec![(0, 512)], 512, 511),
            (vec![(0, 512)], 512, 513),
        ] {
            assert!(Sparse::new(pieces.clone(), size, stored).is_err(), "{pieces:?}");
        }
    }
}
