//! The records of pax extended headers (POSIX.1-2001).

use super::{
    number::{self, Time},
    sparse::MOST_PIECES,
};

/// What the records say that matters here.
#[derive(Debug, Default)]
pub(crate) struct Pax {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) mtime: Option<Time>,
    pub(crate) sparse: PaxSparse,
}

/// The records of a file with holes, as written by GNU tar in its three versions.
#[derive(Debug, Default)]
pub(crate) struct PaxSparse {
    /// 0.0 and 0.1 need not say so, 1.0 does.
    pub(crate) version: (u64, u64),
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    /// The pieces; in version 1.0 none, since they begin the data.
    pub(crate) pieces: Vec<(u64, u64)>,
    /// A `GNU.sparse.offset` that waits for its `GNU.sparse.numbytes`.
    offset: Option<u64>,
}

impl Pax {
    /// Reads the records, each of which is its length, a space, a key, `=`, a value and a line end.
    ///
    /// A value may have line ends, so that only the length tells where it ends. An empty one unsets what a header
    /// before it set. A name or size that is given twice is refused, since readers take the first or the last.
    pub(crate) fn parse(mut records: &[u8]) -> Result<Pax, &'static str> {
        const MALFORMED: &str = "an extended header's record is malformed";
        let mut pax = Pax::default();
        while !records.is_empty() {
            let space = records.iter().take(20).position(|&byte| byte == b' ').ok_or(MALFORMED)?;
            let length = number::decimal(&records[..space]).and_then(|n| usize::try_from(n).ok()).ok_or(MALFORMED)?;
            let (record, rest) = records.split_at_checked(length).ok_or(MALFORMED)?;
            let record = record.get(space + 1..).and_then(|record| record.strip_suffix(b"\n")).ok_or(MALFORMED)?;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or(MALFORMED)?;
            pax.record(&record[..equals], &record[equals + 1..])?;
            records = rest;
        }
        match pax.sparse.offset {
            Some(_) => Err("the map of a file with holes ends with an offset"),
            None => Ok(pax),
        }
    }

    /// Whether it says anything that a header for all members must not say.
    pub(crate) fn names_a_member(&self) -> bool {
        self.path.is_some() || self.link.is_some() || self.size.is_some() || self.sparse.is_set()
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        const SPARSE: &str = "the map of a file with holes is malformed";
        match key {
            _ if value.is_empty() => {}
            b"path" => once(&mut self.path, value.to_vec())?,
            b"linkpath" => once(&mut self.link, value.to_vec())?,
            b"size" => once(&mut self.size, number::decimal(value).ok_or("a size is no number")?)?,
            b"mtime" => self.mtime = Some(number::time(value).ok_or("a time is no number")?),
            b"GNU.sparse.name" => once(&mut self.sparse.name, value.to_vec())?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                once(&mut self.sparse.size, number::decimal(value).ok_or(SPARSE)?)?;
            }
            b"GNU.sparse.major" => self.sparse.version.0 = number::decimal(value).ok_or(SPARSE)?,
            b"GNU.sparse.minor" => self.sparse.version.1 = number::decimal(value).ok_or(SPARSE)?,
            b"GNU.sparse.offset" => {
                let offset = number::decimal(value).ok_or(SPARSE)?;
                if self.sparse.offset.replace(offset).is_some() {
                    return Err(SPARSE);
                }
            }
            b"GNU.sparse.numbytes" => {
                let length = number::decimal(value).ok_or(SPARSE)?;
                self.sparse.push(self.sparse.offset.ok_or(SPARSE)?, length)?;
                self.sparse.offset = None;
            }
            b"GNU.sparse.map" => {
                let mut numbers = value.split(|&byte| byte == b',').map(number::decimal);
                while let Some(offset) = numbers.next() {
                    let (offset, length) = offset.zip(numbers.next().flatten()).ok_or(SPARSE)?;
                    self.sparse.push(offset, length)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl PaxSparse {
    /// Whether the member is a file with holes.
    pub(crate) fn is_set(&self) -> bool {
        self.size.is_some() || self.name.is_some() || !self.pieces.is_empty() || self.version != (0, 0)
    }

    fn push(&mut self, offset: u64, length: u64) -> Result<(), &'static str> {
        if self.pieces.len() == MOST_PIECES {
            return Err("a file with holes has too many pieces");
        }
        self.pieces.push((offset, length));
        Ok(())
    }
}

fn once<T: PartialEq>(slot: &mut Option<T>, value: T) -> Result<(), &'static str> {
    match slot.replace(value) {
        Some(before) if slot.as_ref() != Some(&before) => {
            Err("an extended header gives a name or size twice, and not the same")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let pax = Pax::parse(b"17 path=a\nb =c=\n\n11 size=10\n").unwrap();
        assert_eq!((pax.path.as_deref(), pax.size), (Some(b"a\nb =c=\n".as_slice()), Some(10)));
        let pax = Pax::parse(b"31 GNU.sparse.map=0,512,1024,5\n8 path=\n").unwrap();
        assert_eq!((pax.sparse.pieces, pax.path), (vec![(0, 512), (1024, 5)], None));
        assert!(Pax::parse(b"").unwrap().path.is_none());
    }

    #[test]
    fn what_is_malformed() {
        for wrong in [
            b"9 path=a".as_slice(),
            b"8 path=a\n",
            b"11 path=a\n",
            b"path=a\n",
            b"0 \n",
            b"2 \n",
            b" 10 path=a\n",
            b"99999999999999999999999 path=a\n",
            b"9 path a\n",
            b"9 path=a\nx",
            b"9 path=a\n9 path=b\n",
            b"9 size=1\n9 size=2\n",
            b"11 size=-1\n",
            b"26 GNU.sparse.map=0,512,1\n",
            b"23 GNU.sparse.offset=1\n",
            b"25 GNU.sparse.numbytes=1\n",
        ] {
            assert!(Pax::parse(wrong).is_err(), "{:?}", String::from_utf8_lossy(wrong));
        }
    }
}
