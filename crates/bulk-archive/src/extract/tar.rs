//! The members of a tar, one after another.
//!
//! The layout of headers is the `tar` crate's; numbers, extended headers and what belongs to which member are read
//! here, since readers that disagree about them are how one archive shows two contents (CVE-2025-62518 and its kin).
//! Where it may mean two things it is refused. All that is held of a member is bounded.

use tar::{EntryType, GnuExtSparseHeader, Header};

use super::{
    number::{self, Time},
    pax::{Pax, PaxSparse},
    source::Source,
    sparse::{MOST_PIECES, Sparse},
};
use crate::Error;

pub(crate) const BLOCK: usize = 512;

/// The longest name or extended header, which is held in memory.
const MOST_EXTENDED: u64 = 1 << 20;

/// A member's header with all that the headers before it say of it.
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) mtime: Time,
    /// The target of a link.
    pub(crate) link: Vec<u8>,
    /// How many bytes of it follow in the archive.
    pub(crate) stored: u64,
    /// Where they belong, in a file with holes.
    pub(crate) sparse: Option<Sparse>,
}

impl Entry {
    /// The size of the file, with its holes.
    pub(crate) fn size(&self) -> u64 {
        self.sparse.as_ref().map_or(self.stored, |sparse| sparse.size)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    Symlink,
    HardLink,
    Device,
    Fifo,
    Unknown(u8),
}

/// Whether `head`, the first block of a content or all of a shorter one, is the header of a tar's first member. A block
/// of text or of a table has no checksum of itself in it.
pub(crate) fn is_header(head: &[u8]) -> bool {
    <&[u8; BLOCK]>::try_from(head)
        .is_ok_and(|block| !is_zero(block) && checksum_matches(Header::from_byte_slice(block)))
}

pub(crate) fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|&byte| byte == 0)
}

/// Reads members.
pub(crate) struct Tar {
    /// The archive. The data of a member are read from it directly.
    pub(crate) source: Source,
    global: Pax,
    /// How many headers there were that are members or speak of all.
    pub(crate) entries: u64,
}

