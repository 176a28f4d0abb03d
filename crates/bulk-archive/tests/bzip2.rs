//! What tells bzip2 decoders apart. The independent reader is the `bzip2` crate's serial one; where the expected bytes
//! are known they are compared with those. The files in `tests/data` were made by bzip2, lbzip2 and Python.

mod support;

use std::io::{Cursor, Read, Write};

use bulk_archive::{Codec, Decoder, Error};
use bzip2::{Compression, write::BzEncoder};
use proptest::prelude::*;
use support::{
    Trickle,
    bzip2::{BLOCK, END, borders, check_damaged, compress, magics, serial},
    corrupt_at, decode, decode_from, decode_until, flip, hex, noise, options, sample, truncated_at,
};

/// Five blocks of 100 kB.
fn five_blocks() -> (Vec<u8>, Vec<u8>) {
    let plain = hex(450_000, 1);
    let bytes = compress(&plain, 1);
    assert_eq!(magics(&bytes, BLOCK).len(), 5);
    (plain, bytes)
}

/// Streams of few bytes: two blocks, none, one.
fn tiny() -> (Vec<u8>, Vec<u8>) {
    let mut plain = b"abcdefgh".repeat(14_000);
    let mut bytes = compress(&plain, 1);
    assert_eq!(magics(&bytes, BLOCK).len(), 2);
    bytes.extend(compress(b"", 5));
    bytes.extend(compress(b"id,name\n1,\"a\"\n", 9));
    plain.extend(b"id,name\n1,\"a\"\n");
    (plain, bytes)
}

#[test]
fn files_of_other_programs() {
    let files: [&[u8]; 3] = [
        include_bytes!("data/bzip2.csv.bz2"),
        include_bytes!("data/lbzip2.csv.bz2"),
        include_bytes!("data/python.csv.bz2"),
    ];
    for bytes in files {
        for threads in [0, 1, 2, 7] {
            let (_, plain) = decode_from(Cursor::new(bytes), "a.csv.bz2", threads);
            assert_eq!(plain.unwrap(), sample());
        }
    }
}

