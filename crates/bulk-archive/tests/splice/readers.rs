//! Archives read by programs that others wrote. A machine may lack some of them; the CI may not.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use bulk_archive::ArchiveOptions;

use crate::support::{Items, Pair, build, document, for_reflinks, items, put, remove};

/// Programs that extract an archive: the name of what must be there, and a shell command, for which `$1` is the archive
/// and `$2` the folder.
const EXTRACT: [(&str, &str); 8] = [
    ("tar", "tar -xzf $1 -C $2"),
    ("bsdtar", "bsdtar -xf $1 -C $2"),
    ("busybox", "busybox tar -xzf $1 -C $2"),
    ("7z", "7z x -so -bd $1 2>/dev/null | (cd $2 && 7z x -si -ttar -bd >/dev/null)"),
    ("pigz", "pigz -dc $1 | tar -x -C $2"),
    ("python3", "python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1], \"r:gz\").extractall(sys.argv[2])' $1 $2"),
    ("python3", "python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1], \"r|gz\").extractall(sys.argv[2])' $1 $2"),
    ("perl", "cd $2 && perl -MArchive::Tar -e 'Archive::Tar->new($ARGV[0], 1)->extract or die' $1"),
];

/// Programs that decode or check gzip; what they write is the tar, or nothing.
const DECODE: [(&str, &str); 9] = [
    ("gzip", "gzip -t $1"),
    ("gzip", "gzip -dc $1"),
    ("pigz", "pigz -t $1"),
    ("pigz", "pigz -dc $1"),
    ("igzip", "igzip -t $1"),
    ("igzip", "igzip -dc $1"),
    ("busybox", "busybox gunzip -c $1"),
    (
        "python3",
        "python3 -c 'import sys, zlib; sys.stdout.buffer.write(zlib.decompress(open(sys.argv[1], \"rb\").read(), 31))' $1",
    ),
    ("perl", "perl -MIO::Uncompress::Gunzip=gunzip -e 'gunzip $ARGV[0] => \"-\" or die' $1"),
];

/// Programs that take the name in the header before the one in the pax header, or the time.
const WITHOUT_PAX: [&str; 2] = ["busybox", "perl"];

/// A program that takes an archive without entries for a failure.
const WITHOUT_EMPTY: &str = "perl";

fn shell(command: &str, archive: &Path, folder: &Path) -> std::process::Output {
    let mut shell = Command::new("sh");
    shell.args(["-ec", command, "sh"]).arg(archive).arg(folder).stdin(Stdio::null());
    shell.output().unwrap()
}

/// Whether the program is there.
fn is_there(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", "command -v \"$1\"", "sh", program]).output().unwrap().status.success();
    if !found {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{program} is missing");
        // Around the harness, which hides what a test that passes prints.
        let note = format!("readers.rs: {program} is missing and reads nothing here\n");
        std::io::stderr().write_all(note.as_bytes()).unwrap();
    }
    found
}

fn extracted(folder: &Path) -> BTreeMap<String, (i64, Vec<u8>)> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let mtime = std::os::unix::fs::MetadataExt::mtime(&entry.metadata().unwrap());
            (entry.file_name().into_string().unwrap(), (mtime, fs::read(entry.path()).unwrap()))
        })
        .collect()
}

/// Reads the archive with every program.
fn check(pair: &Pair, model: &Items, has_pax: bool) {
    let place = tempfile::tempdir().unwrap();
    let archive = place.path().join("scotus.tar.gz");
    fs::write(&archive, &pair.archive).unwrap();
    let expected: BTreeMap<String, (i64, Vec<u8>)> =
        model.iter().map(|(id, item)| (format!("{id}.json"), item.clone())).collect();
    for (at, (program, command)) in EXTRACT.iter().enumerate() {
        if !is_there(program)
            || (has_pax && WITHOUT_PAX.contains(program))
            || (model.is_empty() && *program == WITHOUT_EMPTY)
        {
            continue;
        }
        let folder = place.path().join(at.to_string());
        fs::create_dir(&folder).unwrap();
        let output = shell(command, &archive, &folder);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(extracted(&folder) == expected, "{command}");
    }
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&pair.archive[..]), &mut plain).unwrap();
    for (program, command) in DECODE {
        if !is_there(program) {
            continue;
        }
        let output = shell(command, &archive, place.path());
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        let tests = command.contains(" -t ");
        assert!(if tests { output.stdout.is_empty() } else { output.stdout == plain }, "{command}");
    }
}

#[test]
fn every_reader_reads_what_was_spliced() {
    read_spliced(&ArchiveOptions::default());
}

#[test]
fn every_reader_reads_what_is_laid_out_for_reflinks() {
    read_spliced(&for_reflinks());
}

fn read_spliced(options: &ArchiveOptions) {
    let mut model = items(0..1500, 9000);
    let pair = build(&model, options);
    let changes = [put("000003", 1_700_000_000, b"{}"), remove("000800"), put("000900x", 5, &document(3, 300_000))];
    let _ = crate::support::apply(&mut model, &changes);
    let (spliced, ..) = pair.splice(&changes).unwrap();
    check(&spliced, &model, false);
}

#[test]
fn every_reader_reads_long_names_and_late_times() {
    let mut model = items(0..20, 3000);
    model.insert("9".repeat(200), (1_500_000_000, b"[1]".to_vec()));
    model.insert("99".to_owned(), (0o777_7777_7777 + 1, b"[2]".to_vec()));
    check(&build(&model, &ArchiveOptions::default()), &model, true);
}

#[test]
fn every_reader_reads_an_archive_without_items() {
    check(&build(&Items::new(), &ArchiveOptions::default()), &Items::new(), false);
}

#[test]
fn what_was_not_finished_is_cut_short() {
    let model = items(0..500, 9000);
    let mut archive = Vec::new();
    let mut writer =
        bulk_archive::ArchiveWriter::new(&mut archive, Vec::new(), "x", &ArchiveOptions::default()).unwrap();
    for (id, (mtime, content)) in &model {
        writer.append(id, *mtime, content).unwrap();
    }
    drop(writer);
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("x.tar.gz");
    fs::write(&path, &archive).unwrap();
    let output = shell("gzip -t $1", &path, place.path());
    assert!(String::from_utf8_lossy(&output.stderr).contains("unexpected end of file"));
}
