//! Items in other formats beside archives.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    path::Path,
    sync::{Arc, Mutex},
};

use bulk_archive::{
    CheckNew, ColumnSource, ColumnType, ExportEvent, ExportOptions, ExportSet, ParquetColumn, ParquetColumns,
    SetManifest, Shape, Unfit, rebuild_indexes, verify_set,
};
use proptest::{collection::vec, prelude::*};
use sha2::Digest as _;

use crate::support::{Model, document, options, short};

fn with(shapes: &[Shape]) -> ExportOptions {
    with_whole(shapes, &[])
}

/// With shapes of groups, and of types.
fn with_whole(shapes: &[Shape], whole: &[Shape]) -> ExportOptions {
    let mut options = options();
    options.shapes = Some(shapes.iter().copied().collect());
    options.whole_shapes = Some(whole.iter().copied().collect());
    options
}

/// Makes the set of a model, and gives what was published.
fn export(folder: &Path, old: &Model, new: &Model, options: ExportOptions) -> bulk_archive::Published {
    let mut set = ExportSet::open(folder, options).unwrap();
    let mut stage = set.begin().unwrap();
    for ((kind, id), item) in new {
        if old.get(&(kind.clone(), id.clone())) != Some(item) {
            stage.put(kind, &item.0, id, item.1, &item.2).unwrap();
        }
    }
    for (kind, id) in old.keys().filter(|key| !new.contains_key(*key)) {
        stage.remove(kind, id).unwrap();
    }
    stage.publish(&BTreeMap::new()).unwrap()
}

/// What stands beside archives, by path.
fn shapes(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = crate::support::files(folder);
    let is_shape = |name: &String| Shape::ALL.iter().any(|shape| name.ends_with(&format!(".{shape}")));
    names.into_iter().filter(is_shape).map(|name| (name.clone(), fs::read(folder.join(&name)).unwrap())).collect()
}

/// The set has these shapes of each archive, with the items of the model, as readers of others find them, and byte by byte as
/// a new set has them.
fn check(folder: &Path, model: &Model, wanted: &[Shape]) {
    check_whole(folder, model, wanted, &[]);
}

/// And these shapes of each type, which has what its groups have.
fn check_whole(folder: &Path, model: &Model, wanted: &[Shape], whole: &[Shape]) {
    let fresh = tempfile::tempdir().unwrap();
    let mut options = with_whole(wanted, whole);
    options.check = CheckNew::Whole;
    export(fresh.path(), &Model::new(), model, options);
    let (found, expected) = (shapes(folder), shapes(fresh.path()));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    assert!(found == expected, "a shape is not as a new one");
    let report = verify_set(folder, &super::support::options()).unwrap();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    let manifest = SetManifest::read(folder).unwrap().unwrap();
    assert_eq!(manifest.shapes.iter().map(|shape| &shape.name).collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
    let mut files: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for (file, items) in crate::support::archives(model) {
        let lines = || items.values().map(|(_, content)| content.clone());
        for shape in wanted {
            files.insert(file.replace("tar.gz", shape.name()), lines().collect());
        }
        for shape in whole {
            let kind = file.split_once('/').unwrap().0;
            files.entry(format!("{kind}.{shape}")).or_default().extend(lines());
        }
    }
    assert_eq!(files.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
    for (file, lines) in files {
        for shape in Shape::ALL.into_iter().filter(|shape| file.ends_with(&format!(".{shape}"))) {
            let bytes = &found[&file];
            let mut text = Vec::new();
            match shape {
                Shape::JsonlGz => {
                    // One member, which ends with the file.
                    let mut reader = flate2::read::GzDecoder::new(&bytes[..]);
                    reader.read_to_end(&mut text).unwrap();
                    assert!(reader.into_inner().is_empty());
                }
                Shape::JsonlZst => {
                    // One frame.
                    let mut reader = zstd::Decoder::new(&bytes[..]).unwrap().single_frame();
                    reader.read_to_end(&mut text).unwrap();
                    assert!(reader.finish().buffer().is_empty());
                }
                _ => continue,
            }
            let read: Vec<Vec<u8>> =
                text.split_inclusive(|&byte| byte == b'\n').map(|line| line.trim_ascii_end().to_vec()).collect();
            assert!(read == lines, "{file}");
            assert!(text.is_empty() || text.ends_with(b"\n"));
        }
    }
}

fn model(items: std::ops::Range<u64>, groups: u64) -> Model {
    items
        .map(|id| {
            let key = ("opinions".to_owned(), format!("{id:04}"));
            (key, (format!("ca{}", id % groups), 1_400_000_000 + id as i64, document(id, 700)))
        })
        .collect()
}

/// Which parts of each shape were copied, and which made.
type Parts = Arc<Mutex<BTreeMap<String, (u64, u64)>>>;

fn told(options: &mut ExportOptions) -> Parts {
    let parts = Parts::default();
    let hears = Arc::clone(&parts);
    options.observer = Arc::new(move |event| {
        let (name, parts) = match event {
            ExportEvent::Shaped { group, shape, copied, made, .. } => (format!("{group}.{shape}"), (*copied, *made)),
            ExportEvent::ShapedWhole { shape, copied, made, .. } => (format!("all.{shape}"), (*copied, *made)),
            _ => return,
        };
        hears.lock().unwrap().insert(name, parts);
    });
    parts
}

#[test]
fn a_change_makes_anew_what_it_is_in_alone() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let old = model(0..3000, 2);
    export(folder, &Model::new(), &old, with(&Shape::ALL));
    check(folder, &old, &Shape::ALL);
    let mut new = old.clone();
    new.get_mut(&("opinions".to_owned(), "2000".to_owned())).unwrap().2 = document(7, 900);
    let mut options = with(&Shape::ALL);
    let parts = told(&mut options);
    let published = export(folder, &old, &new, options);
    assert_eq!((published.made_groups, published.made_shapes), (1, 3));
    check(folder, &new, &Shape::ALL);
    let parts = parts.lock().unwrap().clone();
    assert_eq!(parts.keys().collect::<Vec<_>>(), ["ca0.jsonl.gz", "ca0.jsonl.zst", "ca0.parquet"]);
    for (name, most) in [("ca0.jsonl.gz", 3), ("ca0.jsonl.zst", 2), ("ca0.parquet", 1)] {
        let (copied, made) = parts[name];
        assert!(copied > 2 && (1..=most).contains(&made), "{name}: {copied} copied, {made} made");
    }
    // The time alone is no part of a line.
    let old = new.clone();
    new.get_mut(&("opinions".to_owned(), "0100".to_owned())).unwrap().1 = 5;
    let mut options = with(&Shape::ALL);
    let parts = told(&mut options);
    export(folder, &old, &new, options);
    check(folder, &new, &Shape::ALL);
    let parts = parts.lock().unwrap().clone();
    assert_eq!((parts["ca0.jsonl.gz"].1, parts["ca0.jsonl.zst"].1, parts["ca0.parquet"].1), (0, 0, 1));
}

#[test]
fn shapes_come_and_go_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut items = model(0..50, 3);
    export(folder, &Model::new(), &items, options());
    check(folder, &items, &[]);
    let manifest = fs::read(folder.join("manifest.json")).unwrap();
    // Without a change of any item.
    let published = export(folder, &items, &items, with(&[Shape::Parquet, Shape::JsonlZst]));
    assert_eq!((published.made_groups, published.made_shapes, published.untouched_groups), (0, 6, 0));
    assert!(manifest != fs::read(folder.join("manifest.json")).unwrap());
    check(folder, &items, &[Shape::Parquet, Shape::JsonlZst]);
    // Who does not speak of them leaves them, and keeps them up to date; a new group has them, too.
    let before = items.clone();
    items.insert(("opinions".to_owned(), "x".to_owned()), ("new".to_owned(), 5, b"{}".to_vec()));
    items.retain(|_, (group, ..)| group != "ca1");
    let published = export(folder, &before, &items, options());
    assert_eq!((published.made_shapes, published.removed_shapes, published.emptied_groups), (2, 2, 1));
    check(folder, &items, &[Shape::Parquet, Shape::JsonlZst]);
    let published = export(folder, &items, &items, with(&[Shape::JsonlGz, Shape::JsonlZst]));
    assert_eq!((published.made_shapes, published.removed_shapes), (3, 3));
    check(folder, &items, &[Shape::JsonlGz, Shape::JsonlZst]);
    // By type.
    let mut of_type = with(&[Shape::Parquet]);
    of_type.shapes_of.insert("opinions".to_owned(), BTreeSet::new());
    let published = export(folder, &items, &items, of_type);
    assert_eq!((published.made_shapes, published.removed_shapes), (0, 6));
    check(folder, &items, &[]);
    assert_eq!(fs::read_dir(folder.join(".bulk/shapes/opinions")).unwrap().count(), 0);
}

