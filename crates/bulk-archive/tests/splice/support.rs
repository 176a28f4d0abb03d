//! Items, archives of them, and changes.

use std::{
    collections::BTreeMap,
    io::{self, Cursor},
};

use bulk_archive::{
    ArchiveOptions, ArchiveReader, ArchiveSummary, ArchiveWriter, Change, Error, IndexedArchive, Outcome,
    SpliceOptions, Spliced, splice,
};

/// Items: the time and content of each id.
pub(crate) type Items = BTreeMap<String, (i64, Vec<u8>)>;

/// An archive and its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) archive: Vec<u8>,
    pub(crate) index: Vec<u8>,
}

pub(crate) type IndexedBytes<'a> = IndexedArchive<Cursor<&'a [u8]>, Cursor<&'a [u8]>>;

/// What a splice gives: the new archive, the counts, and what was told of each change.
pub(crate) type Done = (Pair, Spliced, Vec<(String, Outcome)>);

pub(crate) const NAME: &str = "scotus.tar.gz";

/// Short blocks and chains, so that few items have many of them.
pub(crate) fn short() -> ArchiveOptions {
    let mut options = ArchiveOptions::default();
    (options.threads, options.level, options.block_len, options.chain_len) = (2, 6, 4096, 24 * 1024);
    options
}

/// The same, laid out for reflinks.
pub(crate) fn for_reflinks() -> ArchiveOptions {
    let mut options = short();
    options.reflink = true;
    options
}

pub(crate) fn build(items: &Items, options: &ArchiveOptions) -> Pair {
    let mut writer = ArchiveWriter::new(Vec::new(), Vec::new(), NAME, options).unwrap();
    for (id, (mtime, content)) in items {
        writer.append(id, *mtime, content).unwrap();
    }
    let (archive, index, summary) = writer.finish().unwrap();
    assert_eq!((summary.entries, summary.len), (items.len() as u64, archive.len() as u64));
    Pair { archive, index }
}

impl Pair {
    pub(crate) fn open(&self) -> Result<IndexedBytes<'_>, Error> {
        IndexedArchive::open(Cursor::new(&self.archive), Cursor::new(&self.index), NAME)
    }

    pub(crate) fn verify(&self) -> Result<ArchiveSummary, Error> {
        bulk_archive::verify(self.open()?)
    }

    pub(crate) fn rebuilt(&self, options: &ArchiveOptions) -> Result<Vec<u8>, Error> {
        let archive = Cursor::new(self.archive.clone());
        bulk_archive::rebuild_index(archive, Vec::new(), NAME, options).map(|(index, _)| index)
    }

    pub(crate) fn items(&self) -> Result<Items, Error> {
        let mut reader = ArchiveReader::new(Cursor::new(self.archive.clone()), NAME);
        let mut items = Items::new();
        while let Some(item) = reader.next_item()? {
            items.insert(item.id.to_owned(), (item.mtime, item.content.to_vec()));
        }
        Ok(items)
    }

    pub(crate) fn splice(&self, changes: &[Change]) -> Result<Done, Error> {
        self.splice_with(changes, &SpliceOptions::default())
    }

    pub(crate) fn splice_with(&self, changes: &[Change], options: &SpliceOptions) -> Result<Done, Error> {
        let (mut archive, mut index, mut told) = (Vec::new(), Vec::new(), Vec::new());
        let spliced = splice(
            self.open()?,
            changes.iter().cloned().map(io::Result::Ok),
            &mut archive,
            &mut index,
            options,
            |id, outcome| told.push((id.to_owned(), outcome)),
        )?;
        Ok((Pair { archive, index }, spliced, told))
    }
}

pub(crate) fn put(id: &str, mtime: i64, content: &[u8]) -> Change {
    Change::Put { id: id.to_owned(), mtime, content: content.to_vec() }
}

pub(crate) fn remove(id: &str) -> Change {
    Change::Remove { id: id.to_owned() }
}

/// Makes the changes in the model, and says what each did.
pub(crate) fn apply(items: &mut Items, changes: &[Change]) -> Vec<(String, Outcome)> {
    changes
        .iter()
        .map(|change| {
            let outcome = match change {
                Change::Put { id, mtime, content } => {
                    let item = (*mtime, content.clone());
                    match items.insert(id.clone(), item.clone()) {
                        None => Outcome::Added,
                        Some(before) if before == item => Outcome::Unchanged,
                        Some(_) => Outcome::Replaced,
                    }
                }
                Change::Remove { id } => match items.remove(id) {
                    Some(_) => Outcome::Removed,
                    None => Outcome::Missing,
                },
            };
            (change.id().to_owned(), outcome)
        })
        .collect()
}

/// Something like a document: JSON of words, most of them frequent.
pub(crate) fn document(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 20
    };
    let mut text = format!("{{\"id\": {seed}, \"plain_text\": \"");
    while text.len() < len {
        let word = (next() % 3000).min(next() % 3000).min(next() % 3000);
        text.push_str(&format!("{:x} ", word * 7919));
    }
    text.push_str("\"}");
    text.into_bytes()
}

/// Many items of up to `longest` bytes.
pub(crate) fn items(ids: impl Iterator<Item = u64>, longest: u64) -> Items {
    ids.map(|id| (format!("{id:06}"), (1_400_000_000 + id as i64 * 977, document(id, (id * 7919 % longest) as usize))))
        .collect()
}
