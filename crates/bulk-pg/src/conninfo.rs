//! Connection parameters as libpq reads them: of a URI or a `key=value` string, and where that leaves one open, of a service
//! file, the environment, a password file (PostgreSQL manual, "Connection Strings" and the chapters behind it).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

use crate::Error;

/// Parameters by libpq's keywords.
type Parameters = BTreeMap<String, String>;

/// The variables that stand for parameters (PostgreSQL manual, "Environment Variables").
const VARIABLES: [(&str, &str); 18] = [
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGDATABASE", "dbname"),
    ("PGUSER", "user"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGSERVICE", "service"),
    ("PGOPTIONS", "options"),
    ("PGAPPNAME", "application_name"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGLOADBALANCEHOSTS", "load_balance_hosts"),
];

/// Where a server on this machine has its socket, by the builds that people use.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// What there is outside of the connection string.
pub(crate) trait Surroundings {
    /// A variable; none if it is empty.
    fn variable(&self, name: &str) -> Option<String>;
    /// The home folder.
    fn home(&self) -> Option<PathBuf>;
    /// The name of the account.
    fn account(&self) -> Option<String>;
}

/// All parameters of a connection.
///
/// # Errors
///
/// [`Error::Url`], which quotes nothing of the string, as it may hold a password; and for a service that is not found.
pub(crate) fn read(text: &str, around: &impl Surroundings) -> Result<Parameters, Error> {
    let mut parameters = parse(text)?;
    let service = parameters.get("service").cloned().or_else(|| around.variable("PGSERVICE"));
    if let Some(service) = service {
        let of_service = find_service(&service, around)?;
        for (key, value) in of_service {
            parameters.entry(key).or_insert(value);
        }
    }
    for (variable, key) in VARIABLES {
        if let Some(value) = around.variable(variable) {
            parameters.entry(key.to_owned()).or_insert(value);
        }
    }
    parameters.remove("service");
    if !parameters.contains_key("user")
        && let Some(account) = around.account()
    {
        parameters.insert("user".to_owned(), account);
    }
    if !parameters.contains_key("host") && !parameters.contains_key("hostaddr") {
        parameters.insert("host".to_owned(), local_host(parameters.get("port")));
    }
    let passfile = parameters.remove("passfile").map(PathBuf::from);
    if !parameters.contains_key("password")
        && let Some(path) = passfile.or_else(|| Some(around.home()?.join(".pgpass")))
        && let Some(password) = find_password(&path, &parameters)
    {
        parameters.insert("password".to_owned(), password);
    }
    Ok(parameters)
}

/// A socket of this machine's server, if there is one; else its name.
fn local_host(port: Option<&String>) -> String {
    let socket = format!(".s.PGSQL.{}", port.map_or("5432", String::as_str));
    let there = SOCKET_FOLDERS.into_iter().find(|folder| cfg!(unix) && Path::new(folder).join(&socket).exists());
    there.unwrap_or("localhost").to_owned()
}

fn unusable(what: impl Into<String>) -> Error {
    Error::Url { what: what.into() }
}

/// What the string itself says.
fn parse(text: &str) -> Result<Parameters, Error> {
    match ["postgresql://", "postgres://"].iter().find_map(|scheme| text.strip_prefix(scheme)) {
        Some(rest) => parse_uri(rest),
        None => parse_pairs(text),
    }
}

/// `user:password@host:port,host:port/database?key=value&key=value`.
fn parse_uri(rest: &str) -> Result<Parameters, Error> {
    const FORM: &str = "it is not of the form postgres://user:password@host:port/database?option=value";
    let decode = |text: &str| {
        let decoded = percent_decode_str(text).decode_utf8();
        decoded.map(std::borrow::Cow::into_owned).map_err(|_| unusable("what a %xx of it stands for is no UTF-8"))
    };
    let mut parameters = Parameters::new();
    let mut set = |key: &str, value: &str| {
        if !value.is_empty() {
            parameters.insert(key.to_owned(), decode(value)?);
        }
        Ok::<_, Error>(())
    };
    let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    // The rest of a password would be taken for the host, and shown as such.
    if authority.matches('@').count() > 1 || database.contains('@') {
        return Err(unusable(
            "it has more than one @; write one that is a part of the user, password or an option as %40",
        ));
    }
    let (account, hosts) = authority.split_once('@').unwrap_or(("", authority));
    let (user, password) = account.split_once(':').unwrap_or((account, ""));
    set("user", user)?;
    set("password", password)?;
    set("dbname", database)?;
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',').filter(|_| !hosts.is_empty()) {
        let (name, port) = match host.strip_prefix('[') {
            Some(rest) => {
                let (name, behind) = rest.split_once(']').ok_or_else(|| unusable(FORM))?;
                (name, behind.strip_prefix(':').or(behind.is_empty().then_some("")).ok_or_else(|| unusable(FORM))?)
            }
            None => host.split_once(':').unwrap_or((host, "")),
        };
        if port.contains(':') {
            return Err(unusable(FORM));
        }
        names.push(name);
        ports.push(port);
    }
    set("host", &names.join(","))?;
    if ports.iter().any(|port| !port.is_empty()) {
        let ports: Vec<_> = ports.into_iter().map(|port| if port.is_empty() { "5432" } else { port }).collect();
        set("port", &ports.join(","))?;
    }
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').ok_or_else(|| unusable(FORM))?;
        let (key, value) = (decode(key)?, decode(value)?);
        match (key.as_str(), value.as_str()) {
            // The names that JDBC's people write.
            ("ssl", "true") => parameters.insert("sslmode".to_owned(), "require".to_owned()),
            _ => parameters.insert(key, value),
        };
    }
    Ok(parameters)
}