/// What the headers before a member's own say of it.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl Tar {
    pub(crate) fn new(source: Source) -> Tar {
        Tar { source, global: Pax::default(), entries: 0 }
    }

    /// The next member, whose data follow; none after the last, when all that follows was read, too.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, Error> {
        let mut extended = Extended::default();
        let mut block = [0; BLOCK];
        loop {
            let at = self.source.offset();
            self.source.exact(&mut block)?;
            if is_zero(&block) {
                return match extended {
                    Extended { name: None, link: None, pax: None } => self.end().map(|()| None),
                    _ => Err(self.bad(at, "the archive ends after a header that speaks of another")),
                };
            }
            let header = Header::from_byte_slice(&block);
            if !checksum_matches(header) {
                return Err(self.bad(at, "a header's checksum is wrong"));
            }
            let size = number::field(&header.as_old().size).and_then(|size| u64::try_from(size).ok());
            let size = size.ok_or_else(|| self.bad(at, "a header's size is no number"))?;
            match header.entry_type() {
                EntryType::GNULongName => self.once(at, size, &mut extended.name)?,
                EntryType::GNULongLink => self.once(at, size, &mut extended.link)?,
                EntryType::XHeader | EntryType::__Nonexhaustive(b'X') => {
                    if extended.pax.is_some() {
                        return Err(self.bad(at, "two extended headers speak of one member"));
                    }
                    extended.pax = Some(self.pax(at, size)?);
                }
                EntryType::XGlobalHeader | EntryType::__Nonexhaustive(b'V')
                    if !matches!(extended, Extended { name: None, link: None, pax: None }) =>
                {
                    return Err(self.bad(at, "a header that speaks of a member comes before what is none"));
                }
                EntryType::XGlobalHeader => {
                    self.entries += 1;
                    let pax = self.pax(at, size)?;
                    if pax.names_a_member() {
                        return Err(self.bad(at, "a header for all members gives a name or size"));
                    }
                    self.global = pax;
                }
                // The label of a volume.
                EntryType::__Nonexhaustive(b'V') if size == 0 => self.entries += 1,
                _ => {
                    self.entries += 1;
                    return self.entry(at, header, size, extended).map(Some);
                }
            }
        }
    }

    /// Goes on behind the data of a member of which `stored` bytes were read.
    pub(crate) fn skip_padding(&mut self, stored: u64) -> Result<(), Error> {
        let mut block = [0; BLOCK];
        let rest = (stored % BLOCK as u64) as usize;
        if rest > 0 { self.source.exact(&mut block[rest..]) } else { Ok(()) }
    }

    pub(crate) fn bad(&self, offset: u64, reason: impl Into<String>) -> Error {
        Error::Tar { file: self.source.name().to_owned(), offset, reason: reason.into() }
    }

    fn entry(&mut self, at: u64, header: &Header, size: u64, extended: Extended) -> Result<Entry, Error> {
        let Extended { name, link, pax } = extended;
        let pax = pax.unwrap_or_default();
        let mut stored = pax.size.unwrap_or(size);
        let own = header_name(header);
        let is_sparse = pax.sparse.is_set();
        let named = self.agreed(at, name, pax.path)?;
        // The name of a file with holes counts; the other is for readers that do not know holes.
        let name = pax.sparse.name.clone().filter(|_| is_sparse).or(named).unwrap_or(own);
        let link = self.agreed(at, link, pax.link)?.unwrap_or_else(|| until_nul(&header.as_old().linkname).to_vec());
        let mode = number::field(&header.as_old().mode).ok_or_else(|| self.bad(at, "a header's mode is no number"))?;
        let mtime = match pax.mtime.or(self.global.mtime) {
            Some(time) => time,
            None => {
                let seconds = number::field(&header.as_old().mtime);
                Time { seconds: seconds.ok_or_else(|| self.bad(at, "a header's time is no number"))?, nanoseconds: 0 }
            }
        };
        let mut kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Directory => Kind::Folder,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::HardLink,
            EntryType::Char | EntryType::Block => Kind::Device,
            EntryType::Fifo => Kind::Fifo,
            _ => Kind::Unknown(header.as_old().linkflag[0]),
        };
        let mut sparse = None;
        match kind {
            Kind::File if header.entry_type() == EntryType::GNUSparse => {
                if is_sparse {
                    return Err(self.bad(at, "a file with holes has two maps"));
                }
                let (pieces, size) = self.gnu_pieces(at, header)?;
                sparse = Some(Sparse::new(pieces, size, stored).map_err(|reason| self.bad(at, reason))?);
            }
            Kind::File if is_sparse => {
                let (pieces, size) = self.pax_pieces(at, pax.sparse, &mut stored)?;
                sparse = Some(Sparse::new(pieces, size, stored).map_err(|reason| self.bad(at, reason))?);
            }
            // What older programs wrote for a folder.
            Kind::File if name.ends_with(b"/") => kind = Kind::Folder,
            _ => {}
        }
        // Of a hard link GNU tar and Python ignore the size, and for others its data follow (POSIX, pax, linkflag 1).
        if matches!(kind, Kind::Folder | Kind::Symlink | Kind::HardLink) && stored > 0 {
            return Err(self.bad(at, "a folder or link has data"));
        }
        Ok(Entry { name, kind, mode: (mode & 0o7777) as u32, mtime, link, stored, sparse })
    }

    /// What the two ways to give a long name say. GNU's is not followed against the standard's, nor the other way.
    fn agreed(&self, at: u64, gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, Error> {
        match (gnu, pax) {
            (Some(gnu), Some(pax)) if gnu != pax => Err(self.bad(at, "two headers give one member different names")),
            (gnu, pax) => Ok(pax.or(gnu)),
        }
    }

    fn once(&mut self, at: u64, size: u64, slot: &mut Option<Vec<u8>>) -> Result<(), Error> {
        let text = self.extended(at, size)?;
        match slot.replace(until_nul(&text).to_vec()) {
            Some(_) => Err(self.bad(at, "two long names are given to one member")),
            None => Ok(()),
        }
    }

    fn pax(&mut self, at: u64, size: u64) -> Result<Pax, Error> {
        let records = self.extended(at, size)?;
        Pax::parse(&records).map_err(|reason| self.bad(at, reason))
    }

    fn extended(&mut self, at: u64, size: u64) -> Result<Vec<u8>, Error> {
        if size > MOST_EXTENDED {
            return Err(self.bad(at, format!("an extended header of {size} bytes, more than {MOST_EXTENDED}")));
        }
        let mut bytes = vec![0; size as usize];
        self.source.exact(&mut bytes)?;
        self.skip_padding(size)?;
        Ok(bytes)
    }

    /// The map of GNU's own format: up to four pieces in the header, the others in blocks behind it.
    fn gnu_pieces(&mut self, at: u64, header: &Header) -> Result<(Vec<(u64, u64)>, u64), Error> {
        let gnu = header.as_gnu().ok_or_else(|| self.bad(at, "a file with holes without GNU's header"))?;
        let size = number::field(&gnu.realsize).and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| self.bad(at, "the size of a file with holes is no number"))?;
        let mut pieces = Vec::new();
        let mut more = self.push_pieces(at, &gnu.sparse, &mut pieces)? && gnu.is_extended();
        while more {
            let mut next = GnuExtSparseHeader::new();
            self.source.exact(next.as_mut_bytes())?;
            more = self.push_pieces(at, next.sparse(), &mut pieces)? && next.is_extended();
        }
        Ok((pieces, size))
    }

    /// Adds pieces up to the first that is blank. Says whether none was.
    fn push_pieces(&self, at: u64, from: &[tar::GnuSparseHeader], pieces: &mut Vec<(u64, u64)>) -> Result<bool, Error> {
        for piece in from {
            if piece.is_empty() {
                return Ok(false);
            }
            let number = |field| number::field(field).and_then(|value| u64::try_from(value).ok());
            let piece = number(&piece.offset).zip(number(&piece.numbytes));
            pieces.push(piece.ok_or_else(|| self.bad(at, "the map of a file with holes is no numbers"))?);
            if pieces.len() > MOST_PIECES {
                return Err(self.bad(at, "a file with holes has too many pieces"));
            }
        }
        Ok(true)
    }

    /// The map in extended headers (0.0 and 0.1), or at the beginning of the data (1.0), by which `stored` shrinks.
    fn pax_pieces(&mut self, at: u64, sparse: PaxSparse, stored: &mut u64) -> Result<(Vec<(u64, u64)>, u64), Error> {
        let size = sparse.size.ok_or_else(|| self.bad(at, "a file with holes has no size"))?;
        match sparse.version {
            (0, _) => return Ok((sparse.pieces, size)),
            (1, 0) if sparse.pieces.is_empty() => {}
            _ => return Err(self.bad(at, "a file with holes is of a format that is unknown")),
        }
        let mut lines = Lines { block: [0; BLOCK], next: BLOCK };
        let count = lines.number(self, at, stored)?;
        if count > MOST_PIECES as u64 {
            return Err(self.bad(at, "a file with holes has too many pieces"));
        }
        let mut pieces = Vec::new();
        for _ in 0..count {
            pieces.push((lines.number(self, at, stored)?, lines.number(self, at, stored)?));
        }
        Ok((pieces, size))
    }

    /// Reads what follows the last member, which is zeros.
    fn end(&mut self) -> Result<(), Error> {
        loop {
            let at = self.source.offset();
            let bytes = self.source.fill()?;
            if bytes.is_empty() {
                return Ok(());
            }
            let n = bytes.len();
            if let Some(other) = bytes.iter().position(|&byte| byte != 0) {
                return Err(self.bad(at + other as u64, "bytes after the archive's end that are not zero"));
            }
            self.source.consume(n);
        }
    }
}

