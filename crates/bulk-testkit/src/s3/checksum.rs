//! The checksums that S3 keeps of an object.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html>

use http::HeaderName;
use sha2::{Digest, Sha256};

use super::xml::base64;

/// An algorithm of the `x-amz-checksum-*` headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Checksum {
    /// CRC-32 as in gzip (ISO 3309).
    Crc32,
    /// CRC-32C, Castagnoli's (RFC 3720).
    Crc32c,
    /// CRC-64/NVME, which S3 computes for every object that comes without a checksum.
    Crc64Nvme,
    /// SHA-256 (FIPS 180-4).
    Sha256,
}

impl Checksum {
    /// The checksum of `bytes` as it stands in the header: base64, of a CRC in big-endian order.
    pub fn of(self, bytes: &[u8]) -> String {
        let mut state = self.start();
        state.update(bytes);
        state.finish()
    }

    pub(super) fn header(self) -> HeaderName {
        HeaderName::from_static(match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Sha256 => "x-amz-checksum-sha256",
        })
    }

    pub(super) fn start(self) -> State {
        match self {
            Self::Crc32 => State::Crc(Crc { tables: &CRC32, value: u32::MAX.into(), width: 4 }),
            Self::Crc32c => State::Crc(Crc { tables: &CRC32C, value: u32::MAX.into(), width: 4 }),
            Self::Crc64Nvme => State::Crc(Crc { tables: &CRC64NVME, value: u64::MAX, width: 8 }),
            Self::Sha256 => State::Sha256(Sha256::new()),
        }
    }
}

/// A checksum under way.
pub(super) enum State {
    Crc(Crc),
    Sha256(Sha256),
}

impl State {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc(crc) => crc.update(bytes),
            Self::Sha256(sha256) => sha256.update(bytes),
        }
    }

    pub(super) fn finish(self) -> String {
        match self {
            Self::Crc(Crc { value, width, .. }) => base64(&(!value).to_be_bytes()[8 - width..]),
            Self::Sha256(sha256) => base64(&sha256.finalize()),
        }
    }
}

/// Of both widths, reflected; the upper half of a 32-bit value is zero.
pub(super) struct Crc {
    tables: &'static Tables,
    value: u64,
    width: usize,
}

impl Crc {
    fn update(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            let mixed = word.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)) ^ self.value;
            self.value = (0..8).fold(0, |value, at| value ^ self.tables[7 - at][(mixed >> (8 * at)) as usize & 0xff]);
        }
        for byte in words.remainder() {
            self.value = self.value >> 8 ^ self.tables[0][(self.value as u8 ^ byte) as usize];
        }
    }
}

/// For each of eight places ahead, what a byte there does to the value.
type Tables = [[u64; 256]; 8];

static CRC32: Tables = tables(0xedb8_8320);
static CRC32C: Tables = tables(0x82f6_3b78);
static CRC64NVME: Tables = tables(0x9a6c_9329_ac4b_c9b5);

const fn tables(polynomial: u64) -> Tables {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ polynomial } else { value >> 1 };
            bit += 1;
        }
        tables[0][byte] = value;
        byte += 1;
    }
    let mut place = 1;
    while place < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before: u64 = tables[place - 1][byte];
            tables[place][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        place += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::Checksum::{self, *};

    /// The check values of the catalogue of CRC algorithms, `printf 123456789 | sha256sum`, and lengths that are no
    /// multiple of eight.
    #[test]
    fn the_catalogues_check_values() {
        let hex = |text: &str| super::base64(&super::super::xml::unhex(text).expect("digits"));
        let cases: [(Checksum, &str); 4] = [
            (Crc32, "cbf43926"),
            (Crc32c, "e3069283"),
            (Crc64Nvme, "ae8b14860a799888"),
            (Sha256, "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
        ];
        for (checksum, expected) in cases {
            assert_eq!(checksum.of(b"123456789"), hex(expected), "{checksum:?}");
            let mut state = checksum.start();
            [&b"1"[..], b"2345", b"", b"6789"].into_iter().for_each(|part| state.update(part));
            assert_eq!(state.finish(), hex(expected), "{checksum:?} in parts");
        }
    }
}
