//! `bulk mirror` on a real PostgreSQL and a real S3 protocol server, from the outside.

mod support;

use std::cmp::Reverse;
use std::io::Write;
use std::path::Path;

use bulk_testkit::s3::{Fault, Rule};
use bulk_testkit::snapshot::{self, Dialect, PLACEHOLDER, SchemaFlavour, Spec};
use support::{BUCKET, Bench, NOWHERE, Ran, bulk, files, gets, kill_when, small};

#[test]
fn the_published_schema_with_orphans_loads_in_one_command_and_a_second_run_loads_nothing() {
    let mut spec = small();
    spec.schema = SchemaFlavour::Published;
    spec.orphans = 40;
    let (bench, made) = Bench::with(&spec);
    bench.mirror(&[]).assert(
        3,
        &[
            "5 rows refer to nothing in public.search_opinioncluster",
            "needs a function or table that is neither in the file nor in the database",
            "column filepath_pdf_scan is not in the file; every row gets \"\"",
        ],
    );
    bench.assert_holds(&made);
    assert_eq!(bench.sql("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND NOT convalidated"), "4");
    assert_eq!(
        bench.sql("SELECT nextval('search_docket_id_seq') = max(id) + 1 FROM search_docket"),
        "t",
        "the sequence stands behind the largest id"
    );
    bench.bucket.clear_requests();
    bench.mirror(&[]).assert(3, &["33 of 33 files had been loaded", "nothing to load", "NOT VALID: 5 rows"]);
    let fetched: Vec<_> = gets(&bench.bucket).into_iter().filter(|key| key.ends_with(".bz2")).collect();
    assert_eq!(fetched, Vec::<String>::new());
    bench.assert_holds(&made);
}

#[test]
fn orphans_are_left_out_if_asked_for_or_fail_the_run() {
    let mut spec = small();
    spec.schema = SchemaFlavour::Published;
    spec.orphans = 40;
    let (bench, made) = Bench::with(&spec);
    let refused = "rows refer to nothing, and --orphans fail was asked for";
    bench
        .mirror(&["--orphans", "fail"])
        .assert(1, &["5 rows refer to nothing in public.search_opinioncluster", refused]);
    bench.assert_holds(&made);
    bench.mirror(&["--orphans", "fail"]).assert(1, &[refused]);

    let folder = bench.folder.path().join("rejects");
    let rejects = ["--orphans", "reject", "--rejects", folder.to_str().unwrap()];
    bench.mirror(&rejects).assert(3, &["rows that refer to nothing in public.search_opinioncluster are moved"]);
    assert_eq!(bench.sql("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND NOT convalidated"), "0");
    let orphans: usize = bench.sql("SELECT count(*) FROM bulk.reject WHERE fields IS NOT NULL").parse().unwrap();
    assert!(orphans >= 40, "{orphans}");
    let lines = files(&folder).into_iter().filter(|(name, _)| name.ends_with(".jsonl"));
    let lines: usize = lines.map(|(_, content)| content.iter().filter(|byte| **byte == b'\n').count()).sum();
    assert_eq!(lines, orphans);
    // What is left out is told as long as it is.
    bench.mirror(&rejects).assert(3, &["33 of 33 files had been loaded", "are left out, see bulk.reject"]);
    assert_eq!(bench.sql("SELECT count(*) FROM bulk.reject"), orphans.to_string());
}

#[test]
fn bad_records_of_a_snapshot_are_left_out_and_written_down() {
    let (bench, made) = Bench::with(&small());
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    encoder.write_all(b"\"bad\"\n").unwrap();
    let mut courts = std::fs::OpenOptions::new().append(true).open(bench.file("courts")).unwrap();
    courts.write_all(&encoder.finish().unwrap()).unwrap();
    bench.mirror(&[]).assert(1, &["courts-2026-06-30.csv.bz2: record", "1 file is not loaded"]);

    let folder = bench.folder.path().join("rejects");
    let rejects = ["--max-rejects", "1", "--rejects", folder.to_str().unwrap()];
    bench.mirror(&rejects).assert(3, &["courts-2026-06-30.csv.bz2: 1 record was left out"]);
    let written = files(&folder);
    assert_eq!(
        written.keys().collect::<Vec<_>>(),
        ["courts-2026-06-30.csv.bz2.rejects", "courts-2026-06-30.csv.bz2.rejects.jsonl"]
    );
    assert_eq!(written["courts-2026-06-30.csv.bz2.rejects"], b"\"bad\"\n");
    bench.assert_holds(&made);
    bench.mirror(&rejects).assert(3, &["public.search_court: 1 record of its file is left out, see bulk.reject"]);
}

