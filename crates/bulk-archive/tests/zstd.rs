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

/// A frame's header says how large its window is (RFC 8878, section 3.1.1.1.2).
#[test]
fn a_window_that_takes_too_much_memory_is_refused() {
    // Its magic, no flags, a window of 2^(10 + n), and a raw block, the last one, of three bytes.
    let frame = |n: u8| [&[0x28, 0xb5, 0x2f, 0xfd, 0, n << 3, 3 << 3 | 1, 0, 0], b"id\n".as_slice()].concat();
    assert_eq!(decode(&frame(17), "a.zst").unwrap(), b"id\n");
    for n in [18, 21, 31] {
        let error = decode(&frame(n), "a.zst").unwrap_err();
        assert!(matches!(error, bulk_archive::Error::Corrupt { .. }), "{n}: {error:?}");
    }
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
