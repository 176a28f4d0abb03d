//! The index of an archive: what stands where, block by block.
//!
//! ```text
//! header    magic (8), version, level, engine, block length, chain length, CRC-32 of the header (u32 each)
//! records   one for each block: length (u32), body, CRC-32 of the body (u32)
//! end       a record's length of 0
//! footer    blocks, entries, plain bytes, bytes of the archive (u64 each), CRC-32 of the archive's plain bytes, CRC-32 of
//!           all that stands before the footer, CRC-32 of the footer (u32 each), magic (4)
//! ```
//! A body is the block's compressed and plain length, its CRC-32 (u32), whether it begins a chain (1 byte), how many
//! entries it has, and the entries: how many bytes the id shares with the one before it in the block, how many follow,
//! those bytes, the time less the one before, the length of the content, and the hash. Numbers are little endian;
//! those without a width are of seven bits a byte ([`varint`]). Offsets are sums of lengths, and of what stands before chains
//! ([`filler`]) where the version is 2: nothing else tells it from 1.

use std::{
    fmt,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    sync::Arc,
};

use sha2::{Digest, Sha256};

use super::{
    borders::Lens,
    deflate::{self, HIGHEST_LEVEL, LOWEST_LEVEL, TRAILER_LEN},
    filler,
    header::{self, BLOCK, END},
    name, varint,
    writer::ArchiveOptions,
};
use crate::Error;

const MAGIC: [u8; 8] = *b"\x89BTGI\r\n\x1a";
const FOOTER_MAGIC: [u8; 4] = *b"END\n";
const VERSION: u32 = 1;
/// The version of an archive that is laid out for reflinks.
const REFLINK_VERSION: u32 = 2;
const HEADER_LEN: usize = 32;
const FOOTER_LEN: usize = 48;

/// The longest record that is read. A block has an entry for each 512 bytes, each with an id of 250 bytes at most.
const LONGEST_BODY: u64 = 16 << 20;

/// The longest content of an entry: 1 GiB, which is the longest value that PostgreSQL has.
pub(crate) const LONGEST_CONTENT: u64 = 1 << 30;

/// The greatest lengths of blocks and chains.
pub(crate) const LONGEST: Lens = Lens { block: 1 << 20, chain: 64 << 20 };

/// What tells the content of an entry from another: the first half of its SHA-256.
///
/// Half of it is enough that nobody who writes the items can make one that passes for another.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentHash([u8; 16]);

impl ContentHash {
    /// The hash of some content.
    pub fn of(content: &[u8]) -> ContentHash {
        let mut hash = [0; 16];
        hash.copy_from_slice(&Sha256::digest(content)[..16]);
        ContentHash(hash)
    }

    /// The bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How an archive was made, which a splice goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) lens: Lens,
    pub(crate) level: u32,
    /// [`deflate::engine`] of what compressed its blocks; 0 where those of several stand beside one another.
    pub(crate) engine: u32,
    /// Whether it is laid out for reflinks.
    pub(crate) reflink: bool,
}

impl Recipe {
    /// What stands before the next block, of which this is known, in an archive of so many bytes and blocks. None before the
    /// first, which begins at the same place in all archives.
    pub(crate) fn filler_len(&self, archive: &ArchiveSummary, begins_chain: bool) -> u64 {
        if self.reflink && begins_chain && archive.blocks > 0 { filler::len(archive.len) } else { 0 }
    }
}

/// What an archive has as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArchiveSummary {
    /// Entries.
    pub entries: u64,
    /// Blocks.
    pub blocks: u64,
    /// Bytes of the tar, without its end.
    pub plain_len: u64,
    /// Bytes of the archive.
    pub len: u64,
    /// CRC-32 of the tar with its end, which is in the archive's trailer, too.
    pub crc: u32,
}

impl ArchiveSummary {
    /// The last bytes of the archive.
    pub(crate) fn trailer(&self) -> [u8; TRAILER_LEN] {
        deflate::trailer(self.crc, self.plain_len + END.len() as u64)
    }
}

