//! `bulk doctor` with everything in order, and with each part missing.

mod support;

use std::path::Path;
use std::process::Command;

use bulk_testkit::s3::{Fault, Rule, Server, Store};
use support::{BUCKET, NOWHERE, Ran, bulk, server};

fn bucket(store: Store) -> Server {
    Server::builder().bucket(BUCKET, store).start().unwrap()
}

fn full() -> Store {
    Store::memory().with("bulk-data/courts-2026-06-30.csv.bz2", "fifteen bytes..")
}

fn doctor(endpoint: &str, db: Option<&str>, dir: &Path) -> Command {
    let mut command = bulk(["doctor", "--endpoint", endpoint, "--dir"]);
    command.arg(dir);
    if let Some(db) = db {
        command.env("BULK_DB", db);
    }
    command
}

/// Asserts that this check alone fails, and that a way to mend it is told below it.
#[track_caller]
fn assert_fails(ran: &Ran, status: i32, check: &str, said: &[&str]) {
    ran.assert(status, said);
    let lines: Vec<_> = ran.stderr.lines().collect();
    let failing: Vec<_> = lines.iter().enumerate().filter(|(_, line)| line.starts_with("fails ")).collect();
    let [(place, line)] = failing[..] else { panic!("{}", ran.stderr) };
    assert!(line.starts_with(&format!("fails {check}: ")), "{}", ran.stderr);
    assert!(lines[place + 1].trim_start().starts_with("mend: "), "{}", ran.stderr);
}

#[test]
fn what_is_in_order_is_said_to_be() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), bucket(full()));
    let database = server().create_database("doctor").unwrap();
    let ran = Ran::of(doctor(&bucket.url(), Some(database.url()), folder.path()));
    let version = format!("PostgreSQL {}", server().version());
    ran.assert(
        0,
        &[
            "ok    database: ",
            database.name(),
            &version,
            "ok    bucket: ",
            "bulk-data/courts-2026-06-30.csv.bz2",
            "ok    disk: ",
            folder.path().to_str().unwrap(),
        ],
    );
    assert!(!ran.stderr.contains("fails"), "{}", ran.stderr);
    // What is more than is needed is said, and no failure.
    let roles = ["power", "plain"].map(|role| format!("{role}_{}", database.name()));
    let _dropped = roles.each_ref().map(|role| Dropped(role));
    let [power, plain] = &roles;
    for (role, rights) in [(power, "SUPERUSER"), (plain, "NOSUPERUSER")] {
        support::sql(&database, &format!("CREATE ROLE \"{role}\" LOGIN PASSWORD 'r' {rights}"));
    }
    support::sql(&database, &format!("GRANT CREATE ON DATABASE \"{}\" TO \"{plain}\"", database.name()));
    let url = database.url_for(power, "r");
    let said = format!("the role {power} is a superuser, and bulk mirror runs a schema's functions as it");
    Ran::of(doctor(&bucket.url(), Some(&url), folder.path())).assert(0, &["ok    database: ", &said]);
    let ran = Ran::of(doctor(&bucket.url(), Some(&database.url_for(plain, "r")), folder.path()));
    ran.assert(0, &["ok    database: "]);
    assert!(!ran.stderr.contains("superuser"), "{}", ran.stderr);
    support::sql(&database, &format!("DROP OWNED BY \"{plain}\""));
    let ran = Ran::of(doctor(&bucket.url(), None, folder.path()));
    ran.assert(0, &["database: not checked; give --db URL", "ok    bucket: ", "ok    disk: "]);
    // Nothing is left where it looked.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(support::sql(&database, "SELECT to_regnamespace('bulk') IS NULL"), "t");
}

