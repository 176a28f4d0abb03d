//! `bulk crawl`, from a loopback API that counts its requests into a real PostgreSQL.

mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulk_core::{Limit, Resource, RunReport, RunVerdict, StageReading};
use bulk_testkit::api::{Answer, ArchivesSpace, Asked, Fault, Latency, Server, bungie, paged};
use bulk_testkit::postgres::Database;
use serde_json::json;
use support::{NOWHERE, Ran, bulk, files, kill_when, server, sql};

/// A session and a key that must never be seen.
const SECRET: &str = "s3cr3t-s3ss10n";
/// Later than any run of these tests.
const LATER: u64 = 4_000_000_000;

/// A spec, a database, and whatever it asks.
struct Bench {
    database: Database,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new(tables: &str) -> Self {
        let database = server().create_database("crawl").unwrap();
        sql(&database, tables);
        Self { database, folder: tempfile::tempdir().unwrap() }
    }

    fn spec(&self, text: &str) {
        std::fs::write(self.folder.path().join("job.toml"), text).unwrap();
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = bulk(["crawl", "job.toml"]);
        command.args(more).env("BULK_DB", self.database.url()).env("API_KEY", SECRET);
        command.current_dir(self.folder.path());
        command
    }

    #[track_caller]
    fn run(&self, more: &[&str]) -> Ran {
        let ran = Ran::of(self.command(more));
        let shown = format!("{}{}", ran.stdout, ran.stderr);
        assert!(!shown.contains(SECRET), "{shown}");
        for (name, bytes) in files(self.folder.path()) {
            assert!(!String::from_utf8_lossy(&bytes).contains(SECRET), "the secret is in {name}");
        }
        ran
    }

    #[track_caller]
    fn sql(&self, text: &str) -> String {
        sql(&self.database, text)
    }
}

/// The targets of the requests that arrived, in their order, and how often each did.
fn targets(api: &Server) -> BTreeMap<String, usize> {
    let mut targets = BTreeMap::new();
    for arrival in api.arrivals() {
        *targets.entry(arrival.target).or_default() += 1;
    }
    targets
}

const MEMBERS: &str = "
    CREATE TABLE member (type int, account bigint, character bigint PRIMARY KEY);
    INSERT INTO member SELECT 3, 4611686018000000000 + n, 2305843009000000000 + n FROM generate_series(1, 40) n;
    CREATE TABLE stat (character bigint, activity bigint, stat text, value jsonb);
    INSERT INTO stat VALUES (1, 1, 'of before', '{}');
    CREATE TABLE ready (at timestamptz DEFAULT now());";

/// The job of the seed pyLoader: the statistics of each member's character.
fn statistics(url: &str, more: &str) -> String {
    format!(
        r#"
        name = "statistics"
        [input]
        query = "SELECT type, account, character FROM member ORDER BY character"
        [request]
        url = "{url}/Platform/Destiny2/{{type}}/Account/{{account}}/Character/{{character}}/Stats/AggregateActivityStats/"
        headers = {{ X-API-Key = "{{$key}}" }}
        secrets = {{ key = "env:API_KEY" }}
        [success]
        rules = ["$.ErrorCode == 1"]
        throttle = "$.ThrottleSeconds"
        message = "$.Message"
        lasting = ["$.ErrorCode == 2101"]
        [[rows]]
        table = "stat"
        each = ["$.Response.activities[*]", "$.values.*"]
        columns = {{ character = "input.character", activity = "$1.activityHash", stat = "key", value = "$.basic" }}
        require = ["stat"]
        {more}"#
    )
}

#[test]
fn a_table_is_replaced_by_what_an_api_answers() {
    let bench = Bench::new(MEMBERS);
    let api = Server::builder(bungie(SECRET, |character| (character % 7) as usize * 11))
        .fault(Fault::Throttled(0), 0.05)
        .fault(Fault::Status(500), 0.05)
        .start()
        .unwrap();
    let more = "mode = 'replace'\n[limits]\nrate = ['400/s']\n[load]\nafter = ['ANALYZE stat', 'INSERT INTO ready DEFAULT VALUES']";
    bench.spec(&statistics(&api.url(), more));

    // What a run would do, and whether it can, cost few requests or none, and change nothing.
    bench.run(&["--check"]).assert(0, &["the spec fits the database"]);
    assert_eq!(api.arrivals().len(), 0);
    assert!(!bench.folder.path().join("job.toml.limits").exists());
    let shown = bench.run(&["--dry-run"]);
    shown.assert(0, &[]);
    assert!(shown.stdout.contains("GET http://") && shown.stdout.contains("stat: {"), "{}", shown.stdout);
    assert!(shown.stdout.contains("rows more"), "{}", shown.stdout);
    assert_eq!(shown.stdout.matches("GET http://").count(), 3, "{}", shown.stdout);
    let shown = bench.run(&["--dry-run", "--limit", "2"]);
    shown.assert(0, &[]);
    assert_eq!(shown.stdout.matches("GET http://").count(), 2, "{}", shown.stdout);
    assert_eq!(bench.sql("SELECT count(*), to_regclass('bulk.crawl') IS NULL FROM stat"), "1|t");
    api.clear();

    let ran = bench.run(&["--json"]);
    ran.assert(0, &[]);
    let loaded = ran.events_of("loaded").remove(0);
    let expected: u64 = (1..=40_u64).map(|n| (2_305_843_009_000_000_000 + n) % 7 * 11).sum();
    assert_eq!((loaded["calls"].as_u64(), loaded["rows"].as_u64()), (Some(40), Some(expected)));
    assert_eq!((loaded["complete"].as_bool(), loaded["quarantined"].as_u64()), (Some(true), Some(0)));
    let all = "SELECT count(*), count(DISTINCT (character, activity, stat)), min(character) > 1, (SELECT count(*) FROM ready) FROM stat";
    assert_eq!(bench.sql(all), format!("{expected}|{expected}|t|1"));
    assert_eq!(targets(&api).len(), 40);
    let failed = api.arrivals().iter().filter(|arrival| arrival.fault.is_some()).count();
    assert_eq!(api.arrivals().len(), 40 + failed);

    // Run again it is a new round: the same rows anew.
    bench.run(&[]).assert(0, &["40 calls", "complete"]);
    assert_eq!(bench.sql(all), format!("{expected}|{expected}|t|2"));
}

