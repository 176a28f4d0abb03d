//! The manifest and checksum lists: written, read back, and held against a folder.

use std::error::Error as _;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bulk_core::{
    Algorithm, BadLine, Digest, ETag, Error, Event, Expected, Manifest, ManifestEntry, Sums, Verdict, Verified,
    VerifyOptions, verify_files, verify_folder, write_manifest,
};
use proptest::prelude::*;
use tempfile::TempDir;

fn entry(name: &str, bytes: &[u8]) -> ManifestEntry {
    let mut entry = ManifestEntry::new(name, bytes.len() as u64);
    entry.digest = Some(Digest::of(Algorithm::Crc64Nvme, bytes));
    entry
}

fn write(folder: &Path, entries: &[ManifestEntry]) {
    write_manifest(folder, entries.iter().cloned().map(Ok)).unwrap();
}

fn read(folder: &Path) -> Result<Vec<ManifestEntry>, Error> {
    Manifest::open(folder.join("manifest.json"))?.collect()
}

fn text(folder: &Path) -> String {
    fs::read_to_string(folder.join("manifest.json")).unwrap()
}

/// The message of what lies under an [`Error::Io`].
fn cause(error: &Error) -> String {
    error.source().unwrap().to_string()
}

fn options(threads: usize) -> VerifyOptions {
    let mut options = VerifyOptions::default();
    options.threads = threads;
    options
}

#[test]
fn the_manifest_is_json_with_a_sorted_line_for_each_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = entry("b/ü\n", b"123456789");
    first.key = "data/b".into();
    first.etag = Some(ETag::new("\"abc-3\""));
    first.fetched_at = Some("2024-05-06T07:08:09.5Z".parse().unwrap());
    let entries = [first.clone(), ManifestEntry::new("b.c", 0), ManifestEntry::new("B", 7)];
    write(folder.path(), &entries);
    // "." sorts before "/": it is the name's bytes that count, not its parts.
    let expected = r#"[
{"name":"B","key":"B","size":7},
{"name":"b.c","key":"b.c","size":0},
{"name":"b/ü\n","key":"data/b","etag":"abc-3","size":9,"digest":"crc64nvme:rosUhgp5mIg=","fetched_at":"2024-05-06T07:08:09.5Z"}
]
"#;
    assert_eq!(text(folder.path()), expected);
    assert_eq!(read(folder.path()).unwrap(), [ManifestEntry::new("B", 7), ManifestEntry::new("b.c", 0), first]);

    // Equal records give equal bytes, and nothing else is left behind.
    let mut reversed = entries.to_vec();
    reversed.reverse();
    write(folder.path(), &reversed);
    assert_eq!(text(folder.path()), expected);
    assert_eq!(fs::read_dir(folder.path().join(".bulk")).unwrap().count(), 0);
}

#[test]
fn a_manifest_of_nothing() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[]);
    assert_eq!(text(folder.path()), "[\n]\n");
    assert_eq!(read(folder.path()).unwrap(), []);
    assert_eq!(verify_folder(folder.path(), options(2)).unwrap().count(), 0);
}

#[test]
fn more_records_than_are_sorted_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let name = |n: u32| format!("{:08x}/{}", n.wrapping_mul(2_654_435_761), "x".repeat(3000));
    let records = (0..8000).map(|n| Ok(ManifestEntry::new(name(n), n.into())));
    write_manifest(folder.path(), records).unwrap();
    let mut expected: Vec<(String, u64)> = (0..8000).map(|n| (name(n), n.into())).collect();
    expected.sort();
    let found = Manifest::open(folder.path().join("manifest.json")).unwrap();
    let found: Vec<(String, u64)> = found.map(Result::unwrap).map(|entry| (entry.name, entry.size)).collect();
    assert!(found == expected);
    let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [".bulk", "manifest.json"]);
}

