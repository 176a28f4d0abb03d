//! Each example runs to its end, and prints what it is to show.

mod support;

use std::process::Command;

use support::example;

/// What it prints, line by line.
#[track_caller]
fn run(name: &str) -> Vec<String> {
    let output = Command::new(example(name)).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn archivesspace_index() {
    let expected = [
        "42 requests; 1000 rows, the first has Object 1",
        "one object has another title, one is deleted, and one is new",
        "3 requests; 1000 rows, the first has Letters, 1901 to 1914",
    ];
    assert_eq!(run("archivesspace_index"), expected);
}

#[test]
fn buildhub_backfill() {
    let expected = [
        "4000 keys; builds: 500 added, 0 modified, 0 removed, 0 unchanged",
        "500 fetched, 500 stored, 0 left out",
        "4000 keys; builds: 0 added, 0 modified, 0 removed, 500 unchanged",
        "0 fetched, 0 stored, 0 left out",
        "one build has changed, another one is gone, and a third is no JSON",
        "gone: pub/firefox/candidates/50.0b0-candidates/build1/linux-x86_64/en-US/buildhub.json",
        "left out: pub/firefox/candidates/50.0b0-candidates/build1/linux-x86_64/ja-JP-mac/buildhub.json: it is no JSON: \
         expected value at line 1 column 1",
        "3999 keys; builds: 0 added, 2 modified, 1 removed, 497 unchanged",
        "2 fetched, 1 stored, 1 left out",
    ];
    let mut lines = run("buildhub_backfill");
    // What is gone needs no request; the two are told in any order.
    lines[5..7].sort();
    assert_eq!(lines, expected);
}

#[test]
fn bungie_stats() {
    let expected = [
        "checked, with 0 requests",
        "60 requests, 0 refused: 1980 rows of 60 characters",
        "member 1: 99 statistics",
        "60 requests, 0 refused: 1980 rows of 60 characters",
        "member 1: 66 statistics",
    ];
    assert_eq!(run("bungie_stats"), expected);
}

#[test]
fn choose_snapshot() {
    let expected = [
        "4 objects",
        "passed over 2026-06-30: dockets is a placeholder of 14 bytes",
        "snapshot of 2026-03-31:",
        "       80000 bulk-data/courts-2026-03-31.csv.bz2",
        "      900000 bulk-data/dockets-2026-03-31.csv.bz2",
    ];
    assert_eq!(run("choose_snapshot"), expected);
}

#[test]
fn decode_while_it_arrives() {
    let lines = run("decode_while_it_arrives");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("numbers.csv.gz: the first line is \"0,0\", after "), "{lines:?}");
    assert!(lines[1].starts_with("numbers.csv.gz: 500000 lines after "), "{lines:?}");
}

#[test]
fn download_in_order() {
    let lines = run("download_in_order");
    let ends =
        [("0: 41943040 bytes in ", "/big"), ("1: 8388608 bytes in ", "/middle"), ("2: 1024 bytes in ", "/small")];
    assert_eq!(lines.len(), ends.len(), "{lines:?}");
    for (line, (start, end)) in lines.iter().zip(ends) {
        assert!(line.starts_with(start) && line.ends_with(end), "{line}");
    }
}

#[test]
fn load_csv() {
    let lines = run("load_csv");
    assert_eq!(lines.first().unwrap(), "214 records, 214 of them sent by this run");
    assert_eq!(lines.last().unwrap(), "public.court has 214 rows");
}

#[test]
fn mirror() {
    let expected = [
        "public.search_court: 214 rows",
        "public.search_courthouse: 12 rows",
        "public.search_court_appeals_to: 12 rows",
        "308 indexes and constraints made, 0 keys violated",
    ];
    assert_eq!(run("mirror"), expected);
}

#[test]
fn own_source() {
    let expected = [
        "b: 5 bytes, crc64nvme:iaP9e6NWxzw=",
        "a: 3145728 bytes, crc64nvme:hfKFG6seVyc=",
        "c: memory:c does not exist",
    ];
    assert_eq!(run("own_source"), expected);
}

#[test]
fn write_rows() {
    let expected = [
        "100000 rows are there",
        "row 2 for public.measurement, column celsius (double precision): invalid input syntax for type double precision: \
         \"warm\" [SQLSTATE 22P02]",
        "0 rows of the attic",
        "1 row more",
    ];
    assert_eq!(run("write_rows"), expected);
}
