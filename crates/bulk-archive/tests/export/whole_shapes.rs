//! Items of whole types in other formats, beside the folders.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use bulk_archive::{ExportSet, SetManifest, Shape, rebuild_indexes, verify_set};

use crate::{
    shaped::{TAKEN, check_whole, export, model, shapes, told, with_whole},
    support::{Model, document, options},
};

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