#[test]
fn a_failure_leaves_the_older_manifest_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[ManifestEntry::new("old", 1)]);
    let before = text(folder.path());
    let fails = |records: Vec<Result<ManifestEntry, Error>>| {
        let error = write_manifest(folder.path(), records).unwrap_err();
        assert_eq!(text(folder.path()), before);
        assert_eq!(fs::read_dir(folder.path().join(".bulk")).unwrap().count(), 0);
        error.to_string()
    };
    let ok = |name: &str| Ok(ManifestEntry::new(name, 1));
    let gone = Err(Error::NotFound { location: "there".into() });
    assert_eq!(fails(vec![ok("new"), gone]), "there does not exist");

    assert_eq!(fails(vec![ok("../a")]), "\"../a\" cannot be staged: it leaves the folder");
    assert_eq!(fails(vec![ok("manifest.json")]), "\"manifest.json\" cannot be staged: it is the manifest's");
}

#[test]
fn of_records_with_one_name_the_latest_counts() {
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str, size, second: Option<i64>| {
        let mut entry = ManifestEntry::new(name, size);
        entry.fetched_at = second.map(|second| jiff::Timestamp::from_second(second).unwrap());
        entry
    };
    let later = [of("a", 1, Some(2)), of("b", 2, None), of("a", 3, Some(1)), of("b", 4, None), of("c", 5, None)];
    write(folder.path(), &later);
    let sizes = |folder: &Path| {
        Manifest::open(folder.join("manifest.json")).unwrap().map(|e| e.unwrap().size).collect::<Vec<_>>()
    };
    assert_eq!(sizes(folder.path()), [1, 4, 5]);
    // Also where they are sorted in files.
    let name = |n: u32| format!("{n:05}{}", "x".repeat(1000));
    let many: Vec<_> = (0..60_000u32).map(|n| of(&name(n % 20_000), u64::from(n), None)).collect();
    write(folder.path(), &many);
    assert_eq!(sizes(folder.path()), (40_000..60_000).collect::<Vec<u64>>());
}

#[test]
fn a_manifest_that_is_cut_anywhere_ends_in_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let entries = [entry("a", b"1"), entry("b", b"22"), entry("c", b"333")];
    write(folder.path(), &entries);
    let whole = text(folder.path());
    let last = whole.trim_end().len();
    for len in 0..last {
        fs::write(folder.path().join("manifest.json"), &whole[..len]).unwrap();
        let manifest = Manifest::open(folder.path().join("manifest.json"));
        let Ok(manifest) = manifest else {
            assert_eq!(len, 0);
            continue;
        };
        let items: Vec<_> = manifest.collect();
        let (end, before) = items.split_last().unwrap();
        assert!(matches!(end, Err(Error::Io { .. })), "cut to {len} bytes");
        for (found, expected) in before.iter().zip(&entries) {
            assert_eq!(found.as_ref().unwrap(), expected);
        }
    }
    fs::write(folder.path().join("manifest.json"), &whole[..last]).unwrap();
    assert_eq!(read(folder.path()).unwrap(), entries);
}

