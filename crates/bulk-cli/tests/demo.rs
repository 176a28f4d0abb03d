//! `bulk demo --serve` with a server of its own, which is open to whoever started it and to nobody else on the machine.

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};

use bulk_pg::Session;
use rustix::process::Signal;
use support::{Ran, Running, bulk};

struct Demo {
    program: Child,
    variables: BTreeMap<String, String>,
}

impl Demo {
    fn start() -> Self {
        let mut command = bulk(["demo", "--serve", "--scale", "0.02", "--quiet"]);
        let mut program = command.env_remove("DATABASE_URL").stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(program.stdout.take().unwrap()).lines().take(3);
        let variables = lines.map(|line| {
            let line = line.unwrap();
            let (name, value) = line.strip_prefix("export ").and_then(|rest| rest.split_once('=')).unwrap();
            (name.to_owned(), value.trim_matches('\'').to_owned())
        });
        Self { variables: variables.collect(), program }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

#[test]
fn what_it_served_is_gone_when_it_is_stopped() {
    let mut command = bulk(["demo", "--serve", "--scale", "0.02"]);
    command.env_remove("DATABASE_URL");
    let mut running = Running::start(command);
    running.wait_until("it serves", |said| said.contains("run until Ctrl-C"));
    running.signal(Signal::INT);
    let (status, said) = running.end();
    assert_eq!(status, Some(130), "{said}");
    assert!(said.ends_with("interrupted; what it had started and invented is gone\n"), "{said}");
}

#[tokio::test]
async fn its_database_is_for_who_started_it_and_its_role_no_superuser() {
    let demo = Demo::start();
    let url = &demo.variables["BULK_DB"];
    // What is pasted into commands, whose arguments all see, has no password.
    let (place, file) = url.split_once("?passfile=").unwrap();
    let place = place.strip_prefix("postgresql://demo@127.0.0.1:").unwrap();
    let file = Path::new(file);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let session = Session::connect(url).await.unwrap();
    let sql =
        "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication FROM pg_roles WHERE rolname = session_user";
    assert!(!session.client().query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
    assert_eq!(bulk_pg::server_access(&session).await.unwrap(), None);
    for user in ["demo", "postgres"] {
        for password in [":demo", ":postgres"] {
            let refused =
                Session::connect(&format!("postgresql://{user}{password}@127.0.0.1:{place}")).await.unwrap_err();
            assert!(refused.is_denied(), "{user}{password}: {refused}");
        }
    }

    let folder = tempfile::tempdir().unwrap();
    let mut mirror = bulk(["mirror", "courtlistener", "--dir"]);
    mirror.arg(folder.path()).envs(&demo.variables);
    let ran = Ran::of(mirror);
    assert!(matches!(ran.status, Some(0 | 3)) && !ran.stderr.contains("superuser"), "{}", ran.stderr);
    let row = session.client().query_one("SELECT count(*) > 0 FROM search_court", &[]).await.unwrap();
    assert!(row.get::<_, bool>(0));
}
