//! What the decoder's threads do when the reader or the input does not play along.

mod support;

use std::{
    io::{self, Cursor, Read},
    sync::mpsc::{self, Receiver, Sender},
};

use bulk_archive::{Decoder, Error};
use support::{bzip2::compress, decode_from, hex, options};

/// Gives its bytes, then blocks until its other end is dropped. Tells when it is dropped itself.
struct Pipe {
    bytes: Cursor<Vec<u8>>,
    more: Receiver<()>,
    _dropped: Sender<()>,
}

impl Pipe {
    fn new(bytes: Vec<u8>) -> (Pipe, Sender<()>, Receiver<()>) {
        let (open, more) = mpsc::channel();
        let (sender, dropped) = mpsc::channel();
        (Pipe { bytes: Cursor::new(bytes), more, _dropped: sender }, open, dropped)
    }
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.bytes.read(into)?;
        if n == 0 {
            // Nothing is ever sent: this ends when the other end is dropped.
            let _ = self.more.recv();
        }
        Ok(n)
    }
}

#[test]
fn blocks_are_handed_out_while_the_input_goes_on() {
    let plain = hex(350_000, 1);
    let bytes = compress(&plain, 1);
    let (pipe, open, dropped) = Pipe::new(bytes[..bytes.len() / 2].to_vec());
    let mut decoder = Decoder::new(pipe, "a.bz2", &options(2)).unwrap();
    let mut first = vec![0; 90_000];
    decoder.read_exact(&mut first).unwrap();
    assert_eq!(first, plain[..90_000]);
    drop(open);
    let error = decoder.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(matches!(error.downcast::<Error>(), Ok(Error::Truncated { .. })));
    assert_eq!(dropped.recv(), Err(mpsc::RecvError));
}

#[test]
fn a_drop_does_not_wait_for_a_blocked_input() {
    let bytes = compress(&hex(350_000, 2), 1);
    let (pipe, open, dropped) = Pipe::new(bytes[..bytes.len() / 2].to_vec());
    let mut decoder = Decoder::new(pipe, "a.bz2", &options(2)).unwrap();
    decoder.read_exact(&mut [0; 10]).unwrap();
    // Would hang if it waited.
    drop(decoder);
    assert_eq!(dropped.try_recv(), Err(mpsc::TryRecvError::Empty));
    // Once the input returns, its thread ends and lets go of it.
    drop(open);
    assert_eq!(dropped.recv(), Err(mpsc::RecvError));
}

#[test]
fn a_drop_lets_go_of_an_input_that_nobody_reads_on() {
    let bytes = compress(&hex(1_500_000, 3), 1);
    for threads in [1, 2, 8] {
        for read in [0, 1, 100_000, 1_000_000] {
            let (pipe, open, dropped) = Pipe::new(bytes.clone());
            let mut decoder = Decoder::new(pipe, "a.bz2", &options(threads)).unwrap();
            drop(open);
            decoder.read_exact(&mut vec![0; read]).unwrap();
            drop(decoder);
            assert_eq!(dropped.recv(), Err(mpsc::RecvError));
        }
    }
}

#[test]
fn reading_ahead_is_bounded() {
    // 60 blocks of about 51 kB.
    let bytes = compress(&hex(6_000_000, 4), 1);
    for threads in [1u64, 2] {
        let mut decoder = Decoder::new(Cursor::new(bytes.clone()), "a.bz2", &options(threads as usize)).unwrap();
        let mut plain = vec![0; 50_000];
        for _ in 0..10 {
            decoder.read_exact(&mut plain).unwrap();
        }
        // Read are five or six blocks; 2 * threads + 2 wait; one is being cut off; two chunks of 128 KiB.
        let most = (6 + 2 * threads + 2 + 1) * 52_000 + 2 * 131_072;
        assert!(decoder.compressed_bytes() <= most, "{}", decoder.compressed_bytes());
        assert_eq!(decoder.read_to_end(&mut plain).unwrap(), 5_500_000);
    }
}

/// Gives its bytes, then fails.
struct Failing(Cursor<Vec<u8>>, fn() -> io::Result<usize>);

impl Read for Failing {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.read(into)? {
            0 => (self.1)(),
            n => Ok(n),
        }
    }
}

#[test]
fn an_input_that_fails() {
    let bytes = compress(&hex(350_000, 5), 1);
    let half = bytes.len() / 2;
    let input = Failing(Cursor::new(bytes[..half].to_vec()), || Err(io::ErrorKind::ConnectionReset.into()));
    let (length, outcome) = decode_from(input, "a.bz2", 2);
    match outcome {
        Err(Error::Io { file, offset, source }) => {
            assert_eq!(file, "a.bz2");
            assert_eq!(offset, Some(half as u64));
            assert_eq!(source.kind(), io::ErrorKind::ConnectionReset);
        }
        other => panic!("{other:?}"),
    }
    assert!(length >= 99_000, "the block before is handed out");

    let input = Failing(Cursor::new(b"BZh".to_vec()), || Err(io::ErrorKind::ConnectionReset.into()));
    let (_, outcome) = decode_from(input, "a.bz2", 2);
    assert!(matches!(outcome, Err(Error::Io { offset: Some(3), .. })));
}

#[test]
fn an_input_that_panics() {
    let bytes = compress(&hex(350_000, 6), 1);
    let input = Failing(Cursor::new(bytes[..bytes.len() / 2].to_vec()), || panic!("of the test's own making"));
    let (_, outcome) = decode_from(input, "a.bz2", 2);
    match outcome {
        Err(Error::Io { file, source, .. }) => {
            assert_eq!(file, "a.bz2");
            assert_eq!(source.to_string(), "the thread that reads the input panicked");
        }
        other => panic!("{other:?}"),
    }
}
