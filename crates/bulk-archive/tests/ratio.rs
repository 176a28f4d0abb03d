//! Files that were made to become much: no more comes out of them than is allowed.
#![cfg(all(feature = "bzip2", feature = "gzip", feature = "xz", feature = "zstd"))]

mod support;

use std::io::{self, Cursor, Read, Write};

use bulk_archive::{Decoder, Error, Limit};
use support::{noise, options};

const MIB: usize = 1 << 20;

/// `len` zeros, compressed by each codec.
fn zeros(len: usize) -> [(&'static str, Vec<u8>); 4] {
    fn all<W: Write>(mut encoder: W, len: usize) -> W {
        io::copy(&mut io::repeat(0).take(len as u64), &mut encoder).unwrap();
        encoder
    }
    [
        ("a.gz", all(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best()), len).finish().unwrap()),
        ("a.bz2", all(bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best()), len).finish().unwrap()),
        ("a.xz", all(liblzma::write::XzEncoder::new(Vec::new(), 1), len).finish().unwrap()),
        ("a.zst", all(zstd::Encoder::new(Vec::new(), 1).unwrap(), len).finish().unwrap()),
    ]
}

/// How many bytes come out of it, and the error at their end.
fn read(bytes: Vec<u8>, name: &str, max_ratio: Option<f64>) -> (u64, Option<Error>) {
    let mut options = options(2);
    options.max_ratio = max_ratio;
    let mut decoder = Decoder::new(Cursor::new(bytes), name, &options).unwrap();
    let mut buffer = vec![0; MIB];
    let mut count = 0;
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => return (count, None),
            Ok(read) => count += read as u64,
            Err(error) => {
                // It does not go on behind it.
                assert_eq!(decoder.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
                return (count, Some(error.into_inner().unwrap().downcast::<Error>().map(|error| *error).unwrap()));
            }
        }
    }
}

#[test]
fn what_becomes_too_much_ends_in_an_error() {
    for (name, bytes) in zeros(100 * MIB) {
        let (count, error) = read(bytes.clone(), name, Some(500.0));
        let error = error.unwrap();
        assert!(matches!(error, Error::LimitExceeded { limit: Limit::Ratio(500.0), .. }), "{name}: {error:?}");
        assert_eq!(error.to_string(), format!("{name}: more than 500 bytes for each compressed byte"));
        assert!((63 * MIB as u64..=65 * MIB as u64).contains(&count), "{name}: {count}");
        let all = 100 * MIB as u64;
        let (count, error) = read(bytes, name, None);
        assert!(error.is_none() && count == all, "{name}: {count} {error:?}");
    }
}

#[test]
fn what_is_small_or_honest_does_not() {
    for (name, bytes) in zeros(60 * MIB) {
        let (count, error) = read(bytes, name, Some(1.0));
        assert!(error.is_none() && count == 60 * MIB as u64, "{name}: {count} {error:?}");
    }
    // Behind so much that does not compress, as many zeros are no bomb.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&noise(10 * MIB, 7)).unwrap();
    io::copy(&mut io::repeat(0).take(80 * MIB as u64), &mut encoder).unwrap();
    let (count, error) = read(encoder.finish().unwrap(), "a.gz", Some(10.0));
    assert!(error.is_none() && count == 90 * MIB as u64, "{count} {error:?}");
}
