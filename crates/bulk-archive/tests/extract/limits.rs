//! Archives made to fill the disk.

use std::{
    fs,
    io::{self, Read},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bulk_archive::{Error, ExtractOptions, Limit, extract};

use super::support::*;

/// So many zeros behind something, compressed.
fn zeros_of(encode: impl FnOnce(&mut dyn Read) -> Vec<u8>, before: &[u8], bytes: u64) -> Vec<u8> {
    encode(&mut before.chain(io::repeat(0).take(bytes)))
}

fn zstd_of(from: &mut dyn Read) -> Vec<u8> {
    zstd::encode_all(from, 1).unwrap()
}

fn gzip_of(from: &mut dyn Read) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    io::copy(from, &mut encoder).unwrap();
    encoder.finish().unwrap()
}

/// A bomb is stopped, with no more than `most` bytes ever asked for and none left.
#[track_caller]
fn check(bytes: Vec<u8>, name: &str, mut options: ExtractOptions, limit: Limit, most: u64) {
    let place = Place::new();
    let asked = Arc::new(AtomicU64::new(0));
    let sum = Arc::clone(&asked);
    options.on_write = Some(Arc::new(move |bytes| {
        sum.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }));
    match place.extract(&bytes, name, &options) {
        Err(Error::LimitExceeded { limit: found, .. }) => assert_eq!(found, limit),
        other => panic!("{other:?}"),
    }
    assert!(asked.load(Ordering::Relaxed) <= most, "{}", asked.load(Ordering::Relaxed));
    assert!(place.paths().is_empty(), "{:?}", place.paths());
}

#[test]
fn ten_gigabytes_of_zeros() {
    const BYTES: u64 = 10_000_000_000;
    let plain = zeros_of(zstd_of, b"", BYTES);
    let tar = zeros_of(zstd_of, &header(&file("zeros", b""), 7 << 30), BYTES);
    assert!(plain.len() < 2_000_000 && tar.len() < 2_000_000);
    let slack = 20 << 20;
    let compressed = plain.len().min(128 << 10) as f64;
    let expected = ((64 << 20) + slack).max((1000.0 * compressed) as u64 + slack);
    check(plain.clone(), "a.zst", ExtractOptions::default(), Limit::Ratio(1000.0), expected);
    check(tar.clone(), "a.tar.zst", ExtractOptions::default(), Limit::Ratio(1000.0), expected);
    let mut options = ExtractOptions::default();
    (options.max_ratio, options.max_bytes) = (None, Some(100_000_000));
    check(plain, "a.zst", options.clone(), Limit::Bytes(100_000_000), 100_000_000);
    // The header says it before a byte is written.
    check(tar, "a.tar.zst", options, Limit::Bytes(100_000_000), 0);
}

#[test]
fn gzip_at_its_densest() {
    let bytes = zeros_of(gzip_of, b"", 300_000_000);
    check(bytes, "a.gz", ExtractOptions::default(), Limit::Ratio(1000.0), 300_000_000);
    // What is as dense, but small, is no bomb.
    let place = Place::new();
    let extracted = place.extract(&zeros_of(gzip_of, b"", 60 << 20), "a.gz", &ExtractOptions::default()).unwrap();
    assert_eq!(extracted.bytes, 60 << 20);
}

#[test]
fn holes_count() {
    let records = [
        record("GNU.sparse.major", b"1"),
        record("GNU.sparse.minor", b"0"),
        record("GNU.sparse.name", b"hole"),
        record("GNU.sparse.realsize", b"9000000000000000000"),
    ]
    .concat();
    let data = [b"0\n".as_slice(), &[0; 510]].concat();
    let bytes = archive(&[raw(b'x', "x", "", &records), file("y", &data)]);
    check(bytes.clone(), "a.tar", ExtractOptions::default(), Limit::Ratio(1000.0), 0);
    let mut options = ExtractOptions::default();
    options.max_bytes = Some(1 << 40);
    check(bytes, "a.tar", options, Limit::Bytes(1 << 40), 0);
}