#[test]
fn a_file_is_opened_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sample.csv.bz2");
    std::fs::write(&path, include_bytes!("data/bzip2.csv.bz2")).unwrap();
    let mut decoder = Decoder::open(&path, &options(2)).unwrap();
    assert_eq!(decoder.codec(), Codec::Bzip2);
    let progress = decoder.progress();
    let mut plain = Vec::new();
    decoder.read_to_end(&mut plain).unwrap();
    assert_eq!(plain, sample());
    assert_eq!(decoder.read(&mut [0; 8]).unwrap(), 0, "and goes on to be at its end");
    assert_eq!(decoder.compressed_bytes(), 41_510);
    drop(decoder);
    assert_eq!(progress.load(std::sync::atomic::Ordering::Relaxed), 41_510);

    let missing = folder.path().join("missing.bz2");
    match Decoder::open(&missing, &options(2)) {
        Err(Error::Io { file, offset: None, source }) => {
            assert_eq!(file, missing.to_string_lossy());
            assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_of_a_damaged_block_is_handed_out() {
    // A block of 500 kB is handed out in two pieces.
    let large = hex(1_700_000, 11);
    for (plain, bytes) in [five_blocks(), (large.clone(), compress(&large, 5))] {
        let (blocks, borders) = (magics(&bytes, BLOCK), borders(&bytes));
        let ends = blocks.iter().skip(1).copied().chain(magics(&bytes, END));
        for ((&block, end), &border) in blocks.iter().zip(ends).zip(&borders) {
            // In its CRC, with which all its bytes are right; in the code tables; in the middle and at the end of the data.
            for at in [block + 48, block + 79, block + 400, block.midpoint(end), end - 40] {
                check_damaged(&flip(&bytes, at), block, &plain[..border]);
            }
        }
        assert_eq!(borders.last(), Some(&plain.len()));
    }
}

#[test]
fn nothing_of_a_damaged_long_block_is_handed_out() {
    // Blocks that hold some 5 MB each.
    let plain = vec![b'z'; 12_000_000];
    let bytes = compress(&plain, 1);
    let (blocks, borders) = (magics(&bytes, BLOCK), borders(&bytes));
    assert_eq!(blocks.len(), 3);
    for (&block, &border) in blocks.iter().zip(&borders) {
        check_damaged(&flip(&bytes, block + 60), block, &plain[..border]);
    }
    // Whole, though where it ends can no longer be told from its being cut.
    let cut = bytes[..bytes.len() - 8].to_vec();
    let (given, outcome) = decode_until(Cursor::new(cut), "a.bz2", 2);
    assert!(given == plain);
    assert_eq!(truncated_at(outcome.map(|()| given)), Some(blocks[2] as u64 / 8));
}

#[test]
fn nothing_of_a_damaged_randomised_block_is_handed_out() {
    // As bzip2 wrote some before version 0.9.5. So short a block is not changed by it.
    let plain: Vec<Vec<u8>> = (0..4).map(|seed| hex(300, seed)).collect();
    let streams: Vec<Vec<u8>> = plain.iter().map(|plain| flip(&compress(plain, 9), 32 + 48 + 32)).collect();
    let bytes = streams.concat();
    assert_eq!(serial(&bytes), Some(plain.concat()));
    assert_eq!(decode(&bytes, "a.bz2").unwrap(), plain.concat());
    for (n, block) in magics(&bytes, BLOCK).into_iter().enumerate() {
        for at in [48, 79, 700, streams[n].len() * 8 - 160] {
            check_damaged(&flip(&bytes, block + at), block, &plain[..n].concat());
        }
    }
}

#[test]
fn wrong_stream_checksum() {
    let (plain, bytes) = five_blocks();
    let end = magics(&bytes, END)[0];
    for bit in [48, 79] {
        let (length, outcome) = decode_from(Cursor::new(flip(&bytes, end + bit)), "a.bz2", 2);
        assert_eq!(corrupt_at(outcome), Some(end as u64 / 8));
        assert_eq!(length, plain.len());
    }
    // Of an empty stream.
    assert_eq!(corrupt_at(decode(&flip(&compress(b"", 9), 100), "a.bz2")), Some(4));
}

#[test]
fn wrong_magic() {
    let (_, bytes) = five_blocks();
    let blocks = magics(&bytes, BLOCK);
    let end = magics(&bytes, END)[0];
    // The block before no longer ends where a magic stands.
    assert_eq!(corrupt_at(decode(&flip(&bytes, blocks[2] + 7), "a.bz2")), Some(blocks[1] as u64 / 8));
    assert_eq!(corrupt_at(decode(&flip(&bytes, end + 47), "a.bz2")), Some(blocks[4] as u64 / 8));
    // That of the second stream's first block.
    let two = [bytes.as_slice(), &bytes].concat();
    let second = bytes.len() + 4;
    assert_eq!(corrupt_at(decode(&flip(&two, second * 8 + 20), "a.bz2")), Some(second as u64));
}

#[test]
fn cut_in_half() {
    let (_, bytes) = five_blocks();
    let blocks = magics(&bytes, BLOCK);
    let half = bytes.len() / 2;
    let last = *blocks.iter().rfind(|&&block| block / 8 + 7 <= half).unwrap();
    assert_eq!(truncated_at(decode(&bytes[..half], "a.bz2")), Some(last as u64 / 8));
}

#[test]
fn cut_in_the_second_stream() {
    let (_, bytes) = five_blocks();
    let two = [bytes.as_slice(), &bytes].concat();
    let second = bytes.len() as u64;
    let at = |cut: usize| truncated_at(decode(&two[..bytes.len() + cut], "a.bz2"));
    // Within its header, before, in and after the first magic, and in its first block.
    for cut in 1..4 {
        assert_eq!(at(cut), Some(second), "{cut}");
    }
    assert_eq!(at(4), Some(second + 4));
    for cut in 5..=10 {
        assert_eq!(at(cut), Some(second), "{cut}");
    }
    assert_eq!(at(11), Some(second + 4));
    assert_eq!(at(5_000), Some(second + 4));
}

#[test]
fn five_bytes_cut_off_the_tail() {
    let (plain, bytes) = five_blocks();
    let end = magics(&bytes, END)[0] as u64 / 8;
    let block = magics(&bytes, BLOCK)[4] as u64 / 8;
    for cut in 1..=10 {
        let (length, outcome) = decode_from(Cursor::new(bytes[..bytes.len() - cut].to_vec()), "a.bz2", 2);
        // A trailer is known as such by its magic, which lies in seven bytes; without it, the block has no end.
        let known = (bytes.len() - cut) as u64 >= end + 7;
        assert_eq!(truncated_at(outcome), Some(if known { end } else { block }), "{cut}");
        assert_eq!(length, plain.len());
    }
}

#[test]
fn what_is_no_bzip2() {
    let mismatch = |bytes: &[u8]| match decode(bytes, "data/A.CSV.BZ2") {
        Err(Error::CodecMismatch { file, named: Codec::Bzip2, found }) if file == "data/A.CSV.BZ2" => found,
        other => panic!("{other:?}"),
    };
    assert_eq!(mismatch(b""), Codec::Plain);
    assert_eq!(mismatch(b"id,name\n1,a\n"), Codec::Plain);
    assert_eq!(mismatch(b"BZ"[..1].repeat(3).as_slice()), Codec::Plain);
    assert_eq!(mismatch(b"BZh01AY&SY\0\0\0\0"), Codec::Plain);
    assert_eq!(mismatch(b"\x1f\x8b\x08\0\0\0\0\0\0\0"), Codec::Gzip);
    assert_eq!(mismatch(b"\x28\xb5\x2f\xfd\0\0\0\0\0\0"), Codec::Zstd);
    assert_eq!(mismatch(b"\xfd7zXZ\0\0\0\0\0"), Codec::Xz);
    // Without a claim, it is taken as it is.
    assert_eq!(decode(b"", "a.csv").unwrap(), b"");
    assert_eq!(decode(b"BZh9 and no more", "a.csv").unwrap(), b"BZh9 and no more");
    // A claim is not needed.
    assert_eq!(decode(&compress(b"id\n", 9), "-").unwrap(), b"id\n");
}

#[test]
fn trailing_garbage() {
    let (plain, bytes) = tiny();
    for garbage in [b"x".as_slice(), b"BZH9", b"BZh0", b"BZx", b"\xff\0\0\0", b"\x1f\x8b\x08"] {
        let (length, outcome) = decode_from(Cursor::new([bytes.as_slice(), garbage].concat()), "a.bz2", 2);
        assert_eq!(corrupt_at(outcome), Some(bytes.len() as u64), "{garbage:?}");
        assert_eq!(length, plain.len());
    }
    // A whole header, and then no block.
    let header = [bytes.as_slice(), b"BZh9 nonsense"].concat();
    assert_eq!(corrupt_at(decode(&header, "a.bz2")), Some(bytes.len() as u64 + 4));
    // A stream that does not follow at once.
    let apart = [bytes.as_slice(), &[0; 3], &bytes].concat();
    assert_eq!(corrupt_at(decode(&apart, "a.bz2")), Some(bytes.len() as u64 + 3));
    let far = [bytes.as_slice(), &vec![0; 6_000_000], b"x\0\0\0"].concat();
    assert_eq!(corrupt_at(decode(&far, "a.bz2")), Some(bytes.len() as u64 + 6_000_000));
    let noisy = [bytes.as_slice(), &noise(6_000_000, 3)].concat();
    assert_eq!(corrupt_at(decode(&noisy, "a.bz2")), Some(bytes.len() as u64));
}

#[test]
fn zero_padding() {
    let (plain, bytes) = tiny();
    for zeros in [1, 3, 4, 7, 512, 6_000_000] {
        let padded = [bytes.as_slice(), &vec![0; zeros]].concat();
        assert_eq!(decode(&padded, "a.bz2").unwrap(), plain, "{zeros}");
    }
}

#[test]
fn many_streams() {
    let parts: [(&[u8], u32); 9] = [
        (b"", 9),
        (b"a", 1),
        (b"", 1),
        (b"", 5),
        (&hex(250_000, 4), 1),
        (&hex(950_000, 5), 9),
        (&hex(150_000, 6), 1),
        (b"", 9),
        (b"b", 2),
    ];
    let bytes: Vec<u8> = parts.iter().flat_map(|(plain, level)| compress(plain, *level)).collect();
    let plain: Vec<u8> = parts.iter().flat_map(|(plain, _)| plain.to_vec()).collect();
    assert_eq!(decode(&bytes, "a.bz2").unwrap(), plain);

    let parts: Vec<Vec<u8>> = (0..60).map(|i| hex(100_000 + 20 * i, i as u64)).collect();
    let bytes: Vec<u8> = parts.iter().flat_map(|plain| compress(plain, 1)).collect();
    assert_eq!(decode(&bytes, "a.bz2").unwrap(), parts.concat());
}

#[test]
fn an_export_of_nothing_is_fourteen_bytes() {
    let bytes = b"BZh9\x17\x72\x45\x38\x50\x90\0\0\0\0";
    assert_eq!(decode(bytes, "a.csv.bz2").unwrap(), b"");
    assert_eq!(decode(&bytes.repeat(1_000), "a.csv.bz2").unwrap(), b"");
}

#[test]
fn a_run_of_one_byte() {
    const LEN: usize = 230_000_000;
    let mut encoder = BzEncoder::new(Vec::new(), Compression::best());
    let megabyte = vec![b'z'; 1_000_000];
    for _ in 0..LEN / megabyte.len() {
        encoder.write_all(&megabyte).unwrap();
    }
    let bytes = encoder.finish().unwrap();
    assert!(bytes.len() < 1_000, "{}", bytes.len());
    let mut decoder = Decoder::new(Cursor::new(bytes), "a.bz2", &options(2)).unwrap();
    let (mut length, mut buffer) = (0, vec![0; megabyte.len()]);
    loop {
        let n = decoder.read(&mut buffer).unwrap();
        if n == 0 {
            break;
        }
        assert!(buffer[..n] == megabyte[..n], "another byte after byte {length}");
        length += n;
    }
    assert_eq!(length, LEN);
}

#[test]
fn the_level_is_a_limit() {
    let mut bytes = compress(&hex(250_000, 7), 9);
    bytes[3] = b'3';
    assert_eq!(decode(&bytes, "a.bz2").unwrap(), hex(250_000, 7));
    bytes[3] = b'2';
    assert_eq!(serial(&bytes), None);
    assert_eq!(corrupt_at(decode(&bytes, "a.bz2")), Some(4));
}

#[test]
fn a_block_that_never_ends() {
    // The data of the second block are those of a longer one, cut: no end symbol comes for megabytes.
    let long = compress(&noise(900_000, 8), 9);
    let first = compress(&hex(50_000, 9), 9);
    let bytes = [first.as_slice(), &long[..500_000], &noise(8_000_000, 10)].concat();
    assert_eq!(corrupt_at(decode(&bytes, "a.bz2")), Some(first.len() as u64 + 4));
}

#[test]
fn every_length_of_a_small_file() {
    let (plain, bytes) = tiny();
    assert_eq!(decode(&bytes, "a.bz2").unwrap(), plain);
    let streams: Vec<usize> = [compress(&plain[..112_000], 1).len(), compress(b"", 5).len()]
        .iter()
        .scan(0, |end, length| {
            *end += length;
            Some(*end)
        })
        .collect();
    for length in 1..bytes.len() {
        let outcome = decode(&bytes[..length], "a.bz2");
        if streams.contains(&length) {
            assert_eq!(outcome.unwrap(), plain[..112_000], "{length}");
        } else {
            assert!(truncated_at(outcome).is_some_and(|at| at <= length as u64), "{length}");
        }
    }
}

#[test]
fn every_bit_of_a_small_file() {
    let (plain, bytes) = tiny();
    let borders = borders(&bytes);
    let mut harmless = 0;
    for bit in 0..bytes.len() * 8 {
        let flipped = flip(&bytes, bit);
        let (given, outcome) = decode_until(Cursor::new(flipped.clone()), "a.bz2", 2);
        match outcome {
            Ok(()) => {
                assert_eq!(given, plain, "bit {bit}");
                assert_eq!(serial(&flipped), Some(given), "bit {bit}");
                harmless += 1;
            }
            Err(error) => {
                assert!(plain.starts_with(&given) && borders.contains(&given.len()), "bit {bit}");
                assert!(matches!(error, Error::Corrupt { .. } | Error::Truncated { .. } | Error::CodecMismatch { .. }));
            }
        }
    }
    // Levels, padding, unused code lengths: bits that do not matter.
    assert!(harmless < 200, "{harmless}");
}

#[test]
fn short_reads() {
    let (plain, bytes) = tiny();
    for most in [1, 2, 3, 7] {
        let (_, outcome) = decode_from(Trickle::new(Cursor::new(bytes.clone()), most), "a.bz2", 2);
        assert_eq!(outcome.unwrap(), plain);
    }
    let (plain, bytes) = five_blocks();
    for most in [1, 2, 100, 5_000, 60_000] {
        let (_, outcome) = decode_from(Trickle::new(Cursor::new(bytes.clone()), most), "a.bz2", 2);
        assert_eq!(outcome.unwrap(), plain);
    }
}

#[test]
fn a_failed_decoder_stays_failed() {
    let (_, bytes) = tiny();
    let mut decoder = Decoder::new(Cursor::new(bytes[..bytes.len() - 1].to_vec()), "a.bz2", &options(2)).unwrap();
    let first = decoder.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(first.kind(), std::io::ErrorKind::UnexpectedEof);
    for _ in 0..3 {
        let again = decoder.read(&mut [0; 8]).unwrap_err();
        assert_eq!(again.to_string(), first.to_string());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn random_files_are_decoded_as_by_the_serial_decoder(
        parts in prop::collection::vec((0usize..4, 0usize..260_000, 1u32..=9, any::<u64>()), 1..6),
        most in 1usize..100_000,
        threads in 1usize..5,
        damage in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut plain = Vec::new();
        let mut bytes = Vec::new();
        for (kind, len, level, seed) in parts {
            let part = match kind {
                0 => noise(len, seed),
                1 => hex(len, seed),
                2 => noise(1 + len / 300, seed).iter().flat_map(|&byte| vec![byte; 300]).collect(),
                _ => sample()[..len.min(200_000)].to_vec(),
            };
            bytes.extend(compress(&part, level));
            plain.extend(part);
        }
        let expected = serial(&bytes);
        prop_assert_eq!(expected.as_ref(), Some(&plain));
        let (_, outcome) = decode_from(Trickle::new(Cursor::new(bytes.clone()), most), "-", threads);
        prop_assert_eq!(outcome.as_ref().ok(), Some(&plain));

        let borders = borders(&bytes);
        for bit in damage {
            bytes = flip(&bytes, bit.index(bytes.len() * 8));
        }
        if let Some(length) = cut {
            bytes.truncate(length.index(bytes.len()));
        }
        let (given, outcome) = decode_until(Cursor::new(bytes.clone()), "a.bz2", threads);
        prop_assert!(plain.starts_with(&given), "a wrong byte among {}", given.len());
        prop_assert!(borders.contains(&given.len()), "{} bytes are no whole blocks", given.len());
        if outcome.is_ok() {
            prop_assert_eq!(serial(&bytes), Some(given));
        }
    }
}
