//! What a spec may say, and what several have in common.

use bulk_testkit::api::{Answer, Asked, Server, bungie};
use serde_json::json;

use crate::bench::{Bench, MEMBERS, SECRET, statistics, targets};
use crate::support::{NOWHERE, Ran, bulk};

/// As it stands on a terminal of the usual width.
#[test]
fn the_spec_that_the_help_shows_is_one() {
    let bench = Bench::new(
        "CREATE SCHEMA stats; CREATE TABLE member (id int, type int);
         CREATE TABLE stats.stat (member int, activity bigint, stat text, value jsonb)",
    );
    let mut command = bulk(["crawl", "--help"]);
    command.env("COLUMNS", "80");
    let help = Ran::of(command);
    help.assert(0, &[]);
    let behind = help.stdout.split("The spec is a TOML file:\n").nth(1).unwrap();
    bench.spec(behind.split("\nPaths are JSONPath").next().unwrap());
    bench.run(&["--check"]).assert(0, &["the spec fits the database"]);
}

#[test]
fn what_cannot_be_run_says_why_before_any_request() {
    let bench = Bench::new(MEMBERS);
    let api = Server::builder(bungie(SECRET, |_| 1)).start().unwrap();
    let good = statistics(&api.url(), "[limits]\nrate = ['400/s']");
    for (was, is, status, said) in [
        ("table = \"stat\"", "table = \"stats\"", 1, "stats"),
        ("stat = \"key\"", "name = \"key\"", 2, "the column stat is to be required"),
        ("value = ", "worth = ", 1, "worth"),
        ("require = [\"stat\"]", "mode = \"upsert\"", 1, "key"),
        (
            "{account}",
            "{acount}",
            2,
            "a place for {acount}, and the input's query has no such thing; its columns are type, account, character",
        ),
        ("{account}", "{account.id}", 3, "account.id"),
        (
            "input.character",
            "input.chracter",
            2,
            "a column of public.stat is of input.chracter, and the input's query has no such thing; its columns are",
        ),
        ("input.character", "input['account.id']", 2, "a column of public.stat is of input.account.id, and"),
        ("\"env:API_KEY\"", "\"env:NO_SUCH_KEY\"", 2, "NO_SUCH_KEY is not set"),
        ("\"env:API_KEY\"", "\"plain\"", 2, "never in the spec"),
        ("{$key}", "{$kee}", 2, "{$kee}"),
        ("SELECT type", "SELEKT type", 1, "does not begin with SELECT"),
        ("each = ", "eech = ", 2, "unknown field `eech`"),
        ("\"$.ErrorCode == 1\"", "\"$.ErrorCode = 1\"", 2, "[success]"),
        ("rate = ['400/s']", "rate = []", 2, "it says no rate"),
        ("rate = ['400/s']", "rate = ['400']", 2, "400"),
    ] {
        assert!(good.contains(was), "{was}");
        bench.spec(&good.replacen(was, is, 1));
        let ran = bench.run(if status == 3 { &["--limit", "1"] } else { &[] });
        ran.assert(status, &[said]);
        assert_eq!(api.arrivals().len(), 0, "{is}");
    }
    // Of a file it is its first records that are looked at.
    let query = "query = \"SELECT type, account, character FROM member ORDER BY character\"";
    assert!(good.contains(query));
    bench.spec(&good.replace(query, "file = \"members.ndjson\""));
    let check = |lines: &str| {
        std::fs::write(bench.folder.path().join("members.ndjson"), lines).unwrap();
        bench.run(&["--check"])
    };
    let missing =
        "has a place for {account}, and members.ndjson has no such thing; its keys are acount, character, type";
    check("{\"type\": 3, \"acount\": 1}\n{\"character\": 5}\n").assert(2, &[missing]);
    check("{\"type\": 3}\n{\"character\": 5, \"account\": 1}\n").assert(0, &["the spec fits the database"]);
    check("").assert(0, &["the spec fits the database"]);
    check("{\"type\": 3}\n7\n").assert(1, &["members.ndjson, line 2: it is no JSON object"]);
    assert_eq!(api.arrivals().len(), 0);
    let ran = Ran::of(bulk(["crawl", "nowhere.toml", "--db", &format!("postgresql://me@{NOWHERE}/x")]));
    ran.assert(2, &["nowhere.toml"]);
    // The server is gone in the middle of nothing: each request fails, and is kept. It is not the records' fault.
    let nowhere = format!("http://{NOWHERE}");
    bench.spec(&good.replace(&api.url(), &nowhere));
    let ran = bench.run(&["--limit", "2", "--restart"]);
    ran.assert(4, &["2 requests in quarantine"]);
    // Each is named once.
    assert_eq!(ran.stderr.matches(&nowhere).count(), 2, "{}", ran.stderr);
    bench.spec(&good.replacen("X-API-Key", "X-Other-Key", 1));
    bench.run(&["--limit", "2", "--restart"]).assert(3, &["2 requests in quarantine"]);
    let refused = Server::builder(|_| Answer::error(403, "not yours")).start().unwrap();
    bench.spec(&good.replace(&api.url(), &refused.url()));
    bench.run(&["--limit", "2", "--restart"]).assert(6, &["access to it is denied", "2 requests in quarantine"]);
}

