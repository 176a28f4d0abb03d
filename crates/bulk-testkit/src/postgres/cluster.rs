use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    net::TcpListener,
    os::unix::fs::{OpenOptionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, id},
    time::Duration,
};

use nix::sys::signal::Signal;

use super::{
    Durability, Error, Options,
    account::Account,
    binaries::{self, Installation},
    process,
    watchdog::{self, Watchdog},
};

/// The superuser of every cluster.
pub(super) const SUPERUSER: &str = "postgres";

/// Below the ports that Linux (from 32768) and others (from 49152) hand out to connections, so that a port stays free
/// while its server restarts.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// How many ports a first start tries, each of which was free a moment before.
const PORT_ATTEMPTS: usize = 20;

/// How long a restart waits for its port, which is part of the URL and cannot change.
const PORT_PATIENCE: Duration = Duration::from_secs(30);

/// How long each kind of shutdown may take before the next, harsher one.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(10);

/// How much of a log an error tells.
const LOG_LINES: usize = 20;

/// The longest path of a Unix socket everywhere: 104 bytes on the BSDs and 108 on Linux, less the final zero.
const LONGEST_SOCKET_PATH: usize = 103;

/// The line of `postmaster.pid` that tells the state of the server, since PostgreSQL 10.
const STATUS_LINE: usize = 7;

/// One server: its folder, its data, its process.
#[derive(Debug)]
pub(super) struct Cluster {
    account: Account,
    installation: Installation,
    folder: PathBuf,
    port: u16,
    start_timeout: Duration,
    postmaster: Option<Child>,
    /// None once it was released.
    watchdog: Option<Watchdog>,
}

/// Why a postmaster is not up.
enum LaunchError {
    PortTaken(Error),
    Other(Error),
}

impl From<LaunchError> for Error {
    fn from(error: LaunchError) -> Self {
        match error {
            LaunchError::PortTaken(error) | LaunchError::Other(error) => error,
        }
    }
}

impl Cluster {
    /// Makes a cluster and starts its server.
    pub(super) fn create(options: &Options) -> Result<Self, Error> {
        let account = Account::choose(options.account.as_deref())?;
        let installation = binaries::find(&options.binaries, &account)?;
        let settings = configuration(options)?;
        let (folder, watchdog) = make_folder(options.parent_dir.as_deref(), &account)?;
        let mut cluster = Self {
            account,
            installation,
            folder,
            port: 0,
            start_timeout: options.start_timeout,
            postmaster: None,
            watchdog: Some(watchdog),
        };
        cluster.initialise(options.password.as_deref())?;
        cluster.configure(&settings)?;
        cluster.start_on_free_port()?;
        Ok(cluster)
    }

