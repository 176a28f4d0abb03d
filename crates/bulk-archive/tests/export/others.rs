//! What others have put where a file of the set is, or is to be.

use std::{collections::BTreeMap, fs, path::Path};

use bulk_archive::{ExportSet, SetManifest, Shape, rebuild_indexes, verify_set};

use crate::{
    shaped::{TAKEN, check, check_whole, export, model, refusal, refused, typed, with, with_whole},
    support::{Model, options},
};

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
fn what_stands_in_the_place_of_a_new_archive_ends_the_run_before_its_work() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut items = model(0..60, 2);
    export(folder, &Model::new(), &items, options());
    let published = fs::read(folder.join("manifest.json")).unwrap();
    let publish = || {
        let mut set = ExportSet::open(folder, options()).unwrap();
        let mut stage = set.begin().unwrap();
        stage.put("opinions", "tax", "t1", 5, b"{}").unwrap();
        stage.publish(&BTreeMap::new())
    };
    let refusal = || {
        let error = publish().unwrap_err().to_string();
        assert!(fs::read(folder.join("manifest.json")).unwrap() == published);
        error.strip_prefix(&format!("{}/", folder.display())).unwrap().to_owned()
    };
    let place = folder.join("opinions/tax.tar.gz");
    fs::write(&place, b"somebody's").unwrap();
    assert_eq!(refusal(), "opinions/tax.tar.gz: no export has made it, and it would be overwritten; move it elsewhere");
    assert_eq!(fs::read(&place).unwrap(), b"somebody's");
    fs::remove_file(&place).unwrap();
    fs::create_dir(&place).unwrap();
    assert_eq!(refusal(), "opinions/tax.tar.gz: it is a folder, where a file of the set is to be; move it elsewhere");
    fs::remove_dir(&place).unwrap();
    assert_eq!(publish().unwrap().made_groups, 1);
    items.insert(("opinions".to_owned(), "t1".to_owned()), ("tax".to_owned(), 5, b"{}".to_vec()));
    check(folder, &items, &[]);
}
