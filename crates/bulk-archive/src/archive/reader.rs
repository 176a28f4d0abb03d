use std::io::Read;

use super::{
    header::{self, BLOCK, END},
    index::LONGEST_CONTENT,
    name,
};
use crate::{Error, gzip, input::Input};

/// An item of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Item<'a> {
    /// The id.
    pub id: &'a str,
    /// When it was modified, in seconds since 1970.
    pub mtime: i64,
    /// What its entry has.
    pub content: &'a [u8],
}

/// Reads the items of an archive that [`ArchiveWriter`](crate::ArchiveWriter) or [`splice`](crate::splice()) made, from
/// its first byte to its last, without an index.
///
/// It takes nothing else: an entry with another header than they give it is an error. It holds one item at a time.
pub struct ArchiveReader<R> {
    gzip: gzip::Reader<R>,
    file: String,
    /// The bytes of the tar before the entry at hand.
    offset: u64,
    id: String,
    entry: Vec<u8>,
    ended: bool,
}

impl<R: Read> ArchiveReader<R> {
    /// Begins to read an archive. `file` is the name that errors give.
    pub fn new(archive: R, file: &str) -> ArchiveReader<R> {
        ArchiveReader {
            gzip: gzip::Reader::new(Input::new(archive, file.into())),
            file: file.to_owned(),
            offset: 0,
            id: String::new(),
            entry: Vec::new(),
            ended: false,
        }
    }

    /// The next item; none after the last, when the archive has been read and checked to its end.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Truncated`], [`Error::Tar`], [`Error::TarTruncated`], [`Error::Io`].
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, Error> {
        if self.ended {
            return Ok(None);
        }
        self.entry.clear();
        self.fill(BLOCK)?;
        if self.entry.iter().all(|&byte| byte == 0) {
            self.fill(END.len())?;
            let mut rest = [0; BLOCK];
            if self.entry != END || self.gzip.read(&mut rest)? > 0 {
                return Err(self.bad("bytes after the end of the tar"));
            }
            self.ended = true;
            return Ok(None);
        }
        if self.entry[156] == b'x' {
            self.fill(3 * BLOCK)?;
        }
        let header = self.entry.clone();
        let facts = Facts::parse(&header).ok_or_else(|| self.bad("an entry that was not written here"))?;
        let start = header.len();
        self.fill(start + facts.len.next_multiple_of(BLOCK as u64) as usize)?;
        let end = start + facts.len as usize;
        if self.entry[end..].iter().any(|&byte| byte != 0) {
            return Err(self.bad("an entry that was not written here"));
        }
        self.offset += self.entry.len() as u64;
        self.id = facts.id;
        Ok(Some(Item { id: &self.id, mtime: facts.mtime, content: &self.entry[start..end] }))
    }

    /// Reads until the entry has `len` bytes. Asks for memory as bytes come.
    fn fill(&mut self, len: usize) -> Result<(), Error> {
        while self.entry.len() < len {
            let start = self.entry.len();
            self.entry.resize(len.min(start + 64 * 1024), 0);
            let read = self.gzip.read(&mut self.entry[start..])?;
            self.entry.truncate(start + read);
            if read == 0 {
                let offset = self.offset + start as u64;
                return Err(Error::TarTruncated { file: self.file.clone(), offset });
            }
        }
        Ok(())
    }

    fn bad(&self, reason: &str) -> Error {
        Error::Tar { file: self.file.clone(), offset: self.offset, reason: reason.to_owned() }
    }
}

/// What the headers of an entry say.
struct Facts {
    id: String,
    mtime: i64,
    len: u64,
}

impl Facts {
    /// None unless they are just what [`header::write`] makes of it.
    fn parse(headers: &[u8]) -> Option<Facts> {
        let ustar = &headers[headers.len() - BLOCK..];
        let name = &ustar[..100];
        let name = &name[..name.iter().position(|&byte| byte == 0).unwrap_or(name.len())];
        let (mut name, mut mtime) = (name.to_vec(), i64::try_from(octal(&ustar[136..147])?).ok()?);
        let len = octal(&ustar[124..135])?;
        if headers.len() > BLOCK {
            for record in headers[BLOCK..2 * BLOCK].split(|&byte| byte == b'\n') {
                let text = record.splitn(2, |&byte| byte == b' ').nth(1).unwrap_or_default();
                if let Some(path) = text.strip_prefix(b"path=") {
                    name = path.to_vec();
                } else if let Some(time) = text.strip_prefix(b"mtime=") {
                    mtime = str::from_utf8(time).ok()?.parse().ok()?;
                }
            }
        }
        let id = name::to_id(&name)?;
        let mut same = Vec::with_capacity(headers.len());
        header::write(&mut same, str::from_utf8(&name).ok()?, len, mtime);
        (same == headers && len <= LONGEST_CONTENT).then_some(Facts { id, mtime, len })
    }
}

fn octal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| match digit {
        b'0'..=b'7' => Some(value * 8 + u64::from(digit - b'0')),
        _ => None,
    })
}