#[test]
fn any_layout_is_read_and_what_is_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("manifest.json");
    fs::write(&path, " [ {\"size\": 1, \"more\": [{}], \"key\": \"k\",\r\n \"name\": \"n\"}\t,{\"name\":\"m\",\"key\":\"k\",\"size\":2}]").unwrap();
    let names: Vec<String> = read(folder.path()).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["n", "m"]);

    let one = r#"{"name":"n","key":"k","size":1}"#;
    for (text, reason) in [
        (String::new(), "it is cut short"),
        ("{}".into(), "it is no JSON array"),
        (format!("[{one}] x"), "something follows its end"),
        (format!("[{one}]\x0c"), "something follows its end"),
        (format!("[{one} {one}]"), "no comma follows entry 1"),
        (format!("[{one},]"), "entry 2: expected value at line 1 column 1"),
        (format!("[{one},{{}}]"), "entry 2: missing field `name` at line 1 column 2"),
        (format!("[{one}"), "it is cut short"),
    ] {
        fs::write(&path, &text).unwrap();
        assert_eq!(cause(&read(folder.path()).unwrap_err()), reason, "{text}");
    }
    // A digest that is none.
    fs::write(&path, r#"[{"name":"n","key":"k","size":1,"digest":"md5:00"}]"#).unwrap();
    let error = cause(&read(folder.path()).unwrap_err());
    assert!(error.starts_with("entry 1: \"00\" is not a digest: its length is not the algorithm's"), "{error}");
    // An entry without end does not fill the memory.
    fs::write(&path, format!("[{{\"name\":\"{}", "x".repeat(2 << 20))).unwrap();
    let error = cause(&read(folder.path()).unwrap_err());
    assert!(error.starts_with("entry 1: EOF while parsing a string"), "{error}");
    fs::remove_file(&path).unwrap();
    let Err(Error::Io { source, .. }) = verify_folder(folder.path(), options(1)) else { panic!("it opens") };
    assert_eq!(source.kind(), io::ErrorKind::NotFound);
}

/// A folder with a file for each verdict, and its manifest.
fn damaged() -> (TempDir, Vec<(String, Verdict)>) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let names = ["altered", "folder", "gone", "good", "grown", "in/deep", "plain", "shrunk", "under/file"];
    let mut entries: Vec<ManifestEntry> = names.iter().map(|name| entry(name, name.as_bytes())).collect();
    entries[6].digest = None;
    write(folder.path(), &entries);
    fs::create_dir_all(path("in")).unwrap();
    fs::create_dir_all(path("folder")).unwrap();
    fs::write(path("altered"), "Altered").unwrap();
    fs::write(path("good"), "good").unwrap();
    fs::write(path("grown"), "grown!").unwrap();
    fs::write(path("in/deep"), "in/deep").unwrap();
    fs::write(path("plain"), "plane").unwrap();
    fs::write(path("shrunk"), "").unwrap();
    fs::write(path("under"), "").unwrap();
    fs::write(path("unlisted"), "x").unwrap();
    let verdicts = [
        Verdict::DigestDiffers {
            expected: Digest::of(Algorithm::Crc64Nvme, b"altered"),
            found: Digest::of(Algorithm::Crc64Nvme, b"Altered"),
        },
        Verdict::Missing,
        Verdict::Missing,
        Verdict::Ok,
        Verdict::SizeDiffers { expected: 5, found: 6 },
        Verdict::Ok,
        Verdict::Unverifiable,
        Verdict::SizeDiffers { expected: 6, found: 0 },
        Verdict::Missing,
    ];
    let expected = names.iter().map(|name| (*name).to_owned()).zip(verdicts).collect();
    (folder, expected)
}

#[test]
fn every_verdict_comes_in_the_manifests_order() {
    let (folder, expected) = damaged();
    for threads in [0, 1, 2, 16] {
        let verified = verify_folder(folder.path(), options(threads)).unwrap();
        let found: Vec<_> = verified.map(|file| file.unwrap()).map(|file| (file.name, file.verdict.unwrap())).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn many_files_of_all_algorithms_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = |n: usize| vec![n as u8; n * 331 % 300_000];
    let mut expected = Vec::new();
    let mut total = 0;
    for n in 0..1500 {
        let name = format!("{n:04}");
        fs::write(folder.path().join(&name), bytes(n)).unwrap();
        total += bytes(n).len() as u64;
        let digest = Some(Digest::of(Algorithm::ALL[n % 5], &bytes(n)));
        expected.push(Expected { name, size: None, digest });
    }
    let read = Arc::new(AtomicU64::new(0));
    let counter = read.clone();
    let mut options = options(4);
    options.observer = Arc::new(move |event: &Event<'_>| {
        if let Event::Progress { bytes, .. } = event {
            counter.fetch_add(*bytes, Ordering::Relaxed);
        }
    });
    let verified = verify_files(folder.path(), expected.into_iter().map(Ok), options);
    for (n, file) in verified.enumerate() {
        let Verified { name, verdict, .. } = file.unwrap();
        assert_eq!((name, verdict.unwrap()), (format!("{n:04}"), Verdict::Ok));
    }
    assert_eq!(read.load(Ordering::Relaxed), total);
}

