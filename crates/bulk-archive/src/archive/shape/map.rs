//! The map of a shape: what its stretches were made of, and where they are.
//!
//! ```text
//! header    magic (8), version, shape (u32 each)
//! records   one for each stretch: length (u32), body
//! end       a record's length of 0, SHA-256 of the shape's file (32), its length (u64), CRC-32 of all before (u32)
//! ```
//! A body is the digest (16 bytes), the CRC-32 of the bytes of the stretch in the file and, where a format needs it, of the
//! plain ones (u32 each), how many there are of both, and the stretch's key: its first id, in the shape of a whole type with the name
//! of the group's archive and a zero byte before it. Numbers are little endian, those without a width of seven bits a byte
//! ([`varint`]).

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use super::{Shape, stretch::Digest};
use crate::{Error, archive::varint};

const MAGIC: [u8; 8] = *b"\x89BSHM\r\n\x1a";
const VERSION: u32 = 2;
const HEADER_LEN: usize = 16;
/// What follows the last record.
const END_LEN: usize = 4 + 32 + 8 + 4;
/// Longer than any: an id has 250 bytes at most, the name of an archive 251.
const LONGEST_BODY: usize = 1024;

/// A stretch of a shape's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) number: u64,
    /// Bytes of the stretches before it.
    pub(super) before: u64,
    pub(super) len: u64,
    pub(super) crc: u32,
    pub(super) plain_len: u64,
    pub(super) plain_crc: u32,
}

pub(crate) struct MapWriter<X> {
    output: X,
    crc: crc32fast::Hasher,
    file: String,
    count: u64,
}

impl<X: Write> MapWriter<X> {
    pub(super) fn new(output: X, shape: Shape, file: &str) -> Result<MapWriter<X>, Error> {
        let mut writer = MapWriter { output, crc: crc32fast::Hasher::new(), file: file.to_owned(), count: 0 };
        writer.write(&header(shape))?;
        Ok(writer)
    }

    /// Adds a stretch, whatever the number of the place and what is said to be before it.
    pub(super) fn add(&mut self, key: &str, digest: &Digest, place: &Place) -> Result<(), Error> {
        let mut body = Vec::with_capacity(64);
        body.extend_from_slice(digest);
        body.extend_from_slice(&place.crc.to_le_bytes());
        body.extend_from_slice(&place.plain_crc.to_le_bytes());
        varint::put(&mut body, place.len);
        varint::put(&mut body, place.plain_len);
        body.extend_from_slice(key.as_bytes());
        self.write(&(body.len() as u32).to_le_bytes())?;
        self.count += 1;
        self.write(&body)
    }

    /// How many stretches there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Writes the end. The file of the shape has this length and digest.
    pub(crate) fn finish(mut self, len: u64, sha256: &[u8; 32]) -> Result<X, Error> {
        self.write(&0u32.to_le_bytes())?;
        self.write(sha256)?;
        self.write(&len.to_le_bytes())?;
        let crc = self.crc.clone().finalize();
        self.write(&crc.to_le_bytes())?;
        self.output.flush().map_err(|source| Error::Output { file: self.file.clone(), source })?;
        Ok(self.output)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.crc.update(bytes);
        self.output.write_all(bytes).map_err(|source| Error::Output { file: self.file.clone(), source })
    }
}

fn header(shape: Shape) -> [u8; HEADER_LEN] {
    let number = match shape {
        Shape::JsonlGz => 1u32,
        Shape::JsonlZst => 2,
        Shape::Parquet => 3,
    };
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    for (field, number) in header[8..].chunks_mut(4).zip([VERSION, number]) {
        field.copy_from_slice(&number.to_le_bytes());
    }
    header
}

/// What a file has of the stretches of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Stretch,
    /// None of so many.
    None {
        stretches: u64,
    },
}

/// A map that is read stretch by stretch.
pub(crate) struct Map {
    /// How long the file of the shape is that it belongs to.
    pub(crate) len: u64,
    /// The SHA-256 of that file.
    pub(crate) sha256: [u8; 32],
    shape: Shape,
    input: BufReader<File>,
    file: String,
    /// The next stretch, if it was read.
    next: Option<(String, Digest, Place)>,
    /// What is behind the stretches that were read.
    number: u64,
    before: u64,
    ended: bool,
}

