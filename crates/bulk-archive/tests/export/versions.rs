//! Sets that earlier versions have made.

use std::{collections::BTreeSet, fs, path::Path};

use bulk_archive::{ExportSet, SetManifest, Shape, rebuild_indexes, verify_set};
use sha2::Digest as _;

use crate::{
    shaped::{check, check_whole, export, model, refusal, with, with_whole},
    support::{Model, document, options},
};

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
