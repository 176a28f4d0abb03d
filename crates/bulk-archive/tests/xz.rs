//! xz: streams, padding, damage. The file in `tests/data` was made by the program itself.

mod support;

use std::io::Write;

use bulk_archive::Codec;
use liblzma::write::XzEncoder;
use support::{check_every_bit, check_every_length, check_mismatch, check_parts, check_sample, corrupt_at, decode};

const FILE: &[u8] = include_bytes!("data/xz.csv.xz");

fn compress(plain: &[u8]) -> Vec<u8> {
    let mut encoder = XzEncoder::new(Vec::new(), 1);
    encoder.write_all(plain).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

#[test]
fn a_file_of_xz() {
    check_sample(FILE, "a.csv.xz");
}

#[test]
fn many_streams() {
    check_parts(compress, b"", "a.xz");
}

#[test]
fn every_length() {
    check_every_length(compress, "a.xz");
}

#[test]
fn every_bit() {
    check_every_bit(compress, "a.xz", |_, _| true);
}

#[test]
fn what_follows_the_last_stream() {
    let bytes = compress(b"id\n");
    assert_eq!(decode(&[bytes.as_slice(), &[0; 8]].concat(), "a.xz").unwrap(), b"id\n");
    for tail in [b"xxxxxxxx".as_slice(), &[0; 7], b"\0\0\0\0x"] {
        assert!(decode(&[bytes.as_slice(), tail].concat(), "a.xz").is_err(), "{tail:?}");
    }
    assert!(corrupt_at(decode(&[bytes.as_slice(), b"BZh91AY&SY and more"].concat(), "a.xz")).is_some());
}

/// The block's header says how large the dictionary is (the .xz file format, sections 3.1 and 5.3.1).
#[test]
fn a_dictionary_that_takes_too_much_memory_is_refused() {
    const HEADER: usize = 12;
    let with_dictionary = |bits: u8| {
        let mut bytes = compress(b"id\n1\n");
        let len = (usize::from(bytes[HEADER]) + 1) * 4;
        assert_eq!(bytes[HEADER + 2..HEADER + 4], [0x21, 1], "it has LZMA2 alone, with one byte of properties");
        bytes[HEADER + 4] = bits;
        let crc = crc32fast::hash(&bytes[HEADER..HEADER + len - 4]).to_le_bytes();
        bytes[HEADER + len - 4..HEADER + len].copy_from_slice(&crc);
        bytes
    };
    // 768 MiB, 1 GiB, 4 GiB.
    assert_eq!(decode(&with_dictionary(35), "a.xz").unwrap(), b"id\n1\n");
    for bits in [36, 40] {
        let error = decode(&with_dictionary(bits), "a.xz").unwrap_err();
        assert!(matches!(error, bulk_archive::Error::Corrupt { .. }), "{bits}: {error:?}");
    }
}

#[test]
fn what_is_no_xz() {
    for bytes in [b"".as_slice(), b"id\n", b"\xfd7zXY\0"] {
        check_mismatch(Codec::Xz, "a.xz", bytes);
    }
}
