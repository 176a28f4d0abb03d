//! Archives that are laid out for reflinks: what is shared, or copied where the file system of the tests cannot share, is what the
//! manifest says.

use std::{collections::BTreeMap, fs, fs::File, path::Path};

use bulk_archive::{ArchiveIndex, ExportOptions, ExportSet, rebuild_indexes, verify_set};

use crate::support::{document, options};

const ARCHIVE: &str = "opinions/scotus.tar.gz";
const INDEX: &str = "opinions/scotus.tar.gz.idx";

fn for_reflinks() -> ExportOptions {
    let mut options = options();
    options.archive.reflink = true;
    options
}

fn publish(folder: &Path, options: ExportOptions, items: &BTreeMap<String, Vec<u8>>) {
    let mut set = ExportSet::open(folder, options).unwrap();
    let mut stage = set.begin().unwrap();
    for (id, content) in items {
        stage.put("opinions", "scotus", id, 7, content).unwrap();
    }
    stage.publish(&BTreeMap::new()).unwrap();
}

fn read(folder: &Path) -> [Vec<u8>; 2] {
    [ARCHIVE, INDEX].map(|name| fs::read(folder.join(name)).unwrap())
}

fn is_laid_out(folder: &Path) -> bool {
    ArchiveIndex::open(File::open(folder.join(INDEX)).unwrap(), INDEX).unwrap().options().reflink
}

#[test]
fn a_set_whose_archives_share_is_what_its_manifest_says() {
    let (folder, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut items: BTreeMap<_, _> =
        (0..400u64).map(|id| (format!("{id:03}"), document(id, 2000 + id as usize * 10))).collect();
    publish(folder.path(), for_reflinks(), &items);
    // What is there keeps its layout, whatever is asked for later.
    for (options, id) in [(for_reflinks(), 100), (options(), 200), (options(), 0), (for_reflinks(), 399)] {
        let (id, content) = (format!("{id:03}"), document(id + 1000, 1500));
        publish(folder.path(), options, &BTreeMap::from([(id.clone(), content.clone())]));
        items.insert(id, content);
        let report = verify_set(folder.path(), &for_reflinks()).unwrap();
        assert!(report.faults.is_empty(), "{:?}", report.faults);
        assert!(is_laid_out(folder.path()));
    }
    publish(fresh.path(), for_reflinks(), &items);
    assert!(read(folder.path()) == read(fresh.path()));
    assert!(read(folder.path())[0].len() > 40 * 4096);

    // What is known of the set and the archive's index come back as they were, also for who does not say how it was made.
    let before = read(folder.path());
    for options in [for_reflinks(), options()] {
        fs::remove_dir_all(folder.path().join(".bulk")).unwrap();
        fs::remove_file(folder.path().join(INDEX)).unwrap();
        let rebuilt = rebuild_indexes(folder.path(), &options).unwrap();
        assert_eq!((rebuilt.indexes, rebuilt.remade), (1, 0));
        assert!(read(folder.path()) == before);
    }
}

#[test]
fn an_archive_without_its_index_is_made_anew_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let items = (0..100u64).map(|id| (format!("{id:03}"), document(id, 3000))).collect();
    publish(folder.path(), options(), &items);
    assert!(!is_laid_out(folder.path()));
    fs::remove_file(folder.path().join(INDEX)).unwrap();
    let rebuilt = rebuild_indexes(folder.path(), &for_reflinks()).unwrap();
    assert_eq!((rebuilt.indexes, rebuilt.remade), (0, 1));
    assert!(is_laid_out(folder.path()));
    assert!(verify_set(folder.path(), &for_reflinks()).unwrap().faults.is_empty());
}