#[test]
fn line_breaks_between_tokens_and_odd_times_are_kept_apart() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut set = ExportSet::open(folder, with(&Shape::ALL)).unwrap();
    let mut stage = set.begin().unwrap();
    stage.put("a", "b", "1", i64::MAX, b"{\r\n \"a\": \"x\\n\" }").unwrap();
    stage.put("a", "b", "2", -1, b"[]   ").unwrap();
    stage.publish(&BTreeMap::new()).unwrap();
    drop(set);
    assert!(verify_set(folder, &options()).unwrap().faults.is_empty());
    let text = zstd::decode_all(&fs::read(folder.join("a/b.jsonl.zst")).unwrap()[..]).unwrap();
    assert_eq!(str::from_utf8(&text).unwrap(), "{   \"a\": \"x\\n\" }\n[]   \n");
}

#[test]
fn an_old_file_that_is_damaged_or_has_lost_its_map_is_made_anew() {
    for shape in Shape::ALL {
        for damage in ["map", "missing map", "file", "missing file", "short file"] {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path();
            let mut items = model(0..400, 1);
            export(folder, &Model::new(), &items, with(&[shape]));
            let path = match damage.ends_with("map") {
                true => folder.join(format!(".bulk/shapes/opinions/ca0.{shape}")),
                false => folder.join(format!("opinions/ca0.{shape}")),
            };
            let mut bytes = fs::read(&path).unwrap();
            if damage.starts_with("missing") {
                fs::remove_file(&path).unwrap();
            } else if damage.starts_with("short") {
                fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
            } else {
                // Within the first stretches.
                bytes[60] ^= 1;
                fs::write(&path, &bytes).unwrap();
            }
            if damage.ends_with("file") {
                let faults = verify_set(folder, &options()).unwrap().faults;
                let names: Vec<&str> = faults.iter().map(|fault| fault.name.as_str()).collect();
                assert_eq!(names, [format!("opinions/ca0.{shape}")]);
            }
            let old = items.clone();
            items.get_mut(&("opinions".to_owned(), "0399".to_owned())).unwrap().2 = b"{}".to_vec();
            let mut options = with(&[shape]);
            let parts = told(&mut options);
            export(folder, &old, &items, options);
            assert_eq!(parts.lock().unwrap().values().map(|(copied, _)| *copied).sum::<u64>(), 0, "{shape}: {damage}");
            check(folder, &items, &[shape]);
        }
    }
}

#[test]
fn a_small_file_that_is_damaged_is_made_anew() {
    for (shape, whole) in Shape::ALL.into_iter().flat_map(|shape| [(shape, false), (shape, true)]) {
        for rebuilds in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path();
            let mut items = model(0..3, 1);
            let shapes = |shape| if whole { with_whole(&[], &[shape]) } else { with(&[shape]) };
            export(folder, &Model::new(), &items, shapes(shape));
            let path = folder.join(if whole { format!("opinions.{shape}") } else { format!("opinions/ca0.{shape}") });
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&path, &bytes).unwrap();
            if rebuilds {
                assert_eq!(rebuild_indexes(folder, &options()).unwrap().shapes, 1);
            } else {
                let old = items.clone();
                items.get_mut(&("opinions".to_owned(), "0001".to_owned())).unwrap().2 = b"[]".to_vec();
                export(folder, &old, &items, shapes(shape));
            }
            if whole {
                check_whole(folder, &items, &[], &[shape]);
            } else {
                check(folder, &items, &[shape]);
            }
        }
    }
}

#[test]
fn nothing_of_a_damaged_footer_goes_on() {
    let mut items = model(0..400, 1);
    for from_end in [9, 40, 90, 150, 220, 300] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        export(folder, &Model::new(), &items, with(&[Shape::Parquet]));
        let path = folder.join("opinions/ca0.parquet");
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - from_end;
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let old = items.clone();
        items.get_mut(&("opinions".to_owned(), "0399".to_owned())).unwrap().2 = format!("[{from_end}]").into_bytes();
        export(folder, &old, &items, with(&[Shape::Parquet]));
        check(folder, &items, &[Shape::Parquet]);
    }
}

#[test]
fn the_longest_name_of_a_group_has_room_for_all_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let group = "g".repeat(244);
    let items = Model::from([(("opinions".to_owned(), "1".to_owned()), (group, 7, b"{}".to_vec()))]);
    export(folder, &Model::new(), &items, with(&Shape::ALL));
    check(folder, &items, &Shape::ALL);
}

