//! What stretches a shape has, and what tells one from another.

use std::io::{Read, Seek};

use sha2::{Digest as _, Sha256};

use super::Shape;
use crate::{
    Error,
    archive::{
        borders::{Lens, ends_stretch},
        index::{ArchiveIndex, ContentHash, IndexedBlock, IndexedEntry},
    },
};

/// Of what a stretch is made: the first half of a SHA-256.
pub(crate) type Digest = [u8; 16];

/// Some neighbouring blocks of an archive.
pub(super) struct Stretch {
    pub(super) blocks: Vec<(IndexedBlock, Vec<IndexedEntry>)>,
    pub(super) digest: Digest,
}

impl Stretch {
    pub(super) fn first_block(&self) -> u64 {
        self.blocks.first().map_or(0, |(block, _)| block.number)
    }

    pub(super) fn first_id(&self) -> &str {
        self.blocks.first().map_or("", |(block, _)| block.first_id())
    }
}

/// The stretches of a shape, by the index of the archive.
pub(super) struct Stretches<'a, I> {
    shape: Shape,
    index: &'a mut ArchiveIndex<I>,
    lens: Lens,
    next: Option<IndexedBlock>,
    has_begun: bool,
    /// The digest of the entries of the stretch before.
    before: Digest,
}

impl<'a, I: Read + Seek> Stretches<'a, I> {
    pub(super) fn new(shape: Shape, index: &'a mut ArchiveIndex<I>) -> Stretches<'a, I> {
        let lens = index.recipe().lens;
        Stretches { shape, index, lens, next: None, has_begun: false, before: [0; 16] }
    }

    pub(super) fn next(&mut self) -> Result<Option<Stretch>, Error> {
        if !self.has_begun {
            self.has_begun = true;
            self.next = self.index.next_block()?;
        }
        let Some(first) = self.next.take() else { return Ok(None) };
        let begins_chain = first.begins_chain();
        let mut len = first.plain_len();
        let mut blocks = vec![];
        let mut block = first;
        loop {
            let entries = block.entries()?;
            blocks.push((block, entries));
            match self.index.next_block()? {
                Some(next) if !self.ends_before(&next, len) => {
                    len += next.plain_len();
                    block = next;
                }
                next => {
                    self.next = next;
                    break;
                }
            }
        }
        let own = digest_of(self.shape, blocks.iter().flat_map(|(_, entries)| entries));
        // What one refers to decides about its bytes, too.
        let refers = self.shape == Shape::JsonlGz && !begins_chain;
        let digest = if refers { half(Sha256::new().chain_update(self.before).chain_update(own)) } else { own };
        self.before = own;
        Ok(Some(Stretch { blocks, digest }))
    }

    fn ends_before(&self, next: &IndexedBlock, len: u64) -> bool {
        match self.shape {
            Shape::JsonlGz => true,
            Shape::JsonlZst => next.begins_chain(),
            Shape::Parquet => next.begins_chain() && ends_stretch(next.first_id(), len, self.lens),
        }
    }
}

fn digest_of<'a>(shape: Shape, entries: impl Iterator<Item = &'a IndexedEntry>) -> Digest {
    let mut sha256 = Sha256::new();
    for entry in entries {
        match shape {
            Shape::JsonlGz | Shape::JsonlZst => sha256.update(entry.hash.as_bytes()),
            Shape::Parquet => add_row(&mut sha256, &entry.id, super::rows::millis(entry.mtime), &entry.hash),
        }
    }
    half(sha256)
}

/// The digest of the rows of a row group.
pub(super) fn digest_of_rows<'a>(rows: impl Iterator<Item = (&'a str, Option<i64>, &'a [u8])>) -> Digest {
    let mut sha256 = Sha256::new();
    for (id, millis, json) in rows {
        add_row(&mut sha256, id, millis, &ContentHash::of(json));
    }
    half(sha256)
}

fn add_row(sha256: &mut Sha256, id: &str, millis: Option<i64>, hash: &ContentHash) {
    sha256.update((id.len() as u32).to_le_bytes());
    sha256.update(id);
    sha256.update([u8::from(millis.is_some())]);
    sha256.update(millis.unwrap_or(0).to_le_bytes());
    sha256.update(hash.as_bytes());
}

fn half(sha256: Sha256) -> Digest {
    let mut half = [0; 16];
    half.copy_from_slice(&sha256.finalize()[..16]);
    half
}
