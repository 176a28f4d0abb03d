//! The embedded PostgreSQL against a real one: what it is, and that nothing of it is left, however its owner ends.

use std::{
    collections::BTreeSet,
    env,
    fs::{self, Permissions},
    io::{BufRead, BufReader, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::{CommandExt, ExitStatusExt},
    },
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use bulk_testkit::postgres::{self, Binaries, DatabaseUrl, Durability, Error, Options, Server};
use nix::{
    sys::signal::{self, Signal},
    unistd::{Pid, User, geteuid},
};
use tokio_postgres::{Client, Config, NoTls, error::SqlState};

/// What a child of these tests, the same program once more, is to do.
const ROLE: &str = "BULK_TESTKIT_POSTGRES_ROLE";

fn embedded() -> Options {
    let mut options = Options::default();
    options.database_url = DatabaseUrl::Ignore;
    options
}

fn start(options: &Options) -> Server {
    Server::start(options).unwrap_or_else(|error| panic!("{error}"))
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn ask(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Looks until it is so; a minute is far more than anything here takes.
fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < end, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// What a running server has in the system.
struct Traces {
    folder: PathBuf,
    pid: u32,
    /// The id of its System V shared memory segment, from the 7th line of its lock file.
    segment: String,
}

impl Traces {
    fn of(server: &Server) -> Self {
        Self::in_folder(server.data_dir().unwrap().parent().unwrap())
    }

    fn in_folder(folder: &Path) -> Self {
        let lock = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap();
        let lines: Vec<&str> = lock.lines().collect();
        let segment = lines[6].split_whitespace().nth(1).unwrap().to_owned();
        assert!(segments().contains(&segment), "{lock}");
        Self { folder: folder.to_owned(), pid: lines[0].parse().unwrap(), segment }
    }

    fn remain(&self) -> bool {
        self.folder.exists() || !processes_of(&self.folder).is_empty() || segments().contains(&self.segment)
    }
}

/// The ids in the listing of System V shared memory.
fn segments() -> BTreeSet<String> {
    let output = Command::new("ipcs").arg("-m").output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
}

/// Processes with the folder in their arguments (the postmaster, `initdb`, the watchdog) or, where that can be read, as
/// their working folder (every process of the server).
fn processes_of(folder: &Path) -> Vec<String> {
    let name = folder.to_str().unwrap();
    let listed = Command::new("ps").args(["-A", "-ww", "-o", "pid=,args="]).output().unwrap();
    let mut found: Vec<String> =
        String::from_utf8_lossy(&listed.stdout).lines().filter(|line| line.contains(name)).map(str::to_owned).collect();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Ok(working_folder) = fs::read_link(entry.path().join("cwd"))
            && working_folder.to_string_lossy().contains(name)
        {
            found.push(format!("{} in {}", entry.path().display(), working_folder.display()));
        }
    }
    found
}

/// A folder in which every account may make its own, as in `/tmp`.
fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
    folder
}

fn names_in(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A child that runs one of the tests below in a role.
fn in_role(test: &str, role: &str) -> Command {
    // Signals that are ignored stay so in children: a shell's background jobs and nohup ignore some. env(1) of the GNU
    // coreutils undoes that.
    let mut command = if cfg!(target_os = "linux") {
        let mut command = Command::new("env");
        command.arg("--default-signal=INT,HUP,TERM").arg(env::current_exe().unwrap());
        command
    } else {
        Command::new(env::current_exe().unwrap())
    };
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env_remove("DATABASE_URL")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0);
    command
}

/// Says something to the parent; not with `println!`, which the test harness may keep.
fn tell(what: &str) {
    let mut output = std::io::stdout();
    writeln!(output, "\ntold: {what}").unwrap();
    output.flush().unwrap();
}

fn told(output: impl std::io::Read) -> impl Iterator<Item = String> {
    BufReader::new(output).lines().filter_map(|line| Some(line.unwrap().strip_prefix("told: ")?.to_owned()))
}

#[tokio::test]
async fn a_server_is_what_it_says() {
    let server = start(&embedded());
    assert!(server.is_embedded());
    let traces = Traces::of(&server);
    assert_eq!(server.pid(), Some(traces.pid));
    assert!(server.bin_dir().unwrap().join("initdb").is_file());
    assert!(server.log_file().unwrap().is_file());

    let config: Config = server.url().parse().unwrap();
    assert_eq!((config.get_user(), config.get_password()), (Some("postgres"), None));
    assert_eq!(config.get_dbname(), Some("postgres"));

    let client = connect(server.url()).await;
    let number = server.version().major * 10_000 + server.version().minor;
    assert_eq!(ask(&client, "SHOW server_version_num").await, number.to_string());
    let data_dir = server.data_dir().unwrap().to_str().unwrap();
    for (name, value) in [
        ("data_directory", data_dir),
        ("listen_addresses", "127.0.0.1"),
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("shared_buffers", "128MB"),
        ("max_connections", "100"),
        ("max_wal_size", "1GB"),
        ("dynamic_shared_memory_type", "mmap"),
        ("TimeZone", "UTC"),
        ("lc_messages", "C"),
    ] {
        assert_eq!(ask(&client, &format!("SHOW {name}")).await, value, "{name}");
    }
    assert_eq!(
        server
            .psql(
                server.url(),
                "select datname, pg_encoding_to_char(encoding), datcollate, datctype from pg_database order by 1"
            )
            .unwrap(),
        "postgres|UTF8|C|C\ntemplate0|UTF8|C|C\ntemplate1|UTF8|C|C\n"
    );

    let mut by_socket = Config::new();
    by_socket.user("postgres").port(config.get_ports()[0]).host_path(server.socket_dir().unwrap());
    let (client, connection) = by_socket.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(ask(&client, "SELECT current_user::text").await, "postgres");

    drop(server);
    assert!(!traces.remain());
}

#[tokio::test]
async fn a_database_lives_as_long_as_its_value() {
    let server = start(&embedded());
    let names = || server.psql(server.url(), "select datname from pg_database where datname like 't1%'").unwrap();

    let first = server.create_database("t1").unwrap();
    let second = server.create_database("t1").unwrap();
    assert_ne!(first.name(), second.name());
    assert!(first.name().starts_with("t1_") && second.name().starts_with("t1_"));

    let client = connect(first.url()).await;
    client.batch_execute("CREATE TABLE t (v text); INSERT INTO t VALUES ('é|1')").await.unwrap();
    assert_eq!(server.psql(first.url(), "select * from t").unwrap(), "é|1\n");
    let missing = server.psql(second.url(), "select * from t").unwrap_err();
    assert!(
        matches!(&missing, Error::Psql { message } if message.contains("relation \"t\" does not exist")),
        "{missing}"
    );
    assert_eq!(
        server
            .psql(
                second.url(),
                "select pg_encoding_to_char(encoding), datcollate from pg_database where datname = current_database()"
            )
            .unwrap(),
        "UTF8|C\n"
    );

    let first_name = first.name().to_owned();
    drop(first);
    assert!(!names().contains(&first_name));
    assert!(client.simple_query("SELECT 1").await.is_err(), "its connections are ended");
    assert!(names().contains(second.name()));
    second.remove().unwrap();
    assert_eq!(names(), "");

    let odd = server.create_database("t a\"b'c/d?e&%é").unwrap();
    assert_eq!(server.psql(odd.url(), "select current_database()").unwrap(), format!("{}\n", odd.name()));
    let client = connect(odd.url()).await;
    assert_eq!(ask(&client, "SELECT current_database()::text").await, odd.name());

    let long = server.create_database(&"é".repeat(100)).unwrap();
    assert!((62..=63).contains(&long.name().len()));
    assert_eq!(server.psql(long.url(), "select current_database()").unwrap(), format!("{}\n", long.name()));
    assert!(matches!(server.create_database("a\0b"), Err(Error::DatabaseName { name }) if name == "a\0b"));
}

#[test]
fn servers_start_side_by_side() {
    let servers: Vec<Server> = thread::scope(|scope| {
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| start(&embedded()))).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    let distinct = |of: &dyn Fn(&Server) -> String| servers.iter().map(of).collect::<BTreeSet<_>>().len();
    assert_eq!(distinct(&|server| server.url().to_owned()), 4);
    assert_eq!(distinct(&|server| server.data_dir().unwrap().display().to_string()), 4);
    for server in &servers {
        let data_dir = format!("{}\n", server.data_dir().unwrap().display());
        assert_eq!(server.psql(server.url(), "show data_directory").unwrap(), data_dir);
    }
    let traces: Vec<Traces> = servers.iter().map(Traces::of).collect();
    drop(servers);
    assert!(!traces.iter().any(Traces::remain));
}

#[tokio::test]
async fn a_killed_server_has_what_was_committed() {
    let server = start(&embedded());
    let database = server.create_database("crash").unwrap();
    let mut client = connect(database.url()).await;
    client.batch_execute("CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 1000)").await.unwrap();
    let transaction = client.transaction().await.unwrap();
    transaction.batch_execute("INSERT INTO t VALUES (1001)").await.unwrap();
    let before = Traces::of(&server);

    server.kill().unwrap();
    assert_eq!(server.pid(), None);
    assert!(tokio_postgres::connect(server.url(), NoTls).await.is_err());
    assert!(transaction.batch_execute("INSERT INTO t VALUES (1002)").await.is_err());
    server.kill().unwrap();

    let url = server.url().to_owned();
    server.restart().unwrap();
    assert_eq!(server.url(), url);
    assert_ne!(server.pid(), Some(before.pid));
    assert_eq!(server.psql(database.url(), "select count(*), max(id) from t").unwrap(), "1000|1000\n");
    let log = fs::read_to_string(server.log_file().unwrap()).unwrap();
    assert!(log.contains("database system was not properly shut down; automatic recovery in progress"), "{log}");

    let after = Traces::of(&server);
    server.kill().unwrap();
    drop(server);
    assert!(!before.remain() && !after.remain(), "a killed server cannot clean up after itself");
}

#[test]
fn a_restarted_server_was_shut_down() {
    let mut options = embedded();
    options.durability = Durability::Off;
    options.settings = vec![
        ("max_connections".to_owned(), "7".to_owned()),
        ("fsync".to_owned(), "on".to_owned()),
        ("application_name".to_owned(), "it's \\ odd".to_owned()),
    ];
    let server = start(&options);
    let show = |name: &str| server.psql(server.url(), &format!("show {name}")).unwrap();
    assert_eq!(show("fsync"), "on\n");
    assert_eq!(show("full_page_writes"), "off\n");
    assert_eq!(show("synchronous_commit"), "off\n");
    assert_eq!(show("max_connections"), "7\n");
    let configured = "select reset_val from pg_file_settings f join pg_settings s using (name) \
                      where f.name = 'max_connections' and f.applied";
    assert_eq!(server.psql(server.url(), configured).unwrap(), "7\n");
    let odd = "select setting from pg_file_settings where name = 'application_name' and applied";
    assert_eq!(server.psql(server.url(), odd).unwrap(), "it's \\ odd\n");

    let database = server.create_database("kept").unwrap();
    server.psql(database.url(), "create table t as select 7 as id").unwrap();
    let pid = server.pid();
    server.restart().unwrap();
    assert_ne!(server.pid(), pid);
    assert_eq!(server.psql(database.url(), "select id from t").unwrap(), "7\n");
    let log = fs::read_to_string(server.log_file().unwrap()).unwrap();
    assert!(log.contains("database system is shut down"), "{log}");
    assert!(!log.contains("automatic recovery"), "{log}");
}

#[tokio::test]
async fn a_password_is_asked_for() {
    let mut options = embedded();
    options.password = Some("it's s3cret/@?:é".to_owned());
    assert!(!format!("{options:?}").contains("s3cret"));
    let server = start(&options);
    assert!(!format!("{server:?}").contains("s3cret"), "{server:?}");
    assert!(!server.data_dir().unwrap().parent().unwrap().join("password").exists());

    let database = server.create_database("secret").unwrap();
    let client = connect(database.url()).await;
    assert_eq!(ask(&client, "SELECT current_database()::text").await, database.name());
    assert_eq!(server.psql(database.url(), "select 1").unwrap(), "1\n");

    let mut config: Config = database.url().parse().unwrap();
    let refused = config.password("wrong").connect(NoTls).await.err().unwrap();
    assert_eq!(refused.code(), Some(&SqlState::INVALID_PASSWORD));
    let wrong = database.url().replace('%', "");
    let refused = server.psql(&wrong, "select 1").unwrap_err();
    assert!(
        matches!(&refused, Error::Psql { message } if message.contains("password authentication failed")),
        "{refused}"
    );
}

#[test]
fn what_prevents_a_start_is_said_and_leaves_nothing() {
    let parent = open_folder();
    let failure = |change: &dyn Fn(&mut Options)| {
        let mut options = embedded();
        options.parent_dir = Some(parent.path().to_owned());
        change(&mut options);
        let error = Server::start(&options).unwrap_err();
        assert_eq!(names_in(parent.path()), [""; 0]);
        assert_eq!(processes_of(parent.path()), [""; 0]);
        error
    };

    let empty = tempfile::tempdir().unwrap();
    let error = failure(&|options| options.binaries = Binaries::In(empty.path().to_owned()));
    let Error::NoBinaries { install, .. } = &error else { panic!("{error}") };
    assert_eq!(
        error.to_string(),
        format!(
            "no PostgreSQL server found ({} has no initdb): install one with `{install}` or set DATABASE_URL",
            empty.path().display()
        )
    );

    let error = failure(&|options| options.settings = vec![("shared_buffers".to_owned(), "much".to_owned())]);
    assert!(
        matches!(&error, Error::Start { log } if log.contains("invalid value for parameter \"shared_buffers\": \"much\"")),
        "{error}"
    );

    let error = failure(&|options| options.settings = vec![("not a setting".to_owned(), String::new())]);
    assert_eq!(error.to_string(), "\"not a setting\" is not the name of a PostgreSQL setting");

    let error = failure(&|options| options.start_timeout = Duration::ZERO);
    assert!(matches!(&error, Error::StartTimeout { seconds: 0, .. }), "{error}");

    let nowhere = parent.path().join("nowhere");
    let error = failure(&|options| options.parent_dir = Some(nowhere.clone()));
    let Error::NoFolder { refused, .. } = &error else { panic!("{error}") };
    assert_eq!(refused.len(), 1);
    assert!(
        refused[0].contains(nowhere.to_str().unwrap()) && refused[0].ends_with("No such file or directory"),
        "{error}"
    );
}

#[cfg(not(feature = "postgres-download"))]
#[test]
fn a_build_without_downloads_says_how_to_install() {
    let mut options = embedded();
    options.binaries = Binaries::Downloaded;
    let error = Server::start(&options).unwrap_err();
    let Error::NoBinaries { install, .. } = &error else { panic!("{error}") };
    assert_eq!(
        error.to_string(),
        format!("no PostgreSQL server found: install one with `{install}` or set DATABASE_URL")
    );
}

#[cfg(feature = "postgres-download")]
#[test]
fn a_download_that_fails_says_how_to_install() {
    if env::var_os(ROLE).is_some() {
        let mut options = embedded();
        options.binaries = Binaries::Downloaded;
        let error = Server::start(&options).unwrap_err();
        let Error::Download { install, .. } = &error else { panic!("{error}") };
        let sentence =
            format!("PostgreSQL 18.6.0 cannot be downloaded: install one with `{install}` or set DATABASE_URL");
        assert_eq!(error.to_string(), sentence);
        tell(&std::error::Error::source(&error).unwrap().to_string());
        return;
    }
    // Nothing listens on the port of this proxy.
    let cache = tempfile::tempdir().unwrap();
    let output = in_role("a_download_that_fails_says_how_to_install", "download")
        .env("XDG_CACHE_HOME", cache.path())
        .env("HTTPS_PROXY", "http://127.0.0.1:1")
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .output()
        .unwrap();
    assert_eq!(told(&output.stdout[..]).collect::<Vec<_>>(), ["Request failed after 3 retries"]);
    assert_eq!(names_in(cache.path()), [""; 0]);
}

#[test]
fn root_runs_it_under_another_account() {
    let mut options = embedded();
    options.account = Some("nobody".to_owned());
    let server = start(&options);
    let expected = if geteuid().is_root() { User::from_name("nobody").unwrap().unwrap().uid } else { geteuid() };
    let data_dir = server.data_dir().unwrap();
    assert_eq!(fs::metadata(data_dir).unwrap().uid(), expected.as_raw());
    assert_eq!(fs::metadata(data_dir.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    let pid = server.pid().unwrap().to_string();
    let listed = Command::new("ps").args(["-o", "uid=", "-p", &pid]).output().unwrap();
    assert_eq!(String::from_utf8(listed.stdout).unwrap().trim(), expected.to_string());

    let traces = Traces::of(&server);
    server.kill().unwrap();
    drop(server);
    assert!(!traces.remain());

    if geteuid().is_root() {
        for name in ["root", "no-such-account"] {
            options.account = Some(name.to_owned());
            assert_eq!(
                Server::start(&options).unwrap_err().to_string(),
                format!(
                    "PostgreSQL refuses to run as root, and there is no other account {name}: \
                     create one with `useradd --system postgres`"
                )
            );
        }
    }
}

#[test]
fn a_panic_stops_the_server() {
    let mut traces = None;
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let server = start(&embedded());
        traces = Some(Traces::of(&server));
        panic::resume_unwind(Box::new("on purpose"));
    }));
    assert_eq!(result.unwrap_err().downcast_ref(), Some(&"on purpose"));
    assert!(!traces.unwrap().remain());
}

