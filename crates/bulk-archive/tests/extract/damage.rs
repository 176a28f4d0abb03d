//! Archives that are cut short, changed or followed by something.

use std::{fs, io::Write};

use bulk_archive::{Codec, Error, ExtractOptions};

use super::support::*;

fn sample() -> Vec<u8> {
    archive(&[folder("d"), file("d/a", b"alpha"), file("d/b", &[b'b'; 1000]), symlink("l", "d/a"), file("c", b"gamma")])
}

/// What is there is whole.
#[track_caller]
fn check_whole(place: &Place, label: usize) {
    for (path, bytes) in [("d/a", b"alpha".as_slice()), ("d/b", &[b'b'; 1000]), ("c", b"gamma")] {
        if let Ok(found) = fs::read(place.target().join(path)) {
            assert_eq!(found, bytes, "{label} {path}");
        }
    }
    assert!(!place.target().join(".bulk-extract").exists());
}

#[test]
fn every_length_of_a_tar() {
    let bytes = sample();
    let end = bytes.len() - 1024;
    for length in (0..end + 512).step_by(7).chain([end - 1, end, end + 1, end + 511]) {
        let place = Place::new();
        match place.extract(&bytes[..length], "a.tar", &ExtractOptions::default()) {
            Err(Error::TarTruncated { file, offset }) => assert_eq!((file.as_str(), offset), ("a.tar", length as u64)),
            other => panic!("{length}: {other:?}"),
        }
        if length > 0 {
            check_whole(&place, length);
        }
        let c = place.target().join("c");
        assert_eq!(c.exists(), length >= end, "{length}");
    }
    // One block of zeros is an end, and so are many.
    for length in [end + 512, end + 600, end + 1024] {
        let place = Place::new();
        assert_eq!(place.extract(&bytes[..length], "a.tar", &ExtractOptions::default()).unwrap().files, 3);
    }
    let place = Place::new();
    place.extract(&[bytes, vec![0; 1_000_000]].concat(), "a.tar", &ExtractOptions::default()).unwrap();
}

#[test]
fn what_follows_the_end() {
    let bytes = sample();
    let end = bytes.len() as u64 - 1024;
    let cases = [
        ([&bytes[..], b"x"].concat(), end + 1024),
        ([&bytes[..], &bytes].concat(), end + 1024),
        ([&bytes[..end as usize + 512], &bytes].concat(), end + 512),
        ([&bytes[..], &[0; 300_000], b"x"].concat(), end + 1024 + 300_000),
    ];
    for (bytes, at) in cases {
        match Place::new().extract(&bytes, "a.tar", &ExtractOptions::default()) {
            Err(Error::Tar { offset, .. }) => assert_eq!(offset, at),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn every_bit_of_the_headers() {
    let bytes = blocks(&[file("first", b"1"), folder("d"), file("d/x", b"2"), symlink("l", "d/x")]);
    let bytes = [bytes, vec![0; 1024]].concat();
    for header in [512 * 2, 512 * 3, 512 * 5] {
        for bit in (header * 8..(header + 512) * 8).step_by(17) {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 0x80 >> (bit % 8);
            let outcome = Place::new().extract(&damaged, "a.tar", &ExtractOptions::default());
            match outcome {
                Err(Error::Tar { offset, .. }) => assert_eq!(offset, header as u64, "{bit}"),
                // The last two bytes of the checksum's field end it, and a NUL is as good as a space.
                Ok(_) => assert!((header + 154..header + 156).contains(&(bit / 8)), "{bit}"),
                other => panic!("{bit}: {other:?}"),
            }
        }
    }
}

#[test]
fn damage_of_the_codec() {
    let noise: Vec<u8> = (0..2_000_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    let tar = archive(&[file("first", b"1"), file("large", &noise), file("last", b"2")]);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&tar).unwrap();
    let whole = encoder.finish().unwrap();
    for length in [10, 1000, whole.len() / 2, whole.len() - 8, whole.len() - 1] {
        let place = Place::new();
        match place.extract(&whole[..length], "a.tar.gz", &ExtractOptions::default()) {
            Err(Error::Truncated { file, codec: Codec::Gzip, offset }) => {
                assert_eq!((file.as_str(), offset), ("a.tar.gz", length as u64));
            }
            other => panic!("{length}: {other:?}"),
        }
        assert!(!place.target().join("last").exists());
    }
    let last = whole.len() - 6;
    let mut damaged = whole.clone();
    damaged[last] ^= 1;
    let place = Place::new();
    match place.extract(&damaged, "a.tar.gz", &ExtractOptions::default()) {
        Err(Error::Corrupt { codec: Codec::Gzip, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(!place.target().join("last").exists());
    // A file is named only when the end was right, and the one before it stays.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&noise).unwrap();
    let mut damaged = encoder.finish().unwrap();
    let last = damaged.len() - 6;
    damaged[last] ^= 1;
    let place = Place::new();
    fs::create_dir(place.target()).unwrap();
    fs::write(place.target().join("a.csv"), b"before").unwrap();
    assert!(place.extract(&damaged, "a.csv.gz", &ExtractOptions::default()).is_err());
    assert_eq!(fs::read(place.target().join("a.csv")).unwrap(), b"before");
    assert_eq!(place.paths(), ["a.csv"]);
}
