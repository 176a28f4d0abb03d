//! Connection parameters as libpq reads them: of a URI or a `key=value` string, and where that leaves one open, of a service
//! file, the environment, a password file (PostgreSQL manual, "Connection Strings" and the chapters behind it).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

use crate::Error;

/// Parameters by libpq's keywords.
type Parameters = BTreeMap<String, String>;

/// The variables that stand for parameters (PostgreSQL manual, "Environment Variables").
const VARIABLES: [(&str, &str); 27] = [
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
    // Who sets one of these wants it to hold: what cannot be done is refused.
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLCRLDIR", "sslcrldir"),
    ("PGSSLCERTMODE", "sslcertmode"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGREQUIREPEER", "requirepeer"),
];

/// Where a server on this machine has its socket, by the builds that people use: of the systems' packages, and PostgreSQL's
/// own.
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

/// One place where a server may be, with the password for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// A name, an address, or the folder of a socket.
    pub(crate) host: String,
    /// The address, where the name is not to be looked up.
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: u16,
    pub(crate) password: Option<String>,
}

impl Place {
    /// Whether it is a socket of this machine, where nothing is encrypted.
    pub(crate) fn is_socket(&self) -> bool {
        self.address.is_none() && self.host.starts_with(['/', '@'])
    }
}

/// The places in the order in which they are to be tried, and all other parameters of a connection, empty ones left out.
///
/// # Errors
///
/// [`Error::Url`], which quotes nothing of the string, as it may hold a password; and for a service that is not found.
pub(crate) fn read(text: &str, around: &impl Surroundings) -> Result<(Vec<Place>, Parameters), Error> {
    let mut parameters = parse(text)?;
    let service = parameters.remove("service").filter(|name| !name.is_empty());
    if let Some(service) = service.or_else(|| around.variable("PGSERVICE")) {
        for (key, value) in find_service(&service, around)? {
            parameters.entry(key).or_insert(value);
        }
    }
    for (variable, key) in VARIABLES {
        if let Some(value) = around.variable(variable) {
            parameters.entry(key.to_owned()).or_insert(value);
        }
    }
    parameters.remove("service");
    // An empty value takes the place of a variable, and then stands for the default; there is no empty mode.
    parameters.retain(|key, value| key == "sslmode" || !value.is_empty());
    if !parameters.contains_key("user")
        && let Some(account) = around.account()
    {
        parameters.insert("user".to_owned(), account);
    }
    let places = places(&mut parameters, around)?;
    Ok((places, parameters))
}

/// Takes the places out of the parameters.
fn places(parameters: &mut Parameters, around: &impl Surroundings) -> Result<Vec<Place>, Error> {
    let mut take = |key: &str| {
        let list = parameters.remove(key);
        list.map(|list| list.split(',').map(str::to_owned).collect::<Vec<_>>()).unwrap_or_default()
    };
    let (mut hosts, mut addresses, mut ports) = (take("host"), take("hostaddr"), take("port"));
    let count = hosts.len().max(addresses.len()).max(1);
    if [&hosts, &addresses].iter().any(|list| !list.is_empty() && list.len() != count)
        || !matches!(ports.len(), 0 | 1) && ports.len() != count
    {
        return Err(unusable("it has not as many hosts, addresses and ports of each"));
    }
    hosts.resize(count, String::new());
    addresses.resize(count, String::new());
    let port = ports.first().cloned().unwrap_or_default();
    ports.resize(count, port);
    let own = parameters.remove("password");
    let passfile = parameters.remove("passfile").map(PathBuf::from);
    let passfile = passfile.or_else(|| Some(around.home()?.join(".pgpass")));
    let lines = passfile.filter(|_| own.is_none()).and_then(|path| read_private(&path)).unwrap_or_default();
    let user = parameters.get("user").map_or("", String::as_str);
    let database = parameters.get("dbname").map_or(user, String::as_str);
    let place = |((host, address), port): ((String, String), String)| {
        let address: Option<IpAddr> = match address.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| unusable("the value of its option `hostaddr` is not valid"))?),
        };
        let port = match port.as_str() {
            "" => 5432,
            text => text
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| unusable("the value of its option `port` is not valid"))?,
        };
        let host = match (host.is_empty(), address) {
            (false, _) => host,
            (true, Some(address)) => address.to_string(),
            (true, None) => local_host().to_owned(),
        };
        // A socket in the usual place is that of localhost.
        let name = if SOCKET_FOLDERS.contains(&host.as_str()) { "localhost" } else { host.as_str() };
        let password = own.clone().or_else(|| password(&lines, [name, &port.to_string(), database, user]));
        Ok(Place { host, address, port, password })
    };
    hosts.into_iter().zip(addresses).zip(ports).map(place).collect()
}

