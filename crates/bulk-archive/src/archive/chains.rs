//! Blocks of an archive inflated. One that does not begin a chain needs the blocks of its chain before it.

use std::{
    collections::VecDeque,
    io::{Read, Seek, SeekFrom},
    sync::Arc,
};

use flate2::{Decompress, FlushDecompress, Status};

use super::{
    deflate::SYNC,
    index::{IndexedBlock, Place},
};
use crate::{Codec, Error};

/// Inflates blocks of the last two chains that it was told of.
///
/// It goes on where it stopped as long as asked for the next block, so that a run of neighbours is inflated once.
pub(crate) struct Chains {
    file: String,
    /// The number of the first block of `trail`.
    first: u64,
    /// The blocks of the chain before the current one, and of the current one.
    trail: VecDeque<Place>,
    inflate: Decompress,
    /// The block that was inflated last.
    last: Option<(u64, Arc<Vec<u8>>)>,
    packed: Vec<u8>,
}

impl Chains {
    pub(crate) fn new(file: &str) -> Chains {
        Chains::behind(file, 0)
    }

    /// The first block that it will be told of has this number, and begins a chain.
    pub(crate) fn behind(file: &str, first: u64) -> Chains {
        Chains {
            file: file.to_owned(),
            first,
            trail: VecDeque::new(),
            inflate: Decompress::new(false),
            last: None,
            packed: Vec::new(),
        }
    }

    /// Notes the next block of the index.
    pub(crate) fn note(&mut self, block: &IndexedBlock) {
        if block.place.begins_chain
            && let Some(start) = self.trail.iter().rposition(|place| place.begins_chain)
        {
            self.trail.drain(..start);
            self.first += start as u64;
        }
        self.trail.push_back(block.place);
    }

    /// The bytes of a block that was noted.
    pub(crate) fn inflate(&mut self, number: u64, archive: &mut (impl Read + Seek)) -> Result<Arc<Vec<u8>>, Error> {
        if let Some((last, plain)) = &self.last
            && *last == number
        {
            return Ok(Arc::clone(plain));
        }
        let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let at = at.filter(|&at| at < self.trail.len()).ok_or_else(|| self.lost())?;
        let start = self.trail.range(..=at).rposition(|place| place.begins_chain).ok_or_else(|| self.lost())?;
        let begin = match &self.last {
            Some((last, _)) if *last < number && *last >= self.first + start as u64 => (last + 1 - self.first) as usize,
            _ => start,
        };
        for at in begin..=at {
            let place = self.trail[at];
            let plain = Arc::new(self.next(&place, archive)?);
            self.last = Some((self.first + at as u64, plain));
        }
        self.last.as_ref().map(|(_, plain)| Arc::clone(plain)).ok_or_else(|| self.lost())
    }

    /// Whether the last block that was inflated ends where a block of the stream does, so that a reader, who goes on
    /// without a new beginning, finds the next chain. To be asked where a chain is over.
    pub(crate) fn is_between_blocks(&mut self) -> bool {
        // A stored block of eight bytes (RFC 1951, 3.2.4), which comes out as it is between blocks alone.
        const BLOCK: [u8; 13] = *b"\0\x08\0\xf7\xff\xa5 chain\x5a";
        self.last = None;
        let mut plain = Vec::with_capacity(2 * BLOCK.len());
        let fed = self.inflate.total_in();
        let status = self.inflate.decompress_vec(&BLOCK, &mut plain, FlushDecompress::Sync);
        matches!(status, Ok(Status::Ok)) && self.inflate.total_in() - fed == BLOCK.len() as u64 && plain == BLOCK[5..]
    }

    fn next(&mut self, place: &Place, archive: &mut (impl Read + Seek)) -> Result<Vec<u8>, Error> {
        self.last = None;
        let io = |source| Error::Io { file: self.file.clone(), offset: Some(place.offset), source };
        archive.seek(SeekFrom::Start(place.offset)).map_err(io)?;
        self.packed.clear();
        archive.by_ref().take(place.len).read_to_end(&mut self.packed).map_err(io)?;
        if self.packed.len() as u64 != place.len {
            return Err(Error::Truncated { file: self.file.clone(), codec: Codec::Gzip, offset: place.offset });
        }
        if place.begins_chain {
            self.inflate.reset(false);
        }
        let (fed, given) = (self.inflate.total_in(), self.inflate.total_out());
        // Room for one byte more, so that a block that is longer than it should be shows.
        let mut plain = Vec::with_capacity(place.plain_len as usize + 1);
        loop {
            let taken = (self.inflate.total_in() - fed) as usize;
            let before = (taken, plain.len());
            let status = self
                .inflate
                .decompress_vec(&self.packed[taken..], &mut plain, FlushDecompress::Sync)
                .map_err(|error| self.corrupt(place, &error.to_string()))?;
            // Its bytes may be right nevertheless, but no reader goes on to the next block.
            if status == Status::StreamEnd {
                return Err(self.corrupt(place, "the stream ends in the block"));
            }
            let taken = (self.inflate.total_in() - fed) as usize;
            if (taken, plain.len()) == before || taken == self.packed.len() {
                break;
            }
        }
        let whole = self.inflate.total_in() - fed == place.len && self.inflate.total_out() - given == place.plain_len;
        if !whole || !self.packed.ends_with(&SYNC) || crc32fast::hash(&plain) != place.crc {
            return Err(self.corrupt(place, "the block is not what the index says of it"));
        }
        Ok(plain)
    }

    fn corrupt(&self, place: &Place, reason: &str) -> Error {
        Error::Corrupt { file: self.file.clone(), codec: Codec::Gzip, offset: place.offset, reason: reason.to_owned() }
    }

    fn lost(&self) -> Error {
        Error::Corrupt {
            file: self.file.clone(),
            codec: Codec::Gzip,
            offset: 0,
            reason: "a block without the beginning of its chain".to_owned(),
        }
    }
}
