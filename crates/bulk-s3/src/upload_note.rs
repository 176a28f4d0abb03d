//! What is kept of an object that was uploaded in parts, so that the next edition of it is uploaded by copies of its stretches.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bulk_core::{Algorithm, Digest, ETag};

use crate::chunks::Chunk;

/// What a file of ours begins with. Another table of [`chunks`](crate::chunks) is another number.
const MAGIC: &[u8; 16] = b"bulk-s3 chunks 1";
const DIGEST: usize = 32;

/// The chunks of one version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UploadNote {
    pub(crate) etag: ETag,
    pub(crate) chunks: Vec<Chunk>,
}

impl UploadNote {
    /// Where the note of an object is, or those of a prefix are, by its [`identity`](bulk_core::Source::identity).
    pub(crate) fn path(folder: &Path, identity: &str) -> PathBuf {
        let digest = Digest::of(Algorithm::Sha256, identity.as_bytes()).to_string();
        folder.join(digest.rsplit(':').next().unwrap_or_default())
    }

    pub(crate) fn size(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.len)).sum()
    }

    /// None if there is none, or it is damaged.
    pub(crate) fn read(path: &Path) -> io::Result<Option<Self>> {
        match fs::read(path) {
            Ok(bytes) => Ok(Self::parse(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes it beside, and renames it. A loss of power may damage it, which is seen.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let part = path.with_extension("part");
        fs::File::create(&part)?.write_all(&self.to_bytes())?;
        fs::rename(part, path)
    }

    /// Removes all that is in a folder but for these.
    pub(crate) fn remove_others(folder: &Path, known: &HashSet<PathBuf>) -> io::Result<()> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            if !known.contains(&path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let etag = self.etag.as_str().as_bytes();
        let mut bytes = MAGIC.to_vec();
        bytes.extend((etag.len() as u32).to_le_bytes());
        bytes.extend(etag);
        for chunk in &self.chunks {
            bytes.extend(chunk.len.to_le_bytes());
            bytes.extend(chunk.sha256);
        }
        bytes.extend(checksum(&bytes));
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (bytes, found) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST)?)?;
        if checksum(bytes) != found {
            return None;
        }
        let (len, rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk()?;
        let (etag, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        let chunk = |bytes: &[u8]| {
            let (len, sha256) = bytes.split_first_chunk()?;
            Some(Chunk { len: u32::from_le_bytes(*len), sha256: sha256.try_into().ok()? })
        };
        let chunks = rest.chunks(size_of::<u32>() + DIGEST).map(chunk).collect::<Option<_>>()?;
        Some(Self { etag: ETag::new(std::str::from_utf8(etag).ok()?), chunks })
    }
}

fn checksum(bytes: &[u8]) -> Vec<u8> {
    match Digest::of(Algorithm::Sha256, bytes) {
        Digest::Sha256(sha256) => sha256.to_vec(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use bulk_core::ETag;
    use proptest::prelude::*;

    use super::UploadNote;
    use crate::chunks::Chunk;

    fn note() -> UploadNote {
        let chunks = (1..4).map(|number| Chunk { len: u32::from(number) * 70_000, sha256: [number; 32] });
        UploadNote { etag: ETag::new("\"0123-7\""), chunks: chunks.collect() }
    }

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = UploadNote::path(&folder.path().join("notes"), "https://host/bucket/key");
        assert_eq!(UploadNote::read(&path).unwrap(), None);
        note().write(&path).unwrap();
        assert_eq!(UploadNote::read(&path).unwrap(), Some(note()));
        assert_eq!(note().size(), 420_000);
        let names: Vec<_> =
            std::fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(names, std::slice::from_ref(&path));
        let folder = path.parent().unwrap();
        std::fs::write(folder.join("0123.part"), "").unwrap();
        UploadNote::remove_others(folder, &HashSet::from([path.clone()])).unwrap();
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
        UploadNote::remove_others(folder, &HashSet::new()).unwrap();
        UploadNote::remove_others(&folder.join("absent"), &HashSet::new()).unwrap();
        assert_eq!(UploadNote::read(&path).unwrap(), None);
    }

    proptest! {
        #[test]
        fn a_damaged_note_is_none(at in 0_usize..166, bit in 0_u32..8, cut in 0_usize..166) {
            let mut bytes = note().to_bytes();
            prop_assert_eq!(bytes.len(), 166);
            prop_assert_eq!(UploadNote::parse(&bytes[..cut]), None);
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(UploadNote::parse(&bytes), None);
        }

        #[test]
        fn any_bytes_are_a_note_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(UploadNote::parse(&bytes), None);
        }
    }
}
