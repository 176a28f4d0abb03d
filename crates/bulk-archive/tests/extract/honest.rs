//! Archives that GNU tar and Python's tarfile made, compared with what GNU tar extracts.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, fs::symlink as make_symlink},
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, UNIX_EPOCH},
};

use bulk_archive::{ContentDigest, Destination, ExtractOptions, MemberKind};

use super::support::*;

/// A folder of all that archives of data may have, with names and paths of up to so many bytes.
fn source(longest: usize, longest_path: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let noise: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("a/large"), &noise).unwrap();
    for size in [0, 1, 511, 512, 513, 10_240] {
        fs::write(root.join(format!("a/b/{size}")), &noise[..size]).unwrap();
    }
    fs::write(root.join("a/b/c/run.sh"), b"#!/bin/sh\n").unwrap();
    fs::set_permissions(root.join("a/b/c/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(root.join("a/sp ace, new\nline, \u{e9}"), b"named").unwrap();
    fs::write(root.join(OsStr::from_bytes(b"a/\xff\xfe")), b"no UTF-8").unwrap();
    for length in [99, 100, 101, 155, 156, 250, 255] {
        let name: String = ('a'..='z').cycle().take(length).collect();
        if length <= longest {
            fs::write(root.join(&name), &noise[..length]).unwrap();
        }
        let path = format!("deep/{}/{}", &name[..length / 2], &name[..length / 2]);
        if path.len() <= longest_path {
            fs::create_dir_all(root.join(&path)).unwrap();
            fs::write(root.join(&path).join("x"), &noise[..length]).unwrap();
        }
    }
    make_symlink("large", root.join("a/link")).unwrap();
    make_symlink("../../b/./512", root.join("a/b/c/up")).unwrap();
    make_symlink("nowhere", root.join("dangling")).unwrap();
    if longest > 100 {
        make_symlink("x/".repeat(150), root.join("long-link")).unwrap();
    }
    fs::hard_link(root.join("a/large"), root.join("z-hard")).unwrap();
    for (i, path) in tree(root).keys().rev().enumerate() {
        let path = root.join(path);
        if !path.is_symlink() {
            let time = UNIX_EPOCH + Duration::new(1_000_000_000 + i as u64 * 86_400, 123_456_789);
            File::open(path).unwrap().set_modified(time).unwrap();
        }
    }
    dir
}

/// It comes out as GNU tar extracts it, into an empty folder and over what is there.
#[track_caller]
fn check(archive: &[u8], label: &str) {
    let place = Place::new();
    let expected = tree(gnu_tar(archive).path());
    assert!(expected.len() > 15, "{label}");
    for round in 0..2 {
        let extracted = place.extract(archive, "a.tar", &ExtractOptions::default()).unwrap();
        let found = tree(&place.target());
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{label} {round}");
        for (path, node) in &found {
            assert!(node == &expected[path], "{label} {round} {path:?}");
        }
        assert!(extracted.is_tar);
        assert_eq!(extracted.compressed_bytes, archive.len() as u64);
    }
}

#[test]
fn gnu_tar_in_each_format() {
    let formats = [("gnu", 255, 300), ("pax", 255, 300), ("oldgnu", 255, 300), ("ustar", 98, 165), ("v7", 97, 90)];
    for (format, longest, longest_path) in formats {
        let source = source(longest, longest_path);
        let format = format!("--format={format}");
        for what in [".", "a"] {
            let archive = run("tar", &["-c", &format, what].map(OsStr::new), source.path());
            if what == "." {
                check(&archive, &format);
            } else {
                let place = Place::new();
                place.extract(&archive, "a.tar", &ExtractOptions::default()).unwrap();
                assert_eq!(tree(&place.target()), tree(gnu_tar(&archive).path()), "{format}");
            }
        }
    }
}

#[test]
fn python_in_each_format() {
    const PROGRAM: &str = "import sys, tarfile\n\
        with tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=getattr(tarfile, sys.argv[1])) as tar:\n    \
        tar.add('.')\n";
    for (format, longest, longest_path) in
        [("GNU_FORMAT", 255, 300), ("PAX_FORMAT", 255, 300), ("USTAR_FORMAT", 98, 165)]
    {
        let source = source(longest, longest_path);
        check(&run("python3", &["-c", PROGRAM, format].map(OsStr::new), source.path()), format);
    }
}

/// The number of bytes, and their Fletcher sum modulo 2^64, in which their order counts.
#[derive(Default)]
struct Sum(u64, u64, u64);

impl ContentDigest for Sum {
    fn update(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 += 1;
            self.1 = self.1.wrapping_add(u64::from(byte));
            self.2 = self.2.wrapping_add(self.1);
        }
    }

    fn finish(self: Box<Self>) -> String {
        format!("{} {} {}", self.0, self.1, self.2)
    }
}

