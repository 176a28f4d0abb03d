//! Sets that are not as they were left: what notices, and what mends it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, ThreadId},
};

use bulk_archive::{CheckNew, Error, ExportEvent, ExportSet, SameContent, Shape, Stage, rebuild_indexes, verify_set};

use crate::support::{Model, build, check, document, files, marks, open, options};

fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

fn model() -> Model {
    let item = |id: u64| {
        let group = ["ca1", "scotus"][id as usize % 2];
        (("opinions".to_owned(), format!("{id:03}")), (group.to_owned(), 1_400_000_000, document(id, 400)))
    };
    (0..200).map(item).collect()
}

/// Publishes a set of the model.
fn prepare(folder: &Path, model: &Model) {
    let mut set = open(folder);
    let mut stage = set.begin().unwrap();
    for ((kind, id), (group, mtime, content)) in model {
        stage.put(kind, group, id, *mtime, content).unwrap();
    }
    stage.publish(&BTreeMap::from([("opinions".to_owned(), "first".to_owned())])).unwrap();
}

/// Changes a byte in the middle of a file.
fn damage(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let (at, mut byte) = (file.metadata().unwrap().len() / 2, [0]);
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

fn faults(folder: &Path) -> Vec<(String, String)> {
    let report = verify_set(folder, &options()).unwrap();
    report.faults.into_iter().map(|fault| (fault.name, fault.error.to_string())).collect()
}

#[test]
fn what_is_wrong_with_a_set_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, &model());
    assert_eq!(faults(folder), []);
    let (ca1, scotus) = ("opinions/ca1.tar.gz", "opinions/scotus.tar.gz");
    damage(&folder.join(ca1));
    fs::write(folder.join("opinions/tax.tar.gz"), "x").unwrap();
    fs::remove_file(folder.join(format!("{scotus}.idx"))).unwrap();
    let found = faults(folder);
    assert_eq!(found.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), [ca1, scotus, "opinions/tax.tar.gz"]);
    assert!(found[0].1.ends_with("it has not the SHA-256 that the manifest says"), "{found:?}");
    assert!(found[1].1.ends_with("scotus.tar.gz.idx: cannot read"), "{found:?}");
    assert!(found[2].1.ends_with("the manifest does not speak of it"), "{found:?}");
    fs::remove_file(folder.join("manifest.json")).unwrap();
    let said = |folder: &Path| verify_set(folder, &options()).unwrap_err().to_string();
    assert!(said(folder).contains("the set is being published"), "{}", said(folder));
    let other = folder.join("opinions");
    assert!(said(&other).ends_with("no set was published here"), "{}", said(&other));
    assert!(matches!(verify_set(folder.join("absent"), &options()), Err(Error::Io { .. })));
}

#[test]
fn what_is_wrong_with_an_archive_is_not_said_of_what_was_made_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, &model());
    let mut options = options();
    options.shapes = Some(Shape::ALL.into());
    options.whole_shapes = Some(Shape::ALL.into());
    ExportSet::open(folder, options).unwrap().begin().unwrap().publish(&none()).unwrap();
    let path = folder.join("opinions/ca1.tar.gz");
    let others = build(&[("x".to_owned(), (1, b"{}".to_vec()))].into()).0;
    let harms: [&dyn Fn(); 3] =
        [&|| damage(&path), &|| fs::write(&path, &others).unwrap(), &|| fs::remove_file(&path).unwrap()];
    for harm in harms {
        harm();
        let names: Vec<String> = faults(folder).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["opinions/ca1.tar.gz"]);
    }
    // What is wrong with that itself is.
    damage(&folder.join("opinions/ca1.parquet"));
    damage(&folder.join("opinions.jsonl.gz"));
    let names: Vec<String> = faults(folder).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["opinions.jsonl.gz", "opinions/ca1.parquet", "opinions/ca1.tar.gz"]);
}

