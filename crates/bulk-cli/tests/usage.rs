//! What is wrong with a command line is said before anything is done, with the exit status of wrong usage.

mod support;

use support::{Ran, bulk};

#[track_caller]
fn assert_refused(cases: &[(&[&str], &str)]) {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, said) in cases {
        let mut command = bulk(*arguments);
        command.current_dir(folder.path());
        Ran::of(command).assert(2, &[said]);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was made");
}

#[test]
fn of_fetch() {
    let with = |more: &[&'static str]| [&["fetch", "courtlistener", "--out", "o"], more].concat();
    let flags: [(&[&str], &str); 10] = [
        (&["--jobs", "0"], "invalid value '0' for '--jobs <N>': it must be a number from 1 on"),
        (&["--segment", "0"], "invalid value '0' for '--segment <SIZE>': it must be more than nothing"),
        (&["--reserve", "lots"], "a size is a number with a unit, such as 20GiB or 512MB"),
        (&["--disk-wait", "90"], "a time is a number with a unit, such as 90s or 5m"),
        (&["--order", "large"], "--order large: it is neither size, name or listed nor a file"),
        (&["--include", "["], "--include: error parsing glob '['"),
        (&["--sums", "absent"], "--sums absent: cannot read absent"),
        (&["--files-from", "absent"], "--files-from absent: "),
        (&["--date-pattern", "YY"], "\"YY\" is no date pattern"),
        (&["--keep-archives"], "--extract"),
    ];
    for (more, said) in flags {
        assert_refused(&[(&with(more), said)]);
    }
    assert_refused(&[
        (
            &["fetch", "courtlistner", "--out", "o"],
            "there is no data set \"courtlistner\"; the catalogue has courtlistener",
        ),
        (&["fetch", "/srv/data", "--out", "o"], "a folder is file:///folder"),
        (&["fetch", "file://data", "--out", "o"], "a folder has three slashes and its whole path"),
        (&["fetch", "s3://", "--out", "o"], "that is no bucket name"),
        (&["fetch", "s3://b", "--out", "o", "--endpoint", "storage"], "its endpoint is no URL"),
        (&["fetch", "ftp://host/a", "--out", "o"], "s3://bucket/prefix or file:///folder, and not ftp://…"),
        (&["fetch", "https://host/", "--out", "o"], "the URL names no file"),
        (&["fetch", "--verify", "--extract", "--out", "o"], "'--verify' cannot be used with '--extract'"),
    ]);
}

#[test]
fn usage_does_not_ask_for_what_the_environment_says() {
    let usage = |arguments: &[&str]| {
        let mut command = bulk(arguments);
        command.env("BULK_KNOWN", "sqlite:known.db").env("BULK_ENDPOINT", "http://127.0.0.1:9").env("BULK_JOBS", "3");
        let ran = Ran::of(command);
        let text = format!("{}{}", ran.stdout, ran.stderr);
        let line = text.lines().find_map(|line| line.strip_prefix("Usage: ")).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{text}"))
    };
    assert_eq!(usage(&["diff"]), "bulk diff [OPTIONS] <SOURCE>");
    assert_eq!(usage(&["diff", "--help"]), "bulk diff [OPTIONS] <SOURCE>");
    assert_eq!(usage(&["fetch", "s3://b"]), "bulk fetch [OPTIONS] --out <DIR> [SOURCE]");
    assert_eq!(usage(&["known", "export", "s3://b", "--nonsense"]), "bulk known export [OPTIONS] <BUCKET>");
    assert_eq!(usage(&["fetch", "s3://b", "--out", "o", "--nonsense"]), "bulk fetch [OPTIONS] --out <DIR> [SOURCE]");
    let mut command = bulk(["diff", "s3://b"]);
    command.env_remove("BULK_KNOWN");
    Ran::of(command).assert(2, &["--known <STORE>", "Usage: bulk diff [OPTIONS] --known <STORE> <SOURCE>"]);
}

#[test]
fn of_mirror() {
    assert_refused(&[
        (&["mirror", "courtlistener"], "give --db URL or BULK_DB, or PGDATABASE"),
        (&["mirror", "--db", "x"], "<DATASET>"),
        (&["mirror", "courtlistener", "--db", "nonsense"], "the database URL cannot be used"),
        (&["mirror", "absent.toml", "--db", "x"], "cannot read absent.toml"),
        (&["mirror", "courtlistener", "--db", "x", "--connections", "0"], "it must be a number from 1 on"),
        (
            &["mirror", "courtlistener", "--db", "x", "--keep-files", "--no-files"],
            "'--keep-files' cannot be used with '--no-files'",
        ),
        (&["mirror", "courtlistener", "--db", "x", "--window", "wide"], "a size is a number with a unit"),
        (&["mirror", "courtlistener", "--db", "x", "--fill", "a=b"], "that is not TABLE.COLUMN=VALUE"),
        (&["mirror", "courtlistener", "--db", "x", "--dialect", "E"], "it is one of A, B, C, D, csv"),
        (&["mirror", "courtlistener", "--db", "x", "--from", "ftp://host/a"], "s3://bucket/prefix or file:///folder"),
    ]);
}
