//! Zstandard: frames, damage. The file in `tests/data` was made by the program itself.

mod support;

use bulk_archive::Codec;
use support::{
    check_every_bit, check_every_length, check_mismatch, check_parts, check_sample, corrupt_at, decode, truncated_at,
};

const FILE: &[u8] = include_bytes!("data/zstd.csv.zst");

/// A frame with a checksum, as the `zstd` program makes them.
fn compress(plain: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).expect("a level that exists");
    encoder.include_checksum(true).expect("a parameter that exists");
    std::io::copy(&mut &plain[..], &mut encoder).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

#[test]
fn a_file_of_zstd() {
    check_sample(FILE, "a.csv.zst");
}

#[test]
fn many_frames() {
    // A skippable frame.
    check_parts(compress, b"\x50\x2a\x4d\x18\x03\0\0\0abc", "a.zst");
}

#[test]
fn every_length() {
    check_every_length(compress, "a.zst");
    for length in (1..FILE.len()).step_by(37) {
        assert_eq!(truncated_at(decode(&FILE[..length], "a.zst")), Some(length as u64), "{length}");
    }
}

#[test]
fn every_bit() {
    check_every_bit(compress, "a.zst", |_, _| true);
}

#[test]
fn what_follows_the_last_frame() {
    let bytes = compress(b"id\n");
    for tail in [b"xxxxxxxx".as_slice(), &[0; 100], b"BZh91AY&SY"] {
        assert!(corrupt_at(decode(&[bytes.as_slice(), tail].concat(), "a.zst")).is_some(), "{tail:?}");
    }
}

#[test]
fn what_is_no_zstd() {
    for bytes in [b"".as_slice(), b"id\n", b"\x28\xb5\x2f\xfe"] {
        check_mismatch(Codec::Zstd, "a.zst", bytes);
    }
}
