use super::{
    bit_reader::BitReader,
    column::{Column, Rejected},
    crc::Crc,
    inverse::InverseBwt,
    runs::Runs,
    scan::{Close, Segment},
};

const MAGIC_BITS: usize = 48;

/// A decoder of blocks, one after the other.
///
/// It makes of a segment what the [trusted](super::trusted) decoder makes of it, sooner, or nothing: it only takes a
/// block that is all of a segment, ends where the next magic begins, and has the CRC with which it is stored. Of
/// anything else it gives nothing, not even a reason, and leaves it to the trusted decoder.
pub(super) struct BlockDecoder {
    column: Column,
    inverse: InverseBwt,
}

/// A block whose CRC was right.
pub(super) struct Block<'a> {
    /// The CRC that it is stored with.
    pub(super) crc: u32,
    runs: Runs<'a>,
    /// What is to be written next: some bytes, the last of them repeated.
    literal: &'a [u8],
    repeated: u8,
    count: usize,
}

impl BlockDecoder {
    pub(super) fn new() -> BlockDecoder {
        BlockDecoder { column: Column::new(), inverse: InverseBwt::new() }
    }

    /// The block that is this segment.
    pub(super) fn decode(&mut self, segment: &Segment) -> Result<Block<'_>, Rejected> {
        let crc = self.restore(segment)?;
        if crc != self.column.crc {
            return Err(Rejected);
        }
        Ok(Block { crc, runs: Runs::new(self.column.bytes()), literal: &[], repeated: 0, count: 0 })
    }

    /// Restores the block up to its runs, in place of the column. Gives the CRC that it ought to be stored with.
    fn restore(&mut self, segment: &Segment) -> Result<u32, Rejected> {
        if !matches!(segment.close, Close::Magic(_)) {
            return Err(Rejected);
        }
        let mut bits = BitReader::new(segment.bytes(), segment.skip() + MAGIC_BITS);
        self.column.read(&mut bits, segment.level)?;
        if bits.position() != segment.skip() + segment.len() {
            return Err(Rejected);
        }
        let Column { origin, counts, .. } = self.column;
        let text = self.column.bytes();
        self.inverse.run(text, &counts, origin);
        checksum(text)
    }
}

impl Block<'_> {
    /// Writes to the free capacity of `into`. Says whether there may be more.
    pub(super) fn write(&mut self, into: &mut Vec<u8>) -> bool {
        loop {
            let room = into.capacity() - into.len();
            let (now, later) = self.literal.split_at(self.literal.len().min(room));
            into.extend_from_slice(now);
            self.literal = later;
            let repeats = self.count.min(into.capacity() - into.len());
            into.resize(into.len() + repeats, self.repeated);
            self.count -= repeats;
            if into.len() == into.capacity() {
                return true;
            }
            match self.runs.next() {
                Ok(Some((literal, count))) => {
                    self.literal = literal;
                    self.repeated = literal.last().copied().unwrap_or_default();
                    self.count = usize::from(count);
                }
                // A missing count has been met when the CRC was made.
                Ok(None) | Err(_) => return false,
            }
        }
    }
}

/// The CRC of the bytes that a block stands for.
fn checksum(text: &[u8]) -> Result<u32, Rejected> {
    let (mut crc, mut runs) = (Crc::new(), Runs::new(text));
    while let Some((literal, count)) = runs.next().map_err(|_| Rejected)? {
        crc.update(literal);
        if count > 0
            && let Some(&byte) = literal.last()
        {
            crc.update(&[byte; 255][..usize::from(count)]);
        }
    }
    Ok(crc.value())
}

#[cfg(test)]
mod tests;
