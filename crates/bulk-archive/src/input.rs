use std::{
    io::{self, BufRead, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{Codec, Error};

const BUFFER_LEN: usize = 128 * 1024;

/// A buffered input that knows its name, counts its bytes and turns its read errors into [`Error::Io`].
pub(crate) struct Input<S = Box<dyn Read + Send>> {
    source: S,
    file: Arc<str>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    fetched: Arc<AtomicU64>,
}

impl<S: Read> Input<S> {
    pub(crate) fn new(source: S, file: Arc<str>) -> Input<S> {
        Input {
            source,
            file,
            buffer: vec![0; BUFFER_LEN].into_boxed_slice(),
            start: 0,
            end: 0,
            fetched: Arc::new(AtomicU64::new(0)),
        }
    }

    pub(crate) fn file(&self) -> &Arc<str> {
        &self.file
    }

    /// The counter of bytes taken from the source.
    pub(crate) fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.fetched)
    }

    /// How many bytes have been handed on.
    pub(crate) fn offset(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed) - (self.end - self.start) as u64
    }

    /// The first bytes, left in place: [`Codec::HEAD_LEN`] of them or more, or all of a shorter input.
    pub(crate) fn head(&mut self) -> io::Result<&[u8]> {
        while self.end < Codec::HEAD_LEN {
            let n = fetch(&mut self.source, &mut self.buffer[self.end..], &self.fetched, &self.file)?;
            if n == 0 {
                break;
            }
            self.end += n;
        }
        Ok(&self.buffer[..self.end])
    }
}

impl<S: Read> Read for Input<S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end && into.len() >= self.buffer.len() {
            return fetch(&mut self.source, into, &self.fetched, &self.file);
        }
        let n = self.fill_buf()?.read(into)?;
        self.consume(n);
        Ok(n)
    }
}

impl<S: Read> BufRead for Input<S> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.end = fetch(&mut self.source, &mut self.buffer, &self.fetched, &self.file)?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }
}

fn fetch(source: &mut impl Read, into: &mut [u8], fetched: &AtomicU64, file: &str) -> io::Result<usize> {
    loop {
        match source.read(into) {
            Ok(n) => {
                fetched.fetch_add(n as u64, Ordering::Relaxed);
                return Ok(n);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => {
                let offset = Some(fetched.load(Ordering::Relaxed));
                return Err(Error::Io { file: file.to_owned(), offset, source }.into());
            }
        }
    }
}