#[test]
fn what_cannot_be_checked_does_not_end_the_check() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("good"), "good").unwrap();
    let file = |name: &str| {
        Ok(Expected { name: name.into(), size: None, digest: Some(Digest::of(Algorithm::Sha256, b"good")) })
    };
    let broken = Err(Error::NotFound { location: "the rest".into() });
    let expected =
        vec![file("../good"), file("/etc/hostname"), file(&"x".repeat(300)), file("good"), broken, file("good")];
    let mut verified = verify_files(folder.path(), expected, options(2));
    let mut next = || verified.next().map(|file| file.map(|file| file.verdict));
    assert!(matches!(next(), Some(Ok(Err(Error::Name { name, .. }))) if name == "../good"));
    assert!(matches!(next(), Some(Ok(Err(Error::Name { name, .. }))) if name == "/etc/hostname"));
    assert!(matches!(next(), Some(Ok(Err(Error::Io { action: "read", .. })))));
    assert!(matches!(next(), Some(Ok(Ok(Verdict::Ok)))));
    assert!(matches!(next(), Some(Err(Error::NotFound { .. }))));
    assert!(next().is_none());
    assert!(next().is_none());
}

#[test]
fn a_manifest_that_breaks_off_ends_the_check_with_an_error() {
    let (folder, expected) = damaged();
    let text = text(folder.path());
    fs::write(folder.path().join("manifest.json"), &text[..text.len() / 2]).unwrap();
    let mut items: Vec<_> = verify_folder(folder.path(), options(2)).unwrap().collect();
    assert!(matches!(items.pop(), Some(Err(Error::Io { .. }))));
    assert!(!items.is_empty());
    for (found, expected) in items.into_iter().zip(expected) {
        assert_eq!(found.unwrap().name, expected.0);
    }
}

#[test]
fn an_observer_that_panics_costs_the_verdicts_and_hangs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "a").unwrap();
    let mut options = options(2);
    options.observer = Arc::new(|_: &Event<'_>| std::panic::resume_unwind(Box::new("the observer")));
    let digest = Some(Digest::of(Algorithm::Crc32, b"a"));
    let expected = (0..5).map(move |_| Ok(Expected { name: "a".into(), size: Some(1), digest }));
    let verified = verify_files(folder.path(), expected, options);
    let verdicts: Vec<_> = verified.map(|file| file.unwrap().verdict).collect();
    assert_eq!(verdicts.len(), 5);
    assert!(verdicts.iter().all(|verdict| matches!(verdict, Err(Error::Interrupted { .. }))), "{verdicts:?}");
}

#[test]
fn an_endless_list_is_read_no_further_than_the_window() {
    let folder = tempfile::tempdir().unwrap();
    let asked = Arc::new(AtomicU64::new(0));
    let counter = asked.clone();
    let expected = std::iter::repeat_with(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(Expected { name: "a".into(), size: None, digest: None })
    });
    let mut verified = verify_files(folder.path(), expected, options(2));
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    for _ in 0..10 {
        assert_eq!(verified.next().unwrap().unwrap().verdict.unwrap(), Verdict::Missing);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1024 + 9);
}