/// Where this machine's server is, if nothing says it: not just anything that listens on the port.
fn local_host() -> &'static str {
    let there = SOCKET_FOLDERS.into_iter().find(|folder| cfg!(unix) && Path::new(folder).is_dir());
    there.unwrap_or("localhost")
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
        let (key, value) = (checked(&decode(key)?).ok_or_else(|| unusable(FORM))?, decode(value)?);
        match (key.as_str(), value.as_str()) {
            // The names that JDBC's people write.
            ("ssl", "true") => parameters.insert("sslmode".to_owned(), "require".to_owned()),
            _ => parameters.insert(key, value),
        };
    }
    Ok(parameters)
}

/// The text with every `%xx` replaced.
fn decode(text: &str) -> Result<String, Error> {
    let is_whole = text.split('%').skip(1).all(|rest| {
        let digits = rest.as_bytes().first_chunk::<2>();
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit) && digits != b"00")
    });
    let decoded = percent_decode_str(text).decode_utf8().ok().filter(|_| is_whole);
    let decoded = decoded
        .ok_or_else(|| unusable("it has a % that is not followed by two digits, of a character that is UTF-8"))?;
    Ok(decoded.into_owned())
}

/// A keyword, which has to look like one: what is taken for another one might turn off what it asks for.
fn checked(key: &str) -> Option<String> {
    let is_word = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_word.then(|| key.to_owned())
}

/// `host=localhost password='it''s'`, with libpq's quotes and backslashes.
fn parse_pairs(text: &str) -> Result<Parameters, Error> {
    const FORM: &str =
        "it is neither postgres://user:password@host:port/database nor host=... port=... dbname=... user=...";
    let mut parameters = Parameters::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, behind) = rest.split_once('=').ok_or_else(|| unusable(FORM))?;
        let key = checked(key.trim_end()).ok_or_else(|| unusable(FORM))?;
        let behind = behind.trim_start();
        let (value, behind) = match behind.strip_prefix('\'') {
            Some(quoted) => take_value(quoted, |c| c == '\'', true).ok_or_else(|| unusable(FORM))?,
            None => take_value(behind, char::is_whitespace, false).ok_or_else(|| unusable(FORM))?,
        };
        parameters.insert(key, value);
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
            // One that nothing follows stands for itself.
            '\\' => value.push(characters.next().map_or(character, |(_, next)| next)),
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
        parameters.insert(checked(key).ok_or_else(fault)?, value.to_owned());
    }
    Ok(found)
}

/// The text of a password file (PostgreSQL manual, "The Password File"). One that others can read is passed over, as libpq
/// does.
fn read_private(path: &Path) -> Option<String> {
    fs::metadata(path).ok().filter(|metadata| metadata.is_file() && is_private(metadata))?;
    Some(String::from_utf8_lossy(&fs::read(path).ok()?).into_owned())
}

/// Whether nobody but its owner can read or write a file.
#[cfg(unix)]
pub(crate) fn is_private(metadata: &fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 == 0
}

#[cfg(not(unix))]
pub(crate) fn is_private(_: &fs::Metadata) -> bool {
    true
}

