//! What `bulk fetch --extract` makes of archives that change, fail, come back under another name, or are large for the disk:
//! from the outside.

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use bulk_testkit::s3::{Fault, Object, Rule, Store};
use support::{BUCKET, Fetch, Ran, bulk, files, is_killed_when, kill_when};

/// One connection, so that what is asked for comes in one order.
fn fetch_from(store: Store) -> Fetch {
    Fetch::new(store, &["--jobs", "1", "--order", "name"])
}

/// `bulk fetch URL` of one object, by HTTP.
#[track_caller]
fn fetch_url(fetch: &Fetch, name: &str, more: &[&str]) -> Ran {
    let url = fetch.server.object_url(BUCKET, &format!("data/{name}"));
    let mut command = bulk(["fetch", &url, "--out"]);
    command.arg(fetch.out()).args(more);
    Ran::of(command)
}

/// Checks the files against the manifest, which lists so many.
#[track_caller]
fn verify(fetch: &Fetch, count: usize) {
    fetch.verify(&[]).assert(0, &[&format!("{count} file")]);
}

/// Bytes that the server sent since the last time.
fn sent(fetch: &Fetch) -> u64 {
    let sent = fetch.server.requests().iter().map(|request| request.bytes_sent).sum();
    fetch.server.clear_requests();
    sent
}

/// The names in the manifest.
fn listed(fetch: &Fetch) -> Vec<String> {
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(fetch.out().join("manifest.json")).unwrap()).unwrap();
    manifest.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

fn gzip(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes.as_ref()).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    encoder.write_all(bytes.as_ref()).unwrap();
    encoder.finish().unwrap()
}

/// A tar of what `make` makes in a folder, as the system's program packs it.
fn tar_of(make: impl FnOnce(&Path)) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    let mut command = Command::new("tar");
    command.args(["cf", "-", "--sort=name", "-C"]).arg(folder.path()).arg(".");
    command.output().unwrap().stdout
}