/// Numbers in decimal, each a line, in blocks.
struct Lines {
    block: [u8; BLOCK],
    next: usize,
}

impl Lines {
    fn number(&mut self, tar: &mut Tar, at: u64, stored: &mut u64) -> Result<u64, Error> {
        const MALFORMED: &str = "the map of a file with holes is malformed";
        let mut digits = Vec::new();
        loop {
            if self.next == BLOCK {
                *stored = stored.checked_sub(BLOCK as u64).ok_or_else(|| tar.bad(at, MALFORMED))?;
                tar.source.exact(&mut self.block)?;
                self.next = 0;
            }
            let byte = self.block[self.next];
            self.next += 1;
            match byte {
                b'\n' => return number::decimal(&digits).ok_or_else(|| tar.bad(at, MALFORMED)),
                _ if digits.len() == 20 => return Err(tar.bad(at, MALFORMED)),
                _ => digits.push(byte),
            }
        }
    }
}

/// The name in the header itself. The prefix counts whatever the version field says, which programs fill differently.
fn header_name(header: &Header) -> Vec<u8> {
    let bytes = header.as_bytes();
    let name = until_nul(&header.as_old().name);
    let prefix = if bytes[257..263] == *b"ustar\0" { until_nul(&bytes[345..500]) } else { b"" };
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

/// Whether the checksum is right, over unsigned bytes or, as some old programs have it, signed ones.
fn checksum_matches(header: &Header) -> bool {
    let bytes = header.as_bytes();
    let summed = || bytes[..148].iter().chain(&[b' '; 8]).chain(&bytes[156..]);
    let field = &header.as_old().cksum;
    let is_blank = field.iter().all(|&byte| byte == 0 || byte == b' ');
    match number::field(field) {
        Some(sum) if !is_blank => {
            sum == summed().map(|&byte| i64::from(byte)).sum::<i64>()
                || sum == summed().map(|&byte| i64::from(byte as i8)).sum::<i64>()
        }
        _ => false,
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len())]
}