#[test]
fn killed_and_run_again_it_makes_no_call_twice_that_is_committed() {
    let bench = Bench::new(MEMBERS);
    bench.sql("INSERT INTO member SELECT 3, 5 + n, 9 + n FROM generate_series(1, 260) n");
    let api = Server::builder(bungie(SECRET, |_| 22)).start().unwrap();
    let at = |rate: &str| bench.spec(&statistics(&api.url(), &format!("[limits]\nrate = ['{rate}']\nspread = 'even'")));
    let character = |target: &str| target.split('/').nth(7).unwrap().to_owned();
    // Slow enough for the rest to be far away when the first ones are committed.
    at("10/s");
    let mut committed: Vec<String> = Vec::new();
    for _ in 0..2 {
        let before = committed.len();
        let done = || {
            let rows = "SELECT CASE WHEN to_regclass('bulk.call') IS NULL THEN 0
                        ELSE (xpath('//c/text()', query_to_xml('SELECT count(*) AS c FROM bulk.call', false, true, '')))[1]::text::int END";
            bench.sql(rows).parse::<usize>().unwrap()
        };
        kill_when(bench.command(&[]), || done() > before);
        // The server may be about to commit what it was sent.
        let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
        while bench.sql(others) != "0" {}
        let keys = bench.sql("SELECT key FROM bulk.call ORDER BY key");
        committed =
            keys.lines().map(|key| character(key.split(' ').nth(1).unwrap().trim_start_matches("http:/"))).collect();
    }
    assert!(committed.len() >= 2 && committed.len() < 300, "{committed:?}");
    api.clear();
    // Limits are no part of what the round is.
    at("1000/s");
    bench.run(&[]).assert(0, &["300 calls with 6600 rows", "complete"]);
    let asked: Vec<String> = api.arrivals().iter().map(|arrival| character(&arrival.target)).collect();
    assert_eq!(asked.len(), 300 - committed.len(), "{asked:?}");
    assert!(asked.iter().all(|one| !committed.contains(one)), "{asked:?}\n{committed:?}");
    let rows = "SELECT count(*), count(DISTINCT character), count(DISTINCT (character, activity, stat)) FROM stat WHERE character > 1";
    assert_eq!(bench.sql(rows), "6600|300|6600");
}

#[test]
fn what_fails_for_good_is_kept_with_its_request_and_asked_for_again() {
    let bench = Bench::new("CREATE TABLE item (id int PRIMARY KEY, name text)");
    let is_mended = Arc::new(AtomicBool::new(false));
    let mended = is_mended.clone();
    let api = Server::builder(move |asked: &Asked| {
        let id: u32 = asked.segments()[1].parse().unwrap();
        match id % 10 {
            3 if !mended.load(Ordering::SeqCst) => {
                let echo = asked.param("key").unwrap_or_default().to_owned();
                Answer::json(json!({"code": 7, "message": format!("no such {echo}")}))
            }
            4 if !mended.load(Ordering::SeqCst) => Answer::error(404, "not found"),
            _ => Answer::json(json!({"code": 1, "id": id, "name": format!("item {id}")})),
        }
    })
    .start()
    .unwrap();
    bench.spec(&format!(
        r#"
        [input]
        query = "SELECT n AS id FROM generate_series(1, 30) n"
        [request]
        url = "{}/items/{{id}}?key={{$key}}"
        secrets = {{ key = "env:API_KEY" }}
        [limits]
        rate = ["500/s"]
        [success]
        rules = ["$.code == 1"]
        lasting = ["$.code == 7"]
        message = "$.message"
        [[rows]]
        table = "item"
        columns = {{ id = "$.id", name = "$.name" }}
        "#,
        api.url()
    ));
    let ran = bench.run(&[]);
    ran.assert(3, &["24 calls with 24 rows", "6 requests in quarantine", "not complete; the same command goes on"]);
    assert_eq!(ran.stderr.matches("GET http").count(), 6, "{}", ran.stderr);
    assert_eq!(api.arrivals().len(), 30);
    let noted = "SELECT count(*), count(*) FILTER (WHERE response LIKE '%no such%' AND reason LIKE '%no such%'),
                        count(*) FILTER (WHERE reason LIKE '%does not exist%'), bool_and(q::text NOT LIKE '%s3cr3t%'),
                        min(inputs->0->>'id'), min(attempts) FROM bulk.quarantine q";
    assert_eq!(bench.sql(noted), "6|3|3|t|13|1");

    // Still the same: just these are asked for, and nothing is loaded twice.
    api.clear();
    bench.run(&[]).assert(3, &["6 requests that failed in an earlier run are made again", "24 calls with 24 rows"]);
    assert_eq!(api.arrivals().len(), 6);
    assert_eq!(bench.sql("SELECT count(*), max(attempts) FROM bulk.quarantine"), "6|2");

    is_mended.store(true, Ordering::SeqCst);
    api.clear();
    bench.run(&[]).assert(0, &["30 calls with 30 rows", "0 requests in quarantine: complete"]);
    assert_eq!(api.arrivals().len(), 6);
    assert_eq!(bench.sql("SELECT count(*), (SELECT count(*) FROM bulk.quarantine) FROM item"), "30|0");
}