/// In the ordinary run a test of [`postgres::shared`]; in a role the owner of a server that the tests below end.
#[test]
fn one_server_for_the_whole_process() {
    let server = postgres::shared().unwrap_or_else(|error| panic!("{error}"));
    let again = thread::spawn(|| postgres::shared().unwrap().url()).join().unwrap();
    assert_eq!(server.url(), again);
    assert_eq!(server.psql(again, "select 1").unwrap(), "1\n");

    let Some(role) = env::var_os(ROLE) else { return };
    tell(server.data_dir().unwrap().parent().unwrap().to_str().unwrap());
    match role.to_str().unwrap() {
        "return" => {}
        "exit" => std::process::exit(7),
        "abort" => std::process::abort(),
        "hold" => loop {
            thread::park();
        },
        role => panic!("no such role: {role}"),
    }
}

fn owner(role: &str) -> (Child, Traces) {
    let mut child = in_role("one_server_for_the_whole_process", role).spawn().unwrap();
    let folder = told(child.stdout.as_mut().unwrap()).next().unwrap();
    let traces = Traces::in_folder(Path::new(&folder));
    (child, traces)
}

#[test]
fn no_signal_to_the_owner_leaves_anything() {
    for sent in [Signal::SIGKILL, Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let (mut child, traces) = owner("hold");
        // To the whole process group, as Ctrl-C in a terminal.
        signal::killpg(Pid::from_raw(child.id().try_into().unwrap()), sent).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(sent as i32));
        until("the server of the killed owner is gone", || !traces.remain());
    }
}