#[test]
fn a_shape_with_other_items_than_its_archive_is_found() {
    for shape in Shape::ALL {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let items = model(0..60, 1);
        let mut others = items.clone();
        others.get_mut(&("opinions".to_owned(), "0059".to_owned())).unwrap().2 = b"[]".to_vec();
        let mut fewer = items.clone();
        fewer.remove(&("opinions".to_owned(), "0059".to_owned()));
        let name = format!("opinions/ca0.{shape}");
        for (other, said) in [
            (&others, "it differs from the archive at the item \"0059\""),
            (&fewer, "it differs from the archive at the item \"0059\""),
            (&model(0..61, 1), "it has more than the archive"),
        ] {
            export(folders[0].path(), &Model::new(), &items, with(&[shape]));
            export(folders[1].path(), &Model::new(), other, with(&[shape]));
            let manifests = folders.each_ref().map(|folder| SetManifest::read(folder).unwrap().unwrap());
            // As if it was published so.
            fs::copy(folders[1].path().join(&name), folders[0].path().join(&name)).unwrap();
            let mut manifest = manifests[0].clone();
            manifest.shapes = manifests[1].shapes.clone();
            fs::write(folders[0].path().join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
            let faults = verify_set(folders[0].path(), &options()).unwrap().faults;
            let faults: Vec<String> = faults.iter().map(|fault| fault.error.to_string()).collect();
            assert_eq!(faults, [format!("{}: {said}", folders[0].path().join(&name).display())], "{shape}");
            for folder in &folders {
                fs::remove_dir_all(folder.path()).unwrap();
            }
        }
    }
}

#[test]
fn a_rebuild_makes_shapes_anew_that_are_not_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let items = model(0..300, 2);
    export(folder, &Model::new(), &items, with(&Shape::ALL));
    let kept = crate::support::marks(folder)["opinions/ca1.parquet"];
    fs::write(folder.join("opinions/ca0.jsonl.zst"), b"something").unwrap();
    fs::copy(folder.join("opinions/ca1.jsonl.gz"), folder.join("opinions/ca0.jsonl.gz")).unwrap();
    fs::write(folder.join("opinions/stray.parquet"), b"PAR1").unwrap();
    fs::remove_dir_all(folder.join(".bulk")).unwrap();
    // What is not as the manifest says may be somebody else's.
    for name in ["opinions/ca0.jsonl.gz", "opinions/ca0.jsonl.zst"] {
        let (before, said) = (files(folder), rebuild_indexes(folder, &options()).unwrap_err().to_string());
        assert_eq!(said, format!("{}: {TAKEN}", folder.join(name).display()));
        assert!(files(folder) == before);
        fs::remove_file(folder.join(name)).unwrap();
    }
    let rebuilt = rebuild_indexes(folder, &options()).unwrap();
    assert_eq!((rebuilt.archives, rebuilt.indexes, rebuilt.remade, rebuilt.shapes), (2, 0, 0, 2));
    // What the set never had is somebody else's.
    assert_eq!(fs::read(folder.join("opinions/stray.parquet")).unwrap(), b"PAR1");
    fs::remove_file(folder.join("opinions/stray.parquet")).unwrap();
    check(folder, &items, &Shape::ALL);
    assert_eq!(crate::support::marks(folder)["opinions/ca1.parquet"], kept);
    // And their maps are there again.
    let mut new = items.clone();
    new.get_mut(&("opinions".to_owned(), "0000".to_owned())).unwrap().2 = b"{}".to_vec();
    let mut options = options();
    let parts = told(&mut options);
    export(folder, &items, &new, options);
    assert!(parts.lock().unwrap()["ca0.jsonl.gz"].0 > 10);
    check(folder, &new, &Shape::ALL);
}

#[test]
fn a_roster_of_the_version_before_is_taken_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let items = model(0..20, 1);
    export(folder, &Model::new(), &items, options());
    let roster = rusqlite::Connection::open(folder.join(".bulk/export.sqlite")).unwrap();
    roster
        .execute_batch(
            "DROP TABLE shape; DROP TABLE whole_shape; DROP TABLE parquet_columns; DROP TABLE whole_wish;
             PRAGMA user_version = 1",
        )
        .unwrap();
    drop(roster);
    export(folder, &items, &items, with(&[Shape::JsonlGz]));
    check(folder, &items, &[Shape::JsonlGz]);
    drop(as_version_2(folder));
    export(folder, &items, &items, with_whole(&[Shape::JsonlGz], &[Shape::JsonlGz]));
    check_whole(folder, &items, &[Shape::JsonlGz], &[Shape::JsonlGz]);
    let roster = rusqlite::Connection::open(folder.join(".bulk/export.sqlite")).unwrap();
    roster.execute_batch("DROP TABLE whole_wish; PRAGMA user_version = 3").unwrap();
    drop(roster);
    export(folder, &items, &items, options());
    check_whole(folder, &items, &[Shape::JsonlGz], &[Shape::JsonlGz]);
}

/// Makes the roster of a set that has no shapes of types one of the version that knew of none.
fn as_version_2(folder: &Path) -> rusqlite::Connection {
    let roster = rusqlite::Connection::open(folder.join(".bulk/export.sqlite")).unwrap();
    let drop = "DROP TABLE whole_shape; DROP TABLE parquet_columns; DROP TABLE whole_wish; PRAGMA user_version = 2";
    roster.execute_batch(drop).unwrap();
    roster
}

#[test]
fn parquet_of_the_version_before_is_made_anew_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let items = model(0..60, 2);
    export(folder, &Model::new(), &items, with(&[Shape::Parquet, Shape::JsonlGz]));
    let roster = as_version_2(folder);
    let mut manifest = SetManifest::read(folder).unwrap().unwrap();
    let mut expected = Vec::new();
    for shape in manifest.shapes.iter_mut().filter(|shape| shape.name.ends_with(".parquet")) {
        let path = folder.join(&shape.name);
        let mut bytes = fs::read(&path).unwrap();
        // It did not write what the columns are.
        let key = bytes.windows(12).rposition(|bytes| bytes == b"bulk.columns").unwrap();
        bytes[key] = b'B';
        fs::write(&path, &bytes).unwrap();
        let (old, new) = (shape.sha256.clone(), sha2::Sha256::digest(&bytes));
        shape.sha256 = new.iter().map(|byte| format!("{byte:02x}")).collect();
        let change = "UPDATE shape SET sha256 = ?1 WHERE hex(sha256) = upper(?2)";
        assert_eq!(roster.execute(change, rusqlite::params![&new[..], old]).unwrap(), 1);
        let said =
            "it was made by an earlier version, and does not say what its columns are; the next export makes it anew";
        expected.push(format!("{}: {said}", path.display()));
    }
    fs::write(folder.join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    drop(roster);
    let faults = verify_set(folder, &options()).unwrap().faults;
    assert_eq!(faults.iter().map(|fault| fault.error.to_string()).collect::<Vec<_>>(), expected);
    // By somebody who says nothing of shapes.
    assert_eq!(export(folder, &items, &items, options()).made_shapes, 2);
    check(folder, &items, &[Shape::Parquet, Shape::JsonlGz]);
    assert!(!export(folder, &items, &items, options()).has_changed());
}