#[test]
fn what_failed_before_keeps_no_run_from_what_is_new() {
    let bench = Bench::new("CREATE TABLE item (id int)");
    let is_down = Arc::new(AtomicBool::new(false));
    let down = is_down.clone();
    let api = Server::builder(move |asked: &Asked| {
        let id: u32 = asked.segments()[1].parse().unwrap();
        match id % 8 {
            _ if down.load(Ordering::SeqCst) => Answer::error(501, "not now"),
            3 => Answer::error(404, "not found"),
            7 => Answer::json(json!({"code": 7})),
            _ => Answer::json(json!({"code": 1, "id": id})),
        }
    })
    .start()
    .unwrap();
    bench.spec(&format!(
        r#"
        [input]
        file = "ids.ndjson"
        [request]
        url = "{}/items/{{id}}"
        [limits]
        rate = ["2000/s"]
        [success]
        rules = ["$.code == 1"]
        lasting = ["$.code == 7"]
        [[rows]]
        table = "item"
        columns = {{ id = "$.id" }}
        "#,
        api.url()
    ));
    let ids = |last: u32| {
        let lines: String = (1..=last).map(|id| format!("{{\"id\": {id}}}\n")).collect();
        std::fs::write(bench.folder.path().join("ids.ndjson"), lines).unwrap();
        api.clear();
    };
    ids(600);
    bench.run(&[]).assert(3, &["450 calls with 450 rows", "150 requests in quarantine"]);
    ids(640);
    let again = "150 requests that failed in an earlier run are made again";
    bench.run(&[]).assert(3, &[again, "480 calls with 480 rows", "160 requests in quarantine"]);
    assert_eq!(api.arrivals().len(), 150 + 40);

    // They count into the limit.
    for (limit, again, requests) in [("25", "25 requests", 25), ("170", "160 requests", 160)] {
        ids(640);
        let again = format!("{again} that failed in an earlier run are made again");
        bench.run(&["--limit", limit]).assert(3, &[&again, "without --limit it goes on"]);
        assert_eq!(api.arrivals().len(), requests);
    }

    // A server that is gone is found out by them as well.
    is_down.store(true, Ordering::SeqCst);
    ids(650);
    bench.run(&["--give-up-after", "20"]).assert(1, &["20 records in a row failed", "501"]);
    assert!(!targets(&api).contains_key("/items/650"), "{:?}", targets(&api));
}

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
fn each_list_has_its_own_most_pages() {
    let bench = Bench::new("CREATE TABLE item (id int PRIMARY KEY)");
    let list = paged((1..=30).map(|id| json!(id)).collect(), 10);
    let api = Server::builder(move |asked: &Asked| match asked.segments()[0].as_str() {
        "items" => Answer::json(json!({"id": asked.segments()[1], "last_page": 1})),
        _ => list(asked),
    })
    .start()
    .unwrap();
    let spec = |input: &str, deletes: &str| {
        bench.spec(&format!(
            r#"
            [input]
            url = "{url}/number"
            pages = {{ parameter = "page", last = "$.last_page"{input} }}
            each = "$.items[*]"
            [request]
            url = "{url}/items/{{id}}"
            [pages]
            parameter = "page"
            last = "$.last_page"
            max = 1
            [limits]
            rate = ["2000/s"]
            [[rows]]
            table = "item"
            mode = "upsert"
            columns = {{ id = "$.id" }}
            [[deletes]]
            url = "{url}/number"
            pages = {{ parameter = "page", last = "$.last_page"{deletes} }}
            each = ["$.items[*]"]
            table = "item"
            columns = {{ id = "$" }}
            "#,
            url = api.url()
        ));
    };
    spec("", "");
    bench.run(&[]).assert(0, &["31 calls", "complete"]);
    assert_eq!((api.arrivals().len(), bench.sql("SELECT count(*) FROM item").as_str()), (3 + 30 + 3, "0"));
    for (input, deletes, calls) in [(", max = 2", "", 20), ("", ", max = 2", 30)] {
        spec(input, deletes);
        let calls = format!("{calls} calls");
        bench.run(&["--restart"]).assert(4, &["it has more than 2 pages", &calls, "not complete"]);
    }
}