#[test]
#[cfg(target_os = "linux")]
fn the_lists_of_the_tools_are_read_as_they_write_them() {
    use std::process::Command;
    let folder = tempfile::tempdir().unwrap();
    let names = ["plain", "two words", " *odd", "a(b) = c", "back\\slash", "line\nfeed", "re\rturn", "ü", "sub/in"];
    fs::create_dir(folder.path().join("sub")).unwrap();
    for name in names {
        fs::write(folder.path().join(name), format!("of {name}")).unwrap();
    }
    let run = |tool: &str, args: &[&str], names: &[&str]| {
        let output = Command::new(tool).args(args).args(names).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{tool} {args:?}");
        output.stdout
    };
    for (tool, args, algorithm) in [
        ("sha256sum", &[][..], Algorithm::Sha256),
        ("sha256sum", &["--binary"], Algorithm::Sha256),
        ("sha256sum", &["--tag"], Algorithm::Sha256),
        ("md5sum", &[], Algorithm::Md5),
        ("md5sum", &["--binary"], Algorithm::Md5),
        ("md5sum", &["--tag"], Algorithm::Md5),
    ] {
        let list = run(tool, args, &names);
        let sums = Sums::read(&list[..]).unwrap();
        let expected = names.map(|name| (name, Digest::of(algorithm, format!("of {name}").as_bytes())));
        let mut expected = expected.to_vec();
        expected.sort_by_key(|(name, _)| *name);
        assert_eq!(sums.iter().collect::<Vec<_>>(), expected, "{tool} {args:?}");
        let verified = verify_files(folder.path(), sums.expected(), options(2));
        let verdicts: Vec<_> = verified.map(|file| file.unwrap().verdict.unwrap()).collect();
        assert_eq!(verdicts, [Verdict::Ok; 9], "{tool} {args:?}");
    }
}

#[test]
fn each_form_of_a_line() {
    let md5 = "d41d8cd98f00b204e9800998ecf8427e";
    let sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let (of_md5, of_sha256) = (Digest::of(Algorithm::Md5, b""), Digest::of(Algorithm::Sha256, b""));
    for (line, name, digest) in [
        (format!("{md5}  a"), "a", of_md5),
        (format!("{md5} *a\r\n"), "a", of_md5),
        (format!("{} a", md5.to_uppercase()), "a", of_md5),
        (format!("{md5}\ta"), "a", of_md5),
        (format!("{sha256}  ././a/b c\n\n# {md5}  x\n"), "a/b c", of_sha256),
        (format!("{sha256}  a (b) = c"), "a (b) = c", of_sha256),
        (format!("{sha256}  a\\nb"), "a\\nb", of_sha256),
        (format!("\\{sha256}  a\\nb\\\\n\\r"), "a\nb\\n\r", of_sha256),
        (format!("MD5 (a) = {md5}"), "a", of_md5),
        (format!("\\MD5 (a\\nb) = {md5}"), "a\nb", of_md5),
        (format!("SHA256 (a) = (b)) = {sha256}\n"), "a) = (b)", of_sha256),
        (format!("SHA256(a)= {sha256}\n"), "a", of_sha256),
        (format!("SHA2-256(a)= {sha256}\n"), "a", of_sha256),
        (format!("MD5 (a) = {md5}\nSHA256 (a) = {sha256}\nMD5 (a) = {md5}\n"), "a", of_sha256),
        // Nothing keeps a list from naming what is outside; it is refused where it is used.
        (format!("{md5}  ../../etc/passwd"), "../../etc/passwd", of_md5),
    ] {
        let sums = Sums::read(line.as_bytes()).unwrap();
        assert_eq!(sums.iter().collect::<Vec<_>>(), [(name, digest)], "{line:?}");
        assert_eq!((sums.get(name), sums.get("b"), sums.len()), (Some(digest), None, 1));
    }
    assert!(Sums::read(&b""[..]).unwrap().is_empty());
}

