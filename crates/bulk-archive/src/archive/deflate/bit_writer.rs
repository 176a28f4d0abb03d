//! Bits as deflate packs them into bytes: the first one lowest (RFC 1951, 3.1.1).

use std::mem;

/// How many bytes there may be room for when nothing is written.
const KEPT: usize = 1 << 20;

/// Bytes that bits are packed into. Room is asked for ahead, so that none is looked for with each code.
#[derive(Default)]
pub(super) struct BitWriter {
    /// As long as there is room.
    bytes: Vec<u8>,
    /// How many of them are written.
    len: usize,
    /// Bits that are not yet, the first one lowest, and how many.
    waiting: u64,
    count: u32,
}

impl BitWriter {
    /// How many bits may wait, at most.
    pub(super) const MOST: u32 = 63;

    /// Begins anew.
    pub(super) fn clear(&mut self) {
        (self.len, self.waiting, self.count) = (0, 0, 0);
    }

    /// Makes room for so many bits.
    pub(super) fn reserve(&mut self, bits: u64) {
        // A flush writes eight bytes, however few of them count.
        let bytes = self.len + (bits / 8) as usize + 16;
        if self.bytes.len() < bytes {
            self.bytes.resize(bytes.max(2 * self.bytes.len()), 0);
        }
    }

    /// How many bits wait: below 8 behind a flush.
    #[inline]
    pub(super) fn waiting(&self) -> u32 {
        self.count
    }

    /// Adds bits, of which no more may wait than [`Self::MOST`].
    #[inline]
    pub(super) fn put(&mut self, bits: u64, count: u32) {
        self.waiting |= bits << self.count;
        self.count += count;
        debug_assert!(self.count <= Self::MOST);
    }

    /// Writes the whole bytes of what waits.
    #[inline]
    pub(super) fn flush(&mut self) {
        self.bytes[self.len..self.len + 8].copy_from_slice(&self.waiting.to_le_bytes());
        let whole = self.count / 8;
        self.len += whole as usize;
        self.waiting >>= 8 * whole;
        self.count %= 8;
    }

    /// Fills up the byte at hand, and writes it.
    pub(super) fn align(&mut self) {
        self.count = self.count.next_multiple_of(8);
        self.flush();
    }

    /// Adds bytes as they are, behind whole ones.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        debug_assert_eq!(self.count, 0);
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// All that was written. What it had room for is kept for the next, unless that is much.
    pub(super) fn written(&mut self) -> Vec<u8> {
        if self.len <= KEPT {
            return self.bytes[..self.len].to_vec();
        }
        let mut bytes = mem::take(&mut self.bytes);
        bytes.truncate(self.len);
        bytes.shrink_to_fit();
        bytes
    }
}
