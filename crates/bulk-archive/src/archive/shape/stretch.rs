//! What stretches a shape has, and what tells one from another.

use std::io::{Read, Seek};

use sha2::{Digest as _, Sha256};

use super::Shape;
use crate::{
    Error,
    archive::{
        borders::{Lens, ends_stretch},
        index::{ArchiveIndex, IndexedBlock, IndexedEntry},
    },
};

/// Of what a stretch is made: the first half of a SHA-256.
pub(crate) type Digest = [u8; 16];

/// Some neighbouring blocks of an archive.
pub(super) struct Stretch {
    pub(super) blocks: Vec<(IndexedBlock, Vec<IndexedEntry>)>,
    /// Of its entries, of what it refers to, and of what makes it: stretches of the same are the same.
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
    mark: Vec<u8>,
    index: &'a mut ArchiveIndex<I>,
    lens: Lens,
    next: Option<IndexedBlock>,
    has_begun: bool,
    /// The digest of the entries of the stretch before.
    before: Digest,
}

impl<'a, I: Read + Seek> Stretches<'a, I> {
    /// `mark` is that of what makes them.
    pub(super) fn new(shape: Shape, mark: Vec<u8>, index: &'a mut ArchiveIndex<I>) -> Stretches<'a, I> {
        let lens = index.recipe().lens;
        Stretches { shape, mark, index, lens, next: None, has_begun: false, before: [0; 16] }
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
        let entries = digest_of(self.shape, blocks.iter().flat_map(|(_, entries)| entries));
        // What one refers to decides about its bytes, too.
        let refers = self.shape == Shape::JsonlGz && !begins_chain;
        let before: &[u8] = if refers { &self.before } else { &[] };
        let made = Sha256::new().chain_update((self.mark.len() as u64).to_le_bytes()).chain_update(&self.mark);
        let digest = half(made.chain_update(before).chain_update(entries));
        self.before = entries;
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
            Shape::Parquet => add_row(&mut sha256, entry),
        }
    }
    half(sha256)
}

fn add_row(sha256: &mut Sha256, entry: &IndexedEntry) {
    sha256.update((entry.id.len() as u32).to_le_bytes());
    sha256.update(&entry.id);
    sha256.update(entry.mtime.to_le_bytes());
    sha256.update(entry.hash.as_bytes());
}

pub(super) fn half(sha256: Sha256) -> Digest {
    let mut half = [0; 16];
    half.copy_from_slice(&sha256.finalize()[..16]);
    half
}
