use ::bzip2::{Decompress, Error, Status};

use super::{
    bits::{Bits, bits_at},
    scan::Segment,
};

/// Before a block's own bits, its decoder gets a stream header and, as the first of them, the magic.
const HEADER_BITS: usize = 32;
const MAGIC_BITS: usize = 48;

/// The decoder of one block.
///
/// The trusted decoder of a whole stream is given a header, the block's bits shifted to follow it, and the magic that
/// stands in the file after the block. It gets nothing that is not in the file, in two steps: first the bits to the
/// end of the block's segments (and up to 7 more, to fill a byte), which either let it come to the block's end, the only
/// point at which it writes anything, or show that the block does not end there. Then the rest of the magic. Once it has
/// swallowed that without complaint, it has checked the block's CRC and found the block to end at the very bit where the
/// magic begins: a magic does not overlap another by more than 3 bits, so it is not found at any bit close by.
///
/// The CRC is that of all the output, which may be 46 MB. So that nothing is given of a block whose CRC is wrong, and
/// not all of it has to be kept, a block is decoded twice: [`check`](TrustedDecoder::check) throws the output away, and
/// only the [`CheckedBlock`] that comes of it gives any.
pub(super) struct TrustedDecoder {
    decoder: Decompress,
    bits: Bits,
    /// The bit of the file that `bits` reach to.
    reach: u64,
    /// How many of `bits` are of the segments, the rest being of the magic after them.
    own: usize,
    /// How many bytes of `bits` the decoder has taken.
    fed: usize,
    written: bool,
}

/// A block whose CRC was right.
pub(super) struct CheckedBlock {
    /// The CRC that it is stored with.
    pub(super) crc: u32,
    decoder: TrustedDecoder,
}

/// What the bits of a block came to.
pub(super) enum Checked {
    /// The block has ended and its CRC was right. Where its last segment is closed by a magic, it ends right there.
    Block(CheckedBlock),
    /// The block does not end with the segments it was given.
    Unfinished(TrustedDecoder),
}

/// What a step of a block's decoding came to.
enum Step {
    /// The output is full and there may be more.
    Full,
    /// As [`Checked::Unfinished`].
    Unfinished,
    /// As [`Checked::Block`].
    Done,
}

/// Why a block cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its bits are no bzip2 block.
    Data,
    /// Its CRC is wrong, or what follows it is no magic.
    Check,
    /// No memory for it.
    Memory,
}

impl TrustedDecoder {
    /// A decoder for a block of a stream of this level, which begins with `segment`.
    pub(super) fn new(level: u8, segment: &Segment) -> TrustedDecoder {
        let mut bits = Bits::default();
        bits.push(&[b'B', b'Z', b'h', b'0' + level], 0, HEADER_BITS);
        let decoder = Decompress::new(false);
        let mut block = TrustedDecoder { decoder, bits, reach: segment.start, own: 0, fed: 0, written: false };
        block.extend(segment);
        block
    }

    /// Adds the segment that follows those given so far.
    pub(super) fn extend(&mut self, segment: &Segment) {
        self.push(segment.start, segment.bytes(), segment.skip(), segment.len());
        // The magic's first bits may have been pushed as those after the segment before.
        self.own = self.bits.len() - (self.reach - segment.end()) as usize;
        if let Some(magic) = segment.next() {
            self.push(segment.end(), &magic.bytes(), 0, MAGIC_BITS);
        }
    }

    /// Adds those of `len` bits of `source`, from its bit `from`, that are new. The first stands at bit `start` of the
    /// file.
    fn push(&mut self, start: u64, source: &[u8], from: usize, len: usize) {
        let known = ((self.reach - start) as usize).min(len);
        self.bits.push(source, from + known, len - known);
        self.reach += (len - known) as u64;
    }

    /// How many bits the block's segments have.
    pub(super) fn len(&self) -> usize {
        self.own - HEADER_BITS
    }

    /// Decodes the block to its end, by way of `scratch`, which must have some capacity and is left empty.
    pub(super) fn check(mut self, scratch: &mut Vec<u8>) -> Result<Checked, Fault> {
        loop {
            scratch.clear();
            let step = self.step(scratch);
            scratch.clear();
            match step? {
                Step::Full => {}
                Step::Unfinished => return Ok(Checked::Unfinished(self)),
                Step::Done => {
                    let crc = bits_at(self.bits.bytes(), HEADER_BITS + MAGIC_BITS, 32).unwrap_or(0);
                    let decoder = TrustedDecoder { decoder: Decompress::new(false), fed: 0, written: false, ..self };
                    return Ok(Checked::Block(CheckedBlock { crc, decoder }));
                }
            }
        }
    }

    /// Decodes into the free capacity of `into`, of which there must be some.
    fn step(&mut self, into: &mut Vec<u8>) -> Result<Step, Fault> {
        let whole = self.bits.len() / 8;
        loop {
            let limit = if self.written { whole } else { self.own.div_ceil(8).min(whole) };
            let (taken, given) = (self.decoder.total_in(), into.len());
            let status = self.decoder.decompress_vec(&self.bits.bytes()[self.fed..limit], into);
            let taken = (self.decoder.total_in() - taken) as usize;
            self.fed += taken;
            self.written |= into.len() > given;
            match status {
                Ok(Status::Ok) => {}
                Ok(Status::MemNeeded) => return Err(Fault::Memory),
                Err(Error::Data | Error::DataMagic) if !self.written => return Err(Fault::Data),
                _ => return Err(Fault::Check),
            }
            if into.len() == into.capacity() {
                return Ok(Step::Full);
            } else if self.fed < limit {
                if taken == 0 && into.len() == given {
                    return Err(Fault::Data);
                }
            } else if !self.written {
                return Ok(Step::Unfinished);
            } else if limit == whole {
                return Ok(Step::Done);
            }
        }
    }
}

impl CheckedBlock {
    /// Writes to the free capacity of `into`, of which there must be some. Says whether there may be more.
    pub(super) fn write(&mut self, into: &mut Vec<u8>) -> Result<bool, Fault> {
        match self.decoder.step(into)? {
            Step::Full => Ok(true),
            Step::Done => Ok(false),
            // The same bits have come to their end before.
            Step::Unfinished => Err(Fault::Data),
        }
    }
}
