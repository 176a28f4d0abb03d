use std::fmt;

/// The first bytes of a bzip2 block and of the end of a bzip2 stream (the digits of pi and of its square root).
const BZIP2_BLOCK: [u8; 6] = [0x31, 0x41, 0x59, 0x26, 0x53, 0x59];
const BZIP2_END: [u8; 6] = [0x17, 0x72, 0x45, 0x38, 0x50, 0x90];

/// How a file's bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// Not compressed, or in no way known here.
    Plain,
    /// gzip ([RFC 1952](https://www.rfc-editor.org/rfc/rfc1952)), any number of members.
    Gzip,
    /// bzip2, any number of streams.
    Bzip2,
    /// Zstandard ([RFC 8878](https://www.rfc-editor.org/rfc/rfc8878)), any number of frames.
    Zstd,
    /// xz, any number of streams.
    Xz,
}

impl Codec {
    /// How many of a file's first bytes [`detect`](Codec::detect) looks at.
    pub const HEAD_LEN: usize = 10;

    /// The codec of a file that begins with `head`.
    ///
    /// Give at least [`HEAD_LEN`](Codec::HEAD_LEN) bytes, or the whole of a shorter file. bzip2 is recognised by its
    /// header and the magic after it, so a text that happens to begin with `BZh9` stays [`Plain`](Codec::Plain);
    /// Zstandard also by a skippable frame, which some parallel compressors write first.
    pub fn detect(head: &[u8]) -> Codec {
        match head {
            [0x1f, 0x8b, 8, ..] => Codec::Gzip,
            [b'B', b'Z', b'h', b'1'..=b'9', magic @ ..]
                if magic.starts_with(&BZIP2_BLOCK) || magic.starts_with(&BZIP2_END) =>
            {
                Codec::Bzip2
            }
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Codec::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Codec::Xz,
            _ => Codec::Plain,
        }
    }

    /// The codec that a file's name claims by its last extension (`.gz`, `.bz2`, `.zst`, `.xz`, in any case);
    /// [`Plain`](Codec::Plain) for every other name.
    pub fn from_name(name: &str) -> Codec {
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        [Codec::Gzip, Codec::Bzip2, Codec::Zstd, Codec::Xz]
            .into_iter()
            .find(|codec| codec.extension().is_some_and(|known| known.eq_ignore_ascii_case(extension)))
            .unwrap_or(Codec::Plain)
    }

