//! Members that would leave the folder, or are of kinds that no data set needs.

use std::{fs, os::unix::fs::symlink as make_symlink};

use bulk_archive::{Error, ExtractOptions, Links, Refusal};

use super::support::*;

/// The member between two honest ones is refused; the first of them stays, the second is not extracted.
#[track_caller]
fn check(members: Vec<Raw<'_>>, member: &str, reason: Refusal) -> Place {
    let place = Place::new();
    let members: Vec<_> =
        [file("honest", b"stays")].into_iter().chain(members).chain([file("zzz-later", b"")]).collect();
    check_refused(place.extract(&archive(&members), "a.tar", &ExtractOptions::default()), member, reason);
    assert_eq!(fs::read(place.target().join("honest")).unwrap(), b"stays");
    assert!(!place.target().join("zzz-later").exists());
    assert!(!place.target().join(".bulk-extract").exists());
    place
}

#[test]
fn names() {
    check(vec![file("/etc/x", b"1")], "/etc/x", Refusal::AbsolutePath);
    check(vec![file("../x", b"1")], "../x", Refusal::ParentFolder);
    check(vec![file("a/../../x", b"1")], "a/../../x", Refusal::ParentFolder);
    check(vec![folder("../d/")], "../d/", Refusal::ParentFolder);
    check(vec![symlink("../l", "x")], "../l", Refusal::ParentFolder);
    check(vec![hard_link("../l", "honest")], "../l", Refusal::ParentFolder);
    check(vec![file("", b"1")], "", Refusal::EmptyName);
    check(vec![file(".", b"1")], ".", Refusal::TargetItself);
    check(vec![symlink("./", "x")], "./", Refusal::TargetItself);
    check(vec![hard_link(".", "honest")], ".", Refusal::TargetItself);
    check(vec![file(".bulk-extract", b"1")], ".bulk-extract", Refusal::Reserved);
    check(vec![symlink(".Bulk-Extract", ".")], ".Bulk-Extract", Refusal::Reserved);
    check(vec![file(".bulk-extract/x", b"1")], ".bulk-extract/x", Refusal::Reserved);
}

#[test]
fn long_names() {
    let long = format!("{}/../../../x", "a".repeat(120));
    check(vec![raw(b'L', "././@LongLink", "", long.as_bytes()), file("x", b"1")], &long, Refusal::ParentFolder);
    let path = record("path", b"/etc/x");
    check(vec![raw(b'x', "x", "", &path), file("x", b"1")], "/etc/x", Refusal::AbsolutePath);
    let path = record("path", b"x\0y");
    check(vec![raw(b'x', "x", "", &path), file("x", b"1")], "x\0y", Refusal::NulInName);
    let link = record("linkpath", b"/etc");
    check(vec![raw(b'x', "x", "", &link), symlink("l", "x")], "l", Refusal::LinkLeaves);
    let link = format!("{}/..", "a/".repeat(70));
    check(vec![raw(b'K', "././@LongLink", "", link.as_bytes()), symlink("l", "x")], "l", Refusal::LinkTurns);
    let name = [
        record("GNU.sparse.major", b"1"),
        record("GNU.sparse.minor", b"0"),
        record("GNU.sparse.name", b"../x"),
        record("GNU.sparse.realsize", b"0"),
    ]
    .concat();
    let data = [b"0\n".as_slice(), &[0; 510]].concat();
    check(vec![raw(b'x', "x", "", &name), file("y", &data)], "../x", Refusal::ParentFolder);
}

#[test]
fn links() {
    check(vec![symlink("l", "/etc")], "l", Refusal::LinkLeaves);
    check(vec![symlink("l", "..")], "l", Refusal::LinkLeaves);
    check(vec![symlink("d/l", "../../x")], "d/l", Refusal::LinkLeaves);
    check(vec![symlink("l", "")], "l", Refusal::LinkEmpty);
    // Each of these seems to stay inside, and the second leads out by the first.
    check(vec![folder("d/e"), symlink("d/e/up", "../.."), symlink("l", "d/e/up/..")], "l", Refusal::LinkTurns);
    check(vec![hard_link("l", "/etc/hostname")], "l", Refusal::LinkLeaves);
    check(vec![hard_link("l", "../witness")], "l", Refusal::LinkLeaves);
    check(vec![hard_link("l", "")], "l", Refusal::LinkEmpty);
    check(vec![hard_link("l", "missing")], "l", Refusal::LinkMissing);
    check(vec![hard_link("l", "no/where")], "l", Refusal::LinkMissing);
    check(vec![folder("d"), hard_link("l", "d")], "l", Refusal::LinkToSpecial);
    check(vec![hard_link("l", ".")], "l", Refusal::LinkToSpecial);
    check(vec![hard_link("l", ".bulk-extract/x")], "l", Refusal::Reserved);
    // A link that stays inside where it stands would not elsewhere.
    check(vec![symlink("d/s", "../honest"), hard_link("l", "d/s")], "l", Refusal::LinkToSpecial);
    check(vec![symlink("s", "d"), file("d/x", b"1"), hard_link("l", "s/x")], "l", Refusal::ThroughLink);
}