fn tar(members: &[(&str, &str)]) -> Vec<u8> {
    tar_of(|folder| {
        for (name, text) in members {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    })
}

/// Bytes that do not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// The bytes that all files below a folder take on the disk.
fn allocated(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => allocated(&entry.path()),
        Ok(metadata) => std::os::unix::fs::MetadataExt::blocks(&metadata) * 512,
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

#[test]
fn a_tar_that_changed_takes_the_place_of_the_one_before_and_of_nothing_else() {
    let fetch = fetch_from(Store::memory().with("data/set.tar", tar(&[("a", "1\n"), ("b", "1\n"), ("d/c", "1\n")])));
    fetch.fetch(&["--extract"]).assert(0, &["set/: 3 files"]);
    fs::write(fetch.out().join("set/d/mine"), "mine\n").unwrap();
    fs::write(fetch.out().join("set/notes"), "mine\n").unwrap();
    fetch.asked();

    fetch.put("set.tar", tar(&[("a", "2\n"), ("e", "2\n"), ("notes", "2\n")]));
    fetch.fetch(&["--extract"]).assert(0, &["set/: 3 files"]);
    fetch.assert_files(&[("set/a", "2\n"), ("set/d/mine", "mine\n"), ("set/e", "2\n"), ("set/notes", "2\n")]);
    assert_eq!(listed(&fetch), ["set/a", "set/e", "set/notes"]);
    verify(&fetch, 3);
    assert_eq!(fetch.asked(), ["set.tar"]);
    fetch.fetch(&["--extract"]).assert(0, &["1 of 1 file had been extracted"]);
    assert_eq!(fetch.asked(), [""; 0]);

    // What cannot be put back, because it would have to be in a file, is not lost.
    fetch.put("set.tar", tar(&[("d", "3\n")]));
    fetch.fetch(&["--extract"]).assert(0, &["set.before: what stood beside an archive's files"]);
    fetch.assert_files(&[("set.before/d/mine", "mine\n"), ("set/d", "3\n")]);
}

#[test]
fn a_version_that_fails_leaves_the_one_before_as_it_was() {
    let fetch = fetch_from(Store::memory().with("data/set.tar", tar(&[("a", "1\n"), ("b", "1\n")])));
    fetch.fetch(&["--extract"]).assert(0, &[]);
    let mut damaged = tar(&[("a", "2\n"), ("b", "2\n")]);
    damaged.truncate(1536 + 512);
    fetch.put("set.tar", damaged);
    fetch.fetch(&["--extract"]).assert(1, &["set.tar: "]);
    fetch.assert_files(&[("set/a", "1\n"), ("set/b", "1\n")]);
    fetch.put("set.tar", tar(&[("a", "3\n"), ("b", "3\n"), ("c", "3\n")]));
    fetch.fetch(&["--extract", "--max-entries", "3"]).assert(1, &["more than 3 members"]);
    fs::remove_file(fetch.out().join("set.tar")).unwrap();
    fetch.assert_files(&[("set/a", "1\n"), ("set/b", "1\n")]);
    assert_eq!(listed(&fetch), ["set.tar", "set/a", "set/b"]);
}

#[test]
fn an_archive_that_comes_back_otherwise_packed_breaks_nothing() {
    let fetch = fetch_from(Store::memory().with("data/rows.csv.gz", gzip("1\n")).with("data/z.csv", "z\n"));
    fetch.fetch(&["--extract"]).assert(0, &[]);
    let only = |name: &str| ["--extract", "--include", name].map(str::to_owned).to_vec();
    let round = |name: &str, object: Vec<u8>, flags: &[String], text: &str| {
        fetch.put(name, object);
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        fetch.fetch(&flags).assert(0, &[]);
        fetch.assert_files(&[("rows.csv", text), ("z.csv", "z\n")]);
        assert_eq!(listed(&fetch), ["rows.csv", "z.csv"]);
        verify(&fetch, 2);
        fetch.asked()
    };
    assert_eq!(round("rows.csv.bz2", bzip2("22\n"), &only("*.bz2"), "22\n").last().unwrap(), "rows.csv.bz2");
    // The file is the other archive's now.
    assert_eq!(round("rows.csv.gz", gzip("1\n"), &only("*.gz"), "1\n"), ["rows.csv.gz"]);
    let plain = ["--include", "rows.csv"].map(str::to_owned);
    assert_eq!(round("rows.csv", b"333\n".to_vec(), &plain, "333\n"), ["rows.csv"]);
    assert_eq!(round("rows.csv.gz", gzip("1\n"), &only("*.gz"), "1\n"), ["rows.csv.gz"]);
    assert_eq!(round("rows.csv", b"333\n".to_vec(), &plain, "333\n"), ["rows.csv"]);
}

#[test]
fn over_http_a_change_is_noticed_and_what_did_not_change_is_not_fetched_again() {
    let fetch = fetch_from(Store::memory().with("data/rows.csv.gz", gzip("1\n")));
    fetch_url(&fetch, "rows.csv.gz", &["--extract"]).assert(0, &["rows.csv: 1 file"]);
    sent(&fetch);
    fetch_url(&fetch, "rows.csv.gz", &["--extract"]).assert(0, &["1 of 1 file had been extracted"]);
    assert_eq!(sent(&fetch), 1);
    fetch.put("rows.csv.gz", gzip("2\n"));
    fetch_url(&fetch, "rows.csv.gz", &["--extract"]).assert(0, &["rows.csv: 1 file"]);
    fetch.assert_files(&[("rows.csv", "2\n")]);

    // Where the server tells no version, nothing tells that it is the same.
    for header in ["etag", "last-modified"] {
        fetch.server.fault(Rule::new(Fault::WithoutHeader(header.parse().unwrap())));
    }
    for text in ["3\n", "4\n"] {
        fetch.put("rows.csv.gz", gzip(text));
        fetch_url(&fetch, "rows.csv.gz", &["--extract"]).assert(0, &["rows.csv: 1 file"]);
        fetch.assert_files(&[("rows.csv", text)]);
    }
}

#[test]
fn an_archive_of_another_place_is_another_one() {
    // Both say the same of themselves.
    let said = |text: &str| Store::memory().with("data/rows.csv.gz", Object::new(gzip(text)).etag("one"));
    let (one, other) = (fetch_from(said("1\n")), fetch_from(said("2\n")));
    fetch_url(&one, "rows.csv.gz", &["--extract"]).assert(0, &[]);
    let url = other.server.object_url(BUCKET, "data/rows.csv.gz");
    let mut command = bulk(["fetch", &url, "--extract", "--out"]);
    command.arg(one.out());
    Ran::of(command).assert(0, &["rows.csv: 1 file"]);
    one.assert_files(&[("rows.csv", "2\n")]);
}

#[test]
fn an_archive_that_was_kept_stays_and_is_extracted_anew_when_it_changes() {
    let fetch = fetch_from(Store::memory().with("data/rows.csv.gz", gzip("1\n")));
    fetch.fetch(&["--extract"]).assert(0, &[]);
    assert!(!fetch.out().join("rows.csv.gz").exists());
    for flags in [&["--extract", "--keep-archives"][..], &["--extract"]] {
        fetch.fetch(flags).assert(0, &[]);
        assert_eq!(fs::read(fetch.out().join("rows.csv.gz")).unwrap(), gzip("1\n"), "{flags:?}");
        assert_eq!(listed(&fetch), ["rows.csv", "rows.csv.gz"]);
    }
    // Who removes it has it fetched anew, and what comes out of it.
    fetch.put("rows.csv.gz", gzip("2\n"));
    fs::remove_file(fetch.out().join("rows.csv.gz")).unwrap();
    fetch_url(&fetch, "rows.csv.gz", &["--extract", "--keep-archives"]).assert(0, &["rows.csv: 1 file"]);
    assert_eq!(fs::read(fetch.out().join("rows.csv.gz")).unwrap(), gzip("2\n"));
    assert_eq!(fs::read(fetch.out().join("rows.csv")).unwrap(), b"2\n");
    verify(&fetch, 2);
}

#[test]
fn the_manifest_lists_links_to_files_and_no_symlinks_and_names_are_counted_that_it_cannot_list() {
    let archive = tar_of(|folder| {
        fs::write(folder.join("a"), "1\n").unwrap();
        fs::hard_link(folder.join("a"), folder.join("b")).unwrap();
        std::os::unix::fs::symlink("a", folder.join("c")).unwrap();
        fs::write(folder.join(std::ffi::OsStr::from_bytes(b"\xff")), "1\n").unwrap();
    });
    // A file that a link takes the place of.
    let later = tar_of(|folder| std::os::unix::fs::symlink("b", folder.join("a")).unwrap());
    let end = archive.chunks(512).rposition(|block| block.iter().any(|byte| *byte != 0)).unwrap() + 1;
    let archive = [&archive[..end * 512], &later].concat();
    let fetch = fetch_from(Store::memory().with("data/set.tar", archive));
    fetch.fetch(&["--extract", "--sha256"]).assert(0, &["set.tar: 1 file has a name that is not UTF-8"]);
    assert_eq!(listed(&fetch), ["set/b"]);
    let manifest = fs::read_to_string(fetch.out().join("manifest.json")).unwrap();
    // printf '1\n' | sha256sum
    assert!(manifest.contains("4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865"), "{manifest}");
    verify(&fetch, 1);
    // All of them go with the next version.
    fetch.put("set.tar", tar(&[("d", "2\n")]));
    fetch.fetch(&["--extract"]).assert(0, &[]);
    fetch.assert_files(&[("set/d", "2\n")]);
    assert_eq!(fs::read_dir(fetch.out().join("set")).unwrap().count(), 1);
}

#[test]
fn of_a_member_that_comes_twice_the_second_is_listed() {
    let first = tar(&[("a", "1\n")]);
    let end = first.chunks(512).rposition(|block| block.iter().any(|byte| *byte != 0)).unwrap() + 1;
    let archive = [&first[..end * 512], &tar(&[("a", "22\n")])].concat();
    let fetch = fetch_from(Store::memory().with("data/set.tar", archive));
    fetch.fetch(&["--extract"]).assert(0, &[]);
    fetch.assert_files(&[("set/a", "22\n")]);
    verify(&fetch, 1);
}

#[test]
fn a_tar_without_members_is_known_to_be_extracted() {
    let fetch = fetch_from(Store::memory().with("data/none.tar.gz", gzip(vec![0; 10_240])));
    fetch.fetch(&["--extract"]).assert(0, &["none/: 0 files"]);
    fetch.asked();
    fetch.fetch(&["--extract"]).assert(0, &["1 of 1 file had been extracted"]);
    assert_eq!(fetch.asked(), [""; 0]);
}

#[test]
fn a_torn_record_costs_its_own_line_alone() {
    let fetch = fetch_from(Store::memory().with("data/set.tar", tar(&[("a", "1\n"), ("b", "1\n")])));
    fetch.fetch(&["--extract"]).assert(0, &[]);
    let record = fetch.out().join(".bulk/set.tar.extracted");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replacen("\"name\":\"set/a\"", "\"name\":\"set/", 1)).unwrap();
    fetch.put("z.csv", "z\n");
    fetch.fetch(&["--extract"]).assert(0, &[]);
    assert_eq!(listed(&fetch), ["set/b", "z.csv"]);
}

#[test]
fn a_folder_or_file_that_is_in_the_way_is_named_and_left() {
    let fetch =
        fetch_from(Store::memory().with("data/a.csv.gz", gzip("1\n")).with("data/set.tar", tar(&[("a", "1\n")])));
    fs::create_dir_all(fetch.out().join("a.csv")).unwrap();
    fs::write(fetch.out().join("a.csv/x"), "mine\n").unwrap();
    fs::write(fetch.out().join("set"), "mine\n").unwrap();
    let said = ["a.csv.gz: a folder is in the way", "set.tar: a file is in the way"];
    fetch.fetch(&["--extract"]).assert(1, &said);
    assert_eq!(fs::read(fetch.out().join("a.csv/x")).unwrap(), b"mine\n");
    assert_eq!(fs::read(fetch.out().join("set")).unwrap(), b"mine\n");
    fs::remove_dir_all(fetch.out().join("a.csv")).unwrap();
    fs::remove_file(fetch.out().join("set")).unwrap();
    fetch.fetch(&["--extract"]).assert(0, &["0 B fetched"]);
    fetch.assert_files(&[("a.csv", "1\n"), ("set/a", "1\n")]);
}

#[test]
fn killed_while_it_changes_what_is_there_the_next_run_ends_it() {
    let many = |text: &str, count: usize| {
        let names: Vec<_> = (0..count).map(|n| format!("d{}/{n:04}", n % 7)).collect();
        tar(&names.iter().map(|name| (name.as_str(), text)).collect::<Vec<_>>())
    };
    // Also a run without extraction, which writes the manifest.
    for next in [&["--extract"][..], &["--include", "z.csv"]] {
        let store = Store::memory().with("data/set.tar", many("1\n", 2000)).with("data/z.csv", "z\n");
        let fetch = fetch_from(store);
        fetch.fetch(&["--extract"]).assert(0, &[]);
        fs::write(fetch.out().join("set/mine"), "mine\n").unwrap();
        // From here on the new one counts; what is old has to go.
        let old = fetch.out().join(".bulk-extract/old");
        // It is there for a moment. A run that was over before this was seen is followed by another edition.
        let mut edition = 2;
        let count = |edition: usize| if edition.is_multiple_of(2) { 1000 } else { 2000 };
        loop {
            fetch.put("set.tar", many(&format!("{edition}\n"), count(edition)));
            if is_killed_when(fetch.command(&["--extract"]), || old.exists()) {
                break;
            }
            edition += 1;
            assert!(edition < 100, "it is never seen");
        }
        fetch.fetch(next).assert(0, &[]);
        let mut found = files(&fetch.out());
        for other in ["manifest.json", "set/mine", "z.csv"] {
            found.remove(other).unwrap();
        }
        assert_eq!(found.len(), count(edition), "{next:?}");
        let text = format!("{edition}\n");
        assert!(found.iter().all(|(name, bytes)| name.starts_with("set/") && bytes == text.as_bytes()), "{next:?}");
        assert!(!old.exists());
        verify(&fetch, count(edition) + 1);
    }
}

#[test]
fn what_failed_and_stays_counts_against_the_limit() {
    let archive = |seed| {
        gzip(tar_of(|folder| {
            for n in 0..4u64 {
                fs::write(folder.join(n.to_string()), noise(seed + n, 300 << 10)).unwrap();
            }
        }))
    };
    let store = Store::memory().with("data/a.tar.gz", archive(1)).with("data/b.bin", noise(9, 2 << 20));
    let fetch = fetch_from(store);
    let flags = ["--extract", "--max-entries", "3", "--disk-wait", "0s", "--max-disk", "3MiB", "--reserve", "0"];
    fetch.fetch(&flags).assert(5, &["a.tar.gz: more than 3 members", "no room for b.bin: "]);
    assert!(allocated(&fetch.out()) < (3 << 20) + (64 << 10), "{}", allocated(&fetch.out()));
    assert!(fetch.out().join("a.tar.gz").exists() && !fetch.out().join("b.bin").exists());

    // So does what earlier runs extracted.
    let store = Store::memory().with("data/a.tar.gz", archive(1)).with("data/b.bin", noise(9, 2 << 20));
    let fetch = fetch_from(store);
    fetch.fetch(&["--extract", "--include", "a*"]).assert(0, &[]);
    let flags = ["--extract", "--disk-wait", "0s", "--max-disk", "3MiB", "--reserve", "0"];
    fetch.fetch(&flags).assert(5, &["1 of 2 files had been extracted", "no room for b.bin: "]);
    fetch.fetch(&["--extract", "--max-disk", "4MiB", "--reserve", "0"]).assert(0, &[]);
}

#[test]
fn a_guess_of_what_comes_out_refuses_nothing() {
    let archive = gzip(tar_of(|folder| fs::write(folder.join("noise"), noise(1, 1 << 20)).unwrap()));
    let fetch = fetch_from(Store::memory().with("data/a.tar.gz", archive));
    fetch.fetch(&["--extract", "--disk-wait", "0s", "--max-disk", "2300KiB", "--reserve", "0"]).assert(0, &[]);
    assert_eq!(fs::metadata(fetch.out().join("a/noise")).unwrap().len(), 1 << 20);
}

#[test]
fn what_runs_ahead_gives_up_what_it_has_reserved() {
    // More comes out of the first than is usual, and less of the second.
    let first = gzip([noise(1, 100 << 10), vec![b'x'; 1100 << 10]].concat());
    let second = gzip(noise(2, 300 << 10));
    let fetch = fetch_from(Store::memory().with("data/a.csv.gz", first).with("data/b.bin.gz", second));
    let ran = fetch.fetch(&["--extract", "--max-disk", "2100KiB", "--reserve", "0", "--disk-wait", "60s"]);
    ran.assert(0, &["a.csv: 1 file", "b.bin: 1 file"]);
    assert!(!ran.stderr.contains("paused"), "{}", ran.stderr);
}

#[test]
fn what_runs_ahead_makes_way_and_is_fetched_again() {
    let first = gzip([noise(1, 100 << 10), vec![b'x'; 1100 << 10]].concat());
    let second = noise(2, 900 << 10);
    let store = Store::memory().with("data/a.csv.gz", first).with("data/b.bin", second.clone());
    let fetch = fetch_from(store);
    // What is left of the first is asked for again by a connection that has nothing else to do: when the second is there.
    fetch.server.fault(Rule::new(Fault::StallAfter(1000)).key("data/a.csv.gz").first(1));
    let source = format!("s3://{BUCKET}/data/");
    let mut command = bulk(["fetch", &source, "--anonymous", "--endpoint", &fetch.server.url(), "--extract", "--out"]);
    command.arg(fetch.out()).args(["--order", "name", "--jobs", "2", "--disk-wait", "60s", "--reserve", "0"]);
    command.args(["--max-disk", "2150KiB"]);
    Ran::of(command).assert(0, &["a.csv: 1 file", "b.bin: begun anew, because the file in front needs its disk space"]);
    assert_eq!(files(&fetch.out())["b.bin"], second);
    assert_eq!(files(&fetch.out())["a.csv"].len(), 1200 << 10);
}

#[test]
fn a_second_run_keeps_out_of_a_folder_in_which_one_extracts() {
    const SIZE: u64 = 512 << 20;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::copy(&mut std::io::Read::take(std::io::repeat(b'x'), SIZE), &mut encoder).unwrap();
    let fetch = fetch_from(Store::memory().with("data/large.csv.gz", encoder.finish().unwrap()));
    let flags = ["--extract", "--max-ratio", "2000"];
    let new = fetch.out().join(".bulk-extract/new");
    let mut second = None;
    kill_when(fetch.command(&flags), || {
        if new.exists() && second.is_none() {
            second = Some(fetch.fetch(&flags));
        }
        second.is_some()
    });
    second.unwrap().assert(1, &["another run extracts files into"]);
    assert!(new.exists());
    fetch.fetch(&flags).assert(0, &["large.csv: 1 file"]);
    assert!(!new.exists());
}
