use std::{
    collections::HashSet,
    env, fs, io, iter,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use super::{Binaries, Error, Version, account::Account, install};

/// The programs that must live together.
const PROGRAMS: [&str; 3] = ["initdb", "postgres", "pg_ctl"];

/// Where packages put each major version in a folder of its own: the folder above, what its name begins with before
/// the version, and the folder of programs below.
const VERSIONED: [(&str, &str, &str); 7] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ("/opt/local/lib", "postgresql", "bin"),
];

/// Where there is one version only.
const FIXED: [&str; 2] = ["/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql/bin"];

/// A PostgreSQL server that this account can run.
#[derive(Clone, Debug)]
pub(super) struct Installation {
    pub(super) bin_dir: PathBuf,
    pub(super) version: Version,
}

/// Finds the programs.
pub(super) fn find(binaries: &Binaries, account: &Account) -> Result<Installation, Error> {
    match binaries {
        Binaries::Installed => first(usual_places(), account).or_else(|rejected| downloaded(account, rejected)),
        Binaries::In(folder) => inspect(folder, account)
            .map_err(|reason| Error::NoBinaries { rejected: vec![reason], install: install::command() }),
        Binaries::Downloaded => downloaded(account, Vec::new()),
    }
}

/// The `psql` beside the server, or else the first one in the usual places.
pub(super) fn find_psql(bin_dir: Option<&Path>) -> Result<PathBuf, Error> {
    bin_dir
        .map(Path::to_owned)
        .into_iter()
        .chain(search_path())
        .chain(usual_places())
        .map(|folder| folder.join("psql"))
        .find(|program| program.is_file())
        .ok_or_else(|| Error::NoPsql { install: install::command() })
}

#[cfg(feature = "postgres-download")]
fn downloaded(account: &Account, _: Vec<String>) -> Result<Installation, Error> {
    super::download::installation(account)
}

#[cfg(not(feature = "postgres-download"))]
fn downloaded(_: &Account, rejected: Vec<String>) -> Result<Installation, Error> {
    Err(Error::NoBinaries { rejected, install: install::command() })
}

/// The first folder with a server that will do, or why those with parts of one will not.
fn first(places: impl IntoIterator<Item = PathBuf>, account: &Account) -> Result<Installation, Vec<String>> {
    let mut rejected = Vec::new();
    for place in places {
        if PROGRAMS.iter().any(|program| place.join(program).exists()) {
            match inspect(&place, account) {
                Ok(installation) => return Ok(installation),
                Err(reason) => rejected.push(reason),
            }
        }
    }
    Err(rejected)
}

/// Checks that a folder has all the programs, and that the account can run a server of a version that will do.
pub(super) fn inspect(folder: &Path, account: &Account) -> Result<Installation, String> {
    let shown = folder.display();
    if let Some(missing) = PROGRAMS.iter().find(|program| !folder.join(program).is_file()) {
        return Err(format!("{shown} has no {missing}"));
    }
    let run = || account.command(folder.join("postgres")).arg("--version").output();
    // A program that was unpacked just now is busy as long as a child that another thread forked meanwhile has the file
    // open, which is until that child's exec.
    let is_busy = |error: &io::Error| error.kind() == io::ErrorKind::ExecutableFileBusy;
    let mut output = run();
    for _ in 0..100 {
        if !output.as_ref().is_err_and(is_busy) {
            break;
        }
        thread::sleep(Duration::from_millis(10));
        output = run();
    }
    let output =
        output.map_err(|error| format!("the account {} cannot run {shown}/postgres: {error}", account.name))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let version = Version::of_program(&printed)
        .filter(|_| output.status.success())
        .ok_or_else(|| format!("{shown}/postgres does not tell its version"))?;
    if version < Version::OLDEST {
        return Err(format!("{shown} has PostgreSQL {version}, older than {}", Version::OLDEST.major));
    }
    Ok(Installation { bin_dir: folder.to_owned(), version })
}