#[test]
fn many_members() {
    let members: Vec<String> = (0..101).map(|i| i.to_string()).collect();
    let members: Vec<_> = members.iter().map(|name| file(name, b"1")).collect();
    let mut options = ExtractOptions::default();
    options.max_entries = Some(100);
    let place = Place::new();
    match place.extract(&archive(&members), "a.tar", &options) {
        Err(Error::LimitExceeded { member: Some(member), limit, .. }) => {
            assert_eq!((member.as_str(), limit), ("100", Limit::Entries(100)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(place.paths().len(), 100);
    options.max_entries = Some(101);
    assert_eq!(place.extract(&archive(&members), "a.tar", &options).unwrap().files, 101);
}

#[test]
fn deep_and_long_paths() {
    let mut options = ExtractOptions::default();
    (options.max_depth, options.max_path_length) = (3, 20);
    check(archive(&[folder("a/b/c/d")]), "a.tar", options.clone(), Limit::Depth(3), 0);
    check(archive(&[file("123456789012345678901", b"")]), "a.tar", options.clone(), Limit::PathLength(20), 0);
    check(archive(&[symlink("l", "123456789012345678901")]), "a.tar", options, Limit::PathLength(20), 0);
    let deep = "d/".repeat(130);
    let bytes = archive(&[raw(b'L', "././@LongLink", "", deep.as_bytes()), folder("d")]);
    check(bytes, "a.tar", ExtractOptions::default(), Limit::Depth(128), 0);
}

#[test]
fn all_that_is_written_is_asked_for() {
    let data = vec![1; 20 << 20];
    let tar = archive(&[file("a", &data), file("b", b"12345"), file("c", b"")]);
    let inputs: [(&[u8], &str, u64, &[u64]); 2] =
        [(&tar, "a.tar", (20 << 20) + 5, &[8 << 20, 8 << 20, 4 << 20, 5]), (&data, "a", 20 << 20, &[])];
    for (bytes, name, sum, steps) in inputs {
        let place = Place::new();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&asked);
        let mut options = ExtractOptions::default();
        options.on_write = Some(Arc::new(move |bytes| {
            all.lock().unwrap().push(bytes);
            Ok(())
        }));
        let extracted = place.extract(bytes, name, &options).unwrap();
        let asked = asked.lock().unwrap();
        assert_eq!((extracted.bytes, asked.iter().sum()), (sum, sum));
        assert!(asked.iter().all(|&bytes| bytes <= 8 << 20));
        assert!(steps.is_empty() || *asked == steps, "{asked:?}");
    }
}

#[test]
fn a_budget_that_refuses() {
    let place = Place::new();
    let left = AtomicU64::new(9 << 20);
    let mut options = ExtractOptions::default();
    options.on_write = Some(Arc::new(move |bytes| {
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes))
            .map(drop)
            .map_err(|_| io::ErrorKind::StorageFull.into())
    }));
    let data = vec![1; 20 << 20];
    match place.extract(&archive(&[file("a", b"1"), file("b", &data), file("c", b"")]), "a.tar", &options) {
        Err(Error::Write { file, member, source }) => {
            assert_eq!((file.as_str(), member.as_str(), source.kind()), ("a.tar", "b", io::ErrorKind::StorageFull));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(place.paths(), ["a"]);
}

/// An input that fails in the middle.
#[test]
fn an_input_that_fails() {
    let place = Place::new();
    let bytes = archive(&[file("a", b"1"), file("b", &[2; 1_000_000]), file("c", b"3")]);
    let input = io::Cursor::new(bytes[..500_000].to_vec()).chain(Fails);
    match extract(input, "a.tar", &place.target(), &ExtractOptions::default()) {
        Err(Error::Io { file, offset: Some(500_000), source }) => {
            assert_eq!((file.as_str(), source.kind()), ("a.tar", io::ErrorKind::ConnectionReset));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(place.paths(), ["a"]);
    assert_eq!(fs::read(place.target().join("a")).unwrap(), b"1");
}

struct Fails;

impl Read for Fails {
    fn read(&mut self, _into: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}
