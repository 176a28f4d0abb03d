use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};
use toml::{Table, Value};

use crate::arguments::Arguments;
use crate::exit::Failure;

/// Flags that each run has to be asked for anew.
const NOT_IN_FILES: [&str; 5] = ["config", "restart", "name", "help", "version"];

/// Flags of every command that some have no use for: a file that sets them for all others does not mean these.
const NOT_FOR: [(&str, &str); 6] = [
    ("report", "report"),
    ("report", "metrics"),
    ("doctor", "metrics"),
    ("completions", "metrics"),
    ("man", "metrics"),
    // The folder of one command is not that of all pages.
    ("man", "out"),
];

/// Reads the command line. Where it and the environment say nothing, the file of `--config` (or `BULK_CONFIG`) speaks.
///
/// Its keys are the long flags: those at the top are for every command that has them, those in a table named as a
/// command for that one, and these win.
///
/// Ends the program for `--help`, `--version` and wrong usage, as clap does.
pub(crate) fn arguments() -> Result<Arguments, Failure> {
    let mut line: Vec<OsString> = std::env::args_os().collect();
    let command = without_what_is_set(Arguments::command());
    let Some(file) = File::find(&line, &command)? else {
        let matches = matches(command, &line).unwrap_or_else(|error| error.exit());
        let is_metrics_said = is_on_line(&matches, "metrics");
        return Ok(parsed(matches, is_metrics_said));
    };
    let said = matches(file.without_requirements(command.clone()), &line).unwrap_or_else(|error| error.exit());
    let is_metrics_said = is_on_line(&said, "metrics");
    let more = file.flags(&command, &said);
    let at = line.iter().position(|argument| argument == "--").unwrap_or(line.len());
    line.splice(at..at, more);
    let matches = matches(command, &line).map_err(|error| {
        Failure::usage(format!("with the settings of {}: {}", file.path.display(), error.to_string().trim_end()))
    })?;
    Ok(parsed(matches, is_metrics_said))
}

/// The command, with nothing required that the environment says, so that its usage does not ask for it.
fn without_what_is_set(command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let command = command.mut_args(|arg| {
        let is_set = arg.get_env().is_some_and(|name| std::env::var_os(name).is_some());
        let required = arg.is_required_set() && !is_set;
        arg.required(required)
    });
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, without_what_is_set))
}

/// Parses a line. Errors have the usage of `--help`: of its own accord clap has all flags in it that are set, those of the
/// environment, too, as if they were wanted.
fn matches(mut command: Command, line: &[OsString]) -> Result<ArgMatches, clap::Error> {
    command.try_get_matches_from_mut(line).map_err(|mut error| {
        let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) else { return error };
        let usage = usage.to_string();
        command.build();
        // Behind the name of the program stand those of commands.
        for word in usage.split_whitespace().skip(2) {
            let Some(used) = command.find_subcommand(word).cloned() else { break };
            command = used;
        }
        error.insert(ContextKind::Usage, ContextValue::StyledStr(command.render_usage()));
        error
    })
}

fn parsed(matches: ArgMatches, is_metrics_said: bool) -> Arguments {
    let mut arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    arguments.common.is_metrics_said = is_metrics_said;
    arguments
}

/// Whether a flag of every command is on the command line.
fn is_on_line(mut matches: &ArgMatches, flag: &str) -> bool {
    while let Some((_, inner)) = matches.subcommand() {
        matches = inner;
    }
    matches.value_source(flag) == Some(ValueSource::CommandLine)
}

struct File {
    path: PathBuf,
    settings: Table,
}

impl File {
    /// The file that the command line names, else that of the environment, with keys that exist.
    fn find(line: &[OsString], command: &Command) -> Result<Option<Self>, Failure> {
        let mut path = std::env::var_os("BULK_CONFIG").filter(|path| !path.is_empty());
        let mut rest = line.iter().skip(1).take_while(|argument| *argument != "--");
        while let Some(argument) = rest.next() {
            if argument == "--config" {
                path = rest.next().cloned();
            } else if let Some(value) = argument.to_str().and_then(|text| text.strip_prefix("--config=")) {
                path = Some(value.into());
            }
        }
        let Some(path) = path.map(PathBuf::from) else { return Ok(None) };
        let failed = |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", path.display()));
        let text = std::fs::read_to_string(&path).map_err(|error| failed(&error))?;
        let settings: Table = text.parse().map_err(|error: toml::de::Error| {
            // Not with the line itself, which may hold a password.
            let line = error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            failed(&format_args!("line {line}: {}", error.message()))
        })?;
        check(&settings, command).map_err(|error| failed(&error))?;
        Ok(Some(Self { path, settings }))
    }

