use std::io::{self, Read};

use aho_corasick::{AhoCorasick, packed};

use super::bits::bits_at;

/// No block has more bits than this: 900 000 symbols and an end symbol of up to 20 bits, up to 32 767 selectors of up to
/// 6 bits, 6 tables of 258 code lengths that take up to 40 bits each, and less than 400 bits around them. (A table can
/// be written with detours, longer; no encoder does.)
pub(super) const MAX_BLOCK_BITS: usize = 900_001 * 20 + 32_767 * 6 + 6 * 258 * 40 + 400;

const CHUNK_LEN: usize = 128 * 1024;

/// A magic that begins inside a byte lies in 7 bytes.
const SPAN: usize = 7;

/// The two places of a stream that can be found without decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Magic {
    /// A block begins (the digits of pi).
    Block,
    /// A stream ends (the digits of the square root of pi).
    End,
}

impl Magic {
    const ALL: [Magic; 2] = [Magic::Block, Magic::End];

    fn value(self) -> u64 {
        match self {
            Magic::Block => 0x3141_5926_5359,
            Magic::End => 0x1772_4538_5090,
        }
    }

    pub(super) fn bytes(self) -> [u8; 6] {
        let [_, _, bytes @ ..] = self.value().to_be_bytes();
        bytes
    }
}

/// What a segment begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// The file.
    File,
    /// A magic, which may be a false one.
    Magic(Magic),
    /// Nothing: the segment goes on where the one before became too long.
    Rest,
}

/// What a segment ends before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// A magic, which may be a false one.
    Magic(Magic),
    /// More of the same: the segment is longer than any block.
    Rest,
    /// The end of the file.
    File,
}

/// The bits of the file from one magic to the next.
#[derive(Debug)]
pub(super) struct Segment {
    /// The bit of the file at which the segment begins.
    pub(super) start: u64,
    pub(super) opening: Opening,
    pub(super) close: Close,
    /// The level of the stream header last seen.
    pub(super) level: u8,
    bytes: Vec<u8>,
    len: usize,
}

impl Segment {
    /// How many bits the segment has.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn end(&self) -> u64 {
        self.start + self.len as u64
    }

    /// The bytes in which the segment lies.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bits of the first byte come before the segment.
    pub(super) fn skip(&self) -> usize {
        (self.start % 8) as usize
    }

    /// The magic that follows, if one does.
    pub(super) fn next(&self) -> Option<Magic> {
        match self.close {
            Close::Magic(magic) => Some(magic),
            Close::Rest | Close::File => None,
        }
    }
}

/// Cuts an input into segments, at every magic.
pub(super) struct Scanner<R> {
    input: R,
    finder: Finder,
    /// The input from byte `base` on; `filled` bytes of it are there.
    buffer: Vec<u8>,
    base: u64,
    filled: usize,
    at_end: bool,
    /// Where the segment at hand begins, and with what.
    start: u64,
    opening: Opening,
    level: u8,
    /// No magic begins in a byte of the buffer before this one that is not known.
    searched: usize,
}

impl<R: Read> Scanner<R> {
    pub(super) fn new(input: R) -> Scanner<R> {
        Scanner {
            input,
            finder: Finder::new(),
            buffer: Vec::new(),
            base: 0,
            filled: 0,
            at_end: false,
            start: 0,
            opening: Opening::File,
            level: 9,
            searched: 0,
        }
    }

    /// Whether bit `at` is still to come: no segment that was given reaches beyond it.
    pub(super) fn is_before(&self, at: u64) -> bool {
        self.start <= at
    }

    /// Goes on to bit `at`, where a magic is to stand in a stream of this level. Says whether it is there, or what is left
    /// has to be gone over by further calls: each reads once from the input.
    pub(super) fn skip_to(&mut self, at: u64, level: u8) -> io::Result<bool> {
        let first = (at / 8).saturating_sub(self.base) as usize;
        let done = first.min(self.filled);
        self.buffer.copy_within(done..self.filled, 0);
        self.base += done as u64;
        self.filled -= done;
        self.start = self.base * 8;
        let is_known = done == first && self.filled >= SPAN;
        if !self.at_end && !is_known {
            self.fill()?;
            return Ok(false);
        }
        let magic = bits_at(&self.buffer[..self.filled], (at % 8) as usize, 32)
            .zip(bits_at(&self.buffer[..self.filled], (at % 8) as usize + 32, 16))
            .map(|(high, low)| u64::from(high) << 16 | u64::from(low));
        let magic = Magic::ALL.into_iter().find(|known| magic == Some(known.value()));
        self.opening = magic.map_or(Opening::Rest, Opening::Magic);
        // An input that ends before has nothing to begin with.
        self.start = at.min((self.base + self.filled as u64) * 8);
        self.level = level;
        self.searched = self.filled.min(1);
        Ok(true)
    }