#[test]
fn no_end_of_the_owner_leaves_anything() {
    for (role, code, by_signal) in
        [("return", Some(0), None), ("exit", Some(7), None), ("abort", None, Some(Signal::SIGABRT as i32))]
    {
        let mut child = in_role("one_server_for_the_whole_process", role).spawn().unwrap();
        let folder = told(child.stdout.as_mut().unwrap()).next().unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (code, by_signal));
        let folder = Path::new(&folder);
        until("the server of the ended owner is gone", || !folder.exists() && processes_of(folder).is_empty());
    }
}

#[test]
fn an_owner_killed_while_it_starts_leaves_nothing() {
    for stage in ["", "server.log", "data/PG_VERSION", "data/base/1", "data/postmaster.pid"] {
        let parent = open_folder();
        let mut child =
            in_role("one_server_for_the_whole_process", "hold").env("TMPDIR", parent.path()).spawn().unwrap();
        until(stage, || names_in(parent.path()).iter().any(|name| parent.path().join(name).join(stage).exists()));
        child.kill().unwrap();
        child.wait().unwrap();
        until("the half-made server is gone", || {
            names_in(parent.path()).is_empty() && processes_of(parent.path()).is_empty()
        });
    }
}

#[test]
fn a_folder_closed_to_the_account_is_passed_over() {
    let closed = tempfile::tempdir().unwrap();
    let mut child = in_role("one_server_for_the_whole_process", "hold").env("TMPDIR", closed.path()).spawn().unwrap();
    let folder = told(child.stdout.as_mut().unwrap()).next().unwrap();
    let parent = if geteuid().is_root() { Path::new("/tmp") } else { closed.path() };
    assert_eq!(Path::new(&folder).parent(), Some(parent));
    let traces = Traces::in_folder(Path::new(&folder));
    child.kill().unwrap();
    child.wait().unwrap();
    until("the server of the killed owner is gone", || !traces.remain());
}