#[test]
fn what_specs_of_one_name_leave_out_is_never_mixed_up() {
    let bench = Bench::new("CREATE TABLE one (id int NOT NULL); CREATE TABLE two (id int NOT NULL)");
    let api = Server::builder(|_: &Asked| Answer::json(json!({"id": null}))).start().unwrap();
    let path = |name: &str| bench.folder.path().join(name);
    for (folder, table) in [("a", "one"), ("b", "two")] {
        std::fs::create_dir(path(folder)).unwrap();
        let spec = format!(
            r#"
            name = "{table}"
            [input]
            query = "SELECT 1 AS id"
            [request]
            url = "{}/{{id}}"
            [limits]
            rate = ["500/s"]
            [[rows]]
            table = "{table}"
            columns = {{ id = "$.id" }}
            "#,
            api.url()
        );
        std::fs::write(path(folder).join("job.toml"), spec).unwrap();
    }
    let run = |folder: &str, more: &[&str]| {
        let mut command = bulk(["crawl", "job.toml", "--rejects", "../left-out"]);
        command.args(more).env("BULK_DB", bench.database.url()).current_dir(path(folder));
        Ran::of(command)
    };
    let rows = path("left-out/job.toml.rejects.jsonl");
    let table = || std::fs::read_to_string(&rows).unwrap().contains("\"table\":\"public.one\"");
    run("a", &["--max-rejects", "1"]).assert(3, &["job.toml.rejects.jsonl: 1 row"]);
    assert!(table());
    // Refused before any request, whatever it would leave out; the own one goes on.
    api.clear();
    let of_other = format!("job.toml.rejects.jsonl is of the spec {}", path("a/job.toml").display());
    run("b", &["--max-rejects", "1"]).assert(2, &[&of_other, "name another folder"]);
    assert_eq!((api.arrivals().len(), table()), (0, true));
    run("a", &["--max-rejects", "1"]).assert(3, &["job.toml.rejects.jsonl: 1 row"]);
    // Without the file there is nothing to protect.
    std::fs::remove_file(&rows).unwrap();
    run("b", &["--max-rejects", "1"]).assert(3, &["job.toml.rejects.jsonl: 1 row"]);
    assert!(!table());
}

#[cfg(unix)]
#[test]
fn jobs_that_share_a_file_of_limits_take_turns() {
    let bench = Bench::new(MEMBERS);
    let api = Server::builder(bungie(SECRET, |_| 1)).start().unwrap();
    bench.spec(&statistics(&api.url(), "[limits]\nrate = ['10/s']\nspread = 'even'"));
    let other = statistics(&api.url(), "[limits]\nrate = ['1000/s']").replace("\"statistics\"", "\"others\"");
    std::fs::write(bench.folder.path().join("other.toml"), other.replace("table = \"stat\"", "table = \"stat2\""))
        .unwrap();
    bench.sql("CREATE TABLE stat2 (LIKE stat)");
    let mut second = bulk(["crawl", "other.toml", "--limits-file", "job.toml.limits"]);
    second.env("BULK_DB", bench.database.url()).env("API_KEY", SECRET).current_dir(bench.folder.path());

    let mut running = crate::support::Running::start(bench.command(&[]));
    running.wait_until("a request", |_| !api.arrivals().is_empty());
    let before = bench.sql("SELECT count(*) FROM bulk.crawl");
    // That makes no request, and so needs no limits.
    Ran::of(bench.command(&["--check"])).assert(0, &["the spec fits the database"]);
    let ran = Ran::of(second);
    ran.assert(1, &["another run uses the limits of this file"]);
    let (status, said) = running.end();
    assert_eq!((status, before.as_str()), (Some(0), "1"), "{said}");
    assert_eq!(api.arrivals().len(), 40, "{:?}", targets(&api));
}
