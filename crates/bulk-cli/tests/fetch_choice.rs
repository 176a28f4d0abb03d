//! Which files `bulk fetch` takes, in which order, how it checks them, and what it makes of them: from the outside.

mod support;

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, RwLock};

use bulk_testkit::s3::{Object, Store};
use support::{BUCKET, Fetch, Ran, bulk, files, kill_when};

/// One connection, so that what is asked for comes in one order.
fn fetch_from(store: Store) -> Fetch {
    Fetch::new(store, &["--jobs", "1"])
}

/// Writes a file beside the folder of the fetch.
fn write(fetch: &Fetch, name: &str, text: impl AsRef<[u8]>) -> String {
    let path = fetch.folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.into_os_string().into_string().unwrap()
}

fn names(fetch: &Fetch) -> Vec<String> {
    files(&fetch.out()).into_keys().collect()
}

fn three() -> Fetch {
    fetch_from(
        Store::memory().with("data/b.csv", "id\n").with("data/a.csv", "id\n1\n2\n").with("data/x/c.txt", "id\n1\n"),
    )
}

#[test]
fn files_are_asked_for_in_the_order_that_is_wanted() {
    let fetch = three();
    let list = write(&fetch, "order", "x/c.txt\r\ndata/b.csv\n\nabsent\n");
    let reversed = format!("{list}:desc");
    let cases: [(&str, [&str; 3]); 9] = [
        ("size", ["a.csv", "x/c.txt", "b.csv"]),
        ("size:desc", ["a.csv", "x/c.txt", "b.csv"]),
        ("size:asc", ["b.csv", "x/c.txt", "a.csv"]),
        ("name", ["a.csv", "b.csv", "x/c.txt"]),
        ("name:desc", ["x/c.txt", "b.csv", "a.csv"]),
        ("listed", ["a.csv", "b.csv", "x/c.txt"]),
        ("listed:desc", ["x/c.txt", "b.csv", "a.csv"]),
        (&list, ["x/c.txt", "b.csv", "a.csv"]),
        (&reversed, ["b.csv", "x/c.txt", "a.csv"]),
    ];
    for (order, expected) in cases {
        let ran = fetch.fetch(&["--order", order]);
        ran.assert(0, &[]);
        assert_eq!(ran.stderr.contains("absent: the order has it"), order.starts_with(&list), "{}", ran.stderr);
        assert_eq!(fetch.asked(), expected, "{order}");
        std::fs::remove_dir_all(fetch.out()).unwrap();
    }
}

#[test]
fn globs_choose_by_the_name_below_the_prefix() {
    let fetch = three();
    let cases: [(&[&str], &[&str]); 5] = [
        (&["--include", "*.csv"], &["a.csv", "b.csv"]),
        (&["--include", "a*", "--include", "x/*"], &["a.csv", "x/c.txt"]),
        (&["--exclude", "*.csv"], &["x/c.txt"]),
        (&["--include", "*.{csv,txt}", "--exclude", "b*", "--exclude", "x/*"], &["a.csv"]),
        (&["--include", "data/*", "--include", "[ab].csv"], &["a.csv", "b.csv"]),
    ];
    for (flags, expected) in cases {
        fetch.fetch(&[flags, &["--order", "name"]].concat()).assert(0, &[]);
        assert_eq!(fetch.asked(), expected, "{flags:?}");
        std::fs::remove_dir_all(fetch.out()).unwrap();
    }
    fetch.fetch(&["--include", "nothing"]).assert(1, &["none of the files is chosen"]);
}

#[test]
fn the_newest_is_told_by_the_pattern() {
    let fetch = fetch_from(
        Store::memory()
            .with("data/a_202605.csv", "a\n")
            .with("data/a_202606.csv", "b\n")
            .with("data/b-2026-05-31.csv", "c\n")
            .with("data/b-2026-06-30.csv", "d\n"),
    );
    let cases: [(&[&str], &[&str]); 4] = [
        (&[], &["a_202605.csv", "a_202606.csv", "b-2026-06-30.csv"]),
        (&["--date-pattern", "_YYYYMM"], &["a_202606.csv", "b-2026-05-31.csv", "b-2026-06-30.csv"]),
        (&["--exclude", "*06*"], &["a_202605.csv", "b-2026-05-31.csv"]),
        (&["--all-dates"], &["a_202605.csv", "a_202606.csv", "b-2026-05-31.csv", "b-2026-06-30.csv"]),
    ];
    for (flags, expected) in cases {
        fetch.fetch(&[flags, &["--order", "name"]].concat()).assert(0, &[]);
        assert_eq!(fetch.asked(), expected, "{flags:?}");
        std::fs::remove_dir_all(fetch.out()).unwrap();
    }
}