/// `host=localhost password='it''s'`, with libpq's quotes and backslashes.
fn parse_pairs(text: &str) -> Result<Parameters, Error> {
    const FORM: &str =
        "it is neither postgres://user:password@host:port/database nor host=... port=... dbname=... user=...";
    let mut parameters = Parameters::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, behind) = rest.split_once('=').ok_or_else(|| unusable(FORM))?;
        let key = key.trim_end();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(unusable(FORM));
        }
        let behind = behind.trim_start();
        let (value, behind) = match behind.strip_prefix('\'') {
            Some(quoted) => take_value(quoted, |c| c == '\'', true).ok_or_else(|| unusable(FORM))?,
            None => take_value(behind, char::is_whitespace, false).ok_or_else(|| unusable(FORM))?,
        };
        parameters.insert(key.to_owned(), value);
        rest = behind.trim_start();
    }
    Ok(parameters)
}

/// The value up to its end, and what is behind that; a backslash stands before a character that is taken as it is.
fn take_value(text: &str, is_end: impl Fn(char) -> bool, must_end: bool) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next()?.1),
            end if is_end(end) => return Some((value, &text[at + end.len_utf8()..])),
            other => value.push(other),
        }
    }
    (!must_end).then_some((value, ""))
}

/// The parameters of a service (PostgreSQL manual, "The Connection Service File").
fn find_service(name: &str, around: &impl Surroundings) -> Result<Parameters, Error> {
    let own = around.variable("PGSERVICEFILE").map(PathBuf::from);
    let own = own.or_else(|| Some(around.home()?.join(".pg_service.conf")));
    let shared = around.variable("PGSYSCONFDIR").map(|folder| PathBuf::from(folder).join("pg_service.conf"));
    for path in own.into_iter().chain(shared) {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(unusable(format!("its service file {}: {error}", path.display()))),
        };
        if let Some(parameters) = service(&text, name, &path)? {
            return Ok(parameters);
        }
    }
    Err(unusable(format!("its service {name:?} is in no service file")))
}

fn service(text: &str, name: &str, path: &Path) -> Result<Option<Parameters>, Error> {
    let mut found: Option<Parameters> = None;
    for (number, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            if found.is_some() {
                break;
            }
            found = (section == name).then(Parameters::new);
            continue;
        }
        let Some(parameters) = &mut found else { continue };
        let fault = || unusable(format!("line {} of its service file {} is not KEY=VALUE", number + 1, path.display()));
        let (key, value) = line.split_once('=').ok_or_else(fault)?;
        parameters.insert(key.to_owned(), value.to_owned());
    }
    Ok(found)
}

/// The password of the first line that fits (PostgreSQL manual, "The Password File"). A file that others can read is passed
/// over, as libpq does.
fn find_password(path: &Path, parameters: &Parameters) -> Option<String> {
    fs::metadata(path).ok().filter(|metadata| metadata.is_file() && is_private(metadata))?;
    let of = |key: &str| parameters.get(key).map(|value| value.split(',').next().unwrap_or_default());
    let host = of("host").or(of("hostaddr")).unwrap_or_default();
    // A socket in a usual place is that of localhost.
    let host = if SOCKET_FOLDERS.contains(&host) { "localhost" } else { host };
    let user = of("user").unwrap_or_default();
    let wanted = [host, of("port").unwrap_or("5432"), of("dbname").unwrap_or(user), user];
    password(&fs::read_to_string(path).ok()?, wanted)
}

#[cfg(unix)]
fn is_private(metadata: &fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 == 0
}