    /// The usual extension of the codec's files, without the dot; none for [`Plain`](Codec::Plain).
    pub fn extension(self) -> Option<&'static str> {
        match self {
            Codec::Plain => None,
            Codec::Gzip => Some("gz"),
            Codec::Bzip2 => Some("bz2"),
            Codec::Zstd => Some("zst"),
            Codec::Xz => Some("xz"),
        }
    }

    /// Whether a [`Decoder`](crate::Decoder) gives each byte only after a checksum that covers it was right.
    ///
    /// True for [`Bzip2`](Codec::Bzip2), each of whose blocks (up to 900 kB before the last step of its decoding, which
    /// restores runs) has a CRC-32. What was read of a damaged file before the error consists of whole, undamaged
    /// blocks, so a consumer may keep it as it comes; blocks end anywhere, so the last record may be cut. It is no proof
    /// of a whole file: that a block is missing between two others is only known by the stream's own checksum, at the
    /// stream's end.
    ///
    /// False for [`Gzip`](Codec::Gzip), [`Zstd`](Codec::Zstd) and [`Xz`](Codec::Xz), whose checksums come after data
    /// of any length, and for [`Plain`](Codec::Plain), which has none: throw away what was read unless the end of the
    /// file (`Ok(0)`) follows.
    pub fn checks_before_giving(self) -> bool {
        match self {
            Codec::Bzip2 => true,
            Codec::Plain | Codec::Gzip | Codec::Zstd | Codec::Xz => false,
        }
    }

    /// Whether a whole file that consists of `head` alone is the beginning of a file of this codec, cut before
    /// [`detect`](Codec::detect) could tell.
    pub(crate) fn is_cut_head(self, head: &[u8]) -> bool {
        let cut = |magic: &[u8]| !head.is_empty() && head.len() < magic.len() && magic.starts_with(head);
        match self {
            Codec::Plain => false,
            Codec::Gzip => cut(&[0x1f, 0x8b, 8]),
            Codec::Bzip2 => {
                let level = head.get(3).copied().filter(|level| (b'1'..=b'9').contains(level)).unwrap_or(b'9');
                [BZIP2_BLOCK, BZIP2_END]
                    .iter()
                    .any(|magic| cut(&[[b'B', b'Z', b'h', level].as_slice(), magic.as_slice()].concat()))
            }
            Codec::Zstd => cut(&[0x28, 0xb5, 0x2f, 0xfd]),
            Codec::Xz => cut(&[0xfd, b'7', b'z', b'X', b'Z', 0]),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Codec::Plain => "plain",
            Codec::Gzip => "gzip",
            Codec::Bzip2 => "bzip2",
            Codec::Zstd => "zstd",
            Codec::Xz => "xz",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_tells_the_codec() {
        let cases: [(&[u8], Codec); 12] = [
            (b"", Codec::Plain),
            (b"id,name\n", Codec::Plain),
            (b"BZh9 is how a bzip2 file begins", Codec::Plain),
            (b"BZh91AY&S", Codec::Plain),
            (b"BZh01AY&SY", Codec::Plain),
            (b"BZh91AY&SY", Codec::Bzip2),
            (b"BZh1\x17\x72\x45\x38\x50\x90\0\0\0\0", Codec::Bzip2),
            (b"\x1f\x8b\x08\x00", Codec::Gzip),
            (b"\x1f\x8b\x07\x00", Codec::Plain),
            (b"\x28\xb5\x2f\xfd", Codec::Zstd),
            (b"\x5a\x2a\x4d\x18", Codec::Zstd),
            (b"\xfd7zXZ\0", Codec::Xz),
        ];
        for (head, codec) in cases {
            assert_eq!(Codec::detect(head), codec, "{head:?}");
        }
    }

    #[test]
    fn the_last_extension_names_the_codec() {
        let cases = [
            ("courts-2026-06-30.csv.bz2", Codec::Bzip2),
            ("A.CSV.GZ", Codec::Gzip),
            ("a.tar.zst", Codec::Zstd),
            ("a.xz", Codec::Xz),
            ("a.bz2.csv", Codec::Plain),
            ("dir.gz/a", Codec::Plain),
            ("gz", Codec::Plain),
            ("", Codec::Plain),
        ];
        for (name, codec) in cases {
            assert_eq!(Codec::from_name(name), codec, "{name:?}");
        }
    }

    #[test]
    fn only_bzip2_is_checked_before_it_is_given() {
        let checked =
            [Codec::Plain, Codec::Gzip, Codec::Bzip2, Codec::Zstd, Codec::Xz].map(Codec::checks_before_giving);
        assert_eq!(checked, [false, false, true, false, false]);
    }

    #[test]
    fn a_cut_magic_is_known_as_such() {
        assert!(Codec::Bzip2.is_cut_head(b"B"));
        assert!(Codec::Bzip2.is_cut_head(b"BZh51AY&S"));
        assert!(Codec::Bzip2.is_cut_head(b"BZh9\x17\x72"));
        assert!(!Codec::Bzip2.is_cut_head(b"BZh0\x17\x72"));
        assert!(!Codec::Bzip2.is_cut_head(b""));
        assert!(!Codec::Bzip2.is_cut_head(b"BZh91AY&SY"));
        assert!(Codec::Xz.is_cut_head(b"\xfd7zX"));
        assert!(!Codec::Plain.is_cut_head(b"B"));
    }
}