#[test]
fn a_database_that_does_not_let_us_in_is_told_with_its_status() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), bucket(full()));
    let database = server().create_database("doctor").unwrap();
    let role = format!("reader_{}", database.name());
    let _dropped = Dropped(&role);
    support::sql(&database, &format!("CREATE ROLE \"{role}\" LOGIN PASSWORD 'reader'"));
    let as_reader = database.url_for(&role, "reader");
    let absent = database.url().replace(database.name(), "absent");
    for (url, status, said) in [
        (absent, 1, "database \"absent\" does not exist"),
        (format!("postgresql://postgres@{NOWHERE}/none"), 4, "cannot connect to database \"none\" at 127.0.0.1:1"),
        (as_reader, 6, "the role may not create the schema bulk for the ledger"),
        ("nonsense".to_owned(), 2, "the database URL cannot be used"),
    ] {
        assert_fails(&Ran::of(doctor(&bucket.url(), Some(&url), folder.path())), status, "database", &[said]);
    }
}

/// An export only reads, and a ledger may stand in a schema that somebody else made for the role.
#[test]
fn a_role_needs_no_more_than_its_job_does() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), bucket(full()));
    let database = server().create_database("doctor").unwrap();
    let role = format!("least_{}", database.name());
    let _dropped = Dropped(&role);
    support::sql(
        &database,
        &format!("CREATE ROLE \"{role}\" LOGIN PASSWORD 'r'; CREATE TABLE opinion (id bigint, court text)"),
    );
    support::sql(&database, &format!("GRANT SELECT ON opinion TO \"{role}\""));
    let export = "[[type]]\nname = 'opinions'\ntable = 'opinion'\nid = 'id'\ngroup = 'court'\n";
    std::fs::write(folder.path().join("export.toml"), export).unwrap();
    let url = database.url_for(&role, "r");
    let run = |what: &str| {
        let mut command = doctor(&bucket.url(), Some(&url), folder.path());
        command.args([what, "--anonymous"]).current_dir(folder.path());
        Ran::of(command)
    };
    run("export.toml").assert(0, &["ok    database: ", "ok    export: export.toml fits the database, 1 type"]);
    let place = format!("s3://{BUCKET}/bulk-data/");
    let denied =
        ["the role may not create the schema bulk for the ledger", "CREATE SCHEMA bulk AUTHORIZATION the role"];
    assert_fails(&run(&place), 6, "database", &denied);
    support::sql(&database, "CREATE SCHEMA bulk");
    assert_fails(&run(&place), 6, "database", &denied);
    support::sql(&database, &format!("ALTER SCHEMA bulk OWNER TO \"{role}\""));
    run(&place).assert(0, &["ok    database: ", "ok    bucket: "]);
    support::sql(&database, &format!("DROP OWNED BY \"{role}\""));
}

/// A role outlives the database that it was made for.
struct Dropped<'a>(&'a str);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        let _ = server().psql(server().url(), &format!("DROP ROLE IF EXISTS \"{}\"", self.0));
    }
}

#[test]
fn a_bucket_that_does_not_serve_us_is_told_with_its_status() {
    let folder = tempfile::tempdir().unwrap();
    let check = |endpoint: &str, status, said: &str| {
        assert_fails(&Ran::of(doctor(endpoint, None, folder.path())), status, "bucket", &[said]);
    };
    let location = format!("s3://{BUCKET}/bulk-data/");
    check(&bucket(Store::memory()).url(), 1, &format!("{location} is empty"));
    check(&bucket(Store::memory().with("other/a.csv", "id\n")).url(), 1, &format!("{location} is empty"));
    let denied = bucket(full());
    denied.fault(Rule::new(Fault::Status { code: 403, error: "AccessDenied".into(), retry_after: None }));
    check(&denied.url(), 6, "AccessDenied");
    check(&Server::builder().start().unwrap().url(), 1, "does not exist");
    check(&format!("http://{NOWHERE}"), 4, "cannot connect");
}

#[test]
fn a_folder_that_is_not_there_is_told() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), bucket(full()));
    let missing = folder.path().join("missing");
    let ran = Ran::of(doctor(&bucket.url(), None, &missing));
    assert_fails(&ran, 1, "disk", &[missing.to_str().unwrap(), "No such file or directory"]);
    assert!(!missing.exists());
}

