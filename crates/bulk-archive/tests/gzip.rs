//! gzip: members, padding, damage. The file in `tests/data` was made by the program itself.

mod support;

use std::io::{Cursor, Write};

use bulk_archive::{Codec, Error};
use flate2::{Compression, write::GzEncoder};
use support::{Trickle, corrupt_at, decode, decode_from, hex, sample, truncated_at};

const FILE: &[u8] = include_bytes!("data/gzip.csv.gz");

fn compress(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

#[test]
fn a_file_of_gzip() {
    assert_eq!(decode(FILE, "a.csv.gz").unwrap(), sample());
    assert_eq!(decode(FILE, "-").unwrap(), sample());
    for most in [1, 9, 70_000] {
        assert_eq!(decode_from(Trickle::new(FILE, most), "a.gz", 1).1.unwrap(), sample());
    }
}

#[test]
fn many_members() {
    let parts = [b"".to_vec(), hex(300_000, 1), b"".to_vec(), b"".to_vec(), b"a".to_vec(), sample()];
    let bytes: Vec<u8> = parts.iter().flat_map(|part| compress(part)).collect();
    assert_eq!(decode(&bytes, "a.gz").unwrap(), parts.concat());
    assert_eq!(decode_from(Trickle::new(Cursor::new(bytes), 3), "a.gz", 1).1.unwrap(), parts.concat());
}

#[test]
fn every_length() {
    let first = compress(b"id,name\n");
    let bytes = [first.as_slice(), &compress(&hex(400, 2))].concat();
    for length in 1..bytes.len() {
        let outcome = decode(&bytes[..length], "a.gz");
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
        match decode(&flipped, "a.gz") {
            Ok(decoded) => {
                assert_eq!(decoded, plain);
                // The time stamp, the flags that only inform, the system; what fills up the last byte of the data.
                assert!((3..10).contains(&(bit / 8)) || bit / 8 == bytes.len() - 9, "{bit}");
            }
            Err(error) => assert!(!matches!(error, Error::Io { .. } | Error::CodecDisabled { .. })),
        }
    }
}

#[test]
fn what_follows_the_last_member() {
    let bytes = compress(b"id\n");
    for zeros in [1, 511, 1_000_000] {
        assert_eq!(decode(&[bytes.as_slice(), &vec![0; zeros]].concat(), "a.gz").unwrap(), b"id\n");
    }
    let end = bytes.len() as u64;
    assert_eq!(corrupt_at(decode(&[bytes.as_slice(), b"x"].concat(), "a.gz")), Some(end));
    assert_eq!(corrupt_at(decode(&[bytes.as_slice(), b"\0\0x"].concat(), "a.gz")), Some(end + 2));
    assert_eq!(corrupt_at(decode(&[bytes.as_slice(), b"\0", &bytes].concat(), "a.gz")), Some(end + 1));
    let far = [bytes.as_slice(), &vec![0; 1_000_000], &bytes].concat();
    assert_eq!(corrupt_at(decode(&far, "a.gz")), Some(end + 1_000_000));
    assert!(corrupt_at(decode(&[bytes.as_slice(), b"\x1fx and so on, and on"].concat(), "a.gz")).is_some());
}

#[test]
fn what_is_no_gzip() {
    for bytes in [b"".as_slice(), b"id\n", b"\x1f\x8b\x07"] {
        match decode(bytes, "a.gz") {
            Err(Error::CodecMismatch { named: Codec::Gzip, found: Codec::Plain, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}