#[test]
fn types_of_the_version_before_may_be_called_as_files() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let long = "t".repeat(250);
    let names = ["x.parquet", "a.jsonl.gz", &long];
    let model = |kinds: [&str; 3]| -> Model {
        let item = |kind: &str| ((kind.to_owned(), "1".to_owned()), ("g".to_owned(), 5, document(1, 300)));
        kinds.map(item).into()
    };
    let mut items = model(names);
    export(folder, &Model::new(), &model(["p", "q", "r"]), options());
    let roster = as_version_2(folder);
    let mut manifest = SetManifest::read(folder).unwrap().unwrap();
    for (archive, (old, new)) in manifest.archives.iter_mut().zip(["p", "q", "r"].into_iter().zip(names)) {
        assert_eq!(roster.execute("UPDATE kind SET name = ?1 WHERE name = ?2", [new, old]).unwrap(), 1);
        fs::rename(folder.join(old), folder.join(new)).unwrap();
        archive.name = format!("{new}/g.tar.gz");
    }
    fs::write(folder.join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    // A name that is none at all: the roster stays what it was.
    roster.execute("INSERT INTO kind (id, name) VALUES (77, '')", []).unwrap();
    drop(roster);
    let error = ExportSet::open(folder, options()).err().unwrap().to_string();
    assert!(error.ends_with(": a name in it is none: its name is empty"), "{error}");
    let roster = rusqlite::Connection::open(folder.join(".bulk/export.sqlite")).unwrap();
    assert_eq!(roster.pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0)).unwrap(), 2);
    roster.execute("DELETE FROM kind WHERE id = 77", []).unwrap();
    drop(roster);
    // They go on.
    let before = items.clone();
    for item in items.values_mut() {
        item.2 = document(2, 300);
    }
    items.remove(&("a.jsonl.gz".to_owned(), "1".to_owned()));
    items.insert(("x".to_owned(), "1".to_owned()), ("g".to_owned(), 5, document(3, 300)));
    export(folder, &before, &items, options());
    crate::support::check(folder, &items);
    let set = || ExportSet::open(folder, options()).unwrap();
    let error = set().begin().unwrap().put("y.parquet", "g", "1", 5, b"{}").unwrap_err();
    assert!(error.to_string().ends_with("its name is reserved for other files"), "{error}");
    let error = set().begin().unwrap().put(&"u".repeat(246), "g", "1", 5, b"{}").unwrap_err();
    assert!(error.to_string().ends_with("its name is longer than 255 bytes"), "{error}");
    // But for the files that cannot be.
    let refused = |kind: &str| {
        let mut options = options();
        options.whole_shapes_of.insert(kind.to_owned(), BTreeSet::from([Shape::Parquet]));
        let error = refusal(folder, options);
        crate::support::check_set(folder, &items);
        error
    };
    assert_eq!(refused("x"), "x.parquet: it is the folder of another type, so this type cannot have this file");
    let name = format!("{long}.parquet");
    assert_eq!(refused(&long), format!("{name}: its name would be too long, so the type cannot have this file"));
    let mut of_type = options();
    of_type.whole_shapes_of.insert("x.parquet".to_owned(), BTreeSet::from([Shape::Parquet]));
    assert_eq!(export(folder, &items, &items, of_type).made_shapes, 1);
    assert!(folder.join("x.parquet.parquet").is_file());
    // And after the roster was lost.
    fs::remove_dir_all(folder.join(".bulk")).unwrap();
    assert_eq!(rebuild_indexes(folder, &options()).unwrap().archives, 3);
    crate::support::check(folder, &items);
}

/// Why nothing is published, without the path of the folder.
fn refusal(folder: &Path, options: ExportOptions) -> String {
    let mut set = ExportSet::open(folder, options).unwrap();
    let error = set.begin().unwrap().publish(&BTreeMap::new()).unwrap_err().to_string();
    error.strip_prefix(&format!("{}/", folder.display())).unwrap().to_owned()
}

#[test]
fn what_stands_in_the_place_of_a_file_of_a_type_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let items = model(0..60, 2);
    export(folder, &Model::new(), &items, options());
    let place = folder.join("opinions.parquet");
    let whole = || with_whole(&[], &[Shape::Parquet]);
    let none = || with_whole(&[], &[]);
    let manifest = || fs::read(folder.join("manifest.json")).unwrap();
    // Somebody's file.
    fs::write(&place, b"PAR1").unwrap();
    assert!(verify_set(folder, &options()).unwrap().faults.is_empty());
    let before = manifest();
    let said = "opinions.parquet: no export has made it, and it would be overwritten; move it elsewhere";
    assert_eq!(refusal(folder, whole()), said);
    assert!(!export(folder, &items, &items, none()).has_changed());
    assert_eq!((fs::read(&place).unwrap(), manifest()), (b"PAR1".to_vec(), before.clone()));
    fs::remove_file(&place).unwrap();
    // Somebody's folder.
    fs::create_dir(&place).unwrap();
    fs::write(place.join("part-0.parquet"), b"PAR1").unwrap();
    let said = "opinions.parquet: it is a folder, where a file of the set is to be; move it elsewhere";
    assert_eq!(refusal(folder, whole()), said);
    assert!(!export(folder, &items, &items, none()).has_changed());
    assert_eq!((fs::read(place.join("part-0.parquet")).unwrap(), manifest()), (b"PAR1".to_vec(), before));
    fs::remove_dir_all(&place).unwrap();
    // One that took the place of ours, which is to be made anew.
    assert_eq!(export(folder, &items, &items, whole()).made_shapes, 1);
    let before = manifest();
    fs::remove_file(&place).unwrap();
    fs::create_dir(&place).unwrap();
    assert_eq!(refusal(folder, whole()), said);
    let mut others = whole();
    others.columns_of.insert("opinions".to_owned(), typed());
    assert_eq!(refusal(folder, others), said);
    assert_eq!(manifest(), before);
    // Who does not want it any more leaves it.
    assert_eq!(export(folder, &items, &items, none()).removed_shapes, 1);
    assert!(place.is_dir());
    fs::remove_dir(&place).unwrap();
    check(folder, &items, &[]);
}

/// What is said of a file that took the place of ours.
const TAKEN: &str = "it is not what the last export made there, and would be lost; move it elsewhere";

/// All files of the set by path, with what they have.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = crate::support::files(folder);
    // To read a pipe would be to wait.
    names.retain(|name| folder.join(name).is_file());
    names.into_iter().map(|name| (name.clone(), fs::read(folder.join(&name)).unwrap())).collect()
}

/// Why a run ends that changes an item, without the path of the folder. It ends before anything is made.
fn refused(folder: &Path, mut options: ExportOptions) -> String {
    let of_archives = |folder: &Path| {
        let mut files = files(folder);
        // It has the time of the last attempt.
        files.remove("opinions/info.json");
        files
    };
    let before = of_archives(folder);
    options.observer = Arc::new(|event| assert!(!matches!(event, ExportEvent::Begun { .. }), "{event:?}"));
    let mut set = ExportSet::open(folder, options).unwrap();
    let mut stage = set.begin().unwrap();
    stage.put("opinions", "ca0", "0000", 5, b"{}").unwrap();
    let error = stage.publish(&BTreeMap::new()).unwrap_err().to_string();
    assert!(of_archives(folder) == before);
    error.strip_prefix(&format!("{}/", folder.display())).unwrap().to_owned()
}

#[test]
fn a_file_that_took_the_place_of_ours_ends_the_run_before_its_work() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut items = model(0..300, 2);
    let all = || with_whole(&Shape::ALL, &Shape::ALL);
    export(folder, &Model::new(), &items, all());
    for shape in Shape::ALL {
        for name in [format!("opinions.{shape}"), format!("opinions/ca0.{shape}")] {
            let path = folder.join(&name);
            let own = fs::read(&path).unwrap();
            let longer = [&own[..], b"x"].concat();
            for others in [b"PAR1".to_vec(), longer, vec![7; own.len()]] {
                fs::write(&path, &others).unwrap();
                for options in [all(), options()] {
                    assert_eq!(refused(folder, options), format!("{name}: {TAKEN}"));
                }
            }
            fs::remove_file(&path).unwrap();
            // A link that leads nowhere, and a pipe, to open which would be to wait.
            std::os::unix::fs::symlink("nowhere", &path).unwrap();
            assert_eq!(refused(folder, all()), format!("{name}: {TAKEN}"));
            fs::remove_file(&path).unwrap();
            assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
            assert_eq!(refused(folder, all()), format!("{name}: {TAKEN}"));
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            let said = format!("{name}: it is a folder, where a file of the set is to be; move it elsewhere");
            assert_eq!(refused(folder, all()), said);
            fs::remove_dir(&path).unwrap();
            fs::write(&path, &own).unwrap();
        }
    }
    // What was moved elsewhere is made anew.
    for name in ["opinions.parquet", "opinions/ca0.jsonl.gz"] {
        fs::remove_file(folder.join(name)).unwrap();
    }
    let before = items.clone();
    items.get_mut(&("opinions".to_owned(), "0000".to_owned())).unwrap().2 = b"{}".to_vec();
    export(folder, &before, &items, options());
    check_whole(folder, &items, &Shape::ALL, &Shape::ALL);
}