#[test]
fn a_list_says_which_files_and_names_those_that_are_not_there() {
    let fetch = three();
    let mut command = fetch.command(&["--files-from", "-", "--order", "listed"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"x/c.txt\ndata/a.csv\nabsent.csv\nx/c.txt\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("absent.csv: there is no such file at"), "{stderr}");
    assert_eq!(fetch.asked(), ["x/c.txt", "a.csv"]);

    // Below a URL there is no listing, and a list is all it needs.
    let list = write(&fetch, "list", "b.csv\nx/c.txt\nabsent.csv\n");
    let mut command =
        bulk(["fetch", &fetch.server.object_url(BUCKET, "data"), "--files-from", &list, "--order", "listed"]);
    command.args(["--jobs", "1", "--out"]).arg(fetch.folder.path().join("web"));
    Ran::of(command).assert(3, &["data/absent.csv does not exist"]);
    assert_eq!(fetch.asked(), ["b.csv", "x/c.txt", "absent.csv"]);
    assert_eq!(files(&fetch.folder.path().join("web"))["x/c.txt"], b"id\n1\n");
}

#[test]
fn wrong_arguments_are_told_before_anything_is_asked() {
    let fetch = three();
    let list = write(&fetch, "list", "nonsense\n");
    let cases: [(&[&str], &str); 13] = [
        (&["--order", "fastest"], "neither size, name or listed nor a file"),
        (&["--date-pattern", "MM-DD"], "it has no YYYY"),
        (&["--include", "[a"], "--include"),
        (&["--files-from", "/absent"], "--files-from /absent"),
        (&["--sums", "/absent"], "--sums /absent"),
        (&["--sums", &list], "line 1"),
        (&["--reserve", "many"], "a size is a number with a unit"),
        (&["--segment", "0"], "more than nothing"),
        (&["--disk-wait", "5"], "a time is a number with a unit"),
        (&["--keep-archives"], "--extract"),
        (&["--extract", "--max-ratio", "0.1"], "a ratio is a number from 1 on"),
        (&["--extract", "--max-entries", "few"], "--max-entries"),
        (&["--verify"], "cannot be used with"),
    ];
    for (flags, said) in cases {
        fetch.fetch(flags).assert(2, &[said]);
    }
    assert_eq!(fetch.server.requests().len(), 0);
    Ran::of(bulk(["fetch", "--verify", "--out", "/absent"])).assert(1, &["/absent/manifest.json"]);
}

#[test]
fn a_folder_is_verified_against_its_manifest() {
    let fetch = three();
    fetch.fetch(&["--sha256"]).assert(0, &[]);
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(fetch.out().join("manifest.json")).unwrap()).unwrap();
    let entries: Vec<_> =
        manifest.as_array().unwrap().iter().map(|entry| (entry["name"].clone(), entry["digest"].clone())).collect();
    // sha256sum of the same bytes.
    assert_eq!(entries[1].0, "b.csv");
    assert_eq!(entries[1].1, format!("sha256:{}", sha256sum(&fetch.out().join("b.csv"))));
    fetch.verify(&[]).assert(0, &["3 files", "all are what they were"]);

    std::fs::write(fetch.out().join("b.csv"), "ix\n").unwrap();
    std::fs::write(fetch.out().join("a.csv"), "id\n").unwrap();
    std::fs::remove_file(fetch.out().join("x/c.txt")).unwrap();
    let ran = fetch.verify(&[]);
    ran.assert(7, &["a.csv: it has 3 bytes, and had 7", "b.csv: its bytes differ", "x/c.txt: it is missing"]);
    let ran = fetch.verify(&["--json"]);
    assert_eq!(ran.status, Some(7));
    let checks: Vec<_> =
        ran.events_of("check").into_iter().map(|event| format!("{} {}", event["file"], event["verdict"])).collect();
    assert_eq!(checks, [r#""a.csv" "size""#, r#""b.csv" "digest""#, r#""x/c.txt" "missing""#]);
}

/// As coreutils has it.
fn sha256sum(path: &std::path::Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn what_a_checksum_list_says_otherwise_is_named() {
    let fetch = three();
    fetch.fetch(&[]).assert(0, &[]);
    let good = sha256sum(&fetch.out().join("a.csv"));
    let list = write(&fetch, "SHA256SUMS", format!("{good}  a.csv\n{good}  x/c.txt\n"));
    // Also of files that were there.
    for says in ["its checksum list says", "its content is expected to have"] {
        let ran = fetch.fetch(&["--sums", &list]);
        ran.assert(7, &[&format!("x/c.txt differs: {says} sha256:{good}"), "b.csv: no checksum list names it"]);
        assert!(!ran.stderr.contains("a.csv differs"), "{}", ran.stderr);
        if says.contains("list") {
            std::fs::remove_dir_all(fetch.out()).unwrap();
        }
    }
    // What is fetched and differs does not get its name, and is in no list of what is good.
    assert_eq!(names(&fetch), ["a.csv", "b.csv", "manifest.json"]);
    fetch.fetch(&["--sums", &list, "--include", "a.csv"]).assert(0, &[]);
}

#[test]
fn an_etag_of_parts_is_compared_if_the_parts_can_be_guessed() {
    let bytes: Vec<u8> = (0..=255).cycle().take(9 << 20).collect();
    let fetch = fetch_from(
        Store::memory()
            .with("data/known.csv", Object::new(bytes.clone()).multipart_etag(8 << 20))
            .with("data/unknown.csv", Object::new(bytes).etag("d41d8cd98f00b204e9800998ecf8427e-2")),
    );
    let ran = fetch.fetch(&["--check-multipart", "-v"]);
    let part = 8 << 20;
    ran.assert(
        0,
        &[&format!("known.csv: as its ETag says, in parts of {part} bytes"), "unknown.csv: its ETag is of parts"],
    );
}

fn bzip2(text: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// A tar as the system's program makes it.
fn tar_gz(members: &[(&str, &str)]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in members {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let output = Command::new("tar").args(["czf", "-", "-C"]).arg(folder.path()).arg(".").output().unwrap();
    output.stdout
}

#[test]
fn archives_are_extracted_and_known_to_be() {
    let fetch = fetch_from(
        Store::memory()
            .with("data/x/rows.csv.bz2", bzip2(b"id\n1\n"))
            .with("data/set.tar.gz", tar_gz(&[("a", "first\n"), ("b", "second\n")]))
            .with("data/plain.csv", "id\n"),
    );
    fetch.fetch(&["--extract"]).assert(0, &["set/: 2 files, 13 B", "x/rows.csv: 1 file, 5 B"]);
    let expected = ["manifest.json", "plain.csv", "set/a", "set/b", "x/rows.csv"];
    assert_eq!(names(&fetch), expected);
    assert_eq!(files(&fetch.out())["set/b"], b"second\n");
    fetch.verify(&[]).assert(0, &["4 files"]);
    fetch.asked();

    fetch.fetch(&["--extract"]).assert(0, &["2 of 3 files had been extracted", "0 B fetched"]);
    assert_eq!(fetch.asked(), [""; 0]);
    assert_eq!(names(&fetch), expected);

    // Of what changed, and of what is gone, the archive is fetched again.
    fetch.server.put(BUCKET, "data/x/rows.csv.bz2", bzip2(b"id\n2\n")).unwrap();
    std::fs::remove_dir_all(fetch.out().join("set")).unwrap();
    fetch.fetch(&["--extract", "--keep-archives", "--order", "name"]).assert(0, &[]);
    assert_eq!(fetch.asked(), ["set.tar.gz", "x/rows.csv.bz2"]);
    assert_eq!(files(&fetch.out())["x/rows.csv"], b"id\n2\n");
    let kept = ["manifest.json", "plain.csv", "set.tar.gz", "set/a", "set/b", "x/rows.csv", "x/rows.csv.bz2"];
    assert_eq!(names(&fetch), kept);
    fetch.verify(&[]).assert(0, &["6 files"]);
}

#[test]
fn archives_beyond_a_limit_or_damaged_are_named_and_the_others_extracted() {
    let zeros = bzip2(&vec![0; 100 << 20]);
    let mut torn = bzip2(b"id\n1\n");
    torn.truncate(torn.len() - 4);
    let fetch = fetch_from(
        Store::memory()
            .with("data/bomb.csv.bz2", zeros)
            .with("data/many.tar.gz", tar_gz(&[("a", ""), ("b", ""), ("c", "")]))
            .with("data/torn.csv.bz2", torn)
            .with("data/good.csv.bz2", bzip2(b"id\n")),
    );
    let said = [
        "bomb.csv.bz2: more than 1000 bytes for each",
        "many.tar.gz: more than 3 members",
        "torn.csv.bz2: bzip2 data cut short",
    ];
    fetch.fetch(&["--extract", "--max-entries", "3"]).assert(3, &said);
    let there = names(&fetch).into_iter().filter(|name| !name.starts_with("many/")).collect::<Vec<_>>();
    assert_eq!(there, ["bomb.csv.bz2", "good.csv", "manifest.json", "many.tar.gz"]);
    fetch.fetch(&["--extract", "--max-extracted", "2B", "--include", "good*", "--all-dates"]).assert(0, &[]);
    let other = fetch_from(Store::memory().with("data/good.csv.bz2", bzip2(b"id\n")));
    other.fetch(&["--extract", "--max-extracted", "2B"]).assert(1, &["good.csv.bz2: more than 2 bytes"]);
    let twice = fetch_from(Store::memory().with("data/a.csv.bz2", bzip2(b"id\n")).with("data/a.csv", "id\n"));
    twice.fetch(&["--extract"]).assert(2, &["would both be extracted to a.csv"]);
}

#[test]
fn killed_between_two_extractions_it_goes_on_with_the_second() {
    let gate = Arc::new(RwLock::new(()));
    let closed = gate.write().unwrap();
    let behind = gate.clone();
    let second = bzip2(b"id\n2\n");
    let bytes = second.clone();
    let held = Object::generated(second.len() as u64, move |offset, chunk| {
        drop(behind.read().unwrap());
        chunk.copy_from_slice(&bytes[offset as usize..][..chunk.len()]);
    });
    let first = bzip2(&(0..10_000).flat_map(|n| format!("{n}\n").into_bytes()).collect::<Vec<_>>());
    let fetch = fetch_from(Store::memory().with("data/a.csv.bz2", first).with("data/b.csv.bz2", held));
    let record = fetch.out().join(".bulk/a.csv.bz2.extracted");
    kill_when(fetch.command(&["--extract"]), || record.exists());
    drop(closed);
    fetch.asked();

    fetch.fetch(&["--extract"]).assert(0, &["1 of 2 files had been extracted"]);
    // The request of the first run may be noted as late as this.
    let mut asked = fetch.asked();
    asked.dedup();
    assert_eq!(asked, ["b.csv.bz2"]);
    assert_eq!(names(&fetch), ["a.csv", "b.csv", "manifest.json"]);
    assert_eq!(files(&fetch.out())["b.csv"], b"id\n2\n");
}

#[test]
fn killed_in_the_middle_of_an_extraction_it_extracts_anew() {
    const SIZE: u64 = 512 << 20;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::copy(&mut std::io::repeat(b'x').take(SIZE), &mut encoder).unwrap();
    let fetch = fetch_from(Store::memory().with("data/large.csv.gz", encoder.finish().unwrap()));
    let unfinished = fetch.out().join(".bulk-extract");
    let flags = ["--extract", "--max-ratio", "2000"];
    let is_writing = || std::fs::read_dir(&unfinished).is_ok_and(|mut entries| entries.next().is_some());
    kill_when(fetch.command(&flags), is_writing);
    assert!(!fetch.out().join("large.csv").exists());
    assert!(is_writing());

    fetch.fetch(&flags).assert(0, &["large.csv: 1 file, 512.0 MiB", "0 B fetched"]);
    assert!(!is_writing());
    assert_eq!(std::fs::metadata(fetch.out().join("large.csv")).unwrap().len(), SIZE);
    assert!(!fetch.out().join("large.csv.gz").exists());
}

#[test]
fn what_can_never_fit_is_refused_before_the_first_byte() {
    let fetch = three();
    fetch
        .fetch(&["--max-disk", "14"])
        .assert(5, &["the files cannot fit into", "15 B are needed, the limit is 14 B", "free", "in reserve"]);
    fetch.fetch(&["--reserve", "1000PB"]).assert(5, &["15 B are needed", "in reserve"]);
    assert_eq!(fetch.asked(), [""; 0]);
    fetch.fetch(&["--max-disk", "15"]).assert(0, &[]);
    let mut command = fetch.command(&[]);
    command.env("BULK_MAX_DISK", "1B");
    Ran::of(command).assert(5, &["the limit is 1 B"]);
    let config = write(&fetch, "bulk.toml", "[fetch]\nmax-disk = 2\n");
    fetch.fetch(&["--config", &config]).assert(5, &["the limit is 2 B"]);
}