    pub(super) fn installation(&self) -> &Installation {
        &self.installation
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// The folder of the Unix socket, where its path is short and plain enough for one.
    pub(super) fn socket_dir(&self) -> Option<&Path> {
        let path = self.folder.to_str()?;
        let plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
        (plain && path.len() + "/.s.PGSQL.65535".len() <= LONGEST_SOCKET_PATH).then_some(&self.folder)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn pid(&mut self) -> Option<u32> {
        let postmaster = self.postmaster.as_mut()?;
        matches!(postmaster.try_wait(), Ok(None)).then(|| postmaster.id())
    }

    /// A fast shutdown, which checkpoints, and a start on the same port.
    pub(super) fn restart(&mut self) -> Result<(), Error> {
        self.stop(self.start_timeout)?;
        let mut result = self.launch();
        process::poll(PORT_PATIENCE, || {
            if matches!(result, Err(LaunchError::PortTaken(_))) {
                result = self.launch();
            }
            (!matches!(result, Err(LaunchError::PortTaken(_)))).then_some(())
        });
        Ok(result?)
    }

    /// Ends the server as a loss of power would.
    pub(super) fn kill(&mut self) -> Result<(), Error> {
        let Some(mut postmaster) = self.postmaster.take() else {
            return Ok(());
        };
        let pid = postmaster.id();
        match process::kill_family(&mut postmaster, SHUTDOWN_PATIENCE) {
            Ok(true) => {
                watchdog::forget(&self.folder, pid);
                Ok(())
            }
            _ => Err(Error::Stop { pid }),
        }
    }

    /// Leaves the server running for good, and gives the command that ends it.
    pub(super) fn release(mut self) -> Result<String, Error> {
        let script = self.folder.join("stop");
        fs::write(&script, watchdog::SCRIPT).map_err(failed("write", &script))?;
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.release().map_err(|source| self.account.cannot_run(watchdog::SHELL, source))?;
        }
        self.postmaster = None;
        let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
        Ok(format!("sh {} end {}", quoted(&script), quoted(&self.folder)))
    }

    fn initialise(&self, password: Option<&str>) -> Result<(), Error> {
        let program = self.installation.bin_dir.join("initdb");
        let mut command = watchdog::guarded(&self.account, &self.folder, &program);
        command
            .arg("--pgdata")
            .arg(self.data_dir())
            .args(["--encoding=UTF8", "--locale=C", "--no-sync", "--username", SUPERUSER])
            .args(["--auth", if password.is_some() { "scram-sha-256" } else { "trust" }]);
        let password_file = self.folder.join("password");
        if let Some(password) = password {
            self.write_secret(&password_file, password).map_err(failed("write", &password_file))?;
            command.arg("--pwfile").arg(&password_file);
        }
        let log = self.log()?;
        let mut initdb = log
            .try_clone()
            .and_then(|copy| command.stdout(copy).stderr(log).spawn())
            .map_err(|source| self.account.cannot_run(&program, source))?;
        let status = initdb.wait().map_err(|source| self.account.cannot_run(&program, source))?;
        watchdog::forget(&self.folder, initdb.id());
        if password.is_some() {
            fs::remove_file(&password_file).map_err(failed("remove", &password_file))?;
        }
        if status.success() { Ok(()) } else { Err(Error::Initdb { output: self.end_of_log(0) }) }
    }

    fn configure(&self, settings: &str) -> Result<(), Error> {
        let sockets = self.socket_dir().map(|folder| folder.display().to_string()).unwrap_or_default();
        let text = format!("\nunix_socket_directories = '{sockets}'\n{settings}");
        let path = self.data_dir().join("postgresql.conf");
        OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(failed("write", &path))
    }

    fn start_on_free_port(&mut self) -> Result<(), Error> {
        let mut attempt = 0;
        loop {
            self.port = free_port().map_err(failed("bind", Path::new("127.0.0.1")))?;
            attempt += 1;
            match self.launch() {
                Err(LaunchError::PortTaken(_)) if attempt < PORT_ATTEMPTS => {}
                result => return Ok(result?),
            }
        }
    }

    /// Starts the postmaster and waits until it takes connections.
    fn launch(&mut self) -> Result<(), LaunchError> {
        let program = self.installation.bin_dir.join("postgres");
        let log = self.log().map_err(LaunchError::Other)?;
        let log_start = log.metadata().map_or(0, |metadata| metadata.len());
        let mut command = watchdog::guarded(&self.account, &self.folder, &program);
        command.arg("-D").arg(self.data_dir()).arg("-p").arg(self.port.to_string());
        let postmaster = log
            .try_clone()
            .and_then(|copy| command.stdout(copy).stderr(log).spawn())
            .map_err(|source| LaunchError::Other(self.account.cannot_run(&program, source)))?;
        let postmaster = self.postmaster.insert(postmaster);

        let lock_file = self.folder.join("data/postmaster.pid");
        let up = process::poll(self.start_timeout, || match postmaster.try_wait() {
            Ok(None) => is_ready(&lock_file, postmaster.id()).then_some(true),
            Ok(Some(_)) | Err(_) => Some(false),
        });
        match up {
            Some(true) => Ok(()),
            Some(false) => {
                watchdog::forget(&self.folder, postmaster.id());
                self.postmaster = None;
                let log = self.end_of_log(log_start);
                let taken = log.contains("could not create any TCP/IP sockets");
                let error = Error::Start { log };
                Err(if taken { LaunchError::PortTaken(error) } else { LaunchError::Other(error) })
            }
            None => {
                self.kill().map_err(LaunchError::Other)?;
                let log = self.end_of_log(log_start);
                Err(LaunchError::Other(Error::StartTimeout { seconds: self.start_timeout.as_secs(), log }))
            }
        }
    }

    /// A fast shutdown within `patience`, else an immediate one, else a kill.
    fn stop(&mut self, patience: Duration) -> Result<(), Error> {
        let Some(postmaster) = &mut self.postmaster else {
            return Ok(());
        };
        for (signal, patience) in [(Signal::SIGINT, patience), (Signal::SIGQUIT, SHUTDOWN_PATIENCE)] {
            if let Ok(None) = postmaster.try_wait() {
                process::send(postmaster, signal);
            }
            if let Ok(Some(_)) = process::wait(postmaster, patience) {
                watchdog::forget(&self.folder, postmaster.id());
                self.postmaster = None;
                return Ok(());
            }
        }
        self.kill()
    }

    fn write_secret(&self, path: &Path, text: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        match self.account.ids {
            Some((uid, gid)) => chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }

    fn log(&self) -> Result<File, Error> {
        let path = self.log_file();
        OpenOptions::new().append(true).create(true).open(&path).map_err(failed("open", &path))
    }

    fn end_of_log(&self, start: u64) -> String {
        let read = || {
            let mut file = File::open(self.log_file())?;
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            io::Result::Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.trim().lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // What cannot be stopped from here, the watchdog tries again.
        let _ = self.stop(SHUTDOWN_PATIENCE);
        if let Some(mut watchdog) = self.watchdog.take() {
            watchdog.finish();
            // Nothing is left, unless somebody ended the watchdog.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File { doing, path, source }
}

/// The lines of `postgresql.conf` for these options.
fn configuration(options: &Options) -> Result<String, Error> {
    let mut settings = vec![
        ("listen_addresses", "127.0.0.1"),
        ("dynamic_shared_memory_type", "mmap"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
    ];
    if options.durability == Durability::Off {
        settings.extend([("fsync", "off"), ("full_page_writes", "off"), ("synchronous_commit", "off")]);
    }
    settings.extend(options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let mut text = String::new();
    for (name, value) in settings {
        let mut bytes = name.bytes();
        let named = bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.$".contains(&byte));
        if !named {
            return Err(Error::Setting { name: name.to_owned() });
        }
        let value = value.replace('\\', r"\\").replace('\'', "''").replace('\n', r"\n");
        text.push_str(&format!("{name} = '{value}'\n"));
    }
    Ok(text)
}

/// A new folder that belongs to the account, and its watchdog.
fn make_folder(parent: Option<&Path>, account: &Account) -> Result<(PathBuf, Watchdog), Error> {
    let parents = match parent {
        Some(parent) => vec![parent.to_owned()],
        None => vec![env::temp_dir(), "/tmp".into(), "/var/tmp".into()],
    };
    let mut refused = Vec::new();
    for parent in parents {
        let name = format!("bulk-postgres-{}-{:08x}", id(), fastrand::u32(..));
        let attempt = match std::path::absolute(&parent) {
            Ok(parent) => {
                let folder = parent.join(name);
                let watchdog =
                    Watchdog::start(account, &folder).map_err(|source| account.cannot_run(watchdog::SHELL, source))?;
                watchdog.map(|watchdog| (folder, watchdog))
            }
            Err(error) => Err(error.to_string()),
        };
        match attempt {
            Ok(made) => return Ok(made),
            Err(reason) => {
                if !refused.contains(&reason) {
                    refused.push(reason);
                }
            }
        }
    }
    Err(Error::NoFolder { account: account.name.clone(), refused })
}

/// A port of loopback that was free a moment ago.
fn free_port() -> io::Result<u16> {
    for _ in 0..PORT_ATTEMPTS {
        let port = fastrand::u16(PORTS);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Whether the lock file says that this postmaster takes connections; one of an earlier postmaster may be there still.
fn is_ready(lock_file: &Path, pid: u32) -> bool {
    let text = fs::read_to_string(lock_file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.first().and_then(|line| line.parse().ok()) == Some(pid) && lines.get(STATUS_LINE) == Some(&"ready")
}

#[cfg(test)]
mod tests {
    use super::configuration;
    use crate::postgres::{Durability, Error, Options};

    const OURS: &str = "listen_addresses = '127.0.0.1'\ndynamic_shared_memory_type = 'mmap'\ntimezone = 'UTC'\n\
                        log_timezone = 'UTC'\n";

    #[test]
    fn settings_are_written_in_order_and_quoted() {
        let mut options = Options::default();
        assert_eq!(configuration(&options).unwrap(), OURS);

        options.durability = Durability::Off;
        options.settings = vec![
            ("fsync".to_owned(), "on".to_owned()),
            ("my.Setting_1".to_owned(), "it's a \\ and\na line".to_owned()),
        ];
        assert_eq!(
            configuration(&options).unwrap(),
            format!(
                "{OURS}fsync = 'off'\nfull_page_writes = 'off'\nsynchronous_commit = 'off'\n\
                 fsync = 'on'\nmy.Setting_1 = 'it''s a \\\\ and\\na line'\n"
            )
        );
    }

    #[test]
    fn what_cannot_be_a_setting_is_refused() {
        for name in ["", "a b", "a = b\nc", "1a", "é"] {
            let options = Options { settings: vec![(name.to_owned(), String::new())], ..Options::default() };
            assert!(matches!(configuration(&options), Err(Error::Setting { name: refused }) if refused == name));
        }
    }
}