#[test]
fn bad_lines_are_named_with_their_number() {
    let md5 = "d41d8cd98f00b204e9800998ecf8427e";
    let other = "d41d8cd98f00b204e9800998ecf8427f";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("MD5SUMS");
    for (line, reason) in [
        (md5.to_owned(), "it is not a digest and a name"),
        ("<html>".into(), "it is not a digest and a name"),
        ("not found here".into(), "it is not a digest and a name"),
        (format!("{md5} "), "it names no file"),
        (format!("{md5}  ./"), "it names no file"),
        (format!("{}  a", &md5[1..]), "its digest is as long as neither MD5 nor SHA-256"),
        ("da39a3ee5e6b4b0d3255bfef95601890afd80709  a".into(), "its digest is as long as neither MD5 nor SHA-256"),
        (format!("{}g  a", &md5[1..]), "it is not hexadecimal"),
        ("SHA1 (a) = da39a3ee5e6b4b0d3255bfef95601890afd80709".into(), "its algorithm is neither MD5 nor SHA-256"),
        (format!("SHA256 (a) = {md5}"), "its length is not the algorithm's"),
        (format!("\\{md5}  a\\b"), "its name has a backslash that escapes nothing"),
        (format!("\\{md5}  a\\"), "its name has a backslash that escapes nothing"),
        (format!("{other}  good"), "the file has two different digests"),
        (format!("{md5}  {}", "x".repeat(16 << 10)), "it is longer than 16 KiB"),
    ] {
        fs::write(&path, format!("# a list\n{md5}  good\n{line}\n{md5}  after\n")).unwrap();
        let error = Sums::open(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read {}", path.display()));
        assert_eq!(cause(&error), format!("line 3: {reason}"), "{line}");
        let Error::Io { source, .. } = &error else { panic!("{error:?}") };
        let bad = source.get_ref().unwrap().downcast_ref::<BadLine>().unwrap();
        assert_eq!((source.kind(), bad.line, bad.reason), (io::ErrorKind::InvalidData, 3, reason));
    }
    let error = Sums::read(&b"\xff"[..]).unwrap_err();
    assert_eq!(error.to_string(), "line 1: it is not UTF-8");
}

#[test]
fn lists_are_merged_and_the_stronger_digest_counts() {
    let list = |text: String| Sums::read(text.as_bytes()).unwrap();
    let (md5, sha256) = (Digest::of(Algorithm::Md5, b"x"), Digest::of(Algorithm::Sha256, b"x"));
    let mut sums = list(format!("{}  a\n{}  b\n", sha256.to_hex(), md5.to_hex()));
    sums.merge(list(format!("{}  a\n{}  b\n{}  c\n", md5.to_hex(), sha256.to_hex(), md5.to_hex()))).unwrap();
    assert_eq!(sums.iter().collect::<Vec<_>>(), [("a", sha256), ("b", sha256), ("c", md5)]);
    let error = sums.merge(list(format!("{}  c\n", Digest::of(Algorithm::Md5, b"y").to_hex()))).unwrap_err();
    assert!(matches!(error, Error::Name { name, .. } if name == "c"));
}

proptest! {
    #[test]
    fn no_list_makes_the_reader_panic(text in r"(\\?(MD5 |SHA256)?[(]?([0-9a-f]{32}|[0-9a-f]{64})?[ *]{0,3}.{0,9}(\) = )?[0-9a-f]{0,64}\n){0,4}") {
        if let Err(error) = Sums::read(text.as_bytes()) {
            prop_assert!(error.get_ref().unwrap().is::<BadLine>());
        }
    }

    #[test]
    fn what_is_written_is_read(names in prop::collection::btree_set("[^/\0.]{1,8}(/[^/\0.]{1,3})?", 0..20), size: u64) {
        let folder = tempfile::tempdir().unwrap();
        let entries: Vec<ManifestEntry> = names.iter().map(|name| ManifestEntry::new(name, size)).collect();
        write_manifest(folder.path(), entries.iter().rev().cloned().map(Ok)).unwrap();
        prop_assert_eq!(read(folder.path()).unwrap(), entries);
    }
}