#[test]
fn a_lost_roster_is_made_anew_from_the_archives() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, &model());
    let roster = folder.join(".bulk/export.sqlite");
    fs::remove_file(&roster).unwrap();
    match ExportSet::open(folder, options()) {
        Err(error @ Error::RosterMissing { .. }) => {
            assert!(error.to_string().ends_with("there are archives, from which it can be made anew"));
        }
        other => panic!("{:?}", other.err()),
    }
    // Nor is there one now, nor does an empty one count, which a rebuilding that was killed leaves.
    assert!(!roster.exists());
    fs::write(&roster, "").unwrap();
    for _ in 0..2 {
        assert!(matches!(ExportSet::open(folder, options()), Err(Error::RosterMissing { .. })));
    }
    let before = marks(folder);
    let rebuilt = rebuild_indexes(folder, &options()).unwrap();
    assert_eq!((rebuilt.archives, rebuilt.entries, rebuilt.indexes, rebuilt.remade), (2, 200, 0, 0));
    check(folder, &model());
    let after = marks(folder);
    for name in before.keys().filter(|name| name.starts_with("opinions/")) {
        assert_eq!(before[name], after[name], "{name}");
    }
    let set = open(folder);
    assert_eq!(set.group_of("opinions", "001").unwrap().as_deref(), Some("scotus"));
    assert_eq!(set.watermark("opinions").unwrap(), None);
    drop(set);
    fs::write(&roster, "no database, and longer than the header of one would be").unwrap();
    assert!(matches!(ExportSet::open(folder, options()), Err(Error::Roster { .. })));
    rebuild_indexes(folder, &options()).unwrap();
    check(folder, &model());
}

#[test]
fn indexes_are_made_anew_and_so_is_what_is_not_canonical() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut model = model();
    prepare(folder, &model);
    damage(&folder.join("opinions/ca1.tar.gz.idx"));
    fs::remove_file(folder.join("opinions/scotus.tar.gz.idx")).unwrap();
    fs::write(folder.join("opinions/gone.tar.gz.idx"), "x").unwrap();
    // Neither what changes nor what does not can be told without an index.
    let mut set = open(folder);
    let mut stage = set.begin().unwrap();
    stage.put("opinions", "ca1", "000", 5, b"{}").unwrap();
    assert!(matches!(stage.publish(&none()), Err(Error::Index { .. })));
    drop(set);
    let rebuilt = rebuild_indexes(folder, &options()).unwrap();
    assert_eq!((rebuilt.indexes, rebuilt.remade), (2, 0));
    check(folder, &model);
    // An archive that others made of the same items.
    let mut other = options();
    other.archive.level = 1;
    let elsewhere = tempfile::tempdir().unwrap();
    let mut set = ExportSet::open(elsewhere.path(), other).unwrap();
    let mut stage = set.begin().unwrap();
    for ((kind, id), (group, mtime, content)) in &model {
        stage.put(kind, group, id, *mtime, content).unwrap();
    }
    stage.publish(&none()).unwrap();
    drop(set);
    fs::copy(elsewhere.path().join("opinions/ca1.tar.gz"), folder.join("opinions/ca1.tar.gz")).unwrap();
    let rebuilt = rebuild_indexes(folder, &options()).unwrap();
    assert_eq!((rebuilt.indexes, rebuilt.remade), (0, 1));
    check(folder, &model);
    // What is there now can be changed.
    let mut set = open(folder);
    let mut stage = set.begin().unwrap();
    stage.put("opinions", "scotus", "000", 5, b"{}").unwrap();
    assert_eq!(stage.publish(&none()).unwrap().moved, 1);
    drop(set);
    model.insert(("opinions".into(), "000".into()), ("scotus".into(), 5, b"{}".to_vec()));
    check(folder, &model);
}

/// Puts all items of the model, but for the first so many of them.
fn put_all(stage: &mut Stage<'_>, model: &Model, but: usize) {
    for ((kind, id), (group, mtime, content)) in model.iter().skip(but) {
        stage.put(kind, group, id, *mtime, content).unwrap();
    }
}