#[cfg(not(unix))]
fn is_private(_: &fs::Metadata) -> bool {
    true
}

fn password(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line;
        for wanted in wanted {
            let (field, behind) = take_value(rest, |c| c == ':', true)?;
            let is_any = rest.starts_with("*:");
            if !is_any && field != wanted {
                return None;
            }
            rest = behind;
        }
        // To the end of the line, colons and all.
        take_value(rest, |_| false, false).map(|(password, _)| password)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Around {
        variables: BTreeMap<&'static str, String>,
        home: Option<PathBuf>,
    }

    impl Surroundings for Around {
        fn variable(&self, name: &str) -> Option<String> {
            self.variables.get(name).cloned()
        }

        fn home(&self) -> Option<PathBuf> {
            self.home.clone()
        }

        fn account(&self) -> Option<String> {
            Some("account".to_owned())
        }
    }

    fn shown(parameters: &Parameters) -> String {
        parameters.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn strings_are_read_as_libpq_reads_them() {
        for (text, expected) in [
            ("", ""),
            ("postgresql://", ""),
            ("postgres://me@", "user=me"),
            ("postgresql://host/data", "dbname=data host=host"),
            (
                "postgresql://me:se%40cret@host:5433/da%2Fta",
                "dbname=da/ta host=host password=se@cret port=5433 user=me",
            ),
            ("postgresql://a:1,b,[::1]:3/", "host=a,b,::1 port=1,5432,3"),
            ("postgresql://%2Fvar%2Frun/x?sslmode=require", "dbname=x host=/var/run sslmode=require"),
            ("postgresql:///x?host=/tmp&user=me&ssl=true", "dbname=x host=/tmp sslmode=require user=me"),
            ("host=localhost  port = 5433 dbname=x", "dbname=x host=localhost port=5433"),
            (r"password='it\'s \\ ' user=a\ b", r"password=it's \  user=a b"),
            ("dbname=", "dbname="),
        ] {
            assert_eq!(shown(&parse(text).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_string() {
        for text in [
            "postgresql://me:sec@ret@host/x",
            "postgresql://me@host/x@y",
            "postgresql://[::1/secret",
            "postgresql://host:1:2/secret",
            "postgresql://host/x?secret",
            "postgresql://%ff/secret",
            "secret",
            "host=x password='secret",
            "sec ret=1",
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(!error.contains("sec") && !error.contains("ret@"), "{error}");
        }
    }

    #[test]
    fn what_is_nearer_wins() {
        let home = tempfile::tempdir().unwrap();
        let services =
            "# mine\n[other]\nhost=other\n\n[mine]\nhost=of-service\nport=7\nuser=of-service\n[mine]\nport=8\n";
        fs::write(home.path().join(".pg_service.conf"), services).unwrap();
        let mut around = Around { home: Some(home.path().to_owned()), ..Around::default() };
        for (name, value) in [("PGHOST", "of-variable"), ("PGDATABASE", "of-variable"), ("PGSERVICE", "mine")] {
            around.variables.insert(name, value.to_owned());
        }
        let read = |text: &str| shown(&read(text, &around).unwrap());
        assert_eq!(read("user=me"), "dbname=of-variable host=of-service port=7 user=me");
        assert_eq!(read("postgres://near/x?service=other"), "dbname=x host=near user=account");
        let error = super::read("service=absent", &around).unwrap_err();
        assert!(error.to_string().contains("its service \"absent\" is in no service file"), "{error}");
    }

    #[test]
    fn a_password_comes_from_the_line_that_fits() {
        let text = "# all\nhost:5432:x:me:one\nhost:*:*:you:t\\:wo\\\\\n*:*:y:*:three:four\n";
        let of = |host, port, name, user| password(text, [host, port, name, user]);
        assert_eq!(of("host", "5432", "x", "me").as_deref(), Some("one"));
        assert_eq!(of("host", "1", "z", "you").as_deref(), Some("t:wo\\"));
        assert_eq!(of("else", "1", "y", "me").as_deref(), Some("three:four"));
        assert_eq!(of("else", "1", "x", "me"), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_password_file_that_others_can_read_is_passed_over() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(".pgpass");
        fs::write(&path, "*:*:*:me:secret\n").unwrap();
        let around = Around { home: Some(home.path().to_owned()), ..Around::default() };
        for (mode, expected) in [(0o600, "secret"), (0o640, "")] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let found = read("host=h user=me", &around).unwrap();
            assert_eq!(found.get("password").map_or("", String::as_str), expected);
        }
        let found = read("postgres://me:mine@h/x", &around).unwrap();
        assert_eq!(found["password"], "mine");
    }
}