/// How many chunks are committed.
fn chunks(bench: &Bench) -> u32 {
    match bench.sql("SELECT to_regclass('bulk.chunk') IS NOT NULL").as_str() {
        "t" => bench.sql("SELECT count(*) FROM bulk.chunk").parse().unwrap(),
        _ => 0,
    }
}

#[test]
fn killed_in_the_middle_and_run_again_gives_the_same_tables() {
    for more in [&[][..], &["--no-files"]] {
        let (bench, made) = Bench::with(&Spec { scale: 0.4, ..Spec::default() });
        for _ in 0..2 {
            let before = chunks(&bench);
            kill_when(bench.command(more), || chunks(&bench) > before);
        }
        bench.mirror(more).assert(3, &[]);
        bench.assert_holds(&made);
        assert_eq!(left(&bench), [""; 0]);
    }
}

#[test]
fn files_come_in_the_order_that_was_asked_for() {
    let (bench, made) = Bench::with(&small());
    let list = bench.folder.path().join("order.txt");
    std::fs::write(&list, "dockets\nbulk-data/courts-2026-06-30.csv.bz2\n").unwrap();
    let list = list.to_str().unwrap().to_owned();
    let planned = |order: &[&str]| -> Vec<(u64, String)> {
        let ran = bench.mirror(&[&["--dry-run", "--json"], order].concat());
        let events = ran.events_of("planned");
        events.iter().map(|event| (event["size"].as_u64().unwrap(), event["file"].as_str().unwrap().into())).collect()
    };
    let smallest_first = planned(&[]);
    assert_eq!(smallest_first.len(), made.files.len());
    assert!(smallest_first.is_sorted_by_key(|(size, _)| *size));
    assert!(planned(&["--order", "size:desc"]).is_sorted_by_key(|(size, _)| Reverse(*size)));
    assert!(planned(&["--order", "name"]).is_sorted_by_key(|(_, file)| file.clone()));
    let listed: Vec<_> = planned(&["--order", &list]).into_iter().take(2).map(|(_, file)| file).collect();
    assert_eq!(listed, ["bulk-data/dockets-2026-06-30.csv.bz2", "bulk-data/courts-2026-06-30.csv.bz2"]);
    bench.mirror(&["--order", "sise"]).assert(2, &["--order sise: it is neither size, name or listed nor a file"]);
}

#[test]
fn tables_are_indexed_while_others_are_loaded() {
    let (bench, made) = Bench::with(&small());
    // The last one of the order.
    let stall = Rule::new(Fault::StallAfter(0)).key("bulk-data/opinions-2026-06-30.csv.bz2");
    bench.bucket.fault(stall);
    let is_indexed = || bench.sql("SELECT count(*) FROM pg_indexes WHERE indexname = 'search_docket_pkey'") == "1";
    kill_when(bench.command(&[]), is_indexed);
    assert_eq!(bench.sql("SELECT count(*) FROM search_opinion"), "0");
    bench.bucket.clear_faults();
    bench.mirror(&[]).assert(3, &[]);
    bench.assert_holds(&made);
}

#[test]
fn a_run_may_keep_files_and_the_next_none_and_the_other_way_round() {
    for modes in [[&[][..], &["--no-files"]], [&["--no-files"], &[]]] {
        let (bench, made) = Bench::with(&Spec { scale: 0.2, ..Spec::default() });
        kill_when(bench.command(modes[0]), || chunks(&bench) > 0);
        bench.mirror(modes[1]).assert(3, &[]);
        bench.assert_holds(&made);
        assert_eq!(left(&bench), [""; 0]);
    }
}