    /// The setting for a flag of the command in use.
    fn get(&self, command: &str, flag: &str) -> Option<&Value> {
        let own = self.settings.get(command).and_then(Value::as_table).and_then(|table| table.get(flag));
        own.or_else(|| self.settings.get(flag)).filter(|value| !value.is_table())
    }

    /// The command, with nothing required that the file says.
    fn without_requirements(&self, mut command: Command) -> Command {
        let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        for name in names {
            command = command.mut_subcommand(&name, |sub| self.without_requirements_of(&name, sub));
        }
        command
    }

    /// `command` is the one of that name, or one of its own commands, for which its table speaks, too.
    fn without_requirements_of(&self, name: &str, mut command: Command) -> Command {
        let inner: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        for inner in inner {
            command = command.mut_subcommand(inner, |sub| self.without_requirements_of(name, sub));
        }
        command.mut_args(|arg| {
            let is_set = arg.get_long().is_some_and(|flag| self.get(name, flag).is_some());
            let required = arg.is_required_set() && !is_set;
            arg.required(required)
        })
    }

    /// What to add to a command line that `matches`, as flags.
    fn flags(&self, command: &Command, matches: &ArgMatches) -> Vec<OsString> {
        let Some((name, mut given)) = matches.subcommand() else { return Vec::new() };
        let Some(mut sub) = command.find_subcommand(name) else { return Vec::new() };
        while let Some((inner, of_inner)) = given.subcommand() {
            let Some(found) = sub.find_subcommand(inner) else { return Vec::new() };
            (sub, given) = (found, of_inner);
        }
        let mut flags = Vec::new();
        let own = sub.get_arguments().map(|arg| (sub, arg));
        for (owner, arg) in own.chain(command.get_arguments().map(|arg| (command, arg))) {
            let Some(flag) = arg.get_long().filter(|flag| !NOT_FOR.contains(&(name, *flag))) else { continue };
            let Some(value) = self.get(name, flag) else { continue };
            let said = given.value_source(arg.get_id().as_str());
            let is_said = |said| matches!(said, Some(ValueSource::CommandLine | ValueSource::EnvVariable));
            let mut rivals = owner.get_arg_conflicts_with(arg).into_iter();
            if is_said(said) || rivals.any(|rival| is_said(given.value_source(rival.get_id().as_str()))) {
                continue;
            }
            if matches!(arg.get_action(), ArgAction::SetTrue) {
                if value.as_bool() == Some(true) {
                    flags.push(format!("--{flag}").into());
                }
                continue;
            }
            let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            flags.extend(values.iter().filter_map(text).map(|text| format!("--{flag}={text}").into()));
        }
        flags
    }
}

/// Says what in a file is no setting, or cannot be the value of one.
fn check(settings: &Table, command: &Command) -> Result<(), String> {
    for (key, value) in settings {
        match (command.find_subcommand(key), value) {
            (Some(sub), Value::Table(table)) => {
                for (key, value) in table {
                    let arg = flag(sub, key).or_else(|| own_flag(command, key));
                    check_value(key, value, arg.ok_or_else(|| format!("{} has no flag --{key}", sub.get_name()))?)?;
                }
            }
            _ => {
                check_value(key, value, flag(command, key).ok_or_else(|| format!("no command has a flag --{key}"))?)?;
            }
        }
    }
    Ok(())
}

/// A flag of a command, or of one of its own commands.
fn flag<'a>(command: &'a Command, long: &str) -> Option<&'a Arg> {
    own_flag(command, long).or_else(|| command.get_subcommands().find_map(|sub| flag(sub, long)))
}

fn own_flag<'a>(command: &'a Command, long: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(long))
}