#[test]
fn a_file_that_took_the_place_of_ours_stays_where_ours_is_not_wanted_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let items = model(0..60, 2);
    export(folder, &Model::new(), &items, with_whole(&Shape::ALL, &Shape::ALL));
    let taken: Vec<String> = Shape::ALL
        .into_iter()
        .flat_map(|shape| [format!("opinions.{shape}"), format!("opinions/ca0.{shape}")])
        .collect();
    for name in &taken {
        fs::write(folder.join(name), b"somebody else's").unwrap();
    }
    let published = export(folder, &items, &items, with_whole(&[], &[]));
    assert_eq!((published.made_shapes, published.removed_shapes), (0, 9));
    assert_eq!(SetManifest::read(folder).unwrap().unwrap().shapes, []);
    for name in &taken {
        assert_eq!(fs::read(folder.join(name)).unwrap(), b"somebody else's", "{name}");
        assert!(!folder.join(".bulk/shapes").join(name).exists(), "{name}");
        fs::remove_file(folder.join(name)).unwrap();
    }
    check(folder, &items, &[]);
}

#[test]
fn a_file_that_is_missing_or_has_another_length_is_made_anew_without_a_change() {
    // Of one stretch and of several.
    for count in [3, 400] {
        for shape in Shape::ALL {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path();
            let items = model(0..count, 2);
            export(folder, &Model::new(), &items, with_whole(&[shape], &[shape]));
            let marks = crate::support::marks(folder);
            for name in [format!("opinions/ca0.{shape}"), format!("opinions.{shape}")] {
                let path = folder.join(&name);
                let own = fs::read(&path).unwrap();
                let lens = [None, Some(0), Some(3), Some(own.len() / 2), Some(own.len() - 1)];
                for (len, has_map) in lens.into_iter().flat_map(|len| [(len, true), (len, false)]) {
                    match len {
                        Some(len) => fs::write(&path, &own[..len]).unwrap(),
                        None => fs::remove_file(&path).unwrap(),
                    }
                    if !has_map {
                        fs::remove_file(folder.join(".bulk/shapes").join(&name)).unwrap();
                    }
                    let published = export(folder, &items, &items, options());
                    let counts = (published.made_groups, published.made_shapes, published.removed_shapes);
                    assert_eq!(counts, (0, 1, 0), "{name}: {len:?}, {has_map}");
                    assert!(fs::read(&path).unwrap() == own, "{name}: {len:?}, {has_map}");
                }
            }
            check_whole(folder, &items, &[shape], &[shape]);
            let other = format!("opinions/ca1.{shape}");
            assert_eq!(crate::support::marks(folder)[&other], marks[&other]);
        }
    }
}

#[test]
fn a_file_beside_an_archive_that_no_export_has_made_ends_the_run_before_its_work() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let items = model(0..60, 2);
    export(folder, &Model::new(), &items, options());
    let place = folder.join("opinions/ca1.jsonl.gz");
    fs::write(&place, b"somebody else's").unwrap();
    assert!(verify_set(folder, &options()).unwrap().faults.is_empty());
    let said = "opinions/ca1.jsonl.gz: no export has made it, and it would be overwritten; move it elsewhere";
    assert_eq!(refused(folder, with(&[Shape::JsonlGz])), said);
    // Who does not want one is not in its way.
    assert!(!export(folder, &items, &items, with(&[])).has_changed());
    assert_eq!(export(folder, &items, &items, with(&[Shape::Parquet])).made_shapes, 2);
    assert_eq!(fs::read(&place).unwrap(), b"somebody else's");
    fs::remove_file(&place).unwrap();
    check(folder, &items, &[Shape::Parquet]);
}

#[test]
fn a_map_that_was_left_over_proves_nothing() {
    let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let items = model(0..60, 2);
    let none = Model::new();
    let names: Vec<String> = Shape::ALL
        .into_iter()
        .flat_map(|shape| [format!("opinions.{shape}"), format!("opinions/ca0.{shape}")])
        .collect();
    export(own.path(), &none, &items, with_whole(&Shape::ALL, &Shape::ALL));
    let map = |folder: &Path, name: &str| folder.join(".bulk/shapes").join(name);
    let folder = other.path();
    export(folder, &none, &items, with_whole(&[Shape::Parquet], &[]));
    export(folder, &items, &items, with_whole(&[], &[]));
    for gone in [false, true] {
        if gone {
            fs::remove_dir_all(folder.join("opinions")).unwrap();
            fs::create_dir(folder.join("opinions")).unwrap();
        }
        for name in &names {
            fs::write(folder.join(name), b"somebody else's").unwrap();
            fs::copy(map(own.path(), name), map(folder, name)).unwrap();
        }
        let faults = verify_set(folder, &options()).unwrap().faults;
        assert!(faults.iter().all(|fault| fault.name.contains(".tar.gz")), "{faults:?}");
        assert_eq!(faults.is_empty(), !gone);
        let rebuilt = rebuild_indexes(folder, &options()).unwrap();
        assert_eq!((rebuilt.archives, rebuilt.shapes), (if gone { 0 } else { 2 }, 0));
        assert_eq!(SetManifest::read(folder).unwrap().unwrap().shapes, []);
        for name in &names {
            assert_eq!(fs::read(folder.join(name)).unwrap(), b"somebody else's", "{name}");
            assert!(!map(folder, name).exists(), "{name}");
        }
        assert!(verify_set(folder, &options()).unwrap().faults.is_empty());
        // Ours are known by them: those that are to be, or are of what is gone.
        for name in &names {
            fs::copy(own.path().join(name), folder.join(name)).unwrap();
            fs::copy(map(own.path(), name), map(folder, name)).unwrap();
        }
        let mut faults: Vec<String> =
            verify_set(folder, &options()).unwrap().faults.into_iter().map(|fault| fault.name).collect();
        faults.sort();
        let mut sorted = names.clone();
        sorted.sort();
        assert_eq!(faults, sorted);
        // Which a byte does not change.
        let damaged = folder.join(&names[0]);
        let mut bytes = fs::read(&damaged).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&damaged, bytes).unwrap();
        let rebuilt = rebuild_indexes(folder, &options()).unwrap();
        assert_eq!((rebuilt.archives, rebuilt.shapes), if gone { (0, 0) } else { (2, 1) });
        let shapes = SetManifest::read(folder).unwrap().unwrap().shapes;
        assert_eq!(shapes.into_iter().map(|shape| shape.name).collect::<Vec<_>>(), if gone { vec![] } else { sorted });
        assert!(verify_set(folder, &options()).unwrap().faults.is_empty());
        assert!(names.iter().all(|name| folder.join(name).exists() != gone && map(folder, name).exists() != gone));
        export(folder, &items, &items, with_whole(&[], &[]));
    }
}