#[test]
fn what_had_arrived_before_a_kill_is_not_fetched_again() {
    let (bench, made) = Bench::with(&Spec { scale: 0.2, ..Spec::default() });
    let opinions = bench.folder.path().join("files/opinions-2026-06-30.csv.bz2");
    // It is the last one of the order, and the only session waits for one before it.
    let stall = Rule::new(Fault::StallAfter(0)).key("bulk-data/dockets-2026-06-30.csv.bz2");
    let stall = bench.bucket.fault(stall);
    kill_when(bench.command(&["--connections", "1"]), || chunks(&bench) > 0 && opinions.exists());
    assert!(opinions.exists(), "it was not loaded yet");
    stall.remove();
    bench.bucket.clear_requests();
    bench.mirror(&[]).assert(3, &[]);
    let asked = gets(&bench.bucket);
    assert!(!asked.contains(&"bulk-data/opinions-2026-06-30.csv.bz2".to_owned()), "{asked:?}");
    bench.assert_holds(&made);
    assert_eq!(left(&bench), [""; 0]);
}

#[test]
fn kept_files_have_a_manifest() {
    let (bench, made) = Bench::with(&small());
    bench.mirror(&["--keep-files", "-v"]).assert(3, &["wide values are compressed by lz4; --no-lz4 leaves that"]);
    let folder = bench.folder.path().join("files");
    let mut command = bulk(["fetch", "--verify", "--out"]);
    command.arg(&folder);
    // The schema is one of them.
    Ran::of(command).assert(0, &[&format!("{} files,", made.files.len() + 1)]);
}

/// What is there of files when all are loaded, parts and records included.
fn left(bench: &Bench) -> Vec<String> {
    let folder = bench.folder.path().join("files");
    let all = |folder: &Path| files(folder).into_keys();
    all(&folder).chain(all(&folder.join(".bulk"))).collect()
}

#[test]
fn the_newest_complete_snapshot_is_taken_and_placeholders_are_named() {
    let mut spec = small();
    spec.date = "2026-03-31".parse().unwrap();
    let (bench, made) = Bench::with(&spec);
    let mut newer = small();
    newer.seed = 2;
    snapshot::generate(&newer, &bench.data()).unwrap();
    std::fs::write(bench.file("dockets"), PLACEHOLDER).unwrap();
    bench
        .mirror(&[])
        .assert(3, &["passed over 2026-06-30: dockets is a placeholder of 14 bytes", "snapshot 2026-03-31"]);
    bench.assert_holds(&made);
    bench
        .mirror(&["--date", "2026-06-30"])
        .assert(1, &["no snapshot is complete: 2026-06-30: dockets is a placeholder of 14 bytes"]);
    // Another snapshot is not poured into the tables of the first.
    std::fs::remove_file(bench.file("dockets")).unwrap();
    bench
        .mirror(&["--date", "2026-06-30", "--tables", "courts"])
        .assert(1, &["holds the rows of bulk-data/courts-2026-03-31.csv.bz2; load it anew with --restart"]);
}

#[test]
fn an_optional_placeholder_is_left_out_and_said() {
    let (bench, _) = Bench::with(&small());
    std::fs::write(bench.file("unmatched-citations"), PLACEHOLDER).unwrap();
    bench.mirror(&[]).assert(3, &["unmatched-citations of 2026-06-30 is a placeholder of 14 bytes; it is not loaded"]);
    assert_eq!(bench.sql("SELECT count(*) FROM citations_unmatchedcitation"), "0");
}

#[test]
fn damaged_files_are_named_and_nothing_half_loaded_is_called_done() {
    let (bench, made) = Bench::with(&small());
    let whole = std::fs::read(bench.file("dockets")).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x10;
    for (bytes, said) in
        [(whole[..whole.len() / 2].to_vec(), "dockets-2026-06-30.csv.bz2"), (flipped, "dockets-2026-06-30.csv.bz2")]
    {
        std::fs::write(bench.file("dockets"), bytes).unwrap();
        let ran = bench.mirror(&["--restart"]);
        ran.assert(1, &[said, "1 file is not loaded"]);
        assert_eq!(bench.sql("SELECT count(*) FROM bulk.load WHERE finished_at IS NULL"), "1");
        assert_eq!(bench.sql("SELECT count(*) FROM bulk.load WHERE finished_at IS NOT NULL"), "32");
    }
    std::fs::write(bench.file("dockets"), whole).unwrap();
    bench.mirror(&["--restart"]).assert(3, &[]);
    bench.assert_holds(&made);
}