#[test]
fn a_damaged_archive_is_made_anew_of_its_items() {
    const CA1: &str = "opinions/ca1.tar.gz";
    let index = |archive: &Path| archive.with_extension("gz.idx");
    let cut = |archive: &Path, part: u64| {
        let file = File::options().write(true).open(archive).unwrap();
        file.set_len(file.metadata().unwrap().len() / part).unwrap();
    };
    type Harm<'a> = &'a dyn Fn(&Path);
    let harms: [(&str, Harm<'_>); 7] = [
        ("a byte", &damage),
        ("half of it", &|archive| cut(archive, 2)),
        ("all but the header", &|archive| cut(archive, 4000)),
        ("all of it", &|archive| fs::write(archive, "").unwrap()),
        ("half of it and the index", &|archive| {
            cut(archive, 2);
            fs::remove_file(index(archive)).unwrap();
        }),
        ("the file", &|archive| fs::remove_file(archive).unwrap()),
        ("the index", &|archive| damage(&index(archive))),
    ];
    for (what, harm) in harms {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut model = model();
        prepare(folder, &model);
        harm(&folder.join(CA1));
        let mut set = open(folder);
        // A change alone needs what is there, and what is copied is not looked at.
        if what != "a byte" {
            let mut stage = set.begin().unwrap();
            stage.put("opinions", "ca1", "000", 5, b"{}").unwrap();
            let error = stage.publish(&none()).unwrap_err();
            let is_said = match what {
                "the file" | "half of it and the index" => matches!(error, Error::Missing { .. }),
                "the index" => matches!(error, Error::Index { .. }),
                _ => matches!(error, Error::Damaged { .. }),
            };
            assert!(is_said, "{what}: {error:?}");
        }
        // Nor do some of the items make it anew.
        let mut stage = set.begin().unwrap();
        assert_eq!(stage.mend("opinions").unwrap(), 1, "{what}");
        assert_eq!(stage.mend("judges").unwrap(), 0);
        put_all(&mut stage, &model, 1);
        let said = stage.publish(&none()).unwrap_err().to_string();
        assert!(said.contains("99 of its 100 items are staged, all of which it takes"), "{what}: {said}");
        // What has been removed is no such item, and what has moved leaves it.
        let mut stage = set.begin().unwrap();
        assert_eq!(stage.mend("opinions").unwrap(), 1, "{what}");
        model.remove(&("opinions".to_owned(), "000".to_owned())).unwrap();
        model.get_mut(&("opinions".to_owned(), "002".to_owned())).unwrap().0 = "scotus".to_owned();
        stage.remove("opinions", "000").unwrap();
        put_all(&mut stage, &model, 0);
        let published = stage.publish(&none()).unwrap();
        let counts = (published.added, published.replaced, published.moved, published.removed, published.made_groups);
        assert_eq!(counts, (0, 98, 1, 1, 2), "{what}");
        drop(set);
        check(folder, &model);
    }
}

#[test]
fn a_damaged_archive_of_which_all_is_gone_goes() {
    for keep_empty in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut model = model();
        prepare(folder, &model);
        damage(&folder.join("opinions/ca1.tar.gz"));
        let mut options = options();
        options.keep_empty = keep_empty;
        let mut set = ExportSet::open(folder, options).unwrap();
        let mut stage = set.begin().unwrap();
        assert_eq!(stage.mend("opinions").unwrap(), 1);
        model.retain(|_, (group, ..)| group == "scotus");
        let list = model.keys().map(|(_, id)| Ok((id.clone(), "scotus".to_owned())));
        assert_eq!(stage.sweep("opinions", list).unwrap().removed, 100);
        let published = stage.publish(&none()).unwrap();
        assert_eq!((published.removed, published.emptied_groups), (100, u64::from(!keep_empty)));
        drop(set);
        assert_eq!(faults(folder), []);
        assert_eq!(folder.join("opinions/ca1.tar.gz").exists(), keep_empty);
    }
}

#[test]
fn what_somebody_else_has_put_in_the_place_of_an_archive_stays() {
    let others = build(&[("x".to_owned(), (1, b"{}".to_vec()))].into()).0;
    // Nothing that is compressed, another archive, a folder.
    for bytes in [Some(b"of somebody else's".to_vec()), Some(others), None] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        prepare(folder, &model());
        let path = folder.join("opinions/ca1.tar.gz");
        fs::remove_file(&path).unwrap();
        match &bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::create_dir(&path).unwrap(),
        }
        let mut set = open(folder);
        let mut stage = set.begin().unwrap();
        let mut said = vec![stage.mend("opinions").unwrap_err().to_string()];
        stage.put("opinions", "ca1", "000", 5, b"{}").unwrap();
        said.push(stage.publish(&none()).unwrap_err().to_string());
        drop(set);
        if bytes.as_deref() == Some(&b"of somebody else's"[..]) {
            said.push(rebuild_indexes(folder, &options()).unwrap_err().to_string());
        }
        for said in said {
            assert!(said.contains("opinions/ca1.tar.gz: ") && said.ends_with("; move it elsewhere"), "{said}");
        }
        assert_eq!(fs::read(&path).ok(), bytes);
        fs::rename(&path, folder.join("elsewhere")).unwrap();
        let mut set = open(folder);
        let mut stage = set.begin().unwrap();
        assert_eq!(stage.mend("opinions").unwrap(), 1);
        put_all(&mut stage, &model(), 0);
        stage.publish(&none()).unwrap();
        drop(set);
        assert_eq!(faults(folder), []);
    }
}