/// An entry as the index has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexedEntry {
    /// The id of the item.
    pub id: String,
    /// When the item was modified, in seconds since 1970.
    pub mtime: i64,
    /// Bytes of the content.
    pub len: u64,
    /// The hash of the content.
    pub hash: ContentHash,
}

/// A block as the index has it.
#[derive(Clone, Debug)]
pub struct IndexedBlock {
    pub(crate) number: u64,
    pub(crate) place: Place,
    pub(crate) entries: u64,
    pub(crate) first: IndexedEntry,
    pub(crate) body: Vec<u8>,
    /// Where the entries begin in the body, and the record in the index.
    entries_at: usize,
    offset: u64,
    file: Arc<str>,
}

/// Where a block is and what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) plain_offset: u64,
    pub(crate) plain_len: u64,
    pub(crate) crc: u32,
    pub(crate) begins_chain: bool,
}

impl IndexedBlock {
    /// The byte of the archive at which it begins.
    pub fn offset(&self) -> u64 {
        self.place.offset
    }

    /// Its compressed bytes.
    #[expect(clippy::len_without_is_empty, reason = "a block is never empty")]
    pub fn len(&self) -> u64 {
        self.place.len
    }

    /// The byte of the tar at which it begins.
    pub fn plain_offset(&self) -> u64 {
        self.place.plain_offset
    }

    /// Its bytes in the tar.
    pub fn plain_len(&self) -> u64 {
        self.place.plain_len
    }

    /// The CRC-32 of its bytes in the tar.
    pub fn crc(&self) -> u32 {
        self.place.crc
    }

    /// Whether it can be inflated by itself. One that does not begin a chain refers to bytes of the block before it.
    pub fn begins_chain(&self) -> bool {
        self.place.begins_chain
    }

    /// The id of its first entry.
    pub fn first_id(&self) -> &str {
        &self.first.id
    }

    /// Its entries, in the order of their ids.
    ///
    /// # Errors
    /// [`Error::Index`] where they do not fit the block.
    pub fn entries(&self) -> Result<Vec<IndexedEntry>, Error> {
        self.decode().ok_or_else(|| bad(&self.file, self.offset, "the entries of a block are malformed"))
    }

    fn decode(&self) -> Option<Vec<IndexedEntry>> {
        let mut rest = &self.body[self.entries_at..];
        let mut entries: Vec<IndexedEntry> = Vec::new();
        let mut plain_len = 0u64;
        for _ in 0..self.entries {
            let entry = decode_entry(&mut rest, entries.last())?;
            plain_len = plain_len.checked_add(entry.checked_tar_len()?)?;
            if entries.last().is_some_and(|before| before.id >= entry.id) {
                return None;
            }
            entries.push(entry);
        }
        (rest.is_empty() && plain_len == self.place.plain_len).then_some(entries)
    }
}

impl IndexedEntry {
    /// How many bytes of the tar it takes, for one that was checked when it was read.
    pub(crate) fn tar_len(&self) -> u64 {
        self.checked_tar_len().unwrap_or(0)
    }

    /// How many bytes of the tar it takes, if it can be an entry.
    fn checked_tar_len(&self) -> Option<u64> {
        let name = name::of_id(&self.id, "").ok()?;
        (self.len <= LONGEST_CONTENT).then(|| header::entry_len(&name, self.len, self.mtime))
    }
}

