use std::{io, mem, sync::Arc};

use crossbeam_channel::Receiver;

use super::{
    bits::{Bits, bits_at},
    pipeline::{Item, Offer, PIECE_LEN, Part, Pipeline},
    scan::{Close, MAX_BLOCK_BITS, Magic, Opening, Segment, level, trailer_end},
    trusted::{Checked, CheckedBlock, Fault, TrustedDecoder},
};
use crate::counted::counted;
use crate::{Checkpoint, Codec, DecodeOptions, Error, input::Input};

const MAGIC_BITS: u64 = 48;
const TRAILER_BITS: u64 = 80;
const HEADER_LEN: u64 = 4;

/// The plain bytes of a bzip2 file: the outcome of the [`Pipeline`], in order and checked.
///
/// No byte of a block is given before the block's CRC was right. A worker hands over no other block, nor does the reader
/// itself where it has to decode one.
///
/// It goes through the file as a serial decoder does. At each moment it knows the bit at which the next block or trailer
/// must begin, so that of the segments that the pipeline offers it takes as a block only the one that begins there.
pub(crate) struct Reader {
    file: Arc<str>,
    pipeline: Pipeline,
    /// The piece being read, and how much of it has been.
    piece: Vec<u8>,
    taken: usize,
    state: State,
    /// Whether the last segment has been taken.
    at_end: bool,
    /// The level of the stream and the CRC of its blocks so far.
    level: u8,
    crc: u32,
    /// Plain bytes before the piece.
    offset: u64,
    /// Where the block at hand begins, or the stream if none of it has been read.
    place: Option<Checkpoint>,
    /// Plain bytes before this one are not given out.
    skipped: u64,
}

/// Why the reader does not go on as it was about to.
enum Halt {
    Error(Error),
    /// It is elsewhere now.
    Jumped,
}

enum State {
    /// A block or trailer must begin with the next segment, that is at this bit.
    Next(u64),
    /// A worker decodes the block of this segment.
    Ahead(Arc<Segment>, Receiver<Part>),
    /// The reader itself checks a block that has not ended with its first segment, or whose level was guessed wrong.
    Here(Box<Joined<TrustedDecoder>>),
    /// The reader itself gives out such a block.
    Checked(Box<Joined<CheckedBlock>>),
    /// The file has ended well.
    Ended,
}

/// A block that may have false magics in it.
struct Joined<B> {
    start: u64,
    block: B,
    last: Arc<Segment>,
}

impl Reader {
    pub(crate) fn new(input: Input, options: &DecodeOptions) -> Result<Reader, Error> {
        let file = Arc::clone(input.file());
        let pipeline = Pipeline::start(input, options.threads.max(1), &options.observer)
            .map_err(|source| Error::Io { file: file.to_string(), offset: Some(0), source })?;
        let (piece, state) = (Vec::new(), State::Next(0));
        Ok(Reader {
            file,
            pipeline,
            piece,
            taken: 0,
            state,
            at_end: false,
            level: 9,
            crc: 0,
            offset: 0,
            place: None,
            skipped: 0,
        })
    }

    /// The last place at or before what has been read.
    pub(crate) fn checkpoint(&self) -> Option<Checkpoint> {
        self.place.clone()
    }

    /// Leaves out the bytes before `place`, as far as they have not been read.
    pub(crate) fn skip_to(&mut self, place: &Checkpoint) {
        if place.offset > self.skipped.max(self.offset + self.taken as u64) {
            self.skipped = place.offset;
            self.pipeline.jump(place);
        }
    }

