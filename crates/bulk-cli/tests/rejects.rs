//! `bulk load --max-rejects`: what is good is loaded, and what is not can be had.

mod support;

use std::fs::read_to_string;

use bulk_core::RunReport;
use support::{Ran, bulk, server, sql};

#[test]
fn what_is_left_out_is_written_beside_why() {
    let folder = tempfile::tempdir().unwrap();
    let database = server().create_database("rejects").unwrap();
    sql(&database, "CREATE TABLE people (id integer PRIMARY KEY, name text)");
    std::fs::write(folder.path().join("people.csv"), "id,name\n1,a\nx,b\n2,c\n1,\"d\ne\"\n").unwrap();
    let load = |more: &[&str]| {
        let mut command = bulk(["load", "people.csv", "--table", "people", "--db", database.url()]);
        command.args(more).current_dir(folder.path());
        Ran::of(command)
    };
    let file = |name: &str| read_to_string(folder.path().join("bad").join(name));

    load(&["--rejects", "bad"]).assert(2, &["--max-rejects"]);
    load(&["--connections", "0"])
        .assert(2, &["invalid value '0' for '--connections <N>': it must be a number from 1 on"]);
    let too_many = "people.csv: more than 1 record is bad; the first one too many: record 4, byte 20: duplicate key";
    load(&["--max-rejects", "1", "--rejects", "bad"]).assert(1, &[too_many]);
    assert!(file("people.csv.rejects").is_err());
    assert_eq!(sql(&database, "SELECT count(*) FROM people"), "0");

    load(&["--max-rejects", "2", "--rejects", "bad"]).assert(3, &["people.csv: 2 records were left out"]);
    assert_eq!(sql(&database, "SELECT * FROM people ORDER BY id"), "1|a\n2|c");
    assert_eq!(file("people.csv.rejects").unwrap(), "x,b\n1,\"d\ne\"\n");
    let path = folder.path().join("people.csv").display().to_string();
    assert_eq!(
        file("people.csv.rejects.jsonl").unwrap(),
        format!(
            "{{\"file\":\"{path}\",\"record\":2,\"byte\":12,\"column\":\"id\",\"sqlstate\":\"22P02\",\"message\":\"invalid \
             input syntax for type integer: \\\"x\\\"\"}}\n\
             {{\"file\":\"{path}\",\"record\":4,\"byte\":20,\"column\":null,\"sqlstate\":\"23505\",\"message\":\"duplicate \
             key value violates unique constraint \\\"people_pkey\\\" (Key (id)=(1) already exists.)\"}}\n"
        )
    );
    // Once more: nothing is loaded, and the same is written.
    std::fs::remove_dir_all(folder.path().join("bad")).unwrap();
    load(&["--max-rejects", "2", "--rejects", "bad"]).assert(3, &["all of its 2 rows had been loaded"]);
    assert_eq!(file("people.csv.rejects").unwrap(), "x,b\n1,\"d\ne\"\n");
}

/// A run that fails has left out what came before, and its report says so; of very many it has the first thousand.
#[test]
fn the_report_has_what_is_left_out_also_of_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let database = server().create_database("noted_rejects").unwrap();
    sql(&database, "CREATE TABLE people (id integer, name text)");
    let rows = |bad: usize| (0..bad).map(|row| format!("x{row},\"{}\"\n", "n".repeat(50))).collect::<String>();
    std::fs::write(folder.path().join("people.csv"), format!("id,name\n1,a\n{}2,b\n", rows(1_200))).unwrap();
    let load = |most: &str| {
        let mut command =
            bulk(["load", "people.csv", "--table", "people", "--db", database.url(), "--max-rejects", most]);
        command.args(["--chunk-size", "4KiB", "--connections", "1", "--report", "run.json"]).current_dir(folder.path());
        let ran = Ran::of(command);
        (ran.status, RunReport::parse(&std::fs::read(folder.path().join("run.json")).unwrap()).unwrap())
    };
    let (status, report) = load("200");
    let committed = sql(&database, "SELECT count(*) FROM bulk.reject").parse::<usize>().unwrap();
    assert!(status == Some(1) && (1..=200).contains(&committed), "{committed} {report}");
    assert_eq!((report.exit, report.rejects.len(), report.rejects_left_out), (1, committed, 0));
    let (status, report) = load("2000");
    assert_eq!((status, report.files[0].rejected), (Some(3), 1_200), "{report}");
    assert_eq!((report.rejects.len(), report.rejects_left_out), (1_000, 200));
    let first = &report.rejects[0];
    assert_eq!((first.record, first.byte, first.column.as_deref()), (2, Some(12), Some("id")));
    assert!(first.file.ends_with("people.csv") && first.reason.contains("x0"), "{first:?}");
    // All of it had been loaded, and what is left out still is.
    assert_eq!(load("2000").1.rejects.len(), 1_000);
}
