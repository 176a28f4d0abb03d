//! Extraction: whatever the members are, nothing outside of the target is made or changed, no link leads out of it, and no
//! limit is passed.

use std::ffi::OsString;
use std::fs;
use std::io::Cursor;
use std::path::Path;

use bulk_archive::{Destination, Error, ExtractOptions, Links, extract};

use crate::{Take, scratch};

const BLOCK: usize = 512;
const MOST: u64 = 1 << 20;

/// See the module.
pub fn target(data: &[u8]) {
    let mut take = Take::new(data);
    let choices = take.byte();
    let name = take.one_of(&["a.tar", "a.tar", "in/a.tar", "a.csv", "..", "a/../b.tar", ".tar", "x\0y"]);
    let mut options = ExtractOptions::default();
    (options.threads, options.max_bytes) = (1, Some(MOST));
    if choices & 1 != 0 {
        options.destination = Destination::Folder;
    }
    if choices & 2 != 0 {
        options.links = Links::Refuse;
    }
    if choices & 4 != 0 {
        (options.max_entries, options.max_depth, options.max_path_length) = (Some(3), 2, 20);
    }
    let bytes = if choices & 8 == 0 { sealed(take.rest()) } else { take.rest().to_vec() };

    let above = scratch();
    let beside = above.path().join("beside");
    fs::create_dir(&beside).expect("a folder");
    for witness in [above.path().join("witness"), beside.join("witness")] {
        fs::write(witness, b"stays").expect("a file");
    }
    let target = above.path().join("target");
    let outcome = extract(Cursor::new(bytes.clone()), name, &target, &options);

    let mut found = names(above.path());
    found.retain(|name| name != "target");
    assert_eq!(found, ["beside", "witness"]);
    assert_eq!(names(&beside), ["witness"]);
    for witness in [above.path().join("witness"), beside.join("witness")] {
        let meta = fs::symlink_metadata(&witness).expect("the witness is there");
        assert!(meta.is_file() && fs::read(witness).expect("the witness is there") == b"stays");
    }
    match outcome {
        Ok(extracted) => {
            assert!(extracted.bytes <= MOST);
            assert!(choices & 4 == 0 || extracted.files + extracted.folders + extracted.links <= 3);
            assert!(choices & 2 == 0 || extracted.links == 0);
        }
        Err(error) => assert!(!matches!(error, Error::Io { .. }), "{error}"),
    }
    let Ok(real) = target.canonicalize() else { return };
    assert!(!target.join(".bulk-extract").exists());
    let mut folders = vec![target];
    while let Some(folder) = folders.pop() {
        for name in names(&folder) {
            let path = folder.join(name);
            let meta = fs::symlink_metadata(&path).expect("it is there");
            if meta.is_dir() {
                folders.push(path.clone());
            }
            assert!(meta.is_dir() || meta.is_file() || meta.is_symlink());
            // Where links turn in a circle or end nowhere, they lead nowhere.
            if let Ok(leads) = path.canonicalize() {
                assert!(leads.starts_with(&real), "{path:?} leads to {leads:?}");
            }
        }
    }
}

/// The names in a folder, in their order.
fn names(folder: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    names
}

/// The blocks of a tar, in which each header that follows the data of the one before has its right checksum, and an end.
/// Random bytes would never come to more than one header.
pub(crate) fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    let mut at = 0;
    while let Some(header) = bytes.get_mut(at..at + BLOCK) {
        at += BLOCK;
        if header.iter().all(|byte| *byte == 0) {
            continue;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let digits = header[124..136].iter().filter(|byte| matches!(byte, b'0'..=b'7'));
        let size = digits.fold(0_usize, |size, digit| size * 8 + usize::from(digit - b'0'));
        at = size.checked_next_multiple_of(BLOCK).and_then(|size| at.checked_add(size)).unwrap_or(bytes.len());
    }
    bytes.extend([0; 2 * BLOCK]);
    bytes
}