#[test]
fn a_rebuild_says_which_archive_is_in_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, &model());
    let path = folder.join("opinions/ca1.tar.gz");
    damage(&path);
    // Also where the manifest alone knows of it.
    for has_roster in [true, false] {
        if !has_roster {
            fs::remove_file(folder.join(".bulk/export.sqlite")).unwrap();
        }
        match rebuild_indexes(folder, &options()) {
            Err(Error::Damaged { file, .. }) => assert!(file.ends_with("opinions/ca1.tar.gz"), "{file}"),
            other => panic!("{other:?}"),
        }
    }
    // Of what nobody knows it cannot be told whose it is.
    fs::rename(&path, folder.join("opinions/tax.tar.gz")).unwrap();
    let said = rebuild_indexes(folder, &options()).unwrap_err().to_string();
    assert!(said.contains("opinions/tax.tar.gz: no archive of items: "), "{said}");
    assert!(said.ends_with("; move it elsewhere"), "{said}");
    fs::remove_file(folder.join("opinions/tax.tar.gz")).unwrap();
    assert_eq!(rebuild_indexes(folder, &options()).unwrap().archives, 1);
}

#[test]
fn an_item_in_two_archives_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, &model());
    fs::copy(folder.join("opinions/ca1.tar.gz"), folder.join("opinions/ca2.tar.gz")).unwrap();
    let before = files(folder);
    let error = rebuild_indexes(folder, &options()).unwrap_err();
    let text = error.to_string();
    let expected =
        "the item \"000\" is in \"opinions/ca1.tar.gz\", too: remove one of the two archives, and export all";
    assert!(text.ends_with(expected), "{text}");
    assert_eq!(files(folder), before);
    fs::remove_file(folder.join("opinions/ca2.tar.gz")).unwrap();
    check_after_open(folder);
}

/// As it was before.
fn check_after_open(folder: &Path) {
    let set = open(folder);
    assert_eq!(set.watermark("opinions").unwrap().as_deref(), Some("first"));
    drop(set);
    check(folder, &model());
}

#[test]
fn damaged_changes_are_found_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, &model());
    let stage_folder = folder.join(".bulk/stage");
    let mut options = options();
    // When all is staged, and nothing has been read yet.
    options.observer = Arc::new(move |event| {
        if let ExportEvent::Staged { .. } = event {
            let run = fs::read_dir(&stage_folder).unwrap().map(Result::unwrap).next().unwrap();
            damage(&run.path());
        }
    });
    let mut set = ExportSet::open(folder, options).unwrap();
    let mut stage = set.begin().unwrap();
    for id in 0..40u64 {
        stage.put("opinions", "ca1", &format!("{id:03}"), 5, &document(id + 7, 300)).unwrap();
    }
    match stage.publish(&none()) {
        Err(Error::Set { file, reason }) => {
            assert!(file.ends_with(".run") && reason.starts_with("the staged changes are not what was written"));
        }
        other => panic!("{other:?}"),
    }
    drop(set);
    check_after_open(folder);
}