fn check_value(key: &str, value: &Value, arg: &Arg) -> Result<(), String> {
    if NOT_IN_FILES.contains(&key) {
        return Err(format!("{key} cannot stand in a file; give it as a flag"));
    }
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, Value::Boolean(_)) => Ok(()),
        (ArgAction::SetTrue, _) => Err(format!("{key} is true or false")),
        (ArgAction::Append, Value::Array(values)) if values.iter().all(|value| text(value).is_some()) => Ok(()),
        (_, value) if text(value).is_some() => Ok(()),
        _ => Err(format!("{key} takes one value")),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(_) | Value::Table(_) => None,
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The command line of the program, as it is where the environment says nothing.
    fn command() -> Command {
        fn alone(command: Command) -> Command {
            let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
            let command = command.mut_args(|arg| arg.env(None));
            names.into_iter().fold(command, |command, name| command.mut_subcommand(name, alone))
        }
        alone(Arguments::command())
    }

    fn errors(text: &str) -> Option<String> {
        check(&text.parse().unwrap(), &command()).err()
    }

    /// The flags that the settings add to a line.
    fn added(text: &str, line: &[&str]) -> Vec<OsString> {
        let file = File { path: "bulk.toml".into(), settings: text.parse().unwrap() };
        let command = command();
        let matches = file.without_requirements(command.clone()).try_get_matches_from(line).unwrap();
        file.flags(&command, &matches)
    }

    #[test]
    fn what_is_no_setting_is_named() {
        assert_eq!(errors("db = 'x'\njobs = 3\n[mirror]\ntables = ['a', 'b']\ndate = 2026-06-30\njobs = 4"), None);
        let said = [
            ("tabels = 'x'", "no command has a flag --tabels"),
            ("[mirror]\nout = 'x'", "mirror has no flag --out"),
            ("[mirrors]\ndb = 'x'", "no command has a flag --mirrors"),
            ("[mirror]\nrestart = true", "restart cannot stand in a file; give it as a flag"),
            ("json = 'yes'", "json is true or false"),
            ("jobs = [1]", "jobs takes one value"),
            ("db = { host = 'x' }", "db takes one value"),
        ];
        for (text, error) in said {
            assert_eq!(errors(text).as_deref(), Some(error));
        }
    }

    /// The sample, as it stands and with what it has commented out.
    #[test]
    fn the_sample_is_good() {
        let sample = include_str!("../../../docs/bulk.toml");
        assert_eq!(errors(sample), None);
        let is_setting = |line: &str| {
            line.split_once(" = ")
                .is_some_and(|(key, _)| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'))
        };
        let mut more = 0;
        let lines = sample.lines().map(|line| match line.strip_prefix("# ").filter(|line| is_setting(line)) {
            Some(setting) => {
                more += 1;
                setting
            }
            None => line,
        });
        let all: Vec<_> = lines.collect();
        assert_eq!(errors(&all.join("\n")), None);
        assert_eq!(more, 4);

        // Each value is one that its flag takes.
        for (line, own) in [
            (&["bulk", "mirror", "courtlistener"][..], "--tables=courts"),
            (&["bulk", "load", "f", "--table", "t"], "--verify=full"),
            (&["bulk", "fetch", "s3://b", "--out", "o"], "--sha256"),
            (&["bulk", "sync", "s3://b", "--out", "o"], "--memory=256MiB"),
            (&["bulk", "known", "import", "s3://b", "f"], "--known=sqlite:known.db"),
            (&["bulk", "export", "spec.toml"], "--level=6"),
            (&["bulk", "crawl", "spec.toml"], "--give-up-after=50"),
        ] {
            let mut words: Vec<OsString> = line.iter().map(Into::into).collect();
            let flags = added(sample, line);
            for flag in [own, "--report=run.json"] {
                assert!(flags.iter().any(|said| said == flag), "{flag} is not in {flags:?}");
            }
            words.extend(flags);
            command().try_get_matches_from(words).unwrap();
        }
    }

    #[test]
    fn a_file_speaks_where_the_command_line_does_not() {
        let settings =
            "db = 'all'\njobs = 3\njson = true\n[mirror]\ndb = 'own'\ntables = ['a', 'b']\n[load]\nappend = false";
        assert_eq!(
            added(settings, &["bulk", "mirror", "courtlistener"]),
            ["--db=own", "--tables=a", "--tables=b", "--json", "--jobs=3"]
        );
        assert_eq!(
            added(settings, &["bulk", "--jobs", "8", "mirror", "courtlistener", "--db", "x", "--tables", "c"]),
            ["--json"]
        );
        assert_eq!(added(settings, &["bulk", "load", "f", "--table", "t", "--json"]), ["--db=all", "--jobs=3"]);
        assert_eq!(added(settings, &["bulk", "fetch", "s3://b", "--out", "o"]), ["--json", "--jobs=3"]);
        // A command's table is that of its own commands, too; a flag may be named as a command is.
        let known = "[known]\nknown = 'sqlite:a'\nformat = 'csv'";
        assert_eq!(
            added(known, &["bulk", "known", "export", "s3://b", "--out", "o"]),
            ["--format=csv", "--known=sqlite:a"]
        );
        // What shows reports does not write one over what it shows, and where nothing runs there is nothing to measure.
        let told = "report = 'run.json'\nmetrics = '9000'\njson = true";
        assert_eq!(added(told, &["bulk", "report", "run.json"]), ["--json"]);
        assert_eq!(added(told, &["bulk", "doctor"]), ["--json", "--report=run.json"]);
        let all = ["--json", "--report=run.json", "--metrics=9000"];
        assert_eq!(added(told, &["bulk", "load", "f", "--table", "t"]), all);
        assert_eq!(added("known = 'sqlite:a'", &["bulk", "diff", "s3://b"]), ["--known=sqlite:a"]);
        // A flag wins over its opposite in the file as well.
        let quiet = ["bulk", "fetch", "s3://b", "--out", "o", "--verbose"];
        assert_eq!(added("quiet = true", &quiet), [""; 0]);
    }
}
