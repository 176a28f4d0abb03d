//! What must hold whatever the input is: one function for each parser of bytes that somebody else wrote.
//!
//! Each takes any bytes and panics where a promise is broken. libFuzzer's programs in `fuzz_targets` call them with bytes of
//! its own; the test `replay` with those in `corpus`, and with seeded changes of them.

use std::io::{self, Read};
use std::path::PathBuf;

pub mod archive;
pub mod codecs;
pub mod copy_files;
pub mod deflate;
pub mod listing;
pub mod object_rows;
pub mod records;
pub mod schema;
pub mod splice;
pub mod state;
pub mod tar;
pub mod template;
pub mod values;

/// Takes choices off the front of an input. One that is used up gives zeros.
#[derive(Clone, Debug)]
pub struct Take<'a> {
    rest: &'a [u8],
}

impl<'a> Take<'a> {
    /// Begins with all of it.
    pub fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *byte
    }

    /// The next two bytes.
    pub fn two(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// One of so many, by the next byte.
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    /// One of these, by the next byte.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// The bytes up to the next one that is 255, which no UTF-8 has, and which is left out.
    pub fn part(&mut self) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| *byte == 0xff);
        let (part, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest.get(1..).unwrap_or_default();
        part
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }
}

/// A reader that gives a few bytes at a time, by turns so many.
#[derive(Clone, Debug)]
pub struct Trickle<'a> {
    rest: &'a [u8],
    sizes: [usize; 2],
}

impl<'a> Trickle<'a> {
    /// Reads `bytes`.
    pub fn new(bytes: &'a [u8], sizes: [usize; 2]) -> Self {
        Self { rest: bytes, sizes: sizes.map(|size| size.max(1)) }
    }
}

impl Read for Trickle<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.sizes.reverse();
        let len = self.sizes[0].min(into.len()).min(self.rest.len());
        let (now, rest) = self.rest.split_at(len);
        into[..len].copy_from_slice(now);
        self.rest = rest;
        Ok(len)
    }
}

/// Where files are made: in memory, if there is such a folder, since each input makes some.
fn scratch() -> tempfile::TempDir {
    let memory = PathBuf::from("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder for the files of one input")
}
