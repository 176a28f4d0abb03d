//! Rounds of calls: once each, whatever ends a run, and what failed again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bulk_testkit::api::{Answer, Asked, Fault, Server, bungie};
use serde_json::json;

use crate::bench::{Bench, MEMBERS, SECRET, statistics, targets};
use crate::support::kill_when;

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

#[cfg(unix)]
#[test]
fn stopped_by_a_signal_it_keeps_what_was_answered() {
    use rustix::process::Signal;
    let bench = Bench::new(MEMBERS);
    bench.sql("INSERT INTO member SELECT 3, 5 + n, 9 + n FROM generate_series(1, 260) n");
    let api = Server::builder(bungie(SECRET, |_| 11)).start().unwrap();
    let at = |rate: &str| bench.spec(&statistics(&api.url(), &format!("[limits]\nrate = ['{rate}']\nspread = 'even'")));
    at("20/s");
    let mut running = crate::support::Running::start(bench.command(&[]));
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