/// The objects of an ArchivesSpace, in batches of 25, what changed alone, and what was deleted.
fn objects(url: &str) -> String {
    format!(
        r#"
        [input]
        url = "{url}/repositories/2/archival_objects?all_ids=true&modified_since={{$since}}"
        [request]
        url = "{url}/repositories/2/archival_objects?id_set={{id}}&resolve[]=subjects"
        headers = {{ X-ArchivesSpace-Session = "{{$session}}" }}
        secrets = {{ session = "env:API_KEY" }}
        [limits]
        rate = ["500/s"]
        [batch]
        size = 25
        field = "id"
        elements = "$[*]"
        id = "$.uri"
        of-record = "/repositories/2/archival_objects/{{id}}"
        [[rows]]
        table = "object"
        mode = "upsert"
        columns = {{ uri = "$.uri", title = "$.title", subject = "$.subjects[0]._resolved.title" }}
        [since]
        slack = "1s"
        [[deletes]]
        url = "{url}/delete-feed?modified_since={{$since}}&page_size=2"
        pages = {{ parameter = "page", last = "$.last_page" }}
        each = ["$.results[*]"]
        table = "object"
        columns = {{ uri = "$" }}
        "#
    )
}

#[test]
fn only_what_changed_is_asked_for_in_batches_and_what_is_gone_is_deleted() {
    let bench = Bench::new("CREATE TABLE object (uri text PRIMARY KEY, title text, subject text)");
    let space = ArchivesSpace::new(SECRET);
    for id in 1..=110 {
        space.put(id, &format!("Box {id}"), 1000);
    }
    // One that is listed and cannot be had.
    let hidden: Arc<Mutex<Option<String>>> = Arc::default();
    let (served, hides) = (space.clone(), hidden.clone());
    let api = Server::builder(move |asked| {
        let answer = served.answer(asked);
        let hidden = hides.lock().unwrap().clone();
        match (asked.param("id_set"), hidden) {
            (Some(_), Some(uri)) => {
                let mut objects: Vec<serde_json::Value> = serde_json::from_slice(&answer.body).unwrap();
                objects.retain(|object| object["uri"] != uri);
                Answer::json(objects.into())
            }
            _ => answer,
        }
    })
    .start()
    .unwrap();
    bench.spec(&objects(&api.url()));
    let count = |what: &str| {
        targets(&api).into_iter().filter(|(target, _)| target.contains(what)).map(|(_, n)| n).sum::<usize>()
    };

    *hidden.lock().unwrap() = Some("/repositories/2/archival_objects/30".to_owned());
    bench
        .run(&[])
        .assert(3, &["110 calls with 109 rows", "1 request in quarantine", "it has nothing for /repositories/2"]);
    assert_eq!((count("all_ids"), count("id_set="), count("delete-feed")), (1, 5, 1), "110 in batches of 25");
    assert_eq!(bench.sql("SELECT count(*), max(subject) FROM object"), "109|Subject 6");
    assert_eq!(bench.sql("SELECT watermark IS NULL, finished_at IS NULL FROM bulk.crawl"), "t|t");

    // Its own request, and the list of those that there are: the batches are done.
    *hidden.lock().unwrap() = None;
    api.clear();
    bench.run(&[]).assert(0, &["111 calls with 110 rows", "complete"]);
    assert_eq!((count("all_ids"), count("id_set="), count("delete-feed")), (1, 1, 0), "{:?}", targets(&api));
    assert_eq!(bench.sql("SELECT watermark IS NOT NULL, finished_at IS NOT NULL FROM bulk.crawl"), "t|t");

    // Two have changed, and five are gone.
    for id in [7, 90] {
        space.put(id, &format!("Crate {id}"), LATER);
    }
    for id in 101..=105 {
        space.delete(id, LATER);
    }
    api.clear();
    let before = bench.sql("SELECT watermark FROM bulk.crawl");
    bench.run(&[]).assert(0, &["complete"]);
    assert_eq!((count("all_ids"), count("id_set=7,90"), count("delete-feed")), (1, 1, 3), "{:?}", targets(&api));
    assert_eq!(api.arrivals().len(), 5);
    assert_eq!(bench.sql("SELECT count(*), count(*) FILTER (WHERE title LIKE 'Crate%') FROM object"), "105|2");
    assert_eq!(bench.sql(&format!("SELECT watermark > '{before}' FROM bulk.crawl")), "t");

    // What is gone between list and request is no failure, if so asked.
    space.put(50, "Crate 50", LATER + 1);
    *hidden.lock().unwrap() = Some("/repositories/2/archival_objects/50".to_owned());
    bench.spec(&objects(&api.url()).replace("[batch]", "[batch]\n        may-miss = true"));
    bench.run(&[]).assert(0, &["0 requests in quarantine: complete"]);

    // All of it anew.
    *hidden.lock().unwrap() = None;
    api.clear();
    bench.run(&["--restart"]).assert(0, &["complete"]);
    assert_eq!(count("modified_since=0"), 1 + 3, "{:?}", targets(&api));
    assert_eq!(bench.sql("SELECT count(*), count(*) FILTER (WHERE title LIKE 'Crate%') FROM object"), "105|3");
}