#[test]
fn a_damaged_new_archive_is_not_published() {
    for check_new in [CheckNew::Made, CheckNew::Whole] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        prepare(folder, &model());
        // The old archive is damaged where it is copied from: only who reads all of it finds that.
        damage(&folder.join("opinions/ca1.tar.gz"));
        let mut options = options();
        options.check = check_new;
        let mut set = ExportSet::open(folder, options).unwrap();
        let mut stage = set.begin().unwrap();
        stage.put("opinions", "ca1", "000", 5, b"{}").unwrap();
        match (check_new, stage.publish(&none())) {
            (CheckNew::Made, Ok(published)) => {
                assert_eq!(published.replaced, 1);
                drop(set);
                assert_eq!(faults(folder).len(), 1);
                // It has the bytes that were published, and is found all the same.
                assert!(matches!(rebuild_indexes(folder, &super::support::options()), Err(Error::Damaged { .. })));
                let mut set = open(folder);
                let mut stage = set.begin().unwrap();
                assert_eq!(stage.mend("opinions").unwrap(), 1);
                put_all(&mut stage, &model(), 0);
                stage.publish(&none()).unwrap();
                drop(set);
                check(folder, &model());
            }
            (CheckNew::Whole, Err(Error::Corrupt { .. })) => {}
            (_, other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_stop_publishes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, &model());
    for at in ["spilled", "staged", "made", "prepared"] {
        let stop = Arc::new(AtomicBool::new(false));
        let mut options = options();
        options.stop = Arc::clone(&stop);
        options.observer = Arc::new(move |event| {
            let is_it = match event {
                ExportEvent::Spilled { .. } => at == "spilled",
                ExportEvent::Staged { .. } => at == "staged",
                ExportEvent::Made { .. } => at == "made",
                _ => false,
            };
            if is_it {
                stop.store(true, Ordering::Relaxed);
            }
        });
        if at == "prepared" {
            options.stop.store(true, Ordering::Relaxed);
        }
        let mut set = ExportSet::open(folder, options).unwrap();
        let mut stage = set.begin().unwrap();
        let staged =
            (0..100u64).try_for_each(|id| stage.put("opinions", "tax", &format!("{id}"), 5, &document(id, 300)));
        let stopped = staged.and_then(|()| stage.publish(&none()));
        assert!(matches!(stopped, Err(Error::Stopped)), "{at}: {stopped:?}");
        drop(set);
        check_after_open(folder);
    }
}

#[test]
fn touched_items_rewrite_nothing_if_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, &model());
    let touch = |same_content| {
        let mut options = options();
        options.same_content = same_content;
        let mut set = ExportSet::open(folder, options).unwrap();
        let mut stage = set.begin().unwrap();
        for ((kind, id), (group, mtime, content)) in &model() {
            stage.put(kind, group, id, *mtime + 1, content).unwrap();
        }
        stage.publish(&none()).unwrap()
    };
    let kept = touch(SameContent::Keep);
    assert_eq!((kept.unchanged, kept.replaced, kept.untouched_groups, kept.made_groups), (200, 0, 2, 0));
    check(folder, &model());
    let replaced = touch(SameContent::Replace);
    assert_eq!((replaced.unchanged, replaced.replaced, replaced.made_groups), (0, 200, 2));
}

#[test]
fn events_tell_what_happens() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder, &model());
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut options = options();
    options.jobs = 1;
    let events = Arc::clone(&told);
    options.observer = Arc::new(move |event| events.lock().unwrap().push(format!("{event:?}")));
    let mut set = ExportSet::open(folder, options).unwrap();
    let mut stage = set.begin().unwrap();
    let (group, mtime, content) = &model()[&("opinions".to_owned(), "001".to_owned())];
    stage.put("opinions", group, "001", *mtime, content).unwrap();
    stage.put("opinions", "tax", "x", 5, b"{}").unwrap();
    stage.publish(&none()).unwrap();
    let bytes = fs::metadata(folder.join("opinions/tax.tar.gz")).unwrap().len();
    let expected = [
        "Spilled { changes: 2 }".to_owned(),
        "Staged { groups: 2 }".to_owned(),
        "Begun { kind: \"opinions\", group: \"scotus\", threads: 2 }".to_owned(),
        "Untouched { kind: \"opinions\", group: \"scotus\" }".to_owned(),
        "Begun { kind: \"opinions\", group: \"tax\", threads: 1 }".to_owned(),
        format!("Made {{ kind: \"opinions\", group: \"tax\", entries: 1, bytes: {bytes} }}"),
        "Prepared".to_owned(),
        "Committed".to_owned(),
        "Unpublished".to_owned(),
        "Renamed { name: \"opinions/info.json\" }".to_owned(),
        "Renamed { name: \"opinions/tax.tar.gz\" }".to_owned(),
        "Renamed { name: \"opinions/tax.tar.gz.idx\" }".to_owned(),
        "Published".to_owned(),
    ];
    assert_eq!(*told.lock().unwrap(), expected);
}

