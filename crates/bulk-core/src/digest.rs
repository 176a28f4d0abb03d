use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What computes a [`Digest`]. The order is that of strength: of two digests of the same object, the greater algorithm's
/// says more.
///
/// The CRCs find what chance did to the bytes; MD5 also finds most of what people do by mistake; only SHA-256 holds
/// against intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Algorithm {
    /// CRC-32 as in gzip and zip (ISO-HDLC).
    Crc32,
    /// CRC-32C, Castagnoli's polynomial (RFC 3720).
    Crc32c,
    /// CRC-64/NVME, the whole-object checksum that S3 computes by default.
    Crc64Nvme,
    /// MD5 (RFC 1321).
    Md5,
    /// SHA-256 (FIPS 180-4).
    Sha256,
}

impl Algorithm {
    /// All of them, weakest first.
    pub const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Md5, Self::Sha256];

    /// The name in text: `crc32`, `crc32c`, `crc64nvme`, `md5`, `sha256`. S3's headers are `x-amz-checksum-` and this
    /// name, except for `md5`, which has none.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "crc32",
            Self::Crc32c => "crc32c",
            Self::Crc64Nvme => "crc64nvme",
            Self::Md5 => "md5",
            Self::Sha256 => "sha256",
        }
    }
}

/// The name, as [`Algorithm::name`] gives it.
impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    /// Takes a name in any case.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let named = Self::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(text));
        named.ok_or_else(|| DigestError::new(text, "no such algorithm is known"))
    }
}

/// A digest of a whole object.
///
/// In text it is the algorithm's name, a colon and the value in the notation in which people meet it: hexadecimal for
/// `md5` and `sha256`, as `md5sum` and `sha256sum` print them, and base64 of the big-endian bytes for the CRCs, as S3
/// writes them. [`Display`](fmt::Display), [`FromStr`] and serde use that text.
///
/// ```
/// use bulk_core::{Algorithm, Digest};
///
/// let digest = Digest::of(Algorithm::Crc64Nvme, b"123456789");
/// assert_eq!(digest, Digest::Crc64Nvme(0xae8b_1486_0a79_9888));
/// assert_eq!(digest.to_string(), "crc64nvme:rosUhgp5mIg=");
/// assert_eq!("crc64nvme:rosUhgp5mIg=".parse(), Ok(digest));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Digest {
    /// MD5 (RFC 1321).
    Md5([u8; 16]),
    /// SHA-256 (FIPS 180-4).
    Sha256([u8; 32]),
    /// CRC-32 as in gzip and zip (`x-amz-checksum-crc32`).
    Crc32(u32),
    /// CRC-32C, Castagnoli's polynomial (RFC 3720; `x-amz-checksum-crc32c`).
    Crc32c(u32),
    /// CRC-64/NVME (`x-amz-checksum-crc64nvme`).
    Crc64Nvme(u64),
}

impl Digest {
    /// The digest of `bytes`. For what does not stand in memory there is [`Hasher`](crate::Hasher).
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut state = crate::hasher::State::new(algorithm);
        state.update(bytes);
        state.finish()
    }

    /// What computed it.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Md5(_) => Algorithm::Md5,
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Crc32(_) => Algorithm::Crc32,
            Self::Crc32c(_) => Algorithm::Crc32c,
            Self::Crc64Nvme(_) => Algorithm::Crc64Nvme,
        }
    }

    /// The value in lower-case hexadecimal, without the algorithm.
    pub fn to_hex(&self) -> String {
        self.with_bytes(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The value in base64, without the algorithm: the form of S3's headers.
    pub fn to_base64(&self) -> String {
        self.with_bytes(|bytes| BASE64_STANDARD.encode(bytes))
    }

    /// Reads a value in hexadecimal of either case.
    ///
    /// # Errors
    ///
    /// [`DigestError`] if it is none, or not as long as the algorithm's values are.
    pub fn from_hex(algorithm: Algorithm, text: &str) -> Result<Self, DigestError> {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pairs = text.as_bytes().chunks(2);
        let bytes: Option<Vec<u8>> = pairs
            .map(|pair| match pair {
                [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
                _ => None,
            })
            .collect();
        let bytes = bytes.ok_or_else(|| DigestError::new(text, "it is not hexadecimal"))?;
        Self::from_bytes(algorithm, &bytes).ok_or_else(|| DigestError::new(text, "its length is not the algorithm's"))
    }

    /// Reads a value in padded base64, the form of S3's headers.
    ///
    /// # Errors
    ///
    /// [`DigestError`] if it is none, or not as long as the algorithm's values are. S3's composite checksums (`…-3`) are
    /// refused so: they are checksums of checksums of parts, and say nothing of the whole object.
    pub fn from_base64(algorithm: Algorithm, text: &str) -> Result<Self, DigestError> {
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| DigestError::new(text, "it is not base64"))?;
        Self::from_bytes(algorithm, &bytes).ok_or_else(|| DigestError::new(text, "its length is not the algorithm's"))
    }

    fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        Some(match algorithm {
            Algorithm::Md5 => Self::Md5(bytes.try_into().ok()?),
            Algorithm::Sha256 => Self::Sha256(bytes.try_into().ok()?),
            Algorithm::Crc32 => Self::Crc32(u32::from_be_bytes(bytes.try_into().ok()?)),
            Algorithm::Crc32c => Self::Crc32c(u32::from_be_bytes(bytes.try_into().ok()?)),
            Algorithm::Crc64Nvme => Self::Crc64Nvme(u64::from_be_bytes(bytes.try_into().ok()?)),
        })
    }

    fn with_bytes<T>(&self, f: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            Self::Md5(bytes) => f(bytes),
            Self::Sha256(bytes) => f(bytes),
            Self::Crc32(value) | Self::Crc32c(value) => f(&value.to_be_bytes()),
            Self::Crc64Nvme(value) => f(&value.to_be_bytes()),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = match self {
            Self::Md5(_) | Self::Sha256(_) => self.to_hex(),
            Self::Crc32(_) | Self::Crc32c(_) | Self::Crc64Nvme(_) => self.to_base64(),
        };
        write!(f, "{}:{value}", self.algorithm())
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (name, value) = text.split_once(':').ok_or_else(|| DigestError::new(text, "it names no algorithm"))?;
        match name.parse()? {
            algorithm @ (Algorithm::Md5 | Algorithm::Sha256) => Self::from_hex(algorithm, value),
            algorithm => Self::from_base64(algorithm, value),
        }
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Text that is no [`Digest`] or no [`Algorithm`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a digest: {reason}")]
#[non_exhaustive]
pub struct DigestError {
    /// The text, or its first 200 characters.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl DigestError {
    fn new(text: &str, reason: &'static str) -> Self {
        Self { text: text.chars().take(200).collect(), reason }
    }
}
