//! Each codec, of a file and of a tar.

use std::{fs, io::Write};

use bulk_archive::{Error, ExtractOptions, Refusal};

use super::support::*;

/// Compresses with each codec. The name is its extension.
fn compressed(plain: &[u8]) -> [(&'static str, Vec<u8>); 5] {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(plain).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(plain).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
    xz.write_all(plain).unwrap();
    [
        ("", plain.to_vec()),
        (".gz", gzip.finish().unwrap()),
        (".bz2", bzip2.finish().unwrap()),
        (".xz", xz.finish().unwrap()),
        (".zst", zstd::encode_all(plain, 1).unwrap()),
    ]
}

#[test]
fn a_file_of_each_codec() {
    let plain: Vec<u8> = (0..700_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    for (extension, bytes) in compressed(&plain) {
        let place = Place::new();
        fs::create_dir(place.target()).unwrap();
        fs::write(place.target().join("courts.csv"), b"before").unwrap();
        let name = format!("bulk/courts.csv{extension}");
        let extracted = place.extract(&bytes, &name, &ExtractOptions::default()).unwrap();
        assert_eq!((extracted.files, extracted.bytes, extracted.is_tar), (1, plain.len() as u64, false));
        assert_eq!(extracted.compressed_bytes, bytes.len() as u64, "{extension}");
        assert_eq!(place.paths(), ["courts.csv"]);
        assert!(fs::read(place.target().join("courts.csv")).unwrap() == plain);
        // The content tells the codec where the name does not.
        place.extract(&bytes, "courts", &ExtractOptions::default()).unwrap();
        assert!(fs::read(place.target().join("courts")).unwrap() == plain);
    }
}

#[test]
fn a_tar_of_each_codec() {
    let tar = archive(&[file("a/x", b"1"), file("a/y", &[7; 100_000])]);
    for (extension, bytes) in compressed(&tar) {
        for name in [format!("a.tar{extension}"), "a.tgz".to_owned(), "whatever".to_owned()] {
            let place = Place::new();
            let extracted = place.extract(&bytes, &name, &ExtractOptions::default()).unwrap();
            assert_eq!((extracted.files, extracted.bytes, extracted.is_tar), (2, 100_001, true));
            assert_eq!(place.paths(), ["a", "a/x", "a/y"]);
        }
    }
}

#[test]
fn what_is_a_tar_and_what_is_not() {
    let place = Place::new();
    let options = ExtractOptions::default();
    // Zeros are an empty tar where the name says so, and a file else.
    let extracted = place.extract(&[0; 10_240], "e.tar", &options).unwrap();
    assert_eq!((extracted.files, extracted.is_tar), (0, true));
    assert!(place.paths().is_empty());
    place.extract(&[0; 10_240], "zeros", &options).unwrap();
    assert_eq!(fs::read(place.target().join("zeros")).unwrap(), [0; 10_240]);
    // Something that only looks like one.
    let mut text = vec![b' '; 600];
    text[257..262].copy_from_slice(b"ustar");
    place.extract(&text, "text", &options).unwrap();
    assert_eq!(fs::read(place.target().join("text")).unwrap(), text);
    for name in ["text.tar", "text.tgz"] {
        assert!(matches!(place.extract(&text, name, &options), Err(Error::Tar { offset: 0, .. })));
    }
    for short in [b"".as_slice(), b"id\n", &[0; 511]] {
        match place.extract(short, "short.tar", &options) {
            Err(Error::TarTruncated { offset, .. }) => assert_eq!(offset, short.len() as u64),
            other => panic!("{other:?}"),
        }
    }
    place.extract(b"", "empty.csv", &options).unwrap();
    assert_eq!(place.paths(), ["empty.csv", "text", "zeros"]);
}

#[test]
fn names_of_files() {
    let place = Place::new();
    fs::create_dir_all(place.target().join("folder")).unwrap();
    let cases = [
        ("..", Refusal::ParentFolder),
        ("a/..", Refusal::ParentFolder),
        (".", Refusal::TargetItself),
        ("", Refusal::EmptyName),
        ("a/", Refusal::EmptyName),
        (".bulk-extract", Refusal::Reserved),
        ("x\0y", Refusal::NulInName),
        ("folder", Refusal::FolderInTheWay),
    ];
    for (name, refusal) in cases {
        match place.extract(b"id\n", name, &ExtractOptions::default()) {
            Err(Error::Refused { reason, .. }) => assert_eq!(reason, refusal, "{name:?}"),
            other => panic!("{name:?}: {other:?}"),
        }
        assert_eq!(place.paths(), ["folder"]);
    }
}