#[test]
fn names_through_links() {
    for large in [false, true] {
        let data = vec![b'x'; if large { 9 << 20 } else { 1 }];
        check(vec![folder("d"), symlink("l", "d"), file("l/x", &data)], "l/x", Refusal::ThroughLink);
        check(vec![symlink("l", "."), file("l/x", &data)], "l/x", Refusal::ThroughLink);
        check(vec![file("f", b"1"), file("f/x", &data)], "f/x", Refusal::FileInTheWay);
    }
    check(vec![symlink("l", "."), folder("l/d")], "l/d", Refusal::ThroughLink);
    check(vec![symlink("l", "."), folder("l")], "l", Refusal::ThroughLink);
    check(vec![symlink("l", "."), symlink("l/x", "y")], "l/x", Refusal::ThroughLink);
    check(vec![file("f", b"1"), folder("f")], "f", Refusal::FileInTheWay);
    check(vec![folder("d"), file("d", b"1")], "d", Refusal::FolderInTheWay);
    check(vec![file("d/x", b"1"), file("d", b"1")], "d", Refusal::FolderInTheWay);
    check(vec![file("d/x", b"1"), symlink("d", "x")], "d", Refusal::FolderInTheWay);
    check(vec![file("d/x", b"1"), hard_link("d", "honest")], "d", Refusal::FolderInTheWay);
}

#[test]
fn links_that_were_there_before() {
    let options = ExtractOptions::default();
    let place = Place::new();
    fs::create_dir(place.target()).unwrap();
    make_symlink("../beside", place.target().join("out")).unwrap();
    make_symlink("../witness", place.target().join("file")).unwrap();
    for member in [file("out/x", b"1"), folder("out/d"), symlink("out/l", "x"), folder("out")] {
        let name = String::from_utf8(member.name.to_vec()).unwrap();
        check_refused(place.extract(&archive(&[member]), "a.tar", &options), &name, Refusal::ThroughLink);
    }
    let outcome = place.extract(&archive(&[hard_link("l", "out/witness")]), "a.tar", &options);
    check_refused(outcome, "l", Refusal::ThroughLink);
    let outcome = place.extract(&archive(&[hard_link("l", "file")]), "a.tar", &options);
    check_refused(outcome, "l", Refusal::LinkToSpecial);
    // A file takes the place of a link; what that is to stays.
    place.extract(&archive(&[file("file", b"1"), file("out", b"2")]), "a.tar", &options).unwrap();
    assert_eq!(fs::read(place.target().join("file")).unwrap(), b"1");
    assert!(fs::symlink_metadata(place.target().join("out")).unwrap().is_file());
    make_symlink("../beside", place.target().join(".bulk-extract")).unwrap();
    let outcome = place.extract(&archive(&[file("x", b"1")]), "a.tar", &options);
    check_refused(outcome, ".bulk-extract", Refusal::ThroughLink);
    assert!(!place.target().join("x").exists());
}

#[test]
fn the_target_may_be_a_link() {
    let place = Place::new();
    let real = tempfile::tempdir().unwrap();
    make_symlink(real.path(), place.target()).unwrap();
    place.extract(&archive(&[file("x", b"1")]), "a.tar", &ExtractOptions::default()).unwrap();
    assert_eq!(paths(real.path()), ["x"]);
}

#[test]
fn kinds() {
    check(vec![raw(b'3', "dev", "", b"")], "dev", Refusal::Device);
    check(vec![raw(b'4', "dev", "", b"")], "dev", Refusal::Device);
    check(vec![raw(b'6', "fifo", "", b"")], "fifo", Refusal::Fifo);
    check(vec![raw(b'D', "dump", "", b"")], "dump", Refusal::UnknownType(b'D'));
    check(vec![raw(b'M', "more", "", b"1")], "more", Refusal::UnknownType(b'M'));
    for mode in [0o4755, 0o2755, 0o6644] {
        check(vec![Raw { mode, ..file("su", b"1") }], "su", Refusal::SetId);
    }
}