fn sum_of(path: &Path) -> String {
    let mut sum = Box::<Sum>::default();
    sum.update(&fs::read(path).unwrap());
    sum.finish()
}

#[test]
fn holes_in_each_format() {
    let source = tempfile::tempdir().unwrap();
    let file = File::create(source.path().join("holes")).unwrap();
    // More pieces than a header, and than one block behind it, has room for.
    for i in 0..60u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, &[i as u8 + 1; 4096], i * 1_000_000 / 4096 * 4096).unwrap();
    }
    std::os::unix::fs::FileExt::write_all_at(&file, b"tail", 70_000_001).unwrap();
    file.set_len(80_000_000).unwrap();
    let nothing = File::create(source.path().join("nothing")).unwrap();
    nothing.set_len(1_000_000).unwrap();
    fs::write(source.path().join("z"), b"after").unwrap();
    let formats: [&[&str]; 5] = [
        &["--format=gnu"],
        &["--format=oldgnu"],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ];
    for format in formats {
        let arguments: Vec<&OsStr> =
            ["-c", "--sparse"].iter().chain(format).chain(&["holes", "nothing", "z"]).map(OsStr::new).collect();
        let archive = run("tar", &arguments, source.path());
        assert!(archive.len() < 1_000_000, "{format:?}: {}", archive.len());
        let place = Place::new();
        let written = Arc::new(Mutex::new(0));
        let mut options = ExtractOptions::default();
        let sum = Arc::clone(&written);
        options.on_write = Some(Arc::new(move |bytes| {
            *sum.lock().unwrap() += bytes;
            Ok(())
        }));
        options.digest = Some(Arc::new(|| Box::<Sum>::default()));
        let digests = Arc::new(Mutex::new(Vec::new()));
        let found = Arc::clone(&digests);
        options.on_member = Some(Arc::new(move |member| {
            found.lock().unwrap().push((member.path.to_owned(), member.digest.unwrap().to_owned()));
        }));
        let extracted = place.extract(&archive, "a.tar", &options).unwrap();
        assert_eq!(extracted.bytes, 81_000_005, "{format:?}");
        assert!(tree(&place.target()) == tree(gnu_tar(&archive).path()), "{format:?}");
        assert!(*written.lock().unwrap() < 1_000_000);
        for (path, digest) in digests.lock().unwrap().iter() {
            assert_eq!(*digest, sum_of(&place.target().join(path)), "{format:?} {path:?}");
        }
        assert_eq!(digests.lock().unwrap().len(), 3, "{format:?}");
        let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(place.target().join("holes")).unwrap());
        assert!(blocks * 512 < 2_000_000, "{format:?}: {blocks}");
    }
}

#[test]
fn long_values_and_negative_times() {
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("old"), b"").unwrap();
    let old = File::open(source.path().join("old")).unwrap();
    old.set_modified(UNIX_EPOCH - Duration::new(1000, 250_000_000)).unwrap();
    for format in ["--format=gnu", "--format=pax"] {
        let archive = run("tar", &["-c", format, "old"].map(OsStr::new), source.path());
        let place = Place::new();
        place.extract(&archive, "a.tar", &ExtractOptions::default()).unwrap();
        assert_eq!(tree(&place.target()), tree(gnu_tar(&archive).path()), "{format}");
    }
    // A size in base 256, and one in an extended header against the header's own.
    let mut large = header(&file("large", b""), 0);
    large[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
    seal(&mut large);
    large.extend([b"12345".as_slice(), &[0; 507]].concat());
    let size = [record("size", b"3"), record("mtime", b"7.5"), record("comment", b"a\nb")].concat();
    let bytes = [
        large,
        blocks(&[raw(b'g', "g", "", &record("comment", b"of all"))]),
        blocks(&[raw(b'x', "x", "", &size)]),
        header(&file("pax", b""), 0),
        [b"abc".as_slice(), &[0; 509]].concat(),
        archive(&[file("z", b"z")]),
    ]
    .concat();
    let place = Place::new();
    place.extract(&bytes, "a.tar", &ExtractOptions::default()).unwrap();
    let found = tree(&place.target());
    assert_eq!(found, tree(gnu_tar(&bytes).path()));
    assert_eq!(found[Path::new("pax")].bytes, b"abc");
    assert_eq!(found[Path::new("pax")].mtime, (7, 500_000_000));
    assert_eq!(found[Path::new("large")].bytes, b"12345");
}

