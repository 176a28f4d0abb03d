//! The buffer between a reader and the record scanner, which checks the encoding in long stretches.

use std::io::{self, Read};

use memchr::memchr;

/// What some writers put in front of UTF-8.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What a text must not have in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadText {
    Nul,
    InvalidUtf8,
}

#[derive(Debug)]
pub(crate) struct Buffer {
    pub(crate) bytes: Vec<u8>,
    /// The first byte that is not consumed.
    pub(crate) start: usize,
    /// Whether the reader has come to its end.
    pub(crate) ended: bool,
    filled: usize,
    size: usize,
    /// An error that came with bytes before it, which are delivered first.
    failed: Option<io::Error>,
    /// All bytes before it are good text, or are of records that were refused.
    checked: usize,
    /// The first bad byte after `checked`, if it is known.
    bad: Option<(usize, BadText)>,
}

impl Buffer {
    /// How many times its size a buffer may keep after a long record.
    const KEEP: usize = 32;

    pub(crate) fn new(size: usize) -> Self {
        let size = size.max(1);
        Self { bytes: vec![0; size], start: 0, ended: false, filled: 0, size, failed: None, checked: 0, bad: None }
    }

    /// The bytes that are not consumed.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.bytes[self.start..self.filled]
    }

    /// Reads on until at least `wanted` bytes are pending, or the reader ends. It makes room by moving what is pending
    /// to the front, and by growing, to at most `limit` bytes where that holds `wanted`.
    pub(crate) fn fill(&mut self, input: &mut impl Read, wanted: usize, limit: usize) -> io::Result<()> {
        if self.ended || self.pending().len() >= wanted {
            return Ok(());
        }
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.bytes.copy_within(self.start..self.filled, 0);
        self.checked = self.checked.saturating_sub(self.start);
        self.bad = self.bad.map(|(at, bad)| (at - self.start, bad));
        self.filled -= self.start;
        self.start = 0;
        if self.bytes.len() > self.size.saturating_mul(Self::KEEP) && self.filled <= self.size / 2 {
            self.bytes.truncate(self.size);
            self.bytes.shrink_to_fit();
        }
        // Room for at least as much as there is, so that a long record is scanned a few times and not each read.
        if wanted > self.bytes.len() || self.filled > self.bytes.len() / 2 {
            let len = self.bytes.len().saturating_mul(2).min(limit).max(wanted).max(self.bytes.len());
            self.bytes.resize(len, 0);
        }
        let before = self.filled;
        while self.filled < self.bytes.len() {
            match input.read(&mut self.bytes[self.filled..]) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if self.filled > before => {
                    self.failed = Some(error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The first byte between `start` and `end`, the record in hand, that is no text; all before `start` were asked
    /// for. The rest of a bad record is not looked at.
    pub(crate) fn check_text(&mut self, start: usize, end: usize) -> Option<(usize, BadText)> {
        if self.checked < end && self.bad.is_none() {
            self.checked = self.checked.max(start);
            let unchecked = &self.bytes[self.checked..self.filled];
            let nul = memchr(0, unchecked);
            let text = &unchecked[..nul.unwrap_or(unchecked.len())];
            let (valid, broken) = match simdutf8::compat::from_utf8(text) {
                Ok(_) => (text.len(), false),
                // A character that is cut off at the end of the buffer is broken if its record ends there.
                Err(error) => (error.valid_up_to(), error.error_len().is_some() || nul.is_some()),
            };
            self.checked += valid;
            if broken || (valid < text.len() && self.checked < end) {
                self.bad = Some((self.checked, BadText::InvalidUtf8));
            } else if nul.is_some() {
                self.bad = Some((self.checked, BadText::Nul));
            }
        }
        let found = self.bad.take_if(|(at, _)| *at < end);
        if found.is_some() {
            self.checked = end;
        }
        found
    }
}
