//! What a generator that shares no code with this project wrote arrives in the tables: its own program compares them with
//! what it knows of its rows, over psql.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Bench, server, shared};

// Each dialect with a date of its era.

#[test]
fn dialect_a() {
    assert_arrives("A", "2022-08-31");
}

#[test]
fn dialect_b() {
    assert_arrives("B", "2023-12-04");
}

#[test]
fn dialect_c() {
    assert_arrives("C", "2024-07-31");
}

#[test]
fn dialect_d() {
    assert_arrives("D", "2026-06-30");
}

#[track_caller]
fn assert_arrives(dialect: &str, date: &str) {
    let Some(programs) = shared("courtlistener") else { return };
    let bench = Bench::new();
    let data = bench.data();
    let mut generate = Command::new("python3");
    generate.arg(programs.join("make_snapshot.py")).arg("--out").arg(&data);
    generate.args(["--scale", "0.01", "--nasty", "--orphans", "100", "--schema", "published"]);
    run(generate.args(["--dialect", dialect, "--date", date]));

    let ran = bench.mirror(&[]);
    ran.assert(3, &[]);
    assert_orphans_named(&data, &ran.stderr);
    let mut compare = Command::new("python3");
    compare.arg(programs.join("compare_truth.py")).arg(&data).arg(bench.database.url());
    assert_eq!(run(with_psql(&mut compare)), "33 tables as expected, 0 not\n");
    bench.mirror(&[]).assert(3, &["33 of 33 files had been loaded"]);
}

/// Asserts that each foreign key that the generator's orphans break is named with their number, and no other key but
/// that of the groups of parentheticals, which are never published.
#[track_caller]
fn assert_orphans_named(data: &Path, said: &str) {
    let truth: Value = serde_json::from_slice(&std::fs::read(data.join("truth.json")).unwrap()).unwrap();
    let mut broken = BTreeMap::<(&str, &str), usize>::new();
    for orphan in truth["orphans"].as_array().unwrap() {
        *broken.entry((orphan[0].as_str().unwrap(), orphan[2].as_str().unwrap())).or_default() += 1;
    }
    let named: Vec<_> = said.lines().filter(|line| line.contains(" stays NOT VALID: ")).collect();
    assert_eq!(named.len(), broken.len() + 1, "{broken:?}\n{said}");
    for ((table, column), rows) in broken {
        let refer = if rows == 1 { "row refers" } else { "rows refer" };
        let what = format!(" of public.{table} stays NOT VALID: {rows} {refer} to nothing");
        // Dockets that it adds for other reasons may have made-up parents too, which it does not list.
        let what = if column == "parent_docket_id" { format!(" of public.{table} stays") } else { what };
        assert!(named.iter().any(|line| line.contains(&what)), "{column}:{what} is not in:\n{said}");
    }
}

/// Lets a program find psql, and nothing of the environment that would change what psql does.
#[track_caller]
fn with_psql(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = server().bin_dir().map(Path::to_owned).into_iter().chain(std::env::split_paths(&path));
    let folders: Vec<PathBuf> = folders.collect();
    let found = folders.iter().any(|folder| folder.join("psql").is_file());
    assert!(found, "psql is needed on PATH: apt-get install postgresql-client");
    let path = std::env::join_paths(folders).unwrap();
    command.env("PATH", path)
}

/// Runs one of the generator's programs, which must succeed, and gives what it printed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().expect("python3 is needed: apt-get install python3");
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{command:?}\n{stdout}{}", String::from_utf8_lossy(&output.stderr));
    stdout
}