fn decode_entry(from: &mut &[u8], before: Option<&IndexedEntry>) -> Option<IndexedEntry> {
    let (last_id, last_mtime) = before.map_or(("", 0), |before| (before.id.as_str(), before.mtime));
    let shared = usize::try_from(varint::take(from)?).ok()?;
    let own = usize::try_from(varint::take(from)?).ok()?;
    let (own, rest) = from.split_at_checked(own)?;
    *from = rest;
    let id = String::from_utf8([last_id.as_bytes().get(..shared)?, own].concat()).ok()?;
    let mtime = last_mtime.wrapping_add(varint::take_signed(from)?);
    let len = varint::take(from)?;
    let (hash, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(IndexedEntry { id, mtime, len, hash: ContentHash(*hash) })
}

/// The body of a block's record.
pub(crate) fn encode(len: u64, plain_len: u64, crc: u32, begins_chain: bool, entries: &[IndexedEntry]) -> Vec<u8> {
    let mut body = Vec::with_capacity(32 + 32 * entries.len());
    varint::put(&mut body, len);
    varint::put(&mut body, plain_len);
    body.extend_from_slice(&crc.to_le_bytes());
    body.push(u8::from(begins_chain));
    varint::put(&mut body, entries.len() as u64);
    let (mut last_id, mut last_mtime) = (&[][..], 0i64);
    for entry in entries {
        let id = entry.id.as_bytes();
        let shared = id.iter().zip(last_id).take_while(|(a, b)| a == b).count();
        varint::put(&mut body, shared as u64);
        varint::put(&mut body, (id.len() - shared) as u64);
        body.extend_from_slice(&id[shared..]);
        varint::put_signed(&mut body, entry.mtime.wrapping_sub(last_mtime));
        varint::put(&mut body, entry.len);
        body.extend_from_slice(&entry.hash.0);
        (last_id, last_mtime) = (id, entry.mtime);
    }
    body
}

/// Writes an index.
pub(crate) struct IndexWriter<X> {
    output: X,
    crc: crc32fast::Hasher,
    file: String,
}

impl<X: Write> IndexWriter<X> {
    pub(crate) fn new(output: X, recipe: &Recipe, file: &str) -> Result<IndexWriter<X>, Error> {
        let mut header = Vec::with_capacity(HEADER_LEN);
        header.extend_from_slice(&MAGIC);
        let lens = [recipe.lens.block as u32, recipe.lens.chain as u32];
        let version = if recipe.reflink { REFLINK_VERSION } else { VERSION };
        for number in [version, recipe.level, recipe.engine, lens[0], lens[1]] {
            header.extend_from_slice(&number.to_le_bytes());
        }
        header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        let mut writer = IndexWriter { output, crc: crc32fast::Hasher::new(), file: file.to_owned() };
        writer.write(&header)?;
        Ok(writer)
    }

    /// Adds the body of a block's record.
    pub(crate) fn record(&mut self, body: &[u8]) -> Result<(), Error> {
        self.write(&(body.len() as u32).to_le_bytes())?;
        self.write(body)?;
        self.write(&crc32fast::hash(body).to_le_bytes())
    }

    pub(crate) fn finish(mut self, summary: &ArchiveSummary) -> Result<X, Error> {
        self.write(&0u32.to_le_bytes())?;
        let mut footer = Vec::with_capacity(FOOTER_LEN);
        for number in [summary.blocks, summary.entries, summary.plain_len, summary.len] {
            footer.extend_from_slice(&number.to_le_bytes());
        }
        footer.extend_from_slice(&summary.crc.to_le_bytes());
        footer.extend_from_slice(&self.crc.clone().finalize().to_le_bytes());
        footer.extend_from_slice(&crc32fast::hash(&footer).to_le_bytes());
        footer.extend_from_slice(&FOOTER_MAGIC);
        self.write(&footer)?;
        self.output.flush().map_err(|source| Error::Output { file: self.file.clone(), source })?;
        Ok(self.output)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.crc.update(bytes);
        self.output.write_all(bytes).map_err(|source| Error::Output { file: self.file.clone(), source })
    }
}

/// An index that is read block by block, in constant memory.
pub struct ArchiveIndex<R> {
    input: BufReader<R>,
    file: Arc<str>,
    recipe: Recipe,
    summary: ArchiveSummary,
    crc: crc32fast::Hasher,
    /// The CRC that all records must have.
    expected: u32,
    /// Where the next record begins in the index, and where the footer does.
    offset: u64,
    footer: u64,
    /// The sum of what has been read.
    read: ArchiveSummary,
    last_id: String,
    ended: bool,
}

impl<R: Read + Seek> ArchiveIndex<R> {
    /// Opens an index and checks its two ends. `file` is the name that errors give.
    ///
    /// # Errors
    /// [`Error::Index`] where it is damaged, cut short or of another version; [`Error::Io`].
    pub fn open(mut input: R, file: &str) -> Result<ArchiveIndex<R>, Error> {
        let io = |source| Error::Io { file: file.to_owned(), offset: None, source };
        let end = input.seek(SeekFrom::End(0)).map_err(io)?;
        let Some(footer_at) = end.checked_sub(FOOTER_LEN as u64).filter(|&at| at >= HEADER_LEN as u64 + 4) else {
            return Err(bad(file, end, "it is cut short"));
        };
        let mut footer = [0; FOOTER_LEN];
        input.seek(SeekFrom::Start(footer_at)).map_err(io)?;
        input.read_exact(&mut footer).map_err(io)?;
        if footer[44..] != FOOTER_MAGIC || crc32fast::hash(&footer[..40]) != u32_at(&footer, 40) {
            return Err(bad(file, footer_at, "its end is damaged or missing"));
        }
        let mut header = [0; HEADER_LEN];
        input.seek(SeekFrom::Start(0)).map_err(io)?;
        input.read_exact(&mut header).map_err(io)?;
        if header[..8] != MAGIC || crc32fast::hash(&header[..28]) != u32_at(&header, 28) {
            return Err(bad(file, 0, "its beginning is damaged, or it is no index"));
        }
        let reflink = match u32_at(&header, 8) {
            VERSION => false,
            REFLINK_VERSION => true,
            _ => return Err(bad(file, 8, "it is of another version")),
        };
        let lens = Lens { block: u32_at(&header, 20).into(), chain: u32_at(&header, 24).into() };
        let recipe = Recipe { level: u32_at(&header, 12), engine: u32_at(&header, 16), lens, reflink };
        if !(LOWEST_LEVEL..=HIGHEST_LEVEL).contains(&recipe.level)
            || !(1..=LONGEST.block).contains(&lens.block)
            || !(lens.block..=LONGEST.chain).contains(&lens.chain)
        {
            return Err(bad(file, 12, "its parameters are out of range"));
        }
        let summary = ArchiveSummary {
            blocks: u64_at(&footer, 0),
            entries: u64_at(&footer, 8),
            plain_len: u64_at(&footer, 16),
            len: u64_at(&footer, 24),
            crc: u32_at(&footer, 32),
        };
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header);
        Ok(ArchiveIndex {
            input: BufReader::with_capacity(64 * 1024, input),
            file: file.into(),
            recipe,
            summary,
            crc,
            expected: u32_at(&footer, 36),
            offset: HEADER_LEN as u64,
            footer: footer_at,
            read: ArchiveSummary { len: deflate::HEADER.len() as u64, ..ArchiveSummary::default() },
            last_id: String::new(),
            ended: false,
        })
    }

    /// What the archive has as a whole.
    pub fn summary(&self) -> ArchiveSummary {
        self.summary
    }

    /// How the archive was made, which a splice goes on with. The number of threads is the default.
    pub fn options(&self) -> ArchiveOptions {
        let Recipe { lens, level, reflink, .. } = self.recipe;
        // They have been checked to be small.
        ArchiveOptions {
            level,
            block_len: lens.block as u32,
            chain_len: lens.chain as u32,
            reflink,
            ..ArchiveOptions::default()
        }
    }

    pub(crate) fn recipe(&self) -> Recipe {
        self.recipe
    }

    /// The next block; none after the last.
    ///
    /// # Errors
    /// [`Error::Index`] where the record, or at the end the index as a whole, is damaged; [`Error::Io`].
    pub fn next_block(&mut self) -> Result<Option<IndexedBlock>, Error> {
        if self.ended {
            return Ok(None);
        }
        let offset = self.offset;
        let len = u32::from_le_bytes(self.read_array()?);
        if len == 0 {
            let read = ArchiveSummary { len: self.summary.len, crc: self.summary.crc, ..self.read };
            if self.offset != self.footer || self.crc.clone().finalize() != self.expected || read != self.summary {
                return Err(bad(&self.file, offset, "its records are not those that its end speaks of"));
            }
            self.ended = true;
            return Ok(None);
        }
        if u64::from(len) > LONGEST_BODY || self.offset + u64::from(len) + 4 > self.footer {
            return Err(bad(&self.file, offset, "a record has an impossible length"));
        }
        let mut body = vec![0; len as usize];
        self.read_into(&mut body)?;
        if u32::from_le_bytes(self.read_array()?) != crc32fast::hash(&body) {
            return Err(bad(&self.file, offset, "the checksum of a record is wrong"));
        }
        let block = self.parse(body, offset).ok_or_else(|| bad(&self.file, offset, "a record is malformed"))?;
        self.read.blocks += 1;
        self.read.entries += block.entries;
        self.read.plain_len += block.place.plain_len;
        self.read.len = block.place.offset + block.place.len;
        self.last_id.clone_from(&block.first.id);
        Ok(Some(block))
    }

    fn parse(&self, body: Vec<u8>, offset: u64) -> Option<IndexedBlock> {
        let mut rest = &body[..];
        let (len, plain_len) = (varint::take(&mut rest)?, varint::take(&mut rest)?);
        let (crc, after) = rest.split_first_chunk()?;
        let (&begins_chain, after) = after.split_first()?;
        rest = after;
        let entries = varint::take(&mut rest)?;
        let entries_at = body.len() - rest.len();
        let first = decode_entry(&mut rest, None)?;
        let start = self.read.len + self.recipe.filler_len(&self.read, begins_chain == 1);
        // What stands in an archive that is not there must not make anybody ask for memory.
        let longest = if entries == 1 { first.checked_tar_len()? } else { self.recipe.lens.block * 4 };
        let fits = begins_chain <= 1
            && (1..=longest).contains(&plain_len)
            && first.checked_tar_len()? <= plain_len
            && (1..=plain_len / BLOCK as u64).contains(&entries)
            && (1..=deflate::longest(plain_len)).contains(&len)
            && plain_len <= len.saturating_mul(deflate::HIGHEST_RATIO)
            && start.checked_add(len)? <= self.summary.len
            && (self.read.blocks > 0 || begins_chain == 1)
            && (self.read.blocks == 0 || self.last_id < first.id);
        let place = Place {
            offset: start,
            len,
            plain_offset: self.read.plain_len,
            plain_len,
            crc: u32::from_le_bytes(*crc),
            begins_chain: begins_chain == 1,
        };
        fits.then_some(IndexedBlock {
            number: self.read.blocks,
            place,
            entries,
            first,
            body,
            entries_at,
            offset,
            file: Arc::clone(&self.file),
        })
    }

    fn read_array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.read_into(&mut bytes)?;
        Ok(bytes)
    }

    fn read_into(&mut self, into: &mut [u8]) -> Result<(), Error> {
        self.input.read_exact(into).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => bad(&self.file, self.offset, "it is cut short"),
            _ => Error::Io { file: self.file.to_string(), offset: Some(self.offset), source },
        })?;
        self.crc.update(into);
        self.offset += into.len() as u64;
        Ok(())
    }
}

impl<R> ArchiveIndex<R> {
    /// The name that errors give.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }
}

fn bad(file: &str, offset: u64, reason: &'static str) -> Error {
    Error::Index { file: file.to_owned(), offset, reason }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
