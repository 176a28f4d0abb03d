//! Items of groups in other formats, beside the archives.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use bulk_archive::{ExportSet, SetManifest, Shape, rebuild_indexes, verify_set};
use proptest::{collection::vec, prelude::*};

use crate::{
    shaped::{TAKEN, check, check_whole, export, files, model, told, with, with_whole},
    support::{Model, document, options, short},
};

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
