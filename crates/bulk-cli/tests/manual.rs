//! What the program tells of itself: completions, the manual, its version.

mod support;

use std::process::{Command, Stdio};

use support::{Ran, bulk};

const COMMANDS: [&str; 14] = [
    "mirror",
    "fetch",
    "load",
    "list",
    "diff",
    "sync",
    "known",
    "export",
    "crawl",
    "report",
    "demo",
    "doctor",
    "completions",
    "man",
];

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = Ran::of(bulk(["completions", shell]));
        ran.assert(0, &[]);
        for word in COMMANDS.iter().chain(&["max-rejects", "dry-run"]) {
            assert!(ran.stdout.contains(word), "{shell}: {word}");
        }
    }
    Ran::of(bulk(["completions", "sh"])).assert(2, &["invalid value 'sh' for '<SHELL>'"]);
}

/// What bash itself makes of the script.
#[test]
fn bash_completes_commands_and_flags() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("bulk.bash");
    std::fs::write(&script, Ran::of(bulk(["completions", "bash"])).stdout).unwrap();
    let complete = |words: &[&str]| {
        let quoted: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
        let line = format!(
            "source '{}'; COMP_WORDS=({}); COMP_CWORD={}; _bulk bulk '{}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.display(),
            quoted.join(" "),
            words.len() - 1,
            words[words.len() - 1],
            words[words.len() - 2],
        );
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", &line]).stdin(Stdio::null());
        let ran = Ran::of(bash);
        assert_eq!(ran.status, Some(0), "{}", ran.stderr);
        ran.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["bulk", "mi"]), ["mirror"]);
    let flags = ["--max-rejects", "--max-record", "--max-ratio", "--max-disk"];
    assert_eq!(complete(&["bulk", "mirror", "--max-"]), flags);
    assert_eq!(complete(&["bulk", "mirror", "--orphans", ""]), ["report", "reject", "fail"]);
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = bulk(["man", "--out", "man1"]);
    command.current_dir(folder.path());
    Ran::of(command).assert(0, &["17 pages are written to man1"]);
    let mut pages: Vec<_> = COMMANDS.map(|command| format!("bulk-{command}.1")).into();
    pages.extend(["bulk.1", "bulk-known-export.1", "bulk-known-import.1"].map(str::to_owned));
    pages.sort();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder.path().join("man1")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(text.contains(&format!("\n.TH {} 1", name.trim_end_matches(".1"))), "{name}: {text}");
        // groff warns of what it does not understand.
        let mut groff = Command::new("groff");
        groff.args(["-k", "-man", "-Tutf8", "-ww", "-z"]).arg(&path).stdin(Stdio::null());
        let ran = Ran::of(groff);
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{name}");
        found.push(name);
    }
    found.sort();
    assert_eq!(found, pages);

    let ran = Ran::of(bulk(["man", "known", "import"]));
    ran.assert(0, &[]);
    assert_eq!(ran.stdout, std::fs::read_to_string(folder.path().join("man1/bulk-known-import.1")).unwrap());
    let ran = Ran::of(bulk(["man", "mirror"]));
    for text in ["bulk mirror", "BAD RECORDS AND ROWS", "\\-\\-max\\-rejects", "BULK_CONNECTIONS", "Examples:"] {
        assert!(ran.stdout.contains(text), "{text}: {}", ran.stdout);
    }
    Ran::of(bulk(["man", "mirrors"])).assert(2, &["there is no command \"mirrors\"; there are mirror, fetch, "]);
}

#[test]
fn the_version_is_a_line_or_all() {
    let number = env!("CARGO_PKG_VERSION");
    let ran = Ran::of(bulk(["-V"]));
    assert_eq!((ran.status, ran.stdout), (Some(0), format!("bulk {number}\n")));
    let ran = Ran::of(bulk(["--version"]));
    assert_eq!(ran.status, Some(0));
    assert!(ran.stdout.starts_with(&format!("bulk {number}\nfeatures: ")), "{}", ran.stdout);
}

/// Colours only where somebody wants them.
#[test]
fn help_has_colours_where_they_are_asked_for() {
    let help = |variables: &[(&str, &str)]| {
        let mut command = bulk(["--help"]);
        command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").envs(variables.iter().copied());
        Ran::of(command).stdout
    };
    assert!(!help(&[]).contains('\x1b'));
    assert!(help(&[("CLICOLOR_FORCE", "1")]).contains('\x1b'));
    assert!(!help(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]).contains('\x1b'));
}