impl Map {
    /// Opens a map, if it is whole, of this shape, and belongs to a file of this length and digest. All of it is read for
    /// that.
    ///
    /// # Errors
    /// [`Error::Io`]; not for one that is missing or damaged.
    pub(crate) fn open(path: &Path, shape: Shape, len: u64, sha256: &[u8; 32]) -> Result<Option<Map>, Error> {
        Ok(Map::open_any(path, shape)?.filter(|map| map.len == len && map.sha256 == *sha256))
    }

    /// Opens a map, if it is whole and of this shape, whatever file it belongs to. All of it is read for that.
    ///
    /// # Errors
    /// [`Error::Io`]; not for one that is missing or damaged.
    pub(crate) fn open_any(path: &Path, shape: Shape) -> Result<Option<Map>, Error> {
        let file = path.display().to_string();
        let failed = |source| Error::Io { file: file.clone(), offset: None, source };
        let opened = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let facts = opened.metadata().map_err(failed)?;
        let all = facts.len();
        let mut input = BufReader::with_capacity(64 * 1024, opened);
        let mut start = [0; HEADER_LEN];
        // The maps of the groups of a type are in a folder that may be called as the file of another type.
        if !facts.is_file() || all < (HEADER_LEN + END_LEN) as u64 {
            return Ok(None);
        }
        input.read_exact(&mut start).map_err(failed)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&start);
        let mut records = input.by_ref().take(all - (HEADER_LEN + END_LEN) as u64);
        let mut buffer = [0; 8192];
        loop {
            match records.read(&mut buffer).map_err(failed)? {
                0 => break,
                read => crc.update(&buffer[..read]),
            }
        }
        let mut end = [0; END_LEN];
        input.read_exact(&mut end).map_err(failed)?;
        let (end, sum) = end.split_at(END_LEN - 4);
        crc.update(end);
        if start != header(shape) || end[..4] != [0; 4] || sum != crc.finalize().to_le_bytes() {
            return Ok(None);
        }
        let (mut sha256, mut len) = ([0; 32], [0; 8]);
        sha256.copy_from_slice(&end[4..36]);
        len.copy_from_slice(&end[36..]);
        let len = u64::from_le_bytes(len);
        input.seek(SeekFrom::Start(HEADER_LEN as u64)).map_err(failed)?;
        Ok(Some(Map { len, sha256, shape, input, file, next: None, number: 0, before: 0, ended: false }))
    }

    /// Whether the file has a stretch of the map in its place, so that it was made as the map says, whatever has become of the
    /// rest. To be asked before any stretch is looked for.
    pub(crate) fn look_into(mut self, file: &File) -> Result<Found, Error> {
        let mut stretches = 0;
        loop {
            let place = match self.read() {
                Ok(Some((_, _, place))) => place,
                Ok(None) | Err(Error::Set { .. }) => return Ok(Found::None { stretches }),
                Err(error) => return Err(error),
            };
            stretches += 1;
            if place.len > 0
                && let Some(start) = super::start(self.shape, &place)
                && crc_of(file, start, place.len).map_err(|source| Error::Io {
                    file: self.file.clone(),
                    offset: Some(start),
                    source,
                })? == Some(place.crc)
            {
                return Ok(Found::Stretch);
            }
        }
    }

    /// The stretch that has this key and digest, if there is one. To be asked in the order of keys.
    pub(super) fn find(&mut self, key: &str, digest: &Digest) -> Result<Option<Place>, Error> {
        loop {
            if self.next.is_none() && !self.ended {
                self.next = self.read()?;
                self.ended = self.next.is_none();
            }
            match &self.next {
                Some((other, ..)) if other.as_str() < key => self.next = None,
                Some((other, found, place)) => return Ok((other == key && found == digest).then_some(*place)),
                None => return Ok(None),
            }
        }
    }

    fn read(&mut self) -> Result<Option<(String, Digest, Place)>, Error> {
        let mut len = [0; 4];
        self.fill(&mut len)?;
        let len = u32::from_le_bytes(len) as usize;
        if len == 0 {
            return Ok(None);
        }
        let mut body = [0; LONGEST_BODY];
        let body = body.get_mut(..len).ok_or_else(|| super::not_as_mapped(&self.file))?;
        self.input.read_exact(body).map_err(|source| Error::Io { file: self.file.clone(), offset: None, source })?;
        let (number, before) = (self.number, self.before);
        let parse = |body: &[u8]| -> Option<(String, Digest, Place)> {
            let (digest, rest) = body.split_first_chunk()?;
            let (crc, rest) = rest.split_first_chunk()?;
            let (plain_crc, mut rest) = rest.split_first_chunk()?;
            let (len, plain_len) = (varint::take(&mut rest)?, varint::take(&mut rest)?);
            let (crc, plain_crc) = (u32::from_le_bytes(*crc), u32::from_le_bytes(*plain_crc));
            let place = Place { number, before, len, crc, plain_len, plain_crc };
            Some((String::from_utf8(rest.to_vec()).ok()?, *digest, place))
        };
        let read = parse(body).ok_or_else(|| super::not_as_mapped(&self.file))?;
        self.number += 1;
        self.before = before.checked_add(read.2.len).ok_or_else(|| super::not_as_mapped(&self.file))?;
        Ok(Some(read))
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<(), Error> {
        self.input.read_exact(into).map_err(|source| Error::Io { file: self.file.clone(), offset: None, source })
    }
}