#[test]
fn a_list_that_fails_ends_the_run_and_nothing_is_passed_over() {
    let bench = Bench::new("CREATE TABLE object (uri text PRIMARY KEY, title text, subject text)");
    let space = ArchivesSpace::new(SECRET);
    (1..=10).for_each(|id| space.put(id, "Box", 1000));
    let is_broken = Arc::new(AtomicBool::new(true));
    let (served, broken) = (space.clone(), is_broken.clone());
    let api = Server::builder(move |asked| match asked.path.as_str() {
        "/delete-feed" if broken.load(Ordering::SeqCst) => Answer::error(403, "not yours"),
        _ => served.answer(asked),
    })
    .start()
    .unwrap();
    bench.spec(&objects(&api.url()));
    bench.run(&[]).assert(6, &["GET http://", "/delete-feed?modified_since=0", "not yours"]);
    assert_eq!(
        bench.sql("SELECT count(*), (SELECT watermark IS NULL AND finished_at IS NULL FROM bulk.crawl) FROM object"),
        "10|t"
    );
    is_broken.store(false, Ordering::SeqCst);
    api.clear();
    bench.run(&[]).assert(0, &["11 calls with 10 rows", "complete"]);
    assert_eq!(api.arrivals().len(), 2, "{:?}", targets(&api));
}