#[test]
fn all_links_on_request() {
    let mut options = ExtractOptions::default();
    options.links = Links::Refuse;
    for link in [symlink("l", "x"), hard_link("l", "x")] {
        let place = Place::new();
        check_refused(place.extract(&archive(&[file("x", b"1"), link]), "a.tar", &options), "l", Refusal::Link);
        assert_eq!(place.paths(), ["x"]);
    }
}

/// What shows one content to one reader and another to the next.
#[test]
fn what_readers_take_differently() {
    let long = raw(b'L', "././@LongLink", "", b"long\0");
    let pax = |key: &str, value: &[u8]| record(key, value);
    let (size, path, other) = (pax("size", b"512"), pax("path", b"long"), pax("path", b"other"));
    let hidden = blocks(&[file("hidden", b"")]);
    let with_data = |kind: u8| [header(&raw(kind, "d", "x", b""), 512), hidden.clone()].concat();
    let twice = [pax("size", b"0"), pax("size", b"512")].concat();
    let mut size_and_more = header(&file("x", b""), 0);
    size_and_more[124..136].copy_from_slice(b"0000000\x001000");
    seal(&mut size_and_more);
    let label = || header(&raw(b'V', "label", "", b""), 0);
    let cases: [(&str, Vec<u8>); 16] = [
        ("a hard link's data", with_data(b'1')),
        ("a path for a label", [blocks(&[raw(b'x', "", "", &path)]), label(), blocks(&[file("x", b"")])].concat()),
        ("a name for a label", [blocks(&[raw(b'L', "", "", b"a\0")]), label(), blocks(&[file("x", b"")])].concat()),
        ("a link for a label", [blocks(&[raw(b'K', "", "", b"a\0")]), label(), blocks(&[file("x", b"")])].concat()),
        (
            "a path for all",
            blocks(&[raw(b'x', "", "", &path), raw(b'g', "", "", &pax("comment", b"x")), file("x", b"")]),
        ),
        ("names that differ", blocks(&[long, raw(b'x', "x", "", &other), file("x", b"")])),
        ("a size for all", blocks(&[raw(b'g', "g", "", &size), file("x", b"")])),
        ("a path for all", blocks(&[raw(b'g', "g", "", &path), file("x", b"")])),
        ("a folder's data", with_data(b'5')),
        ("a link's data", with_data(b'2')),
        ("two sizes", [blocks(&[raw(b'x', "x", "", &twice)]), header(&file("x", b""), 0), hidden.clone()].concat()),
        ("a size and more", size_and_more),
        ("two long names", blocks(&[raw(b'L', "", "", b"a\0"), raw(b'L', "", "", b"b\0"), file("x", b"")])),
        ("two extended headers", blocks(&[raw(b'x', "", "", &path), raw(b'x', "", "", &path), file("x", b"")])),
        ("an extended header of nothing", blocks(&[raw(b'x', "", "", &path)])),
        ("a huge extended header", header(&raw(b'x', "", "", b""), 1 << 32)),
    ];
    for (label, bytes) in cases {
        let place = Place::new();
        let bytes = [blocks(&[file("honest", b"stays")]), bytes, vec![0; 1024]].concat();
        match place.extract(&bytes, "a.tar", &ExtractOptions::default()) {
            Err(Error::Tar { file, offset, .. }) => {
                assert_eq!(file, "a.tar");
                assert!(offset >= 1024 && offset % 512 == 0, "{label}: {offset}");
            }
            other => panic!("{label}: {other:?}"),
        }
        assert_eq!(place.paths(), ["honest"], "{label}");
    }
}

/// An extended header's size is the next member's, not that of the long name between them (CVE-2025-62518's kin).
#[test]
fn a_size_is_of_the_member_alone() {
    let inner = blocks(&[file("hidden", b"")]);
    let size = record("size", b"512");
    let bytes = [
        blocks(&[raw(b'x', "x", "", &size), raw(b'L', "././@LongLink", "", b"carrier\0")]),
        header(&file("short", b""), 0),
        inner.clone(),
        archive(&[file("z", b"z")]),
    ]
    .concat();
    let place = Place::new();
    place.extract(&bytes, "a.tar", &ExtractOptions::default()).unwrap();
    assert_eq!(place.paths(), ["carrier", "z"]);
    assert_eq!(fs::read(place.target().join("carrier")).unwrap(), inner);
    assert_eq!(tree(&place.target()), tree(gnu_tar(&bytes).path()));
}
