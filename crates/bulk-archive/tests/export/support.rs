//! Sets, and models of what they have.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
};

use bulk_archive::{
    ArchiveOptions, ArchiveReader, ArchiveWriter, ExportOptions, ExportSet, SetManifest, Shape, verify_set,
};

/// The items of all types: of each type and id the group, the time and the content.
pub(crate) type Model = BTreeMap<(String, String), (String, i64, Vec<u8>)>;

/// Short blocks, and so little memory that a few items fill it.
pub(crate) fn options() -> ExportOptions {
    let mut options = ExportOptions::default();
    options.archive = short();
    (options.jobs, options.memory) = (2, 4096);
    options
}

pub(crate) fn short() -> ArchiveOptions {
    let mut options = ArchiveOptions::default();
    (options.threads, options.block_len, options.chain_len) = (2, 2048, 12 * 1024);
    options
}

pub(crate) fn open(folder: &Path) -> ExportSet {
    ExportSet::open(folder, options()).unwrap()
}

/// The items of each archive of a model, by its path.
pub(crate) fn archives(model: &Model) -> BTreeMap<String, BTreeMap<String, (i64, Vec<u8>)>> {
    let mut archives: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for ((kind, id), (group, mtime, content)) in model {
        let items = archives.entry(format!("{kind}/{group}.tar.gz")).or_default();
        items.insert(id.clone(), (*mtime, content.clone()));
    }
    archives
}

/// A new archive of some items, and its index.
pub(crate) fn build(items: &BTreeMap<String, (i64, Vec<u8>)>) -> (Vec<u8>, Vec<u8>) {
    let mut writer = ArchiveWriter::new(Vec::new(), Vec::new(), "a", &short()).unwrap();
    for (id, (mtime, content)) in items {
        writer.append(id, *mtime, content).unwrap();
    }
    let (archive, index, _) = writer.finish().unwrap();
    (archive, index)
}

/// The files of the set, without private ones, by their paths below the folder.
pub(crate) fn files(folder: &Path) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if !entry.path().is_dir() {
            files.insert(name);
        } else if name != ".bulk" {
            for file in fs::read_dir(entry.path()).unwrap().map(Result::unwrap) {
                files.insert(format!("{name}/{}", file.file_name().into_string().unwrap()));
            }
        }
    }
    files
}

/// What tells a file from one that took its place: its number, and when it was written.
pub(crate) fn marks(folder: &Path) -> BTreeMap<String, (u64, i64, i64)> {
    let mark = |name: &String| {
        let facts = fs::metadata(folder.join(name)).unwrap();
        (facts.ino(), facts.mtime(), facts.mtime_nsec())
    };
    files(folder).into_iter().map(|name| (name.clone(), mark(&name))).collect()
}

/// The set is just that of the model, and nothing is left of a run.
pub(crate) fn check(folder: &Path, model: &Model) {
    check_set(folder, model);
    for name in ["stage", "next"] {
        assert!(!folder.join(".bulk").join(name).exists(), "{name} is left");
    }
}

/// The set is just that of the model.
pub(crate) fn check_set(folder: &Path, model: &Model) {
    let archives = archives(model);
    let manifest = SetManifest::read(folder).unwrap().unwrap();
    assert_eq!(manifest.entries, model.len() as u64);
    let names: Vec<&String> = manifest.archives.iter().map(|archive| &archive.name).collect();
    assert_eq!(names, archives.keys().collect::<Vec<_>>());
    for (archive, (name, items)) in manifest.archives.iter().zip(&archives) {
        let (expected, expected_index) = build(items);
        let bytes = fs::read(folder.join(name)).unwrap();
        assert!(bytes == expected, "{name} is not as a new one");
        assert!(fs::read(folder.join(format!("{name}.idx"))).unwrap() == expected_index, "the index of {name}");
        assert_eq!((archive.entries, archive.bytes), (items.len() as u64, bytes.len() as u64));
        let mut reader = ArchiveReader::new(std::io::Cursor::new(bytes), name);
        let mut read = BTreeMap::new();
        while let Some(item) = reader.next_item().unwrap() {
            read.insert(item.id.to_owned(), (item.mtime, item.content.to_vec()));
        }
        assert!(read == *items, "{name} has other items");
    }
    let mut expected: BTreeSet<String> =
        archives.keys().flat_map(|name| [name.clone(), format!("{name}.idx")]).collect();
    expected.insert("manifest.json".to_owned());
    // Of `all.tar` and of shapes the manifest speaks, as is checked below.
    let is_shape = |name: &String| Shape::ALL.iter().any(|shape| name.ends_with(shape.name()));
    let is_archive = |name: &String| !name.ends_with("/info.json") && !name.ends_with("/all.tar") && !is_shape(name);
    let found = files(folder).into_iter().filter(is_archive).collect();
    assert_eq!(expected, found);
    let report = verify_set(folder, &options()).unwrap();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    assert_eq!((report.archives, report.entries), (archives.len() as u64, model.len() as u64));
}

/// A document of about so many bytes.
pub(crate) fn document(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = format!("{{\"id\":{seed},\"text\":\"");
    while text.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(&format!("{:x} ", (state >> 20) % 3000));
    }
    text.push_str("\"}");
    text.into_bytes()
}
