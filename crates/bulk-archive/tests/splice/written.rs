//! What is written, and what is refused.

use std::io::{self, Cursor};

use bulk_archive::{
    ArchiveIndex, ArchiveOptions, ArchiveWriter, Change, ContentHash, Error, ForeignBlocks, IndexedArchive, Outcome,
    Refusal, SameContent, SpliceOptions, splice,
};

use crate::support::{Items, NAME, apply, build, document, for_reflinks, items, put, remove, short};

#[test]
fn an_archive_without_items() {
    let pair = build(&Items::new(), &short());
    assert_eq!(pair.archive[..10], *b"\x1f\x8b\x08\0\0\0\0\0\0\xff");
    assert!(pair.items().unwrap().is_empty());
    assert_eq!(pair.verify().unwrap().blocks, 0);
    let (one, spliced, told) = pair.splice(&[remove("0"), put("1", 7, b"{}")]).unwrap();
    assert_eq!(told, [("0".to_owned(), Outcome::Missing), ("1".to_owned(), Outcome::Added)]);
    assert_eq!((spliced.added, spliced.missing, spliced.summary.entries), (1, 1, 1));
    let (none, spliced, _) = one.splice(&[remove("1")]).unwrap();
    assert!(none == pair && spliced.has_changed());
}

#[test]
fn threads_do_not_change_the_bytes() {
    let model = items(0..600, 6000);
    let mut options = short();
    let pair = build(&model, &options);
    for threads in [0, 1, 7] {
        options.threads = threads;
        assert!(build(&model, &options) == pair);
    }
}

#[test]
fn the_index_says_what_stands_where() {
    let model = items(0..300, 2500);
    let pair = build(&model, &short());
    let mut index = ArchiveIndex::open(Cursor::new(&pair.index), NAME).unwrap();
    let (mut offset, mut plain_offset, mut chains) = (10, 0, 0);
    let mut entries = Vec::new();
    while let Some(block) = index.next_block().unwrap() {
        assert_eq!((block.offset(), block.plain_offset()), (offset, plain_offset));
        (offset, plain_offset) = (offset + block.len(), plain_offset + block.plain_len());
        chains += u64::from(block.begins_chain());
        let of_block = block.entries().unwrap();
        assert_eq!(of_block[0].id, block.first_id());
        entries.extend(of_block);
    }
    assert!(chains > 3 && chains < index.summary().blocks / 3);
    assert_eq!(plain_offset, index.summary().plain_len);
    assert_eq!(entries.len(), model.len());
    for (entry, (id, (mtime, content))) in entries.iter().zip(&model) {
        assert_eq!((&entry.id, entry.mtime, entry.len), (id, *mtime, content.len() as u64));
        assert_eq!(entry.hash, ContentHash::of(content));
    }
    assert_eq!(
        ContentHash::of(b"").as_bytes()[..4],
        [0xe3, 0xb0, 0xc4, 0x42],
        "the beginning of the SHA-256 of nothing"
    );
}

#[test]
fn chains_can_be_inflated_by_themselves() {
    let model = items(0..300, 2500);
    let pair = build(&model, &short());
    let mut index = ArchiveIndex::open(Cursor::new(&pair.index), NAME).unwrap();
    let mut blocks = Vec::new();
    while let Some(block) = index.next_block().unwrap() {
        blocks.push(block);
    }
    for chain in blocks.chunk_by(|_, next| !next.begins_chain()) {
        let (first, last) = (&chain[0], &chain[chain.len() - 1]);
        let packed = &pair.archive[first.offset() as usize..(last.offset() + last.len()) as usize];
        let plain_len = chain.iter().map(|block| block.plain_len()).sum::<u64>();
        let mut plain = Vec::with_capacity(plain_len as usize + 1);
        let mut inflate = flate2::Decompress::new(false);
        inflate.decompress_vec(packed, &mut plain, flate2::FlushDecompress::Sync).unwrap();
        assert_eq!(plain.len() as u64, plain_len);
        assert!(packed.ends_with(&[0, 0, 0xff, 0xff]));
    }
}

