//! The pages of `docs/`: what they tell to paste into a shell is pasted into one, and what they say comes of it is compared.
//!
//! A block of `sh` is run by itself, in the folder of its page's earlier blocks, and must end with 0, or as `status=N` behind
//! `sh` says. A block of `text` right behind it has lines of what it prints, in their order: `…` stands for anything.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use support::bulk;

/// The pages have this command, by which their figures come about.
const SERVE: [&str; 4] = ["demo", "--serve", "--scale", "0.02"];

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

/// A command of a page, and what it says of it.
#[derive(Debug, Default, PartialEq)]
struct Block {
    line: usize,
    script: String,
    status: i32,
    printed: Vec<String>,
}

/// The commands of a page.
#[track_caller]
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = text.lines().enumerate();
    // Whether nothing but empty lines stands between the last command and here.
    let mut is_behind = false;
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            is_behind &= line.is_empty();
            continue;
        };
        let content: Vec<_> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        let mut words = info.split(' ');
        match words.next() {
            Some("sh") => {
                let status = match words.next().map(|word| word.split_once('=')) {
                    None => 0,
                    Some(Some(("status", status))) => status.parse().unwrap(),
                    Some(other) => panic!("line {}: {other:?}", number + 1),
                };
                blocks.push(Block { line: number + 1, script: content.join("\n"), status, ..Block::default() });
                is_behind = true;
            }
            Some("text") if is_behind => {
                let last = blocks.last_mut().unwrap();
                last.printed = content.into_iter().map(str::to_owned).collect();
                is_behind = false;
            }
            _ => is_behind = false,
        }
    }
    blocks
}

/// Whether a line is such, where `…` stands for anything.
fn is_like(line: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// `bulk demo --serve`, until it is dropped.
struct Playground {
    program: Child,
    variables: Vec<(String, String)>,
}

impl Playground {
    fn start() -> Self {
        let mut command = bulk(SERVE);
        // With a server of its own, so that commands are run by the role that users get.
        command.arg("--quiet").stdout(Stdio::piped());
        let mut program = command.spawn().unwrap();
        let lines = BufReader::new(program.stdout.take().unwrap()).lines();
        let variable = |line: std::io::Result<String>| {
            let line = line.unwrap();
            let (name, value) = line.strip_prefix("export ").and_then(|rest| rest.split_once('=')).unwrap();
            (name.to_owned(), value.trim_matches('\'').to_owned())
        };
        let variables: Vec<_> = lines.take(3).map(variable).collect();
        assert_eq!(
            variables.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["BULK_DB", "BULK_ENDPOINT", "API"]
        );
        Self { program, variables }
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// A shell with nothing in its environment but what the pages say.
fn shell(script: &str, folder: &Path, variables: &[(String, String)]) -> Command {
    let program = bulk([""; 0]);
    let mut path = vec![Path::new(program.get_program()).parent().unwrap().to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let mut command = Command::new("bash");
    for (name, _) in program.get_envs().filter(|(_, value)| value.is_none()) {
        command.env_remove(name);
    }
    command.env("PATH", std::env::join_paths(path).unwrap());
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    // Where it writes what nobody asked for.
    command.env("HOME", folder).env_remove("XDG_STATE_HOME").current_dir(folder).stdin(Stdio::null());
    command.args(["-euo", "pipefail", "-c", &format!("exec 2>&1\n{script}")]);
    command
}

/// Runs the commands of a page.
#[track_caller]
fn run(page: &str) {
    let text = std::fs::read_to_string(docs().join(page)).unwrap();
    let blocks = blocks(&text);
    assert!(!blocks.is_empty(), "{page} has no commands");
    assert!(text.contains(&format!("`bulk {}`", SERVE.join(" "))), "{page} does not say what its commands need");
    let (folder, playground) = (tempfile::tempdir().unwrap(), Playground::start());
    for Block { line, script, status, printed } in blocks {
        let output = shell(&script, folder.path(), &playground.variables).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(status), "docs/{page}:{line}:\n{script}\n{said}");
        let mut lines = said.lines();
        for pattern in printed {
            let is_there = lines.any(|line| is_like(line.trim_end(), pattern.trim_end()));
            assert!(is_there, "docs/{page}:{line}:\n{script}\n{pattern:?} is not there, or not in its place:\n{said}");
        }
    }
}

#[test]
fn mirror() {
    run("mirror.md");
}

#[test]
fn fetch() {
    run("fetch.md");
}

#[test]
fn sync() {
    run("sync.md");
}

#[test]
fn export() {
    run("export.md");
}

#[test]
fn crawl() {
    run("crawl.md");
}

#[test]
fn operate() {
    run("operate.md");
}

/// Each page is in the index, and what a page leads to is there.
#[test]
fn links_lead_somewhere() {
    let mut pages = BTreeSet::new();
    for entry in std::fs::read_dir(docs()).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for rest in text.split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap();
            assert!(
                target.is_empty() || target.starts_with("https://") || docs().join(target).exists(),
                "{}: {target}",
                path.display()
            );
        }
        pages.insert(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    assert!(pages.remove("README.md"));
    let index = std::fs::read_to_string(docs().join("README.md")).unwrap();
    for page in pages {
        assert!(index.contains(&format!("]({page})")), "{page} is not in the index");
    }
}

#[test]
fn blocks_are_found_with_what_is_said_of_them() {
    let text = "a\n```sh\none\n\ntwo\n```\n\n```text\nseen\n```\n```text\nnot its\n```\n```sh status=3\nx\n```\nb\n```text\nno\n```\n";
    let expected = [
        Block { line: 2, script: "one\n\ntwo".to_owned(), status: 0, printed: vec!["seen".to_owned()] },
        Block { line: 14, script: "x".to_owned(), status: 3, printed: Vec::new() },
    ];
    assert_eq!(blocks(text), expected);
    for (line, pattern) in
        [("abc", "abc"), ("abc", "a…"), ("abc", "…c"), ("abcabc", "a…b…c"), ("abc", "…"), ("ab", "a…b")]
    {
        assert!(is_like(line, pattern), "{line} {pattern}");
    }
    for (line, pattern) in [("abcd", "abc"), ("abc", "b…"), ("abc", "…b"), ("ab", "a…b…b"), ("a", "a…a")] {
        assert!(!is_like(line, pattern), "{line} {pattern}");
    }
}
