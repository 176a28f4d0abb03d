//! Sets that have items in other formats, and what these are to be.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::Path,
    sync::{Arc, Mutex},
};

use bulk_archive::{
    CheckNew, ColumnSource, ColumnType, ExportEvent, ExportOptions, ExportSet, ParquetColumn, ParquetColumns,
    SetManifest, Shape, Unfit, verify_set,
};

use crate::support::{Model, document, options};

pub(crate) fn with(shapes: &[Shape]) -> ExportOptions {
    with_whole(shapes, &[])
}

/// With shapes of groups, and of types.
pub(crate) fn with_whole(shapes: &[Shape], whole: &[Shape]) -> ExportOptions {
    let mut options = options();
    options.shapes = Some(shapes.iter().copied().collect());
    options.whole_shapes = Some(whole.iter().copied().collect());
    options
}

/// Makes the set of a model, and gives what was published.
pub(crate) fn export(folder: &Path, old: &Model, new: &Model, options: ExportOptions) -> bulk_archive::Published {
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
pub(crate) fn shapes(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = crate::support::files(folder);
    let is_shape = |name: &String| Shape::ALL.iter().any(|shape| name.ends_with(&format!(".{shape}")));
    names.into_iter().filter(is_shape).map(|name| (name.clone(), fs::read(folder.join(&name)).unwrap())).collect()
}

/// The set has these shapes of each archive, with the items of the model, as readers of others find them, and byte by byte as
/// a new set has them.
pub(crate) fn check(folder: &Path, model: &Model, wanted: &[Shape]) {
    check_whole(folder, model, wanted, &[]);
}

/// And these shapes of each type, which has what its groups have.
pub(crate) fn check_whole(folder: &Path, model: &Model, wanted: &[Shape], whole: &[Shape]) {
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

pub(crate) fn model(items: std::ops::Range<u64>, groups: u64) -> Model {
    items
        .map(|id| {
            let key = ("opinions".to_owned(), format!("{id:04}"));
            (key, (format!("ca{}", id % groups), 1_400_000_000 + id as i64, document(id, 700)))
        })
        .collect()
}

/// Which parts of each shape were copied, and which made.
pub(crate) type Parts = Arc<Mutex<BTreeMap<String, (u64, u64)>>>;

pub(crate) fn told(options: &mut ExportOptions) -> Parts {
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

/// Why nothing is published, without the path of the folder.
pub(crate) fn refusal(folder: &Path, options: ExportOptions) -> String {
    let mut set = ExportSet::open(folder, options).unwrap();
    let error = set.begin().unwrap().publish(&BTreeMap::new()).unwrap_err().to_string();
    error.strip_prefix(&format!("{}/", folder.display())).unwrap().to_owned()
}

/// What is said of a file that took the place of ours.
pub(crate) const TAKEN: &str = "it is not what the last export made there, and would be lost; move it elsewhere";

/// All files of the set by path, with what they have.
pub(crate) fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = crate::support::files(folder);
    // To read a pipe would be to wait.
    names.retain(|name| folder.join(name).is_file());
    names.into_iter().map(|name| (name.clone(), fs::read(folder.join(&name)).unwrap())).collect()
}

/// Why a run ends that changes an item, without the path of the folder. It ends before anything is made.
pub(crate) fn refused(folder: &Path, mut options: ExportOptions) -> String {
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

/// Columns of each type; the item has them in another one now and then.
pub(crate) fn typed() -> ParquetColumns {
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