#[test]
fn chains_begin_where_a_file_system_can_share_them() {
    let model = items(0..300, 2500);
    let pair = build(&model, &for_reflinks());
    let mut index = ArchiveIndex::open(Cursor::new(&pair.index), NAME).unwrap();
    assert!(index.options().reflink);
    let (mut end, mut plain_end, mut filled) = (10, 0, 0);
    while let Some(block) = index.next_block().unwrap() {
        if block.begins_chain() && end > 10 {
            assert_eq!(block.offset() % 4096, 0);
            assert!((0..4096 + 24).contains(&(block.offset() - end)));
            filled += 1;
        } else {
            assert_eq!(block.offset(), end);
        }
        assert_eq!(block.plain_offset(), plain_end);
        (end, plain_end) = (block.offset() + block.len(), plain_end + block.plain_len());
    }
    assert!(filled > 3);
    // What comes out is what comes out of another archive of the same items.
    let without = build(&model, &short());
    assert!(pair.items().unwrap() == model && without.archive.len() < pair.archive.len());
    assert_eq!(pair.verify().unwrap().crc, without.verify().unwrap().crc);
    assert!(matches!(pair.rebuilt(&short()).unwrap_err(), Error::NotCanonical { .. }));
    assert!(matches!(without.rebuilt(&for_reflinks()).unwrap_err(), Error::NotCanonical { .. }));
}

#[test]
fn an_item_with_the_same_content_may_keep_its_time() {
    let model = items(0..50, 2500);
    let pair = build(&model, &short());
    let (mtime, content) = model["000020"].clone();
    let touched = [put("000020", mtime + 60, &content)];
    let mut options = SpliceOptions::default();
    options.same_content = SameContent::Keep;
    let (same, _, told) = pair.splice_with(&touched, &options).unwrap();
    assert!(same == pair);
    assert_eq!(told, [("000020".to_owned(), Outcome::Unchanged)]);
    let (other, _, told) = pair.splice(&touched).unwrap();
    assert_eq!(told, [("000020".to_owned(), Outcome::Replaced)]);
    assert_eq!(other.items().unwrap()["000020"], (mtime + 60, content));
}

#[test]
fn odd_ids_and_times() {
    let mut model = Items::new();
    for (at, id) in
        ["..", "../../etc/passwd", "/", "-rf", "é", "a b", "\0", "con.", "%2F", &"x".repeat(250)].iter().enumerate()
    {
        let mtime = [0, -1, i64::MIN, i64::MAX, 1 << 33, (1 << 33) - 1][at % 6];
        model.insert((*id).to_owned(), (mtime, document(at as u64, at * 100)));
    }
    let pair = build(&model, &short());
    assert!(pair.items().unwrap() == model);
    pair.verify().unwrap();
    assert!(pair.rebuilt(&short()).unwrap() == pair.index);
    let changes = [put("-rf", i64::MIN, b"[]"), remove("../../etc/passwd")];
    let _ = apply(&mut model, &changes);
    assert!(pair.splice(&changes).unwrap().0 == build(&model, &short()));
}

#[test]
fn the_writer_refuses_what_it_cannot_write_and_goes_on() {
    let mut writer = ArchiveWriter::new(Vec::new(), Vec::new(), NAME, &short()).unwrap();
    writer.append("b", 0, b"1").unwrap();
    for id in ["b", "a"] {
        let error = writer.append(id, 0, b"").unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("scotus.tar.gz: the item {id:?} comes after \"b\", against the order of ids")
        );
    }
    let long = writer.append(&"x".repeat(251), 0, b"").unwrap_err();
    assert!(matches!(long, Error::Refused { reason: Refusal::NameTooLong, .. }));
    writer.append("c", 0, b"2").unwrap();
    let (archive, index, _) = writer.finish().unwrap();
    let model = Items::from([("b".to_owned(), (0, b"1".to_vec())), ("c".to_owned(), (0, b"2".to_vec()))]);
    assert_eq!(crate::support::Pair { archive, index }.items().unwrap(), model);
}