#[test]
fn a_rebuild_makes_what_the_set_has_lost_and_forgets_what_it_was_to_have() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (items, none) = (model(0..60, 2), Model::new());
    export(folder, &none, &items, with_whole(&[Shape::JsonlGz], &[Shape::Parquet]));
    for name in ["opinions.parquet", "opinions/ca1.jsonl.gz", "manifest.json"] {
        fs::remove_file(folder.join(name)).unwrap();
    }
    // Without a manifest the roster says it.
    assert_eq!(rebuild_indexes(folder, &options()).unwrap().shapes, 2);
    check_whole(folder, &items, &[Shape::JsonlGz], &[Shape::Parquet]);
    // A type without items has none, and nothing says any more that it is to have one.
    export(folder, &items, &none, options());
    rebuild_indexes(folder, &options()).unwrap();
    export(folder, &none, &items, options());
    check_whole(folder, &items, &[], &[]);
}

#[test]
fn folders_of_others_are_nobodys_business() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let items = model(0..60, 2);
    export(folder, &Model::new(), &items, with_whole(&[Shape::Parquet], &[]));
    // As Spark writes them.
    for (other, file) in [("opinions.parquet", "part-0.parquet"), ("dockets.parquet", "_SUCCESS"), ("b", "all.tar")] {
        fs::create_dir(folder.join(other)).unwrap();
        fs::write(folder.join(other).join(file), b"somebody else's").unwrap();
    }
    let faults = verify_set(folder, &options()).unwrap().faults;
    assert!(faults.is_empty(), "{faults:?}");
    let before = SetManifest::read(folder).unwrap().unwrap();
    let rebuilt = rebuild_indexes(folder, &options()).unwrap();
    assert_eq!((rebuilt.archives, rebuilt.shapes), (2, 0));
    let after = SetManifest::read(folder).unwrap().unwrap();
    assert_eq!((&after.shapes, &after.bundles), (&before.shapes, &before.bundles));
    assert_eq!(fs::read(folder.join("opinions.parquet/part-0.parquet")).unwrap(), b"somebody else's");
}

#[test]
fn a_type_that_was_empty_for_a_run_has_its_files_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (items, none) = (model(0..60, 2), Model::new());
    let whole = [Shape::JsonlZst, Shape::Parquet];
    export(folder, &none, &items, with_whole(&[], &whole));
    assert_eq!(export(folder, &items, &none, options()).removed_shapes, 2);
    check_whole(folder, &none, &[], &[]);
    assert!(!export(folder, &none, &none, options()).has_changed());
    assert_eq!(export(folder, &none, &items, options()).made_shapes, 2);
    check_whole(folder, &items, &[], &whole);
    // Unless they are not wanted any more, as somebody said meanwhile.
    export(folder, &items, &none, options());
    export(folder, &none, &none, with_whole(&[], &[]));
    export(folder, &none, &items, options());
    check_whole(folder, &items, &[], &[]);
}

#[test]
fn a_change_makes_anew_of_a_type_what_it_is_in_alone() {
    for own in [&[][..], &Shape::ALL] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let old = model(0..3000, 3);
        let mut options = with_whole(own, &Shape::ALL);
        let parts = told(&mut options);
        let published = export(folder, &Model::new(), &old, options);
        assert_eq!(published.made_shapes, 3 * own.len() as u64 + 3);
        check_whole(folder, &old, own, &Shape::ALL);
        let first = std::mem::take(&mut *parts.lock().unwrap());
        for shape in Shape::ALL {
            let (copied, made) = first[&format!("all.{shape}")];
            // What the groups have is not compressed a second time.
            let of_groups: u64 = (0..3).filter_map(|n| first.get(&format!("ca{n}.{shape}"))).map(|parts| parts.1).sum();
            assert_eq!(if own.is_empty() { copied } else { made }, 0, "{shape}");
            assert!(own.is_empty() || copied == of_groups, "{shape}");
        }
        let mut new = old.clone();
        new.get_mut(&("opinions".to_owned(), "2000".to_owned())).unwrap().2 = document(7, 900);
        let mut options = with_whole(own, &Shape::ALL);
        let parts = told(&mut options);
        export(folder, &old, &new, options);
        check_whole(folder, &new, own, &Shape::ALL);
        let parts = parts.lock().unwrap().clone();
        for (shape, most) in [(Shape::JsonlGz, 3), (Shape::JsonlZst, 2), (Shape::Parquet, 1)] {
            let (copied, made) = parts[&format!("all.{shape}")];
            let expected = if own.is_empty() { 1..=most } else { 0..=0 };
            assert!(copied > 6 && expected.contains(&made), "{shape}: {copied} copied, {made} made");
            // As many as before, but for borders that have moved.
            let all = first[&format!("all.{shape}")];
            assert!((copied + made).abs_diff(all.0 + all.1) <= 2, "{shape}");
        }
    }
}

#[test]
fn shapes_of_types_come_and_go_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut items = model(0..50, 3);
    for id in 0..20u64 {
        items.insert(("dockets".to_owned(), id.to_string()), ("ca1".to_owned(), 5, document(id, 300)));
    }
    export(folder, &Model::new(), &items, with_whole(&[], &[Shape::Parquet, Shape::JsonlZst]));
    check_whole(folder, &items, &[], &[Shape::Parquet, Shape::JsonlZst]);
    // Who does not speak of them leaves them, and keeps them up to date.
    let before = items.clone();
    items.insert(("opinions".to_owned(), "x".to_owned()), ("new".to_owned(), 5, b"{}".to_vec()));
    items.retain(|_, (group, ..)| group != "ca2");
    let marks = crate::support::marks(folder);
    let published = export(folder, &before, &items, options());
    assert_eq!((published.made_groups, published.made_shapes, published.removed_shapes), (1, 2, 0));
    check_whole(folder, &items, &[], &[Shape::Parquet, Shape::JsonlZst]);
    // Those of the other type are not touched.
    let now = crate::support::marks(folder);
    assert_eq!(now["dockets.parquet"], marks["dockets.parquet"]);
    assert_ne!(now["opinions.parquet"], marks["opinions.parquet"]);
    // Nor is anything where nothing has changed.
    let published = export(folder, &items, &items, options());
    assert!(!published.has_changed());
    assert_eq!(crate::support::marks(folder)["manifest.json"], now["manifest.json"]);
    // By type.
    let mut of_type = with_whole(&[], &[Shape::JsonlGz]);
    of_type.whole_shapes_of.insert("dockets".to_owned(), BTreeSet::new());
    let published = export(folder, &items, &items, of_type);
    assert_eq!((published.made_shapes, published.removed_shapes), (1, 4));
    assert_eq!(shapes(folder).keys().collect::<Vec<_>>(), ["opinions.jsonl.gz"]);
    // A type that has lost its last group has none.
    let none = Model::new();
    let published = export(folder, &items, &none, options());
    assert_eq!((published.emptied_groups, published.removed_shapes), (4, 1));
    check_whole(folder, &none, &[], &[]);
    let left =
        fs::read_dir(folder.join(".bulk/shapes")).unwrap().filter(|file| file.as_ref().unwrap().path().is_file());
    assert_eq!(left.count(), 0);
}

