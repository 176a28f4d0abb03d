/// Reads the bits of some bytes, first bit first, 56 at a time. After the bytes it reads zeros.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// The byte up to which the bytes have been read.
    next: usize,
    /// The bits to be read next, from the highest down.
    window: u64,
    /// How many bits of `window` are those up to byte `next`. The bits below are those that follow, or zeros.
    left: u32,
}

impl<'a> BitReader<'a> {
    /// Reads `bytes` from bit `from`.
    pub(super) fn new(bytes: &'a [u8], from: usize) -> BitReader<'a> {
        let mut bits = BitReader { bytes, next: from / 8, window: 0, left: 0 };
        bits.refill();
        bits.skip((from % 8) as u32);
        bits.refill();
        bits
    }

    /// Makes at least 56 bits ready.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        let word = match self.bytes.get(self.next..).and_then(|rest| rest.first_chunk()) {
            Some(chunk) => u64::from_be_bytes(*chunk),
            None => last_word(self.bytes, self.next),
        };
        self.window |= word >> self.left;
        self.next += (63 - self.left) as usize / 8;
        self.left |= 56;
    }

    /// The next `len` bits, 1 to 56, which must be ready and stay so.
    #[inline(always)]
    pub(super) fn peek(&self, len: u32) -> u32 {
        (self.window >> (64 - len)) as u32
    }

    /// Drops `len` bits, which must be ready.
    #[inline(always)]
    pub(super) fn skip(&mut self, len: u32) {
        debug_assert!(len <= self.left);
        self.window <<= len;
        self.left -= len;
    }

    /// Takes the next `len` bits, 1 to 32.
    pub(super) fn take(&mut self, len: u32) -> u32 {
        self.refill();
        let value = self.peek(len);
        self.skip(len);
        value
    }

    /// Takes ones and the zero after them, and counts the ones; none where there are more than `most`, 31 at most.
    pub(super) fn unary(&mut self, most: u32) -> Option<u32> {
        self.refill();
        let ones = self.window.leading_ones();
        (ones <= most).then(|| {
            self.skip(ones + 1);
            ones
        })
    }

    /// The bit of the bytes that is to be read next.
    pub(super) fn position(&self) -> usize {
        self.next * 8 - self.left as usize
    }
}

/// The eight bytes from byte `from` on, of which not all are there.
#[cold]
#[inline(never)]
fn last_word(bytes: &[u8], from: usize) -> u64 {
    let rest = bytes.get(from..).unwrap_or_default();
    let mut chunk = [0; 8];
    chunk[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(chunk)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_are_taken_in_order(
            bytes in prop::collection::vec(any::<u8>(), 0..40),
            from in 0usize..200,
            lengths in prop::collection::vec(1u32..=32, 1..30),
        ) {
            let bit = |at: usize| bytes.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1);
            let (mut reader, mut at) = (BitReader::new(&bytes, from), from);
            for length in lengths {
                let expected = (at..at + length as usize).fold(0u32, |value, at| value << 1 | u32::from(bit(at)));
                prop_assert_eq!(reader.position(), at);
                prop_assert_eq!(reader.take(length), expected);
                at += length as usize;
                let ones = (at..).take_while(|&at| bit(at)).count();
                let unary = reader.unary(6);
                prop_assert_eq!(unary, (ones <= 6).then_some(ones as u32));
                at += unary.map_or(0, |ones| ones as usize + 1);
            }
        }
    }
}