#[test]
fn each_thread_of_a_large_group_says_all_that_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let told: Arc<Mutex<Vec<(ThreadId, String)>>> = Arc::default();
    let mut options = options();
    options.archive.threads = 3;
    let events = Arc::clone(&told);
    options.observer =
        Arc::new(move |event| events.lock().unwrap().push((thread::current().id(), format!("{event:?}"))));
    let mut set = ExportSet::open(folder.path(), options).unwrap();
    let mut stage = set.begin().unwrap();
    // Two hundred blocks.
    for id in 0..400 {
        let content = format!("\"{}\"", "x".repeat(1000));
        stage.put("opinions", "tax", &format!("{id:04}"), 5, content.as_bytes()).unwrap();
    }
    stage.publish(&none()).unwrap();
    let told = told.lock().unwrap();
    let place = |what: &str| told.iter().position(|(_, event)| event.starts_with(what)).unwrap();
    assert_eq!(told[place("Begun")].1, "Begun { kind: \"opinions\", group: \"tax\", threads: 3 }");
    let (owner, made) = (told[place("Begun")].0, place("Made"));
    let mut by_thread: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (thread, event) in &told[place("Begun") + 1..made] {
        let name = if *thread == owner { "owner".to_owned() } else { format!("{thread:?}") };
        by_thread.entry(name).or_default().push(event);
    }
    // It waits and goes on, and nothing else.
    let owned = by_thread.remove("owner").unwrap();
    assert!(owned.chunks(2).all(|pair| *pair == ["WaitsForCompressor", "GoesOn"]), "{owned:?}");
    assert_eq!(by_thread.len(), 3, "{by_thread:?}");
    let mut jobs = 0;
    for events in by_thread.values() {
        // From its beginning to its end, which is before the archive is there.
        assert_eq!((events[0], events[events.len() - 1]), ("CompressorWaits", "CompressorEnds"));
        let between = &events[1..events.len() - 1];
        assert!(between.chunks(2).all(|pair| *pair == ["Compresses", "CompressorWaits"]), "{events:?}");
        jobs += between.len() / 2;
    }
    // Some blocks that follow one another are one job. The end of the threads is waited for, too.
    assert!(owned.len() >= 2);
    assert!((20..200).contains(&jobs), "{jobs}");
}

#[test]
fn a_single_block_of_a_group_with_threads_is_compressed_by_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let told: Arc<Mutex<Vec<(ThreadId, String)>>> = Arc::default();
    let mut options = options();
    options.archive.threads = 2;
    let events = Arc::clone(&told);
    options.observer =
        Arc::new(move |event| events.lock().unwrap().push((thread::current().id(), format!("{event:?}"))));
    let mut set = ExportSet::open(folder.path(), options).unwrap();
    let mut stage = set.begin().unwrap();
    stage.put("opinions", "tax", "a", 5, b"{}").unwrap();
    stage.publish(&none()).unwrap();
    let told = told.lock().unwrap();
    let place = |what: &str| told.iter().position(|(_, event)| event.starts_with(what)).unwrap();
    let (begun, made) = (place("Begun"), place("Made"));
    assert_eq!(told[begun].1, "Begun { kind: \"opinions\", group: \"tax\", threads: 2 }");
    let between: Vec<_> = told[begun + 1..made].iter().map(|(_, event)| event.as_str()).collect();
    assert_eq!(between, ["WaitsForCompressor", "CompressorWaits", "Compresses", "CompressorEnds", "GoesOn"]);
    assert!(told[begun..=made].iter().all(|(thread, _)| *thread == told[begun].0));
}

#[test]
fn a_rebuild_keeps_what_stands_under_a_name_in_another_case_where_files_would_be_one() {
    for folds in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut options = options();
        options.shapes = Some([Shape::JsonlGz].into());
        let mut set = ExportSet::open(folder, options.clone()).unwrap();
        let mut stage = set.begin().unwrap();
        stage.put("opinions", "ca1", "1", 1, b"{}").unwrap();
        stage.publish(&none()).unwrap();
        drop(set);
        let names = ["ca1.tar.gz.idx", "ca1.jsonl.gz"];
        let other = |name: &str| name.replace("ca", "CA");
        let place = |name: &str| folder.join("opinions").join(name);
        for name in names {
            fs::rename(place(name), place(&other(name))).unwrap();
        }
        if folds {
            // On such a file system the lock is found by another name, as it is by a link here.
            fs::hard_link(folder.join(".bulk/export.lock"), folder.join(".bulk/EXPORT.LOCK")).unwrap();
        }
        let rebuilt = rebuild_indexes(folder, &options).unwrap();
        assert_eq!((rebuilt.archives, rebuilt.indexes, rebuilt.remade, rebuilt.shapes), (1, 1, 0, 1));
        // Here they are two files; there they would be the new ones. Without a map, a file is somebody else's.
        assert_eq!(names.map(|name| place(&other(name)).exists()), [folds, true]);
        assert_eq!(names.map(|name| place(name).exists()), [true, true]);
    }
}