    /// Reads some of the plain bytes; none means that the file has ended, and ended well.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        loop {
            let skipped = self.skipped.saturating_sub(self.offset + self.taken as u64);
            self.taken += usize::try_from(skipped).unwrap_or(usize::MAX).min(self.piece.len() - self.taken);
            if self.taken < self.piece.len() {
                break;
            }
            if matches!(self.state, State::Ended) {
                return if skipped == 0 { Ok(0) } else { Err(self.elsewhere()) };
            }
            self.offset += self.piece.len() as u64;
            self.piece.clear();
            self.taken = 0;
            match self.advance() {
                Ok(()) | Err(Halt::Jumped) => {}
                Err(Halt::Error(error)) => return Err(error),
            }
        }
        let n = into.len().min(self.piece.len() - self.taken);
        into[..n].copy_from_slice(&self.piece[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }

    /// Goes on until there is a new piece, or a step further in the file. The piece before has been read.
    fn advance(&mut self) -> Result<(), Halt> {
        match &mut self.state {
            State::Next(at) => {
                let at = *at;
                self.open(at)
            }
            State::Ahead(segment, parts) => {
                let start = segment.start;
                match parts.recv() {
                    Ok(Part::Piece(piece)) => {
                        self.pipeline.pieces().give_back(mem::replace(&mut self.piece, piece));
                        self.taken = 0;
                        Ok(())
                    }
                    Ok(Part::Done(crc)) => {
                        let segment = Arc::clone(segment);
                        self.close_block(start, &segment, crc)
                    }
                    Ok(Part::Unfinished(block)) => {
                        let last = Arc::clone(segment);
                        self.join(Joined { start, block: *block, last })
                    }
                    Ok(Part::Fault(fault)) => Err(self.fault(start, fault)),
                    Err(_) => Err(self.io(start, io::Error::other("a thread that decodes blocks panicked"))),
                }
            }
            State::Here(_) => match mem::replace(&mut self.state, State::Ended) {
                State::Here(joined) => self.check(*joined),
                _ => Ok(()),
            },
            State::Checked(joined) => {
                self.piece.clear();
                self.piece.reserve_exact(PIECE_LEN);
                self.taken = 0;
                let start = joined.start;
                match joined.block.write(&mut self.piece) {
                    Ok(true) => Ok(()),
                    Ok(false) => {
                        let (last, crc) = (Arc::clone(&joined.last), joined.block.crc);
                        self.close_block(start, &last, crc)
                    }
                    Err(fault) => Err(self.fault(start, fault)),
                }
            }
            State::Ended => Ok(()),
        }
    }

    /// Checks a block that the reader itself decodes, before any of it is given out.
    fn check(&mut self, Joined { start, block, last }: Joined<TrustedDecoder>) -> Result<(), Halt> {
        self.piece.clear();
        self.piece.reserve_exact(PIECE_LEN);
        self.taken = 0;
        match block.check(&mut self.piece) {
            Ok(Checked::Block(block)) => {
                self.state = State::Checked(Box::new(Joined { start, block, last }));
                Ok(())
            }
            Ok(Checked::Unfinished(block)) => self.join(Joined { start, block, last }),
            Err(fault) => Err(self.fault(start, fault)),
        }
    }

    /// The next segment, or none at the end of the file.
    fn segment(&mut self) -> Result<Option<Offer>, Halt> {
        if self.at_end {
            return Ok(None);
        }
        match self.pipeline.next() {
            Item::Segment(offer) => Ok(Some(offer)),
            Item::End => {
                self.at_end = true;
                Ok(None)
            }
            Item::Jumped(place) => {
                self.piece.clear();
                self.taken = 0;
                self.offset = place.offset;
                (self.level, self.crc) = (place.level, place.crc);
                self.state = State::Next(place.bit);
                self.place = Some(place);
                Err(Halt::Jumped)
            }
            Item::Failed(error) => Err(Halt::Error(match error.downcast::<Error>() {
                Ok(error) => error,
                Err(source) => Error::Io { file: self.file.to_string(), offset: None, source },
            })),
        }
    }

    /// Begins with what stands at bit `at`: the file, a block or a trailer.
    fn open(&mut self, at: u64) -> Result<(), Halt> {
        let Some(Offer { segment, parts }) = self.segment()? else {
            return Err(self.truncated(at));
        };
        match (segment.opening, parts) {
            (Opening::File, _) => self.header(Span::new(&segment), 0),
            (Opening::Magic(Magic::End), _) => self.trailer(&segment),
            (Opening::Magic(Magic::Block), Some(parts)) if segment.level == self.level => {
                self.state = State::Ahead(segment, parts);
                Ok(())
            }
            (Opening::Magic(Magic::Block), _) => {
                let block = TrustedDecoder::new(self.level, &segment);
                self.state = State::Here(Box::new(Joined { start: at, block, last: segment }));
                Ok(())
            }
            (Opening::Rest, _) => Err(self.corrupt(at / 8, "no block and no stream end")),
        }
    }

    /// Takes the CRC of a block that has ended with `last`, its last segment. All of it has been read.
    fn close_block(&mut self, start: u64, last: &Segment, crc: u32) -> Result<(), Halt> {
        match last.close {
            Close::Magic(_) => {
                self.crc = self.crc.rotate_left(1) ^ crc;
                self.next_at(last.end());
                Ok(())
            }
            Close::File => Err(self.truncated(start)),
            Close::Rest => Err(self.too_long(start)),
        }
    }

    /// Goes on with what begins at this bit, behind all that has been read.
    fn next_at(&mut self, bit: u64) {
        self.place = Some(Checkpoint { offset: self.offset, bit, level: self.level, crc: self.crc });
        self.state = State::Next(bit);
    }

    /// Goes on with a block that does not end at the magic after its last segment, which is therefore a false one.
    fn join(&mut self, mut joined: Joined<TrustedDecoder>) -> Result<(), Halt> {
        let Joined { start, ref mut block, ref mut last } = joined;
        let Some(Offer { segment, .. }) = self.segment()? else {
            // Where a whole trailer stands at the very end, nothing is missing.
            let whole = last.opening == Opening::Magic(Magic::End)
                && (TRAILER_BITS..TRAILER_BITS + 8).contains(&(last.len() as u64));
            return Err(if whole {
                self.corrupt(start / 8, "a block does not end before the end of the file")
            } else {
                self.truncated(start)
            });
        };
        block.extend(&segment);
        *last = segment;
        if block.len() > MAX_BLOCK_BITS {
            return Err(self.too_long(start));
        }
        self.state = State::Here(Box::new(joined));
        Ok(())
    }

    /// Ends a stream with the trailer that begins with `segment`.
    fn trailer(&mut self, segment: &Segment) -> Result<(), Halt> {
        let at = segment.start;
        let mut span = Span::new(segment);
        self.lengthen(&mut span, at + TRAILER_BITS)?;
        let Some(crc) = span.get(at + MAGIC_BITS, 32) else {
            return Err(self.truncated(at));
        };
        if crc != self.crc {
            return Err(self.corrupt(at / 8, "the checksum of the stream does not match"));
        }
        self.header(span, trailer_end(at))
    }

    /// Begins a stream at byte `at`, or ends the file there. `span` is what is known of the file around it.
    fn header(&mut self, mut span: Span, at: u64) -> Result<(), Halt> {
        let first = (at + HEADER_LEN) * 8;
        self.lengthen(&mut span, first)?;
        if let Some(header) = span.get(at * 8, 32)
            && let Some(level) = level(header.to_be_bytes())
        {
            (self.level, self.crc) = (level, 0);
            self.next_at(first);
            // A magic would have ended the span.
            return if span.end() == first { Ok(()) } else { self.headless(span, at) };
        }
        let rest = span.bytes_from(at);
        if !rest.is_empty() && b"BZh".starts_with(&rest) {
            return Err(self.truncated(at * 8));
        }
        self.padding(rest, at)
    }

    /// After a stream header at byte `at` there is no magic.
    fn headless(&mut self, mut span: Span, at: u64) -> Result<(), Halt> {
        let first = at + HEADER_LEN;
        // One byte more than a magic has shows whether the file goes on.
        self.lengthen(&mut span, first * 8 + MAGIC_BITS + 8)?;
        let rest = span.bytes_from(first);
        let is_cut = [Magic::Block, Magic::End].iter().any(|magic| magic.bytes().starts_with(&rest));
        Err(if is_cut {
            self.truncated(at * 8)
        } else {
            self.corrupt(first, "no block and no stream end after a stream header")
        })
    }

    /// Takes zeros to the end of the file, of which `rest` is what is known from byte `at` on.
    fn padding(&mut self, mut rest: Vec<u8>, mut at: u64) -> Result<(), Halt> {
        loop {
            if let Some(used) = rest.iter().position(|&byte| byte != 0) {
                return Err(self.corrupt(at + used as u64, "bytes after the last stream that belong to none"));
            }
            at += rest.len() as u64;
            match self.segment()? {
                Some(Offer { segment, .. }) => rest = Span::new(&segment).bytes_from(at),
                None => {
                    self.state = State::Ended;
                    return Ok(());
                }
            }
        }
    }

    /// Adds segments to `span` until it reaches bit `end`, or the file ends.
    fn lengthen(&mut self, span: &mut Span, end: u64) -> Result<(), Halt> {
        while span.end() < end
            && let Some(Offer { segment, .. }) = self.segment()?
        {
            span.push(&segment);
        }
        Ok(())
    }

    fn fault(&self, start: u64, fault: Fault) -> Halt {
        match fault {
            Fault::Data => self.corrupt(start / 8, "not the data of a block"),
            Fault::Check => self.corrupt(
                start / 8,
                "the checksum of the block does not match, or no block and no stream end follow it",
            ),
            Fault::Memory => self.io(start, io::ErrorKind::OutOfMemory.into()),
        }
    }

    fn elsewhere(&self) -> Error {
        let skipped = counted(self.skipped, "plain byte", "plain bytes");
        let reason = format!("it has not the {skipped} behind which it is to be read");
        Error::Corrupt { file: self.file.to_string(), codec: Codec::Bzip2, offset: 0, reason }
    }

    fn too_long(&self, start: u64) -> Halt {
        self.corrupt(start / 8, "longer than a block can be")
    }

    fn corrupt(&self, offset: u64, reason: &str) -> Halt {
        let (file, codec) = (self.file.to_string(), Codec::Bzip2);
        Halt::Error(Error::Corrupt { file, codec, offset, reason: reason.to_owned() })
    }

    fn truncated(&self, start: u64) -> Halt {
        Halt::Error(Error::Truncated { file: self.file.to_string(), codec: Codec::Bzip2, offset: start / 8 })
    }

    fn io(&self, start: u64, source: io::Error) -> Halt {
        Halt::Error(Error::Io { file: self.file.to_string(), offset: Some(start / 8), source })
    }
}

/// The bits of some segments in a row.
struct Span {
    start: u64,
    bits: Bits,
}

impl Span {
    fn new(segment: &Segment) -> Span {
        let mut span = Span { start: segment.start, bits: Bits::default() };
        span.push(segment);
        span
    }

    fn push(&mut self, segment: &Segment) {
        self.bits.push(segment.bytes(), segment.skip(), segment.len());
    }

    fn end(&self) -> u64 {
        self.start + self.bits.len() as u64
    }

    /// `len` bits from bit `at` of the file, if they are there.
    fn get(&self, at: u64, len: usize) -> Option<u32> {
        (at + len as u64 <= self.end()).then(|| bits_at(self.bits.bytes(), (at - self.start) as usize, len))?
    }

    /// The bytes from byte `at` of the file on; the last may be filled up with zeros.
    fn bytes_from(&self, at: u64) -> Vec<u8> {
        let from = ((at * 8).saturating_sub(self.start) as usize).min(self.bits.len());
        let mut rest = Bits::default();
        rest.push(self.bits.bytes(), from, self.bits.len() - from);
        rest.into_bytes()
    }
}