#[test]
fn records_come_from_files_pages_are_followed_and_values_arrive_as_they_are() {
    let bench = Bench::new("CREATE TABLE page (id bigint, place int, value text, whole jsonb, amount numeric)");
    let values =
        ["tab\there", "line\nbreak\r", "back\\slash \\. \\N", "\"quotes\"", "", "\u{1F600}\u{0}", "\u{10FFFF}", "null"];
    let api = Server::builder(move |asked| {
        let page: usize = asked.param("page").unwrap().parse().unwrap();
        let body = format!(
            "{{\"last\": 4, \"amount\": 0.10000000000000000000000000001, \"items\": {}}}",
            json!([values[2 * page - 2], values[2 * page - 1]])
        );
        Answer::text("application/json", body)
    })
    .start()
    .unwrap();
    let spec = |url: &str| {
        format!(
            r#"
        [input]
        file = "-"
        [request]
        method = "GET"
        url = "{url}/lists/{{list.id}}"
        [pages]
        parameter = "page"
        last = "$.last"
        [limits]
        rate = ["500/s"]
        [[rows]]
        table = "page"
        each = ["$.items[*]"]
        columns = {{ id = "input.list.id", place = "key", value = "$", whole = "[$]", amount = "response.amount" }}
        "#
        )
    };
    bench.spec(&spec(&api.url()));
    let input = "{\"list\": {\"id\": 9007199254740993}}\n\n{\"list\": {\"id\": 9007199254740993}}\n";
    let ran = Ran::fed(bench.command(&["--max-rejects", "1"]), input);
    ran.assert(3, &["1 call with 7 rows loaded, 1 row left out"]);
    assert_eq!(targets(&api).values().sum::<usize>(), 4, "equal records are asked for once: {:?}", targets(&api));
    // As bytes: psql leaves out what it takes for no character.
    let found = bench.sql("SELECT encode(convert_to(value, 'UTF8'), 'hex') FROM page ORDER BY value COLLATE \"C\"");
    let mut expected: Vec<&str> = values.into_iter().filter(|value| !value.contains('\0')).collect();
    expected.sort_unstable();
    let hex = |value: &&str| value.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(found.split('\n').map(str::to_owned).collect::<Vec<_>>(), expected.iter().map(hex).collect::<Vec<_>>());
    assert_eq!(bench.sql("SELECT DISTINCT id, amount FROM page"), "9007199254740993|0.10000000000000000000000000001");
    assert_eq!(bench.sql("SELECT \"column\", sqlstate, row FROM bulk.call_reject"), "value|22021|6");

    // What is no record is named, and what came before it stays.
    let bad = Ran::fed(
        bench.command(&["--restart", "--max-rejects", "1"]),
        "{\"list\": {\"id\": 1}}\n[2]\n{\"list\": {\"id\": 3}}\n",
    );
    bad.assert(1, &["standard input, line 2: it is no JSON object", "1 call with 7 rows"]);
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

#[cfg(unix)]
#[test]
fn stopped_by_a_signal_it_keeps_what_was_answered() {
    use rustix::process::Signal;
    let bench = Bench::new(MEMBERS);
    bench.sql("INSERT INTO member SELECT 3, 5 + n, 9 + n FROM generate_series(1, 260) n");
    let api = Server::builder(bungie(SECRET, |_| 11)).start().unwrap();
    let at = |rate: &str| bench.spec(&statistics(&api.url(), &format!("[limits]\nrate = ['{rate}']\nspread = 'even'")));
    at("20/s");
    let mut running = support::Running::start(bench.command(&[]));
    running.wait_until("ten requests", |_| api.arrivals().len() >= 10);
    running.signal(Signal::INT);
    let (status, said) = running.end();
    assert_eq!(status, Some(130), "{said}");
    assert!(said.contains("what has been answered is kept") && said.contains("the same command goes on"), "{said}");
    // What was sent counts, whatever came of it.
    assert!(said.contains(&format!("{} requests in ", api.arrivals().len())), "{said}");
    let kept: usize = bench.sql("SELECT count(*) FROM bulk.call").parse().unwrap();
    assert!((1..300).contains(&kept), "{kept}");
    api.clear();
    at("1000/s");
    bench.run(&[]).assert(0, &["300 calls with 3300 rows", "complete"]);
    assert_eq!(api.arrivals().len(), 300 - kept);
}

/// Records in batches, into a table that keeps whatever comes, twice if it comes twice.
fn batches(url: &str, size: usize) -> String {
    format!(
        r#"
        [input]
        file = "ids.ndjson"
        [request]
        url = "{url}/items?ids={{id}}"
        [limits]
        rate = ["1000/s"]
        [batch]
        size = {size}
        field = "id"
        elements = "$[*]"
        id = "$.id"
        of-record = "{{id}}"
        [[rows]]
        table = "item"
        columns = {{ id = "$.id", note = "input.note" }}
        "#
    )
}

#[test]
fn a_record_counts_by_itself_whichever_others_it_is_asked_for_with() {
    let bench = Bench::new("CREATE TABLE item (id int, note text)");
    let refused: Arc<Mutex<Option<u64>>> = Arc::new(Mutex::new(Some(13)));
    let refuses = refused.clone();
    let api = Server::builder(move |asked: &Asked| {
        let ids: Vec<u64> = asked.param("ids").unwrap().split(',').map(|id| id.parse().unwrap()).collect();
        match *refuses.lock().unwrap() {
            Some(0) => Answer::error(401, "no session"),
            Some(bad) if ids.contains(&bad) => Answer::error(422, "no such item"),
            _ => Answer::json(ids.iter().map(|id| json!({"id": id})).collect()),
        }
    })
    .start()
    .unwrap();
    let ids = |ids: &[u64]| {
        let lines: String = ids.iter().map(|id| format!("{{\"id\": {id}}}\n")).collect();
        std::fs::write(bench.folder.path().join("ids.ndjson"), lines).unwrap();
    };
    let all: Vec<u64> = (1..=60).collect();
    ids(&all);
    // A run that is cut short in the middle of a batch, and one with other batches, over records in another order.
    bench.spec(&batches(&api.url(), 10));
    bench.run(&["--limit", "27"]).assert(3, &["26 calls with 26 rows", "without --limit it goes on"]);
    let reversed: Vec<u64> = all.iter().rev().copied().chain([5, 60]).collect();
    ids(&reversed);
    bench.spec(&batches(&api.url(), 7));
    api.clear();
    bench.run(&[]).assert(3, &["59 calls with 59 rows", "1 request in quarantine"]);
    assert_eq!(api.arrivals().len(), 1 + 33_usize.div_ceil(7), "13 again, and 28 to 60");
    assert_eq!(bench.sql("SELECT count(*), count(DISTINCT id) FROM item"), "59|59");

    // The round ends without it; the next one asks for it with the others.
    bench.run(&["--max-quarantined", "1"]).assert(3, &["59 calls with 59 rows", "complete"]);
    *refused.lock().unwrap() = None;
    bench.sql("TRUNCATE item");
    api.clear();
    bench.run(&[]).assert(0, &["60 calls with 60 rows", "complete"]);
    assert_eq!(api.arrivals().len(), 62_usize.div_ceil(7), "as many as there are batches");
    assert_eq!(bench.sql("SELECT count(*), count(DISTINCT id) FROM item"), "60|60");

    // Where everything is refused it gives up, and goes on where it was.
    *refused.lock().unwrap() = Some(0);
    // Slow enough for the third to be given up.
    let slow = batches(&api.url(), 7).replace("1000/s", "20/s");
    bench.spec(&slow.replace("[limits]", "[limits]\n        concurrency = 1"));
    bench.sql("TRUNCATE item");
    api.clear();
    bench.run(&["--give-up-after", "14"]).assert(6, &["14 records in a row failed", "no session"]);
    assert!(api.arrivals().len() < 9, "{:?}", targets(&api));
    *refused.lock().unwrap() = None;
    bench.run(&[]).assert(0, &["60 calls with 60 rows", "0 requests in quarantine: complete"]);
    assert_eq!(bench.sql("SELECT count(*), count(DISTINCT id) FROM item"), "60|60");

    // Rows of another kind are wanted of all, and what cannot be loaded is listed.
    let spec = batches(&api.url(), 20)
        .replace("input.note", "$.id")
        .replace("\"item\"", "\"item\"\n        require = [\"missing\"]");
    bench.spec(&spec.replace("note = ", "missing = \"$.nothing\", note = "));
    bench.sql("ALTER TABLE item ADD missing text");
    bench
        .run(&["--max-rejects", "100", "--rejects", "left-out"])
        .assert(3, &["60 rows left out", "left-out/job.toml.rejects.jsonl: 60 rows"]);
    let listed = std::fs::read_to_string(bench.folder.path().join("left-out/job.toml.rejects.jsonl")).unwrap();
    assert_eq!(listed.lines().filter(|line| line.contains("\"column\":\"missing\"")).count(), 60, "{listed}");
    // It was the name of a file once.
    bench.run(&["--rejects", "left-out.ndjson"]).assert(2, &["it is a folder, for SPEC.rejects.jsonl; name one"]);
    bench.run(&["--rejects", "left-out/job.toml.rejects.jsonl"]).assert(2, &["it is a folder"]);
    std::fs::write(bench.folder.path().join("file"), "").unwrap();
    bench.run(&["--rejects", "file"]).assert(2, &["--rejects file: that is a file; what is left out goes to a folder"]);
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

#[test]
fn no_more_memory_is_used_than_the_spec_says() {
    let bench = Bench::new("CREATE TABLE item (id int PRIMARY KEY, text text)");
    // A stated size that no answer exceeds, and one that is too long.
    let api = Server::builder(|asked: &Asked| match asked.segments()[0].as_str() {
        "41" => Answer::json(json!({"text": "x".repeat(3 << 20)})),
        _ => Answer::json(json!({"text": "x".repeat(1 << 20)})),
    })
    .start()
    .unwrap();
    bench.spec(&format!(
        r#"
        [input]
        query = "SELECT n AS id FROM generate_series(1, 41) n"
        [request]
        url = "{}/{{id}}"
        [limits]
        rate = ["5000/s"]
        memory = "4MiB"
        answer = "2MiB"
        [[rows]]
        table = "item"
        mode = "upsert"
        columns = {{ id = "input.id", text = "$.text" }}
        "#,
        api.url()
    ));
    let too_long = "is too large for memory: 3145739 bytes where 2097152 are allowed";
    let ran = bench.run(&["--report", "run.json"]);
    ran.assert(3, &["40 calls with 40 rows", "1 request in quarantine", too_long]);
    assert_eq!(bench.sql("SELECT count(*), min(length(text)) FROM item"), "40|1048576");
    let report: RunReport =
        serde_json::from_slice(&std::fs::read(bench.folder.path().join("run.json")).unwrap()).unwrap();
    let fetch = stage(&report, "fetch");
    assert!(!fetch.total.budget.is_zero(), "{fetch:?}");
}

/// What bound a run, as it says at its end and as its report has it.
#[track_caller]
fn bound(bench: &Bench) -> (RunReport, Ran) {
    let ran = bench.run(&["--json", "--report", "run.json"]);
    assert_eq!(ran.status, Some(0), "{}{}", ran.stdout, ran.stderr);
    let said: RunVerdict = serde_json::from_value(ran.events_of("verdict").remove(0)).unwrap();
    let report = RunReport::parse(&std::fs::read(bench.folder.path().join("run.json")).unwrap()).unwrap();
    assert_eq!(Some(&said), report.verdict.as_ref());
    (report, ran)
}

#[track_caller]
fn limit(report: &RunReport) -> (Limit, Resource) {
    let used = &report.verdict.as_ref().unwrap().bottleneck.as_ref().unwrap_or_else(|| panic!("{report}")).used;
    (used.limit.clone(), used.resource)
}

fn stage<'r>(report: &'r RunReport, name: &str) -> &'r StageReading {
    report.meters.stages.iter().find(|stage| stage.name == name).unwrap()
}

