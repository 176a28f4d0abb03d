//! `bulk load --max-rejects`: what is good is loaded, and what is not can be had.

mod support;

use std::fs::read_to_string;

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
    let too_many = "people.csv: more than 1 records are bad; the first one too many: record 4, byte 20: duplicate key";
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