    /// The next segment, or none at the end of the input. None is empty but that of an empty input.
    pub(super) fn segment(&mut self) -> io::Result<Option<Segment>> {
        loop {
            if let Some((at, magic)) = self.finder.find(&self.buffer[..self.filled], self.searched) {
                self.searched = at / 8 + 1;
                return Ok(Some(self.cut(self.base * 8 + at as u64, Close::Magic(magic))));
            }
            self.searched = self.searched.max((self.filled + 1).saturating_sub(SPAN));
            let end = (self.base + self.filled as u64) * 8;
            if self.at_end {
                return Ok((self.start < end).then(|| self.cut(end, Close::File)));
            }
            // A magic may yet begin in the last bytes.
            let settled = (self.base + self.searched as u64) * 8;
            if settled > self.start + MAX_BLOCK_BITS as u64 {
                return Ok(Some(self.cut(settled, Close::Rest)));
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let done = (self.start / 8 - self.base) as usize;
        if done > 0 {
            self.buffer.copy_within(done..self.filled, 0);
            self.base += done as u64;
            self.filled -= done;
            self.searched = self.searched.saturating_sub(done);
        }
        if self.buffer.len() < self.filled + CHUNK_LEN {
            self.buffer.resize(self.filled + CHUNK_LEN, 0);
        }
        let n = self.input.read(&mut self.buffer[self.filled..])?;
        self.filled += n;
        self.at_end = n == 0;
        Ok(())
    }

    /// Takes the bits up to `end` off as a segment.
    fn cut(&mut self, end: u64, close: Close) -> Segment {
        let first = (self.start / 8 - self.base) as usize;
        let last = (end.div_ceil(8) - self.base) as usize;
        let segment = Segment {
            start: self.start,
            opening: self.opening,
            close,
            level: self.level,
            bytes: self.buffer[first..last].to_vec(),
            len: (end - self.start) as usize,
        };
        self.note_level(&segment);
        self.start = end;
        self.opening = match close {
            Close::Magic(magic) => Opening::Magic(magic),
            Close::Rest | Close::File => Opening::Rest,
        };
        segment
    }

    /// Where the segment is what stands between two streams, the second one's level holds from here on.
    fn note_level(&mut self, segment: &Segment) {
        let header = match segment.opening {
            Opening::File => 0,
            Opening::Magic(Magic::End) => trailer_end(segment.start),
            Opening::Magic(Magic::Block) | Opening::Rest => return,
        };
        if segment.end() == (header + 4) * 8
            && let Some(level) = segment.bytes.last_chunk().and_then(|header| level(*header))
        {
            self.level = level;
        }
    }
}

/// The byte that follows the trailer of a stream whose end magic is at bit `magic`: 48 bits of magic, 32 of CRC, padding.
pub(super) fn trailer_end(magic: u64) -> u64 {
    (magic + 80).div_ceil(8)
}

/// The level in a stream header, 1 to 9.
pub(super) fn level(header: [u8; 4]) -> Option<u8> {
    match header {
        [b'B', b'Z', b'h', digit @ b'1'..=b'9'] => Some(digit - b'0'),
        _ => None,
    }
}

/// Finds both magics at every bit.
///
/// Whatever bit of a byte a magic begins at, five whole bytes of it are known: 16 patterns, which a vector search finds
/// at memory speed and which turn up by chance once in 64 GB. The few bits around them are compared then.
struct Finder {
    search: Search,
}

enum Search {
    /// The vector search, where the processor has what it takes.
    Vector(packed::Searcher),
    Automaton(Box<AhoCorasick>),
}

impl Finder {
    fn new() -> Finder {
        let patterns = Finder::patterns();
        let search = match packed::Searcher::new(&patterns) {
            Some(searcher) => Search::Vector(searcher),
            None => Search::Automaton(Box::new(
                AhoCorasick::new(&patterns).expect("an automaton of 80 bytes is far from any size limit"),
            )),
        };
        Finder { search }
    }

    /// The magics' whole bytes, where they begin at bit 0 to 7 of a byte.
    fn patterns() -> Vec<[u8; 5]> {
        Magic::ALL
            .iter()
            .flat_map(|magic| (0..8).map(move |shift| (magic.value(), shift)))
            .map(|(value, shift)| {
                let spread = (value << (16 - shift)).to_be_bytes();
                let whole = if shift == 0 { &spread[..5] } else { &spread[1..6] };
                whole.try_into().expect("five bytes were taken")
            })
            .collect()
    }

    /// The first magic that begins in byte `from` or later, with the bit at which it does. The 7 bytes from the one it
    /// begins in must be there.
    fn find(&self, bytes: &[u8], from: usize) -> Option<(usize, Magic)> {
        let mut at = from;
        while let Some((found, pattern)) = self.pattern(bytes, at) {
            let (magic, shift) = (Magic::ALL[pattern / 8], pattern % 8);
            let first = found.checked_sub(usize::from(shift > 0)).filter(|&first| first >= from);
            if let Some(first) = first
                && let Some(&[a, b, c, d, e, f, g]) = bytes[first..].first_chunk::<SPAN>()
                && u64::from_be_bytes([0, a, b, c, d, e, f, g]) >> (8 - shift) & 0xffff_ffff_ffff == magic.value()
            {
                return Some((first * 8 + shift, magic));
            }
            at = found + 1;
        }
        None
    }

    fn pattern(&self, bytes: &[u8], from: usize) -> Option<(usize, usize)> {
        let found = match &self.search {
            Search::Vector(searcher) => searcher.find_in(bytes, (from..bytes.len()).into()),
            Search::Automaton(automaton) => {
                automaton.find(aho_corasick::Input::new(bytes).range(from.min(bytes.len())..))
            }
        };
        found.map(|found| (found.start(), found.pattern().as_usize()))
    }
}