#[test]
fn groups_follow_each_other_as_their_archives_do_at_whatever_level() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut items = Model::new();
    for (level, group) in (1..=9u64).rev().zip(["a", "a-b", "a.b", "a.tar.gz", "aa", "B", "_", "x.jsonl.gz", "\u{e9}"])
    {
        let before = items.clone();
        for id in 0..40u64 {
            items.insert(("t".to_owned(), format!("{group}{id}")), (group.to_owned(), 5, document(id + level, 700)));
        }
        let mut options = with_whole(&[], &Shape::ALL);
        options.archive.level = level as u32;
        export(folder, &before, &items, options);
        assert!(verify_set(folder, &crate::support::options()).unwrap().faults.is_empty());
    }
    let whole = shapes(folder);
    // All at once, out of the groups' own; each archive keeps its level.
    export(folder, &items, &items, with_whole(&Shape::ALL, &[]));
    export(folder, &items, &items, with_whole(&Shape::ALL, &Shape::ALL));
    let mut again = shapes(folder);
    again.retain(|name, _| !name.contains('/'));
    assert!(again == whole);
    let text = zstd::decode_all(&whole["t.jsonl.zst"][..]).unwrap();
    let mut expected: Vec<(String, &str, &Vec<u8>)> = Vec::new();
    for ((_, id), (group, _, content)) in &items {
        expected.push((format!("{}.tar.gz", group.replace('\u{e9}', "%C3%A9")), id, content));
    }
    expected.sort();
    let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end).collect();
    assert_eq!(lines.len(), expected.len() + 1);
    assert!(lines.iter().zip(&expected).all(|(line, (_, _, content))| *line == content.as_slice()));
}

#[test]
fn what_is_damaged_of_a_type_or_its_groups_is_not_copied() {
    for shape in Shape::ALL {
        for damaged in ["whole map", "whole", "missing whole", "own map", "own", "missing own"] {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path();
            let mut items = model(0..400, 2);
            let whole = if damaged.contains("own") { &[][..] } else { &[shape] };
            export(folder, &Model::new(), &items, with_whole(&[shape], whole));
            let path = match damaged.trim_start_matches("missing ") {
                "whole map" => format!(".bulk/shapes/opinions.{shape}"),
                "whole" => format!("opinions.{shape}"),
                "own map" => format!(".bulk/shapes/opinions/ca0.{shape}"),
                _ => format!("opinions/ca0.{shape}"),
            };
            let path = folder.join(path);
            let mut bytes = fs::read(&path).unwrap();
            if damaged.starts_with("missing") {
                fs::remove_file(&path).unwrap();
            } else {
                bytes[60] ^= 1;
                fs::write(&path, &bytes).unwrap();
            }
            if damaged.ends_with("whole") {
                let faults = verify_set(folder, &options()).unwrap().faults;
                let names: Vec<&str> = faults.iter().map(|fault| fault.name.as_str()).collect();
                assert_eq!(names, [format!("opinions.{shape}")]);
            }
            let old = items.clone();
            items.get_mut(&("opinions".to_owned(), "0399".to_owned())).unwrap().2 = b"{}".to_vec();
            // The other group has changed alone.
            export(folder, &old, &items, with_whole(&[shape], &[shape]));
            if damaged == "own" {
                // It is as it was, and told of.
                let faults = verify_set(folder, &options()).unwrap().faults;
                let names: Vec<&str> = faults.iter().map(|fault| fault.name.as_str()).collect();
                assert_eq!(names, [format!("opinions/ca0.{shape}")], "{damaged}");
                let old = items.clone();
                items.get_mut(&("opinions".to_owned(), "0398".to_owned())).unwrap().2 = b"{}".to_vec();
                export(folder, &old, &items, options());
            }
            check_whole(folder, &items, &[shape], &[shape]);
        }
    }
}

#[test]
fn no_type_is_called_as_a_file_of_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = ExportSet::open(folder.path(), with_whole(&[], &Shape::ALL)).unwrap();
    let mut stage = set.begin().unwrap();
    let long = "t".repeat(245);
    for name in ["a.parquet", "a.jsonl.gz", "a.Jsonl.ZST", "manifest.json"] {
        let error = stage.put(name, "g", "1", 5, b"{}").unwrap_err();
        assert_eq!(error.to_string(), format!("{name}/g: member \"1\" refused: its name is reserved for other files"));
    }
    assert!(stage.put(&format!("{long}t"), "g", "1", 5, b"{}").is_err());
    for name in ["a", "jsonl.gz", "aparquet", &long] {
        stage.put(name, "g", "1", 5, b"{}").unwrap();
    }
    stage.publish(&BTreeMap::new()).unwrap();
    drop(set);
    assert!(verify_set(folder.path(), &options()).unwrap().faults.is_empty());
    assert_eq!(shapes(folder.path()).len(), 12);
}