/// The password of the first line that fits.
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
            "postgresql://secret%2",
            "postgresql://host/secret%00",
            "postgresql://host/?sec%20=ret",
            "secret",
            "host=x password='secret",
            "sec ret=1",
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(!error.contains("sec") && !error.contains("ret@"), "{error}");
        }
    }

    /// Places and parameters as one text.
    fn told(text: &str, around: &Around) -> String {
        let (places, parameters) = read(text, around).unwrap();
        let place = |place: &Place| {
            let address = place.address.map(|address| format!("[{address}]")).unwrap_or_default();
            let password = place.password.as_ref().map(|password| format!(" {password}")).unwrap_or_default();
            format!("{}{address}:{}{password}", place.host, place.port)
        };
        format!("{} {}", places.iter().map(place).collect::<Vec<_>>().join(","), shown(&parameters))
    }

    #[test]
    fn what_is_nearer_wins() {
        let home = tempfile::tempdir().unwrap();
        let services =
            "# mine\n[other]\nhost=other\n\n[mine]\nhost=of-service\nport=7\nuser=of-service\n[mine]\nport=8\n";
        let file = home.path().join(".pg_service.conf");
        fs::write(&file, services).unwrap();
        let mut around = Around { home: Some(home.path().to_owned()), ..Around::default() };
        for (name, value) in [("PGHOST", "of-variable"), ("PGDATABASE", "of-variable"), ("PGSERVICE", "mine")] {
            around.variables.insert(name, value.to_owned());
        }
        assert_eq!(told("user=me", &around), "of-service:7 dbname=of-variable user=me");
        assert_eq!(told("postgres://near/x?service=other", &around), "near:5432 dbname=x user=account");
        assert_eq!(told("host=h dbname=", &around), "h:7 user=of-service");
        let error = read("service=absent", &around).unwrap_err();
        assert!(error.to_string().contains("its service \"absent\" is in no service file"), "{error}");
        // It is not to be taken for one of that name.
        fs::write(&file, "[mine]\nsslmode =require\n").unwrap();
        let error = read("", &around).unwrap_err().to_string();
        assert!(error.contains("line 2 of its service file") && error.ends_with("is not KEY=VALUE"), "{error}");
    }

    #[test]
    fn every_place_has_its_own_address_port_and_password() {
        let home = tempfile::tempdir().unwrap();
        let passwords = home.path().join("passwords");
        fs::write(&passwords, "a:5432:*:*:of a\nb:7:*:*:of b\n127.0.0.1:*:*:*:of it\nlocalhost:*:*:*:here\n").unwrap();
        #[cfg(unix)]
        fs::set_permissions(&passwords, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let around = Around { home: Some(home.path().to_owned()), ..Around::default() };
        let of = |text: &str| told(&format!("{text} user=me passfile='{}'", passwords.display()), &around);
        assert_eq!(of("host=a,b,c port=5432,7,8"), "a:5432 of a,b:7 of b,c:8 user=me");
        assert_eq!(of("host=a,b"), "a:5432 of a,b:5432 user=me");
        assert_eq!(of("hostaddr=127.0.0.1,::1"), "127.0.0.1[127.0.0.1]:5432 of it,::1[::1]:5432 user=me");
        assert_eq!(of("host=b hostaddr=127.0.0.1 port=7"), "b[127.0.0.1]:7 of b user=me");
        assert_eq!(of("host=a,b password=mine"), "a:5432 mine,b:5432 mine user=me");
        assert_eq!(of("host=/tmp"), "/tmp:5432 here user=me");
        for wrong in ["host=a,b port=1,2,3", "host=a,b hostaddr=127.0.0.1", "port=0", "port=x", "hostaddr=a"] {
            assert!(read(wrong, &around).is_err(), "{wrong}");
        }
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
            let (places, _) = read("host=h user=me", &around).unwrap();
            assert_eq!(places[0].password.as_deref().unwrap_or(""), expected);
        }
        assert_eq!(told("postgres://me:mine@h/x", &around), "h:5432 mine dbname=x user=me");
    }
}