#[test]
fn a_data_set_of_ones_own_is_looked_at_like_the_catalogue() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    let source = folder.path().join("source");
    std::fs::write(&path, format!("title = 'mine'\nsource = 'file://{}'\n[tables]\na = 'a'\n", source.display()))
        .unwrap();
    let check = || {
        let mut command = bulk(["doctor", path.to_str().unwrap(), "--dir"]);
        command.arg(folder.path());
        Ran::of(command)
    };
    assert_fails(&check(), 1, "bucket", &["cannot list", source.to_str().unwrap()]);
    std::fs::create_dir(&source).unwrap();
    assert_fails(&check(), 1, "bucket", &["is empty"]);
    std::fs::write(source.join("a-2026-06-30.csv"), "id\n").unwrap();
    check().assert(0, &["a-2026-06-30.csv"]);
    std::fs::write(&path, "title = 'mine'\n").unwrap();
    check().assert(2, &["mine.toml", "source"]);
    Ran::of(bulk(["doctor", "nothing"])).assert(2, &["there is no data set \"nothing\""]);
}

/// Each job's own: a bucket, a file of a web server, and specs that are held against the database.
#[test]
fn what_is_given_is_looked_at() {
    let (folder, bucket) = (tempfile::tempdir().unwrap(), bucket(full()));
    let database = server().create_database("doctor").unwrap();
    support::sql(&database, "CREATE TABLE opinion (id bigint, court text); CREATE TABLE stat (id bigint)");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let export = "[[type]]\nname = 'opinions'\ntable = 'opinion'\nid = 'id'\ngroup = 'court'\n";
    let crawl = format!(
        "[input]\nquery = 'SELECT 1 AS id'\n[request]\nurl = 'http://{NOWHERE}/{{id}}'\n[limits]\nrate = ['1/s']\n\
         [[rows]]\ntable = 'stat'\ncolumns = {{ id = '$.id' }}\n"
    );
    write("export.toml", export);
    write("crawl.toml", &crawl);
    let url = bucket.object_url(BUCKET, "bulk-data/courts-2026-06-30.csv.bz2");
    let run = |what: &[&str], db: Option<&str>| {
        let mut command = doctor(&bucket.url(), db, folder.path());
        command.args(what).current_dir(folder.path());
        Ran::of(command)
    };
    let place = format!("s3://{BUCKET}/bulk-");
    let ran = run(&[&place, "--anonymous", &url, "export.toml", "crawl.toml"], Some(database.url()));
    let file = format!("ok    file: {url} answers, with 15 B");
    ran.assert(
        0,
        &[
            &format!("ok    bucket: {place} answers; its first object is bulk-data/courts-2026-06-30.csv.bz2"),
            &file,
            "ok    export: export.toml fits the database, 1 type; the role sees all open transactions",
            "ok    crawl: crawl.toml fits the database",
            "ok    limits: ",
        ],
    );
    assert_eq!(support::sql(&database, "SELECT to_regnamespace('bulk') IS NULL"), "t");
    let ran = run(&["export.toml", "crawl.toml"], None);
    ran.assert(0, &["      export.toml: not checked; give --db URL", "      crawl.toml: not checked; give --db URL"]);

    write("export.toml", &export.replace("'court'", "'state'"));
    assert_fails(&run(&["export.toml"], Some(database.url())), 1, "export", &["state"]);
    write("crawl.toml", &crawl.replace("{ id =", "{ name ="));
    assert_fails(&run(&["crawl.toml"], Some(database.url())), 1, "crawl", &["name"]);
    write("crawl.toml", &crawl.replace("1/s", "often"));
    assert_fails(&run(&["crawl.toml"], Some(database.url())), 2, "crawl", &["crawl.toml: line "]);
    let missing = format!("{url}x");
    assert_fails(&run(&[&missing], None), 1, "file", &["does not exist"]);
    run(&["absent.toml"], None).assert(2, &["cannot read absent.toml"]);
}
