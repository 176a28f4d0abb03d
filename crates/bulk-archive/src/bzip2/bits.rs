/// A run of bits, first bit first, as bzip2 writes them.
#[derive(Default)]
pub(super) struct Bits {
    bytes: Vec<u8>,
    len: usize,
}

impl Bits {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The bits as bytes; the last one is filled up with zeros.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Like [`bytes`](Bits::bytes).
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Appends `len` bits of `source`, from its bit `from`.
    pub(super) fn push(&mut self, source: &[u8], mut from: usize, mut len: usize) {
        debug_assert!(from + len <= source.len() * 8);
        while len > 0 && !self.len.is_multiple_of(8) {
            let n = len.min(8 - self.len % 8);
            self.push_few(source, from, n);
            (from, len) = (from + n, len - n);
        }
        let (first, shift, whole) = (from / 8, from % 8, len / 8);
        if shift == 0 {
            self.bytes.extend_from_slice(&source[first..first + whole]);
        } else {
            self.push_shifted(&source[first..=first + whole], shift);
        }
        self.len += whole * 8;
        (from, len) = (from + whole * 8, len % 8);
        if len > 0 {
            self.push_few(source, from, len);
        }
    }

    /// Appends all but the first `shift` bits of the first byte and the last `8 - shift` bits of the last one.
    fn push_shifted(&mut self, source: &[u8], shift: usize) {
        let whole = source.len() - 1;
        self.bytes.reserve(whole);
        let mut at = 0;
        while let Some(&[a, b, c, d, e, f, g, h, next]) = source[at..].first_chunk::<9>() {
            let word = u64::from_be_bytes([a, b, c, d, e, f, g, h]) << shift | u64::from(next >> (8 - shift));
            self.bytes.extend_from_slice(&word.to_be_bytes());
            at += 8;
        }
        self.bytes.extend(source[at..].windows(2).map(|pair| pair[0] << shift | pair[1] >> (8 - shift)));
    }

    /// Appends up to 8 bits that stay within the last byte.
    fn push_few(&mut self, source: &[u8], from: usize, len: usize) {
        let (at, shift) = (from / 8, from % 8);
        let pair = u16::from_be_bytes([source[at], source.get(at + 1).copied().unwrap_or(0)]);
        let value = ((pair << shift) >> 8) as u8 & (0xff00u16 >> len) as u8;
        let used = self.len % 8;
        match self.bytes.last_mut() {
            Some(last) if used > 0 => *last |= value >> used,
            _ => self.bytes.push(value),
        }
        self.len += len;
    }
}

/// The `len` bits (32 at most) of `bytes` from bit `from`; none where `bytes` ends before them.
pub(super) fn bits_at(bytes: &[u8], from: usize, len: usize) -> Option<u32> {
    let window = bytes.get(from / 8..(from + len).div_ceil(8))?;
    let value = window.iter().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
    Some((value >> (window.len() * 8 - from % 8 - len) & ((1 << len) - 1)) as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn as_text(bytes: &[u8], from: usize, len: usize) -> String {
        let all: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
        all[from..from + len].to_owned()
    }

    proptest! {
        #[test]
        fn pushed_bits_follow_one_another(
            parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..40), any::<u16>(), any::<u16>()), 0..8),
        ) {
            let (mut bits, mut text) = (Bits::default(), String::new());
            for (source, a, b) in &parts {
                let all = source.len() * 8;
                let from = usize::from(*a) % all;
                let len = usize::from(*b) % (all - from + 1);
                bits.push(source, from, len);
                text.push_str(&as_text(source, from, len));
            }
            prop_assert_eq!(bits.len(), text.len());
            let padded = text.len().next_multiple_of(8);
            prop_assert_eq!(as_text(bits.bytes(), 0, padded), format!("{text:0<padded$}"));
        }

        #[test]
        fn bits_are_read_where_they_stand(source in prop::collection::vec(any::<u8>(), 0..12), from in 0usize..100, len in 1usize..=32) {
            let read = bits_at(&source, from, len);
            let expected = (from + len <= source.len() * 8)
                .then(|| u32::from_str_radix(&as_text(&source, from, len), 2).expect("32 binary digits at most"));
            prop_assert_eq!(read, expected);
        }
    }
}
