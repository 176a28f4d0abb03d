//! gzip: members, padding, damage. The file in `tests/data` was made by the program itself.

mod support;

use std::io::Write;

use bulk_archive::Codec;
use flate2::{Compression, write::GzEncoder};
use support::{check_every_bit, check_every_length, check_mismatch, check_parts, check_sample, corrupt_at, decode};

const FILE: &[u8] = include_bytes!("data/gzip.csv.gz");

fn compress(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

#[test]
fn a_file_of_gzip() {
    check_sample(FILE, "a.csv.gz");
}

#[test]
fn many_members() {
    check_parts(compress, b"", "a.gz");
}

#[test]
fn every_length() {
    check_every_length(compress, "a.gz");
}

#[test]
fn every_bit() {
    // The time stamp, the flags that only inform, the system; what fills up the last byte of the data.
    check_every_bit(compress, "a.gz", |byte, len| (3..10).contains(&byte) || byte == len - 9);
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
        check_mismatch(Codec::Gzip, "a.gz", bytes);
    }
}
