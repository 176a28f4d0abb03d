//! What a stage takes and refuses, and what comes of it.

use std::{
    collections::BTreeMap,
    fs,
    sync::atomic::{AtomicU64, Ordering},
};

use bulk_archive::{Error, ExportSet, Refusal, SetManifest, Stage, verify_set};

use crate::support::{Model, check, document, marks, open, options};

fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

#[test]
fn a_dropped_stage_publishes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = open(folder.path());
    let mut stage = set.begin().unwrap();
    stage.put("opinions", "scotus", "1", 5, b"{}").unwrap();
    stage.publish(&BTreeMap::from([("opinions".to_owned(), "a".to_owned())])).unwrap();
    let before = marks(folder.path());
    let mut stage = set.begin().unwrap();
    for id in 0..100 {
        stage.put("opinions", "scotus", &id.to_string(), 5, &document(id, 500)).unwrap();
    }
    stage.put("dockets", "ca1", "1", 5, b"{}").unwrap();
    drop(stage);
    assert_eq!(set.group_of("dockets", "1").unwrap(), None);
    assert_eq!(set.kinds(), ["opinions"]);
    let published = set.begin().unwrap().publish(&none()).unwrap();
    assert!(!published.has_changed());
    assert_eq!(set.watermark("opinions").unwrap().as_deref(), Some("a"));
    drop(set);
    let after = marks(folder.path());
    for name in ["manifest.json", "opinions/scotus.tar.gz", "opinions/scotus.tar.gz.idx"] {
        assert_eq!(before[name], after[name], "{name}");
    }
    let model = Model::from([(("opinions".into(), "1".into()), ("scotus".into(), 5, b"{}".to_vec()))]);
    check(folder.path(), &model);
}

#[test]
fn a_bad_item_is_refused_and_the_stage_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = open(folder.path());
    let mut stage = set.begin().unwrap();
    let long = "x".repeat(300);
    let cases: [(&str, &str, &str, &[u8], Refusal); 9] = [
        ("opinions", "scotus", "", b"{}", Refusal::EmptyName),
        ("opinions", "scotus", &long, b"{}", Refusal::NameTooLong),
        ("opinions", "", "1", b"{}", Refusal::EmptyName),
        ("opinions", &long, "1", b"{}", Refusal::NameTooLong),
        ("", "scotus", "1", b"{}", Refusal::EmptyName),
        ("manifest.json", "scotus", "1", b"{}", Refusal::Reserved),
        ("opinions", "scotus", "1", b"{\"a\": 1", Refusal::NotJson { line: 1, column: 7 }),
        ("opinions", "scotus", "1", b"{}\n{}", Refusal::NotJson { line: 2, column: 1 }),
        ("opinions", "scotus", "1", b"\"\xff\"", Refusal::NotUtf8),
    ];
    for (kind, group, id, json, expected) in cases {
        match stage.put(kind, group, id, 0, json) {
            Err(Error::Refused { reason, .. }) => assert_eq!(reason, expected),
            other => panic!("{kind:?} {group:?} {id:?}: {other:?}"),
        }
    }
    assert!(matches!(stage.remove("opinions", ""), Err(Error::Refused { reason: Refusal::EmptyName, .. })));
    stage.put("../x", "..", "../../y", 0, b" [null] ").unwrap();
    let published = stage.publish(&none()).unwrap();
    assert_eq!((published.added, published.archives), (1, 1));
    assert_eq!(set.group_of("../x", "../../y").unwrap().as_deref(), Some(".."));
    drop(set);
    let manifest = SetManifest::read(folder.path()).unwrap().unwrap();
    assert_eq!(manifest.archives[0].name, "%2E.%2Fx/%2E..tar.gz");
    let names = crate::support::files(folder.path());
    let expected = ["%2E.%2Fx/%2E..tar.gz", "%2E.%2Fx/%2E..tar.gz.idx", "%2E.%2Fx/info.json", "manifest.json"];
    assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[test]
fn two_runs_exclude_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let set = open(folder.path());
    assert!(matches!(ExportSet::open(folder.path(), options()), Err(Error::Locked { .. })));
    drop(set);
    drop(open(folder.path()));
}