#[test]
fn a_wrong_dialect_by_flag_is_refused() {
    let mut spec = small();
    spec.nasty = true;
    for dialect in [Dialect::A, Dialect::B, Dialect::C, Dialect::D] {
        spec.dialect = dialect;
        let (bench, _) = Bench::with(&spec);
        let wrong = if matches!(dialect, Dialect::D) { "B" } else { "D" };
        let ran = bench.mirror(&["--dialect", wrong, "--tables", "opinion-clusters"]);
        ran.assert(1, &["opinion-clusters-2026-06-30.csv.bz2", "--dialect"]);
        assert_eq!(bench.sql("SELECT count(*) FROM search_opinioncluster"), "0");
    }
}

#[test]
fn a_column_that_may_not_be_null_and_is_not_exported_is_refused_with_the_flag_that_mends_it() {
    let (bench, _) = Bench::with(&small());
    let dataset = bench.folder.path().join("mine.toml");
    std::fs::write(
        &dataset,
        format!(
            "title = 'mine'\nsource = 's3://{BUCKET}/bulk-data/'\nanonymous = true\n[tables]\nopinion-clusters = 'search_opinioncluster'\n"
        ),
    )
    .unwrap();
    let run = |more: &[&str]| Ran::of(bench.command_of(dataset.to_str().unwrap(), more));
    run(&[]).assert(
        1,
        &[
            "filepath_pdf_scan",
            "--fill search_opinioncluster.filepath_pdf_scan=VALUE",
            "opinion-clusters-2026-06-30.csv.bz2",
        ],
    );
    let fill =
        ["--fill", "search_opinioncluster.filepath_pdf_scan=", "--fill", "search_opinioncluster.filepath_xml_scan=x"];
    assert!([0, 3].contains(&run(&fill).status.unwrap()));
    assert_eq!(
        bench.sql("SELECT DISTINCT filepath_pdf_scan || '|' || filepath_xml_scan FROM search_opinioncluster"),
        "|x"
    );
}

#[test]
fn what_is_wrong_outside_is_said_with_its_own_status() {
    let (bench, _) = Bench::with(&small());
    bench.mirror(&["--tables", "nonsense"]).assert(2, &["--tables nonsense: the data set has no such file"]);
    let mut unreachable = bench.command(&[]);
    unreachable.env("BULK_DB", format!("postgresql://postgres@{NOWHERE}/none"));
    Ran::of(unreachable)
        .assert(4, &["cannot connect to database \"none\" at 127.0.0.1:1", "check host and port in --db"]);
    let denied = Fault::Status { code: 403, error: "AccessDenied".into(), retry_after: None };
    let denied = bench.bucket.fault(Rule::new(denied).list());
    bench.mirror(&[]).assert(6, &["is denied (AccessDenied", "check the credentials"]);
    denied.remove();
    let mut nowhere = bulk(["mirror", "courtlistener", "--endpoint", &format!("http://{NOWHERE}")]);
    nowhere.env("BULK_DB", bench.database.url());
    Ran::of(nowhere)
        .assert(4, &["gave up after 8 attempts", &format!("http://{NOWHERE}"), "cannot connect", "check the network"]);
    Ran::of(bulk(["mirror", "nothing", "--db", "x"]))
        .assert(2, &["there is no data set \"nothing\"; the catalogue has courtlistener"]);
}

#[test]
fn a_table_that_no_schema_makes_is_named() {
    let (bench, _) = Bench::with(&small());
    let schema = bench.data().join("schema-2026-07-01.sql");
    std::fs::write(&schema, "CREATE TABLE public.other (id integer);").unwrap();
    bench.mirror(&["--tables", "courts"]).assert(1, &["table public.search_court does not exist"]);
}
