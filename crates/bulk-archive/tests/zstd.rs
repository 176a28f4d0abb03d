//! Zstandard: frames, damage. The file in `tests/data` was made by the program itself.

mod support;

use std::io::Cursor;

use bulk_archive::{Codec, Error};
use support::{Trickle, corrupt_at, decode, decode_from, hex, sample, truncated_at};

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
    assert_eq!(decode(FILE, "a.csv.zst").unwrap(), sample());
    assert_eq!(decode(FILE, "-").unwrap(), sample());
    for most in [1, 9, 70_000] {
        assert_eq!(decode_from(Trickle::new(FILE, most), "a.zst", 1).1.unwrap(), sample());
    }
}

#[test]
fn many_frames() {
    let parts = [b"".to_vec(), hex(300_000, 1), b"".to_vec(), b"".to_vec(), b"a".to_vec(), sample()];
    let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec();
    let bytes: Vec<u8> = parts.iter().flat_map(|part| [skippable.clone(), compress(part)].concat()).collect();
    assert_eq!(decode(&bytes, "a.zst").unwrap(), parts.concat());
    assert_eq!(decode_from(Trickle::new(Cursor::new(bytes), 3), "a.zst", 1).1.unwrap(), parts.concat());
}

#[test]
fn every_length() {
    let first = compress(b"id,name\n");
    let bytes = [first.as_slice(), &compress(&hex(400, 2))].concat();
    for length in 1..bytes.len() {
        let outcome = decode(&bytes[..length], "a.zst");
        if length == first.len() {
            assert_eq!(outcome.unwrap(), b"id,name\n");
        } else {
            assert_eq!(truncated_at(outcome), Some(length as u64), "{length}");
        }
    }
    for length in (1..FILE.len()).step_by(37) {
        assert_eq!(truncated_at(decode(&FILE[..length], "a.zst")), Some(length as u64), "{length}");
    }
}

#[test]
fn every_bit() {
    let plain = hex(200, 3);
    let bytes = compress(&plain);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match decode(&flipped, "a.zst") {
            Ok(decoded) => assert_eq!(decoded, plain, "{bit}"),
            Err(error) => assert!(!matches!(error, Error::Io { .. } | Error::CodecDisabled { .. }), "{error}"),
        }
    }
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
        match decode(bytes, "a.zst") {
            Err(Error::CodecMismatch { named: Codec::Zstd, found: Codec::Plain, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}
