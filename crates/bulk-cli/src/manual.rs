//! What shells and `man` are told of the program, made from its arguments.

use std::io::Write;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use serde_json::json;

use crate::arguments::{Arguments, Common, CompletionsArguments, ManArguments};
use crate::counted::counted;
use crate::exit::{Exit, Failure};
use crate::report::Report;

pub(crate) fn completions(arguments: &CompletionsArguments, report: &Report) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut program(), "bulk", &mut script);
    let script = String::from_utf8_lossy(&script);
    report.answer("completions", script.trim_end(), json!({"shell": arguments.shell.to_string(), "script": script}));
    Exit::Done
}

pub(crate) fn man(arguments: &ManArguments, common: &Common, report: &Report) -> Result<Exit, Failure> {
    let Some(folder) = &arguments.out else {
        let page = page(find(&arguments.command)?)?;
        let page = String::from_utf8_lossy(&page);
        report.answer("manual", page.trim_end(), json!({"page": page}));
        return Ok(Exit::Done);
    };
    let failed = |path: &std::path::Path, error: std::io::Error| {
        Failure::new(Exit::Failed, anyhow::anyhow!("cannot write {}: {error}", path.display()))
    };
    let mut commands = Vec::new();
    all(find(&[])?, &mut commands);
    if common.dry_run {
        report.result(&format!("would write {} to {}", counted(commands.len(), "page", "pages"), folder.display()));
        return Ok(Exit::Done);
    }
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    let count = commands.len();
    for command in commands {
        let path = folder.join(format!("{}.1", command.get_display_name().unwrap_or_else(|| command.get_name())));
        let page = page(command)?;
        std::fs::File::create(&path)
            .and_then(|mut file| file.write_all(&page))
            .map_err(|error| failed(&path, error))?;
    }
    let shown = folder.display().to_string();
    report.event(
        "written",
        &format!("{} written to {shown}", counted(count, "page is", "pages are")),
        json!({"folder": shown, "pages": count}),
    );
    Ok(Exit::Done)
}

/// The program, each of whose commands knows its whole name.
fn program() -> Command {
    let mut program = Arguments::command().disable_help_subcommand(true);
    program.build();
    program
}

/// The command that these names lead to.
fn find(names: &[String]) -> Result<Command, Failure> {
    let mut command = program();
    for name in names {
        command = command.find_subcommand(name).cloned().ok_or_else(|| {
            let known: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
            Failure::usage(format!("there is no command {name:?}; there are {}", known.join(", ")))
        })?;
    }
    Ok(command)
}

fn all(command: Command, found: &mut Vec<Command>) {
    command.get_subcommands().for_each(|command| all(command.clone(), found));
    found.push(command);
}

fn page(command: Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    let man = Man::new(command).source(concat!("bulk ", env!("CARGO_PKG_VERSION"))).manual("Manual of bulk");
    man.render(&mut page).map_err(|error| Failure::new(Exit::Failed, error))?;
    Ok(page)
}
