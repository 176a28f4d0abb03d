//! The decoded bytes of an archive, counted against the limit on its ratio.

use std::io::Read;

use crate::decoder::FREE_OF_RATIO;
use crate::{Codec, Decoder, Error, Limit};

const BUFFER_LEN: usize = 256 * 1024;

/// A buffered [`Decoder`] that knows how far it is.
pub(crate) struct Source {
    decoder: Decoder,
    name: String,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes handed on.
    offset: u64,
    /// Bytes that came out of the decoder, and holes.
    out: u64,
    max_ratio: Option<f64>,
}

impl Source {
    pub(crate) fn new(decoder: Decoder, name: &str, max_ratio: Option<f64>) -> Source {
        Source {
            decoder,
            name: name.to_owned(),
            buffer: vec![0; BUFFER_LEN].into_boxed_slice(),
            start: 0,
            end: 0,
            offset: 0,
            out: 0,
            max_ratio,
        }
    }

    /// The archive's name as it was given.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn codec(&self) -> Codec {
        self.decoder.codec()
    }

    pub(crate) fn compressed_bytes(&self) -> u64 {
        self.decoder.compressed_bytes()
    }

    /// How many decoded bytes have been handed on.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes, left in place; none at the end.
    pub(crate) fn fill(&mut self) -> Result<&[u8], Error> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.read()?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    /// Goes on by `n` of the bytes that [`fill`](Source::fill) gave.
    pub(crate) fn consume(&mut self, n: usize) {
        let n = n.min(self.end - self.start);
        self.start += n;
        self.offset += n as u64;
    }

    /// The first `n` bytes, left in place, or all of a shorter content. To be called before anything is consumed.
    pub(crate) fn head(&mut self, n: usize) -> Result<&[u8], Error> {
        while self.end < n && self.read()? > 0 {}
        Ok(&self.buffer[..self.end.min(n)])
    }

    /// Fills `into`.
    ///
    /// # Errors
    /// Where the content ends before, [`Error::TarTruncated`].
    pub(crate) fn exact(&mut self, mut into: &mut [u8]) -> Result<(), Error> {
        while !into.is_empty() {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return Err(self.truncated());
            }
            let n = bytes.len().min(into.len());
            into[..n].copy_from_slice(&bytes[..n]);
            self.consume(n);
            into = &mut into[n..];
        }
        Ok(())
    }

    /// Counts bytes that come out without being in the content, and checks the ratio.
    pub(crate) fn count_hole(&mut self, bytes: u64) -> Result<(), Error> {
        self.out = self.out.saturating_add(bytes);
        self.check_ratio()
    }

    pub(crate) fn truncated(&self) -> Error {
        Error::TarTruncated { file: self.name.clone(), offset: self.offset }
    }

    fn read(&mut self) -> Result<usize, Error> {
        let n = self.decoder.read(&mut self.buffer[self.end..]).map_err(|error| {
            Error::from_codec(error, &self.name, self.decoder.codec(), self.decoder.compressed_bytes())
        })?;
        self.end += n;
        self.out = self.out.saturating_add(n as u64);
        self.check_ratio()?;
        Ok(n)
    }

    fn check_ratio(&self) -> Result<(), Error> {
        match self.max_ratio {
            Some(ratio)
                if self.out > FREE_OF_RATIO && self.out as f64 > ratio * self.decoder.compressed_bytes() as f64 =>
            {
                Err(Error::LimitExceeded { file: self.name.clone(), member: None, limit: Limit::Ratio(ratio) })
            }
            _ => Ok(()),
        }
    }
}
