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

#[test]
fn what_is_no_xz() {
    for bytes in [b"".as_slice(), b"id\n", b"\xfd7zXY\0"] {
        check_mismatch(Codec::Xz, "a.xz", bytes);
    }
}
