//! Places in a bzip2 file at which its decoding begins anew.

mod support;

use std::io::{Cursor, Read};

use bulk_archive::{Checkpoint, Decoder, Error};
use proptest::prelude::*;
use support::{
    bzip2::{BLOCK, compress, magics},
    corrupt_at, flip, hex, noise, options, truncated_at,
};

fn decoder(bytes: &[u8], threads: usize) -> Decoder {
    Decoder::new(Cursor::new(bytes.to_vec()), "a.csv.bz2", &options(threads)).unwrap()
}

/// All places of a file, as they are told while it is read by pieces of this size, and its plain bytes.
fn places(bytes: &[u8], piece: usize) -> (Vec<Checkpoint>, Vec<u8>) {
    let mut decoder = decoder(bytes, 2);
    let (mut places, mut plain, mut buffer) = (Vec::new(), Vec::new(), vec![0; piece]);
    assert_eq!(decoder.checkpoint(), None);
    loop {
        let read = decoder.read(&mut buffer).unwrap();
        plain.extend_from_slice(&buffer[..read]);
        let place = decoder.checkpoint().unwrap();
        assert!(place.offset() <= plain.len() as u64);
        if places.last() != Some(&place) {
            places.push(place);
        }
        if read == 0 {
            return (places, plain);
        }
    }
}

/// Reads on.
fn rest(decoder: &mut Decoder) -> Result<Vec<u8>, Error> {
    let mut rest = Vec::new();
    match decoder.read_to_end(&mut rest) {
        Ok(_) => Ok(rest),
        Err(error) => Err(*error.into_inner().unwrap().downcast().unwrap()),
    }
}

#[test]
fn each_block_begins_at_a_place() {
    let plain = hex(450_000, 1);
    let bytes = compress(&plain, 1);
    let blocks = magics(&bytes, BLOCK);
    assert_eq!(blocks.len(), 5);
    let (places, read) = places(&bytes, 7000);
    assert!(read == plain);
    // And the trailer, behind which nothing comes.
    assert_eq!(places.len(), 6);
    for (place, bit) in places.iter().zip(&blocks) {
        assert_eq!(place.compressed_bytes(), *bit as u64 / 8);
    }
    assert_eq!((places[0].offset(), places[5].offset()), (0, 450_000));
    for place in &places {
        assert_eq!(place.to_string().parse().as_ref(), Ok(place));
    }
}

#[test]
fn what_is_left_out_is_not_decoded() {
    let plain = hex(6_000_000, 2);
    let bytes = compress(&plain, 1);
    let blocks = magics(&bytes, BLOCK);
    let (places, _) = places(&bytes, 100_000);
    // Far more blocks than are ever ahead of the reader.
    let damaged = flip(&bytes, blocks[30] + 1000);
    for threads in [1, 2] {
        assert_eq!(corrupt_at(rest(&mut decoder(&damaged, threads))), Some(blocks[30] as u64 / 8));
        let mut decoder = decoder(&damaged, threads);
        let mut first = [0; 5000];
        decoder.read_exact(&mut first).unwrap();
        assert!(decoder.skip_to(&places[40]));
        assert!(rest(&mut decoder).unwrap() == plain[places[40].offset() as usize..]);
        assert_eq!(decoder.compressed_bytes(), bytes.len() as u64);
    }
}

#[test]
fn the_checksum_of_the_stream_covers_what_is_left_out() {
    let bytes = compress(&hex(1_000_000, 3), 1);
    let (places, _) = places(&bytes, 100_000);
    let text = places[8].to_string();
    let (known, crc) = text.rsplit_once(' ').unwrap();
    let crc = u32::from_str_radix(crc, 16).unwrap() ^ 1;
    let mut decoder = decoder(&bytes, 2);
    decoder.skip_to(&format!("{known} {crc:08x}").parse().unwrap());
    let error = rest(&mut decoder).unwrap_err();
    assert!(error.to_string().contains("the checksum of the stream does not match"), "{error}");
}

#[test]
fn a_place_that_is_not_in_the_file_is_an_error() {
    let bytes = compress(&hex(6_000_000, 4), 1);
    let (places, plain) = places(&bytes, 100_000);
    let of = |offset: u64, bit: u64| format!("bzip2 {offset} {bit} 1 00000000").parse::<Checkpoint>().unwrap();
    let bit = magics(&bytes, BLOCK)[50] as u64;
    let skipped = |place: &Checkpoint| {
        let mut decoder = decoder(&bytes, 2);
        assert!(decoder.skip_to(place));
        rest(&mut decoder)
    };
    assert_eq!(corrupt_at(skipped(&of(places[50].offset(), bit + 8))), Some((bit + 8) / 8));
    let end = bytes.len() as u64;
    assert_eq!(corrupt_at(skipped(&of(places[50].offset(), end * 8 - 20))), Some((end * 8 - 20) / 8));
    for bit in [end * 8, u64::MAX] {
        assert_eq!(truncated_at(skipped(&of(places[50].offset(), bit))), Some(bit / 8));
    }
    // It is passed by before anybody looks for it.
    let mut decoder = decoder(&bytes, 2);
    decoder.read_exact(&mut vec![0; plain.len() - 1]).unwrap();
    decoder.skip_to(&of(plain.len() as u64 + 1, 32));
    let error = rest(&mut decoder).unwrap_err();
    assert!(error.to_string().contains("6000001 plain bytes behind which"), "{error}");
}

#[test]
fn other_codecs_have_no_places() {
    let mut decoder = Decoder::new(Cursor::new(b"id\n1\n".to_vec()), "a.csv", &options(1)).unwrap();
    let place = "bzip2 1 32 1 00000000".parse().unwrap();
    assert!(!decoder.skip_to(&place));
    let mut text = String::new();
    decoder.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), decoder.checkpoint()), ("id\n1\n", None));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_same_follows_however_it_was_come_to(
        streams in prop::collection::vec((0..400_000usize, 1..10u32, any::<bool>(), any::<u64>()), 1..4),
        piece in 1000..300_000usize,
        threads in 1..4usize,
        reads in prop::collection::vec((any::<prop::sample::Index>(), 0..200_000usize), 1..6),
    ) {
        let mut bytes = Vec::new();
        for (len, level, is_text, seed) in streams {
            bytes.extend(compress(&if is_text { hex(len, seed) } else { noise(len, seed) }, level));
        }
        let (places, plain) = places(&bytes, piece);
        let mut decoder = decoder(&bytes, threads);
        let mut at = 0;
        // Forwards by turns: a jump, and some bytes that are read.
        for (place, len) in reads {
            let place = place.get(&places);
            prop_assert!(decoder.skip_to(place));
            at = at.max(place.offset() as usize);
            let mut read = vec![0; len.min(plain.len() - at)];
            decoder.read_exact(&mut read).unwrap();
            prop_assert!(read == plain[at..at + read.len()]);
            at += read.len();
            if !read.is_empty() {
                let last = places.iter().rev().find(|place| place.offset() <= at as u64);
                let told = decoder.checkpoint().unwrap();
                prop_assert!(places.contains(&told) && told.offset() <= last.unwrap().offset());
            }
        }
        prop_assert!(rest(&mut decoder).unwrap() == plain[at..]);
    }
}