#[test]
fn what_bound_a_crawl_is_said() {
    let bench = Bench::new(MEMBERS);
    bench.sql("INSERT INTO member SELECT 3, 5 + n, 9 + n FROM generate_series(1, 80) n");
    let of = |name: &str| Limit::Stage { stage: name.to_owned() };

    // 120 at 40 a second.
    let api =
        Server::builder(bungie(SECRET, |_| 11)).latency(Latency::fixed(Duration::from_millis(20))).start().unwrap();
    bench.spec(&statistics(&api.url(), "[limits]\nrate = ['40/s']"));
    let (report, ran) = bound(&bench);
    assert_eq!(limit(&report), (Limit::RateLimit { stage: "requests".to_owned() }, Resource::RateLimit), "{report}");
    let part = ran.events_of("crawled").remove(0)["of_permitted"].as_f64().unwrap();
    // How close it comes depends on what else the machine does; the benchmark looks at that.
    assert!((0.1..=1.0).contains(&part), "{part}");
    let items = ["requests", "fetch", "explode", "copy"].map(|name| stage(&report, name).total.items);
    assert_eq!(items, [120, 120, 1320, 1320]);
    let file = &report.files[0];
    assert_eq!(
        (file.name.as_str(), file.table.as_deref(), file.records),
        ("statistics", Some("public.stat"), Some(1320))
    );

    // Two at a time, which take a tenth of a second each.
    let slow =
        Server::builder(bungie(SECRET, |_| 11)).latency(Latency::fixed(Duration::from_millis(100))).start().unwrap();
    bench.sql("DELETE FROM member WHERE character > 45 AND character < 1000");
    bench.spec(&statistics(&slow.url(), "[limits]\nrate = ['1000/s']\nconcurrency = 2"));
    let (report, _) = bound(&bench);
    assert_eq!(limit(&report), (of("fetch"), Resource::Server), "{report}");

    // Each row takes the database five milliseconds.
    bench.sql(
        "CREATE FUNCTION slow(bigint) RETURNS boolean LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_sleep(0.005); RETURN true; END';
         ALTER TABLE stat ADD CONSTRAINT slow CHECK (slow(activity)) NOT VALID",
    );
    bench.spec(&statistics(&api.url(), "[limits]\nrate = ['1000/s']"));
    let (report, _) = bound(&bench);
    assert_eq!(limit(&report), (of("copy"), Resource::Server), "{report}");
    let events = &stage(&report, "copy").server_events;
    let most = events.iter().max_by_key(|(_, times)| **times).map(|(event, _)| event.as_str());
    assert_eq!(most, Some("Timeout/PgSleep"), "{report}");
}

