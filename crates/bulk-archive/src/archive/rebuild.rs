use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    index::ArchiveSummary,
    reader::ArchiveReader,
    writer::{ArchiveOptions, ArchiveWriter},
};
use crate::Error;

/// Makes the index of an archive anew, in one pass over it.
///
/// The items are read and compressed again, and what comes out is compared with the archive, byte by byte; so it takes as
/// long as making the archive, and an index comes out only if the archive is just what the same options and items give. It
/// holds in memory what an [`ArchiveWriter`] does.
///
/// # Errors
/// [`Error::NotCanonical`] where other options, another version of the compressor or another program made the archive: make a
/// new one of its items then, which [`ArchiveReader`] gives. [`Error::Corrupt`], [`Error::Truncated`], [`Error::Tar`],
/// [`Error::TarTruncated`], [`Error::Io`]; [`Error::Output`] where the index cannot be written. What was written to `index`
/// is no usable index then.
pub fn rebuild_index<X: Write>(
    archive: impl Read,
    index: X,
    file: &str,
    options: &ArchiveOptions,
) -> Result<(X, ArchiveSummary), Error> {
    let expected = Expected::default();
    let mut reader = ArchiveReader::new(Tee { archive, expected: expected.clone() }, file);
    let outcome = compare(&mut reader, index, file, options, &expected);
    let bytes = expected.0.lock().unwrap_or_else(PoisonError::into_inner);
    match (outcome, bytes.differs) {
        (_, Some(offset)) => Err(Error::NotCanonical { file: file.to_owned(), offset }),
        (Ok(_), None) if !bytes.ahead.is_empty() => {
            Err(Error::NotCanonical { file: file.to_owned(), offset: bytes.compared })
        }
        (outcome, None) => outcome,
    }
}

fn compare<X: Write>(
    reader: &mut ArchiveReader<impl Read>,
    index: X,
    file: &str,
    options: &ArchiveOptions,
    expected: &Expected,
) -> Result<(X, ArchiveSummary), Error> {
    // What is written has been read before: of the archive's header by making the reader, of a block by reading the
    // entry behind it, which ends it, and of the rest by reading to the end.
    let mut writer = ArchiveWriter::new(expected.clone(), index, file, options)?;
    while let Some(item) = reader.next_item()? {
        writer.append(item.id, item.mtime, item.content)?;
    }
    let (_, index, summary) = writer.finish()?;
    Ok((index, summary))
}

/// The bytes that have been read of an archive and are yet to be written again.
#[derive(Clone, Default)]
struct Expected(Arc<Mutex<Bytes>>);

#[derive(Default)]
struct Bytes {
    ahead: VecDeque<u8>,
    compared: u64,
    /// The first byte that differs.
    differs: Option<u64>,
}

/// Reads the archive and notes what it reads.
struct Tee<R> {
    archive: R,
    expected: Expected,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.archive.read(into)?;
        self.expected.0.lock().unwrap_or_else(PoisonError::into_inner).ahead.extend(&into[..read]);
        Ok(read)
    }
}

impl Write for Expected {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut expected = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = bytes.iter().zip(&expected.ahead).take_while(|(a, b)| a == b).count();
        expected.compared += same as u64;
        expected.ahead.drain(..same);
        if same < bytes.len() && expected.differs.is_none() {
            expected.differs = Some(expected.compared);
        }
        if expected.differs.is_some() { Err(io::Error::other("the bytes differ")) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
