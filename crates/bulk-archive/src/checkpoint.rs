use std::{fmt, str::FromStr};

/// A place in a compressed input at which its decoding can begin, such as in another run: where a bzip2 block begins.
///
/// It says where that is, and what has to be known of all before it so that every checksum can still be verified. As text,
/// by [`Display`](fmt::Display) and [`FromStr`], it can be kept; that is of one line and 80 bytes at most, and begins with
/// the codec's name. It holds for the input that it was taken from, byte for byte, and for no other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    /// Plain bytes before it.
    pub(crate) offset: u64,
    /// Bits of the input before it.
    pub(crate) bit: u64,
    /// The level of the stream.
    pub(crate) level: u8,
    /// The checksum of the stream's blocks before it.
    pub(crate) crc: u32,
}

impl Checkpoint {
    /// How many plain bytes lie before it.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many compressed bytes lie before the one that it begins in.
    pub fn compressed_bytes(&self) -> u64 {
        self.bit / 8
    }
}

const CODEC: &str = "bzip2";

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Checkpoint { offset, bit, level, crc } = self;
        write!(f, "{CODEC} {offset} {bit} {level} {crc:08x}")
    }
}

/// A text that is no [`Checkpoint`]'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no place in a compressed file")]
#[non_exhaustive]
pub struct CheckpointError {
    /// What was to be read.
    pub text: String,
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Checkpoint, CheckpointError> {
        let parse = || {
            let [CODEC, offset, bit, level, crc] = text.split(' ').collect::<Vec<_>>()[..] else { return None };
            let level = level.parse().ok().filter(|level| (1..=9).contains(level))?;
            let crc = u32::from_str_radix(crc, 16).ok()?;
            Some(Checkpoint { offset: offset.parse().ok()?, bit: bit.parse().ok()?, level, crc })
        };
        parse().ok_or_else(|| CheckpointError { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_from_its_text() {
        let place = Checkpoint { offset: u64::MAX, bit: u64::MAX, level: 9, crc: 0xab };
        let text = place.to_string();
        assert_eq!(text, "bzip2 18446744073709551615 18446744073709551615 9 000000ab");
        assert_eq!(text.parse(), Ok(place));
        for text in ["", "bzip2", "gzip 1 2 3 4", "bzip2 1 2 0 4", "bzip2 1 2 10 4", "bzip2 1 2 3 x", "bzip2 1 -2 3 4"]
        {
            assert_eq!(text.parse::<Checkpoint>(), Err(CheckpointError { text: text.to_owned() }));
        }
    }
}