#[test]
fn a_lost_watchdog_is_made_up_for() {
    let server = start(&embedded());
    let traces = Traces::of(&server);
    let watchdogs: Vec<i32> = processes_of(&traces.folder)
        .iter()
        .filter(|process| process.ends_with(&format!("guard {}", traces.folder.display())))
        .map(|process| process.split_whitespace().next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(watchdogs.len(), 1);
    signal::kill(Pid::from_raw(watchdogs[0]), Signal::SIGKILL).unwrap();
    drop(server);
    assert!(!traces.remain());
}

#[test]
fn the_server_of_the_environment_is_used_and_left_alone() {
    if env::var_os(ROLE).is_some() {
        let server = start(&Options::default());
        assert!(!server.is_embedded());
        assert_eq!(server.url(), env::var("DATABASE_URL").unwrap());
        assert_eq!((server.pid(), server.data_dir(), server.bin_dir()), (None, None, None));
        assert!(matches!(server.kill(), Err(Error::NotOwned { operation: "kill" })));
        assert!(matches!(server.restart(), Err(Error::NotOwned { operation: "restart" })));
        assert_eq!(postgres::shared().unwrap().url(), server.url());
        tell(&server.version().to_string());
        let database = server.create_database("guest").unwrap();
        server.psql(database.url(), "create table t as select 7 as id").unwrap();
        tell(server.psql(database.url(), "select current_setting('data_directory')").unwrap().trim());
        tell(database.name());
        drop(database);
        let refused = server.detach().unwrap_err();
        assert_eq!(refused.to_string(), "cannot detach the server of DATABASE_URL");
        return;
    }
    let mut options = embedded();
    options.password = Some("p/w".to_owned());
    let server = start(&options);
    let pid = server.pid();
    for url in [server.url().to_owned(), format!("{}?application_name=guest", server.url())] {
        let output = in_role("the_server_of_the_environment_is_used_and_left_alone", "guest")
            .env("DATABASE_URL", &url)
            .output()
            .unwrap();
        assert!(output.status.success());
        let said: Vec<String> = told(&output.stdout[..]).collect();
        assert_eq!(said[..2], [server.version().to_string(), server.data_dir().unwrap().display().to_string()]);
        assert!(said[2].starts_with("guest_"));
    }
    assert_eq!(server.pid(), pid);
    let databases = "select count(*) from pg_database where datname like 'guest%'";
    assert_eq!(server.psql(server.url(), databases).unwrap(), "0\n");

    let url = server.url().to_owned();
    drop(server);
    let output = in_role("the_server_of_the_environment_is_used_and_left_alone", "guest")
        .env("DATABASE_URL", url)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("the PostgreSQL server refused: tell its version"), "{error}");
}

#[test]
fn a_detached_server_runs_until_its_command_ends_it() {
    if env::var_os(ROLE).is_some() {
        let detached = start(&embedded()).detach().unwrap();
        tell(&detached.url);
        tell(&detached.stop_command);
        tell(detached.folder.to_str().unwrap());
        return;
    }
    // The output ends with the child although the server runs on.
    let output = in_role("a_detached_server_runs_until_its_command_ends_it", "detach").output().unwrap();
    assert!(output.status.success());
    let [url, stop_command, folder] = told(&output.stdout[..]).collect::<Vec<_>>().try_into().unwrap();

    let traces = Traces::in_folder(Path::new(&folder));
    let psql = Command::new("psql").args(["-XqAt", "-c", "show data_directory", &url]).output().unwrap();
    assert_eq!(String::from_utf8(psql.stdout).unwrap(), format!("{folder}/data\n"));

    let stopped = Command::new("sh").args(["-c", &stop_command]).output().unwrap();
    assert_eq!((stopped.status.code(), stopped.stdout, stopped.stderr), (Some(0), vec![], vec![]));
    assert!(!traces.remain());
}
