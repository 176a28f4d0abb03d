use serde::{Deserialize, Serialize};

/// The polynomial, lowest power in the highest bit (NVM Command Set specification, 64-bit Guard Protection Information).
const POLYNOMIAL: u64 = 0x9a6c_9329_ac4b_c9b5;

/// The CRC-64/NVME of a stretch of bytes, and its length: all that is needed to join it to the stretches beside it.
///
/// The segments of a file may so be checked in any order: each stretch that has arrived has its own value, neighbours are
/// joined with [`then`](Self::then), and in the end one value is left, the whole object's. Joining takes microseconds,
/// whatever the lengths.
///
/// ```
/// use bulk_core::{Crc64Nvme, Digest};
///
/// let second = Crc64Nvme::of(b"56789");
/// let first = Crc64Nvme::of(b"1234");
/// let whole = first.then(second);
/// assert_eq!(whole, Crc64Nvme::of(b"123456789"));
/// assert_eq!(whole.digest(), Digest::Crc64Nvme(0xae8b_1486_0a79_9888));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Crc64Nvme {
    value: u64,
    len: u64,
}

impl Crc64Nvme {
    /// Of no bytes.
    pub const fn new() -> Self {
        Self { value: 0, len: 0 }
    }

    /// Of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut crc = Self::new();
        crc.update(bytes);
        crc
    }

    /// What [`value`](Self::value) and [`len`](Self::len) gave, as a record of an earlier run or a server has it.
    pub const fn from_parts(value: u64, len: u64) -> Self {
        Self { value, len }
    }

    /// Takes the bytes that follow.
    pub fn update(&mut self, bytes: &[u8]) {
        // The register holds the complement of the value.
        let mut state = crc_fast::Digest::new_with_init_state(crc_fast::CrcAlgorithm::Crc64Nvme, !self.value);
        state.update(bytes);
        self.value = state.finalize();
        self.len += bytes.len() as u64;
    }

    /// The two stretches as one, `next` directly behind this one.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        Self { value: Self::combine(self.value, next.value, next.len), len: self.len + next.len }
    }

    /// The value of two stretches as one, from the value of each and the length in bytes of the second.
    pub fn combine(first: u64, second: u64, second_len: u64) -> u64 {
        // Bytes that follow multiply the first stretch's polynomial by x to the power of their bits. Initial value and
        // final complement, both all ones, cancel out.
        let mut shift = 1 << 63;
        let mut power = POWERS.iter();
        let mut rest = second_len;
        while let (true, Some(power)) = (rest > 0, power.next()) {
            if rest & 1 == 1 {
                shift = multiply(shift, *power);
            }
            rest >>= 1;
        }
        multiply(shift, first) ^ second
    }

    /// The CRC as a number. That of no bytes is 0.
    pub const fn value(&self) -> u64 {
        self.value
    }

    /// Bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether it is of no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value as a digest, to compare with a server's.
    pub const fn digest(&self) -> crate::Digest {
        crate::Digest::Crc64Nvme(self.value)
    }
}

/// The product modulo the polynomial, the lowest power in the highest bit.
const fn multiply(a: u64, b: u64) -> u64 {
    let (mut a, mut b, mut product) = (a, b, 0);
    while a != 0 {
        if a >> 63 == 1 {
            product ^= b;
        }
        a <<= 1;
        b = if b & 1 == 1 { b >> 1 ^ POLYNOMIAL } else { b >> 1 };
    }
    product
}

/// At place n, x to the power of the bits of 2^n bytes.
const POWERS: [u64; 64] = {
    let mut powers = [0; 64];
    // x^8, one byte.
    let mut power = 1 << (63 - 8);
    let mut place = 0;
    while place < 64 {
        powers[place] = power;
        power = multiply(power, power);
        place += 1;
    }
    powers
};
