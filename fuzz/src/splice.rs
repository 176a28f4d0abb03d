//! Changes spliced into an archive: whatever the way, it is the archive of its items.

use std::collections::BTreeMap;
use std::io::{self, Cursor};

use bulk_archive::{
    ArchiveIndex, ArchiveOptions, ArchiveReader, ArchiveSummary, ArchiveWriter, Change, Error, IndexedArchive, Outcome,
    SameContent, SpliceOptions, Spliced, changes_anything, rebuild_index, splice, verify, verify_blocks,
};

use crate::Take;

/// The time and content of each id.
pub(crate) type Items = BTreeMap<String, (i64, Vec<u8>)>;

pub(crate) const NAME: &str = "a.tar.gz";
/// Items to begin with, at most.
const MOST_ITEMS: usize = 24;
/// Runs of changes, and changes of a run, at most.
const RUNS: usize = 4;
const CHANGES: usize = 40;

/// Ids that are no numbers.
const ODD: [&str; 8] = [
    "..",
    "é",
    "a/b",
    "-x",
    "%41",
    "A.json",
    "~\u{10ffff}",
    "a long id that takes more than the field of a header has for a name, which is a hundred bytes, and so it is an extended one",
];

/// See the module.
pub fn target(data: &[u8]) {
    let mut take = Take::new(data);
    let mut options = ArchiveOptions::default();
    options.threads = 1 + take.below(2);
    let level = take.below(18) as u32;
    (options.level, options.reflink) = (1 + level % 9, level >= 9);
    // Small, so that few bytes make many blocks: each input makes the archive several times.
    options.block_len = [1, 128, 1024][take.below(3)];
    options.chain_len = [1, 1024, 6 * 1024][take.below(3)];
    let mut items = Items::new();
    for number in 0..take.below(MOST_ITEMS) {
        items.insert(id(number as u8), (number as i64, document(number as u64, number * 71 % 600)));
    }
    let mut pair = build(&items, &options);
    for _ in 0..RUNS {
        if take.is_empty() {
            break;
        }
        let mut changes = BTreeMap::new();
        for _ in 0..take.below(CHANGES) {
            let id = id(take.byte());
            let kind = take.byte();
            let len = if kind & 0x80 == 0 { take.two() % 800 } else { take.two() % 20_000 };
            let (mtime, content) = (i64::from(take.byte()) - 5, document(u64::from(kind), usize::from(len)));
            let change = match (kind % 8, items.get(&id)) {
                (0..4, _) => Change::Put { id: id.clone(), mtime, content },
                (4, Some((mtime, content))) => Change::Put { id: id.clone(), mtime: *mtime, content: content.clone() },
                (5, Some((mtime, content))) => {
                    Change::Put { id: id.clone(), mtime: mtime + 1, content: content.clone() }
                }
                _ => Change::Remove { id: id.clone() },
            };
            changes.insert(id, change);
        }
        let changes: Vec<_> = changes.into_values().collect();
        let expected = apply(&mut items, &changes);
        let (next, spliced, told) = pair.splice(&changes).expect("an archive of our own");
        assert_eq!(told, expected);
        let index = ArchiveIndex::open(Cursor::new(&pair.index), NAME).expect("an index of our own");
        let all = changes.iter().cloned().map(Ok);
        let has_changed = changes_anything(index, all, SameContent::Replace).expect("an index of our own");
        assert_eq!(has_changed, spliced.has_changed());
        assert!(next == build(&items, &options));
        assert!(next.items().expect("an archive of our own") == items);
        let made = verify_blocks(next.open().expect("an archive of our own"), &spliced.made_blocks);
        assert_eq!(made.expect("an archive of our own"), spliced.summary);
        assert_eq!(next.verify().expect("an archive of our own"), spliced.summary);
        assert!(next.rebuilt(&options).expect("an archive of our own") == next.index);
        pair = next;
    }
}

/// An archive and its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) archive: Vec<u8>,
    pub(crate) index: Vec<u8>,
}

type Bytes<'a> = Cursor<&'a [u8]>;

impl Pair {
    pub(crate) fn open(&self) -> Result<IndexedArchive<Bytes<'_>, Bytes<'_>>, Error> {
        IndexedArchive::open(Cursor::new(&self.archive), Cursor::new(&self.index), NAME)
    }

    pub(crate) fn verify(&self) -> Result<ArchiveSummary, Error> {
        verify(self.open()?)
    }

    pub(crate) fn rebuilt(&self, options: &ArchiveOptions) -> Result<Vec<u8>, Error> {
        rebuild_index(Cursor::new(&self.archive), Vec::new(), NAME, options).map(|(index, _)| index)
    }

    /// The items, and the last one of each id.
    pub(crate) fn items(&self) -> Result<Items, Error> {
        let mut reader = ArchiveReader::new(Cursor::new(&self.archive), NAME);
        let mut items = Items::new();
        while let Some(item) = reader.next_item()? {
            items.insert(item.id.to_owned(), (item.mtime, item.content.to_vec()));
        }
        Ok(items)
    }

    /// The pair behind the changes, and what became of the archive and of each item.
    pub(crate) fn splice(&self, changes: &[Change]) -> Result<(Self, Spliced, Told), Error> {
        let (mut archive, mut index, mut told) = (Vec::new(), Vec::new(), Vec::new());
        let changes = changes.iter().cloned().map(io::Result::Ok);
        let mut options = SpliceOptions::default();
        options.threads = 1;
        let tell = |id: &str, outcome| told.push((id.to_owned(), outcome));
        let spliced = splice(self.open()?, changes, &mut archive, &mut index, &options, tell)?;
        Ok((Self { archive, index }, spliced, told))
    }
}

/// Ids, and what became of them.
type Told = Vec<(String, Outcome)>;

pub(crate) fn build(items: &Items, options: &ArchiveOptions) -> Pair {
    let mut writer = ArchiveWriter::new(Vec::new(), Vec::new(), NAME, options).expect("memory");
    for (id, (mtime, content)) in items {
        writer.append(id, *mtime, content).expect("items in their order");
    }
    let (archive, index, summary) = writer.finish().expect("memory");
    assert_eq!((summary.entries, summary.len), (items.len() as u64, archive.len() as u64));
    Pair { archive, index }
}

/// Makes the changes in the model, and says what each did.
fn apply(items: &mut Items, changes: &[Change]) -> Vec<(String, Outcome)> {
    let outcome = |change: &Change| {
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
    };
    changes.iter().map(outcome).collect()
}

fn id(byte: u8) -> String {
    match byte.checked_sub(u8::MAX - ODD.len() as u8 + 1) {
        Some(place) => ODD[usize::from(place)].to_owned(),
        None => format!("{byte:06}"),
    }
}

/// Something like a document: words, most of them frequent.
pub(crate) fn document(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = Vec::new();
    while text.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.extend(format!("{:x} ", (state >> 20) % 300 * 7919).bytes());
    }
    text.truncate(len);
    text
}