#[test]
fn loose_files_are_staged_with_their_times() {
    let (folder, loose) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let group = loose.path().join("opinions").join("scotus");
    fs::create_dir_all(&group).unwrap();
    let mut model = Model::new();
    for id in 0..50u64 {
        let (path, content) = (group.join(format!("{id}.json")), document(id, 300));
        fs::write(&path, &content).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_400_000_000 + id);
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        model.insert(("opinions".into(), id.to_string()), ("scotus".into(), 1_400_000_000 + id as i64, content));
    }
    fs::write(group.join("notes.txt"), "x").unwrap();
    fs::write(group.join("bad.json"), "{").unwrap();
    fs::write(group.join(".hidden"), "x").unwrap();
    fs::write(loose.path().join("opinions").join("stray.json"), "{}").unwrap();
    let mut set = open(folder.path());
    let mut stage = set.begin().unwrap();
    let mut refused = Vec::new();
    let done = stage.put_folder(loose.path(), |path, error| {
        let Error::Refused { reason, .. } = error else { panic!("{error}") };
        refused.push((path.file_name().unwrap().to_string_lossy().into_owned(), *reason));
    });
    let done = done.unwrap();
    assert_eq!((done.put, done.refused), (50, 3));
    refused.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        ("bad.json", Refusal::NotJson { line: 1, column: 1 }),
        ("notes.txt", Refusal::NotAnItem),
        ("stray.json", Refusal::NotAnItem),
    ];
    assert_eq!(refused, expected.map(|(name, reason)| (name.to_owned(), reason)));
    stage.publish(&none()).unwrap();
    drop(set);
    check(folder.path(), &model);
}

#[test]
fn a_sweep_removes_what_is_not_listed_and_asks_for_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = open(folder.path());
    let mut stage = set.begin().unwrap();
    let mut model = Model::new();
    for id in 0..600u64 {
        let (id, content) = (id.to_string(), document(id, 200));
        stage.put("opinions", "scotus", &id, 5, &content).unwrap();
        model.insert(("opinions".into(), id), ("scotus".into(), 5, content));
    }
    stage.publish(&none()).unwrap();
    let mut stage = set.begin().unwrap();
    // Put in this run and not in the list: gone. Put and in the list: not asked for again.
    stage.put("opinions", "ca1", "9001", 5, b"{}").unwrap();
    stage.put("opinions", "ca1", "9002", 5, b"{}").unwrap();
    // Every third is gone, every fifth of the others is in another group, and there are a few more. In no order.
    let mut list: Vec<(String, String)> = (0..600u64)
        .filter(|id| id % 3 != 0)
        .map(|id| (id.to_string(), if id % 5 == 0 { "ca1" } else { "scotus" }.to_owned()))
        .collect();
    list.extend(["9002", "700", "701"].map(|id| (id.to_owned(), "ca1".to_owned())));
    list.push((String::new(), "ca1".to_owned()));
    list.reverse();
    let mut swept = stage.sweep("opinions", list.iter().cloned().map(Ok)).unwrap();
    assert_eq!((swept.listed, swept.refused, swept.removed), (403, 1, 201));
    let mut expected: Vec<String> =
        (0..600u64).filter(|id| id % 3 != 0 && id % 5 == 0).map(|id| id.to_string()).collect();
    expected.extend(["700".to_owned(), "701".to_owned()]);
    expected.sort();
    assert_eq!(swept.wanted.len(), expected.len() as u64);
    let mut wanted = Vec::new();
    loop {
        let batch = swept.wanted.next_batch(7).unwrap();
        if batch.is_empty() {
            break;
        }
        for (id, group) in batch {
            assert_eq!(group, "ca1");
            stage.put("opinions", &group, &id, 6, b"{\"swept\":true}").unwrap();
            model.insert(("opinions".into(), id.clone()), (group, 6, b"{\"swept\":true}".to_vec()));
            wanted.push(id);
        }
    }
    assert_eq!(wanted, expected);
    assert!(swept.wanted.is_empty());
    stage.publish(&none()).unwrap();
    drop(set);
    model.retain(|(_, id), _| id.parse::<u64>().unwrap() % 3 != 0 || id == "700" || id == "701");
    model.insert(("opinions".into(), "9002".into()), ("ca1".into(), 5, b"{}".to_vec()));
    model.remove(&("opinions".to_owned(), "9001".to_owned()));
    check(folder.path(), &model);
}

#[test]
fn a_group_without_items_keeps_an_archive_if_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options();
    options.keep_empty = true;
    let mut set = ExportSet::open(folder.path(), options).unwrap();
    let mut stage = set.begin().unwrap();
    stage.put("opinions", "scotus", "1", 5, b"{}").unwrap();
    stage.publish(&none()).unwrap();
    let mut stage = set.begin().unwrap();
    stage.remove("opinions", "1").unwrap();
    let published = stage.publish(&none()).unwrap();
    assert_eq!((published.removed, published.archives, published.entries), (1, 1, 0));
    let mut stage = set.begin().unwrap();
    stage.put("opinions", "scotus", "2", 5, b"{}").unwrap();
    assert_eq!(stage.publish(&none()).unwrap().added, 1);
    drop(set);
    let model = Model::from([(("opinions".into(), "2".into()), ("scotus".into(), 5, b"{}".to_vec()))]);
    check(folder.path(), &model);
}