/// The CRC-32 of so many bytes of a file; none where it has fewer.
pub(super) fn crc_of(file: &File, start: u64, len: u64) -> io::Result<Option<u32>> {
    let Some(end) = start.checked_add(len) else { return Ok(None) };
    let (mut at, mut crc) = (start, crc32fast::Hasher::new());
    let mut buffer = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(128 * 1024)];
    while at < end {
        let some = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        match file.read_exact_at(&mut buffer[..some], at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        crc.update(&buffer[..some]);
        at += some as u64;
    }
    Ok(Some(crc.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256: [u8; 32] = [7; 32];

    fn place(number: u64, before: u64, len: u64) -> Place {
        Place { number, before, len, crc: 1, plain_len: 9, plain_crc: 2 }
    }

    fn written() -> Vec<u8> {
        let mut map = MapWriter::new(Vec::new(), Shape::Parquet, "a").unwrap();
        for (id, len) in [("b", 100), ("d", 0), ("f", 300)] {
            map.add(id, &[len as u8; 16], &place(0, 0, len)).unwrap();
        }
        assert_eq!(map.count(), 3);
        map.finish(1000, &SHA256).unwrap()
    }

    fn opened(bytes: &[u8], shape: Shape, len: u64) -> Option<Map> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Map::open(file.path(), shape, len, &SHA256).unwrap()
    }

    #[test]
    fn stretches_are_found_by_their_key_and_digest() {
        let mut map = opened(&written(), Shape::Parquet, 1000).unwrap();
        assert_eq!(map.find("a", &[100; 16]).unwrap(), None);
        assert_eq!(map.find("b", &[0; 16]).unwrap(), None);
        assert_eq!(map.find("b", &[100; 16]).unwrap(), Some(place(0, 0, 100)));
        assert_eq!(map.find("f", &[44; 16]).unwrap(), Some(place(2, 100, 300)));
        assert_eq!(map.find("g", &[44; 16]).unwrap(), None);
        assert_eq!(map.find("h", &[44; 16]).unwrap(), None);
    }

    #[test]
    fn a_map_of_something_else_or_a_damaged_one_is_none() {
        let bytes = written();
        assert!(opened(&bytes, Shape::JsonlGz, 1000).is_none());
        assert!(opened(&bytes, Shape::Parquet, 1001).is_none());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(opened(&damaged, Shape::Parquet, 1000).is_none(), "{at}");
            assert!(opened(&bytes[..at], Shape::Parquet, 1000).is_none(), "{at}");
        }
    }
}