#[test]
fn members_that_come_again() {
    let members = [
        file("a", b"first"),
        folder("d/"),
        file("d/x", b"1"),
        symlink("s", "a"),
        file("a", b"second"),
        hard_link("h", "a"),
        file("h", b"own"),
        file("s", b"no link"),
        folder("d"),
        file("d/x", b"2"),
        hard_link("a", "a"),
        symlink("d/x", "../a"),
    ];
    let bytes = archive(&members);
    let place = Place::new();
    let extracted = place.extract(&bytes, "a.tar", &ExtractOptions::default()).unwrap();
    assert_eq!((extracted.files, extracted.folders, extracted.links, extracted.bytes), (6, 2, 4, 23));
    let found = tree(&place.target());
    let bytes = |path: &str| String::from_utf8(found[Path::new(path)].bytes.clone()).unwrap();
    assert_eq!(place.paths(), ["a", "d", "d/x", "h", "s"]);
    assert_eq!([bytes("a"), bytes("h"), bytes("s"), bytes("d/x")], ["second", "own", "no link", "../a"]);
    assert_eq!(found[Path::new("a")].names, 1);
}

#[test]
fn modes() {
    let with = |mode: u32, kind: u8, name: &'static str| Raw { mode, ..raw(kind, name, "", b"") };
    let bytes = archive(&[
        with(0o000, b'5', "closed/"),
        with(0o600, b'0', "closed/private"),
        with(0o111, b'0', "closed/x"),
        with(0o744, b'0', "owner"),
        with(0o666, b'0', "all"),
        with(0o1644, b'0', "sticky"),
        with(0o2755, b'5', "group/"),
    ]);
    let place = Place::new();
    fs::create_dir(place.target()).unwrap();
    let made = |path: &str, mode: u32| {
        let path = place.above.path().join("target").join(path);
        let open = &mut fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(open.write(true).create(true).truncate(true), mode)
            .open(&path)
            .unwrap();
        let found = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        fs::remove_file(path).unwrap();
        found
    };
    let (plain, all, owner) = (made("w", 0o666), made("w", 0o777), made("w", 0o766));
    place.extract(&bytes, "a.tar", &ExtractOptions::default()).unwrap();
    let found = tree(&place.target());
    let mode = |path: &str| found[Path::new(path)].mode & 0o7777;
    assert_eq!(
        ["closed", "closed/private", "closed/x", "owner", "all", "sticky", "group"].map(mode),
        [all, plain, all, owner, plain, plain, all]
    );
}

#[test]
fn a_folder_for_each_archive() {
    let place = Place::new();
    let mut options = ExtractOptions::default();
    options.destination = Destination::Folder;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&seen);
    options.digest = Some(Arc::new(|| Box::<Sum>::default()));
    options.on_member = Some(Arc::new(move |member| {
        let digest = member.digest.map(str::to_owned);
        all.lock().unwrap().push((member.path.to_owned(), member.kind, member.bytes, digest));
    }));
    let bytes = archive(&[folder("./"), file("./x", b"1"), folder("d"), symlink("d/l", "../x"), hard_link("d/h", "x")]);
    place.extract(&bytes, "there/one.tar", &options).unwrap();
    place.extract(&archive(&[]), "none.tar", &options).unwrap();
    assert_eq!(place.paths(), ["none", "one", "one/d", "one/d/h", "one/d/l", "one/x"]);
    let expected = [
        ("one", MemberKind::Folder, 0),
        ("one/x", MemberKind::File, 1),
        ("one/d", MemberKind::Folder, 0),
        ("one/d/l", MemberKind::Symlink, 0),
        ("one/d/h", MemberKind::HardLink, 0),
    ];
    let digest = |kind| (kind == MemberKind::File).then(|| "1 49 49".to_owned());
    assert_eq!(*seen.lock().unwrap(), expected.map(|(path, kind, bytes)| (path.into(), kind, bytes, digest(kind))));
    let outcome = place.extract(&archive(&[symlink("l", "../witness")]), "a.tar", &options);
    check_refused(outcome, "l", bulk_archive::Refusal::LinkLeaves);
}
