//! Files that an earlier run left, or that came with the data: checkpoints, sidecars, manifests, checksum lists, reports and
//! notes. Each is read as what it says, or refused; what was read can be written and read again.

use std::fs;

use bulk_core::{Algorithm, Digest, Manifest, RateLimit, RunReport, Sums, staged_records};
use bulk_s3::fuzzing::rewrite_upload_note;
use bulk_s3::{Checkpoint, DatePattern, DatedName, Job, KeyRange};
use sha2::Sha256;

use crate::{Take, scratch};

/// See the module.
pub fn target(data: &[u8]) {
    let mut take = Take::new(data);
    match take.byte() % 8 {
        0 => checkpoint(take),
        1 => sidecar(take.rest()),
        2 => manifest(take.rest()),
        3 => sums(take.rest()),
        4 => report(take.rest()),
        5 => note(take.rest()),
        6 => buildhub(take.rest()),
        _ => texts(take.rest()),
    }
}

fn checkpoint(mut take: Take<'_>) {
    let folder = scratch();
    let path = folder.path().join("checkpoint.json");
    let (after, until) = (take.part(), take.part());
    fs::write(&path, take.rest()).expect("a file");
    let Ok(mut checkpoint) = Checkpoint::open(&path, Job::default()) else { return };
    assert!(checkpoint.is_resumed());
    check_left(checkpoint.left());
    checkpoint.save().expect("a file");
    let again = Checkpoint::open(&path, Job::default()).expect("what was saved");
    assert_eq!(again.left(), checkpoint.left());
    assert_eq!(again.counts, checkpoint.counts);

    let (Ok(after), Ok(until)) = (str::from_utf8(after), str::from_utf8(until)) else { return };
    let border = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let done = KeyRange::new(border(after), border(until));
    let before = checkpoint.left().to_vec();
    checkpoint.done(&done);
    check_left(checkpoint.left());
    let mut keys: Vec<&str> = vec!["", "a", after, until];
    let borders = before.iter().flat_map(|range| [&range.after, &range.until]);
    keys.extend(borders.flatten().map(String::as_str));
    for key in keys {
        let was_left = before.iter().any(|range| range.contains(key));
        let is_left = checkpoint.left().iter().any(|range| range.contains(key));
        assert_eq!(is_left, was_left && !done.contains(key), "{key:?} {done:?} {before:?}");
    }
}

/// Stretches in their order, of which none is empty or overlaps another.
fn check_left(left: &[KeyRange]) {
    assert!(left.iter().all(|range| !range.is_empty()), "{left:?}");
    for pair in left.windows(2) {
        let (Some(until), Some(after)) = (&pair[0].until, &pair[1].after) else { panic!("{left:?}") };
        assert!(until <= after, "{left:?}");
    }
}

fn buildhub(bytes: &[u8]) {
    let folder = scratch();
    let (theirs, path) = (folder.path().join("theirs"), folder.path().join("checkpoint.json"));
    fs::write(&theirs, bytes).expect("a file");
    if let Ok(checkpoint) = Checkpoint::since_buildhub(&path, Job::default(), &theirs) {
        checkpoint.save().expect("a file");
        assert_eq!(Checkpoint::open(&path, Job::default()).expect("what was saved").left(), checkpoint.left());
    }
}

fn sidecar(bytes: &[u8]) {
    let folder = scratch();
    let state = folder.path().join(".bulk");
    fs::create_dir(&state).expect("a folder");
    fs::write(state.join("a.csv.json"), bytes).expect("a file");
    fs::write(folder.path().join("a.csv"), b"id\n").expect("a file");
    let found: Vec<_> = staged_records(folder.path()).collect();
    assert!(found.len() <= 1);
    for entry in found {
        assert_eq!(entry.expect("what is torn counts as absent").name, "a.csv");
    }
}

fn manifest(bytes: &[u8]) {
    let folder = scratch();
    let path = folder.path().join("manifest.json");
    fs::write(&path, bytes).expect("a file");
    let Ok(manifest) = Manifest::open(&path) else { return };
    let mut has_failed = false;
    for entry in manifest {
        assert!(!has_failed, "an error is the last item");
        has_failed = entry.is_err();
    }
    // What other readers of JSON refuse is not read to its end.
    if serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_err() {
        assert!(has_failed);
    }
}

fn sums(bytes: &[u8]) {
    let Ok(sums) = Sums::read(bytes) else { return };
    let mut list = String::new();
    for (name, digest) in sums.iter() {
        assert_eq!(sums.get(name), Some(digest));
        let escaped = name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
        let mark = if escaped == name { "" } else { "\\" };
        list += &format!("{mark}{}  ./{escaped}\n", digest.to_hex());
    }
    let again = Sums::read(list.as_bytes()).unwrap_or_else(|error| panic!("{error}: {list:?}"));
    assert_eq!(again, sums);
}

fn report(bytes: &[u8]) {
    let Ok(report) = RunReport::parse(bytes) else { return };
    let json = serde_json::to_vec(&report).expect("a report is JSON");
    let again = RunReport::parse(&json).unwrap_or_else(|error| panic!("{error}: {}", json.escape_ascii()));
    assert_eq!(serde_json::to_vec(&again).expect("a report is JSON"), json);
    let _ = report.compare(&again);
}

fn note(bytes: &[u8]) {
    let seal = |bytes: &[u8]| [bytes, &<Sha256 as sha2::Digest>::digest(bytes)[..]].concat();
    assert_eq!(rewrite_upload_note(bytes).and_then(|bytes| rewrite_upload_note(&bytes)), rewrite_upload_note(bytes));
    if let Some(note) = rewrite_upload_note(&seal(bytes)) {
        assert_eq!(rewrite_upload_note(&note).as_ref(), Some(&note));
    }
}

/// Short texts that are parsed, and printed as what they are.
fn texts(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(place) = text.parse::<bulk_archive::Checkpoint>() {
        assert_eq!(place.to_string().parse(), Ok(place));
    }
    if let Ok(limit) = text.parse::<RateLimit>() {
        assert_eq!(limit.to_string().parse(), Ok(limit), "{text:?}");
    }
    for algorithm in [Algorithm::Md5, Algorithm::Crc64Nvme, Algorithm::Sha256] {
        if let Ok(digest) = Digest::from_hex(algorithm, text) {
            assert_eq!(digest.to_hex(), text.to_ascii_lowercase());
        }
        if let Ok(digest) = Digest::from_base64(algorithm, text) {
            assert_eq!(digest.to_base64(), text);
        }
    }
    if let Ok(pattern) = text.parse::<DatePattern>() {
        let _ = pattern.find(text);
    }
    if let Some(name) = DatedName::parse(text) {
        assert!(text.contains(name.base));
    }
}