#[test]
fn changes_must_be_in_order_and_readable() {
    let pair = build(&items(0..50, 500), &short());
    for changes in [[put("3", 0, b""), put("2", 0, b"")], [remove("000007"), remove("000007")]] {
        assert!(matches!(pair.splice(&changes).unwrap_err(), Error::Unsorted { .. }));
    }
    let broken = [Ok(remove("000001")), Err(io::Error::other("the stage is gone"))];
    let error = splice(
        pair.open().unwrap(),
        broken,
        io::sink(),
        io::sink(),
        &SpliceOptions::default(),
        |_: &str, _: Outcome| {},
    )
    .unwrap_err();
    assert!(matches!(error, Error::Changes { .. }));
}

#[test]
fn an_index_of_another_archive_is_refused() {
    let one = build(&items(0..50, 500), &short());
    let mut model = items(0..50, 500);
    model.get_mut("000007").unwrap().1[3] ^= 1;
    let other = build(&model, &short());
    for (archive, index) in [(&one, &other), (&other, &one)] {
        let error = IndexedArchive::open(Cursor::new(&archive.archive), Cursor::new(&index.index), NAME).err().unwrap();
        assert!(matches!(error, Error::IndexMismatch { .. }));
        assert!(error.to_string().ends_with("it can be made anew from this one"), "{error}");
    }
}

#[test]
fn an_archive_of_other_options_is_not_rebuilt_but_spliced() {
    let mut model = items(0..300, 2500);
    let mut other = short();
    other.level = 1;
    let pair = build(&model, &other);
    assert!(matches!(pair.rebuilt(&short()).unwrap_err(), Error::NotCanonical { .. }));
    assert!(pair.rebuilt(&other).unwrap() == pair.index);
    let changes = [remove("000100")];
    let _ = apply(&mut model, &changes);
    assert!(pair.splice(&changes).unwrap().0 == build(&model, &other));
}

#[test]
fn blocks_of_another_compressor_are_made_anew_or_copied() {
    let mut model = items(0..300, 2500);
    let pair = build(&model, &short());
    // The index says that another compressor made the archive.
    let mut foreign = pair.clone();
    foreign.index[16] ^= 1;
    let header = crc32fast::hash(&foreign.index[..28]).to_le_bytes();
    foreign.index[28..32].copy_from_slice(&header);
    let end = foreign.index.len() - 48;
    let records = crc32fast::hash(&foreign.index[..end]).to_le_bytes();
    foreign.index[end + 36..end + 40].copy_from_slice(&records);
    let footer = crc32fast::hash(&foreign.index[end..end + 40]).to_le_bytes();
    foreign.index[end + 40..end + 44].copy_from_slice(&footer);

    let changes = [remove("000100")];
    let _ = apply(&mut model, &changes);
    let (redone, spliced, _) = foreign.splice(&changes).unwrap();
    assert_eq!(spliced.copied_blocks, 0);
    assert!(redone == build(&model, &short()));
    let mut options = SpliceOptions::default();
    options.foreign_blocks = ForeignBlocks::Copy;
    let (mixed, spliced, _) = foreign.splice_with(&changes, &options).unwrap();
    assert!(spliced.copied_blocks > 0);
    assert!(mixed.items().unwrap() == model && mixed.index != redone.index);
    mixed.verify().unwrap();
    let (redone, spliced, _) = mixed.splice(&[]).unwrap();
    assert_eq!(spliced.copied_blocks, 0);
    assert!(redone == build(&model, &short()));
}

/// A disk with so many bytes left.
struct Disk(usize);

