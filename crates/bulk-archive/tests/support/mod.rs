//! What the tests share. Each uses a part of it.
#![allow(dead_code)]

#[cfg(feature = "bzip2")]
pub(crate) mod bzip2;

use std::{
    fmt::Write,
    io::{self, Cursor, Read},
};

use bulk_archive::{Codec, DecodeOptions, Decoder, Error};

/// The text in the files of `tests/data`, which were written by the programs they are named for.
pub(crate) fn sample() -> Vec<u8> {
    (0..12_000u64)
        .fold(String::new(), |mut text, i| {
            writeln!(text, "{i},{},court-{}", i * 7919 % 1009, i * 31 % 17).expect("a string takes everything");
            text
        })
        .into_bytes()
}

/// Text of which nothing repeats, so that it compresses to about half.
pub(crate) fn hex(len: usize, seed: u64) -> Vec<u8> {
    noise(len.div_ceil(2), seed).iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).take(len).collect()
}

/// Bytes that do not compress (xorshift64*).
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
        })
        .collect()
}

/// The bytes with one bit changed; bit 0 is the highest of the first byte.
pub(crate) fn flip(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[bit / 8] ^= 0x80 >> (bit % 8);
    flipped
}

pub(crate) fn options(threads: usize) -> DecodeOptions {
    let mut options = DecodeOptions::default();
    options.threads = threads;
    options
}

/// Decodes the whole of `bytes`.
pub(crate) fn decode(bytes: &[u8], name: &str) -> Result<Vec<u8>, Error> {
    decode_from(Cursor::new(bytes.to_vec()), name, 2).1
}

/// Decodes the whole of `input`. Gives how many bytes came before the end or the error, too.
pub(crate) fn decode_from(
    input: impl Read + Send + 'static,
    name: &str,
    threads: usize,
) -> (usize, Result<Vec<u8>, Error>) {
    let (plain, outcome) = decode_until(input, name, threads);
    (plain.len(), outcome.map(|()| plain))
}

/// Decodes `input`. Gives what came before the end or the error.
pub(crate) fn decode_until(
    input: impl Read + Send + 'static,
    name: &str,
    threads: usize,
) -> (Vec<u8>, Result<(), Error>) {
    let mut plain = Vec::new();
    let outcome = Decoder::new(input, name, &options(threads)).and_then(|mut decoder| {
        decoder.read_to_end(&mut plain).map_err(|error| error.downcast::<Error>().expect("every error is the crate's"))
    });
    (plain, outcome.map(drop))
}

/// Gives 1 to `most` bytes at a time, and now and then an interruption.
pub(crate) struct Trickle<R> {
    inner: R,
    most: usize,
    turn: u64,
}

impl<R> Trickle<R> {
    pub(crate) fn new(inner: R, most: usize) -> Trickle<R> {
        Trickle { inner, most, turn: 0 }
    }
}

impl<R: Read> Read for Trickle<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.turn = self.turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = (self.turn >> 33) as usize;
        if random % 11 == 10 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let most = into.len().min(1 + random % self.most);
        self.inner.read(&mut into[..most])
    }
}

/// Says whether an error is [`Error::Truncated`], and at which byte.
pub(crate) fn truncated_at(outcome: Result<Vec<u8>, Error>) -> Option<u64> {
    match outcome {
        Err(Error::Truncated { offset, .. }) => Some(offset),
        _ => None,
    }
}

/// Says whether an error is [`Error::Corrupt`], and at which byte.
pub(crate) fn corrupt_at(outcome: Result<Vec<u8>, Error>) -> Option<u64> {
    match outcome {
        Err(Error::Corrupt { offset, .. }) => Some(offset),
        _ => None,
    }
}

/// The file that a program made of [`sample`] is decoded, whatever it is called and however it is read.
#[track_caller]
pub(crate) fn check_sample(file: &'static [u8], name: &str) {
    assert_eq!(decode(file, name).unwrap(), sample());
    assert_eq!(decode(file, "-").unwrap(), sample());
    for most in [1, 9, 70_000] {
        assert_eq!(decode_from(Trickle::new(file, most), name, 1).1.unwrap(), sample());
    }
}

/// What is compressed in parts is decoded as a whole. Each part comes after `between`, of which nothing comes.
#[track_caller]
pub(crate) fn check_parts(compress: fn(&[u8]) -> Vec<u8>, between: &[u8], name: &str) {
    let parts = [b"".to_vec(), hex(300_000, 1), b"".to_vec(), b"".to_vec(), b"a".to_vec(), sample()];
    let bytes: Vec<u8> = parts.iter().flat_map(|part| [between, &compress(part)].concat()).collect();
    assert_eq!(decode(&bytes, name).unwrap(), parts.concat());
    assert_eq!(decode_from(Trickle::new(Cursor::new(bytes), 3), name, 1).1.unwrap(), parts.concat());
}

/// A file of two parts that is cut anywhere but between them is known to be truncated, and where.
#[track_caller]
pub(crate) fn check_every_length(compress: fn(&[u8]) -> Vec<u8>, name: &str) {
    let first = compress(b"id,name\n");
    let bytes = [first.as_slice(), &compress(&hex(400, 2))].concat();
    for length in 1..bytes.len() {
        let outcome = decode(&bytes[..length], name);
        if length == first.len() {
            assert_eq!(outcome.unwrap(), b"id,name\n");
        } else {
            assert_eq!(truncated_at(outcome), Some(length as u64), "{length}");
        }
    }
}

/// A file with a bit changed is decoded to the same, which may only be if `harmless` says so of the bit's byte and the
/// file's length, or is known to be damaged.
#[track_caller]
pub(crate) fn check_every_bit(compress: fn(&[u8]) -> Vec<u8>, name: &str, harmless: impl Fn(usize, usize) -> bool) {
    let plain = hex(200, 3);
    let bytes = compress(&plain);
    for bit in 0..bytes.len() * 8 {
        match decode(&flip(&bytes, bit), name) {
            Ok(decoded) => {
                assert_eq!(decoded, plain, "{bit}");
                assert!(harmless(bit / 8, bytes.len()), "{bit}");
            }
            Err(error) => assert!(!matches!(error, Error::Io { .. } | Error::CodecDisabled { .. }), "{error}"),
        }
    }
}

/// A file that has only its name in common with the codec is refused.
#[track_caller]
pub(crate) fn check_mismatch(codec: Codec, name: &str, bytes: &[u8]) {
    match decode(bytes, name) {
        Err(Error::CodecMismatch { named, found: Codec::Plain, .. }) => assert_eq!(named, codec),
        other => panic!("{other:?}"),
    }
}