#[test]
fn rows_and_requests_that_failed_are_in_the_report() {
    let bench = Bench::new("CREATE TABLE item (id int CHECK (id <> 2))");
    let api = Server::builder(|asked: &Asked| match asked.path.as_str() {
        "/items/3" => Answer::error(404, "not found"),
        path => Answer::json(json!({"id": path.rsplit('/').next()})),
    })
    .start()
    .unwrap();
    bench.spec(&format!(
        r#"
        [input]
        query = "SELECT n AS id FROM generate_series(1, 3) n"
        [request]
        url = "{}/items/{{id}}"
        [limits]
        rate = ["500/s"]
        [[rows]]
        table = "item"
        columns = {{ id = "$.id" }}
        "#,
        api.url()
    ));
    bench.run(&["--report", "run.json", "--max-rejects", "1"]).assert(3, &["1 row left out"]);
    let report = RunReport::parse(&std::fs::read(bench.folder.path().join("run.json")).unwrap()).unwrap();
    let [failed, job] = &report.files[..] else { panic!("{report}") };
    assert_eq!((failed.name.as_str(), failed.records), (format!("GET {}/items/3", api.url()).as_str(), None));
    assert!(failed.error.as_ref().unwrap().contains("does not exist"), "{failed:?}");
    assert_eq!((job.name.as_str(), job.records, job.rejected), ("job", Some(2), 1));
    let [reject] = &report.rejects[..] else { panic!("{report}") };
    assert!(reject.file.starts_with(&format!("public.item, GET {}/items/2 #", api.url())), "{reject:?}");
    assert_eq!((reject.record, reject.reason.contains("check constraint")), (1, true));
}

/// Pages of half a megabyte, which are too many to be one transaction.
#[test]
fn killed_within_the_pages_of_one_call_it_goes_on_behind_those_that_are_committed() {
    let bench = Bench::new("CREATE TABLE page (list int, page int, text text)");
    let pages = 60;
    let text = "x".repeat(500_000);
    let api = Server::builder(move |asked: &Asked| {
        let page: usize = asked.param("page").unwrap().parse().unwrap();
        Answer::json(json!({"last": pages, "page": page, "text": text}))
    })
    .start()
    .unwrap();
    let at = |rate: &str| {
        bench.spec(&format!(
            r#"
            [input]
            query = "SELECT 1 AS id"
            [request]
            url = "{}/lists/{{id}}"
            [pages]
            parameter = "page"
            last = "$.last"
            [limits]
            rate = ["{rate}"]
            spread = "even"
            [[rows]]
            table = "page"
            columns = {{ list = "input.id", page = "$.page", text = "$.text" }}
            "#,
            api.url()
        ));
    };
    at("20/s");
    let committed = || {
        let is_there = bench.sql("SELECT to_regclass('bulk.call') IS NOT NULL") == "t";
        if is_there { bench.sql("SELECT count(*) FROM page").parse::<usize>().unwrap() } else { 0 }
    };
    kill_when(bench.command(&[]), || committed() > 0);
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    while bench.sql(others) != "0" {}
    let kept = committed();
    assert!((1..pages).contains(&kept), "{kept}");
    assert_eq!(bench.sql("SELECT next, rows FROM bulk.call"), format!("{kept} {}|{kept}", kept + 1));
    api.clear();
    at("1000/s");
    let ran = bench.run(&[]);
    ran.assert(0, &["1 call with 60 rows", "complete"]);
    assert_eq!(api.arrivals().len(), pages - kept);
    assert_eq!(bench.sql("SELECT count(*), count(DISTINCT page), min(length(text)) FROM page"), "60|60|500000");
}

#[cfg(unix)]
#[test]
fn an_input_that_stalls_keeps_nothing_from_being_committed_and_told() {
    use std::io::Write;
    let bench = Bench::new("CREATE TABLE item (id int)");
    let api = Server::builder(|asked: &Asked| Answer::json(json!({"id": asked.segments()[1]}))).start().unwrap();
    bench.spec(&format!(
        r#"
        [input]
        file = "-"
        [request]
        url = "{}/items/{{id}}"
        [limits]
        rate = ["500/s"]
        [[rows]]
        table = "item"
        columns = {{ id = "$.id" }}
        "#,
        api.url()
    ));
    let mut command = bench.command(&[]);
    command.stdin(std::process::Stdio::piped());
    let mut running = support::Running::start(command);
    let mut input = running.child.stdin.take().unwrap();
    input.write_all(b"{\"id\": 1}\n{\"id\": 2}\n{\"id\": 3}\n{\"id\":").unwrap();
    running.wait_until("three rows", |_| bench.sql("SELECT count(*) FROM item") == "3");
    running.wait_until("progress", |said| said.contains("3 requests in"));
    input.write_all(b" 4}\n").unwrap();
    drop(input);
    let (status, said) = running.end();
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("4 calls with 4 rows loaded"), "{said}");
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

    let mut running = support::Running::start(bench.command(&[]));
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