#[test]
fn all_tar_has_the_archives_of_its_type() {
    let folder = tempfile::tempdir().unwrap();
    let mut with_all = options();
    with_all.all_tar = true;
    let mut set = ExportSet::open(folder.path(), with_all.clone()).unwrap();
    let mut stage = set.begin().unwrap();
    for id in 0..40u64 {
        let group = ["ca1", "ca9"][id as usize % 2];
        stage.put("opinions", group, &id.to_string(), 5, &document(id, 300)).unwrap();
        stage.put("dockets", group, &id.to_string(), 5, b"{}").unwrap();
    }
    stage.publish(&none()).unwrap();
    let before = marks(folder.path());
    let read = |name: &str| {
        let bytes = fs::read(folder.path().join(name)).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let members = archive.entries().unwrap().map(|member| {
            let mut member = member.unwrap();
            let (name, mut content) = (member.path().unwrap().display().to_string(), Vec::new());
            std::io::Read::read_to_end(&mut member, &mut content).unwrap();
            (name, content)
        });
        members.collect::<Vec<_>>()
    };
    let now = |name: &str| (name.to_owned(), fs::read(folder.path().join("opinions").join(name)).unwrap());
    assert_eq!(read("opinions/all.tar"), [now("ca1.tar.gz"), now("ca9.tar.gz")]);
    let mut stage = set.begin().unwrap();
    stage.put("opinions", "ca1", "0", 6, b"{}").unwrap();
    stage.publish(&none()).unwrap();
    assert_eq!(read("opinions/all.tar"), [now("ca1.tar.gz"), now("ca9.tar.gz")]);
    let after = marks(folder.path());
    assert_eq!(before["dockets/all.tar"], after["dockets/all.tar"]);
    assert_ne!(before["opinions/all.tar"], after["opinions/all.tar"]);
    assert!(verify_set(folder.path(), &with_all).unwrap().faults.is_empty());
    drop(set);
    // Without the option they go.
    open(folder.path()).begin().unwrap().publish(&none()).unwrap();
    assert!(!folder.path().join("opinions/all.tar").exists());
    assert!(verify_set(folder.path(), &options()).unwrap().faults.is_empty());
}

#[test]
fn info_tells_of_the_last_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = open(folder.path());
    let info = || -> serde_json::Value {
        serde_json::from_slice(&fs::read(folder.path().join("opinions/info.json")).unwrap()).unwrap()
    };
    let mut stage = set.begin().unwrap();
    stage.put("opinions", "scotus", "1", 5, b"{}").unwrap();
    let before = info();
    assert!(before["last_good_date"].is_null() && before["duration"].is_null());
    let attempt = before["last_attempt"].as_str().unwrap().to_owned();
    assert!(attempt.len() == 20 && attempt.starts_with("20") && attempt.ends_with('Z'), "{attempt}");
    stage.publish(&none()).unwrap();
    let after = info();
    assert_eq!(after["last_good_date"].as_str(), Some(&*attempt));
    assert_eq!(after["last_attempt"].as_str(), Some(&*attempt));
    assert!(after["duration"].as_f64().unwrap() >= 0.0);
    // One that is given up is an attempt, and the last good one stays.
    drop(set.begin().unwrap());
    let after = info();
    assert_eq!(after["last_good_date"].as_str(), Some(&*attempt));
    assert!(after["last_attempt"].as_str().unwrap() >= &*attempt);
}

#[test]
fn a_set_goes_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<ExportSet>();
    is_send::<bulk_archive::Stage<'static>>();
    is_send::<bulk_archive::Wanted>();
}

#[test]
fn names_that_differ_in_case_are_refused_where_files_would_be_one() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let put = |kind: &str, group: &str, id: &str| {
        let mut set = open(folder);
        let mut stage = set.begin().unwrap();
        stage.put(kind, group, id, 1, b"{}")?;
        stage.publish(&BTreeMap::new()).map(drop)
    };
    // Here they are two.
    put("opinions", "scotus", "1").unwrap();
    put("opinions", "Scotus", "2").unwrap();
    assert_eq!(SetManifest::read(folder).unwrap().unwrap().archives.len(), 2);
    // On such a file system the lock is found by another name, as it is by a link here.
    fs::hard_link(folder.join(".bulk/export.lock"), folder.join(".bulk/EXPORT.LOCK")).unwrap();
    let reason = |put: Result<(), Error>| match put.unwrap_err() {
        Error::Refused { reason, .. } => reason,
        other => panic!("{other}"),
    };
    assert_eq!(reason(put("opinions", "sCotus", "3")), Refusal::NameInAnotherCase);
    assert_eq!(reason(put("Opinions", "x", "3")), Refusal::NameInAnotherCase);
    put("opinions", "Scotus", "4").unwrap();
    put("people", "scotus", "1").unwrap();
    // Another file is not the lock.
    fs::remove_file(folder.join(".bulk/EXPORT.LOCK")).unwrap();
    fs::write(folder.join(".bulk/EXPORT.LOCK"), "").unwrap();
    put("opinions", "sCotus", "3").unwrap();
}

