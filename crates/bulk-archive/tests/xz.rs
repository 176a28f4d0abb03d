//! xz: streams, padding, damage. The file in `tests/data` was made by the program itself.

mod support;

use std::io::{Cursor, Write};

use bulk_archive::{Codec, Error};
use liblzma::write::XzEncoder;
use support::{Trickle, corrupt_at, decode, decode_from, hex, sample, truncated_at};

const FILE: &[u8] = include_bytes!("data/xz.csv.xz");

fn compress(plain: &[u8]) -> Vec<u8> {
    let mut encoder = XzEncoder::new(Vec::new(), 1);
    encoder.write_all(plain).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

#[test]
fn a_file_of_xz() {
    assert_eq!(decode(FILE, "a.csv.xz").unwrap(), sample());
    assert_eq!(decode(FILE, "-").unwrap(), sample());
    for most in [1, 9, 70_000] {
        assert_eq!(decode_from(Trickle::new(FILE, most), "a.xz", 1).1.unwrap(), sample());
    }
}

#[test]
fn many_streams() {
    let parts = [b"".to_vec(), hex(300_000, 1), b"".to_vec(), b"".to_vec(), b"a".to_vec(), sample()];
    let bytes: Vec<u8> = parts.iter().flat_map(|part| compress(part)).collect();
    assert_eq!(decode(&bytes, "a.xz").unwrap(), parts.concat());
    assert_eq!(decode_from(Trickle::new(Cursor::new(bytes), 3), "a.xz", 1).1.unwrap(), parts.concat());
}

#[test]
fn every_length() {
    let first = compress(b"id,name\n");
    let bytes = [first.as_slice(), &compress(&hex(400, 2))].concat();
    for length in 1..bytes.len() {
        let outcome = decode(&bytes[..length], "a.xz");
        if length == first.len() {
            assert_eq!(outcome.unwrap(), b"id,name\n");
        } else {
            assert_eq!(truncated_at(outcome), Some(length as u64), "{length}");
        }
    }
}

#[test]
fn every_bit() {
    let plain = hex(200, 3);
    let bytes = compress(&plain);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match decode(&flipped, "a.xz") {
            Ok(decoded) => assert_eq!(decoded, plain, "{bit}"),
            Err(error) => assert!(!matches!(error, Error::Io { .. } | Error::CodecDisabled { .. }), "{error}"),
        }
    }
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
        match decode(bytes, "a.xz") {
            Err(Error::CodecMismatch { named: Codec::Xz, found: Codec::Plain, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}