#[test]
fn a_shape_of_a_type_with_other_items_or_that_nobody_speaks_of_is_found() {
    for shape in Shape::ALL {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let items = model(0..60, 2);
        let mut other = items.clone();
        other.get_mut(&("opinions".to_owned(), "0059".to_owned())).unwrap().2 = b"[]".to_vec();
        let mut fewer = items.clone();
        fewer.remove(&("opinions".to_owned(), "0059".to_owned()));
        for (other, said) in [
            (&other, "it differs from the archive at the item \"0059\""),
            (&fewer, "it differs from the archive at the item \"0059\""),
            (&model(0..62, 2), "it differs from the archive at the item \"0001\""),
        ] {
            export(folders[0].path(), &Model::new(), &items, with_whole(&[], &[shape]));
            export(folders[1].path(), &Model::new(), other, with_whole(&[], &[shape]));
            let name = format!("opinions.{shape}");
            let own = fs::read(folders[0].path().join(&name)).unwrap();
            fs::copy(folders[1].path().join(&name), folders[0].path().join(&name)).unwrap();
            let manifests = folders.each_ref().map(|folder| SetManifest::read(folder).unwrap().unwrap());
            let mut manifest = manifests[0].clone();
            manifest.shapes = manifests[1].shapes.clone();
            fs::write(folders[0].path().join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
            let fault = || {
                let faults = verify_set(folders[0].path(), &options()).unwrap().faults;
                faults.iter().map(|fault| fault.error.to_string()).collect::<Vec<_>>()
            };
            let path = folders[0].path().join(&name);
            assert_eq!(fault(), [format!("{}: {said}", path.display())], "{shape}");
            manifest.shapes.clear();
            fs::write(folders[0].path().join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
            // It is known by its map.
            fs::write(&path, own).unwrap();
            assert_eq!(fault(), [format!("{}: the manifest does not speak of it", path.display())]);
            // Another one that is called so is not ours, whatever map was left over.
            fs::write(&path, b"somebody else's").unwrap();
            assert!(fault().is_empty());
            for folder in &folders {
                fs::remove_dir_all(folder.path()).unwrap();
            }
        }
    }
}

#[test]
fn a_rebuild_makes_shapes_of_types_anew_that_are_not_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let items = model(0..300, 2);
    export(folder, &Model::new(), &items, with_whole(&[Shape::Parquet], &Shape::ALL));
    let kept = crate::support::marks(folder)["opinions.parquet"];
    fs::write(folder.join("opinions.jsonl.zst"), b"something").unwrap();
    fs::write(folder.join("stray.parquet"), b"PAR1").unwrap();
    fs::remove_dir_all(folder.join(".bulk")).unwrap();
    let said = rebuild_indexes(folder, &options()).unwrap_err().to_string();
    assert_eq!(said, format!("{}: {TAKEN}", folder.join("opinions.jsonl.zst").display()));
    fs::remove_file(folder.join("opinions.jsonl.zst")).unwrap();
    let rebuilt = rebuild_indexes(folder, &options()).unwrap();
    assert_eq!((rebuilt.archives, rebuilt.indexes, rebuilt.remade, rebuilt.shapes), (2, 0, 0, 1));
    // What the set never had is somebody else's.
    assert_eq!(fs::read(folder.join("stray.parquet")).unwrap(), b"PAR1");
    fs::remove_file(folder.join("stray.parquet")).unwrap();
    check_whole(folder, &items, &[Shape::Parquet], &Shape::ALL);
    assert_eq!(crate::support::marks(folder)["opinions.parquet"], kept);
    // And their maps are there again.
    let mut new = items.clone();
    new.get_mut(&("opinions".to_owned(), "0000".to_owned())).unwrap().2 = b"{}".to_vec();
    let mut options = options();
    let parts = told(&mut options);
    export(folder, &items, &new, options);
    assert!(parts.lock().unwrap()["all.jsonl.gz"].0 > 20);
    check_whole(folder, &new, &[Shape::Parquet], &Shape::ALL);
    // A type whose archives somebody has removed loses them.
    fs::remove_dir_all(folder.join("opinions")).unwrap();
    let rebuilt = rebuild_indexes(folder, &crate::support::options()).unwrap();
    assert_eq!((rebuilt.archives, rebuilt.shapes), (0, 0));
    check_whole(folder, &Model::new(), &[], &[]);
}

/// Columns of each type; the item has them in another one now and then.
fn typed() -> ParquetColumns {
    let kinds = [
        ("b", ColumnType::Bool),
        ("n", ColumnType::Bigint),
        ("x", ColumnType::Double),
        ("s", ColumnType::Text),
        ("d", ColumnType::Date),
        ("t", ColumnType::Timestamp),
        ("j", ColumnType::Json),
    ];
    let column = |(name, kind): (&str, ColumnType)| {
        let mut column = ParquetColumn::new(name, kind);
        column.unfit = Unfit::Null;
        column
    };
    let mut id = ParquetColumn::new("id", ColumnType::Text);
    id.from = ColumnSource::Id;
    ParquetColumns::new(std::iter::once(id).chain(kinds.map(column)).collect()).unwrap()
}

fn with_values(seed: u64) -> Vec<u8> {
    let values = ["null", "true", "-1", "0.25", "\"text\"", "\"2014-11-06\"", "\"2014-11-06T03:00:00Z\"", "[1]"];
    let value = |at: u64| values[((seed ^ (at * 7)) % 11 % 8) as usize];
    let members: Vec<String> = ["b", "n", "x", "s", "d", "t", "j"]
        .iter()
        .zip(0..)
        .map(|(name, at)| format!("\"{name}\":{}", value(at)))
        .collect();
    let text = String::from_utf8(document(seed, 400)).unwrap();
    format!("{{{},\"text\":{text}}}", members.join(",")).into_bytes()
}

#[test]
fn typed_columns_are_copied_and_made_anew_when_they_are_others() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut items = model(0..2000, 2);
    for (seed, item) in (0..).zip(items.values_mut()) {
        item.2 = with_values(seed);
    }
    let with = |columns: &ParquetColumns| {
        let mut options = with_whole(&[Shape::Parquet], &[Shape::Parquet]);
        options.columns_of.insert("opinions".to_owned(), columns.clone());
        options
    };
    let fresh = |model: &Model, columns: &ParquetColumns| {
        let fresh = tempfile::tempdir().unwrap();
        let mut options = with(columns);
        options.check = CheckNew::Whole;
        export(fresh.path(), &Model::new(), model, options);
        shapes(fresh.path())
    };
    export(folder, &Model::new(), &items, with_whole(&[Shape::Parquet], &[Shape::Parquet]));
    let by_default = shapes(folder);
    // Other columns, and no other items.
    let published = export(folder, &items, &items, with(&typed()));
    assert_eq!((published.made_groups, published.made_shapes), (0, 3));
    assert!(shapes(folder) == fresh(&items, &typed()));
    assert!(!export(folder, &items, &items, with(&typed())).has_changed());
    // A change, by somebody who does not say what columns there are.
    let mut new = items.clone();
    new.get_mut(&("opinions".to_owned(), "1000".to_owned())).unwrap().2 = with_values(77_777);
    let mut options = options();
    let parts = told(&mut options);
    export(folder, &items, &new, options);
    assert!(shapes(folder) == fresh(&new, &typed()));
    let parts = parts.lock().unwrap().clone();
    let (copied, made) = (parts["ca0.parquet"], parts["all.parquet"]);
    assert!(copied.0 > 2 && copied.1 == 1 && made.0 > 5 && made.1 == 0, "{parts:?}");
    let faults = verify_set(folder, &crate::support::options()).unwrap().faults;
    assert!(faults.is_empty(), "{faults:?}");
    // What the roster knows is lost: the files say it.
    fs::remove_dir_all(folder.join(".bulk")).unwrap();
    assert_eq!(rebuild_indexes(folder, &crate::support::options()).unwrap().shapes, 0);
    // And back.
    export(folder, &new, &items, with(&ParquetColumns::default()));
    assert!(shapes(folder) == by_default);
}

#[test]
fn a_value_that_does_not_fit_is_named_and_nothing_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut options = with_whole(&[], &[Shape::Parquet]);
    let columns = ParquetColumns::new(vec![ParquetColumn::new("text", ColumnType::Bigint)]).unwrap();
    options.columns_of.insert("opinions".to_owned(), columns);
    let mut set = ExportSet::open(folder, options).unwrap();
    let mut stage = set.begin().unwrap();
    stage.put("opinions", "ca1", "7", 5, b"{\"text\": 12}").unwrap();
    stage.put("opinions", "ca1", "8", 5, b"{\"text\": \"12\"}").unwrap();
    let error = stage.publish(&BTreeMap::new()).unwrap_err();
    let file = folder.join("opinions/ca1.tar.gz").display().to_string();
    assert_eq!(error.to_string(), format!("{file}: item \"8\": \"12\" does not fit into the column \"text\""));
    drop(set);
    assert!(shapes(folder).is_empty() && SetManifest::read(folder).unwrap().is_none());
}

/// What happens to an item: it is put into a group with this content, or goes.
type Step = (u64, Option<(u64, u64)>);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn each_run_leaves_the_shapes_of_its_items(
        history in vec(
            (vec((0..400u64, proptest::option::weighted(0.8, (0..3u64, 0..1000u64))), 1..250), any::<bool>()),
            1..5
        ),
        threads in 1..4usize,
    ) {
        let history: Vec<(Vec<Step>, bool)> = history;
        let folder = tempfile::tempdir().unwrap();
        let mut model = Model::new();
        for (steps, with_own) in history {
            let before = model.clone();
            for (id, step) in steps {
                let key = ("opinions".to_owned(), format!("{id:03}"));
                match step {
                    Some((group, seed)) => {
                        let len = 20 + (seed as usize * 37) % 3000;
                        model.insert(key, (group.to_string(), seed as i64, document(seed, len)));
                    }
                    None => drop(model.remove(&key)),
                }
            }
            // What a type has is the same, whether it was copied from what its groups have or not.
            let own: &[Shape] = if with_own { &Shape::ALL } else { &[] };
            let mut options = with_whole(own, &Shape::ALL);
            options.archive = short();
            options.archive.threads = threads;
            export(folder.path(), &before, &model, options);
            check_whole(folder.path(), &model, own, &Shape::ALL);
        }
    }
}