/// Folders to look in, best first, each once; looked for only as far as they are taken.
fn usual_places() -> impl Iterator<Item = PathBuf> {
    let linked = search_path().flat_map(|folder| {
        ["postgres", "initdb"]
            .into_iter()
            .filter_map(move |program| Some(folder.join(program).canonicalize().ok()?.parent()?.to_owned()))
    });
    let configured = || {
        let output = Command::new("pg_config").arg("--bindir").output().ok()?;
        output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
    };
    let versioned = VERSIONED
        .iter()
        .flat_map(|&(parent, prefix, below)| newest_first(Path::new(parent), prefix).map(move |dir| dir.join(below)));

    let mut seen = HashSet::new();
    linked
        .chain(iter::once_with(configured).flatten())
        .chain(versioned)
        .chain(FIXED.iter().map(PathBuf::from))
        .filter(move |place| seen.insert(place.clone()))
}

fn search_path() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).filter(|folder| folder.is_absolute()).collect::<Vec<_>>().into_iter()
}

/// The folders `prefix` + version in `parent`, newest version first.
fn newest_first(parent: &Path, prefix: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let mut found: Vec<(Vec<u32>, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
            Some((version, entry.path()))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, folder)| folder)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

    use super::{first, inspect, newest_first};
    use crate::postgres::{Version, account::Account};

    fn own_account() -> Account {
        Account { name: "tester".to_owned(), ids: None }
    }

    /// Programs that print `output`, as a server's do with `--version`. Another process writes them: were they open
    /// for writing here while another test forks, they could not be run (ETXTBSY).
    fn programs(folder: &Path, names: &[&str], output: &str) {
        fs::create_dir_all(folder).unwrap();
        for name in names {
            let script = r#"printf '#!/bin/sh\necho "%s"\n' "$1" >"$2" && chmod 755 "$2""#;
            let status = Command::new("sh").args(["-c", script, "sh", output]).arg(folder.join(name)).status();
            assert!(status.unwrap().success());
        }
    }

    #[test]
    fn versions_are_sorted_as_numbers() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["pgsql-9.6", "pgsql-16", "pgsql-9", "pgsql-17", "pgsql-", "pgsql-x", "17"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        let found: Vec<_> = newest_first(parent.path(), "pgsql-")
            .map(|folder| folder.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(found, ["pgsql-17", "pgsql-16", "pgsql-9.6", "pgsql-9"]);
        assert_eq!(newest_first(Path::new("/does/not/exist"), "").count(), 0);
    }

    #[test]
    fn the_first_folder_that_will_do_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        programs(&at("client"), &["psql"], "psql (PostgreSQL) 17.5");
        programs(&at("half"), &["postgres", "initdb"], "postgres (PostgreSQL) 17.5");
        programs(&at("old"), &["postgres", "initdb", "pg_ctl"], "postgres (PostgreSQL) 12.22");
        programs(&at("strange"), &["postgres", "initdb", "pg_ctl"], "hello");
        programs(&at("good"), &["postgres", "initdb", "pg_ctl"], "postgres (PostgreSQL) 16.4");
        programs(&at("later"), &["postgres", "initdb", "pg_ctl"], "postgres (PostgreSQL) 17.5");

        let all = ["missing", "client", "half", "old", "strange", "good", "later"].map(at);
        let found = first(all, &own_account()).unwrap();
        assert_eq!(found.bin_dir, at("good"));
        assert_eq!(found.version, Version { major: 16, minor: 4 });

        let root = root.path().display();
        let rejected = first(["missing", "client", "half", "old", "strange"].map(at), &own_account());
        assert_eq!(
            rejected.unwrap_err(),
            [
                format!("{root}/half has no pg_ctl"),
                format!("{root}/old has PostgreSQL 12.22, older than 13"),
                format!("{root}/strange/postgres does not tell its version"),
            ]
        );
    }

    #[test]
    fn a_program_that_cannot_run_is_named() {
        let root = tempfile::tempdir().unwrap();
        programs(root.path(), &["postgres", "initdb", "pg_ctl"], "postgres (PostgreSQL) 16.4");
        fs::set_permissions(root.path().join("postgres"), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(
            inspect(root.path(), &own_account()).unwrap_err(),
            format!(
                "the account tester cannot run {}/postgres: Permission denied (os error 13)",
                root.path().display()
            )
        );
    }
}