impl io::Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.min(bytes.len()) {
            0 if !bytes.is_empty() => Err(io::ErrorKind::StorageFull.into()),
            len => {
                self.0 -= len;
                Ok(len)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error_wherever_it_strikes() {
    let model = items(0..400, 2500);
    let pair = build(&model, &short());
    let write = |archive, index| -> Result<(), Error> {
        let mut writer = ArchiveWriter::new(Disk(archive), Disk(index), NAME, &short())?;
        for (id, (mtime, content)) in &model {
            writer.append(id, *mtime, content)?;
        }
        writer.finish().map(drop)
    };
    let respliced = |archive, index| -> Result<(), Error> {
        let changes = [Ok(put("000100", 1_400_097_700, &model["000100"].1)), Ok(remove("000200x"))];
        splice(pair.open()?, changes, Disk(archive), Disk(index), &SpliceOptions::default(), |_, _| {}).map(drop)
    };
    let (archive, index) = (pair.archive.len(), pair.index.len());
    let full = |outcome: Result<(), Error>| match outcome.unwrap_err() {
        Error::Output { source, .. } => assert_eq!(source.kind(), io::ErrorKind::StorageFull),
        other => panic!("{other}"),
    };
    for part in 0..40 {
        full(write(archive * part / 40, usize::MAX));
        full(write(usize::MAX, index * part / 40));
        full(respliced(archive * part / 40, usize::MAX));
        full(respliced(usize::MAX, index * part / 40));
    }
    for missing in 1..20 {
        full(write(archive - missing, usize::MAX));
        full(respliced(usize::MAX, index - missing));
    }
    write(archive, index).unwrap();
    respliced(archive, index).unwrap();
}

/// A disk that refuses what is written to it once.
struct Hiccup {
    before: usize,
    kept: Vec<u8>,
}

impl io::Write for Hiccup {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let refuses = self.before == 0;
        self.before = self.before.wrapping_sub(1);
        if refuses {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.kept.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_could_not_be_written_is_not_passed_over() {
    let model = items(0..300, 2500);
    let (mut failed, mut whole) = (0, false);
    for before in 0.. {
        let disk = Hiccup { before, kept: Vec::new() };
        let Ok(mut writer) = ArchiveWriter::new(disk, io::sink(), NAME, &short()) else {
            failed += 1;
            continue;
        };
        let mut errors = 0;
        for (id, (mtime, content)) in &model {
            errors += usize::from(writer.append(id, *mtime, content).is_err());
        }
        match writer.finish() {
            Ok((disk, ..)) => {
                assert_eq!(errors, 0);
                whole = disk.kept == build(&model, &short()).archive;
                break;
            }
            Err(error) => assert!(matches!(error, Error::Output { .. }), "{error}"),
        }
        failed += 1;
    }
    assert!(whole && failed > 20, "{failed}");
}

#[test]
fn files_are_spliced_as_bytes_are() {
    for options in [short(), for_reflinks()] {
        files_are_spliced(&options);
    }
}

fn files_are_spliced(options: &ArchiveOptions) {
    let folder = tempfile::tempdir().unwrap();
    let mut model = items(0..800, 2500);
    let pair = build(&model, options);
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("old"), &pair.archive).unwrap();
    std::fs::write(path("old.idx"), &pair.index).unwrap();
    let open = |name: &str| std::fs::File::open(path(name)).unwrap();
    let changes = [put("000300", 1, b"[]"), remove("000500")];
    let _ = apply(&mut model, &changes);
    let old = IndexedArchive::open(open("old"), open("old.idx"), NAME).unwrap();
    let (mut archive, mut index) =
        (std::fs::File::create(path("new")).unwrap(), std::fs::File::create(path("new.idx")).unwrap());
    let changes = changes.map(io::Result::<Change>::Ok);
    splice(old, changes, &mut archive, &mut index, &SpliceOptions::default(), |_, _| {}).unwrap();
    let expected = build(&model, options);
    assert!(std::fs::read(path("new")).unwrap() == expected.archive);
    assert!(std::fs::read(path("new.idx")).unwrap() == expected.index);
}
