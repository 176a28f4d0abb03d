//! Columns of Parquet that a spec gives.

use std::{collections::BTreeMap, fs};

use bulk_archive::{
    CheckNew, ColumnType, ExportSet, ParquetColumn, ParquetColumns, SetManifest, Shape, rebuild_indexes, verify_set,
};

use crate::{
    shaped::{export, model, shapes, told, typed, with_whole},
    support::{Model, document, options},
};

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