#[test]
fn what_is_put_more_than_once_is_told() {
    /// So many changes that they are written in several runs, often enough for runs to be merged.
    fn fill(stage: &mut Stage<'_>, from: u64) {
        for id in from..from + 200 {
            stage.put("dockets", "ca1", &format!("filler {id}"), 0, &document(id, 1000)).unwrap();
        }
    }
    for fills in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut set = open(folder.path());
        let mut stage = set.begin().unwrap();
        for id in ["there", "moved", "moves", "gone"] {
            stage.put("opinions", "scotus", id, 0, b"0").unwrap();
        }
        stage.publish(&none()).unwrap();
        let mut stage = set.begin().unwrap();
        let spilled = AtomicU64::new(0);
        let round = |stage: &mut Stage<'_>| {
            if fills {
                fill(stage, 200 * spilled.fetch_add(1, Ordering::Relaxed));
            }
        };
        // Moved once, which is no second time; the others follow.
        stage.put("opinions", "ca1", "moved", 1, b"1").unwrap();
        for (group, id) in [("scotus", "there"), ("ca2", "moves"), ("ca1", "new"), ("ca1", "back"), ("ca1", "removed")]
        {
            stage.put("opinions", group, id, 1, b"1").unwrap();
        }
        stage.remove("opinions", "gone").unwrap();
        round(&mut stage);
        for (group, id) in [("scotus", "there"), ("ca3", "moves"), ("ca2", "new"), ("ca2", "back")] {
            stage.put("opinions", group, id, 2, b"2").unwrap();
        }
        round(&mut stage);
        stage.put("opinions", "ca1", "back", 3, b"3").unwrap();
        stage.put("opinions", "scotus", "there", 3, b"3").unwrap();
        stage.put("opinions", "scotus", "once", 3, b"3").unwrap();
        stage.remove("opinions", "removed").unwrap();
        round(&mut stage);
        let ids = |stage: &mut Stage<'_>, kind: &str| {
            let mut repeated = stage.repeated(kind).unwrap();
            let left = repeated.len();
            let ids: Vec<String> = repeated.next_batch(100).unwrap().into_iter().map(|(id, _)| id).collect();
            assert_eq!(left, ids.len() as u64);
            ids
        };
        assert_eq!(ids(&mut stage, "opinions"), ["back", "moves", "new", "there"], "{fills}");
        assert_eq!(ids(&mut stage, "dockets"), [""; 0]);
        assert_eq!(ids(&mut stage, "nothing"), [""; 0]);
        stage.put("opinions", "ca3", "once", 4, b"4").unwrap();
        assert_eq!(ids(&mut stage, "opinions"), ["back", "moves", "new", "once", "there"], "{fills}");
        // It changes nothing: the last counts.
        let mut model = Model::new();
        for (group, id, number) in [
            ("ca1", "moved", 1),
            ("ca3", "moves", 2),
            ("ca2", "new", 2),
            ("ca1", "back", 3),
            ("scotus", "there", 3),
            ("ca3", "once", 4),
        ] {
            let item = (group.to_owned(), number, number.to_string().into_bytes());
            model.insert(("opinions".to_owned(), id.to_owned()), item);
        }
        if fills {
            for id in 0..600 {
                let item = ("ca1".to_owned(), 0, document(id, 1000));
                model.insert(("dockets".to_owned(), format!("filler {id}")), item);
            }
        }
        stage.publish(&none()).unwrap();
        assert_eq!(set.kinds().len(), if fills { 2 } else { 1 });
        drop(set);
        check(folder.path(), &model);
    }
}

#[test]
fn a_sweep_tells_what_is_listed_more_than_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = open(folder.path());
    let mut stage = set.begin().unwrap();
    for id in 0..300u64 {
        stage.put("opinions", "scotus", &id.to_string(), 0, b"0").unwrap();
    }
    // Twice at once, twice far from each other, and one that is not there yet.
    let mut list: Vec<String> = (0..300).map(|id| id.to_string()).collect();
    list.splice(7..7, ["7", "new"].map(str::to_owned));
    list.extend(["2", "new"].map(str::to_owned));
    let list = list.into_iter().map(|id| Ok((id, "scotus".to_owned())));
    let mut swept = stage.sweep("opinions", list).unwrap();
    assert_eq!((swept.listed, swept.removed, swept.repeated, swept.wanted.len()), (301, 0, 3, 3));
    let wanted: Vec<String> = swept.wanted.next_batch(9).unwrap().into_iter().map(|(id, _)| id).collect();
    assert_eq!(wanted, ["2", "7", "new"]);
}
